# SPDX-License-Identifier: MIT
"""Which components decide: direct logit attribution, activation patching, its first-order estimate, and weights
swapped between the models.

A *node* is a place whose activation at the last position can be replaced: the stream at a point, a layer's
attention or MLP output, a query head, an MLP neuron. What an effect is measured on is a `readouts.Metric`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.checks import check_choice, check_finite, check_lengths, guarded, plain_torch
from helpers.pairs import Member, Pair
from helpers.readouts import (
    Activations,
    Ids,
    Metric,
    activations,
    as_one_row,
    in_batches,
    in_order,
    logit_difference,
    sites,
    stacked,
)
from helpers.store import UserError, take
from helpers.weights import restored

BRANCHES = 512  # nodes whose last tokens stand in one row
Kind = Literal["stream", "attention", "mlp", "head", "neuron"]
Where = Literal["last", "earlier", "all"]
Part = Literal["all", "attention", "mlp", "norms"]
Role = Literal["base", "distilled"]
Streams = Sequence[Float[Tensor, "_ point d_model"]]


@dataclass(frozen=True)
class Node:
    """One place: its kind, the layer (of the stream: the point) and, for heads and neurons, which."""

    kind: Kind
    layer: int
    index: int = 0

    def __str__(self) -> str:
        which = {"head": f"H{self.index}", "neuron": f"N{self.index}"}.get(self.kind, "")
        return f"{'point ' if self.kind == 'stream' else 'L'}{self.layer}{which} {'' if which else self.kind}".strip()


HOLDS = {"stream": "stream", "attention": "attention", "mlp": "mlp", "head": "z", "neuron": "act"}


def logit_direction(member: Member, plus: Ids, minus: Ids = ()) -> Float[Tensor, " d_model"]:
    """Mean unembedding of the `plus` tokens minus that of the `minus` tokens, float32."""
    metric = logit_difference(member, plus, minus)
    return member.at_weights(_slopes, torch.zeros(1, member.config.hidden_size), metric)[0].to(member.device)


def _slopes(model: Any, states: Float[Tensor, "row d_model"], metric: Metric) -> Float[Tensor, "row d_model"]:
    """The metric's gradient at states behind the final norm."""
    with torch.enable_grad():
        states = states.to(model.lm_head.weight.device).detach().requires_grad_(True)
        return torch.autograd.grad(metric(model, states).sum(), states)[0]


@dataclass(frozen=True)
class Attribution:
    """Parts of a difference of logits, in nats, float32: `embedding + attention + mlp` sum to `total`, and
    `heads` (with the output bias, where a model has one) and `neurons` to `attention` and `mlp`."""

    embedding: Float[Tensor, " prompt"]
    attention: Float[Tensor, "prompt layer"]
    mlp: Float[Tensor, "prompt layer"]
    heads: Float[Tensor, "prompt layer head"]
    attention_bias: Float[Tensor, "prompt layer"]
    mlp_bias: Float[Tensor, "prompt layer"]
    neurons: Float[Tensor, "prompt layer neuron"] | None = None

    @property
    def total(self) -> Float[Tensor, " prompt"]:
        return self.embedding + self.attention.sum(1) + self.mlp.sum(1)


def attribute(
    member: Member, prompts: list[str], metric: Metric, *, neurons: bool = False, rounded: bool = False
) -> Attribution:
    """Direct attribution at the last position: what each component writes towards a metric, along its gradient there,
    the final norm's scale frozen and its weight folded in; query heads one by one. For a `logit_difference` the parts
    sum to its value; for others, to the gradient times the state.

    Raises UserError unless the model is in float32, remote, or may be `rounded`: parts would not add up. Used in
    notebooks 03 to 05."""
    if member.dtype != torch.float32 and not (member.remote or rounded):
        raise UserError(f"attribution must add up, but {member.source} is in {member.dtype}: call pair.float() first")
    member.check(prompts)
    weight, n_heads = member.norm_weight.float(), member.config.num_attention_heads

    def run(indices: list[int]) -> dict[str, Tensor]:
        seen = activations(member, take(prompts, indices))
        scale = torch.rsqrt(seen.stream[:, -1].pow(2).mean(-1) + member.config.rms_norm_eps)[:, None]
        slopes = member.at_weights(_slopes, seen.stream[:, -1] * scale * weight, metric).to(member.device)
        toward = slopes * weight * scale
        into = member.at_weights(_onto, toward)
        found = {
            "embedding": (seen.stream[:, 0] * toward).sum(-1),
            "attention": (seen.attention * toward[:, None]).sum(-1),
            "mlp": (seen.mlp * toward[:, None]).sum(-1),
            "heads": (seen.z * into["o_proj"]).unflatten(-1, (n_heads, -1)).sum(-1),
            "attention_bias": into["o_proj bias"],
            "mlp_bias": into["down_proj bias"],
        }
        if neurons:
            found["neurons"] = seen.act * into["down_proj"]
        return {name: part.cpu() for name, part in found.items()}

    return Attribution(**in_order(in_batches(prompts, 64, run)))


