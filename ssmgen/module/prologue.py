"""What of a layer one launch can carry beside the recurrence, one token at a time: everything between projections and operator
that works on each channel by itself, as expressions of the recurrence's inputs.

A statement belongs to it when nothing but the call, or another such statement, reads what it defines. Projections, learned
norms and values of the token before are torch operations that come first: each gives a tensor that the launch reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .. import algebra, layer_spec, spec
from ..backends.triton_text import FUNCTIONS
from ..small import all_nodes
from ..spec import ONE, Expr, Ref, SizeOf, Type
from .forward import bundle_name, bundled, is_joinable, names_read, spec_nodes
from .text import variable

POINTWISE = (layer_spec.LayerConv, layer_spec.LayerApply, layer_spec.LayerArithmetic, layer_spec.LayerNegative)
LEAVES = (layer_spec.LayerLinear, layer_spec.LayerNorm, layer_spec.LayerShift)
WORDS = {
    layer_spec.LayerLinear: "a projection",
    layer_spec.LayerNorm: "a learned norm",
    layer_spec.LayerShift: "the value of the token before",
}
COLUMN_FUNCTIONS = ("unit", "softmax")
PER = {"head": "head", "group": "group", "channel": "channel", "none": "layer"}


class NotCarried(Exception):
    """A layer, or a part of one, has no place in the launch; the reason is for `explain`."""


@dataclass(frozen=True)
class Source:
    """A tensor that the launch reads: values side by side, [batch, width], or a learned one.

    names: the layer's values that it holds; empty where `node`, a torch operation inside a statement, gives it. labels: what its
    values are called after, where there are several.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    node: layer_spec.LayerValue | None
    is_learned: bool = False


@dataclass(frozen=True)
class Channels:
    """The entries of one value within a tensor of several: of what shape, behind which others. A name in the expressions."""

    source: Source | None
    label: str
    type: Type
    per: str
    before: tuple[tuple[str, Type], ...]  # (per, type) of the values that lie in front


@dataclass(frozen=True)
class Filter:
    """A convolution: its node, what its arguments are called after, the statement it stands in, (per, type) of its values."""

    name: str
    node: layer_spec.LayerConv
    statement: layer_spec.LayerStatement
    widths: tuple[tuple[str, Type], ...]


@dataclass(frozen=True)
class Filtered:
    """The channels of a convolution that belong to one value, and what they filter. A name in the expressions."""

    filter: Filter
    channels: Channels
    operand: Expr


@dataclass(frozen=True)
class Prologue:
    """definitions: the recurrence's inputs as expressions of `channels` and `filtered`; statements: those that the launch carries,
    by number; quoted: the statement that an input comes from, where the launch computes it."""

    layer: layer_spec.Layer
    recurrence: spec.Recurrence
    call: layer_spec.LayerCall
    statements: tuple[int, ...]
    sources: tuple[Source, ...]
    filters: tuple[Filter, ...]
    channels: dict[str, Channels] = field(hash=False)
    filtered: dict[str, Filtered] = field(hash=False)
    definitions: dict[str, Expr] = field(hash=False)
    quoted: dict[str, layer_spec.LayerStatement] = field(hash=False)


def prologue(layer: layer_spec.Layer, recurrence: spec.Recurrence) -> Prologue:
    """What a launch carries of a layer around a recurrence.

    Raises NotCarried where it carries nothing, with the reason.
    """
    return _Tracer(layer, recurrence).trace()


def in_torch(carried: Prologue) -> tuple[tuple[layer_spec.LayerStatement, str], ...]:
    """Statements with convolutions that stay torch operations although they come before the call, each with the reason."""
    tracer = _Tracer(carried.layer, None)
    found = []
    for number, statement in enumerate(carried.layer.statements[: tracer.at + 1]):
        over = next((leaf for leaf in _leaves(statement.value) if _has(leaf, layer_spec.LayerConv)), None)
        if over is not None:
            found.append((statement, f"{WORDS[type(over)]} needs all of its channels"))
        elif number in tracer.refused and _has(statement.value, layer_spec.LayerConv):
            found.append((statement, tracer.refused[number]))
    return tuple(found)


