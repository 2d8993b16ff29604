"""Continuous time: `dS/dt = A S + B` and a method of `discretizations/` give the update.

A formula f(dt A) is evaluated on the structure of A: entry by entry on scalars, diagonals and full weights; through
f(c u w^T) = f(0) + (f(c w.u) - f(0)) / (w.u) u w^T on a rank-one matrix; as a rotation when the formula is the exponential
of a rate of turning; and a polynomial formula on anything at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from .. import algebra
from ..bounds import Bounds, bounds_of
from ..diagnostics import Label, Report
from ..discretizations import _method as formulas
from ..discretizations import methods
from ..discretizations._method import Formula, Method
from ..expressions import children, constant, references
from ..recurrence import DiscreteForm, MicroStep, Write
from ..source import NOWHERE, Span
from ..spec import Apply, Dynamics, Expr, Recurrence, Ref, Rot, Skew, State, StateRef, Type
from .chains import Chain, Factor, Polynomial, Refusal, chain, collect, product, scale, substitute
from .expand import Expander
from .taps import previous
from .terms import micro_step, write
from .update import report_refusal


def discretized_step(spec: Recurrence, report: Report) -> tuple[tuple[MicroStep, ...], DiscreteForm | None]:
    """The one micro-step of a recurrence in continuous time, and what discretization found. Errors go to the report."""
    method = _method(spec, report)
    if method is None:
        return (), None
    worker = _Discretizer(spec, method, report)
    step = worker.run()
    report_singular(worker, spec, report)
    return step, worker.form()


def _method(spec: Recurrence, report: Report) -> Method | None:
    known = methods()
    chosen = spec.discretization
    if chosen is None:
        first = spec.dynamics[0]
        report.error(
            "dynamics-without-method",
            f"`{spec.name}` is given in continuous time without a discretization",
            first.span,
            "a derivative in time",
            note="tokens are steps of a discretized equation",
            help="add `discretize exp_euler(dt)`, or write the discrete update: `update S' = ...`",
        )
        return None
    if chosen.method not in known:
        report.error(
            "unknown-discretization",
            f"there is no discretization `{chosen.method}`",
            chosen.span,
            "not a known method",
            help="one of " + ", ".join(f"`{name}`" for name in known),
        )
        return None
    method = known[chosen.method]
    if len(chosen.args) != len(method.parameters):
        wanted = f"`{chosen.method}({', '.join(method.parameters)})`" if method.parameters else f"`{chosen.method}` without arguments"
        report.error(
            "discretization-arguments",
            f"`{chosen.method}` takes {_count(len(method.parameters))}, not {len(chosen.args)}",
            chosen.span,
            f"{_count(len(chosen.args))} here",
            help=f"write {wanted}",
        )
        return None
    return method


def _count(n: int) -> str:
    return f"{n} argument{'' if n == 1 else 's'}"


@dataclass
class Singular:
    """A divisor that may vanish: where the method divides, and whether the whole formula has a limit there."""

    divisor: Expr
    has_limit: bool
    span: Span


@dataclass
class _Structure:
    """The linear part of one state's dynamics, sorted by what each term does."""

    scalar: Expr = algebra.ZERO
    left: Expr | None = None  # a column on the key side
    right: Expr | None = None  # a column on the value side
    weight: Expr | None = None  # full weights
    turning: Expr | None = None  # rates of turning
    turning_type: Type | None = None
    rank_one: list[tuple[str, Expr, Expr, Expr, Span]] = field(default_factory=list)  # side, coefficient, column, row, span
    other: list[Chain] = field(default_factory=list)


