"""Every entry of the state runs by itself, s' = a s + b: a scan over time.

A state of a channel has no second axis, a factor for every entry leaves no matrix product, and what fades or is read along both
axes of a state is met inside a chunk along one alone: none of these has a chunk form.
"""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A state of a channel, a factor of its own for every entry, or fading and reading that do not keep to one axis."""
    if any(facts.recurrence.spec.state(s).per == "channel" for s in facts.states):
        return True
    kinds = {g.kind for t in facts.transitions for g in t.left + t.right}
    if "elementwise" in kinds:
        return True
    return not kinds - {"diagonal"} and not facts.coupling_terms and (_fades_beside(facts) or _is_read_across(facts))


def _fades_beside(facts: Facts) -> bool:
    """Diagonals on an axis that queries do not contract."""
    if facts.is_read_whole:
        return any(t.left or t.right for t in facts.transitions)
    is_value = bool(facts.reads) and all(r.side == "value" for r in facts.reads)
    return any(t.left if is_value else t.right for t in facts.transitions)


def _is_read_across(facts: Facts) -> bool:
    """Reads along both axes, or of the whole state beside a read along one."""
    sides = {r.side for r in facts.reads}
    is_matrix = any(w.key is not None and w.value is not None for w in facts.writes)
    return ("value" in sides and len(sides) > 1) or ("whole" in sides and not facts.is_read_whole and is_matrix)


FEATURE = Feature("every entry runs by itself: a scan over time", matches, is_lowered=True, priority=10)
