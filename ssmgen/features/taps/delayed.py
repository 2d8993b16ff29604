"""An operand reads the previous token's value, x[-1], in a place that is not a second tap of the same write."""

from ...expressions import nodes
from ...spec import Delayed
from .._base import Feature
from .._facts import Facts


def delayed(facts: Facts):
    """The first delayed value among the factors of the current token; None when there is none."""
    spec = facts.recurrence.spec
    exprs = [w for write in facts.writes if write.tap == 0 for w in (write.coefficient, write.key, write.value)]
    exprs += [f for t in facts.transitions for f in (t.coefficient, *(c for g in t.left + t.right for c in (g.column, g.row)))]
    exprs += [r.query for r in facts.reads] + [value for _, value in facts.recurrence.outputs]
    exprs += [s.definition for s in spec.symbols]
    return next((n for e in exprs if e is not None for n in nodes(e) if isinstance(n, Delayed)), None)


FEATURE = Feature(
    "an operand reads the previous token's value", lambda facts: delayed(facts) is not None, is_lowered=True, priority=20, evidence=delayed
)
