# SPDX-License-Identifier: MIT
"""Decoding in fixed shapes writes what `generate` writes: step by step on a CPU, as a CUDA graph where there is one."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from helpers import fast, generation
from helpers.fast import ROOM, RoomyLayer, can_decode, roomy_cache
from helpers.generation import Change, complete
from helpers.pairs import load_member
from helpers.tests.conftest import Does
from helpers.tests.test_generation import PROMPTS

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture(params=["qwen", "biased", pytest.param("cuda", marks=ON_GPU)])
def member(request, qwen_folders):
    if request.param == "cuda":
        return load_member("distilled", str(qwen_folders[1]), device="cuda:0", dtype=torch.float32)
    return request.getfixturevalue(request.param).distilled


@pytest.fixture
def fixed(monkeypatch):
    """Count how often `decode` is called, on a CPU too; behind a stop it must write padding."""
    calls, decode = [], fast.decode

    def counted(*given, **how):
        calls.append(how["max_new_tokens"])
        tokens = decode(*given, **how)
        for row in tokens[:, given[1].shape[1] :].tolist():
            ends = [place for place, token in enumerate(row) if token in how["stops"]]
            assert not ends or set(row[ends[0] + 1 :]) <= {how["pad"]}, "a stopped row writes on"
        return tokens

    monkeypatch.setattr(generation, "can_decode", lambda model, cache: True)
    monkeypatch.setattr(generation, "decode", counted)
    return calls


def usual(member, prompts, monkeypatch, **how):
    with monkeypatch.context() as context:
        context.setattr(generation, "can_decode", lambda model, cache: False)
        return complete(member, prompts, **how)


@pytest.mark.parametrize("n_new", [1, 2, 40])
def test_fixed_shapes_write_what_generate_writes(member, fixed, monkeypatch, n_new):
    expected = usual(member, PROMPTS, monkeypatch, max_new_tokens=n_new)
    assert complete(member, PROMPTS, max_new_tokens=n_new) == expected
    assert len({tuple(done.tokens) for done in expected}) > 1 and fixed


def test_rows_that_stop_leave_and_the_rest_go_on(member, fixed, monkeypatch):
    free = usual(member, PROMPTS, monkeypatch, max_new_tokens=60)
    often = max({t for done in free for t in done.tokens}, key=lambda t: sum(t in done.tokens[5:40] for done in free))
    monkeypatch.setattr(member, "groups", replace(member.groups, stop=(*member.groups.stop, often)))
    expected = usual(member, PROMPTS, monkeypatch, max_new_tokens=60)
    assert complete(member, PROMPTS, max_new_tokens=60) == expected
    assert len({done.length for done in expected}) > 1 and len(fixed) > 1, "all stop at once: choose another token"


def test_processors_see_the_tokens_so_far_and_samples_are_the_same(member, fixed, monkeypatch):
    how, seen = {"max_new_tokens": 9, "temperature": 1.0, "top_p": 0.9, "seed": 5}, []

    def watched(input_ids, scores):
        seen.append(input_ids.tolist())
        return scores + 2.0 * (torch.arange(scores.shape[1], device=scores.device) == 7)

    how["change"] = Change(processors=(Does(watched),))
    assert complete(member, PROMPTS[:2], **how) == usual(member, PROMPTS[:2], monkeypatch, **how)
    assert seen[:9] == seen[9:] and len(seen) == 18


def test_a_broken_step_leaves_the_model_usable(member, fixed, monkeypatch):
    def broken(input_ids, scores):
        return scores if input_ids.shape[1] <= 20 else {}["broken"]

    with pytest.raises(KeyError):
        complete(member, PROMPTS, change=Change(processors=(Does(broken),)), max_new_tokens=30)
    assert member.config._attn_implementation == "sdpa"
    assert complete(member, PROMPTS, max_new_tokens=8) == usual(member, PROMPTS, monkeypatch, max_new_tokens=8)


def test_a_rope_that_grows_other_layers_or_rules_of_its_own_go_through_generate(qwen, monkeypatch):
    config, other = qwen.distilled.config, DynamicCache()
    model, cache, other.layers = SimpleNamespace(config=config, parameters=list), roomy_cache(config), [DynamicLayer()]
    assert can_decode(model, cache) and not can_decode(model, other)
    assert not can_decode(qwen.distilled.model, cache), "a CPU has no graphs"
    for name, value in {"rope_parameters": {"rope_type": "dynamic"}, "model_type": "gemma2"}.items():
        with monkeypatch.context() as context:
            context.setattr(config, name, value)
            assert not can_decode(model, cache), name


@pytest.mark.parametrize("member", [pytest.param("cuda", marks=ON_GPU)], indirect=True)
def test_on_a_gpu_steps_are_captured_and_replayed(member, monkeypatch):
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(graph) or replay(graph))
    assert can_decode(member.model, roomy_cache(member.config))
    complete(member, PROMPTS, max_new_tokens=10)
    assert len(replays) == 8 and len(set(map(id, replays))) == 1, "two tokens come the usual way"


def test_a_cache_with_room_holds_what_one_without_holds():
    roomy, plain = RoomyLayer(), DynamicLayer()
    for step, n_new in enumerate([5, 1, 1, ROOM + 3, 1, 2]):
        given = [torch.randn(2 if step > 3 else 3, 2, n_new, size) for size in (4, 6)]
        for one, other in zip(roomy.update(*given), plain.update(*given), strict=True):
            assert torch.equal(one, other), f"after step {step}"
        if step == 3:
            for layer in (roomy, plain):
                layer.batch_select_indices(torch.tensor([2, 0]))
    assert roomy.get_seq_length() == plain.get_seq_length() == 13 + ROOM


@pytest.mark.parametrize("switch", ["0", "1"])
def test_one_switch_turns_all_of_it_off(switch, qwen, qwen_folders, monkeypatch):
    monkeypatch.setenv("R1_FAST", switch)
    member = load_member("base", str(qwen_folders[0]), device="cpu")
    packed = any(isinstance(module, fast.PackedLinear) for module in member.model.modules())
    roomy = any(isinstance(layer, RoomyLayer) for layer in roomy_cache(member.config).layers)
    assert packed == roomy == (switch == "1") and not can_decode(member.model, roomy_cache(member.config))
    assert complete(member, PROMPTS, max_new_tokens=20) == complete(qwen.base, PROMPTS, max_new_tokens=20)


def layers(bias: bool = True) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """A linear layer and a packed one of the same parameters."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(24, 40, bias=bias).requires_grad_(False)
    fast.pack_linears(packed := deepcopy(plain))
    return plain, packed


