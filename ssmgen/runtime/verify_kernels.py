"""The Triton kernels of a package against the float64 reference: every configuration that it ships on a device, in every dtype.

What the launchers allocate is filled with NaN before a kernel sees it, so that memory which no kernel writes shows. A row is a
configuration, with the worst of all that was computed with it: outputs and states, or gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from ..small import arguments_of, small_sizes
from .measure import typical
from .sample import Shape, draw
from .verify_checks import Row
from .verify_subject import Run, Subject

SLACK = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""How far a result may be off by inputs' dtype, root mean square: products round their operands to it, sums are float32."""

CANCELLED = {"float32": 2e-4, "float16": 8e-3, "bfloat16": 6e-2}
"""The same of a gate's gradient, which is a difference of sums over the sequence."""

WIDTHS = (24, 36, 20, 28)
"""Widths, by order of declaration, that fill no block; the next multiple of what the spec's shapes ask for."""

STEPS = 3


@dataclass(frozen=True)
class Trial:
    """One call: its sizes, and where packed documents end (empty: a batch)."""

    batch: int
    tokens: int
    heads: int
    sizes: dict[str, int]
    ends: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """As a row says it."""
        shape = f"{len(self.ends)} packed documents, {self.tokens} tokens" if self.ends else f"{self.batch} x {self.tokens} tokens"
        return f"{shape}, {self.heads} heads, {' '.join(f'{n}={s}' for n, s in self.sizes.items())}"


@dataclass(frozen=True)
class Measured:
    """One tensor that a trial gave. configuration: of the kernels that made it, with their direction and the dtype."""

    direction: str  # 'forward' | 'backward' | 'step'
    configuration: str
    name: str
    error: float
    tolerance: float
    trial: str

    @property
    def excess(self) -> float:
        """The error in units of what is allowed."""
        return self.error / self.tolerance if self.tolerance else self.error


def trials(subject: Subject) -> tuple[Trial, ...]:
    """What reaches every choice of the launchers: the spec's own sizes and odd ones, few programs and many, one chunk and several
    segments, packed documents of which some are empty."""
    own = {**dict(subject.recurrence.dims), **dict(subject.recurrence.counts)}
    odd = odd_sizes(subject)
    return (
        Trial(1, 1157, 4, own),
        Trial(1, 1157, 4, own, (0, 200, 200, 201, 1157)),
        Trial(16, 131, 4, own),
        Trial(2, 533, 4, odd),
        Trial(1, 1100, 2, odd, (7, 7, 39, 1060, 1100, 1100)),
        Trial(3, 1, 2, odd),
    )


def odd_sizes(subject: Subject) -> dict[str, int]:
    """Sizes that are no powers of two, different from each other, at which every shape of the spec is whole."""
    small = small_sizes(subject.recurrence)
    names = [name for name, _ in subject.recurrence.dims]
    sizes = {name: small[name] * max(round(WIDTHS[i % len(WIDTHS)] / small[name]), 1) for i, name in enumerate(names)}
    return {**sizes, **dict(subject.recurrence.counts)}


def kernels(subject: Subject) -> Iterator[Row]:
    """Every configuration of the chunked kernels, both directions. On the processor nothing is launched."""
    module = subject.kernels("_kernels")
    if module is None:
        return
    found, failed = [], []
    for dtype in SLACK:
        for trial in trials(subject):
            try:
                found += compare(subject, module, trial, dtype)
            except Exception as fault:  # a configuration that does not run has failed; the others are still measured
                failed.append(_failure("kernels", f"{dtype}, {trial.words}", fault))
    yield from (*rows("kernels", found), *failed)


def decode(subject: Subject) -> Iterator[Row]:
    """Every configuration of the kernel for one token. On the processor nothing is launched."""
    module = subject.kernels("_decode")
    if module is None or subject.is_reversed:
        return
    own = {**dict(subject.recurrence.dims), **dict(subject.recurrence.counts)}
    shapes = [Trial(batch, STEPS, 4, sizes) for sizes in (own, odd_sizes(subject)) for batch in (1, 33, 128)]
    found, failed = [], []
    for dtype in SLACK:
        for trial in shapes:
            try:
                found += compare_steps(subject, module, trial, dtype)
            except Exception as fault:
                failed.append(_failure("decode kernel", f"{dtype}, {trial.words}", fault))
    yield from (*rows("decode kernel", found), *failed)


def compare(subject: Subject, module: ModuleType, trial: Trial, dtype: str) -> list[Measured]:
    """Outputs, final states and gradients of every argument and initial state, against float64 on the same rounded data."""
    import torch

    case, start, cut = _data(subject, trial, dtype)
    exact, wide = case.to(torch.float64), _to(start, torch.float64)
    ran: dict[str, Run] = {}

    def reference(c, s):
        ran["truth"] = subject.reference(c, s, cut)
        return ran["truth"]

    def op(c, s):
        ran["found"] = subject.op(c, s, cu_seqlens=cut, chunk=64)
        return ran["found"]

    expected = subject.gradients(reference, exact, wide)
    with watched(module, "forward", "backward") as chosen:
        slopes = subject.gradients(op, case, start)
    packed = ", packed" if trial.ends else ""
    forward = f"{dtype}{packed}: {_text(chosen, lambda name: _is_forward(name))}"
    backward = f"{dtype}{packed}: {_text(chosen, lambda name: not _is_forward(name))}"
    inputs, params = arguments_of(subject.recurrence)
    gates = {s.name for s in inputs if s.type.is_scalar} | {s.name for s in params}
    pairs = zip(("y", *subject.names), ran["found"].tensors, ran["truth"].tensors, strict=True)
    measured = [Measured("forward", forward, name, typical(a, e), SLACK[dtype], trial.words) for name, a, e in pairs]
    for name, gradient in slopes.items():
        allowed = (CANCELLED if name in gates else SLACK)[dtype]
        measured.append(Measured("backward", backward, f"gradient of {name}", typical(gradient, expected[name]), allowed, trial.words))
    return measured


