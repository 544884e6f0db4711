# SPDX-License-Identifier: MIT
"""`python -m helpers run` killed or stopped in mid-notebook, a cache that vanishes, a clock set back."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file

from helpers import embedded, findings, generation, store
from helpers.generation import complete, stored_completions
from helpers.pairs import Pair, load_pair
from helpers.series.run import build, refuse_unsynced
from helpers.stats import Interval
from helpers.store import ROOT, UserError, kept
from helpers.tests.killing import left_in

# Runs

# What a notebook of the study does, on the tiny pair: completions, arrays, a finding and a figure, with a pause to be
# caught in: it waits only where a file says so. The third notebook has nothing but the pause.
NOTEBOOK = """# %% [markdown]
# # {number}

# %% tags=["parameters"]
PAIR = {pair!r}
SEED = {number}

# %%
import numpy as np
from helpers import figures, findings
from helpers.generation import stored_completions
from helpers.pairs import load_pair
from helpers.stats import Interval
from helpers.store import kept
pair = load_pair(PAIR)
print(pair.name)

# %%
PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister", "Two"]
how = dict(max_new_tokens=6, temperature=1.0, seed=SEED, batch_size=2)
done = [stored_completions(pair, m, PROMPTS, name=f"answers_{{m.role}}_{number}", **how) for m in pair.members]
arrays = kept(pair, "arrays_{number}", lambda rows: {{"a": np.random.default_rng(SEED).normal(size=(30, 4))}}, 30)
mean = float(arrays["a"].mean())
print([text.tokens for texts in done for text in texts], mean)

{pause}
# %%
found = Interval(mean, mean - 1, mean + 1, 8)
what = dict(notebook="{number:02d}_x", quantity="q", unit="nats", interval=found, control=found, control_name="c")
findings.record(pair, "F{number:02d}", **what, rule="r", verdict="holds")
panel = {{"a": {{"b": ([found] * 3, figures.BASE)}}}}
fig = figures.lines(panel, range(3), title="t", xlabel="x", ylabel="y")
figures.save_figure(fig, "{number:02d}_a", pair="own", alt="a line")
"""
PAUSE = """# %%
import time
from pathlib import Path
while Path("wait_{number}").exists():
    Path("waiting_{number}").touch()
    time.sleep(0.05)
"""


def project(folder: Path, pair: tuple[Path, Path]) -> Path:
    """A copy of the helpers with small notebooks."""
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    (folder / "notebooks").mkdir()
    (folder / "data" / "smol").mkdir(parents=True)
    shutil.copy2(ROOT / "data" / "prompts.jsonl", folder / "data")
    for number in (1, 2, 3):
        pause = PAUSE.format(number=number)
        text = pause if number == 3 else NOTEBOOK.format(number=number, pair=tuple(map(str, pair)), pause=pause)
        (folder / "notebooks" / f"{number:02d}_x.py").write_text(text)
    return folder


def started(folder: Path, only: str = "0") -> subprocess.Popen:
    """`python -m helpers run` in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "helpers", "run", "--only", only],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "R1_FRESH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests' own shell ignores it
    )


def finished(folder: Path, only: str = "0") -> None:
    running = started(folder, only)
    said = running.communicate(timeout=120)
    assert running.returncode == 0 and said[1] == "", said


