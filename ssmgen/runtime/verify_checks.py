"""The checks of `verify`, each a generator of rows. A row states the error it measured and why it may be that large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..small import arguments_of
from .measure import largest, typical, worst
from .sample import Case, complex_of
from .verify_subject import CHUNK, Run, Subject

EXACT = 1e-9
SUMS = "float64, sums in another order"
LENGTHS = (1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3)
LONG = 2 * CHUNK + 3
FLOOR = {"float32": 2e-6, "bfloat16": 4e-3}
FEW = 150
MIXED = 1e-4
CANCELLED = 1e-4
DIFFERENCE = "; a decay's gradient is a difference of sums"
TWICE = "twice the eager reference's own error in this dtype, plus one rounding"


@dataclass(frozen=True)
class Row:
    """One measurement. It passes only when the error is a number that is at most the tolerance."""

    check: str
    compared: str
    error: float
    tolerance: float
    reason: str

    @property
    def passed(self) -> bool:
        """False for NaN and for infinity."""
        return math.isfinite(self.error) and self.error <= self.tolerance


def _exact(check: str, compared: str, actual: Run, expected: Run, reason: str = SUMS, tolerance: float = EXACT) -> Row:
    error = worst(zip(actual.tensors, expected.tensors, strict=True))
    return Row(check, compared, error, tolerance, reason)


# --- the reference -----------------------------------------------------------------------------------------------


def reference_interpreter(subject: Subject) -> Iterator[Row]:
    """Two sequential loops that share no code."""
    case = subject.case(9)
    start = subject.start(case)
    name, reason = "reference = interpreter", "float64, the same operations"
    yield _exact(name, "9 tokens from zeros", subject.reference(case), subject.interpret(case), reason)
    yield _exact(name, "9 tokens from a random state", subject.reference(case, start), subject.interpret(case, start), reason)
    case, bounds = _packed(subject, (1, 5, 3))
    start = subject.start(case, batch=3)
    yield _exact(name, "3 packed documents", subject.reference(case, start, bounds), subject.interpret(case, start, bounds), reason)


def reference_gradients(subject: Subject) -> Iterator[Row]:
    """Autograd of the reference against differences of the reference."""
    yield _gradcheck("reference gradients", subject, subject.reference)


# --- the operator against the reference --------------------------------------------------------------------------


def op_float64(subject: Subject) -> Iterator[Row]:
    """Chunked against sequential, at lengths around a chunk's end."""
    for length in LENGTHS:
        case = subject.case(length, seed=length)
        start = subject.start(case)
        yield _exact("op = reference", f"{length} tokens, chunks of {CHUNK}", subject.op(case, start), subject.reference(case, start))
    case = subject.case(LONG)
    yield _exact("op = reference", "from zeros, default chunk", subject.op(case, chunk=64), subject.reference(case))


def op_precision(subject: Subject) -> Iterator[Row]:
    """Errors against float64 in the dtypes of training: the operator may err twice as far as the eager loop."""
    import torch

    inputs, params = arguments_of(subject.recurrence)
    gates = {s.name for s in inputs if s.type.is_scalar} | {s.name for s in params}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        case = subject.case(LONG, seed=3).to(dtype, params_dtype=torch.float32)
        start = _narrowed(subject.start(subject.case(LONG, seed=3)))
        wide = tuple(_widened(p) for p in start)
        truth = subject.reference(case.to(torch.float64), wide)
        eager, op = subject.reference(case, start), subject.op(case, start)
        allowed = 2 * worst(zip(eager.tensors, truth.tensors, strict=True), typical) + FLOOR[name]
        yield Row(f"op in {name}", "y and final state", worst(zip(op.tensors, truth.tensors, strict=True), typical), allowed, TWICE)
        truth = subject.gradients(subject.reference, case.to(torch.float64), wide)
        eager, op = (subject.gradients(call, case, start) for call in (subject.reference, subject.op))
        for argument, expected in truth.items():
            is_gate = argument in gates
            allowed = 2 * typical(eager[argument], expected) + (max(CANCELLED, FLOOR[name]) if is_gate else FLOOR[name])
            yield Row(f"gradients in {name}", argument, typical(op[argument], expected), allowed, TWICE + (DIFFERENCE if is_gate else ""))


