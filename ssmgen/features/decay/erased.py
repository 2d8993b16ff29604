"""S' = 0 S + ...  Nothing of the old state survives by itself (what there is comes from other terms)."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """No term carries the state over."""
    return True


FEATURE = Feature("the old state is dropped at every token", matches, is_lowered=False, priority=0, in_scan=True)
