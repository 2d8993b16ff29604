"""Both directions, added."""

from .._base import Feature

FEATURE = Feature("both directions, added", lambda facts: facts.recurrence.spec.time == "bidirectional", is_lowered=False, priority=20)
