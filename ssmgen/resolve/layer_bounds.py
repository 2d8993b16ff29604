"""What a layer's values can reach: enough to hold a recurrence's inputs against their domains."""

from __future__ import annotations

from collections.abc import Mapping

from .. import intervals, layer_spec
from ..functions import FUNCTIONS
from ..intervals import WHOLE, Interval

_OPERATIONS = {
    "+": intervals.add,
    "-": intervals.subtract,
    "*": intervals.multiply,
    "/": intervals.divide,
    "^": intervals.power,
}


def reach(node: layer_spec.LayerValue, known: Mapping[str, Interval]) -> Interval:
    """An interval that holds every entry of a value; `known` has those of the names, the whole line where absent."""
    match node:
        case layer_spec.LayerNumber(value=value):
            return intervals.point(value)
        case layer_spec.LayerSize():
            return intervals.POSITIVE
        case layer_spec.LayerRef(name=name) | layer_spec.LayerParam(name=name):
            return known.get(name, WHOLE)
        case layer_spec.LayerShift(name=name):
            return known.get(name, WHOLE).hull(intervals.point(0))
        case layer_spec.LayerNegative(operand=operand):
            return intervals.negate(reach(operand, known))
        case layer_spec.LayerArithmetic(operator=operator, left=left, right=right) if operator in _OPERATIONS:
            return _OPERATIONS[operator](reach(left, known), reach(right, known))
        case layer_spec.LayerApply(function=function, operands=operands):
            return FUNCTIONS[function].transfer(*(reach(operand, known) for operand in operands))
    return WHOLE
