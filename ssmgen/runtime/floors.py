"""Floors: the time below which no program can compute a recurrence on a device, whatever its kernels.

Bytes that must move over the rate of a plain copy, or the multiplications of the chunk form over the rate of a plain matrix
product, whichever takes longer; both rates are measured on the device, in the same process. Forward reads each argument and
writes the output, once. Backward reads the arguments and the output's gradient, and writes a gradient for each argument, once.
The final state is left out: training does not ask for it. One token of decoding reads and writes the state once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import bench_clock

if TYPE_CHECKING:
    from torch import Tensor

BACKWARD = 2
"""Matrix products that a product of the forward pass needs in backward: one for each of its factors."""

ENTRIES, WIDTH = {"cpu": 1 << 24, "cuda": 1 << 30}, {"cpu": 1024, "cuda": 8192}
"""Of the copy, and of the product's matrices."""


@dataclass(frozen=True)
class Rates:
    """What a device does at best: bytes moved a second by a copy, read and written, and operations a second by a product."""

    copy: float
    product: float


@dataclass(frozen=True)
class Work:
    """What has to be done: bytes moved, and operations (a multiply-add is two)."""

    bytes: float
    flops: float

    def seconds(self, rates: Rates) -> float:
        """The floor on a device of these rates."""
        return max(self.bytes / rates.copy, self.flops / rates.product)


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(x.numel() * x.element_size() for x in tensors)


def forward(arguments: Iterable[Tensor], y: Tensor, flops: float) -> Work:
    """Forward alone; `flops` are the forward pass's."""
    return Work(size(arguments) + size([y]), flops)


def forward_backward(arguments: Iterable[Tensor], y: Tensor, flops: float) -> Work:
    """Forward, then backward: every argument gets a gradient of its own size."""
    arguments = list(arguments)
    return Work(3 * size(arguments) + 2 * size([y]), (1 + BACKWARD) * flops)


def step(inputs: Iterable[Tensor], state: Iterable[Tensor], y: Tensor) -> Work:
    """One token: the state read and written once; its few multiplications never count."""
    return Work(size(inputs) + 2 * size(state) + size([y]), 0.0)


def rates(device: str) -> Rates:
    """Measured now: a copy far larger than any cache, a square matrix product; bfloat16 on a GPU, float32 elsewhere."""
    import torch

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    count = ENTRIES[device] if device == "cpu" else min(ENTRIES[device], torch.cuda.mem_get_info()[0] // 8)
    return Rates(_copy_rate(count, dtype, device), _product_rate(WIDTH[device], dtype, device))


def _copy_rate(count: int, dtype, device: str) -> float:
    import torch

    source, target = torch.ones(count, device=device, dtype=dtype), torch.empty(count, device=device, dtype=dtype)
    return size([source, target]) / _median(lambda: target.copy_(source), device)


def _product_rate(width: int, dtype, device: str) -> float:
    import torch

    left, right = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    return 2 * width**3 / _median(lambda: left @ right, device)


def _median(call, device: str) -> float:
    taken = bench_clock.in_turns({0: call})[0] if device == "cpu" else bench_clock.on_gpu(call)
    return bench_clock.spread(taken)["median"]
