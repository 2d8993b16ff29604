"""Text and places in it: what every later stage points back to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Span:
    """Half-open range of character offsets `[start, end)` in one source."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(min(self.start, other.start), max(self.end, other.end))


NOWHERE = Span(0, 0)
"""The span of text the compiler wrote itself (a desugared declaration)."""


@dataclass(frozen=True)
class Source:
    """A specification's text under the name that messages show for it."""

    name: str
    text: str

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of `offset`, both counted from 1."""
        offset = min(max(offset, 0), len(self.text))
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from 1), without its line end."""
        lines = self.text.split("\n")
        return lines[number - 1] if 1 <= number <= len(lines) else ""

    def slice(self, span: Span) -> str:
        """The text under `span`."""
        return self.text[span.start : span.end]
