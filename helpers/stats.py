# SPDX-License-Identifier: MIT
"""Intervals over prompts, paired tests, corrected scans, censored lengths and shapes of growth; all from scipy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from helpers.checks import check_lengths
from helpers.store import UserError

RESAMPLES, FLIPS = 2000, 5000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval over n prompts."""

    estimate: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        return f"{self.estimate:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def _numbers(values: Any, what: str, *, axes: int = 1, least: int = 2, shares: bool = False) -> np.ndarray:
    """Finite numbers with that many axes, at least so many along the first; `shares`: from 0 to 1. Raises UserError
    for anything else."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} are no table of numbers ({error}): give numbers, as many in every row") from error
    if numbers.ndim != axes or len(numbers) < least or not numbers.size:
        shape = "[prompt, column]" if axes == 2 else "one number a prompt"
        raise UserError(f"{what} have shape {numbers.shape}: give {shape}, at least {least} prompts")
    if not np.isfinite(numbers).all():
        raise UserError(f"{what} are not finite at {np.argwhere(~np.isfinite(numbers))[0].tolist()}: look for NaN")
    if shares and (numbers.min() < 0 or numbers.max() > 1):
        raise UserError(f"{what} from {numbers.min():g} to {numbers.max():g}: give numbers from 0 to 1")
    return numbers


def _level(n: int) -> float:
    """Level at which a percentile interval over n prompts is as wide as Student's where the mean is normal: the
    expanded percentile interval (Hesterberg 2015). 0.978 at n = 12, 0.953 at 116; 1, the whole range, at 2."""
    return float(1 - 2 * special.ndtr(special.stdtrit(n - 1, 0.025) * np.sqrt(n / (n - 1))))


def bootstrap(*samples: Any, statistic: Callable[..., Any] = np.mean, seed: int = 0) -> Interval:
    """95 % bootstrap of a statistic over prompts: percentiles, further out for few prompts (Hesterberg 2015).

    Several samples are resampled together (paired). The statistic takes the samples and an `axis`. Raises UserError
    for fewer than two prompts or NaN.
    """
    arrays = [_numbers(sample, "values") for sample in samples]
    check_lengths(**{f"values in sample {k}": array for k, array in enumerate(arrays, start=1)})
    n, how = len(arrays[0]), {"paired": True, "vectorized": True, "method": "percentile", "n_resamples": RESAMPLES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # NaN ends tell it
        rng = np.random.default_rng(seed)
        found = stats.bootstrap(arrays, statistic, confidence_level=_level(n), rng=rng, **how).confidence_interval
    return Interval(float(statistic(*arrays, axis=-1)), float(found.low), float(found.high), n)


def bands(values: Any, *, seed: int = 0) -> list[Interval]:
    """95 % bootstrap interval of the mean over prompts of each column of [prompt, column]."""
    return [bootstrap(column, seed=seed) for column in _numbers(values, "values", axes=2).T]


def share(passed: Any) -> Interval:
    """95 % interval of a share, one number from 0 to 1 a prompt: `bootstrap`, or, where all are 0 or all 1 and nothing
    is left to resample, the exact bound (Clopper and Pearson 1934): 3.8 / n wide for large n."""
    values = _numbers(passed, "shares", shares=True)
    if set(values) not in ({0.0}, {1.0}):
        return bootstrap(values)
    return exact_share(int(values.sum()), len(values))


def exact_share(hits: int, n: int) -> Interval:
    """A share of n with its exact 95 % bound (Clopper and Pearson 1934)."""
    exact = stats.binomtest(hits, n).proportion_ci(method="exact")
    return Interval(hits / n, float(exact.low), float(exact.high), n)


def paired(after: Any, before: Any) -> Interval:
    """Interval of the mean of per-prompt differences after - before."""
    after, before = _numbers(after, "values"), _numbers(before, "values")
    check_lengths(after=after, before=before)
    return bootstrap(after - before)


def correlation(first: Any, second: Any, *, ranks: bool = False) -> Interval:
    """Pearson's correlation of two measures of the same things, or Spearman's (`ranks`), bootstrap over the things;
    0 where one of them does not vary."""
    pair = [_numbers(values, "values") for values in (first, second)]
    pair = [stats.rankdata(values) for values in pair] if ranks else pair

    def correlate(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
        a, b = (x - x.mean(axis=axis, keepdims=True) for x in (a, b))
        size = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
        return np.where(size > 0, (a * b).sum(axis=axis) / np.maximum(size, 1e-300), 0.0)

    return bootstrap(*pair, statistic=correlate)


def alignment(first: Any, second: Any) -> Interval:
    """Linear centred kernel alignment of two [prompt, d] representations with the bias of few prompts removed
    (Kornblith et al. 2019; Song et al. 2012): 1 alike up to rotation and scale, 0 unrelated. Jackknife interval."""
    one, two = (_numbers(values, "representations", axes=2, least=5) for values in (first, second))
    check_lengths(first=one, second=two)

    def unbiased(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = (x - np.diag(np.diag(x)) for x in (k, m))
        cross = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m).sum() / (n - 2)
        return float(cross)

    def align(rows: np.ndarray) -> float:
        k, m = (x[rows] @ x[rows].T for x in (one, two))
        return unbiased(k, m) / max(np.sqrt(max(unbiased(k, k) * unbiased(m, m), 0.0)), 1e-300)

    every = np.arange(len(one))
    estimate = align(every)
    left_out = np.array([align(np.delete(every, k)) for k in every])
    half = 1.96 * np.sqrt((len(every) - 1) * np.mean((left_out - left_out.mean()) ** 2))
    return Interval(estimate, float(estimate - half), float(estimate + half), len(one))


def ratio_of_means(numerator: Any, denominator: Any) -> Interval:
    """mean(numerator) / mean(denominator) over the same prompts; ends that are NaN where some resamples have nothing
    below the line, so that no rule is decided by it."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
        below = np.mean(b, axis=axis)
        return np.mean(a, axis=axis) / np.where(below == 0, np.nan, below)

    return bootstrap(numerator, denominator, statistic=ratio)


