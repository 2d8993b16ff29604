"""Calls: the closed set of functions, and products that look like calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .. import syntax
from ..functions import FUNCTIONS, Function, names
from ..source import Span
from ..spec import ONE, Apply, Dim, Expr, Rot, Type
from . import building, products
from .building import SCALAR, UNKNOWN
from .dims import check_pairs
from .scope import Scope, Unresolved, suggestion

Resolver = Callable[..., Expr]


def call(node: syntax.Call, scope: Scope, context, resolve: Resolver) -> Expr:
    """`f(x)` of a function, or the product `f (x)` when `f` is a name."""
    if node.function in scope.declared or node.function in scope.sizes or node.function in scope.constants or node.prime:
        return _product(node, scope, context, resolve)
    function = FUNCTIONS.get(node.function)
    if function is None:
        if any(node.function == index for index, _ in context.loops) or node.function in (
            "head",
            "channel",
            "layer",
            "heads",
            "layers",
            "raw",
        ):
            return _product(node, scope, context, resolve)
        raise _unknown(node, scope)
    _check_arity(node, function, scope)
    if function.kind == "init" and context.place != "init":
        scope.report.error(
            "init-outside-param",
            f"`{function.name}` draws an initial value and stands only after `init`",
            node.span,
            "not after `init`",
            help=f"`param {context.defining or 'w'} : scalar init {scope.report.source.slice(node.span)}`",
        )
        raise Unresolved
    if function.name == "cumsum" and not scope.in_attention:
        scope.report.error(
            "unknown-function",
            "`cumsum` belongs to attention scores",
            node.span,
            "a running sum over tokens",
            help="in a recurrence a running sum is a state: `state s : scalar`, `update s' = s + x`",
        )
        raise Unresolved
    args = _arguments(node, scope, context, resolve)
    if function.kind == "matrix":
        return _matrix(function, args, node, scope)
    return apply(function, args, node, scope)


def bare(id: str, span: Span, scope: Scope) -> Expr:
    """A function's name without arguments: `pi`, `i`, `zeros`; an error for the others."""
    function = FUNCTIONS[id]
    if function.kind == "constant":
        return Apply(Type(field="complex" if function.result == "complex" else "real"), span, id, ())
    scope.report.error(
        "wrong-arity",
        f"`{id}` is a function and has no argument here",
        span,
        function.doc,
        help=f"write `{id}({', '.join('xyz'[: function.arity[0]])})`",
    )
    raise Unresolved


def _product(node: syntax.Call, scope: Scope, context, resolve: Resolver) -> Expr:
    end = node.span.start + len(node.function) + (1 if node.prime else 0)
    left = syntax.Name(Span(node.span.start, end), node.function, node.prime)
    if len(node.args) != 1 or node.keywords:
        scope.report.error(
            "unknown-function",
            f"`{node.function}` is no function",
            left.span,
            "a name of this recurrence",
            help=f"a product has one factor in parentheses: `{node.function} (x)`",
        )
        raise Unresolved
    return resolve(syntax.Binary(node.span, "juxtapose", left, node.args[0]), scope, context)


_PRODUCTS = "the inner product is `p . q`, the matrix product a space, `A b`, and the outer product `k v^T`"
_SUMS = "an inner product adds the entries of a column, `p . q`; `sum r in 1..R: ...` adds rows"
_CHOICES = "nothing is compared: `max`, `min`, `relu` and `clamp` choose between values"
ELSEWHERE = {
    **dict.fromkeys(("outer", "dot", "inner", "matmul", "mm", "bmm", "einsum", "bilinear"), _PRODUCTS),
    **dict.fromkeys(("sum", "mean", "prod"), _SUMS),
    **dict.fromkeys(("where", "heaviside", "sign", "step"), _CHOICES),
    **dict.fromkeys(("transpose", "permute"), "the transpose is `v^T`"),
    **dict.fromkeys(("normalize", "l2norm", "normalise"), "`unit(x)` divides a column by its length"),
    **dict.fromkeys(("concat", "cat", "stack"), "give the two columns as one input, or read the state twice and add what comes"),
    "ln": "the natural logarithm is `log(x)`", "swish": "it is called `silu(x)`", "sigma": "the logistic function is `sigmoid(x)`",
    "eye": "the identity is `I`", "logistic": "the logistic function is `sigmoid(x)`",
}  # fmt: skip
"""What other languages and papers call things."""


def _unknown(node: syntax.Call, scope: Scope) -> Unresolved:
    # a Greek letter is written shorter than it is called
    written = scope.report.source.slice(node.span).partition("(")[0].rstrip()
    span = Span(node.span.start, node.span.start + len(written))
    named = suggestion(node.function, [*FUNCTIONS, *scope.declared, *scope.sizes])
    known = "pointwise functions: " + ", ".join(name for name, f in FUNCTIONS.items() if f.kind == "pointwise")
    help = ELSEWHERE.get(node.function) or named or known
    scope.report.error("unknown-function", f"there is no function `{node.function}`", span, "not one of the language", help=help)
    return Unresolved()


def _check_arity(node: syntax.Call, function: Function, scope: Scope) -> None:
    least, most = function.arity
    count = len(node.args)
    if least <= count <= most and not node.keywords:
        return
    wanted = f"{least}" if least == most else f"{least} to {most}"
    scope.report.error(
        "wrong-arity",
        f"`{function.name}` takes {wanted} argument{'' if wanted == '1' else 's'}, not {count + len(node.keywords)}",
        node.span,
        function.doc,
        help=f"`{function.name}({', '.join(('x', 'y', 'z')[:least])})`" if function.name != "clamp" else "`clamp(x, low, high)`",
    )
    raise Unresolved


