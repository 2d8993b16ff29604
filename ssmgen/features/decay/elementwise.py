"""S' = W_t * S + ...  Every entry of the state forgets at its own rate: a scan over time, no matrix-product form."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """An elementwise factor in some term."""
    return any("elementwise" in (g.kind for g in t.left + t.right) for t in facts.transitions)


def law(facts: Facts) -> tuple[str, str] | None:
    """A correction reads whole columns, which entries that fade apart do not keep."""
    if not facts.correction_terms:
        return None
    return (
        "a correction reads the state along its keys, and a factor per entry fades every column differently: no chunk form has both",
        "let the decay depend on the key alone, `diag(w) S`, or drop the correction",
    )


FEATURE = Feature(
    "one factor per state entry and token",
    matches,
    is_lowered=False,
    priority=60,
    evidence=lambda f: f.transitions[0],
    law=law,
    in_scan=True,
)
