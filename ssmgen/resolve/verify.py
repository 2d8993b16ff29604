"""The law of a specification: what every later pass takes for granted. A breach is our mistake, never the user's."""

from __future__ import annotations

from .. import spec
from ..bounds import INDICES
from ..expressions import children, nodes
from ..functions import FUNCTIONS
from ..spec import ONE, Expr, Type
from .building import SCALAR, is_unsized

_AXES = ("head", "group", "channel", "layer")


def verify_spec(value: spec.Specification) -> None:
    """Raise AssertionError where the specification breaks its law."""
    for recurrence in value.recurrences:
        verify_recurrence(recurrence)
    for attention in value.attentions:
        known = {s.name for s in attention.symbols}
        check_expression(attention.score, known, {}, ("q", "k"), assigned=())
        assert attention.score.type == SCALAR, attention.score.type


def verify_recurrence(recurrence: spec.Recurrence) -> None:
    """Names resolve, in order; types agree; every state has one way to change; an `S'` is read after it is assigned."""
    constants = {name for name, _ in recurrence.constants}
    outside = {s.name for s in recurrence.symbols if s.definition is None} | constants
    states = {s.name: s for s in recurrence.states}
    known = set(outside)
    for symbol in recurrence.symbols:
        assert symbol.kind in ("input", "param", "let", "gate") and symbol.per in _AXES, symbol
        assert symbol.definition is None or symbol.kind != "input", symbol
        if symbol.definition is not None:
            check_expression(symbol.definition, known, {}, (), assigned=())
            assert _shape(symbol.definition.type) == _shape(symbol.type), symbol
        known.add(symbol.name)
    assert len(known) == len({s.name for s in recurrence.symbols}) + len(constants), "a name twice"
    assert bool(recurrence.update) != bool(recurrence.dynamics), "an update or dynamics"
    assert bool(recurrence.dynamics) == (recurrence.discretization is not None), "dynamics have a step"
    assigned: list[str] = []
    for step in recurrence.update:
        body, loops = ((step,), ()) if isinstance(step, spec.Assignment) else (step.body, (step.index,))
        for assignment in body:
            _check_state_value(assignment.state, assignment.value, states, known, loops, tuple(assigned))
            assigned.append(assignment.state)
    for dynamics in recurrence.dynamics:
        _check_state_value(dynamics.state, dynamics.value, states, known, (), ())
        if dynamics.before is not None:
            check_expression(dynamics.before, known, {}, (), ())
            assert _shape(dynamics.before.type) == _shape(states[dynamics.state].type), dynamics
    assert set(states) == set(assigned) | {d.state for d in recurrence.dynamics}, "a state without an equation"
    for output in recurrence.outputs:
        check_expression(output.value, known, states, () if output.index is None else (output.index,), tuple(states))
        assert output.value.type.cols == ONE or not output.value.type.is_row, output
        assert output.value.type.field == "real", output


def _check_state_value(name: str, value: Expr, states: dict, known: set[str], loops: tuple[str, ...], assigned: tuple[str, ...]) -> None:
    assert name in states, name
    check_expression(value, known, states, loops, assigned)
    assert _shape(value.type) == _shape(states[name].type), (name, value.type, states[name].type)


def _shape(type: Type) -> tuple:
    return type.rows, type.cols


def check_expression(expr: Expr, known: set[str], states: dict, loops: tuple[str, ...], assigned: tuple[str, ...]) -> None:
    """Raise AssertionError unless every name in `expr` resolves and every node has the type its parts give."""
    for node in nodes(expr):
        assert not is_unsized(node), node
        match node:
            case spec.Ref(name=name):
                assert name in known or name in INDICES, name
            case spec.Delayed(name=name):
                assert name in known, name
            case spec.StateRef(name=name, primed=primed):
                assert name in states and (not primed or name in assigned), node
            case spec.Apply(function=name, args=args):
                least, most = FUNCTIONS[name].arity
                assert least <= len(args) <= most and FUNCTIONS[name].kind != "matrix", node
        _check_type(node)
    _check_indices(expr, loops)


def _check_type(node: Expr) -> None:
    type = node.type
    match node:
        case spec.MatMul(left=left, right=right):
            assert left.type.cols == right.type.rows and _shape(type) == (left.type.rows, right.type.cols), node
        case spec.Mul(left=left, right=right):
            assert left.type.is_scalar or right.type.is_scalar or _shape(left.type) == _shape(right.type), node
        case spec.Add(terms=terms):
            assert len(terms) >= 2 and all(t.type.is_scalar or _shape(t.type) == _shape(type) for t in terms), node
        case spec.Transpose(operand=operand):
            assert _shape(type) == (operand.type.cols, operand.type.rows), node
        case spec.Diag(operand=operand):
            assert operand.type.is_column and _shape(type) == (operand.type.rows, operand.type.rows), node
        case spec.Rot() | spec.Skew() | spec.Identity():
            assert type.rows == type.cols, node
        case spec.Element(base=base):
            assert type == base.type or _shape(type) == (base.type.cols, ONE), node
    assert type.field == "real" or any(c.type.field == "complex" for c in children(node)) or _starts_complex(node), node


def _starts_complex(node: Expr) -> bool:
    return isinstance(node, spec.Ref | spec.StateRef | spec.Delayed) or (isinstance(node, spec.Apply) and node.function in ("i", "cis"))


def _check_indices(expr: Expr, loops: tuple[str, ...]) -> None:
    if isinstance(expr, spec.SumOver):
        loops = (*loops, expr.index)
    if isinstance(expr, spec.Element) and isinstance(expr.index, str):
        assert expr.index in loops, expr
    for child in children(expr):
        _check_indices(child, loops)
