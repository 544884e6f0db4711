# SPDX-License-Identifier: MIT
"""Intervals over prompts, paired tests, corrected scans, censored lengths and shapes of growth; all from scipy."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from helpers.store import UserError

RESAMPLES, FLIPS, FOLDS = 2000, 5000, 8
false_discovery = stats.false_discovery_control  # Benjamini-Hochberg adjusted p-values, for scans


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


def _numbers(values: Any, axes: int = 1) -> np.ndarray:
    """Finite numbers of two or more prompts, with that many axes; UserError for anything else."""
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != axes or len(numbers) < 2:
        shape = "[prompt, column]" if axes == 2 else "one number a prompt"
        raise UserError(f"values have shape {numbers.shape}: give {shape}, at least 2 prompts")
    if not np.isfinite(numbers).all():
        raise UserError(f"values are not finite at {np.argwhere(~np.isfinite(numbers))[0].tolist()}: look for NaN")
    return numbers


def _level(n: int) -> float:
    """Level at which a percentile interval over n prompts is as wide as Student's where the mean is normal: the
    expanded percentile interval (Hesterberg 2015). 0.978 at n = 12, 0.953 at 116; 1, the whole range, at 2."""
    return float(1 - 2 * special.ndtr(special.stdtrit(n - 1, 0.025) * np.sqrt(n / (n - 1))))


def bootstrap(*samples: Any, statistic: Callable[..., Any] = np.mean) -> Interval:
    """95 % bootstrap of a statistic over prompts: percentiles, further out for few prompts (Hesterberg 2015). Several
    samples are resampled together (paired); the statistic takes them and an `axis`."""
    arrays, rng = [_numbers(sample) for sample in samples], np.random.default_rng(0)
    n, how = len(arrays[0]), {"paired": True, "vectorized": True, "method": "percentile", "n_resamples": RESAMPLES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # NaN ends tell it
        estimate = float(statistic(*arrays, axis=-1))
        found = stats.bootstrap(arrays, statistic, confidence_level=_level(n), rng=rng, **how).confidence_interval
    return Interval(estimate, float(found.low), float(found.high), n)


def bands(values: Any) -> list[Interval]:
    """95 % bootstrap interval of the mean over prompts of each column of [prompt, column]."""
    return [bootstrap(column) for column in _numbers(values, axes=2).T]


def share(passed: Any) -> Interval:
    """95 % interval of a share, one number from 0 to 1 a prompt: `bootstrap`, or, where all are 0 or all 1 and nothing
    is left to resample, the exact bound."""
    values = _numbers(passed)
    if set(values) in ({0.0}, {1.0}):
        return exact_share(int(values.sum()), len(values))
    return bootstrap(values)


def exact_share(hits: int, n: int) -> Interval:
    """A share of n with its exact 95 % bound (Clopper and Pearson 1934)."""
    exact = stats.binomtest(hits, n).proportion_ci(method="exact")
    return Interval(hits / n, float(exact.low), float(exact.high), n)


def paired(after: Any, before: Any) -> Interval:
    """Interval of the mean of per-prompt differences after - before."""
    return bootstrap(_numbers(after) - _numbers(before))


def correlation(first: Any, second: Any, *, ranks: bool = False) -> Interval:
    """Pearson's correlation of two measures of the same things, or Spearman's (`ranks`), bootstrap over the things;
    0 where one of them does not vary."""
    both = [stats.rankdata(values) if ranks else values for values in (first, second)]
    return bootstrap(*both, statistic=lambda a, b, axis: np.nan_to_num(stats.pearsonr(a, b, axis=axis).statistic))


def alignment(first: Any, second: Any) -> Interval:
    """Linear centred kernel alignment of two [prompt, d] representations with the bias of few prompts removed
    (Kornblith et al. 2019; Song et al. 2012): 1 alike up to rotation and scale, 0 unrelated. Jackknife interval."""
    samples = _numbers(first, axes=2), _numbers(second, axes=2)

    def centred(rows: np.ndarray) -> np.ndarray:
        n, off_diagonal = len(rows), 1 - np.eye(len(rows))
        gram = rows @ rows.T * off_diagonal
        mean = gram.sum(0) / (n - 2)
        return (gram - mean - mean[:, None] + gram.sum() / ((n - 1) * (n - 2))) * off_diagonal

    def align(rows: np.ndarray) -> float:
        one, two = (centred(values[rows]) for values in samples)
        return float((one * two).sum() / (np.linalg.norm(one) * np.linalg.norm(two)))

    n = len(samples[0])
    estimate, left_out = align(np.arange(n)), [align(np.delete(np.arange(n), k)) for k in range(n)]
    half = 1.96 * float(np.sqrt((n - 1) * np.var(left_out)))
    return Interval(estimate, estimate - half, estimate + half, n)


def ratio_of_means(numerator: Any, denominator: Any) -> Interval:
    """mean(numerator) / mean(denominator) over the same prompts; where some resamples have nothing below the line the
    ends are NaN, so that no rule is decided by it."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int) -> Any:
        below = b.mean(axis=axis)
        return a.mean(axis=axis) / np.where(below == 0, np.nan, below)

    return bootstrap(numerator, denominator, statistic=ratio)


