# SPDX-License-Identifier: MIT
"""The ledger `data/<pair>/findings.json`: what was claimed, measured and decided, one entry a finding."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from helpers.checks import check_choice
from helpers.pairs import Pair
from helpers.stats import Interval
from helpers.store import ROOT, UserError, data_dir, locked, read_json, write_records

NEEDED = {"id", "evidence", "source", "estimate", "control", "rules", "verdict", "details", "remark"}
Verdict = Literal["holds", "does not hold", "inconclusive"]
MARKS = {"holds": "✓", "does not hold": "✗", "inconclusive": "?"}
CLAIMS: dict[str, str] = read_json(ROOT / "data" / "claims.json")
ONE_MODEL = "The rule is met, but by two copies of one model: this is about that model, and no pair shows it."
NO_VALUE = "No number: the two models do not differ in what stands below the line."


@dataclass(frozen=True)
class Rule:
    """Written before the result: holds when the whole 95 % interval is on the named side of the threshold (away: beyond
    it in either direction), fails when it is whole on the other side, and is inconclusive when it straddles, or ends
    within `margin` of the threshold."""

    side: Literal["above", "below", "away"]
    threshold: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self.side, "side", ("above", "below", "away"))

    def verdict(self, interval: Interval) -> Verdict:
        """Decide on one interval."""
        low, high, threshold = interval.low, interval.high, self.threshold
        if self.side == "below":
            low, high, threshold = -high, -low, -threshold
        outside, inside = low > threshold + self.margin, high < threshold - self.margin
        if self.side == "away":
            outside, inside = outside or high < -threshold, max(abs(low), abs(high)) < threshold
        return "holds" if outside else "does not hold" if inside else "inconclusive"

    def __str__(self) -> str:
        where = f"{self.side} {self.threshold:.3g}" + f" by more than {self.margin:.3g}" * bool(self.margin)
        return f"more than {self.threshold:.3g} from zero" if self.side == "away" else where


@dataclass(frozen=True)
class Part:
    """One part of a claim's rule: what was measured, and what decides on it."""

    name: str
    interval: Interval
    rule: Rule

    @property
    def verdict(self) -> Verdict:
        return self.rule.verdict(self.interval)


@dataclass(frozen=True)
class Published:
    """Texts that others published: where they are from, the models that wrote them, how they were drawn."""

    name: str
    models: tuple[str, ...]
    settings: str = ""


def all_of(*verdicts: Verdict) -> Verdict:
    """A claim of several parts holds when all hold, and fails when any fails."""
    return next((one for one in ("does not hold", "inconclusive") if one in verdicts), "holds")


def record(
    source: Pair | Published,
    finding: str,
    *,
    notebook: str,
    quantity: str,
    unit: str,
    rules: Sequence[Part],
    control: tuple[str, Interval],
    stopping: Sequence[Part] = (),
    details: Mapping[str, Interval | float | int | str] | None = None,
    interval: Interval | None = None,
    split: str = "confirm",
    sample: str = "prompts",
) -> dict[str, Any]:
    """Write one finding into the source's ledger and return it; its number is `interval`, or that of the first part,
    and n counts `sample` of a `split`. `stopping`: the same claim by the log-odds of stopping, where its own metric is
    another; its verdict stands beside. All parts decide; of two copies of one model nothing holds: a rule about each
    model alone may be met there, and says nothing about a pair."""
    check_choice(finding, "finding", CLAIMS)
    details = details or {}
    names = [*(part.name for part in (*rules, *stopping)), *details]
    if len(set(names)) < len(names):
        raise UserError(f"two parts or details of {finding} have one name: tell them apart, they are read by it")
    if isinstance(source, Published):
        evidence, ledger, models, settings = "published", "published", list(source.models), source.settings
    else:
        evidence, ledger, models, settings = "pair", source.name, [member.identity for member in source.members], ""
    interval, one_model = interval or rules[0].interval, evidence == "pair" and len(set(models)) == 1
    verdict, by_odds = (all_of(*(part.verdict for part in parts)) for parts in (rules, stopping))
    remark = NO_VALUE if np.isnan(interval.estimate) else ONE_MODEL if one_model and verdict == "holds" else ""
    verdict, by_odds = ("inconclusive" if one_model and one == "holds" else one for one in (verdict, by_odds))
    entry = {"id": finding, "evidence": evidence, "source": source.name, "models": models, "settings": settings}
    entry |= {"claim": CLAIMS[finding], "notebook": notebook, "quantity": quantity, "unit": unit, **_stored(interval)}
    entry |= {"split": split, "sample": sample, "control": {"name": control[0], **_stored(control[1])}}
    entry |= {"verdict": verdict, "remark": remark, "rules": [_part(part) for part in rules]}
    if stopping:
        entry["stopping"] = {"verdict": by_odds, "rules": [_part(part) for part in stopping]}
    entry["details"] = {name: _stored(value) for name, value in details.items()}
    path = data_dir(ledger) / "findings.json"
    with locked(path):
        others = [row for row in read_ledger(path) if (row["id"], row["source"]) != (finding, source.name)]
        write_records(path, sorted([*others, entry], key=lambda row: (row["id"], row["source"])))
    return entry


