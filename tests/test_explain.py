"""What `explain` says: numbers held against counts made here, every section in its place, no value printed raw."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from fractions import Fraction
from time import perf_counter

import pytest
from conftest import ROOT

from ssmgen import compiler, explain
from ssmgen.intervals import Interval
from ssmgen.kernel import Contract, Faded, Solve, Through, operands
from ssmgen.lower import lower
from ssmgen.plan import widths
from ssmgen.rules import RULES
from ssmgen.schedule import schedule
from ssmgen.source import Source
from ssmgen.stability import half_life, judgement, stability

EXAMPLES = sorted((ROOT / "examples").glob("*.ssm"))
CHUNKED = [
    path
    for path in EXAMPLES
    if "per channel" not in path.read_text(encoding="utf-8") and path.stem not in ("linoss", "linoss_im", "lru", "s5", "pd_ssm")
]
SKETCHES = sorted((ROOT / "tests" / "sketches").glob("*.ssm"))
RAW = re.compile(r"\w+\(\w+=|object at 0x|Fraction\(|<ssmgen|\bNone\b|\bTrue\b|\bFalse\b")

SECTIONS = (
    "what a token does", "discretized", "structure", "ranges proved", "stability",
    "chunk form", "adjoint", "backward", "how it runs", "cost",
)  # fmt: skip


def source(path) -> Source:
    return Source(path.name, path.read_text(encoding="utf-8"))


def example(name: str) -> Source:
    return source(ROOT / "examples" / f"{name}.ssm")


def sketch(name: str) -> Source:
    return source(ROOT / "tests" / "sketches" / f"{name}.ssm")


def section(text: str, name: str) -> str:
    """The lines under the head `name`, spaces run together."""
    lines = text.split("\n")
    start = lines.index(name)
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(" ".join(line.split()) for line in lines[start + 1 : end])


def classified(text: Source, name: str | None = None):
    found = compiler.check(text).after("classify")
    return found[name or next(iter(found))]


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*EXAMPLES, *SKETCHES], ids=lambda p: p.stem)
def test_everything_is_explained(path):
    text, _ = explain.summary(source(path), {})
    assert RAW.findall(text) == [] and max(map(len, text.split("\n"))) < 400
    assert all(line == line.rstrip() for line in text.split("\n"))
    for name, found in compiler.check(source(path)).after("classify").items():
        assert f"recurrence {name}" in text
        assert all(
            f"no package for `{name}`: axis {a.axis} is" in text for a in found.axes if not a.is_lowered and not found.recurrence.sequential
        )
    heads = [line for line in text.split("\n") if line in SECTIONS]
    assert heads[: len(set(heads))] == [s for s in SECTIONS if s in heads]


@pytest.mark.parametrize("name", compiler.PASSES)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_intermediate_value_is_text(path, name):
    text, _ = explain.after(source(path), name, {})
    assert text and RAW.findall(text) == []


@pytest.mark.parametrize("name", ("parse", "resolve", "derive", "classify"))
@pytest.mark.parametrize("path", SKETCHES, ids=lambda p: p.stem)
def test_every_early_value_of_a_sketch_is_text(path, name):
    text, _ = explain.after(source(path), name, {})
    assert RAW.findall(text) == []


def test_what_was_parsed_parses_again():
    text, _ = explain.after(example("mamba2"), "parse", {})
    again, _ = explain.after(Source("mamba2.ssm", text.split("\n", 1)[1]), "parse", {})
    assert again == text


def test_a_rule_has_its_four_heads():
    for rule in RULES.values():
        text = explain.rule(rule)
        assert text.startswith(f"{rule.slug}: ") and all(f"\n{head}\n" in text for head in ("what", "why", "example", "instead"))


def test_a_data_decay_discretized():
    text, warnings = explain.summary(example("mamba2"), {})
    assert warnings == ()
    assert "S' = exp(-(dt * exp(A_log))) * S + dt * B x^T" in section(text, "what a token does")
    assert section(text, "discretized").startswith("method exp_euler\norder 1 for a smooth input, 1 for one held")
    assert section(text, "ranges proved") == "dt in (0, inf) declared in (0, inf)"
    assert "S |a| in (0, 1); contraction: |a| < 1 at every token" in section(text, "stability")
    assert "half-life (0, inf) tokens; [0.433, 693] tokens at the initial parameters" in section(text, "stability")
    assert "M_ij = exp(G_i - G_j), j <= i" in section(text, "chunk form") and "k: dt * B" in section(text, "chunk form")
    assert "dC_t = S_t dr0_t" in section(text, "adjoint") and section(text, "backward").startswith("dq, dk, dv, dg: ")
    assert "chunk, 64 tokens" in section(text, "how it runs")
    assert "8,192 entries a head = N*P; 32,768 bytes in fp32" in section(text, "cost")


MIXED = """
recurrence mixed {
  dim    N = 8, P = 8
  input  q, k : [N]; v : [P]
  state  S : real [N, P]
  update S' = S + k v^T
  output o = S'^T q
}
layer block(d_model) {
  heads H = d_model / P
  q, k, v = linear(u)
  q = silu(conv(q, 4))
  k = rmsnorm(conv(k, 4))
  v = conv(v, 2)
  o = mixed(q, k, v)
  out = linear(o * v)
}
"""


def test_a_token_of_a_layer():
    """What one launch carries, and what stays in torch and why."""
    recurrence, layer = explain.summary(Source("mixed.ssm", MIXED), {})[0].split("\nlayer ")
    assert "a token one launch on a GPU, states in place" in section(recurrence, "how it runs")
    assert [" ".join(line.split()) for line in layer.splitlines()[-4:]] == [
        "a token one launch on a GPU from the projections to what `mixed` reads out",
        "in it q = silu(conv(q, 4))",
        "in torch k = rmsnorm(conv(k, 4)): a learned norm needs all of its channels",
        "v = conv(v, 2): `v` is read by `out = ...` as well",
    ]
    alone = explain.summary(Source("mixed.ssm", MIXED.replace("  q = silu(conv(q, 4))\n", "")), {})[0]
    assert "a token  the launch on a GPU has `mixed` alone: nothing stands between the projections and the recurrence" in alone


def test_a_singular_method_says_what_is_emitted():
    text = section(explain.summary(sketch("s4d"), {})[0], "discretized")
    assert "exact for one held" in text and "at 0/0" in text and "phi1" in text


def test_sizes_can_be_changed():
    text, _ = explain.summary(example("mamba2"), {"N": 16})
    assert "N = 16" in text and "1,024 entries a head" in text


def test_a_state_that_turns():
    text = explain.summary(example("inventions/turning_delta"), {})[0]
    assert "eigenvalues a exp(+-i theta), complex and chosen by the data: it can track state" in section(text, "stability")
    assert "along its key the correction keeps a factor in (-1, 1]: no growth; before it is turned" in section(text, "stability")
    assert "the walk carries rot(-Phi) S" in section(text, "chunk form")


# --- stability ---------------------------------------------------------------------------------------------------


def test_half_life_of_a_fixed_decay():
    (found,) = stability(classified(example("retnet")).recurrence)
    assert found.factor.low == pytest.approx(1 - 2**-5) and found.factor.high == 1 and found.factor.high_open
    assert found.half_life.low == pytest.approx(math.log(2) / -math.log(1 - 2**-5)) and found.half_life.high == math.inf


def test_half_life_at_the_initial_parameters():
    """exp(-dt A) with A in [1, 16] and dt in [0.001, 0.1]."""
    (found,) = stability(classified(example("mamba2")).recurrence)
    low, high = (found.initial_half_life.low, found.initial_half_life.high)
    assert low == pytest.approx(math.log(2) / 1.6, rel=1e-6) and high == pytest.approx(math.log(2) / 1e-3, rel=1e-6)


def test_judgements():
    assert judgement(Interval(1.0, 1.0, False, False)).startswith("marginal")
    assert judgement(Interval(0.0, 1.0, False, False)).startswith("at most marginal")
    assert judgement(Interval(0.5, 2.0, False, False)) == "can exceed 1: |a| reaches 2"
    assert half_life(Interval(0.5, 2.0, False, False)) is None and half_life(Interval(1.0, 1.0, False, False)) is None
    assert half_life(Interval(0.5, 0.5, False, False)) == Interval(1.0, 1.0, False, False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gated_deltanet", "keeps a factor in (0, 1]: no growth"),
        ("deltaproduct", "keeps a factor in (-1, 1]: no growth"),
        ("kda", "keeps a factor in (0, 1]: no growth"),
        (
            "rwkv7",
            "eigenvalues lie within |a| + |c|, here at most 2, below 0 or complex among them: it can track state; no bound is proved",
        ),
        ("titans_linear", "fed by `Z`, which it feeds in turn"),
        ("s4d", "|a| in (0, 1); contraction"),
        ("mamba3", "contraction"),
    ],
)
def test_stability_of_what_is_not_built_yet(name, words):
    assert words in section(explain.summary(sketch(name), {})[0], "stability")


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("gated_deltanet", {}, "keeps a factor in (0, 1]: no growth; eigenvalues stay at 0 or above, so it cannot track state (parity)"),
        ("gated_deltanet", {"reach": 2}, "keeps a factor in (-1, 1]: no growth; eigenvalues reach below 0: it can track state (parity)"),
        ("gated_deltaproduct", {"n": 2}, "several reflections a token, which turn: it can track state (parity, permutations)"),
        ("comba", {}, "along its key a token keeps a factor in (-1, 1): no growth; eigenvalues reach below 0"),
        ("gdn2", {}, "the state stays bounded where |a| + |c| <= 1"),
        ("mlstm", {}, "|a| in (0, 1]; at most marginal"),
        ("pd_ssm", {}, "bounded where |M| <= 1 in a norm, what else multiplies it in absolute value is in (0, 1)"),
    ],
)
def test_what_a_transition_can_track_and_where_it_stays_bounded(name, sizes, words):
    assert words in section(explain.summary(example(name), sizes)[0], "stability")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("simple_gla", "on a GPU fused kernels of one walk"),
        ("kda", "on a GPU kernels of one walk, over operands that are made before it"),
        ("titans", "on a GPU kernels of one walk of states that feed each other"),
        ("mamba1", "on a GPU kernels of a scan"),
    ],
)
def test_how_a_sequence_runs_on_a_gpu(name, words):
    assert f"a sequence {words}" in section(explain.summary(example(name), {})[0], "how it runs")


def test_states_that_feed_each_other_fade_each_in_their_own_way():
    """Of the oscillators' two states the one that is declared first keeps all of itself."""
    assert "decay diagonal one factor per key and token" in section(explain.summary(example("linoss"), {})[0], "structure")


