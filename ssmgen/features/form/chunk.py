"""Dense products inside chunks, the state carried from chunk to chunk."""

from .._base import Feature

FEATURE = Feature("dense products inside chunks, the state carried between them", lambda facts: True, is_lowered=True)
