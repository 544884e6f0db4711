# SPDX-License-Identifier: MIT
import json
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers import provenance, store
from helpers.store import atomic, read_json, sha256, take, write_records, write_text


def test_an_error_leaves_the_old_file_and_no_half_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_no_number_is_null_however_deep_and_an_infinite_one_refused(tmp_path):
    path = tmp_path / "a.json"
    write_records(path, [{"a": float("nan"), "b": {"c": [1.5, -np.float64("nan")]}, "d": "NaN"}])
    read = json.loads(path.read_text(), parse_constant=no_json)
    assert read == [{"a": None, "b": {"c": [1.5, None]}, "d": "NaN"}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(path, [{"a": {"b": -float("inf")}}])
    assert read_json(path) == read and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_all_committed_json_is_strict():
    paths = sorted((store.ROOT / "data").rglob("*.json"))
    assert len(paths) > 50
    for path in paths:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=no_json)


def test_sha256_known_answer(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@dataclass
class Model:
    identity: str = "model@1"
    dtype: str = "float32"
    device: str = "cpu"


@dataclass
class Two:
    name: str = "two"
    base: Model = field(default_factory=Model)
    distilled: Model = field(default_factory=Model)

    @property
    def members(self):
        return self.base, self.distilled


TEXTS, FACTOR, DIRECTION = ["one", "two", "three"], {"a": [2.0]}, np.array([0.3, 0.4])
PROBE = Model("probe@1")


class Counter:
    """How often `make` ran: outside of what it reads, or every run would be another input."""

    runs: ClassVar[list[list[int]]] = []


def recipe(text):
    return len(text) * FACTOR["a"][0]


def make(rows):
    sys.modules[__name__].Counter.runs.append(rows)
    named = [recipe(text) for text in take(TEXTS, rows)]
    return {"b": np.array(named), "a": np.outer(named, DIRECTION) + len(PROBE.identity)}


def kept(pair=None, function=make, **options):
    """Keep it, and how many runs that took."""
    before = len(Counter.runs)
    found = store.kept(pair or Two(), "x", function, len(TEXTS), **options)
    return found, len(Counter.runs) - before


@pytest.fixture
def kept_here(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "data_dir", lambda pair: tmp_path / pair)
    return tmp_path / "two" / "x.safetensors"


def test_arrays_are_kept_until_anything_that_make_reads_changes(kept_here, monkeypatch):
    here = sys.modules[__name__]
    first, runs = kept()
    again, more = kept()
    assert (runs, more) == (1, 0) and all(np.array_equal(first[key], again[key]) for key in ("a", "b"))
    assert list(first) == list(again), "in one order, computed or read back"
    for name, value in (
        ("TEXTS", ["one", "two", "four"]), ("FACTOR", {"a": [3.0]}), ("DIRECTION", np.array([0.3, 0.41])),
        ("PROBE", Model("probe@2")), ("recipe", lambda text: len(text) * FACTOR["a"][0] * 2),
    ):  # fmt: skip
        with monkeypatch.context() as changed:
            changed.setattr(here, name, value)
            assert kept()[1] == 1, f"{name} was changed"
        assert kept()[1] == 1
    assert kept(Two(base=Model("model@2")))[1] == kept(Two(base=Model(dtype="bfloat16")))[1] == kept()[1] == 1
    assert kept(function=lambda rows: make(rows))[1] == kept()[1] == kept(fresh=True)[1] == 1
    monkeypatch.setattr(here, "DIRECTION", DIRECTION * (1 + 1e-6))
    assert kept()[1] == 0, "another machine's rounding is no other input"
    store.kept(Two(), "x", make, len(TEXTS) - 1)
    assert Counter.runs[-1] == [0, 1] and kept()[1] == 1, "another number of rows is another result"
    kept_here.unlink()
    assert kept()[1] == 1, "a file that is gone computes again"
    monkeypatch.setattr(here, "FACTOR", {"a": [object()]})
    with pytest.raises(TypeError, match="FACTOR"):
        kept()


def test_a_helper_counts_where_it_is_reached_and_nowhere_else(monkeypatch):
    from helpers import patching, readouts, steering, weights

    def reading(rows):
        return {"x": readouts.next_logprobs(Two().base, take(TEXTS, rows), [1])}

    before = provenance.made_from(reading)
    reached = {(readouts, "last_hidden"): True, (readouts, "_read"): True, (readouts, "lens"): False}
    reached |= {(patching, "swapped"): False, (steering, "steered"): False, (weights, "closest"): False}
    for (module, name), counts in reached.items():
        with monkeypatch.context() as edited:
            edited.setattr(module, name, recipe)
            assert (provenance.made_from(reading) != before) == counts, name


def test_other_versions_reuse_what_a_sample_confirms(kept_here, monkeypatch, capsys):
    kept()
    monkeypatch.setattr(store, "package_versions", lambda: {"torch": "99.0"})
    assert kept()[1] == 1 and Counter.runs[-1] == store.sampled(len(TEXTS), "x")
    assert "here torch 99.0" in (said := capsys.readouterr().out) and "the same" in said
    stored = load_file(kept_here)
    stored["a"][store.sampled(len(TEXTS), "x")[0], 1] += 1
    save_file(stored, kept_here)
    found, runs = kept()
    assert runs == 2 and "NOT the same" in capsys.readouterr().out, "a row changed by hand is found by its sample"
    assert found["a"][0] == pytest.approx(make([0])["a"][0]) and kept()[1] == 0, "now of these versions"


def test_a_digest_sees_code_alone():
    bare = "def f(a):\n    return a + 1\n"
    told = 'def f(a):\n    """Doc\n    of f."""\n    # remark\n\n    return a + 1\n'
    other = provenance.plain_source(bare.replace("+ 1", "+ 2"))
    assert provenance.plain_source(bare) == provenance.plain_source(told) != other
