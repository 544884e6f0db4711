# SPDX-License-Identifier: MIT
"""Pieces of work done in processes that really kill themselves (SIGKILL) at a chosen place, and then done again.

`python -m helpers.tests.killing BASE DISTILLED SCRATCH` prints, as JSON, what each run left on disk. The process forks
once a run, before any work, so that helpers and models are loaded once.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers import embedded, findings, generation, store
from helpers.pairs import Pair
from helpers.stats import Interval

PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister", "Two"]
Point = tuple[str, str, int]  # before, half or after; of what; the how many-th time
OF = {"text": (Path, "write_text"), "array": (Path, "write_bytes"), "replace": (os, "replace"),
      "unlink": (Path, "unlink"), "rmtree": (embedded.shutil, "rmtree"), "pass": (generation, "_generate")}  # fmt: skip


def arm(when: str, what: str, number: int) -> None:
    """Die before, half through or after something, as by `kill -9`: no handler, no `finally`, nothing is flushed."""
    original, calls = getattr(*OF[what]), itertools.count(1)

    def run(*args: Any, **options: Any) -> Any:
        last = next(calls) == number
        done = original(*args, **options) if not last or when != "before" else None
        if last and when == "half":
            os.truncate(args[0], args[0].stat().st_size // 2)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(*OF[what], run)


def generate(pair: Pair, seed: int) -> None:
    """Completions of both models, three batches each."""
    for member in pair.members:
        how = {"max_new_tokens": 6, "temperature": 1.0, "seed": seed, "batch_size": 2}
        generation.stored_completions(pair, member, PROMPTS, name=f"answers_{member.role}", **how)


def keep_arrays(pair: Pair, seed: int) -> None:
    for name in ("one", "two"):
        store.kept(pair, name, lambda rows: {"a": np.random.default_rng(seed).normal(size=(30, 4))}, 30)


def record(pair: Pair, seed: int) -> None:
    """Three findings in the ledger."""
    found = Interval(0.5 + seed, 0.25, 1.0 + seed, 8)
    for name in ("F01", "F02", "F03"):
        rules = [findings.Part("p", found, findings.Rule("above", 0.0))]
        what = {"notebook": "01_x", "quantity": "q", "unit": "nats", "rules": rules, "control": ("c", found)}
        findings.record(pair, name, **what)


def convert(pair: Pair, seed: int) -> None:
    """A cache folder of two files, as `embedded` builds them."""

    def build(folder: Path) -> None:
        with (store.cache_dir() / "built.log").open("a") as log:
            log.write("built\n")
        for name in ("config.json", "weights.json"):
            time.sleep(0.02)  # so that two at once would meet
            (folder / name).write_text(json.dumps([name, seed] * 500))

    embedded._once(f"base-{seed}", build)


WORK: dict[Callable[[Pair, int], None], list[Point]] = {
    generate: [("after", "pass", 2), ("half", "text", 1), ("after", "replace", 3), ("after", "unlink", 1)],
    keep_arrays: [("half", "array", 1), ("after", "replace", 1), ("half", "text", 1)],
    record: [("half", "text", 1), ("before", "replace", 2)],
    convert: [("half", "text", 2), ("after", "rmtree", 1), ("before", "replace", 1)],
}


def left_in(folder: Path) -> dict[str, str]:
    """Every file in sight by name and hash, locks and logs aside; a sidecar without its date."""
    found = {}
    for path in sorted(
        path for path in folder.rglob("[!.]*") if path.is_file() and path.suffix not in (".lock", ".log")
    ):
        text = path.read_bytes()
        if path.name.endswith(".meta.json"):
            text = json.dumps(json.loads(text) | {"date": ""}).encode()
        found[str(path.relative_to(folder))] = store.sha256(text)
    return found


def every_way(work: Callable[[Pair, int], None], points: list[Point], pair: Pair, scratch: Path) -> dict[str, Any]:
    """What a piece of work leaves: uninterrupted; by two processes at once; and, beside the results of other settings,
    killed at each point and done again, then with those other settings again."""

    def start(folder: Path, seed: int, *point: Any) -> int:
        if process := os.fork():
            return process
        store.ROOT = generation.ROOT = folder
        os.environ |= {"R1_CACHE": str(folder / "cache"), "R1_SAY": os.devnull}
        try:
            arm(*point) if point else None
            work(pair, seed)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def end(process: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    clean, together = [scratch / "clean-0", scratch / "clean-1"], scratch / "together"
    ends = [end(start(folder, seed)) for seed, folder in enumerate(clean)]
    ends += [end(process) for process in (start(together, 1), start(together, 1))]
    log = together / "cache" / "built.log"
    result = {"ends": ends, "clean": [left_in(folder) for folder in clean], "together": left_in(together)}
    result |= {"built": log.read_text().count("built") if log.exists() else 1, "killed": []}
    for number, point in enumerate(points):
        folder = scratch / str(number)
        ends = [end(start(folder, 0)), end(start(folder, 1, *point)), end(start(folder, 1))]
        again = left_in(folder)
        ends.append(end(start(folder, 0)))
        result["killed"].append({"ends": ends, "again": again, "other": left_in(folder)})
    return result


if __name__ == "__main__":
    base, distilled, scratch = sys.argv[1:]
    pair = Pair.of(base, distilled, name="tiny", device="cpu")
    print(json.dumps({w.__name__: every_way(w, at, pair, Path(scratch) / w.__name__) for w, at in WORK.items()}))
