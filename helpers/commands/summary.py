# SPDX-License-Identifier: MIT
"""The executive summary and the table of findings: written from a pair's ledger into README and report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import jupytext
import pandas as pd
from PIL import Image

from helpers.commands.bench import table
from helpers.findings import CLAIMS, MARKS, as_markdown, as_text, load_findings
from helpers.store import ROOT, UserError, data_dir, figures_dir, write_text

TEMPLATE = Path(__file__).with_name("summary.md.j2")


def summary() -> str:
    """The executive summary in Markdown, from the ledgers of both embedded pairs and of R1's published texts. Raises
    UserError when what it reads is missing, or a verdict is another than it was written for."""
    known: dict[str, Any] = {"R1": {row["source"]: row for row in load_findings("published") if row["id"] == "F26"}}
    known |= {"S": _by_id("smol"), "Q": _by_id("qwen-1.5b"), "written_for": written_for, "measured": measured}
    known |= {"trained": trained, "share": share, "figure": figure}
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
    return template.render(**known).strip()


def _by_id(pair: str) -> dict[str, Any]:
    return {row["id"]: row for row in load_findings(pair)}


def written_for(ledger: dict[str, Any], **expected: str) -> str:
    """Nothing, where the verdicts are those that the prose was written for."""
    found = {name: ledger.get(name, {"verdict": "missing"})["verdict"] for name in expected}
    if changed := [f"{name} {found[name]!r}" for name, verdict in expected.items() if found[name] != verdict]:
        raise UserError(f"{TEMPLATE.name} was written for other verdicts: now {', '.join(changed)}; rewrite it")
    return ""


def named(entry: dict[str, Any], name: str) -> Any:
    """A part or detail of a finding by its name. Raises UserError when there is none."""
    parts = entry["rules"] + entry.get("stopping", {"rules": []})["rules"]
    found = entry["details"] | {part["name"]: part for part in parts}
    if name not in found:
        raise UserError(f"{TEMPLATE.name} reads {name!r} of {entry['id']}: there are {', '.join(found)}")
    return found[name]


def measured(entry: dict[str, Any], name: str, places: int = 2) -> str:
    """A part or detail by its name, with its interval."""
    found = named(entry, name)
    return "{:.{p}f} ({:.{p}f} to {:.{p}f})".format(*(found[key] for key in ("estimate", "low", "high")), p=places)


def share(entry: dict[str, Any], name: str) -> str:
    """A part or detail in percent."""
    return f"{100 * named(entry, name)['estimate']:.2g} %"


def trained(pair: str, training: str, measure: str) -> str:
    """One measure of a training with its interval over questions."""
    table = pd.read_csv(data_dir(pair) / "trainings.csv").query("seed == 0")
    (row,) = table[(table["training"] == training) & (table["measure"] == measure)].itertuples()
    places = 0 if row.estimate > 10 else 2
    return f"{row.estimate:.{places}f} [{row.low:.{places}f}, {row.high:.{places}f}]"


def figure(pair: str, slug: str) -> str:
    """A committed figure, with the alternative text it carries."""
    with Image.open(figures_dir(pair) / f"{slug}.png") as picture:
        return f"![{as_markdown(picture.info['Description'])}](figures/{pair}/{slug}.png)"


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
    """README's table: each question with verdict, number and the ticks of its rule's parts, in R1's published texts, on
    the pair of R1's shape and on smol; where its own metric is another, the verdict by the odds of stopping as well."""
    ledgers = {"R1's own texts": "published", "`qwen-1.5b`": "qwen-1.5b", "`smol`": "smol"}
    found = {name: load_findings(ledger) for name, ledger in ledgers.items()}
    lines = [f"| question | {' | '.join(ledgers)} |", "|---" * (1 + len(ledgers)) + "|"]
    for finding in CLAIMS:
        rows = {name: [row for row in ledger if row["id"] == finding] for name, ledger in found.items()}
        if any(rows.values()):
            notebook = next(row["notebook"] for some in rows.values() for row in some)
            heading, address = heading_of(finding, notebook)
            cells = [f"[{finding}]({address}) {heading}", *("; ".join(map(_told, some)) for some in rows.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(row: dict[str, Any]) -> str:
    """One ledger's number with the verdict, and the parts of its rule where there are several."""
    parts = "".join(MARKS[part["verdict"]] for part in row["rules"])
    told = f"{MARKS[row['verdict']]} {row['estimate']:.3g}" + f" ({parts})" * (len(parts) > 1)
    return told + (f", stopping {MARKS[row['stopping']['verdict']]}" if "stopping" in row else "")


def cell_link(finding: str, notebook: str) -> str:
    """Where a finding's experiment begins: the notebook at its heading, as Jupyter names headings."""
    return heading_of(finding, notebook)[1]


def heading_of(finding: str, notebook: str) -> tuple[str, str]:
    """The question over a finding's experiment, and its address. Raises UserError where there is none."""
    for cell in jupytext.read(ROOT / "notebooks" / f"{notebook}.py").cells:
        heading = cell.source.partition("\n")[0]
        if cell.cell_type == "markdown" and re.match(rf"## .*\b{finding}\b.* · ", heading):
            address = f"notebooks/{notebook}.ipynb#{quote(heading.lstrip('# ').replace(' ', '-'))}"
            return heading.partition(" · ")[2], address
    raise UserError(f"{notebook} has no heading for {finding}: begin one with `## {finding} · `")


def write_readme() -> bool:
    """Renew what stands between the marks of README (from the ledgers) and of the benchmarks' page; True when one
    changed."""
    pages = {"README.md": {"summary": summary(), "findings": replication()}}
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
