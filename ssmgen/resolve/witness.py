"""A point at which an expression leaves its declared domain: the difference between "can" and "cannot prove"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice, product

from .. import spec
from ..bounds import INDICES, Bounds
from ..functions import FUNCTIONS
from ..intervals import WHOLE, Interval
from .scope import Scope

MAX_POINTS = 2048
MARGIN = 1e-9
_PROBES = (0.0, 1.0, -1.0, 4.0, -4.0, 12.0, -12.0, 0.25)


class _NoValue(Exception):
    pass


def witness(expr: spec.Expr, declared: Interval, found: Interval, scope: Scope) -> tuple[float, dict[str, float]] | None:
    """A value outside `declared` and the inputs and params that give it; None when none of the points tried does.

    A value on an open end counts where `found` says that the end is attained: floats alone reach limits by rounding.
    """
    bounds = scope.bounds
    try:
        leaves = _leaves(expr, scope, {})
    except _NoValue:
        return None
    choices = [_points(name, bounds) for name in leaves]
    for point in islice(product(*choices), MAX_POINTS):
        at = dict(zip(leaves, point, strict=True))
        try:
            value = _value(expr, at, scope)
        except (_NoValue, ArithmeticError, ValueError):
            continue
        if math.isfinite(value) and (_is_outside(value, declared) or _is_on_end(value, declared, found)):
            return value, at
    return None


def _is_outside(value: float, declared: Interval) -> bool:
    return value < declared.low - MARGIN * max(1.0, abs(declared.low)) or value > declared.high + MARGIN * max(1.0, abs(declared.high))


def _is_on_end(value: float, declared: Interval, found: Interval) -> bool:
    low = value == declared.low == found.low and declared.low_open and not found.low_open
    return low or (value == declared.high == found.high and declared.high_open and not found.high_open)


def _points(name: str, bounds: Bounds) -> list[float]:
    interval = bounds.known.get(name, INDICES.get(name, WHOLE))
    width = min(interval.high - interval.low, 1.0)
    ends = [
        interval.high,
        interval.low,
        interval.high - 0.01 * width,
        interval.low + 0.01 * width,
        0.5 * interval.low + 0.5 * interval.high,
    ]
    points = [p for p in (*ends, *_PROBES) if math.isfinite(p) and interval.contains(p)]
    return list(dict.fromkeys(round(p) if name in INDICES else p for p in points))


def _leaves(expr: spec.Expr, scope: Scope, found: dict[str, None]) -> tuple[str, ...]:
    """The names without a definition that the value depends on. Raises `_NoValue` for what is not one number a token."""
    match expr:
        case spec.Ref(name=name):
            definition = scope.symbols[name].definition if name in scope.symbols else None
            if definition is not None:
                _leaves(definition, scope, found)
            elif name in ("layer", "layers", "heads", "channels"):
                raise _NoValue  # bound to one another
            else:
                found[name] = None
        case spec.Const():
            pass
        case spec.Apply(function=name, args=args) if FUNCTIONS[name].value is not None:
            for argument in args:
                _leaves(argument, scope, found)
        case spec.Add(terms=terms):
            for term in terms:
                _leaves(term, scope, found)
        case spec.Mul(left=left, right=right) | spec.Div(left=left, right=right) | spec.Pow(base=left, exponent=right):
            _leaves(left, scope, found)
            _leaves(right, scope, found)
        case spec.Neg(operand=operand):
            _leaves(operand, scope, found)
        case _:
            raise _NoValue
    return tuple(found)


def _value(expr: spec.Expr, at: Mapping[str, float], scope: Scope) -> float:
    match expr:
        case spec.Ref(name=name):
            return at[name] if name in at else _value(scope.symbols[name].definition, at, scope)
        case spec.Const(value=value):
            return float(value)
        case spec.Apply(function=name, args=args):
            return FUNCTIONS[name].value(*[_value(a, at, scope) for a in args])
        case spec.Add(terms=terms):
            return math.fsum(_value(t, at, scope) for t in terms)
        case spec.Mul(left=left, right=right):
            return _value(left, at, scope) * _value(right, at, scope)
        case spec.Div(left=left, right=right):
            return _value(left, at, scope) / _value(right, at, scope)
        case spec.Pow(base=base, exponent=exponent):
            value = _value(base, at, scope) ** _value(exponent, at, scope)
            if isinstance(value, complex):
                raise _NoValue
            return value
        case spec.Neg(operand=operand):
            return -_value(operand, at, scope)
    raise _NoValue
