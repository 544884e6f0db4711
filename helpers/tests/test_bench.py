# SPDX-License-Identifier: MIT
"""The benchmark runs, skips what is not there, and its table tells what was measured."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.commands import bench as benchmark

TINY = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2}
TINY |= {"intermediate_size": 80, "vocab_size": 736}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A benchmark of two models with random weights, small ones here: its file."""
    monkeypatch.setattr(benchmark, "QWEN", benchmark.QWEN | TINY)
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path)
    how = {"shapes": True, "dtype": "float32", "device": "cpu", "cap": 0.0}
    return lambda *rows, **others: benchmark.bench("tiny", others, rows=[*rows], **how)


def test_rows_are_gathered_in_one_file(measured, capsys):
    measured("search")
    path = measured("exact", transformer_lens=sys.executable)
    record = json.loads(path.read_text())
    assert [entry["row"] for entry in record["rows"]] == ["exact", "search"]
    assert "exact: no transformer_lens (ModuleNotFoundError" in capsys.readouterr().out
    for entry in record["rows"]:
        assert set(entry["libraries"]) == {"plain", "helpers"}, "what another environment lacks is left out"
        assert entry["libraries"]["plain"]["ratio"] == [1, 1, 1]
        assert all(one["seconds"] > 0 and one["mib"] >= 0 for one in entry["libraries"].values())
    seconds = record["rows"][0]["libraries"]["plain"]["seconds"]
    assert f"| {seconds * 1000:.0f} ms" in (text := benchmark.table(path)) and "exact patching of all layers" in text


def test_decoding_rates_stand_beside_what_bandwidth_allows(measured, monkeypatch):
    monkeypatch.setitem(benchmark.SIZES, "decoding", ("generate", (2,)))
    (found,) = json.loads((path := measured("decoding")).read_text())["decoding"].values()
    assert 0 < found["share"] < 1 and min(found["plain"], found["helpers"], found["gb_a_second"], found["peak"]) > 0
    rates = f"{found['plain']:,.0f} | {found['helpers']:,.0f}"
    assert f"| 2 prompts at once, 100 tokens each | {rates} |" in benchmark.table(path)


def test_the_growth_figure_is_drawn_from_the_committed_benchmark(monkeypatch):
    shown = {}
    monkeypatch.setattr("helpers.figures.save_figure", lambda fig, name, **how: shown.update(how, name=name))
    path = benchmark.ROOT / "data" / "bench" / "cpu.json"
    benchmark.growth_figure(path)
    growth = json.loads(path.read_text())["growth"]
    times = growth["512"]["seconds"] / growth["8"]["seconds"]
    assert shown["name"] == "lens_growth" and f"512 prompts against 8: {times:.0f} times the time" in shown["alt"]