class _Tracer:
    def __init__(self, layer: layer_spec.Layer, recurrence: spec.Recurrence | None):
        self.layer, self.recurrence = layer, recurrence
        self.refused: dict[int, str] = {}
        calls = [
            (n, node) for n, s in enumerate(layer.statements) for node in spec_nodes(s.value) if isinstance(node, layer_spec.LayerCall)
        ]
        self.at, self.call = calls[0] if len(calls) == 1 else (0, None)
        self.defined = self._defined()
        self.carried = self._carried() if self.call is not None else ()

    # --- which statements ---

    def _defined(self) -> list[dict[str, int]]:
        """Before every statement: the statement that gave a name its value."""
        found, last = [], {}
        for number, statement in enumerate(self.layer.statements):
            found.append(dict(last))
            last.update((name, number) for name in statement.names)
        return found

    def _carried(self) -> tuple[int, ...]:
        kept: list[int] = []
        for number in reversed(range(self.at)):
            statement = self.layer.statements[number]
            if not isinstance(statement.value, POINTWISE):
                continue
            reason = _odd(statement) or self._read_elsewhere(number, kept) or self._overwritten(number, kept)
            if reason:
                self.refused[number] = reason
            else:
                kept.append(number)
        return tuple(reversed(kept))

    def _read_elsewhere(self, number: int, kept: list[int]) -> str:
        """Why a value is needed as a tensor: something that is not in the launch reads it."""
        for later in range(number + 1, len(self.layer.statements)):
            statement = self.layer.statements[later]
            if later in kept:
                outside = [leaf for leaf in _leaves(statement.value)]
            elif later == self.at:
                outside = [*_beside(statement.value, self.call), *(leaf for o in self.call.operands for leaf in _leaves(o))]
            else:
                outside = [statement.value]
            read = {name for node in outside for name in names_read(node)}
            for name in self.layer.statements[number].names:
                if name in read and self.defined[later].get(name) == number:
                    return f"`{name}` is read by `{', '.join(statement.names)} = ...` as well"
        return ""

    def _overwritten(self, number: int, kept: list[int]) -> str:
        """Why a statement cannot wait for the call: a name that it reads or gives has another value by then."""
        statement = self.layer.statements[number]
        own = {*statement.names, *names_read(statement.value)}
        for later in range(number + 1, self.at):
            again = own & {*self.layer.statements[later].names}
            if later not in kept and again:
                return f"`{sorted(again)[0]}` has another value when the recurrence is called"
        return ""

    # --- what they say ---

    def trace(self) -> Prologue:
        if self.call is None:
            raise NotCarried("the recurrence is called more than once")
        if self.recurrence.recurrent_inputs:
            raise NotCarried("its inputs are computed from the state")
        given = [s for s in self.recurrence.symbols if s.definition is None and s.kind != "param"]
        if len(given) != len(self.call.operands) or any(isinstance(n, spec.Delayed) for n in all_nodes(self.recurrence)):
            raise NotCarried("values of the token before are read, which torch operations keep")
        if not self.carried and not any(isinstance(operand, POINTWISE) for operand in self.call.operands):
            raise NotCarried("nothing stands between the projections and the recurrence")
        self.dims: dict[layer_spec.Size, spec.Dim] = {}
        for width, symbol in zip(self.call.inputs, given, strict=True):
            sides = [size for size in (symbol.type.rows, symbol.type.cols) if size != ONE]
            self.dims |= dict(zip(width.shape, sides, strict=True))
        self.sources: dict[tuple, Source] = {}
        self.filters: dict[int, Filter] = {}
        self.channels: dict[str, Channels] = {}
        self.filtered: dict[str, Filtered] = {}
        definitions, quoted = {}, {}
        for symbol, operand in zip(given, self.call.operands, strict=True):
            value = self._value(operand, 0, self.at)
            if value.type.is_scalar != symbol.type.is_scalar:
                raise NotCarried(f"`{symbol.name}` is not computed channel by channel")
            definitions[symbol.name] = algebra.apply("unit", value) if "unit" in symbol.flags else value
            quoted[symbol.name] = self.layer.statements[self._origin(operand)]
        return Prologue(
            self.layer,
            self.recurrence,
            self.call,
            self.carried,
            tuple(self.sources.values()),
            tuple(self.filters.values()),
            self.channels,
            self.filtered,
            definitions,
            quoted,
        )

    def _origin(self, operand: layer_spec.LayerValue) -> int:
        """The statement whose words say what an input is."""
        if isinstance(operand, layer_spec.LayerRef) and self.defined[self.at].get(operand.name) in self.carried:
            return self.defined[self.at][operand.name]
        return self.at

    def _value(self, node: layer_spec.LayerValue, i: int, number: int) -> Expr:
        """The i-th value of a node in statement `number`."""
        i = i if len(node.widths) > 1 else 0
        match node:
            case layer_spec.LayerNumber(value=value):
                return algebra.const(value)
            case layer_spec.LayerSize(size=size, power=power):
                if size not in self.dims:
                    raise NotCarried(f"the size {size} is none of the recurrence's")
                return algebra.power(SizeOf(Type(), node.span, self.dims[size]), algebra.const(power))
            case layer_spec.LayerRef(name=name):
                return self._named(name, node.widths[0], number)
            case layer_spec.LayerGroup(names=names):
                return self._named(names[i], node.widths[i], number)
            case layer_spec.LayerParam(name=name):
                source = self._source(("param", name), Source(name, (), (name,), node, is_learned=True))
                return self._channels(source, 0, node.widths or (layer_spec.Width("none"),))
            case layer_spec.LayerNegative(operand=operand):
                return algebra.neg(self._value(operand, i, number))
            case layer_spec.LayerArithmetic(operator="."):
                raise NotCarried("an inner product of each head's columns")
            case layer_spec.LayerArithmetic(operator=operator, left=left, right=right):
                sides = self._value(left, i, number), self._value(right, i, number)
                make = {"+": algebra.add, "-": algebra.sub, "*": algebra.mul, "/": algebra.div, "^": algebra.power}[operator]
                return make(*sides)
            case layer_spec.LayerApply(function=function, operands=operands):
                args = [self._value(operand, i, number) for operand in operands]
                if function in COLUMN_FUNCTIONS and not args[0].type.is_column:
                    raise NotCarried(f"`{function}` does not run along one axis of a head")
                return algebra.apply(function, *args)
            case layer_spec.LayerConv():
                return self._conv(node, i, number)
            case _ if isinstance(node, LEAVES):
                statement = self.layer.statements[number]
                name = bundle_name(statement.names) if len(node.widths) > 1 else f"{bundle_name(statement.names)}_in"
                labels = statement.names if len(statement.names) == len(node.widths) else ()
                return self._channels(self._source(("node", id(node)), Source(name, (), labels, node)), i, node.widths)
        raise NotCarried(f"{type(node).__name__} is no operation on a channel")

    def _named(self, name: str, width: layer_spec.Width, number: int) -> Expr:
        origin = self.defined[number].get(name)
        if origin in self.carried:
            statement = self.layer.statements[origin]
            return self._value(statement.value, statement.names.index(name), origin)
        if origin is not None:
            # what torch leaves side by side
            statement = self.layer.statements[origin]
            names = bundled(statement, self.layer.statements[origin + 1])
            if name in names and is_joinable(statement.value):
                widths = tuple(statement.value.widths[statement.names.index(n)] for n in names)
                source = self._source(("names", names, origin), Source(bundle_name(names), names, names, None))
                return self._channels(source, names.index(name), widths)
        return self._channels(self._source(("names", (name,), origin), Source(variable(name), (name,), (name,), None)), 0, (width,))

    def _conv(self, node: layer_spec.LayerConv, i: int, number: int) -> Expr:
        if id(node) not in self.filters:
            label = "conv" if self._convolutions() == 1 else f"conv_{bundle_name(self.layer.statements[number].names)}"
            taken = [f.name for f in self.filters.values()]
            while label in taken:
                label += "_"
            self.filters[id(node)] = Filter(label, node, self.layer.statements[number], tuple(self._shape(width) for width in node.widths))
        own = self.filters[id(node)]
        operand = self._value(node.operand, i, number)
        per, type_ = own.widths[i]
        if operand.type.is_scalar != type_.is_scalar:
            raise NotCarried("a convolution's channels are not those of what it filters")
        name = f"filtered {own.name} {i}"
        label = f"{own.statement.names[i]}_conv" if len(own.statement.names) == len(own.widths) else f"{own.name}_{i}"
        self.filtered[name] = Filtered(own, Channels(None, label, type_, per, own.widths[:i]), operand)
        return Ref(type_, node.span, name)

    def _convolutions(self) -> int:
        return sum(
            isinstance(node, layer_spec.LayerConv) for n in (*self.carried, self.at) for node in spec_nodes(self.layer.statements[n].value)
        )

    def _source(self, key: tuple, source: Source) -> Source:
        """The source itself, under a name that no other has."""
        if key not in self.sources:
            taken = [other.name for other in self.sources.values()]
            while source.name in taken:
                source = replace(source, name=f"{source.name}_")
            self.sources[key] = source
        return self.sources[key]

    def _channels(self, source: Source, i: int, widths: tuple[layer_spec.Width, ...]) -> Expr:
        shapes = tuple(self._shape(width) for width in widths)
        per, type_ = shapes[i]
        name = f"channels {source.name} {i}"
        label = f"{source.labels[i]}_in" if source.labels else f"{source.name}_{i}"
        self.channels[name] = Channels(source, label, type_, per, shapes[:i])
        return Ref(type_, spec.NOWHERE, name)

    def _shape(self, width: layer_spec.Width) -> tuple[str, Type]:
        sides = [self.dims.get(size) for size in width.shape]
        if None in sides or len(sides) > 2:
            raise NotCarried(f"the shape {width} is none of the recurrence's")
        return PER[width.lead], Type(*sides)


