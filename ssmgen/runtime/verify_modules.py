"""The checks of `verify` on the emitted `nn.Module`s: the recurrence's own, and every layer around it."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..module.text import camel
from .load import layer_classes
from .measure import largest, typical, worst
from .verify_checks import EXACT, SUMS, Row
from .verify_kernels import SLACK, watched
from .verify_subject import CHUNK, Subject

if TYPE_CHECKING:
    from torch import Tensor, nn

TOKENS = CHUNK + 3
SINGLE = SLACK["float32"]
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Model widths to try: a layer refuses those that its heads do not divide."""


def module(subject: Subject) -> Iterator[Row]:
    """The recurrence's module is its operator with the module's own parameters, token by token too."""
    import torch

    case = subject.case(TOKENS, seed=18)
    start = subject.start(case)
    core = _built(getattr(subject.package, camel(subject.recurrence.name)), subject, heads=case.shape.heads, groups=case.shape.groups)
    core = core.to(subject.device).double()
    with torch.no_grad():
        for name, value in case.params.items():
            _parameter(core, name).copy_(value)
    inputs = {name: _unit(x) if "unit" in subject.recurrence.symbol(name).flags else x for name, x in case.inputs.items()}
    state = subject.package.State(*start)
    output = core(*case.inputs.values(), state=state)
    direct = getattr(subject.package, subject.recurrence.name)(*inputs.values(), *case.params.values(), initial_state=state)
    yield _same("module = op", f"{TOKENS} tokens", output, direct)
    yield _same(
        "module = op",
        "allocated state = zeros",
        core(*case.inputs.values(), state=core.allocate_state(2, device=subject.device)),
        core(*case.inputs.values()),
    )
    if subject.is_reversed:
        return
    moving = subject.package.State(*(part.clone() for part in start))
    with torch.no_grad():
        steps = [core.step(*(x[:, t] for x in case.inputs.values()), state=moving) for t in range(TOKENS)]
    yield _same("module step", f"{TOKENS} tokens", (torch.stack(steps, 1), moving), output)
    pool = subject.package.State(*(part[[1, 0, 0]] for part in start))
    with torch.no_grad():
        slots = torch.tensor([-1, 0], device=subject.device)
        steps = [core.step(*(x[:, t] for x in case.inputs.values()), state=pool, slots=slots) for t in range(TOKENS)]
    found = (torch.stack(steps, 1), [part[[1, 2]] for part in pool], [part[:1] for part in pool])
    y = torch.stack((torch.zeros_like(output.y[0]), output.y[1]))
    yield _same(
        "module step", "a pool, one absent", found, (y, [part[[0, 0]] for part in start], [part[1:] for part in output.final_state])
    )


def _parameter(core: nn.Module, name: str) -> Tensor:
    from ..backends.torch_text import identifier

    return core.get_parameter(identifier(name))


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def layers(subject: Subject) -> Iterator[Row]:
    """Every layer: decoding is the forward pass, a split is the whole, packed documents do not meet, gradients arrive."""
    for kind in layer_classes(subject.package, subject.recurrence.name):
        yield from _layer(kind.__name__, kind, subject)


def _layer(name: str, kind: type, subject: Subject) -> Iterator[Row]:
    import torch

    torch.manual_seed(19)
    layer, width = _narrowest(kind, subject)
    layer = layer.to(subject.device).double()
    u = torch.randn(2, TOKENS, width, dtype=torch.float64, device=subject.device)
    whole = layer(u)
    whole.y.square().sum().backward()
    missing = sum(1 for p in layer.parameters() if p.grad is None or not p.grad.isfinite().all())
    yield Row(name, "parameters without a finite gradient", float(missing), 0.0, "every parameter is used")
    with torch.no_grad():
        if not subject.is_reversed:
            state = layer.allocate_state(2)
            steps = torch.stack([layer.step(u[:, t], state=state) for t in range(TOKENS)], 1)
            yield _same(name, f"step = forward, {TOKENS} tokens", (steps, state), whole)
            first = layer(u[:, :7])
            second = layer(u[:, 7:], state=first.final_state)
            yield _same(name, "split at token 7", (torch.cat([first.y, second.y], 1), second.final_state), whole)
            yield from _paged(name, layer, width, subject)
        lengths, row = (9, 1, TOKENS - 10), u[:1]
        bounds = torch.tensor([0, *lengths], device=subject.device).cumsum(0)
        apart = [layer(part) for part in row.split(lengths, 1)]
        states = [torch.cat(parts) for parts in zip(*(_leaves(run.final_state) for run in apart), strict=True)]
        yield _same(name, "packed = separate", layer(row, cu_seqlens=bounds), (torch.cat([run.y for run in apart], 1), states))


