"""A layer's prologue and its recurrence -> what decode_LAYER.py of the emitted package says: one token in one kernel launch.

The recurrence's inputs are definitions here, over the tensors that the layer's projections give. The inputs that a convolution
has seen last are a state of their own, `window` [sequences, taps, channels], where token n lies in row n % taps: channels that
several programs read are written by all of them, with the same value, in the row that none of them reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..backends.torch_text import identifier
from ..backends.triton_pointwise import PRODUCT, UnsupportedOperand
from ..backends.triton_value import Text, loaded
from ..expressions import nodes
from ..layer_spec import Layer, LayerStatement
from ..recurrence import Recurrence
from ..spec import ONE, Expr, Ref, State, Symbol, Type
from ..torch_form.schema_text import Registration, registration
from ..triton_form.decode import HEAD_INDEX, TokenWriter, comment
from ..triton_form.decode_package import DecodePackage, Line, Strided
from .forward import statement_place
from .prologue import Channels, Filtered, NotCarried, Prologue, Source, prologue


@dataclass(frozen=True)
class Launch:
    """What a layer's module says to run the kernel.

    file: the module that holds it. tensors: what each pointer is handed, (kind, key) in order: ('source', Source), ('weight' or
    'bias' or 'window', convolution node), ('param', name), ('state', name), ('tokens', ''), ('position', ''),
    ('constant', name), ('groups', '').
    """

    prologue: Prologue
    file: str
    operator: str
    arguments: tuple[str, ...]
    handed: tuple[tuple[str, object], ...]
    registration: Registration
    fake: tuple[Line, ...]
    like: str
    shape: str
    decode: DecodePackage


def layer_launches(recurrence: Recurrence, layers: Iterable[Layer]) -> dict[str, Launch]:
    """The kernels of the layers around a recurrence, by name: of those that compute something between projections and recurrence."""
    found = {}
    for layer in layers:
        try:
            found[layer.name] = LayerWriter(prologue(layer, recurrence.spec), recurrence).launch()
        except (NotCarried, UnsupportedOperand):
            continue
    return found


class LayerWriter(TokenWriter):
    """One token of a layer: what the recurrence takes for inputs is loaded, filtered or computed from what the layer's tensors hold."""

    def __init__(self, prologue: Prologue, recurrence: Recurrence):
        self.prologue = prologue
        self.kernel = f"{prologue.layer.name}_step_kernel"
        self.subject = (
            f"What the layer `{prologue.layer.name}` computes between its projections and what `{prologue.recurrence.name}` reads out:",
            "one token of every sequence in one launch; the states move on in place.",
        )
        if prologue.filters:
            self.subject += (
                "",
                "A filter keeps the last `taps` inputs in a window, that of token n in row n % taps. Programs that share channels all",
                "write the new input, with one value, where none of them reads.",
            )
        self.said: set[int] = set()
        self.placed: dict[str, Channels] = {}
        self.labels: dict[str, str] = {}
        super().__init__(recurrence)
        for name, value in prologue.definitions.items():
            if not self._is_loaded(value):
                self.definitions[name] = value

    def launch(self) -> Launch:
        """The kernel, and how it is called."""
        decode = self.package()
        # a window moves on where its channels are read
        read = {name for (name, _), label in self.windowed.items() if any(line.target == f"b_{label}" for line in decode.steps)}
        missing = [name for name in self._channel_names() if name not in read]
        if missing:
            raise UnsupportedOperand(f"the window of `{missing[0]}`, which nothing reads,")
        operator = f"{self.prologue.layer.name}_step"
        arguments = [a.split(":")[0] for a in decode.signature]
        moved = {*(t.tensor for t in self.memories), *self.counts_of}
        schema = []
        for argument in decode.signature:
            name, type_ = argument.split(": ")
            mark = f"(a{len(schema)}!)" if name in moved else ""
            schema.append(f"Tensor{mark} {name}" if type_ == "Tensor" else f"{type_} {name}")
        schema.append(f"Tensor? {self.slots}")
        wanted = decode.shape.replace(",", " ").split()
        return Launch(
            prologue=self.prologue,
            file=f"decode_{self.prologue.layer.name}",
            operator=operator,
            arguments=(*arguments, self.slots),
            handed=tuple(self.origin[name] for name in arguments),
            registration=registration(operator, schema, 1),
            fake=tuple(line for line in decode.sizes if line.target in wanted),
            like=decode.like,
            shape=decode.shape,
            decode=decode,
        )

    def _channel_names(self) -> Iterable[str]:
        """The filtered values, as the printer asks for them: row by row where there are several."""
        for name, filtered in self.prologue.filtered.items():
            type_ = filtered.channels.type
            if type_.rows != ONE and type_.cols != ONE:
                yield from (f"{name}[{row}]" for row in range(1, self._count(type_.rows) + 1))
            else:
                yield name

    # --- names ---

    def _choose_names(self) -> None:
        super()._choose_names()
        spec = self.prologue
        self.sources = {source.name: self._fresh(source.name) for source in spec.sources}
        self.windows = {f.name: self._fresh(f.name) for f in spec.filters}
        self.weights = {f.name: self._fresh(f"{f.name}_weight") for f in spec.filters}
        self.biases = {f.name: self._fresh(f"{f.name}_bias") for f in spec.filters if f.node.bias}
        self.widths = {f.name: self._fresh(f"{f.name}_channels") for f in spec.filters}
        self.group_count = self._fresh("groups")
        self.taken |= {"i_t", "t_tokens"}
        self.given = [Strided(self.sources[s.name], f"s_{self.sources[s.name]}") for s in spec.sources if not s.is_learned]
        self.learned = [self.sources[s.name] for s in spec.sources if s.is_learned]
        self.learned += [name for f in spec.filters for name in (self.weights[f.name], self.biases.get(f.name)) if name]
        self.learned += [self.tensors[s.name] for s in self.params]
        self.memories = [*(Strided(name, f"s_{name}") for name in self.windows.values()), *self.memories]
        if spec.filters:
            self.counts_of = {self._fresh("tokens"): "i_t", **self.counts_of}
        self.windowed: dict[tuple[str, str], str] = {}
        self._choose_origins()

    def _choose_origins(self) -> None:
        """What of the layer every argument is."""
        spec = self.prologue
        self.origin: dict[str, tuple[str, object]] = {self.sources[s.name]: ("source", s) for s in spec.sources}
        for f in spec.filters:
            self.origin |= {self.weights[f.name]: ("weight", f.node), self.windows[f.name]: ("window", f.node)}
            if f.node.bias:
                self.origin[self.biases[f.name]] = ("bias", f.node)
        self.origin |= {self.tensors[s.name]: ("param", identifier(s.name)) for s in self.params}
        self.origin |= {self.tensors[s.name]: ("state", identifier(s.name)) for s in self.spec.states}
        self.origin |= {count: ("position" if target == "b_position" else "tokens", "") for count, target in self.counts_of.items()}
        self.origin |= {self.group_count: ("groups", "")}
        self.origin |= {name: ("constant", name) for name in self.constants}

    def _handed_inputs(self) -> list[Symbol]:
        return []

    def _label(self, wanted: str, key: str) -> str:
        """A label whose `b_` and `o_` names are free."""
        if key not in self.labels:
            while {f"{letter}_{wanted}" for letter in "bop"} & self.taken:
                wanted += "_"
            self.taken |= {f"{letter}_{wanted}" for letter in "bop"}
            self.labels[key] = wanted
        return self.labels[key]

    # --- what the printer asks for ---

    def _is_loaded(self, value: Expr) -> bool:
        return isinstance(value, Ref) and value.name in self.prologue.channels

    def _value(self, name: str, axes: str) -> Text | None:
        base, _, row = name.rstrip("]").partition("[")
        if base in self.prologue.filtered:
            return self._filtered(name, self.prologue.filtered[base], axes, int(row) if row else 0)
        if base in self.prologue.channels:
            channels = self.prologue.channels[base]
            return self._argument(self._symbol(self._label(channels.label, base), channels), axes, int(row) if row else 0)
        return super()._value(name, axes)

    def _symbol(self, label: str, channels: Channels) -> Symbol:
        """The channels as an argument of the kernel."""
        self.placed[label] = channels
        return Symbol(label, "param" if channels.source.is_learned else "input", channels.type, channels.per, self.prologue.layer.span)

    def _places(self, symbol: Symbol) -> list[str]:
        """The tensor that holds an input, the sequence in it, and the values in front."""
        channels = self.placed.get(symbol.name)
        if channels is None and symbol.name in self.prologue.definitions:
            channels = self.prologue.channels[self.prologue.definitions[symbol.name].name]
        if channels is None:
            return super()._places(symbol)
        tensor = self.sources[channels.source.name]
        return [tensor, "" if channels.source.is_learned else f"i_b * s_{tensor}", self._before(channels)]

    def _before(self, channels: Channels) -> str:
        """How many entries lie in front of these, as text; equal ones are counted."""
        counted: dict[str, int] = {}
        for per, type_ in channels.before:
            width = self._width(per, type_)
            counted[width] = counted.get(width, 0) + 1
        return " + ".join(width if count == 1 else f"{count} * {width}" for width, count in counted.items())

    def _width(self, per: str, type_: Type) -> str:
        lead = {"head": self.heads, "channel": self.heads, "group": self.groups, "layer": ""}[per]
        sides = [self._size_text(size, PRODUCT) for size in (type_.rows, type_.cols) if size != ONE]
        return " * ".join(text for text in (lead, *sides) if text) or "1"

    def _filtered(self, name: str, filtered: Filtered, axes: str, row: int) -> Text | None:
        """Channels of a convolution at this token; the window moves on."""
        own, channels = filtered.filter, filtered.channels
        sides = [size for size in (channels.type.rows, channels.type.cols) if size != ONE]
        inner = sides[1:] if row else sides
        if len(inner) != len(axes) or len(inner) > 1 or (axes and self._axis(inner[0]) != axes and not self._is_square(inner[0])):
            return None
        label = self._label(f"{channels.label}_{row}" if row else channels.label, f"{name} {axes}")
        self.windowed[name, axes] = label
        taken = self._printed(self._row(filtered.operand, row) if row else filtered.operand, axes)
        if not taken.text.isidentifier():
            taken = self._assign(f"b_{label}_in", self._row(filtered.operand, row) if row else filtered.operand, axes, ())
        parts = [self._before(channels), self._lead(channels, sides), f"o_{axes}" if axes else ""]
        if row > 1:
            parts.insert(2, f"{row - 1} * {self._size_text(inner[0], PRODUCT)}" if inner else str(row - 1))
        place, mask, shape = f"o_{label}", f"m_{axes}" if axes else "True", self._shape(tuple(axes))
        self.steps.append(Line(place, " + ".join(part for part in parts if part) or "0", self._statement_words(own.statement), shape))
        window, taps = self.windows[own.name], own.node.taps
        self.steps.append(Line(f"p_{label}", f"{window} + i_s * s_{window} + {place}", (), shape))
        weight = f"{self.weights[own.name]} + {taps} * {place}"
        value = f"_filtered({taken.text}, p_{label}, {weight}, {mask}, i_t, {self.widths[own.name]}, {taps})"
        if own.node.bias:
            bias = f"tl.load({self.biases[own.name]} + {place}, mask={mask}, other=0.0).to(tl.float32)"
            self.steps.append(Line(f"b_{label}_bias", bias, (), shape))
            value = f"b_{label}_bias + {value}"
        self.steps.append(Line(f"b_{label}", value, (), shape))
        return loaded(f"b_{label}", tuple(axes))

    def _statement_words(self, statement: LayerStatement) -> tuple[str, ...]:
        """The statement as written, where it is first met."""
        if id(statement) in self.said:
            return ()
        self.said.add(id(statement))
        return comment(statement_place(self.prologue.layer, statement.span))

    def _lead(self, channels: Channels, sides: list) -> str:
        index = HEAD_INDEX.get(channels.per, "")
        widths = [self._size_text(size, PRODUCT) for size in sides]
        if index and widths:
            index += f" * {widths[0]}" if len(widths) == 1 else f" * ({' * '.join(widths)})"
        return index

    # --- the package ---

    def _defined_words(self, name: str, symbol: Symbol | None, value: Expr) -> tuple[str, ...]:
        statement = self.prologue.quoted.get(name.partition("[")[0])
        if statement is None:
            return super()._defined_words(name, symbol, value)
        if any(id(f.filter.statement) == id(statement) for f in self._filtered_in(value)):
            return ()
        return self._statement_words(statement)

    def _filtered_in(self, value: Expr) -> Iterable[Filtered]:
        return (self.prologue.filtered[n.name] for n in nodes(value) if isinstance(n, Ref) and n.name in self.prologue.filtered)

    def _tensor_of(self, symbol: Symbol) -> str:
        """The tensor that an input comes from."""
        for name in self._read_by(self.prologue.definitions[symbol.name]):
            return self.sources[name.name]
        return self.given[0].tensor

    def _read_by(self, value: Expr) -> Iterable[Source]:
        for node in nodes(value):
            if isinstance(node, Ref) and node.name in self.prologue.channels:
                source = self.prologue.channels[node.name].source
                if not source.is_learned:
                    yield source
            elif isinstance(node, Ref) and node.name in self.prologue.filtered:
                yield from self._read_by(self.prologue.filtered[node.name].operand)

    def _groups_text(self) -> str:
        return self.group_count

    def _shaped(self) -> tuple[Symbol | State, ...]:
        return (*self.params, *self.spec.states)

    def _sizes(self, words: set[str]) -> tuple[Line, ...]:
        used = self.groups in words
        self.sizes_given = (self.group_count,) if used else ()
        widths = [Line(name, f"{self.windows[f]}.shape[-1]") for f, name in self.widths.items()]
        return (*super()._sizes(words), *widths)
