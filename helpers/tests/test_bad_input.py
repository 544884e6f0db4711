# SPDX-License-Identifier: MIT
"""What a careless value gets, as one table: a line that names the value and the remedy, and nothing written.

Types are not checked here (jaxtyping is switched off), as outside the tests.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import config as type_checks

from helpers import __main__ as commands
from helpers import embedded, explorers, findings, patching, readouts, stats, steering, store
from helpers import weights as w
from helpers.generation import Change, complete, stored_completions
from helpers.making.distill import read_traces
from helpers.pairs import Member, Pair, load_member, load_pair
from helpers.patching import Node, swapped
from helpers.prompts import Question, combine, load_questions
from helpers.steering import Steering, load_autoencoder, steered
from helpers.store import UserError
from helpers.tests.conftest import make_checkpoint
from helpers.weights import NeuronEdit

NAN, V = float("nan"), torch.ones(48)
TEXTS = ["The bus stops here.", "What is that park?", "So the river"]
QUESTIONS = [Question("a", "c", "Who?", ("I",)), Question("b", "c", "What?", ("It",))]
GOOD = '{"id": "a", "category": "c", "question": "Who?", "answers": ["I"]}\n'


@dataclass
class Desk:
    """What a case works on: the tiny pair, its folders, a place for files, and what the case prepared there."""

    pair: Pair
    folders: tuple[Path, Path]
    place: Path
    coder: tuple[str, str]
    patcher: pytest.MonkeyPatch
    given: Any = None

    @property
    def base(self) -> Member:
        return self.pair.base

    def file(self, text: str | bytes, name: str = "file.jsonl") -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def model(self, **settings: Any) -> Path:
        """A copy of the base with other settings in its config."""
        folder = shutil.copytree(self.folders[0], self.place / "model")
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(known | settings))
        return folder

    def load(self, folder: Path | str, **options: Any) -> Member:
        return load_member("base", str(folder), **{"device": "cpu"} | options)

    def state(self, n_prompts: int = 3) -> readouts.Activations:
        return readouts.activations(self.base, TEXTS[:n_prompts])

    def answers(self, **how: Any) -> Any:
        return stored_completions(self.pair, self.base, TEXTS, name="told", max_new_tokens=2, **how)

    def kept(self) -> Any:
        return store.kept(self.pair, "array", lambda rows: {"a": np.zeros(200_000)}, 200_000)

    def command(self, *arguments: str) -> None:
        """`python -m helpers` with these arguments, in this process."""
        self.patcher.setattr(sys, "argv", ["helpers", *arguments])
        commands.main()


class Case(NamedTuple):
    """A careless call, two words of its one line (the value, the remedy), and what is prepared before it."""

    name: str
    call: Callable[[Desk], Any]
    value: str
    remedy: str
    make: Callable[[Desk], Any] | None = None


def cut_weights(desk: Desk) -> Path:
    folder = desk.model()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return folder


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def patched(desk: Desk, *nodes: Node) -> Any:
    """The base's prompts with what the case prepared at these nodes."""
    return patching.exact_patching(desk.base, TEXTS, desk.given, list(nodes), readouts.logit_difference(desk.base, [3]))


