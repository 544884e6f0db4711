# SPDX-License-Identifier: MIT
"""Compare the findings of a second run with the committed ones: verdicts exactly, numbers within a tolerance."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from helpers.commands.run import run_command
from helpers.findings import read_ledger
from helpers.store import ROOT, UserError, atomic

# Of one machine in float32 every digit repeats; of another, sums differ in their last bits, and the ledger keeps four
# places. A number inside a text counts as equal within one unit of its last place, too.
RELATIVE, ABSOLUTE = 1e-3, 1e-3
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
EXACT = ("claim", "models", "quantity", "unit", "split", "sample", "rule", "verdict")
Difference = tuple[str, str, str, str]  # finding, field, committed, found


def ledger_path(pair: str, *, quick: bool, root: Path = ROOT) -> Path:
    """Where a ledger is committed; small knobs have one of their own, so that nobody takes it for the study's."""
    return root / "data" / pair / ("quick_findings.json" if quick else "findings.json")


def committed(pair: str, *, quick: bool, only: str | None = None, root: Path = ROOT) -> list[dict[str, Any]]:
    """The ledger to compare with, or its part of some notebooks. Raises UserError where there is none."""
    path = ledger_path(pair, quick=quick, root=root)
    if not path.exists():
        how = run_command(pair) + " --quick --keep" * quick
        raise UserError(f"no {path.relative_to(root)} to compare with: write it with `{how}`")
    return [row for row in read_ledger(path) if row["notebook"].startswith(only or "")]


def keep(pair: str, run: Path, *, root: Path = ROOT) -> Path:
    """Copy the ledger of a quick run from its scratch folder to where later runs are compared with it."""
    path = ledger_path(pair, quick=True, root=root)
    with atomic(path) as temporary:
        temporary.write_bytes(ledger_path(pair, quick=False, root=run).read_bytes())
    return path


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[Difference]:
    """What differs, one row a field: findings that are missing or new, words, verdicts, and numbers beyond the
    tolerance, those inside texts included."""
    known, seen = ({row["id"]: row for row in rows} for rows in (expected, found))
    rows = [(name, "finding", "there", "missing") for name in sorted(known.keys() - seen.keys())]
    rows += [(name, "finding", "missing", "there") for name in sorted(seen.keys() - known.keys())]
    for name in sorted(known.keys() & seen.keys()):
        one, two = (_flat(row) for row in (known[name], seen[name]))
        rows += [
            (name, field, str(one.get(field)), str(two.get(field)))
            for field in one | two
            if not _same(one.get(field), two.get(field), exact=field in EXACT)
        ]
    return rows


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    inner = {f"control {key}": value for key, value in row["control"].items()}
    return {key: value for key, value in row.items() if key not in ("control", "id")} | inner


def _same(one: Any, two: Any, *, exact: bool) -> bool:
    if not exact and isinstance(one, float) and isinstance(two, float):
        return _close(one, two, 0.0)
    if not exact and isinstance(one, str) and isinstance(two, str):
        if NUMBER.sub("#", one) != NUMBER.sub("#", two):
            return False
        numbers = zip(NUMBER.findall(one), NUMBER.findall(two), strict=True)
        return all(_close(float(a), float(b), _place(a)) for a, b in numbers)
    return one == two


def _place(number: str) -> float:
    """One unit of the last place that a printed number shows."""
    digits, _, power = number.partition("e")
    return 10.0 ** (int(power or 0) - len(digits.partition(".")[2])) if "." in digits or power else 0.0


def _close(one: float, two: float, place: float) -> bool:
    if math.isnan(one) or math.isnan(two):
        return math.isnan(one) and math.isnan(two)
    return abs(one - two) <= max(ABSOLUTE, RELATIVE * abs(one), place * 1.001)


def other_bytes(pair: str, run: Path, *, root: Path = ROOT) -> tuple[list[str], int]:
    """Data and figures of a full run that are not byte for byte the committed ones, and how many there are of both.
    What says when and where a result was made (`*.meta.json`) and the report are left out."""
    made = [path for kind in ("data", "figures") for path in sorted((run / kind / pair).glob("[0-9af]*.*"))]
    made = [path for path in made if path.is_file() and not path.name.endswith(".meta.json")]
    names = [path.relative_to(run) for path in made if (root / path.relative_to(run)).exists()]
    return [str(name) for name in names if (root / name).read_bytes() != (run / name).read_bytes()], len(names)


def compare(
    pair: str,
    expected: list[dict[str, Any]],
    run: Path,
    *,
    quick: bool = False,
    only: str | None = None,
    verdicts: bool = False,
    root: Path = ROOT,
) -> bool:
    """Print what differs between the committed findings and those of a run in a scratch folder; whether nothing that
    decides does. `verdicts`: numbers are told, verdicts decide. Of a full run the files are compared as well."""
    console, path = Console(), ledger_path(pair, quick=False, root=run)
    found = [row for row in read_ledger(path) if row["notebook"].startswith(only or "")]
    rows = differences(expected, found)
    if rows:
        grid = Table(title=f"Not as committed (numbers: beyond {RELATIVE:g} of the value and {ABSOLUTE:g})")
        for name in ("finding", "field", "committed", "found"):
            grid.add_column(name)
        for row in rows:
            grid.add_row(*row)
        console.print(grid)
    else:
        console.print(f"{len(expected)} findings: verdicts, words and numbers as committed", highlight=False)
    if not quick:
        others, n = other_bytes(pair, run, root=root)
        same = f"{n - len(others)} of {n} files of data and figures are byte for byte as committed"
        console.print(f"{same}; not so: {', '.join(others)}" if others else same, highlight=False)
    return not [field for _, field, _, _ in rows if field in ("finding", "verdict") or not verdicts]
