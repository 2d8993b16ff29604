"""What the input of `dS/dt` was a token before, for a method that takes both ends of a step: `Dynamics.before`.

The names in it become delayed ones, which are 0 before the first token. The input must be 0 there as well, and must ask for
nothing older than the previous token: a factor for which that is not so gets a name, and its value is kept whole.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra, spec
from ..delays import at_no_token, has_previous, moving_names, previous
from ..discretizations import methods
from ..expressions import children, is_full_product, nodes, reads_state
from ..intervals import closed
from ..spec import Expr, Ref
from .scope import Scope, Unresolved
from .symbols import axes_of, define


def with_older_input(dynamics: spec.Dynamics, discretization: spec.Discretization, scope: Scope) -> spec.Dynamics:
    """The dynamics with `before`, where the method takes older inputs; as they are where it does not.

    Raises Unresolved, with the reason in the report, for an input that has no previous value.
    """
    if methods()[discretization.method].older is None:
        return dynamics
    worker = _Older(dynamics, discretization.method, scope)
    value = worker.kept(dynamics.value)
    inputs = worker.inputs(value)
    type = replace(scope.states[dynamics.state].type, field="real")
    total = algebra.add(algebra.const(0, type), *inputs)
    before = previous(total, scope.symbols.values())
    is_whole = (before.type.rows, before.type.cols) == (type.rows, type.cols)
    return replace(dynamics, value=value, before=before if is_whole else algebra.mul(algebra.const(1, type), before))


class _Older:
    def __init__(self, dynamics: spec.Dynamics, method: str, scope: Scope):
        self.dynamics, self.method, self.scope = dynamics, method, scope

    def inputs(self, expr: Expr) -> list[Expr]:
        """The terms that read no state, with the factors that stand around them."""
        if not reads_state(expr):
            if not self._is_carried(expr):
                raise self._refused(expr)
            return [expr]
        if isinstance(expr, spec.Add):
            return [item for term in expr.terms for item in self.inputs(term)]
        operands = children(expr)
        place = next((i for i, operand in enumerate(operands) if reads_state(operand)), None)
        if place is None:
            return []
        return [
            self._checked(algebra.rebuild(expr, (*operands[:place], item, *operands[place + 1 :]))) for item in self.inputs(operands[place])
        ]

    def _checked(self, expr: Expr) -> Expr:
        if not has_previous(expr):
            raise self._refused(expr)
        return expr

    def _is_carried(self, expr: Expr) -> bool:
        """Whether the value a token before is one of delayed names, and 0 before the first token."""
        first = at_no_token(previous(expr, self.scope.symbols.values()))
        return has_previous(expr) and (algebra.is_zero(first) or self.scope.bounds.of(first) == closed(0.0, 0.0))

    # --- names of their own ---

    def kept(self, expr: Expr) -> Expr:
        """The dynamics with names for the factors that need one."""
        if not reads_state(expr):
            return self._named(expr)
        operands = children(expr)
        inside = isinstance(expr, spec.Add)
        return algebra.rebuild(expr, tuple(self.kept(o) if inside or reads_state(o) else o for o in operands)) if operands else expr

    def _named(self, expr: Expr) -> Expr:
        """An input, with names where it is not carried by those that it has; what a matrix makes has one of its own."""
        if any(is_full_product(node) for node in nodes(expr)) and expr.type.is_column:
            return self._product(expr)
        if self._is_carried(expr):
            return expr
        match expr:
            case spec.Add() | spec.Neg() | spec.Transpose():
                return algebra.rebuild(expr, tuple(map(self._named, children(expr))))
            case spec.MatMul() if expr.left.type.is_column and expr.right.type.is_row:
                left = expr.left if has_previous(expr.left) else self._name(expr.left, "key")
                right = algebra.transpose(expr.right)
                right = right if has_previous(right) else self._name(right, "value")
                whole = algebra.matmul(left, algebra.transpose(right))
                return whole if self._is_carried(whole) else algebra.matmul(left, algebra.transpose(self._name(right, "value")))
            case spec.Mul() if expr.left.type.is_scalar and not expr.right.type.is_scalar:
                left = expr.left if has_previous(expr.left) else self._name(expr.left, "weight")
                return algebra.mul(left, self._named(expr.right))
        return self._name(expr, "input")

    def _product(self, expr: Expr) -> Expr:
        """What a matrix makes of the token, under a name: it stands outside of the walk, and so does its value a token before."""
        if expr.type.field == "complex":
            self.scope.report.error(
                "discretization-undefined",
                f"`{self.method}` needs this input a token before, which a complex matrix makes",
                expr.span,
                "complex values of the token before are not kept",
                note="the input at the beginning of a step is that of the previous token, which is part of the state",
                help="use a method that takes the input of this token alone: `zoh(dt)`, `bilinear(dt)` or `exp_euler(dt)`",
            )
            raise Unresolved
        return self._name(expr, "input")

    def _name(self, expr: Expr, what: str) -> Expr:
        moving = moving_names(self.scope.symbols.values())
        changes = any(isinstance(n, Ref) and n.name in moving for n in nodes(expr)) or not has_previous(expr)
        if not changes or not (expr.type.is_scalar or expr.type.is_column):
            return expr
        name = f"{self.dynamics.state}_{what}"
        while name in {*self.scope.symbols, *self.scope.states, *self.scope.sizes, *self.scope.constants}:
            name += "_"
        axes = axes_of(expr, self.scope)
        per = next((axis for axis in ("channel", "head", "group") if axis in axes), "layer")
        define(name, "let", expr.span, self.scope, type=expr.type, per=per, definition=expr, interval=self.scope.bounds.of(expr))
        return Ref(expr.type, expr.span, name)

    def _refused(self, expr: Expr) -> Unresolved:
        self.scope.report.error(
            "discretization-undefined",
            f"`{self.method}` needs this input a token before, and it has no value there",
            expr.span,
            "is not 0 before the first token" if has_previous(expr) else "asks for what is older than the previous token",
            note="the input at the beginning of a step is that of the previous token, and 0 before the first one",
            help="make one factor a value of the token with a name of its own, `let v = ...`, or use `exp_euler(dt)`",
        )
        return Unresolved()
