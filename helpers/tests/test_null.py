# SPDX-License-Identifier: MIT
"""The null study: two copies of one model show nothing, and roles exchanged turn the numbers round."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import numpy as np
import pytest

from helpers import stats
from helpers.commands.recheck import committed, differences
from helpers.commands.run import run
from helpers.findings import CLAIMS, ONE_MODEL, read_ledger
from helpers.pairs import load_pair
from helpers.tests.conftest import OF_R1

# What a finding that compares the models reads where they do not differ.
NEUTRAL = {"F01": 1.0, "F04": 0.0, "F06": 0.0, "F11": 0.0, "F25": 0.0}
# Rules about each model alone: two copies of a model can meet them, and are told to be no pair.
OF_EACH = {"F03", "F08"}


def nothing_holds(rows: list[dict[str, Any]]) -> None:
    assert len(rows) > 20
    if new := sorted(CLAIMS.keys() - {row["id"] for row in rows} - OF_R1.keys()):
        warnings.warn(f"not on the null pair yet: {new}; `run --pair null --quick --keep` measures it", stacklevel=2)
    assert len({name for row in rows for name in row["models"]}) == 1, "not two copies of one model"
    assert not [row["id"] for row in rows if row["verdict"] == "holds"]
    assert not [row["id"] for row in rows if row.get("stopping", row)["verdict"] == "holds"], "by the log-odds"
    met = {row["id"] for row in rows if row["remark"] == ONE_MODEL}
    assert met <= OF_EACH, f"a rule that compares the models is met by two copies of one: {met - OF_EACH}"


def test_of_two_copies_of_one_model_no_finding_holds_and_what_compares_them_reads_exactly_nothing():
    nothing_holds(rows := committed("null", quick=True))
    for row in (row for row in rows if row["id"] in NEUTRAL):
        assert row["estimate"] == row["low"] == row["high"] == NEUTRAL[row["id"]], row["id"]


def test_roles_exchanged_turn_the_numbers_round():
    """Of what is read from texts that do not depend on the roles. What is read after combined prompts (F06, F11's
    lens) is not there: they hold the base's own answer, so exchanged roles make other texts of them."""
    one, two = ({row["id"]: row for row in committed(pair, quick=True)} for pair in ("smol", "swapped"))
    assert one["F01"]["models"] == two["F01"]["models"][::-1]
    there, back = one["F01"], two["F01"]
    inverse = 1 / back["estimate"], 1 / back["high"], 1 / back["low"]
    assert (there["estimate"], there["low"], there["high"]) == pytest.approx(inverse, rel=0.01), "a ratio"
    told = [[rows["F04"], rows["F25"], rows["F11"]["control"]] for rows in (one, two)]
    for there, back in zip(*told, strict=True):
        mirrored = -back["estimate"], -back["high"], -back["low"]
        assert (there["estimate"], there["low"], there["high"]) == pytest.approx(mirrored, abs=2e-4)
        assert there["estimate"]
    assert one["F12"]["estimate"] == pytest.approx(two["F12"]["estimate"], rel=0.01), "over another model's norm"


@pytest.mark.parametrize("n", [6, 24, 116])
def test_exchanged_samples_mirror_every_paired_interval_and_a_sample_against_itself_shows_nothing(n):
    rng = np.random.default_rng(n)
    one, two = 1 + rng.exponential(size=(2, n)) * [[100], [20]]
    there, back, same = stats.paired(one, two), stats.paired(two, one), stats.paired(one, one)
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    there, back, same = (stats.ratio_of_medians(*both) for both in ((one, two), (two, one), (one, one)))
    inverse = (1 / back.estimate, 1 / back.high, 1 / back.low)
    assert (there.estimate, there.low, there.high) == pytest.approx(inverse, rel=0.02) and same.high == 1
    assert stats.sign_flip_p(one - two) == stats.sign_flip_p(two - one) and stats.sign_flip_p(one - one) == 1


def test_false_discoveries_are_controlled_under_the_null():
    """A scan of 30 heads over 24 prompts without any effect: in at most 5 % of studies is anything found, and some
    are where nothing corrects."""
    p = [stats.sign_flip_p(np.random.default_rng(k).normal(size=(24, 30))) for k in range(400)]
    found = [(stats.false_discovery(values) < 0.05).any() for values in p]
    assert np.mean(found) <= 0.05 + 3 * 0.0109, f"{np.mean(found)}: three standard errors of 400 studies are allowed"
    assert np.mean([(values < 0.05).any() for values in p]) > 0.6


@pytest.mark.embedded
def test_the_controls_are_the_pairs_they_are_named_for(smol):
    null, swapped = load_pair("null", device="cpu"), load_pair("swapped", device="cpu")
    base, distilled = (member.identity for member in smol.members)
    assert [member.identity for member in null.members] == [base, base]
    assert [member.identity for member in swapped.members] == [distilled, base]
    texts = [member.prompt("Who?", "template") for member in null.members]
    assert texts[0] == texts[1] and "<think>" not in texts[0], "copies must be asked alike"
    assert swapped.base.prompt("Who?", "template").endswith("<think>\n")


@pytest.mark.slow
@pytest.mark.embedded
def test_the_whole_series_on_the_null_pair(request):
    """Again from the start: nothing holds, and the verdicts are those that are stored."""
    folder = run(pair="null", quick=True)
    request.addfinalizer(lambda: shutil.rmtree(folder))
    rows = read_ledger(folder / "data" / "null" / "findings.json")
    nothing_holds(rows)
    assert not [row for row in differences(committed("null", quick=True), rows) if row[1] in ("verdict", "finding")]
