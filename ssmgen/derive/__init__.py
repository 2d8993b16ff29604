"""spec -> recurrence: the equation as sums of products of known factors, discretized, with its adjoint."""

from __future__ import annotations

from dataclasses import replace

from .. import recurrence
from ..diagnostics import Report
from ..expressions import nodes
from ..spec import Apply, Assignment, Expr, Recurrence, Ref, StateRef
from .adjoint import adjoint
from .adjoint_text import adjoint_lines
from .corrections import warn_unbounded, warn_walked
from .dynamics import discretized_step
from .maxima import without_maxima
from .outer_products import opened
from .outputs import read_outputs, warn_unread
from .taps import fold_taps
from .update import update_steps


def derive(spec: Recurrence) -> recurrence.Recurrence:
    """The algebra of a recurrence: micro-steps in normal form, reads, outputs over them, and the adjoint.

    A running maximum of values of the token stands apart (`maxima`). A recurrence that is declared sequential, takes the
    state into its inputs, or keeps another maximum of its states has no affine form: it comes back with `sequential` saying
    why, and no steps.

    Raises SpecError when the update is not affine in the states, or the discretization is not defined for its structure.
    """
    whole = spec = opened(spec)
    spec, maxima = without_maxima(whole)
    reason = _sequential(spec)
    if reason:
        outputs = tuple((output.name, output.value) for output in whole.outputs)
        return recurrence.Recurrence(whole, (), (), outputs, None, (), sequential=reason)
    report = Report(spec.source)
    if spec.dynamics:
        steps, discrete, hoisted = discretized_step(spec, report)
    else:
        steps, discrete, hoisted = update_steps(spec, report), None, ()
    report.raise_if_errors()
    steps = fold_taps(steps, spec)
    reads, outputs = read_outputs(spec)
    warn_unread(spec, whole, steps, reads, report)
    warn_unbounded(spec, steps, report)
    warn_walked(steps, report)
    derived = recurrence.Recurrence(
        spec, steps, reads, outputs, discrete, (), hoisted, warnings=tuple(report.found), maxima=maxima, whole=whole if maxima else None
    )
    return replace(derived, adjoint=adjoint_lines(derived, adjoint(spec, steps, reads)))


def _sequential(spec: Recurrence) -> str:
    """Why the recurrence is sequential by declaration or by what it is; empty when it may be affine."""
    for axis, value, _ in spec.declared.axes:
        if axis == "form" and value == "sequential":
            return "declared `form sequential`"
    if spec.recurrent_inputs:
        names = ", ".join(f"`{name}`" for name in spec.recurrent_inputs)
        return f"the state enters the input{'s' if len(spec.recurrent_inputs) > 1 else ''} {names}"
    for item in spec.update:
        for assignment in (item,) if isinstance(item, Assignment) else item.body:
            found = _maximum_of_state(assignment.value, spec)
            if found is not None:
                return f"`{assignment.state}'` is a running `{found}`"
    return ""


def _maximum_of_state(expr: Expr, spec: Recurrence) -> str | None:
    definitions = {s.name: s.definition for s in spec.symbols if s.definition is not None}

    def reads_state(value: Expr) -> bool:
        for node in nodes(value):
            if isinstance(node, StateRef) or (isinstance(node, Ref) and node.name in definitions and reads_state(definitions[node.name])):
                return True
        return False

    for node in nodes(expr):
        if isinstance(node, Apply) and node.function in ("max", "min") and reads_state(node):
            return "maximum" if node.function == "max" else "minimum"
    return None
