"""Sizes, numbers and calls as Python text."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from fractions import Fraction

from .. import layer_spec, spec
from ..source import Source, Span

LINE = 140

RESERVED = frozenset(
    "F NamedTuple Output State Tensor batch cu_seqlens device dtype end factory math nn self slots start state token torch".split()
)
"""Names that the text around a layer's values uses for itself."""


def camel(name: str) -> str:
    """`gated_deltanet` as a class name, `GatedDeltanet`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def variable(name: str) -> str:
    """The Python name of a layer's value."""
    safe = f"x{name}" if name.startswith("_") else name
    return f"{safe}_" if keyword.iskeyword(safe) or safe in RESERVED else safe


def number(value: Fraction) -> str:
    """An exact number as a literal that reads back as the nearest float, or as a whole number."""
    return str(value.numerator) if value.denominator == 1 else repr(float(value))


def dim(size: spec.Dim, counts: Mapping[str, int] = {}) -> str:
    """A recurrence's size: `N // 2`, `2 * N + 1`; build-time counts become their numbers."""
    constant = size.constant + sum((c * counts[n] for n, c in size.terms if n in counts), Fraction(0))
    parts = [_scaled(c, n) for n, c in size.terms if n not in counts]
    if constant or not parts:
        parts.append(number(constant))
    return " + ".join(parts)


def _scaled(coefficient: Fraction, name: str) -> str:
    above = name if coefficient.numerator == 1 else f"{coefficient.numerator} * {name}"
    return above if coefficient.denominator == 1 else f"{above} // {coefficient.denominator}"


def quotient(size: layer_spec.Size, names: Mapping[str, str] = {}) -> tuple[str, str]:
    """A layer's size as (above, below): what stands over and under one fraction bar; `below` is "" for a plain product."""
    shared: dict[str, int] = {}
    for factors, _ in size.terms:
        for name, power in factors:
            if power < 0:
                shared[name] = max(shared.get(name, 0), -power)
    denominator = 1
    for _, coefficient in size.terms:
        denominator = denominator * coefficient.denominator // _gcd(denominator, coefficient.denominator)
    terms = []
    for factors, coefficient in size.terms:
        powers = dict(factors)
        for name, power in shared.items():
            powers[name] = powers.get(name, 0) + power
        whole = int(coefficient * denominator)
        words = [names.get(name, name) for name, power in powers.items() for _ in range(power)]
        terms.append(" * ".join(([str(whole)] if whole != 1 or not words else []) + words))
    above = " + ".join(terms) or "0"
    below = ([str(denominator)] if denominator != 1 else []) + [names.get(n, n) for n, p in shared.items() for _ in range(p)]
    return above, " * ".join(below)


def product(*factors: str) -> str:
    """The product of texts, sums in parentheses, ones left out."""
    kept = [f"({f})" if " + " in f or "//" in f else f for f in factors if f != "1"]
    return " * ".join(kept) or "1"


def method(name: str, arguments: Iterable[str], result: str = "") -> tuple[str, ...]:
    """The head of a method of a class, `def name(self, ...) -> result:`."""
    return tuple(call(f"def {name}", ["self", *arguments], 4, f" -> {result}:" if result else ":"))


def quoted(source: Source, span: Span) -> str:
    """The text under a span on one line, its own comments left out."""
    lines = (line.split("#", 1)[0] for line in source.slice(span).splitlines())
    return " ".join(" ".join(lines).split())


def call(head: str, arguments: Iterable[str], indent: int, tail: str = "") -> list[str]:
    """`head(arguments)tail` on one line where it fits at `indent` columns, else one argument a line."""
    arguments = list(arguments)
    line = f"{head}({', '.join(arguments)}){tail}"
    if indent + len(line) <= LINE:
        return [line]
    inner = f"    {', '.join(arguments)}"
    if indent + len(inner) <= LINE:
        return [f"{head}(", inner, f"){tail}"]
    return [f"{head}(", *(f"    {argument}," for argument in arguments), f"){tail}"]


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a
