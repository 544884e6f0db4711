# SPDX-License-Identifier: MIT
import itertools

import pytest
from matplotlib import rc_context, rcParams, use

from helpers import figures
from helpers.stats import Interval

I = Interval(0.5, 0.3, 0.7, 20)  # noqa: E741
use("agg")  # else found out when first asked, which is a setting changed
AXES = {"title": "t", "xlabel": "x", "ylabel": "y"}
ENDED = {"base": ([1, 2, 9], [True, True, False], figures.BASE)}
SHAPES = {
    "survival": lambda: figures.survival_curves(ENDED, title="t", limit=9),
    "rows": lambda: figures.interval_rows(
        {"a": [("x", I, figures.BASE), ("x", 0.4, figures.CONTROL)], "b": [("x", I, figures.STOP)]}, title="t",
        unit=["u", "v"], zero=True,
    ),
    "stacked": lambda: figures.stacked_rows(
        {"row": {"stop": 0.4, "rest": 0.6}}, {"stop": figures.STOP, "rest": figures.REST}, title="t", unit="u"
    ),
    "lines": lambda: figures.lines({"p": {"base": ([I, I], figures.BASE)}}, [0, 1], **AXES),
    "two rows": lambda: two_rows(),
    "fits": lambda: figures.fits({"p": ([I, 0.2], {"linear": [0, 1]})}, [0, 1], {"linear": "red"}, **AXES),
    "maps": lambda: figures.heat_maps({"p": [[0.1, -0.2]], "q": [[0.1, 0.1]]}, unit="u", **AXES),
    "named map": lambda: figures.heat_maps(
        {"p": [[0.1, 0.2]]}, unit="u", columns=["a", "b"], names=["c"], written=True, **AXES
    ),
    "scatter": lambda: figures.scatter({"p": [("a", [1, 2], [1, 3], figures.WAIT)]}, **AXES),
    "tokens": lambda: figures.token_map([" a", "$\n"], [[("b", 0.2), ("中", 0.9)]], ["0"], title="t", unit="u"),
}  # fmt: skip


def two_rows():
    panels = {("p", row): {"base": ([I, I], figures.BASE)} for row in "ab"}
    return figures.lines(panels, [0, 1], title="t", xlabel="x", ylabel=["y", "z"], zero=True, rows=2, log_rows=(1,))


def written(fig):
    return [text.get_text() for text in fig.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_its_title_and_saves_the_same_bytes_whatever_the_users_settings(shape, tmp_path):
    """Neither a dark style and other fonts of the user's reach a figure, nor does one change what the user draws."""
    own = {"axes.facecolor": "black", "text.color": "white", "font.family": "serif", "font.size": 17, "savefig.dpi": 50}
    saved = []
    for settings in ({}, {}, own):
        with rc_context(settings):
            before = rcParams.copy()
            fig = SHAPES[shape]()
            assert "t" in written(fig)
            shown = figures.save_figure(fig, "x", pair="p", alt="what is seen", folder=tmp_path)
            assert rcParams == before
        saved.append([(tmp_path / name).read_bytes() for name in ("x.png", "x.svg")])
    assert saved[0] == saved[1] == saved[2] and all(b"what is seen" in content for content in saved[0])
    assert shown._repr_mimebundle_()[1]["image/png"]["alt"] == "what is seen"


def test_a_figure_is_saved_with_its_title_a_key_and_a_size(tmp_path):
    fig = figures.lines({"p": {"base": ([I, I], figures.BASE)}}, [0, 1], **AXES | {"title": "long " * 30})
    shown = figures.save_figure(fig, "x", pair="own", note="n = 2", size=(9, 3), key={"of it": "red"}, folder=tmp_path)
    assert shown._repr_mimebundle_()[1]["image/png"]["alt"] == "long " * 30
    assert {"pair own, n = 2", "of it"} <= set(written(fig)) and fig.get_size_inches().tolist() == [9, 3]
    figures.save_figure(fig, "x", pair="own", of="published texts", note="n = 3", folder=tmp_path)
    assert "published texts, n = 3" in written(fig)


def test_numbers_are_drawn_without_a_band_and_a_table_as_lines_of_one_label():
    series = {"one": ([0.1, 0.2], "red"), "": ([[0, 1], [1, 0], [1, 1]], "blue"), "band": ([I, I], "green")}
    axis = figures.lines({"p": series}, [0, 1], **AXES).axes[0]
    assert [line.get_color() for line in axis.lines] == ["red", "blue", "blue", "blue", "green"]
    assert len(axis.collections) == 1 and {text.get_text() for text in axis.texts} == {"one", "band"}


def test_panels_of_a_row_share_their_scale_and_maps_are_centred():
    far = Interval(5.0, 4.0, 6.0, 20)
    fig = figures.lines({"p": {"a": ([I, I], "red")}, "q": {"a": ([far, far], "red")}}, [0, 1], **AXES)
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim() and fig.axes[1].get_ylim()[1] > 5
    fig = figures.heat_maps({"p": [[0.1, -0.4]], "q": [[0.2, 0.1]]}, unit="u", **AXES)
    assert {axis.images[0].get_clim() for axis in fig.axes[:2]} == {(-0.4, 0.4)}


def test_labels_at_line_ends_keep_apart_and_inside():
    series = {name: ([I, Interval(0.9, 0.8, 1.0, 5)], "red") for name in ("one", "two", "three", "")}
    fig = figures.lines({"p": series}, [0, 1], **AXES)
    heights = sorted(text.xy[1] for text in fig.axes[0].texts)
    assert len(heights) == 3 and heights[-1] <= 1
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.08


def test_a_heading_stands_once_over_its_column_and_a_logarithmic_axis_has_no_zero_line():
    fig = two_rows()
    assert [axis.get_title(loc="left") for axis in fig.axes] == ["p", ""]
    at_zero = [sum(set(line.get_ydata()) == {0} for line in axis.lines) for axis in fig.axes]
    assert at_zero == [1, 0] and fig.axes[1].get_ylim()[0] > I.low / 2
