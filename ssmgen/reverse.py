"""The gradient of a chunk program: reverse mode over its tiles.

A chunk takes S entering and gives reads o and S leaving. Of the loss <do, o> + <D, S leaving> the rules below give the
gradient of every input and of S entering. The part of the latter that comes from the reads alone does not need D: it is
the increment of the walk from the right, which carries D by the transpose of the forward walk's own law.

No axis has a rule here, and no adjoint is derived by hand: a law that lowers to the nodes of `kernel` is differentiated.
"""

from __future__ import annotations

from .kernel import (
    ROW,
    SOURCE,
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
    tiles,
)
from .kernel_text import equation


def gradient(forward: ChunkProgram, title: str) -> ChunkProgram:
    """The program that takes what `forward` takes, `do` for every output `o` and the gradient of its final state.

    It carries S once more from the left, and D from the right; it gives `dx` for every input x of `forward`.
    """
    return _Gradient(forward).program(title)


class _Gradient:
    def __init__(self, forward: ChunkProgram):
        self.forward = forward
        (self.carry,) = forward.carries
        self.S = self.carry.state
        self.D = Tile("D", self.S.axes)
        self.given = {o.name: Tile(f"d{o.name}", o.axes) for o in forward.outputs}
        # outputs themselves are not needed
        self.steps: list[Step] = [s for s in forward.steps if s.target.name not in self.given]
        self.known: dict[Node, Tile] = {s.value: s.target for s in self.steps}
        self.late = forward.after_states()

    def program(self, title: str) -> ChunkProgram:
        increment = self._pass(only=self.late, leaving=False, suffix="_o")[self.S.name]
        increment = self._step(Tile("Y", self.S.axes), increment, is_output=True)
        cotangents = self._pass(only=None, leaving=True, suffix="")
        outputs = []
        for tile in self.forward.inputs:
            outputs.append(self._step(Tile(f"d{tile.name}", tile.axes), cotangents[tile.name], is_output=True))
        carry = self.carry
        back = Carry(
            self.D, carry.factor, increment, carry.math.replace(f"{self.S.name}", "D").replace(carry.increment.name, "Y"),
            carry.read, carry.write, is_reverse=True, mix=tuple(zip(*carry.mix)),
        )  # fmt: skip
        carries = (carry, back)
        steps = _needed(self.steps, (*outputs, *(t for c in carries for t in c.tiles)))
        return ChunkProgram("gradient", title, (*self.forward.inputs, *self.given.values()), steps, carries, tuple(outputs))

    # --- passes ---

    def _pass(self, only: frozenset[str] | None, leaving: bool, suffix: str) -> dict[str, Node]:
        """Cotangents of what is not a step: inputs and S. `only`: the tiles to go through; `leaving`: S leaving has gradient D."""
        self.only, self.suffix = only, suffix
        self.found: dict[str, list[tuple[bool, Node]]] = {}
        for name, tile in self.given.items():
            self._add(name, tile)
        if leaving:
            self._pull(self.forward.leaving, self.D, None)
        for step in reversed(self.forward.steps):
            if step.target.name in self.found:
                cotangent = self._total(step.target)
                if step.target.name not in self.given:
                    cotangent = self._step(Tile(f"d{step.target.name}{suffix}", step.target.axes), cotangent)
                self._pull(step.value, cotangent, step.target)
        names = [t.name for t in self.forward.inputs] if only is None else []
        return {tile.name: self._total(tile) for tile in (*self.forward.inputs, self.S) if tile.name in (*names, self.S.name)}

    def _total(self, tile: Tile) -> Node:
        total: Node | None = None
        # what is added stands before what is taken away
        for is_negative, node in sorted(self.found.pop(tile.name), key=lambda part: part[0]):
            if total is None:
                total = Negative(node) if is_negative else node
            else:
                total = Minus(total, node) if is_negative else Plus(total, node)
        return total

    def _step(self, target: Tile, value: Node, is_output: bool = False) -> Tile:
        """`value` under a name: the one it has, or `target`."""
        if not is_output and isinstance(value, Tile):
            return value
        if not is_output and value in self.known:
            return self.known[value]
        self.steps.append(Step(equation(target, value), target, value))
        self.known.setdefault(value, target)
        return target

    def _add(self, name: str, node: Node, is_negative: bool = False) -> None:
        if self.only is not None and name not in self.only and name not in self.given:
            return
        while isinstance(node, Negative):
            node, is_negative = node.operand, not is_negative
        self.found.setdefault(name, []).append((is_negative, self.known.get(node, node)))

    # --- rules ---

    def _pull(self, node: Node, d: Node, y: Tile | None) -> None:
        """Hand the cotangent `d` of `node`, whose value has the name `y`, to the tiles that it is made of."""
        if self.only is not None and not any(t.name in self.only for t in tiles(node)):
            return
        match node:
            case Tile():
                self._add(node.name, d)
            case AsSource():
                self._add(node.tile.name, Negative(AsRow(d.operand)) if isinstance(d, Negative) else AsRow(d))
            case Contract():
                self._pull(node.left, Contract(d, node.right, node.left.axes), None)
                self._pull(node.right, Contract(node.left, d, node.right.axes), None)
            case Times():
                self._pull(node.left, _product(d, node.right, node.left.axes), None)
                self._pull(node.right, _product(node.left, d, node.right.axes), None)
            case Plus():
                self._pull(node.left, _reduced(d, node.left.axes), None)
                self._pull(node.right, _reduced(d, node.right.axes), None)
            case Minus():
                self._pull(node.left, _reduced(d, node.left.axes), None)
                self._pull(node.right, Negative(_reduced(d, node.right.axes)), None)
            case Sum():
                # broadcast where it meets the others
                self._pull(node.operand, d, None)
            case Exp():
                # what the mask hides has y = 0
                inner = node.operand.operand if isinstance(node.operand, Causal) else node.operand
                self._pull(inner, self._step(Tile(f"e{y.name}", y.axes), self._times(d, y)), None)
            case CumSum():
                self._pull(node.operand, CumSum(d, not node.is_reverse), None)
            case First():
                self._pull(node.operand, First(d, node.size), None)
            case Pick():
                self._pull(node.operand, Put(d, node.rows, node.offset), None)
            case Causal():
                self._pull(node.operand, Causal(d, node.sight, node.fill), None)
            case Faded():
                self._faded(node, d, y)
            case Solve():
                dx = self._step(Tile(f"r{y.name}", y.axes), Solve(node.matrix, d, not node.is_transposed))
                self._pull(node.right, dx, None)
                pair = Contract(dx, AsSource(y), (ROW, SOURCE))
                self._add(node.matrix.name, pair, is_negative=True)
            case AsRow():
                self._pull(node.operand, AsSource(self._step(Tile(f"a{y.name}", y.axes), d)), None)
            case Through():
                self._through(node, d)
            case Part():
                own = self._step(Tile(f"m{len(self.steps)}", d.axes), d)
                self._pull(node.operand, Stack(tuple(own if a == node.member else None for a in range(node.count))), None)
            case Stack():
                for a, item in enumerate(node.items):
                    if item is not None:
                        self._pull(item, Part(d, a, len(node.items)), None)
            case _:
                raise ValueError(f"no rule for {node!r}")

    def _through(self, node: Through, d: Node) -> None:
        """Of d = L R: dL = d R^T, dR = L^T d, and the transpose of it for a factor that entered transposed."""
        left, right, flips = node.left, node.right, (node.is_left_transposed, node.is_right_transposed)
        of_left = Through(right, d, flips[1], True) if flips[0] else Through(d, right, False, not flips[1])
        of_right = Through(d, left, True, flips[0]) if flips[1] else Through(left, d, not flips[0], False)
        self._pull(left, of_left, None)
        self._pull(right, of_right, None)

    def _times(self, d: Node, y: Tile) -> Node:
        """d * y; (x * b) * y is x * (y * b) where the program has y * b already."""
        value = next((s.value for s in self.steps if s.target == d), d)
        if isinstance(value, Times) and Times(y, value.right) in self.known:
            return Times(value.left, self.known[Times(y, value.right)])
        return Times(d, y)

    def _faded(self, node: Faded, d: Node, y: Tile) -> None:
        """Of a product of three, the gradient of each is the product of the other two and the result's; so is that of the
        exponents, which multiply each: summed over the sources, it is the gradient of what lies on rows and keys, times that."""
        left, right = node.left, node.right
        assert isinstance(left, Tile) and isinstance(right, AsSource)
        # pairs stand before what lies on keys
        pairs, keys = (left, d) if SOURCE in left.axes else (d, left)
        of_left = Faded(d, right, node.later, node.earlier, node.sight, left.axes)
        of_right = AsRow(Faded(pairs, keys, node.later, node.earlier, node.sight, right.axes))
        of_left = self._step(Tile(f"d{left.name}_{_name(d)}", left.axes), of_left)
        of_right = self._step(Tile(f"d{right.tile.name}_{_name(d)}", right.tile.axes), of_right)
        self._add(left.name, of_left)
        self._add(right.tile.name, of_right)
        self._add(node.later.name, Times(y, d) if SOURCE in left.axes else Times(left, of_left))
        self._add(node.earlier.tile.name, Times(right.tile, of_right), is_negative=True)


def _name(d: Node) -> str:
    assert isinstance(d, Tile)
    return d.name.removeprefix("d")


def _product(left: Node, right: Node, axes: tuple[str, ...]) -> Node:
    every = set(left.axes) | set(right.axes)
    return Times(left, right) if every == set(axes) else Contract(left, right, axes)


def _reduced(d: Node, axes: tuple[str, ...]) -> Node:
    return d if set(d.axes) <= set(axes) else Sum(d, axes)


def _needed(steps: list[Step], wanted: tuple[Tile, ...]) -> tuple[Step, ...]:
    """The steps that `wanted` rests on, in order."""
    names = {t.name for t in wanted}
    kept = []
    for step in reversed(steps):
        if step.target.name in names:
            kept.append(step)
            names |= {t.name for t in tiles(step.value)}
    return tuple(reversed(kept))
