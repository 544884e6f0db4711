# SPDX-License-Identifier: MIT
"""What fine-tuning did to the weights; value vectors, and how to scale them; a token as a sum of others.

A *value vector* is a column of a layer's `down_proj`: what one MLP neuron writes into the stream, times its
activation (Geva et al. 2021, 2022). Matrices are compared one at a time, so that two large models need little more
than their own memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.checks import check_count, check_finite, guarded, plain_torch
from helpers.members import every_step
from helpers.pairs import Member, Pair
from helpers.store import UserError

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
READS_FROM = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "input_layernorm") | dict.fromkeys(
    ("gate_proj", "up_proj"), "post_attention_layernorm"
)
ROWS = 8192  # rows of an embedding compared at once
TARGETS = 64  # tokens explained at once: each holds a number for every word of the vocabulary
Neuron = tuple[int, int]  # layer, column of its down_proj


def compare_matrices(pair: Pair, *, folded: bool = False) -> pd.DataFrame:
    """One row a matrix and layer: `relative` (Frobenius norm of distilled - base over that of the base), `cosine` of
    the two, `effective_rank` of the difference (participation ratio of its squared singular values, 0 where nothing
    changed) and `full_rank`. `folded`: each norm's weight multiplied into the matrices that read from it.

    Embedding and head are rows of their own: a tied head is compared through the embedding's tensor. Notebook 04.
    """
    rows = []
    for layer, (one, two) in enumerate(zip(*(member.model.model.layers for member in pair.members), strict=True)):
        for name in MATRICES:
            pairs = [_matrix(block, name, folded=folded) for block in (one, two)]
            rows.append({"layer": layer, "matrix": name, **_compare(*pairs)})
        for name in ("input_layernorm", "post_attention_layernorm"):
            rows.append(
                {"layer": layer, "matrix": name, **_compare(getattr(one, name).weight, getattr(two, name).weight)}
            )
    for name, see in (("embedding", _embedding), ("unembedding", _head), ("final norm", _final_norm)):
        rows.append({"layer": -1, "matrix": name, **_compare(*(see(member) for member in pair.members))})
    return pd.DataFrame(rows)


def _embedding(member: Member) -> Tensor:
    return member.model.get_input_embeddings().weight


def _head(member: Member) -> Tensor:
    return member.unembedding


def _final_norm(member: Member) -> Tensor:
    return member.model.model.norm.weight


def _matrix(block: torch.nn.Module, name: str, *, folded: bool) -> Tensor:
    inner = block.self_attn if hasattr(block.self_attn, name) else block.mlp
    weight = getattr(inner, name).weight
    return weight * getattr(block, READS_FROM[name]).weight if folded and name in READS_FROM else weight


def _compare(one: Tensor, two: Tensor) -> dict[str, float]:
    """Sums over row blocks in float32; the Gram matrix of the difference's smaller side gives its effective rank."""
    if one.shape != two.shape:
        raise UserError(f"a matrix of {tuple(one.shape)} against {tuple(two.shape)}: the two models differ in shape")
    one, two = (torch.atleast_2d(matrix) for matrix in (one, two))
    squares, dot, gram = torch.zeros(3, dtype=torch.float64), 0.0, 0.0
    for a, b in zip(one.split(ROWS), two.split(ROWS), strict=True):
        a, b = a.float(), b.to(a.device).float()
        change = b - a
        squares += torch.stack([part.pow(2).sum().double().cpu() for part in (a, b, change)])
        dot += float((a * b).sum())
        if len(one) > ROWS or len(one) > one.shape[1]:
            gram = gram + change.T @ change
        elif len(one) > 1:
            gram = change @ change.T
    base, other, change = squares.sqrt().tolist()
    spread = float(torch.as_tensor(gram).pow(2).sum())
    return {
        "relative": change / base if base else 0.0,
        "cosine": dot / (base * other) if base and other else 0.0,
        "effective_rank": change**4 / spread if spread else float(change > 0),
        "full_rank": min(one.shape),
    }


