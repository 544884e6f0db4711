# SPDX-License-Identifier: MIT
"""Checks of a loaded pair: what the study takes for granted, and whether what the helpers read of a model is what plain
transformers computes with the same weights."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from helpers.checks import guarded
from helpers.generation import Completion, complete
from helpers.members import Member
from helpers.pairs import Pair
from helpers.patching import attribute
from helpers.prompts import neutral_sentences
from helpers.readouts import last_hidden_shared, lens, logit_difference, logprobs_of, next_logprobs
from helpers.store import UserError
from helpers.tokens import THINK

QUESTION = "What is the capital of France?"
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.25, torch.bfloat16: 1.0}  # nats
STEPS, TOKENS = 5, 24
FIRST = "put one that both have first in eos_token_id of the generation_config.json"


def preflight(pair: Pair) -> pd.DataFrame:
    """One row a check: what was seen, whether it passed, and what a failure would spoil. Used in notebook 01."""
    rows = []
    for name, see, holds, spoils in CHECKS:
        try:
            one, two = see(pair.base), see(pair.distilled)
            seen = f"{one} in both" if one == two else f"base {one}, distilled {two}"
            rows.append((name, seen, holds(one, two), spoils))
        except UserError as error:  # as of a remote pair, whose weights are not here
            rows.append((name, str(error), False, spoils))
    return pd.DataFrame(rows, columns=["check", "seen", "ok", "a failure would spoil"])


def _each(holds: Callable[[Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda one, two: holds(one) and holds(two)


def _head(member: Member) -> tuple[str, str]:
    return ("untied", "tied")[member.tied], ("untied", "tied")[bool(member.config.tie_word_embeddings)]


def _bos_counts(member: Member) -> list[int]:
    texts, bos = [member.prompt(QUESTION, form) for form in ("plain", "template")], member.tokenizer.bos_token_id
    return [member.encode([text])["input_ids"][0].tolist().count(bos) if member.bos else 0 for text in texts]


def _edited_steps(member: Member) -> int:
    """At how many steps an edit that zeroes the last norm's output, so that all logits tie, makes the first id win."""
    with member.lm.edit() as (tracer, edited):
        for _ in tracer.all():
            edited.model.norm.output = edited.model.norm.output * 0
    encoded = member.encode([member.prompt(QUESTION, "plain")])
    with torch.no_grad():
        out = edited.generate(encoded, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0)
    return int((out[0, encoded["input_ids"].shape[1] :] == 0).sum())


def refuse_unequal(member: Member) -> None:
    """Raise UserError for a model that the helpers would misread, naming what differs and by how much."""
    for name, gap in differences(member).items():
        if not gap <= TOLERANCE[member.dtype]:  # NaN is not
            told = f"{member.source} ({member.config.model_type}): {name} is {gap:.2g} off what transformers computes"
            raise UserError(f"{told} with the same weights: choose a model built like Llama or Qwen2")


