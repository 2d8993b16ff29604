"""Declarations: params, inputs, lets and gates become symbols with a type, an axis and an interval."""

from __future__ import annotations

from dataclasses import replace

from .. import spec, syntax
from ..bounds import INDICES
from ..diagnostics import Label
from ..expressions import nodes
from ..functions import FUNCTIONS
from ..intervals import UNIT_BALL, WHOLE, Interval
from ..source import Span
from ..spec import Expr, Symbol, Type
from . import building
from .building import as_column, is_unsized, reads_state
from .calls import range_of
from .dims import dim_of
from .domains import check_arguments, domain_of, prove
from .expressions import Context, expression
from .modes import check_modes
from .scope import Scope, Unresolved, names_in, suggestion

AXES = ("head", "group", "channel", "layer")


def type_of(node: syntax.TypeNode | None, scope: Scope) -> Type:
    """The declared type; a scalar when none is written."""
    if node is None:
        return Type()
    dims = [dim_of(size, scope) for size in node.shape]
    return Type(*dims, field=node.field or "real") if dims else Type(field=node.field or "real")


def axis_of(node: syntax.TypeNode | None, scope: Scope) -> str:
    """What a declaration belongs to: `per ...`, else the axis of the states."""
    if node is None or node.per is None:
        return scope.axis
    if node.per not in AXES:
        scope.report.error(
            "unknown-name",
            f"nothing is `per {node.per}`",
            node.span,
            "not an axis",
            help=suggestion(node.per, AXES) or "a value is per head, per group, per channel or per layer",
        )
        raise Unresolved
    return node.per


def define(name: str, kind: str, span: Span, scope: Scope, **facts: object) -> Symbol:
    """Add a symbol to the scope."""
    symbol = Symbol(name=name, kind=kind, span=span, **facts)
    scope.symbols[name] = symbol
    return symbol


# --- inputs ------------------------------------------------------------------------------------------------------


def input_symbol(node: syntax.InputDecl | syntax.GateDecl, scope: Scope) -> None:
    """A per-token value from outside; its domain and `unit` are taken at their word."""
    type = type_of(node.type, scope)
    domain = domain_of(node.domain, scope) if node.domain is not None else None
    flags = node.type.flags if node.type is not None else ()
    if "unit" in flags:
        _require_entries(node.name, type, node.span, scope)
    interval = domain or WHOLE
    if "unit" in flags:
        interval = interval.meet(UNIT_BALL)
    define(
        node.name,
        "input",
        node.name_span or node.span,
        scope,
        type=type,
        per=axis_of(node.type, scope),
        domain=domain,
        interval=interval if type.field == "real" else WHOLE,
        flags=flags,
    )


def _require_entries(name: str, type: Type, span: Span, scope: Scope) -> None:
    if type.is_scalar:
        scope.report.error(
            "shape-mismatch",
            f"`{name}` is a scalar, and `unit` is the length of a column",
            span,
            "a scalar",
            help=f"declare `{name} : [N] unit`",
        )
        raise Unresolved


# --- params ------------------------------------------------------------------------------------------------------


def param_symbol(node: syntax.ParamDecl, scope: Scope) -> None:
    """A static value: learned, with its initial value, or fixed by an expression of static values."""
    span = node.name_span or node.span
    if node.value is not None and (node.init is not None or node.init_fields):
        _parametrised(node, scope, span)
        return
    if node.value is not None:
        context = Context("static", defining=node.name)
        value = _typed_value(node.name, node.value, node.type, scope, context)
        check_arguments(value, scope)
        define(
            node.name,
            "param",
            span,
            scope,
            type=value.type,
            per=_axis_of_value(node.name, node.type, value, scope, span),
            definition=value,
            interval=scope.bounds.of(value),
            static=True,
        )
        return
    type = type_of(node.type, scope)
    init = None
    if node.init is not None:
        init = _init(node.init, type, scope)
    elif node.init_fields:
        init = _complex_init(node.init_fields, type, scope)
    if init is not None and init.type.field == "complex" and type.field == "real":
        raise _complex_for_real(node.name, init, scope)
    flags = node.type.flags if node.type is not None else ()
    define(node.name, "param", span, scope, type=type, per=axis_of(node.type, scope), init=init, flags=flags, static=True)


