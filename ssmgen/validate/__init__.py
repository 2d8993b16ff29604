"""Translation validation: at every build, the programs that will be emitted are run against the recurrence, exactly.

Three questions, each answered without rounding:

1. Is the forward program of every walk the law S_t = a_t S_{t-1} + k_t v_t^T, and are its gradients the derivatives?
   As polynomials in all operands at short length: an identity, not a sample.
2. Are they at lengths on both sides of chunk boundaries? Over random rationals.
3. Are the walks, with their operands and readout, the spec's own update and output? Over random rationals with
   functions uninterpreted (`meaning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..kernel import KEY, ROW, VALUE, Kernels, WalkKernels
from ..plan import Plan, Walk
from . import sequential
from .exact import Log, Polynomial
from .meaning import Functions, Meaning, exponential
from .programs import Grid, Runner
from .sequential import Gradients, Tokens

LENGTHS = ((1, 2), (3, 4), (4, 4), (5, 4), (11, 4), (3, 1))
"""(tokens, rows a chunk) of question 2: one token, one short of a chunk, a chunk, one more, several and a rest."""


class ValidationError(AssertionError):
    """The programs are not the recurrence: a bug of the compiler, never of the user."""


@dataclass(frozen=True)
class Validation:
    """What was compared: how many polynomial identities, how many rational numbers."""

    identities: int
    numbers: int
    lengths: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        lengths = ", ".join(f"{t} tokens by {c}" for t, c in self.lengths)
        return f"{self.identities} polynomial identities at 3 tokens by 2; {self.numbers} exact numbers at {lengths}"


def validate(plan: Plan, kernels: Kernels) -> Validation:
    """Answer the three questions.

    Raises ValidationError naming the walk, the quantity and the place of the first difference.
    """
    identities = numbers = 0
    for walk in kernels.walks:
        identities += _symbolic(walk)
        for length, rows in LENGTHS:
            numbers += _rational(walk, length, rows)
    numbers += _meaning(plan, kernels)
    return Validation(identities, numbers, LENGTHS)


# --- 1 and 2: programs against the law ---------------------------------------------------------------------------


def _symbolic(walk: WalkKernels) -> int:
    """Every operand entry a variable; 3 tokens in chunks of 2, two keys, one value column."""
    count = iter(range(10**6))
    variable = lambda: Polynomial.variable(next(count))  # noqa: E731
    tokens, d_reads, d_final = _tokens(walk, 3, 2, 1, variable, variable)
    reads, states = sequential.forward(tokens)
    loss = Polynomial()
    for r, d_read in enumerate(d_reads):
        for t in range(3):
            loss = loss + reads[r][t][0] * d_read[t][0]
    for n in range(2):
        loss = loss + states[-1][n][0] * d_final[n][0]

    def slope(operand: Polynomial) -> Polynomial:
        ((monomial, _),) = operand.terms.items()
        return loss.derivative(monomial[0]) if monomial else Polynomial()

    expected = Gradients(
        [[[slope(x) for x in q] for q in query] for query in tokens.queries],
        [[slope(x) for x in k] for k in tokens.keys],
        [[slope(x) for x in v] for v in tokens.values],
        [a * slope(a) for a in tokens.decays],
        [[slope(x) for x in row] for row in tokens.initial],
    )
    return _compare(walk, tokens, d_reads, d_final, 2, reads, states[-1], expected)


def _rational(walk: WalkKernels, length: int, rows: int) -> int:
    functions = Functions(length * 100 + rows)
    tokens, d_reads, d_final = _tokens(walk, length, 2, 3, functions.number, functions.between)
    reads, states = sequential.forward(tokens)
    expected = sequential.backward(tokens, d_reads, d_final)
    return _compare(walk, tokens, d_reads, d_final, rows, reads, states[-1], expected)


def _tokens(walk: WalkKernels, length: int, keys: int, columns: int, number, decay):
    decays = [decay() for _ in range(length)] if walk.walk.log_decay is not None else [number_like(number())] * length
    readings = walk.walk.readings
    tokens = Tokens(
        [[[number() for _ in range(keys)] for _ in range(length)] for _ in readings],
        [[number() for _ in range(keys)] for _ in range(length)],
        [[number() for _ in range(columns)] for _ in range(length)],
        decays,
        [[number() for _ in range(columns)] for _ in range(keys)],
        [r.is_inclusive for r in readings],
    )
    d_reads = [[[number() for _ in range(columns)] for _ in range(length)] for _ in readings]
    return tokens, d_reads, [[number() for _ in range(columns)] for _ in range(keys)]


def _compare(walk: WalkKernels, tokens: Tokens, d_reads, d_final, rows: int, reads, final, expected: Gradients) -> int:
    """Run all programs of a walk and compare every entry. Returns how many were compared."""
    keys, columns = len(tokens.initial), len(tokens.initial[0])
    run = Runner({ROW: rows, KEY: keys, VALUE: columns}, lambda log: _product(log, tokens.decays))
    has_decay = walk.walk.log_decay is not None
    names = [r.name[1:] for r in walk.walk.readings]
    chunks = [
        {
            **{f"q{s}": _rows(tokens.queries[r], c, rows, (ROW, KEY), keys) for r, s in enumerate(names)},
            **{f"do{s}": _rows(d_reads[r], c, rows, (ROW, VALUE), columns) for r, s in enumerate(names)},
            "k": _rows(tokens.keys, c, rows, (ROW, KEY), keys),
            "v": _rows(tokens.values, c, rows, (ROW, VALUE), columns),
            "g": Grid((ROW,), {(i,): Log(((c * rows + i, 1),)) if c * rows + i < tokens.length else Log() for i in range(rows)}),
        }
        for c in range(-(-tokens.length // rows))
    ]
    initial, gradient = _state(tokens.initial), _state(d_final)
    found, last = run.walk(walk.forward, chunks, initial)
    query, entered = run.walk(walk.query_gradient, chunks, initial)
    source, d_initial = run.walk(walk.source_gradient, chunks, gradient)
    check = _Checker(walk.walk, tokens.length, rows)
    for r, s in enumerate(names):
        check.rows(f"o{s}", found, reads[r])
        check.rows(f"dq{s}", query, expected.queries[r])
    check.state("final state", last, final)
    check.state("final state, walked again", entered, final)
    check.rows("dk", source, expected.keys)
    check.rows("dv", source, expected.values)
    check.state("gradient of the initial state", d_initial, expected.initial)
    if has_decay:
        moved = sum((last.cells[i] * gradient.cells[i] for i in sorted(last.cells)), 0)
        pieces = [{**chunks[c], **query[c], **source[c]} for c in range(len(chunks))]
        decayed, _ = run.walk(walk.decay_gradient, pieces, Grid((), {(): moved}))
        check.rows("dg", decayed, [[x] for x in expected.decays])
    return check.count


class _Checker:
    def __init__(self, walk: Walk, length: int, rows: int):
        self.where = f"{length} tokens in chunks of {rows}"
        self.states = ", ".join(c.state for c in walk.columns)
        self.length, self.chunk, self.count = length, rows, 0

    def rows(self, name: str, chunks: list[dict[str, Grid]], expected) -> None:
        for t in range(self.length):
            grid = chunks[t // self.chunk][name]
            for j, value in enumerate(expected[t]):
                index = (t % self.chunk, j) if len(grid.axes) == 2 else (t % self.chunk,)
                self._same(f"{name}[{t}, {j}]", grid.cells[index], value)

    def state(self, name: str, grid: Grid, expected) -> None:
        for n, row in enumerate(expected):
            for p, value in enumerate(row):
                self._same(f"{name}[{n}, {p}]", grid.cells[n, p], value)

    def _same(self, what: str, found, expected) -> None:
        self.count += 1
        if not (found == expected or (isinstance(expected, int) and expected == found)):
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


def _product(log: Log, decays: list):
    total = number_like(decays[0])
    for index, count in log.terms:
        if count < 0:
            raise ValidationError("an exponent grows: a decay would be divided by")
        for _ in range(count):
            total = total * decays[index]
    return total


def number_like(sample):
    """1 in the arithmetic of `sample`."""
    return Polynomial.number(1) if isinstance(sample, Polynomial) else Fraction(1)


# --- 3: walks against the spec -----------------------------------------------------------------------------------


def _meaning(plan: Plan, kernels: Kernels) -> int:
    """Five tokens of the spec's own equations against operands, law and readout of the walks."""
    recurrence = plan.classified.recurrence
    spec = recurrence.spec
    functions = Functions(7)
    sizes = {name: 2 + 2 * i for i, (name, _) in enumerate(spec.dims)} | dict(spec.counts)
    definitions = {s.name: s.definition for s in spec.symbols if s.definition is not None} | dict(recurrence.hoisted)
    static = {s.name: _random(s.type, sizes, functions) for s in spec.symbols if s.kind == "param" and s.name not in definitions}
    static |= {name: [[Fraction(value)]] for name, value in spec.constants}
    static |= {"head": [[Fraction(1)]], "heads": [[Fraction(4)]], "channel": [[Fraction(1)]], "channels": [[Fraction(4)]]}
    static |= {name: [[Fraction(2)]] for name in ("layer", "layers") if name not in static}
    states = {s.name: _random(s.type, sizes, functions) for s in spec.states}
    walk_states = [_stack(w.walk, states) for w in kernels.walks]
    count = 0
    for t in range(5):
        values = dict(static) | {"position": [[Fraction(t)]]}
        for s in spec.symbols:
            if s.kind == "input":
                values[s.name] = _random(s.type, sizes, functions, s.domain)
        token = Meaning(values, definitions, {}, sizes, functions)
        # the spec's equations
        states_after = _update(recurrence, states, token)
        token.states = {**{(n, False): m for n, m in states.items()}, **{(n, True): m for n, m in states_after.items()}}
        expected = [token.matrix(o.value) for o in spec.outputs]
        # the walks
        reads = {}
        for index, kernel in enumerate(kernels.walks):
            walk_states[index] = _walk_token(kernel.walk, walk_states[index], token, reads)
        readout = Meaning({**token.values, **reads}, definitions, {}, sizes, functions)
        for (name, value), wanted in zip(plan.classified.outputs, expected):
            found = readout.matrix(value)
            for a, b in zip((x for row in found for x in row), (x for row in wanted for x in row), strict=True):
                count += 1
                if a != b:
                    raise ValidationError(f"the readout of `{name}` differs from the spec at token {t}: {a} against {b}")
        states = states_after
    return count


