"""The kernels of every example, not of the committed showcase alone: what they name stands there, and what stands there is named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT

from ssmgen.compiler import build
from ssmgen.source import Source

SHARED_ANGLES = """recurrence shared_angles {
  dim    N = 4, P = 4
  input  q, k : [N]; v : [P]; raw : scalar
  param  theta : [N/2] per layer init uniform(0, 3)
  gate   a in (0, 1) = sigmoid(raw)
  state  S : [N, P]
  update S' = a * rot(theta * position) S + k v^T
  output o = S'^T q
}
"""
"""Heads are taken in turn, and nothing is a group's."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The files of Triton's, by package and name."""
    folder = tmp_path_factory.mktemp("emitted")
    paths = sorted((ROOT / "examples").rglob("*.ssm"))
    sources = [Source(path.name, path.read_text(encoding="utf-8")) for path in paths]
    found = {}
    for source in (*sources, Source("shared_angles.ssm", SHARED_ANGLES)):
        for package, files in build(source).packages.items():
            for name, text in files.items():
                if re.match(r"(kernels|running|walk_|decode)", name):
                    path = folder / package / name
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(text, encoding="utf-8")
                    found[f"{package}/{name}"] = text
    assert len(found) > len(paths)
    return folder, found


def test_every_name_is_defined(kernels):
    """Such a kernel compiles where it is launched first, which for most is on a GPU alone."""
    command = ["ruff", "check", "--no-cache", "--isolated", "--select", "F821", "--output-format", "concise"]
    done = subprocess.run([sys.executable, "-m", *command, str(kernels[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_function_and_constant_of_its_own_is_used(kernels):
    unused = []
    for name, text in kernels[1].items():
        words = Counter(re.findall(r"\w+", text))
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                own = [node.name] * node.name.startswith("_")
            else:
                own = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
            unused += [f"{name}: {each}" for each in own if words[each] == 1]
    assert unused == []
