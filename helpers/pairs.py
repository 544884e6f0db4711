# SPDX-License-Identifier: MIT
"""Which two models, and how each is loaded: embedded, from the hub, or from local folders."""

from __future__ import annotations

import os
import re
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory
from jinja2 import TemplateError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BatchEncoding,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from helpers import embedded
from helpers.checks import check_choice, check_lengths, guarded
from helpers.fast import pack_linears
from helpers.store import ROOT, UserError, cache_dir, sha256
from helpers.tokens import THINK, TokenGroups, lost_mark, token_groups

warnings.filterwarnings("ignore", message=".*was never reached")  # how nnsight says that an edit's loop has ended
# transformers would ask a service to convert a repository of pickles, in the user's name, and load what that wrote
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

HUB = {
    "r1-1.5b": ("Qwen/Qwen2.5-Math-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
    "r1-7b": ("Qwen/Qwen2.5-Math-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
    "r1-8b": ("meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    "r1-14b": ("Qwen/Qwen2.5-14B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"),
    "r1-32b": ("Qwen/Qwen2.5-32B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"),
    "r1-70b": ("meta-llama/Llama-3.3-70B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"),
}
SET_ASIDE = {  # of a generation config: sampling and lengths, which the study sets itself, and what changes no token
    "do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "max_length",
    "max_new_tokens", "use_cache", "cache_implementation", "eos_token_id", "bos_token_id", "pad_token_id",
    "decoder_start_token_id", "transformers_version", "output_attentions", "output_hidden_states", "output_scores",
    "return_dict_in_generate", "num_return_sequences", "_from_model_config",
}  # fmt: skip
QUESTION = "Question: {}\nAnswer:"  # the template form of a model that has no chat template, as many base models
CONTROLS = ("null", "swapped")  # of the embedded pair: its base twice, and its two roles exchanged
EMBEDDED = ("smol", *CONTROLS)
NAMES = ("auto", *EMBEDDED, *HUB)
T = TypeVar("T")


def _hub_client() -> Any:
    """The hub's own client, some of whose questions would wait for ever where the network is cut after connecting."""
    client = default_client_factory()
    client.event_hooks["request"].append(_limit_waiting)
    client.event_hooks["response"].append(lambda response: _unanswered.pop(str(response.request.url), None))
    return client


_unanswered: Counter[str] = Counter()  # how often what is known of a file was asked for in vain


def _limit_waiting(request: Any) -> None:
    """No question waits for longer than HF_HUB_ETAG_TIMEOUT, and none about a file is asked a third time in vain; a
    download that stalls or is cut goes on where it was, five times."""
    limits, longest, url = request.extensions.get("timeout", {}), constants.HF_HUB_ETAG_TIMEOUT, str(request.url)
    if request.method == "HEAD":
        if _unanswered[url] == 2:
            del _unanswered[url]
            raise OSError(f"no answer about {url} in {longest} seconds, asked twice")
        _unanswered[url] += 1
        limits = {}
    names = ("connect", "read", "write", "pool")
    request.extensions["timeout"] = {name: limits.get(name) or longest for name in names}


set_client_factory(_hub_client)


@dataclass
class Member:
    """One model of a pair: the nnsight model, its tokenizer and what is known about both. `remote`: its weights are on
    an NDIF server and every trace runs there; "local" has nnsight play the server on weights that are here."""

    role: str
    source: str
    revision: str
    lm: Any
    tokenizer: Any
    groups: TokenGroups
    remote: bool | str = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def model(self) -> torch.nn.Module:
        """The transformers model inside nnsight's wrapper. Raises UserError for a remote one, whose weights are not
        here."""
        if self.remote:
            raise UserError(
                f"{self.source} is remote and its weights are not here: what compares, swaps or searches weights, and "
                "attention patterns, need load_pair without remote"
            )
        return self.lm._module

    def at_weights(self, work: Callable[..., T], *given: Any) -> T:
        """`work(transformers model, *given)`, computed where the weights are: here, or in a remote trace of one token
        from which only the result comes back. `work` is a plain function: it must know nothing of this member."""
        if not self.remote:
            return work(self.model, *given)
        return self.traced(self.encode(["a"]), lambda lm: work(lm._module, *given))

    def traced(
        self, batch: Mapping[str, Any], read: Callable[[Any], T], *, lm: Any = None, grad: bool = False, **how: Any
    ) -> T:
        """What `read(nnsight model)` takes from one forward pass, which stops where it ends: a tensor, or tensors in a
        list or dict. It reads and edits modules in the order in which they run, and clones what it slices: a slice
        keeps the whole tensor. `lm`: an edited nnsight model; `grad`: for gradients."""
        lm, how = lm or self.lm, {"use_cache": False, "remote": self.remote, **how}
        with self.lock, torch.set_grad_enabled(grad), lm.trace(**batch, **how) as tracer:
            with torch.set_grad_enabled(grad):  # a server's own setting is another
                found = read(lm)
            found.save()
            tracer.stop()
        return found

    @property
    def config(self) -> Any:
        return self.lm._module.config

    @property
    def n_layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def max_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def dtype(self) -> torch.dtype:
        return self.lm._module.lm_head.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where results are: the head's device, or the CPU for a remote model."""
        return torch.device("cpu") if self.remote else self.unembedding.device

    @property
    def n_vocab(self) -> int:
        """Rows of the head, which may be more than the tokenizer has words."""
        return self.lm._module.lm_head.weight.shape[0]

    @property
    def unembedding(self) -> torch.Tensor:
        """Weight of the head, [vocab, d_model]."""
        return self.model.lm_head.weight

    @property
    def norm_weight(self) -> torch.Tensor:
        """Weight of the final norm, [d_model], on the head's device."""
        return self.at_weights(lambda model: model.model.norm.weight.detach()).to(self.device)

    @property
    def tied(self) -> bool:
        """Whether head and embedding are one tensor, read off the loaded weights."""
        return self.unembedding.data_ptr() == self.model.get_input_embeddings().weight.data_ptr()

    @cached_property
    def bos(self) -> str:
        """The mark this tokenizer puts before plain text by itself, or nothing."""
        ids = self.tokenizer("a").input_ids
        return self.tokenizer.bos_token if ids[:1] == [self.tokenizer.bos_token_id] else ""

    @cached_property
    def special_marks(self) -> list[str]:
        """Texts that this tokenizer reads as a mark of its own, those without a role among them."""
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return [*dict.fromkeys([*self.tokenizer.all_special_tokens, *added])]

    @property
    def thinks(self) -> bool:
        """Whether it knows the think tags, so that its template opens a thought."""
        return self.groups.end_think is not None

    @property
    def identity(self) -> str:
        """Model and revision, as results record them."""
        return f"{self.source}@{self.revision}"

    def prompt(self, text: str, form: str) -> str:
        """The text a model sees: plain (with its own BOS) or its chat template, thought opened; a base without one is
        asked as `QUESTION` says. Raises UserError for an empty text, or a special token inside it.
        """
        if not text.strip():
            raise UserError(f"an empty prompt was given ({text!r}): write a question")
        if mark := next((mark for mark in self.special_marks if mark in text), None):
            raise UserError(f"the prompt contains the special token {mark}: write it another way")
        check_choice(form, "form", ("plain", "template"))
        if form == "plain":
            return self.bos + text
        if not self.tokenizer.chat_template:
            return self.bos + QUESTION.format(text)
        chat = [{"role": "user", "content": text}]
        try:
            filled = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:  # it is a program of the model's, run in a sandbox
            raise UserError(f"{self.source}: its chat template fails ({error}): use the plain form") from error
        _, asked, tail = filled.rpartition(text.strip())
        if not asked:
            raise UserError(f"{self.source}: its chat template leaves out what is asked: use the plain form")
        return filled if not self.thinks or THINK[0] in tail else f"{filled}{THINK[0]}\n"

    def check(self, prompts: list[str]) -> None:
        """Raise UserError where there is nothing to read, or no text."""
        if isinstance(prompts, str):
            raise UserError(f"one text was given, {prompts[:20]!r}, where prompts are a list: write [text]")
        if not len(prompts):
            raise UserError("no prompts were given: pass at least one")
        if wrong := [i for i, prompt in enumerate(prompts) if not isinstance(prompt, str)]:
            raise UserError(f"prompt {wrong[0]} is {prompts[wrong[0]]!r}: give a text")
        if empty := [i for i, prompt in enumerate(prompts) if not prompt.strip()]:
            raise UserError(f"prompt {empty[0]} is empty: write a question")
        if halves := [i for i, prompt in enumerate(prompts) if re.search("[\ud800-\udfff]", prompt)]:
            raise UserError(
                f"prompt {halves[0]} is no text, {prompts[halves[0]][:20]!r}: it holds half a character, take it out"
            )

    def check_ids(self, token_ids: Sequence[int]) -> None:
        """Raise UserError for no tokens, or one outside the vocabulary."""
        n_vocab = self.n_vocab
        known = [isinstance(index, Integral) and 0 <= index < n_vocab for index in token_ids]
        if not known or not all(known):
            raise UserError(
                f"token ids {list(token_ids)[:5]}: give at least one, each from 0 to {n_vocab - 1} "
                "(a word that is not one token has none)"
            )

    def check_heads(self, heads: Sequence[tuple[int, int]]) -> None:
        """Raise UserError for a (layer, head) that the model does not have."""
        shape = self.n_layers, self.config.num_attention_heads
        if not len(heads):
            raise UserError("no heads were given: name at least one (layer, head)")
        if wrong := [at for at in heads if not (0 <= at[0] < shape[0] and 0 <= at[1] < shape[1])]:
            raise UserError(f"no head {wrong[0]}: {self.source} has {shape[0]} layers of {shape[1]} heads")

    def check_layers(self, layers: Iterable[int], *, points: bool = False) -> None:
        """Raise UserError for a layer that is not there; `points`: the place after the last layer counts too."""
        if wrong := [layer for layer in layers if not 0 <= layer < self.n_layers + points]:
            raise UserError(f"no layer {wrong[0]}: {self.source} has 0 to {self.n_layers - 1}")

    def check_width(self, vectors: torch.Tensor, what: str) -> None:
        """Raise UserError for vectors of another width, or with a number that is not finite."""
        width = self.config.hidden_size
        if vectors.shape[-1:] != (width,):
            raise UserError(f"{what}: a vector of {tuple(vectors.shape[-1:])}, {self.source} has {width}")
        if not torch.isfinite(vectors).all():
            raise UserError(f"{what}: some numbers are not finite: look for NaN in what they come from")

    def encode(self, prompts: list[str], *, room: int = 0) -> BatchEncoding:
        """Left-padded token ids and mask, nothing added; `room` tokens must still fit behind them."""
        self.check(prompts)
        encoded = self.tokenizer(
            prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )
        longest = encoded["input_ids"].shape[1]
        if longest + room > self.max_length:
            raise UserError(
                f"a prompt has {longest} tokens and {room} more are asked for, but {self.source} reads at most "
                f"{self.max_length}: shorten it"
            )
        return encoded.to(self.device)


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
            raise UserError(
                f"{base} ({one.model_type}, {one.vocab_size} tokens) and {distilled} ({two.model_type}, "
                f"{two.vocab_size} tokens) are not a pair: choose two of one architecture and vocabulary"
            )
        if name not in EMBEDDED and not any(member.remote for member in pair.members):
            from helpers.preflight import refuse_unequal  # which reads models, and so needs this module

            for member in pair.members:
                refuse_unequal(member)
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
    """A pair by its name in the registry, or of two folders or hub ids. `auto` says which it took and why. What was
    loaded last is given again, so that a cell may run twice.

    Options go to `load_member`: dtype, device, attention ("eager" where weights are needed), remote.
    Raises UserError for an unknown name, an unreachable hub or a broken cache.
    """
    if not isinstance(name, str | list | tuple):
        raise UserError(f"a pair was named by {name!r}: give a name, or two folders or hub ids")
    chosen: str | tuple[str, ...] = tuple(name) if not isinstance(name, str) else parse_pair(name)
    if chosen == "auto":
        chosen, why = choose_pair()
        print(f"pair {pair_name(chosen)}: {why}")
    if chosen in EMBEDDED:
        first = embedded.distilled_folder() if chosen == "swapped" else embedded.base_folder()
        second = embedded.distilled_folder() if chosen == "smol" else embedded.base_folder()
        sources = str(first), str(second)
    else:
        sources = HUB[chosen] if isinstance(chosen, str) else tuple(map(str, chosen))
    check_lengths(**{f"names in {name}": sources, "models of a pair": ("base", "distilled")})
    key = pair_name(chosen), *map(_state, sources), os.environ.get("R1_DEVICE"), sorted(options.items())
    if _last.get("key") != key:
        _last.clear()  # before the next is loaded
        _last.update(pair=Pair.of(*sources, name=pair_name(chosen), **options), key=key)
    return _last["pair"]


_last: dict[str, Any] = {}  # the pair that was loaded last, and what it was loaded from


def _state(source: str) -> tuple[str, ...]:
    """A folder with what its files show without being read, or a hub id."""
    folder = Path(_found(source))
    return str(folder), *(f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(folder.glob("*")))


def parse_pair(text: str) -> str | tuple[str, ...]:
    """A name of the registry, or the two folders or hub ids that a comma parts. Raises UserError for anything else."""
    if "," in text:
        return tuple(part.strip() for part in text.split(","))
    if text not in NAMES:
        raise UserError(
            f"unknown pair {text!r}: choose one of {', '.join(NAMES)}, or BASE,DISTILLED (folders or hub ids)"
        )
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
    """Whether the hub (huggingface.co, or HF_ENDPOINT) answers on its port; false when HF_HUB_OFFLINE is set."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    try:
        socket.create_connection((hub.hostname, port), timeout=seconds).close()
    except OSError:
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
    """Load one model from a local folder or the hub: safetensors only, no remote code. `device`: R1_DEVICE if set, else
    CUDA where it is. `remote`: no weights, every trace runs on NDIF, with the key of nnsight's own configuration;
    "local" plays NDIF on weights that are here."""
    from nnsight import TransformersModel

    if remote is True:
        return _remote_member(role, source)
    if remote not in (False, "local"):
        raise UserError(f"unknown remote {remote!r}: choose True, 'local' or False")
    device = str(device or os.environ.get("R1_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
    _check_device(device)
    source = _found(source)
    revision, tokenizer, at = _begin(source)
    chosen = dtype or _best_dtype(device)
    placement = "auto" if device == "cuda" and torch.cuda.device_count() > 1 else device
    how = {"device_map": placement, "use_safetensors": True, "attn_implementation": attention, **at}
    model = _whole(source, dtype=chosen, **how)
    if chosen == torch.float16 and not _is_finite(model, tokenizer):
        del model
        model = _whole(source, dtype=torch.float32, **how)
    model.requires_grad_(False).eval()
    _check_fit(source, model, tokenizer)
    stops = _eos_ids(model.generation_config, tokenizer)
    model.generation_config = _plain_generation(source, model.generation_config, stops, tokenizer.pad_token_id)
    model.config.use_cache = True  # training with checkpoints leaves it off
    pack_linears(model)
    groups = token_groups(tokenizer, stops)
    with embedded.quiet():
        lm = TransformersModel(model, tokenizer=tokenizer, task="text-generation")
    if placement != "auto":
        model.to(device)  # the wrapper moves a model to the first GPU, whatever was asked for
    return Member(role, _label(source), revision, lm, tokenizer, groups, remote)


def _found(source: str) -> str:
    """A folder where it is: from here, from the project's root, or from home;
    anything else as it stands."""
    places = (Path(source).expanduser(), ROOT / source)
    return next((str(place) for place in places if place.is_dir()), source)


def _plain_generation(source: str, given: GenerationConfig, stops: list[int], pad: int) -> GenerationConfig:
    """Greedy decoding that ends at `stops`. What a model's own settings say of sampling and lengths is set aside; what
    else they change is refused, since the study reads logits as they are."""
    plain = GenerationConfig().to_dict()
    rules = {name: value for name, value in given.to_diff_dict().items() if name not in SET_ASIDE}
    if changed := {name: value for name, value in rules.items() if value not in (None, plain.get(name))}:
        name, value = next(iter(changed.items()))
        raise UserError(f"{source}: its generation config says {name} = {value}, but here the likeliest token is "
                        "written: take it out of generation_config.json")  # fmt: skip
    return GenerationConfig(eos_token_id=stops, pad_token_id=pad, bos_token_id=given.bos_token_id, max_new_tokens=20)


def _begin(source: str) -> tuple[str, Any, dict[str, Any]]:
    """Revision and tokenizer, which pads, of a folder or hub id; and what loads the rest of that revision."""
    at = {} if Path(source).is_dir() else {"local_files_only": not _hub_answers(source)}
    revision = _revision(source, **at)
    at = at and {**at, "revision": revision}
    _refuse_kernels(source, **at)
    tokenizer = _tokenizer(source, **at)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise UserError(f"the tokenizer of {source} names no end token: fetch its tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return revision, tokenizer, at


def _tokenizer(source: str, **at: Any) -> Any:
    """The tokenizer that tokenizer.json describes, with the BOS that its settings ask for. Of R1's distilled models
    transformers 5 would take neither: it rebuilds some of them as a Llama's, which loses spaces
    (huggingface/transformers#45488), and ignores `add_bos_token` where that file is there."""
    if Path(source).is_dir() and not (Path(source) / "tokenizer.json").exists():
        raise UserError(
            f"{source} has no tokenizer.json: fetch it, or write it from the slow tokenizer's files with "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        cached_file(source, "tokenizer.json", **at)
    except OSError as error:
        raise UserError(_advice(source, error)) from error
    tokenizer = _load(PreTrainedTokenizerFast, source, **at)
    asked = get_tokenizer_config(source, **at).get("add_bos_token") and tokenizer.bos_token_id is not None
    if asked and tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        tokenizer.add_bos_token = True
    if lost := lost_mark(tokenizer):
        raise UserError(f"{source}: its tokenizer knows {lost} as one token but reads it in a text as others: "
                        "fetch its own tokenizer.json again")  # fmt: skip
    return tokenizer


def _remote_member(role: str, source: str) -> Member:
    """A model without weights, made from its configuration, whose traces run on NDIF."""
    from nnsight import CONFIG, TransformersModel

    if not CONFIG.API.APIKEY:
        raise UserError("NDIF wants a key: set NDIF_API_KEY, or nnsight.CONFIG.set_default_api_key(...) once")
    revision, tokenizer, at = _begin(source)
    config = _load(AutoConfig, source, **at)
    try:
        generation = GenerationConfig.from_pretrained(source, **at)
    except OSError:  # no file of its own
        generation = GenerationConfig.from_model_config(config)
    with embedded.quiet():
        lm = TransformersModel(source, tokenizer=tokenizer, task="text-generation")  # of the revision that NDIF serves
    _check_fit(source, lm._module, tokenizer)
    groups = token_groups(tokenizer, _eos_ids(generation, tokenizer))
    return Member(role, _label(source), revision, lm, tokenizer, groups, True)


def _check_device(device: str) -> None:
    """Raise UserError for a device that torch does not know, or that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"no device {device!r} here ({str(error).splitlines()[0]}): use cpu, or None for the best"
        ) from error


def _refuse_kernels(source: str, **options: Any) -> None:
    """Raise UserError for a config that names a kernel of the hub: a program, put before the attention asked for."""
    if "/" in (named := str(_load(AutoConfig, source, **options)._attn_implementation)):
        raise UserError(f"{source} brings code of its own, the kernel {named}: take it out of config.json")


def _whole(source: str, **how: Any) -> Any:
    """A model all of whose weights are in its files, and all of whose files' weights are in it: transformers would make
    up those that are not, leave out those that it has no place for, and put an adapter that lies beside on top."""
    model, loaded = _load(AutoModelForCausalLM, source, output_loading_info=True, **how)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"{source} holds an adapter (adapter_config.json) beside weights: take its files away if it is "
                        "merged, else merge it (peft's merge_and_unload)")  # fmt: skip
    missing, other = sorted(loaded["missing_keys"]), sorted(loaded["unexpected_keys"])
    other = [name for name in other if not name.endswith("rotary_emb.inv_freq")]  # of old files, computed anew
    if other:
        instead = f" where {missing[0]} belongs" if missing else ""
        raise UserError(f"the weights of {source} hold {other[0]}{instead} ({len(other)} such), for which its config "
                        "has no place: save it again as the model that config.json names")  # fmt: skip
    if missing:
        raise UserError(f"the weights of {source} lack {missing[0]} ({len(missing)} in all): fetch them again, whole")
    return model


BLOCK = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}


def _check_fit(source: str, model: Any, tokenizer: Any) -> None:
    """Raise UserError for an architecture that the helpers cannot read, or another model's tokenizer."""
    names = {name for name, _ in model.named_modules()}
    parts = [f"{part}.{matrix}" for part, matrices in BLOCK.items() for matrix in matrices]
    parts += ["input_layernorm", "post_attention_layernorm"]
    needed = {f"model.layers.{k}.{part}" for k in range(model.config.num_hidden_layers) for part in parts}
    if not {"model.norm", "model.embed_tokens", "lm_head", *needed} <= names:
        raise UserError(f"{source} is a {model.config.model_type} model: choose one built like Llama or Qwen2")
    highest, n_vocab = max(tokenizer.get_vocab().values()), model.lm_head.weight.shape[0]
    if highest >= n_vocab:
        raise UserError(f"{source}: its tokenizer has ids to {highest}, its weights {n_vocab} rows: restore its own")
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise UserError(f"{source}: its tokenizer has no words: restore tokenizer.json")


def _load(factory: Any, source: str, **options: Any) -> Any:
    """`from_pretrained` whose failures are one line."""
    try:
        with embedded.quiet():
            return factory.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:
        if not _looks_like_loading(error):
            raise
        raise UserError(_advice(source, error)) from error


def _looks_like_loading(error: Exception) -> bool:
    known = isinstance(error, (OSError, ValueError, KeyError, ImportError))
    return known or any(word in type(error).__name__ for word in ("Safetensor", "Validation", "Unpickling"))


def _advice(source: str, error: Exception) -> str:
    cause = error.__cause__ if "If you were trying to load it" in str(error) else None  # that says nothing of why
    told = re.sub(r":\n\s*", ": ", str(cause or error).strip())
    said = told.splitlines()[0] if told else type(error).__name__
    said = said if len(said) <= 160 else f"{said[:160]}..."
    if "Unpickling" in type(error).__name__:
        said = "its weights are pickles, which may hold programs"
    if "trust_remote_code" in str(error):
        return f"{source} brings code of its own, which is never run here: choose a model that transformers knows"
    if pointer := _pointer(Path(source)):
        return f"{pointer} is a Git LFS pointer, not the file itself: run `git lfs pull` in {source}"
    if (Path(source) / "adapter_config.json").exists() and not (Path(source) / "config.json").exists():
        return f"{source} is an adapter alone: merge it into its base (peft's merge_and_unload) and save both"
    if str(cache_dir()) in source:
        return f"the converted weights in {source} do not load ({said}): delete that folder and try again"
    if Path(source).is_dir():
        return f"{source} does not load ({said}): it needs config.json, a tokenizer and weights in safetensors"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
        return f"there is no folder {source}, and it is no name on the model hub: check the path"
    nor = "" if any(source in pair for pair in HUB.values()) else f", and there is no such folder here or in {ROOT}"
    return f"cannot load {source} from the model hub ({said}){nor}: check name and network, or use the pair smol"


def _pointer(folder: Path) -> str | None:
    """A file of a folder that Git LFS left a pointer to."""
    files = sorted(path for kind in ("safetensors", "json") for path in folder.glob(f"*.{kind}"))
    heads = {path.name: path.open("rb").read(40) for path in files}
    return next((name for name, head in heads.items() if head.startswith(b"version https://git-lfs")), None)


def _hub_answers(source: str) -> bool:
    """Whether the hub answers in time when asked about a model: where it does not, what was loaded before serves.
    Asked once, since every file would be asked for again and again, for minutes."""
    _unanswered.clear()
    try:
        HfApi().model_info(source, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HfHubHTTPError:
        return True  # it has no such model, or wants a key: loading says which
    except Exception:
        return False
    return True


def _revision(source: str, **options: Any) -> str:
    """Commit of a hub repository, or a hash of a local folder's weights, settings and templates."""
    folder = Path(source)
    if folder.is_dir():
        if folder.parent == cache_dir():
            return folder.name.rpartition("-")[2]
        files = sorted(path for kind in ("safetensors", "json", "jinja") for path in folder.glob(f"*.{kind}"))
        return sha256("".join(f"{path.name} {sha256(path)} " for path in files))[:12]
    _load(AutoConfig, source, **options)  # tells what is wrong with a name
    return extract_commit_hash(cached_file(source, "config.json", **options), None) or "main"


def _label(source: str) -> str:
    folder = Path(source)
    if folder.is_dir() and folder.parent == cache_dir():
        return folder.name.rpartition("-")[0]
    return folder.name if folder.is_dir() else source


def _best_dtype(device: str) -> torch.dtype:
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _is_finite(model: Any, tokenizer: Any) -> bool:
    ids = tokenizer("What is the capital of France?", return_tensors="pt").to(model.device)
    with torch.no_grad():
        return bool(torch.isfinite(model(**ids).logits).all())


def _eos_ids(generation: GenerationConfig, tokenizer: Any) -> list[int]:
    named = generation.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return [index for index in dict.fromkeys([*ids, tokenizer.eos_token_id]) if index is not None]


guarded(globals())
