"""S' = (I - beta k e^T) D S + beta k v^T: the state is corrected along the write key by the error it makes."""

from .._base import Feature
from .._facts import Facts
from ._terms import erases_what_it_writes


def matches(facts: Facts) -> bool:
    """Rank-one terms along the write key."""
    return bool(facts.correction_terms) and erases_what_it_writes(facts)


FEATURE = Feature(
    "a rank-one delta correction along the write key",
    matches,
    is_lowered=True,
    in_scan=True,
    priority=20,
    evidence=lambda f: f.correction_terms[0],
)
