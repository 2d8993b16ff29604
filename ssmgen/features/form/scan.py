"""Every entry of the state runs by itself, s' = a s + b: a scan over time.

A state of a channel has no second axis, and a factor for every entry leaves no matrix product: neither has a chunk form.
"""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A state of a channel, a factor of its own for every entry, or a vector that fades entry by entry and is read whole."""
    if any(facts.recurrence.spec.state(s).per == "channel" for s in facts.states):
        return True
    kinds = {g.kind for t in facts.transitions for g in t.left + t.right}
    return "elementwise" in kinds or (facts.is_read_whole and "diagonal" in kinds and "rank_one" not in kinds)


FEATURE = Feature("every entry runs by itself: a scan over time", matches, is_lowered=True, priority=10)
