"""Kernels of what runs on before the operator, interpreted: values and gradients against float64, packed, reversed, long."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from built import write
from test_kernels import interpreted, interpreting
from test_lookahead import text as ahead
from test_rotation import GIVEN, READ, STATE, spec
from torch.utils._python_dispatch import TorchDispatchMode

from ssmgen.runtime.load import load
from ssmgen.runtime.measure import typical
from ssmgen.runtime.verify_kernels import Trial, _data, sizes_near, watched
from ssmgen.runtime.verify_subject import Subject

MAXIMA = """recurrence stable {{
  dim    N = 4, P = 4
  input  q, k : [N]; v : [P]; i, f_raw : {type}{per}
  state  C : [N, P]; m : {type}
  update m' = max(logsigmoid(f_raw) + m, i)
         C' = {decay} C + {write} v^T
  output o = S'^T q
  {time}
}}
""".replace("S'^T q", "C'^T q")
NUMBER = {"type": "scalar", "decay": "exp(logsigmoid(f_raw) + m - m') *", "write": "exp(i - m') * k"}
COLUMN = {"type": "[N]", "decay": "diag(exp(logsigmoid(f_raw) + m - m'))", "write": "(exp(i - m') * k)"}
SPECS = {name: spec(name) for name in ("of a group", "of the position", "micro-steps", "reversed", "bilinear")} | {
    **{f"ahead, {name}": ahead(name) for name in ("backward", "one for all")},
    "a maximum of numbers of a group": MAXIMA.format(**NUMBER, per=" per group", time=""),
    "a maximum of every key, reversed": MAXIMA.format(**COLUMN, per="", time="time reversed"),
}


class Calls(TorchDispatchMode):
    """The calls of operators of what runs on."""

    def __enter__(self):
        self.found: list[tuple] = []
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "running_" in str(function):
            self.found.append((function, args))
        return function(*args, **(kwargs or {}))


def first_alone(op) -> None:
    """What runs on before the operator takes its kernels, and the operator its torch form."""
    calls: list[bool] = []
    op._is_fused = lambda *_: calls.append(True) or len(calls) == 1


def off(name: str, folder: Path, trial: Trial) -> dict[str, float]:
    """By how much results and gradients are off."""
    recurrence, runs = write(SPECS[name], folder)[1], []
    subject = Subject(load(folder / recurrence.name), recurrence, "cpu")
    op = sys.modules[f"{subject.package.__name__}.op"]
    case, start, cut = _data(subject, replace(trial, sizes=sizes_near(subject, (4, 4))), "float32")

    def run(c, s):
        runs.append(subject.op(c, s, cu_seqlens=cut))
        return runs[-1]

    op._is_fused = lambda *_: False
    wide = tuple(x.double() if x.is_floating_point() else x for x in start)
    expected = subject.gradients(run, case.to(torch.float64), wide)
    first_alone(op)
    with watched(op._running()), Calls() as calls:
        found = subject.gradients(run, case, start)
    for function, given in calls.found if trial.tokens == 1 else ():
        fresh = tuple(x.detach().clone() if isinstance(x, torch.Tensor) else x for x in given)
        torch.library.opcheck(function, fresh, test_utils=("test_schema", "test_faketensor"))
    errors = {n: typical(a, e) for n, a, e in zip(("y", *subject.names), runs[1].tensors, runs[0].tensors, strict=True)}
    return errors | {f"gradient of {n}": typical(g, expected[n]) for n, g in found.items()}


def interpret(folder: Path) -> None:
    """Called where triton interprets."""
    for number, name in enumerate(SPECS):
        for trial in (Trial(1, 66, 2, {}), Trial(1, 71, 2, {}, (0, 2, 2, 68, 71)), Trial(2, 1, 2, {})):
            errors = off(name, folder / str(number), trial)
            print(*(f"{name}: {n} is off by {e:.1e}, {trial.words}\n" for n, e in errors.items() if not e < 2e-5), end="", sep="")
    print("held")


def interpret_long(folder: Path) -> None:
    """The same, of an angle of more chunks than are joined at once."""
    given = (GIVEN, STATE, "update S' = rot(theta) S + k v^T", READ)
    text = "recurrence turning {\n  dim N = 2, P = 1\n  " + "\n  ".join(given) + "\n}\n"
    package, T = load(write(text, folder)[0]), 4096 + 69
    op = sys.modules[f"{package.__name__}.op"]
    theta = torch.empty(1, T, 1, 1).uniform_(0.5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    made, last = op._Running_Phi.apply(torch.zeros(1, T, 1, 2), theta, None)
    exact = theta.detach().double().cumsum(1)
    off = torch.remainder(made.detach().double() - exact + math.pi, 2 * math.pi) - math.pi
    weights = torch.linspace(-1, 1, T).view_as(theta)
    (slope,) = torch.autograd.grad([made, last], theta, [weights, torch.ones_like(last)])
    # inside a chunk angles add up in units of 2^-32 turns: 64 of them are 1e-7
    print(float(off.abs().max()) < 4e-7, float((last.detach().flatten() - made[0, -1, 0, 0]).abs()) < 4e-7, end=" ")
    print(typical(slope, weights.double().flip(1).cumsum(1).flip(1) + 1) < 1e-6)


@interpreted
@pytest.mark.slow
def test_interpreted_running_values(tmp_path):
    assert interpreting(tmp_path, module="test_running") == "held"


@interpreted
def test_a_long_angle_loses_nothing(tmp_path):
    assert interpreting(tmp_path, module="test_running", function="interpret_long") == "True True True"
