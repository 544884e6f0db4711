# SPDX-License-Identifier: MIT
"""Execute the notebooks: from their `.py` twins, in order, outputs in place or in a scratch copy."""

from __future__ import annotations

import ast
import atexit
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm

from helpers.findings import read_ledger
from helpers.pairs import pair_name, parse_pair
from helpers.store import REMARK, ROOT, NotebookFailed, Stopped, UserError, atomic, sha256

Named = str | tuple[str, ...]  # a pair: its name, or base and distilled
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(
    *,
    pair: Named = "smol",
    quick: bool = False,
    fresh: bool = False,
    only: str | None = None,
    root: Path | None = None,
    scratch: bool = False,
) -> Path:
    """Execute the notebooks on a pair and return the folder that holds the results: with `scratch` a copy that is gone
    when this process ends, with `quick` one with the knobs' quick values. Raises UserError or NotebookFailed."""
    started, root = time.time(), root or ROOT
    home, chosen = root, find_notebooks(root, only)
    for source in chosen:
        refuse_unsynced(source)
    names = pairs_of(chosen, pair)
    if quick or scratch:
        root = scratch_copy(root)
        chosen = [root / "notebooks" / source.name for source in chosen]
    if fresh:
        forget(chosen, [root / "data" / name for name in names])
    for source in chosen:
        began = time.time()
        print(f"{source.stem} begins", flush=True)
        named = _pair_of(source, pair)
        named = named if isinstance(named, str) else tuple(_whole_path(folder, home) for folder in named)
        notebook = build(source, {"PAIR": repr(named)}, quick=quick)
        remarks = execute(source, notebook)
        for cell, own in zip(notebook.cells, build(source).cells, strict=True):
            cell.source = own.source
        with atomic(source.with_suffix(".ipynb")) as temporary:
            nbformat.write(notebook, temporary)
        told = (f"  {line}" for line in dict.fromkeys(remarks))
        print(f"{source.stem} ends after {time.time() - began:.0f} s", *told, sep="\n", flush=True)
    for name in names:
        show_findings(name, root)
    where = "in a scratch copy" if quick or scratch else f"outputs in {root}"
    print(f"{len(chosen)} notebooks in {time.time() - started:.0f} s; {where}")
    return root


def run_command(pair: str) -> str:
    """The command that runs a pair, by its ledger's name."""
    return f"python -m helpers run --pair {'BASE,DISTILLED' if pair == 'own' else pair}"


def pairs_of(chosen: list[Path], pair: Named) -> list[str]:
    """Names of the ledgers that notebooks write, in order: a notebook's own knob comes before the pair of the run."""
    return list(dict.fromkeys(pair_name(_pair_of(source, pair)) for source in chosen))


def _pair_of(source: Path, pair: Named) -> Named:
    """What a notebook's knob PAIR says, or the pair of the run for "auto" and for what is not a literal."""
    said = re.search(r"^PAIR = (.+)$", source.read_text(encoding="utf-8"), re.M)
    try:
        named = ast.literal_eval(said[1])
    except (SyntaxError, ValueError, TypeError):
        return pair
    named = parse_pair(named) if isinstance(named, str) else tuple(named)
    return pair if named == "auto" else named


def _whole_path(source: str, root: Path) -> str:
    """The whole path of a model's folder, as seen from here or from the project: kernels run elsewhere."""
    places = (at / Path(source).expanduser() for at in (Path(), root))
    return next((str(place.resolve()) for place in places if place.is_dir()), source)


def find_notebooks(root: Path, only: str | None = None) -> list[Path]:
    """The numbered `.py` twins, in order; `only` keeps those whose name starts with it."""
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))
    if chosen := [path for path in found if path.name.startswith(only or "")]:
        return chosen
    raise UserError(f"no notebook starts with {only!r}: there are {', '.join(path.stem for path in found) or 'none'}")


def refuse_unsynced(source: Path) -> None:
    """Stop when the `.ipynb` was edited since it was executed, whatever the clock says: a run would overwrite that."""
    built = source.with_suffix(".ipynb")
    executed = nbformat.read(built, as_version=4) if built.exists() and not same_cells(source, built) else None
    if executed and executed.metadata.get("executed_source_sha256") != source_hash(executed.cells):
        told = f"{built.name} was edited since it was executed and differs from {source.name}"
        raise UserError(f"{told}: run `jupytext --sync notebooks/{built.name}` first, by which the newer one counts")


def same_cells(source: Path, built: Path) -> bool:
    """Whether twin and notebook hold the same cells."""
    return source_hash(jupytext.read(source).cells) == source_hash(jupytext.read(built).cells)


def source_hash(cells: list[Any]) -> str:
    """SHA-256 of a notebook's cells without their outputs: what its outputs were made from."""
    return sha256("\0".join(f"{cell.cell_type}\0{cell.source}" for cell in cells))


