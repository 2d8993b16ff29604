"""One write a token."""

from .._base import Feature

FEATURE = Feature("one write a token", lambda facts: True, is_lowered=True)
