"""A declared reset changes gates at a document's first token, the one at position 0."""

from .._base import Feature

FEATURE = Feature(
    "gates change at a document's first token, at position 0",
    lambda facts: bool(facts.recurrence.spec.resets),
    is_lowered=False,
    priority=30,
    in_scan=True,
)
