"""Continuous time: `dS/dt = A S + B` and a method of `discretizations/` give the update.

A formula f(dt A) is evaluated on the structure of A: entry by entry on scalars, diagonals and full weights; through
f(c u w^T) = f(0) + (f(c w.u) - f(0)) / (w.u) u w^T on a rank-one matrix; as a rotation when the formula is the exponential
of a rate of turning; a polynomial formula on anything at all; and on the rest as a function of a whole matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from .. import algebra
from ..bounds import bounds_of
from ..delays import current
from ..diagnostics import Report
from ..discretizations import _method as formulas
from ..discretizations import methods
from ..discretizations._method import Formula, Method
from ..expressions import children, constant, half, key
from ..recurrence import DiscreteForm, MicroStep, Write
from ..source import NOWHERE, Span
from ..spec import ONE, Apply, Dim, Expr, Recurrence, Ref, Rot, Skew, State, StateRef, Type
from . import entrywise
from .chains import Chain, Factor, Polynomial, Refusal, chain, collect, elementwise, product, scale, substitute, weigh
from .continuous import as_dynamics, unprimed
from .entrywise import System
from .expand import Expander
from .formula_values import Formulas, depends_on_z
from .full_matrices import Full, full_of, has_full
from .step_reports import report_singular, warn_growing, warn_unstable
from .structure import NoClosedForm, Structure, spread, structure_of
from .terms import micro_step, write
from .turning_pairs import Pairs, halved
from .update import report_refusal


def discretized_step(spec: Recurrence, report: Report) -> tuple[tuple[MicroStep, ...], DiscreteForm, tuple[tuple[str, Expr], ...]]:
    """The one micro-step of a recurrence in continuous time, what discretization found, and the values that it named.

    Errors go to the report.
    """
    worker = _Discretizer(spec, report)
    steps = worker.run()
    if not report.has_errors:
        report_singular(worker.formulas, spec, report)
    return steps, worker.form(), tuple(worker.hoisted.items())


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
        self.hoisted: dict[str, Expr] = {}  # values that get a name
        self.contracting: list[str] = []
        self.joint: list[tuple[str, ...]] = []
        self.is_of_two = False  # whether an exponential of two states is written out
        self.is_full = False  # whether a function of a whole matrix is taken

    # --- the step ------------------------------------------------------------------------------------------------

    def run(self) -> tuple[MicroStep, ...]:
        derivatives: dict[str, Polynomial] = {}
        spans: dict[str, Span] = {}
        for dynamics in self.spec.dynamics:
            spans[dynamics.state] = dynamics.span
            try:
                derivatives[dynamics.state] = self.expander.expand(unprimed(dynamics))
            except Refusal as refusal:
                report_refusal(as_dynamics(refusal), self.spec, self.report)
        if self.report.has_errors:
            return ()
        values: dict[str, Polynomial] = {}
        taps: list[Write] = []
        for group in entrywise.groups(self.spec.states, derivatives):
            self._warn_growing(group, derivatives, spans)
            try:
                for state, value, older in self._group(group, derivatives, spans):
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

    def _group(self, group: tuple[State, ...], derivatives: dict[str, Polynomial], spans: dict[str, Span]):
        """`(state, value, older writes)` of states that feed each other, or of one."""
        turns = any(_turns(item) for state in group for item in derivatives[state.name])
        if len(group) == 1 or (_is_polynomial(self.method) and not turns):
            return [(state, *self._one(state, derivatives, spans[state.name])) for state in group]
        title = f"`{self.name}` has no closed form for this transition"
        try:
            system = self._system(group, derivatives, spans)
        except NoClosedForm as obstacle:
            help = self._alternatives_of(lambda method: _is_polynomial(method) and not turns)
            raise self._undefined(group[0], obstacle.span, title, obstacle.label, help, group) from None
        label = system.lacks(self.method)
        if label is not None:
            help = self._alternatives_of(lambda method: _is_polynomial(method) or system.has(method))
            raise self._undefined(group[0], system.span, title, label, help, group)
        self.is_of_two = self.is_of_two or system.uses_exponentials(self.method)
        if self._keeps_left() and entrywise.is_decaying(system):
            self.joint.append(tuple(state.name for state in group))
        return [(state, self._one_of(system, state, derivatives), []) for state in group]

    def _system(self, group: tuple[State, ...], derivatives: dict[str, Polynomial], spans: dict[str, Span]) -> System:
        side = self._side_of_step(group[0].type.rows, group[0].type.cols)
        return entrywise.system_of(group, derivatives, spans, self.dt, side, self.formulas, self._named)

    def _one_of(self, system: System, state: State, derivatives: dict[str, Polynomial]) -> Polynomial:
        """The value of a state that others feed entry by entry."""
        place = system.states.index(state)

        def weighted(formula: Formula, items_of: Callable[[State], Polynomial], step: Expr) -> Polynomial:
            if not depends_on_z(formula):
                return tuple(scale(self._stepped(item), self.formulas.expr(formula, algebra.ZERO)) for item in items_of(state))
            weights = (algebra.mul(step, weight) for weight in system.at(formula)[place])
            found = [(item, weight) for source, weight in zip(system.states, weights, strict=True) for item in items_of(source)]
            return tuple(scale(item, w) if w.type.is_scalar else self._along(item, w, system.side) for item, w in found)

        def itself(source: State) -> Polynomial:
            ref = StateRef(source.type, NOWHERE, source.name, False)
            return (chain(algebra.UNIT, (Factor("state", ref),), source.type.rows, source.type.cols, span=system.span),)

        def inputs(source: State) -> Polynomial:
            return tuple(item for item in derivatives[source.name] if item.state is None)

        value = weighted(self.method.transition, itself, algebra.UNIT) + weighted(self.method.write, inputs, system.step)
        if self.method.older is not None:
            value += weighted(self.method.older, lambda source: self._before(source.name), system.step)
        return collect(value)

    def _one(self, state: State, derivatives: dict[str, Polynomial], span: Span) -> tuple[Polynomial, list[Write]]:
        method = self.method
        terms = derivatives[state.name]
        inputs = tuple(item for item in terms if item.state is None)
        linear = tuple(item for item in terms if item.state is not None)
        if _is_polynomial(method) and not any(_turns(item) for item in linear):
            return self._polynomial(state, derivatives), []
        structure = self._sorted(state, linear, span)
        kept = self._of_state(state, structure, span)
        written = tuple(w for item in inputs for w in self._weighted(state, structure, item, method.write))
        if method.older is None:
            return collect(kept + written), []
        before = self._before(state.name)
        if method.through is None or not self.dt.type.is_scalar:
            # a weight of this token's that is no number stays with this token
            late = tuple(w for item in before for w in self._weighted(state, structure, item, method.older))
            return collect(kept + written + late), []
        # the transition acts on it as on the state
        early = [write(part, state) for item in before for part in self._weighted(state, structure, item, method.through)]
        return collect(kept + written), [_of_the_token(w) for w in early]

    def _warn_growing(self, group: tuple[State, ...], derivatives: dict[str, Polynomial], spans: dict[str, Span]) -> None:
        """Warn where a state, or states that feed each other, are not proved not to grow."""
        if not self.method.parameters:
            return
        if len(group) == 1:
            warn_unstable(group[0], derivatives[group[0].name], spans[group[0].name], self.formulas, self.report)
            return
        try:
            warn_growing(self._system(group, derivatives, spans), spans[group[0].name], self.report)
        except (NoClosedForm, Refusal):
            return

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
            help = "write an outer product of two columns, or use `euler(dt)`, which weighs inputs by numbers"
            raise self._undefined(state, refusal.span, title, refusal.label, help) from None
        return collect(kept + written)

    def _stepped(self, item: Chain) -> Chain:
        """`dt * chain`; a column of step sizes is a diagonal on the key side."""
        side = self._side_of_step(item.rows, item.cols)
        if not side:
            return scale(item, self.dt)
        if side != "left" and item.state is not None and any(f.kind not in ("diagonal", "state") for f in item.factors):
            raise Refusal(
                "discretization-undefined", "the step size does not commute with this transition", self.dt.span, _NOT_ALONG[side],
                help="use one step size, or one for every row of the state",
            )  # fmt: skip
        return self._along(item, self.dt, side)

    def _side_of_step(self, rows: Dim, cols: Dim) -> str:
        """The side of a state along which the step size differs: 'left', 'right', 'whole', or none, ''."""
        type = self.dt.type
        if type.is_scalar:
            return ""
        if (type.rows, type.cols) in ((rows, ONE), (cols, ONE), (rows, cols)):
            return "left" if type.is_column and type.rows == rows else "right" if type.is_column else "whole"
        raise Refusal(
            "discretization-undefined",
            "the step size does not fit the state",
            self.dt.span,
            f"a step size of type {type} for a state [{rows}, {cols}]",
            help="use one step size, or one for every row, column or entry of the state",
        )

    def _along(self, item: Chain, value: Expr, side: str) -> Chain:
        """`value * chain`, entry by entry, for a value that differs along a side."""
        factors = item.factors
        if side == "whole":
            (found,) = elementwise((), value, item, item.span) if item.state is not None else (weigh(value, item, item.span),)
            if found is None:
                raise Refusal(
                    "write-without-key",
                    "a written matrix is weighed entry by entry",
                    item.span,
                    "this is no outer product `k v^T`",
                    note="a write is `k v^T`, weighed entry by entry perhaps",
                    help="write an outer product of two columns, or use one step size",
                )
            return found
        factors = (*factors, Factor("diagonal", value)) if side == "right" else (Factor("diagonal", value), *factors)
        return chain(item.coefficient, factors, item.rows, item.cols, item.index, item.span)

    # --- the structure of A --------------------------------------------------------------------------------------

    def _sorted(self, state: State, linear: Polynomial, span: Span) -> Structure | Full:
        try:
            found = structure_of(state, linear, span, _has_inverses(self.method))
        except NoClosedForm as obstacle:
            full = self._full_of(state, linear, span)
            if full is not None and has_full(self.method):
                return self._full(state, full)
            title, help = f"`{self.name}` has no closed form for this transition", self._alternatives(state, linear, span)
            both = any(item.left for item in linear) and any(item.right for item in linear)
            label = f"{obstacle.label}, and not on one side alone" if both and full is None else obstacle.label
            raise self._undefined(state, obstacle.span, title, label, help) from None
        self.rates.append(found.rate(state.type))
        side = self._side_of_step(state.type.rows, state.type.cols)
        if (side and found.turning is not None) or (side in ("right", "whole") and found.rank_one):
            title, help = "the step size does not commute with this transition", "use one step size, a scalar"
            raise self._undefined(state, self.dt.span, title, _NOT_ALONG[side], help)
        if self._contracts(state, found):
            self.contracting.append(state.name)
        return found

    def _full_of(self, state: State, linear: Polynomial, span: Span) -> Full | None:
        return full_of(state, linear, span, self.formulas, lambda what, value: self._named(state, what, value))

    def _full(self, state: State, full: Full) -> Full:
        if not self.dt.type.is_scalar:
            title = f"`{self.name}` has no closed form for this transition"
            raise self._undefined(state, self.dt.span, title, "a step size an entry, and a full matrix", _FOR_ROWS)
        self.rates.append(full.matrix)
        self.is_full = True
        if full.draws and self._keeps_left():
            self.contracting.append(state.name)
        return full

    def _contracts(self, state: State, found: Structure) -> bool:
        """Whether A + A^H <= 0 is proved and the method maps such rates to contractions (von Neumann's inequality).

        f(z) = 1 + s z / (1 - g z) keeps the left half-plane in the unit disc where g > 0 and 0 <= s <= 2 g.
        """
        is_mirrored = all(
            key(reader.expr) == key(algebra.apply("conj", column)) and self.formulas.is_nonpositive(coefficient)
            for _, coefficient, column, reader, _ in found.rank_one
        )
        return self._keeps_left() and is_mirrored and self.formulas.is_left(found.rate(state.type))

    def _keeps_left(self) -> bool:
        """Whether the method maps the left half-plane to the unit disc, for a step that is not negative."""
        slope, pole = formulas.slope_and_pole(self.method.transition) or (Fraction(-1), Fraction(0))
        is_stable = self.method.transition == formulas.exp(formulas.Z) or (pole > 0 and 0 <= slope <= 2 * pole)
        return is_stable and self.formulas.is_nonpositive(algebra.neg(self.dt))

    def _alternatives(self, state: State, linear: Polynomial, span: Span) -> str:
        """The methods that have a closed form where this one has none."""

        full = self._full_of(state, linear, span)

        def has(method: Method) -> bool:
            try:
                if not _is_polynomial(method) or any(map(_turns, linear)):
                    structure_of(state, linear, span, _has_inverses(method))
            except NoClosedForm:
                return full is not None and has_full(method)
            return True

        return self._alternatives_of(has)

    def _alternatives_of(self, has: Callable[[Method], bool]) -> str:
        others = {name: method for name, method in methods().items() if method.parameters and name != self.name and has(method)}
        found = [f"`{name}({', '.join(method.parameters)})`" for name, method in others.items()]
        return f"use a method that has one: {' or '.join(found)}" if found else "write the discrete update: `update S' = ...`"

    def _undefined(self, state: State, span: Span, title: str, label: str, help: str, group: tuple[State, ...] = ()) -> Refusal:
        names = " and ".join(f"`{s.name}`" for s in group or (state,)) + (" together" if group else "")
        return Refusal(
            "discretization-undefined",
            title,
            span,
            label,
            note=f"`{self.name}` needs {formulas.text(self.method.transition, {'z': 'dt*A'})} of the matrix A that acts on {names}",
            help=help,
            states=tuple(s.name for s in group or (state,)),
        )

    # --- formulas on a structure ---------------------------------------------------------------------------------

    def _of_state(self, state: State, found: Structure | Full, span: Span) -> Polynomial:
        ref = StateRef(state.type, span, state.name, False)
        itself = chain(algebra.UNIT, (Factor("state", ref),), state.type.rows, state.type.cols, span=span)
        if isinstance(found, Full):
            return found.applied(self.formulas, self.method.transition, itself)
        if found.turning is not None and not found.rank_one:
            return self._turned(state, found, itself)
        return self._applied(state, found, itself, self.method.transition, step=None)

    def _weighted(self, state: State, found: Structure | Full, item: Chain, formula: Formula) -> Polynomial:
        """`dt * formula(dt A) * item` for an input."""
        if not depends_on_z(formula):
            return (scale(self._stepped(item), self.formulas.expr(formula, algebra.ZERO)),)
        if isinstance(found, Full):
            return found.applied(self.formulas, formula, self._stepped(item))
        if found.turning is not None and not found.rank_one:
            return (self._turned_input(state, found, item, formula),)
        return self._applied(state, found, item, formula, step=self.dt)

    def _applied(self, state: State, found: Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        """`formula(dt A) item`, times `step` when given."""
        if found.rank_one:
            return self._on_rank_one(state, found, item, formula, step)
        by = self._side_of_step(state.type.rows, state.type.cols)
        sides = found.sides | ({by} - {""})
        if sides == {"left", "right"} and not by and formula == formulas.exp(formulas.Z):
            # an exponential of a sum is a product: one factor a row, one a column
            rows = replace(found, right=None).rate(state.type)
            for rate, side in ((rows, "left"), (found.right, "right")):
                item = self._along(item, self.formulas.at(formula, rate, item.span, None), side)
            return (item,)
        side = "whole" if len(sides) > 1 else "".join(sides)
        rate, dt = found.rate(state.type), self.dt
        if side == "whole":
            rate = spread(rate, "".join(found.sides), state.type) if len(found.sides) == 1 else rate
            dt = spread(dt, by, state.type)
        value = self.formulas.at(formula, rate, item.span, step if step is None else dt, dt)
        return (scale(item, value) if value.type.is_scalar else self._along(item, value, side),)

    def _turned(self, state: State, found: Structure, item: Chain) -> Polynomial:
        formula = self.method.transition
        if formula == formulas.exp(formulas.Z):
            self._shares_pairs(state, found)
            decay = self.formulas.at(formula, found.rate(state.type), item.span, None)
            angle = algebra.mul(self.dt, found.turning)
        else:
            modulus, angle = self._pairs(state, found, item.span).polar(formula)
            decay, angle = _of_both(self._named(state, "modulus", modulus), state), self._named(state, "angle", angle)
        factors: tuple[Factor, ...] = (Factor("rotation", Rot(found.turning_type, found.turning.span, angle)), *item.factors)
        if decay.type.is_scalar:
            return (chain(decay, factors, item.rows, item.cols, item.index, item.span),)
        return (chain(item.coefficient, (Factor("diagonal", decay), *factors), item.rows, item.cols, item.index, item.span),)

    def _turned_input(self, state: State, found: Structure, item: Chain, formula: Formula) -> Chain:
        """`dt * formula(z) * item` for pairs that turn; of phi1, with A = a + i w, the pair of e^z - 1 over the pair of A,

        e^z - 1 = u + v J  with  u = expm1(dt a) cos(dt w) - 2 sin(dt w / 2)^2,  v = exp(dt a) sin(dt w)
        """
        rows = state.type.rows
        if [f.kind for f in item.factors][:1] != ["column"]:
            title = f"the input weight of `{self.name}` turns pairs, and this input is no outer product"
            raise self._undefined(state, item.span, title, "has no column to turn", _BY_NUMBERS)
        if formula != formulas.phi(1):
            u, v = self._pairs(state, found, item.span).parts(formula)
            parts = _of_both(self._named(state, "along", u), state), _of_both(self._named(state, "across", v), state)
            turned = self._with_pairs(found, parts, item.factors[0].expr)
            coefficient = algebra.mul(self.dt, item.coefficient)
            return chain(coefficient, (Factor("column", turned), *item.factors[1:]), item.rows, item.cols, item.index, item.span)
        self._all_turn(state, found, item.span)
        self._shares_pairs(state, found)
        a, w = found.rate(state.type), found.turning
        w = w if w.type.is_scalar else algebra.apply("pairs", w, type=Type(rows))
        x, y = algebra.mul(self.dt, a), algebra.mul(self.dt, w)
        sine = algebra.apply("sin", algebra.div(y, algebra.const(2)))
        cosine = algebra.mul(algebra.apply("expm1", x), algebra.apply("cos", y))
        u = self._named(state, "cosine", algebra.sub(cosine, algebra.mul(algebra.const(2), algebra.apply("square", sine))))
        v = self._named(state, "sine", algebra.mul(algebra.apply("exp", x), algebra.apply("sin", y)))
        below = algebra.add(algebra.apply("square", a), algebra.apply("square", w))
        self.formulas.divides(below, True, item.span)
        along = self._named(state, "along", algebra.div(algebra.add(algebra.mul(u, a), algebra.mul(v, w)), below))
        across = self._named(state, "across", algebra.div(algebra.sub(algebra.mul(v, a), algebra.mul(u, w)), below))
        turned = self._with_pairs(found, (along, across), item.factors[0].expr)
        return chain(item.coefficient, (Factor("column", turned), *item.factors[1:]), item.rows, item.cols, item.index, item.span)

    def _pairs(self, state: State, found: Structure, span: Span) -> Pairs:
        """Formulas at the z of pairs that turn."""
        self._all_turn(state, found, span)
        self._shares_pairs(state, found)
        rate = halved(found.rate(state.type))
        x, y = algebra.mul(self.dt, rate), algebra.mul(self.dt, found.turning)
        return Pairs(self.formulas, x, y, span, lambda what, value: self._named(state, what, value))

    def _all_turn(self, state: State, found: Structure, span: Span) -> None:
        """Raise Refusal where some rows turn and others do not."""
        if found.turns_some(state.type.rows):
            title = f"`{self.name}` acts on pairs that turn as a whole, and not every row is of one"
            raise self._undefined(state, span, title, "some rows of the state do not turn", _FOR_PAIRS)

    def _with_pairs(self, found: Structure, parts: tuple[Expr, Expr], column: Expr) -> Expr:
        """`(u + v J) column`, J a quarter turn."""
        quarter = Rot(found.turning_type, NOWHERE, algebra.div(algebra.apply("pi"), algebra.const(2)))
        u, v = parts
        return algebra.add(algebra.mul(u, column), algebra.mul(v, algebra.matmul(quarter, column)))

    def _named(self, state: State, what: str, value: Expr) -> Expr:
        """A value of the token under a name of its own, where it is no number."""
        if constant(value) is not None:
            return value
        name, taken = f"{state.name}_{what}", {s.name for s in (*self.spec.symbols, *self.spec.states)}
        while name in taken or self.hoisted.get(name, value) != value:
            name += "_"
        self.hoisted[name] = value
        return Ref(value.type, NOWHERE, name)

    def _shares_pairs(self, state: State, found: Structure) -> None:
        """Raise Refusal where both members of a pair may decay differently."""
        if found.left is not None and not _is_paired(found.left):
            raise Refusal(
                "rotation-unequal-decay",
                "the decay differs inside a pair that turns",
                found.left.span,
                "this decay is given row by row",
                note="a rotation commutes with the decay only when both members of a pair share it",
                help=f"give one rate a pair, `diag(pairs(a))` with `a : [{half(found.left.type.rows)}]`, or one rate for all rows, "
                f"`A * {state.name}` with `A : scalar`",
                states=(state.name,),
            )

    def _on_rank_one(self, state: State, found: Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        side, coefficient, column, reader, span = found.rank_one[0]
        row = reader.expr
        if not self.dt.type.is_scalar:
            title = f"`{self.name}` has no closed form for this transition"
            raise self._undefined(state, span, title, "a step size a row, and a rank-one term", _FOR_ROWS)
        if found.left is not None or found.right is not None or found.turning is not None:
            return self._beside_diagonal(state, found, item, formula, step)
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

    def _beside_diagonal(self, state: State, found: Structure, item: Chain, formula: Formula, step: Expr | None) -> Polynomial:
        """`f(D + c u w^T)` for f(z) = f(0) + s z / (1 - g z), by the formula of Sherman and Morrison:

        f(D) + s dt c / (1 - g dt c w^T E u) (E u) (E^T w)^T  with  E = (1 - g dt D)^-1

        Where the real part of w^T s is what is read, that of g dt c w^T E u stands in the denominator.
        """
        side, coefficient, column, reader, span = found.rank_one[0]
        row = reader.expr
        slope, pole = formulas.slope_and_pole(formula)
        inverse = 1 / (1 - formulas.lift(pole) * formulas.Z)
        if found.turning is not None:
            written = item.state is None and depends_on_z(formula)
            kept = self._turned_input(state, found, item, formula) if written else self._turned(state, found, item)[0]
            pairs = self._pairs(state, found, span)
            u, v = (_of_both(part, state) for part in pairs.parts(inverse))
            is_right = self.formulas.is_positive(algebra.sub(algebra.UNIT, algebra.mul(algebra.const(pole), pairs.x)))
            from_column = self._with_pairs(found, (u, v), column) if pole else column
            from_row = self._with_pairs(found, (u, algebra.neg(v)), row) if pole else row
        else:
            resolvent = self.formulas.at(inverse, found.rate(state.type), span, None)
            value = self.formulas.at(formula, found.rate(state.type), span, step)
            kept = self._along(item, value, "right" if found.right is not None else "left")
            is_right = self.formulas.is_right(resolvent)
            from_column, from_row = algebra.mul(resolvent, column), algebra.mul(resolvent, row)
        rate = algebra.mul(self.dt, coefficient)
        taken = algebra.mul(algebra.const(pole), algebra.mul(rate, algebra.inner(row, from_column)))
        below = algebra.sub(algebra.UNIT, algebra.apply("Re", taken) if reader.kind == "part" else taken)
        is_mirrored = key(row) == key(algebra.apply("conj", column))
        if pole and not (is_mirrored and is_right and pole > 0 and self.formulas.is_nonpositive(rate)):
            drawn = "let the term draw along the column that it reads, as `-k (k^T S)` does, beside a rate `<= 0` and a step `> 0`"
            self.formulas.divides(below, False, span, drawn)
        amount = algebra.div(algebra.mul(algebra.const(slope), rate), below)
        amount = amount if step is None else algebra.mul(step, amount)
        factors = (Factor("column", from_column), Factor(reader.kind, from_row))
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
            quotient = f"{formulas.text(method.write, names)} = (exp({step}*{name}) - 1) / ({step}*{name})"
            pairs = f"{quotient} of pairs, {name} = a + i w: over a^2 + w^2, with expm1({step}*a) and sin({step}*w/2)^2 above"
            singular = pairs if self.hoisted else f"{quotient}, its series near 0 and 1 there"
        if self.is_full and _removable(method.write):
            singular = f"of a full matrix a corner of exp([[{step}*{name}, I], [0, 0]]), where nothing is divided by"
        if self.is_of_two:
            parts = "f = e + o (z - m), e and o the even and odd part in s of f(m + s): 2 m the trace of z, s^2 = m^2 - its determinant"
            singular = f"z = {step}*{name} of two states: {parts}, of either sign; series near s = 0"
        return DiscreteForm(
            self.name, order.smooth, formulas.text(method.transition, names), tuple(weights), singular, order.held, self._special(names),
            tuple(self.contracting), tuple(self.joint),
        )  # fmt: skip

    def _special(self, names: dict[str, str]) -> str:
        """Where a parameter that is no number would raise the order."""
        known = self.formulas.numbers()
        for name, value in self.formulas.parameters.items():
            found = formulas.special_value(self.method, name, known) if constant(value) is None else None
            if found is not None:
                return f"order {found[1]} where {names[name]} = {found[0]}"
        return ""


_NOT_ALONG = {
    "left": "a step size a row, and pairs of rows that turn",
    "right": "a step size a column, and a transition that mixes rows",
    "whole": "a step size an entry, and a transition that mixes rows",
}
_BY_NUMBERS = "use a method that turns the state and weighs inputs by numbers: `exp_euler(dt)` or `exp_trapezoid(dt, lam)`"
_FOR_PAIRS = f"{_BY_NUMBERS}; or let every row turn, at a rate of 0 where it shall not"
_FOR_ROWS = "use one step size, or a method that is a polynomial in A: `euler(dt)` or `rk4(dt)`"


def _of_both(value: Expr, state: State) -> Expr:
    """A value of every pair for both of its members."""
    return value if value.type.is_scalar else algebra.apply("pairs", value, type=Type(state.type.rows))


def _turns(item: Chain) -> bool:
    """Whether a term turns pairs of the state."""
    return any(f.kind == "dense" and isinstance(f.expr, Skew) for f in item.factors)


def _of_the_token(term: Write) -> Write:
    """A write over delayed names as one of tap 1, over the names that it delays."""
    return replace(term, key=current(term.key), value=current(term.value), weight=current(term.weight), tap=1)


def _with_step(formula: Formula, step: str, names: dict[str, str]) -> str:
    if formula == formulas.lift(1):
        return step
    shown = formulas.text(formula, names)
    return f"{step} * ({shown})" if not shown.isidentifier() else f"{step} * {shown}"


def _has_inverses(method: Method) -> bool:
    return all(formulas.slope_and_pole(f) is not None for f in (method.transition, method.write, method.older) if f is not None)


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
