"""Words of op.py: tuples, targets, layouts and numbers as text."""

from __future__ import annotations

from fractions import Fraction

from .spec import Symbol, Type


def tuple_text(texts: list[str]) -> str:
    """A tuple of names."""
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def target_text(names: list[str]) -> str:
    """Names to unpack into; one name needs its comma."""
    return f"({names[0]},)" if len(names) == 1 else ", ".join(names)


def vector_text(type: Type) -> str:
    """The width of a column or row."""
    return str(type.cols if type.is_row else type.rows)


def layout_text(symbol: Symbol) -> str:
    """The axes of an argument."""
    axes = ["B", "T"] if symbol.kind == "input" else []
    axes += {"head": ["H"], "channel": ["C"], "group": ["G"]}.get(symbol.per, [])
    axes += [] if symbol.type.is_scalar else [str(symbol.type.rows)]
    axes += [] if symbol.type.is_scalar or symbol.type.is_column else [str(symbol.type.cols)]
    return f"[{', '.join(axes)}]"


def number_text(value: Fraction) -> str:
    """A number as Python writes it."""
    return repr(float(value))
