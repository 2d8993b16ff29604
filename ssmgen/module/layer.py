"""A layer of the spec as the text of an `nn.Module`: its sizes, its parts, its forward pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .. import layer_spec
from ..backends.torch_text import attribute
from ..reference import docstring
from . import initial, text
from .forward import ForwardWriter, Names, bundle_name, in_order, spec_nodes
from .recurrence import RESERVED_ATTRIBUTES, Parameter, RecurrenceClass
from .text import variable

if TYPE_CHECKING:
    from .decode_layer import Launch


@dataclass(frozen=True)
class StateField:
    """One part of a layer's state: its type, its shape, the expression of its zero. A window is turned by the number of tokens."""

    name: str
    type: str
    comment: str
    zero: str
    is_window: bool = False


@dataclass(frozen=True)
class LayerClass:
    """Everything the template lays out of one layer."""

    name: str
    state_name: str
    title: str
    doc: tuple[str, ...]
    init_head: tuple[str, ...]
    forward_head: tuple[str, ...]
    step_head: tuple[str, ...]
    allocate_head: tuple[str, ...]
    sizes: tuple[str, ...]
    parts: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    fields: tuple[StateField, ...]
    has_windows: bool
    default_weight: str
    model: str
    forward_lines: tuple[str, ...]
    step_lines: tuple[str, ...]
    output: str
    next_state: str
    has_step: bool
    repr_text: str
    helpers: tuple[str, ...]
    uses: frozenset[str]  # parts of the file's head: 'conv', 'shift', 'blocks', 'whole', 'math'


def layer_class(layer: layer_spec.Layer, recurrences: Mapping[str, RecurrenceClass], launch: Launch | None = None) -> LayerClass:
    """The class of a layer over recurrences whose classes stand in the same file. `launch` is what a kernel carries of its step."""
    return _LayerWriter(layer, recurrences, launch).write()


