"""Chunk programs: the steps of one chunk on tiles with named axes, before any text.

Axes: `i` the rows of a chunk, `j` the same rows as sources, `t` its tokens where a token has several rows (else `i`), `n`
the key axis, `p` the value columns, `m` the states of a walk that has several members. A back end prints a program as batched
tensor code or as the body of a loop over chunks; the validator runs it on exact numbers. The tile `S` (or `D` backwards) is
the state entering the chunk, and a `Carry` says what leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .plan import Plan, Walk
from .scan import ScanProgram

TOKEN, ROW, SOURCE, MEMBER, KEY, VALUE = "t", "i", "j", "m", "n", "p"


@dataclass(frozen=True)
class Tile:
    """A named tile; `axes` in layout order."""

    name: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class AsSource:
    """The same rows, as sources: axis `i` renamed `j`."""

    tile: Tile

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(SOURCE if a == ROW else a for a in self.tile.axes)


@dataclass(frozen=True)
class AsRow:
    """A value on sources, as rows: axis `j` renamed `i`."""

    operand: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(ROW if a == SOURCE else a for a in self.operand.axes)


@dataclass(frozen=True)
class Contract:
    """Product of two values summed over every axis that `axes` leaves out."""

    left: Node
    right: Node
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Times:
    """Elementwise product, broadcast by axis name."""

    left: Node
    right: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return join(self.left.axes, self.right.axes)


@dataclass(frozen=True)
class Plus:
    left: Node
    right: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return join(self.left.axes, self.right.axes)


@dataclass(frozen=True)
class Minus:
    left: Node
    right: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return join(self.left.axes, self.right.axes)


@dataclass(frozen=True)
class Negative:
    operand: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return self.operand.axes


@dataclass(frozen=True)
class Sum:
    """Summed over every axis that `axes` leaves out."""

    operand: Node
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Exp:
    operand: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return self.operand.axes


@dataclass(frozen=True)
class CumSum:
    """Running sum over the rows, inclusive; from the last row when `is_reverse`."""

    operand: Node
    is_reverse: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        return self.operand.axes


@dataclass(frozen=True)
class First:
    """Keeps the first of every `size` rows; the rest become 0."""

    operand: Node
    size: int

    @property
    def axes(self) -> tuple[str, ...]:
        return self.operand.axes


@dataclass(frozen=True)
class Pick:
    """Row `offset` of every token of `rows` rows: axis `i` becomes `t`."""

    operand: Node
    rows: int
    offset: int

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(TOKEN if a == ROW else a for a in self.operand.axes)


@dataclass(frozen=True)
class Put:
    """The transpose of `Pick`: a token's value at its row `offset`, 0 at its other rows."""

    operand: Node
    rows: int
    offset: int

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(ROW if a == TOKEN else a for a in self.operand.axes)


@dataclass(frozen=True)
class Sight:
    """Which sources a row sees: rows come in groups of `left`, sources in groups of `right`, and a row sees the groups up
    to its own; strictly before its own when `is_strict`."""

    is_strict: bool
    left: int = 1
    right: int = 1

    def sees(self, row: int, source: int) -> bool:
        """Whether row number `row` sees source number `source`."""
        ahead = source // self.right - row // self.left
        return ahead < 0 if self.is_strict else ahead <= 0


@dataclass(frozen=True)
class Causal:
    """Keeps the entries of visible sources; the rest become `fill`: '0', or '-inf' for an exponent that is about to be
    taken, so that a masked difference never overflows."""

    operand: Node
    sight: Sight
    fill: str

    @property
    def axes(self) -> tuple[str, ...]:
        return self.operand.axes


@dataclass(frozen=True)
class Faded:
    """Product of two values and of exp(later_in - earlier_jn) over visible pairs, summed over the axis that `axes` leaves out.

    Of the axes (row, source, key) each operand has two and the result has two. One node, since its exponents are safe only
    together: exp(later) exp(-earlier) overflows where their product is at most 1. How to be safe is the back end's matter.
    """

    left: Node
    right: Node
    later: Tile
    earlier: AsSource
    sight: Sight
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Solve:
    """x with (1 + matrix) x = right, of a strictly lower triangular matrix [i, j]; with its transpose when `is_transposed`."""

    matrix: Tile
    right: Node
    is_transposed: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        return self.right.axes


@dataclass(frozen=True)
class Through:
    """The product of two matrices of pairs [i, j], summed over what lies between; of their transposes where the flags say so."""

    left: Node
    right: Node
    is_left_transposed: bool = False
    is_right_transposed: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        return (ROW, SOURCE)


@dataclass(frozen=True)
class Part:
    """One member of a value that has `count`."""

    operand: Node
    member: int
    count: int

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(a for a in self.operand.axes if a != MEMBER)


