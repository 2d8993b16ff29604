"""terms of an update -> the rows of a token: what reads, erases and writes, in order, and by how much the state decays between.

Every transition term is a decay (diagonals alone) or of rank one (u e^T, whatever diagonals stand around it); a loop or a
sum is unrolled. A rank-one term and a write along the same key are one row, whose write is corrected by what it erases.
Erase keys read the state as it is before the decay: a correction that reads the decayed state has the decay in its key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from .. import algebra
from ..delays import previous
from ..diagnostics import Diagnostic, Label, Severity
from ..expressions import constant, key, nodes, uses_index
from ..features._facts import PURE, Facts
from ..logarithm import log_of
from ..plan import Row
from ..recurrence import Generator, Recurrence, Transition, Write
from ..source import Span
from ..spec import Element, Expr, Ref, SumOver

ONE = Fraction(1)


@dataclass(frozen=True)
class Problem:
    """Why there is no row form: the fault in one clause, where, the fact, the law, the edit."""

    title: str
    span: Span
    label: str
    note: str
    help: str
    slug: str = "unsupported-lowering"

    def diagnostic(self) -> Diagnostic:
        """The same as the checker says it."""
        return Diagnostic(self.slug, Severity.ERROR, self.title, Label(self.span, self.label), (), self.note, self.help)


@dataclass
class _Step:
    """One affine map: a decay (None: 1), the corrections (u, e) that read the state before it, and the writes."""

    decay: Expr | None
    corrections: list[tuple[Expr, Expr]]
    writes: list[tuple[Expr | None, list[tuple[Expr | None, Expr]]]]  # key, and for every state (value, coefficient)


def rows_of(facts: Facts, is_transposed: bool) -> tuple[tuple[Row, ...], int] | Problem:
    """(the rows of a token, how many act together)."""
    return _Rows(facts, is_transposed).rows()


def unrolled(expr: Expr | None, index: str | None, number: int, sizes: dict[str, int]) -> Expr | None:
    """`expr` with the loop index replaced by `number`, and every sum over rows written out."""
    if expr is None:
        return None

    def named(node: Expr) -> Expr | None:
        if isinstance(node, SumOver):
            count = int(node.count.value(sizes))
            return algebra.add(*(unrolled(unrolled(node.body, node.index, r, sizes), index, number, sizes) for r in range(1, count + 1)))
        if isinstance(node, Element) and node.index == index and index is not None:
            return replace(node, index=number)
        if isinstance(node, Ref) and node.name == index:
            return algebra.const(Fraction(number))
        return None

    return algebra.rewrite(expr, named)


def rows_of_write(write: Write, expr: Expr, sizes: dict[str, int]) -> list[Expr]:
    """A value made of what a write has, at every row of it."""
    count = 1 if write.rank is None else int(write.rank.value(sizes))
    return [unrolled(expr, write.index, r, sizes) for r in range(1, count + 1)]


def unrolled_reads(recurrence: Recurrence) -> Recurrence:
    """The recurrence with a read for every row that an output sums over or gives, and an output for every row it gives."""
    sizes, reads, outputs = sizes_of(recurrence.spec), {r.name: r for r in recurrence.reads}, []

    def of_row(expr: Expr, index: str | None, number: int) -> Expr:
        """`expr` at one row: what it reads there has a name of its own."""

        def named(node: Expr) -> Expr | None:
            if isinstance(node, SumOver) and any(isinstance(n, Ref) and n.name in reads for n in nodes(node.body)):
                rows = range(1, int(node.count.value(sizes)) + 1)
                return algebra.add(*(of_row(of_row(node.body, node.index, r), index, number) for r in rows))
            if isinstance(node, Ref) and node.name in reads:
                read = reads[node.name]
                if index is None or read.query is None or not uses_index(read.query, index):
                    return None
                name = f"{read.name}_{number}"
                reads[name] = replace(read, name=name, query=unrolled(read.query, index, number, sizes))
                return replace(node, name=name)
            return None

        return unrolled(algebra.rewrite(expr, named), index, number, sizes)

    for output, (name, value) in zip(recurrence.spec.outputs, recurrence.outputs, strict=True):
        rows = range(1, (1 if output.count is None else int(output.count.value(sizes))) + 1)
        outputs += [(name, of_row(value, output.index, r)) for r in rows]
    used = [n.name for _, value in outputs for n in nodes(value) if isinstance(n, Ref)]
    found = {name: reads[name] for name in dict.fromkeys(used) if name in reads}
    return replace(recurrence, reads=tuple(found.values()), outputs=tuple(outputs))


def previous_value(expr: Expr, recurrence: Recurrence) -> Expr:
    """A value of the token before: its per-token names are delayed ones, also in what derive named."""
    hoisted = dict(recurrence.hoisted)

    def whole(node: Expr) -> Expr | None:
        return algebra.rewrite(hoisted[node.name], whole) if isinstance(node, Ref) and node.name in hoisted else None

    return previous(algebra.rewrite(expr, whole), recurrence.spec.symbols)


class _Rows:
    def __init__(self, facts: Facts, is_transposed: bool):
        self.facts = facts
        self.recurrence = facts.recurrence
        self.is_transposed = is_transposed
        self.sizes = sizes_of(facts.recurrence.spec)

    def rows(self) -> tuple[tuple[Row, ...], int] | Problem:
        steps: list[_Step] = []
        for step in self.recurrence.steps:
            count = 1 if step.count is None else int(step.count.value(self.sizes))
            for number in range(1, count + 1):
                found = self._steps(step, number)
                if isinstance(found, Problem):
                    return found
                steps += found
        groups: list[tuple[Expr | None, list[Row]]] = []
        pending: Expr | None = None
        for step in steps:
            decay = _times(pending, step.decay)
            # what a pending decay leaves is what this step reads
            rows = self._merged([(u, e if pending is None else algebra.mul(pending, e)) for u, e in step.corrections], step.writes)
            pending = decay if not rows else None
            if rows:
                groups.append((decay, rows))
        if not groups:
            return _unwritten(self.facts, self.facts.states[0])
        model = next((r for _, rows in groups for r in rows if r.is_written), None)
        if model is None:
            return _unwritten(self.facts, self.facts.states[0])
        groups = [(d, [r if r.is_written else replace(r, values=model.values) for r in rows]) for d, rows in groups]
        if pending is not None:
            groups.append((pending, [_idle(model)]))
        return self._laid(groups, model)

    def _laid(self, groups: list[tuple[Expr | None, list[Row]]], model: Row) -> tuple[tuple[Row, ...], int] | Problem:
        """Rows with their log decays; where something is erased, every group is as long as the longest."""
        has_erase = any(r.erase is not None for _, rows in groups for r in rows)
        size = max(len(rows) for _, rows in groups) if has_erase else 1
        wide = any(d is not None and not d.type.is_scalar for d, _ in groups)
        laid: list[Row] = []
        for decay, rows in groups:
            log = None
            if decay is not None and not algebra.is_one(decay):
                log = log_of(decay, self.recurrence)
                if log is None:
                    return not_positive(self.facts, self._unproved())
                if wide and log.type.is_scalar:
                    column = next(d.type for d, _ in groups if d is not None and not d.type.is_scalar)
                    log = algebra.mul(log, algebra.const(ONE, column))
            if has_erase:
                rows = [*rows, *(_idle(model) for _ in range(size - len(rows)))]
            for i, row in enumerate(rows):
                laid.append(replace(row, log_decay=log if i == 0 or size > 1 else None))
        return tuple(laid), size

    # --- one step ---

    def _steps(self, step, number: int) -> list[_Step] | Problem:
        facts, index = self.facts, step.index
        at = lambda expr: unrolled(expr, index, number, self.sizes)  # noqa: E731
        decays: list[Expr] = []
        corrections: list[tuple[Expr, Expr]] = []
        for term in (t for t in step.transitions if t.target == facts.states[0]):
            count = 1 if term.rank is None else int(term.rank.value(self.sizes))
            for r in range(1, count + 1):
                own = replace(rewritten(term, lambda e, r=r, t=term: at(unrolled(e, t.index, r, self.sizes))), index=None, rank=None)
                found = self._term(own)
                if isinstance(found, Problem):
                    return found
                (corrections if isinstance(found, tuple) else decays).append(found)
        if not decays:
            return _erased(facts)
        decay = decays[0] if len(decays) == 1 else algebra.add(*_broadcast(decays))
        writes = {name: [w for w in step.writes if w.target == name] for name in facts.states}
        for name in facts.states:
            if not writes[name] and any(writes.values()):
                return _unwritten(facts, name)
        steps = []
        # what the previous token wrote enters once more before the state decays
        for tap in (1, 0):
            own = [[w for w in writes[name] if w.tap == tap] for name in facts.states]
            parts = [part for same in zip(*own) for part in self._written(list(same), at)]
            if any(_is_uniform(e) for own_key, values in parts for e in (own_key, *(value for value, _ in values))):
                return _uniform(facts, next(w for same in own for w in same if _is_uniform(w.key) or _is_uniform(w.value)))
            if tap == 0:
                steps.append(_Step(None if algebra.is_one(decay) else decay, corrections, parts))
            elif parts:
                steps.append(_Step(None, [], parts))
        return steps

    def _term(self, term: Transition) -> Expr | tuple[Expr, Expr] | Problem:
        """The decay that a term is, or (u, e) of its rank-one map `-u e^T` on the key side."""
        own, other = (term.right, term.left) if self.is_transposed else (term.left, term.right)
        if other:
            return self._wrong_side(term, other[0])
        chain = [transposed(g) for g in reversed(own)] if self.is_transposed else list(own)
        if all(g.kind in PURE for g in chain):
            return _product([term.coefficient, *(g.column for g in chain)])
        places = [i for i, g in enumerate(chain) if g.kind == "rank_one"]
        column = _product([chain[places[0]].column, *(g.column for g in chain[: places[0]])])
        row = _product([chain[places[-1]].row, *(g.column for g in chain[places[-1] + 1 :])])
        coefficient = algebra.neg(term.coefficient)
        for a, b in zip(places, places[1:]):
            between = _product([chain[b].column, *(g.column for g in chain[a + 1 : b])])
            coefficient = algebra.mul(coefficient, algebra.inner(chain[a].row, between))
        scalar, column = algebra.split_scalar(column)
        return column, algebra.mul(algebra.mul(coefficient, scalar), row)

    def _written(self, writes: list[Write], at) -> list[tuple[Expr | None, list[tuple[Expr | None, Expr]]]]:
        """Writes of the group's states along one key; a sum over rows gives several."""
        first = writes[0]
        count = 1 if first.rank is None else int(first.rank.value(self.sizes))
        parts = []
        for r in range(1, count + 1):
            values = []
            for w in writes:
                here = lambda e, w=w, r=r: at(unrolled(e, w.index, r, self.sizes))  # noqa: E731
                own_key, value = here(w.key), here(w.value)
                if w.tap:
                    own_key, value = (None if e is None else previous_value(e, self.recurrence) for e in (own_key, value))
                if self.is_transposed or self.facts.is_read_whole:
                    own_key, value = value, own_key
                values.append((value, here(w.coefficient)))
            parts.append((None if self.facts.is_read_whole else own_key, values))
        return parts

    def _merged(self, corrections, writes) -> list[Row]:
        """One row a direction of writing: what is erased along it and what is written."""
        rows: list[Row] = []
        for own_key, values in writes:
            scalar, direction = (None, None) if own_key is None else algebra.split_scalar(own_key)
            if own_key is not None and (own_key.type.is_scalar or not corrections):
                scalar, direction = algebra.const(ONE), own_key
            coefficients = [c if scalar is None else algebra.mul(scalar, c) for _, c in values]
            same = all(key(c) == key(coefficients[0]) for c in coefficients)
            if same:
                row = Row(direction, _not_one(coefficients[0]), tuple(v for v, _ in values))
            else:
                row = Row(
                    direction, None, tuple(c if v is None else algebra.mul(c, v) for (v, _), c in zip(values, coefficients, strict=True))
                )
            rows.append(row)
        for column, erase in corrections:
            match = next((i for i, r in enumerate(rows) if r.key is not None and key(r.key) == key(column)), None)
            if match is None:
                rows.append(Row(column, None, (), erase, is_written=False))
            else:
                old = rows[match].erase
                rows[match] = replace(rows[match], erase=erase if old is None else algebra.add(old, erase))
        return rows

    # --- problems ---

    def _wrong_side(self, term: Transition, generator: Generator) -> Problem:
        acts, other = ("keys", "values") if self.is_transposed else ("values", "keys")
        what = "correction" if generator.kind == "rank_one" else "decay"
        return Problem(
            f"no package for `{self.recurrence.spec.name}`: the {what} acts on the {acts} while another factor acts on the {other}",
            term.span,
            f"mixes or fades the {acts} of the state",
            "inside a chunk the state is met along one of its axes: decays and corrections must all act on that axis",
            "move the factor to the side of the others, or leave it out",
        )

    def _unproved(self) -> Transition:
        """The decay of which no logarithm is known: of several micro-steps the first that has one of its own."""
        terms = self.facts.decay_terms
        return next((t for t in terms if log_of(self._term(t), self.recurrence) is None), terms[0])


