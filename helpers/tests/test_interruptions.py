# SPDX-License-Identifier: MIT
"""What breaks from outside: killed processes, two at once, an exception in mid-run, a stopped run, a dead kernel."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
import torch

from helpers import embedded, findings, generation, patching, readouts, store
from helpers.commands.run import build
from helpers.pairs import Member, Pair
from helpers.stats import Interval
from helpers.store import ROOT
from helpers.tests import remote_client
from helpers.tests.conftest import wait_for
from helpers.tests.test_patching import digest

PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister", "Two"]

# Processes that really kill themselves at a chosen place, the how many-th time it is reached

OF = {"text": (Path, "write_text"), "array": (Path, "write_bytes"), "replace": (os, "replace")}


def arm(what: str, number: int) -> None:
    """Die half through a write or right after a file was replaced, as by `kill -9`: nothing is flushed or tidied."""
    original, calls = getattr(*OF[what]), itertools.count(1)

    def run(*args: Any, **options: Any) -> None:
        original(*args, **options)
        if next(calls) == number:
            os.truncate(args[0], args[0].stat().st_size // 2) if what != "replace" else None
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(*OF[what], run)


def generate(pair: Pair, seed: int) -> None:
    """Completions of both models, three batches each."""
    generation.BATCH = {"cpu": 2}
    for member in pair.members:
        how = {"max_new_tokens": 6, "temperature": 1.0, "seed": seed}
        generation.stored_completions(pair, member, PROMPTS, name=f"answers_{member.role}", **how)


def keep_arrays(pair: Pair, seed: int) -> None:
    for name in ("one", "two"):
        store.kept(pair, name, lambda rows: {"a": np.random.default_rng(seed).normal(size=(30, 4))}, 30)


def record(pair: Pair, seed: int) -> None:
    """Three findings in the ledger."""
    found = Interval(0.5 + seed, 0.25, 1.0 + seed, 8)
    for name in ("F01", "F02", "F03"):
        what = {"notebook": "01_x", "quantity": "q", "unit": "nats", "control": ("c", found)}
        findings.record(pair, name, **what, rules=[findings.Part("p", found, findings.Rule("above", 0.0))])


def convert(pair: Pair, seed: int) -> None:
    """A cache folder of two files, as `embedded` builds them."""

    def build(folder: Path) -> None:
        for name in ("config.json", "weights.json"):
            time.sleep(0.02)  # so that two at once would meet
            (folder / name).write_text(json.dumps([name, seed] * 500))

    embedded._once("base", build)


WORK: dict[Callable[[Pair, int], None], list[tuple[str, int]]] = {
    generate: [("text", 1), ("replace", 1), ("replace", 3)],
    keep_arrays: [("array", 1), ("replace", 1), ("text", 1)],
    record: [("text", 1), ("replace", 2)],
    convert: [("text", 2)],
}


def left_in(folder: Path) -> dict[str, str]:
    """Every file in sight by name and hash, locks aside."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): store.sha256(path) for path in paths}


def done(work: Callable[[Pair, int], None], pair: Pair, folder: Path, seed: int, *point: Any, times: int = 1) -> list:
    """How a piece of work ends in a process of its own, perhaps armed, or in as many at once."""

    def inside() -> None:
        torch.set_num_threads(1)
        store.ROOT = folder
        os.environ["R1_CACHE"] = str(folder / "cache")
        arm(*point) if point else None
        work(pair, seed)

    processes = [get_context("fork").Process(target=inside) for _ in range(times)]
    for process in processes:
        process.start()
    return [process.join() or process.exitcode for process in processes]


@pytest.mark.parametrize("work", WORK)
def test_work_killed_and_done_again_or_done_twice_at_once_equals_an_uninterrupted_run(qwen, tmp_path, work):
    """Killed over the results of other settings, which are then asked for again."""
    expected = {}
    for seed in (0, 1):
        assert done(work, qwen, tmp_path / f"clean-{seed}", seed) == [0]
        expected[seed] = left_in(tmp_path / f"clean-{seed}")
    assert done(work, qwen, tmp_path / "together", 1, times=2) == [0, 0]
    assert left_in(tmp_path / "together") == expected[1] != expected[0]
    for point in WORK[work]:
        folder, others = tmp_path / "-".join(map(str, point)), (0,) if work is not convert else ()
        assert all(done(work, qwen, folder, seed) == [0] for seed in others)
        assert done(work, qwen, folder, 1, *point) == [-signal.SIGKILL], point
        for seed in (*others, 1):
            assert done(work, qwen, folder, seed) == [0] and left_in(folder) == expected[seed], (point, seed)


# An exception in mid-run


def hybrid(pair: Pair, **choice: Any) -> Any:
    with patching.swapped(pair, "base", [0, 2], **choice) as changed:
        return readouts.last_hidden(changed, PROMPTS)


OF_WEIGHTS = {"logit_direction", "vocabulary_scores", "promoted", "function_vector", "writing_direction",
              "value_vector_cosines"}  # fmt: skip