def _init(node: syntax.Node, type: Type, scope: Scope) -> Expr:
    context = Context("init", entries=replace(type, field="real"))
    if isinstance(node, syntax.Range):
        value = range_of(node, scope, context, expression)
    else:
        value = expression(node, scope, context)
    value = as_column(value)
    if not value.type.is_scalar and (value.type.rows, value.type.cols) != (type.rows, type.cols):
        scope.report.error(
            "shape-mismatch",
            f"the param is {scope.shape(type)}; its initial value is {scope.shape(value.type)}",
            node.span,
            scope.shape(value.type),
            help="an initial value is a scalar for all entries, or has the shape of the param",
        )
        raise Unresolved
    check_arguments(value, scope)
    check_modes(value, type, scope)
    return value


def _complex_init(fields: tuple[tuple[str, syntax.Node], ...], type: Type, scope: Scope) -> Expr:
    """`init re 1/2, im pi * n` as `re + i * im`."""
    parts = {key: _init(node, type, scope) for key, node in fields}
    re, im = parts["re"], parts["im"]
    unit = spec.Apply(Type(field="complex"), im.span, "i", ())
    imaginary = building.mul(unit, im, im.span)
    shape = re.type if imaginary.type.is_scalar else imaginary.type
    return building.add(re, imaginary, replace(shape, field="complex"), re.span.to(im.span))


def _parametrised(node: syntax.ParamDecl, scope: Scope, span: Span) -> None:
    """`A = -exp(log_re) + i * im init re 1/2, im pi * n`: the names that nothing else declares are the learned params.

    Each is initialised by the field of its own name; `log_x` by the logarithm of field `x`. With a plain `init` there
    is one such name, and it takes the init as it stands.
    """
    type = type_of(node.type, scope)
    axis = axis_of(node.type, scope)
    known = {*scope.declared, *scope.sizes, *scope.constants, *INDICES}
    learned = [n for n in names_in(node.value) if n not in known and n not in FUNCTIONS]
    fields = dict(node.init_fields)
    for learned_name in learned:
        source = _init_for(learned_name, node, fields)
        if source is None:
            scope.report.error(
                "unknown-name",
                f"`{learned_name}` has no initial value",
                node.value.span,
                "a learned part of the param",
                help="initialise it by name: `init re 1/2, im pi * n` starts `re` (or `log_re`) and `im`",
            )
            raise Unresolved
        init, is_log = source
        real = replace(type, field="real")
        value = _init(init, real, scope)
        if is_log:
            value = spec.Apply(value.type, value.span, "log", (value,))
            check_arguments(value, scope)
        scope.declared[learned_name] = span
        scope.used[learned_name] = None
        define(learned_name, "param", span, scope, type=real, per=axis, init=value, static=True)
    value = _typed_value(node.name, node.value, node.type, scope, Context("static", defining=node.name))
    interval = scope.bounds.of(value)
    define(node.name, "param", span, scope, type=value.type, per=axis, definition=value, interval=interval, static=True)


def _init_for(name: str, node: syntax.ParamDecl, fields: dict[str, syntax.Node]) -> tuple[syntax.Node, bool] | None:
    if node.init is not None:
        return node.init, False
    if name in fields:
        return fields[name], False
    if name.startswith("log_") and name[4:] in fields:
        return fields[name[4:]], True
    return None


# --- lets and gates ----------------------------------------------------------------------------------------------


def let_symbol(node: syntax.LetDecl, scope: Scope) -> None:
    """A named per-token expression."""
    value = _typed_value(node.name, node.value, node.type, scope, Context("token", defining=node.name))
    check_arguments(value, scope)
    _define_value(node, "let", value, None, scope.bounds.of(value), scope)


