"""Sizes: from text to `Dim`, checked to be whole numbers at their defaults."""

from __future__ import annotations

from fractions import Fraction

from .. import syntax
from ..expressions import half
from ..source import Span
from ..spec import Dim
from .scope import Scope, Unresolved, suggestion


def dim_of(node: syntax.Node, scope: Scope) -> Dim:
    """The size that `node` says: a sum of dims and counts with rational factors. Reports what is no size."""
    dim = _linear(node, scope)
    value = scope.number(dim)
    if isinstance(value, Fraction) and (value.denominator != 1 or value < 1):
        if dim in scope.odd:
            raise Unresolved  # reported where it stands first
        scope.odd[dim] = None
        settings = ", ".join(f"{name} = {scope.sizes[name]}" for name, _ in dim.terms)
        scope.report.error(
            "odd-dimension",
            f"`{dim}` is {value}, not a whole number of entries" if value.denominator != 1 else f"`{dim}` is {value}: a size is at least 1",
            node.span,
            f"with {settings}" if settings else "a size is a whole number of at least 1",
            help=f"take a size of which `{dim}` is whole, here or by `--dim`: `{dim.terms[0][0]} = {_better(dim, scope)}`"
            if dim.terms
            else "write a whole number",
        )
        raise Unresolved
    return dim


def check_pairs(size: Dim, what: str, span: Span, label: str, scope: Scope) -> None:
    """Report an odd number of entries where pairs of them turn."""
    number = scope.number(size)
    if isinstance(number, str) or number % 2 == 0:
        return
    pairs, even = half(size), "write an even number"
    if size.terms:
        name = size.terms[0][0]
        even = f"take a size of which `{pairs}` is whole, here or by `--dim`: `{name} = {_better(pairs, scope)}`"
    counted = str(size) if str(size) == str(number) else f"{size} = {number}"
    scope.report.error(
        "odd-dimension",
        f"{what} turns pairs, and {counted} is odd",
        span,
        label,
        note="a rotation acts on two entries at a time: there is one angle a pair",
        help=even,
    )
    raise Unresolved


def _better(dim: Dim, scope: Scope) -> int:
    name = dim.terms[0][0]
    sizes = dict(scope.sizes)
    for step in range(1, 1025):
        sizes[name] = scope.sizes[name] + step
        value = dim.value(sizes)
        if value.denominator == 1 and value >= 1:
            return sizes[name]
    return scope.sizes[name]


def _linear(node: syntax.Node, scope: Scope) -> Dim:
    match node:
        case syntax.Number(value=value):
            return Dim(value)
        case syntax.Name(id=name, prime=False) if name in scope.sizes:
            scope.used[name] = None
            return Dim(Fraction(0), ((name, Fraction(1)),))
        case syntax.Name(id=name, prime=False) if name not in scope.declared and name not in scope.constants:
            sizes = list(scope.sizes)
            help = suggestion(name, sizes) or f"declare it: `dim {name} = 64`"
            scope.report.error("unknown-name", f"there is no size `{name}` here", node.span, "nothing declares this size", help=help)
            raise Unresolved
        case syntax.Binary(operator=operator, left=left, right=right):
            a, b = _linear(left, scope), _linear(right, scope)
            if operator == "+":
                return plus(a, b)
            if operator == "-":
                return plus(a, scale(b, Fraction(-1)))
            if operator in ("*", "juxtapose") and (not a.terms or not b.terms):
                return scale(b, a.constant) if not a.terms else scale(a, b.constant)
            if operator == "/" and not b.terms and b.constant:
                return scale(a, 1 / b.constant)
    scope.report.error(
        "not-a-count",
        f"`{scope.report.source.slice(node.span)}` is not a size",
        node.span,
        "not a dim, a count or a whole number",
        help="a size is made of dims, counts and numbers: `N`, `N/2`, `2*N + 1`",
    )
    raise Unresolved


def plus(a: Dim, b: Dim) -> Dim:
    """The sum of two sizes."""
    terms = dict(a.terms)
    for name, coefficient in b.terms:
        terms[name] = terms.get(name, Fraction(0)) + coefficient
    return Dim(a.constant + b.constant, tuple(sorted((n, c) for n, c in terms.items() if c)))


def scale(dim: Dim, factor: Fraction) -> Dim:
    """A size times a number."""
    return Dim(dim.constant * factor, tuple((n, c * factor) for n, c in dim.terms if factor))
