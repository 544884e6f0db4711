# SPDX-License-Identifier: MIT
"""What is kept for speed alone, and off with R1_FAST=0: caches with room for the tokens to come; on a GPU a decoding
step whose kernels start as one; on a CPU linear layers that multiply through oneDNN, the same sums in float32, up to
twice as fast as the library that torch takes by itself, which has only general kernels for some processors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
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
    """Whether the fast ways are taken: not where R1_FAST is 0."""
    return os.environ.get("R1_FAST") != "0"


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for more tokens; without it each token would copy all before it."""

    room = wanted = 0  # tokens that fit, and tokens to make room for at once
    place: Tensor | None = None  # where the next token goes while all shapes stay as they are

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Put new keys and values behind those that are there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        given = key_states, value_states
        if self.place is not None:
            return tuple(store.index_copy_(2, self.place, new) for store, new in zip(self.stores, given, strict=True))
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self.room:
            self.room = max(end + ROOM, self.wanted)
            stores = [new.new_zeros(*new.shape[:2], self.room, new.shape[-1]) for new in given]
            for store, old in zip(stores, (self.keys, self.values) if start else (), strict=False):
                store[:, :, :start] = old
            self.stores = stores
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


def can_decode(model: Any, cache: DynamicCache) -> bool:
    """Whether `decode` knows how: a model of a family it knows, all of it on the GPU in use."""
    if not (is_on() and torch.cuda.is_available()):
        return False
    here = torch.device("cuda", torch.cuda.current_device())
    return all(parameter.device == here for parameter in model.parameters()) and is_known(model, cache)


def is_known(model: Any, cache: DynamicCache) -> bool:
    """Whether every layer reads all tokens in a way that `decode` knows."""
    rope = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    roomy = all(type(layer) is RoomyLayer for layer in cache.layers)
    return model.config.model_type in FAMILIES and rope in ROPES and roomy


def decode(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    cache: DynamicCache,
    *,
    cached: dict[str, Any],
    max_new_tokens: int,
    stops: list[int],
    pad: int,
    processors: LogitsProcessorList,
) -> Tensor:
    """Greedy tokens behind left-padded `ids`, [row, position], as `generate` gives them, until half the rows have
    stopped or all are full; the rest of a stopped row is `pad`. `cached` hands the model the cache, which then holds
    all but the last token. Steps of one shape, so that on a GPU they are one CUDA graph: to launch a small model's
    kernels one by one takes far longer than to compute."""
    rows, start = ids.shape
    end, held, how = start + max_new_tokens, cache.get_seq_length(), {**cached, "logits_to_keep": 1}
    for layer in cache.layers:
        layer.wanted = -(-max(end, start + ROOM) // 16) * 16  # kernels want whole multiples
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(ids[:, held:], attention_mask=mask, position_ids=positions[:, held:], **how).logits[:, -1]
    tokens = torch.cat([ids, ids.new_full((rows, max_new_tokens), pad)], dim=1)
    stopped, ends = ids.new_zeros(rows, dtype=torch.bool), torch.tensor(stops, device=ids.device)
    with _fixed_shapes(model, cache):
        step = _Step(model, cache, how, mask, positions[:, -1:])
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
def _fixed_shapes(model: Any, cache: DynamicCache) -> Iterator[None]:
    """Let every layer write at a place that is counted on the device, into stores that do not grow, and heads that
    share keys read them once."""
    place = torch.tensor([cache.get_seq_length()], device=cache.layers[0].keys.device)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(SHARED)
        for layer in cache.layers:
            layer.place = place
        yield
    finally:
        model.set_attn_implementation(before)
        for layer in cache.layers:
            layer.place = None


class _Step:
    """Feed one token a row. The first goes the usual way, the second is captured, the rest replay it."""

    def __init__(self, model: Any, cache: DynamicCache, how: dict[str, Any], mask: Tensor, last: Tensor) -> None:
        self.model, self.how, self.place = model, how, cache.layers[0].place
        dtype, shape = model.lm_head.weight.dtype, (len(mask), 1, 1, cache.layers[0].room)
        self.mask = torch.full(shape, torch.finfo(dtype).min, dtype=dtype, device=mask.device)
        self.mask[:, 0, 0, : mask.shape[1]].masked_fill_(mask.bool(), 0)
        self.tokens, self.positions = torch.zeros_like(last), last + 1
        self.graph = self.logits = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits of the token after `tokens` [row], as [row, vocab]; the next call overwrites them."""
        self.tokens.copy_(tokens[:, None])
        if self.logits is not None and self.graph is None and tokens.is_cuda:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.logits = self._run()
        if self.graph is None:
            self.logits = self._run()
        else:
            self.graph.replay()
        return self.logits

    def _run(self) -> Tensor:
        self.mask.index_fill_(3, self.place, 0)
        out = self.model(self.tokens, attention_mask=self.mask, position_ids=self.positions, **self.how)
        self.place += 1
        self.positions += 1
        return out.logits[:, -1]


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
    """`torch.nn.Linear` that keeps a copy of its weight in oneDNN's order, beside the weight and only as long as that
    is the same. Gradients, other dtypes and single rows go the usual way."""

    def forward(self, input: Tensor) -> Tensor:
        """As in `torch.nn.Linear`, to rounding."""
        weight, rows = self.weight, input.shape[:-1].numel()
        slopes = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        if slopes or rows < 2 or {input.dtype, weight.dtype} != {torch.float32} or weight.device.type != "cpu":
            return super().forward(input)  # a single row waits for memory, whoever multiplies
        return torch.ops.mkldnn._linear_pointwise(input, _packed(weight), self.bias, "none", [], "")


def _packed(weight: Tensor) -> Tensor:
    """The weight in oneDNN's order, made again after a change in place; another weight brings its own."""
    made_from = weight.data_ptr(), weight._version
    if getattr(weight, "made_from", None) != made_from:
        weight.packed, weight.made_from = torch.ops.mkldnn._reorder_linear_weight(weight.detach()), made_from
    return weight.packed


def pack_linears(model: torch.nn.Module) -> None:
    """Let the linear layers of a small model multiply through oneDNN where this torch can; in place."""
    if is_on() and onednn_works() and sum(weight.numel() for weight in model.parameters()) <= LARGEST:
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.__class__ = PackedLinear


@cache
def onednn_works() -> bool:
    """Whether torch's operators for this, which are its own and may go, are there and give the usual product."""
    generator = torch.Generator().manual_seed(0)
    input, weight = (torch.randn(8, 4, generator=generator) for _ in range(2))
    try:
        found = torch.ops.mkldnn._linear_pointwise(input, _packed(weight), None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.allclose(found, torch.nn.functional.linear(input, weight), atol=1e-5)
