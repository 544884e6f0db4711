# SPDX-License-Identifier: MIT
"""Strangers' files run no programs, texts of models are texts, and no key is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt

from helpers import explorers, figures, findings
from helpers.commands.report import convert
from helpers.commands.run import build, execute
from helpers.commands.summary import findings_table
from helpers.generation import complete
from helpers.pairs import load_member
from helpers.store import ROOT, NotebookFailed, UserError, without_keys
from helpers.tests.conftest import Page, entry

# Programs in models


def settings(folder: Path, name: str = "config.json", **changed: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


class Payload:
    """Whoever unpickles it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (str(self.trace), "w")


def pickled(folder: Path, trace: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Payload(trace)}, folder / "pytorch_model.bin")


def own_code(folder: Path, trace: Path) -> None:
    parents = {"Config": "Qwen2Config", "Model": "Qwen2ForCausalLM", "Words": "PreTrainedTokenizerFast"}
    lines = [f"from transformers import {', '.join(parents.values())}", f"open({str(trace)!r}, 'w')"]
    lines += [f"class {name}({parent}): pass" for name, parent in parents.items()]
    (folder / "own.py").write_text("\n".join(lines))


OWN = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Words", "own.Words"]}


def unknown_model(folder: Path, trace: Path) -> None:
    own_code(folder, trace)
    settings(folder, model_type="unheard", auto_map=OWN)


def known_model(folder: Path, trace: Path) -> None:
    """Whose classes, tokenizer and way to generate transformers has itself."""
    own_code(folder, trace)
    settings(folder, auto_map=OWN)
    settings(folder, "tokenizer_config.json", auto_map=OWN, tokenizer_class="Words")
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate" / "generate.py")


def kernel(folder: Path, trace: Path) -> None:
    settings(folder, _attn_implementation="somebody/kernel")


REFUSED = {  # what is planted -> words of the line
    pickled: "needs config.json, tokenizer.json and weights in safetensors",
    unknown_model: "brings code of its own, which is never run here",
    kernel: "brings code of its own, the kernel somebody/kernel",
}


def planted(qwen_folders: tuple[Path, Path], place: Path, plant: Callable[[Path, Path], None]) -> Path:
    folder = Path(shutil.copytree(qwen_folders[0], place / "model"))
    plant(folder, place / "it-ran")
    return folder


