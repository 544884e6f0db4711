# SPDX-License-Identifier: MIT
"""What a function's result depends on: the code that it reaches and the values that this code reads."""

from __future__ import annotations

import ast
import contextlib
import dis
import hashlib
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_source = cache(inspect.getsource)


def sha256(source: Path | str | bytes) -> str:
    """SHA-256 of a file, a text or bytes, as hex digits."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(source.encode() if isinstance(source, str) else source).hexdigest()


def made_from(make: Callable[..., Any]) -> dict[str, Any]:
    """What a function's result depends on besides models: `code`, digests of its source and of all functions of the
    helpers and of its own module that it reaches; `inputs`, of the values that these read; `arrays`, three numbers of
    each float array among them, compared within TOLERANCE."""
    code: dict[str, str] = {}
    inputs: set[str] = set()
    arrays: dict[str, list[float]] = {}
    waiting, own = [("make", make)], {"helpers", _package(make)}
    for name, value in waiting:  # which grows
        for part in _parts(name, value, arrays):
            if isinstance(part, str):
                inputs.add(part)
            elif _package(part) in own and (place := f"{part.__module__}.{part.__qualname__}") not in code:
                code[place] = sha256(plain_source(textwrap.dedent(_source(part))))[:12]
                waiting += [found for function in _functions(part) for found in reads(function).items()]
    digest = sha256("\0".join(sorted(inputs)))
    return {"code": dict(sorted(code.items())), "arrays": dict(sorted(arrays.items())), "inputs": digest}


def _package(value: Any) -> str:
    return (value.__module__ or "").partition(".")[0]


def reads(function: Any) -> dict[str, Any]:
    """The global and enclosing variables that a function reads, by name, those of functions inside it too; of a module
    of the helpers the attributes that are named there."""
    function = inspect.unwrap(function)
    codes = [function.__code__]
    for code in codes:  # which grows
        codes += filter(inspect.iscode, code.co_consts)
    steps = [step for code in codes for step in dis.get_instructions(code)]
    names = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    found = {name: value for name, value in function.__globals__.items() if name in names}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found |= {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
    attributes = {name for code in codes for name in code.co_names}
    for name, module in [(name, value) for name, value in found.items() if inspect.ismodule(value)]:
        if module.__name__.startswith("helpers"):
            found |= {f"{name}.{one}": value for one, value in vars(module).items() if one in attributes}
    return found


def _functions(value: Any) -> list[Any]:
    """A function, or those that are written in a class's body."""
    own = vars(value).values() if inspect.isclass(value) else [value]
    bare = (getattr(one, "fget", None) or getattr(one, "func", None) or getattr(one, "__func__", one) for one in own)
    return [one for one in bare if inspect.isfunction(one) and inspect.unwrap(one).__code__.co_filename[0] != "<"]


def plain_source(text: str) -> str:
    """Code without docstrings, lines of comment and blank lines: the same for every version of Python."""
    told: set[int] = set()
    with contextlib.suppress(SyntaxError):  # a lambda within a larger expression
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = (line.rstrip() for number, line in enumerate(text.splitlines(), start=1) if number not in told)
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def _parts(name: str, value: Any, arrays: dict[str, list[float]]) -> Iterator[Any]:
    """What tells a value apart, as texts, and the functions and classes in it; float arrays are added to `arrays`."""
    value = inspect.unwrap(value) if inspect.isroutine(value) else value
    if inspect.isfunction(value) or inspect.isclass(value):
        yield value
    elif hasattr(value, "identity") and hasattr(value, "groups"):  # a model of the pair
        yield f"{name} {value.identity} {value.dtype}"
        yield type(value)
    elif hasattr(value, "members"):
        for member in value.members:
            yield from _parts(name, member, arrays)
    elif isinstance(value, pd.DataFrame):
        yield from _parts(name, value.to_dict("list"), arrays)
    elif is_dataclass(value) or isinstance(value, Mapping | list | tuple):
        if is_dataclass(value):
            yield type(value)
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        yield f"{name} {type(value).__name__} {len(value)}"
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _parts(f"{name}[{key}]", one, arrays)
    elif hasattr(value, "shape") and hasattr(value, "dtype") and not inspect.ismodule(value):  # as numpy has both
        array = np.asarray(value.detach().float().cpu() if hasattr(value, "detach") else value)
        yield f"{name} {array.shape}"
        if array.dtype.kind == "f":
            probes = np.random.default_rng(0).standard_normal((2, array.size))
            size = float(np.linalg.norm(array))
            arrays[name] = [round(float(one), 6) for one in (size, *(probes @ array.ravel() / max(size, 1e-12)))]
        else:
            yield sha256(array.tobytes())
    elif value is None or isinstance(value, str | int | float | bool | range | set | frozenset | re.Pattern | Path):
        yield f"{name} {sorted(value) if isinstance(value, set | frozenset) else value!r}"
    elif not (
        inspect.isroutine(value) or inspect.ismodule(value) or isinstance(value, np.ufunc)
        or type(value).__module__ in ("typing", "types")
    ):  # fmt: skip
        raise TypeError(f"{name} is a {type(value).__name__}, whose content is not known: let make read what it holds")
