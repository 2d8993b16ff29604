"""Schemas of the emitted operators, as string literals of a call."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Registration:
    """An operator of the package's library, and the string literals of its schema."""

    name: str
    schema: tuple[str, ...]


def registration(name: str, arguments: list[str], results: int) -> Registration:
    """The schema of an operator as one argument of a call: string literals side by side, no line too long."""
    returned = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    text = f"{name}({', '.join(arguments)}) -> {returned}"
    width = 129 if len(text) <= 129 else 120  # what a formatter would join stands on one line
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return Registration(name, (*(f'"{line} "' for line in lines[:-1]), f'"{lines[-1]}",'))
