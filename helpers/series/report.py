# SPDX-License-Identifier: MIT
"""One document of the whole series: a page that needs no network, and a .docx for Word and Google Docs."""

from __future__ import annotations

import base64
import html
import itertools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from latex2mathml.converter import convert as mathml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from helpers.checks import check_choice
from helpers.findings import load_findings, sentence
from helpers.series.run import run_command
from helpers.series.summary import between, findings_table, summary
from helpers.store import ROOT, UserError, atomic, data_dir, read_json, sha256, write_text

PAGE = Path(__file__).with_name("report.html.j2")
FORMATS = ("html", "docx")
CODE = HtmlFormatter(nowrap=True)
DATA = re.compile(r"src='data:image/png;base64,([^']*)'")
BADGE = re.compile(r"^\[!\[Open In Colab\].*\n+", re.M)


def report(pair: str = "smol", *, to: str = "all", out: Path | None = None, root: Path = ROOT) -> list[Path]:
    """Write `data/<pair>/report.html` and `.docx` (or only one of them, or to the folder `out`); return the paths.

    Raises UserError when the pair has not been run, when ledger, notebooks and stored results are of different runs,
    or pandoc's wheel is missing for .docx.
    """
    check_choice(to, "format", (*FORMATS, "all"))
    if not load_findings(pair):
        raise UserError(f"pair {pair!r} has no findings yet: run `{run_command(pair)}` first")
    refuse_stale(pair)
    folder, chapters = out or data_dir(pair), list(read_chapters(root, pair))
    written = []
    if to != "docx":
        written.append(folder / "report.html")
        write_text(written[-1], page(pair, chapters, root))
    if to != "html":
        written.append(folder / "report.docx")
        write_docx(page(pair, chapters, root, code=False), written[-1])
    return written


def page(pair: str, chapters: list[Chapter], root: Path, *, code: bool = True) -> str:
    """The report as one HTML text; without code it is what the .docx is made from."""
    template = jinja2.Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    front = Chapter("summary", root)
    front.text(f"# Summary\n\n{summary(pair)}\n\n## All findings\n\n{findings_table(pair, root)}")
    if pair == "smol":
        front.text("## " + between((root / "README.md").read_text(encoding="utf-8"), "limits"))
    return template.render(
        pair=pair,
        contents=code,  # pandoc makes its own title and contents
        chapters=[(part.name, part.headings, "\n".join(part.blocks(code=code))) for part in (front, *chapters)],
        highlighting=HtmlFormatter().get_style_defs("details.code"),
    )


def read_chapters(root: Path, pair: str) -> Iterator[Chapter]:
    """The executed notebooks, each as a chapter. Raises UserError for one that was not executed, tells of another pair
    alone, or tells other findings than the ledger."""
    ledger = load_findings(pair)
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        chapter, notebook = Chapter(path.stem, root), nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                chapter.text(cell.source)
            elif cell.cell_type == "code":
                chapter.code(cell)
        said = [
            output.get("data", {}).get("text/markdown", "")
            for cell in notebook.cells
            for output in cell.get("outputs", [])
        ]
        ran = any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
        told = {name for text in said for name in re.findall(r"\bpair `([^`]+)`", text)}
        if not ran or (told and pair not in told):  # a notebook of one's own may tell of no pair
            raise UserError(f"{path.name} has no outputs on {pair}: run `{run_command(pair)}` first")
        own = [row for row in ledger if row["notebook"] == path.stem]
        if untold := [row["id"] for row in own if not any(sentence(row) in text for text in said)]:
            raise UserError(
                f"{path.name} and the ledger are of different runs ({', '.join(untold)}): "
                f"run `{run_command(pair)} --only {path.name[:2]}` again"
            )
        yield chapter


def refuse_stale(pair: str) -> None:
    """Stop when findings and stored results are of different models: one of them is older than the other."""
    named = {name for row in load_findings(pair) for name in row["models"]}
    for path in sorted(data_dir(pair).glob("*.meta.json")):
        made_from = read_json(path)["provenance"]
        models = [made_from.get("model") or "", *(name.split()[0] for name in made_from.get("models", []))]
        if other := [name for name in models if name and name not in named]:
            raise UserError(
                f"{path.name} is of {other[0]}, the findings are of {', '.join(sorted(named))}: "
                f"run `{run_command(pair)}` again"
            )


