"""The output is linear in the state."""

from .._base import Feature

FEATURE = Feature("the output is linear in the state", lambda facts: True, is_lowered=True)
