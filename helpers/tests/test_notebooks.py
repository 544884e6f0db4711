# SPDX-License-Identifier: MIT
"""The committed notebooks are in sync, executed and clean; and they run on other pairs with small knobs."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import pytest

from helpers import __main__ as commands
from helpers.commands import run as running
from helpers.commands.run import build, execute, find_notebooks, refuse_unsynced, same_cells, scratch_copy, source_hash
from helpers.findings import load_findings
from helpers.provenance import plain_source
from helpers.store import REMARK, ROOT, UserError, read_json, sha256, sidecar_path
from helpers.tests.conftest import OF_R1, entry

SOURCES = find_notebooks(ROOT)
NAMES = [source.stem for source in SOURCES]
RUFF = shutil.which("ruff", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
SMALL = {  # beside the quick values: what three layers of 48 numbers have fewer of, and fewer tokens
    "MAX_NEW_TOKENS": "24", "MAX_AFTER": "16", "MAX_FORCED": "12", "MAX_STEERED": "12", "MAX_SAMPLED": "12",
    "MAX_ENDED": "6", "MAX_AFTER_TAG": "6", "N_GROWN": "4", "N_NEUTRAL": "6", "TOP_HEADS": "3", "N_RANDOM": "20",
    "N_NEURONS": "4", "TERMS": "4", "N_TOP": "4", "N_NODES": "8", "N_STEPS": "2", "SHOWN_TOKENS": "6", "N_HEADS": "2",
    "N_HIDDEN": "2", "BUDGETS": "[0, 4]",
}  # fmt: skip
SHORT = dict.fromkeys(("MAX_NEW_TOKENS", "MAX_AFTER", "MAX_FORCED", "MAX_STEERED"), "4")  # lazy tensors decode slowly


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_notebook_and_twin_hold_the_same_cells(source):
    assert same_cells(source, source.with_suffix(".ipynb"))


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_outputs_are_of_this_source_complete_and_without_errors(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata["executed_source_sha256"] == source_hash(jupytext.read(source).cells), "run it again"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"]
    assert "widgets" not in notebook.metadata, "widget state is not stored"
    assert not [one for one in outputs if any("widget-view" in kind for kind in one.get("data", {}))], "ids are random"
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) >= 4 and all(o["metadata"]["image/png"]["alt"] for o in pictures)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_style(source):
    notebook = jupytext.read(source)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) - len(code) >= len(code), "at least as many text cells as code cells"
    assert max(len(cell.splitlines()) for cell in code) <= 25
    for word in ("**Claim.**", "**Evidence.**", "**Caveat.**", "**Reads**"):
        assert word in notebook.cells[0].source


@pytest.mark.skipif(not RUFF, reason="needs ruff: pip install ruff")
@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_cells_are_short_as_ruff_formats_them(source, tmp_path):
    """At most 25 lines of at most 110 columns, and none that keeps ruff off; the twin itself is formatted."""
    code = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        (tmp_path / f"{number:03d}.py").write_text(cell + "\n")
    subprocess.run([RUFF, "format", "-q", "--config", ROOT / "notebooks" / ".ruff.toml", tmp_path], check=True)
    formatted = [path.read_text().splitlines() for path in sorted(tmp_path.glob("*.py"))]
    assert not [cell for cell in code if "fmt: skip" in cell or "fmt: off" in cell]
    assert max(map(len, formatted)) <= 25 and max(len(line) for lines in formatted for line in lines) <= 110
    assert formatted == [cell.splitlines() for cell in code]


def test_set_up_cells_are_identical_and_short():
    cells = [[cell for cell in jupytext.read(source).cells if cell.cell_type == "code"] for source in SOURCES]
    first, *others = {own[0].source for own in cells}
    assert not others and len(list(filter(None, first.splitlines()))) <= 10
    assert max(map(len, first.splitlines())) <= 110
    compile(first, "set-up", "exec")


def test_docstrings_name_the_notebooks_that_use_them():
    """As in "Used in notebooks 02, 04 to 06"; a notebook imports a name or reads it from its module."""
    used = {}
    for source in SOURCES:
        nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
        imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        used[int(source.stem[:2])] = imported | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    for path in (ROOT / "helpers").glob("*.py"):
        parts = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for node in (part for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)):
            if said := re.search(r"Used in notebooks? ([\d,\s\w]+)", ast.get_docstring(node) or ""):
                spans = re.findall(r"(\d\d)(?:\s+to\s+(\d\d))?", said[1])
                named = {n for first, last in spans for n in range(int(first), int(last or first) + 1)}
                assert named == {number for number, names in used.items() if node.name in names}, node.name


def test_ledger_holds_every_finding_of_these_notebooks():
    entries = {row["id"]: row for row in load_findings("smol")}
    text = "".join(source.read_text(encoding="utf-8") for source in SOURCES)
    recorded = set(re.findall(r'record\(\s*pair,\s*"(F\d\d)"', text))
    assert recorded - OF_R1.keys() == set(entries) and len(recorded) >= 8
    for row in entries.values():
        assert row["low"] <= row["estimate"] <= row["high"] and row["n"] > 1 and row["unit"]
        assert row["control"]["name"] and row["verdict"] in ("holds", "does not hold", "inconclusive")


def test_kept_readouts_are_of_this_code():
    """They would be computed again in any case; this says so before a reader has to wait for it."""
    stale, seen = [], 0
    for path in sorted((ROOT / "data" / "smol").glob("0*.meta.json")):
        code = read_json(path)["provenance"].get("code", {})
        text = next(source for source in SOURCES if source.name[:2] == path.name[:2]).read_text(encoding="utf-8")
        defined = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        own = {node.name: ast.get_source_segment(text, node) for node in defined}
        for name, told in code.items():
            module, _, function = name.partition(".")
            outer, _, inner = name.partition(".<locals>.")
            found = (
                own.get(function) if module == "__main__" else inspect.getsource(inspect.unwrap(pydoc.locate(outer)))
            )
            if inner and "lambda" not in inner:  # a function within that one
                lines = textwrap.dedent(found).splitlines()
                (node,) = (n for n in ast.walk(ast.parse("\n".join(lines))) if getattr(n, "name", "") == inner)
                found = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            seen += 1
            if "lambda" not in name and (not found or sha256(plain_source(textwrap.dedent(found)))[:12] != told):
                stale.append(f"{path.name}: {name}")
    assert seen and not stale, f"run `python -m helpers run`: {stale}"


def test_figures_are_those_of_the_notebooks():
    text = "".join(source.read_text(encoding="utf-8") for source in SOURCES)
    named = set(re.findall(r'save_figure\(\s*fig,\s*"(\w+)"', text))
    named -= set(OF_R1.values())
    assert {path.stem for path in (ROOT / "figures" / "smol").glob("*.png")} == named and len(named) >= 8
    assert {path.stem for path in (ROOT / "figures" / "smol").glob("*.svg")} == named


@pytest.fixture(scope="module")
def second_device(tmp_path_factory):
    """What a kernel needs to load its models on a device that is not the CPU; nothing where this torch has none."""
    source = ROOT / "helpers" / "tests" / "second_device.py"
    if subprocess.run([sys.executable, source], capture_output=True).returncode:
        warnings.warn("this torch has no lazy tensors: the notebooks run on the CPU alone", stacklevel=1)
        return {}
    folder = tmp_path_factory.mktemp("ipython")
    (folder / "profile_default" / "startup").mkdir(parents=True)
    shutil.copy(source, folder / "profile_default" / "startup")
    return {"R1_DEVICE": "lazy", "IPYTHONDIR": str(folder)}


@pytest.fixture(scope="module")
def executions(request, qwen_folders, tiny_autoencoder, second_device):
    """The notebooks whose tests are to run, by name, executed with small knobs in one scratch copy, two at a time."""
    scratch = scratch_copy(ROOT)
    request.addfinalizer(lambda: shutil.rmtree(scratch))
    knobs = {**SMALL, "PAIR": repr(tuple(map(str, qwen_folders))), "AUTOENCODER": repr(tiny_autoencoder), **SHORT}

    def run(name):
        source = scratch / "notebooks" / f"{name}.py"
        how = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # two kernels beside each other: a core each
        how |= {"R1_FAST": "0"} if name == "02_logits" else {}  # what is kept for speed alone can be missed
        execute(source, notebook := build(source, knobs, quick=True), second_device | how)
        rows = json.loads((scratch / "data" / "own" / "findings.json").read_text())
        return notebook, [row for row in rows if row["notebook"] == name]

    asked = {item.callspec.params["source"].stem for item in request.session.items if "runs_on" in item.name}
    with ThreadPoolExecutor(2) as pool:
        return {name: pool.submit(run, name) for name in sorted(asked)}


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_runs_on_a_tiny_pair_with_the_real_pairs_quirks(source, executions):
    """As on a GPU: weights and what is read from them are not on the CPU."""
    notebook, findings = executions[source.stem].result()
    assert findings and all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_an_edited_notebook_is_not_overwritten(tmp_path):
    source = tmp_path / "01_x.py"
    source.write_text("# %%\na = 1\n")
    jupytext.write(jupytext.reads("# %%\na = 2\n", fmt="py:percent"), tmp_path / "01_x.ipynb")
    os.utime(source, (0, 0))
    with pytest.raises(UserError, match="jupytext --sync"):
        refuse_unsynced(source)


def test_knobs_and_quick_values_change_only_the_cell_tagged_parameters(tmp_path):
    source = tmp_path / "01_x.py"
    source.write_text(
        '# %% tags=["parameters"]\nA = 1\nB = [2, 3]  # quick: [2]; b\nC = 3  # quick: 2; c\n\n# %%\nA = 1\n'
    )
    notebook = build(source, {"A": "5", "C": "7"}, quick=True)
    assert [cell.source for cell in notebook.cells] == ["A = 5\nB = [2]\nC = 7", "A = 1"]
    assert [cell.id for cell in notebook.cells] == ["01_x-00", "01_x-01"]
    assert "B = [2, 3]  # quick" in build(source).cells[0].source


def small_series(root, *knobs):
    """A project of notebooks with nothing but their knobs, and two ledgers: of smol, and of a pair of one's own."""
    (root / "notebooks").mkdir()
    for number, knob in enumerate(knobs, start=1):
        (root / "notebooks" / f"0{number}_x.py").write_text(f'# %% tags=["parameters"]\n{knob}\nSEED = 0\n')
    for pair, rows in (("smol", [entry("F02"), entry("F05", unit="of what is long " * 9)]), ("own", [entry("F02")])):
        (root / "data" / pair).mkdir(parents=True)
        (root / "data" / pair / "findings.json").write_text(json.dumps(rows))
    return root


