"""A recurrence in which the previous token writes once more -> one in which every token writes once, to a state that looks ahead.

Where the write that comes back is the token's own a token later, W = k v^T, with any linear A,

    S' = A (S + c W[-1]) + g W,    H = S + c_next W,    c_next the c of the next token

gives

    H' = A H + (g + c_next) W,     S'^T q = H^T (A^T q) + g (q . k) v

One row a token in the place of two, and R in the place of 2R where W is a sum over rows: the read is of the state before the token,
through A. `c` reads no state, so it is a value of its own before everything else; to the walks c_next is one more value of the token,
0 at the last one of a document or a call, where H is S again. The first token finds H = S + c W[-1] of what the call before left. A
step writes both, as the text says.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..expressions import key, uses_index
from ..recurrence import Ahead, Generator, Own, Read, Recurrence, Transition, Write
from ..source import NOWHERE
from ..spec import Expr, MatMul, Ref, Rot, Symbol, Type
from .rows import rows_of_write, sizes_of


def looking_ahead(recurrence: Recurrence) -> Recurrence:
    """The recurrence with one write a token where two are the same one; as it is where none are."""
    if len(recurrence.steps) != 1 or recurrence.steps[0].index is not None or recurrence.sequential:
        return recurrence
    worker = _Ahead(recurrence)
    found = {s.name: pair for s in recurrence.spec.states if (pair := worker.pair(s.name)) is not None}
    return worker.recurrence(found) if found else recurrence


class _Ahead:
    def __init__(self, recurrence: Recurrence):
        self.whole, self.step = recurrence, recurrence.steps[0]
        self.aheads: list[Ahead] = []

    def pair(self, state: str) -> tuple[Write, Write] | None:
        """The write of the token before and the token's own, where they are one; None where the identity does not hold or help."""
        writes = [w for w in self.step.writes if w.target == state]
        terms = [t for t in self.step.transitions if state in (t.source, t.target)]
        reads = [r for r in self.whole.reads if r.state == state]
        if sorted(w.tap for w in writes) != [0, 1] or any(w.key is None for w in writes):
            return None
        older, own = sorted(writes, key=lambda w: -w.tap)
        if older.rank != own.rank or older.index != own.index or any(w.index and uses_index(w.coefficient, w.index) for w in writes):
            return None
        if key(older.key) != key(own.key) or (older.value is None) != (own.value is None):
            return None
        if own.value is not None and key(older.value) != key(own.value):
            return None
        if any(t.source != t.target or t.right or t.rank is not None or any(_transposed(g) is None for g in t.left) for t in terms):
            return None
        if any(r.side != "key" or not r.primed for r in reads):
            return None
        return older, own

    def recurrence(self, found: dict[str, tuple[Write, Write]]) -> Recurrence:
        spec, writes = self.whole.spec, []
        for write in self.step.writes:
            if write.target not in found:
                writes.append(write)
            elif write.tap == 0:
                older, own = found[write.target]
                writes.append(replace(own, coefficient=algebra.add(own.coefficient, self._next(older))))
        reads, results = [], {}
        for read in self.whole.reads:
            if read.state not in found:
                reads.append(read)
                continue
            own = found[read.state][1]
            reads.append(replace(read, query=self._through(read), primed=False))
            results[read.name] = self._read_of(read, own)

        def completed(node: Expr) -> Expr | None:
            return algebra.add(node, results[node.name]) if isinstance(node, Ref) and node.name in results else None

        names = [Symbol(a.name, "input", Type(), "head", NOWHERE) for a in self.aheads]
        return replace(
            self.whole,
            spec=replace(spec, symbols=(*spec.symbols, *names)),
            steps=(replace(self.step, writes=tuple(writes)),),
            reads=tuple(reads),
            outputs=tuple((name, algebra.rewrite(value, completed)) for name, value in self.whole.outputs),
            whole=self.whole.written,
            aheads=tuple(self.aheads),
            owns=tuple(Own(r.name, found[r.state][1].coefficient) for r in self.whole.reads if r.state in found),
            incomplete=self.whole.outputs,
            unturned=self.whole,
        )

    def _read_of(self, read: Read, own: Write) -> Expr:
        """What a read gives of the token's own write, row by row of it."""
        weight = algebra.mul(own.coefficient, algebra.inner(read.query, own.key))
        written = weight if own.value is None else algebra.mul(weight, own.value)
        return algebra.add(*rows_of_write(own, written, sizes_of(self.whole.spec)))

    def _next(self, older: Write) -> Expr:
        """The coefficient of the next token, by a name of its own: one for all states whose coefficients are the same."""
        for number, known in enumerate(self.aheads):
            if key(known.coefficient) == key(older.coefficient):
                self.aheads[number] = replace(known, writes=(*known.writes, older))
                return Ref(Type(), NOWHERE, known.name)
        name = self.whole.spec.free_name("ahead" if not self.aheads else f"ahead{len(self.aheads) + 1}")
        self.aheads.append(Ahead(name, older.coefficient, (older,)))
        return Ref(Type(), NOWHERE, name)

    def _through(self, read: Read) -> Expr:
        """`A^T q`, term by term."""
        return algebra.add(*(self._pulled(t, read.query) for t in self.step.transitions if t.target == read.state))

    @staticmethod
    def _pulled(term: Transition, query: Expr) -> Expr:
        for generator in term.left:
            query = _transposed(generator)(query)
        return algebra.mul(term.coefficient, query)


def _transposed(generator: Generator):
    """What the transpose of a map does to a column; None where it is no diagonal, rotation or outer product."""
    column, row = generator.column, generator.row
    match generator.kind:
        case "diagonal":
            return lambda query: algebra.mul(column, query)
        case "rank_one":
            return lambda query: algebra.mul(algebra.inner(column, query), row)
        case "rotation":
            return lambda query: MatMul(
                query.type, NOWHERE, Rot(Type(query.type.rows, query.type.rows), NOWHERE, algebra.neg(column)), query
            )
    return None
