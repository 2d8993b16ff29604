"""Several states that feed each other linearly, as a memory and its momentum."""

from .._base import Feature

FEATURE = Feature(
    "states that feed each other",
    lambda facts: bool(facts.coupling_terms),
    is_lowered=False,
    priority=10,
    evidence=lambda f: f.coupling_terms[0],
)
