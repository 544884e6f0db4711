# SPDX-License-Identifier: MIT
"""Which two models, and how each is loaded: embedded, from the hub, or from local folders."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session, snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from helpers import embedded
from helpers.checks import check_lengths, guarded
from helpers.fast import pack_linears
from helpers.members import Member
from helpers.store import ROOT, UserError, cache_dir, sha256
from helpers.tokens import lost_mark, token_groups

warnings.filterwarnings("ignore", message=".*was never reached")  # how nnsight says that an edit's loop has ended

HUB = {
    "r1-1.5b": ("Qwen/Qwen2.5-Math-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
    "r1-7b": ("Qwen/Qwen2.5-Math-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
    "r1-8b": ("meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    "r1-14b": ("Qwen/Qwen2.5-14B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"),
    "r1-32b": ("Qwen/Qwen2.5-32B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"),
    "r1-70b": ("meta-llama/Llama-3.3-70B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"),
}
PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj", "input_layernorm")  # of a layer
CONTROLS = ("null", "swapped")  # of smol: its base twice, and its two roles exchanged
EMBEDDED = (*embedded.SOURCES, *CONTROLS)
NAMES = ("auto", *EMBEDDED, *HUB)


@dataclass
class Pair:
    """A base and the model distilled from it."""

    name: str
    base: Member
    distilled: Member

    @property
    def members(self) -> tuple[Member, Member]:
        return self.base, self.distilled

    @classmethod
    def of(cls, base: str | Path, distilled: str | Path, *, name: str = "own", **options: Any) -> Pair:
        """A pair of any two local folders or hub ids of one architecture and vocabulary size, whose readouts are
        shown to be the model's own. Raises UserError where they are not."""
        pair = cls(name, load_member("base", str(base), **options), load_member("distilled", str(distilled), **options))
        one, two = (f"{m.config.model_type} of {m.config.vocab_size} tokens" for m in pair.members)
        if one != two:
            raise UserError(f"{one} and {two} are not a pair: choose two of one architecture and vocabulary")
        if name not in EMBEDDED and not pair.base.remote:
            from helpers.preflight import refuse_unequal  # which reads models, and so needs this module

            refuse_unequal(pair.base)
            refuse_unequal(pair.distilled)
        return pair

    def float(self) -> Pair:
        """Both models in float32 from here on, in place: for sums that must add up."""
        for member in self.members:
            member.model.float()
        return self

    def describe(self) -> str:
        """One line for captions: pair and revisions."""
        return f"pair {self.name}: " + ", ".join(f"{m.role} {m.identity}" for m in self.members)


def load_pair(name: str | tuple[str, str] = "auto", **options: Any) -> Pair:
    """A pair by its name in the registry, or of two folders or hub ids; the one that was loaded last is given again, so
    that a cell may run twice. Options go to `load_member`: dtype, device, remote. Raises UserError for an unknown name,
    an unreachable hub or a broken cache."""
    chosen = parse_pair(name) if isinstance(name, str) else tuple(map(str, name))
    if chosen == "auto":
        chosen, why = choose_pair()
        print(f"pair {chosen}: {why}")
    if isinstance(chosen, tuple) or chosen in HUB:
        sources = HUB.get(chosen, chosen)
    else:
        kind = chosen if chosen in embedded.SOURCES else "smol"
        base, distilled = str(embedded.base_folder(kind)), str(embedded.distilled_folder(pair=kind))
        sources = {"null": (base, base), "swapped": (distilled, base)}.get(chosen, (base, distilled))
    check_lengths(**{f"names in {name}": sources, "models of a pair": ("base", "distilled")})
    return _loaded(*sources, **{"name": pair_name(chosen), "device": os.environ.get("R1_DEVICE"), **options})


@lru_cache(maxsize=1)
def _loaded(*sources: str, **options: Any) -> Pair:
    return Pair.of(*sources, **options)


def parse_pair(text: str) -> str | tuple[str, ...]:
    """A name of the registry, or the two folders or hub ids that a comma parts. Raises UserError for anything else."""
    if "," in text:
        return tuple(part.strip() for part in text.split(","))
    if text not in NAMES:
        raise UserError(f"unknown pair {text!r}: choose one of {', '.join(NAMES)}, or BASE,DISTILLED (folders or ids)")
    return text


