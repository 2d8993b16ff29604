"""Cotangents of pointwise definitions: what reaches each name when a gradient reaches an expression.

Reverse mode on `spec.Expr`: linear rules for sums and products, one derivative per function. The walk over time is not
differentiated here; it has its adjoint recurrence (`lower`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from .algebra import add, apply, const, div, inner, matmul, mul, neg, power, regrouped, transpose
from .expressions import half
from .source import NOWHERE
from .spec import Add, Apply, Const, Delayed, Diag, Div, Element, Expr, MatMul, Mul, Neg, Pow, Ref, Rot, SizeOf, Transpose, Type

HALF = Fraction(1, 2)

TINY = Fraction(1, 10**36)
"""A square of a modulus below this is that of 0, which has no angle."""


def _gelu(x: Expr, y: Expr) -> Expr:
    half_width = const(Fraction.from_float(0.5**0.5))
    density = mul(const(Fraction.from_float(0.3989422804014327)), apply("exp", neg(mul(const(HALF), apply("square", x)))))
    return add(mul(const(HALF), add(const(1), apply("erf", mul(half_width, x)))), mul(x, density))


DERIVATIVES: dict[str, Callable[[Expr, Expr], Expr]] = {
    "exp": lambda x, y: y,
    "log": lambda x, y: div(const(1), x),
    "log1p": lambda x, y: div(const(1), add(const(1), x)),
    "expm1": lambda x, y: add(y, const(1)),
    "sigmoid": lambda x, y: mul(y, add(const(1), neg(y))),
    "logsigmoid": lambda x, y: apply("sigmoid", neg(x)),
    "softplus": lambda x, y: apply("sigmoid", x),
    "inv_softplus": lambda x, y: neg(div(const(1), apply("expm1", neg(x)))),
    "silu": lambda x, y: mul(apply("sigmoid", x), add(const(1), mul(x, apply("sigmoid", neg(x))))),
    "gelu": _gelu,
    "tanh": lambda x, y: add(const(1), neg(apply("square", y))),
    "relu": lambda x, y: apply("at_least", x, const(0)),
    "elu": lambda x, y: add(const(1), apply("min", y, const(0))),
    "abs": lambda x, y: apply("sign", x),
    "sqrt": lambda x, y: div(const(HALF), y),
    "rsqrt": lambda x, y: neg(mul(const(HALF), power(y, const(3)))),
    "square": lambda x, y: mul(const(2), x),
    "sin": lambda x, y: apply("cos", x),
    "cos": lambda x, y: neg(apply("sin", x)),
    "cosm1": lambda x, y: neg(apply("sin", x)),
    "heavy_tail": lambda x, y: apply("square", apply("min", y, const(1))),
    "phi1": lambda x, y: apply("phi1_slope", x),
    "phi2": lambda x, y: apply("phi2_slope", x),
}
"""d f(x) / d x, from x and y = f(x)."""

BY_BOTH: dict[str, tuple[Callable[..., Expr], Callable[..., Expr]]] = {
    "exp_even": (lambda x, d, y: y, lambda x, d, y: mul(const(HALF), apply("exp_odd", x, d))),
    "exp_odd": (lambda x, d, y: y, lambda x, d, y: apply("exp_odd_bend", x, d)),
    "phi1_even": (lambda x, d, y: apply("phi1_even_slope", x, d), lambda x, d, y: mul(const(HALF), apply("phi1_odd_slope", x, d))),
    "phi1_odd": (lambda x, d, y: apply("phi1_odd_slope", x, d), lambda x, d, y: apply("phi1_odd_bend", x, d)),
}
"""d f(x, d) / d x and d f(x, d) / d d, from x, d and y = f(x, d); of an even part the second is half of the odd part of f'."""


def cotangents(expr: Expr, cotangent: Expr, value: Expr | None = None) -> list[tuple[str, Expr]]:
    """(name, contribution) for every occurrence of a name in `expr`, when `cotangent` (of expr's type) reaches it.

    A delayed value has the name `x[-1]`. `value` is a cheaper name for `expr` itself, where there is one.
    """
    found: list[tuple[str, Expr]] = []
    _visit(expr, cotangent, value, found)
    return found


