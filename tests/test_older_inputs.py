"""The input at the beginning of a step: what of it is kept from token to token, and that it is 0 before the first."""

from __future__ import annotations

import pytest
from built import write
from conftest import ROOT

from ssmgen.derive import derive
from ssmgen.diagnostics import SpecError
from ssmgen.parse import parse
from ssmgen.recurrence_text import equations
from ssmgen.resolve import resolve
from ssmgen.runtime.verify import CHECKS, verify_checks
from ssmgen.source import Source
from ssmgen.spec_text import expr_text

SPEC = """
recurrence two_ends {{
  dim        N = 4, P = 3
  input      q, B : [N]; x : [P]; dt_raw, lam_raw, u : scalar
  param      bias : [N] per head init 1; shift : [P] per head init 1
  gate       dt > 0 = softplus(dt_raw); lam in (0, 1) = sigmoid(lam_raw)
  state      S : real [N, P]
  dynamics   dS/dt = {dynamics}
  discretize exp_trapezoid(dt, lam)
  output     o = S'^T q + u * x + (bias . B) * shift
}}
"""


def resolved(dynamics: str):
    return resolve(parse(Source("two_ends.ssm", SPEC.format(dynamics=dynamics)))).recurrences[0]


@pytest.mark.parametrize(
    "dynamics, before, named",
    [
        ("-S + B x^T", "B[-1] x[-1]^T", {}),
        ("-S + (B + bias) x^T", "(B[-1] + bias) x[-1]^T", {}),
        ("u * (B x^T - S)", "u[-1] * (B[-1] x[-1]^T)", {}),
        ("-S + (B + bias) (x + shift)^T", "(B[-1] + bias) S_value[-1]^T", {"S_value": "x + shift"}),
        ("-S + rope(B) x^T", "S_key[-1] x[-1]^T", {"S_key": "rope(B)"}),
    ],
)
def test_what_is_kept_of_an_input(dynamics, before, named):
    spec = resolved(dynamics)
    (found,) = spec.dynamics
    assert expr_text(found.before) == before
    assert {s.name: expr_text(s.definition) for s in spec.symbols if s.name.startswith("S_")} == named


@pytest.mark.parametrize("dynamics", ["-S + bias shift^T", "diag(rope(B)) (B x^T - S)"])
def test_an_input_without_a_previous_value_is_refused(dynamics):
    with pytest.raises(SpecError) as raised:
        resolved(dynamics)
    assert {d.slug for d in raised.value.diagnostics} == {"discretization-undefined"}


def test_the_older_input_enters_before_the_transition():
    first, second = equations(derive(resolved("-S + (B + bias) (x + shift)^T")))[:2]
    assert first == "S~ = S + (1 - lam) * dt * ((B + bias) S_value^T)[-1]"
    assert second == "S' = exp(-dt) * S~ + lam * dt * (B + bias) S_value^T"


MATRIX = """
recurrence made {
  dim        N = 4, P = 3
  input      u : [P]; raw : scalar
  param      rate : [N] per head init 1; B : [N, P] per head init normal(0, 1)
  gate       dt > 0 = softplus(raw)
  state      x : real [N]
  dynamics   dx/dt = -exp(rate) * x + B u
  discretize trapezoid(dt)
  output     x'
}
"""


@pytest.mark.parametrize("name", ["made", "s4"])
def test_what_parameters_make_of_the_older_input(name, tmp_path):
    """A product with a matrix, and an input along a column beside entries that read each other: in the operator as in the loop."""
    pytest.importorskip("torch")
    s4 = (ROOT / "examples" / "s4.ssm").read_text(encoding="utf-8").split("layer ")[0].replace("bilinear", "trapezoid")
    folder, spec = write(MATRIX if name == "made" else s4, tmp_path)
    report = verify_checks(folder, spec, {check: CHECKS[check] for check in ("reference = interpreter", "op = reference")})
    assert report.passed, "\n".join(map(str, report.failures))


def test_complex_values_of_the_token_before_are_not_kept():
    with pytest.raises(SpecError) as raised:
        resolve(parse(Source("made.ssm", MATRIX.replace("B : [N", "B : complex [N").replace("real [N]", "complex [N]"))))
    found = next(d for d in raised.value.diagnostics if d.slug == "discretization-undefined")
    assert found.primary.text == "complex values of the token before are not kept" and "zoh(dt)" in found.help
