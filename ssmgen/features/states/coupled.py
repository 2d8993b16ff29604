"""Several states that feed each other linearly, as a memory and its momentum: members of one walk.

From j to i a member keeps, of what was written to another, the sum over all tokens between of what it kept of that member
until it took it over, and keeps of it since: the product of two matrices of pairs.
"""

from .._base import Feature
from .._facts import Facts


def law(facts: Facts) -> tuple[str, str] | None:
    """Why no scan has states that feed each other."""
    if not facts.coupling_terms:
        return None
    return (
        "states that feed each other are carried by chunks; a scan runs every entry of a state by itself, s' = a s + b",
        "drop the term, or let every state be a matrix of a head that fades by one number, `state S : real [N, P]`",
    )


FEATURE = Feature(
    "states that feed each other",
    lambda facts: bool(facts.coupling_terms),
    is_lowered=True,
    in_scan=False,
    law=law,
    priority=10,
    evidence=lambda f: f.coupling_terms[0],
)
