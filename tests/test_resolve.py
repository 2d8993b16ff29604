"""Resolving: every sketch has a meaning, every fault an explanation, and printing reads back as itself."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from fractions import Fraction

import pytest
from conftest import ROOT

from ssmgen import spec
from ssmgen.bounds import bounds_of
from ssmgen.diagnostics import SpecError
from ssmgen.expressions import nodes
from ssmgen.parse import parse
from ssmgen.resolve import resolve, verify_spec
from ssmgen.rules import domains, names, shapes, time
from ssmgen.source import NOWHERE, Source
from ssmgen.spec_text import expr_text, number_text, spec_text

SPECS = sorted([*(ROOT / "examples").glob("*.ssm"), *(ROOT / "tests" / "sketches").glob("*.ssm")])
RULES = [rule for group in (names, shapes, domains, time) for rule in group.RULES]


def resolved(text: str) -> spec.Specification:
    value = resolve(parse(Source("test.ssm", text)))
    verify_spec(value)
    return value


def recurrence(*lines: str, head: str = "test", dims: str = "N = 64, P = 32") -> spec.Recurrence:
    return resolved(f"recurrence {head} {{\n  dim {dims}\n  " + "\n  ".join(lines) + "\n}\n").recurrences[0]


def memory(update: str = "S' = S + k v^T", *more: str, output: str = "o = S'^T q", inputs: str = "q, k : [N]; v : [P]") -> spec.Recurrence:
    return recurrence(f"input {inputs}", *more, "state S : real [N, P]", f"update {update}", f"output {output}")


def faults(text: str) -> list[tuple[str, str]]:
    """Slug and marked text of every error."""
    source = Source("test.ssm", text)
    with pytest.raises(SpecError) as caught:
        resolve(parse(source))
    return [(d.slug, source.slice(d.primary.span)) for d in caught.value.diagnostics]


# --- whole files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_example_and_sketch_resolves(path):
    value = resolve(parse(Source(path.name, path.read_text(encoding="utf-8"))))
    verify_spec(value)
    assert all(d.slug == "unused-declaration" for d in value.warnings)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_what_is_printed_means_the_same(path):
    for first in resolve(parse(Source(path.name, path.read_text(encoding="utf-8")))).recurrences:
        text = spec_text(first)
        second = resolved(text).recurrences[0]
        assert spec_text(second) == text
        assert [s.name for s in second.symbols] == [s.name for s in first.symbols]
        assert [(s.interval, s.per, s.type) for s in second.symbols] == [(s.interval, s.per, s.type) for s in first.symbols]


def test_every_error_has_a_span_a_fact_and_an_edit():
    for path in sorted((ROOT / "tests" / "diagnostics").glob("*.ssm")):
        if path.stem not in {rule.slug for rule in RULES}:
            continue
        try:
            resolve(parse(Source(path.name, path.read_text(encoding="utf-8"))))
        except SpecError as error:
            for d in error.diagnostics:
                assert d.primary.span.end > d.primary.span.start and d.primary.text and d.help, d


def test_spoilt_text_is_explained_and_never_crashes():
    """Names exchanged and primes added anywhere: a meaning, or an error with a place and an edit."""
    chance = random.Random(0)
    word = re.compile(r"[A-Za-z_]\w*|\d+|\^T|\s+|.")
    texts = [text for path in SPECS if "layer " not in (text := path.read_text(encoding="utf-8"))]
    for _ in range(250):
        pieces = word.findall(re.sub(r"(?m)^#.*$", "", chance.choice(texts)))
        places = [i for i, piece in enumerate(pieces) if piece[0].isalpha()]
        for _ in range(chance.choice((1, 2))):
            pieces[chance.choice(places)] = pieces[chance.choice(places)] + chance.choice(("", "", "", "'"))
        try:
            tree = parse(Source("spoilt.ssm", "".join(pieces)))
        except SpecError:
            continue
        try:
            resolve(tree)
        except SpecError as error:
            assert all(d.help and d.primary.span.end > d.primary.span.start for d in error.diagnostics)


# --- types -------------------------------------------------------------------------------------------------------


def test_outer_inner_and_elementwise():
    found = memory(output="o = S'^T (k * (k . q))").outputs[0].value
    assert isinstance(found, spec.MatMul) and isinstance(found.right, spec.Mul)
    assert isinstance(found.right.right, spec.MatMul) and found.right.right.type.is_scalar


def test_a_call_of_a_name_is_a_product():
    one = memory("S' = S - k (k^T S) + k v^T")
    assert one == memory("S' = S - (k) (k^T S) + k v^T")
    assert isinstance(one.update[0].value.terms[1].operand, spec.MatMul)


def test_a_row_becomes_a_column():
    for text in ("o = q^T S'", "o = q^T S' + v"):
        assert memory(output=text).outputs[0].value.type == spec.Type(spec.Dim(terms=(("P", Fraction(1)),)))


def test_identity_takes_its_size():
    found = memory("S' = (I - k k^T) S").update[0].value
    assert found.left.type.rows == found.left.type.cols == found.type.rows


def test_scalars_broadcast():
    assert memory("S' = 0.5 * S + 1").update[0].value.type == memory().states[0].type


def test_names_may_shadow_the_imaginary_unit():
    found = memory("S' = i * S", inputs="q, k : [N]; v : [P]; i : scalar")
    assert isinstance(found.update[0].value.left, spec.Ref)


def test_complex_factors_turn_real_pairs():
    lines = ("input k, q : [N]; v : [P]; a : scalar < 0; w : [N/4]", "state S : complex [N, P], rotates first N/2 rows")
    found = recurrence(*lines, "dynamics dS/dt = (a + i * w) S + k v^T", "discretize exp_euler(0.1)", "output o = S'^T q")
    kinds = [type(node) for node in nodes(found.dynamics[0].value)]
    assert spec.Skew in kinds and found.states[0].type.field == "real"
    turned = recurrence(*lines, "update S' = exp(a + i * w) S + k v^T", "output o = S'^T q")
    rotation = next(n for n in nodes(turned.update[0].value) if isinstance(n, spec.Rot))
    assert rotation.type.rows == turned.states[0].type.rows
    scaled = recurrence(
        lines[0].replace("N/4", "N/2"),
        "state S : complex [N, P], rotates first N rows",
        "update S' = exp(w * a + i * w) S + k v^T",
        "output o = S'^T q",
    )
    assert "pairs(exp(w * a))" in spec_text(scaled)


def test_rows_and_delays():
    found = recurrence(
        "input k : [R, N]; v : [R, P]; q : [N]",
        "state S : real [N, P]",
        "update S' = S + sum r in 1..R: k[-1][r] v[r]^T",
        "output y[r] = S'^T k[r]",
        head="test(R = 2)",
    )
    assert found.counts == (("R", 2),) and found.outputs[0].index == "r"
    assert any(isinstance(n, spec.Delayed) for n in nodes(found.update[0].value))


def test_parameters_are_counts_or_constants():
    found = recurrence(
        "input k : [n, N]; v : [n, P]",
        "state S : real [N, P]",
        "update S' = c * S",
        "  for j in 1..n: S' = S' + k[j] v[j]^T",
        "output o = S'^T k[1]",
        head="test(n = 3, c = 1/2)",
    )
    assert found.counts == (("n", 3),) and found.constants == (("c", Fraction(1, 2)),)
    assert isinstance(found.update[1], spec.MicroLoop)


def test_a_build_fixes_numbers_of_rows_and_sizes_that_no_tensor_has():
    lines = "input k : [R, N]; v : [R, P]; q : [N]; w : [L]", "state S : real [N, P]; h : real [M]"
    lines += "update S' = S + sum r in 1..R: k[r] v[r]^T", "h' = 0.5 * h + norm(q)", "output o = S'^T q * norm(h') * w[3]"
    found = recurrence(*lines, dims="N = 8, R = 2, M = 4, P = 8, L = 3")
    assert (found.dims, found.counts) == ((("N", 8), ("P", 8)), (("R", 2), ("M", 4), ("L", 3)))


def test_the_entry_index_of_an_init_is_not_a_state():
    found = recurrence("input x : [N]", "param w : [N] init pi * n", "state n : real [N]", "update n' = w * n + x", "output n'")
    assert expr_text(found.symbol("w").init) == "pi * n"


def test_updates_add_up():
    found = recurrence(
        "input k : [N]; v : [P]", "state S : real [N, P]; z : real [N]", "update S' = 0.5 * S + k v^T", "update z' = z + S' v", "output z'"
    )
    assert [step.state for step in found.update] == ["S", "z"]


def test_numbers_are_folded_exactly():
    assert memory("S' = 2 * 3 / 4 * S").update[0].value.left == spec.Const(spec.Type(), NOWHERE, Fraction(3, 2))
    assert isinstance(memory("S' = 2^(65) * S").update[0].value.left, spec.Pow)


# --- symbols -----------------------------------------------------------------------------------------------------


def test_raw_is_an_input_of_the_gate():
    found = memory("S' = diag(g) S + b * k v^T", "gate g : [N] in (0, 1) = sigmoid(raw)", "gate b > 0 = softplus(raw)")
    assert found.symbol("g_raw").type == found.symbol("g").type and found.symbol("g_raw").kind == "input"
    assert [s.name for s in found.symbols] == ["q", "k", "v", "g_raw", "g", "b_raw", "b"]


def test_axes_are_inferred():
    found = recurrence(
        "input k : [N] per group; v : [P]; c : scalar per layer; q : [N]",
        "let a = k + c; b = a + q; d = 2 * c",
        "state S : real [N, P]",
        "update S' = S + (b + a + d) v^T",
        "output o = S'^T q",
    )
    assert [found.symbol(n).per for n in "abd"] == ["group", "head", "layer"]
    channels = recurrence("input x : scalar", "param w : scalar", "state h : real scalar per channel", "update h' = w * h + x", "output h'")
    assert [s.per for s in channels.symbols] == ["channel", "channel"]


def test_static_values():
    found = memory("S' = b * S + k v^T", "param a : scalar per head = 1 - 2^(-5 - head)", "let b = a * 1/2; c = b * k", output="o = S'^T c")
    assert [found.symbol(n).static for n in "abc"] == [True, True, False]
    assert str(found.symbol("a").interval) == "[0.96875, 1)"


def test_unit_is_inferred():
    found = memory("S' = S - u (u^T S) + w v^T", "let u = unit(k); w = rope(u)")
    assert found.symbol("u").flags == ("unit",) and found.symbol("w").flags == ("unit",)
    assert str(bounds_of(found).of(spec.Ref(found.symbol("u").type, NOWHERE, "u"))) == "(-1, 1)"


def test_definitions_that_read_the_state_are_put_in():
    found = memory("S' = S + k (v - seen)^T", "let seen = S^T k")
    assert [s.name for s in found.symbols] == ["q", "k", "v"]
    assert "S^T k" in spec_text(found)


def test_inputs_that_read_the_state_have_weights_of_their_own():
    found = recurrence(
        "input x : [N]",
        "state h : real [P]",
        "input r, z = W x + U h",
        "update h' = sigmoid(z) * h + (1 - sigmoid(z)) * tanh(r)",
        "output h'",
    )
    assert [s.name for s in found.symbols] == ["x", "W_r", "U_r", "W_z", "U_z"]
    assert found.recurrent_inputs == ("r", "z")
    assert [str(found.symbol(n).type) for n in ("W_r", "U_r")] == ["[P, N]", "[P, P]"]


def test_complex_parametrisation():
    found = recurrence(
        "input u : scalar per channel",
        "param A : complex [N/2] per channel = -exp(log_re) + i * im init re 1/2, im pi * n",
        "state s : complex [N/2] per channel",
        "dynamics ds/dt = A * s + u",
        "discretize zoh(0.1)",
        "output y = Re(A . s')",
    )
    assert [(s.name, s.definition is None) for s in found.symbols] == [("u", True), ("log_re", True), ("im", True), ("A", False)]
    assert expr_text(found.symbol("log_re").init) == "log(1/2)" and expr_text(found.symbol("im").init) == "pi * n"


# --- domains -----------------------------------------------------------------------------------------------------


def test_domains_are_proved():
    gates = {
        "a in (0, 1) = exp(-exp(x) * softplus(y))": "(0, 1)",
        "b in (-5, 0) = -5 * sigmoid(exp(x) * y)": "(-5, 0)",
        "c <= -1e-4 = min(-heavy_tail(x), -1e-4)": "(-inf, -0.0001]",
        "d in (0, 1) = lower + (1 - lower) * sigmoid(x)": "(0, 1)",
        "e in [0, 1] = sqrt(1 - s^2)": "(0, 1)",
        "f in (0, 1] = exp(-max(x, 0))": "(0, 1]",
        "g in (0, 2) = 2 * sigmoid(x)": "(0, 2)",
        "h in [-15, 15] = 15 * tanh(x / 15)": "(-15, 15)",
    }
    inputs = "q, k : [N]; v : [P]; x, y : scalar; lower : scalar in [0, 1); s : scalar in (0, 1)"
    for gate, expected in gates.items():
        found = memory(f"S' = {gate[0]} * S + k v^T", f"gate {gate}", inputs=inputs)
        assert str(found.symbol(gate[0]).interval) == expected, gate
    lines = (
        "input k : [N]",
        "param x : scalar",
        "gate a in (0, 1) = exp(x)",
        "state S : real [N, N]",
        "update S' = a * S",
        "output o = S'^T k",
    )
    assert faults("recurrence t {\n dim N = 4\n " + "\n ".join(lines) + "\n}") == [("domain-violation", "exp(x)")]


def test_a_constant_keeps_its_sign():
    found = recurrence(
        "input k : [N]; v : [P]; x : scalar",
        "gate g <= 0 = logsigmoid(x) / cap",
        "state S : real [N, P]",
        "update S' = exp(g) * S + k v^T",
        "output o = S'^T k",
        head="test(cap = 16)",
    )
    assert str(found.symbol("g").interval) == "(-inf, 0)"


# --- the declaration notation --------------------------------------------------------------------------------------

DECAYS = ("identity", "static", "scalar", "diagonal", "elementwise", "dense")
CORRECTIONS = ("", ", delta", ", delta(order = read_first)", ", low_rank")


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_declared_structures_are_written_out(decay, correction):
    for more in (
        "",
        "write rank R",
        "write steps R",
        "taps 2",
        "field complex angles data",
        "field complex angles static shared",
        "readout normalised",
        "normaliser max",
        "readout before",
        "readout bonus",
        "mimo R",
        "time reversed",
    ):
        if decay == "elementwise" and ("complex" in more or "normalise" in more):
            continue
        found = recurrence(f"transition {decay}{correction}", more, dims="N = 8, P = 4, R = 2")
        assert found.update and found.outputs and ("S" in {s.name for s in found.states})
        axes = {axis: value for axis, value, _ in found.declared.axes}
        assert axes["decay"] == ("none" if decay == "identity" else decay)
        again = resolved(spec_text(replace(found, time="causal"))).recurrences[0]
        assert again.update == found.update


def test_claims_beside_an_equation_are_kept():
    found = memory("S' = 0.9 * S + k v^T", "transition static", "taps 1")
    assert [(axis, value) for axis, value, _ in found.declared.axes] == [("decay", "static"), ("taps", "current")]


def test_mimo_widens_an_equation():
    found = recurrence(
        "input B, C : [N]; x : [P]",
        "state S : real [N, P]",
        "update S' = 0.9 * S + B x^T",
        "mimo R",
        "output y = S'^T C + x",
        dims="N = 8, P = 4, R = 2",
    )
    assert expr_text(found.update[0].value) == "0.9 * S + sum r in 1..R: B[r] (mix_x[r] * x)^T"
    assert expr_text(found.outputs[0].value) == "S'^T C[r] + x" and found.outputs[0].index == "r"
    assert str(found.symbol("B").type) == "[R, N]"


# --- printing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "exp(a) * (S - a * k (k^T S)) + a * k v^T",
        "(I - a * k k^T) (exp(a) * S) + a * k v^T",
        "diag(w)^T (S - k (v - S^T k)^T)",
        "S - (a - b) * S - (S - a * S)",
        "a * -b * S",
        "(a * b)^2 * S / (1 + a^b)",
        "a^-1/2 * b^(1/3) * S",
        "(S^T)^T * (a / b) / (a / b)",
        "S + sum r in 1..2: m[r] (v * a)^T",
        "a / b * S - 1e-4 * S + 0.125 * S",
        "-a * S + -(a + b) * S",
        "-(a * b) * S - (a * b) * S",
    ],
)
def test_printing_needs_no_more_parentheses_than_it_takes(text):
    inputs = "q, k, w : [N]; v : [P]; a, b : scalar > 0; m : [2, N]"
    one = memory(f"S' = {text}", inputs=inputs).update[0].value
    printed = expr_text(one)
    assert memory(f"S' = {printed}", inputs=inputs).update[0].value == one
    assert printed.count("(") <= text.count("(")


def test_numbers():
    shown = {
        "1/2": "1/2",
        "3": "3",
        "1e-4": "1e-4",
        "0.6065306597": "0.6065306597",
        "1/10": "0.1",
        "-5": "-5",
        "1/3": "1/3",
        "1/12345": "1/12345",
    }
    for written, expected in shown.items():
        assert number_text(Fraction(written)) == expected