def _odd(statement: layer_spec.LayerStatement) -> str:
    """Why a statement has an operation that no kernel knows."""
    if len(statement.names) > 1 and any(not isinstance(leaf, layer_spec.LayerLinear) for leaf in _leaves(statement.value)):
        return "several values are each normalised, or shifted, by themselves"
    for node in _carried_nodes(statement.value):
        if isinstance(node, layer_spec.LayerApply) and node.function not in (*FUNCTIONS, *COLUMN_FUNCTIONS):
            return f"`{node.function}` is not computed channel by channel"
        if isinstance(node, layer_spec.LayerCall):
            return "it calls a recurrence"
    return ""


def _carried_nodes(value: layer_spec.LayerValue) -> Iterator[layer_spec.LayerValue]:
    """The nodes of a value down to, and without, those that torch computes."""
    if isinstance(value, LEAVES):
        return
    yield value
    for child in _children(value):
        yield from _carried_nodes(child)


def _leaves(value: layer_spec.LayerValue) -> Iterator[layer_spec.LayerValue]:
    """The outermost nodes that torch computes."""
    if isinstance(value, LEAVES):
        yield value
        return
    for child in _children(value):
        yield from _leaves(child)


def _beside(value: layer_spec.LayerValue, call: layer_spec.LayerCall) -> Iterator[layer_spec.LayerValue]:
    """The parts of a value outside of the call in it."""
    if value is call:
        return
    if not any(node is call for node in spec_nodes(value)):
        yield value
        return
    for child in _children(value):
        yield from _beside(child, call)


def _children(value: layer_spec.LayerValue) -> Iterator[layer_spec.LayerValue]:
    for held in vars(value).values():
        yield from (item for item in (held if isinstance(held, tuple) else (held,)) if isinstance(item, layer_spec.LayerValue))


def _has(value: layer_spec.LayerValue, kind: type) -> bool:
    return any(isinstance(node, kind) for node in spec_nodes(value))
