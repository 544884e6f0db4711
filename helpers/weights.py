# SPDX-License-Identifier: MIT
"""How weights differ; value vectors, and how to scale them; a token as a sum of others. A *value vector* is a column of
a layer's `down_proj`: what one MLP neuron writes into the stream, times its activation (Geva et al. 2021, 2022)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from nnsight.intervention.iterator import Iterations
from torch import Tensor

from helpers.checks import check_count, check_finite, check_index, guarded
from helpers.pairs import Member, Pair
from helpers.store import UserError

MATRICES = {  # and the norm that each reads from
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "input_layernorm") | {"o_proj": None},
    **dict.fromkeys(("gate_proj", "up_proj"), "post_attention_layernorm") | {"down_proj": None},
}
OUTSIDE: dict[str, Callable[[Member], Tensor]] = {
    "embedding": lambda member: member.model.get_input_embeddings().weight,
    "unembedding": lambda member: member.unembedding,
    "final norm": lambda member: member.model.model.norm.weight,
}
ROWS = 8192  # rows of an embedding compared at once
Neuron = tuple[int, int]  # layer, column of its down_proj


def compare_matrices(pair: Pair, *, folded: bool = False) -> pd.DataFrame:
    """One row a matrix and layer, and one for embedding, head and final norm: `relative` (Frobenius norm of distilled -
    base over that of the base), `cosine` of the two, `effective_rank` of the difference (participation ratio of its
    squared singular values, 0 where nothing changed) and `full_rank`. `folded`: each norm's weight multiplied into the
    matrices that read from it. Notebook 04."""
    rows = []
    for layer, blocks in enumerate(zip(*(member.model.model.layers for member in pair.members), strict=True)):
        for name in (*MATRICES, "input_layernorm", "post_attention_layernorm"):
            rows.append({"layer": layer, "matrix": name, **_compare(*(_matrix(one, name, folded) for one in blocks))})
    outside = [{"layer": -1, "matrix": name, **_compare(*map(see, pair.members))} for name, see in OUTSIDE.items()]
    return pd.DataFrame(rows + outside)


def _matrix(block: Any, name: str, folded: bool = False) -> Tensor:
    weight = next(getattr(part, name) for part in (block, block.self_attn, block.mlp) if hasattr(part, name)).weight
    norm = MATRICES.get(name) if folded else None
    return weight * getattr(block, norm).weight if norm else weight


def _by_rows(one: Tensor, two: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both matrices in float32, some rows at a time."""
    for a, b in zip(one.split(ROWS), two.split(ROWS), strict=True):
        yield a.float(), b.to(a.device).float()


def _compare(one: Tensor, two: Tensor) -> dict[str, float]:
    """The Gram matrix of the difference's smaller side gives its effective rank."""
    one, two = (torch.atleast_2d(matrix) for matrix in (one, two))
    if len(one) < one.shape[1]:
        one, two = one.T, two.T
    squares, gram = torch.zeros(4, dtype=torch.float64), 0.0
    for a, b in _by_rows(one, two):
        change = b - a
        squares += torch.stack([part.sum().double().cpu() for part in (a * a, b * b, change * change, a * b)])
        gram = gram + change.T @ change
    (base, other, change), dot = squares[:3].sqrt().tolist(), float(squares[3])
    return {
        "relative": change / base if base else 0.0,
        "cosine": dot / (base * other) if base and other else 0.0,
        "effective_rank": change**4 / float(gram.pow(2).sum()) if change else 0.0,
        "full_rank": one.shape[1],
    }


def spectrum(pair: Pair, layer: int, name: str) -> Float[np.ndarray, " rank"]:
    """Share of the squared norm of distilled - base by singular direction of one matrix, largest first."""
    one, two = (_matrix(member.model.model.layers[layer], name).float() for member in pair.members)
    squared = torch.linalg.svdvals(two.to(one.device) - one).square().cpu().numpy()
    return squared / squared.sum() if squared.sum() else squared


def compare_tokens(pair: Pair, *, head: bool = False) -> pd.DataFrame:
    """One row a token of the vocabulary: relative change and cosine of its embedding, or of its row of the head (the
    same where it is tied). Notebook 04."""
    parts = []
    for a, b in _by_rows(*map(OUTSIDE["unembedding" if head else "embedding"], pair.members)):
        relative = (b - a).norm(dim=1) / a.norm(dim=1).clamp(min=1e-12)
        parts.append(torch.stack([relative, torch.nn.functional.cosine_similarity(a, b, dim=1)], dim=1).cpu())
    return pd.DataFrame(torch.cat(parts).numpy(), columns=["relative", "cosine"])


def writing_direction(member: Member, token_ids: Sequence[int], *, folded: bool = True) -> Float[Tensor, " d_model"]:
    """Mean unembedding of some tokens, float32; `folded`: minus the mean over the vocabulary and times the final
    norm's weight, which is the direction in the stream that raises these tokens above the average one."""
    member.check_ids(token_ids)
    ids = list(token_ids)

    def read(model: Any) -> Tensor:
        weight = model.lm_head.weight.detach()
        rows = weight[ids].float().mean(0)
        if folded:
            rows = (rows - weight.mean(0, dtype=torch.float32)) * model.model.norm.weight.detach().float().to(rows)
        return rows

    return member.at_weights(read).to(member.device)


