# SPDX-License-Identifier: MIT
"""What a careless value gets: a UserError of one line that names the value and says what to give instead."""

from __future__ import annotations

from collections.abc import Collection, Sized
from numbers import Integral, Real
from typing import Any

import numpy as np

from helpers.store import UserError


def check_count(n: Any, what: str, most: int | None = None, *, least: int = 1) -> None:
    """A whole number from `least` to `most`."""
    if not isinstance(n, Integral) or n < least or (most is not None and n > most):
        raise UserError(f"{n} {what} asked for: give {f'at least {least}' if most is None else f'{least} to {most}'}")


def check_choice(value: Any, what: str, choices: Collection[str]) -> None:
    """One of some words."""
    if value not in choices:
        raise UserError(
            f"unknown {what} {value!r}: choose {', '.join(one if one.strip() else repr(one) for one in choices)}"
        )


def check_finite(value: Any, what: str) -> None:
    """A number that is neither NaN nor infinite."""
    if not isinstance(value, Real) or not np.isfinite(value):
        raise UserError(f"{what} is {value}: give a finite number")


def check_lengths(**given: Sized) -> None:
    """As many of one as of the others."""
    sizes = {name: len(values) for name, values in given.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{', '.join(f'{size} {name}' for name, size in sizes.items())}: give as many of each")
