"""The statements of a layer as torch text, over a whole sequence or for one token.

Between operations every value lies flat, [..., width]: projections, convolutions and elementwise arithmetic need no
shapes, and heads appear where an operation asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import layer_spec
from ..backends.eager_text import ATOM, POWER, PRODUCT, SIGN, SUM, Text
from ..backends.torch_text import AXIS_FUNCTIONS, FUNCTIONS, HELPERS, attribute
from . import text
from .text import variable

if TYPE_CHECKING:
    from .decode_layer import Launch
    from .prologue import Source

_BINDS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "^": POWER}


TOKEN = "token = state.tokens.clone() if slots is None else state.tokens[slots.clamp(min=0)]"
"""The number of every sequence's token, which is where its inputs go in the windows."""


@dataclass(frozen=True)
class Names:
    """What the class calls its parts. Nodes are told apart by identity: two equal projections have their own weights."""

    modules: Mapping[int, str]  # id of a projection, convolution, norm or call -> attribute
    fields: Mapping[int | tuple[str, int], str]  # id of a convolution or call, or (name, id of its statement) -> state field
    sizes: Mapping[str, str]  # size of the spec -> attribute
    groups: str  # text of the group count, after `self.` unless a number


@dataclass
class ForwardWriter:
    """Writes the body of `forward` (or of `step`, one token at a time) line by line."""

    layer: layer_spec.Layer
    names: Names
    is_step: bool
    launch: Launch | None = None  # of a step: the kernel that carries the call and what comes before it
    lines: list[str] = field(default_factory=list)
    used: dict[str, None] = field(default_factory=dict)  # attributes that hold sizes
    helpers: dict[str, None] = field(default_factory=dict)
    splits: dict[str, tuple[tuple[layer_spec.Width, ...], ...]] = field(default_factory=dict)  # projection -> widths of its pieces
    _variables: dict[str, str] = field(default_factory=dict)  # layer name -> Python name
    _version: dict[str, int] = field(default_factory=dict)  # layer name -> which statement defined it
    _done: dict[int | tuple, str] = field(default_factory=dict)  # operations that have been given a line
    _bundles: dict[tuple[str, ...], str] = field(default_factory=dict)  # values that are still side by side
    _targets: tuple[str, ...] = ()
    _reads: list[str] = field(default_factory=list)  # names the statement reads, as often as it does
    _given: dict[str, None] = field(default_factory=dict)  # names its operations have been assigned to so far
    _headed: dict[str, str] = field(default_factory=dict)  # flat text -> the same value with heads
    _computed: dict[int, str] = field(default_factory=dict)  # operations that stand before a launch -> their variable
    _waiting: list[int] = field(default_factory=list)  # statements that the launch carries
    _indent: int = 8

    def write(self) -> None:
        """All statements, each under the line of the spec that it comes from."""
        self._variables[self.layer.input] = variable(self.layer.input)
        for number, statement in enumerate(self.layer.statements):
            self.lines.append(f"# {statement_place(self.layer, statement.span)}")
            if self.launch is not None and number in self.launch.prologue.statements:
                self._compute_sources(statement)
                self._waiting.append(number)
            else:
                self._numbered(number)
        if self.is_step and self._has_windows and not self._carries_windows:
            self.lines.append("_advance(state.tokens, slots)")
        if self.is_step and self._has_own_windows:
            self.lines.insert(0, TOKEN)

    @property
    def _carries_windows(self) -> bool:
        return self.launch is not None and bool(self.launch.prologue.filters)

    @property
    def _has_windows(self) -> bool:
        return any(isinstance(node, layer_spec.LayerConv) for s in self.layer.statements for node in spec_nodes(s.value))

    @property
    def _has_own_windows(self) -> bool:
        """Whether torch operations move a window wherever the layer runs."""
        carried = [f.node for f in self.launch.prologue.filters] if self.launch is not None else []
        nodes = [node for s in self.layer.statements for node in spec_nodes(s.value) if isinstance(node, layer_spec.LayerConv)]
        return any(all(node is not other for other in carried) for node in nodes)

    def _numbered(self, number: int) -> None:
        following = self.layer.statements[number + 1] if number + 1 < len(self.layer.statements) else None
        self._statement(self.layer.statements[number], following, number)

    def _compute_sources(self, statement: layer_spec.LayerStatement) -> None:
        """What torch computes inside a statement that a launch carries, given a line of its own."""
        for source in self.launch.prologue.sources:
            if source.node is not None and not source.is_learned and any(node is source.node for node in spec_nodes(statement.value)):
                target = self._free(source.name)
                value = self.joined(source.node) if len(source.node.widths) > 1 else self.text(source.node, 0)
                self._assign(target, value)
                self._computed[id(source.node)] = target

    def _free(self, name: str) -> str:
        spoken = {n for statement in self.layer.statements for n in statement.names}
        while name in spoken:
            name += "_"
        return name

    def _result(self, wanted: str, other: str, node: layer_spec.LayerValue) -> str:
        """Where an operation's result goes: the statement's own target, unless that is still to be read or already given."""
        later = [variable(name) for name in self._reads]
        for name in names_read(node):
            later.remove(variable(name))
        result = self._free(other) if wanted in later or wanted in self._given else wanted
        while result in self._given:
            result += "_"
        self._given[result] = None
        return result

    def next_of(self, name: str) -> str:
        """The Python name of a state field's next value."""
        return self._free(f"next_{name}")

    def _wrapped(self, head: str, value: str) -> list[str]:
        if len(head) + len(value) + self._indent <= text.LINE or "(" not in value:
            return [head + value]
        return [f"{head}(", f"    {value}", ")"]

    # --- statements --------------------------------------------------------------------------------------------------

    def _statement(self, statement: layer_spec.LayerStatement, following: layer_spec.LayerStatement | None, number: int) -> None:
        targets = tuple(variable(name) for name in statement.names)
        self._targets, self._reads, self._given, self._headed = targets, names_read(statement.value), {}, {}
        if len(targets) == 1:
            self._assign(targets[0], self.text(statement.value, 0))
        else:
            self._several(statement, following, targets)
        for name, target in zip(statement.names, targets, strict=True):
            self._variables[name], self._version[name] = target, number

    def _assign(self, target: str, value: Text) -> None:
        if value.text != target:
            self.lines += self._wrapped(f"{target} = ", value.text)

    def _several(self, statement: layer_spec.LayerStatement, following, targets: tuple[str, ...]) -> None:
        joined = self.joined(statement.value)
        if joined is None:
            values = [self.text(statement.value, i) for i in range(len(targets))]
            read = {node.name for node in spec_nodes(statement.value) if isinstance(node, layer_spec.LayerRef)}
            if any(name in read for name in statement.names):
                self.lines += self._wrapped(f"{', '.join(targets)} = ", ", ".join(value.text for value in values))
                return
            for target, value in zip(targets, values, strict=True):
                self._assign(target, value)
            return
        owner = _owner(statement.value)
        bundle = bundled(statement, following)
        if bundle == statement.names:
            name = bundle_name(bundle)
            self._bundles[bundle] = name
            self._assign(name, joined)
            return
        pieces: dict[str, tuple[layer_spec.Width, ...]] = {}
        for name, target, width in zip(statement.names, targets, owner.widths, strict=True):
            piece = bundle_name(bundle) if name in bundle else target
            pieces[piece] = (*pieces.get(piece, ()), width)
        if bundle:
            self._bundles[bundle] = bundle_name(bundle)
        self._cut(owner, joined, pieces)

    def _cut(
        self, owner: layer_spec.LayerLinear | layer_spec.LayerConv, joined: Text, pieces: Mapping[str, tuple[layer_spec.Width, ...]]
    ) -> None:
        module = self.names.modules[id(owner)]
        self.splits[module] = tuple(pieces.values())
        self.lines += self._wrapped(f"{', '.join(pieces)} = ", f"{joined.at(ATOM)}.split(self.{module}_split, dim=-1)")

    # --- values ------------------------------------------------------------------------------------------------------

    def joined(self, node: layer_spec.LayerValue) -> Text | None:
        """A value of several names as one tensor side by side; None where an operation needs to know the names."""
        if id(node) in self._computed:
            return Text(self._computed[id(node)])
        match node:
            case layer_spec.LayerLinear():
                return Text(f"self.{self.names.modules[id(node)]}({self.text(node.operand, 0).text})")
            case layer_spec.LayerConv():
                operand = self.joined(node.operand)
                if operand is None:
                    pieces = [self.text(node.operand, i).text for i in range(len(node.widths))]
                    operand = Text(f"torch.cat([{', '.join(pieces)}], dim=-1)")
                return Text(self._conv(node, operand))
            case layer_spec.LayerGroup(names=names):
                if names in self._bundles:
                    return Text(self._bundles[names])
                return Text(f"torch.cat([{', '.join(self._variables[name] for name in names)}], dim=-1)")
            case layer_spec.LayerNumber() | layer_spec.LayerSize():
                return self.text(node, 0)
            case layer_spec.LayerParam() if not node.widths:
                return self.text(node, 0)
            case layer_spec.LayerNegative(operand=operand):
                inner = self.joined(operand)
                return inner and Text(f"-{inner.at(PRODUCT)}", SIGN)
            case layer_spec.LayerArithmetic(left=left, right=right, operator=operator):
                if all(is_joinable(side) for side in (left, right)):
                    return _binary(operator, self.joined(left), self.joined(right))
            case layer_spec.LayerApply(function=function, operands=operands):
                if function in FUNCTIONS and all(is_joinable(operand) for operand in operands):
                    return self._call(function, [self.joined(operand) for operand in operands])
        return None

    def text(self, node: layer_spec.LayerValue, i: int) -> Text:
        """The value for the i-th name of the statement, flat."""
        if id(node) in self._computed and len(node.widths) == 1:
            return Text(self._computed[id(node)])
        match node:
            case layer_spec.LayerNumber(value=value):
                return Text(text.number(value), is_number=True)
            case layer_spec.LayerSize(size=size, power=power):
                base = self._size(size)
                return Text(base if power == 1 else f"{base}**{text.number(power)}", ATOM if power == 1 else POWER, is_number=True)
            case layer_spec.LayerRef(name=name):
                return Text(self._variables[name])
            case layer_spec.LayerParam(name=name):
                return Text(f"self.{attribute(name)}")
            case layer_spec.LayerGroup(names=names):
                return Text(self._variables[names[i]])
            case layer_spec.LayerShift():
                return Text(self._shift(node))
            case layer_spec.LayerNegative(operand=operand):
                return Text(f"-{self.text(operand, i).at(PRODUCT)}", SIGN)
            case layer_spec.LayerLinear() | layer_spec.LayerConv() if len(node.widths) > 1:
                return Text(self._split(node, i))
            case layer_spec.LayerLinear(operand=operand):
                return Text(f"self.{self.names.modules[id(node)]}({self.text(operand, 0).text})")
            case layer_spec.LayerConv(operand=operand):
                return Text(self._conv(node, self.text(operand, 0)))
            case layer_spec.LayerNorm(operand=operand):
                return Text(f"self.{self.names.modules[id(node)]}({self.text(operand, i).text})")
            case layer_spec.LayerCall():
                return self._callee(node, i)
            case layer_spec.LayerApply():
                return self._apply(node, i)
            case layer_spec.LayerArithmetic():
                return self._arithmetic(node, i)
        raise AssertionError(f"no text for {node}")

    def _arithmetic(self, node: layer_spec.LayerArithmetic, i: int) -> Text:
        left, right = self.text(node.left, i), self.text(node.right, i)
        a, b = _width(node.left, i), _width(node.right, i)
        if node.operator == ".":
            return Text(f"{self._blocks(_binary('*', left, right), a).at(ATOM)}.sum(-1)")
        if a is None or b is None or bool(a.shape) == bool(b.shape) or not (a.lead == b.lead == "head" or a.lead == b.lead == "group"):
            return _binary(node.operator, left, right)
        # A scalar per head against a column per head: the heads get an axis of their own.
        sides = [
            self._blocks(side, width) if width.shape else Text(f"{side.at(ATOM)}.unsqueeze(-1)") for side, width in ((left, a), (right, b))
        ]
        both = _binary(node.operator, *sides)
        flat = f"{both.at(ATOM)}.flatten(-2)"
        self._headed[flat] = both.text
        return Text(flat)

    def _blocks(self, value: Text, width: layer_spec.Width) -> Text:
        """A value as [..., heads, the rest]."""
        if value.text in self._headed:
            return Text(self._headed[value.text])
        return Text(f"{value.at(ATOM)}.unflatten(-1, ({self._lead(width.lead)}, -1))")

    def _apply(self, node: layer_spec.LayerApply, i: int) -> Text:
        operands = [self.text(operand, i) for operand in node.operands]
        if node.function in FUNCTIONS:
            return self._call(node.function, operands)
        width = _width(node.operands[0], i)
        helper = f"_{node.function}"
        if helper in HELPERS:
            self.helpers[helper] = None
        operand = operands[0].at(ATOM)
        if width is None or width.lead == "none" and len(width.shape) <= 1 or not width.shape:
            return Text(AXIS_FUNCTIONS[node.function](operand, "-1"))
        columns = f"{operand}.unflatten(-1, (-1, {self._size(width.shape[-1])}))"
        return Text(f"{AXIS_FUNCTIONS[node.function](columns, '-1')}.flatten(-2)")

    def _call(self, function: str, operands: list[Text]) -> Text:
        if f"_{function}" in HELPERS:
            self.helpers[f"_{function}"] = None
        return Text(FUNCTIONS[function](*(operand.text for operand in operands)))

    # --- operations with a memory ------------------------------------------------------------------------------------

    def _conv(self, node: layer_spec.LayerConv, operand: Text) -> str:
        if id(node) not in self._done:
            module, name = self.names.modules[id(node)], self.names.fields[id(node)]
            wanted = operand.text if operand.text.isidentifier() else bundle_name(self._targets)
            result = self._result(wanted, f"{wanted}_conv", node)
            if self.is_step:
                arguments = [operand.text, f"self.{module}", f"state.{name}", "token", "slots"]
                self.lines += text.call(f"{result} = _conv_step", arguments, self._indent)
            else:
                arguments = [operand.text, f"self.{module}", f"state.{name}", "start", "end", "cu_seqlens"]
                self.lines += text.call(f"{result}, {self.next_of(name)} = _causal_conv", arguments, 8)
            self._done[id(node)] = result
        return self._done[id(node)]

    def _shift(self, node: layer_spec.LayerShift) -> str:
        key = (node.name, self._version.get(node.name, -1))
        name = self.names.fields[key]
        if key not in self._done:
            source = self._variables[node.name]
            result = self._free(f"previous_{source}")
            if self.is_step:
                self.lines.append(f"{result} = _shift_step({source}, state.{name}, slots)")
            else:
                self.lines.append(f"{result}, {self.next_of(name)} = _shift({source}, state.{name}, cu_seqlens)")
            self._done[key] = result
        return self._done[key]

    def _callee(self, node: layer_spec.LayerCall, i: int) -> Text:
        if id(node) not in self._done:
            self._done[id(node)] = self._launched(node) if self.launch is not None else self._called(node)
        flat = _without_heads(self._done[id(node)], node.widths[i])
        if len(node.widths[i].shape) == 1 and node.widths[i].lead != "none":
            self._headed[flat] = self._done[id(node)]
        return Text(flat)

    def _called(self, node: layer_spec.LayerCall) -> str:
        module, name = self.names.modules[id(node)], self.names.fields[id(node)]
        arguments = [self._with_heads(self.text(operand, 0), width) for operand, width in zip(node.operands, node.inputs, strict=True)]
        result = self._result(self._targets[0], f"{module}_{self._targets[0]}", node)
        if self.is_step:
            self.lines += text.call(f"{result} = self.{module}.step", [*arguments, f"state=state.{name}", "slots=slots"], self._indent)
        else:
            arguments += [f"state=state.{name}", "cu_seqlens=cu_seqlens"]
            self.lines += text.call(f"{result}, {self.next_of(name)} = self.{module}", arguments, 8)
        return result

    def _launched(self, node: layer_spec.LayerCall) -> str:
        """The call and the statements before it that wait for it: one launch where there is a kernel, else torch operations."""
        self._compute_sources(next(s for s in self.layer.statements if any(inner is node for inner in spec_nodes(s.value))))
        handed = [self._handed(kind, key, node) for kind, key in self.launch.handed]
        own = (self._targets, self._reads, self._given, self._headed)
        before, self.lines, self._indent = self.lines, [], 12
        if self._carries_windows and not self._has_own_windows:
            self.lines.append(TOKEN)
        for number in self._waiting:
            self._numbered(number)
        self._targets, self._reads, self._given, self._headed = own
        result = self._called(node)
        if self._carries_windows:
            self.lines.append("_advance(state.tokens, slots)")
        branch, self._indent = self.lines, 8
        name = self.names.fields[id(node)]
        launch = text.call(f"{result} = _operators.{self.launch.operator}", [*handed, "slots"], 12)
        test = f"if _is_fused({handed[0]}, *state.{name}):"
        self.lines = [*before, test, *(f"    {line}" for line in launch), "else:", *(f"    {line}" for line in branch)]
        return result

    def _handed(self, kind: str, key: object, call: layer_spec.LayerCall) -> str:
        """The text of one argument of the kernel."""
        module, name = self.names.modules[id(call)], self.names.fields[id(call)]
        match kind:
            case "source":
                return self._source(key)
            case "weight" | "bias":
                return f"self.{self.names.modules[id(key)]}.{kind}"
            case "window":
                return f"state.{self.names.fields[id(key)]}"
            case "param" | "constant":
                return f"self.{module}.{key}"
            case "state":
                return f"state.{name}.{key}"
            case "position":
                return f"state.{name}.position"
            case "tokens":
                return "state.tokens"
            case "groups":
                return self._lead("group")
        raise AssertionError(f"no argument of kind {kind}")

    def _source(self, source: Source) -> str:
        if source.is_learned:
            return self.text(source.node, 0).text
        if source.node is not None:
            return self._computed[id(source.node)]
        return self._bundles[source.names] if len(source.names) > 1 else self._variables[source.names[0]]

    def _split(self, node: layer_spec.LayerLinear | layer_spec.LayerConv, i: int) -> str:
        if (id(node), "split") not in self._done:
            joined = self.joined(node)
            if joined is None:
                raise AssertionError(f"a projection of several names is one tensor: {node}")
            pieces = [self._result(target, f"{target}_part", node) for target in self._targets]
            self._cut(node, joined, {piece: (width,) for piece, width in zip(pieces, node.widths, strict=True)})
            self._done[(id(node), "split")] = " ".join(pieces)
        return self._done[(id(node), "split")].split(" ")[i]

    # --- shapes ------------------------------------------------------------------------------------------------------

    def _with_heads(self, value: Text, width: layer_spec.Width) -> str:
        lead = [self._lead(width.lead)] if width.lead != "none" else []
        axes = lead + [self._size(size) for size in width.shape]
        if not axes:
            return f"{value.at(ATOM)}.squeeze(-1)"
        if len(axes) == 2 and width.lead != "none" and value.text in self._headed:
            return self._headed[value.text]
        return value.text if len(axes) == 1 else f"{value.at(ATOM)}.unflatten(-1, ({', '.join(axes)}))"

    def _lead(self, lead: str) -> str:
        if lead == "group":
            return self.names.groups if self.names.groups.isdigit() else self._attribute(self.names.groups)
        return self._attribute(self.names.sizes[self.layer.count])

    def _size(self, size: layer_spec.Size) -> str:
        above, below = text.quotient(size, {name: self._attribute(attribute, False) for name, attribute in self.names.sizes.items()})
        for factors, _ in size.terms:
            for name, _ in factors:
                self._attribute(self.names.sizes[name])
        return f"{text.product(above, '1')} // {text.product(below)}" if below else above

    def _attribute(self, name: str, is_used: bool = True) -> str:
        if is_used:
            self.used[name] = None
        return f"self.{name}"


