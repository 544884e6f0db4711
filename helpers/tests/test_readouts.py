# SPDX-License-Identifier: MIT
import copy
import gc
from functools import partial

import pytest
import torch

from helpers import readouts
from helpers.generation import in_memory
from helpers.pairs import Pair
from helpers.patching import attribute
from helpers.readouts import (
    bigram_logits,
    kl_nats,
    last_hidden,
    last_hidden_shared,
    lens,
    log_odds,
    logit_difference,
    read_stream,
    residuals,
)
from helpers.store import UserError

PROMPTS = ["The bus stops at the corner near the old library.", "A cat", "She bought a blue coat", "Who?"]


def plain_logits(member, prompt):
    """Independent: one prompt through transformers, nothing padded."""
    ids = member.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        return member.model(input_ids=ids).logits[0, -1]


def test_logits_and_logprobs_equal_plain_transformers(tiny):
    for member in tiny.members:
        ids, expected = [3, 700, *member.groups.stop], torch.stack([plain_logits(member, p) for p in PROMPTS])
        assert torch.allclose(readouts.next_logits(member, PROMPTS, ids), expected[:, ids], atol=1e-4)
        assert torch.allclose(readouts.next_logprobs(member, PROMPTS, ids), expected.log_softmax(-1)[:, ids], atol=1e-4)


def test_batches_leave_no_tensors_behind(qwen):
    """A trace that was stopped is a ring of frames and tensors, which stays until Python's collector comes by."""

    def tensors():
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    lens(qwen.base, PROMPTS, [5])
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for n in (1, 2, 4):
            lens(qwen.base, PROMPTS, [5], batch_size=n)
        assert tensors() <= before
    finally:
        gc.enable()


