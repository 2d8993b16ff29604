"""Diagonal decays, corrections and rows: examples against plain loops, and recurrences of no paper against everything."""

from __future__ import annotations

import pytest
from built import example, write
from conftest import ROOT
from oracles import rank_one

torch = pytest.importorskip("torch")

from test_random_specs import holds  # noqa: E402

from ssmgen.compiler import build  # noqa: E402
from ssmgen.diagnostics import SpecError  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402
from ssmgen.source import Source  # noqa: E402

PAPERS = (
    "gla hgrn2 rwkv5 rwkv6 deltanet gated_deltanet kda comba gdn2 dplr rwkv7 deltaproduct gated_deltaproduct"
).split()  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_against_its_loop(name, tmp_path):
    """Values and gradients in float64, over several chunks and a rest."""
    package, spec = example(name, tmp_path)
    sizes = {dim: size for (dim, _), size in zip(spec.dims, (6, 5), strict=True)} | dict(spec.counts)
    case = draw(spec, Shape(2, 21, 4, 2, sizes), seed=3, device="cpu").to(torch.float64)
    leaves = [x.clone().requires_grad_() for x in case.arguments]
    wanted, final = getattr(rank_one, name)(*leaves)
    weights, ends = torch.randn_like(wanted), torch.randn_like(final)
    expected = torch.autograd.grad((wanted * weights).sum() + (final * ends).sum(), leaves)
    for form in (f"{name}_reference", name):
        given = [x.clone().requires_grad_() for x in case.arguments]
        keywords = {} if form.endswith("reference") else {"chunk": 8}
        output = getattr(package, form)(*given, **keywords)
        torch.testing.assert_close((output.y, output.final_state.S), (wanted, final), rtol=1e-9, atol=1e-9)
        found = torch.autograd.grad((output.y * weights).sum() + (output.final_state.S * ends).sum(), given)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


SPECS = {
    "two readings, three micro-steps, a decay behind them": """
recurrence steps(n = 3) {
  dim    N = 4, P = 3
  input  q, w : [N]; k : [n, N] unit; v : [n, P]; b_raw : [n]; c : scalar in (0, 1)
  gate   beta : [n] in (0, 2) = 2 * sigmoid(b_raw); f : [N] in (0, 1) = sigmoid(w)
  state  S : real [N, P]
  update S' = diag(f) S
         for j in 1..n: S' = S' - beta[j] * k[j] (k[j]^T S') + beta[j] * k[j] v[j]^T
         S' = c * S'
  output o = N^-1/2 * S'^T q + S^T q
}""",
    "rows that act together, then rows that act after them; two states": """
recurrence together(R = 2) {
  dim    N = 4, P = 3
  input  q, a, b, k : [N]; e, u : [R, N]; v : [P]; w : [N] in (0, 1)
  state  S : real [N, P]; z : real [N]
  update S' = diag(w) S - (sum r in 1..R: u[r] (e[r]^T S)) + b (a^T S) + k v^T
         z' = diag(w) z - (sum r in 1..R: u[r] (e[r]^T z)) + b (a^T z) + k
         S' = 0.9 * (S' - a (a^T S')) + b v^T
         z' = 0.9 * (z' - a (a^T z')) + b
  output o = S'^T q / (1 + square(z'^T q)) + S^T k
}""",
    "groups, layers, positions, reversed, a bounded decay": """
recurrence shared {
  dim    N = 4, P = 3
  input  q, k : [N] per group; v : [P]; b_raw : scalar per group; g_raw : [N] per layer
  gate   beta in (0, 1) = sigmoid(b_raw); g : [N] <= 0 = -5 * sigmoid(g_raw)
  param  D : scalar per head
  state  S : real [N, P]
  update S' = (I - beta * k k^T) diag(exp(g)) S + beta * k v^T
  output o = N^-1/2 * S'^T rope(q) + D * v
  time   reversed
}""",
    "the value side": """
recurrence value_side {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; b in (0, 1) : scalar
  state  S : real [P, N]
  update S' = S diag(exp(-b * unit(k)^2)) - b * (S k) k^T + b * v k^T
  output o = S' q
}""",
    "a decay for each of several rows": """
recurrence rates(n = 2) {
  dim    N = 4, P = 3
  input  q : [N]; k : [n, N]; v : [n, P]; g : [n] <= 0
  state  S : real [N, P]
  update S' = S
         for j in 1..n: S' = exp(g[j]) * S' + k[j] v[j]^T
  output o = S'^T q
}""",
    "two taps under a diagonal decay, a bonus": """
recurrence tapped {
  dim    N = 4, P = 3
  input  r, k, w_raw : [N]; v : [P]; c : scalar
  param  u : [N] per head init uniform(-1, 1)
  gate   w : [N] in (0, 1) = sigmoid(w_raw)
  state  S : real [N, P]
  update S' = diag(w) (S + c * k[-1] v[-1]^T) + k v^T
  output o = (S + diag(u) k v^T)^T r
}""",
    "delayed definitions that delay, groups, a correction": """
recurrence shifted {
  dim    N = 4, P = 3
  input  q, k : [N] per group; v : [P]; w_raw : [N]; b_raw, m : scalar
  gate   w : [N] in (0, 1) = sigmoid(w_raw); beta in (0, 1) = sigmoid(b_raw)
  let    kn : [N] = unit(k); mixed : [P] = v + m * v[-1]
  state  S : real [N, P]
  update S' = (I - beta * kn kn^T) diag(w) (S + m * kn[-1] mixed[-1]^T) + beta * kn mixed^T
  output o = S'^T q + S^T kn[-1]
}""",
    "a previous value in reversed time": """
recurrence next_value {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; f, c : scalar in (0, 1)
  state  S : real [N, P]
  update S' = f * S + c * k v^T + (1 - c) * k[-1] v[-1]^T
  output o = S'^T q
  time   reversed
}""",
    "rank three, a diagonal decay": """
recurrence rank_three(R = 3) {
  dim    N = 4, P = 3
  input  q : [N]; k : [R, N]; v : [R, P]; f : [N] in (0, 1)
  state  S : real [N, P]
  update S' = diag(f) S + sum r in 1..R: k[r] v[r]^T
  output o = S'^T q
}""",
}


