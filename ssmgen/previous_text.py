"""What a token hands to the next beside its states: values that an equation reads as `x[-1]`, and running maxima, as torch text.

To an operator `x[-1]` is one more input, and so is a maximum before and after a token. What users call shifts x by a token
and scans the maxima, in torch's own functions, so that gradients reach both the values and what the first token finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from .backends.torch_text import identifier
from .tokens import TokenFunction, TokenWriter


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
    function = tokens.maximum(maximum)
    calls = [f"{function.name}({', '.join(_given(tokens, function, own))})" for own in ("", "own_")]
    return Maximum(identifier(maximum.before), identifier(maximum.after), function, *calls)


def previous_values(tokens: TokenWriter) -> tuple[Previous, ...]:
    """In order of declaration, each after those it reads itself."""
    return tuple(_previous(tokens, symbol) for symbol in tokens.delayed)


def _previous(tokens: TokenWriter, symbol) -> Previous:
    function = tokens.previous(symbol)
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