def gate_symbol(node: syntax.GateDecl, scope: Scope) -> None:
    """A let whose domain is proved; an input with a domain when it has no expression."""
    span = node.name_span or node.span
    if node.domain is None and node.type is None:
        scope.report.error(
            "gate-without-domain",
            f"the gate `{node.name}` states no domain",
            span,
            "a gate is a let with a domain",
            help=f"state one, `gate {node.name} in (0, 1) = ...`, or write `let`",
        )
        raise Unresolved
    if node.value is None:
        input_symbol(node, scope)
        return
    raw = None
    if "raw" in names_in(node.value) and "raw" not in scope.declared:
        raw = (node.name, replace(type_of(node.type, scope), field="real"), axis_of(node.type, scope))
        _raw_input(node, raw, scope, span)
    domain = domain_of(node.domain, scope) if node.domain is not None else None
    value = _typed_value(node.name, node.value, node.type, scope, Context("token", raw=raw, defining=node.name))
    check_arguments(value, scope)
    if domain is not None and value.type.field == "complex":
        raise _complex_for_real(node.name, value, scope)
    interval = scope.bounds.of(value) if domain is None else prove(node.name, value, domain, node.domain.span, scope)
    _define_value(node, "gate", value, domain, interval, scope)


def _raw_input(node: syntax.GateDecl, raw: tuple[str, Type, str], scope: Scope, span: Span) -> None:
    name = f"{node.name}_raw"
    if name in scope.declared:
        scope.report.error(
            "duplicate-name",
            f"`raw` in the gate `{node.name}` is the input `{name}`, which is declared already",
            node.value.span,
            "`raw` declares it",
            secondary=(Label(scope.declared[name], f"`{name}` is declared here"),),
            help=f"write `{name}` instead of `raw`, or drop the declaration",
        )
        raise Unresolved
    define(name, "input", span, scope, type=raw[1], per=raw[2])
    scope.declared[name] = span
    scope.used[name] = None


def _define_value(
    node: syntax.LetDecl | syntax.GateDecl, kind: str, value: Expr, domain: Interval | None, interval: Interval, scope: Scope
) -> None:
    span = node.name_span or node.span
    flags = tuple(f for f in (node.type.flags if node.type is not None else ()) if f != "unit")
    is_unit = not value.type.is_scalar and scope.bounds.is_unit(value)
    if node.type is not None and "unit" in node.type.flags and not is_unit:
        scope.report.error(
            "unprovable-domain",
            f"cannot prove that `{node.name}` has length 1",
            value.span,
            "not a unit column by construction",
            help=f"write `unit({scope.report.source.slice(value.span)})`",
        )
    if reads_state(value):
        scope.inlined[node.name] = value
        return
    if is_unit:
        flags = ("unit", *flags)
    per = _axis_of_value(node.name, node.type, value, scope, span)
    define(
        node.name,
        kind,
        span,
        scope,
        type=value.type,
        per=per,
        definition=value,
        domain=domain,
        interval=interval,
        flags=flags,
        static=_is_static(value, scope),
    )


# --- shared ------------------------------------------------------------------------------------------------------


def _typed_value(name: str, node: syntax.Node, written: syntax.TypeNode | None, scope: Scope, context: Context) -> Expr:
    """The value of a definition as a column, of the declared type where one is written."""
    value = as_column(expression(node, scope, context))
    if is_unsized(value):
        raise unsized(value, scope)
    if written is None:
        return value
    type = type_of(written, scope)
    if (type.rows, type.cols) != (value.type.rows, value.type.cols):
        scope.report.error(
            "shape-mismatch",
            f"`{name}` is declared {scope.shape(type)}; its value is {scope.shape(value.type)}",
            node.span,
            scope.shape(value.type),
            secondary=(Label(written.span, scope.shape(type)),),
            help=_shape_help(name, type, value, scope),
        )
        raise Unresolved
    if value.type.field == "complex" and type.field == "real" and written.field == "real":
        raise _complex_for_real(name, value, scope)
    if value.type.field == "complex" and written.field is None:
        raise _complex_for_real(name, value, scope)
    return value


