# SPDX-License-Identifier: MIT
"""What this Python has and lacks. Run by the notebooks' set-up cell: install what requirements.txt asks for, but never
torch."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
NOT_FOR_NOTEBOOKS = "# Documents and tests"  # the part of requirements.txt that no notebook needs


def missing(text: str) -> list[Requirement]:
    """What a requirements text asks notebooks to have, and is absent or of another version."""
    found = [(need, _installed(need.name)) for need in asked(text.partition(NOT_FOR_NOTEBOOKS)[0])]
    return [need for need, here in found if not (here and need.specifier.contains(here, prereleases=True))]


def environment() -> str:
    """A requirements text of all packages that this Python has, without local build marks: with it results can be made
    again, and the packages audited."""
    names = sorted({canonicalize_name(one.name) for one in distributions()})
    lines = (f"{name}=={_installed(name)}\n" for name in names)
    return f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}\n" + "".join(lines)


def asked(text: str) -> list[Requirement]:
    """What a requirements text asks for."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def _installed(name: str) -> str:
    """The version that this Python has, without local build marks, or nothing."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    lacking = missing(REQUIREMENTS.read_text(encoding="utf-8"))
    if any(need.name == "torch" for need in lacking):
        sys.exit("this needs torch 2.8 or newer, which the set-up leaves to you: see https://pytorch.org/get-started")
    if lacking:
        print("installing", ", ".join(need.name for need in lacking))
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *map(str, lacking)], check=True)
