"""What the grammar cannot refuse: trees too deep for the passes behind, constants beyond a double, indices of time."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache

from .. import syntax as s
from ..diagnostics import Report
from .tokens import shown, time_index

MAX_DEPTH = 200
MAX_MAGNITUDE = 300.0
"""Decimal digits before or behind the point: inside a double's range."""


def check(file: s.File, report: Report) -> None:
    """Walk every item without recursion. Reports too-deep, number-too-large, time-index."""
    for item in file.items:
        states = tuple(node.name for node in item.body if isinstance(node, s.StateDecl)) if isinstance(item, s.RecurrenceDecl) else ()
        has_t = _declares_t(item)
        for root in _statements(item):
            _walk(root, states, has_t, report)


def _statements(item: s.Node) -> tuple[s.Node, ...]:
    if isinstance(item, s.StackDecl):
        return (*item.repeat, *item.between)
    return item.body


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if not field.name.endswith("span"))


def children(node: s.Node) -> list[s.Node]:
    """The nodes straight below, through tuples such as arguments and keywords."""
    found: list[s.Node] = []
    for name in _names(type(node)):
        value = getattr(node, name)
        if isinstance(value, s.Node):
            found.append(value)
        elif isinstance(value, tuple):
            stack = list(reversed(value))
            while stack:
                entry = stack.pop()
                if isinstance(entry, s.Node):
                    found.append(entry)
                elif isinstance(entry, tuple):
                    stack.extend(reversed(entry))
    return found


def _declares_t(item: s.Node) -> bool:
    """Whether `t` is the item's own name for something: a loop's index, an input."""
    pending = list(_statements(item))
    while pending:
        node = pending.pop()
        if "t" in (getattr(node, "name", ""), getattr(node, "index", "")):
            return True
        pending.extend(children(node))
    return any(name == "t" for name, _ in item.params)


def _walk(root: s.Node, states: tuple[str, ...], has_t: bool, report: Report) -> None:
    order: list[tuple[s.Node, list[s.Node]]] = []
    pending = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            report.error(
                "too-deep",
                f"the formula is more than {MAX_DEPTH} operations deep",
                node.span,
                f"level {depth}",
                note="a long sum or product counts one level a term",
                help="name the inner parts with `let`",
            )
            return
        below = children(node)
        order.append((node, below))
        pending.extend((child, depth + 1) for child in below)
    size: dict[int, float | None] = {}
    for node, below in reversed(order):
        size[id(node)] = _magnitude(node, [size[id(child)] for child in below])
        if size[id(node)] is not None and abs(size[id(node)]) > MAX_MAGNITUDE:
            report.error(
                "number-too-large",
                f"`{shown(report, node.span)}` does not fit a double",
                node.span,
                f"about 10^{size[id(node)]:.0f}" if math.isfinite(size[id(node)]) else "beyond every bound",
                note="constants are exact rationals while the compiler computes and doubles when it emits",
                help="write the logarithm, or a smaller constant",
            )
            size[id(node)] = None
        if isinstance(node, s.Subscript):
            _check_index(node, states, has_t, report)


def _magnitude(node: s.Node, below: list[float | None]) -> float | None:
    """The decimal logarithm of a constant's absolute value, None for what is no constant; -0.0 stands for nought."""
    if isinstance(node, s.Number):
        return math.log10(abs(node.value.numerator)) - math.log10(node.value.denominator) if node.value else 0.0
    if None in below or not below:
        return None
    if isinstance(node, s.Unary):
        return below[0]
    if not isinstance(node, s.Binary):
        return None
    left, right = below
    if node.operator in ("+", "-"):
        return max(left, right)
    if node.operator in ("*", "juxtapose", "."):
        return left + right
    if node.operator == "/":
        return left - right
    return left * 10.0**right if right < 300 else math.copysign(math.inf, left) if left else 0.0


def _check_index(node: s.Subscript, states: tuple[str, ...], has_t: bool, report: Report) -> None:
    base = node.base.id if isinstance(node.base, s.Name) else "x"
    if not has_t and _mentions(node.index, "t"):
        time_index(report, base, node.span, is_state=base in states)


def _mentions(node: s.Node, name: str) -> bool:
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, s.Name) and node.id == name:
            return True
        pending.extend(children(node))
    return False
