"""The transition does not turn the state (a rotation of q and k by position is part of the operands)."""

from .._base import Feature

FEATURE = Feature("the transition does not rotate", lambda facts: True, is_lowered=True)
