# SPDX-License-Identifier: MIT
"""ipywidgets views, one a notebook. Each returns a widget to be shown last in its cell."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from helpers.figures import BASE, CONTROL, DISTILLED, STOP, THIRD, WAIT, lines, picture_html
from helpers.generation import Completion, complete
from helpers.pairs import Member, Pair
from helpers.patching import swapped
from helpers.prompts import JUST, Ending, Material, Question, end
from helpers.readouts import lens, lens_map, stop_parts, top_tokens
from helpers.stats import Interval
from helpers.steering import WEIGHTS, Steering, steered
from helpers.store import UserError
from helpers.tokens import single_id
from helpers.weights import Neuron, NeuronEdit, with_neurons

WIDE, FITTED = widgets.Layout(width="98%"), widgets.Layout(width="auto")
DESCRIBED = {"description_width": "90px"}


def _shown(output: widgets.HTML, make: Callable[[], str]) -> None:
    """Put the made HTML into the output, or the one line of a user's error."""
    try:
        output.value = make()
    except UserError as error:
        output.value = f"<p style='color:#882255'>{html.escape(str(error))}</p>"


def _prompt_area(description: str) -> widgets.Textarea:
    """Where the prompt is edited, with an example in it."""
    example = f"What is the capital of France? {JUST} The capital of France is Paris."
    area = widgets.Textarea(value=example, description=description, style=DESCRIBED, layout=WIDE)
    area.continuous_update = False
    return area


def _row(cells: Sequence[str]) -> str:
    """Cells side by side."""
    width = f"vertical-align:top;width:{100 // len(cells)}%"
    return f"<table style='width:100%'><tr>{''.join(f'<td style={width!r}>{cell}</td>' for cell in cells)}</tr></table>"


def _written(title: str, done: Completion) -> str:
    """What a model wrote, under a title, as text and never as HTML."""
    body = html.escape(done.text).replace("\n", "<br>")
    return f"<b>{title}</b>, {done.length} tokens, ends by {html.escape(done.stop)}<br><br>{body}"


def ask_both(pair: Pair) -> widgets.Widget:
    """Notebook 01: put a question to both models and read what each writes."""
    question = widgets.Text(value="What is the capital of Italy?", description="Question", style=DESCRIBED, layout=WIDE)
    form = widgets.Dropdown(options=["template", "plain"], description="Form", style=DESCRIBED)
    just = widgets.Checkbox(value=True, description=JUST)
    length = widgets.IntSlider(value=120, min=20, max=400, step=20, description="New tokens", style=DESCRIBED)
    button = widgets.Button(description="Ask both", button_style="primary", layout=FITTED)
    output = widgets.HTML()

    def show(_: Any = None) -> None:
        text = f"{question.value} {JUST}" if just.value and question.value.strip() else question.value
        _shown(output, lambda: _answers_table(pair, text, form.value, length.value))

    button.on_click(show)
    return widgets.VBox([question, widgets.HBox([form, just]), length, button, output])


def _answers_table(pair: Pair, text: str, form: str, length: int) -> str:
    prompts = {member.role: (member, member.prompt(text, form)) for member in pair.members}
    return _row([_written(role, complete(m, [p], max_new_tokens=length)[0]) for role, (m, p) in prompts.items()])


def next_token(pair: Pair) -> widgets.Widget:
    """Notebook 02: edit a text and see what each model would do next, as bars."""
    text = _prompt_area("Text")
    form = widgets.Dropdown(options=["plain", "exact"], description="Form", style=DESCRIBED)
    button = widgets.Button(description="Read out", button_style="primary", layout=FITTED)
    output = widgets.HTML()

    def show(_: Any = None) -> None:
        _shown(output, lambda: _next_token_table(pair, text.value, form.value))

    button.on_click(show)
    text.observe(show, names="value")
    return widgets.VBox([text, form, button, output])


def _next_token_table(pair: Pair, text: str, form: str) -> str:
    prompts = [member.prompt(text, "plain") if form == "plain" else text for member in pair.members]
    return _row([_next_token_bars(m.role, m, prompt) for m, prompt in zip(pair.members, prompts, strict=True)])


