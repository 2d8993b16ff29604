"""What a token hands to the next beside its states: values that an equation reads as `x[-1]`, and running maxima, as torch text.

To an operator `x[-1]` is one more input, and so is a maximum before and after a token. What users call shifts x by a token
and scans the maxima, in torch's own functions, so that gradients reach both the values and what the first token finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import algebra
from .backends.torch_pointwise import ATOM, Place
from .backends.torch_text import identifier
from .source import NOWHERE
from .spec import Expr, Ref
from .tokens import Returned, TokenFunction, TokenWriter


@dataclass(frozen=True)
class Previous:
    """One value: its name as the next token reads it, the function that gives it, and the text of its value in a call and in a step."""

    name: str
    function: TokenFunction
    has_function: bool
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

    def call(own: str) -> str:
        arguments = _given(tokens, function, own)
        return arguments[0] if is_plain else f"{function.name}({', '.join(arguments)})"

    return Previous(identifier(f"{symbol.name}[-1]"), function, not is_plain, call(""), call("own_"))


def _given(tokens: TokenWriter, function: TokenFunction, own: str) -> list[str]:
    """The arguments of a call outside the operators: inputs in the type of the arithmetic, the token before under `own`."""
    given = {identifier(s.name) for s in tokens.given}
    names = {identifier(f"{s.name}[-1]") for s in tokens.delayed}
    return [f"{a}.to(dtype)" if a in given else f"{own}{a}" if a in names else a for a in function.arguments.split(", ")]