TABLE = [
    # pairs, embedded
    Case("an unknown pair", lambda d: load_pair("r2"), "unknown pair 'r2'", "choose one of auto, smol"),
    Case("two architectures", lambda d: Pair.of(d.folders[0], d.given, device="cpu"), "llama", "choose two of one",
         lambda d: make_checkpoint(d.place / "other", "distilled", family="Llama", tied=True, seed=3)),
    Case("no such folder", lambda d: d.load("/no/such"), "cannot load /no/such", "no such folder is here or in"),
    Case("truncated weights", lambda d: d.load(d.given), "model does not load", "weights in safetensors", cut_weights),
    Case("weights that lack a layer", lambda d: d.load(d.given), "lack model.layers.3", "fetch or save them again",
         lambda d: d.model(num_hidden_layers=4, layer_types=["full_attention"] * 4)),
    Case("a device that is not here", lambda d: d.load(d.folders[0], device="cuda:99"), "'cuda:99'", "use cpu"),
    Case("a cache that is a file", lambda d: embedded.base_folder(), "cannot prepare", "set R1_CACHE",
         lambda d: d.patcher.setenv("R1_CACHE", str(d.file("", "cache")))),
    # prompts, tokens
    Case("a special token", lambda d: d.base.prompt("a <|im_end|> b", "plain"), "<|im_end|>", "write it another way"),
    Case("an unknown form", lambda d: d.base.prompt("Who?", "poem"), "unknown form 'poem'", "plain, template"),
    Case("a text for a list", lambda d: complete(d.base, "Who?"), "'Who?'", "write [text]"),
    Case("half of a character", lambda d: readouts.next_logits(d.base, ["a\ud83d"], [3]), r"\ud83d", "give a text"),
    Case("too long", lambda d: d.base.encode(["river " * 3000]), "more than 2048", "shorten it"),
    Case("fewer answers than questions", lambda d: combine(d.base, QUESTIONS, ["I"], form="plain"),
         "2 questions, 1 answers", "as many of each"),
    Case("a negative token", lambda d: readouts.next_logits(d.base, TEXTS, [-1]), "no token -1", "0 to 735"),
    # generation
    Case("half a token", lambda d: complete(d.base, TEXTS, max_new_tokens=2.5), "2.5 new tokens", "at least 1"),
    Case("a temperature of NaN", lambda d: complete(d.base, TEXTS, temperature=NAN), "temperature is nan", "finite"),
    Case("more prompts than changes", lambda d: d.answers(change=Change("c", names=("a", "b"))),
         "3 prompts, 2 changes", "as many of each"),
    # readouts, patching
    Case("more tokens than there are", lambda d: readouts.top_tokens(d.base, TEXTS, k=737), "737 tokens", "1 to 736"),
    Case("a direction of NaN", lambda d: readouts.promoted(d.base, NAN * V[None]), "not finite", "look for NaN"),
    Case("a narrow direction", lambda d: readouts.promoted(d.base, V[None, :4]), "vector of (4,)", "has 48"),
    Case("a head too many", lambda d: readouts.attention_pattern(d.base, TEXTS[0], [(0, 6)]), "no head 6", "0 to 5"),
    Case("a node below the first layer", lambda d: patched(d, Node("mlp", -1)), "no node", "has 3 layers, 6 heads each",
         Desk.state),
    Case("a source of fewer prompts", lambda d: patched(d, Node("mlp", 0)), "2 prompts for 3", "give one a prompt",
         lambda d: d.state(2)),
    Case("a swap by NaN", lambda d: swapped(d.pair, "base", [1], amount=NAN).__enter__(), "is nan", "finite number"),
    # weights, steering
    Case("a negative neuron", lambda d: w.with_neurons(d.base, NeuronEdit([(0, -1)])), "no neuron -1", "0 to 79"),
    Case("steering by NaN", lambda d: steered(d.base, [Steering("v", {1: V}, NAN)]), "v: strength", "finite number"),
    Case("no such latent", lambda d: steering.with_latent(d.base, load_autoencoder(*d.coder), 20, 1.0), "latent 20",
         "0 to 19"),
    Case("a place in no text", lambda d: steering.read_places(d.base, d.given, [(5, 0)]), "text 5", "there are 1 texts",
         lambda d: complete(d.base, TEXTS[:1], max_new_tokens=3)),
    # stats, findings, figures, explorers
    Case("one prompt", lambda d: stats.bootstrap([1.0]), "shape (1,)", "at least 2"),
    Case("a sample with NaN", lambda d: stats.bootstrap([1.0, NAN]), "not finite at [1]", "look for NaN"),
    Case("no such finding", lambda d: findings.claim("smol", "F1"), "unknown finding 'F1'", "F01, F02"),
    Case("an explorer without vectors", lambda d: explorers.steering_explorer(d.pair, {}, {}), "no vectors", "give at"),
    # files
    *(Case(f"questions: {name}", lambda d: load_questions(path=d.given), value, remedy,
           lambda d, text=text: d.file(text))
      for name, text, value, remedy in [
        ("no JSON", GOOD + "{\n", "file.jsonl:2", "one JSON object a line"),
        ("one id twice", GOOD + GOOD, "the id 'a'", "rename one"),
        ("no text", b"\xff\xfe\x00", "file.jsonl", "restore it with git"),
      ]),
    Case("traces with other columns", lambda d: read_traces([str(d.given)], None), "file.jsonl:1",
         "question and thinking", lambda d: d.file('{"question": "Who?", "thinking": 5}')),
    Case("stored answers that are none", Desk.answers, "told.json holds no completions", "delete it",
         lambda d: (d.answers(), d.file('[{"text": "a"}]', "tiny-qwen2/told.json"))),
    Case("truncated arrays", Desk.kept, "array.safetensors does not load", "delete it",
         lambda d: (d.kept(), d.file(b"\x40", "tiny-qwen2/array.safetensors"))),
    Case("a ledger that is none", lambda d: findings.claim("p", "F01"), "findings.json is no ledger", "delete it",
         lambda d: d.file('[{"id": "F01"}]', "p/findings.json")),
    Case("no such hookpoint", lambda d: load_autoencoder(d.coder[0], "layers.2"), "layers.2", "name another"),
    Case("arrays where there is no room", Desk.kept, "array.safetensors: No space left", "free some room",
         lambda d: d.patcher.setattr(store.Path, "write_bytes", full)),
    # commands
    Case("keeping a full run", lambda d: d.command("run", "--keep"), "--keep", "goes with --quick alone"),
    Case("nothing to check", lambda d: d.command("run", "--check", "--pair", "a,b"), "no data/own/findings.json",
         "run --pair BASE,DISTILLED"),
    Case("no trainer", lambda d: d.command("autoencoder", "a"), "sparsify", "pip install eai-sparsify"),
    Case("a run of no notebook", lambda d: d.command("run", "--only", "99"), "starts with '99'", "there are 01_"),
    Case("a pair that was not run", lambda d: d.command("report", "--pair", "r1-70b"), "'r1-70b'", "run --pair r1-70b"),
    Case("no such repository", lambda d: d.command("publish", "a/b;rm"), "'a/b;rm'", "give it as OWNER/REPO"),
    Case("no such command", lambda d: d.command("ruin"), "Usage", "'ruin'"),
]  # fmt: skip


