"""S' = (D + b a^T) S + k v^T: a rank-one term with directions of its own beside the decay."""

from .._base import Feature

FEATURE = Feature(
    "a low-rank term beside the decay",
    lambda facts: bool(facts.correction_terms),
    is_lowered=True,
    in_scan=True,
    priority=10,
    evidence=lambda f: f.correction_terms[0],
)
