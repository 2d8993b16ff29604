"""Initial values along the modes of HiPPO-LegS: which params have modes, and in how many blocks."""

from __future__ import annotations

from ..expressions import constant, nodes
from ..spec import Apply, Expr, Type
from .scope import Scope, Unresolved

DRAWN = ("uniform", "normal")

WANTED = {
    "legs_frequencies": "a column with one entry a mode, such as `[N/2]`",
    "legs_low_rank": "a column with one entry a mode, such as `[N/2]`",
    "legs_modes": "a matrix with one row a mode, such as `[N/2, P]`",
    "legs_reads": "a matrix with one column a mode, such as `[P, N/2]`",
}


def check_modes(value: Expr, type: Type, scope: Scope) -> None:
    """Report an initial value along modes that the param does not have, what is no draw, and blocks that do not divide the modes."""
    for node in nodes(value):
        if not isinstance(node, Apply) or node.function not in WANTED:
            continue
        takes = node.function in ("legs_modes", "legs_reads")
        is_column = type.is_column and not type.is_scalar
        if (is_column if takes else not is_column) or type.is_scalar or type.is_row:
            raise _refused(scope, node, f"the param is {scope.shape(type)}", f"declare {WANTED[node.function]}")
        if takes and not (isinstance(node.args[0], Apply) and node.args[0].function in DRAWN):
            raise _refused(scope, node.args[0], "no draw", f"draw a real matrix: `{node.function}(normal(0, 1))`")
        blocks = node.args[takes:]
        modes = scope.number(type.cols if node.function == "legs_reads" else type.rows)
        count = constant(blocks[0]) if blocks else 1
        if count is None or count < 1 or count.denominator != 1 or (not isinstance(modes, str) and (modes / count).denominator != 1):
            help = f"write a whole number that divides {modes}: `{node.function}({'normal(0, 1), ' if takes else ''}2)`"
            raise _refused(scope, blocks[0], f"{modes} modes in blocks of one size", help)


def _refused(scope: Scope, at: Expr, label: str, help: str) -> Unresolved:
    scope.report.error(
        "modes-of-init",
        "this initial value is no part of a system with modes",
        at.span,
        label,
        note="HiPPO-LegS of size N has N/2 pairs of modes, of which one member each is stored; its blocks, if any, are of one size",
        help=help,
    )
    return Unresolved()
