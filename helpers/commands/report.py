# SPDX-License-Identifier: MIT
"""One document of the whole series, by pandoc: a page that needs no network, and a .docx for Word and Google Docs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat

from helpers.checks import check_choice
from helpers.commands.run import run_command
from helpers.commands.summary import between, findings_table, summary
from helpers.findings import load_findings, sentence
from helpers.store import ROOT, UserError, atomic, data_dir, read_json

FORMATS = ("html", "docx")
FILTER, PAGE = (Path(__file__).with_name(name) for name in ("report.lua", "report.html"))
BADGE = re.compile(r"^\[!\[Open In Colab\].*\n+", re.M)
Cell = Any  # a notebook's


def report(pair: str = "smol", *, to: str = "all", out: Path | None = None, root: Path = ROOT) -> list[Path]:
    """Write `data/<pair>/report.html` and `.docx` (or only one of them, or to the folder `out`); return the paths.

    Raises UserError when the pair has not been run, when ledger, notebooks and stored results are of different runs,
    or pandoc's wheel is missing.
    """
    check_choice(to, "format", (*FORMATS, "all"))
    if not load_findings(pair):
        raise UserError(f"pair {pair!r} has no findings yet: run `{run_command(pair)}` first")
    refuse_stale(pair)
    chapters = read_cells(root, pair)
    cells = [*front(pair, root), *chapters]
    paths = [(out or data_dir(pair)) / f"report.{kind}" for kind in (FORMATS if to == "all" else (to,))]
    for path in paths:
        with atomic(path) as temporary:
            temporary.write_bytes(document(pair, cells, path.suffix[1:], root))
    return paths


def document(pair: str, cells: list[Cell], to: str, root: Path = ROOT) -> bytes:
    """The report in one of the formats."""
    about = {"lang": "en", "title": "Why doesn't R1 stop?"}
    about["subtitle"] = f"Everything here was measured on the pair {pair}."
    page = [f"--template={PAGE}", "--embed-resources", "--syntax-highlighting=haddock"] if to == "html" else []
    about = [f"--metadata={name}:{text}" for name, text in about.items()]
    return convert(cells, to, "--standalone", "--toc", "--toc-depth=2", f"--resource-path={root}", *about, *page)


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


def front(pair: str, root: Path) -> list[Cell]:
    """What stands before the notebooks: the summary, all findings, and the limits of the embedded pair."""
    text = f"# Summary\n\n{summary(pair)}\n\n## All findings\n\n{findings_table(pair, root)}"
    if pair == "smol":
        text += "\n\n## " + between((root / "README.md").read_text(encoding="utf-8"), "limits")
    return [nbformat.v4.new_markdown_cell(text, metadata={"chapter": "summary"})]


def read_cells(root: Path, pair: str) -> list[Cell]:
    """The cells of the executed notebooks, each with its chapter. Raises UserError for one that was not executed or
    tells other findings than the ledger."""
    cells = []
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        own = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type in ("markdown", "code")]
        if not any(cell.get("outputs") or cell.get("execution_count") for cell in own):
            raise UserError(f"{path.name} has no outputs: run `{run_command(pair)}` first")
        said = [output.get("data", {}).get("text/markdown", "") for cell in own for output in cell.get("outputs", [])]
        rows = [row for row in load_findings(pair) if row["notebook"] == path.stem]
        if untold := [row["id"] for row in rows if not any(sentence(row) in text for text in said)]:
            raise UserError(
                f"{path.name} and the ledger of {pair} are of different runs ({', '.join(untold)}): "
                f"run `{run_command(pair)} --only {path.name[:2]}` again"
            )
        for cell in own:
            cell.source, cell.metadata = BADGE.sub("", cell.source), {"chapter": path.stem}
        cells += own
    return cells


def refuse_stale(pair: str) -> None:
    """Stop when findings and stored results are of different models: one of them is older than the other."""
    named = {name for row in load_findings(pair) for name in row["models"]}
    for path in sorted(data_dir(pair).glob("*.meta.json")):
        made_from = read_json(path)["provenance"]
        models = [made_from["model"]] if "model" in made_from else [name.split()[0] for name in made_from["models"]]
        if other := [name for name in models if name not in named]:
            told = f"{path.name} is of {other[0]}, the findings are of {', '.join(sorted(named))}"
            raise UserError(f"{told}: run `{run_command(pair)}` again")
