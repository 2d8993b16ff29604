"""One recurrence: sizes, then names in their order of need, then what happens at a token."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from .. import spec, syntax
from ..bounds import INDICES
from ..diagnostics import Label, Report, Severity
from ..discretizations import methods
from ..expressions import nodes
from ..functions import FUNCTIONS
from ..source import Source, Span
from .declared import desugar, structure_of
from .dims import dim_of
from .equations import dynamics_of, outputs_of, state_of, update_of
from .expressions import Context, expression
from .learned import recurrent_input
from .older_inputs import with_older_input
from .options import options_of
from .resets import with_resets
from .scope import Scope, Unresolved, names_in, suggestion, walk
from .symbols import duplicate, gate_symbol, input_symbol, let_symbol, param_symbol


def resolve_recurrence(node: syntax.RecurrenceDecl, source: Source, report: Report) -> spec.Recurrence | None:
    """The recurrence; None when an error in it was reported."""
    errors = _errors(report)
    scope = Scope(report)
    declare_sizes(node, scope)
    structure = structure_of(node, scope)
    try:
        node = desugar(node, structure, scope)
    except Unresolved:
        return None
    declare_names(node, scope)
    _states(node, scope)
    recurrent = define_symbols(node, scope)

    written = tuple(step for s in node.body if isinstance(s, syntax.Update) for step in s.body)
    update = update_of(written, scope)
    dynamics: list[spec.Dynamics] = []
    outputs: tuple[spec.Output, ...] = ()
    discretization = None
    for statement in node.body:
        match statement:
            case syntax.Dynamics():
                _try(lambda s=statement: dynamics.append(dynamics_of(s, scope)))
            case syntax.Discretize():
                discretization = _try(lambda s=statement: _discretization(s, scope)) or discretization
    if discretization is not None:
        dynamics = [found for d in dynamics if (found := _try(lambda d=d: with_older_input(d, discretization, scope))) is not None]
    for statement in node.body:
        if isinstance(statement, syntax.Output):
            outputs = (*outputs, *outputs_of(statement, scope))
    resets = _resets(node, scope)
    options = options_of(node, scope)
    _check_complete(node, scope, update, dynamics)
    if _errors(report) == errors:
        warn_unused(node, scope)
    if _errors(report) > errors:
        return None
    assigned = [a.value for item in update for a in (item.body if isinstance(item, spec.MicroLoop) else (item,))]
    values = [
        *assigned,
        *(v.value for v in (*dynamics, *outputs)),
        *(s.definition for s in scope.symbols.values() if s.definition is not None),
    ]
    fixed = _fixed_sizes(scope, update, values, outputs)
    return spec.Recurrence(
        name=node.name,
        source=source,
        comment=node.comment,
        dims=tuple((name, size) for name, size in scope.dims.items() if name not in fixed),
        counts=(*scope.counts.items(), *((name, scope.dims[name]) for name in fixed)),
        constants=tuple(scope.constants.items()),
        symbols=with_resets(scope.symbols.values(), resets, scope.bounds.of),
        states=tuple(scope.states.values()),
        update=update,
        dynamics=tuple(dynamics),
        discretization=discretization,
        outputs=outputs,
        declared=structure.declared,
        resets=resets,
        time=structure.time,
        recurrent_inputs=recurrent,
        options=options,
        option_spans=tuple((s.name, s.span) for s in node.body if isinstance(s, syntax.Option)),
        span=node.name_span,
    )


def _fixed_sizes(scope: Scope, update: tuple, values: list[spec.Expr], outputs: tuple[spec.Output, ...]) -> tuple[str, ...]:
    """Sizes that a build fixes: numbers of rows, which are written out one by one or named by one, and those of states that no input and no
    parameter has, which no tensor of a call tells."""
    shown = {name for s in scope.symbols.values() if s.definition is None for name in _names_of_sizes(s.type)}
    alone = [n for state in scope.states.values() for n in _names_of_sizes(state.type) if n not in shown]
    counts = [item.count for item in update if isinstance(item, spec.MicroLoop)] + [o.count for o in outputs if o.count is not None]
    counts += [node.count for value in values for node in nodes(value) if isinstance(node, spec.SumOver)]
    counts += [n.base.type.rows for value in values for n in nodes(value) if isinstance(n, spec.Element) and isinstance(n.index, int)]
    rows = [name for count in counts for name, _ in count.terms]
    return tuple(name for name in scope.dims if name in alone or name in rows)


def _names_of_sizes(type: spec.Type) -> list[str]:
    return [name for size in (type.rows, type.cols) for name, _ in size.terms]


def _errors(report: Report) -> int:
    return sum(d.severity is Severity.ERROR for d in report.found)


def _try(action: Callable):
    try:
        return action()
    except Unresolved:
        return None


# --- sizes -------------------------------------------------------------------------------------------------------


def declare_sizes(node: syntax.RecurrenceDecl | syntax.AttentionDecl, scope: Scope) -> None:
    """Dims, and the item's parameters: counts where a size or a loop uses them, module arguments otherwise."""
    as_sizes = _size_names(node)
    for name, value in node.params:
        number = _try(lambda n=name, v=value: _parameter_value(n, v, node, scope))
        if number is None:
            number = Fraction(1)
        scope.declared[name] = node.name_span
        if name in as_sizes:
            if number.denominator != 1 or number < 1:
                scope.report.error(
                    "not-a-count",
                    f"`{name}` counts rows or steps, and its default is {number}",
                    value.span if value is not None else node.name_span,
                    "not a whole number of at least 1",
                    help=f"write `{name} = {max(1, round(number))}`",
                )
                number = Fraction(1)
            scope.counts[name] = int(number)
        else:
            scope.constants[name] = number
    for statement in node.body:
        if isinstance(statement, syntax.DimDecl):
            _try(lambda s=statement: _dim(s, scope))
            scope.dims.setdefault(statement.name, 64)  # a faulty one has been reported