@pytest.fixture
def executed(monkeypatch):
    """Notebooks are not executed: each only remarks something twice. Their cells as their kernels would get them."""
    given = []

    def remark(source, notebook):
        given.append(notebook.cells[0].source)
        return [f"{source.stem}: [computed]"] * 2

    monkeypatch.setattr(running, "execute", remark)
    return given


def test_a_run_tells_each_notebook_its_remarks_once_and_findings_that_fit_a_terminal(tmp_path, capsys, executed):
    running.run(root=small_series(tmp_path, "A = 1", "A = 1"))
    told, _, found = capsys.readouterr().out.partition("Findings on smol")
    each = "".join(rf"0{n}_x begins\n0{n}_x ends after \d+ s\n  0{n}_x: \[computed\]\n" for n in (1, 2))
    assert re.fullmatch(each, told)
    lines = found.splitlines()[1:]
    assert lines[0] == "F02  holds          10 (9.5 to 10.5) u" and lines[1].endswith("...") and len(lines[1]) == 80


def test_a_fresh_run_forgets_what_its_notebooks_could_reuse(tmp_path, executed):
    root = small_series(tmp_path, "A = 1", "A = 1")
    names = [f"{pair}/{name}.json" for pair in ("smol", "own") for name in ("01_a", "02_b", "answers")]
    paths = [sidecar_path(root / "data" / name) for name in names]
    for path in paths:
        path.touch()
    running.run(root=root, fresh=True, only="02")
    assert [path.exists() for path in paths] == [True, False, False, True, True, True]


