import pytest
import torch

from helpers import readouts
from helpers.readouts import (
    bigram_logits,
    last_hidden,
    log_normaliser,
    next_logits,
    next_logprobs,
    stop_parts,
    top_tokens,
)

PROMPTS = ["The bus stops at the corner near the old library.", "A cat", "She bought a blue coat", "Who?"]


def plain_logits(member, prompt):
    """Independent: one prompt through transformers, nothing padded."""
    ids = member.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        return member.model(input_ids=ids).logits[0, -1]


def test_logits_equal_plain_transformers(tiny):
    for member in tiny.members:
        ids = [3, 700, *member.groups.stop]
        expected = torch.stack([plain_logits(member, p)[ids] for p in PROMPTS])
        assert torch.allclose(next_logits(member, PROMPTS, ids), expected, atol=1e-4)


def test_logprobs_equal_plain_transformers(tiny, monkeypatch):
    monkeypatch.setattr(readouts, "VOCAB_CHUNK", 100)
    for member in tiny.members:
        ids = [3, *member.groups.wait]
        expected = torch.stack([plain_logits(member, p).log_softmax(-1)[ids] for p in PROMPTS])
        assert torch.allclose(next_logprobs(member, PROMPTS, ids), expected, atol=1e-4)


def test_batches_do_not_matter(tiny):
    whole = last_hidden(tiny.base, PROMPTS)
    assert torch.allclose(whole, last_hidden(tiny.base, PROMPTS, batch_size=1), atol=1e-4)
    assert torch.allclose(whole.flip(0), last_hidden(tiny.base, PROMPTS[::-1]), atol=1e-4)


def test_probabilities_sum_to_one(qwen):
    hidden = last_hidden(qwen.base, PROMPTS)
    everything = readouts.logits_of(qwen.base, hidden, list(range(qwen.base.config.vocab_size)))
    total = (everything - log_normaliser(qwen.base, hidden)[:, None]).exp().sum(1)
    assert torch.allclose(total, torch.ones(4), atol=1e-5)


def test_stop_parts_sum_to_one_and_are_the_right_tokens(tiny):
    for member in tiny.members:
        frame = stop_parts(member, PROMPTS)
        names = ["stop", "</think>", "<think>", "Wait set", "new line", "rest"]
        assert frame[names].sum(axis=1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
        probabilities = plain_logits(member, PROMPTS[0]).softmax(-1)
        assert frame["stop"][0] == pytest.approx(float(probabilities[list(member.groups.stop)].sum()), abs=1e-5)
        assert frame["Wait set"][0] == pytest.approx(float(probabilities[list(member.groups.wait)].sum()), abs=1e-5)
        closing = 0.0 if member.groups.end_think is None else float(probabilities[member.groups.end_think])
        assert frame["</think>"][0] == pytest.approx(closing, abs=1e-5)


def test_top_tokens(qwen):
    best = top_tokens(qwen.base, PROMPTS[:1], k=3)[0]
    values = plain_logits(qwen.base, PROMPTS[0]).softmax(-1).topk(3)
    assert [share for _, share in best] == pytest.approx(values.values.tolist(), abs=1e-5)
    assert best[0][0] == qwen.base.tokenizer.decode([int(values.indices[0])])


def test_bigram_logits_by_hand(tiny):
    member = tiny.distilled
    inner, sources, targets = member.model.model, [5, 9], [3, 4]
    weight, eps = inner.norm.weight, member.config.rms_norm_eps
    stream = inner.embed_tokens.weight[sources]
    normed = stream * torch.rsqrt(stream.pow(2).mean(-1, keepdim=True) + eps) * weight
    expected = normed @ member.model.lm_head.weight[targets].T
    assert torch.allclose(bigram_logits(member, sources, targets), expected, atol=1e-5)
    assert not torch.allclose(bigram_logits(member, sources, targets, first_mlp=True), expected, atol=1e-3)