class Chapter:
    """One chapter: blocks of HTML, gathered from Markdown, code and outputs; and its headings for the contents."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root, self.pictures = name, root, 0
        self.headings: list[tuple[int, str, str]] = []  # level, id, text
        self._blocks: list[tuple[str, str]] = []  # kind (text, code, figure), HTML

    def blocks(self, *, code: bool) -> Iterator[str]:
        """The chapter's HTML, with or without its folded code."""
        return (block for kind, block in self._blocks if code or kind != "code")

    def text(self, source: str) -> None:
        """A text cell; one that begins with `**Figure` becomes the caption of the picture before it."""
        rendered = self._markdown(BADGE.sub("", source), trusted=True)
        if source.startswith("**Figure") and self._blocks and self._blocks[-1][0] == "figure":
            caption, rest = re.match(r"\s*<p>(.*?)</p>\s*(.*)", rendered, re.S).groups()
            picture = self._blocks.pop()[1].replace("<figcaption></figcaption>", f"<figcaption>{caption}</figcaption>")
            self._blocks.append(("text", picture))
            rendered = rest
        self._blocks.append(("text", rendered))

    def code(self, cell: Any) -> None:
        """A code cell, folded, and its outputs."""
        body = highlight(cell.source, PythonLexer(), CODE)
        self._blocks.append(("code", f"<details class='code'><summary>Code</summary><pre>{body}</pre></details>"))
        for output in cell.outputs:
            self._blocks.append(self._output(output))

    def _output(self, output: Any) -> tuple[str, str]:
        data = output.get("data", {})
        if "image/png" in data:
            told = output["metadata"].get("image/png", {})  # nothing, where matplotlib shows a figure in its own way
            picture = self._picture(data["image/png"].strip(), told.get("alt", "a figure without a description"))
            return "figure", f"<figure>{picture}<figcaption></figcaption></figure>"
        if "text/markdown" in data:
            return "text", self._markdown(data["text/markdown"], trusted=False)
        if tables := re.findall(r"<table.*?</table>", data.get("text/html", ""), re.S):  # pandas has escaped the cells
            return "text", "".join(f"<div class='wide'>{table}</div>" for table in tables)
        return "text", f"<pre>{html.escape(data.get('text/plain', output.get('text', '')))}</pre>"

    def _picture(self, encoded: str, alt: str) -> str:
        self.pictures += 1
        return f"<img src='data:image/png;base64,{encoded}' alt='{html.escape(alt, quote=True)}'>"

    def _markdown(self, source: str, *, trusted: bool) -> str:
        """HTML of Markdown. What comes from an output is not trusted: tags, links and pictures in it are
        text, dollars are no formulas."""
        parser = MarkdownIt("commonmark", {"html": trusted}).enable("table")
        if trusted:
            parser.use(dollarmath_plugin, renderer=lambda text, options: _formula(text, options["display_mode"]))
        else:
            parser.disable(["image", "link", "autolink", "html_inline", "html_block"])
        parser.renderer.rules |= {
            "heading_open": self._heading,
            "image": self._image,
            "link_open": self._link,
            "table_open": lambda *_: "<div class='wide'><table>",
            "table_close": lambda *_: "</table></div>",
        }
        return parser.render(source)

    def _heading(self, tokens: Any, index: int, *_: Any) -> str:
        level, text = int(tokens[index].tag[1]), "".join(part.content for part in tokens[index + 1].children)
        found = re.findall(r"\bF\d\d\b", text.partition(" · ")[0]) if level == 2 else []
        names = [self.name] if level == 1 else found or [f"{self.name}-{len(self.headings)}"]
        self.headings.append((level, names[0], text))
        extra = "".join(f"<span id='{name}'></span>" for name in names[1:])
        return f"<{tokens[index].tag} id='{names[0]}'>{extra}"

    def _image(self, tokens: Any, index: int, *_: Any) -> str:
        encoded = base64.b64encode((self.root / tokens[index].attrs["src"]).read_bytes()).decode()
        return self._picture(encoded, tokens[index].content)

    def _link(self, tokens: Any, index: int, *_: Any) -> str:
        """Links to notebooks lead to their chapters; other files are not in the document, so theirs lead nowhere."""
        target = tokens[index].attrs["href"]
        if target.startswith("http"):
            return f"<a href='{html.escape(target, quote=True)}'>"
        if match := re.search(r"(\d\d_\w+)\.ipynb", target):
            finding = tokens[index + 1].content
            return f"<a href='#{finding if re.fullmatch(r'F[0-9]{2}', finding) else match[1]}'>"
        return "<a>"


def _formula(text: str, display: bool) -> str:
    """A formula as MathML, which browsers and Word show without a script."""
    return mathml(text, display="block" if display else "inline")


def write_docx(text: str, path: Path) -> None:
    """Pandoc's .docx of an HTML text, whole or not at all."""
    try:
        import pypandoc
    except ImportError as error:
        raise UserError("a .docx needs pandoc: `pip install pypandoc_binary`, or write only html") from error
    with atomic(path) as temporary, tempfile.TemporaryDirectory() as folder:
        text = re.sub(r"<table.*?</table>", lambda match: with_widths(match[0]), text, flags=re.S)
        text = DATA.sub(lambda match: f"src='{_unpacked(match[1], Path(folder))}'", text)
        options = ["--standalone", "--toc", "--toc-depth=2", "--metadata=lang:en"]
        pypandoc.convert_text(text, "docx", format="html", outputfile=str(temporary), extra_args=options)


def with_widths(table: str) -> str:
    """A table with widths for its columns, by their longest words and (square root) texts: Word makes all equal."""
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr.*?</tr>", table, re.S)]
    texts = [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in rows]
    asked = [
        max(max(min(len(text), 200) ** 0.5, max(map(len, text.split()[:40]), default=0) / 1.6 + 2.5) for text in column)
        for column in itertools.zip_longest(*texts, fillvalue="")
    ]
    columns = "".join(f"<col style='width: {100 * width / sum(asked):.1f}%'>" for width in asked)
    return re.sub(r"(<table[^>]*>)", rf"\1<colgroup>{columns}</colgroup>", table, count=1)


def _unpacked(encoded: str, folder: Path) -> Path:
    """A picture as a file: pandoc would write the whole address of an embedded one into the text."""
    path = folder / f"{sha256(encoded)[:16]}.png"
    path.write_bytes(base64.b64decode(encoded))
    return path
