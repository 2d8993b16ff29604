"""Expressions: from what was written to typed nodes of the specification."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import syntax
from ..bounds import INDICES
from ..diagnostics import Label
from ..expressions import nodes
from ..functions import FUNCTIONS
from ..source import Span
from ..spec import ONE, Const, Delayed, Dim, Element, Expr, Ref, SizeOf, StateRef, SumOver, Type
from . import building, calls, products
from .building import SCALAR
from .dims import dim_of
from .scope import Scope, Unresolved, names_in


@dataclass(frozen=True)
class Context:
    """Where an expression stands.

    place: 'static' (fixed params, domains), 'init', 'token' (lets and gates), 'update', 'dynamics', 'output', 'score', 'reset'.
    assigned: states whose `S'` has a value here.
    loops: the loop indices around, with what they run over.
    entries: the type of the param being initialised.
    raw: the gate being defined and its shape.
    """

    place: str
    assigned: tuple[str, ...] = ()
    loops: tuple[tuple[str, Dim], ...] = ()
    entries: Type = SCALAR
    raw: tuple[str, Type, str] | None = None
    defining: str = ""

    def inside(self, index: str, count: Dim) -> Context:
        """The same place within a loop."""
        return replace(self, loops=(*self.loops, (index, count)))


STATELESS = ("static", "init", "reset", "score")


def expression(node: syntax.Node, scope: Scope, context: Context) -> Expr:
    """The typed expression. Reports every fault inside and raises `Unresolved` when there is one."""
    return replace(_expression(node, scope, context), span=node.span)


def _expression(node: syntax.Node, scope: Scope, context: Context) -> Expr:
    match node:
        case syntax.Number(value=value):
            return building.number(value, node.span)
        case syntax.Name():
            return name(node.id, node.prime, node.span, scope, context)
        case syntax.Unary(operand=operand):
            return building.neg(expression(operand, scope, context), node.span)
        case syntax.Transpose(operand=operand, conjugate=conjugate):
            return building.transpose(expression(operand, scope, context), node.span, conjugate)
        case syntax.Binary():
            return _binary(node, scope, context)
        case syntax.Subscript():
            return _subscript(node, scope, context)
        case syntax.SumOver():
            return _sum_over(node, scope, context)
        case syntax.Call():
            return calls.call(node, scope, context, expression)
        case syntax.Range():
            scope.report.error(
                "not-an-index",
                "a range is no number",
                node.span,
                "stands only in a loop, or in the init of a param",
                help="write the number itself; `init log(1..N)` starts a param at 1, 2, 3, ...",
            )
            raise Unresolved
    scope.report.error("unknown-name", "this has no value", node.span, "not an expression", help="write an expression here")
    raise Unresolved


def several(nodes: tuple[syntax.Node, ...], scope: Scope, context: Context) -> list[Expr]:
    """The typed expressions, each resolved so that each is reported on; raises `Unresolved` when one fails."""
    found = []
    for node in nodes:
        try:
            found.append(expression(node, scope, context))
        except Unresolved:
            continue
    if len(found) < len(nodes):
        raise Unresolved
    return found


_OPERATIONS = {
    "+": products.sum_of,
    "*": products.elementwise_product,
    "juxtapose": products.matrix_product,
    ".": products.inner_product,
    "/": products.quotient,
    "^": products.power,
}


def _binary(node: syntax.Binary, scope: Scope, context: Context) -> Expr:
    left, right = several((node.left, node.right), scope, context)
    if node.operator == "-":
        if isinstance(right, Const):
            folded = building.neg(right, right.span)
            return products.sum_of(scope, left, folded, node.span)
        return products.sum_of(scope, left, building.neg(right, right.span), node.span)
    return _OPERATIONS[node.operator](scope, left, right, node.span)


# --- names -------------------------------------------------------------------------------------------------------


def name(id: str, prime: bool, span: Span, scope: Scope, context: Context) -> Expr:
    """What a bare name stands for."""
    scope.used[id] = None
    if id in scope.broken:
        raise Unresolved  # reported where it is declared
    if prime and id not in scope.states:
        raise _prime_on(id, span, scope, context)
    if any(id == index for index, _ in context.loops):
        scope.report.error(
            "not-an-index",
            f"`{id}` counts rows and is no value",
            span,
            "a loop index",
            help=f"use it to pick a row: `k[{id}]`",
        )
        raise Unresolved
    if id == "n" and context.place == "init" and id not in scope.sizes and id not in scope.constants and not _is_static_symbol(id, scope):
        return Ref(SCALAR, span, "n")
    if id in scope.states:
        return _state(id, prime, span, scope, context)
    if id == "raw" and context.raw is not None and id not in scope.declared:
        gate, type, _ = context.raw
        return Ref(type, span, f"{gate}_raw")
    if id in scope.inlined:
        return _inlined(id, span, scope, context)
    if id in scope.symbols:
        return _symbol(id, span, scope, context)
    if id in scope.sizes:
        return SizeOf(SCALAR, span, Dim(terms=((id, building.number(1, span).value),)))
    if id in scope.constants:
        return Ref(SCALAR, span, id)
    if id in scope.declared:
        if id == context.defining:
            scope.report.error(
                "undefined-order",
                f"`{id}` is defined by itself",
                span,
                "the name being defined",
                help=f"`{id}[-1]` is the previous token's value; a value carried over tokens is a `state`",
            )
            raise Unresolved
        raise scope.later_name(id, span)
    if id == "I":
        return products.identity(span)
    if id in INDICES and id != "n":
        if id == "position" and context.place in ("static", "init"):
            raise _not_static(id, span, scope, "the position in the sequence")
        return Ref(SCALAR, span, id)
    if id in FUNCTIONS:
        return calls.bare(id, span, scope)
    raise scope.unknown_name(id, span)


def _is_static_symbol(id: str, scope: Scope) -> bool:
    return id in scope.symbols and scope.symbols[id].static


def _prime_on(id: str, span: Span, scope: Scope, context: Context) -> Unresolved:
    if id in scope.declared or id in scope.sizes or id in scope.constants:
        scope.report.error(
            "time-index",
            f"`{id}'` asks for the next token's `{id}`",
            span,
            "only a state has a value after the token",
            help=f"write `{id}`; a value carried over tokens is declared `state {id} : ...`",
        )
        return Unresolved()
    return scope.unknown_name(id, span)


def _state(id: str, prime: bool, span: Span, scope: Scope, context: Context) -> Expr:
    state = scope.states[id]
    if context.place in STATELESS:
        raise _not_static(f"{id}'" if prime else id, span, scope, "a state")
    if prime and context.place == "dynamics":
        scope.report.error(
            "time-index",
            f"`{id}'` in continuous time",
            span,
            "dynamics know no tokens",
            help=f"write `{id}`; `discretize` turns it into tokens",
        )
        raise Unresolved
    if prime and context.place == "update" and id not in context.assigned:
        scope.report.error(
            "time-index",
            f"`{id}'` is read before it has a value",
            span,
            "the state after the token, not assigned yet",
            help=f"`{id}` is the state before the token; or give it a value above, as in `{id}' = {id}`",
        )
        raise Unresolved
    return StateRef(state.type, span, id, prime)


def _inlined(id: str, span: Span, scope: Scope, context: Context) -> Expr:
    """A definition that reads a state has no life of its own: its expression stands where its name does."""
    value = scope.inlined[id]
    if context.place in STATELESS:
        raise _not_static(id, span, scope, "reads the state")
    if context.place in ("update", "dynamics"):
        for node in nodes(value):
            if isinstance(node, StateRef) and node.primed:
                scope.report.error(
                    "time-index",
                    f"`{id}` reads `{node.name}'`, which this statement is about to give",
                    span,
                    f"needs `{node.name}'`",
                    help=f"use `{id}` in the output only, or define it with `{node.name}`",
                )
                raise Unresolved
    return value


def _symbol(id: str, span: Span, scope: Scope, context: Context) -> Expr:
    symbol = scope.symbols[id]
    if context.place in ("static", "init") and not symbol.static:
        raise _not_static(id, span, scope, "changes with the token")
    return Ref(symbol.type, span, id)


def _not_static(text: str, span: Span, scope: Scope, fact: str) -> Unresolved:
    scope.report.error(
        "static-expression-required",
        f"`{text}` has no one value for all tokens",
        span,
        fact,
        help="use params, dims, numbers and `head`, `channel`, `layer`; a per-token definition is a `let` or a `gate`",
    )
    return Unresolved()


# --- subscripts --------------------------------------------------------------------------------------------------


def _subscript(node: syntax.Subscript, scope: Scope, context: Context) -> Expr:
    offset = _integer(node.index)
    if isinstance(node.base, syntax.Name) and (offset is not None and (offset < 1 or node.base.id in scope.states)):
        return _in_time(node, node.base, offset, scope, context)
    base = expression(node.base, scope, context)
    if offset is not None:
        if offset < 1:
            raise _bad_time(node, f"`{scope.report.source.slice(node.base.span)}`", scope)
        return _element(node, base, offset, scope)
    if not isinstance(node.index, syntax.Name) or node.index.prime:
        return _attention_position(node, base, scope, context)
    index = node.index.id
    for loop, count in reversed(context.loops):
        if loop == index:
            if base.type.rows != count:
                raise _other_rows(node, base, index, count, scope)
            return Element(_row_type(base.type), node.span, base, index)
    return _attention_position(node, base, scope, context)


def _other_rows(node: syntax.Subscript, base: Expr, index: str, count: Dim, scope: Scope) -> Unresolved:
    """A rank that is not the number of the value's rows: where both come from, and either edit."""
    text, rows = scope.report.source.slice(node.base.span), base.type.rows
    if isinstance(base, StateRef):
        help = "a token is read once its last step is done: `y[r] = S'^T q[r]` reads the same state by several queries"
    elif rows == ONE:
        help = f"a scalar has no rows; declare it `[{count}]` or `[{count}, N]`"
    else:
        columns = "" if base.type.cols == ONE else f", {base.type.cols}"
        help = f"loop over its rows, `1..{rows}`, or declare `{text} : [{count}{columns}]`"
    at = scope.declared.get(text)
    scope.report.error(
        "shape-mismatch",
        f"`{index}` runs to {_sized(count, scope)}; `{text}` has {_sized(rows, scope)} rows",
        node.span,
        f"row `{index}` for `{index}` in 1..{count}",
        secondary=() if at is None else (Label(at, scope.shape(base.type)),),
        note="a rank is a number of rows: row r of every value that the loop picks from is the r-th key, value or query",
        help=help,
    )
    return Unresolved()


