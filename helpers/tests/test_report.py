# SPDX-License-Identifier: MIT
"""Summary, table of findings, the one-page report and the .docx."""

from __future__ import annotations

import re
import shutil
import zipfile

import nbformat
import pytest

from helpers import findings, stats
from helpers.commands import report as report_module
from helpers.commands import summary as summary_module
from helpers.commands.report import convert, document, front, read_cells, report
from helpers.commands.summary import (
    bench_tables,
    between,
    cell_link,
    findings_table,
    replication,
    summary,
    write_readme,
)
from helpers.generation import load_combined
from helpers.readouts import last_hidden, logprobs_of
from helpers.store import ROOT, UserError
from helpers.tests.conftest import OF_R1, Page, numbers
from helpers.tokens import single_id

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def smol_page():
    return document("smol", [*front("smol"), *read_cells(ROOT, "smol")], "html").decode()


def test_readme_holds_what_the_ledger_says():
    assert between(README, "summary") == summary()
    assert between(README, "findings") == replication()
    assert between((ROOT / "data/bench/README.md").read_text(encoding="utf-8"), "bench") == bench_tables()
    assert len(README.split()) <= 2000


def test_the_summary_is_short_and_shows_its_figures():
    text = between(README, "summary")
    words = re.sub(r"!\[.*\]\(.*\)", "", text)
    assert 300 < len(words.split()) <= 600
    pictures = re.findall(r"!\[.+\]\((figures/[\w.-]+/\w+\.png)\)", text)
    assert 5 <= len(pictures) <= 7 and all((ROOT / path).exists() for path in pictures)


@pytest.fixture
def ledgers(monkeypatch):
    """The committed ledgers, to be changed."""
    found = {name: findings.load_findings(name) for name in ("smol", "qwen-1.5b", "published")}
    monkeypatch.setattr(summary_module, "load_findings", found.__getitem__)
    return found


def test_the_summary_reads_parts_and_details_by_their_names(ledgers):
    (fork,) = (row for row in ledgers["qwen-1.5b"] if row["id"] == "F26")
    name = "P(</think>) in mid-thought, one new line put there"
    fork["details"][name] = numbers(0.4)
    assert "closes there is 0.40 (" in summary()
    del fork["details"][name]
    with pytest.raises(UserError, match=re.escape(f"reads {name!r} of F26: there are ")):
        summary()


def test_a_changed_or_missing_verdict_stops_the_summary_and_a_new_finding_leaves_it(ledgers):
    said = summary()
    ledgers["smol"].append(ledgers["smol"][0] | {"id": "F28"})
    assert summary() == said
    (fork,) = (row for row in ledgers["smol"] if row["id"] == "F26")
    fork["verdict"] = "inconclusive"
    with pytest.raises(UserError, match="written for other verdicts: now F26 'inconclusive'"):
        summary()
    ledgers["smol"].remove(fork)
    with pytest.raises(UserError, match="now F26 'missing'"):
        summary()


def test_every_finding_links_to_a_heading():
    rows = [row for ledger in ("smol", "published") for row in findings.load_findings(ledger)]
    assert {row["id"] for row in rows} == findings.CLAIMS.keys() - OF_R1.keys()
    assert len(rows) == findings_table("smol").count("\n") - 1
    assert all(row["id"] in cell_link(row["id"], row["notebook"]) for row in rows)
    with pytest.raises(UserError, match="no heading for F99"):
        cell_link("F99", "01_prompts")


def test_readme_is_renewed_only_between_its_marks(tmp_path, monkeypatch):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    shutil.copytree(ROOT / "data/bench", tmp_path / "data/bench")
    path = tmp_path / "README.md"
    path.write_text(README.replace(between(README, "summary"), "old"))
    monkeypatch.setattr(summary_module, "ROOT", tmp_path)
    assert write_readme() and path.read_text() == README
    assert not write_readme()
    path.write_text("no marks")
    with pytest.raises(UserError, match="put both back"):
        write_readme()


