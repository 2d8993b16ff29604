"""The reference and the operator against loops written straight from the papers, in float64."""

from __future__ import annotations

import pytest
from built import example, write
from conftest import ROOT

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from oracles import hnet_ema, lightning, linear_attention, mamba2, mamba3, mlstm, mlstm_sigmoid, rank_one, retnet, simple_gla  # noqa: E402

from ssmgen.runtime.load import load  # noqa: E402

B, T, H, N, P = 2, 21, 3, 6, 5
FORMS = ("reference", "op")


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Packages by name, each built once."""
    folder, packages = tmp_path_factory.mktemp("papers"), {}

    def get(name):
        if name not in packages:
            packages[name] = example(name, folder)[0]
        return packages[name]

    return get


@pytest.fixture(params=FORMS)
def run(request, built):
    """Calls an example's reference, or its operator with chunks that do not divide the length."""

    def call(name, *arguments, **keywords):
        package = built(name)
        if "initial_state" in keywords:
            keywords["initial_state"] = package.State(*keywords["initial_state"])
        if request.param == "reference":
            return getattr(package, f"{name}_reference")(*arguments, **keywords)
        return getattr(package, name)(*arguments, **keywords, chunk=8)

    return call


def close(output, expected):
    actual = (output.y, *output.final_state)[: len(expected)]
    torch.testing.assert_close(actual, tuple(expected), rtol=1e-10, atol=1e-10)


def test_linear_attention(run):
    q, k, v, S = randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P), randn(B, H, N, P)
    close(run("linear_attention", q, k, v), linear_attention.plain(q, k, v))
    close(run("linear_attention", q, k, v, initial_state=(S,)), linear_attention.plain(q, k, v, S))


def test_normalised_linear_attention(run):
    q, k, v = randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P)
    state = randn(B, H, N, P), randn(B, H, N).abs()
    close(run("linear_attention_normalised", q, k, v), linear_attention.normalised(q, k, v))
    expected = linear_attention.normalised(q, k, v, state)
    close(run("linear_attention_normalised", q, k, v, initial_state=state), expected)


def test_retnet(run):
    q, k, v, S = randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P), randn(B, H, N, P)
    position = torch.tensor([4, 11])
    close(run("retnet", q, k, v), retnet.retnet(q, k, v))
    output = run("retnet", q, k, v, initial_state=(S, position))
    close(output, retnet.retnet(q, k, v, S, position))
    assert output.final_state.position.tolist() == [4 + T, 11 + T]


def test_lightning(run):
    q, k, v, S = randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P), randn(B, H, N, P)
    for layer in (0, 3):
        close(run("lightning", q, k, v, layer=layer, layers=8), lightning.lightning(q, k, v, layer, 8))
    close(run("lightning", q, k, v, initial_state=(S,)), lightning.lightning(q, k, v, 0, 2, S))


def test_simple_gla(run):
    q, k, v, raw, S = randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P), 5 * randn(B, T, H), randn(B, H, N, P)
    close(run("simple_gla", q, k, v, raw), simple_gla.simple_gla(q, k, v, raw))
    close(run("simple_gla", q, k, v, raw, initial_state=(S,)), simple_gla.simple_gla(q, k, v, raw, S))


def test_mamba2(run):
    key, query, x, raw, S = randn(B, T, 2, N), randn(B, T, 2, N), randn(B, T, 4, P), randn(B, T, 4), randn(B, 4, N, P)
    params = randn(4), randn(4), randn(4)
    close(run("mamba2", key, query, x, raw, *params), mamba2.mamba2(key, query, x, raw, *params))
    expected = mamba2.mamba2(key, query, x, raw, *params, S)
    close(run("mamba2", key, query, x, raw, *params, initial_state=(S,)), expected)


def test_hnet_ema(run):
    x, p, z = randn(B, T, H, P), torch.rand(B, T, H, dtype=torch.float64), randn(B, H, P)
    p[0, 0], p[0, 1] = 0, 1
    close(run("hnet_ema", x, p), hnet_ema.hnet_ema(x, p))
    close(run("hnet_ema", x, p, initial_state=(z,)), hnet_ema.hnet_ema(x, p, z))


def test_mlstm_sigmoid(run):
    q, k, v, i, f = 3 * randn(B, T, H, N), 3 * randn(B, T, H, N), randn(B, T, H, P), randn(B, T, H), randn(B, T, H)
    state = randn(B, H, N, P), randn(B, H, N)
    close(run("mlstm_sigmoid", q, k, v, i, f), mlstm_sigmoid.mlstm_sigmoid(q, k, v, i, f))
    expected = mlstm_sigmoid.mlstm_sigmoid(q, k, v, i, f, state)
    close(run("mlstm_sigmoid", q, k, v, i, f, initial_state=state), expected)


