"""Recurrences that no token changes as convolutions: equal to their scans, taken where they pay, refused where they are none."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from built import example, write
from conftest import ROOT

torch = pytest.importorskip("torch")

from oracles import h3, s4  # noqa: E402

from ssmgen import algebra, explain  # noqa: E402
from ssmgen.compiler import check  # noqa: E402
from ssmgen.diagnostics import SpecError  # noqa: E402
from ssmgen.lower import lower  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.sample import Shape, draw  # noqa: E402
from ssmgen.runtime.verify import CHECKS, verify_checks  # noqa: E402
from ssmgen.runtime.verify_kernels import answered  # noqa: E402
from ssmgen.schedule import schedule  # noqa: E402
from ssmgen.source import Source  # noqa: E402
from ssmgen.validate import ValidationError, validate  # noqa: E402

B, T, C, N = 2, 256, 3, 6

SPECS = {
    "two states, micro-steps, two taps, reads before and after, a nonlinear output, reversed": """
recurrence answers(n = 2) {
  dim    N = 6
  input  x, w : scalar per channel; k, q : [N] per layer
  param  D, r : scalar per channel; bias : [N] per channel; b, c : [N] per layer
  state  h, g : real [N] per channel
  update h' = h
         for j in 1..n: h' = diag(tanh(bias)) h' + x * b
         h' = h' + silu(w) * x[-1] * k[-1]
         g' = tanh(r) * g + x * c + b
  output y = silu(c . h') * (1 + square(b . g)) + D * x + q . h
  time   reversed
  @form  convolution
}""",
    "a factor for every entry of a matrix, written along one axis, read along both": """
recurrence grid {
  dim    N = 4, P = 6
  input  v : [P]; c : scalar
  param  W : [N, P] per head; k, q : [N] per head; z0 : [P] per head
  state  S : real [N, P]; z : real [P]
  update S' = tanh(W) * S + k (c * v)^T
         z' = diag(sigmoid(z0)) z + c * v
  output o = S'^T q + tanh(z') + S^T k
  @form  convolution
}""",
    "a complex state beside one that drops everything, both parts read": """