def _random(type, sizes, functions: Functions, domain=None):
    rows, cols = int(type.rows.value(sizes)), int(type.cols.value(sizes))
    return [[_in_domain(functions, domain) for _ in range(cols)] for _ in range(rows)]


def _in_domain(functions: Functions, domain) -> Fraction:
    if domain is None:
        return functions.number()
    low, high = domain.low, domain.high
    if low > -1e300 and high < 1e300:
        return Fraction(low) + (Fraction(high) - Fraction(low)) * functions.between()
    if low > -1e300:
        return Fraction(low) + functions.number(positive=True)
    if high < 1e300:
        return Fraction(high) - functions.number(positive=True)
    return functions.number()


def _update(recurrence, states, token: Meaning):
    """The states after a token: the spec's assignments in order, or the discretized terms where the spec has dynamics."""
    spec = recurrence.spec
    if spec.update:
        token.states = {(n, False): m for n, m in states.items()} | {(n, True): m for n, m in states.items()}
        after = dict(states)
        for item in spec.update:
            value = token.matrix(item.value)
            token.states[item.state, True] = after[item.state] = value
        return after
    after = {}
    for step in recurrence.steps:
        for state in spec.states:
            terms = []
            for t in (t for t in step.transitions if t.target == state.name):
                scale = token.scalar(t.coefficient)
                terms.append([[scale * x for x in row] for row in states[t.source]])
            for w in (w for w in step.writes if w.target == state.name):
                scale = token.scalar(w.coefficient)
                key = [r[0] for r in token.matrix(w.key)] if w.key is not None else [Fraction(1)]
                value = [r[0] for r in token.matrix(w.value)] if w.value is not None else [Fraction(1)]
                outer = [[scale * a * b for b in value] for a in key]
                terms.append(outer if w.key is not None or state.type.is_scalar else [[x] for x in outer[0]])
            after[state.name] = [[sum(cells, Fraction(0)) for cells in zip(*rows)] for rows in zip(*terms)]
    return after


def _stack(walk: Walk, states):
    """The walk's state [n][p] from the spec's."""
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
    key = column(walk.key)
    scale = Fraction(1) if walk.coefficient is None else token.scalar(walk.coefficient)
    blocks = [column(c.value) for c in walk.columns]
    value = [scale * x for block in blocks for x in block]
    decay = Fraction(1) if walk.log_decay is None else exponential(token.logarithms(walk.log_decay), token.functions)
    after = [[decay * old + key[n] * value[p] for p, old in enumerate(row)] for n, row in enumerate(state)]
    for cut in walk.slices:
        reading = next(r for r in walk.readings if r.name == cut.reading)
        factor = Fraction(1) if walk.scale is None else token.scalar(walk.scale)
        query = [factor * x for x in column(reading.query)]
        source = after if reading.is_inclusive else state
        read = [sum((query[n] * source[n][p] for n in range(len(query))), Fraction(0)) for p in range(len(value))]
        start = sum(len(b) for b in blocks[: cut.column])
        part = read[start : start + len(blocks[cut.column])]
        reads[cut.read.name] = [[x] for x in part]
    return after
