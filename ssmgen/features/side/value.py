"""Reads contract the value axis, S u: the transpose of the state swaps keys and values."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """Every read is on the value side."""
    return bool(facts.reads) and all(r.side == "value" for r in facts.reads)


FEATURE = Feature(
    "queries contract the value axis: the transposed state is walked", matches, is_lowered=True, priority=10, evidence=lambda f: f.reads[0]
)