def ratio_of_medians(numerator: Any, denominator: Any) -> Interval:
    """median(numerator) / median(denominator) over the same prompts; at least one token below the line."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
        return np.median(a, axis=axis) / np.maximum(np.median(b, axis=axis), 1)

    return bootstrap(numerator, denominator, statistic=ratio)


def sign_flip_p(differences: Any, *, seed: int = 0) -> np.ndarray:
    """Two-sided p of a mean difference of zero, by flipping the signs of prompts; one p a column of [prompt, token]."""
    values = _numbers(differences, "differences", axes=np.ndim(differences) or 1)
    how = {"permutation_type": "samples", "vectorized": True, "n_resamples": FLIPS, "batch": 500, "axis": 0}
    found = stats.permutation_test((values,), lambda x, axis: x.mean(axis=axis), rng=np.random.default_rng(seed), **how)
    return np.asarray(found.pvalue)


def false_discovery(p_values: Any) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values, for scans."""
    return stats.false_discovery_control(_numbers(p_values, "p-values", least=1, shares=True))


def survival(lengths: Any, stopped: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan-Meier: (length, share still going, low, high); runs that hit the limit are right-censored.

    Where no run is left the band has no formula and keeps its last width.
    """
    lengths, stopped = _numbers(lengths, "lengths", least=1), np.asarray(stopped, dtype=bool)
    check_lengths(lengths=lengths, stopped=stopped)
    if lengths.min() < 0:
        raise UserError(f"a length of {lengths.min():g}: give numbers of tokens, at least 0")
    data = stats.CensoredData.right_censored(lengths, ~stopped)
    curve = stats.ecdf(data).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the formula has no value where no run is left
        band = curve.confidence_interval(method="log-log")
    low, high = (pd.Series(side.probabilities).ffill().fillna(1.0).to_numpy() for side in (band.low, band.high))
    return curve.quantiles, curve.probabilities, np.minimum(low, curve.probabilities), high


def settled_at(curves: Any, share: float = 0.5) -> np.ndarray:
    """Relative depth, 0 to 1, from which each curve of [prompt, depth] stays beyond a share of its final value."""
    curves = _numbers(curves, "curves", axes=2, least=1)
    beyond = curves * np.sign(curves[:, -1:]) >= share * np.abs(curves[:, -1:])
    n_depths = curves.shape[1]
    return (n_depths - beyond[:, ::-1].cumprod(axis=1).sum(axis=1)) / (n_depths - 1)


# name -> values at depths x from 0 to 1, first guess and bounds of what bends; start and rise are free
SHAPES: dict[str, tuple[Callable[..., np.ndarray], list[float], tuple[list[float], list[float]]]] = {
    "linear": (lambda x, start, rise: start + rise * x, [], ([], [])),
    "exponential": (
        lambda x, start, rise, rate: start + rise * np.expm1(rate * x) / np.expm1(rate), [3.0], ([0.01], [50.0]),
    ),
    "logistic": (
        lambda x, start, rise, rate, middle: start + rise * special.expit(rate * (x - middle)),
        [8.0, 0.7], ([0.5, 0.0], [100.0, 4.0]),
    ),
}  # fmt: skip


def fit_shape(curve: Any, shape: str) -> np.ndarray:
    """Least-squares fit of a mean curve over equally spaced depths by one of SHAPES; its values there."""
    (function, guess, (low, high)), curve = SHAPES[shape], _numbers(curve, "depths of a curve")
    x, start = np.linspace(0, 1, len(curve)), [curve[0], curve[-1] - curve[0], *guess]
    bounds = [-np.inf, -np.inf, *low], [np.inf, np.inf, *high]
    found = optimize.least_squares(lambda q: function(x, *q) - curve, start, bounds=bounds, max_nfev=300).x
    return function(x, *found)


def held_out_errors(curves: Any, *, folds: int = 8) -> dict[str, np.ndarray]:
    """Each shape fitted to the mean curve of the other prompts: mean squared error on each prompt left out, both
    curves centred, so that prompts differ in shape alone. curves: [prompt, depth]."""
    curves = _numbers(curves, "curves", axes=2)
    fold = np.arange(len(curves)) % min(folds, len(curves))
    errors = {shape: np.empty(len(curves)) for shape in SHAPES}
    for shape, error in errors.items():
        for k in np.unique(fold):
            fitted, left_out = fit_shape(curves[fold != k].mean(0), shape), curves[fold == k]
            error[fold == k] = np.var(left_out - fitted, axis=1)  # the mean square of the centred difference
    return errors


def against_words(values: Any, words: Any, *, seed: int = 0) -> Interval:
    """Mean over prompts of a number minus that of control words, [prompt, word]: 95 % bootstrap in which prompts and
    words are both drawn anew, so that other words would be covered. As wide as the fewer of them need."""
    values, words = _numbers(values, "values"), _numbers(words, "words", axes=2)
    check_lengths(values=values, words=words)
    rng, (n, k) = np.random.default_rng(seed), words.shape
    rows = (rng.integers(size, size=(RESAMPLES, size)) for size in (n, k))
    of_prompts, of_words = (np.stack([np.bincount(row, minlength=len(row)) for row in some]) for some in rows)
    drawn = (of_prompts @ values - ((of_prompts @ words) * of_words).sum(1) / k) / n
    tail = (1 - _level(max(2, min(n, k)))) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(values.mean() - words.mean()), float(low), float(high), n)
