# SPDX-License-Identifier: MIT
"""The study's look, its few plot shapes, and saving the same bytes on every run. A value is an `Interval`, or a number,
which is drawn alone. Panels are given by name."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Image
from matplotlib.figure import Figure
from matplotlib.style import context

from helpers.checks import check_lengths
from helpers.stats import survival
from helpers.store import atomic, figures_dir

BASE, DISTILLED, CONTROL = "#0072B2", "#D55E00", "#8C8C8C"
STOP, WAIT, THIRD = "#000000", "#882255", "#332288"
REST, PALE, LINE = "#E3E3E3", "#CC99BB", "#88CCEE"
ROLE = {"base": BASE, "distilled": DISTILLED}
STYLE = {
    "savefig.dpi": 200,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "why-r1-does-not-stop",
    "svg.fonttype": "none",
}
# How each figure is drawn and saved: no setting of the user's own reaches it, and none of these reaches the user's own.
in_style = context(["default", STYLE])
DASHES, MARKERS = {CONTROL: "--"}, {CONTROL: "s", THIRD: "^", STOP: "D"}  # of lines and dots, by colour
Colours = Mapping[str, str]  # by name
Labels = Sequence[str] | Mapping[str, Sequence[str]]


def _start(title: str, width: float = 7, height: float = 3.6, panels: Any = ("",), rows: int = 1, **text: str) -> Any:
    """A figure that carries its title, and its named axes, row by row; only the first has a y label."""
    fig = Figure(figsize=(width, height), layout="constrained", label=title)
    lines = textwrap.wrap(title, max(60, round(11 * width)))
    fig.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes = list(fig.subplots(rows, len(panels) // rows, squeeze=False).flat)
    for axis, name in zip(axes, panels, strict=True):
        axis.set(title=name, **text if axis is axes[0] else text | {"ylabel": ""})
    return fig, axes


def _spread(values: Any) -> np.ndarray:
    """Middle, low and high of intervals or numbers, [line, 3, value]; of one line, or of [line, value]."""
    many = values if np.ndim(values) == 2 else [values]
    return np.array([[[float(getattr(v, e, v)) for v in line] for e in ("estimate", "low", "high")] for line in many])


@in_style
def survival_curves(runs: Mapping[str, tuple[Any, Any, str]], *, title: str, limit: int) -> Figure:
    """Share of runs still going by length, Kaplan-Meier with 95 % band; runs: name -> (lengths, stopped, colour)."""
    fig, (axis,) = _start(title, xlabel="length (new tokens)", ylabel="share of prompts still going")
    for level, (name, (lengths, stopped, colour)) in zip(cycle((0.85, 0.6, 0.1, 0.3)), runs.items(), strict=False):
        at, share, low, high = survival(lengths, stopped)
        end = [limit] if share[-1] > 0 else []  # a curve ends where no run is left
        share, low, high = (np.concatenate([[1], curve, [curve[-1]] * len(end)]) for curve in (share, low, high))
        at = np.concatenate([[0], at, end])
        axis.step(at, share, where="post", color=colour, linestyle=DASHES.get(colour, "-"))
        axis.fill_between(at, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
        place = int(np.searchsorted(-share, -level).clip(0, len(at) - 1))
        label = (max(at[place], 0.55 * limit) if level < 0.2 else at[place], level)
        axis.annotate(name, label, xytext=(8, 4), textcoords="offset points", color=colour)
    axis.axvline(limit, color=CONTROL, linewidth=0.8, linestyle=":")
    axis.annotate("limit", (limit, 1), xytext=(-4, -2), textcoords="offset points", ha="right", va="top", color=CONTROL)
    axis.set(ylim=(0, 1.02), xlim=(0, limit * 1.01))
    return fig


@in_style
def interval_rows(
    panels: Mapping[str, Sequence[tuple[str, Any, str]]], *, title: str, unit: str | Sequence[str], zero: bool = False,
    span: tuple[float, float] | None = None, shade: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """Dots with 95 % intervals, one row a label; panels: [(label, value, colour)]. `unit` is that of all panels or of
    each; `span` sets the same x axis for all; `shade` marks a range such as that of the controls."""
    labels = [list(dict.fromkeys(label for label, _, _ in rows)) for rows in panels.values()]
    fig, axes = _start(title, 7.6, 1.5 + 0.32 * max(map(len, labels)), panels)
    for axis, rows, names, before in zip(axes, panels.values(), labels, [[], *labels], strict=False):
        for k, label in enumerate(names, start=1):
            group = [(value, colour) for other, value, colour in rows if other == label]
            for j, (value, colour) in enumerate(group):
                height = len(names) - k + 0.22 * ((len(group) - 1) / 2 - j)
                middle, *ends = _spread([value])[0, :, 0]
                axis.plot(ends, [height, height], color=colour, linewidth=1.6)
                axis.plot(middle, height, marker=MARKERS.get(colour, "o"), color=colour, markersize=5)
        axis.set_yticks(range(len(names)), [] if names == before else names[::-1], fontsize=9)
        axis.set(ylim=(-0.6, len(names) - 0.4), axisbelow=True)
        axis.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        if zero:
            axis.axvline(0, color="#444444", linewidth=0.8)
        if span:
            axis.set_xlim(*span)
        if shade:
            axis.axvspan(*shade, color=CONTROL, alpha=0.15, linewidth=0)
        if not isinstance(unit, str):
            axis.set_xlabel(unit[axes.index(axis)])
    if isinstance(unit, str):
        fig.supxlabel(unit, fontsize=10)
    return fig


@in_style
def stacked_rows(rows: Mapping[str, Mapping[str, float]], colours: Colours, *, title: str, unit: str) -> Figure:
    """One bar a row, split into named parts that sum to one; parts above 6 % carry their share."""
    fig, (axis,) = _start(title, 7.6, 1.5 + 0.36 * len(rows), xlabel=unit)
    names, left = list(rows)[::-1], np.zeros(len(rows))
    for part, colour in colours.items():
        shares = np.array([rows[name].get(part, 0.0) for name in names])
        bars = axis.barh(range(len(rows)), shares, 0.7, left, color=colour, edgecolor="white", linewidth=0.6)
        ink = "white" if colour in (STOP, WAIT, THIRD, BASE, DISTILLED) else "black"
        texts = [f"{share:.0%}" if share > 0.06 else "" for share in shares]
        axis.bar_label(bars, texts, label_type="center", fontsize=8, color=ink)
        left += shares
    axis.set_yticks(range(len(rows)), names, fontsize=9)
    axis.set_xlim(0, 1)
    return fig


@in_style
def lines(
    panels: Mapping[str | tuple[str, str], Mapping[str, tuple[Any, str]]], at: Sequence[float | int], *, title: str,
    xlabel: str, ylabel: str | Sequence[str], zero: bool = False, rows: int = 1,
    log_rows: Sequence[int] = (), ticks: Sequence[Any] = (),
) -> Figure:  # fmt: skip
    """Mean lines with 95 % bands over x, labelled at their ends; panels: {label: (values, colour)}. Values [line, x]
    are many lines of one label, "" is no label. Panels fill `rows` rows and share the y axis of their row; a heading
    that stands over a whole column is given as (heading, row). `ticks` names the places of x."""
    drawn = [{label: (_spread(values), colour) for label, (values, colour) in s.items()} for s in panels.values()]
    columns = len(panels) // rows
    shown = [name if isinstance(name, str) else name[0] if k < columns else "" for k, name in enumerate(panels)]
    width = 3.0 + 2.6 * columns
    fig, axes = _start(title, width, 1.0 + (2.4 if rows == 1 else 2.0) * rows, shown, rows=rows)
    inches = 0.06 + 0.057 * max(len(label) for series in drawn for label in series)  # of the longest label
    room = min(0.42, inches / max(width / columns - 0.6 - inches, 0.1))  # for it, as a share of x
    for k, (axis, series) in enumerate(zip(axes, drawn, strict=True)):
        for label, (values, colour) in series.items():
            check_lengths(**{f"values of {label or 'a line'}": values[0, 0], "places of x": at})
            for middle, low, high in values:
                axis.plot(at, middle, color=colour, linestyle=DASHES.get(colour, "-"))
                if (low < high).any():
                    axis.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
        axis.set(xlim=(at[0], at[-1] + room * (at[-1] - at[0])))
        places = [x for x in (at if len(at) < 9 else axis.get_xticks()) if at[0] <= x <= at[-1]]
        axis.set_xticks(places, list(ticks) or None)
        if k // columns in log_rows:
            axis.set_yscale("log")
        elif zero:  # a logarithmic axis would stretch towards a zero line, never to end
            axis.axhline(0, color="#444444", linewidth=0.8)
    for k, (axis, series) in enumerate(zip(axes, drawn, strict=True)):
        row, column = divmod(k, columns)
        lows, highs = zip(*(other.get_ylim() for other in axes[k - column :][:columns]), strict=True)
        axis.set(ylim=(min(lows), max(highs)), xlabel=xlabel if row == rows - 1 else "")
        if column == 0:
            axis.set_ylabel(ylabel if isinstance(ylabel, str) else ylabel[row])
        _end_labels(axis, at[-1], [(values[0, 0, -1], label, c) for label, (values, c) in series.items() if label])
    return fig


def _end_labels(axis: Any, x: float | int, ends: list[tuple[float, str, str]]) -> None:
    """Labels at the line ends, pushed apart where they would overlap and kept below the top, in shares of the axis."""
    gap, ends, to_share = 0.085, sorted(ends), axis.transData + axis.transAxes.inverted()
    places = [to_share.transform((x, value)).tolist() for value, _, _ in ends]
    pushed = [*accumulate((height for _, height in places), lambda below, y: max(y, below + gap))]
    kept = [*accumulate(pushed[::-1], lambda above, y: min(y, above - gap), initial=1.0 + gap)][:0:-1]
    how = {"xycoords": "axes fraction", "xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
    how["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for (_, label, colour), height in zip(ends, kept, strict=True):
        axis.annotate(label, (places[0][0], height), color=colour, **how)


@in_style
def fits(
    panels: Mapping[str, tuple[Any, Any]], at: Sequence[int], colours: Colours, *, title: str, xlabel: str, ylabel: str
) -> Figure:
    """Dots with 95 % intervals and curves fitted to them; panels: (values, {shape: curve}), each its y axis."""
    fig, axes = _start(title, 2.0 + 2.6 * len(panels), 3.4, panels, xlabel=xlabel, ylabel=ylabel)
    for axis, (seen, curves) in zip(axes, panels.values(), strict=True):
        for x, middle, *ends in zip(at, *_spread(seen)[0], strict=True):
            axis.plot([x, x], ends, color="#444444", linewidth=1)
            axis.plot(x, middle, "o", color="#444444", markersize=3.5)
        for width, (shape, values) in zip((1.5, 4.0, 1.5), curves.items(), strict=False):  # curves may coincide
            axis.plot(at, values, color=colours[shape], linestyle=DASHES.get(colours[shape], "-"), lw=width)
    return fig


@in_style
def heat_maps(
    panels: Mapping[str, Any], *, title: str, xlabel: str, ylabel: str, unit: str, columns: Labels = (),
    names: Labels = (), diverging: bool = True, written: bool = False,
) -> Figure:  # fmt: skip
    """Matrices on one colour scale, centred at zero where signs mean something; row 0 at the bottom. `columns` and
    `names` label columns and rows, of all panels or of each; `written` puts each number into its cell."""
    matrices = [np.asarray(matrix) for matrix in panels.values()]
    height = 1.6 + 0.1 * max(12, *map(len, matrices))
    fig, axes = _start(title, 2.4 + 2.6 * len(panels), height, panels, xlabel=xlabel, ylabel=ylabel)
    bound = max(float(np.nanmax(np.abs(matrix))) for matrix in matrices)
    colours, least = ("RdBu_r", -bound) if diverging else ("Greys", 0)
    for axis, name, matrix in zip(axes, panels, matrices, strict=True):
        texts = [[f"{value:.2f}" for value in row] for row in matrix] if written else []
        image = _cells(axis, matrix, texts, 8, cmap=colours, vmin=least, vmax=bound)
        across, up = (label[name] if isinstance(label, Mapping) else label for label in (columns, names))
        if across:
            axis.set_xticks(range(len(across)), across, fontsize=7, rotation=60, ha="right", rotation_mode="anchor")
        if up:
            axis.set_yticks(range(len(up)), up, fontsize=7)
        if axis is not axes[0] and not isinstance(columns, Mapping) and not isinstance(names, Mapping):
            axis.set_yticklabels([])
    fig.colorbar(image, ax=axes, label=unit, shrink=0.9, pad=0.01)
    return fig


def _cells(axis: Any, matrix: Any, texts: Sequence[Sequence[str]], size: int, **colours: Any) -> Any:
    """A matrix as an image, row 0 at the bottom, with texts in its cells."""
    image = axis.imshow(matrix, aspect="auto", origin="lower", interpolation="nearest", **colours)
    for (row, column), text in np.ndenumerate(texts):
        ink = "white" if abs(matrix[row][column]) > 0.6 * colours["vmax"] else "black"
        axis.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)
    return image


@in_style
def scatter(panels: Mapping[str, Any], *, title: str, xlabel: str, ylabel: str) -> Figure:
    """Dots with the line of equality; panels: [(label, x, y, colour)]."""
    fig, axes = _start(title, 1.2 + 2.9 * len(panels), 3.8, panels, xlabel=xlabel, ylabel=ylabel)
    for axis, groups in zip(axes, panels.values(), strict=True):
        for label, x, y, colour in groups:
            axis.plot(x, y, "s" if colour == CONTROL else "o", color=colour, markersize=4, alpha=0.7, lw=0, label=label)
        low, high = (f(axis.get_xlim() + axis.get_ylim()) for f in (min, max))
        axis.plot([low, high], [low, high], color="#444444", linewidth=0.8)
        axis.legend(fontsize=8, loc="upper left", handletextpad=0.2)
    return fig


@in_style
def token_map(
    tokens: Sequence[str], rows: Sequence[Sequence[tuple[str, float]]], names: Sequence[str], *, title: str, unit: str
) -> Figure:
    """A lens as a map: column = a token of the prompt, row = a point, cell = what would come next and how surely."""
    size, labels = (1.6 + 0.95 * len(tokens), 1.4 + 0.24 * len(rows)), map(_printable, tokens)
    fig, (axis,) = _start(title, *size, xlabel="the prompt's last tokens", ylabel="depth (layers passed)")
    texts = [[_printable(token) for token, _ in row] for row in rows]
    image = _cells(axis, [[share for _, share in row] for row in rows], texts, 7, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(tokens)), labels, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    fig.colorbar(image, ax=axis, label=unit, shrink=0.8, pad=0.01)
    return fig


def _printable(token: str) -> str:
    """A token as a figure can print it: marks for spaces and new lines, nothing the fonts lack, not too long."""
    text = token.replace("\n", "\\n").replace(" ", "·").replace("$", "\\$")
    text = "".join(mark if mark.isprintable() and ord(mark) < 0x2000 else "□" for mark in text)
    return text if len(text) <= 12 else text[:11] + "…"


@in_style
def picture_html(fig: Figure) -> str:
    """A figure as an HTML picture, for explorers."""
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=110, bbox_inches="tight")
    picture = base64.b64encode(png.getvalue()).decode()
    return f"<img alt='{html.escape(fig.get_label())}' src='data:image/png;base64,{picture}'>"


@in_style
def save_figure(
    fig: Figure, slug: str, *, pair: str, of: str = "", note: str = "", alt: str = "",
    key: Colours | None = None, size: tuple[float | int, float | int] | None = None, folder: Path | None = None,
) -> Image:  # fmt: skip
    """Write `figures/<pair>/<slug>.png` and `.svg` (or to `folder`) and return the picture. Its alternative text is the
    figure's title unless given. Below it stand the names of colours (`key`), what it is `of` (the pair unless given)
    and a note (n, split); `size` is in inches."""
    alt = alt or fig.get_label()
    width, height = size or fig.get_size_inches()
    fig.set_size_inches(width, height)
    x, y, line = 0.02, -4 / 72 / height, {"fontsize": 9, "va": "top"}
    for name, colour in (key or {}).items():
        fig.text(x, y, "■", color=colour, **line)
        fig.text(x + 14 / 72 / width, y, name, color="#333333", **line)
        x += (5.5 * len(name) + 32) / 72 / width
    below = ", ".join(filter(None, (of or f"pair {pair}", note)))
    fig.text(0.99, (-20 if key else -4) / 72 / height, below, color="#666666", fontsize=8, ha="right", va="top")
    path = (folder or figures_dir(pair)) / f"{slug}.png"
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        with atomic(path.with_suffix(f".{kind}")) as temporary:
            fig.savefig(temporary, format=kind, metadata=metadata | {"Description": alt}, bbox_inches="tight")
    return Image(data=path.read_bytes(), width=760, alt=alt)
