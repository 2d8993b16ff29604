"""Questions 1 and 2 for states that feed each other: the law of a token, and its gradients without a rule for them.

As polynomials the gradients are the partial derivatives of the loss; over the rationals they are held against its exact slope
along a random direction, by numbers a + b h with h^2 = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ..kernel import KEY, MEMBER, ROW, TOKEN, VALUE, WalkKernels
from ..plan import Walk
from .exact import Log, Polynomial
from .programs import Grid, Runner

KEYS = 2


class Difference(Exception):
    """The programs are not the law: what differs, and where."""


@dataclass(frozen=True)
class Slope:
    """a + b h with h^2 = 0."""

    value: Fraction
    along: Fraction = Fraction(0)

    def __add__(self, other):
        other = _slope(other)
        return Slope(self.value + other.value, self.along + other.along)

    __radd__ = __add__

    def __sub__(self, other):
        other = _slope(other)
        return Slope(self.value - other.value, self.along - other.along)

    def __mul__(self, other):
        other = _slope(other)
        return Slope(self.value * other.value, self.value * other.along + self.along * other.value)

    __rmul__ = __mul__


def _slope(x) -> Slope:
    return x if isinstance(x, Slope) else Slope(Fraction(x))


Operands = dict[str, list[list]]
"""Every operand [t][n], [t][p] or [t][0] by its name in the programs, decays in the place of their logarithms; `S<a>` are states [n][p]."""


def drawn(walk: Walk, length: int, columns: int, number: Callable, decay: Callable) -> Operands:
    """Operands and an initial state."""
    widths = {f"q{r.name[1:]}": KEYS for r in walk.readings} | {"k": KEYS, "v": columns} | ({"e": KEYS} if walk.has_erase else {})
    found = {name: [[number() for _ in range(width)] for _ in range(length)] for name, width in widths.items()}
    found |= {name: [[decay() if name[0] == "g" else number()] for _ in range(length)] for name, _ in walk.numbers}
    return found | {f"S{a}": [[number() for _ in range(columns)] for _ in range(KEYS)] for a in range(len(walk.members))}


def law(walk: Walk, given: Operands) -> tuple[dict[str, list[list]], list[list[list]]]:
    """The reads [t][p] by their names, and the states that the last token leaves: one token after the other."""
    states = [given[f"S{a}"] for a in range(len(walk.members))]
    reads: dict[str, list[list]] = {r.name: [] for r in walk.readings}
    for t in range(len(given["k"])):
        before, number = states, lambda name, t=t: given[name][t][0]
        written = given["v"][t]
        if walk.has_erase:
            read = _read(given["e"][t], before[walk.rows[0].erases])
            written = [v - x for v, x in zip(written, read, strict=True)]
        states = []
        for a, member in enumerate(walk.members):
            parts = [(number(f"g{a}"), before[a]), *((number(f"c{a}{b}"), before[b]) for b, _ in member.takes)]
            new = [[sum((c * s[n][p] for c, s in parts), 0) for p in range(len(written))] for n in range(KEYS)]
            if member.share is not None:
                share = number(f"s{a}")
                new = [[x + share * given["k"][t][n] * w for x, w in zip(line, written, strict=True)] for n, line in enumerate(new)]
            states.append(new)
        for r in walk.readings:
            source = (states if r.is_inclusive else before)[r.member]
            reads[r.name].append(_read(given[f"q{r.name[1:]}"][t], source))
    return reads, states


def _read(query: list, state: list[list]) -> list:
    return [sum((q * line[p] for q, line in zip(query, state, strict=True)), 0) for p in range(len(state[0]))]


def identities(kernels: WalkKernels, length: int, chunk: int) -> int:
    """Every operand a variable: the number of identities that hold. Raises Difference."""
    count = iter(range(10**6))
    variable = lambda: Polynomial.variable(next(count))  # noqa: E731
    walk = kernels.walk
    given = drawn(walk, length, 1, variable, variable)
    pulls = {f"d{r.name}": [[variable()] for _ in range(length)] for r in walk.readings}
    ends = [[[variable()] for _ in range(KEYS)] for _ in walk.members]
    reads, last = law(walk, given)
    loss = _loss(walk, reads, last, pulls, ends)
    slopes = loss.gradient()

    def of(name: str, x: Polynomial) -> Polynomial:
        ((monomial, _),) = x.terms.items()
        found = slopes.get(monomial[0], Polynomial())
        return x * found if name[0] == "g" else found

    found = _run(kernels, given, pulls, ends, chunk, 1)
    expected = {f"d{name}": [[of(name, x) for x in row] for row in rows] for name, rows in given.items()}
    expected |= dict(reads) | {f"last S{a}": state for a, state in enumerate(last)}
    total = 0
    for name, rows in expected.items():
        for i, row in enumerate(rows):
            for j, x in enumerate(row):
                total += 1
                if not (found[name][i][j] == x or x == found[name][i][j]):
                    raise Difference(f"{name}[{i}, {j}] at {length} tokens in chunks of {chunk}")
    return total


def numbers(kernels: WalkKernels, length: int, chunk: int, functions) -> int:
    """Over random rationals: the number of equal numbers. Raises Difference."""
    walk, columns = kernels.walk, 3
    given = drawn(walk, length, columns, functions.number, functions.between)
    pulls = {f"d{r.name}": [[functions.number() for _ in range(columns)] for _ in range(length)] for r in walk.readings}
    ends = [[[functions.number() for _ in range(columns)] for _ in range(KEYS)] for _ in walk.members]
    reads, last = law(walk, given)
    found = _run(kernels, given, pulls, ends, chunk, columns)
    expected = dict(reads) | {f"last S{a}": state for a, state in enumerate(last)}
    for name, rows in expected.items():
        if found[name] != rows:
            raise Difference(f"{name} at {length} tokens in chunks of {chunk}")
    direction = {name: [[functions.number() for _ in row] for row in rows] for name, rows in given.items()}
    moved = {
        name: [
            [Slope(x, x * d if name[0] == "g" else d) for x, d in zip(*lines, strict=True)]
            for lines in zip(rows, direction[name], strict=True)
        ]
        for name, rows in given.items()
    }
    slope = _slope(_loss(walk, *law(walk, moved), pulls, ends)).along
    pulled = sum(
        found[f"d{name}"][i][j] * d for name, rows in direction.items() for i, row in enumerate(rows) for j, d in enumerate(row)
    )  # fmt: skip
    if slope != pulled:
        raise Difference(f"the gradients along a direction at {length} tokens in chunks of {chunk}")
    return 1 + sum(len(rows) * len(rows[0]) for rows in expected.values())


def _loss(walk: Walk, reads, last, pulls, ends):
    parts = [x * d for r in walk.readings for row, pull in zip(reads[r.name], pulls[f"d{r.name}"], strict=True) for x, d in zip(row, pull)]
    parts += [x * d for state, end in zip(last, ends) for row, pull in zip(state, end) for x, d in zip(row, pull)]
    return sum(parts[1:], parts[0])


def _run(kernels: WalkKernels, given: Operands, pulls, ends, chunk: int, columns: int) -> dict[str, list[list]]:
    """Both programs, `chunk` tokens at a time: reads, last states and gradients by name."""
    walk = kernels.walk
    members, length = len(walk.members), len(given["k"])
    decays = [[given[f"g{a}"][t][0] for a in range(members)] for t in range(length)]

    def power(log: Log):
        total = decays[0][0] - decays[0][0] + 1
        for (t, a), times in log.terms:
            if times < 0:
                raise Difference("an exponent grows: a decay would be divided by")
            for _ in range(times):
                total = total * decays[t][a]
        return total

    run = Runner({TOKEN: chunk, ROW: chunk, KEY: KEYS, VALUE: columns, MEMBER: members}, power)
    chunks = []
    for first in range(0, length, chunk):
        tiles = {}
        for tile in (*kernels.forward.inputs, *(t for t in kernels.gradient.inputs if t.name in pulls)):
            rows, cells = pulls.get(tile.name) or given[tile.name], {}
            for i in range(chunk):
                t = first + i
                if tile.name[0] == "g":
                    cells[(i,)] = Log((((t, int(tile.name[1:])), 1),)) if t < length else Log()
                    continue
                for j in range(len(rows[0])):
                    cells[(i,) if tile.axes == (ROW,) else (i, j)] = rows[t][j] if t < length else 0
            tiles[tile.name] = Grid(tile.axes, cells)
        chunks.append(tiles)
    stacked = lambda states: Grid(  # noqa: E731
        (MEMBER, KEY, VALUE), {(a, n, p): x for a, state in enumerate(states) for n, row in enumerate(state) for p, x in enumerate(row)}
    )
    initial = stacked([given[f"S{a}"] for a in range(members)])
    outputs, (last,) = run.walk(kernels.forward, chunks, [initial])
    slopes, (_, entered) = run.walk(kernels.gradient, chunks, [initial, stacked(ends)])
    found: dict[str, list[list]] = {}
    for parts in (outputs, slopes):
        for name, grid in parts[0].items():
            width = columns if VALUE in grid.axes else KEYS if KEY in grid.axes else 1
            at = lambda i, j, grid=grid: (i, j) if len(grid.axes) == 2 else (i,)  # noqa: E731
            found[name] = [[parts[t // chunk][name].cells[at(t % chunk, j)] for j in range(width)] for t in range(length)]
    for a in range(members):
        found[f"last S{a}"] = [[last.cells[a, n, p] for p in range(columns)] for n in range(KEYS)]
        found[f"dS{a}"] = [[entered.cells[a, n, p] for p in range(columns)] for n in range(KEYS)]
    return found
