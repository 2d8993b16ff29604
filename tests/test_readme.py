"""The README is true: its spec compiles, its diagnostic is what is printed, its links and commands exist."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import ROOT

from ssmgen import cli, compiler
from ssmgen.source import Source

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SPEC = re.search(r"```\n(recurrence .*?)```", TEXT, re.DOTALL)[1]


def test_the_spec_builds():
    assert "op.py" in compiler.build(Source("gated.ssm", SPEC)).packages["gated_retention"]


def test_the_diagnostic_is_the_one_that_is_printed(tmp_path):
    (tmp_path / "gated.ssm").write_text(SPEC.replace("sigmoid(raw + bias)  ", "exp(raw + bias)"))
    done = subprocess.run([sys.executable, "-m", "ssmgen", "check", "gated.ssm"], capture_output=True, text=True, cwd=tmp_path,
                          env={"PYTHONPATH": str(ROOT), "PATH": ""})  # fmt: skip
    shown = re.search(r"```\n(error\[.*?)\n```", TEXT, re.DOTALL)[1]
    assert shown == "\n".join(done.stderr.splitlines()[:-1])


def test_every_command_and_no_other_is_described():
    table = TEXT[TEXT.index("## Commands") : TEXT.index("Exit codes")]
    described = set(
        re.findall(r"`([a-z]+)(?: [^`]*)?`", " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")))
    )
    assert described == set(cli.cli.commands)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_continuous_integration_runs_the_readmes_test_command():
    command = re.search(r"<!-- tests -->\n```\n(.*)\n```", TEXT)[1]
    assert command.endswith("python -m pytest") and "\n" not in command
    (extract,) = re.findall(r"^command=\$\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert subprocess.run(["bash", "-c", extract], capture_output=True, text=True, cwd=ROOT).stdout.strip() == command