def value_vector_cosines(
    member: Member, directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "direction layer neuron"]:
    """Cosine of every value vector with each direction, in [-1, 1], float32 on the CPU; one layer at a time."""
    member.check_width(directions, "directions")
    unit = torch.nn.functional.normalize(directions.float(), dim=-1)

    def read(model: Any) -> Tensor:
        each = (layer.mlp.down_proj.weight.float() for layer in model.model.layers)
        return torch.stack([(unit.to(w.device) @ torch.nn.functional.normalize(w, dim=0)).cpu() for w in each], dim=1)

    return member.at_weights(read)


def closest(cosines: Float[Tensor, "layer neuron"], k: int) -> list[Neuron]:
    """The k neurons of largest absolute cosine: activations are signed, so both signs count."""
    check_count(k, "neurons", cosines.numel())
    return [divmod(int(at), cosines.shape[1]) for at in cosines.flatten().abs().topk(k).indices]


def matched_neurons(chosen: Sequence[Neuron], sizes: Float[Tensor, "layer neuron"], *, seed: int = 0) -> list[Neuron]:
    """For each chosen neuron a random other one of its layer, among the 20 nearest in activation size."""
    taken, found, rng = set(chosen), [], np.random.default_rng(seed)
    for layer, neuron in chosen:
        near = (sizes[layer] - sizes[layer, neuron]).abs().argsort().tolist()
        free = [(layer, other) for other in near if (layer, other) not in taken][:20]
        if not free:
            raise UserError(f"layer {layer} has no neuron left that was not chosen: choose fewer")
        found.append(free[int(rng.integers(len(free)))])
        taken.add(found[-1])
    return found


def edited_model(member: Member, edit: Callable[[Any], None]) -> Any:
    """An nnsight model for `Change(lm=...)` and `last_hidden(lm=...)` on which `edit(nnsight model)` is done at every
    forward pass, those of generated steps included. The member itself stays as it was."""
    with member.lm.edit() as (_tracer, lm):
        for _ in Iterations()[:]:  # all steps; the tracer's own `all` could not be sent to a server
            edit(lm)
    return lm


@dataclass(frozen=True)
class NeuronEdit:
    """Activation -> `factor` * activation + `added` (one number, or one a neuron), for some neurons."""

    neurons: Sequence[Neuron]
    factor: float = 1.0
    added: float | Sequence[float] = 0.0


def with_neurons(member: Member, *edits: NeuronEdit) -> Any:
    """An `edited_model` with the chosen activations changed. Raises UserError for a neuron that is not there."""
    changes: dict[int, list[tuple[list[int], float, Tensor]]] = {}  # by layer: columns, factor, addends
    for one in edits:
        added = np.broadcast_to(one.added, len(one.neurons))
        check_finite(one.factor + added.sum(), "the factor or an addend of neurons")
        check_index((neuron for _, neuron in one.neurons), "neuron", member.config.intermediate_size)
        for layer in {layer for layer, _ in one.neurons}:
            here = [place for place, (at, _) in enumerate(one.neurons) if at == layer]
            columns, amounts = [one.neurons[place][1] for place in here], torch.tensor(added[here])
            changes.setdefault(layer, []).append((columns, one.factor, amounts))
    member.check_layers(changes)

    def edit(lm: Any) -> None:
        for layer in sorted(changes):
            read = lm.model.layers[layer].mlp.down_proj.input
            for columns, factor, amounts in changes[layer]:
                read[..., columns] = read[..., columns] * factor + amounts.to(read)

    return edited_model(member, edit)


@contextlib.contextmanager
def restored(places: Sequence[tuple[torch.nn.Module, str]]) -> Iterator[None]:
    """The same parameters in these places (module, name) after the block as before it, also after an exception."""
    before = [(module, name, module._parameters[name]) for module, name in places]
    try:
        yield
    finally:
        for module, name, parameter in before:
            module._parameters[name] = parameter


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
    every, tokens, picked, shares = _unit_unembeddings(member), torch.tensor([*token_ids]), [], []
    own = left = every[tokens].double()[..., None]
    barred = (every[tokens] @ every.T).abs() >= (below if below < 1 else torch.inf)  # equal rows may be at 1.0000001
    nearest = tokens
    for _ in range(k):
        barred.scatter_(1, nearest[:, None], True)
        nearest = (left[..., 0].float() @ every.T).abs().masked_fill(barred, -1).argmax(1)
        picked.append(every[nearest].double())
        chosen = torch.stack(picked, dim=2)
        left = own - chosen @ torch.linalg.lstsq(chosen, own, rcond=1e-5, driver="gelsd").solution
        shares.append(1 - left.square().sum((1, 2)))
    return torch.stack(shares, dim=1).float().numpy()


def least_squares_shares(
    member: Member, token_ids: Sequence[int], others: Sequence[int] | None = None
) -> Float[np.ndarray, " token"]:
    """How much of each token's unembedding (mean-centred) some others explain together, by least squares; `None`:
    all others, which span the whole space wherever the vocabulary is larger than d_model."""
    member.check_ids([*token_ids, *(others or ())])
    every, shares = _unit_unembeddings(member), []
    together = every if others is None else every[list(others)]
    gram = (together.T @ together).double()
    for token in token_ids:
        own = every[token].double()
        without = gram - torch.outer(own, own) * (others is None or token in others)
        shares.append(float(own @ torch.linalg.pinv(without, rtol=1e-6, hermitian=True) @ without @ own))
    return np.array(shares)


guarded(globals())
