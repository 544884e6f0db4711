# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

from helpers import findings, stats
from helpers.stats import Interval, bootstrap, false_discovery, paired, ratio_of_medians, sign_flip_p, survival


@pytest.mark.parametrize("n", [2, 20, 60])
def test_a_share_of_none_or_all_has_its_exact_bound(n):
    none, every = stats.share([0.0] * n), stats.share([True] * n)
    assert (none.estimate, none.low, none.n) == (0, 0, n) and none.high == pytest.approx(1 - 0.025 ** (1 / n))
    assert (every.estimate, every.high, every.n) == (1, 1, n) and every.low == pytest.approx(0.025 ** (1 / n))
    mixed = [0.0, 1.0, 0.5, *[1.0] * n]
    assert stats.share(mixed) == bootstrap(mixed) and stats.share([0.25] * n) == bootstrap([0.25] * n)


@pytest.mark.parametrize("n", [12, 24])
def test_the_interval_of_a_normal_mean_is_students(n):
    """Paired differences and columns, over 30 samples; at a level of 95 % they are 15 and 8 % narrower."""
    samples = np.random.default_rng(n).normal(3, 2, (n, 30))
    half = student.ppf(0.975, n - 1) * samples.std(0, ddof=1) / np.sqrt(n)
    ways = {
        "paired": [paired(column + 5, np.full(n, 5.0)) for column in samples.T],
        "columns": stats.bands(samples),
    }
    for way, found in ways.items():
        assert np.mean([one.high - one.low for one in found] / (2 * half)) == pytest.approx(1, abs=0.025), way


@pytest.mark.parametrize("n", [2, 3])
def test_two_or_three_prompts_give_the_whole_range(n):
    values = [1.0, 2.0, 5.0][:n]
    found = bootstrap(values)
    assert (found.estimate, found.low, found.high) == (np.mean(values), 1.0, values[-1])


def test_samples_are_resampled_together_and_below_the_line_stands_at_least_one_token():
    lengths = np.random.default_rng(3).integers(5, 60, 41)
    assert ratio_of_medians(3 * lengths, lengths) == Interval(3.0, 3.0, 3.0, 41)
    assert ratio_of_medians([5, 5], [0, 0]).estimate == 5


def test_by_hand():
    """Of eight sign patterns of three equal differences two are as extreme; lengths 1, 2, 2+, 3 (+ censored)."""
    assert float(sign_flip_p([1.0, 1.0, 1.0])) == pytest.approx(0.25)
    assert false_discovery([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])
    at, share, low, high = survival([1, 2, 2, 3], [True, True, False, True])
    assert at.tolist() == [1, 2, 3] and share.tolist() == pytest.approx([0.75, 0.5, 0.0])
    assert (low <= share).all() and (high >= share).all()
    curves = [[0, 0, 0, 4, 4], [0, 3, 0, 0, -2], [2, 2, 2, 2, 2], [0, 4, 0, 4, 4], [-4, -4, -4, 4, 4]]
    assert stats.settled_at(curves).tolist() == [0.75, 1.0, 0.0, 0.75, 0.75], "as far on the other side is not there"


@pytest.mark.parametrize("shape", ["linear", "exponential", "logistic"])
def test_the_right_shape_predicts_prompts_left_out_best(shape):
    x = np.linspace(0, 1, 16)
    bent = {"exponential": np.exp(5 * x) / 20, "logistic": 8 / (1 + np.exp(-14 * (x - 0.5)))}
    true = bent.get(shape, 2 + 5 * x)
    curves = true + np.random.default_rng(0).normal(0, 0.3, size=(40, 16)) + np.arange(40)[:, None]
    errors = {name: error.mean() for name, error in stats.held_out_errors(curves).items()}
    assert errors[shape] <= 1.01 * min(errors.values()), "the others can bend as little as a line"
    assert shape == "linear" or errors["linear"] > 1.5 * errors[shape]
    assert errors[shape] < 0.12, "what is left is the noise: offsets of prompts do not count"
    assert np.abs(stats.fit_shape(true, shape) - true).max() < 0.05


def test_a_prompt_left_out_is_not_in_the_fit():
    """Of two prompts each is predicted by the other one alone: a line through it, by numpy."""
    curves, x = np.array([[0.0, 1, 2, 3], [5.0, 5, 5, 17]]), np.arange(4)
    lines = np.array([np.polyval(np.polyfit(x, curve, 1), x) for curve in curves[::-1]])
    centred = [rows - rows.mean(1, keepdims=True) for rows in (curves, lines)]
    expected = ((centred[0] - centred[1]) ** 2).mean(1)
    assert stats.held_out_errors(curves)["linear"] == pytest.approx(expected, abs=1e-6)


def test_correlations_by_numpy_and_scipy():
    x, noise = np.random.default_rng(0).normal(size=(2, 50))
    y = x**3 + noise
    plain, ranked = stats.correlation(x, y), stats.correlation(x, y, ranks=True)
    assert plain.estimate == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert ranked.estimate == pytest.approx(spearmanr(x, y).statistic)
    assert plain.low < plain.estimate < plain.high and ranked.low > 0.3
    assert stats.correlation(x, np.ones(50)).estimate == 0


def test_alignment_knows_no_rotation_and_no_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 8))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + 5
    assert stats.alignment(x, turned).estimate == pytest.approx(1)
    others = [stats.alignment(x, rng.normal(size=(30, 100))) for _ in range(20)]
    assert abs(np.mean([other.estimate for other in others])) < 0.05, "few prompts in many dimensions do not look alike"
    assert np.mean([other.low <= 0 <= other.high for other in others]) > 0.7


def test_a_ratio_without_a_denominator_decides_nothing(recwarn):
    found = stats.ratio_of_means([1.0, 2.0, 3.0], [0.0, 0.0, 1.0])
    assert found.estimate == pytest.approx(6.0) and np.isnan(found.low) and np.isnan(found.high)
    assert all(findings.Rule(side, 0.5).verdict(found) == "inconclusive" for side in ("above", "below", "away"))
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_drawing_control_words_too_covers_other_words_and_nothing_else():
    """Where words do not differ, prompts are left; where prompts do not, the words' own error is."""
    rng = np.random.default_rng(3)
    values, alike = rng.normal(size=64), np.zeros((64, 12))
    found, plain = stats.against_words(values, alike), stats.bootstrap(values)
    assert (found.estimate, found.n) == (plain.estimate, plain.n)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.06)
    words = alike + rng.normal(size=12)
    wide, error = stats.against_words(0 * values, words), words[0].std() / np.sqrt(12)
    assert wide.estimate == pytest.approx(-words[0].mean()) and 3.4 < (wide.high - wide.low) / error < 5.2
    with pytest.raises(ValueError):
        stats.against_words(values[:-1], words)
