# SPDX-License-Identifier: MIT
"""Run by the notebooks' set-up cell: install what requirements.txt asks for and this Python lacks, never torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
NOT_FOR_NOTEBOOKS = "# Documents and tests"  # the part of requirements.txt that no notebook needs


def missing(text: str) -> list[Requirement]:
    """What a requirements text asks notebooks to have, and is absent or of another version."""
    lines = (line.partition("#")[0].strip() for line in text.partition(NOT_FOR_NOTEBOOKS)[0].splitlines())
    return [wanted for wanted in map(Requirement, filter(None, lines)) if not _is_met(wanted)]


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
