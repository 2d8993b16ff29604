"""How far two results are apart. NaN is infinitely far from everything, itself included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def largest(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected magnitude (at least 1e-6); infinite for other shapes and for NaN."""
    if actual.shape != expected.shape:
        return math.inf
    if actual.numel() == 0:
        return 0.0
    actual, expected = _wide(actual), _wide(expected)
    error = (actual - expected).abs().max().item() / max(expected.abs().max().item(), 1e-6)
    return error if math.isfinite(error) else math.inf


def typical(actual: Tensor, expected: Tensor) -> float:
    """The root mean square difference over that of the expected values (at least 1e-6); infinite for NaN."""
    if actual.shape != expected.shape:
        return math.inf
    if actual.numel() == 0:
        return 0.0
    actual, expected = _wide(actual), _wide(expected)
    scale = max(expected.abs().square().mean().sqrt().item(), 1e-6)
    error = (actual - expected).abs().square().mean().sqrt().item() / scale
    return error if math.isfinite(error) else math.inf


def together(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """`typical` of several pairs as of one."""
    import torch

    if any(actual.shape != expected.shape for actual, expected in pairs):
        return math.inf
    actual, expected = (torch.cat([x.detach().flatten() for x in each]) for each in zip(*pairs, strict=True))
    return typical(actual, expected)


def worst(pairs: Iterable[tuple[Tensor, Tensor]], distance=largest) -> float:
    """The largest distance of several pairs."""
    return max((distance(actual, expected) for actual, expected in pairs), default=math.inf)


def _wide(x: Tensor) -> Tensor:
    import torch

    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
