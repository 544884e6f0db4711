"""Intervals over prompts, paired tests, corrected scans and censored lengths; all from scipy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

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


def bootstrap(*samples: Any, statistic: Callable[..., Any] = np.mean, seed: int = 0) -> Interval:
    """95 % percentile bootstrap of a statistic over prompts; several samples are resampled together (paired).

    The statistic takes the samples and an `axis`. Raises UserError for fewer than two prompts or NaN.
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    n = len(arrays[0])
    if n < 2 or any(len(array) != n for array in arrays):
        raise UserError(f"samples of {[len(array) for array in arrays]} prompts: give at least 2, as many of each")
    if any(not np.isfinite(array).all() for array in arrays):
        raise UserError("a value to average is not finite: look for NaN in the results")
    estimate = float(statistic(*arrays, axis=-1))
    found = stats.bootstrap(
        arrays,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high), n)


def paired(after: Any, before: Any, *, statistic: Callable[..., Any] = np.mean) -> Interval:
    """Interval of the statistic of per-prompt differences after - before."""
    return bootstrap(np.asarray(after, dtype=float) - np.asarray(before, dtype=float), statistic=statistic)


def ratio_of_medians(numerator: Any, denominator: Any) -> Interval:
    """median(numerator) / median(denominator) over the same prompts; at least one token below the line."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
        return np.median(a, axis=axis) / np.maximum(np.median(b, axis=axis), 1)

    return bootstrap(numerator, denominator, statistic=ratio)


def sign_flip_p(differences: Any, *, seed: int = 0) -> np.ndarray:
    """Two-sided p of a mean difference of zero, by flipping the signs of prompts; one p a column of [prompt, token]."""
    values = np.asarray(differences, dtype=float)
    found = stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=500,
        axis=0,
        rng=np.random.default_rng(seed),
    )
    return np.asarray(found.pvalue)


def false_discovery(p_values: Any) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values, for scans."""
    return stats.false_discovery_control(np.asarray(p_values, dtype=float))


def survival(lengths: Any, stopped: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan-Meier: (length, share still going, low, high); runs that hit the limit are right-censored.

    Where no run is left the band has no formula and keeps its last width.
    """
    lengths, stopped = np.asarray(lengths, dtype=float), np.asarray(stopped, dtype=bool)
    data = stats.CensoredData.right_censored(lengths, ~stopped)
    curve = stats.ecdf(data).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the formula has no value where no run is left
        band = curve.confidence_interval(method="log-log")
    low, high = (pd.Series(side.probabilities).ffill().fillna(1.0).to_numpy() for side in (band.low, band.high))
    return curve.quantiles, curve.probabilities, np.minimum(low, curve.probabilities), high
