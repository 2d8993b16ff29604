"""Every entry of the state runs by itself, s' = a s + b: a scan over time.

A state of a channel has no second axis, and a factor for every entry, of the state or of what is written, leaves no matrix product.
What fades or is corrected along both axes of a state is met inside a chunk along one alone; a chunk keeps no whole matrices of its
tokens; and it fades by sums of logarithms, which factors of any sign do not have: the chunk form has none of these. Nor has it a
matrix that takes the whole of a column. States that feed each other, but not as one walk carries them, are scanned together, entry by
entry. Terms of rank one and whole matrices may stand beside the factors: entries then read each
other, and tokens are walked one after the other.
"""

from ... import algebra
from ...expressions import is_full_product, nodes
from ...logarithm import log_of
from ...recurrence import MicroStep
from ...spec import Ref, State
from .._base import Feature
from .._facts import Facts
from ..side.whole import whole


def matches(facts: Facts) -> bool:
    """A state of a channel, a factor of its own for every entry, a term that reads a part, or fading and reading that no chunk has."""
    if any(facts.recurrence.spec.state(s).per == "channel" for s in facts.states):
        return True
    if facts.coupling_terms:
        return bool(facts.obstacle)
    kinds = {*facts.kinds("left"), *facts.kinds("right")}
    if "rotation" not in kinds and any(_is_complex(facts.recurrence.spec.state(s)) for s in facts.states):
        return True
    if kinds & {"elementwise", "part", "dense"} or any(w.weight is not None for w in facts.writes):
        return True
    if kinds - {"diagonal", "rank_one"}:
        return False
    if facts.kinds("left") and facts.kinds("right"):
        return True
    if "rank_one" in kinds:
        return False
    if whole(facts) or _is_taken_by_matrix(facts):
        return True
    return not _has_logarithms(facts)


def _is_complex(state: State) -> bool:
    """Whether entries are complex numbers, and no pairs of real ones that turn."""
    return state.type.field == "complex" and state.rotating_rows is None


def _is_taken_by_matrix(facts: Facts) -> bool:
    """A matrix times the whole of a column: what it takes is a read as wide as the state, and no query."""
    columns = {r.name for r in facts.reads if r.side == "whole"}
    for _, value in facts.recurrence.outputs:
        for product in (n for n in nodes(value) if is_full_product(n)):
            if any(isinstance(n, Ref) and n.name in columns for n in nodes(product)):
                return True
    return False


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
    return not factors or log_of(algebra.add(*factors), facts.recurrence) is not None


FEATURE = Feature("every entry has a factor of its own: a scan over time", matches, is_lowered=True, priority=10)
