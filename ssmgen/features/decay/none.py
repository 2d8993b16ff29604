"""S' = S + ...  The state never forgets: weights inside a chunk are the plain products q_i . k_j for j up to i."""

from ...kernel import AsSource, Causal, Contract, Sight, Step, Tile
from .._base import Feature
from .._facts import Facts
from ._recall import through
from ._sight import sight_text


def matches(facts: Facts) -> bool:
    """Exactly one term a step, S itself (turned, perhaps)."""
    return facts.carries_over


FEATURE = Feature("the state does not decay", matches, is_lowered=True, priority=40)


IS_WIDE = False
"""There is no log decay."""


def pair(target: Tile, left: Tile, right: Tile, later: Tile, earlier: Tile, sight: Sight) -> list[Step]:
    """q_i . k_j, kept where j is visible to i."""
    row = left.axes[0]
    value = Causal(Contract(left, AsSource(right), target.axes), sight, "0")
    return [Step(f"{target.name}_{row}j = {left.name}_{row} . {right.name}_j, {sight_text(sight, row)}", target, value)]


recall = through(pair)
"""sum_j of what `pair` gives for u_i and w_j, times k_j."""
