"""Outputs as functions of reads: every linear form of a state gets a name, the rest of the expression stays as written."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import algebra
from ..diagnostics import Report
from ..expressions import children, key
from ..recurrence import MicroStep, Read
from ..small import all_nodes
from ..source import Span
from ..spec import Expr, Recurrence, Ref, SumOver, Type
from .chains import Chain, Factor, Polynomial, Refusal, chain_expr, product_expr, times, transpose, transpose_factor
from .expand import Expander


@dataclass
class _Reads:
    """The reads found so far, each once."""

    spec: Recurrence
    expander: Expander
    found: list[Read] = field(default_factory=list)

    def name_of(self, state: str, primed: bool, query: Expr | None, side: str, span: Span) -> str:
        for read in self.found:
            if (read.state, read.primed, read.side) == (state, primed, side) and _same(read.query, query):
                return read.name
        name = f"_r{len(self.found)}"
        while name in self.expander.symbols:
            name = f"_{name}"
        self.found.append(Read(name, state, primed, query, side, span))
        return name


def _same(left: Expr | None, right: Expr | None) -> bool:
    if left is None or right is None:
        return left is right
    return key(left) == key(right)


def read_outputs(spec: Recurrence) -> tuple[tuple[Read, ...], tuple[tuple[str, Expr], ...]]:
    """The reads and the outputs over them. An output may be any function of reads."""
    reads = _Reads(spec, Expander({s.name: s for s in spec.symbols}))
    outputs = tuple((output.name, _replace(output.value, reads)) for output in spec.outputs)
    return tuple(reads.found), outputs


def _replace(expr: Expr, reads: _Reads) -> Expr:
    """`expr` with its linear forms of states replaced by names; where it is not linear, its operands are."""
    if not reads.expander.reads_state(expr):
        return expr
    if isinstance(expr, SumOver):
        # the read inside depends on the index: the sum stays around it
        return algebra.rebuild(expr, (_replace(expr.body, reads),))
    if isinstance(expr, Ref):
        return _replace(reads.expander.symbols[expr.name].definition, reads)
    try:
        polynomial = reads.expander.expand(expr)
    except Refusal:
        polynomial = None
    if polynomial is not None and all(item.index is None for item in polynomial):
        return _from_polynomial(polynomial, expr, reads)
    return algebra.rebuild(expr, tuple(_replace(operand, reads) for operand in children(expr)))


def _from_polynomial(polynomial: Polynomial, expr: Expr, reads: _Reads) -> Expr:
    terms = []
    for item in polynomial:
        value = chain_expr(item) if item.state is None else _read(item, reads)
        terms.append(value)
    if not terms:
        return algebra.const(0, expr.type, expr.span)
    total = algebra.add(*terms, span=expr.span)
    return total if total.type == expr.type or not total.type.is_scalar else algebra.mul(algebra.const(1, expr.type), total)


def _read(item: Chain, reads: _Reads) -> Expr:
    """One chain around a state as `coefficient * (expression of a read)`."""
    state = item.factors[item.place]
    if state.transposed:
        # read the upright state, then turn the result
        upright = _read(transpose(item), reads)
        return algebra.transpose(upright, span=item.span)
    if state.conjugated:
        flipped = transpose(transpose(item), conjugate=True)
        return algebra.apply("conj", _read(flipped, reads), span=item.span)
    source = reads.spec.state(state.expr.name).type
    value = _linear_form(item, state, source, reads)
    return algebra.mul(item.coefficient, value, span=item.span)


def _linear_form(item: Chain, state: Factor, source: Type, reads: _Reads) -> Expr:
    ref, left, right = state.expr, item.left, item.right

    def named(query: Expr | None, side: str, type: Type) -> Expr:
        return Ref(type, item.span, reads.name_of(ref.name, ref.primed, query, side, item.span))

    row_at = next((i for i, f in enumerate(left) if f.kind == "row"), None)
    if state.weight is None and row_at is not None and not source.is_scalar:
        # ... q^T M S ...: the query is M^T q, what stands around it stays in the output
        scale, query = _query(left[row_at].expr, left[row_at + 1 :])
        if source.is_column:
            return _around(left[:row_at], algebra.mul(scale, named(query, "key", Type(field=source.field))), right)
        value = named(query, "key", Type(source.cols, field=source.field))
        return _around(left[:row_at], algebra.mul(scale, algebra.transpose(value)), right)
    column_at = next((i for i, f in enumerate(right) if f.kind == "column"), None)
    if state.weight is None and column_at is not None:
        # S M u ...: the query is M u
        query = right[column_at].expr
        for matrix in reversed(right[:column_at]):
            query = times(matrix, query)
        value = named(query, "value", Type(source.rows, field=source.field))
        return _around(left, value, right[column_at + 1 :])
    whole = named(None, "whole", source)
    if state.weight is not None:
        whole = algebra.mul(state.weight, whole)
    return _around(left, whole, right)


def _query(row: Expr, matrices: tuple[Factor, ...]) -> tuple[Expr, Expr]:
    """`row^T M_1 M_2 ...` as `scale * query^T`."""
    scale: Expr = algebra.UNIT
    for matrix in matrices:
        sign, flipped = transpose_factor(matrix)
        row = algebra.mul(sign, times(flipped, row))
    scale, row = algebra.split_scalar(row)
    return scale, row


def _around(left: tuple[Factor, ...], value: Expr, right: tuple[Factor, ...]) -> Expr:
    before, after = product_expr(left), product_expr(right)
    value = value if before is None else algebra.matmul(before, value)
    return value if after is None else algebra.matmul(value, after)


def warn_unread(spec: Recurrence, whole: Recurrence, steps: tuple[MicroStep, ...], reads: tuple[Read, ...], report: Report) -> None:
    """Warn about states of `whole` that no output depends on, directly or through other states; to `spec`, its running maxima
    are values of the token."""
    used = {read.state: None for read in reads}
    used |= {n.name.removesuffix("'"): None for n in all_nodes(spec) if isinstance(n, Ref)}
    grown = True
    while grown:
        sources = [t.source for step in steps for t in step.transitions if t.target in used and t.source not in used]
        used.update(dict.fromkeys(sources))
        grown = bool(sources)
    for state in whole.states:
        if state.name not in used:
            report.warning(
                "unread-state",
                f"`{state.name}` is never read",
                state.span,
                "no output depends on this state",
                note="a state costs memory and time for every token",
                help=f"read it in the output, as in `{state.name}'^T q`, or remove it",
            )
