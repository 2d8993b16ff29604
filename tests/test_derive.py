"""derive: the normal form is the equation, the reads are the output, the adjoint is the derivative."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import evaluate as ev
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmgen import algebra, spec
from ssmgen.delays import previous
from ssmgen.derive import derive
from ssmgen.derive.adjoint import ReadAdjoint, StepAdjoint, adjoint, index_of_read
from ssmgen.diagnostics import SpecError
from ssmgen.discretizations import methods
from ssmgen.expressions import key, uses_index
from ssmgen.parse import parse
from ssmgen.recurrence import MicroStep, Read, Recurrence, Transition
from ssmgen.recurrence_text import equations, recurrence_text
from ssmgen.resolve import resolve
from ssmgen.source import NOWHERE, Source
from ssmgen.spec_text import expr_text
from ssmgen.stability import stability

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("examples/*.ssm"), *ROOT.glob("tests/sketches/*.ssm")])
SIZES = {"N": 8, "P": 3}


def resolved(text: str, name: str = "test.ssm") -> tuple[spec.Recurrence, ...]:
    return resolve(parse(Source(name, text))).recurrences


def recurrences() -> list:
    found = []
    for path in FILES:
        for one in resolved(path.read_text(), path.name):
            found.append(pytest.param(one, id=f"{path.stem}-{one.name}"))
    return found


RECURRENCES = recurrences()


def environment(one: spec.Recurrence, seed: int = 0, hoisted=()) -> ev.Env:
    rng = np.random.default_rng(seed)
    sizes = {name: SIZES.get(name, min(default, 4)) for name, default in one.dims} | dict(one.counts)
    env = ev.Env(sizes, {})
    env.names = ev.random_names(one, env, rng)
    env.previous = ev.random_names(one, env, rng, learned=env.names)
    env.before = ev.random_states(one, env, rng)
    return named(env, hoisted)


def named(env: ev.Env, hoisted) -> ev.Env:
    """With the values that `derive` named."""
    for name, value in hoisted:
        env.names[name] = ev.evaluate(value, env)
    return env


def discretized(one: spec.Recurrence, env: ev.Env) -> dict[str, np.ndarray]:
    """The states after a token of a recurrence in continuous time, structure unknown."""
    order = [s.name for s in one.states]
    shapes = {s.name: ev.shape_of(s.type, env) for s in one.states}
    a, b = ev.linear_part(one, env)
    # the older input was the previous token's; its matrix A plays no part
    _, b_old = ev.linear_part(one, replace(env, names=env.previous))
    args = [ev.evaluate(arg, env) for arg in one.discretization.args]
    dt = np.ones(len(a))
    if args:
        own = next(iter(shapes.values()))
        # one for all, or one a row, a column or an entry of the only state
        along = args[0].T if len(args[0]) != own[0] else args[0]
        # a complex state stands as its real parts and its imaginary ones
        dt = dt * args[0][0, 0] if args[0].size == 1 else np.tile((along * np.ones(own)).ravel(), len(a) // math.prod(own))
    z, eye = dt[:, None] * a, np.eye(len(a))
    match one.discretization.method:
        case "none":
            transition, write = a, eye
        case "euler":
            transition, write = eye + z, eye
        case "implicit_euler":
            transition = write = np.linalg.inv(eye - z)
        case "exp_euler":
            transition, write = ev.expm(z), eye
        case "zoh":
            transition, write = ev.expm(z), ev.phi_one(z)
        case "bilinear":
            half = np.linalg.inv(eye - z / 2)
            transition, write = half @ (eye + z / 2), half
        case "rk4":
            transition = eye + z + z @ z / 2 + z @ z @ z / 6 + z @ z @ z @ z / 24
            write = eye + z / 2 + z @ z / 6 + z @ z @ z / 24
        case "exp_trapezoid":
            transition, write = ev.expm(z), args[1][0, 0] * eye
            s = ev.packed(env.before, order) + dt * (1 - args[1][0, 0]) * b_old
            return ev.unpacked(transition @ s + write @ (dt * b), shapes, order)
        case "trapezoid":
            s = ev.packed(env.before, order)
            return ev.unpacked(np.linalg.solve(eye - z / 2, s + z @ s / 2 + dt * (b + b_old) / 2), shapes, order)
        case other:
            raise AssertionError(f"no oracle for {other}")
    return ev.unpacked(transition @ ev.packed(env.before, order) + write @ (dt * b), shapes, order)


def check_step(one: spec.Recurrence, derived: Recurrence, seed: int) -> None:
    env = environment(one, seed, derived.hoisted)
    wanted = discretized(one, env) if one.dynamics else ev.updated(one, env)
    got = ev.stepped_token(derived, env)
    for state in one.states:
        np.testing.assert_allclose(got[state.name], wanted[state.name], rtol=1e-9, atol=1e-9, err_msg=recurrence_text(derived))
    env.after = wanted
    said = ev.outputs_of([(o.name, o.value) for o in one.outputs], one, env)
    read = ev.derived_outputs(derived, env)
    for name, value in said.items():
        np.testing.assert_allclose(read[name], value, rtol=1e-9, atol=1e-9, err_msg=recurrence_text(derived))


@pytest.mark.parametrize("one", RECURRENCES)
def test_normal_form_is_the_equation(one):
    derived = derive(one)
    derived.verify()
    if derived.sequential:
        assert not derived.steps
        return
    for seed in (0, 1):
        check_step(derived.spec, derived, seed)


# --- the adjoint -------------------------------------------------------------------------------------------------

H = 1e-5


def real_inner(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * np.conj(b)).real.sum())


def assert_gradient(gradient: np.ndarray, loss, at: np.ndarray, rng: np.random.Generator, message: object = "") -> None:
    """`gradient` is the derivative of `loss` at `at`, along a random direction (and an imaginary one)."""
    along = [rng.normal(size=at.shape)]
    if np.iscomplexobj(at):
        along.append(1j * rng.normal(size=at.shape))
    for direction in along:
        slope = (loss(at + H * direction) - loss(at - H * direction)) / (2 * H)
        assert slope == pytest.approx(real_inner(gradient, direction), rel=1e-5, abs=1e-6), message


def exchanged(term, factor: spec.Expr, by: spec.Expr, one: spec.Recurrence):
    """A term with every occurrence of a factor exchanged; generators and written factors alike."""
    wanted = key(factor)

    def swap(expr):
        if expr is not None and key(expr) == key(algebra.transpose(factor)):
            return algebra.transpose(by)
        return by if expr is not None and key(expr) == wanted else expr

    if isinstance(term, Transition):
        left, right = (tuple(replace(g, column=swap(g.column), row=swap(g.row)) for g in side) for side in (term.left, term.right))
        return replace(term, coefficient=swap(term.coefficient), left=left, right=right)
    if term.tap == 1:
        older = {name: previous(getattr(term, name), one.symbols) for name in ("key", "value", "weight")}
        moved = {name: by for name, expr in older.items() if expr is not None and key(expr) == wanted}
        return replace(term, coefficient=swap(term.coefficient), **moved)
    return replace(term, coefficient=swap(term.coefficient), key=swap(term.key), value=swap(term.value), weight=swap(term.weight))


class StepLoss:
    """<dS', S'> of one micro-step, S' a function of the states before it and of its factors."""

    def __init__(self, one: spec.Recurrence, step: MicroStep, backward: StepAdjoint, rng: np.random.Generator, hoisted=()):
        self.one, self.step, self.backward, self.rng = one, step, backward, rng
        env = environment(one, 3, hoisted)
        self.env = env if step.index is None else env.at(step.index, 2)
        self.gradients = ev.random_states(one, env, rng)
        env.names |= {f"d{name}": value for name, value in self.gradients.items()}
        env.names |= {f"{name}~": value for name, value in ev.entering(step, env.before, env).items()}

    def __call__(self, step: MicroStep, env: ev.Env) -> float:
        after = ev.stepped(step, env.before, env)
        return sum(real_inner(self.gradients[name], after[name]) for name in self.gradients)

    def check_states(self) -> None:
        handed = dict(self.backward.states)
        for state in self.one.states:
            at = self.env.before[state.name]
            own = ev.evaluate(handed[state.name], self.env) if state.name in handed else np.zeros_like(at)
            self.env.previous[f"d{state.name}"] = own

            def loss(value: np.ndarray, name: str = state.name) -> float:
                return self(self.step, replace(self.env, before={**self.env.before, name: value}))

            assert_gradient(own, loss, at, self.rng, state.name)

    def check_factor(self, factor: spec.Expr, gradient: spec.Expr) -> None:
        over = [(t.index, t.rank) for t in (*self.step.transitions, *self.step.writes) if t.index and uses_index(factor, t.index)]
        if over:
            index, rank = over[0]
            places = [self.env.at(index, r) for r in range(1, ev.size(rank, self.env) + 1)]
            value, own = (np.stack([ev.evaluate(e, p) for p in places])[:, :, 0] for e in (factor, gradient))
            rows = spec.Type(rank, factor.type.rows, factor.type.field)
            by: spec.Expr = spec.Element(factor.type, NOWHERE, spec.Ref(rows, NOWHERE, "f*"), index)
        else:
            value, own = ev.evaluate(factor, self.env), ev.evaluate(gradient, self.env)
            by = spec.Ref(factor.type, NOWHERE, "f*")
        step = replace(
            self.step,
            transitions=tuple(exchanged(t, factor, by, self.one) for t in self.step.transitions),
            writes=tuple(exchanged(w, factor, by, self.one) for w in self.step.writes),
        )

        def loss(moved: np.ndarray) -> float:
            env = self.env
            return self(step, replace(env, names={**env.names, "f*": moved}, previous={**env.previous, "f*": moved}))

        assert_gradient(own, loss, value, self.rng, factor)


