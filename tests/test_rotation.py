"""States that turn: held against loops in float64, whole, packed and token by token; angles over long sequences; what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from built import write
from random_points import holds

from ssmgen.compiler import build, check, refused
from ssmgen.diagnostics import SpecError
from ssmgen.discretizations import methods
from ssmgen.runtime.load import load
from ssmgen.runtime.verify_subject import Subject
from ssmgen.source import Source
from ssmgen.validate import ValidationError, validate

GIVEN = """input q, k : [N]; v : [P]; theta : [N/2]; b, raw : scalar
  gate a in (0, 1) = sigmoid(raw); beta in (0, 2) = 2 * sigmoid(b)"""
UNIT = GIVEN.replace("q, k : [N]", "q : [N]; k : [N] unit")
PAIRS = UNIT.replace("theta : [N/2]; b, raw : scalar", "theta, raw : [N/2]; b : scalar").replace("gate a in", "gate a : [N/2] in")
STATE = "state S : [N, P]"
READ = "output o = S'^T q"

SPECS = {
    "data": (GIVEN, STATE, "update S' = a * rot(theta) S + k v^T", READ),
    "static": (GIVEN.replace("; theta : [N/2]", "") + "\n param theta : [N/2] per head init uniform(0, 3)",
               STATE, "update S' = a * rot(theta) S + k v^T", READ),
    "one angle": (GIVEN.replace("theta : [N/2]", "theta : scalar"), STATE, "update S' = a * rot(theta) S + beta * k v^T", READ),
    "of a group": (GIVEN.replace("q, k : [N]", "q, k : [N] per group").replace("theta : [N/2]", "theta : [N/2] per group"),
                   STATE, "update S' = a * rot(theta) S + k v^T", READ),
    "of the position": (GIVEN.replace("; theta : [N/2]", "") + "\n param theta : [N/2] per layer init uniform(0, 3)",
                        STATE, "update S' = a * rot(theta * position) S + k v^T", READ),
    "complex": (GIVEN.replace("theta : [N/2]", "theta : [N/4]"), "state S : complex [N, P], rotates first N/2 rows",
                "dynamics dS/dt = (-a + i * theta) S + k v^T\n discretize exp_euler(beta)", READ),
    "held": (GIVEN, "state S : complex [N, P], rotates first N rows",
             "dynamics dS/dt = (-a + i * theta) S + k v^T\n discretize zoh(beta)", READ),
    "bilinear": (GIVEN, "state S : complex [N, P], rotates first N rows",
                 "dynamics dS/dt = (-a + i * theta) S + k v^T\n discretize bilinear(beta)", READ),
    "solved beside a correction": (GIVEN, "state S : complex [N, P], rotates first N rows",
                                   "dynamics dS/dt = (-a + i * theta) S - k (k^T S) + k v^T\n discretize trapezoid(beta)", READ),
    "read before": (GIVEN, STATE, "update S' = a * rot(theta) S + k v^T", "output o = S^T q + (q^T k) * v"),
    "forget first": (UNIT, STATE, "update S' = a * rot(theta) S\n S' = S' + beta * k (v - S'^T k)^T", READ),
    "read first": (UNIT, STATE, "update S' = a * rot(theta) S + beta * k (v - S^T k)^T", READ),
    "turned after": (UNIT, STATE, "update S' = rot(theta) (a * S - beta * k (S^T k)^T) + k v^T", READ),
    "a factor a pair": (PAIRS, STATE, "update S' = (I - beta * k k^T) diag(pairs(a)) rot(theta) S + beta * k v^T", READ),
    "normalised": (GIVEN, STATE + "; n : [N]", "update S' = a * rot(theta) S + k v^T\n n' = a * rot(theta) n + k",
                   "output o = (S'^T q) / max(abs(n'^T q), 1)"),
    "beside one that does not": (GIVEN, STATE + "; n : [N]", "update S' = a * rot(theta) S + k v^T\n n' = a * n + k",
                                 "output o = (S'^T q) / max(abs(n'^T q), 1)"),
    "values": (GIVEN.replace("theta : [N/2]", "theta : [P/2]"), STATE, "update S' = a * S rot(theta) + k v^T", READ),
    "read by values": (GIVEN, STATE, "update S' = a * rot(theta) S + k v^T", "output o = S' v"),
    "two taps": (GIVEN, STATE, "update S' = a * rot(theta) (S + beta * k[-1] v[-1]^T) + k v^T", READ),
    "two taps, one beside": (GIVEN, STATE, "update S' = a * rot(theta) S + beta * k[-1] v[-1]^T + k v^T", READ),
    "micro-steps": (GIVEN.replace("q, k : [N]", "q : [N]; k : [2, N] unit").replace("theta : [N/2]", "theta : [2, N/2]"), STATE,
                    "update S' = a * S\n for j in 1..2: S' = rot(theta[j]) (S' + beta * k[j] (v - S'^T k[j])^T)", READ),
    "rows": (GIVEN.replace("q, k : [N]; v : [P]", "q : [N]; k : [2, N]; v : [2, P]"), STATE,
             "update S' = a * rot(theta) S + sum r in 1..2: k[r] v[r]^T", READ),
    "reversed": ("time reversed\n " + GIVEN, STATE, "update S' = a * rot(theta) S + k v^T", READ),
}  # fmt: skip


def spec(name: str) -> str:
    return "recurrence turning {\n  dim N = 4, P = 4\n  " + "\n  ".join(SPECS[name]) + "\n}\n"


@pytest.mark.parametrize("name", SPECS)
def test_a_state_that_turns(name, tmp_path):
    folder, subject = write(spec(name), tmp_path)
    holds(Subject(load(folder), subject, "cpu"))


@pytest.mark.parametrize("name", [name for name, method in methods().items() if method.parameters])
def test_every_method_steps_pairs_that_turn(name):
    """The build is exact: walks that turn, against the token of the spec."""
    how = f"{name}({', '.join(['beta', *('a' for _ in methods()[name].parameters[1:])])})"
    given = UNIT.replace("b, raw : scalar", "b, raw : scalar; rate : [N/2] <= 0")
    state, step = "state S : complex [N, P], rotates first N rows", "dynamics dS/dt = (rate + i * theta) S + k v^T"
    text = "recurrence turning {\n  dim N = 4, P = 4\n  " + "\n  ".join((given, state, step, f"discretize {how}", READ)) + "\n}\n"
    ((_, files),) = build(Source("turning.ssm", text)).packages.items()
    assert "running.py" in files


def test_a_long_oscillation_keeps_its_angle(tmp_path):
    folder, _ = write(spec("data").replace("N = 4, P = 4", "N = 2, P = 1").replace("a * rot", "rot"), tmp_path)
    package, T = load(folder), 65_536
    theta = torch.empty(1, T, 1, 1).uniform_(0.5, 3, generator=torch.Generator().manual_seed(0))
    q = torch.tensor([1.0, 0.0]).expand(1, T, 1, 2)
    still = torch.zeros(1, T, 1)
    start = package.State(S=torch.tensor([1.0, 0.0]).view(1, 1, 2, 1))
    y, final = package.turning(q, torch.zeros_like(q), still[..., None], theta, still, still, initial_state=start)
    total, angles = 0.0, []
    for step in theta.flatten().tolist():
        total = math.fmod(total + step, 2 * math.pi)
        angles.append(total)
    torch.testing.assert_close(y.flatten().double(), torch.tensor(angles, dtype=torch.float64).cos(), rtol=0, atol=1e-6)
    expected = torch.tensor([math.cos(total), math.sin(total)])
    torch.testing.assert_close(final.S.flatten(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "update, slug, words",
    [
        ("S' = diag(w) rot(theta) S + k v^T", "rotation-unequal-decay", "diag(pairs(a))"),
        ("S' = a * S + beta * rot(theta) S + k v^T", "unsupported-lowering", "its parts turn by different angles"),
    ],
)
def test_what_no_frame_carries_is_refused(update, slug, words):
    given = GIVEN.replace("b, raw : scalar", "b, raw : scalar; x : [N]") + "; w : [N] in (0, 1) = sigmoid(x)"
    text = "recurrence turning {\n  dim N = 4, P = 4\n  " + "\n  ".join((given, STATE, f"update {update}", READ)) + "\n}\n"
    source = Source("turning.ssm", text)
    with pytest.raises(SpecError) as error:
        build(source)
    (refusal,) = error.value.diagnostics
    if slug == "unsupported-lowering":  # sound, and told before it is built
        assert refused(check(source)) == (refusal,)
    assert refusal.slug == slug and words in str(refusal.title) + str(refusal.help)
    start, end = refusal.primary.span.start, refusal.primary.span.end
    assert text[start:end].strip()


def test_an_odd_number_of_rows_makes_no_pairs():
    with pytest.raises(SpecError) as error:
        check(Source("turning.ssm", spec("data").replace("N = 4", "N = 5")))
    assert "N/2" in str(error.value)


def test_a_key_in_another_frame_is_found_by_validation():
    from dataclasses import replace

    from ssmgen.lower import lower
    from ssmgen.schedule import schedule

    (classified,) = check(Source("turning.ssm", spec("read before"))).after("classify").values()
    plan = schedule(classified)
    validate(plan, lower(plan))
    (walk,) = classified.walks
    (row,) = walk.rows
    reading = replace(walk.readings[0], query=replace(row.key, right=walk.readings[0].query.right))
    wrong = schedule(replace(classified, walks=(replace(walk, readings=(reading,)),)))
    with pytest.raises(ValidationError, match="differs from the spec"):
        validate(wrong, lower(wrong))
