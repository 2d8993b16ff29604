"""Building expressions: constructors that simplify as they build, quotients, complex parts, logarithms.

A constructor keeps the type that the plain node would have, and a span that covers its operands. Nothing here evaluates
text. Simplifications hold for every value of the operands, with one licence that real arithmetic gives: `x / x -> 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from .expressions import children, constant, covering, factors, is_imaginary_unit, key, uses_index, widest
from .source import NOWHERE, Span
from .spec import (
    ONE,
    Add,
    Apply,
    Const,
    Delayed,
    Diag,
    Dim,
    Div,
    Element,
    Expr,
    Identity,
    MatMul,
    Mul,
    Neg,
    Pow,
    Ref,
    Rot,
    SizeOf,
    Skew,
    SumOver,
    Transpose,
    Type,
)

if TYPE_CHECKING:
    pass

SCALAR = Type()

# --- rebuilding --------------------------------------------------------------------------------------------------


def rebuild(expr: Expr, operands: tuple[Expr, ...]) -> Expr:
    """The same node over other operands, simplified."""
    match expr:
        case Apply():
            return apply(expr.function, *operands, type=_retyped(expr, operands), span=expr.span)
        case Add():
            return add(*operands, span=expr.span)
        case Mul():
            return mul(*operands, span=expr.span)
        case Div():
            return div(*operands, span=expr.span)
        case MatMul():
            return matmul(*operands, span=expr.span)
        case Neg():
            return neg(*operands, span=expr.span)
        case Transpose():
            return transpose(*operands, conjugate=expr.conjugate, span=expr.span)
        case Diag() | Rot() | Skew():
            return replace(expr, operand=operands[0])
        case Pow():
            return power(*operands, span=expr.span)
        case Element():
            return replace(expr, base=operands[0])
        case SumOver():
            # the body may depend on the index through a name that stands for a row
            return replace(expr, body=operands[0], type=operands[0].type)
    return expr


def rewrite(expr: Expr, function: Callable[[Expr], Expr | None]) -> Expr:
    """`expr` with every node that `function` maps (to something other than None) replaced, outermost first."""
    found = function(expr)
    if found is not None:
        return found
    operands = children(expr)
    renewed = tuple(rewrite(operand, function) for operand in operands)
    if all(new is old for new, old in zip(renewed, operands, strict=True)):
        return expr
    return rebuild(expr, renewed)


def _retyped(expr: Apply, operands: tuple[Expr, ...]) -> Type:
    """The type of an application after its operands changed shape together (a scalar function of wider operands)."""
    if expr.function in REDUCING or any(o.type == old.type for o, old in zip(operands, expr.args, strict=True)):
        return expr.type
    return widest(*(o.type for o in operands))


# --- constructors ------------------------------------------------------------------------------------------------


def const(value: Fraction | int, type: Type = SCALAR, span: Span = NOWHERE) -> Const:
    """An exact number; with a type, the array filled with it."""
    return Const(type, span, Fraction(value))


ZERO = const(0)
UNIT = const(1)


def is_zero(expr: Expr) -> bool:
    return constant(expr) == 0


def is_one(expr: Expr) -> bool:
    return constant(expr) == 1


def add(*terms: Expr, span: Span | None = None) -> Expr:
    """Sum; nested sums are flattened, numbers folded, equal terms collected, zeros dropped.

    Raises ValueError without terms.
    """
    if not terms:
        raise ValueError("a sum needs a term")
    type = widest(*(t.type for t in terms))
    span = covering(*terms) if span is None else span
    flat = [inner for term in terms for inner in (term.terms if isinstance(term, Add) else (term,))]
    number = Fraction(0)
    number_at = None
    collected: dict[tuple[str, bool], tuple[Fraction, Expr]] = {}
    for term in flat:
        value = constant(term)
        if value is not None and (term.type.is_scalar or term.type == type):
            number += value
            number_at = len(collected) if number_at is None else number_at
            continue
        factor, rest = _split_number(term)
        slot = (key(rest), rest.type.is_scalar)
        old = collected.get(slot, (Fraction(0), rest))
        collected[slot] = (old[0] + factor, old[1])
    kept = [mul(const(factor), rest) for factor, rest in collected.values() if factor != 0]
    if number != 0:
        kept.insert(min(number_at or 0, len(kept)), const(number))
    if not kept:
        return const(0, type, span)
    if all(t.type.is_scalar for t in kept) and not type.is_scalar:
        # everything of the wider shape cancelled: the rest is still broadcast to it
        return mul(const(1, type), add(*kept, span=span), span=span)
    if len(kept) == 1:
        return _respanned(kept[0], span)
    return Add(type, span, tuple(kept))


def sub(left: Expr, right: Expr, span: Span | None = None) -> Expr:
    """`left - right`."""
    return add(left, neg(right), span=covering(left, right) if span is None else span)


def neg(operand: Expr, span: Span | None = None) -> Expr:
    """`-operand`; `-(-x)` is x, and a number takes the sign."""
    span = operand.span if span is None else span
    match operand:
        case Neg():
            return operand.operand
        case Const():
            return Const(operand.type, span, -operand.value)
        case Mul(left=Const() as number):
            return mul(const(-number.value, number.type), operand.right, span=span)
    return Neg(operand.type, span, operand)


def mul(left: Expr, right: Expr, span: Span | None = None) -> Expr:
    """Elementwise product (a scalar multiplies anything); numbers and signs move to the front."""
    type = widest(left.type, right.type)
    span = covering(left, right) if span is None else span
    if isinstance(left, Identity) or isinstance(right, Identity):
        matrix, other = (left, right) if isinstance(left, Identity) else (right, left)
        return _respanned(matrix, span) if is_one(other) and other.type.is_scalar else Mul(type, span, other, matrix)
    a, b = constant(left), constant(right)
    if a is not None and b is not None:
        return const(a * b, type, span)
    if a == 0 or b == 0:
        return const(0, type, span)
    if a is None and b is not None:
        left, right, a, b = right, left, b, a
    if a == 1 and right.type == type:
        return _respanned(right, span)
    if a == -1 and right.type == type:
        return neg(right, span=span)
    if isinstance(left, Neg):
        return neg(mul(left.operand, right), span=span)
    if isinstance(right, Neg):
        return neg(mul(left, right.operand), span=span)
    if a is not None and isinstance(right, Mul) and constant(right.left) is not None:
        number = const(a * constant(right.left), widest(left.type, right.left.type))
        return mul(number, right.right, span=span)
    if isinstance(left, Div) and is_one(left.left):
        return div(right, left.right, span=span)
    if isinstance(right, Div) and is_one(right.left):
        return div(left, right.right, span=span)
    if a is None:
        if isinstance(left, Mul) and constant(left.left) is not None:
            return mul(left.left, mul(left.right, right), span=span)
        if isinstance(right, Mul) and constant(right.left) is not None:
            return mul(right.left, mul(left, right.right), span=span)
    return Mul(type, span, left, right)


def div(left: Expr, right: Expr, span: Span | None = None) -> Expr:
    """Elementwise quotient; equal factors above and below cancel, numbers fold."""
    type = widest(left.type, right.type)
    span = covering(left, right) if span is None else span
    a, b = constant(left), constant(right)
    if b == 1 and left.type == type:
        return _respanned(left, span)
    if a is not None and b not in (None, 0):
        return const(a / b, type, span)
    if a == 0:
        return const(0, type, span)
    if isinstance(left, Neg):
        return neg(div(left.operand, right), span=span)
    if isinstance(right, Neg):
        return neg(div(left, right.operand), span=span)
    cancelled = _cancel(left, right)
    if cancelled is not None:
        return cancelled if cancelled.type == type else mul(const(1, type), cancelled, span=span)
    return Div(type, span, left, right)


def power(base: Expr, exponent: Expr, span: Span | None = None) -> Expr:
    """Elementwise power; exponents 0 and 1 and integer powers of numbers fold."""
    type = widest(base.type, exponent.type)
    span = covering(base, exponent) if span is None else span
    n, b = constant(exponent), constant(base)
    if n == 0:
        return const(1, type, span)
    if n == 1 and base.type == type:
        return _respanned(base, span)
    if b is not None and n is not None and n.denominator == 1 and (b != 0 or n > 0) and abs(n) <= 64:
        return const(b**n.numerator, type, span)
    return Pow(type, span, base, exponent)


def matmul(left: Expr, right: Expr, span: Span | None = None) -> Expr:
    """Matrix product; scalars move to the front, `I` disappears, a diagonal meets a column elementwise."""
    span = covering(left, right) if span is None else span
    if left.type.is_scalar or right.type.is_scalar:
        return mul(left, right, span=span)
    field = "complex" if "complex" in (left.type.field, right.type.field) else "real"
    type = Type(left.type.rows, right.type.cols, field)
    if isinstance(left, Identity):
        return _respanned(right, span)
    if isinstance(right, Identity):
        return _respanned(left, span)
    if (is_zero(left)) or (is_zero(right)):
        return const(0, type, span)
    if isinstance(left, Neg):
        return neg(matmul(left.operand, right), span=span)
    if isinstance(right, Neg):
        return neg(matmul(left, right.operand), span=span)
    scalar, left = split_scalar(left)
    other, right = split_scalar(right)
    scalar = mul(scalar, other)
    if not is_one(scalar):
        return mul(scalar, matmul(left, right), span=span)
    match left, right:
        case Diag(), Diag():
            return Diag(type, span, mul(left.operand, right.operand))
        case Diag(), _ if right.type.is_column:
            return mul(left.operand, right, span=span)
        case Transpose(conjugate=False), Diag() if left.operand.type.is_column:
            return transpose(mul(left.operand, right.operand), span=span)
    return MatMul(type, span, left, right)


def regrouped(product: MatMul) -> Expr:
    """A product of matrices and a column, from the right and with scalars in front: `(c * diag(u)) k` as `c * (u * k)`."""
    left = product.left
    if isinstance(left, MatMul):
        return matmul(left.left, matmul(left.right, product.right))
    return matmul(left, product.right)


def transpose(operand: Expr, conjugate: bool = False, span: Span | None = None) -> Expr:
    """`operand^T` (`^H` when `conjugate`), pushed towards the leaves. Conjugation of real values disappears."""
    span = operand.span if span is None else span
    conjugate = conjugate and operand.type.field == "complex"
    if operand.type.is_scalar:
        return apply("conj", operand, span=span) if conjugate else operand
    type = Type(operand.type.cols, operand.type.rows, operand.type.field)
    match operand:
        case Transpose():
            inner = operand.operand
            return apply("conj", inner, span=span) if conjugate != operand.conjugate else inner
        case Const():
            return const(operand.value, type, span)
        case Neg():
            return neg(transpose(operand.operand, conjugate), span=span)
        case Mul() if operand.left.type.is_scalar or operand.right.type.is_scalar:
            return mul(transpose(operand.left, conjugate), transpose(operand.right, conjugate), span=span)
        case Div() if operand.right.type.is_scalar:
            return div(transpose(operand.left, conjugate), transpose(operand.right, conjugate), span=span)
        case MatMul():
            return matmul(transpose(operand.right, conjugate), transpose(operand.left, conjugate), span=span)
        case Diag():
            return Diag(type, span, apply("conj", operand.operand)) if conjugate else operand
        case Rot():
            return Rot(type, span, neg(operand.operand))
        case Skew():
            return neg(operand, span=span)
        case Identity():
            return operand
    return Transpose(type, span, operand, conjugate)


def row_of(stack: Expr, row: int) -> Expr:
    """Row `row`, from 1, of a value of several rows, from the rows of what it is made of; of a function over all entries of a column
    the entry itself."""
    rows = stack.type.rows

    def cut(node: Expr) -> Expr | None:
        if isinstance(node, Apply) and node.function in OVER_ENTRIES and node.type.rows == rows and node.type.is_column:
            return Element(Type(field=node.type.field), node.span, node, row)
        if isinstance(node, Ref | Delayed) and node.type.rows == rows and rows != ONE:
            return Element(Type(node.type.cols, ONE, node.type.field), node.span, node, row)
        return None

    return rewrite(stack, cut)


def inner(left: Expr, right: Expr, span: Span | None = None) -> Expr:
    """`left . right` of two columns: the inner product without conjugation."""
    return matmul(transpose(left), right, span=span)


OVER_ENTRIES = ("softmax", "unit", "rmsnorm", "rope", "pairs")
"""Functions of a column in which an entry depends on the others."""

REDUCING = ("norm",)
"""Functions that give a scalar for a column."""

_AT_ZERO = {"exp": 1, "expm1": 0, "log1p": 0, "sqrt": 0, "sin": 0, "cos": 1, "tanh": 0, "abs": 0, "relu": 0, "square": 0}
_AT_ZERO |= {"phi1": 1, "phi2": Fraction(1, 2)}
_AT_ONE = {"log": 0, "sqrt": 1, "rsqrt": 1, "abs": 1, "relu": 1, "square": 1}
_INVERSE = {"exp": "log", "log": "exp", "expm1": "log1p", "log1p": "expm1"}


def apply(function: str, *args: Expr, type: Type | None = None, span: Span | None = None) -> Expr:
    """A function of the closed set. `type` defaults to the widest argument (real for `Re`, `Im`, `abs`, `norm`)."""
    span = covering(*args) if span is None else span
    if type is None and not args:
        type = Type(field="complex") if function == "i" else SCALAR
    if type is None:
        type = widest(*(a.type for a in args))
        if function in REDUCING:
            type = SCALAR
        if function in ("Re", "Im", "abs"):
            type = replace(type, field="real")
    if len(args) == 1:
        (arg,) = args
        value = constant(arg)
        if value is not None:
            table = {0: _AT_ZERO, 1: _AT_ONE}.get(value, {})
            if function in table:
                return const(table[function], type, span)
        if arg.type.field == "real":
            if function in ("Re", "conj"):
                return arg
            if function == "Im":
                return const(0, type, span)
        if isinstance(arg, Apply) and arg.function == _INVERSE.get(function) and arg.type.field == "real":
            return arg.args[0]
        if function == "conj" and isinstance(arg, Apply) and arg.function == "conj":
            return arg.args[0]
    return Apply(type, span, function, args)


def sum_over(index: str, count: Dim, body: Expr, span: Span | None = None) -> Expr:
    """`sum index in 1..count: body`; a body that does not use the index is multiplied by the count."""
    span = body.span if span is None else span
    if not uses_index(body, index):
        return mul(SizeOf(SCALAR, span, count) if count.terms else const(count.constant), body, span=span)
    return SumOver(body.type, span, index, count, body)


def _respanned(expr: Expr, span: Span) -> Expr:
    return expr if expr.span == span or span == NOWHERE else replace(expr, span=span)


# --- products as bags of factors ---------------------------------------------------------------------------------


def product(number: Fraction, above: tuple[Expr, ...], below: tuple[Expr, ...] = (), span: Span | None = None) -> Expr:
    """The inverse of `factors`."""

    def of(parts: tuple[Expr, ...]) -> Expr:
        result = UNIT
        for part in parts:
            result = part if result is UNIT else mul(result, part)
        return result

    top, bottom = of(above), of(below)
    result = top if not below else Div(widest(top.type, bottom.type), covering(top, bottom), top, bottom)
    return mul(const(number), result, span=span if span is not None else covering(result))


def _cancel(left: Expr, right: Expr) -> Expr | None:
    """`left / right` with common factors removed; None when there are none."""
    n1, a1, b1 = factors(left)
    n2, a2, b2 = factors(right)
    if n2 == 0:
        return None
    above, below = list(a1 + b2), list(b1 + a2)
    found = False
    for factor in tuple(above):
        match = next((other for other in below if key(other) == key(factor)), None)
        if match is not None:
            above.remove(factor)
            below.remove(match)
            found = True
    if not found:
        return None
    return product(n1 / n2, tuple(above), tuple(below))


def quotient(whole: Expr, part: Expr) -> Expr | None:
    """`whole / part` when every factor of `part` is a factor of `whole`; None otherwise.

    `quotient(-beta * exp(g), exp(g))` is `-beta`.
    """
    n1, a1, b1 = factors(whole)
    n2, a2, b2 = factors(part)
    if n2 == 0:
        return None
    above, below = list(a1), list(b1)
    for wanted, bag in ((a2, above), (b2, below)):
        for factor in wanted:
            match = next((other for other in bag if key(other) == key(factor)), None)
            if match is None:
                return None
            bag.remove(match)
    result = product(n1 / n2, tuple(above), tuple(below))
    return result if result.type.is_scalar or result.type == whole.type else None


def factored(expr: Expr) -> Expr:
    """A sum with what all its terms are multiplied by in front, which is then multiplied by once."""
    if not isinstance(expr, Add):
        return expr
    parts = [factors(term) for term in expr.terms]
    common = []
    for factor in parts[0][1]:
        own = key(factor)
        if all(sum(key(f) == own for f in above) > sum(key(f) == own for f in common) for _, above, _ in parts):
            common.append(factor)
    if not common or any(below for _, _, below in parts):
        return expr
    rests = []
    for number, above, _ in parts:
        left = list(above)
        for factor in common:
            left.remove(next(f for f in left if key(f) == key(factor)))
        rests.append(product(number, tuple(left)))
    return product(Fraction(1), (*common, add(*rests)))


def split_scalar(expr: Expr) -> tuple[Expr, Expr]:
    """`(s, rest)` with `expr = s * rest` and every scalar factor in `s` (1 when there is none)."""
    if expr.type.is_scalar:
        return expr, UNIT
    number, above, below = factors(expr)
    scalars = tuple(f for f in above if f.type.is_scalar)
    divisors = tuple(f for f in below if f.type.is_scalar)
    if number == 1 and not scalars and not divisors:
        return UNIT, expr
    rest = product(
        Fraction(1),
        tuple(f for f in above if not f.type.is_scalar),
        tuple(f for f in below if not f.type.is_scalar),
        span=expr.span,
    )
    if rest.type.is_scalar:
        rest = const(1, expr.type)
    return product(number, scalars, divisors), rest


def _split_number(expr: Expr) -> tuple[Fraction, Expr]:
    """`(number, rest)` with `expr = number * rest`, looking at the outside only."""
    match expr:
        case Neg():
            number, rest = _split_number(expr.operand)
            return -number, rest
        case Mul() if constant(expr.left) is not None and expr.right.type == expr.type:
            return constant(expr.left), expr.right
        case Div() if constant(expr.right) not in (None, 0) and expr.left.type == expr.type:
            number, rest = _split_number(expr.left)
            return (number / constant(expr.right), rest) if number != 1 else (Fraction(1), expr)
    return Fraction(1), expr


# --- complex values ----------------------------------------------------------------------------------------------


def complex_product(left: tuple[Expr, Expr], right: tuple[Expr, Expr], times: Callable[[Expr, Expr], Expr] = mul) -> tuple[Expr, Expr]:
    """The real and the imaginary part of a product, from those of its factors."""
    (a, b), (c, d) = left, right
    return sub(times(a, c), times(b, d)), add(times(a, d), times(b, c))


def split_imaginary(expr: Expr) -> tuple[Expr, Expr]:
    """`(a, b)` with `expr = a + i * b`, reading the places where `i` is written; complex names stay in `a`."""
    match expr:
        case _ if is_imaginary_unit(expr):
            return ZERO, UNIT
        case Add():
            parts = [split_imaginary(term) for term in expr.terms]
            return add(*(a for a, _ in parts)), add(*(b for _, b in parts))
        case Neg():
            a, b = split_imaginary(expr.operand)
            return neg(a), neg(b)
        case Mul():
            a, b = split_imaginary(expr.left)
            c, d = split_imaginary(expr.right)
            return complex_product((a, b), (c, d))
        case Div():
            a, b = split_imaginary(expr.left)
            c, d = split_imaginary(expr.right)
            if is_zero(d):
                return div(a, c), div(b, c)
    return expr, ZERO
