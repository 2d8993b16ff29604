"""What the intervals say of the state's past: by how much a token multiplies it, and how long it lasts.

Nothing is sampled. A factor is bounded by interval analysis; a half-life is log 2 / -log |a|, its ends those of |a|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from . import algebra, intervals
from .bounds import Bounds, bounds_of
from .expressions import children, is_imaginary_unit, key, nodes, references
from .features._facts import Facts
from .intervals import INFINITY, Interval, point
from .recurrence import Generator, MicroStep, Recurrence, Transition
from .spec import Expr, Mul, Ref, Rot, Type
from .spec_text import expr_text

_FORGETTING = ("diagonal", "rotation", "elementwise")


@dataclass(frozen=True)
class Stability:
    """One state: what its decay multiplies it by, whether that can grow, how long a write lasts.

    `factor` bounds |a| for every token, `initial` for parameters at their initial values and inputs of 0; None where
    nothing is known. `signed` bounds a itself, where it is real. `words`: the judgement. `beside`: what other terms add to it;
    where that is a correction, `along` is its eigenvalue along its key, of length 1, and `along_bound` what that lies in.
    `is_contraction`: with it, too, no token lengthens the state. `is_joint`: of states that feed each other no eigenvalue of a token is
    outside the unit disc, so that the same token again and again lets them grow at most in proportion to their number.
    """

    state: str
    factor: Interval | None
    words: str
    initial: Interval | None = None
    beside: str = ""
    signed: Interval | None = None
    along: Expr | None = None
    along_bound: Interval | None = None
    is_contraction: bool = False
    is_joint: bool = False

    @property
    def half_life(self) -> Interval | None:
        """Tokens after which half of a write is left; None when |a| can reach 1 or more, or is not known."""
        return None if self.factor is None else half_life(self.factor)

    @property
    def initial_half_life(self) -> Interval | None:
        """The same before training; None where it says no more."""
        found = None if self.initial is None else half_life(self.initial)
        return None if found == self.half_life else found


def stability(recurrence: Recurrence) -> list[Stability]:
    """One judgement a state, in order of declaration; none for a recurrence that is not linear in its states."""
    if recurrence.sequential:
        return []
    return [_of_state(recurrence, state.name) for state in recurrence.spec.states]


def half_life(factor: Interval) -> Interval | None:
    """log 2 / -log of a factor in (0, 1]; None when it can be above 1 or is always 1."""
    if factor.low < 0 or factor.high > 1 or factor.low == 1:
        return None
    low = 0.0 if factor.low == 0 else math.log(2) / -math.log(factor.low)
    high = INFINITY if factor.high == 1 else 0.0 if factor.high == 0 else math.log(2) / -math.log(factor.high)
    return Interval(low, high, factor.low_open, factor.high_open or high == INFINITY)


def judgement(factor: Interval) -> str:
    """What a bound of |a| means for the state."""
    if factor.low == factor.high == 1:
        return "marginal: |a| = 1, nothing is forgotten and nothing grows"
    if factor.high < 1:
        return f"contraction: |a| <= {factor.high:.6g} < 1"
    if factor.high == 1:
        return "contraction: |a| < 1 at every token" if factor.high_open else "at most marginal: |a| <= 1"
    return "can exceed 1: |a| has no bound" if factor.high == INFINITY else f"can exceed 1: |a| reaches {factor.high:.6g}"


def _of_state(recurrence: Recurrence, state: str) -> Stability:
    terms = [(step, t) for step in recurrence.steps for t in step.transitions if t.target == state]
    others = sorted({t.source for _, t in terms} - {state})
    if others:
        return _joint(recurrence, state, others) or Stability(state, None, _fed(recurrence, state, others))
    if recurrence.discrete is not None and state in recurrence.discrete.contracting and any(map(_is_dense, (t for _, t in terms))):
        method = recurrence.discrete.method
        words = f"no step lengthens the state: A + A^H <= 0 is proved of its rate A, and `{method}` keeps that"
        return Stability(state, None, words, is_contraction=True)
    if any(all(_mixes(t) for s, t in terms if s is step) for step in recurrence.steps if any(s is step for s, _ in terms)):
        return Stability(state, None, _matrices(recurrence, [t for _, t in terms]))
    forgetting = [[t for s, t in terms if s is step and not _mixes(t)] for step in recurrence.steps]
    bounds, initial = _bounds(recurrence), _initial_bounds(recurrence)
    factor, early = _product(forgetting, recurrence, bounds), _product(forgetting, recurrence, initial)
    signed = _product(forgetting, recurrence, bounds, keeps_sign=True)
    contracts = recurrence.discrete is not None and state in recurrence.discrete.contracting
    if contracts:
        factor = factor.meet(Interval(0.0, 1.0))
    mixing = [_beside(t, step, recurrence, bounds) for step, t in terms if _mixes(t)]
    words = judgement(factor)
    turning = _turning(recurrence, terms, bounds)
    if not mixing:
        return Stability(state, factor, words, early, "; ".join(turning), signed)
    beside = "; ".join([*turning, *(each.words for each in mixing)])
    if contracts:
        beside = "; ".join([*turning, "its correction draws along the key that it reads, so that no step lengthens the state"])
        return Stability(state, factor, words, early, beside, signed, is_contraction=True)
    found = Stability(state, factor, f"without its correction, {words}", early, beside, signed)
    is_one = len(mixing) == len(recurrence.steps) == 1 and recurrence.steps[0].index is None and all(t.rank is None for _, t in terms)
    return replace(found, along=mixing[0].along, along_bound=mixing[0].bound) if is_one else found


_IN_DISC = "no eigenvalue of a token is outside the unit disc; a token again and again lets them grow at most in proportion to its number"


def _joint(recurrence: Recurrence, state: str, others: list[str]) -> Stability | None:
    """States that feed each other entry by entry: what their method keeps of rates that fade, or of two the conditions of Jury.

    The roots of r^2 - t r + d, t the trace and d the determinant, are in the unit disc exactly where d <= 1 and |t| <= 1 + d.
    """
    groups = () if recurrence.discrete is None else recurrence.discrete.joint
    group = next((each for each in groups if state in each), None)
    if group is not None:
        names = ", ".join(f"`{name}`" for name in group if name != state)
        kept = f"no eigenvalue of their rates has a real part above 0, and `{recurrence.discrete.method}` keeps that"
        return Stability(state, None, f"with {names}: {kept}: {_IN_DISC}", is_joint=True)
    feeds = len(others) == 1 and _feeds(recurrence, state, others[0])
    matrix = _of_two(recurrence, (state, others[0])) if feeds else None
    if matrix is None:
        return None
    (a, b), (c, d) = matrix
    trace, determinant = algebra.add(a, d), algebra.add(algebra.mul(a, d), algebra.neg(algebra.mul(b, c)))
    one, bounds = algebra.const(1), _bounds(recurrence)
    conditions = [algebra.add(one, algebra.neg(determinant)), *(algebra.add(one, x, determinant) for x in (trace, algebra.neg(trace)))]
    missing = [each for each in conditions if not bounds.of(each).is_nonnegative]
    if not missing:
        return Stability(state, None, f"with `{others[0]}`: {_IN_DISC}", is_joint=True)
    if any(name in dict(recurrence.hoisted) for each in missing for name in references(each)):
        return None
    needed = " and ".join(f"{_expanded(each, bounds)} >= 0" for each in missing)
    reaches = " and ".join(f"{bounds.of(each)}" for each in missing)
    return Stability(state, None, f"with `{others[0]}`: eigenvalues of a token are in the unit disc where {needed}, which is in {reaches}")


def _feeds(recurrence: Recurrence, state: str, other: str) -> bool:
    """Whether a state enters the value of another."""
    return any(t.target == other and t.source == state for step in recurrence.steps for t in step.transitions)


def _of_two(recurrence: Recurrence, names: tuple[str, str]) -> tuple[tuple[Expr, ...], ...] | None:
    """The small matrix that a token multiplies two states by at every entry; None where they are not alone, or not by entries."""
    if len(recurrence.steps) != 1 or recurrence.steps[0].index is not None:
        return None
    terms = [t for t in recurrence.steps[0].transitions if t.target in names]
    generators = [(place, g) for t in terms for place, side in (("left", t.left), ("right", t.right)) for g in side]
    sides = {"whole" if g.kind == "elementwise" else place for place, g in generators}
    if any(t.source not in names or t.rank is not None for t in terms) or len(sides) > 1:
        return None
    values = [t.coefficient for t in terms] + [g.column for _, g in generators]
    if any(g.kind not in ("diagonal", "elementwise") for _, g in generators) or any(v.type.field == "complex" for v in values):
        return None

    def entry(target: str, source: str) -> Expr:
        found = []
        for term in (t for t in terms if (t.target, t.source) == (target, source)):
            value = term.coefficient
            for g in term.left + term.right:
                value = algebra.mul(value, g.column)
            found.append(value)
        return algebra.add(*found) if found else algebra.ZERO

    return tuple(tuple(entry(target, source) for source in names) for target in names)


def _expanded(expr: Expr, bounds: Bounds) -> str:
    """A polynomial with its terms collected, as text."""
    found = bounds.monomials(expr)
    if found is None:
        return expr_text(expr)
    text = ""
    for coefficient, factors in found:
        size = abs(coefficient)
        words = [str(size)] if size != 1 or not factors else []
        words += [expr_text(atom) + (f"^{power}" if power > 1 else "") for atom, power in factors]
        sign = "-" if coefficient < 0 else "+"
        text += f" {sign} {' * '.join(words)}" if text else f"{'-' * (sign == '-')}{' * '.join(words)}"
    return text or "0"


def _fed(recurrence: Recurrence, state: str, others: list[str]) -> str:
    """A state that other states feed: where these are not fed by it, alone or by way of others, eigenvalues are its own and theirs."""
    sources: dict[str, set[str]] = {}
    for step in recurrence.steps:
        for term in step.transitions:
            sources.setdefault(term.target, set()).add(term.source)
    reached, waiting = set(), list(others)
    while waiting:
        name = waiting.pop()
        waiting += sources.get(name, set()) - reached
        reached |= sources.get(name, set())
    names = ", ".join(f"`{name}`" for name in others)
    own = [t for step in recurrence.steps for t in step.transitions if t.target == t.source == state]
    if state in reached:
        return f"fed by {names}, which it feeds in turn: their decays alone bound nothing"
    if len(recurrence.steps) > 1 or any(_mixes(t) for t in own):
        return f"fed by {names} and feeding none of them: its decay alone bounds nothing"
    factor = intervals.absolute(_product([own], recurrence, _bounds(recurrence)))
    return f"fed by {names} and feeding none of them: eigenvalues are its own, |a| in {factor}, and theirs; {judgement(factor)}"


def _matrices(recurrence: Recurrence, terms: list[Transition]) -> str:
    """A state of which a token keeps nothing but by way of full matrices: what their norms have to be."""
    bounds, rest = _bounds(recurrence), point(0)
    for term in terms:
        kept = tuple(g for g in term.left + term.right if g.kind in _FORGETTING)
        rest = intervals.add(rest, intervals.absolute(_reach(replace(term, left=kept, right=()), recurrence, bounds)))
    matrices = " ".join(f"|{expr_text(g.column)}|" for t in terms for g in t.left + t.right if g.kind == "dense")
    if not matrices:
        return "nothing of the state is kept but by its correction: no bound is proved"
    other = "" if rest == point(1) else f", what else multiplies it in absolute value is in {rest}"
    return f"a full matrix mixes the entries: bounded where {matrices} <= 1 in a norm{other}"


def _turning(recurrence: Recurrence, terms: list[tuple[MicroStep, Transition]], bounds: Bounds) -> list[str]:
    """What a rotation does to eigenvalues, and what a state can track by it."""
    angles = [g.column for _, t in terms if not _mixes(t) for g in t.left + t.right if g.kind == "rotation"]
    if not angles:
        return []
    words = f"turns by {expr_text(angles[0])} in {bounds.of(angles[0])}: eigenvalues a exp(+-i {expr_text(angles[0])}), complex"
    if all(Facts(recurrence, (recurrence.spec.states[0].name,)).is_static(angle) for angle in angles):
        return [f"{words}, fixed in time: an oscillation, which counts tokens and by itself tracks nothing else"]
    return [f"{words} and chosen by the data: it can track state (counting modulo any number)"]


@dataclass(frozen=True)
class _Beside:
    """What a term that mixes entries does, in words; its eigenvalue along its key, and the bound of that, where they are known."""

    words: str
    along: Expr | None = None
    bound: Interval | None = None


def _bounds(recurrence: Recurrence) -> Bounds:
    """The analysis with the recurrence's constants at their defaults."""
    spec, constants = recurrence.spec, dict(recurrence.spec.constants)
    found = bounds_of(spec, recurrence.nonpositive)
    known = dict(found.known) | {name: point(value) for name, value in constants.items()}
    if constants:
        for symbol in spec.symbols:
            if symbol.definition is not None:
                known[symbol.name] = Bounds(known, found.unit, found.nonpositive).of(symbol.definition).meet(symbol.interval)
    return _with_named(recurrence, Bounds(known, found.unit, found.nonpositive))


