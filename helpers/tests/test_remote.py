# SPDX-License-Identifier: MIT
"""Remote models: every function across a process that stands in for NDIF, and in nnsight's own simulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nnsight
import pytest

from helpers.pairs import load_pair
from helpers.store import ROOT, UserError
from helpers.tests.conftest import make_folders
from helpers.tests.remote_client import ASKED, REFUSED

CLIENT = Path(__file__).with_name("remote_client.py")


@cache
def asked(folder: Path, how: str) -> dict[str, Any]:
    """What the client prints, run once a way of being remote."""
    pair = [*map(str, make_folders(folder, (True, False), (3, 3)))]
    command, environment = [sys.executable, str(CLIENT), *pair, how], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


WAYS = ("server", "local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("how", WAYS)
def test_a_remote_model_answers_like_one_that_is_here(folder, how, name):
    row = asked(folder, how)["asked"][name]
    assert "error" not in row, row["error"]
    assert row["difference"] < 1e-4, row


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", WAYS)
def test_what_needs_weights_here_says_so_in_one_line(folder, how, name):
    said = asked(folder, how)["refused"][name]
    assert "remote" in said and "load" in said and "\n" not in said, said


def test_a_remote_pair_holds_no_weights_and_sends_small_things(folder):
    found = asked(folder, "server")
    assert found["weights"] == ["meta", "meta"]
    rows = found["asked"]
    assert rows["lens"]["back"] < rows["residuals"]["back"] < 6000, rows["lens"]
    assert max(row["back"] for row in rows.values()) < 50_000 and max(row["sent"] for row in rows.values()) < 100_000


def test_a_remote_pair_without_a_key_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", None)
    with pytest.raises(UserError, match="NDIF_API_KEY"):
        load_pair("r1-70b", remote=True)
