"""The kernels that a package launches, recorded where there is no GPU.

The package's own functions are called, forward, backward and one token, with tensors that have shapes and no data (torch's
meta device) and say that they are on a GPU. A dispatch mode lets the package's operators run as they would there, instead of the
shapes they register for tracing. Triton binds and specialises the arguments as for a launch, for a target that is only
named, and asks its cache hook before it compiles: the hook writes down what would be compiled, and says that it is done.
So the package needs nothing of its own for this. It has to find out about the GPU by what is answered here: `Tensor.is_cuda`,
`Tensor.device`, `torch.cuda`'s capability and properties, `torch.version.hip`, Triton's current target.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from .. import spec
from .load import layer_classes, load
from .sample import Case, Shape, draw
from .targets import Target, here

HEADS, GROUPS = 16, 4
DOCUMENTS = 5
LENGTHS = ((1, 1), (8, 1000), (1, 8192), (4, 65536))
"""(batch, tokens) of the calls: one token, many short sequences of an uneven length, a long one that is cut into segments, and so
much that backward goes in slices."""

STEPS = (1, 32, 128)
"""Batches of the calls for one token."""


@dataclass(frozen=True)
class Launch:
    """One kernel as it would be compiled: Triton's function, signature, constants, attributes and options."""

    target: Target
    kernel: Any
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any]
    dtype: str  # of the inputs; of the first call that launched it
    call: str  # 'forward' | 'backward' | 'step'
    is_packed: bool

    @property
    def name(self) -> str:
        """The kernel's name in the package."""
        return self.kernel.__name__

    @property
    def configuration(self) -> dict[str, Any]:
        """The constants by name, then warps and stages."""
        names = [parameter.name for parameter in self.kernel.params]
        constants = {names[path[0]]: value for path, value in self.constants.items()}
        return constants | {name: self.options[name] for name in ("num_warps", "num_stages")}


@dataclass(frozen=True)
class Recording:
    """What a package launches on one target, every kernel once, and its kernels that no call reached."""

    launches: tuple[Launch, ...]
    unreached: tuple[str, ...]


def has_kernels(folder: Path) -> bool:
    """Whether a file of the package uses Triton."""
    return any(re.search(r"^import triton$", file.read_text(encoding="utf-8"), re.MULTILINE) for file in folder.glob("*.py"))


def record(folder: Path, recurrence: spec.Recurrence, target: Target, dtypes: tuple[str, ...]) -> Recording:
    """The launches of the package in `folder` at the spec's own sizes, for inputs of `dtypes`, packed and not.

    Params are given in float32 and in the inputs' dtype. Nothing is compiled, and nothing is written to the folder.
    """
    import torch

    found: dict[tuple[str, str], Launch] = {}
    call: dict[str, Any] = {}
    asked: list[str] = []
    noted = _noting(target, found, call)

    def counted(*, key, **given) -> bool:
        asked.append(key)
        return noted(key=key, **given)

    with _gpu(target, counted):
        package = load(folder)
        _forgotten(package)
        namespace = sys.modules[f"{package.__name__}.op"].NAMESPACE
        layers, has_step = _layers(package, recurrence), (folder / "decode.py").exists()
        one = draw(recurrence, Shape(1, 1, HEADS, GROUPS, {**dict(recurrence.dims), **dict(recurrence.counts)}))
        with _pretence(namespace):
            for dtype in dtypes:
                for params in dict.fromkeys(("float32", dtype)):
                    case = one.to(getattr(torch, dtype), params_dtype=getattr(torch, params))
                    for is_packed in (False, True):
                        call |= {"dtype": dtype, "is_packed": is_packed}
                        before = len(asked)
                        for batch, length in LENGTHS:
                            _differentiate(package, case, 1 if is_packed else batch, length, is_packed, call)
                            if len(asked) == before:
                                break  # left to the torch form, whose loop over chunks would only take long
                    call["is_packed"] = False
                    _step(package, case, has_step, call)
                for kind, width in layers:
                    _step_layer(kind, width, getattr(torch, dtype), has_step, call)
    _forgotten(package)
    launches = tuple(found.values())
    return Recording(launches, _unreached(package, {launch.name for launch in launches}))


