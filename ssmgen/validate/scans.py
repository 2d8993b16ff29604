"""A scan program against the spec's own equations, exactly: values, what carries a state, and gradients.

Tokens are random rationals, functions uninterpreted but consistent. A gradient is held against the derivative along a random
direction only where every function is exact; elsewhere the rules for functions are those of the token-wise half of every form.
"""

from __future__ import annotations

from fractions import Fraction

from ..expressions import key
from ..plan import Plan
from ..recurrence import Recurrence
from ..response import Convolution, Probe
from ..scan import ScanProgram
from ..spec import Expr
from ..spec_text import expr_text
from .meaning import Functions, Matrix, Meaning, complex_of

TOKENS = 5


class Difference(Exception):
    """What differs, in words."""


def compare(plan: Plan, program: ScanProgram, apart: Recurrence, draw, update, rows, sizes, functions: Functions) -> int:
    """Run `TOKENS` tokens of both; gives how many numbers were compared.

    draw(t): the values of every name at token t. update(states, token): the spec's states after it. rows(token): its output, one value a
    row. `apart`: the recurrence of the program, with its names for the parts of complex names and for rows, and the products outside of
    it. Raises Difference.
    """
    recurrence = plan.classified.recurrence
    definitions = {s.name: s.definition for s in recurrence.written.symbols if s.definition is not None} | dict(recurrence.hoisted)
    bound = (*program.statics, *program.token, *program.update, *program.carried, *program.outputs, *program.convolution_lines)
    lines = {b.name: b.value for b in bound}
    answers = None if program.convolution is None else _Answers(program, program.convolution)
    dense = apart.dense
    whole: dict[str, Matrix] = draw(None)
    states = {name: m for name, m in _parted(whole, apart).items() if name in dict(program.states)}
    count = 0
    for t in range(TOKENS):
        values = draw(t)
        token = Meaning({k: v for k, v in values.items() if k not in whole}, definitions, {}, sizes, functions)
        later = update(whole, token)
        token.states = {**{(n, False): m for n, m in whole.items()}, **{(n, True): m for n, m in later.items()}}
        after = {name: m for name, m in _parted(later, apart).items() if name in states}
        # running maxima are values of the token
        values = values | {
            name: found for m in recurrence.maxima for name, found in ((m.before, whole[m.state]), (m.after, later[m.state]))
        }
        wanted = {f"{n}'": m for n, m in after.items()}
        kept = {f"kept {n}": [[functions.number() for _ in row] for row in m] for n, m in states.items()}
        values = _parted(values, apart)
        if dense is not None:
            around = Meaning(values, _definitions(apart.unturned), {}, sizes, functions)
            values = values | {name: around.matrix(product) for name, product in dense.before}
        own = Meaning({**values, **states, **kept}, lines, {}, sizes, functions)
        given = made = [own.matrix(_ref(program, o.name)) for o in program.outputs]
        if dense is not None and dense.outputs:
            behind = {**values, **dict(zip(dense.reads, made, strict=True))}
            given = [Meaning(behind, around.definitions, {}, sizes, functions).matrix(value) for _, value in dense.outputs]
        for found, row in zip(given, rows(token), strict=True):
            count += _same(f"the output at token {t}", found, row)
        for name, matrix in wanted.items():
            count += _same(f"`{name}` at token {t}", own.matrix(_ref(program, name)), matrix)
        # S' is what is left of S and what a state of zero becomes
        zero = {n: [[Fraction(0)] * len(row) for row in m] for n, m in states.items()}
        written = Meaning({**values, **zero, **{f"kept {n}": m for n, m in states.items()}}, lines, {}, sizes, functions)
        for name, _ in program.states:
            left, added = _full(written, program, f"kept {name}'", states[name]), _full(written, program, f"{name}'", states[name])
            total = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(left, added, strict=True)]
            count += _same(f"what carries `{name}` at token {t}", total, after[name])
        if answers is not None:
            count += answers.compare(own, states, after, made, f"of the convolution at token {t}")
        whole, states = later, after
    return count


