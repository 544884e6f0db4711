# SPDX-License-Identifier: MIT
"""What a user may have changed around the helpers: torch's settings, the helpers' own files, the vocabulary's size."""

import contextlib
import resource
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import patching, readouts, steering, weights
from helpers.pairs import Pair
from helpers.store import ROOT
from helpers.tests.conftest import make_folders
from helpers.tests.remote_client import ASKED, TEXTS, difference, plain

READ = ["last_hidden_shared", "next_logprobs", "lens", "attribute", "attribution_patching", "exact_patching",
        "complete", "steered_logprobs", "last_hidden, neurons edited"]  # fmt: skip
OF_WEIGHTS = {
    "swaps": lambda pair: patching.single_swaps(pair, "base", TEXTS, readouts.stop_odds(pair.base)),
    "noise": lambda pair: patching.single_swaps(pair, "base", TEXTS, readouts.stop_odds(pair.base), noise=1),
    "random": lambda pair: steering.random_directions(3, pair.base.config.hidden_size),
    "pursuit": lambda pair: weights.sparse_shares(pair.base, [5], k=3),
    "matrices": lambda pair: weights.compare_matrices(pair).relative.to_numpy(),
}


def numbers(pair: Pair) -> dict[str, Any]:
    """One number or more of everything that runs or reads a model."""
    return {name: ask(pair) for name, ask in ({name: ASKED[name] for name in READ} | OF_WEIGHTS).items()}


def test_no_step_grows_with_the_square_of_the_vocabulary(tmp_path):
    """At the size of R1's vocabulary, with rows that are zero or equal, as untrained ones are."""
    folders = make_folders(tmp_path, (True, True), (0, 1), vocab_size=150_000)
    for path in (folder / "model.safetensors" for folder in folders):
        values = load_file(path)
        values["model.embed_tokens.weight"][140_000:145_000] = 0.0
        values["model.embed_tokens.weight"][145_000:] = values["model.embed_tokens.weight"][7]
        save_file(values, path, metadata={"format": "pt"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair, words = Pair.of(*folders, name="wide", device="cpu"), list(range(300, 364))
    member, direction = pair.base, torch.ones(1, 48)
    found = numbers(pair) | {
        "pursuit": weights.sparse_shares(member, [5, 141_000, 146_000, *words], k=12),
        "squares": weights.least_squares_shares(member, [5, *words]),
        "tokens": weights.compare_tokens(pair).relative,
        "scores": readouts.vocabulary_scores(member, direction, words),
        "distribution": readouts.next_distribution(member, TEXTS),
        "parts": readouts.stop_parts(member, TEXTS),
        "bigrams": readouts.bigram_logits(member, words, [5, 9], first_mlp=True),
    }
    assert all(np.isfinite(part).all() for value in found.values() for part in plain(value))
    assert (np.diff(found["pursuit"], axis=1) > -1e-6).all()
    assert found["pursuit"][1:3, 0] == pytest.approx([1, 1], abs=1e-4)
    assert readouts.promoted(member, direction) and readouts.lens_map(member, TEXTS[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "less than one GiB beyond the models"


@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SETTINGS = {
    "inference mode": torch.inference_mode,
    "float64": float64,
    "meta device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_torch_settings_change_nothing(setting, qwen, qwen_folders):
    """Of a pair that is loaded under them, beside one that was loaded before."""
    right = numbers(qwen)
    with SETTINGS[setting]():
        found = numbers(Pair.of(*qwen_folders, name="t", device="cpu")), numbers(qwen)
    assert [name for one in found for name in right if difference(one[name], right[name]) > 1e-4] == []
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


EDITED = """
import os, sys
from pathlib import Path
from helpers import readouts
from helpers.pairs import Pair
pair, at = Pair.of(*sys.argv[1:], device="cpu"), Path(readouts.__file__)
for text in (at.read_text(), "# a comment" + chr(10) + at.read_text()):
    at.write_text(text)
    os.utime(at, ns=(1, 1))
    try:
        print(tuple(readouts.activations(pair.base, ["A cat"]).stream.shape))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_helpers_that_were_edited_ask_for_a_new_kernel(tmp_path, qwen_folders):
    """nnsight reads the body of a trace from its file: lines put above it would make it another body."""
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("smol", "bench"))
    command = [sys.executable, "-W", "ignore", "-c", EDITED, *map(str, qwen_folders)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    refused = "UserError readouts.py of the helpers was edited since it was imported: restart the kernel"
    assert done.stdout.strip().splitlines()[-2:] == ["(1, 4, 48)", refused], "a new date alone is no edit"
