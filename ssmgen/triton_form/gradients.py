"""Which part of the backward kernels gives which gradient.

Gradients of queries and keys ('query', 'key': columns along the key axis) and of values ('value': along the value axis) each
have a part of the kernel that holds their tiles. What is one number a token is summed there into a row, and the rows meet in
a last kernel ('rows'), which knows the decay's gradient. The chain from operands through definitions to arguments is
followed here, on expressions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.triton_value import HALF
from ..differentiate import cotangents, inner_of
from ..expressions import factors, nodes
from ..kernel import KEY, VALUE
from ..plan import Walk
from ..source import NOWHERE
from ..spec import Add, Apply, Dim, Expr, MatMul, Ref, Rot, Type
from ..torch_form.tokens import TokenWriter
from .folded_rows import FIRST

SCALAR = Type()
MADE = "made "
"""In front of the names of gradients and rows, which no name of the language can have."""


@dataclass(frozen=True)
class Gradient:
    """The gradient of an argument, or a row, as an expression that one part evaluates."""

    name: str
    expr: Expr
    part: str


@dataclass(frozen=True)
class Gradients:
    """Of every argument (several parts may contribute to one), and what they rest on.

    read: of what the walk read, wide and narrow columns. rows: sums over a tile's columns. scalars: gradients of definitions
    that are numbers, in the order in which they can be evaluated. needs_decay: some argument moves the decay.
    """

    read: Expr
    narrow: tuple[Expr, ...]
    arguments: tuple[Gradient, ...]
    rows: tuple[Gradient, ...]
    scalars: tuple[Gradient, ...]
    needs_decay: bool
    needs_source: bool  # the narrow columns' own gradient
    is_apart: bool  # the gradient of what was read is made before the walk: `do` stands for it, and dy and the reads are used up


def made(name: str, type: Type = SCALAR) -> Ref:
    """The gradient or row `name` in an expression."""
    return Ref(type, NOWHERE, MADE + name)


def gradients_of(tokens: TokenWriter, walk: Walk, wide: int, stores_reads: bool) -> Gradients:
    """Follow every operand's gradient to the arguments. `wide` is the index of the column that is a vector. What rows of a token read is
    made an output of apart where it is stored.

    Raises UnsupportedOperand where a tile would have to wait for the decay's gradient.
    """
    found = _Chain(tokens, walk, wide, stores_reads and tokens.folded is not None).result()
    return found if found is not None else _Chain(tokens, walk, wide, False).result()


class _Chain:
    def __init__(self, tokens: TokenWriter, walk: Walk, wide: int, is_apart: bool):
        self.tokens, self.walk, self.wide, self.is_apart = tokens, walk, wide, is_apart
        self.axis_of = axes_of_sizes(walk, wide, angle_sizes(tokens, walk))
        self.found: dict[str, list[tuple[str, Expr]]] = {}
        self.rows: dict[str, Gradient] = {}
        self.scalars: list[Gradient] = []
        self.needs_source = False

    def result(self) -> Gradients | None:
        """None where the gradient of what was read cannot be made apart."""
        read, narrow = self._readout()
        self.is_apart = self.is_apart and not (isinstance(read, Ref) and read.name == MADE + "dy")
        self._operands()
        self._definitions()
        arguments = []
        for symbol in self.tokens.arguments:
            if symbol.name in self.tokens.immaterial:
                continue
            parts: dict[str, list[Expr]] = {}
            for part, expr in self.found.get(symbol.name, []):
                parts.setdefault(part, []).append(expr)
            if symbol.type.is_scalar:
                total = [e for exprs in parts.values() for e in exprs]
                if total:
                    arguments.append(Gradient(symbol.name, self._extracted(algebra.add(*total)), "rows"))
                continue
            loose = parts.pop("", [])
            if loose:
                home = next(iter(parts), None) or ("value" if self.axis_of.get(symbol.type.rows) == VALUE else "key")
                parts[home] = parts.get(home, []) + loose
            for part, exprs in parts.items():
                total = algebra.add(*exprs)
                if part == "rows":
                    raise UnsupportedOperand(f"`{symbol.name}`, a column, inside a gate")
                self._check(total)
                arguments.append(Gradient(symbol.name, total, part))
        named = {n.name for g in (*arguments, *self.scalars) for n in nodes(g.expr) if isinstance(n, Ref)}
        needs_decay = bool({MADE + n for n in ("d_g", "d_c", "d_own")} & named)
        if self.tokens.folded is not None and any(not _has_gradient(row.expr) for row in self.rows.values()):
            raise UnsupportedOperand("a sum over columns that every row of a token has alike")
        if any(isinstance(n, Ref) and n.name == FIRST for g in (*arguments, *self.scalars) if g.part == "rows" for n in nodes(g.expr)):
            raise UnsupportedOperand("a number of a token that its first row alone meets")
        if self.is_apart and not self._is_used_up(arguments):
            return None
        rows, scalars = tuple(self.rows.values()), tuple(self.scalars)
        return Gradients(read, narrow, tuple(arguments), rows, scalars, needs_decay, self.needs_source, self.is_apart)

    def _is_used_up(self, arguments: list[Gradient]) -> bool:
        """Whether what the walk's own kernels make needs neither the output's gradient nor what was read."""
        late = {MADE + "dy", *(s.read.name for s in self.walk.slices)}
        walked = [g.expr for g in (*arguments, *self.rows.values(), *self.scalars) if g.part != "readout"]
        made_apart = [self.tokens.symbols[g.name].type.rows for g in arguments if g.part == "readout"]
        return all(self.axis_of.get(size) == VALUE for size in made_apart) and not any(
            isinstance(n, Ref) and n.name in late for expr in walked for n in nodes(expr)
        )

    # --- where gradients start ---

    def _readout(self) -> tuple[Expr, tuple[Expr, ...]]:
        """Gradients of the reads, wide and narrow; what reaches arguments directly is kept."""
        _, value = self.tokens.outputs[0]
        reads = {s.read.name: s.column for s in self.walk.slices}
        of_column: dict[int, list[Expr]] = {}
        others = []
        for name, expr in cotangents(value, made("dy", value.type)):
            if name in reads:
                of_column.setdefault(reads[name], []).append(expr)
            else:
                others.append((name, expr))
        for name, expr in others:
            whole = algebra.add(*of_column.get(self.wide, [algebra.const(0)]))
            own = self._through(expr, whole) if self.is_apart else expr
            is_walked = not self.is_apart or not any(isinstance(n, Ref) and n.name == MADE + "dy" for n in nodes(own))
            self._push("" if is_walked else "readout", name, own)
        columns = self.walk.columns
        if self.wide not in of_column:
            raise UnsupportedOperand("the output does not read the matrix")
        narrow = tuple(algebra.add(*of_column.get(i, [algebra.const(0)])) for i in range(len(columns)) if i != self.wide)
        return algebra.add(*of_column[self.wide]), narrow

    @staticmethod
    def _through(expr: Expr, read: Expr) -> Expr:
        """A gradient with that of what was read under its name, where it is a factor."""

        part, wanted, under = factors(read)
        if under or part == 0:
            return expr

        def rest_of(above: tuple[Expr, ...]) -> list[Expr] | None:
            """The other factors of a product that has all of the gradient's."""
            left = list(above)
            for factor in wanted:
                match = next((f for f in left if algebra.key(f) == algebra.key(factor)), None)
                if match is None:
                    return None
                left.remove(match)
            return left

        def term(one: Expr) -> Expr:
            number, above, below = factors(one)
            rest = rest_of(above)
            if rest is not None:
                return algebra.product(number / part, (*rest, made("do", read.type)), below)
            for place, factor in enumerate(above):
                if not (isinstance(factor, MatMul) and factor.type.is_scalar and factor.left.type.is_row):
                    continue
                inside = factors(algebra.mul(algebra.transpose(factor.left), factor.right))
                rest = rest_of(inside[1])
                if rest and not inside[2]:
                    summed = inner_of(made("do", read.type), algebra.product(inside[0] / part, tuple(rest)))
                    return algebra.product(number, (*above[:place], summed, *above[place + 1 :]), below)
            return one

        return algebra.add(*map(term, expr.terms)) if isinstance(expr, Add) else term(expr)

    def _operands(self) -> None:
        walk = self.walk
        for part, expr, name in (("query", walk.readings[0].query, "d_q"), ("key", walk.key, "d_k")):
            if expr is not None:
                if expr.type.is_scalar:
                    raise UnsupportedOperand("a scalar key")
                self._spread(part, expr, made(name, expr.type))
                angle = dict(walk.turns).get(part)
                if angle is not None:
                    self._spread(part, angle, algebra.apply("pair_cross", expr, made(name, expr.type), type=angle.type))
        share: Expr | None = None
        narrow = 0
        for index, column in enumerate(walk.columns):
            if index == self.wide:
                gradient = made("d_v", SCALAR if column.value is None else column.value.type)
            else:
                gradient = made(f"d_u{narrow}")
                narrow += 1
            if column.value is not None:
                # of values that their own tokens read with another weight, the walk gives the whole gradient
                bare = walk.coefficient is None or walk.own is not None
                scaled = gradient if bare else algebra.mul(walk.coefficient, gradient)
                self._spread("value" if index == self.wide else "rows", column.value, scaled)
            part = gradient if column.value is None else inner_of(gradient, column.value)
            share = part if share is None else algebra.add(share, part)
        if walk.own is not None:
            self._spread("rows", walk.own, made("d_own"))
        if walk.coefficient is not None:
            self._spread("rows", walk.coefficient, share if walk.own is None else made("d_c"))
        self.needs_source = len(walk.columns) > 1 and (
            walk.coefficient is not None or any(c.value is not None for i, c in enumerate(walk.columns) if i != self.wide)
        )
        if walk.log_decay is not None:
            self._spread("rows", walk.log_decay, made("d_g"))

    def _spread(self, part: str, expr: Expr, gradient: Expr) -> None:
        for name, contribution in cotangents(expr, gradient):
            self._push(part, name, contribution)

    def _push(self, part: str, name: str, expr: Expr) -> None:
        self.found.setdefault(name, []).append((part, expr))

    # --- through definitions ---

    def _definitions(self) -> None:
        for name in reversed(self.tokens.ordered_definitions()):
            entries = self.found.pop(name, [])
            if not entries or not self.tokens.reaches_argument(name):
                continue
            definition = self.tokens.definitions[name]
            if definition.type.is_scalar:
                total = self._extracted(algebra.add(*(e for _, e in entries)))
                self.scalars.append(Gradient(f"d_{name}", total, "rows"))
                own = Ref(definition.type, NOWHERE, name)
                for inner, contribution in cotangents(definition, made(f"d_{name}"), own):
                    self._push("rows", inner, contribution)
            else:
                parts: dict[str, list[Expr]] = {}
                for part, expr in entries:
                    parts.setdefault(part, []).append(expr)
                for part, exprs in parts.items():
                    self._spread(part, definition, algebra.add(*exprs))

    # --- rows ---

    def _extracted(self, expr: Expr) -> Expr:
        """A number a token, with every sum over columns taken out as a row of its own."""

        def row(node: Expr) -> Expr | None:
            is_inner = isinstance(node, MatMul) and node.type.is_scalar and not node.left.type.is_scalar
            if not is_inner and not (isinstance(node, Apply) and node.function in ("sum", "norm") and node.type.is_scalar):
                return None
            key = algebra.key(node)
            if key not in self.rows:
                self._check(node)
                self.rows[key] = Gradient(f"row{len(self.rows)}", node, self._home(node))
            return made(self.rows[key].name)

        return algebra.rewrite(expr, row)

    def _home(self, node: Expr) -> str:
        """The part that sums a row: the one whose gradient is in it, else the one whose tiles lie along its axis."""
        names = {n.name for n in nodes(node) if isinstance(n, Ref)}
        for part, gradient in (("query", "d_q"), ("key", "d_k"), ("value", "d_v")):
            if MADE + gradient in names:
                return part
        # as many values as keys have one size, and these lie along the values all the same
        if names & {MADE + "dy", MADE + "do", *(s.read.name for s in self.walk.slices)}:
            return "value"
        inner = node.left.type.cols if isinstance(node, MatMul) else node.args[0].type.rows
        return "value" if self.axis_of.get(inner) == VALUE else "key"

    def _check(self, expr: Expr) -> None:
        late = {MADE + g.name for g in self.scalars} | {MADE + n for n in ("d_g", "d_c", "d_own")}
        for node in nodes(expr):
            if isinstance(node, Ref) and (node.name in late or node.name.startswith(MADE + "d_u")):
                raise UnsupportedOperand(f"a column that waits for `{node.name}`")


