# SPDX-License-Identifier: MIT
"""Ways to make a model wait or stop: biased tokens and vectors added to the stream, their same-norm controls, and
where such vectors come from: keyword contrasts, heads (function vectors), latents of a sparse autoencoder.

Whatever acts on one row of a batch is a `Steering`, so that a sweep over strengths, methods and controls is one
generation. A vector of a layer is added to that layer's output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nnsight.intervention.iterator import Iterations
from torch import Tensor
from transformers import LogitsProcessor

from helpers.checks import check_choice, check_count, guarded
from helpers.generation import Change, Completion, in_memory
from helpers.pairs import CONTROLS, Member
from helpers.readouts import Ids, logprobs_of
from helpers.store import ROOT, UserError, read_json, sha256, take
from helpers.tokens import KEYWORDS, keyword_pattern

ROWS = 512  # states that an autoencoder reads at once: 128 MiB of activations where there are 65,536 latents
WEIGHTS = {"all": (1, 1, 1), "prompt": (1, 1, 0), "last": (0, 1, 0), "generated": (0, 0, 1)}
Place = tuple[int, int]  # which text, which of its tokens
AUTOENCODERS = {
    **dict.fromkeys(("smol", *CONTROLS), ("data/smol/autoencoder", "layers.18")),
    "r1-1.5b": ("EleutherAI/sae-DeepSeek-R1-Distill-Qwen-1.5B-65k", "layers.14.mlp"),
}


@dataclass(frozen=True)
class Steering:
    """What is done to one row: `strength` times a vector a layer, at some positions, and logits of tokens raised.

    `where`: all positions, the prompt's, its last one only, or the generated ones only.
    """

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
    """What the rows of the batch in hand get; also the logits processor that adds their biases."""

    def __init__(self, member: Member, steerings: Sequence[Steering]) -> None:
        width, device, dtype = member.config.hidden_size, member.device, member.dtype
        layers = sorted({layer for steering in steerings for layer in steering.vectors})
        zero = torch.zeros(width)
        self.vectors = {
            layer: torch.stack([s.strength * s.vectors.get(layer, zero).float().cpu() for s in steerings]).to(
                device, dtype
            )
            for layer in layers
        }
        self.weights = torch.tensor([WEIGHTS[s.where] for s in steerings], device=device, dtype=dtype)
        self.tokens = sorted({token for s in steerings for token in s.bias})
        biases = [[s.bias.get(token, 0.0) for token in self.tokens] for s in steerings]
        self.biases = torch.tensor(biases, device=device, dtype=torch.float32)
        self.n, self.now = len(steerings), torch.arange(len(steerings), device=device)
        self.reading = False  # a readout: whatever is seen is the prompt

    def take(self, indices: list[int]) -> None:
        """Which steerings the rows of the next batch have; a single one is every row's."""
        if self.n > 1 and max(indices) >= self.n:
            raise UserError(f"{self.n} steerings for {max(indices) + 1} prompts or more: give one, or one a prompt")
        if self.n > 1:
            self.now = torch.tensor(indices, device=self.weights.device)

    def added(self, layer: int, hidden: Float[Tensor, "row position d_model"]) -> Float[Tensor, "_ _ d_model"]:
        """What a layer's output gets: more than one position is the prompt, a single one a generated token, unless
        nothing is generated. (Text from a prompt of one token: that one counts as generated.)"""
        earlier, last, generated = self.weights[self.now].to(hidden).T
        vector = self.vectors[layer][self.now].to(hidden)
        if hidden.shape[1] == 1 and not self.reading:
            return (vector * generated[:, None])[:, None]
        amounts = earlier[:, None].repeat(1, hidden.shape[1])
        amounts[:, -1] = last
        return amounts[..., None] * vector[:, None]

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        changed = scores.clone()
        changed[:, self.tokens] += self.biases[self.now].to(scores)
        return changed


def steered(member: Member, steerings: Sequence[Steering]) -> Change:
    """The change that gives prompt i the i-th steering, or all prompts the only one: for `complete` and, through its
    `lm` and `on_batch`, `last_hidden`; for `stored_completions` one a prompt.

    Raises UserError for a layer, token, position or number that is not there. Used in notebook 06.
    """
    _check(member, steerings)
    rows, lm = _Rows(member, steerings), None
    if rows.vectors:
        with member.lm.edit() as (_tracer, lm):
            for _ in Iterations()[:]:
                for layer in rows.vectors:
                    out = lm.model.layers[layer].output
                    lm.model.layers[layer].output = out + rows.added(layer, out)
    processors = (rows,) if rows.tokens else ()
    return Change("steered", lm, processors, tuple(steering.key for steering in steerings), rows.take)


