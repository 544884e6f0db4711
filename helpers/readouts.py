# SPDX-License-Identifier: MIT
"""What a model says: logits, log-probabilities and the parts of stopping at the last position; the logit
lens on any point of the residual stream; direct logit attribution; attention patterns.

Only the positions asked for are kept, so the full [prompt, position, vocab] tensor never exists.

A *point* is a place in the residual stream: 0 is the embedding, then one after each layer; with `mid` also one
between each layer's attention and its MLP. The point before a layer's attention is the one after the layer below.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import BatchEncoding, DynamicCache

from helpers.checks import check_choice, check_count, check_lengths, guarded
from helpers.generation import in_memory, with_cache
from helpers.pairs import Member
from helpers.store import UserError
from helpers.tokens import single_id

VOCAB_CHUNK = 16384
LENS_ROWS = {"cpu": 128, "cuda": 2048}  # states read against the vocabulary at once
T = TypeVar("T")
Norm = Literal["full", "scale", "none"]
Ids = tuple[int, ...] | list[int]


def in_batches(prompts: list[str], batch_size: int, run: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
    """Indices of prompts, batched with others of like length, and what `run` makes of each batch; see `in_memory`."""
    check_count(batch_size, "prompts a batch")
    return in_memory(sorted(range(len(prompts)), key=lambda index: len(prompts[index])), batch_size, run)


def in_order(batches: Iterable[tuple[list[int], Tensor]]) -> Tensor:
    """Rows of all batches, back in the order of the prompts."""
    indices, parts = zip(*batches, strict=True)
    order = torch.tensor([index for some in indices for index in some], device=parts[0].device)
    return torch.cat(parts)[order.argsort()]


def last_hidden(
    member: Member,
    prompts: list[str],
    *,
    batch_size: int = 64,
    lm: object = None,
) -> Float[Tensor, "prompt d_model"]:
    """The last position after the final norm, in float32 on the head's device; prompts batched by length. `lm`: an
    edited nnsight model of this member."""
    member.check(prompts)

    def run(indices: list[int]) -> Tensor:
        batch = member.encode([prompts[index] for index in indices])
        return member.traced(batch, _last_normed, lm=lm).float().to(member.device)

    return in_order(in_batches(prompts, batch_size, run))


def _last_normed(lm: Any) -> Tensor:
    return lm.model.norm.output[:, -1].clone()


@dataclass(frozen=True)
class Begun:
    """A batch of prompts run once: which prompts, their tokens, the stream of all positions before some layers."""

    indices: list[int]
    batch: BatchEncoding
    streams: dict[int, Float[Tensor, "prompt position d_model"]]


def begin(member: Member, prompts: list[str], layers: Iterable[int], *, batch_size: int = 64) -> list[Begun]:
    """Run prompts once and keep the stream before each of these layers (`n_layers`: after the last), so that what
    happens from there on can be run many times by `go_on`. Raises UserError for a layer that is not there."""
    member.check(prompts)
    wanted = sorted(set(layers))
    member.check_layers(wanted, points=True)
    _check_here(member, "streams kept to go on from")

    def read(lm: Any) -> dict[int, Tensor]:
        kept = {0: lm.model.layers[0].input.clone()} if 0 in wanted else {}
        for index, layer in enumerate(lm.model.layers, start=1):
            if index in wanted:
                kept[index] = layer.output.clone()
        return kept

    def run(indices: list[int]) -> Begun:
        batch = member.encode([prompts[index] for index in indices])
        return Begun(indices, batch, member.traced(batch, read))

    return [begun for _, begun in in_batches(prompts, batch_size, run)]


def go_on(
    member: Member,
    begun: Begun,
    layer: int,
    stream: Float[Tensor, "row position d_model"] | None = None,
    *,
    later: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
) -> Float[Tensor, "row d_model"]:
    """What `last_hidden` gives when the prompts of `begun` run from `layer` on, without the layers below. `stream`: in
    place of the kept one, with the prompts once or several times over; `later`: what is added to later outputs."""
    if layer not in begun.streams:
        raise UserError(f"layer {layer} was not kept: begin with it, or go on from one of {sorted(begun.streams)}")
    stream = (begun.streams[layer] if stream is None else stream).to(begun.streams[layer])
    times = len(stream) // len(begun.indices)

    def read(lm: Any) -> Tensor:
        for index, block in enumerate(lm.model.layers):
            if index < layer:
                block.skip(stream)
            elif index == 0:
                block.input = stream
            elif later and index in later:
                block.output = block.output + later[index](block.output)
        return _last_normed(lm)

    batch = {name: value.repeat(times, 1) for name, value in begun.batch.items()}
    return member.traced(batch, read).float().to(member.device)


def last_hidden_shared(member: Member, prompts: list[str], *, batch_size: int = 96) -> Float[Tensor, "prompt d_model"]:
    """`last_hidden` for prompts that begin alike, in which every common beginning is run once: what all share first,
    then the rest as a tree of tokens in one row, each seeing its own ancestors alone (tree attention, Miao et al.
    2023). The fewer tokens they differ in, the faster; on a remote model as `last_hidden`. Used in notebook 07."""
    check_count(batch_size, "prompts a batch")
    member.encode(prompts)
    every = [member.encode([prompt])["input_ids"][0].tolist() for prompt in prompts]
    shortest = min(map(len, every)) - 1
    shared = next((k for k in range(shortest) if len({ids[k] for ids in every}) > 1), shortest)
    window = getattr(member.config, "sliding_window", None)  # which the tree's own mask knows nothing of
    if not shared or member.remote or (window and window < max(map(len, every))):
        return last_hidden(member, prompts)
    start, parts = torch.tensor([every[0][:shared]], device=member.device), []
    for place in range(0, len(prompts), batch_size):
        batch, last = _tree([ids[shared:] for ids in every[place : place + batch_size]], shared, member)
        cached = with_cache(member.model, DynamicCache(config=member.config))
        with member.lock, torch.no_grad():
            member.model.model(start, **cached)
        hidden = member.traced(batch, lambda lm, last=last: lm.model.norm.output[0, last].clone(), **cached)
        parts.append(hidden.float().to(member.device))
    return torch.cat(parts)


def _tree(ends: list[list[int]], shared: int, member: Member) -> tuple[dict[str, Tensor], list[int]]:
    """Token lists behind `shared` common tokens as one row of a tree: ids, positions, mask; and each list's last."""
    nodes: dict[tuple[int, int], int] = {}
    parents, depths, last = [], [], []
    for tokens in ends:
        at = -1
        for depth, token in enumerate(tokens):
            if (at, token) not in nodes:
                nodes[at, token] = len(nodes)
                parents.append(at)
                depths.append(shared + depth)
            at = nodes[at, token]
        last.append(at)
    seen = torch.eye(len(nodes), shared + len(nodes), dtype=torch.bool).roll(shared, dims=1)
    seen[:, :shared] = True
    for node, parent in enumerate(parents):
        if parent >= 0:
            seen[node] |= seen[parent]
    mask = torch.zeros(seen.shape, dtype=member.dtype).masked_fill(~seen, torch.finfo(member.dtype).min)
    batch = {"input_ids": torch.tensor([[token for _, token in nodes]]), "position_ids": torch.tensor([depths])}
    return {
        name: value.to(member.device) for name, value in (batch | {"attention_mask": mask[None, None]}).items()
    }, last


