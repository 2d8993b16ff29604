"""Sizes and states of op.py as text: what a shape is made of, what stands before the first token, and both parts of what is complex."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from ..backends.torch_pointwise import size_text
from ..backends.torch_text import identifier
from ..plan import Plan
from ..recurrence import Pair
from ..spec import Recurrence as Spec
from ..spec import State, Symbol, Type
from .tokens import Line, TokenWriter


class Shapes:
    """A recurrence's sizes and states, read off its arguments."""

    plan: Plan
    spec: Spec
    tokens: TokenWriter
    inputs: list[Symbol]
    states: list[str]
    pairs: tuple[Pair, ...]
    sizes: Mapping[str, str]
    output: Type

    def _start(self) -> list[Line]:
        """Zeros for every state."""
        first = identifier(self.inputs[0].name)
        tails = ["".join(f", {self._dim(d)}" for d in tail(state)) for state in self.spec.states]
        texts = [f"{first}.new_zeros(sequences, {self._heads()}{end}, dtype=dtype)" for end in tails]
        return [Line("", state, text) for state, text in zip(self.states, texts, strict=True)]

    def _zero_states(self) -> list[Line]:
        first = identifier(self.inputs[0].name)
        parts = {name: pair.name for pair in self.tokens.recurrence.pairs for name in (pair.re, pair.im)}
        names = dict.fromkeys(identifier(parts.get(s.name, s.name)) for s in self.spec.states)
        lines = [Line("", name, "None") for name in names]
        whole, maxima = self.tokens.recurrence.written, self.tokens.recurrence.maxima
        held = [(f"{s.name}[-1]", s) for s in self.tokens.delayed] + [(m.state, whole.state(m.state)) for m in maxima]
        for name, symbol in held:
            lanes = "" if symbol.per == "layer" else f", {self._heads()}"
            shape = [] if symbol.type.is_scalar else [symbol.type.rows]
            shape += [] if symbol.type.is_scalar or symbol.type.is_column else [symbol.type.cols]
            end = "".join(f", {self._dim(d)}" for d in shape)
            lines.append(Line("", identifier(name), f"{first}.new_zeros(sequences{lanes}{end}, dtype=dtype)"))
        if self.plan.uses_position:
            lines.append(Line("", "position", f"{first}.new_zeros(sequences, dtype=torch.int64)"))
        return lines

    def _dim(self, size) -> str:
        text = size_text(size).text
        for name in sorted(self.sizes, key=len, reverse=True):
            text = re.sub(rf"\b{name}\b", self.sizes[name], text)
        return text

    def _width_text(self, type: Type) -> str:
        return "1" if type.is_scalar else self._dim(type.cols if type.is_row else type.rows)

    def _output_tail(self) -> str:
        rank = f", {len(self.plan.classified.outputs)}" if self.tokens.has_rows else ""
        return rank if self.output.is_scalar else f"{rank}, {self._width_text(self.output)}"

    def _heads(self) -> str:
        for symbol in self.inputs:
            if symbol.per in ("head", "channel"):
                return f"{identifier(symbol.name)}.shape[2]"
        for symbol in self.tokens.given:
            if symbol.kind == "param" and symbol.per in ("head", "channel"):
                return f"{identifier(symbol.name)}.shape[0]"
        return self._groups()

    def _groups(self) -> str:
        for symbol in self.inputs:
            if symbol.per == "group":
                return f"{identifier(symbol.name)}.shape[2]"
        return "1"

    # --- complex names, which operators take as pairs ---

    def _public(self) -> list[Symbol]:
        """The arguments of what users call: in place of both parts the complex value."""
        recurrence = self.tokens.recurrence
        parts = {name: pair.name for pair in self.pairs for name in (pair.re, pair.im)}
        whole = {name: rows.name for rows in recurrence.rows for name in rows.rows}
        own = {s.name: s for s in self.tokens.given}
        names = dict.fromkeys(whole.get(name, name) for name in (parts.get(s, s) for s in own))
        return [own[name] if name in own else recurrence.written.symbol(name) for name in names]

    def _parts(self, state: str = "") -> list[Line]:
        """The parts of the states that `state` holds; of complex arguments without one."""
        names = {s.name for s in (self.spec.states if state else self.tokens.given)}
        lines = []
        for rows in () if state else self.tokens.recurrence.rows:
            axis = -1 if self.tokens.recurrence.written.symbol(rows.name).type.is_column else -2
            lines.append(
                Line("", f"{', '.join(map(identifier, rows.rows))}{',' * (len(rows.rows) == 1)}", f"{identifier(rows.name)}.unbind({axis})")
            )
        for pair in (p for p in self.pairs if p.re in names):
            name, target = identifier(pair.name), f"{identifier(pair.re)}, {identifier(pair.im)}"
            lines.append(Line("", target, f"_parts({state}.{name})" if state else f"{name}.real, {name}.imag"))
        return lines

    def _held(self, state: str) -> list[str]:
        """The states of a call, out of the tuple that holds them."""
        parts = {identifier(name) for pair in self.pairs for name in (pair.re, pair.im)}
        return [s if s in parts else f"{state}.{s}" for s in self.states]

    def _results(self) -> list[str]:
        parts = {identifier(pair.re): pair for pair in self.pairs}
        second = {identifier(pair.im) for pair in self.pairs}
        return [
            f"{identifier(parts[s].name)}=torch.complex({s}, {identifier(parts[s].im)})" if s in parts else f"{s}={s}"
            for s in self.states
            if s not in second
        ]


def tail(state: State) -> list:
    """The sizes of a state behind its head axis."""
    if state.type.is_scalar:
        return []
    return [state.type.rows] if state.type.is_column else [state.type.rows, state.type.cols]


def alike(tensor: str) -> str:
    """The text of an empty tensor like another, contiguous."""
    return f"torch.empty_like({tensor}, memory_format=torch.contiguous_format)"


def number(value: Fraction) -> str:
    """The text of a float."""
    return repr(float(value))


def unasked(tensor: str, dtype: str = "") -> str:
    """The text of a gradient that nothing asks for: zeros that take no memory."""
    return f"{tensor}.new_zeros((){f', dtype={dtype}' if dtype else ''}).expand_as({tensor})"


def layout(symbol: Symbol) -> str:
    """The axes of an argument for people."""
    axes = ["B", "T"] if symbol.kind == "input" else []
    axes += {"head": ["H"], "channel": ["C"], "group": ["G"]}.get(symbol.per, [])
    axes += [] if symbol.type.is_scalar else [str(symbol.type.rows)]
    axes += [] if symbol.type.is_scalar or symbol.type.is_column else [str(symbol.type.cols)]
    return f"[{', '.join(axes)}]"