class _Discretizer:
    def __init__(self, spec: Recurrence, method: Method, report: Report):
        self.spec = spec
        self.method = method
        self.report = report
        self.name = spec.discretization.method
        self.symbols = {s.name: s for s in spec.symbols}
        self.expander = Expander(self.symbols)
        self.bounds: Bounds = bounds_of(spec)
        args = spec.discretization.args
        self.dt: Expr = args[0] if args else algebra.UNIT
        self.values = dict(zip(method.parameters[1:], args[1:]))
        self.singular: list[Singular] = []
        self.rates: list[Expr] = []  # what z is, for the text

    # --- the step ------------------------------------------------------------------------------------------------

    def run(self) -> tuple[MicroStep, ...]:
        derivatives: dict[str, Polynomial] = {}
        spans: dict[str, Span] = {}
        for dynamics in self.spec.dynamics:
            spans[dynamics.state] = dynamics.span
            try:
                derivatives[dynamics.state] = self.expander.expand(_unprimed(dynamics))
            except Refusal as refusal:
                report_refusal(_as_dynamics(refusal), self.spec, self.report)
        for state in self.spec.states:
            if state.name not in spans:
                self.report.error(
                    "state-without-update",
                    f"`{state.name}` has no dynamics",
                    state.span,
                    "this state keeps its first value",
                    note="a state is what changes from token to token",
                    help=f"add `dynamics d{state.name}/dt = ...`, or declare `{state.name}` as a `param`",
                )
        if self.report.has_errors:
            return ()
        values: dict[str, Polynomial] = {}
        taps: list[Write] = []
        for state in self.spec.states:
            try:
                value, older = self._one(state, derivatives, spans[state.name])
                values[state.name] = value
                taps += older
            except Refusal as refusal:
                report_refusal(refusal, self.spec, self.report)
        if self.report.has_errors:
            return ()
        try:
            step = micro_step(values, self.spec.states)
        except Refusal as refusal:
            report_refusal(refusal, self.spec, self.report)
            return ()
        return (MicroStep(step.transitions, step.writes + tuple(taps)),)

    def _one(self, state: State, derivatives: dict[str, Polynomial], span: Span) -> tuple[Polynomial, list[Write]]:
        method = self.method
        terms = derivatives[state.name]
        inputs = tuple(item for item in terms if item.state is None)
        linear = tuple(item for item in terms if item.state is not None)
        transition = formulas.coefficients(method.transition)
        weight = formulas.coefficients(method.write)
        if transition is not None and weight is not None and method.carried is None:
            return self._polynomial(state, derivatives, transition, weight), []
        structure = self._structure(state, linear, span)
        kept = self._of_state(state, structure, span)
        written = tuple(w for item in inputs for w in self._weighted(state, structure, item, method.write))
        older = []
        if method.carried is not None:
            for item in inputs:
                parts = self._weighted(state, structure, self._previous(item), method.carried)
                older += [replace(write(part, state), tap=1) for part in parts]
        return collect(kept + written), older

    # --- polynomial formulas: any structure ----------------------------------------------------------------------

    def _polynomial(self, state: State, derivatives: dict[str, Polynomial], transition, weight) -> Polynomial:
        linear = {name: tuple(self._stepped(i) for i in items if i.state is not None) for name, items in derivatives.items()}
        inputs = {name: tuple(self._stepped(i) for i in items if i.state is None) for name, items in derivatives.items()}

        def apply_linear(name: str, value: dict[str, Polynomial]) -> Polynomial:
            return collect(part for item in linear[name] for part in substitute(item, value[item.state.name]))

        def powers(first: dict[str, Polynomial], coefficients) -> Polynomial:
            total: list[Chain] = []
            value = first
            for k, coefficient in enumerate(coefficients):
                if k:
                    value = {name: apply_linear(name, value) for name in linear}
                total += [scale(item, self._expr(coefficient, algebra.ZERO)) for item in value[state.name]]
            return collect(total)

        states = {}
        for one in self.spec.states:
            ref = StateRef(one.type, NOWHERE, one.name, False)
            states[one.name] = (chain(algebra.UNIT, (Factor("state", ref),), one.type.rows, one.type.cols),)
        for item in derivatives[state.name]:
            if item.state is not None:
                self.rates.append(item.coefficient)
        return collect(powers(states, transition) + powers(inputs, weight))

    def _stepped(self, item: Chain) -> Chain:
        """`dt * chain`; a column of step sizes is a diagonal on the key side."""
        if self.dt.type.is_scalar:
            return scale(item, self.dt)
        if self.dt.type.is_column and self.dt.type.rows == item.rows:
            return chain(item.coefficient, (Factor("diagonal", self.dt), *item.factors), item.rows, item.cols, item.index, item.span)
        raise Refusal(
            "discretization-undefined",
            "the step size does not fit the state",
            self.dt.span,
            f"a step size of type {self.dt.type} for {item.rows} rows",
            help="use a scalar step size, or one a row of the state",
        )

    # --- the structure of A --------------------------------------------------------------------------------------

    def _structure(self, state: State, linear: Polynomial, span: Span) -> _Structure:
        found = _Structure()
        for item in linear:
            if item.state.name != state.name:
                raise self._undefined(
                    state, item.span, f"the dynamics of `{state.name}` contain `{item.state.name}`", f"`{item.state.name}` enters here"
                )
            factor = item.factors[item.place]
            kinds = ([f.kind for f in item.left], [f.kind for f in item.right])
            plain = not factor.transposed and not factor.conjugated and factor.weight is None and item.index is None
            if plain and kinds == ([], []):
                found.scalar = algebra.add(found.scalar, item.coefficient)
            elif plain and kinds == (["diagonal"], []):
                found.left = _plus(found.left, algebra.mul(item.coefficient, item.left[0].expr))
            elif plain and kinds == ([], ["diagonal"]):
                found.right = _plus(found.right, algebra.mul(item.coefficient, item.right[0].expr))
            elif plain and kinds == (["dense"], []) and isinstance(item.left[0].expr, Skew):
                found.turning = _plus(found.turning, algebra.mul(item.coefficient, item.left[0].expr.operand))
                found.turning_type = item.left[0].expr.type
            elif plain and kinds == (["column", "row"], []):
                found.rank_one.append(("left", item.coefficient, item.left[0].expr, item.left[1].expr, item.span))
            elif plain and kinds == ([], ["column", "row"]):
                found.rank_one.append(("right", item.coefficient, item.right[0].expr, item.right[1].expr, item.span))
            elif not factor.transposed and not factor.conjugated and kinds == ([], []) and item.index is None:
                found.weight = _plus(found.weight, algebra.mul(item.coefficient, factor.weight))
            else:
                found.other.append(item)
        for item in found.other:
            what = "a sum of rank-one terms" if item.index else "a transposed state" if item.factors[item.place].transposed else "a dense matrix"
            raise self._undefined(state, item.span, f"`{self.name}` has no closed form for this transition", f"{what} acts on `{state.name}`")
        shapes = [found.left is not None, found.right is not None, found.weight is not None]
        turns = found.turning is not None
        mixed = sum(shapes) > 1 or (found.rank_one and (any(shapes) or turns or len(found.rank_one) > 1)) or (turns and any(shapes[1:]))
        if mixed:
            words = [w for w, has in zip(("a diagonal on the key side", "a diagonal on the value side", "full weights"), shapes) if has]
            words += ["a rotation"] if turns else []
            words += [f"{len(found.rank_one)} rank-one terms" if len(found.rank_one) > 1 else "a rank-one term"] if found.rank_one else []
            raise self._undefined(state, span, f"`{self.name}` has no closed form for this transition", " and ".join(words) + " do not commute")
        self.rates.append(self._rate(found))
        return found

    def _undefined(self, state: State, span: Span, title: str, label: str) -> Refusal:
        general = [n for n, m in methods().items() if m.parameters and formulas.coefficients(m.transition) and formulas.coefficients(m.write)]
        return Refusal(
            "discretization-undefined",
            title,
            span,
            label,
            note=f"`{self.name}` needs {formulas.text(self.method.transition, {'z': 'dt*A'})} of the matrix A that acts on `{state.name}`",
            help="use a method that is a polynomial in A: " + " or ".join(f"`{n}(dt)`" for n in general),
            states=(state.name,),
        )

    def _rate(self, found: _Structure) -> Expr:
        """The eigenvalue part of A that formulas take: scalar plus column or weights."""
        rate = found.scalar
        for part in (found.left, found.right, found.weight):
            if part is not None:
                rate = part if algebra.is_zero(rate) else algebra.add(rate, part)
        return rate

    # --- formulas on a structure ---------------------------------------------------------------------------------

    def _of_state(self, state: State, found: _Structure, span: Span) -> Polynomial:
        ref = StateRef(state.type, span, state.name, False)
        itself = chain(algebra.UNIT, (Factor("state", ref),), state.type.rows, state.type.cols, span=span)
        if found.turning is not None:
            return self._turned(state, found, itself)
        return self._applied(state, found, itself, self.method.transition, step=None)

    def _weighted(self, state: State, found: _Structure, item: Chain, formula: Formula) -> Polynomial:
        """`dt * formula(dt A) * item` for an input."""
        if not _depends_on_z(formula):
            return (scale(self._stepped(item), self._expr(formula, algebra.ZERO)),)
        if found.turning is not None:
            raise self._undefined(state, item.span, f"the input weight of `{self.name}` does not keep pairs real", "this input would be turned")
        if found.weight is not None:
            raise self._undefined(
                state, item.span, f"the input weight of `{self.name}` is a full matrix", "weighed entry by entry, this is no outer product"
            )
        return self._applied(state, found, item, formula, step=self.dt)

    def _applied(self, state: State, found: _Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        """`formula(dt A) item`, times `step` when given."""
        if found.rank_one:
            return self._on_rank_one(state, found, item, formula, step)
        rate = self._rate(found)
        value = self._at(formula, rate, item.span, step)
        if value.type.is_scalar:
            return (scale(item, value),)
        if found.weight is not None and not rate.type.is_column:
            place = item.place
            weighted = Factor("state", item.factors[place].expr, weight=value)
            return (chain(item.coefficient, (*item.left, weighted, *item.right), item.rows, item.cols, item.index, item.span),)
        factor = Factor("diagonal", value)
        factors = (*item.factors, factor) if found.right is not None else (factor, *item.factors)
        return (chain(item.coefficient, factors, item.rows, item.cols, item.index, item.span),)

    def _turned(self, state: State, found: _Structure, item: Chain) -> Polynomial:
        if self.method.transition != formulas.exp(formulas.Z):
            raise self._undefined(
                state, item.span, f"`{self.name}` of a rate of turning is no rotation", "the transition would stretch pairs as it turns them"
            )
        if found.left is not None and not _is_paired(found.left):
            raise Refusal(
                "rotation-unequal-decay",
                "the decay differs inside a pair that turns",
                found.left.span,
                "this decay is given row by row",
                note="a rotation commutes with the decay only when both members of a pair share it",
                help="give one rate a pair, `diag(pairs(a))` with `a : [N/2]`, or one rate for all rows",
                states=(state.name,),
            )
        decay = self._at(self.method.transition, self._rate(found), item.span, None)
        angle = Rot(found.turning_type, found.turning.span, algebra.mul(self.dt, found.turning))
        factors: tuple[Factor, ...] = (Factor("rotation", angle), *item.factors)
        if decay.type.is_scalar:
            return (chain(decay, factors, item.rows, item.cols, item.index, item.span),)
        return (chain(item.coefficient, (Factor("diagonal", decay), *factors), item.rows, item.cols, item.index, item.span),)

    def _on_rank_one(self, state: State, found: _Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        side, coefficient, column, row, span = found.rank_one[0]
        if not self.dt.type.is_scalar:
            raise self._undefined(state, span, f"`{self.name}` has no closed form for this transition", "a step size a row, and a rank-one term")
        along = algebra.inner(row, column)  # the one eigenvalue that is not zero
        change = algebra.mul(self.dt, algebra.mul(coefficient, along))
        start = algebra.mul(self.dt, found.scalar)
        factors = (Factor("column", column), Factor("row", row))
        lined = item.left[:1] == factors[:1] if side == "left" else item.right[-1:] == factors[1:]
        if item.state is None and lined:
            # an input along the erase direction sees one eigenvalue only
            rate = algebra.add(found.scalar, algebra.mul(coefficient, along))
            return (scale(item, self._at(formula, rate, span, step)),)
        kept = scale(item, self._at(formula, found.scalar, span, step))
        difference = self._difference(formula, start, change, span)
        rate = algebra.mul(self.dt, coefficient)
        amount = difference.times(rate) if isinstance(difference, _Ratio) else algebra.mul(difference, rate)
        if step is not None:
            amount = algebra.mul(step, amount)
        size = item.rows if side == "left" else item.cols
        one = Chain(amount, factors, size, size, None, span)
        return collect((kept, product(one, item, span) if side == "left" else product(item, one, span)))

    def _difference(self, formula: Formula, start: Expr, change: Expr, span: Span) -> Expr | _Ratio:
        """`(f(start + change) - f(start)) / change`, without dividing by `change` where the formula allows."""
        end = algebra.add(start, change)
        match formula:
            case formulas.Number():
                return algebra.ZERO
            case formulas.Variable(name):
                return algebra.UNIT if name == "z" else algebra.ZERO
            case formulas.Sum(left, right):
                return algebra.add(self._plain(left, start, change, span), self._plain(right, start, change, span))
            case formulas.Difference(left, right):
                return algebra.sub(self._plain(left, start, change, span), self._plain(right, start, change, span))
            case formulas.Product(left, right):
                first = algebra.mul(self._plain(left, start, change, span), self._value(right, end, span))
                return algebra.add(first, algebra.mul(self._value(left, start, span), self._plain(right, start, change, span)))
            case formulas.Exponential(operand):
                inside = algebra.mul(self._plain(operand, start, change, span), change)
                below = self._value(operand, start, span)
                self._divides(change, True, span)
                return _Ratio(algebra.mul(algebra.apply("exp", below), algebra.apply("expm1", inside)), change)
            case formulas.Quotient(left, right):
                if algebra.is_zero(self._value(right, start, span)):
                    # 0/0 at the start: the limit is exact, from the series
                    limit = algebra.const(formulas.series(formula, 1, self._numbers())[0])
                    self._divides(change, True, span)
                    return _Ratio(algebra.sub(self._value(formula, end, span), limit), change)
                below, above = self._value(right, start, span), self._value(right, end, span)
                first = algebra.mul(self._plain(left, start, change, span), below)
                second = algebra.mul(self._value(left, start, span), self._plain(right, start, change, span))
                self._divides(above, False, span)
                return algebra.div(algebra.sub(first, second), algebra.mul(below, above))
        raise ValueError(f"not a formula: {formula!r}")

    def _plain(self, formula: Formula, start: Expr, change: Expr, span: Span) -> Expr:
        found = self._difference(formula, start, change, span)
        return found.times(algebra.UNIT) if isinstance(found, _Ratio) else found

    # --- formulas as expressions ---------------------------------------------------------------------------------

    def _at(self, formula: Formula, rate: Expr, span: Span, step: Expr | None) -> Expr:
        """`formula(dt * rate)`, times `step` when given, so that `dt expm1(dt a) / (dt a)` becomes `expm1(dt a) / a`."""
        z = algebra.mul(self.dt, rate)
        if algebra.is_zero(rate):
            limit = algebra.const(formulas.series(formula, 1, self._numbers())[0]) if not self._has_parameters(formula) else None
            value = limit if limit is not None else self._expr(formula, z)
            return value if step is None else algebra.mul(step, value)
        if isinstance(formula, formulas.Quotient):
            above, below = self._expr(formula.left, z), self._expr(formula.right, z)
            above = above if step is None else algebra.mul(step, above)
            divisor = rate if below == z else below
            self._divides(divisor, self._has_limit(formula), span)
            return algebra.div(above, below)
        value = self._value(formula, z, span)
        return value if step is None else algebra.mul(step, value)

    def _value(self, formula: Formula, z: Expr, span: Span) -> Expr:
        for inner in _quotients(formula):
            self._divides(self._expr(inner.right, z), self._has_limit(inner), span)
        return self._expr(formula, z)

    def _expr(self, formula: Formula, z: Expr) -> Expr:
        match formula:
            case formulas.Number(value):
                return algebra.const(value)
            case formulas.Variable(name):
                return z if name == "z" else self.values[name]
            case formulas.Difference(formulas.Exponential(operand), formulas.Number(value)) if value == 1:
                return algebra.apply("expm1", self._expr(operand, z))
            case formulas.Sum(left, right):
                return algebra.add(self._expr(left, z), self._expr(right, z))
            case formulas.Difference(left, right):
                return algebra.sub(self._expr(left, z), self._expr(right, z))
            case formulas.Product(left, right):
                return algebra.mul(self._expr(left, z), self._expr(right, z))
            case formulas.Quotient(left, right):
                return algebra.div(self._expr(left, z), self._expr(right, z))
            case formulas.Exponential(operand):
                return algebra.apply("exp", self._expr(operand, z))
        raise ValueError(f"not a formula: {formula!r}")

    def _numbers(self) -> dict[str, Fraction]:
        """Parameter values for series: their numbers, or a value at which nothing special happens."""
        return {name: constant(value) if constant(value) is not None else Fraction(1, 3) for name, value in self.values.items()}

    def _has_parameters(self, formula: Formula) -> bool:
        return any(isinstance(f, formulas.Variable) and f.name != "z" for f in _parts(formula))

    def _has_limit(self, formula: Formula) -> bool:
        try:
            formulas.series(formula, 1, self._numbers())
        except ZeroDivisionError:
            return False
        return formulas.series(formula.right, 1, self._numbers())[0] == 0

    # --- divisors ------------------------------------------------------------------------------------------------

    def _divides(self, divisor: Expr, has_limit: bool, span: Span) -> None:
        if not self._is_nonzero(divisor):
            found = Singular(divisor, has_limit, span)
            if found not in self.singular:
                self.singular.append(found)

    def _is_nonzero(self, expr: Expr) -> bool:
        if expr.type.field == "complex":
            real, imaginary = algebra.split_imaginary(self._opened(expr))
            parts = [part for part in (real, imaginary) if part.type.field == "real"]
            return len(parts) == 2 and any(not self.bounds.of(part).contains(0.0) for part in parts)
        return not self.bounds.of(expr).contains(0.0)

    def _opened(self, expr: Expr) -> Expr:
        """Complex names replaced by their definitions, where `i` is written."""

        def opened(node: Expr) -> Expr | None:
            if isinstance(node, Ref) and node.type.field == "complex":
                definition = self.symbols[node.name].definition if node.name in self.symbols else None
                return None if definition is None else self._opened(definition)
            return None

        return algebra.rewrite(expr, opened)

    # --- what was found ------------------------------------------------------------------------------------------

    def _previous(self, item: Chain) -> Chain:
        """An input that enters a token later: its coefficient is the previous token's, as its key and value will be."""
        return replace(item, coefficient=previous(item.coefficient, self.spec))

    def form(self) -> DiscreteForm:
        method = self.method
        rate = next(iter(self.rates), None)
        name = rate.name if isinstance(rate, Ref) else "A"
        step = self.dt.name if isinstance(self.dt, Ref) else "dt"
        names = {"z": f"{step}*{name}", **{n: v.name if isinstance(v, Ref) else n for n, v in self.values.items()}}
        if not method.parameters:
            return DiscreteForm(self.name, 0, name, ("1",), "", 0)
        order = formulas.order_of(method, self._numbers())
        weights = [_with_step(method.write, step, names)]
        if method.carried is not None:
            weights.append(_with_step(method.carried, step, names))
        singular = ""
        if _removable(method.write):
            singular = f"{formulas.text(method.write, names)} is 0/0 at {name} = 0 (limit 1); written as expm1({step}*{name}) / {name}"
        return DiscreteForm(self.name, order.smooth, formulas.text(method.transition, names), tuple(weights), singular, order.held)


@dataclass(frozen=True)
class _Ratio:
    """`above / below`, kept apart so that a common factor can cancel first."""

    above: Expr
    below: Expr

    def times(self, by: Expr) -> Expr:
        return algebra.div(algebra.mul(by, self.above), self.below)


def _with_step(formula: Formula, step: str, names: dict[str, str]) -> str:
    if formula == formulas.lift(1):
        return step
    shown = formulas.text(formula, names)
    return f"{step} * ({shown})" if not shown.isidentifier() else f"{step} * {shown}"


def _removable(formula: Formula) -> bool:
    return formula == (formulas.exp(formulas.Z) - 1) / formulas.Z


def _plus(total: Expr | None, term: Expr) -> Expr:
    return term if total is None else algebra.add(total, term)


def _parts(formula: Formula):
    yield formula
    for value in vars(formula).values():
        if isinstance(value, Formula):
            yield from _parts(value)


def _quotients(formula: Formula):
    return (part for part in _parts(formula) if isinstance(part, formulas.Quotient))


def _depends_on_z(formula: Formula) -> bool:
    return any(part == formulas.Z for part in _parts(formula))


def _is_paired(column: Expr) -> bool:
    """Whether both members of every pair hold one value: built from `pairs(...)` and scalars alone."""
    if column.type.is_scalar:
        return True
    if isinstance(column, Apply) and column.function == "pairs":
        return True
    if isinstance(column, Ref):
        return False
    operands = children(column)
    return bool(operands) and all(_is_paired(operand) for operand in operands)


def _unprimed(dynamics: Dynamics) -> Expr:
    def old(node: Expr) -> Expr | None:
        return StateRef(node.type, node.span, node.name, False) if isinstance(node, StateRef) and node.primed else None

    return algebra.rewrite(dynamics.value, old)


_IN_DYNAMICS = ("nonlinear-state", "state-inside-function", "two-states-multiplied")


def _as_dynamics(refusal: Refusal) -> Refusal:
    """The same fact about continuous time, under its own slug."""
    if refusal.slug not in _IN_DYNAMICS:
        return refusal
    name = refusal.states[0]
    return Refusal(
        "dynamics-not-affine",
        f"the dynamics are not affine in `{name}`",
        refusal.span,
        refusal.label,
        note="a discretization steps `dS/dt = A S + B`, with A and B functions of the token",
        help="linearise: let the other factor depend on the token alone, or write the discrete update and `form sequential`",
        states=refusal.states,
    )


def report_singular(worker: _Discretizer, spec: Recurrence, report: Report) -> None:
    """Warn where the formula is 0/0 with a limit, refuse where it has a pole that the declared domains do not exclude."""
    for found in worker.singular:
        secondary = tuple(
            Label(spec.symbol(name).span, f"`{name}` lies in {spec.symbol(name).interval}")
            for name in references(found.divisor)
            if name in worker.symbols and worker.symbols[name].type.field == "real"
        )
        method = spec.discretization.method
        if found.has_limit:
            report.warning(
                "singular-step",
                f"`{method}` divides by a rate that may be 0",
                found.divisor.span if found.divisor.span != NOWHERE else found.span,
                "not provably different from 0",
                secondary=secondary,
                note="the weight has a limit there, but its formula is 0/0: exactly at 0 the result is not a number",
                help="bound the rate away from 0, as in `A <= -1e-4 = min(..., -1e-4)`, or use `exp_euler`",
            )
        else:
            report.error(
                "singular-step",
                f"`{method}` has a pole that the declared domains do not exclude",
                found.divisor.span if found.divisor.span != NOWHERE else found.span,
                "this rate may reach the pole",
                secondary=secondary,
                note=f"the transition is {formulas.text(worker.method.transition, {'z': 'dt*A'})}",
                help="declare the rate `<= 0` and the step `> 0`, or use `exp_euler`",
            )

