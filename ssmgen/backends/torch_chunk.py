"""Chunk programs as batched torch text: all chunks at once, but for the scan that carries the state between them.

Tensors are laid out [..., chunk, rows or axes]; the leading axes are batch and heads (or batch, groups, heads a group).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel import (
    KEY,
    MEMBER,
    ROW,
    SOURCE,
    TOKEN,
    AsRow,
    AsSource,
    Carry,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Faded,
    First,
    Minus,
    Negative,
    Node,
    Part,
    Pick,
    Plus,
    Put,
    Sight,
    Solve,
    Stack,
    Step,
    Sum,
    Through,
    Tile,
    Times,
    operands,
    tiles,
)
from ..text.line_text import broken


@dataclass(frozen=True)
class Line:
    """One assignment with the mathematics that stands above it."""

    math: str
    target: str
    text: str


@dataclass(frozen=True)
class WalkFunction:
    """A chunk program ready for the template."""

    name: str
    title: str
    arguments: str
    masks: tuple[Line, ...]
    before: tuple[Line, ...]  # all chunks at once, without a state
    scans: tuple[Line, ...]
    after: tuple[Line, ...]  # all chunks at once, with the states that enter each
    results: str


def walk_function(program: ChunkProgram, name: str) -> WalkFunction:
    """Print `program` as the function `name`; it gives the outputs and what its last carry leaves."""
    late = program.after_states()
    last = program.carries[-1]
    masks = _masks(program)
    if any(carry.mix for carry in program.carries):
        masks = (Line("log decays of all members have one type", "g", "g0"), *masks)
    return WalkFunction(
        name,
        program.title,
        ", ".join([*(t.name for t in program.inputs), *(c.state.name for c in program.carries), "chunks"]),
        masks,
        tuple(_line(s) for s in program.steps if s.target.name not in late),
        tuple(_scan(c, "final" if c is last else "_") for c in program.carries),
        tuple(_line(s) for s in program.steps if s.target.name in late),
        ", ".join([*(t.name for t in program.outputs), "final"]),
    )


def has_pairs(program: ChunkProgram) -> bool:
    """Whether the text calls the functions of products that fade key by key."""
    return any(isinstance(node, Faded) for step in program.steps for node in _nodes(step.value))


def _line(step: Step) -> Line:
    return Line(step.math, step.target.name, broken(_text(step.value, step.target.axes), 4, len(step.target.name) + 3))


def _scan(carry: Carry, final: str) -> Line:
    state = carry.state.name
    factor = "None" if carry.factor is None else carry.factor.name + _index(carry.factor.axes, carry.state.axes)
    if carry.mix:
        lines = (f"[{', '.join('None' if t is None else t.name for t in line)}]" for line in carry.mix)
        factor = f"_mix([{', '.join(lines)}])"
    erased = "" if carry.write is None else f", erased=({carry.write.name}, {carry.read.name})"
    reverse = ", reverse=True" if carry.is_reverse else ""
    math = carry.math + (", from the last chunk to the first" if carry.is_reverse else "")
    return Line(
        math,
        f"{state}, {final}",
        f"_scan{'_members' * bool(carry.mix)}({factor}, {carry.increment.name}, {state}, chunks{erased}{reverse})",
    )


# --- masks -------------------------------------------------------------------------------------------------------


def _mask_name(sight: Sight) -> str:
    groups = "" if sight.left == sight.right == 1 else f"_{sight.left}_{sight.right}"
    return ("hidden_self" if sight.is_strict else "hidden") + groups


def _masks(program: ChunkProgram) -> tuple[Line, ...]:
    """One boolean matrix for each kind of sight: True where a source is hidden from a row."""
    found: dict[str, Line] = {}
    for step in program.steps:
        for node in _nodes(step.value):
            if isinstance(node, Causal) and (node.fill == "-inf" or not _is_plain(node.sight)):
                sight = node.sight
                words = "of its own group and later" if sight.is_strict else "of later groups"
                if _is_plain(sight):
                    words = "j >= i" if sight.is_strict else "j > i"
                count = "k.shape[-2]" + (f" // {sight.right}" if sight.right > 1 else "")
                text = f"torch.ones({count}, {count}, dtype=torch.bool, device=k.device).triu({0 if sight.is_strict else 1})"
                if not _is_plain(sight):
                    text = f"k.new_ones({count}, {count}).triu({0 if sight.is_strict else 1}).bool()"
                text += f".repeat_interleave({sight.left}, 0)" if sight.left > 1 else ""
                text += f".repeat_interleave({sight.right}, 1)" if sight.right > 1 else ""
                name = _mask_name(sight)
                found[name] = Line(f"sources that row i does not see: {words}", name, text)
    return tuple(found[name] for name in sorted(found))


def _is_plain(sight: Sight) -> bool:
    return sight.left == sight.right == 1


def _nodes(node: Node):
    yield node
    for operand in operands(node):
        yield from _nodes(operand)


# --- text --------------------------------------------------------------------------------------------------------


def _text(node: Node, axes: tuple[str, ...]) -> str:
    """The text of `node`, broadcastable against `axes`."""
    match node:
        case Tile() | AsSource():
            name = node.name if isinstance(node, Tile) else node.tile.name
            return name + _index(node.axes, axes)
        case AsRow():
            # only the name of the axis changes
            return (
                _factor(node.operand, node.operand.axes) + _index(node.axes, axes)
                if node.axes != axes
                else _text(node.operand, node.operand.axes)
            )
        case Contract():
            return _contract(node) + _index(node.axes, axes)
        case Times():
            return f"{_factor(node.left, axes)} * {_factor(node.right, axes)}"
        case Plus():
            return f"{_text(node.left, axes)} + {_text(node.right, axes)}"
        case Minus():
            return f"{_text(node.left, axes)} - {_factor(node.right, axes)}"
        case Negative():
            return f"-{_factor(node.operand, axes)}"
        case Sum():
            dims = [i - len(node.operand.axes) for i, a in enumerate(node.operand.axes) if a not in node.axes]
            return f"{_factor(node.operand, node.operand.axes)}{_widened(node.operand)}.sum({_dims(dims)})" + _index(node.axes, axes)
        case Exp():
            return f"torch.exp({_exponent(node.operand)}){_index(node.axes, axes)}"
        case CumSum() if node.is_reverse:
            dim = _row_dim(node.axes)
            return f"{_factor(node.operand, node.axes)}.flip({dim}).cumsum({dim}).flip({dim})"
        case CumSum():
            return f"{_factor(node.operand, node.axes)}{_widened(node.operand)}.cumsum({_row_dim(node.axes)})"
        case Pick():
            tail = ", :" if node.axes[-1] == KEY else ""
            return f"{_factor(node.operand, node.operand.axes)}[..., {node.offset or ''}::{node.rows}{tail}]"
        case Put():
            return _put(_factor(node.operand, node.operand.axes), node.axes, node.rows, node.offset)
        case First():
            tail = ", :" if node.axes[-1] == KEY else ""
            return _put(f"{_factor(node.operand, node.axes)}[..., ::{node.size}{tail}]", node.axes, node.size, 0)
        case Causal():
            return _masked(node)
        case Faded():
            return _faded(node)
        case Through():
            sides = ((node.left, node.is_left_transposed), (node.right, node.is_right_transposed))
            return " @ ".join(f"({_text(x, node.axes)}){'.mT' * flag}" for x, flag in sides) + _index(node.axes, axes)
        case Part():
            behind = len(node.operand.axes) - 1 - node.operand.axes.index(MEMBER)
            return f"({_text(node.operand, node.operand.axes)})[..., {node.member}{', :' * behind}]" + _index(node.axes, axes)
        case Stack():
            rest = tuple(a for a in node.axes if a != MEMBER)
            texts = [None if item is None else _text(item, rest) for item in node.items]
            given = next(t for t in texts if t is not None)
            items = ", ".join(f"torch.zeros_like({given})" if t is None else t for t in texts)
            return f"torch.stack([{items}], {node.axes.index(MEMBER) - len(node.axes)})" + _index(node.axes, axes)
        case Solve():
            matrix = f"{node.matrix.name}.mT, " if node.is_transposed else f"{node.matrix.name}, "
            side = "True" if node.is_transposed else "False"
            return f"torch.linalg.solve_triangular({matrix}{_text(node.right, node.right.axes)}, upper={side}, unitriangular=True)"
    raise ValueError(f"no text for {node}")


def _factor(node: Node, axes: tuple[str, ...]) -> str:
    text = _text(node, axes)
    inner = node.operand if isinstance(node, AsRow) else node
    return f"({text})" if isinstance(inner, (Plus, Minus, Negative)) else text


def _widened(node: Node) -> str:
    """Running sums of log decays are kept in float64, or a weak decay beside strong ones would drown in their sum."""
    return ".double()" if all(t.name in ("g", "f") or t.name[0] == "g" and t.name[1:].isdigit() for t in tiles(node)) else ""


def _dims(dims: list[int]) -> str:
    return str(dims[0]) if len(dims) == 1 else f"({', '.join(map(str, dims))})"


def _row_dim(axes: tuple[str, ...]) -> int:
    return next(i for i, a in enumerate(axes) if a in (ROW, TOKEN)) - len(axes)


def _put(text: str, axes: tuple[str, ...], rows: int, offset: int) -> str:
    if axes[-1] == KEY:
        return f"F.pad({text}[..., None, :], (0, 0, {offset}, {rows - 1 - offset})).flatten(-3, -2)"
    return f"F.pad({text}[..., None], ({offset}, {rows - 1 - offset})).flatten(-2)"


def _exponent(node: Node) -> str:
    """Exponents are narrowed from the float64 of running sums."""
    if isinstance(node, Causal):
        return _masked(node)
    text = _text(node, node.axes)
    return f"({text}).to(g.dtype)" if isinstance(node, (Plus, Minus)) else f"{text}.to(g.dtype)"


def _masked(node: Causal) -> str:
    if node.fill == "-inf":
        return f"({_text(node.operand, node.axes)}).to(g.dtype).masked_fill({_mask_name(node.sight)}, -torch.inf)"
    text = _factor(node.operand, node.axes)
    if not _is_plain(node.sight):
        return f"{text}.masked_fill({_mask_name(node.sight)}, 0)"
    return f"{text}.tril({-1 if node.sight.is_strict else ''})"


def _faded(node: Faded) -> str:
    name = "_faded_sources" if node.axes[0] == SOURCE else "_faded_rows" if SOURCE not in node.axes else "_faded_pairs"
    left, right = (_text(x, x.axes) for x in (node.left, node.right))
    sight = node.sight
    groups = "" if _is_plain(sight) else f", {sight.left}, {sight.right}"
    return f"{name}({left}, {right}, {node.later.name}, {node.earlier.tile.name}, {sight.is_strict}{groups})"


def _contract(node: Contract) -> str:
    left, right = "".join(node.left.axes), "".join(node.right.axes)
    a, b = _text(node.left, node.left.axes), _text(node.right, node.right.axes)
    kept = len(node.axes)
    if left == right and node.axes == node.left.axes[:kept]:
        return f"({a} * {b}).sum({_dims(list(range(kept - len(left), 0)))})"
    return f'torch.einsum("...{left}, ...{right} -> ...{"".join(node.axes)}", {a}, {b})'


def _index(own: tuple[str, ...], axes: tuple[str, ...]) -> str:
    """The subscript that gives a value on `own` axes the missing ones of `axes`."""
    if own == axes:
        return ""
    index = [":" if a in own else "None" for a in axes]
    while index and index[0] == ":":
        index.pop(0)
    return f"[..., {', '.join(index)}]" if index else ""
