# SPDX-License-Identifier: MIT
"""How the sparse autoencoder of `smol` was trained: EleutherAI's sparsify on the distilled model's stream.

Texts are the R1 traces that also trained the model, and its own sampled answers to practice questions; none of
the study's prompts is among them. Needs `pip install eai-sparsify` and, to take minutes, a GPU.
"""

import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from helpers.embedded import distilled_folder
from helpers.generation import complete
from helpers.making.card import rendered
from helpers.making.distill import Settings, build_examples, read_traces
from helpers.pairs import Member, load_member
from helpers.prompts import JUST, load_questions
from helpers.store import ROOT, UserError, sha256, write_text

WIDTH, ACTIVE, LENGTH, PASSES = 4096, 32, 256, 8
HELD_OUT = 20  # one sequence in so many is kept for measuring
SAMPLES, TEMPERATURE, TOP_P = 2, 0.8, 0.95


def train_autoencoders(sources: list[str], out: Path, *, layers: list[int]) -> Path:
    """Train a TopK autoencoder on the output of each layer and write them in sparsify's layout, `layers.N/cfg.json`
    and `sae.safetensors` (float16), with `training.json`: data, held-out share of variance, dead latents."""
    try:
        from sparsify import SaeConfig, TrainConfig, Trainer
    except ImportError as error:
        raise UserError("sparsify is not installed: pip install eai-sparsify") from error
    member, started = load_member("distilled", str(distilled_folder())), time.time()
    rows, counts = _sequences(member, sources)
    # left out: padding, and the first token with its massive activation
    excluded = torch.tensor([member.tokenizer.pad_token_id, member.tokenizer.bos_token_id])
    held, kept = rows[::HELD_OUT], torch.cat([rows[k::HELD_OUT] for k in range(1, HELD_OUT)])
    order = torch.cat([torch.randperm(len(kept), generator=torch.Generator().manual_seed(k)) for k in range(PASSES)])
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            SaeConfig(num_latents=WIDTH, k=ACTIVE), batch_size=32, auxk_alpha=1 / 32, dead_feature_threshold=300_000,
            exclude_tokens=excluded.tolist(), hookpoints=[f"layers.{layer}" for layer in layers], log_to_wandb=False,
            save_dir=folder, save_every=10**9,
        )  # fmt: skip
        trainer = Trainer(config, [{"input_ids": ids} for ids in kept[order]], member.model.model)
        trainer.fit()
    measured = {}
    for name, coder in trainer.saes.items():
        coder.half().save_to_disk(out / name)
        digest = {"sha256": sha256(out / name / "sae.safetensors")}
        measured[name] = _measure(member, coder.float(), name, held, excluded) | digest
    record = counts | {"model": member.identity, "latents": WIDTH, "k": ACTIVE, "passes": PASSES}
    record |= {"tokens_a_pass": int((~torch.isin(kept, excluded)).sum()), "seconds": round(time.time() - started)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    record |= {"device": device, "held_out": measured}
    write_text(out / "training.json", json.dumps(record, indent=1) + "\n")
    write_text(out / "README.md", rendered("autoencoder.md.j2", temperature=TEMPERATURE, top_p=TOP_P, **record))
    return out


def _sequences(member: Member, sources: list[str]) -> tuple[Tensor, dict[str, int]]:
    """Traces and own samples as rows of LENGTH token ids, padded at the end and shuffled; and how many of each."""
    loose = Settings(max_tokens=LENGTH, max_thinking_words=LENGTH, strict=False)
    traces = build_examples(read_traces(sources, loose), member.tokenizer, loose)
    questions = load_questions(path=ROOT / "data" / "practice.jsonl")
    prompts = [member.prompt(text, "template") for q in questions for text in (q.text, f"{q.text} {JUST}")]
    starts = [member.encode([prompt])["input_ids"][0].tolist() for prompt in prompts]
    own = []
    for seed in range(SAMPLES):
        done = complete(member, prompts, max_new_tokens=200, temperature=TEMPERATURE, top_p=TOP_P, seed=100 + seed)
        own += [start + completion.tokens for start, completion in zip(starts, done, strict=True)]
    rows = [torch.tensor(ids[:LENGTH]) for ids in (*(trace["input_ids"] for trace in traces), *own)]
    random.Random(0).shuffle(rows)
    padded = pad_sequence(rows, batch_first=True, padding_value=member.tokenizer.pad_token_id)
    return padded, {"traces": len(traces), "own_samples": len(own)}


@torch.no_grad()
def _measure(member: Member, coder: Any, name: str, held: Tensor, excluded: Tensor) -> dict[str, float]:
    """Share of variance unexplained, and of latents that never fire, on sequences kept out of training."""
    states, point = [], int(name.removeprefix("layers.")) + 1
    for ids in held.to(member.device).split(64):
        hidden = member.model(ids, output_hidden_states=True, logits_to_keep=1).hidden_states[point]
        states.append(hidden[~torch.isin(ids, excluded.to(ids.device))].float())
    states = torch.cat(states)
    acts, index, _ = coder.encode(states)  # not its forward, which is in bfloat16 on a GPU
    fvu = (states - coder.decode(acts, index)).pow(2).sum() / (states - states.mean(0)).pow(2).sum()
    silent = 1 - len(index[acts > 0].unique()) / coder.num_latents
    return {"tokens": len(states), "fvu": round(float(fvu), 4), "never_fired": round(silent, 4)}
