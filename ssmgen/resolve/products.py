"""Sums and products: which shapes go together, and what to write when they do not."""

from __future__ import annotations

from dataclasses import replace

from ..diagnostics import Label
from ..expressions import nodes
from ..source import Span
from ..spec import ONE, Add, Apply, Const, Dim, Div, Expr, Identity, MatMul, Mul, Neg, Pow, Rot, Skew, StateRef, SumOver, Type
from . import building
from .building import UNKNOWN, is_unsized, joined_field
from .dims import check_pairs
from .scope import Scope, Unresolved


def _text(scope: Scope, expr: Expr) -> str:
    return " ".join(scope.report.source.slice(expr.span).split()) or "this"


def _factor(scope: Scope, expr: Expr) -> str:
    """The text of an operand, in parentheses where it is a sum or a product."""
    text = _text(scope, expr)
    return f"({text})" if isinstance(expr, (Add, Neg, Mul, MatMul, Div, Pow, SumOver)) else text


def _square(type: Type) -> bool:
    return type.rows == type.cols and type.rows != ONE


# --- sums --------------------------------------------------------------------------------------------------------


def sum_of(scope: Scope, left: Expr, right: Expr, span: Span) -> Expr:
    """`left + right`: one type, or a scalar beside anything but a square matrix. A row beside a column of its length becomes one:
    papers print `q^T S + D x`."""
    left, right = _same_size(scope, left, right)
    if (
        (left.type.is_row, right.type.is_row) in ((True, False), (False, True))
        and left.type.rows == right.type.cols
        and left.type.cols == right.type.rows
    ):
        left, right = building.as_column(left), building.as_column(right)
    field = joined_field(left, right)
    for scalar, matrix in ((left, right), (right, left)):
        if scalar.type.is_scalar and _square(matrix.type) and not building.reads_state(matrix):
            is_one = isinstance(scalar, Const) and scalar.value == 1
            help = "the identity matrix is `I`" if is_one else f"a multiple of the identity is `{_factor(scope, scalar)} * I`"
            raise _mismatch(scope, left, right, span, "are added", help)
    if left.type.is_scalar or right.type.is_scalar or _shape(left) == _shape(right):
        shape = right.type if left.type.is_scalar else left.type
        return building.add(left, right, replace(shape, field=field), span)
    raise _mismatch(scope, left, right, span, "are added", _sum_help(scope, left, right))


def _sum_help(scope: Scope, left: Expr, right: Expr) -> str:
    a, b = left.type, right.type
    if (a.rows, a.cols) == (b.cols, b.rows):
        return f"one is the other's transpose: `{_factor(scope, right)}^T`"
    if a.is_column and _square(b) and a.rows == b.rows:
        return f"a column becomes a matrix with `diag({_text(scope, left)})`"
    if b.is_column and _square(a) and a.rows == b.rows:
        return f"a column becomes a matrix with `diag({_text(scope, right)})`"
    return "the terms of a sum have one shape; a scalar goes with any"


def _shape(expr: Expr) -> tuple[Dim, Dim]:
    return expr.type.rows, expr.type.cols


def sized(scope: Scope, expr: Expr, dim: Dim) -> Expr:
    """`expr` with the open size of its `I` and of a rotation by one angle set: such a rotation needs an even one."""
    for node in nodes(expr):
        if isinstance(node, Rot) and is_unsized(node):
            check_pairs(dim, f"`{_text(scope, node)}`", node.span, "one angle for all pairs", scope)
    return building.sized(expr, dim)


