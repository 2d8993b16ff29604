"""The emitted kernels of scans against the float64 reference, interpreted on the processor in float32; on a GPU as the operator
dispatches them. See test_kernels for how."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from built import write
from conftest import ROOT

torch = pytest.importorskip("torch")

from test_kernels import fused, interpreted, interpreting, measured_on_a_gpu  # noqa: E402
from test_scans import CIRCLE, TURNING  # noqa: E402

from ssmgen.explain import summary  # noqa: E402
from ssmgen.runtime import verify_kernels  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify_kernels import Trial, compare  # noqa: E402
from ssmgen.source import Source  # noqa: E402

NAMES = ("mamba1", "s4d", "hgrn", "rg_lru", "rwkv4", "inventions/rated_entries")
SPECS = {name: (ROOT / "examples" / f"{name}.ssm").read_text(encoding="utf-8") for name in NAMES} | {
    # products of matrices before and behind: an output of several rows, reversed
    "matrices": """
recurrence between_matrices {
  dim    N = 6, P = 4
  input  u : [P]; g : [N]
  param  B : [N, P] per head; C : complex [P, N] per head
  state  x : complex [N]
  update x' = 0.9 * cis(g) * x + B u
  output y = Re(C x')
}""",
    # complex: angles from the data, a complex input that all channels share, a real state beside, reversed
    "turning": TURNING,
    # three states of two shapes, micro-steps, two taps, both reads, values that all channels share, reversed
    "channels": """
recurrence by_channel(n = 2) {
  dim    N = 6
  input  x, u : scalar per channel; k, q : [N] per layer; s : scalar per layer
  param  D, e : scalar per channel; bias : [N] per channel; c : [N] per layer
  let    a = 0.9 * relu(tanh(u)); kk : [N] = unit(k)
  state  h, g : real [N] per channel; z : real scalar per channel
  update h' = h
         for j in 1..n: h' = diag(tanh(bias)) h' + x * k
         h' = h' + x[-1] * k[-1]
         g' = a * diag(sigmoid(c) * tanh(c * e)) g + x * kk
         z' = a * z + s * x
  output y = silu(q . h') * (1 + square(k . g)) + (c . k) * D * x + z
  time   reversed
}""",
    # columns of a head: a matrix with a factor for every entry, a vector beside it, groups, values of all heads
    "columns": """
recurrence by_column {
  dim    N = 8, P = 6
  input  q, k, r : [N] per group; v, u : [P]; c : scalar; W : [N, P]; made : [P] per layer
  param  rate : [N, P] per head; b : [P] per layer; e : scalar per head
  gate   a in (-1, 1) = tanh(c + e)
  state  S : real [N, P]; z : real [P]
  update S' = sigmoid(W + rate) * S + tanh(rate) * (k v^T)
         z' = diag(u) z + a * v * made + b
  output o = S'^T q + z' + S^T r
}""",
}


# entries that read each other, and states
MIXING = {
    # channels in a circle through micro-steps and complex states, reversed
    "circle": CIRCLE,
    # complex, along a direction; whole sequences would be a convolution
    "s4": (ROOT / "examples" / "s4.ssm").read_text(encoding="utf-8").split("layer ")[0].replace("  output", "  @form scan\n  output"),
    # a matrix of every token beside a complex diagonal, products outside
    "pd_ssm": (ROOT / "examples" / "pd_ssm.ssm").read_text(encoding="utf-8"),
    # heads side by side: a matrix of each that no token changes, one of every token that all share, an outer product of a group's; reversed
    "heads": """
recurrence mixed_heads {
  dim    N = 5
  input  v : [N]; g, raw : scalar; w : [N] per group; M : [N, N] per layer
  param  A : [N, N] per head; b : [N] per group
  gate   a in (0, 1) = sigmoid(g)
  state  x : real [N]; z : real scalar
  update x' = a * A x - tanh(raw) * w (w^T x) + 0.1 * M (b * x) + v
         z' = a * z + raw
  output y = w * x' + z' * v
  time   reversed
}""",
    # channels: complex entries, a matrix that all of them share
    "channels": """
recurrence mixed_channels {
  dim    N = 6
  input  u : scalar per channel; k : [N] per layer
  param  A : complex [N, N] per layer; d, c : complex [N] per channel
  state  x : complex [N] per channel
  update x' = A diag(exp(i * d)) x + u * k
  output y = Re(c^H x')
}""",
    # two states that feed each other, by an exponential of both: a step that a token chooses, rates of which some are 0
    "oscillators": """
recurrence oscillators {
  dim    N = 5
  input  u, s : [N]; raw : scalar
  param  A, G : [N] per head
  gate   dt > 0 = softplus(raw)
  state  z, x : real [N]
  dynamics   dz/dt = u - relu(A) * x - relu(G) * z
             dx/dt = z
  discretize zoh(dt)
  output x' + s * z
}""",
    # columns of a head: both kinds of matrices, a factor for every entry, an erasure
    "columns": """
recurrence mixed_columns {
  dim    N = 3, P = 5
  input  q, k : [N] per group; v, f : [P]; M : [N, N]
  param  A : [N, N]; rate : [N, P] per head
  state  S : real [N, P]
  update S' = sigmoid(rate) * S + 0.1 * M S diag(tanh(f)) + A S + k v^T - 0.1 * k (k^T S)
  output o = S'^T q
}""",
}


def interpret_mixing(name: str, folder: Path) -> None:
    """Called where triton interprets: every tensor against float64, packed and not, also with blocks shorter than a stretch."""
    subject, kernels = fused(*write(MIXING[name], folder))
    options, sizes = kernels._options, subject.sizes
    several = lambda entries: (options(entries)[0], 4, 2, 8)  # noqa: E731
    packed = Trial(1, 9, 2, sizes, (0, 2, 2, 8, 9))
    for how, dtype, trial in (options, "float16", Trial(2, 3, 3, sizes)), (several, "float32", packed):
        kernels._options = how
        kernels.tuning.forget()
        measured = compare(subject, kernels, trial, dtype)
        wrong = [f"{one.name} is off by {one.error:.1e}, {one.trial}" for one in measured if not one.excess < 1]
        if wrong or not measured:
            print("\n".join(wrong))
            return
    print("held")


def interpret(name: str, folder: Path) -> None:
    """Called where triton interprets: every tensor against float64, one segment and several, packed and not."""
    subject, kernels = fused(*write(SPECS[name], folder))
    sizes = subject.sizes
    trials = [(1, "float32", Trial(1, 19, 4, sizes))]
    if hasattr(kernels, "_over_lanes"):
        # a matrix product there
        trials += [(1, "float16", Trial(1, 7, 2, {size: 16 + 2 * i for i, size in enumerate(sizes)}))]
    # lanes and tokens that end with their blocks (of 128 tokens a normaliser nearly vanishes, and its rounding is all that shows)
    trials += [(1, "float32", Trial(1, 256 if hasattr(kernels, "_behind") else 8, 64, sizes))]
    trials += [(2, "float32", Trial(1, 32, 2, sizes)), (2, "float32", Trial(1, 23, 2, sizes, (0, 2, 2, 20, 23)))]
    options = kernels._options
    for segments, dtype, trial in trials:
        kernels._segments = lambda *_, count=segments: count
        if segments > 1:
            # short stretches, of several blocks each
            kernels._options = lambda entries: (options(entries)[0], 4, 2, 8)
            kernels.tuning.forget()
        measured = compare(subject, kernels, trial, dtype)
        wrong = [f"{one.name} is off by {one.error:.1e}, {one.trial}" for one in measured if not one.excess < 1]
        if wrong:
            print("\n".join(wrong))
            return
    print("held")


def interpret_step(name: str, folder: Path) -> None:
    """One token: the launch against the torch step of what stands between the products, also on rows of a pool."""
    target, spec = write((SPECS | MIXING)[name], folder)
    package = load(target)
    op, decode = (importlib.import_module(f"{package.__name__}.{file}") for file in ("op", "decode"))
    step, given = op._operators.step, []
    op._operators = SimpleNamespace(
        step=lambda *tensors: given.append([None if x is None else x.clone() for x in tensors]) or step(*tensors)
    )
    case = draw(spec, Shape(3, 1, 2, 1, dict(spec.dims)), seed=2).to(torch.float32)
    inputs, params = [x[:, 0] for x in case.inputs.values()], list(case.params.values())
    for slots in (None, torch.tensor([3, -1, 0])):
        (held,) = spec.states
        sizes = [int(size.value(dict(spec.dims))) for size in (held.type.rows, held.type.cols)[: 1 + (not held.type.is_column)]]
        is_complex = held.type.field == "complex"
        state = package.State(torch.randn(3 if slots is None else 4, 2, *sizes, dtype=torch.complex64 if is_complex else torch.float32))
        y = getattr(package, f"{spec.name}_step")(*inputs, *params, state=state, slots=slots)
        *tensors, present = given.pop()
        launched = [x.clone() for x in tensors]
        torch.testing.assert_close(decode.step(*launched, slots=present), step(*tensors, present))
        torch.testing.assert_close(torch.complex(*launched[-2:]) if is_complex else launched[-1], state[0])
        assert slots is None or y[1].abs().max() == 0
    print("held")


@interpreted
@pytest.mark.parametrize("name", ["matrices", "pd_ssm", "columns"])
def test_interpreted_steps_between_matrices(name, tmp_path):
    assert interpreting(name, tmp_path, function="interpret_step", module="test_scan_kernels") == "held"


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("name", MIXING)
def test_interpreted_kernels_of_entries_that_read_each_other(name, tmp_path):
    assert interpreting(name, tmp_path, function="interpret_mixing", module="test_scan_kernels") == "held"


@pytest.mark.parametrize("name, matrices, widest", [("pd_ssm", "one matrix", 128), ("heads", "3 matrices", 64)])
def test_matrices_that_fit(name, matrices, widest, tmp_path):
    """Up to a size that the package and `explain` name; a gradient that is a sum over tokens takes as much room as its matrix."""
    folder, _ = write(MIXING[name], tmp_path)
    kernels = importlib.import_module(f"{load(folder).__name__}.kernels")
    first = list(inspect.signature(kernels.fits).parameters)[0]
    taken = [torch.empty(1, 1, 2, *(size,) * (1 + (first == "M")), device="meta") for size in (4, widest, widest + 1)]
    others = len(inspect.signature(kernels.fits).parameters) - 2
    assert [kernels.fits(x, *[None] * others) for x in taken] == [True, True, False]
    assert f"{matrices} in registers, up to {widest} entries a side" in summary(Source("test.ssm", MIXING[name]), {})[0]


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_interpreted_kernels(name, tmp_path):
    assert interpreting(name, tmp_path, module="test_scan_kernels") == "held"


@pytest.mark.parametrize("name", SPECS)
def test_nothing_of_a_token_and_entry_goes_through_memory(name, tmp_path):
    """What has an entry of the state is stored at the edges of stretches and segments, and once at the end."""
    folder, _ = write(SPECS[name], tmp_path)
    text = (folder / "kernels.py").read_text(encoding="utf-8")
    allocated = re.findall(r"^ +((?:part|left|asked|aside)_\d.*) = (?:torch\.empty|_room)\((.*)", text, re.MULTILINE)
    assert set(re.findall(r"(\w+)_\d", " ".join(targets for targets, _ in allocated))) == {"part", "left", "asked", "aside"}
    assert all("rows * segments" in shape for _, shape in allocated)
    assert "edges = T // W + sequences if is_packed else batch * _count(T, W)" in text
    kernels = importlib.import_module(f"{load(folder).__name__}.kernels")
    lanes, ahead, back, stretch = kernels._options(16)
    assert stretch % ahead == stretch % back == 0 and stretch * 2 >= 16 * 4, "what is kept takes no more than two short inputs"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", verify_kernels.SLACK)
@pytest.mark.parametrize("name", SPECS)
def test_operator_on_a_gpu(name, dtype, tmp_path):
    _, wrong = measured_on_a_gpu(*write(SPECS[name], tmp_path), dtype)
    assert not wrong, wrong
