# SPDX-License-Identifier: MIT
"""The ledger `data/<pair>/findings.json`: what was claimed, measured and decided, one entry a finding."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from helpers.checks import check_choice, check_finite
from helpers.pairs import Pair
from helpers.stats import Interval
from helpers.store import UserError, data_dir, locked, read_json, write_records

NEEDED = {"id", "pair", "claim", "notebook", "quantity", "unit", "estimate", "low", "high", "n", "control", "verdict"}
Verdict = Literal["holds", "does not hold", "inconclusive"]

CLAIMS = {
    "F01": "The distilled model answers simple prompts at greater length before it stops.",
    "F02": "“Just give the answer.” makes the answers cleaner.",
    "F03": "The base gives memorised answers, sometimes good, sometimes wrong; the distilled does so too.",
    "F04": "The distilled sometimes repeats the question or adds questions of its own.",
    "F05": "On combined prompts the base stops at once.",
    "F06": "There the stop token's logit is much lower on the distilled; those of reasoning tokens rise moderately.",
    "F07": "Logit and probability of “ Wait” change with the length of the text.",
    "F08": "The period has a strong bigram link to the stop token on both models.",
    "F09": "Through the lens, the stop token and “ Wait” part ways late; the stop token's rise looks exponential over "
    "the last layers, as if attention kept adding to what is there.",
    "F10": "Layer norm shapes that rise.",
    "F11": "The difference of the two models' activations, read through the lens, names reasoning tokens.",
    "F12": "Weights, embeddings included, barely changed; some tokens' embeddings did.",
    "F13": "Value vectors close to the stop or Wait unembedding exist; setting the stop ones to 0 and scaling the "
    "Wait ones by alpha in the base, and the reverse in the distilled, changes what they do.",
    "F14": "The stop token's unembedding is a linear combination of others.",
    "F15": "Attribution patching on the last token, metric stop minus Wait, finds the components that decide.",
    "F16": "Replacing layers gradually moves one model to the other; swapping a single layer does not work.",
    "F17": "Giving the base the distilled model's first word leads to reasoning.",
    "F18": "Lowering the stop token's logit alone leads to reasoning.",
    "F19": "A steering vector from the keywords, and a function vector from averaged head outputs, elicit “ Wait” on "
    "the distilled, then on the base; the same for the stop token in reverse.",
    "F20": "A sparse-autoencoder latent found by maximal activation works as a control vector, added to the SAE's "
    "output or to the stream.",
    "F21": "<think></think> <answer>answer</answer> makes the distilled stop; <answer></answer> alone cannot.",
    "F22": "An ending block, </think> + two new lines + the answer with its period, leads to a high probability of "
    "stopping; “</think> Paris.” suffices.",
    "F23": "A prompt that ends in </think> makes it write two new lines, repeat the answer, and stop.",
    "F24": "</think> does not guarantee the answer block: it may reason again, up to another </think>. But an answer "
    "block always has a </think> before it.",
    "F25": "The R1-Zero template (User/Assistant, <think>, <answer>) leaves traces.",
}
ONE_MODEL = "The rule is met, but by two copies of one model: this is about that model, and no pair shows it."
NO_VALUE = "No number: the two models do not differ in what stands below the line."


@dataclass(frozen=True)
class Rule:
    """Written before the result. A claim holds when the whole 95 % interval is on the named side of the
    threshold, fails when it is whole on the other side, and is inconclusive when it straddles.

    Sides: above, below, or away (beyond the threshold in either direction).
    """

    side: Literal["above", "below", "away"]
    threshold: float

    def __post_init__(self) -> None:
        check_choice(self.side, "side", ("above", "below", "away"))
        check_finite(self.threshold, "threshold")

    def verdict(self, interval: Interval) -> Verdict:
        """Decide on one interval."""
        if self.side == "away":
            inside = max(abs(interval.low), abs(interval.high)) < self.threshold
            outside = interval.low > self.threshold or interval.high < -self.threshold
        else:
            sign = 1 if self.side == "above" else -1
            ends = sorted((sign * interval.low, sign * interval.high))
            outside, inside = ends[0] > sign * self.threshold, ends[1] < sign * self.threshold
        return "holds" if outside else "does not hold" if inside else "inconclusive"

    def __str__(self) -> str:
        where = f"more than {self.threshold:g} from zero" if self.side == "away" else f"{self.side} {self.threshold:g}"
        return f"95 % interval {where}"


def all_of(*verdicts: Verdict) -> Verdict:
    """A claim of several parts holds when all hold, and fails when any fails."""
    for verdict in verdicts:
        check_choice(verdict, "verdict", get_args(Verdict))
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if set(verdicts) == {"holds"} else "inconclusive"


def record(
    pair: Pair,
    finding: str,
    *,
    notebook: str,
    quantity: str,
    unit: str,
    interval: Interval,
    control: Interval,
    control_name: str,
    rule: Rule | str,
    verdict: Verdict,
    detail: str = "",
    split: str = "confirm",
    sample: str = "prompts",
) -> dict[str, Any]:
    """Write one finding into the pair's ledger and return it; n counts `sample` of a `split`. Of two copies of one
    model nothing holds: a rule about each model alone may be met there, and says nothing about a pair. Raises
    UserError for an unknown id."""
    check_choice(finding, "finding", CLAIMS)
    check_choice(verdict, "verdict", get_args(Verdict))
    if verdict == "holds" and len({member.identity for member in pair.members}) == 1:
        verdict, detail = "inconclusive", f"{ONE_MODEL} {detail}"
    if np.isnan(interval.estimate):
        detail = f"{NO_VALUE} {detail}"
    entry = {
        "id": finding,
        "pair": pair.name,
        "claim": CLAIMS[finding],
        "notebook": notebook,
        "quantity": quantity,
        "unit": unit,
        **_numbers(interval),
        "split": split,
        "sample": sample,
        "control": {"name": control_name, **_numbers(control)},
        "rule": str(rule),
        "verdict": verdict,
        "detail": detail,
        "models": [member.identity for member in pair.members],
    }
    path = data_dir(pair.name) / "findings.json"
    with locked(path):
        others = [row for row in load_findings(pair.name) if row["id"] != finding]
        write_records(path, sorted([*others, entry], key=lambda row: row["id"]))
    return entry


def _numbers(interval: Interval) -> dict[str, Any]:
    return {key: round(value, 4) if key != "n" else value for key, value in asdict(interval).items()}


def load_findings(pair: str) -> list[dict[str, Any]]:
    """All findings of one pair, or none when it has not been run."""
    return read_ledger(data_dir(pair) / "findings.json")


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All findings of one file, NaN where it says null; none where there is no file."""
    rows = read_json(path) if path.exists() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) >= NEEDED for row in rows):
        raise UserError(f"{path} is no ledger of findings: delete it or restore it with git")
    return [_with_nan(row) | {"control": _with_nan(row["control"])} for row in rows]


