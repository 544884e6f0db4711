# SPDX-License-Identifier: MIT
import hashlib

import pytest
import torch

from helpers import patching
from helpers.patching import Node, attribution_patching, exact_patching, gradients, patch_streams, single_swaps, swapped
from helpers.readouts import (
    activations,
    last_hidden,
    log_odds,
    logit_difference,
    measure,
    next_distribution,
    streams_at_all_positions,
)

PROMPTS = ["The bus stops at the corner near the old library.", "She bought a blue coat", "A cat sat on the mat."]
PLUS, MINUS = [3], [4, 5]
NODES = [*(Node("stream", point) for point in (0, 2, 3)), Node("attention", 1), Node("mlp", 2), Node("head", 1, 4),
         Node("neuron", 0, 7)]  # fmt: skip


AIMS = {
    "difference": lambda member: logit_difference(member, PLUS, MINUS),
    "odds": lambda member: log_odds(member, PLUS),
    "rivals": lambda member: log_odds(member, PLUS, MINUS),
}


def by_hand(logits, name):
    """A metric from the logits of the whole vocabulary."""
    p = logits.double().softmax(-1)
    odds = {"odds": 1 - p[..., PLUS].sum(-1), "rivals": p[..., MINUS].sum(-1)}
    if name == "difference":
        return logits[..., PLUS].mean(-1) - logits[..., MINUS].mean(-1)
    return (p[..., PLUS].sum(-1).log() - odds[name].log()).float()


def metric(member, prompts=PROMPTS, name="difference"):
    return by_hand(next_distribution(member, prompts), name)


@pytest.mark.parametrize("name", AIMS)
def test_metrics_equal_the_probabilities(tiny, name):
    for member in tiny.members:
        assert torch.allclose(measure(member, PROMPTS, AIMS[name](member)), metric(member, name=name), atol=1e-4)


def digest(member):
    """Bytes of all weights, and which tensors are one."""
    content = hashlib.sha256()
    for name, value in member.model.state_dict().items():
        content.update(name.encode() + value.contiguous().numpy().tobytes())
    return content.hexdigest(), member.tied, [id(value) for value in member.model.parameters()]


@pytest.mark.parametrize("aim", AIMS)
def test_gradients_equal_plain_autograd(tiny, aim):
    member = tiny.distilled
    found, slopes = gradients(member, PROMPTS, AIMS[aim](member), batch_size=2)
    assert torch.allclose(found, metric(member, name=aim), atol=1e-4)
    ids = member.tokenizer(PROMPTS[0], add_special_tokens=False, return_tensors="pt").input_ids
    caught, hooks = {}, []
    layer = member.model.model.layers[1]
    for name, module in (("z", layer.self_attn.o_proj), ("act", layer.mlp.down_proj)):
        hooks.append(module.register_forward_pre_hook(lambda _, args, name=name: caught.__setitem__(name, args[0])))
        out = {"z": "attention", "act": "mlp"}[name]
        hooks.append(module.register_forward_hook(lambda _m, _a, o, out=out: caught.__setitem__(out, o)))
    hooks.append(layer.register_forward_hook(lambda _m, _a, o: caught.__setitem__("stream", o)))
    start = member.model.get_input_embeddings()(ids).detach().requires_grad_(True)
    logits = member.model(inputs_embeds=start).logits[0, -1]
    for hook in hooks:
        hook.remove()
    value = by_hand(logits, aim)
    names = list(caught)
    plain = dict(zip(["start", *names], torch.autograd.grad(value, [start, *caught.values()]), strict=True))
    assert torch.allclose(slopes.stream[0, 0], plain["start"][0, -1], atol=1e-4)
    assert torch.allclose(slopes.stream[0, 2], plain["stream"][0, -1], atol=1e-4)
    for name in ("z", "act", "attention", "mlp"):
        assert torch.allclose(getattr(slopes, name)[0, 1], plain[name][0, -1], atol=1e-4), name


