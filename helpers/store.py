# SPDX-License-Identifier: MIT
"""Paths, and results on disk that carry their provenance."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from helpers.provenance import made_from, sha256

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "nnsight")
SAMPLE = 2  # rows of a stored result that are computed again where package versions differ
TOLERANCE = 1e-3  # relative and absolute, within which they must be the stored ones
KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NDIF_API_KEY")  # variables whose values are nobody else's business
REMARK = "helpers: "  # how a line begins that `python -m helpers run` takes out of a notebook's outputs


def without_keys(text: str) -> str:
    """A text without the user's keys, what looks like a key of the hub, and passwords in addresses."""
    for key in filter(None, map(os.environ.get, KEYS)):
        text = text.replace(key, "***")
    return re.sub(r"hf_\w{20,}|(?<=bearer )\S+|(?<=://)[^/\s@]+(?=@)", "***", text, flags=re.I)


class StudyError(Exception):
    """An error whose message the user reads, so that it never tells a key that a library put into its own."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(without_keys(message))


class UserError(StudyError):
    """Something the user can mend; its message is one line that says how."""


class NotebookFailed(StudyError):
    """A cell of a notebook raised; the message names notebook and error."""

    exit_code = 1


class Stopped(StudyError):
    """The user stopped a run; the message says what is kept."""

    exit_code = 130


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


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes `path` at the end, or vanishes on an error. Raises UserError
    when the disk is full or the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        said = f"cannot write {path}: {error.strerror or error}"
        raise UserError(f"{said}; free some room there, or make it writable") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While one process reads a file and writes it again, no other does."""
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{sha256(str(path.resolve()))[:16]}.lock"):
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a JSON array with one record a line, so that a diff can be read; NaN becomes null. Raises ValueError for
    infinity, which JSON does not know either."""
    known = json.loads(json.dumps(records), parse_constant=lambda name: None if name == "NaN" else float(name))
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, allow_nan=False) for record in known)
    write_text(path, f"[\n{lines}\n]\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is broken or cannot be read is named in the UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as JSON ({error}): restore it with git, or delete it") from error


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on, without local build marks."""
    return {name: version(name).split("+")[0] for name in PACKAGES}


def say(text: str) -> None:
    """Print what was reused or computed, as a remark that a rerun may make or not."""
    sys.stdout.write(f"{REMARK}{text}\n")


def sidecar_path(path: Path) -> Path:
    """`NN_name.json` -> `NN_name.meta.json`."""
    return path.with_suffix(".meta.json")


def reusable(path: Path, provenance: dict[str, Any]) -> bool:
    """Whether `path` was made from exactly this provenance, whatever the package versions (see `drifted`); arrays that
    it was made from may differ by another machine's rounding."""
    if not (path.exists() and sidecar_path(path).exists()):
        return False
    stored = read_json(sidecar_path(path))["provenance"]
    known, here = stored.get("arrays", {}), provenance.get("arrays", {})
    same = {**stored, "arrays": sorted(known)} == {**provenance, "arrays": sorted(here)}
    return same and all(_is_close(known[name], here[name]) for name in here)


def _is_close(one: Any, two: Any, least: float = TOLERANCE) -> bool:
    return np.shape(one) == np.shape(two) and np.allclose(one, two, rtol=TOLERANCE, atol=least, equal_nan=True)


def drifted(path: Path) -> str:
    """Nothing, or, where other package versions made a stored result than are here, which and which."""
    both = read_json(sidecar_path(path))["versions"], package_versions()
    made, here = (", ".join(map(" ".join, versions.items())) for versions in both)
    return "" if made == here else f"made with {made}, here {here}"


def sampled(n: int, name: str) -> list[int]:
    """The few of n rows of a stored result that are computed again where package versions differ, by its name."""
    return sorted(np.random.default_rng(int(sha256(name)[:8], 16)).permutation(n)[:SAMPLE].tolist())


def write_sidecar(path: Path, provenance: dict[str, Any], device: str) -> None:
    """Write what a result was made from beside it; versions, date and device are told, not compared."""
    date = datetime.now(UTC).date().isoformat()
    sidecar = {"provenance": provenance, "versions": package_versions(), "device": device, "date": date}
    write_text(sidecar_path(path), json.dumps(sidecar, indent=1, ensure_ascii=False) + "\n")


def take(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    """Those of the values that these rows name, as far as there are."""
    return [values[row] for row in rows if row < len(values)]


def kept(
    pair: Any, name: str, make: Callable[[list[int]], Mapping[str, Any]], n: int, *more: int, fresh: bool = False
) -> dict[str, np.ndarray]:
    """Arrays that `make(rows)` computes for some rows (prompts), [row, ...], stored as
    `data/<pair>/<name>.safetensors` and reused as long as the models, the numbers of rows `n` and `more` (one for each
    set of prompts that `make` takes rows of) and all that `make` reads (see `made_from`) are the same. Where package
    versions differ, SAMPLE rows are computed again, and all if those differ by more than TOLERANCE."""
    path, rows = data_dir(pair.name) / f"{name}.safetensors", [n, *more]
    models = [f"{member.identity} {member.dtype}" for member in pair.members]
    provenance = {"models": models, "rows": rows, **made_from(make)}
    good = not fresh and reusable(path, provenance)
    how = "reused" if good else "computed"
    if good and (drift := drifted(path)):
        few = sampled(min(rows), name)
        good = _same_rows(_load_arrays(path), make(few), few)
        how += f", {drift}: {len(few)} rows computed again, {'the same' if good else 'NOT the same, so all are'}"
    say(f"{pair.name}/{path.name}: {how}")
    if not good:
        arrays = {key: np.ascontiguousarray(value) for key, value in make(list(range(max(rows)))).items()}
        with locked(path):
            sidecar_path(path).unlink(missing_ok=True)  # else a crash could leave new arrays under an old provenance
            with atomic(path) as temporary:
                temporary.write_bytes(save(arrays))  # safetensors' own writer reports a full disk in its own error
            write_sidecar(path, provenance, str(pair.base.device))
    return _load_arrays(path)  # in the file's order, whether it was just computed or not


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} does not load ({error}): delete it or restore it with git") from error


def _same_rows(stored: Mapping[str, np.ndarray], again: Mapping[str, Any], rows: list[int]) -> bool:
    """Whether rows computed again are those that are stored; ranks and counts may differ by one."""
    found = {key: np.asarray(values) for key, values in again.items()}
    least = {key: TOLERANCE if values.dtype.kind == "f" else 1 for key, values in found.items()}
    return all(_is_close(take([*stored[key]], rows), values, least[key]) for key, values in found.items())
