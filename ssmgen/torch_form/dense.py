"""A recurrence between matrix products -> that of what they give and take, with the products outside of it.

    x' = a * x + b * (B u),   y = C x' + D * u     is     w = B u;   x' = a * x + b * w,   z = x';   y = C z + D * u

A matrix leads from every entry to every other, and in a scan entries run by themselves: the products of all tokens are formed at once,
before the scan and behind it, and so they are around chunks. To the scan `w` is an input and `z` the output, a row for every value of a
state that a matrix takes. Complex values are pairs of reals here, so that `Re(C x')` is C_re z_1 - C_im z_2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..diagnostics import Diagnostic, Label, Severity
from ..expressions import is_full_product, is_made_outside, is_state, nodes
from ..identities.complex_pairs import over_pairs
from ..identities.scans_written import equations_of
from ..plan import Classified, Scan, Walk
from ..recurrence import Dense, Recurrence
from ..small import all_nodes
from ..source import NOWHERE
from ..spec import Apply, Delayed, Dim, Div, Expr, MatMul, MicroLoop, Pow, Ref, Symbol
from ..spec import Recurrence as Spec
from .tokens import TokenWriter

MOST = 3
"""Names that the name of a product is made of."""


def apart(classified: Classified) -> Classified:
    """A classified recurrence over reals whose products of matrices stand outside; itself where it has none.

    What an output reads of the states beside a product has to be as wide as what the product takes: else the output stays as it is.
    """
    if classified.recurrence.maxima:
        return classified
    try:
        return _Apart(classified).result()
    except UnsupportedOperand:
        return classified


def core_of(classified: Classified) -> Classified:
    """A classified scan over single rows and over reals, with its products outside."""
    return apart(over_pairs(classified))


def unmade(classified: Classified) -> Diagnostic | None:
    """Why there is no package: a function of a whole matrix that does not stand outside. None where all do."""
    hoisted = (node for _, value in classified.recurrence.hoisted for node in nodes(value))
    found = next(filter(is_made_outside, (*all_nodes(classified.recurrence.spec), *hoisted)), None)
    core = None if found is None else apart(classified) if classified.scan is None else core_of(classified)
    if core is None or core.recurrence.dense is not None:
        return None
    name = classified.recurrence.spec.name
    return Diagnostic(
        "unsupported-lowering",
        Severity.ERROR,
        f"no package for `{name}`: a function of a whole matrix beside what runs before the states",
        Label(found.span if found.span != NOWHERE else classified.recurrence.written.span, "a function of a whole matrix"),
        (),
        "such a function is made outside of the operator, and so are running maxima, angles of rows that turn and what looks a token ahead",
        "give the matrix as an input or param, or write the recurrence without those",
    )


class _Apart:
    def __init__(self, classified: Classified):
        self.classified, self.recurrence = classified, classified.recurrence
        self.spec = self.recurrence.spec
        self.definitions = {s.name: s.definition for s in self.spec.symbols if s.definition is not None} | dict(self.recurrence.hoisted)
        self.states = {s.name for s in self.spec.states}
        self.printer = TokenWriter(classified).printer
        self.made: dict[str, tuple[Symbol, Expr]] = {}
        self.reads: dict[str, tuple[str, Expr]] = {}
        self.taken: set[str] = set(self.definitions)

    def result(self) -> Classified:
        """The classified scan, or walks, of what is left."""
        self.definitions = {name: from_the_right(value) for name, value in self.definitions.items()}
        self.renewed = {name: self._without(value) for name, value in self.definitions.items()}
        return self._of_walks() if self.classified.scan is None else self._of_scan(self.classified.scan)

    def _of_scan(self, scan: Scan) -> Classified:
        steps = tuple(replace(s, value=self._freed(s.value), kept=self._freed(s.kept)) for s in scan.steps)
        outputs, behind = self._outputs(scan.outputs)
        if not self.made and behind is None:
            return self.classified
        left = [e for s in steps for e in (s.value, s.kept)] + [value for _, value in outputs]
        spec = equations_of(self.spec, steps, outputs, {})
        recurrence = self._recurrence(spec, left, outputs, behind)
        return replace(self.classified, recurrence=recurrence, scan=replace(scan, steps=steps, outputs=outputs), outputs=outputs)

    def _of_walks(self) -> Classified:
        """Of chunks, whose operands are values of a token already: in what is read of a state alone its products stand behind."""
        if self.recurrence.turnings or self.recurrence.aheads:
            # those are made of the arguments by themselves
            return self.classified
        self.states = {read.name for read in self.recurrence.reads}
        walks = tuple(_mapped(walk, self._freed) for walk in self.classified.walks)
        outputs, behind = self._outputs(self.classified.outputs)
        if not self.made and behind is None:
            return self.classified
        left: list[Expr] = [value for _, value in outputs]
        for walk in walks:
            _mapped(walk, lambda expr: left.append(expr) or expr)
        rows = outputs if behind is not None else tuple((o.name, self._freed(o.value)) for o in self.spec.outputs)
        spec = replace(
            self.spec,
            update=tuple(_equation(item, self._freed) for item in self.spec.update),
            dynamics=tuple(replace(item, value=self._freed(item.value)) for item in self.spec.dynamics),
            outputs=tuple(replace(self.spec.outputs[0], value=value) for _, value in rows),
        )
        return replace(self.classified, recurrence=self._recurrence(spec, left, outputs, behind), walks=walks, outputs=outputs)

    def _freed(self, expr: Expr) -> Expr:
        return self._without(from_the_right(expr))

    def _outputs(self, outputs: tuple[tuple[str, Expr], ...]):
        """(what is given, the outputs over that where matrices take it)."""
        behind = self._behind(tuple((name, from_the_right(value)) for name, value in outputs))
        given = outputs if behind is None else tuple(self.reads.values())
        return tuple((name, self._freed(value)) for name, value in given), behind

    def _reads_state(self, expr: Expr) -> bool:
        return any(is_state(node, self.states) for node in nodes(expr))

    # --- before the scan ---

    def _without(self, expr: Expr) -> Expr:
        """The expression with every product that reads no state as an input."""

        def product(node: Expr) -> Expr | None:
            value = self.definitions.get(node.name, node) if isinstance(node, Ref) else node
            if is_made_outside(value) and not self._reads_state(value):
                return self._input(node)
            if not is_full_product(node, self.states) or self._reads_state(node):
                return None
            # arguments are columns
            return algebra.transpose(self._input(algebra.transpose(node))) if node.type.is_row else self._input(node)

        return algebra.rewrite(expr, product)

    def _input(self, product: Expr) -> Ref:
        text = algebra.key(product)
        if text not in self.made:
            place = self.printer.place(product)
            own = next((s.per for s in self.spec.states if s.per == "channel"), "head")
            per = {"h": own, "g": "group", "": "layer"}[place.level]
            words = [product.function] if is_made_outside(product) else []
            words += dict.fromkeys(n.name.removesuffix("[-1]") for n in nodes(product) if isinstance(n, (Ref, Delayed)))
            # what has a name keeps it
            name = product.name if isinstance(product, Ref) else self._fresh("_".join(words[:MOST]) or "product")
            symbol = Symbol(name, "input" if place.has_time else "param", product.type, per, NOWHERE, static=not place.has_time)
            self.made[text] = symbol, product
        return Ref(product.type, NOWHERE, self.made[text][0].name)

    def _fresh(self, name: str) -> str:
        name = self.spec.free_name(name)
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    # --- behind it ---

    def _behind(self, outputs: tuple[tuple[str, Expr], ...]) -> tuple[tuple[str, Expr], ...] | None:
        """The outputs over what they read of the states; None where no matrix takes any of it, or not all of it has one width."""
        found = tuple((name, self._read_out(value)) for name, value in outputs)
        types = {value.type for _, value in self.reads.values()}
        if not any(self._takes_state(value) for _, value in outputs) or len(types) != 1 or not next(iter(types)).is_column:
            self.reads = {}
            return None
        return found

    def _takes_state(self, expr: Expr) -> bool:
        """Whether a matrix takes what is made of a state."""
        return any(is_full_product(node, self.states) and self._reads_state(node) for node in nodes(expr))

    def _read_out(self, expr: Expr) -> Expr:
        if not self._reads_state(expr):
            return expr
        if self._takes_state(expr):
            sides = algebra.children(expr)
            return algebra.rebuild(expr, tuple(map(self._read_out, sides)))
        text = algebra.key(expr)
        if text not in self.reads:
            self.reads[text] = self._fresh(f"row{len(self.reads) + 1}"), expr
        return Ref(expr.type, NOWHERE, self.reads[text][0])

    # --- what is left ---

    def _recurrence(self, spec: Spec, left: list[Expr], outputs: tuple[tuple[str, Expr], ...], behind) -> Recurrence:
        """The recurrence of what is left: the names that it still needs, and those that are made."""
        named = {product.name for _, product in self.made.values() if isinstance(product, Ref)}
        renewed = {name: value for name, value in self.renewed.items() if name not in named}
        waiting, needed = [*left], set()
        while waiting:
            for node in nodes(waiting.pop()):
                name = getattr(node, "name", None)
                if isinstance(name, str) and name.removesuffix("[-1]") not in needed:
                    name = name.removesuffix("[-1]")
                    needed.add(name)
                    waiting += [renewed[name]] if name in renewed else []
        kept = [s for s in self.spec.symbols if s.name in needed - named]
        own = [s if s.definition is None else replace(s, definition=renewed[s.name]) for s in kept]
        made = [(symbol, product) for symbol, product in self.made.values() if symbol.name in needed]
        if behind is not None:
            several = len(outputs) > 1
            index, count = ("r", Dim(Fraction(len(outputs)))) if several else (None, None)
            spec = replace(spec, outputs=tuple(replace(o, index=index, count=count) for o in spec.outputs))
        return replace(
            self.recurrence,
            spec=replace(spec, symbols=(*own, *(symbol for symbol, _ in made))),
            hoisted=tuple((n, renewed[n]) for n, _ in self.recurrence.hoisted if n in needed - named),
            outputs=outputs,
            whole=self.recurrence.written,
            dense=Dense(
                tuple((s.name, product) for s, product in made),
                tuple(name for name, _ in self.reads.values()),
                behind or (),
                _bent([*left, *(renewed[name] for name in needed if name in renewed)]) & {s.name for s, _ in made},
            ),
            unturned=self.recurrence,
        )


def _bent(values: list[Expr]) -> frozenset[str]:
    """The names of which a function, a power or a quotient is taken."""
    found: set[str] = set()
    for value in values:
        for node in nodes(value):
            inside = (
                node.args
                if isinstance(node, Apply)
                else (node.base,)
                if isinstance(node, Pow)
                else (node.right,)
                if isinstance(node, Div)
                else ()
            )
            found |= {n.name for each in inside for n in nodes(each) if isinstance(n, Ref)}
    return frozenset(found)


def _mapped(walk: Walk, change: Callable[[Expr], Expr]) -> Walk:
    """A walk with every value of a token changed."""
    maybe = lambda expr: None if expr is None else change(expr)  # noqa: E731
    rows = (
        replace(
            row,
            key=maybe(row.key), coefficient=maybe(row.coefficient), values=tuple(map(maybe, row.values)), erase=maybe(row.erase),
            log_decay=maybe(row.log_decay),
        )
        for row in walk.rows
    )  # fmt: skip
    members = (
        replace(m, log_decay=change(m.log_decay), share=maybe(m.share), takes=tuple((n, change(e)) for n, e in m.takes))
        for m in walk.members
    )
    return replace(
        walk,
        rows=tuple(rows),
        columns=tuple(replace(column, value=maybe(column.value)) for column in walk.columns),
        readings=tuple(replace(reading, query=maybe(reading.query)) for reading in walk.readings),
        members=tuple(members),
    )


def _equation(item, change: Callable[[Expr], Expr]):
    if isinstance(item, MicroLoop):
        return replace(item, body=tuple(_equation(inner, change) for inner in item.body))
    return replace(item, value=change(item.value))


def outer_of(classified: Classified) -> Classified:
    """The recurrence with its products, where they stand outside: what an argument is to those who call; itself elsewhere."""
    recurrence = classified.recurrence
    if recurrence.dense is None:
        return classified
    whole: Recurrence = recurrence.unturned
    return replace(classified, recurrence=whole, outputs=recurrence.dense.outputs or classified.outputs)


def from_the_right(expr: Expr) -> Expr:
    """The expression with every product of matrices and a column as products with columns alone."""

    def regrouped(node: Expr) -> Expr | None:
        if isinstance(node, MatMul) and node.type.is_column and isinstance(node.left, MatMul) and not node.left.left.type.is_column:
            return from_the_right(algebra.regrouped(node))
        return None

    return algebra.rewrite(expr, regrouped)
