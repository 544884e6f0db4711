# SPDX-License-Identifier: MIT
"""ipywidgets views, one a notebook. Each returns a widget to be shown last in its cell."""

from __future__ import annotations

import html
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, cycle
from typing import Any

import ipywidgets as widgets
import pandas as pd
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from helpers.figures import BASE, CONTROL, DISTILLED, STOP, THIRD, WAIT, lines, picture_html
from helpers.generation import Change, complete
from helpers.pairs import Member, Pair
from helpers.patching import swapped
from helpers.prompts import JUST, Ending, Material, Question, with_ending
from helpers.readouts import lens, lens_map, stop_parts, top_tokens
from helpers.steering import WEIGHTS, Steering, steered
from helpers.store import UserError
from helpers.tokens import single_id
from helpers.weights import Neuron, NeuronEdit, with_neurons

EXAMPLE = f"What is the capital of France? {JUST} The capital of France is Paris."
FORMS = ["plain", "template"]
GAPS = {"blank line": "\n\n", "new line": "\n", "space": " ", "none": ""}
ROLES = ["base", "distilled"]
SLIDERS = {int: widgets.IntSlider, float: widgets.FloatSlider, tuple: widgets.IntRangeSlider}  # by the value's type
Runs = Generator[tuple[Any, ...], None, None]  # (title in HTML, member, prompt), and perhaps an edited model
Look = Callable[..., str]  # HTML of one of them


def _control(name: str, given: Any) -> Any:
    """A tick for a bool, a choice for a list, a text for a string, a slider for (value, least, most, perhaps step)."""
    if isinstance(given, tuple):
        how = dict(zip(("value", "min", "max", "step"), given, strict=False))
        made = SLIDERS[type(given[0])](continuous_update=False, **how)
    elif isinstance(given, str):
        kind = widgets.Textarea if given == EXAMPLE else widgets.Text
        made = kind(value=given, continuous_update=False, layout=widgets.Layout(width="98%"))
    else:
        made = widgets.Checkbox(value=given) if isinstance(given, bool) else widgets.Dropdown(options=given)
    made.description, made.style.description_width = name, "90px"
    return made


def _next_token_bars(title: str, member: Member, prompt: str, lm: Any = None) -> str:
    parts = stop_parts(member, [prompt], lm=lm).iloc[0]
    rows = [(part, parts[part], STOP) for part in ("stop", "</think>", "Wait set")]
    rows += [(repr(token), share, THIRD) for token, share in top_tokens(member, [prompt], k=8, lm=lm)[0]]
    return f"<b>{title}</b>" + "".join(
        f"<div>{html.escape(name)} {share:.1%}"
        f"<div style='background:{colour};height:8px;width:{100 * share:.1f}%'></div></div>"
        for name, share, colour in rows
    )


def _continuation(length: int, title: str, member: Member, prompt: str, lm: Any = None) -> str:
    """What a model writes, under a title, as text and never as HTML."""
    done = complete(member, [prompt], change=Change(lm=lm), max_new_tokens=length)[0]
    body = html.escape(done.text).replace("\n", "<br>")
    return f"<b>{title}</b>, {done.length} tokens, ends by {html.escape(done.stop)}<br><br>{body}"


def _panel(
    rows: Sequence[Mapping[str, Any]], label: str, runs: Callable[..., Runs], *, look: Look | None = _next_token_bars,
    length: Sequence[int] = (),
) -> widgets.Widget:  # fmt: skip
    """Rows of controls, and side by side what `look` makes of each of the `runs` that the controls' values name, which
    follows the controls. A click shows it anew or, given a `length` (new tokens, at most), what the models write."""
    placed = [widgets.HBox([_control(*named) for named in row.items()]) for row in rows]
    controls, looked, written = [*chain(*(row.children for row in placed))], widgets.HTML(), widgets.HTML()
    button = widgets.Button(description=label, button_style="primary", layout=widgets.Layout(width="auto"))
    tokens = [_control("New tokens", (length[0], 20, length[1], 20))] if length else []

    def fill(output: widgets.HTML, show: Look) -> None:
        try:
            with closing(runs(*(control.value for control in controls))) as named:  # a swap ends with it
                cells = [show(*run) for run in named]
            cells = [f"<td style='vertical-align:top;width:{100 // len(cells)}%'>{cell}</td>" for cell in cells]
            output.value = f"<table style='width:100%;table-layout:fixed'><tr>{''.join(cells)}</tr></table>"
        except UserError as error:
            output.value = f"<p style='color:#882255'>{html.escape(str(error))}</p>"

    def follow(_: Any = None) -> None:
        fill(looked, look)

    button.on_click(lambda _: fill(written, partial(_continuation, tokens[0].value)) if length else follow())
    if look:
        placed.append(looked)
        follow()
        for control in controls:
            control.observe(follow, names="value")
    return widgets.VBox([*placed, *tokens, button, written])


