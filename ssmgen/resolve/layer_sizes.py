"""The sizes of a layer: its arguments, the dims of what it calls, and what it computes from both."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from .. import layer_spec, syntax
from ..diagnostics import Report
from ..source import Span
from . import sizes
from .layer_callee import Callee


class LayerSizes:
    """Every size a layer's text may name.

    params: the layer's arguments. dims: sizes of the callees that stay arguments. computed: sizes with an expression, in
    order. count: the name of the head or channel count, `lead` which of the two. groups: how many share per-group inputs.
    """

    def __init__(self, decl: syntax.LayerDecl, used: Mapping[str, Callee], report: Report):
        self.decl = decl
        self.report = report
        self.params: dict[str, Fraction | None] = {}
        self.dims: dict[str, int] = {}
        self.computed: dict[str, layer_spec.Size] = {}
        self.names: dict[str, None] = {}
        self.count: str | None = None
        self.lead = "head"
        self.groups = sizes.constant(1)
        ports = [port for callee in used.values() for port in (*callee.inputs, *callee.outputs)]
        if any(port.width.lead == "channel" for port in ports):
            self.lead = "channel"
        self._arguments(used)
        for item in decl.body:
            if isinstance(item, syntax.DimDecl):
                self._dim(item)
            elif isinstance(item, syntax.Heads):
                self._heads(item)

    @property
    def model(self) -> str | None:
        """The name of the model width: the first argument."""
        return next(iter(self.params), None)

    @property
    def counts(self) -> dict[str, layer_spec.Size]:
        """How many rows a leading axis has."""
        found = {"group": self.groups}
        if self.count is not None:
            found[self.lead] = sizes.named(self.count)
        return found

    def read(self, node: syntax.Node) -> layer_spec.Size | None:
        """The size an expression says; None, and a report, when it says none."""
        try:
            return sizes.read(node, self.names)
        except sizes.NotASize as fault:
            known = ", ".join(f"`{name}`" for name in self.names) or "none"
            self.report.error(
                "layer-size",
                "not a size",
                fault.node.span,
                str(fault),
                note="a layer's sizes are made of its arguments and the dims of what it calls, declared before use",
                help=f"names that may stand here: {known}",
            )
            return None

    def number(self, node: syntax.Node) -> Fraction | None:
        """The exact number an expression has with the defaults; None when it has none."""
        size = self.read(node)
        return None if size is None else self.default(size)

    def default(self, size: layer_spec.Size) -> Fraction | None:
        """A size with the defaults put in; None when it uses an argument without one."""
        size = sizes.substitute(size, self.computed)
        numbers = {n: v for n, v in self.params.items() if v is not None} | self.dims
        return size.value(numbers) if all(n in numbers for n in sizes.names_of(size)) else None

    # --- collecting --------------------------------------------------------------------------------------------------

    def _arguments(self, used: Mapping[str, Callee]) -> None:
        for name, default in self.decl.params:
            self.params[name] = None if default is None else self.number(default)
            self.names[name] = None
        overridden = dict.fromkeys(item.name for item in self.decl.body if isinstance(item, syntax.DimDecl))
        owner: dict[str, str] = {}
        for callee in used.values():
            for name, default in callee.dims:
                if name in self.params:
                    continue
                if self.dims.get(name, default) != default and name not in overridden:
                    self.report.error(
                        "layer-dim-conflict",
                        f"`{owner[name]}` and `{callee.name}` disagree on `{name}`",
                        self.decl.name_span,
                        f"`{name}` is {self.dims[name]} in one and {default} in the other",
                        help=f"decide in the layer: `dim {name} = {default}`",
                    )
                self.dims[name], owner[name] = default, callee.name
                if name not in overridden:
                    self.names[name] = None
            for name, default in callee.counts:
                # A count is fixed at build time: it is a number here, not an argument.
                self._define(name, sizes.constant(default), self.decl.name_span)
        for name in overridden:
            self.dims.pop(name, None)

    def _dim(self, item: syntax.DimDecl) -> None:
        if item.default is None:
            self.report.error(
                "layer-size", f"`dim {item.name}` has no value", item.span, "no value here", help=f"write `dim {item.name} = 64`"
            )
        else:
            self._define(item.name, self.read(item.default), item.span)

    def _define(self, name: str, size: layer_spec.Size | None, span: Span) -> None:
        if size is None:
            return
        self.computed[name] = size
        self.names[name] = None
        value = self.default(size)
        if value is not None and (value.denominator != 1 or value < 1):
            self.report.error(
                "heads-not-whole",
                f"`{name}` = {size} = {value} is not a whole number of at least 1",
                span,
                f"{value} with the defaults",
                note="sizes are whole; the constructor checks them again for the values it is given",
                help=f"choose defaults for which {size} is whole",
            )

    def _heads(self, item: syntax.Heads) -> None:
        self.count = item.name
        self._define(item.name, self.read(item.value), item.value.span)
        groups = None if item.groups is None else self.read(item.groups)
        if groups is None:
            return
        self.groups = groups
        heads, parts = self.default(sizes.named(item.name)), self.default(groups)
        if heads is not None and parts is not None and (parts < 1 or heads % parts):
            self.report.error(
                "groups-not-dividing",
                f"{parts} groups cannot share {heads} heads",
                item.groups.span,
                f"{heads} / {parts} is not a whole number",
                note="head h belongs to group h // (heads / groups), so groups divides heads",
                help="choose a group count that divides the head count, or `groups 1`",
            )