@pytest.mark.parametrize("shape", [(1, 24), (2, 3, 24), (4, 16, 24), (0, 24)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_torchs_own(shape, bias, dtype):
    plain, packed = (layer.to(dtype) for layer in layers(bias))
    given = torch.randn(shape).to(dtype)
    assert packed(given).shape == (*shape[:-1], 40)
    assert torch.allclose(packed(given), plain(given), atol=1e-5)
    given.requires_grad_()
    assert torch.equal(*(torch.autograd.grad(layer(given).sin().sum(), given)[0] for layer in (plain, packed)))


CHANGES = {
    "in place": lambda layer, value: layer.weight.copy_(value),
    "through data": lambda layer, value: setattr(layer.weight, "data", value),
    "as an object": lambda layer, value: layer._parameters.update(weight=torch.nn.Parameter(value, False)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_weight_is_seen_and_the_old_one_comes_back(change):
    packed, given, new = layers()[1], torch.randn(16, 24), torch.randn(40, 24)
    before, weight = packed(given), packed.weight
    old = weight.detach().clone()
    change(packed, new)
    assert torch.allclose(packed(given), torch.nn.functional.linear(given, new, packed.bias), atol=1e-5)
    packed._parameters["weight"] = weight
    change(packed, old)
    assert torch.equal(packed(given), before)


def test_this_torch_can_pack_and_does_unless_a_model_is_too_large_or_torch_lacks_it(monkeypatch):
    assert isinstance(layers()[1], fast.PackedLinear) == torch.backends.mkldnn.is_available()
    for where, name, value in ((fast, "LARGEST", 10), (torch.ops, "mkldnn", object())):
        with monkeypatch.context() as context:
            context.setattr(where, name, value)
            assert type(layers()[1]) is torch.nn.Linear
