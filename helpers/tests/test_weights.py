# SPDX-License-Identifier: MIT
import contextlib

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from helpers import weights
from helpers.generation import Change, complete, cut_short, judged
from helpers.pairs import Pair
from helpers.patching import attribute
from helpers.prompts import load_questions
from helpers.readouts import activations, last_hidden, logit_difference
from helpers.weights import NeuronEdit, with_neurons

PROMPTS = ["The bus stops at the corner near the old library.", "A cat", "She bought a blue coat"]
NEURONS = [(0, 3), (2, 70), (2, 5)]


def test_a_model_differs_from_itself_by_exactly_nothing(qwen):
    twin = Pair("twin", qwen.distilled, qwen.distilled)
    for folded in (False, True):
        frame = weights.compare_matrices(twin, folded=folded)
        assert (frame["relative"] == 0).all() and (frame["effective_rank"] == 0).all()
    assert (weights.compare_tokens(twin)["relative"] == 0).all()


def test_differences_of_matrices_by_hand(tiny):
    frame = weights.compare_matrices(tiny)
    assert len(frame) == tiny.base.n_layers * (len(weights.MATRICES) + 2) + 3
    for name, part in (("q_proj", "self_attn"), ("up_proj", "mlp"), ("down_proj", "mlp")):
        one, two = (getattr(getattr(m.model.model.layers[1], part), name).weight for m in tiny.members)
        row = frame[(frame["layer"] == 1) & (frame["matrix"] == name)].iloc[0]
        change, values = two - one, torch.linalg.svdvals(two - one)
        assert row["relative"] == pytest.approx(float(change.norm() / one.norm()), rel=1e-4, abs=1e-9)
        if change.any():
            cosine = float((one * two).sum() / one.norm() / two.norm())
            assert row["cosine"] == pytest.approx(cosine, abs=1e-4)
            expected = float((values**2).sum() ** 2 / (values**4).sum())
            assert row["effective_rank"] == pytest.approx(expected, rel=1e-3)
            shares = weights.spectrum(tiny, 1, name)
            assert shares == pytest.approx((values**2 / (values**2).sum()).numpy(), abs=1e-5)


def test_tied_and_untied_heads_are_compared_each_as_they_are(qwen):
    frame = weights.compare_matrices(qwen).set_index("matrix")["relative"]
    base, distilled = qwen.members
    assert base.tied and not distilled.tied
    expected = (distilled.unembedding - base.unembedding).norm() / base.unembedding.norm()
    assert frame["unembedding"] == pytest.approx(float(expected), rel=1e-4)
    one, two = (member.model.model.embed_tokens.weight for member in qwen.members)
    assert frame["embedding"] == pytest.approx(float((two - one).norm() / one.norm()), rel=1e-4)
    seventh = (distilled.unembedding[7] - base.unembedding[7]).norm() / base.unembedding[7].norm()
    assert weights.compare_tokens(qwen, head=True)["relative"][7] == pytest.approx(float(seventh), rel=1e-4)


def test_rows_in_blocks_are_the_same(qwen, monkeypatch):
    whole = weights.compare_matrices(qwen).drop(columns="matrix").to_numpy()
    monkeypatch.setattr(weights, "ROWS", 100)
    assert weights.compare_matrices(qwen).drop(columns="matrix").to_numpy() == pytest.approx(whole, rel=1e-3)


def test_value_vectors_by_hand(tiny):
    member = tiny.distilled
    head, norm = member.unembedding, member.model.model.norm.weight
    direction = (head[[3, 4]].mean(0) - head.mean(0)) * norm
    assert torch.allclose(weights.writing_direction(member, [3, 4]), direction, atol=1e-5)
    assert torch.equal(weights.writing_direction(member, [3], folded=False), head[3])
    cosines = weights.value_vector_cosines(member, direction[None])[0]
    for layer, neuron in NEURONS:
        vector = member.model.model.layers[layer].mlp.down_proj.weight[:, neuron]
        expected = torch.nn.functional.cosine_similarity(vector, direction, dim=0)
        assert float(cosines[layer, neuron]) == pytest.approx(float(expected), abs=1e-5)
    best, largest = weights.closest(cosines, 3), cosines.flatten().abs().sort(descending=True).values[:3]
    assert [float(cosines[at].abs()) for at in best] == largest.tolist()


def test_activations_are_what_multiplies_the_columns(tiny):
    found = activations(tiny.base, PROMPTS, batch_size=2).act
    parts = attribute(tiny.base, PROMPTS, logit_difference(tiny.base, [3]), neurons=True).neurons
    ids = tiny.base.tokenizer(PROMPTS[0], add_special_tokens=False, return_tensors="pt").input_ids
    caught, down = [], tiny.base.model.model.layers[2].mlp.down_proj
    with torch.no_grad(), down.register_forward_pre_hook(lambda _, args: caught.append(args[0][0, -1])):
        tiny.base.model(input_ids=ids)
    assert torch.allclose(found[0, 2], caught[0], atol=1e-4)
    assert ((found == 0) <= (parts == 0)).all()