def bundled(statement: layer_spec.LayerStatement, following: layer_spec.LayerStatement | None) -> tuple[str, ...]:
    """Names of a projection that the next statement convolves together: they are not torn apart first."""
    if following is None or _owner(statement.value) is None:
        return ()
    nodes = list(spec_nodes(following.value))
    read = {node.name for node in nodes if isinstance(node, (layer_spec.LayerRef, layer_spec.LayerShift))}
    for node in nodes:
        if isinstance(node, layer_spec.LayerConv) and isinstance(node.operand, layer_spec.LayerGroup):
            names = node.operand.names
            size = len(names)
            if not read & set(names) and any(statement.names[at : at + size] == names for at in range(len(statement.names) - size + 1)):
                return names
    return ()


def bundle_name(names: tuple[str, ...]) -> str:
    """One Python name for values side by side: `xBC`, or `query_key` where the names are words."""
    return variable(("" if all(len(name) <= 2 for name in names) else "_").join(names))


def names_read(node: layer_spec.LayerValue) -> list[str]:
    """The names an expression reads, as often as it reads them."""
    names: list[str] = []
    for inner in spec_nodes(node):
        if isinstance(inner, (layer_spec.LayerRef, layer_spec.LayerShift)):
            names.append(inner.name)
        elif isinstance(inner, layer_spec.LayerGroup):
            names += inner.names
    return names