def _with_nan(told: dict[str, Any]) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in told.items()}


def sentence(entry: dict[str, Any]) -> str:
    """A finding in one sentence: verdict, number, interval, n, control."""
    control = entry["control"]
    of = " ".join(filter(None, (str(entry["n"]), entry["split"], entry["sample"])))
    return as_markdown(
        f"**{entry['id']} {entry['verdict']}** on pair `{entry['pair']}`. *{entry['claim']}* Measured: "
        f"{entry['quantity']} {entry['estimate']:.3g} {entry['unit']} "
        f"(95 % interval {entry['low']:.3g} to {entry['high']:.3g}, "
        f"n = {of}); control, {control['name']}: "
        f"{control['estimate']:.3g} ({control['low']:.3g} to {control['high']:.3g})."
        + (f" {entry['detail']}" if entry["detail"] else "")
    )


def as_markdown(text: str) -> str:
    """Markdown in which `<think>` is text, not a tag that a page would swallow, and nothing is a link or a picture;
    code spans stay as they are."""
    return re.sub(r"(`[^`]*`)|(?<!\\)<|(?<=])\(", lambda match: match[1] or rf"\{match[0]}", text)


def code_span(text: str) -> str:
    """What a model wrote as code in Markdown, whatever backticks and line ends it holds."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    room = " " if "`" in (text[:1], text[-1:]) else ""
    return ticks + room + " ".join(text.splitlines()) + room + ticks


def claim(pair: str, *findings: str) -> str:
    """The sentences of the last run on this pair for a notebook's abstract, or that there was none."""
    for name in findings:
        check_choice(name, "finding", CLAIMS)
    entries = {row["id"]: row for row in load_findings(pair)}
    known = [sentence(entries[name]) for name in findings if name in entries]
    return "\n\n".join(known) or f"Pair `{pair}` has not been run yet: run the cells below."


def table(pair: str) -> pd.DataFrame:
    """The ledger of a pair as a table, one row a finding."""
    return frame(load_findings(pair))


def frame(entries: list[dict[str, Any]]) -> pd.DataFrame:
    """Entries of a ledger as a table."""
    rows = [
        {
            "id": row["id"],
            "quantity": row["quantity"],
            "estimate": f"{row['estimate']:.3g} {row['unit']}",
            "95 %": f"{row['low']:.3g} to {row['high']:.3g}",
            "n": row["n"],
            "control": f"{row['control']['name']}: {row['control']['estimate']:.3g}",
            "verdict": row["verdict"],
        }
        for row in entries
    ]
    return pd.DataFrame(rows, columns=["id", "quantity", "estimate", "95 %", "n", "control", "verdict"])
