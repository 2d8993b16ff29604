"""The edits that messages propose, made literally: what a message says to type is in it word for word, and makes the spec build."""

from __future__ import annotations

import pytest
from test_diagnostics import FOLDER, found

from ssmgen.compiler import build, check, refused
from ssmgen.diagnostics import SpecError
from ssmgen.source import Source

# of a pair in `diagnostics/`: what the help of its message says, and the lines of the text it changes, old and new
EDITS = [
    # a discretization that is undefined for a structure
    ("discretization-undefined", "`euler(dt)`", ("zoh(dt)", "euler(dt)")),
    ("discretization-undefined", "`rk4(dt)`", ("zoh(dt)", "rk4(dt)")),
    ("discretization-undefined.turning", "`exp_euler(dt)`", ("zoh(dt)", "exp_euler(dt)")),
    (
        "discretization-undefined.turning",
        "`exp_trapezoid(dt, lam)`",
        ("zoh(dt)", "exp_trapezoid(dt, lam)"),
        ("dt : scalar > 0", "dt : scalar > 0; lam : scalar in (0, 1)"),
    ),
    ("discretization-undefined.turning", "let every row turn", ("first N/2 rows", "first N rows"), ("omega : [N/4]", "omega : [N/2]")),
    *(("discretization-undefined.coupled", f"`{method}(dt)`", ("zoh(dt)", f"{method}(dt)")) for method in ("euler", "rk4")),
    # an odd width for pairs
    ("odd-dimension", "`N = 64`", ("N = 63", "N = 64")),
    ("odd-dimension.pairs", "`N = 64`", ("N = 63", "N = 64")),
    # a decay that differs inside a pair
    ("rotation-unequal-decay", "`diag(pairs(a))` with `a : [N/2]`", ("A : [N] < 0", "a : [N/2] < 0"), ("diag(A)", "diag(pairs(a))")),
    ("rotation-unequal-decay", "`A * S` with `A : scalar`", ("A : [N] < 0", "A : scalar < 0"), ("diag(A) S", "A * S")),
    (
        "rotation-unequal-decay.update",
        "`diag(pairs(a))` with `a : [N/2]`",
        ("w : [N]", "a : [N/2]"),
        ("diag(w)", "diag(pairs(a))"),
        ("c : [P]", "a : [P/2]"),
        ("diag(c)", "diag(pairs(a))"),
    ),
    (
        "rotation-unequal-decay.update",
        "`a * S` with `a : scalar`",
        ("w : [N]", "a : scalar"),
        ("rot(theta) diag(w) S", "rot(theta) (a * S)"),
        ("c : [P]", "a : scalar"),
        ("S rot(phi)^T diag(c)", "(a * S) rot(phi)^T"),
    ),
    # a step that is singular
    ("singular-step", "`exp_euler`", ("zoh(dt)", "exp_euler(dt)")),
    (
        "singular-step",
        "`A <= -1e-4 = min(..., -1e-4)`",
        ("; A : scalar <= 0", "; A_raw : scalar"),
        ("  state", "  gate   A <= -1e-4 = min(-exp(A_raw), -1e-4)\n  state"),
    ),
    ("singular-step.pole", "declare the rate `<= 0` and the step `> 0`", ("A : scalar;", "A : scalar <= 0;")),
    ("singular-step.pole", "`exp_euler`", ("bilinear(dt)", "exp_euler(dt)")),
    # a rank that is not the number of rows
    ("shape-mismatch.rank", "declare `b : [R]`", ("b : [Q]", "b : [R]"), ("o[r] = S'^T q[r] + v[r]", "o[r] = S'^T q[r]")),
    (
        "shape-mismatch.rank",
        "declare `v : [Q, P]`",
        ("b : [Q]", "b : [R]"),
        ("R = 2, Q = 4", "Q = 4"),
        ("[R, ", "[Q, "),
        ("[R]", "[Q]"),
        ("1..R", "1..Q"),
    ),
    (
        "shape-mismatch.rank",
        "`1..Q`",
        ("1..R: b[r] * k[r] v[r]^T", "1..Q: b[r] * q[r] k[1]^T"),
        ("k : [R, N]", "k : [R, P]"),
        (" + v[r]", " + v[1]"),
    ),
    # continuous dynamics that are not stable
    ("unstable-dynamics", "`-exp(A_log)`", ("= rate + i", "= -exp(rate) + i")),
    ("unstable-dynamics", "`-softplus(a)`", ("= rate + i", "= -softplus(rate) + i")),
    (
        "unstable-dynamics.full",
        "`(A - A^T) S - exp(a) * S`",
        ("= W x - diag(exp(rate)) x", "= (A - A^T) x - diag(exp(rate)) x"),
        ("W : [N, N] per head; ", ""),
        (" - W (W^T s)", ""),
        ("-beta * k", "-exp(beta) * k"),
        ("rk4(dt)", "euler(dt)"),
    ),  # four stages of three full matrices take minutes to emit
    # a correction under an elementwise decay
    (
        "walked-correction",
        "`diag(w) S`",
        ("A : [N, P] per head init 1", "w : [N] per head init 1"),
        ("sigmoid(A) * S", "diag(sigmoid(w)) S"),
    ),
    (
        "walked-correction",
        "drop the correction",
        (" - a * unit(k) (unit(k)^T S)", ""),
        ("; a_raw : scalar", ""),
        ("  gate   a in (0, 1) = sigmoid(a_raw)\n", ""),
    ),
    ("walked-correction.axes", "`diag(w) S`", ("c : [P] in", "w : [N] in"), ("S diag(c)", "diag(w) S")),
    (
        "elementwise-after-product",
        "`diag(a)`",
        ("W : [N, P]", "w : [N] in (0, 1)"),
        ("W * (S", "diag(w) (S"),
        ("a * k (k^T S)", "a * unit(k) (unit(k)^T S)"),
    ),
    # micro-steps that read what is gone
    ("stale-state", "write `S'`", ("^T S)", "^T S')")),
    # a running maximum of gates that are no exponentials, and exponential gates without one
    ("unmet-claim.max", "leave the word out", ("  normaliser max\n", "")),
    (
        "unsupported-lowering.max",
        "`m' = max(log_f + m, i)`",
        ("n : real [N]\n", "n : real [N]; m : real scalar\n"),
        ("update C'", "update m' = max(log_f + m, i)\n         C'"),
        ("exp(log_f)", "exp(log_f + m - m')"),
        ("exp(i)", "exp(i - m')"),
        (", 1)", ", exp(-m'))"),
    ),
    # a key that is not normalised
    ("unbounded-correction", "`unit(k)`", ("k (k^T S)", "unit(k) (unit(k)^T S)")),
    ("unbounded-correction", "declare the input `unit`", ("q, k : [N]", "q : [N]; k : [N] unit")),
    ("unbounded-correction.bounded", "`unit(k)`", ("= tanh(x);", "= unit(tanh(x));")),
    # a decay that has no logarithm
    ("decay-not-positive", "`sigmoid(x)`", ("a in [-1, 1] = tanh(a_raw)", "a in (0, 1) = sigmoid(a_raw)")),
    ("decay-not-positive.steps", "`exp(-softplus(x))`", ("c in [0, 1] = clamp(a_raw, 0, 1)", "c in (0, 1) = exp(-softplus(a_raw))")),
    *(("decay-not-positive.method", f"`{method}`", ("bilinear(dt)", f"{method}(dt)")) for method in ("exp_euler", "zoh", "implicit_euler")),
    ("decay-not-positive.method", "declare a step that is short enough", ("dt : scalar > 0", "dt : scalar in (0, 1)")),
    # nothing is carried
    (
        "unsupported-lowering.erased",
        "`S' = a * S + k v^T` with `a : scalar in (0, 1)`",
        ("S' = k v^T", "S' = a * S + k v^T"),
        ("v : [P]", "v : [P]; a : scalar in (0, 1)"),
    ),
]


