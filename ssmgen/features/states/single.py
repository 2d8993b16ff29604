"""One state, or several that share one transition and one key: they are columns of one state."""

from .._base import Feature

FEATURE = Feature("one state (states that share transition and key are its columns)", lambda facts: True, is_lowered=True)
