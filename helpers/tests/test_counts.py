# SPDX-License-Identifier: MIT
"""README's table of what was tried counts what the tests try."""

import re

import pytest

from helpers.store import ROOT
from helpers.tests import test_bad_input, test_coverage, test_interruptions, test_safety

COUNTS = {
    "careless calls": len(test_bad_input.TABLE),
    "places of a generation": sum(map(len, test_interruptions.WORK.values())),
    "readouts, interventions and swaps": len(test_interruptions.INTERVENTIONS),
    "harmful texts": len(test_safety.HARMFUL),
    "kinds and sizes": len(
        test_coverage.cells(test_coverage.COVERS, test_coverage.FALLS_SHORT, test_coverage.TOO_WIDE)
    ),
}


@pytest.mark.parametrize("words", COUNTS)
def test_readme_counts_what_is_tried(words):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(rf"(\d+) {words}", text) == [str(COUNTS[words])]


def test_the_summary_counts_the_rules_that_were_made_stricter():
    """Each says so in its notebook."""
    sources = sorted((ROOT / "notebooks").glob("*.py"))
    told = sum(source.read_text(encoding="utf-8").count("made stricter after a first look") for source in sources)
    assert told == 13
    assert "Thirteen rules were made stricter" in (ROOT / "README.md").read_text(encoding="utf-8")
