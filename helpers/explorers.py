# SPDX-License-Identifier: MIT
"""ipywidgets views, one a notebook. Each returns a widget to be shown last in its cell."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, cycle
from typing import Any

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from helpers.figures import BASE, CONTROL, DISTILLED, STOP, THIRD, WAIT, lines, picture_html
from helpers.generation import complete
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
EXAMPLE = f"What is the capital of France? {JUST} The capital of France is Paris."
GAPS = {"none": "", "space": " ", "new line": "\n", "blank line": "\n\n"}
SLIDERS = {int: widgets.IntSlider, float: widgets.FloatSlider, tuple: widgets.IntRangeSlider}  # by the value's type
ROLES = ("base", "distilled")
Rows = Sequence[Sequence[Any]]  # of controls
Make = Callable[[], str]  # HTML
Cell = Callable[..., str]  # the same of (title, member, prompt), and perhaps an edited model


def _text(description: str, value: str = EXAMPLE, kind: Any = widgets.Textarea) -> Any:
    return kind(value=value, description=description, style=DESCRIBED, layout=WIDE, continuous_update=False)


def _choice(description: str, options: Sequence[str], value: str | None = None) -> Any:
    value = options[0] if value is None else value
    return widgets.Dropdown(options=options, value=value, description=description, style=DESCRIBED)


def _slider(description: str, value: Any, least: int, most: int, step: Any = 1) -> Any:
    how = {"description": description, "style": DESCRIBED, "continuous_update": False}
    return SLIDERS[type(value)](value=value, min=least, max=most, step=step, **how)


def _panel(rows: Rows, label: str, make: Make, *, live: Sequence[Any] = (), bars: Make | None = None) -> widgets.Widget:
    """Rows of controls, a button, and what a click makes. A change of a live control makes it too, or makes `bars`,
    which stand above the last row from the start."""
    button, written = widgets.Button(description=label, button_style="primary", layout=FITTED), widgets.HTML()
    button.on_click(lambda _: _shown(written, make))
    output = widgets.HTML() if bars else written
    placed = [widgets.HBox(row) if len(row) > 1 else row[0] for row in rows]
    for control in live:
        control.observe(lambda _: _shown(output, bars or make), names="value")
    if bars:
        _shown(output, bars)
        placed.insert(-1, output)
    return widgets.VBox([*placed, button, written])


def _shown(output: widgets.HTML, make: Make) -> None:
    """Put the made HTML into the output, or the one line of a user's error."""
    try:
        output.value = make()
    except UserError as error:
        output.value = f"<p style='color:#882255'>{html.escape(str(error))}</p>"


def _compared(rows: Rows, length: Any, label: str, each: Callable[[Cell], str], write: Cell | None = None) -> Any:
    """A panel whose bars follow all controls but the length of what a click writes; `each` puts what a function makes
    of each model side by side."""

    def make() -> str:
        return each(partial(write or _written, length.value))

    return _panel([*rows, [length]], label, make, live=[*chain(*rows)], bars=lambda: each(_next_token_bars))


def ask_both(pair: Pair) -> widgets.Widget:
    """Notebook 01: put a question to both models and read what each writes."""
    question = _text("Question", "What is the capital of Italy?", widgets.Text)
    form, just = _choice("Form", ["template", "plain"]), widgets.Checkbox(value=True, description=JUST)
    length = _slider("New tokens", 120, 20, 400, 20)

    def answer() -> str:
        text = f"{question.value} {JUST}" if just.value and question.value.strip() else question.value
        return _answers_table(pair, text, form.value, length.value)

    return _panel([[question], [form, just], [length]], "Ask both", answer)


def _answers_table(pair: Pair, text: str, form: str, length: int) -> str:
    return _row([_written(length, m.role, m, m.prompt(text, form)) for m in pair.members])


def next_token(pair: Pair) -> widgets.Widget:
    """Notebook 02: edit a text and see what each model would do next, as bars."""
    text, form = _text("Text"), _choice("Form", ["plain", "exact"])
    return _panel([[text], [form]], "Read out", lambda: _next_token_table(pair, text.value, form.value), live=[text])


def _next_token_table(pair: Pair, text: str, form: str) -> str:
    return _row([_next_token_bars(m.role, m, text if form == "exact" else m.prompt(text, form)) for m in pair.members])


