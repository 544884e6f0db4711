# SPDX-License-Identifier: MIT
"""Is it the reasoning, or any fine-tuning? Trainings of one base on changed traces and with other seeds, and the
study's effects measured alike on each: `data/<pair>/trainings.csv`, one row a training and measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from accelerate.utils.memory import clear_device_cache
from safetensors.torch import load_file, save_file

from helpers import embedded
from helpers.checks import check_choice
from helpers.fork import read_fork
from helpers.generation import Completion, complete, judged
from helpers.making.distill import SETTINGS, train
from helpers.pairs import Member, Pair
from helpers.patching import swapped
from helpers.prompts import Question, ask, combine, load_questions
from helpers.readouts import measure, stop_odds, stop_parts
from helpers.stats import Interval, bootstrap, paired, ratio_of_means, share
from helpers.store import data_dir, read_json, sha256, write_text
from helpers.tokens import nonsense_tag
from helpers.weights import MATRICES

KINDS = ("whole", "answers", "no-waits", "shuffled", "blank", "joined")
LIMIT, SHORT = 400, 30  # new tokens; the base's answers of at most so many are put before the models


def compare(
    sources: list[str], pair: str, kinds: Sequence[str], seeds: Sequence[int], ranks: Sequence[int], folder: Path
) -> Path:
    """Train each kind of data with each seed (first stage alone, so that all have as many steps of like data), measure
    each, and the pair's own adapter, whole and cut to some ranks. Rows of trainings made anew replace the old."""
    for kind in kinds:
        check_choice(kind, "data", KINDS)
    made: dict[tuple[str, int], Path] = {("the pair's own", 0): embedded.adapter_dir(pair)}
    for rank in ranks:
        name = f"the pair's own, cut to rank {rank}"
        made[name, 0] = cut(embedded.adapter_dir(pair), rank, folder / f"rank{rank}")
    for (name, seed), adapter in made.items():
        _keep(pair, name, seed, adapter)
    for seed in seeds:
        for kind in kinds:
            settings = replace(SETTINGS[pair][0], data=kind, seed=seed)
            _keep(pair, kind, seed, train(sources, folder / f"{kind}{seed}", settings, pair))
    return data_dir(pair) / "trainings.csv"


def _keep(pair: str, name: str, seed: int, adapter: Path) -> None:
    both = Pair.of(str(embedded.base_folder(pair)), str(embedded.distilled_folder(adapter, pair)), name=pair)
    found = effects(both)
    del both
    clear_device_cache(garbage_collection=True)
    rows = [{"training": name, "seed": seed, "measure": what, **vars(value)} for what, value in found.items()]
    path, table = data_dir(pair) / "trainings.csv", pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path)
        table = pd.concat([old[(old["training"] != name) | (old["seed"] != seed)], table])
    write_text(path, table.to_csv(index=False, float_format="%.4g"))


def effects(pair: Pair, n_questions: int | None = None) -> dict[str, Interval]:
    """The study's effects on one training: intervals over confirm questions (of weights: over matrices)."""
    questions = [question for question in load_questions() if question.split == "confirm"][:n_questions]
    base, trained = pair.members
    done = complete(trained, ask(trained, questions, form="template"), max_new_tokens=LIMIT)
    own = judged(done, questions, opened=trained.thinks)
    answered = judged(
        complete(base, ask(base, questions, form="template"), max_new_tokens=SHORT), questions, opened=False
    )
    short = (answered["stopped"] & answered["length"].gt(0)).to_numpy()
    chosen = [question for question, kept in zip(questions, short, strict=True) if kept] or questions
    given = [answered["text"].get(question.id) or "Yes." for question in chosen]
    found = {"length, tokens": bootstrap(own["length"]), "repetition": bootstrap(own["repetition"])}
    found |= {what: share(own[what]) for what in ("stopped", "right", "waits")}
    found["begins with Okay"] = share(own["first_word"].str.startswith("Okay"))
    found |= _after_answers(pair, chosen, given) | _endings(trained, chosen, given, own) | _forks(trained, done)
    return found | _weights(pair) | _halves(pair, combine(base, chosen, given, form="plain"))