def check_read(one: spec.Recurrence, read: ReadAdjoint, rng: np.random.Generator) -> None:
    env = environment(one, 3)
    env.after = ev.random_states(one, env, rng)
    over = index_of_read(read.read, one)
    places = [env] if over is None else [env.at(over[0], r) for r in range(1, ev.size(over[1], env) + 1)]
    shapes = [ev.read(read.read, place) for place in places]
    gradients = [rng.normal(size=v.shape) + (1j * rng.normal(size=v.shape) if np.iscomplexobj(v) else 0.0) for v in shapes]
    env.names[f"d{read.read.name}"] = gradients[0] if over is None else np.stack(gradients)[:, :, 0]

    def state_loss(moved: np.ndarray) -> float:
        states = {read.read.state: moved}
        values = [ev.read(read.read, replace(place, after=states, before=states)) for place in places]
        return sum(real_inner(g, value) for g, value in zip(gradients, values, strict=True))

    state = (env.after if read.read.primed else env.before)[read.read.state]
    assert_gradient(ev.evaluate(read.state, env), state_loss, state, rng)
    if read.query is None:
        return
    for place, gradient in zip(places, gradients, strict=True):
        by = replace(read.read, query=spec.Ref(read.read.query.type, NOWHERE, "f*"))

        def query_loss(moved: np.ndarray, place: ev.Env = place, gradient: np.ndarray = gradient, by: Read = by) -> float:
            return real_inner(gradient, ev.read(by, replace(place, names={**place.names, "f*": moved})))

        assert_gradient(ev.evaluate(read.query, place), query_loss, ev.evaluate(read.read.query, place), rng)


