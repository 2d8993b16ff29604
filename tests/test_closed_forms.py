"""Emitted operators against solutions of the continuous equation: every method at its order, and exact at its singular points."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
from built import write
from evaluate import expm

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from test_kernels import fused, interpreted, interpreting  # noqa: E402

from ssmgen.discretizations import methods  # noqa: E402
from ssmgen.discretizations._method import order_of  # noqa: E402
from ssmgen.runtime.interpret import interpret  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402

METHODS = {name: method for name, method in methods().items() if method.parameters}
LEAK = """
recurrence leak_{method} {{
  input      u, dt : scalar per channel in [0, 1]; a : scalar per channel <= 0
  state      s : real scalar per channel
  dynamics   ds/dt = a * s + u
  discretize {method}({args})
  output     s'
}}
"""
RATE = -1.3


def leak(method: str, folder):
    """s' = a s + u, one channel, as an operator; a second parameter is 1/2."""
    args = ", ".join(["dt", *("1/2" for _ in METHODS[method].parameters[1:])])
    written, _ = write(LEAK.format(method=method, args=args), folder)
    return load(written)


def error(made, name: str, u, wanted: float, steps: int) -> float:
    """|s(1) - wanted| from s(0) = 1; the input at 0 is the value of a token before the first."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    start = {"s": torch.ones(1, 1, dtype=torch.float64), "u_previous": u(t[:1]).reshape(1, 1)}
    state = made.State(**{part: start[part] for part in made.State._fields})
    inputs = (u(t[1:]), torch.full_like(t[1:], 1 / steps), torch.full_like(t[1:], RATE))
    y = getattr(made, f"leak_{name}")(*(x.reshape(1, -1, 1) for x in inputs), initial_state=state).y
    return abs(float(y[0, -1, 0]) - wanted)


def chirp(t):
    return 0.5 + 0.5 * torch.sin(2 * t + 3 * t * t)


def driven() -> float:
    """e^a + the integral of e^(a (1 - t)) u(t) over [0, 1], by Gauss's rule."""
    x, w = np.polynomial.legendre.leggauss(60)
    t = (x + 1) / 2
    return math.exp(RATE) + float((w / 2 * np.exp(RATE * (1 - t)) * chirp(torch.from_numpy(t)).numpy()).sum())


@pytest.mark.parametrize("name", METHODS)
def test_a_leaky_integrator_driven_by_a_chirp_and_by_a_step(name, tmp_path):
    made, method = leak(name, tmp_path), METHODS[name]
    order = order_of(method, {p: Fraction(1, 2) for p in method.parameters[1:]})
    coarse, fine = (error(made, name, chirp, driven(), steps) for steps in (64, 128))
    assert math.log2(coarse / fine) == pytest.approx(order.smooth, abs=0.15)
    step = math.exp(RATE) + math.expm1(RATE) / RATE
    coarse, fine = (error(made, name, torch.ones_like, step, steps) for steps in (8, 16))
    if order.held is None:
        assert coarse < 1e-14
    else:
        assert math.log2(coarse / fine) == pytest.approx(order.held, abs=0.15)


FULL = """
recurrence full {{
  dim        N = 3, P = 2
  input      u : [P]; dt : scalar > 0
  param      A : [N, N] per head; rate : [N] per head; B : [N, P] per head
  state      x : real [N]
  dynamics   dx/dt = (A - A^T) x - diag(exp(rate)) x + B u
  discretize {method}({args})
  output     y = x'
}}
"""