@pytest.mark.parametrize(
    ("knob", "names"),
    [
        ('PAIR = "auto"  # "smol", or ("a", "b")', ["swapped"]),
        ('PAIR = ("a/base", "b/distilled")', ["own"]),
        ('PAIR = "a/base,b/distilled"', ["own"]),
        ('PAIR = "r1-7b"', ["r1-7b"]),
        ("%pip install x\nA = 1", ["swapped"]),
    ],
)
def test_the_pair_of_a_notebooks_own_knob_is_the_one_told_of(tmp_path, capsys, executed, knob, names):
    root = small_series(tmp_path, knob)
    running.run(pair="swapped", root=root)
    said = capsys.readouterr().out
    assert ("F02  holds" in said) is (names == ["own"]) and "F05" not in said, "smol's are not this run's"
    assert [f"No findings on {name}.\n" in said for name in names] == [names != ["own"]]
    assert running.pairs_of(find_notebooks(root), "swapped") == names


def test_notebooks_of_several_pairs_cannot_be_checked_together(tmp_path, monkeypatch, capsys, executed):
    root = small_series(tmp_path, 'PAIR = "auto"', 'PAIR = ("a", "b")')
    monkeypatch.setattr(commands, "ROOT", root)
    running.run(root=root)
    assert re.search("Findings on smol.*Findings on own", capsys.readouterr().out, re.S)
    for choice in ({"check": True}, {"verdicts": True}, {"keep": True, "quick": True}):
        with pytest.raises(UserError, match="several pairs .smol, own.: set PAIR to one"):
            commands.run(**choice)


