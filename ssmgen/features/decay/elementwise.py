"""S' = W_t * S + ...  Every entry of the state forgets at its own rate: a scan over time, no matrix-product form."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """An elementwise factor in some term."""
    return any("elementwise" in (g.kind for g in t.left + t.right) for t in facts.transitions)


FEATURE = Feature(
    "one factor per state entry and token",
    matches,
    is_lowered=False,
    priority=60,
    evidence=lambda f: f.transitions[0],
    in_scan=True,
)
