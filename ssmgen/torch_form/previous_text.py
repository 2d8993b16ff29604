"""What a token hands to the next beside its states: values that an equation reads as `x[-1]`, and running maxima, as torch text;
and the running angles of states that turn, and the coefficients of the next token for states that look ahead.

To an operator `x[-1]` is one more input, and so are a maximum before and after a token, an angle and a coefficient. What users call
shifts x by a token, scans the maxima and sums the angles, in torch's own functions or by kernels of their own, so that gradients reach
both the values and what the first token finds. No angle is handed on: it begins at 0, and the final state is turned back. What no
token of a call reads of the one before is made of the last token alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .. import algebra
from ..backends.torch_pointwise import ATOM, Place, size_text
from ..backends.torch_text import identifier
from ..expressions import nodes
from ..identities.rows import previous_value, rows_of_write, sizes_of
from ..source import NOWHERE
from ..spec import Delayed, Expr, Ref
from .tokens import Returned, TokenFunction, TokenWriter


@dataclass(frozen=True)
class Previous:
    """One value: its name as the next token reads it, the function that gives it, and the text of its value in a call and in a step.

    is_last_alone: no token of a call reads it, so that `value` is that of the last token.
    """

    name: str
    function: TokenFunction
    has_function: bool
    is_last_alone: bool
    value: str
    step_value: str


@dataclass(frozen=True)
class Maximum:
    """A running maximum: the part of the state, its names before and after a token, the function that gives what it is made
    of, and the text of its call for many tokens and for one."""

    state: str
    after: str
    function: TokenFunction
    call: str
    step_call: str
    has_kernels: bool = False
    fused_call: str = ""  # of its kernels, where there are any


@dataclass(frozen=True)
class Angle:
    """A running angle: its name, the function that gives by how much a token turns, the text of its call for many tokens and in
    a step, and (state, text of its value turned back) for the states that turn."""

    name: str
    function: TokenFunction
    has_function: bool
    call: str
    step_call: str
    states: tuple[tuple[str, str], ...]
    has_kernels: bool = False
    fused_call: str = ""  # of its kernels, where there are any


@dataclass(frozen=True)
class Lookahead:
    """A coefficient of the next token: its name, the function that gives the token's own, the texts of its call for many tokens
    and for one and of its shape; and the states that take in what came before the first token."""

    name: str
    function: TokenFunction
    call: str
    step_call: str
    shape: str
    entries: tuple[Entry, ...]
    has_kernels: bool = False
    fused_call: str = ""  # of its kernels, where there are any


@dataclass(frozen=True)
class Entry:
    """What a state takes in before its first token, but for the coefficient."""

    state: str
    function: TokenFunction
    call: str
    step_call: str
    wide: str  # the coefficient's axes beside those of the state


def lookaheads(tokens: TokenWriter, heads: str) -> tuple[Lookahead, ...]:
    """In the order in which the walks name them; `heads` is the text of their number in a call."""
    return tuple(_lookahead(tokens, ahead, heads) for ahead in tokens.recurrence.aheads)


def _lookahead(tokens: TokenWriter, ahead, heads: str) -> Lookahead:
    name, place = identifier(ahead.name), tokens.printer.places[ahead.name]
    text = _tensor(tokens, ahead.coefficient, place)
    summary = "By how much what the token before wrote enters once more."
    function = tokens.assemble(f"_coefficient_{name}", summary, (), [], [Returned(text, "")])
    function = replace(function, is_single=True)
    many = f"{function.name}({', '.join(_given(tokens, function, ''))})"
    shape = f"*{identifier(tokens.given[0].name)}.shape[:2], {heads}"
    entries = tuple(_entry(tokens, write) for write in ahead.writes)
    return Lookahead(name, function, many, f"{function.name}({function.arguments})", shape, entries)


def _entry(tokens: TokenWriter, write) -> Entry:
    parts, sizes = [], sizes_of(tokens.spec)
    for expr, axis in ((write.key, "[..., :, None]"), (write.value, "[..., None, :]")):
        if expr is not None:
            is_vector = not expr.type.is_scalar
            rows = rows_of_write(write, previous_value(expr, tokens.recurrence), sizes)
            texts = [_tensor(tokens, row, Place(True, "h", is_vector)) for row in rows]
            parts.append((texts, axis if is_vector else "[..., None, None]"))
    rows = zip(*(texts for texts, _ in parts), strict=True)
    axes = [axis for _, axis in parts]
    text = " + ".join(r[0] if len(r) == 1 else " * ".join(f"({t}){axis}" for t, axis in zip(r, axes, strict=True)) for r in rows)
    function = tokens.assemble(f"_entering_{identifier(write.target)}", "What the token before wrote.", (), [], [Returned(text, "")])
    function = replace(function, is_single=True)
    names = {identifier(f"{s.name}[-1]") for s in tokens.delayed}
    found = [f"initial_state.{a}.to(dtype)" if a in names else a for a in function.arguments.split(", ")]
    type = tokens.spec.state(write.target).type
    wide = "" if type.is_scalar else "[..., None]" if type.is_column else "[..., None, None]"
    call, step_call = (f"{function.name}({given})" for given in (", ".join(found), function.arguments))
    return Entry(identifier(write.target), function, call, step_call, wide)


def angles(tokens: TokenWriter) -> tuple[Angle, ...]:
    """In the order in which the walks name them."""
    return tuple(_angle(tokens, turning) for turning in tokens.recurrence.turnings)


def _angle(tokens: TokenWriter, turning) -> Angle:
    name, place = identifier(turning.name), tokens.printer.places[turning.name]
    own = tokens.printer.print(turning.step)
    text = tokens.printer.adapted(own, place) if own.place.has_vector else f"{own.at(ATOM)}[..., None]"
    if not own.place.has_vector:
        text += f".repeat_interleave({size_text(turning.step.type.rows).text}, -1)"
    function = tokens.assemble(f"_turn_{name}", f"By how much a token turns {name}.", (), [], [Returned(text, "")])
    function = replace(function, is_single=True)
    is_plain = not function.lines and function.returns[0].text == function.arguments

    def call(given: list[str]) -> str:
        return given[0] if is_plain else f"{function.name}({', '.join(given)})"

    many = call(_given(tokens, function, ""))
    if not own.place.has_time:
        # the same angle at every token
        lanes = ", -1" * (bool(own.place.level) + 1)
        many = f"{many}.expand(*{identifier(tokens.given[0].name)}.shape[:2]{lanes})"
    states = tuple(
        (identifier(state), turned_back(tokens, state, side, f"total_{name}", own.place.level)) for state, side in turning.states
    )
    return Angle(name, function, not is_plain, many, call(function.arguments.split(", ")), states)


def turned_back(tokens: TokenWriter, state: str, side: str, angle: str, level: str, value: str = "") -> str:
    """The text of a state turned by an angle [B, H, M]; of a value in its place where one is given."""
    value = value or identifier(state)
    type = tokens.spec.state(state).type
    if level == "g":
        angle = f"{angle}.repeat_interleave({value}.shape[1] // {angle}.shape[-2], -2)"
    elif not level:
        angle = f"{angle}[..., None, :]"
    if type.is_column:
        return f"_turn({value}, {angle})"
    angle = f"{angle}[..., None, :]"
    return f"_turn({value}.mT, {angle}).mT.contiguous()" if side == "left" else f"_turn({value}, {angle})"


def maxima(tokens: TokenWriter) -> tuple[Maximum, ...]:
    """In order of declaration."""
    return tuple(_maximum(tokens, maximum) for maximum in tokens.recurrence.maxima)


def _maximum(tokens: TokenWriter, maximum) -> Maximum:
    name, place = identifier(maximum.state), tokens.printer.places[maximum.after]
    parts = ((maximum.shift, "added to the maximum"), (maximum.value, "held against it"))
    shown = [(algebra.const(0) if expr is None else expr, comment) for expr, comment in parts]
    texts = [Returned(_tensor(tokens, expr, place), comment) for expr, comment in shown]
    function = tokens.assemble(f"_maximum_{name}", f"What the running maximum {name} is made of.", (), [], texts)
    calls = [f"{function.name}({', '.join(_given(tokens, function, own))})" for own in ("", "own_")]
    return Maximum(identifier(maximum.before), identifier(maximum.after), function, *calls)


def previous_values(tokens: TokenWriter) -> tuple[Previous, ...]:
    """In order of declaration, each after those it reads itself."""
    return tuple(_previous(tokens, symbol) for symbol in tokens.delayed)


def _tensor(tokens: TokenWriter, expr: Expr, place: Place) -> str:
    """The text of a value at `place`; a number is a tensor as well."""
    text = tokens.printer.print(expr)
    if not text.place.is_number:
        return tokens.printer.adapted(text, place)
    first = tokens.given[0]
    return f"{tokens.printer.print(Ref(first.type, NOWHERE, first.name)).at(ATOM)}.new_full((), {text.text})"


def _previous(tokens: TokenWriter, symbol) -> Previous:
    own = tokens.printer.print(Ref(symbol.type, NOWHERE, symbol.name))
    text = tokens.printer.adapted(own, tokens.printer.places[f"{symbol.name}[-1]"])
    summary = f"What the next token reads as {symbol.name}[-1]."
    function = tokens.assemble(f"_next_{identifier(symbol.name)}", summary, (), [], [Returned(text, "")])
    function = replace(function, is_single=True)
    is_plain = not function.lines and function.returns[0].text == function.arguments

    def call(arguments: list[str]) -> str:
        return arguments[0] if is_plain else f"{function.name}({', '.join(arguments)})"

    name = identifier(f"{symbol.name}[-1]")
    inputs = {identifier(s.name) for s in tokens.given if s.kind == "input"}
    own = function.arguments.split(", ")
    is_last = symbol.name in _left_alone(tokens) and set(own) <= {identifier(s.name) for s in tokens.given}
    many = _given(tokens, function, "")
    if is_last:
        many = [re.sub(r"^(\w+)\.to", r"_at_end(\1, cu_seqlens).to", a) if own[i] in inputs else a for i, a in enumerate(many)]
    return Previous(name, function, not is_plain, is_last, call(many), call(_given(tokens, function, "own_")))


def _left_alone(tokens: TokenWriter) -> set[str]:
    """The names whose previous value the first token of a call alone takes in."""
    recurrence = tokens.recurrence
    made = [e for m in recurrence.maxima for e in (m.shift, m.value)] + [t.step for t in recurrence.turnings]
    made += [a.coefficient for a in recurrence.aheads]
    read = {n.name for e in made if e is not None for n in nodes(e) if isinstance(n, Delayed)}
    return {s.name.removesuffix("[-1]") for s in tokens.taken_in} - read


def _given(tokens: TokenWriter, function: TokenFunction, own: str) -> list[str]:
    """The arguments of a call outside the operators: inputs in the type of the arithmetic, the token before under `own`.

    What gives nothing but a size stays as it is.
    """
    given = {identifier(s.name) for s in tokens.given}
    names = {identifier(f"{s.name}[-1]") for s in tokens.delayed}
    text = " ".join(part.text for part in (*function.lines, *function.returns))
    used = {a for a in given if re.search(rf"\b{a}\b(?!\.shape)", text)}
    return [f"{a}.to(dtype)" if a in used else f"{own}{a}" if a in names else a for a in function.arguments.split(", ")]
