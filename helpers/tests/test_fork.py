# SPDX-License-Identifier: MIT
"""The fork at the end of a sentence, against plain transformers, and its push."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import fork
from helpers.generation import Change, Completion, complete
from helpers.readouts import measure
from helpers.store import UserError
from helpers.texts import GAPS

TEXT = "So the river is old.\n\nWait, it is. The park is old.\nBut that house. Yes.\n</think>\n\nIt is."


@pytest.fixture
def done(qwen) -> Completion:
    """A thought with known ends of sentences, as if the tiny distilled model had written it."""
    member = qwen.distilled
    prompt = member.prompt("What is old?", "template")
    tokens = member.tokenizer(TEXT, add_special_tokens=False).input_ids
    return Completion(prompt, TEXT, len(tokens), "stop", "So", 0.0, tokens)


def plain(member, ids: list[int]) -> torch.Tensor:
    """Probabilities of the next token in plain transformers."""
    return member.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)


def test_sentence_ends_are_those_of_the_thought(qwen, done):
    decode = qwen.distilled.tokenizer.decode
    places = fork.sentence_ends(qwen.distilled, done)
    before = [
        decode(done.tokens[:place]) + decode(done.tokens[place : place + 1]).partition("\n")[0] for place in places
    ]
    assert [text.rsplit(" ", 2)[-1].strip() for text in before] == ["old.", "old.", "Yes."]


def test_the_fork_is_what_plain_transformers_says_of_each_mark(qwen, done):
    member, marks = qwen.distilled, fork.line_marks(qwen.distilled.tokenizer)
    frame = fork.read_fork(member, done)
    assert frame["wrote"].tolist() == [GAPS[1], GAPS[0], GAPS[0]] and frame["closes"].tolist() == [False, False, True]
    ids = member.encode([done.prompt])["input_ids"][0].tolist()
    new_lines, close, wait = [*marks.one, *marks.blank], member.groups.end_think, list(member.groups.wait)
    for row, place in zip(frame.itertuples(), fork.sentence_ends(member, done), strict=True):
        so_far = [*ids, *done.tokens[:place]]
        first = plain(member, so_far)
        stem = member.tokenizer.decode([done.tokens[place]]).partition("\n")[0]
        one, two = (
            member.tokenizer(f"{stem or '.'}{gap}Wait", add_special_tokens=False).input_ids[not stem : -1]
            for gap in ("\n", "\n\n")
        )
        after, last = plain(member, so_far + one), plain(member, so_far + two)
        second = 0.0 if marks.whole else float(after[new_lines].sum())
        assert row.one == pytest.approx(float(first[list(marks.one)].sum()) * (1 - second), abs=1e-6)
        assert row.one + row.blank + row.neither == pytest.approx(1, abs=1e-6)
        told = [getattr(row, f"_{k}") for k in range(8, 12)]  # names with spaces, in their order
        expected = [after[close] / (1 - second), after[wait].sum() / (1 - second), last[close], last[wait].sum()]
        assert np.allclose(told, [float(value) for value in expected], atol=1e-6)


def test_a_push_of_nothing_changes_nothing(qwen):
    member = qwen.distilled
    prompts = [member.prompt("What is old?", "template")] * 2
    nothing = Change("none", processors=(fork.AtSentenceEnds(member, 0.0),))
    as_it_is = complete(member, prompts, max_new_tokens=12)
    assert complete(member, prompts, change=nothing, max_new_tokens=12) == as_it_is


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("tokens", [None, (7, 9)])
def test_a_push_moves_its_tokens_at_its_steps_alone(qwen, monkeypatch, whole, tokens):
    """Away from a second new line after a sentence and a first one; where period and new line are one token, to it."""
    member = qwen.distilled
    marks = replace(fork.line_marks(member.tokenizer), closing=(5, 6), whole=whole)
    monkeypatch.setattr(fork, "line_marks", lambda tokenizer: marks)
    period, new_line = (member.tokenizer(text, add_special_tokens=False).input_ids[-1] for text in ("a.", "a\n"))
    ids = torch.tensor([[period, new_line], [new_line, period]])
    changed = fork.AtSentenceEnds(member, 5.0, tokens)(ids, torch.zeros(2, member.n_vocab))
    expected = torch.zeros(2, member.n_vocab)
    moved = tokens or (marks.closing if whole else (*marks.one, *marks.blank))
    expected[: 2 if whole else 1, list(moved)] = 5.0 if whole or tokens else -5.0
    assert torch.equal(changed, expected)


def test_a_model_without_the_tag_has_no_fork(qwen, done):
    with pytest.raises(UserError, match="no token for </think>"):
        fork.read_fork(qwen.base, done)


@pytest.mark.parametrize("whole", [False, True])
def test_choices_and_their_odds_are_what_plain_transformers_says(qwen, done, monkeypatch, whole):
    member = qwen.distilled
    marks = replace(fork.line_marks(member.tokenizer), whole=whole)
    monkeypatch.setattr(fork, "line_marks", lambda tokenizer: marks)
    frame, forks = fork.choices(member, done), fork.read_fork(member, done)
    columns = ["place", "depth", "closes"]
    assert frame[columns].equals(forks[columns].loc[frame.index]) and len(frame) == len(forks)
    found = measure(member, list(frame["prompt"]), fork.mark_odds(member))
    asked = member.encode([done.prompt])["input_ids"][0].tolist()
    for place, odds in zip(frame["place"], found.tolist(), strict=True):
        shares = plain(member, asked + done.tokens[: place + (not whole)])
        one, blank = (float(shares[list(ids)].sum()) for ids in (marks.one, marks.blank))
        expected = one / blank if whole else (1 - one - blank) / (one + blank)
        assert odds == pytest.approx(np.log(expected), abs=1e-4)
