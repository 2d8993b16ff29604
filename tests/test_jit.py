"""`ssmgen.compile`, the cell magic, the demonstration: what a person runs first."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

torch = pytest.importorskip("torch")

import ssmgen  # noqa: E402
from ssmgen.diagnostics import SpecError  # noqa: E402
from ssmgen.figures import figure  # noqa: E402
from ssmgen.runtime import demo, jit, magic  # noqa: E402

SPEC = """\
recurrence kept {
  dim    N = 8, P = 4
  input  q, k : [N]; v : [P]; raw : scalar
  gate   a in (0, 1) = sigmoid(raw)
  state  S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q
}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSMGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def arguments(n=8, p=4, tokens=5):
    torch.manual_seed(0)
    return torch.randn(1, tokens, 2, n), torch.randn(1, tokens, 2, n), torch.randn(1, tokens, 2, p), torch.randn(1, tokens, 2)


def test_compile_gives_the_package():
    package = ssmgen.compile(SPEC)
    given = arguments()
    torch.testing.assert_close(package.kept(*given).y, package.kept_reference(*given).y)


def test_compile_again_reads_the_cache(cache, monkeypatch):
    package = ssmgen.compile(SPEC)
    monkeypatch.setattr("ssmgen.compiler.build", lambda *_: pytest.fail("built again"))
    assert ssmgen.compile(SPEC) is package
    assert len(list(cache.iterdir())) == 1


def test_an_incomplete_cache_is_built_again(cache):
    ssmgen.compile(SPEC)
    (folder,) = cache.iterdir()
    (folder / "packages.txt").unlink()
    ssmgen.compile(SPEC)
    assert (folder / "packages.txt").read_text() == "kept\n"


def test_two_sizes_of_one_spec_live_side_by_side():
    small, large = ssmgen.compile(SPEC), ssmgen.compile(SPEC, N=16)
    assert small is not large
    for package, n in ((small, 8), (large, 16), (small, 8)):
        given = arguments(n)
        torch.testing.assert_close(package.kept(*given).y, package.kept_reference(*given).y)


def test_compile_takes_a_path_and_several_recurrences(tmp_path):
    (tmp_path / "two.ssm").write_text(SPEC + SPEC.replace("kept", "other"))
    package = ssmgen.compile(tmp_path / "two.ssm")
    assert package.kept.kept_reference and package.other.other_reference


def test_compile_raises_what_a_person_can_read(tmp_path):
    with pytest.raises(SpecError, match="error"):
        ssmgen.compile(SPEC.replace("k v^T", "v k^T"))
    with pytest.raises(FileNotFoundError):
        ssmgen.compile(tmp_path / "nowhere.ssm")


def test_compile_is_reached_lazily():
    code = "import ssmgen, sys; assert 'compile' in dir(ssmgen); assert 'torch' not in sys.modules and 'ssmgen.compiler' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_cell_magic(capsys):
    registered = {}

    class Notebook:
        user_ns: dict = {}

        def register_magic_function(self, function, kind, name):
            registered[kind, name] = function

    ssmgen.load_ipython_extension(Notebook())
    registered["cell", "ssm"]("N=16", SPEC)
    assert Notebook.user_ns["kept"].kept_reference
    assert capsys.readouterr().out == "compiled: kept\n"


def test_cell_magic_shows_faults(capsys):
    magic.run_cell("", SPEC.replace("k v^T", "v k^T"), {})
    assert "error[shape-mismatch]" in capsys.readouterr().err
    magic.run_cell("N:16", SPEC, {})
    assert "N=64" in capsys.readouterr().err


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert jit.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SSMGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform.startswith("linux"):
        assert jit.cache_folder() == tmp_path / "xdg" / "ssmgen"


# --- verify, demo, ticks -----------------------------------------------------------------------------------------


def run(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "ssmgen", *words], capture_output=True, text=True, cwd=cwd, env=environment)


def test_verify_writes_a_report(tmp_path):
    (tmp_path / "kept.ssm").write_text(SPEC)
    done = run("verify", "kept.ssm", "--device", "cpu", "--json", "report.json", cwd=tmp_path)
    assert done.returncode == 0 and "all passed" in done.stdout, done.stdout + done.stderr
    (report,) = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] and report["rows"]


@pytest.mark.slow
def test_the_demonstration_runs_from_spec_to_text(tmp_path):
    done = run("demo", "--steps", "3", "--out", "shown", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step by step against one forward" in done.stdout
    assert (tmp_path / "shown" / "loss.svg").read_text().startswith("<svg")
    assert run("demo", "--steps", "1", "--out", "shown", cwd=tmp_path).returncode == 0, "over its own output"


def test_the_demonstration_has_text_to_learn():
    text = demo.corpus()
    assert len(text) > 100_000 and set(text) <= {chr(c) for c in range(32, 127)} | {"\n"}


def test_ticks_are_round_and_enclose():
    for low, high in ((0, 1), (1.3, 4.7), (-3, 700), (2.0, 2.0), (0, 1e-4)):
        found = figure.ticks(low, high)
        assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 12
