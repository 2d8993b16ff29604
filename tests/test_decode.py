"""One token in one kernel: interpreted in float32 against the torch step in float64; on a GPU through the operator.

The interpreter must be chosen before triton is imported, so one process runs every package.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
from built import write
from conftest import ROOT
from packages import OP

pytest.importorskip("torch")

import torch  # noqa: E402

from ssmgen._environment import render  # noqa: E402
from ssmgen.derive import derive  # noqa: E402
from ssmgen.parse import parse  # noqa: E402
from ssmgen.reference import render_reference  # noqa: E402
from ssmgen.resolve import resolve  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.measure import typical  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.source import Source  # noqa: E402
from ssmgen.triton_form.decode import decode_package  # noqa: E402

interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: the kernel was NOT tested, not even interpreted"
)

EXAMPLES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.ssm"))}
INVENTIONS = {
    name: (ROOT / "examples" / "inventions" / f"{name}.ssm").read_text(encoding="utf-8")
    for name in ("damped_reflection", "rwkv6_two_taps", "trapezoid_delta")
}

SHARED = """
recurrence shared {
  dim    N = 24, P = 40
  input  q : [N] per layer; k : [N] per group; v : [P]; dt_raw : scalar per group; i_b : scalar
  param  bias : scalar per group; w : [N] per head
  gate   dt > 0 = softplus(dt_raw + bias)
  let    key : [N] = exp(k * w)
  state  S : real [N, P]; y : real [N]
  update S' = exp(-dt) * S + dt * key v^T
         y' = exp(-dt) * y + dt * key
  output o = S'^T exp(q) / (y'^T exp(q) + 1) + sigmoid(i_b) * v
}
"""
BEFORE = """
recurrence before {
  dim    K = 24, H = 40
  input  q, k : [K] per group; v : [H]; b_S : scalar
  gate   g <= 0 = logsigmoid(b_S)
  state  S : real [K, H]
  update S' = exp(g) * S + softmax(k) rmsnorm(v)^T
  output o = (S + diag(unit(k)) k v^T)^T rope(q) + norm(v) * v
}
"""
MEAN = """
recurrence mean {
  dim    P = 40
  input  x : [P] per head; r : scalar per group
  gate   a in (0, 1) = sigmoid(r)
  state  m : real [P]; c : real scalar
  update m' = a * m + x
         c' = a * c + 1
  output o = m' / c'
}
"""
PREVIOUS = """
recurrence previous {
  dim    N = 24, P = 40
  input  q, k : [N]; v : [P]
  let    key : [N] = unit(rope(k))
  state  S : real [N, P]
  update S' = S + key[-1] v^T + key v[-1]^T
  output o = S'^T q
}
"""
"""Values of the token before, one of them turned by its position."""
TURNING = """
recurrence turning {
  dim    N = 24, P = 40
  input  q, k : [N] per group; v : [P]; dt_raw : scalar; angle : [N/4] per group
  param  tilt : [N/4] per head init uniform(0, 1)
  gate   dt > 0 = softplus(dt_raw)
  state  S : complex [N, P], rotates first N/2 rows; n : real [N]
  dynamics dS/dt = (-1 + i * (angle + tilt + 0.5)) S + k v^T
           dn/dt = -n + k
  discretize exp_euler(dt)
  output o = S'^T q / (abs(n'^T q) + 1)
}
"""
"""A quarter of the rows turns; what the angle adds up to is not zero behind them."""
TURNED_DELTA = """
recurrence turned_delta {
  dim    N = 24, P = 40
  input  q : [N]; k : [2, N] unit; v : [P]; theta : scalar; b : scalar
  gate   beta in (0, 1) = sigmoid(b)
  state  S : real [N, P]
  update S' = 0.9 * S
         for j in 1..2: S' = rot(theta) (S' - beta * k[j] (S'^T k[j] - v)^T)
  output o = S'^T q
}
"""
PRODUCTS = ("linoss", "linoss_im", "lru", "s5", "pd_ssm")
"""Products of matrices stand around the launch: their operands and results are rounded to the type of the inputs."""
NO_CHUNK_FORM = ("titans_linear",)
"""Sketches that nothing but their equations tells how to run."""
TURNING_VALUES = """
recurrence turning_values {
  dim    N = 24, P = 40
  input  q, k : [N]; v : [P]; theta : [P/2]; a_raw : scalar
  gate   a in (0, 1) = sigmoid(a_raw)
  state  S : real [N, P]
  update S' = a * S rot(theta) + k (rot(theta) v)^T
  output o = S'^T q
}
"""
TURNING_VECTOR = """
recurrence turning_vector {
  dim    N = 24
  input  k : [N]; theta : [N/2]; a_raw : scalar
  gate   a in (0, 1) = sigmoid(a_raw)
  state  h : real [N]
  update h' = a * rot(theta) h + k
  output o = h'
}
"""
ENTRIES = """
recurrence entries {
  dim    N = 24, P = 40
  input  q, k : [N]; v : [P]; W : [N, P]; dt_raw : scalar
  param  rate : [N, P] per head; bias : [N, P] per layer
  gate   dt > 0 = softplus(dt_raw)
  state  S : real [N, P]
  dynamics dS/dt = -exp(rate) * S + tanh(W + bias) * (k v^T)
  discretize zoh(dt)
  output o = S'^T q
}
"""
ODD = {
    "entries": ENTRIES,
    "turning_values": TURNING_VALUES,
    "turning_vector": TURNING_VECTOR,
    "shared": SHARED,
    "before": BEFORE,
    "mean": MEAN,
    "previous": PREVIOUS,
    "turning": TURNING,
    "turned_delta": TURNED_DELTA,
} | INVENTIONS

PROGRAM = """
import sys
import torch
from ssmgen.runtime.load import load

TOKENS = 2  # the second reads what the first left


def wider(part):
    return part.to(torch.complex128) if part.is_complex() else part.double() if part.is_floating_point() else part.clone()


def parted(tensors):
    # real and imaginary parts, which show what is written into them
    return [p for x in tensors for p in (torch.view_as_real(x).unbind(-1) if x.is_complex() else [x])]


for folder, cases in torch.load(sys.argv[1]):
    package = load(folder)
    name = package.__name__.split(".")[-1]
    step = getattr(package.op, [n for n in dir(package.op) if n.endswith("_step") and not n.startswith("_")][0])
    decode = __import__(package.__name__ + ".decode", fromlist=["step"])
    whole = decode._blocks
    for inputs, params, state, slots, constants in cases:
        wide = package.State(*map(wider, state))
        state = package.State(*(part.clone() for part in state))
        if slots is not None and decode.step_kernel.fn.__code__.co_varnames.count("i_p"):
            decode._blocks = lambda *sizes: (*whole(*sizes)[:-2], 16, 1)  # several blocks of columns
        for t in range(TOKENS):
            row = [x[:, t] for x in inputs]
            wanted = step(*map(wider, (*row, *params)), state=wide, **({} if slots is None else {"slots": slots}))
            # what the operator does around the kernel: values of the token before
            around = [n for n in state._fields if n.endswith("_previous")]
            own = [part if slots is None else part[slots.clamp(min=0)] for part in (getattr(state, n) for n in around)]
            parts = [part for n, part in zip(state._fields, state) if n not in (*around, "position")]
            position = [state.position] if "position" in state._fields else []
            found = decode.step(*parted([*row, *params]), *own, *parted(parts), *position, *constants, slots=slots)
            for n in around:
                getattr(state, n).copy_(getattr(wide, n))
            for one, other in ((found, wanted), *zip(state, wide)):
                error = ((wider(one) - other).abs().max() / other.abs().max().clamp(min=1e-9)).item()
                assert error < 1e-5, (folder, t, slots, error)
            if slots is not None:
                assert (found[slots < 0] == 0).all(), folder
print("held")
"""


SIZES = {"N": 24, "P": 40, "K": 24, "H": 40}


def arguments(spec, batch, device="cpu", dtype=torch.float32):
    """Inputs [B, 5, ...] that are views of wider rows, and params: 4 heads in 2 groups, sizes that are no powers of two."""
    case = draw(spec, Shape(batch, 5, 4, 2, {name: SIZES[name] for name, _ in spec.dims} | dict(spec.counts)), seed=batch, device=device)
    case = case.to(dtype, params_dtype=torch.float32)
    return [torch.cat([x, x], -1)[..., : x.shape[-1]] for x in case.inputs.values()], list(case.params.values())


def states(package, spec, inputs, params, rows):
    """A pool of states that are not zero, positions far apart."""
    like = getattr(package, spec.name)(*inputs, *params).final_state
    generator = torch.Generator().manual_seed(1)
    parts = (
        1000 * torch.arange(rows) + 7
        if x.dtype == torch.int64
        else torch.rand(rows, *x.shape[1:], generator=generator, dtype=x.dtype) + 0.1
        for x in like
    )
    return tuple(part.to(like[0].device) for part in parts)


SLOTS = (None, torch.tensor([3, -1, 0]))


def over_reference(name, folder):
    """The package of a sketch, its steps those of the reference, with the decode kernel beside it."""
    text = (ROOT / "tests" / "sketches" / f"{name}.ssm").read_text(encoding="utf-8")
    (spec,) = resolve(parse(Source(f"{name}.ssm", text))).recurrences
    target = folder / name
    target.mkdir()
    inputs = [s for s in spec.symbols if s.kind in ("input", "gate") and s.definition is None]
    (target / "op.py").write_text(OP.format(name=spec.name, inputs=len(inputs)), encoding="utf-8")
    (target / "reference.py").write_text(render_reference(spec), encoding="utf-8")
    (target / "decode.py").write_text(render("triton/decode.py.jinja", decode=decode_package(derive(spec))), encoding="utf-8")
    (target / "__init__.py").write_text(f"from . import op\nfrom .op import State, {spec.name}, {spec.name}_step\n", encoding="utf-8")
    return target, spec


@interpreted
def test_interpreted_steps(tmp_path):
    # a running maximum before and after the token is an input of the launch, made beside it: those are held as modules; for products of
    # matrices see test_scan_kernels
    launched = {name: text for name, text in (EXAMPLES | ODD).items() if name not in ("mlstm", "rwkv4", *PRODUCTS)}
    built = [(*write(text, tmp_path, f"{name}.ssm"), SLOTS) for name, text in launched.items()]
    built += [(*over_reference(name, tmp_path), SLOTS[:1]) for name in NO_CHUNK_FORM]
    listed = []
    for folder, spec, ways in built:
        package, cases = load(folder), []
        for slots in ways:
            inputs, params = arguments(spec, 2 if slots is None else 3)
            pool = states(package, spec, inputs, params, 2 if slots is None else 4)
            cases.append((inputs, params, pool, slots, [float(value) for _, value in spec.constants]))
        listed.append((str(folder), cases))
    torch.save(listed, tmp_path / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "cases.pt")], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout == "held\n", done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize("name", ["mamba2", "retnet", "linear_attention_normalised", "previous"])
def test_slots_choose_rows(name, tmp_path):
    """A step on slots of a pool is a step on the rows that they name; the others, and a row that is absent, stay."""
    folder, spec = write((EXAMPLES | {"previous": PREVIOUS})[name], tmp_path, f"{name}.ssm")
    package = load(folder)
    step = getattr(package, f"{spec.name}_step")
    inputs, params = arguments(spec, 3)
    token = [x[:, 0] for x in inputs]
    before = states(package, spec, inputs, params, 4)
    pool = package.State(*(part.clone() for part in before))
    y = step(*token, *params, state=pool, slots=torch.tensor([3, -1, 0]))
    own = package.State(*(part[[3, 0]] for part in before))
    wanted = step(*(x[[0, 2]] for x in token), *params, state=own)
    assert torch.equal(y[[0, 2]], wanted) and y[1].abs().max() == 0
    for part, start, moved in zip(pool, before, own, strict=True):
        assert torch.equal(part[[3, 0]], moved) and torch.equal(part[[1, 2]], start[[1, 2]])


def wider(part: torch.Tensor) -> torch.Tensor:
    """In float64 or complex128; counts as they are."""
    return part.to(torch.complex128) if part.is_complex() else part.double() if part.is_floating_point() else part.clone()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*EXAMPLES, *ODD])
def test_steps_on_a_gpu(name, dtype, tmp_path):
    """The operator's step against the torch step in float64, and, for one, the same out of a graph."""
    folder, spec = write((EXAMPLES | ODD)[name], tmp_path, f"{name}.ssm")
    package = load(folder)
    step = getattr(package.op, f"{spec.name}_step")  # of reversed time as well, which a package does not offer
    for slots in (None, torch.tensor([3, -1, 0], device="cuda")):
        inputs, params = arguments(spec, 3, "cuda", dtype)
        pool = package.State(*states(package, spec, [x.cpu() for x in inputs], [x.cpu() for x in params], 4 if slots is not None else 3))
        pool = package.State(*(part.cuda() for part in pool))
        wide = package.State(*map(wider, pool))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # where there is no triton the torch step runs, and says so
            for t in range(5):
                found = step(*(x[:, t] for x in inputs), *params, state=pool, slots=slots)
                wanted = step(*(wider(x[:, t]) for x in inputs), *map(wider, params), state=wide, slots=slots)
                assert typical(found, wanted) < {torch.float32: 1e-5, torch.bfloat16: 8e-3}[dtype]
                for part, other in zip(pool, wide, strict=True):
                    assert typical(wider(part), wider(other)) < (8e-3 if name in PRODUCTS and dtype == torch.bfloat16 else 1e-5)
        before = [part.clone() for part in pool]
        graph = torch.cuda.CUDAGraph()
        token = [x[:, 0] for x in inputs]
        with torch.cuda.graph(graph):
            captured = step(*token, *params, state=pool, slots=slots)
        graph.replay()
        again = package.State(*before)
        assert torch.equal(captured, step(*token, *params, state=again, slots=slots))
        for part, other in zip(pool, again, strict=True):
            assert torch.equal(part, other)
