"""An expression of the specification as a polynomial of degree at most one in the states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import algebra
from ..expressions import constant, nodes
from ..spec import (
    Add,
    Apply,
    Diag,
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
    Skew,
    StateRef,
    SumOver,
    Symbol,
    Transpose,
)
from ..spec_text import expr_text
from .chains import (
    Chain,
    Factor,
    Polynomial,
    Refusal,
    broadcast,
    chain,
    chain_expr,
    collect,
    divide,
    elementwise,
    product,
    scale,
    transpose,
    two_states,
    weigh,
)

StateValue = Callable[[StateRef], Polynomial]


def itself(state: StateRef) -> Polynomial:
    """The state as it is written."""
    return (chain(algebra.UNIT, (Factor("state", state),), state.type.rows, state.type.cols, span=state.span),)


@dataclass(frozen=True)
class Expander:
    """Expands expressions; `value_of` says what a state stands for (itself, or what was assigned to it before)."""

    symbols: dict[str, Symbol]
    value_of: StateValue = itself
    takes_parts: bool = False  # `Re(w^T s)` is a factor: maps that are linear over the reals alone are taken

    def reads_state(self, expr: Expr) -> bool:
        """True when a state occurs, also behind the name of a `let`."""
        for node in nodes(expr):
            if isinstance(node, StateRef):
                return True
            if isinstance(node, Ref) and (definition := self._definition(node)) is not None and self.reads_state(definition):
                return True
        return False

    def expand(self, expr: Expr) -> Polynomial:
        """The normal form. Raises Refusal when `expr` is not affine in the states."""
        return collect(self._expand(expr))

    def _definition(self, ref: Ref) -> Expr | None:
        symbol = self.symbols.get(ref.name)
        return None if symbol is None else symbol.definition

    # --- with a state --------------------------------------------------------------------------------------------

    def _expand(self, expr: Expr) -> Polynomial:
        if not self.reads_state(expr):
            return self.token(expr)
        match expr:
            case StateRef():
                return self.value_of(expr)
            case Ref():
                return self._expand(self._definition(expr))
            case Add():
                found = []
                for term in expr.terms:
                    for item in self._expand(term):
                        widened = item.is_scalar and not expr.type.is_scalar
                        found.append(broadcast(item, expr.type, item.span) if widened else item)
                return tuple(found)
            case Neg():
                return tuple(scale(item, algebra.const(-1), expr.span) for item in self._expand(expr.operand))
            case Mul() | MatMul() if self.reads_state(expr.left) and self.reads_state(expr.right):
                raise two_states(self._first_state(expr.left), self._first_state(expr.right), expr.span, expr_text(expr.left))
            case Mul():
                return self._product(expr)
            case Div():
                return self._quotient(expr)
            case MatMul():
                left, right = self._expand(expr.left), self._expand(expr.right)
                return collect(product(a, b, expr.span) for a in left for b in right)
            case Transpose():
                return tuple(transpose(item, expr.conjugate) for item in self._expand(expr.operand))
            case SumOver():
                return tuple(self._summed(item, expr) for item in self._expand(expr.body))
            case Diag():
                raise self._inside(expr, "diag", "write the product entry by entry: `a * h`")
            case Rot():
                raise self._inside(expr, "rot", "let the angles depend on the token alone")
            case Skew():
                raise self._inside(expr, "i *", "let the rates depend on the token alone")
            case Pow():
                return self._power(expr)
            case Element():
                raise self._inside(expr, "a row index", "read the state by a product: `S^T q`")
            case Apply(function="conj"):
                return tuple(transpose(transpose(item), conjugate=True) for item in self._expand(expr.args[0]))
            case Apply(function="Re") if self.takes_parts and expr.type.is_scalar:
                return tuple(self._part(item, expr) for item in self._expand(expr.args[0]))
            case Apply():
                raise self._inside(expr, expr.function, "")
        raise ValueError(f"no rule for {type(expr).__name__}")

    def _product(self, expr: Mul) -> Polynomial:
        left, right = expr.left, expr.right
        if left.type.is_scalar or right.type.is_scalar:
            return collect(product(a, b, expr.span) for a in self._expand(left) for b in self._expand(right))
        whole, other = (right, left) if self.reads_state(left) else (left, right)
        weights = self.token(whole)
        found = []
        for item in self._expand(other):
            if item.state is None:
                found += self.token(algebra.mul(whole, chain_expr(item)))
            else:
                found += elementwise(weights, whole, item, expr.span)
        return collect(found)

    def _part(self, item: Chain, expr: Expr) -> Chain:
        """Re of `c w^T s`, which is Re of (c w)^T s."""
        upright = item.state is not None and not item.factors[-1].transposed and not item.factors[-1].conjugated
        if not upright or [f.kind for f in item.factors] != ["row", "state"] or item.index is not None:
            raise self._inside(expr, "Re", "take the real part of one product with a column, `Re(w^T s)`, and of nothing else")
        row, state = item.factors
        return chain(algebra.UNIT, (Factor("part", algebra.mul(item.coefficient, row.expr)), state), item.rows, item.cols, span=expr.span)

    def _quotient(self, expr: Div) -> Polynomial:
        if self.reads_state(expr.right):
            state = self._first_state(expr.right)
            raise Refusal(
                "nonlinear-state",
                f"the update is not affine in `{state.name}`",
                expr.span,
                f"divided by `{state.name}`",
                note="a chunk form, a scan and an adjoint recurrence exist only for updates of degree one in the states",
                help="divide in the output, after the update, or declare `form sequential`",
                states=(state.name,),
            )
        if expr.right.type.is_scalar:
            return tuple(divide(item, expr.right, expr.span) for item in self._expand(expr.left))
        return self._expand(Mul(expr.type, expr.span, algebra.div(algebra.UNIT, expr.right), expr.left))

    def _power(self, expr: Pow) -> Polynomial:
        if self.reads_state(expr.base) and constant(expr.exponent) == 1:
            return self._expand(expr.base)
        if self.reads_state(expr.base):
            state = self._first_state(expr.base)
            raise two_states(state, state, expr.span, expr_text(expr.base))
        raise self._inside(expr, "a power", "")

    def _summed(self, item: Chain, expr: SumOver) -> Chain:
        if item.index is not None:
            raise Refusal(
                "nested-sum",
                "a sum over ranks inside a sum over ranks",
                expr.span,
                f"a sum over `{item.index[0]}` inside a sum over `{expr.index}`",
                note="a term of an update is summed over one index at most",
                help="give the token one list of rows, and sum over it once",
            )
        return chain(item.coefficient, item.factors, item.rows, item.cols, (expr.index, expr.count), item.span)

    def _inside(self, expr: Expr, function: str, help: str) -> Refusal:
        state = self._first_state(expr)
        is_part = function in ("Re", "Im")
        return Refusal(
            "state-inside-function",
            f"`{state.name}` is inside `{function}`",
            expr.span,
            "taking a part is linear over the reals only" if is_part else f"`{function}` is not linear in `{state.name}`",
            note="a chunk form, a scan and an adjoint recurrence exist only for updates of degree one in the states",
            help=help or f"apply `{function}` to the token's terms only, or declare `form sequential`",
            states=(state.name,),
        )

    def _first_state(self, expr: Expr) -> StateRef:
        for node in nodes(expr):
            if isinstance(node, StateRef):
                return node
            if isinstance(node, Ref) and (definition := self._definition(node)) is not None and self.reads_state(definition):
                return self._first_state(definition)
        raise ValueError("no state in the expression")

    # --- without a state -----------------------------------------------------------------------------------------

    def token(self, expr: Expr) -> Polynomial:
        """The normal form of a state-free expression: scalars, columns and rows stay whole, matrices are opened."""
        rows, cols = expr.type.rows, expr.type.cols
        if expr.type.is_scalar:
            return (chain(expr, (), rows, cols, span=expr.span),)
        if expr.type.is_column:
            return (chain(algebra.UNIT, (Factor("column", expr),), rows, cols, span=expr.span),)
        if expr.type.is_row:
            column = algebra.transpose(expr)
            return (chain(algebra.UNIT, (Factor("row", column),), rows, cols, span=expr.span),)
        return self._matrix(expr)

    def _matrix(self, expr: Expr) -> Polynomial:
        rows, cols = expr.type.rows, expr.type.cols
        match expr:
            case Identity():
                return (chain(algebra.UNIT, (), rows, cols, span=expr.span),)
            case Diag():
                return (chain(algebra.UNIT, (Factor("diagonal", expr.operand),), rows, cols, span=expr.span),)
            case Rot():
                return (chain(algebra.UNIT, (Factor("rotation", expr),), rows, cols, span=expr.span),)
            case Add():
                return tuple(
                    broadcast(item, expr.type, item.span) if item.is_scalar else item for term in expr.terms for item in self.token(term)
                )
            case Neg():
                return tuple(scale(item, algebra.const(-1), expr.span) for item in self.token(expr.operand))
            case Mul() if expr.left.type.is_scalar or expr.right.type.is_scalar:
                scalar, other = (expr.left, expr.right) if expr.left.type.is_scalar else (expr.right, expr.left)
                return tuple(scale(item, scalar, expr.span) for item in self.token(other))
            case Mul():
                return self._hadamard(expr)
            case Div() if expr.right.type.is_scalar:
                return tuple(divide(item, expr.right, expr.span) for item in self.token(expr.left))
            case MatMul():
                return collect(product(a, b, expr.span) for a in self.token(expr.left) for b in self.token(expr.right))
            case Transpose():
                return tuple(transpose(item, expr.conjugate) for item in self.token(expr.operand))
            case SumOver():
                return tuple(self._summed(item, expr) for item in self.token(expr.body))
            case Ref() if (definition := self._definition(expr)) is not None and self._is_open(definition):
                return self.token(definition)
        return (chain(algebra.UNIT, (Factor("dense", expr),), rows, cols, span=expr.span),)

    def _is_open(self, expr: Expr) -> bool:
        """Whether a matrix's definition shows its structure."""
        return isinstance(expr, (Identity, Diag, Rot, Add, Neg, Mul, Div, MatMul, Transpose, SumOver, Ref))

    def _hadamard(self, expr: Mul) -> Polynomial:
        """Entry-by-entry product of state-free matrices: outer products multiply as outer products."""
        left, right = self.token(expr.left), self.token(expr.right)
        if all(item.index is None and [f.kind for f in item.factors] == ["column", "row"] for item in left + right):
            found = []
            for a in left:
                for b in right:
                    factors = [Factor(x.kind, algebra.mul(x.expr, y.expr)) for x, y in zip(a.factors, b.factors, strict=True)]
                    found.append(chain(algebra.mul(a.coefficient, b.coefficient), factors, a.rows, a.cols, span=expr.span))
            return tuple(found)
        for weight, written in ((expr.left, right), (expr.right, left)):
            if all([f.kind for f in item.factors] == ["column", "row"] for item in written):
                return tuple(weigh(weight, item, expr.span) for item in written)
        return (chain(algebra.UNIT, (Factor("dense", expr),), expr.type.rows, expr.type.cols, span=expr.span),)
