"""The eager reference: equal to the interpreter on every recurrence, equal to loops written from the papers, and stand-alone."""

from __future__ import annotations

import ast
import shutil
import subprocess

import pytest
from conftest import ROOT

from ssmgen.parse import parse
from ssmgen.reference import render_reference
from ssmgen.resolve import resolve
from ssmgen.runtime.load import load
from ssmgen.runtime.verify import REFERENCE_CHECKS, verify_checks
from ssmgen.source import Source

torch = pytest.importorskip("torch")

SPECS = sorted((*(ROOT / "examples").glob("*.ssm"), *(ROOT / "tests" / "sketches").glob("*.ssm")))


def recurrences(path):
    return resolve(parse(Source(path.name, path.read_text(encoding="utf-8")))).recurrences


def recurrence_of(text: str):
    (recurrence,) = resolve(parse(Source("test.ssm", text))).recurrences
    return recurrence


def package(recurrence, folder):
    """A package that holds nothing but `reference.py`."""
    target = folder / recurrence.name
    target.mkdir()
    (target / "reference.py").write_text(render_reference(recurrence), encoding="utf-8")
    (target / "__init__.py").write_text(f"from .reference import Output, State, {recurrence.name}_reference\n", encoding="utf-8")
    return load(target)


def assert_verified(recurrence, folder):
    report = verify_checks(package(recurrence, folder), recurrence, REFERENCE_CHECKS)
    assert report.passed, "\n".join(map(str, report.failures))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_reference_is_the_interpreter(path, tmp_path):
    for recurrence in recurrences(path):
        assert_verified(recurrence, tmp_path)


VARIANTS = {
    "reversed": """
recurrence backwards {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; g : scalar <= 0
  state S : real [N, P]
  update S' = exp(g) * S + k v^T
  output o = q^T S'
  time reversed
}""",
    "delayed": """
recurrence shifted {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]
  let m : [N] = (k + k[-1]) / 2
  state S : real [N, P]
  update S' = S + m v[-1]^T
  output o = S'^T q
}""",
    "rotation": """
recurrence turning {
  dim N = 6, P = 3
  input q, k : [N]; v : [P]; theta : [N/2]; g : scalar <= 0
  state S : real [N, P]
  update S' = exp(g) * (rot(theta) S) + k v^T
  output o = S'^T q
}""",
    "rank": """
recurrence wide(R = 3) {
  dim N = 4, P = 3
  input q, k : [R, N]; v : [R, P]; a : scalar in (0, 1)
  state S : real [N, P]
  update S' = a * S + sum r in 1..R: k[r] v[r]^T
  output y[r] = S'^T q[r]
}""",
    "value side": """
recurrence columns {
  dim N = 4, P = 3
  input q, k : [N]; v, a : [P]
  state S : real [N, P]
  update S' = S diag(a) + k v^T
  output o = S'^T q
}""",
    "zoh of a diagonal rate": """
recurrence held {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; dt : scalar in (0, 1)
  param A_log : [N] per head
  state S : real [N, P]
  dynamics dS/dt = -diag(exp(A_log)) S + k v^T
  discretize zoh(dt)
  output o = S'^T q
}""",
    "bilinear of a scalar rate": """
recurrence tustin {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; dt : scalar in (0, 1)
  param A_log : scalar per head
  state S : real [N, P]
  dynamics dS/dt = k v^T - exp(A_log) * S
  discretize bilinear(dt)
  output o = S'^T q
}""",
    "two taps": """
recurrence taps {
  dim N = 4, P = 3
  input q, k : [N]; v : [P]; dt, lam : scalar in (0, 1)
  state S : real [N, P]
  dynamics dS/dt = -S + k v^T
  discretize exp_trapezoid(dt, lam)
  output o = S'^T q
}""",
    "a name of Python": """
recurrence named {
  dim N = 4, P = 3
  input lambda : scalar in (0, 1); t, state_ : [N]; length : [P]
  state S : real [N, P]
  update S' = lambda * S + t length^T
  output o = S'^T state_
}""",
}


@pytest.mark.parametrize("text", VARIANTS.values(), ids=VARIANTS.keys())
def test_everything_in_the_language(text, tmp_path):
    assert_verified(recurrence_of(text), tmp_path)


# --- the text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_it_imports_torch_and_nothing_of_ours(path):
    for recurrence in recurrences(path):
        tree = ast.parse(render_reference(recurrence))
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert {m.split(".")[0] for m in modules} <= {"__future__", "itertools", "math", "torch", "typing"}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed: the format of emitted text was NOT tested")
def test_it_is_formatted(path, tmp_path):
    for recurrence in recurrences(path):
        text = render_reference(recurrence)
        for command in (["format", "--diff"], ["check"]):
            run = ["ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml"), "-"]
            result = subprocess.run(run, input=text, capture_output=True, text=True)
            assert result.returncode == 0, result.stdout + result.stderr


def test_the_lines_of_the_spec_stand_above_those_of_torch():
    (recurrence,) = recurrences(ROOT / "examples" / "retnet.ssm")
    text = render_reference(recurrence)
    assert "    # retnet.ssm:9  S' = gamma * S + rope(k) v^T\n    S_next = gamma * S + _rope(k, position, -2) @ v.mT\n" in text
    assert "    # retnet.ssm:7  gamma = 1 - 2^(-5 - head)\n    gamma = 1 - 2 ** (-5 - head)\n" in text


def test_a_spec_cannot_write_python():
    """Text of the spec ends up in comments and docstrings, on one line, and closes neither."""
    text = '''# a """ b \\
recurrence odd {
  dim N = 2, P = 2
  input q, k : [N]; v : [P]
  state S : real [N, P]
  update S' = S + # """ raise
    k v^T
  output o = S'^T q
}'''
    rendered = render_reference(recurrence_of(text))
    tree = ast.parse(rendered)
    assert not any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def example(name, folder):
    (recurrence,) = recurrences(ROOT / "examples" / f"{name}.ssm")
    return getattr(package(recurrence, folder), f"{name}_reference")


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_low_precision_inputs_are_computed_in_float32(tmp_path):
    reference = example("linear_attention", tmp_path)
    q, k, v = (randn(1, 4, 1, 4).to(torch.bfloat16) for _ in range(3))
    output = reference(q, k, v)
    assert output.y.dtype == torch.bfloat16 and output.final_state.S.dtype == torch.float32
    exact = reference(q.float(), k.float(), v.float())
    assert torch.equal(output.y, exact.y.to(torch.bfloat16)) and torch.equal(output.final_state.S, exact.final_state.S)


def test_documents_may_be_empty(tmp_path):
    reference = example("linear_attention", tmp_path)
    q, k, v = (randn(1, 5, 2, 4) for _ in range(3))
    output = reference(q, k, v, cu_seqlens=torch.tensor([0, 0, 2, 2, 5]))
    assert output.y.shape == (1, 5, 2, 4) and output.final_state.S.shape == (4, 2, 4, 4)
    assert torch.equal(output.final_state.S[0], torch.zeros(2, 4, 4, dtype=torch.float64))
    torch.testing.assert_close(output.y[:, 2:], reference(q[:, 2:], k[:, 2:], v[:, 2:]).y)