def ratio_of_medians(numerator: Any, denominator: Any) -> Interval:
    """median(numerator) / median(denominator) over the same prompts; at least one token below the line."""
    both = numerator, denominator
    return bootstrap(*both, statistic=lambda a, b, axis: np.median(a, axis) / np.maximum(np.median(b, axis), 1))


def sign_flip_p(differences: Any) -> np.ndarray:
    """Two-sided p of a mean difference of zero, by flipping the signs of prompts; one p a column of [prompt, token]."""
    values, rng = np.asarray(differences, dtype=float), np.random.default_rng(0)
    how = {"permutation_type": "samples", "vectorized": True, "n_resamples": FLIPS, "batch": 500, "axis": 0}
    return np.asarray(stats.permutation_test((values,), np.mean, rng=rng, **how).pvalue)


def survival(lengths: Any, stopped: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan-Meier: (length, share still going, low, high); runs that hit the limit are right-censored. Where no run
    is left the band has no formula and keeps its last width."""
    curve = stats.ecdf(stats.CensoredData.right_censored(lengths, ~np.asarray(stopped, dtype=bool))).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the formula has no value where no run is left
        band = curve.confidence_interval(method="log-log")
    low, high = (pd.Series(side.probabilities).ffill().fillna(1.0).to_numpy() for side in (band.low, band.high))
    return curve.quantiles, curve.probabilities, np.minimum(low, curve.probabilities), high


def settled_at(curves: Any) -> np.ndarray:
    """Relative depth, 0 to 1, from which each curve of [prompt, depth] stays beyond half its final value."""
    curves = np.asarray(curves, dtype=float)
    beyond, n_depths = curves * np.sign(curves[:, -1:]) >= 0.5 * np.abs(curves[:, -1:]), curves.shape[1]
    return (n_depths - beyond[:, ::-1].cumprod(axis=1).sum(axis=1)) / (n_depths - 1)


# name -> values at depths x from 0 to 1; first guess, lower and upper bounds of what bends (start and rise are free)
SHAPES: dict[str, tuple[Callable[..., np.ndarray], list[float], list[float], list[float]]] = {
    "linear": (lambda x, start, rise: start + rise * x, [], [], []),
    "exponential": (
        lambda x, start, rise, rate: start + rise * np.expm1(rate * x) / np.expm1(rate), [3.0], [0.01], [50.0],
    ),
    "logistic": (
        lambda x, start, rise, rate, middle: start + rise * special.expit(rate * (x - middle)),
        [8.0, 0.7], [0.5, 0.0], [100.0, 4.0],
    ),
}  # fmt: skip


def fit_shape(curve: Any, shape: str) -> np.ndarray:
    """Least-squares fit of a mean curve over equally spaced depths by one of SHAPES; its values there."""
    (function, guess, low, high), curve = SHAPES[shape], np.asarray(curve, dtype=float)
    x, start = np.linspace(0, 1, len(curve)), [curve[0], curve[-1] - curve[0], *guess]
    bounds = [-np.inf, -np.inf, *low], [np.inf, np.inf, *high]
    return function(x, *optimize.least_squares(lambda q: function(x, *q) - curve, start, bounds=bounds, max_nfev=300).x)


def held_out_errors(curves: Any) -> dict[str, np.ndarray]:
    """Each shape fitted to the mean curve of the other prompts: mean squared error on each prompt left out, both
    curves centred, so that prompts differ in shape alone. curves: [prompt, depth]."""
    curves, fold = np.asarray(curves, dtype=float), np.arange(len(curves)) % FOLDS
    errors = {shape: np.empty(len(curves)) for shape in SHAPES}
    for shape, error in errors.items():
        for k in np.unique(fold):
            fitted, left_out = fit_shape(curves[fold != k].mean(0), shape), curves[fold == k]
            error[fold == k] = np.var(left_out - fitted, axis=1)  # the mean square of the centred difference
    return errors


def against_words(values: Any, words: Any, *, seed: int = 0) -> Interval:
    """Mean over prompts of a number minus that of control words, [prompt, word]: 95 % bootstrap in which prompts and
    words are both drawn anew, so that other words would be covered. As wide as the fewer of them need."""
    values, words = _numbers(values), _numbers(words, axes=2)
    rng, (n, k) = np.random.default_rng(seed), words.shape
    rows = (rng.integers(size, size=(RESAMPLES, size)) for size in (n, k))
    of_prompts, of_words = (np.stack([np.bincount(row, minlength=len(row)) for row in some]) for some in rows)
    drawn = (of_prompts @ values - ((of_prompts @ words) * of_words).sum(1) / k) / n
    tail = (1 - _level(max(2, min(n, k)))) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(values.mean() - words.mean()), float(low), float(high), n)
