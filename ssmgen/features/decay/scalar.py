"""S' = a_t S + ...  One factor per head and token: from j to i the state keeps exp(G_i - G_j), G the running sum of log a.

The difference is masked before it is exponentiated, so a gate as strong as exp(-50) a token neither overflows nor makes
a NaN of inf * 0.
"""

from ...kernel import AsSource, Causal, Contract, Exp, Minus, Sight, Step, Tile, Times
from .._base import Feature
from .._facts import Facts
from ._recall import through
from ._sight import sight_text


def matches(facts: Facts) -> bool:
    """Scalar terms only (turned, perhaps: a rotation commutes with a scalar)."""
    return bool(facts.decay_terms) and all(facts.only_turns(t) for t in facts.decay_terms)


FEATURE = Feature("one factor per head and token", matches, is_lowered=True, priority=20, evidence=lambda f: f.decay_terms[0])


IS_WIDE = False
"""One log decay a row."""


def pair(target: Tile, left: Tile, right: Tile, later: Tile, earlier: Tile, sight: Sight) -> list[Step]:
    """exp(G_i - G_j) (q_i . k_j): the decay is one number, so it comes out of the product."""
    row, name = left.axes[0], later.name[1:]
    weights, products = Tile(f"M{name}", target.axes), Tile(f"P{target.name}", target.axes)
    exponent = Causal(Minus(later, AsSource(earlier)), sight, "-inf")
    seen = sight_text(sight, row)
    return [
        Step(f"M{name}_{row}j = exp({later.name}_{row} - {earlier.name}_j), {seen}", weights, Exp(exponent)),
        Step(f"P{target.name}_{row}j = {left.name}_{row} . {right.name}_j", products, Contract(left, AsSource(right), target.axes)),
        Step(f"{target.name}_{row}j = M{name}_{row}j P{target.name}_{row}j", target, Times(weights, products)),
    ]


recall = through(pair)
"""sum_j of what `pair` gives for u_i and w_j, times k_j."""