def hidden_without(
    member: Member, prompts: list[str], hide: Sequence[Sequence[int]], *, batch_size: int = 64
) -> Float[Tensor, "prompt d_model"]:
    """`last_hidden` where no token can attend to some tokens of its prompt, counted from its start: attention
    knocked out in all heads and layers. Raises UserError for a token that is not there. Used in notebook 07."""
    member.check(prompts)
    check_lengths(prompts=prompts, hide=hide)

    def run(indices: list[int]) -> Tensor:
        batch = member.encode([prompts[index] for index in indices])
        mask = batch["attention_mask"]
        for row, index in zip(mask, indices, strict=True):
            length = int(row.sum())
            if any(not 0 <= at < length - 1 for at in hide[index]):
                raise UserError(f"hide {list(hide[index])} of prompt {index}: give tokens from 0 to {length - 2}")
            row[[len(row) - length + at for at in hide[index]]] = 0
        return member.traced(batch, _last_normed).float().to(member.device)

    return in_order(in_batches(prompts, batch_size, run))


# What follows down to `_read_rows` reads states against the head of a transformers model, for `Member.at_weights`.


def _logits(model: Any, states: Tensor, token_ids: list[int]) -> Tensor:
    rows = model.lm_head.weight[token_ids]
    return (states.to(rows.device) @ rows.float().T).cpu()