def test_what_has_no_kernels_says_why():
    text = """recurrence gated {
  dim    N = 4, P = 4, M = 8
  input  q, k : [N]; v : [P]; c, x : [M]
  gate   a in (0, 1) = sigmoid(c^T x)
  state  S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q
}
"""
    summary, _ = explain.summary(Source("gated.ssm", text), {})
    assert "a sequence torch operations on a GPU too: no kernel has " in section(summary, "how it runs")


def test_a_state_that_is_fed_and_feeds_none_has_eigenvalues_of_its_own():
    text = """recurrence chain {
  dim    N = 4
  input  k : [N]; x : scalar
  state  A : real [N]; B : real [N]
  update A' = 0.9 * A + sigmoid(x) * B
         B' = -0.5 * B + k
  output o = A'
}
"""
    found = stability(classified(Source("chain.ssm", text)).recurrence)
    assert found[0].words.startswith("fed by `B` and feeding none of them: eigenvalues are its own, |a| in [0.9, 0.9], and theirs")
    assert found[1].words == "contraction: |a| <= 0.5 < 1"


PAIR = """recurrence pair {{
  dim    N = 4
  input  u, f : [N]; dt : scalar in (0, 1)
  param  c : [N] per head
  let    A : [N] = {rate}
  state  z, x : real [N]
  {step}
  output y = c * x'
}}
"""
CONTINUOUS = "dynamics dz/dt = u - A * x\n dx/dt = z - {more} * x\n discretize {method}"
SYMPLECTIC = "update z' = z + dt * (u - A * x)\n x' = x + dt * z'"


