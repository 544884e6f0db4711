# SPDX-License-Identifier: MIT
"""What breaks from outside: killed processes, errors in mid-run, a stopped run, a dead kernel, a wrong clock."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from helpers import generation, patching, readouts, store
from helpers.generation import stored_completions
from helpers.pairs import Member, Pair
from helpers.store import ROOT, kept
from helpers.tests import killing, remote_client

PROMPTS = ["The bus stops at the corner", "A cat"]
# Killed processes


@pytest.fixture(scope="module")
def left(qwen_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every piece of work in `killing` left on disk."""
    command = [sys.executable, "-m", "helpers.tests.killing", *map(str, qwen_folders)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "R1_FRESH": ""}
    command.append(str(tmp_path_factory.mktemp("killed")))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("work", killing.WORK)
def test_work_killed_and_done_again_or_done_twice_at_once_equals_an_uninterrupted_run(left, work):
    found, clean = left[work.__name__], left[work.__name__]["clean"]
    assert found["ends"] == [0, 0, 0, 0] and found["together"] == clean[1] and found["built"] == 1
    for row, point in zip(left[work.__name__]["killed"], killing.WORK[work], strict=True):
        assert row["ends"] == [0, -signal.SIGKILL, 0, 0], f"{point}: killed once, and every other run ends well"
        for found, expected in ((row["again"], clean[1]), (row["other"], clean[0])):
            assert expected.items() <= found.items(), point
            assert found.keys() <= clean[0].keys() | clean[1].keys(), f"{point}: nothing else is left in sight"


# An exception in mid-run


def swap(**choice: Any) -> Callable[[Pair], Any]:
    def run(pair: Pair) -> Any:
        with patching.swapped(pair, "base", [0, 2], **choice) as hybrid:
            return readouts.last_hidden(hybrid, PROMPTS)

    return run


OF_WEIGHTS = {"logit_direction", "vocabulary_scores", "promoted", "function_vector", "writing_direction",
              "value_vector_cosines"}  # fmt: skip
INTERVENTIONS: dict[str, Callable[[Pair], Any]] = {
    **{name: ask for name, ask in remote_client.ASKED.items() if name not in OF_WEIGHTS},
    "layers swapped": swap(),
    "parts interpolated": swap(part="mlp", amount=0.5, norm=True),
    "embedding and head swapped": swap(embedding=True, head=True),
    "single swaps": lambda pair: patching.single_swaps(pair, "base", PROMPTS, [5], [6]),
    "attention pattern": lambda pair: readouts.attention_pattern(pair.base, PROMPTS[0], [(1, 2)])[1],
}


def state(member: Member) -> Any:
    """Every bit of a model, which tensors they are, and everything that can be hung on it."""
    values = member.model.named_parameters(remove_duplicate=False)
    bits = [(name, id(v), v.requires_grad, hashlib.sha256(v.numpy().tobytes()).hexdigest()) for name, v in values]
    hung = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in member.model.modules()]
    settings = member.config._attn_implementation, member.model.generation_config.to_dict()
    return bits, hung, settings, member.lock.locked(), torch.is_grad_enabled()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_exception_anywhere_leaves_both_models_bit_exact(qwen, request, name, error):
    """In the first, the middle and the last call of any MLP."""
    run, calls = INTERVENTIONS[name], []

    def trip(*_: Any) -> None:
        calls.append(1)
        if len(calls) == place:
            raise error("in mid-run")

    place = 0
    for block in (block for member in qwen.members for block in member.model.model.layers):
        request.addfinalizer(block.mlp.register_forward_pre_hook(trip).remove)
    run(qwen)  # nnsight wraps a model on its first trace
    before = [state(member) for member in qwen.members]
    calls.clear()
    expected = run(qwen)
    for place in (1, (len(calls) + 1) // 2, len(calls)):
        calls.clear()
        with pytest.raises(error, match="in mid-run"):
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
    (folder / "temporary").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "helpers", "run", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(folder / "temporary"), "R1_FRESH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests' own shell ignores it
    )


def until(there: Callable[[], object], seconds: int = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


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
    end, code, line = ENDS[how]
    first = started(project)
    assert first.communicate(timeout=120)[1] == "" and first.returncode == 0
    built = project / "notebooks" / "03_x.ipynb"
    built.write_text(before := built.read_text().replace('"cells"', '"old": 1, "cells"', 1))
    (project / "notebooks" / "wait").touch()
    running = started(project)
    until((project / "notebooks" / "waiting").exists)
    end(running, *kernels(project))
    assert (running.communicate(timeout=60)[1], running.returncode) == (line, code)
    assert built.read_text() == before
    until(lambda: not kernels(project), seconds=20)


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


# A wrong clock


@pytest.mark.parametrize("year", [1970, 2100])
def test_stored_results_are_reused_by_what_they_are_made_from(qwen, data_here, monkeypatch, year):
    """Whenever they say they were written, and computed again for another seed."""
    monkeypatch.setattr("helpers.store.data_dir", lambda pair: data_here / pair)
    made, batch, write = [], generation._complete_batch, store.write_sidecar
    monkeypatch.setattr(generation, "_complete_batch", lambda *a, **k: made.append("texts") or batch(*a, **k))
    monkeypatch.setattr(store, "write_sidecar", lambda *told: made.append("arrays") or write(*told))

    def work(seed: int) -> list[str]:
        made.clear()
        stored_completions(qwen, qwen.base, ["A cat"], name="a", max_new_tokens=4, temperature=1.0, seed=seed)
        kept(qwen, "arrays", lambda rows: {"a": np.random.default_rng(seed).normal(size=4)}, 4)
        for path in data_here.rglob("*"):
            os.utime(path, times=2 * (31_556_952 * (year - 1970),))
        return list(made)

    both = ["texts", "arrays"]
    assert [work(seed) for seed in (0, 0, 1, 1, 0)] == [both, [], both, [], both]
