# SPDX-License-Identifier: MIT
"""What is kept for speed alone, and off with R1_FAST=0: caches with room for the tokens to come; on a GPU a decoding
step whose kernels start as one; on a CPU linear layers that multiply through oneDNN, up to twice as fast."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad as padded
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

ROOM = 32  # tokens for which a cache makes room at once
LOOK = 16  # steps between two looks for finished rows, each of which waits for the GPU
SHARED = "shared_keys"  # the attention's name in transformers
FAMILIES = ("llama", "qwen2")  # whose attention `_shared_keys` knows
ROPES = ("default", "linear", "llama3", "yarn")  # whose positions do not depend on how long the text has become
LARGEST = 1_000_000_000  # parameters of a model whose weights may lie in memory twice


def is_on() -> bool:
    """Whether the fast ways are taken."""
    return os.environ.get("R1_FAST") != "0"


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for more tokens; without it each token would copy all before it."""

    room = wanted = 0  # tokens that fit, and tokens to make room for at once
    place: Tensor | None = None  # where the next token goes while all shapes stay as they are

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Put new keys and values behind those that are there."""
        given = key_states, value_states
        if self.place is not None:
            return tuple(store.index_copy_(2, self.place, new) for store, new in zip(self.stores, given, strict=True))
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self.room:
            self.room = max(end + ROOM, self.wanted)
            self.stores = [padded(whole, (0, 0, 0, self.room - end)) for whole in super().update(*given)]
        else:
            for store, new in zip(self.stores, given, strict=True):
                store[:, :, start:end] = new
        self.cut(end)
        return self.keys, self.values

    def cut(self, end: int) -> None:
        """Hold the first `end` tokens of the stores."""
        self.keys, self.values = (store[:, :, :end] for store in self.stores)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, which are copied and have no room yet."""
        super().batch_select_indices(indices)
        self.room, self.stores = 0, []


def roomy_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this configuration, with room in every layer that reads all tokens."""
    cache = DynamicCache(config=config)
    if is_on():
        cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def with_cache(model: Any, cache: DynamicCache | None) -> dict[str, Any]:
    """What a forward pass or `generate` takes to read and fill a cache, whose name transformers 5.24 changed."""
    known = inspect.signature(type(model).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache, "use_cache": cache is not None}


def can_decode(model: Any, cache: DynamicCache) -> bool:
    """Whether `decode` knows how every layer reads all tokens, and the whole model lies on the GPU in use."""
    here = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
    rope = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    known = model.config.model_type in FAMILIES and rope in ROPES
    fits = all(type(layer) is RoomyLayer for layer in cache.layers)
    return known and fits and all(weight.device == here for weight in model.parameters())


def decode(
    model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache, *, max_new_tokens: int, stops: list[int], pad: int,
    processors: LogitsProcessorList,
) -> Tensor:  # fmt: skip
    """Greedy tokens behind left-padded `ids`, [row, position], as `generate` gives them, until half the rows have
    stopped or all are full; the rest of a stopped row is `pad`. The cache then holds all but the last token."""
    rows, start = ids.shape
    end, held, how = start + max_new_tokens, cache.get_seq_length(), {**with_cache(model, cache), "logits_to_keep": 1}
    for layer in cache.layers:
        layer.wanted = -(-max(end, start + ROOM) // 16) * 16  # kernels want whole multiples
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(ids[:, held:], attention_mask=mask, position_ids=positions[:, held:], **how).logits[:, -1]
    tokens = padded(ids, (0, max_new_tokens), value=pad)
    stopped, ends = ids.new_zeros(rows, dtype=torch.bool), torch.tensor(stops, device=ids.device)
    with _fixed_shapes(model, cache, mask, positions[:, -1:] + 1, how) as step:
        for place in range(start, end):
            scores = logits.to(torch.float32, copy=True)  # the next step overwrites them
            chosen = processors(tokens[:, :place].contiguous(), scores).argmax(-1).masked_fill(stopped, pad)
            tokens[:, place] = chosen
            stopped |= torch.isin(chosen, ends)
            looks = (place + 1 - start) % LOOK == 0
            if place + 1 == end or (looks and 2 * int(stopped.sum()) >= rows):
                break
            logits = step(chosen)
    for layer in cache.layers:
        layer.cut(place)
    return tokens[:, : place + 1]


@contextlib.contextmanager
def _fixed_shapes(
    model: Any, cache: DynamicCache, mask: Tensor, positions: Tensor, how: dict[str, Any]
) -> Iterator[Callable[[Tensor], Tensor]]:
    """A step that feeds one token a row, [row], and gives the logits of the next, [row, vocab], which a further step
    overwrites. Layers write at a place that is counted on the device, into stores that do not grow, so that on a GPU
    the second step is captured as a CUDA graph, which the rest replay: its kernels start as one."""
    dtype, before, graph, logits = model.lm_head.weight.dtype, model.config._attn_implementation, None, None
    place, fed = torch.tensor([cache.get_seq_length()], device=mask.device), torch.zeros_like(positions)
    attended = mask.new_full((len(mask), 1, 1, cache.layers[0].room), torch.finfo(dtype).min, dtype=dtype)
    attended[:, 0, 0, : mask.shape[1]].masked_fill_(mask.bool(), 0)

    def run() -> Tensor:
        attended.index_fill_(3, place, 0)
        out = model(fed, attention_mask=attended, position_ids=positions, **how)
        place.add_(1)
        positions.add_(1)
        return out.logits[:, -1]

    def step(tokens: Tensor) -> Tensor:
        nonlocal graph, logits
        fed.copy_(tokens[:, None])
        if logits is None or not fed.is_cuda:
            logits = run()
            return logits
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = run()
        graph.replay()
        return logits

    try:
        model.set_attn_implementation(SHARED)
        for layer in cache.layers:
            layer.place = place
        yield step
    finally:
        model.set_attn_implementation(before)
        for layer in cache.layers:
            layer.place = None


def _shared_keys(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention of one token a row: heads that share keys and values ask together, as several queries, where some
    versions of transformers first copy keys and values for each."""
    heads = query.reshape(len(query), key.shape[1], -1, query.shape[-1])
    read = scaled_dot_product_attention(heads, key, value, attention_mask, scale=scaling)
    return read.reshape(query.shape).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED, _shared_keys)


class PackedLinear(torch.nn.Linear):
    """`torch.nn.Linear` that keeps a copy of its weight in oneDNN's order. Gradients, other dtypes and single rows,
    which wait for memory whoever multiplies, go the usual way."""

    def forward(self, input: Tensor) -> Tensor:
        """As in `torch.nn.Linear`, to rounding."""
        weight, rows = self.weight, input.shape[:-1].numel()
        slopes = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        if slopes or rows < 2 or {input.dtype, weight.dtype} != {torch.float32} or weight.device.type != "cpu":
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, _packed(weight), self.bias, "none", [], "")


def _packed(weight: Tensor) -> Tensor:
    """The weight in oneDNN's order, made again after a change in place; another weight brings its own."""
    made_from = weight.data_ptr(), weight._version
    if getattr(weight, "made_from", None) != made_from:
        weight.packed, weight.made_from = torch.ops.mkldnn._reorder_linear_weight(weight.detach()), made_from
    return weight.packed


def pack_linears(model: torch.nn.Module) -> None:
    """Let the linear layers of a small model multiply through oneDNN, in place, where torch has its own operators."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if is_on() and there and sum(weight.numel() for weight in model.parameters()) <= LARGEST:
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.__class__ = PackedLinear
