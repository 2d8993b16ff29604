"""As the running sum, with writes exp(i) of unbounded i: computed relative to a running maximum, which cancels."""

from ...expressions import nodes
from ...spec import Apply, Ref
from .._base import Feature
from .._facts import Facts
from ._weights import has_weight_state


def matches(facts: Facts) -> bool:
    """A weight state, and a write coefficient with an exponential whose argument has no upper bound."""
    return has_weight_state(facts) and any(_is_unbounded(facts, w.coefficient) for w in facts.writes)


def _is_unbounded(facts: Facts, coefficient) -> bool:
    high = {s.name: s.interval.high for s in facts.recurrence.spec.symbols}
    for node in nodes(coefficient):
        if isinstance(node, Apply) and node.function == "exp":
            if any(isinstance(n, Ref) and high.get(n.name) == float("inf") for n in nodes(node)):
                return True
    return False


FEATURE = Feature(
    "a running sum of exponential weights, relative to a running maximum",
    matches,
    is_lowered=False,
    priority=20,
    evidence=lambda f: f.writes[0],
)
