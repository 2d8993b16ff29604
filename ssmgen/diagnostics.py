"""Errors as data. Passes raise facts; the words of a rule live in `rules`; rendering is pure.

`Diagnostic` says what is wrong, where, which law it breaks and what to type instead.
A pass gathers its diagnostics in a `Report` and raises them together at its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .source import Source, Span


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Label:
    """A place and the local fact about it."""

    span: Span
    text: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One finding: the fault in a clause, the places, the law, the edit."""

    slug: str
    severity: Severity
    title: str
    primary: Label
    secondary: tuple[Label, ...] = ()
    note: str = ""
    help: str = ""


class SpecError(Exception):
    """The user's text is at fault: carries every diagnostic of the pass that failed (exit code 1)."""

    def __init__(self, source: Source, diagnostics: tuple[Diagnostic, ...]):
        super().__init__("\n".join(f"{d.severity.value}[{d.slug}]: {d.title}" for d in diagnostics))
        self.source = source
        self.diagnostics = tuple(diagnostics)


@dataclass
class Report:
    """Collects diagnostics inside one pass."""

    source: Source
    found: list[Diagnostic] = field(default_factory=list)

    def error(self, slug: str, title: str, span: Span, label: str = "", *, secondary=(), note: str = "", help: str = "") -> None:
        self._add(Severity.ERROR, slug, title, span, label, secondary, note, help)

    def warning(self, slug: str, title: str, span: Span, label: str = "", *, secondary=(), note: str = "", help: str = "") -> None:
        self._add(Severity.WARNING, slug, title, span, label, secondary, note, help)

    def note(self, slug: str, title: str, span: Span, label: str = "", *, secondary=(), note: str = "", help: str = "") -> None:
        self._add(Severity.NOTE, slug, title, span, label, secondary, note, help)

    def _add(self, severity, slug, title, span, label, secondary, note, help) -> None:
        diagnostic = Diagnostic(slug, severity, title, Label(span, label), tuple(secondary), note, help)
        if diagnostic not in self.found:
            self.found.append(diagnostic)

    @property
    def has_errors(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self.found)

    def raise_if_errors(self) -> None:
        """Raise everything found, in source order, when an error is among it."""
        if self.has_errors:
            raise SpecError(self.source, tuple(sorted(self.found, key=lambda d: (d.primary.span, d.slug))))
