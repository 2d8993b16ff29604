"""Some reads contract the axis along which the state fades and is corrected, and some the other.

With w what the rows really write, S = sum_j k_j w_j^T, and u^T is held against w as q is against k: S u = sum_j k_j (w_j . u).
"""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A read of value columns."""
    return any(facts.reads_values(r) for r in facts.reads)


FEATURE = Feature(
    "queries contract an axis that neither fades nor is corrected",
    matches,
    is_lowered=True,
    priority=20,
    evidence=lambda f: next(r for r in f.reads if f.reads_values(r)),
)