@pytest.mark.parametrize(
    "pair, said, edits", [(pair, said, edits) for pair, said, *edits in EDITS], ids=[f"{pair}-{said}" for pair, said, *_ in EDITS]
)
def test_what_a_message_proposes_builds(pair, said, edits):
    source = Source(f"{pair}.ssm", (FOLDER / f"{pair}.ssm").read_text(encoding="utf-8"))
    slug = pair.partition(".")[0]
    faults = [fault for fault in found(source) if fault.slug == slug]
    assert any(said in fault.help for fault in faults), [fault.help for fault in faults]
    assert all(fault.primary.text and source.slice(fault.primary.span).strip() for fault in faults), "a place, and the fact about it"
    text = source.text
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    built = build(Source("edited.ssm", text))
    assert built.packages and slug not in {warning.slug for warning in built.trace.warnings}


def test_check_refuses_what_breaks_an_identity_as_build_does():
    for pair in ("rotation-unequal-decay.update", "decay-not-positive"):
        source = Source("r.ssm", (FOLDER / f"{pair}.ssm").read_text(encoding="utf-8"))
        raised = []
        for run in (check, build):
            with pytest.raises(SpecError) as error:
                run(source)
            raised.append(error.value.diagnostics)
        assert raised[0] == raised[1]


def test_what_is_sound_and_has_no_package_is_told_before_it_is_built():
    for pair in ("unsupported-lowering", "unsupported-lowering.erased", "unsupported-lowering.max"):
        source = Source("r.ssm", (FOLDER / f"{pair}.ssm").read_text(encoding="utf-8"))
        with pytest.raises(SpecError) as error:
            build(source)
        assert refused(check(source)) == error.value.diagnostics
