"""Chunk programs as text: every step with its tiles' axes written out, and the equation it stands for."""

from __future__ import annotations

from .kernel import (
    AsSource,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Kernels,
    Last,
    Minus,
    Node,
    Plus,
    Tile,
    Times,
    WalkKernels,
    programs,
)  # fmt: skip


def kernels_text(kernels: Kernels) -> str:
    """Every program of every walk."""
    return "\n\n".join(program_text(program) for walk in kernels.walks for program in programs(walk))


def program_text(program: ChunkProgram) -> str:
    """`name: title`, the inputs, one step a line with its equation behind it, what is carried, the outputs."""
    rows = [(_tile(step.target), _node(step.value), step.math) for step in program.steps]
    left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    carry = program.carry
    factor = "" if carry.factor is None else f"{_tile(carry.factor)} "
    return "\n".join(
        [
            f"{program.name}: {program.title}",
            f"  walks   {'last chunk to first' if program.is_reverse else 'first chunk to last'}, {_tile(carry.state)} entering",
            f"  takes   {', '.join(map(_tile, program.inputs))}",
            *(f"  {target:<{left}} = {value:<{middle}}  # {math}" for target, value, math in rows),
            f"  carries {_tile(carry.state)} = {factor}{_tile(carry.state)} + {_tile(carry.increment)}",
            f"  gives   {', '.join(map(_tile, program.outputs))}",
        ]
    )


def equations(program: ChunkProgram) -> list[str]:
    """The mathematics of the steps alone, and what is carried."""
    return [*(step.math for step in program.steps), program.carry.math]


def gradient_lines(kernels: WalkKernels) -> list[str]:
    """Which program gives which gradient."""
    rows = [kernels.query_gradient, kernels.source_gradient, kernels.decay_gradient]
    return [f"{', '.join(tile.name for tile in p.outputs)}: {p.title}" for p in rows if p is not None]


def _tile(tile: Tile | AsSource) -> str:
    name = tile.tile.name if isinstance(tile, AsSource) else tile.name
    return f"{name}[{','.join(tile.axes)}]" if tile.axes else name


def _node(node: Node, is_factor: bool = False) -> str:
    match node:
        case Tile() | AsSource():
            return _tile(node)
        case Contract(left=left, right=right, axes=axes):
            summed = "".join(a for a in dict.fromkeys((*left.axes, *right.axes)) if a not in axes)
            text = f"sum_{summed} {_node(left, True)} {_node(right, True)}" if summed else f"{_node(left, True)} {_node(right, True)}"
        case Times(left=left, right=right):
            return f"{_node(left, True)} * {_node(right, True)}"
        case Plus(left=left, right=right):
            text = f"{_node(left)} + {_node(right)}"
        case Minus(left=left, right=right):
            text = f"{_node(left)} - {_node(right, True)}"
        case Exp(operand=operand):
            return f"exp({_node(operand)})"
        case CumSum(operand=operand, is_reverse=is_reverse):
            return f"{'cumsum_from_last' if is_reverse else 'cumsum'}({_node(operand)})"
        case Last(operand=operand):
            return f"last({_node(operand)})"
        case Causal(operand=operand, is_strict=is_strict, fill=fill, is_reverse=is_reverse):
            sign = (">" if is_reverse else "<") + "=" * (not is_strict)
            text = f"{_node(operand)} if j {sign} i else {fill}"
        case _:
            raise ValueError(f"not a node: {node!r}")
    return f"({text})" if is_factor else text
