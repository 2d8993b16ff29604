"""What op.py says of running values that kernels make, and of maxima that only scale states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..backends.torch_text import identifier
from ..gauges import Gauge
from ..spec import Dim
from .schema_text import Registration, registration
from .shapes import alike, number
from .walk import as_target, as_tuple

if TYPE_CHECKING:
    from ..triton_form.running import RunningValue


@dataclass(frozen=True)
class Running:
    """A running value that kernels make: its name, and what its operators are given and give, as lists of names."""

    name: str
    title: str
    is_maximum: bool
    operands: str
    read: str  # those of which kernels read more than a shape, to unpack into, and as a tuple
    read_tuple: str
    has_numbers: bool
    numbers: str
    results: str
    outputs: tuple[str, ...]  # empty tensors like them
    moved: str  # gradients of what it gives
    kept: str  # what backward is given beside them
    backward_operands: str
    backward_read: str
    backward_tuple: str
    found: str
    gradients: str
    alike: tuple[str, ...]  # empty tensors like the gradients
    is_single: bool  # there is one
    is_several: bool
    returned: str  # of every operand, its gradient or None
    call: str


@dataclass(frozen=True)
class Scaling:
    """A maximum that only scales states: by which powers, and the states as a call names them, before and after the operator."""

    maximum: str
    powers: str
    negated: str
    initial: str
    given: str
    replaced: str
    final: str
    states: str


def running_text(value: RunningValue, like: str, dim: Callable[[Dim], str]) -> Running:
    """What op.py says of a running value. `like`: an input; `dim`: the text of a size."""
    own, numbers = value.arguments, value.numbers_given
    if value.is_maximum:
        results, moved = "before, after, last, wins", "d_before, d_after, d_last"
        extra, kept = ("first",), ("first", "wins")
        shape = f"*{like}.shape[:2], *first.shape[1:]"
        outputs = [f"{like}.new_empty({shape}, dtype=torch.{t})" for t in ("float32", "float32", "int8")]
        outputs.insert(2, "torch.empty_like(first, dtype=torch.float32, memory_format=torch.contiguous_format)")
    else:
        results, moved, extra, kept = "made, last", "d_made, d_last", (), ()
        widths = [*([value.lanes] if value.lanes else []), *([] if value.is_lane else [dim(value.size)])]
        sequences = f"{like}.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1"
        outputs = [f"{like}.new_empty({', '.join([rows, *widths])}, dtype=torch.float32)" for rows in (f"*{like}.shape[:2]", sequences)]
    differentiable = [*value.differentiable, *extra]
    found, settings = [f"d_{n}" for n in differentiable], ["cu_seqlens", *numbers]
    operands = [*own, *extra, *settings]
    read = [*(n for n in own if n in value.read), *extra]
    backward_read = [*moved.split(", "), *(n for n in own if n in value.read), *kept]
    given = [f"initial_state.{value.name}" if n == "first" else n for n in operands]
    return Running(
        name=value.name,
        title=value.title,
        is_maximum=value.is_maximum,
        operands=", ".join(operands),
        read=as_target(read),
        read_tuple=as_tuple(read),
        has_numbers=bool(numbers),
        numbers=as_tuple(list(numbers)) if numbers else "",
        results=results,
        outputs=tuple(outputs),
        moved=moved,
        kept=", ".join([*own, *kept]),
        backward_operands=", ".join([moved, *own, *kept, *settings]),
        backward_read=as_target(backward_read),
        backward_tuple=as_tuple(backward_read),
        found=as_target(found),
        gradients=", ".join(found),
        alike=tuple(alike(n) for n in differentiable),
        is_single=len(found) == 1,
        is_several=len(found) > 1,
        returned=", ".join(f"d_{n}" if n in differentiable else "None" for n in operands),
        call=f"_Running_{value.name}.apply({', '.join(given)})",
    )


def scaling_text(gauge: Gauge) -> Scaling:
    """What a call says of a maximum that only scales states."""
    m, powers = identifier(gauge.maximum), [power for _, power in gauge.powers]
    states = [identifier(state) for state, _ in gauge.powers]
    return Scaling(
        maximum=m,
        powers=as_tuple([number(power) for power in powers]),
        negated=as_tuple([number(-power) for power in powers]),
        initial=as_target([f"initial_{state}" for state in states]),
        given=", ".join(f"initial_state.{state}" for state in states),
        replaced=", ".join(f"{state}=initial_{state}" for state in states),
        final=as_target(states),
        states=", ".join(states),
    )


def registrations(value: RunningValue) -> list[Registration]:
    """Of a running value, forward and backward."""
    given = [f"Tensor {n}" for n in value.arguments]
    settings = ["Tensor? cu_seqlens", *(f"float {n}" for n in value.numbers_given)]
    first, wins = (["Tensor first"], ["Tensor wins"]) if value.is_maximum else ([], [])
    moved = ["before", "after", "last"] if value.is_maximum else ["made", "last"]
    gradients = [f"Tensor d_{n}" for n in moved]
    return [
        registration(f"running_{value.name}", [*given, *first, *settings], len(moved) + len(wins)),
        registration(
            f"running_{value.name}_backward",
            [*gradients, *given, *first, *wins, *settings],
            len(value.differentiable) + len(first),
        ),
    ]
