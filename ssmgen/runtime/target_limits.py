"""Compiled kernels held against the limits of their targets: what does not fit, as diagnostics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .. import spec
from ..diagnostics import Diagnostic, Label, Severity
from .cross_compile import Failure, Usage
from .targets import Target

RESOURCES = {"registers": "registers a thread", "shared": "bytes of shared memory a block", "tensor_memory": "columns of tensor memory"}
"""What has a limit, under its name in a usage and in a target, and its unit."""


@dataclass(frozen=True)
class Kernel:
    """One configuration of one kernel, compiled."""

    target: Target
    name: str
    configuration: Mapping[str, object]
    dtype: str
    call: str
    is_packed: bool
    outcome: Usage | Failure

    @property
    def words(self) -> str:
        """The configuration in a line: constants that are switched off are left out."""
        shown = [f"{name}={value}" for name, value in self.configuration.items() if value is not False]
        return f"{self.call}, {self.dtype}{', packed' if self.is_packed else ''}: {' '.join(shown)}"

    @property
    def over(self) -> tuple[str, ...]:
        """The resources of which it uses more than there is."""
        if isinstance(self.outcome, Failure):
            return ()
        return tuple(name for name in RESOURCES if getattr(self.outcome, name) > getattr(self.target, name))


def diagnose(recurrence: spec.Recurrence, kernels: Iterable[Kernel]) -> list[Diagnostic]:
    """An error for every kernel and target where a configuration fails, does not fit or is assembled wrong, a warning for every target
    with spills."""
    kernels = list(kernels)
    found = []
    for group in _grouped(kernels, lambda kernel: (kernel.target.name, kernel.name)):
        found += _failed(recurrence, [kernel for kernel in group if isinstance(kernel.outcome, Failure)])
        for resource in RESOURCES:
            found += _over(recurrence, resource, [kernel for kernel in group if resource in kernel.over])
        found += _misread(recurrence, [kernel for kernel in group if isinstance(kernel.outcome, Usage) and kernel.outcome.misread])
    for group in _grouped(kernels, lambda kernel: kernel.target.name):
        found += _spilled(recurrence, [kernel for kernel in group if isinstance(kernel.outcome, Usage) and kernel.outcome.spill])
    return found


def _failed(recurrence: spec.Recurrence, kernels: list[Kernel]) -> list[Diagnostic]:
    if not kernels:
        return []
    first = kernels[0]
    title = f"`{first.name}` does not compile for {first.target.name}: {first.outcome.line}"
    return [_diagnostic(recurrence, "target-compilation", Severity.ERROR, title, first, len(kernels), _smaller(recurrence, first.target))]


def _over(recurrence: spec.Recurrence, resource: str, kernels: list[Kernel]) -> list[Diagnostic]:
    if not kernels:
        return []
    worst = max(kernels, key=lambda kernel: getattr(kernel.outcome, resource))
    used, limit = getattr(worst.outcome, resource), getattr(worst.target, resource)
    title = f"`{worst.name}` needs {used} {RESOURCES[resource]}, and {worst.target.name} has {limit}"
    return [_diagnostic(recurrence, "target-limit", Severity.ERROR, title, worst, len(kernels), _smaller(recurrence, worst.target))]


def _misread(recurrence: spec.Recurrence, kernels: list[Kernel]) -> list[Diagnostic]:
    if not kernels:
        return []
    first = kernels[0]
    title = f"the assembler takes the stack of `{first.name}` for data on {first.target.name}: {first.outcome.misread}"
    return [_diagnostic(recurrence, "target-misread", Severity.ERROR, title, first, len(kernels), _smaller(recurrence, first.target))]


def _spilled(recurrence: spec.Recurrence, kernels: list[Kernel]) -> list[Diagnostic]:
    if not kernels:
        return []
    worst = max(kernels, key=lambda kernel: kernel.outcome.spill)
    title = f"`{worst.name}` spills {worst.outcome.spill} bytes a thread on {worst.target.name}"
    return [_diagnostic(recurrence, "target-spill", Severity.WARNING, title, worst, len(kernels), "")]


def _diagnostic(recurrence, slug: str, severity: Severity, title: str, kernel: Kernel, count: int, edit: str) -> Diagnostic:
    sizes = ", ".join(f"{name} = {size}" for name, size in recurrence.dims)
    more = "" if count == 1 else "; so does one more configuration" if count == 2 else f"; so do {count - 1} more configurations"
    note = kernel.words + more
    return Diagnostic(slug, severity, title, Label(recurrence.span, f"with {sizes}" if sizes else ""), (), note, edit)


def _smaller(recurrence: spec.Recurrence, target: Target) -> str:
    """The edit: half the largest size; where no size is left to halve, the target goes."""
    name, size = max(recurrence.dims, key=lambda dim: dim[1], default=("", 1))
    without = f"for other GPUs alone, leave {target.name} out of `--targets`"
    return f"tiles grow with the sizes: try `--dim {name}={size // 2}`; {without}" if size > 16 else without


def _grouped(kernels: list[Kernel], key) -> list[list[Kernel]]:
    """Kernels of one key together, keys in order of appearance."""
    groups: dict[object, list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault(key(kernel), []).append(kernel)
    return list(groups.values())
