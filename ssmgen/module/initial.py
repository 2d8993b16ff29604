"""Initial values of learned parameters as torch text: each line fills one parameter in place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from .. import spec
from ..backends.eager_text import Names, Text, text_of
from ..backends.torch_text import HELPERS
from ..expressions import nodes
from . import text

SAMPLES = ("uniform", "loguniform", "normal", "linspace", "zeros", "ones")


@dataclass(frozen=True)
class Axes:
    """What an initial value may vary over: index name -> (text of the count, axes behind it)."""

    indices: tuple[tuple[str, str, int], ...]


def fill(target: str, init: spec.Expr | None, last: str, axes: Axes) -> str:
    """The statement that gives `target` its initial value; `last` is the size of its last axis."""
    if init is None:
        return f"{target}.zero_()"
    if isinstance(init, spec.Const):
        return f"{target}.fill_({text.number(init.value)})"
    if isinstance(init, spec.Apply) and init.function in SAMPLES:
        simple = _in_place(target, init)
        if simple:
            return simple
    samples: dict[str, str] = {}
    body = _name_samples(init, target, last, samples)
    values = dict(samples) | {name: _index(target, count, behind) for name, count, behind in axes.indices}
    values |= {f"{name}s": count for name, count, _ in axes.indices}
    numbers = frozenset(f"{name}s" for name, _, _ in axes.indices)
    unknown = {n.name: n.name for n in nodes(body) if isinstance(n, spec.Ref) and n.name not in values}
    result = text_of(body, Names(values | unknown, numbers | frozenset(unknown)))
    return f"{target}.fill_({result.text})" if result.is_number else f"{target}.copy_({result.text})"


def helpers(init: spec.Expr | None) -> tuple[str, ...]:
    """The names of the helper functions that an initial value calls."""
    if init is None:
        return ()
    called = [f"_{n.function}" for n in nodes(init) if isinstance(n, spec.Apply)]
    return tuple(dict.fromkeys(name for name in called if name in HELPERS))


def _in_place(target: str, init: spec.Apply) -> str:
    numbers = [_number(argument) for argument in init.args]
    if init.function in ("zeros", "ones"):
        return f"{target}.{'zero_' if init.function == 'zeros' else 'fill_'}({'' if init.function == 'zeros' else '1'})"
    if init.function in ("uniform", "normal"):
        return f"{target}.{init.function}_({', '.join(numbers)})"
    return ""


def _name_samples(expr: spec.Expr, target: str, last: str, samples: dict[str, str]) -> spec.Expr:
    """`expr` with every draw replaced by a name; the text of the draw goes to `samples`."""
    if isinstance(expr, spec.Apply) and expr.function in SAMPLES:
        numbers = [_number(argument) for argument in expr.args]
        fresh = f"torch.empty_like({target})"
        if expr.function == "loguniform":
            value = f"{fresh}.uniform_(math.log({numbers[0]}), math.log({numbers[1]})).exp_()"
        elif expr.function == "linspace":
            value = f"torch.linspace({numbers[0]}, {numbers[1]}, {last}, device={target}.device)"
        elif expr.function in ("zeros", "ones"):
            value = f"torch.{expr.function}_like({target})"
        else:
            value = f"{fresh}.{expr.function}_({', '.join(numbers)})"
        name = f"%{len(samples)}"
        samples[name] = value
        return spec.Ref(expr.type, expr.span, name)
    changes = {}
    for field, value in vars(expr).items():
        if isinstance(value, spec.Expr):
            changes[field] = _name_samples(value, target, last, samples)
        elif isinstance(value, tuple) and value and isinstance(value[0], spec.Expr):
            changes[field] = tuple(_name_samples(item, target, last, samples) for item in value)
    return replace(expr, **changes) if changes else expr


def _index(target: str, count: str, behind: int) -> str:
    arange = f"torch.arange({count}, device={target}.device)"
    return f"{arange}[:{', None' * behind}]" if behind else arange


def _number(expr: spec.Expr) -> str:
    value: Text = text_of(expr, Names({}))
    try:
        return text.number(Fraction(value.text)) if len(value.text) < 12 else value.text
    except ValueError:
        return value.text
