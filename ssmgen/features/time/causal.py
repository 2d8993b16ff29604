"""From the first token to the last; packed documents each start from a state of their own."""

from .._base import Feature

FEATURE = Feature("first token to last", lambda facts: True, is_lowered=True)
