# SPDX-License-Identifier: MIT
"""What a careless value gets, as one table: a line that names the value and the remedy, and nothing written.

Types are not checked here (jaxtyping is switched off), as outside the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from jaxtyping import config as type_checks
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2ForCausalLM

from helpers import __main__ as commands
from helpers import (
    embedded,
    explorers,
    figures,
    findings,
    generation,
    prompts,
    readouts,
    stats,
    steering,
    store,
    tokens,
)
from helpers import patching as patch
from helpers import weights as w
from helpers.explorers import _lens_html
from helpers.generation import Change, complete, cut_short, select_combined, stored_completions
from helpers.pairs import Member, Pair, load_member, load_pair
from helpers.patching import Node, swapped
from helpers.prompts import Ending, Question, load_questions
from helpers.series import bench
from helpers.series.distill import read_traces
from helpers.series.report import report
from helpers.stats import Interval
from helpers.steering import NOTHING, Steering, steered
from helpers.store import ROOT, UserError
from helpers.tests.conftest import make_checkpoint, make_tokenizer
from helpers.weights import NeuronEdit

NAN, INF = float("nan"), float("inf")
TEXTS = ["The bus stops here.", "What is that park?", "So the river"]
QUESTIONS = [Question("a", "c", "Who?", ("I",)), Question("b", "c", "What?", ("It",))]
INTERVAL, WATCHED = Interval(1.0, 0.0, 2.0, 9), ("data", "figures", "notebooks", "README.md")


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

    def loop(self) -> Path:
        """A link that leads to itself."""
        (self.place / "loop").symlink_to(self.place / "loop")
        return self.place / "loop"

    def locked(self) -> Path:
        """A folder that cannot be written."""
        folder = self.place / "locked"
        folder.mkdir()
        folder.chmod(0o555)
        return folder

    def model(self, *, but: tuple[str, ...] = (), files: dict[str, str] | None = None, **settings: Any) -> Path:
        """A copy of the base with other settings in its config, without some files, with others."""
        folder = shutil.copytree(self.folders[0], self.place / "model", ignore=shutil.ignore_patterns(*but))
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(known | settings))
        for name, text in (files or {}).items():
            (folder / name).write_text(text)
        return folder

    def cut_weights(self, folder: Path) -> Path:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        return folder

    def load(self, folder: Path | str, **options: Any) -> Member:
        return load_member("base", str(folder), **{"device": "cpu"} | options)

    def state(self, n_prompts: int = 3) -> readouts.Activations:
        return readouts.activations(self.base, TEXTS[:n_prompts])

    def autoencoder(self, **changed: Any) -> steering.Autoencoder:
        return replace(steering.load_autoencoder(*self.coder), **changed)

    def coder_files(self, weights: dict[str, torch.Tensor] | bytes | None = None, **settings: Any) -> Path:
        """A copy of the tiny autoencoder with other settings or weights."""
        folder = Path(shutil.copytree(self.coder[0], self.place / "coder"))
        at = folder / self.coder[1]
        (at / "cfg.json").write_text(json.dumps(json.loads((at / "cfg.json").read_text()) | settings))
        if isinstance(weights, bytes):
            (at / "sae.safetensors").write_bytes(weights)
        elif weights is not None:
            save_file(weights, at / "sae.safetensors")
        return folder

    def stored(self, text: str) -> Path:
        """Stored completions whose file was spoilt afterwards."""
        stored_completions(self.pair, self.base, TEXTS[:1], name="told", max_new_tokens=2)
        return self.file(text, f"{self.pair.name}/told.json")

    def kept(self) -> Any:
        return store.kept(self.pair, "array", lambda rows: {"a": np.zeros(200_000)}, 200_000)

    def record(self, **changed: Any) -> Any:
        entry: dict[str, Any] = dict(notebook="01", quantity="q", unit="u", interval=INTERVAL, control=INTERVAL)
        entry |= dict(control_name="c", rule="r", verdict="holds", finding="F01") | changed
        return findings.record(self.pair, **entry)

    def command(self, *arguments: str) -> None:
        """`python -m helpers` with these arguments, in this process."""
        self.patcher.setattr(sys, "argv", ["helpers", *arguments])
        commands.main()


@dataclass(frozen=True)
class Case:
    """A careless call, the words its one line must hold (the value, the remedy), and what is prepared before it."""

    name: str
    call: Callable[[Desk], Any]
    says: tuple[str, ...]
    make: Callable[[Desk], Any] | None = None


def case(name: str, call: Callable[[Desk], Any], *says: str, make: Callable[[Desk], Any] | None = None) -> Case:
    return Case(name, call, says, make)


def small_vocabulary(desk: Desk) -> Path:
    folder = desk.model(vocab_size=720)
    names = load_file(folder / "model.safetensors")
    short = {name: one[:720].clone() if "embed" in name else one for name, one in names.items()}
    save_file(short, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def broken_config(desk: Desk) -> Path:
    folder = desk.model()
    (folder / "config.json").write_text("{")
    return folder


def pickled(desk: Desk) -> Path:
    folder = desk.model(but=("*.safetensors",))
    torch.save({}, folder / "pytorch_model.bin")
    return folder


def own_code(desk: Desk) -> Path:
    """A model whose config names Python files of its own, which would leave a trace."""
    code = f"open({str(desk.place / 'it-ran')!r}, 'w')\nclass A: pass\nclass B: pass\n"
    names = {"AutoConfig": "own.A", "AutoModelForCausalLM": "own.B"}
    return desk.model(files={"own.py": code}, model_type="unheard", auto_map=names)


def more_words(desk: Desk) -> Path:
    tokenizer = make_tokenizer("base")
    tokenizer.add_tokens([f"word{k}" for k in range(100)])
    tokenizer.save_pretrained(folder := desk.model())
    return folder


def gpt2(desk: Desk) -> Path:
    folder = desk.place / "gpt2"
    marks = {"bos_token_id": 700, "eos_token_id": 700}
    GPT2LMHeadModel(GPT2Config(vocab_size=736, n_embd=24, n_layer=1, n_head=2, **marks)).save_pretrained(folder)
    make_tokenizer("base").save_pretrained(folder)
    return folder


def adapter(desk: Desk, *, layers: int) -> Path:
    """An adapter trained on another base: of other widths (0) or with its last layer called another."""
    desk.patcher.setenv("R1_CACHE", str(desk.place / "cache"))
    (desk.place / "cache").mkdir()
    desk.patcher.setattr(embedded, "base_folder", lambda: desk.folders[0])
    if not layers:
        return embedded.adapter_dir()
    folder, model = desk.place / "adapter", Qwen2ForCausalLM.from_pretrained(desk.folders[0])
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    save_file({name.replace("layers.2", f"layers.{layers}"): one for name, one in load_file(path).items()}, path)
    (folder / "training.json").write_text(json.dumps({"adapter_sha256": store.sha256(path)}))
    return folder


def spoilt_cache(desk: Desk) -> Path:
    desk.patcher.setenv("R1_CACHE", str(desk.place))
    return desk.cut_weights(desk.model())


def other_marks(desk: Desk) -> Pair:
    """A pair whose distilled half ends texts with another id than its base."""
    folder = shutil.copytree(desk.folders[1], desk.place / "marks")
    for name in ("config.json", "generation_config.json"):
        read = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(read | {"eos_token_id": 701}))
    pair = Pair.of(desk.folders[0], folder, device="cpu")
    desk.patcher.setattr("helpers.pairs.load_pair", lambda name: pair)
    return pair


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, for whom no folder is read-only."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@contextlib.contextmanager
def no_room(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the system refuses the write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def under(guard: contextlib.AbstractContextManager, call: Callable[[], Any]) -> Any:
    with guard:
        return call()


def taken(desk: Desk) -> Path:
    """A file where a folder is asked for; the committed ledger is read."""
    desk.patcher.setattr(findings, "data_dir", lambda pair: ROOT / "data" / pair)
    return desk.file("", "taken")


def noise_figure() -> Any:
    return figures.heat_maps({"a": np.random.default_rng(0).normal(size=(40, 40))}, title="t", xlabel="", ylabel="",
                             unit="u")  # fmt: skip


def a_line(**changed: Any) -> Any:
    options: dict[str, Any] = dict(panels={"p": {"s": ([INTERVAL] * 3, "k")}}, at=[0, 1, 2], title="t", xlabel="x")
    return figures.lines(**options | {"ylabel": "y"} | changed)


def steering_of(desk: Desk, *rows: Steering) -> Change:
    return steered(desk.base, list(rows))


def written(desk: Desk) -> list[generation.Completion]:
    return complete(desk.base, TEXTS[:1], max_new_tokens=3)


V = torch.ones(48)
PAIRS = [
    case("an unknown name", lambda d: load_pair("r2"), "unknown pair 'r2'", "choose one of auto, smol"),
    case("an empty name", lambda d: load_pair(""), "unknown pair ''", "choose one of"),
    case("one folder", lambda d: load_pair(("one",)), "1 names in ('one',)", "give as many of each"),
    case("an unknown name in R1_PAIR", lambda d: load_pair("auto"), "unknown pair 'r9'", "choose one of",
         make=lambda d: d.patcher.setenv("R1_PAIR", "r9")),
    case("two architectures", lambda d: Pair.of(d.folders[0], d.given, device="cpu"), "llama", "choose two of one",
         make=lambda d: make_checkpoint(d.place / "other", "distilled", family="llama", tied=True, seed=3)),
    case("two vocabularies", lambda d: Pair.of(d.folders[1], d.given, device="cpu"), "720 tokens", "choose two of one",
         make=small_vocabulary),
    case("a folder that is not there", lambda d: d.load("/no/such"), "no folder /no/such", "check the path"),
    case("a folder that is a link loop", lambda d: d.load(d.given), "/loop", "check the path", make=Desk.loop),
    case("a hub out of reach", lambda d: load_pair("r1-1.5b"), "Qwen/Qwen2.5-Math-1.5B", "use the pair smol"),
    case("an empty folder", lambda d: d.load(d.given), "empty does not load", "needs config.json",
         make=lambda d: d.file("", "empty/note.txt").parent),
    case("truncated weights", lambda d: d.load(d.given), "model does not load", "weights in safetensors",
         make=lambda d: d.cut_weights(d.model())),
    case("truncated weights in the cache", lambda d: d.load(d.given), "model do not load", "delete that folder",
         make=spoilt_cache),
    case("pickled weights", lambda d: d.load(d.given), "model does not load", "weights in safetensors", make=pickled),
    case("weights that lack a layer", lambda d: d.load(d.given), "lack model.layers.3", "fetch them again",
         make=lambda d: d.model(num_hidden_layers=4, layer_types=["full_attention"] * 4)),
    case("settings that contradict each other", lambda d: d.load(d.given), "model does not load", "needs config.json",
         make=lambda d: d.model(num_hidden_layers=4)),
    case("a config with remote code", lambda d: d.load(d.given), "model brings code of its own", "choose a model",
         make=own_code),
    case("a config that is no JSON", lambda d: d.load(d.given), "config.json", "needs config.json",
         make=broken_config),
    case("no tokenizer", lambda d: d.load(d.given), "has no tokenizer.json", "fetch it",
         make=lambda d: d.model(but=("tokenizer*", "special*"))),
    case("a pair of nothing", lambda d: load_pair(None), "named by None", "two folders or hub ids"),
    case("a pair of a number", lambda d: load_pair(5), "named by 5", "two folders or hub ids"),
    case("the tokenizer of a larger model", lambda d: d.load(d.given), "ids to 803", "restore its own",
         make=more_words),
    case("another kind of model", lambda d: d.load(d.given), "a gpt2 model", "choose one built like", make=gpt2),
    case("an adapter as a model", lambda d: d.load(embedded.adapter_dir()), "adapter alone", "merge it"),
    case("an adapter for a wider base", lambda d: embedded.distilled_folder(d.given), "smol/adapter does not fit",
         "git checkout", make=lambda d: adapter(d, layers=0)),
    case("an adapter for a deeper base", lambda d: embedded.distilled_folder(d.given), "adapter does not fit",
         "git checkout", make=lambda d: adapter(d, layers=9)),
    case("special tokens that differ", lambda d: commands.check("a,b"), "same first stop token",
         "says what each spoils", make=other_marks),
    case("an unknown device", lambda d: d.load(d.folders[0], device="gpu"), "no device 'gpu'", "use cpu"),
    case("a device that is not here", lambda d: d.load(d.folders[0], device="cuda:99"), "'cuda:99'", "use cpu"),
    case("an unknown device in R1_DEVICE", lambda d: load_member("base", str(d.folders[0])), "device 'gpu'", "use cpu",
         make=lambda d: d.patcher.setenv("R1_DEVICE", "gpu")),
    case("an unknown attention", lambda d: d.load(d.folders[0], attention="flash"), '"flash"', "only possible"),
    case("a cache that is a file", lambda d: embedded.base_folder(), "cannot prepare", "set R1_CACHE",
         make=lambda d: d.patcher.setenv("R1_CACHE", str(d.file("", "cache")))),
    case("a cache that is a link loop", lambda d: embedded.base_folder(), "cannot prepare", "set R1_CACHE",
         make=lambda d: d.patcher.setenv("R1_CACHE", str(d.loop()))),
]  # fmt: skip


PROMPTS = [
    case("nothing", lambda d: d.base.prompt("", "plain"), "empty prompt", "write a question"),
    case("only spaces", lambda d: d.base.prompt(" \n\t", "template"), r"' \n\t'", "write a question"),
    case("only wide spaces", lambda d: d.base.prompt("\u3000\u2003", "plain"), r"\u3000", "write a question"),
    case("a turn's end", lambda d: d.base.prompt("a <|im_end|> b", "plain"), "<|im_end|>", "write it another way"),
    case("an end of sentence", lambda d: d.pair.distilled.prompt("a<｜end▁of▁sentence｜>", "template"),
         "<｜end▁of▁sentence｜>", "write it another way"),
    case("a special token without a role", lambda d: d.base.prompt("<|object_ref_start|>", "plain"),
         "<|object_ref_start|>", "write it another way"),
    case("an unknown form", lambda d: d.base.prompt("Who?", "poem"), "unknown form 'poem'", "plain, template"),
    case("an unknown suffix", lambda d: prompts.ask(d.base, QUESTIONS, form="plain", suffix="please"),
         "unknown suffix 'please'", "just, bare, thanks"),
    case("no prompts", lambda d: d.base.encode([]), "no prompts", "pass at least one"),
    case("no prompts to read", lambda d: readouts.residuals(d.base, []), "no prompts", "pass at least one"),
    case("no prompts to patch", lambda d: patch.patch_streams(d.base, [], [], [3]), "no prompts", "pass at least one"),
    case("no prompts to hide from", lambda d: readouts.hidden_without(d.base, [], []), "no prompts", "at least one"),
    case("a text for a list", lambda d: readouts.last_hidden(d.base, "Who are you?"), "'Who are you?'", "write [text]"),
    case("a text for a list to complete", lambda d: complete(d.base, "Who?"), "'Who?'", "write [text]"),
    case("None among prompts", lambda d: d.base.encode(["Who?", None]), "prompt 1 is None", "give a text"),
    case("an empty one among prompts", lambda d: complete(d.base, ["Who?", " "]), "prompt 1", "write a question"),
    case("half of a character", lambda d: readouts.next_logits(d.base, ["a\ud83d"], [3]), r"\ud83d", "take it out"),
    case("too long", lambda d: d.base.encode(["river " * 3000]), "reads at most 2048", "shorten it"),
    case("no room for the answer", lambda d: complete(d.base, TEXTS, max_new_tokens=2045), "2045 more", "shorten it"),
    case("fewer answers than questions", lambda d: prompts.combine(d.base, QUESTIONS, ["I"], form="plain"),
         "2 questions, 1 answers", "as many of each"),
    case("fewer thoughts than questions", lambda d: prompts.ending_materials(QUESTIONS, ["I", "It"], ["Hm."]),
         "1 thoughts", "as many of each"),
    case("one question for endings", lambda d: prompts.ending_materials(QUESTIONS[:1], ["I"], ["Hm."]),
         "1 questions with one answer", "at least two"),
    case("fewer materials than questions", lambda d: prompts.end(d.base, QUESTIONS, [], Ending(), form="plain"),
         "0 materials", "as many of each"),
    case("an unknown thought", lambda d: Ending(thought="maybe"), "unknown thought 'maybe'", "none, answer, real"),
    case("an unknown gap", lambda d: prompts.endings_grid(gap="\t"), r"unknown gap '\t'", "choose"),
    case("an unknown split", lambda d: load_questions(split="test"), "unknown split 'test'", "explore, confirm"),
    case("tokens hidden of fewer prompts", lambda d: readouts.hidden_without(d.base, TEXTS, [[0]]), "1 hide",
         "as many of each"),
    case("a hidden token that is not there", lambda d: readouts.hidden_without(d.base, TEXTS[:1], [[50]]),
         "hide [50]", "give tokens from 0"),
]  # fmt: skip

TOKENS = [
    case("none", lambda d: readouts.next_logits(d.base, TEXTS, []), "token ids []", "give at least one"),
    case("not single", lambda d: readouts.next_logprobs(d.base, TEXTS, [tokens.single_id(d.base.tokenizer, "a b c")]),
         "token ids [None]", "a word that is not one token has none"),
    case("negative", lambda d: readouts.next_logits(d.base, TEXTS, [-1]), "[-1]", "from 0 to 735"),
    case("beyond the vocabulary", lambda d: readouts.lens(d.base, TEXTS, [736]), "[736]", "from 0 to 735"),
    case("a word for an id", lambda d: readouts.lens(d.base, TEXTS, [" Wait"]), "[' Wait']", "from 0 to 735"),
    case("after which a bigram", lambda d: readouts.bigram_logits(d.base, [-1], [3]), "[-1, 3]", "from 0 to 735"),
    case("of a bigram", lambda d: readouts.bigram_logits(d.base, [3], [-1]), "[3, -1]", "from 0 to 735"),
    case("to lower", lambda d: readouts.logit_direction(d.base, [3], [999]), "[3, 999]", "from 0 to 735"),
    case("to attribute", lambda d: readouts.attribute(d.base, TEXTS, [None]), "[None]", "from 0 to 735"),
    case("to score", lambda d: readouts.vocabulary_scores(d.base, V[None], [-2]), "[-2]", "from 0 to 735"),
    case("to take gradients of", lambda d: patch.gradients(d.base, TEXTS, []), "[]", "give at least one"),
    case("to write", lambda d: w.writing_direction(d.base, [736]), "[736]", "from 0 to 735"),
    case("to sum up", lambda d: w.sparse_shares(d.base, [None]), "[None]", "from 0 to 735"),
    case("to sum up from", lambda d: w.least_squares_shares(d.base, [3], [-4]), "[3, -4]", "from 0 to 735"),
    case("to read under a steering", lambda d: steering.steered_logprobs(d.base, TEXTS, [NOTHING], [-1]), "[-1]",
         "from 0 to 735"),
    case("to raise", lambda d: steering_of(d, Steering("b", bias={10**6: 1.0})), "[1000000]", "from 0 to 735"),
    case("to follow in an explorer", lambda d: _lens_html(d.base, "Who?", "plain", ["no such word"], 4),
         "'no such word' is not one token", "try it with"),
    case("to stand for a mark", lambda d: tokens.nonsense_tag(d.base.tokenizer, ""), "empty mark", "give the tag"),
    case("none as plain words", lambda d: tokens.plain_words(d.base.tokenizer, 0), "0 words", "at least 1"),
    case("no keywords", lambda d: steering.places_before(d.base, d.given, ()), "keywords ()", "a list of words",
         make=written),
    case("an empty keyword", lambda d: tokens.keyword_pattern(("wait", "")), "'wait', ''", "none of them empty"),
]  # fmt: skip

GENERATION = [
    *(case(f"{options}", lambda d, o=options: complete(d.base, TEXTS, **{"max_new_tokens": 3} | o), *says)
      for options, says in [
        ({"max_new_tokens": 0}, ("0 new tokens", "at least 1")),
        ({"max_new_tokens": -3}, ("-3 new tokens", "at least 1")),
        ({"max_new_tokens": 2.5}, ("2.5 new tokens", "at least 1")),
        ({"temperature": -1.0}, ("temperature -1", "use 0 or at least")),
        ({"temperature": 1e-39}, ("temperature 1e-39", "use 0 or at least")),
        ({"temperature": NAN}, ("temperature is nan", "give a finite")),
        ({"temperature": INF}, ("temperature is inf", "give a finite")),
        ({"top_p": 0.0}, ("top_p 0.0", "up to 1")),
        ({"top_p": 1.5}, ("top_p 1.5", "up to 1")),
        ({"top_p": NAN}, ("top_p nan", "up to 1")),
        ({"batch_size": 0}, ("0 prompts a batch", "at least 1")),
        ({"batch_size": -1}, ("-1 prompts a batch", "at least 1")),
      ]),
    case("more prompts than changes", lambda d: stored_completions(d.pair, d.base, TEXTS, name="x",
         change=Change("c", names=("a", "b"))), "3 prompts, 2 changes", "as many of each"),
    case("cut to nothing", lambda d: cut_short(d.base, [], [], 0, opened=False), "0 tokens", "at least 1"),
    case("answers cut of fewer questions", lambda d: cut_short(d.base, [1], [], 3, opened=False), "0 questions",
         "as many of each"),
    case("answers that must be shorter than one token", lambda d: select_combined(None, None, quick=0), "0 tokens",
         "at least 1"),
    case("a negative number of combined prompts", lambda d: generation.load_combined(d.pair, n_prompts=4,
         n_combined=-1), "-1 combined prompts", "at least 1"),
    case("no questions", lambda d: load_questions(0), "0 questions", "at least 1"),
    case("a negative number of questions", lambda d: load_questions(-2), "-2 questions", "at least 1"),
    case("no sentences", lambda d: prompts.neutral_sentences(0), "0 sentences", "at least 1"),
    case("repetition of nothing", lambda d: generation.repetition([1, 2], 0), "0 tokens a stretch", "at least 1"),
    case("an echo of nothing", lambda d: prompts.echo_share("a b", "a b", 0), "0 words a stretch", "at least 1"),
]  # fmt: skip

NUMBERS = [
    *(case(f"top {k} tokens", lambda d, k=k: readouts.top_tokens(d.base, TEXTS, k=k), f"{k} tokens", "1 to 736")
      for k in (0, -1, 737)),
    case("no promoted tokens", lambda d: readouts.promoted(d.base, V[None], k=0), "0 tokens", "1 to 736"),
    case("a direction of NaN", lambda d: readouts.promoted(d.base, NAN * V[None]), "not finite", "look for NaN"),
    case("a score of infinity", lambda d: readouts.vocabulary_scores(d.base, INF * V[None], [3]), "not finite", "NaN"),
    case("a narrow direction", lambda d: readouts.promoted(d.base, V[None, :4]), "vector of (4,)", "has 48"),
    case("a position from the start", lambda d: readouts.residuals(d.base, TEXTS, positions=(0,)), "positions [0]",
         "use -"),
    case("a position before the start", lambda d: readouts.lens(d.base, ["?."], [3], positions=(-3,)),
         "positions [-3]", "use -2 to -1"),
    case("no positions in a map", lambda d: readouts.lens_map(d.base, "Who?", last=0), "0 positions", "at least 1"),
    case("an unknown norm", lambda d: readouts.lens(d.base, TEXTS, [3], norm="rms"), "unknown norm 'rms'", "scale"),
    case("a lens in batches of none", lambda d: readouts.lens(d.base, TEXTS, [3], batch_size=0), "0 prompts a batch",
         "at least 1"),
    case("negative batches", lambda d: readouts.last_hidden(d.base, TEXTS, batch_size=-2), "-2 prompts a batch",
         "at least 1"),
    case("batches of none with a common start", lambda d: readouts.last_hidden_shared(d.base, TEXTS, batch_size=0),
         "0 prompts a batch", "at least 1"),
    case("batches of none at all positions", lambda d: patch.streams_at_all_positions(d.base, TEXTS, batch_size=0),
         "0 prompts a batch", "at least 1"),
    case("a layer too high", lambda d: readouts.begin(d.base, TEXTS, [4]), "no layer 4", "has 0 to 2"),
    case("a negative layer", lambda d: readouts.begin(d.base, TEXTS, [-1]), "no layer -1", "has 0 to 2"),
    case("a layer that was not kept", lambda d: readouts.go_on(d.base, d.given[0], 2), "layer 2", "begin with it",
         make=lambda d: readouts.begin(d.base, TEXTS, [1])),
    case("a head too many", lambda d: readouts.attention_pattern(d.base, TEXTS[0], [(0, 6)]), "(0, 6)", "layers of 6"),
    case("a negative head", lambda d: readouts.attention_pattern(d.base, TEXTS[0], [(-1, 0)]), "(-1, 0)", "has 3"),
    case("no heads", lambda d: readouts.attention_pattern(d.base, TEXTS[0], []), "no heads", "at least one"),
    case("a function vector of no heads", lambda d: steering.function_vector(d.base, torch.ones(3, 48), []),
         "no heads", "at least one"),
    case("a function vector of NaN", lambda d: steering.function_vector(d.base, NAN * torch.ones(3, 48), [(0, 0)]),
         "not all finite", "look for NaN"),
    *(case(f"node {node}", lambda d, node=node: patch.exact_patching(d.base, TEXTS, d.given, [node], [3]),
           f"no node {node}", "has 3 layers, 6 heads each", make=Desk.state)
      for node in (Node("head", 0, 6), Node("mlp", 3), Node("mlp", -1), Node("stream", 4), Node("neuron", 0, -1))),
    case("no nodes", lambda d: patch.exact_patching(d.base, TEXTS, d.given, [], [3]), "no nodes", "at least one",
         make=Desk.state),
    case("rows without room for a node", lambda d: patch.exact_patching(d.base, TEXTS, d.given, [Node("mlp", 0)], [3],
         batch_size=1), "1 rows a batch", "at least 2", make=Desk.state),
    case("a source of fewer prompts", lambda d: patch.exact_patching(d.base, TEXTS, d.given, [Node("mlp", 0)], [3]),
         "2 prompts for 3", "give one a prompt", make=lambda d: d.state(2)),
    case("a source of more prompts", lambda d: patch.attribution_patching(d.base, TEXTS[:1], d.given, [3]),
         "3 prompts for 1", "give one a prompt", make=Desk.state),
    case("fewer streams than prompts", lambda d: patch.patch_streams(d.base, TEXTS, d.given, [3]), "1 streams",
         "as many of each", make=lambda d: patch.streams_at_all_positions(d.base, TEXTS[:1])),
    case("unknown positions", lambda d: patch.patch_streams(d.base, TEXTS, [], [3], where="first"),
         "unknown positions 'first'", "last, earlier, all"),
    *(case(f"a swap with {options}", lambda d, o=options: swapped(**{"pair": d.pair, "role": "base"} | o).__enter__(),
           *says)
      for options, says in [
        ({"role": "teacher"}, ("unknown role 'teacher'", "base, distilled")),
        ({"layers": [3]}, ("no layer 3", "has 0 to 2")),
        ({"layers": [-1]}, ("no layer -1", "has 0 to 2")),
        ({"part": "heads"}, ("unknown part 'heads'", "all, attention, mlp")),
        ({"layers": [1], "amount": NAN}, ("amount is nan", "give a finite number")),
      ]),
    case("single swaps of no role", lambda d: patch.single_swaps(d.pair, "teacher", TEXTS, [3]), "'teacher'",
         "base, distilled"),
    *(case(f"{edit}", lambda d, edit=edit: w.with_neurons(d.base, edit), *says)
      for edit, says in [
        (NeuronEdit([(9, 1)], factor=0.0), ("in layer 9", "layers 0 to 2")),
        (NeuronEdit([(-1, 1)], factor=0.0), ("in layer -1", "layers 0 to 2")),
        (NeuronEdit([(0, 80)], factor=0.0), ("no neuron 80", "neurons 0 to 79")),
        (NeuronEdit([(0, -1)], factor=0.0), ("no neuron -1", "neurons 0 to 79")),
        (NeuronEdit([(0, 1)], factor=NAN), ("factor nan", "give finite numbers")),
        (NeuronEdit([(0, 1)], added=INF), ("addends [inf]", "give finite numbers")),
        (NeuronEdit([(0, 1)], added=[1.0, 2.0]), ("addends [1.0, 2.0]", "one a neuron")),
      ]),
    case("no closest neurons", lambda d: w.closest(torch.zeros(2, 3), 0), "0 neurons", "1 to 6"),
    case("more neurons than there are", lambda d: w.closest(torch.zeros(2, 3), 7), "7 neurons", "1 to 6"),
    case("cosines with NaN", lambda d: w.value_vector_cosines(d.base, NAN * V[None]), "not finite", "look for NaN"),
    case("cosines of a narrow direction", lambda d: w.value_vector_cosines(d.base, V[None, :9]), "(9,)", "has 48"),
    case("neurons like one that is not there", lambda d: w.alike([(0, 3)], torch.zeros(2, 3)), "no neuron 3",
         "neurons 0 to 2"),
    case("neurons like all of them", lambda d: w.alike([(0, 0), (0, 1)], torch.zeros(1, 2)), "layer 0", "choose fewer"),
    case("no like neurons", lambda d: w.alike([(0, 0)], torch.zeros(2, 3), among=0), "0 like neurons", "at least 1"),
    case("the spectrum of a negative layer", lambda d: w.spectrum(d.pair, -1, "q_proj"), "layer -1", "layers 0 to 2"),
    case("the spectrum of no matrix", lambda d: w.spectrum(d.pair, 0, "bias"), "no matrix 'bias'", "q_proj"),
    case("a sum of no tokens", lambda d: w.sparse_shares(d.base, [3], k=0), "0 other tokens", "1 to 47"),
    case("a sum of more tokens than dimensions", lambda d: w.sparse_shares(d.base, [3], k=48), "48 other", "1 to 47"),
    case("copies nearer than NaN", lambda d: w.sparse_shares(d.base, [3], below=NAN), "below is nan", "finite number"),
    case("no steering", lambda d: steering_of(d), "no steering", "pass at least one"),
    *(case(f"steering {name}", lambda d, row=row: steering_of(d, row), *says)
      for name, row, says in [
        ("a layer too high", Steering("v", {99: V}), ("no layer 99", "has 0 to 2")),
        ("a negative layer", Steering("v", {-1: V}), ("no layer -1", "has 0 to 2")),
        ("by NaN", Steering("v", {1: V}, NAN), ("v: strength", "look for NaN")),
        ("by infinity", Steering("v", {1: INF * V}), ("not all finite", "look for NaN")),
        ("by a NaN of bias", Steering("v", bias={3: NAN}), ("not all finite", "look for NaN")),
        ("a narrow vector", Steering("v", {1: V[:4]}), ("vector of (4,)", "has 48")),
        ("at unknown positions", Steering("v", where="often"), ("'often'", "all, prompt, last, generated")),
      ]),
    case("two steerings for three prompts", lambda d: complete(d.base, TEXTS, lm=d.given.lm, max_new_tokens=2,
         on_batch=d.given.on_batch), "2 steerings for 3 prompts", "give one, or one a prompt",
         make=lambda d: steering_of(d, Steering("a", {1: V}), Steering("b", {1: V}))),
    case("rows of none", lambda d: steering.steered_logprobs(d.base, TEXTS, [NOTHING], [3], rows=0), "0 rows",
         "at least 1"),
    case("no random directions", lambda d: steering.random_directions(0, 48), "0 directions", "at least 1"),
    case("a latent that is not there", lambda d: steering.with_latent(d.base, d.autoencoder(), 20, 1.0), "latent 20",
         "0 to 19"),
    case("a negative latent", lambda d: steering.with_latent(d.base, d.autoencoder(), -1, 1.0), "latent -1", "0 to 19"),
    case("a latent at NaN", lambda d: steering.with_latent(d.base, d.autoencoder(), 1, NAN), "at nan", "finite"),
    case("an autoencoder of a deeper model", lambda d: steering.with_latent(d.base, d.autoencoder(layer=9), 1, 1.0),
         "no layer 9", "has 0 to 2"),
    case("an autoencoder of a wider model", lambda d: steering.with_latent(d.base, d.autoencoder(
         decoder=torch.ones(20, 96)), 1, 1.0), "vector of (96,)", "has 48"),
    case("no places", lambda d: steering.read_places(d.base, [], []), "no places", "no such keyword"),
    case("a place in no text", lambda d: steering.read_places(d.base, d.given, [(5, 0)]), "text 5", "there are 1 texts",
         make=written),
    case("a place after the text", lambda d: steering.read_places(d.base, d.given, [(0, 99)]), "no token 99", "0 to",
         make=written),
    case("the words around no place", lambda d: steering.context(d.base, d.given[0], -1), "no token -1", "0 to",
         make=written),
]  # fmt: skip

STATS = [
    case("no sample", lambda d: stats.bootstrap(), "no sample", "one number a prompt"),
    case("one prompt", lambda d: stats.bootstrap([1.0]), "shape (1,)", "at least 2"),
    case("NaN", lambda d: stats.bootstrap([1.0, NAN]), "not finite at [1]", "look for NaN"),
    case("words", lambda d: stats.bootstrap(["one", "two"]), "'one'", "give numbers"),
    case("a table", lambda d: stats.bootstrap([[1, 2], [3, 4]]), "shape (2, 2)", "one number a prompt"),
    case("samples of two lengths", lambda d: stats.ratio_of_means([1, 2], [1, 2, 3]), "3 values in sample 2",
         "as many of each"),
    case("pairs of two lengths", lambda d: stats.paired([1, 2, 3], [1]), "shape (1,)", "at least 2"),
    case("bands of a row", lambda d: stats.bands([1.0, 2.0]), "shape (2,)", "[prompt, column]"),
    case("bands with NaN", lambda d: stats.bands([[1.0, NAN], [1.0, 2.0]]), "[0, 1]", "look for NaN"),
    case("a ragged table", lambda d: stats.bands([[1.0], [1.0, 2.0]]), "no table", "as many in every row"),
    case("ranks of NaN", lambda d: stats.correlation([1, 2, NAN], [1, 2, 3], ranks=True), "at [2]", "look for NaN"),
    case("alignment of few", lambda d: stats.alignment(np.ones((4, 2)), np.ones((4, 2))), "(4, 2)", "at least 5"),
    case("alignment of two lengths", lambda d: stats.alignment(np.ones((6, 2)), np.ones((5, 2))), "5 second",
         "as many of each"),
    case("flipped NaN", lambda d: stats.sign_flip_p([1.0, NAN, 2.0]), "not finite at [1]", "look for NaN"),
    case("a p-value above one", lambda d: stats.false_discovery([0.1, 1.5]), "to 1.5", "from 0 to 1"),
    case("a p-value of NaN", lambda d: stats.false_discovery([NAN]), "not finite", "look for NaN"),
    case("no p-values", lambda d: stats.false_discovery([]), "shape (0,)", "at least 1"),
    case("negative lengths", lambda d: stats.survival([-1, 3], [True, True]), "length of -1", "at least 0"),
    case("stops of fewer lengths", lambda d: stats.survival([1, 3], [True]), "1 stopped", "as many of each"),
    case("curves of one depth", lambda d: stats.settled_at([[1.0]]), "curves of 1 depth", "at least 2"),
    case("an unknown shape", lambda d: stats.fit_shape([0.0, 1.0, 2.0], "cubic"), "'cubic'", "linear, exponential"),
    case("one fold", lambda d: stats.held_out_errors(np.ones((4, 9)), folds=1), "1 folds", "at least 2"),
    case("an unknown side", lambda d: findings.Rule("beyond", 1.0), "unknown side 'beyond'", "above, below, away"),
    case("a threshold of NaN", lambda d: findings.Rule("above", NAN), "threshold is nan", "finite number"),
    case("an unknown verdict", lambda d: findings.all_of("holds", "true"), "'true'", "does not hold"),
    case("a finding that is none", lambda d: d.record(finding="F99"), "unknown finding 'F99'", "F01, F02"),
    case("a verdict that is none", lambda d: d.record(verdict="yes"), "unknown verdict 'yes'", "inconclusive"),
    case("the claim of no finding", lambda d: findings.claim("smol", "F1"), "unknown finding 'F1'", "F01, F02"),
    case("lines without panels", lambda d: a_line(panels={}), "0 panels", "at least 1"),
    case("more rows than panels", lambda d: a_line(rows=2), "2 rows", "1 to 1"),
    case("lines shorter than their axis", lambda d: a_line(at=[0, 1]), "3 values of s, 2 places", "as many of each"),
    case("dots without panels", lambda d: figures.interval_rows({}, title="t", unit="u"), "0 panels", "at least 1"),
    case("maps without panels", lambda d: figures.heat_maps({}, title="t", xlabel="", ylabel="", unit=""), "0 panels",
         "at least 1"),
    case("an explorer without neurons", lambda d: explorers.neurons_explorer(d.pair, {}, {}), "no neurons", "give"),
    case("an explorer without vectors", lambda d: explorers.steering_explorer(d.pair, {}, {}), "no vectors",
         "give at least one"),
]  # fmt: skip

GOOD = '{"id": "a", "category": "c", "question": "Who?", "answers": ["I"]}\n'
FILES = [
    *(case(f"questions: {name}", lambda d: load_questions(path=d.given), *says, make=lambda d, t=text: d.file(t))
      for name, text, says in [
        ("a line that is no JSON", GOOD + "{\n", ("file.jsonl:2", "one JSON object a line")),
        ("a line that is a list", GOOD + "[]\n", ("file.jsonl:2", "one JSON object a line")),
        ("wrong columns", GOOD + '{"id": "x", "text": "Who?"}', ("file.jsonl:2", "'category'", "with id, category")),
        ("an empty question", GOOD.replace("Who?", " "), ("file.jsonl:1 has an empty question", "fill them in")),
        ("no answers", GOOD.replace('["I"]', "[]"), ("file.jsonl:1", "fill them in")),
        ("an empty answer", GOOD.replace('"I"', '""'), ("file.jsonl:1", "fill them in")),
        ("a word for answers", GOOD.replace('["I"]', '"Paris"'), ("file.jsonl:1", "a list of texts")),
        ("a number for an id", GOOD.replace('"a"', "5"), ("file.jsonl:1", "id is a text")),
        ("one id twice", GOOD + GOOD, ("the id 'a'", "rename one")),
        ("an empty file", "\n", ("file.jsonl holds no questions", "one JSON object a line")),
        ("no text", b"\xff\xfe\x00", ("file.jsonl", "restore it with git")),
      ]),
    case("questions that are not there", lambda d: load_questions(path=d.place / "none"), "No such file", "restore it"),
    case("questions in a folder", lambda d: load_questions(path=d.place), "Is a directory", "restore it"),
    case("questions behind a link loop", lambda d: load_questions(path=d.given), "/loop", "restore it", make=Desk.loop),
    *(case(f"traces: {name}", lambda d: read_traces([str(d.given)], None), *says, make=lambda d, t=text: d.file(t))
      for name, text, says in [
        ("no JSON", "no\n", ("file.jsonl:1 is not a trace", "one JSON object a line")),
        ("wrong columns", '{"question": "Who?", "thought": "Hm."}', ("file.jsonl:1", "question and thinking")),
        ("a number", '{"question": "Who?", "thinking": 5}', ("file.jsonl:1", "question and thinking")),
      ]),
    case("completions that are no JSON", lambda d: stored_completions(d.pair, d.base, TEXTS, name="told",
         max_new_tokens=2), "told.json is not valid JSON", "delete it", make=lambda d: d.stored("[{")),
    case("completions with other columns", lambda d: stored_completions(d.pair, d.base, TEXTS, name="told",
         max_new_tokens=2), "told.json holds no completions", "delete it", make=lambda d: d.stored('[{"text": "a"}]')),
    case("truncated arrays", lambda d: d.kept(), "array.safetensors does not load", "delete it",
         make=lambda d: (d.kept(), d.file(b"\x40", "tiny-qwen2/array.safetensors"))),
    case("a ledger that is no JSON", lambda d: findings.table("p"), "findings.json is not valid JSON", "delete it",
         make=lambda d: d.file("[{", "p/findings.json")),
    case("a ledger that is none", lambda d: findings.claim("p", "F01"), "findings.json is no ledger", "delete it",
         make=lambda d: d.file('[{"id": "F01"}]', "p/findings.json")),
    case("a benchmark that is none", lambda d: bench.table(d.given), "holds no benchmark", "delete it",
         make=lambda d: d.file("[]", "b.json")),
    case("a benchmark that is not there", lambda d: bench.table(d.place / "b.json"), "b.json", "name another file"),
    case("a hookpoint of no layer", lambda d: steering.load_autoencoder(d.coder[0], "embed_tokens"), "'embed_tokens'",
         "layers.N"),
    case("a hookpoint that is not there", lambda d: steering.load_autoencoder(d.coder[0], "layers.2"), "layers.2",
         "name another"),
    case("an autoencoder out of reach", lambda d: steering.load_autoencoder("nobody/nothing", "layers.1"),
         "nobody/nothing", "check name and network"),
    case("a transcoder", lambda d: steering.load_autoencoder(d.given, "layers.1"), "not a TopK autoencoder",
         "are not read here", make=lambda d: d.coder_files(transcode=True)),
    case("an autoencoder with no active latents", lambda d: steering.load_autoencoder(d.given, "layers.1"),
         "0 latents at once", "1 to 20", make=lambda d: d.coder_files(k=0)),
    case("an autoencoder with more active latents than it has", lambda d: steering.load_autoencoder(d.given,
         "layers.1"), "99 latents at once", "1 to 20", make=lambda d: d.coder_files(k=99)),
    case("an autoencoder of another layout", lambda d: steering.load_autoencoder(d.given, "layers.1"),
         "no encoder.weight", "sparsify's layout", make=lambda d: d.coder_files({"W_dec": torch.ones(3, 48)})),
    case("a truncated autoencoder", lambda d: steering.load_autoencoder(d.given, "layers.1"),
         "sae.safetensors does not load", "fetch it again", make=lambda d: d.coder_files(b"\x40")),
    case("text into a read-only folder", lambda d: under(nobody(), lambda: store.write_text(d.given / "a", "text")),
         "cannot write", "Permission denied", "make it writable", make=Desk.locked),
    case("a report where a file stands", lambda d: report(to="html", out=d.given), "report.html", "make it writable",
         make=taken),
    case("records where there is no space", lambda d: under(no_room(4096), lambda: store.write_records(
         d.place / "a.json", [{"a": "b" * 9999}])), "a.json", "free some room"),
    case("a figure where there is no space", lambda d: under(no_room(4096), lambda: figures.save_figure(d.given, "f",
         pair="p", alt="a", folder=d.place)), "f.png", "free some room", make=lambda d: noise_figure()),
    case("arrays where there is no space", lambda d: under(no_room(65536), d.kept), "array.safetensors",
         "free some room", make=lambda d: (d.place / "tiny-qwen2").mkdir()),
    case("text behind a link loop", lambda d: store.write_text(d.given / "a", "text"), "/loop/a", "make it writable",
         make=Desk.loop),
    case("a figure where a file stands", lambda d: figures.save_figure(figures._start("t")[0], "f", pair="p", alt="a",
         folder=d.given), "f.png", "make it writable", make=lambda d: d.file("", "taken")),
]  # fmt: skip

COMMANDS = [
    case("check of an unknown pair", lambda d: d.command("check", "--pair", "r2"), "'r2'", "choose one of"),
    case("check of an unknown pair in R1_PAIR", lambda d: d.command("check"), "'r3'", "choose one of",
         make=lambda d: d.patcher.setenv("R1_PAIR", "r3")),
    case("run of an unknown pair", lambda d: d.command("run", "--pair", "r2"), "'r2'", "choose one of"),
    case("run of no notebook", lambda d: d.command("run", "--only", "99"), "starts with '99'", "there are 01_prompts"),
    case("report of an unknown kind", lambda d: d.command("report", "--to", "pdf"), "'pdf'", "html, docx, all"),
    case("report of a pair that was not run", lambda d: d.command("report", "--pair", "r1-70b"), "'r1-70b'",
         "run --pair r1-70b"),
    *(case(f"publish {name!r}", lambda d, name=name: d.command("publish", name), repr(name), "give it as OWNER/REPO")
      for name in ("name", "a/b/c", "a b/c", "a/b;rm", "https://github.com/a/b")),
    case("publish to a branch with a space", lambda d: d.command("publish", "a/b", "--branch", "a b"), "'a b'",
         "give its name"),
    case("distill from no file", lambda d: d.command("distill", "nowhere.jsonl"), "nowhere.jsonl", "give a JSONL file"),
    case("distill from a bad line", lambda d: d.command("distill", str(d.given), "--out", str(d.place / "out")),
         "file.jsonl:1", "one JSON object a line", make=lambda d: d.file("not json\n")),
    case("distill with no practice", lambda d: d.command("distill", str(d.given), "--practice", "nowhere.jsonl"),
         "nowhere.jsonl", "name another file",
         make=lambda d: d.file('{"question": "Who?", "thinking": "Hm.", "answer": "I."}\n')),
    case("bench of no row", lambda d: d.command("bench", "--row", "lense"), "'lense'", "choose lens, lens_ranked"),
    case("bench in no type", lambda d: d.command("bench", "--dtype", "int3"), "'int3'", "float32, bfloat16"),
    case("bench on no device", lambda d: d.command("bench", "--device", "tpu"), "'tpu'", "cpu, cuda"),
    case("bench under a cap of nothing", lambda d: d.command("bench", "--cap", "nan"), "nan", "cap"),
    case("bench under a cap on a CPU", lambda d: d.command("bench", "--cap", "8"), "cap 8", "device cuda"),
    case("bench into another folder", lambda d: d.command("bench", "--name", "../x"), "'../x'", "give letters"),
    case("bench with no Python", lambda d: d.command("bench", "--nnterp", "/no/python"), "/no/python", "has nnterp"),
]  # fmt: skip

USAGE = [  # told by the command line's own parser, in a box
    case("no such command", lambda d: d.command("ruin"), "ruin"),
    case("no such option", lambda d: d.command("run", "--pairs", "smol"), "--pairs"),
    case("no argument", lambda d: d.command("publish"), "repository"),
    case("a word for a number", lambda d: d.command("autoencoder", "a.jsonl", "--layer", "six"), "--layer"),
    case("an argument too many", lambda d: d.command("card", "now"), "now"),
]

KINDS = {
    "pairs": PAIRS, "prompts": PROMPTS, "tokens": TOKENS, "generation": GENERATION, "numbers": NUMBERS,
    "statistics and figures": STATS, "files": FILES, "commands": COMMANDS,
}  # fmt: skip
TABLE = [pytest.param(one, id=f"{kind}: {one.name}") for kind, cases in KINDS.items() for one in cases]


@pytest.fixture
def desk(qwen, qwen_folders, tiny_autoencoder, data_here, monkeypatch) -> Desk:
    """The tiny pair without type checks; results, temporary files and the hub are out of the way."""
    monkeypatch.setattr(type_checks, "jaxtyping_disable", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(store, "data_dir", generation.data_dir)
    monkeypatch.delenv("R1_PAIR", raising=False)
    place = data_here
    (place / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place / "scratch"))
    return Desk(qwen, qwen_folders, place, tiny_autoencoder, monkeypatch)


def seen(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file below some folders, with its size and time; locks aside."""
    below = [Path(at) / name for folder in folders for at, inner, files in os.walk(folder) for name in (*inner, *files)]
    paths = [*folders, *below]
    files = [path for path in paths if path.suffix != ".lock" and path.name != "__pycache__"]
    return {str(path): (0, 0) if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("one", TABLE)
def test_a_careless_value_gets_one_line_and_writes_nothing(one, desk, capsys):
    desk.given = one.make(desk) if one.make else None
    watched = (desk.place, *(ROOT / name for name in WATCHED))
    before = seen(*watched)
    capsys.readouterr()
    with pytest.raises((UserError, SystemExit)) as caught:
        one.call(desk)
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 2
        line = capsys.readouterr().err.strip()
    else:
        line = str(caught.value)
    assert len(line.splitlines()) == 1 and len(line) <= 400 and "Traceback" not in line, line
    assert [words for words in one.says if words not in line] == [], line
    after = seen(*watched)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == set(), "written"


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in USAGE])
def test_a_mistyped_command_line_gets_usage_and_exit_code_2(one, desk, capsys):
    with pytest.raises(SystemExit) as caught:
        one.call(desk)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and "Traceback" not in said and "Usage" in said
    assert one.says[0] in said


