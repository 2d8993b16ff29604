"""A token of the derived recurrence, or of the spec's own assignments, on exact rationals."""

from __future__ import annotations

from fractions import Fraction

from ..delays import previous
from ..spec import ONE, MicroLoop
from .meaning import Meaning, complex_of


def updated(recurrence, states, token: Meaning):
    """The states after a token: the spec's assignments in order, or the discretized terms where the spec has dynamics."""
    spec = recurrence.written
    if spec.update:
        token.states = {(n, False): m for n, m in states.items()} | {(n, True): m for n, m in states.items()}
        after = dict(states)
        for item in spec.update:
            loop = item if isinstance(item, MicroLoop) else MicroLoop("", ONE, (item,), item.span)
            for number in range(1, int(loop.count.value(token.sizes)) + 1):
                token.indices[loop.index] = number
                for assignment in loop.body:
                    value = token.matrix(assignment.value)
                    token.states[assignment.state, True] = after[assignment.state] = value
        return after
    after = {}
    for step in recurrence.upright.steps:
        # what the token before wrote enters once more before the transitions act
        entered = {s.name: summed([states[s.name], *_writes(recurrence, step, s, token, 1)]) for s in spec.states}
        for state in spec.states:
            terms = []
            for t in (t for t in step.transitions if t.target == state.name):
                for number in range(1, (1 if t.rank is None else int(t.rank.value(token.sizes))) + 1):
                    token.indices[t.index] = number
                    scale = token.scalar(t.coefficient)
                    terms.append(_mapped(t, [[scale * x for x in row] for row in entered[t.source]], token))
            after[state.name] = summed([*terms, *_writes(recurrence, step, state, token, 0)])
    return after


def summed(terms):
    """The sum of matrices."""
    return [[sum(cells, Fraction(0)) for cells in zip(*rows)] for rows in zip(*terms)]


def _writes(recurrence, step, state, token: Meaning, tap: int):
    """What a step writes to a state, term by term."""
    symbols = recurrence.spec.symbols
    for w in (w for w in step.writes if w.target == state.name and w.tap == tap):
        for number in range(1, (1 if w.rank is None else int(w.rank.value(token.sizes))) + 1):
            token.indices[w.index] = number
            scale = token.scalar(w.coefficient)
            own = [previous(e, symbols) if tap else e for e in (w.key, w.value)]
            key, value = ([Fraction(1)] if e is None else [r[0] for r in token.matrix(e)] for e in own)
            outer = [[scale * a * b for b in value] for a in key]
            if w.weight is not None:
                weights = token.matrix(previous(w.weight, symbols) if tap else w.weight)
                key, value = (one * (size // len(one)) for one, size in ((key, len(weights)), (value, len(weights[0]))))
                outer = [[scale * a * b * x for b, x in zip(value, row, strict=True)] for a, row in zip(key, weights, strict=True)]
            yield outer if w.key is not None or w.weight is not None or state.type.is_scalar else [[x] for x in outer[0]]


def _mapped(term, matrix, token: Meaning):
    """A state under the factors of a term."""
    for generator in reversed(term.left):
        if generator.kind == "rotation":
            matrix = _rotated(matrix, "left", generator.column, token)
        elif generator.kind == "part":
            row = [line[0] for line in token.matrix(generator.row)]
            reads = [sum((a * line[j] for a, line in zip(row, matrix)), Fraction(0)) for j in range(len(matrix[0]))]
            matrix = [[a[0] * complex_of(x).re for x in reads] for a in token.matrix(generator.column)]
        elif generator.kind == "elementwise":
            weights = token.matrix(generator.column)
            matrix = [[x * w for x, w in zip(row, line)] for row, line in zip(matrix, weights)]
        else:
            matrix = _product_of(_square(generator, token), matrix)
    for generator in term.right:
        turns = generator.kind == "rotation"
        matrix = _rotated(matrix, "right", generator.column, token) if turns else _product_of(matrix, _square(generator, token))
    return matrix


def _square(generator, token: Meaning):
    """The matrix of a generator."""
    column = token.matrix(generator.column)
    if generator.kind == "diagonal":
        return [[line[0] if i == j else Fraction(0) for j in range(len(column))] for i, line in enumerate(column)]
    if generator.kind == "rank_one":
        return [[a[0] * b[0] for b in token.matrix(generator.row)] for a in column]
    if generator.kind == "dense":
        return column
    raise ValueError(f"no matrix of a {generator.kind}")


def _product_of(left, right):
    return [[sum((x * right[i][j] for i, x in enumerate(row)), Fraction(0)) for j in range(len(right[0]))] for row in left]


def _rotated(matrix, side: str, angle, token: Meaning):
    """Pairs of rows turned by an angle; of columns, the other way, as a rotation on the right does."""
    lines = [list(row) for row in matrix] if side == "left" else flipped(matrix)
    angles = token.logarithms(angle)
    for j, parts in enumerate(angles * (len(lines) // 2) if angle.type.is_scalar else angles):
        cos, sin = token.functions.sum_of(parts if side == "left" else [(x, -times) for x, times in parts])
        even, odd = lines[2 * j], lines[2 * j + 1]
        lines[2 * j] = [cos * a - sin * b for a, b in zip(even, odd, strict=True)]
        lines[2 * j + 1] = [sin * a + cos * b for a, b in zip(even, odd, strict=True)]
    return lines if side == "left" else flipped(lines)


def flipped(matrix):
    """The transpose."""
    return [list(column) for column in zip(*matrix)]