def spectrum(pair: Pair, layer: int, name: str) -> Float[np.ndarray, " rank"]:
    """Share of the squared norm of distilled - base by singular direction of one matrix, largest first."""
    if not 0 <= layer < pair.base.n_layers or name not in MATRICES:
        raise UserError(
            f"no matrix {name!r} in layer {layer}: layers 0 to {pair.base.n_layers - 1}, {', '.join(MATRICES)}"
        )
    one, two = (_matrix(member.model.model.layers[layer], name, folded=False).float() for member in pair.members)
    change = two.to(one.device) - one
    gram = change @ change.T if change.shape[0] <= change.shape[1] else change.T @ change
    squared = torch.linalg.eigvalsh(gram.double()).flip(0).clamp(min=0).cpu().numpy()
    return squared / squared.sum() if squared.sum() else squared


def compare_tokens(pair: Pair, *, head: bool = False) -> pd.DataFrame:
    """One row a token of the vocabulary: relative change and cosine of its embedding, or of its row of the head.

    Read from the tensors themselves, so a tied model's head is its embedding. Notebook 04.
    """
    one, two = ((_head if head else _embedding)(member) for member in pair.members)
    relative, cosine = [], []
    for a, b in zip(one.split(ROWS), two.split(ROWS), strict=True):
        a, b = a.float(), b.to(a.device).float()
        relative.append(((b - a).norm(dim=1) / a.norm(dim=1).clamp(min=1e-12)).cpu())
        cosine.append(torch.nn.functional.cosine_similarity(a, b, dim=1).cpu())
    return pd.DataFrame({"relative": torch.cat(relative).numpy(), "cosine": torch.cat(cosine).numpy()})


def writing_direction(member: Member, token_ids: Sequence[int], *, folded: bool = True) -> Float[Tensor, " d_model"]:
    """Mean unembedding of some tokens, float32; `folded`: minus the mean over the vocabulary and times the final
    norm's weight, which is the direction in the stream that raises these tokens above the average one."""
    member.check_ids(token_ids)
    return member.at_weights(_writes, list(token_ids), folded).to(member.device)


def _writes(model: Any, token_ids: list[int], folded: bool) -> Tensor:
    weight = model.lm_head.weight.detach()
    rows = weight[token_ids].float().mean(0)
    if not folded:
        return rows
    return (rows - weight.mean(0, dtype=torch.float32)) * model.model.norm.weight.detach().float().to(rows)


def value_vector_cosines(
    member: Member, directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "direction layer neuron"]:
    """Cosine of every value vector with each direction, in [-1, 1], float32 on the CPU; one layer at a time."""
    member.check_width(directions, "directions")
    return member.at_weights(_cosines, torch.nn.functional.normalize(directions.float(), dim=-1))


def _cosines(model: Any, unit: Tensor) -> Tensor:
    found = []
    for layer in model.model.layers:
        columns = layer.mlp.down_proj.weight.float()
        found.append((unit.to(columns.device) @ columns / columns.norm(dim=0).clamp(min=1e-12)).cpu())
    return torch.stack(found, dim=1)


def closest(cosines: Float[Tensor, "layer neuron"], k: int) -> list[Neuron]:
    """The k neurons of largest absolute cosine: activations are signed, so both signs count."""
    check_count(k, "neurons", cosines.numel())
    return [divmod(int(place), cosines.shape[1]) for place in cosines.flatten().abs().topk(k).indices]


def alike(
    chosen: Sequence[Neuron], sizes: Float[Tensor, "layer neuron"], *, seed: int = 0, among: int = 20
) -> list[Neuron]:
    """For each chosen neuron a random other one of its layer, among the `among` nearest in activation size."""
    check_count(among, "like neurons")
    _check_neurons(chosen, *sizes.shape)
    taken, found, rng = set(chosen), [], np.random.default_rng(seed)
    for layer, neuron in chosen:
        near = (sizes[layer] - sizes[layer, neuron]).abs().argsort().tolist()
        free = [(layer, other) for other in near if (layer, other) not in taken][:among]
        if not free:
            raise UserError(f"layer {layer} has no neuron left that was not chosen: choose fewer")
        found.append(free[int(rng.integers(len(free)))])
        taken.add(found[-1])
    return found


