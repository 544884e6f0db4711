# SPDX-License-Identifier: MIT
"""What a model says and computes: logits, log-probabilities and the parts of stopping at the last position; the logit
lens on any point of the residual stream; activations; attention patterns.

Only the positions asked for are kept, so the full [prompt, position, vocab] tensor never exists.

A *point* is a place in the residual stream: 0 is the embedding, then one after each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from helpers.checks import check_choice, check_count, check_lengths, guarded
from helpers.generation import in_memory
from helpers.pairs import Member
from helpers.store import UserError, take
from helpers.tokens import single_id

VOCAB_CHUNK = 16384  # rows of a head in 16 bits that are read in float32 at once
LENS_ROWS = {"cpu": 128, "cuda": 512}  # states read against the vocabulary at once
BRANCHES = 96  # prompts in one row
T = TypeVar("T")
Norm = Literal["full", "scale", "none"]
Ids = tuple[int, ...] | list[int]
Metric = Callable[[Any, Float[Tensor, "row d_model"]], Float[Tensor, " row"]]  # (transformers model, last states)


def in_batches(prompts: list[str], batch_size: int, run: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
    """Indices of prompts, batched with others of like length, and what `run` makes of each batch; see `in_memory`."""
    check_count(batch_size, "prompts a batch")
    return in_memory(sorted(range(len(prompts)), key=lambda index: len(prompts[index])), batch_size, run)


def in_order(batches: Iterable[tuple[list[int], Any]]) -> Any:
    """Rows of all batches, tensors or tensors by name, back in the order of the prompts."""
    indices, parts = zip(*batches, strict=True)
    if isinstance(parts[0], dict):
        return {name: in_order(zip(indices, (part[name] for part in parts), strict=True)) for name in parts[0]}
    order = torch.tensor([index for some in indices for index in some], device=parts[0].device)
    return torch.cat(parts)[order.argsort()]


def last_hidden(
    member: Member,
    prompts: list[str],
    *,
    hide: Sequence[Sequence[int]] | None = None,
    batch_size: int = 64,
    lm: object = None,
) -> Float[Tensor, "prompt d_model"]:
    """The last position after the final norm, in float32 on the head's device; prompts batched by length.

    `hide`: tokens of each prompt, counted from its start, that none can attend to, in any head or layer. `lm`: an
    edited nnsight model of this member."""
    member.check(prompts)
    check_lengths(prompts=prompts, hide=hide or prompts)

    def run(indices: list[int]) -> Tensor:
        batch = member.encode(take(prompts, indices))
        for mask, hidden in zip(batch["attention_mask"], take(hide or [], indices), strict=False):
            start, length = int(mask.argmax()), int(mask.sum())
            if any(not 0 <= at < length - 1 for at in hidden):
                raise UserError(f"hide {list(hidden)} of {length} tokens: give tokens from 0 to {length - 2}")
            mask[[start + at for at in hidden]] = 0
        return member.traced(batch, lambda lm: lm.model.norm.output[:, -1].clone(), lm=lm).float().to(member.device)

    return in_order(in_batches(prompts, batch_size, run))


def as_one_row(member: Member, tokens: list[int], parents: list[int]) -> dict[str, Tensor]:
    """Tokens that share a beginning as one row, in which each sees itself and its ancestors alone: tree attention
    (Miao et al. 2023). `parents`: where in the row the token before it stands, -1 for none."""
    seen = torch.eye(len(tokens), dtype=torch.bool)
    for token, parent in enumerate(parents):
        if parent >= 0:
            seen[token] |= seen[parent]
    places = seen.sum(1) - 1
    window = getattr(member.config, "sliding_window", None)  # which this mask knows nothing of
    if window and window <= int(places.max()):
        raise UserError(f"{member.source} attends to {window} tokens, a prompt has more: shorten it")
    mask = torch.zeros(seen.shape, dtype=member.dtype).masked_fill(~seen, torch.finfo(member.dtype).min)
    row = {"input_ids": torch.tensor([tokens]), "position_ids": places[None], "attention_mask": mask[None, None]}
    return {name: value.to(member.device) for name, value in row.items()}


def last_hidden_shared(member: Member, prompts: list[str]) -> Float[Tensor, "prompt d_model"]:
    """`last_hidden` of prompts that begin alike, in which every common beginning is run once: the fewer tokens they
    differ in, the faster. Used in notebooks 02 and 07."""
    member.check(prompts)
    every = [member.encode([prompt])["input_ids"][0].tolist() for prompt in prompts]

    def run(some: list[int]) -> Tensor:
        places: dict[tuple[int, int], int] = {}  # (parent, token)
        last = []
        for tokens in take(every, some):
            at = -1
            for token in tokens:
                at = places.setdefault((at, token), len(places))
            last.append(at)
        batch = as_one_row(member, [token for _, token in places], [parent for parent, _ in places])
        return member.traced(batch, lambda lm: lm.model.norm.output[0, last].clone()).float().to(member.device)

    return in_order(in_memory(list(range(len(prompts))), BRANCHES, run))


# The functions down to `_chosen` read states against the head of a transformers model, for `Member.at_weights`.


def _logits(model: Any, states: Tensor, token_ids: list[int]) -> Tensor:
    rows = model.lm_head.weight[token_ids]
    return (states.to(rows.device) @ rows.float().T).cpu()


def _normed(model: Any, stream: Tensor, norm: str) -> Tensor:
    """`weight`: without a scale, which a direction does not have."""
    if norm in ("full", "scale"):
        stream = stream * torch.rsqrt(stream.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps)
    return stream * model.model.norm.weight.float().to(stream.device) if norm in ("full", "weight") else stream


def _every_logit(model: Any, states: Tensor) -> Tensor:
    """Logits of the whole vocabulary for a few rows, float32 on the head's device."""
    weight = model.lm_head.weight
    if weight.dtype == torch.float32:
        return states @ weight.T
    return torch.cat([states @ chunk.float().T for chunk in weight.split(VOCAB_CHUNK)], dim=-1)


