"""The eager reference of a recurrence, from its spec alone: what `templates/torch/reference.py.jinja` lays out.

One token at a time, every definition, update and output under the line of the spec that it says again. Nothing of the
derived algebra is used, so that agreement of the chunked form with the reference is evidence about both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .. import spec
from ..backends import eager_text, torch_text
from ..backends.eager_text import number_text
from ..backends.torch_text import identifier
from ..spec import ONE, Dim, Expr, Symbol, Type
from .token import WIDTH, Scope, TokenWriter, said, wrap


@dataclass(frozen=True)
class Variable:
    """A name in the emitted text, with its shape there."""

    name: str
    shape: str
    kind: str = "Tensor"


@dataclass(frozen=True)
class Constant:
    """A keyword argument that is a number."""

    name: str
    default: str


@dataclass(frozen=True)
class Part:
    """One tensor of the state. `zeros` allocates it; `load` and `store` go between its layout and two dimensions."""

    place: int
    name: str
    shape: str
    zeros: str
    load: str
    store: str


@dataclass(frozen=True)
class ReferencePackage:
    """Everything that `reference.py` of an emitted package says, as finished text."""

    name: str
    title: str
    notes: tuple[str, ...]  # the rest of the spec's own comment
    equations: tuple[str, ...]
    has_math: bool
    has_functional: bool
    arguments: tuple[Variable, ...]  # inputs, then learned params, in the order of the spec
    constants: tuple[Constant, ...]
    output_shape: str
    parts: tuple[Part, ...]
    lead: str  # the input whose dtype and device decide
    counts: tuple[str, ...]  # batch, length, heads
    prepare: tuple[str, ...]  # inputs and params from their layouts to two dimensions
    sizes: tuple[str, ...]
    static: tuple[str, ...]  # values that are the same for every token
    token_arguments: tuple[Variable, ...]
    token: tuple[str, ...]  # the lines of one token
    call: tuple[str, ...]  # the arguments of one token inside the loop
    steps: str  # the loop's range
    is_reversed: bool
    output_cast: str  # back to the inputs' dtype
    output: str  # from two dimensions to the layout of y
    empty_output: str  # y of no tokens
    document: tuple[str, ...]  # the arguments of one document
    helpers: tuple[str, ...]


def reference_package(recurrence: spec.Recurrence) -> ReferencePackage:
    """The context of the reference template for one recurrence.

    Raises ValueError for what has no eager form (a bidirectional recurrence, several outputs): `classify` refuses
    those before.
    """
    if recurrence.time not in ("causal", "reversed") or len(recurrence.outputs) != 1:
        raise ValueError(f"`{recurrence.name}` has no eager form")
    scope = Scope(recurrence)
    token = TokenWriter(scope).lines()
    static = _static_lines(scope, token)
    lead = _lead(scope)
    lanes = _lanes(scope)
    parts = tuple(_parts(scope))
    per_token = [s for s in recurrence.symbols if s in scope.inputs and _mentions(token, identifier(s.name))]
    fixed = [s for s in recurrence.symbols if scope.is_static(s) and _mentions(token, identifier(s.name))]
    numbers = [identifier(name) for name, _ in recurrence.constants] + [lanes]
    numbers = [name for name in numbers if _mentions(token, name)]
    indices = [name for name in ("head", "channel") if _mentions(token, name)]
    type_ = output_type(recurrence.outputs[0])
    empty = ["batch", "0", lanes, *_sizes(type_)]
    size_users = (*static, *(part.zeros for part in parts), *empty)
    outer_sizes = _size_lines(recurrence, size_users, {s.name: s.type for s in (*scope.inputs, *scope.params)})
    inner = {s.name: s.type for s in (*per_token, *fixed)} | {s.name: s.type for s in recurrence.states}
    token_arguments = [
        *(Variable(identifier(s.name), _flat(s.type)) for s in (*per_token, *fixed)),
        *(Variable(name, f"[{scope.letter}, 1, 1]") for name in indices),
        *(Variable(name, "a number", "float") for name in numbers),
        *(Variable(part.name, shape) for part, shape in zip(parts, scope.part_shapes(), strict=True)),
    ]
    token = (*_identity_lines(scope, token), *token)
    token = (*_size_lines(recurrence, token, inner), *token)
    code = "\n".join((*static, *token))
    title, notes = _comment(recurrence)
    return ReferencePackage(
        name=recurrence.name,
        title=title,
        notes=notes,
        equations=tuple(_equations(recurrence)),
        has_math=_mentions(code, "math"),
        has_functional=_mentions(code, "F"),
        arguments=tuple(Variable(identifier(s.name), _layout(scope, s)) for s in (*scope.inputs, *scope.params)),
        constants=tuple(Constant(identifier(name), number_text(value).text) for name, value in recurrence.constants),
        output_shape=_bracket(["B", "T", scope.letter, *_tail(type_)]),
        parts=parts,
        lead=identifier(lead.name),
        counts=(f"batch, length = {identifier(lead.name)}.shape[:2]", f"{lanes} = {_lane_count(scope)}"),
        prepare=tuple(_prepare(scope, s, lanes) for s in (*scope.inputs, *scope.params)),
        sizes=outer_sizes,
        static=static,
        token_arguments=tuple(token_arguments),
        token=token,
        call=(*(f"{identifier(s.name)}[:, t]" for s in per_token), *(identifier(s.name) for s in fixed), *indices, *numbers),
        steps="reversed(range(length))" if recurrence.time == "reversed" else "range(length)",
        is_reversed=recurrence.time == "reversed",
        output_cast=".to(output_dtype)" if type_.field == "real" else "",
        output=_narrow(type_),
        empty_output=", ".join(empty),
        document=(
            *(f"{identifier(s.name)}[:, start:end]" for s in scope.inputs),
            *(identifier(s.name) for s in scope.params),
            *(f"{identifier(name)}={identifier(name)}" for name, _ in recurrence.constants),
        ),
        helpers=_helpers(code),
    )


def render_reference(recurrence: spec.Recurrence) -> str:
    """The text of `reference.py`."""
    from .._environment import render

    return render("torch/reference.py.jinja", package=reference_package(recurrence))


# --- text of the spec --------------------------------------------------------------------------------------------


def docstring(text: str) -> str:
    """Text of the user that may stand inside a docstring."""
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _comment(recurrence: spec.Recurrence) -> tuple[str, tuple[str, ...]]:
    """The title line and the notes below it, from the comment above the recurrence."""
    lines = [docstring(line.strip()) for line in recurrence.comment.splitlines()] or [recurrence.name]
    return lines[0], tuple(line for line in lines[1:] if line)


def _equations(recurrence: spec.Recurrence) -> Iterable[str]:
    source = recurrence.source
    rows: list[tuple[str, Expr]] = []
    for item in recurrence.update:
        if isinstance(item, spec.MicroLoop):
            rows += [(f"for {item.index} in 1..{item.count}: {a.state}'", a.value) for a in item.body]
        else:
            rows.append((f"{item.state}'", item.value))
    rows += [(f"d{d.state}/dt", d.value) for d in recurrence.dynamics]
    rows += [(o.name if o.index is None else f"{o.name}[{o.index}]", o.value) for o in recurrence.outputs]
    return (line for left, value in rows if (text := said(source, value)) for line in wrap(docstring(f"{left} = {text}"), WIDTH - 4))


# --- layouts -----------------------------------------------------------------------------------------------------


def output_type(output: spec.Output) -> Type:
    """The type of `y`, with the rows of `y[r]` in front."""
    type_ = output.value.type
    if output.count is None:
        return type_
    width = type_.rows if type_.cols == ONE else type_.cols
    return Type(output.count, width, type_.field)


def _sizes(type_: Type) -> list[str]:
    return [eager_text.count_text(size) for size in (type_.rows, type_.cols) if size != ONE]


def _tail(type_: Type) -> list[str]:
    return [str(size) for size in (type_.rows, type_.cols) if size != ONE]


def _bracket(sizes: Iterable[str]) -> str:
    return f"[{', '.join(sizes)}]"


def _flat(type_: Type) -> str:
    """The two dimensions of a value inside the loop."""
    return _bracket(str(size) for size in (type_.rows, type_.cols))


def _narrow(type_: Type) -> str:
    """From two dimensions to a layout, which leaves out sizes of one."""
    if type_.is_scalar:
        return "[..., 0, 0]"
    return "[..., 0]" if type_.cols == ONE else "[..., 0, :]" if type_.rows == ONE else ""


def _widen(type_: Type) -> str:
    """From a layout to two dimensions."""
    if type_.is_scalar:
        return "[..., None, None]"
    return "[..., None]" if type_.cols == ONE else "[..., None, :]" if type_.rows == ONE else ""


def _layout(scope: Scope, symbol: Symbol) -> str:
    lane = {"group": ["G"], "layer": []}.get(symbol.per, [scope.letter])
    lead = ["B", "T", *lane] if symbol.kind != "param" else lane
    note = ", complex" if symbol.type.field == "complex" else ""
    return (_bracket([*lead, *_tail(symbol.type)]) if lead or not symbol.type.is_scalar else "a number") + note


def _prepare(scope: Scope, symbol: Symbol, lanes: str) -> str:
    name, axis = identifier(symbol.name), 0 if symbol.kind == "param" else 2
    text = f"{name}.to({'dtype' if symbol.type.field == 'real' else 'dtype.to_complex()'})"
    if symbol.per == "group":
        text += f".repeat_interleave({lanes} // {name}.shape[{axis}], dim={axis})"
    widen = _widen(symbol.type)
    if symbol.per == "layer" and symbol.kind != "param":
        widen = f"[:, :, None{widen.replace('[...', ', ...').rstrip(']') if widen else ''}]"
    return f"{name} = {text}{widen}"


def _lanes(scope: Scope) -> str:
    return "channels" if scope.letter == "C" else "heads"


def _lane_count(scope: Scope) -> str:
    for per in (("head", "channel"), ("group",)):
        for symbol in (*scope.inputs, *scope.params):
            if symbol.per in per:
                return f"{identifier(symbol.name)}.shape[{0 if symbol.kind == 'param' else 2}]"
    return "1"


def _parts(scope: Scope) -> Iterable[Part]:
    lanes = _lanes(scope)
    place = -1
    for place, (name, type_, per) in enumerate(scope.parts()):
        lead = [] if per == "layer" else [lanes]
        dtype = "dtype" if type_.field == "real" else "dtype.to_complex()"
        sizes = ", ".join(["batch", *lead, *_sizes(type_)])
        note = ", complex" if type_.field == "complex" else ""
        shape = _bracket(["B", *([] if per == "layer" else [scope.letter]), *_tail(type_)]) + note
        load, store = f".to({dtype}){_widen(type_)}", _narrow(type_)
        if per == "layer":
            load, store = f".to({dtype})[:, None]{_widen(type_)}", f"[:, 0]{store}"
        yield Part(place, name, shape, f"torch.zeros({sizes}, dtype={dtype}, device=device)", load, store)
    if scope.has_position:
        zeros = "torch.zeros(batch, dtype=torch.int64, device=device)"
        yield Part(place + 1, "position", "[B], tokens so far", zeros, ".to(dtype)[:, None, None, None]", "[:, 0, 0, 0].to(torch.int64)")


def _lead(scope: Scope) -> Symbol:
    """The input whose dtype `y` has: the first that looks like `y`, else the first that is no scalar, else the first."""
    reals = [s for s in scope.inputs if s.type.field == "real"]
    like = [s for s in reals if s.type == scope.spec.outputs[0].value.type]
    return [*like, *(s for s in reals if not s.type.is_scalar), *reals][0]


# --- lines -------------------------------------------------------------------------------------------------------


def _mentions(code: str | Iterable[str], name: str) -> bool:
    text = code if isinstance(code, str) else "\n".join(code)
    text = "\n".join(line.split("  #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) is not None


def _static_lines(scope: Scope, token: tuple[str, ...]) -> tuple[str, ...]:
    """Fixed params and lets over params, and the built-in indices, where something uses them."""
    symbols = [s for s in scope.spec.symbols if s.definition is not None and scope.is_static(s)]
    needed: list[tuple[str, ...]] = []
    used = list(token)
    for symbol in reversed(symbols):
        if _mentions(used, identifier(symbol.name)):
            lines = scope.definition_lines(symbol)
            needed.insert(0, lines)
            used += lines
    indices = [
        f"{name} = torch.arange({name}s, dtype=dtype, device=device)[:, None, None]"
        for name in ("head", "channel")
        if _mentions(used, name)
    ]
    return (*indices, *(line for lines in needed for line in lines))


def _size_lines(recurrence: spec.Recurrence, code: Iterable[str], types: dict[str, Type]) -> tuple[str, ...]:
    """`N = q.shape[-2]` for every size that the code mentions; the default where no tensor shows it."""
    code, lines = tuple(code), []
    for name, default in (*recurrence.dims, *recurrence.counts):
        if _mentions(code, identifier(name)):
            lines.append(f"{identifier(name)} = {_size_source(name, types) or default}")
    return tuple(lines)


def _size_source(name: str, types: dict[str, Type]) -> str | None:
    for exact in (True, False):
        for value, type_ in types.items():
            for axis, size in ((-2, type_.rows), (-1, type_.cols)):
                text = f"{identifier(value)}.shape[{axis}]"
                if size == Dim(terms=((name, size.terms[0][1]),) if size.terms else ()) and size.terms:
                    scale = 1 / size.terms[0][1]
                    if scale == 1:
                        return text
                    if not exact and scale.denominator == 1:
                        return f"{scale} * {text}"
    return None


def _identity_lines(scope: Scope, token: tuple[str, ...]) -> tuple[str, ...]:
    first = scope.spec.states[0]
    like = identifier(first.name)
    # a real matrix also beside a complex state
    dtype = f"{like}.dtype.to_real()" if first.type.field == "complex" else f"{like}.dtype"
    return tuple(
        f"{name} = torch.eye({eager_text.count_text(size)}, dtype={dtype}, device={like}.device)"
        for size, name in scope.names.identities.items()
        if _mentions(token, name)
    )


def _helpers(code: str) -> tuple[str, ...]:
    table = {**torch_text.HELPERS, **eager_text.HELPERS}
    return tuple(text for name, text in table.items() if _mentions(code, name))
