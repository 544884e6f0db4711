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


@pytest.mark.parametrize("index", range(4))
def test_every_shape_has_title_and_units_and_saves_the_same_bytes(index, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "figures_dir", lambda pair: tmp_path / pair)
    written = []
    for _ in range(2):
        fig = list(shapes())[index]
        labels = [text.get_text() for text in fig.findobj(plt.Text)]
        assert "t" in labels
        shown = figures.save_figure(fig, "x", pair="p", alt="what is seen")
        written.append([(tmp_path / "p" / name).read_bytes() for name in ("x.png", "x.svg")])
    assert written[0] == written[1]
    assert b"what is seen" in written[0][0] and b"what is seen" in written[0][1]
    assert shown._repr_mimebundle_()[1]["image/png"]["alt"] == "what is seen"
    plt.close("all")


def test_colours_are_those_of_the_series():
    assert figures.ROLE == {"base": "#0072B2", "distilled": "#D55E00"} and figures.CONTROL == "#8C8C8C"
