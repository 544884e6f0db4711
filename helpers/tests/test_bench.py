# SPDX-License-Identifier: MIT
"""The benchmark runs, skips what is not there, and its table tells what was measured."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.series import bench as benchmark


@pytest.fixture
def measured(qwen_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "REPEATS", 2)
    options = {"models": qwen_folders[0].parent, "folder": tmp_path, "name": "tiny"}
    benchmark.bench(rows=["search"], others={"transformer_lens": sys.executable}, **options)
    return benchmark.bench(rows=["exact"], **options), options


def test_rows_are_measured_in_turns_and_gathered_in_one_file(measured, capsys):
    record = json.loads(measured[0].read_text())
    assert [entry["row"] for entry in record["rows"]] == ["exact", "search"]
    for entry in record["rows"]:
        assert set(entry["libraries"]) == {"plain", "helpers"}, "what another environment lacks is left out"
        assert entry["libraries"]["plain"]["ratio"] == [1, 1, 1]
        assert all(one["seconds"] > 0 and one["mib"] >= 0 for one in entry["libraries"].values())
    assert record["machine"]["torch"] and record["machine"]["cores"]
    text = benchmark.table(measured[0])
    seconds = record["rows"][0]["libraries"]["plain"]["seconds"]
    assert f"| {seconds * 1000:.0f} ms" in text and "exact patching of all layers" in text


def test_decoding_rates_stand_beside_what_bandwidth_allows(qwen_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    monkeypatch.setattr(benchmark, "BATCHES", (2,))
    path = benchmark.bench(rows=["decoding"], models=qwen_folders[0].parent, folder=tmp_path, name="tiny")
    (found,) = json.loads(path.read_text())["decoding"].values()
    assert 0 < found["share"] < 1 and min(found["plain"], found["helpers"], found["gb_a_second"], found["peak"]) > 0
    assert (
        f"| 2 prompts at once, 100 tokens each | {found['plain']:,.0f} | {found['helpers']:,.0f} |"
        in benchmark.table(path)
    )


def test_under_a_cap_the_table_tells_memory(tmp_path):
    path = tmp_path / "capped.json"
    one = {
        "row": "exact",
        "what": "exact patching",
        "libraries": {"helpers": {"seconds": 0.5, "mib": 1.0, "peak": 2560}},
    }
    machine = dict.fromkeys(("device", "torch", "transformers", "nnsight", "date"), "x")
    path.write_text(json.dumps({"machine": machine, "models": "m", "dtype": "d", "cap": 14.5, "rows": [one]}))
    assert "of which a process may use 14.5 GiB" in (text := benchmark.table(path))
    assert "| exact patching | 500 ms | 2.5 GiB |" in text


def test_the_growth_figure_is_drawn_from_the_committed_benchmark(monkeypatch):
    shown = {}
    monkeypatch.setattr(benchmark.figures, "save_figure", lambda fig, name, **how: shown.update(how, name=name))
    path = benchmark.ROOT / "data" / "bench" / "cpu.json"
    benchmark.growth_figure(path)
    growth = json.loads(path.read_text())["growth"]
    times = growth["512"]["seconds"] / growth["8"]["seconds"]
    assert shown["name"] == "lens_growth" and f"512 prompts against 8: {times:.0f} times the time" in shown["alt"]
