"""Continuous time: `dS/dt = A S + B` and a method of `discretizations/` give the update.

A formula f(dt A) is evaluated on the structure of A: entry by entry on scalars, diagonals and full weights; through
f(c u w^T) = f(0) + (f(c w.u) - f(0)) / (w.u) u w^T on a rank-one matrix; as a rotation when the formula is the exponential
of a rate of turning; and a polynomial formula on anything at all.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..bounds import bounds_of
from ..delays import current
from ..diagnostics import Label, Report
from ..discretizations import _method as formulas
from ..discretizations import methods
from ..discretizations._method import Formula, Method
from ..expressions import children, constant, key, references
from ..recurrence import DiscreteForm, MicroStep, Write
from ..source import NOWHERE, Span
from ..spec import Apply, Dynamics, Expr, Recurrence, Ref, Rot, State, StateRef
from .chains import Chain, Factor, Polynomial, Refusal, chain, collect, product, scale, substitute
from .expand import Expander
from .formula_values import Formulas, depends_on_z
from .structure import NoClosedForm, Structure, structure_of
from .terms import micro_step, write
from .update import report_refusal


def discretized_step(spec: Recurrence, report: Report) -> tuple[tuple[MicroStep, ...], DiscreteForm]:
    """The one micro-step of a recurrence in continuous time, and what discretization found. Errors go to the report."""
    worker = _Discretizer(spec, report)
    steps = worker.run()
    if not report.has_errors:
        _report_singular(worker.formulas, spec, report)
    return steps, worker.form()


class _Discretizer:
    def __init__(self, spec: Recurrence, report: Report):
        self.spec = spec
        self.report = report
        self.name = spec.discretization.method
        self.method: Method = methods()[self.name]
        symbols = {s.name: s for s in spec.symbols}
        self.expander = Expander(symbols, takes_parts=True)
        args = spec.discretization.args
        self.dt: Expr = args[0] if args else algebra.UNIT
        self.formulas = Formulas(self.dt, dict(zip(self.method.parameters[1:], args[1:], strict=True)), symbols, bounds_of(spec))
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
        if _is_polynomial(method):
            return self._polynomial(state, derivatives), []
        structure = self._sorted(state, linear, span)
        kept = self._of_state(state, structure, span)
        written = tuple(w for item in inputs for w in self._weighted(state, structure, item, method.write))
        if method.older is None:
            return collect(kept + written), []
        before = self._before(state.name)
        if method.through is None:
            late = tuple(w for item in before for w in self._weighted(state, structure, item, method.older))
            return collect(kept + written + late), []
        # the transition acts on it as on the state
        early = [write(part, state) for item in before for part in self._weighted(state, structure, item, method.through)]
        return collect(kept + written), [replace(w, key=current(w.key), value=current(w.value), tap=1) for w in early]

    # --- polynomial formulas: any structure ----------------------------------------------------------------------

    def _polynomial(self, state: State, derivatives: dict[str, Polynomial]) -> Polynomial:
        linear = {name: tuple(self._stepped(i) for i in items if i.state is not None) for name, items in derivatives.items()}
        inputs = {name: tuple(self._stepped(i) for i in items if i.state is None) for name, items in derivatives.items()}

        def apply_linear(name: str, value: dict[str, Polynomial]) -> Polynomial:
            return collect(part for item in linear[name] for part in substitute(item, value[item.state.name]))

        def powers(first: dict[str, Polynomial], formula: Formula) -> Polynomial:
            total: list[Chain] = []
            value = first
            for k, coefficient in enumerate(formulas.coefficients(formula)):
                if k:
                    value = {name: apply_linear(name, value) for name in linear}
                total += [scale(item, self.formulas.expr(coefficient, algebra.ZERO)) for item in value[state.name]]
            return collect(total)

        states = {}
        for one in self.spec.states:
            ref = StateRef(one.type, NOWHERE, one.name, False)
            states[one.name] = (chain(algebra.UNIT, (Factor("state", ref),), one.type.rows, one.type.cols),)
        for item in derivatives[state.name]:
            if item.state is not None:
                self.rates.append(item.coefficient)
        kept = powers(states, self.method.transition)
        try:
            written = powers(inputs, self.method.write)
        except Refusal as refusal:
            title = f"the input weight of `{self.name}` makes no outer product of this input"
            raise self._undefined(state, refusal.span, title, refusal.label) from None
        return collect(kept + written)

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

    def _sorted(self, state: State, linear: Polynomial, span: Span) -> Structure:
        try:
            found = structure_of(state, linear, span, _has_inverses(self.method))
        except NoClosedForm as obstacle:
            raise self._undefined(state, obstacle.span, f"`{self.name}` has no closed form for this transition", obstacle.label) from None
        self.rates.append(found.rate)
        return found

    def _undefined(self, state: State, span: Span, title: str, label: str, help: str = "") -> Refusal:
        general = [n for n, m in methods().items() if m.parameters and n != self.name and _is_polynomial(m)]
        return Refusal(
            "discretization-undefined",
            title,
            span,
            label,
            note=f"`{self.name}` needs {formulas.text(self.method.transition, {'z': 'dt*A'})} of the matrix A that acts on `{state.name}`",
            help=help or "use a method that is a polynomial in A: " + " or ".join(f"`{n}(dt)`" for n in general),
            states=(state.name,),
        )

    # --- formulas on a structure ---------------------------------------------------------------------------------

    def _of_state(self, state: State, found: Structure, span: Span) -> Polynomial:
        ref = StateRef(state.type, span, state.name, False)
        itself = chain(algebra.UNIT, (Factor("state", ref),), state.type.rows, state.type.cols, span=span)
        if found.turning is not None:
            return self._turned(state, found, itself)
        return self._applied(state, found, itself, self.method.transition, step=None)

    def _weighted(self, state: State, found: Structure, item: Chain, formula: Formula) -> Polynomial:
        """`dt * formula(dt A) * item` for an input."""
        if not depends_on_z(formula):
            return (scale(self._stepped(item), self.formulas.expr(formula, algebra.ZERO)),)
        if found.turning is not None:
            title = f"the input weight of `{self.name}` does not keep pairs real"
            raise self._undefined(state, item.span, title, "this input would be turned", _FOR_PAIRS)
        if found.weight is not None:
            raise self._undefined(
                state, item.span, f"the input weight of `{self.name}` is a full matrix", "weighed entry by entry, this is no outer product"
            )
        return self._applied(state, found, item, formula, step=self.dt)

    def _applied(self, state: State, found: Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        """`formula(dt A) item`, times `step` when given."""
        if found.rank_one:
            return self._on_rank_one(state, found, item, formula, step)
        rate = found.rate
        value = self.formulas.at(formula, rate, item.span, step)
        if value.type.is_scalar:
            return (scale(item, value),)
        if found.weight is not None and not rate.type.is_column:
            place = item.place
            weighted = Factor("state", item.factors[place].expr, weight=value)
            return (chain(item.coefficient, (*item.left, weighted, *item.right), item.rows, item.cols, item.index, item.span),)
        return (self._diagonal(found, item, value),)

    def _diagonal(self, found: Structure, item: Chain, value: Expr) -> Chain:
        factor = Factor("diagonal", value)
        factors = (*item.factors, factor) if found.right is not None else (factor, *item.factors)
        return chain(item.coefficient, factors, item.rows, item.cols, item.index, item.span)

    def _turned(self, state: State, found: Structure, item: Chain) -> Polynomial:
        if self.method.transition != formulas.exp(formulas.Z):
            title = f"`{self.name}` of a rate of turning is no rotation"
            raise self._undefined(state, item.span, title, "the transition would stretch pairs as it turns them", _FOR_PAIRS)
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
        decay = self.formulas.at(self.method.transition, found.rate, item.span, None)
        angle = Rot(found.turning_type, found.turning.span, algebra.mul(self.dt, found.turning))
        factors: tuple[Factor, ...] = (Factor("rotation", angle), *item.factors)
        if decay.type.is_scalar:
            return (chain(decay, factors, item.rows, item.cols, item.index, item.span),)
        return (chain(item.coefficient, (Factor("diagonal", decay), *factors), item.rows, item.cols, item.index, item.span),)

    def _on_rank_one(self, state: State, found: Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        side, coefficient, column, reader, span = found.rank_one[0]
        row = reader.expr
        if not self.dt.type.is_scalar:
            title = f"`{self.name}` has no closed form for this transition"
            raise self._undefined(state, span, title, "a step size a row, and a rank-one term")
        if found.left is not None or found.right is not None:
            return self._beside_diagonal(found, item, formula, step)
        along = algebra.inner(row, column)  # the one eigenvalue that is not zero
        change = algebra.mul(self.dt, algebra.mul(coefficient, along))
        start = algebra.mul(self.dt, found.scalar)
        factors = (Factor("column", column), Factor("row", row))
        lined = item.left[:1] == factors[:1] if side == "left" else item.right[-1:] == factors[1:]
        if item.state is None and lined:
            # an input along the erase direction sees one eigenvalue only
            rate = algebra.add(found.scalar, algebra.mul(coefficient, along))
            return (scale(item, self.formulas.at(formula, rate, span, step)),)
        kept = scale(item, self.formulas.at(formula, found.scalar, span, step))
        difference = self.formulas.difference(formula, start, change, span)
        rate = algebra.mul(self.dt, coefficient)
        amount = algebra.mul(rate, difference)
        if step is not None:
            amount = algebra.mul(step, amount)
        size = item.rows if side == "left" else item.cols
        one = Chain(amount, factors, size, size, None, span)
        return collect((kept, product(one, item, span) if side == "left" else product(item, one, span)))

    def _beside_diagonal(self, found: Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        """`f(D + c u w^T)` for f(z) = (a + b z) / (1 - g z) = alpha + beta / (1 - g z), by the formula of Sherman and Morrison:

        f(D) + beta g dt c / (1 - g dt c w^T E u) (E u) (E w)^T  with  E = (1 - g dt D)^-1

        Where the real part of w^T s is what is read, that of g dt c w^T E u stands in the denominator.
        """
        side, coefficient, column, reader, span = found.rank_one[0]
        row = reader.expr
        beta, pole = formulas.partial_fraction(formula)
        resolvent = self.formulas.at(1 / (1 - formulas.lift(pole) * formulas.Z), found.rate, span, None)
        kept = self._diagonal(found, item, self.formulas.at(formula, found.rate, span, step))
        reach = algebra.mul(algebra.const(pole), algebra.mul(self.dt, coefficient))
        along = algebra.inner(row, algebra.mul(resolvent, column))
        taken = algebra.mul(reach, along)
        below = algebra.sub(algebra.UNIT, algebra.apply("Re", taken) if reader.kind == "part" else taken)
        is_mirrored = key(row) == key(algebra.apply("conj", column))
        if not (is_mirrored and self.formulas.is_right(resolvent) and self.formulas.is_nonpositive(reach)):
            self.formulas.divides(below, False, span)
        amount = algebra.div(algebra.mul(algebra.const(beta), reach), below)
        amount = amount if step is None else algebra.mul(step, amount)
        factors = (Factor("column", algebra.mul(resolvent, column)), Factor(reader.kind, algebra.mul(resolvent, row)))
        size = item.rows if side == "left" else item.cols
        one = Chain(amount, factors, size, size, None, span)
        return collect((kept, product(one, item, span) if side == "left" else product(item, one, span)))

    def _before(self, state: str) -> Polynomial:
        """The input at the beginning of the step, over values of the previous token."""
        before = next(d.before for d in self.spec.dynamics if d.state == state)
        return self.expander.expand(before)

    # --- what was found ------------------------------------------------------------------------------------------

    def form(self) -> DiscreteForm:
        method = self.method
        rate = next(iter(self.rates), None)
        name = rate.name if isinstance(rate, Ref) else "A"
        step = self.dt.name if isinstance(self.dt, Ref) else "dt"
        names = {"z": f"{step}*{name}", **{n: v.name if isinstance(v, Ref) else n for n, v in self.formulas.parameters.items()}}
        if not method.parameters:
            return DiscreteForm(self.name, 0, name, ("1",), "", 0)
        order = formulas.order_of(method, self.formulas.numbers())
        weights = [_with_step(method.write, step, names)]
        if method.older is not None:
            weights.append(_with_step(method.older, step, names))
        singular = ""
        if _removable(method.write):
            singular = f"{formulas.text(method.write, names)} = (exp({step}*{name}) - 1) / ({step}*{name}), its series near 0 and 1 there"
        return DiscreteForm(
            self.name, order.smooth, formulas.text(method.transition, names), tuple(weights), singular, order.held, self._special(names)
        )

    def _special(self, names: dict[str, str]) -> str:
        """Where a parameter that is no number would raise the order."""
        known = self.formulas.numbers()
        for name, value in self.formulas.parameters.items():
            found = formulas.special_value(self.method, name, known) if constant(value) is None else None
            if found is not None:
                return f"order {found[1]} where {names[name]} = {found[0]}"
        return ""


_FOR_PAIRS = "use a method that turns the state and weighs inputs by numbers: `exp_euler(dt)` or `exp_trapezoid(dt, lam)`"


def _with_step(formula: Formula, step: str, names: dict[str, str]) -> str:
    if formula == formulas.lift(1):
        return step
    shown = formulas.text(formula, names)
    return f"{step} * ({shown})" if not shown.isidentifier() else f"{step} * {shown}"


def _has_inverses(method: Method) -> bool:
    return all(formulas.partial_fraction(f) is not None for f in (method.transition, method.write, method.older) if f is not None)


def _is_polynomial(method: Method) -> bool:
    return method.older is None and None not in (formulas.coefficients(method.transition), formulas.coefficients(method.write))


def _removable(formula: Formula) -> bool:
    return formula == formulas.phi(1)


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


def _report_singular(found_in: Formulas, spec: Recurrence, report: Report) -> None:
    """Warn where the formula is 0/0 with a limit, refuse where it has a pole that the declared domains do not exclude."""
    for found in found_in.singular:
        secondary = tuple(
            Label(spec.symbol(name).span, f"`{name}` lies in {spec.symbol(name).interval}")
            for name in references(found.divisor)
            if name in found_in.symbols and found_in.symbols[name].type.field == "real"
        )
        method = spec.discretization.method
        if found.has_limit:
            report.warning(
                "singular-step",
                f"`{method}` divides by a rate that may be 0",
                found.span,
                "not provably different from 0",
                secondary=secondary,
                note="the weight has a limit there, but its formula is 0/0: exactly at 0 the result is not a number",
                help="bound the rate away from 0, as in `A <= -1e-4 = min(..., -1e-4)`, or use `exp_euler`",
            )
        else:
            # nothing bounds a complex name: where its value could meet a pole is for the user to judge
            say = report.warning if found.divisor.type.field == "complex" else report.error
            say(
                "singular-step",
                f"`{method}` has a pole that the declared domains do not exclude",
                found.span,
                "this rate may reach the pole",
                secondary=secondary,
                note=f"the transition is {formulas.text(methods()[method].transition, {'z': 'dt*A'})}",
                help="declare the rate `<= 0` and the step `> 0`, or use `exp_euler`",
            )