def not_positive(facts: Facts, term: Transition) -> Problem:
    """The refusal of a decay that may reach 0."""
    discrete = facts.recurrence.discrete
    edit = "declare the gate `in (0, 1)` with an expression that stays there, such as `sigmoid(x)` or `exp(-softplus(x))`"
    if discrete is not None and discrete.order and discrete.held_order is not None:
        edit = "declare a step that is short enough"
        if not facts.coupling_terms:
            # exponentials of a diagonal beside a rank-one term have no closed form
            has_exponentials = not facts.correction_terms or not (facts.kinds("left") + facts.kinds("right")).count("diagonal")
            which = "`exp_euler`, `zoh` or `implicit_euler`" if has_exponentials else "`implicit_euler`"
            edit = f"take a method whose factor stays above 0, such as {which}, or {edit}"
        edit = f"`{discrete.method}` multiplies by {discrete.transition}: {edit}"
    return Problem(
        "the decay is not provably positive",
        term.span,
        "this factor may reach 0 or below",
        "the chunk form multiplies decays as sums of logarithms, so each must be proved greater than 0",
        edit,
        slug="decay-not-positive",
    )


def sizes_of(spec) -> dict[str, int]:
    """Every size that has a value when a package is built."""
    return {**dict(spec.dims), **dict(spec.counts)}