def op_gradients(subject: Subject) -> Iterator[Row]:
    """The adjoint recurrence against autograd of the reference, and against differences."""
    case = subject.case(LONG, seed=5)
    start = subject.start(case)
    expected = subject.gradients(subject.reference, case, start)
    for argument, gradient in subject.gradients(subject.op, case, start).items():
        yield Row("gradients = reference", argument, largest(gradient, expected[argument]), EXACT, SUMS)
    for part, of in (("y", lambda run: run.tensors[:1]), ("the final state", lambda run: run.state)):
        expected, found = (subject.gradients(call, case, start, of=of) for call in (subject.reference, subject.op))
        yield Row("gradients = reference", f"all, of {part} alone", worst((found[n], expected[n]) for n in expected), EXACT, SUMS)
    yield _gradcheck("gradcheck", subject, lambda c, s: subject.op(c, s, chunk=2))


# --- what must not matter ----------------------------------------------------------------------------------------


def chunk_length(subject: Subject) -> Iterator[Row]:
    """Any chunk length gives the same answer and the same gradients."""
    case = subject.case(LONG, seed=6)
    start = subject.start(case)
    expected = subject.op(case, start)
    for chunk in (1, 5, 64):
        yield _exact("chunk length", f"chunks of {chunk} and of {CHUNK}", subject.op(case, start, chunk=chunk), expected)
    slopes = subject.gradients(subject.op, case, start)
    other = subject.gradients(lambda c, s: subject.op(c, s, chunk=5), case, start)
    yield Row("chunk length", f"gradients, chunks of 5 and of {CHUNK}", worst((other[n], slopes[n]) for n in slopes), EXACT, SUMS)


def split(subject: Subject) -> Iterator[Row]:
    """Any split with the state carried over is the whole, gradients included."""
    case = subject.case(LONG, seed=7)
    start = subject.start(case)
    whole = subject.op(case, start)
    for at in (1, CHUNK - 1, CHUNK, LONG - 2):
        yield _exact("split", f"at token {at} of {LONG}", _in_two(subject, case, start, at), whole)
    slopes = subject.gradients(subject.op, case, start)
    parts = subject.gradients(lambda c, s: _in_two(subject, c, s, CHUNK + 3), case, start)
    yield Row(
        "split", f"gradients, at token {CHUNK + 3}", worst((parts[n], slopes[n]) for n in slopes), EXACT, "float64, through the state"
    )


def _in_two(subject: Subject, case: Case, start, at: int) -> Run:
    import torch

    left, right = case.tokens(0, at), case.tokens(at, LONG)
    if subject.is_reversed:
        last = subject.op(right, start)
        first = subject.op(left, last.state)
        return Run(torch.cat([first.y, last.y], dim=1), first.state)
    first = subject.op(left, start)
    last = subject.op(right, first.state)
    return Run(torch.cat([first.y, last.y], dim=1), last.state)


def _packed(subject: Subject, lengths: tuple[int, ...], seed: int = 8):
    import torch

    case = subject.case(sum(lengths), batch=1, seed=seed)
    bounds = torch.tensor([0, *lengths], device=subject.device).cumsum(0)
    return case, bounds


def _separately(subject: Subject, case: Case, start, lengths: tuple[int, ...]) -> Run:
    import torch

    runs, at = [], 0
    for i, length in enumerate(lengths):
        runs.append(subject.op(case.tokens(at, at + length), tuple(part[i : i + 1] for part in start)))
        at += length
    states = zip(*(run.state for run in runs), strict=True)
    return Run(torch.cat([run.y for run in runs], dim=1), tuple(torch.cat(parts) for parts in states))


def packed(subject: Subject) -> Iterator[Row]:
    """Documents packed in one row are the documents one by one, each from its own state."""
    lengths = (CHUNK + 3, 1, CHUNK, 7)
    case, bounds = _packed(subject, lengths)
    start = subject.start(case, batch=len(lengths))
    whole, parts = subject.op(case, start, cu_seqlens=bounds), _separately(subject, case, start, lengths)
    yield _exact("packed", f"documents of {', '.join(map(str, lengths))} tokens", whole, parts)
    slopes = subject.gradients(lambda c, s: subject.op(c, s, cu_seqlens=bounds), case, start)
    other = subject.gradients(lambda c, s: _separately(subject, c, s, lengths), case, start)
    yield Row("packed", "gradients", worst((slopes[n], other[n]) for n in slopes), EXACT, SUMS)


def step(subject: Subject) -> Iterator[Row]:
    """Decoding token by token is the forward pass; what reads the future has no decoding."""
    if subject.is_reversed:
        return
    case = subject.case(CHUNK + 3, seed=9)
    start = subject.start(case)
    yield _exact("step = forward", f"{CHUNK + 3} tokens", subject.steps(case, start), subject.op(case, start))


