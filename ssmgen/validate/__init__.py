"""Translation validation: at every build, the programs that will be emitted are run against the recurrence, exactly.

Three questions, each answered without rounding:

1. Is the forward program of every walk the law S = a S + k (v - S^T e)^T, row by row, and are its gradients the derivatives?
   As polynomials in all operands at short length: an identity, not a sample.
2. Are they at lengths on both sides of chunk boundaries? Over random rationals.
3. Are the walks, with their operands and readout, the spec's own update and output? Over random rationals with
   functions uninterpreted (`meaning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .. import algebra
from ..delays import previous
from ..kernel import KEY, ROW, TOKEN, VALUE, Kernels, WalkKernels
from ..plan import Plan, Row, Walk
from ..small import all_nodes
from ..source import NOWHERE
from ..spec import Delayed, Ref, Rot, Type
from . import members, scans, sequential
from .draws import random_value, sizes_of, static_values
from .exact import Log, Polynomial
from .meaning import Functions, Meaning, exponential
from .programs import Grid, Runner
from .sequential import Gradients, Tokens
from .steps import flipped, summed, updated

LENGTHS = ((1, 2), (3, 4), (4, 4), (5, 4), (11, 4), (3, 1))
"""(tokens, rows a chunk) of question 2: one token, one short of a chunk, a chunk, one more, several and a rest."""


FEW = ((1, 2), (2, 1), (3, 2), (5, 2))
"""The same where a token has three rows or more."""


SHORT = 3
"""Tokens of question 1, where a token has one row."""

ROWS = 4
"""Rows of question 1, where a token has several: the polynomials double with each."""


class ValidationError(AssertionError):
    """The programs are not the recurrence: a bug of the compiler, never of the user."""


@dataclass(frozen=True)
class Validation:
    """What was compared: how many polynomial identities, how many rational numbers."""

    identities: int
    numbers: int
    lengths: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        if not self.lengths:
            return f"{self.numbers} exact numbers, token by token"
        lengths = ", ".join(f"{t} tokens by {c}" for t, c in self.lengths)
        return f"{self.identities} polynomial identities at {SHORT} tokens or fewer; {self.numbers} exact numbers at {lengths}"


def validate(plan: Plan, kernels: Kernels) -> Validation:
    """Answer the three questions.

    Raises ValidationError naming the walk, the quantity and the place of the first difference.
    """
    identities = numbers = 0
    for walk in kernels.walks:
        if walk.walk.members:
            found = _members(walk)
            identities, numbers = identities + found[0], numbers + found[1]
            continue
        identities += _symbolic(walk)
        for length, rows in _lengths(walk):
            numbers += _rational(walk, length, rows)
    if kernels.scan is not None:
        return Validation(0, _scan(plan, kernels), ())
    numbers += _meaning(plan, kernels)
    return Validation(identities, numbers, tuple(dict.fromkeys(pair for walk in kernels.walks for pair in _lengths(walk))))


def _lengths(walk: WalkKernels) -> tuple[tuple[int, int], ...]:
    return FEW if len(walk.walk.rows) > 2 else LENGTHS


def _members(walk: WalkKernels) -> tuple[int, int]:
    """Questions 1 and 2 for states that feed each other: (identities, numbers)."""
    try:
        identities = members.identities(walk, SHORT - 1, 2) + members.identities(walk, SHORT - 1, 1)
        return identities, sum(members.numbers(walk, length, rows, Functions(length * 100 + rows)) for length, rows in LENGTHS)
    except members.Difference as difference:
        raise ValidationError(f"walk of {', '.join(walk.walk.states)}: {difference}") from None


# --- 1 and 2: programs against the law ---------------------------------------------------------------------------


def _symbolic(walk: WalkKernels) -> int:
    """Every operand entry a variable; two keys, one value column; rows enough for pairs within a chunk and across."""
    count = iter(range(10**6))
    variable = lambda: Polynomial.variable(next(count))  # noqa: E731
    rows = len(walk.walk.rows)
    length = SHORT if rows == 1 else max(1, ROWS // rows)
    tokens, d_reads, d_final = _tokens(walk, length, 2, 1, variable, variable)
    reads, states = sequential.forward(tokens)
    loss = Polynomial()
    for r, d_read in enumerate(d_reads):
        for t in range(length):
            for read, weight in zip(reads[r][t], d_read[t], strict=True):
                loss = loss + read * weight
    for n in range(2):
        loss = loss + states[-1][n][0] * d_final[n][0]
    slopes = loss.gradient()

    def slope(operand: Polynomial) -> Polynomial:
        ((monomial, _),) = operand.terms.items()
        return slopes.get(monomial[0], Polynomial()) if monomial else Polynomial()

    def table(rows: list[list]) -> list[list]:
        return [[slope(x) for x in row] for row in rows]

    is_first = [i % tokens.size == 0 for i in range(len(tokens.keys))]
    decays = [[a * slope(a) if first else 0 for a in row] for row, first in zip(tokens.decays, is_first, strict=True)]
    expected = Gradients(
        [table(query) for query in tokens.queries], table(tokens.keys), table(tokens.values),
        None if tokens.erases is None else table(tokens.erases), decays, table(tokens.initial),
    )  # fmt: skip
    return _compare(walk, tokens, d_reads, d_final, 2 if tokens.rows == 1 else 1, reads, states[-1], expected)


def _rational(walk: WalkKernels, length: int, rows: int) -> int:
    functions = Functions(length * 100 + rows)
    tokens, d_reads, d_final = _tokens(walk, length, 2, 3, functions.number, functions.between)
    reads, states = sequential.forward(tokens)
    expected = sequential.backward(tokens, d_reads, d_final)
    return _compare(walk, tokens, d_reads, d_final, rows, reads, states[-1], expected)


def _tokens(walk: WalkKernels, length: int, keys: int, columns: int, number, decay):
    readings, rows, size = walk.walk.readings, len(walk.walk.rows), walk.walk.size
    width = keys if _width(walk) else 1
    if walk.walk.log_decay is None:
        decays = [[number_like(number())]] * (length * rows)
    else:
        decays = [d for _ in range(length * rows // size) for d in [[decay() for _ in range(width)]] * size]
    sides = [(columns, keys) if r.is_value else (keys, columns) for r in readings]
    tokens = Tokens(
        [[[number() for _ in range(contracted)] for _ in range(length)] for contracted, _ in sides],
        [[number() for _ in range(keys)] for _ in range(length * rows)],
        [[number() for _ in range(columns)] for _ in range(length * rows)],
        [[number() for _ in range(keys)] for _ in range(length * rows)] if walk.walk.has_erase else None,
        decays,
        [[number() for _ in range(columns)] for _ in range(keys)],
        [r.is_inclusive for r in readings],
        rows,
        size,
        tuple(r.is_value for r in readings),
    )
    d_reads = [[[number() for _ in range(given)] for _ in range(length)] for _, given in sides]
    return tokens, d_reads, [[number() for _ in range(columns)] for _ in range(keys)]


def _width(walk: WalkKernels) -> tuple[str, ...]:
    """The axes of a log decay beside its row."""
    return next((t.axes[1:] for t in walk.forward.inputs if t.name == "g"), ())


def _compare(walk: WalkKernels, tokens: Tokens, d_reads, d_final, chunk: int, reads, final, expected: Gradients) -> int:
    """Run both programs of a walk, `chunk` tokens at a time, and compare every entry. Returns how many were compared."""
    keys, columns = len(tokens.initial), len(tokens.initial[0])
    rows, wide = chunk * tokens.rows, _width(walk)
    run = Runner({TOKEN: chunk, ROW: rows, KEY: keys, VALUE: columns}, lambda log: _product(log, tokens.decays))
    has_decay = walk.walk.log_decay is not None
    names = [r.name[1:] for r in walk.walk.readings]
    token = TOKEN if tokens.rows > 1 else ROW
    chunks = []
    for c in range(-(-tokens.length // chunk)):
        tiles = {}
        for r, s in enumerate(names):
            sides = ((KEY, keys), (VALUE, columns))
            (own, width), (other, given) = reversed(sides) if tokens.is_of_values(r) else sides
            tiles[f"q{s}"] = _rows(tokens.queries[r], c, chunk, (token, own), width)
            tiles[f"do{s}"] = _rows(d_reads[r], c, chunk, (token, other), given)
        tiles |= {"k": _rows(tokens.keys, c, rows, (ROW, KEY), keys), "v": _rows(tokens.values, c, rows, (ROW, VALUE), columns)}
        if tokens.erases is not None:
            tiles["e"] = _rows(tokens.erases, c, rows, (ROW, KEY), keys)
        tiles["g"] = _logarithms(tokens, c, rows, wide, keys)
        chunks.append(tiles)
    initial, gradient = _state(tokens.initial), _state(d_final)
    found, (last,) = run.walk(walk.forward, chunks, [initial])
    slopes, (entered, d_initial) = run.walk(walk.gradient, chunks, [initial, gradient])
    check = _Checker(walk.walk, tokens, chunk)
    for r, s in enumerate(names):
        check.rows(f"o{s}", found, reads[r], chunk)
        check.rows(f"dq{s}", slopes, expected.queries[r], chunk)
    check.state("final state", last, final)
    check.state("final state, walked again", entered, final)
    check.rows("dk", slopes, expected.keys, rows)
    check.rows("dv", slopes, expected.values, rows)
    if tokens.erases is not None:
        check.rows("de", slopes, expected.erases, rows)
    if has_decay:
        check.steps("dg", slopes, expected.decays, rows, tokens.size)
    check.state("gradient of the initial state", d_initial, expected.initial)
    return check.count


def _logarithms(tokens: Tokens, chunk: int, rows: int, wide: tuple[str, ...], keys: int) -> Grid:
    """The log decays of a chunk's rows: formal sums of the decays, each of which is numbered; 0 behind the last token."""
    cells = {}
    for i in range(rows):
        t = chunk * rows + i
        first = t - t % tokens.size
        for n in range(keys) if wide else (0,):
            log = Log((((first, n), 1),)) if t < len(tokens.keys) else Log()
            cells[(i, n) if wide else (i,)] = log
    return Grid((ROW, *wide), cells)


