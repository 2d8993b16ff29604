"""S' = a S + ...  One factor per head, the same for every token: the scalar law with G_i = i log a."""

from .._base import Feature
from .._facts import Facts
from . import scalar

IS_WIDE, pair, recall = scalar.IS_WIDE, scalar.pair, scalar.recall


def matches(facts: Facts) -> bool:
    """Scalar terms in which no per-token value enters."""
    return scalar.matches(facts) and all(facts.is_static(t.coefficient) for t in facts.decay_terms)


FEATURE = Feature("one factor per head, fixed in time", matches, is_lowered=True, priority=30, evidence=lambda f: f.decay_terms[0])
