"""Recurrences whose state entries run by themselves: papers against plain loops, recurrences of no paper against everything."""

from __future__ import annotations

import importlib

import pytest
from built import example, write
from conftest import ROOT

torch = pytest.importorskip("torch")

from oracles import scans  # noqa: E402
from random_points import holds  # noqa: E402

from ssmgen import explain  # noqa: E402
from ssmgen.compiler import build, check  # noqa: E402
from ssmgen.diagnostics import SpecError  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify import CHECKS, verify_checks  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402
from ssmgen.schedule import schedule  # noqa: E402
from ssmgen.source import Source  # noqa: E402

B, T, C, N = 2, 21, 5, 4


@pytest.mark.parametrize("name", ["mamba1", "s4d", "s4d_real", "hgrn", "lru", "s5"])
def test_a_paper_against_its_loop(name, tmp_path):
    """Values and gradients in float64, from a state, over several chunks and a rest."""
    package, spec = example(name, tmp_path)
    sizes = {dim: N + 2 * i for i, (dim, _) in enumerate(spec.dims)}
    case = draw(spec, Shape(B, T, C, 1, sizes), seed=3, device="cpu").to(torch.float64)
    state = torch.randn_like(getattr(package, name)(*case.arguments).final_state[0])
    leaves = [x.clone().requires_grad_() for x in (*case.arguments, state)]
    wanted, final = getattr(scans, name)(*leaves)
    weights, ends = torch.randn_like(wanted), torch.randn_like(final)
    expected = torch.autograd.grad((wanted * weights).sum() + (final * ends).real.sum(), leaves)
    for form in (f"{name}_reference", name):
        given = [x.clone().requires_grad_() for x in (*case.arguments, state)]
        keywords = {} if form.endswith("reference") else {"chunk": 8}
        output = getattr(package, form)(*given[:-1], initial_state=package.State(given[-1]), **keywords)
        torch.testing.assert_close((output.y, *output.final_state), (wanted, final), rtol=1e-10, atol=1e-10)
        found = torch.autograd.grad((output.y * weights).sum() + (output.final_state[0] * ends).real.sum(), given)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def symplectic(z, x, dt, A, force):
    z = z + dt * (force - A * x)
    return z, x + dt * z


def implicit(z, x, dt, A, force):
    """z' = z + dt (force - A x'), x' = x + dt z': two equations an entry, solved."""
    one = torch.ones_like(dt)
    matrix = torch.stack([torch.stack([one, dt * A], -1), torch.stack([-dt, one], -1)], -2)
    return torch.linalg.solve(matrix, torch.stack([z + dt * force, x], -1)[..., None]).squeeze(-1).unbind(-1)


@pytest.mark.parametrize("step", [symplectic, implicit])
def test_oscillators_against_their_loop(step, tmp_path):
    """Values, both final states and gradients in float64, from states, over several chunks and a rest."""
    package, spec = example("linoss" if step is symplectic else "linoss_im", tmp_path)
    case = draw(spec, Shape(B, T, 3, 1, {"N": 4, "P": 6}), seed=3, device="cpu").to(torch.float64)
    leaves = [x.clone().requires_grad_() for x in (*case.arguments, *torch.randn(2, B, 3, 4, dtype=torch.float64))]
    wanted, final = scans.oscillators(step, *leaves)
    weights, ends = torch.randn_like(wanted), [torch.randn_like(x) for x in final]
    loss = lambda y, states: (y * weights).sum() + sum((x * end).sum() for x, end in zip(states, ends, strict=True))  # noqa: E731
    expected = torch.autograd.grad(loss(wanted, final), leaves)
    given = [x.detach().clone().requires_grad_() for x in leaves]
    output = getattr(package, spec.name)(*given[:-2], initial_state=package.State(*given[-2:]), chunk=8)
    torch.testing.assert_close((output.y, *output.final_state), (wanted, *final), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.autograd.grad(loss(output.y, output.final_state), given), expected, rtol=1e-9, atol=1e-9)


MATRICES = """
recurrence matrices {
  dim    N = 6, P = 4, M = 5
  input  u : [P] per group; W : [N, P] per group; V : complex [M, N]; g : [N]
  param  E : [N, P] per layer; F : [M, P] per head; bias : [N] per head; A : [N, N] per head
  gate   a in (-1, 1) = tanh(g + bias)
  let    v : [N] = (W + E) silu(u) + E u[-1] + tanh(A g)
  state  x : complex [N]
  update x' = 0.9 * cis(a) * a * x + v * (1 + 0.5 * i)
  output y = silu(Re(V x)) * (F u) + Im(V (g * x'))
  time   reversed
}"""

