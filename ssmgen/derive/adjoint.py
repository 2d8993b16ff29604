"""The adjoint recurrence, term by term: the gradient of a sum of products of matrices is a sum of products of matrices.

With S' = c L S R + ... and dS' the gradient with respect to S' (inner product <A, B> = sum of A * B):

    dS   = c L^T dS' R^T                   what is handed to the previous token
    dF   = c P^T dS' Q^T                   for a factor F with c L S R = c P F Q; a diagonal takes the diagonal of it
    dc   = <dS', L S R>
    S'  += q dr^T,  dq = S' dr             for a read r = S'^T q

Over the complex numbers every transpose and factor on the right of `=` is conjugate, and a real factor takes the real part.
Gradients are expressions over the factors, the states before the step, and `Ref`s named `d<state>`, `d<read>`, and `S~` for
a state together with the taps that enter before the transitions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import algebra
from ..delays import previous
from ..expressions import constant, key, nodes, uses_index
from ..identities.micro_step import weighted
from ..recurrence import MicroStep, Read, Transition, Write
from ..source import NOWHERE
from ..spec import ONE, Apply, Delayed, Dim, Element, Expr, Recurrence, Ref, Rot, State, StateRef, SumOver, Type
from .chains import Factor, product_expr
from .terms import transition_factors


@dataclass(frozen=True)
class StepAdjoint:
    """One micro-step backwards: gradients of the states before it (over `d<state>` after it), and of its factors."""

    states: tuple[tuple[str, Expr], ...]
    factors: tuple[tuple[Expr, Expr], ...]  # factor, its gradient
    delayed: tuple[tuple[Expr, Expr], ...]  # the same for writes of tap 1, over `Delayed` factors; `Delayed(d<state>)` is before the step


@dataclass(frozen=True)
class ReadAdjoint:
    """A read backwards: what it adds to the gradient of the state it reads, and the gradient of its query."""

    read: Read
    state: Expr  # summed over the rows of the read
    query: Expr | None


@dataclass(frozen=True)
class Adjoint:
    """A token backwards: reads of S', then the micro-steps from the last to the first, then reads of S."""

    reads: tuple[ReadAdjoint, ...]
    steps: tuple[StepAdjoint, ...]


def gradient_of_state(state: State) -> Ref:
    """The name of the gradient with respect to a state."""
    return Ref(state.type, NOWHERE, f"d{state.name}")


def gradient_of_read(read: Read, spec: Recurrence) -> Expr:
    """The name of the gradient with respect to a read; a row of it for a read inside a sum or an output over ranks."""
    source = spec.state(read.state).type
    if read.side == "whole":
        type = source
    elif read.side == "value":
        type = Type(source.rows, field=source.field)
    else:
        type = Type(source.cols, field=source.field)
    over = index_of_read(read, spec)
    if over is None:
        return Ref(type, NOWHERE, f"d{read.name}")
    rows = Type(over[1], type.rows, type.field)
    return Element(type, NOWHERE, Ref(rows, NOWHERE, f"d{read.name}"), over[0])


def index_of_read(read: Read, spec: Recurrence) -> tuple[str, Dim] | None:
    """The index (and its count) over which the outputs take a read; None for a single read."""
    ranges = {o.index: o.count for o in spec.outputs if o.index is not None}
    for output in spec.outputs:
        ranges |= {node.index: node.count for node in nodes(output.value) if isinstance(node, SumOver)}
    return next(((index, count) for index, count in ranges.items() if read.query is not None and uses_index(read.query, index)), None)


def adjoint(spec: Recurrence, steps: tuple[MicroStep, ...], reads: tuple[Read, ...]) -> Adjoint:
    """The adjoint of a derived recurrence."""
    return Adjoint(tuple(_read(read, spec) for read in reads), tuple(_step(step, spec) for step in steps))