def _parameter_value(name: str, value: syntax.Node | None, node: syntax.Node, scope: Scope) -> Fraction:
    if value is None:
        scope.report.error(
            "static-expression-required", f"`{name}` has no default", node.name_span, "a parameter needs one", help=f"write `{name} = 1`"
        )
        raise Unresolved
    result = expression(value, scope, Context("static"))
    if not isinstance(result, spec.Const):
        scope.report.error(
            "static-expression-required",
            f"the default of `{name}` is not a number",
            value.span,
            "not an exact number",
            help="write the number itself",
        )
        raise Unresolved
    return result.value


def _dim(node: syntax.DimDecl, scope: Scope) -> None:
    if node.name in scope.declared:
        duplicate(node.name, node.span, scope.declared[node.name], scope)
        raise Unresolved
    scope.declared[node.name] = node.span
    if node.default is None:
        scope.report.error(
            "static-expression-required",
            f"the dim `{node.name}` has no default size",
            node.span,
            "a size needs one",
            help=f"write `{node.name} = 64`",
        )
        raise Unresolved
    value = dim_of(node.default, scope).value(scope.sizes)
    scope.dims[node.name] = int(value)


def _size_names(node: syntax.Node) -> frozenset[str]:
    """Names that stand where a size or a count must stand."""
    found: list[str] = []
    for inner in walk(node):
        match inner:
            case syntax.TypeNode():
                found += [n for size in inner.shape for n in names_in(size)]
                if inner.rotates is not None:
                    found += names_in(inner.rotates[1])
            case syntax.SumOver() | syntax.ForLoop():
                found += names_in(inner.high)
            case syntax.DimDecl(default=default) if default is not None:
                found += names_in(default)
            case syntax.Declared(keyword="write" | "mimo", words=words):
                found += [n for word in words for n in names_in(word)]
    return frozenset(found)


# --- names -------------------------------------------------------------------------------------------------------

_BUILT_IN = tuple(name for name in INDICES if name != "n")  # `n` counts entries inside an init only
_NAMED = (syntax.ParamDecl, syntax.InputDecl, syntax.LetDecl, syntax.GateDecl, syntax.StateDecl)


def declare_names(node: syntax.RecurrenceDecl | syntax.AttentionDecl, scope: Scope) -> None:
    """Every name the item declares, so that a use above its definition is told from an unknown name."""
    for statement in node.body:
        if not isinstance(statement, _NAMED):
            continue
        span = statement.name_span or statement.span
        name = statement.name
        if name in scope.declared:
            duplicate(name, span, scope.declared[name], scope)
        elif name in _BUILT_IN:
            scope.report.error(
                "duplicate-name",
                f"`{name}` is a built-in index",
                span,
                "has a meaning of its own everywhere",
                help=f"give the name another letter, such as `{name}_`",
            )
        elif name in FUNCTIONS and FUNCTIONS[name].kind != "constant":
            scope.report.error(
                "duplicate-name",
                f"`{name}` is a function of the language",
                span,
                FUNCTIONS[name].doc,
                help=f"give the name another letter, such as `{name}_`",
            )
        scope.declared.setdefault(name, span)


def _states(node: syntax.RecurrenceDecl, scope: Scope) -> None:
    for statement in node.body:
        if isinstance(statement, syntax.StateDecl):
            state = _try(lambda s=statement: state_of(s, scope))
            if state is None:
                scope.broken.setdefault(statement.name)
            else:
                scope.states.setdefault(state.name, state)
    axes = {state.per: state for state in scope.states.values()}
    if len(axes) > 1:
        first, second = list(axes.values())[:2]
        scope.report.error(
            "mixed-axes",
            f"`{second.name}` is per {second.per}, `{first.name}` per {first.per}",
            second.span,
            f"per {second.per}",
            secondary=(Label(first.span, f"per {first.per}"),),
            help="all states of a recurrence run over one axis",
        )
    if any(state.per == "channel" for state in scope.states.values()):
        scope.axis = "channel"


