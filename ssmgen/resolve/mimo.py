"""`mimo R`: keys and queries of the equation get R rows, the value R learned mixtures, the output R rows.

B x^T  ->  sum r in 1..R: B[r] (mix_x[r] * x)^T          y = C^T S'  ->  y[r] = C[r]^T S'
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from .. import syntax
from ..source import Span
from .scope import Scope, names_in, walk

INDEX = "r"


def widened(body: tuple[syntax.Node, ...], structure, scope: Scope) -> tuple[syntax.Node, ...]:
    """The statements with every outer product of the equation summed over R rows. Those that index rows stay as they are."""
    if any(isinstance(n, syntax.Subscript) for s in body if isinstance(s, syntax.Update | syntax.Dynamics) for n in walk(s)):
        return body
    states = [s for s in body if isinstance(s, syntax.StateDecl)]
    if not states or len(states[0].type.shape) != 2:
        return body
    key_size, value_size = (names_in(size) for size in states[0].type.shape)
    span = structure.span
    keys = _columns(body, key_size)
    values = _columns(body, value_size) if value_size != key_size else ()
    outside = [s.name for s in body if isinstance(s, syntax.InputDecl) and s.name in keys]
    mixed = _written_values(body, values, {s.name for s in states})

    def indexed(node: syntax.Node, names: tuple[str, ...]) -> syntax.Node:
        """`B` as `B[r]`, and `x` as `mix_x[r] * x`."""
        if isinstance(node, syntax.Name) and node.id in names:
            return _row(node)
        if isinstance(node, syntax.Name) and node.id in mixed:
            return syntax.Binary(node.span, "*", _row(syntax.Name(node.span, f"mix_{node.id}")), node)
        return _map(node, lambda child: indexed(child, names))

    def read(node: syntax.Node, names: tuple[str, ...]) -> syntax.Node:
        return _row(node) if isinstance(node, syntax.Name) and node.id in names else _map(node, lambda child: read(child, names))

    def summed(node: syntax.Node) -> syntax.Node:
        """Each term that reads no state and uses a key, summed over the rows."""
        if isinstance(node, syntax.Binary) and node.operator in ("+", "-"):
            return replace(node, left=summed(node.left), right=summed(node.right))
        used = names_in(node)
        if any(s.name in used for s in states) or not any(key in used for key in keys):
            return node
        return syntax.SumOver(node.span, INDEX, syntax.Number(span, Fraction(1)), structure.mimo, indexed(node, keys))

    result: list[syntax.Node] = []
    for name in mixed:
        shape = (structure.mimo, states[0].type.shape[1])
        init = syntax.Binary(span, "/", syntax.Number(span, Fraction(1)), structure.mimo)
        result.append(syntax.ParamDecl(span, f"mix_{name}", syntax.TypeNode(span, shape, "real", "head"), None, init, (), span))
    for node in body:
        match node:
            case syntax.InputDecl() if node.name in outside:
                node = replace(node, type=replace(node.type, shape=(structure.mimo, *node.type.shape)))
            case syntax.LetDecl(type=type) if node.name in keys and type is not None:
                node = replace(node, type=replace(type, shape=(structure.mimo, *type.shape)))
            case syntax.Dynamics():
                node = replace(node, value=summed(node.value))
            case syntax.Update():
                node = replace(
                    node, body=tuple(replace(s, value=summed(s.value)) if isinstance(s, syntax.Assign) else s for s in node.body)
                )
            case syntax.Output():
                node = replace(node, body=tuple(_rowwise(s, keys, read) for s in node.body))
        result.append(node)
    return tuple(result)


def _rowwise(assign: syntax.Node, keys: tuple[str, ...], read) -> syntax.Node:
    if not isinstance(assign, syntax.Assign) or assign.subscript is not None or not any(key in names_in(assign.value) for key in keys):
        return assign
    return replace(assign, subscript=syntax.Name(assign.name_span or assign.span, INDEX), value=read(assign.value, keys))


def _columns(body: tuple[syntax.Node, ...], size: tuple[str, ...]) -> tuple[str, ...]:
    """Inputs declared as columns of one size, and the lets made of them."""
    found = [
        s.name
        for s in body
        if isinstance(s, syntax.InputDecl) and s.type is not None and len(s.type.shape) == 1 and names_in(s.type.shape[0]) == size
    ]
    found = [name for name in found if not _is_fraction(body, name)]
    for statement in body:
        if isinstance(statement, syntax.LetDecl) and any(name in names_in(statement.value) for name in found):
            found.append(statement.name)
    return tuple(found)


def _is_fraction(body: tuple[syntax.Node, ...], name: str) -> bool:
    """`[N/2]` names N and is no key."""
    return any(isinstance(s, syntax.InputDecl) and s.name == name and not isinstance(s.type.shape[0], syntax.Name) for s in body)


def _written_values(body: tuple[syntax.Node, ...], values: tuple[str, ...], states: set[str]) -> tuple[str, ...]:
    """Values that stand in the equation of a state."""
    used = names_in(tuple(s for s in body if isinstance(s, syntax.Update | syntax.Dynamics)))
    return tuple(name for name in values if name in used and name not in states)


def _row(name: syntax.Name) -> syntax.Subscript:
    return syntax.Subscript(name.span, name, syntax.Name(_empty(name.span), INDEX))


def _empty(span: Span) -> Span:
    return Span(span.end, span.end)


def _map(node: syntax.Node, change) -> syntax.Node:
    match node:
        case syntax.Binary():
            return replace(node, left=change(node.left), right=change(node.right))
        case syntax.Unary() | syntax.Transpose():
            return replace(node, operand=change(node.operand))
        case syntax.Call():
            return replace(node, args=tuple(change(a) for a in node.args))
        case syntax.Subscript():
            return replace(node, base=change(node.base))
    return node