def lens_explorer(pair: Pair) -> widgets.Widget:
    """Notebook 03: the lens of one prompt as a map of top tokens, and chosen tokens' way through the depths."""
    text, form = _text("Prompt"), _choice("Form", ["plain", "template", "exact"])
    role, last = _choice("Model", ROLES, "distilled"), _slider("Positions", 8, 1, 16)
    words = _text("Tokens", " Wait| Yes|\\n", widgets.Text)

    def read() -> str:
        chosen = [word.replace("\\n", "\n") for word in words.value.split("|") if word]
        return _lens_html(getattr(pair, role.value), text.value, form.value, chosen, last.value)

    return _panel([[text], [form, role, last], [words]], "Read the lens", read, live=[form, role, last])


def _lens_html(member: Member, text: str, form: str, words: list[str], last: int) -> str:
    prompt = text if form == "exact" else member.prompt(text, form)
    ids = {"stop": member.groups.stop[0]} | {repr(word): single_id(member.tokenizer, word) for word in words}
    if missing := [word for word, index in ids.items() if index is None]:
        raise UserError(f"{', '.join(missing)} is not one token of {member.source}: try it with or without its space")
    tokens, rows = lens_map(member, prompt, last=last)
    heads = "".join(f"<th>{html.escape(repr(token))}</th>" for token in tokens)
    body = "".join(
        f"<tr><th>{depth}</th>{''.join(_cell(token, share) for token, share in row)}</tr>"
        for depth, row in reversed(list(enumerate(rows)))
    )
    table = f"<table style='font-size:11px'><tr><th>depth</th>{heads}</tr>{body}</table>"
    return f"<div style='overflow-x:auto'>{table}</div>{_lens_picture(member, prompt, ids)}"


def _lens_picture(member: Member, prompt: str, ids: Mapping[str, int]) -> str:
    seen, colours = lens(member, [prompt], list(ids.values())), (STOP, WAIT, THIRD, BASE, DISTILLED, CONTROL)
    curves = {
        name: {
            word: ([Interval(v, v, v, 1) for v in curve], colour)
            for word, curve, colour in zip(ids, values[0].T.tolist(), cycle(colours), strict=False)
        }
        for name, values in (("log-probability (nats)", seen.logprobs), ("logit", seen.logits))
    }
    depths = range(member.n_layers + 1)
    return picture_html(lines(curves, depths, title="At the last position", xlabel="depth", ylabel=""))


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
    if not all(by_role.get(role) for by_role in (stop_neurons, wait_neurons) for role in ROLES):
        raise UserError("no neurons to scale: give some near stop and some near Wait, for base and distilled")
    most = min(len(neurons) for by_role in (stop_neurons, wait_neurons) for neurons in by_role.values())
    text, role, form = _text("Prompt"), _choice("Model", ROLES), _choice("Form", ["plain", "template"])
    count = _slider("Neurons", min(10, most), 1, most)
    stop, wait = _slider("Stop ×", 0.0, -4, 16, 0.5), _slider("Wait ×", 4.0, -4, 16, 0.5)

    def each(cell: Cell) -> str:
        member, scaled = getattr(pair, role.value), ((stop_neurons, stop), (wait_neurons, wait))
        edits = [NeuronEdit(near[role.value][: count.value], factor=slider.value) for near, slider in scaled]
        return _before_after(cell, member, member.prompt(text.value, form.value), with_neurons(member, *edits))

    rows, length = [[text], [role, form], [count, stop, wait]], _slider("New tokens", 80, 20, 300, 20)
    return _compared(rows, length, "Write before and after", each)


