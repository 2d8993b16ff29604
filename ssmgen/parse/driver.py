"""The LALR(1) automaton: tokens to a tree, without recursion, going on at the next statement after an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..source import Span
from .layout import ITEMS, NEWLINE, RESERVED, STATEMENTS
from .tables import END, Tables
from .tokens import BROKEN, MAX_ERRORS, Token

STARTS = tuple(word for word in STATEMENTS if word in RESERVED)


class Spliced(list):
    """The values of a rule without a node of its own: they become its parent's."""


@dataclass(frozen=True)
class SyntaxFault:
    """A token that no rule takes. `before` is the token that came last, `line` the first one of its line, `expected` what
    could have stood there."""

    token: Token
    before: Token | None
    line: Token
    expected: tuple[str, ...]


class Automaton:
    """States and values of one parse."""

    def __init__(self, tables: Tables, build: Callable[[str, list, Span], Any]):
        self.tables = tables
        self.build = build
        self.states = [tables.start]
        self.values: list[tuple[Any, Span]] = []

    def takes(self, kind: str) -> bool:
        """Whether `kind` may follow: its reductions followed on the states alone."""
        left, pushed = len(self.states), []  # the states are the first `left` of ours, then `pushed`
        while True:
            action = self.tables.states[pushed[-1] if pushed else self.states[left - 1]].get(kind, 0)
            if action >= 0:
                return action > 0
            production = self.tables.productions[-action - 1]
            popped = min(production.length, len(pushed))
            del pushed[len(pushed) - popped :]
            left -= production.length - popped
            pushed.append(self.tables.states[pushed[-1] if pushed else self.states[left - 1]][production.origin] - 1)
            if kind == END and pushed[-1] == self.tables.accept:
                return True

    def expected(self) -> tuple[str, ...]:
        """Every terminal that may follow, sorted."""
        return tuple(sorted(kind for kind in self.tables.states[self.states[-1]] if not _is_rule(kind) and self.takes(kind)))

    def feed(self, kind: str, token: Token) -> None:
        """Reduce and shift one token that `takes` has allowed."""
        while True:
            action = self.tables.states[self.states[-1]].get(kind, 0)
            if action >= 0:
                break
            self._reduce(self.tables.productions[-action - 1], token)
            if kind == END and self.states[-1] == self.tables.accept:
                return
        self.states.append(action - 1)
        self.values.append((token, token.span))

    def _reduce(self, production, token: Token) -> None:
        length = production.length
        parts = self.values[len(self.values) - length :]
        span = Span(parts[0][1].start, parts[-1][1].end) if parts else Span(token.span.start, token.span.start)
        kept = [parts[i][0] for i in production.kept]
        if production.is_inlined:
            value: Any = kept[0] if kept and type(kept[0]) is Spliced else Spliced(kept[:1])
            for child in kept[1:]:
                value.extend(child) if type(child) is Spliced else value.append(child)
        else:
            children: list = []
            for child in kept:
                children.extend(child) if type(child) is Spliced else children.append(child)
            value = children[0] if production.is_transparent and len(children) == 1 else self.build(production.name, children, span)
        if length:
            del self.states[-length:]
            del self.values[-length:]
        self.states.append(self.tables.states[self.states[-1]][production.origin] - 1)
        self.values.append((value, span))


def _is_rule(symbol: str) -> bool:
    return symbol[0] == "<" and len(symbol) > 2


def run(tokens: list[Token], end: Token, tables: Tables, build: Callable[[str, list, Span], Any]) -> tuple[Any, list[SyntaxFault]]:
    """The value of the whole text, and the tokens that did not fit (at most MAX_ERRORS)."""
    automaton = Automaton(tables, build)
    faults: list[SyntaxFault] = []
    item = statement = ([*automaton.states], [*automaton.values])  # where to go on after a fault
    before: Token | None = None
    line = end
    depth, index = 0, 0
    tokens = [*tokens, end]
    while index < len(tokens):
        token = tokens[index]
        line = token if token.is_first else line
        if depth == 0 and (before is None or before.kind == "}"):
            item = ([*automaton.states], [*automaton.values])
        kind = next((k for k in token.kinds or (token.kind,) if automaton.takes(k)), None)
        if kind is None:
            resumed, depth_after = _skip(tokens, index, depth, has_moved=before is not None)
            if not any(each.kind == BROKEN for each in tokens[index : resumed + 1]):  # a bracket was reported already
                faults.append(SyntaxFault(token, before, line, automaton.expected()))
            if len(faults) >= MAX_ERRORS:
                break
            states, values = statement if depth_after else item
            automaton.states, automaton.values = [*states], [*values]
            index, depth, before = resumed, depth_after, None
            continue
        automaton.feed(kind, token)
        depth += (kind == "{") - (kind == "}")
        if depth == 1 and kind in ("{", NEWLINE):
            statement = ([*automaton.states], [*automaton.values])
        before = token
        index += 1
    return (None if faults else automaton.values[0][0]), faults


def _skip(tokens: list[Token], index: int, depth: int, has_moved: bool) -> tuple[int, int]:
    """Where to go on after a fault at `index`, and the depth of braces there: the end of the statement (its `_NEWLINE` or the
    item's `}`), a line that begins with a statement's keyword, or the next item. `has_moved` is False where reading went on last:
    the token there cannot be a place to go on again."""
    first, inside = index if has_moved else index + 1, depth > 0
    while index < len(tokens) - 1:
        kind = tokens[index].kind
        if inside and depth == 1 and kind in (NEWLINE, "}"):
            return index, depth
        if inside and depth == 1 and index >= first and tokens[index].is_first and tokens[index].text in STARTS:
            return index, depth
        if depth == 0 and index >= first and tokens[index].is_first and tokens[index].text in ITEMS:
            return index, depth
        depth = max(depth + (kind == "{") - (kind == "}"), 0)
        index += 1
    return max(index, first), 0