def _check(member: Member, steerings: Sequence[Steering]) -> None:
    if not steerings:
        raise UserError("no steering was given: pass at least one, NOTHING for none")
    for steering in steerings:
        values = [steering.strength, *steering.bias.values(), *(float(v.sum()) for v in steering.vectors.values())]
        check_choice(steering.where, "positions", WEIGHTS)
        member.check_layers(steering.vectors)
        if not np.isfinite(values).all():
            raise UserError(f"{steering.name}: strength, vectors and biases are not all finite: look for NaN in them")
        for vector in steering.vectors.values():
            member.check_width(vector, steering.name)
        if steering.bias:
            member.check_ids(list(steering.bias))


def steered_logprobs(
    member: Member, prompts: list[str], steerings: Sequence[Steering], token_ids: Ids, *, rows: int = 128
) -> Float[Tensor, "steering prompt token"]:
    """Natural log-probabilities of next tokens, in nats, of every prompt under every steering; `rows` steerings of a
    prompt at once. Used in notebook 06."""
    _check(member, steerings)
    member.check(prompts)
    member.check_ids(token_ids)
    check_count(rows, "rows at once")
    read = torch.zeros(len(steerings), len(prompts), len(token_ids))
    for column, prompt in enumerate(prompts):
        run = partial(_under_steering, member, member.encode([prompt]), steerings)
        for some, hidden in in_memory(list(range(len(steerings))), rows, run):
            read[some, column] = _biased_logprobs(member, hidden, take(steerings, some), token_ids)
    return read


def _under_steering(
    member: Member, batch: Mapping[str, Tensor], steerings: Sequence[Steering], some: list[int]
) -> Float[Tensor, "steering d_model"]:
    """The last position of one prompt under some steerings: a run whose first row nothing is done to, and which each
    steering joins at its lowest layer as one row more."""
    first = {k: min(steerings[k].vectors) for k in some if steerings[k].vectors}
    order = sorted(first, key=first.__getitem__)
    change = _Rows(member, [NOTHING, *take(steerings, order)])
    change.reading = True

    def read(lm: Any) -> Tensor:
        for layer in change.vectors:
            rows, joined = lm.model.layers[layer].output, 1 + sum(first[k] <= layer for k in order)
            rows = torch.cat([rows, rows[:1].expand(joined - len(rows), -1, -1)])
            change.take(list(range(joined)))
            lm.model.layers[layer].output = rows + change.added(layer, rows)
        return lm.model.norm.output[:, -1].clone()

    row = {k: place for place, k in enumerate(order, start=1)}
    return member.traced(batch, read).float().to(member.device)[[row.get(k, 0) for k in some]]


def _biased_logprobs(
    member: Member, hidden: Float[Tensor, "row d_model"], each: list[Steering], token_ids: Ids
) -> Float[Tensor, "row token"]:
    """Log-probabilities after each row's own biases: exp(bias) times the probability, over the new sum."""
    tokens = sorted({token for steering in each for token in steering.bias})
    read, likely = logprobs_of(member, hidden, [*token_ids, *tokens]).split([len(token_ids), len(tokens)], dim=1)
    bias, own = (torch.tensor([[s.bias.get(t, 0.0) for t in some] for s in each]) for some in (tokens, token_ids))
    sure = (likely.exp().sum(1) > 0.99).nonzero().flatten()  # what is left to the others would be lost in rounding
    found = read + own - (likely.exp() * bias.expm1()).sum(1, keepdim=True).log1p()
    if len(sure):
        every = logprobs_of(member, hidden[sure.to(hidden.device)], range(member.n_vocab))
        every[:, tokens] += bias[sure]
        found[sure] = every.log_softmax(-1)[:, list(token_ids)]
    return found


