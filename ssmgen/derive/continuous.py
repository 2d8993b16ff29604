"""The right side of `dS/dt = A S + B` as it is written, and what is said of one that is not affine."""

from __future__ import annotations

from .. import algebra
from ..spec import Dynamics, Expr, StateRef
from .chains import Refusal


def unprimed(dynamics: Dynamics) -> Expr:
    """The right side, with states as they are before the token."""

    def old(node: Expr) -> Expr | None:
        return StateRef(node.type, node.span, node.name, False) if isinstance(node, StateRef) and node.primed else None

    return algebra.rewrite(dynamics.value, old)


_IN_DYNAMICS = ("nonlinear-state", "state-inside-function", "two-states-multiplied")


def as_dynamics(refusal: Refusal) -> Refusal:
    """The same fact about continuous time, under its own slug."""
    if refusal.slug not in _IN_DYNAMICS:
        return refusal
    name = refusal.states[0]
    return Refusal(
        "dynamics-not-affine",
        f"the dynamics are not affine in `{name}`",
        refusal.span,
        refusal.label,
        note="a discretization steps `dS/dt = A S + B`, with A and B functions of the token",
        help="linearise: let the other factor depend on the token alone, or write the discrete update and `form sequential`",
        states=refusal.states,
    )