def _onto(model: Any, directions: Float[Tensor, "prompt d_model"]) -> dict[str, Float[Tensor, "prompt layer ..."]]:
    """What each column of every layer's `o_proj` and `down_proj`, and their biases, write along each direction."""
    found: dict[str, Tensor] = {}
    for name, inside in (("o_proj", "self_attn"), ("down_proj", "mlp")):
        matrices = [getattr(getattr(layer, inside), name) for layer in model.model.layers]
        along = [directions.to(m.weight) for m in matrices]
        bias = [d.new_zeros(len(d)) if m.bias is None else d @ m.bias for d, m in zip(along, matrices, strict=True)]
        written = [d @ m.weight for d, m in zip(along, matrices, strict=True)]
        found[name], found[f"{name} bias"] = (
            torch.stack([part.to(directions) for part in parts], dim=1) for parts in (written, bias)
        )
    return found


def gradients(
    member: Member, prompts: list[str], metric: Metric, *, batch_size: int = 16
) -> tuple[Float[Tensor, " prompt"], Activations]:
    """The metric of each prompt, and its gradient with respect to every site at the last position; one backward
    pass a batch, parameters frozen. Raises UserError for a model in half precision, unless it is remote."""
    if member.dtype != torch.float32 and not member.remote:
        raise UserError(f"gradients need float32, {member.source} is in {member.dtype}: call pair.float() first")
    member.check(prompts)
    device = member.device

    def read(lm: Any) -> dict[str, Tensor]:
        lm.model.embed_tokens.output = lm.model.embed_tokens.output.detach().requires_grad_(True)
        names, full = zip(*((name, getattr(module, side)) for name, _, module, side in sites(lm)), strict=True)
        value = metric(lm._module, lm.model.norm.output[:, -1])
        slopes = torch.autograd.grad(value.sum(), full)
        return {"metric": value.detach(), **stacked(zip(names, slopes, strict=True), device)}

    def run(some: list[int]) -> dict[str, Tensor]:
        return member.traced(member.encode(take(prompts, some)), read, grad=True)

    found = in_order(in_batches(prompts, batch_size, run))
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


def attribution_patching(member: Member, prompts: list[str], source: Activations, metric: Metric) -> Effects:
    """First-order estimate of `exact_patching` for every node: (source - own) times the gradient (Nanda 2023; Kramár
    et al. 2024). `source`: activations of the other model on the same prompts, or of this one on others. Used in
    notebooks 05 to 07."""
    _check_source(member, prompts, source)
    own = activations(member, prompts)
    slopes = gradients(member, prompts, metric)[1]

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
    member: Member, prompts: list[str], source: Activations, nodes: Sequence[Node], metric: Metric
) -> Float[Tensor, "prompt node"]:
    """What replacing each node by `source` at the last position does to the metric, run for run. Behind the rest of the
    prompt its last token stands once as it is and once for each node, and none sees another. Used in
    notebooks 03 to 07."""
    _check_nodes(member, nodes)
    _check_source(member, prompts, source)
    effects = []
    some = [nodes[at : at + BRANCHES] for at in range(0, len(nodes), BRANCHES)]
    for number, prompt in enumerate(prompts):
        tokens = member.encode([prompt])["input_ids"][0].tolist()
        values = {name: every[number].to(member.device, member.dtype) for name, every in vars(source).items()}
        effects.append(torch.cat([_patched(member, tokens, values, each, metric) for each in some]))
    return torch.stack(effects)


