# SPDX-License-Identifier: MIT
"""Checks of a loaded pair: what the study takes for granted, with what a failure would spoil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from helpers.pairs import QUESTION as TEMPLATE
from helpers.pairs import Member, Pair
from helpers.readouts import last_hidden
from helpers.store import UserError

QUESTION = "What is the capital of France?"
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}
STEPS = 5


def preflight(pair: Pair) -> pd.DataFrame:
    """One row a check: what was seen, whether it passed, and what a failure would spoil. Used in 01."""
    rows = [(name, *_run(check, pair), spoils) for name, check, spoils in CHECKS]
    return pd.DataFrame(rows, columns=["check", "seen", "ok", "a failure would spoil"])


def _run(check: Callable[[Pair], tuple[str, bool]], pair: Pair) -> tuple[str, bool]:
    try:
        return check(pair)
    except UserError as error:
        return str(error), False


def _both(pair: Pair, see: Callable[[Member], Any]) -> tuple[Any, Any]:
    return see(pair.base), see(pair.distilled)


def _architecture(pair: Pair) -> tuple[str, bool]:
    one, two = _both(pair, lambda m: (m.config.model_type, m.n_layers, m.config.hidden_size, m.config.vocab_size))
    return f"{one[0]}, {one[1]} layers, d_model {one[2]}, vocabulary {one[3]}", one == two


def _single_tokens(pair: Pair) -> tuple[str, bool]:
    missing = {m.role: m.groups.missing for m in pair.members if m.groups.missing}
    return ("every word is one token" if not missing else f"not single: {missing}"), not missing


def _same_ids(pair: Pair) -> tuple[str, bool]:
    one, two = _both(pair, lambda m: (m.groups.wait, m.groups.reasoning))
    return f"Wait set {list(one[0])}", one == two


def _stop_ids(pair: Pair) -> tuple[str, bool]:
    seen = [f"{m.role} {[(i, m.tokenizer.decode([i])) for i in m.groups.stop]}" for m in pair.members]
    return "; ".join(seen), all(m.groups.stop for m in pair.members)


def _same_stop(pair: Pair) -> tuple[str, bool]:
    one, two = _both(pair, lambda m: m.groups.stop[0])
    return f"{one} and {two}", one == two


def _think(pair: Pair) -> tuple[str, bool]:
    one, two = _both(pair, lambda m: (m.groups.think, m.groups.end_think))
    return f"base {one}, distilled {two}", None not in two


def _bos(pair: Pair) -> tuple[str, bool]:
    counts = {m.role: [_count_bos(m, form) for form in ("plain", "template")] for m in pair.members}
    return f"in plain and template: {counts}", all(count <= 1 for pair_ in counts.values() for count in pair_)


def _template(pair: Pair) -> tuple[str, bool]:
    without = [m.role for m in pair.members if not m.tokenizer.chat_template]
    asked = repr(TEMPLATE.format("..."))
    return (f"none: {', '.join(without)}, asked as {asked}" if without else "both have one"), not without


def _count_bos(member: Member, form: str) -> int:
    if not member.bos:
        return 0
    ids = member.encode([member.prompt(QUESTION, form)])["input_ids"][0].tolist()
    return ids.count(member.tokenizer.bos_token_id)


def _head(pair: Pair) -> tuple[str, bool]:
    one, two = _both(pair, lambda m: "tied" if m.tied else "untied")
    agree = all(m.tied == bool(m.config.tie_word_embeddings) for m in pair.members)
    return f"base {one}, distilled {two}", agree


def _positions(pair: Pair) -> tuple[str, bool]:
    see = _both(pair, lambda m: f"rope {m.config.rope_parameters.get('rope_theta')}, {m.max_length} positions")
    return f"base {see[0]}; distilled {see[1]}", all(m.max_length >= 1024 for m in pair.members)


def _dtype(pair: Pair) -> tuple[str, bool]:
    one, two = _both(pair, lambda m: str(m.dtype).removeprefix("torch."))
    return f"{one} on {pair.base.device}", one == two


def _padding(pair: Pair) -> tuple[str, bool]:
    worst = max(_padding_gap(member) for member in pair.members)
    return f"largest difference {worst:.1e}", worst < TOLERANCE[pair.base.dtype]


def _padding_gap(member: Member) -> float:
    short, long = (member.prompt(text, "plain") for text in (QUESTION, QUESTION + " " + QUESTION * 3))
    alone, padded = last_hidden(member, [short]), last_hidden(member, [short, long])[:1]
    return float((alone - padded).abs().max())


def _edits(pair: Pair) -> tuple[str, bool]:
    seen = [_edited_steps(member) for member in pair.members]
    return f"{seen[0]} and {seen[1]} of {STEPS} steps edited", seen == [STEPS, STEPS]


def _edited_steps(member: Member) -> int:
    """Zero the last norm's output at every step: all logits tie, so each step must emit the same first id."""
    lm, expected = member.lm, 0
    with lm.edit() as (tracer, edited):
        for _ in tracer.all():
            edited.model.norm.output = edited.model.norm.output * 0
    encoded = member.encode([member.prompt(QUESTION, "plain")])
    with torch.no_grad():
        out = edited.generate(encoded, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0)
    return int((out[0, encoded["input_ids"].shape[1] :] == expected).sum())


def _finite(pair: Pair) -> tuple[str, bool]:
    fine = all(torch.isfinite(last_hidden(m, [m.prompt(QUESTION, "plain")])).all() for m in pair.members)
    return "all finite" if fine else "NaN or infinity", bool(fine)


CHECKS: list[tuple[str, Callable[[Pair], tuple[str, bool]], str]] = [
    ("same architecture and vocabulary", _architecture, "every comparison of the two models"),
    ("words are single tokens", _single_tokens, "logits of the words that are missing"),
    ("same ids in both models", _same_ids, "paired logits and the two heads"),
    ("stop tokens", _stop_ids, "every P(stop)"),
    ("same first stop token", _same_stop, "the contrast stop minus Wait"),
    ("think tags are tokens of the distilled", _think, "notebook 07"),
    ("at most one BOS", _bos, "plain against template"),
    ("chat templates", _template, "lengths and samples: the models are asked in different ways"),
    ("head as the config says", _head, "swaps of embedding or head"),
    ("positions", _positions, "long thoughts"),
    ("one dtype", _dtype, "differences smaller than rounding"),
    ("left padding changes nothing", _padding, "everything batched"),
    ("an edit fires on every generated step", _edits, "steering and value-vector edits"),
    ("logits are finite", _finite, "everything"),
]
