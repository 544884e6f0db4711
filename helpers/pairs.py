# SPDX-License-Identifier: MIT
"""Which two models, and how each is loaded: embedded, from the hub, or from local folders."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
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
PARTS = (  # of a layer, as Llama and Qwen2 name them
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip
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
        one, two = (member.config for member in pair.members)
        if one.model_type != two.model_type or one.vocab_size != two.vocab_size:
            seen = " and ".join(f"{config.model_type} of {config.vocab_size} tokens" for config in (one, two))
            raise UserError(f"{seen} are not a pair: choose two of one architecture and vocabulary")
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
    that a cell may run twice. Options go to `load_member`: dtype, device, attention ("eager" where weights are needed),
    remote. Raises UserError for an unknown name, an unreachable hub or a broken cache."""
    chosen: str | tuple[str, ...] = parse_pair(name) if isinstance(name, str) else tuple(map(str, name))
    if chosen == "auto":
        chosen, why = choose_pair()
        print(f"pair {pair_name(chosen)}: {why}")
    sources = _sources(chosen)
    check_lengths(**{f"names in {name}": sources, "models of a pair": ("base", "distilled")})
    files = [path for source in sources if (folder := _folder(source)) for path in sorted(folder.glob("*"))]
    state = [f"{path} {path.stat().st_mtime_ns}" for path in files]
    key = pair_name(chosen), sources, state, os.environ.get("R1_DEVICE"), sorted(options.items())
    if _last.get("key") != key:
        _last.clear()  # before the next is loaded
        _last.update(pair=Pair.of(*sources, name=pair_name(chosen), **options), key=key)
    return _last["pair"]


_last: dict[str, Any] = {}  # the pair that was loaded last, and what it was loaded from


def _sources(chosen: str | tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(chosen, tuple) or chosen in HUB:
        return HUB.get(chosen, chosen)
    pair = chosen if chosen in embedded.SOURCES else "smol"
    base, distilled = str(embedded.base_folder(pair)), str(embedded.distilled_folder(pair=pair))
    return {"null": (base, base), "swapped": (distilled, base)}.get(chosen, (base, distilled))


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


def choose_pair() -> tuple[str | tuple[str, ...], str]:
    """What `auto` means here: r1-1.5b with CUDA and the hub, else smol."""
    if not torch.cuda.is_available():
        return "smol", "no CUDA device here, so the embedded pair"
    if not hub_reachable():
        return "smol", "the model hub cannot be reached, so the embedded pair"
    return "r1-1.5b", "CUDA and the model hub are there"


def hub_reachable(seconds: float = 3.0) -> bool:
    """Whether the hub (huggingface.co, or HF_ENDPOINT) answers; false when HF_HUB_OFFLINE is set."""
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # of two HTTP libraries, as huggingface_hub's versions have them
        return False
    return True


def load_member(
    role: str,
    source: str,
    *,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    attention: str = "sdpa",
    remote: bool | str = False,
) -> Member:
    """Load one model from a folder or the hub: safetensors only, no remote code. `device`: R1_DEVICE if set, else CUDA
    where it is. `remote`: no weights, every trace runs on NDIF, with the key of nnsight's own configuration; "local"
    plays NDIF on weights that are here."""
    from nnsight import CONFIG  # after the tests' type checks: it changes `object`

    if remote not in (True, False, "local"):
        raise UserError(f"unknown remote {remote!r}: choose True, 'local' or False")
    if remote is True and not CONFIG.API.APIKEY:
        raise UserError("NDIF wants a key: set NDIF_API_KEY, or nnsight.CONFIG.set_default_api_key(...) once")
    folder = _folder(source)
    files = folder or _fetched(source, weights=remote is not True)
    config, tokenizer = _load(AutoConfig, files, trust_remote_code=False), _tokenizer(files)
    if "/" in (kernel := str(config._attn_implementation)):  # a program of the hub, put before the attention asked for
        raise UserError(f"{source} brings code of its own, the kernel {kernel}: take it out of config.json")
    if remote is True:
        lm, stops = _remote(str(folder or source), files, tokenizer)
    else:
        lm, stops = _local(files, tokenizer, dtype, device, attention)
    name, revision = _identity(files) if folder else (source, files.name)
    return Member(role, name, revision, lm, tokenizer, token_groups(tokenizer, stops), remote)


def _folder(source: str) -> Path | None:
    """A folder: from here, from the project's root, or from home."""
    places = (Path(source).expanduser(), ROOT / source)
    return next((place for place in places if place.is_dir()), None)


def _fetched(source: str, *, weights: bool) -> Path:
    """Folder of a model's files of the hub, no programs among them; of those fetched before, where it is silent."""
    hooks = get_session().event_hooks["request"]
    hooks += [_limit_waiting] * (_limit_waiting not in hooks)
    kinds = ["*.json", "*.jinja", *["*.safetensors"] * weights]
    try:
        with embedded.quiet():
            return Path(snapshot_download(source, allow_patterns=kinds, ignore_patterns=["*/*", "consolidated*"]))
    except Exception as error:
        said = f"cannot load {source} from the model hub ({_line(error)}), no such folder is here or in {ROOT}"
        raise UserError(f"{said}: check name and network, or use the pair smol") from error


def _limit_waiting(request: Any) -> None:
    """Some questions to the hub would wait for ever where a network is cut after connecting."""
    longest = max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), longest)


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
    if not (folder / "tokenizer.json").exists():
        made = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        raise UserError(f"{folder} has no tokenizer.json: fetch it, or make it from the slow one's files ({made})")
    tokenizer = _load(PreTrainedTokenizerFast, folder, trust_remote_code=False)
    asked = get_tokenizer_config(folder).get("add_bos_token") and tokenizer.bos_token_id is not None
    if asked and tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        tokenizer.add_bos_token = True
    if lost := lost_mark(tokenizer):
        raise UserError(f"{folder}: its tokenizer has {lost} but reads it as others in a text: fetch tokenizer.json")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def _remote(source: str, files: Path, tokenizer: Any) -> tuple[Any, list[int]]:
    """A model without weights, whose traces run on NDIF, and what ends its texts."""
    from nnsight import TransformersModel

    with embedded.quiet():
        lm = TransformersModel(source, tokenizer=tokenizer, task="text-generation")  # of the revision that NDIF serves
    _check_fit(source, lm._module, tokenizer)
    own = (files / "generation_config.json").exists()
    generation = _load(GenerationConfig, files) if own else GenerationConfig.from_model_config(lm._module.config)
    return lm, _eos_ids(generation, tokenizer)


