"""The Triton kernels of a package against float64: every configuration that it ships on a device, in every dtype.

They are compiled ahead, many at a time. What the launchers allocate is filled with NaN before a kernel sees it, so that memory
which no kernel writes shows. A row is a configuration, with the worst of all that was computed with it: outputs and states, or
gradients.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from types import ModuleType

from ..small import arguments_of, small_sizes
from .cross_compile import Failure, compile_ahead
from .launches import recorded
from .measure import together, typical
from .sample import Shape, complex_of, draw
from .verify_checks import Row
from .verify_subject import Run, Subject

SLACK = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""How far a result may be off by inputs' dtype, root mean square: products round their operands to it, sums are float32.

Twice the error of the eager reference in the same dtype is allowed as well, where that is more: of a factor that is multiplied by
itself a thousand times, a quotient by what nearly vanishes, or a sum that cancels, no program keeps more digits.
"""

QUICK = ("bfloat16", "float32")
"""Dtypes of a quick comparison: that of training, and the one whose roundings hide least."""

CANCELLED = {"float32": 2e-4, "float16": 8e-3, "bfloat16": 6e-2}
"""The same of a gate's gradient, which is a difference of sums over the sequence."""

ODD = (24, 36, 20, 28)
"""Widths, by order of declaration, that fill no block; the next multiple of what the spec's shapes ask for."""

WIDTHS = ((16, 16, 16, 16), (200, 72, 136, 88), (256, 256, 256, 256))
"""More of them: the narrowest, some that end inside a second block, the widest."""

HEADS = 4
"""A kernel is compiled for its number of heads: every trial has the same."""

STEPS = 3

DRAWS = 7
"""Sets of data over which a result is judged that is off with one: a sum may vanish by chance, or one quotient nearly, and what is
left of it, of the eager reference's as well, is luck."""

DIRECT = 256
"""Tokens up to which the sequential reference says what is right; beyond, the operator in float64, which it was held against."""


@dataclass(frozen=True)
class Trial:
    """One call: its sizes, and where packed documents end (empty: a batch).

    is_bare: without an initial state, and differentiated from the output alone. is_sliced: backward in slices, as where states
    would take much memory. segments: of a sequence, in place of what the launchers choose (0: they do).
    """

    batch: int
    tokens: int
    heads: int
    sizes: dict[str, int]
    ends: tuple[int, ...] = ()
    is_bare: bool = False
    is_sliced: bool = False
    segments: int = 0

    @property
    def words(self) -> str:
        """As a row says it."""
        shape = f"{len(self.ends)} packed documents, {self.tokens} tokens" if self.ends else f"{self.batch} x {self.tokens} tokens"
        bare = (", no states" if self.is_bare else "") + (", in slices" if self.is_sliced else "")
        bare += f", {self.segments} segments" if self.segments > 1 else ""
        return f"{shape}, {self.heads} heads, {' '.join(f'{n}={s}' for n, s in self.sizes.items())}{bare}"


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


def trials(subject: Subject, is_quick: bool = False) -> tuple[Trial, ...]:
    """What reaches every choice of the launchers: the spec's own sizes and others, few programs and many, one chunk and several
    segments, packed documents of which some are empty; small ones where kernels are interpreted.

    is_quick: a handful of them, at the spec's own sizes and at odd ones, in segments, in slices, and packed.
    """
    own = own_sizes(subject)
    odd = sizes_near(subject, ODD)
    if subject.is_interpreted:
        narrow = sizes_near(subject, WIDTHS[0])
        quick = (Trial(1, 150, 2, odd, segments=3), Trial(1, 37, 2, odd, (0, 2, 2, 36, 37), segments=2))
        others = (Trial(1, 37, HEADS, narrow), Trial(2, 1, 2, odd), Trial(2, 134, 2, narrow, is_bare=True, segments=2))
    else:
        quick = (
            Trial(1, 1157, HEADS, own, (0, 200, 200, 201, 1157)),
            Trial(2, 1157, HEADS, own, is_bare=True, is_sliced=True),
            Trial(2, 533, HEADS, odd),
            Trial(1, 1100, HEADS, odd, (7, 7, 39, 1060, 1100, 1100)),
        )
        others = (
            Trial(1, 1157, HEADS, own),
            Trial(16, 131, HEADS, own),
            Trial(1, 1601, HEADS, odd, is_sliced=True),
            Trial(1, 131, HEADS, own, (0, 100, 131), is_bare=True),
            Trial(3, 1, HEADS, odd),
            *(Trial(2, 200, HEADS, sizes_near(subject, widths)) for widths in WIDTHS),
        )
    return tuple({t.words: t for t in (*quick, *(() if is_quick else others))}.values())