@pytest.fixture
def desk(qwen, qwen_folders, tiny_autoencoder, data_here, monkeypatch) -> Desk:
    """The tiny pair without type checks; results, temporary files and the hub are out of the way."""
    monkeypatch.setattr(type_checks, "jaxtyping_disable", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (data_here / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(data_here / "scratch"))
    return Desk(qwen, qwen_folders, data_here, tiny_autoencoder, monkeypatch)


def seen(folder: Path) -> dict[Path, int]:
    """Every file below a folder, with its time; locks aside."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock" and path.is_file()}


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_a_careless_value_gets_one_line_and_writes_nothing(case, desk, capsys):
    """On the command line with exit code 2; what its own parser refuses stands in a box."""
    desk.given = case.make(desk) if case.make else None
    before = seen(desk.place)
    capsys.readouterr()
    with pytest.raises((UserError, SystemExit)) as caught:
        case.call(desk)
    ended, line = caught.value, str(caught.value)
    if isinstance(ended, SystemExit):
        assert ended.code == 2
        line = capsys.readouterr().err.strip()
    assert case.value in line and case.remedy in line and "Traceback" not in line, line
    assert case.value == "Usage" or (len(line.splitlines()) == 1 and len(line) <= 400), line
    assert seen(desk.place) == before
