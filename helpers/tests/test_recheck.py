# SPDX-License-Identifier: MIT
"""A second run is held against the committed findings: what must differ does, and what need not does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.commands.recheck import committed, compare, differences, keep, other_bytes
from helpers.store import UserError, write_records
from helpers.tests.conftest import entry

LEDGER = [entry("F01"), entry("F05", "02_logits"), entry("F06", "02_logits")]


def changed(finding: str, way: str, value: object) -> list[dict[str, Any]]:
    """The ledger with one field of one finding replaced: "control low" reaches inside, "rules 1 low" into a part."""
    rows = copy.deepcopy(LEDGER)
    place: Any = next(row for row in rows if row["id"] == finding)
    *steps, last = way.split()
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    return rows


@pytest.mark.parametrize(
    ("way", "value"),
    [
        ("verdict", "inconclusive"),
        ("high", 10.512),
        ("control estimate", 0.5012),
        ("models", ["x", "z"]),
        ("n", 10),
        ("estimate", float("nan")),
        ("rules 1 low", 4.4),
        ("rules 1 verdict", "inconclusive"),
        ("details loops low", -0.402),
        ("details new", 1),
    ],
)
def test_what_differs_is_told_by_finding_and_field(way, value):
    rows = differences(LEDGER, changed("F01", way, value))
    assert [(name, at) for name, at, _, _ in rows] == [("F01", way.replace(" 1 ", " b "))]


@pytest.mark.parametrize(("way", "value"), [("low", 9.509), ("rules 0 high", 10.49), ("details loops high", 0.6009)])
def test_numbers_within_the_tolerance_are_equal(way, value):
    assert differences(LEDGER, changed("F05", way, value)) == []


def run_folder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A project with this ledger."""
    write_records(folder / "data" / "smol" / "findings.json", rows)
    return folder


def test_a_missing_finding_fails_and_a_new_one_is_told_with_the_command_that_keeps_it(tmp_path, capsys):
    assert differences(LEDGER, LEDGER[1:]) == [("F01", "finding", "there", "missing")]
    assert not compare("smol", LEDGER, run_folder(tmp_path, LEDGER[1:]), quick=True, verdicts=True)
    capsys.readouterr()
    for quick, how in ((True, "run --pair smol --quick --keep`"), (False, "run --pair smol`")):
        assert compare("smol", LEDGER[1:], run_folder(tmp_path, LEDGER), quick=quick, verdicts=quick)
        assert f"\nnew, not committed yet: F01; keep with `python -m helpers {how}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "value", "same", "verdicts"),
    [("unit", "times", False, True), ("estimate", 11.0, False, True), ("verdict", "inconclusive", False, False)],
)
def test_on_another_machine_verdicts_decide(tmp_path, capsys, field, value, same, verdicts):
    folder = run_folder(tmp_path, changed("F01", field, value))
    assert compare("smol", LEDGER, folder, quick=True) is same
    assert compare("smol", LEDGER, folder, quick=True, verdicts=True) is verdicts
    assert "F01" in capsys.readouterr().out, "what differs is told in any case"


def test_a_run_of_one_notebook_is_held_against_its_findings_alone(tmp_path):
    own = committed("smol", quick=False, only="02", root=run_folder(tmp_path, LEDGER))
    assert own == LEDGER[1:]
    assert compare("smol", own, run_folder(tmp_path / "run", LEDGER), quick=True, only="02")
    assert not compare("smol", own, run_folder(tmp_path / "run", LEDGER[:2]), quick=True, only="02")


def test_a_quick_ledger_has_a_name_of_its_own(tmp_path):
    path = keep("smol", run_folder(tmp_path / "run", LEDGER), root=tmp_path)
    assert path == tmp_path / "data" / "smol" / "quick_findings.json" and json.loads(path.read_text()) == LEDGER
    assert committed("smol", quick=True, root=tmp_path) == LEDGER
    with pytest.raises(UserError, match="run --pair smol`"):
        committed("smol", quick=False, root=tmp_path)


@pytest.mark.parametrize(("value", "equal"), [(float("nan"), True), (None, True), (0.0, False)])
def test_no_number_equals_no_number_alone(tmp_path, value, equal):
    run_folder(tmp_path, changed("F01", "control low", None))
    expected = committed("smol", quick=False, root=tmp_path)
    older = json.dumps(changed("F01", "control low", value))  # which say NaN
    (tmp_path / "data" / "smol" / "findings.json").write_text(older)
    assert compare("smol", expected, tmp_path, quick=True) is equal


def test_files_of_a_full_run_are_compared_by_their_bytes(tmp_path):
    for root, text in (("run", "b"), ("committed", "a")):
        for name in ("data/smol/02_logits.csv", "data/smol/04_dose.meta.json", "figures/smol/01_a.png"):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("same" if name.endswith("png") else text)
    found = other_bytes("smol", tmp_path / "run", root=tmp_path / "committed")
    assert found == (["data/smol/02_logits.csv"], 2)