def define_symbols(node: syntax.RecurrenceDecl | syntax.AttentionDecl, scope: Scope) -> tuple[str, ...]:
    """Params, inputs, lets and gates. Returns the inputs that read the state.

    What comes from outside (inputs, learned params) may stand anywhere; definitions use what stands above them.
    """
    recurrent: list[str] = []
    outside = [s for s in node.body if isinstance(s, syntax.InputDecl | syntax.ParamDecl | syntax.GateDecl) and s.value is None]
    inside = [s for s in node.body if isinstance(s, _NAMED) and not isinstance(s, syntax.StateDecl) and s not in outside]
    for statement in (*outside, *inside):
        if statement.name in scope.symbols or statement.name in scope.inlined:
            continue
        try:
            match statement:
                case syntax.InputDecl(value=None):
                    input_symbol(statement, scope)
                case syntax.InputDecl():
                    recurrent += recurrent_input(statement, scope)
                case syntax.ParamDecl():
                    param_symbol(statement, scope)
                case syntax.LetDecl():
                    let_symbol(statement, scope)
                case syntax.GateDecl():
                    gate_symbol(statement, scope)
        except Unresolved:
            scope.broken.setdefault(statement.name)
    _in_order_of_writing(scope)
    return tuple(recurrent)


def _in_order_of_writing(scope: Scope) -> None:
    """Symbols in the order in which the text declares them; definitions never move before what they use."""
    outside = {n: s for n, s in scope.symbols.items() if s.definition is None}
    inside = {n: s for n, s in scope.symbols.items() if s.definition is not None}
    ordered: dict[str, spec.Symbol] = {}
    pending = sorted(outside.values(), key=lambda s: s.span.start)
    for symbol in inside.values():
        while pending and pending[0].span.start <= symbol.span.start:
            first = pending.pop(0)
            ordered[first.name] = first
        ordered[symbol.name] = symbol
    for symbol in pending:
        ordered[symbol.name] = symbol
    scope.symbols = ordered


# --- time --------------------------------------------------------------------------------------------------------


def _discretization(node: syntax.Discretize, scope: Scope) -> spec.Discretization:
    known = methods()
    span = node.method_span or node.span
    if node.method not in known:
        help = suggestion(node.method, known) or "methods: " + ", ".join(f"`{name}`" for name in known)
        scope.report.error("unknown-discretization", f"there is no discretization `{node.method}`", span, "not a method", help=help)
        raise Unresolved
    parameters = known[node.method].parameters
    if len(node.args) != len(parameters):
        usage = f"{node.method}({', '.join(parameters)})" if parameters else node.method
        scope.report.error(
            "wrong-arity",
            f"`{node.method}` takes {_count(len(parameters))}, not {len(node.args)}",
            node.span,
            "the step size first, then the method's parameters" if parameters else "takes the equation as it is",
            help=f"`discretize {usage}`",
        )
        raise Unresolved
    args = [expression(argument, scope, Context("token")) for argument in node.args]
    for argument, parameter in zip(args, parameters, strict=True):
        if argument.type.field == "complex" or (argument.type.cols != spec.ONE and parameter != parameters[0]):
            scope.report.error(
                "shape-mismatch",
                f"`{parameter}` of `{node.method}` is {scope.shape(argument.type)}",
                argument.span,
                str(argument.type),
                help=f"`{parameter}` is a real scalar or column"
                + (", or has the shape of the state" if parameter == parameters[0] else ""),
            )
            raise Unresolved
    return spec.Discretization(node.method, tuple(args), node.span)


def _count(number: int) -> str:
    return "no argument" if number == 0 else "1 argument" if number == 1 else f"{number} arguments"


def _resets(node: syntax.RecurrenceDecl, scope: Scope) -> tuple[tuple[str, spec.Expr, spec.Expr], ...]:
    found = []
    for statement in node.body:
        if not isinstance(statement, syntax.Reset):
            continue
        if statement.at != "document":
            scope.report.error(
                "unknown-option",
                f"a reset happens at documents, not at `{statement.at}`",
                statement.span,
                "not a boundary",
                help="write `reset at document: a = 0`",
            )
            continue
        for name, value in statement.assigns:
            result = _try(lambda n=name, v=value, s=statement: _reset_value(n, v, s, scope))
            if result is not None:
                found.append((name, result, scope.symbols[name].definition))
    return tuple(found)