@pytest.mark.parametrize("name", METHODS)
def test_a_full_matrix_driven_by_a_chirp_and_by_a_step(name, tmp_path):
    """The order of every method, against the exponential of a matrix: of an input that stays, and by Gauss's rule of one that moves."""
    method, draw = METHODS[name], np.random.default_rng(0)
    args = ", ".join(["dt", *("1/2" for _ in method.parameters[1:])])
    made = load(write(FULL.format(method=name, args=args), tmp_path)[0])
    A, rate, B = draw.normal(size=(3, 3)), 0.3 * draw.normal(size=3), draw.normal(size=(3, 2))
    whole, start = A - A.T - np.diag(np.exp(rate)), np.ones(3)
    push = B @ np.array([1.0, -0.5])

    def wanted(drive) -> np.ndarray:
        nodes, weights = np.polynomial.legendre.leggauss(40)
        times = (nodes + 1) / 2
        return expm(whole) @ start + sum(w / 2 * float(drive(t)) * expm(whole * (1 - t)) @ push for t, w in zip(times, weights))

    def miss(drive, steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        column = torch.tensor([1.0, -0.5], dtype=torch.float64)
        inputs = torch.stack([drive(each) * column for each in t])
        fields = {"x": torch.from_numpy(start)[None, None]}
        fields |= {part: torch.from_numpy(B @ inputs[0].numpy())[None, None] for part in made.State._fields if part not in fields}
        given = (inputs[1:][None, :, None], torch.full((1, steps, 1), 1 / steps, dtype=torch.float64))
        y = made.full(*given, *(torch.from_numpy(x)[None] for x in (A, rate, B)), initial_state=made.State(**fields)).y
        return float(np.abs(y[0, -1, 0].numpy() - wanted(drive)).max())

    order = order_of(method, {p: Fraction(1, 2) for p in method.parameters[1:]})
    coarse, fine = (miss(lambda t: chirp(torch.as_tensor(t)), steps) for steps in (64, 128))
    assert math.log2(coarse / fine) == pytest.approx(order.smooth, abs=0.2)
    coarse, fine = (miss(lambda t: torch.ones(()), steps) for steps in (16, 32))
    if order.held is None:
        assert coarse < 1e-13
    else:
        assert math.log2(coarse / fine) == pytest.approx(order.held, abs=0.2)


NILPOTENT = """
recurrence nilpotent {
  dim        N = 2
  input      u : [N]
  param      A : [N, N] per head
  state      x : real [N]
  dynamics   dx/dt = A x + u
  discretize zoh(1/2)
  output     y = x'
}
"""


def test_a_matrix_without_an_inverse_is_held_exactly(tmp_path):
    """x1' = x2 + u1, x2' = u2: A^2 = 0, so that exp(A / 2) = I + A / 2 and phi1(A / 2) = I + A / 4."""
    made = load(write(NILPOTENT, tmp_path)[0])
    A = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    u, start = torch.tensor([[[[0.3, 0.8]]]], dtype=torch.float64), torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    y = made.nilpotent(u, A, initial_state=made.State(start)).y
    torch.testing.assert_close(y[0, 0, 0], torch.tensor([1 + 1 + 0.15 + 0.1, 2 + 0.4], dtype=torch.float64), rtol=1e-14, atol=0)
    (slope,) = torch.autograd.grad(y[..., 1].sum(), A)
    # of x2 by A_21, at which every power of A has a share: x1 / 2 + x2 / 8 + u1 / 8 + u2 / 48
    assert slope[0, 1, 0].item() == pytest.approx(0.5 + 2 / 8 + 0.3 / 8 + 0.8 / 48, rel=1e-13)


def phi(z: float, k: int) -> float:
    """The sum of z^j / (j + k)!, in rational arithmetic."""
    return float(sum(Fraction(z) ** j / math.factorial(j + k) for j in range(25)))


@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-14), (torch.float32, 3e-7)], ids=["float64", "float32"])
def test_a_held_input_at_and_near_a_rate_of_zero(dtype, close, tmp_path):
    """s' = e^z s + dt phi1(z) u with z = dt a: values and gradients where (e^z - 1) / z has no digits, or is 0/0."""
    made = leak("zoh", tmp_path)
    for z in (0.0, -1e-12, -1e-8, -1e-4, -1.0):
        s, u, dt, a = (torch.tensor([x], dtype=dtype, requires_grad=True) for x in (0.7, 0.6, 0.5, z / 0.5))
        tokens = (x.reshape(1, 1, 1) for x in (u, dt, a))
        y = made.leak_zoh(*tokens, initial_state=made.State(s.reshape(1, 1))).y.sum()
        found = torch.stack([y, *(g.sum() for g in torch.autograd.grad(y, (s, u, dt, a)))])
        z = dt.item() * a.item()
        decay, slope = math.exp(z), phi(z, 1) - phi(z, 2)
        d_z = decay * 0.7 + 0.5 * slope * 0.6
        wanted = [decay * 0.7 + 0.5 * phi(z, 1) * 0.6, decay, 0.5 * phi(z, 1), a.item() * d_z + phi(z, 1) * 0.6, 0.5 * d_z]
        torch.testing.assert_close(found.detach(), torch.tensor(wanted, dtype=dtype), rtol=close, atol=close)


