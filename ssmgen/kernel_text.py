"""Chunk programs as text: steps on named tiles, and the mathematics of a walk."""

from __future__ import annotations

import re

from .kernel import (
    AsRow,
    AsSource,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Faded,
    First,
    Kernels,
    Minus,
    Negative,
    Node,
    Part,
    Pick,
    Plus,
    Put,
    Solve,
    Stack,
    Sum,
    Through,
    Tile,
    Times,
    WalkKernels,
    programs,
)


def kernels_text(kernels: Kernels) -> str:
    """Every program of every walk."""
    if kernels.scan is not None:
        return str(kernels.scan)
    return "\n\n".join(program_text(program) for walk in kernels.walks for program in programs(walk))


def program_text(program: ChunkProgram) -> str:
    """`name: title`, the inputs, one step a line with its equation behind it, what is carried, the outputs."""
    rows = [(_tile(step.target), _node(step.value), step.math) for step in program.steps]
    left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"{program.name}: {program.title}", f"  takes   {', '.join(map(_tile, program.inputs))}"]
    lines += [f"  {target:<{left}} = {value:<{middle}}  # {math}" for target, value, math in rows]
    for carry in program.carries:
        factor = "" if carry.factor is None else f"{_tile(carry.factor)} "
        erased = "" if carry.write is None else f" - {_tile(carry.write)} ({_tile(carry.read)} {_tile(carry.state)})"
        order = "last chunk to first" if carry.is_reverse else "first chunk to last"
        lines.append(f"  carries {_tile(carry.state)} = {factor}{_tile(carry.state)} + {_tile(carry.increment)}{erased}, {order}")
    return "\n".join([*lines, f"  gives   {', '.join(map(_tile, program.outputs))}"])


def equations(program: ChunkProgram) -> list[str]:
    """The mathematics of the steps alone, and what is carried."""
    return [*(step.math for step in program.steps), *(carry.math for carry in program.carries)]


def gradient_lines(kernels: WalkKernels) -> list[str]:
    """Which program gives which gradient."""
    return [f"{', '.join(tile.name for tile in kernels.gradient.outputs)}: {kernels.gradient.title}"]


def _tile(tile: Tile | AsSource) -> str:
    name = tile.tile.name if isinstance(tile, AsSource) else tile.name
    return f"{name}[{','.join(tile.axes)}]" if tile.axes else name


def _node(node: Node, is_factor: bool = False) -> str:
    match node:
        case Tile() | AsSource():
            return _tile(node)
        case AsRow(operand=operand):
            return f"as_row({_node(operand)})"
        case Contract(left=left, right=right, axes=axes):
            summed = "".join(a for a in dict.fromkeys((*left.axes, *right.axes)) if a not in axes)
            text = f"sum_{summed} {_node(left, True)} {_node(right, True)}" if summed else f"{_node(left, True)} {_node(right, True)}"
        case Faded(left=left, right=right, later=later, earlier=earlier, axes=axes):
            summed = "".join(a for a in dict.fromkeys((*left.axes, *right.axes)) if a not in axes)
            text = f"sum_{summed} {_node(left, True)} {_node(right, True)} exp({_tile(later)} - {_tile(earlier)}) if {_sight(node)}"
        case Solve(matrix=matrix, right=right, is_transposed=is_transposed):
            return f"solve{'_transposed' if is_transposed else ''}(1 + {_tile(matrix)}, {_node(right)})"
        case Times(left=left, right=right):
            return f"{_node(left, True)} * {_node(right, True)}"
        case Plus(left=left, right=right):
            text = f"{_node(left)} + {_node(right)}"
        case Minus(left=left, right=right):
            text = f"{_node(left)} - {_node(right, True)}"
        case Negative(operand=operand):
            text = f"-{_node(operand, True)}"
        case Sum(operand=operand, axes=axes):
            text = f"sum_{''.join(a for a in operand.axes if a not in axes)} {_node(operand, True)}"
        case Exp(operand=operand):
            return f"exp({_node(operand)})"
        case CumSum(operand=operand, is_reverse=is_reverse):
            return f"{'cumsum_from_last' if is_reverse else 'cumsum'}({_node(operand)})"
        case First(operand=operand, size=size):
            return f"first_of_{size}({_node(operand)})"
        case Pick(operand=operand, rows=rows, offset=offset):
            return f"row_{offset + 1}_of_{rows}({_node(operand)})"
        case Put(operand=operand, rows=rows, offset=offset):
            return f"at_row_{offset + 1}_of_{rows}({_node(operand)})"
        case Causal(operand=operand, fill=fill):
            text = f"{_node(operand)} if {_sight(node)} else {fill}"
        case Through(left=left, right=right):
            flips = ("^T" * node.is_left_transposed, "^T" * node.is_right_transposed)
            text = f"{_node(left, True)}{flips[0]} @ {_node(right, True)}{flips[1]}"
        case Part(operand=operand, member=member):
            return f"member_{member}({_node(operand)})"
        case Stack(items=items):
            return f"stack({', '.join('0' if item is None else _node(item) for item in items)})"
        case _:
            raise ValueError(f"not a node: {node!r}")
    return f"({text})" if is_factor else text


