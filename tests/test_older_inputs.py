"""The input at the beginning of a step: what of it is kept from token to token, and that it is 0 before the first."""

from __future__ import annotations

import pytest

from ssmgen.derive import derive
from ssmgen.diagnostics import SpecError
from ssmgen.parse import parse
from ssmgen.recurrence_text import equations
from ssmgen.resolve import resolve
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
