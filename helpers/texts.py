# SPDX-License-Identifier: MIT
"""What can be counted in a text alone, whoever wrote it: where waits stand, how lines end, where the thought closes."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import pandas as pd

from helpers.store import ROOT
from helpers.tokens import WAIT, count_keywords

CLOSE = "</think>"
A_WAIT = re.compile(r"\b[Ww]ait\b")
LINE_BREAK = re.compile(r"[ \t]*\n\s*")
GAPS = ("one new line", "blank line")
# How a line ends, first match first; what fits none is "other".
LINE_ENDS = {
    "bold mark": re.compile(r"\*\*$"),
    "sentence": re.compile(r"[.!?][)\"'”’]?$"),
    "bracket": re.compile(r"[)\]}$]$"),
    "colon": re.compile(r"[:,;]$"),
}
LISTED = re.compile(r"([-*•]|\d+[.)]|[a-z][.)])\s")
FORMULA = re.compile(r"\\[\[\]]|\$\$|\\(begin|end)\b|[=+&]")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
ANSWER_MARKERS = re.compile(r"\\boxed|final answer|\*\*answer", re.IGNORECASE)


class LineBreak(NamedTuple):
    """The end of one line in a thought, and what comes next."""

    gap: str  # one of GAPS
    line_end: str  # a key of LINE_ENDS, or "other"
    next_line: str  # "prose", "list" or "formula"
    third: int  # of the thought, by characters: 1, 2, 3
    follows: str  # "closes", "waits" or "goes on"


def line_breaks(text: str) -> list[LineBreak]:
    """Every end of a line in the thought of a text (what stands before the first `</think>`), the one right before
    the tag included. The place where a text was cut is none."""
    thought, breaks = text.partition(CLOSE)[0], []
    for match in LINE_BREAK.finditer(thought):
        before, after = thought[: match.start()], text[match.end() :]
        if not after:
            continue
        formula = FORMULA.match(after) or before.endswith((r"\[", "$$", r"\\"))
        breaks.append(
            LineBreak(
                gap=GAPS[match.group().count("\n") > 1],
                line_end=next((name for name, pattern in LINE_ENDS.items() if pattern.search(before)), "other"),
                next_line="list" if LISTED.match(after) else "formula" if formula else "prose",
                third=1 + min(2, 3 * match.end() // len(thought)),
                follows="closes" if after.startswith(CLOSE) else "waits" if A_WAIT.match(after) else "goes on",
            )
        )
    return breaks


def waits(text: str) -> Counter[tuple[str, str]]:
    """Whole words "wait" and "Wait", by (what stands before it, spelling): before it one of GAPS, "space" or "other";
    spelled as the tokens are, a space before the word being part of it."""
    return Counter((gap_before(text, m.start()), " " * (text[m.start() - 1 : m.start()] == " ") + m[0])
                   for m in A_WAIT.finditer(text))  # fmt: skip


def gap_before(text: str, place: int) -> str:
    """What stands directly before a place: one of GAPS, "space", or "other"."""
    spaces = text[len(text[:place].rstrip()) : place]
    if "\n" in spaces:
        return GAPS[spaces.count("\n") > 1]
    return "space" if spaces else "other"


def last_number(text: str) -> float | None:
    """The answer to a question that asks for one number: the last in the last `\\boxed{}` after the thought, or, where
    nothing is boxed, the last of all."""
    answer = re.sub(r",?\\[!,]", "", text.rpartition(CLOSE)[2])  # thousands, as LaTeX sets them apart
    boxed = re.findall(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", answer)
    found = NUMBER.findall(boxed[-1] if boxed else answer) or NUMBER.findall(answer)
    return float(found[-1].replace(",", "")) if found else None


def measure(text: str) -> dict[str, int | str]:
    """All counts of one text, a name each; a dictionary a text makes a table."""
    thought, closed, answer = text.partition(CLOSE)
    found, breaks = waits(text), line_breaks(text)
    prose = Counter((b.gap, b.follows) for b in breaks if b.line_end == "sentence" and b.next_line == "prose")
    return {
        "words": len(text.split()),
        "first_word": next(iter(text.split()), ""),
        "closings": text.count(CLOSE),
        "gap_before_close": gap_before(text, len(thought)) if closed else "",
        "answer_marker_before_close": int(bool(ANSWER_MARKERS.search(thought))),
        "words_after_close": len(answer.split()),
        "waits_after_close": sum(waits(answer).values()),
        "doubts_after_close": count_keywords(answer)["doubting"] if closed else 0,
        "question_marks": text.count("?"),
        **{f"waits after {gap}": sum(found[gap, word] for word in WAIT) for gap in (*GAPS, "space", "other")},
        **{f"waits '{word}'": sum(n for (_, spelling), n in found.items() if spelling == word) for word in WAIT},
        **{f"keywords {family}": n for family, n in count_keywords(text).items()},
        **{f"lines ended by {gap}": sum(b.gap == gap for b in breaks) for gap in GAPS},
        **{f"sentences, {gap}: {what}": prose[gap, what] for gap in GAPS for what in ("closes", "waits", "goes on")},
    }  # fmt: skip


def published(name: str, model: str = "distilled") -> pd.DataFrame:
    """The committed counts of one published set, one row a text, indexed by its question's id; `waits` sums over the
    places. Used in notebooks 01 and 07."""
    counts = pd.read_csv(ROOT / "data" / "published" / "texts.csv", keep_default_na=False, na_values={"right": ""})
    counts["waits"] = counts.filter(regex="^waits after ").sum(axis=1)
    return counts[(counts["set"] == name) & (counts["model"] == model)].set_index("id")
