"""Kernels of several walks, and of queries of values, against the float64 reference, interpreted on the processor in float32."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from built import write
from test_kernels import fused, interpreted, interpreting

pytest.importorskip("torch")

from ssmgen.runtime.verify_kernels import Trial, compare, launchers_of  # noqa: E402
from ssmgen.small import arguments_of  # noqa: E402

MIXED = """
recurrence mixed(n = 2) {
  dim    N = 16, M = 24, P = 16
  input  q, k, w_raw : [N]; p : [M] per group; v, z : [P]; ks : [n, M] unit; vs : [n, P]; beta_raw : [n]; i_r : scalar
  param  D : scalar per head init 1
  gate   w : [N] in (0, 1) = exp(-softplus(w_raw)); a in (0, 1) = sigmoid(i_r); beta : [n] in (0, 1) = sigmoid(beta_raw)
  let    kn : [N] = unit(k)
  state  S : real [N, P]; n_s : real [N]; R : real [M, P]
  update S' = diag(w) S + kn v^T
         n_s' = diag(w) n_s + kn
         R' = a * R
         for j in 1..n: R' = R' - beta[j] * ks[j] (ks[j]^T R') + beta[j] * ks[j] vs[j]^T
  output o = (S'^T q / max(abs(n_s'^T q), 1)) * sigmoid(R^T p) + D * v * silu(z)
}
"""
"""A normalised memory whose keys fade, gated by one of two corrections a token that another has; values and a gate are shared."""

VALUED = """
recurrence valued(n = 2) {
  dim    N = 16, P = 16
  input  q : [n, N] per layer; e, w_raw : [N]; v, u : [P]; ks : [n, N] unit; vs : [n, P]; beta_raw : [n]
  gate   w : [N] in (0, 1) = exp(-softplus(w_raw)); beta : [n] in (0, 1) = sigmoid(beta_raw)
  state  S : real [N, P]
  update S' = diag(w) S
         for j in 1..n: S' = S' - beta[j] * ks[j] (ks[j]^T S') + beta[j] * ks[j] vs[j]^T
  output o[j] = S'^T q[j] + v * (e . (S u)) + v * norm(S' u)
}
"""
"""A memory with two corrections a token, read along its keys, twice, after them and along its values before and after."""

BARE = """
recurrence bare {
  dim    N = 16, P = 16
  input  k, e, w_raw : [N] per group; v, u : [P]
  gate   w : [N] in (0, 1) = sigmoid(w_raw)
  state  S : real [N, P]
  update S' = diag(w) S + k v^T
  output o = N^-1/2 * S' u + e
  time reversed
}
"""
"""Keys that fade, and no query of them."""

SPECS = {"mixed": MIXED, "valued": VALUED, "bare": BARE}
SIZES = {"mixed": {"N": 18, "M": 9, "P": 21}, "valued": {"N": 18, "P": 21}, "bare": {"N": 33, "P": 9}}


def interpret(name: str, folder: Path) -> None:
    """Called where triton interprets: packed documents, in segments."""
    written, spec = write(SPECS[name], folder)
    subject, kernels = fused(written, spec)
    for module in launchers_of(kernels):
        module._segments = lambda *_: 2
    trial = Trial(1, 37, 2, {**dict(spec.counts), **SIZES[name]}, (0, 3, 3, 37))
    measured = compare(subject, kernels, trial, "float32")
    assert len(measured) == 1 + sum(map(len, arguments_of(spec))) + 2 * len(spec.states)
    wrong = [f"{one.name} is off by {one.error:.1e}" for one in measured if not one.error < 1e-4]
    print("\n".join(wrong) or "held")


@interpreted
@pytest.mark.parametrize("name", SPECS)
def test_interpreted_walk_kernels(name, tmp_path):
    assert interpreting(name, tmp_path, module="test_walk_kernels") == "held"


def test_every_walk_has_a_file_and_its_kernels_names_of_their_own(tmp_path):
    folder, _ = write(MIXED, tmp_path)
    assert sorted(file.name for file in folder.glob("walk_*.py")) == ["walk_0.py", "walk_1.py"]
    kernels = [
        node.name
        for file in folder.glob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel")
    ]
    assert len(kernels) == len(set(kernels)) and {"readout_kernel", "walk_0_forward_kernel", "walk_1_forward_kernel"} <= set(kernels)