def until(there: Callable[[], object], seconds: int = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes_in(folder: Path) -> list[str]:
    """What runs in a folder: a kernel runs where its notebook lies."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        if (process.info["cwd"] or "").startswith(str(folder)) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or ()))
    return found


def results(folder: Path) -> dict[str, dict[str, str]]:
    return {kind: left_in(folder / kind) for kind in ("data", "figures", "notebooks")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, qwen_folders: tuple[Path, Path]) -> Path:
    """A project whose notebooks ran to their ends."""
    folder = project(tmp_path_factory.mktemp("run") / "whole", qwen_folders)
    finished(folder)
    return folder


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory, qwen_folders: tuple[Path, Path]) -> Path:
    """A project of whose notebooks the last one ran."""
    folder = project(tmp_path_factory.mktemp("run") / "third", qwen_folders)
    finished(folder, "03")
    return folder


def copied(project: Path, folder: Path) -> Path:
    """A copy whose results are gone: the notebooks are those of before, with a mark of their own."""
    shutil.copytree(project, folder)
    for kind in ("data", "figures"):
        shutil.rmtree(folder / kind / "own", ignore_errors=True)
    for path in (folder / "notebooks").glob("*.ipynb"):
        path.write_text(path.read_text().replace('"cells"', '"old": 1, "cells"', 1))
    return folder


@pytest.mark.slow
def test_a_run_killed_in_mid_notebook_goes_on_to_the_same_numbers(whole, tmp_path):
    """The whole process group, so that no handler runs; the kernel, in a group of its own, ends by itself."""
    again = copied(whole, tmp_path / "again")
    second = again / "notebooks" / "02_x.ipynb"
    before = second.read_bytes()
    (again / "notebooks" / "wait_2").touch()
    running = started(again)
    until((again / "notebooks" / "waiting_2").exists)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    until(lambda: not processes_in(again), seconds=20)
    assert second.read_bytes() == before
    for path in (again / "data" / "own").glob("[!.]*"):
        load_file(path) if path.suffix == ".safetensors" else json.loads(path.read_text())
    assert not (again / "figures" / "own" / "02_a.png").exists(), "it was killed before that"
    for name in ("wait_2", "waiting_2"):
        (again / "notebooks" / name).unlink()
    finished(again)
    assert results(again) == results(whole)


def stop_in_a_cell(folder: Path, running: subprocess.Popen) -> None:
    until((folder / "notebooks" / "waiting_3").exists)
    os.killpg(running.pid, signal.SIGINT)


def stop_twice(folder: Path, running: subprocess.Popen) -> None:
    stop_in_a_cell(folder, running)
    time.sleep(0.3)
    os.killpg(running.pid, signal.SIGINT)


def stop_while_the_kernel_starts(folder: Path, running: subprocess.Popen) -> None:
    until(lambda: [name for name in processes_in(folder) if "ipykernel" in name])
    os.killpg(running.pid, signal.SIGINT)


def terminate(folder: Path, running: subprocess.Popen) -> None:
    until((folder / "notebooks" / "waiting_3").exists)
    os.killpg(running.pid, signal.SIGTERM)


LINE = "stopped in 03_x.py, which keeps its old outputs; run it again to go on\n"


@pytest.mark.parametrize(
    ("stop", "code", "line"),
    [
        (stop_in_a_cell, 130, LINE),
        (stop_twice, 130, LINE),
        (stop_while_the_kernel_starts, 130, LINE),
        (terminate, -signal.SIGTERM, ""),
    ],
    ids=["in a cell", "twice", "while the kernel starts", "terminated"],
)
def test_a_stopped_run_says_so_in_one_line_and_leaves_nothing_behind(third, tmp_path, stop, code, line):
    again = copied(third, tmp_path / "again")
    built = again / "notebooks" / "03_x.ipynb"
    before = built.read_bytes()
    (again / "notebooks" / "wait_3").touch()
    running = started(again, "03")
    stop(again, running)
    _, said = running.communicate(timeout=60)
    ended = running.returncode, said
    assert ended == (code, line) or (stop is stop_twice and ended == (-signal.SIGINT, line)), ended
    assert built.read_bytes() == before
    until(lambda: not processes_in(again), seconds=5)


def test_a_kernel_that_dies_is_told_in_one_line(third, tmp_path):
    """As the system ends it where memory runs out."""
    again = copied(third, tmp_path / "again")
    (again / "notebooks" / "wait_3").touch()
    running = started(again, "03")
    until((again / "notebooks" / "waiting_3").exists)
    for process in psutil.Process(running.pid).children():
        process.kill()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert said == "error: 03_x.py failed and keeps its old outputs: its kernel died, as for want of memory\n"


@pytest.mark.parametrize("fails", [False, True], ids=["well", "failed"])
def test_a_scratch_copy_is_gone_when_the_run_ends(tmp_path, qwen_folders, fails):
    """After its ledger was read."""
    folder = project(tmp_path / "project", qwen_folders)
    for path in (folder / "notebooks").glob("0[12]*"):
        path.unlink()
    ledger = "../data/smol/findings.json"
    work = "1 / 0" if fails else f"open({ledger!r}, 'w').write('[]')"
    (folder / "notebooks" / "03_x.py").write_text(f"# %%\n{work}\n")
    (folder / "requirements.txt").touch()
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "helpers", "run", "--quick", "--keep"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == fails, done.stderr
    assert not list((tmp_path / "temporary").iterdir())
    assert (folder / "data" / "smol" / "quick_findings.json").exists() is not fails


# A cache that vanishes


@pytest.fixture
def built(qwen_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The embedded pair's way into the cache, with tiny models at its ends: what was built, in order."""
    done = []

    def copy(source: Path, folder: Path) -> None:
        done.append(source.name)
        shutil.copytree(source, folder, dirs_exist_ok=True)

    monkeypatch.setenv("R1_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_convert", lambda folder: copy(qwen_folders[0], folder))
    monkeypatch.setattr(embedded, "_merge", lambda adapter, folder: copy(qwen_folders[1], folder))
    return done


def logits(pair: Pair) -> list[torch.Tensor]:
    return [member.model(**member.encode(["The bus stops"])).logits for member in pair.members]


@pytest.mark.parametrize("lost", ["all", "a model", "the locks", "a file"])
def test_what_is_gone_from_the_cache_is_made_again(built, tmp_path, lost):
    """Also under the eyes of a process that has it open, which does not notice."""
    before, cache = load_pair("smol", device="cpu"), tmp_path / "cache"
    expected, texts = logits(before), complete(before.base, ["A cat"], max_new_tokens=4)
    (base,) = cache.glob("smol-base-*/")
    if lost == "all":
        shutil.rmtree(cache)
    elif lost == "a model":
        shutil.rmtree(base)
    elif lost == "the locks":
        for path in cache.glob("*.lock"):
            path.unlink()
    else:
        (base / "tokenizer.json").unlink()
    assert all(map(torch.equal, logits(before), expected))
    assert [text.tokens for text in complete(before.base, ["A cat"], max_new_tokens=4)] == [texts[0].tokens]
    again = load_pair("smol", device="cpu")
    redone = {"all": ["base", "distilled"], "a model": ["base"], "the locks": [], "a file": ["base"]}[lost]
    assert built == ["base", "distilled", *redone]
    assert all(map(torch.equal, logits(again), expected)) and again.describe() == before.describe()


def test_a_cache_that_vanishes_while_it_is_filled_is_one_line(built, tmp_path, monkeypatch):
    def vanish(folder: Path) -> None:
        shutil.rmtree(tmp_path / "cache")
        (folder / "config.json").write_text("{}")

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_convert", vanish)
        with pytest.raises(UserError, match="cannot prepare .*smol-base.*No such file.*R1_CACHE") as caught:
            load_pair("smol", device="cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert load_pair("smol", device="cpu").base.n_layers == 3


# A wrong clock

FUTURE, PAST = 4102444800, 86400  # the years 2100 and 1970


def dated(folder: Path, when: int) -> None:
    """Every file as if written then."""
    for path in folder.rglob("*"):
        os.utime(path, (when, when))


@pytest.mark.parametrize("written", [FUTURE, PAST])
def test_stored_results_are_reused_by_what_they_are_made_from(qwen, data_here, monkeypatch, written):
    """Whenever they say they were written, and computed again for another seed, whenever they say so."""
    monkeypatch.setattr("helpers.store.data_dir", lambda pair: data_here / pair)
    made, batch = [], generation._complete_batch

    def count(*args: object, **options: object) -> object:
        made.append("texts")
        return batch(*args, **options)

    write = store.write_sidecar
    monkeypatch.setattr(store, "write_sidecar", lambda *told: (made.append("arrays"), write(*told)))
    monkeypatch.setattr(generation, "_complete_batch", count)

    def work(seed: int) -> list[str]:
        made.clear()
        how = dict(name="answers", max_new_tokens=4, temperature=1.0, seed=seed)
        texts = [text.tokens for text in stored_completions(qwen, qwen.base, ["A cat"], **how)]
        arrays = kept(qwen, "arrays", lambda rows: {"a": np.random.default_rng(seed).normal(size=4)}, 4)
        results.append((texts, arrays["a"].tolist()))
        dated(data_here, written)
        return list(made)

    results: list[tuple[object, object]] = []
    assert [work(seed) for seed in (0, 0, 1, 1, 0)] == [
        ["texts", "arrays"],
        [],
        ["texts", "arrays"],
        [],
        ["texts", "arrays"],
    ]
    assert results[0] == results[1] == results[4] and results[2] == results[3] != results[0]


def test_work_goes_on_while_the_clock_runs_backwards(qwen, data_here, monkeypatch, built):
    """Locks included, though files left by others are of the year 2100."""
    monkeypatch.setattr("helpers.store.data_dir", lambda pair: data_here / pair)
    cache = data_here / "cache"
    cache.mkdir()
    for name in ("smol-base-bcc81830", embedded.adapter_sha256(embedded.adapter_dir())[:8]):
        (cache / f"{name}.lock").touch()
    dated(cache, FUTURE)
    ticks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: FUTURE - 3600.0 * next(ticks))
    one, done = Interval(1.0, 0.0, 2.0, 9), []

    def work() -> None:
        pair = load_pair("smol", device="cpu")
        stored_completions(pair, pair.base, ["A cat", "Two"], name="answers", max_new_tokens=3, batch_size=1)
        kept(pair, "arrays", lambda rows: {"a": np.zeros(3)}, 3)
        what = dict(notebook="01", quantity="q", unit="u", interval=one, control=one, control_name="c", rule="r")
        for name in ("F01", "F02", "F01"):
            findings.record(pair, name, **what, verdict="holds")
        done.append([row["id"] for row in findings.load_findings(pair.name)])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert done == [["F01", "F02"]], "it waits, or failed"
    assert json.loads((data_here / "smol" / "arrays.meta.json").read_text())["date"]


@pytest.mark.parametrize(("source_at", "built_at"), [(FUTURE, PAST), (PAST, FUTURE)])
@pytest.mark.parametrize("edited", ["source", "notebook"])
def test_which_twin_was_edited_is_seen_whatever_the_clock_says(tmp_path, source_at, built_at, edited):
    """A notebook that differs from what was executed was edited: a run would overwrite that."""
    source, executed = tmp_path / "01_x.py", tmp_path / "01_x.ipynb"
    source.write_text("# %%\na = 1\n")
    notebook = build(source, {})
    if edited == "source":
        source.write_text("# %%\na = 2\n")
    else:
        notebook.cells[0].source = "a = 2"
    nbformat.write(notebook, executed)
    os.utime(source, (source_at, source_at))
    os.utime(executed, (built_at, built_at))
    if edited == "source":
        refuse_unsynced(source)
        return
    with pytest.raises(UserError, match=r"01_x.ipynb was edited since it was executed .*jupytext --sync"):
        refuse_unsynced(source)
    jupytext.write(jupytext.read(executed), source)
    refuse_unsynced(source)
