# SPDX-License-Identifier: MIT
"""Packed linear layers: torch's own product and gradients, and never a weight that is no longer there."""

from __future__ import annotations

import pytest
import torch

from helpers import linear

ROWS = {"one": (1, 24), "few": (2, 3, 24), "many": (4, 16, 24), "none": (0, 24)}


def layers(bias: bool = True) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """A linear layer and a packed one of the same parameters."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(24, 40, bias=bias).requires_grad_(False)
    packed = torch.nn.Sequential(torch.nn.Linear(24, 40, bias=bias).requires_grad_(False))
    packed.load_state_dict({f"0.{name}": value for name, value in plain.state_dict().items()})
    linear.pack_linears(packed)
    return plain, packed[0]


def test_this_torch_can_pack_and_does():
    assert linear.onednn_works() == torch.backends.mkldnn.is_available()
    assert isinstance(layers()[1], linear.PackedLinear) == linear.onednn_works()


@pytest.mark.parametrize("shape", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_torchs_own(shape, bias, dtype):
    plain, packed = (layer.to(dtype) for layer in layers(bias))
    given = torch.randn(shape).to(dtype)
    assert packed(given).shape == (*shape[:-1], 40)
    assert torch.allclose(packed(given), plain(given), atol=1e-5)


def test_a_view_that_is_not_contiguous_is_read_as_it_stands():
    plain, packed = layers()
    given = torch.randn(9, 5, 24).transpose(0, 1)
    assert torch.allclose(packed(given), plain(given), atol=1e-5)


def in_place(layer, value):
    layer.weight.copy_(value)


def through_data(layer, value):
    layer.weight.data = value


def as_object(layer, value):
    layer._parameters["weight"] = torch.nn.Parameter(value, requires_grad=False)


@pytest.mark.parametrize("change", [in_place, through_data, as_object])
def test_a_changed_weight_is_seen_and_the_old_one_comes_back(change):
    packed, given, new = layers()[1], torch.randn(16, 24), torch.randn(40, 24)
    before, weight = packed(given), packed.weight
    old = weight.detach().clone()
    change(packed, new)
    assert torch.allclose(packed(given), torch.nn.functional.linear(given, new, packed.bias), atol=1e-5)
    packed._parameters["weight"] = weight
    change(packed, old)
    assert torch.equal(packed(given), before)


def test_gradients_are_torchs_own():
    plain, packed = layers()
    given = torch.randn(16, 24, requires_grad=True)
    slopes = [torch.autograd.grad(layer(given).sin().sum(), given)[0] for layer in (plain, packed)]
    assert torch.equal(*slopes)


def test_a_model_too_large_for_two_copies_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(linear, "LARGEST", 10)
    assert type(layers()[1]) is torch.nn.Linear


def test_a_torch_without_the_operators_goes_the_usual_way(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not linear.onednn_works.__wrapped__()
