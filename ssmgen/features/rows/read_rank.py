"""Several rows of output a token, `y[r] = S'^T q[r]`."""

from .._base import Feature
from .._facts import Facts


def law(facts: Facts) -> tuple[str, str] | None:
    """Why no scan has rows of output."""
    return (
        "a scan gives one output a token; several rows of it are carried by chunks",
        "give one row, or sum over them, `o = sum_r ...`",
    )


FEATURE = Feature(
    "several reads a token, one a row of the output",
    lambda facts: any(o.index for o in facts.recurrence.spec.outputs),
    is_lowered=True,
    in_scan=False,
    law=law,
    priority=30,
    evidence=lambda f: f.recurrence.spec.outputs[0],
)
