"""The whole matrix enters the output: no query contracts it."""

from .._base import Feature
from .._facts import Facts


def whole(facts: Facts):
    """The reads of whole matrices."""
    types = {r.name: facts.recurrence.spec.state(r.state).type for r in facts.reads}
    return [r for r in facts.reads if r.side == "whole" and not (types[r.name].is_column or types[r.name].is_scalar)]


FEATURE = Feature(
    "the state is read whole",
    lambda facts: bool(whole(facts)),
    is_lowered=False,
    in_scan=True,
    priority=30,
    evidence=lambda f: whole(f)[0],
    law=lambda f: (
        (
            "a chunk keeps what its tokens write, not the matrices that they leave: N P numbers a token would have to be stored",
            "contract the state with a query, `S'^T q` or `S' u`",
        )
        if whole(f)
        else None
    ),
)