def compare_steps(subject: Subject, module: ModuleType, trial: Trial, dtype: str) -> list[Measured]:
    """Outputs of several steps and the state they leave, against float64 on the same rounded data."""
    import torch

    case, start, _ = _data(subject, trial, dtype)
    truth = subject.reference(case.to(torch.float64), _to(start, torch.float64))
    with watched(module, "step") as chosen:
        found = subject.steps(case, start)
    configuration = f"{dtype}: {_text(chosen, lambda name: True)}"
    pairs = zip(("y", *subject.names), found.tensors, truth.tensors, strict=True)
    return [Measured("step", configuration, name, typical(a, e), SLACK[dtype], trial.words) for name, a, e in pairs]


def rows(check: str, measured: Iterable[Measured]) -> Iterator[Row]:
    """A row for every configuration of each direction: the tensor that came nearest to its tolerance, or went furthest beyond."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.direction, one.configuration), []).append(one)
    for (direction, configuration), group in groups.items():
        worst = max(group, key=lambda one: one.excess)
        reason = f"{worst.name}, {worst.trial}; the worst of {len(group)}"
        yield Row(f"{check}, {direction}", configuration, worst.error, worst.tolerance, reason)


@contextmanager
def watched(module: ModuleType, *launchers: str) -> Iterator[dict[str, object]]:
    """While inside, what the module's launchers choose, by the name of the function that chose, and their memory begins as NaN.

    Raises RuntimeError at the end when a launcher was not called: then something else was measured.
    """
    import torch

    chosen: dict[str, object] = {}
    called = set()
    before = {name: value for name, value in vars(module).items() if name in ("torch", *launchers) or _chooses(name, value)}

    def noted(name: str, choose: Callable) -> Callable:
        def call(*args, **keywords):
            chosen[name] = choose(*args, **keywords)
            return chosen[name]

        return call

    def counted(name: str, launch: Callable) -> Callable:
        def call(*args, **keywords):
            called.add(name)
            return launch(*args, **keywords)

        return call

    def new_empty(like, *args, **keywords):
        return poison(plain(like, *args, **keywords))

    plain = torch.Tensor.new_empty
    poisoned = ModuleType("torch")
    poisoned.__getattr__ = lambda name: getattr(torch, name)
    poisoned.empty = lambda *args, **keywords: poison(torch.empty(*args, **keywords))
    poisoned.empty_like = lambda *args, **keywords: poison(torch.empty_like(*args, **keywords))
    try:
        for name, value in before.items():
            setattr(module, name, poisoned if name == "torch" else counted(name, value) if name in launchers else noted(name, value))
        torch.Tensor.new_empty = new_empty
        yield chosen
    finally:
        torch.Tensor.new_empty = plain
        for name, value in before.items():
            setattr(module, name, value)
    missed = [name for name in launchers if name not in called]
    if missed:
        raise RuntimeError(f"the operator did not call `{missed[0]}` of its kernels")


def poison(tensor):
    """The tensor with NaN in every entry, or the largest integer."""
    import torch

    is_inexact = tensor.is_floating_point() or tensor.is_complex()
    return tensor.fill_(float("nan") if is_inexact else torch.iinfo(tensor.dtype).max)


def _chooses(name: str, value: object) -> bool:
    return callable(value) and (name.endswith("_options") or name in ("_segments", "_blocks"))


def _is_forward(name: str) -> bool:
    return name in ("_forward_options", "_segments")


def _text(chosen: dict[str, object], picks: Callable[[str], bool]) -> str:
    """`forward BT=64 BK=64 num_warps=4; 1 segment`."""
    words = []
    for name, choice in chosen.items():
        if not picks(name):
            continue
        if isinstance(choice, dict):
            words.append(f"{name.strip('_').removesuffix('_options')} {' '.join(f'{n}={v}' for n, v in choice.items())}")
        elif isinstance(choice, tuple):
            words.append(f"blocks {' '.join(map(str, choice))}")
        else:
            words.append("1 segment" if choice == 1 else "several segments")
    return "; ".join(words) or "its one configuration"


def _data(subject: Subject, trial: Trial, dtype: str):
    """Arguments in `dtype` (params in float32), initial states in float32, and `cu_seqlens`."""
    import torch

    shape = Shape(trial.batch, trial.tokens, trial.heads, max(trial.heads // 2, 1), trial.sizes)
    case = draw(subject.recurrence, shape, seed=trial.tokens, device=subject.device)
    start = subject.start(case, batch=len(trial.ends) or None)
    cut = torch.tensor([0, *trial.ends], device=subject.device) if trial.ends else None
    return case.to(getattr(torch, dtype), params_dtype=torch.float32), _to(start, torch.float32), cut


def _to(state: tuple, dtype) -> tuple:
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in state)


def _failure(check: str, compared: str, fault: Exception) -> Row:
    first = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    return Row(check, compared, float("inf"), 0.0, f"{type(fault).__name__}: {first[:160]}")