def test_patching_a_run_into_itself_changes_nothing(tiny):
    member = tiny.base
    own = activations(member, PROMPTS)
    assert exact_patching(member, PROMPTS, own, NODES, AIMS["odds"](member)).abs().max() < 1e-4
    estimated = attribution_patching(member, PROMPTS, own, AIMS["odds"](member))
    assert all(getattr(estimated, kind).abs().max() < 1e-4 for kind in ("stream", "attention", "mlp", "head", "neuron"))
    streams = streams_at_all_positions(member, PROMPTS)
    for where in ("last", "earlier", "all"):
        assert patch_streams(member, PROMPTS, streams, AIMS["difference"](member), where=where).abs().max() < 1e-4


def hooked(member, node, value):
    """Independent: one node's values at the last position replaced by a hook of torch's."""
    layers, size = member.model.model.layers, 8 if node.kind == "head" else 1
    block = layers[min(node.layer, len(layers) - 1)]

    def of_input(_, args):
        changed, columns = args[0].clone(), slice(node.index * size, (node.index + 1) * size)
        changed[0, -1, columns] = value[columns]
        return (changed,)

    def of_output(_module, _args, out):
        return torch.cat([out[:, :-1], value[None, None]], dim=1)

    if node.kind in ("head", "neuron"):
        module = block.self_attn.o_proj if node.kind == "head" else block.mlp.down_proj
        return module.register_forward_pre_hook(of_input)
    stream = layers[node.layer - 1] if node.layer else member.model.model.embed_tokens
    outputs = {"stream": stream, "attention": block.self_attn.o_proj, "mlp": block.mlp.down_proj}
    return outputs[node.kind].register_forward_hook(of_output)


@pytest.mark.parametrize("name", AIMS)
def test_exact_patching_equals_a_plain_hook(tiny, monkeypatch, name):
    monkeypatch.setattr(patching, "BRANCHES", 3)
    member, other = tiny.members
    source, before = activations(other, PROMPTS), metric(member, name=name)
    found = exact_patching(member, PROMPTS, source, NODES, AIMS[name](member))
    for column, node in enumerate(NODES):
        for number, prompt in enumerate(PROMPTS):
            with hooked(member, node, getattr(source, patching.HOLDS[node.kind])[number, node.layer]):
                expected = metric(member, [prompt], name)[0] - before[number]
            assert float(found[number, column]) == pytest.approx(float(expected), abs=1e-3), node
    assert found.abs().min(dim=0).values.max() > 1e-3, "the patches must do something"


def test_the_last_streams_patch_gives_the_others_answer(tiny):
    member, other = tiny.members
    source = activations(other, PROMPTS)
    last = Node("stream", member.n_layers)
    found = exact_patching(member, PROMPTS, source, [last], AIMS["difference"](member))[:, 0]
    normed = member.model.model.norm(source.stream[:, -1])
    logits = normed @ member.unembedding[[*PLUS, *MINUS]].T
    assert torch.allclose(found + metric(member), logits[:, 0] - logits[:, 1:].mean(1), atol=1e-3)
    streams = streams_at_all_positions(other, PROMPTS)
    assert torch.allclose(patch_streams(member, PROMPTS, streams, AIMS["difference"](member))[:, -1], found, atol=1e-3)
    earlier = patch_streams(member, PROMPTS, streams, AIMS["difference"](member), where="earlier")
    assert earlier[:, -1].abs().max() < 1e-4, "after the last layer earlier positions are not read"


def test_attribution_is_exact_where_the_model_is_linear_in_the_node(tiny):
    """Small steps: the estimate and the run agree to first order."""
    member = tiny.base
    own, other = activations(member, PROMPTS), activations(tiny.distilled, PROMPTS)
    near = type(own)(**{n: getattr(own, n) + 1e-3 * (getattr(other, n) - getattr(own, n)) for n in own.__dict__})
    estimated = attribution_patching(member, PROMPTS, near, AIMS["odds"](member)).of(NODES)
    exact = exact_patching(member, PROMPTS, near, NODES, AIMS["odds"](member))
    scale = float(exact.abs().max())
    assert scale > 1e-4 and torch.allclose(estimated, exact, atol=0.02 * scale)


