# SPDX-License-Identifier: MIT
"""Every function that a remote model answers, asked here and across a process that stands in for NDIF. Started as a
script, since the type checks of the tests would be shipped with each function. Arguments: the folders of a pair, and
"server" or "local" (nnsight's own simulation). Prints, by function, the largest difference and the bytes moved."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from nnsight import CONFIG
from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.modeling.mixins.remotable import Remotable

from helpers import generation, patching, readouts, steering, weights
from helpers.pairs import Pair
from helpers.store import UserError

TEXTS = ["the old river", "a small park and the market", "stop"]
MOVED = {"sent": 0, "back": 0}
LIMIT = 10  # generated tokens


@cache
def server(folder: str) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("remote_server.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, str(script), folder], cwd="/", env=environment, **pipes)


class Across(RemoteBackend):
    """nnsight's own remote backend up to the request, which goes to a process instead of to NDIF."""

    def __init__(self, folder: str) -> None:
        super().__init__("key", host="http://nowhere", api_key="none")
        self.process, self.compress, self.display.enabled = server(folder), False, False

    def request(self, request: Any, tracer: Any) -> Any:
        blob = self._serialize(tracer)
        self.process.stdin.write(struct.pack("<q", len(blob)) + blob)
        self.process.stdin.flush()
        reply = self.process.stdout.read(struct.unpack("<q", self.process.stdout.read(8))[0])
        if reply[0]:
            raise RuntimeError(reply[1:].decode())
        MOVED["sent"] += len(blob)
        MOVED["back"] += len(reply)
        return torch.load(io.BytesIO(reply[1:]), weights_only=True)


def neurons(pair: Pair) -> Any:
    return weights.with_neurons(pair.base, weights.NeuronEdit([(0, 3), (1, 5)], 3.0, 2.0))


def steered_texts(pair: Pair) -> list[list[int]]:
    vector, bias = 3 * steering.random_directions(2, pair.base.config.hidden_size), {5: 4.0}
    one = steering.Steering("one", {0: vector[0]}, where="generated", bias=bias)
    two = steering.Steering("two", {1: vector[1], 0: vector[0]}, strength=2.0, where="last")
    change = steering.steered(pair.base, [one, two, steering.NOTHING])
    return written(generation.complete(pair.base, TEXTS, max_new_tokens=LIMIT, change=change))


def steered_read(pair: Pair) -> torch.Tensor:
    vector = 3 * steering.random_directions(1, pair.base.config.hidden_size)[0]
    each = [steering.Steering("one", {0: vector}), steering.Steering("two", {1: vector}, bias={5: 4.0, 3: -1.0})]
    return steering.steered_logprobs(pair.base, TEXTS, [*each, steering.NOTHING], [3, 5])


def written(done: list[generation.Completion]) -> list[list[int]]:
    return [[*one.tokens, len(one.stop)] for one in done]


def texts(pair: Pair) -> list[generation.Completion]:
    return [generation.Completion(text, "", 4, "limit", "", 0.0, [5, 6, 7, 8]) for text in TEXTS]


def coder(pair: Pair) -> steering.Autoencoder:
    width, make = pair.base.config.hidden_size, torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(2, 16, width, generator=make)
    return steering.Autoencoder("made", 1, False, 4, encoder, torch.zeros(16), decoder, torch.zeros(width))


def source(pair: Pair) -> readouts.Activations:
    return readouts.activations(pair.distilled, TEXTS)


NODES = [patching.Node(*place) for place in (("stream", 1), ("head", 0, 2), ("mlp", 1), ("neuron", 1, 4))]


def stops(pair: Pair) -> Any:
    return readouts.stop_odds(pair.base)


def third_over_fifth(pair: Pair) -> Any:
    return readouts.logit_difference(pair.base, [3], [5])