def _log_normaliser(model: Any, states: Tensor) -> Tensor:
    weight = model.lm_head.weight
    sums = [(states.to(weight.device) @ chunk.float().T).logsumexp(-1) for chunk in weight.split(VOCAB_CHUNK)]
    return torch.stack(sums).logsumexp(0).cpu()


def _logprobs(model: Any, states: Tensor, token_ids: list[int]) -> Tensor:
    return _logits(model, states, token_ids) - _log_normaliser(model, states)[:, None]


def _row_blocks(model: Any, states: Tensor) -> tuple[Tensor, ...]:
    """States, on the head's device, in blocks that are read against the vocabulary at once."""
    device = model.lm_head.weight.device
    return states.to(device).split(LENS_ROWS.get(device.type, LENS_ROWS["cuda"]))


def _every_logit(model: Any, states: Tensor) -> Tensor:
    """Logits of the whole vocabulary for a few rows, float32 on the head's device."""
    weight = model.lm_head.weight
    if weight.dtype == torch.float32:
        return states @ weight.T
    return torch.cat([states @ chunk.float().T for chunk in weight.split(VOCAB_CHUNK)], dim=-1)


def _distribution(model: Any, states: Tensor) -> Tensor:
    return torch.cat([_every_logit(model, rows).log_softmax(-1).cpu() for rows in _row_blocks(model, states)])