def swap_explorer(pair: Pair) -> widgets.Widget:
    """Notebook 05: take layers from the other model, and see base, distilled and hybrid side by side."""
    last = pair.base.n_layers - 1
    text, role, part = _text("Prompt"), _choice("Model", ROLES), _choice("Part", ["all", "attention", "mlp"])
    layers = _slider("Layers", (last // 2, last), 0, last)

    def each(cell: Cell) -> str:
        cells = [cell(member.role, member, member.prompt(text.value, "plain")) for member in pair.members]
        first, final = layers.value
        with swapped(pair, role.value, range(first, final + 1), part=part.value) as hybrid:
            title = f"{role.value} with layers {first} to {final} of the other"
            cells.append(cell(title, hybrid, hybrid.prompt(text.value, "plain")))
        return _row(cells)

    length = _slider("New tokens", 60, 20, 200, 20)
    return _compared([[text], [role, part, layers]], length, "Write with all three", each)


def steering_explorer(
    pair: Pair, vectors: Mapping[str, Float[Tensor, "layer d_model"]], reach: Mapping[str, Float[Tensor, " layer"]]
) -> widgets.Widget:
    """Notebook 06: add a vector to a layer's output, in shares of the stream's length there (`reach`, by role)."""
    if not vectors:
        raise UserError("no vectors to add: give at least one, by its method's name")
    text, last = _text("Prompt"), pair.base.n_layers - 1
    role, form = _choice("Model", ROLES), _choice("Form", ["plain", "template"])
    method, where = _choice("Method", list(vectors)), _choice("Positions", list(WEIGHTS))
    layer, strength = _slider("Layer", 2 * last // 3, 0, last), _slider("Strength", 0.3, -1, 1, 0.05)

    def each(cell: Cell) -> str:
        member = getattr(pair, role.value)
        vector = normalize(vectors[method.value][layer.value], dim=0) * reach[role.value][layer.value]
        change = steered(member, [Steering(method.value, {layer.value: vector}, strength.value, where.value)])
        return _before_after(cell, member, member.prompt(text.value, form.value), change.lm)

    rows, length = [[text], [role, form, method, where], [layer, strength]], _slider("New tokens", 80, 20, 300, 20)
    return _compared(rows, length, "Write before and after", each)


def endings_explorer(pair: Pair, question: Question, material: Material) -> widgets.Widget:
    """Notebook 07: build an ending from its parts, see whether each model stops, and what it writes if not."""
    form, thought = _choice("Form", ["plain", "template"]), _choice("Thought", ["none", "answer", "real"])
    ticked = {"<think>": False, "</think>": True, "<answer> tags": False}
    think, close, tags = (widgets.Checkbox(value=value, description=name) for name, value in ticked.items())
    gap = _choice("Gap", list(GAPS), "blank line")
    answer = _choice("Answer", ["sentence", "open", "word.", "word", "wrong", "other", "none"])

    def each(cell: Cell) -> str:
        ending = Ending(think.value, thought.value, close.value, GAPS[gap.value], answer.value, tags.value)
        return _row([cell(m.role, m, *end(m, [question], [material], ending, form=form.value)) for m in pair.members])

    def write(length: int, title: str, member: Member, prompt: str) -> str:
        return f"<code>{html.escape(prompt[-160:])}</code><br>{_written(length, title, member, prompt)}"

    rows = [[form, think, thought, close], [gap, answer, tags]]
    return _compared(rows, _slider("New tokens", 40, 20, 200, 20), "Write on", each, write)


def _before_after(cell: Cell, member: Member, prompt: str, lm: Any) -> str:
    return _row([cell("before", member, prompt), cell("after", member, prompt, lm)])


def _next_token_bars(title: str, member: Member, prompt: str, lm: Any = None) -> str:
    parts = stop_parts(member, [prompt], lm=lm).iloc[0]
    rows = [(part, parts[part], STOP) for part in ("stop", "</think>", "Wait set")]
    rows += [(repr(token), share, THIRD) for token, share in top_tokens(member, [prompt], k=8, lm=lm)[0]]
    return f"<b>{title}</b>" + "".join(_bar(part, share, colour) for part, share, colour in rows)


def _written(length: int, title: str, member: Member, prompt: str, lm: Any = None) -> str:
    """What a model writes, under a title, as text and never as HTML."""
    done = complete(member, [prompt], lm=lm, max_new_tokens=length)[0]
    body = html.escape(done.text).replace("\n", "<br>")
    return f"<b>{title}</b>, {done.length} tokens, ends by {html.escape(done.stop)}<br><br>{body}"


def _bar(name: str, share: float, colour: str) -> str:
    return (
        f"<div>{html.escape(name)} {share:.1%}"
        f"<div style='background:{colour};height:8px;width:{100 * share:.1f}%'></div></div>"
    )


def _row(cells: Sequence[str]) -> str:
    """Cells side by side."""
    width = f"vertical-align:top;width:{100 // len(cells)}%"
    return f"<table style='width:100%'><tr>{''.join(f'<td style={width!r}>{cell}</td>' for cell in cells)}</tr></table>"
