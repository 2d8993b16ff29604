"""n' = a n + k beside S' = a S + k v^T: one more value column of constant 1, read by the same query, then divided by."""

from .._base import Feature
from .._facts import Facts
from ._weights import has_weight_state


def matches(facts: Facts) -> bool:
    """A weight state beside the memory."""
    return has_weight_state(facts)


FEATURE = Feature("a running sum of the weights, one more value column", matches, is_lowered=True, priority=10)
