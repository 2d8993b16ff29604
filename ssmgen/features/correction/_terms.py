"""How rank-one terms relate to the decay they stand beside."""

from ...recurrence import Transition
from .._facts import Facts


def rank_one(term: Transition):
    """The rank-one generator of a term."""
    return next(g for g in term.left + term.right if g.kind == "rank_one")


def erases_what_it_writes(facts: Facts) -> bool:
    """Every rank-one term has the direction of a write key: the error of a prediction is corrected."""
    keys = [w.key for w in facts.writes] + [w.value for w in facts.writes]
    return all(rank_one(t).column in keys or rank_one(t).row in keys for t in facts.correction_terms)


def scan_law(facts: Facts) -> tuple[str, str] | None:
    """Why no scan has a correction: it leads from one entry of the state to the others."""
    if any(facts.recurrence.spec.state(s).per == "channel" for s in facts.states):
        return (
            "a correction reads the state along a key and writes along one: it leads from entry to entry, and the entries of a "
            "channel's state run by themselves, s' = a s + b",
            "give the state to a head, `state S : real [N, P]`, or drop the correction",
        )
    if any(g.kind == "elementwise" for t in facts.transitions for g in t.left + t.right):
        return (
            "a correction reads the state along its keys, and a factor per entry fades every column differently: no chunk form has both",
            "let the decay depend on the key alone, `diag(w) S`, or drop the correction",
        )
    return None
