"""Chunk programs as batched torch text: all chunks at once, but for the scan that carries the state between them.

Tensors are laid out [..., chunk, rows or axes]; the leading axes are batch and heads (or batch, groups, heads a group).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel import (
    ROW,
    AsSource,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Last,
    Minus,
    Node,
    Plus,
    Step,
    Tile,
    Times,
)  # fmt: skip


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
    before: tuple[Line, ...]  # all chunks at once, without the state
    state: str
    factor: str  # what multiplies the state, broadcastable; 'None' when nothing decays
    increment: str
    reverse: str  # ', reverse=True' or ''
    after: tuple[Line, ...]  # all chunks at once, with the state that enters each
    results: str


def walk_function(program: ChunkProgram, name: str) -> WalkFunction:
    """Print `program` as the function `name`."""
    state = program.carry.state
    before = [s for s in program.steps if not program.needs_state(s)]
    after = [s for s in program.steps if program.needs_state(s)]
    factor = program.carry.factor
    factor_text = "None" if factor is None else factor.name + _index(factor.axes, state.axes)
    return WalkFunction(
        name,
        program.title,
        ", ".join([*(t.name for t in program.inputs), state.name, "chunks"]),
        _masks(program),
        tuple(_line(s) for s in before),
        state.name,
        factor_text,
        program.carry.increment.name,
        ", reverse=True" if program.is_reverse else "",
        tuple(_line(s) for s in after),
        ", ".join([*(t.name for t in program.outputs), "final"]),
    )


def _line(step: Step) -> Line:
    return Line(step.math, step.target.name, _text(step.value, step.target.axes))


# --- masks -------------------------------------------------------------------------------------------------------


_MASKS = {
    # (is_reverse, is_strict): name, triangle, offset, words
    (False, False): ("hidden", "triu", 1, "j > i"),
    (False, True): ("hidden_self", "triu", 0, "j >= i"),
    (True, False): ("hidden", "tril", -1, "j < i"),
    (True, True): ("hidden_self", "tril", 0, "j <= i"),
}


def _mask_name(node: Causal) -> str:
    return _MASKS[node.is_reverse, node.is_strict][0]


def _masks(program: ChunkProgram) -> tuple[Line, ...]:
    """One boolean matrix for each kind of masked exponent: True where a source is hidden from a row."""
    found: dict[str, Line] = {}
    rows = program.inputs[0].name
    for step in program.steps:
        for node in _nodes(step.value):
            if isinstance(node, Causal) and node.fill == "-inf":
                name, triangle, offset, words = _MASKS[node.is_reverse, node.is_strict]
                ones = f"torch.ones({rows}.shape[-2], {rows}.shape[-2], dtype=torch.bool, device={rows}.device)"
                found[name] = Line(f"sources that row i does not see: {words}", name, f"{ones}.{triangle}({offset})")
    return tuple(found[name] for name in sorted(found))


def _nodes(node: Node):
    yield node
    if isinstance(node, (Contract, Times, Plus, Minus)):
        yield from _nodes(node.left)
        yield from _nodes(node.right)
    elif isinstance(node, (Exp, CumSum, Last, Causal)):
        yield from _nodes(node.operand)


# --- text --------------------------------------------------------------------------------------------------------


def _text(node: Node, axes: tuple[str, ...]) -> str:
    """The text of `node`, broadcastable against `axes`."""
    match node:
        case Tile() | AsSource():
            name = node.name if isinstance(node, Tile) else node.tile.name
            return name + _index(node.axes, axes)
        case Contract():
            return _contract(node) + _index(node.axes, axes)
        case Times():
            return f"{_factor(node.left, axes)} * {_factor(node.right, axes)}"
        case Plus():
            return f"{_text(node.left, axes)} + {_text(node.right, axes)}"
        case Minus():
            return f"{_text(node.left, axes)} - {_factor(node.right, axes)}"
        case Exp():
            return f"torch.exp({_exponent(node.operand)}){_index(node.axes, axes)}"
        case CumSum() if node.is_reverse:
            return f"{_factor(node.operand, node.axes)}.flip(-1).cumsum(-1).flip(-1)"
        case CumSum():
            return f"{_factor(node.operand, node.axes)}.double().cumsum(-1)"
        case Last(operand=CumSum(is_reverse=False)):
            return f"{_factor(node.operand.operand, node.operand.axes)}.sum(-1)"
        case Last():
            # kept as an axis of length one where it meets the rows
            return f"{_factor(node.operand, node.operand.axes)}[..., -1{':' if axes[:1] == (ROW,) else ''}]"
        case Causal():
            return _masked(node)
    raise ValueError(f"no text for {node}")


def _factor(node: Node, axes: tuple[str, ...]) -> str:
    text = _text(node, axes)
    return f"({text})" if isinstance(node, (Plus, Minus)) else text


def _exponent(node: Node) -> str:
    """Running sums are kept in float64, or a weak decay beside strong ones would drown in their sum; exponents are narrowed."""
    if isinstance(node, Causal):
        return _masked(node)
    text = _text(node, node.axes)
    return f"({text}).to(g.dtype)" if isinstance(node, (Plus, Minus)) else f"{text}.to(g.dtype)"


def _masked(node: Causal) -> str:
    if node.fill == "-inf":
        return f"({_text(node.operand, node.axes)}).to(g.dtype).masked_fill({_mask_name(node)}, -torch.inf)"
    offset = (-1 if node.is_strict else 0) * (-1 if node.is_reverse else 1)
    call = "triu" if node.is_reverse else "tril"
    return f"{_factor(node.operand, node.axes)}.{call}({offset if offset else ''})"


def _contract(node: Contract) -> str:
    left, right = "".join(node.left.axes), "".join(node.right.axes)
    a, b = _text(node.left, node.left.axes), _text(node.right, node.right.axes)
    if left == right and node.axes == node.left.axes[:-1]:
        return f"({a} * {b}).sum(-1)"
    return f'torch.einsum("...{left}, ...{right} -> ...{"".join(node.axes)}", {a}, {b})'


def _index(own: tuple[str, ...], axes: tuple[str, ...]) -> str:
    """The subscript that gives a value on `own` axes the missing ones of `axes`."""
    if own == axes:
        return ""
    index = [":" if a in own else "None" for a in axes]
    while index[0] == ":":
        index.pop(0)
    return f"[..., {', '.join(index)}]"