def spec_nodes(node: layer_spec.LayerValue):
    """Every node of a layer expression, operands in order, parents first."""
    yield node
    for value in vars(node).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, layer_spec.LayerValue):
                yield from spec_nodes(item)


def in_order(node: layer_spec.LayerValue):
    """Every node of a layer expression in the order of evaluation: operands first, from left to right."""
    for value in vars(node).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, layer_spec.LayerValue):
                yield from in_order(item)
    yield node


def _owner(node: layer_spec.LayerValue) -> layer_spec.LayerLinear | layer_spec.LayerConv | None:
    """The projection or convolution whose channels a joined value has."""
    for inner in spec_nodes(node):
        if isinstance(inner, (layer_spec.LayerLinear, layer_spec.LayerConv)) and len(inner.widths) > 1:
            return inner
    return None


def is_joinable(node: layer_spec.LayerValue) -> bool:
    """Whether the values of several names can be computed side by side, in one tensor."""
    if isinstance(node, (layer_spec.LayerLinear, layer_spec.LayerConv, layer_spec.LayerGroup)):
        return len(node.widths) > 1
    if isinstance(node, (layer_spec.LayerNumber, layer_spec.LayerSize)):
        return True
    if isinstance(node, layer_spec.LayerParam):
        return not node.widths
    if isinstance(node, layer_spec.LayerNegative):
        return is_joinable(node.operand)
    if isinstance(node, layer_spec.LayerArithmetic):
        return is_joinable(node.left) and is_joinable(node.right)
    return isinstance(node, layer_spec.LayerApply) and node.function in FUNCTIONS and all(map(is_joinable, node.operands))