def random_directions(n: int, width: int, *, seed: int = 0) -> Float[Tensor, "direction d_model"]:
    """Directions of unit length, uniform on the sphere: the same-norm control."""
    check_count(n, "directions")
    check_count(width, "numbers a direction")
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def places_before(member: Member, texts: Sequence[Completion], words: Sequence[str] | None) -> list[Place]:
    """Tokens of prompt and completion right before a keyword begins, or (`words` None) right before the stop."""
    found = []
    for index, text in enumerate(texts):
        first = len(member.encode([text.prompt])["input_ids"][0]) - 1
        if words is None:
            found += [(index, first + len(text.tokens))] if text.stop != "limit" else []
            continue
        starts = [
            match.start() for match in keyword_pattern(tuple(words)).finditer(text.text.lower().replace("’", "'"))
        ]
        ends = _ends(member.tokenizer, tuple(text.tokens)) if starts else []
        found += [(index, first + next(k for k, end in enumerate(ends) if end > start)) for start in starts]
    return list(dict.fromkeys(found))


@lru_cache(maxsize=512)
def _ends(tokenizer: Any, tokens: tuple[int, ...]) -> list[int]:
    """How many letters stand there after each token; every family of keywords asks for the same texts again."""
    return [len(tokenizer.decode(tokens[: k + 1])) for k in range(len(tokens))]


def places_matched(
    member: Member, texts: Sequence[Completion], places: Sequence[Place], *, seed: int = 0
) -> list[Place]:
    """For each place a random other one after the same token, where there is one (else after any), that precedes
    neither a keyword of any family nor the stop."""
    _check_places(member, texts, places)
    ids = [_all_ids(member, text) for text in texts]
    taken = {*places, *places_before(member, texts, None)}
    taken |= {place for family in KEYWORDS.values() for place in places_before(member, texts, family)}
    starts = [len(row) - len(text.tokens) for row, text in zip(ids, texts, strict=True)]
    free = [(k, at) for k, row in enumerate(ids) for at in range(starts[k], len(row)) if (k, at) not in taken]
    if not free:
        raise UserError("the texts have no place without a keyword: pass longer ones")
    by_token: dict[int, list[Place]] = {}
    for k, at in free:
        by_token.setdefault(ids[k][at], []).append((k, at))
    rng = np.random.default_rng(seed)
    pools = [by_token.get(ids[k][at], free) for k, at in places]
    return [pool[int(rng.integers(len(pool)))] for pool in pools]


def _check_places(member: Member, texts: Sequence[Completion], places: Sequence[Place]) -> None:
    """Raise UserError for a text or a token that is not there."""
    lengths = {k: len(_all_ids(member, texts[k])) for k in {k for k, _ in places} if 0 <= k < len(texts)}
    if wrong := [(k, at) for k, at in places if not 0 <= at < lengths.get(k, 0)]:
        k, at = wrong[0]
        there = f"text {k} has tokens 0 to {lengths[k] - 1}" if k in lengths else f"there are {len(texts)} texts"
        raise UserError(f"no token {at} in text {k}: {there}")


def _all_ids(member: Member, text: Completion) -> list[int]:
    return [*member.encode([text.prompt])["input_ids"][0].tolist(), *text.tokens]


def read_places(
    member: Member, texts: Sequence[Completion], places: Sequence[Place], *, batch_size: int = 16
) -> tuple[Float[Tensor, "place layer d_model"], Float[Tensor, "place layer heads_by_size"]]:
    """Each layer's output and its heads' outputs before `o_proj`, side by side, at chosen places; float32, on the CPU.
    One forward pass a text. Raises UserError where there are no places."""
    if not places:
        raise UserError("no places were given to read: the texts hold no such keyword")
    _check_places(member, texts, places)
    check_count(batch_size, "texts a batch")
    used = sorted({k for k, _ in places}, key=lambda k: len(texts[k].tokens))
    found: dict[Place, tuple[Tensor, Tensor]] = {}

    def run(some: list[int]) -> dict[Place, tuple[Tensor, Tensor]]:
        here = [place for place in dict.fromkeys(places) if place[0] in some]
        read = _read_batch(member, [_all_ids(member, texts[k]) for k in some], [(some.index(k), at) for k, at in here])
        return dict(zip(here, zip(*read, strict=True), strict=True))

    for _, part in in_memory(used, batch_size, run):
        found |= part
    streams, heads = zip(*(found[place] for place in places), strict=True)
    return torch.stack(streams), torch.stack(heads)


