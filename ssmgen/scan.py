"""Scan programs: one token of a recurrence whose state entries run by themselves, and its gradient, before any text.

    S' = f(S, token)      affine in S, entry by entry: S' = a * S + b, of states that feed each other S' = sum of a_i * S_i + b
    y  = g(S, S', token)

A program is straight lines of bindings over names: arguments of the operator (`x[-1]` is one), a state before the token `S`
and after it `S'`, the gradient `D S` that reaches a state from later tokens, and that of the output, `d y`, or `d y 1`, `d y 2` of its
rows. A back end prints the lines as batched tensor code or as the body of a loop over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from .expressions import nodes
from .response import Convolution
from .spec import Expr, Ref, Type


@dataclass(frozen=True)
class Binding:
    """`name = value`."""

    name: str
    value: Expr


@dataclass(frozen=True)
class ScanProgram:
    """One token, forwards and backwards.

    statics: what no token changes, made of learned parameters. token: what a token makes of its inputs. update: the states after
    the token, `S'` last of each. carried: what is left of the state, without what the token writes: `kept S'` from `kept S`.
    gradient: lines from `d y` and `D S` down to what the token made. adjoint: what reaches each state before the token.
    pairs: the states, by number, that are the real and the imaginary part of one: what is left of it is a complex multiple.
    arguments: the gradients of per-token arguments. sums: what a token adds to the gradient of each static or parameter.
    static_gradient, parameters: the gradients of statics and parameters from those sums, `sum p`.
    mixes: entries of a state read each other.
    blocks: all states by number, those that feed each other together: what is left of such a group is a matrix of factors, state by
    state, for every entry. Empty where none do, and where entries read each other.
    convolution: what whole sequences run as instead, where they do; convolution_lines: what a token makes for it.
    """

    states: tuple[tuple[str, Type], ...]
    statics: tuple[Binding, ...]
    token: tuple[Binding, ...]
    update: tuple[Binding, ...]
    carried: tuple[Binding, ...]
    outputs: tuple[Binding, ...]  # one, or one a row
    gradient: tuple[Binding, ...]
    adjoint: tuple[Binding, ...]
    arguments: tuple[Binding, ...]
    sums: tuple[Binding, ...]
    static_gradient: tuple[Binding, ...]
    parameters: tuple[Binding, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    mixes: bool = False
    blocks: tuple[tuple[int, ...], ...] = ()
    convolution: Convolution | None = None
    convolution_lines: tuple[Binding, ...] = ()

    def __str__(self) -> str:
        from .scan_text import scan_text

        return scan_text(self)

    def verify(self) -> None:
        """Raise AssertionError unless every name is bound once and after what it is made of."""
        bound: set[str] = set()
        for binding in (*self.statics, *self.token, *self.update, *self.carried, *self.outputs, *self.gradient, *self.static_gradient):
            assert binding.name not in bound, binding.name
            bound.add(binding.name)
        known: set[str] = set()
        for binding in (*self.statics, *self.token, *self.update, *self.carried, *self.outputs, *self.gradient, *self.adjoint):
            used = {n.name for n in nodes(binding.value) if isinstance(n, Ref)} & bound
            assert used <= known, (binding.name, used - known)
            known.add(binding.name)


def seeds(program: ScanProgram) -> list[str]:
    """The names of the gradients of the outputs."""
    return output_gradients(len(program.outputs))


def output_gradients(count: int) -> list[str]:
    """The names of the gradients of so many outputs."""
    return ["d y"] if count == 1 else [f"d y {number}" for number in range(1, count + 1)]


def needed(bindings: tuple[Binding, ...], roots: list[Expr]) -> tuple[Binding, ...]:
    """The bindings that lead to `roots`, in order."""
    wanted = {n.name for root in roots for n in nodes(root) if isinstance(n, Ref)}
    kept: list[Binding] = []
    for binding in reversed(bindings):
        if binding.name in wanted:
            kept.insert(0, binding)
            wanted |= {n.name for n in nodes(binding.value) if isinstance(n, Ref)}
    return tuple(kept)