def test_matched_neurons_are_others_of_like_size():
    sizes = torch.arange(200.0).reshape(2, 100)
    chosen = [(0, 10), (0, 11), (1, 50)]
    for seed in range(30):
        found = weights.matched_neurons(chosen, sizes, seed=seed)
        assert len(set(found)) == 3 and not set(found) & set(chosen)
        assert all(a[0] == b[0] and abs(a[1] - b[1]) <= 22 for a, b in zip(chosen, found, strict=True))
        assert found == weights.matched_neurons(chosen, sizes, seed=seed)


def hooked_generate(member, prompt, steps, factor, added):
    """Independent: plain transformers with a plain PyTorch hook on each edited layer."""
    hooks = contextlib.ExitStack()
    for layer in {layer for layer, _ in NEURONS}:
        columns = [neuron for at, neuron in NEURONS if at == layer]

        def edit(_, args, columns=columns):
            changed = args[0].clone()
            changed[..., columns] = changed[..., columns] * factor + added
            return (changed,)

        down = member.model.model.layers[layer].mlp.down_proj
        hooks.enter_context(down.register_forward_pre_hook(edit))
    ids = member.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    with hooks, torch.no_grad():
        out = member.model.generate(ids, do_sample=False, max_new_tokens=steps, pad_token_id=0, repetition_penalty=1.0)
        logits = member.model(input_ids=ids).logits[0, -1]
    return out[0, ids.shape[1] :].tolist(), logits


def test_an_edit_equals_a_plain_hook_at_every_step(tiny):
    for member in tiny.members:
        lm = with_neurons(member, NeuronEdit(NEURONS, factor=-3.0, added=0.5))
        prompt = member.prompt(PROMPTS[0], "plain")
        tokens, logits = hooked_generate(member, prompt, 20, -3.0, 0.5)
        done = complete(member, [prompt, "A cat"], change=Change(lm=lm), max_new_tokens=20)[0]
        assert done.tokens == [token for token in tokens if token not in member.groups.stop]
        assert done.tokens != complete(member, [prompt], max_new_tokens=20)[0].tokens, "the edit must do something"
        read = last_hidden(member, [prompt], lm=lm) @ member.unembedding.T
        assert torch.allclose(read[0], logits, atol=1e-4)


def test_factor_one_changes_nothing(tiny):
    lm = with_neurons(tiny.base, NeuronEdit(NEURONS), NeuronEdit(NEURONS, factor=0.5), NeuronEdit(NEURONS, factor=2.0))
    assert torch.equal(last_hidden(tiny.base, PROMPTS, lm=lm), last_hidden(tiny.base, PROMPTS))
    edited, plain = (complete(tiny.base, PROMPTS, change=Change(lm=m), max_new_tokens=8) for m in (lm, None))
    assert edited == plain


def test_a_token_as_a_sum_of_others(tiny):
    member = tiny.distilled
    shares = weights.sparse_shares(member, [3, 10], k=5)
    assert shares.shape == (2, 5) and (np.diff(shares, axis=1) >= -1e-6).all() and (shares <= 1 + 1e-6).all()
    every = member.unembedding - member.unembedding.mean(0)
    every = torch.nn.functional.normalize(every, dim=-1)
    nearest = (every @ every[3]).square()
    nearest[3] = 0
    assert shares[0, 0] == pytest.approx(float(nearest.max()), abs=1e-4)
    rest = every.clone()
    rest[3] = 0
    path = orthogonal_mp(rest.T.numpy(), every[3].numpy(), n_nonzero_coefs=5, return_path=True)
    left = every[3].numpy()[:, None] - rest.T.numpy() @ path
    assert shares[0] == pytest.approx(1 - (left**2).sum(0), abs=1e-4), "as scikit-learn pursues it"
    assert weights.least_squares_shares(member, [3]) == pytest.approx([1.0], abs=1e-4)
    chosen = every[[5, 6, 7]].T
    solved = torch.linalg.lstsq(chosen, every[3]).solution
    expected = float((chosen @ solved).square().sum())
    for others in ([5, 6, 7], [5, 3, 6, 7]):  # a token does not explain itself
        assert weights.least_squares_shares(member, [3], others) == pytest.approx([expected], abs=1e-4)
    assert weights.sparse_shares(member, [3], k=5, below=float(nearest.max().sqrt()))[0, 0] < shares[0, 0]


def test_cut_answers_are_those_of_the_smaller_limit(tiny):
    member, asked = tiny.base, load_questions(6)
    prompts = [member.prompt(question.text, "template") for question in asked]
    long, short = (judged(complete(member, prompts, max_new_tokens=n), asked, opened=False) for n in (40, 15))
    cut = cut_short(member, long, asked, 15, opened=False)
    assert cut.equals(short) and cut_short(member, cut, asked, 30, opened=False).equals(short)
    twice = cut_short(member, cut_short(member, long, asked, 25, opened=False), asked, 15, opened=False)
    assert twice.equals(short), "at the shorter place, in whatever order"
