"""Laws of the operators of the examples, at shapes, dtypes, chunks, splits and packings that nobody chose."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from built import example
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch  # noqa: E402

from ssmgen.runtime.measure import typical, worst  # noqa: E402
from ssmgen.runtime.sample import Case, Shape, draw  # noqa: E402
from ssmgen.runtime.verify_subject import Run, Subject  # noqa: E402
from ssmgen.small import small_sizes  # noqa: E402

EXACT = 1e-10
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.ssm"))

law = settings(deadline=None, derandomize=True, database=None, max_examples=20, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="session", params=EXAMPLES)
def subject(request, tmp_path_factory) -> Subject:
    """The package of one example, built once a session."""
    package, spec = example(request.param, tmp_path_factory.mktemp(request.param))
    return Subject(package, spec, "cpu")


@dataclass(frozen=True)
class Setting:
    """A draw: sizes of everything, the chunk length, the seed of the data."""

    batch: int
    length: int
    groups: int
    share: int
    factors: tuple[int, int]
    chunk: int
    seed: int

    def case(self, subject: Subject, length: int | None = None, batch: int | None = None) -> Case:
        """Random arguments; sizes are multiples of what every shape of the spec needs."""
        unit = {name: 2 if size % 2 == 0 else 1 for name, size in small_sizes(subject.recurrence, tiny=True).items()}
        sizes = {name: unit[name] * factor for (name, _), factor in zip(subject.recurrence.dims, self.factors)}
        sizes |= dict(subject.recurrence.counts)
        heads, groups = self.groups * self.share, self.groups
        shape = Shape(batch or self.batch, self.length if length is None else length, heads, groups, sizes)
        return draw(subject.recurrence, shape, seed=self.seed)


dims = st.tuples(st.integers(1, 9), st.integers(1, 9))
shapes = st.builds(
    Setting, st.integers(1, 3), st.sampled_from([0, 1, 2, 7, 15, 16, 17, 33]), st.integers(1, 3), st.integers(1, 3), dims,
    st.sampled_from([1, 2, 5, 16, 64]), st.integers(0, 999),
)  # fmt: skip


def start(subject: Subject, case: Case, batch: int | None = None) -> tuple[torch.Tensor, ...]:
    """A random initial state, above 0 so that no normaliser divides by next to nothing; one without tokens has that of one with."""
    if case.shape.length == 0:
        shape = Shape(case.shape.batch, 1, case.shape.heads, case.shape.groups, case.shape.sizes)
        case = draw(subject.recurrence, shape)
    return tuple(part if part.is_complex() else part.abs() for part in subject.start(case, batch=batch))


def kept_in(dtype: torch.dtype, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The state in a real type, or in that of complex numbers of such parts; counts stay counts."""
    kinds = {torch.float32: torch.complex64, torch.float64: torch.complex128}
    return tuple(x.to(kinds[dtype]) if x.is_complex() else x.to(dtype) if x.is_floating_point() else x for x in state)