@dataclass(frozen=True)
class Stack:
    """Values of all members, side by side; None: zeros."""

    items: tuple[Node | None, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        (first, *_) = (item for item in self.items if item is not None)
        return join(first.axes, (MEMBER,))


Node = (
    Tile | AsSource | AsRow | Contract | Times | Plus | Minus | Negative | Sum | Exp | CumSum | First | Pick | Put | Causal | Faded | Solve
    | Through | Part | Stack
)  # fmt: skip

LAYOUT = (TOKEN, ROW, SOURCE, MEMBER, KEY, VALUE)


def join(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    """The union of two axis lists in layout order."""
    return tuple(a for a in LAYOUT if a in left or a in right)


@dataclass(frozen=True)
class Step:
    """`target = value`, with the mathematics as a comment."""

    math: str
    target: Tile
    value: Node


@dataclass(frozen=True)
class Carry:
    """What leaves the chunk: state = factor * state + increment - sum_i write_i (read_i . state).

    `factor` None: 1; `write` and `read` are None where nothing is erased. `is_reverse`: from the last chunk to the first. Where
    the state has members, `mix` stands in the place of the factor: what a member (first index) keeps of each.
    """

    state: Tile
    factor: Tile | None
    increment: Tile
    math: str
    write: Tile | None = None
    read: Tile | None = None
    is_reverse: bool = False
    mix: tuple[tuple[Tile | None, ...], ...] = ()

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """What the steps must have given."""
        mixed = (t for line in self.mix for t in line)
        return tuple(t for t in (self.factor, self.increment, self.write, self.read, *mixed) if t is not None)


@dataclass(frozen=True)
class ChunkProgram:
    """One walk over the chunks: the steps, and the states carried from chunk to chunk, forwards or backwards in time.

    `steps` in order; those that use a state entering the chunk come after those that do not. `leaving`: what leaves the
    chunk as a value of the steps' tiles, which is what is differentiated; None in a program that is a gradient.
    """

    name: str
    title: str  # the recurrence it walks, as an equation
    inputs: tuple[Tile, ...]
    steps: tuple[Step, ...]
    carries: tuple[Carry, ...]
    outputs: tuple[Tile, ...]
    leaving: Node | None = None

    def verify(self) -> None:
        """Raise AssertionError when a step uses an unknown tile or the axes do not fit."""
        known = {t.name: t.axes for t in self.inputs}
        known |= {c.state.name: c.state.axes for c in self.carries}
        for step in self.steps:
            for tile in tiles(step.value):
                assert known.get(tile.name) == tile.axes, (self.name, step.target.name, tile)
            assert set(step.value.axes) == set(step.target.axes), (self.name, step)
            assert step.target.name not in known, (self.name, step.target.name)
            known[step.target.name] = step.target.axes
        late = self.after_states()
        for carry in self.carries:
            assert not any(t.name in late for t in carry.tiles), (self.name, carry)
        for tile in (*self.outputs, *(t for c in self.carries for t in c.tiles)):
            assert known.get(tile.name) == tile.axes, (self.name, tile)

    def after_states(self) -> frozenset[str]:
        """The tiles that depend on a state entering the chunk, states included."""
        dependent = {c.state.name for c in self.carries}
        for s in self.steps:
            if any(t.name in dependent for t in tiles(s.value)):
                dependent.add(s.target.name)
        return frozenset(dependent)


def operands(node: Node) -> tuple[Node, ...]:
    """The nodes that a node is made of."""
    if isinstance(node, (Tile, AsSource)):
        return ()
    if isinstance(node, Faded):
        return (node.left, node.right, node.later, node.earlier)
    if isinstance(node, Solve):
        return (node.matrix, node.right)
    if isinstance(node, Stack):
        return tuple(item for item in node.items if item is not None)
    if isinstance(node, (Contract, Times, Plus, Minus, Through)):
        return (node.left, node.right)
    return (node.operand,)


def tiles(node: Node) -> tuple[Tile, ...]:
    """Every tile a value reads, in order of appearance."""
    if isinstance(node, Tile):
        return (node,)
    if isinstance(node, AsSource):
        return (node.tile,)
    return tuple(t for operand in operands(node) for t in tiles(operand))


# --- a plan's programs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WalkKernels:
    """The programs of one walk: what it reads, and the gradients of all that it takes."""

    walk: Walk
    forward: ChunkProgram
    gradient: ChunkProgram


@dataclass(frozen=True)
class Kernels:
    """A plan with the programs that carry it: chunk programs of its walks, or one scan program."""

    plan: Plan
    walks: tuple[WalkKernels, ...]
    scan: ScanProgram | None = None

    def __str__(self) -> str:
        from .kernel_text import kernels_text

        return kernels_text(self)

    def verify(self) -> None:
        """Raise AssertionError when a program breaks the law of `kernel`."""
        for walk in self.walks:
            for program in programs(walk):
                program.verify()
        if self.scan is not None:
            self.scan.verify()


def programs(walk: WalkKernels) -> tuple[ChunkProgram, ...]:
    """Forward first."""
    return (walk.forward, walk.gradient)
