"""Reads contract the key axis, q^T S."""

from .._base import Feature

FEATURE = Feature("queries contract the key axis", lambda facts: True, is_lowered=True)
