"""What launchers of kernels read off tensors, and what they make of gradients, as text: one for all forms."""

from __future__ import annotations

import re
from itertools import groupby

from ..backends.torch_pointwise import UnsupportedOperand
from ..kernel import Kernels
from ..torch_form.tokens import TokenWriter, level
from .site import pointer, set_apart


def known(*widths: str) -> str:
    """Widths as numbers: kernels are compiled for them, so that a width which a trace leaves open is fixed there."""
    return ", ".join(w if w.isdigit() else f"int({w})" for w in widths)


def sums_shape(programs: str, lanes: str, width: str) -> str:
    """The shape of the sums that programs leave of a parameter of every lane: programs last where a lane has one number.

    Sums along memory read whole lines; of a narrow row in every program's turn they read a part of each.
    """
    return f"{programs}, {lanes}{width}" if width else f"{lanes}, {programs}"


def over_programs(buffer: str, width: str, before: int = 0) -> str:
    """The text of the sum of what all programs left so; before: axes ahead of theirs."""
    return f"{buffer}.sum({before if width else before + 1})"


def over_heads(text: str, place: str, axis: int, count: str = "H") -> str:
    """The text of a sum over the heads, along `axis`, that share a value of a group (place 'g') or of all heads (''); count: how many
    there are, or sums over some of them."""
    if place == "h":
        return text
    # a group of one head has its sum already
    return f"({text} if G == {count} else {text}.unflatten({axis}, (G, -1)).sum({axis + 1}))" if place == "g" else f"{text}.sum({axis})"


def as_type(texts: list[str], dtype: str) -> str:
    """The text of a sum in a type."""
    total = " + ".join(texts)
    return f"({total}).to({dtype})" if len(texts) > 1 else f"{total}.to({dtype})"


def tuple_of(names: list[str]) -> str:
    """The text of several targets or values."""
    return f"{names[0]}," if len(names) == 1 else ", ".join(names)


def sizes_text(sizes: list[str]) -> str:
    """The text of several sizes; neighbours that are equal are written once."""
    found = [(size, len([*same])) for size, same in groupby(sizes)]
    return ", ".join(size if count == 1 else f"*[{size}] * {count}" for size, count in found)


def of_pointer(text: str) -> str:
    """The text of a size, `x.shape[-1]`, with the argument under the name that launchers have for it."""
    return re.sub(r"^(\w+)\.shape", lambda m: f"{set_apart(m[1])}.shape", text)


def heads_text(tokens: TokenWriter) -> str:
    """The number of heads, from the shape of an argument that has them."""
    for symbol in sorted(tokens.arguments, key=lambda s: s.kind != "input"):
        if level(symbol.per) == "h":
            return f"{pointer(symbol.name)}.shape[{2 if symbol.kind == 'input' else 0}]"
    for symbol in tokens.arguments:
        if symbol.kind == "input" and level(symbol.per) == "g":
            return f"{pointer(symbol.name)}.shape[2]"
    return "1"


def one_column(kernels: Kernels) -> None:
    """What makes its output itself gives one column a token. Raises UnsupportedOperand for an output of rows."""
    if kernels.plan.classified.recurrence.upright.written.has_rows:
        raise UnsupportedOperand("an output of several rows")
