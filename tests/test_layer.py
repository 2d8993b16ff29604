"""Layers and stacks: widths found by unification, sizes, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
from conftest import ROOT

from ssmgen import layer_spec
from ssmgen.diagnostics import SpecError
from ssmgen.module import module_file, render_module
from ssmgen.parse import parse
from ssmgen.resolve import resolve, sizes
from ssmgen.resolve.sizes import constant, named, product
from ssmgen.source import Source

RETENTION = """
recurrence retention {
  dim    N = 64, P = 128
  input  q, k : [N] per group; v : [P]; b : scalar
  param  gamma : scalar per head = 1 - 2^(-5 - head)
  state  S : real [N, P]
  update S' = gamma * S + b * k v^T
  output o = S'^T q
}
"""

CHANNELS = """
recurrence average {
  dim    N = 16
  input  x : scalar per channel; f : scalar per channel in (0, 1); C : [N] per layer
  state  h : real [N] per channel
  update h' = f * h + x * C
  output y = C . h'
}
"""


def layer(body: str, recurrence: str = RETENTION, head: str = "layer block(d_model)") -> layer_spec.Layer:
    specification = resolve(parse(Source("layer.ssm", f"{recurrence}\n{head} {{\n{body}\n}}\n")))
    return specification.layers[0]


def widths(resolved: layer_spec.Layer) -> dict[str, str]:
    """The last width of every name, as text."""
    found = {}
    for statement in resolved.statements:
        found |= {name: str(width) for name, width in zip(statement.names, statement.value.widths, strict=True)}
    return found


def faults(body: str, recurrence: str = RETENTION, head: str = "layer block(d_model)") -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        layer(body, recurrence, head)
    return [(d.slug, d.title) for d in caught.value.diagnostics]


CALL = "o = retention(q, k, v, b)"


# --- widths ------------------------------------------------------------------------------------------------------


def test_inputs_of_the_recurrence_decide():
    resolved = layer(f"heads H = d_model / P\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o)")
    assert widths(resolved) == {"q": "[G, N]", "k": "[G, N]", "v": "[H, P]", "b": "[H]", "o": "[H, P]", "out": "[d_model]"}


@pytest.mark.parametrize("gated", ["o * silu(z)", "silu(z) * o", "o + z / 2", "-z * o", "rmsnorm(o, per head) * sigmoid(z)", "max(o, z)"])
def test_a_gate_has_the_width_of_what_it_gates(gated):
    resolved = layer(f"heads H = d_model / P\nq, k, v, b, z = linear(u)\n{CALL}\nout = linear({gated})")
    assert widths(resolved)["z"] == "[H, P]"


def test_a_scalar_per_head_meets_a_column_per_head():
    resolved = layer(f"heads H = d_model / P\nq, k, w, b = linear(u)\nv = w * b\n{CALL}\nout = linear(o * b)")
    assert widths(resolved)["w"] == "[H, P]" and widths(resolved)["b"] == "[H]"


def test_two_unknown_factors_take_the_width_of_their_product():
    resolved = layer(f"heads H = d_model / P\nq, k, w, g, b = linear(u)\nv = w * sigmoid(g)\n{CALL}\nout = linear(o)")
    assert widths(resolved)["w"] == widths(resolved)["g"] == "[H, P]"


def test_the_result_has_the_models_width():
    resolved = layer(f"heads H = d_model / P\nq, k, v, b = linear(u)\n{CALL}\nh = linear(o)\nout = u + h")
    assert widths(resolved)["h"] == "[d_model]"


def test_equal_numbers_of_channels_are_one_width():
    body = f"heads H = expand * d_model / P\nx = linear(u, width = expand * d_model)\nq, k, v, b = linear(x)\n{CALL}\nout = linear(o + x)"
    assert widths(layer(body, head="layer block(d_model, expand = 2)"))["x"] == "[d_model * expand]"


def test_convolution_and_shift_keep_widths():
    resolved = layer(
        f"heads H = d_model / P\ns = u - u[-1]\nq, k, v, b = linear(s)\nq, k = silu(conv(4))\nv = conv(v, 3)\n{CALL}\nout = linear(o)"
    )
    assert widths(resolved)["s"] == "[d_model]"
    assert [s.value.operands[0].taps for s in resolved.statements if s.names == ("q", "k")] == [4]


def test_values_per_channel_and_per_layer():
    resolved = layer("heads E = 2 * d_model\nx, f, C = linear(u)\ny = average(x, sigmoid(f), C)\nout = linear(y)", CHANNELS)
    assert widths(resolved) == {"x": "[C]", "f": "[C]", "C": "[N]", "y": "[C]", "out": "[d_model]"}


def test_a_name_may_be_given_again():
    resolved = layer(f"heads H = d_model / P\nq, k, v, b = linear(u)\nb = 2 * sigmoid(b)\n{CALL}\nout = linear(o)")
    assert widths(resolved)["b"] == "[H]"


# --- sizes -------------------------------------------------------------------------------------------------------


def test_sizes_cancel():
    size = product(named("H"), named("P"))
    heads = product(named("expand"), named("d_model"), sizes.inverse(named("P")))
    assert sizes.substitute(size, {"H": heads}) == product(named("d_model"), named("expand"))
    assert sizes.inverse(layer_spec.Size()) is None
    assert str(product(constant(Fraction(8, 3)), named("d_model"))) == "8 * d_model / 3"


def test_dims_may_be_overridden():
    resolved = layer(f"heads H = 4\ndim N = d_model / (2 H), P = d_model / H\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o)")
    assert resolved.dims == ()
    assert [(name, str(size)) for name, size in resolved.sizes] == [("H", "4"), ("N", "d_model / 2 / H"), ("P", "d_model / H")]


def test_groups_and_arguments():
    body = f"heads H = expand * d_model / P, groups g\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o)"
    resolved = layer(body, head="layer block(d_model = 512, expand = 2, g = 4)")
    assert resolved.params == (("d_model", 512), ("expand", 2), ("g", 4))
    assert resolved.groups == named("g") and resolved.count == "H"
    text = render_module(*_with_layers(body, "layer block(d_model = 512, expand = 2, g = 4)"))
    assert "def __init__(self, d_model=512, expand=2, g=4, N=64, P=128, *, device=None, dtype=None):" in text
    assert "self.retention = Retention(heads, groups=g, N=N, P=P)" in text


def _with_layers(body: str, head: str):
    specification = resolve(parse(Source("layer.ssm", f"{RETENTION}\n{head} {{\n{body}\n}}\n")))
    return specification.recurrences[0], specification.layers


# --- what is refused ---------------------------------------------------------------------------------------------

FAULTS = {
    "undefined": (f"heads H = d_model / P\nq, k, v = linear(u)\n{CALL}\nout = linear(o)", "undefined-layer-value"),
    "shift of nothing": (f"heads H = d_model / P\nq, k, v, b = linear(x[-1])\n{CALL}\nout = linear(o)", "undefined-layer-value"),
    "shift by two": (f"heads H = d_model / P\nq, k, v, b = linear(u[-2])\n{CALL}\nout = linear(o)", "layer-option"),
    "too few": ("heads H = d_model / P\nq, k, v = linear(u)\no = retention(q, k, v)\nout = linear(o)", "recurrence-input-count"),
    "two results": (f"heads H = d_model / P\nq, k, v, b = linear(u)\no, s = {CALL[4:]}\nout = linear(o + s)", "recurrence-input-count"),
    "no heads": (f"q, k, v, b = linear(u)\n{CALL}\nout = linear(o)", "layer-without-heads"),
    "mismatch": (f"heads H = d_model / P\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o * k)", "layer-shape-mismatch"),
    "wrong input": (
        "heads H = d_model / P\nq, k, v, b = linear(u)\no = retention(u, k, v, b)\nout = linear(o + q)",
        "layer-shape-mismatch",
    ),
    "result": (f"heads H = 2 * d_model / P\nq, k, v, b = linear(u)\n{CALL}", "layer-shape-mismatch"),
    "per head of no heads": (
        f"heads H = d_model / P\nq, k, v, b = linear(rmsnorm(u, per head))\n{CALL}\nout = linear(o)",
        "layer-shape-mismatch",
    ),
    "unknown width": (f"heads H = d_model / P\nq, k, v, b, z = linear(u)\n{CALL}\nout = linear(o) * linear(z)", "cannot-infer-width"),
    "matrix product": (f"heads H = d_model / P\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o o)", "unknown-layer-operation"),
    "one tap": (f"heads H = d_model / P\nq, k, v, b = linear(u)\nq = conv(1)\n{CALL}\nout = linear(o)", "layer-option"),
    "half a tap": (f"heads H = d_model / P\nq, k, v, b = linear(u)\nq = conv(5/2)\n{CALL}\nout = linear(o)", "layer-option"),
    "shared norm": (f"heads H = d_model / P\nq, k, v, b = linear(u)\nq, k = rmsnorm(linear(u))\n{CALL}\nout = linear(o)", "layer-option"),
    "bias": (f"heads H = d_model / P\nq, k, v, b = linear(u, bias = 2)\n{CALL}\nout = linear(o)", "layer-option"),
    "fixed param": (f"param s : scalar = 2\nheads H = d_model / P\nq, k, v, b = linear(u)\n{CALL}\nout = s * linear(o)", "layer-option"),
    "divides by a sum": (f"heads H = d_model / (P + N)\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o)", "layer-size"),
    "nothing": ("heads H = 4", "layer-output"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name):
    body, slug = FAULTS[name]
    found = faults(body)
    assert found[0][0] == slug, found
    assert {s for s, _ in found} == {slug}, found


def test_domains_of_inputs_are_proved():
    body = "heads E = d_model\nx, f, C = linear(u)\ny = average(x, {}, C)\nout = linear(y)"
    assert [s for s, _ in faults(body.format("2 * sigmoid(f)"), CHANNELS)] == ["input-domain"]
    for inside in ("sigmoid(f)", "sigmoid(f) / 2", "exp(-softplus(f))", "(1 + tanh(f)) / 2"):
        assert layer(body.format(inside), CHANNELS)


def test_a_layer_over_attention_resolves_and_is_not_emitted_here():
    text = (ROOT / "tests" / "sketches" / "kimi_like.ssm").read_text(encoding="utf-8")
    specification = resolve(parse(Source("kimi_like.ssm", text)))
    assert [found.callees for found in specification.layers] == [("kda",), ("causal",)]
    (stack,) = specification.stacks
    assert stack.pattern == ((3, "kda_block", ()), (1, "mla_block", (("rope", "none"),)))
    assert stack.clauses == (("head", "tied"),)


def test_nothing_unused_is_emitted():
    recurrence, layers = _with_layers(f"heads H = d_model / P\nq, k, v, b = linear(u)\n{CALL}\nout = linear(o)", "layer block(d_model)")
    text = render_module(recurrence, layers)
    for absent in ("_causal_conv", "_shift", "_unit", "BlockRMSNorm", "import math", "functional", "reset_parameters"):
        assert absent not in text, absent
    assert module_file(recurrence, ()).layers == ()
    assert "NamedTuple" not in render_module(recurrence, ())
