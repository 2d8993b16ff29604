"""A discretization carries the previous token's write as a matrix of its own: its key and value are no names of the text."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """A write of the token before that the text does not write out."""
    return facts.recurrence.discrete is not None and any(w.tap == 1 for w in facts.writes)


FEATURE = Feature(
    "the discretization carries the previous write",
    matches,
    is_lowered=False,
    priority=30,
    evidence=lambda f: [w for w in f.writes if w.tap][0],
)
