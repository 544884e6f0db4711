# SPDX-License-Identifier: MIT
"""Tiny random checkpoints on disk with the headline pair's quirks, and the embedded pair."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerFast

from helpers.pairs import Pair, load_pair
from helpers.prompts import load_questions, neutral_sentences
from helpers.tokens import REASONING, WAIT

BASE_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"]
OF_R1 = {"F27": "06_r1"}  # findings that only pairs of R1's shape have, with their figure
DISTILLED_MARKS = ["<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>"]
BASE_TEMPLATE = (
    "<|im_start|>system\nReason step by step.<|im_end|>\n{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DISTILLED_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<｜User｜>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)


def make_tokenizer(role: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE; the same ids carry other names in the distilled, which has a BOS and knows the tags."""
    words = [*WAIT, *REASONING, " the", " and", " that", " park", " house", " river", " table", " market"]
    text = ["".join([word] * 3) for word in words] * 50 + [q.text for q in load_questions(60)] + neutral_sentences()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    )
    marks = BASE_MARKS if role == "base" else DISTILLED_MARKS
    tokenizer.add_special_tokens(marks)
    options = {"eos_token": marks[0], "pad_token": marks[0], "additional_special_tokens": marks[1:3]}
    if role == "distilled":
        tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        options["bos_token"] = marks[3]
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)
    wrapped.chat_template = BASE_TEMPLATE if role == "base" else DISTILLED_TEMPLATE
    return wrapped


def make_checkpoint(folder: Path, role: str, *, family: str = "Qwen2", tied: bool, seed: int, **extra: object) -> Path:
    """Save one tiny random model and its tokenizer; the distilled one's generation config samples. `extra` goes
    to the model's config."""
    tokenizer = make_tokenizer(role)
    torch.manual_seed(seed)
    shape = {"vocab_size": 736, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
    shape |= {"num_key_value_heads": 2, "intermediate_size": 80, "max_position_embeddings": 2048}
    shape |= {"tie_word_embeddings": tied, "initializer_range": 0.2}
    shape |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config, kind = (getattr(transformers, f"{family}{part}") for part in ("Config", "ForCausalLM"))
    model = kind(config(**{**shape, **extra}))
    for name, value in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            torch.nn.init.normal_(value, mean=float("norm" in name), std=0.1)
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.95} if role == "distilled" else {}
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, **sampling)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if role == "distilled":  # as R1's distilled models have it: a class not their own, and BOS by a setting alone
        settings = folder / "tokenizer_config.json"
        quirks = {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "legacy": True, "unk_token": None}
        settings.write_text(json.dumps(json.loads(settings.read_text()) | quirks))
    return folder


def make_folders(root: Path, tied: tuple[bool, bool], seeds: tuple[int, int], **options: Any) -> tuple[Path, Path]:
    """Checkpoints of a base and a distilled model."""
    roles = ("base", "distilled")
    made = zip(roles, tied, seeds, strict=True)
    one, two = (make_checkpoint(root / role, role, tied=tie, seed=seed, **options) for role, tie, seed in made)
    return one, two


@pytest.fixture(scope="session")
def qwen_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tied base and an untied distilled Qwen2, as the headline pair has them."""
    return make_folders(tmp_path_factory.mktemp("qwen"), (True, False), (0, 1))


@pytest.fixture(scope="session")
def qwen(qwen_folders: tuple[Path, Path]) -> Pair:
    return Pair.of(*qwen_folders, name="tiny-qwen2", device="cpu")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folders = make_folders(tmp_path_factory.mktemp("llama"), (True, True), (2, 3), family="Llama")
    return Pair.of(*folders, name="tiny-llama", device="cpu")


@pytest.fixture(scope="session")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Llamas with a bias on every linear layer, one head tied and one not."""
    options = {"family": "Llama", "attention_bias": True, "mlp_bias": True}
    folders = make_folders(tmp_path_factory.mktemp("biased"), (True, False), (4, 4), **options)
    return Pair.of(*folders, name="tiny-biased", device="cpu")


@pytest.fixture(params=["qwen", "llama"])
def tiny(request: pytest.FixtureRequest) -> Pair:
    """Each tiny pair in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def tiny_autoencoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A random TopK autoencoder for the tiny models, in sparsify's layout: its folder and hookpoint."""
    folder, generator = tmp_path_factory.mktemp("autoencoder"), torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (20, 48), "encoder.bias": (20,), "W_dec": (20, 48), "b_dec": (48,)}
    (folder / "layers.1").mkdir()
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "layers.1" / "sae.safetensors")
    config = {"activation": "topk", "num_latents": 20, "k": 4, "d_in": 48, "transcode": False}
    (folder / "layers.1" / "cfg.json").write_text(json.dumps(config))
    return str(folder), "layers.1"


def wait_for(true: Callable[[], object], seconds: int) -> None:
    """Wait until a call is true, whatever it raises before."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Exception):
            if true():
                return
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def numbers(estimate: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.5, "high": estimate + 0.5, "n": 9}


def entry(finding: str, notebook: str = "01_prompts", **more: Any) -> dict[str, Any]:
    """An invented finding of two parts and three details, as a ledger holds it."""
    rule = {"side": "above", "threshold": 1.0, "margin": 0.0, "verdict": "holds"}
    parts = [{"name": name, **rule, **numbers(value)} for name, value in (("a", 10.0), ("b", 5.0))]
    row = {"id": finding, "evidence": "pair", "source": "smol", "claim": "c", "notebook": notebook, "quantity": "q"}
    row |= {"unit": "u", **numbers(10.0), "control": {"name": "c", **numbers(0.5)}, "rules": parts, "verdict": "holds"}
    row |= {"details": {"loops": numbers(0.1), "runs": 4, "shape": "line"}, "remark": "", "models": ["x", "y"]}
    return row | {"split": "confirm", "sample": "prompts", "settings": ""} | more


class Does(LogitsProcessor):
    """What a function makes of the tokens so far and the scores."""

    def __init__(self, function) -> None:
        self.function = function

    def __call__(self, input_ids, scores):
        return self.function(input_ids, scores)


class Page(HTMLParser):
    """What a page holds: tags, attributes, texts, ids, links, pictures, and addresses that a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.ids, self.text = set(), set(), set(), ""
        self.links, self.alts, self.fetched = [], [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.attributes |= values.keys()
        self.ids |= {values["id"]} if "id" in values else set()
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.alts += [values.get("alt")] if tag == "img" else []
        if tag in ("script", "link", "iframe") or (values.get("src") or "data:")[:5] != "data:":
            self.fetched.append((tag, values))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="session")
def smol() -> Pair:
    return load_pair("smol", device="cpu")


@pytest.fixture
def data_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of this test go to a temporary folder."""
    import helpers.findings
    import helpers.store

    def here(pair: str) -> Path:
        return tmp_path / pair

    monkeypatch.setattr(helpers.store, "data_dir", here)
    monkeypatch.setattr(helpers.findings, "data_dir", here)
    return tmp_path
