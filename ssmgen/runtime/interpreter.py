"""A package's kernels where there is no GPU: Triton's interpreter runs them on the processor, a program after the other.

It shows whether the text of a kernel is right, at small sizes and with a GPU's rounding; of a GPU's compiler it shows nothing.
Triton reads `TRITON_INTERPRET` once, when it is imported: a process interprets from its start, or never.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version

from .short_floats import as_on_a_gpu

DEVICE = "interpreter"
"""How `verify --device` names it."""

ENVIRONMENT = {"TRITON_INTERPRET": "1"}
"""What a process that interprets is started with."""

PROCESSORS = 8
"""Of the GPU that launchers are told of: few, so that short sequences are cut into segments as well."""


def missing() -> str:
    """Why nothing can be interpreted here, and what to install; empty where it can."""
    try:
        version("triton")
        numpy = version("numpy")
    except PackageNotFoundError as absent:
        return f"there is no {absent.name} here: pip install triton 'numpy<2.4'"
    if tuple(int(part) for part in numpy.split(".")[:2]) >= (2, 4):
        return f"Triton's interpreter fails with numpy {numpy} at loops whose bounds are run-time values: pip install 'numpy<2.4'"
    return ""


@contextmanager
def acting() -> Iterator[None]:
    """While inside, tensors on the processor say that they are on a GPU: operators and steps take their kernels, which are interpreted.

    Raises RuntimeError in a process that was not started with `ENVIRONMENT`.
    """
    import torch

    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        raise RuntimeError("this process compiles kernels: it was not started as one that interprets them")
    own = torch.Tensor.__dict__.get("is_cuda")
    with ExitStack() as left:
        left.enter_context(as_on_a_gpu())
        torch.Tensor.is_cuda = property(lambda tensor: True)
        left.callback(_restore, own)
        yield


def _restore(own: object | None) -> None:
    import torch

    if own is None:
        del torch.Tensor.is_cuda
    else:
        torch.Tensor.is_cuda = own


def told(package: str) -> None:
    """Tell the launchers of a package, by its name, of a small GPU in place of the processor."""
    import torch

    tuning = sys.modules.get(f"{package}.tuning")
    if tuning is not None:
        tuning._processors[torch.device("cpu")] = PROCESSORS
