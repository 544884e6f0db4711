# SPDX-License-Identifier: MIT
"""The fork at the end of a sentence, in a model's own thought: one new line, after which R1 closes it, or a blank line,
after which it goes on. What a model gives to each, what follows each when the mark is exchanged, and a push to one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessor

from helpers.checks import guarded
from helpers.generation import Completion
from helpers.pairs import Member
from helpers.readouts import Metric, as_one_row, log_odds, logprobs_of
from helpers.store import UserError
from helpers.texts import CLOSE, GAPS, LINE_ENDS


@dataclass(frozen=True)
class Marks:
    """Token ids that end in exactly one new line, and those that hold two or more; of the first, those that end a
    sentence themselves (`.` and new line in one token). `whole`: a sentence's end and a blank line are one token too,
    so that the choice is made at once. `ends`: tokens without a new line that end a sentence."""

    one: tuple[int, ...]
    blank: tuple[int, ...]
    closing: tuple[int, ...]
    ends: tuple[int, ...]
    whole: bool


@lru_cache(maxsize=8)
def line_marks(tokenizer: Any) -> Marks:
    """Look the marks of a tokenizer up."""
    texts = [tokenizer.decode([index]) for index in range(len(tokenizer))]
    one = [k for k, text in enumerate(texts) if text.endswith("\n") and text.count("\n") == 1]
    ended = [k for k, text in enumerate(texts) if LINE_ENDS["sentence"].search(text)]
    return Marks(
        one=tuple(one),
        blank=tuple(k for k, text in enumerate(texts) if text.count("\n") > 1 and text.endswith("\n")),
        closing=tuple(k for k in one if LINE_ENDS["sentence"].search(texts[k].rstrip())),
        ends=tuple(ended),
        whole=len(tokenizer(".\n\n", add_special_tokens=False).input_ids) == 1,
    )


def sentence_ends(member: Member, done: Completion) -> list[int]:
    """Places in a completion's tokens whose token brings the new line after a sentence in the thought, the one before
    `</think>` included."""
    decode, text, found = member.tokenizer.decode, "", []
    for place in range(len(done.tokens)):
        before, text = text, decode(done.tokens[: place + 1])
        if CLOSE in text:
            break
        added = text[len(before) :]
        if "\n" in added and not before.endswith("\n"):
            stem = before + added[: added.index("\n")]
            if LINE_ENDS["sentence"].search(stem.rstrip(" \t")):
                found.append(place)
    return found


def read_fork(member: Member, done: Completion) -> pd.DataFrame:
    """At each sentence's end of a completion's thought: the probability of one new line, of a blank line and of
    neither; and P(`</think>`) and P(Wait set) after either mark, put there in its own tokens. One row an end, in one
    forward pass: the exchanged marks are branches of the row. Where a blank line is two tokens, one new line means that
    no second one follows, and what follows it is read on that condition."""
    if member.groups.end_think is None:
        raise UserError(f"{member.source} has no token for {CLOSE}: only a model with one has the fork")
    places, marks = sentence_ends(member, done), line_marks(member.tokenizer)
    asked = member.encode([done.prompt])["input_ids"][0].tolist()
    if not places:
        return pd.DataFrame()
    tokens = [*asked, *done.tokens[: places[-1]]]
    parents, read = list(range(-1, len(tokens) - 1)), []
    for place in places:
        at = len(asked) + place - 1
        stem = member.tokenizer.decode([done.tokens[place]]).partition("\n")[0]
        read.append(at)
        for gap in ("\n", "\n\n"):
            last = at
            written = member.tokenizer(f"{stem or '.'}{gap}Wait", add_special_tokens=False).input_ids
            for token in written[not stem : -1]:
                tokens.append(token)
                parents.append(last)
                last = len(tokens) - 1
            read.append(last)
    batch = as_one_row(member, tokens, parents)
    hidden = member.traced(batch, lambda lm: lm.model.norm.output[0, read].clone()).float().to(member.device)
    sets = (marks.one, marks.blank, (member.groups.end_think,), member.groups.wait)
    found = logprobs_of(member, hidden, [token for some in sets for token in some]).exp()
    one, blank, close, wait = (part.sum(1).reshape(-1, 3) for part in found.split([len(some) for some in sets], dim=1))
    second = torch.zeros(len(places)) if marks.whole else (one + blank)[:, 1]  # another new line after the first
    one, blank = one[:, 0] * (1 - second), blank[:, 0] + one[:, 0] * second
    other = (1 - second).clamp(min=1e-7)  # in float32 a sum of probabilities can reach one
    close[:, 1], wait[:, 1] = close[:, 1] / other, wait[:, 1] / other
    return pd.DataFrame(
        {
            "place": places,
            "depth": [place / max(1, places[-1]) for place in places],  # of the thought's own length, in tokens
            "wrote": [GAPS[_blank(member, done, place)] for place in places],
            "closes": [_closes(member, done, place) for place in places],
            "one": one,
            "blank": blank,
            "neither": 1 - one - blank,
            **{f"{what} after {gap}": part[:, 1 + k] for k, gap in enumerate(GAPS)
               for what, part in (("</think>", close), ("Wait", wait))},
        }
    )  # fmt: skip


def choices(member: Member, done: Completion) -> pd.DataFrame:
    """The text up to each choice between one new line and a blank line, one row a sentence's end: `prompt`, `place`,
    `depth` and `closes` as in `read_fork`. Where a blank line is two tokens, up to the first new line. Left out are
    ends whose text would not come back as the model's own tokens. Used in notebook 07."""
    places, marks, rows = sentence_ends(member, done), line_marks(member.tokenizer), []
    asked = member.encode([done.prompt])["input_ids"][0].tolist()
    for place in places:
        so_far = done.tokens[: place + (not marks.whole)]
        prompt = done.prompt + member.tokenizer.decode(so_far)
        open_yet = marks.whole or so_far[-1] in marks.one
        if open_yet and member.encode([prompt])["input_ids"][0].tolist() == [*asked, *so_far]:
            rows.append((prompt, place, place / max(1, places[-1]), _closes(member, done, place)))
    return pd.DataFrame(rows, columns=["prompt", "place", "depth", "closes"])


