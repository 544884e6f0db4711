# SPDX-License-Identifier: MIT
"""Ways to make a model wait or stop: biased tokens and vectors added to the stream, and where such vectors come from:
keyword contrasts, heads (function vectors), latents of a sparse autoencoder. A vector of a layer is added to that
layer's output. What acts on one row of a batch is a `Steering`, so that a whole sweep is one generation."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import LogitsProcessor

from helpers.checks import check_choice, check_finite, guarded
from helpers.generation import Change, Completion, in_memory
from helpers.pairs import CONTROLS, Member
from helpers.readouts import Ids, last_hidden
from helpers.store import ROOT, UserError, read_json, sha256
from helpers.tokens import KEYWORDS, keyword_pattern
from helpers.weights import edited_model

ROWS = 512  # states that an autoencoder reads at once: 128 MiB of activations where there are 65,536 latents
# where a vector is added: weights of the prompt but its last token, of that one, and of generated tokens
WEIGHTS = {"all": (1, 1, 1), "prompt": (1, 1, 0), "last": (0, 1, 0), "generated": (0, 0, 1)}
Spot = tuple[int, int]  # which text, which of its tokens
AUTOENCODERS = {
    **dict.fromkeys(("smol", *CONTROLS), ("data/smol/autoencoder", "layers.18")),
    "r1-1.5b": ("EleutherAI/sae-DeepSeek-R1-Distill-Qwen-1.5B-65k", "layers.14.mlp"),
}


@dataclass(frozen=True)
class Steering:
    """What is done to one row: `strength` times a vector a layer, at some positions (see WEIGHTS), and logits of tokens
    raised by `bias`."""

    name: str
    vectors: Mapping[int, Float[Tensor, " d_model"]] = field(default_factory=dict)
    strength: float = 1.0
    where: str = "all"
    bias: Mapping[int, float] = field(default_factory=dict)

    def at(self, strength: float) -> Steering:
        """The same at another strength, biases times it."""
        return replace(self, strength=strength, bias={token: strength * value for token, value in self.bias.items()})

    @cached_property
    def key(self) -> str:
        """Name, strength, positions and a digest of the vectors to two digits, which survives another machine's
        rounding: what tells stored rows apart."""
        rounded = {
            layer: (50 * vector.float().cpu() / vector.abs().max().clamp(min=1e-12).cpu()).round().int().tolist()
            for layer, vector in sorted(self.vectors.items())
        }
        sizes = {layer: f"{float(vector.norm()):.2g}" for layer, vector in sorted(self.vectors.items())}
        digest = sha256(f"{rounded} {sizes} {sorted(self.bias.items())}")[:8]
        return f"{self.name} x{self.strength:g} {self.where} {digest}"


NOTHING = Steering("nothing", strength=0.0)


class _Rows(LogitsProcessor):
    """What the rows of a batch get, a single steering every row; also the logits processor that adds their biases.
    `reading`: nothing is generated."""

    def __init__(self, member: Member, steerings: Sequence[Steering], *, reading: bool = False) -> None:
        for steering in steerings:
            check_choice(steering.where, "positions", WEIGHTS)
            check_finite(steering.strength + sum(steering.bias.values()), f"{steering.name}: strength or a bias")
            member.check_layers(steering.vectors)
            for vector in steering.vectors.values():
                member.check_width(vector, steering.name)
            if steering.bias:
                member.check_ids(list(steering.bias))
        on, zero = {"device": member.device, "dtype": member.dtype}, torch.zeros(member.config.hidden_size)
        self.vectors = {
            layer: torch.stack([s.strength * s.vectors.get(layer, zero).float().cpu() for s in steerings]).to(**on)
            for layer in sorted({layer for steering in steerings for layer in steering.vectors})
        }
        self.weights, self.reading = torch.tensor([WEIGHTS[s.where] for s in steerings], **on), reading
        self.tokens = sorted({token for s in steerings for token in s.bias})
        biases = [[s.bias.get(token, 0.0) for token in self.tokens] for s in steerings]
        self.biases = torch.tensor(biases, device=member.device, dtype=torch.float32)

    def lm(self, member: Member) -> Any:
        """The member with the vectors added, or nothing where there are none."""
        return edited_model(member, self._edit) if self.vectors else None

    def _edit(self, lm: Any) -> None:
        for layer in self.vectors:
            out = lm.model.layers[layer].output
            lm.model.layers[layer].output = out + self.added(layer, out)

    def added(self, layer: int, hidden: Float[Tensor, "row position d_model"]) -> Float[Tensor, "_ _ d_model"]:
        """What a layer's output gets. A single position counts as a generated token unless nothing is generated."""
        earlier, last, generated = self.weights.to(hidden).T
        vector = self.vectors[layer].to(hidden)
        if hidden.shape[1] == 1 and not self.reading:
            return (vector * generated[:, None])[:, None]
        amounts = earlier[:, None].repeat(1, hidden.shape[1])
        amounts[:, -1] = last
        return amounts[..., None] * vector[:, None]

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        changed = scores.clone()
        changed[:, self.tokens] += self.biases.to(scores)
        return changed


