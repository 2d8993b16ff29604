"""The logarithm of a factor, as the log decay of a state: in closed form where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .algebra import add, apply, const, mul, neg, row_of
from .bounds import Bounds, bounds_of
from .expressions import constant, references
from .spec import Add, Apply, Const, Div, Element, Expr, Mul, Neg, Pow, Ref

if TYPE_CHECKING:
    from .recurrence import Recurrence

FAST = const(12)
"""Of what decays by exp(-exp(12)) a token no float keeps anything."""


def log_of(expr: Expr, recurrence: Recurrence) -> Expr | None:
    """The logarithm of a provably positive real expression, in closed form where there is one; None when not provably positive.

    A name is followed to its definition when that gives a closed form: with `f = sigmoid(x)`, log f is `logsigmoid(x)`.
    Positivity comes from the intervals of the recurrence's symbols. `recurrence`: a derived recurrence.
    """
    definitions = {s.name: s.definition for s in recurrence.spec.symbols if s.definition is not None}
    definitions.update(recurrence.hoisted)
    inputs = frozenset(s.name for s in recurrence.spec.symbols if s.kind == "input")
    return _Logarithm(definitions, bounds_of(recurrence.spec), inputs).of(expr)


@dataclass(frozen=True)
class _Logarithm:
    definitions: Mapping[str, Expr]
    bounds: Bounds
    inputs: frozenset[str]

    def of(self, expr: Expr) -> Expr | None:
        if expr.type.field == "complex":
            return None
        match expr:
            case Const():
                return apply("log", expr) if expr.value > 0 else None
            case Apply(function="exp"):
                return self._held(expr.args[0])
            case Apply(function="sigmoid"):
                return apply("logsigmoid", expr.args[0], span=expr.span)
            case Apply(function="sqrt" | "rsqrt" as function):
                inside = self.of(expr.args[0])
                half = const(Fraction(1 if function == "sqrt" else -1, 2))
                return None if inside is None else mul(half, inside, span=expr.span)
            case Apply(function="pairs"):
                inside = self.of(expr.args[0])
                return None if inside is None else apply("pairs", inside, type=expr.type, span=expr.span)
            case Mul() | Div():
                left, right = self.of(expr.left), self.of(expr.right)
                if left is not None and right is not None:
                    return add(left, right if isinstance(expr, Mul) else neg(right), span=expr.span)
            case Pow():
                base = self.of(expr.base)
                if base is not None:
                    return mul(expr.exponent, base, span=expr.span)
            case Add():
                complement = _complement(expr)
                if complement is not None:
                    followed = self.definitions.get(complement.name) if isinstance(complement, Ref) else complement
                    if isinstance(followed, Apply) and followed.function == "sigmoid":
                        return apply("logsigmoid", neg(followed.args[0]), span=expr.span)
                    if self.bounds.of(expr).is_positive:
                        return apply("log1p", neg(complement), span=expr.span)
            case Element(base=Ref(name=name), index=int(row)) if name in self.definitions:
                closed = self.of(expr.base)
                if closed is not None and not _is_log(closed):
                    return row_of(closed, row)
            case Ref() if expr.name in self.definitions:
                definition = self.definitions[expr.name]
                closed = self.of(definition)
                if closed is not None:
                    return apply("log", expr) if _is_log(closed) else closed
                if self.bounds.of(expr).is_positive and isinstance(definition, Add):
                    # the declared domain proves what the definition alone does not
                    complement = _complement(definition)
                    if complement is not None:
                        return apply("log1p", neg(complement), span=expr.span)
        return apply("log", expr) if self.bounds.of(expr).is_positive else None

    def _held(self, log: Expr) -> Expr:
        """Of a logarithm -exp(x) an x that is of the token and has no bound is held where nothing is left of the decay: exp(x) and its
        slope would overflow. Others as they are."""
        found = self.definitions.get(log.name) if isinstance(log, Ref) else log
        if isinstance(found, Neg) and isinstance(found.operand, Apply) and found.operand.function == "exp":
            x = found.operand.args[0]
            if self.bounds.of(x).high > FAST.value and self._is_of_token(x):
                return neg(apply("exp", apply("min", x, FAST)), span=log.span)
        return log

    def _is_of_token(self, expr: Expr) -> bool:
        names = set(references(expr))
        return not names.isdisjoint(self.inputs) or any(self._is_of_token(self.definitions[n]) for n in names if n in self.definitions)


def _is_log(expr: Expr) -> bool:
    return isinstance(expr, Apply) and expr.function == "log"


def _complement(expr: Add) -> Expr | None:
    """`p` of `1 - p`."""
    ones = [t for t in expr.terms if constant(t) == 1]
    if len(ones) != 1:
        return None
    return neg(add(*(t for t in expr.terms if t is not ones[0])))
