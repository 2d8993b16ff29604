"""The derived recurrence as equations, one a line: what each token does to the state, what it reads, and the adjoint."""

from __future__ import annotations

from .expressions import constant
from .recurrence import DiscreteForm, Generator, MicroStep, Read, Recurrence, Transition, Write
from .spec import Add, Apply, Const, Expr, Neg, Ref
from .spec_text import expr_text


def recurrence_text(recurrence: Recurrence) -> str:
    """Everything that `derive` found, as text for people and for tests."""
    lines = [f"recurrence {recurrence.spec.name}"]
    if recurrence.sequential:
        lines.append(f"  sequential: {recurrence.sequential}")
    if recurrence.discrete is not None:
        lines += [f"  {line}" for line in _discrete(recurrence.discrete)]
    lines += [f"  {line}" for line in equations(recurrence)]
    if recurrence.adjoint:
        lines += ["  adjoint", *(f"    {line}" for line in recurrence.adjoint)]
    return "\n".join(lines) + "\n"


def _discrete(form: DiscreteForm) -> list[str]:
    order = f": order {form.order}, {'exact' if form.held_order is None else f'order {form.held_order}'} for an input held during the step"
    order += f", {form.special}" if form.special else ""
    lines = [f"discretized by {form.method}" + (order if form.order else "")]
    lines.append(f"  transition {form.transition}, input weights {', '.join(form.weights)}")
    return [*lines, f"  {form.singular}"] if form.singular else lines


def equations(recurrence: Recurrence) -> list[str]:
    """`S' = exp(g) * S + k v^T`, micro-steps in their order, then every read and output; of a sequential one, outputs only.

    A write of the previous token enters before the transitions: `S~ = S + c * (k v^T)[-1]`, then `S' = exp(g) * S~ + ...`.
    """
    lines = [f"{name} = {expr_text(value)}" for name, value in recurrence.hoisted]
    for m in recurrence.maxima:
        carried = m.before if m.shift is None else f"{expr_text(m.shift)} + {m.before}"
        lines.append(f"{m.after} = max({carried}, {expr_text(m.value)})")
    for step in recurrence.steps:
        pad = ""
        if step.index is not None:
            lines.append(f"for {step.index} in 1..{step.count}:")
            pad = "  "
        for state in recurrence.spec.states:
            lines += [pad + line for line in _step(step, state.name)]
    lines += [f"{read.name} = {_read(read, recurrence)}" for read in recurrence.reads]
    return lines + [f"{name} = {expr_text(value)}" for name, value in recurrence.outputs]


def _step(step: MicroStep, state: str) -> list[str]:
    writes = [w for w in step.writes if w.target == state]
    entering = {w.target for w in step.writes if w.tap == 1}
    lines = []
    if state in entering:
        lines.append(f"{state}~ = {_sum([state, *(_write(w) for w in writes if w.tap == 1)])}")
    terms = [_transition(t, t.source + "~" * (t.source in entering)) for t in step.transitions if t.target == state]
    return [*lines, f"{state}' = {_sum(terms + [_write(w) for w in writes if w.tap == 0])}"]


def _sum(terms: list[str]) -> str:
    text = terms[0] if terms else "0"
    for term in terms[1:]:
        text += f" - {term[1:]}" if term.startswith("-") else f" + {term}"
    return text


def _transition(term: Transition, source: str) -> str:
    product = " ".join([*(_generator(g) for g in term.left), source, *(_generator(g) for g in term.right)])
    return _summed(_times(term.coefficient, product), term.index, term.rank)


def _generator(generator: Generator) -> str:
    match generator.kind:
        case "diagonal":
            return f"diag({expr_text(generator.column)})"
        case "rotation":
            return f"rot({expr_text(generator.column)})"
        case "rank_one":
            return f"{_factor(generator.column)} {_factor(generator.row)}^T"
        case "part":
            return f"{_factor(generator.column)} Re {_factor(generator.row)}^T"
        case "elementwise":
            return f"{_factor(generator.column)} *"
    return _factor(generator.column)


def _write(term: Write) -> str:
    parts = [] if term.key is None else [_factor(term.key)]
    if term.value is not None:
        parts.append(f"{_factor(term.value)}^T")
    product = " ".join(parts)
    if term.weight is not None:
        product = f"{_factor(term.weight)} * ({product})"
    if term.tap == 1:
        product = f"({product})[-1]"
    return _summed(_times(term.coefficient, product), term.index, term.rank)


def _times(coefficient: Expr, product: str) -> str:
    value = constant(coefficient)
    if isinstance(coefficient, Neg):
        return f"-{_times(coefficient.operand, product)}"
    if not product:
        return f"({expr_text(coefficient)})" if isinstance(coefficient, Add) else expr_text(coefficient)
    if value in (1, -1):
        return product if value == 1 else f"-{product}"
    text = expr_text(coefficient)
    return f"({text}) * {product}" if isinstance(coefficient, Add) else f"{text} * {product}"


def _summed(text: str, index: str | None, rank: object) -> str:
    return text if index is None else f"(sum {index} in 1..{rank}: {text})"


def _read(read: Read, recurrence: Recurrence) -> str:
    state = read.state + "'" * read.primed
    if read.query is None:
        return state
    if read.side == "value":
        return f"{state} {_factor(read.query)}"
    is_vector = recurrence.spec.state(read.state).type.is_column
    return f"{_factor(read.query)}^T {state}" if is_vector else f"{state}^T {_factor(read.query)}"


def _factor(expr: Expr) -> str:
    """A factor of a matrix product: in brackets unless it is a name, an element or a call."""
    text = expr_text(expr)
    is_one_word = isinstance(expr, (Ref, Apply)) or (isinstance(expr, Const) and expr.value.denominator == 1) or text.endswith("]")
    return text if is_one_word and " " not in text.split("(")[0] else f"({text})"