def _has_gradient(expr: Expr) -> bool:
    return any(isinstance(node, Ref) and node.name.startswith(MADE) for node in nodes(expr))


def angle_sizes(tokens: TokenWriter, walk: Walk) -> tuple[Dim, ...]:
    """Sizes that stand for pairs: of the angles of states that turn, and of those by which a column is turned."""
    found = [t.step.type.rows for t in tokens.recurrence.turnings] + [angle.type.rows for _, angle in walk.turns]
    found += [n.operand.type.rows for n in turns(tokens, [*_keys(walk), *_values(tokens, walk)]) if not n.operand.type.is_scalar]
    return tuple(dict.fromkeys(found))


def paired_axis(tokens: TokenWriter, walk: Walk) -> str:
    """The axis along which pairs turn: that of keys, or that of values where no key does. Raises UnsupportedOperand for both."""
    keys, values = (
        [n.type.rows for n in turns(tokens, columns) if not n.type.is_scalar] for columns in (_keys(walk), _values(tokens, walk))
    )
    own = None if walk.key is None else walk.key.type.rows
    if any(size != own for size in values) and any(size == own for size in (*keys, *values)):
        raise UnsupportedOperand("pairs of values beside pairs of keys")
    return VALUE if any(size != own for size in values) else KEY


def _keys(walk: Walk) -> list[Expr]:
    """What lies along the axis of keys."""
    columns = [e for row in walk.rows for e in (row.key, row.erase, row.log_decay) if e is not None]
    return columns + [r.query for r in walk.readings if r.query is not None and not r.is_value]


