"""S' = diag(a_t) S + ...  Every key forgets at its own rate; the weights of a chunk no longer factor out of the product."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A diagonal factor in some term."""
    return any(g.kind == "diagonal" for t in facts.decay_terms + facts.correction_terms for g in t.left + t.right)


FEATURE = Feature("one factor per key and token", matches, is_lowered=False, priority=50, evidence=lambda f: f.transitions[0])
