"""The examples on the pages of the documentation run, and the reference lists every public name."""

import doctest
import re
from pathlib import Path

import pytest

import ridgemm

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.glob("*.rst") if ">>>" in page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_on_pages(page, tmp_path, monkeypatch):
    # pages write where they are read
    monkeypatch.chdir(tmp_path)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testfile(str(page), module_relative=False, optionflags=options)
    assert found.attempted > 0 and found.failed == 0


def test_reference_lists_public_names():
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "api.rst").read_text(), re.MULTILINE))
    assert set(ridgemm.__all__) <= listed