def test_two_models_are_named_to_the_kernels_alone(tmp_path, monkeypatch, executed):
    """A folder by its whole path, for a kernel runs elsewhere; the notebook keeps its own line."""
    root = small_series(tmp_path, 'PAIR = "auto"')
    (root / "models" / "base").mkdir(parents=True)
    monkeypatch.chdir(root)
    running.run(pair=("models/base", "someone/distilled"), root=root)
    assert executed == [f"PAIR = ('{root}/models/base', 'someone/distilled')\nSEED = 0"]
    assert nbformat.read(root / "notebooks" / "01_x.ipynb", as_version=4).cells[0].source == 'PAIR = "auto"\nSEED = 0'


def test_the_kernel_is_this_pythons_and_remarks_leave_no_trace_in_the_notebook(tmp_path, monkeypatch):
    """Though another one is installed under the same name, where it is found first."""
    spec, source = tmp_path / "kernels" / "python3" / "kernel.json", tmp_path / "01_x.py"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python", "env": {"OTHER": "1"}}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    source.write_text(
        f"# %%\nimport os, sys\nprint(sys.executable)\nprint('{REMARK}b')\nprint(os.environ.get('OTHER'))\n\n"
        f"# %%\nprint('{REMARK}d')\n"
    )
    notebook = build(source)
    assert execute(source, notebook) == ["b", "d"]
    shown = [[output.text for output in cell.outputs] for cell in notebook.cells]
    assert shown == [[f"{sys.executable}\nNone\n"], []]
