"""Operands that need no copy: a column that is a number times an input is read where the input lies, and the number where it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .. import algebra
from ..backends.triton_value import size_text
from ..differentiate import inner_of
from ..spec import ONE, Apply, Expr, Ref, Symbol
from ..torch_form.tokens import TokenWriter, level
from .operands import atom
from .site import pointer


@dataclass(frozen=True)
class Placed:
    """`number * symbol` (None: 1), a column for every token."""

    symbol: Symbol
    number: Expr | None

    @property
    def argument(self) -> str:
        """The tensor, as the launcher knows it."""
        return pointer(self.symbol.name)

    @property
    def row(self) -> str:
        """The index of a token's column in it."""
        return {"h": "row * H + i_h", "g": "row * G + i_g", "": "row"}[level(self.symbol.per)]


def placed(expr: Expr | None, width: str, tokens: TokenWriter) -> Placed | None:
    """`expr` as a number times an input of `width` columns; None where it is anything else."""
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
            symbol = next((s for s in tokens.arguments if isinstance(expr, Ref) and s.name == expr.name), None)
            is_column = symbol is not None and symbol.kind == "input" and symbol.type.cols == ONE
            if not is_column or atom(size_text(symbol.type.rows).text) != width:
                return None
            return Placed(symbol, None if algebra.is_one(number) else number)
    return None