def _visit(expr: Expr, dy: Expr, value: Expr | None, found: list) -> None:
    match expr:
        case Ref():
            found.append((expr.name, dy))
        case Delayed():
            found.append((f"{expr.name}[-1]", dy))
        case Const() | SizeOf():
            pass
        case Add():
            for term in expr.terms:
                _visit(term, _reduced(dy, term), None, found)
        case Neg():
            _visit(expr.operand, neg(dy), None, found)
        case Mul():
            _product(expr.left, expr.right, dy, found, value)
        case Div():
            _visit(expr.left, _reduced(div(dy, expr.right), expr.left), None, found)
            if _has_name(expr.right):
                _visit(expr.right, _reduced(neg(div(mul(dy, value or expr), expr.right)), expr.right), None, found)
        case Pow():
            _visit(expr.base, mul(dy, mul(expr.exponent, power(expr.base, add(expr.exponent, const(-1))))), None, found)
            if _has_name(expr.exponent):
                _visit(expr.exponent, mul(dy, mul(value or expr, apply("log", expr.base))), None, found)
        case MatMul():
            _matrix_product(expr, dy, found, None if value is None else (value, dy))
        case Transpose():
            _visit(expr.operand, transpose(dy), None, found)
        case Element():
            _visit(expr.base, apply("at_row", dy, const(Fraction(expr.index)), type=expr.base.type), None, found)
        case Apply():
            _application(expr, dy, value or expr, found)
        case _:
            raise ValueError(f"no derivative for {type(expr).__name__}")


def _product(left: Expr, right: Expr, dy: Expr, found: list, value: Expr | None = None) -> None:
    for own, other in ((left, right), (right, left)):
        if isinstance(own, MatMul) and other.type.is_scalar and value is not None:
            _matrix_product(own, mul(dy, other), found, (value, dy))
        elif _has_name(own):
            own_is_broadcast = own.type.is_scalar and not other.type.is_scalar
            _visit(own, inner_of(dy, other) if own_is_broadcast else mul(dy, other), None, found)


def _matrix_product(expr: MatMul, dy: Expr, found: list, spanning: tuple[Expr, Expr] | None = None) -> None:
    """spanning: two columns that span in every pair what expr and dy do, where they are at hand."""
    left, right = expr.left, expr.right
    if isinstance(left, Rot) and right.type.is_column:
        # rotations keep the area that two columns span in every pair: that of y and dy is that of x and what reaches it
        pulled = matmul(replace(left, operand=neg(left.operand)), dy)
        if _has_name(right):
            _visit(right, pulled, None, found)
        if _has_name(left.operand):
            each = left.operand.type if left.operand.type.is_column else Type(half(right.type.rows))
            area = apply("pair_cross", *(spanning or (right, pulled)), type=each)
            _visit(left.operand, _reduced(area, left.operand), None, found)
    elif isinstance(right, Rot) and left.type.is_row:
        _visit(matmul(replace(right, operand=neg(right.operand)), transpose(left)), transpose(dy), None, found)
    elif isinstance(left, Diag) and not right.type.is_column:
        _visit(left.operand, apply("row_sum", mul(dy, right), type=left.operand.type), None, found)
        _visit(right, matmul(left, dy), None, found)
    elif isinstance(right, Diag) and not left.type.is_row:
        _visit(left, matmul(dy, right), None, found)
        flat = Type(const(1).type.rows, right.operand.type.rows)
        _visit(right.operand, transpose(apply("column_sum", mul(dy, left), type=flat)), None, found)
    elif isinstance(left, Diag):
        _product(left.operand, right, dy, found)
    elif left.type.is_scalar or right.type.is_scalar:
        _product(left, right, dy, found)
    elif left.type.is_row and right.type.is_column:
        if _has_name(left):
            _visit(left, mul(dy, transpose(right)), None, found)
        if _has_name(right):
            _visit(right, mul(dy, transpose(left)), None, found)
    elif (other := regrouped(expr)) != expr:
        _visit(other, dy, None, found)
    else:
        for own, pulled in ((left, lambda: matmul(dy, transpose(right))), (right, lambda: matmul(transpose(left), dy))):
            if _has_name(own):
                _visit(own, pulled(), None, found)