def _sized(dim: Dim, scope: Scope) -> str:
    """`R = 2`; a number as it is."""
    number = str(scope.number(dim))
    return number if str(dim) == number else f"{dim} = {number}"


def _integer(node: syntax.Node) -> int | None:
    match node:
        case syntax.Number(value=value) if value.denominator == 1:
            return int(value)
        case syntax.Unary(operand=syntax.Number(value=value)) if value.denominator == 1:
            return -int(value)
    return None


def _row_type(type: Type) -> Type:
    return Type(type.cols, ONE, type.field)


def _element(node: syntax.Subscript, base: Expr, index: int, scope: Scope) -> Expr:
    text = scope.report.source.slice(node.base.span)
    if base.type.rows == ONE:
        scope.report.error(
            "time-index",
            f"`{text}[{index}]` asks for row {index} of {scope.shape(base.type)}",
            node.span,
            "there are no rows to pick; a later token cannot be read",
            help=f"`{text}` is this token's value, `{text}[-1]` the previous token's",
        )
        raise Unresolved
    rows = scope.number(base.type.rows)
    if not isinstance(rows, str) and index > rows:
        scope.report.error(
            "not-an-index",
            f"`{text}` has {rows} rows, counted from 1",
            node.span,
            f"asks for row {index}",
            help=f"the last row is `{text}[{rows}]`",
        )
        raise Unresolved
    return Element(_row_type(base.type), node.span, base, index)