INTERVENTIONS: dict[str, Callable[[Pair], Any]] = {
    **{name: ask for name, ask in remote_client.ASKED.items() if name not in OF_WEIGHTS},
    "layers swapped": hybrid,
    "parts interpolated": lambda pair: hybrid(pair, part="mlp", amount=0.5, norm=True),
    "embedding and head swapped": lambda pair: hybrid(pair, embedding=True, head=True),
    "single swaps": lambda pair: patching.single_swaps(pair, "base", PROMPTS, readouts.stop_odds(pair.base)),
    "attention pattern": lambda pair: readouts.attention_pattern(pair.base, PROMPTS[0], [(1, 2)])[1],
}


def state(member: Member) -> Any:
    """Every bit of a model, which tensors they are, and everything that can be hung on it."""
    hung = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in member.model.modules()]
    settings = member.config._attn_implementation, member.model.generation_config.to_dict()
    learning = [value.requires_grad for value in member.model.parameters()]
    return digest(member), learning, hung, settings, torch.is_grad_enabled()


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_interrupt_anywhere_leaves_both_models_bit_exact(qwen, request, name):
    """In the first, the middle and the last call of any MLP."""
    run, calls = INTERVENTIONS[name], []

    def trip(*_: Any) -> None:
        calls.append(1)
        if len(calls) == place:
            raise KeyboardInterrupt("in mid-run")

    place = 0
    for block in (block for member in qwen.members for block in member.model.model.layers):
        request.addfinalizer(block.mlp.register_forward_pre_hook(trip).remove)
    run(qwen)  # nnsight wraps a model on its first trace
    before = [state(member) for member in qwen.members]
    calls.clear()
    expected = run(qwen)
    for place in (1, (len(calls) + 1) // 2, len(calls)):
        calls.clear()
        with pytest.raises(KeyboardInterrupt, match="in mid-run"):
            run(qwen)
        assert [state(member) for member in qwen.members] == before, f"after call {place}"
    place = 0
    assert remote_client.difference(run(qwen), expected) == 0


# Runs

WAITING = """# %%
import time
from pathlib import Path
while Path("wait").exists():
    Path("waiting").touch()
    time.sleep(0.05)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the helpers with one executed notebook, which waits as long as a file says so."""
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data" / "smol").mkdir(parents=True)
    shutil.copy(ROOT / "data" / "claims.json", tmp_path / "data")
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "notebooks" / "03_x.py").write_text(WAITING)
    return tmp_path


def started(folder: Path, *options: str) -> subprocess.Popen:
    """`python -m helpers run` in a process group of its own, as a terminal starts it."""
    (folder / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(folder / "temporary")}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    how["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # where the tests' own shell ignores it
    return subprocess.Popen([sys.executable, "-m", "helpers", "run", *options], cwd=folder, env=environment, **how)


def kernels(folder: Path) -> list[psutil.Process]:
    """A kernel runs where its notebook lies."""
    running = [one for one in psutil.process_iter(["cwd", "status"]) if one.info["status"] != psutil.STATUS_ZOMBIE]
    return [one for one in running if one.info["cwd"] == str(folder / "notebooks")]


ENDS = {  # what happens in mid-notebook -> exit code and line
    "stopped": (lambda run, kernel: os.killpg(run.pid, signal.SIGINT), 130,
                "stopped in 03_x.py, which keeps its old outputs; run it again to go on\n"),
    "killed": (lambda run, kernel: os.killpg(run.pid, signal.SIGKILL), -signal.SIGKILL, ""),
    "the kernel dies": (lambda run, kernel: kernel.kill(), 1,
                        "error: 03_x.py failed and keeps its old outputs: its kernel died, as for want of memory\n"),
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_a_run_that_ends_early_says_so_in_one_line_and_leaves_nothing_behind(project, how):
    (end, code, line), built = ENDS[how], project / "notebooks" / "03_x.ipynb"
    nbformat.write(build(built.with_suffix(".py")), built)
    before = built.read_text()
    (project / "notebooks" / "wait").touch()
    running = started(project)
    wait_for((project / "notebooks" / "waiting").exists, 60)
    end(running, *kernels(project))
    assert (running.communicate(timeout=60)[1], running.returncode) == (line, code)
    assert built.read_text() == before
    wait_for(lambda: not kernels(project), 20)


@pytest.mark.parametrize("fails", [False, True], ids=["well", "failed"])
def test_a_scratch_copy_is_gone_when_the_run_ends(project, fails):
    """After its ledger was read."""
    work = "1 / 0" if fails else "open('../data/smol/findings.json', 'w').write('[]')"
    (project / "notebooks" / "03_x.py").write_text(f"# %%\n{work}\n")
    running = started(project, "--quick", "--keep")
    said = running.communicate(timeout=120)
    assert running.returncode == fails, said
    assert not list((project / "temporary").iterdir())
    assert (project / "data" / "smol" / "quick_findings.json").exists() is not fails
