# SPDX-License-Identifier: MIT
"""Execute the notebooks: from their `.py` twins, in order, outputs in place or in a scratch copy."""

from __future__ import annotations

import ast
import atexit
import contextlib
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
from rich.console import Console
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
    """Execute the notebooks on a pair and return the folder that holds the results.

    `scratch` works in a copy that is gone when this process ends, `quick` in one with the knobs' quick values. Raises
    UserError, or NotebookFailed for a failing cell.
    """
    console, started = Console(highlight=False, markup=False, soft_wrap=True), time.time()
    root = home = root or ROOT
    chosen = find_notebooks(root, only)
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
        console.print(f"{source.stem} begins")
        notebook = build(source, {"PAIR": repr(_whole_paths(_pair_of(source, pair), home))}, quick=quick)
        remarks = execute(source, notebook)
        for cell, own in zip(notebook.cells, build(source).cells, strict=True):
            cell.source = own.source
        with atomic(source.with_suffix(".ipynb")) as temporary:
            nbformat.write(notebook, temporary)
        console.print(f"{source.stem} ends after {time.time() - began:.0f} s")
        for line in dict.fromkeys(remarks):
            console.print(f"  {line}")
    for name in names:
        show_findings(name, root, console)
    where = "in a scratch copy" if quick or scratch else f"outputs in {root}"
    console.print(f"{len(chosen)} notebooks in {time.time() - started:.0f} s; {where}")
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
    with contextlib.suppress(SyntaxError, ValueError, TypeError):
        named = ast.literal_eval(said[1])
        named = parse_pair(named) if isinstance(named, str) else tuple(named)
        return pair if named == "auto" else named
    return pair


def _whole_paths(pair: Named, root: Path) -> Named:
    """A pair whose folders, as seen from here or from the project, have their whole paths: kernels run elsewhere."""
    if isinstance(pair, str):
        return pair
    places = {source: [at / Path(source).expanduser() for at in (Path(), root)] for source in pair}
    return tuple(next((str(at.resolve()) for at in places[source] if at.is_dir()), source) for source in pair)


def find_notebooks(root: Path, only: str | None = None) -> list[Path]:
    """The numbered `.py` twins, in order; `only` keeps those whose name starts with it."""
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))
    if chosen := [path for path in found if path.name.startswith(only or "")]:
        return chosen
    raise UserError(f"no notebook starts with {only!r}: there are {', '.join(path.stem for path in found) or 'none'}")


def refuse_unsynced(source: Path) -> None:
    """Stop when the `.ipynb` was edited since it was executed, whatever the clock says: a run would overwrite that."""
    built = source.with_suffix(".ipynb")
    if not built.exists() or same_cells(source, built):
        return
    executed = nbformat.read(built, as_version=4)
    if executed.metadata.get("executed_source_sha256") != source_hash(executed.cells):
        raise UserError(
            f"{built.name} was edited since it was executed and differs from {source.name}: "
            f"run `jupytext --sync notebooks/{built.name}` first, by which the newer one counts"
        )


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
    numbers = {source.name[:2] for source in chosen}
    for path in (path for folder in folders for path in folder.glob("*.meta.json")):
        if path.name[:2] in numbers or not path.name[:2].isdigit():
            path.unlink()


def build(source: Path, knobs: dict[str, str] | None = None, *, quick: bool = False) -> Any:
    """The notebook of a `.py` twin with stable cell ids. In the cell tagged `parameters`, knobs replace lines, and
    `quick` those whose comment tells a quick value: `N = 240  # quick: 32; ...`."""
    notebook = jupytext.read(source)
    digest = source_hash(notebook.cells)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number:02d}"
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = "\n".join(_with_knobs(line, knobs or {}, quick) for line in cell.source.splitlines())
    notebook.metadata |= {"jupytext": {"formats": "ipynb,py:percent"}, "executed_source_sha256": digest}
    return notebook


def _with_knobs(line: str, knobs: dict[str, str], quick: bool) -> str:
    name, small = line.partition(" = ")[0], re.search(r"# quick: ([^;]+)", line)
    value = knobs.get(name) or (small[1] if quick and small else None)
    return f"{name} = {value}" if value else line


def execute(source: Path, notebook: Any, environment: dict[str, str] | None = None) -> list[str]:
    """Run all cells in a fresh kernel of this Python, whatever other kernels named python3 are installed; returns what
    helpers remarked on stored results. The notebook keeps its outputs only if no cell failed."""
    path = os.pathsep.join(filter(None, (str(source.parents[1]), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": path, "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **(environment or {})}
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[])),
        timeout=None,
        record_timing=False,
        extra_arguments=["--log-level=CRITICAL"],  # a kernel that is told to end would complain of its closed sockets
        resources={"metadata": {"path": str(source.parent)}},
    )
    remarks = []
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
            count = cell["execution_count"]
            client.execute_cell(cell, number)
            _without_remarks(cell)
            for counted in (cell, *(output for output in cell["outputs"] if "execution_count" in output)):
                counted["execution_count"] = count


def show_findings(pair: str, root: Path, console: Console) -> None:
    """Print the ledger of the run, a line of at most 80 columns a finding."""
    rows = read_ledger(root / "data" / pair / "findings.json")
    title = f"Findings on {pair} (claims, controls and rules are in the report):"
    console.print(title if rows else f"No findings on {pair}.")
    for row in rows:
        numbers = f"{row['estimate']:.3g} ({row['low']:.3g} to {row['high']:.3g}) {row['unit']}"
        line = f"{row['id']}  {row['verdict']:13}  {numbers}"
        console.print(line if len(line) <= 80 else f"{line[:77]}...")
