"""Reads S', after the token's own write."""

from .._base import Feature

FEATURE = Feature("reads after the token's own write", lambda facts: True, is_lowered=True)
