"""A token of a layer: what one kernel carries of it, interpreted, against the layer's forward pass in float64; slots of a pool.

The interpreter must be chosen before triton is imported, so one process runs every package.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from built import write
from conftest import ROOT

torch = pytest.importorskip("torch")

from test_module import BLOCK, KITCHEN_SINK  # noqa: E402

from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.measure import typical  # noqa: E402

interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: the kernel was NOT tested, not even interpreted"
)

EXAMPLES = {
    name: (ROOT / "examples" / f"{name}.ssm").read_text(encoding="utf-8")
    for name in ("mamba2", "gated_deltanet", "deltanet", "mlstm_sigmoid", "retnet")
}
CORE = """
recurrence core {
  dim    N = 6, P = 20
  input  q, k : [N] per group; v : [P]; r, s : scalar
  param  bias : scalar per head init uniform(1, 2)
  gate   a in (0, 1) = sigmoid(r + bias); b in (0, 1) = sigmoid(s)
  state  S : real [N, P]
  update S' = a * S + b * k v^T
  output o = S'^T q + v
}
"""
SHARED = (
    CORE
    + """
layer shared(d_model) {
  heads H = d_model / P, groups H / 2
  v, q, k, z = linear(u)
  r = linear(u)
  k, q = unit(silu(conv(3)))
  s = conv(linear(u[-1]), 2, bias)
  v = v * sigmoid(r)
  o = core(q, k, conv(2 * v, 4), r, s)
  out = linear(rmsnorm(o, per head) * silu(z), bias)
}
"""
)
"""Two filters over shared channels, one of a scalar, one of a product; a gate that several read."""
APART = (
    CORE
    + """