class _Checker:
    def __init__(self, walk: Walk, tokens: Tokens, chunk: int):
        self.where = f"{tokens.length} tokens in chunks of {chunk}"
        self.states = ", ".join(c.state for c in walk.columns)
        self.count = 0

    def rows(self, name: str, chunks: list[dict[str, Grid]], expected: list[list], rows: int) -> None:
        for t, row in enumerate(expected):
            grid = chunks[t // rows][name]
            for j, value in enumerate(row):
                index = (t % rows, j) if len(grid.axes) == 2 else (t % rows,)
                self._same(f"{name}[{t}, {j}]", grid.cells[index], value)

    def steps(self, name: str, chunks: list[dict[str, Grid]], expected: list[list], rows: int, size: int) -> None:
        """Rows of one step share what they are given: their gradients count together."""
        for first in range(0, len(expected), size):
            grid = chunks[first // rows][name]
            for j, value in enumerate(expected[first]):
                at = [(i % rows, j) if len(grid.axes) == 2 else (i % rows,) for i in range(first, first + size)]
                self._same(f"{name}[{first}, {j}]", sum((grid.cells[i] for i in at), 0), value)

    def state(self, name: str, grid: Grid, expected) -> None:
        for n, row in enumerate(expected):
            for p, value in enumerate(row):
                self._same(f"{name}[{n}, {p}]", grid.cells[n, p], value)

    def _same(self, what: str, found, expected) -> None:
        self.count += 1
        if not (found == expected or expected == found):
            raise ValidationError(f"walk of {self.states}: {what} differs from the recurrence at {self.where}: {found} against {expected}")


def _rows(sequence: list[list], chunk: int, rows: int, axes: tuple[str, ...], width: int) -> Grid:
    """Rows of one chunk; behind the last token zeros."""
    cells = {}
    for i in range(rows):
        t = chunk * rows + i
        for j in range(width):
            cells[i, j] = sequence[t][j] if t < len(sequence) else 0
    return Grid(axes, cells)


def _state(rows: list[list]) -> Grid:
    return Grid((KEY, VALUE), {(n, p): x for n, row in enumerate(rows) for p, x in enumerate(row)})


def _product(log: Log, decays: list[list]):
    total = number_like(decays[0][0])
    for (row, key), count in log.terms:
        if count < 0:
            raise ValidationError("an exponent grows: a decay would be divided by")
        for _ in range(count):
            total = total * decays[row][key]
    return total


def number_like(sample):
    """1 in the arithmetic of `sample`."""
    return Polynomial.number(1) if isinstance(sample, Polynomial) else Fraction(1)


# --- 3: walks against the spec -----------------------------------------------------------------------------------


def _meaning(plan: Plan, kernels: Kernels) -> int:
    """Five tokens of the spec's own equations against operands, law and readout of the walks."""
    recurrence = plan.classified.recurrence
    spec = recurrence.written
    functions = Functions(7)
    sizes = sizes_of(recurrence)
    definitions = {s.name: s.definition for s in spec.symbols if s.definition is not None} | dict(recurrence.hoisted)
    # products of matrices that stand before the walks are values of the token, those behind them take what the walks read
    given, dense = kernels.plan.classified.outputs, kernels.plan.classified.recurrence.dense
    definitions |= {} if dense is None else dict(dense.before)
    static = static_values(recurrence, sizes, functions)
    states = {s.name: random_value(s.type, sizes, functions) for s in spec.states}
    count = 0
    angles = {t.name: [(Fraction(1), Fraction(0))] * int(t.step.type.rows.value(sizes)) for t in recurrence.turnings}
    delayed = {n.name: n.type for n in all_nodes(spec) if isinstance(n, Delayed)}
    before = {name: random_value(type, sizes, functions) for name, type in delayed.items()}
    # the spec's equations
    tokens: list[tuple[Meaning, dict]] = []
    history = [states]
    for t in range(5):
        values = dict(static) | {"position": [[Fraction(t)]]} | {f"{name}[-1]": value for name, value in before.items()}
        for s in spec.symbols:
            if s.kind == "input":
                values[s.name] = random_value(s.type, sizes, functions, s.domain)
        token = Meaning(values, definitions, {}, sizes, functions)
        states, after = history[-1], updated(recurrence, history[-1], token)
        token.states = {**{(n, False): m for n, m in states.items()}, **{(n, True): m for n, m in after.items()}}
        expected = [value for o in spec.outputs for value in _rows_of_output(o, token)]
        # the walks take running maxima as values of the token
        for m in recurrence.maxima:
            token.values |= {m.before: states[m.state], m.after: after[m.state]}
        before = {name: token.matrix(Ref(type, NOWHERE, name)) for name, type in delayed.items()}
        tokens.append((token, expected))
        history.append(after)
    # and what the next token's coefficient is, where states look ahead
    for ahead in recurrence.aheads:
        coefficients = [*(token.matrix(ahead.coefficient) for token, _ in tokens[1:]), [[Fraction(0)]]]
        for (token, _), value in zip(tokens, coefficients, strict=True):
            token.values[ahead.name] = value
    first = _ahead(recurrence, history[0], tokens[0][0], is_before=True)
    walk_states = [_stack(w.walk, first) for w in kernels.walks]
    for t, (token, expected) in enumerate(tokens):
        # and the angle of the frame in which they see what turns
        for turning in recurrence.turnings:
            angles[turning.name] = _turned_on(turning, angles[turning.name], token)
        reads = {}
        for index, kernel in enumerate(kernels.walks):
            walk_states[index] = _walk_token(kernel.walk, walk_states[index], token, reads)
        readout = Meaning({**token.values, **reads}, definitions, {}, sizes, functions)
        if dense is not None and dense.outputs:
            rows = {name: readout.matrix(value) for name, (_, value) in zip(dense.reads, given, strict=True)}
            readout = Meaning({**readout.values, **rows}, definitions, {}, sizes, functions)
        for (name, value), wanted in zip(dense.outputs if dense is not None and dense.outputs else given, expected):
            found = readout.matrix(value)
            for a, b in zip((x for row in found for x in row), (x for row in wanted for x in row), strict=True):
                count += 1
                if a != b:
                    raise ValidationError(f"the readout of `{name}` differs from the spec at token {t}: {a} against {b}")
        if recurrence.turnings or recurrence.aheads:
            whole = _ahead(recurrence, history[t + 1], token, is_before=False)
            for index, kernel in enumerate(kernels.walks):
                upright = _stack(kernel.walk, {s.name: _upright(recurrence, s, whole[s.name], token) for s in spec.states})
                if walk_states[index] != upright:
                    raise ValidationError(f"the walk of {', '.join(kernel.walk.states)} leaves another state than the spec at token {t}")
                count += len(upright) * len(upright[0])
    return count


def _ahead(recurrence, states, token: Meaning, is_before: bool):
    """States that look ahead: with what the token writes at the next one, or with what the token before writes at this one."""
    found = dict(states)
    symbols = recurrence.spec.symbols
    for ahead in recurrence.aheads:
        scale = token.scalar(ahead.coefficient) if is_before else token.values[ahead.name][0][0]
        for write in ahead.writes:
            own = [previous(e, symbols) if is_before and e is not None else e for e in (write.key, write.value)]
            for number in range(1, 1 + (1 if write.rank is None else int(write.rank.value(token.sizes)))):
                token.indices[write.index] = number
                key, value = ([Fraction(1)] if e is None else [r[0] for r in token.matrix(e)] for e in own)
                added = [[scale * a * b for b in value] for a in key]
                found[write.target] = summed([found[write.target], added])
    return found


def _turned_on(turning, points, token: Meaning):
    """The points of the angles behind a token, which its values then have under the name of the angle."""
    steps = token.logarithms(turning.step)
    found, angles = [], []
    for j, (cos, sin) in enumerate(points):
        c, s = token.functions.sum_of(steps[j if len(steps) > 1 else 0])
        angle = token.functions.number(positive=True) + Fraction(token.functions.random.randint(1, 10**9), 10**9 + 7)
        found.append((cos * c - sin * s, sin * c + cos * s))
        token.functions.point_of[angle] = found[-1]
        angles.append([angle])
    token.values[turning.name] = angles
    return found


def _upright(recurrence, state, matrix, token: Meaning):
    """A state of the spec in the frame of the walks."""
    for turning in recurrence.turnings:
        for name, side in turning.states:
            if name == state.name:
                size = state.type.rows if side == "left" else state.type.cols
                angle = algebra.neg(Ref(turning.step.type, NOWHERE, turning.name))
                turn = token.matrix(Rot(Type(size, size), NOWHERE, angle))
                columns = matrix if side == "left" else flipped(matrix)
                product = [
                    [sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in zip(*columns)] for row in turn
                ]
                matrix = product if side == "left" else flipped(product)
    return matrix


def _scan(plan: Plan, kernels: Kernels) -> int:
    """Tokens of the spec's own equations against those of the program."""
    program, taken_apart = kernels.scan, kernels.plan.classified.recurrence
    recurrence = plan.classified.recurrence
    spec = recurrence.written
    functions = Functions(11)
    sizes = sizes_of(recurrence)
    static = static_values(recurrence, sizes, functions)
    states = {s.name: random_value(s.type, sizes, functions) for s in spec.states}
    delayed = {n.name: n.type for n in all_nodes(spec) if isinstance(n, Delayed)}
    found = {f"{name}[-1]": type for name, type in delayed.items()}

    def draw(t: int | None):
        if t is None:
            return states
        values = dict(static) | {"position": [[Fraction(t)]]}
        values |= {name: random_value(type, sizes, functions) for name, type in found.items()}
        return values | {s.name: random_value(s.type, sizes, functions, s.domain) for s in spec.symbols if s.kind == "input"}

    try:
        update = lambda now, token: updated(recurrence, now, token)  # noqa: E731
        rows = lambda token: [value for o in spec.outputs for value in _rows_of_output(o, token)]  # noqa: E731
        return scans.compare(plan, program, taken_apart, draw, update, rows, sizes, functions)
    except scans.Difference as difference:
        raise ValidationError(str(difference)) from None


def _rows_of_output(output, token: Meaning) -> list:
    """The values of an output, one a row."""
    found = []
    for row in range(1, (1 if output.count is None else int(output.count.value(token.sizes))) + 1):
        token.indices[output.index] = row
        found.append(token.matrix(output.value))
    return found


def _stack(walk: Walk, states):
    """The walk's state [n][p] from the spec's; of several members, one after the other."""
    if walk.members:
        return [states[name] for name in walk.states]
    rows: list[list[Fraction]] = []
    for column in walk.columns:
        matrix = states[column.state]
        if walk.is_transposed or (walk.key is None and len(matrix) > 1):
            matrix = [list(c) for c in zip(*matrix)]
        rows = [a + b for a, b in zip(rows, matrix)] if rows else [list(r) for r in matrix]
    return rows


def _walk_token(walk: Walk, state, token: Meaning, reads):
    """One token of a walk from its operand expressions; adds the named reads to `reads`."""
    column = lambda expr: [Fraction(1)] if expr is None else [x for row in token.matrix(expr) for x in row]  # noqa: E731
    before, blocks = state, [column(c.value) for c in walk.columns]
    if walk.members:
        return _members_token(walk, state, token, column, reads)
    for first in range(0, len(walk.rows), walk.size):
        state = _walk_step(walk.rows[first : first + walk.size], state, token, column)
    for cut in walk.slices:
        reading = next(r for r in walk.readings if r.name == cut.reading)
        factor = Fraction(1) if walk.scale is None else token.scalar(walk.scale)
        query = [factor * x for x in column(reading.query)]
        source = state if reading.is_inclusive else before
        if reading.is_value:
            reads[cut.read.name] = [[sum((x * u for x, u in zip(line, query, strict=True)), Fraction(0))] for line in source]
            continue
        read = [sum((query[n] * source[n][p] for n in range(len(query))), Fraction(0)) for p in range(len(source[0]))]
        start = sum(len(b) for b in blocks[: cut.column])
        part = read[start : start + len(blocks[cut.column])]
        reads[cut.read.name] = [[x] for x in part]
    return state


def _members_token(walk: Walk, before, token: Meaning, column, reads):
    """One token of states that feed each other."""
    row = walk.rows[0]
    written = column(row.values[0])
    if row.erase is not None:
        read = sequential.read(column(row.erase), before[row.erases])
        written = [w - x for w, x in zip(written, read, strict=True)]
    key, after = column(row.key), []
    for a, member in enumerate(walk.members):
        decay = exponential(token.logarithms(member.log_decay)[0], token.functions)
        parts = [(decay, before[a]), *((token.scalar(number), before[b]) for b, number in member.takes)]
        share = Fraction(0) if member.share is None else token.scalar(member.share)
        lines = [[sum((c * s[n][p] for c, s in parts), Fraction(0)) for p in range(len(written))] for n in range(len(key))]
        after.append([[x + share * k * w for x, w in zip(line, written, strict=True)] for k, line in zip(key, lines, strict=True)])
    for cut in walk.slices:
        reading = next(r for r in walk.readings if r.name == cut.reading)
        factor = Fraction(1) if walk.scale is None else token.scalar(walk.scale)
        source = (after if reading.is_inclusive else before)[reading.member]
        reads[cut.read.name] = [[x] for x in sequential.read([factor * x for x in column(reading.query)], source)]
    return after


def _walk_step(rows: tuple[Row, ...], old, token: Meaning, column):
    """The state after rows that act together."""
    decay = [Fraction(1)] * len(old)
    if rows[0].log_decay is not None:
        parts = token.logarithms(rows[0].log_decay)
        decay = [exponential(part, token.functions) for part in parts] * (len(old) if len(parts) == 1 else 1)
    after = [[decay[n] * x for x in line] for n, line in enumerate(old)]
    for row in rows:
        scale = Fraction(int(row.is_written)) if row.coefficient is None else token.scalar(row.coefficient)
        written = [scale * x for value in row.values for x in column(value)]
        if row.erase is not None:
            erase = column(row.erase)
            written = [w - sum((e * old[n][p] for n, e in enumerate(erase)), Fraction(0)) for p, w in enumerate(written)]
        key = column(row.key)
        after = [[x + key[n] * w for x, w in zip(line, written, strict=True)] for n, line in enumerate(after)]
    return after