def lens_explorer(pair: Pair) -> widgets.Widget:
    """Notebook 03: the lens of one prompt as a map of top tokens, and chosen tokens' way through the depths."""
    text = _prompt_area("Prompt")
    form = widgets.Dropdown(options=["plain", "template", "exact"], description="Form", style=DESCRIBED)
    role = widgets.Dropdown(options=["base", "distilled"], value="distilled", description="Model", style=DESCRIBED)
    words = widgets.Text(value=" Wait| Yes|\\n", description="Tokens", style=DESCRIBED, layout=WIDE)
    last = widgets.IntSlider(value=8, min=1, max=16, description="Positions", style=DESCRIBED)
    button = widgets.Button(description="Read the lens", button_style="primary", layout=FITTED)
    output = widgets.HTML()

    def show(_: Any = None) -> None:
        member = pair.base if role.value == "base" else pair.distilled
        chosen = [word.replace("\\n", "\n") for word in words.value.split("|") if word]
        _shown(output, lambda: _lens_html(member, text.value, form.value, chosen, last.value))

    button.on_click(show)
    for control in (form, role, last):
        control.observe(show, names="value")
    return widgets.VBox([text, widgets.HBox([form, role, last]), words, button, output])


def _lens_html(member: Member, text: str, form: str, words: list[str], last: int) -> str:
    prompt = text if form == "exact" else member.prompt(text, form)
    ids = {"stop": member.groups.stop[0]} | {repr(word): single_id(member.tokenizer, word) for word in words}
    if missing := [word for word, index in ids.items() if index is None]:
        raise UserError(f"{', '.join(missing)} is not one token of {member.source}: try it with or without its space")
    tokens, rows = lens_map(member, prompt, last=last)
    seen = lens(member, [prompt], list(ids.values()))
    heads = "".join(f"<th>{html.escape(repr(token))}</th>" for token in tokens)
    body = "".join(
        f"<tr><th>{depth}</th>{''.join(_cell(token, share) for token, share in row)}</tr>"
        for depth, row in reversed(list(enumerate(rows)))
    )
    curves = {
        name: {
            word: ([Interval(v, v, v, 1) for v in values[0, 0, :, k].tolist()], colour)
            for k, (word, colour) in enumerate(
                zip(ids, cycle((STOP, WAIT, THIRD, BASE, DISTILLED, CONTROL)), strict=False)
            )
        }
        for name, values in (("log-probability (nats)", seen.logprobs), ("logit", seen.logits))
    }
    picture = picture_html(lines(curves, range(len(rows)), title="At the last position", xlabel="depth", ylabel=""))
    return (
        f"<div style='overflow-x:auto'><table style='font-size:11px'><tr><th>depth</th>{heads}</tr>{body}</table></div>"
        f"{picture}"
    )


def _cell(token: str, share: float) -> str:
    colour = "white" if share > 0.6 else "black"
    return (
        f"<td title='{share:.1%}' style='background:rgba(8,81,156,{share:.2f});color:{colour}'>"
        f"{html.escape(repr(token))}</td>"
    )


def neurons_explorer(
    pair: Pair, stop_neurons: Mapping[str, Sequence[Neuron]], wait_neurons: Mapping[str, Sequence[Neuron]]
) -> widgets.Widget:
    """Notebook 04: scale the value vectors nearest to stop and Wait, by role, and see what each model does next."""
    text = _prompt_area("Prompt")
    role = widgets.Dropdown(options=["base", "distilled"], description="Model", style=DESCRIBED)
    form = widgets.Dropdown(options=["plain", "template"], description="Form", style=DESCRIBED)
    if not all(by_role.get(role) for by_role in (stop_neurons, wait_neurons) for role in ("base", "distilled")):
        raise UserError("no neurons to scale: give some near stop and some near Wait, for base and distilled")
    most = min(len(neurons) for by_role in (stop_neurons, wait_neurons) for neurons in by_role.values())
    count = widgets.IntSlider(value=min(10, most), min=1, max=most, description="Neurons", style=DESCRIBED)
    stop = widgets.FloatSlider(value=0.0, min=-4, max=16, step=0.5, description="Stop ×", style=DESCRIBED)
    wait = widgets.FloatSlider(value=4.0, min=-4, max=16, step=0.5, description="Wait ×", style=DESCRIBED)
    length = widgets.IntSlider(value=80, min=20, max=300, step=20, description="New tokens", style=DESCRIBED)
    button = widgets.Button(description="Write before and after", button_style="primary", layout=FITTED)
    bars, written = widgets.HTML(), widgets.HTML()

    def both() -> tuple[Member, str, Any]:
        member = pair.base if role.value == "base" else pair.distilled
        edits = [
            NeuronEdit(by_role[role.value][: count.value], factor=slider.value)
            for by_role, slider in ((stop_neurons, stop), (wait_neurons, wait))
        ]
        return member, member.prompt(text.value, form.value), with_neurons(member, *edits)

    def show(_: Any = None) -> None:
        _shown(bars, lambda: _before_after_bars(*both()))

    def write(_: Any = None) -> None:
        _shown(written, lambda: _before_after_texts(*both(), length.value))

    button.on_click(write)
    for control in (role, form, count, stop, wait, text):
        control.continuous_update = False
        control.observe(show, names="value")
    show()
    sliders = widgets.HBox([count, stop, wait])
    return widgets.VBox([text, widgets.HBox([role, form]), sliders, bars, length, button, written])


