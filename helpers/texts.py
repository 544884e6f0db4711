# SPDX-License-Identifier: MIT
"""What can be counted in a text alone, whoever wrote it: where waits stand, how lines end, where the thought closes."""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.stats import Interval, bootstrap, exact_share, ratio_of_means, share
from helpers.store import ROOT
from helpers.tokens import THINK, WAIT, count_keywords

CLOSE = THINK[1]
A_WAIT = re.compile(r"( ?)\b([Ww]ait)\b")
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
NOTHING = Interval(np.nan, np.nan, np.nan, 0)  # where no text has what is counted
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
    return Counter((gap_before(text, m.start(2)), m[0]) for m in A_WAIT.finditer(text))


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


def rate(hits: pd.Series, places: pd.Series) -> Interval:
    """Hits per place, both counted text by text: 95 % bootstrap over texts, or, where every place is a hit or none is,
    the exact bound over places (Clopper and Pearson 1934), which takes places of one text as independent."""
    n = int(places.sum())
    if 0 < hits.sum() < n:
        return ratio_of_means(hits, places)
    return exact_share(int(hits.sum()), n) if n else NOTHING


def fork_rates(counts: pd.DataFrame) -> dict[str, Interval]:
    """Over counts of `measure`, one row a text: closings that follow one new line; and at ends of sentences before
    prose, by one new line or a blank line, how often the thought closes or "Wait" follows. Used in notebook 07."""
    after_one = counts.loc[counts["closings"] > 0, "gap_before_close"] == GAPS[0]
    found = {"closings after one new line": share(after_one) if len(after_one) > 1 else NOTHING}
    for gap in GAPS:
        for what in ("closes", "waits"):
            found[f"{what} after {gap}"] = rate(counts[f"sentences, {gap}: {what}"], _places(counts, gap))
    return found


def difference(counts: pd.DataFrame, what: str) -> Interval:
    """How much more often a thought `closes` after one new line than after a blank line, or "waits" the other way
    round, at ends of sentences before prose: difference of two rates, bootstrap over texts."""
    cells = [(counts[f"sentences, {gap}: {what}"], _places(counts, gap)) for gap in GAPS]
    (hits, places), (other_hits, other_places) = cells if what == "closes" else cells[::-1]

    def apart(a: np.ndarray, n: np.ndarray, b: np.ndarray, m: np.ndarray, axis: int) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return a.sum(axis=axis) / n.sum(axis=axis) - b.sum(axis=axis) / m.sum(axis=axis)

    there = places.sum() and other_places.sum()
    return bootstrap(hits, places, other_hits, other_places, statistic=apart) if there else NOTHING


def _places(counts: pd.DataFrame, gap: str) -> pd.Series:
    return sum(counts[f"sentences, {gap}: {what}"] for what in ("closes", "waits", "goes on"))


def sources() -> pd.DataFrame:
    """Where each published set comes from, one row a set."""
    return pd.read_csv(ROOT / "data" / "published" / "sources.csv", index_col="set", keep_default_na=False)


def published(name: str, model: str = "distilled") -> pd.DataFrame:
    """The committed counts of one published set, one row a text, indexed by its question's id; `waits` sums over the
    places. Used in notebooks 01 and 07."""
    counts = pd.read_csv(ROOT / "data" / "published" / "texts.csv", keep_default_na=False, na_values={"right": ""})
    counts["waits"] = counts.filter(regex="^waits after ").sum(axis=1)
    return counts[(counts["set"] == name) & (counts["model"] == model)].set_index("id")