def test_the_table_is_large_and_no_case_stands_twice():
    names = Counter(param.id for param in TABLE)
    assert len(names) >= 200 and max(names.values()) == 1
    assert all(len(case.says) >= 2 for cases in KINDS.values() for case in cases), "the value and the remedy"


EXPLORERS = {
    "ask_both": explorers.ask_both,
    "next_token": explorers.next_token,
    "lens": explorers.lens_explorer,
    "neurons": lambda pair: explorers.neurons_explorer(pair, *[{m.role: [(0, 1)] for m in pair.members}] * 2),
    "swap": explorers.swap_explorer,
    "steering": lambda pair: explorers.steering_explorer(
        pair, {"v": torch.ones(3, 48)}, {m.role: torch.ones(3) for m in pair.members}
    ),
}


@pytest.mark.parametrize(
    ("text", "said"), [(" ", "empty"), ("a<|endoftext|><｜User｜>", "the special token &lt;"), ("a " * 3000, "2048")]
)
@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_shows_the_line_in_place_of_its_output(desk, name, text, said):
    box = EXPLORERS[name](desk.pair)
    inside = [box]
    for part in inside:
        inside += getattr(part, "children", ())
    next(part for part in inside if isinstance(part, widgets.Text | widgets.Textarea)).value = text
    next(part for part in inside if isinstance(part, widgets.Button)).click()
    shown = [part.value for part in inside if isinstance(part, widgets.HTML)]
    assert any(said in value for value in shown) and not any("Traceback" in value for value in shown)
    assert all(value.count("<p ") == 1 and "\n" not in value for value in shown), "one line each"