@contextmanager
def recorded(call: dict[str, Any]) -> Iterator[dict[tuple[str, str], Launch]]:
    """While inside, what Triton would compile for the GPU of this machine is written down, neither compiled nor launched.

    `call` is what `Launch` says of the call that launched it; whoever calls keeps it up to date. What a kernel should have
    written holds anything. A kernel that this process compiled before is launched, and not written down.
    """
    from triton import knobs

    found: dict[tuple[str, str], Launch] = {}
    with knobs.runtime.scope():
        knobs.runtime.jit_cache_hook = _noting(here(), found, call)
        yield found


def _noting(target: Target, found: dict[tuple[str, str], Launch], call: dict[str, Any]):
    """What Triton asks before it compiles: it keeps the launch, and answers that nothing is to be done."""

    def noted(*, key, fn, compile, **_) -> bool:
        kept = json.loads(compile["specialization_data"])["options"]
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
        launch = Launch(target, fn.jit_function, compile["signature"], compile["constants"], compile["configs"][0], options, **call)
        found.setdefault((launch.name, key), launch)
        return True

    return noted


def _differentiate(package: ModuleType, case: Case, batch: int, length: int, is_packed: bool, call: dict[str, Any]) -> None:
    """The operator without an initial state, then with one; gradients from the output alone, and from the final state as well."""
    import torch

    operator = getattr(package, case.recurrence.name)
    arguments = [_empty(x, batch, length, *x.shape[2:]) for x in case.inputs.values()]
    arguments += [_empty(x, *x.shape) for x in case.params.values()]
    documents = torch.empty(DOCUMENTS + 1, dtype=torch.int64, device="meta") if is_packed else None
    start = None
    for _ in range(2):
        call["call"] = "forward"
        output = operator(*arguments, initial_state=start, cu_seqlens=documents)
        parts = [part for part in output.final_state if part.requires_grad]
        leaves = [x for x in (*arguments, *(start or ())) if x.requires_grad]
        call["call"] = "backward"
        for results in ([output.y], [output.y, *parts]):
            torch.autograd.grad(results, leaves, [torch.empty_like(x) for x in results], retain_graph=True, allow_unused=True)
        start = package.State(*(_empty(part, *part.shape) for part in output.final_state))


def _step(package: ModuleType, case: Case, has_step: bool, call: dict[str, Any]) -> None:
    """One token of several batches, with and without slots of states; a recurrence that runs from the end of time has no step.

    has_step: a kernel runs it. The torch form looks at which slots are absent, and there are no data to look at.
    """
    import torch

    step = getattr(package, f"{case.recurrence.name}_step", None)
    if step is None:
        return
    params = [_empty(x, *x.shape) for x in case.params.values()]
    takes_slots = has_step and "slots" in inspect.signature(step).parameters
    with torch.no_grad():
        for batch in STEPS:
            tokens = [_empty(x, batch, 1, *x.shape[2:]) for x in case.inputs.values()]
            call["call"] = "forward"
            state = getattr(package, case.recurrence.name)(*tokens, *params).final_state
            state = package.State(*(_empty(part, *part.shape).detach() for part in state))
            call["call"] = "step"
            step(*(x[:, 0] for x in tokens), *params, state=state)
            if takes_slots:
                step(*(x[:, 0] for x in tokens), *params, state=state, slots=torch.empty(batch, dtype=torch.int64, device="meta"))


