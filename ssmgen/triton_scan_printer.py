"""Expressions of a scan's kernels: those of all tokens exact, those of a token for a loop that runs over every one of them.

A scan's kernels are bound by the number of their instructions. A power of 2 is one of them, a power of e five; the factor between
them goes to the part of the exponent with the fewest entries.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .backends.torch_pointwise import ATOM
from .backends.triton_pointwise import Printer
from .backends.triton_value import Text, added, combined, joined, literal_of, multiplied, past_function
from .spec import Add, Apply


class StaticPrinter(Printer):
    """`Printer` for what is made once for all tokens: a factor may be multiplied by itself as often as there are tokens."""

    def _apply(self, expr: Apply, rows: str, cols: str) -> Text:
        text = super()._apply(expr, rows, cols)
        return replace(text, text=text.text.replace("tl.exp(", "_exp(", 1)) if expr.function == "exp" else text


class TokenPrinter(Printer):
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
