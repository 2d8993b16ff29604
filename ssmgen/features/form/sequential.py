"""The state enters its own gates: token after token, no parallel form."""

from .._base import Feature

FEATURE = Feature(
    "the state enters its own gates: token after token", lambda facts: bool(facts.recurrence.sequential), is_lowered=False, priority=30
)
