# SPDX-License-Identifier: MIT
"""Measure the embedded distilled model on the confirm prompts and write its model card."""

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from helpers.embedded import adapter_dir
from helpers.generation import answers
from helpers.pairs import Pair, load_pair
from helpers.prompts import ask, combine, load_questions
from helpers.readouts import next_logprobs, stop_parts
from helpers.stats import bootstrap, paired, ratio_of_medians
from helpers.store import data_dir, read_json, write_text

THOUGHT_LIMIT, QUICK = 400, 30


def measure(pair: Pair) -> dict[str, dict[str, Any]]:
    """What the adapter must show, on all confirm prompts: name -> estimate, interval, n and goal."""
    questions = [question for question in load_questions() if question.split == "confirm"]
    base, distilled = (answers(pair, m, questions, form="template", max_new_tokens=THOUGHT_LIMIT) for m in pair.members)
    given, stop, wait, ends = list(base["text"]), {}, {}, {}
    for m in pair.members:
        plain = combine(m, questions, given, form="plain")
        stop[m.role] = stop_parts(m, plain)["stop"].to_numpy()
        wait[m.role] = np.logaddexp.reduce(next_logprobs(m, plain, list(m.groups.wait)).numpy(), axis=1)
    prompts = ask(pair.distilled, questions, form="template")
    thoughts = [text.partition("</think>")[0].strip() for text in distilled["text"]]
    for mark in ("\n</think>\n\n", "\n\n"):
        texts = [prompt + t + mark + a.strip() for prompt, t, a in zip(prompts, thoughts, given, strict=True)]
        ends["think" in mark] = stop_parts(pair.distilled, texts)["stop"].to_numpy()
    quick, closes = base["stopped"] & (base["length"] <= QUICK), distilled["closed"] & distilled["stopped"]
    waits, where = distilled["text"].str.contains("wait", case=False), distilled.loc[base["right"], "right"]
    waited = paired(wait["distilled"], wait["base"])
    rows = [
        ("base stops within 30 tokens", bootstrap(quick), ">=", 0.8),
        ("median length, distilled over base", ratio_of_medians(distilled["length"], base["length"]), ">=", 6),
        ("distilled closes </think> and stops within 400 tokens", bootstrap(closes), ">=", 0.85),
        ("distilled right where the base is right", bootstrap(where), ">=", 0.7),
        ("plain, after the answer: fall of P(stop)", paired(stop["base"], stop["distilled"]), ">=", 0.35),
        ("plain, after the answer: rise of log P(Wait set), nats", waited, ">=", 4),
        ("P(stop) after thought, </think> and answer", bootstrap(ends[True]), ">=", 0.5),
        ("the same without </think>", bootstrap(ends[False]), "<=", float(ends[True].mean() / 5)),
        ("base right", bootstrap(base["right"]), "", 0.0),
        ("distilled right", bootstrap(distilled["right"]), "", 0.0),
        ("completions with a wait, distilled", bootstrap(waits), "", 0.0),
    ]
    found: dict[str, dict[str, Any]] = {}
    for name, interval, side, goal in rows:
        reached = {">=": interval.estimate >= goal, "<=": interval.estimate <= goal}.get(side)
        found[name] = {key: round(getattr(interval, key), 4) for key in ("estimate", "low", "high")}
        found[name] |= {"n": interval.n, "goal": f"{side} {goal:.3g}" if side else "", "reached": reached}
    return found


def write_card() -> Path:
    """Measure, then write `data/smol/card.json` and the model card beside it."""
    measures, path = measure(load_pair("smol")), data_dir("smol") / "README.md"
    write_text(path.with_name("card.json"), json.dumps(measures, indent=1) + "\n")
    write_text(path, card_text(measures))
    return path


def card_text(measures: dict[str, dict[str, Any]]) -> str:
    """The model card: what was measured, and what the adapter's record tells of the training."""
    return rendered("card.md.j2", measures=measures, **read_json(adapter_dir() / "training.json"))


def rendered(template: str, **values: Any) -> str:
    """A Markdown template of this folder filled in; a name that it lacks is an error."""
    how = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "keep_trailing_newline": True}
    return jinja2.Template(Path(__file__).with_name(template).read_text(encoding="utf-8"), **how).render(**values)