@dataclass(frozen=True)
class _RowByRow(Change):
    """A change that gives each prompt its own steering."""

    member: Any = None
    steerings: Sequence[Steering] = ()

    def at(self, prompts: list[int]) -> Change:
        if (n := len(self.steerings)) <= max(prompts):
            raise UserError(f"{n} steerings for {max(prompts) + 1} prompts or more: give one, or one a prompt")
        return steered(self.member, [self.steerings[prompt] for prompt in prompts])


def steered(member: Member, steerings: Sequence[Steering]) -> Change:
    """The change that gives prompt i the i-th steering, or all prompts the only one, for `complete` and (one a prompt)
    `stored_completions`. Raises UserError for a layer, token or number that is not there. Used in notebook 06."""
    rows = _Rows(member, steerings)
    processors, names = (rows,) if rows.tokens else (), tuple(steering.key for steering in steerings)
    change = "steered", rows.lm(member), processors, names
    return Change(*change) if len(steerings) == 1 else _RowByRow(*change, member, steerings)


def steered_logprobs(
    member: Member, prompts: list[str], steerings: Sequence[Steering], token_ids: Ids, *, rows: int = 128
) -> Float[Tensor, "steering prompt token"]:
    """Log-probabilities of next tokens, in nats, of every prompt under every steering; `rows` prompts at once."""
    member.check_ids(token_ids)
    found = []
    for steering in steerings:
        change = _Rows(member, [steering], reading=True)
        hidden = last_hidden(member, prompts, lm=change.lm(member), batch_size=rows)
        how = change.tokens, change.biases.cpu(), list(token_ids), rows
        found.append(member.at_weights(_biased_logprobs, hidden, *how))
    return torch.stack(found)


def _biased_logprobs(
    model: Any, hidden: Tensor, tokens: list[int], biases: Tensor, token_ids: list[int], rows: int
) -> Float[Tensor, "row token"]:
    head, found = model.lm_head.weight.float().T, []
    for states in hidden.split(rows):
        logits = states.to(head.device) @ head
        logits[:, tokens] += biases.to(logits)
        found.append(logits.log_softmax(-1)[:, token_ids].cpu())
    return torch.cat(found)


def random_directions(n: int, width: int, *, seed: int = 0) -> Float[Tensor, "direction d_model"]:
    """Directions of unit length, uniform on the sphere: the same-norm control."""
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def places_before(member: Member, texts: Sequence[Completion], words: Sequence[str] | None) -> list[Spot]:
    """Tokens of prompt and completion right before a keyword begins, or (`words` None) right before the stop."""
    found, decode = [], member.tokenizer.decode
    for index, text in enumerate(texts):
        first, tokens = len(_all_ids(member, text)) - len(text.tokens) - 1, text.tokens
        if words is None:
            found += [(index, first + len(tokens))] if text.stop != "limit" else []
            continue
        for match in keyword_pattern(tuple(words)).finditer(text.text.lower().replace("’", "'")):
            k = bisect_right(range(len(tokens)), match.start(), key=lambda k: len(decode(tokens[: k + 1])))
            found.append((index, first + k))
    return list(dict.fromkeys(found))


def places_matched(member: Member, texts: Sequence[Completion], places: Sequence[Spot], *, seed: int = 0) -> list[Spot]:
    """For each place a random other one after the same token, where there is one (else after any), that precedes
    neither a keyword of any family nor the stop."""
    ids = [_all_ids(member, text) for text in texts]
    taken = {*places, *places_before(member, texts, None)}
    taken |= {place for family in KEYWORDS.values() for place in places_before(member, texts, family)}
    starts = [len(row) - len(text.tokens) for row, text in zip(ids, texts, strict=True)]
    free = [(k, at) for k, row in enumerate(ids) for at in range(starts[k], len(row)) if (k, at) not in taken]
    if not free:
        raise UserError("the texts have no place without a keyword: pass longer ones")
    rng = np.random.default_rng(seed)
    pools = [[(i, j) for i, j in free if ids[i][j] == ids[k][at]] or free for k, at in places]
    return [pool[int(rng.integers(len(pool)))] for pool in pools]


