"""What a model says at the last position: logits, log-probabilities, the parts of stopping.

Everything is read from one vector a prompt, the last position after the final norm, so the full
[prompt, position, vocab] tensor never exists.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.pairs import Member
from helpers.tokens import single_id

VOCAB_CHUNK = 16384


def last_hidden(member: Member, prompts: list[str], *, batch_size: int = 64) -> Float[Tensor, "prompt d_model"]:
    """The last position after the final norm, in float32 on the head's device; prompts batched by length."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    parts = []
    for place in range(0, len(order), batch_size):
        batch = member.encode([prompts[index] for index in order[place : place + batch_size]])
        lm = member.lm
        with member.lock, torch.no_grad(), lm.trace(batch) as tracer:
            hidden = lm.model.norm.output[:, -1].clone().save()
            tracer.stop()
        parts.append(hidden.float().to(member.device))
    if not parts:
        member.encode(prompts)
    back = torch.tensor(order, device=member.device).argsort()
    return torch.cat(parts)[back]


def logits_of(
    member: Member, hidden: Float[Tensor, "prompt d_model"], token_ids: tuple[int, ...] | list[int]
) -> Float[Tensor, "prompt token"]:
    """Logits of chosen tokens only, float32 on the CPU."""
    return (hidden @ member.unembedding[list(token_ids)].float().T).cpu()


def log_normaliser(member: Member, hidden: Float[Tensor, "prompt d_model"]) -> Float[Tensor, " prompt"]:
    """log of the sum of exp(logit) over the vocabulary, in chunks of it, float32 on the CPU."""
    sums = [(hidden @ chunk.float().T).logsumexp(-1) for chunk in member.unembedding.split(VOCAB_CHUNK)]
    return torch.stack(sums).logsumexp(0).cpu()


def next_logits(
    member: Member, prompts: list[str], token_ids: tuple[int, ...] | list[int]
) -> Float[Tensor, "prompt token"]:
    """Logits of chosen next tokens after each prompt, in float32."""
    return logits_of(member, last_hidden(member, prompts), token_ids)


def next_logprobs(
    member: Member, prompts: list[str], token_ids: tuple[int, ...] | list[int]
) -> Float[Tensor, "prompt token"]:
    """Natural log-probabilities of chosen next tokens, in nats. Used in notebooks 02, 06, 07."""
    hidden = last_hidden(member, prompts)
    return logits_of(member, hidden, token_ids) - log_normaliser(member, hidden)[:, None]


def stop_parts(member: Member, prompts: list[str]) -> pd.DataFrame:
    """P(next token), split into parts that sum to one, one row a prompt.

    `stop` (all stop tokens; each also in a column of its own name), `</think>`, `<think>`, the Wait set, a new
    line, and the rest. Used in notebooks 02 and 07.
    """
    groups = member.groups
    hidden = last_hidden(member, prompts)
    normaliser = log_normaliser(member, hidden)[:, None]

    def share(ids: Iterable[int | None]) -> list[float]:
        known = [index for index in ids if index is not None]
        return (logits_of(member, hidden, known) - normaliser).exp().sum(1).tolist()

    lines = [single_id(member.tokenizer, mark) for mark in ("\n", "\n\n")]
    parts = {
        "stop": share(groups.stop),
        "</think>": share([groups.end_think]),
        "<think>": share([groups.think]),
        "Wait set": share(groups.wait),
        "new line": share(lines),
    }
    frame = pd.DataFrame(parts)
    frame["rest"] = (1 - frame.sum(axis=1)).clip(lower=0)
    for index in groups.stop:
        frame[member.tokenizer.decode([index])] = share([index])
    return frame


def bigram_logits(
    member: Member, sources: list[int], targets: list[int], *, first_mlp: bool = False
) -> Float[Tensor, "source token"]:
    """What a token alone says about the next one, from the weights: its embedding, with `first_mlp` plus what
    layer 0's MLP adds to it, through the final norm and the head; no attention, no context. Used in notebook 02."""
    model = member.model.model
    with torch.no_grad():
        stream = model.embed_tokens.weight[sources]
        if first_mlp:
            layer = model.layers[0]
            stream = stream + layer.mlp(layer.post_attention_layernorm(stream))
        return logits_of(member, model.norm(stream).float().to(member.device), targets)


def top_tokens(member: Member, prompts: list[str], *, k: int = 10) -> list[list[tuple[str, float]]]:
    """The k likeliest next tokens of each prompt with their probabilities."""
    hidden = last_hidden(member, prompts)
    chunks = member.unembedding.split(VOCAB_CHUNK)
    best = torch.cat([hidden @ chunk.float().T for chunk in chunks], dim=-1).softmax(-1).topk(k)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[(member.tokenizer.decode([i]), p) for i, p in zip(ids, ps, strict=True)] for ids, ps in rows]
