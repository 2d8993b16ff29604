"""The emitted kernels of walks over rows against the float64 reference, interpreted on the processor in float32.

The same harness as test_kernels: a process of its own, memory that begins as NaN. What differs are the claims: rows that erase,
decays of every key, several rows a token, in batches and in packed documents, at sizes that fill no block.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from built import write
from conftest import ROOT
from test_kernels import CARRIED, EXAMPLES, OTHERS, fused, interpreted, interpreting, measured_on_a_gpu

pytest.importorskip("torch")

import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext  # noqa: E402

from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify_kernels import ODD, SLACK, Trial, compare, sizes_near  # noqa: E402

INVENTIONS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples" / "inventions").glob("*.ssm"))}
STRONG = """
recurrence strong {
  dim    N = 16, P = 16
  input  q, k : [N]; v : [P]; g_raw : [N]
  gate   g : [N] <= 0 = -30 * softplus(4 * g_raw)
  state  S : real [N, P]
  update S' = diag(exp(g)) S + k v^T
  output o = S'^T q
}
"""
"""Log decays from nearly 0 to beyond -100 a token: no block is short enough for its exponents to be split."""

CROSSED = """
recurrence crossed {
  dim    N = 16, P = 16
  input  q, k : [N]; x, u : [P]; g_raw : [N]
  param  b : [N] per head init 1; c : [P] per head init 1
  gate   g : [N] <= 0 = -softplus(g_raw)
  state  S : real [N, P]
  update S' = diag(exp(g)) S + (k * (1 + c . u)) (x + b . k)^T
  output y = S'^T q + (b . q) * x
}
"""
"""Inner products of keys in values and of values in keys: their gradients lie along the other axis."""

TURNED = """
recurrence turned {
  dim    N = 16, P = 16
  input  q, k : [N]; v : [P]; theta : [N/2] per group; b_raw : scalar
  gate   b in (0, 1) = sigmoid(b_raw)
  let    kt : [N] = rot(theta) unit(k); qt : [N] = rot(theta) q
  state  S : real [N, P]
  update S' = (I - b * kt kt^T) S + b * kt v^T
  output o = S'^T qt
}
"""
"""Keys and queries turn by angles of the data, and the state that they correct does not."""

TURNED_VALUES = """
recurrence turned_values {
  dim    N = 8, P = 8
  input  q, k : [N] per group; v : [P]; theta : [P/2]; raw : scalar
  gate   a in (0, 1) = sigmoid(raw)
  state  S : real [N, P]
  update S' = a * S rot(theta) + k (rot(theta) v)^T
  output o = S'^T q
}"""
"""Values turn by angles of the data, and so does the state along them."""

FED = """
recurrence fed {
  dim    N = 16, P = 24
  input  q, k : [N] per group; v, u : [P]; a_raw, c_raw : scalar; b_raw : scalar per group
  param  w : scalar per head init uniform(-1, 1); theta : scalar per head init 1
  gate   a in (0, 1) = sigmoid(a_raw); b in (0, 1) = sigmoid(b_raw + w); s in (0, 1) = sigmoid(c_raw)
  let    kn : [N] = unit(k)
  state  F, A, S : real [N, P]
  update F' = b * F - s * kn (S^T kn - v)^T
         A' = a * A + (1 - a) * F' - tanh(theta) * S
         S' = exp(-softplus(w)) * S + 1/2 * s * kn (v - S^T kn)^T
  output o = silu(u) * (A'^T q) + F^T q - 1/2 * S'^T q
  time   reversed
}"""
"""Three memories that feed each other with either sign, two of them written to, by numbers of tokens, groups and heads."""

MIXED = """
recurrence mixed(n = 2) {
  dim    N = 16, P = 24
  input  q : [N] per group; k : [n, N] unit; v : [n, P]; b_raw : [n]; g_raw : scalar
  gate   b : [n] in (0, 1) = sigmoid(b_raw); g <= 0 = -softplus(g_raw)
  state  S : real [N, P]
  update S' = exp(g) * S
         for j in 1..n: S' = S' - b[j] * k[j] (k[j]^T S') + b[j] * k[j] v[j]^T
         S' = S' - k[1] (k[1]^T S')
  output o = N^-1/2 * S'^T q
  time   reversed
}
"""
"""Two corrections that write and one that only erases, by a key of another: nothing lies where the third row's value would."""

SHARED = """
recurrence shared(n = 3) {
  dim    N = 16, P = 24
  input  q : [N]; k : [n, N] per group; v : [P]; b_raw : [n]
  gate   b : [n] in (0, 1) = sigmoid(b_raw)
  let    kn : [n, N] = unit(k)
  state  S : real [N, P]
  update S' = S
         for j in 1..n: S' = S' - b[j] * kn[j] (kn[j]^T S') + kn[j] v^T
  output o = S^T q
  time   reversed
}
"""
"""Three rows of the keys of a group, which are made unit, and one value for all of them; read before the token."""

SPECS = {name: text for name, text in (EXAMPLES | OTHERS | INVENTIONS).items() if name not in CARRIED} | {
    "strong decays": STRONG,
    "crossed": CROSSED,
    "turned": TURNED,
    "turned values": TURNED_VALUES,
    "fed": FED,
    "mixed": MIXED,
    "shared": SHARED,
}


FILLED = ("gated_deltanet", "kda")
"""Tried without states as well, with tokens that fill their chunks and more keys than a block of the gradients takes."""


def has_row_kernels(folder: Path) -> bool:
    kernels = folder / "kernels.py"
    return kernels.exists() and "def pairs_kernel(" in kernels.read_text(encoding="utf-8")


def interpret(name: str, folder: Path) -> None:
    """Called where triton interprets. Float32 takes chunks of 32 rows; those of the shorter types are tried as well."""
    written, spec = write(SPECS[name], folder)
    subject, kernels = fused(written, spec)
    own = kernels._tokens
    odd = sizes_near(subject, ODD)
    trials = [(True, 1, Trial(1, 70, 2, odd)), (False, 3, Trial(1, 41, 2, odd, (0, 3, 3, 40, 41)))]
    if name in FILLED:
        trials.append((False, 2, Trial(1, 64, 1, {**odd, "N": 41}, is_bare=True)))
    for is_long, segments, trial in trials:
        kernels._segments = lambda *_, count=segments: count
        # so few programs take one head each, where they are not made to take all of a group
        kernels._turns = lambda _, heads, count=segments: heads if count > 1 else 1
        kernels._tokens = (lambda dtype: own(torch.bfloat16)) if is_long else own
        kernels.tuning.forget()
        measured = compare(subject, kernels, trial, "float32")
        assert measured
        # a gate's gradient is a difference of sums over a chunk; exponents of strong decays are large numbers in float32
        limit = 3e-3 if name == "strong decays" else 1e-4
        wrong = [f"{one.name} is off by {one.error:.1e}, {one.trial}" for one in measured if not one.error < limit]
        if wrong:
            print("\n".join(wrong))
            return
    print("held")


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_interpreted_row_kernels(name, tmp_path):
    folder, _ = write(SPECS[name], tmp_path)
    if not has_row_kernels(folder):
        pytest.skip("in another form")
    assert interpreting(name, tmp_path, module="test_row_kernels") == "held"


def test_row_kernels_carry_what_the_fused_ones_do_not(tmp_path):
    """One walk in the form of rows, whatever its rows: all have kernels."""
    carried = {name for name in SPECS if has_row_kernels(write(SPECS[name], tmp_path / name)[0])}
    assert carried >= {
        "comba", "deltanet", "deltaproduct", "dplr", "gated_deltanet", "gated_deltaproduct", "gdn2", "gla", "hgrn2", "kda",
        "rwkv5", "rwkv6", "rwkv7", "strong decays", *OTHERS, "backward_delta", "channel_deltaproduct", "damped_reflection",
        "delta_with_bonus", "forget_correct_forget", "normalised_dplr", "novelty", "rank_three_hgrn2", "rwkv6_two_taps",
        "simultaneous_delta", "three_horizons", "titans", "unlearning",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name, keys, size, stays, heads, stages",
    [
        ("gated_deltanet", 128, 227, True, 64, (3, 3)),
        ("gated_deltanet", 64, 227, True, 64, (3, 2)),  # a multiprocessor holds two walks in two stages, one in three
        ("gated_deltanet", 64, 227, True, 16, (2, 2)),  # cut into many
        ("kda", 128, 227, True, 64, (2, 2)),  # erase keys of their own
        ("kda", 256, 227, True, 64, (1, 1)),
        ("gated_deltanet", 128, 99, False, 64, (2, 2)),  # operands in registers: a stage less lies in shared memory
        ("gated_deltanet", 128, 64, False, 64, (1, 1)),
        ("gated_deltanet", 128, 0, False, 64, (1, 1)),  # no GPU
    ],
)
def test_walks_load_as_far_ahead_as_their_tiles_fit(name, keys, size, stays, heads, stages, tmp_path, monkeypatch):
    """What each takes was measured, compiled for sm_90: 186 KiB, 89 (130 in three), 168 (240), more than 227; for sm_120 73."""
    pytest.importorskip("triton", reason="triton is not installed: the launchers were NOT asked")
    package = load(write(SPECS[name], tmp_path)[0])
    kernels = importlib.import_module(f"{package.__name__}.kernels")
    monkeypatch.setattr(kernels.tuning, "shared_memory", lambda device: (size * 1024, stays))
    monkeypatch.setattr(kernels.tuning, "processors", lambda device: 132)
    monkeypatch.setattr(kernels.tuning, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(kernels.tuning, "_picked", {})
    call = (keys, 128, torch.bfloat16, heads, torch.device("cuda"))
    assert (kernels._forward_options(*call)["num_stages"], kernels._states_options(*call)["num_stages"]) == stages


@pytest.mark.parametrize("decay", ["a * S", "diag(a * w) S"])
def test_a_column_of_a_third_width_has_no_tile(decay, tmp_path):
    """It would be cut off where keys end."""
    text = f"""
recurrence third {{
  dim    N = 16, P = 16, M = 96
  input  q, k, w_raw : [N]; v : [P]; x : [M]
  param  c : [M] per head init 1
  gate   a in (0, 1) = sigmoid(c . x); w : [N] in (0, 1) = sigmoid(w_raw)
  state  S : real [N, P]
  update S' = {decay} + k v^T
  output o = S'^T q
}}
"""
    assert not (write(text, tmp_path)[0] / "kernels.py").exists()
    assert (write(text.replace("M = 96", "").replace("16, \n", "16\n").replace("[M]", "[N]"), tmp_path / "own")[0] / "kernels.py").exists()


@pytest.mark.parametrize("name", ["simple_gla", "deltanet", "mamba1"])
def test_a_trace_with_open_sizes_fixes_widths_alone(name, tmp_path):
    """On tensors that say they are on a GPU, narrow enough to need float32: the launchers' shapes are asked for, no kernel runs."""
    folder, spec = write(EXAMPLES[name], tmp_path)
    sizes = {dim: 20 for dim, _ in spec.dims}
    case = draw(spec, Shape(2, 50, 3, 1, sizes), seed=0).to(torch.bfloat16, "cpu", torch.float32)
    with FakeTensorMode(shape_env=ShapeEnv()) as fake:
        open_ = [
            fake.from_tensor(x, symbolic_context=StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * x.dim()))
            for x in case.arguments
        ]
        y = getattr(load(folder), spec.name)(*(torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in open_)).y
        assert [str(size).isdigit() for size in y.shape] == [False, False, False, True][: y.dim()]
        assert y.is_cuda and [int(size) for size in y.shape] == [2, 50, 3, 20][: y.dim()]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", SLACK)
@pytest.mark.parametrize("name", SPECS)
def test_rows_on_a_gpu(name, dtype, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    if not has_row_kernels(folder):
        pytest.skip("in another form")
    measured, wrong = measured_on_a_gpu(folder, spec, dtype)
    assert measured and not wrong, wrong