def _all_ids(member: Member, text: Completion) -> list[int]:
    return [*member.encode([text.prompt])["input_ids"][0].tolist(), *text.tokens]


def read_places(
    member: Member, texts: Sequence[Completion], places: Sequence[Spot], *, batch_size: int = 16
) -> tuple[Float[Tensor, "place layer d_model"], Float[Tensor, "place layer heads_by_size"]]:
    """Each layer's output and its heads' outputs before `o_proj`, side by side, at chosen places; float32, on the CPU.
    Raises UserError where there are no places, or one is not in the texts."""

    def read(lm: Any, at: tuple[Tensor, Tensor]) -> list[Tensor]:
        parts = [(layer.self_attn.o_proj.input[at], layer.output[at]) for layer in lm.model.layers]
        heads, streams = (torch.stack([part.float().cpu() for part in kind], 1) for kind in zip(*parts, strict=True))
        return [streams, heads]

    return tuple(_read_texts(member, texts, places, read, batch_size))


def _read_texts(
    member: Member, texts: Sequence[Completion], places: Sequence[Spot], read: Callable[..., list[Tensor]], size: int
) -> list[Float[Tensor, "place ..."]]:
    """What `read(nnsight model, (rows, columns))` takes at places, one forward pass a text, `size` at once."""
    if not places:
        raise UserError("no places were given to read: the texts hold no such keyword")
    ids = [_all_ids(member, text) for text in texts]
    if wrong := [(k, at) for k, at in places if not (0 <= k < len(ids) and 0 <= at < len(ids[k]))]:
        raise UserError("no token {1} in text {0}: there are {2} texts, read within them".format(*wrong[0], len(ids)))

    def run(some: list[int]) -> tuple[list[int], list[Tensor]]:
        rows = {"input_ids": [ids[k] for k in some]}
        batch = member.tokenizer.pad(rows, padding_side="left", return_tensors="pt").to(member.device)
        here, width = [i for i, (k, _) in enumerate(places) if k in some], batch["input_ids"].shape[1]
        at = torch.tensor([(some.index(k), width - len(ids[k]) + at) for k, at in places if k in some]).T
        return here, member.traced(batch, lambda lm: read(lm, tuple(at)))

    longest_last = sorted({k for k, _ in places}, key=lambda k: len(ids[k]))
    indices, parts = zip(*(found for _, found in in_memory(longest_last, size, run)), strict=True)
    order = torch.tensor([index for some in indices for index in some]).argsort()
    return [torch.cat(blocks)[order] for blocks in zip(*parts, strict=True)]


def function_vector(
    member: Member, heads_mean: Float[Tensor, "layer heads_by_size"], heads: Sequence[tuple[int, int]]
) -> Float[Tensor, " d_model"]:
    """Sum of the mean outputs that chosen (layer, head) pairs write into the stream (Todd et al. 2023)."""
    member.check_heads(heads)
    means = heads_mean.cpu().unflatten(1, (member.config.num_attention_heads, -1))

    def written(model: Any) -> Tensor:
        each = {at: model.model.layers[at].self_attn.o_proj.weight.detach().float().cpu() for at, _ in heads}
        return sum(each[at].unflatten(1, means.shape[1:])[:, head] @ means[at, head] for at, head in heads)

    return member.at_weights(written)


