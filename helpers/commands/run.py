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
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from traitlets import default

from helpers.findings import read_ledger
from helpers.pairs import pair_name, parse_pair
from helpers.store import ROOT, NotebookFailed, Stopped, UserError, atomic, sha256

QUICK = {  # limits on new tokens stay as they are where stored answers can then be used
    "N_PROMPTS": "32",
    "N_COMBINED": "6",
    "REPEATS": "[0, 6]",
    "ALPHAS": "[0.0, 4.0]",
    "COUNTS": "[1, 10]",
    "N_AFTER": "8",
    "MAX_AFTER": "40",
    "N_DRAWS": "2",
    "N_WORDS": "20",
    "N_EXACT": "2",
    "N_SWAP": "3",
    "N_FORCED": "6",
    "N_TUNE": "2",
    "N_STEERED": "4",
    "MAX_STEERED": "40",
    "BIASES": "[0, -16]",
    "STRENGTHS": "[0.25, 0.5]",
    "N_CONTROLS": "10",
    "N_SOURCES": "12",
    "N_PLACES": "16",
    "LAYER_STEP": "10",
    "N_MAP": "2",
    "N_GRID": "2",
    "N_SAMPLED": "6",
    "N_SAMPLES": "2",
    "N_PATTERNS": "2",
    "N_WRITTEN": "4",
}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CELL_SECONDS = 3600
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(
    *,
    pair: str | tuple[str, ...] = "smol",
    quick: bool = False,
    fresh: bool = False,
    only: str | None = None,
    knobs: dict[str, str] | None = None,
    root: Path | None = None,
    scratch: bool = False,
) -> Path:
    """Execute the notebooks on a pair and return the folder that holds the results.

    `scratch` works in a copy, `quick` in a copy with small knobs; it is gone when this process ends. Raises UserError,
    or NotebookFailed for a failing cell.
    """
    console, started = Console(), time.time()
    root = home = root or ROOT
    chosen = find_notebooks(root, only)
    for source in chosen:
        refuse_unsynced(source)
    if quick or scratch:
        root = scratch_copy(root)
        chosen = [root / "notebooks" / source.name for source in chosen]
    if quick:
        knobs = {**QUICK, **(knobs or {})}
    log = Path(tempfile.mkstemp(prefix="r1-said-")[1])
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    named = pair if isinstance(pair, str) else ",".join(map(_from_anywhere, pair))
    environment = {"R1_PAIR": named, "R1_FROM": str(home), "R1_SAY": str(log), "PYTHONPATH": path, "TQDM_DISABLE": "1"}
    if fresh:
        environment["R1_FRESH"] = uuid.uuid4().hex
    try:
        _execute_all(chosen, environment, knobs or {}, console)
    finally:
        log.unlink(missing_ok=True)
    for name in pairs_of(chosen, pair):
        show_findings(name, root, console)
    where = "in a scratch copy" if quick or scratch else f"outputs in {root}"
    _plainly(console)(f"{len(chosen)} notebooks in {time.time() - started:.0f} s; {where}")
    return root


def run_command(pair: str) -> str:
    """The command that runs a pair, by its ledger's name."""
    return f"python -m helpers run --pair {'BASE,DISTILLED' if pair == 'own' else pair}"


def pairs_of(chosen: list[Path], pair: str | tuple[str, ...]) -> list[str]:
    """Names of the ledgers that notebooks write, in order: a notebook's own knob comes before the pair of the run."""
    named = [own_pair(source) for source in chosen]
    return list(dict.fromkeys(pair_name(pair if name == "auto" else name) for name in named))


def own_pair(source: Path) -> str | tuple[str, ...]:
    """What a notebook's knob PAIR says, or "auto". Raises UserError for an unknown name."""
    for cell in jupytext.read(source).cells:
        if "parameters" in cell.metadata.get("tags", []):
            with contextlib.suppress(SyntaxError, ValueError, TypeError):  # not known before it is executed
                for line in ast.parse(cell.source).body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "PAIR":
                        named = ast.literal_eval(line.value)
                        return parse_pair(named) if isinstance(named, str) else tuple(named)
    return "auto"


