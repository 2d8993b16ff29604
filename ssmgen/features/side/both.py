"""Some reads contract the key axis and some the value axis."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """Reads on both sides, or the whole state read beside a contraction."""
    sides = {r.side for r in facts.reads}
    if "value" in sides:
        return len(sides) > 1
    return "whole" in sides and not facts.is_read_whole and any(w.key is not None for w in facts.writes)


FEATURE = Feature(
    "the state is read on both sides, or whole", matches, is_lowered=False, priority=20, evidence=lambda f: f.reads[-1], in_scan=True
)