def test_the_page_needs_nothing_else_and_has_every_figure_with_its_text(smol_page):
    seen = Page(smol_page)
    assert not seen.fetched and "@import" not in smol_page and "url(" not in smol_page
    assert {link for link in seen.links if link[0] == "#"} <= {f"#{name}" for name in seen.ids}
    assert findings.CLAIMS.keys() - OF_R1.keys() <= seen.ids and "math" in seen.tags
    assert not re.search(r"\$[^$<]*\\[a-z]+[^$<]*\$", re.sub(r"<pre>.*?</pre>", "", smol_page, flags=re.S))
    figures = list((ROOT / "figures" / "smol").glob("*.png"))
    assert len(seen.alts) == len(figures) + between(README, "summary").count("![") and all(seen.alts)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", smol_page, re.S)
    assert sum(map(bool, captions)) >= len(figures) - 3  # two asides, and one caption for two figures
    contents = smol_page.partition("</nav>")[0]
    assert "</think>" not in contents and "&lt;/think&gt;" in contents and "`" not in contents
    assert not re.search(r"<img [^>]*(width|height|style)=", smol_page), "as wide as the column"


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_a_notebook_of_ones_own_is_shown_with_what_it_holds(tmp_path, monkeypatch):
    """Without a heading, a finding or a word on the pair, and with a figure that matplotlib showed in its own way."""
    monkeypatch.setattr(report_module, "load_findings", lambda pair: [])
    shown = nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    cells = [nbformat.v4.new_markdown_cell("no heading"), nbformat.v4.new_code_cell("plt.plot([1, 2])")]
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "08_mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(UserError, match="08_mine.ipynb has no outputs: run"):
        read_cells(tmp_path, "smol")
    cells[1].outputs = [shown]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    text = document("smol", read_cells(tmp_path, "smol"), "html").decode()
    assert PIXEL in text and all(Page(text).alts) and "no heading" in text
    cells[0].source = "![a picture](nowhere.png)"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(UserError, match=r"pandoc stopped: .*Could not fetch resource nowhere.png"):
        document("smol", read_cells(tmp_path, "smol"), "html")


def test_what_our_cells_wrote_keeps_its_form(smol_page):
    """One tag or link makes a whole output plain text; none of those that were committed has one."""
    assert "<pre><code>**" not in smol_page and "<strong>F05 holds</strong>" in smol_page
    output = nbformat.v4.new_output("display_data", {"text/markdown": "**a** `<b>`, *c*\n\n- $d$\n\n|e|\n|-|\n|f|"})
    made = convert([nbformat.v4.new_code_cell("", outputs=[output], metadata={"chapter": "01_x"})], "html").decode()
    assert {"strong", "code", "em", "li", "td"} <= Page(made).tags and "<li>$d$</li>" in made


def test_the_docx_holds_figures_captions_and_headings(tmp_path):
    cells = [cell for cell in read_cells(ROOT, "smol") if cell.metadata["chapter"] in ("01_prompts", "02_logits")]
    (tmp_path / "report.docx").write_bytes(document("smol", [*front("smol"), *cells], "docx"))
    with zipfile.ZipFile(tmp_path / "report.docx") as packed:
        text = packed.read("word/document.xml").decode()
        pictures = [name for name in packed.namelist() if name.startswith("word/media/")]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    expected = sum("image/png" in data for data in shown) + between(README, "summary").count("![")
    assert text.count("<w:drawing>") == expected and len(pictures) >= expected - 3  # two figures are shown twice
    assert len(re.findall(r'descr="[^"]+"', text)) >= expected
    assert text.count('w:val="Heading1"') == 3 and text.count('w:val="ImageCaption"') >= 12
    assert "<m:oMath>" in text and "import " not in text and "TOC \\o" in text and "Aside: the words" in text
    table = text.partition("</w:tbl>")[0]
    columns = [int(width) for width in re.findall(r'<w:gridCol w:w="(\d+)"', table)]
    assert table.count("<w:tr>") == findings_table("smol").count("\n")
    assert len(columns) == 6 and columns[3] < columns[0] / 3


def test_a_ledger_of_another_run_is_refused_and_nothing_written(tmp_path, monkeypatch):
    rows = [row | {"estimate": 4.0} for row in findings.load_findings("smol") if row["id"] == "F05"]
    monkeypatch.setattr(report_module, "load_findings", lambda pair: rows)
    with pytest.raises(UserError, match="02_logits.ipynb and the ledger of smol are of different runs .F05.: run .*02"):
        report("smol", out=tmp_path)
    rows.clear()
    with pytest.raises(UserError, match="pair 'own' has no findings yet: run `python -m helpers run --pair BASE,DIS"):
        report("own", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_readmes_example_runs(qwen, data_here, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.setitem(findings.CLAIMS, "F28", "The distilled model says “ So” more after the answer.")
    combined = load_combined(qwen, n_prompts=24, n_combined=6, max_new_tokens=24)["confirm"]
    known = {"pair": qwen, "members": {m.role: m for m in qwen.members}, "combined": combined}
    known |= {"logprobs_of": logprobs_of, "last_hidden": last_hidden, "single_id": single_id}
    known |= {"stats": stats, "findings": findings}
    for block in code:
        exec(block, known)  # noqa: S102
    (entry,) = findings.load_findings("tiny-qwen2")
    assert entry["id"] == "F28" and entry["n"] > 1
