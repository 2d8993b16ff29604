"""What the head of an emitted file says of a recurrence: the comment above it, and its equations."""

from __future__ import annotations

from textwrap import wrap

from ..spec import Recurrence as Spec
from ..spec_text import expr_text
from . import docstring

WIDTH = 130
"""Characters of an equation on one line."""


def _comment(spec: Spec) -> list[str]:
    """The lines of the comment above a recurrence, as a docstring may have them."""
    return [docstring(line.strip()) for line in spec.comment.strip().split("\n") if line.strip()]


def title_of(spec: Spec) -> str:
    """The first line of the comment above a recurrence."""
    lines = _comment(spec)
    return lines[0].rstrip(".") if lines else spec.name


def sources(spec: Spec) -> tuple[str, ...]:
    """What the head comment says behind its first line: the paper's own form, and where it is from."""
    return tuple(_comment(spec)[1:])


def equations(spec: Spec) -> tuple[str, ...]:
    """The spec's own lines: update or dynamics, and output."""
    lines = [f"{item.state}' = {expr_text(item.value)}" for item in spec.update if hasattr(item, "state")]
    for item in spec.dynamics:
        method = spec.discretization
        how = f",   {method.method}({', '.join(expr_text(a) for a in method.args)})" if method else ""
        lines.append(f"d{item.state}/dt = {expr_text(item.value)}{how}")
    lines += [f"{o.name} = {expr_text(o.value)}" for o in spec.outputs]
    return tuple(
        part for line in lines for part in wrap(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    )
