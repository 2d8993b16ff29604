"""Domains: what is declared, what interval analysis finds, and the proof that the second lies in the first."""

from __future__ import annotations

import math

from .. import spec, syntax
from ..diagnostics import Label
from ..expressions import children, nodes
from ..functions import FUNCTIONS
from ..intervals import INFINITY, Interval
from ..source import Span
from .expressions import Context, expression
from .scope import Scope, Unresolved
from .witness import witness


def domain_of(node: syntax.DomainNode, scope: Scope) -> Interval:
    """The declared interval; its ends are numbers."""
    low = -INFINITY if node.low is None else _end(node.low, scope, upper=False)
    high = INFINITY if node.high is None else _end(node.high, scope, upper=True)
    interval = Interval(low + 0.0, high + 0.0, node.low_open or math.isinf(low), node.high_open or math.isinf(high))
    if low > high or (low == high and (node.low_open or node.high_open)):
        scope.report.error(
            "empty-domain",
            f"no number lies in {interval}",
            node.span,
            "the ends are the wrong way round",
            help=f"write `in ({high:g}, {low:g})`",
        )
        raise Unresolved
    return interval


def _end(node: syntax.Node, scope: Scope, upper: bool) -> float:
    value = expression(node, scope, Context("static"))
    if any(isinstance(part, (spec.Ref, spec.SizeOf)) for part in nodes(value)) or not value.type.is_scalar:
        scope.report.error(
            "static-expression-required",
            f"`{scope.report.source.slice(node.span)}` is not a number",
            node.span,
            "the end of a domain",
            help="write the number: proofs hold for every module, so they may not depend on its arguments",
        )
        raise Unresolved
    found = scope.bounds.of(value)
    return found.high if upper else found.low


def prove(name: str, value: spec.Expr, declared: Interval, span: Span, scope: Scope) -> Interval:
    """What `value` can reach, proved to lie in `declared`; reports and returns `declared` when it does not."""
    found = scope.bounds.of(value)
    if found.is_within(declared):
        return found
    text = scope.report.source.slice(value.span)
    leaves = _ranges(value, scope)
    point = witness(value, declared, found, scope)
    label = f"declared in {declared}"
    if point is not None:
        at = ", ".join(f"{leaf} = {v:g}" for leaf, v in point[1].items())
        scope.report.error(
            "domain-violation",
            f"`{name}` can reach {_reach(found, declared)}: `{text}`{leaves}",
            value.span,
            f"ranges over {found}" + (f"; {point[0]:.4g} at {at}" if at else ""),
            secondary=(Label(span, label),),
            help=_widened(name, declared, found) or _edit(declared, found),
        )
    else:
        scope.report.error(
            "unprovable-domain",
            f"cannot prove that `{name}` stays in {declared}: `{text}`{leaves}",
            value.span,
            f"interval analysis finds {found}",
            secondary=(Label(span, label),),
            note="each operation is bounded by itself: an expression that uses a value twice may be bounded too widely",
            help=_widened(name, declared, found) or f"{_edit(declared, found)}; or write `let`, which promises no domain",
        )
    return declared


def _reach(found: Interval, declared: Interval) -> str:
    """The end of `found` that leaves `declared`, or touches an open end of it, as text."""
    if found.high > declared.high:
        return "inf" if found.high == INFINITY else f"{found.high:.3g}"
    if found.low < declared.low:
        return "-inf" if found.low == -INFINITY else f"{found.low:.3g}"
    touches_low = found.low == declared.low and declared.low_open and not found.low_open
    return f"{(found.low if touches_low else found.high) + 0.0:.3g}"


def _ranges(value: spec.Expr, scope: Scope) -> str:
    names = dict.fromkeys(node.name for node in nodes(value) if isinstance(node, (spec.Ref, spec.Delayed)))
    bounds = scope.bounds
    shown = [f"{name} in {bounds.of(spec.Ref(spec.Type(), value.span, name))}" for name in names]
    return f" with {', '.join(shown)}" if shown else ""


def _widened(name: str, declared: Interval, found: Interval) -> str:
    """The edit for a value that leaves its domain at an open end alone."""
    ends = Interval(declared.low, declared.high, declared.low == -INFINITY, declared.high == INFINITY)
    if not found.is_within(ends):
        return ""
    low_open = declared.low_open and (found.low_open or found.low > declared.low)
    high_open = declared.high_open and (found.high_open or found.high < declared.high)
    domain = f"in {Interval(declared.low, declared.high, low_open, high_open)}"
    if declared.high == INFINITY:
        domain = f">= {declared.low:g}"
    elif declared.low == -INFINITY:
        domain = f"<= {declared.high:g}"
    return f"the end belongs to it: declare `{name} {domain}`"


def _edit(declared: Interval, found: Interval) -> str:
    low, high = declared.low, declared.high
    if (low, high) == (0.0, 1.0):
        return "bound it: `sigmoid(x)`, or `exp(-softplus(x))` for a decay"
    if (low, high) == (0.0, INFINITY):
        return "keep it positive: `softplus(x)` or `exp(x)`"
    if (low, high) == (-INFINITY, 0.0):
        return "keep it negative: `-softplus(x)`, or `logsigmoid(x)` for a log decay"
    if math.isfinite(low) and math.isfinite(high):
        width = high - low
        return f"bound it: `{low:g} + {width:g} * sigmoid(x)`" if low else f"bound it: `{width:g} * sigmoid(x)`"
    if math.isfinite(low):
        return f"bound it: `{low:g} + softplus(x)`" + ("" if declared.low_open else f", or `max(x, {low:g})`")
    return f"bound it: `{high:g} - softplus(x)`" + ("" if declared.high_open else f", or `min(x, {high:g})`")


def check_arguments(value: spec.Expr, scope: Scope) -> None:
    """Report functions that are applied outside the numbers they are defined on."""
    bounds = scope.bounds
    _check_arguments(value, scope, bounds)


def _check_arguments(value: spec.Expr, scope: Scope, bounds) -> None:
    for child in children(value):
        _check_arguments(child, scope, bounds)
    match value:
        case spec.Apply(function=name, args=(argument, *_)) if not FUNCTIONS[name].domain.is_whole and argument.type.field == "real":
            domain = FUNCTIONS[name].domain
            needs = f"`{name}` is defined on {domain}"
        case spec.Pow(base=argument, exponent=spec.Const(value=power)) if power.denominator != 1 and argument.type.field == "real":
            domain = Interval(0.0, INFINITY, power < 0, True)
            needs = f"a power {power} is defined on {domain}"
        case spec.Pow(base=argument, exponent=exponent) if not isinstance(exponent, spec.Const) and value.type.field == "real":
            domain = Interval(0.0, INFINITY)
            needs = f"a power that is no fixed number is defined on {domain}"
        case _:
            return
    found = bounds.of(argument)
    if found.is_within(domain):
        return
    text = scope.report.source.slice(argument.span)
    least = "1e-6" if domain.low == 0 else f"{domain.low + 1e-6:g}"
    scope.report.error(
        "undefined-argument",
        f"{needs}, and `{text}` can reach {_reach(found, domain)}",
        argument.span,
        f"ranges over {found}",
        help=f"keep it inside: `max({text}, {least if domain.low_open else f'{domain.low:g}'})`",
    )
