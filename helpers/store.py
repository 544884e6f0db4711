# SPDX-License-Identifier: MIT
"""Paths, and results on disk that carry their provenance."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "nnsight")
SHOWS = ("__init__", "__main__", "explorers", "figures", "findings", "stats")  # modules that compute no stored array


KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NDIF_API_KEY")  # variables whose values are nobody else's business


def without_keys(text: str) -> str:
    """A text without the user's keys, what looks like a key of the hub, and passwords in addresses."""
    for key in filter(None, map(os.environ.get, KEYS)):
        text = text.replace(key, "***")
    return re.sub(r"hf_\w{20,}|(?<=bearer )\S+|(?<=://)[^/\s@]+(?=@)", "***", text, flags=re.I)


class Told(Exception):
    """An error whose message the user reads, so that it never tells a key that a library put into its own."""

    def __init__(self, message: str) -> None:
        super().__init__(without_keys(message))


class UserError(Told):
    """Something the user can mend; its message is one line that says how."""


class NotebookFailed(Told):
    """A cell of a notebook raised; the message names notebook and error."""


class Stopped(Told):
    """The user stopped a run; the message says what is kept."""


def cache_dir() -> Path:
    """Folder for converted weights; the variable R1_CACHE moves it."""
    default = Path.home() / ".cache" / "why-r1-does-not-stop"
    return Path(os.environ.get("R1_CACHE") or default).expanduser()


def data_dir(pair: str) -> Path:
    """`data/<pair>`, where the results of one pair lie."""
    return ROOT / "data" / pair


def figures_dir(pair: str) -> Path:
    """`figures/<pair>`, where the figures of one pair lie."""
    return ROOT / "figures" / pair


def sha256(source: Path | str | bytes) -> str:
    """SHA-256 of a file, a text or bytes, as hex digits."""
    digest = hashlib.sha256()
    if isinstance(source, Path):
        with source.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    else:
        digest.update(source.encode() if isinstance(source, str) else source)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes `path` at the end, or vanishes on an error.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some room there, or make it writable"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """While one process reads a file and writes it again, no other does. Raises UserError where no lock can be had."""
    folder = cache_dir() / "locks"
    lock = FileLock(folder / f"{sha256(str(path.resolve()))[:16]}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"cannot lock {path} in {folder}: {error.strerror or error}; set R1_CACHE to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a JSON array with one record a line, so that a diff can be read. JSON knows neither NaN, for which it
    gets null, nor infinity, for which UserError is raised."""
    try:
        lines = ",\n".join(json.dumps(_strict(record), ensure_ascii=False, allow_nan=False) for record in records)
    except ValueError as error:
        raise UserError(f"{path} cannot hold an infinite number: look for it in what was to be written") from error
    write_text(path, f"[\n{lines}\n]\n")


def _strict(record: dict[str, Any]) -> dict[str, Any]:
    """A record with null for each NaN, however deep."""
    return json.loads(json.dumps(record), parse_constant=lambda name: None if name == "NaN" else float(name))


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is broken or cannot be read is named in the UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): name another file or restore it with git") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it or restore it with git") from error


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on, without local build marks."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name).split("+")[0]
    return found


def say(text: str) -> None:
    """Tell the reader what was reused or computed: printed, or collected by `python -m helpers run`
    (R1_SAY names a file), so that a rerun leaves the notebooks' outputs as they were."""
    if log := os.environ.get("R1_SAY"):
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")
    else:
        print(text)


def is_fresh_run(sidecar: dict[str, Any]) -> bool:
    """Whether a stored result may be reused by this process (`run --fresh` sets R1_FRESH)."""
    run = os.environ.get("R1_FRESH")
    return not run or sidecar.get("run") == run


def sidecar_path(path: Path) -> Path:
    """`NN_name.json` -> `NN_name.meta.json`."""
    return path.with_suffix(".meta.json")


def reusable(path: Path, provenance: dict[str, Any]) -> bool:
    """Whether `path` exists and was made from exactly this provenance."""
    meta = sidecar_path(path)
    if not (path.exists() and meta.exists()):
        return False
    sidecar = read_json(meta)
    return isinstance(sidecar, dict) and sidecar.get("provenance") == provenance and is_fresh_run(sidecar)


def write_sidecar(path: Path, provenance: dict[str, Any], device: str) -> None:
    """Write what a result was made from beside it; date and device are told, not compared."""
    sidecar = {
        "provenance": provenance,
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
        "run": os.environ.get("R1_FRESH"),
    }
    write_text(sidecar_path(path), json.dumps(sidecar, indent=1, ensure_ascii=False) + "\n")


def kept(
    pair: Any, name: str, make: Callable[[], Mapping[str, Any]], *made_from: Any, fresh: bool = False
) -> dict[str, np.ndarray]:
    """Arrays that `make` computes from the pair and from `made_from` (texts, numbers, functions), stored as
    `data/<pair>/<name>.safetensors` and reused as long as models, inputs, the code of `make`, of functions among the
    inputs and of the helpers, and package versions are the same. Says which; `fresh` computes in any case.

    Name every input: what `make` takes from elsewhere is not seen. Raises TypeError for an input that is no plain data.
    """
    path = data_dir(pair.name) / f"{name}.safetensors"
    provenance = {
        "models": [f"{member.identity} {member.dtype}" for member in pair.members],
        "inputs": sha256(json.dumps([_plain(one) for one in (make, *made_from)], ensure_ascii=False)),
        "code": code_digest(),
        "versions": package_versions(),
    }
    again = not fresh and reusable(path, provenance)
    say(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {'reused' if again else 'computed'}")
    if not again:
        arrays = {key: np.ascontiguousarray(value) for key, value in make().items()}
        with alone(path):
            sidecar_path(path).unlink(missing_ok=True)  # else a crash could leave new arrays under an old provenance
            with atomic(path) as temporary:
                temporary.write_bytes(save(arrays))  # safetensors' own writer reports a full disk in its own error
            write_sidecar(path, provenance, str(pair.base.device))
    try:
        return load_file(path)  # in the file's order, whether it was just computed or not
    except SafetensorError as error:
        raise UserError(f"{path} does not load ({error}): delete it or restore it with git") from error


def _plain(given: Any) -> Any:
    """An input as JSON can hold it: a function by its source, a dataclass by its fields."""
    if callable(given):
        return inspect.getsource(given)
    if is_dataclass(given):
        return _plain({field.name: getattr(given, field.name) for field in fields(given)})
    if isinstance(given, Mapping):
        return [[str(key), _plain(value)] for key, value in given.items()]
    return [_plain(one) for one in given] if isinstance(given, list | tuple | range) else given


@cache
def code_digest() -> str:
    """SHA-256 of the helpers that compute, their docstrings, comments and blank lines left out."""
    modules = sorted(path for path in Path(__file__).parent.glob("*.py") if path.stem not in SHOWS)
    return sha256("\n".join(line for path in modules for line in _code_lines(path.read_text(encoding="utf-8"))))


def _code_lines(source: str) -> list[str]:
    told = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = (line.rstrip() for number, line in enumerate(source.splitlines(), start=1) if number not in told)
    return [line for line in lines if line and not line.lstrip().startswith("#")]