def _read(read: Read, spec: Recurrence) -> ReadAdjoint:
    state = spec.state(read.state)
    gradient = gradient_of_read(read, spec)
    value = StateRef(state.type, NOWHERE, read.state, read.primed)
    over = index_of_read(read, spec)

    def summed(expr: Expr) -> Expr:
        return expr if over is None else algebra.sum_over(*over, expr)

    if read.query is None:
        return ReadAdjoint(read, gradient, None)
    if read.side == "value":
        return ReadAdjoint(read, summed(_outer(gradient, _conj(read.query))), algebra.matmul(_adjoint(value), gradient))
    return ReadAdjoint(read, summed(_outer(_conj(read.query), gradient)), algebra.matmul(_conj(value), gradient))


def _outer(column: Expr, row: Expr) -> Expr:
    return algebra.matmul(column, algebra.transpose(row))


def _step(step: MicroStep, spec: Recurrence) -> StepAdjoint:
    states: dict[str, list[Expr]] = {state.name: [] for state in spec.states}
    factors: dict[str, tuple[Expr, list[Expr]]] = {}
    delayed: dict[str, tuple[Expr, list[Expr]]] = {}

    def give(into: dict[str, tuple[Expr, list[Expr]]], term: Transition | Write, factor: Expr, gradient: Expr) -> None:
        if constant(factor) is not None:
            return
        if term.index is not None and not uses_index(factor, term.index):
            gradient = algebra.sum_over(term.index, term.rank, gradient)
        if factor.type.field == "real":
            gradient = algebra.apply("Re", gradient)
        into.setdefault(key(factor), (factor, []))[1].append(gradient)

    tapped = {write.target for write in step.writes if write.tap == 1}
    for term in step.transitions:
        gradient = gradient_of_state(spec.state(term.target))
        chain = transition_factors(term, spec.state(term.source))
        value: Expr = chain[next(i for i, f in enumerate(chain) if f.kind == "state")].expr
        if term.source in tapped:
            value = Ref(value.type, NOWHERE, f"{term.source}~")
        coefficient = term.coefficient
        cut = next((i for i, f in enumerate(chain) if f.kind == "part"), None)
        if cut is not None:
            # a real number reaches what a real part was taken of
            reached = algebra.apply("Re", algebra.mul(_conj(coefficient), algebra.matmul(_adjoint(product_expr(chain[:cut])), gradient)))
            row = chain[cut].expr
            give(factors, term, row, algebra.mul(reached, _conj(product_expr(chain[cut + 1 :], value))))
            for position, factor in enumerate(chain[:cut]):
                before, behind = product_expr(chain[:position], value), product_expr(chain[position + 1 :], value)
                pulled = gradient if before is None else algebra.matmul(_adjoint(before), gradient)
                give(factors, term, *_of_factor(factor, coefficient, pulled, behind))
            give(factors, term, coefficient, _inner(gradient, product_expr(chain, value)))
            gradient, coefficient, chain = algebra.mul(reached, _conj(row)), algebra.UNIT, chain[cut + 1 :]
        for position, factor in enumerate(chain):
            before, behind = product_expr(chain[:position], value), product_expr(chain[position + 1 :], value)
            # P^T dS', with the factor itself and Q still to meet
            pulled = gradient if before is None else algebra.matmul(_adjoint(before), gradient)
            if factor.kind != "state":
                if factor.kind == "diagonal" and behind is None:
                    # the diagonal of P^T dS': the sums of the columns of P * dS'
                    found = _rows(algebra.transpose(algebra.mul(_conj(before), gradient)))
                    give(factors, term, factor.expr, algebra.mul(_conj(coefficient), found))
                    continue
                give(factors, term, *_of_factor(factor, coefficient, pulled, behind))
                continue
            whole = _times_transposed(pulled, behind)
            own = algebra.mul(_conj(coefficient), whole if factor.weight is None else algebra.mul(_conj(factor.weight), whole))
            states[term.source].append(algebra.sum_over(term.index, term.rank, own) if term.index else own)
            if factor.weight is not None:
                give(factors, term, factor.weight, algebra.mul(_conj(coefficient), algebra.mul(whole, _conj(value))))
        give(factors, term, coefficient, _inner(gradient, product_expr(chain, value)))
    for write in step.writes:
        gradient = gradient_of_state(spec.state(write.target))
        if write.tap == 1:
            gradient = Delayed(gradient.type, NOWHERE, gradient.name)
            older = {name: previous(getattr(write, name), spec.symbols) for name in ("key", "value", "weight")}
            write = replace(write, **older)
        for factor, found in _of_write(write, gradient):
            give(delayed if write.tap == 1 else factors, write, factor, found)

    return StepAdjoint(
        tuple((name, algebra.add(*parts)) for name, parts in states.items() if parts),
        tuple((factor, algebra.add(*parts)) for factor, parts in factors.values()),
        tuple((factor, algebra.add(*parts)) for factor, parts in delayed.values()),
    )