def order(subject: Subject) -> Iterator[Row]:
    """Sequences of a batch do not meet; neither do heads, unless the spec counts them."""
    import torch

    case = subject.case(LONG, batch=3, seed=10)
    start = subject.start(case)
    expected = subject.op(case, start)
    turned = torch.tensor([2, 0, 1], device=subject.device)
    actual = subject.op(case.take(turned), tuple(part[turned] for part in start))
    yield _exact("order of the batch", "3 sequences turned round", actual, _map(expected, lambda x: x[turned], lambda x: x[turned]))
    if not subject.uses_head_index:
        heads, groups = _head_order(case)
        actual = subject.op(
            _reordered(subject, case, heads, groups), tuple(_state_heads(subject, p, n, heads) for n, p in _named(subject, start))
        )
        expected = Run(expected.y[:, :, heads], tuple(_state_heads(subject, p, n, heads) for n, p in _named(subject, expected.state)))
        yield _exact("order of the heads", "4 heads, groups kept together", actual, expected)


def _named(subject: Subject, state):
    return zip(subject.names, state, strict=True)


def _map(run: Run, y: Callable, part: Callable) -> Run:
    return Run(y(run.y), tuple(part(x) for x in run.state))


def _head_order(case: Case):
    import torch

    share = case.shape.heads // case.shape.groups
    groups = torch.arange(case.shape.groups - 1, -1, -1)
    return (groups[:, None] * share + torch.arange(share)).flatten(), groups


def _state_heads(subject: Subject, part, name: str, heads):
    """A part of the state with its heads reordered; `position` and what is per layer have none."""
    owner = name.removesuffix("[-1]")
    typed = [x for x in (*subject.recurrence.states, *subject.recurrence.symbols) if x.name == owner]
    return part if name == "position" or typed[0].per == "layer" else part[:, heads]


def _reordered(subject: Subject, case: Case, heads, groups) -> Case:
    index = {"head": heads, "channel": heads, "group": groups}
    per = {s.name: s.per for s in subject.recurrence.symbols}
    inputs = {n: x[:, :, index[per[n]]] if per[n] in index else x for n, x in case.inputs.items()}
    return replace(case, inputs=inputs, params={n: x[index[per[n]]] if per[n] in index else x for n, x in case.params.items()})


def grouped(subject: Subject) -> Iterator[Row]:
    """Heads that share an input are heads that were each given it."""
    if not subject.is_grouped:
        return
    case = subject.case(LONG, seed=11)
    share = case.shape.heads // case.shape.groups
    per = {s.name: s.per for s in subject.recurrence.symbols}
    inputs = {n: x.repeat_interleave(share, dim=2) if per[n] == "group" else x for n, x in case.inputs.items()}
    params = {n: x.repeat_interleave(share, dim=0) if per[n] == "group" else x for n, x in case.params.items()}
    yield _exact("grouped = repeated", f"{share} heads a group", subject.op(case), subject.op(replace(case, inputs=inputs, params=params)))


def direction(subject: Subject) -> Iterator[Row]:
    """A recurrence from the right is the causal one on the tokens in reverse."""
    if not subject.is_reversed:
        return
    case = subject.case(LONG, seed=12)
    start = subject.start(case)
    causal = Subject(subject.package, replace(subject.recurrence, time="causal"), subject.device)
    flipped = causal.interpret(replace(case, inputs={n: x.flip(1) for n, x in case.inputs.items()}), start)
    yield _exact("reversed = flipped", f"{LONG} tokens", subject.op(case, start), Run(flipped.y.flip(1), flipped.state))


# --- what must not happen ----------------------------------------------------------------------------------------


def causality(subject: Subject) -> Iterator[Row]:
    """No token feels a later one."""
    case, at = subject.case(LONG, seed=13), CHUNK + 5
    other = subject.case(LONG, seed=14)
    import torch

    keep = (lambda x: x[:, :at]) if not subject.is_reversed else (lambda x: x[:, at:])
    joined = {}
    for name, x in case.inputs.items():
        pieces = [x[:, :at], other.inputs[name][:, at:]] if not subject.is_reversed else [other.inputs[name][:, :at], x[:, at:]]
        joined[name] = torch.cat(pieces, dim=1)
    actual, expected = subject.op(replace(case, inputs=joined)), subject.op(case)
    yield Row(
        "causality", f"tokens before {at}, others after it", largest(keep(actual.y), keep(expected.y)), EXACT, "masked before it is summed"
    )


