"""Several rows of output a token, `y[r] = S'^T q[r]`."""

from .._base import Feature

FEATURE = Feature(
    "several reads a token, one a row of the output",
    lambda facts: any(o.index for o in facts.recurrence.spec.outputs),
    is_lowered=True,
    priority=30,
    evidence=lambda f: f.recurrence.spec.outputs[0],
)
