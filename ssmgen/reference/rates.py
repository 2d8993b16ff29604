"""`dS/dt = A S + b` taken apart as it is written: the rate A and the write b, for the eager reference's textbook formulas.

Independent of `derive` on purpose. A rate is 'elementwise' when it multiplies the entries of the state (a scalar, a column
for `diag(a) S`, a row for `S diag(a)`, a whole matrix), else 'matrix' or 'right': it multiplies the state from the left or right.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .. import algebra, spec
from ..expressions import nodes
from ..source import NOWHERE
from ..spec import Expr, Type


@dataclass(frozen=True)
class Rate:
    """`kind` is 'elementwise', 'matrix' or 'right'; `rate` is A; `write` is b, None where nothing is added.

    Where real parts of the state are read, dS/dt = A S + conj(B conj(S)) + b for a complex S: `conjugates` is B.
    """

    kind: str
    rate: Expr
    write: Expr | None
    conjugates: Expr | None = None


def rate_of(dynamics: spec.Dynamics, state: spec.State) -> Rate:
    """The parts of one `dS/dt`. Raises ValueError for a value that is not A S + b: `derive` refuses it before."""
    if any(_is_part(node, dynamics.state) for node in nodes(dynamics.value)):
        return _with_parts(dynamics, state)
    parts = _elementwise(dynamics.value, dynamics.state)
    if parts is not None:
        return Rate("elementwise", parts[0] or _number(0), parts[1])
    is_right = _stands(dynamics.value, dynamics.state, at_left=True)
    size = state.type.cols if is_right else state.type.rows
    rate, write = _matrix(dynamics.value, dynamics.state, Type(size, size, state.type.field), is_right)
    return Rate("right" if is_right else "matrix", rate, write)


def has_two_sides(dynamics: spec.Dynamics) -> bool:
    """Whether matrices that are no diagonals multiply the state from the left and from the right: then no one matrix is its rate."""
    return _stands(dynamics.value, dynamics.state, at_left=True) and _stands(dynamics.value, dynamics.state, at_left=False)


def _is_part(node: Expr, state: str) -> bool:
    return isinstance(node, spec.Apply) and node.function == "Re" and reads(node, state)


def _with_parts(dynamics: spec.Dynamics, state: spec.State) -> Rate:
    """Re(x) as half of x and half of its conjugate; what reads the conjugate of the state is conjugated whole, term by term."""
    value, name = dynamics.value, dynamics.state
    half = spec.Const(Type(), NOWHERE, Fraction(1, 2))
    square = Type(state.type.rows, state.type.rows, state.type.field)

    def halved(node: Expr) -> Expr | None:
        return algebra.mul(half, node.args[0]) if _is_part(node, name) else None

    rate, write = _matrix(algebra.rewrite(value, halved), name, square, False)
    terms = value.terms if isinstance(value, spec.Add) else (value,)
    reading = [term for term in terms if any(_is_part(node, name) for node in nodes(term))]
    conjugated = []
    for term in reading:
        part = next(node for node in nodes(term) if _is_part(node, name))
        other = algebra.rewrite(term, lambda node, part=part: algebra.UNIT if node is part else None)
        if reads(other, name):
            raise ValueError(f"two products with `{name}` in one term")
        conjugated.append(algebra.mul(algebra.mul(half, part.args[0]), algebra.apply("conj", other)))
    return Rate("matrix", rate, write, _matrix(_sum(conjugated), name, square, False)[0])


def reads(expr: Expr, state: str) -> bool:
    """True when `expr` reads the state before the token."""
    if isinstance(expr, spec.StateRef):
        return expr.name == state and not expr.primed
    operands = (item for value in vars(expr).values() for item in (value if isinstance(value, tuple) else (value,)))
    return any(reads(item, state) for item in operands if isinstance(item, Expr))


Parts = tuple[Expr | None, Expr | None]


def _number(value: int) -> Expr:
    return spec.Const(Type(), NOWHERE, Fraction(value))


def _is_one(expr: Expr) -> bool:
    return isinstance(expr, spec.Const) and expr.value == 1


def _times(left: Expr, right: Expr | None) -> Expr | None:
    if right is None or _is_one(left):
        return right
    if _is_one(right):
        return left
    type_ = right.type if left.type.is_scalar else left.type
    return spec.Mul(type_, NOWHERE, left, right)


def _sum(terms: list[Expr]) -> Expr | None:
    if len(terms) < 2:
        return terms[0] if terms else None
    widest = max((t.type for t in terms), key=lambda t: (not t.is_scalar, t.cols != spec.ONE))
    return spec.Add(widest, NOWHERE, tuple(terms))


def _each(parts: Parts, change) -> Parts:
    return tuple(None if part is None else change(part) for part in parts)


def _elementwise(expr: Expr, state: str) -> Parts | None:
    """(A, b) with A multiplying entries, or None when the state is mixed across its rows or columns."""
    if not reads(expr, state):
        return None, expr
    match expr:
        case spec.StateRef():
            return _number(1), None
        case spec.Add():
            parts = [_elementwise(term, state) for term in expr.terms]
            if any(part is None for part in parts):
                return None
            return _sum([a for a, _ in parts if a is not None]), _sum([b for _, b in parts if b is not None])
        case spec.Neg():
            parts = _elementwise(expr.operand, state)
            return parts and _each(parts, lambda part: spec.Neg(part.type, expr.span, part))
        case spec.Div() if not reads(expr.right, state):
            parts = _elementwise(expr.left, state)
            return parts and _each(parts, lambda part: spec.Div(_wider(part, expr.right), expr.span, part, expr.right))
        case spec.Mul():
            factor, inner = (expr.right, expr.left) if reads(expr.left, state) else (expr.left, expr.right)
            parts = _elementwise(inner, state)
            return parts and (_times(factor, parts[0]), _times(factor, parts[1]))
        case spec.MatMul() if reads(expr.right, state):
            diagonal, parts = _diagonal(expr.left), _elementwise(expr.right, state)
            if diagonal is None or parts is None:
                return None
            write = parts[1] and spec.MatMul(expr.type, expr.span, expr.left, parts[1])
            return _times(diagonal, parts[0]), write
        case spec.MatMul() if reads(expr.left, state):
            diagonal, parts = _diagonal(expr.right), _elementwise(expr.left, state)
            if diagonal is None or parts is None:
                return None
            if not diagonal.type.is_scalar:
                diagonal = spec.Transpose(Type(spec.ONE, diagonal.type.rows, diagonal.type.field), expr.span, diagonal)
            write = parts[1] and spec.MatMul(expr.type, expr.span, parts[1], expr.right)
            return _times(diagonal, parts[0]), write
    raise ValueError(f"not affine in `{state}`: {expr}")


def _wider(left: Expr, right: Expr) -> Type:
    return right.type if left.type.is_scalar else left.type


def _diagonal(matrix: Expr) -> Expr | None:
    """The diagonal of a matrix that is one by its writing, as a column or a scalar; None otherwise."""
    match matrix:
        case spec.Diag():
            return matrix.operand
        case spec.Identity():
            return _number(1)
        case spec.Transpose():
            return _diagonal(matrix.operand)
        case spec.Neg():
            inner = _diagonal(matrix.operand)
            return inner and spec.Neg(inner.type, matrix.span, inner)
        case spec.Mul() if matrix.left.type.is_scalar:
            return _times(matrix.left, _diagonal(matrix.right))
        case spec.Add():
            parts = [_diagonal(term) for term in matrix.terms]
            return None if any(part is None for part in parts) else _sum(parts)
    return None


def _stands(expr: Expr, state: str, at_left: bool) -> bool:
    """Whether the state stands at the left, or at the right, of a matrix that is no diagonal."""
    if isinstance(expr, spec.MatMul):
        own, other = (expr.left, expr.right) if at_left else (expr.right, expr.left)
        if reads(own, state) and _diagonal(other) is None:
            return True
    operands = (item for value in vars(expr).values() for item in (value if isinstance(value, tuple) else (value,)))
    return any(_stands(item, state, at_left) for item in operands if isinstance(item, Expr))


def _matrix(expr: Expr, state: str, square: Type, is_right: bool) -> Parts:
    """(A, b) with A a matrix at the left of the state, or at its right; a missing A is None."""
    if not reads(expr, state):
        return None, expr
    match expr:
        case spec.StateRef():
            return spec.Identity(square, expr.span), None
        case spec.Add():
            parts = [_matrix(term, state, square, is_right) for term in expr.terms]
            return _sum([a for a, _ in parts if a is not None]), _sum([b for _, b in parts if b is not None])
        case spec.Neg():
            return _each(_matrix(expr.operand, state, square, is_right), lambda part: spec.Neg(part.type, expr.span, part))
        case spec.Div() if expr.right.type.is_scalar:
            parts = _matrix(expr.left, state, square, is_right)
            return _each(parts, lambda part: spec.Div(part.type, expr.span, part, expr.right))
        case spec.Mul():
            factor, inner = (expr.right, expr.left) if reads(expr.left, state) else (expr.left, expr.right)
            rate, write = _matrix(inner, state, square, is_right)
            if factor.type.is_column and not is_right:
                return spec.MatMul(square, expr.span, spec.Diag(square, expr.span, factor), rate), _times(factor, write)
            if factor.type.is_scalar:
                return _times(factor, rate), _times(factor, write)
        case spec.MatMul() if reads(expr.right, state) and not is_right:
            rate, write = _matrix(expr.right, state, square, is_right)
            left = expr.left if isinstance(rate, spec.Identity) else spec.MatMul(square, expr.span, expr.left, rate)
            return left, write and spec.MatMul(expr.type, expr.span, expr.left, write)
        case spec.MatMul() if reads(expr.left, state) and is_right:
            rate, write = _matrix(expr.left, state, square, is_right)
            right = expr.right if isinstance(rate, spec.Identity) else spec.MatMul(square, expr.span, rate, expr.right)
            return right, write and spec.MatMul(expr.type, expr.span, write, expr.right)
    raise ValueError(f"no rate at one side of `{state}`: {expr}")