def extremes(subject: Subject) -> Iterator[Row]:
    """Gates at their ends in float32: finite wherever the float64 reference is finite and float32 can hold it."""
    import torch

    free = _free_gates(subject)
    if not free:
        return
    for size in (20.0, -20.0, 100.0, -100.0):
        case = subject.case(LONG, seed=15)
        case = replace(case, inputs={n: x + size if n in free else x for n, x in case.inputs.items()})
        start = _narrowed(subject.start(case))
        narrow = case.to(torch.float32)
        truth = subject.reference(narrow.to(torch.float64), tuple(_widened(p) for p in start))
        slopes = subject.gradients(subject.reference, narrow.to(torch.float64), tuple(_widened(p) for p in start))
        actual = subject.op(narrow, start)
        found = subject.gradients(subject.op, narrow, start)
        pairs = [*zip(actual.tensors, truth.tensors, strict=True), *((found[n], slopes[n]) for n in slopes)]
        yield Row(
            "extreme gates", f"free gates near {size:g}", float(sum(_lost(a, e) for a, e in pairs)), 0.0, "entries lost to inf or NaN"
        )


def _free_gates(subject: Subject) -> set[str]:
    """Real inputs without a domain that gates are made of: scalars, and what `raw` stands for."""
    inputs = [s for s in subject.recurrence.symbols if s.kind == "input" and s.domain is None and s.type.field == "real"]
    return {s.name for s in inputs if s.type.is_scalar or s.name.endswith("_raw")}


def _lost(actual, expected) -> int:
    """How many entries are not finite although they could be."""
    return int((_holdable(expected) & ~actual.isfinite()).sum())


def _holdable(expected):
    """Where float32 holds a value, and what sums to it."""
    return expected.isfinite() & (expected.abs() < 1e30)


def mixed_gates(subject: Subject) -> Iterator[Row]:
    """Free gates at both ends within one chunk, in float32: no sum over the chunk may drown a small decay in a large one."""
    import torch

    free = _free_gates(subject)
    if not free:
        return
    case = subject.case(LONG, seed=20)
    generator = torch.Generator().manual_seed(20)
    ends = {n: 20.0 * torch.randint(-1, 2, x.shape, generator=generator).to(x.device) for n, x in case.inputs.items() if n in free}
    case = replace(case, inputs={n: x + ends[n] if n in free else x for n, x in case.inputs.items()}).to(torch.float32)
    start = _narrowed(subject.start(subject.case(LONG, seed=20)))
    wide = tuple(_widened(p) for p in start)
    truth, eager, op = subject.reference(case.to(torch.float64), wide), subject.reference(case, start), subject.op(case, start)
    # what grows without bound is no number in float32, and says nothing of the operator
    true, eager, op = ([x.where(_holdable(e), 0) for x, e in zip(run.tensors, truth.tensors, strict=True)] for run in (truth, eager, op))
    allowed = 2 * worst(zip(eager, true, strict=True), typical) + MIXED
    found = worst(zip(op, true, strict=True), typical)
    yield Row("mixed gates", "y and final state, gates moved by -20, 0 or 20", found, allowed, TWICE + " of the running sum of log decays")


def memory_layout(subject: Subject) -> Iterator[Row]:
    """Inputs that are views with other strides, as a projection split into heads gives them."""
    case = subject.case(LONG, seed=21)
    start = subject.start(case)
    views = replace(case, inputs={n: x.transpose(0, 1).contiguous().transpose(0, 1) for n, x in case.inputs.items()})
    apart = tuple(part.transpose(0, -1).contiguous().transpose(0, -1) for part in start)
    yield _exact("memory layout", "inputs and state with other strides", subject.op(views, apart), subject.op(case, start))


def determinism(subject: Subject) -> Iterator[Row]:
    """Twice the same call, bit by bit."""
    import torch

    case = subject.case(LONG, seed=16).to(torch.float32)
    start = _narrowed(subject.start(case))
    first, second = subject.op(case, start), subject.op(case, start)
    pairs = list(zip(first.tensors, second.tensors, strict=True))
    slopes, again = subject.gradients(subject.op, case, start), subject.gradients(subject.op, case, start)
    pairs += [(slopes[n], again[n]) for n in slopes]
    differing = sum(0 if torch.equal(a, b) else 1 for a, b in pairs)
    yield Row("determinism", "tensors of two equal calls that differ", float(differing), 0.0, "bitwise")


def operators(subject: Subject) -> Iterator[Row]:
    """Schema, autograd registration, fake tensors and tracing of every operator that the package calls.

    A GPU's kernels are what bfloat16 runs there: states are in it too, so that a type which nothing restores is seen.
    """
    import torch

    yield from registered(subject, torch.float64)
    if subject.kernels("_kernels") is not None:
        yield from registered(subject, torch.bfloat16)


