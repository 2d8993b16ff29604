"""Operands that need no copy: a column that is a number times an input is read where the input lies, and the number where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from .. import algebra
from ..backends.triton_value import size_text
from ..differentiate import inner_of
from ..spec import ONE, Apply, Expr, Ref, Symbol
from ..torch_form.tokens import TokenWriter, level
from .operands import atom
from .site import pointer
from .tokens import size_of, split_row

ZERO = object()
"""A row of zeros."""


@dataclass(frozen=True)
class Placed:
    """`number * symbol` (None: 1), a column for every row of a token: that with the number `first + row * stride` of the `count` columns
    that the symbol has a token."""

    symbol: Symbol
    numbers: tuple[Expr | None, ...]
    first: int = 0
    stride: int = 0
    count: int = 1
    absent: tuple[int, ...] = ()  # rows that are zero, whatever lies there

    @property
    def argument(self) -> str:
        """The tensor, as the launcher knows it."""
        return pointer(self.symbol.name)

    def start(self, width: str) -> str:
        """What is added to its pointer: where the columns of a chunk's first token begin."""
        heads = {"h": ["H"], "g": ["G"], "": []}[level(self.symbol.per)]
        sizes = " * ".join([*heads, *([str(self.count)] if self.count > 1 else []), width])
        return f" + base * ({sizes})" if " " in sizes else f" + base * {sizes}"

    def row(self, token: str, is_reversed: bool) -> str:
        """The index of a row's column from there; token: text of the number of its token in the chunk, o_i: the row's in it."""
        index = token_index(token, level(self.symbol.per), is_reversed)
        if self.count == 1:
            return index
        step = "" if self.stride == 0 else f" + o_i % {len(self.numbers)}" + (f" * {self.stride}" if self.stride != 1 else "")
        return f"({index}) * {self.count}{step}" + (f" + {self.first}" if self.first else "")

    @property
    def mask(self) -> str:
        """Which rows of a chunk are read."""
        return " & ".join(["m_t", *(f"(o_i % {len(self.numbers)} != {row})" for row in self.absent)])

    def beside(self, other: Placed) -> Placed | None:
        """The same as multiples of what `other` reads, 0 where it is absent; None where it reads other columns."""
        if replace(self, numbers=(), absent=()) != replace(other, numbers=(), absent=()):
            return None
        numbers = tuple(algebra.const(Fraction(0)) if row in self.absent else number for row, number in enumerate(self.numbers))
        return replace(other, numbers=numbers)


def token_index(token: str, place: str, is_reversed: bool) -> str:
    """The index of a token's numbers among those of a chunk, counted from its first token; place: 'h', 'g' or '', as of `level`."""
    if place == "":
        return f"-({token})" if is_reversed else token
    heads, own = {"h": ("H", "i_h"), "g": ("G", "i_g")}[place]
    return f"{own} - {token} * {heads}" if is_reversed else f"{token} * {heads} + {own}"


def placed(expr: Expr | None, width: str, tokens: TokenWriter) -> Placed | None:
    """`expr`, whose rows have names of their own, as a number times columns of an input, of `width` entries; None where it is no such."""
    number: Expr = algebra.const(Fraction(1))
    while expr is not None and not expr.type.is_scalar:
        factor, expr = algebra.split_scalar(expr)
        number = algebra.mul(number, factor)
        if isinstance(expr, Apply) and expr.function == "unit":
            expr = expr.args[0]
            length = algebra.add(inner_of(expr, expr), algebra.const(Fraction(1, 10**6)))
            number = algebra.mul(number, algebra.apply("rsqrt", length))
        elif isinstance(expr, Ref) and expr.name in tokens.definitions:
            expr = tokens.definitions[expr.name]
        else:
            numbers = (None if algebra.is_one(number) else number,)
            return _column(expr.name, numbers, width, tokens) if isinstance(expr, Ref) else None
    return None


def _column(name: str, numbers: tuple[Expr | None, ...], width: str, tokens: TokenWriter) -> Placed | None:
    symbol, row = split_row(tokens, name)
    symbol = symbol or next((s for s in tokens.arguments if s.name == name), None)
    if symbol is None or symbol.kind != "input":
        return None
    if row:
        is_known = all(size in tokens.counts for size, _ in symbol.type.rows.terms)
        if not is_known or symbol.type.cols == ONE or atom(size_text(symbol.type.cols).text) != width:
            return None
        return Placed(symbol, numbers, row - 1, count=size_of(tokens, symbol.type.rows))
    return Placed(symbol, numbers) if symbol.type.cols == ONE and atom(size_text(symbol.type.rows).text) == width else None


def placed_rows(exprs: Sequence[Expr | None | object], width: str, tokens: TokenWriter) -> Placed | None:
    """The same of all rows of a token, which must lie at equal distances."""
    found = {row: placed(expr, width, tokens) for row, expr in enumerate(exprs) if expr is not ZERO}
    if not found or None in found.values():
        return None
    (row, one), *others = found.items()
    stride = 0
    if others:
        other, at = others[0]
        stride, rest = divmod(at.first - one.first, other - row)
        if rest:
            return None
    first = one.first - row * stride
    if any((p.symbol, p.count, p.first) != (one.symbol, one.count, first + r * stride) for r, p in found.items()):
        return None
    numbers = tuple(found[r].numbers[0] if r in found else None for r in range(len(exprs)))
    return Placed(one.symbol, numbers, first, stride, one.count, tuple(r for r in range(len(exprs)) if r not in found))
