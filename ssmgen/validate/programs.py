"""Runs chunk programs on exact numbers. Shares nothing with the text that back ends print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..kernel import (
    ROW,
    SOURCE,
    AsSource,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Last,
    Minus,
    Node,
    Plus,
    Tile,
    Times,
)  # fmt: skip


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

    def walk(self, program: ChunkProgram, chunks: list[dict[str, Grid]], state: Grid) -> tuple[list[dict[str, Grid]], Grid]:
        """Outputs of every chunk and the state left at the end; `chunks` in order of time."""
        outputs: list[dict[str, Grid]] = [{} for _ in chunks]
        order = range(len(chunks) - 1, -1, -1) if program.is_reverse else range(len(chunks))
        for c in order:
            tiles = dict(chunks[c])
            tiles[program.carry.state.name] = state
            for step in program.steps:
                tiles[step.target.name] = self._aligned(self.value(step.value, tiles), step.target.axes)
            outputs[c] = {t.name: tiles[t.name] for t in program.outputs}
            kept = state
            if program.carry.factor is not None:
                kept = self._broadcast(tiles[program.carry.factor.name], state, lambda a, b: a * b)
            state = self._broadcast(kept, tiles[program.carry.increment.name], lambda a, b: a + b)
        return outputs, state

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
            case Exp():
                grid = self.value(node.operand, tiles)
                return Grid(grid.axes, {i: 0 if x is None else self.power(x) for i, x in grid.cells.items()})
            case CumSum():
                return self._cumsum(self.value(node.operand, tiles), node.is_reverse)
            case Last():
                grid = self.value(node.operand, tiles)
                at, end = grid.axes.index(ROW), self.sizes[ROW] - 1
                return Grid(node.axes, {i[:at] + i[at + 1 :]: x for i, x in grid.cells.items() if i[at] == end})
            case Causal():
                return self._causal(node, self.value(node.operand, tiles))
        raise ValueError(f"no meaning for {node}")

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

    def _causal(self, node: Causal, grid: Grid) -> Grid:
        i, j = grid.axes.index(ROW), grid.axes.index(SOURCE)
        hidden = None if node.fill == "-inf" else 0

        def sees(index) -> bool:
            row, source = (index[j], index[i]) if node.is_reverse else (index[i], index[j])
            return source < row if node.is_strict else source <= row

        return Grid(grid.axes, {index: x if sees(index) else hidden for index, x in grid.cells.items()})
