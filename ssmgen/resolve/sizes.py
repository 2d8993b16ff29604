"""Arithmetic of layer sizes: sums of products of names to integer powers, so that equal sizes compare equal.

A layer multiplies and divides its arguments (`expand * d_model / P`), which a recurrence's linear `Dim` cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from .. import syntax
from ..layer_spec import Size
from ..spec import Dim


class NotASize(Exception):
    """An expression that is no size: `node` is the part at fault, the message the fact about it."""

    def __init__(self, node: syntax.Node, fact: str):
        super().__init__(fact)
        self.node = node


def constant(value: Fraction | int) -> Size:
    """The size `value`."""
    return Size((((), Fraction(value)),)) if value else Size()


def named(name: str) -> Size:
    """The size called `name`."""
    return Size(((((name, 1),), Fraction(1)),))


def of_dim(dim: Dim) -> Size:
    """A recurrence's size as a layer's."""
    return _sum([constant(dim.constant)] + [product(constant(c), named(n)) for n, c in dim.terms])


def product(*sizes: Size) -> Size:
    """The product of sizes."""
    total = {(): Fraction(1)}
    for size in sizes:
        step: dict[tuple, Fraction] = {}
        for left, a in total.items():
            for right, b in size.terms:
                factors = _merge(left, right)
                step[factors] = step.get(factors, Fraction(0)) + a * b
        total = step
    return _canonical(total)


def inverse(size: Size) -> Size | None:
    """One over a size of a single term; None for a sum or zero, whose inverse is no size."""
    if len(size.terms) != 1:
        return None
    ((factors, coefficient),) = size.terms
    return Size(((tuple((name, -power) for name, power in factors), 1 / coefficient),))


def substitute(size: Size, definitions: Mapping[str, Size]) -> Size:
    """`size` with the names of `definitions` replaced, also inside what replaces them."""
    terms = []
    for factors, coefficient in size.terms:
        parts = [constant(coefficient)]
        for name, power in factors:
            base = substitute(definitions[name], definitions) if name in definitions else named(name)
            turned = base if power > 0 else inverse(base)
            parts += [turned if turned is not None else _opaque(base)] * abs(power)
        terms.append(product(*parts))
    return _sum(terms)


def names_of(size: Size) -> tuple[str, ...]:
    """The names a size uses, sorted."""
    return tuple(sorted({name for factors, _ in size.terms for name, _ in factors}))


def read(node: syntax.Node, known: Mapping[str, object]) -> Size:
    """The size an expression says, over the names of `known`; raises `NotASize`."""
    match node:
        case syntax.Number(value=value):
            return constant(value)
        case syntax.Name(id=name, prime=False):
            if name not in known:
                raise NotASize(node, f"`{name}` is no size here")
            return named(name)
        case syntax.Unary(operand=operand):
            return product(constant(-1), read(operand, known))
        case syntax.Call(function=name, args=(argument,), keywords=()) if name in known:
            # `2 H (d)` and `H(d)` are products, as in an equation.
            return product(named(name), read(argument, known))
        case syntax.Binary(operator=operator, left=left, right=right):
            a, b = read(left, known), read(right, known)
            if operator in ("+", "-"):
                return _sum([a, product(constant(1 if operator == "+" else -1), b)])
            if operator in ("*", "juxtapose"):
                return product(a, b)
            if operator == "/":
                below = inverse(b)
                if below is None:
                    raise NotASize(right, "a size divides by a product of names, not by a sum or zero")
                return product(a, below)
            if operator == "^" and isinstance(right, syntax.Number) and right.value.denominator == 1 and right.value > 0:
                return product(*[a] * int(right.value))
    raise NotASize(node, "a size is made of numbers, names and `+ - * /`")


def _canonical(terms: Mapping[tuple, Fraction]) -> Size:
    return Size(tuple(sorted((factors, c) for factors, c in terms.items() if c)))


def _sum(sizes: list[Size]) -> Size:
    total: dict[tuple, Fraction] = {}
    for size in sizes:
        for factors, coefficient in size.terms:
            total[factors] = total.get(factors, Fraction(0)) + coefficient
    return _canonical(total)


def _merge(left: tuple, right: tuple) -> tuple:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _opaque(size: Size) -> Size:
    # Only ever compared, never evaluated: 1 over a sum stands for itself.
    return Size(((((f"1/({size})", 1),), Fraction(1)),))
