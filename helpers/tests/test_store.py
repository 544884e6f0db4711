# SPDX-License-Identifier: MIT
import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from helpers import store
from helpers.store import UserError, atomic, read_json, reusable, sha256, write_records, write_sidecar, write_text


def test_an_error_leaves_the_old_file_and_no_half_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_old_file_is_there_until_the_new_one_takes_its_place(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(store.os, "replace", stop)
        write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_records_are_one_a_line(tmp_path):
    path = tmp_path / "a.json"
    write_records(path, [{"a": "é"}, {"a": "</think>"}])
    assert read_json(path) == [{"a": "é"}, {"a": "</think>"}] and len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("nan", [float("nan"), np.float64("nan"), -float("nan")])
def test_no_number_is_null_however_deep(tmp_path, nan):
    path = tmp_path / "a.json"
    write_records(path, [{"a": nan, "b": {"c": [1.5, nan]}, "d": "NaN"}])
    read = json.loads(path.read_text(), parse_constant=no_json)
    assert read == [{"a": None, "b": {"c": [1.5, None]}, "d": "NaN"}]


@pytest.mark.parametrize("infinite", [float("inf"), -float("inf")])
def test_an_infinite_number_is_refused_and_the_old_file_stays(tmp_path, infinite):
    path = tmp_path / "a.json"
    write_records(path, [{"a": 1.0}])
    with pytest.raises(UserError, match=r"a\.json cannot hold an infinite number"):
        write_records(path, [{"a": {"b": infinite}}])
    assert read_json(path) == [{"a": 1.0}] and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_all_committed_json_is_strict():
    paths = sorted((store.ROOT / "data").rglob("*.json"))
    assert len(paths) > 50
    for path in paths:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=no_json)


def test_provenance_must_match(tmp_path):
    path = tmp_path / "a.json"
    write_records(path, [])
    assert not reusable(path, {"seed": 0})
    write_sidecar(path, {"seed": 0}, "cpu")
    assert reusable(path, {"seed": 0}) and not reusable(path, {"seed": 1})


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


def test_arrays_are_kept_until_anything_they_are_made_from_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "data_dir", lambda pair: tmp_path / pair)
    monkeypatch.delenv("R1_FRESH", raising=False)
    runs = []

    def make():
        runs.append(1)
        return {"b": np.arange(6.0)[::2], "a": np.eye(2, dtype=np.float32).T}

    def other():
        return make()

    first = store.kept(Two(), "x", make, ["text"], 3)
    again = store.kept(Two(), "x", make, ["text"], 3)
    assert len(runs) == 1 and all(np.array_equal(first[key], again[key]) for key in ("a", "b"))
    assert list(first) == list(again), "in one order, computed or read back"
    for change in (
        lambda: store.kept(Two(), "x", make, ["text"], 4),
        lambda: store.kept(Two(), "x", make, ["texts"], 3),
        lambda: store.kept(Two(), "x", make, {("a", 1): ["text"]}, range(3), Model()),
        lambda: store.kept(Two(), "x", make, {("a", 2): ["text"]}, range(3), Model()),
        lambda: store.kept(Two(), "x", make, {("a", 2): ["text"]}, range(3), Model("another")),
        lambda: store.kept(Two(base=Model("model@2")), "x", make, ["text"], 3),
        lambda: store.kept(Two(base=Model(dtype="bfloat16")), "x", make, ["text"], 3),
        lambda: store.kept(Two(), "x", make, ["text"], 3),
        lambda: store.kept(Two(), "x", other, ["text"], 3),
        lambda: store.kept(Two(), "x", make, ["text"], 3),
        lambda: store.kept(Two(), "x", make, ["text"], 3, fresh=True),
    ):
        before = len(runs)
        change()
        assert len(runs) == before + 1
    monkeypatch.setattr(store, "code_digest", lambda: "other helpers")
    store.kept(Two(), "x", make, ["text"], 3)
    assert len(runs) == 13
    monkeypatch.setattr(store, "package_versions", lambda: {"torch": "0"})
    store.kept(Two(), "x", make, ["text"], 3)
    store.kept(Two(), "x", make, ["text"], 3)
    assert len(runs) == 14, "another version computes once"
    (tmp_path / "two" / "x.safetensors").unlink()
    store.kept(Two(), "x", make, ["text"], 3)
    assert len(runs) == 15, "a file that is gone computes again"
    with pytest.raises(TypeError):
        store.kept(Two(), "x", make, object())


def test_a_failing_computation_keeps_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "data_dir", lambda pair: tmp_path / pair)
    store.kept(Two(), "x", lambda: {"a": np.ones(2)}, 1)
    before = (tmp_path / "two" / "x.safetensors").read_bytes()

    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.kept(Two(), "x", fails, 1)
    assert (tmp_path / "two" / "x.safetensors").read_bytes() == before


def test_arrays_without_their_provenance_are_not_taken_for_the_old_ones(tmp_path, monkeypatch):
    """Stopped between the new arrays and their sidecar: the old inputs compute again."""
    monkeypatch.setattr(store, "data_dir", lambda pair: tmp_path / pair)
    monkeypatch.delenv("R1_FRESH", raising=False)

    def make():
        return {"a": np.full(2, float(next(values)))}

    values = iter((1, 2, 3))
    store.kept(Two(), "x", make, 1)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(store, "write_sidecar", stop)
        store.kept(Two(), "x", make, 2)
    assert store.kept(Two(), "x", make, 1)["a"].tolist() == [3, 3]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "line", "changes"),
    [
        ("readouts", "X = 1", True),
        ("pairs", "X = 1", True),
        ("new_module", "X = 1", True),
        ("readouts", "# a remark", False),
        ("figures", "X = 1", False),
    ],
)
def test_the_digest_of_code_follows_the_modules_that_compute(tmp_path, monkeypatch, module, line, changes):
    for path in (store.ROOT / "helpers").glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(store, "__file__", str(tmp_path / "store.py"))
    digest = store.code_digest.__wrapped__
    before = digest()
    assert before == store.code_digest()
    with (tmp_path / f"{module}.py").open("a") as stream:
        stream.write(f"{line}\n")
    assert (digest() != before) is changes


def test_the_digest_of_code_sees_code_alone():
    one = '"""Doc."""\n\ndef f(a):\n    """Doc\n    of f."""\n    # remark\n    return a + 1\n'
    assert store._code_lines(one) == store._code_lines("def f(a):\n    return a + 1")
    assert store._code_lines(one) != store._code_lines(one.replace("+ 1", "+ 2"))
