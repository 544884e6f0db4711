# SPDX-License-Identifier: MIT
"""Steering against plain PyTorch hooks; vectors, places and autoencoders against independent computations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from helpers import generation, steering
from helpers.generation import Completion, complete
from helpers.readouts import last_hidden, logprobs_of, next_distribution, next_logprobs
from helpers.steering import NOTHING, Steering, load_autoencoder, steered
from helpers.tokens import KEYWORDS

PROMPTS = [
    "What is the capital of France?",
    "Wait, that is a river. Yes",
    "I think so.",
    "But that market is the park?",
]
LIMIT = 20


def vector(pair, seed=0, size=6.0):
    return size * steering.random_directions(1, pair.base.config.hidden_size, seed=seed)[0]


def run(member, prompts, rows, **how):
    change = steered(member, rows)
    how = {"max_new_tokens": LIMIT, **how}
    return complete(member, prompts, change=change, **how)


def test_strength_zero_is_the_baseline(tiny):
    member = tiny.distilled
    plain = complete(member, PROMPTS, max_new_tokens=LIMIT)
    nothing = {1: vector(tiny)}
    assert run(member, PROMPTS, [Steering("v", nothing, 0.0)]) == plain
    assert run(member, PROMPTS, [NOTHING]) == plain
    read = steering.steered_logprobs(member, PROMPTS, [Steering("v", nothing, 0.0)] * 4, [5, 6])
    nothing = steering.steered_logprobs(member, PROMPTS, [NOTHING], [5, 6])
    assert all(torch.allclose(one, nothing[0], atol=1e-5) for one in read)
    assert torch.allclose(nothing[0], next_logprobs(member, PROMPTS, [5, 6]), atol=1e-5)


@pytest.mark.parametrize("where", list(steering.WEIGHTS))
def test_a_vector_equals_a_plain_hook(tiny, where):
    member, added = tiny.distilled, vector(tiny, size=20.0)
    wanted = []

    def hook(module, inputs, output):
        prefill, moved = output.shape[1] > 1, output.clone()
        if where == "all" or (where == "prompt" and prefill) or (where == "generated" and not prefill):
            moved = moved + added
        elif where == "last" and prefill:
            moved[:, -1] += added
        return moved

    for prompt in PROMPTS:
        batch, stops = member.encode([prompt]), list(member.groups.stop)
        how = {**batch, "max_new_tokens": LIMIT, "do_sample": False, "eos_token_id": stops}
        with member.model.model.layers[1].register_forward_hook(hook):
            out = member.model.generate(**how)
        tokens = out[0, batch["input_ids"].shape[1] :].tolist()
        wanted.append(next((tokens[:k] for k, t in enumerate(tokens) if t in stops), tokens))
    done = run(member, PROMPTS, [Steering("v", {1: added / 2}, 2.0, where)])
    assert [c.tokens for c in done] == wanted
    assert where == "generated" or [c.tokens for c in complete(member, PROMPTS, max_new_tokens=LIMIT)] != wanted


def test_rows_with_their_own_steering_equal_separate_runs(tiny, monkeypatch):
    member = tiny.base
    rows = [
        Steering("a", {0: vector(tiny)}, 2.0),
        Steering("b", {2: vector(tiny, 1), 1: vector(tiny, 2)}, -1.0, "generated"),
        Steering("c", bias={member.groups.stop[0]: 60.0}),  # stops at once and leaves the batch
        Steering("d", {1: vector(tiny, 3)}, 1.0, "last", {7: 3.0}),
    ]
    together = run(member, PROMPTS, rows, max_new_tokens=40)
    alone = [run(member, [prompt], [row], max_new_tokens=40)[0] for prompt, row in zip(PROMPTS, rows, strict=True)]
    assert together == alone and together[2].length == 0
    monkeypatch.setattr(generation, "BATCH", {"cpu": 3})
    assert together == run(member, PROMPTS, rows, max_new_tokens=40)


@pytest.mark.parametrize("size", [1, 5, 128])
def test_readouts_under_steering_equal_edited_models(tiny, size):
    member = tiny.base
    rows = [
        NOTHING,
        Steering("a", {0: vector(tiny)}, 2.0),
        Steering("b", {2: vector(tiny, 1), 1: vector(tiny, 2)}, -1.0),
        Steering("c", {2: vector(tiny, 4)}, 1.0, "prompt"),
        Steering("d", {1: vector(tiny, 3)}, 1.0, "last"),
        Steering("e", {1: vector(tiny, 3)}, 1.0, "generated"),
    ]
    read = steering.steered_logprobs(member, PROMPTS, rows, [3, 7], rows=size)
    for row, found in zip(rows, read, strict=True):
        hidden = last_hidden(member, PROMPTS, lm=steered(member, [row]).lm)
        assert torch.allclose(found, logprobs_of(member, hidden, [3, 7]), atol=1e-4), row.name


def test_a_bias_shifts_the_logits_by_as_much(tiny):
    member, bias = tiny.distilled, {9: 2.5, 11: -30.0}
    both = Steering("b", {1: vector(tiny)}, 0.0, bias=bias)
    read, again = steering.steered_logprobs(member, PROMPTS, [Steering("b", bias=bias), both], [9, 10, 11])
    assert torch.allclose(read, again, atol=1e-5)
    moved = next_distribution(member, PROMPTS)
    for token, amount in bias.items():
        moved[:, token] += amount
    assert torch.allclose(read, moved.log_softmax(-1)[:, [9, 10, 11]], atol=1e-4)


def test_a_prompt_of_one_token_is_a_prompt(qwen):
    v = {1: vector(qwen)}
    rows = [NOTHING, *(Steering("v", v, where=where) for where in ("all", "prompt", "last", "generated"))]
    nothing, everywhere, prompt, last, generated = steering.steered_logprobs(qwen.base, [" the"], rows, [9, 10])
    assert not torch.allclose(everywhere, nothing, atol=1e-2) and torch.allclose(generated, nothing, atol=1e-5)
    assert torch.allclose(last, everywhere, atol=1e-5) and torch.allclose(prompt, everywhere, atol=1e-5)


def test_the_key_survives_rounding_and_sees_a_change(qwen):
    one = Steering("v", {1: vector(qwen)}, 0.5)
    assert replace(one, vectors={1: vector(qwen) * (1 + 1e-6)}).key == one.key
    vectors = [{1: vector(qwen, 1)}, {2: vector(qwen)}, {1: vector(qwen, size=9.0)}]
    others = [replace(one, vectors=other) for other in vectors]
    others += [one.at(0.6), replace(one, where="last"), replace(one, bias={1: 2.0})]
    assert len({one.key, *(other.key for other in others)}) == 7


def text_of(member, prompt, words):
    tokens = member.tokenizer(words, add_special_tokens=False).input_ids
    return Completion(prompt, member.tokenizer.decode(tokens), len(tokens), "<end>", "", 0.0, tokens)


def test_places_stand_right_before_keywords(tiny):
    member = tiny.distilled
    text = text_of(member, member.prompt("What is it?", "template"), "That is a park. Wait, the river. But wait. I see")
    ids = [*member.encode([text.prompt])["input_ids"][0].tolist(), *text.tokens]
    found = steering.places_before(member, [text], ["wait"])
    assert len(found) == 2
    for _, at in found:
        assert member.tokenizer.decode(ids[at + 1 :]).lstrip(" ").lower().startswith("wait")
    assert steering.places_before(member, [text], None) == [(0, len(ids) - 1)]
    assert steering.places_before(member, [replace(text, stop="limit")], None) == []
    avoid = {place for family in KEYWORDS.values() for place in steering.places_before(member, [text], family)}
    given = [*found, (0, len(ids) - len(text.tokens))]  # the last one precedes no keyword
    for seed in range(60):
        matched = steering.places_matched(member, [text], given, seed=seed)
        assert not set(matched) & {*given, *avoid, (0, len(ids) - 1)} and len(matched) == 3
    by_token = text_of(member, "It is", " the park? Wait. That is the market? Yes the river? I")
    ((_, at),), tokens = steering.places_before(member, [by_token], ["wait"]), by_token.tokens
    start = member.encode([by_token.prompt])["input_ids"].shape[1]
    ((_, like),) = steering.places_matched(member, [by_token], [(0, at)], seed=1)
    assert tokens[like - start] == tokens[at - start] and like != at, "by the same token where there is one"
    begins = text_of(member, text.prompt, "Wait, no")
    assert steering.places_before(member, [begins], ["wait"]) == [(0, len(ids) - len(text.tokens) - 1)]


@pytest.mark.parametrize("before", [" (", " I see.\n\n"])
def test_a_keyword_that_begins_a_token_without_a_space_is_found_right_there(tiny, before):
    """The place is the last token before the word, not one further back."""
    member = tiny.base
    text = text_of(member, "It is", f"{before}wait, no")
    ((_, at),) = steering.places_before(member, [text], ["wait"])
    ids = [*member.encode([text.prompt])["input_ids"][0].tolist(), *text.tokens]
    assert member.tokenizer.decode(ids[at + 1 :]) == "wait, no"


def test_read_places_equals_plain_transformers(tiny):
    member = tiny.distilled
    texts = [text_of(member, "What is it?", " the river"), text_of(member, "I", " That park is the market. Yes")]
    places = [(1, 4), (0, 3), (1, 2), (1, 4)]
    streams, heads = steering.read_places(member, texts, places, batch_size=2)
    for (which, at), stream, z in zip(places, streams, heads, strict=True):
        ids = torch.tensor([[*member.encode([texts[which].prompt])["input_ids"][0].tolist(), *texts[which].tokens]])
        with torch.no_grad():
            block, kept = member.model.model.layers[2], []
            with block.self_attn.o_proj.register_forward_pre_hook(lambda _, i, kept=kept: kept.append(i[0][0])):
                hidden = member.model(ids, output_hidden_states=True).hidden_states
        assert torch.allclose(stream[0], hidden[1][0, at], atol=1e-4)
        assert torch.allclose(z[2], kept[0][at], atol=1e-4)


def test_the_autoencoder_reads_sparsifys_layout(tiny, tiny_autoencoder):
    folder, hookpoint = tiny_autoencoder
    coder = load_autoencoder(folder, hookpoint)
    assert (coder.layer, coder.on_mlp, coder.k) == (1, False, 4)
    x = torch.randn(6, 48, generator=torch.Generator().manual_seed(0))
    acts = coder.encode(x)
    before = torch.relu(torch.nn.functional.linear(x - coder.centre, coder.encoder, coder.bias))
    for row, full in zip(acts, before, strict=True):
        kept = row.nonzero().flatten().tolist()
        assert set(kept) <= set(full.topk(4).indices.tolist()) and torch.equal(row[kept], full[kept])
    many = torch.randn(2, steering.ROWS, 48, generator=torch.Generator().manual_seed(1))
    every = coder.encode(many)
    assert torch.allclose(every[1], coder.encode(many[1]), atol=1e-6), "in blocks as at once"
    assert torch.equal(coder.encode(many, [7, 2]), every[..., [7, 2]])
    assert torch.equal(coder.fires(many.flatten(0, 1)), (every > 0).float().mean((0, 1)))
    wrong = (x - coder.decode(acts)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert torch.isclose(coder.unexplained(x).mean(), wrong, atol=1e-5)
    texts = [text_of(tiny.base, "What is it?", " the river"), text_of(tiny.base, "I", " That park is the market.")]
    places, states = steering.autoencoder_states(tiny.base, coder, texts)
    at = places.index((1, 3))
    assert torch.allclose(states[at], steering.read_places(tiny.base, texts, [(1, 3)])[0][0, 1], atol=1e-4)
    assert all(at > 0 for _, at in places)


@pytest.mark.parametrize("on_mlp", [False, True])
def test_a_clamped_latent_equals_a_plain_hook_and_keeps_the_error(tiny, tiny_autoencoder, on_mlp):
    member, coder = tiny.base, replace(load_autoencoder(*tiny_autoencoder), on_mlp=on_mlp)

    def hook(module, inputs, output):
        acts = coder.encode(output)
        error = output - coder.decode(acts)
        acts[..., 7] = 30.0
        return coder.decode(acts) + error

    block = member.model.model.layers[1]
    with (block.mlp if on_mlp else block).register_forward_hook(hook):
        wanted = last_hidden(member, PROMPTS)
    got = last_hidden(member, PROMPTS, lm=steering.with_latent(member, coder, 7, 30.0))
    assert torch.allclose(got, wanted, atol=1e-4) and not torch.allclose(got, last_hidden(member, PROMPTS), atol=1e-2)


def test_all_heads_of_a_layer_sum_to_its_attention_output(tiny):
    member, n_heads = tiny.base, tiny.base.config.num_attention_heads
    _, heads = steering.read_places(member, [text_of(member, "What is it?", " the river")], [(0, 3)])
    total = steering.function_vector(member, heads[0], [(1, head) for head in range(n_heads)])
    projection = member.model.model.layers[1].self_attn.o_proj
    with torch.no_grad():
        assert torch.allclose(total, projection(heads[0, 1]), atol=1e-4)


@pytest.mark.embedded
def test_the_committed_autoencoder_explains_what_its_card_says(smol):
    coder = load_autoencoder(*steering.AUTOENCODERS["smol"])
    card = json.loads((steering.ROOT / "data" / "smol" / "autoencoder" / "training.json").read_text())
    member = smol.distilled
    prompts = [member.prompt(f"{question} Just give the answer.", "template") for question in PROMPTS]
    texts = complete(member, prompts, max_new_tokens=60)
    _, states = steering.autoencoder_states(member, coder, texts)
    assert float(coder.unexplained(states).mean()) < 2 * card["held_out"]["layers.18"]["fvu"]