def _arguments(node: syntax.Call, scope: Scope, context, resolve: Resolver) -> list[Expr]:
    found, failed = [], False
    for argument in node.args:
        try:
            if isinstance(argument, syntax.Range) and context.place == "init":
                found.append(range_of(argument, scope, context, resolve))
            else:
                found.append(resolve(argument, scope, context))
        except Unresolved:
            failed = True
    if failed:
        raise Unresolved
    return found


def range_of(node: syntax.Range, scope: Scope, context, resolve: Resolver) -> Expr:
    """`1..N` in an init: the whole numbers over the entries of the param."""
    low, high = resolve(node.low, scope, context), resolve(node.high, scope, context)
    return Apply(context.entries, node.span, "linspace", (low, high))


def _matrix(function: Function, args: list[Expr], node: syntax.Call, scope: Scope) -> Expr:
    if function.name == "I":
        return products.identity(node.span)
    operand = building.as_column(args[0])
    if function.name == "diag":
        if not operand.type.is_column:
            raise _needs_column(
                function, operand, node, scope, "a scalar multiplies without `diag`: `a * S`" if operand.type.is_scalar else ""
            )
        return building.diagonal(operand, Type(operand.type.rows, operand.type.rows, operand.type.field), node.span)
    if operand.type.field == "complex":
        raise _needs_real(function, operand, node, scope)
    if operand.type.is_scalar:  # one angle for all pairs; the size comes from what it turns
        return Rot(Type(UNKNOWN, UNKNOWN), node.span, operand)
    if not operand.type.is_column:
        raise _needs_column(function, operand, node, scope, "give one angle a pair: `[N/2]`")
    both = Dim(operand.type.rows.constant * 2, tuple((n, c * 2) for n, c in operand.type.rows.terms))
    return Rot(Type(both, both), node.span, operand)


def _needs_column(function: Function, operand: Expr, node: syntax.Call, scope: Scope, help: str = "") -> Unresolved:
    scope.report.error(
        "shape-mismatch",
        f"`{function.name}` takes a column; `{scope.report.source.slice(operand.span)}` is {scope.shape(operand.type)}",
        operand.span,
        scope.shape(operand.type),
        help=help or f"`{function.name}` works over the entries of a column `[N]`",
    )
    return Unresolved()


def _needs_real(function: Function, operand: Expr, node: syntax.Call, scope: Scope) -> Unresolved:
    text = scope.report.source.slice(operand.span)
    scope.report.error(
        "field-mismatch",
        f"`{function.name}` takes real numbers; `{text}` is complex",
        operand.span,
        "complex",
        help=f"take a part: `{function.name}(Re({text}))`, or the modulus `abs({text})`",
    )
    return Unresolved()


_OF_COMPLEX = ("exp", "abs", "square", "Re", "Im", "conj", "zeros", "ones", "pairs", *names("square"))


def apply(function: Function, args: list[Expr], node: syntax.Call, scope: Scope) -> Expr:
    """The application of a function that is no matrix, with its type."""
    for argument in args:
        if argument.type.field == "complex" and function.name not in _OF_COMPLEX:
            raise _needs_real(function, argument, node, scope)
    if function.kind == "square":
        return _of_square(function, args[0], node, scope)
    if function.kind == "column" and function.name != "cumsum":
        argument = building.as_column(args[0])
        if argument.type.is_scalar:
            help = "the length of a number is `abs(x)`" if function.name == "norm" else ""
            raise _needs_column(function, argument, node, scope, help)
        return Apply(_column_result(function, argument, node, scope), node.span, function.name, (argument,))
    type = SCALAR
    for argument in args:
        if type.is_scalar:
            type = replace(argument.type, field=type.field if type.field == "complex" else argument.type.field)
        elif not argument.type.is_scalar and (argument.type.rows, argument.type.cols) != (type.rows, type.cols):
            first = next(a for a in args if not a.type.is_scalar)
            scope.report.error(
                "shape-mismatch",
                f"`{scope.report.source.slice(first.span)}` is {scope.shape(first.type)}; "
                f"`{scope.report.source.slice(argument.span)}` is {scope.shape(argument.type)}",
                node.span,
                f"arguments of `{function.name}` that differ",
                help="arguments have one shape; a scalar goes with any",
            )
            raise Unresolved
    if function.result == "real":
        type = replace(type, field="real")
    elif function.result == "complex":
        type = replace(type, field="complex")
    return Apply(type, node.span, function.name, tuple(args))


def _of_square(function: Function, argument: Expr, node: syntax.Call, scope: Scope) -> Expr:
    """A function of a square matrix as a whole."""
    type = argument.type
    if type.is_scalar or type.rows != type.cols:
        scope.report.error(
            "shape-mismatch",
            f"`{function.name}` takes a square matrix; `{scope.report.source.slice(argument.span)}` is {scope.shape(type)}",
            argument.span,
            scope.shape(type),
            help="entry by entry it is another function: `exp(x)`, `phi1(x)`, `1 / x`",
        )
        raise Unresolved
    return Apply(type, node.span, function.name, (argument,))


def _column_result(function: Function, argument: Expr, node: syntax.Call, scope: Scope) -> Type:
    type = argument.type
    # a value [R, N] is R columns [N]: the function works on each
    entries = type.rows if type.is_column else type.cols
    if function.name == "rope":
        check_pairs(entries, "`rope`", argument.span, scope.shape(type), scope)
    if function.result == "scalar":
        return SCALAR if type.is_column else Type(type.rows, ONE)
    if function.result == "pairs":
        both = Dim(entries.constant * 2, tuple((n, c * 2) for n, c in entries.terms))
        return replace(type, rows=both) if type.is_column else replace(type, cols=both)
    return type
