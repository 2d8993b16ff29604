"""S' = S + ...  The state never forgets: weights inside a chunk are the plain products q_i . k_j for j up to i."""

from ...kernel import Causal, Node, Tile
from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """Exactly one term, S itself (turned, perhaps)."""
    terms = facts.decay_terms
    return len(terms) == 1 and getattr(terms[0].coefficient, "value", None) == 1 and facts.only_turns(terms[0])


FEATURE = Feature("the state does not decay", matches, is_lowered=True, priority=40)


def weights(later: Tile, earlier: Tile, is_strict: bool, is_reverse: bool) -> Node | None:
    """Every visible source counts fully: no tile of weights."""
    return None


def pair(product: Node, weights: Tile | None, is_strict: bool, is_reverse: bool) -> Node:
    """q_i . k_j, kept where j is visible to i."""
    return Causal(product, is_strict, "0", is_reverse)
