"""Random data for a recurrence: inputs and params that keep to their domains, at sizes that every shape allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import hippo, spec
from ..small import arguments_of
from .interpret import POINTWISE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What one run is made of: batch, tokens, heads (or channels), groups and the sizes of the spec."""

    batch: int
    length: int
    heads: int
    groups: int
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """One set of arguments, in the order of the emitted functions."""

    recurrence: spec.Recurrence
    shape: Shape
    inputs: dict[str, Tensor]
    params: dict[str, Tensor]

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return (*self.inputs.values(), *self.params.values())

    def to(self, dtype=None, device=None, params_dtype=None) -> Case:
        """The same values in other dtypes: `dtype` for the inputs, `params_dtype` (or `dtype`) for the params."""

        def moved(x: Tensor, to) -> Tensor:
            return x.to(device=device, dtype=to if to is None or not x.is_complex() else complex_of(to))

        inputs = {name: moved(x, dtype) for name, x in self.inputs.items()}
        return replace(self, inputs=inputs, params={n: moved(x, params_dtype or dtype) for n, x in self.params.items()})

    def tokens(self, start: int, end: int) -> Case:
        """Tokens start..end of every input."""
        return replace(self, inputs={name: x[:, start:end] for name, x in self.inputs.items()})

    def take(self, batch: Tensor) -> Case:
        """Some sequences, in a given order."""
        return replace(self, inputs={name: x[batch] for name, x in self.inputs.items()})


def complex_of(dtype):
    """The complex numbers beside a floating-point type: there are none of 16 bits in use."""
    import torch

    return torch.complex128 if dtype == torch.float64 else torch.complex64


def draw(recurrence: spec.Recurrence, shape: Shape, *, seed: int = 0, device: str = "cpu") -> Case:
    """Float64 values for every input and learned param: generic, non-zero, inside the declared domains."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    inputs, params = arguments_of(recurrence)
    lanes = {"head": [shape.heads], "channel": [shape.heads], "group": [shape.groups], "layer": []}
    values = {}
    for symbol in (*inputs, *params):
        tail = [int(d.value(dict(shape.sizes))) for d in (symbol.type.rows, symbol.type.cols) if d != spec.ONE]
        lead = [] if symbol.kind == "param" else [shape.batch, shape.length]
        full = [*lead, *lanes[symbol.per], *tail]
        noise = torch.randn(full, generator=generator, dtype=torch.float64)
        if symbol.type.field == "complex":
            noise = torch.complex(noise, torch.randn(full, generator=generator, dtype=torch.float64)) / math.sqrt(2)
        if symbol.type.rows == symbol.type.cols != spec.ONE:
            # what leads from entries to entries keeps their size: a state may meet it at every token
            noise = noise / math.sqrt(tail[0])
        values[symbol.name] = _fit(symbol, noise, shape, generator).to(device)
    return Case(recurrence, shape, {s.name: values[s.name] for s in inputs}, {s.name: values[s.name] for s in params})


def _fit(symbol: spec.Symbol, noise: Tensor, shape: Shape, generator) -> Tensor:
    """Noise made to keep the symbol's promises: its unit length, its domain, the neighbourhood of its initial value."""
    import torch
    import torch.nn.functional as F

    if "unit" in symbol.flags:
        return noise / noise.square().sum(-1, keepdim=True).sqrt()
    if symbol.domain is not None:
        low, high = symbol.domain.low, symbol.domain.high
        if math.isfinite(low) and math.isfinite(high):
            return low + (high - low) * (0.02 + 0.96 * torch.sigmoid(noise))
        if math.isfinite(low):
            return low + 0.01 + F.softplus(noise)
        if math.isfinite(high):
            return high - 0.01 - F.softplus(noise)
    if symbol.kind == "param" and symbol.init is not None and symbol.type.field == "real":
        return _initial(symbol.init, noise, shape, generator) * (1 + 0.2 * noise) + 0.05 * noise
    return noise if symbol.kind != "param" else 0.5 * noise


def _initial(expr: spec.Expr, like: Tensor, shape: Shape, generator) -> Tensor:
    """The initial value of a param, drawn; names it does not know count the entries of the last axis from 0."""
    import torch

    def value(node: spec.Expr) -> Tensor:
        match node:
            case spec.Const():
                return torch.full_like(like, float(node.value))
            case spec.SizeOf():
                return torch.full_like(like, float(node.size.value(dict(shape.sizes))))
            case spec.Neg():
                return -value(node.operand)
            case spec.Add():
                return sum(value(term) for term in node.terms)
            case spec.Mul():
                return value(node.left) * value(node.right)
            case spec.Div():
                return value(node.left) / value(node.right)
            case spec.Pow():
                return value(node.base) ** value(node.exponent)
            case spec.Ref(name="heads" | "channels"):
                return torch.full_like(like, float(shape.heads))
            case spec.Ref(name="head" | "channel"):
                lanes = torch.arange(like.shape[0], dtype=like.dtype)
                return lanes.reshape(-1, *[1] * (like.dim() - 1)).expand(like.shape)
            case spec.Ref():
                return torch.arange(like.shape[-1] if like.dim() else 1, dtype=like.dtype).expand(like.shape)
            case spec.Apply():
                return function(node)
        raise ValueError(f"no initial value from {type(node).__name__}")

    def function(node: spec.Apply) -> Tensor:
        args = [value(arg) for arg in node.args]
        uniform = torch.rand(like.shape, generator=generator, dtype=like.dtype)
        match node.function:
            case "uniform":
                return args[0] + (args[1] - args[0]) * uniform
            case "loguniform":
                return torch.exp(args[0].log() + (args[1].log() - args[0].log()) * uniform)
            case "normal":
                sample = torch.randn(like.shape, generator=generator, dtype=like.dtype)
                mean, deviation = (*args, *(torch.zeros_like(like), torch.ones_like(like))[len(args) :])
                return mean + deviation * sample
            case "linspace":
                count = like.shape[-1] if like.dim() else 1
                return args[0] + (args[1] - args[0]) * torch.linspace(0, 1, count, dtype=like.dtype)
            case "zeros":
                return torch.zeros_like(like)
            case "ones":
                return torch.ones_like(like)
            case "legs_frequencies" | "legs_low_rank":
                modes = hippo.in_blocks(like.shape[-1], *(int(arg.flatten()[0]) for arg in args))
                column = [mode[node.function == "legs_low_rank"] for mode in modes]
                return torch.tensor(column, dtype=like.dtype).expand(like.shape)
            case "pi":
                return torch.full_like(like, math.pi)
        return POINTWISE[node.function](*args)

    return value(expr)
