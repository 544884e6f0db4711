# SPDX-License-Identifier: MIT
"""One model of a pair: its traces, its prompts, and checks of what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from jinja2 import TemplateError
from torch import Tensor
from transformers import BatchEncoding

from helpers.checks import check_choice, check_count, check_index
from helpers.store import UserError
from helpers.tokens import THINK, TokenGroups

QUESTION = "Question: {}\nAnswer:"  # the template form of a model that has no chat template, as many base models
T = TypeVar("T")


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

    @property
    def model(self) -> torch.nn.Module:
        """The transformers model inside nnsight's wrapper. Raises UserError for a remote one."""
        if self.remote:
            raise UserError(f"{self.source} is remote, but this needs its weights here: load_pair without remote")
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
        with torch.set_grad_enabled(grad), lm.trace(**batch, **how) as tracer:
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
    def unembedding(self) -> Float[Tensor, "vocab d_model"]:
        """Weight of the head."""
        return self.model.lm_head.weight

    @property
    def norm_weight(self) -> Float[Tensor, " d_model"]:
        """Weight of the final norm, on the head's device."""
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
        return [*self.tokenizer.all_special_tokens, *added]

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
        asked as `QUESTION` says. Raises UserError for an empty text, or a special token inside it."""
        self.check([text])
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

    def encode(self, prompts: list[str], *, room: int = 0) -> BatchEncoding:
        """Left-padded token ids and mask, nothing added; `room` tokens must still fit behind them."""
        self.check(prompts)
        how = {"add_special_tokens": False, "padding": True, "padding_side": "left", "return_tensors": "pt"}
        encoded = self.tokenizer(prompts, **how)
        longest, most = encoded["input_ids"].shape[1], self.config.max_position_embeddings
        if longest + room > most:
            raise UserError(f"a prompt has {longest} tokens and {room} are to come, more than {most}: shorten it")
        return encoded.to(self.device)

    def check(self, prompts: list[str]) -> None:
        """Raise UserError where there is nothing to read, or no text."""
        if isinstance(prompts, str) or not len(prompts):
            raise UserError(f"{prompts!r:.20} was given where prompts are a list of texts: write [text]")
        for k, text in enumerate(prompts):
            if not isinstance(text, str) or not text.strip() or re.search("[\ud800-\udfff]", text):
                raise UserError(f"prompt {k} is {text!r:.40}: give a text, neither empty nor with half a character")

    def check_ids(self, token_ids: Sequence[int]) -> None:
        """Raise UserError for no tokens, or one outside the vocabulary."""
        check_count(len(token_ids), "tokens")
        check_index(token_ids, "token", self.n_vocab)

    def check_heads(self, heads: Sequence[tuple[int, int]]) -> None:
        """Raise UserError for no heads, or a (layer, head) that the model does not have."""
        check_count(len(heads), "heads")
        self.check_layers(layer for layer, _ in heads)
        check_index((head for _, head in heads), "head", self.config.num_attention_heads)

    def check_layers(self, layers: Iterable[int]) -> None:
        """Raise UserError for a layer that is not there."""
        check_index(layers, "layer", self.n_layers)

    def check_width(self, vectors: Tensor, what: str) -> None:
        """Raise UserError for vectors of another width, or with a number that is not finite."""
        width = self.config.hidden_size
        if vectors.shape[-1:] != (width,):
            raise UserError(f"{what}: a vector of {tuple(vectors.shape[-1:])}, {self.source} has {width}")
        if not torch.isfinite(vectors).all():
            raise UserError(f"{what}: some numbers are not finite: look for NaN in what they come from")
