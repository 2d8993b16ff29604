"""The verifier: it passes what is right, and every fault put into a package is found by the check that should find it."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
import sys

import pytest
from built import example, write
from conftest import ROOT

torch = pytest.importorskip("torch")

from ssmgen import compiler  # noqa: E402
from ssmgen.runtime import interpreter, jit, verify_apart, verify_kernels  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.measure import largest, typical  # noqa: E402
from ssmgen.runtime.verify import CHECKS, Report, parts, verify, verify_checks  # noqa: E402
from ssmgen.runtime.verify_kernels import SLACK  # noqa: E402
from ssmgen.source import Source  # noqa: E402

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.ssm"))


def words(report: Report) -> str:
    return "\n".join(f"{row.check}, {row.compared}: {row.error:.2g} > {row.tolerance:.2g} ({row.reason})" for row in report.failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_passes(name, tmp_path):
    report = verify(*example(name, tmp_path))
    assert report.passed, words(report)


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """The folder of a gated package and its spec; mutants are copies of it."""
    path = ROOT / "examples" / "simple_gla.ssm"
    return write(path.read_text(encoding="utf-8"), tmp_path_factory.mktemp("gated"), path.name)


MUTANTS = {
    "a row sees the next token": ("op.py", r"\.triu\(1\)", ".triu(2)", ("op = reference", "causality")),
    "half of the decay's gradient": (
        "op.py",
        r"dG = eL \+ eM\.sum\(-1\) - eM\.sum\(-2\) - eR",
        "dG = eL + eM.sum(-1) - eR",
        ("op gradients",),
    ),
    "a step that forgets to move the state": ("op.py", r"state\.copy_\(value\)", "value.clone()", ("step", "module")),
    "documents that meet": ("op.py", r"offset < length\[document\]\[:, None\]", "offset < rows", ("packed",)),
    "an output that is not a number": (
        "op.py",
        r"(?m)^    o = torch\.einsum\(",
        "    o = math.nan * torch.einsum(",
        ("op = reference", "split", "op precision"),
    ),
    "another scale in the reference": ("reference.py", r"N\*\*-0\.5", "N**-0.25", ("reference = interpreter",)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_fault_is_found(mutant, gated, tmp_path):
    file, old, new, checks = MUTANTS[mutant]
    folder, spec = gated
    copy = shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    text, count = re.subn(old, new, (copy / file).read_text(encoding="utf-8"))
    assert count, f"nothing to change in {file}"
    (copy / file).write_text(text.replace("from typing", "import math\nfrom typing", 1), encoding="utf-8")
    # A namespace of its own: the mutant's operators must not replace those of the sound package.
    op = (copy / "op.py").read_text(encoding="utf-8")
    (copy / "op.py").write_text(op.replace('NAMESPACE = "', f'NAMESPACE = "mutant{list(MUTANTS).index(mutant)}_'), encoding="utf-8")
    for name in checks:
        report = verify_checks(copy, spec, {name: CHECKS[name]})
        assert not report.passed, f"`{name}` did not see it"


def test_a_check_that_raises_is_a_row_that_failed(gated, tmp_path):
    folder, spec = gated
    copy = shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "op.py").write_text("raise RuntimeError('broken on import')\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="broken on import"):
        verify(copy, spec)
    package = load(folder)
    report = verify_checks(package, spec, {"odd": lambda subject: 1 / 0})
    assert not report.passed and report.rows[0].error == math.inf and "ZeroDivisionError" in report.rows[0].reason


def test_nan_is_far_from_everything():
    nan, one = torch.tensor([math.nan]), torch.tensor([1.0])
    for distance in (largest, typical):
        assert distance(nan, one) == distance(one, nan) == distance(nan, nan) == math.inf
        assert distance(torch.ones(2), one) == math.inf
        assert distance(one, one) == 0


def test_a_report_is_json_and_a_table(gated):
    from rich.console import Console

    folder, spec = gated
    report = verify_checks(load(folder), spec, {"step": CHECKS["step"]})
    data = json.loads(report.to_json())
    assert data["passed"] and data["name"] == spec.name and data["rows"][0]["check"] == "step = forward"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert "step = forward" in text and "pass" in text


def test_a_report_without_rows_has_proved_nothing(gated):
    folder, spec = gated
    assert not verify_checks(load(folder), spec, {}).passed


def test_the_same_folder_is_loaded_once(gated, tmp_path):
    folder, _ = gated
    assert load(folder) is load(folder)
    copy = shutil.copytree(folder, tmp_path / folder.name)
    assert load(copy) is load(folder)
    (copy / "reference.py").write_text((copy / "reference.py").read_text() + "\n# changed\n")
    (copy / "op.py").write_text((copy / "op.py").read_text().replace('NAMESPACE = "', 'NAMESPACE = "changed_'))
    assert load(copy) is not load(folder)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")


def test_the_parts_are_all_checks_of_all_dtypes():
    assert {name for part in parts(16) for name in part} == set(CHECKS)
    found = [(name, check.keywords["dtypes"]) for part in parts(16) for name, check in part.items() if hasattr(check, "keywords")]
    for name in ("compilation", "kernels", "decode kernel"):
        assert {dtype for one, dtypes in found if one == name for dtype in dtypes} == set(SLACK)


def test_a_part_in_a_process_finds_what_it_does_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SSMGEN_CACHE", str(tmp_path))
    path = ROOT / "examples" / "echo.ssm"
    source = Source(path.name, path.read_text(encoding="utf-8"))
    (spec,) = compiler.check(source).after("resolve")[source.name].recurrences
    monkeypatch.setattr(verify_apart, "parts", lambda cores, device, is_quick: parts(cores)[:1])
    shown = []
    apart = verify_apart.verify(source, spec, device="cpu", cores=2, jobs=2, shown=shown.append)
    here = verify_checks(jit.packages(source, {})[spec.name], spec, parts(2)[0])
    assert apart.passed and apart.rows == here.rows == tuple(shown)


@pytest.mark.skipif(
    bool(interpreter.missing()), reason=f"nothing is interpreted, and the kernels were NOT verified: {interpreter.missing()}"
)
@pytest.mark.slow
def test_kernels_are_verified_without_a_gpu(tmp_path, monkeypatch):
    """Both directions and the step, in a process of its own."""
    monkeypatch.setenv("SSMGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(verify_apart, "parts", lambda cores, device, is_quick: parts(cores, device)[:1])
    text = """recurrence leak {
  dim    N = 8, P = 8
  input  k, q : [N]; v : [P]; raw : scalar
  gate   a in (0, 1) = sigmoid(raw)
  state  S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q
}
"""
    source = Source("leak.ssm", text)
    (spec,) = compiler.check(source).after("resolve")[source.name].recurrences
    report = verify_apart.verify(source, spec, device=interpreter.DEVICE, cores=2, jobs=2)
    assert report.passed, [row for row in report.rows if not row.passed]
    assert {row.check for row in report.rows} == {"kernels, forward", "kernels, backward", "decode kernel, step"}
    assert all(row.compared.startswith("float32") and row.error > 1e-9 for row in report.rows), "something was computed, in float32"
    with pytest.raises(RuntimeError, match="not started"), interpreter.acting():
        pass


def test_a_part_that_ends_has_failed_and_the_others_are_measured(gated):
    _, spec = gated
    program = """import json, sys