def own_sizes(subject: Subject) -> dict[str, int]:
    """The spec's own."""
    return {**dict(subject.recurrence.dims), **dict(subject.recurrence.counts)}


def sizes_near(subject: Subject, widths: tuple[int, ...]) -> dict[str, int]:
    """Sizes near some widths, one a dim in order of declaration, at which every shape of the spec is whole."""
    small = small_sizes(subject.recurrence)
    names = [name for name, _ in subject.recurrence.dims]
    sizes = {name: small[name] * max(round(widths[i % len(widths)] / small[name]), 1) for i, name in enumerate(names)}
    return {**sizes, **dict(subject.recurrence.counts)}


def step_trials(subject: Subject, is_quick: bool = False) -> tuple[Trial, ...]:
    """The same of the kernel for one token."""
    if subject.is_reversed:
        return ()
    batches = (1, 3) if subject.is_interpreted else (1, 33, 128)
    own, odd = own_sizes(subject), sizes_near(subject, ODD)
    found = tuple(Trial(batch, STEPS, HEADS, sizes) for sizes in (own, odd) for batch in batches)
    return (found[1], found[len(batches)]) if is_quick else found  # a batch at the spec's own sizes, one sequence at odd ones


def compilation(
    subject: Subject, dtypes: Iterable[str] = tuple(SLACK), is_small: bool = True, workers: int = 0, is_quick: bool = False
) -> Iterator[Row]:
    """Everything that the checks below launch in some dtypes, and, when `is_small`, those of the operator, compiled now, several at a
    time: `workers` or one a core. On the processor nothing is. is_quick: as of the checks below.

    What fails is remembered in `subject.uncompiled`, by the call that needs it: it is not run.
    """
    fused, single = subject.kernels("_kernels") is not None, subject.kernels("_decode") is not None
    if not fused and not single:
        return
    calls = []
    if fused:
        calls += [(f"{dtype}, {trial.words}", differentiated(trial, dtype)) for dtype in dtypes for trial in trials(subject, is_quick)]
    if fused and is_small:
        calls += [
            ("small sizes", _small(dtype, start)) for dtype, start in (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16",) * 2)
        ]
    if single:
        steps = step_trials(subject, is_quick)
        calls += [(f"{dtype}, {trial.words}, a step", _stepped(trial, dtype)) for dtype in dtypes for trial in steps]
    launches, users = {}, {}
    for words, run in calls:
        subject.say(f"what is launched for {words}")
        with recorded({"dtype": words.split(",")[0], "is_packed": "packed" in words, "call": "forward"}) as found, suppress(Exception):
            run(subject)  # what it raises here it raises again where it is judged
        for key, launch in found.items():
            users.setdefault(id(launches.setdefault(key, launch)), []).append(words)
    failed, done = [], 0
    for launch, outcome in compile_ahead(list(launches.values()), workers or os.cpu_count() or 1):
        done += 1
        subject.say(f"{done} of {len(launches)} kernels compiled")
        if isinstance(outcome, Failure):
            failed.append(f"{launch.name}, {users[id(launch)][0]}: {outcome.line}")
            subject.uncompiled.update(dict.fromkeys(users[id(launch)], f"{launch.name}: {outcome.line}"))
    reason = failed[0][:160] if failed else f"{len({launch.name for launch in launches.values()})} kernels"
    yield Row("compilation", f"{len(launches)} configurations, of which do not compile", float(len(failed)), 0.0, reason)


def differentiated(trial: Trial, dtype: str) -> Callable[[Subject], None]:
    """A call of the operator and of its backward pass, as `compare` makes them."""

    def run(subject: Subject) -> None:
        case, start, cut = _data(subject, trial, dtype)
        with sliced(subject.kernels("_kernels"), trial):
            subject.gradients(lambda c, s: subject.op(c, _of(trial, s), cu_seqlens=cut, chunk=64), case, start, of=_read(trial))

    return run


def _stepped(trial: Trial, dtype: str):
    def run(subject: Subject) -> None:
        case, start, _ = _data(subject, trial, dtype)
        subject.steps(case, start)

    return run


def _small(dtype: str, states: str):
    """What the checks of the operator launch: small sizes, states in float32 or in the inputs' dtype."""

    def run(subject: Subject) -> None:
        import torch

        case = subject.case(5)
        start = _to(subject.start(case), getattr(torch, states))
        case = case.to(getattr(torch, dtype), params_dtype=getattr(torch, states))
        subject.gradients(subject.op, case, start)

    return run


def kernels(subject: Subject, dtypes: Iterable[str] = tuple(SLACK), is_quick: bool = False) -> Iterator[Row]:
    """Every configuration of the chunked kernels, both directions, or those that few trials reach. On the processor nothing is launched."""
    module = subject.kernels("_kernels")
    if module is not None:
        chosen = trials(subject, is_quick)
        yield from _measured("kernels", subject, chosen, dtypes, "", lambda trial, dtype: compare(subject, module, trial, dtype))


def _measured(
    check: str, subject: Subject, trials: Iterable[Trial], dtypes: Iterable[str], suffix: str, compared: Callable
) -> Iterator[Row]:
    """The rows of every trial in every dtype. One that does not compile or run has failed; the others are still measured."""
    for dtype in dtypes:
        found, failed = [], []
        for trial in trials:
            words = f"{dtype}, {trial.words}"
            subject.say(f"{check}: {words}")
            if words + suffix in subject.uncompiled:
                failed.append(Row(check, words, float("inf"), 0.0, subject.uncompiled[words + suffix][:160]))
                continue
            try:
                found += compared(trial, dtype)
            except Exception as fault:
                failed.append(_failure(check, words, fault))
        yield from (*rows(check, found), *failed)


def decode(subject: Subject, dtypes: Iterable[str] = tuple(SLACK), is_quick: bool = False) -> Iterator[Row]:
    """Every configuration of the kernel for one token, or those that few trials reach. On the processor nothing is launched."""
    module = subject.kernels("_decode")
    if module is not None:
        trials = step_trials(subject, is_quick)
        yield from _measured(
            "decode kernel", subject, trials, dtypes, ", a step", lambda trial, dtype: compare_steps(subject, module, trial, dtype)
        )


def compare(subject: Subject, module: ModuleType, trial: Trial, dtype: str) -> list[Measured]:
    """Outputs, final states and gradients of every argument and initial state, against float64 on the same rounded data.

    Empty for sizes that the kernels leave to the torch form, and for sequences that are convolutions.
    """
    draws = [first] if (first := _drawn(subject, module, trial, dtype, 0)) else []
    measured = _over(draws, trial, dtype)
    if any(1 < one.excess < math.inf for one in measured):
        draws += [_drawn(subject, module, trial, dtype, number) for number in range(1, DRAWS)]
        measured = _over(draws, trial, dtype)
    return measured


@dataclass(frozen=True)
class _Drawn:
    """One set of data: by name, what kernels gave and what is right; the words of their configurations; and the eager reference's."""

    found: dict[str, object]
    exact: dict[str, object]
    forward: str
    backward: str
    cancelled: set[str]
    eager: Callable[[], dict[str, object]]


def _over(draws: list[_Drawn], trial: Trial, dtype: str) -> list[Measured]:
    """What some sets of data say together."""

    def errors(results: list[dict[str, object]]) -> dict[str, float]:
        return {name: together([(given[name], one.exact[name]) for given, one in zip(results, draws, strict=True)]) for name in results[0]}

    if not draws:
        return []
    measured, first = [], draws[0]
    for name, error in errors([one.found for one in draws]).items():
        direction, configuration = ("backward", first.backward) if name.startswith("gradient of ") else ("forward", first.forward)
        allowed = (CANCELLED if name in first.cancelled else SLACK)[dtype]
        measured.append(Measured(direction, configuration, name, error, allowed, trial.words))
    return judged(measured, dtype, lambda: errors([one.eager() for one in draws]))


def _drawn(subject: Subject, module: ModuleType, trial: Trial, dtype: str, number: int) -> _Drawn | None:
    import torch

    case, start, cut = _data(subject, trial, dtype, number)
    # where products of matrices stand outside of the operator, its kernels are given others, and what they answer is listened to
    own = sys.modules[f"{subject.package.__name__}.op"]
    is_whole = not hasattr(own, "_product")
    if is_whole and not module.fits(*_taken_apart(subject, module, case.arguments), *_parts(start[: len(subject.recurrence.states)])):
        return None
    exact, wide = case.to(torch.float64), _to(start, torch.float64)
    ran: dict[str, Run] = {}

    def reference(c, s):
        s = _of(trial, s)
        ran["truth"] = subject.reference(c, s, cut) if trial.tokens <= DIRECT else subject.op(c, s, cu_seqlens=cut, chunk=64)
        return ran["truth"]

    def op(c, s):
        ran["found"] = subject.op(c, _of(trial, s), cu_seqlens=cut, chunk=64)
        return ran["found"]

    expected = subject.gradients(reference, exact, wide, of=_read(trial))
    with answered(module, "fits") as fitting, answered(own, "_convolves") as convolving:
        try:
            with ExitStack() as watching:
                chosen = [watching.enter_context(watched(each, "forward", "backward")) for each in launchers_of(module)]
                watching.enter_context(sliced(module, trial))
                watching.enter_context(segmented(module, trial))
                for other in _running(subject):
                    watching.enter_context(watched(other))
                slopes = subject.gradients(op, case, start, of=_read(trial))
        except NotCalled:
            if any(convolving) or (fitting and not any(fitting)):
                return None
            raise
    packed = ", packed" if trial.ends else ""
    forward = f"{dtype}{packed}: {_text(chosen, lambda name: _is_forward(name))}"
    backward = f"{dtype}{packed}: {_text(chosen, lambda name: not _is_forward(name))}"
    inputs, params = arguments_of(subject.recurrence)
    cancelled = {f"gradient of {s.name}" for s in (*inputs, *params) if s.type.is_scalar or s in params}

    def named(run: Run, slopes: dict) -> dict[str, object]:
        return _named(subject, run) | {f"gradient of {n}": slope for n, slope in slopes.items()}

    def eager() -> dict[str, object]:
        def reference(c, s):
            ran["eager"] = subject.reference(c, _of(trial, s), cut)
            return ran["eager"]

        slopes = subject.gradients(reference, case, start, of=_read(trial))
        return named(ran["eager"], slopes)

    return _Drawn(named(ran["found"], slopes), named(ran["truth"], expected), forward, backward, cancelled, eager)


def _apart(subject: Subject, found: Run, truth: Run) -> dict[str, float]:
    """The error of the output and of every part of the state."""
    exact = _named(subject, truth)
    return {name: typical(tensor, exact[name]) for name, tensor in _named(subject, found).items()}


def _named(subject: Subject, run: Run) -> dict[str, object]:
    """The output and every part of the state, by name."""
    return dict(zip(("y", *subject.names), run.tensors, strict=True))


def judged(measured: list[Measured], dtype: str, eager: Callable[[], dict[str, float]]) -> list[Measured]:
    """The same; where something is off, twice what `eager` says of the eager reference in the dtype is allowed too.

    In 16 bits the reference may leave the dtype's range: then there is nothing to hold a kernel against, and the row is left out.
    """
    if all(one.excess < 1 for one in measured):
        return measured
    errors = eager()
    left = {name for name, error in errors.items() if not math.isfinite(error)}
    kept = measured if dtype == "float32" else [one for one in measured if one.name not in left]
    return [one if one.name in left else replace(one, tolerance=max(one.tolerance, 2 * errors.get(one.name, 0.0))) for one in kept]


def launchers_of(module: ModuleType) -> tuple[ModuleType, ...]:
    """The kernels of an operator, and those of its walks where these have files of their own."""
    return (module, *getattr(module, "MODULES", ()))


def _running(subject: Subject) -> tuple[ModuleType, ...]:
    """The kernels of what runs on before the operator, where there are any."""
    own = getattr(sys.modules[f"{subject.package.__name__}.op"], "_running", None)
    return () if own is None else (own(),)


def compare_steps(subject: Subject, module: ModuleType, trial: Trial, dtype: str) -> list[Measured]:
    """Outputs of several steps and the state they leave, against float64 on the same rounded data."""
    import torch

    case, start, _ = _data(subject, trial, dtype)
    truth = subject.reference(case.to(torch.float64), _to(start, torch.float64))
    with watched(module, "step") as chosen:
        found = subject.steps(case, start)
    configuration = f"{dtype}: {_text([chosen], lambda name: True)}"
    errors = _apart(subject, found, truth)
    measured = [Measured("step", configuration, name, error, SLACK[dtype], trial.words) for name, error in errors.items()]
    return judged(measured, dtype, lambda: _apart(subject, subject.reference(case, start), truth))


def rows(check: str, measured: Iterable[Measured]) -> Iterator[Row]:
    """A row for every configuration of each direction: the tensor that came nearest to its tolerance, or went furthest beyond."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.direction, one.configuration), []).append(one)
    for (direction, configuration), group in groups.items():
        worst = max(group, key=lambda one: one.excess)
        reason = f"{worst.name}, {worst.trial}; the worst of {len(group)}"
        yield Row(f"{check}, {direction}", configuration, worst.error, worst.tolerance, reason)


class NotCalled(RuntimeError):
    """A launcher that was to be measured did not run."""


@contextmanager
def exchanged(module: object, values: dict[str, object]) -> Iterator[None]:
    """While inside, other values under these names of the module, those of them that it has."""
    before = {name: getattr(module, name) for name in values if hasattr(module, name)}
    try:
        for name in before:
            setattr(module, name, values[name])
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextmanager
def answered(module: ModuleType, name: str) -> Iterator[list]:
    """While inside, what a function of the module answers, where it has one of this name."""
    answers: list = []
    asked = getattr(module, name, None)

    def call(*args, **keywords):
        answers.append(asked(*args, **keywords))
        return answers[-1]

    with exchanged(module, {name: call}):
        yield answers


@contextmanager
def watched(module: ModuleType, *launchers: str) -> Iterator[dict[str, object]]:
    """While inside, what the module's launchers choose, by the name of the function that chose, and their memory begins as NaN.

    Raises NotCalled at the end when a launcher was not called: then something else was measured.
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
    watching = {n: poisoned if n == "torch" else counted(n, value) if n in launchers else noted(n, value) for n, value in before.items()}
    with exchanged(module, watching), exchanged(torch.Tensor, {"new_empty": new_empty}):
        yield chosen
    missed = [name for name in launchers if name not in called]
    if missed:
        raise NotCalled(f"the operator did not call `{missed[0]}` of its kernels")


def sliced(module: ModuleType, trial: Trial) -> AbstractContextManager[None]:
    """Inside, the states at chunk edges may take no memory, where the trial says so: backward runs in as many slices as it can."""
    return exchanged(module, {"STATES_LIMIT": 1} if trial.is_sliced else {})


def segmented(module: ModuleType, trial: Trial) -> AbstractContextManager[None]:
    """Inside, sequences are cut into as many segments, and backward into slices, as the trial says; states are kept at short ways, and a
    program takes all heads of a group in turn."""
    chosen = {"_segments": lambda *_: trial.segments, "_slices": lambda *_: trial.segments, "_turns": lambda _, heads: heads, "EDGE": 64}
    return exchanged(module, chosen if trial.segments else {})


def poison(tensor):
    """The tensor with NaN in every entry, or the largest integer."""
    import torch

    is_inexact = tensor.is_floating_point() or tensor.is_complex()
    return tensor.fill_(float("nan") if is_inexact else torch.iinfo(tensor.dtype).max)


def _chooses(name: str, value: object) -> bool:
    return callable(value) and (name.endswith("_options") or name in ("_segments", "_slices", "_blocks"))


def _is_forward(name: str) -> bool:
    return name in ("_column_options", "_operand_options", "_pairs_options", "_forward_options", "_segments")


def _text(chosen: Iterable[dict[str, object]], picks: Callable[[str], bool]) -> str:
    """`forward BT=64 BK=64 num_warps=4; 1 segment`."""
    words = []
    for name, choice in (item for each in chosen for item in each.items() if picks(item[0])):
        if isinstance(choice, dict):
            words.append(f"{name.strip('_').removesuffix('_options')} {' '.join(f'{n}={v}' for n, v in choice.items())}")
        elif isinstance(choice, tuple):
            words.append(f"blocks {' '.join(map(str, choice))}")
        else:
            word = name.strip("_")
            words.append(f"1 {word[:-1]}" if choice == 1 else f"several {word}")
    return "; ".join(dict.fromkeys(words)) or "its one configuration"


def _data(subject: Subject, trial: Trial, dtype: str, number: int = 0):
    """Arguments in `dtype` (params in float32), initial states in float32, and `cu_seqlens`."""
    import torch

    shape = Shape(trial.batch, trial.tokens, trial.heads, max(trial.heads // 2, 1), trial.sizes)
    case = draw(subject.recurrence, shape, seed=trial.tokens + 7919 * number, device=subject.device)
    start = subject.start(case, batch=len(trial.ends) or None)
    cut = torch.tensor([0, *trial.ends], device=subject.device) if trial.ends else None
    return case.to(getattr(torch, dtype), params_dtype=torch.float32), _to(start, torch.float32), cut


def _of(trial: Trial, state: tuple) -> tuple | None:
    """The initial state of a trial."""
    return None if trial.is_bare else state


def _read(trial: Trial) -> Callable[[Run], tuple]:
    """What gradients are taken of."""
    return lambda run: run.tensors[:1] if trial.is_bare else run.tensors


def _to(state: tuple, dtype) -> tuple:
    return tuple(x.to(dtype) if x.is_floating_point() else x.to(complex_of(dtype)) if x.is_complex() else x for x in state)


def _parts(tensors: tuple) -> tuple:
    """As operators take them: real and imaginary part by itself."""
    return tuple(part for x in tensors for part in ((x.real, x.imag) if x.is_complex() else (x,)))


def _taken_apart(subject: Subject, module: ModuleType, tensors: tuple) -> tuple:
    """Arguments as the kernels of `module` take them: also row by row, where the names say so."""
    names = iter([name.rstrip("_") for name in inspect.signature(module.fits).parameters])
    inputs, params = arguments_of(subject.recurrence)
    found: list = []
    for symbol, x in zip((*inputs, *params), tensors, strict=True):
        own = symbol.name.rstrip("_")
        is_whole = next(names) in (own, f"{own}_re")
        parts = _parts((x,) if is_whole else x.unbind(-1 if symbol.type.is_column else -2))
        found += parts
        for _ in parts[1:]:
            next(names)
    return tuple(found)


def _failure(check: str, compared: str, fault: Exception) -> Row:
    first = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    return Row(check, compared, float("inf"), 0.0, f"{type(fault).__name__}: {first[:160]}")
