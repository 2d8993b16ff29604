"""The second oracle against closed forms, on specs built by hand: it needs nothing of the compiler but the spec."""

from __future__ import annotations

import pytest
from specs import (
    SCALAR,
    add,
    after,
    apply,
    assign,
    before,
    column,
    matmul,
    matrix,
    mul,
    neg,
    number,
    recurrence,
    ref,
    state,
    symbol,
    transposed,
)

from ssmgen import spec
from ssmgen.runtime.interpret import interpret
from ssmgen.source import NOWHERE

torch = pytest.importorskip("torch")


def draw(*shape: int):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def scalar_recurrence(value, *symbols, **more):
    h = state("h")
    return recurrence("scalar", symbols, [h], [assign(h, value(before(h)))] if value else (), output=after(h), **more)


def test_a_running_sum():
    x = symbol("x")
    spec_ = scalar_recurrence(lambda h: add(h, ref(x)), x)
    values = draw(2, 9, 3)
    result = interpret(spec_, {"x": values}, initial_state={"h": torch.ones(2, 3)})
    torch.testing.assert_close(result.y, 1 + values.cumsum(1))
    torch.testing.assert_close(result.final_state["h"], 1 + values.sum(1))


def test_a_running_sum_from_the_right():
    x = symbol("x")
    values = draw(2, 9, 3)
    result = interpret(scalar_recurrence(lambda h: add(h, ref(x)), x, time="reversed"), {"x": values})
    torch.testing.assert_close(result.y, values.flip(1).cumsum(1).flip(1))


def test_a_geometric_series():
    x, a = symbol("x"), symbol("a", kind="param")
    values, ratio = torch.ones(1, 12, 2, dtype=torch.float64), torch.tensor([0.5, -0.9], dtype=torch.float64)
    result = interpret(scalar_recurrence(lambda h: add(mul(ref(a), h), ref(x)), x, a), {"x": values, "a": ratio})
    steps = torch.arange(1, 13, dtype=torch.float64)[:, None]
    torch.testing.assert_close(result.y[0], (1 - ratio**steps) / (1 - ratio))


def test_documents_start_afresh():
    x = symbol("x")
    values = draw(1, 6, 1)
    spec_ = scalar_recurrence(lambda h: add(h, ref(x)), x)
    result = interpret(spec_, {"x": values}, cu_seqlens=torch.tensor([0, 2, 6]))
    expected = torch.cat([values[:, :2].cumsum(1), values[:, 2:].cumsum(1)], dim=1)
    torch.testing.assert_close(result.y, expected)
    torch.testing.assert_close(result.final_state["h"], torch.stack([expected[0, 1], expected[0, 5]]))


def test_a_delayed_value_is_zero_before_the_first_token():
    x = symbol("x")
    spec_ = scalar_recurrence(lambda h: add(ref(x), spec.Delayed(SCALAR, NOWHERE, "x")), x)
    values = draw(1, 5, 1)
    result = interpret(spec_, {"x": values})
    torch.testing.assert_close(result.y[:, 1:], values[:, 1:] + values[:, :-1])
    torch.testing.assert_close(result.y[:, 0], values[:, 0])
    again = interpret(spec_, {"x": values}, initial_state=result.final_state)
    torch.testing.assert_close(again.y[:, 0], values[:, 0] + values[:, -1])