EXACT = """
recurrence exact {
  dim        N = 4, P = 3
  input      q, k, e : [N]; v : [P]; dt : scalar in (0, 1)
  state      S : real [N, P]
  dynamics   dS/dt = e v^T - k (k^T S)
  discretize zoh(dt)
  output     o = S'^T q
}
"""


def test_an_exact_delta_rule_whose_key_vanishes(tmp_path):
    """I - dt phi1(-dt k.k) k k^T, and phi2 in the weight of an input across k: held against matrix exponentials, at k = 0 too."""
    made = load(write(EXACT, tmp_path)[0])
    draw = torch.Generator().manual_seed(0)
    q, k, e, v = (torch.randn(1, 6, 1, n, generator=draw, dtype=torch.float64) for n in (4, 4, 4, 3))
    k = k * torch.tensor([0.0, 1e-8, 1e-6, 1e-3, 1.0, 2.0], dtype=torch.float64).reshape(1, 6, 1, 1)
    given = [x.requires_grad_() for x in (q, k, e, v, torch.full((1, 6, 1), 0.4, dtype=torch.float64))]
    runs = [run(*given) for run in (made.exact, made.exact_reference)]
    torch.testing.assert_close(runs[0].y, runs[1].y, rtol=1e-13, atol=1e-14)
    found, wanted = (torch.autograd.grad(run.y.square().sum(), given) for run in runs)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)


SWINGING = """
recurrence swinging_{method} {{
  input      u : scalar per channel; dt, a, g : scalar per channel >= 0
  state      z, x : real scalar per channel
  dynamics   dz/dt = u - g * z - a * x
  dynamics   dx/dt = z
  discretize {method}({args})
  output     x'
}}
"""


def swinging(method: str, folder):
    args = ", ".join(["dt", *("1/2" for _ in METHODS[method].parameters[1:])])
    return load(write(SWINGING.format(method=method, args=args), folder)[0])


