"""S' = 0 S + ...  Nothing of the old state survives by itself (what there is comes from other terms)."""

from .._base import Feature
from .._facts import Facts


def matches(facts: Facts) -> bool:
    """No term carries the state over."""
    return True


def law(facts: Facts) -> tuple[str, str]:
    """Of a token alone there is nothing to carry."""
    name = facts.states[0]
    return (
        "a state that is made of its own token alone carries nothing from token to token",
        f"keep a part of it, as in `{name}' = a * {name} + k v^T` with `a : scalar in (0, 1)`, or write its value where it is read",
    )


FEATURE = Feature(
    "the old state is dropped at every token",
    matches,
    is_lowered=False,
    priority=0,
    in_scan=True,
    evidence=lambda f: next(iter(f.writes), None),
    law=law,
)