def _with_named(recurrence: Recurrence, bounds: Bounds) -> Bounds:
    """The analysis with what `derive` named."""
    known = dict(bounds.known)
    for name, value in recurrence.hoisted:
        known[name] = Bounds(known, bounds.unit, bounds.nonpositive).of(value)
    return Bounds(known, bounds.unit, bounds.nonpositive)


def _mixes(term: Transition) -> bool:
    return any(g.kind not in _FORGETTING for g in term.left + term.right)


def _is_dense(term: Transition) -> bool:
    return any(g.kind == "dense" for g in term.left + term.right)


def _product(steps: list[list[Transition]], recurrence: Recurrence, bounds: Bounds, keeps_sign: bool = False) -> Interval:
    """|a|, or a, over all micro-steps of a token: within one its terms add up, and what no term carries is 0."""
    total = point(1)
    for step, terms in zip(recurrence.steps, steps, strict=True):
        found = point(0)
        for term in terms:
            found = intervals.add(found, _reach(term, recurrence, bounds))
        if step.index is not None and found != point(1):
            found = Interval(0.0, INFINITY) if found.high > 1 else Interval(0.0, found.high, False, found.high_open)
        total = intervals.multiply(total, found if keeps_sign else intervals.absolute(found))
    return total


def _reach(term: Transition, recurrence: Recurrence, bounds: Bounds) -> Interval:
    """What a term without correction multiplies an entry by; a rotation keeps lengths."""
    found = bounds.of(term.coefficient)
    for generator in term.left + term.right:
        if generator.kind != "rotation":
            found = intervals.multiply(found, _magnitude(generator.column, recurrence, bounds))
    return found