@pytest.mark.parametrize("damping", [0.8, 6.0, 7.0], ids=["swings", "critical", "creeps"])
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if name not in ("euler", "rk4")])
def test_a_damped_oscillator(name, damping, tmp_path):
    """A chirp and a step through x'' = u - g x' - 9 x: the order of the method, against the integral of exp(A (1 - t)) u(t)."""
    made, method = swinging(name, tmp_path), METHODS[name]
    order = order_of(method, {p: Fraction(1, 2) for p in method.parameters[1:]})
    matrix = torch.tensor([[-damping, -9.0], [1, 0]], dtype=torch.float64)
    x, w = np.polynomial.legendre.leggauss(60)
    nodes, weights = torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
    responses = torch.matrix_exp(matrix * (1 - nodes)[:, None, None])[:, 1, 0]
    start = torch.tensor([-0.5, 1.0], dtype=torch.float64)

    def error(u, steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        parts = dict(zip("zx", start.reshape(2, 1, 1), strict=True), u_previous=u(t[:1]).reshape(1, 1))
        tokens = (u(t[1:]), *(torch.full_like(t[1:], value) for value in (1 / steps, 9.0, damping)))
        state = made.State(**{part: parts[part] for part in made.State._fields})
        found = getattr(made, f"swinging_{name}")(*(x.reshape(1, -1, 1) for x in tokens), initial_state=state).y[0, -1, 0]
        return abs(float(found - torch.matrix_exp(matrix)[1] @ start - (weights * responses * u(nodes)).sum()))

    for u, expected in ((chirp, order.smooth), (torch.ones_like, order.held)):
        if expected is None:
            assert error(u, 8) < 1e-14
        else:
            assert math.log2(error(u, 128) / error(u, 256)) == pytest.approx(expected, abs=0.15)


DAMPINGS = {"leak": (0.0,), "swinging": (0.8, 6.0, 7.0)}
STEPS = (32, 64)
ROUNDING = 64 * 2**-23
"""What steps in float32 add up to beside numbers of about 1: every step is the same, so what rounds it has one sign."""


def driven_by(order):
    """The inputs, each with its order."""
    return (chirp, order.smooth), (torch.ones_like, order.held)


def order_at(name: str):
    return order_of(METHODS[name], {p: Fraction(1, 2) for p in METHODS[name].parameters[1:]})


def interpret_kernels(system: str, names: tuple[str, ...], folder: Path) -> None:
    """Called where triton interprets: the kernels of each method, a channel each for a damping, an input and a number of steps."""
    found = {}
    for name in names:
        text, args = {"leak": LEAK, "swinging": SWINGING}[system], ["dt", *("1/2" for _ in METHODS[name].parameters[1:])]
        subject, kernels = fused(*write(text.format(method=name, args=", ".join(args)), folder))
        launched, forward = [], kernels.forward
        kernels.forward = lambda *given, launched=launched, forward=forward, **more: launched.append(1) or forward(*given, **more)
        lanes = [(d, u, n) for d in DAMPINGS[system] for u, _ in driven_by(order_at(name)) for n in STEPS]
        t = torch.arange(1, max(STEPS) + 1, dtype=torch.float64)
        given = torch.stack([u(t / n) for _, u, n in lanes], 1)
        rates = {"leak": [lambda d: RATE], "swinging": [lambda d: 9.0, lambda d: d]}[system]
        tokens = [given, *(torch.tensor([f(d, n) for d, _, n in lanes], dtype=given.dtype).expand_as(given) for f in
                           (lambda d, n: 1 / n, *(lambda d, n, rate=rate: rate(d) for rate in rates)))]  # fmt: skip
        before = torch.stack([u(torch.zeros(1, dtype=torch.float64)) for _, u, n in lanes], 1)
        starts = {"s": 1.0, "z": -0.5, "x": 1.0, "u_previous": before}
        run, fields = getattr(subject.package, f"{system}_{name}"), subject.package.State._fields

        def ends(dtype, run=run, fields=fields, tokens=tokens, before=before, starts=starts, lanes=lanes, state=subject.package.State):
            first = state(**{part: (torch.zeros_like(before) + starts[part]).to(dtype) for part in fields})
            y = run(*(x.to(dtype).contiguous()[None] for x in tokens), initial_state=first).y
            return [float(y[0, n - 1, lane]) for lane, (*_, n) in enumerate(lanes)]

        found[name] = ends(torch.float32)
        assert launched, "the torch form ran"
        found[name] = list(zip(found[name], ends(torch.float64), strict=True))
        assert len(launched) == 1, "kernels ran in float64"
    print(json.dumps(found))


def solution(system: str, damping: float, u) -> float:
    """The driven state at 1: the integral of exp(A (1 - t)) u(t) by Gauss's rule, and what is left of the start."""
    if system == "leak":
        matrix, start, read, written = [[RATE]], [1.0], 0, 0
    else:
        matrix, start, read, written = [[-damping, -9.0], [1, 0]], [-0.5, 1.0], 1, 0
    matrix, start = torch.tensor(matrix, dtype=torch.float64), torch.tensor(start, dtype=torch.float64)
    x, w = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(60))
    nodes = (x + 1) / 2
    responses = torch.matrix_exp(matrix * (1 - nodes)[:, None, None])[:, read, written]
    return float(torch.matrix_exp(matrix)[read] @ start + (w / 2 * responses * u(nodes)).sum())


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("system", DAMPINGS)
def test_interpreted_kernels_of_a_leaky_integrator_a_damped_oscillator_and_a_chirp(system, tmp_path):
    """The emitted kernels themselves: in float32 where the operator is in float64, which nears the solution in the method's order."""
    names = tuple(n for n in METHODS if system == "leak" or n not in ("euler", "rk4"))
    found = json.loads(interpreting(system, names, tmp_path, function="interpret_kernels", module="test_closed_forms"))
    for name in names:
        values = iter(found[name])
        for damping in DAMPINGS[system]:
            for u, order in driven_by(order_at(name)):
                kernels, plain = zip(*(next(values) for _ in STEPS), strict=True)
                wanted = solution(system, damping, u)
                assert kernels == pytest.approx(plain, abs=ROUNDING), (name, damping, u.__name__)
                coarse, fine = (abs(value - wanted) for value in plain)
                if order is None:
                    assert max(coarse, fine) < 1e-13, (name, damping)
                else:
                    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.4), (name, damping, u.__name__)


