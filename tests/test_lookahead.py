"""States that look ahead: one row a token where the previous token writes once more, and the same numbers, gradients and states."""

from __future__ import annotations

import pytest
from built import write

pytest.importorskip("torch")

from random_points import holds  # noqa: E402

from ssmgen.compiler import build, check  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402
from ssmgen.source import Source  # noqa: E402

HEAD = """
recurrence ahead {{
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; g_raw, b_raw : scalar; {given}
  gate   g <= 0 = logsigmoid(g_raw); b in (0, 1) = sigmoid(b_raw)
  {body}
}}
"""
MATRIX = "state  S : real [N, P]\n  update S' = {}\n  output o = S'^T q"
SPECS = {
    "a decay a head": ("c : scalar", MATRIX.format("exp(g) * (S + c * k[-1] v[-1]^T) + b * k v^T")),
    "backward": ("c : scalar", MATRIX.format("exp(g) * (S + c * k[-1] v[-1]^T) + b * k v^T") + "\n  time reversed"),
    "a number": ("", MATRIX.format("exp(g) * (S + 0.5 * k[-1] v[-1]^T) + 0.5 * k v^T")),
    "the weight of the token before": ("", MATRIX.format("exp(g) * (S + b[-1] * k[-1] v[-1]^T) + b * k v^T")),
    "one a group": ("c : scalar per group", MATRIX.format("exp(g) * (S + c * k[-1] v[-1]^T) + k v^T")),
    "one for all": ("c : scalar per layer", MATRIX.format("exp(g) * (S + c * k[-1] v[-1]^T) + k v^T")),
    "a decay a key": ("w_raw : [N]", MATRIX.format("diag(sigmoid(w_raw)) (S + b * k[-1] v[-1]^T) + (1 - b) * k v^T")),
    "forget, then correct": (
        "c : scalar",
        "let    u : [N] = unit(k)\n  " + MATRIX.format("(I - b * u u^T) (exp(g) * (S + c * u[-1] v[-1]^T)) + b * u v^T"),
    ),
    "turning": ("theta : [N/2]; c : scalar", MATRIX.format("exp(g) * (rot(theta) (S + c * k[-1] v[-1]^T)) + b * k v^T")),
    "a vector": ("c : scalar", "state  s : real [N]\n  update s' = exp(g) * (s + c * k[-1]) + b * k\n  output o = (s' . q) * norm(v)"),
    "normalised": (
        "c : scalar",
        "state  S : real [N, P]; n : real [N]\n  update S' = exp(g) * (S + c * k[-1] v[-1]^T) + b * k v^T\n"
        "         n' = exp(g) * (n + c * k[-1]) + b * k\n  output o = S'^T q / max(abs(n' . q), 1)",
    ),
    "a discretization": (
        "theta : [N/2]",
        "state  S : complex [N, P], rotates first N rows\n  gate   dt > 0 = softplus(g_raw)\n"
        "  dynamics dS/dt = (-1 + i * theta) S + k v^T\n  discretize exp_trapezoid(dt, b)\n  output o = S'^T q",
    ),
}


def text(name: str) -> str:
    given, body = SPECS[name]
    return HEAD.format(given=given, body=body).replace("; \n", "\n")


@pytest.mark.parametrize("name", SPECS)
def test_one_row_a_token(name, tmp_path):
    written, spec = write(text(name), tmp_path)
    (classified,) = check(Source("ahead.ssm", text(name))).after("classify").values()
    assert [len(walk.rows) for walk in classified.walks] == [1] and classified.recurrence.aheads
    assert {axis.axis: axis.value for axis in classified.axes}["taps"] == "previous"
    holds(Subject(load(written), spec, "cpu"))


RANKS = """
recurrence ranks(R = 3) {
  dim    N = 8, P = 6
  input  B, C : [R, N] per group; x, z : [P]; dt_raw, trap : scalar; angle : [N/4] per group
  param  bias : [R, N] per head; mx, mo, mz : [R, P] per head; D : scalar per head
  gate   dt > 0 = softplus(dt_raw); lam in (0, 1) = sigmoid(trap)
  let    k = rmsnorm(B) + bias; q = rmsnorm(C); omega : [N/4] = pi * tanh(angle)
  state  S : complex [N, P], rotates first N/2 rows
  dynamics dS/dt = (-0.7 - i * omega) S + sum r in 1..R: k[r] (mx[r] * x)^T
  discretize exp_trapezoid(dt, lam)
  output y = sum r in 1..R: mo[r] * silu(mz[r] * z) * (S'^T q[r] + D * (mx[r] * x))
}
"""


def test_several_rows_are_written_once_as_well(tmp_path):
    written, spec = write(RANKS, tmp_path)
    (classified,) = check(Source("ranks.ssm", RANKS)).after("classify").values()
    assert [len(walk.rows) for walk in classified.walks] == [3] and classified.recurrence.aheads
    holds(Subject(load(written), spec, "cpu"))


@pytest.mark.parametrize(
    "update",
    [
        "S' = exp(g) * (S + c * q[-1] v[-1]^T) + b * k v^T",  # another write than the token's own
        "S' = exp(g) * S + c * k[-1] v[-1]^T + b * k v^T",  # behind the transition
    ],
)
def test_other_writes_of_the_token_before_stay_two(update):
    given, body = "c : scalar", MATRIX.format(update.removeprefix("S' = "))
    (classified,) = check(Source("ahead.ssm", HEAD.format(given=given, body=body))).after("classify").values()
    assert not classified.recurrence.aheads and len(classified.walks[0].rows) == 2


def test_the_fused_kernels_carry_it():
    files = build(Source("ahead.ssm", text("turning"))).packages["ahead"]
    assert "M_ij = exp(G_i - G_j), j <= i" in files["kernels.py"]
    assert "Of its own token a row reads own_j in the place of c_j." in files["kernels.py"]
