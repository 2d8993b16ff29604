"""Every message as a reader sees it: `diagnostics/<slug>.ssm` beside `<slug>.stderr`. `UPDATE=1` accepts what is printed.

A slug that several passes raise has more pairs, `<slug>.<pass>.ssm`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT

from ssmgen import render
from ssmgen.compiler import build, check
from ssmgen.diagnostics import Severity, SpecError
from ssmgen.rules import RULES
from ssmgen.runtime.cross_compile import Failure, Usage
from ssmgen.runtime.target_limits import Kernel, diagnose
from ssmgen.runtime.targets import TARGETS
from ssmgen.source import Source

FOLDER = ROOT / "tests" / "diagnostics"
PAIRS = sorted(FOLDER.glob("*.ssm"))


# What compiling for a target gave, by slug. The words are tested here; real kernels are compiled in `test_targets.py`.
ON_TARGET = {
    "target-compilation": Failure("ValueError: numel (2097152) exceeds triton maximum tensor numel (1048576)", ""),
    "target-limit": Usage(255, 0, 158720, 0, ("mma.sync",)),
    "target-misread": Usage(255, 0, 49664, 0, ("wgmma",), "IADD3 R52, P1, R1, 0x2, RZ"),
    "target-spill": Usage(255, 456, 49664, 0, ("mma.sync",)),
}


def found(source: Source) -> tuple:
    """Every diagnostic of a source: errors of the pass that failed, else the warnings and notes, else why it is not lowered."""
    if (outcome := ON_TARGET.get(slug_of(Path(source.name)))) is not None:
        configuration = {"BT": 64, "BX": 4096, "PACKED": False, "num_warps": 4, "num_stages": 2}
        kernel = Kernel(TARGETS["sm_120"], "walk_kernel", configuration, "bfloat16", "backward", True, outcome)
        return tuple(diagnose(check(source).after("resolve")[source.name].recurrences[0], [kernel, kernel]))
    try:
        trace = check(source)
    except SpecError as error:
        return error.diagnostics
    if trace.warnings:
        return tuple(trace.warnings)
    try:
        build(source)
    except SpecError as error:
        return error.diagnostics
    return ()


def slug_of(path) -> str:
    return path.stem.partition(".")[0]


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_pair(path):
    source = Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    diagnostics = found(source)
    text = "\n\n".join(render.as_text(source, diagnostic) for diagnostic in diagnostics) + "\n"
    expected = path.with_suffix(".stderr")
    if os.environ.get("UPDATE"):
        expected.write_text(text, encoding="utf-8")
    assert slug_of(path) in {diagnostic.slug for diagnostic in diagnostics}
    assert text == expected.read_text(encoding="utf-8"), "accept with: UPDATE=1 pytest tests/test_diagnostics.py"


def test_every_rule_has_a_pair():
    assert sorted(RULES) == sorted({slug_of(path) for path in PAIRS})


def test_no_stray_expectation():
    assert [path.stem for path in sorted(FOLDER.glob("*.stderr"))] == [path.stem for path in PAIRS]


@pytest.mark.parametrize("slug", sorted(RULES))
def test_example_raises_its_slug_alone(slug):
    diagnostics = found(Source(f"{slug}.ssm", RULES[slug].example))
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity is Severity.ERROR]
    diagnostics = errors or diagnostics  # beside an error, a warning is its consequence
    assert {diagnostic.slug for diagnostic in diagnostics} == {slug}
    assert all(diagnostic.help for diagnostic in errors), "an error names an edit"


@pytest.mark.parametrize("slug", sorted(RULES))
def test_instead_compiles(slug):
    trace = check(Source(f"{slug}.ssm", RULES[slug].instead))
    assert slug not in {diagnostic.slug for diagnostic in trace.warnings}


def test_what_nothing_reads_is_a_warning_and_not_built():
    text = (FOLDER / "unread-state.ssm").read_text(encoding="utf-8").replace("a * Z + k", "a * Z + q")  # a walk of its own
    source = Source("unread.ssm", text)
    assert [diagnostic.slug for diagnostic in check(source).warnings] == ["unread-state"]
    with pytest.raises(SpecError) as refused:
        build(source)
    assert "nothing reads" in refused.value.diagnostics[0].title
