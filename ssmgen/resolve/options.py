"""`@` options: they may override what the compiler chose, never say what the recurrence is."""

from __future__ import annotations

from .. import syntax
from .scope import Scope, suggestion

DTYPES = ("float32", "float64", "bfloat16", "float16")
FORMS = ("chunk", "scan", "convolution")
CHUNKS = ("16", "32", "64", "128", "256")

OPTIONS: dict[str, tuple[str, ...]] = {"chunk": CHUNKS, "state_dtype": DTYPES, "form": FORMS}
"""Each option with the values it takes."""


def options_of(node: syntax.RecurrenceDecl, scope: Scope) -> tuple[tuple[str, str], ...]:
    """The options written, each with a value it may have."""
    found: dict[str, str] = {}
    for statement in node.body:
        if isinstance(statement, syntax.Option):
            value = _value(statement, scope)
            if value is not None:
                found[statement.name] = value
    return tuple(found.items())


def _value(node: syntax.Option, scope: Scope) -> str | None:
    if node.name not in OPTIONS:
        help = suggestion(f"@{node.name}", [f"@{name}" for name in OPTIONS]) or "options: " + ", ".join(f"`@{name}`" for name in OPTIONS)
        scope.report.error("unknown-option", f"there is no option `@{node.name}`", node.span, "not an option", help=help)
        return None
    allowed = OPTIONS[node.name]
    text = node.value if isinstance(node.value, str) else scope.report.source.slice(node.value.span)
    if text not in allowed:
        help = suggestion(text, allowed) or f"one of {', '.join(f'`{v}`' for v in allowed)}"
        scope.report.error("unknown-option", f"`@{node.name}` cannot be `{text}`", node.span, "not one of its values", help=help)
        return None
    return text
