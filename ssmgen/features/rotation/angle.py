"""The transition turns pairs of keys by an angle; or the state is complex, which is the same.

A chunk sees such a state in a frame that turns along, where queries and keys are turned instead (`turning`).
"""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A rotation factor, or a complex state."""
    is_complex = any(facts.recurrence.spec.state(s).type.field == "complex" for s in facts.states)
    return is_complex or "rotation" in facts.kinds("left") + facts.kinds("right")


FEATURE = Feature(
    "pairs of keys turn by an angle",
    matches,
    is_lowered=True,
    priority=10,
    evidence=lambda f: (f.transitions or [None])[0],
    in_scan=True,
)
