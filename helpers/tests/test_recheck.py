# SPDX-License-Identifier: MIT
"""A second run is held against the committed findings: what must differ does, and what need not does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from helpers.commands.recheck import committed, compare, differences, keep, other_bytes
from helpers.store import ROOT, UserError, write_records
from helpers.tests.test_commands import helpers

LEDGER = json.loads((ROOT / "data" / "smol" / "findings.json").read_text())
F01, F05 = (next(row for row in LEDGER if row["id"] == name) for name in ("F01", "F05"))


def changed(finding: str, field: str, value: object) -> list[dict]:
    """The committed ledger with one field of one finding replaced; "control estimate" reaches inside."""
    rows = copy.deepcopy(LEDGER)
    row = next(row for row in rows if row["id"] == finding)
    inner, _, name = field.partition(" ")
    (row[inner] if name else row)[name or field] = value
    return rows


def test_a_ledger_equals_itself():
    assert differences(LEDGER, copy.deepcopy(LEDGER)) == []


@pytest.mark.parametrize(
    ("finding", "field", "value"),
    [
        ("F01", "verdict", "inconclusive"),
        ("F01", "estimate", F01["estimate"] * 1.002),
        ("F05", "high", F05["high"] + 0.0012),
        ("F05", "control estimate", 0.9),
        ("F12", "models", ["smol-base@bcc81830", "smol-distilled@00000000"]),
        ("F01", "detail", "something else"),
        ("F01", "estimate", float("nan")),
    ],
)
def test_what_differs_is_told_by_finding_and_field(finding, field, value):
    rows = differences(LEDGER, changed(finding, field, value))
    assert [(name, at) for name, at, _, _ in rows] == [(finding, field)]


def test_numbers_within_the_tolerance_are_equal():
    for field, value in (("low", F01["low"] * 1.0005), ("control high", F01["control"]["high"] - 1e-3)):
        assert differences(LEDGER, changed("F01", field, value)) == []


@pytest.mark.parametrize(
    ("old", "new", "equal"),
    [
        ("0.11 [", "0.12 [", True),
        ("0.11 [", "0.14 [", False),
        ("4 control", "5 control", False),
    ],
)
def test_numbers_inside_a_text_may_move_by_one_of_their_last_place_and_counts_may_not(old, new, equal):
    detail = LEDGER[0]["detail"]
    assert old in detail
    assert (differences(LEDGER, changed("F01", "detail", detail.replace(old, new))) == []) is equal


def test_missing_and_new_findings_are_told():
    assert differences(LEDGER, LEDGER[1:]) == [("F01", "finding", "there", "missing")]
    assert differences(LEDGER[1:], LEDGER) == [("F01", "finding", "missing", "there")]


def run_folder(folder: Path, rows: list[dict]) -> Path:
    write_records(folder / "data" / "smol" / "findings.json", rows)
    return folder


@pytest.mark.parametrize(
    ("field", "value", "numbers", "verdicts"),
    [("unit", "times", True, True), ("estimate", 11.0, False, True), ("verdict", "inconclusive", False, False)],
)
def test_on_another_machine_verdicts_decide(tmp_path, capsys, field, value, numbers, verdicts):
    folder = run_folder(tmp_path, changed("F01", field, value))
    assert compare("smol", LEDGER, folder, quick=True) is numbers
    assert compare("smol", LEDGER, folder, quick=True, verdicts=True) is verdicts
    assert ("F01" in capsys.readouterr().out) is not numbers, "what differs is told in any case"


def test_a_run_of_one_notebook_is_held_against_its_findings_alone(tmp_path):
    own = [row for row in LEDGER if row["notebook"].startswith("02")]
    assert [row["id"] for row in committed("smol", quick=False, only="02")] == [row["id"] for row in own]
    assert compare("smol", own, run_folder(tmp_path, LEDGER), quick=True, only="02")
    assert not compare("smol", own, run_folder(tmp_path, LEDGER[:3]), quick=True, only="02")


def test_a_quick_ledger_has_a_name_of_its_own(tmp_path):
    path = keep("smol", run_folder(tmp_path / "run", LEDGER), root=tmp_path)
    assert path == tmp_path / "data" / "smol" / "quick_findings.json" and json.loads(path.read_text()) == LEDGER
    assert committed("smol", quick=True, root=tmp_path) == LEDGER
    with pytest.raises(UserError, match="run --pair smol`"):
        committed("smol", quick=False, root=tmp_path)


@pytest.mark.parametrize(("value", "equal"), [(float("nan"), True), (None, True), (0.0, False)])
def test_no_number_equals_no_number_alone(tmp_path, value, equal):
    path = tmp_path / "data" / "smol" / "findings.json"
    write_records(path, changed("F01", "control low", None))
    expected = committed("smol", quick=False, root=tmp_path)
    path.write_text(json.dumps(changed("F01", "control low", value)))  # as older ledgers have it: NaN
    assert compare("smol", expected, tmp_path, quick=True) is equal


def test_files_of_a_full_run_are_compared_by_their_bytes(tmp_path):
    for root, text in (("run", "b"), ("committed", "a")):
        for name in ("data/smol/02_logits.csv", "data/smol/04_dose.meta.json", "figures/smol/01_a.png"):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("same" if name.endswith("png") else text)
    found = other_bytes("smol", tmp_path / "run", root=tmp_path / "committed")
    assert found == (["data/smol/02_logits.csv"], 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--check", "--pair", "a,b"), "no data/own/findings.json"), (("--keep",), "--keep goes with --quick alone")],
)
def test_what_cannot_be_checked_is_one_line(arguments, said):
    done = helpers("run", *arguments)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
