# SPDX-License-Identifier: MIT
"""The executive summary and the table of findings: written from a pair's ledger into README and report."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import jupytext
from PIL import Image

from helpers.commands.bench import table
from helpers.findings import CLAIMS, MARKS, as_markdown, as_text, load_findings
from helpers.store import ROOT, UserError, figures_dir, write_text

NOTED = [f"F{number:02d}" for number in range(1, 26)]  # the claims of the notes; new findings come after them
TEMPLATE = Path(__file__).with_name("summary.md.j2")


def summary(pair: str) -> str:
    """The executive summary in Markdown. Its prose was written for smol; any other pair gets its verdicts counted.
    Raises UserError when what it reads is missing, or a verdict is another than it was written for."""
    entries = {row["id"]: row for row in load_findings(pair)}
    if pair != "smol":
        counts = Counter(row["verdict"] for row in entries.values())
        counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("holds", "does not hold", "inconclusive"))
        return f"On pair `{pair}`, of {len(CLAIMS)} findings {len(entries)} were measured: {counted}."
    if lacking := [name for name in NOTED if name not in entries]:
        raise UserError(f"the ledger of smol lacks {', '.join(lacking)}: run all notebooks before the report")
    verdicts = {name: row["verdict"] for name, row in entries.items()}
    own = {row["source"]: row for row in load_findings("published") if row["id"] == "F26"}  # R1's own texts

    def written_for(**expected: str) -> str:
        if changed := [f"{name} {verdicts[name]!r}" for name, verdict in expected.items() if verdicts[name] != verdict]:
            raise UserError(f"{TEMPLATE.name} was written for other verdicts: now {', '.join(changed)}; rewrite it")
        return ""

    known = {"R1": own, "verdicts": Counter(verdicts[name] for name in NOTED), "count": len(NOTED)}
    known |= {"written_for": written_for, "measured": measured, "percent": percent, "text": as_text, "figure": figure}
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
    return template.render(**entries, **known).strip()


def measured(entry: dict[str, Any], name: str, *, short: bool = False) -> str:
    """A part or detail of a finding by its name, two places: the number, and its interval unless `short`. Raises
    UserError when there is none."""
    named = entry["details"] | {part["name"]: part for part in entry["rules"]}
    if name not in named:
        raise UserError(f"{TEMPLATE.name} reads {name!r} of {entry['id']}: there are {', '.join(named)}")
    if isinstance(found := named[name], float):
        return f"{found:.2f}"
    return ("{estimate:.2f}" if short else "{estimate:.2f} ({low:.2f} to {high:.2f})").format(**found)


def percent(entry: dict[str, Any]) -> str:
    """An estimate in percent."""
    return f"{100 * entry['estimate']:.{3 if entry['estimate'] >= 1 else 2}g} %"


def figure(slug: str) -> str:
    """A committed figure of smol, with the alternative text it carries."""
    with Image.open(figures_dir("smol") / f"{slug}.png") as picture:
        return f"![{as_markdown(picture.info['Description'])}](figures/smol/{slug}.png)"


def findings_table(pair: str) -> str:
    """All findings as a Markdown table, those of published texts beside the pair's; ids link to their notebooks."""
    lines = ["| finding | measured | estimate (95 % interval) | n | control | verdict |", "|---|---|---|---|---|---|"]
    rows = [*load_findings(pair), *load_findings("published")]
    for row in sorted(rows, key=lambda row: row["id"]):
        about = "; ".join(filter(None, (f"{row['source']}, {', '.join(row['models'])}", row["settings"])))
        quantity = row["quantity"] + f" (published texts: {about})" * (row["evidence"] == "published")
        number, ends = as_text(row).split(" ", 1)
        cells = [row["claim"], quantity, f"{number} {row['unit']} {ends}", str(row["n"])]
        cells += [f"{row['control']['name']}: {as_text(row['control'])}", f"**{row['verdict']}**"]
        link = f"[{row['id']}]({cell_link(row['id'], row['notebook'])})"
        lines.append(f"| {link} " + " | ".join(as_markdown(cell).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def replication() -> str:
    """README's table: each claim with verdict, number and the ticks of its rule's parts, in R1's published texts, on
    the pair of R1's shape and on smol; where its own metric is another, the verdict by the odds of stopping as well."""
    ledgers = {"R1's own texts": "published", "`qwen-1.5b`": "qwen-1.5b", "`smol`": "smol"}
    found = {name: load_findings(ledger) for name, ledger in ledgers.items()}
    lines = [f"| claim | {' | '.join(ledgers)} |", "|---" * (1 + len(ledgers)) + "|"]
    for finding, claim in CLAIMS.items():
        rows = {name: [row for row in ledger if row["id"] == finding] for name, ledger in found.items()}
        if any(rows.values()):
            notebook = next(row["notebook"] for some in rows.values() for row in some)
            link = f"[{finding}]({cell_link(finding, notebook)})"
            cells = ["; ".join(map(_told, some)) for some in rows.values()]
            lines.append(f"| {link} {as_markdown(claim)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(row: dict[str, Any]) -> str:
    """One ledger's number with the verdict, and the parts of its rule where there are several."""
    parts = "".join(MARKS[part["verdict"]] for part in row["rules"])
    told = f"{MARKS[row['verdict']]} {row['estimate']:.3g}" + f" ({parts})" * (len(parts) > 1)
    return told + (f", stopping {MARKS[row['stopping']['verdict']]}" if "stopping" in row else "")


def cell_link(finding: str, notebook: str) -> str:
    """Where a finding's experiment begins: the notebook at its heading, as Jupyter names headings."""
    for cell in jupytext.read(ROOT / "notebooks" / f"{notebook}.py").cells:
        heading = cell.source.partition("\n")[0]
        if cell.cell_type == "markdown" and re.match(rf"## .*\b{finding}\b.* · ", heading):
            return f"notebooks/{notebook}.ipynb#{quote(heading.lstrip('# ').replace(' ', '-'))}"
    raise UserError(f"{notebook} has no heading for {finding}: begin one with `## {finding} · `")


def write_readme() -> bool:
    """Renew what stands between the marks of README (from the ledgers) and of the benchmarks' page; True when one
    changed."""
    pages = {"README.md": {"summary": summary("smol"), "findings": replication()}}
    pages["data/bench/README.md"] = {"bench": bench_tables()}
    changed = False
    for name, parts in pages.items():
        text = before = (ROOT / name).read_text(encoding="utf-8")
        for mark, new in parts.items():
            text = between(text, mark, new)
        if text != before:
            write_text(ROOT / name, text)
        changed |= text != before
    return changed


def bench_tables() -> str:
    """The committed benchmarks as Markdown tables."""
    return "\n\n".join(table(path) for path in sorted((ROOT / "data" / "bench").glob("*.json")))


def between(text: str, name: str, new: str | None = None) -> str:
    """The text with `new` between `<!-- name -->` and `<!-- /name -->`, or, without `new`, what stands there."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, found, rest = text.partition(start)
    inside, closed, tail = rest.partition(end)
    if not (found and closed):
        raise UserError(f"the page has no part between {start} and {end}: put both back")
    return inside.strip() if new is None else f"{head}{start}\n{new}\n{end}{tail}"
