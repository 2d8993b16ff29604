"""Chunk programs: the steps of one chunk on tiles with named axes, before any text.

Axes: `i` the rows (tokens) of a chunk, `j` the same rows as sources, `n` the key axis, `p` the value columns. A back end
prints a program as batched tensor code or as the body of a loop over chunks; the validator runs it on exact numbers.
The tile `S` (or `D` backwards) is the state entering the chunk, and `carry` is what leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .plan import Plan, Walk

ROW, SOURCE, KEY, VALUE = "i", "j", "n", "p"


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
class Last:
    """The value at the chunk's last row; drops `i`."""

    operand: Node

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(a for a in self.operand.axes if a != ROW)


@dataclass(frozen=True)
class Causal:
    """Keeps entries with source j at or before row i (strictly before when `is_strict`); the rest become `fill`.

    `is_reverse`: source j at or after row i. `fill` is '0', or '-inf' for an exponent that is about to be taken: a masked
    difference never overflows.
    """

    operand: Node
    is_strict: bool
    fill: str
    is_reverse: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        return self.operand.axes


Node = Tile | AsSource | Contract | Times | Plus | Minus | Exp | CumSum | Last | Causal

LAYOUT = (ROW, SOURCE, KEY, VALUE)


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
    """What leaves the chunk: state = factor * state + increment (`factor` None: 1). `increment` is a tile of a step."""

    state: Tile
    factor: Tile | None
    increment: Tile
    math: str


@dataclass(frozen=True)
class ChunkProgram:
    """One walk over the chunks, forwards or backwards in time.

    `steps` in order; those that use the state entering the chunk come after those that do not.
    """

    name: str
    title: str  # the recurrence it walks, as an equation
    is_reverse: bool
    inputs: tuple[Tile, ...]
    steps: tuple[Step, ...]
    carry: Carry
    outputs: tuple[Tile, ...]

    def verify(self) -> None:
        """Raise AssertionError when a step uses an unknown tile or the axes do not fit."""
        known = {t.name: t.axes for t in self.inputs}
        known[self.carry.state.name] = self.carry.state.axes
        for step in self.steps:
            for tile in tiles(step.value):
                assert known.get(tile.name) == tile.axes, (self.name, step.target.name, tile)
            assert set(step.value.axes) == set(step.target.axes), (self.name, step)
            known[step.target.name] = step.target.axes
        for tile in (*self.outputs, self.carry.increment, *([self.carry.factor] if self.carry.factor else [])):
            assert known.get(tile.name) == tile.axes, (self.name, tile)

    def needs_state(self, step: Step) -> bool:
        """True when the step depends on the state entering the chunk."""
        dependent = {self.carry.state.name}
        for s in self.steps:
            if any(t.name in dependent for t in tiles(s.value)):
                dependent.add(s.target.name)
        return step.target.name in dependent


def tiles(node: Node) -> tuple[Tile, ...]:
    """Every tile a value reads, in order of appearance."""
    if isinstance(node, Tile):
        return (node,)
    if isinstance(node, AsSource):
        return (node.tile,)
    if isinstance(node, (Contract, Times, Plus, Minus)):
        return tiles(node.left) + tiles(node.right)
    return tiles(node.operand)


# --- a plan's programs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WalkKernels:
    """The programs of one walk; `decay_gradient` is None when nothing decays."""

    walk: Walk
    forward: ChunkProgram
    query_gradient: ChunkProgram
    source_gradient: ChunkProgram
    decay_gradient: ChunkProgram | None


@dataclass(frozen=True)
class Kernels:
    """A plan with the programs that carry it."""

    plan: Plan
    walks: tuple[WalkKernels, ...]

    def __str__(self) -> str:
        from .kernel_text import kernels_text

        return kernels_text(self)

    def verify(self) -> None:
        """Raise AssertionError when a program breaks the law of `kernel`."""
        for walk in self.walks:
            for program in programs(walk):
                program.verify()


def programs(walk: WalkKernels) -> tuple[ChunkProgram, ...]:
    """Forward first."""
    every = (walk.forward, walk.query_gradient, walk.source_gradient, walk.decay_gradient)
    return tuple(p for p in every if p is not None)