def _application(expr: Apply, dy: Expr, y: Expr, found: list) -> None:
    name, args = expr.function, expr.args
    if name in DERIVATIVES:
        _visit(args[0], mul(dy, DERIVATIVES[name](args[0], y)), None, found)
    elif name in BY_BOTH:
        for arg, slope in zip(args, BY_BOTH[name], strict=True):
            if _has_name(arg):
                _visit(arg, _reduced(mul(dy, slope(*args, y)), arg), None, found)
    elif name in ("min", "max"):
        # at a tie `max` takes its first argument and `min` its second
        wins = apply("at_least", args[0], args[1])
        first, second = (wins, add(const(1), neg(wins))) if name == "max" else (add(const(1), neg(wins)), wins)
        for arg, share in zip(args, (first, second)):
            if _has_name(arg):
                _visit(arg, _reduced(mul(dy, share), arg), None, found)
    elif name == "bounded_sqrt":
        # a derivative of 1 / sqrt(4 x) up to the slope
        x, slope = args
        least = apply("max", x, div(const(Fraction(1, 4)), mul(slope, slope)))
        _visit(x, mul(dy, mul(const(HALF), apply("rsqrt", least))), None, found)
    elif name == "atan2":
        y, x = args
        size = apply("max", add(apply("square", x), apply("square", y)), const(TINY))
        for arg, other in ((y, x), (x, neg(y))):
            if _has_name(arg):
                _visit(arg, _reduced(mul(dy, div(other, size)), arg), None, found)
    elif name == "clamp":
        x, low, high = args
        _visit(x, mul(dy, mul(apply("at_least", x, low), apply("at_least", high, x))), None, found)
    elif name == "unit":
        x = args[0]
        length = apply("rsqrt", add(_along(x, x), const(Fraction(1, 10**6))))
        pull = mul(_along(dy, x), power(length, const(3)))
        _visit(x, add(_each(length, dy), neg(_each(pull, x))), None, found)
    elif name == "rmsnorm":
        x = args[0]
        size = SizeOf(const(1).type, expr.span, x.type.rows if x.type.is_column else x.type.cols)
        scale = apply("rsqrt", add(div(_along(x, x), size), const(Fraction(1, 10**5))))
        pull = div(mul(_along(dy, x), power(scale, const(3))), size)
        _visit(x, add(_each(scale, dy), neg(_each(pull, x))), None, found)
    elif name == "softmax":
        _visit(
            args[0], mul(y, add(dy, neg(_along(dy, y)))) if not _is_stack(y) else add(mul(y, dy), neg(_each(_along(dy, y), y))), None, found
        )
    elif name == "pairs":
        _visit(args[0], apply("pair_sum", dy, type=args[0].type), None, found)
    elif name == "norm":
        # 0 where the column is 0, as in rows of a tile behind the last token
        _visit(args[0], _each(div(dy, apply("max", y, const(TINY))), args[0]), None, found)
    elif name == "rope":
        _visit(args[0], apply("rope_back", dy), None, found)
    elif args and name != "at_least":
        raise ValueError(f"no derivative for `{name}`")


def _along(left: Expr, right: Expr) -> Expr:
    """The inner product of two columns; of two stacks, one a row."""
    if _is_stack(left) and _is_stack(right):
        return apply("row_sum", mul(left, right), type=Type(left.type.rows))
    return inner(left, right) if left is right else inner_of(left, right)


def _each(number: Expr, column: Expr) -> Expr:
    """A number times a column; of a stack, each row times its own."""
    return matmul(Diag(column.type, NOWHERE, number), column) if _is_stack(column) and not number.type.is_scalar else mul(number, column)


def _is_stack(expr: Expr) -> bool:
    """Several columns, one a row."""
    return not (expr.type.is_scalar or expr.type.is_column or expr.type.is_row)


def _reduced(dy: Expr, operand: Expr) -> Expr:
    """`dy` summed over the entries over which a scalar operand was broadcast."""
    if operand.type.is_scalar and not dy.type.is_scalar:
        return apply("sum", dy, type=operand.type)
    return dy


def inner_of(left: Expr, right: Expr) -> Expr:
    """Sum of the products of entries, whichever way the two lie."""
    if left.type.is_scalar and not right.type.is_scalar:
        return mul(left, apply("sum", right, type=const(1).type))
    if right.type.is_scalar and not left.type.is_scalar:
        return mul(right, apply("sum", left, type=const(1).type))
    if left.type.is_scalar:
        return mul(left, right)
    if isinstance(right, Const):
        return mul(const(right.value), apply("sum", left, type=const(1).type))
    if not (left.type.is_row or left.type.is_column):
        return apply("sum", mul(left, right), type=const(1).type)
    if isinstance(right, MatMul) and isinstance(right.left, Rot) and right.right.type.is_column:
        # x . rot(a) y = rot(-a) x . y: the gradient of y has turned x as well
        turn = right.left
        back = Rot(turn.type, turn.span, neg(turn.operand))
        return inner_of(matmul(back, transpose(left) if left.type.is_row else left), right.right)
    as_row = left if left.type.is_row else transpose(left)
    return matmul(as_row, right if right.type.is_column else transpose(right))


def _has_name(expr: Expr) -> bool:
    if isinstance(expr, (Ref, Delayed)):
        return True
    return any(
        _has_name(child)
        for value in vars(expr).values()
        for child in (value if isinstance(value, tuple) else (value,))
        if isinstance(child, Expr)
    )
