"""From the last token to the first."""

from .._base import Feature

FEATURE = Feature("last token to first", lambda facts: facts.recurrence.spec.time == "reversed", is_lowered=True, priority=10)
