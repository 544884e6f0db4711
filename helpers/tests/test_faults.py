# SPDX-License-Identifier: MIT
"""What breaks from outside: killed processes, errors in mid-run, no memory, a cut network, a wrong clock."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import patching, readouts, steering, weights
from helpers.generation import complete
from helpers.pairs import Member, Pair
from helpers.store import ROOT
from helpers.tests import killing

PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister painted"]


# An exception in mid-run


def state(member: Member) -> dict[str, Any]:
    """Every bit of a model, which tensors they are, and everything that can be hung on it."""
    hung = [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks), module.training)
        for name, module in member.model.named_modules()
    ]
    return {
        "bits": [
            (name, id(value), value.requires_grad, hashlib.sha256(value.numpy().tobytes()).hexdigest())
            for name, value in member.model.named_parameters(remove_duplicate=False)
        ],
        "hooks": hung,
        "attention": member.config._attn_implementation,
        "generation": member.model.generation_config.to_dict(),
        "locked": member.lock.locked(),
        "gradients": torch.is_grad_enabled(),
    }


def autoencoder(pair: Pair) -> steering.Autoencoder:
    seeded, shapes = torch.Generator().manual_seed(0), ((8, 48), (8,), (8, 48), (48,))
    drawn = [torch.randn(shape, generator=seeded) for shape in shapes]
    return steering.Autoencoder("tiny", 1, False, 2, *drawn)


VECTOR = steering.Steering("v", {1: torch.linspace(-3, 3, 48)}, 2.0, bias={5: 1.0})
NODES = [patching.Node("attention", 0), patching.Node("head", 1, 2), patching.Node("neuron", 2, 7)]


def some_texts(pair: Pair) -> list[Any]:
    texts = [("A cat", [300, 301, 302]), ("Two", [303, 304])]
    member = pair.base
    with_no_model = {"length": 3, "stop": "limit", "first_word": "", "repetition": 0.0}
    from helpers.generation import Completion

    return [
        Completion(prompt, member.tokenizer.decode(tokens), tokens=tokens, **with_no_model) for prompt, tokens in texts
    ]


def texts_of(done: list[Any]) -> list[list[int]]:
    return [one.tokens for one in done]


def swap_and_read(pair: Pair, **choice: Any) -> Any:
    with patching.swapped(pair, "base", [0, 2], **choice) as hybrid:
        return readouts.last_hidden(hybrid, PROMPTS)


def steered_texts(pair: Pair) -> Any:
    change = steering.steered(pair.base, [VECTOR])
    how = {"lm": change.lm, "processors": change.processors, "on_batch": change.on_batch}
    return texts_of(complete(pair.base, PROMPTS, max_new_tokens=5, **how))


def with_edit(make: Callable[[Pair], Any]) -> Callable[[Pair], Any]:
    """Read and generate with an edited model."""

    def run(pair: Pair) -> Any:
        edited = make(pair)
        return readouts.last_hidden(pair.base, PROMPTS, lm=edited), texts_of(
            complete(pair.base, PROMPTS, max_new_tokens=4, lm=edited)
        )

    return run


def activations_of_both(pair: Pair) -> Any:
    return readouts.activations(pair.distilled, PROMPTS)


INTERVENTIONS: dict[str, Callable[[Pair], Any]] = {
    "completions": lambda pair: texts_of(complete(pair.base, PROMPTS, max_new_tokens=5)),
    "steered completions": steered_texts,
    "steered readouts": lambda pair: steering.steered_logprobs(pair.base, PROMPTS, [VECTOR, steering.NOTHING], [5, 6]),
    "neurons edited": with_edit(lambda pair: weights.with_neurons(pair.base, weights.NeuronEdit([(1, 3)], 2.0, 1.0))),
    "a latent held": with_edit(lambda pair: steering.with_latent(pair.base, autoencoder(pair), 3, 4.0)),
    "layers swapped": swap_and_read,
    "parts interpolated": lambda pair: swap_and_read(pair, part="mlp", amount=0.5, norm=True),
    "noise of that size": lambda pair: swap_and_read(pair, noise=3),
    "embedding swapped": lambda pair: swap_and_read(pair, embedding=True),
    "head swapped": lambda pair: swap_and_read(pair, head=True),
    "single swaps": lambda pair: patching.single_swaps(pair, "base", PROMPTS, [5], [6]),
    "all but one": lambda pair: patching.single_swaps(pair, "base", PROMPTS, [5], [6], all_but=True),
    "gradients": lambda pair: patching.gradients(pair.base, PROMPTS, [5], [6])[0],
    "attribution patching": lambda pair: (
        patching.attribution_patching(pair.base, PROMPTS, activations_of_both(pair), [5], [6]).stream
    ),
    "exact patching": lambda pair: patching.exact_patching(
        pair.base, PROMPTS, activations_of_both(pair), NODES, [5], [6]
    ),
    "streams patched": lambda pair: patching.patch_streams(
        pair.base, PROMPTS, patching.streams_at_all_positions(pair.distilled, PROMPTS), [5], [6], where="all"
    ),
    "a shared beginning": lambda pair: readouts.last_hidden_shared(pair.base, [p + " and" for p in ("A cat", "A dog")]),
    "tokens hidden": lambda pair: readouts.hidden_without(pair.base, PROMPTS[:1], [[1]]),
    "logit lens": lambda pair: readouts.lens(pair.base, PROMPTS, [5, 6], mid=True).logits,
    "logit attribution": lambda pair: readouts.attribute(pair.base, PROMPTS, [5], [6], neurons=True).heads,
    "attention pattern": lambda pair: readouts.attention_pattern(pair.base, PROMPTS[0], [(1, 2)])[1],
    "places read": lambda pair: steering.read_places(pair.base, some_texts(pair), [(0, 1), (1, 1)])[0],
    "an autoencoder's states": lambda pair: steering.autoencoder_states(pair.base, autoencoder(pair), some_texts(pair)),
}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return one == two


class Trip:
    """Makes the n-th call of any MLP of a pair fail."""

    def __init__(self, pair: Pair) -> None:
        self.after(None)
        blocks = [block for member in pair.members for block in member.model.model.layers]
        self.handles = [block.mlp.register_forward_pre_hook(self) for block in blocks]

    def after(self, calls: int | None, error: BaseException | None = None) -> None:
        self.place, self.error, self.calls = calls, error, 0

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.place:
            raise self.error

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.fixture
def trip(qwen: Pair, request: pytest.FixtureRequest) -> Trip:
    made = Trip(qwen)
    request.addfinalizer(made.remove)
    return made


@pytest.mark.parametrize("error", [RuntimeError("in mid-run"), KeyboardInterrupt("in mid-run")], ids=["error", "stop"])
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_exception_anywhere_leaves_both_models_bit_exact(qwen, trip, name, error):
    run = INTERVENTIONS[name]
    run(qwen)  # nnsight wraps a model on its first trace
    before = [state(member) for member in qwen.members]
    plain = [member.model(**member.encode(PROMPTS)).logits for member in qwen.members]
    trip.after(None)
    expected, calls = run(qwen), trip.calls
    for place in {RuntimeError: (1, calls), KeyboardInterrupt: ((calls + 1) // 2,)}[type(error)]:
        trip.after(place, error)
        with pytest.raises(type(error), match="in mid-run"):
            run(qwen)
        trip.after(None)
        assert [state(member) for member in qwen.members] == before, f"{name}: after call {place} of {calls}"
    assert all(torch.equal(m.model(**m.encode(PROMPTS)).logits, p) for m, p in zip(qwen.members, plain, strict=True))
    assert same(run(qwen), expected)


# Killed processes


@pytest.fixture(scope="session")
def killed(qwen_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every piece of work in `killing` left on disk."""
    command = [sys.executable, "-m", "helpers.tests.killing", *map(str, qwen_folders)]
    done = subprocess.run(
        [*command, str(tmp_path_factory.mktemp("killed"))],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "R1_FRESH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shown(files: dict[str, str]) -> dict[str, str]:
    """Without the hidden temporary files that a killed writer cannot remove."""
    return {name: digest for name, digest in files.items() if not name.rpartition("/")[2].startswith(".")}


@pytest.mark.parametrize(
    ("work", "number"), [(work, n) for work, (_, points) in killing.WORK.items() for n in range(len(points))]
)
def test_work_killed_anywhere_and_done_again_equals_an_uninterrupted_run(killed, work, number):
    row, clean = killed[work]["killed"][number], killed[work]["clean"]
    assert row["ends"] == [0, -9, 0, 0], f"{row['point']}: killed once, and every other run ends well"
    for found, expected in ((row["again"], clean[1]), (row["other"], clean[0])):
        assert expected.items() <= shown(found).items(), row["point"]
        assert shown(found).keys() <= clean[0].keys() | clean[1].keys(), "nothing else is left in sight"


def test_no_half_built_cache_is_left_by_a_killed_process(killed):
    rows = killed["conversion"]["killed"]
    assert not [name for row in rows for name in row["again"] if ".building" in name]


@pytest.mark.parametrize("work", killing.WORK)
def test_two_processes_at_once_leave_what_one_leaves(killed, work):
    assert killed[work]["ends"] == [0, 0, 0, 0]
    assert killed[work]["together"] == killed[work]["clean"][1]


def test_two_processes_at_once_convert_once(killed):
    assert killed["conversion"]["built"] == ["base-1"]
