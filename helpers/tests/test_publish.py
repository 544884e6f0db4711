# SPDX-License-Identifier: MIT
"""Badges, the set-up cell, and what it installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import jupytext
import nbformat
import pytest
from packaging.utils import canonicalize_name

from helpers.commands.install import REQUIREMENTS, asked, environment, missing
from helpers.commands.publish import current_commit, publish
from helpers.commands.run import build, find_notebooks, same_cells, source_hash
from helpers.store import ROOT, UserError, cache_dir
from helpers.tests.test_notebooks import SMALL

# What Colab's GPU runtime had on 2026-08-19 of what requirements.txt names (googlecolab/backend-info, pip-freeze).
COLAB = {
    "torch": "2.11.0", "transformers": "5.15.0", "accelerate": "1.14.0", "safetensors": "0.8.0", "peft": "0.20.0",
    "numpy": "2.1.3", "pandas": "2.2.3", "scipy": "1.16.3", "matplotlib": "3.10.0", "ipywidgets": "7.7.1",
    "ipykernel": "6.17.1", "jupytext": "1.19.5", "nbclient": "0.10.4", "tqdm": "4.67.3", "typer": "0.27.1",
}  # fmt: skip


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def copy(tmp_path):
    """A repository with notebooks, which are not executed, helpers and README, committed."""
    root = tmp_path / "project"
    for name in ("notebooks", "helpers", "data"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    for name in ("README.md", "requirements.txt"):
        shutil.copy2(ROOT / name, root / name)
    for source in find_notebooks(root):
        nbformat.write(build(source), source.with_suffix(".ipynb"))
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return root


def test_stamps_are_everywhere_once_and_can_be_renewed(copy):
    publish("someone/first", root=copy)
    git(copy, "commit", "-qam", "stamped")
    commit = publish("fork-of/second.one", branch="dev", root=copy)
    pages = [copy / "README.md", *find_notebooks(copy)]
    for path in pages:
        text = path.read_text()
        notebook = "01_prompts" if path.name == "README.md" else path.stem
        assert text.count("Open In Colab") == 1 and "someone/first" not in text
        assert f"github/fork-of/second.one/blob/dev/notebooks/{notebook}.ipynb" in text
    for source in find_notebooks(copy):
        built = source.with_suffix(".ipynb")
        notebook = nbformat.read(built, as_version=4)
        code = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
        assert 'REPOSITORY = "https://github.com/fork-of/second.one"  # @param' in code
        assert f'COMMIT = "{commit}"  # @param' in code
        assert same_cells(source, built)
        assert notebook.metadata["executed_source_sha256"] == source_hash(jupytext.read(source).cells)


def test_what_git_says_is_told_in_one_line(tmp_path):
    git(tmp_path, "init", "-q")
    with pytest.raises(UserError, match=r"git tells no commit of .*unknown revision.*commit first") as caught:
        current_commit(tmp_path)
    assert "\n" not in str(caught.value)


def set_up(folder, **form):
    """Run the set-up cell as a script in a folder, its form fields filled in."""
    notebook = jupytext.read(find_notebooks(ROOT)[0])
    code = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for name, value in form.items():
        code = code.replace(f'{name} = ""', f'{name} = "{value}"')
    code += "\nimport helpers\nprint(helpers.__file__)"
    return subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True)


def test_a_notebook_alone_fetches_the_rest_at_its_commit(copy, tmp_path):
    old = current_commit(copy)
    (copy / "helpers" / "later.py").write_text("")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "later")
    alone = tmp_path / "alone"
    alone.mkdir()
    assert "fill in REPOSITORY" in set_up(alone).stderr and not list(alone.iterdir())
    for _ in range(2):  # the second time all is there
        done = set_up(alone, REPOSITORY=f"file://{copy}", COMMIT=old)
        assert done.stdout.strip() == str(alone / "why-r1" / "helpers" / "__init__.py"), done.stderr
    assert not (alone / "why-r1" / "helpers" / "later.py").exists()
    inside = set_up(copy / "notebooks")
    assert inside.stdout.strip() == str(copy / "helpers" / "__init__.py")


def test_only_what_is_missing_is_installed():
    text = "numpy>=2.0  # arrays\nno-such-package>=1\ntorch>=999\n# Documents and tests\nanother-one\n"
    assert [wanted.name for wanted in missing(text)] == ["no-such-package", "torch"]
    assert not missing(REQUIREMENTS.read_text())


WANTED = {canonicalize_name(need.name): need.specifier for need in asked(REQUIREMENTS.read_text())}


def test_colabs_versions_and_the_environments_of_results_meet_the_requirements():
    assert all(WANTED.values()), "every line names a version"
    assert not [name for name, version in COLAB.items() if version not in WANTED[name]]
    for text in ((ROOT / "data" / "smol" / "environment.txt").read_text(), environment()):
        found = dict(line.split("==") for line in text.splitlines()[1:])
        assert not [name for name, allowed in WANTED.items() if name not in found or found[name] not in allowed]


@pytest.mark.colab
@pytest.mark.parametrize("number", os.environ.get("R1_COLAB_NOTEBOOKS", "01").split(","))
def test_a_notebook_alone_runs_with_colabs_versions(copy, tmp_path, number):
    """An environment with Colab's versions (its torch: a CPU build), a stand-in for google.colab, one notebook."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "colab"], check=True)
    python = tmp_path / "colab" / "bin" / "python"
    pins = [f"{name}=={version}" for name, version in COLAB.items() if name != "torch"]
    pins += [os.environ.get("R1_COLAB_TORCH", "torch"), "nbconvert==7.17.1", "notebook==6.5.7"]
    subprocess.run([python, "-m", "pip", "install", "-q", *pins], check=True)
    stand_in = next((tmp_path / "colab" / "lib").glob("python*/site-packages")) / "google" / "colab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("")
    alone = tmp_path / "content"
    alone.mkdir()
    source = next(path for path in find_notebooks(ROOT) if path.stem.startswith(number))
    notebook = build(source, SMALL, quick=True)
    for cell in notebook.cells:
        cell.source = cell.source.replace('REPOSITORY = ""', f'REPOSITORY = "file://{copy}"')
    nbformat.write(notebook, alone / "alone.ipynb")
    freeze = {"args": [python, "-m", "pip", "freeze"], "capture_output": True, "check": True, "text": True}
    before = set(subprocess.run(**freeze).stdout.split())
    environment = {**os.environ, "R1_CACHE": str(cache_dir()), "HF_HUB_OFFLINE": "1", "VIRTUAL_ENV": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    command = [python, "-m", "jupyter", "execute", "--inplace", "alone.ipynb"]
    done = subprocess.run(command, cwd=alone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    after = set(subprocess.run(**freeze).stdout.split())
    assert before <= after, "nothing that was there is changed"
    added = {line.partition("==")[0] for line in after - before}
    assert "nnsight" in added and not {"pytest", "pypandoc-binary"} & added
    executed = nbformat.read(alone / "alone.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
