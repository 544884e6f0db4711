# SPDX-License-Identifier: MIT
"""The study's look, its few plot shapes, and saving the same bytes on every run.

Each shape makes one figure and returns it. Titles say what was found; axes name quantity and unit.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from helpers.checks import check_count, check_lengths
from helpers.stats import Interval, survival
from helpers.store import atomic, figures_dir

BASE, DISTILLED, CONTROL = "#0072B2", "#D55E00", "#8C8C8C"
STOP, WAIT, THIRD = "#000000", "#882255", "#332288"
REST, PALE, LINE = "#E3E3E3", "#CC99BB", "#88CCEE"
ROLE = {"base": BASE, "distilled": DISTILLED}
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 10,
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
in_style = plt.style.context(["default", STYLE])
Point = tuple[str, Interval, str]


def _start(
    title: str, *, width: float = 7.0, height: float = 3.6, panels: int = 1, rows: int = 1
) -> tuple[Figure, Any]:
    check_count(panels, "panels")
    fig, axes = plt.subplots(rows, panels, figsize=(width, height), layout="constrained", squeeze=False)
    line = max(92 if width >= 7 else 60, round(11.5 * width))  # characters
    fig.suptitle("\n".join(textwrap.wrap(title, line)), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig, list(axes.flat)


@in_style
def survival_curves(
    runs: Mapping[str, tuple[Any, Any, str]], *, title: str, limit: int, unit: str = "new tokens"
) -> Figure:
    """Share of runs still going by length, Kaplan-Meier with 95 % band; runs: name -> (lengths, stopped, colour)."""
    fig, (axis,) = _start(title)
    for level, (name, (lengths, stopped, colour)) in zip(
        itertools.cycle((0.85, 0.6, 0.1, 0.3)), runs.items(), strict=False
    ):
        at, share, low, high = survival(lengths, stopped)
        end = [limit] if share[-1] > 0 else []  # a curve ends where no run is left
        share, low, high = (np.concatenate([[1], curve, [curve[-1]] * len(end)]) for curve in (share, low, high))
        at = np.concatenate([[0], at, end])
        style = "--" if colour == CONTROL else "-"
        axis.step(at, share, where="post", color=colour, linestyle=style)
        axis.fill_between(at, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
        place = int(np.searchsorted(-share, -level).clip(0, len(at) - 1))
        label = (max(at[place], 0.55 * limit) if level < 0.2 else at[place], level)
        axis.annotate(name, label, xytext=(8, 4), textcoords="offset points", color=colour)
    axis.axvline(limit, color=CONTROL, linewidth=0.8, linestyle=":")
    axis.annotate("limit", (limit, 1), xytext=(-4, -2), textcoords="offset points", ha="right", va="top", color=CONTROL)
    axis.set(xlabel=f"length ({unit})", ylabel="share of prompts still going", ylim=(0, 1.02), xlim=(0, limit * 1.01))
    return fig


@in_style
def interval_rows(
    panels: Mapping[str, Sequence[Point]],
    *,
    title: str,
    unit: str,
    zero: bool = False,
    span: tuple[float, float] | None = None,
    shade: tuple[float, float] | None = None,
) -> Figure:
    """Dots with 95 % intervals, one row a label; panels: axis title -> [(label, interval, colour)].

    `span` sets the same x axis for all panels; `shade` marks a range such as that of the controls.
    """
    longest = max((len({label for label, _, _ in rows}) for rows in panels.values()), default=0)
    fig, axes = _start(title, width=7.6, height=1.5 + 0.32 * longest, panels=len(panels))
    written: list[str] = []
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        labels = list(dict.fromkeys(label for label, _, _ in rows))
        entries = {label: [(i, c) for other, i, c in rows if other == label] for label in labels}
        for k, group in enumerate(entries.values()):
            for j, (interval, colour) in enumerate(group):
                at = len(labels) - 1 - k + 0.22 * ((len(group) - 1) / 2 - j)
                marker = {CONTROL: "s", THIRD: "^", STOP: "D"}.get(colour, "o")
                axis.plot([interval.low, interval.high], [at, at], color=colour, linewidth=1.6)
                axis.plot(interval.estimate, at, marker=marker, color=colour, markersize=5)
        axis.set_title(name)
        axis.set_yticks(range(len(labels)), [] if labels == written else labels[::-1], fontsize=9)
        axis.set_ylim(-0.6, len(labels) - 0.4)
        axis.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        axis.set_axisbelow(True)
        written = labels
        if zero:
            axis.axvline(0, color="#444444", linewidth=0.8)
        if span:
            axis.set_xlim(*span)
        if shade:
            axis.axvspan(*shade, color=CONTROL, alpha=0.15, linewidth=0)
    fig.supxlabel(unit, fontsize=10)
    return fig


@in_style
def colour_key(fig: Figure, names: Mapping[str, str]) -> Figure:
    """Name the colours of a dense figure once, below it, in their own colour."""
    x, y = 0.02, -4 / 72 / fig.get_figheight()
    for name, colour in names.items():
        fig.text(x, y, "■", color=colour, fontsize=9, va="top")
        fig.text(x + 14 / 72 / fig.get_figwidth(), y, name, color="#333333", fontsize=9, va="top")
        x += (5.5 * len(name) + 32) / 72 / fig.get_figwidth()
    return fig


@in_style
def stacked_rows(
    rows: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], *, title: str, unit: str
) -> Figure:
    """One bar a row, split into named parts that sum to one; parts above 6 % carry their share."""
    fig, (axis,) = _start(title, width=7.6, height=1.5 + 0.36 * len(rows))
    for k, parts in enumerate(rows.values()):
        left, place = 0.0, len(rows) - 1 - k
        for name, colour in colours.items():
            share = parts.get(name, 0.0)
            axis.barh(place, share, left=left, color=colour, height=0.7, edgecolor="white", linewidth=0.6)
            if share > 0.06:
                dark = colour in (STOP, WAIT, THIRD, BASE, DISTILLED)
                axis.text(left + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=8,
                          color="white" if dark else "black")  # fmt: skip
            left += share
    axis.set_yticks(range(len(rows)), list(rows)[::-1], fontsize=9)
    axis.set(xlabel=unit, xlim=(0, 1))
    return colour_key(fig, dict(colours))


@in_style
def lines(
    panels: Mapping[str, Mapping[str, tuple[Sequence[Interval], str]]],
    at: Sequence[float | int],
    *,
    title: str,
    xlabel: str,
    ylabel: str | Sequence[str],
    zero: bool = False,
    rows: int = 1,
    log_rows: tuple[int, ...] = (),
    ticks: Sequence[Any] = (),
) -> Figure:
    """Mean lines with 95 % bands over x, labelled at their ends. Panels fill `rows` rows and share the y axis of
    their row; a panel's name ends at a bar, so that two rows may hold panels of one name ("base|rank"). `ticks` names
    the places of x."""
    check_count(rows, "rows", max(1, len(panels)))
    columns = len(panels) // rows
    check_lengths(panels=panels, **{f"places in {rows} rows": range(rows * columns)})
    for name, series in ((name, series) for panel in panels.values() for name, series in panel.items()):
        check_lengths(**{f"values of {name or 'a line'}": series[0], "places of x": at})
    fig, axes = _start(
        title, width=3.0 + 2.6 * columns, height=1.0 + (2.4 if rows == 1 else 2.0) * rows, panels=columns, rows=rows
    )
    for axis, series in zip(axes, panels.values(), strict=True):
        for values, colour in series.values():
            middle = [value.estimate for value in values]
            axis.plot(at, middle, color=colour, linestyle="--" if colour == CONTROL else "-")
            axis.fill_between(at, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, lw=0)
        axis.set(xlim=(at[0], at[-1] + 0.42 * (at[-1] - at[0])))
        places = at if len(at) < 9 else axis.get_xticks()
        axis.set_xticks([x for x in places if at[0] <= x <= at[-1]], list(ticks) or None)
    headings = [name.split("|")[0] for name in panels]
    for row in range(rows):
        beside = axes[row * columns : (row + 1) * columns]
        for axis in beside:
            axis.set_yscale("log" if row in log_rows else "linear")
            if zero and row not in log_rows:  # a logarithmic axis would stretch towards a zero line, never to end
                axis.axhline(0, color="#444444", linewidth=0.8)
        low, high = min(a.get_ylim()[0] for a in beside), max(a.get_ylim()[1] for a in beside)
        beside[0].set_ylabel(ylabel if isinstance(ylabel, str) else ylabel[row])
        for column, (axis, series) in enumerate(zip(beside, list(panels.values())[row * columns :], strict=False)):
            axis.set_ylim(low, high)
            if row == 0 or headings[row * columns + column] != headings[column]:
                axis.set_title(headings[row * columns + column])
            axis.set_xlabel(xlabel if row == rows - 1 else "")
            _end_labels(
                axis, at[-1], [(values[-1].estimate, name, colour) for name, (values, colour) in series.items()]
            )
    return fig


def _end_labels(axis: Any, x: float | int, ends: list[tuple[float, str, str]]) -> None:
    """Labels at the line ends, pushed apart where they would overlap and kept below the top of the panel; a blank
    name has none. Heights are shares of the axis."""
    gap, to_share = 0.085, axis.transData + axis.transAxes.inverted()
    named = sorted(end for end in ends if end[1].strip())
    heights = [float(to_share.transform((x, value))[1]) for value, _, _ in named]
    for k in range(1, len(heights)):
        heights[k] = max(heights[k], heights[k - 1] + gap)
    ceiling = 1.0
    for k in reversed(range(len(heights))):
        heights[k] = min(heights[k], ceiling)
        ceiling = heights[k] - gap
    place = to_share.transform((x, named[0][0]))[0] if named else 0
    for (_, label, colour), height in zip(named, heights, strict=True):
        axis.annotate(
            label, (place, height), xycoords="axes fraction", xytext=(4, 0), textcoords="offset points",
            color=colour, va="center", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


@in_style
def fits(
    panels: Mapping[str, tuple[Sequence[Interval], Mapping[str, Any]]],
    at: Sequence[int],
    colours: Mapping[str, str],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Dots with 95 % intervals and the curves fitted to them, a y axis a panel."""
    fig, axes = _start(title, width=2.0 + 2.6 * len(panels), height=3.4, panels=len(panels))
    for axis, (name, (seen, curves)) in zip(axes, panels.items(), strict=True):
        for x, interval in zip(at, seen, strict=True):
            axis.plot([x, x], [interval.low, interval.high], color="#444444", linewidth=1)
            axis.plot(x, interval.estimate, "o", color="#444444", markersize=3.5)
        for width, (shape, values) in zip((1.5, 4.0, 1.5), curves.items(), strict=False):  # curves may coincide
            axis.plot(at, values, color=colours[shape], linestyle="--" if colours[shape] == CONTROL else "-", lw=width)
        axis.set(title=name, xlabel=xlabel)
    axes[0].set_ylabel(ylabel)
    return colour_key(fig, colours)


