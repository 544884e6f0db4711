# SPDX-License-Identifier: MIT
"""Linear layers that multiply through oneDNN on a CPU: the same sums in float32, up to twice as fast as the library
that torch takes by itself, which has only general kernels for some processors."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LEAST_ROWS = 2  # a single one waits for memory, whoever multiplies
LARGEST = 1_000_000_000  # parameters of a model whose weights may lie in memory twice


class PackedLinear(torch.nn.Linear):
    """`torch.nn.Linear` that keeps a copy of its weight in oneDNN's order, beside the weight and only as long as that
    is the same. Gradients, other dtypes and single rows go the usual way."""

    def forward(self, input: Tensor) -> Tensor:
        """As in `torch.nn.Linear`, to rounding."""
        weight, rows = self.weight, input.shape[:-1].numel()
        slopes = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        if slopes or rows < LEAST_ROWS or {input.dtype, weight.dtype} != {torch.float32} or weight.device.type != "cpu":
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, _packed(weight), self.bias, "none", [], "")


def _packed(weight: Tensor) -> Tensor:
    """The weight in oneDNN's order, made again after a change in place; another weight brings its own."""
    made_from = weight.data_ptr(), weight._version
    if getattr(weight, "made_from", None) != made_from:
        weight.packed, weight.made_from = torch.ops.mkldnn._reorder_linear_weight(weight.detach()), made_from
    return weight.packed


def pack_linears(model: torch.nn.Module) -> None:
    """Let the linear layers of a small model multiply through oneDNN where this torch can; in place."""
    if onednn_works() and sum(weight.numel() for weight in model.parameters()) <= LARGEST:
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
