"""Diagonal decays, corrections and rows: examples against plain loops, and recurrences of no paper against everything."""

from __future__ import annotations

import pytest
from built import example, write
from conftest import ROOT
from oracles import rank_one

torch = pytest.importorskip("torch")

from random_points import holds  # noqa: E402

from ssmgen.compiler import build, check  # noqa: E402
from ssmgen.diagnostics import SpecError  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402
from ssmgen.schedule import schedule  # noqa: E402
from ssmgen.source import Source  # noqa: E402

PAPERS = (
    "gla hgrn2 rwkv5 rwkv6 deltanet gated_deltanet kda comba gdn2 dplr iplr rwkv7 deltaproduct gated_deltaproduct"
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


@pytest.mark.parametrize("name, sizes, constants", [
    ("gated_deltanet", {}, {"reach": 2}),
    ("gated_deltanet", {"reach": 2}, {}),
    ("deltaproduct", {"n": 3}, {}),
    ("deltaproduct", {"n": 1}, {}),
    ("gated_deltaproduct", {"n": 2}, {}),
])  # fmt: skip
def test_an_option_of_a_paper(name, sizes, constants, tmp_path):
    """Negative eigenvalues as an argument or as the default; other numbers of micro-steps."""
    built = build(Source(f"{name}.ssm", (ROOT / "examples" / f"{name}.ssm").read_text(encoding="utf-8")), sizes)
    for path, text in built.packages[name].items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / path).write_text(text, encoding="utf-8")
    package, spec = load(tmp_path / name), built.trace.after("derive")[name].spec
    case = draw(
        spec,
        Shape(2, 21, 4, 2, {dim: size for (dim, _), size in zip(spec.dims, (6, 5), strict=True)} | dict(spec.counts)),
        seed=3,
        device="cpu",
    )
    given = [x.to(torch.float64) for x in case.arguments]
    wanted, final = getattr(rank_one, name)(*given, *(2 for _ in [*constants, *(s for s in sizes if s == "reach")]))
    output = getattr(package, name)(*given, chunk=8, **constants)
    torch.testing.assert_close((output.y, output.final_state.S), (wanted, final), rtol=1e-9, atol=1e-9)


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
    "values that fade while queries contract keys": """
recurrence fading_values {
  dim    N = 4, P = 3
  input  q, k : [N]; v, w : [P]
  gate   a : [P] in (0, 1) = sigmoid(w)
  state  S : real [N, P]
  update S' = S diag(a) + k v^T
  output o = S'^T q
}""",
    "a correction of the values while queries contract keys, before and after": """
recurrence corrected_values {
  dim    N = 4, P = 3
  input  q, k : [N]; v, w : [P]; b, g : scalar in (0, 1)
  state  S : real [N, P]
  update S' = g * S (I - b * unit(w) unit(w)^T) + k v^T
  output o = S'^T q - b * S^T k
}""",
    "queries of keys and of values, a diagonal decay, a correction": """
recurrence both_sides {
  dim    N = 4, P = 3
  input  q, k, f : [N]; v, w, u : [P]; b : scalar in (0, 1)
  state  S : real [N, P]
  update S' = diag(sigmoid(f)) (S - b * unit(k) (unit(k)^T S)) + k v^T
  output o = tanh(S'^T q) * norm(S w) + v * (k . (S' u))
}""",
    "queries of values beside micro-steps in reversed time": """
recurrence turned(n = 2) {
  dim    N = 4, P = 3
  input  u : [P]; k : [n, N] unit; v : [n, P]; b_raw : [n]; c : scalar in (0, 1)
  gate   beta : [n] in (0, 2) = 2 * sigmoid(b_raw)
  state  S : real [N, P]
  update S' = c * S
         for j in 1..n: S' = S' - beta[j] * k[j] (k[j]^T S') + beta[j] * k[j] v[j]^T
  output o = S' u
  time   reversed
}""",
    "rows of output": """
recurrence ranked(R = 3) {
  dim    N = 4, P = 3
  input  q : [R, N]; k : [N]; v : [P]; f : scalar in (0, 1); c : [R]
  state  S : real [N, P]
  update S' = f * S + k v^T
  output y[r] = c[r] * tanh(S'^T q[r]) + v
}""",
    "rows of numbers": """
recurrence number_rows(R = 2) {
  dim    N = 4
  input  q : [R, N]; k : [N]; f : scalar in (0, 1)
  state  s : real [N]
  update s' = f * s + k
  output y[r] = s'^T q[r]
}""",
    "sums of reads, of two walks, one of them read whole": """
recurrence summed(R = 3) {
  dim    N = 4, P = 3
  input  q : [R, N]; k, a : [N]; v : [P]; f : scalar in (0, 1); c : [R]
  state  S : real [N, P]; z : real [N]
  update S' = f * S + k v^T
         z' = diag(sigmoid(a)) z + k
  output o = (sum r in 1..R: c[r] * tanh(S'^T q[r])) / norm(z') + v * (sum r in 1..R: z'^T q[r])
}""",
    "a column read whole and contracted": """
recurrence whole_column {
  dim    N = 4
  input  q, k, x : [N]; f : scalar in (0, 1)
  state  s : real [N]
  update s' = f * s + k
  output o = s' * x + (q . s')
}""",
    "every entry of a column fades by itself": """
recurrence hgrn {
  dim    N = 4
  input  x, f_raw : [N]
  gate   f : [N] in (0, 1) = sigmoid(f_raw)
  state  h : real [N]
  update h' = f * h + (1 - f) * silu(x)
  output h'
}""",
    "maxima of keys and of heads beside a value of the token before": """
recurrence gauges {
  dim    N = 4, P = 3
  input  q, k, i, g : [N]; v : [P]
  param  c : scalar per head
  let    log_f : [N] = -softplus(g + k[-1])
  state  C : real [N, P]; n : real [N]; m : real [N]; r : real scalar
  update r' = max(r, c + 0.2)
         m' = max(log_f + m, i)
         C' = diag(exp(log_f + m - m')) C + (exp(i - m') * k) v^T
         n' = diag(exp(log_f + m - m')) n + exp(i - m') * k
  output h = r' * C'^T q / max(abs(n'^T q), 1) - r * v
}""",
    "a declared running maximum, a correction, in reversed time": """
recurrence stabilised {
  dim        N = 4, P = 3
  transition diagonal, delta
  normaliser max
  time       reversed
}""",
    "three members of which one is corrected, read before and after": """
recurrence three {
  dim    N = 4, P = 3
  input  q, r, k, e : [N] unit; v : [P]; a, b, c, s : scalar in (0, 1); x : scalar
  param  w : scalar per head
  state  A, B, C : real [N, P]
  update C' = c * C + k (v - A^T e)^T
         B' = b * B + x * C'
         A' = 0.9 * A + s * B' - w * C
  output o = A'^T q + tanh(B^T r) - C'^T q
}""",
    "a smoothed memory in reversed time": """
recurrence smooth {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; a, b : scalar in (0, 1)
  state  S, Z : real [N, P]
  update Z' = b * Z + (1 - b) * k v^T
         S' = a * S + (1 - a) * Z'
  output o = S'^T q
  time   reversed
}""",
    "a memory and its momentum beside another walk, groups and a maximum": """
recurrence beside {
  dim    N = 4, P = 3
  input  q, k : [N] per group; l, f : [N]; v, w : [P]; a, b : scalar in (0, 1); g : scalar per layer in (0, 1)
  state  S, Z, Y : real [N, P]; m : real scalar
  update m' = max(m, a)
         Z' = b * Z - g * unit(k) (Z^T unit(k) - v)^T
         S' = S + exp(a - m') * Z
         Y' = diag(sigmoid(f)) Y + l w^T
  output o = S'^T q + v * (Y'^T l) + Z^T k[-1]
}""",
    "a number among decays of every key": """
recurrence number_among {
  dim    N = 4, P = 3
  input  q, k, w : [N]; v : [P]; b : scalar in (0, 1)
  state  S : real [N, P]
  update S' = diag(sigmoid(w)) S + k v^T
         S' = (I - b * unit(k) unit(k)^T) (0.9 * S') + b * unit(k) v^T
  output o = S'^T q
}""",
    "a size with a name of Python's, in a parameter": """
recurrence keyword {
  dim    not = 4, P = 3
  input  q, k : [not]; v : [P]
  param  w : [not] per head init uniform(-1, 1)
  state  S : real [not, P]
  update S' = 0.9 * S + (w * k) v^T
  output o = S'^T q
}""",
}