layer apart(d_model) {
  heads H = d_model / P, groups 1
  param scale : [H, P] init 1; lam : scalar init 2
  q, k, v, z = linear(u)
  q = conv(q, 4)
  q = q / N^1/2
  r, s = linear(u, bias)
  k = rmsnorm(silu(conv(k, 3)), per group)
  z = conv(z, 2)
  o = core(q, k, v * lam, r, tanh(s)) + z
  out = u + linear(o, bias)
}
"""
)
"""A learned norm and a value that is read later stay torch operations, with their filters."""
TURNED = """
recurrence turned(n = 2) {
  dim    N = 6, P = 20
  input  q : [N]; k : [n, N] unit; v : [n, P]; r : scalar
  gate   a in (0, 1) = sigmoid(r)
  state  S : real [N, P]
  update S' = a * S
         for j in 1..n: S' = S' - k[j] (k[j]^T S') + k[j] v[j]^T
  output o = S'^T rope(q)
}
layer turned_block(d_model) {
  heads H = d_model / P
  q, k, v = linear(u)
  q, k, v = silu(conv(4))
  r = linear(u)
  o = turned(q, k, v, r)
  out = linear(o)
}
"""
"""Several rows a token, and a position that turns."""
EVERY = EXAMPLES | {"shared": SHARED, "apart": APART, "turned": TURNED, "everything": KITCHEN_SINK, "groups": BLOCK}
NO_KERNEL = ("retnet",)
"""Layers with nothing between projections and recurrence: the recurrence's own kernel is theirs."""
SIZES = {"d_model": 40, "N": 6, "P": 20}

PROGRAM = """
import sys
import torch
from ssmgen.runtime.load import load

leaves = torch.utils._pytree.tree_leaves
copy = lambda state: torch.utils._pytree.tree_map(torch.clone, state)

for folder, name, sizes, splits in torch.load(sys.argv[1]):
    package = load(folder)
    launched = []
    package.module._is_fused = lambda *_: launched.append(1) or True  # the kernel, interpreted
    if splits:
        kernel = __import__(f"{package.__name__}.decode_{splits}", fromlist=["step"])
        whole = kernel._blocks
        if kernel.__dict__[splits + "_step_kernel"].fn.__code__.co_varnames.count("i_p"):
            kernel._blocks = lambda *given: (*whole(*given)[:-2], 16, 1)  # several blocks of columns
    torch.manual_seed(0)
    layer = getattr(package, name)(**sizes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    exact = getattr(package, name)(**sizes).double()
    exact.load_state_dict({key: value.double() for key, value in layer.state_dict().items()})
    u = torch.randn(3, 10, sizes["d_model"])
    close = lambda one, other: torch.testing.assert_close(one.double(), other.double(), rtol=2e-5, atol=2e-5, msg=lambda m: f"{name}: {m}")
    for slots in (None, torch.tensor([3, -1, 0])):
        with torch.no_grad():
            # a state that has seen tokens; after it, tokens one by one, as many as a filter is long; after those, several again
            first = layer(u[:, :5]).final_state
            wanted = exact(u.double())
            pool = copy(first) if slots is None else torch.utils._pytree.tree_map(lambda x: torch.stack([x[2], x[1], x[1], x[0]]), first)
            before = copy(pool)
            for t in range(5, 9):
                y = layer.step(u[:, t], state=pool, slots=slots)
                there = slice(None) if slots is None else [0, 2]
                close(y[there], wanted.y[there, t])
                if slots is not None:
                    assert (y[1] == 0).all(), name
            own = pool if slots is None else torch.utils._pytree.tree_map(lambda x: x[[3, 0]], pool)
            rest = layer(u[there, 9:], state=own)
            close(rest.y, wanted.y[there, 9:])
            for part, other in zip(leaves(own), leaves(exact(u[there, :9].double()).final_state), strict=True):
                close(part, other)
            if slots is not None:
                for part, other in zip(leaves(pool), leaves(before), strict=True):
                    assert torch.equal(part[[1, 2]], other[[1, 2]]), name
    assert bool(launched) == bool(splits), name
print("held")
"""


def layers(folder, texts):
    """(folder of the package, name of the class, its arguments, name of the layer where a kernel carries a part of it)."""
    for name, text in texts.items():
        target, _ = write(text, folder / name, f"{name}.ssm")
        (kernel,) = [path.stem.removeprefix("decode_") for path in target.glob("decode_*.py")] or [""]
        package = load(target)
        (layer,) = [n for n in package.__all__ if n.endswith("Block") or n in ("Shared", "Apart", "Everything")]
        known = getattr(package, layer).__init__.__code__.co_varnames
        sizes = {"expand": 1, **SIZES} | ({"N": 20} if name == "retnet" else {})
        yield str(target), layer, {n: v for n, v in sizes.items() if n in known}, kernel


@interpreted
def test_interpreted_layers(tmp_path):
    listed = list(layers(tmp_path, EVERY))
    assert {name for name, (*_, kernel) in zip(EVERY, listed, strict=True) if not kernel} == {*NO_KERNEL}
    torch.save(listed, tmp_path / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "cases.pt")], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout == "held\n", done.stdout + done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_layers_on_a_gpu(name, dtype, tmp_path):
    """Prefilled on the processor, token by token through a graph on the GPU, against the forward pass in float64."""
    ((folder, kind, sizes, kernel),) = layers(tmp_path, {name: EVERY[name]})
    package = load(folder)
    torch.manual_seed(0)
    layer = getattr(package, kind)(**sizes).to(dtype)
    exact = getattr(package, kind)(**sizes).double()
    exact.load_state_dict({key: value.double() for key, value in layer.state_dict().items()})
    u = torch.randn(3, 12, SIZES["d_model"]).to(dtype)
    moved = torch.utils._pytree.tree_map
    allowed = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    with torch.no_grad():
        first, whole = layer(u[:, :5]).final_state, exact(u.double())
        layer = layer.cuda()
        for slots in (None, torch.tensor([3, -1, 0], device="cuda")):
            rows, there = ([0, 1, 2], [0, 1, 2]) if slots is None else ([3, 0], [0, 2])
            pool = moved(lambda x: (x if slots is None else x[[2, 1, 1, 0]]).cuda(), first)  # noqa: B023
            held = moved(torch.clone, pool)
            token = u[:, 5].cuda()
            layer.step(token, state=held, slots=slots)  # compiled before it is captured
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = layer.step(token, state=pool, slots=slots)
            for t in range(5, 12):
                token.copy_(u[:, t])
                graph.replay()
                assert typical(y[there].cpu(), whole.y[there, t]) < allowed
                assert slots is None or (y[1] == 0).all()
            for part, other in zip(leaves(pool), leaves(whole.final_state), strict=True):
                assert typical(part[rows].cpu(), other[there]) < allowed
    assert bool(kernel) == (name not in NO_KERNEL)


def leaves(state) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(state)
