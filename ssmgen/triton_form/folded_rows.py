"""kernels -> the same kernels with the rows of a token along the axis of rows: one row and one reading in the text, R of them on a tile.

Rows that write one form of key and value, `k[r]` and `v[r]`, and readings of one form of query are told apart by r alone. Folded,
`k` is a column of its own at every row of a tile, what a token has one of stands beside all its rows, and the output is a sum over
them. Of a state that looks ahead, what a token reads of its own rows becomes a weight of the walk: the products of its queries with
its keys stand on the tile already.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..expressions import factors, key, nodes
from ..kernel import Kernels
from ..logarithm import log_of
from ..plan import Classified, Folded, Walk
from ..source import NOWHERE
from ..spec import ONE, Add, Delayed, Element, Expr, Neg, Ref, Type

FIRST = "first row"
"""1 at a token's first row, 0 at the others: a name that no text can have."""

MOST = 16
"""Rows a token: a chunk has four tokens then."""


def folded(kernels: Kernels) -> Kernels:
    """The kernels with the rows of a token along one axis; as they are where a token has one row and does not read its own apart.

    Raises UnsupportedOperand where the rows differ in more than their number.
    """
    walk = kernels.walks[0].walk
    if len(kernels.walks) != 1 or walk.has_erase or walk.is_wide or walk.members or len(walk.columns) != 1 or not walk.readings:
        return kernels
    if len(walk.rows) == 1 and len(walk.readings) == 1:
        return _Fold(kernels).own_apart()
    return _Fold(kernels).result()