def swap_explorer(pair: Pair) -> widgets.Widget:
    """Notebook 05: take layers from the other model, and see base, distilled and hybrid side by side."""
    text = _prompt_area("Prompt")
    last = pair.base.n_layers - 1
    role = widgets.Dropdown(options=["base", "distilled"], description="Model", style=DESCRIBED)
    part = widgets.Dropdown(options=["all", "attention", "mlp"], description="Part", style=DESCRIBED)
    layers = widgets.IntRangeSlider(value=(last // 2, last), min=0, max=last, description="Layers", style=DESCRIBED)
    length = widgets.IntSlider(value=60, min=20, max=200, step=20, description="New tokens", style=DESCRIBED)
    button = widgets.Button(description="Write with all three", button_style="primary", layout=FITTED)
    bars, written = widgets.HTML(), widgets.HTML()

    def each(cell: Callable[[str, Member, str], str]) -> str:
        cells = [cell(member.role, member, member.prompt(text.value, "plain")) for member in pair.members]
        chosen = range(layers.value[0], layers.value[1] + 1)
        title = f"{role.value} with layers {layers.value[0]} to {layers.value[1]} of the other"
        with swapped(pair, role.value, chosen, part=part.value) as hybrid:
            cells.append(cell(title, hybrid, hybrid.prompt(text.value, "plain")))
        return _row(cells)

    def write(title: str, member: Member, prompt: str) -> str:
        return _written(title, complete(member, [prompt], max_new_tokens=length.value)[0])

    def show(_: Any = None) -> None:
        _shown(bars, lambda: each(_next_token_bars))

    button.on_click(lambda _: _shown(written, lambda: each(write)))
    for control in (text, role, part, layers):
        control.continuous_update = False
        control.observe(show, names="value")
    show()
    return widgets.VBox([text, widgets.HBox([role, part, layers]), bars, length, button, written])


def steering_explorer(
    pair: Pair, vectors: Mapping[str, Float[Tensor, "layer d_model"]], reach: Mapping[str, Float[Tensor, " layer"]]
) -> widgets.Widget:
    """Notebook 06: add a vector to a layer's output, in shares of the stream's length there (`reach`, by role)."""
    if not vectors:
        raise UserError("no vectors to add: give at least one, by its method's name")
    text, last = _prompt_area("Prompt"), pair.base.n_layers - 1
    role = widgets.Dropdown(options=["base", "distilled"], description="Model", style=DESCRIBED)
    form = widgets.Dropdown(options=["plain", "template"], description="Form", style=DESCRIBED)
    method = widgets.Dropdown(options=list(vectors), description="Method", style=DESCRIBED)
    where = widgets.Dropdown(options=list(WEIGHTS), description="Positions", style=DESCRIBED)
    layer = widgets.IntSlider(value=2 * last // 3, min=0, max=last, description="Layer", style=DESCRIBED)
    strength = widgets.FloatSlider(value=0.3, min=-1, max=1, step=0.05, description="Strength", style=DESCRIBED)
    length = widgets.IntSlider(value=80, min=20, max=300, step=20, description="New tokens", style=DESCRIBED)
    button = widgets.Button(description="Write before and after", button_style="primary", layout=FITTED)
    bars, written = widgets.HTML(), widgets.HTML()

    def both() -> tuple[Member, str, Any]:
        member = pair.base if role.value == "base" else pair.distilled
        vector = normalize(vectors[method.value][layer.value], dim=0) * reach[role.value][layer.value]
        change = steered(member, [Steering(method.value, {layer.value: vector}, strength.value, where.value)])
        return member, member.prompt(text.value, form.value), change.lm

    def show(_: Any = None) -> None:
        _shown(bars, lambda: _before_after_bars(*both()))

    button.on_click(lambda _: _shown(written, lambda: _before_after_texts(*both(), length.value)))
    for control in (text, role, form, method, where, layer, strength):
        control.continuous_update = False
        control.observe(show, names="value")
    show()
    choices = widgets.HBox([role, form, method, where])
    return widgets.VBox([text, choices, widgets.HBox([layer, strength]), bars, length, button, written])


def endings_explorer(pair: Pair, question: Question, material: Material) -> widgets.Widget:
    """Notebook 07: build an ending from its parts, see whether each model stops, and what it writes if not."""
    names = {"none": "", "space": " ", "new line": "\n", "blank line": "\n\n"}
    form = widgets.Dropdown(options=["plain", "template"], description="Form", style=DESCRIBED)
    think = widgets.Checkbox(value=False, description="<think>")
    thought = widgets.Dropdown(options=["none", "answer", "real"], description="Thought", style=DESCRIBED)
    close = widgets.Checkbox(value=True, description="</think>")
    gap = widgets.Dropdown(options=list(names), value="blank line", description="Gap", style=DESCRIBED)
    kinds = ["sentence", "open", "word.", "word", "wrong", "other", "none"]
    answer = widgets.Dropdown(options=kinds, description="Answer", style=DESCRIBED)
    tags = widgets.Checkbox(value=False, description="<answer> tags")
    length = widgets.IntSlider(value=40, min=20, max=200, step=20, description="New tokens", style=DESCRIBED)
    button = widgets.Button(description="Write on", button_style="primary", layout=FITTED)
    bars, written = widgets.HTML(), widgets.HTML()

    def each(cell: Callable[[str, Member, str], str]) -> str:
        ending = Ending(think.value, thought.value, close.value, names[gap.value], answer.value, tags.value)
        prompts = {m.role: (m, end(m, [question], [material], ending, form=form.value)[0]) for m in pair.members}
        return _row([cell(role, member, prompt) for role, (member, prompt) in prompts.items()])

    def write(title: str, member: Member, prompt: str) -> str:
        shown = f"<code>{html.escape(prompt[-160:])}</code><br>"
        return shown + _written(title, complete(member, [prompt], max_new_tokens=length.value)[0])

    def show(_: Any = None) -> None:
        _shown(bars, lambda: each(_next_token_bars))

    button.on_click(lambda _: _shown(written, lambda: each(write)))
    for control in (form, think, thought, close, gap, answer, tags):
        control.observe(show, names="value")
    show()
    rows = [widgets.HBox([form, think, thought, close]), widgets.HBox([gap, answer, tags])]
    return widgets.VBox([*rows, bars, length, button, written])


def _next_token_bars(title: str, member: Member, prompt: str, lm: Any = None) -> str:
    parts = stop_parts(member, [prompt], lm=lm).iloc[0]
    rows = [(part, parts[part], "#000000") for part in ("stop", "</think>", "Wait set")]
    rows += [(repr(token), share, "#332288") for token, share in top_tokens(member, [prompt], k=8, lm=lm)[0]]
    return f"<b>{title}</b>" + "".join(_bar(part, share, colour) for part, share, colour in rows)


def _before_after_bars(member: Member, prompt: str, lm: Any) -> str:
    return _row([_next_token_bars(name, member, prompt, edited) for name, edited in (("before", None), ("after", lm))])


def _before_after_texts(member: Member, prompt: str, lm: Any, length: int) -> str:
    states = (("before", None), ("after", lm))
    return _row([_written(n, complete(member, [prompt], lm=ed, max_new_tokens=length)[0]) for n, ed in states])


def _bar(name: str, share: float, colour: str) -> str:
    return (
        f"<div>{html.escape(name)} {share:.1%}"
        f"<div style='background:{colour};height:8px;width:{100 * share:.1f}%'></div></div>"
    )
