# SPDX-License-Identifier: MIT
"""Stamp Colab badges and the set-up cell's address into notebooks and README, from one place."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jupytext
import nbformat

from helpers.series.run import find_notebooks, refuse_unsynced, same_cells, source_hash
from helpers.store import ROOT, UserError, atomic, write_text

BADGE = "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
BADGE_LINE = re.compile(r"\n+\[!\[Open In Colab\][^\n]*")


def publish(repository: str, *, branch: str = "main", root: Path = ROOT) -> str:
    """Stamp `OWNER/REPO` and the commit that is checked out; again for a fork. Returns the commit.

    The badges open `branch`; the set-up cell fetches the commit. Raises UserError for a bad name or no commit.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repository):
        raise UserError(f"{repository!r} is no repository: give it as OWNER/REPO")
    if not re.fullmatch(r"[\w./-]+", branch):
        raise UserError(f"{branch!r} is no branch")
    address, commit = f"https://github.com/{repository}", current_commit(root)
    for source in find_notebooks(root):
        refuse_unsynced(source)
        stamp(source, address, commit, _badge(repository, branch, source.stem))
    readme = root / "README.md"
    write_text(readme, with_badge(readme.read_text(encoding="utf-8"), _badge(repository, branch, "01_prompts")))
    return commit


def current_commit(root: Path) -> str:
    """The commit that is checked out. Raises UserError where there is none."""
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{root} is not a git repository with a commit: commit first, then publish")
    return done.stdout.strip()


def _badge(repository: str, branch: str, notebook: str) -> str:
    page = f"https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/{notebook}.ipynb"
    return f"{BADGE}({page})"


def with_badge(text: str, badge: str) -> str:
    """A Markdown text whose title is followed by this badge, and by no other."""
    title, _, rest = BADGE_LINE.sub("", text).partition("\n")
    return f"{title}\n\n{badge}\n{rest}"


def stamp(source: Path, address: str, commit: str, badge: str) -> None:
    """Write badge, address and commit into a twin and its notebook; outputs stay, for no computation changes."""
    built = source.with_suffix(".ipynb")
    one, two = jupytext.read(source), nbformat.read(built, as_version=4)
    executed = same_cells(source, built) and two.metadata.get("executed_source_sha256") == source_hash(one.cells)
    for notebook in (one, two):
        first, set_up = notebook.cells[0], next(cell for cell in notebook.cells if cell.cell_type == "code")
        first.source = with_badge(first.source, badge)
        for name, value in (("REPOSITORY", address), ("COMMIT", commit)):
            set_up.source = re.sub(rf'^{name} = "[^"]*"', f'{name} = "{value}"', set_up.source, flags=re.M)
    if executed:
        two.metadata["executed_source_sha256"] = source_hash(one.cells)
    write_text(source, jupytext.writes(one, fmt="py:percent"))
    with atomic(built) as temporary:
        nbformat.write(two, temporary)