def _part(part: Part) -> dict[str, Any]:
    return {"name": part.name, **asdict(part.rule), **_stored(part.interval), "verdict": part.verdict}


def _stored(value: Any) -> Any:
    """An interval as a dictionary, a number to four places or four digits, whichever are more, a text as it is."""
    if isinstance(value, Interval):
        return {key: _stored(number) for key, number in asdict(value).items()}
    if isinstance(value, str | int):
        return value
    return round(float(value), 4) if abs(value) >= 0.1 else float(f"{round(float(value), 7):.4g}")


def load_findings(ledger: str) -> list[dict[str, Any]]:
    """All findings of one pair, or of `published` texts; none when nothing was recorded."""
    return read_ledger(data_dir(ledger) / "findings.json")


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All findings of one file, NaN where it says null; none where there is no file."""
    rows = read_json(path) if path.exists() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) >= NEEDED for row in rows):
        raise UserError(f"{path} is no ledger of findings: delete it or restore it with git")
    return _with_nan(rows)


def _with_nan(value: Any) -> Any:
    """NaN for null, however deep."""
    if isinstance(value, dict):
        return {key: _with_nan(inner) for key, inner in value.items()}
    return list(map(_with_nan, value)) if isinstance(value, list) else np.nan if value is None else value


def as_text(value: Any) -> str:
    """A stored value in words: an interval with its ends, a number with three digits, a text as it is."""
    if isinstance(value, dict):
        return f"{value['estimate']:.3g} ({value['low']:.3g} to {value['high']:.3g})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def headline(entry: dict[str, Any]) -> str:
    """A finding in one sentence: verdict, number, interval, n, control."""
    of = " ".join(filter(None, (str(entry["n"]), entry["split"], entry["sample"])))
    control, published = entry["control"], entry["evidence"] == "published"
    where = f"in published texts ({entry['source']})" if published else f"on pair `{entry['source']}`"
    return as_markdown(
        f"**{entry['id']} {entry['verdict']}** {where}. *{entry['claim']}* Measured: {entry['quantity']} "
        f"{entry['estimate']:.3g} {entry['unit']} (95 % interval {entry['low']:.3g} to {entry['high']:.3g}, "
        f"n = {of}); control, {control['name']}: {as_text(control)}."
    )


def sentence(entry: dict[str, Any]) -> str:
    """A finding in full: the headline, each part of its rule with what it decides, and what stands beside it."""
    odds = entry.get("stopping") or {"rules": []}
    parts, by_odds = (
        as_markdown("\n".join(
            f"- {MARKS[p['verdict']]} {p['name']}: {as_text(p)}, {Rule(p['side'], float(p['threshold']), p['margin'])}"
            for p in some["rules"]
        ))
        for some in (entry, odds)
    )  # fmt: skip
    if by_odds:
        by_odds = f"**By the log-odds of stopping: {odds['verdict']}**\n\n{by_odds}"
    beside = "; ".join(f"{name}: {as_text(value)}" for name, value in entry["details"].items())
    beside = as_markdown(f"Beside it: {beside}." if beside else "")
    return "\n\n".join(filter(None, [headline(entry), parts, entry["remark"], by_odds, beside]))


def as_markdown(text: str) -> str:
    """Markdown in which, outside code spans, `<think>` is text and no tag, and nothing is a link or a picture."""
    return re.sub(r"(`[^`]*`)|(?<!\\)<|(?<=])\(", lambda match: match[1] or rf"\{match[0]}", text)


def code_span(text: str) -> str:
    """What a model wrote as code in Markdown, whatever backticks and line ends it holds."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    room = " " if "`" in (text[:1], text[-1:]) else ""
    return ticks + room + " ".join(text.splitlines()) + room + ticks


def claim(ledger: str, *findings: str) -> str:
    """For a notebook's abstract: headlines of the last run on this pair, if there was one, and of published texts."""
    for name in findings:
        check_choice(name, "finding", CLAIMS)
    own, theirs = (
        [headline(row) for name in findings for row in load_findings(one) if row["id"] == name]
        for one in (ledger, "published")
    )
    return "\n\n".join([*(own or [f"Pair `{ledger}` has not been run yet: run the cells below."]), *theirs])


def table(ledger: str) -> pd.DataFrame:
    """The ledger of a pair as a table, one row a finding."""
    rows = [row | {"estimate": as_text(row), "control": as_text(row["control"])} for row in load_findings(ledger)]
    return pd.DataFrame(rows, columns=["id", "quantity", "estimate", "unit", "n", "control", "verdict"])
