"""The documentation is true: every specification in it passes, and the reference knows every word of the language."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from ssmgen.compiler import check
from ssmgen.diagnostics import Severity
from ssmgen.discretizations import methods
from ssmgen.functions import FUNCTIONS
from ssmgen.parse import tables
from ssmgen.resolve.declared import NORMALISERS, READOUTS, TIMES
from ssmgen.resolve.layer import OPERATIONS
from ssmgen.resolve.options import OPTIONS
from ssmgen.source import Source

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
REFERENCE = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```ssm\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    (page.name, text[: match.start()].count("\n") + 1, match[1])
    for page in PAGES
    for text in [page.read_text(encoding="utf-8")]
    for match in _BLOCK.finditer(text)
]
EXAMPLES = "\n".join(re.sub(r"#[^\n]*", "", block) for name, _, block in BLOCKS if name == "language.md")


def in_examples(words) -> list[str]:
    """The words that no block of the reference uses."""
    return [word for word in words if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", EXAMPLES)]


@pytest.mark.parametrize(("name", "line", "block"), BLOCKS, ids=[f"{name}:{line}" for name, line, _ in BLOCKS])
def test_every_specification_passes(name, line, block):
    trace = check(Source(f"{name}:{line}", block))
    assert [d.title for d in trace.warnings if d.severity is Severity.WARNING] == []


def test_every_keyword_has_an_example():
    assert in_examples(sorted(tables.load().keywords)) == []


def test_every_function_has_an_example():
    assert in_examples(FUNCTIONS) == []


def test_every_layer_operation_has_an_example():
    assert in_examples(OPERATIONS) == []


@pytest.mark.parametrize("words", [methods(), OPTIONS, READOUTS, NORMALISERS, TIMES], ids=lambda words: next(iter(words)))
def test_every_word_is_named(words):
    assert [word for word in words if not re.search(rf"`@?{word}\b", REFERENCE)] == []


def test_links_lead_to_headings():
    headings = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", REFERENCE, re.MULTILINE)}
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", REFERENCE) if link not in headings] == []