def pair_name(pair: str | tuple[str, ...]) -> str:
    """What a pair's results are filed under: its name, or `own` for two models that have none."""
    return pair if isinstance(pair, str) else "own"


def choose_pair() -> tuple[str, str]:
    """What `auto` means here, and why: r1-1.5b with CUDA and the hub, else smol."""
    if torch.cuda.is_available() and hub_reachable():
        return "r1-1.5b", "CUDA and the model hub are there"
    return "smol", "no CUDA device here, or the model hub cannot be reached, so the embedded pair"


def hub_reachable() -> bool:
    """Whether the hub (huggingface.co, or HF_ENDPOINT) answers soon; false when HF_HUB_OFFLINE is set."""
    try:
        get_session().head(constants.ENDPOINT, timeout=3)
    except Exception:  # of whichever HTTP library huggingface_hub uses
        return False
    return True


def load_member(
    role: str, source: str, *, dtype: torch.dtype | None = None, device: str | None = None, remote: bool | str = False
) -> Member:
    """Load one model from a folder (from here, from the project's root or from home) or the hub: safetensors only, no
    remote code. `device`: R1_DEVICE if set, else CUDA where it is. `remote`: no weights, every trace runs on NDIF, with
    the key of nnsight's own configuration; "local" plays NDIF on weights that are here."""
    from nnsight import CONFIG, TransformersModel  # after the tests' type checks: it changes `object`

    if remote is True and not CONFIG.API.APIKEY:
        raise UserError("NDIF wants a key: set NDIF_API_KEY, or nnsight.CONFIG.set_default_api_key(...) once")
    folder = next((place for place in (Path(source).expanduser(), ROOT / source) if place.is_dir()), None)
    files = folder or _fetched(source, weights=remote is not True)
    config, tokenizer = _load(AutoConfig, files, trust_remote_code=False), _tokenizer(files)
    if "/" in (kernel := str(config._attn_implementation)):  # a program of the hub, put before the attention asked for
        raise UserError(f"{source} brings code of its own, the kernel {kernel}: take it out of config.json")
    own = (files / "generation_config.json").exists()
    ends = (_load(GenerationConfig, files) if own else GenerationConfig.from_model_config(config)).eos_token_id
    ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
    stops = [index for index in dict.fromkeys(ends) if index is not None]
    if remote is True:
        with embedded.quiet():  # of the revision that NDIF serves
            lm = TransformersModel(str(folder or source), tokenizer=tokenizer, task="text-generation")
    else:
        lm = _local(files, tokenizer, stops, dtype, device)
    _check_fit(source, lm._module)
    name, revision = _identity(files) if folder else (source, files.name)
    return Member(role, name, revision, lm, tokenizer, token_groups(tokenizer, stops), remote)


def _fetched(source: str, *, weights: bool) -> Path:
    """Folder of a model's files of the hub, no programs among them; of those fetched before, where it is silent."""
    kinds, silent = ["*.json", "*.jinja", *["*.safetensors"] * weights], not hub_reachable()
    how = {"allow_patterns": kinds, "ignore_patterns": ["*/*", "consolidated*"], "local_files_only": silent}
    try:
        with embedded.quiet():
            return Path(snapshot_download(source, **how))
    except Exception as error:
        why = "which does not answer" if silent else _line(error)
        said = f"cannot load {source} from the model hub ({why}), no such folder is here or in {ROOT}"
        raise UserError(f"{said}: check name and network, or use the pair smol") from error


def _identity(folder: Path) -> tuple[str, str]:
    """Name of a folder, and a hash of its weights, settings and templates."""
    if folder.parent == cache_dir():  # whose name tells what it was made from
        name, _, revision = folder.name.rpartition("-")
        return name, revision
    files = sorted(path for kind in ("safetensors", "json", "jinja") for path in folder.glob(f"*.{kind}"))
    return folder.name, sha256("".join(f"{path.name} {sha256(path)} " for path in files))[:12]


