# SPDX-License-Identifier: MIT
"""Paths, and results on disk that carry their provenance."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from helpers.provenance import made_from

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "nnsight")
SAMPLE = 2  # rows of a stored result that are computed again where package versions differ
TOLERANCE = 1e-3  # relative and absolute, within which they must be the stored ones


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


def sidecar_path(path: Path) -> Path:
    """`NN_name.json` -> `NN_name.meta.json`."""
    return path.with_suffix(".meta.json")


def reusable(path: Path, provenance: dict[str, Any]) -> bool:
    """Whether `path` exists and was made from exactly this provenance, whatever the package versions (see `drifted`);
    `run --fresh` sets R1_FRESH, and then only what this run made counts."""
    meta, run = sidecar_path(path), os.environ.get("R1_FRESH")
    if not (path.exists() and meta.exists()):
        return False
    sidecar = read_json(meta)
    return (
        isinstance(sidecar, dict)
        and _agree(sidecar.get("provenance"), provenance)
        and run in (None, "", sidecar.get("run"))
    )


def _agree(stored: Any, asked: dict[str, Any]) -> bool:
    """Equal but for digests of arrays, which another machine's rounding moves."""
    if not isinstance(stored, dict) or stored.keys() != asked.keys():
        return False
    known, here = (one.get("arrays", {}) for one in (stored, asked))
    close = (
        isinstance(known, dict)
        and known.keys() == here.keys()
        and all(np.allclose(known[name], here[name], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True) for name in here)
    )
    return close and all(stored[key] == asked[key] for key in asked if key != "arrays")


def drifted(path: Path) -> str:
    """Nothing, or, where other package versions made a stored result than are here, which and which."""
    made, here = read_json(sidecar_path(path)).get("versions", {}), package_versions()
    other = [name for name in here if made.get(name) != here[name]]
    return (
        "made with {}, here {}".format(*(", ".join(f"{n} {v.get(n)}" for n in other) for v in (made, here)))
        if other
        else ""
    )


def sampled(n: int, name: str) -> list[int]:
    """The few of n rows of a stored result that are computed again where package versions differ, by its name."""
    return sorted(np.random.default_rng(int(sha256(name)[:8], 16)).permutation(n)[:SAMPLE].tolist())


def write_sidecar(path: Path, provenance: dict[str, Any], device: str) -> None:
    """Write what a result was made from beside it; versions, date and device are told, not compared."""
    sidecar = {
        "provenance": provenance,
        "versions": package_versions(),
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
        "run": os.environ.get("R1_FRESH"),
    }
    write_text(sidecar_path(path), json.dumps(sidecar, indent=1, ensure_ascii=False) + "\n")


def take(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    """Those of the values that these rows name, as far as there are."""
    return [values[row] for row in rows if row < len(values)]


def kept(
    pair: Any, name: str, make: Callable[[list[int]], Mapping[str, Any]], n: int, *more: int, fresh: bool = False
) -> dict[str, np.ndarray]:
    """Arrays that `make(rows)` computes for some rows (prompts), [row, ...], stored as
    `data/<pair>/<name>.safetensors` and reused as long as the models and all that `make` reads (see `made_from`) are
    the same. `n`, `more`: how many rows there are, of each set of prompts that `make` takes them from (see `take`).

    Where package versions differ, SAMPLE rows are computed again, and all of them if those differ by more than
    TOLERANCE. Says which; `fresh` computes in any case. Raises TypeError where `make` reads something whose content
    cannot be told.
    """
    path = data_dir(pair.name) / f"{name}.safetensors"
    provenance = {"models": [f"{member.identity} {member.dtype}" for member in pair.members], **made_from(make)}
    rows, told, good = max(n, *more, n), "computed", False
    if not fresh and reusable(path, provenance) and max(map(len, _load_arrays(path).values()), default=0) == rows:
        drift, few = drifted(path), sampled(min(n, *more, n), name)
        good = not drift or _same_rows(_load_arrays(path), make(few), few)
        again = f", {drift}: {len(few)} rows computed again, " + ("the same" if good else "NOT the same, so all are")
        told = "reused" + again * bool(drift)
    say(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {told}")
    if not good:
        arrays = {key: np.ascontiguousarray(value) for key, value in make(list(range(rows))).items()}
        with alone(path):
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
    for key, values in again.items():
        known, found = (np.asarray(one) for one in (stored.get(key, np.empty(0)), values))
        picked = known[[row for row in rows if row < len(known)]] if len(known) else known
        least = TOLERANCE if found.dtype.kind == "f" else 1
        if picked.shape != found.shape or not np.allclose(picked, found, rtol=TOLERANCE, atol=least, equal_nan=True):
            return False
    return True
