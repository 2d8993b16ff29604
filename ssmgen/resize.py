"""Other sizes than the spec's defaults: `--dim N=64`. Done on the written tree, so that resolving checks the new sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from . import syntax
from .diagnostics import Report
from .source import NOWHERE, Span


def resize(tree: syntax.File, sizes: Mapping[str, int]) -> syntax.File:
    """The tree with every `dim` and recurrence parameter named in `sizes` at its new default.

    Raises SpecError (`unknown-dim`) for a name that nothing in the file declares.
    """
    used: dict[str, None] = {}
    declared: dict[str, None] = {}
    items = tuple(_item(item, sizes, used, declared) for item in tree.items)
    report = Report(tree.source)
    for name in sizes:
        if name not in used:
            report.error(
                "unknown-dim",
                f"there is no size `{name}` in this file",
                tree.items[0].name_span if tree.items else NOWHERE,
                "nothing here declares it",
                help="sizes of this file: " + (", ".join(f"`{n}`" for n in declared) or "none"),
            )
    report.raise_if_errors()
    return replace(tree, items=items)


def names(tree: syntax.File) -> tuple[str, ...]:
    """What `resize` can give another default, in order of declaration."""
    declared: dict[str, None] = {}
    for item in tree.items:
        _item(item, {}, {}, declared)
    return tuple(declared)


def _item(item: syntax.Node, sizes: Mapping[str, int], used: dict[str, None], declared: dict[str, None]) -> syntax.Node:
    if not isinstance(item, (syntax.RecurrenceDecl, syntax.AttentionDecl, syntax.LayerDecl)):
        return item

    def number(name: str, old: syntax.Node | None, span: Span) -> syntax.Node | None:
        declared[name] = None
        if name not in sizes:
            return old
        used[name] = None
        return syntax.Number(old.span if old is not None else span, Fraction(sizes[name]))

    params = item.params
    if isinstance(item, syntax.RecurrenceDecl):
        params = tuple((name, number(name, value, item.name_span)) for name, value in params)
    body = tuple(
        replace(node, default=number(node.name, node.default, node.span)) if isinstance(node, syntax.DimDecl) else node
        for node in item.body
    )
    return replace(item, params=params, body=body)