@pytest.mark.parametrize(
    "rate, step, is_joint, words",
    [
        ("4 * sigmoid(f)", SYMPLECTIC, True, "with `x`: no eigenvalue of a token is outside the unit disc"),
        ("relu(f)", SYMPLECTIC, False, "eigenvalues of a token are in the unit disc where 4 - dt^2 * A >= 0, which is in (-inf, 4]"),
        ("relu(f)", CONTINUOUS.format(more=0, method="zoh(dt)"), True, "`zoh` keeps that"),
        ("relu(f)", CONTINUOUS.format(more=1, method="bilinear(dt)"), True, "`bilinear` keeps that"),
        ("f", CONTINUOUS.format(more=1, method="zoh(dt)"), False, "fed by `x`, which it feeds in turn: their decays alone bound nothing"),
        ("relu(f)", CONTINUOUS.format(more=0, method="euler(dt)"), False, "where -dt^2 * A >= 0, which is in (-inf, 0]"),
        ("sigmoid(f)", "update z' = 0.3 * z - 0.9 * A * x + u\n x' = 0.8 * z + 0.2 * x", True, "at most in proportion to its number"),
    ],
    ids=["slow steps", "steps of any size", "exponential", "bilinear", "may grow", "explicit", "discrete"],
)
def test_eigenvalues_of_two_states_that_feed_each_other(rate, step, is_joint, words):
    found = stability(classified(Source("pair.ssm", PAIR.format(rate=rate, step=step))).recurrence)
    assert [each.is_joint for each in found] == [is_joint, is_joint]
    assert words in found[0].words, found[0].words


