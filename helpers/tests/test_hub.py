# SPDX-License-Identifier: MIT
"""A hub that is silent, refuses or cuts the connection: real sockets, a process of its own, and soon one line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from helpers.store import ROOT

KEY = "hf_" + "x1Y2" * 8
FAULTS = {"silent": "does not answer", "refusing": "401", "cut": ""}  # what the hub does -> what the line tells
CHILD = """
from helpers.pairs import load_pair
from helpers.store import UserError
try:
    load_pair("r1-1.5b", device="cpu")
except UserError as error:
    print(error)
"""


class Answer(BaseHTTPRequestHandler):
    """None for long, a refusal that repeats the key of the question, or the beginning of one."""

    fault = ""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        time.sleep(60 * (self.fault == "silent"))
        self.send_response(200 if self.fault == "cut" else 401)
        self.send_header("X-Error-Message", f"no right for {self.headers['Authorization']}")
        self.send_header("Content-Length", "99" if self.fault == "cut" else "0")
        self.end_headers()

    do_HEAD = do_GET


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_at_fault_ends_soon_and_in_one_line(fault, tmp_path, request):
    """Which tells no key."""
    hub = ThreadingHTTPServer(("127.0.0.1", 0), type("At", (Answer,), {"fault": fault}))
    hub.daemon_threads, hub.handle_error = True, lambda *_: None
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    request.addfinalizer(hub.shutdown)
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0", "HF_TOKEN": KEY}
    settings |= {"HF_HOME": str(tmp_path), "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    command, how = [sys.executable, "-c", CHILD], {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, env={**os.environ, **settings}, **how)
    assert FAULTS[fault] in done.stdout and len(done.stdout.splitlines()) == 1 and done.stderr == "", done
    assert done.stdout.strip().endswith("check name and network, or use the pair smol") and KEY not in done.stdout
