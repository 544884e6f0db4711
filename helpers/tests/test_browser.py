# SPDX-License-Identifier: MIT
"""The explorers and the report in a real browser: JupyterLab in headless Chromium, a control moved, a look at what
changed. Needs `pip install jupyterlab playwright` and a Chromium; skipped with a line where they are not there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import nbformat
import pytest

from helpers.commands.report import report
from helpers.commands.run import build, find_notebooks, scratch_copy
from helpers.store import ROOT
from helpers.tests.conftest import wait_for
from helpers.tests.test_notebooks import SMALL

playwright = pytest.importorskip("playwright.sync_api", reason="pip install jupyterlab playwright")
pytest.importorskip("jupyterlab", reason="pip install jupyterlab playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SOURCES = {source.stem[:2]: source for source in find_notebooks(ROOT)}
NOTEBOOKS = [n if n == "02" else pytest.param(n, marks=pytest.mark.browser) for n in SOURCES]


@pytest.fixture(scope="module")
def browser(request):
    started = playwright.sync_playwright().start()
    request.addfinalizer(started.stop)
    return started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture(scope="module")
def lab(request, tmp_path_factory, qwen_folders, tiny_autoencoder):
    """JupyterLab over a scratch copy whose notebooks have small knobs and the tiny pair."""
    root = scratch_copy(ROOT)
    knobs = {"PAIR": repr(tuple(map(str, qwen_folders))), "AUTOENCODER": repr(tiny_autoencoder)}
    for source in SOURCES.values():
        notebook = build(source, {**SMALL, **knobs}, quick=True)
        del notebook.metadata["jupytext"]  # its twin has other knobs
        (root / "notebooks" / source.name).unlink()
        nbformat.write(notebook, root / "notebooks" / f"{source.stem}.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = tmp_path_factory.mktemp("jupyter")
    homes = {f"JUPYTER_{name}_DIR": str(settings / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    options = ["--no-browser", f"--port={port}", "--IdentityProvider.token=", "--allow-root", "--expose-app-in-browser"]
    options += ["--LabApp.extension_manager=readonly", "--ServerApp.disable_check_xsrf=True"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root / 'notebooks'}"]
    environment = {**os.environ, **homes, "PYTHONPATH": str(root), "TQDM_DISABLE": "1"}
    with open(settings / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    request.addfinalizer(lambda: (server.terminate(), server.wait(), shutil.rmtree(root)))
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: urllib.request.urlopen(f"{address}/api").status == 200, 60)
    return address


def open_page(browser, **options):
    """A page, and the list of errors its console shows."""
    page, errors = browser.new_page(**options), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    return page, errors


def write(control):
    control.fill("The bus stops at the corner near the old library.")
    control.press("Tab")


def slide(control):
    control.focus()
    for _ in range(3):
        control.press("ArrowRight")


# what a reader would do first with each explorer: (selector of a control, what is done to it)
MOVES = {
    "01": ("button:has-text('Ask both')", lambda control: control.click()),
    "02": ("textarea", write),
    "03": ("select >> nth=1", lambda control: control.select_option(index=1)),
    "04": (".noUi-handle >> nth=1", slide),
    "05": (".noUi-handle >> nth=0", slide),
    "06": (".noUi-handle >> nth=0", slide),
    "07": ("input[type=checkbox] >> nth=0", lambda control: control.click()),
}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_an_explorer_answers_in_jupyterlab(browser, lab, number):
    page, errors = open_page(browser, viewport={"width": 1300, "height": 1800})
    page.goto(f"{lab}/lab/tree/{SOURCES[number].stem}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function("jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status == 'idle'")
    page.evaluate(
        "(notebook => notebook.notebookConfig = {...notebook.notebookConfig, windowingMode: 'none'})"
        "(jupyterapp.shell.currentWidget.content)"
    )  # cells out of sight stay in the page
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.allRun = true) && null")
    page.wait_for_function("window.allRun", timeout=420_000)
    said = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
    assert not said, said
    explorer = page.locator(".jp-OutputArea-output:has(.widget-vbox)").last
    explorer.scroll_into_view_if_needed()
    (control, move), before = MOVES[number], explorer.inner_html()
    shown = explorer.locator(".widget-html-content").first
    move(explorer.locator(control))
    wait_for(lambda: explorer.inner_html() != before and shown.inner_text().strip(), 60)
    page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
    page.close()
    assert not errors, errors


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_the_report_opens_offline_and_fits(browser, tmp_path, width, height):
    (path,) = report("smol", to="html", out=tmp_path)
    page, errors = open_page(browser, viewport={"width": width, "height": height})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(path.as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(picture => picture.complete && picture.naturalWidth > 0)")
    page.evaluate("location.hash = '#F16'")
    wait_for(lambda: page.evaluate("Math.abs(document.getElementById('F16').getBoundingClientRect().top)") < 120, 10)
    page.close()
    assert not errors, errors