def _width(node: layer_spec.LayerValue, i: int) -> layer_spec.Width | None:
    if not node.widths:
        return None
    return node.widths[i] if i < len(node.widths) else node.widths[0]


def _binary(operator: str, left: Text, right: Text) -> Text:
    binds = _BINDS[operator]
    if operator == "^":
        return Text(f"{left.at(ATOM)}**{right.at(SIGN)}", POWER, left.is_number and right.is_number)
    tighter = binds + 1 if operator in "-/" else binds
    return Text(f"{left.at(binds)} {operator} {right.at(tighter)}", binds, left.is_number and right.is_number)


def _without_heads(value: str, width: layer_spec.Width) -> str:
    axes = len(width.shape) + (width.lead != "none")
    if axes == 0:
        return f"{value}.unsqueeze(-1)"
    return value if axes == 1 else f"{value}.flatten(-{axes})"


def statement_words(layer: layer_spec.Layer, statement: layer_spec.LayerStatement) -> str:
    """A statement as written, on one line."""
    return text.quoted(layer.source, statement.span)


def statement_place(layer: layer_spec.Layer, span) -> str:
    """Where the layer says it, and what."""
    line, _ = layer.source.position(span.start)
    name = layer.source.name.rsplit("/", 1)[-1]
    return f"{name}:{line}  {text.quoted(layer.source, span)}"