def registered(subject: Subject, dtype) -> Iterator[Row]:
    """The registration of every operator that is called for arguments and states of `dtype`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    namespace = subject.namespace

    class Calls(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.found = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == namespace:
                self.found.append((func, args))
            return func(*args, **(kwargs or {}))

    case = subject.case(5, seed=22)
    start = tuple(x.to(complex_of(dtype) if x.is_complex() else dtype) if not _is_integer(x) else x for x in subject.start(case))
    case = case.to(dtype)
    with Calls() as calls:
        subject.gradients(lambda c, s: subject.op(c, s, chunk=2), case, start)
        if not calls.found:
            # whole sequences are a convolution: torch's own operations; a packed document is not
            case, bounds = _packed(subject, (5,))
            case, start = case.to(dtype), tuple(x[:1] for x in start)
            subject.gradients(lambda c, s: subject.op(c, s, cu_seqlens=bounds, chunk=2), case, start)
        if not subject.is_reversed:
            subject.steps(case, start)
    for func in dict.fromkeys(func for func, _ in calls.found):
        args = next(args for other, args in calls.found if other is func)
        fresh = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in args]
        if func is calls.found[0][0]:  # the forward operator, the one that is differentiated
            fresh = [x.requires_grad_(not _is_integer(x)) if isinstance(x, torch.Tensor) else x for x in fresh]
        outcome = torch.library.opcheck(func, tuple(fresh), raise_exception=False)
        faults = [f"{test}: {fault}" for test, fault in outcome.items() if fault != "SUCCESS"]
        reason = faults[0].splitlines()[0][:160] if faults else "torch.library.opcheck"
        name = f"{func.name().split('::')[-1]}, {str(dtype).removeprefix('torch.')}: faults in registration"
        yield Row("operators", name, float(len(faults)), 0.0, reason)


# --- shared ------------------------------------------------------------------------------------------------------


def _is_integer(x) -> bool:
    return not (x.is_floating_point() or x.is_complex())


def _narrowed(state: tuple) -> tuple:
    import torch

    return tuple(x if _is_integer(x) else x.to(torch.complex64 if x.is_complex() else torch.float32) for x in state)


def _widened(x):
    import torch

    return x if _is_integer(x) else x.to(torch.complex128 if x.is_complex() else torch.float64)


def _gradcheck(name: str, subject: Subject, call) -> Row:
    """Every entry of every argument, by central differences in float64."""
    import torch
    from torch.autograd.gradcheck import GradcheckError

    case = subject.case(5, batch=1, heads=2, tiny=True, seed=17)
    start = subject.start(case)
    counts = [x for x in start if _is_integer(x)]
    parts = [x.requires_grad_() for x in start if not _is_integer(x)]
    arguments = [x.detach().requires_grad_() for x in case.arguments]

    def function(*tensors):
        named = dict(zip((*case.inputs, *case.params), tensors, strict=False))
        moved = replace(case, inputs={n: named[n] for n in case.inputs}, params={n: named[n] for n in case.params})
        rest = iter(tensors[len(arguments) :])
        integers = iter(counts)
        run = call(moved, tuple(next(integers) if _is_integer(x) else next(rest) for x in start))
        return tuple(x for x in run.tensors if not _is_integer(x))

    entries = sum(x.numel() for x in (*arguments, *parts))
    compared = "every entry of every argument, 5 tokens" if entries <= FEW else "random directions of every argument, 5 tokens"
    try:
        torch.autograd.gradcheck(function, (*arguments, *parts), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=entries > FEW)
    except GradcheckError as fault:
        return Row(name, compared, math.inf, 0.0, str(fault).strip().splitlines()[0][:160])
    return Row(name, compared, 0.0, 0.0, "central differences within 1e-5")


Check = Callable[[Subject], Iterator[Row]]

REFERENCE_CHECKS: dict[str, Check] = {
    "reference = interpreter": reference_interpreter,
    "reference gradients": reference_gradients,
}
"""What must hold of `reference.py` alone."""

OP_CHECKS: dict[str, Check] = {
    "op = reference": op_float64,
    "op gradients": op_gradients,
    "op precision": op_precision,
    "chunk length": chunk_length,
    "split": split,
    "packed": packed,
    "step": step,
    "order": order,
    "grouped": grouped,
    "reversed": direction,
    "causality": causality,
    "extreme gates": extremes,
    "mixed gates": mixed_gates,
    "memory layout": memory_layout,
    "determinism": determinism,
    "operators": operators,
}
"""What must hold of the operator."""