@pytest.mark.parametrize("name", SPECS)
def test_a_recurrence_of_no_paper(name, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    holds(Subject(load(folder), spec, "cpu"))


RANKED = """
recurrence ranked {
  dim    N = 4, P = 3, R = 2
  input  q : [N]; k : [R, N]; v : [R, P]; a : scalar in (0, 1)
  state  S : real [N, P]
  write  rank R
  update S' = a * S + sum r in 1..R: k[r] v[r]^T
  output o = S'^T q
}
"""


def test_rows_are_those_of_the_build(tmp_path):
    """A program writes rows out one by one: others than it was built for are no silence."""
    folder, _ = write(RANKED, tmp_path)
    package = load(folder)
    for rows in (2, 3):
        values = torch.randn(1, 5, 2, 4), torch.randn(1, 5, 2, rows, 4), torch.randn(1, 5, 2, rows, 3), torch.rand(1, 5, 2)
        state = package.State(torch.zeros(1, 2, 4, 3))
        if rows == 2:
            y = torch.stack([package.ranked_step(*(x[:, t] for x in values), state=state) for t in range(5)], 1)
            torch.testing.assert_close(y, package.ranked(*values).y)
            continue
        with pytest.raises(ValueError, match="built for R = 2"):
            package.ranked(*values)
        with pytest.raises(ValueError, match="built for R = 2"):
            package.ranked_step(*(x[:, 0] for x in values), state=state)


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


COUPLED = """
recurrence coupled {
  dim    N = 4, P = 3
  input  q, k, f : [N]; v, u : [P]; a, b : scalar in (0, 1)
  state  S, Z : real [N, P]
  update Z' = FIRST + k v^T
         S' = a * S + SECOND
  output o = READ
}
"""


@pytest.mark.parametrize(
    "first, second, read, words, mixes",
    [
        ("b * Z + a * S", "Z'", "S'^T q", "each takes over the other", False),
        ("diag(sigmoid(f)) Z", "Z'", "S'^T q", "more than one number a head", False),
        ("b * Z - f (S^T k)^T", "Z", "S'^T q + Z^T q", "along another direction", True),
        ("b * Z", "k (Z^T f)^T", "S'^T q", "is corrected and not written", True),
        ("b * Z", "Z'", "S' u", "read along their values", False),
        ("k * 0 v^T", "Z + k v^T", "S'^T q", "nothing of `Z` itself survives", False),
    ],
)
def test_states_that_feed_each_other_in_other_ways_are_scanned(first, second, read, words, mixes):
    source = Source("test.ssm", COUPLED.replace("FIRST", first).replace("SECOND", second).replace("READ", read))
    build(source)
    (classified,) = check(source).after("classify").values()
    assert classified.axis("form").value == "scan" and classified.scan.mixes is mixes
    assert words in classified.scan.obstacle and classified.scan.obstacle in " ".join(schedule(classified).reasons)


STRONG = """
recurrence strong {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; g : [N] DOMAIN; beta in (0, 1) : scalar
  state  S : real [N, P]
  update S' = (I - beta * unit(k) unit(k)^T) diag(exp(g)) S + beta * unit(k) v^T
  output o = S'^T q + S^T k + v * (k . (S' v))
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