CIRCLE = """
recurrence circle(n = 2) {
  dim    N = 6
  input  x, w : scalar per channel; k, q : [N] per layer
  param  D : scalar per channel; bias, turn : [N] per channel; e : [N] per layer
  let    a = 0.9 * relu(tanh(w))
  state  h, g : real [N] per channel; c : complex [N] per channel; s : real scalar per channel; m : real [N] per channel
  update h' = h - 0.1 * diag(e) g
         for j in 1..n: h' = diag(tanh(bias)) h' + x * k
         h' = h' + x[-1] * k[-1]
         c' = diag(0.8 * cis(turn)) c + a * h' - i * g
         g' = h'
         s' = a * s + x
         m' = a * m + x * q
  output y = q . h' * (1 + square(k . g')) + Re(q . c') + Im(k . c) + D * s + s' * (k . m')
  time   reversed
}"""

SPECS = {
    "a matrix of the data on keys that fade and are erased, reversed": """
recurrence data_matrix {
  dim    N = 6, P = 4
  input  W : [N, N]; k, q : [N]; v : [P]; g : [N]
  gate   a in (0, 1) = sigmoid(g)
  state  S : real [N, P]
  update S' = diag(a) S + tanh(W) S - k (k^T S) + k v^T
  output y = S'^T q
  time   reversed
}""",
    "matrices around chunks: a key made by one that erases, a delayed query, what is read taken by another, reversed": """
recurrence around_chunks {
  dim    N = 6, P = 4, M = 5
  input  u : [M] per group; v : [P]; raw : scalar
  param  W : [N, M] per head; V : [N, M] per layer; E : [N, N] per head; O : [M, P] per head
  gate   beta in (0, 1) = sigmoid(raw)
  let    k : [N] = unit(W u)
  state  S : real [N, P]
  update S' = (I - beta * k k^T) (0.9 * S) + beta * k v^T
  output y = silu(O (S'^T (V u[-1]))) + O (S^T (E k))
  time   reversed
}""",
    "matrices of all kinds before and behind, of data and of the token before, two reads of a complex state, reversed": MATRICES,
    "factors of any sign and zero, two states, micro-steps, two taps, reads before and after, reversed": """
recurrence mixed(n = 2) {
  dim    N = 6
  input  x, w : scalar per channel; k, q : [N] per layer
  param  D : scalar per channel; bias : [N] per channel
  let    a = 0.9 * relu(tanh(w))
  state  h, g : real [N] per channel
  update h' = h
         for j in 1..n: h' = diag(tanh(bias)) h' + x * k
         h' = h' + x[-1] * k[-1]
         g' = a * g + x * q
  output y = silu(q . h') * (1 + square(k . g)) + D * x
  time   reversed
}""",
    "a factor for every entry of a matrix, a vector that fades entry by entry": """
recurrence grid {
  dim    N = 8, P = 6
  input  q, k, r : [N] per group; v, u : [P]; c : scalar; W : [N, P]
  gate   a in (-1, 1) = tanh(c)
  state  S : real [N, P]; z : real [P]
  update S' = sigmoid(W) * S + k v^T
         z' = diag(u) z + a * v
  output o = S'^T q + z' + S^T r
}""",
    "a running maximum beside factors that fade along both axes, reversed": """
recurrence relative {
  dim    N = 6, P = 4
  input  q, k, a : [N]; v, u : [P]; w, i : scalar
  state  S : real [N, P]; m : real scalar
  update m' = max(-softplus(w) + m, i)
         S' = exp(-softplus(w) + m - m') * diag(tanh(a)) S diag(u) + exp(i - m') * k v^T
  output y = S'^T q
  time   reversed
}""",
    "states that feed each other in a circle, also through complex ones, micro-steps, two taps, others beside them, reversed": CIRCLE,
    "states that feed each other and fade on either axis, one corrected by what another lacks": """
recurrence corrected {
  dim    N = 4, P = 3
  input  q, k, f : [N] per group; v, u : [P]; b : scalar
  gate   beta in (0, 1) = sigmoid(b)
  state  S, M : real [N, P]
  update M' = diag(tanh(f)) M - beta * unit(k) (unit(k)^T S) + beta * unit(k) v^T
         S' = S diag(sigmoid(u)) + tanh(b) * M'
  output o = S'^T q + M^T k
}""",
    "complex states that feed each other, solved together, reversed": """
recurrence swings {
  dim    N = 4, P = 3
  input  k, q : complex [N]; v : [P]; th, raw : [N]; step : scalar in (0, 1)
  gate   a in (0, 1) = sigmoid(raw)
  state  z, S : complex [N, P]
  dynamics   dz/dt = diag(-a + i * th) z - S + k v^T
             dS/dt = z - 0.5 * S
  discretize implicit_euler(step)
  output y = Re(S'^H q)
  time   reversed
}""",
    "complex entries that feed each other, a complex matrix that writes, one state beside them, reversed": """
recurrence modes {
  dim    N = 4, P = 3
  input  u : [P]; c : [N]; step : scalar in (0, 1)
  param  rate, turn : [N] per head; B : complex [N, P] per head
  let    g : complex [N] = -exp(rate) + i * turn
  state  z, x : complex [N]; s : complex [N]
  dynamics   dz/dt = g * z - x + B u
             dx/dt = z
             ds/dt = g * s + B u
  discretize bilinear(step)
  output y = Re(c * x') + Im(c * s')
  time   reversed
}""",
    "a whole matrix of a token on the value side, beside its erasures, and one of all tokens": """
recurrence whole {
  dim    N = 3, P = 4
  input  q, k : [N]; v : [P]; e : [P] unit; step : scalar in (0, 1)
  param  F : [P, P] per head; rate : [P] per group
  state  S : real [N, P]; h : real [P]
  dynamics   dS/dt = S (F - F^T) - S diag(exp(rate)) - (S e) e^T + k v^T
             dh/dt = -F (F^T h) - h + v
  discretize trapezoid(step)
  output y = S'^T q + h'
}""",
    "an exponential of pairs that turn beside an erasure, with the older write": """
recurrence turned {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]; step : scalar in (0, 1); raw : scalar
  param  w : [N/2] per head
  gate   lam in (0, 1) = sigmoid(raw)
  state  S : complex [N, P], rotates first N rows
  dynamics   dS/dt = (-1 + i * w) S - k (k^T S) + k v^T
  discretize exp_trapezoid(step, lam)
  output y = S'^T q
}""",
    "an exponential of a complex matrix, held": """
recurrence modes {
  dim    N = 3, P = 2
  input  u : [P]; c : [N]; step : scalar in (0, 1)
  param  A : complex [N, N] per head; B : [N, P] per head; g : [N] per head
  state  z : complex [N]
  dynamics   dz/dt = (A - A^H) z - z + i * g * z + B u
  discretize zoh(step)
  output y = Re(c * z') + Im(z')
}""",
    "exponentials of three states in a row, the last of which the older write enters": """
recurrence chain {
  dim    N = 3, P = 2
  input  u : [P]; c, r : [N] <= 0; step : scalar in (0, 1)
  param  B : [N, P] per head; a : [N] per head
  state  x, y, z : real [N]
  dynamics   dx/dt = -x + a * y
             dy/dt = r * y + z + c
             dz/dt = -2 * z + B u
  discretize exp_trapezoid(step, 1/3)
  output o = x' + y'
}""",
    "functions of matrices as they are written": """
recurrence written {
  dim    N = 3
  input  u : [N]; s : scalar in (0, 1)
  param  A : [N, N] per head
  let    M : [N, N] = s * (A - A^T) / 2
  state  x : real [N]
  update x' = 0.9 * matrix_exp(M) x + matrix_phi1(-M) (matrix_inverse(I + A A^T) u)
  output y = matrix_inverse(I - M)^T x'
}""",
    "a state that drops everything, names that the package uses": """
recurrence forgetful {
  dim    P = 4
  input  at, D : [P]; kept : scalar
  param  states : [P] per head
  state  S : real [P]; adjoints : real [P]
  update S' = diag(tanh(at)) S + kept * states
         adjoints' = kept * D
  output y = S' * adjoints + adjoints'
}""",
}