class _LayerWriter:
    def __init__(self, layer: layer_spec.Layer, recurrences: Mapping[str, RecurrenceClass], launch: Launch | None):
        self.layer, self.launch = layer, launch
        self.recurrences = recurrences
        self.taken: dict[str, None] = dict.fromkeys((*RESERVED_ATTRIBUTES, "tokens", *(p.name for p in layer.parameters)))
        self.modules: dict[int, str] = {}
        self.fields: dict[int | tuple[str, int], str] = {}
        self.state: list[StateField] = []
        self.uses: dict[str, None] = {}
        self.needed: dict[str, None] = {}  # sizes that initial values read
        self.sizes = self._size_names()
        self.groups = self._groups_name()
        for name in self.sizes.values():
            self.taken[name] = None

    def write(self) -> LayerClass:
        self._name_parts()
        names = Names(self.modules, self.fields, self.sizes, self.groups)
        forward, step = ForwardWriter(self.layer, names, False), ForwardWriter(self.layer, names, True, self.launch)
        forward.write()
        step.write()
        splits = forward.splits
        parts = self._parts(splits)
        parameters = tuple(self._parameter(p) for p in self.layer.parameters)
        sizes = self._sizes(tuple(forward.used))
        layer, name = self.layer, text.camel(self.layer.name)
        comment = [docstring(line.strip()) for line in layer.comment.splitlines() if line.strip()]
        helper_names = (*forward.helpers, *(h for p in layer.parameters for h in initial.helpers(p.init)))
        constants = [c for callee in layer.callees for c in self.recurrences[callee].constants]
        return LayerClass(
            name,
            f"{name}State",
            _sentence(comment[0] if comment else f"The block `{layer.name}`"),
            tuple(comment[1:]),
            text.method("__init__", self._arguments(constants)),
            text.method("forward", ["u: Tensor", "*", f"state: {name}State | None = None", "cu_seqlens: Tensor | None = None"], "Output"),
            text.method("step", ["u: Tensor", "*", f"state: {name}State", "slots: Tensor | None = None"], "Tensor"),
            text.method("allocate_state", ["batch: int", "device=None", "dtype: torch.dtype | None = None"], f"{name}State"),
            sizes,
            parts,
            parameters,
            tuple(self.state),
            "conv" in self.uses,
            self._default_weight(),
            next(iter(dict(layer.params))),
            tuple(forward.lines),
            tuple(step.lines),
            variable(layer.output),
            f"{name}State({', '.join(self._next(field, forward) for field in self.state)})",
            all(self.recurrences[callee].has_step for callee in layer.callees),
            self._repr(),
            tuple(dict.fromkeys(helper_names)),
            frozenset(self.uses),
        )

    def _next(self, state: StateField, forward: ForwardWriter) -> str:
        return "state.tokens + (end - start)" if state.name == "tokens" else forward.next_of(state.name)

    # --- names -------------------------------------------------------------------------------------------------------

    def _size_names(self) -> dict[str, str]:
        layer = self.layer
        names = {name: attribute(name) for name, _ in (*layer.params, *layer.dims)}
        names |= {name: attribute(name) for name, _ in layer.sizes}
        if layer.count is not None:
            word = "channels" if self._is_per_channel() else "heads"
            if word not in names:
                names[layer.count] = word
        return names

    def _is_per_channel(self) -> bool:
        widths = [w for s in self.layer.statements for node in spec_nodes(s.value) for w in node.widths]
        return any(width.lead == "channel" for width in widths)

    def _groups_name(self) -> str:
        above, below = text.quotient(self.layer.groups, self.sizes)
        if not below and (above.isdigit() or above.isidentifier()):
            return above
        return "groups"

    def _fresh(self, name: str) -> str:
        candidate, number = attribute(name), 2
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken[candidate] = None
        return candidate

    def _name_parts(self) -> None:
        """One attribute for each projection, convolution, norm and recurrence; one state field for each memory."""
        defined: dict[str, int] = {}
        convolutions = [n for s in self.layer.statements for n in spec_nodes(s.value) if isinstance(n, layer_spec.LayerConv)]
        for number, statement in enumerate(self.layer.statements):
            for node in in_order(statement.value):
                if isinstance(node, layer_spec.LayerLinear):
                    self.modules[id(node)] = self._fresh(self._projection_name(node, statement))
                elif isinstance(node, layer_spec.LayerConv):
                    label = "conv" if len(convolutions) == 1 else f"conv_{bundle_name(statement.names)}"
                    self.modules[id(node)] = self.fields[id(node)] = self._fresh(label)
                    self.state.append(self._window(self.modules[id(node)], node.taps))
                elif isinstance(node, layer_spec.LayerNorm):
                    self.modules[id(node)] = self._fresh("norm")
                elif isinstance(node, layer_spec.LayerCall):
                    name = self.modules[id(node)] = self.fields[id(node)] = self._fresh(node.callee)
                    self.state.append(
                        StateField(name, "State", f"the state of `{node.callee}`", f"self.{name}.allocate_state(batch, device, dtype)")
                    )
                elif isinstance(node, layer_spec.LayerShift) and (node.name, defined.get(node.name, -1)) not in self.fields:
                    name = self.fields[(node.name, defined.get(node.name, -1))] = self._fresh(f"last_{node.name}")
                    self.uses["shift"] = None
                    width = self._width_text(node.widths[0])
                    self.state.append(StateField(name, "Tensor", f"[batch, {width}], `{node.name}` of the last token",
                                                 f"torch.zeros(batch, {self._self(width)}, device=device, dtype=dtype)"))  # fmt: skip
            defined.update((name, number) for name in statement.names)
        if convolutions:
            zero = "torch.zeros(batch, device=device, dtype=torch.int64)"
            self.state.append(StateField("tokens", "Tensor", "[batch], how many there have been", zero))

    def _window(self, name: str, taps: int) -> StateField:
        self.uses["conv"] = None
        zero = f"torch.zeros(batch, {taps}, self.{name}.in_channels, device=device, dtype=dtype)"
        comment = f"[batch, {taps}, channels], the last inputs of `{name}`: token n in row n % {taps}"
        return StateField(name, "Tensor", comment, zero, is_window=True)

    def _projection_name(self, node: layer_spec.LayerLinear, statement: layer_spec.LayerStatement) -> str:
        if statement is self.layer.statements[-1]:
            return "out_proj"
        is_first = not any(name == "in_proj" for name in self.modules.values())
        if len(statement.names) > 1 and is_first and node.operand == layer_spec.LayerRef(node.operand.widths, node.span, self.layer.input):
            return "in_proj"
        return f"{bundle_name(statement.names)}_proj" if len(statement.names) < 4 else "in_proj"

    # --- text of the constructor -------------------------------------------------------------------------------------

    def _arguments(self, constants: list[tuple[str, str]]) -> list[str]:
        arguments = [attribute(name) + ("" if default is None else f"={text.number(default)}") for name, default in self.layer.params]
        arguments += [f"{attribute(name)}={default}" for name, default in self.layer.dims]
        given = {name for name, _ in self.layer.params}
        keywords = [f"{name}={value}" for name, value in dict.fromkeys(constants) if name not in given]
        return [*arguments, "*", *keywords, "device=None", "dtype=None"]

    def _sizes(self, used: tuple[str, ...]) -> tuple[str, ...]:
        layer, lines = self.layer, []
        for name, size in layer.sizes:
            target = self.sizes[name]
            lines.append(f"{target} = {self._whole(target, size)}")
        if self.groups == "groups" and "groups" not in self.sizes.values():
            lines.append(f"groups = {self._whole('groups', layer.groups)}")
        # Build-time counts and defaults that equal their own names need no line.
        lines = [line for line in lines if line.split(" = ")[0] != line.split(" = ", 1)[1]]
        state = [f for f in self.state if f.name.startswith("last_")]
        needed = self.needed | dict.fromkeys(used)
        for field in state:
            needed |= dict.fromkeys(n for n in (*self.sizes.values(), "groups") if f"self.{n}" in field.zero.replace(",", " ").split())
        order = [*(n for n in self.sizes.values() if n in ("heads", "channels")), self.groups, *self.sizes.values()]
        kept = dict.fromkeys(name for name in order if name in needed)
        if kept:
            lines.append(f"{', '.join(f'self.{n}' for n in kept)} = {', '.join(kept)}")
        return tuple(lines)

    def _whole(self, label: str, size: layer_spec.Size) -> str:
        above, below = text.quotient(size, self.sizes)
        fractional = any(default is not None and Fraction(default).denominator != 1 for _, default in self.layer.params)
        if below or (fractional and not above.isdigit()):
            self.uses["whole"] = None
            return f'_whole("{label}", {above}, {below or 1})'
        return above

    def _width_text(self, width: layer_spec.Width) -> str:
        lead = {"head": self.sizes.get(self.layer.count or "", "heads"), "channel": self.sizes.get(self.layer.count or "", "channels"),
                "group": self.groups, "none": "1"}[width.lead]  # fmt: skip
        shape = []
        for size in width.shape:
            above, below = text.quotient(size, self.sizes)
            shape.append(self._whole("width", size) if below else above)
        return text.product(lead, *shape)

    def _product(self, widths: tuple[layer_spec.Width, ...]) -> str:
        return " + ".join(self._width_text(width) for width in widths)

    def _self(self, width: str) -> str:
        return " ".join(f"self.{word}" if word.isidentifier() else word for word in width.split(" "))

    def _parts(self, splits: Mapping[str, tuple[tuple[layer_spec.Width, ...], ...]]) -> tuple[str, ...]:
        lines: list[str] = []
        cut: dict[str, None] = {}
        for statement in self.layer.statements:
            for node in in_order(statement.value):
                name = self.modules.get(id(node))
                if name is None:
                    continue
                if name in splits and name not in cut:
                    cut[name] = None
                    pieces = [self._product(piece) for piece in splits[name]]
                    lines += [f"self.{name}_split = [{', '.join(pieces)}]"]
                total = f"sum(self.{name}_split)" if name in cut else self._product(node.widths)
                if isinstance(node, layer_spec.LayerLinear):
                    lines += self._linear(node, name, total)
                elif isinstance(node, layer_spec.LayerConv):
                    arguments = [total, total, str(node.taps), f"groups={total}", f"bias={node.bias}", "**factory"]
                    if not total.isidentifier():
                        lines.append(f"channels = {total}")
                        arguments = ["channels", "channels", str(node.taps), "groups=channels", f"bias={node.bias}", "**factory"]
                    lines += text.call(f"self.{name} = nn.Conv1d", arguments, 8)
                elif isinstance(node, layer_spec.LayerNorm):
                    lines += self._norm(node, name)
                elif isinstance(node, layer_spec.LayerCall):
                    lines += text.call(f"self.{name} = {text.camel(node.callee)}", self._recurrence_arguments(node.callee), 8)
        return tuple(lines)

    def _linear(self, node: layer_spec.LayerLinear, name: str, total: str) -> list[str]:
        source = self._product(node.operand.widths[:1])
        if node.rank is None:
            return text.call(f"self.{name} = nn.Linear", [source, total, f"bias={node.bias}", "**factory"], 8)
        rank = self._whole("rank", node.rank)
        first = f"nn.Linear({source}, {rank}, bias=False, **factory)"
        second = f"nn.Linear({rank}, {total}, bias={node.bias}, **factory)"
        return text.call(f"self.{name} = nn.Sequential", [first, second], 8)

    def _norm(self, node: layer_spec.LayerNorm, name: str) -> list[str]:
        width = self._width_text(node.widths[0])
        eps = repr(float(node.eps))
        blocks = {"head": self.sizes.get(self.layer.count or "", "heads"), "group": self.groups, "layer": "1"}[node.per]
        kind = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}[node.kind]
        bias = [f"bias={node.bias}"] if node.kind == "layernorm" else []
        if blocks == "1":
            return text.call(f"self.{name} = nn.{kind}", [width, f"eps={eps}", *bias, "**factory"], 8)
        self.uses[f"blocks_{node.kind}"] = None
        return text.call(f"self.{name} = Block{kind}", [blocks, width, f"eps={eps}", *bias, "**factory"], 8)

    def _recurrence_arguments(self, callee: str) -> list[str]:
        recurrence = self.recurrences[callee]
        arguments = []
        for word in recurrence.count_arguments:
            arguments.append(f"groups={self.groups}" if word == "groups" else self.sizes[self.layer.count])
        arguments += [f"{name}={self.sizes[name]}" for name in recurrence.dims]
        arguments += [f"{name}={name}" for name, _ in recurrence.constants]
        return [*arguments, "device=device"] if recurrence.parameters else arguments

    def _parameter(self, parameter: layer_spec.LayerParameter) -> Parameter:
        name = attribute(parameter.name)
        size = "()" if parameter.width is None else self._width_text(parameter.width)
        numbers = {spoken: f"self.{attribute}" for spoken, attribute in self.sizes.items()}
        target = initial.Target(
            f"self.{name}", () if size == "()" else (self._self(size),), None if size == "()" else "channel", False, numbers
        )
        self.needed |= dict.fromkeys(
            n for n in self.sizes.values() if f"self.{n}" in re.findall(r"[\w.]+", initial.fill(target, parameter.init))
        )
        return Parameter(
            name, f"torch.empty({size}, **factory)", initial.words(parameter.init, self.layer.source), initial.fill(target, parameter.init)
        )

    def _default_weight(self) -> str:
        for statement in self.layer.statements:
            for node in spec_nodes(statement.value):
                if isinstance(node, layer_spec.LayerLinear):
                    return f"self.{self.modules[id(node)]}" + ("[0].weight" if node.rank is not None else ".weight")
        return "next(self.parameters())"

    def _repr(self) -> str:
        return ""


def _sentence(line: str) -> str:
    return line if line.endswith((".", "!", "?")) else f"{line}."
