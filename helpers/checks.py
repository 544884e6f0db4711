# SPDX-License-Identifier: MIT
"""What a careless value gets: a UserError of one line that names the value and says what to give instead; and what
surrounds the helpers' work: torch's own settings, and files that are still those that were imported."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Collection, Iterable, Iterator, Sized
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.store import UserError

_helpers = Path(__file__).parent.glob("*.py")
_imported = types.SimpleNamespace(  # which says nothing of a result: provenance does not look into a namespace
    files={path: (path.stat().st_mtime_ns, path.read_bytes()) for path in _helpers}
)


def check_count(n: Any, what: str, most: int | None = None, *, least: int = 1) -> None:
    """A whole number from `least` to `most`."""
    if not isinstance(n, Integral) or n < least or (most is not None and n > most):
        raise UserError(f"{n} {what} asked for: give {f'at least {least}' if most is None else f'{least} to {most}'}")


def check_index(values: Iterable[Any], what: str, n: int) -> None:
    """Whole numbers from 0 to n - 1."""
    if wrong := [one for one in values if not isinstance(one, Integral) or not 0 <= one < n]:
        raise UserError(f"no {what} {wrong[0]}: there are 0 to {n - 1}")


def check_choice(value: Any, what: str, choices: Collection[str]) -> None:
    """One of some words."""
    if value not in choices:
        raise UserError(f"unknown {what} {value!r}: choose {', '.join(one.strip() or repr(one) for one in choices)}")


def check_finite(value: Any, what: str) -> None:
    """A number that is neither NaN nor infinite."""
    if not isinstance(value, Real) or not np.isfinite(value):
        raise UserError(f"{what} is {value}: give a finite number")


def check_lengths(**given: Sized) -> None:
    """As many of one as of the others."""
    sizes = {name: len(values) for name, values in given.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{', '.join(f'{size} {name}' for name, size in sizes.items())}: give as many of each")


def guarded(module: dict[str, Any]) -> None:
    """Let every public function of a module (its `globals()`) run under `plain_torch`."""
    for name, value in list(module.items()):
        if inspect.isfunction(value) and value.__module__ == module["__name__"] and not name.startswith("_"):
            module[name] = _plainly(value)


def _plainly(function: Any) -> Any:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with plain_torch():
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """torch as it starts, whatever the caller has set: default dtype and device, inference mode, autocast. Raises
    UserError when a helper was edited since it was imported: nnsight reads the body of a trace from its file."""
    for path, (time, content) in _imported.files.items():
        if path.stat().st_mtime_ns != time and path.read_bytes() != content:
            raise UserError(f"{path.name} of the helpers was edited since it was imported: restart the kernel")
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        yield