def _same_size(scope: Scope, left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Give an `I` on one side the size of the other."""
    if is_unsized(left) and not is_unsized(right) and _square(right.type):
        left = sized(scope, left, right.type.rows)
    if is_unsized(right) and not is_unsized(left) and _square(left.type):
        right = sized(scope, right, left.type.rows)
    return left, right


def _mismatch(scope: Scope, left: Expr, right: Expr, span: Span, verb: str, help: str) -> Unresolved:
    scope.report.error(
        "shape-mismatch",
        f"`{_text(scope, left)}` is {scope.shape(left.type)}; `{_text(scope, right)}` is {scope.shape(right.type)}",
        span,
        f"shapes that differ {verb}",
        secondary=_labels_on_other_lines(scope, span, left, right),
        help=help,
    )
    return Unresolved()


def _labels_on_other_lines(scope: Scope, span: Span, *operands: Expr) -> tuple[Label, ...]:
    """The title names both shapes; a label beside it helps only where the operands stand on different lines."""
    first = scope.report.source.position(span.start)[0]
    return tuple(Label(o.span, scope.shape(o.type)) for o in operands if scope.report.source.position(o.span.start)[0] != first)


# --- products ----------------------------------------------------------------------------------------------------


def matrix_product(scope: Scope, left: Expr, right: Expr, span: Span) -> Expr:
    """`left right`: a matrix product, or a scalar times anything."""
    turned = _complex_times_pairs(scope, left, right, span)
    if turned is not None:
        return turned
    left = _padded_rotation(scope, left, right)
    if left.type.is_scalar or right.type.is_scalar:
        return building.mul(left, right, span)
    if is_unsized(left) and not is_unsized(right):
        left = sized(scope, left, right.type.rows)
    if is_unsized(right) and not is_unsized(left):
        right = sized(scope, right, left.type.cols)
    if left.type.cols == right.type.rows:
        return building.matmul(left, right, span)
    raise _no_matrix_product(scope, left, right, span)


def _no_matrix_product(scope: Scope, left: Expr, right: Expr, span: Span) -> Unresolved:
    a, b = _factor(scope, left), _factor(scope, right)
    if left.type.is_column and right.type.is_column:
        if left.type.rows == right.type.rows:
            help = f"elementwise `{a} * {b}`, inner `{a}^T {b}`, or outer `{a} {b}^T`"
        else:
            help = f"of unlike lengths only the outer product exists: `{a} {b}^T`"
        scope.report.error(
            "not-a-matrix-product",
            f"two columns, {scope.shape(left.type)} and {scope.shape(right.type)}, have no matrix product",
            span,
            "a space is the matrix product",
            help=help,
        )
        return Unresolved()
    if left.type.is_column and left.type.rows == right.type.rows:
        help = f"to scale the rows: `diag({_text(scope, left)}) {b}`"
    elif right.type.is_column and right.type.rows == left.type.cols == ONE:
        help = f"`{a} {b}^T`"
    elif left.type.rows == right.type.rows:
        help = f"transpose the left factor: `{a[:-2] if a.endswith('^T') else a + '^T'} {b}`"
    elif left.type.cols == right.type.cols:
        help = f"transpose the right factor: `{a} {b}^T`"
    else:
        help = "in `a b` the columns of `a` are as many as the rows of `b`"
    return _mismatch(scope, left, right, span, "are multiplied", help)


def elementwise_product(scope: Scope, left: Expr, right: Expr, span: Span) -> Expr:
    """`left * right`: entry by entry, or a scalar times anything."""
    turned = _complex_times_pairs(scope, left, right, span)
    if turned is not None:
        return turned
    left, right = _same_size(scope, left, right)
    if left.type.is_scalar or right.type.is_scalar or _shape(left) == _shape(right):
        return building.mul(left, right, span)
    a, b = _factor(scope, left), _factor(scope, right)
    if left.type.is_column and left.type.rows == right.type.rows:
        help = f"`*` is elementwise; to scale the rows: `diag({_text(scope, left)}) {b}`"
    elif right.type.is_column and right.type.rows == left.type.cols and not left.type.is_row:
        help = f"`*` is elementwise; the matrix product is a space: `{a} {b}`"
    elif right.type.is_column and right.type.rows == left.type.rows:
        help = f"`*` is elementwise; to scale the rows: `diag({_text(scope, right)}) {a}`"
    elif left.type.cols == right.type.rows:
        help = f"`*` is elementwise; the matrix product is a space: `{a} {b}`"
    elif (left.type.rows, left.type.cols) == (right.type.cols, right.type.rows):
        help = f"one is the other's transpose: `{a} * {b}^T`"
    elif left.type.is_column and right.type.is_column:
        help = f"the outer product is `{a} {b}^T`"
    else:
        help = "elementwise factors have one shape; a scalar goes with any"
    raise _mismatch(scope, left, right, span, "are multiplied entry by entry", help)


def inner_product(scope: Scope, left: Expr, right: Expr, span: Span) -> Expr:
    """`left . right`: the sum of the products of the entries of two columns, without conjugation."""
    left, right = building.as_column(left), building.as_column(right)
    if left.type.is_column and right.type.is_column and left.type.rows == right.type.rows:
        return building.matmul(building.transpose(left, left.span), right, span)
    if left.type.is_column and left.type.rows == right.type.rows:
        help = f"with a matrix: `{_factor(scope, left)}^T {_factor(scope, right)}`"
    elif left.type.is_scalar or right.type.is_scalar:
        help = f"a scalar multiplies with `*`: `{_factor(scope, left)} * {_factor(scope, right)}`"
    else:
        help = "`a . b` takes two columns of one length"
    raise _mismatch(scope, left, right, span, "have no inner product", help)


def quotient(scope: Scope, left: Expr, right: Expr, span: Span) -> Expr:
    """`left / right`: by a scalar, or entry by entry."""
    if right.type.is_scalar or _shape(left) == _shape(right):
        if isinstance(right, Const) and not right.value:
            scope.report.error("division-by-zero", "a quotient by zero", right.span, "this is 0", help="divide by something that is not 0")
            raise Unresolved
        return building.div(left, right, span)
    if left.type.is_scalar and right.type.is_column:
        # the reciprocal of every entry
        ones = building.power(right, building.number(-1, right.span), right.span)
        return building.mul(left, ones, span)
    help = "the divisor is a scalar or has the shape of the dividend"
    if right.type.is_column and right.type.rows == left.type.rows:
        help = f"to divide the rows: `diag(1 / {_factor(scope, right)}) {_factor(scope, left)}`"
    raise _mismatch(scope, left, right, span, "are divided", help)


def power(scope: Scope, base: Expr, exponent: Expr, span: Span) -> Expr:
    """`base ^ exponent`, entry by entry."""
    if base.type.is_scalar or exponent.type.is_scalar or _shape(base) == _shape(exponent):
        if _square(base.type):
            scope.report.error(
                "shape-mismatch",
                f"`{_text(scope, base)}` is {scope.shape(base.type)}; a power of a matrix would be read entry by entry",
                span,
                "a matrix to a power",
                help=f"write the product: `{_factor(scope, base)} {_factor(scope, base)}`, or `square(...)` for the entries",
            )
            raise Unresolved
        return building.power(base, exponent, span)
    raise _mismatch(scope, base, exponent, span, "are a base and its exponent", "the exponent is a scalar or has the shape of the base")


# --- real pairs --------------------------------------------------------------------------------------------------


def _rotating_rows(scope: Scope, expr: Expr) -> Dim | None:
    """The rows of `expr` that are pairs, when it holds a state whose first rows turn."""
    for node in nodes(expr):
        if isinstance(node, StateRef):
            state = scope.states.get(node.name)
            if state is not None and state.rotating_rows is not None and state.type.rows == expr.type.rows:
                return state.rotating_rows
    return None


def _padded_rotation(scope: Scope, left: Expr, right: Expr) -> Expr:
    """`rot(theta)` of fewer pairs than the state has leaves the other rows alone."""
    if isinstance(left, Rot) and not is_unsized(left) and left.type.cols != right.type.rows and not right.type.is_scalar:
        turning = _rotating_rows(scope, right)
        if turning is not None and left.type.rows == turning:
            return replace(left, type=Type(right.type.rows, right.type.rows))
    if isinstance(left, Mul) and left.left.type.is_scalar and isinstance(left.right, Rot):
        inner = _padded_rotation(scope, left.right, right)
        return left if inner is left.right else replace(left, type=inner.type, right=inner)
    if isinstance(left, MatMul) and isinstance(left.right, Rot):
        inner = _padded_rotation(scope, left.right, right)
        if inner is not left.right and left.left.type.cols == inner.type.rows:
            return replace(left, right=inner, type=Type(left.type.rows, inner.type.cols, left.type.field))
    return left


def _complex_times_pairs(scope: Scope, left: Expr, right: Expr, span: Span) -> Expr | None:
    """A complex factor on a state stored as real pairs: `a + i w` scales by `a` and turns by `w`."""
    if left.type.field != "complex" or right.type.field != "real":
        return None
    turning = _rotating_rows(scope, right)
    if turning is None or not (left.type.is_scalar or left.type.is_column):
        return None
    pairs = Dim(turning.constant / 2, tuple((name, c / 2) for name, c in turning.terms))
    # one number for all pairs would turn the rows behind them as well
    is_wide = left.type.is_scalar and turning != right.type.rows
    if is_wide or (left.type.is_column and left.type.rows != pairs):
        scope.report.error(
            "shape-mismatch",
            f"`{_text(scope, left)}` is {scope.shape(left.type)}; the state has {pairs} = {scope.number(pairs)} turning pairs",
            span,
            "one complex factor a pair",
            help=f"declare it `[{pairs}]`, or change `rotates first {turning} rows`",
        )
        raise Unresolved
    square = Type(right.type.rows, right.type.rows)
    if isinstance(left, Apply) and left.function in ("exp", "cis"):
        exponent = _parts(left.args[0]) if left.function == "exp" else (None, left.args[0])
        if exponent is not None and exponent[1] is not None:
            modulus, angle = exponent
            turned = building.matmul(Rot(square, left.span, angle), right, span)
            if modulus is None:
                return turned
            scaled = Apply(replace(modulus.type, field="real"), left.span, "exp", (modulus,))
            return _scale_pairs(scope, scaled, turned, turning, span)
    parts = _parts(left)
    if parts is None:
        scope.report.error(
            "field-mismatch",
            f"`{_text(scope, left)}` does not split into a modulus and an angle",
            left.span,
            "acts on a state stored as real pairs",
            help="write the factor as `a + i * w` in dynamics, or as `exp(a + i * w)` in an update",
        )
        raise Unresolved
    real, imaginary = parts
    terms = []
    if real is not None:
        terms.append(_scale_pairs(scope, real, right, turning, span))
    if imaginary is not None:
        terms.append(building.matmul(Skew(square, imaginary.span, imaginary), right, span))
    return terms[0] if len(terms) == 1 else building.add(terms[0], terms[1], right.type, span)


def _scale_pairs(scope: Scope, factor: Expr, right: Expr, turning: Dim, span: Span) -> Expr:
    if factor.type.is_scalar:
        return building.mul(factor, right, span)
    rows = right.type.rows
    if rows != turning:
        scope.report.error(
            "shape-mismatch",
            f"`{_text(scope, factor)}` scales {turning} = {scope.number(turning)} rows; the state has {rows} = {scope.number(rows)}",
            factor.span,
            "one factor a pair leaves the other rows without one",
            help=f"scale by one scalar, or let all rows turn: `rotates first {rows} rows`",
        )
        raise Unresolved
    both = Apply(Type(turning), factor.span, "pairs", (factor,))
    return building.matmul(building.diagonal(both, Type(rows, rows), factor.span), right, span)


def _parts(expr: Expr) -> tuple[Expr | None, Expr | None] | None:
    """Real and imaginary part, None for a part that is 0; None when `expr` is no polynomial in `i`."""
    if expr.type.field == "real":
        return expr, None
    match expr:
        case Apply(function="i"):
            return None, building.number(1, expr.span)
        case Neg(operand=operand):
            inner = _parts(operand)
            return None if inner is None else tuple(None if p is None else building.neg(p, expr.span) for p in inner)
        case Add(terms=terms):
            split = [_parts(term) for term in terms]
            if any(s is None for s in split):
                return None
            return _total([s[0] for s in split], expr.span), _total([s[1] for s in split], expr.span)
        case Mul(left=left, right=right):
            a, b = _parts(left), _parts(right)
            if a is None or b is None:
                return None
            real = _total([_times(a[0], b[0], expr.span), _minus(_times(a[1], b[1], expr.span), expr.span)], expr.span)
            return real, _total([_times(a[0], b[1], expr.span), _times(a[1], b[0], expr.span)], expr.span)
        case Div(left=left, right=right) if right.type.field == "real":
            inner = _parts(left)
            return None if inner is None else tuple(None if p is None else building.div(p, right, expr.span) for p in inner)
    return None


def _times(a: Expr | None, b: Expr | None, span: Span) -> Expr | None:
    if a is None or b is None:
        return None
    one = [isinstance(x, Const) and x.value == 1 for x in (a, b)]
    return b if one[0] else a if one[1] else building.mul(a, b, span)


def _minus(a: Expr | None, span: Span) -> Expr | None:
    return None if a is None else building.neg(a, span)


def _total(parts: list[Expr | None], span: Span) -> Expr | None:
    present = [p for p in parts if p is not None]
    if not present:
        return None
    total = present[0]
    for part in present[1:]:
        shape = part.type if total.type.is_scalar else total.type
        total = building.add(total, part, replace(shape, field="real"), span)
    return total


def identity(span: Span) -> Expr:
    """`I`, its size still open."""
    return Identity(Type(UNKNOWN, UNKNOWN), span)