@pytest.mark.parametrize(
    ("method", "factor", "weight"),
    [
        ("euler", lambda z: 1 - z, lambda z: z),
        ("exp_euler", lambda z: torch.exp(-z), lambda z: z),
        ("zoh", lambda z: torch.exp(-z), lambda z: 1 - torch.exp(-z)),
        ("bilinear", lambda z: (1 - z / 2) / (1 + z / 2), lambda z: z / (1 + z / 2)),
    ],
)
def test_a_leaky_integrator(method, factor, weight):
    """dh/dt = x - h with a constant input: h_t = factor^t h_0 + weight (1 - factor^t) / (1 - factor)."""
    x, dt = symbol("x"), symbol("dt")
    h = state("h")
    rate = spec.Dynamics("h", add(ref(x), neg(before(h))), NOWHERE)
    step = spec.Discretization(method, (ref(dt),), NOWHERE)
    spec_ = recurrence("leaky", [x, dt], [h], dynamics=(rate,), discretization=step, output=after(h))
    z = torch.tensor(0.3, dtype=torch.float64)
    values = {"x": torch.ones(1, 7, 1), "dt": torch.full((1, 7, 1), 0.3, dtype=torch.float64)}
    result = interpret(spec_, values, initial_state={"h": torch.full((1, 1), 2.0)})
    t = torch.arange(1, 8, dtype=torch.float64)
    f, w = factor(z), weight(z)
    torch.testing.assert_close(result.y[0, :, 0], 2 * f**t + w * (1 - f**t) / (1 - f))


def test_the_trapezoid_of_two_taps():
    """h_t = a (h + (1 - lam) dt x_{t-1}) + lam dt x_t, with no write before the first token."""
    x = symbol("x")
    h = state("h")
    rate = spec.Dynamics("h", add(neg(before(h)), ref(x)), NOWHERE, before=spec.Delayed(x.type, NOWHERE, "x"))
    step = spec.Discretization("exp_trapezoid", (number("1/10"), number("1/4")), NOWHERE)
    spec_ = recurrence("trapezoid", [x], [h], dynamics=(rate,), discretization=step, output=after(h))
    values = draw(1, 6, 1)
    a, expected, total = torch.exp(torch.tensor(-0.1, dtype=torch.float64)), [], 0.0
    for t in range(6):
        total = a * (total + (0.075 * values[0, t - 1, 0] if t else 0.0)) + 0.025 * values[0, t, 0]
        expected.append(total)
    torch.testing.assert_close(interpret(spec_, {"x": values}).y[0, :, 0], torch.stack(expected))


def test_a_matrix_state_is_a_sum_of_outer_products():
    q, k, v = symbol("q", column("N")), symbol("k", column("N")), symbol("v", column("P"))
    s = state("S", matrix("N", "P"))
    write = matmul(ref(k), transposed(ref(v)))
    spec_ = recurrence("linear", [q, k, v], [s], [assign(s, add(before(s), write))], output=matmul(transposed(after(s)), ref(q)))
    values = {"q": draw(2, 5, 3, 4), "k": draw(2, 5, 3, 4), "v": draw(2, 5, 3, 2)}
    scores = torch.einsum("bthn,bshn->bhts", values["q"], values["k"]).tril()
    result = interpret(spec_, values)
    torch.testing.assert_close(result.y, torch.einsum("bhts,bshp->bthp", scores, values["v"]))
    torch.testing.assert_close(result.final_state["S"], torch.einsum("bthn,bthp->bhnp", values["k"], values["v"]))


def test_groups_are_blocks_of_heads():
    x = symbol("x", per="group")
    h = state("h")
    d = symbol("D", kind="param")
    spec_ = recurrence("grouped", [x, d], [h], [assign(h, add(before(h), ref(x)))], output=mul(ref(d), after(h)))
    values = draw(1, 4, 2)
    result = interpret(spec_, {"x": values, "D": torch.ones(6)})
    torch.testing.assert_close(result.y, values.cumsum(1).repeat_interleave(3, dim=2))


def test_rope_turns_pairs_half_a_width_apart():
    x = symbol("x", column("N"))
    s = state("s", column("N"))
    spec_ = recurrence("turn", [x], [s], [assign(s, apply("rope", ref(x)))], output=after(s))
    values = draw(1, 3, 1, 4)
    y = interpret(spec_, {"x": values}).y[0, :, 0]
    for t in range(3):
        for j, rate in enumerate((1.0, 0.01)):
            angle = torch.tensor(t * rate, dtype=torch.float64)
            turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
            torch.testing.assert_close(y[t, [j, j + 2]], turn @ values[0, t, 0, [j, j + 2]])
