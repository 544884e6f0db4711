# SPDX-License-Identifier: MIT
"""Counts over texts: invented ones with known counts, and the published ones where they are there."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.commands import published
from helpers.store import UserError
from helpers.texts import fork_rates, last_number, line_breaks, measure, waits

THOUGHT = "First, 2 + 2.\nIt is 4.\n\nWait, is it? I wait. (Wait)\n- one\n- two\n\\[\nx = 4\n\\]\n\nYes.\n</think>\n\n"
TEXT = THOUGHT + "Wait: the answer is \\(\\boxed{1,\\!004}\\), not 7."


def test_every_line_end_is_told_by_gap_end_next_line_and_what_follows():
    found = [(b.gap, b.line_end, b.next_line, b.follows) for b in line_breaks(TEXT)]
    one, blank = "one new line", "blank line"
    assert found == [
        (one, "sentence", "prose", "goes on"),
        (blank, "sentence", "prose", "waits"),
        (one, "bracket", "list", "goes on"),
        (one, "other", "list", "goes on"),
        (one, "other", "formula", "goes on"),
        (one, "other", "formula", "goes on"),
        (one, "other", "formula", "goes on"),
        (blank, "bracket", "prose", "goes on"),
        (one, "sentence", "prose", "closes"),
    ]
    assert [b.third for b in line_breaks(TEXT)] == [1, 1, 2, 3, 3, 3, 3, 3, 3]


def test_where_a_text_was_cut_no_line_ends():
    assert line_breaks("So it goes.\n\n") == []
    assert [b.follows for b in line_breaks("So.\nIt goes.\n")] == ["goes on"]


def test_waits_by_place_and_token():
    assert waits(TEXT) == {("blank line", "Wait"): 2, ("space", " wait"): 1, ("other", "Wait"): 1}
    assert waits("waiting, await, Waits; WAIT") == {}


def test_one_row_of_counts():
    found = measure(TEXT)
    expected = {"closings": 1, "gap_before_close": "one new line", "waits_after_close": 1, "words_after_close": 7,
                "waits after blank line": 2, "waits after one new line": 0, "waits 'Wait'": 3, "first_word": "First,",
                "answer_marker_before_close": 0, "lines ended by blank line": 2, "lines ended by one new line": 7,
                "sentences, one new line: closes": 1, "sentences, one new line: goes on": 1,
                "sentences, blank line: waits": 1}  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert measure("No thought.")["gap_before_close"] == "" and measure("")["first_word"] == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [(TEXT, 1004), ("7</think>It is 12.", 12), ("a \\boxed{\\text{$1,234.50}}", 1234.5), ("-3 in all", -3), ("", None)],
)
def test_the_answer_is_the_last_number_in_the_last_box(text, number):
    assert last_number(text) == number


def row(text: str, **more: object) -> dict[str, object]:
    return {"id": "a", "question": "How much is two and two, my friend?", "model": "distilled", "text": text,
            "closed_prompt": False, "settings": "greedy"} | more  # fmt: skip


@pytest.fixture
def invented(tmp_path, monkeypatch) -> Path:
    """A folder of one set, with the counts of none committed."""
    (tmp_path / "counts").mkdir()
    (tmp_path / "counts" / "sources.csv").write_text("set,source,commit,settings\ninvented,a/b,1,greedy\n")
    monkeypatch.setattr(published, "FOLDER", tmp_path / "counts")
    monkeypatch.setattr(published, "sources", lambda: pd.read_csv(tmp_path / "counts" / "sources.csv", index_col="set"))
    rows = [row(TEXT, answer="#### 1,004"), row(TEXT, closed_prompt=True, correct=False)]
    rows += [row("How much is two and two, my friend? 4", question="Another question of four words")]
    (tmp_path / "invented.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return tmp_path


def test_counts_are_kept_and_then_compared(invented, capsys):
    assert published.published(invented, keep=True) and published.published(invented)
    assert "invented" in capsys.readouterr().out
    texts = pd.read_csv(invented / "counts" / "texts.csv")
    assert texts["right"].tolist()[:2] == [1, 0] and texts["right"].isna()[2]
    assert texts["repeats_question"].tolist() == [0, 0, 0] and texts["repeats_other_question"].tolist() == [0, 0, 1]
    breaks = pd.read_csv(invented / "counts" / "line_breaks.csv")
    assert breaks["count"].sum() == 9 and breaks.query("follows == 'closes'")["gap"].tolist() == ["one new line"]
    altered = (invented / "counts" / "texts.csv").read_text().replace("distilled", "base")
    (invented / "counts" / "texts.csv").write_text(altered)
    assert not published.published(invented)


def test_a_set_that_is_missing_or_of_another_form_is_named(invented):
    with pytest.raises(UserError, match=r"holds no invented\.jsonl"):
        published.published(invented / "counts")
    for text, told in (('{"id": 1}\n', "lacks some of"), ('{"id": \n', "fetch it again")):
        (invented / "invented.jsonl").write_text(text)
        with pytest.raises(UserError, match=told):
            published.published(invented)


def test_the_fork_counts_closings_and_waits_at_the_ends_of_sentences():
    counts = pd.DataFrame([measure(TEXT), measure(TEXT), measure("So.\n\nWait.\nIt is. </think>")])
    found = fork_rates(counts)
    assert found["closings after one new line"].estimate == pytest.approx(2 / 3)
    assert found["closes after one new line"].estimate == pytest.approx(2 / 5)
    assert found["closes after blank line"].estimate == 0 and 0 < found["closes after blank line"].high < 1
    assert found["waits after blank line"].estimate == 1 and found["waits after one new line"].estimate == 0
    none_closes = fork_rates(pd.DataFrame([measure("So.")] * 2))
    assert np.isnan(none_closes["closings after one new line"].estimate)


COMMITTED = pd.read_csv(published.ROOT / "data" / "published" / "texts.csv", keep_default_na=False)
KNOWN = {  # set: texts of the distilled model, closings after one new line, waits, texts with one, after a blank line
    "gsm8k_pair": (500, 469, 660, 125, 499),
    "math_sampled": (487, 365, 3267, 399, 2433),
    "math500_think_or_not": (100, 100, 446, 99, 335),  # with its own thought
}


@pytest.mark.parametrize("name", KNOWN)
def test_committed_counts_are_those_that_were_counted_independently(name):
    frame = COMMITTED[(COMMITTED["set"] == name) & (COMMITTED["model"] == "distilled")].query("closed_prompt == 0")
    each = frame.filter(regex="^waits after ").sum(axis=1)
    after_one = (frame["gap_before_close"] == "one new line").sum()
    assert (len(frame), after_one, each.sum(), (each > 0).sum(), frame["waits after blank line"].sum()) == KNOWN[name]
    assert frame["closings"].sum() == after_one


@pytest.mark.skipif("PUBLISHED_TEXTS" not in os.environ, reason="the texts are not part of the project")
def test_committed_counts_are_met_by_the_texts_themselves():
    assert published.published(Path(os.environ["PUBLISHED_TEXTS"]))