def _after_answers(pair: Pair, questions: list[Question], given: list[str]) -> dict[str, Interval]:
    """P(stop), P(Wait set) and the log-odds of stopping after the base's own answer, and their fall from the base."""
    found = {}
    for form in ("plain", "template"):
        before, after = (combine(m, questions, given, form=form) for m in pair.members)
        odds = [measure(m, prompts, stop_odds(m)) for m, prompts in zip(pair.members, (before, after), strict=True)]
        parts = stop_parts(pair.distilled, after)
        found |= {f"P({what}) after the answer, {form}": bootstrap(parts[what]) for what in ("stop", "Wait set")}
        found[f"log-odds of stopping, {form}"] = bootstrap(odds[1])
        found[f"log-odds of stopping, minus the base's, {form}"] = paired(odds[1], odds[0])
    return found


def _endings(member: Member, questions: list[Question], given: list[str], own: pd.DataFrame) -> dict[str, Interval]:
    """P(stop) after its own thought, a mark and the answer."""
    thoughts = [own["text"][question.id].partition("</think>")[0].strip() for question in questions]
    marks = {
        "</think>": "\n</think>\n\n",
        "a nonsense tag": f"\n{nonsense_tag(member.tokenizer)}\n\n",
        "no tag": "\n\n",
    }
    asked, found = ask(member, questions, form="template"), {}
    for name, mark in marks.items():
        prompts = [a + thought + mark + answer for a, thought, answer in zip(asked, thoughts, given, strict=True)]
        found[f"P(stop) after thought, {name}, answer"] = bootstrap(stop_parts(member, prompts)["stop"])
    return found


def _forks(member: Member, done: list[Completion]) -> dict[str, Interval]:
    """What closes a thought, by mark and place: means of texts; nothing where fewer than two texts have the place."""
    if member.groups.end_think is None:
        return {}
    read = [read_fork(member, one) for one in done]
    ends = pd.concat([ends.assign(text=k) for k, ends in enumerate(read) if len(ends)] or [pd.DataFrame()])
    if not len(ends):
        return {}
    places = {"mid-thought": ~ends["closes"] & ends["depth"].between(1 / 3, 0.999), "its own end": ends["closes"]}
    found = {}
    for place, chosen in places.items():
        means = ends[chosen].groupby("text").mean(numeric_only=True)
        for column in ("one", "</think> after one new line", "</think> after blank line"):
            if len(means) > 1:
                found[f"P({column}), {place}"] = bootstrap(means[column])
    return found


def _weights(pair: Pair) -> dict[str, Interval]:
    """Mean relative change of a layer's matrices."""
    blocks = zip(*(member.model.model.layers for member in pair.members), strict=True)
    pairs = [
        [dict(block.named_modules())[f"{part}.{name}"].weight.float() for block in both]
        for both in blocks
        for name in MATRICES
        for part in ("self_attn", "mlp")
        if hasattr(getattr(both[0], part), name)
    ]
    return {"relative change of a matrix": bootstrap([float((b.to(a.device) - a).norm() / a.norm()) for a, b in pairs])}


def _halves(pair: Pair, prompts: list[str]) -> dict[str, Interval]:
    """Share of the fall in the log-odds of stopping, plain form, that half of the layers makes in the base."""
    n, metric = pair.base.n_layers, stop_odds(pair.base)
    before = measure(pair.base, prompts, metric)
    falls = {}
    for name, layers in {"all": range(n), "lower half": range(n // 2), "upper half": range(n // 2, n)}.items():
        with swapped(pair, "base", layers) as hybrid:
            falls[name] = before - measure(hybrid, prompts, metric)
    return {f"share of the fall that its {half} makes": ratio_of_means(falls[half], falls["all"])
            for half in ("lower half", "upper half")}  # fmt: skip


def cut(adapter: Path, rank: int, out: Path) -> Path:
    """An adapter whose every change of a matrix keeps its `rank` largest singular directions."""
    out.mkdir(parents=True, exist_ok=True)
    weights = load_file(adapter / "adapter_model.safetensors")
    for name in [name for name in weights if "lora_A" in name]:
        other = name.replace("lora_A", "lora_B")
        a, b = weights[name].float(), weights[other].float()
        (left, inner), (right, outer) = torch.linalg.qr(b), torch.linalg.qr(a.T)
        u, values, v = torch.linalg.svd(inner @ outer.T)
        values[rank:] = 0
        weights[name] = ((right @ v.T) * values.sqrt()).T.contiguous().half()
        weights[other] = ((left @ u) * values.sqrt()).contiguous().half()
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    write_text(out / "adapter_config.json", (adapter / "adapter_config.json").read_text(encoding="utf-8"))
    record = read_json(adapter / "training.json") | {"adapter_sha256": sha256(out / "adapter_model.safetensors")}
    write_text(out / "training.json", json.dumps(record, indent=1) + "\n")
    return out