def _local(
    folder: Path, tokenizer: Any, dtype: torch.dtype | None, device: str | None, attention: str
) -> tuple[Any, list[int]]:
    """A model with its weights, and what ends its texts."""
    from nnsight import TransformersModel

    device = str(device or os.environ.get("R1_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device!r} here ({_line(error)}): use cpu, or None for the best") from error
    several = device == "cuda" and torch.cuda.device_count() > 1
    if dtype is None and device.startswith("cuda"):
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    how = {"device_map": "auto" if several else device, "use_safetensors": True, "attn_implementation": attention}
    model = _whole(folder, dtype=dtype or torch.float32, **how).requires_grad_(False).eval()
    if dtype == torch.float16 and not _is_finite(model, tokenizer):
        del model
        model = _whole(folder, dtype=torch.float32, **how).requires_grad_(False).eval()
    _check_fit(str(folder), model, tokenizer)
    stops = _eos_ids(model.generation_config, tokenizer)
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)  # greedy
    model.config.use_cache = True  # training with checkpoints leaves it off
    pack_linears(model)
    with embedded.quiet():
        lm = TransformersModel(model, tokenizer=tokenizer, task="text-generation")
    if not several:
        model.to(device)  # the wrapper moves a model to the first GPU, whatever was asked for
    return lm, stops


def _whole(folder: Path, **how: Any) -> Any:
    """A model all of whose weights are in its files, and all of whose files' weights are in it: transformers would make
    up those that are not, leave out those that it has no place for, and put an adapter that lies beside on top."""
    model, loaded = _load(AutoModelForCausalLM, folder, trust_remote_code=False, output_loading_info=True, **how)
    missing, other = sorted(loaded["missing_keys"]), sorted(loaded["unexpected_keys"])
    other = [name for name in other if not name.endswith("rotary_emb.inv_freq")]  # of old files, computed anew
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"{folder} holds an adapter beside weights: take it away if it is merged, else merge it (peft)")
    if wrong := other or missing:
        verb = "hold" if other else "lack"
        raise UserError(f"the weights of {folder} {verb} {wrong[0]}, against config.json: fetch or save them again")
    return model


def _check_fit(source: str, model: Any, tokenizer: Any) -> None:
    """Raise UserError for an architecture that the helpers cannot read, or another model's tokenizer."""
    names = {name for name, _ in model.named_modules()}
    needed = {f"model.layers.{k}.{part}" for k in range(model.config.num_hidden_layers) for part in PARTS}
    if not {"model.norm", "model.embed_tokens", "lm_head", *needed} <= names:
        raise UserError(f"{source} is a {model.config.model_type} model: choose one built like Llama or Qwen2")
    highest, n_vocab = max(tokenizer.get_vocab().values()), model.lm_head.weight.shape[0]
    if highest >= n_vocab or len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise UserError(f"{source}: its tokenizer has ids to {highest}, its weights {n_vocab} rows: restore its own")


def _is_finite(model: Any, tokenizer: Any) -> bool:
    ids = tokenizer("What is the capital of France?", return_tensors="pt").to(model.device)
    return bool(torch.isfinite(model(**ids).logits).all())


def _eos_ids(generation: GenerationConfig, tokenizer: Any) -> list[int]:
    ids = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    return [index for index in dict.fromkeys([*ids, tokenizer.eos_token_id]) if index is not None]


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
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        return f"{folder} is an adapter alone: merge it into its base (peft's merge_and_unload) and save both"
    return f"{folder} does not load ({_line(error)}): it needs config.json, a tokenizer and weights in safetensors"


def _line(error: Exception) -> str:
    """The beginning of a library's message, as one line."""
    return " ".join(str(error).split())[:240] or type(error).__name__


guarded(globals())
