"""The package under verification: its functions called in one way, with data that fits them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

from .. import spec
from ..small import all_nodes, small_sizes
from . import interpreter
from .interpret import Result, interpret
from .sample import Case, Shape, draw

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 16
"""The chunk length of most checks: several chunks in few tokens."""


@dataclass(frozen=True)
class Run:
    """What a call gave: `y` and the final state, part by part."""

    y: Tensor
    state: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that was computed: `y`, then the parts of the state."""
        return (self.y, *self.state)


class Subject:
    """A loaded package and the recurrence it was built from."""

    def __init__(self, package: ModuleType, recurrence: spec.Recurrence, device: str, say: Callable[[str], None] = lambda words: None):
        self.package = package
        self.recurrence = recurrence
        self.is_interpreted = device == interpreter.DEVICE
        self.device = "cpu" if self.is_interpreted else device
        self.names = self._state_names()
        self.sizes = small_sizes(recurrence)
        self.is_grouped = any(s.per == "group" for s in recurrence.symbols)
        self.uses_head_index = any(
            isinstance(node, spec.Ref) and node.name in ("head", "channel", "heads", "channels") for node in all_nodes(recurrence)
        )
        self.is_reversed = recurrence.time == "reversed"
        self.say = say
        """Takes words about what is being done, in checks that take long."""
        self.uncompiled: dict[str, str] = {}
        """Why a kernel did not compile, by the words of the first call that needs it."""

    @property
    def namespace(self) -> str:
        """Where the package registers its operators."""
        return sys.modules[f"{self.package.__name__}.op"].NAMESPACE

    def kernels(self, loader: str) -> ModuleType | None:
        """The module that the operator takes its kernels from, by the name of the function in op.py that imports it.

        None on the processor where it does not interpret them, for an operator without kernels, and without Triton.
        """
        own = getattr(sys.modules[f"{self.package.__name__}.op"], loader, None)
        if own is None or (self.device.startswith("cpu") and not self.is_interpreted):
            return None
        found = own()
        if self.is_interpreted:
            interpreter.told(self.package.__name__)
        return found

    def _state_names(self) -> tuple[str, ...]:
        """The interpreter's names of the parts of the state, in the order of the package's `State`."""
        nodes = tuple(all_nodes(self.recurrence))
        delayed = {n.name for n in nodes if isinstance(n, spec.Delayed)}
        names = [s.name for s in self.recurrence.states]
        names += [f"{s.name}[-1]" for s in self.recurrence.symbols if s.name in delayed]
        turns = any(isinstance(n, spec.Apply) and n.function == "rope" or isinstance(n, spec.Ref) and n.name == "position" for n in nodes)
        return tuple([*names, "position"] if turns else names)

    # --- data ----------------------------------------------------------------------------------------------------

    def case(self, length: int, *, batch: int = 2, heads: int = 4, tiny: bool = False, seed: int = 0) -> Case:
        """Random arguments in float64; two heads share a group where the spec has groups."""
        sizes = small_sizes(self.recurrence, tiny=True) if tiny else self.sizes
        groups = max(heads // 2, 1)
        return draw(self.recurrence, Shape(batch, length, heads, groups, sizes), seed=seed, device=self.device)

    def start(self, case: Case, *, seed: int = 1, batch: int | None = None) -> tuple[Tensor, ...]:
        """A random initial state for a case: its shapes are those that one token leaves behind."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        one = self.reference(case.tokens(0, 1))
        parts = []
        for part in one.state:
            shape = (batch or part.shape[0], *part.shape[1:])
            if part.is_floating_point() or part.is_complex():
                noise = torch.randn(shape, generator=generator, dtype=torch.complex128 if part.is_complex() else torch.float64)
                parts.append((0.5 * noise).to(part.dtype).to(self.device))
            else:
                parts.append(torch.randint(1, 9, shape, generator=generator).to(self.device))
        return tuple(parts)

    # --- calls ---------------------------------------------------------------------------------------------------

    def reference(self, case: Case, start: tuple[Tensor, ...] | None = None, cu_seqlens: Tensor | None = None) -> Run:
        """The eager reference."""
        return self._call(getattr(self.package, f"{self.recurrence.name}_reference"), case, start, cu_seqlens=cu_seqlens)

    def op(self, case: Case, start: tuple[Tensor, ...] | None = None, *, chunk: int = CHUNK, cu_seqlens: Tensor | None = None) -> Run:
        """The operator."""
        return self._call(getattr(self.package, self.recurrence.name), case, start, cu_seqlens=cu_seqlens, chunk=chunk)

    def _call(self, function, case: Case, start, **keywords) -> Run:
        state = None if start is None else self.package.State(*start)
        output = function(*case.arguments, initial_state=state, **keywords)
        return Run(output.y, tuple(output.final_state))

    def steps(self, case: Case, start: tuple[Tensor, ...]) -> Run:
        """One `step` a token; the state changes in place."""
        import torch

        state = self.package.State(*(part.clone() for part in start))
        step = getattr(self.package, f"{self.recurrence.name}_step")
        inputs, params = case.inputs.values(), case.params.values()
        outputs = [step(*(x[:, t] for x in inputs), *params, state=state) for t in range(case.shape.length)]
        return Run(torch.stack(outputs, dim=1), tuple(state))

    def interpret(self, case: Case, start: tuple[Tensor, ...] | None = None, cu_seqlens: Tensor | None = None) -> Run:
        """The interpreter, which runs on the processor; its results come to the device."""
        initial = None if start is None else dict(zip(self.names, (part.cpu() for part in start), strict=True))
        values = {name: x.cpu() for name, x in (*case.inputs.items(), *case.params.items())}
        lengths = None if cu_seqlens is None else cu_seqlens.cpu()
        result: Result = interpret(self.recurrence, values, initial_state=initial, cu_seqlens=lengths)
        return Run(result.y.to(self.device), tuple(result.final_state[name].to(self.device) for name in self.names))

    # --- gradients -----------------------------------------------------------------------------------------------

    def gradients(self, call, case: Case, start: tuple[Tensor, ...], of=None) -> dict[str, Tensor]:
        """Gradients of a random sum over `y` and the final state, by the names of inputs, params and parts of the state.

        `of` picks the tensors of a run that the sum is over; what it does not reach has the gradient zero.
        """
        import torch

        leaves = {name: x.detach().clone().requires_grad_() for name, x in (*case.inputs.items(), *case.params.items())}
        parts = [x.detach().clone() for x in start]
        named = {f"initial {n}": x.requires_grad_() for n, x in zip(self.names, parts, strict=True) if not _is_integer(x)}
        moved = replace(case, inputs={n: leaves[n] for n in case.inputs}, params={n: leaves[n] for n in case.params})
        run = call(moved, tuple(parts))
        generator = torch.Generator().manual_seed(2)
        total = 0.0
        for tensor in run.tensors if of is None else of(run):
            if not _is_integer(tensor):
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
                wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
                total = total + (noise * wide).sum().real
        wanted = leaves | named
        found = torch.autograd.grad(total, tuple(wanted.values()), allow_unused=True)
        return {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(wanted.items(), found, strict=True)}


def _is_integer(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex())
