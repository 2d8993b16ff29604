"""What an expression is before training: on floats, entry by entry, at initial parameters and inputs of 0.

Where an initial value is drawn, the lanes (heads, channels) and entries take values that are spread evenly over what it is drawn
from, so that nothing is sampled and the same spec gives the same numbers.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from statistics import NormalDist

from . import hippo
from .functions import FUNCTIONS
from .intervals import INFINITY, Interval
from .recurrence import Recurrence
from .spec import ONE, Add, Apply, Const, Delayed, Diag, Div, Expr, Identity, MatMul, Mul, Neg, Pow, Ref, SizeOf, Symbol, Transpose

Number = float | complex

SPREAD = (0.6180339887498949, 0.7548776662466927, 0.5698402909980532)
"""Steps of sequences that fill (0, 1) evenly, each by itself and all together: one for every draw."""

_DRAWS = {
    "uniform": lambda u, low, high: low + (high - low) * u,
    "loguniform": lambda u, low, high: math.exp(math.log(low) + (math.log(high) - math.log(low)) * u),
    "normal": lambda u, mean, deviation: NormalDist(mean, deviation).inv_cdf(u) if deviation > 0 else mean,
}

_COMPLEX = {
    "exp": cmath.exp,
    "cis": lambda x: cmath.exp(1j * x),
    "Re": lambda x: complex(x).real,
    "Im": lambda x: complex(x).imag,
    "conj": lambda x: complex(x).conjugate(),
    "abs": abs,
    "square": lambda x: x * x,
    "sqrt": cmath.sqrt,
}


class NoValue(Exception):
    """The expression adds over rows, reads a state, or is not a number at these values."""


class InitialValues:
    """The values of one lane out of `lanes`. `of` takes an expression and the place of an entry, (row, column) from 0."""

    def __init__(self, recurrence: Recurrence, lane: int = 0, lanes: int = 1):
        self.recurrence, self.lane, self.lanes = recurrence, lane, lanes
        spec = recurrence.spec
        self.sizes = dict((*spec.dims, *spec.counts))
        self.symbols = {s.name: s for s in spec.symbols}
        self.hoisted = dict(recurrence.hoisted)
        self.numbers = {name: float(value) for name, value in (*spec.constants, *spec.counts)}
        self.maxima = {name: m for m in recurrence.maxima for name in (m.before, m.after)}
        self.draws: dict[str, int] = {}
        self.known: dict[tuple[Expr, int, int], Number] = {}

    def of(self, expr: Expr, row: int = 0, column: int = 0) -> Number:
        """One entry of `expr`; of a value with one row or one column, that one. Raises NoValue."""
        place = (expr, row if expr.type.rows != ONE else 0, column if expr.type.cols != ONE else 0)
        if place not in self.known:
            try:
                self.known[place] = self._of(*place)
            except (OverflowError, ZeroDivisionError, ValueError) as error:
                raise NoValue from error
        return self.known[place]

    def size(self, expr: Expr) -> int:
        """How many rows an expression has."""
        return int(expr.type.rows.value(self.sizes))

    def _of(self, expr: Expr, row: int, column: int) -> Number:
        match expr:
            case Const(value=value):
                return float(value)
            case SizeOf(size=size):
                return float(size.value(self.sizes))
            case Ref(name=name):
                return self._named(name, row, column)
            case Delayed():
                return 0.0
            case Add() | Neg() | Mul() | Div() | Pow():
                return _combined(expr, lambda operand: self.of(operand, row, column))
            case Transpose(operand=operand, conjugate=conjugate):
                value = self.of(operand, column, row)
                return value.conjugate() if conjugate else value
            case Diag(operand=operand):
                return self.of(operand, row) if row == column else 0.0
            case Identity():
                return float(row == column)
            case MatMul(left=left, right=right) if left.type.cols == ONE:
                return self.of(left, row) * self.of(right, 0, column)
            case Apply():
                return self._applied(expr, row, column)
        raise NoValue

    def _named(self, name: str, row: int, column: int) -> Number:
        if name in self.maxima:
            maximum = self.maxima[name]
            if name == maximum.before:
                return 0.0
            shift = 0.0 if maximum.shift is None else self.of(maximum.shift, row, column)
            return max(shift, self.of(maximum.value, row, column))
        if name in self.hoisted:
            return self.of(self.hoisted[name], row, column)
        if name in self.numbers:
            return self.numbers[name]
        if name in self.symbols:
            return self._symbol(self.symbols[name], row, column)
        built_in = {"head": self.lane, "channel": self.lane, "heads": self.lanes, "channels": self.lanes, "position": 0, "n": row}
        if name not in built_in:
            raise NoValue
        return float(built_in[name])

    def _symbol(self, symbol: Symbol, row: int, column: int) -> Number:
        if symbol.definition is not None:
            return self.of(symbol.definition, row, column)
        if symbol.kind == "param":
            return 0.0 if symbol.init is None else self._drawn(symbol, symbol.init, row)
        return typical(symbol.interval)

    def _drawn(self, symbol: Symbol, expr: Expr, row: int) -> Number:
        """An initial value, its draws at this lane's and entry's place in them."""
        match expr:
            case Apply(function=name, args=args) if name in _DRAWS:
                step = SPREAD[self.draws.setdefault(symbol.name, len(self.draws)) % len(SPREAD)]
                place = (0.5 + step * (self.lane * self._rows(symbol) + row)) % 1.0
                return _DRAWS[name](min(max(place, 1e-6), 1 - 1e-6), *(self._drawn(symbol, arg, row) for arg in args))
            case Apply(function="linspace", args=(first, last)):
                low, high, rows = self._drawn(symbol, first, row), self._drawn(symbol, last, row), self._rows(symbol)
                return low if rows == 1 else low + (high - low) * row / (rows - 1)
            case Apply(function="legs_frequencies" | "legs_low_rank" as name, args=blocks):
                modes = hippo.in_blocks(self._rows(symbol), *(int(self._drawn(symbol, b, row)) for b in blocks))
                return modes[row][name == "legs_low_rank"]
            case Apply(function="zeros" | "ones" as name):
                return float(name == "ones")
            case Apply(args=args) if args:
                return self._call(expr.function, [self._drawn(symbol, arg, row) for arg in args])
            case Add() | Neg() | Mul() | Div() | Pow():
                return _combined(expr, lambda operand: self._drawn(symbol, operand, row))
            case Ref(name="n"):
                return float(row)
        return self.of(expr, row)

    def _rows(self, symbol: Symbol) -> int:
        return int(symbol.type.rows.value(self.sizes))

    def _applied(self, expr: Apply, row: int, column: int) -> Number:
        if expr.function == "pi":
            return math.pi
        if expr.function == "i":
            return 1j
        if expr.function == "pairs":
            return self.of(expr.args[0], row // 2)
        return self._call(expr.function, [self.of(arg, row, column) for arg in expr.args])

    def _call(self, name: str, values: list[Number]) -> Number:
        if name in _COMPLEX and (any(isinstance(v, complex) for v in values) or name in ("cis", "Re", "Im", "conj")):
            return _COMPLEX[name](values[0])
        value = FUNCTIONS[name].value
        if value is None or any(isinstance(v, complex) for v in values):
            raise NoValue
        return value(*values)


def _combined(expr: Add | Neg | Mul | Div | Pow, of: Callable[[Expr], Number]) -> Number:
    """The arithmetic of one node, on what `of` gives of its operands."""
    match expr:
        case Add(terms=terms):
            return sum(map(of, terms))
        case Neg(operand=operand):
            return -of(operand)
        case Mul(left=left, right=right):
            return of(left) * of(right)
        case Div(left=left, right=right):
            return of(left) / of(right)
        case Pow(base=base, exponent=exponent):
            return of(base) ** of(exponent)


def typical(interval: Interval) -> float:
    """The number that stands for an input: 0, or where that is outside the interval the middle, or 1 from its one end."""
    if interval.contains(0.0):
        return 0.0
    if interval.is_bounded:
        return (interval.low + interval.high) / 2
    return interval.low + 1.0 if interval.low > -INFINITY else interval.high - 1.0
