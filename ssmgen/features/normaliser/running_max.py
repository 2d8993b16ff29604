"""Exponential weights relative to a running maximum, `m' = max(log f + m, i)`: the state holds S e^-m, and m cancels in the quotient.

The maximum is a scan of its own; to the walk it is a value of every token, and its factors exp(log f + m - m') and
exp(i - m') are at most 1.
"""

from .._base import Feature
from .._facts import Facts
from ._weights import has_weight_state


def matches(facts: Facts) -> bool:
    """A weight state, and a running maximum in its recurrence."""
    return has_weight_state(facts) and bool(facts.recurrence.maxima)


FEATURE = Feature(
    "a running sum of exponential weights, relative to a running maximum",
    matches,
    is_lowered=True,
    priority=20,
    need="a running maximum needs write gates that are exponentials, exp(i - m') beside `m' = max(log_f + m, i)`: "
    "a gate of any other kind has nothing to be stabilised",
    evidence=lambda f: f.recurrence.written.state(f.recurrence.maxima[0].state),
)