def _read(model: Any, stream: Tensor, norm: str, read: Callable[[Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
    """What `read` makes of the logits of the whole vocabulary, some rows of the stream at a time, on the CPU."""
    device = model.lm_head.weight.device
    rows = stream.reshape(-1, stream.shape[-1]).to(device).split(LENS_ROWS.get(device.type, LENS_ROWS["cuda"]))
    found = [[part.cpu() for part in read(_every_logit(model, _normed(model, some, norm)))] for some in rows]
    return [torch.cat(parts).unflatten(0, stream.shape[:-1]) for parts in zip(*found, strict=True)]


def _chosen(model: Any, stream: Tensor, norm: str, token_ids: list[int], ranked: bool) -> dict[str, Tensor]:
    """Logits, log-probabilities and ranks of chosen tokens at points of the stream."""
    if not ranked:
        return {"logits": _logits(model, _normed(model, stream, norm), token_ids)}

    def read(every: Tensor) -> tuple[Tensor, ...]:
        chosen = every[:, token_ids]
        ranks = [(every > one[:, None]).sum(-1, dtype=torch.int32) for one in chosen.T]
        return chosen, chosen - every.logsumexp(-1, keepdim=True), torch.stack(ranks, dim=1)

    return dict(zip(("logits", "logprobs", "ranks"), _read(model, stream, norm, read), strict=True))


def logits_of(member: Member, hidden: Float[Tensor, "prompt d_model"], token_ids: Ids) -> Float[Tensor, "prompt token"]:
    """Logits of chosen tokens only, float32 on the CPU."""
    member.check_ids(token_ids)
    return member.at_weights(_logits, hidden, list(token_ids))


def logprobs_of(
    member: Member, hidden: Float[Tensor, "prompt d_model"], token_ids: Ids
) -> Float[Tensor, "prompt token"]:
    """Natural log-probabilities of chosen tokens, in nats, float32 on the CPU."""
    member.check_ids(token_ids)
    chosen = list(token_ids)
    return member.at_weights(
        _read, hidden, "none", lambda every: (every[:, chosen] - every.logsumexp(-1, keepdim=True),)
    )[0]


def logit_difference(member: Member, plus: Ids, minus: Ids = ()) -> Metric:
    """The metric "mean logit of `plus` minus that of `minus`", in nats, of states behind the final norm."""
    member.check_ids([*plus, *minus])
    amounts = torch.tensor([1 / len(plus) for _ in plus] + [-1 / len(minus) for _ in minus])

    def read(model: Any, states: Tensor) -> Tensor:
        rows = model.lm_head.weight[[*plus, *minus]].float()
        return states.float().to(rows.device) @ (amounts.to(rows.device) @ rows)

    return read


def log_odds(member: Member, ids: Ids, against: Ids | None = None) -> Metric:
    """The metric log P(ids) - log P(against), in nats; against all other tokens if None: the log-odds. A set's
    probability is the sum of its tokens'."""
    member.check_ids([*ids, *(against or [])])

    def read(model: Any, states: Tensor) -> Tensor:
        every = _every_logit(model, states.float().to(model.lm_head.weight.device))
        if against is None:
            rivals = every.index_fill(1, torch.tensor(list(ids), device=every.device), -torch.inf)
        else:
            rivals = every[:, list(against)]
        return every[:, list(ids)].logsumexp(-1) - rivals.logsumexp(-1)

    return read


def stop_odds(member: Member) -> Metric:
    """The study's metric: the log-odds of stopping over all stop tokens of a model, in nats."""
    return log_odds(member, member.groups.stop)


def measure(member: Member, prompts: list[str], metric: Metric, *, lm: object = None) -> Float[Tensor, " prompt"]:
    """A metric after each prompt, on the CPU. `lm`: an edited nnsight model of this member."""
    return member.at_weights(metric, last_hidden(member, prompts, lm=lm)).cpu()


def next_logits(member: Member, prompts: list[str], token_ids: Ids) -> Float[Tensor, "prompt token"]:
    """Logits of chosen next tokens after each prompt, in float32."""
    return logits_of(member, last_hidden(member, prompts), token_ids)


def next_logprobs(member: Member, prompts: list[str], token_ids: Ids) -> Float[Tensor, "prompt token"]:
    """Natural log-probabilities of chosen next tokens, in nats."""
    return logprobs_of(member, last_hidden(member, prompts), token_ids)


def next_distribution(member: Member, prompts: list[str]) -> Float[Tensor, "prompt vocab"]:
    """Log-probabilities of the whole vocabulary after each prompt, in nats, on the CPU: for few prompts."""
    return member.at_weights(_read, last_hidden(member, prompts), "none", lambda every: (every.log_softmax(-1),))[0]


def kl_nats(first: Float[Tensor, "prompt vocab"], second: Float[Tensor, "prompt vocab"]) -> Float[Tensor, " prompt"]:
    """KL divergence of log-probabilities, first from second, in nats."""
    return torch.nn.functional.kl_div(second, first, reduction="none", log_target=True).sum(-1)


def stop_parts(member: Member, prompts: list[str], *, lm: object = None) -> pd.DataFrame:
    """P(next token), split into parts that sum to one, one row a prompt: `stop` (all stop tokens; each also in a column
    of its own name), `</think>`, `<think>`, the Wait set, a new line, and the rest. Used in notebook 06."""
    groups = member.groups
    parts = {
        "stop": groups.stop,
        "</think>": [groups.end_think],
        "<think>": [groups.think],
        "Wait set": groups.wait,
        "new line": [single_id(member.tokenizer, mark) for mark in ("\n", "\n\n")],
    }
    known = {name: [index for index in ids if index is not None] for name, ids in parts.items()}
    every = [index for ids in known.values() for index in ids]
    shares = pd.DataFrame(logprobs_of(member, last_hidden(member, prompts, lm=lm), every).exp().numpy(), columns=every)
    frame = pd.DataFrame({name: shares[ids].sum(axis=1).astype(float) for name, ids in known.items()})
    frame["rest"] = (1 - frame.sum(axis=1)).clip(lower=0)
    return frame.assign(**{member.tokenizer.decode([index]): shares[index].astype(float) for index in groups.stop})


def bigram_logits(
    member: Member, sources: list[int], targets: list[int], *, first_mlp: bool = False
) -> Float[Tensor, "source token"]:
    """What a token alone says about the next one, from the weights: its embedding, with `first_mlp` plus what
    layer 0's MLP adds to it, through the final norm and the head; no attention, no context. Used in notebook 02."""
    member.check_ids([*sources, *targets])

    def read(model: Any) -> Tensor:
        stream, layer = model.model.embed_tokens.weight[sources], model.model.layers[0]
        if first_mlp:
            stream = stream + layer.mlp(layer.post_attention_layernorm(stream))
        return _logits(model, model.model.norm(stream).float(), targets)

    with torch.no_grad():
        return member.at_weights(read)


def top_tokens(member: Member, prompts: list[str], *, k: int = 10, lm: object = None) -> list[list[tuple[str, float]]]:
    """The k likeliest next tokens of each prompt with their probabilities."""
    return _likeliest(member, last_hidden(member, prompts, lm=lm), k)


def _likeliest(
    member: Member, states: Float[Tensor, "row d_model"], k: int, norm: str = "none"
) -> list[list[tuple[str, float]]]:
    check_count(k, "tokens", member.n_vocab)
    shares, ids = member.at_weights(_read, states, norm, lambda every: tuple(every.softmax(-1).topk(k)))
    rows = zip(ids.tolist(), shares.tolist(), strict=True)
    return [[(member.tokenizer.decode([i]), p) for i, p in zip(*row, strict=True)] for row in rows]


def _points(
    member: Member, prompts: list[str], batch_size: int, read: Callable[[Any, Tensor], T], at: int | slice = -1
) -> Iterator[tuple[list[int], T]]:
    """What `read(transformers model, stream)` makes of each batch's points at some positions, beside the weights."""
    member.check(prompts)

    def every(lm: Any) -> T:
        points = [lm.model.layers[0].input[:, at], *(layer.output[:, at] for layer in lm.model.layers)]
        return read(lm._module, torch.stack([point.to(points[-1].device) for point in points], dim=-2).float())

    return in_batches(prompts, batch_size, lambda some: member.traced(member.encode(take(prompts, some)), every))


def residuals(member: Member, prompts: list[str], *, batch_size: int = 64) -> Float[Tensor, "prompt point d_model"]:
    """The residual stream at the last position before the final norm, all points, float32. Used in notebook 03."""
    return in_order(_points(member, prompts, batch_size, lambda _, stream: stream)).to(member.device)


def streams_at_all_positions(member: Member, prompts: list[str]) -> list[Float[Tensor, "position point d_model"]]:
    """The whole stream of each prompt, one tensor a prompt since lengths differ; float32 on the CPU."""
    found = {}
    for some, streams in _points(member, prompts, 16, lambda _, stream: stream.cpu(), slice(None)):
        lengths = member.encode(take(prompts, some))["attention_mask"].sum(1).tolist()
        found |= {k: stream[-length:] for k, stream, length in zip(some, streams, lengths, strict=True)}
    return [found[k] for k in range(len(prompts))]


@dataclass(frozen=True)
class Lens:
    """What points of the stream would say next, for chosen tokens: logit, log-probability (nats) and rank (0 is the
    likeliest of all); float32 on the CPU. The last two need the whole vocabulary: None where `ranked` was False."""

    logits: Float[Tensor, "*rows token"]
    logprobs: Float[Tensor, "*rows token"] | None = None
    ranks: Int[Tensor, "*rows token"] | None = None


def read_stream(
    head: Member, stream: Float[Tensor, "*rows d_model"], token_ids: Ids, *, norm: Norm = "full", ranked: bool = True
) -> Lens:
    """Points of the residual stream through the final norm and head of a model: its own, or the other one's of the
    pair. `norm`: `full`, its `scale` only (divided by its root mean square, the learned weight left out), or `none`.
    Logit lens: nostalgebraist 2020; unreliable in early layers (Belrose et al. 2023). Used in notebook 03."""
    head.check_ids(token_ids)
    check_choice(norm, "norm", get_args(Norm))
    return Lens(**head.at_weights(_chosen, stream, norm, list(token_ids), ranked))


def lens(member: Member, prompts: list[str], token_ids: Ids, *, ranked: bool = True, batch_size: int = 64) -> Lens:
    """The logit lens of one model at the last position, [prompt, point, token]; batch by batch, so that memory does
    not grow with the number of prompts."""
    member.check_ids(token_ids)
    ids = list(token_ids)
    return Lens(**in_order(_points(member, prompts, batch_size, lambda *here: _chosen(*here, "full", ids, ranked))))


def lens_map(member: Member, prompt: str, *, last: int = 12) -> tuple[list[str], list[list[tuple[str, float]]]]:
    """One prompt's last tokens, and the likeliest next token with its probability at each [point][position]."""
    check_count(last, "positions")
    points = streams_at_all_positions(member, [prompt])[0][-last:].transpose(0, 1)
    tokens = member.encode([prompt])["input_ids"][0, -last:].tolist()
    rows = [[token for (token,) in _likeliest(member, point, 1, "full")] for point in points]
    return [member.tokenizer.decode([token]) for token in tokens], rows


@dataclass(frozen=True)
class Activations:
    """What a model computed at the last position: the input of each layer's `o_proj` (`z`, all query heads side by
    side) and `down_proj` (`act`, what multiplies each value vector), their outputs, and the stream at all points;
    float32 on the head's device."""

    stream: Float[Tensor, "prompt point d_model"]
    z: Float[Tensor, "prompt layer heads_by_size"]
    attention: Float[Tensor, "prompt layer d_model"]
    act: Float[Tensor, "prompt layer neuron"]
    mlp: Float[Tensor, "prompt layer d_model"]


def sites(lm: Any) -> Iterator[tuple[str, int, Any, str]]:
    """Where each of `Activations` is read or replaced, in the order in which a model runs: its name, the layer (for the
    stream: the point), and the module with the side of it."""
    yield "stream", 0, lm.model.layers[0], "input"
    for index, layer in enumerate(lm.model.layers):
        yield "z", index, layer.self_attn.o_proj, "input"
        yield "attention", index, layer.self_attn.o_proj, "output"
        yield "act", index, layer.mlp.down_proj, "input"
        yield "mlp", index, layer.mlp.down_proj, "output"
        yield "stream", index + 1, layer, "output"


def stacked(found: Iterable[tuple[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Last positions, [prompt, position, width] by name in the order of `sites`, as [prompt, layer, width] by name."""
    columns: dict[str, list[Tensor]] = {}
    for name, tensor in found:
        columns.setdefault(name, []).append(tensor[:, -1].float().to(device))
    return {name: torch.stack(column, dim=1) for name, column in columns.items()}


def activations(member: Member, prompts: list[str], *, batch_size: int = 64) -> Activations:
    """The last position's activations at every site. Used in notebooks 03 to 07."""
    member.check(prompts)
    device = member.device

    def read(lm: Any) -> dict[str, Tensor]:
        return stacked(((name, getattr(module, side)) for name, _, module, side in sites(lm)), device)

    found = in_batches(prompts, batch_size, lambda some: member.traced(member.encode(take(prompts, some)), read))
    return Activations(**in_order(found))


def vocabulary_scores(
    head: Member, directions: Float[Tensor, "row d_model"], token_ids: Ids
) -> Float[Tensor, "row token"]:
    """How far each direction writes towards chosen tokens: the logit without a norm's scale (its weight folded
    in), as a z-score over the vocabulary, so that the direction's length drops out. Used in notebooks 03, 04 and 06."""
    head.check_ids(token_ids)
    head.check_width(directions, "directions")
    chosen = list(token_ids)

    def score(every: Tensor) -> tuple[Tensor]:
        spread = every.std(-1, keepdim=True).clamp(min=1e-12)  # no direction, no score: 0
        return ((every[:, chosen] - every.mean(-1, keepdim=True)) / spread,)

    return head.at_weights(_read, directions, "weight", score)[0]


def promoted(head: Member, directions: Float[Tensor, "row d_model"], *, k: int = 10) -> list[list[str]]:
    """The k tokens that each direction writes most strongly towards, as in `vocabulary_scores`."""
    check_count(k, "tokens", head.n_vocab)
    head.check_width(directions, "directions")
    best = head.at_weights(_read, directions, "weight", lambda every: tuple(every.topk(k)))[1].tolist()
    return [[head.tokenizer.decode([token]) for token in row] for row in best]


def attention_pattern(
    member: Member, prompt: str, heads: Sequence[tuple[int, int]]
) -> tuple[list[str], Float[Tensor, "head position"]]:
    """One prompt's tokens, and what its last token attends to in chosen (layer, head) pairs; rows sum to one.
    Used in notebook 03."""
    member.check_heads(heads)
    batch, before = member.encode([prompt]), member.config._attn_implementation

    def read(lm: Any) -> Tensor:
        return torch.stack([layer.self_attn.output[1][0, :, -1].float().cpu() for layer in lm.model.layers])

    member.model.set_attn_implementation("eager")  # the one that gives its weights
    try:
        weights = member.traced(batch, read)
    finally:
        member.model.set_attn_implementation(before)
    tokens = [member.tokenizer.decode([token]) for token in batch["input_ids"][0].tolist()]
    return tokens, torch.stack([weights[layer, head] for layer, head in heads])


guarded(globals())
