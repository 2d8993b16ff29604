"""The emitted Triton kernels: interpreted on the processor in float32, and, where there is a GPU, the operator that calls them.

The interpreter must be chosen before triton is imported, so each package runs in a process of its own. It computes bfloat16
wrongly: only float32 is judged here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from built import write
from conftest import ROOT

pytest.importorskip("torch")

import torch  # noqa: E402

from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.measure import typical  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402

interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: the kernels were NOT tested, not even interpreted"
)

EXCLUSIVE = """
recurrence exclusive {
  dim    N = 16, P = 16
  input  q, k : [N] per group; v : [P]
  gate   g <= 0 = logsigmoid(raw)
  state  S : real [N, P]
  update S' = exp(g) * S + k v^T
  output o = S^T q
}
"""
PER_GROUP = """
recurrence per_group {
  dim    N = 16, P = 16
  input  q : [N] per layer; k : [N] per group; v : [P]; dt_raw : scalar per group
  gate   dt > 0 = softplus(dt_raw)
  state  S : real [N, P]
  update S' = exp(-dt) * S + dt * k v^T
  output o = S'^T q
}
"""
SPECS = {
    "decay": (ROOT / "examples" / "simple_gla.ssm").read_text(encoding="utf-8"),
    "no decay": (ROOT / "examples" / "linear_attention.ssm").read_text(encoding="utf-8"),
    "exclusive": EXCLUSIVE,
}
ON_GPU = SPECS | {
    "data and skip": (ROOT / "examples" / "mamba2.ssm").read_text(encoding="utf-8"),
    "normaliser": (ROOT / "examples" / "mlstm_sigmoid.ssm").read_text(encoding="utf-8"),
    "positions": (ROOT / "examples" / "retnet.ssm").read_text(encoding="utf-8"),
    "gate of a group": PER_GROUP,
}

PROGRAM = '''
import importlib.util, sys
import torch

folder, has_decay, is_exclusive = sys.argv[1], sys.argv[2] == "1", sys.argv[3] == "1"
spec = importlib.util.spec_from_file_location("kernels", folder + "/kernels.py")
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)


def loop(q, k, v, g, S, scale, bounds):
    """The recurrence, token by token; documents one after the other."""
    share = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(share, 2), k.repeat_interleave(v.shape[2] // k.shape[2], 2)
    if bounds is not None:
        spans = list(zip(bounds, bounds[1:]))
        parts = [loop(*(x[:, a:b] for x in (q, k, v, g)), S[i : i + 1], scale, None) for i, (a, b) in enumerate(spans)]
        return torch.cat([o for o, _ in parts], 1), torch.cat([s for _, s in parts])
    reads = []
    for t in range(q.shape[1]):
        after = S * g[:, t].exp()[..., None, None] + k[:, t, :, :, None] * v[:, t, :, None, :]
        reads.append(scale * torch.einsum("bhk, bhkv -> bhv", q[:, t], S if is_exclusive else after))
        S = after
    return torch.stack(reads, 1) if reads else v[:, :0], S


def distance(found, expected):
    """The root mean square difference over that of the expected values."""
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-9)).item()


def check(B, T, H, G, K, V, segments, bounds=None):
    torch.manual_seed(T)
    kernels._segments = lambda *_: segments
    q, k, v, do = torch.randn(B, T, G, K), torch.randn(B, T, G, K), torch.randn(B, T, H, V), torch.randn(B, T, H, V)
    g = torch.nn.functional.logsigmoid(torch.randn(B, T, H) + 2) * has_decay
    count = B if bounds is None else len(bounds) - 1
    S, D, scale = torch.randn(count, H, K, V), torch.randn(count, H, K, V), K**-0.5
    cut = None if bounds is None else torch.tensor(bounds)
    gate = (g,) if has_decay else ()
    o, final = kernels.walk(q, k, v, *gate, S, cu_seqlens=cut, scale=scale)
    dq, dk, dv, *dg, dS = kernels.walk_backward(q, k, v, *gate, do, S, D, cu_seqlens=cut, scale=scale)
    leaves = [x.double().requires_grad_() for x in (q, k, v, g, S)]
    wanted, end = loop(*leaves, scale, bounds)
    gradients = torch.autograd.grad((wanted * do).sum() + (end * D).sum(), leaves, allow_unused=True)
    gradients = [torch.zeros_like(x) if y is None else y for x, y in zip(leaves, gradients)]
    dq, dk = (x.double().unflatten(2, (G, -1)).sum(3) for x in (dq, dk))
    pairs = {"o": (o, wanted), "final": (final, end), "dq": (dq, gradients[0]), "dk": (dk, gradients[1]), "dv": (dv, gradients[2])}
    pairs |= {"dS": (dS, gradients[4])} | ({"dg": (dg[0], gradients[3])} if has_decay else {})
    for name, (found, expected) in pairs.items():
        error = distance(found, expected.detach())
        assert error < 1e-5, f"{name} is off by {error} at {(B, T, H, G, K, V, segments, bounds)}"


for segments in (1, 3):
    check(2, 70, 2, 2, 16, 16, segments)
    check(1, 150, 4, 2, 24, 37, segments)
    check(1, 1, 2, 1, 5, 3, segments)
    check(1, 130, 2, 2, 16, 8, segments, [0, 33, 33, 34, 130])
check(1, 290, 2, 1, 8, 40, 3)
print("held")
'''


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_interpreted_kernels(name, tmp_path):
    folder, _ = write(SPECS[name], tmp_path)
    arguments = [str(folder), str(int(name != "no decay")), str(int(name == "exclusive"))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout == "held\n", done.stdout + done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ON_GPU)
def test_operator_on_a_gpu(name, dtype, tmp_path):
    """Against the float64 loop on the same rounded data; sums over a chunk, not over tokens, keep the errors near one rounding."""
    folder, spec = write(ON_GPU[name], tmp_path)
    subject = Subject(load(folder), spec, "cuda")
    sizes = {dim: size for (dim, _), size in zip(spec.dims, (64, 48), strict=True)}
    single = draw(spec, Shape(1, 530, 4, 2, sizes), seed=1, device="cuda").to(dtype, params_dtype=torch.float32)
    batch = draw(spec, Shape(2, 530, 4, 2, sizes), seed=2, device="cuda").to(dtype, params_dtype=torch.float32)
    bounds = torch.tensor([0, 200, 200, 201, 530], device="cuda")
    for case, cut in ((batch, None), (single, bounds)):
        start = subject.start(case.to(torch.float64), batch=None if cut is None else 4)
        start = tuple(x.float() if x.is_floating_point() else x for x in start)
        wide = tuple(x.double() if x.is_floating_point() else x for x in start)
        exact = case.to(torch.float64)
        truth, found = subject.reference(exact, wide, cut), subject.op(case, start, cu_seqlens=cut, chunk=64)
        slack = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
        for one, other in zip(found.tensors, truth.tensors, strict=True):
            assert typical(one, other) < slack
        expected = subject.gradients(lambda c, s, cut=cut: subject.reference(c, s, cut), exact, wide)
        slopes = subject.gradients(lambda c, s, cut=cut: subject.op(c, s, cu_seqlens=cut, chunk=64), case, start)
        for argument, gradient in slopes.items():
            # the gradient of a decay is a difference of sums over the sequence: 1e-4 was measured in float32
            assert typical(gradient, expected[argument]) < max(2 * slack, 2e-4), argument
