"""A scan as equations of a specification again: what writes one token, and what a build shows and checks, read equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .. import algebra
from ..plan import ScanStep
from ..spec import Assignment, Delayed, Expr, Ref, StateRef
from ..spec import Recurrence as Spec


def equations_of(spec: Spec, steps: tuple[ScanStep, ...], outputs: tuple[tuple[str, Expr], ...], named: Mapping[str, str]) -> Spec:
    """The spec with the token's steps as its update, those before the last written into it, and the outputs over them, one a row.

    named: the state of the text that a state of the steps is a part of.
    """
    spans = {item.state: item.span for item in (*spec.dynamics, *spec.update) if hasattr(item, "state")}
    types = {step.state: step.value.type for step in steps}
    earlier: dict[str, Expr] = {}

    def written(node: Expr) -> Expr | None:
        if not isinstance(node, Ref):
            return None
        name = node.name.removesuffix("'")
        if name in types:
            return StateRef(node.type, node.span, name, node.name != name)
        if node.name.endswith("[-1]"):
            return Delayed(node.type, node.span, node.name.removesuffix("[-1]"))
        return earlier.get(node.name)

    for step in steps:
        earlier[step.name] = algebra.rewrite(step.value, written)
    span_of = {state: spans.get(named.get(state, state), spec.span) for state in types}
    update = tuple(Assignment(state, earlier.pop(f"{state}'"), span_of[state]) for state in types)
    rows = tuple(replace(spec.outputs[0], value=algebra.rewrite(value, written)) for _, value in outputs)
    return replace(spec, update=update, dynamics=(), discretization=None, outputs=rows)