def _check_neurons(neurons: Sequence[Neuron], n_layers: int, n_neurons: int) -> None:
    """Raise UserError for a neuron that is not there."""
    for layer, neuron in neurons:
        if not 0 <= layer < n_layers or not 0 <= neuron < n_neurons:
            raise UserError(
                f"no neuron {neuron} in layer {layer}: there are layers 0 to {n_layers - 1}, "
                f"neurons 0 to {n_neurons - 1}"
            )


@dataclass(frozen=True)
class NeuronEdit:
    """Activation -> `factor` * activation + `added`, for some neurons."""

    neurons: Sequence[Neuron]
    factor: float = 1.0
    added: float | Sequence[float] = 0.0


def with_neurons(member: Member, *edits: NeuronEdit) -> Any:
    """An edited nnsight model for `complete(lm=...)` and `last_hidden(lm=...)`: the chosen activations changed at
    every position and every generated step. The member itself stays as it was.

    Raises UserError for a neuron that is not there or a number that is not finite.
    """
    for edit in edits:
        _check_neurons(edit.neurons, member.n_layers, member.config.intermediate_size)
    changes = {layer: _layer_change(member, layer, edits) for layer in sorted({n[0] for e in edits for n in e.neurons})}
    with member.lm.edit() as (_tracer, edited):
        for _ in every_step():
            for layer, (index, factor, added) in changes.items():
                read = edited.model.layers[layer].mlp.down_proj.input
                place = index.to(read.device)
                read[..., place] = read[..., place] * factor.to(read) + added.to(read)
    return edited


@contextlib.contextmanager
def edited_weights(
    member: Member, *edits: NeuronEdit, vectors: Mapping[int, Float[Tensor, " d_model"]] | None = None
) -> Iterator[Member]:
    """What `with_neurons` does, and vectors added to layers' outputs, at every position, as edits of the weights inside
    the block: a factor scales a column of `down_proj`, whatever is added is its bias. It costs a forward pass nothing
    and works where hooks do not (compiled models). The same tensors as before after it."""
    vectors = vectors or {}
    member.check_layers(vectors)
    for edit in edits:
        _check_neurons(edit.neurons, member.n_layers, member.config.intermediate_size)
    for vector in vectors.values():
        member.check_width(vector, "vectors")
    layers = sorted({layer for edit in edits for layer, _ in edit.neurons} | set(vectors))
    matrices = {layer: member.model.model.layers[layer].mlp.down_proj for layer in layers}
    with restored([(matrix, name) for matrix in matrices.values() for name in ("weight", "bias")]):
        with plain_torch():
            for layer, matrix in matrices.items():
                index, factor, added = (part.to(matrix.weight.device) for part in _layer_change(member, layer, edits))
                weight, columns = matrix.weight.clone(), matrix.weight[:, index]
                weight[:, index] = columns * factor.to(weight)
                bias = columns.float() @ added + vectors.get(layer, torch.zeros(len(weight))).to(weight.device).float()
                bias = bias if matrix.bias is None else bias + matrix.bias.float()
                for name, value in (("weight", weight), ("bias", bias.to(weight))):
                    matrix._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
        yield member


@contextlib.contextmanager
def restored(places: Sequence[tuple[torch.nn.Module, str]]) -> Iterator[None]:
    """The same parameters in these places (module, name) after the block as before it, also after an exception."""
    kept = [(module, name, module._parameters[name]) for module, name in places]
    try:
        yield
    finally:
        for module, name, before in kept:
            module._parameters[name] = before