def _values(tokens: TokenWriter, walk: Walk) -> list[Expr]:
    """What lies along the axis of values: what is written, and the output."""
    asked = [r.query for r in walk.readings if r.query is not None and r.is_value]
    return [e for row in walk.rows for e in row.values if e is not None] + asked + [value for _, value in tokens.outputs]


def turns(tokens: TokenWriter, columns: list[Expr]) -> list[Rot]:
    """What turns in some columns, in their own text or in that of a definition."""
    found, seen, waiting = [], set(), list(columns)
    while waiting:
        for node in nodes(waiting.pop()):
            if isinstance(node, Rot):
                found.append(node)
            elif isinstance(node, Ref) and node.name in tokens.definitions and node.name not in seen:
                seen.add(node.name)
                waiting.append(tokens.definitions[node.name])
    return found


def axes_of_sizes(walk: Walk, wide: int, angles: Iterable[Dim] = ()) -> dict[Dim, str]:
    """The axis along which a size lies: the key's, or the value's; that of pairs of keys for those of `angles`."""
    value = walk.columns[wide].value
    found = {} if value is None or value.type.is_scalar else {value.type.rows: VALUE}
    if walk.key is not None and not walk.key.type.is_scalar:
        found[walk.key.type.rows] = KEY
    return dict.fromkeys(angles, HALF) | found