def _in_time(node: syntax.Subscript, base: syntax.Name, offset: int, scope: Scope, context: Context) -> Expr:
    if base.id in scope.states:
        scope.used[base.id] = None
        what = "the state before the token" if offset <= 0 else "a later state"
        scope.report.error(
            "time-index",
            f"`{scope.report.source.slice(node.span)}` asks for {what} by an index",
            node.span,
            "a state has no token index",
            help=f"`{base.id}` is the state before the token, `{base.id}'` the state after it",
        )
        raise Unresolved
    value = expression(base, scope, context)
    if offset != -1 or not isinstance(value, Ref) or base.id not in scope.symbols or scope.symbols[base.id].static:
        raise _bad_time(
            node, f"`{base.id}`", scope, is_value=isinstance(value, Ref) and base.id in scope.symbols and not scope.symbols[base.id].static
        )
    if context.place in ("static", "init", "dynamics"):
        raise _not_static(f"{base.id}[-1]", node.span, scope, "the previous token's value")
    return Delayed(value.type, node.span, base.id)


def _bad_time(node: syntax.Subscript, what: str, scope: Scope, is_value: bool = True) -> Unresolved:
    offset = _integer(node.index)
    bare = what.strip("`")
    if not is_value:
        fact, help = "only a per-token input, let or gate has a previous value", f"write {what}; it is the same for all tokens"
    elif offset == 0:
        fact, help = "rows count from 1, tokens need no index", f"write {what} for this token, `{bare}[1]` for the first row"
    elif offset is not None and offset < -1:
        fact, help = "only the previous token's value is kept", f"`{bare}[-1]` is the previous token's; carry older ones in a state"
    else:
        fact, help = "only `[-1]` is a time index", f"write {what} or `{bare}[-1]`"
    scope.report.error("time-index", f"`{scope.report.source.slice(node.span)}` cannot be read", node.span, fact, help=help)
    return Unresolved()


