# SPDX-License-Identifier: MIT
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


def test_no_room_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "replace", full)
    with pytest.raises(UserError, match="No space left on device; free some room"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_broken_json_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_records_are_one_a_line(tmp_path):
    path = tmp_path / "a.json"
    write_records(path, [{"a": "é"}, {"a": "</think>"}])
    assert read_json(path) == [{"a": "é"}, {"a": "</think>"}] and len(path.read_text().splitlines()) == 4


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