def _both(pair: Pair, text: str, form: str) -> Runs:
    """Both models on a text, put into a form or, if "exact", as it stands."""
    yield from ((m.role, m, text if form == "exact" else m.prompt(text, form)) for m in pair.members)


def ask_both(pair: Pair) -> widgets.Widget:
    """Notebook 01: put a question to both models and read what each writes."""

    def runs(question: str, form: str, just: bool) -> Runs:
        return _both(pair, f"{question} {JUST}" if just and question.strip() else question, form)

    rows = [{"Question": "What is the capital of Italy?"}, {"Form": FORMS[::-1], JUST: True}]
    return _panel(rows, "Ask both", runs, look=None, length=(120, 400))


def next_token(pair: Pair) -> widgets.Widget:
    """Notebook 02: edit a text and see what each model would do next, as bars."""
    return _panel([{"Text": EXAMPLE}, {"Form": ["plain", "exact"]}], "Read out", partial(_both, pair))


def lens_explorer(pair: Pair) -> widgets.Widget:
    """Notebook 03: the lens of one prompt as a map of top tokens, and chosen tokens' way through the depths."""

    def runs(text: str, form: str, role: str, last: int, words: str) -> Runs:
        member = getattr(pair, role)
        chosen = [word.replace("\\n", "\n") for word in words.split("|") if word]
        yield member, text if form == "exact" else member.prompt(text, form), chosen, last

    choices = {"Form": [*FORMS, "exact"], "Model": ROLES[::-1], "Positions": (8, 1, 16)}
    rows = [{"Prompt": EXAMPLE}, choices, {"Tokens": " Wait| Yes|\\n"}]
    return _panel(rows, "Read the lens", runs, look=_lens_html)


def _lens_html(member: Member, prompt: str, words: list[str], last: int) -> str:
    ids = {"stop": member.groups.stop[0]} | {repr(word): single_id(member.tokenizer, word) for word in words}
    if missing := [word for word, index in ids.items() if index is None]:
        raise UserError(f"{', '.join(missing)} is not one token of {member.source}: try it with or without its space")
    tokens, rows = lens_map(member, prompt, last=last)
    cells, shares = (pd.DataFrame([[pair[k] for pair in row] for row in rows])[::-1] for k in (0, 1))  # deepest first
    table = cells.style.background_gradient("Blues", axis=None, gmap=shares, vmin=0, vmax=1)
    table = table.format(lambda token: html.escape(repr(token))).set_tooltips(shares.map("{:.1%}".format))
    table = table.format_index(lambda place: html.escape(repr(tokens[place])), axis=1).to_html()
    seen, colours = lens(member, [prompt], list(ids.values())), (STOP, WAIT, THIRD, BASE, DISTILLED, CONTROL)
    curves = {
        name: dict(zip(ids, zip(values[0].T.tolist(), cycle(colours), strict=False), strict=True))
        for name, values in (("log-probability (nats)", seen.logprobs), ("logit", seen.logits))
    }
    fig = lines(curves, range(member.n_layers + 1), title="At the last position", xlabel="depth", ylabel="")
    return f"<div style='overflow-x:auto;font-size:11px'>{table}</div>{picture_html(fig)}"


