# SPDX-License-Identifier: MIT
"""A hub that is silent, cuts the connection or refuses: real sockets, a process of its own, and soon one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from helpers.pairs import HUB
from helpers.store import ROOT

KEY, COMMIT = "hf_" + "x1Y2" * 8, "0" * 40
FAULTS = {  # what the hub does -> the seconds it may take, what the line tells
    "silent": (20, "timed out"),
    "silent about files": (60, "trying to locate the file"),
    "cut": (60, ""),
    "refusing": (20, "401"),
}
CHILD = """
import sys, time
from helpers.pairs import load_pair
from helpers.store import UserError
began = time.monotonic()
try:
    load_pair("r1-1.5b", device="cpu")
except UserError as error:
    print(time.monotonic() - began, error)
"""


class Answer(BaseHTTPRequestHandler):
    """One request to a hub, which repeats the key where it refuses."""

    fault = ""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        about = self.path.startswith("/api/models/")
        if self.fault == "silent" or (self.fault == "silent about files" and not about):
            time.sleep(60)
        found = [{"type": "file", "path": "config.json", "size": 100, "oid": "a" * 40}]
        model = {"id": HUB["r1-1.5b"][0], "sha": COMMIT, "siblings": [], "tags": []}
        body = json.dumps(found if "/tree/" in self.path else model).encode()
        self.send_response(401 if self.fault == "refusing" else 200)
        told = {"X-Error-Message": f"no right for {self.headers['Authorization']}", "Content-Length": str(len(body))}
        for name, value in (told | {"ETag": '"a"', "X-Repo-Commit": COMMIT}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if about else body[:9])

    do_HEAD = do_GET


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_at_fault_ends_soon_and_in_one_line(fault, tmp_path, request):
    """Which tells no key."""
    hub = ThreadingHTTPServer(("127.0.0.1", 0), type("At", (Answer,), {"fault": fault}))
    hub.daemon_threads = True
    hub.handle_error = lambda *_: None
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    request.addfinalizer(hub.shutdown)
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0", "HF_TOKEN": KEY}
    settings |= {"HF_HOME": str(tmp_path), "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    seconds, _, said = done.stdout.partition(" ")
    most, words = FAULTS[fault]
    assert words in said and len(said.splitlines()) == 1 and done.stderr == "", done
    assert said.strip().endswith("check name and network, or use the pair smol") and KEY not in said
    assert float(seconds) < most
