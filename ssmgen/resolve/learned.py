"""Inputs that the recurrence computes itself: `input i, f = W x + R h`.

A name that nothing declares, in front of a column, is a learned matrix; every input gets its own (`W_i`, `R_i`, `W_f`, ...).
An input that reads the state makes the recurrence sequential: it has no value of its own and is put in where it is used.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from .. import spec, syntax
from ..functions import FUNCTIONS
from ..spec import ONE, Type
from .building import as_column, reads_state
from .domains import check_arguments
from .expressions import Context, expression
from .scope import Scope, Unresolved
from .symbols import axis_of, define, type_of


def recurrent_input(node: syntax.InputDecl, scope: Scope) -> list[str]:
    """Define the input's weights and its expression. Returns its name when it reads a state, nothing otherwise."""
    span = node.name_span or node.span
    target = _target(node, scope)
    axis = axis_of(node.type, scope)
    value = as_column(expression(_with_weights(node.value, node, target, axis, scope), scope, Context("token", defining=node.name)))
    if (value.type.rows, value.type.cols) != (target.rows, target.cols):
        scope.report.error(
            "shape-mismatch",
            f"`{node.name}` is {scope.shape(target)}; its value is {scope.shape(value.type)}",
            node.value.span,
            scope.shape(value.type),
            help=f"declare it: `{node.name} : {value.type} = ...`",
        )
        raise Unresolved
    check_arguments(value, scope)
    if reads_state(value):
        scope.inlined[node.name] = value
        return [node.name]
    define(node.name, "let", span, scope, type=value.type, per=axis, definition=value, interval=scope.bounds.of(value))
    return []


def _target(node: syntax.InputDecl, scope: Scope) -> Type:
    """The declared type; without one, the type that all states share."""
    if node.type is not None:
        return type_of(node.type, scope)
    types = list(dict.fromkeys(state.type for state in scope.states.values()))
    if len(types) == 1:
        return types[0]
    scope.report.error(
        "shape-mismatch",
        f"nothing says what shape `{node.name}` has",
        node.name_span or node.span,
        "the states differ in shape",
        help=f"declare it: `{node.name} : [N] = ...`",
    )
    raise Unresolved


def _with_weights(node: syntax.Node, declaration: syntax.InputDecl, target: Type, axis: str, scope: Scope) -> syntax.Node:
    """The expression with a learned matrix for every unknown name in front of a column."""
    match node:
        case syntax.Binary(operator="juxtapose", left=syntax.Name(id=name, prime=False), right=right) if _is_unknown(name, scope):
            weight = _weight(name, right, declaration, target, axis, scope)
            return replace(node, left=replace(node.left, id=weight))
        case syntax.Call(function=name, args=(argument,), keywords=()) if _is_unknown(name, scope):
            weight = _weight(name, argument, declaration, target, axis, scope)
            return syntax.Binary(node.span, "juxtapose", syntax.Name(node.span, weight), argument)
        case syntax.Binary():
            left = _with_weights(node.left, declaration, target, axis, scope)
            return replace(node, left=left, right=_with_weights(node.right, declaration, target, axis, scope))
        case syntax.Unary():
            return replace(node, operand=_with_weights(node.operand, declaration, target, axis, scope))
        case syntax.Call():
            return replace(node, args=tuple(_with_weights(a, declaration, target, axis, scope) for a in node.args))
    return node


def _is_unknown(name: str, scope: Scope) -> bool:
    return name not in scope.declared and name not in scope.sizes and name not in scope.constants and name not in FUNCTIONS


def _weight(name: str, right: syntax.Node, declaration: syntax.InputDecl, target: Type, axis: str, scope: Scope) -> str:
    factor = expression(right, scope, Context("token"))
    weight = f"{name}_{declaration.name}"
    if weight in scope.declared and weight not in scope.symbols:
        raise scope.later_name(weight, declaration.span)
    if weight not in scope.symbols:
        # a channel or head that holds a scalar weighs it with a scalar
        type = Type(target.rows, factor.type.rows) if not factor.type.is_scalar else Type(target.rows, ONE)
        init = spec.Apply(Type(), declaration.span, "normal", ())
        scale = spec.Pow(
            Type(),
            declaration.span,
            spec.SizeOf(Type(), declaration.span, factor.type.rows),
            spec.Const(Type(), declaration.span, Fraction(-1, 2)),
        )
        spread = init if factor.type.is_scalar else spec.Mul(Type(), declaration.span, scale, init)
        define(weight, "param", declaration.name_span or declaration.span, scope, type=type, per=axis, init=spread, static=True)
        scope.used[weight] = None
    return weight
