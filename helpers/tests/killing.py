# SPDX-License-Identifier: MIT
"""Pieces of work done in processes that really kill themselves (SIGKILL) at a chosen place, and then done again.

`python -m helpers.tests.killing BASE DISTILLED SCRATCH` prints, as JSON, what each run left on disk. The process forks
once a run, before any work, so that helpers and models are loaded once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers import embedded, findings, generation, store
from helpers.pairs import Pair
from helpers.stats import Interval

PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister", "Two"]
Point = tuple[str, int]  # what is under way, and at which time it happens


def die() -> None:
    """As `kill -9` from outside: no handler, no `finally`, nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: Point) -> None:
    """Die at the n-th time that something begins, is half done, or has been done."""
    when, left = point[0], [point[1]]

    def now() -> bool:
        left[0] -= 1
        return left[0] == 0

    def wrapped(owner: Any, name: str, *, before: bool) -> None:
        original = getattr(owner, name)

        def run(*args: Any, **options: Any) -> Any:
            last = now()
            if last and before:
                die()
            done = original(*args, **options)
            if last:
                die()
            return done

        setattr(owner, name, run)

    def half(owner: Any, name: str, cut: Callable[[Any], None]) -> None:
        original = getattr(owner, name)

        def run(*args: Any, **options: Any) -> Any:
            done = original(*args, **options)
            if now():
                cut(args)
                die()
            return done

        setattr(owner, name, run)

    def cut_in_two(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    {
        "before replace": lambda: wrapped(os, "replace", before=True),
        "after replace": lambda: wrapped(os, "replace", before=False),
        "half a text": lambda: half(Path, "write_text", lambda args: cut_in_two(args[0])),
        "half an array": lambda: half(Path, "write_bytes", lambda args: cut_in_two(args[0])),
        "in a batch": lambda: wrapped(generation, "_complete_batch", before=True),
        "after a forward pass": lambda: wrapped(generation, "_generate", before=False),
        "after unlink": lambda: wrapped(Path, "unlink", before=False),
        "after rmtree": lambda: wrapped(embedded.shutil, "rmtree", before=False),
    }[when]()


def generate(pair: Pair, seed: int) -> None:
    """Completions of both models, three batches each."""
    for member in pair.members:
        how = {"max_new_tokens": 6, "temperature": 1.0, "seed": seed, "batch_size": 2}
        generation.stored_completions(pair, member, PROMPTS, name=f"answers_{member.role}", **how)


def keep_arrays(pair: Pair, seed: int) -> None:
    """Two files of arrays."""
    for name in ("one", "two"):
        store.kept(pair, name, lambda rows: {"a": np.random.default_rng(seed).normal(size=(30, 4))}, 30)


def record(pair: Pair, seed: int) -> None:
    """Three findings in the ledger."""
    found = Interval(0.5 + seed, 0.25, 1.0 + seed, 8)
    for name in ("F01", "F02", "F03"):
        what = {"notebook": "01_x", "quantity": "q", "unit": "nats", "interval": found, "control": found}
        findings.record(pair, name, **what, control_name="c", rule="r", verdict="holds")


def convert(pair: Pair, seed: int) -> None:
    """A cache folder of two files, as `embedded` builds them, and one built upon it."""

    def first(folder: Path) -> None:
        with (store.cache_dir() / "built.log").open("a") as log:
            log.write(f"{folder.name}\n")
        for name in ("config.json", "weights.json"):
            time.sleep(0.02)  # so that two at once would meet
            (folder / name).write_text(json.dumps([name, seed] * 500))

    def second(folder: Path) -> None:
        (folder / "merged.json").write_text((embedded._once(f"base-{seed}", first) / "weights.json").read_text())

    embedded._once(f"merged-{seed}", second)


WORK = {
    "generation": (
        generate,
        [
            ("in a batch", 1),
            ("in a batch", 3),
            ("after a forward pass", 2),
            ("half a text", 1),
            ("half a text", 4),
            ("before replace", 1),
            ("after replace", 1),
            ("after replace", 3),
            ("before replace", 6),
            ("after unlink", 1),
            ("after replace", 7),
        ],
    ),
    "arrays": (
        keep_arrays,
        [
            ("half an array", 1),
            ("before replace", 1),
            ("after replace", 1),
            ("after unlink", 1),
            ("half a text", 1),
            ("after replace", 2),
            ("before replace", 3),
        ],
    ),
    "ledger": (record, [("half a text", 1), ("before replace", 2), ("after replace", 2), ("half a text", 3)]),
    "conversion": (
        convert,
        [("half a text", n) for n in range(1, 6)]
        + [("after rmtree", n) for n in range(1, 7)]
        + [("before replace", 1), ("after replace", 1), ("before replace", 2), ("after replace", 2)],
    ),
}


def begin(work: Callable[[], None]) -> int:
    """Run work in a process of its own."""
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return process


def end(process: int) -> int:
    """How a process ended: 0, or minus a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def left_in(folder: Path) -> dict[str, str]:
    """Every file by name and hash, locks and logs aside; a sidecar without its date."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".log")):
        text = path.read_bytes()
        if path.name.endswith(".meta.json") and not path.name.startswith("."):
            text = json.dumps(json.loads(text) | {"date": ""}).encode()
        found[str(path.relative_to(folder))] = store.sha256(text)
    return found


def settle(folder: Path) -> None:
    store.ROOT = generation.ROOT = folder
    os.environ["R1_CACHE"] = str(folder / "cache")
    os.environ["R1_SAY"] = os.devnull


def main() -> None:
    """Each piece of work: uninterrupted; by two processes at once; and for each point killed, then done again, then
    with other settings. Every second time the other settings' results are there before."""
    base, distilled, scratch = sys.argv[1:]
    pair = Pair.of(base, distilled, name="tiny", device="cpu")
    print(json.dumps({name: every_way(*WORK[name], pair, Path(scratch) / name) for name in WORK}))


def every_way(work: Callable[[Pair, int], None], points: list[Point], pair: Pair, scratch: Path) -> dict[str, Any]:
    """What one piece of work leaves on disk, in every way of interrupting it."""

    def start(folder: Path, seed: int, point: Point | None = None) -> int:
        def whole() -> None:
            settle(folder)
            if point:
                arm(point)
            work(pair, seed)

        return begin(whole)

    clean, together = [scratch / "clean-0", scratch / "clean-1"], scratch / "together"
    ends = [end(start(folder, seed)) for seed, folder in enumerate(clean)]
    ends += [end(process) for process in (start(together, 1), start(together, 1))]
    log = together / "cache" / "built.log"
    result = {
        "ends": ends,
        "clean": [left_in(folder) for folder in clean],
        "together": left_in(together),
        "built": log.read_text().split() if log.exists() else [],
        "killed": [],
    }
    for number, point in enumerate(points):
        folder = scratch / str(number)
        before = end(start(folder, 0)) if number % 2 == 0 else 0
        ends = [before, end(start(folder, 1, point)), end(start(folder, 1))]
        again = left_in(folder)
        ends.append(end(start(folder, 0)))
        result["killed"].append({"point": point, "ends": ends, "again": again, "other": left_in(folder)})
    return result


if __name__ == "__main__":
    main()