def check_adjoint(one: spec.Recurrence, derived: Recurrence) -> None:
    found = adjoint(one, derived.steps, derived.reads)
    rng = np.random.default_rng(5)
    for step, backward in zip(derived.steps, found.steps, strict=True):
        loss = StepLoss(one, step, backward, rng, derived.hoisted)
        loss.check_states()
        for factor, gradient in (*backward.factors, *backward.delayed):
            loss.check_factor(factor, gradient)
    for read in found.reads:
        check_read(one, read, rng)


@pytest.mark.parametrize("one", RECURRENCES)
def test_adjoint_is_the_derivative(one):
    derived = derive(one)
    if not derived.sequential:
        assert derived.adjoint
        check_adjoint(derived.spec, derived)


# --- one construct at a time -------------------------------------------------------------------------------------

HEAD = """\
recurrence one {
  dim    N = 8, P = 3, R = 2
  input  q, k, e : [N]; v, u : [P]; w : [N]; A : [N, N]; F : [P, P]; theta : [N/2]; ks : [R, N]; vs : [R, P]
  input  g : scalar <= 0; beta : scalar in (0, 1); c : scalar; kr : [N] unit; dt : scalar > 0; rate : scalar in (-2, -0.1)
  input  rates : [N] in (-2, -0.1); lam : scalar in (0, 1); half : [N/2] in (-2, -0.1); b : [P] in (-2, -0.1); W : [N, P] in (-2, -0.1)
"""
MATRIX = "  state  S : real [N, P]\n"
READ = "  output y = S'^T q\n"


