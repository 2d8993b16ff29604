"""Reads S, before the token's own write: strictly earlier sources, with the decay up to the previous token."""

from .._base import Feature

FEATURE = Feature(
    "reads before the token's own write (a bonus is a term of the output)",
    lambda facts: any(not r.primed for r in facts.reads),
    is_lowered=True,
    priority=10,
    evidence=lambda f: [r for r in f.reads if not r.primed][0],
)
