"""Token-wise functions as text: their lines, what they return, and whose gradient that is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """`target = text`, under a comment (empty: none)."""

    comment: str
    target: str
    text: str


@dataclass(frozen=True)
class Returned:
    """One value of a return, with what it is (empty: the value says it)."""

    text: str
    comment: str


@dataclass(frozen=True)
class TokenFunction:
    """A token-wise function. `gives` names the arguments of the operator whose gradient it returns, in order."""

    name: str
    arguments: str
    summary: str
    lines: tuple[Line, ...]
    returns: tuple[Returned, ...]
    gives: tuple[str, ...] = ()
    is_single: bool = False  # one value, returned bare