@in_style
def heat_maps(
    panels: Mapping[str, Any],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    unit: str,
    columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    names: Sequence[str] | Mapping[str, Sequence[str]] = (),
    diverging: bool = True,
    written: bool = False,
) -> Figure:
    """Matrices on one colour scale, centred at zero where signs mean something; row 0 at the bottom. `columns` and
    `names` label columns and rows, of all panels or of each; `written` puts each number into its cell."""
    sizes = [np.asarray(matrix).shape for matrix in panels.values()]
    named = any(isinstance(label, Mapping) for label in (columns, names))
    fig, axes = _start(
        title, width=2.4 + 2.6 * len(panels), height=1.6 + 0.1 * max([12, *(rows for rows, _ in sizes)]),
        panels=len(panels),
    )  # fmt: skip
    bound = max(float(np.nanmax(np.abs(matrix))) for matrix in panels.values())
    scale = (
        {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound} if diverging else {"cmap": "Greys", "vmin": 0, "vmax": bound}
    )
    for place, (axis, (name, matrix)) in enumerate(zip(axes, panels.items(), strict=True)):
        image = axis.imshow(np.asarray(matrix), aspect="auto", origin="lower", interpolation="nearest", **scale)
        axis.set_title(name)
        axis.set_xlabel(xlabel)
        for (row, column), value in np.ndenumerate(np.asarray(matrix)) if written else ():
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                      color="white" if abs(value) > 0.6 * bound else "black")  # fmt: skip
        for label, setter, turn in ((columns, axis.set_xticks, 60), (names, axis.set_yticks, 0)):
            chosen = label[name] if isinstance(label, Mapping) else label
            if len(chosen):
                slanted = {"rotation": turn, "ha": "right", "rotation_mode": "anchor"} if turn else {}
                setter(range(len(chosen)), chosen, fontsize=7, **slanted)
        if place and not named:
            axis.set_yticklabels([])
    axes[0].set_ylabel(ylabel)
    fig.colorbar(image, ax=list(axes), label=unit, shrink=0.9, pad=0.01)
    return fig


