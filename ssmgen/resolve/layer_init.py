"""The initial value of a layer's own parameter: numbers, sizes, and the functions of the closed set."""

from __future__ import annotations

from collections.abc import Mapping

from .. import spec, syntax
from ..diagnostics import Report
from ..functions import names

SCALAR = spec.Type()

OF_LAYERS = tuple(name for name in names("pointwise", "init") if not name.startswith("legs_"))
"""Modes are those of a state: a layer's own parameter has none."""


def resolve_init(node: syntax.Node, size_names: Mapping[str, object], report: Report) -> spec.Expr | None:
    """The expression of `init ...`; None when a fault was reported."""
    match node:
        case syntax.Number(value=value):
            return spec.Const(SCALAR, node.span, value)
        case syntax.Name(id=name, prime=False) if name in size_names or name == "channel":
            return spec.Ref(SCALAR, node.span, name)
        case syntax.Unary(operand=operand):
            inner = resolve_init(operand, size_names, report)
            return inner and spec.Neg(SCALAR, node.span, inner)
        case syntax.Call(function=name, args=args, keywords=()) if name in OF_LAYERS:
            values = tuple(resolve_init(argument, size_names, report) for argument in args)
            return None if None in values else spec.Apply(SCALAR, node.span, name, values)
        case syntax.Binary(operator=operator, left=left, right=right) if operator in "+-*/^":
            a, b = resolve_init(left, size_names, report), resolve_init(right, size_names, report)
            if a is None or b is None:
                return None
            if operator in "+-":
                return spec.Add(SCALAR, node.span, (a, b if operator == "+" else spec.Neg(SCALAR, b.span, b)))
            return {"*": spec.Mul, "/": spec.Div, "^": spec.Pow}[operator](SCALAR, node.span, a, b)
    report.error(
        "layer-option",
        "not an initial value",
        node.span,
        "neither a number, a size nor a function of them",
        help="write a number, or `normal(0, 0.02)`, `uniform(-1, 1)`, `ones()`",
    )
    return None
