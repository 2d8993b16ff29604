"""Several affine steps inside a token, in order."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """More than one micro-step touches the states."""
    steps = [s for s in facts.recurrence.steps if any(t.target in facts.states for t in s.transitions)]
    return len(steps) > 1 or any(s.count is not None for s in steps)


FEATURE = Feature("several steps inside a token, in order", matches, is_lowered=True, priority=20, evidence=lambda f: f.transitions[-1])
