# SPDX-License-Identifier: MIT
"""Counts over what others published that the real pair wrote, kept in `data/published/` without the texts."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.prompts import echo_share
from helpers.store import ROOT, UserError, write_text
from helpers.texts import GAPS, last_number, line_breaks, measure, sources

FOLDER = ROOT / "data" / "published"
BREAKS = ["set", "gap", "line_end", "next_line", "third", "follows"]
NEEDED = {"id", "question", "model", "text", "closed_prompt", "settings"}


def published(folder: Path, *, keep: bool = False) -> bool:
    """Count the texts of a folder, say where each set comes from, and compare with the committed counts; `keep`
    commits them. True when nothing differs. Raises UserError where a file is missing or is in another form."""
    texts, breaks = texts_table(folder), breaks_table(folder)
    print(sources()[["source", "commit", "settings"]].to_string(), report(texts).to_string(), sep="\n\n")
    new = {"texts.csv": texts.to_csv(index=False), "line_breaks.csv": breaks.to_csv(index=False)}
    if keep:
        for name, text in new.items():
            write_text(FOLDER / name, text)
    differ = [name for name, text in new.items() if (FOLDER / name).read_text("utf-8") != text]
    said = f"not as committed: {', '.join(differ)}" if differ else "as committed"
    print(f"{len(texts) + len(breaks)} rows of counts, {said}")
    return not differ


def read_texts(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one set: `<name>.jsonl` or `<name>.jsonl.gz`, an object a line."""
    path = next(iter(sorted(folder.glob(f"{name}.jsonl*"))), None)
    if path is None:
        raise UserError(f"{folder} holds no {name}.jsonl or {name}.jsonl.gz: data/published/README.md says what it is")
    try:
        whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [json.loads(line) for line in whole.splitlines()]
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: {error}: fetch it again") from error
    if not rows or not all(isinstance(row, dict) and set(row) >= NEEDED for row in rows):
        raise UserError(f"{path} lacks some of {', '.join(sorted(NEEDED))}: each line is an object with these")
    return rows


def texts_table(folder: Path) -> pd.DataFrame:
    """One row a text: its set, id, model, whether the prompt had closed the thought, and all counts of `measure`."""
    rows = []
    for name in sources().index:
        texts = read_texts(folder, name)
        asked = list(dict.fromkeys(row["question"] for row in texts))
        before = dict(zip(asked, [asked[-1], *asked], strict=False))  # the control: another text's question
        answers = {row["question"]: number for row in texts if (number := _number(row)) is not None}
        for row in texts:
            rows.append(
                {"set": name, "id": row["id"], "model": row["model"], "closed_prompt": int(row["closed_prompt"])}
                | measure(row["text"])
                | {"repeats_question": int(echo_share(row["text"], row["question"]) >= 0.5)}
                | {"repeats_other_question": int(echo_share(row["text"], before[row["question"]]) >= 0.5)}
                | {"right": int(row["correct"]) if "correct" in row else _equal(row, answers.get(row["question"]))}
                | {"right_for_other_question": _equal(row, answers.get(before[row["question"]]))}
            )
    return pd.DataFrame(rows)


def _number(row: dict[str, Any]) -> float | None:
    """The answer to a question that asks for a number, which GSM8K marks by `####`; None elsewhere."""
    _, marked, number = row.get("answer", "").rpartition("####")
    return float(number.replace(",", "")) if marked else None


def _equal(row: dict[str, Any], number: float | None) -> int | None:
    return None if number is None else int(last_number(row["text"]) == number)


def breaks_table(folder: Path) -> pd.DataFrame:
    """Ends of lines in the thoughts that the model wrote and was free to close, counted by kind."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for name in sources().index:
        for row in read_texts(folder, name):
            if row["model"] == "distilled" and not row["closed_prompt"]:
                counts.update((name, *found) for found in line_breaks(row["text"]))
    return pd.DataFrame([(*key, n) for key, n in sorted(counts.items())], columns=[*BREAKS, "count"])


def report(texts: pd.DataFrame) -> pd.DataFrame:
    """The counts that a reader looks for first, one row a set, model and kind of prompt."""
    waits, of = texts.filter(regex="^waits after ").sum(axis=1), ["set", "model", "closed_prompt"]
    counts = {"texts": 1, "closings": texts["closings"], "after one new line": texts["gap_before_close"] == GAPS[0]}
    counts |= {"waits": waits, "texts with waits": waits > 0, "after a blank line": texts["waits after blank line"]}
    return texts[of].assign(**counts).groupby(of, sort=False).sum()
