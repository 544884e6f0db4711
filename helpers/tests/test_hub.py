# SPDX-License-Identifier: MIT
"""A hub that stalls, cuts the connection, refuses, or serves programs: real sockets, a process of its own."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.pairs import HUB
from helpers.store import ROOT
from helpers.tests.hub import COMMIT, Hub

KEY = "hf_" + "x1Y2" * 8
REPOSITORIES = HUB["r1-1.5b"]
FAULTS = {  # what the hub does -> the seconds it may take, what the line tells (or "loaded")
    "silent": (6, "couldn't connect"),
    "silent files": (8, "asked twice"),
    "stalled": (25, "timed out"),
    "cut": (20, "peer closed connection"),
    "refusing": (6, "401"),
    "cut once": (15, "loaded"),
    "silent, with all in the cache": (8, "loaded"),
    "": (10, "loaded"),
}
# Loads what it reads the name of, and answers with the seconds and the line.
CHILD = """
import json, sys, time
from helpers.pairs import Pair, load_pair
from helpers.store import UserError
print(flush=True)
for line in sys.stdin:
    name, began = json.loads(line), time.monotonic()
    try:
        said = "loaded " + " ".join(member.identity for member in load_pair(name, device="cpu").members)
    except UserError as error:
        said = str(error)
    print(json.dumps([time.monotonic() - began, said]), flush=True)
"""


@pytest.fixture(scope="module")
def told(qwen_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process is told by every kind of hub in turn."""
    place = tmp_path_factory.mktemp("hub")
    pickled, own = (Path(shutil.copytree(qwen_folders[0], place / name)) for name in ("pickled", "own"))
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (own / "own.py").write_text(f"open({str(place / 'ran')!r}, 'w')\n")
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"model_type": "new", "auto_map": {"AutoConfig": "own.A"}}))
    served = dict(zip(REPOSITORIES, qwen_folders, strict=True))
    hub = Hub(served | {"a/pickled": pickled, "a/own": own})
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        env={
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(place / "home"),
            "HF_HUB_ETAG_TIMEOUT": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_TOKEN": KEY,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.stdout.readline()  # all is imported

    def load(name: Any, fault: str) -> list[Any]:
        hub.fault = fault.partition(",")[0]
        child.stdin.write(json.dumps(name) + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    rows = {fault: load("r1-1.5b", fault) for fault in FAULTS}
    hub.asked.clear()
    rows |= {name: load([name, name], "") for name in ("a/pickled", "a/own")}
    child.stdin.close()
    rows["stderr"] = child.stderr.read()
    assert child.wait() == 0
    hub.shutdown()
    return rows | {"asked": hub.asked, "ran": (place / "ran").exists()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_at_fault_ends_soon_and_in_one_line(told, fault):
    seconds, said = told[fault]
    most, words = FAULTS[fault]
    assert words in said and len(said.splitlines()) == 1, said
    assert said.startswith("loaded") or said.endswith("check name and network, or use the pair smol"), said
    assert seconds < most, f"{seconds:.1f} s"


def test_nothing_else_is_printed_and_no_key_is_told(told):
    assert told["stderr"] == ""
    assert KEY not in json.dumps(told)


def test_what_was_cut_once_is_the_model_itself(told):
    assert told["cut once"][1] == "loaded " + " ".join(f"{name}@{COMMIT}" for name in REPOSITORIES)
    assert told[""][1] == told["silent, with all in the cache"][1] == told["cut once"][1]


def test_programs_on_the_hub_are_refused_and_not_even_fetched(told):
    assert "a/pickled" in told["a/pickled"][1] and "safetensors" in told["a/pickled"][1], told["a/pickled"][1]
    assert told["a/own"][1].startswith("a/own brings code of its own, which is never run here")
    fetched = [line for line in told["asked"] if line.startswith("GET") and line.endswith((".bin", ".py"))]
    assert not fetched and not told["ran"]
    asked = [line for line in told["asked"] if "discussions" in line or "commits" in line]
    assert not asked, "nor is anybody asked to convert them"
