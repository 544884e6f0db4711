# SPDX-License-Identifier: MIT
"""One document of the whole series, by pandoc: a page that needs no network, and a .docx for Word and Google Docs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat

from helpers.commands.run import run_command
from helpers.commands.summary import findings_table, summary
from helpers.findings import load_findings, sentence
from helpers.store import ROOT, UserError, atomic, data_dir

FILTER, PAGE = (Path(__file__).with_name(name) for name in ("report.lua", "report.html"))
BADGE = re.compile(r"^\[!\[Open In Colab\].*\n+", re.M)
Cell = Any  # a notebook's


def report(pair: str = "smol", *, to: str = "all", out: Path | None = None) -> list[Path]:
    """Write `data/<pair>/report.html` and `.docx` (or only one of them, or to the folder `out`); return the paths.
    Raises UserError when the pair has not been run, or ledger and notebooks are of different runs."""
    if not load_findings(pair):
        raise UserError(f"pair {pair!r} has no findings yet: run `{run_command(pair)}` first")
    cells = [*front(pair), *read_cells(ROOT, pair)]
    paths = [(out or data_dir(pair)) / f"report.{kind}" for kind in (("html", "docx") if to == "all" else (to,))]
    for path in paths:
        with atomic(path) as temporary:
            temporary.write_bytes(document(pair, cells, path.suffix[1:]))
    return paths


def document(pair: str, cells: list[Cell], to: str) -> bytes:
    """The report in one of the formats."""
    about = ["lang:en", "title:Why doesn't R1 stop?", f"subtitle:Everything here was measured on the pair {pair}."]
    options = ["--standalone", "--toc", "--toc-depth=2", f"--resource-path={ROOT}", *(f"--metadata={a}" for a in about)]
    page = [f"--template={PAGE}", "--embed-resources", "--syntax-highlighting=haddock"] if to == "html" else []
    return convert(cells, to, *options, *page)


def convert(cells: list[Cell], to: str, *options: str) -> bytes:
    """Cells as pandoc writes them, with our filter. Raises UserError when pandoc is missing or fails."""
    try:
        import pypandoc
    except ImportError as error:
        raise UserError("the report needs pandoc: `pip install pypandoc_binary`") from error
    command = [pypandoc.get_pandoc_path(), "--from=ipynb+markdown_in_html_blocks", "--ipynb-output=all", f"--to={to}"]
    command += [f"--lua-filter={FILTER}", "--mathml", "--output=-", *options]
    notebook = json.dumps(nbformat.v4.new_notebook(cells=cells))
    done = subprocess.run(command, input=notebook.encode(), capture_output=True)
    if done.returncode or b"Could not fetch" in done.stderr:
        raise UserError(f"pandoc stopped: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout


def front(pair: str) -> list[Cell]:
    """What stands before the notebooks: the summary, all findings, and the limits of the embedded pair."""
    text = f"# Summary\n\n{summary()}\n\n## All findings\n\n{findings_table(pair)}"
    if pair == "smol":
        text += "\n\n#" + (ROOT / "data" / "LIMITS.md").read_text(encoding="utf-8")
    return [nbformat.v4.new_markdown_cell(text, metadata={"chapter": "summary"})]


def read_cells(root: Path, pair: str) -> list[Cell]:
    """The cells of the executed notebooks (a pair's own, where its data hold them), each with its chapter. Raises
    UserError for outputs that are missing or of another run than the ledger."""
    cells = []
    executed = root / "data" / pair / "notebooks"
    for path in sorted((executed if executed.exists() else root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        own = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type in ("markdown", "code")]
        if not any(cell.get("outputs") or cell.get("execution_count") for cell in own):
            raise UserError(f"{path.name} has no outputs: run `{run_command(pair)}` first")
        said = [output.get("data", {}).get("text/markdown", "") for cell in own for output in cell.get("outputs", [])]
        rows = [row for row in load_findings(pair) if row["notebook"] == path.stem]
        if untold := [row["id"] for row in rows if not any(sentence(row) in text for text in said)]:
            told = f"{path.name} and the ledger of {pair} are of different runs ({', '.join(untold)})"
            raise UserError(f"{told}: run `{run_command(pair)} --only {path.name[:2]}` again")
        for cell in own:
            cell.source, cell.metadata = BADGE.sub("", cell.source), {"chapter": path.stem}
        cells += own
    return cells
