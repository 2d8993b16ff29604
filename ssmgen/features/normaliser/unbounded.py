"""A running sum with writes exp(i) of unbounded i, not relative to anything: the sums overflow where their quotient does not."""

from ...bounds import bounds_of
from ...expressions import factors
from ...spec import Apply, Expr, Ref
from .._base import Feature
from .._facts import Facts
from ._weights import has_weight_state


def matches(facts: Facts) -> bool:
    """A weight state, and a write coefficient with an exponential whose argument has no upper bound."""
    return has_weight_state(facts) and any(_is_unbounded(facts, w.coefficient) for w in facts.writes)


def _is_unbounded(facts: Facts, coefficient: Expr) -> bool:
    spec = facts.recurrence.spec
    definitions = dict(facts.recurrence.hoisted) | {s.name: s.definition for s in spec.symbols if s.definition is not None}
    for factor in factors(coefficient)[1]:
        while isinstance(factor, Ref) and factor.name in definitions:
            factor = definitions[factor.name]
        bounds = bounds_of(spec, facts.recurrence.nonpositive)
        if isinstance(factor, Apply) and factor.function == "exp" and bounds.of(factor).high == float("inf"):
            return True
    return False


def law(facts: Facts) -> tuple[str, str]:
    """Both sums must be divided by the same power before they are made."""
    return (
        "a write exp(i) of unbounded i overflows the sums, though not their quotient; relative to a running maximum m no factor exceeds 1",
        "keep the maximum as a state, `m' = max(log_f + m, i)`, write exp(log_f + m - m') for the decay and exp(i - m') for exp(i), "
        "and exp(-m') for a 1 in the normaliser",
    )


FEATURE = Feature(
    "a running sum of exponential weights that nothing bounds",
    matches,
    is_lowered=False,
    priority=15,
    evidence=lambda f: f.writes[0],
    law=law,
)
