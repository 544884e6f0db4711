# SPDX-License-Identifier: MIT

import json

import numpy as np
import pytest

from helpers import findings
from helpers.commands.summary import findings_table
from helpers.findings import NO_VALUE, ONE_MODEL, Part, Published, Rule, claim, load_findings, sentence, table
from helpers.pairs import Pair
from helpers.stats import Interval
from helpers.store import UserError

NAN = float("nan")
TEXTS = Published("traces of others", ("a/base", "a/distilled"), "temperature 0.6")


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        (Rule("above", 2.0), 2.1, 3, "holds"),
        (Rule("above", 2.0), 1.9, 2.1, "inconclusive"),
        (Rule("below", -2.0), -1, 1, "does not hold"),
        (Rule("away", 0.5), -2, -1, "holds"),
        (Rule("away", 0.5), -0.4, 0.4, "does not hold"),
        (Rule("away", 0.5), 0.4, 0.6, "inconclusive"),
        (Rule("above", 0.0, 0.5), 0.6, 1, "holds"),
        (Rule("above", 0.0, 0.5), 0.4, 1, "inconclusive"),
        (Rule("below", 0.0, 0.5), 0.6, 1, "does not hold"),
        (Rule("above", 0.0), NAN, NAN, "inconclusive"),
    ],
)
def test_rules(rule, low, high, verdict):
    assert Part("p", Interval((low + high) / 2, float(low), float(high), 10), rule).verdict == verdict


def write(source, finding="F01", estimate=3.0, value=None, **more):
    value = value or Interval(estimate, estimate - 1, estimate + 1, 9)
    about = {"notebook": "01_prompts", "quantity": "q", "unit": "u", "control": ("c", Interval(0.0, 0.0, 0.0, 9))}
    return findings.record(source, finding, **about, **{"rules": [Part("first", value, Rule("above", 1.0))], **more})


def test_ledger_keeps_one_entry_a_finding_in_order(qwen, data_here):
    assert "has not been run" in claim("tiny-qwen2", "F01") and len(table("tiny-qwen2")) == 0
    write(qwen, "F02")
    write(qwen, "F01", 3.0)
    write(qwen, "F01", 4.0)
    rows = load_findings("tiny-qwen2")
    assert [row["id"] for row in rows] == ["F01", "F02"] and rows[0]["estimate"] == 4
    assert rows[0]["models"] == [m.identity for m in qwen.members] and rows[0]["evidence"] == "pair"
    assert list(table("tiny-qwen2")["verdict"]) == ["holds", "holds"]


def test_the_verdict_by_the_log_odds_of_stopping_stands_beside(qwen, data_here):
    entry = write(qwen, stopping=[Part("odds", Interval(0.5, 0.4, 0.6, 9), Rule("above", 1.0))])
    assert entry["verdict"] == "holds" and entry["stopping"]["verdict"] == "does not hold"
    assert "By the log-odds of stopping: does not hold" in sentence(entry) and "✗ odds" in sentence(entry)
    assert "stopping" not in write(qwen) and "log-odds" not in sentence(write(qwen))


def test_all_parts_decide_and_the_first_is_the_number(qwen, data_here):
    """Unless another number is given."""
    small, large = (Interval(x, x - 0.1, x + 0.1, 9) for x in (0.5, 2.0))
    parts = [Part(f"part {k}", one, Rule("above", 1.0)) for k, one in enumerate((large, small))]
    entry = write(qwen, rules=parts)
    assert entry["verdict"] == "does not hold" and entry["estimate"] == 2
    assert [part["verdict"] for part in entry["rules"]] == ["holds", "does not hold"]
    assert entry["rules"][1] | {"side": "above", "threshold": 1.0, "low": 0.4, "n": 9} == entry["rules"][1]
    assert write(qwen, rules=parts[:1], interval=small)["estimate"] == 0.5
    with pytest.raises(UserError, match="of F01 have one name"):
        write(qwen, rules=parts, details={"part 0": 1})