def _reset_value(name: str, value: syntax.Node, statement: syntax.Reset, scope: Scope) -> spec.Expr:
    scope.used[name] = None
    if name not in scope.symbols:
        if name in scope.declared:
            fact = "a state starts from 0 at every document anyway" if name in scope.states else "reads the state"
            scope.report.error(
                "not-resettable", f"`{name}` cannot be set at a document", statement.span, fact, help="set a let or a gate: `a = 0`"
            )
            raise Unresolved
        definitions = [s.name for s in scope.symbols.values() if s.kind in ("let", "gate")]
        help = suggestion(name, definitions) or f"name it first: `let {name} = ...`"
        scope.report.error("unknown-name", f"there is no `{name}` to reset", statement.span, "nothing declares this name", help=help)
        raise Unresolved
    symbol = scope.symbols[name]
    if symbol.definition is None or symbol.kind == "param":
        words = "is learned, the same for all tokens" if symbol.kind == "param" else "is what the caller gives"
        scope.report.error(
            "not-resettable",
            f"`{name}` cannot be set at a document",
            statement.span,
            words,
            help=f"set a let that reads it: `let a = {name}`",
        )
        raise Unresolved
    result = expression(value, scope, Context("reset"))
    if not result.type.is_scalar:
        scope.report.error(
            "shape-mismatch",
            f"`{name}` is reset to {scope.shape(result.type)}",
            value.span,
            "not a scalar",
            help="one number for all entries",
        )
        raise Unresolved
    return result


# --- what must be there --------------------------------------------------------------------------------------------


def _check_complete(node: syntax.RecurrenceDecl, scope: Scope, update: tuple, dynamics: list[spec.Dynamics]) -> None:
    found = {
        kind: [s for s in node.body if isinstance(s, kind)]
        for kind in (syntax.Update, syntax.Dynamics, syntax.Output, syntax.StateDecl, syntax.Discretize)
    }
    report = scope.report
    if not found[syntax.StateDecl]:
        report.error(
            "missing-state",
            f"`{node.name}` has no state",
            node.name_span,
            "a recurrence carries something",
            help="declare it: `state S : real [N, P]`",
        )
    if found[syntax.Update] and found[syntax.Dynamics]:
        report.error(
            "update-and-dynamics",
            f"`{node.name}` has both an update and dynamics",
            found[syntax.Dynamics][0].span,
            "continuous time",
            secondary=(Label(found[syntax.Update][0].span, "discrete time"),),
            help="keep one: the update as it stands, or `dynamics` with `discretize`",
        )
    elif found[syntax.Dynamics] and not found[syntax.Discretize]:
        report.error(
            "missing-discretize",
            f"`{node.name}` has dynamics and no step",
            found[syntax.Dynamics][0].span,
            "continuous time",
            help="add `discretize exp_euler(dt)`, or another of " + ", ".join(f"`{m}`" for m in methods()),
        )
    elif found[syntax.Discretize] and not found[syntax.Dynamics]:
        report.error(
            "missing-dynamics",
            f"`{node.name}` discretizes nothing",
            found[syntax.Discretize][0].span,
            "no `dynamics` here",
            help="write `dynamics dS/dt = ...`, or drop `discretize`",
        )
    if len(found[syntax.Discretize]) > 1:
        duplicate("discretize", found[syntax.Discretize][1].span, found[syntax.Discretize][0].span, scope)
    _check_states_change(node, scope, found)
    if not found[syntax.Output]:
        report.error(
            "missing-output", f"`{node.name}` gives nothing", node.name_span, "no output", help="read the state: `output y = S'^T q`"
        )


def _check_states_change(node: syntax.RecurrenceDecl, scope: Scope, found: dict) -> None:
    changed: dict[str, Span] = {}
    for inner in walk(tuple(found[syntax.Update])):
        if isinstance(inner, syntax.Assign) and inner.name:
            changed.setdefault(inner.name, inner.span)
    for statement in found[syntax.Dynamics]:
        if statement.state in changed and not found[syntax.Update]:
            duplicate(f"d{statement.state}/dt", statement.span, changed[statement.state], scope)
        changed.setdefault(statement.state, statement.span)
    for state in scope.states.values():
        if state.name not in changed:
            how = f"`dynamics d{state.name}/dt = ...`" if found[syntax.Dynamics] else f"`update {state.name}' = ...`"
            scope.report.error(
                "missing-update",
                f"nothing says what `{state.name}` becomes",
                state.span,
                "a state without an equation",
                help=f"write {how}",
            )


def warn_unused(node: syntax.RecurrenceDecl | syntax.AttentionDecl, scope: Scope) -> None:
    """A warning for every declaration that nothing reads."""
    for statement in node.body:
        if isinstance(statement, (*_NAMED, syntax.DimDecl)) and statement.name not in scope.used:
            span = getattr(statement, "name_span", None) or statement.span
            scope.report.warning(
                "unused-declaration", f"`{statement.name}` is declared and never used", span, "not used", help="remove it, or use it"
            )