@pytest.mark.parametrize("name", SPECS)
def test_recurrences_of_no_paper(name, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    # a module that is allocated in float32 rounds the previous token's values
    report = verify_checks(folder, spec, {name: check for name, check in CHECKS.items() if name != "module"})
    assert report.passed, "\n".join(map(str, report.failures))


LATTICE = """
recurrence lattice {
  dim    N = 6, P = 4
  input  q, k, a : [N]; v, u : [P]
  param  W : [N, P] per head
  state  S : real [N, P]
  dynamics   dS/dt = -diag(softplus(a)) S - S diag(exp(v)) + tanh(W) * (k v^T)
  discretize trapezoid(softplus(u))
  output y = S'^T q
}"""


IMAGINARY = """
recurrence imaginary {
  dim    N = 8
  input  x : scalar per channel
  param  re, im : [N] per channel; C : complex [N] per channel
         A : complex [N] per channel = -exp(re) + i * 2 * im
  let    z : complex scalar per channel = x * (i * 2)
  state  h : complex [N] per channel, conjugate
  update h' = exp(A) * h + z
  output o = 2 * Re(C . h') + Im(i * 3)
}"""


STACKED = """
recurrence stacked(R = 2, n = 3) {
  dim    N = 8, P = 6
  input  q : [R, N]; k : [R, N]; v : [R, P]; b : [R]; dt_raw : scalar; ks : [n, N] per group; vs : [P]; u : [P]
  param  A : scalar per head init 1; w : [R, N] per head
  gate   dt > 0 = softplus(dt_raw)
  let    kk : [R, N] = tanh(k) + w; s : [N] = sum r in 1..R: k[r]
  state  S : real [N, P]
  update S' = (1 - dt * exp(A)) * S + (sum r in 1..R: b[r] * kk[r] v[r]^T) + s u^T
         for j in 1..n: S' = diag(tanh(ks[j])) S' + ks[j] vs^T
  output o = sum r in 1..R: S'^T q[r] * b[r]
}"""


@pytest.mark.parametrize(
    "text",
    [LATTICE, IMAGINARY, STACKED],
    ids=["rates along both axes, a step size a column", "numbers times i", "rows of arguments, a decay of any sign, micro-steps"],
)
def test_what_a_token_makes_holds(text, tmp_path):
    folder, spec = write(text, tmp_path)
    holds(Subject(load(folder), spec, "cpu"))


COMPLEX_MATRIX = """
recurrence complex_matrix {
  dim    N = 4, P = 3
  input  u : [P]; g : [N]
  param  A : complex [N, N] per head; B : complex [N, P] per head; C : complex [P, N] per layer
  state  x : complex [N]
  update x' = 0.3 * diag(cis(g)) A x + B u
  output y = Re(C x')
}"""


def test_a_complex_matrix_between_entries(tmp_path):
    """Values, gradients and packed documents against the loop."""
    folder, spec = write(COMPLEX_MATRIX, tmp_path)
    package = load(folder)
    case = draw(spec, Shape(1, T, 2, 1, dict(spec.dims)), seed=5, device="cpu").to(torch.float64)
    leaves = [x.clone().requires_grad_() for x in (*case.arguments, torch.randn(2, 2, 4, dtype=torch.complex128))]
    u, g, A, key, query, first = leaves
    outputs, cut, x = [], 8, first[0]
    for t in range(T):
        x = first[1] if t == cut else x
        x = 0.3 * torch.exp(1j * g[0, t]) * (A @ x[..., None]).squeeze(-1) + (key @ u[0, t, :, :, None].to(key.dtype)).squeeze(-1)
        outputs.append((query @ x[..., None]).squeeze(-1).real)
    wanted, found = torch.stack(outputs)[None], [x.detach().requires_grad_() for x in leaves]
    output = package.complex_matrix(*found[:-1], initial_state=package.State(found[-1]), cu_seqlens=torch.tensor([0, cut, T]))
    torch.testing.assert_close(output.y, wanted, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((output.y * weights).sum(), found), expected, rtol=1e-9, atol=1e-9)


COMPLEX_KEYS = """
recurrence complex_keys {
  dim    N = 4, P = 3
  input  k, q : complex [N]; v : [P]; g : [N]; b : scalar
  gate   beta in (0, 1) = sigmoid(b)
  state  S : complex [N, P]
  update S' = diag(0.9 * cis(g)) S - beta * k (k^H S) + k v^T
  output y = Re(S'^H q)
}"""


def test_a_matrix_of_complex_entries(tmp_path):
    """A delta rule with complex keys, read by the conjugate: values and gradients against the loop."""
    folder, spec = write(COMPLEX_KEYS, tmp_path)
    package = load(folder)
    case = draw(spec, Shape(B, 9, 2, 1, dict(spec.dims)), seed=5, device="cpu").to(torch.float64)
    leaves = [x.clone().requires_grad_() for x in (*case.arguments, torch.randn(B, 2, 4, 3, dtype=torch.complex128))]
    k, q, v, g, b, S = leaves
    outputs = []
    for t in range(9):
        key, beta = k[:, t, ..., None], torch.sigmoid(b[:, t])[..., None, None]
        S = 0.9 * torch.exp(1j * g[:, t])[..., None] * S - beta * key @ (key.mH @ S) + key @ v[:, t, ..., None, :].to(key.dtype)
        outputs.append((S.mH @ q[:, t, ..., None]).squeeze(-1).real)
    wanted, found = torch.stack(outputs, 1), [x.detach().requires_grad_() for x in leaves]
    output = package.complex_keys(*found[:-1], initial_state=package.State(found[-1]))
    torch.testing.assert_close((output.y, *output.final_state), (wanted, S), rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((output.y * weights).sum(), found), expected, rtol=1e-9, atol=1e-9)


def test_entries_that_change_places(tmp_path):
    """A column of a matrix has one 1: the loop that scatters, for values and for all gradients but those of the choice."""
    package, spec = example("pd_ssm", tmp_path)
    case = draw(spec, Shape(B, T, 2, 1, {"N": 4, "P": 3}), seed=5, device="cpu").to(torch.float64)
    u, scores, *rest = (*case.arguments, torch.randn(B, 2, 4, dtype=torch.complex128))
    place = scores.argmax(-2)
    hard = torch.zeros_like(scores).scatter(-2, place[..., None, :], 1.0)
    wanted_leaves, found_leaves = ([x.clone().requires_grad_() for x in (u, *rest)] for _ in range(2))
    wanted, final = scans.pd_ssm(wanted_leaves[0], place, *wanted_leaves[1:])
    scores.requires_grad_()
    given = hard + scores - scores.detach()
    output = package.pd_ssm(found_leaves[0], given, *found_leaves[1:-1], initial_state=package.State(found_leaves[-1]))
    torch.testing.assert_close((output.y, *output.final_state), (wanted, final), rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum(), wanted_leaves)
    *found, chosen = torch.autograd.grad((output.y * weights).sum(), [*found_leaves, scores])
    torch.testing.assert_close(tuple(found), expected, rtol=1e-9, atol=1e-9)
    assert chosen.isfinite().all() and chosen.any()


ROWS = """
recurrence rows(R = 2) {
  dim    N = 6
  input  u : [N]; k : [R, N]; c : [R]
  param  B : [N, N] per head
  gate   a in (-1, 1) : [N] = tanh(u)
  state  x : real [N]
  update x' = a * x + B u + (sum r in 1..R: c[r] * k[r])
  output y[r] = k[r] * x' + u
}"""


def test_rows_of_the_output(tmp_path):
    """`y[r]` of a scan: values, gradients and steps against the loop."""
    folder, spec = write(ROWS, tmp_path)
    package = load(folder)
    case = draw(spec, Shape(B, T, 2, 1, dict(spec.dims) | dict(spec.counts)), seed=5, device="cpu").to(torch.float64)
    leaves = [x.clone().requires_grad_() for x in (*case.arguments, torch.randn(B, 2, 6, dtype=torch.float64))]
    u, k, c, matrix, x = leaves
    outputs = []
    for t in range(T):
        x = torch.tanh(u[:, t]) * x + (matrix @ u[:, t, :, :, None]).squeeze(-1) + (c[:, t, ..., None] * k[:, t]).sum(-2)
        outputs.append(k[:, t] * x[..., None, :] + u[:, t, :, None])
    wanted, found = torch.stack(outputs, 1), [x.detach().requires_grad_() for x in leaves]
    output = package.rows(*found[:-1], initial_state=package.State(found[-1]), chunk=8)
    torch.testing.assert_close((output.y, *output.final_state), (wanted, x), rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((output.y * weights).sum(), found), expected, rtol=1e-9, atol=1e-9)
    state = package.State(leaves[-1].detach().clone())
    step = package.rows_step(u[:, 0].detach(), k[:, 0].detach(), c[:, 0].detach(), matrix.detach(), state=state)
    torch.testing.assert_close(step, wanted[:, 0].detach())
    assert (folder / "kernels.py").exists()


def test_products_of_matrices_stand_outside_of_the_scan(tmp_path):
    """To the operator and its kernels what they give is an input, and what they take the output; one product reads both parts."""
    folder, _ = write((ROOT / "examples" / "lru.ssm").read_text(encoding="utf-8"), tmp_path)
    op, kernels = ((folder / name).read_text(encoding="utf-8") for name in ("op.py", "kernels.py"))
    assert "_run(B_re_u, B_im_u, nu, theta, gamma_log, x_re, x_im, cu_seqlens, chunk)" in op
    assert "_added(_mapped(torch.cat([C_re, -C_im], -1), y.flatten(-2)), D, u)" in op
    assert "C_re" not in kernels and "p_y_2 = " in (folder / "decode.py").read_text(encoding="utf-8")


def test_half_precision_keeps_what_a_longer_matrix_has(tmp_path):
    """A product of a float32 matrix with bfloat16 values errs by the rounding of its result, not by that of the matrix."""
    package, _ = example("s5", tmp_path)
    product = importlib.import_module(f"{package.__name__}.op")._product
    matrix, x = torch.randn(64, 256), torch.randn(3, 256).bfloat16()
    truth = x.double() @ matrix.double().T
    found, single, best = product("nm,...m->...n", matrix, x), x @ matrix.bfloat16().T, truth.bfloat16()
    error, alone, rounding = ((y.double() - truth).square().mean().sqrt() for y in (found, single, best))
    assert error < 1.3 * rounding < 1.3 * alone / 1.2
    assert product("nm,...m->...n", matrix, x).dtype == torch.bfloat16
    assert product("nm,...m->...n", matrix, x.double()).dtype == torch.float64


def test_resets_and_a_bounded_slope(tmp_path):
    """A sequence begins a document at position 0, and not where it goes on; a slope of the root is at most 1000."""
    package, spec = example("rg_lru", tmp_path)
    case = draw(spec, Shape(B, T, C, 1, {}), seed=3, device="cpu")
    args = [x.clone() for x in case.arguments]
    args[3][:2] = -20.0  # a is nearly 1: 1 - a^2 is about 1e-8, below the bound's 2.5e-7
    state, position = torch.randn(B, C, dtype=torch.float64), torch.tensor([0, 5])
    leaves = [x.requires_grad_() for x in (*args, state)]
    wanted, final = scans.rg_lru(*leaves, position)
    assert (torch.autograd.grad(wanted[0, 1:].sum(), state, retain_graph=True)[0][0] == 0).all()
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum(), leaves, retain_graph=True)
    for form, keywords in ((package.rg_lru_reference, {}), (package.rg_lru, {"chunk": 8})):
        output = form(*leaves[:-1], initial_state=package.State(state, position), **keywords)
        torch.testing.assert_close((output.y, output.final_state.h), (wanted, final), rtol=1e-10, atol=1e-10)
        assert output.final_state.position.tolist() == [T, T + 5]
        torch.testing.assert_close(torch.autograd.grad((output.y * weights).sum(), leaves), expected, rtol=1e-9, atol=1e-9)
    # packed documents start anew, a step goes on
    packed = package.rg_lru(*(x.flatten(0, 1)[None] for x in args[:3]), args[3], cu_seqlens=torch.tensor([0, T, 2 * T]))
    apart = package.rg_lru(*args)
    torch.testing.assert_close(packed.y[0].unflatten(0, (B, T)), apart.y, rtol=1e-12, atol=1e-12)
    held = package.State(torch.zeros_like(state), torch.zeros(B, dtype=torch.int64))
    steps = [package.rg_lru_step(*(x[:, t] for x in args[:3]), args[3], state=held) for t in range(T)]
    torch.testing.assert_close(torch.stack(steps, 1), apart.y, rtol=1e-12, atol=1e-12)


