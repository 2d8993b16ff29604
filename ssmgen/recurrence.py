"""The recurrence as algebra: what each token does to the state, as sums of products of known factors.

After `derive` every update is a polynomial of degree at most one in the state, written term by term:

    S' = sum  coefficient * L_1 L_2 ... S ... R_1 R_2   +   sum  coefficient * key value^T

where every L and R is a `Generator` (a diagonal, a rotation, a rank-one matrix, a dense matrix) and every factor is an
expression of the token alone. The output is an expression over `Read`s, the linear forms of the state it uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .source import NOWHERE, Span
from .spec import Add, Apply, Dim, Expr, Neg, Ref, StateRef
from .spec import Recurrence as Spec

BUILT_IN = ("head", "heads", "channel", "channels", "layer", "layers", "position", "pi", "i")
"""Names that no declaration gives."""


@dataclass(frozen=True)
class Generator:
    """One linear map on a side of the state.

    kind: 'diagonal' (column, N), 'rotation' (column of angles, N/2), 'rank_one' (column times row^T), 'part' (column times the
    real part of row^T times the state), 'dense' (N x N),
    'elementwise' (N x P, multiplies the state entry by entry; the last in `left`, next to the state).
    `column` holds the expression; `row` is the erase vector of 'rank_one' (as a column). A term between states of different
    shapes carries 'dense' maps that are not square.
    """

    kind: str
    column: Expr
    row: Expr | None = None


@dataclass(frozen=True)
class Transition:
    """`coefficient * left_1 left_2 ... source ... right_1 right_2` added to `target'`.

    `rank`: the term is summed over `index` = 1..rank, all reading the same old state.
    """

    target: str
    source: str
    coefficient: Expr
    left: tuple[Generator, ...] = ()
    right: tuple[Generator, ...] = ()
    index: str | None = None
    rank: Dim | None = None
    span: Span = field(default=Span(0, 0), compare=False)


@dataclass(frozen=True)
class Write:
    """`coefficient * key value^T` added to `target'`.

    `tap` 1: the previous token's write enters again, before the transitions act: S' = A (S + sum of taps 1) + sum of taps 0.
    Its coefficient belongs to the current token, its key, value and weight are those of the previous token (zero before the first).
    A vector state [N] has `value` None (its single column); a state that is never contracted, [P], has `key` None.
    `rank` is the number of rows summed over (`sum r in 1..R`), with `index` the loop name used inside the factors.
    `weight` (N x P) multiplies what is written entry by entry, `coefficient * weight * (key value^T)`; a key or value of None is then 1
    in every entry.
    """

    target: str
    coefficient: Expr
    key: Expr | None
    value: Expr | None
    tap: int = 0
    index: str | None = None
    rank: Dim | None = None
    span: Span = field(default=Span(0, 0), compare=False)
    weight: Expr | None = None


@dataclass(frozen=True)
class MicroStep:
    """One affine map of the states. A token applies its micro-steps in order; `count` repeats one over `index`.

    `transitions` and `writes` read the states left by the previous micro-step (or by the previous token). A state that a
    micro-step leaves as it is has its identity transition; a state with no transition forgets everything.
    """

    transitions: tuple[Transition, ...]
    writes: tuple[Write, ...]
    index: str | None = None
    count: Dim | None = None


@dataclass(frozen=True)
class Read:
    """A linear form of one state, named for use in the output expression.

    side: 'key' (query^T S, gives [P], or a scalar for a vector state), 'value' (S query, gives [N]), 'whole' (the state
    itself, query None). `primed`: reads S' (after the token) rather than S. A query inside `sum r in 1..R` of the output
    uses the index r.
    """

    name: str
    state: str
    primed: bool
    query: Expr | None
    side: str = "key"
    span: Span = field(default=Span(0, 0), compare=False)


@dataclass(frozen=True)
class DiscreteForm:
    """What discretization found: the method, its order, and the multipliers of the state and of the write.

    `order` is that for a smooth input; `held_order` for an input that is constant during a step, None when exact.
    """

    method: str
    order: int
    transition: str  # for people: exp(dt*a)
    weights: tuple[str, ...]  # for people, tap 0 first
    singular: str = ""  # where the textbook formula is 0/0 and what is emitted instead
    held_order: int | None = None
    special: str = ""  # the value of a parameter at which the order is higher
    contracting: tuple[str, ...] = ()  # states that no step lengthens: their rate draws towards 0, and the method keeps that
    joint: tuple[tuple[str, ...], ...] = ()  # states that feed each other, of which no eigenvalue of a step is outside the unit disc


@dataclass(frozen=True)
class Maximum:
    """`state' = max(shift + state, value)`: a running maximum, which obeys the algebra of maximum and sum.

    It reads no other state, so it is a scan of its own before everything else; to the other equations the maximum before
    and after the token are values of the token, `Ref(before)` and `Ref(after)`. `shift` None: 0.
    """

    state: str
    shift: Expr | None
    value: Expr

    @property
    def before(self) -> str:
        """The name of the maximum before the token, as other equations read it."""
        return self.state

    @property
    def after(self) -> str:
        """The name of the maximum after the token."""
        return f"{self.state}'"

    @property
    def nonpositive(self) -> tuple[tuple[Expr, ...], ...]:
        """Terms of which the maximum is taken, each with the maximum taken away."""
        type = self.value.type
        below = Neg(type, NOWHERE, Ref(type, NOWHERE, self.after))
        moved = () if self.shift is None else self.shift.terms if isinstance(self.shift, Add) else (self.shift,)
        found, waiting = [(*moved, Ref(type, NOWHERE, self.before), below)], [self.value]
        while waiting:
            expr = waiting.pop()
            if isinstance(expr, Apply) and expr.function == "max":
                waiting += expr.args
            else:
                found.append((*(expr.terms if isinstance(expr, Add) else (expr,)), below))
        return tuple(found)


@dataclass(frozen=True)
class Turning:
    """`angle' = angle + step`: the running angle of a frame that turns along with some states.

    It reads no state, so it is a sum of its own before everything else; to the walks it is a value of the token, `Ref(name)`,
    known modulo 2 pi. `step`: a column, one entry a pair. `states`: (state, side of it that turns), 'left' for its keys.
    """

    name: str
    step: Expr
    states: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pair:
    """A complex name of the text, and the names of its real and its imaginary part."""

    name: str
    re: str
    im: str


@dataclass(frozen=True)
class RowNames:
    """An argument of several rows of the text, and the names of its rows."""

    name: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Dense:
    """Products of matrices that stand outside of a scan.

    `before`: (name, product), inputs of the scan. `reads`: the names of the rows of the scan's output, where a matrix takes them:
    `outputs` are then the recurrence's over those names; empty where the scan gives the output itself. `bent`: those of `before` of
    which a function is taken, which their rounding would be in.
    """

    before: tuple[tuple[str, Expr], ...]
    reads: tuple[str, ...]
    outputs: tuple[tuple[str, Expr], ...]
    bent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ahead:
    """The coefficient with which what a token writes comes back at the next one, as a value of the token: `Ref(name)`.

    It reads no state: `coefficient` of every token is known before everything else, and taken a token earlier; 0 at the last one.
    `writes`: the writes of tap 1 that it replaces, which the state that a call begins with takes in.
    """

    name: str
    coefficient: Expr
    writes: tuple[Write, ...]


@dataclass(frozen=True)
class Own:
    """What a read of a state that looks ahead takes of the token's own write, which the output has beside the read."""

    read: str
    coefficient: Expr


