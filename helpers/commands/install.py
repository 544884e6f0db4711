# SPDX-License-Identifier: MIT
"""What requirements.txt asks for. Run by the notebooks' set-up cell: install what this Python lacks, never torch."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
NOT_FOR_NOTEBOOKS = "# Documents and tests"  # the part of requirements.txt that no notebook needs


def missing(text: str) -> list[Requirement]:
    """What a requirements text asks notebooks to have, and is absent or of another version."""
    return [wanted for wanted in _wanted(text.partition(NOT_FOR_NOTEBOOKS)[0]) if not _is_met(wanted)]


def environment(text: str) -> str:
    """A requirements text of exact versions: all packages that `text` asks for or that those need, as installed here,
    without local build marks. With it results can be made again, and the packages audited."""
    waiting, found, seen = _wanted(text), {}, set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in wanted.extras or {""}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                found[name] = version(name).split("+")[0]
            except PackageNotFoundError:  # not needed on this system, or not yet there
                continue
            needs = map(Requirement, requires(name) or [])
            waiting += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    lines = (f"{name}=={found[name]}\n" for name in sorted(found))
    return f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}\n" + "".join(lines)


def _wanted(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def _is_met(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False


def main() -> None:
    """Install, or say in one line that torch must come first."""
    lacking = missing(REQUIREMENTS.read_text(encoding="utf-8"))
    if any(wanted.name == "torch" for wanted in lacking):
        sys.exit("this needs torch 2.8 or newer, which the set-up leaves to you: see https://pytorch.org/get-started")
    if lacking:
        print("installing", ", ".join(wanted.name for wanted in lacking))
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *map(str, lacking)], check=True)


if __name__ == "__main__":
    main()
