"""The study's look, its few plot shapes, and saving the same bytes on every run.

Each shape makes one figure and returns it. Titles say what was found; axes name quantity and unit.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

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
Point = tuple[str, Interval, str]


def _start(title: str, *, width: float = 7.0, height: float = 3.6, panels: int = 1) -> tuple[Figure, Any]:
    mpl.rcParams.update(STYLE)
    fig, axes = plt.subplots(1, panels, figsize=(width, height), layout="constrained", squeeze=False)
    fig.suptitle("\n".join(textwrap.wrap(title, 92)), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig, axes[0]


def survival_curves(
    runs: Mapping[str, tuple[Any, Any, str]], *, title: str, limit: int, unit: str = "new tokens"
) -> Figure:
    """Share of runs still going by length, Kaplan-Meier with 95 % band; runs: name -> (lengths, stopped, colour)."""
    fig, (axis,) = _start(title)
    for level, (name, (lengths, stopped, colour)) in zip((0.85, 0.6, 0.1, 0.3), runs.items(), strict=False):
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
    longest = max(len({label for label, _, _ in rows}) for rows in panels.values())
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


def colour_key(fig: Figure, names: Mapping[str, str]) -> Figure:
    """Name the colours of a dense figure once, below it, in their own colour."""
    x, y = 0.02, -4 / 72 / fig.get_figheight()
    for name, colour in names.items():
        fig.text(x, y, "■", color=colour, fontsize=9, va="top")
        fig.text(x + 14 / 72 / fig.get_figwidth(), y, name, color="#333333", fontsize=9, va="top")
        x += (5.5 * len(name) + 32) / 72 / fig.get_figwidth()
    return fig


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


def lines(
    panels: Mapping[str, Mapping[str, tuple[Sequence[Interval], str]]],
    at: Sequence[float | int],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    zero: bool = False,
) -> Figure:
    """Mean lines with 95 % bands over x, labelled at their ends; panels share the y axis."""
    fig, axes = _start(title, width=3.0 + 2.6 * len(panels), height=3.4, panels=len(panels))
    for axis, (name, series) in zip(axes, panels.items(), strict=True):
        ends = []
        for label, (values, colour) in series.items():
            middle = [value.estimate for value in values]
            axis.plot(at, middle, color=colour, linestyle="--" if colour == CONTROL else "-")
            axis.fill_between(at, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, lw=0)
            ends.append((middle[-1], label, colour))
        _end_labels(axis, at[-1], ends)
        axis.set(xlabel=xlabel, title=name, xlim=(at[0], at[-1] + 0.42 * (at[-1] - at[0])))
        axis.set_xticks(list(at))
        if zero:
            axis.axhline(0, color="#444444", linewidth=0.8)
    low, high = min(a.get_ylim()[0] for a in axes), max(a.get_ylim()[1] for a in axes)
    for axis in axes:
        axis.set_ylim(low, high)
    axes[0].set_ylabel(ylabel)
    return fig


def _end_labels(axis: Any, x: float | int, ends: list[tuple[float, str, str]]) -> None:
    """Labels at the line ends, pushed apart where they would overlap."""
    low, high = axis.get_ylim()
    gap, last = 0.075 * (high - low), -np.inf
    for value, label, colour in sorted(ends):
        last = max(value, last + gap)
        axis.annotate(
            label, (x, last), xytext=(4, 0), textcoords="offset points", color=colour, va="center", fontsize=8
        )


def save_figure(fig: Figure, slug: str, *, pair: str, alt: str, note: str = "") -> Any:
    """Write `figures/<pair>/<slug>.png` and `.svg` (same bytes every run) and return the picture with its
    alternative text, to be shown as a cell's output. The pair and a note (n, split) stand below the figure."""
    from IPython.display import Image

    folder = figures_dir(pair)
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
