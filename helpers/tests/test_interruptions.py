# SPDX-License-Identifier: MIT
"""`python -m helpers run` killed or stopped in mid-notebook, a cache that vanishes, a clock set back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from helpers.store import ROOT
from helpers.tests.killing import left_in

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
arrays = kept(pair, "arrays_{number}", lambda: {{"a": np.random.default_rng(SEED).normal(size=(30, 4))}}, SEED)
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


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Path:
    """A copy of it whose results are gone: the notebooks are those of before, with a mark of their own."""
    folder = Path(shutil.copytree(whole, tmp_path / "again"))
    for kind in ("data", "figures"):
        shutil.rmtree(folder / kind / "own")
    for path in (folder / "notebooks").glob("*.ipynb"):
        path.write_text(path.read_text().replace('"cells"', '"old": 1, "cells"', 1))
    return folder


def test_a_run_killed_in_mid_notebook_goes_on_to_the_same_numbers(whole, again):
    """The whole process group, so that no handler runs; the kernel, in a group of its own, ends by itself."""
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
)
def test_a_stopped_run_says_so_in_one_line_and_leaves_nothing_behind(again, stop, code, line):
    third = again / "notebooks" / "03_x.ipynb"
    before = third.read_bytes()
    (again / "notebooks" / "wait_3").touch()
    running = started(again, "03")
    stop(again, running)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (code, line)
    assert third.read_bytes() == before
    until(lambda: not processes_in(again), seconds=5)


def test_a_kernel_that_dies_is_told_in_one_line(again):
    """As the system ends it where memory runs out."""
    (again / "notebooks" / "wait_3").touch()
    running = started(again, "03")
    until((again / "notebooks" / "waiting_3").exists)
    for process in psutil.Process(running.pid).children():
        process.kill()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert said == "error: 03_x.py failed and keeps its old outputs: its kernel died, as for want of memory\n"
