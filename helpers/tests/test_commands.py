# SPDX-License-Identifier: MIT
import os
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
        (("check", "--pair", "r1-1.5b"), "from the model hub"),
        (("run", "--pair", "r1-1.5b", "--only", "01"), "01_prompts.py: cannot load Qwen/Qwen2.5-Math-1.5B"),
        (("autoencoder", "nowhere.jsonl"), "pip install eai-sparsify"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_exit_code_2(arguments, said):
    done = helpers(*arguments)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_help_names_the_commands():
    shown = helpers("--help").stdout
    assert all(name in shown for name in ("run", "check", "distill", "autoencoder", "card"))
