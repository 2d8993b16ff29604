"""Running maxima, `m' = max(g + m, i)`, taken out of a spec: the other states see them as values of the token.

Such a state is linear in the algebra of maximum and sum. Where other equations read it, it stabilises exponentials: with
exp(g + m - m') and exp(i - m') in the place of exp(g) and exp(i), no factor exceeds 1.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..expressions import nodes, reads_state
from ..recurrence import Maximum
from ..spec import Add, Apply, Assignment, Dynamics, Expr, MicroLoop, Recurrence, Ref, StateRef, Symbol


def without_maxima(spec: Recurrence) -> tuple[Recurrence, tuple[Maximum, ...]]:
    """The spec with every running maximum an input of two values a token, and what those maxima are; as it is without them."""
    once = [item for item in spec.update if isinstance(item, Assignment)]
    again = [a.state for item in spec.update for a in (item.body if isinstance(item, MicroLoop) else (item,))]
    maxima = tuple(m for item in once if again.count(item.state) == 1 and (m := _maximum(item)) is not None)
    names = {m.state for m in maxima}
    rest = tuple(s for s in spec.states if s.name not in names)
    if not maxima or not rest:
        return spec, ()

    def named(node: Expr) -> Expr | None:
        if isinstance(node, StateRef) and node.name in names:
            return Ref(node.type, node.span, f"{node.name}'" if node.primed else node.name)
        return None

    def outside(item: Assignment | MicroLoop):
        if isinstance(item, MicroLoop):
            return replace(item, body=tuple(outside(a) for a in item.body))
        return replace(item, value=algebra.rewrite(item.value, named))

    states = [s for s in spec.states if s.name in names]
    values = [Symbol(name, "input", s.type, s.per, s.span) for s in states for name in (s.name, f"{s.name}'")]
    inner = replace(
        spec,
        symbols=(*spec.symbols, *values),
        states=rest,
        update=tuple(outside(item) for item in spec.update if not isinstance(item, Assignment) or item.state not in names),
        outputs=tuple(replace(o, value=algebra.rewrite(o.value, named)) for o in spec.outputs),
    )
    return inner, maxima


def _maximum(item: Assignment | Dynamics) -> Maximum | None:
    """The running maximum that an equation is: of the state itself, moved by a value of the token, and of such a value."""
    value = item.value
    if not (isinstance(value, Apply) and value.function == "max" and len(value.args) == 2):
        return None
    own = [arg for arg in value.args if reads_state(arg)]
    if len(own) != 1:
        return None
    (carried,), (other,) = own, [arg for arg in value.args if arg is not own[0]]
    terms = carried.terms if isinstance(carried, Add) else (carried,)
    moved = [t for t in terms if not reads_state(t)]
    if len(moved) != len(terms) - 1 or not all(_is_itself(t, item.state) for t in terms if t not in moved):
        return None
    if any(n.type.field != "real" for n in nodes(value)):
        return None
    return Maximum(item.state, algebra.add(*moved) if moved else None, other)


def _is_itself(expr: Expr, state: str) -> bool:
    return isinstance(expr, StateRef) and expr.name == state and not expr.primed
