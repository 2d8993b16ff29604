"""What is said of a step: rates that let a state grow, and divisors that may vanish."""

from __future__ import annotations

from .. import algebra, intervals
from ..diagnostics import Label, Report
from ..discretizations import _method as formulas
from ..discretizations import methods
from ..expressions import key, nodes, references
from ..intervals import Interval, point
from ..source import NOWHERE, Span
from ..spec import Expr, Recurrence, State
from ..spec_text import expr_text
from .chains import Polynomial
from .entrywise import FADING, System, growing
from .formula_values import Formulas
from .structure import NoClosedForm, structure_of


def warn_unstable(state: State, terms: Polynomial, span: Span, values: Formulas, report: Report) -> None:
    """Warn where the real part of what multiplies the state is not provably at most 0."""
    linear = tuple(item for item in terms if item.state is not None)
    try:
        found = structure_of(state, linear, span, has_inverses=True)
    except NoClosedForm:
        _warn_full(state, linear, span, values, report)
        return
    rates = [] if not found.sides and algebra.is_zero(found.scalar) else [found.rate(state.type)]
    # of a correction along one direction the sign says as much
    rates += [coefficient for _, coefficient, column, row, _ in found.rank_one if key(column) == key(row.expr)]
    for rate in rates:
        real = values.real_part(rate)
        if real is None or (reach := values.bounds.of(real)).high <= 0:
            continue
        part = "the real part of this rate" if rate.type.field == "complex" else "this rate"
        report.warning(
            "unstable-dynamics",
            f"`{state.name}` may grow without bound",
            rate.span if rate.span != NOWHERE else span,
            f"{part} lies in {reach}",
            secondary=_intervals(real, values),
            note=_grows(reach),
            help="let the rate be at most 0, as in `-exp(A_log)` or `-softplus(a)`, or declare the input `<= 0`",
        )


def _warn_full(state: State, linear: Polynomial, span: Span, values: Formulas, report: Report) -> None:
    """Warn where full matrices are not proved to draw the state together: where the symmetric part of their sum may reach above 0.

    What is turned against itself, `X - X^T`, has no such part, `-(X X^T)` one that is at most 0; of any other matrix no eigenvalue is
    larger than the sum of a row's entries.
    """
    matrices: list[tuple[Expr, Expr, Span]] = []
    reach = point(0)
    for item in linear:
        factors = [f for f in (*item.left, *item.right) if f.kind == "dense"]
        is_gram = len(factors) == 2 and key(factors[0].expr) == key(algebra.transpose(factors[1].expr))
        if is_gram and values.is_nonpositive(item.coefficient):
            continue
        if item.state.name != state.name or len(factors) != 1 or len(item.left) + len(item.right) != 1:
            if [f.kind for f in (*item.left, *item.right)] in ([], ["diagonal"]):
                rate = algebra.mul(item.coefficient, item.left[0].expr) if item.left else item.coefficient
                reach = intervals.add(reach, values.bounds.of(rate))
                continue
            return
        matrices.append((item.coefficient, factors[0].expr, item.span))
    free = [m for m in matrices if not _is_cancelled(m, matrices, values)]
    if (not free and reach.high <= 0) or any(m.type.field == "complex" for _, m, _ in free):
        return
    entries = point(0)
    for coefficient, matrix, _ in free:
        entries = intervals.add(entries, intervals.multiply(values.bounds.of(coefficient), values.bounds.of(matrix)))
    report.warning(
        "unstable-dynamics",
        f"`{state.name}` may grow without bound",
        next((place for *_, place in free if place != NOWHERE), span),
        f"{f'a full matrix whose entries lie in {entries}, beside ' if free else ''}rates in {reach}",
        secondary=_intervals(free[0][1], values) if free else (),
        note="in continuous time the state grows as exp(r t) where an eigenvalue of the matrix has a real part r above 0; nothing is "
        "proved of those of a full matrix but of `A - A^T`, which turns, and of `-(A A^T)`, which draws together",
        help="build it of parts that do not grow, as in `(A - A^T) S - exp(a) * S`",
    )


def _is_cancelled(own: tuple[Expr, Expr, Span], matrices: list[tuple[Expr, Expr, Span]], values: Formulas) -> bool:
    """Whether another term is the negative of the transpose."""
    coefficient, matrix, _ = own
    return any(
        key(algebra.transpose(other)) == key(matrix) and values.bounds.of(algebra.add(coefficient, factor)) == point(0)
        for factor, other, _ in matrices
    )


def _grows(reach: Interval) -> str:
    tokens = "every" if reach.low > 0 else "such a"
    return f"in continuous time a state whose rate is above 0 grows as exp(A t), and {tokens} token multiplies it by more than 1"


def warn_growing(system: System, span: Span, report: Report) -> None:
    """Warn where an eigenvalue of states that feed each other may have a real part above 0."""
    found = growing(system)
    if found is None:
        return
    what, value = found
    names = " and ".join(f"`{state.name}`" for state in system.states)
    report.warning(
        "unstable-dynamics",
        f"{names} may grow without bound",
        span,
        f"{what}, {expr_text(value)}, lies in {system.formulas.bounds.of(value)}",
        secondary=_intervals(value, system.formulas),
        note="in continuous time states that feed each other grow as exp(r t) where det(r - A) is 0 for an r with a real part above 0: "
        "there is one where a coefficient of this polynomial is below 0",
        help=FADING,
    )


def _intervals(value: Expr, values: Formulas) -> tuple[Label, ...]:
    known = {n: values.symbols[n] for n in references(value) if n in values.symbols}
    return tuple(Label(s.span, f"`{n}` lies in {s.interval}") for n, s in known.items() if s.type.field == "real")


def report_singular(found_in: Formulas, spec: Recurrence, report: Report) -> None:
    """Warn where the formula is 0/0 with a limit, refuse where it has a pole that the declared domains do not exclude."""
    for found in found_in.singular:
        secondary = _intervals(found.divisor, found_in)
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
            say = report.warning if any(node.type.field == "complex" for node in nodes(found.divisor)) else report.error
            say(
                "singular-step",
                f"`{method}` has a pole that the declared domains do not exclude",
                found.span,
                found.fact,
                secondary=secondary,
                note=f"the transition is {formulas.text(methods()[method].transition, {'z': 'dt*A'})}",
                help=found.edit or "declare the rate `<= 0` and the step `> 0`, or use `exp_euler`",
            )
