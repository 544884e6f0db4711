# SPDX-License-Identifier: MIT
import os
import subprocess
import sys

from helpers.store import ROOT


def test_what_a_user_can_cause_is_one_line_and_exit_code_2_from_inside_a_notebook_too():
    command = [sys.executable, "-m", "helpers", "run", "--pair", "nowhere,a,b", "--only", "01"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: 01_prompts.py: 3 names in ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_two_folders_are_a_pair_and_a_terminal_may_lack_its_letters(qwen_folders):
    """The table shows the distilled model's stop token, whose bars and blocks few encodings have."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "check", "--pair", ",".join(map(str, qwen_folders))],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "300"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    stop = "<｜end▁of▁sentence｜>".encode("ascii", "backslashreplace")
    assert stop in done.stdout and b"pair own: base base@" in done.stdout