def neurons_explorer(
    pair: Pair, stop_neurons: Mapping[str, Sequence[Neuron]], wait_neurons: Mapping[str, Sequence[Neuron]]
) -> widgets.Widget:
    """Notebook 04: scale the value vectors nearest to stop and Wait, by role, and see what each model does next."""

    def runs(text: str, role: str, form: str, count: int, stop: float, wait: float) -> Runs:
        member, near = getattr(pair, role), ((stop_neurons[role], stop), (wait_neurons[role], wait))
        prompt, edits = member.prompt(text, form), (NeuronEdit(nearest[:count], factor=by) for nearest, by in near)
        yield from [("before", member, prompt), ("after", member, prompt, with_neurons(member, *edits))]

    most = min(len(neurons) for by_role in (stop_neurons, wait_neurons) for neurons in by_role.values())
    factors = {"Stop ×": (0.0, -4, 16, 0.5), "Wait ×": (4.0, -4, 16, 0.5)}
    rows = [{"Prompt": EXAMPLE}, {"Model": ROLES, "Form": FORMS}, {"Neurons": (min(10, most), 1, most), **factors}]
    return _panel(rows, "Write before and after", runs, length=(80, 300))


def swap_explorer(pair: Pair) -> widgets.Widget:
    """Notebook 05: take layers from the other model, and see base, distilled and hybrid side by side."""

    def runs(text: str, role: str, part: str, layers: tuple[int, int]) -> Runs:
        yield from _both(pair, text, "plain")
        with swapped(pair, role, range(layers[0], layers[1] + 1), part=part) as hybrid:
            title = f"{role} with layers {layers[0]} to {layers[1]} of the other"
            yield title, hybrid, hybrid.prompt(text, "plain")

    last, parts = pair.base.n_layers - 1, ["all", "attention", "mlp"]
    rows = [{"Prompt": EXAMPLE}, {"Model": ROLES, "Part": parts, "Layers": ((last // 2, last), 0, last)}]
    return _panel(rows, "Write with all three", runs, length=(60, 200))


def steering_explorer(
    pair: Pair, vectors: Mapping[str, Float[Tensor, "layer d_model"]], reach: Mapping[str, Float[Tensor, " layer"]]
) -> widgets.Widget:
    """Notebook 06: add a vector to a layer's output, in shares of the stream's length there (`reach`, by role)."""
    if not vectors:
        raise UserError("no vectors to add: give at least one, by its method's name")

    def runs(text: str, role: str, form: str, method: str, where: str, layer: int, strength: float) -> Runs:
        member, vector = getattr(pair, role), normalize(vectors[method][layer], dim=0) * reach[role][layer]
        lm, prompt = steered(member, [Steering(method, {layer: vector}, strength, where)]).lm, member.prompt(text, form)
        yield from [("before", member, prompt), ("after", member, prompt, lm)]

    last, choices = pair.base.n_layers - 1, {"Method": list(vectors), "Positions": list(WEIGHTS)}
    sliders = {"Layer": (2 * last // 3, 0, last), "Strength": (0.3, -1, 1, 0.05)}
    rows = [{"Prompt": EXAMPLE}, {"Model": ROLES, "Form": FORMS, **choices}, sliders]
    return _panel(rows, "Write before and after", runs, length=(80, 300))


def endings_explorer(pair: Pair, question: Question, material: Material) -> widgets.Widget:
    """Notebook 07: build an ending from its parts, see whether each model stops, and what it writes if not."""

    def runs(form: str, think: bool, thought: str, close: bool, gap: str, answer: str, tags: bool) -> Runs:
        ending = Ending(think, thought, close, GAPS[gap], answer, tags)
        for m in pair.members:
            (prompt,) = with_ending(m, [question], [material], ending, form=form)
            yield f"{m.role}, after <code>{html.escape(prompt[-160:])}</code>", m, prompt

    answers = ["sentence", "open", "word.", "word", "wrong", "other", "none"]
    thought = {"<think>": False, "Thought": ["none", "answer", "real"], "</think>": True}
    rows = [{"Form": FORMS, **thought}, {"Gap": list(GAPS), "Answer": answers, "<answer> tags": False}]
    return _panel(rows, "Write on", runs, length=(40, 200))
