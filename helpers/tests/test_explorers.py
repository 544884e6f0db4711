# SPDX-License-Identifier: MIT
import ipywidgets as widgets
import pytest
import torch

from helpers import explorers, steering
from helpers.prompts import Material, load_questions
from helpers.store import UserError


def parts(box: widgets.Widget) -> list[widgets.Widget]:
    """All widgets inside a box, in order."""
    return [box, *(part for child in getattr(box, "children", ()) for part in parts(child))]


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


def test_the_lens_follows_its_controls(qwen):
    box = explorers.lens_explorer(qwen)
    find(box, widgets.IntSlider).value = 3
    first = (output := find(box, widgets.HTML)).value
    assert first.count("<tr>") == qwen.base.n_layers + 3 and "data:image/png" in first
    find(box, widgets.Dropdown, "Model").value = "base"
    assert output.value != first
    find(box, widgets.Text, "Tokens").value = " Wait|not one token"
    find(box, widgets.Button).click()
    assert "is not one token" in output.value and "<table" not in output.value


def neurons_box(pair):
    near = {"base": [(0, 1), (2, 5)], "distilled": [(1, 3), (2, 7)]}
    return explorers.neurons_explorer(pair, near, {"base": [(0, 9), (1, 1)], "distilled": [(0, 4), (0, 6)]})


def steering_box(pair):
    vectors = {name: steering.random_directions(3, 48, seed=k) for k, name in enumerate(("one", "other"))}
    return explorers.steering_explorer(pair, vectors, dict.fromkeys(("base", "distilled"), torch.full((3,), 40.0)))


def endings_box(pair):
    question = load_questions(1)[0]
    return explorers.endings_explorer(pair, question, Material("It is.", "It", "No.", "Yes.", "I think so."))


CHANGES = {
    neurons_box: [(widgets.FloatSlider, "Stop ×", 9.0)],
    explorers.swap_explorer: [(widgets.IntRangeSlider, "Layers", (0, 0))],
    steering_box: [(widgets.FloatSlider, "Strength", 0.9), (widgets.Dropdown, "Method", "other")],
    endings_box: [(widgets.Checkbox, "</think>", False), (widgets.Dropdown, "Answer", "wrong")],
}


@pytest.mark.parametrize("make", CHANGES)
def test_controls_move_the_bars_and_a_click_writes(qwen, make):
    box = make(qwen)
    bars, written = (part for part in parts(box) if isinstance(part, widgets.HTML))
    assert "%" in bars.value and written.value == ""
    for kind, name, value in CHANGES[make]:
        before = bars.value
        find(box, kind, name).value = value
        assert bars.value != before and "%" in bars.value
    find(box, widgets.IntSlider, "New tokens").value = 20
    find(box, widgets.Button).click()
    assert written.value.count("tokens, ends by") == (3 if make is explorers.swap_explorer else 2)


def test_an_explorer_leaves_the_models_as_they_were_even_where_one_cannot_be_read(qwen, monkeypatch):
    answers = [[[]], [[]]]

    def two_tokens(*_, **__):
        if not answers:
            raise UserError("not <this>")
        return answers.pop()

    places = [member.model.model.layers[0].mlp.down_proj for member in qwen.members]
    weights = [place.weight for place in places]
    before, box = [weight.clone() for weight in weights], explorers.swap_explorer(qwen)
    monkeypatch.setattr(explorers, "top_tokens", two_tokens)
    find(box, widgets.IntRangeSlider).value = (0, 2)
    assert "not &lt;this&gt;" in find(box, widgets.HTML).value
    assert all(place.weight is weight for place, weight in zip(places, weights, strict=True))
    assert all(map(torch.equal, weights, before))