class _Fold:
    def __init__(self, kernels: Kernels):
        self.kernels, self.classified = kernels, kernels.plan.classified
        self.recurrence = self.classified.recurrence
        self.walk: Walk = kernels.walks[0].walk
        self.count = len(self.walk.rows)
        spec = self.recurrence.spec
        self.definitions = dict(self.recurrence.hoisted) | {s.name: s.definition for s in spec.symbols if s.definition is not None}
        self.names: dict[str, Expr | None] = {}  # what has a row of its own, with its folded definition
        self.readings = self._readings()
        self.weights = {o.read: o.coefficient for o in self.recurrence.owns}

    def own_apart(self) -> Kernels:
        """Of one row a token: what it reads of its own as a weight of the walk, where it is read beside it."""
        read = self.walk.slices[0].read.name
        if len(self.walk.slices) != 1 or read not in self.weights or self.walk.log_decay is None or self.walk.is_transposed:
            return self.kernels
        own = self._weight(read, self.walk.rows[0])
        query = self._query_after(self.walk.readings[0].query)
        if own is None or query is None:
            return self.kernels
        reading = replace(self.walk.readings[0], query=query, is_inclusive=True)
        walk = replace(self.walk, readings=(reading,), own=own)
        outputs = self.recurrence.incomplete
        return self._kernels(replace(self.classified, walks=(walk,), outputs=outputs), walk)

    def result(self) -> Kernels:
        walk, count = self.walk, self.count
        if walk.size != 1 or not 1 < count <= MOST or walk.is_transposed or any(r.is_value for r in walk.readings):
            raise UnsupportedOperand("rows that are no sum over keys")
        if any(not row.is_written or row.key is None or row.values[0] is None for row in walk.rows):
            raise UnsupportedOperand("a row that only decays, or has no key")
        if any(row.log_decay is not None for row in walk.rows[1:]) or any(self._rows_in(row.coefficient) for row in walk.rows):
            raise UnsupportedOperand("rows that decay one after the other, or have numbers of their own")
        own_key = self._same([row.key for row in walk.rows])
        value = self._same([row.values[0] for row in walk.rows])
        first = walk.rows[0]
        if any(key(row.coefficient or algebra.UNIT) != key(first.coefficient or algebra.UNIT) for row in walk.rows):
            raise UnsupportedOperand("rows with several coefficients")
        own, queries, inclusive = None, [r.query for r in walk.readings], {r.is_inclusive for r in walk.readings}
        outputs = self.classified.outputs
        if self.weights:
            own = self._weight(walk.slices[0].read.name, first)
            queries = [self._query_after(q) for q in queries]
            if own is None or None in queries or self._rows_in(own) or walk.log_decay is None or first.coefficient is None:
                raise UnsupportedOperand("what a token reads of its own beside the walk")
            inclusive, outputs = {True}, self.recurrence.incomplete
        if len(inclusive) != 1 or len(outputs) != 1 or len(queries) not in (1, count):
            raise UnsupportedOperand("readings of several kinds")
        query = self._same(queries) if len(queries) > 1 else self._at(queries[0], 0)
        column = replace(walk.columns[0], value=value)
        row = replace(first, key=own_key, values=(value,))
        reading = replace(walk.readings[0], query=query, is_inclusive=inclusive.pop(), name="o")
        slices = (replace(walk.slices[0], reading="o"),)
        walk = replace(walk, rows=(row,), columns=(column,), readings=(reading,), slices=slices, own=own)
        (name, output) = outputs[0]
        classified = replace(self.classified, walks=(walk,), outputs=((name, self._sum(output)),))
        return self._kernels(self._with_names(classified), walk)

    def _kernels(self, classified: Classified, walk: Walk) -> Kernels:
        plan = replace(self.kernels.plan, classified=classified)
        return replace(self.kernels, plan=plan, walks=(replace(self.kernels.walks[0], walk=walk),))

    # --- what a token reads of its own ---

    def _weight(self, read: str, row) -> Expr | None:
        """By how much a token reads its own row, where the row's coefficient is by how much others do."""
        (write,) = [w for w in self.recurrence.steps[0].writes if w.target == self.walk.columns[0].state and not w.tap] or [None]
        if write is None or row.coefficient is None or write.key is None:
            return None
        scalar, _ = algebra.split_scalar(write.key)
        return algebra.mul(scalar, self.weights[read])

    def _query_after(self, query: Expr | None) -> Expr | None:
        """A query of the state before the token as one of the state behind it: without the factor by which the state decays between."""
        if query is None or self.walk.log_decay is None:
            return None
        number, above, below = factors(query)
        for place, factor in enumerate(above):
            log = log_of(factor, self.recurrence) if factor.type.is_scalar else None
            if log is not None and key(log) == key(self.walk.log_decay):
                return algebra.product(number, (*above[:place], *above[place + 1 :]), below)
        return None

    # --- rows ---

    def _readings(self) -> dict[str, int]:
        """The reads by the rows of their queries; 0: one for all rows."""
        queries, found = {r.name: r.query for r in self.walk.readings}, {}
        for cut in self.walk.slices:
            rows = self._elements(queries[cut.reading])
            found[cut.read.name] = rows.pop() if len(rows) == 1 else 0
        return found

    @staticmethod
    def _elements(expr: Expr | None) -> set[int]:
        return {n.index for n in nodes(expr) if isinstance(n, Element) and isinstance(n.index, int)} if expr is not None else set()

    def _rows_in(self, expr: Expr | None) -> set[int]:
        """The rows of a token that an expression is of; 0 stands for what is read for all of them."""
        if expr is None:
            return set()
        return self._elements(expr) | {self.readings[n.name] for n in nodes(expr) if isinstance(n, Ref) and n.name in self.readings}

    def _same(self, exprs: list[Expr]) -> Expr:
        """One expression of all rows, in order."""
        found = [self._at(expr, number) for number, expr in enumerate(exprs, 1)]
        if any(key(one) != key(found[0]) for one in found[1:]):
            raise UnsupportedOperand("rows of several forms")
        return found[0]

    def _at(self, expr: Expr, number: int) -> Expr:
        """An expression of row `number` as one of the row at which it stands."""

        def here(node: Expr) -> Expr | None:
            if isinstance(node, Element):
                if node.index != number or not isinstance(node.base, Ref) or node.type.is_scalar:
                    raise UnsupportedOperand("rows that read one another, or numbers of rows")
                self._fold(node.base)
                return Ref(node.type, NOWHERE, node.base.name)
            if isinstance(node, Ref) and self.readings.get(node.name, 0):
                if self.readings[node.name] != number:
                    raise UnsupportedOperand("rows that read one another")
                return replace(node, name=self.walk.slices[0].read.name)
            return None

        return algebra.rewrite(expr, here)

    def _fold(self, base: Ref) -> None:
        """A name that has one row a row of the token."""
        if base.name in self.names:
            return
        if base.type.rows.value(dict(self.recurrence.spec.counts) | dict(self.recurrence.spec.dims)) != self.count:
            raise UnsupportedOperand(f"`{base.name}`, which has another number of rows")
        self.names[base.name] = None
        if base.name in self.definitions:
            self.names[base.name] = self._at(algebra.row_of(self.definitions[base.name], 1), 1)

    # --- the output ---

    def _sum(self, expr: Expr) -> Expr:
        """What stands at every row of a value that is a sum over them."""
        rows = self._rows_in(expr)
        if len(rows) <= 1:
            (row,) = rows or {0}
            return self._at(expr, row) if row else algebra.mul(Ref(Type(), NOWHERE, FIRST), expr)
        if isinstance(expr, Add):
            found: dict[int, list[Expr]] = {}
            for term in expr.terms:
                own = self._rows_in(term)
                if len(own) > 1:
                    raise UnsupportedOperand("an output that is no sum over rows")
                found.setdefault(next(iter(own), 0), []).append(term)
            rest = found.pop(0, [])
            whole = [algebra.add(*found.get(number, [algebra.const(0)])) for number in range(1, self.count + 1)]
            return algebra.add(self._same(whole), *(algebra.mul(Ref(Type(), NOWHERE, FIRST), term) for term in rest))
        if isinstance(expr, Neg):
            return algebra.neg(self._sum(expr.operand))
        number, above, below = factors(expr)
        several = [f for f in above if len(self._rows_in(f)) > 1]
        if len(several) != 1 or any(self._rows_in(f) for f in (*above, *below) if f is not several[0]):
            raise UnsupportedOperand("an output that is no sum over rows")
        place = above.index(several[0])
        return algebra.product(number, (*above[:place], self._sum(several[0]), *above[place + 1 :]), below)

    # --- the recurrence of what is folded ---

    def _with_names(self, classified: Classified) -> Classified:
        symbols, definitions = [], {}
        for name, value in self.definitions.items():
            definitions[name] = self.names.get(name) or value
        for symbol in self.recurrence.spec.symbols:
            if symbol.name in self.names:
                symbol = replace(symbol, type=Type(symbol.type.cols, ONE, symbol.type.field))
            if symbol.definition is not None:
                symbol = replace(symbol, definition=definitions[symbol.name])
            symbols.append(symbol)
        hoisted = tuple((name, definitions[name]) for name, _ in self.recurrence.hoisted)
        (walk,) = classified.walks
        values = [walk.rows[0].key, walk.rows[0].values[0], walk.coefficient, walk.log_decay, walk.own, walk.readings[0].query]
        values += [value for _, value in classified.outputs]
        waiting, seen = [v for v in values if v is not None], set()
        while waiting:
            for node in nodes(waiting.pop()):
                is_whole = isinstance(node, Ref | Delayed) and not (node.type.is_scalar or node.type.is_column or node.type.is_row)
                if is_whole or isinstance(node, Element) or (isinstance(node, Delayed) and node.name in self.names):
                    raise UnsupportedOperand("all rows of a value at once")
                if isinstance(node, Ref) and node.name in definitions and node.name not in seen:
                    seen.add(node.name)
                    waiting.append(definitions[node.name])
        spec = replace(self.recurrence.spec, symbols=tuple(symbols))
        recurrence = replace(self.recurrence, spec=spec, hoisted=hoisted)
        return replace(classified, recurrence=recurrence, folded=Folded(self.count, frozenset(self.names)))