def _attention_position(node: syntax.Subscript, base: Expr, scope: Scope, context: Context) -> Expr:
    if context.place == "score" and isinstance(node.index, syntax.Name) and node.index.id in ("q", "k"):
        return Element(base.type, node.span, base, node.index.id)
    text = scope.report.source.slice(node.index.span)
    loops = [index for index, _ in context.loops]
    help = (
        f"loop indices here: {', '.join(f'`{i}`' for i in loops)}"
        if loops
        else "an index is a whole number, or counts a loop: `for j in 1..n: ... k[j]`"
    )
    scope.report.error("not-an-index", f"`{text}` does not count rows", node.index.span, "not a loop index", help=help)
    raise Unresolved


# --- sums over rows ----------------------------------------------------------------------------------------------


def count_of(low: syntax.Node, high: syntax.Node, index: str, span: Span, scope: Scope) -> Dim:
    """The number of steps of `index in low..high`; the first is 1."""
    if not (isinstance(low, syntax.Number) and low.value == 1):
        scope.report.error(
            "not-a-count",
            f"`{index}` starts at `{scope.report.source.slice(low.span)}`",
            low.span,
            "rows count from 1",
            help="write `1..R`",
        )
        raise Unresolved
    if not set(names_in(high)) <= set(scope.sizes) and set(names_in(high)) & {*scope.declared, *scope.constants}:
        scope.report.error(
            "not-a-count",
            f"`{scope.report.source.slice(high.span)}` is not known when the kernel is built",
            high.span,
            "the bound of a loop",
            help="bound a loop by a dim, a recurrence parameter or a number",
        )
        raise Unresolved
    return dim_of(high, scope)


def _sum_over(node: syntax.SumOver, scope: Scope, context: Context) -> Expr:
    count = count_of(node.low, node.high, node.index, node.span, scope)
    body = expression(node.body, scope, context.inside(node.index, count))
    return SumOver(body.type, node.span, node.index, count, body)