part = json.load(sys.stdin)["part"]
if part == 3:
    sys.exit("an illegal access")
print(json.dumps({"words": "at work"}))
row = {"check": str(part), "compared": "", "error": float("inf") if part == 4 else 0.0, "tolerance": 0.0, "reason": ""}
print(json.dumps({"row": row}))
"""
    said = []
    report = verify_apart.verify(Source("a.ssm", ""), spec, device="cpu", cores=9, jobs=3, progress=said.append, program=("-c", program))
    assert [row.check for row in report.rows] == ["0", "1", "2", "compilation to decode kernel", "4", "5", "6"]
    assert {row.check for row in report.failures} == {"compilation to decode kernel", "4"} and said == ["at work"] * 6
    assert report.rows[3].reason == "the process ended with code 1: an illegal access"


@pytest.mark.slow
def test_the_tests_of_a_package_pass(gated):
    folder, spec = gated
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", str(folder)], capture_output=True, text=True, cwd=folder.parent)
    assert run.returncode == 0, run.stdout[-3000:]


def test_what_the_eager_reference_cannot_hold_is_not_asked_of_kernels():
    def one(name, error):
        return verify_kernels.Measured("backward", "its one configuration", name, error, 0.01, "2 x 3 tokens")

    given = [one("y", 0.005), one("gradient of q", 0.03), one("gradient of k", math.inf), one("gradient of v", math.nan)]
    said = {"y": 0.5, "gradient of q": 0.02, "gradient of k": math.inf, "gradient of v": 0.02}
    found = verify_kernels.judged(given, "float16", lambda: said)
    assert [(m.name, m.tolerance) for m in found] == [("y", 1.0), ("gradient of q", 0.04), ("gradient of v", 0.04)]
    assert [m.excess <= 1 for m in found] == [True, True, False], "a result that is no number is wrong where the reference has one"
    kept = verify_kernels.judged(given, "float32", lambda: said)
    assert [m.tolerance for m in kept] == [1.0, 0.04, 0.01, 0.04] and not kept[2].excess <= 1
    assert verify_kernels.judged(given[:1], "float16", lambda: pytest.fail("nothing is off")) == given[:1]


def test_a_sum_that_vanishes_by_chance_is_judged_over_more_data(monkeypatch):
    """The same error every time, of a sum that is near 0 with the first data: that says nothing. One that is large every time does."""

    def drawn(error, *sums):
        def one(subject, module, trial, dtype, number):
            exact = {"gradient of w": torch.tensor([sums[min(number, len(sums) - 1)]], dtype=torch.float64)}
            found = {"gradient of w": exact["gradient of w"] + error}
            asked.append(number)
            return verify_kernels._Drawn(found, exact, "forward", "backward", {"gradient of w"}, lambda: exact)

        return one

    trial = verify_kernels.Trial(1, 3, 1, {})
    for error, sums, draws, is_right in (
        (0.5, (2.0, 200.0), verify_kernels.DRAWS, True),
        (50.0, (2.0, 200.0), verify_kernels.DRAWS, False),
        (0.5, (200.0,), 1, True),
        (math.nan, (200.0,), 1, False),
    ):
        asked: list[int] = []
        monkeypatch.setattr(verify_kernels, "_drawn", drawn(error, *sums))
        (one,) = verify_kernels.compare(None, None, trial, "bfloat16")
        assert asked == list(range(draws)) and (one.excess <= 1) == is_right


def test_what_grows_beyond_float32_is_not_compared(tmp_path):
    """The eager reference leaves float32 as well: its error is no measure of the operator's."""
    text = "recurrence growing {\n  input x, u : scalar per channel\n  state h : real scalar per channel\n"
    text += "  update h' = (1 + u^2) * h + x\n  output h'\n}\n"
    report = verify_checks(*write(text, tmp_path), {"mixed gates": CHECKS["mixed gates"]})
    assert report.passed, words(report)
