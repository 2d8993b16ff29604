"""terms of an update -> its form as a scan: every entry of a state a scalar recurrence by itself, or beside that of other states.

Every transition is a product of scalars, diagonals and elementwise factors, so that entry by entry the state is multiplied and
something is added; of states that feed each other, what the others' entries at the same place are multiplied by. Nothing is asked of
the factors' sign.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import algebra
from ..plan import Scan, ScanStep
from ..recurrence import Generator, MicroStep, Recurrence, Transition, Write
from ..source import NOWHERE
from ..spec import Delayed, Diag, Expr, Ref, Type
from .complex_pairs import NoParts, pairs_of
from .micro_step import weighted
from .named_rows import NoRows, rows_apart
from .rows import Problem, sizes_of, unrolled

CARRIED = ("diagonal", "elementwise", "rank_one", "part", "dense")
"""Factors of a state that a scan has."""

MIXING = ("rank_one", "part", "dense")
"""Those that lead from entry to entry."""


def scan_of(recurrence: Recurrence) -> Scan | Problem:
    """The steps of a token, every state an array of scalars, and the output over the states before and after them."""
    return _Scans(recurrence).scan()


class _Scans:
    def __init__(self, recurrence: Recurrence):
        self.recurrence, self.spec = recurrence, recurrence.spec
        self.sizes = sizes_of(self.spec)

    def scan(self) -> Scan | Problem:
        for step in self.recurrence.steps:
            for term in step.transitions:
                problem = self._problem(term)
                if problem is not None:
                    return problem
        known = {s.name: Ref(s.type, NOWHERE, s.name) for s in self.spec.states}
        kept = {s.name: Ref(s.type, NOWHERE, f"kept {s.name}") for s in self.spec.states}
        unrolled_steps = [(step, i) for step in self.recurrence.steps for i in range(1, self._count(step) + 1)]
        steps = []
        for number, (step, index) in enumerate(unrolled_steps, 1):
            after = {}
            for state in self.spec.states:
                is_last = number == len(unrolled_steps)
                name = f"{state.name}'" if is_last else f"{state.name}'{number}"
                value = self._value(step, index, state.name, state.type, known)
                left = self._kept(step, index, state.name, state.type, kept)
                steps.append(ScanStep(state.name, name, value, left))
                after[state.name] = name
            known = {n: Ref(known[n].type, NOWHERE, name) for n, name in after.items()}
            kept = {n: Ref(known[n].type, NOWHERE, f"kept {name}") for n, name in after.items()}
        reads = {read.name: self._read(read) for read in self.recurrence.reads}

        def named(node: Expr) -> Expr | None:
            return reads.get(node.name) if isinstance(node, Ref) else None

        outputs = tuple((name, self._flat(algebra.rewrite(self._flat(value), named))) for name, value in self.recurrence.outputs)
        mixes = any(g.kind in MIXING for step in self.recurrence.steps for t in step.transitions for g in (*t.left, *t.right))
        scan = Scan(tuple(steps), outputs, mixes)
        try:
            pairs_of(*rows_apart(self.recurrence, scan))
        except NoParts as found:
            return self._complex(found)
        except NoRows as found:
            return self._indexed(found.expr)
        return scan

    def _count(self, step: MicroStep) -> int:
        return 1 if step.count is None else int(step.count.value(self.sizes))

    def _flat(self, expr: Expr, index: str | None = None, number: int = 0) -> Expr:
        """Sums over rows written out, loop indices as numbers; what the token before had under a name of its own."""

        def named(node: Expr) -> Expr | None:
            return Ref(node.type, node.span, f"{node.name}[-1]") if isinstance(node, Delayed) else None

        return algebra.rewrite(unrolled(expr, index, number, self.sizes), named)

    # --- one step ---

    def _value(self, step: MicroStep, index: int, state: str, type: Type, known: dict[str, Ref]) -> Expr:
        before: dict[str, Expr] = dict(known)
        for tap in (w for w in step.writes if w.tap):
            # the write of the token before enters first
            source = before[tap.target]
            before[tap.target] = algebra.add(source, self._write(tap, step, index, source.type))
        left = self._kept(step, index, state, type, before)
        writes = [w for w in step.writes if w.target == state and not w.tap]
        return algebra.add(left, *(self._write(w, step, index, type) for w in writes))

    def _kept(self, step: MicroStep, index: int, state: str, type: Type, before: Mapping[str, Expr]) -> Expr:
        terms = []
        for term in (t for t in step.transitions if t.target == state):
            count = 1 if term.rank is None else int(term.rank.value(self.sizes))
            for r in range(1, count + 1):
                at = lambda e, r=r, term=term: self._flat(unrolled(e, term.index, r, self.sizes), step.index, index)  # noqa: E731
                value = before[term.source]
                for generator in reversed(term.left):
                    value = _mapped(generator, at, value, is_left=True)
                for generator in term.right:
                    value = _mapped(generator, at, value, is_left=False)
                terms.append(algebra.mul(at(term.coefficient), value))
        return algebra.add(*terms) if terms else algebra.const(0, type)

    def _write(self, write: Write, step: MicroStep, index: int, type: Type) -> Expr:
        count = 1 if write.rank is None else int(write.rank.value(self.sizes))
        parts = []
        for r in range(1, count + 1):
            at = lambda e, r=r: None if e is None else unrolled(unrolled(e, write.index, r, self.sizes), step.index, index, self.sizes)  # noqa: E731
            key, value, coefficient, weight = at(write.key), at(write.value), at(write.coefficient), at(write.weight)
            if write.tap:
                key, value, weight = self._previous(key), self._previous(value), self._previous(weight)
            if weight is not None:
                product = weighted(weight, key, value)
            elif key is not None and value is not None:
                product = algebra.matmul(key, algebra.transpose(value))
            else:
                product = algebra.UNIT if key is None and value is None else value if key is None else key
            parts.append(self._flat(algebra.mul(coefficient, product)))
        total = algebra.add(*parts)
        return total if total.type == type else algebra.mul(algebra.const(1, type), total)

    def _previous(self, expr: Expr | None) -> Expr | None:
        """A value of the token before: its per-token names are delayed ones."""
        moving = {s.name for s in self.spec.symbols if not s.static and s.kind != "param"}
        hoisted = dict(self.recurrence.hoisted)

        def delayed(node: Expr) -> Expr | None:
            if isinstance(node, Ref) and node.name in hoisted:
                return self._previous(hoisted[node.name])
            return Delayed(node.type, node.span, node.name) if isinstance(node, Ref) and node.name in moving else None

        return None if expr is None else algebra.rewrite(expr, delayed)

    def _read(self, read) -> Expr:
        type = self.spec.state(read.state).type
        source = Ref(type, NOWHERE, f"{read.state}'" if read.primed else read.state)
        if read.query is None:
            return source
        query = self._flat(read.query)
        return algebra.matmul(source, query) if read.side == "value" else algebra.matmul(algebra.transpose(source), query)

    # --- problems ---

    def _problem(self, term: Transition) -> Problem | None:
        if all(g.kind in CARRIED for g in (*term.left, *term.right)):
            return None
        what = "mixes entries of the state by a whole matrix"
        return Problem(
            f"no package for `{self.spec.name}`: this term {what} while entries of the state fade apart",
            term.span,
            what,
            "a scan multiplies every entry of a state by a factor, s' = a s + b, and may add what matrices make of it: it has no rotations",
            "drop the term, or let the decay depend on the key alone, `diag(w) S`, for a state of a head",
        )

    def _complex(self, found: NoParts) -> Problem:
        return Problem(
            f"no package for `{self.spec.name}`: {found.what}",
            found.span if found.span != NOWHERE else self.spec.span,
            "has no real and imaginary part here",
            "a scan carries complex values as pairs of reals: sums, products, quotients, whole powers, exp, expm1, cis and conj have parts",
            "write it with those, and take `Re` or `Im` of what the output reads",
        )

    def _indexed(self, node: Expr) -> Problem:
        return Problem(
            f"no package for `{self.spec.name}`: rows that are read together beside entries of the state that run by themselves",
            node.span if node.span != NOWHERE else self.spec.span,
            "has no row of its own here",
            "a scan keeps every row of a token by a name: it reads rows of arguments, and of what is made of them row by row",
            "give every row a name of its own",
        )


def _mapped(generator: Generator, at, value: Expr, *, is_left: bool) -> Expr:
    """A factor of a state times a value in the state's shape; `at` writes its expressions out."""
    column = at(generator.column)
    if generator.kind == "dense":
        return algebra.matmul(column, value) if is_left else algebra.matmul(value, column)
    if generator.kind == "part":
        return algebra.mul(column, algebra.apply("Re", algebra.matmul(algebra.transpose(at(generator.row)), value)))
    if generator.kind == "rank_one":
        row = at(generator.row)
        if is_left:
            return algebra.matmul(column, algebra.matmul(algebra.transpose(row), value))
        return algebra.matmul(algebra.matmul(value, column), algebra.transpose(row))
    if generator.kind == "elementwise" or (is_left and value.type.is_column):
        return algebra.mul(column, value)
    return algebra.matmul(_diagonal(column), value) if is_left else algebra.matmul(value, _diagonal(column))


def _diagonal(column: Expr) -> Diag:
    return Diag(Type(column.type.rows, column.type.rows), NOWHERE, column)
