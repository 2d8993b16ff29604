"""Reads contract the value axis, S u: the transpose of the state swaps keys and values."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """The walk is that of the transposed state."""
    return facts.is_transposed


FEATURE = Feature(
    "queries contract the value axis: the transposed state is walked", matches, is_lowered=True, priority=10, evidence=lambda f: f.reads[0]
)
