"""What decode.py of the emitted package says, as the template reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """`target = text` under comments, with the shape behind it (empty: it says it itself)."""

    target: str
    text: str
    above: tuple[str, ...] = ()
    shape: str = ""


@dataclass(frozen=True)
class StateText:
    """A state: its tensor, where its block lies, which entries are data, and the value that goes back."""

    name: str
    place: str
    mask: str  # `, mask=...` of loads and stores; empty for a scalar
    other: str
    shape: str
    value: str


@dataclass(frozen=True)
class Strided:
    """A tensor whose first axis is sequences, and the name of its stride."""

    tensor: str
    stride: str


@dataclass(frozen=True)
class DecodePackage:
    """Everything decode.py says."""

    kernel: str
    title: str
    subject: tuple[str, ...]
    equations: tuple[str, ...]
    helpers: tuple[str, ...]
    pointers: tuple[str, ...]
    strides: tuple[str, ...]
    numbers: tuple[str, ...]
    constants: tuple[str, ...]
    legend: str
    indices: tuple[Line, ...]
    output: str
    rows: tuple[Line, ...]  # of the output, with their places
    output_mask: str
    output_zeros: str
    slots: str
    counts: tuple[Line, ...]
    closes: tuple[str, ...]
    loads: tuple[Line, ...]
    steps: tuple[Line, ...]
    states: tuple[StateText, ...]
    block_parameters: str
    block_arguments: str
    block_lines: tuple[Line, ...]
    block_names: str
    signature: tuple[str, ...]
    dense: tuple[Line, ...]
    moved: tuple[Line, ...]
    sizes: tuple[Line, ...]
    shape: str
    like: str
    grid: str
    handed: tuple[str, ...]
    keywords: tuple[str, ...]
    is_split: bool
