"""Update, dynamics and output: what happens to the states at a token, and what is read from them."""

from __future__ import annotations

from dataclasses import replace

from .. import spec, syntax
from ..diagnostics import Label
from ..expressions import nodes
from ..source import Span
from ..spec import ONE, Dim, Expr, State
from .building import as_column, is_unsized
from .dims import check_pairs, dim_of
from .domains import check_arguments
from .expressions import Context, count_of, expression
from .products import sized
from .scope import Scope, Unresolved, suggestion
from .scope import walk as walk_syntax
from .symbols import check_axes, unsized

# --- states ------------------------------------------------------------------------------------------------------


def state_of(node: syntax.StateDecl, scope: Scope) -> State:
    """The declared state. A state whose first rows turn is real: its rows are pairs."""
    span = node.name_span or node.span
    shape = [dim_of(size, scope) for size in node.type.shape]
    field = node.type.field or "real"
    turning = None
    if node.type.rotates is not None:
        turning = dim_of(node.type.rotates[1], scope)
        _check_turning(node, turning, shape, field, scope)
        field = "real"
    return State(
        node.name,
        spec.Type(*shape, field=field),
        node.type.per or "head",
        span,
        conjugate="conjugate" in node.type.flags,
        rotating_rows=turning,
    )


def _check_turning(node: syntax.StateDecl, turning: Dim, shape: list[Dim], field: str, scope: Scope) -> None:
    rows = shape[0] if shape else ONE
    number, least = scope.number(rows), scope.number(turning)
    if field != "complex":
        scope.report.error(
            "field-mismatch",
            f"`{node.name}` rotates and is real",
            node.type.span,
            "only pairs of a complex state turn",
            help="declare it `complex`",
        )
        raise Unresolved
    if not isinstance(least, str) and not isinstance(number, str):
        if least > number:
            scope.report.error(
                "shape-mismatch",
                f"{turning} = {least} rows turn; `{node.name}` has {rows} = {number}",
                node.type.rotates[1].span,
                "more rows than the state has",
                help=f"write `rotates first {rows} rows`",
            )
            raise Unresolved
        check_pairs(turning, f"`{node.name}`", node.type.rotates[1].span, "the rows that turn", scope)


def expect_state(name: str, span: Span, scope: Scope) -> State:
    """The state called `name`, or a report of what it is instead."""
    if name in scope.states:
        return scope.states[name]
    if name in scope.broken:
        raise Unresolved  # reported where it is declared
    states = list(scope.states)
    known = f"the states here: {', '.join(f'`{s}`' for s in states)}" if states else "declare it: `state S : real [N, P]`"
    fact = "an input, param or definition" if name in scope.declared else "nothing declares it"
    scope.report.error("unknown-name", f"there is no state `{name}`", span, fact, help=suggestion(name, states) or known)
    raise Unresolved


# --- update ------------------------------------------------------------------------------------------------------


def update_of(body: tuple[syntax.Node, ...], scope: Scope) -> tuple[spec.Assignment | spec.MicroLoop, ...]:
    """The steps of one token, in order."""
    steps: list[spec.Assignment | spec.MicroLoop] = []
    context = Context("update")
    assigned: dict[str, Span] = {}
    for step in body:
        try:
            if isinstance(step, syntax.ForLoop):
                steps.append(_micro_loop(step, scope, context, assigned))
            else:
                steps.append(_assignment(step, scope, context, assigned))
        except Unresolved:
            for inner in walk_syntax(step):
                if isinstance(inner, syntax.Assign) and inner.name:
                    assigned.setdefault(inner.name, inner.span)
        context = replace(context, assigned=tuple(assigned))
    return tuple(steps)


def _assignment(node: syntax.Assign, scope: Scope, context: Context, assigned: dict[str, Span]) -> spec.Assignment:
    state = expect_state(node.name or "", node.name_span or node.span, scope)
    value = _state_value(state, node.value, scope, context)
    if state.name in assigned and not any(isinstance(n, spec.StateRef) and n.primed and n.name == state.name for n in nodes(value)):
        scope.report.error(
            "duplicate-name",
            f"`{state.name}'` is assigned twice, and the second forgets the first",
            node.span,
            f"does not read `{state.name}'`",
            secondary=(Label(assigned[state.name], "assigned first here"),),
            help=f"go on from the first with `{state.name}'` at the right, or drop it",
        )
        raise Unresolved
    assigned[state.name] = node.span
    return spec.Assignment(state.name, value, node.span)


def _micro_loop(node: syntax.ForLoop, scope: Scope, context: Context, assigned: dict[str, Span]) -> spec.MicroLoop:
    count = count_of(node.low, node.high, node.index, node.span, scope)
    inner = replace(context.inside(node.index, count), assigned=tuple(assigned))
    body = []
    failed = False
    for step in node.body:
        if isinstance(step, syntax.ForLoop):
            scope.report.error(
                "not-a-count",
                "a loop of micro-steps holds no further loop",
                step.span,
                "a loop in a loop",
                help="index one loop over all micro-steps",
            )
            raise Unresolved
        try:
            body.append(_assignment(step, scope, inner, assigned))
        except Unresolved:
            failed = True
        inner = replace(inner, assigned=tuple(assigned))
    if failed:
        raise Unresolved
    return spec.MicroLoop(node.index, count, tuple(body), node.span)