def _patched(
    member: Member, tokens: list[int], values: dict[str, Tensor], nodes: Sequence[Node], metric: Metric
) -> Float[Tensor, " node"]:
    end, size = len(tokens), values["z"].shape[-1] // member.config.num_attention_heads
    row = as_one_row(member, tokens + tokens[-1:] * len(nodes), [*range(-1, end - 1), *[end - 2] * len(nodes)])
    put: dict[tuple[str, int], list[tuple[int, slice]]] = {}  # where in the row, which of its numbers
    for place, node in enumerate(nodes, start=end):
        width = {"head": size, "neuron": 1}.get(node.kind)
        columns = slice(node.index * width, (node.index + 1) * width) if width else slice(None)
        put.setdefault((HOLDS[node.kind], node.layer), []).append((place, columns))

    def read(lm: Any) -> Tensor:
        for name, layer, module, side in sites(lm):
            if (name, layer) in put:
                changed = getattr(module, side).clone()
                for place, columns in put[name, layer]:
                    changed[0, place, columns] = values[name][layer, columns]
                setattr(module, side, changed)
        found = metric(lm._module, lm.model.norm.output[0, end - 1 :])
        return found[1:] - found[0]

    return member.traced(row, read).cpu()


def _check_nodes(member: Member, nodes: Sequence[Node]) -> None:
    """Raise UserError for a node that the model does not have."""
    if not nodes:
        raise UserError("no nodes were given: name at least one")
    size = {"head": member.config.num_attention_heads, "neuron": member.config.intermediate_size}
    for node in nodes:
        layers = member.n_layers + (node.kind == "stream")
        if node.kind not in HOLDS or not 0 <= node.layer < layers or not 0 <= node.index < size.get(node.kind, 1):
            raise UserError(f"no node {node}: {member.source} has {member.n_layers} layers, {size['head']} heads each")


def _check_source(member: Member, prompts: list[str], source: Activations) -> None:
    member.check(prompts)
    if source.stream.shape != (len(prompts), member.n_layers + 1, member.config.hidden_size):
        given = len(source.stream)
        raise UserError(f"activations of {given} prompts for {len(prompts)}: give one a prompt, of a like model")


def patch_streams(
    member: Member, prompts: list[str], source: Streams, metric: Metric, *, where: Where = "last"
) -> Float[Tensor, "prompt point"]:
    """What replacing the stream by `source` at one point does to the metric, at the last position, at all earlier
    ones, or at all. Prompts are aligned at their ends, so that a model which reads one mark more at the start keeps it.
    A prompt runs once: what is replaced at a point goes on from there as one row more. Used in notebook 05."""
    check_choice(where, "positions", get_args(Where))
    member.check(prompts)
    check_lengths(prompts=prompts, streams=source)
    pairs = zip(prompts, source, strict=True)
    return torch.stack([_patched_stream(member, member.encode([one]), given, where, metric) for one, given in pairs])


def _patched_stream(member: Member, batch: Any, given: Tensor, where: Where, metric: Metric) -> Float[Tensor, " point"]:
    shared = min(batch["input_ids"].shape[1], len(given))
    span = {"last": slice(-1, None), "earlier": slice(-shared, -1), "all": slice(-shared, None)}[where]
    values = given.to(member.device, member.dtype)

    def read(lm: Any) -> Tensor:
        for name, point, module, side in sites(lm):
            if name == "stream":
                rows = getattr(module, side)
                changed = rows[:1].clone()
                changed[0, span] = values[span, point]
                setattr(module, side, torch.cat([rows, changed]))
        found = metric(lm._module, lm.model.norm.output[:, -1])
        return found[1:] - found[0]

    return member.traced(batch, read).cpu()


