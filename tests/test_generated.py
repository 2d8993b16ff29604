"""The committed packages: exactly what a build gives, standing on their own, looking hand-written."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from ssmgen.write import packages, read_header

GENERATED = ROOT / "generated"
PACKAGES = list(packages(GENERATED))
FILES = sorted(path for name in PACKAGES for path in (GENERATED / name).glob("*.py"))


def names(path) -> str:
    return path.relative_to(GENERATED).as_posix()


def test_there_are_packages():
    assert PACKAGES
    assert sorted(PACKAGES) == sorted(path.name for path in GENERATED.iterdir() if path.is_dir() and path.name != "__pycache__")


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_a_build_gives_the_same_bytes(seed):
    done = subprocess.run(
        [sys.executable, "-m", "ssmgen", "build", "--check"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("path", FILES, ids=names)
def test_header(path):
    text = path.read_text(encoding="utf-8")
    header = read_header(text)
    assert header is not None and header.matches(text)
    assert header.source.startswith("examples/")
    assert "\r" not in text and text.endswith("\n") and "\t" not in text


@pytest.mark.parametrize("path", FILES, ids=names)
def test_imports_are_torch_and_the_standard_library(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module)
    is_kernel = path.name in ("kernels.py", "running.py", "tuning.py") or path.name.startswith("decode")
    extra = ["triton"] if is_kernel else ["pytest"] if path.name.startswith("test_") else []
    allowed = {"torch", *sys.stdlib_module_names, *extra}
    assert [name for name in found if name.split(".")[0] not in allowed] == []


ALONE = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ssmgen", "triton", "sympy"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import importlib
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    assert name in package.__all__ and f"{name}_reference" in package.__all__
    # a recurrence from the last token to the first has no step
    is_reversed = "reversed" in open(f"{name}/reference.py").read()
    assert (f"{name}_step" in package.__all__) != is_reversed
"""


def test_packages_stand_alone(tmp_path):
    for name in PACKAGES:
        shutil.copytree(GENERATED / name, tmp_path / name)
    done = subprocess.run([sys.executable, "-c", ALONE, *PACKAGES], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["format", "--check"], ["check"]], ids=["format", "lint"])
def test_the_pinned_formatter_and_linter_agree(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", "generated"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_the_emitted_tests_pass_away_from_here(name, tmp_path):
    shutil.copytree(GENERATED / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:]
