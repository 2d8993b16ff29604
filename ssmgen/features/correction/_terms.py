"""How rank-one terms relate to the decay they stand beside."""

from ...recurrence import Transition
from .._facts import Facts


def rank_one(term: Transition):
    """The rank-one generator of a term."""
    return next(g for g in term.left + term.right if g.kind in ("rank_one", "part"))


def erases_what_it_writes(facts: Facts) -> bool:
    """Every rank-one term has the direction of a write key: the error of a prediction is corrected."""
    keys = [w.key for w in facts.writes] + [w.value for w in facts.writes]
    return all(rank_one(t).column in keys or rank_one(t).row in keys for t in facts.correction_terms)