def test_exponential_weights_relative_to_a_maximum(tmp_path):
    """The plain quotient, gradients too; keys that would overflow it or leave it 0 / 0 change nothing but by what rounds them."""
    package, spec = example("rwkv4", tmp_path)
    case = draw(spec, Shape(B, T, C, 1, {}), seed=3, device="cpu")
    leaves = [x.clone().requires_grad_() for x in case.arguments]
    wanted = scans.wkv(*leaves)
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum(), leaves)
    for form in (package.rwkv4_reference, package.rwkv4):
        y = form(*leaves).y
        torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.autograd.grad((y * weights).sum(), leaves), expected, rtol=1e-9, atol=1e-9)
    k, *rest = (x.float() for x in case.arguments)
    for shift in (-300.0, 300.0):
        torch.testing.assert_close(package.rwkv4(k + shift, *rest).y, wanted.float(), rtol=1e-3, atol=1e-3)
    text = (ROOT / "examples" / "rwkv4.ssm").read_text(encoding="utf-8")
    assert "(a e^(-d), b e^(-d), m + d) are one state" in explain.summary(Source("rwkv4.ssm", text), {})[0]


TURNING = """
recurrence turning {
  dim    N = 4
  input  u, a : scalar per channel; theta : [N] per channel; z : complex [N] per layer
  param  C : complex [N] per channel init re 1, im 0
  state  s : complex [N] per channel; h : real scalar per channel
  update s' = sigmoid(a) * diag(cis(theta)) s + u * z
         h' = tanh(a) * h + u
  output y = Re(C . s') + Im(conj(C) . s) + h'
  time   reversed
}"""


