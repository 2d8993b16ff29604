"""Scan programs as text: one token, as equations."""

from __future__ import annotations

from .expressions import nodes
from .scan import Binding, ScanProgram, needed
from .spec import Ref
from .spec_text import expr_text


def scan_text(program: ScanProgram) -> str:
    """Forward and gradient, line by line."""
    parts = (
        ("for every token the same", program.statics),
        ("a token", (*program.token, *program.update, *program.outputs)),
        ("what is left of a state", program.carried),
        ("gradient", (*program.gradient, *program.adjoint, *program.arguments, *program.sums)),
        ("gradient of what is the same for every token", (*program.static_gradient, *program.parameters)),
    )
    return "\n".join(line for title, bindings in parts if bindings for line in (title, *(f"  {text}" for text in _lines(bindings))))


def forward_lines(program: ScanProgram) -> list[str]:
    """What a program of a back end runs for every token."""
    return _lines((*program.statics, *program.token, *program.update, *program.outputs))


def gradient_lines(program: ScanProgram) -> list[str]:
    """How the gradient goes from token to token, from the right."""
    roots = [binding.value for binding in program.adjoint]
    return _lines((*needed(program.gradient, roots), *program.adjoint))


def _lines(bindings: tuple[Binding, ...]) -> list[str]:
    return [f"{word(binding.name)} = {value_text(binding)}" for binding in bindings]


def value_text(binding: Binding) -> str:
    """The value of a binding for people."""
    text = expr_text(binding.value)
    made = {n.name for n in nodes(binding.value) if isinstance(n, Ref) and " " in n.name}
    for name in sorted(made, key=len, reverse=True):
        text = text.replace(name, word(name))
    return text


def word(name: str) -> str:
    """The name of a binding for people: `D S` is D_S, `d h'` is d_h'."""
    return name.removeprefix("out ").replace(" ", "_")
