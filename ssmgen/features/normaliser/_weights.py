"""A normaliser is a state that stores the weights themselves: it is written with the constant 1 as its value."""

from .._facts import Facts


def has_weight_state(facts: Facts) -> bool:
    """A state of the group whose write has no value, beside one that has."""
    writes = [w for step in facts.recurrence.steps for w in step.writes if w.target in facts.states]
    return any(w.value is None for w in writes) and any(w.value is not None for w in writes)
