"""`reset at document: a = r`: at the first token of a document a let or a gate has another value.

A document's first token is the one at position 0, so `a` becomes min(position, 1) a + (1 - min(position, 1)) r. The position is part
of the state: a sequence begins a document unless it goes on from a state that has seen tokens, and packed documents each have their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .. import algebra
from ..source import NOWHERE
from ..spec import Expr, Ref, Symbol, Type


def with_resets(symbols: Iterable[Symbol], resets: tuple[tuple[str, Expr, Expr], ...], interval_of) -> tuple[Symbol, ...]:
    """The symbols, those that are reset with both values in their definitions. `interval_of(expr)`: what is known of a value."""
    value_of = {name: value for name, value, _ in resets}
    later = algebra.apply("min", Ref(Type(), NOWHERE, "position"), algebra.UNIT)
    found = []
    for symbol in symbols:
        if symbol.name not in value_of:
            found.append(symbol)
            continue
        first = algebra.mul(algebra.sub(algebra.UNIT, later), value_of[symbol.name])
        value = algebra.add(algebra.mul(later, symbol.definition), first, span=symbol.definition.span)
        interval = symbol.interval.hull(interval_of(value_of[symbol.name]))
        found.append(replace(symbol, definition=value, static=False, interval=interval))
    return tuple(found)