@pytest.mark.parametrize("plant", REFUSED, ids=lambda plant: plant.__qualname__)
def test_a_model_that_brings_programs_is_refused_and_runs_none(qwen_folders, tmp_path, plant, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = planted(qwen_folders, tmp_path, plant)
    with pytest.raises(UserError, match=re.escape(REFUSED[plant])) as caught:
        load_member("base", str(folder), device="cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "it-ran").exists()


def test_programs_beside_what_transformers_knows_are_not_run(qwen_folders, tmp_path, qwen):
    """Its own classes serve, and read the same."""
    member = load_member("base", str(planted(qwen_folders, tmp_path, known_model)), device="cpu")
    encoded = member.encode(["The bus stops"])
    assert torch.equal(member.model(**encoded).logits, qwen.base.model(**qwen.base.encode(["The bus stops"])).logits)
    assert member.model.generate(**encoded, max_new_tokens=2).shape[1] == encoded["input_ids"].shape[1] + 2
    assert not (tmp_path / "it-ran").exists()


def test_a_chat_template_reaches_nothing_outside(qwen_folders, tmp_path):
    """It is a program of the model's, run in jinja's sandbox."""

    def plant(folder: Path, trace: Path) -> None:
        found = "cycler.__init__.__globals__.os"
        (folder / "chat_template.jinja").write_text(f"{{{{ {found}.mkdir({str(trace)!r}) }}}}")

    member = load_member("base", str(planted(qwen_folders, tmp_path, plant)), device="cpu")
    with pytest.raises(UserError, match=r"its chat template fails .* use the plain form"):
        member.prompt("Who?", "template")
    assert not (tmp_path / "it-ran").exists()


# Texts of models

HARMFUL = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "a | b |\n|---|---|\n| c | d |",
    "![x](javascript:alert(1)) [x](https://example.org) <https://example.org>",
    "``` ` <b>x</b>\n\n# Title\n\n<i>y</i>",
    "$<script>$ $\\frac{1}$ $$",
    "--><!-- </svg><script>alert(1)</script>",
    "'\" onmouseover='alert(1)' x=\"",
]
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")  # as a notebook's page reads it


def is_text(page: str, *, tags: str = "") -> bool:
    """Whether a page has no tags but plain ones and those named, and no attribute that could run anything."""
    seen = Page(page)
    plain = {"div", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "b", "br", "em", "strong", "hr"}
    plain |= set(tags.split())
    harmless = {"class", "style", "border", "src", "alt", "title", "id"}
    assert seen.tags <= plain, seen.tags - plain
    assert seen.attributes <= harmless, seen.attributes - harmless
    return True


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_the_report_and_one_code_span_in_markdown(text):
    frame = pd.DataFrame({text: [text]}, index=[text])
    shown = [{"text/markdown": text}, {"text/markdown": findings.code_span(text)}, {"text/plain": text}]
    shown += [{"text/html": frame._repr_html_(), "text/plain": text}]
    outputs = [nbformat.v4.new_output("display_data", data) for data in shown]
    outputs += [nbformat.v4.new_output("stream", text=text)]
    cell = nbformat.v4.new_code_cell("x = '</details>'", outputs=outputs, metadata={"chapter": "01_x"})
    page = convert([cell], "html").decode().rpartition("</summary>")[2].partition("</details>")[2]
    assert is_text(page)
    assert Page(page).text.count(text.strip()) >= 2, "plain output and stream show it as it is"
    page = MARKDOWN.render(f"*a* {findings.code_span(text)} *b*")
    assert is_text(page) and page.count("<code>") == 1 and page.count("<p>") == 1 and page.endswith("<em>b</em></p>\n")
    assert Page(page).text.split() == f"a {text} b".split()


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_the_explorers(qwen, text, monkeypatch):
    done = complete(qwen.base, ["Who?"], max_new_tokens=2)[0]
    monkeypatch.setattr(explorers, "complete", lambda *a, **k: [replace(done, text=text, stop=text)])
    monkeypatch.setattr(explorers, "top_tokens", lambda *a, **k: [[(text, 0.5)]])
    for make in (explorers.ask_both, explorers.next_token):
        inside = [make(qwen)]
        for part in inside:
            inside += getattr(part, "children", ())
        next(part for part in inside if isinstance(part, explorers.widgets.Button)).click()
        shown = "".join(part.value for part in inside if isinstance(part, explorers.widgets.HTML))
        assert is_text(shown) and shown.count("<b>") == 2, "a title a model"


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_a_finding(text, monkeypatch):
    """A row of README's table and the sentence under an experiment; a finding's own words may use Markdown, but no tag,
    link or picture."""
    text = text.replace("`", "").replace("\n", " ")  # a notebook puts what a model wrote into code spans
    row = entry("F01", **dict.fromkeys(("claim", "quantity", "unit", "settings"), text), details={text: text})
    row["control"]["name"] = row["rules"][0]["name"] = text
    monkeypatch.setattr("helpers.commands.summary.load_findings", lambda ledger: [row] * (ledger == "own"))
    table = MARKDOWN.render(findings_table("own"))
    assert "<td><strong>holds</strong></td>" in table, "the last cell is still there"
    assert table.count("<tr>") == 2 and table.count("<td>") == 6 and table.count("<a ") == 1
    assert is_text(table.replace('<a href="notebooks/', '<b class="').replace("</a>", "</b>"))
    assert is_text(MARKDOWN.render(findings.sentence(row)), tags="ul li")


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_beside_a_figure(text):
    assert is_text(figures.picture_html(figures.Figure(label=text)), tags="img")


# Keys

KEYS = {"HF_TOKEN": "hf_" + "Ab3" * 11, "NDIF_API_KEY": "ndif-secret-0123456789"}
LOOKS_LIKE_A_KEY = (
    "hf_[A-Za-z0-9]{30}|sk-[A-Za-z0-9_-]{30}|gh[pousr]_[A-Za-z0-9]{30}|AKIA[0-9A-Z]{16}|"
    "-----BEGIN [A-Z ]*PRIVATE KEY|[Bb]earer [A-Za-z0-9._-]{20}"
)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return list(KEYS.values())


def test_a_message_tells_no_key(keys):
    said = [f"key {keys[0]}", f"ndif {keys[1]}!", "Authorization: Bearer abc.def-123", "hf_" + "z" * 34]
    said += ["https://me:pass@example.org/simple", f"{{'headers': {{'authorization': 'Bearer {keys[0]}'}}}}"]
    told = str(UserError("; ".join(said)))
    assert not [key for key in (*keys, "abc.def-123", "hf_zz", "me:pass") if key in told], told
    assert "example.org/simple" in told and without_keys("Qwen/Qwen2.5 at 3@4, hf_hub") == "Qwen/Qwen2.5 at 3@4, hf_hub"


CELLS = """# %%
import os
from helpers import preflight
from helpers.pairs import load_pair
pair = load_pair(PAIR)
display(pair.describe(), pair, preflight.preflight(pair))

# %%
raise RuntimeError("for " + os.environ["HF_TOKEN"] + " and " + os.environ["NDIF_API_KEY"])
"""


def test_an_executed_notebook_and_its_error_hold_no_key(keys, qwen_folders, tmp_path):
    source = tmp_path / "01_x.py"
    source.write_text(CELLS.replace("PAIR", repr(tuple(map(str, qwen_folders)))))
    notebook = build(source)
    with pytest.raises(NotebookFailed, match="[*]{3}") as caught:
        execute(source, notebook, {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"})
    shown = str(notebook.cells[0].outputs)
    assert "chat template" in shown and not [key for key in keys if key in shown + str(caught.value)]


def test_nothing_that_is_committed_looks_like_a_key():
    done = subprocess.run(["git", "-C", ROOT, "grep", "-IlE", "-e", LOOKS_LIKE_A_KEY], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done
