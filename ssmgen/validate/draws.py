"""What a validation draws: sizes, parameters and values of a token, as exact rationals."""

from __future__ import annotations

from fractions import Fraction

from ..expressions import nodes
from ..small import all_nodes, whole_factors
from ..spec import ONE, Element, Ref, SumOver
from .meaning import Complex, Functions


def sizes_of(recurrence) -> dict[str, int]:
    """Small sizes; the dims that count rows as they are."""
    counts = _counts(recurrence)
    spec = recurrence.spec
    factors = whole_factors(spec)
    small = {name: -(-(2 + 2 * i) // factors[name]) * factors[name] for i, (name, _) in enumerate(spec.dims)}
    return {name: size if name in counts else small[name] for name, size in spec.dims} | dict(spec.counts)


def static_values(recurrence, sizes, functions: Functions) -> dict[str, list[list[Fraction]]]:
    """Random parameters, and the numbers that stand beside them."""
    spec = recurrence.spec
    defined = {s.name for s in spec.symbols if s.definition is not None} | {name for name, _ in recurrence.hoisted}
    static = {s.name: random_value(s.type, sizes, functions) for s in spec.symbols if s.kind == "param" and s.name not in defined}
    static |= {name: [[Fraction(value)]] for name, value in spec.constants}
    static |= {"head": [[Fraction(1)]], "heads": [[Fraction(4)]], "channel": [[Fraction(1)]], "channels": [[Fraction(4)]]}
    return static | {name: [[Fraction(2)]] for name in ("layer", "layers") if name not in static}


def _counts(recurrence) -> set[str]:
    """The dims that count rows: a build has them as they are."""
    steps = recurrence.steps
    counted = [s.count for s in steps] + [t.rank for s in steps for t in (*s.transitions, *s.writes)]
    counted += [o.count for o in recurrence.spec.outputs]
    counted += [node.count for o in recurrence.spec.outputs for node in nodes(o.value) if isinstance(node, SumOver)]
    counted += [node.count for _, e in recurrence.outputs for node in nodes(e) if isinstance(node, SumOver)]
    counted += [n.count for s in recurrence.spec.symbols if s.definition is not None for n in nodes(s.definition) if isinstance(n, SumOver)]
    # a matrix of which nothing takes a row is no stack of rows
    stacks = {n.name for e in all_nodes(recurrence.written) if isinstance(e, Element) for n in nodes(e.base) if isinstance(n, Ref)}
    counted += [s.type.rows for s in recurrence.spec.symbols if s.type.cols != ONE and s.name in stacks]
    return {name for size in counted if size is not None for name, _ in size.terms}


def random_value(type, sizes, functions: Functions, domain=None):
    """A value of a type, inside its domain."""
    rows, cols = int(type.rows.value(sizes)), int(type.cols.value(sizes))
    if type.field == "complex":
        return [[Complex(functions.number(), functions.number()) for _ in range(cols)] for _ in range(rows)]
    return [[_in_domain(functions, domain) for _ in range(cols)] for _ in range(rows)]


def _in_domain(functions: Functions, domain) -> Fraction:
    if domain is None:
        return functions.number()
    low, high = domain.low, domain.high
    if low > -1e300 and high < 1e300:
        return Fraction(low) + (Fraction(high) - Fraction(low)) * functions.between()
    if low > -1e300:
        return Fraction(low) + functions.number(positive=True)
    if high < 1e300:
        return Fraction(high) - functions.number(positive=True)
    return functions.number()
