"""Several simultaneous writes a token (MIMO): rows that all see each other."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A summed write, or more than one write of the current token."""
    current = [w for w in facts.writes if w.tap == 0]
    return any(w.rank is not None for w in facts.writes) or len(current) > 1


FEATURE = Feature(
    "several simultaneous writes a token", matches, is_lowered=True, priority=10, evidence=lambda f: (f.writes or f.transitions)[0]
)