def _magnitude(expr: Expr, recurrence: Recurrence, bounds: Bounds) -> Interval:
    """The interval of a real factor; of `exp(a + i b)` the interval of exp(a), its absolute value, and of products theirs."""
    if expr.type.field == "complex":
        if isinstance(expr, Mul):
            sizes = (intervals.absolute(_magnitude(part, recurrence, bounds)) for part in (expr.left, expr.right))
            return intervals.multiply(*sizes)
        if isinstance(expr, Ref):
            defined = next((s.definition for s in recurrence.spec.symbols if s.name == expr.name), None)
            return bounds.of(expr) if defined is None else _magnitude(defined, recurrence, bounds)
        if getattr(expr, "function", "") == "cis":
            return point(1)
    if expr.type.field != "complex" or getattr(expr, "function", "") != "exp":
        return bounds.of(expr)
    definitions = {s.name: s.definition for s in recurrence.spec.symbols if s.definition is not None and s.type.field == "complex"}
    exponent = algebra.rewrite(expr.args[0], lambda node: definitions.get(node.name) if isinstance(node, Ref) else None)
    real, _ = algebra.split_imaginary(exponent)
    if any(is_imaginary_unit(n) or (isinstance(n, Ref) and n.name in definitions) for n in nodes(real)):
        return bounds.of(expr)
    return intervals.exp(Bounds(bounds.known, bounds.unit).of(_as_real(real)))