def _best(model: Any, states: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and probabilities of the k likeliest tokens of normed states."""
    best = [_every_logit(model, rows).softmax(-1).topk(k) for rows in _row_blocks(model, states)]
    return torch.cat([part.indices.cpu() for part in best]), torch.cat([part.values.cpu() for part in best])


def _scores(model: Any, directions: Tensor, token_ids: list[int]) -> Tensor:
    """z-scores of chosen tokens over the vocabulary, of directions with the norm folded in."""
    scores = []
    for every in _folded(model, directions):
        spread = every.std(-1, keepdim=True).clamp(min=1e-12)  # no direction, no score: 0
        scores.append(((every[:, token_ids] - every.mean(-1, keepdim=True)) / spread).cpu())
    return torch.cat(scores)


def _most_promoted(model: Any, directions: Tensor, k: int) -> Tensor:
    """The k best tokens of directions with the norm folded in."""
    return torch.cat([every.topk(k).indices.cpu() for every in _folded(model, directions)])


def _folded(model: Any, directions: Tensor) -> Iterator[Tensor]:
    for rows in _row_blocks(model, directions):
        yield _every_logit(model, rows * model.model.norm.weight.float().to(rows.device))


def _normed(model: Any, stream: Tensor, norm: str) -> Tensor:
    if norm == "none":
        return stream
    scaled = stream * torch.rsqrt(stream.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps)
    return scaled if norm == "scale" else scaled * model.model.norm.weight.float().to(stream.device)


def _read_rows(model: Any, stream: Tensor, token_ids: list[int], norm: str, ranked: bool) -> tuple[Tensor | None, ...]:
    """Logits, log-probabilities and ranks of chosen tokens at points of the stream, each [row, token] on the CPU."""
    weight, read = model.lm_head.weight, []
    for rows in _row_blocks(model, stream.reshape(-1, stream.shape[-1])):
        states = _normed(model, rows, norm)
        chosen = _logits(model, states, token_ids).to(states.device)
        if not ranked:
            read.append((chosen.cpu(), None, None))
            continue
        sums, greater = [], torch.zeros(chosen.shape, dtype=torch.int32, device=states.device)
        for start, some in zip(range(0, 10**9, VOCAB_CHUNK), weight.split(VOCAB_CHUNK), strict=False):
            logits = states @ some.float().T
            sums.append(logits.logsumexp(-1))
            for k, token in enumerate(token_ids):
                greater[:, k] += (logits > chosen[:, k, None]).sum(-1, dtype=torch.int32)
                if start <= token < start + len(some):  # a token does not outrank itself, whatever the rounding
                    greater[:, k] -= (logits[:, token - start] > chosen[:, k]).int()
        read.append((chosen.cpu(), (chosen - torch.stack(sums).logsumexp(0)[:, None]).cpu(), greater.cpu()))
    return tuple(None if part[0] is None else torch.cat(part) for part in zip(*read, strict=True))


def _check_here(member: Member, what: str) -> None:
    """Raise UserError for a remote model, where something would be large to send."""
    if member.remote:
        raise UserError(f"{what} would be sent whole from {member.source}, which is remote: load it without remote")


def logits_of(member: Member, hidden: Float[Tensor, "prompt d_model"], token_ids: Ids) -> Float[Tensor, "prompt token"]:
    """Logits of chosen tokens only, float32 on the CPU."""
    return member.at_weights(_logits, hidden, list(token_ids))


def log_normaliser(member: Member, hidden: Float[Tensor, "prompt d_model"]) -> Float[Tensor, " prompt"]:
    """log of the sum of exp(logit) over the vocabulary, in chunks of it, float32 on the CPU."""
    return member.at_weights(_log_normaliser, hidden)


def logprobs_of(
    member: Member, hidden: Float[Tensor, "prompt d_model"], token_ids: Ids
) -> Float[Tensor, "prompt token"]:
    """Natural log-probabilities of chosen tokens, in nats, float32 on the CPU."""
    return member.at_weights(_logprobs, hidden, list(token_ids))


def next_logits(member: Member, prompts: list[str], token_ids: Ids) -> Float[Tensor, "prompt token"]:
    """Logits of chosen next tokens after each prompt, in float32."""
    member.check_ids(token_ids)
    return logits_of(member, last_hidden(member, prompts), token_ids)


def next_logprobs(member: Member, prompts: list[str], token_ids: Ids) -> Float[Tensor, "prompt token"]:
    """Natural log-probabilities of chosen next tokens, in nats. Used in notebook 02."""
    member.check_ids(token_ids)
    return logprobs_of(member, last_hidden(member, prompts), token_ids)


def next_distribution(member: Member, prompts: list[str]) -> Float[Tensor, "prompt vocab"]:
    """Log-probabilities of the whole vocabulary after each prompt, in nats, on the CPU: for few prompts."""
    return member.at_weights(_distribution, last_hidden(member, prompts))


def kl_nats(first: Float[Tensor, "prompt vocab"], second: Float[Tensor, "prompt vocab"]) -> Float[Tensor, " prompt"]:
    """KL divergence of log-probabilities, first from second, in nats."""
    return torch.nn.functional.kl_div(second, first, reduction="none", log_target=True).sum(-1)


def stop_parts(member: Member, prompts: list[str], *, lm: object = None) -> pd.DataFrame:
    """P(next token), split into parts that sum to one, one row a prompt.

    `stop` (all stop tokens; each also in a column of its own name), `</think>`, `<think>`, the Wait set, a new
    line, and the rest. Used in notebooks 02 and 06.
    """
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
    shares = logprobs_of(member, last_hidden(member, prompts, lm=lm), every).exp()
    columns = iter(shares.split([len(ids) for ids in known.values()], dim=1))
    frame = pd.DataFrame({name: next(columns).sum(1).tolist() for name in known})
    frame["rest"] = (1 - frame.sum(axis=1)).clip(lower=0)
    for index in groups.stop:
        frame[member.tokenizer.decode([index])] = shares[:, every.index(index)].tolist()
    return frame


def bigram_logits(
    member: Member, sources: list[int], targets: list[int], *, first_mlp: bool = False
) -> Float[Tensor, "source token"]:
    """What a token alone says about the next one, from the weights: its embedding, with `first_mlp` plus what
    layer 0's MLP adds to it, through the final norm and the head; no attention, no context. Used in notebook 02."""
    member.check_ids([*sources, *targets])
    return member.at_weights(_bigrams, sources, targets, first_mlp)


def _bigrams(model: Any, sources: list[int], targets: list[int], first_mlp: bool) -> Tensor:
    with torch.no_grad():
        stream = model.model.embed_tokens.weight[sources]
        if first_mlp:
            layer = model.model.layers[0]
            stream = stream + layer.mlp(layer.post_attention_layernorm(stream))
        return _logits(model, model.model.norm(stream).float(), targets)


def top_tokens(member: Member, prompts: list[str], *, k: int = 10, lm: object = None) -> list[list[tuple[str, float]]]:
    """The k likeliest next tokens of each prompt with their probabilities."""
    return _likeliest(member, last_hidden(member, prompts, lm=lm), k)


def _likeliest(member: Member, states: Float[Tensor, "row d_model"], k: int) -> list[list[tuple[str, float]]]:
    """The k likeliest tokens of normed states, a chunk of rows at a time."""
    check_count(k, "tokens", member.n_vocab)
    rows = zip(*(part.tolist() for part in member.at_weights(_best, states, k)), strict=True)
    return [[(member.tokenizer.decode([i]), p) for i, p in zip(*row, strict=True)] for row in rows]


def residuals(
    member: Member,
    prompts: list[str],
    *,
    positions: Sequence[int] = (-1,),
    mid: bool = False,
    batch_size: int = 64,
) -> Float[Tensor, "prompt position point d_model"]:
    """The residual stream before the final norm at chosen positions (negative: counted from the end) and all
    points, float32. Raises UserError for a position that a prompt does not have. Used in notebook 03."""
    return in_order(_residual_batches(member, prompts, positions, mid, batch_size, _on_head))


def _on_head(model: Any, stream: Tensor) -> Tensor:
    return stream.to(model.lm_head.weight.device)


def _residual_batches(
    member: Member,
    prompts: list[str],
    positions: Sequence[int],
    mid: bool,
    batch_size: int,
    work: Callable[..., T],
    *given: Any,
) -> Iterator[tuple[list[int], T]]:
    """What `work(transformers model, stream, *given)` makes of each batch's points, beside the weights."""
    at = list(positions)
    member.check(prompts)

    def read(lm: Any) -> T:
        points = [lm.model.layers[0].input[:, at]]
        for layer in lm.model.layers:
            if mid:
                points.append(layer.post_attention_layernorm.input[:, at])
            points.append(layer.output[:, at])
        stream = torch.stack([point.to(points[-1].device) for point in points], dim=2).float()
        return work(lm._module, stream, *given)

    def run(indices: list[int]) -> T:
        batch = member.encode([prompts[index] for index in indices])
        shortest = int(batch["attention_mask"].sum(1).min())
        if not at or any(not -shortest <= place < 0 for place in at):
            raise UserError(f"positions {at} asked for, but a prompt has {shortest} tokens: use -{shortest} to -1")
        return member.traced(batch, read)

    return in_batches(prompts, batch_size, run)


@dataclass(frozen=True)
class Lens:
    """What points of the stream would say next, for chosen tokens: logit, natural log-probability (nats) and
    rank (0 is the likeliest of the vocabulary); float32 on the CPU, a token a column. The last two need the whole
    vocabulary and are None where `ranked` was False."""

    logits: Float[Tensor, "*rows token"]
    logprobs: Float[Tensor, "*rows token"] | None
    ranks: Int[Tensor, "*rows token"] | None


def normed(head: Member, stream: Float[Tensor, "*rows d_model"], norm: Norm = "full") -> Float[Tensor, "*rows d_model"]:
    """The stream through the final norm: `full`, its `scale` only (divided by its root mean square, the learned
    weight left out), or `none`."""
    check_choice(norm, "norm", get_args(Norm))
    return head.at_weights(_normed, stream, norm)


def read_stream(
    head: Member, stream: Float[Tensor, "*rows d_model"], token_ids: Ids, *, norm: Norm = "full", ranked: bool = True
) -> Lens:
    """Points of the residual stream through the head of a model: its own, or the other one's of the pair.

    Logit lens: nostalgebraist 2020; unreliable in early layers (Belrose et al. 2023). The vocabulary is read in
    chunks, for LENS_ROWS states at a time. Used in notebooks 03, 05, 07.
    """
    head.check_ids(token_ids)
    check_choice(norm, "norm", get_args(Norm))
    read = head.at_weights(_read_rows, stream, list(token_ids), norm, ranked)
    return Lens(*(part if part is None else part.reshape(*stream.shape[:-1], -1) for part in read))


def lens(
    member: Member,
    prompts: list[str],
    token_ids: Ids,
    *,
    head: Member | None = None,
    norm: Norm = "full",
    ranked: bool = True,
    positions: Sequence[int] = (-1,),
    mid: bool = False,
    batch_size: int = 64,
) -> Lens:
    """The logit lens of one model, [prompt, position, point, token]; batch by batch, so that memory does not grow
    with the number of prompts. `head`: whose norm and unembedding read the stream (default: its own)."""
    (head or member).check_ids(token_ids)
    check_choice(norm, "norm", get_args(Norm))
    own, given = head is None or head is member, (list(token_ids), norm, ranked)
    work = (_read_rows, *given) if own else (_on_head,)
    indices, read = [], []
    for batch, found in _residual_batches(member, prompts, positions, mid, batch_size, *work):
        indices.append(batch)
        rows = found if own else head.at_weights(_read_rows, found, *given)
        read.append([part if part is None else part.unflatten(0, (len(batch), len(positions), -1)) for part in rows])
    columns = zip(*read, strict=True)
    return Lens(*(None if c[0] is None else in_order(zip(indices, c, strict=True)) for c in columns))


def lens_map(member: Member, prompt: str, *, last: int = 12) -> tuple[list[str], list[list[tuple[str, float]]]]:
    """One prompt's last tokens, and the likeliest next token with its probability at each [point][position]."""
    check_count(last, "positions")
    ids = member.encode([prompt])["input_ids"][0, -last:].tolist()
    stream = residuals(member, [prompt], positions=range(-len(ids), 0))[0].transpose(0, 1)
    best = _likeliest(member, normed(member, stream).reshape(-1, stream.shape[-1]), 1)
    rows = [[token for (token,) in best[k : k + len(ids)]] for k in range(0, len(best), len(ids))]
    return [member.tokenizer.decode([token]) for token in ids], rows


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


PLACES = ("stream", "z", "attention", "act", "mlp")


def activations(member: Member, prompts: list[str], *, batch_size: int = 64) -> Activations:
    """The last position's activations at every place. Used in notebooks 04, 05 and 06."""
    member.check(prompts)
    found = list(in_batches(prompts, batch_size, lambda some: _read_activations(member, [prompts[k] for k in some])))
    return Activations(**{n: in_order((some, getattr(part, n)) for some, part in found) for n in PLACES})


def _read_activations(member: Member, prompts: list[str]) -> Activations:
    device = member.device

    def read(lm: Any) -> dict[str, Tensor]:
        kept = each_place(lm, lm.model.layers[0].input, lambda tensor: tensor[:, -1].clone())
        return {name: torch.stack([one.float().to(device) for one in kept[name]], 1) for name in kept}

    return Activations(**member.traced(member.encode(prompts), read))


def each_place(lm: Any, start: Tensor, take: Callable[[Tensor], Tensor]) -> dict[str, list[Tensor]]:
    """What `take` makes of the activations at every place, layer by layer; `start` is the stream before them. Inside a
    trace."""
    kept = {"stream": [take(start)], "z": [], "attention": [], "act": [], "mlp": []}
    for layer in lm.model.layers:
        kept["z"].append(take(layer.self_attn.o_proj.input))
        kept["attention"].append(take(layer.self_attn.o_proj.output))
        kept["act"].append(take(layer.mlp.down_proj.input))
        kept["mlp"].append(take(layer.mlp.down_proj.output))
        kept["stream"].append(take(layer.output))
    return kept


@dataclass(frozen=True)
class Attribution:
    """Parts of a difference of logits, in nats, float32: `embedding + attention + mlp` sum to `total`, and
    `heads` (with the output bias, where a model has one) and `neurons` to `attention` and `mlp`."""

    embedding: Float[Tensor, " prompt"]
    attention: Float[Tensor, "prompt layer"]
    mlp: Float[Tensor, "prompt layer"]
    heads: Float[Tensor, "prompt layer head"]
    neurons: Float[Tensor, "prompt layer neuron"] | None
    attention_bias: Float[Tensor, "prompt layer"]
    mlp_bias: Float[Tensor, "prompt layer"]

    @property
    def total(self) -> Float[Tensor, " prompt"]:
        return self.embedding + self.attention.sum(1) + self.mlp.sum(1)


def logit_direction(member: Member, plus: Ids, minus: Ids = ()) -> Float[Tensor, " d_model"]:
    """Mean unembedding of the `plus` tokens minus that of the `minus` tokens, float32."""
    member.check_ids([*plus, *minus])
    return member.at_weights(_direction, list(plus), list(minus)).to(member.device)


def _direction(model: Any, plus: list[int], minus: list[int]) -> Tensor:
    weight = model.lm_head.weight.detach()
    up = weight[plus].float().mean(0)
    return up - weight[minus].float().mean(0) if minus else up


def attribute(
    member: Member,
    prompts: list[str],
    plus: Ids,
    minus: Ids = (),
    *,
    neurons: bool = False,
    rounded: bool = False,
    batch_size: int = 64,
) -> Attribution:
    """Direct logit attribution at the last position: what each component writes towards the mean logit of `plus`
    minus that of `minus`, the final norm's scale frozen and its weight folded in. Every query head counts, also
    where heads share keys and values. Raises UserError unless the model is in float32; a remote one is in what its
    server holds, and its parts add up within that rounding. Used in notebooks 03 to 05.
    """
    if member.dtype != torch.float32 and not (member.remote or rounded):
        raise UserError(f"attribution must add up, but {member.source} is in {member.dtype}: call pair.float() first")
    folded = logit_direction(member, plus, minus) * member.norm_weight.float()
    member.check(prompts)
    into = member.at_weights(_onto, folded)

    def run(indices: list[int]) -> tuple[Tensor | None, ...]:
        return _attribute_batch(member, [prompts[index] for index in indices], folded, into, neurons)

    indices, parts = zip(*in_batches(prompts, batch_size, run), strict=True)
    columns = list(zip(*parts, strict=True))
    return Attribution(*(None if c[0] is None else in_order(zip(indices, c, strict=True)) for c in columns))


def _onto(model: Any, direction: Tensor) -> tuple[Tensor, ...]:
    """What each column of every layer's `o_proj` and `down_proj`, and their biases, write along a direction."""
    columns, biases = ([], []), ([], [])
    for layer in model.model.layers:
        for place, matrix in enumerate((layer.self_attn.o_proj, layer.mlp.down_proj)):
            columns[place].append((direction.to(matrix.weight) @ matrix.weight).to(direction))
            none = matrix.bias is None
            biases[place].append(direction.new_zeros(()) if none else matrix.bias.to(direction) @ direction)
    return tuple(torch.stack(part) for part in (*columns, *biases))


def _attribute_batch(
    member: Member, prompts: list[str], folded: Float[Tensor, " d_model"], into: tuple[Tensor, ...], neurons: bool
) -> tuple[Tensor | None, ...]:
    into_heads, into_neurons, *biases = into
    seen = _read_activations(member, prompts)
    scale = torch.rsqrt(seen.stream[:, -1].pow(2).mean(-1) + member.config.rms_norm_eps)
    toward = folded * scale[:, None]
    of_heads = (seen.z * into_heads).unflatten(-1, (member.config.num_attention_heads, -1)).sum(-1)
    found = (
        (seen.stream[:, 0] * toward).sum(-1),
        (seen.attention * toward[:, None]).sum(-1),
        (seen.mlp * toward[:, None]).sum(-1),
        of_heads * scale[:, None, None],
        seen.act * into_neurons * scale[:, None, None] if neurons else None,
        *(bias * scale[:, None] for bias in biases),
    )
    return tuple(None if part is None else part.cpu() for part in found)


def vocabulary_scores(
    head: Member, directions: Float[Tensor, "row d_model"], token_ids: Ids
) -> Float[Tensor, "row token"]:
    """How far each direction writes towards chosen tokens: the logit without a norm's scale (its weight folded
    in), as a z-score over the vocabulary, so that the direction's length drops out. Used in notebook 03."""
    head.check_ids(token_ids)
    head.check_width(directions, "directions")
    return head.at_weights(_scores, directions, list(token_ids))


def promoted(head: Member, directions: Float[Tensor, "row d_model"], *, k: int = 10) -> list[list[str]]:
    """The k tokens that each direction writes most strongly towards, as in `vocabulary_scores`."""
    check_count(k, "tokens", head.n_vocab)
    head.check_width(directions, "directions")
    best = head.at_weights(_most_promoted, directions, k)
    return [[head.tokenizer.decode([token]) for token in row] for row in best.tolist()]


@contextlib.contextmanager
def eager_attention(member: Member) -> Iterator[None]:
    """Attention computed so that its weights can be read, put back afterwards."""
    before = member.config._attn_implementation
    member.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        member.model.set_attn_implementation(before)


def attention_pattern(
    member: Member, prompt: str, heads: Sequence[tuple[int, int]]
) -> tuple[list[str], Float[Tensor, "head position"]]:
    """One prompt's tokens, and what its last token attends to in chosen (layer, head) pairs; rows sum to one.
    Used in notebooks 03 and 07."""
    member.check_heads(heads)
    batch = member.encode([prompt])

    def read(lm: Any) -> Tensor:
        return torch.stack([layer.self_attn.output[1][0, :, -1].float().cpu() for layer in lm.model.layers])

    with eager_attention(member):
        weights = member.traced(batch, read)
    tokens = [member.tokenizer.decode([token]) for token in batch["input_ids"][0].tolist()]
    return tokens, torch.stack([weights[layer, head] for layer, head in heads])


guarded(globals())