def _from_anywhere(source: str) -> str:
    """A model's folder by its whole path, for kernels run elsewhere; or a hub id."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def _plainly(console: Console) -> Any:
    """How a line is printed as it is, at once."""
    return partial(console.print, highlight=False, markup=False, soft_wrap=True)


def find_notebooks(root: Path, only: str | None = None) -> list[Path]:
    """The numbered `.py` twins, in order; `only` keeps those whose name starts with it."""
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))
    chosen = [path for path in found if path.name.startswith(only or "")]
    if not chosen:
        names = ", ".join(path.stem for path in found) or "none"
        raise UserError(f"no notebook starts with {only!r}: there are {names}")
    return chosen


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
    one, two = jupytext.read(source), jupytext.read(built)
    return [(c.cell_type, c.source) for c in one.cells] == [(c.cell_type, c.source) for c in two.cells]


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


def build(source: Path, knobs: dict[str, str]) -> Any:
    """The notebook of a `.py` twin with stable cell ids; knobs replace lines of the cell tagged `parameters`."""
    notebook = jupytext.read(source)
    digest = source_hash(notebook.cells)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number:02d}"
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in knobs.items():
                cell.source = re.sub(rf"^{name} = .*$", f"{name} = {value}", cell.source, flags=re.M)
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
            "executed_source_sha256": digest,
        }
    )
    return notebook


def _execute_all(chosen: list[Path], environment: dict[str, str], knobs: dict[str, str], console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    log, tell = Path(environment["R1_SAY"]), _plainly(console)
    with Progress(*columns, console=console, disable=not console.is_interactive) as progress:
        for source in chosen:
            began = time.time()
            if progress.disable:
                tell(f"{source.stem} begins")
            notebook = build(source, knobs)
            task = progress.add_task(source.stem, total=len(notebook.cells))
            execute(source, notebook, environment, lambda task=task: progress.advance(task))
            with atomic(source.with_suffix(".ipynb")) as temporary:
                nbformat.write(notebook, temporary)
            if progress.disable:
                tell(f"{source.stem} ends after {time.time() - began:.0f} s")
            for line in dict.fromkeys(log.read_text(encoding="utf-8").splitlines()):
                tell(f"  {line}")
            log.write_text("")


class ThisPython(AsyncKernelManager):
    """A kernel of the Python that runs, whatever other kernels named python3 are installed."""

    @default("kernel_spec_manager")
    def _native(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def execute(source: Path, notebook: Any, environment: dict[str, str], advance: Any = lambda: None) -> None:
    """Run all cells in a fresh kernel; the notebook keeps its outputs only if none failed."""
    kept = dict(os.environ)
    os.environ.update({"PYDEVD_DISABLE_FILE_VALIDATION": "1"} | environment)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        kernel_manager_class=ThisPython,
        record_timing=False,
        extra_arguments=["--log-level=CRITICAL"],  # a kernel that is told to end would complain of its closed sockets
        resources={"metadata": {"path": str(source.parent)}},
    )
    try:
        with client.setup_kernel():
            try:
                for number, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, number)
                    advance()
                repeat_claims(client)
            except KeyboardInterrupt:
                client.allow_errors = True  # the cell left behind ends with its kernel, and nobody asks how
                raise
    except CellExecutionError as error:
        if error.ename == "UserError":
            raise UserError(f"{source.name}: {error.evalue}") from error
        said = "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[-12:])
        raise NotebookFailed(f"{source.name} failed and keeps its old outputs.\n{said}") from error
    except (DeadKernelError, CellTimeoutError) as error:
        said = (
            "its kernel died, as for want of memory" if isinstance(error, DeadKernelError) else "a cell took too long"
        )
        raise NotebookFailed(f"{source.name} failed and keeps its old outputs: {said}") from error
    except KeyboardInterrupt as stop:
        raise Stopped(f"stopped in {source.name}, which keeps its old outputs; run it again to go on") from stop
    finally:
        os.environ.clear()
        os.environ.update(kept)
    notebook.metadata["language_info"] = nbformat.from_dict({"name": "python"})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):  # its id is random, and it shows nothing without a kernel
                output["data"] = {"text/plain": "(run this cell to use the explorer)"}
    notebook.metadata.pop("widgets", None)


def repeat_claims(client: NotebookClient) -> None:
    """Run the cell tagged `claim` once more, so that the abstract tells this run's numbers."""
    for number, cell in enumerate(client.nb.cells):
        if "claim" in cell.metadata.get("tags", []):
            count = cell["execution_count"]
            client.execute_cell(cell, number)
            cell["execution_count"] = count
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = count


def show_findings(pair: str, root: Path, console: Console) -> None:
    """Print the ledger of the run, a line of at most 80 columns a finding."""
    tell, rows = _plainly(console), read_ledger(root / "data" / pair / "findings.json")
    tell(f"Findings on {pair} (claims, controls and rules are in the report):" if rows else f"No findings on {pair}.")
    for row in rows:
        numbers = f"{row['estimate']:.3g} ({row['low']:.3g} to {row['high']:.3g}) {row['unit']}"
        line = f"{row['id']}  {row['verdict']:13}  {numbers}"
        tell(line if len(line) <= 80 else f"{line[:77]}...")
