"""S' = a_t S + ...  One factor per head and token: from j to i the state keeps exp(G_i - G_j), G the running sum of log a.

The difference is masked before it is exponentiated, so a gate as strong as exp(-50) a token neither overflows nor makes
a NaN of inf * 0.
"""

from ...kernel import AsSource, Causal, Exp, Minus, Node, Tile, Times
from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """Scalar terms only (turned, perhaps: a rotation commutes with a scalar)."""
    return bool(facts.decay_terms) and all(facts.only_turns(t) for t in facts.decay_terms)


FEATURE = Feature("one factor per head and token", matches, is_lowered=True, priority=20, evidence=lambda f: f.decay_terms[0])


def weights(later: Tile, earlier: Tile, is_strict: bool, is_reverse: bool) -> Node | None:
    """exp(G_i - G_j) where source j is visible to row i; backwards in time the rows are the earlier tokens."""
    difference = Minus(AsSource(later), earlier) if is_reverse else Minus(later, AsSource(earlier))
    return Exp(Causal(difference, is_strict, "-inf", is_reverse))


def pair(product: Node, weights: Tile | None, is_strict: bool, is_reverse: bool) -> Node:
    """(q_i . k_j) exp(G_i - G_j)."""
    return Times(weights, product)


def factor(exponent: Node) -> Node:
    """What is left after a sum of log decays."""
    return Exp(exponent)
