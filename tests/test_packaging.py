"""The wheel, installed in an empty environment elsewhere, works: data included, no torch, no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

SPEC = (
    "recurrence kept { dim N = 8, P = 4\n input q, k : [N]; v : [P]\n state S : real [N, P]\n update S' = S + k v^T\n output y = S'^T q }\n"
)


def done(*command, cwd, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd, env={**clean, **environment})
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory):
    """`ssmgen` of a fresh environment that holds the wheel and what it requires, nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    done(binaries / "python", "-m", "pip", "install", "-q", wheel, cwd=folder)
    return binaries / "ssmgen"


def test_the_wheel_holds_the_data_and_nothing_stray(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for top, kind in (("grammar", "*.lark"), ("templates", "*.jinja"), ("examples", "*.ssm")):
        for path in sorted((ROOT / top).rglob(kind)):
            assert f"ssmgen/_data/{path.relative_to(ROOT).as_posix()}" in names
    assert "ssmgen/_data/examples/demo.txt" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ssmgen"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_sdist_holds_what_a_wheel_is_built_from(tmp_path):
    build = "import hatchling.build, sys; print(hatchling.build.build_sdist(sys.argv[1]))"
    name = done(sys.executable, "-c", build, tmp_path, cwd=ROOT).split()[-1]
    names = {member.split("/", 1)[1] for member in tarfile.open(tmp_path / name).getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "grammar/ssm.lark", "examples/demo.txt", "ssmgen/cli.py"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "templates").rglob("*.jinja")} <= names


def test_the_installed_program_works_elsewhere(program, tmp_path):
    (tmp_path / "kept.ssm").write_text(SPEC)
    assert done(program, "--version", cwd=tmp_path).startswith("ssmgen ")
    assert done(program, "check", "kept.ssm", cwd=tmp_path) == "kept.ssm: ok (recurrence kept)\n"
    assert "retnet" in done(program, "list", "examples", cwd=tmp_path)
    done(program, "explain", "kept.ssm", cwd=tmp_path)
    done(program, "build", "kept.ssm", cwd=tmp_path)
    done(program, "build", "--check", cwd=tmp_path)
    assert (tmp_path / "generated" / "kept" / "op.py").is_file()


def test_without_torch_it_says_what_to_install(program, tmp_path):
    result = subprocess.run([program, "demo"], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1 and "pip install 'ssmgen[torch]'" in result.stderr