def _unwritten(facts: Facts, name: str) -> Problem:
    return Problem(
        f"no package for `{facts.recurrence.spec.name}`: nothing is written to `{name}`",
        facts.recurrence.spec.state(name).span,
        "only decays",
        "a walk carries what the tokens write, `S' = a * S + k v^T`",
        f"add a write to the update of `{name}`, or delete the state",
    )


def _is_uniform(expr: Expr | None) -> bool:
    return expr is not None and not expr.type.is_scalar and constant(expr) is not None


def _uniform(facts: Facts, write: Write) -> Problem:
    is_column = facts.recurrence.spec.state(write.target).type.is_column
    edit = "c * one" if is_column else "c * one v^T"
    return Problem(
        f"no package for `{facts.recurrence.spec.name}`: the same number is added to every entry of `{write.target}`",
        write.span,
        "a key or a value that is one number in every entry",
        "what a chunk reads of a token are columns of its inputs and parameters, and this one is neither",
        f"write it along a learned column, `{edit}` with `param one : [N] per head init ones()`",
    )


def _erased(facts: Facts) -> Problem:
    return Problem(
        f"no package for `{facts.recurrence.spec.name}`: axis decay is `erased`",
        facts.recurrence.spec.state(facts.states[0]).span,
        "nothing of the old state survives by itself",
        "a walk carries the state from token to token by its decay",
        "keep the state beside what erases it, as in `S' = S - k (k^T S) + ...`",
    )