def test_mlstm(run):
    """The maximum cancels: what is stored is C e^-m and n e^-m, and gradients are those of sums that no maximum stabilised."""
    q, k, v, i, f = 3 * randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P), 3 * randn(B, T, H), 2 * randn(B, T, H)
    state = randn(B, H, N, P), randn(B, H, N), randn(B, H)
    for start in (None, state):
        given = [x.requires_grad_() for x in (q, k, v, i, f)] + [x.requires_grad_() for x in start or ()]
        output = run("mlstm", *given[:5], **({} if start is None else {"initial_state": given[5:]}))
        C, n, m = output.final_state
        found = output.y, C * torch.exp(m)[..., None, None], n * torch.exp(m)[..., None]
        expected = mlstm.mlstm(*given[:5], given[5:] or None)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        weights = [randn(*x.shape) for x in expected]
        sums = [sum((x * w).sum() for x, w in zip(parts, weights, strict=True)) for parts in (found, expected)]
        torch.testing.assert_close(*(torch.autograd.grad(total, given) for total in sums), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_mlstm_of_any_gate(run, shift):
    """Gates of which no exponential exists in float32: the maximum holds what they add up to, and what is far below 1 is 0."""
    q, k, v, i, f = 3 * randn(B, T, H, N), 9 * randn(B, T, H, N), randn(B, T, H, P), 20 * randn(B, T, H), 50 * randn(B, T, H)
    narrow = [x.float().requires_grad_() for x in (q, k, v, i + shift, f)]
    output = run("mlstm", *narrow)
    assert all(torch.isfinite(x).all() for x in (output.y, *output.final_state, *torch.autograd.grad(output.y.sum(), narrow)))
    if shift > 0:
        wanted = mlstm.mlstm(*(x.detach().double() for x in narrow))[0]
        assert (output.y.double() - wanted).norm() < 1e-4 * wanted.norm()
    else:
        assert output.y.abs().max() < 1e-20


def test_titans(run):
    """A memory and its momentum: values and gradients, from states of their own, with gates that forget all and nothing."""
    q, k, v = randn(B, T, H, N), randn(B, T, H, N), randn(B, T, H, P)
    for strength in (1, 60):
        gates = [strength * randn(B, T, H) for _ in range(3)]
        given = [x.requires_grad_() for x in (q, k, v, *gates, randn(B, H, N, P), randn(B, H, N, P))]
        output = run("titans", *given[:6], initial_state=given[6:])
        found, expected = (output.y, *output.final_state), rank_one.titans(*given)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        weights = [randn(*x.shape) for x in expected]
        sums = [sum((x * w).sum() for x, w in zip(parts, weights, strict=True)) for parts in (found, expected)]
        torch.testing.assert_close(*(torch.autograd.grad(total, given) for total in sums), rtol=1e-9, atol=1e-9)


def mamba3_values(*rows):
    """Inputs and params, of one row or of several; gates that reach both branches of the heavy tail."""
    heads, groups, n = 4, 2, 8
    keys = randn(B, T, groups, *rows, n), randn(B, T, groups, *rows, n)
    gates = randn(B, T, heads), 3 * randn(B, T, heads), randn(B, T, heads), randn(B, T, groups, n // 4)
    biases = randn(heads, *rows, n), randn(heads, *rows, n)
    return (
        keys,
        gates,
        biases,
        [randn(B, T, heads, P) for _ in range(2)],
        [randn(heads, *rows, P) for _ in range(3)],
        randn(heads),
        randn(heads),
    )


def same(output, expected, leaves):
    """Output, the state that no frame turns, and every gradient of both."""
    actual = output.y, output.final_state.S
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weights = [randn(*x.shape) for x in expected]
    found, wanted = ([x for x in torch.autograd.grad(each, leaves, weights)] for each in (actual, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_mamba3(run):
    (key, query), gates, biases, (x, _), _, D, dt_bias = mamba3_values()
    leaves = [each.requires_grad_() for each in (key, query, x, *gates, *biases, D, dt_bias)]
    same(run("mamba3", *leaves), mamba3.mamba3(*leaves), leaves)
    state = randn(B, 4, 8, P), torch.zeros(B, 4, P, dtype=torch.float64), torch.zeros(B, 4, 8, dtype=torch.float64)
    same(run("mamba3", *leaves, initial_state=state), mamba3.mamba3(*leaves, S=state[0]), leaves)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["mamba3", "mamba3_mimo"])
def test_mamba3_of_the_first_release(name, form, tmp_path):
    """A = -softplus(A_raw), chosen by the spec's one line: checkpoints of either activation have their own. Gates that reach the
    cap at -1e-4 where the one activation is there and the other is not, and what is far from 0, where they differ most."""
    text = (ROOT / "examples" / f"{name}.ssm").read_text(encoding="utf-8")
    assert text.count("-heavy_tail(A_raw)") == 1
    package, spec = write(text.replace("-heavy_tail(A_raw)", "-softplus(A_raw)"), tmp_path)
    assert "A" in {symbol.name for symbol in spec.symbols}
    made, rows = load(package), (4,) if name == "mamba3_mimo" else ()
    (key, query), gates, biases, (x, z), (mx, mo, mz), D, dt_bias = mamba3_values(*rows)
    gates[1].mul_(4)
    mixes = (mx, mo, mz) if rows else ()
    leaves = [each.requires_grad_() for each in (key, query, x, *((z,) if rows else ()), *gates, *biases, *mixes, D, dt_bias)]
    more = dict(rows=4, z=z, mx=mx, mo=mo, mz=mz) if rows else {}
    given = key, query, x, *gates, *biases, D, dt_bias
    softly, heavily = (mamba3.mamba3(*given, **more, activation=each) for each in (F.softplus, mamba3.heavy_tail))
    capped = -F.softplus(gates[1]) > -1e-4
    assert capped.any() and not capped.all() and (softly[0] - heavily[0]).norm() > 1e-2 * heavily[0].norm()
    output = getattr(made, f"{name}_reference")(*leaves) if form == "reference" else getattr(made, name)(*leaves, chunk=8)
    same(output, softly, leaves)


def test_mamba3_of_several_rows(run):
    (key, query), gates, biases, (x, z), (mx, mo, mz), D, dt_bias = mamba3_values(4)
    leaves = [each.requires_grad_() for each in (key, query, x, z, *gates, *biases, mx, mo, mz, D, dt_bias)]
    expected = mamba3.mamba3(key, query, x, *gates, *biases, D, dt_bias, rows=4, z=z, mx=mx, mo=mo, mz=mz)
    same(run("mamba3_mimo", *leaves), expected, leaves)
