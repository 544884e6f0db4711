# SPDX-License-Identifier: MIT
"""The executive summary and the table of findings: written from a pair's ledger into README and report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import jupytext

from helpers.findings import CLAIMS, as_markdown, load_findings
from helpers.store import ROOT, UserError, figures_dir, write_text

NOTED = [f"F{number:02d}" for number in range(1, 26)]  # the claims of the notes; new findings come after them
VERDICTS = ("holds", "does not hold", "inconclusive")
TEMPLATE = Path(__file__).with_name("summary.md.j2")


def summary(pair: str) -> str:
    """The executive summary in Markdown. Its prose was written for smol; any other pair gets its verdicts counted.

    Raises UserError when a verdict is no longer the one that the prose was written for.
    """
    entries = {row["id"]: row for row in load_findings(pair)}
    if pair != "smol":
        return f"On pair `{pair}`, of {len(CLAIMS)} findings {len(entries)} were measured: {_counted(entries)}."
    if lacking := [name for name in NOTED if name not in entries]:
        raise UserError(f"the ledger of smol lacks {', '.join(lacking)}: run all notebooks before the report")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    functions = (written_for, number, times, span, percent, control, told)
    known = {function.__name__: function for function in functions}
    known |= {
        "figure": lambda slug: figure(pair, slug),
        "verdicts": _verdicts({name: entries[name] for name in NOTED}),
        "count": len(NOTED),
    }
    known["written_for"] = lambda **verdicts: written_for(entries, verdicts)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(**entries, **known).strip()


def written_for(entries: dict[str, Any], verdicts: dict[str, str]) -> str:
    """Nothing, if these are the ledger's verdicts; else a UserError that names what changed."""
    changed = [
        f"{name} {entries[name]['verdict']!r}" for name, said in verdicts.items() if entries[name]["verdict"] != said
    ]
    if changed:
        raise UserError(
            f"{TEMPLATE.name} was written for other verdicts: now {', '.join(changed)}; rewrite what it says of them"
        )
    return ""


def number(entry: dict[str, Any]) -> str:
    """A finding's estimate, three digits."""
    return f"{entry['estimate']:.3g}"


def times(entry: dict[str, Any]) -> str:
    """Its estimate over that of its control, two digits."""
    return f"{entry['estimate'] / entry['control']['estimate']:.2g}"


def span(entry: dict[str, Any]) -> str:
    """Its 95 % interval."""
    return f"{entry['low']:.3g} to {entry['high']:.3g}"


def percent(entry: dict[str, Any]) -> str:
    """Its estimate in percent."""
    return f"{100 * entry['estimate']:.{3 if entry['estimate'] >= 1 else 2}g} %"


def control(entry: dict[str, Any], *, as_percent: bool = False) -> str:
    """The estimate of its control."""
    return percent(entry["control"]) if as_percent else number(entry["control"])


def told(entry: dict[str, Any], *phrases: str, short: bool = False) -> str:
    """The number, and its interval if it has one and `short` is not asked for, that a finding's detail tells after
    these phrases in turn.

    Raises UserError when a phrase or the number is missing.
    """
    rest = entry["detail"]
    for phrase in phrases:
        _, found, rest = rest.partition(phrase)
        if not found:
            raise UserError(f"{TEMPLATE.name} looks for {phrase!r} in the detail of {entry['id']}: not there")
    match = re.match(r"[^\d-]*(-?\d+\.?\d*)(?: (?:nats )?\[(-?[\d.]+), (-?[\d.]+)\])?", rest)
    if not match:
        raise UserError(f"{TEMPLATE.name}: no number after {phrases[-1]!r} in {entry['id']}")
    return f"{match[1]} ({match[2]} to {match[3]})" if match[2] and not short else match[1]


def figure(pair: str, slug: str) -> str:
    """A committed figure, with the alternative text it carries."""
    from PIL import Image

    path = figures_dir(pair) / f"{slug}.png"
    with Image.open(path) as picture:
        alt = picture.info["Description"]
    return f"![{as_markdown(alt)}](figures/{pair}/{slug}.png)"


def _verdicts(entries: dict[str, Any]) -> dict[str, int]:
    return {verdict: sum(row["verdict"] == verdict for row in entries.values()) for verdict in VERDICTS}


def _counted(entries: dict[str, Any]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in _verdicts(entries).items())


def findings_table(pair: str, root: Path = ROOT) -> str:
    """All findings as a Markdown table; each id links to the heading of its notebook."""
    lines = ["| finding | measured | estimate (95 % interval) | n | control | verdict |", "|---|---|---|---|---|---|"]
    for row in load_findings(pair):
        unit, other = row["unit"], row["control"]
        cells = [
            row["claim"],
            row["quantity"],
            f"{number(row)} {unit} ({span(row)})",
            str(row["n"]),
            f"{other['name']}: {number(other)} ({span(other)})",
            f"**{row['verdict']}**",
        ]
        link = f"[{row['id']}]({cell_link(row['id'], row['notebook'], root)})"
        lines.append(f"| {link} " + " | ".join(as_markdown(cell).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def cell_link(finding: str, notebook: str, root: Path = ROOT) -> str:
    """Where a finding's experiment begins: the notebook at its heading, as Jupyter names headings."""
    path = root / "notebooks" / f"{notebook}.py"
    if not path.exists():
        how = f"restore it with git, or write it with `jupytext --to py:percent notebooks/{notebook}.ipynb`"
        raise UserError(f"there is no {path}, which {finding} is of: {how}")
    for cell in jupytext.read(path).cells:
        heading = cell.source.partition("\n")[0]
        if cell.cell_type == "markdown" and re.match(rf"## .*\b{finding}\b.* · ", heading):
            return f"notebooks/{notebook}.ipynb#{quote(heading.lstrip('# ').replace(' ', '-'))}"
    raise UserError(f"{notebook} has no heading for {finding}: begin one with `## {finding} · `")


def write_readme(root: Path = ROOT) -> bool:
    """Renew what stands between README's marks from smol's ledger and the benchmarks; True when it changed."""
    path = root / "README.md"
    text = before = path.read_text(encoding="utf-8")
    parts = {"summary": summary("smol"), "findings": findings_table("smol", root), "bench": bench_tables(root)}
    for name, new in parts.items():
        text = between(text, name, new)
    if text != before:
        write_text(path, text)
    return text != before


def bench_tables(root: Path = ROOT) -> str:
    """The committed benchmarks as Markdown tables."""
    from helpers.commands.bench import table

    return "\n\n".join(table(path) for path in sorted((root / "data" / "bench").glob("*.json")))


def between(text: str, name: str, new: str | None = None) -> str:
    """The text with `new` between `<!-- name -->` and `<!-- /name -->`, or, without `new`, what stands there."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, found, rest = text.partition(start)
    inside, closed, tail = rest.partition(end)
    if not (found and closed):
        raise UserError(f"README.md has no part between {start} and {end}: put both back")
    return inside.strip() if new is None else f"{head}{start}\n{new}\n{end}{tail}"