recurrence turning {
  dim    N = 4
  input  u, a : scalar per channel; z : complex [N] per layer
  param  C : complex [N] per channel init re 1, im 0; rho, theta : [N] per channel
  state  s : complex [N] per channel; h : real scalar per channel
  update s' = tanh(rho) * cis(theta) * s + u * z
         h' = 0 * h + a
  output y = Re(C . s') + Im(C . s) * h' + h
  @form  convolution
}""",
    "a matrix between the entries": """
recurrence whole {
  dim    N = 4
  input  x : scalar per channel
  param  W : [N, N] per channel; b, c : [N] per channel
  state  h : real [N] per channel
  update h' = 0.3 * W h + x * b
  output y = c . h' + x
  @form  convolution
}""",
    "matrices before two states and behind them, of products too, reversed": """
recurrence between {
  dim    N = 4, P = 6
  input  u : [P]; k : scalar
  param  a, b, d : [N] per head; B : [N, P] per head; C, E : [P, N] per head; W : [N, N] per layer
  state  x, z : real [N]
  update x' = diag(tanh(a)) x + silu(B u)
         z' = diag(sigmoid(b)) z + k * (W d) + W (B u)
  output y = C (tanh(x') * x) + E z + k * u
  time   reversed
  @form  convolution
}""",
    "a matrix before every column of a state, and one behind what is read of them": """
recurrence columns {
  dim    N = 4, P = 6, M = 5
  input  u : [P]; q : [N]
  param  A, w : [N] per head; B : [M, P] per head; C : [P, M] per head
  state  S : real [N, M]
  update S' = diag(tanh(A)) S + w (B u)^T
  output y = C (S'^T q) + u
  @form  convolution
}""",
    "states that feed each other in a circle, through complex ones too, between matrices, reversed": """
recurrence circle(n = 2) {
  dim    N = 6, P = 5
  input  x, w : scalar per channel; k : [N] per layer; u : [P] per channel
  param  bias, turn, mix : [N] per channel; e : [N] per layer; B, F : [N, P] per channel
         C : complex [P, N] per channel init re 1, im 0; E : [P, N] per channel
  state  h, g, m : real [N] per channel; c : complex [N] per channel
  update h' = h - 0.1 * diag(e) g
         for j in 1..n: h' = diag(tanh(bias)) h' + x * k
         h' = h' + x[-1] * k[-1] + B u
         c' = diag(0.8 * cis(turn)) c + tanh(mix) * h' - i * g
         g' = h'
         m' = diag(sigmoid(mix)) m + silu(w) * (F u)
  output y = Re(C c') + E (g + tanh(m')) + E h
  time   reversed
  @form  convolution
}""",
    "states of two axes that feed each other": """
recurrence plates {
  dim    N = 4, P = 3
  input  v : [P]; c, z : scalar
  param  A, W : [N, P] per head; b : [N] per head; k, q : [N] per head
  state  S, M : real [N, P]
  update M' = tanh(A) * M + 0.2 * S + k v^T
         S' = diag(tanh(b)) S - 0.3 * tanh(W) * M' + (k * c) v^T
  output o = S'^T q + z * (M^T k)
  @form  convolution
}""",
    "rows of the output of a complex state that a matrix writes": """
recurrence measured(R = 3) {
  dim    N = 4, P = 6
  input  u : [P] per channel; k : [R, N] per channel
  param  A, phi : [N] per channel; B : complex [N, P] per channel init re 1, im 0; c : [R, N] per channel
  state  s : complex [N] per channel
  update s' = tanh(A) * cis(phi) * s + B u
  output y[r] = Re(s') * k[r] + Im(s) * c[r]
  @form  convolution
}""",
}
HELD = ("op = reference", "op gradients", "split", "packed", "step", "reversed", "causality")


@pytest.mark.parametrize("name", SPECS)
def test_recurrences_of_no_paper(name, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    report = verify_checks(folder, spec, {name: check for name, check in CHECKS.items() if name in HELD})
    assert report.passed, "\n".join(map(str, report.failures))


@pytest.mark.parametrize("name", ["s4d", "s4d_real", "lru", "s5", "linoss"])
def test_a_convolution_is_the_scan(name, tmp_path):
    """Values, final states and every gradient, in float64 and from bfloat16; packed documents are what is scanned."""
    text = (ROOT / "examples" / f"{name}.ssm").read_text(encoding="utf-8").replace("  output", "  @form convolution\n  output", 1)
    folder, spec = write(text, tmp_path)
    package = load(folder)
    call = getattr(package, name)
    drawn = draw(spec, Shape(B, T, C, 1, {dim: N for dim, _ in spec.dims}), seed=3, device="cpu")
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.bfloat16, 1e-2)):
        case = drawn.to(dtype, params_dtype=torch.promote_types(dtype, torch.float32))
        u, *params = case.arguments
        first = call(u, *params)
        starts, ends = ([torch.randn_like(x) for x in first.final_state] for _ in range(2))
        weights = torch.randn_like(first.y)
        found = []
        for is_packed in (False, True):
            leaves = [x.detach().clone().requires_grad_() for x in (u, *params, *starts)]
            bounds = {"cu_seqlens": torch.tensor([0, T, 2 * T])} if is_packed else {}
            given, state = leaves[0].flatten(0, 1)[None] if is_packed else leaves[0], package.State(*leaves[-len(starts) :])
            with answered(sys.modules[f"{package.__name__}.op"], "_convolves") as convolving:
                output = call(given, *leaves[1 : -len(starts)], initial_state=state, **bounds)
            assert convolving == [not is_packed]
            y, finals = output.y.reshape(weights.shape), output.final_state
            total = (y * weights).sum() + sum((x * end).real.sum() for x, end in zip(finals, ends, strict=True))
            found.append((y, *finals, *torch.autograd.grad(total, leaves)))
        torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance * float(found[1][1 + len(starts)].abs().max()))


def test_powers_of_a_factor_near_one(tmp_path):
    """Half a million radians later the power of a float32 factor is off by one rounding, not by one a token; 0 has powers too."""
    package, _ = example("s4d", tmp_path)
    length, turn = 65536, torch.polar(torch.ones(()), torch.tensor(7.5))
    factor = torch.tensor([turn, 0, -0.999])[None, :, None]
    low, high = sys.modules[f"{package.__name__}.op"]._powers(factor, length)
    every = (high[:, :, None] * low[:, None]).flatten(1, 2)[0, :, :, 0].to(torch.complex128)
    wide, l = factor[0, :, 0].to(torch.complex128), torch.arange(every.shape[0])[:, None]
    angle = torch.remainder(l * wide.angle(), 2 * torch.pi)
    wanted = torch.where((wide == 0) & (l == 0), 1, wide.abs() ** l * torch.exp(1j * angle))
    assert every.shape[0] > length and float((every - wanted).abs().max()) < 5e-7


def test_the_form_is_chosen_by_cost_and_said():
    text = (ROOT / "examples" / "s4d.ssm").read_text(encoding="utf-8")

    def plan(words="", **sizes):
        source = Source("s4d.ssm", text.replace("  output", f"  {words}\n  output") if words else text)
        trace = check(source, sizes)
        return schedule(trace.after("classify")["s4d"]), source

    usual, source = plan()
    assert usual.convolution is not None and not usual.outruns_kernels
    assert "2 transforms a token against 452 operations" in explain.summary(source, {})[0]
    assert plan(N=256)[0].outruns_kernels
    scanned, source = plan("@form scan")
    assert scanned.convolution is None and "`@form scan` decides" in explain.summary(source, {})[0]
    asked, source = plan("@form convolution")
    assert asked.outruns_kernels and "convolution of whole sequences; scan of packed documents" in explain.summary(source, {})[0]
    # what may grow, and what one operation an entry is cheaper for, is scanned unless the text says otherwise
    leak = """
recurrence leak {{
  input  u : scalar per channel
  param  a : scalar per channel
  state  s : real scalar per channel
  update s' = {} * s + u
  output s'
}}"""
    for factor in ("a", "sigmoid(a)"):
        chosen = schedule(check(Source("leak.ssm", leak.format(factor))).after("classify")["leak"])
        assert chosen.convolution is None and ("not proved that nothing grows" in chosen.reasons[-1]) == (factor == "a")


def test_between_matrices_the_cost_is_that_of_the_entries():
    """Products of all tokens stand around both forms; what a matrix reads in another width stays in the scan."""
    text = (ROOT / "examples" / "lru.ssm").read_text(encoding="utf-8")
    plan = schedule(check(Source("lru.ssm", text)).after("classify")["lru"])
    assert plan.convolution is None and "1,024 transforms a token against 2,560 operations, less than the 4,096" in plan.reasons[-1]
    source = Source("lru.ssm", text.replace("  output", "  @form convolution\n  output"))
    plan = schedule(check(source).after("classify")["lru"])
    assert plan.outruns_kernels and [len(probe.weights) for probe in plan.convolution.probes] == [1, 1]
    assert "convolution of whole sequences; scan of packed documents" in explain.summary(source, {})[0]
    between = SPECS["matrices before two states and behind them, of products too, reversed"]
    wider = between.replace("state  x, z : real [N]", "state  x : real [N]; z : real [P]").replace("E : [P, N]", "E, F : [P, P]")
    wider = wider.replace("diag(sigmoid(b)) z + k * (W d) + W (B u)", "0.5 * z + E u").replace("+ E z +", "+ F z +")
    with pytest.raises(SpecError) as raised:
        check(Source("wider.ssm", wider.replace("C, E, F", "C : [P, N] per head; E, F")))
    (found,) = raised.value.diagnostics
    assert found.slug == "unavailable-form" and "as columns of one width" in found.primary.text
    # a matrix of states is one small matrix an entry, unless their entries read each other too
    fed = SPECS["a matrix between the entries"].replace("h : real", "h, g : real")
    fed = fed.replace("x * b\n", "x * b + 0.1 * g\n         g' = 0.5 * h'\n")
    with pytest.raises(SpecError) as raised:
        check(Source("fed.ssm", fed))
    assert [(d.slug, d.primary.text) for d in raised.value.diagnostics] == [("unavailable-form", "`g` feeds `h`")]


def test_a_factor_that_a_token_changes_is_named():
    text = (ROOT / "examples" / "mamba1.ssm").read_text(encoding="utf-8").replace("  output", "  @form convolution\n  output")
    with pytest.raises(SpecError) as raised:
        check(Source("mamba1.ssm", text))
    (found,) = raised.value.diagnostics
    assert found.slug == "not-time-invariant" and found.primary.text == "`dt` depends on the token: it reads `dt_raw`, an input"
    assert text[found.primary.span.start : found.primary.span.end] == "dt" and "`param dt_raw : scalar per channel`" in found.help


def test_another_convolution_is_not_validated():
    """A weight that is not the recurrence's, and one that a token changes."""
    source = Source("grid.ssm", SPECS["a factor for every entry of a matrix, written along one axis, read along both"])
    plan = schedule(check(source).after("classify")["grid"])
    validate(plan, lower(plan))
    drive, *rest = plan.convolution.drives
    (state, weight), *others = drive.weights
    for wrong in (algebra.mul(algebra.const(2), weight), drive.value):
        wrong = replace(drive, weights=((state, wrong), *others))
        other = replace(plan, convolution=replace(plan.convolution, drives=(wrong, *rest)))
        with pytest.raises(ValidationError):
            validate(other, lower(other))
    # what is left of one state as if it were the other's
    plan = schedule(check(Source("plates.ssm", SPECS["states of two axes that feed each other"])).after("classify")["plates"])
    (one, first), (other, second) = plan.convolution.factors
    wrong = replace(plan, convolution=replace(plan.convolution, factors=((one, second), (other, first))))
    with pytest.raises(ValidationError):
        validate(wrong, lower(wrong))


def test_a_shift_and_a_diagonal_system(tmp_path):
    """H3's block against its two systems as matrices: values, state and gradients over more tokens than the shift holds, then a step."""
    package, _ = example("h3", tmp_path)
    torch.manual_seed(5)
    block = package.H3Block(d_model=C, N=N).double()
    with torch.no_grad():
        block.h3.log_dt.uniform_(-3, -1)
    u = torch.randn(B, 90, C, dtype=torch.float64, requires_grad=True)
    u_next = torch.randn(B, C, dtype=torch.float64)
    own = block.h3
    params = [own.log_re, own.im, own.C, own.log_dt, own.D]
    leaves = [u, block.in_proj.weight, block.conv.weight, block.out_proj.weight, *params]
    start = torch.zeros(B, C, N // 2, dtype=torch.complex128)
    taps = block.conv.weight[:, 0].flip(-1)
    wanted, final = h3.block(u, block.in_proj.weight, taps, block.out_proj.weight, *params, start)
    y, state = block(u)
    torch.testing.assert_close((y, state.h3.s), (wanted, final), rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weights).sum() + final.real.sum(), leaves)
    found = torch.autograd.grad((y * weights).sum() + state.h3.s.real.sum(), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    longer, _ = h3.block(torch.cat([u, u_next[:, None]], 1), block.in_proj.weight, taps, block.out_proj.weight, *params, start)
    held = type(state)(*(type(x)(*(y.detach() for y in x)) if isinstance(x, tuple) else x.detach() for x in state))
    torch.testing.assert_close(block.step(u_next, state=held), longer[:, -1], rtol=1e-6, atol=1e-6)


def test_modes_that_read_each_other(tmp_path):
    """S4: the convolution, packed documents walked token by token and steps against the dense matrix of all modes; values and gradients."""
    package, spec = example("s4", tmp_path)
    length = 140
    drawn = draw(spec, Shape(B, length, C, 1, {"N": N}), seed=4, device="cpu").to(torch.float64)
    start = torch.randn(B, C, N // 2, dtype=torch.complex128)
    leaves = [x.detach().clone().requires_grad_() for x in (*drawn.arguments, start)]
    wanted, final = s4.s4(*leaves)
    weights, ends = torch.randn_like(wanted), torch.randn_like(final)
    expected = torch.autograd.grad((wanted * weights).sum() + (final * ends).real.sum(), leaves)
    for is_packed in (False, True):
        u, *params, s = leaves
        bounds = {"cu_seqlens": torch.tensor([0, length, 2 * length])} if is_packed else {}
        output = package.s4(u.flatten(0, 1)[None] if is_packed else u, *params, initial_state=package.State(s), **bounds)
        y = output.y.reshape(B, length, C)
        torch.testing.assert_close((y, output.final_state.s), (wanted, final), rtol=1e-9, atol=1e-9)
        found = torch.autograd.grad((y * weights).sum() + (output.final_state.s * ends).real.sum(), leaves)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    u, *params, s = (x.detach() for x in leaves)
    held = package.State(s.clone())
    steps = torch.stack([package.s4_step(u[:, t], *params, state=held) for t in range(8)], 1)
    torch.testing.assert_close(steps, wanted[:, :8], rtol=1e-9, atol=1e-9)


PARTS = """
recurrence parts {
  dim        N = 4
  input      u, w : scalar per channel
  param      rate, turn : [N] per channel
             P, Q, C : complex [N] per channel init re normal(0, 1), im normal(0, 1)
  state      s : complex [N] per channel, conjugate
  update     s' = diag(tanh(rate) * cis(turn)) s + 0.1 * tanh(w) * P (Re(Q^T s)) + u * C
  output     y = 2 * Re(C . s') + Im(P . s)
}"""


def test_parts_of_a_state_are_read_by_the_data(tmp_path):
    """A term of rank one over the reals that a token changes: no convolution, a walk, which says so."""
    folder, spec = write(PARTS, tmp_path)
    report = verify_checks(folder, spec, {name: check for name, check in CHECKS.items() if name in HELD})
    assert report.passed, "\n".join(map(str, report.failures))
    source = Source("parts.ssm", PARTS)
    plan = schedule(check(source).after("classify")["parts"])
    assert plan.convolution is None and "`w` depends on the token, an input" in plan.reasons[-1]
    with pytest.raises(SpecError, match="is inside `Re`"):
        check(Source("parts.ssm", PARTS.replace("Re(Q^T s)", "Re(Q^T s + w)")))
    # without the data's factor it is a convolution, and of entries that read each other one of numbers alone
    still = PARTS.replace("tanh(w) * ", "").replace("  output", "  @form convolution\n  output").replace("u, w : scalar", "u : scalar")
    assert schedule(check(Source("still.ssm", still)).after("classify")["parts"]).convolution.mixing == ("s_re", "s_im")
    with pytest.raises(SpecError, match="has no form `convolution`") as raised:
        check(Source("still.ssm", still.replace("u : scalar", "u : [N]")))
    assert raised.value.diagnostics[0].primary.text == "the entries of `s` read each other"


def test_two_directions(tmp_path):
    """A = Lambda - P Q^*: nothing is proved of its poles, which is a warning, and the closed form of the step is the solution."""
    text = (
        (ROOT / "examples" / "s4.ssm")
        .read_text(encoding="utf-8")
        .replace(" C : complex", " Q, C : complex")
        .replace("P^H s", "0.1 * Q^H s")
    )
    source = Source("s4.ssm", text)
    trace = check(source)
    assert {w.slug for w in trace.warnings} == {"singular-step"}
    assert schedule(trace.after("classify")["s4"]).convolution is None
    folder, spec = write(text.replace("  output", "  @form convolution\n  output"), tmp_path)
    report = verify_checks(folder, spec, {name: CHECKS[name] for name in ("reference = interpreter", "op = reference")})
    assert report.passed, "\n".join(map(str, report.failures))
