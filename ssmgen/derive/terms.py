"""Chains as the terms of the recurrence form, and back."""

from __future__ import annotations

from .. import algebra
from ..expressions import constant
from ..recurrence import Generator, MicroStep, Transition, Write
from ..source import NOWHERE
from ..spec import Dim, Rot, State, StateRef, SumOver, Type
from .chains import Chain, Factor, Polynomial, Refusal, chain


def micro_step(values: dict[str, Polynomial], states: tuple[State, ...], index: str | None = None, count: Dim | None = None) -> MicroStep:
    """One affine map from the polynomials assigned to some states; the others keep their value.

    Raises Refusal for a term that is neither a transition nor a write.
    """
    transitions: list[Transition] = []
    writes: list[Write] = []
    for state in states:
        if state.name not in values:
            transitions.append(Transition(state.name, state.name, algebra.UNIT))
            continue
        for item in values[state.name]:
            if item.state is None:
                writes.append(write(item, state))
            else:
                transitions.append(transition(item, state))
    return MicroStep(tuple(transitions), tuple(writes), index, count)


def is_identity(step: MicroStep) -> bool:
    """Whether the micro-step changes nothing (`S' = S`, as a start for the micro-steps that follow)."""
    return not step.writes and all(
        t.source == t.target and constant(t.coefficient) == 1 and not t.left and not t.right for t in step.transitions
    )


def transition(item: Chain, target: State) -> Transition:
    """A chain around a state as a transition term."""
    state = item.factors[item.place]
    name = state.expr.name
    if state.transposed or state.conjugated:
        what = "conjugate" if state.conjugated else "transpose"
        raise Refusal(
            "state-transposed",
            f"the {what} of `{name}` enters the update of `{target.name}`",
            item.span,
            f"`{name}` stands {'conjugated' if state.conjugated else 'transposed'} here",
            note="a term of an update is `A S B`, with the state as it is",
            help=f"transpose the other factors instead: `k (k^T {name})` reads `{name}` by its rows, `({name} u) u^T` by its columns",
            states=(name,),
        )
    left = _generators(item.left)
    if state.weight is not None:
        left += (Generator("elementwise", state.weight),)
    index, rank = item.index or (None, None)
    return Transition(target.name, name, item.coefficient, left, _generators(item.right), index, rank, item.span)


def _generators(factors: tuple[Factor, ...]) -> tuple[Generator, ...]:
    found: list[Generator] = []
    rest = list(factors)
    while rest:
        factor = rest.pop(0)
        if factor.kind == "column" and rest and rest[0].kind == "row":
            found.append(Generator("rank_one", factor.expr, rest.pop(0).expr))
        elif factor.kind == "column" and rest and rest[0].kind == "part":
            found.append(Generator("part", factor.expr, rest.pop(0).expr))
        elif factor.kind == "diagonal":
            found.append(Generator("diagonal", factor.expr))
        elif factor.kind == "rotation":
            found.append(Generator("rotation", factor.expr.operand))
        elif factor.kind == "row":
            found.append(Generator("dense", algebra.transpose(factor.expr)))
        else:
            found.append(Generator("dense", factor.expr))
    return tuple(found)


def write(item: Chain, target: State) -> Write:
    """A token chain as a write. A vector state written a sum over ranks takes one row at a time, as a matrix state does."""
    if len(item.factors) == 1 and isinstance(item.factors[0].expr, SumOver) and item.index is None:
        total = item.factors[0].expr
        item = chain(item.coefficient, (Factor("column", total.body),), item.rows, item.cols, (total.index, total.count), item.span)
    key = value = weight = None
    kinds = tuple(f.kind for f in item.factors)
    if kinds in _WEIGHTED:
        place = kinds.index("dense")
        key, weight, value = (item.factors[i].expr if 0 <= i < len(kinds) else None for i in (place - 1, place, place + 1))
    elif kinds == ("column", "row"):
        key, value = (f.expr for f in item.factors)
    elif kinds == ("column",) and target.type.is_column:
        key = item.factors[0].expr
    elif not (kinds == () and target.type.is_scalar):
        raise Refusal(
            "write-without-key",
            f"`{target.name}` is written a product of full matrices",
            item.span,
            "neither an outer product `k v^T` nor one matrix `W`",
            note="a write is `coefficient * key value^T`, or a matrix whose entries a token brings",
            help="give the product as one matrix, or write outer products of columns: `sum r in 1..R: k[r] v[r]^T`",
            states=(target.name,),
        )
    index, rank = item.index or (None, None)
    return Write(target.name, item.coefficient, key, value, 0, index, rank, item.span, weight)


_WEIGHTED = (("diagonal", "dense", "diagonal"), ("diagonal", "dense"), ("dense", "diagonal"), ("dense",))
"""An outer product weighed entry by entry, `W * (k v^T) = diag(k) W diag(v)`; a matrix is one of ones."""


# --- back --------------------------------------------------------------------------------------------------------


def generator_factors(generator: Generator, rows: Dim) -> tuple[Factor, ...]:
    """A generator as factors of a chain; `rows` is the size it acts on."""
    match generator.kind:
        case "rank_one":
            return Factor("column", generator.column), Factor("row", generator.row)
        case "part":
            return Factor("column", generator.column), Factor("part", generator.row)
        case "diagonal":
            return (Factor("diagonal", generator.column),)
        case "rotation":
            return (Factor("rotation", Rot(Type(rows, rows), generator.column.span, generator.column)),)
    expr = generator.column
    if expr.type.is_column:
        return (Factor("column", expr),)
    if expr.type.is_row:
        return (Factor("row", algebra.transpose(expr)),)
    return (Factor("dense", expr),)


def transition_factors(term: Transition, source: State) -> tuple[Factor, ...]:
    """The chain of a transition, its state as the `StateRef` of `source`."""
    weights = [g.column for g in term.left if g.kind == "elementwise"]
    state = Factor("state", StateRef(source.type, NOWHERE, source.name, False), weight=weights[0] if weights else None)
    left = [f for g in term.left if g.kind != "elementwise" for f in generator_factors(g, source.type.rows)]
    right = [f for g in term.right for f in generator_factors(g, source.type.cols)]
    return (*left, state, *right)
