# SPDX-License-Identifier: MIT
"""How the sparse autoencoder of `smol` was trained: EleutherAI's sparsify on the distilled model's stream.

Texts are the R1 traces that also trained the model, and its own sampled answers to practice questions; none of
the study's prompts is among them. Needs `pip install eai-sparsify` and, to take minutes, a GPU.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.embedded import distilled_folder
from helpers.generation import complete
from helpers.making.distill import Settings, build_examples, read_traces
from helpers.pairs import Member, load_member
from helpers.prompts import JUST, load_questions
from helpers.store import ROOT, UserError, sha256, write_text

WIDTH, ACTIVE, LENGTH = 4096, 32, 256
HELD_OUT = 20  # one sequence in so many is kept for measuring
SAMPLES, TEMPERATURE, TOP_P = 2, 0.8, 0.95


def train_autoencoders(sources: list[str], out: Path, *, layers: list[int], passes: int = 8) -> Path:
    """Train a TopK autoencoder on the output of each layer and write them in sparsify's layout, `layers.N/cfg.json`
    and `sae.safetensors` (float16), with `training.json`: data, held-out share of variance, dead latents."""
    try:
        from sparsify import SaeConfig, TrainConfig, Trainer
    except ImportError as error:
        raise UserError("sparsify is not installed: pip install eai-sparsify") from error

    member, started = load_member("distilled", str(distilled_folder())), time.time()
    rows, counts = _sequences(member, sources)
    pad = member.tokenizer.pad_token_id
    excluded = [pad, member.tokenizer.bos_token_id]  # padding, and the first token with its massive activation
    held, kept = rows[::HELD_OUT], torch.cat([rows[k::HELD_OUT] for k in range(1, HELD_OUT)])
    order = [torch.randperm(len(kept), generator=torch.Generator().manual_seed(k)) for k in range(passes)]
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            SaeConfig(num_latents=WIDTH, k=ACTIVE), batch_size=32, auxk_alpha=1 / 32, dead_feature_threshold=300_000,
            exclude_tokens=excluded, hookpoints=[f"layers.{layer}" for layer in layers], log_to_wandb=False,
            save_dir=folder, save_every=10**9,
        )  # fmt: skip
        trainer = Trainer(config, [{"input_ids": kept[i]} for i in torch.cat(order)], member.model.model)
        trainer.fit()
    measured = {}
    for name, coder in trainer.saes.items():
        coder.half().save_to_disk(out / name)
        measured[name] = _measure(member, coder.float(), name, held, excluded)
        measured[name]["sha256"] = sha256(out / name / "sae.safetensors")
    record = counts | {
        "model": member.identity,
        "latents": WIDTH,
        "k": ACTIVE,
        "passes": passes,
        "tokens_a_pass": int((~torch.isin(kept, torch.tensor(excluded))).sum()),
        "seconds": round(time.time() - started),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "held_out": measured,
    }
    write_text(out / "training.json", json.dumps(record, indent=1) + "\n")
    write_card(out)
    return out


CARD = """# A sparse autoencoder of `smol`'s distilled model

TopK, {latents:,} latents, {k} active, in the layout of EleutherAI's sparsify (`layers.N/cfg.json`, `sae.safetensors` in
float16). It reads and rebuilds a layer's output; notebook 06 uses it. MIT.

| hookpoint | share of variance unexplained, held out | latents that never fired there | tokens held out |
|---|---|---|---|
{rows}

**Data**: {traces:,} R1 traces (the sources named in `../README.md`) and {own_samples:,} answers that {model} itself
sampled to the practice questions (temperature {temperature}, top-p {top_p}); {tokens_a_pass:,} tokens, {passes} passes,
the first token of each text left out. None of the study's prompts is among them.
**Training**: sparsify's Trainer with its defaults (signum, automatic rate, auxiliary loss 1/32), batches of 32 texts;
{seconds} s on one {device}.{note} Written by `python -m helpers autoencoder` from `training.json`.

On the base's own answers, which it was not trained on, it explains less: notebook 06 prints how much.
"""


def write_card(folder: Path) -> None:
    """`README.md` beside the weights, from `training.json`."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    rows = [
        f"| `{n}` | {m['fvu']:.3f} | {m['never_fired']:.1%} | {m['tokens']:,} |" for n, m in record["held_out"].items()
    ]
    options = {"rows": "\n".join(rows), "temperature": TEMPERATURE, "top_p": TOP_P, "note": ""}
    write_text(folder / "README.md", CARD.format(**(options | record)))


def _sequences(member: Member, sources: list[str]) -> tuple[Tensor, dict[str, int]]:
    """Traces and own samples as rows of LENGTH token ids, padded at the end and shuffled; and how many of each."""
    loose = Settings(
        max_tokens=LENGTH, max_thinking_words=LENGTH, only_correct=False, only_grounded=False, multiple_choice=True
    )
    traces = build_examples(read_traces(sources, loose), member.tokenizer, loose)
    asked = [
        text for q in load_questions(path=ROOT / "data" / "practice.jsonl") for text in (q.text, f"{q.text} {JUST}")
    ]
    prompts = [member.prompt(text, "template") for text in asked]
    starts = [member.encode([prompt])["input_ids"][0].tolist() for prompt in prompts]
    own = []
    for seed in range(SAMPLES):
        how: dict[str, Any] = {"temperature": TEMPERATURE, "top_p": TOP_P, "seed": 100 + seed}
        done = complete(member, prompts, max_new_tokens=200, **how)
        own += [start + completion.tokens for start, completion in zip(starts, done, strict=True)]
    rows = [example["input_ids"] for example in traces] + own
    random.Random(0).shuffle(rows)
    padded = torch.full((len(rows), LENGTH), member.tokenizer.pad_token_id)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids[:LENGTH])] = torch.tensor(ids[:LENGTH])
    return padded, {"traces": len(traces), "own_samples": len(own)}


@torch.no_grad()
def _measure(member: Member, coder: Any, name: str, held: Tensor, excluded: list[int]) -> dict[str, float]:
    """Share of variance unexplained, and of latents that never fire, on sequences kept out of training."""
    states, layer = [], int(name.removeprefix("layers."))
    for rows in held.split(64):
        ids = rows.to(member.device)
        hidden = member.model(ids, output_hidden_states=True, logits_to_keep=1).hidden_states[layer + 1]
        states.append(hidden[~torch.isin(ids, torch.tensor(excluded, device=ids.device))])
    states = torch.cat(states).float()
    fired, wrong = torch.zeros(coder.num_latents, dtype=torch.bool, device=states.device), 0.0
    for some in states.split(4096):
        acts, index, _ = coder.encode(some)
        fired[index[acts > 0]] = True
        wrong += float((some - coder.decode(acts, index)).pow(2).sum())
    whole = float((states - states.mean(0)).pow(2).sum())
    return {
        "tokens": len(states),
        "fvu": round(wrong / whole, 4),
        "never_fired": round(float((~fired).float().mean()), 4),
    }