def test_details_come_back_as_they_went(qwen, data_here):
    details = {"an interval": Interval(0.123456, 0.1, 2e-5, 9), "a share": 2.0345e-5, "a count": 49152, "a word": "x"}
    entry = write(qwen, details=details)
    told = {"an interval": {"estimate": 0.1235, "low": 0.1, "high": 2e-5, "n": 9}, "a share": 2.03e-5}
    assert entry["details"] == details | told and load_findings("tiny-qwen2") == [entry]


def test_sentence_tells_number_interval_n_control_parts_and_details(qwen, data_here):
    parts = [Part("first", Interval(3.0, 2.0, 4.0, 9), Rule("above", 1.0))]
    parts += [Part("second", Interval(0.0, -0.1, 0.1, 9), Rule("away", 1.0))]
    parts += [Part("third", Interval(0.0, -0.1, 0.1, 9), Rule("below", 0.0, 0.05))]
    said = sentence(write(qwen, rules=parts, details={"so many": 7, "<think>": 0.5}))
    for piece in (
        "F01 does not hold** on pair `tiny-qwen2`",
        "3 u (95 % interval 2 to 4, n = 9 confirm prompts); control, c: 0 (0 to 0).",
        "\n- ✓ first: 3 (2 to 4), above 1\n",
        "\n- ✗ second: 0 (-0.1 to 0.1), more than 1 from zero\n",
        "\n- ? third: 0 (-0.1 to 0.1), below 0 by more than 0.05\n",
        "so many: 7; \\<think>: 0.5",
    ):
        assert piece in said
    assert claim("tiny-qwen2", "F02", "F01") == said.partition("\n")[0]


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(2.0, 4.0, "inconclusive"), (0.5, 4.0, "inconclusive"), (0.1, 0.2, "does not hold")]
)
def test_of_two_copies_of_one_model_nothing_holds(qwen, data_here, low, high, verdict):
    """A rule that is met becomes inconclusive and says why; the other verdicts stay."""
    copies, interval, rule = Pair("copies", qwen.base, qwen.base), Interval(low, low, high, 9), Rule("above", 1.0)
    entry = write(copies, value=interval)
    assert entry["verdict"] == verdict
    assert (entry["remark"] == ONE_MODEL) is (rule.verdict(interval) == "holds") is (ONE_MODEL in sentence(entry))
    assert write(qwen, value=interval)["verdict"] == rule.verdict(interval), "a pair of two models is untouched"


def test_a_finding_without_a_value_is_null_on_disk_and_read_as_none_of_the_numbers(qwen, data_here):
    """Written, read, told, and kept when another finding is written."""
    entry = write(qwen, value=Interval(NAN, NAN, NAN, 9))
    write(qwen, "F02")
    assert entry["remark"] == NO_VALUE
    stored = json.loads((data_here / "tiny-qwen2" / "findings.json").read_text())[0]
    (read, _), shown = load_findings("tiny-qwen2"), table("tiny-qwen2")
    for end in ("estimate", "low", "high"):
        assert stored[end] is stored["rules"][0][end] is None and np.isnan([read[end], read["rules"][0][end]]).all()
    assert sentence(read) == sentence(entry) and "Measured: q nan u (95 % interval nan to nan" in sentence(read)
    assert shown["estimate"][0] == "nan (nan to nan)" and shown["verdict"][0] == "inconclusive"


def test_published_texts_have_a_ledger_of_their_own_and_stand_beside_the_pairs(qwen, data_here, monkeypatch):
    """One row a claim and source; one model may stand alone there."""
    write(qwen, details={"beside": 1})
    for source in (TEXTS, Published("one model's", ("a/distilled",)), TEXTS):
        entry = write(source)
    assert entry["evidence"] == "published" and entry["models"] == ["a/base", "a/distilled"]
    rows = load_findings("published")
    assert [(row["id"], row["source"]) for row in rows] == [("F01", "one model's"), ("F01", "traces of others")]
    assert {row["verdict"] for row in rows} == {"holds"} and list(table("published")["id"]) == ["F01", "F01"]
    assert claim("nowhere", "F01").count("in published texts (") == 2 and "pair `" not in sentence(entry)
    _, _, own, *published = findings_table("tiny-qwen2").splitlines()
    assert "published" not in own and len(published) == 2
    assert "q (published texts: traces of others, a/base, a/distilled; temperature 0.6)" in published[1]
