# SPDX-License-Identifier: MIT
import itertools

import pytest
from matplotlib import pyplot as plt

from helpers import figures
from helpers.stats import Interval

I = Interval(0.5, 0.3, 0.7, 20)  # noqa: E741


def shapes():
    two = {"a": [("x", I, figures.BASE), ("x", I, figures.CONTROL)], "b": [("x", I, figures.STOP)]}
    parts = {"row": {"stop": 0.4, "rest": 0.6}}
    yield figures.survival_curves({"base": ([1, 2, 9], [True, True, False], figures.BASE)}, title="t", limit=9)
    yield figures.interval_rows(two, title="t", unit="u", zero=True)
    yield figures.stacked_rows(parts, {"stop": figures.STOP, "rest": figures.REST}, title="t", unit="u")
    yield figures.lines({"p": {"base": ([I, I], figures.BASE)}}, [0, 1], title="t", xlabel="x", ylabel="y")
    yield figures.lines(
        {f"p|{row}": {"base": ([I, I], figures.BASE)} for row in "ab"}, [0, 1], title="t", xlabel="x",
        ylabel=["y", "z"], rows=2, log_rows=(1,),
    )  # fmt: skip
    yield figures.fits(
        {"p": ([I, I], {"linear": [0, 1]})}, [0, 1], {"linear": "red"}, title="t", xlabel="x", ylabel="y"
    )
    yield figures.heat_maps({"p": [[0.1, -0.2]], "q": [[0.1, 0.1]]}, title="t", xlabel="x", ylabel="y", unit="u")
    yield figures.scatter({"p": [("a", [1, 2], [1, 3], figures.WAIT)]}, title="t", xlabel="x", ylabel="y")
    yield figures.heat_maps(
        {"p": [[0.1, 0.2]]}, title="t", xlabel="x", ylabel="y", unit="u", columns=["a", "b"], names=["c"], written=True
    )
    yield figures.token_map([" a", "$\n"], [[("b", 0.2), ("中", 0.9)]], ["0"], title="t", unit="u")


@pytest.mark.parametrize("index", range(len(list(shapes()))))
def test_every_shape_has_title_and_units_and_saves_the_same_bytes(index, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "figures_dir", lambda pair: tmp_path / pair)
    written = []
    for _ in range(2):
        fig = list(shapes())[index]
        labels = [text.get_text() for text in fig.findobj(plt.Text)]
        assert "t" in labels
        shown = figures.save_figure(fig, "x", pair="p", alt="what is seen")
        written.append([(tmp_path / "p" / name).read_bytes() for name in ("x.png", "x.svg")])
        plt.close("all")
    assert written[0] == written[1]
    assert b"what is seen" in written[0][0] and b"what is seen" in written[0][1]
    assert shown._repr_mimebundle_()[1]["image/png"]["alt"] == "what is seen"
    plt.close("all")


def test_a_users_own_settings_and_ours_keep_apart(tmp_path):
    """Neither a dark style and other fonts of the user's reach a figure, nor does one change what the user draws."""
    own = {"axes.facecolor": "black", "text.color": "white", "font.family": "serif", "font.size": 17, "savefig.dpi": 50}
    written = []
    for settings in ({}, own):
        with plt.rc_context(settings):
            before = plt.rcParams.copy()
            for index, fig in enumerate(shapes()):
                figures.save_figure(fig, f"{index}", pair="p", alt="a", folder=tmp_path)
            assert plt.rcParams == before
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert len(written[0]) == 2 * len(list(shapes())) and written[0] == written[1]
    plt.close("all")


def test_panels_of_a_row_share_their_scale_and_maps_are_centred():
    far = Interval(5.0, 4.0, 6.0, 20)
    fig = figures.lines(
        {"p": {"a": ([I, I], "red")}, "q": {"a": ([far, far], "red")}}, [0, 1], title="t", xlabel="x", ylabel="y"
    )
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim() and fig.axes[1].get_ylim()[1] > 5
    fig = figures.heat_maps({"p": [[0.1, -0.4]], "q": [[0.2, 0.1]]}, title="t", xlabel="x", ylabel="y", unit="u")
    assert {axis.images[0].get_clim() for axis in fig.axes[:2]} == {(-0.4, 0.4)}
    plt.close("all")


def test_labels_at_line_ends_keep_apart_and_inside():
    series = {name: ([I, Interval(0.9, 0.8, 1.0, 5)], "red") for name in ("one", "two", "three", " ")}
    fig = figures.lines({"p": series}, [0, 1], title="t", xlabel="x", ylabel="y")
    heights = sorted(text.xy[1] for text in fig.axes[0].texts)
    assert len(heights) == 3 and heights[-1] <= 1
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.08
    plt.close("all")


def test_a_logarithmic_axis_has_no_zero_line():
    panels = {f"p|{row}": {"base": ([I, I], figures.BASE)} for row in "ab"}
    fig = figures.lines(panels, [0, 1], title="t", xlabel="x", ylabel="y", zero=True, rows=2, log_rows=(1,))
    at_zero = [sum(set(line.get_ydata()) == {0} for line in axis.lines) for axis in fig.axes]
    assert at_zero == [1, 0] and fig.axes[1].get_ylim()[0] > I.low / 2
    plt.close("all")
