"""The previous token's write enters again (two taps)."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A write with tap 1."""
    return any(w.tap == 1 for w in facts.writes)


FEATURE = Feature(
    "the previous token writes once more", matches, is_lowered=True, priority=10, evidence=lambda f: [w for w in f.writes if w.tap][0]
)