def _state_value(state: State, node: syntax.Node, scope: Scope, context: Context) -> Expr:
    """An expression of the state's type."""
    value = expression(node, scope, context)
    if is_unsized(value):
        value = sized(scope, value, state.type.rows) if state.type.rows == state.type.cols else value
        if is_unsized(value):
            raise unsized(value, scope)
    if (value.type.rows, value.type.cols) == (state.type.cols, state.type.rows) and value.type.is_row:
        value = as_column(value)
    if (value.type.rows, value.type.cols) != (state.type.rows, state.type.cols):
        text = scope.report.source.slice(node.span)
        transposed = (value.type.rows, value.type.cols) == (state.type.cols, state.type.rows)
        scope.report.error(
            "shape-mismatch",
            f"`{text}` is {scope.shape(value.type)}; `{state.name}` is {scope.shape(state.type)}",
            node.span,
            scope.shape(value.type),
            secondary=(Label(state.span, scope.shape(state.type)),),
            help=f"transpose it: `({text})^T`" if transposed else f"each term of the update has the shape of `{state.name}`",
        )
        raise Unresolved
    if value.type.field == "complex" and state.type.field == "real":
        scope.report.error(
            "field-mismatch",
            f"`{state.name}` is real; its update is complex",
            node.span,
            "complex",
            secondary=(Label(state.span, "real"),),
            help=f"declare `state {state.name} : complex {state.type}`, or take a part: `Re(...)`",
        )
        raise Unresolved
    check_arguments(value, scope)
    check_axes(value, scope)
    return value


# --- dynamics ----------------------------------------------------------------------------------------------------


def dynamics_of(node: syntax.Dynamics, scope: Scope) -> spec.Dynamics:
    """`dS/dt = value`."""
    state = expect_state(node.state, node.span, scope)
    return spec.Dynamics(state.name, _state_value(state, node.value, scope, Context("dynamics")), node.span)


# --- output ------------------------------------------------------------------------------------------------------


def outputs_of(node: syntax.Output, scope: Scope) -> tuple[spec.Output, ...]:
    """What the recurrence gives, read before or after the update."""
    found: list[spec.Output] = []
    for step in node.body:
        try:
            if isinstance(step, syntax.ForLoop):
                scope.report.error(
                    "not-an-index",
                    "an output needs no loop",
                    step.span,
                    "a loop in an output",
                    help="write one row of it: `y[r] = S'^T q[r]`",
                )
                raise Unresolved
            found.append(_output(step, scope, {o.name: o.span for o in found}))
        except Unresolved:
            continue
    return tuple(found)


def _output(node: syntax.Assign, scope: Scope, earlier: dict[str, Span]) -> spec.Output:
    name = node.name or "y"
    span = node.name_span or node.span
    first = earlier.get(name, scope.declared.get(name))
    if first is not None:
        scope.report.error(
            "duplicate-name",
            f"`{name}` is declared twice",
            span,
            "an output",
            secondary=(Label(first, "declared first here"),),
            help="give the output a name of its own: `y = ...`",
        )
        raise Unresolved
    context = Context("output", assigned=tuple(scope.states))
    index = count = None
    if node.subscript is not None:
        index, count = _output_rows(node, scope)
        context = context.inside(index, count)
    value = as_column(expression(node.value, scope, context))
    if is_unsized(value):
        raise unsized(value, scope)
    if value.type.field == "complex":
        text = scope.report.source.slice(node.value.span)
        scope.report.error(
            "field-mismatch", f"the output `{name}` is complex", node.value.span, "complex", help=f"outputs are real: `Re({text})`"
        )
        raise Unresolved
    check_arguments(value, scope)
    check_axes(value, scope)
    return spec.Output(name, value, node.span, index, count)


def _output_rows(node: syntax.Assign, scope: Scope) -> tuple[str, Dim]:
    """The index of `y[r]` and what it runs over: the rows of the first value that it picks a row of."""
    if not isinstance(node.subscript, syntax.Name) or node.subscript.prime:
        text = scope.report.source.slice(node.subscript.span)
        scope.report.error(
            "not-an-index", f"`{text}` cannot index an output", node.subscript.span, "not a name", help="name the row: `y[r] = S'^T q[r]`"
        )
        raise Unresolved
    index = node.subscript.id
    for inner in walk_syntax(node.value):
        if isinstance(inner, syntax.Subscript) and isinstance(inner.index, syntax.Name) and inner.index.id == index:
            base = expression(inner.base, scope, Context("output", assigned=tuple(scope.states)))
            return index, base.type.rows
    scope.report.error(
        "not-an-index",
        f"nothing in `{node.name}[{index}]` has rows for `{index}` to count",
        node.subscript.span,
        "not used at the right",
        help=f"pick rows of a value `[R, N]`, as in `y[{index}] = S'^T q[{index}]`, or write `{node.name} = ...`",
    )
    raise Unresolved