@in_style
def scatter(
    panels: Mapping[str, Sequence[tuple[str, Any, Any, str]]], *, title: str, xlabel: str, ylabel: str
) -> Figure:
    """Dots with the line of equality; panels: name -> [(label, x, y, colour)]; axes are equal within a panel."""
    fig, axes = _start(title, width=1.2 + 2.9 * len(panels), height=3.8, panels=len(panels))
    for axis, (name, groups) in zip(axes, panels.items(), strict=True):
        for label, x, y, colour in groups:
            axis.plot(x, y, "s" if colour == CONTROL else "o", color=colour, markersize=4, alpha=0.7, lw=0, label=label)
        low, high = (f(axis.get_xlim() + axis.get_ylim()) for f in (min, max))
        axis.plot([low, high], [low, high], color="#444444", linewidth=0.8)
        axis.set(title=name, xlabel=xlabel)
        axis.legend(fontsize=8, loc="upper left", handletextpad=0.2)
    axes[0].set_ylabel(ylabel)
    return fig


@in_style
def token_map(
    tokens: Sequence[str], rows: Sequence[Sequence[tuple[str, float]]], names: Sequence[str], *, title: str, unit: str
) -> Figure:
    """A lens as a map: column = a token of the prompt, row = a point, cell = what would come next and how surely."""
    fig, (axis,) = _start(title, width=1.6 + 0.95 * len(tokens), height=1.4 + 0.24 * len(rows))
    shares = np.array([[share for _, share in row] for row in rows])
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest")
    for place, row in enumerate(rows):
        for column, (token, share) in enumerate(row):
            axis.text(column, place, _shown(token), ha="center", va="center", fontsize=7,
                      color="white" if share > 0.6 else "black")  # fmt: skip
    axis.set_xticks(range(len(tokens)), [_shown(token) for token in tokens], fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set(xlabel="the prompt's last tokens", ylabel="depth (layers passed)")
    fig.colorbar(image, ax=axis, label=unit, shrink=0.8, pad=0.01)
    return fig


def _shown(token: str) -> str:
    """A token as a figure can print it: marks for spaces and new lines, nothing the fonts lack, not too long."""
    text = token.replace("\n", "\\n").replace(" ", "·").replace("$", "\\$")
    text = "".join(mark if mark.isprintable() and ord(mark) < 0x2000 else "□" for mark in text)
    return text if len(text) <= 12 else text[:11] + "…"


@in_style
def picture_html(fig: Figure, alt: str = "") -> str:
    """A figure as an HTML picture, for explorers."""
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=110, bbox_inches="tight")
    plt.close(fig)
    return f"<img alt='{html.escape(alt)}' src='data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}'>"


@in_style
def save_figure(fig: Figure, slug: str, *, pair: str, alt: str, note: str = "", folder: Path | None = None) -> Any:
    """Write `figures/<pair>/<slug>.png` and `.svg` (same bytes every run; or to `folder`) and return the picture with
    its alternative text, to be shown as a cell's output. The pair and a note (n, split) stand below the figure."""
    from IPython.display import Image

    folder = folder or figures_dir(pair)
    below = f"pair {pair}, {note}" if note else f"pair {pair}"
    fig.text(0.99, -20 / 72 / fig.get_figheight(), below, color="#666666", fontsize=8, ha="right", va="top")
    options = {"bbox_inches": "tight", "facecolor": "white"}
    png, svg = io.BytesIO(), io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None, "Description": alt}, **options)
    fig.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Description": alt}, **options)
    plt.close(fig)
    for suffix, content in ((".png", png), (".svg", svg)):
        with atomic(folder / f"{slug}{suffix}") as temporary:
            temporary.write_bytes(content.getvalue())
    return Image(data=png.getvalue(), width=760, alt=alt)
