# SPDX-License-Identifier: MIT
"""A model hub on this machine that answers as the real one does, or stalls, or cuts the connection."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.store import sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"


class Hub(ThreadingHTTPServer):
    """Serves folders under the names of repositories.

    `fault`: "" none; "silent" accepts and never answers; "silent files" answers what is asked about a model, then
    nothing; "stalled" and "cut" send half of the weights, then wait or hang up; "cut once" hangs up the first time;
    "refusing" denies every request and repeats its key.
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path], fault: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories, self.fault, self.cuts, self.asked = repositories, fault, 0, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that gave up is no error here."""


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        self.server.asked.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        fault = self.server.fault
        about = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(/revision/\w+)?(\?.*)?", self.path)
        of = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/\w+/([\w./-]+)", self.path)
        if fault == "silent" or (fault == "silent files" and of):
            time.sleep(60)
        elif fault == "refusing":
            self.send(401, f"no right for {self.headers['Authorization']}".encode(), denied=True)
        elif about and about[1] in self.server.repositories:
            files = [{"rfilename": path.name} for path in self.server.repositories[about[1]].iterdir()]
            known = {"id": about[1], "modelId": about[1], "sha": COMMIT, "siblings": files, "private": False}
            self.send(200, json.dumps(known | {"tags": [], "downloads": 0, "gated": False}).encode())
        elif of and of[1] in self.server.repositories and (path := self.server.repositories[of[1]] / of[2]).exists():
            self.send_file(path)
        else:
            self.send(404, b"{}", missing=True)

    def send(self, code: int, body: bytes, *, missing: bool = False, denied: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        if missing:
            self.send_header("X-Error-Code", "EntryNotFound")
        if denied:
            self.send_header("X-Error-Message", body.decode())
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_file(self, path: Path) -> None:
        whole, first = path.read_bytes(), 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(asked[1])
        body = whole[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{sha256(whole)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = path.name == WEIGHTS and (fault := self.server.fault) in ("stalled", "cut", "cut once")
        if not broken or (fault == "cut once" and self.server.cuts):
            self.wfile.write(body)
            return
        self.server.cuts += 1
        self.wfile.write(whole[: len(whole) // 2] if not first else b"")
        self.wfile.flush()
        if fault == "stalled":
            time.sleep(60)
        self.close_connection = True
        self.connection.close()