# half of the trace is 12 where eigenvalues are farthest apart: the slow one is off by so many places of the dtype
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-13), (torch.float32, 4e-6)], ids=["float64", "float32"])
def test_an_exponential_of_two_states_near_every_coincidence(dtype, close, tmp_path):
    """Values and gradients where eigenvalues are one, are 0, or both, and where they are far apart: of matrix exponentials."""
    made = swinging("zoh", tmp_path)
    points = [(0.0, 0.0), (0.0, 1e-9), (1.0, 0.0), (1.0, 1e-7), (2.0, 1.0), (2.0, 1 + 1e-9)]
    points += [(0.0, 4.0), (1e-5, 1e-3), (40.0, 1.0), (0.3, 900.0)]
    g, a = (torch.tensor(column, dtype=dtype) for column in zip(*points, strict=True))
    given = [torch.full_like(g, 0.7), torch.full_like(g, 0.6), a, g, torch.full_like(g, -0.4), torch.full_like(g, 0.9)]

    def emitted(u, dt, a, g, z, x):
        tokens = (value.reshape(1, 1, -1) for value in (u, dt, a, g))
        return made.swinging_zoh(*tokens, initial_state=made.State(z=z[None], x=x[None])).y.flatten()

    def exact(u, dt, a, g, z, x):
        rates = torch.stack([torch.stack([-g, -a, u], -1), torch.stack([g * 0 + 1, g * 0, g * 0], -1), torch.zeros(len(g), 3)], -2)
        start = torch.stack([z, x, torch.ones_like(x)], -1)
        return (torch.matrix_exp(dt[:, None, None] * rates.to(u.dtype)) @ start[..., None])[:, 1, 0]

    runs = []
    for function, values in ((emitted, given), (exact, [value.double() for value in given])):
        values = [value.clone().requires_grad_() for value in values]
        y = function(*values)
        runs.append([y.double(), *(each.double() for each in torch.autograd.grad(y.sum(), values))])
    torch.testing.assert_close(runs[0], runs[1], rtol=close, atol=close)


DRIVEN = """
recurrence driven_{method} {{
  input      u : scalar per channel; dt, a, g, c : scalar per channel >= 0
  state      s, z, x : real scalar per channel
  dynamics   ds/dt = x - c * s
  dynamics   dz/dt = u - g * z - a * x
  dynamics   dx/dt = z
  discretize {method}(dt)
  output     s'
}}
"""


