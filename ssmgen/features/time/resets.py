"""A declared reset changes the gates at a document's first token."""

from .._base import Feature

FEATURE = Feature(
    "gates change at a document's first token", lambda facts: bool(facts.recurrence.spec.resets), is_lowered=False, priority=30
)