def spec_of(body: str, head: str = HEAD) -> spec.Recurrence:
    text = head + body + "}\n"
    one = resolved(text)[0]
    return one


UPDATES = {
    "delta by steps": MATRIX + "  update S' = exp(g) * S\n  S' = S' - beta * k (k^T S') + beta * k v^T\n" + READ,
    "error first": MATRIX + "  update S' = exp(g) * S + beta * k (v - S^T e)^T\n" + READ,
    "value side": MATRIX + "  update S' = S diag(b) - (S u) u^T + k v^T\n" + READ,
    "both sides": MATRIX + "  update S' = diag(w) (S - (S u) u^T) diag(b) + k v^T\n" + READ,
    "elementwise": MATRIX + "  update S' = W * S + k v^T\n" + READ,
    "elementwise and delta": MATRIX + "  update S' = (I - beta * k k^T) (W * S) + k v^T\n" + READ,
    "outer weights": MATRIX + "  update S' = (w b^T) * S + k v^T\n" + READ,
    "dense": MATRIX + "  update S' = A S + A k v^T\n" + READ,
    "rotation": MATRIX + "  update S' = rot(theta) (diag(w) S - e (e^T S)) + k v^T\n" + READ,
    "ranks": MATRIX + "  update S' = exp(g) * (S + (sum r in 1..R: ks[r] vs[r]^T)) - (sum r in 1..R: ks[r] (ks[r]^T S))\n" + READ,
    "steps": MATRIX + "  update S' = S\n  for j in 1..R: S' = (I - beta * ks[j] ks[j]^T) S' + ks[j] vs[j]^T\n  S' = exp(g) * S'\n" + READ,
    "divided": MATRIX + "  update S' = (S + k v^T) / (1 + dt) - S / 2\n" + READ,
    "taps": MATRIX + "  update S' = diag(w) (S + c * k[-1] v[-1]^T) + beta * k v^T\n" + READ,
    "taps and delta": MATRIX + "  update S' = (I - beta * k k^T) diag(w) (S + c * e[-1] v[-1]^T) + k v^T\n" + READ,
    "taps first": MATRIX + "  update S' = S + c * k[-1] v[-1]^T\n  S' = exp(g) * S' + k v^T\n" + READ,
    "late tap": MATRIX + "  update S' = exp(g) * S + c * k[-1] v[-1]^T + k v^T\n" + READ,
    "weighed write": MATRIX
    + "  update S' = W * (S + c * k v^T)\n  S' = S' + c * (W * (k v^T)) diag(b) + W * (sum r in 1..R: ks[r] vs[r]^T)\n"
    + READ,
    "inside a let": MATRIX + "  let T : [N, N] = I - beta * k k^T\n  update S' = T (exp(g) * S) + k v^T\n" + READ,
    "two states": "  state S, Z : real [N, P]\n  update Z' = c * Z - k (S^T k - v)^T\n  S' = exp(g) * S + Z' + Z\n" + READ,
    "states of two shapes": "  state S : real [N, P]; n : real [N]\n  update n' = beta * n + k\n  S' = exp(g) * S + n' v^T\n" + READ,
    "vector": "  state h : real [N]\n  update h' = w * h - k (e^T h) + A h + c * k\n  output y = q . h'\n",
    "scalar": "  state h : real scalar\n  update h' = exp(g) * h + c\n  output y = h' * q\n",
    "broadcast": "  state h : real [N]\n  update h' = w * h + c\n  output y = q . h' + h'\n",
}
OUTPUTS = {
    "bonus": "(S + diag(e) k v^T)^T q",
    "scaled": "c * N^-1/2 * S'^T (diag(w) q) + b * v",
    "value side": "S' u",
    "between": "k (q^T S' u)",
    "turned": "S'^T (rot(theta) q)",
    "ratio": "(S'^T q) / max(abs(k^T S' v), 1)",
    "square": "(S'^T q) * (S'^T k)",
    "both": "S'^T q + S^T k",
    "sum": "sum r in 1..R: vs[r] * (S'^T ks[r])",
    "sum of reads": "sum r in 1..R: c * S'^T ks[r]",
    "row": "(q^T S')^T",
    "whole": "S'",
    "normed": "rmsnorm(S'^T q) + exp(S'^T k)",
}


