# SPDX-License-Identifier: MIT
"""What a user may have changed around the helpers: torch's settings, the helpers' own files, a text in an editor, the
size of the vocabulary."""

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

from helpers import generation, patching, prompts, readouts, steering, weights
from helpers.pairs import Pair
from helpers.store import ROOT
from helpers.tests.conftest import make_checkpoint

PROMPTS = ["What is the capital of France?", "Name a river in the park."]
IDS = [5, 9, 30]


def numbers(pair: Pair) -> dict[str, Any]:
    """One number or more of everything that runs or reads a model."""
    member, shared = pair.base, [PROMPTS[0], f"{PROMPTS[0]} the"]
    source = readouts.activations(pair.distilled, PROMPTS)
    ones = torch.full((member.config.hidden_size,), 1.0, dtype=torch.float32, device="cpu")
    vector = steering.Steering("v", {1: ones})
    with weights.edited_weights(member, weights.NeuronEdit([(1, 3)], 4.0)) as edited:
        of_edited = readouts.next_logprobs(edited, PROMPTS, IDS)
    return {
        "logprobs": readouts.next_logprobs(member, PROMPTS, IDS),
        "lens": readouts.lens(member, PROMPTS, IDS).logprobs,
        "attribute": patching.attribute(member, PROMPTS, [5], [9]).total,
        "shared": readouts.last_hidden_shared(member, shared),
        "estimate": patching.attribution_patching(member, PROMPTS, source, [5], [9]).mlp,
        "exact": patching.exact_patching(member, PROMPTS, source, [patching.Node("mlp", 2)], [5], [9]),
        "swaps": patching.single_swaps(pair, "base", PROMPTS, [5], [9]),
        "noise": patching.single_swaps(pair, "base", PROMPTS, [5], [9], noise=1),
        "written": [c.length for c in generation.complete(member, PROMPTS, max_new_tokens=20)],
        "steered": steering.steered_logprobs(member, PROMPTS, [vector], IDS),
        "edited": of_edited,
        "random": steering.random_directions(3, member.config.hidden_size),
        "pursuit": weights.sparse_shares(member, [5], k=3),
        "weights": weights.compare_matrices(pair).relative.to_numpy(),
    }


def test_no_step_grows_with_the_square_of_the_vocabulary(tmp_path):
    """At the size of R1's vocabulary, with rows that are zero or equal, as untrained ones are."""
    shape = {"vocab_size": 150_000, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    folders = []
    for seed, role in enumerate(("base", "distilled")):
        folders.append(make_checkpoint(tmp_path / role, role, tied=True, seed=seed, **shape))
        weights_ = load_file(folders[-1] / "model.safetensors")
        weights_["model.embed_tokens.weight"][140_000:145_000] = 0.0
        weights_["model.embed_tokens.weight"][145_000:] = weights_["model.embed_tokens.weight"][7]
        save_file(weights_, folders[-1] / "model.safetensors", metadata={"format": "pt"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair, words = Pair.of(*folders, name="wide", device="cpu"), list(range(300, 364))
    member, direction = pair.base, torch.ones(1, 16)
    found = numbers(pair) | {
        "pursuit": weights.sparse_shares(member, [5, 141_000, 146_000, *words], k=12),
        "squares": weights.least_squares_shares(member, [5, *words]),
        "tokens": weights.compare_tokens(pair).relative,
        "scores": readouts.vocabulary_scores(member, direction, words),
        "distribution": readouts.next_distribution(member, PROMPTS),
        "parts": readouts.stop_parts(member, PROMPTS),
        "bigrams": readouts.bigram_logits(member, words, IDS, first_mlp=True),
    }
    assert all(np.isfinite(np.asarray(value, dtype=float)).all() for value in found.values())
    assert (np.diff(found["pursuit"], axis=1) > -1e-6).all()
    assert found["pursuit"][1:3, 0] == pytest.approx([1, 1], abs=1e-4)
    assert readouts.promoted(member, direction) and readouts.lens_map(member, PROMPTS[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "less than one GiB beyond the models"


@contextlib.contextmanager
def default(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


SETTINGS = {
    "inference mode": torch.inference_mode,
    "no gradients": lambda: default(torch.set_grad_enabled, False, True),
    "float64": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: default(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta device": lambda: default(torch.set_default_device, "meta", "cpu"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(scope="module")
def right(qwen):
    return numbers(qwen)


@pytest.mark.parametrize("loaded", ["before", "inside"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_torch_settings_change_nothing(setting, loaded, qwen, qwen_folders, right):
    with SETTINGS[setting]():
        pair = qwen if loaded == "before" else Pair.of(*qwen_folders, name="t", device="cpu")
        found = numbers(pair)
    for name, value in found.items():
        assert np.allclose(np.asarray(value), np.asarray(right[name]), atol=1e-4), name
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


@pytest.mark.parametrize("edit", ["touch", "comment", "restore"])
def test_helpers_that_were_edited_ask_for_a_new_kernel(edit, tmp_path, qwen_folders):
    """nnsight reads the body of a trace from its file: lines put above it would make it another body."""
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("smol", "bench"))
    text = f"""
import os, time
from pathlib import Path
from helpers import readouts
from helpers.pairs import Pair
pair = Pair.of({str(qwen_folders[0])!r}, {str(qwen_folders[1])!r}, device="cpu")
at = Path(readouts.__file__)
before = at.read_text()
if {edit!r} != "touch":
    at.write_text("# a comment" + chr(10) + before)
if {edit!r} == "restore":
    at.write_text(before)
os.utime(at, ns=(1, 1))
try:
    print(tuple(readouts.activations(pair.base, ["A cat"]).stream.shape))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", text], cwd=tmp_path, capture_output=True, text=True)
    refused = "UserError readouts.py of the helpers was edited since it was imported: restart the kernel"
    assert done.stdout.strip().splitlines()[-1] == (refused if edit == "comment" else "(1, 4, 48)")


@pytest.mark.parametrize("change", ["{}", "\ufeff{}\n", "{}\n\n"])
def test_an_editors_marks_add_no_sentence(change, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    committed = prompts.neutral_sentences()
    text = (ROOT / "data" / "neutral.txt").read_text(encoding="utf-8").rstrip("\n")
    (tmp_path / "data" / "neutral.txt").write_text(change.format(text), encoding="utf-8")
    monkeypatch.setattr(prompts, "ROOT", tmp_path)
    assert prompts.neutral_sentences() == committed and len(committed) == 48


def test_progress_counts_batches_so_that_the_time_left_is_not_of_one_row(qwen, data_here, monkeypatch):
    counted = []

    class Bar:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n=1):
            counted.append(n)

    monkeypatch.setattr(generation, "tqdm", Bar)
    texts = [f"{prompt} {k}" for prompt in PROMPTS for k in range(3)]
    monkeypatch.setattr(generation, "BATCH", {"cpu": 4})
    generation.stored_completions(qwen, qwen.base, texts, name="x", max_new_tokens=2)
    assert counted == [4, 2]