def test_angles_from_the_data_and_complex_inputs(tmp_path):
    """Values, and gradients in torch's convention for complex numbers, beside a state that is real."""
    folder, spec = write(TURNING, tmp_path)
    package = load(folder)
    case = draw(spec, Shape(B, T, C, 1, {"N": N}), seed=3, device="cpu")
    states = [torch.randn(B, C, N, dtype=torch.complex128), torch.randn(B, C, dtype=torch.float64)]
    leaves = [x.clone().requires_grad_() for x in (*case.arguments, *states)]
    weights = [torch.randn_like(x) for x in scans.turning(*leaves)]

    def gradients(results):
        return torch.autograd.grad(sum((x * w).real.sum() for x, w in zip(results, weights, strict=True)), leaves)

    output = package.turning(*leaves[:-2], initial_state=package.State(*leaves[-2:]), chunk=8)
    wanted = scans.turning(*leaves)
    torch.testing.assert_close((output.y, *output.final_state), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients((output.y, *output.final_state)), gradients(wanted), rtol=1e-9, atol=1e-9)


def oscillator(package, damping, frequency, dt, tokens, dtype=torch.float64):
    """The response of x'' + 2 damping frequency x' + frequency^2 x = frequency^2 u to u = 1, as one mode."""
    turn = frequency * (1 - damping**2) ** 0.5
    values = (damping * frequency, turn, dt)
    decay, turn, step = (torch.tensor([[x]], dtype=dtype) for x in values)
    C = frequency**2 / (2j * turn.to(torch.complex128 if dtype == torch.float64 else torch.complex64))
    u = torch.ones(1, tokens, 1, dtype=dtype)
    return package.s4d(u, decay.log(), turn, C, step[0].log(), torch.zeros(1, dtype=dtype)).y[0, :, 0]