ODD = {
    "emoji": "What is 👩‍👩‍👧 plus 🇫🇷?",
    "Chinese": "法国的首都是哪里？",
    "right to left": "מהי בירת צרפת? ما هي عاصمة فرنسا؟",
    "mixed directions": "abc \u202eשלום\u202c def",
    "control characters": "a\x00b\x07c\x1b[31m",
    "a byte order mark": "\ufeffWho?",
    "zero width": "W\u200bh\u200do?",
    "line separators": "one\u2028two\x0bthree\r\nfour",
    "combining marks": "Z" + "\u0301" * 40,
    "the other model's end": "a <｜end▁of▁sentence｜> b",
    "a think tag": "What does </think> mean?",
    "template code": "{{ bos_token }} {% raw %}",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in ODD.items()])
@pytest.mark.parametrize("form", ["plain", "template"])
def test_odd_but_legal_text_is_read_as_it_is(qwen, text, form):
    member = qwen.base
    prompt = member.prompt(text, form)
    ids = member.encode([prompt, "The bus"])["input_ids"][0].tolist()
    assert member.tokenizer.decode(ids) == normalize("NFC", prompt), "as it is, but for composed marks (Qwen)"
    assert text in prompt
    together = readouts.next_logprobs(member, [prompt, "The bus"], [3, 4])
    assert torch.isfinite(together).all()
    assert torch.allclose(together[:1], readouts.next_logprobs(member, [prompt], [3, 4]), atol=1e-4)


def test_odd_but_legal_text_is_completed_in_one_batch(qwen):
    asked = [qwen.base.prompt(text, "template") for text in ODD.values()]
    done = complete(qwen.base, asked, max_new_tokens=3)
    assert [one.prompt for one in done] == asked and all(len(one.tokens) <= 3 for one in done)
