# SPDX-License-Identifier: MIT
import ipywidgets as widgets
import torch

from helpers import explorers, steering
from helpers.prompts import Material, load_questions


def parts(box: widgets.Widget) -> list[widgets.Widget]:
    """All widgets inside a box, in order."""
    inner = [part for child in getattr(box, "children", ()) for part in parts(child)]
    return [box, *inner]


def find(box, kind, description=None):
    return next(p for p in parts(box) if isinstance(p, kind) and description in (None, p.description))


def test_a_click_shows_both_models_and_an_edit_of_the_text_updates_the_bars(qwen):
    box = explorers.ask_both(qwen)
    find(box, widgets.IntSlider).value = 20
    assert (output := find(box, widgets.HTML)).value == ""
    find(box, widgets.Button).click()
    assert "<b>base</b>" in output.value and "<b>distilled</b>" in output.value
    box = explorers.next_token(qwen)
    first = find(box, widgets.HTML).value
    find(box, widgets.Textarea).value = "The bus stops here."
    assert "<b>base</b>" in first and find(box, widgets.HTML).value != first


def test_what_a_model_writes_is_text_not_html(qwen, monkeypatch):
    from dataclasses import replace

    from helpers.generation import complete

    harmful = "<script>alert(1)</script>"
    monkeypatch.setattr(explorers, "complete", lambda *a, **k: [replace(complete(*a, **k)[0], text=harmful)])
    box = explorers.ask_both(qwen)
    find(box, widgets.IntSlider).value = 20
    find(box, widgets.Button).click()
    assert harmful not in find(box, widgets.HTML).value and "&lt;script&gt;" in find(box, widgets.HTML).value


def test_the_lens_follows_its_controls(qwen):
    box = explorers.lens_explorer(qwen)
    find(box, widgets.IntSlider).value = 3
    output = find(box, widgets.HTML)
    first = output.value
    assert first.count("<tr>") == qwen.base.n_layers + 3 and "data:image/png" in first
    find(box, widgets.Dropdown, "Model").value = "base"
    assert output.value != first
    find(box, widgets.Text, "Tokens").value = " Wait|not one token"
    find(box, widgets.Button).click()
    assert "is not one token" in output.value and "<table" not in output.value


def neurons_box(pair):
    near = {"base": [(0, 1), (2, 5)], "distilled": [(1, 3), (2, 7)]}
    return explorers.neurons_explorer(pair, near, {"base": [(0, 9), (1, 1)], "distilled": [(0, 4), (0, 6)]})


def test_neurons_and_layers_move_the_bars_and_write(qwen):
    sliders = {
        neurons_box: (widgets.FloatSlider, "Stop ×"),
        explorers.swap_explorer: (widgets.IntRangeSlider, "Layers"),
    }
    for make, (kind, name) in sliders.items():
        box = make(qwen)
        bars, written = (part for part in parts(box) if isinstance(part, widgets.HTML))
        first = bars.value
        assert "%" in first and written.value == ""
        find(box, kind, name).value = 9.0 if kind is widgets.FloatSlider else (0, 0)
        assert bars.value != first
        find(box, widgets.IntSlider, "New tokens").value = 20
        find(box, widgets.Button).click()
        assert "tokens, ends by" in written.value


def steering_box(pair):
    vectors = {name: steering.random_directions(3, 48, seed=k) for k, name in enumerate(("one", "other"))}
    return explorers.steering_explorer(pair, vectors, dict.fromkeys(("base", "distilled"), torch.full((3,), 40.0)))


def endings_box(pair):
    question = load_questions(1)[0]
    return explorers.endings_explorer(pair, question, Material("It is.", "It", "No.", "Yes.", "I think so."))


def test_steering_and_endings_move_the_bars_and_write(qwen):
    controls = {
        steering_box: [(widgets.FloatSlider, "Strength", 0.9), (widgets.Dropdown, "Method", "other")],
        endings_box: [(widgets.Checkbox, "</think>", False), (widgets.Dropdown, "Answer", "wrong")],
    }
    for make, changes in controls.items():
        box = make(qwen)
        bars, written = (part for part in parts(box) if isinstance(part, widgets.HTML))
        for kind, name, value in changes:
            before = bars.value
            find(box, kind, name).value = value
            assert bars.value != before and "%" in bars.value
        find(box, widgets.IntSlider, "New tokens").value = 20
        find(box, widgets.Button).click()
        assert written.value.count("tokens, ends by") == 2


def test_an_explorer_leaves_the_models_as_they_were(qwen):
    before = [member.unembedding.clone() for member in qwen.members]
    layer = qwen.base.model.model.layers[0].mlp.down_proj.weight
    bits = layer.clone()
    find(explorers.swap_explorer(qwen), widgets.IntRangeSlider).value = (0, 2)
    assert torch.equal(qwen.base.model.model.layers[0].mlp.down_proj.weight, bits)
    assert qwen.base.model.model.layers[0].mlp.down_proj.weight is layer
    assert all(torch.equal(m.unembedding, b) for m, b in zip(qwen.members, before, strict=True))


def test_every_control_has_a_description(qwen):
    for make in (
        explorers.ask_both,
        explorers.next_token,
        explorers.lens_explorer,
        neurons_box,
        explorers.swap_explorer,
        steering_box,
        endings_box,
    ):
        controls = [p for p in parts(make(qwen)) if hasattr(p, "description") and not isinstance(p, widgets.HTML)]
        assert controls and all(control.description for control in controls)