@pytest.mark.parametrize("body", UPDATES.values(), ids=UPDATES)
def test_updates(body):
    one = spec_of(body)
    derived = derive(one)
    derived.verify()
    for seed in (0, 1):
        check_step(one, derived, seed)
    check_adjoint(one, derived)


@pytest.mark.parametrize("value", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs(value):
    one = spec_of(MATRIX + f"  update S' = exp(g) * S + k v^T\n  output y = {value}\n")
    derived = derive(one)
    derived.verify()
    check_step(one, derived, 0)
    check_adjoint(one, derived)


STRUCTURES = {
    "scalar": (MATRIX, "rate * S + k v^T"),
    "diagonal": (MATRIX, "diag(rates) S + beta * k v^T"),
    "scalar and diagonal": (MATRIX, "rate * S + diag(rates) S + k v^T"),
    "value side": (MATRIX, "S diag(b) + k v^T"),
    "erase": (MATRIX, "beta * k (v - S^T k)^T"),
    "scalar and erase": (MATRIX, "rate * S - beta * k (k^T S) + e v^T"),
    "erase on the value side": (MATRIX, "rate * S - beta * (S u) u^T + k v^T"),
    "turning": ("  state S : complex [N, P], rotates first N rows\n", "(rate + i * theta) S + k v^T"),
    "pairs": ("  state S : complex [N, P], rotates first N rows\n", "(half + i * theta) S + k v^T"),
    "turning and erase": ("  state S : complex [N, P], rotates first N rows\n", "(half + i * theta) S - beta * k (k^T S) + e v^T"),
    "diagonal and erase": (MATRIX, "diag(rates) S - beta * k (k^T S) + e v^T"),
    "value side and erase": (MATRIX, "S diag(b) - beta * (S u) u^T + e v^T"),
    "elementwise": (MATRIX, "W * S + k v^T"),
    "both sides": (MATRIX, "diag(rates) S + S diag(b) + k v^T"),
    "weights and a diagonal": (MATRIX, "W * S + diag(rates) S + rate * S + W * (k v^T)"),
    "dense": (MATRIX, "A S + k v^T"),
    "dense, drawing": (MATRIX, "(A - A^T) S + diag(rates) S - A (A^T S) - kr (kr^T S) + k v^T"),
    "dense, value side": (MATRIX, "rate * S + S (F - F^T) + k v^T"),
    "dense, both sides": (MATRIX, "(A - A^T) S + S (F - F^T) + k v^T"),
    "two erasures": (MATRIX, "rate * S - kr (kr^T S) - beta * e (e^T S) + k v^T"),
    "vector": ("  state S : real [N]\n", "rates * S + k"),
    "vector, dense": ("  state S : real [N]\n", "(A - A^T) S + rate * S + k"),
    "ranks": (MATRIX, "rate * S + (sum r in 1..R: ks[r] vs[r]^T)"),
    "two": ("  state S, Z : real [N, P]\n", "-exp(c) * Z - S + k v^T"),
    "three": ("  state S, Z, x : real [N, P]\n", "-exp(c) * Z - S + k v^T"),
    "a chain": ("  state S, Z, x : real [N, P]\n", "rate * S + Z"),
}
FED = {
    "two": "  dynamics dZ/dt = -Z + S\n",
    "three": "  dynamics dZ/dt = S - Z + diag(rates) x\n  dynamics dx/dt = Z - x + e u^T\n",
    "a chain": "  dynamics dZ/dt = -2 * Z + diag(rates) x + k v^T\n  dynamics dx/dt = -3 * x + e u^T\n",
}
"""The dynamics of the other states."""
STEPS = {
    "none": "none", "euler": "euler(dt)", "implicit_euler": "implicit_euler(dt)", "exp_euler": "exp_euler(dt)", "zoh": "zoh(dt)",
    "bilinear": "bilinear(dt)", "rk4": "rk4(dt)", "trapezoid": "trapezoid(dt)", "exp_trapezoid": "exp_trapezoid(dt, lam)",
}  # fmt: skip
UNDEFINED = {
    "turning and erase": ("rk4",),
    "dense, both sides": ("zoh", "bilinear", "implicit_euler", "trapezoid", "exp_euler", "exp_trapezoid"),
}
SINGULAR = {"dense": ("bilinear", "implicit_euler", "trapezoid")}
"""Where a step may have no solution."""


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_discretization_of_structures(structure, method):
    declared, value = STRUCTURES[structure]
    second = FED.get(structure, "")
    read = "  output y = q . S'\n" if structure.startswith("vector") else READ
    one = spec_of(declared + f"  dynamics dS/dt = {value}\n{second}  discretize {STEPS[method]}\n" + read)
    if method in UNDEFINED.get(structure, ()) + SINGULAR.get(structure, ()):
        with pytest.raises(SpecError) as raised:
            derive(one)
        # of a full matrix is said as well that nothing is proved of its growth
        slug = "discretization-undefined" if method in UNDEFINED.get(structure, ()) else "singular-step"
        assert {d.slug for d in raised.value.diagnostics} - {"unstable-dynamics"} == {slug}
        return
    derived = derive(one)
    derived.verify()
    check_step(one, derived, 0)
    if not derived.hoisted and any(f"({name} - {name}^T)" in value for name in "AF"):
        # a matrix and its transpose are two factors, each with a gradient of its own; here both would be exchanged
        return
    check_adjoint(one, derived)


@pytest.mark.parametrize("method", ["zoh(", "trapezoid(", "rk4(", "exp_trapezoid("])
@pytest.mark.parametrize("step", ["exp(w)", "exp(b)", "exp(W)"], ids=["row", "column", "entry"])
def test_step_sizes_along_the_state(step, method):
    for value in ("rate * S + k v^T", "diag(rates) S + k v^T", "W * S + k v^T"):
        one = spec_of(f"{MATRIX}  dynamics dS/dt = {value}\n  discretize {method}{step}{', lam' * ('exp' in method)})\n{READ}")
        derived = derive(one)
        derived.verify()
        check_step(one, derived, 0)
        check_adjoint(one, derived)


CONVERGING = (
    "elementwise", "both sides", "weights and a diagonal", "turning", "pairs", "turning and erase", "dense, drawing", "dense, value side",
    "two erasures", "vector, dense", "three", "a chain",
)  # fmt: skip


@pytest.mark.parametrize("structure, method", [(s, m) for s in CONVERGING for m in STEPS if m != "none" and m not in UNDEFINED.get(s, ())])
def test_solutions_converge_on_a_structure(structure, method):
    """The solution at time 1 with an input that stays as it is, by steps of 1/8 and 1/16 against the exponential of the equation."""
    declared, value = STRUCTURES[structure]
    step = STEPS[method].replace("dt", "dt / 16").replace("lam", "1/2")
    read = "  output y = q . S'\n" if structure.startswith("vector") else READ
    one = spec_of(f"{declared}  dynamics dS/dt = {value}\n{FED.get(structure, '')}  discretize {step}\n{read}")
    derived, env = derive(one), environment(one)
    env.previous, order = env.names, [s.name for s in one.states]
    a, b = ev.linear_part(one, env)
    whole = ev.expm(np.block([[a, b[:, None]], [np.zeros((1, len(a) + 1))]]))
    exact = whole[:-1, :-1] @ ev.packed(env.before, order) + whole[:-1, -1]
    errors = []
    for steps in (8, 16):
        env.names["dt"] = np.array([[16.0 / steps]])
        at = named(replace(env, previous=env.names), derived.hoisted)
        for _ in range(steps):
            at = replace(at, before=ev.stepped_token(derived, at))
        errors.append(np.abs(ev.packed(at.before, order) - exact).max())
    wanted = methods()[method].held_order if method != "exp_trapezoid" else 2
    if wanted is None:
        assert errors[0] < 1e-12
    else:
        assert math.log2(errors[0] / errors[1]) == pytest.approx(wanted, abs=0.35)


def test_a_step_size_a_column_commutes_with_no_erasing():
    with pytest.raises(SpecError, match="the step size does not commute with this transition"):
        derive(spec_of(MATRIX + "  dynamics dS/dt = k (v - S^T k)^T\n  discretize rk4(exp(b))\n" + READ))


# --- shapes of the normal form -----------------------------------------------------------------------------------


def lines(body: str) -> list[str]:
    return equations(derive(spec_of(body)))


def test_one_value_has_one_form():
    ways = [
        "(I - beta * k k^T) (diag(w) S) + beta * k v^T",
        "diag(w) S - beta * k (k^T (diag(w) S)) + beta * k v^T",
        "diag(w) S + beta * k (v - (diag(w) S)^T k)^T",
        "(I - beta * k k^T) diag(w) S + beta * k v^T",
    ]
    forms = [lines(MATRIX + f"  update S' = {way}\n" + READ)[0] for way in ways]
    assert forms[0] == "S' = diag(w) S - beta * k (w * k)^T S + beta * k v^T"
    assert set(forms[1:]) == {forms[0]}


def test_equal_terms_are_collected():
    assert lines(MATRIX + "  update S' = S - c * S + k v^T - 2 * k v^T\n" + READ)[0] == "S' = (1 - c) * S - k v^T"


def test_taps_enter_before_the_transition():
    found = lines(UPDATES["taps"])
    assert found[:2] == ["S~ = S + c * (k v^T)[-1]", "S' = diag(w) S~ + beta * k v^T"]
    assert lines(UPDATES["taps first"])[:2] == ["S~ = S + c * (k v^T)[-1]", "S' = exp(g) * S~ + k v^T"]
    assert lines(UPDATES["late tap"])[0] == "S' = exp(g) * S + c * k[-1] v[-1]^T + k v^T"


def test_implicit_euler_of_a_delta_rule_is_the_online_least_squares_gate():
    one = spec_of(MATRIX + "  dynamics dS/dt = k (v - S^T k)^T\n  discretize implicit_euler(dt)\n" + READ)
    assert equations(derive(one))[0] == "S' = S - dt / (1 + dt * (k^T k)) * k k^T S + dt / (1 + dt * (k^T k)) * k v^T"


def test_exact_delta_rule():
    one = spec_of(MATRIX + "  dynamics dS/dt = k (v - S^T k)^T\n  discretize zoh(dt)\n" + READ)
    assert equations(derive(one))[0].startswith("S' = S - dt * phi1(-(dt * (k^T k))) * k k^T S")


def test_micro_steps_stay_a_loop():
    steps = derive(spec_of(UPDATES["steps"])).steps
    assert [(s.index, str(s.count)) for s in steps] == [("j", "R"), (None, "None")]


def test_unchanged_states_have_their_identity():
    update = "  update S' = S\n  for j in 1..R: S' = S' + ks[j] vs[j]^T\n  n' = w * n + k\n"
    body = f"  state S : real [N, P]; n : real [N]\n{update}  output y = S'^T q * (n' . q)\n"
    first, second = derive(spec_of(body)).steps
    assert [(t.target, t.source, t.left) for t in first.transitions] == [("S", "S", ()), ("n", "n", ())]
    assert second.transitions[0].target == "S" and not [w for w in second.writes if w.target == "S"]


def test_sequential_by_declaration_and_by_nature():
    assert derive(spec_of(MATRIX + "  update S' = tanh(S) + k v^T\n  form sequential\n" + READ)).sequential
    body = "  state m, n : real scalar\n  update m' = max(g * m, c)\n  n' = exp(g + m - m') * n + exp(c - m')\n  output y = n'\n"
    assert "maximum" in derive(spec_of(body)).sequential


def test_a_running_maximum_stands_apart():
    body = "  state m, n : real scalar\n  update m' = max(c, g + m)\n  n' = exp(g + m - m') * n + exp(c - m')\n  output y = m' * n'\n"
    derived = derive(spec_of(body))
    derived.verify()
    (maximum,) = derived.maxima
    assert (maximum.state, expr_text(maximum.shift), expr_text(maximum.value)) == ("m", "g", "c")
    assert [s.name for s in derived.spec.states] == ["n"] and [s.name for s in derived.written.states] == ["m", "n"]
    assert str(derived).split("\n")[1:3] == ["  m' = max(g + m, c)", "  n' = exp(g + m - m') * n + exp(c - m')"]
    (found,) = stability(derived)
    assert found.factor.high == 1
    unread = derive(spec_of(body.replace("exp(g + m - m') * n + exp(c - m')", "g * n + c").replace("m' * n'", "n'")))
    assert [w.title for w in unread.warnings] == ["`m` is never read"]
    for other in ("max(g * m, c)", "max(m, n)", "max(m, m + c)", "min(m, c)"):
        assert not derive(spec_of(body.replace("max(c, g + m)", other))).maxima


def test_outputs_share_reads():
    derived = derive(spec_of(MATRIX + "  update S' = exp(g) * S + k v^T\n  output y = S'^T q + abs(S'^T q)\n"))
    assert len(derived.reads) == 1


# --- any expression affine in the state --------------------------------------------------------------------------

_ONE = spec_of(MATRIX + "  update S' = S\n" + READ)
_REF = {s.name: spec.Ref(s.type, NOWHERE, s.name) for s in _ONE.symbols}
_S = spec.StateRef(_ONE.states[0].type, NOWHERE, "S", False)


def _plain(kind, type, *operands):
    return kind(type, NOWHERE, *operands)


def _transposed(x: spec.Expr) -> spec.Expr:
    return _plain(spec.Transpose, spec.Type(x.type.cols, x.type.rows), x)


def _times(x: spec.Expr, y: spec.Expr) -> spec.Expr:
    return _plain(spec.MatMul, spec.Type(x.type.rows, y.type.cols), x, y)


def affine():
    """Matrices [N, P] of degree at most one in S, as plain nodes."""
    keys, values = st.sampled_from([_REF[n] for n in ("k", "e", "w")]), st.sampled_from([_REF[n] for n in ("v", "u")])
    scalars = st.sampled_from([_REF[n] for n in ("c", "beta", "g")])
    outer = st.tuples(keys, values).map(lambda p: _times(p[0], _transposed(p[1])))

    def larger(x):
        return st.one_of(
            st.tuples(x, x).map(lambda p: spec.Add(_S.type, NOWHERE, p)),
            x.map(lambda m: _plain(spec.Neg, _S.type, m)),
            st.tuples(scalars, x).map(lambda p: _plain(spec.Mul, _S.type, *p)),
            x.map(lambda m: _plain(spec.Div, _S.type, m, _REF["dt"])),
            x.map(lambda m: _plain(spec.Mul, _S.type, _REF["W"], m)),
            st.tuples(keys, x).map(lambda p: _times(_plain(spec.Diag, _REF["A"].type, p[0]), p[1])),
            st.tuples(keys, x).map(lambda p: _plain(spec.Mul, _S.type, _times(p[0], _transposed(_REF["v"])), p[1])),
            x.map(lambda m: _times(_REF["A"], m)),
            x.map(lambda m: _times(_plain(spec.Rot, _REF["A"].type, _REF["theta"]), m)),
            st.tuples(keys, keys, x).map(lambda p: _times(p[0], _times(_transposed(p[1]), p[2]))),
            st.tuples(keys, keys, x).map(lambda p: _times(p[0], _transposed(_times(_transposed(p[2]), p[1])))),
            st.tuples(values, values, x).map(lambda p: _times(_times(p[2], p[0]), _transposed(p[1]))),
            x.map(lambda m: _transposed(_times(_plain(spec.Diag, spec.Type(_S.type.cols, _S.type.cols), _REF["b"]), _transposed(m)))),
        )

    return st.recursive(st.just(_S) | outer, larger, max_leaves=6)


@settings(max_examples=120, deadline=None)
@given(affine())
def test_normal_form_of_any_affine_expression(value):
    one = replace(_ONE, update=(spec.Assignment("S", value, NOWHERE),))
    try:
        derived = derive(one)
    except SpecError as error:
        # full weights commute with nothing but diagonals
        assert {d.slug for d in error.diagnostics} <= {"elementwise-after-product", "write-without-key"}
        return
    derived.verify()
    env = environment(one)
    np.testing.assert_allclose(ev.stepped_token(derived, env)["S"], ev.updated(one, env)["S"], rtol=1e-8, atol=1e-8)
    assert len({(t.left, t.right) for t in derived.steps[0].transitions}) == len(derived.steps[0].transitions)
