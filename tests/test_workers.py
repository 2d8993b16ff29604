"""A run over several processes says what a run in one would, and a process that ends does not take its module with it."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import ROOT
from workers import units

MODULES = {
    "test_one.py": """
import os

import pytest

@pytest.fixture(scope="module")
def shared():
    return []

@pytest.mark.parametrize("number", range(3))
def test_a_module_is_run_in_order_in_one_process(shared, number):
    shared.append(os.getpid())
    assert shared == [os.getpid()] * (number + 1) and os.getpid() != int(os.environ["FIRST"])

def test_that_fails(tmp_path):
    print("said before")
    assert tmp_path.exists() and {"a": 1} == {"a": 2}
""",
    "test_two.py": """
import os
import warnings

import pytest

class Own(Warning):
    pass

def test_that_warns():
    warnings.warn(Own("of this module"))

def test_that_ends_its_process():
    os._exit(3)

def test_behind_it():
    pytest.skip("for a reason")

def test_without_a_fixture(nowhere):
    pass
""",
}


def test_what_processes_report_is_what_is_printed(tmp_path):
    first = "import os\nfrom workers import pytest_runtestloop\nos.environ['FIRST'] = str(os.getpid())\n"
    for name, text in {**MODULES, "conftest.py": first}.items():
        (tmp_path / name).write_text(text)
    environment = {"PYTHONPATH": str(ROOT / "tests"), "PATH": "", "SSMGEN_TEST_WORKERS": "2"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'held'}", "--durations=1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr == ""
    assert re.search(r"^2 failed, 4 passed, 1 skipped, 1 warning, 1 error in ", done.stdout, re.MULTILINE), done.stdout
    assert (
        "Differing items" in done.stdout
        and "the process that ran it ended with code 3" in done.stdout
        and "Own: of this module" in done.stdout
    )
    assert done.stdout.count("said before") == 2 and "slowest 1 durations" in done.stdout  # what it printed, and its text


def test_long_modules_come_first():
    class Item:
        def __init__(self, nodeid, is_slow):
            self.nodeid, self.is_slow = nodeid, is_slow

        def get_closest_marker(self, _):
            return True if self.is_slow else None

    items = [Item("a::x", False), Item("b::x", True), Item("c::x", True), Item("c::y", True), Item("a::y", False)]
    assert units(items) == [[2, 3], [1], [0, 4]]