def _idle(model: Row) -> Row:
    """A row that only decays: a key and values for their shapes, nothing written."""
    return Row(model.key, None, model.values, is_written=False)


def rewritten(term: Transition, at) -> Transition:
    """The term with every expression in it passed through `at`."""

    def generator(g: Generator) -> Generator:
        return Generator(g.kind, at(g.column), at(g.row))

    return replace(term, coefficient=at(term.coefficient), left=tuple(map(generator, term.left)), right=tuple(map(generator, term.right)))


def transposed(generator: Generator) -> Generator:
    """The transpose of one map."""
    if generator.kind == "rank_one":
        return Generator("rank_one", generator.row, generator.column)
    return replace(generator, column=algebra.neg(generator.column)) if generator.kind == "rotation" else generator


def _product(parts: list[Expr]) -> Expr:
    total = parts[0]
    for part in parts[1:]:
        total = algebra.mul(total, part)
    return total


def _times(left: Expr | None, right: Expr | None) -> Expr | None:
    if left is None or right is None:
        return right if left is None else left
    return algebra.mul(left, right)


def _broadcast(terms: list[Expr]) -> list[Expr]:
    """Scalars beside columns become columns."""
    column = next((t.type for t in terms if not t.type.is_scalar), None)
    if column is None:
        return terms
    return [t if not t.type.is_scalar else algebra.mul(t, algebra.const(ONE, column)) for t in terms]


def _not_one(expr: Expr) -> Expr | None:
    return None if algebra.is_one(expr) else expr