def scratch_copy(root: Path) -> Path:
    """A copy of the project without its figures and outputs, in a temporary folder, until this process ends."""
    scratch = Path(tempfile.mkdtemp(prefix="r1-quick-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    for name in ("notebooks", "helpers", "data"):
        shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    shutil.copy2(root / "requirements.txt", scratch)
    for ledger in (scratch / "data").glob("*/findings.json"):
        ledger.unlink()
    return scratch


def forget(chosen: list[Path], folders: list[Path]) -> None:
    """Remove what says of stored results that notebooks could reuse them: their own and those of all, the answers."""
    for path in (path for folder in folders for path in folder.glob("*.meta.json")):
        if not path.name[:2].isdigit() or path.name[:2] in {source.name[:2] for source in chosen}:
            path.unlink()


def build(source: Path, knobs: dict[str, str] | None = None, *, quick: bool = False) -> Any:
    """The notebook of a `.py` twin with stable cell ids. In the cell tagged `parameters`, knobs replace lines, and
    `quick` those whose comment tells a quick value: `N = 240  # quick: 32; ...`."""
    notebook = jupytext.read(source)
    digest = source_hash(notebook.cells)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number:02d}"
        if "parameters" in cell.metadata.get("tags", []):
            small = dict(re.findall(r"^(\w+) = .*# quick: ([^;\n]+)", cell.source, re.M)) if quick else {}
            for name, value in (small | (knobs or {})).items():
                cell.source = re.sub(rf"^{name} = .*", lambda _, to=f"{name} = {value}": to, cell.source, flags=re.M)
    notebook.metadata |= {"jupytext": {"formats": "ipynb,py:percent"}, "executed_source_sha256": digest}
    return notebook


def execute(source: Path, notebook: Any, environment: dict[str, str] | None = None) -> list[str]:
    """Run all cells in a fresh kernel of this Python, whatever others are installed; returns what helpers remarked on
    stored results."""
    path = os.pathsep.join(filter(None, (str(source.parents[1]), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": path, "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **(environment or {})}
    how = {"timeout": None, "record_timing": False, "resources": {"metadata": {"path": str(source.parent)}}}
    how["km"] = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    how["extra_arguments"] = ["--log-level=CRITICAL"]  # a kernel that is told to end complains of its closed sockets
    client, remarks = NotebookClient(notebook, **how), []
    try:
        with client.setup_kernel(cleanup_kc=True, env={**os.environ, **variables}):
            try:
                for number, cell in enumerate(tqdm(notebook.cells, source.stem, leave=False, disable=None)):
                    client.execute_cell(cell, number)
                    remarks += _without_remarks(cell)
                repeat_claims(client)
            except KeyboardInterrupt:
                client.allow_errors = True  # the cell left behind ends with its kernel, and nobody asks how
                raise
    except (CellExecutionError, DeadKernelError) as error:
        if getattr(error, "ename", "") == "UserError":
            raise UserError(f"{source.name}: {error.evalue}") from error
        said = "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[-12:])
        why = "its kernel died, as for want of memory" if isinstance(error, DeadKernelError) else f"\n{said}"
        raise NotebookFailed(f"{source.name} failed and keeps its old outputs: {why}") from error
    except KeyboardInterrupt as stop:
        raise Stopped(f"stopped in {source.name}, which keeps its old outputs; run it again to go on") from stop
    notebook.metadata["language_info"] = {"name": "python"}  # without this machine's version
    return remarks


def _without_remarks(cell: Any) -> list[str]:
    """Take out of a cell's outputs what a rerun would change: remarks of the helpers, which are returned, and the
    random ids of widgets, which show nothing without a kernel."""
    remarks, outputs = [], cell.get("outputs", [])
    for output in outputs:
        if output["output_type"] == "stream":
            remarks += re.findall(rf"^{REMARK}(.*)\n", output["text"], re.M)
            output["text"] = re.sub(rf"^{REMARK}.*\n", "", output["text"], flags=re.M)
        if WIDGET in output.get("data", {}):
            output["data"] = {"text/plain": "(run this cell to use the explorer)"}
    outputs[:] = [output for output in outputs if output.get("text") != ""]
    return remarks


def repeat_claims(client: NotebookClient) -> None:
    """Run the cell tagged `claim` once more, so that the abstract tells this run's numbers."""
    for number, cell in enumerate(client.nb.cells):
        if "claim" in cell.metadata.get("tags", []):
            client.execute_cell(cell, number, execution_count=cell.execution_count)
            _without_remarks(cell)
            for output in (output for output in cell.outputs if "execution_count" in output):
                output.execution_count = cell.execution_count


def show_findings(pair: str, root: Path) -> None:
    """Print the ledger of the run, a line of at most 80 columns a finding."""
    rows = read_ledger(root / "data" / pair / "findings.json")
    print(f"Findings on {pair} (claims, controls and rules are in the report):" if rows else f"No findings on {pair}.")
    for row in rows:
        numbers = f"{row['estimate']:.3g} ({row['low']:.3g} to {row['high']:.3g}) {row['unit']}"
        line = f"{row['id']}  {row['verdict']:13}  {numbers}"
        print(line if len(line) <= 80 else f"{line[:77]}...")
