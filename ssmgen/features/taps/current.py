"""Only the current token writes."""

from .._base import Feature

FEATURE = Feature("only the current token writes", lambda facts: True, is_lowered=True)