@dataclass(frozen=True)
class Autoencoder:
    """A TopK sparse autoencoder on a layer's output, or on its MLP's: float32, rows of `decoder` are latents."""

    name: str
    layer: int
    on_mlp: bool
    k: int
    encoder: Float[Tensor, "latent d_model"]
    bias: Float[Tensor, " latent"]
    decoder: Float[Tensor, "latent d_model"]
    centre: Float[Tensor, " d_model"]

    def encode(
        self, states: Float[Tensor, "*rows d_model"], latents: Sequence[int] | None = None
    ) -> Float[Tensor, "*rows latent"]:
        """Activations of the latents: the k largest of each row where positive, else zero; of `latents` alone if given,
        where the states are."""
        chosen = slice(None) if latents is None else list(latents)
        return self._by_rows(states, lambda _, acts: acts[:, chosen]).unflatten(0, states.shape[:-1])

    def decode(self, acts: Float[Tensor, "*rows latent"]) -> Float[Tensor, "*rows d_model"]:
        return acts @ self.decoder + self.centre

    def fires(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, " latent"]:
        """Share of the rows in which each latent is above zero."""
        return self._by_rows(states, lambda _, acts: (acts > 0).sum(0, keepdim=True)).sum(0) / len(states)

    def unexplained(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, " row"]:
        """Squared error of each row as a share of the mean squared distance from the mean row; its mean is the FVU."""
        wrong = self._by_rows(states, lambda some, acts: (some - self.decode(acts)).pow(2).sum(-1))
        return wrong / (states.float() - states.float().mean(0)).pow(2).sum(-1).mean()

    def _by_rows(self, states: Tensor, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`read(some rows, their activations)` of all states: every row has tens of thousands of latents."""
        parts = []
        for some in states.reshape(-1, states.shape[-1]).split(ROWS):
            some = some.to(self.decoder.device).float()
            before = torch.relu((some - self.centre) @ self.encoder.T + self.bias)
            best = before.topk(self.k, dim=-1)
            parts.append(read(some, before.zero_().scatter_(-1, best.indices, best.values)).to(states.device))
        return torch.cat(parts)


def load_autoencoder(source: str | Path, hookpoint: str, *, device: Any = "cpu") -> Autoencoder:
    """A sparse autoencoder in the layout of EleutherAI's sparsify: `<source>/<hookpoint>/cfg.json` and
    `sae.safetensors`; `source` is a folder, also below the project's root, or a hub id. Hookpoints: `layers.N` (a
    layer's output) or `layers.N.mlp`. Raises UserError for anything else."""
    at = re.fullmatch(r"layers\.(\d+)(\.mlp)?", hookpoint)
    if not at:
        raise UserError(f"hookpoint {hookpoint!r}: this study reads layers.N or layers.N.mlp")
    folder = next((path for path in (Path(source), ROOT / source) if path.is_dir()), None)
    try:
        folder = (folder or Path(snapshot_download(str(source), allow_patterns=f"{hookpoint}/*"))) / hookpoint
    except Exception as error:
        raise UserError(f"no folder {source}, and the hub did not give it: check name and network") from error
    if not (folder / "cfg.json").exists():
        raise UserError(f"{folder} has no cfg.json: name another hookpoint or folder")
    config = read_json(folder / "cfg.json")
    if config.get("transcode") or config.get("skip_connection") or config.get("activation", "topk") != "topk":
        raise UserError(f"{source} {hookpoint} is not a TopK autoencoder: transcoders and groupmax are not read here")
    read = load_file(folder / "sae.safetensors")
    weights = [read[name].float().to(device) for name in ("encoder.weight", "encoder.bias", "W_dec", "b_dec")]
    return Autoencoder(f"{source}/{hookpoint}", int(at[1]), bool(at[2]), config["k"], *weights)


def autoencoder_states(
    member: Member, coder: Autoencoder, texts: Sequence[Completion], *, batch_size: int = 16
) -> tuple[list[Spot], Float[Tensor, "place d_model"]]:
    """What the autoencoder reads at every token of prompt and completion but the first, whose activations are
    massive: places and states, float32 on the CPU."""
    member.check_layers([coder.layer])
    member.check_width(coder.decoder, coder.name)
    places = [(k, at) for k, text in enumerate(texts) for at in range(1, len(_all_ids(member, text)))]
    layer, on_mlp = coder.layer, coder.on_mlp

    def read(lm: Any, at: tuple[Tensor, Tensor]) -> list[Tensor]:
        block = lm.model.layers[layer]
        return [(block.mlp.output if on_mlp else block.output)[at].float().cpu()]

    return places, _read_texts(member, texts, places, read, batch_size)[0]


def with_latent(member: Member, coder: Autoencoder, latent: int, value: float) -> Any:
    """An `edited_model` in which one latent has a fixed activation at every position: (value - its activation) times
    its decoder row is added, so the autoencoder's error stays in. Raises UserError for a latent not there."""
    check_finite(value, f"latent {latent}")
    if not 0 <= latent < len(coder.decoder):
        raise UserError(f"latent {latent}: {coder.name} has 0 to {len(coder.decoder) - 1}")

    def edit(lm: Any) -> None:
        block = lm.model.layers[coder.layer]
        module = block.mlp if coder.on_mlp else block
        change = (value - coder.encode(module.output, [latent])) * coder.decoder[latent]
        module.output = module.output + change.to(module.output)

    return edited_model(member, edit)


def context(member: Member, text: Completion, at: int, *, before: int = 12, after: int = 4) -> str:
    """The words around one token of a text, the token in brackets."""
    ids, decode = _all_ids(member, text), member.tokenizer.decode
    return f"{decode(ids[max(0, at - before) : at])}[{decode(ids[at])}]{decode(ids[at + 1 : at + 1 + after])}"


guarded(globals())