def differences(member: Member) -> dict[str, float]:
    """How far the helpers' readouts are from plain transformers, in nats, and prompts from the tokenizer's own, in
    tokens; on two short texts and one longer than any attention window, together, so that padding is in it too."""
    window, texts = getattr(member.config, "sliding_window", None) or 0, [QUESTION, "Name a river."]
    longest = max(40, min(window + 8, member.config.max_position_embeddings - 2 * TOKENS))
    long = " ".join(neutral_sentences() * (1 + longest // 400))
    long = member.tokenizer.decode(member.tokenizer(long, add_special_tokens=False).input_ids[:longest])
    prompts = [member.prompt(text, "plain") for text in (*texts, long)]
    own = [_plain_logits(member, member.encode([prompt])["input_ids"]) for prompt in prompts]
    last = torch.stack([logits[-1] for logits in own])
    ids = sorted({*range(0, member.n_vocab, max(1, member.n_vocab // 50)), *member.groups.stop, *member.groups.wait})
    wanted = last.log_softmax(-1)[:, ids]
    shared = logprobs_of(member, last_hidden_shared(member, [prompts[0], f"{prompts[0]} the", f"{prompts[0]} a"]), ids)
    parts, rounding = attribute(member, prompts, logit_difference(member, ids[:1], ids[1:2]), rounded=True), 1.0
    if member.dtype != torch.float32:  # the stream is rounded at every layer, whatever the parts sum to
        rounding = max(1.0, float((parts.attention.abs().sum(1) + parts.mlp.abs().sum(1)).max()) / 20)
    found = {
        "a prompt, against its tokenizer's own,": max(_other_tokens(member, text) for text in texts),
        "the log-probability of the next token": next_logprobs(member, prompts, ids) - wanted,
        "the lens at the last depth": lens(member, prompts, ids).logprobs[:, -1] - wanted,
        "the sum of the attribution": (parts.total - (last[:, ids[0]] - last[:, ids[1]])) / rounding,
        "the readout behind a shared beginning": shared[:1] - wanted[:1],
        "a greedy token": max(_greedy_gap(member, done) for done in complete(member, prompts, max_new_tokens=TOKENS)),
    }
    return {name: float(torch.as_tensor(gap).abs().max()) for name, gap in found.items()}


def _plain_logits(member: Member, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return member.model(ids, use_cache=False).logits[0].float().cpu()


def _other_tokens(member: Member, text: str) -> int:
    """In how many tokens a prompt of ours differs from what its tokenizer makes of text and chat by itself."""
    wanted, chat = {"plain": member.tokenizer(text).input_ids}, [{"role": "user", "content": text}]
    if member.tokenizer.chat_template:
        how = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
        wanted["template"] = member.tokenizer.apply_chat_template(chat, **how)
        if member.thinks and THINK[0] not in member.tokenizer.decode(wanted["template"]):
            wanted["template"] += member.tokenizer(f"{THINK[0]}\n", add_special_tokens=False).input_ids
    ours = {form: member.encode([member.prompt(text, form)])["input_ids"][0].tolist() for form in wanted}
    return max(sum(a != b for a, b in itertools.zip_longest(ours[form], ids)) for form, ids in wanted.items())


def _greedy_gap(member: Member, done: Completion) -> float:
    """How far, at most, a token that the helpers wrote lies below the likeliest one."""
    ids = member.encode([done.prompt])["input_ids"]
    logits = _plain_logits(member, torch.cat([ids, ids.new_tensor([done.tokens])], dim=1))[ids.shape[1] - 1 :]
    written = [[token] for token in done.tokens] + [list(member.groups.stop)] * (done.stop != "limit")
    return max(float(row.max() - row[tokens].max()) for row, tokens in zip(logits, written, strict=False))


def _architecture(member: Member) -> str:
    config = member.config
    return f"{config.model_type}, {member.n_layers} layers, d_model {config.hidden_size}, {config.vocab_size} rows"


def _worst(member: Member) -> str:
    """The readout that is furthest from plain transformers."""
    if member.remote:
        return "not tried: remote"
    name, gap = max(differences(member).items(), key=lambda item: (not item[1] <= TOLERANCE[member.dtype], item[1]))
    return f"{'at most' if gap <= TOLERANCE[member.dtype] else 'off by'} {gap:.0e} ({name})"


CHECKS: list[tuple[str, Callable[[Member], Any], Callable[[Any, Any], bool], str]] = [  # what is seen, what is right
    ("same architecture and vocabulary", _architecture, operator.eq, "every comparison of the two models"),
    ("words are single tokens", lambda m: m.groups.missing or "all", _each(lambda seen: seen == "all"), "their logits"),
    ("same ids in both models", lambda m: m.groups.wait + m.groups.reasoning, operator.eq, "paired logits"),
    ("stop tokens", lambda m: [m.tokenizer.decode([k]) for k in m.groups.stop], _each(bool), "every P(stop)"),
    ("same first stop token", lambda m: m.groups.stop[0], operator.eq, "stop minus Wait: " + FIRST),
    ("think tags", lambda m: (m.groups.think, m.groups.end_think), lambda _, two: None not in two, "notebook 07"),
    ("at most one BOS", _bos_counts, _each(lambda counts: max(counts) <= 1), "plain against template"),
    ("chat template", lambda m: bool(m.tokenizer.chat_template), _each(bool), "lengths: one is asked in another way"),
    ("head as the config says", _head, _each(lambda head: head[0] == head[1]), "swaps of embedding or head"),
    ("1024 positions", lambda m: m.config.max_position_embeddings, _each(lambda n: n >= 1024), "long thoughts"),
    ("one dtype", lambda m: f"{m.dtype} on {m.device}", operator.eq, "differences smaller than rounding"),
    ("readouts are plain transformers'", _worst, _each(lambda seen: "off by" not in seen), "everything"),
    (f"edits fire on {STEPS} steps", _edited_steps, _each(lambda n: n == STEPS), "steering, value-vector edits"),
]

guarded(globals())