def _shape_help(name: str, type: Type, value: Expr, scope: Scope) -> str:
    if value.type.is_scalar:
        return "declare it `scalar`, which goes with every entry of a column as it is; or give one of the names in it that shape"
    return f"declare `{name} : {value.type}`"


def unsized(value: Expr, scope: Scope) -> Unresolved:
    """Report an `I` that nothing gives a size."""
    for node in nodes(value):
        if isinstance(node, spec.Identity | spec.Rot) and is_unsized(node):
            what = "I" if isinstance(node, spec.Identity) else scope.report.source.slice(node.span)
            scope.report.error(
                "shape-mismatch",
                f"nothing says how large `{what}` is",
                node.span,
                "no size",
                help="its size comes from what it is added to or multiplied with",
            )
            break
    return Unresolved()


def _complex_for_real(name: str, value: Expr, scope: Scope) -> Unresolved:
    text = scope.report.source.slice(value.span)
    scope.report.error(
        "field-mismatch",
        f"`{name}` is real; its value is complex",
        value.span,
        "complex",
        help=f"take a part, `Re({text})`, or declare `{name} : complex {str(value.type).removeprefix('complex ')}`",
    )
    return Unresolved()


def axes_of(value: Expr, scope: Scope) -> dict[str, str]:
    """The axes that the names of a value belong to: axis -> one such name, in order of use."""
    found: dict[str, str] = {}
    for node in nodes(value):
        match node:
            case spec.Ref(name=name) | spec.Delayed(name=name):
                if name in scope.symbols:
                    found.setdefault(scope.symbols[name].per, name)
                elif name in ("head", "channel"):
                    found.setdefault(name, name)
            case spec.StateRef(name=name):
                found.setdefault(scope.states[name].per, name)
    return found


def check_axes(value: Expr, scope: Scope) -> None:
    """Report an expression that mixes values per channel with values per head."""
    found = axes_of(value, scope)
    other = next((axis for axis in ("head", "group") if axis in found), None)
    if "channel" in found and other:
        scope.report.error(
            "mixed-axes",
            f"`{found['channel']}` is per channel, `{found[other]}` per {other}",
            value.span,
            "both axes in one expression",
            help="a recurrence runs over heads or over channels; what all channels share is `per layer`",
        )
        raise Unresolved


def _axis_of_value(name: str, written: syntax.TypeNode | None, value: Expr, scope: Scope, span: Span) -> str:
    check_axes(value, scope)
    found = axes_of(value, scope)
    inferred = next((axis for axis in ("channel", "head", "group") if axis in found), "layer")
    if written is None or written.per is None:
        return inferred
    declared = axis_of(written, scope)
    order = ("layer", "group", "head") if inferred != "channel" else ("layer", "channel")
    if declared not in order and inferred == "layer":
        return declared
    if declared not in order or order.index(declared) < order.index(inferred):
        scope.report.error(
            "mixed-axes",
            f"`{name}` is declared per {declared}, and `{found[inferred]}` in it is per {inferred}",
            value.span,
            f"per {inferred}",
            secondary=(Label(written.span, f"per {declared}"),),
            help=f"declare `{name}` per {inferred}",
        )
        raise Unresolved
    return declared


def _is_static(value: Expr, scope: Scope) -> bool:
    for node in nodes(value):
        match node:
            case spec.StateRef() | spec.Delayed() | spec.Ref(name="position"):
                return False
            case spec.Apply(function="rope"):
                return False
            case spec.Ref(name=name) if name in scope.symbols and not scope.symbols[name].static:
                return False
    return True


def duplicate(name: str, span: Span, first: Span, scope: Scope) -> None:
    """Report a name that is declared twice."""
    scope.report.error(
        "duplicate-name",
        f"`{name}` is declared twice",
        span,
        "declared again here",
        secondary=(Label(first, "declared first here"),),
        help="rename one of the two",
    )
