"""Every entry of the state runs by itself, s' = a s + b: a scan over time.

A state of a channel has no second axis, and a factor for every entry leaves no matrix product. What fades along both axes of a
state is met inside a chunk along one alone; a chunk keeps no whole matrices of its tokens; and it fades by sums of logarithms,
which factors of any sign do not have: the chunk form has none of these.
"""

from ... import algebra
from ...recurrence import MicroStep
from .._base import Feature
from .._facts import Facts
from ..side.whole import whole


def matches(facts: Facts) -> bool:
    """A state of a channel, a factor of its own for every entry, a term that reads a part, or fading and reading that no chunk has."""
    if any(facts.recurrence.spec.state(s).per == "channel" for s in facts.states):
        return True
    kinds = {*facts.kinds("left"), *facts.kinds("right")}
    if kinds & {"elementwise", "part"}:
        return True
    if kinds - {"diagonal"} or facts.coupling_terms:
        return False
    if whole(facts) or (facts.kinds("left") and facts.kinds("right")):
        return True
    return (_fades_beside(facts) or _is_read_across(facts)) and not _has_logarithms(facts)


def _fades_beside(facts: Facts) -> bool:
    """Diagonals on an axis that queries do not contract."""
    is_value = bool(facts.reads) and all(r.side == "value" for r in facts.reads)
    is_entire = bool(facts.reads) and all(r.side == "whole" for r in facts.reads)
    return bool(facts.kinds("left")) if is_value or is_entire else bool(facts.kinds("right"))


def _is_read_across(facts: Facts) -> bool:
    """Reads along both axes."""
    sides = {r.side for r in facts.reads}
    return "value" in sides and len(sides) > 1


def _has_logarithms(facts: Facts) -> bool:
    """Whether what every step leaves of the state is positive for all that is known of it."""
    return all(_is_positive(facts, step) for step in facts.recurrence.steps)


def _is_positive(facts: Facts, step: MicroStep) -> bool:
    factors = []
    for term in (t for t in step.transitions if t in facts.transitions):
        factor = term.coefficient
        for generator in term.left + term.right:
            factor = algebra.mul(factor, generator.column)
        factors.append(factor)
    shape = next((f.type for f in factors if not f.type.is_scalar), None)
    if shape is not None:
        factors = [algebra.mul(f, algebra.const(1, shape)) if f.type.is_scalar else f for f in factors]
    return not factors or algebra.log_of(algebra.add(*factors), facts.recurrence) is not None


FEATURE = Feature("every entry runs by itself: a scan over time", matches, is_lowered=True, priority=10)
