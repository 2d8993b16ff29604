"""Noncommutative normal form: an expression affine in the states as a sum of chains of factors.

A chain is `coefficient * F_1 F_2 ... F_n`, a matrix product of token factors (columns, rows, diagonals, rotations, dense
matrices) around at most one state. Chains multiply, transpose and add exactly as the matrices they stand for; after every
operation they are reduced, so that equal values meet in equal chains:

    row ... column (no state between)  -> a scalar, into the coefficient
    diagonal diagonal                  -> one diagonal
    matrix column, row matrix          -> a column, a row

So `(I - b k k^T) diag(a) S` and `diag(a) S - b k (k^T (diag(a) S))` are one value, diag(a) S - b k (a * k)^T S, as are the
two orders of forgetting and measuring when the decay is a number: what a factor holds tells them apart (`quotient`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .. import algebra
from ..expressions import constant, key, uses_index
from ..source import NOWHERE, Span
from ..spec import ONE, Diag, Dim, Expr, SizeOf, StateRef, Type


@dataclass(frozen=True)
class Factor:
    """One factor of a chain.

    kind: 'column', 'row' (`expr` is the column whose transpose it is), 'diagonal' (`expr` is the column on the diagonal),
    'rotation' (`expr` is the `Rot` node), 'dense', 'state' (`expr` is the `StateRef`), 'part' (a row of which the real part is
    taken, Re of it times all that stands behind: linear over the reals, so that no complex number moves past it).
    A state may be transposed, conjugated, and multiplied entry by entry by `weight` (in the state's own orientation).
    """

    kind: str
    expr: Expr
    transposed: bool = False
    conjugated: bool = False
    weight: Expr | None = None

    @property
    def is_matrix(self) -> bool:
        return self.kind in ("diagonal", "rotation", "dense")

    @property
    def key(self) -> str:
        weight = "" if self.weight is None else key(self.weight)
        return f"{self.kind[:2]}{'^T' * self.transposed}{'*' * self.conjugated}{{{weight}}}{key(self.expr)}"


@dataclass(frozen=True)
class Chain:
    """`coefficient * product of factors`, of `rows` x `cols`; `index` (name, count) when summed over a loop index."""

    coefficient: Expr
    factors: tuple[Factor, ...]
    rows: Dim
    cols: Dim
    index: tuple[str, Dim] | None = None
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def place(self) -> int | None:
        """Where the state stands among the factors; None without one."""
        return next((i for i, f in enumerate(self.factors) if f.kind == "state"), None)

    @property
    def state(self) -> StateRef | None:
        return None if self.place is None else self.factors[self.place].expr

    @property
    def is_scalar(self) -> bool:
        return self.rows == ONE and self.cols == ONE

    @property
    def left(self) -> tuple[Factor, ...]:
        """Factors before the state (all of them without one)."""
        return self.factors[: self.place]

    @property
    def right(self) -> tuple[Factor, ...]:
        """Factors after the state."""
        return () if self.place is None else self.factors[self.place + 1 :]

    @property
    def key(self) -> str:
        """Equal for chains that differ in their coefficient only."""
        return " ".join(f.key for f in self.factors) + (f" over {self.index[0]},{self.index[1]}" if self.index else "")


Polynomial = tuple[Chain, ...]


class Refusal(Exception):
    """The user's expression has no place in the normal form: what `Report.error` needs, and the states it concerns."""

    def __init__(self, slug: str, title: str, span: Span, label: str, *, note: str = "", help: str = "", states: tuple[str, ...] = ()):
        super().__init__(title)
        self.slug, self.title, self.span, self.label = slug, title, span, label
        self.note, self.help, self.states = note, help, states


# --- building ----------------------------------------------------------------------------------------------------


def chain(
    coefficient: Expr, factors: Iterable[Factor], rows: Dim, cols: Dim, index: tuple[str, Dim] | None = None, span: Span = NOWHERE
) -> Chain:
    """A reduced chain. Vectors of length one are scalars."""
    factors = tuple(factors)
    place = next((i for i, f in enumerate(factors) if f.kind == "state"), None)
    if place is None:
        scale, factors = _reduce(factors)
    else:
        first, left = _reduce(factors[:place])
        second, right = _reduce(factors[place + 1 :])
        scale = algebra.mul(first, second)
        factors = (*left, factors[place], *right)
    coefficient = algebra.mul(coefficient, scale)
    if index is not None and not _depends(coefficient, factors, index[0]):
        count = algebra.const(index[1].constant) if not index[1].terms else SizeOf(algebra.SCALAR, NOWHERE, index[1])
        coefficient, index = algebra.mul(count, coefficient), None
    result = Chain(coefficient, factors, rows, cols, index, span)
    if result.is_scalar and result.state is not None and result.factors[result.place].transposed:
        # a scalar is its own transpose: let the state stand upright
        return transpose(result)
    return result


def _depends(coefficient: Expr, factors: tuple[Factor, ...], index: str) -> bool:
    exprs = [coefficient, *(f.expr for f in factors), *(f.weight for f in factors if f.weight is not None)]
    return any(uses_index(e, index) for e in exprs)


def _reduce(factors: tuple[Factor, ...]) -> tuple[Expr, tuple[Factor, ...]]:
    """Token factors in lowest form, and the scalar that came out."""
    scale: Expr = algebra.UNIT
    done: list[Factor] = []
    for factor in factors:
        if factor.kind == "column":
            column = factor.expr
            while done and done[-1].is_matrix:
                column = times(done.pop(), column)
            if done and done[-1].kind == "row":
                scale = algebra.mul(scale, algebra.inner(done.pop().expr, column))
                continue
            if done and done[-1].kind == "part":
                scale = algebra.mul(scale, algebra.apply("Re", algebra.inner(done.pop().expr, column)))
                continue
            scalar, column = algebra.split_scalar(column)
            scale = algebra.mul(scale, scalar)
            done.append(Factor("column", column))
        elif factor.kind == "diagonal" and done and done[-1].kind == "diagonal":
            done[-1] = Factor("diagonal", algebra.mul(done[-1].expr, factor.expr))
        elif factor.is_matrix and done and done[-1].kind in ("row", "part"):
            sign, flipped = transpose_factor(factor)
            done[-1] = Factor(done[-1].kind, algebra.mul(sign, times(flipped, done[-1].expr)))
        else:
            done.append(factor)
    for position, factor in enumerate(done):
        if factor.kind in ("row", "diagonal"):
            scalar, rest = algebra.split_scalar(factor.expr)
            scale = algebra.mul(scale, scalar)
            done[position] = Factor(factor.kind, rest)
        elif factor.kind == "part":
            scalar, rest = algebra.split_scalar(factor.expr)
            if scalar.type.field == "real":
                scale = algebra.mul(scale, scalar)
                done[position] = Factor(factor.kind, rest)
    # a diagonal of ones is the identity, as of `(1 - k v^T) * S`
    return scale, tuple(f for f in done if f.kind != "diagonal" or constant(f.expr) != 1)


def past(factors: tuple[Factor, ...], coefficient: Expr) -> tuple[tuple[Factor, ...], Expr]:
    """Factors with a number behind them, and what of it may stand in front: a part keeps it."""
    if not factors or factors[-1].kind != "part":
        return factors, coefficient
    last = factors[-1]
    return (*factors[:-1], replace(last, expr=algebra.mul(coefficient, last.expr))), algebra.UNIT


def times(matrix: Factor, column: Expr) -> Expr:
    """`matrix column` as a column expression."""
    if matrix.kind == "diagonal":
        return algebra.mul(matrix.expr, column)
    return algebra.matmul(matrix.expr, column)


def transpose_factor(factor: Factor, conjugate: bool = False) -> tuple[Expr, Factor]:
    """The sign and the factor of `factor^T` (`^H`)."""

    def conj(expr: Expr) -> Expr:
        return algebra.apply("conj", expr) if conjugate else expr

    match factor.kind:
        case "column":
            return algebra.UNIT, Factor("row", conj(factor.expr))
        case "row":
            return algebra.UNIT, Factor("column", conj(factor.expr))
        case "diagonal":
            return algebra.UNIT, Factor("diagonal", conj(factor.expr))
        case "part":
            raise Refusal(
                "state-inside-function",
                "a part of a state is transposed",
                factor.expr.span,
                "taking a part is linear over the reals only",
                note="`u Re(w^T s)` leads from one column to another; its transpose is no factor of a chain",
                help="write the term upright",
            )
        case "state":
            # a scalar state is its own transpose
            transposed = not factor.transposed and not factor.expr.type.is_scalar
            conjugated = factor.conjugated != (conjugate and factor.expr.type.field == "complex")
            return algebra.UNIT, replace(factor, transposed=transposed, conjugated=conjugated)
    scalar, flipped = algebra.split_scalar(algebra.transpose(factor.expr, conjugate))
    return scalar, Factor(factor.kind, flipped)


def transpose(item: Chain, conjugate: bool = False) -> Chain:
    """`chain^T` (`^H`)."""
    coefficient = algebra.apply("conj", item.coefficient) if conjugate else item.coefficient
    flipped = []
    for factor in reversed(item.factors):
        sign, turned = transpose_factor(factor, conjugate)
        coefficient = algebra.mul(sign, coefficient)
        flipped.append(turned)
    return chain(coefficient, flipped, item.cols, item.rows, item.index, item.span)


def scale(item: Chain, by: Expr, span: Span | None = None) -> Chain:
    """`by * chain` for a scalar expression."""
    return replace(item, coefficient=algebra.mul(by, item.coefficient), span=item.span if span is None else span)


def divide(item: Chain, by: Expr, span: Span) -> Chain:
    """`chain / by` for a scalar expression."""
    return replace(item, coefficient=algebra.div(item.coefficient, by), span=span)


def product(left: Chain, right: Chain, span: Span = NOWHERE) -> Chain:
    """The matrix product; a scalar factor multiplies anything.

    Raises Refusal when both hold a state, when both are sums over an index, or when a scalar that holds a state meets a
    matrix that is no outer product.
    """
    if left.state is not None and right.state is not None:
        raise two_states(left.state, right.state, span)
    index = _one_index(left, right, span)
    ahead, behind = past(left.factors, right.coefficient)
    coefficient = algebra.mul(left.coefficient, behind)
    if left.is_scalar or right.is_scalar:
        inner, outer = (left, right) if left.is_scalar else (right, left)
        rows, cols = outer.rows, outer.cols
        if inner.state is None:
            return chain(coefficient, outer.factors, rows, cols, index, span)
        if inner.state is not None and outer.state is None:
            return chain(coefficient, _inserted(inner, outer, span), rows, cols, index, span)
    return chain(coefficient, (*ahead, *right.factors), left.rows, right.cols, index, span)


def _inserted(inner: Chain, outer: Chain, span: Span) -> tuple[Factor, ...]:
    """A scalar chain with a state, placed where the outer product has inner size one."""
    kinds = [f.kind for f in outer.factors]
    if not kinds or "column" in kinds:
        at = kinds.index("column") + 1 if kinds else 0
    elif kinds[0] == "row":
        at = 0
    else:
        name = inner.state.name
        raise Refusal(
            "write-without-key",
            f"a scalar of `{name}` multiplies a full matrix",
            span,
            "this matrix is no outer product `k v^T`",
            note="every term of an update is a product of matrices around one state",
            help="write the matrix as an outer product of two columns, or as a sum of them",
            states=(name,),
        )
    return (*outer.factors[:at], *inner.factors, *outer.factors[at:])


def _one_index(left: Chain, right: Chain, span: Span) -> tuple[str, Dim] | None:
    if left.index is not None and right.index is not None:
        raise Refusal(
            "nested-sum",
            "two sums over ranks are multiplied",
            span,
            f"a sum over `{left.index[0]}` times a sum over `{right.index[0]}`",
            note="a term of an update is summed over one index at most",
            help="name the inner sum's result as an input or `let` of the token, or write micro-steps: `for j in 1..n: ...`",
        )
    return left.index or right.index


def elementwise(weights: Polynomial, whole: Expr, item: Chain, span: Span) -> Polynomial:
    """`whole * chain` entry by entry, for a state-free value of the same shape; `weights` is `whole` as chains.

    Raises Refusal when a full matrix weighs a product with the state, which no chain of factors equals.
    """
    if item.cols == ONE:
        return (chain(item.coefficient, (Factor("diagonal", whole), *item.factors), item.rows, item.cols, item.index, span),)
    if item.rows == ONE:
        column = algebra.transpose(whole)
        return (chain(item.coefficient, (*item.factors, Factor("diagonal", column)), item.rows, item.cols, item.index, span),)
    if weights and all([f.kind for f in w.factors] == ["column", "row"] for w in weights):
        found = []
        for w in weights:
            u, v = (Factor("diagonal", f.expr) for f in w.factors)
            coefficient = algebra.mul(w.coefficient, item.coefficient)
            found.append(chain(coefficient, (u, *item.factors, v), item.rows, item.cols, _one_index(w, item, span), span))
        return tuple(found)
    state = item.factors[item.place]
    if any(f.kind != "diagonal" for f in item.left + item.right):
        raise Refusal(
            "elementwise-after-product",
            f"a full matrix multiplies a product with `{state.expr.name}` entry by entry",
            span,
            "the matrix product inside is not entry by entry",
            note="entry-by-entry weights act on the state itself: `W * S`",
            help=f"multiply the state first, `A (W * {state.expr.name})`, or use `diag(a)` on one side",
            states=(state.expr.name,),
        )
    # diagonals commute with entry-by-entry weights: the weight moves next to the state
    weight = algebra.transpose(whole) if state.transposed else whole
    if state.weight is not None:
        weight = algebra.mul(state.weight, weight)
    factors = (*item.left, replace(state, weight=weight), *item.right)
    return (chain(item.coefficient, factors, item.rows, item.cols, item.index, span),)


def weigh(weight: Expr, item: Chain, span: Span) -> Chain | None:
    """`weight * chain` entry by entry for a chain without a state: `W * (k v^T) = diag(k) W diag(v)`. None for other chains."""
    kinds = [f.kind for f in item.factors]
    if kinds == ["column", "row"]:
        left, right = ((Factor("diagonal", f.expr),) for f in item.factors)
    elif kinds.count("dense") == 1 and set(kinds) <= {"diagonal", "dense"}:
        place = kinds.index("dense")
        left, right, weight = item.factors[:place], item.factors[place + 1 :], algebra.mul(weight, item.factors[place].expr)
    else:
        return None
    return chain(item.coefficient, (*left, Factor("dense", weight), *right), item.rows, item.cols, item.index, span)


def substitute(item: Chain, value: Polynomial) -> Polynomial:
    """The chain with its state replaced by a polynomial of that state's shape."""
    state = item.factors[item.place]
    found: list[Chain] = []
    for inner in value:
        parts: Polynomial = (inner,)
        if state.weight is not None:
            written = weigh(state.weight, inner, item.span) if inner.state is None else None
            if inner.state is None and written is None:
                raise Refusal(
                    "elementwise-after-product",
                    "a full matrix multiplies a written matrix entry by entry",
                    item.span,
                    "this matrix is no outer product",
                    note="a write is `k v^T`, weighed entry by entry perhaps",
                    help="weigh the state alone, and write after it: `S' = W * S + k v^T`",
                )
            parts = elementwise((), state.weight, inner, item.span) if written is None else (written,)
        for part in parts:
            turned = transpose(part, state.conjugated) if state.transposed else part
            ahead, behind = past(item.left, turned.coefficient)
            coefficient = algebra.mul(item.coefficient, behind)
            factors = (*ahead, *turned.factors, *item.right)
            index = _one_index(item, turned, item.span)
            found.append(chain(coefficient, factors, item.rows, item.cols, index, _joined(item.span, part.span)))
    return tuple(found)


def collect(items: Iterable[Chain]) -> Polynomial:
    """Equal chains added, zero chains dropped, in order of first occurrence."""
    found: dict[str, Chain] = {}
    for item in items:
        if item.key in found:
            old = found[item.key]
            total = algebra.add(old.coefficient, item.coefficient)
            found[item.key] = replace(old, coefficient=total, span=_joined(old.span, item.span))
        else:
            found[item.key] = item
    return tuple(item for item in found.values() if constant(item.coefficient) != 0 and not _has_zero(item))


def _has_zero(item: Chain) -> bool:
    return any(f.kind != "state" and constant(f.expr) == 0 for f in item.factors)


def _joined(left: Span, right: Span) -> Span:
    if NOWHERE in (left, right):
        return right if left == NOWHERE else left
    return left.to(right)


def broadcast(item: Chain, type: Type, span: Span) -> Chain:
    """A scalar chain as a value of `type`, every entry the same."""
    ones = [Factor("column", algebra.const(1, Type(type.rows)))] if type.rows != ONE else []
    others = [Factor("row", algebra.const(1, Type(type.cols)))] if type.cols != ONE else []
    return chain(item.coefficient, (*ones, *item.factors, *others), type.rows, type.cols, item.index, span)


def two_states(left: StateRef, right: StateRef, span: Span, kept: str = "") -> Refusal:
    """The refusal for a product of two states; `kept` is the text of one factor alone."""
    edit = f"keep one factor, `{kept}`" if kept else "let one factor depend on the token alone"
    if left.name == right.name:
        return Refusal(
            "nonlinear-state",
            f"the update is not affine in `{left.name}`",
            span,
            f"`{left.name}` appears to degree 2",
            note="a chunk form, a scan and an adjoint recurrence exist only for updates of degree one in the states",
            help=f"{edit}, or declare `form sequential`",
            states=(left.name,),
        )
    return Refusal(
        "two-states-multiplied",
        f"`{left.name}` and `{right.name}` are multiplied",
        span,
        "a product of two states",
        note="states may be added to each other, each times factors of the token alone",
        help=f"{edit}, or declare `form sequential`",
        states=(left.name, right.name),
    )


# --- back to expressions -----------------------------------------------------------------------------------------


def product_expr(factors: Iterable[Factor], state: Expr | None = None) -> Expr | None:
    """The product of factors as an expression, `state` in the place of the state; None for the empty product."""
    result: Expr | None = None
    for factor in reversed(tuple(factors)):
        if factor.kind == "state":
            part = state
            if factor.weight is not None:
                part = algebra.mul(factor.weight, part)
            if factor.transposed:
                part = algebra.transpose(part)
        elif factor.kind == "part":
            result = algebra.apply("Re", algebra.matmul(algebra.transpose(factor.expr), result))
            continue
        elif factor.kind == "row":
            part = algebra.transpose(factor.expr)
        elif factor.kind == "diagonal":
            part = Diag(Type(factor.expr.type.rows, factor.expr.type.rows, factor.expr.type.field), factor.expr.span, factor.expr)
        else:
            part = factor.expr
        result = part if result is None else algebra.matmul(part, result)
    return result


def chain_expr(item: Chain) -> Expr:
    """A token chain as an expression of the token."""
    body = product_expr(item.factors)
    value = item.coefficient if body is None else algebra.mul(item.coefficient, body)
    return algebra.sum_over(*item.index, value) if item.index else value
