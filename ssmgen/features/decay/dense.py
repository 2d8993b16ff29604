"""S' = A_t S + ...  A full matrix mixes the keys at every token."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A dense factor in some term."""
    return "dense" in facts.kinds("left") + facts.kinds("right")


FEATURE = Feature("a full matrix per token", matches, is_lowered=False, in_scan=True, priority=70, evidence=lambda f: f.transitions[0])