def _read_batch(member: Member, rows: list[list[int]], places: list[Place]) -> tuple[Tensor, Tensor]:
    batch = member.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(member.device)
    width = batch["input_ids"].shape[1]
    row = torch.tensor([k for k, _ in places], device=member.device)
    column = torch.tensor([width - len(rows[k]) + at for k, at in places], device=member.device)

    def read(lm: Any) -> list[Tensor]:
        streams, heads = [], []
        for layer in lm.model.layers:
            heads.append(layer.self_attn.o_proj.input[row, column].float().cpu())
            streams.append(layer.output[row, column].float().cpu())
        return [torch.stack(streams, 1), torch.stack(heads, 1)]

    return tuple(member.traced(batch, read))


def function_vector(
    member: Member, heads_mean: Float[Tensor, "layer heads_by_size"], heads: Sequence[tuple[int, int]]
) -> Float[Tensor, " d_model"]:
    """Sum of the mean outputs that chosen (layer, head) pairs write into the stream (Todd et al. 2023)."""
    member.check_heads(heads)
    if not torch.isfinite(heads_mean).all():
        raise UserError("the mean outputs of heads are not all finite: look for NaN in what they come from")
    size = heads_mean.shape[1] // member.config.num_attention_heads
    places = [(layer, head * size, (head + 1) * size) for layer, head in heads]
    return member.at_weights(_written, heads_mean.cpu(), places)


