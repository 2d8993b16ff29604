"""A recurrence as the text of an `nn.Module`: its learned parameters around the op."""

from __future__ import annotations

from dataclasses import dataclass

from .. import spec
from ..backends.torch_text import attribute, identifier
from ..reference import docstring
from ..reference.token import Scope
from ..spec import ONE
from . import initial, text

RESERVED_ATTRIBUTES = (
    "forward step allocate_state reset_parameters extra_repr heads channels groups apply bfloat16 buffers children compile cpu cuda "
    "double eval float half modules named_parameters parameters register_buffer requires_grad_ state_dict to train training type "
    "zero_grad"
).split()
"""Attributes that a module has already."""


@dataclass(frozen=True)
class Parameter:
    """A learned tensor: the text that makes it, and the statement that fills it under the words of the spec."""

    name: str
    creation: str
    comment: str
    fill: str


@dataclass(frozen=True)
class Field:
    """One tensor of the state."""

    name: str
    shape: str
    dtype: str


@dataclass(frozen=True)
class RecurrenceClass:
    """Everything the template lays out of one recurrence."""

    name: str
    function: str
    title: str
    doc: tuple[str, ...]  # shapes of inputs and output
    init_head: tuple[str, ...]
    kept: tuple[str, ...]  # names of the arguments that become attributes
    stores: str  # `self.heads, self.N = heads, N`
    count_arguments: tuple[str, ...]  # 'heads', 'groups' or 'channels', where the class takes them
    dims: tuple[str, ...]
    constants: tuple[tuple[str, str], ...]
    has_groups: bool
    parameters: tuple[Parameter, ...]
    device: str
    forward_head: tuple[str, ...]
    step_head: tuple[str, ...]
    units: tuple[str, ...]
    forward_call: tuple[str, ...]
    step_call: tuple[str, ...]
    has_step: bool
    fields: tuple[Field, ...]
    has_complex_fields: bool
    has_complex_parameters: bool
    repr_text: str
    helpers: tuple[str, ...]
    uses_math: bool


def recurrence_class(recurrence: spec.Recurrence) -> RecurrenceClass:
    """The class of one recurrence, over the op of the same package."""
    scope = Scope(recurrence)
    counts = dict(recurrence.counts)
    per = [s.per for s in (*recurrence.states, *recurrence.symbols)]
    lane = "channels" if "channel" in per else "heads"
    has_groups = any(s.per == "group" for s in scope.inputs)
    count_arguments = (lane, "groups") if has_groups else (lane,)
    dims = tuple(attribute(name) for name, _ in recurrence.dims)
    constants = tuple((identifier(name), text.number(value)) for name, value in recurrence.constants)
    arguments = [lane, *(["groups=1"] if has_groups else []), *(f"{attribute(n)}={default}" for n, default in recurrence.dims)]
    keyword_arguments = [f"{name}={value}" for name, value in constants] + (["device=None"] if scope.params else [])
    kept = (*count_arguments, *dims, *(name for name, _ in constants))
    parameters = tuple(_parameter(symbol, recurrence, lane, counts) for symbol in scope.params)
    comment = [docstring(line.strip()) for line in recurrence.comment.splitlines() if line.strip()]
    title = comment[0] if comment else f"The recurrence `{recurrence.name}` with its parameters"
    inputs = [f"{identifier(s.name)}: Tensor" for s in scope.inputs]
    handed = [identifier(s.name) for s in scope.inputs] + [f"self.{identifier(s.name)}" for s in scope.params]
    keywords = [f"{name}=self.{name}" for name, _ in constants]
    fills = "\n".join(parameter.fill for parameter in parameters)
    return RecurrenceClass(
        name=text.camel(recurrence.name),
        function=recurrence.name,
        title=title if title.endswith(".") else f"{title}.",
        doc=_shapes(scope, recurrence, counts),
        init_head=text.method("__init__", [*arguments, *(["*", *keyword_arguments] if keyword_arguments else [])]),
        kept=kept,
        stores=f"{', '.join(f'self.{name}' for name in kept)} = {', '.join(kept)}",
        count_arguments=count_arguments,
        dims=dims,
        constants=constants,
        has_groups=has_groups,
        parameters=parameters,
        device=f"self.{parameters[0].name}.device" if parameters else "",
        forward_head=text.method("forward", [*inputs, "*", "state: State | None = None", "cu_seqlens: Tensor | None = None"], "Output"),
        step_head=text.method("step", [*inputs, "*", "state: State", "slots: Tensor | None = None"], "Tensor"),
        units=tuple(f"{identifier(s.name)} = _unit({identifier(s.name)})" for s in scope.inputs if "unit" in s.flags),
        forward_call=tuple(text.call(f"return {recurrence.name}", [*handed, *keywords, "initial_state=state", "cu_seqlens=cu_seqlens"], 8)),
        step_call=tuple(text.call(f"return {recurrence.name}_step", [*handed, *keywords, "state=state", "slots=slots"], 8)),
        has_step=recurrence.time == "causal",
        fields=_fields(scope, lane, counts),
        has_complex_fields=any(type_.field == "complex" for _, type_, _ in scope.parts()),
        has_complex_parameters=any(s.type.field == "complex" for s in scope.params),
        repr_text=", ".join(f"{name}={{self.{name}}}" for name in kept),
        helpers=tuple(dict.fromkeys(h for s in scope.params for h in initial.helpers(s.init))),
        uses_math="math." in fills,
    )