def test_stop_parts_sum_to_one_and_are_the_right_tokens(tiny):
    for member in tiny.members:
        frame = readouts.stop_parts(member, PROMPTS)
        names = ["stop", "</think>", "<think>", "Wait set", "new line", "rest"]
        assert frame[names].sum(axis=1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
        probabilities = plain_logits(member, PROMPTS[0]).softmax(-1)
        assert frame["stop"][0] == pytest.approx(float(probabilities[list(member.groups.stop)].sum()), abs=1e-5)
        assert frame["Wait set"][0] == pytest.approx(float(probabilities[list(member.groups.wait)].sum()), abs=1e-5)
        closing = 0.0 if member.groups.end_think is None else float(probabilities[member.groups.end_think])
        assert frame["</think>"][0] == pytest.approx(closing, abs=1e-5)


def test_bigram_logits_by_hand(tiny):
    member = tiny.distilled
    inner, sources, targets = member.model.model, [5, 9], [3, 4]
    weight, eps = inner.norm.weight, member.config.rms_norm_eps
    stream = inner.embed_tokens.weight[sources]
    normed = stream * torch.rsqrt(stream.pow(2).mean(-1, keepdim=True) + eps) * weight
    expected = normed @ member.model.lm_head.weight[targets].T
    assert torch.allclose(bigram_logits(member, sources, targets), expected, atol=1e-5)
    assert not torch.allclose(bigram_logits(member, sources, targets, first_mlp=True), expected, atol=1e-3)


def plain_streams(member, prompt):
    """Independent: the stream after the embedding and each layer, by transformers; the last before its norm."""
    ids = member.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    caught, norm = [], member.model.model.norm
    with torch.no_grad(), norm.register_forward_pre_hook(lambda _, args: caught.append(args[0])):
        seen = member.model(input_ids=ids, output_hidden_states=True).hidden_states
    return torch.stack([*seen[:-1], caught[0]], dim=2)[0]


LONG = ["The bus stops at the corner near the old library.", "She bought a blue coat yesterday"]


def test_residuals_and_lens_equal_plain_transformers(tiny):
    ids = [3, 700, 5]
    for member, other in (tiny.members, tiny.members[::-1]):
        whole = [plain_streams(member, prompt) for prompt in LONG]
        assert all(map(partial(torch.allclose, atol=1e-4), readouts.streams_at_all_positions(member, LONG), whole))
        streams = torch.stack([stream[-1] for stream in whole])
        assert torch.allclose(residuals(member, LONG), streams, atol=1e-4)
        for head in (member, other):
            everything = head.model.lm_head(head.model.model.norm(streams))
            found = lens(member, LONG, ids) if head is member else read_stream(head, residuals(member, LONG), ids)
            assert torch.allclose(found.logits, everything[..., ids], atol=1e-4)
            fewer = read_stream(head, streams, ids, ranked=False)
            assert torch.allclose(fewer.logits, found.logits, atol=1e-4) and fewer.ranks is fewer.logprobs is None
            assert torch.allclose(found.logprobs, everything.log_softmax(-1)[..., ids], atol=1e-4)
            ranks = everything.argsort(-1, descending=True).argsort(-1)[..., ids]
            assert (found.ranks == ranks).float().mean() > 0.95, "near ties may swap neighbours"


def test_norms_of_the_lens(qwen):
    stream = residuals(qwen.distilled, LONG)
    weight, head = qwen.distilled.model.model.norm.weight, qwen.distilled.model.lm_head.weight
    scaled = stream / (stream.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    for norm, states in (("full", scaled * weight), ("scale", scaled), ("none", stream)):
        found = read_stream(qwen.distilled, stream, [7], norm=norm).logits
        assert torch.allclose(found, states @ head[[7]].T, atol=1e-4)


def test_the_norm_of_the_lens_is_the_models_own_however_short_the_stream(tiny):
    """Short enough for the norm's epsilon to count; nothing stays nothing."""
    stream, member = 1e-4 * residuals(tiny.distilled, LONG), tiny.distilled
    expected = member.model.model.norm(stream) @ member.unembedding[[3, 7]].T
    assert torch.allclose(read_stream(member, stream, [3, 7]).logits, expected, rtol=1e-4, atol=1e-6)
    assert not read_stream(member, torch.zeros(1, 48), [3]).logits.any()


def test_lens_in_batches_and_chunks_is_the_same(tiny, monkeypatch):
    ids = [3, 150, 735]  # of the first, a middle and the last chunk
    whole = lens(tiny.base, PROMPTS, ids)
    monkeypatch.setattr(readouts, "LENS_ROWS", {"cpu": 3, "cuda": 3})
    monkeypatch.setattr(readouts, "VOCAB_CHUNK", 100)
    parts = lens(tiny.base, PROMPTS, ids, batch_size=1)
    assert torch.allclose(whole.logits, parts.logits, atol=1e-4)
    assert torch.allclose(whole.logprobs, parts.logprobs, atol=1e-4)
    assert (whole.ranks == parts.ranks).float().mean() > 0.97, "near ties may swap neighbours"


def test_lens_map_ends_in_the_top_token(tiny):
    tokens, rows = readouts.lens_map(tiny.base, PROMPTS[0], last=3)
    assert len(tokens) == 3 and len(rows) == tiny.base.n_layers + 1
    (best, share), *_ = readouts.top_tokens(tiny.base, PROMPTS[:1], k=1)[0]
    assert rows[-1][-1] == (best, pytest.approx(share, abs=1e-5))


@pytest.mark.parametrize("which", ["qwen", "llama", "biased"])
def test_attribution_sums_to_the_logit(which, request):
    pair = request.getfixturevalue(which)
    plus, minus = [3], [4, 5, 6]
    for member in pair.members:
        logits = torch.stack([plain_logits(member, p) for p in PROMPTS])
        found = attribute(member, PROMPTS, logit_difference(member, plus, minus), neurons=True)
        true = logits[:, plus].mean(1) - logits[:, minus].mean(1)
        assert torch.allclose(found.total, true, atol=1e-3)
        assert torch.allclose(found.heads.sum(-1) + found.attention_bias, found.attention, atol=1e-4)
        assert torch.allclose(found.neurons.sum(-1) + found.mlp_bias, found.mlp, atol=1e-4)
        assert bool(found.mlp_bias.any()) == (which == "biased")


def test_attribution_of_log_odds_follows_their_gradient(qwen):
    """d log-odds / d logit is 1 / (1 - P) times (share of the set) inside, and -p / (1 - P) outside."""
    member, ids = qwen.distilled, [3, 4]
    logits = torch.stack([plain_logits(member, prompt) for prompt in PROMPTS])
    p = logits.softmax(-1)
    slope = -p / (1 - p[:, ids].sum(-1, keepdim=True))
    slope[:, ids] = p[:, ids] / p[:, ids].sum(-1, keepdim=True)
    found = attribute(member, PROMPTS, log_odds(member, ids))
    assert torch.allclose(found.total, (slope * logits).sum(-1), atol=1e-3)


def test_a_heads_share_is_what_vanishes_with_it(tiny):
    """Silencing one query head of the last layer, and that layer's MLP, removes its contribution and nothing else."""
    member, head, size = tiny.base, 4, 8
    found = attribute(member, PROMPTS[:1], logit_difference(member, [3], [5]))
    layer, norm, caught = member.model.model.layers[-1], member.model.model.norm, []

    def silence(_, args):
        return (args[0].index_fill(-1, torch.arange(head * size, (head + 1) * size), 0.0),)

    quiet = layer.mlp.down_proj.register_forward_hook(lambda *args: args[2] * 0)
    with quiet, norm.register_forward_pre_hook(lambda _, args: caught.append(args[0][0, -1])):
        plain_logits(member, PROMPTS[0])
        with layer.self_attn.o_proj.register_forward_pre_hook(silence):
            plain_logits(member, PROMPTS[0])
    toward = (member.unembedding[3] - member.unembedding[5]) * member.model.model.norm.weight
    end = plain_streams(member, PROMPTS[0])[-1, -1]
    scale = torch.rsqrt(end.pow(2).mean() + member.config.rms_norm_eps)
    assert float(found.heads[0, -1, head]) == pytest.approx(float((caught[0] - caught[1]) @ toward * scale), abs=1e-4)


def test_attribution_refuses_half_precision(qwen_folders, monkeypatch):
    monkeypatch.setattr(readouts, "VOCAB_CHUNK", 100)
    pair = Pair.of(*qwen_folders, device="cpu", dtype=torch.bfloat16)
    with pytest.raises(UserError, match="pair.float"):
        attribute(pair.base, PROMPTS, logit_difference(pair.base, [3]))
    coarse, fine = lens(pair.distilled, PROMPTS, [3, 700]), lens(pair.float().distilled, PROMPTS, [3, 700])
    assert attribute(pair.float().base, PROMPTS, logit_difference(pair.float().base, [3])).heads.shape == (4, 3, 6)
    assert torch.allclose(coarse.logprobs, fine.logprobs, atol=0.5) and coarse.logits.shape == (4, 4, 2)


def test_attention_patterns_are_those_of_transformers(tiny):
    member, heads = tiny.distilled, [(0, 5), (2, 1)]
    tokens, weights = readouts.attention_pattern(member, PROMPTS[0], heads)
    assert member.config._attn_implementation == "sdpa", "put back"
    eager = copy.deepcopy(member.model)
    eager.set_attn_implementation("eager")
    ids = member.tokenizer(PROMPTS[0], add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        seen = eager(input_ids=ids, output_attentions=True).attentions
    assert torch.allclose(weights, torch.stack([seen[layer][0, head, -1] for layer, head in heads]), atol=1e-5)
    assert weights.sum(-1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5) and len(tokens) == ids.shape[1]


def test_vocabulary_scores_are_z_scores_and_know_no_length(qwen):
    member = qwen.distilled
    directions = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    everything = list(range(member.config.vocab_size))
    scores = readouts.vocabulary_scores(member, directions, everything)
    assert torch.allclose(scores.mean(1), torch.zeros(5), atol=1e-4)
    assert torch.allclose(scores.std(1), torch.ones(5), atol=1e-4)
    assert torch.allclose(scores, readouts.vocabulary_scores(member, directions * 7, everything), atol=1e-4)
    best = scores.argmax(1).tolist()
    first = [row[0] for row in readouts.promoted(member, directions, k=2)]
    assert first == [member.tokenizer.decode([i]) for i in best]
    logits = (directions * member.model.model.norm.weight) @ member.model.lm_head.weight.T
    assert logits.argmax(1).tolist() == best


def test_distributions_and_their_divergence(qwen):
    one, two = (readouts.next_distribution(member, PROMPTS) for member in qwen.members)
    assert torch.allclose(one[0], plain_logits(qwen.base, PROMPTS[0]).log_softmax(-1), atol=1e-4)
    expected = (one.exp() * (one - two)).sum(-1)
    assert torch.allclose(kl_nats(one, two), expected, atol=1e-4) and expected.min() > 0
    assert kl_nats(one, one).abs().max() < 1e-6


ENDS = ["", " the river.", " wait", " That is the park. Yes", " the river"]


def test_a_shared_beginning_changes_nothing(tiny):
    for member in tiny.members:
        prompts = [member.prompt("What is the capital of France?", "template") + end for end in ENDS]
        plain, shared = last_hidden(member, prompts), last_hidden_shared(member, prompts)
        assert torch.allclose(shared, plain, atol=1e-4)
        alone = [member.prompt("So the park", "plain"), member.prompt("Yes? I", "plain")]
        assert torch.allclose(last_hidden_shared(member, alone), last_hidden(member, alone), atol=1e-4)


def test_a_hidden_token_cannot_be_seen(tiny):
    member = tiny.distilled
    prompts = [member.prompt(text, "plain") for text in ("What is that park? Yes I", "So the river is the market.")]
    plain = last_hidden(member, prompts)
    assert torch.allclose(last_hidden(member, prompts, hide=[[], []]), plain, atol=1e-5)
    hidden = last_hidden(member, prompts, hide=[[2], [1, 3]])
    for row, prompt, gone in zip(hidden, prompts, ([2], [1, 3]), strict=True):
        ids = member.encode([prompt])["input_ids"]
        mask = torch.ones_like(ids)
        mask[0, gone] = 0
        with torch.no_grad():
            states = member.model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.allclose(row, states[0, -1], atol=1e-4)
    assert not torch.allclose(hidden, plain, atol=1e-3)


def test_out_of_memory_halves_the_batch_loses_nothing_and_ends_with_a_single_prompt(capsys):
    def run(some, most=2):
        if len(some) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [-one for one in some]

    assert list(in_memory([3, 1, 4, 0, 5], 4, run)) == [([3, 1], [-3, -1]), ([4, 0], [-4, 0]), ([5], [-5])]
    assert "out of memory: going on with 2 prompts at a time" in capsys.readouterr().out
    with pytest.raises(UserError, match="out of memory with a single prompt: shorten it"):
        list(in_memory([3, 1], 2, partial(run, most=0)))
