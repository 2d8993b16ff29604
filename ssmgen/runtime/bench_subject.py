"""What is measured: a recurrence, its package, its peers, a device; and the calls that are timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from .. import compiler, spec
from ..features import values
from ..schedule import schedule
from ..source import Source
from . import bench_yardstick, jit
from .peers import AdapterError, Peer, first_line
from .sample import Case, Shape, draw

if TYPE_CHECKING:
    from torch import Tensor

LOOP = 256
"""Tokens up to which autograd goes through the sequential reference: its time there grows with the square of the length."""


@dataclass(frozen=True)
class Subject:
    """One recurrence of a source, built, on a device.

    `flops` are the forward pass's, a token and head; `axes` the values that set it apart, as `correction delta`.
    """

    source: Source
    dims: Mapping[str, int]
    spec: spec.Recurrence
    package: ModuleType
    peers: tuple[Peer, ...]
    flops: float
    device: str
    axes: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, float]:
        """The spec's sizes, counts and constants."""
        return {**dict(self.spec.dims), **dict(self.spec.counts), **{name: float(value) for name, value in self.spec.constants}}

    @property
    def dtype(self):
        """Of the inputs: bfloat16 on a GPU, float32 elsewhere; learned params are float32 on both."""
        import torch

        return torch.float32 if self.device == "cpu" else torch.bfloat16

    def case(self, batch: int, tokens: int, heads: int, seed: int = 0) -> Case:
        """Random arguments inside their declared domains, as they are used: in `dtype`, on the device."""
        import torch

        shape = Shape(batch, tokens, heads, 1, {**dict(self.spec.dims), **dict(self.spec.counts)})
        return draw(self.spec, shape, seed=seed).to(self.dtype, self.device, torch.float32)

    def op(self, *arguments: Tensor) -> Tensor:
        """The output of the package's op."""
        return getattr(self.package, self.spec.name)(*arguments).y

    def reference(self, *arguments: Tensor) -> Tensor:
        """The output of the package's sequential reference."""
        return getattr(self.package, f"{self.spec.name}_reference")(*arguments).y

    def names(self, case: Case) -> list[str]:
        """The names of a case's arguments, in order."""
        return [*case.inputs, *case.params]


@dataclass
class Contender:
    """One row: a call, the tensors that its gradients are for, how many tokens it walks. `failure`: why there is no time."""

    what: str
    kind: str  # 'op' | 'reference' | 'yardstick' | 'peer'
    tokens: int
    call: Callable[[], Tensor] | None = None
    leaves: list[Tensor] = field(default_factory=list)
    has_backward: bool = True
    peer: str = ""
    note: str = ""
    failure: str = ""

    def forward(self) -> None:
        """Forward alone, nothing recorded."""
        import torch

        with torch.no_grad():
            self.call()

    def both(self) -> Callable[[], None]:
        """Forward and backward, gradients made afresh in each run and dropped at its end."""
        import torch

        cotangent = torch.randn_like(self._forget(self.call().detach()))

        def run() -> None:
            self.call().backward(cotangent)
            self._forget(None)

        return run

    def _forget(self, y):
        for x in self.leaves:
            x.grad = None
        return y


def subjects(source: Source, dims: Mapping[str, int], device: str, peers: list[Peer]) -> list[Subject]:
    """Every recurrence of a source, built. Raises AdapterError when an adapter of several recurrences fits none by its name."""
    packages, trace = jit.packages(source, dims), compiler.check(source, dims)
    recurrences = trace.after("resolve")[source.name].recurrences
    if peers and len(recurrences) > 1 and not any(peer.path.stem == each.name for peer in peers for each in recurrences):
        raise AdapterError(f"{peers[0].path}: {source.name} has several recurrences; name the adapter after the one it is for")
    found = []
    for each in recurrences:
        fitting = tuple(peer for peer in peers if len(recurrences) == 1 or peer.path.stem == each.name)
        classified = trace.after("classify")[each.name]
        axes = tuple(f"{a.axis} {a.value}" for a in classified.axes if values(a.axis)[a.value].priority)
        flops = schedule(classified).cost.flops[1]
        found.append(Subject(source, dims, each, packages[each.name], fitting, flops, device, axes))
    return found


def contenders(subject: Subject, case: Case) -> list[Contender]:
    """The op, its reference, the yardstick where it fits, and every peer: as its own call, and with what must go before it."""
    leaves = _leaves(case.arguments)
    tokens = case.shape.length
    found = [Contender("op", "op", tokens, lambda: subject.op(*leaves), leaves)]
    few = tokens if subject.device == "cpu" else min(tokens, LOOP)
    start = _leaves(case.tokens(0, few).arguments)
    note = "" if few == tokens else f"{few} tokens; ratios a token"
    found.append(
        Contender("sequential reference", "reference", few, lambda: subject.reference(*start), start, has_backward=few <= LOOP, note=note)
    )
    yardstick = bench_yardstick.arguments(subject.spec, case.shape, subject.dtype, subject.device)
    if yardstick is not None:
        chunked = bench_yardstick.chunked_decay_attention
        found.append(Contender("hand-written chunked attention", "yardstick", tokens, lambda: chunked(*yardstick), yardstick))
    for peer in subject.peers:
        found += _of(peer, subject, dict(zip(subject.names(case), leaves, strict=True)), tokens)
    return found


def _of(peer: Peer, subject: Subject, arguments: dict[str, Tensor], tokens: int) -> list[Contender]:
    if peer.missing:
        return [Contender(peer.name, "peer", tokens, peer=peer.name, failure=peer.missing)]
    try:
        inputs = {name: x.detach().requires_grad_(x.requires_grad) for name, x in peer.prepare(arguments, subject.sizes).items()}
        wrong = peer.known_wrong()
    except Exception as error:
        return [Contender(peer.name, "peer", tokens, peer=peer.name, failure=f"{type(error).__name__}: {first_line(error)}")]
    taking = [x for x in inputs.values() if x.requires_grad]
    bare = Contender(peer.name, "peer", tokens, lambda: peer.run(inputs, subject.sizes), taking, peer=peer.name, note=wrong)
    if not peer.prepares:
        return [bare]
    whole = Contender(
        f"{peer.name}, prepared in torch", "peer", tokens, lambda: peer.call(arguments, subject.sizes), list(arguments.values()),
        peer=peer.name, note=wrong,
    )  # fmt: skip
    return [bare, whole]


def _leaves(tensors) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in tensors]