def test_a_corrected_state_that_is_fed_does_not_feed_back():
    text = """recurrence fed {
  dim    N = 4, P = 4
  input  k : [N]; v : [P]; b : scalar in (0, 1)
  state  S, M : real [N, P]
  update S' = 0.9 * S - b * unit(k) (unit(k)^T S) + M
         M' = 0.5 * M + k v^T
  output o = S'^T k
}
"""
    found = stability(classified(Source("fed.ssm", text)).recurrence)
    assert found[0].words == "fed by `M` and feeding none of them: its decay alone bounds nothing"


def test_linear_attention_is_marginal():
    assert all(
        s.words.startswith("marginal") and s.half_life is None for s in stability(classified(example("linear_attention")).recurrence)
    )


# --- cost --------------------------------------------------------------------------------------------------------


def products(node):
    """Every product summed over an axis, of a value of a step."""
    if isinstance(node, (Contract, Faded)):
        yield 2, {*node.left.axes, *node.right.axes}
    if isinstance(node, Solve):
        # a triangle is half a square
        yield 1, {"i", "j", *node.right.axes}
    if isinstance(node, Through):
        yield 2, {"i", "j", "between"}
    for operand in operands(node):
        yield from products(operand)


@pytest.mark.parametrize("path", CHUNKED, ids=lambda p: p.stem)
def test_flops_are_those_of_the_program(path):
    """A product over axes of sizes a, b, .. is a multiply-add for each point of their box; a chunk has C tokens."""
    plan = schedule(classified(source(path)))
    spec = plan.classified.recurrence.spec
    total = 0
    for kernels in lower(plan).walks:
        key, value = (int(size.value(dict(spec.dims))) for size in widths(kernels.walk))
        rows = plan.chunk * len(kernels.walk.rows)
        sizes = {"t": plan.chunk, "i": rows, "j": rows, "between": rows, "n": key, "p": value}
        for step in kernels.forward.steps:
            for price, axes in products(step.value):
                total += price * math.prod(sizes[axis] for axis in axes)
        if kernels.walk.has_erase:
            total += (
                2 * 2 * rows * key * value * len(kernels.walk.states if kernels.walk.members else [0])
            )  # carried: read, and written back
    assert plan.cost.flops[1] * plan.chunk == total
    assert _value(plan.cost.flops[0], spec) == plan.cost.flops[1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_formulas_have_the_values_beside_them(path):
    plan = schedule(classified(source(path)))
    spec = plan.classified.recurrence.spec
    for text, value in (plan.cost.bytes, plan.cost.state, plan.cost.decode_bytes):
        assert _value(text, spec) == value


def _value(formula: str, spec) -> float:
    """A formula of sums and products with the sizes put in."""
    for name, size in spec.dims:
        formula = re.sub(rf"\b{name}\b", str(size), formula)
    assert re.fullmatch(r"[\d+*/() ]+", formula)
    return sum(_term(term) for term in _split(formula, "+"))


def _term(text: str) -> float:
    return math.prod(sum(_term(t) for t in _split(f[1:-1], "+")) if f.startswith("(") else Fraction(f) for f in _split(text, "*"))


def _split(text: str, mark: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text.replace(" ", ""):
        depth += (letter == "(") - (letter == ")")
        if letter == mark and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def test_cost_by_hand():
    """N = 128, P = 64, C = 64: q k^T and its product with v, 2 C (N + P) a token; the state read and written, 2 * 2 N P."""
    cost = schedule(classified(example("mamba2"))).cost
    assert cost.flops[1] == 2 * 64 * (128 + 64) + 2 * 2 * 128 * 64 == 57344
    assert cost.bytes[1] == 2 * (128 + 128 + 64 + 64) + 4
    assert cost.state[1] == 128 * 64 and cost.decode_bytes[1] == 2 * 4 * 128 * 64
    cost = schedule(classified(example("simple_gla"))).cost
    assert cost.flops[1] == 2 * 64 * (64 + 64) + 2 * 2 * 64 * 64 == 32768
    assert cost.bytes[1] == 2 * (64 + 64 + 64 + 64) + 4
    cost = schedule(classified(example("mlstm_sigmoid"))).cost  # the normaliser: a column of 1 that is not read from memory
    assert cost.bytes[1] == 2 * (64 + 64 + 128 + 129) + 4 and cost.state[1] == 64 * 129


def test_explain_is_quick():
    start = perf_counter()
    done = subprocess.run([sys.executable, "-m", "ssmgen", "explain", "mamba2"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert perf_counter() - start < 3  # a third of that, alone on the machine
    assert "recurrence mamba2" in done.stdout
