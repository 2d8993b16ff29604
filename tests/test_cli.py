"""The command line: exit codes, words, and that no traceback ever reaches a user."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
import tempfile

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmgen import cli, compiler

GOOD = """\
# A sum that forgets
recurrence forgetful {
  dim    N = 8, P = 4
  input  q, k : [N]; v : [P]; raw : scalar
  gate   g <= 0 = -softplus(raw)
  state  S : real [N, P]
  update S' = exp(g) * S + k v^T
  output y = S'^T q
}
"""
BAD = GOOD.replace("exp(g) * S", "exp(g) * Z")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """`run(words...)` in an empty folder gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def call(*words: str, stdin: str = ""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as stop:
            cli.main(list(words))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return stop.value.code, captured.out, captured.err

    return call


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "forgetful.ssm"
    path.write_text(GOOD)
    return path


# --- starting ----------------------------------------------------------------------------------------------------


def test_help_starts_at_once():
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "ssmgen", "--help"], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.2


def test_check_is_quick(spec):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "ssmgen", "check", str(spec)], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.8


@pytest.mark.parametrize("command", sorted(cli.cli.commands))
def test_every_command_has_help(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0 and out.startswith(f"Usage: ssmgen {command}")
    assert cli.cli.commands[command].help


def test_unknown_command_and_option_are_the_users(run):
    assert run("cheque")[0] == 1
    assert run("check")[0] == 1
    assert run("check", "--fast", "x")[0] == 1


# --- check -------------------------------------------------------------------------------------------------------


def test_check_says_what_it_found(run, spec):
    code, out, err = run("check", "forgetful.ssm")
    assert (code, out, err) == (0, "forgetful.ssm: ok (recurrence forgetful)\n", "")


def test_check_shows_the_place(run, tmp_path):
    (tmp_path / "bad.ssm").write_text(BAD)
    code, out, err = run("check", "bad.ssm")
    assert code == 1 and out == ""
    assert re.match(r"error\[[a-z-]+\]: ", err) and "bad.ssm:7:" in err and "^" in err


def test_check_reads_folders_and_goes_on_after_a_fault(run, spec, tmp_path):
    (tmp_path / "bad.ssm").write_text(BAD)
    code, out, err = run("check", ".")
    assert code == 1 and "forgetful.ssm: ok" in out and "1 of 2 files at fault" in err


def test_check_reads_standard_input(run):
    code, out, _ = run("check", "-", stdin=GOOD)
    assert code == 0 and out.startswith("<stdin>: ok")


def test_check_json_and_sarif(run, tmp_path):
    (tmp_path / "bad.ssm").write_text(BAD)
    code, out, err = run("check", "bad.ssm", "--format", "json")
    (diagnostic,) = json.loads(out)
    assert code == 1 and err == "" and diagnostic["file"] == "bad.ssm" and diagnostic["primary"]["start"]["line"] == 7
    code, out, _ = run("check", "bad.ssm", "--format", "sarif")
    log = json.loads(out)
    assert code == 1 and log["version"] == "2.1.0"
    assert log["runs"][0]["results"][0]["ruleId"] == diagnostic["slug"]


def test_check_json_of_nothing_wrong_is_an_empty_list(run, spec):
    code, out, _ = run("check", "forgetful.ssm", "--format", "json")
    assert (code, json.loads(out)) == (0, [])


def test_sizes_can_be_replaced(run, spec):
    assert run("check", "forgetful.ssm", "--dim", "N=16")[0] == 0
    code, _, err = run("check", "forgetful.ssm", "--dim", "M=16")
    assert code == 1 and "error[unknown-dim]" in err and "`N`, `P`" in err
    for size in ("N", "N=", "N=0", "N=x", "=4", "N=-1"):
        assert run("check", "forgetful.ssm", "--dim", size)[0] == 1


@pytest.mark.parametrize("name, content", [("nofile.ssm", None), ("latin.ssm", b"# caf\xe9\n"), ("nul.ssm", b"\0")])
def test_unreadable_files_are_the_users(run, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = run("check", name)
    assert code == 1 and name in err


def test_a_near_miss_is_suggested(run):
    code, _, err = run("check", "retnett")
    assert code == 1 and "did you mean `retnet`?" in err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*"{}()[]'^*+-=.:;,#\n abSk019é\t", "recurrence ", "state ", "update ", "output ", "exp"]), max_size=60))
