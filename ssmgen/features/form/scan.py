"""Every entry of the state runs by itself: a parallel scan over time."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A per-channel state."""
    return any(facts.recurrence.spec.state(s).per == "channel" for s in facts.states)


FEATURE = Feature("every entry runs by itself: a scan over time", matches, is_lowered=False, priority=10)
