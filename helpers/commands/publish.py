# SPDX-License-Identifier: MIT
"""Stamp Colab badges and the set-up cell's address into notebooks and README, from one place."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import jupytext
import nbformat

from helpers.commands.run import find_notebooks, same_cells, source_hash
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
        raise UserError(f"{branch!r} is no branch: give its name, such as main")
    address, commit = f"https://github.com/{repository}", current_commit(root)
    for source in find_notebooks(root):
        if not same_cells(source, source.with_suffix(".ipynb")):
            raise UserError(f"{source.name} and its .ipynb differ: run `jupytext --sync notebooks/{source.stem}.ipynb`")
        stamp(source, address, commit, _badge(repository, branch, source.stem))
    readme = root / "README.md"
    write_text(readme, with_badge(readme.read_text(encoding="utf-8"), _badge(repository, branch, "01_prompts")))
    return commit


def current_commit(root: Path) -> str:
    """The commit that is checked out. Raises UserError where there is none, or git does not tell it."""
    command, english = ["git", "-C", str(root), "rev-parse", "HEAD"], {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, env=english, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"git does not start here ({error.strerror}): install it, then publish") from error
    if done.returncode:
        said = done.stderr.partition("\n")[0]
        trust = f"run `git config --global --add safe.directory {root}`, if you trust that folder"
        how = trust if "dubious ownership" in said else "commit first, then publish"
        raise UserError(f"git tells no commit of {root} ({said}): {how}")
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
    built, text = source.with_suffix(".ipynb"), source.read_text(encoding="utf-8")
    notebook = nbformat.read(built, as_version=4)
    executed = notebook.metadata.get("executed_source_sha256") == source_hash(jupytext.reads(text, "py:percent").cells)
    text = re.sub(r"^(# # .*\n)(?:#\n# \[!\[Open In Colab\].*\n)?", rf"\1#\n# {badge}\n", text, count=1, flags=re.M)
    write_text(source, _with_form(text, address, commit))
    cells = jupytext.read(source).cells
    for cell, stamped in zip(notebook.cells, cells, strict=True):
        cell.source = stamped.source
    if executed:
        notebook.metadata["executed_source_sha256"] = source_hash(cells)
    with atomic(built) as temporary:
        nbformat.write(notebook, temporary)


def _with_form(text: str, address: str, commit: str) -> str:
    """The set-up cell's form fields, filled in."""
    for name, value in (("REPOSITORY", address), ("COMMIT", commit)):
        text = re.sub(rf'^{name} = "[^"]*"', f'{name} = "{value}"', text, count=1, flags=re.M)
    return text
