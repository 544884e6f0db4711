# SPDX-License-Identifier: MIT

import numpy as np
import pytest

from helpers.findings import (
    CLAIMS,
    NO_VALUE,
    ONE_MODEL,
    Rule,
    claim,
    frame,
    load_findings,
    record,
    sentence,
    table,
)
from helpers.pairs import Pair
from helpers.stats import Interval
from helpers.store import read_json

NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        (Rule("above", 2.0), 2.1, 3, "holds"),
        (Rule("above", 2.0), 1.9, 2.1, "inconclusive"),
        (Rule("below", -2.0), -4, -3, "holds"),
        (Rule("below", -2.0), -1, 1, "does not hold"),
        (Rule("away", 0.5), -2, -1, "holds"),
        (Rule("away", 0.5), -0.4, 0.4, "does not hold"),
        (Rule("away", 0.5), 0.4, 0.6, "inconclusive"),
    ],
)
def test_rules(rule, low, high, verdict):
    assert rule.verdict(Interval((low + high) / 2, float(low), float(high), 10)) == verdict


def write(pair, finding="F01", estimate=3.0, interval=None):
    interval = interval or Interval(estimate, estimate - 1, estimate + 1, 9)
    rule = Rule("above", 1.0)
    return record(
        pair,
        finding,
        notebook="01_prompts",
        quantity="q",
        unit="u",
        interval=interval,
        control=Interval(0.0, 0.0, 0.0, 9),
        control_name="c",
        rule=rule,
        verdict=rule.verdict(interval),
    )


def test_ledger_keeps_one_entry_a_finding_in_order(qwen, data_here):
    write(qwen, "F02")
    write(qwen, "F01", 3.0)
    write(qwen, "F01", 4.0)
    rows = load_findings("tiny-qwen2")
    assert [row["id"] for row in rows] == ["F01", "F02"] and rows[0]["estimate"] == 4
    assert rows[0]["models"] == [m.identity for m in qwen.members]
    assert list(table("tiny-qwen2")["verdict"]) == ["holds", "holds"]


def test_sentence_tells_number_interval_n_and_control(qwen, data_here):
    said = sentence(write(qwen))
    for part in ("F01 holds", "3 u", "2 to 4", "n = 9 confirm", "control, c: 0"):
        assert part in said


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(2.0, 4.0, "inconclusive"), (0.5, 4.0, "inconclusive"), (0.1, 0.2, "does not hold")]
)
def test_of_two_copies_of_one_model_nothing_holds(qwen, data_here, low, high, verdict):
    """A rule that is met becomes inconclusive and says why; the other verdicts stay."""
    copies, interval, rule = Pair("copies", qwen.base, qwen.base), Interval(low, low, high, 9), Rule("above", 1.0)
    entry = write(copies, interval=interval)
    assert entry["verdict"] == verdict
    assert entry["detail"].startswith(ONE_MODEL) is (rule.verdict(interval) == "holds")
    assert write(qwen, interval=interval)["verdict"] == rule.verdict(interval), "a pair of two models is untouched"


def test_a_finding_without_a_value_is_null_on_disk_and_read_as_none_of_the_numbers(qwen, data_here):
    """Written, read, told, and kept when another finding is written."""
    entry = write(qwen, interval=Interval(NAN, NAN, NAN, 9))
    write(qwen, "F02")
    assert entry["detail"].startswith(NO_VALUE)
    stored = read_json(data_here / "tiny-qwen2" / "findings.json")[0]
    (read, _), shown = load_findings("tiny-qwen2"), table("tiny-qwen2")
    for end in ("estimate", "low", "high"):
        assert stored[end] is None and np.isnan(read[end]), end
    assert sentence(read) == sentence(entry) and "Measured: q nan u (95 % interval nan to nan" in sentence(read)
    assert shown["estimate"][0] == "nan u" and shown["verdict"][0] == "inconclusive"


def test_a_pair_that_was_not_run_says_so(data_here):
    assert "has not been run" in claim("nowhere", "F01")
    assert len(frame([])) == 0 and "F08" in CLAIMS
