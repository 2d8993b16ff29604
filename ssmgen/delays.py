"""Values of the previous token: an expression over the names of a token, and the same over delayed ones."""

from __future__ import annotations

from collections.abc import Iterable

from . import algebra
from .expressions import nodes
from .spec import Apply, Delayed, Expr, Ref, Symbol


def moving_names(symbols: Iterable[Symbol]) -> frozenset[str]:
    """The names whose value changes from token to token."""
    return frozenset(s.name for s in symbols if not s.static and s.kind != "param")


def previous(expr: Expr | None, symbols: Iterable[Symbol]) -> Expr | None:
    """A value of the previous token: its per-token names become delayed ones."""
    if expr is None:
        return None
    moving = moving_names(symbols)
    return algebra.rewrite(expr, lambda n: Delayed(n.type, n.span, n.name) if isinstance(n, Ref) and n.name in moving else None)


def current(expr: Expr | None) -> Expr | None:
    """The inverse of `previous`: delayed names as names of the token itself."""
    if expr is None:
        return None
    return algebra.rewrite(expr, lambda n: Ref(n.type, n.span, n.name) if isinstance(n, Delayed) else None)


def has_previous(expr: Expr) -> bool:
    """Whether the names of the previous token give its value: nothing in it is older still, and none counts tokens."""
    found = nodes(expr)
    return not any(
        isinstance(n, Delayed) or (isinstance(n, Ref) and n.name == "position") or (isinstance(n, Apply) and n.function == "rope")
        for n in found
    )


def at_no_token(expr: Expr) -> Expr:
    """What a value over delayed names is before the first token, where they are 0."""
    return algebra.rewrite(expr, lambda n: algebra.const(0, n.type) if isinstance(n, Delayed) else None)