def test_any_text_ends_in_a_diagnostic(run, words):
    code, _, err = run("check", "-", stdin="".join(words))
    assert code in (0, 1), err


# --- our own faults, and the machine's ----------------------------------------------------------------------------


def test_a_bug_is_one_line_and_a_file(run, spec, monkeypatch):
    def broken(*_):
        raise ValueError("a law\nwas broken")

    monkeypatch.setattr(compiler, "check", broken)
    code, out, err = run("check", "forgetful.ssm")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("this is a bug in ssmgen: ValueError: a law was broken")
    path = re.search(r"details in (.*)\)", err)[1]
    with open(path) as file:
        assert "Traceback" in file.read()


def test_debug_shows_the_traceback(monkeypatch, spec, capsys):
    def broken(*_):
        raise ValueError("broken")

    monkeypatch.setattr(compiler, "check", broken)
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(spec), "--debug"])
    assert stop.value.code == 2 and "Traceback" in capsys.readouterr().err


def test_interrupting_is_quiet(run, spec, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compiler, "check", interrupted)
    code, out, err = run("check", "forgetful.ssm")
    assert (code, out, err.strip()) == (130, "", "interrupted")


@pytest.mark.parametrize("words", [["verify", "retnet"], ["bench", "retnet"], ["demo"]])
def test_without_torch_the_command_says_what_to_install(run, monkeypatch, words):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run(*words)
    assert code == 1 and "pip install 'ssmgen[torch]'" in err


def test_a_full_disk_is_no_bug(run, spec, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "generated/forgetful/op.py")

    monkeypatch.setattr("ssmgen.write.write_package", full)
    code, _, err = run("build", "forgetful.ssm")
    assert code == 1 and "generated/forgetful/op.py: no space left on device" in err


# --- build -------------------------------------------------------------------------------------------------------


def test_build_writes_a_package_once(run, spec, tmp_path):
    code, out, err = run("build", "forgetful.ssm")
    assert code == 0 and err == "" and re.search(r"generated/forgetful: \d+ files written", out)
    files = {path.name for path in (tmp_path / "generated" / "forgetful").iterdir()}
    assert {"__init__.py", "reference.py", "op.py", "module.py", "test_forgetful.py"} <= files
    assert "unchanged" in run("build", "forgetful.ssm")[1]


def test_check_of_a_build(run, spec, tmp_path, monkeypatch):
    run("build", "forgetful.ssm", "--dim", "N=16")
    assert run("build", "--check")[0] == 0
    assert run("build", "--check", "forgetful.ssm", "--dim", "N=16")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("build", "--check", "--out", "../generated")[0] == 0


def test_check_of_a_build_shows_what_changed_and_how_to_accept_it(run, spec, tmp_path):
    run("build", "forgetful.ssm", "--dim", "N=16")
    spec.write_text(GOOD.replace("y = S'^T q", "y = 2 * S'^T q"))
    (tmp_path / "generated" / "forgetful" / "module.py").unlink()
    code, out, _ = run("build", "--check")
    assert code == 1
    assert "generated/forgetful/module.py: missing" in out and "generated/forgetful/reference.py: changed" in out
    assert "to accept: ssmgen build forgetful.ssm --dim N=16" in out and "\n-" in out and "\n+" in out


def test_a_package_whose_spec_is_gone_is_stale(run, spec, tmp_path):
    run("build", "forgetful.ssm")
    spec.write_text(GOOD.replace("recurrence forgetful", "recurrence other"))
    code, out, _ = run("build", "--check")
    assert code == 1 and "generated/forgetful: stale" in out
    spec.unlink()
    code, _, err = run("build", "--check")
    assert code == 1 and "forgetful.ssm" in err