def _shape(type_: spec.Type, per: str, lane: str, counts: dict[str, int]) -> list[str]:
    lead = {"head": [lane], "channel": [lane], "group": ["groups"], "layer": []}[per]
    return lead + [text.dim(size, counts) for size in (type_.rows, type_.cols) if size != ONE]


def _parameter(symbol: spec.Symbol, recurrence: spec.Recurrence, lane: str, counts: dict[str, int]) -> Parameter:
    name = identifier(symbol.name)
    shape = _shape(symbol.type, symbol.per, lane, counts)
    numbers = {n: f"self.{attribute(n)}" for n, _ in (*recurrence.dims, *recurrence.constants)} | {n: str(v) for n, v in counts.items()}
    numbers[lane] = f"self.{lane}"
    target = initial.Target(
        name=f"self.{name}",
        shape=tuple(_owned(size) for size in shape),
        lead=lane.removesuffix("s") if symbol.per in ("head", "channel") else None,
        is_complex=symbol.type.field == "complex",
        numbers=numbers,
        tensors={s.name: f"self.{identifier(s.name)}" for s in recurrence.symbols if s.kind == "param" and s.definition is None},
    )
    # in the constructor sizes are arguments, under the names that Python allows
    own = {n: attribute(n) for n, _ in recurrence.dims}
    words = [" ".join(own.get(word, word) for word in size.split(" ")) for size in shape]
    size = words[0] if len(words) == 1 else f"({', '.join(words)})"
    creation = f"torch.empty({size}, device=device, dtype=torch.complex64)" if target.is_complex else f"torch.empty({size}, **factory)"
    return Parameter(name, creation, initial.words(symbol.init, recurrence.source), initial.fill(target, symbol.init))


def _fields(scope: Scope, lane: str, counts: dict[str, int]) -> tuple[Field, ...]:
    fields = []
    for name, type_, per in scope.parts():
        dtype = "complex_dtype" if type_.field == "complex" else "dtype"
        fields.append(Field(name, ", ".join(["batch", *(_owned(size) for size in _shape(type_, per, lane, counts))]), dtype))
    if scope.has_position:
        fields.append(Field("position", "batch", "torch.int64"))
    return tuple(fields)


def _owned(size: str) -> str:
    """A size inside a method: names become attributes."""
    own = {name: name for name in ("heads", "channels", "groups")}  # the class's own counts, never a size of the spec
    return " ".join(f"self.{own.get(word) or attribute(word)}" if word.isidentifier() else word for word in size.split(" "))


def _shapes(scope: Scope, recurrence: spec.Recurrence, counts: dict[str, int]) -> tuple[str, ...]:
    lane = "channels" if scope.letter == "C" else "heads"
    lines = []
    for symbol in scope.inputs:
        unit = ", brought to length 1 here" if "unit" in symbol.flags else ""
        lines.append(f"{identifier(symbol.name)}: [{', '.join(['batch', 'T', *_shape(symbol.type, symbol.per, lane, counts)])}]{unit}")
    for output in recurrence.outputs:
        rank = [] if output.count is None else [text.dim(output.count, counts)]
        type_ = output.value.type
        axes = [lane, *rank, *(text.dim(size, counts) for size in (type_.rows, type_.cols) if size != ONE)]
        lines.append(f"y: [{', '.join(['batch', 'T', *axes])}]")
    return tuple(lines)
