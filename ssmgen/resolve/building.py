"""Typed nodes from typed parts: shapes already agree here; exact numbers are folded, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from ..expressions import children, nodes
from ..source import Span
from ..spec import Add, Apply, Const, Diag, Dim, Div, Element, Expr, MatMul, Mul, Neg, Pow, Rot, Skew, StateRef, SumOver, Transpose, Type

SCALAR = Type()
UNKNOWN = Dim(terms=(("?", Fraction(1)),))
"""The size of an `I` until what it is added to or multiplied with gives it one."""

MAX_BITS = 256
MAX_EXPONENT = 64


def number(value: Fraction | int, span: Span) -> Const:
    return Const(SCALAR, span, Fraction(value))


def _folds(value: Fraction) -> bool:
    return value.numerator.bit_length() <= MAX_BITS and value.denominator.bit_length() <= MAX_BITS


def _folded(span: Span, compute: Callable[..., Fraction], *operands: Expr) -> Const | None:
    if not all(isinstance(o, Const) for o in operands):
        return None
    value = compute(*[o.value for o in operands])
    return number(value, span) if _folds(value) else None


def add(left: Expr, right: Expr, type: Type, span: Span) -> Expr:
    """Sums are kept flat, in the order of writing, when the left operand is a sum without parentheses of its own type."""
    folded = _folded(span, lambda a, b: a + b, left, right)
    if folded is not None:
        return folded
    terms = left.terms if isinstance(left, Add) and left.type == type else (left,)
    return Add(type, span, (*terms, right))


def neg(operand: Expr, span: Span) -> Expr:
    return _folded(span, lambda a: -a, operand) or Neg(operand.type, span, operand)


def mul(left: Expr, right: Expr, span: Span) -> Expr:
    folded = _folded(span, lambda a, b: a * b, left, right)
    if folded is not None:
        return folded
    shape = right.type if left.type.is_scalar else left.type
    return Mul(replace(shape, field=joined_field(left, right)), span, left, right)


def div(left: Expr, right: Expr, span: Span) -> Expr:
    if isinstance(left, Const) and isinstance(right, Const) and right.value:
        folded = _folded(span, lambda a, b: a / b, left, right)
        if folded is not None:
            return folded
    return Div(replace(left.type, field=joined_field(left, right)), span, left, right)


def power(base: Expr, exponent: Expr, span: Span) -> Expr:
    if isinstance(base, Const) and isinstance(exponent, Const):
        n = exponent.value
        if n.denominator == 1 and abs(n) <= MAX_EXPONENT and (base.value or n > 0):
            value = base.value ** int(n)
            if _folds(value):
                return number(value, span)
    shape = base.type if not base.type.is_scalar else exponent.type
    return Pow(replace(shape, field=joined_field(base, exponent)), span, base, exponent)


def matmul(left: Expr, right: Expr, span: Span) -> Expr:
    return MatMul(Type(left.type.rows, right.type.cols, joined_field(left, right)), span, left, right)


def transpose(operand: Expr, span: Span, conjugate: bool = False) -> Expr:
    if operand.type.is_scalar and (not conjugate or operand.type.field == "real"):
        return operand
    if isinstance(operand, Transpose) and operand.conjugate == conjugate:
        return operand.operand
    type = Type(operand.type.cols, operand.type.rows, operand.type.field)
    return Transpose(type, span, operand, conjugate and operand.type.field == "complex")


def diagonal(operand: Expr, type: Type, span: Span) -> Expr:
    return Diag(type, span, operand)


def joined_field(*operands: Expr) -> str:
    return "complex" if any(o.type.field == "complex" for o in operands) else "real"


def as_column(value: Expr) -> Expr:
    """A row is turned into a column: nothing that is declared is a row."""
    return transpose(value, value.span) if value.type.is_row else value


def with_children(expr: Expr, parts: tuple[Expr, ...]) -> Expr:
    """The same node over other operands of the same types."""
    match expr:
        case Apply():
            return replace(expr, args=parts)
        case Add():
            return replace(expr, terms=parts)
        case Mul() | Div() | MatMul():
            return replace(expr, left=parts[0], right=parts[1])
        case Pow():
            return replace(expr, base=parts[0], exponent=parts[1])
        case Neg() | Transpose() | Diag() | Rot() | Skew():
            return replace(expr, operand=parts[0])
        case Element():
            return replace(expr, base=parts[0])
        case SumOver():
            return replace(expr, body=parts[0])
    return expr


def reads_state(expr: Expr) -> bool:
    """Whether a state occurs in `expr`."""
    return any(isinstance(node, StateRef) for node in nodes(expr))


def is_unsized(expr: Expr) -> bool:
    """Whether an `I` inside still has no size."""
    return UNKNOWN in (expr.type.rows, expr.type.cols)


def sized(expr: Expr, dim: Dim) -> Expr:
    """`expr` with the open size of its `I` set."""
    if not is_unsized(expr):
        return expr
    rows = dim if expr.type.rows == UNKNOWN else expr.type.rows
    cols = dim if expr.type.cols == UNKNOWN else expr.type.cols
    parts = tuple(sized(child, dim) for child in children(expr))
    return replace(with_children(expr, parts), type=replace(expr.type, rows=rows, cols=cols))