def answer(damping, frequency, t):
    turn = frequency * (1 - damping**2) ** 0.5
    return 1 - torch.exp(-damping * frequency * t) * (torch.cos(turn * t) + damping * frequency / turn * torch.sin(turn * t))


def test_a_damped_oscillator(tmp_path):
    """An input that is held is answered exactly by a zero-order hold, and to second order by a bilinear step; no angle drifts."""
    package, _ = example("s4d", tmp_path)
    t = 0.05 * torch.arange(1, 201, dtype=torch.float64)
    torch.testing.assert_close(oscillator(package, 0.2, 3.0, 0.05, 200), answer(0.2, 3.0, t), rtol=0, atol=1e-12)
    # 65,536 tokens, 1,043 turns: rounding of a factor is raised to their power, and nothing else adds up
    t = 0.1 * torch.arange(1, 65537, dtype=torch.float64)
    long = answer(1e-4, 1.0, t)
    torch.testing.assert_close(oscillator(package, 1e-4, 1.0, 0.1, 65536), long, rtol=0, atol=1e-9)
    single = oscillator(package, 1e-4, 1.0, 0.1, 65536, torch.float32)
    assert (single.double() - long).abs().max() < 65536 * 2**-24

    text = (ROOT / "examples" / "s4d.ssm").read_text(encoding="utf-8").replace("zoh(", "bilinear(")
    package, errors = load(write(text, tmp_path / "bilinear")[0]), []
    for tokens in (200, 400):
        found = oscillator(package, 0.2, 3.0, 10.0 / tokens, tokens)[tokens // 10 - 1 :: tokens // 10]
        errors.append((found - answer(0.2, 3.0, torch.arange(1, 11, dtype=torch.float64))).abs().max().item())
    assert 3.0 < errors[0] / errors[1] < 5.0, errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s' = z^(1/2) * s + u\n output y = Re(s')", "a power"),
        ("s' = z * s + z[-1]\n output y = Re(s')", "token before's value of a complex name"),
    ],
)
def test_complex_values_without_parts_are_refused(text, words):
    names = "input u : scalar per channel; z : complex scalar per channel\n state s : complex scalar per channel"
    spec = f"recurrence x {{ {names}\n update {text} }}"
    with pytest.raises(SpecError) as found:
        build(Source("x.ssm", spec))
    assert any(words in d.title for d in found.value.diagnostics), [d.title for d in found.value.diagnostics]


