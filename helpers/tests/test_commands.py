# SPDX-License-Identifier: MIT
import os
import re
import subprocess
import sys

import pytest

from helpers.store import ROOT


def helpers(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m helpers` as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "helpers", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--pair", "nowhere,a,b", "--only", "01"), "error: 01_prompts.py: 3 names in "),
        (("autoencoder", "nowhere.jsonl"), "pip install eai-sparsify"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_exit_code_2(arguments, said):
    done = helpers(*arguments)
    assert done.returncode == 2
    assert re.search(said, done.stderr) and "Traceback" not in done.stderr
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
