"""No rank-one term: what was written only fades."""

from .._base import Feature

FEATURE = Feature("nothing is erased but by decay", lambda facts: True, is_lowered=True)
