"""In which ways one state of a recurrence can be written: what in it is a gauge, proved from the equations.

A running maximum is one where its only effect is how the other states are scaled, the position where it only turns them.

With S = X e^(-w m) and S' = X' e^(-w m'), m and m' must drop out of the update of every X and out of every output. Then
(S, m) and (S e^(-w d), m + d) are one state for every d. Each factor is held to be e^(a m + b m') times something free of
both; what has no such form, as m beside a number that m does not scale (a maximum with 1, an added epsilon), refutes the gauge.
An output may take its exponents relative to a maximum t of m and something else: t moves in a way of its own, and must drop out as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .expressions import children, constant, factors, key, nodes
from .recurrence import Generator, Maximum, MicroStep, Recurrence, Transition, Write
from .small import all_nodes
from .spec import Add, Apply, Delayed, Diag, Div, Element, Expr, MatMul, Mul, Neg, Pow, Ref, SumOver, Transpose

Degree = tuple[Fraction, Fraction, Fraction]  # (a, b, c) of e^(a m + b m' + c t), t a maximum of m and of something free of it

NONE = Fraction(0)
FREE: Degree = (NONE, NONE, NONE)

_SCALED = {"abs": Fraction(1), "relu": Fraction(1), "square": Fraction(2), "sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2)}
"""Functions of one argument with f(c x) = c^p f(x) for c > 0."""


@dataclass(frozen=True)
class Gauge:
    """A running maximum that is a gauge. The state named in `powers` is multiplied by e^(-power d) where the maximum moves by d."""

    maximum: str
    powers: tuple[tuple[str, Fraction], ...]


class _NoGauge(Exception):
    """Something has no power of e^m, or another one than its neighbours."""


def gauges(recurrence: Recurrence) -> tuple[Gauge, ...]:
    """The running maxima of a recurrence that are proved to be gauges, in order of declaration."""
    if recurrence.sequential:
        return ()
    found = []
    for maximum in recurrence.maxima:
        try:
            found.append(_Proof(recurrence, maximum).gauge())
        except _NoGauge:
            continue
    return tuple(found)


def scalings(recurrence: Recurrence) -> tuple[Gauge, ...]:
    """Those whose every effect is on states as they were derived: the gradient of such a maximum is that of the states it scales."""
    if recurrence.aheads or any(isinstance(node, Delayed) for node in all_nodes(recurrence.written)):
        return ()
    return gauges(recurrence.upright)


def immaterial(recurrence: Recurrence) -> frozenset[str]:
    """The names, before and after a token, of maxima that operators are given without a gradient."""
    found = {gauge.maximum for gauge in scalings(recurrence)}
    return frozenset(name for m in recurrence.maxima if m.state in found for name in (m.before, m.after))


class _Proof:
    """The degrees of everything that one running maximum scales. `is_wide`: it has an entry a row, and scales row by row."""

    def __init__(self, recurrence: Recurrence, maximum: Maximum):
        self.recurrence, self.maximum = recurrence, maximum
        state = recurrence.written.state(maximum.state)
        self.type, self.per, self.is_wide = state.type, state.per, not state.type.is_scalar
        self.hoisted = dict(recurrence.hoisted)
        self.reads: dict[str, Degree] = {}
        self.top: Expr | None = None
        self.bound = {maximum.before, maximum.after} | {r.name for r in recurrence.reads}

    def gauge(self) -> Gauge:
        """The powers of all states; raises _NoGauge where they are not consistent."""
        powers = {state.name: self._power(state.name) for state in self.recurrence.spec.states}
        for state in self.recurrence.spec.states:
            if powers[state.name] and (state.per != self.per or (self.is_wide and state.type.rows != self.type.rows)):
                raise _NoGauge
        held = {name: (-power, NONE, NONE) for name, power in powers.items()}
        before = dict(held)
        for step in self.recurrence.steps:
            held = self._after(step, held)
        if held != {name: (NONE, -power, NONE) for name, power in powers.items()}:
            raise _NoGauge
        for read in self.recurrence.reads:
            self.reads[read.name] = self._read(read.query, read.side, (held if read.primed else before)[read.state])
        for _, value in self.recurrence.outputs:
            if self.degree(value) not in (None, FREE):
                raise _NoGauge
        return Gauge(self.maximum.state, tuple((name, power) for name, power in powers.items() if power))

    def _power(self, state: str) -> Fraction:
        """What the last write of a state says of its power, or its last transition; the proof holds it against all others."""
        for step in reversed(self.recurrence.steps):
            for term in (*step.writes, *step.transitions):
                if term.target == state:
                    degree = self._write(term) if isinstance(term, Write) else self._map(term)
                    if degree is not None:
                        return -degree[1]
        return Fraction(0)

    def _after(self, step: MicroStep, held: dict[str, Degree]) -> dict[str, Degree]:
        """The degrees that a micro-step leaves, given those it finds."""
        found: dict[str, list[Degree | None]] = {name: [] for name in held}
        for term in step.transitions:
            found[term.target].append(_product(self._map(term), held[term.source]))
        for write in step.writes:
            degree = self._write(write)
            if write.tap:
                # what the token before wrote enters beside the state, before the maps act
                if degree not in (None, held[write.target]):
                    raise _NoGauge
            else:
                found[write.target].append(degree)
        after = {}
        for name, degrees in found.items():
            agreed = _agreed(degrees)
            after[name] = held[name] if agreed is None else agreed
        if step.count is not None and after != held:
            raise _NoGauge
        return after

    def _map(self, term: Transition) -> Degree | None:
        """The degree of the factors of a transition."""
        total = self.degree(term.coefficient)
        for place, generator in [(True, g) for g in term.left] + [(False, g) for g in term.right]:
            total = _product(total, self._generator(generator, place))
        return total

    def _generator(self, generator: Generator, is_left: bool) -> Degree | None:
        parts = [self.degree(generator.column)] + ([] if generator.row is None else [self.degree(generator.row)])
        is_entrywise = generator.kind == "elementwise" or (generator.kind == "diagonal" and is_left)
        if any(part not in (None, FREE) for part in parts) and generator.kind in ("rotation", "dense"):
            raise _NoGauge
        if self.is_wide and not is_entrywise:
            # it adds rows of different scales
            raise _NoGauge
        total: Degree | None = FREE
        for part in parts:
            total = _product(total, part)
        return total

    def _write(self, write: Write) -> Degree | None:
        parts = [self.degree(x) for x in (write.coefficient, write.weight, write.key, write.value) if x is not None]
        beside = [x for x in (write.weight, write.value if write.key is not None else None) if x is not None]
        if self.is_wide and any(self.degree(x) not in (None, FREE) for x in beside):
            raise _NoGauge
        total: Degree | None = FREE
        for part in parts:
            total = _product(total, part)
        return total

    def _read(self, query: Expr | None, side: str, state: Degree) -> Degree:
        total = state if query is None else _product(state, self.degree(query))
        if total is None:
            return FREE
        is_mixed = total != FREE if side == "key" else query is not None and self.degree(query) not in (None, FREE)
        if self.is_wide and query is not None and is_mixed:
            # a sum over rows of different scales, or a scale for columns, which rows have not
            raise _NoGauge
        return total

    # --- expressions -------------------------------------------------------------------------------------------------

    def degree(self, expr: Expr) -> Degree | None:
        """(a, b, c) with `expr` = e^(a m + b m' + c t) times something free of all; None for 0, which is so for all. Raises _NoGauge."""
        if not self._is_bound(expr):
            return None if constant(expr) == 0 else FREE
        match expr:
            case Ref(name=name) if name in self.hoisted:
                return self.degree(self.hoisted[name])
            case Ref(name=name) if name in self.reads:
                return self.reads[name]
            case Apply(function="exp", args=(exponent,)):
                return self._exponent(exponent)
            case Apply(function="max" | "min", args=args):
                return _agreed([self.degree(arg) for arg in args])
            case Apply(function=name, args=(arg,)) if name in _SCALED:
                return _power_of(self.degree(arg), _SCALED[name])
            case Apply(function="norm", args=(arg,)) if not self.is_wide:
                return self.degree(arg)
            case Add(terms=terms):
                return _agreed([self.degree(term) for term in terms])
            case Mul(left=left, right=right):
                return _product(self.degree(left), self.degree(right))
            case MatMul(left=left, right=right) if not self.is_wide or isinstance(left, Diag):
                return _product(self.degree(left), self.degree(right))
            case Div(left=left, right=right):
                return _product(self.degree(left), _power_of(self.degree(right), Fraction(-1)))
            case Neg(operand=operand) | Transpose(operand=operand) | Diag(operand=operand):
                return self.degree(operand)
            case SumOver(body=body):
                return self.degree(body)
            case Element(base=base) if not self.is_wide:
                return self.degree(base)
            case Pow(base=base, exponent=exponent) if constant(exponent) is not None:
                return _power_of(self.degree(base), constant(exponent))
        raise _NoGauge

    def _exponent(self, expr: Expr) -> Degree:
        """(a, b, c) with `expr` = a m + b m' + c t + something free of all."""
        if not self._is_bound(expr):
            return FREE
        match expr:
            case Ref(name=self.maximum.before):
                return Fraction(1), NONE, NONE
            case Ref(name=self.maximum.after):
                return NONE, Fraction(1), NONE
            case Ref(name=name) if name in self.hoisted:
                return self._exponent(self.hoisted[name])
            case Add(terms=terms):
                parts = [self._exponent(term) for term in terms]
                return tuple(sum(powers) for powers in zip(*parts, strict=True))
            case Apply(function="max" | "min", args=args):
                found = {self._exponent(arg) for arg in args}
                return found.pop() if len(found) == 1 else self._own(expr)
            case Neg() | Mul() | Div():
                number, above, below = factors(expr)
                if len(above) == 1 and not below and above[0] != expr:
                    return tuple(number * power for power in self._exponent(above[0]))
        raise _NoGauge

    def _own(self, expr: Expr) -> Degree:
        """A maximum that m does not move as it moves itself: one of them, a number, may be divided out again."""
        if not expr.type.is_scalar or (self.top is not None and key(self.top) != key(expr)):
            raise _NoGauge
        self.top = expr
        return NONE, NONE, Fraction(1)

    def _is_bound(self, expr: Expr) -> bool:
        """Whether m, m' or a read of a state occurs in `expr`."""
        for node in nodes(expr):
            if isinstance(node, (Ref, Delayed)):
                if node.name in self.bound or (node.name in self.hoisted and self._is_bound(self.hoisted[node.name])):
                    return True
        return False


def _product(left: Degree | None, right: Degree | None) -> Degree | None:
    if left is None or right is None:
        return None
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _power_of(degree: Degree | None, exponent: Fraction) -> Degree | None:
    return None if degree is None else tuple(power * exponent for power in degree)


def _agreed(degrees: list[Degree | None]) -> Degree | None:
    """The one degree of terms that are added; None where all are 0."""
    found = set(degrees) - {None}
    if len(found) > 1:
        raise _NoGauge
    return next(iter(found), None)


# --- positions ---------------------------------------------------------------------------------------------------


def turned_by_position(recurrence: Recurrence) -> tuple[str, ...]:
    """The states that stand in the frame of the position: keys and queries are turned by it, and what matters is how far apart.

    Where every key that is written and every query that reads is `rope` of something free of the position, and every map between
    two tokens keeps rotations, (S, position) and (rope(S, -d), position - d) are one state. Empty where the position is not read
    or is not proved to matter in this way alone.
    """
    if recurrence.sequential or recurrence.written.resets:
        return ()
    try:
        return _Turns(recurrence).states()
    except _NoGauge:
        return ()


class _Turns:
    """How often each value is turned by the position: 0 or 1. Raises _NoGauge for a value that is neither."""

    def __init__(self, recurrence: Recurrence):
        self.recurrence = recurrence
        definitions = {s.name: s.definition for s in recurrence.spec.symbols if s.definition is not None}
        self.definitions = definitions | dict(recurrence.hoisted)

    def states(self) -> tuple[str, ...]:
        """The states that are turned once."""
        found: dict[str, int] = {}
        for step in self.recurrence.steps:
            for write in step.writes:
                self._same(found, write.target, 0 if write.key is None else self.turns(write.key))
                self._free(write.coefficient, write.weight, write.value, None if write.weight is None else write.key)
        found |= {s.name: 0 for s in (*self.recurrence.spec.states, *self.recurrence.written.states) if s.name not in found}
        for step in self.recurrence.steps:
            for term in step.transitions:
                self._same(found, term.target, found[term.source])
                self._free(term.coefficient, *(x for g in term.right for x in (g.column, g.row)))
                for generator in term.left:
                    self._map(generator, found[term.source])
        for read in self.recurrence.reads:
            turns = 0 if read.query is None else self.turns(read.query)
            if found[read.state] != (turns if read.side == "key" else 0) or (read.side != "key" and turns):
                raise _NoGauge
        self._free(*(value for _, value in self.recurrence.outputs))
        self._free(*(x for m in self.recurrence.maxima for x in (m.shift, m.value)))
        return tuple(name for name in (s.name for s in self.recurrence.spec.states) if found[name])

    def _same(self, found: dict[str, int], state: str, turns: int) -> None:
        if found.setdefault(state, turns) != turns:
            raise _NoGauge

    def _free(self, *values: Expr | None) -> None:
        if any(value is not None and self.turns(value) for value in values):
            raise _NoGauge

    def _map(self, generator: Generator, turns: int) -> None:
        """A map of a state from the left: a rank-one matrix turns with it; one factor for every row would not."""
        parts = [generator.column] + ([] if generator.row is None else [generator.row])
        if any(self.turns(part) != (turns if generator.kind == "rank_one" else 0) for part in parts):
            raise _NoGauge
        if turns and generator.kind != "rank_one" and not generator.column.type.is_scalar:
            raise _NoGauge

    def turns(self, expr: Expr) -> int:
        """0 for a value that is free of the position, 1 for a column that is turned by it."""
        match expr:
            case Ref(name="position"):
                raise _NoGauge
            case Ref(name=name):
                return self.turns(self.definitions[name]) if name in self.definitions else 0
            case Delayed(name=name):
                # what is kept of the token before is kept as it was turned there
                self._free(self.definitions.get(name))
                return 0
            case Apply(function="rope", args=(inner,)):
                self._free(inner)
                return 1
            case MatMul(left=Transpose(operand=left), right=right) if self.turns(left) and self.turns(right):
                return 0  # an inner product of two that are turned alike
            case Add(terms=terms):
                found = {self.turns(term) for term in terms}
                if len(found) > 1:
                    raise _NoGauge
                return found.pop()
            case Neg(operand=operand):
                return self.turns(operand)
            case Mul(left=left, right=right) if left.type.is_scalar or right.type.is_scalar:
                number, value = (left, right) if left.type.is_scalar else (right, left)
                self._free(number)
                return self.turns(value)
            case Div(left=left, right=right) if right.type.is_scalar:
                self._free(right)
                return self.turns(left)
        self._free(*children(expr))
        return 0
