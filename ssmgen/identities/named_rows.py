"""A scan over arguments of several rows -> the same over one argument a row: `k[2]` has a name of its own, `k_2`.

A scan keeps every value of a token by a name; a row of one is another value. Arguments and definitions that are read row by row become
as many as they have rows; the operator takes the arguments apart, so that gradients of the whole are torch's.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..expressions import nodes
from ..plan import Classified, Scan, ScanStep
from ..recurrence import Recurrence, RowNames
from ..spec import ONE, Element, Expr, Ref, Symbol, Type
from .rows import sizes_of, unrolled
from .scans_written import equations_of


class NoRows(Exception):
    """A value of several rows that is not read row by row, or whose rows have no names here."""

    def __init__(self, expr: Expr):
        super().__init__()
        self.expr = expr


def over_rows(classified: Classified) -> Classified:
    """A classified scan over single rows; itself where no row is read by itself."""
    recurrence, scan = rows_apart(classified.recurrence, classified.scan)
    return replace(classified, recurrence=recurrence, scan=scan, outputs=scan.outputs)


def rows_apart(recurrence: Recurrence, scan: Scan) -> tuple[Recurrence, Scan]:
    """A recurrence and its scan over single rows, the text's own kept as `whole`. Raises NoRows."""
    exprs = [*(s.value for s in scan.steps), *(value for _, value in scan.outputs)]
    exprs += [s.definition for s in recurrence.spec.symbols if s.definition is not None]
    if not any(isinstance(node, Element) for expr in exprs for node in nodes(expr)):
        return recurrence, scan
    return _Rows(recurrence, exprs).rewritten(scan)


class _Rows:
    """Rewrites one recurrence. `names_of`: the names of the rows of a name."""

    def __init__(self, recurrence: Recurrence, exprs: list[Expr]):
        self.recurrence, self.spec = recurrence, recurrence.spec
        self.sizes = sizes_of(self.spec)
        self.symbols = {s.name: s for s in self.spec.symbols}
        self.taken = {s.name for s in (*self.spec.symbols, *self.spec.states)}
        self.taken |= {n for n, _ in (*self.spec.dims, *self.spec.counts, *self.spec.constants)}
        self.names_of: dict[str, tuple[str, ...]] = {}
        for node in (n for expr in exprs for n in nodes(expr) if isinstance(n, Element)):
            self._take(node.base, node.base.type)

    def _take(self, stack: Expr, type: Type) -> None:
        """Names for the rows of all that a stack is made of."""
        for leaf in nodes(stack):
            symbol = self.symbols.get(leaf.name) if isinstance(leaf, Ref) else None
            if symbol is None or leaf.type.rows != type.rows or leaf.name in self.names_of:
                continue
            count = int(leaf.type.rows.value(self.sizes))
            self.names_of[leaf.name] = tuple(self._fresh(f"{leaf.name}_{r}") for r in range(1, count + 1))
            if symbol.definition is not None:
                self._take(symbol.definition, type)

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def rewritten(self, scan: Scan) -> tuple[Recurrence, Scan]:
        symbols = tuple(part for symbol in self.spec.symbols for part in self._symbol(symbol))
        steps = tuple(ScanStep(s.state, s.name, self._named(s.value), self._named(s.kept)) for s in scan.steps)
        outputs = tuple((name, self._named(value)) for name, value in scan.outputs)
        spec = replace(equations_of(self.spec, steps, outputs, {}), symbols=symbols)
        own = replace(
            self.recurrence,
            spec=spec,
            hoisted=tuple((name, self._named(value)) for name, value in self.recurrence.hoisted),
            whole=self.recurrence.written,
            rows=tuple(RowNames(name, names) for name, names in self.names_of.items() if self.symbols[name].definition is None),
        )
        return own, replace(scan, steps=steps, outputs=outputs)

    def _symbol(self, symbol: Symbol) -> list[Symbol]:
        if symbol.name not in self.names_of:
            return [symbol if symbol.definition is None else replace(symbol, definition=self._named(symbol.definition))]
        type = Type(symbol.type.cols, ONE, symbol.type.field)
        found = []
        for row, name in enumerate(self.names_of[symbol.name], 1):
            definition = None if symbol.definition is None else self._named(algebra.row_of(symbol.definition, row))
            found.append(replace(symbol, name=name, type=type, definition=definition, init=None))
        return found

    def _named(self, expr: Expr) -> Expr:
        """The expression with a name for every row. Raises NoRows for what is left of the whole."""

        def row(node: Expr) -> Expr | None:
            if not isinstance(node, Element):
                return None
            if isinstance(node.base, Ref) and node.base.name in self.names_of:
                return Ref(node.type, node.span, self.names_of[node.base.name][node.index - 1])
            opened = algebra.row_of(node.base, node.index)
            if isinstance(opened, Element):
                raise NoRows(node)
            return algebra.rewrite(opened, row)

        found = algebra.rewrite(unrolled(expr, None, 0, self.sizes), row)
        left = next((n for n in nodes(found) if isinstance(n, Element) or (isinstance(n, Ref) and n.name in self.names_of)), None)
        if left is not None:
            raise NoRows(left)
        return found