def _paged(name: str, layer: nn.Module, width: int, subject: Subject) -> Iterator[Row]:
    """Token by token after a prefill, on rows of a pool: a sequence has row 3, one is absent, one has row 0. In float32 a GPU runs
    the kernel that the package has for the layer."""
    import torch

    u = torch.randn(3, TOKENS, width, dtype=torch.float64, device=subject.device)
    for dtype, tolerance, distance in ((torch.float64, EXACT, largest), (torch.float32, SINGLE, typical)):
        own = copy.deepcopy(layer).to(dtype)
        exact = copy.deepcopy(own).double()
        given = u.to(dtype)
        prefix = _leaves(own(given[:, :7]).final_state)
        kernel = _kernel(subject, name) if dtype == torch.float32 else None
        for slots in (None, torch.tensor([3, -1, 0], device=subject.device)):
            rows, there, kept = ([0, 1, 2], [0, 1, 2], []) if slots is None else ([3, 0], [0, 2], [1, 2])
            pool = [x.clone() if slots is None else x[[2, 1, 1, 0]] for x in prefix]
            before = [x[kept].clone() for x in pool]
            state = _filled(own.allocate_state(1), iter(pool))
            with contextlib.nullcontext() if kernel is None else watched(kernel, "step"):
                steps = torch.stack([own.step(given[:, t], state=state, slots=slots) for t in range(7, TOKENS)], 1)
            whole = exact(given.double())
            absent = [i for i in range(3) if i not in there]
            found = [steps[there], *(x[rows] for x in pool), steps[absent], *(x[kept] for x in pool)]
            wanted = [whole.y[there, 7:], *(x[there] for x in _leaves(whole.final_state)), 0 * steps[absent], *before]
            error = worst(zip(found, wanted, strict=True), distance)
            words = f"{str(dtype).removeprefix('torch.')}{', a pool' if slots is not None else ''}{', the kernel' if kernel else ''}"
            yield Row(name, f"steps after a prefill = forward, {words}", error, tolerance, "absent sequences leave no trace")


def _kernel(subject: Subject, name: str) -> ModuleType | None:
    """The module with the kernel of a layer; None on the processor, and where the layer has none."""
    folder = Path(subject.package.__file__).parent
    (file,) = [path.stem for path in folder.glob("decode_*.py") if camel(path.stem.removeprefix("decode_")) == name] or [""]
    if not file or subject.kernels("_decode") is None:
        return None
    return importlib.import_module(f"{subject.package.__name__}.{file}")


def _filled(state, parts: Iterator[Tensor]):
    """A state of the same structure, of these tensors."""
    return type(state)(*(_filled(part, parts) for part in state)) if isinstance(state, tuple) else next(parts)


def _built(kind: type, subject: Subject, **more: int) -> nn.Module:
    known = inspect.signature(kind.__init__).parameters
    sizes = {"channels": more.get("heads"), **more, **subject.sizes}
    return kind(**{name: value for name, value in sizes.items() if name in known and value is not None})


def _narrowest(kind: type, subject: Subject) -> tuple[nn.Module, int]:
    """The layer at the first width that it takes and that gives it more than one head."""
    model, fallback = list(inspect.signature(kind.__init__).parameters)[1], None
    for width in (w * scale for scale in (1, 5, 3, 15) for w in WIDTHS):
        try:
            layer = _built(kind, subject, **{model: width})
        except ValueError:
            continue
        fallback = fallback or (layer, width)
        if getattr(layer, "heads", 2) > 1:
            return layer, width
    if fallback is None:
        raise ValueError(f"{kind.__name__} takes none of the widths tried")
    return fallback


def _leaves(state) -> list[Tensor]:
    """The tensors of a nested state, in order."""
    if isinstance(state, (tuple, list)):
        return [leaf for part in state for leaf in _leaves(part)]
    return [state]


def _same(check: str, compared: str, actual, expected) -> Row:
    found, wanted = _leaves(actual), _leaves(expected)
    error = worst(zip(found, wanted, strict=True), largest) if len(found) == len(wanted) else math.inf
    return Row(check, compared, error, EXACT, SUMS)