def test_a_cast_of_a_module_keeps_complex_parameters_whole(tmp_path):
    package, _ = example("s4d", tmp_path)
    module = package.S4d(3, N=4)
    before = module.C.detach().clone()
    for dtype, kind in ((torch.bfloat16, torch.complex64), (torch.float64, torch.complex128)):
        module.to(dtype)
        assert module.C.dtype == kind and torch.equal(module.C.detach().to(torch.complex64), before)
    y, state = package.S4dBlock(3, N=4)(torch.randn(2, 5, 3))
    assert y.shape == (2, 5, 3) and state[0].s.dtype == torch.complex64


def test_a_factor_of_zero_cuts_what_was_before(tmp_path):
    """Exactly: no logarithm is taken and nothing is divided."""
    package, _ = example("hgrn", tmp_path)
    i, f_raw = torch.randn(1, 40, 3, dtype=torch.float64), torch.full((1, 40, 3), 2.0, dtype=torch.float64)
    f_raw[:, 20] = -torch.inf
    gamma = torch.full((3,), -torch.inf, dtype=torch.float64)
    whole = package.hgrn(i, f_raw, gamma, chunk=16).y[:, 20:]
    torch.testing.assert_close(whole, package.hgrn(i[:, 20:], f_raw[:, 20:], gamma, chunk=16).y, rtol=0, atol=0)