def test_build_refuses_to_lose_an_edit(run, spec, tmp_path):
    run("build", "forgetful.ssm")
    path = tmp_path / "generated" / "forgetful" / "op.py"
    path.write_text(path.read_text() + "\n# my own line\n")
    spec.write_text(GOOD.replace("y = S'^T q", "y = 2 * S'^T q"))
    code, _, err = run("build", "forgetful.ssm")
    assert code == 1 and "error[edited-output]" in err and "my own line" in path.read_text()


def test_build_needs_a_file_of_its_own(run):
    assert run("build")[0] == 1
    assert run("build", "-", stdin=GOOD)[0] == 1
    assert run("build", "retnet")[0] == 1
    assert run("build", "--check")[0] == 1


def test_what_a_build_would_leave_out_is_refused(run, tmp_path):
    (tmp_path / "empty.ssm").write_text("# nothing yet\n")
    code, _, err = run("build", "empty.ssm")
    assert code == 1 and "no recurrence" in err
    (tmp_path / "attention.ssm").write_text((ROOT / "tests" / "sketches" / "forgetting.ssm").read_text())
    code, _, err = run("build", "attention.ssm")
    assert code == 1 and "error[unsupported-lowering]" in err


def test_two_files_of_one_name_are_refused(run, spec, tmp_path):
    (tmp_path / "twin.ssm").write_text(GOOD)
    code, _, err = run("build", "forgetful.ssm", "twin.ssm")
    assert code == 1 and "also declared in forgetful.ssm" in err


def test_what_has_no_kernel_yet_is_refused_by_axis(run, tmp_path):
    text = GOOD.rstrip().removesuffix("}") + "  time bidirectional\n}\n"
    (tmp_path / "mixed.ssm").write_text(text)
    code, out, err = run("check", "mixed.ssm")
    assert code == 0 and "mixed.ssm: ok" in out and "warning[unsupported-lowering]" in err
    code, _, err = run("build", "mixed.ssm")
    assert code == 1 and "axis time is `bidirectional`" in err and not (tmp_path / "generated").exists()


# --- the rest ----------------------------------------------------------------------------------------------------


def test_explain_a_spec(run, spec):
    code, out, _ = run("explain", "forgetful.ssm")
    assert code == 0
    for word in ("recurrence forgetful", "N = 8", "decay", "scalar", "adjoint", "flops"):
        assert word in out


@pytest.mark.parametrize("name", compiler.PASSES)
def test_every_intermediate_prints(run, spec, name):
    code, out, _ = run("explain", "forgetful.ssm", "--after", name)
    assert code == 0 and out.strip() and "object at 0x" not in out


def test_explain_a_rule(run):
    from ssmgen.rules import RULES

    slug = next(iter(RULES))
    code, out, _ = run("explain", slug)
    assert code == 0 and out.startswith(f"{slug}: ") and "instead" in out
    assert run("explain", "no-such-rule")[0] == 1


def test_list_has_every_section(run):
    code, out, _ = run("list")
    assert code == 0
    for word in ("examples", "functions", "discretizations", "features", "rules", "softplus", "retnet"):
        assert word in out
    assert "softplus" not in run("list", "examples")[1]


def test_new_starts_from_an_example(run, tmp_path):
    code, out, _ = run("new", "mine", "--like", "retnet")
    assert code == 0 and "recurrence mine" in (tmp_path / "mine.ssm").read_text()
    assert run("check", "mine.ssm")[0] == 0
    assert run("new", "mine", "--like", "retnet")[0] == 1, "never over a file"
    assert run("new", "../mine", "--like", "retnet")[0] == 1
    code, _, err = run("new", "other")
    assert code == 1 and "retnet" in err


@pytest.mark.parametrize("like", sorted(cli._examples()))
def test_every_example_can_be_started_from(run, like):
    assert run("new", "mine", "--like", like)[0] == 0
    assert run("check", "mine.ssm")[0] == 0


def test_doctor_reports(run):
    code, out, _ = run("doctor")
    assert code == 0 and "torch" in out and "python" in out
