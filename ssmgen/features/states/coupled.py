"""Several states that feed each other linearly, as a memory and its momentum: members of one walk.

From j to i a member keeps, of what was written to another, the sum over all tokens between of what it kept of that member
until it took it over, and keeps of it since: the product of two matrices of pairs. Where a member has more than one number a head, or
takes over what leads back to it, a scan carries them: entry by entry, tokens multiply small matrices of factors, state by state.
"""

from .._base import Feature

FEATURE = Feature(
    "states that feed each other",
    lambda facts: bool(facts.coupling_terms),
    is_lowered=True,
    priority=10,
    evidence=lambda f: f.coupling_terms[0],
)