def _owners(
    member: Member,
    layers: Sequence[int],
    part: Part = "all",
    embedding: bool = False,
    head: bool = False,
    norm: bool = False,
) -> list[tuple[torch.nn.Module, str]]:
    """(module, name) of each chosen parameter."""
    check_choice(part, "part", get_args(Part))
    member.check_layers(layers)
    model, names = member.model, {"all": [""], "attention": ["self_attn"], "mlp": ["mlp"]}
    within = names.get(part, ["input_layernorm", "post_attention_layernorm"])
    chosen = [model.model.layers[layer].get_submodule(name) for layer in dict.fromkeys(layers) for name in within]
    chosen += [model.get_input_embeddings()] * embedding + [model.lm_head] * head + [model.model.norm] * norm
    return [(module, name) for root in chosen for module in root.modules() for name in module._parameters]


@contextlib.contextmanager
def swapped(
    pair: Pair, role: Role, layers: Sequence[int] = (), *, amount: float = 1.0, noise: int | None = None, **more: Any
) -> Iterator[Member]:
    """One model of the pair with some weights of the other, inside the block, and with its own after it: of `layers`
    (or one `part` of each), and with True the `embedding`, the `head` and the final `norm`. `amount` interpolates
    between own (0) and the other's (1). `noise` is a seed: instead of the other's weights, own plus a random change of
    the same singular values, matrix by matrix (the control).

    Parameters are exchanged as objects, so a tied head and an embedding can be swapped apart. Used in notebook 05."""
    check_choice(role, "role", get_args(Role))
    check_finite(amount, "amount")
    target, other = pair.members if role == "base" else pair.members[::-1]
    own, theirs = (_owners(member, layers, **more) for member in (target, other))
    generator = None if noise is None else torch.Generator().manual_seed(noise)
    with restored(own):
        with plain_torch():
            for (module, name), (source, _) in zip(own, theirs, strict=True):
                if (before := module._parameters[name]) is not None:
                    value = _mixed(before, source._parameters[name], amount, generator)
                    module._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
        yield target


def _mixed(own: Tensor, other: Tensor, amount: float, generator: torch.Generator | None) -> Tensor:
    if own.shape != other.shape:
        raise UserError(f"weights of {tuple(own.shape)} and {tuple(other.shape)} cannot be swapped")
    other = other.to(own.device, own.dtype)
    if generator is None:
        return other.detach() if amount == 1 else torch.lerp(own, other, float(amount))
    change = _like_spectrum(other.float() - own.float(), generator)
    return own + float(amount) * change.to(own.dtype)


def _like_spectrum(change: Tensor, generator: torch.Generator) -> Tensor:
    """Random weights of the same singular values: as large in every norm, in directions of chance. A vector keeps its
    length alone."""
    if change.dim() < 2:
        drawn = torch.randn(change.shape, generator=generator).to(change)
        return drawn * (change.norm() / drawn.norm())
    values = torch.svd_lowrank(change, q=min(64, *change.shape))[1]  # an adapter's change has few, and this is quick
    if values.square().sum() < 0.9999 * change.square().sum():
        values = torch.linalg.svdvals(change)
    left, right = (
        torch.linalg.qr(torch.randn(n, len(values), generator=generator).to(change))[0] for n in change.shape
    )
    return left * values @ right.T


def single_swaps(
    pair: Pair, role: Role, prompts: list[str], metric: Metric, *, all_but: bool = False, **how: Any
) -> Float[Tensor, "prompt layer"]:
    """The metric of one model with each single layer of the other in turn, or with all layers but that one; `how` as
    in `swapped`. The layers below, which do not change, are run once. Used in notebook 05."""
    member = pair.base if role == "base" else pair.distilled
    layers = range(member.n_layers)

    def run(some: list[int]) -> Tensor:
        batch, found = member.encode(take(prompts, some)), []
        with swapped(pair, role, layers if all_but else (), **how):
            below = member.traced(batch, lambda lm: [layer.input.clone() for layer in lm.model.layers])
        for layer in layers:

            def read(lm: Any, layer: int = layer) -> Tensor:
                for block in list(lm.model.layers)[:layer]:
                    block.skip(below[layer])
                return metric(lm._module, lm.model.norm.output[:, -1])

            with swapped(pair, role, [other for other in layers if (other != layer) == all_but], **how):
                found.append(member.traced(batch, read).cpu())
        return torch.stack(found, dim=1)

    return in_order(in_batches(prompts, 64, run))


guarded(globals())
