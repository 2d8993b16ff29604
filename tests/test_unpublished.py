"""Recurrences of no paper: products of what the language has must build and hold at the first attempt."""

from __future__ import annotations

import pytest
from built import write

torch = pytest.importorskip("torch")

from ssmgen.compiler import build  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.verify import CHECKS, verify_checks  # noqa: E402
from ssmgen.source import Source  # noqa: E402

SOME = ("reference = interpreter", "op = reference", "op gradients", "split", "packed", "step", "order",
        "extreme gates", "reversed", "operators", "module")  # fmt: skip

SPECS = {
    "two_sides": """
recurrence two_sides {
  dim    N = 3, P = 4
  input  q, k : [N]; v : [P]; A : [N, N]; F : [P, P]; dt : scalar > 0
  state  S : real [N, P]
  dynamics   dS/dt = (A - A^T) S + S (F - F^T) + k v^T
  discretize euler(0.1 * dt)
  output o = S'^T q
}
""",
    "rev_group": """
recurrence rev_group {
  dim N = 4, P = 3
  input q, k : [N] per group; v : [P]; g : scalar <= 0
  state S : real [N, P]
  update S' = exp(g) * S + k v^T
  output o = S'^T q
  time reversed
}""",
    "rope_rev": """
recurrence rope_rev {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; g : scalar <= 0
  state S : real [N, P]
  update S' = exp(g) * S + rope(k) v^T
  output o = S'^T rope(q)
  time reversed
}""",
    "exclusive": """
recurrence exclusive {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; a_raw : scalar
  param u : [N] per head
  gate a in (0, 1) = sigmoid(a_raw)
  state S : real [N, P]
  update S' = a * S + k v^T
  output o = (S + diag(u) k v^T)^T q
}""",
    "before_read": """
recurrence before_read {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; a_raw : scalar
  gate a in (0, 1) = sigmoid(a_raw)
  state S : real [N, P]
  update S' = a * S + (1 - a) * k v^T
  output o = q^T S
}""",
    "both_reads": """
recurrence both_reads {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; a_raw : scalar; D : scalar
  gate a in (0, 1) = sigmoid(a_raw)
  state S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q - D * (S^T k) + v
}""",
    "value_read": """
recurrence value_read {
  dim N = 4, P = 3
  input q, k : [N]; v, w : [P]; a_raw : scalar
  gate a in (0, 1) = sigmoid(a_raw)
  state S : real [N, P]
  update S' = a * S + k v^T
  output o = S' w
}""",
    "vec_state": """
recurrence vec_state {
  dim N = 4
  input q, k : [N]; x, a_raw : scalar
  gate a in (0, 1) = sigmoid(a_raw)
  state s : real [N]
  update s' = a * s + x * k
  output o = q . s'
}""",
    "vec_whole": """
recurrence vec_whole {
  dim N = 4
  input x : [N]; a_raw : scalar
  gate a in (0, 1) = sigmoid(a_raw)
  state s : real [N]
  update s' = a * s + (1 - a) * x
  output o = silu(s') * x
}""",
    "two_states": """
recurrence two_states {
  dim N = 4, P = 3, Q = 2
  input q, k, c : [N]; v : [P]; w : [Q]; a_raw, b_raw : scalar
  gate a in (0, 1) = sigmoid(a_raw)
  gate b in (0, 1) = sigmoid(b_raw)
  state S : real [N, P]; Z : real [N, Q]
  update S' = a * S + k v^T
         Z' = b * Z + c w^T
  output o = S'^T q / (1 + square(norm(Z'^T q)))
}""",
    "layer_input": """
recurrence layer_input {
  dim N = 4, P = 3
  input q, k : [N] per layer; v : [P]; dt_raw : scalar per layer
  param A_log : scalar per head init log(uniform(1, 16))
  gate dt > 0 : scalar per layer = softplus(dt_raw)
  state S : real [N, P]
  dynamics dS/dt = -exp(A_log) * S + k v^T
  discretize exp_euler(dt)
  output o = S'^T q
}""",
    "zoh_scalar": """
recurrence zoh_scalar {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; dt_raw : scalar
  param A_log : scalar per head init log(uniform(1, 16))
  gate dt > 0 = softplus(dt_raw)
  state S : real [N, P]
  dynamics dS/dt = -exp(A_log) * S + k v^T
  discretize zoh(dt)
  output o = S'^T q
}""",
    "euler_leak": """
recurrence euler_leak {
  dim P = 3
  input x : [P]; dt : scalar in (0, 1)
  state h : real [P]
  dynamics dh/dt = x - h
  discretize euler(dt)
  output h'
}""",
    "feature": """
recurrence feature {
  dim N = 6, P = 3
  input q, k : [N]; v : [P]; g_raw : scalar
  gate g <= 0 = -softplus(g_raw) * exp(-1)
  param w : [N] per head init 1; bq : [N] per layer
  let fq : [N] = softmax(w * q + bq)
      fk : [N] = rmsnorm(k) * relu(w)
  state S : real [N, P]; z : real [N]
  update S' = exp(g) * S + fk v^T
         z' = exp(g) * z + fk
  output o = S'^T fq / max(z'^T fq, 1e-3) + gelu(v)
}""",
    "norm_out": """
recurrence norm_out {
  dim N = 4, P = 3
  input q, k : [N]; v, z : [P]; f : scalar in (0, 1)
  state S : real [N, P]
  update S' = f * S + unit(k) v^T
  output o = rmsnorm(S'^T q) * silu(z)
}""",
    "two_decays": """
recurrence two_decays {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; f_raw, i_raw : scalar
  param b : scalar per head init linspace(3, 6)
  gate f in (0, 1) = sigmoid(f_raw + b); i in (0, 1) = sigmoid(i_raw)
  state C : real [N, P]; n : real [N]
  update C' = f * C + i * k v^T
         n' = f * n + i * k
  output h = C'^T q / max(abs(n'^T q), 1)
}""",
    "consts": """
recurrence consts(layer = 1, layers = 4) {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]
  param s : scalar per head = 2^(-(head + 1)) * (1 - layer / layers)
  state S : real [N, P]
  update S' = (1 - s) * S + layers^-1 * k v^T
  output o = S'^T q * N^-1/2
}""",
    "transposed": """
recurrence transposed {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; a : scalar in (0, 1)
  state S : real [P, N]
  update S' = a * S + v k^T
  output o = S' q
}""",
    "const_decay": """
recurrence const_decay {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]
  state S : real [N, P]
  update S' = 0.9 * S + 2 * k v^T
  output o = S'^T q
}""",
    "unit_in": """
recurrence unit_in {
  dim N = 4, P = 3
  input q, k : [N] unit per group; v : [P]; a : scalar in (0, 1]
  param D : [P] per head init 1; E : scalar per layer init 1/2
  state S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q + D * v * E
}""",
    "online_learner": """
recurrence online_learner {
  dim N = 4, P = 3
  input q, k : [N]; x, b_raw : [P]
  gate b : [P] in (0, 1) = sigmoid(b_raw)
  let d = b / (1 + b * (k . k))
  state S : real [N, P]
  update S' = (1 - k^2 d^T) * S + k (d * x)^T
  output o = cos(position / 16) * S'^T q
}""",
    "named_products": """
recurrence named_products {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]
  let M = k v^T + 0.5 * q v^T; u = M^T q
  gate a in (0, 1) = sigmoid(q^T (M v))
  state S : real [N, P]
  update S' = a * S + k u^T + M
  output o = cos(position / 16) * S'^T q + 2 * M^T q
}""",
    "whole_matrices": """
recurrence whole_matrices {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; W : [N, P]; a : scalar in (0, 1)
  param S0 : [N, P] per head init normal(0, 1)
  state S : real [N, P]
  update S' = a * S + (1 - a) * S0 + W * (k v^T)
  output o = S'^T q
}""",
    "sizes_of_no_input": """
recurrence sizes_of_no_input {
  dim N = 4
  input x, w : scalar per channel
  state h : real [N] per channel
  update h' = 0.9 * h + x
  output y = w * (h' . h')
}""",
    "gated_steps": """
recurrence gated_steps(n = 2) {
  dim N = 4, P = 3
  input q : [N]; k : [n, N] unit; v : [n, P]; a_raw : [n]
  gate a : [n] in (0, 1) = sigmoid(a_raw)
  state S : real [N, P]; z : real [N]
  update S' = S; z' = z
         for j in 1..n: {
           S' = a[j] * S' + k[j] v[j]^T
           z' = a[j] * z' + k[j]
         }
  output o = S'^T q / max(abs(z'^T q), 1)
}""",
    "turning_entries": """
recurrence turning_entries {
  dim N = 4, P = 3
  input q, k : [N] unit; v : [P]; th : [N]; a_raw : scalar
  gate beta in (0, 1) = sigmoid(raw); g <= 0 = -softplus(a_raw)
  state S : complex [N, P]
  update S' = (I - beta * k k^H) (exp(g) * diag(cis(pi * tanh(th))) S) + beta * k v^T
  output o = Re(S'^T q)
}""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_it_builds_and_holds(name, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    report = verify_checks(folder, spec, {check: CHECKS[check] for check in SOME})
    assert report.passed, "\n".join(map(str, report.failures))


@pytest.mark.parametrize(
    "gate", ["(s * sigmoid(y))^softplus(w)", "sqrt(s * sigmoid(y))", "rsqrt(2 + y^2)", "((position + 1) / (position + 2))^softplus(w)"]
)
def test_a_power_of_a_product_fades(gate):
    """The exact check of a build takes such a decay as its logarithm does."""
    text = SPECS["const_decay"].replace("v : [P]", "v : [P]; x, y, w : scalar").replace("0.9 * S", "a * S")
    text = text.replace("  state", f"  let s = sigmoid(x)\n  gate a in (0, 1) = {gate}\n  state")
    assert "g: log decay" in build(Source("fading.ssm", text)).packages["const_decay"]["op.py"]


def test_a_correction_beside_factors_of_the_other_axis(tmp_path):
    """Against the equation itself, in float64."""
    text = """
recurrence both_axes {
  dim N = 4, P = 3
  input q : [N]; k : [N] unit; v, c : [P]; e : [P] unit; W : [N, P]
  state S : real [N, P]
  update S' = (S - k (k^T S)) diag(c) - 0.5 * (S e) e^T + W + k v^T
  output o = S^T q
}"""
    q, k, v, c, e, W = (torch.randn(1, 5, 1, *shape, dtype=torch.float64) for shape in ((4,), (4,), (3,), (3,), (3,), (4, 3)))
    k, e = (x / x.norm(dim=-1, keepdim=True) for x in (k, e))
    S, wanted = torch.zeros(4, 3, dtype=torch.float64), []
    for t in range(5):
        wanted.append(q[0, t, 0] @ S)
        kept = (S - torch.outer(k[0, t, 0], k[0, t, 0] @ S)) * c[0, t, 0]
        S = kept - 0.5 * torch.outer(S @ e[0, t, 0], e[0, t, 0]) + W[0, t, 0] + torch.outer(k[0, t, 0], v[0, t, 0])
    y, state = load(write(text, tmp_path)[0]).both_axes(q, k, v, c, e, W)
    torch.testing.assert_close(y[0, :, 0], torch.stack(wanted))
    torch.testing.assert_close(state.S[0, 0], S)


@pytest.mark.parametrize("function", ["sigmoid", "softmax"])
def test_an_entry_of_what_is_made_of_a_column(function):
    """An entry of a function of every entry is the function of one; of all of them together no tile has it, and no kernel is emitted."""
    text = SPECS["const_decay"].replace("v : [P]", "v : [P]; r : [2]").replace("2 * k v^T", "w[2] * k v^T")
    text = text.replace("  state", f"  let w : [2] = {function}(r)\n  state")
    files = build(Source("entry.ssm", text)).packages["const_decay"]
    for name, written in files.items():
        compile(written, name, "exec")
    assert ("b_w_2 = _sigmoid(b_r_2)" in files.get("decode.py", "")) == (function == "sigmoid")
    assert "softmax(b_" not in files.get("decode.py", "") + files.get("kernels.py", "")