def _as_real(expr: Expr) -> Expr:
    """`expr` with its nodes typed real: nothing complex is left in it."""
    operands = tuple(_as_real(child) for child in children(expr))
    rebuilt = algebra.rebuild(expr, operands) if operands else expr
    return replace(rebuilt, type=replace(rebuilt.type, field="real"))


def _beside(term: Transition, step: MicroStep, recurrence: Recurrence, bounds: Bounds) -> _Beside:
    """What a rank-one term does along its key, where the key has length at most 1 and erases what it reads."""
    erasers = [g for g in term.left + term.right if g.kind == "rank_one"]
    rest = tuple(g for g in term.left + term.right if g.kind != "rank_one")
    if len(erasers) != 1 or erasers[0].row is None:
        return _Beside("a full matrix mixes the entries: its norm is not bounded here")
    eraser = erasers[0]
    ratio, partners = None, [t for t in step.transitions if t.target == term.target and not _mixes(t)]
    for partner in partners:
        if _follows(eraser, rest, partner):
            ratio, carried = algebra.quotient(term.coefficient, partner.coefficient), partner
    if ratio is None:
        return _measured(term, eraser, rest, partners, step, recurrence, bounds)
    strength = intervals.multiply(point(-1), bounds.of(ratio))
    if not bounds.is_unit(eraser.column):
        need = f"bounded where b |k|^2 <= 2, b in {strength}: `unit(k)` makes |k| = 1"
        return _Beside(f"the key of its correction is not proved of length 1: no bound is proved; {need}")
    along = algebra.add(algebra.const(1), ratio)
    bound = intervals.multiply(_reach(carried, recurrence, bounds), bounds.of(along))
    for factor in (carried.coefficient, *(g.column for g in carried.left + carried.right)):
        along = algebra.mul(factor, along)
    kept = intervals.add(point(1), bounds.of(ratio)).hull(point(1))
    words = f"along its key the correction keeps a factor in {kept}: {_judged(kept)}; {_tracking(kept, step)}"
    return _Beside(words, along, bound)