def _times_transposed(left: Expr, right: Expr | None) -> Expr:
    return left if right is None else algebra.matmul(left, _adjoint(right))


def _of_factor(factor: Factor, coefficient: Expr, pulled: Expr, behind: Expr | None) -> tuple[Expr, Expr]:
    """A factor's expression and `c (P^T dS') Q^T`, reduced to the factor's shape; `behind` is Q, None for the identity."""
    coefficient = _conj(coefficient)
    if factor.kind == "diagonal":
        return factor.expr, algebra.mul(coefficient, _rows(algebra.mul(pulled, _conj(behind))))
    if factor.kind == "rotation":
        angle = factor.expr.operand
        # d rot(x) / dx = rot(pi/2) rot(x), pair by pair
        quarter = Rot(factor.expr.type, NOWHERE, algebra.div(algebra.apply("pi"), algebra.const(2)))
        slope = algebra.matmul(quarter, factor.expr if behind is None else algebra.matmul(factor.expr, behind))
        return angle, algebra.mul(coefficient, Apply(angle.type, NOWHERE, "pair_sum", (algebra.mul(pulled, slope),)))
    whole = _times_transposed(pulled, behind)
    return factor.expr, algebra.mul(coefficient, algebra.transpose(whole) if factor.kind == "row" else whole)


def _rows(matrix: Expr) -> Expr:
    """The sum of each row."""
    if matrix.type.cols == ONE:
        return matrix
    return Apply(Type(matrix.type.rows, field=matrix.type.field), NOWHERE, "row_sum", (matrix,))


def _inner(left: Expr, right: Expr) -> Expr:
    """`<left, right>`: the sum of all entries of `left * conj(right)`."""
    if left.type.is_scalar:
        return algebra.mul(left, _conj(right))
    if left.type.is_column:
        return algebra.matmul(_adjoint(right), left)
    return Apply(Type(field=left.type.field), NOWHERE, "sum", (algebra.mul(left, _conj(right)),))


def _adjoint(expr: Expr) -> Expr:
    return algebra.transpose(expr, conjugate=True)


def _conj(expr: Expr) -> Expr:
    return algebra.apply("conj", expr)


def _of_write(write: Write, gradient: Expr) -> list[tuple[Expr, Expr]]:
    c, k, v = write.coefficient, write.key, write.value
    if write.weight is not None:
        outer, met = weighted(algebra.const(1, write.weight.type), k, v), algebra.mul(_conj(write.weight), gradient)
        found = [
            (c, _inner(gradient, weighted(write.weight, k, v))),
            (write.weight, algebra.mul(_conj(c), algebra.mul(gradient, _conj(outer)))),
        ]
        if k is not None:
            found.append((k, algebra.mul(_conj(c), _rows(met) if v is None else algebra.matmul(met, _conj(v)))))
        if v is not None:
            turned = algebra.transpose(met)
            found.append((v, algebra.mul(_conj(c), _rows(turned) if k is None else algebra.matmul(turned, _conj(k)))))
        return found
    if k is None:
        return [(c, gradient)]
    if v is None:
        return [(k, algebra.mul(_conj(c), gradient)), (c, algebra.matmul(_adjoint(k), gradient))]
    read = algebra.matmul(gradient, _conj(v))
    return [
        (k, algebra.mul(_conj(c), read)),
        (v, algebra.mul(_conj(c), algebra.matmul(algebra.transpose(gradient), _conj(k)))),
        (c, algebra.matmul(_adjoint(k), read)),
    ]
