# SPDX-License-Identifier: MIT
"""Checks of a loaded pair: what the study takes for granted, with what a failure would spoil; and the proof that what
the helpers read of a model is what plain transformers computes with the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from helpers.checks import guarded
from helpers.generation import Completion, complete
from helpers.pairs import QUESTION as TEMPLATE
from helpers.pairs import Member, Pair
from helpers.patching import attribute
from helpers.prompts import neutral_sentences
from helpers.readouts import last_hidden_shared, lens, logprobs_of, next_logprobs
from helpers.store import UserError
from helpers.tokens import THINK

QUESTION = "What is the capital of France?"
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.25, torch.bfloat16: 1.0}  # nats
STEPS, TOKENS = 5, 24


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
    advice = f"; put one that both have first in eos_token_id of the base's generation_config.json, such as {two}"
    return f"{one} and {two}{advice * (one != two)}", one == two


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


def refuse_unequal(member: Member) -> None:
    """Raise UserError for a model that the helpers would misread, naming what differs and by how much."""
    for name, gap in differences(member).items():
        if not gap <= TOLERANCE[member.dtype]:  # NaN is not
            raise UserError(
                f"{member.source} ({member.config.model_type}): {name} is {gap:.2g} off what transformers computes "
                "with the same weights: choose a model built like Llama or Qwen2"
            )


def differences(member: Member) -> dict[str, float]:
    """How far the helpers' readouts are from plain transformers, in nats, and prompts from the tokenizer's own, in
    tokens; on two short texts and one longer than any attention window, together, so that padding is in it too."""
    window, texts = getattr(member.config, "sliding_window", None) or 0, [QUESTION, "Name a river."]
    longest = max(40, min(window + 8, member.max_length - 2 * TOKENS))
    long = " ".join(neutral_sentences() * (1 + longest // 400))
    long = member.tokenizer.decode(member.tokenizer(long, add_special_tokens=False).input_ids[:longest])
    prompts = [member.prompt(text, "plain") for text in (*texts, long)]
    own = [_plain_logits(member, member.encode([prompt])["input_ids"]) for prompt in prompts]
    last = torch.stack([logits[-1] for logits in own])
    ids = sorted({*range(0, member.n_vocab, max(1, member.n_vocab // 50)), *member.groups.stop, *member.groups.wait})
    wanted = last.log_softmax(-1)[:, ids]
    shared = logprobs_of(member, last_hidden_shared(member, [prompts[0], f"{prompts[0]} the", f"{prompts[0]} a"]), ids)
    parts, rounding = attribute(member, prompts, ids[:1], ids[1:2], rounded=True), 1.0
    if member.dtype != torch.float32:  # the stream is rounded at every layer, whatever the parts sum to
        rounding = max(1.0, float((parts.attention.abs().sum(1) + parts.mlp.abs().sum(1)).max()) / 20)
    found = {
        "a prompt, against its tokenizer's own,": max(_other_tokens(member, text) for text in texts),
        "the log-probability of the next token": next_logprobs(member, prompts, ids) - wanted,
        "the lens at the last depth": lens(member, prompts, ids).logprobs[:, -1] - wanted,
        "the sum of the attribution": (parts.total - (last[:, ids[0]] - last[:, ids[1]])) / rounding,
        "the readout behind a shared beginning": shared[:1] - wanted[:1],
        "a greedy token": max(
            map(_greedy_gap, itertools.repeat(member), complete(member, prompts, max_new_tokens=TOKENS))
        ),
    }
    return {name: float(torch.as_tensor(gap).abs().max()) for name, gap in found.items()}


def _plain_logits(member: Member, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return member.model(ids, use_cache=False).logits[0].float().cpu()


def _other_tokens(member: Member, text: str) -> float:
    """In how many tokens a prompt of ours differs from what its tokenizer makes of text and chat by itself."""
    chat = [{"role": "user", "content": text}]
    wanted = {"plain": member.tokenizer(text).input_ids}
    if member.tokenizer.chat_template:
        filled = member.tokenizer.apply_chat_template(
            chat, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        opened = member.prompt(text, "template").endswith(f"{THINK[0]}\n") and THINK[0] not in member.tokenizer.decode(
            filled
        )
        wanted["template"] = filled + member.tokenizer(f"{THINK[0]}\n", add_special_tokens=False).input_ids * opened
    ours = {form: member.encode([member.prompt(text, form)])["input_ids"][0].tolist() for form in wanted}
    gaps = [
        sum(a != b for a, b in zip(ours[f], wanted[f], strict=False)) + abs(len(ours[f]) - len(wanted[f]))
        for f in wanted
    ]
    return float(max(gaps))


def _greedy_gap(member: Member, done: Completion) -> float:
    """How far, at most, a token that the helpers wrote lies below the likeliest one."""
    ids = member.encode([done.prompt])["input_ids"]
    logits = _plain_logits(member, torch.cat([ids, ids.new_tensor([done.tokens])], dim=1))[ids.shape[1] - 1 :]
    written = [[token] for token in done.tokens] + [list(member.groups.stop)] * (done.stop != "limit")
    return max(float(row.max() - row[tokens].max()) for row, tokens in zip(logits, written, strict=False))


def _equal(pair: Pair) -> tuple[str, bool]:
    found = {member.role: differences(member) for member in pair.members if not member.remote}
    worst = {role: max(gaps.items(), key=lambda item: item[1]) for role, gaps in found.items()}
    seen = "; ".join(f"{role}: at most {gap:.0e} ({name})" for role, (name, gap) in worst.items())
    return seen or "not tried: remote", all(gap <= TOLERANCE[pair.base.dtype] for _, gap in worst.values())


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
    ("readouts equal plain transformers", _equal, "everything"),
    ("an edit fires on every generated step", _edits, "steering and value-vector edits"),
]

guarded(globals())
