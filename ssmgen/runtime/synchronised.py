"""Which kernel it is that leaves a process without its GPU: launches that are waited for, one by one.

A GPU runs behind the host, so that an illegal access is reported by whatever call asks the device next. Here every launch of Triton
is waited for before the next: the fault is of the one that was launched last. After it no call on the device succeeds any more, and
what would be launched says that it was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .peers import first_line


class LaunchFault(RuntimeError):
    """A launch that ended in a fault, by its kernel's name, or one that came behind such a fault."""


@contextmanager
def synchronised() -> Iterator[None]:
    """While inside, every launch of a Triton kernel is waited for, before and behind. Raises LaunchFault in the launch at fault.

    Nothing may be captured in a graph meanwhile: a capture cannot be waited for.
    """
    from triton import knobs

    waiting = _Waiting()
    hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    for hook, call in zip(hooks, (waiting.before, waiting.behind), strict=True):
        hook.add(call)
    try:
        yield
    finally:
        for hook, call in zip(hooks, (waiting.before, waiting.behind), strict=True):
            hook.remove(call)


class _Waiting:
    def __init__(self) -> None:
        self.count, self.last, self.fault = 0, "", ""

    def before(self, metadata) -> None:
        name = metadata.get()["name"]
        if self.fault:
            raise LaunchFault(f"{name}: not launched, the GPU was lost before: {self.fault}")
        behind = f", behind launch {self.count}, of {self.last}" if self.last else ""
        self._wait(f"no kernel of Triton, but what came before {name}{behind}")
        self.count, self.last = self.count + 1, name

    def behind(self, metadata) -> None:
        self._wait(f"{metadata.get()['name']}, launch {self.count}")

    def _wait(self, at_fault: str) -> None:
        import torch

        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            self.fault = f"{at_fault}: {first_line(error)}"
            raise LaunchFault(self.fault) from None