class _Answers:
    """A convolution against a token of the scan: states made of factors and drives, the output of probes; weights stay as they were."""

    def __init__(self, program: ScanProgram, convolution: Convolution):
        self.convolution, self.types = convolution, dict(program.states)
        names = [name for name, _ in program.states]
        self.pairs = [(names[a], names[b]) for a, b in program.pairs]
        self.first: dict[str, Matrix] = {}
        self.fixed: dict[tuple[str, int, int], Matrix] = {}

    def compare(self, own: Meaning, before: dict[str, Matrix], after: dict[str, Matrix], outputs: list[Matrix], where: str) -> int:
        """Gives how many numbers were compared. Raises Difference."""
        count, self.first = 0, self.first or before
        whole = [*self.convolution.mixing, *(name for group in self.convolution.coupled for name in group)]
        entrywise = [(name, factor) for name, factor in self.convolution.factors if name not in whole]
        factors = {name: self._still(own, factor, before[name], where) for name, factor in entrywise}
        made = {name: _entrywise(factor, before[name]) for name, factor in factors.items()}
        for name in whole:
            made[name] = self._kept(own, name, before)
            still = self._kept(own, name, self.first)
            _same(f"what is kept of `{name}` {where}, which no token may change", still, self.fixed.setdefault((name, 0, 0), still))
        for re, im in (pair for pair in self.pairs if pair[0] in factors):
            made[re] = _entrywise(factors[re], before[re], factors[im], before[im], sign=-1)
            made[im] = _entrywise(factors[re], before[im], factors[im], before[re])
        for drive in self.convolution.drives:
            value = own.matrix(drive.value)
            for name, weight in drive.weights:
                like = before[name]
                written = _entrywise(self._still(own, weight, like, where), _spread(value, like))
                made[name] = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(made[name], written, strict=True)]
        for name, found in made.items():
            count += _same(f"`{name}` {where}", found, after[name])
        reads = {probe.name: self._read(own, probe, before, after, where) for probe in self.convolution.probes}
        told = Meaning({**own.values, **reads}, own.definitions, {}, own.sizes, own.functions)
        for value, output in zip(self.convolution.outputs, outputs, strict=True):
            count += _same(f"output {where}", _spread(told.matrix(value), output), output)
        return count

    def _kept(self, own: Meaning, name: str, states: dict[str, Matrix]) -> Matrix:
        """What a token leaves of states that read each other, or whose entries do."""
        values = {**own.values, **{f"kept {n}": m for n, m in states.items()}}
        meaning = Meaning(values, own.definitions, {}, own.sizes, own.functions)
        return _spread(meaning.matrix(dict(self.convolution.factors)[name]), states[name])

    def _still(self, own: Meaning, weight: Expr, like: Matrix, where: str) -> Matrix:
        """The value of a factor or weight, which is the same as at the first token."""
        found = _spread(own.matrix(weight), like)
        first = self.fixed.setdefault((key(weight), len(like), len(like[0])), found)
        _same(f"`{expr_text(weight)}` {where}, which no token may change", found, first)
        return found

    def _read(self, own: Meaning, probe: Probe, before: dict[str, Matrix], after: dict[str, Matrix], where: str) -> Matrix:
        total: Matrix = []
        for name, weight in probe.weights:
            state = (after if name.endswith("'") else before)[name.removesuffix("'")]
            part = _entrywise(self._still(own, weight, state, where), state)
            part = part if 0 in probe.axes else [[sum(column) for column in zip(*part, strict=True)]]
            part = part if 1 in probe.axes else [[sum(row)] for row in part]
            total = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(total, part, strict=True)] if total else part
        return [list(column) for column in zip(*total, strict=True)] if probe.rows == 1 or probe.cols == 0 else total


def _spread(found: Matrix, like: Matrix) -> Matrix:
    """A number, a column or a row in the shape of a state."""
    rows = found if len(found) == len(like) else found * len(like)
    return [row if len(row) == len(like[0]) else row * len(like[0]) for row in rows]


def _entrywise(a: Matrix, b: Matrix, c: Matrix | None = None, d: Matrix | None = None, sign: int = 1) -> Matrix:
    """a * b, or a * b + sign * c * d, entry by entry."""
    product = [[x * y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    if c is None or d is None:
        return product
    return [[x + sign * y for x, y in zip(p, q, strict=True)] for p, q in zip(product, _entrywise(c, d), strict=True)]


def _definitions(recurrence: Recurrence) -> dict[str, Expr]:
    """What is no argument, over the names of the recurrence's own spec."""
    return {s.name: s.definition for s in recurrence.spec.symbols if s.definition is not None} | dict(recurrence.hoisted)


def _parted(values: dict[str, Matrix], apart: Recurrence) -> dict[str, Matrix]:
    """With rows, and the parts of complex values, under their names."""
    found = dict(values)
    for rows in apart.rows:
        if rows.name in found:
            found |= {name: [[x] for x in row] for name, row in zip(rows.rows, found.pop(rows.name), strict=True)}
    for pair in apart.pairs:
        if pair.name in found:
            whole = [[complex_of(x) for x in row] for row in found.pop(pair.name)]
            found |= {pair.re: [[x.re for x in row] for row in whole], pair.im: [[x.im for x in row] for row in whole]}
    return found


def _ref(program: ScanProgram, name: str) -> Expr:
    from ..source import NOWHERE
    from ..spec import Ref

    bound = {b.name: b.value for b in (*program.update, *program.carried, *program.outputs)}
    return Ref(bound[name].type, NOWHERE, name)


def _full(meaning: Meaning, program: ScanProgram, name: str, like: Matrix) -> Matrix:
    """A value in the shape of the state: a number stands for every entry."""
    found = meaning.matrix(_ref(program, name))
    if len(found) == 1 and len(found[0]) == 1:
        return [[found[0][0]] * len(row) for row in like]
    return found


def _same(what: str, found: Matrix, wanted: Matrix) -> int:
    flat, other = [x for row in found for x in row], [x for row in wanted for x in row]
    if flat != other and not (len(flat) == 1 and all(flat[0] == x for x in other)):
        raise Difference(f"{what}: {flat} against {other}")
    return len(other)
