"""Exponential weights relative to a running maximum, `m' = max(log f + m, i)`: the state holds S e^-m, and m cancels in the quotient.

The maximum is a scan of its own; to the walk it is a value of every token, and its factors exp(log f + m - m') and
exp(i - m') are at most 1.
"""

from ...expressions import nodes
from ...spec import Apply, Expr, Ref
from .._base import Feature
from .._facts import Facts
from ._weights import has_weight_state


def matches(facts: Facts) -> bool:
    """A weight state, and writes that are exponentials relative to a running maximum."""
    return has_weight_state(facts) and any(_is_relative(facts, w.coefficient) or _is_relative(facts, w.key) for w in facts.writes)


def _is_relative(facts: Facts, expr: Expr | None) -> bool:
    names = {name for m in facts.recurrence.maxima for name in (m.before, m.after)}
    exponentials = [n for n in nodes(expr) if isinstance(n, Apply) and n.function == "exp"] if expr is not None else []
    return any(isinstance(n, Ref) and n.name in names for e in exponentials for n in nodes(e))


FEATURE = Feature(
    "a running sum of exponential weights, relative to a running maximum",
    matches,
    is_lowered=True,
    priority=20,
    need="a running maximum needs write gates that are exponentials, exp(i - m') beside `m' = max(log_f + m, i)`: "
    "a gate of any other kind has nothing to be stabilised",
    evidence=lambda f: f.recurrence.written.state(f.recurrence.maxima[0].state),
)
