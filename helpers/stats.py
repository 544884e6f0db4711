"""Intervals over prompts, paired tests, corrected scans and censored lengths; all from scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from helpers.store import UserError

RESAMPLES = 2000


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


def sign_flip_p(differences: Any, *, seed: int = 0) -> float:
    """Two-sided p of a mean difference of zero, by flipping the signs of the prompts' differences."""
    values = np.asarray(differences, dtype=float)
    if not values.any():
        return 1.0
    found = stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=5000,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def false_discovery(p_values: Any) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values, for scans."""
    return stats.false_discovery_control(np.asarray(p_values, dtype=float))


def survival(lengths: Any, stopped: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan-Meier: (length, share still going, low, high); runs that hit the limit are right-censored."""
    lengths, stopped = np.asarray(lengths, dtype=float), np.asarray(stopped, dtype=bool)
    data = stats.CensoredData.right_censored(lengths, ~stopped)
    curve = stats.ecdf(data).sf
    band = curve.confidence_interval(method="log-log")
    with np.errstate(invalid="ignore"):
        low, high = (np.nan_to_num(side.probabilities, nan=value) for side, value in ((band.low, 0.0), (band.high, 1.0)))
    return curve.quantiles, curve.probabilities, low, high
