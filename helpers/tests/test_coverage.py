# SPDX-License-Identifier: MIT
"""How often a 95 % interval of this study holds the truth, by simulation at the numbers of prompts in use.

It is in 93 to 97 % of studies, from 12 prompts on, but in less for what FALLS_SHORT: few long-tailed lengths, and rare
shares, of which a sample may hold none at all. A rule decided by such an interval is decided a little too easily.
TOO_WIDE errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import stats
from helpers.stats import Interval

RUNS = 1000  # simulated studies: the standard error of a coverage is 0.7 %
Draw = Callable[[np.random.Generator, int], tuple[Any, ...]]


def share(p: float) -> Draw:
    return lambda rng, n: ((rng.random(n) < p).astype(float),)


def both(slope: float, noise: float = 1.0, mean: float = 0.0, spread: float = 1.0, shift: float = 0.0) -> Draw:
    """Two measures of the same prompts: a part of the other one, with noise, and that one."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
        whole = mean + spread * rng.normal(size=n)
        return slope * whole + shift + noise * rng.normal(size=n), whole

    return draw


def lengths(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Whole tokens; medians of 250 and 25."""
    prompt = rng.normal(size=n)
    short, long = (np.exp(0.3 * prompt + 0.3 * rng.normal(size=n)) for _ in range(2))
    return np.round(250 * long), np.round(25 * short)


def cut(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Lengths with a mean of 150 tokens, one in five cut at some limit before its end."""
    length, limit = rng.exponential(150, n), rng.exponential(600, n)
    return np.minimum(length, limit), length <= limit


def still_going(lengths: np.ndarray, stopped: np.ndarray) -> Interval:
    """Share still going at 100 tokens, by Kaplan and Meier."""
    at, share, low, high = stats.survival(lengths, stopped)
    place = int(np.searchsorted(at, 100, side="right")) - 1
    return Interval(float(share[place]), float(low[place]), float(high[place]), len(lengths))


KINDS: dict[str, tuple[Callable[..., Interval], Draw, float, dict[int, float]]] = {  # prompts -> measured coverage
    "mean": (stats.bootstrap, lambda rng, n: (rng.normal(size=n),), 0.0,
             {12: 0.939, 16: 0.936, 20: 0.947, 24: 0.937, 48: 0.948, 64: 0.951, 116: 0.943}),
    "mean of lengths": (stats.bootstrap, lambda rng, n: (np.exp(rng.normal(size=n) * 0.8 - 0.32),), 1.0,
                        {20: 0.900, 116: 0.931}),
    "share of 0.5": (stats.bootstrap, share(0.5), 0.5, {16: 0.981, 116: 0.956}),
    "share of 0.2": (stats.bootstrap, share(0.2), 0.2, {16: 0.920, 60: 0.970, 116: 0.950}),
    "share of 0.05": (stats.bootstrap, share(0.05), 0.05, {16: 0.538, 60: 0.945, 116: 0.927}),
    "paired": (stats.paired, both(1.0, spread=10.0, shift=1.0), 1.0, {16: 0.938, 24: 0.941, 64: 0.957, 116: 0.939}),
    "ratio of means": (stats.ratio_of_means, both(0.5, mean=7.0, spread=2.0), 0.5, {12: 0.945, 24: 0.941, 64: 0.957}),
    "ratio of medians": (stats.ratio_of_medians, lengths, 10.0, {24: 0.975, 116: 0.965}),
    "correlation": (stats.correlation, both(0.9, (1 - 0.9**2) ** 0.5), 0.9, {24: 0.930, 90: 0.938}),
    "alignment": (stats.alignment, lambda rng, n: tuple(rng.normal(size=(2, n, 40))), 0.0, {24: 0.995}),
    "still going": (still_going, cut, float(np.exp(-100 / 150)), {60: 0.953, 116: 0.961}),
}  # fmt: skip
FALLS_SHORT = {("share of 0.2", 16), ("share of 0.05", 16), ("share of 0.05", 116), ("mean of lengths", 20)}
TOO_WIDE = {("share of 0.5", 16), ("ratio of medians", 24), ("alignment", 24)}


@pytest.mark.parametrize(("kind", "n"), [(kind, n) for kind, (*_, told) in KINDS.items() for n in told])
def test_a_95_percent_interval_holds_the_truth_in_93_to_97_percent_or_says_how_often(kind, n):
    """Fails as well when a better method mends one that does not: then it is no exception any more."""
    measure, draw, truth, told = KINDS[kind]
    rng = np.random.default_rng(n)
    studies = [measure(*draw(rng, n)) for _ in range(RUNS)]
    found = float(np.mean([one.low - 1e-9 <= truth <= one.high + 1e-9 for one in studies]))
    assert found == pytest.approx(told[n], abs=0.01), found
    assert (told[n] < 0.93, told[n] > 0.97) == ((kind, n) in FALLS_SHORT, (kind, n) in TOO_WIDE)
