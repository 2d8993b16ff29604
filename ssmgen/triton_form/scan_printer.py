"""Expressions of a scan's kernels: those of all tokens exact, those of a token for a loop that runs over every one of them.

A scan's kernels are bound by the number of their instructions. A power of 2 is one of them, a power of e five; the factor between
them goes to the part of the exponent with the fewest entries.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.triton_pointwise import Printer
from ..backends.triton_value import FACING, Text, added, combined, facing, joined, literal_of, multiplied, past_function
from ..kernel import KEY, VALUE
from ..spec import Add, Apply, Expr


class EntryPrinter(Printer):
    """`Printer` for lanes whose entries read each other."""

    def _contracted(self, left: Expr, right: Expr, rows: str, cols: str, axis: str) -> tuple[bool, list[Text]]:
        """A product with a transposed matrix sums over its rows, where they lie; what is left lies along its columns."""
        try:
            return super()._contracted(left, right, rows, cols, axis)
        except UnsupportedOperand:
            other = [FACING.get(each, each) for each in (rows, cols, axis)]
            if other == [rows, cols, axis] or {KEY, VALUE} <= {rows, cols}:
                raise
            is_negative, factors = super()._contracted(left, right, *other)
            return is_negative, [facing(factor) for factor in factors]

    def _inside(self, factors: list[Text], axis: str) -> list[Text]:
        """Where a matrix is multiplied, its mask is the column's: that has fewer numbers."""
        if not any({KEY, VALUE} <= set(factor.axes) and factor.is_zero_past(axis) for factor in factors):
            return factors
        return [factor if factor.is_zero_past(axis) else self._cleared(factor, axis) for factor in factors]

    def _cleared(self, value: Text, axis: str) -> Text:
        return Text(self._masked(value, axis), ATOM, value.axes, {**value.beyond, axis: 0.0})

    def _matrix_sum(self, name: str, operand: Expr, rows: str, cols: str) -> Text:
        if operand.type.rows != operand.type.cols:
            return super()._matrix_sum(name, operand, rows, cols)
        value = self._print(operand, KEY, VALUE)
        for axis in {"row_sum": (VALUE,), "column_sum": (KEY,), "sum": (VALUE, KEY)}[name]:
            value = self._reduced("sum", value, axis)
        return value if rows + cols in value.axes or name == "sum" else facing(value)


class StaticPrinter(EntryPrinter):
    """`Printer` for what is made once for all tokens: a factor may be multiplied by itself as often as there are tokens."""

    def _apply(self, expr: Apply, rows: str, cols: str) -> Text:
        text = super()._apply(expr, rows, cols)
        return replace(text, text=text.text.replace("tl.exp(", "_exp(", 1)) if expr.function == "exp" else text


class TokenPrinter(EntryPrinter):
    """`Printer` for what is made of every token."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sums: dict[str, tuple[str, Text]] = {}

    def _apply(self, expr: Apply, rows: str, cols: str) -> Text:
        if expr.function != "exp":
            return super()._apply(expr, rows, cols)
        exponent = self._print(expr.args[0], rows, cols)
        if exponent.is_number:
            return super()._apply(expr, rows, cols)
        is_negative, factors = self._factors(expr.args[0], rows, cols)
        scaled = multiplied([literal_of(-math.log2(math.e) if is_negative else math.log2(math.e)), *factors])
        return combined(f"tl.exp2({scaled.text})", ATOM, exponent.axes, [exponent], lambda value: past_function("exp", (value,)))

    def _contracted(self, left: Expr, right: Expr, rows: str, cols: str, axis: str) -> tuple[bool, list[Text]]:
        is_negative, factors = super()._contracted(left, right, rows, cols, axis)
        # a tile that faces another way is no sum that others could join
        stale = [factor.text for factor in factors if factor.text in self.sums and self.sums[factor.text][0] != axis]
        for text in stale:
            del self.sums[text]
        return is_negative, factors

    def summed(self, value: Text, axis: str) -> Text:
        """The sum over an axis; what it is a sum of is remembered."""
        text = super().summed(value, axis)
        self.sums[text.text] = (axis, value)
        return text

    def _sum(self, expr: Add, rows: str, cols: str) -> Text:
        """Terms that are sums over one axis are one sum."""
        parts = [part for term in expr.terms for part in self._terms(term, rows, cols)]
        for axis in dict.fromkeys(axis for axis, _ in self.sums.values()):
            inside = [(sign, self.sums[part.text][1]) for sign, part in parts if self.sums.get(part.text, ("",))[0] == axis]
            if len(inside) > 1 and len({joined([text]) for _, text in inside}) == 1:
                rest = [(sign, part) for sign, part in parts if self.sums.get(part.text, ("",))[0] != axis]
                parts = [*rest, (False, self.summed(added(inside), axis))]
        return added(parts)
