import ipywidgets as widgets
import pytest

from helpers import explorers


def parts(box: widgets.Widget) -> list[widgets.Widget]:
    """All widgets inside a box, in order."""
    inner = [part for child in getattr(box, "children", ()) for part in parts(child)]
    return [box, *inner]


def find(box, kind, description=None):
    return next(p for p in parts(box) if isinstance(p, kind) and description in (None, p.description))


@pytest.mark.parametrize("make", [explorers.ask_both, explorers.next_token])
def test_a_click_shows_both_models(qwen, make):
    box = make(qwen)
    output = find(box, widgets.HTML)
    assert output.value == ""
    if make is explorers.ask_both:
        find(box, widgets.IntSlider).value = 20
    find(box, widgets.Button).click()
    assert "<b>base</b>" in output.value and "<b>distilled</b>" in output.value


def test_an_edit_of_the_text_updates_the_bars(qwen):
    box = explorers.next_token(qwen)
    find(box, widgets.Textarea).value = "The bus stops here."
    first = find(box, widgets.HTML).value
    find(box, widgets.Textarea).value = "Wait"
    assert find(box, widgets.HTML).value not in ("", first)


def test_bad_input_is_one_line_in_the_output(qwen):
    box = explorers.ask_both(qwen)
    find(box, widgets.Text).value = "  "
    find(box, widgets.Button).click()
    assert "empty prompt" in find(box, widgets.HTML).value


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
    assert first.count("<tr>") == qwen.base.n_layers + 2 and "data:image/png" in first
    find(box, widgets.Dropdown, "Model").value = "base"
    assert output.value != first
    find(box, widgets.Text, "Tokens").value = " Wait|not one token"
    find(box, widgets.Button).click()
    assert "is not one token" in output.value and "<table" not in output.value


def test_every_control_has_a_description(qwen):
    for make in (explorers.ask_both, explorers.next_token, explorers.lens_explorer):
        controls = [p for p in parts(make(qwen)) if hasattr(p, "description") and not isinstance(p, widgets.HTML)]
        assert controls and all(control.description for control in controls)
