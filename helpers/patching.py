# SPDX-License-Identifier: MIT
"""Which components decide: activation patching, its first-order estimate, and weights swapped between the models.

A *node* is a place whose activation at the last position can be replaced: the stream at a point, a layer's
attention or MLP output, a query head, an MLP neuron. The metric is the mean logit of some tokens minus that of others.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from helpers.checks import check_choice, check_count, check_finite, check_lengths, guarded, plain_torch
from helpers.generation import in_memory, with_cache
from helpers.pairs import Member, Pair
from helpers.readouts import (
    PLACES,
    Activations,
    Ids,
    activations,
    begin,
    each_place,
    go_on,
    in_batches,
    in_order,
    logit_direction,
)  # fmt: skip
from helpers.store import UserError
from helpers.weights import restored

Kind = Literal["stream", "attention", "mlp", "head", "neuron"]
Where = Literal["last", "earlier", "all"]
Part = Literal["all", "attention", "mlp", "norms"]


@dataclass(frozen=True)
class Node:
    """One place: its kind, the layer (for the stream: the point, 0 the embedding) and, for heads and neurons, which."""

    kind: Kind
    layer: int
    index: int = 0

    def __str__(self) -> str:
        which = {"head": f"H{self.index}", "neuron": f"N{self.index}"}.get(self.kind, "")
        return f"{'point ' if self.kind == 'stream' else 'L'}{self.layer}{which} {'' if which else self.kind}".strip()


HOLDS = {"stream": "stream", "attention": "attention", "mlp": "mlp", "head": "z", "neuron": "act"}


def gradients(
    member: Member, prompts: list[str], plus: Ids, minus: Ids = (), *, batch_size: int = 16
) -> tuple[Float[Tensor, " prompt"], Activations]:
    """The metric of each prompt, and its gradient with respect to every place at the last position; one backward
    pass a batch, parameters frozen, float32. Raises UserError for a model in half precision, unless it is remote."""
    if member.dtype != torch.float32 and not member.remote:
        raise UserError(
            f"gradients are taken in float32, {member.source} is in {member.dtype}: call pair.float() first"
        )
    direction = logit_direction(member, plus, minus)
    member.check(prompts)

    device = member.device

    def read(lm: Any) -> dict[str, Tensor]:
        start = lm.model.embed_tokens.output.detach().requires_grad_(True)
        lm.model.embed_tokens.output = start
        full = each_place(lm, start, lambda tensor: tensor)
        out = lm.model.norm.output[:, -1].float()
        metric = out @ direction.to(out)
        found = iter(torch.autograd.grad(metric.sum(), [tensor for some in full.values() for tensor in some]))
        slopes = {n: torch.stack([next(found)[:, -1].float().to(device) for _ in full[n]], 1) for n in full}
        return {"metric": metric.detach(), **slopes}

    def run(indices: list[int]) -> dict[str, Tensor]:
        return member.traced(member.encode([prompts[index] for index in indices]), read, grad=True)

    parts = list(in_batches(prompts, batch_size, run))
    found = {name: in_order((some, part[name]) for some, part in parts) for name in ("metric", *PLACES)}
    return found.pop("metric"), Activations(**found)


@dataclass(frozen=True)
class Effects:
    """Change of the metric by node, in nats, float32 on the CPU."""

    stream: Float[Tensor, "prompt point"]
    attention: Float[Tensor, "prompt layer"]
    mlp: Float[Tensor, "prompt layer"]
    head: Float[Tensor, "prompt layer head"]
    neuron: Float[Tensor, "prompt layer neuron"]

    def of(self, nodes: Sequence[Node]) -> Float[Tensor, "prompt node"]:
        """The effects of some nodes, one a column."""
        read = [getattr(self, node.kind)[:, node.layer] for node in nodes]
        picked = [r[:, n.index] if n.kind in ("head", "neuron") else r for r, n in zip(read, nodes, strict=True)]
        return torch.stack(picked, dim=1)


def attribution_patching(
    member: Member, prompts: list[str], source: Activations, plus: Ids, minus: Ids = ()
) -> Effects:
    """First-order estimate of what replacing each node by `source` does to the metric: (source - own) times the
    gradient (Nanda 2023; Kramár et al. 2024). `source`: activations of the other model on the same prompts, or of
    this one on other prompts. Used in notebooks 05 and 06."""
    _check_source(member, prompts, source)
    own = activations(member, prompts)
    slopes = gradients(member, prompts, plus, minus)[1]

    def product(name: str) -> Tensor:
        return ((getattr(source, name).to(member.device) - getattr(own, name)) * getattr(slopes, name)).cpu()

    return Effects(
        stream=product("stream").sum(-1),
        attention=product("attention").sum(-1),
        mlp=product("mlp").sum(-1),
        head=product("z").unflatten(-1, (member.config.num_attention_heads, -1)).sum(-1),
        neuron=product("act"),
    )


def exact_patching(
    member: Member,
    prompts: list[str],
    source: Activations,
    nodes: Sequence[Node],
    plus: Ids,
    minus: Ids = (),
    *,
    batch_size: int = 64,
) -> Float[Tensor, "prompt node"]:
    """What replacing each node by `source` at the last position does to the metric, run for run. Nothing before the
    last token changes, so that is run once a prompt (not for a remote model, whose cache would come back here); the
    last token then runs once a node, many as rows of a batch.
    The first row of each batch stays unpatched and is what the others are held against. Used in notebooks 05 and 06."""
    check_nodes(member, nodes)
    _check_source(member, prompts, source)
    check_count(batch_size, "rows a batch", least=2)  # the first is the unpatched one
    direction = logit_direction(member, plus, minus)
    effects = torch.zeros(len(prompts), len(nodes))
    for number, prompt in enumerate(prompts):
        ids = member.encode([prompt])["input_ids"]
        begun = None
        if ids.shape[1] > 1 and not member.remote:
            begun = DynamicCache(config=member.config)
            with member.lock, torch.no_grad():
                member.model.model(ids[:, :-1], **with_cache(member.model, begun))
        for place in range(0, len(nodes), batch_size - 1):
            some = list(nodes[place : place + batch_size - 1])
            metric = _patched_rows(member, ids, begun, number, source, some, direction)
            effects[number, place : place + len(some)] = (metric[1:] - metric[0]).cpu()
    return effects


def check_nodes(member: Member, nodes: Sequence[Node]) -> None:
    """Raise UserError for a node that the model does not have."""
    size = {"head": member.config.num_attention_heads, "neuron": member.config.intermediate_size}
    for node in nodes:
        layers = member.n_layers + (node.kind == "stream")
        if node.kind not in HOLDS or not 0 <= node.layer < layers or not 0 <= node.index < size.get(node.kind, 1):
            raise UserError(f"no node {node}: {member.source} has {member.n_layers} layers, {size['head']} heads each")
    if not nodes:
        raise UserError("no nodes were given: name at least one")


def _check_source(member: Member, prompts: list[str], source: Activations) -> None:
    member.check(prompts)
    needed = len(prompts), member.n_layers + 1, member.config.hidden_size
    if source.stream.shape != needed:
        given = len(source.stream)
        raise UserError(f"activations of {given} prompts for {len(prompts)}: give one a prompt, of a like model")


def _patched_rows(
    member: Member, ids: Tensor, begun: Any, number: int, source: Activations, nodes: list[Node], direction: Tensor
) -> Float[Tensor, " row"]:
    """The metric of one prompt, first as it is, then once for each node with that node replaced. `begun`: the keys
    and values of all its tokens but the last, else they run again."""
    n_rows, cache = len(nodes) + 1, copy.deepcopy(begun)
    if cache is not None:
        cache.batch_repeat_interleave(n_rows)
    read = ids if cache is None else ids[:, -1:]
    batch = {"input_ids": read.expand(n_rows, -1), "attention_mask": ids.new_ones(n_rows, ids.shape[1])}
    size = member.config.hidden_size // member.config.num_attention_heads
    size = getattr(member.config, "head_dim", None) or size
    rows: dict[tuple[str, int], list[tuple[int, Any]]] = {}
    for row, node in enumerate(nodes, start=1):
        width = {"head": slice(node.index * size, (node.index + 1) * size), "neuron": slice(node.index, node.index + 1)}
        rows.setdefault((HOLDS[node.kind], node.layer), []).append((row, width.get(node.kind, slice(None))))
    values = {name: getattr(source, name)[number].to(member.device, member.dtype) for name in PLACES}

    def replaced(tensor: Tensor, name: str, layer: int) -> Tensor:
        changed = tensor.clone()
        for row, columns in rows[name, layer]:
            changed[row, -1, columns] = values[name][layer, columns]
        return changed

    def read(lm: Any) -> Tensor:
        if ("stream", 0) in rows:
            lm.model.embed_tokens.output = replaced(lm.model.embed_tokens.output, "stream", 0)
        for index, layer in enumerate(lm.model.layers):
            if ("z", index) in rows:
                layer.self_attn.o_proj.input = replaced(layer.self_attn.o_proj.input, "z", index)
            if ("attention", index) in rows:
                layer.self_attn.o_proj.output = replaced(layer.self_attn.o_proj.output, "attention", index)
            if ("act", index) in rows:
                layer.mlp.down_proj.input = replaced(layer.mlp.down_proj.input, "act", index)
            if ("mlp", index) in rows:
                layer.mlp.down_proj.output = replaced(layer.mlp.down_proj.output, "mlp", index)
            if ("stream", index + 1) in rows:
                layer.output = replaced(layer.output, "stream", index + 1)
        out = lm.model.norm.output[:, -1].float()
        return out @ direction.to(out)

    return member.traced(batch, read, **({} if cache is None else with_cache(member.model, cache)))


def streams_at_all_positions(
    member: Member, prompts: list[str], *, batch_size: int = 16
) -> list[Float[Tensor, "position point d_model"]]:
    """The whole stream of each prompt, one tensor a prompt since lengths differ; float32 on the CPU."""
    member.check(prompts)
    check_count(batch_size, "prompts a batch")

    def read(lm: Any) -> Tensor:
        points = [lm.model.layers[0].input.float().cpu()]
        return torch.stack([*points, *(layer.output.float().cpu() for layer in lm.model.layers)], dim=2)

    def run(some: list[int]) -> list[Tensor]:
        batch = member.encode([prompts[index] for index in some])
        lengths = batch["attention_mask"].sum(1).tolist()
        return [row[-length:] for row, length in zip(member.traced(batch, read), lengths, strict=True)]

    return [row for _, rows in in_memory(list(range(len(prompts))), batch_size, run) for row in rows]


def patch_streams(
    member: Member,
    prompts: list[str],
    source: Sequence[Float[Tensor, "_ point d_model"]],
    plus: Ids,
    minus: Ids = (),
    *,
    where: Where = "last",
) -> Float[Tensor, "prompt point"]:
    """What replacing the stream by `source` at one point does to the metric, at the last position, at all earlier
    ones, or at all; all points of a prompt are rows of one batch. Prompts are aligned at their ends, so that a model
    which reads one mark more at the start keeps it. Used in notebook 05."""
    check_choice(where, "positions", get_args(Where))
    member.check(prompts)
    check_lengths(prompts=prompts, streams=source)
    direction, effects = logit_direction(member, plus, minus), []
    for prompt, given in zip(prompts, source, strict=True):
        n_points = given.shape[1]
        batch = member.encode([prompt] * (n_points + 1))
        shared = min(batch["input_ids"].shape[1], given.shape[0])
        span = {"last": slice(-1, None), "earlier": slice(-shared, -1), "all": slice(-shared, None)}[where]
        values = given.to(member.device, member.dtype)

        def read(lm: Any, values: Tensor = values, span: slice = span) -> Tensor:
            start = lm.model.embed_tokens.output.clone()
            start[1, span] = values[span, 0]
            lm.model.embed_tokens.output = start
            for index, layer in enumerate(lm.model.layers):
                changed = layer.output.clone()
                changed[index + 2, span] = values[span, index + 1]
                layer.output = changed
            out = lm.model.norm.output[:, -1].float()
            return out @ direction.to(out)

        metric = member.traced(batch, read)
        effects.append((metric[1:] - metric[0]).cpu())
    return torch.stack(effects)


def _owners(member: Member, layers: Sequence[int], part: Part, embedding: bool, head: bool, norm: bool) -> list[Any]:
    """(module, name) of each chosen parameter."""
    check_choice(part, "part", get_args(Part))
    member.check_layers(layers)
    chosen: list[torch.nn.Module] = []
    for layer in dict.fromkeys(layers):
        block = member.model.model.layers[layer]
        named = {"attention": [block.self_attn], "mlp": [block.mlp], "all": [block]}
        chosen += named.get(part, [block.input_layernorm, block.post_attention_layernorm])
    chosen += [member.model.get_input_embeddings()] * embedding + [member.model.lm_head] * head
    chosen += [member.model.model.norm] * norm
    return [(module, name) for root in chosen for module in root.modules() for name in module._parameters]


@contextlib.contextmanager
def swapped(
    pair: Pair,
    role: Literal["base", "distilled"],
    layers: Sequence[int] = (),
    *,
    part: Part = "all",
    embedding: bool = False,
    head: bool = False,
    norm: bool = False,
    amount: float = 1.0,
    noise: int | None = None,
) -> Iterator[Member]:
    """One model of the pair with some weights of the other, inside the block; the same tensors as before after it,
    also after an exception. `amount` interpolates between own (0) and the other's (1). `noise` is a seed: instead of
    the other's weights, own plus a random change of the same norm, matrix by matrix (the control).

    Parameters are exchanged as objects, so a tied head and an embedding can be swapped apart. Used in notebook 05.
    """
    members = {"base": (pair.base, pair.distilled), "distilled": (pair.distilled, pair.base)}
    check_choice(role, "role", members)
    check_finite(amount, "amount")
    target, other = members[role]
    own, theirs = (_owners(member, layers, part, embedding, head, norm) for member in (target, other))
    generator = torch.Generator().manual_seed(noise or 0)
    with restored(own):
        with plain_torch():
            for (module, name), (source, _) in zip(own, theirs, strict=True):
                if (before := module._parameters[name]) is not None:
                    value = _mixed(before, source._parameters[name], amount, None if noise is None else generator)
                    module._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
        yield target


def single_swaps(
    pair: Pair,
    role: Literal["base", "distilled"],
    prompts: list[str],
    plus: Ids,
    minus: Ids = (),
    *,
    all_but: bool = False,
    noise: int | None = None,
) -> Float[Tensor, "prompt layer"]:
    """The metric of one model with each single layer of the other in turn, or with all layers but that one; `noise` as
    in `swapped`. The layers below, which do not change, are run once. Used in notebook 05."""
    check_choice(role, "role", ("base", "distilled"))
    member = pair.base if role == "base" else pair.distilled
    direction, layers = logit_direction(member, plus, minus), range(member.n_layers)
    with swapped(pair, role, layers if all_but else ()):
        parts = begin(member, prompts, layers)
    found = torch.zeros(len(prompts), member.n_layers)
    for layer in layers:
        taken = [other for other in layers if (other != layer) == all_but]
        with swapped(pair, role, taken, noise=noise):
            for begun in parts:
                found[begun.indices, layer] = (go_on(member, begun, layer) @ direction).cpu()
    return found


def _mixed(own: Tensor, other: Tensor, amount: float, generator: torch.Generator | None) -> Tensor:
    if own.shape != other.shape:
        raise UserError(f"weights of {tuple(own.shape)} and {tuple(other.shape)} cannot be swapped")
    other = other.to(own.device, own.dtype)
    if generator is None:
        return other.detach() if amount == 1 else torch.lerp(own, other, float(amount))
    change = torch.randn(own.shape, generator=generator).to(own)
    size = (other.float() - own.float()).norm() / change.float().norm()
    return own + float(amount) * change * size.to(own.dtype)


guarded(globals())
