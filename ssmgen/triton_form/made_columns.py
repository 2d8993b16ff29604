"""kernels -> the same kernels over columns that are made before the walk, where a walk would make them again and again.

A walk's kernels make keys and queries from the arguments wherever they need them: five to eight times a token, forwards and
backwards. A column that turns costs them sine, cosine and a change of layout each time, and registers beside the state. Such
columns are made once a direction and read as they are: to the walk they are inputs. So are inner products of keys in what is left,
which then needs no key beside the one that turned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import algebra
from ..expressions import nodes
from ..kernel import KEY, Kernels
from ..plan import Classified, Walk
from ..source import NOWHERE
from ..spec import Apply, Delayed, Expr, MatMul, Neg, Ref, Rot, Symbol
from ..torch_form.tokens import TokenWriter
from .gradients import angle_sizes, axes_of_sizes

PER = {"h": "head", "g": "group", "": "layer"}


@dataclass(frozen=True)
class Made:
    """A value of a token that is made before the walk, and the input of the walk that it is."""

    symbol: Symbol
    expr: Expr
    angle: Expr | None = None  # by which it is turned last, where the walk gives the angle's gradient


def apart(kernels: Kernels, wide: int) -> tuple[Kernels, tuple[Made, ...]]:
    """The kernels over what is made before them, and that; as they are, and nothing, where no column turns.

    `wide` is the index of the walk's column that is a vector. Of one walk with one query and one row a token.
    """
    return _Apart(kernels, wide).result()


class _Apart:
    def __init__(self, kernels: Kernels, wide: int):
        self.kernels, self.classified = kernels, kernels.plan.classified
        self.walk: Walk = kernels.walks[0].walk
        self.wide = wide
        self.tokens = TokenWriter(self.classified)
        self.axis_of = axes_of_sizes(self.walk, wide, angle_sizes(self.tokens, self.walk))
        self.made: dict[str, Made] = {}
        self.spec = self.classified.recurrence.spec

    def result(self) -> tuple[Kernels, tuple[Made, ...]]:
        reading, row = self.walk.readings[0], self.walk.rows[0]
        value = row.values[self.wide]
        columns = {"key": row.key, "query": reading.query, "value": value}
        turning = {name: expr for name, expr in columns.items() if expr is not None and self._turns(expr) and self._place(expr).has_time}
        if not turning:
            return self.kernels, ()
        self.level = PER[
            "h" if any(self._place(e).level == "h" for e in turning.values()) else self._place(next(iter(turning.values()))).level
        ]
        key = self._column("made_k", row.key) if "key" in turning else row.key
        query = self._column("made_q", reading.query) if "query" in turning else reading.query
        values = row.values
        if "value" in turning:
            values = (*values[: self.wide], self._column("made_v", value), *values[self.wide + 1 :])
        outputs = tuple((name, self._without_products(value)) for name, value in self.classified.outputs)
        definitions = {name: self._without_products(value) for name, value in self.tokens.definitions.items()}
        made = ((name, self.made.get(e.name)) for name, e in (("key", key), ("query", query)) if isinstance(e, Ref))
        turns = tuple((name, value.angle) for name, value in made if value is not None and value.angle is not None)
        walk = replace(self.walk, rows=(replace(row, key=key, values=values),), readings=(replace(reading, query=query),), turns=turns)
        classified = self._over(walk, outputs, definitions)
        if classified.folded is not None:
            own = {m.symbol.name for m in self.made.values() if self._has_rows(m.expr)}
            classified = replace(classified, folded=replace(classified.folded, names=classified.folded.names | own))
        plan = replace(self.kernels.plan, classified=classified)
        return replace(self.kernels, plan=plan, walks=(replace(self.kernels.walks[0], walk=walk),)), tuple(self.made.values())

    def _angle(self, expr: Expr) -> Expr | None:
        """The running angle that turns a head's column, or less than nothing of it."""
        _, column = algebra.split_scalar(expr)
        if self.level != "head" or not isinstance(column, MatMul) or not isinstance(column.left, Rot):
            return None
        angle = column.left.operand
        bare = angle.operand if isinstance(angle, Neg) else angle
        own = {s.name for s in self.spec.symbols if s.per == "head"} & {t.name for t in self.classified.recurrence.turnings}
        return angle if isinstance(bare, Ref) and bare.name in own else None

    def _has_rows(self, expr: Expr) -> bool:
        """Whether a value differs between the rows of a token."""
        return any(isinstance(node, Ref) and node.name in self.classified.folded.names for node in nodes(expr))

    def _place(self, expr: Expr):
        return self.tokens.printer.place(expr)

    def _turns(self, expr: Expr) -> bool:
        """Whether a value is turned, in its own text or in that of a definition."""
        for node in nodes(expr):
            if isinstance(node, Rot) or (isinstance(node, Apply) and node.function == "rope"):
                return True
            if isinstance(node, Ref) and node.name in self.tokens.definitions and self._turns(self.tokens.definitions[node.name]):
                return True
        return False

    def _column(self, name: str, expr: Expr) -> Ref:
        symbol = Symbol(self.spec.free_name(name), "input", expr.type, self.level, NOWHERE)
        self.made[symbol.name] = Made(symbol, expr, self._angle(expr) if name in ("made_k", "made_q") else None)
        return Ref(expr.type, NOWHERE, symbol.name)

    def _without_products(self, expr: Expr) -> Expr:
        """The expression with every inner product of keys as a number that is made before."""

        def product(node: Expr) -> Expr | None:
            if not isinstance(node, MatMul) or not node.type.is_scalar or node.left.type.is_scalar:
                return None
            names = {n.name for n in nodes(node) if isinstance(n, Ref)}
            if self.axis_of.get(node.left.type.cols) != KEY or not names <= self.tokens.printer.places.keys():
                return None  # of values, or of what is read
            if not self._place(node).has_time or PER[self._place(node).level] not in (self.level, "layer", "group"):
                return None
            for known in self.made.values():
                if algebra.key(known.expr) == algebra.key(node):
                    return Ref(node.type, NOWHERE, known.symbol.name)
            return self._column(f"made_{len(self.made)}", node)

        return algebra.rewrite(expr, product)

    def _over(self, walk: Walk, outputs, definitions: dict[str, Expr]) -> Classified:
        """The recurrence of what is left: the names that it still needs, and those that are made."""
        recurrence = self.classified.recurrence
        row = walk.rows[0]
        angles = [angle for _, angle in walk.turns]
        found = (row.key, row.coefficient, row.log_decay, *row.values, walk.own, walk.readings[0].query, *angles)
        waiting = [e for e in found if e is not None]
        waiting += [value for _, value in outputs]
        needed: set[str] = set()
        while waiting:
            for node in nodes(waiting.pop()):
                if isinstance(node, Ref | Delayed) and node.name not in needed:
                    needed.add(node.name)
                    waiting += [definitions[node.name]] if node.name in definitions else []
        symbols = [m.symbol for m in self.made.values() if m.symbol.name in needed]
        for symbol in self.spec.symbols:
            if symbol.name in needed:
                symbols.append(symbol if symbol.definition is None else replace(symbol, definition=definitions[symbol.name]))
        hoisted = tuple((name, definitions[name]) for name, _ in recurrence.hoisted if name in needed)
        own = replace(recurrence, spec=replace(self.spec, symbols=tuple(symbols)), hoisted=hoisted, turnings=())
        return replace(self.classified, recurrence=own, walks=(walk,), outputs=outputs)
