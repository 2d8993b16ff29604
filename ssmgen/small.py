"""A recurrence at small sizes: the arguments of its functions, and dims at which every one of its shapes is whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from . import spec
from .expressions import nodes

ODD = (5, 3, 7, 2, 9, 4)
"""Multipliers of the sizes, in order of declaration: odd, and different from each other."""


def arguments_of(recurrence: spec.Recurrence) -> tuple[list[spec.Symbol], list[spec.Symbol]]:
    """Inputs and learned params, in the order of the emitted functions."""
    given = [s for s in recurrence.symbols if s.definition is None]
    return [s for s in given if s.kind != "param"], [s for s in given if s.kind == "param"]


def previous_input(symbol: spec.Symbol) -> spec.Symbol:
    """What the token before had of a value, as an input: `x[-1]`, one a head unless all share it."""
    per = symbol.per if symbol.per in ("layer", "channel") else "head"
    return replace(symbol, name=f"{symbol.name}[-1]", kind="input", definition=None, domain=None, per=per)


def whole_factors(recurrence: spec.Recurrence) -> dict[str, int]:
    """What every dim must be a multiple of for every shape of the spec to be whole, and for pairs to be pairs."""
    factors = {name: 1 for name, _ in recurrence.dims}
    for size in _all_sizes(recurrence):
        for name, coefficient in size.terms:
            if name in factors:
                factors[name] = math.lcm(factors[name], coefficient.denominator)
    for size in _even_sizes(recurrence):
        for name, coefficient in size.terms:
            if name in factors:
                factors[name] = math.lcm(factors[name], 2 * coefficient.denominator)
    return factors


def small_sizes(recurrence: spec.Recurrence, *, tiny: bool = False) -> dict[str, int]:
    """Small sizes for every dim that make every shape of the spec whole: odd where nothing asks for a factor."""
    factors = whole_factors(recurrence)
    odd = (3, 2, 3, 2, 3, 2) if tiny else ODD
    sizes = {name: factor * (odd[i % len(odd)] if factor == 1 or not tiny else 1) for i, (name, factor) in enumerate(factors.items())}
    return sizes | dict(recurrence.counts)


def all_nodes(recurrence: spec.Recurrence):
    """Every node of every expression of a recurrence."""
    values = [s.definition for s in recurrence.symbols if s.definition is not None]
    for item in recurrence.update:
        values += [a.value for a in (item.body if isinstance(item, spec.MicroLoop) else (item,))]
    values += [item.value for item in (*recurrence.dynamics, *recurrence.outputs)]
    values += [item.before for item in recurrence.dynamics if item.before is not None]
    values += recurrence.discretization.args if recurrence.discretization is not None else ()
    for value in values:
        yield from nodes(value)


def delayed_in(values: Iterable[spec.Expr]) -> set[str]:
    """The names whose previous values are read, as delayed ones or under the name `x[-1]`."""
    names = set()
    for node in (node for value in values for node in nodes(value)):
        if isinstance(node, spec.Delayed):
            names.add(node.name)
        elif isinstance(node, spec.Ref) and node.name.endswith("[-1]"):
            names.add(node.name.removesuffix("[-1]"))
    return names


def _all_sizes(recurrence: spec.Recurrence):
    for typed in (*recurrence.symbols, *recurrence.states, *all_nodes(recurrence)):
        yield typed.type.rows
        yield typed.type.cols


def _even_sizes(recurrence: spec.Recurrence):
    for node in all_nodes(recurrence):
        if isinstance(node, (spec.Rot, spec.Skew)):
            yield node.type.rows
        elif isinstance(node, spec.Apply) and node.function == "rope":
            type_ = node.args[0].type
            yield type_.rows if type_.cols == spec.ONE else type_.cols
