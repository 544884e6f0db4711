# SPDX-License-Identifier: MIT
"""Stamp Colab badges and the set-up cell's address into notebooks and README, from one place."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jupytext
import nbformat

from helpers.commands.run import find_notebooks, same_cells, source_hash
from helpers.store import ROOT, UserError, atomic, write_text

COLAB = "https://colab.research.google.com"


def publish(repository: str, *, branch: str = "main", root: Path = ROOT) -> str:
    """Stamp `OWNER/REPO` and the commit that is checked out, which the set-up cell fetches; again for a fork. Badges
    open `branch`. Returns the commit; raises UserError for a bad name or no commit."""
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repository):
        raise UserError(f"{repository!r} is no repository: give it as OWNER/REPO")
    fields = {"REPOSITORY": f"https://github.com/{repository}", "COMMIT": current_commit(root)}
    page = f"{COLAB}/github/{repository}/blob/{branch}/notebooks"
    for source in find_notebooks(root):
        if not same_cells(source, source.with_suffix(".ipynb")):
            raise UserError(f"{source.name} and its .ipynb differ: run `jupytext --sync notebooks/{source.stem}.ipynb`")
        stamp(source, fields, f"{page}/{source.stem}.ipynb")
    readme = root / "README.md"
    write_text(readme, with_badge(readme.read_text(encoding="utf-8"), f"{page}/01_prompts.ipynb"))
    return fields["COMMIT"]


def current_commit(root: Path) -> str:
    """The commit that is checked out. Raises UserError where there is none, or git does not tell it."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join((getattr(error, "stderr", "") or str(error)).split())
        raise UserError(f"git tells no commit of {root} ({said}): mend that, or commit first") from error


def with_badge(text: str, address: str, mark: str = "") -> str:
    """A text whose title is followed by this badge, and by no other; `mark` begins its lines."""
    badge, old = f"[![Open In Colab]({COLAB}/assets/colab-badge.svg)]({address})", r"\[!\[Open In Colab\].*"
    title, empty = f"^{mark}# .*", f"\n{mark.strip()}\n{mark}"
    return re.sub(f"({title})(?:{empty}{old})?", rf"\1{empty}{badge}", text, count=1, flags=re.M)


def stamp(source: Path, fields: dict[str, str], address: str) -> None:
    """Write badge and form fields into a notebook and its twin; outputs stay, for no computation changes."""
    text = with_badge(source.read_text(encoding="utf-8"), address, "# ")
    for name, value in fields.items():
        text = re.sub(rf'^{name} = "[^"]*"', f'{name} = "{value}"', text, count=1, flags=re.M)
    write_text(source, text)
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    executed = notebook.metadata.get("executed_source_sha256") == source_hash(notebook.cells)
    for cell, stamped in zip(notebook.cells, jupytext.read(source).cells, strict=True):
        cell.source = stamped.source
    if executed:
        notebook.metadata["executed_source_sha256"] = source_hash(notebook.cells)
    with atomic(source.with_suffix(".ipynb")) as temporary:
        nbformat.write(notebook, temporary)