def _tokenizer(folder: Path) -> Any:
    """What tokenizer.json describes, padding, with the BOS that its settings ask for. Of R1's distilled models
    transformers 5 would take neither: some become a Llama's, which loses spaces (huggingface/transformers#45488)."""
    tokenizer = _load(PreTrainedTokenizerFast, folder, trust_remote_code=False)
    asked = get_tokenizer_config(folder).get("add_bos_token") and tokenizer.bos_token_id is not None
    if asked and tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        tokenizer.add_bos_token = True
    if lost := lost_mark(tokenizer):
        raise UserError(f"{folder}: its tokenizer has {lost} but reads it as others in a text: fetch tokenizer.json")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def _local(folder: Path, tokenizer: Any, stops: list[int], dtype: torch.dtype | None, device: str | None) -> Any:
    """A model with its weights, which decodes greedily; on a GPU in 16 bits, float16 only where logits are finite."""
    from nnsight import TransformersModel

    device = str(device or os.environ.get("R1_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device!r} here ({_line(error)}): use cpu, or None for the best") from error
    several = device == "cuda" and torch.cuda.device_count() > 1
    if dtype is None and device.startswith("cuda"):
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    place = "auto" if several else device
    model = _whole(folder, dtype or torch.float32, place)
    if dtype == torch.float16 and not _is_finite(model, tokenizer):
        del model
        model = _whole(folder, torch.float32, place)
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)
    model.config.use_cache = True  # training with checkpoints leaves it off
    pack_linears(model)
    with embedded.quiet():
        lm = TransformersModel(model, tokenizer=tokenizer, task="text-generation")
    if not several:
        model.to(device)  # the wrapper moves a model to the first GPU, whatever was asked for
    return lm


def _whole(folder: Path, dtype: torch.dtype, place: str) -> Any:
    """A model all of whose weights are in its files, and all of whose files' weights are in it: transformers would make
    up those that are not, leave out those that it has no place for, and put an adapter that lies beside on top."""
    how = {"use_safetensors": True, "trust_remote_code": False, "attn_implementation": "sdpa"}
    model, loaded = _load(AutoModelForCausalLM, folder, dtype=dtype, device_map=place, output_loading_info=True, **how)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"{folder} holds an adapter beside weights: take it away if it is merged, else merge it (peft)")
    for verb, kind in (("hold", "unexpected_keys"), ("lack", "missing_keys")):
        if wrong := sorted(loaded[kind]):
            raise UserError(f"the weights of {folder} {verb} {wrong[0]}, against config.json: fetch or save them again")
    return model.requires_grad_(False).eval()


def _is_finite(model: Any, tokenizer: Any) -> bool:
    ids = tokenizer("What is the capital of France?", return_tensors="pt").to(model.device)
    return bool(torch.isfinite(model(**ids).logits).all())


def _check_fit(source: str, model: Any) -> None:
    """Raise UserError for an architecture that the helpers cannot read."""
    names = {name for name, _ in model.named_modules()}
    needed = {f"model.layers.{k}.{part}" for k in range(model.config.num_hidden_layers) for part in PARTS}
    if not {"model.norm", "model.embed_tokens", "lm_head", *needed} <= names:
        raise UserError(f"{source} is a {model.config.model_type} model: choose one built like Llama or Qwen2")


def _load(factory: Any, folder: Path, **options: Any) -> Any:
    """`from_pretrained` whose failures are one line that says what to do."""
    try:
        with embedded.quiet():
            return factory.from_pretrained(folder, **options)
    except Exception as error:
        raise UserError(_advice(folder, error)) from error


def _advice(folder: Path, error: Exception) -> str:
    files = sorted(path for kind in ("safetensors", "json") for path in folder.glob(f"*.{kind}"))
    if pointer := next((path.name for path in files if path.open("rb").read(23) == b"version https://git-lfs"), None):
        return f"{pointer} is a Git LFS pointer, not the file itself: run `git lfs pull` in {folder}"
    if "trust_remote_code" in str(error):
        return f"{folder} brings code of its own, which is never run here: choose a model that transformers knows"
    return f"{folder} does not load ({_line(error)}): it needs config.json, tokenizer.json and weights in safetensors"


def _line(error: Exception) -> str:
    """The beginning of a library's message, as one line."""
    return " ".join(str(error).split())[:240] or type(error).__name__


guarded(globals())