def same(found: Run, expected: Run) -> None:
    for one, other in zip(found.tensors, expected.tensors, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
    assert worst(zip(found.tensors, expected.tensors, strict=True)) <= EXACT


def same_slopes(found: dict, expected: dict) -> None:
    """A gradient that cancels, as that of a normalised read with one key, is known as well as what it is the difference of."""
    whole = max((slope.abs().max().item() for slope in expected.values() if slope.numel()), default=0.0)
    for name, slope in expected.items():
        own = slope.abs().max().item() if slope.numel() else 0.0
        error = (found[name] - slope).abs().max().item() if slope.numel() else 0.0
        assert found[name].shape == slope.shape and error <= EXACT * max(own, 1e-2 * whole), name


@pytest.mark.slow
@law
@given(setting=shapes)
def test_operator_is_the_reference(subject, setting):
    case = setting.case(subject)
    state = start(subject, case)
    same(subject.op(case, state, chunk=setting.chunk), subject.reference(case, state))
    if case.shape.length:
        found = subject.gradients(lambda c, s: subject.op(c, s, chunk=setting.chunk), case, state)
        same_slopes(found, subject.gradients(subject.reference, case, state))


@pytest.mark.slow
@law
@given(setting=shapes, dtype=st.sampled_from([torch.float32, torch.bfloat16]), with_state=st.booleans())
def test_shorter_types(subject, setting, dtype, with_state):
    """Outputs in the inputs' type, states in float32, both as near to float64 as the eager loop in that type, or nearly so."""
    case = setting.case(subject).to(dtype, params_dtype=torch.float32)
    exact = case.to(torch.float64)
    wide = start(subject, exact) if with_state else None
    narrow = kept_in(torch.float32, wide) if with_state else None
    wide = kept_in(torch.float64, narrow) if with_state else None
    found, eager, truth = subject.op(case, narrow, chunk=setting.chunk), subject.reference(case, narrow), subject.reference(exact, wide)
    floor = {torch.float32: 1e-5, torch.bfloat16: 4e-3}[dtype]
    if hasattr(sys.modules[f"{subject.package.__name__}.op"], "_product"):
        # a product beside the operator, of a matrix as two that are as short as the inputs, is rounded twice
        floor *= 2
    for one, other, expected in zip(found.tensors, eager.tensors, truth.tensors, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert typical(one, expected) <= 3 * typical(other, expected) + floor


@pytest.mark.slow
@law
@given(setting=shapes, cut=st.floats(0, 1))
def test_split_is_the_whole(subject, setting, cut):
    case = setting.case(subject)
    state, at = start(subject, case), round(cut * setting.length)

    def in_two(c, s):
        parts = [c.tokens(0, at), c.tokens(at, setting.length)]
        order = (1, 0) if subject.is_reversed else (0, 1)
        runs = {order[0]: subject.op(parts[order[0]], s, chunk=setting.chunk)}
        runs[order[1]] = subject.op(parts[order[1]], runs[order[0]].state, chunk=setting.chunk)
        return Run(torch.cat([runs[0].y, runs[1].y], 1), runs[order[1]].state)

    same(in_two(case, state), subject.op(case, state, chunk=setting.chunk))
    if 0 < at < setting.length:
        whole = subject.gradients(lambda c, s: subject.op(c, s, chunk=setting.chunk), case, state)
        same_slopes(subject.gradients(in_two, case, state), whole)


@pytest.mark.slow
@law
@given(setting=shapes, lengths=st.lists(st.sampled_from([0, 0, 1, 2, 5, 16, 19]), min_size=1, max_size=5))
def test_packed_is_separate(subject, setting, lengths):
    case = setting.case(subject, length=sum(lengths), batch=1)
    state = start(subject, case, batch=len(lengths))
    bounds = torch.tensor([0, *lengths]).cumsum(0)

    def together(c, s):
        return subject.op(c, s, chunk=setting.chunk, cu_seqlens=bounds)

    def apart(c, s):
        spans = enumerate(zip(bounds.tolist(), bounds.tolist()[1:]))
        runs = [subject.op(c.tokens(a, b), tuple(x[i : i + 1] for x in s), chunk=setting.chunk) for i, (a, b) in spans]
        return Run(torch.cat([r.y for r in runs], 1), tuple(torch.cat(parts) for parts in zip(*(r.state for r in runs), strict=True)))

    same(together(case, state), apart(case, state))
    same(together(case, state), subject.reference(case, state, bounds))
    if sum(lengths):
        same_slopes(subject.gradients(together, case, state), subject.gradients(apart, case, state))


@pytest.mark.slow
@law
@given(setting=shapes)
def test_steps_are_the_forward_pass(subject, setting):
    """What reads the future has no steps."""
    if subject.is_reversed:
        return
    case = setting.case(subject, length=max(1, setting.length // 4))
    state = start(subject, case)
    same(subject.steps(case, state), subject.op(case, state, chunk=setting.chunk))
