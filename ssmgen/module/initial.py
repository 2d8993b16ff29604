"""Initial values of learned parameters as torch text: one statement fills one parameter in place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .. import spec
from ..backends.eager_text import Names, text_of
from ..backends.torch_text import called_in
from ..expressions import is_imaginary_unit, nodes
from . import text

SAMPLES = ("uniform", "loguniform", "normal", "linspace", "zeros", "ones")
MODES = ("legs_frequencies", "legs_low_rank", "legs_modes", "legs_reads")
NUMBER, DRAW = "size ", "draw "
"""What the names of sizes and draws begin with: no name of a spec holds a space."""


@dataclass(frozen=True)
class Target:
    """A parameter that is about to be filled.

    name: its text, `self.A_log`. shape: texts of its axes. lead: the index that runs over its first axis ('head',
    'channel'), if one does. numbers: names of the spec that are Python numbers here, with their text. tensors: other
    parameters.
    """

    name: str
    shape: tuple[str, ...]
    lead: str | None
    is_complex: bool
    numbers: Mapping[str, str]
    tensors: Mapping[str, str] = field(default_factory=dict)


LONG = 128
"""Characters from which a statement becomes two."""

INDENT = " " * 8
"""Where statements of `reset_parameters` stand."""


def fill(target: Target, init: spec.Expr | None) -> str:
    """The statement that gives a parameter its initial value; without one, zeros."""
    if init is None:
        return f"{target.name}.zero_()"
    if isinstance(init, spec.Apply) and init.function in SAMPLES and not target.is_complex:
        simple = _in_place(target, init)
        if simple:
            return simple
    draws: dict[str, str] = {}
    if target.is_complex and isinstance(init, spec.Add) and len(init.terms) == 2 and _is_imaginary(init.terms[1]):
        # Real and imaginary parts drawn one by one.
        real, imaginary = (_tensor(target, part, draws) for part in (init.terms[0], init.terms[1].right))
        line = f"{target.name}.copy_(torch.complex({real}, {imaginary}))"
        # what is computed in float64 is no part of a complex number beside float32
        if len(line) < LONG and not any(isinstance(n, spec.Apply) and n.function in MODES for n in nodes(init)):
            return line
        return f"{target.name}.real.copy_({real})\n{INDENT}{target.name}.imag.copy_({imaginary})"
    value = _text(target, init, draws)
    return f"{target.name}.fill_({value.text})" if value.is_number else f"{target.name}.copy_({value.text})"


def helpers(init: spec.Expr | None) -> tuple[str, ...]:
    """The names of the helper functions that an initial value calls."""
    called = [f"_{node.function}(" for node in nodes(init) if isinstance(node, spec.Apply)] if init is not None else []
    return called_in(" ".join(called))


def words(init: spec.Expr | None, source) -> str:
    """`init ...` as the spec writes it; nothing where the compiler chose the value."""
    if init is None or not re.search(r"\binit(\s+re)?\s*$", source.text[: init.span.start]):
        return ""
    return f"init {text.quoted(source, init.span)}"


def _in_place(target: Target, init: spec.Apply) -> str:
    numbers = ", ".join(_number(target, argument) for argument in init.args)
    return {
        "zeros": f"{target.name}.zero_()",
        "ones": f"{target.name}.fill_(1)",
        "uniform": f"{target.name}.uniform_({numbers})",
        "normal": f"{target.name}.normal_({numbers})",
    }.get(init.function, "")


def _text(target: Target, init: spec.Expr, draws: dict[str, str]):
    body = _named(init, target, draws)
    values = dict(target.numbers) | dict(target.tensors) | draws | _indices(target)
    return text_of(body, Names(values, frozenset(target.numbers) | {name for name in draws if name.startswith(NUMBER)}))


def _tensor(target: Target, init: spec.Expr, draws: dict[str, str]) -> str:
    value = _text(target, init, draws)
    return f"torch.full_like({target.name}.real, {value.text})" if value.is_number else value.text


def _indices(target: Target) -> dict[str, str]:
    """`n` over the entries of the last axis, `head` or `channel` over the first, both from 0."""
    found = {}
    if target.shape:
        found["n"] = f"torch.arange({target.shape[-1]}, device={target.name}.device)"
    if target.lead is not None:
        behind = "".join(", None" for _ in target.shape[1:])
        first = f"torch.arange({target.shape[0]}, device={target.name}.device)"
        found[target.lead] = f"{first}[:{behind}]" if behind else first
    return {name: value for name, value in found.items() if name not in target.numbers}


def _named(expr: spec.Expr, target: Target, draws: dict[str, str]) -> spec.Expr:
    """`expr` with every draw and every size replaced by a name; their texts go to `draws`."""
    if isinstance(expr, spec.SizeOf) or (isinstance(expr, spec.Apply) and expr.function in (*SAMPLES, *MODES)):
        is_size = isinstance(expr, spec.SizeOf)
        name = f"{NUMBER if is_size else DRAW}{len(draws)}"
        draws[name] = _size(target, expr) if is_size else _draw(expr, target)
        return spec.Ref(expr.type, expr.span, name)
    changes = {}
    for key, value in vars(expr).items():
        if isinstance(value, spec.Expr):
            changes[key] = _named(value, target, draws)
        elif isinstance(value, tuple) and value and isinstance(value[0], spec.Expr):
            changes[key] = tuple(_named(item, target, draws) for item in value)
    return replace(expr, **changes) if changes else expr


def _draw(expr: spec.Apply, target: Target) -> str:
    if expr.function in MODES:
        return _of_modes(expr, target)
    like = f"{target.name}.real" if target.is_complex else target.name
    numbers = [_number(target, argument) for argument in expr.args]
    if expr.function == "loguniform":
        return f"torch.empty_like({like}).uniform_(math.log({numbers[0]}), math.log({numbers[1]})).exp_()"
    if expr.function == "linspace":
        return f"torch.linspace({numbers[0]}, {numbers[1]}, {target.shape[-1] if target.shape else 1}, device={target.name}.device)"
    if expr.function in ("zeros", "ones"):
        return f"torch.{expr.function}_like({like})"
    return f"torch.empty_like({like}).{expr.function}_({', '.join(numbers)})"


def _of_modes(expr: spec.Apply, target: Target) -> str:
    """What the modes of HiPPO-LegS are, and real matrices along them: those are drawn with two entries a mode."""
    device, blocks = f"{target.name}.device", "1"
    if expr.function == "legs_low_rank":
        return f"_legs_low_rank({target.shape[-1]}, {device})"
    if expr.args and expr.function == "legs_frequencies" or len(expr.args) > 1:
        blocks = _number(target, expr.args[-1])
    if expr.function == "legs_frequencies":
        return f"_legs_frequencies({target.shape[-1]}, {blocks}, {device})"
    axis = -2 if expr.function == "legs_modes" else -1
    drawn = replace(target, name=f"torch.cat([{target.name}.real] * 2, {axis})", is_complex=False)
    return f"_{expr.function}({_draw(expr.args[0], drawn)}, {blocks})"


def _size(target: Target, expr: spec.SizeOf) -> str:
    parts = [f"{text.number(c)} * {target.numbers[n]}" if c != 1 else target.numbers[n] for n, c in expr.size.terms]
    if expr.size.constant or not parts:
        parts.append(text.number(expr.size.constant))
    # In an expression a sum or a product of its own needs parentheses.
    return parts[0] if len(parts) == 1 and " " not in parts[0] else f"({' + '.join(parts)})"


def _number(target: Target, expr: spec.Expr) -> str:
    return _text(target, expr, {}).text


def _is_imaginary(expr: spec.Expr) -> bool:
    return isinstance(expr, spec.Mul) and is_imaginary_unit(expr.left)