@dataclass(frozen=True)
class Recurrence:
    """The derived recurrence: a spec's algebra.

    `spec` is its part that is affine in the states; `written` the whole of it, where running maxima stand apart as `maxima` and
    complex names as `pairs` of real ones.
    In a frame that turns along no rotation is left: `turnings` are its angles. States that look ahead are written once a token:
    `aheads` are by how much more, `owns` by how much a token reads its own. Products of matrices that stand outside of a scan are
    `dense`. `upright` is the recurrence as it was derived.
    """

    spec: Spec
    steps: tuple[MicroStep, ...]
    reads: tuple[Read, ...]
    outputs: tuple[tuple[str, Expr], ...]  # over the spec's names and Ref(read.name)
    discrete: DiscreteForm | None
    adjoint: tuple[str, ...]  # for people: the adjoint recurrence, line by line
    hoisted: tuple[tuple[str, Expr], ...] = ()  # definitions that derive named, in order of use
    warnings: tuple = ()
    sequential: str = ""  # why no affine form exists (then steps and reads are empty, and outputs read the states)
    maxima: tuple[Maximum, ...] = ()
    whole: Spec | None = None  # the spec with its running maxima, rotations and complex names; None where it is `spec`
    turnings: tuple[Turning, ...] = ()
    aheads: tuple[Ahead, ...] = ()
    owns: tuple[Own, ...] = ()
    incomplete: tuple[tuple[str, Expr], ...] = ()  # the outputs without what `owns` are of
    unturned: Recurrence | None = None  # the recurrence of the states as they are; None where it is this one
    dense: Dense | None = None  # where products stand outside of the scan
    pairs: tuple[Pair, ...] = ()  # of symbols and states, where `spec` is over real and imaginary parts
    rows: tuple[RowNames, ...] = ()  # of arguments, where `spec` is over single rows

    @property
    def written(self) -> Spec:
        """The spec as it was written."""
        return self.spec if self.whole is None else self.whole

    @property
    def upright(self) -> Recurrence:
        """The recurrence of the states as they are, with their rotations and all writes."""
        return self if self.unturned is None else self.unturned.upright

    @property
    def worded(self) -> Spec:
        """The spec whose equations people read: over complex numbers where they were written so."""
        return self.written if self.pairs or self.rows else self.spec

    @property
    def nonpositive(self) -> tuple[tuple[Expr, ...], ...]:
        """Terms whose sum is at most 0 whatever the token: what a running maximum is taken of, less the maximum."""
        return tuple(terms for m in self.maxima for terms in m.nonpositive)

    def __str__(self) -> str:
        from .recurrence_text import recurrence_text

        return recurrence_text(self).rstrip()

    def verify(self) -> None:
        """Raise AssertionError when the value breaks this form's law: every name resolves, no factor reads a state."""
        if self.sequential:
            assert not self.steps and not self.reads, "a sequential recurrence has no affine form"
            return
        names = {s.name for s in self.spec.symbols} | {n for n, _ in self.hoisted}
        names |= {n for n, _ in (*self.spec.constants, *self.spec.counts)} | set(BUILT_IN)
        states = {s.name for s in self.spec.states}
        for step in self.steps:
            for transition in step.transitions:
                assert transition.target in states and transition.source in states, transition
                for factor in _factors(transition):
                    _assert_token_only(factor, names | {step.index, transition.index})
            for write in step.writes:
                assert write.target in states and write.tap in (0, 1), write
                for factor in (write.coefficient, write.key, write.value, write.weight):
                    if factor is not None:
                        _assert_token_only(factor, names | {step.index, write.index})
        for read in self.reads:
            assert read.state in states and read.name not in names, read
            if read.query is not None:
                _assert_token_only(read.query)
        for _, value in self.outputs:
            _assert_token_only(value)
        for maximum in self.maxima:
            assert {maximum.before, maximum.after} <= names and maximum.state not in states, maximum
            for factor in (maximum.shift, maximum.value):
                if factor is not None:
                    _assert_token_only(factor, names)
        for turning in self.turnings:
            assert turning.name in names and {name for name, _ in turning.states} <= states, turning
            _assert_token_only(turning.step, names - {turning.name})
        for ahead in self.aheads:
            assert ahead.name in names, ahead
            _assert_token_only(ahead.coefficient, names - {ahead.name})


def _factors(transition: Transition):
    yield transition.coefficient
    for generator in transition.left + transition.right:
        yield generator.column
        if generator.row is not None:
            yield generator.row


def _assert_token_only(expr: Expr, names: set[str | None] | None = None) -> None:
    for node in walk(expr):
        assert not isinstance(node, StateRef), f"a factor reads the state: {node}"
        assert names is None or not isinstance(node, Ref) or node.name in names, f"no such name: {node}"


def walk(expr: Expr):
    """Every node of an expression, parents first."""
    yield expr
    for value in vars(expr).values():
        if isinstance(value, Expr):
            yield from walk(value)
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, Expr):
                    yield from walk(item)