@pytest.mark.parametrize("role", ["base", "distilled"])
@pytest.mark.parametrize(
    "choice",
    [
        {"layers": [1]},
        {"layers": [0, 2], "part": "attention"},
        {"layers": [0], "part": "mlp", "amount": 0.3},
        {"layers": [2], "part": "norms"},
        {"embedding": True},
        {"head": True},
        {"layers": [0, 1, 2], "embedding": True, "head": True, "norm": True},
        {"layers": [1], "noise": 3},
    ],
    ids=str,
)
def test_a_swap_restores_every_bit(qwen, role, choice):
    digests = [digest(member) for member in qwen.members]
    before = metric(getattr(qwen, role))
    with swapped(qwen, role, **choice) as member:
        assert member is getattr(qwen, role)
        assert not torch.allclose(metric(member), before, atol=1e-4), "the swap must do something"
    assert [digest(member) for member in qwen.members] == digests
    assert torch.equal(metric(getattr(qwen, role)), before)


def test_swapping_everything_gives_the_other_model(tiny):
    everything = dict(layers=range(3), embedding=True, head=True, norm=True)
    for role, other in (("base", tiny.distilled), ("distilled", tiny.base)):
        with swapped(tiny, role, **everything) as member:
            assert torch.equal(last_hidden(member, PROMPTS), last_hidden(other, PROMPTS))
            assert torch.equal(metric(member), metric(other))


def test_embedding_and_head_of_a_tied_model_are_swapped_apart(qwen):
    member, own = qwen.base, qwen.base.unembedding.clone()
    assert member.tied and not qwen.distilled.tied
    with swapped(qwen, "base", embedding=True):
        assert torch.equal(member.unembedding, own) and not member.tied
        taken = qwen.distilled.model.get_input_embeddings().weight
        assert torch.equal(member.model.get_input_embeddings().weight, taken)
    with swapped(qwen, "base", head=True):
        assert torch.equal(member.unembedding, qwen.distilled.unembedding)
        assert torch.equal(member.model.get_input_embeddings().weight, own)
    assert member.tied


def test_amounts_and_noise_by_hand(qwen):
    one, two = (m.model.model.layers[1].mlp.up_proj.weight.clone() for m in qwen.members)
    with swapped(qwen, "base", [1], amount=0.25) as member:
        assert torch.allclose(member.model.model.layers[1].mlp.up_proj.weight, one + 0.25 * (two - one), atol=1e-6)
    with swapped(qwen, "base", [1], amount=0.0) as member:
        assert torch.equal(member.model.model.layers[1].mlp.up_proj.weight, one)
    with swapped(qwen, "base", [1], noise=5) as member:
        change = member.model.model.layers[1].mlp.up_proj.weight - one
    spectra = [torch.linalg.svdvals(one) for one in (change, two - one)]
    assert torch.allclose(*spectra, atol=1e-3), "noise has the singular values of the real change"
    assert abs(float((change * (two - one)).sum() / change.norm() ** 2)) < 0.1, "noise points elsewhere"


@pytest.mark.parametrize("options", [{}, {"all_but": True}, {"noise": 3}, {"all_but": True, "noise": 3}])
def test_single_swaps_equal_whole_runs_of_each_hybrid(tiny, options):
    found = single_swaps(tiny, "base", PROMPTS, log_odds(tiny.base, PLUS), **options)
    layers = range(tiny.base.n_layers)
    for layer in layers:
        taken = [other for other in layers if other != layer] if "all_but" in options else [layer]
        with swapped(tiny, "base", taken, noise=options.get("noise")) as hybrid:
            assert torch.allclose(found[:, layer], metric(hybrid, name="odds"), atol=1e-4)
    assert found.std(1).min() > 1e-3