@pytest.mark.parametrize("name", ["implicit_euler", "bilinear", "trapezoid"])
def test_a_damped_oscillator_that_drives_a_leaky_integrator(name, tmp_path):
    """Three states that feed each other, solved at once: the order of the method, against the integral of exp(A (1 - t)) u(t)."""
    made, order = load(write(DRIVEN.format(method=name), tmp_path)[0]), order_of(METHODS[name])
    a, g, c = 9.0, 0.8, 1.3
    matrix = torch.tensor([[-c, 0, 1], [0, -g, -a], [0, 1, 0]], dtype=torch.float64)
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(60))
    nodes, weights = (nodes + 1) / 2, weights / 2
    start = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
    responses = torch.matrix_exp(matrix * (1 - nodes)[:, None, None])[:, 0, 1]

    def error(u, steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        parts = dict(zip("szx", start.reshape(3, 1, 1), strict=True), u_previous=u(t[:1]).reshape(1, 1))
        tokens = (u(t[1:]), *(torch.full_like(t[1:], value) for value in (1 / steps, a, g, c)))
        state = made.State(**{part: parts[part] for part in made.State._fields})
        found = getattr(made, f"driven_{name}")(*(x.reshape(1, -1, 1) for x in tokens), initial_state=state).y[0, -1, 0]
        return abs(float(found - torch.matrix_exp(matrix)[0] @ start - (weights * responses * u(nodes)).sum()))

    for u, expected in ((torch.exp, order.smooth), (torch.ones_like, order.held)):
        assert math.log2(error(u, 64) / error(u, 128)) == pytest.approx(expected, abs=0.15)


COUPLED = """
recurrence coupled {
  dim        N = 3, P = 2
  input      k : [N]; w : [N] >= 0; v : [P]; c : [P] <= 0; dt : [P] in (0, 1)
  param      M : [N, P] per head init normal(0, 1)
  state      L, S, Z : real [N, P]
  dynamics   dL/dt = -L + k v^T
  dynamics   dS/dt = S diag(c) - M * Z + k v^T
  dynamics   dZ/dt = M * S - diag(w) Z
  discretize trapezoid(dt)
  output     o = (S' + L')^T k
}
"""


def test_rates_of_rows_columns_and_entries_between_states(tmp_path):
    """One system of two equations for every entry, beside a state that is alone: operator, reference, interpreter."""
    written, spec = write(COUPLED, tmp_path)
    made, draw = load(written), torch.Generator().manual_seed(0)
    given = {s.name: torch.randn(1, 9, 1, 3 if s.name in "kw" else 2, generator=draw, dtype=torch.float64) for s in spec.symbols[:5]}
    given |= {"w": given["w"].abs(), "c": -given["c"].abs(), "dt": given["dt"].sigmoid()}
    given["M"] = torch.randn(1, 3, 2, generator=draw, dtype=torch.float64)
    wanted = interpret(spec, given).y
    for found in (made.coupled(**given).y, made.coupled_reference(**given).y):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


FALLING = """
recurrence falling {
  dim        N = 3, P = 2
  input      q, k : [N]; v : [P]; dt : scalar in (0, 1)
  state      S, Z : real [N, P]
  dynamics   dS/dt = Z
  dynamics   dZ/dt = k v^T
  discretize rk4(dt)
  output     o = S'^T q
}
"""


def test_states_that_feed_each_other_step_together(tmp_path):
    """What falls with an acceleration k v^T is at t^2/2 k v^T, exactly, however long the steps: operator, reference, interpreter."""
    written, spec = write(FALLING, tmp_path)
    made, draw = load(written), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 1, n, generator=draw, dtype=torch.float64).expand(1, 7, 1, n) for n in (3, 3, 2))
    dt = torch.rand(1, 7, 1, generator=draw, dtype=torch.float64)
    t = dt[0, :, 0].cumsum(0)
    wanted = (t.square() / 2 * (q[0, 0, 0] @ k[0, 0, 0]))[None, :, None, None] * v
    for found in (made.falling(q, k, v, dt).y, made.falling_reference(q, k, v, dt).y, interpret(spec, dict(q=q, k=k, v=v, dt=dt)).y):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-14)


def test_the_equation_as_it_is(tmp_path):
    """`none` takes the right side for the next state: as an update would."""
    equation = "{0} = a * S - unit(k) (unit(k)^T S) + k v^T"
    text = EXACT.replace("dt : scalar in (0, 1)", "a : scalar in (0, 1)").replace("discretize zoh(dt)", "{1}")
    before, end = text.split("dynamics   dS/dt = e v^T - k (k^T S)")
    ways = (f"dynamics {equation.format('dS/dt')}", "discretize none"), (f"update {equation.format(chr(83) + chr(39))}", "")
    runs, draw = [], torch.Generator().manual_seed(0)
    given = [torch.rand(1, 6, 1, *n, generator=draw, dtype=torch.float64) for n in ((4,), (4,), (4,), (3,), ())]
    for number, (line, how) in enumerate(ways):
        made = load(write(before + line + end.replace("{1}", how), tmp_path / str(number))[0])
        runs += [made.exact(*given).y, made.exact_reference(*given).y]
    for found in runs[1:]:
        torch.testing.assert_close(found, runs[0], rtol=1e-13, atol=1e-14)