def _sight(node: Causal | Faded) -> str:
    sight = node.sight
    group = lambda letter, size: letter if size == 1 else f"{letter}//{size}"  # noqa: E731
    return f"{group('j', sight.right)} {'<' if sight.is_strict else '<='} {group('i', sight.left)}"


# --- index notation ----------------------------------------------------------------------------------------------


def equation(target: Tile, value: Node) -> str:
    """`dk_j = sum_i dA_ij q_i`: a step of a program that no one wrote by hand."""
    return f"{_indexed(target)} = {_formula(value)}"


def _indexed(tile: Tile | AsSource) -> str:
    """A tile with the indices of its rows; key and value axes are left to the reader where a row index says enough."""
    name = tile.tile.name if isinstance(tile, AsSource) else tile.name
    rows = [a for a in tile.axes if a in "tij"]
    return f"{name}_{''.join(rows)}" if rows else name


def _formula(node: Node, is_factor: bool = False) -> str:
    match node:
        case Tile() | AsSource():
            return _indexed(node)
        case AsRow(operand=operand):
            return re.sub(r"_([tij]+)(?=\W|$)", _swapped, _formula(operand, is_factor))
        case Contract(left=left, right=right, axes=axes):
            text = _sum_over(left, right, axes) + f"{_formula(left, True)} {_formula(right, True)}"
        case Faded(left=left, right=right, later=later, earlier=earlier, axes=axes):
            exponent = f"exp({_indexed(later)} - {_indexed(earlier)})"
            text = _sum_over(left, right, axes) + f"{_formula(left, True)} {_formula(right, True)} {exponent}, {_sight(node)}"
        case Solve(matrix=matrix, right=right, is_transposed=is_transposed):
            return f"(1 + {matrix.name}{'^T' if is_transposed else ''})^-1 {_formula(right, True)}"
        case Times(left=left, right=right):
            return f"{_formula(left, True)} {_formula(right, True)}"
        case Plus(left=left, right=right):
            text = f"{_formula(left)} + {_formula(right)}"
        case Minus(left=left, right=right):
            text = f"{_formula(left)} - {_formula(right, True)}"
        case Negative(operand=operand):
            text = f"-{_formula(operand, True)}"
        case Sum(operand=operand, axes=axes):
            text = f"sum_{''.join(a for a in operand.axes if a not in axes)} {_formula(operand, True)}"
        case Exp(operand=operand):
            return f"exp({_formula(operand)})"
        case CumSum(operand=operand, is_reverse=is_reverse):
            text = f"{_formula(operand, True)} + ... to the chunk's {'last' if is_reverse else 'first'} row"
        case First(operand=operand, size=size):
            text = f"{_formula(operand, True)} at the first of every {size} rows"
        case Pick(operand=operand, rows=rows, offset=offset):
            text = f"{_formula(operand, True)} at row {offset + 1} of {rows}"
        case Put(operand=operand, rows=rows, offset=offset):
            text = f"{_formula(operand, True)} at row {offset + 1} of {rows}"
        case Causal(operand=operand):
            text = f"{_formula(operand)}, {_sight(node)}"
        case Through(left=left, right=right):
            flips = ("^T" * node.is_left_transposed, "^T" * node.is_right_transposed)
            text = f"{_formula(left, True)}{flips[0]} @ {_formula(right, True)}{flips[1]}"
        case Part(operand=operand, member=member):
            text = f"member {member} of {_formula(operand, True)}"
        case Stack(items=items):
            text = " | ".join("0" if item is None else _formula(item) for item in items)
        case _:
            raise ValueError(f"not a node: {node!r}")
    return f"({text})" if is_factor else text


def _swapped(match: re.Match) -> str:
    return "_" + match[1].translate(str.maketrans("ij", "ji"))


def _sum_over(left: Node, right: Node, axes: tuple[str, ...]) -> str:
    summed = [a for a in dict.fromkeys((*left.axes, *right.axes)) if a not in axes]
    return f"sum_{''.join(summed)} " if summed else ""