def _judged(kept: Interval) -> str:
    reach = intervals.absolute(kept)
    return "no growth" if reach.high <= 1 else f"can exceed 1: up to {reach.high:.6g}"


def _measured(
    term: Transition, eraser: Generator, rest: tuple, partners: list[Transition], step: MicroStep, recurrence: Recurrence, bounds: Bounds
) -> _Beside:
    """A correction `c u e^T` that reads the state before it fades, or along a direction of its own."""
    decay = point(1)
    for partner in partners:
        decay = _reach(partner, recurrence, bounds)
    definitions = {s.name: s.definition for s in recurrence.spec.symbols if s.definition is not None}

    def opened(expr: Expr) -> Expr:
        return algebra.rewrite(
            expr, lambda node: opened(definitions[node.name]) if isinstance(node, Ref) and node.name in definitions else None
        )

    (written, u), (read, e) = (algebra.split_scalar(x) for x in (eraser.column, eraser.row))
    if key(u) != key(e):
        (written, u), (read, e) = (algebra.split_scalar(opened(x)) for x in (eraser.column, eraser.row))
    change = algebra.mul(term.coefficient, algebra.mul(written, read))
    strength = bounds.of(change)
    is_one_factor = len(partners) == 1 and not partners[0].left + partners[0].right
    if key(u) == key(e) and is_one_factor and not rest and bounds.is_unit(u):
        kept = intervals.add(decay, strength)
        words = f"along its key a token keeps a factor in {kept}: {_judged(kept)}; {_tracking(kept, step)}"
        return _Beside(words, algebra.add(partners[0].coefficient, change), kept)
    lengths = [("" if bounds.is_unit(x) else f" |{name}|") for name, x in (("u", eraser.column), ("e", eraser.row))]
    reach = intervals.absolute(bounds.of(term.coefficient)).high
    bound = "" if any(lengths) or reach == INFINITY else f", here at most {max(decay.high, 0) + reach:.6g}"
    words = "its correction c u e^T reads along another direction than it writes: eigenvalues lie within |a| + |c|"
    need = f"no bound is proved; the state stays bounded where |a| + |c|{''.join(lengths)} <= 1"
    return _Beside(f"{words}{''.join(lengths)}{bound}, below 0 or complex among them: it can track state; {need}")


def _tracking(kept: Interval, step: MicroStep) -> str:
    """What the sign of a correction's eigenvalue lets a state do."""
    if any(g.kind == "rotation" for t in step.transitions for g in t.left + t.right):
        return "before it is turned"
    if kept.low >= 0:
        return "eigenvalues stay at 0 or above, so it cannot track state (parity)"
    if step.count is not None:
        return "eigenvalues below 0 and several reflections a token, which turn: it can track state (parity, permutations)"
    return "eigenvalues reach below 0: it can track state (parity)"


def _follows(eraser: Generator, rest: tuple[Generator, ...], partner: Transition) -> bool:
    """Whether `eraser` with `rest` is `c k k^T` after the map L of `partner`: `k k^T L S`, or `k (L^T k)^T S`."""
    own = partner.left + partner.right
    if rest == own and key(eraser.column) == key(eraser.row):
        return True
    if rest or partner.right or len(own) != 1 or own[0].kind not in ("diagonal", "rotation"):
        return False
    if own[0].kind == "rotation":
        size = eraser.column.type.rows
        back = Rot(Type(size, size), eraser.column.span, algebra.neg(own[0].column))
        return key(algebra.matmul(back, eraser.column)) == key(eraser.row)
    return key(algebra.mul(own[0].column, eraser.column)) == key(eraser.row)


def _initial_bounds(recurrence: Recurrence) -> Bounds:
    """The analysis at initial parameters and inputs of 0 (of their whole domain where 0 is outside it)."""
    spec = recurrence.spec
    known: dict[str, Interval] = {}
    unit = {s.name for s in spec.symbols if "unit" in s.flags}
    for symbol in spec.symbols:
        bounds = Bounds(known, unit)
        if symbol.definition is not None:
            known[symbol.name] = bounds.of(symbol.definition).meet(symbol.interval)
        elif symbol.kind == "param":
            known[symbol.name] = point(0) if symbol.init is None else bounds.of(symbol.init)
        else:
            known[symbol.name] = point(0) if symbol.interval.contains(0.0) else symbol.interval
    return _with_named(recurrence, Bounds(known, unit, recurrence.nonpositive))