def _layer_change(member: Member, layer: int, edits: Sequence[NeuronEdit]) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, factors and addends of one layer; a neuron named twice is scaled twice."""
    factor, added = torch.ones(width := member.config.intermediate_size), torch.zeros(width)
    for edit in edits:
        amounts = [edit.added] * len(edit.neurons) if isinstance(edit.added, Real) else list(edit.added)
        if not np.isfinite([edit.factor, *amounts]).all() or len(amounts) != len(edit.neurons):
            raise UserError(f"factor {edit.factor} and addends {amounts[:3]}: give finite numbers, one a neuron")
        for (at, neuron), amount in zip(edit.neurons, amounts, strict=True):
            if at == layer:
                factor[neuron] *= edit.factor
                added[neuron] += amount
    index = ((factor != 1) | (added != 0)).nonzero().flatten()
    return tuple(part.to(member.device) for part in (index, factor[index], added[index]))


def _unit_unembeddings(member: Member) -> Float[Tensor, "vocab d_model"]:
    """Mean-centred unembeddings of unit length, float32 on the CPU."""
    every = member.unembedding.float().cpu()
    return torch.nn.functional.normalize(every - every.mean(0), dim=-1)


def sparse_shares(
    member: Member, token_ids: Sequence[int], *, k: int = 32, below: float = 1.0
) -> Float[np.ndarray, "token step"]:
    """How much of each token's unembedding (mean-centred) 1 to k others explain, chosen one by one: share of its
    squared norm, by orthogonal matching pursuit (Pati et al. 1993); a row that adds nothing, as untrained ones that are
    equal, changes nothing. `below` leaves out others of that cosine and more: near copies."""
    member.check_ids(token_ids)
    check_count(k, "other tokens", min(member.unembedding.shape) - 1)
    check_finite(below, "below")
    every = _unit_unembeddings(member)
    return torch.cat([_pursuit(every, some, k, below) for some in torch.tensor(list(token_ids)).split(TARGETS)]).numpy()


def _pursuit(every: Tensor, tokens: Tensor, k: int, below: float) -> Float[Tensor, "token step"]:
    """`sparse_shares` of a block of tokens: the row nearest to what is left, made orthogonal to those before it."""
    rows, left = torch.arange(len(tokens)), every[tokens].double()
    barred = (every[tokens] @ every.T).abs() >= (below if below < 1 else torch.inf)  # equal rows may be at 1.0000001
    barred[rows, tokens] = True
    basis, shares = torch.zeros(len(tokens), k, every.shape[1], dtype=torch.float64), torch.zeros(len(tokens), k)
    for step in range(k):
        nearest = (left.float() @ every.T).abs().masked_fill(barred, -1).argmax(1)
        barred[rows, nearest] = True
        new = every[nearest].double()
        new = new - torch.einsum("tsd,ts->td", basis, torch.einsum("tsd,td->ts", basis, new))
        size = new.norm(dim=1, keepdim=True)
        basis[:, step] = torch.where(size > 1e-5, new / size.clamp(min=1e-5), 0.0)
        left = left - basis[:, step] * (basis[:, step] * left).sum(1, keepdim=True)
        shares[:, step] = 1 - left.pow(2).sum(1)
    return shares


def least_squares_shares(
    member: Member, token_ids: Sequence[int], others: Sequence[int] | None = None
) -> Float[np.ndarray, " token"]:
    """How much of each token's unembedding (mean-centred) some others explain together, by least squares; `None`:
    all others, which span the whole space wherever the vocabulary is larger than d_model."""
    member.check_ids([*token_ids, *(others or ())])
    every, shares = _unit_unembeddings(member), []
    together = every if others is None else every[list(dict.fromkeys(others))]
    gram = (together.T @ together).double()
    for token in token_ids:
        own = every[token].double()
        counted = others is None or token in others
        values, basis = torch.linalg.eigh(gram - torch.outer(own, own) * counted)
        shares.append(float((own @ basis[:, values > 1e-6 * values.max()]).pow(2).sum()))
    return np.array(shares)


guarded(globals())