def _written(model: Any, means: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
    parts = [
        model.model.layers[layer].self_attn.o_proj.weight[:, start:end].detach().float().cpu() @ means[layer, start:end]
        for layer, start, end in places
    ]
    return torch.stack(parts).sum(0)


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
        """Activations of the latents: the k largest of each row where positive, else zero; of `latents` alone if given.
        Computed where the weights are, ROWS at a time, and returned where the states are."""
        chosen = slice(None) if latents is None else list(latents)
        parts = [self._encode(some)[:, chosen].to(states.device) for some in self._blocks(states)]
        return torch.cat(parts).unflatten(0, states.shape[:-1])

    def decode(self, acts: Float[Tensor, "*rows latent"]) -> Float[Tensor, "*rows d_model"]:
        return acts @ self.decoder + self.centre

    def fires(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, " latent"]:
        """Share of the rows in which each latent is above zero."""
        return sum((self._encode(some) > 0).sum(0) for some in self._blocks(states)).float().cpu() / len(states)

    def unexplained(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, " row"]:
        """Squared error of each row as a share of the mean squared distance from the mean row; its mean is the FVU."""
        parts = [(some - self.decode(self._encode(some))).pow(2).sum(-1) for some in self._blocks(states)]
        wrong = torch.cat(parts).to(states.device)
        return wrong / (states.float() - states.float().mean(0)).pow(2).sum(-1).mean()

    def _encode(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row latent"]:
        before = torch.relu((states - self.centre) @ self.encoder.T + self.bias)
        best = before.topk(self.k, dim=-1)
        return before.zero_().scatter_(-1, best.indices, best.values)

    def _blocks(self, states: Float[Tensor, "*rows d_model"]) -> Iterator[Float[Tensor, "row d_model"]]:
        """Rows by the hundred, as the weights are: every one has tens of thousands of latents."""
        for some in states.reshape(-1, states.shape[-1]).split(ROWS):
            yield some.to(self.decoder.device).float()


def load_autoencoder(source: str | Path, hookpoint: str, *, device: Any = "cpu") -> Autoencoder:
    """A sparse autoencoder in the layout of EleutherAI's sparsify: `<source>/<hookpoint>/cfg.json` and
    `sae.safetensors`; `source` is a folder, also below the project's root, or a hub id.

    Hookpoints: `layers.N` (a layer's output) or `layers.N.mlp`. Raises UserError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    at = re.fullmatch(r"layers\.(\d+)(\.mlp)?", hookpoint)
    if not at:
        raise UserError(f"hookpoint {hookpoint!r}: this study reads layers.N or layers.N.mlp")
    folder = next((path for path in (Path(source), ROOT / source) if path.is_dir()), None) or _from_hub(
        source, hookpoint
    )
    if not (folder / hookpoint / "cfg.json").exists() or not (folder / hookpoint / "sae.safetensors").exists():
        raise UserError(f"{folder / hookpoint} has no cfg.json with sae.safetensors: name another hookpoint or folder")
    config = read_json(folder / hookpoint / "cfg.json")
    if config.get("transcode") or config.get("skip_connection") or config.get("activation", "topk") != "topk":
        raise UserError(f"{source} {hookpoint} is not a TopK autoencoder: transcoders and groupmax are not read here")
    try:
        read = load_file(folder / hookpoint / "sae.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / hookpoint}/sae.safetensors does not load ({error}): fetch it again") from error
    weights = {k: v.float().to(device) for k, v in read.items()}
    names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    if missing := [name for name in names if name not in weights]:
        raise UserError(f"{folder / hookpoint}/sae.safetensors has no {missing[0]}: it is not in sparsify's layout")
    check_count(config.get("k"), f"latents at once (k in {folder / hookpoint}/cfg.json)", len(weights["W_dec"]))
    return Autoencoder(
        f"{source}/{hookpoint}", int(at[1]), bool(at[2]), config["k"], *(weights[name] for name in names)
    )


def _from_hub(source: str | Path, hookpoint: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=f"{hookpoint}/*"))
    except Exception as error:
        said = type(error).__name__
        raise UserError(f"no folder {source}, and the hub did not give it ({said}): check name and network") from error


def autoencoder_states(
    member: Member, coder: Autoencoder, texts: Sequence[Completion], *, batch_size: int = 16
) -> tuple[list[Place], Float[Tensor, "place d_model"]]:
    """What the autoencoder reads at every token of prompt and completion but the first, whose activations are
    massive: places and states, float32 on the CPU."""
    places, states = [], []
    _check_coder(member, coder)
    member.check([text.prompt for text in texts])
    check_count(batch_size, "texts a batch")

    def run(some: list[int]) -> tuple[list[list[int]], Tensor, int]:
        rows = [_all_ids(member, texts[k]) for k in some]
        batch = member.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(member.device)
        at, on_mlp = coder.layer, coder.on_mlp

        def read(lm: Any) -> Tensor:
            block = lm.model.layers[at]
            return (block.mlp.output if on_mlp else block.output).float().cpu()

        return rows, member.traced(batch, read), batch["input_ids"].shape[1]

    for some, (rows, hidden, width) in in_memory(list(range(len(texts))), batch_size, run):
        for k, row, states_of in zip(some, rows, hidden, strict=True):
            places += [(k, at) for at in range(1, len(row))]
            states.append(states_of[width - len(row) + 1 :])
    return places, torch.cat(states)


def _check_coder(member: Member, coder: Autoencoder) -> None:
    """Raise UserError for an autoencoder of another model's layers."""
    member.check_layers([coder.layer])
    member.check_width(coder.decoder, coder.name)


def with_latent(member: Member, coder: Autoencoder, latent: int, value: float) -> Any:
    """An edited nnsight model in which one latent has a fixed activation at every position: (value - its activation)
    times its decoder row is added, so the autoencoder's error stays in. Raises UserError for a latent not there."""
    _check_coder(member, coder)
    if not 0 <= latent < len(coder.decoder) or not np.isfinite(value):
        raise UserError(
            f"latent {latent} at {value}: {coder.name} has 0 to {len(coder.decoder) - 1}, values are finite"
        )

    def held(hidden: Tensor) -> Tensor:
        change = (value - coder.encode(hidden, [latent])) * coder.decoder[latent]
        return hidden + change.to(hidden)

    with member.lm.edit() as (_tracer, edited):
        for _ in Iterations()[:]:
            block = edited.model.layers[coder.layer]
            if coder.on_mlp:
                block.mlp.output = held(block.mlp.output)
            else:
                block.output = held(block.output)
    return edited


def context(member: Member, text: Completion, at: int, *, before: int = 12, after: int = 4) -> str:
    """The words around one token of a text, the token in brackets."""
    _check_places(member, [text], [(0, at)])
    ids, decode = _all_ids(member, text), member.tokenizer.decode
    parts = ids[max(0, at - before) : at], ids[at : at + 1], ids[at + 1 : at + 1 + after]
    left, here, right = (decode(part) for part in parts)
    return f"{left}[{here}]{right}"


guarded(globals())