def _layers(package: ModuleType, recurrence: spec.Recurrence) -> list[tuple[type, int]]:
    """The layers of the package that have a step, each at a width that gives it `HEADS` heads, or the first that it takes."""
    sizes = [size for _, size in recurrence.dims]
    widths = sorted({HEADS * size * up // down for size in sizes for up in (1, 2, 4) for down in (1, 2, 4)})
    found = []
    for kind in layer_classes(package, recurrence.name):
        heads = {width: _heads(kind, width) for width in widths} if hasattr(kind, "step") else {}
        fitting = [width for width, count in heads.items() if count]
        found += [(kind, next((width for width in fitting if heads[width] == HEADS), fitting[0]))] if fitting else []
    return found


def _heads(kind: type, width: int) -> int:
    """How many heads a layer has at a width; 0 where it refuses the width, `HEADS` where it does not say."""
    try:
        return getattr(kind(width, device="meta"), "heads", HEADS)
    except ValueError:
        return 0


def _step_layer(kind: type, width: int, dtype, has_step: bool, call: dict[str, Any]) -> None:
    """One token of a layer, in several batches, with and without slots of a pool; has_step: as of `_step`."""
    import torch

    layer = kind(width, device="meta", dtype=dtype)
    call["call"] = "step"
    for batch in STEPS:
        u = torch.empty(batch, width, dtype=dtype, device="meta")
        state = layer.allocate_state(batch, "meta", dtype)
        for slots in (None, torch.empty(batch, dtype=torch.int64, device="meta"))[: 1 + has_step]:
            layer.step(u, state=state, slots=slots)


def _forgotten(package: ModuleType) -> None:
    """What the package found out about a GPU it asks again: this one is another."""
    if (tuning := sys.modules.get(f"{package.__name__}.tuning")) is not None:
        tuning.forget()


def _empty(like, *shape: int):
    """A tensor of a shape, without data; a leaf of the graph where it can have a gradient."""
    import torch

    return torch.empty(shape, dtype=like.dtype, device="meta", requires_grad=like.dtype.is_floating_point or like.dtype.is_complex)


def _unreached(package: ModuleType, names: set[str]) -> tuple[str, ...]:
    """Kernels that the package's files define (`<what>_kernel`) and that were not launched."""
    files = sorted(Path(package.__file__).parent.glob("*.py"))
    defined = [name for file in files for name in re.findall(r"^def (\w+_kernel)\(", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return tuple(name for name in defined if name not in names)


# --- the GPU that is not there -----------------------------------------------------------------------------------


@contextmanager
def _gpu(target: Target, launched) -> Iterator[None]:
    """torch and Triton describe the target; `launched` is asked before every compilation."""
    import torch
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    properties = SimpleNamespace(
        name=target.product, major=target.capability[0], minor=target.capability[1], multi_processor_count=target.processors,
        warp_size=target.warp, shared_memory_per_block_optin=target.shared, gcnArchName=target.name,
    )  # fmt: skip
    limits = {"multiprocessor_count": target.processors, "max_shared_mem": target.shared, "warpSize": target.warp}
    active = SimpleNamespace(
        get_current_target=lambda: GPUTarget(target.backend, target.arch, target.warp),
        get_current_device=lambda: target.name,  # Triton keeps launchers by device: a name meets no device that exists
        get_current_stream=lambda device: 0,
        utils=SimpleNamespace(get_device_properties=lambda device: limits),
    )
    with ExitStack() as stack:
        stack.enter_context(knobs.runtime.scope())
        knobs.runtime.interpret = False
        knobs.runtime.jit_cache_hook = launched
        stack.enter_context(_replaced(sys, dont_write_bytecode=True))
        stack.enter_context(_replaced(torch.version, hip="7" if target.backend == "hip" else None))
        answers = {"get_device_properties": properties, "get_device_capability": target.capability, "current_device": 0}
        stack.enter_context(_replaced(torch.cuda, **{name: _answer(value) for name, value in answers.items()}))
        driver.set_active(active)
        stack.callback(driver.set_active, None)  # Triton looks for the real one when it is next asked
        yield


def _answer(value):
    return lambda *_: value


@contextmanager
def _replaced(owner, **values) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def _pretence(namespace: str) -> Iterator[None]:
    """Inside, tensors say that they are on a GPU, and the operators of `namespace` run as they would there."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    gpu = torch.device("cuda", 0)
    answers = {torch.Tensor.is_cuda.__get__: True, torch.Tensor.device.__get__: gpu}

    def place(argument):
        """A GPU as the place of a new tensor: the place without data."""
        is_gpu = isinstance(argument, (torch.device, str)) and str(argument).startswith("cuda")
        return torch.device("meta") if is_gpu else argument

    class OnGpu(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in answers:
                return answers[function]
            return function(*map(place, args), **{name: place(value) for name, value in (kwargs or {}).items()})

    class Run(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.namespace == namespace:
                for key in (torch._C.DispatchKey.CUDA, torch._C.DispatchKey.CompositeExplicitAutograd):
                    if function.has_kernel_for_dispatch_key(key):
                        with self, OnGpu():
                            return function.redispatch(torch._C.DispatchKeySet(key), *args, **(kwargs or {}))
            return function(*args, **(kwargs or {}))

    with OnGpu(), Run():
        yield