@pytest.mark.parametrize("name", SPECS)
def test_a_recurrence_of_no_paper(name, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    holds(Subject(load(folder), spec, "cpu"))


INVENTIONS = sorted((ROOT / "examples" / "inventions").glob("*.ssm"))


@pytest.mark.parametrize("path", INVENTIONS, ids=lambda path: path.stem)
def test_an_invention(path, tmp_path):
    folder, spec = write(path.read_text(encoding="utf-8"), tmp_path, path.name)
    holds(Subject(load(folder), spec, "cpu"))


REFUSED = """
recurrence refused {
  dim    N = 4, P = 3
  input  q, k : [N]; v, w : [P]; b : scalar in (0, 1)
  param  A : [N, P] per head init 0
  state  S : real [N, P]
  update S' = DECAY - b * k (k^T S) + k v^T
  output o = S'^T q
}
"""


@pytest.mark.parametrize(
    "decay, words, edit",
    [
        ("exp(-exp(A)) * S", "no chunk form has both", "diag(w) S"),
        ("S diag(sigmoid(w))", "must act on that axis", "from the other side"),
        ("diag(k) S", "each must be proved greater than 0", "sigmoid(x)"),
    ],
)
def test_what_has_no_chunk_form_is_refused_with_an_edit(decay, words, edit):
    with pytest.raises(SpecError) as refused:
        build(Source("test.ssm", REFUSED.replace("DECAY", decay)))
    (diagnostic,) = refused.value.diagnostics
    assert words in diagnostic.note and edit in diagnostic.help
    start, end = diagnostic.primary.span.start, diagnostic.primary.span.end
    assert REFUSED.replace("DECAY", decay)[start:end] in (decay, "b * k (k^T S)")


STRONG = """
recurrence strong {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; g : [N] DOMAIN; beta in (0, 1) : scalar
  state  S : real [N, P]
  update S' = (I - beta * unit(k) unit(k)^T) diag(exp(g)) S + beta * unit(k) v^T
  output o = S'^T q + S^T k
}
"""


@pytest.mark.parametrize("domain", ["<= 0", "in [-1.5, 0]"])
@pytest.mark.parametrize("dtype, slack", [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_decays_of_any_strength(domain, dtype, slack, tmp_path):
    """Nothing overflows or turns into NaN where a key forgets all, or nothing; a weak decay beside strong ones is kept."""
    folder, _ = write(STRONG.replace("DOMAIN", domain), tmp_path)
    package = load(folder)
    torch.manual_seed(0)
    low = -50.0 if domain == "<= 0" else -1.5
    q, k, v = (torch.randn(2, 150, 2, n, dtype=torch.float64) for n in (6, 6, 5))
    g = torch.tensor([low, 0.0, -1e-3, low / 3])[torch.randint(4, (2, 150, 2, 6))].double()
    beta = torch.rand(2, 150, 2, dtype=torch.float64)
    results = {}
    for form, kind in (("strong_reference", torch.float64), ("strong", dtype)):
        given = [x.to(kind).requires_grad_() for x in (q, k, v, g, beta)]
        output = getattr(package, form)(*given)
        weights = torch.linspace(-1, 1, output.y.numel(), dtype=kind).view_as(output.y)
        results[form] = [output.y, output.final_state.S, *torch.autograd.grad((output.y * weights).sum(), given)]
    for found, expected in zip(results["strong"], results["strong_reference"], strict=True):
        error = (found.double() - expected).norm() / expected.norm()
        assert error <= slack, error
