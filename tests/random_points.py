"""What random specs must hold, and how many different points of the space they are."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, note, settings

from ssmgen.classify import classify
from ssmgen.derive import derive
from ssmgen.diagnostics import SpecError
from ssmgen.parse import parse
from ssmgen.plan import Classified
from ssmgen.resolve import resolve
from ssmgen.runtime.measure import worst
from ssmgen.runtime.verify_subject import Subject
from ssmgen.source import Source

EXACT = 1e-9


def distinct(specs, points: int, draws: int, found: dict[tuple, str]) -> dict[tuple, str]:
    """Draw specs until so many different points of the space are found, or `draws` are drawn; the first spec of each is added to
    `found`. The same ones every time."""
    drawn = refused = 0

    @settings(max_examples=draws, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(specs())
    def run(text):
        nonlocal drawn, refused
        if len(found) >= points:
            return
        point = point_of(text)
        drawn, refused = drawn + 1, refused + (point is None)
        if point is not None:
            found.setdefault(point, text)

    run()
    assert refused <= 0.3 * drawn, f"{refused} of {drawn} refused"
    return found


def fresh(specs, draws: int, held) -> None:
    """Hold so many specs that no run drew before. Of one that does not hold a shorter one is looked for."""

    @settings(max_examples=draws, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(specs())
    def run(text):
        note(text)
        if point_of(text) is not None:
            held(text)

    run()


def point_of(text: str) -> tuple | None:
    """The point of a spec; None for one that is refused with diagnostics."""
    try:
        (spec,) = resolve(parse(Source("test.ssm", text))).recurrences
        classified = classify(derive(spec))
    except SpecError as refused:
        assert refused.diagnostics
        return None
    return None if classified.refusals else coordinates(classified)


def coordinates(classified: Classified) -> tuple:
    """Where a recurrence stands: its value on every axis, and of every walk which rows act, in what order and on what, and
    who reads. Names, sizes, functions and parameters are not among them."""
    walks = []
    for walk in classified.walks:
        rows = tuple((r.is_written, r.erase is not None, r.log_decay is not None, r.coefficient is not None) for r in walk.rows)
        reads = tuple((r.is_inclusive, r.is_value, r.query is None) for r in walk.readings)
        shape = (walk.decay, walk.size, walk.is_transposed, walk.key is None, walk.scale is None, len(walk.columns))
        walks.append((shape, rows, reads))
    return tuple(a.value for a in classified.axes), tuple(walks), len(classified.outputs), len(classified.recurrence.maxima)


def holds(subject: Subject) -> None:
    """The operator, the reference and the interpreter agree: values, gradients, packed, a token at a time."""
    case = subject.case(9)
    start = subject.start(case)
    reference, op = subject.reference(case, start), subject.op(case, start, chunk=4)
    close("interpreter", subject.interpret(case, start).tensors, reference.tensors)
    close("op", op.tensors, reference.tensors)
    expected = subject.gradients(subject.reference, case, start)
    found = subject.gradients(lambda c, s: subject.op(c, s, chunk=4), case, start)
    for name in expected:
        close(f"gradient of {name}", [found[name]], [expected[name]])
    if not subject.is_reversed:
        close("steps", subject.steps(case, start).tensors, reference.tensors)
    packed = subject.case(9, batch=1)
    bounds = torch.tensor([0, 0, 5, 6, 9])
    start = subject.start(packed, batch=4)
    close("packed", subject.op(packed, start, chunk=4, cu_seqlens=bounds).tensors, subject.reference(packed, start, bounds).tensors)


def close(what: str, found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype, what
    error = worst(zip(found, expected, strict=True))
    assert error <= EXACT, f"{what}: {error}"