def mark_odds(member: Member) -> Metric:
    """The metric at a choice: log-odds of one new line against a blank line, in nats; where a blank line is two tokens,
    of all else against a second new line. Used in notebook 07."""
    marks = line_marks(member.tokenizer)
    if marks.whole:
        return log_odds(member, marks.one, against=marks.blank)
    second = log_odds(member, (*marks.one, *marks.blank))
    return lambda model, states: -second(model, states)


def _blank(member: Member, done: Completion, place: int) -> bool:
    """Whether the line's end at a place is a blank line."""
    after = member.tokenizer.decode(done.tokens[place : place + 4])
    gap = after[after.index("\n") :]
    return gap[: len(gap) - len(gap.lstrip())].count("\n") > 1


def _closes(member: Member, done: Completion, place: int) -> bool:
    return member.tokenizer.decode(done.tokens[place : place + 3]).lstrip(".!?)\"'” \t\n").startswith(CLOSE)


class AtSentenceEnds(LogitsProcessor):
    """Pushes a model by `shift` nats to one new line after a sentence. Where period and new line are one token, those
    tokens are shifted at every step, which matters where a sentence can end; else the model is pushed away from the
    second new line, at those places alone. As a control, `tokens` are shifted at the same steps. For
    `generation.Change(description, processors=(...,))`. Used in notebook 07."""

    def __init__(self, member: Member, shift: float, tokens: tuple[int, ...] | None = None) -> None:
        marks, n = line_marks(member.tokenizer), member.n_vocab
        self.shift, self.tokens, self.whole = shift, list(tokens or marks.closing), marks.whole
        self.ended, self.broken = (torch.zeros(n, dtype=torch.bool, device=member.device) for _ in range(2))
        self.ended[list(marks.ends)], self.broken[list(marks.one)] = True, True
        if not marks.whole:
            self.tokens, self.shift = list(tokens or (*marks.one, *marks.blank)), shift if tokens else -shift

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        changed, here = scores.clone(), torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        if not self.whole:
            here = self.ended[input_ids[:, -2]] & self.broken[input_ids[:, -1]]
        changed[:, self.tokens] += self.shift * here[:, None]
        return changed


guarded(globals())
