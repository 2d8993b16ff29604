"""Text to the tree of what was written."""

from __future__ import annotations

from ..diagnostics import Report
from ..source import Source, Span
from ..syntax import File
from . import messages, tables
from .driver import run
from .layout import layout
from .limits import check
from .tokens import Token, tokenise
from .tree import Builder

__all__ = ["parse"]


def parse(source: Source) -> File:
    """The file's recurrences, attentions, layers and stacks, every node with its span.

    Raises SpecError with every fault found: words, brackets, statements (going on at the next one), sizes.
    """
    report = Report(source)
    grammar = tables.load()
    tokens = layout(tokenise(report), grammar.keywords, report)
    end = Token(tables.END, "", Span(len(source.text), len(source.text)))
    builder = Builder(report)
    file, faults = run(tokens, end, grammar, builder)
    builder.report_ambiguous()
    for fault in faults:
        messages.explain(fault, report)
    report.raise_if_errors()
    check(file, report)
    report.raise_if_errors()
    return file