def axes(text: str) -> dict[str, str]:
    trace = check(Source("x.ssm", text))
    (classified,) = trace.after("classify").values()
    return {a.axis: a.value for a in classified.axes}


def test_the_form_follows_from_the_axes():
    spec = "recurrence x {{ dim N = 4, P = 3\n input q, k, a : [N]; u, v : [P]\n state S : real [N, P]\n update S' = {0}\n output {1} }}"
    assert axes(spec.format("diag(sigmoid(a)) S + k (u * v)^T", "o = S'^T q"))["form"] == "chunk"
    assert axes(spec.format("S diag(u) + diag(a) k v^T", "o = S'^T q"))["form"] == "scan"
    assert axes(spec.format("diag(a) S diag(u) + k v^T", "o = S'^T q"))["form"] == "scan"
    # what fades on one axis alone is met along it, by whichever axis queries are answered
    assert axes(spec.format("S diag(sigmoid(u)) + k v^T", "o = S'^T q"))["form"] == "chunk"
    assert axes(spec.format("diag(sigmoid(a)) S + k v^T", "o = S'^T q + norm(S v) * u"))["form"] == "chunk"
    assert axes(spec.format("diag(a) S + k v^T", "o = S'^T q + norm(S v) * u"))["form"] == "scan"
    assert axes(spec.format("(a u^T) * S + k v^T", "o = S'^T q"))["form"] == "scan"


def test_the_cost_counts_what_a_token_does():
    """Of a state of 16: dt * x * B is two, decay * h and the sum one each, the read two; the skip two more."""
    text = (ROOT / "examples" / "mamba1.ssm").read_text(encoding="utf-8")
    (classified,) = check(Source("x.ssm", text)).after("classify").values()
    cost = schedule(classified).cost
    assert (cost.flops, cost.bytes) == (("6*N + 3", 99.0), ("2*(3 + 2*N)", 70.0))
    assert (cost.state, cost.decode_bytes) == (("N", 16), ("2*4*N", 128.0))
