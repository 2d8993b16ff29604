"""Runs chunk programs on exact numbers. Shares nothing with the text that back ends print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..kernel import (
    KEY,
    MEMBER,
    ROW,
    SOURCE,
    TOKEN,
    AsRow,
    AsSource,
    Carry,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Faded,
    First,
    Minus,
    Negative,
    Node,
    Part,
    Pick,
    Plus,
    Put,
    Solve,
    Stack,
    Step,
    Sum,
    Through,
    Tile,
    Times,
)


@dataclass(frozen=True)
class Grid:
    """Numbers on named axes: index (one integer an axis) -> number. None stands for a masked exponent."""

    axes: tuple[str, ...]
    cells: dict[tuple[int, ...], object]


class Runner:
    """Interprets programs for given axis sizes; `power` gives exp of a `Log`."""

    def __init__(self, sizes: dict[str, int], power: Callable):
        self.sizes = sizes
        self.power = power

    def walk(self, program: ChunkProgram, chunks: list[dict[str, Grid]], states: list[Grid]) -> tuple[list[dict[str, Grid]], list[Grid]]:
        """Outputs of every chunk and, for every carry, the state left at the end; `chunks` in order of time."""
        late = program.after_states()
        values = [dict(chunk) for chunk in chunks]
        for tiles in values:
            self._run([s for s in program.steps if s.target.name not in late], tiles)
        final = [self._carried(carry, values, state) for carry, state in zip(program.carries, states, strict=True)]
        for tiles in values:
            self._run([s for s in program.steps if s.target.name in late], tiles)
        return [{t.name: tiles[t.name] for t in program.outputs} for tiles in values], final

    def _run(self, steps: list[Step], tiles: dict[str, Grid]) -> None:
        for step in steps:
            tiles[step.target.name] = self._aligned(self.value(step.value, tiles), step.target.axes)

    def _carried(self, carry: Carry, chunks: list[dict[str, Grid]], state: Grid) -> Grid:
        """Puts the state that enters it into every chunk; gives the one left at the end."""
        for tiles in reversed(chunks) if carry.is_reverse else chunks:
            tiles[carry.state.name] = state
            kept = state
            if carry.factor is not None:
                kept = self._broadcast(tiles[carry.factor.name], state, lambda a, b: a * b)
                kept = self._aligned(kept, state.axes)
            if carry.mix:
                kept = self._mixed(carry, tiles, state)
            after = self._broadcast(kept, tiles[carry.increment.name], lambda a, b: a + b)
            if carry.write is not None:
                read = self._contract(tiles[carry.read.name], state, (ROW, *(a for a in state.axes if a not in (MEMBER, KEY))))
                erased = self._contract(tiles[carry.write.name], read, state.axes)
                after = self._broadcast(after, erased, lambda a, b: a - b)
            state = after
        return state

    def _mixed(self, carry: Carry, tiles: dict[str, Grid], state: Grid) -> Grid:
        """What every member keeps of all."""
        cells = {}
        for (a, *rest), _ in state.cells.items():
            parts = [(tiles[t.name].cells[()], state.cells[b, *rest]) for b, t in enumerate(carry.mix[a]) if t is not None]
            cells[a, *rest] = sum((factor * part for factor, part in parts), 0)
        return Grid(state.axes, cells)

    def value(self, node: Node, tiles: dict[str, Grid]) -> Grid:
        """The numbers of a node."""
        match node:
            case Tile():
                return tiles[node.name]
            case AsSource():
                grid = tiles[node.tile.name]
                return Grid(node.axes, grid.cells)
            case Contract():
                return self._contract(self.value(node.left, tiles), self.value(node.right, tiles), node.axes)
            case Times():
                return self._broadcast(self.value(node.left, tiles), self.value(node.right, tiles), lambda a, b: a * b)
            case Plus():
                return self._broadcast(self.value(node.left, tiles), self.value(node.right, tiles), lambda a, b: a + b)
            case Minus():
                return self._broadcast(self.value(node.left, tiles), self.value(node.right, tiles), lambda a, b: a - b)
            case AsRow():
                grid = self.value(node.operand, tiles)
                return Grid(node.axes, grid.cells)
            case Negative():
                grid = self.value(node.operand, tiles)
                return Grid(grid.axes, {i: x * -1 for i, x in grid.cells.items()})
            case Sum():
                return self._sum(self.value(node.operand, tiles), node.axes)
            case Exp():
                grid = self.value(node.operand, tiles)
                return Grid(grid.axes, {i: 0 if x is None else self.power(x) for i, x in grid.cells.items()})
            case CumSum():
                return self._cumsum(self.value(node.operand, tiles), node.is_reverse)
            case First():
                grid = self.value(node.operand, tiles)
                at = grid.axes.index(ROW)
                return Grid(grid.axes, {i: x if i[at] % node.size == 0 else _nothing(x) for i, x in grid.cells.items()})
            case Pick():
                grid = self.value(node.operand, tiles)
                at = grid.axes.index(ROW)
                cells = {_at(i, at, i[at] // node.rows): x for i, x in grid.cells.items() if i[at] % node.rows == node.offset}
                return Grid(node.axes, cells)
            case Put():
                grid = self.value(node.operand, tiles)
                at = node.axes.index(ROW)
                cells = {i: 0 for i in self._indices(node.axes)}
                cells.update({_at(i, at, i[at] * node.rows + node.offset): x for i, x in grid.cells.items()})
                return Grid(node.axes, cells)
            case Causal():
                return self._causal(node, self.value(node.operand, tiles))
            case Faded():
                return self._faded(node, tiles)
            case Solve():
                return self._solve(node, tiles)
            case Through():
                return self._through(node, tiles)
            case Part():
                grid = self.value(node.operand, tiles)
                at = grid.axes.index(MEMBER)
                return Grid(node.axes, {(*i[:at], *i[at + 1 :]): x for i, x in grid.cells.items() if i[at] == node.member})
            case Stack():
                return self._stack(node, tiles)
        raise ValueError(f"no meaning for {node}")

    def _through(self, node: Through, tiles: dict[str, Grid]) -> Grid:
        left, right = (self._aligned(self.value(x, tiles), node.axes) for x in (node.left, node.right))
        rows = range(self.sizes[ROW])
        a = {(j, i) if node.is_left_transposed else (i, j): x for (i, j), x in left.cells.items()}
        b = {(j, i) if node.is_right_transposed else (i, j): x for (i, j), x in right.cells.items()}
        return Grid(node.axes, {(i, j): sum((a[i, u] * b[u, j] for u in rows), 0) for i in rows for j in rows})

    def _stack(self, node: Stack, tiles: dict[str, Grid]) -> Grid:
        at, cells = node.axes.index(MEMBER), {}
        rest = tuple(a for a in node.axes if a != MEMBER)
        for number, item in enumerate(node.items):
            grid = None if item is None else self._aligned(self.value(item, tiles), rest)
            for index in self._indices(rest):
                cells[(*index[:at], number, *index[at:])] = 0 if grid is None else grid.cells[index]
        return Grid(node.axes, cells)

    def _size(self, axis: str) -> int:
        return self.sizes[ROW if axis == SOURCE else axis]

    def _indices(self, axes: tuple[str, ...]):
        return product(*(range(self._size(a)) for a in axes))

    def _aligned(self, grid: Grid, axes: tuple[str, ...]) -> Grid:
        if grid.axes == axes:
            return grid
        places = [grid.axes.index(a) for a in axes]
        return Grid(axes, {tuple(i[p] for p in places): x for i, x in grid.cells.items()})

    def _broadcast(self, left: Grid, right: Grid, combine: Callable) -> Grid:
        axes = left.axes + tuple(a for a in right.axes if a not in left.axes)
        at_left = [axes.index(a) for a in left.axes]
        at_right = [axes.index(a) for a in right.axes]
        cells = {}
        for index in self._indices(axes):
            cells[index] = combine(left.cells[tuple(index[i] for i in at_left)], right.cells[tuple(index[i] for i in at_right)])
        return Grid(axes, cells)

    def _contract(self, left: Grid, right: Grid, axes: tuple[str, ...]) -> Grid:
        every = left.axes + tuple(a for a in right.axes if a not in left.axes)
        out = [every.index(a) for a in axes]
        at_left = [every.index(a) for a in left.axes]
        at_right = [every.index(a) for a in right.axes]
        cells: dict[tuple[int, ...], object] = {i: 0 for i in self._indices(axes)}
        for index in self._indices(every):
            term = left.cells[tuple(index[i] for i in at_left)]
            if isinstance(term, int) and term == 0:
                continue
            target = tuple(index[i] for i in out)
            cells[target] = cells[target] + term * right.cells[tuple(index[i] for i in at_right)]
        return Grid(axes, cells)

    def _cumsum(self, grid: Grid, is_reverse: bool) -> Grid:
        at = grid.axes.index(ROW)
        cells: dict[tuple[int, ...], object] = {}
        rows = range(self.sizes[ROW] - 1, -1, -1) if is_reverse else range(self.sizes[ROW])
        for index in self._indices(grid.axes[:at] + grid.axes[at + 1 :]):
            total = None
            for row in rows:
                here = index[:at] + (row,) + index[at:]
                total = grid.cells[here] if total is None else total + grid.cells[here]
                cells[here] = total
        return Grid(grid.axes, cells)

    def _sum(self, grid: Grid, axes: tuple[str, ...]) -> Grid:
        at = [grid.axes.index(a) for a in axes]
        cells: dict[tuple[int, ...], object] = {}
        for index, x in grid.cells.items():
            target = tuple(index[i] for i in at)
            cells[target] = cells[target] + x if target in cells else x
        return Grid(axes, cells)

    def _causal(self, node: Causal, grid: Grid) -> Grid:
        i, j = _row_axis(grid.axes), grid.axes.index(SOURCE)
        hidden = None if node.fill == "-inf" else 0
        return Grid(grid.axes, {index: x if node.sight.sees(index[i], index[j]) else hidden for index, x in grid.cells.items()})

    def _faded(self, node: Faded, tiles: dict[str, Grid]) -> Grid:
        """The law itself: every visible pair, every key."""
        left, right = self.value(node.left, tiles), self.value(node.right, tiles)
        later, earlier = tiles[node.later.name], tiles[node.earlier.tile.name]
        row = later.axes[0]
        cells: dict[tuple[int, ...], object] = {i: 0 for i in self._indices(node.axes)}
        for i, j, n in self._indices((row, SOURCE, KEY)):
            if node.sight.sees(i, j):
                place = {row: i, SOURCE: j, KEY: n}
                weight = self.power(later.cells[i, n] - earlier.cells[j, n])
                term = left.cells[tuple(place[a] for a in left.axes)] * weight
                target = tuple(place[a] for a in node.axes)
                cells[target] = cells[target] + right.cells[tuple(place[a] for a in right.axes)] * term
        return Grid(node.axes, cells)

    def _solve(self, node: Solve, tiles: dict[str, Grid]) -> Grid:
        """Substitution: from the first row, or from the last for the transpose."""
        matrix, right = tiles[node.matrix.name], self.value(node.right, tiles)
        rows = range(self.sizes[ROW])
        cells = dict(right.cells)
        for i in reversed(rows) if node.is_transposed else rows:
            for p in range(self._size(right.axes[1])):
                for j in rows[i + 1 :] if node.is_transposed else rows[:i]:
                    entry = matrix.cells[(j, i) if node.is_transposed else (i, j)]
                    if not (isinstance(entry, int) and entry == 0):
                        cells[i, p] = cells[i, p] - entry * cells[j, p]
        return Grid(right.axes, cells)


def _row_axis(axes: tuple[str, ...]) -> int:
    return axes.index(ROW if ROW in axes else TOKEN)


def _at(index: tuple[int, ...], axis: int, value: int) -> tuple[int, ...]:
    return (*index[:axis], value, *index[axis + 1 :])


def _nothing(x):
    """0 in the arithmetic of `x`: a logarithm of 1, or a number."""
    return x - x
