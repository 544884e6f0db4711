# SPDX-License-Identifier: MIT
"""Decoding in fixed shapes writes what `generate` writes: step by step on a CPU, as a CUDA graph where there is one."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor
from transformers.cache_utils import DynamicLayer

from helpers import decoding, generation
from helpers.decoding import ROOM, RoomyLayer, can_decode, roomy_cache
from helpers.generation import complete
from helpers.pairs import Pair
from helpers.weights import NeuronEdit, edited_weights

PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister", "Two"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


class Watched(LogitsProcessor):
    """Add one number to a token's logit, and keep what was seen before each step."""

    def __init__(self, token: int, amount: float) -> None:
        self.token, self.amount, self.seen = token, amount, []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(input_ids.tolist())
        return scores.index_add(
            1, torch.tensor([self.token], device=scores.device), scores.new_full((len(scores), 1), self.amount)
        )


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(params=["qwen", "biased"])
def member(request, device, qwen_folders):
    if device == "cpu":
        return request.getfixturevalue(request.param).distilled
    return Pair.of(*qwen_folders, device=device, dtype=torch.float32).distilled


@pytest.fixture
def fixed(monkeypatch):
    """Count how often `decode` is called, on a CPU too."""
    calls, decode = [], decoding.decode

    def counted(*given, **how):
        calls.append(how["max_new_tokens"])
        return decode(*given, **how)

    monkeypatch.setattr(generation, "can_decode", lambda model, cache: True)
    monkeypatch.setattr(generation, "decode", counted)
    return calls


def usual(member, prompts, monkeypatch, **how):
    with monkeypatch.context() as context:
        context.setattr(generation, "can_decode", lambda model, cache: False)
        return complete(member, prompts, **how)


@pytest.mark.parametrize("n_new", [1, 2, 3, 40])
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
    how = {"max_new_tokens": 9, "temperature": 1.0, "top_p": 0.9, "seed": 5}
    watched = Watched(7, 2.0)
    found = complete(member, PROMPTS[:2], processors=(watched,), **how)
    unlike = Watched(7, 2.0)
    assert found == usual(member, PROMPTS[:2], monkeypatch, processors=(unlike,), **how)
    assert watched.seen == unlike.seen and len(watched.seen) == 9


def test_edited_weights_decode_so_too(member, fixed, monkeypatch):
    edit = NeuronEdit([(0, 1), (1, 5), (2, 7)], factor=-9.0)
    plain = complete(member, PROMPTS, max_new_tokens=12)
    with edited_weights(member, edit):
        changed = complete(member, PROMPTS, max_new_tokens=12)
        assert changed == usual(member, PROMPTS, monkeypatch, max_new_tokens=12)
    assert changed != plain and fixed


def test_a_broken_step_leaves_model_and_cache_usable(member, fixed, monkeypatch):
    class Broken(LogitsProcessor):
        def __call__(self, input_ids, scores):
            if input_ids.shape[1] > 20:
                raise KeyError("broken")
            return scores

    with pytest.raises(KeyError):
        complete(member, PROMPTS, processors=(Broken(),), max_new_tokens=30)
    assert complete(member, PROMPTS, max_new_tokens=8) == usual(member, PROMPTS, monkeypatch, max_new_tokens=8)


def test_no_memory_for_the_room_leaves_the_attention_as_it_was(qwen, monkeypatch):
    model, cache = qwen.base.model, roomy_cache(qwen.base.config)
    model(torch.tensor([[5, 6, 7]]), past_key_values=cache)

    def full(*given):
        raise MemoryError

    monkeypatch.setattr(RoomyLayer, "make_room", full)
    with pytest.raises(MemoryError), decoding._fixed_shapes(model, cache, 100):
        pass
    assert model.config._attn_implementation == "sdpa"


def test_what_cannot_be_decoded_so_goes_through_generate(qwen):
    model = qwen.distilled.model
    other = DynamicCache()
    other.layers = [DynamicLayer()]
    assert not can_decode(model, roomy_cache(model.config)), "a CPU has no graphs"
    assert not decoding._all_roomy(other) and decoding._all_roomy(roomy_cache(model.config))


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