ASKED: dict[str, Callable[[Pair], Any]] = {
    "last_hidden": lambda pair: readouts.last_hidden(pair.base, TEXTS),
    "last_hidden, neurons edited": lambda pair: readouts.last_hidden(pair.base, TEXTS, lm=neurons(pair)),
    "last_hidden_shared": lambda pair: readouts.last_hidden_shared(pair.base, ["the old river", "the old park"]),
    "last_hidden, tokens hidden": lambda pair: readouts.last_hidden(pair.base, TEXTS[:2], hide=[[0], [1, 2]]),
    "next_logprobs": lambda pair: readouts.next_logprobs(pair.distilled, TEXTS, [3, 5]),
    "stop_parts": lambda pair: readouts.stop_parts(pair.distilled, TEXTS),
    "bigram_logits": lambda pair: readouts.bigram_logits(pair.base, [5, 6], [3, 5], first_mlp=True),
    "residuals": lambda pair: readouts.residuals(pair.base, TEXTS),
    "lens": lambda pair: readouts.lens(pair.base, TEXTS, [3, 5]),
    "lens_map": lambda pair: readouts.lens_map(pair.base, TEXTS[1], last=3),
    "activations": lambda pair: readouts.activations(pair.base, TEXTS),
    "attribute": lambda pair: patching.attribute(pair.base, TEXTS, stops(pair), neurons=True),
    "logit_direction": lambda pair: patching.logit_direction(pair.base, [3], [5, 6]),
    "vocabulary_scores": lambda pair: readouts.vocabulary_scores(pair.base, torch.eye(48)[:3], [3, 5]),
    "promoted": lambda pair: readouts.promoted(pair.base, torch.eye(48)[:3], k=2),
    "gradients": lambda pair: patching.gradients(pair.base, TEXTS, stops(pair)),
    "attribution_patching": lambda pair: patching.attribution_patching(pair.base, TEXTS, source(pair), stops(pair)),
    "exact_patching": lambda pair: patching.exact_patching(
        pair.base, TEXTS, source(pair), NODES, third_over_fifth(pair)
    ),
    "streams_at_all_positions": lambda pair: readouts.streams_at_all_positions(pair.base, TEXTS),
    "patch_streams": lambda pair: patching.patch_streams(
        pair.base, TEXTS, readouts.streams_at_all_positions(pair.distilled, TEXTS), stops(pair), where="earlier"
    ),
    "complete": lambda pair: written(generation.complete(pair.distilled, TEXTS, max_new_tokens=LIMIT)),
    "complete, sampled": lambda pair: written(
        generation.complete(pair.base, TEXTS, max_new_tokens=LIMIT, temperature=0.8, top_p=0.9, seed=3)
    ),
    "complete, a latent held": lambda pair: written(
        generation.complete(
            pair.base,
            TEXTS,
            max_new_tokens=LIMIT,
            change=generation.Change(lm=steering.with_latent(pair.base, coder(pair), 3, 5.0)),
        )
    ),
    "complete, steered row by row": steered_texts,
    "steered_logprobs": steered_read,
    "read_places": lambda pair: steering.read_places(pair.base, texts(pair), [(0, 1), (1, 2), (0, 3)]),
    "autoencoder_states": lambda pair: steering.autoencoder_states(pair.base, coder(pair), texts(pair)),
    "function_vector": lambda pair: steering.function_vector(pair.base, torch.ones(2, 48), [(0, 1), (1, 0)]),
    "writing_direction": lambda pair: weights.writing_direction(pair.base, [3, 5]),
    "value_vector_cosines": lambda pair: weights.value_vector_cosines(pair.base, torch.eye(48)[:2]),
}
REFUSED: dict[str, Callable[[Pair], Any]] = {
    "compare_matrices": weights.compare_matrices,
    "compare_tokens": weights.compare_tokens,
    "spectrum": lambda pair: weights.spectrum(pair, 0, "q_proj"),
    "sparse_shares": lambda pair: weights.sparse_shares(pair.base, [3], k=2),
    "least_squares_shares": lambda pair: weights.least_squares_shares(pair.base, [3]),
    "swapped": lambda pair: patching.swapped(pair, "base", [0]).__enter__(),
    "single_swaps": lambda pair: patching.single_swaps(pair, "base", TEXTS, stops(pair)),
    "attention_pattern": lambda pair: readouts.attention_pattern(pair.base, TEXTS[0], [(0, 0)]),
    "float": lambda pair: pair.float(),
}


def plain(found: Any) -> list[np.ndarray]:
    """All numbers of a result, in order."""
    if is_dataclass(found):
        found = list(vars(found).values())
    if isinstance(found, pd.DataFrame):
        found = found.to_numpy()
    if isinstance(found, str):
        found = [ord(letter) for letter in found]
    if isinstance(found, list | tuple):
        return [part for one in found for part in plain(one)]
    return [] if found is None else [np.asarray(found, float)]


def difference(one: Any, two: Any) -> float:
    """The largest difference of two results, infinite where they differ in shape."""
    parts = list(zip(*map(plain, (one, two)), strict=True))
    same = all(a.shape == b.shape for a, b in parts) and parts
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in parts) if same else float("inf")


def refusal(ask: Callable[[Pair], Any], pair: Pair) -> str:
    try:
        return f"answered {type(ask(pair)).__name__}"
    except UserError as error:
        return str(error)


def main(base: str, distilled: str, how: str) -> None:
    here, remote = Pair.of(base, distilled), how if how == "local" else True
    CONFIG.API.APIKEY = "none"
    if remote is True:
        Remotable._remote_backend = lambda self, *_: Across(self.repo_id)
    there, rows = Pair.of(base, distilled, remote=remote), {}
    for name, ask in ASKED.items():
        MOVED.update(sent=0, back=0)
        try:
            rows[name] = {"difference": difference(ask(here), ask(there)), **MOVED}
        except Exception as error:
            rows[name] = {"error": f"{type(error).__name__}: {str(error)[-800:]}"}
    refused = {name: refusal(ask, there) for name, ask in REFUSED.items()}
    weights_here = [str(member.lm._module.lm_head.weight.device) for member in there.members]
    print(json.dumps({"asked": rows, "refused": refused, "weights": weights_here}))


if __name__ == "__main__":
    main(*sys.argv[1:])
