# SPDX-License-Identifier: MIT
"""Compare the findings of a second run with the committed ones: verdicts exactly, numbers within a tolerance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from helpers.commands.run import run_command
from helpers.findings import read_ledger
from helpers.store import ROOT, UserError, write_text

# Of one machine in float32 every digit repeats; of another, sums differ in their last bits.
TOLERANCE = 1e-3  # relative and absolute
KEEP = " --quick --keep"  # the options that write a quick ledger
Rows = list[dict[str, Any]]


def ledger_path(pair: str, *, quick: bool, root: Path = ROOT) -> Path:
    """Where a ledger is committed; small knobs have one of their own, so that nobody takes it for the study's."""
    return root / "data" / pair / ("quick_findings.json" if quick else "findings.json")


def committed(pair: str, *, quick: bool, only: str | None = None, root: Path = ROOT) -> Rows:
    """The ledger to compare with, or its part of some notebooks. Raises UserError where there is none."""
    path = ledger_path(pair, quick=quick, root=root)
    if not path.exists():
        raise UserError(f"no {path.relative_to(root)}: write it with `{run_command(pair)}{KEEP * quick}`")
    return [row for row in read_ledger(path) if row["notebook"].startswith(only or "")]


def keep(pair: str, run: Path, *, root: Path = ROOT) -> Path:
    """Copy the ledger of a quick run from its scratch folder to where later runs are compared with it."""
    path = ledger_path(pair, quick=True, root=root)
    write_text(path, ledger_path(pair, quick=False, root=run).read_text("utf-8"))
    return path


def differences(expected: Rows, found: Rows) -> list[tuple[str, str, str, str]]:
    """What differs, as (finding, field, committed, found): findings that are missing, words, verdicts, and numbers
    beyond the tolerance. New findings have nothing to differ from."""
    seen, rows = {row["id"]: flat(row) for row in found}, []
    for one in map(flat, expected):
        if not (two := seen.get(one["id"])):
            rows.append((one["id"], "finding", "there", "missing"))
            continue
        fields = [field for field in one | two if not _same(one.get(field), two.get(field))]
        rows += [(one["id"], field, str(one.get(field)), str(two.get(field))) for field in fields]
    return rows


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Each number and text of an entry by the way to it: "control low", "details loops estimate"; parts by name."""
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        value = {row["name"]: row for row in value}
    if not isinstance(value, dict):
        return {name: value}
    return {way: one for key, inner in value.items() for way, one in flat(inner, f"{name} {key}".strip()).items()}


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (math.isnan(one) and math.isnan(two))
    return one == two


def other_bytes(pair: str, run: Path, *, root: Path = ROOT) -> tuple[list[str], int]:
    """Data and figures of a full run that are not byte for byte the committed ones, and how many there are of both.
    What says when and where a result was made (`*.meta.json`) and the report are left out."""
    made = [path for kind in ("data", "figures") for path in sorted((run / kind / pair).glob("[0-9af]*.*"))]
    made = [path.relative_to(run) for path in made if path.is_file() and not path.name.endswith(".meta.json")]
    names = [name for name in made if (root / name).exists()]
    return [str(name) for name in names if (root / name).read_bytes() != (run / name).read_bytes()], len(names)


def compare(
    pair: str, expected: Rows, run: Path, *, quick: bool = False, only: str | None = None, verdicts: bool = False
) -> bool:
    """Print what differs between the committed findings and those of a run in a scratch folder; whether nothing that
    decides does. `verdicts`: numbers are told, verdicts decide. Of a full run the files are compared as well."""
    found = committed(pair, quick=False, only=only, root=run)
    if rows := differences(expected, found):
        grid = Table("finding", "field", "committed", "found", title=f"Not as committed, beyond {TOLERANCE:g}")
        for row in rows:
            grid.add_row(*row)
        Console().print(grid)
    else:
        print(f"{len(expected)} findings: verdicts, words and numbers as committed")
    if new := ", ".join(sorted({row["id"] for row in found} - {row["id"] for row in expected})):
        print(f"new, not committed yet: {new}; keep with `{run_command(pair)}{KEEP * quick}`")
    if not quick:
        others, n = other_bytes(pair, run)
        told = f"; not so: {', '.join(others)}" if others else ""
        print(f"{n - len(others)} of {n} files of data and figures are byte for byte as committed{told}")
    return not [field for _, field, _, _ in rows if field in ("finding", "verdict") or not verdicts]
