"""Writing packages: deterministic, all or nothing, never over a person's work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ssmgen import write
from ssmgen.diagnostics import SpecError
from ssmgen.write import Origin, check_package, digest, packages, read_header, relative, with_header, write_package

ORIGIN = Origin("examples/a.ssm", "recurrence a {}\n", 7, ("--dim N=64",))
FILES = {"op.py": "x = 1\n", "__init__.py": "from .op import x\n"}


def text_of(folder):
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


def test_header_reads_back():
    text = with_header(ORIGIN, "x = 1\n")
    header = read_header(text)
    assert header.source == "examples/a.ssm"
    assert header.options == ("--dim", "N=64")
    assert header.format == 7
    assert header.spec == digest(ORIGIN.text)
    assert text[header.length :] == "x = 1\n"
    assert header.matches(text)
    assert not header.matches(text + "#")
    assert read_header("x = 1\n") is None


def test_header_has_no_time_host_or_absolute_path(tmp_path):
    write_package(tmp_path / "a", FILES, ORIGIN)
    text = (tmp_path / "a" / "op.py").read_text()
    assert str(tmp_path) not in text and os.uname().nodename not in text and time.strftime("%Y") not in text


def test_source_path_is_relative_to_the_folder_that_holds_the_output(tmp_path):
    source = tmp_path / "specs" / "a.ssm"
    assert relative(source, tmp_path / "generated") == "specs/a.ssm"
    assert relative(source, tmp_path / "deep" / "generated") == "../specs/a.ssm"


def test_writes_once_and_then_nothing(tmp_path):
    folder = tmp_path / "out" / "a"
    assert write_package(folder, FILES, ORIGIN)
    stamp = folder.stat().st_mtime_ns
    assert not write_package(folder, FILES, ORIGIN)
    assert folder.stat().st_mtime_ns == stamp
    assert check_package(folder, FILES, ORIGIN) == []
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def test_bytes_do_not_depend_on_the_order_of_the_files(tmp_path):
    write_package(tmp_path / "a", FILES, ORIGIN)
    write_package(tmp_path / "b", dict(reversed(FILES.items())), ORIGIN)
    assert text_of(tmp_path / "a") == text_of(tmp_path / "b")


def test_files_of_an_older_build_go(tmp_path):
    write_package(tmp_path / "a", {**FILES, "kernels.py": "y = 2\n"}, ORIGIN)
    write_package(tmp_path / "a", FILES, ORIGIN)
    assert sorted(text_of(tmp_path / "a")) == ["__init__.py", "op.py"]


def test_bytecode_is_no_obstacle(tmp_path):
    write_package(tmp_path / "a", FILES, ORIGIN)
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "op.pyc").write_bytes(b"\xff\x00")
    assert check_package(tmp_path / "a", FILES, ORIGIN) == []
    assert write_package(tmp_path / "a", {**FILES, "op.py": "x = 2\n"}, ORIGIN)


def test_refuses_a_file_without_our_header(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine\n")
    with pytest.raises(SpecError) as caught:
        write_package(tmp_path / "a", FILES, ORIGIN)
    assert [d.slug for d in caught.value.diagnostics] == ["foreign-file"]
    assert text_of(tmp_path / "a") == {"notes.txt": "mine\n"}


def test_refuses_an_edited_file_and_says_where_the_edit_belongs(tmp_path):
    write_package(tmp_path / "a", FILES, ORIGIN)
    path = tmp_path / "a" / "op.py"
    path.write_text(path.read_text() + "x = 3  # mine\n")
    before = text_of(tmp_path / "a")
    with pytest.raises(SpecError) as caught:
        write_package(tmp_path / "a", {**FILES, "op.py": "x = 2\n"}, ORIGIN)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.slug == "edited-output"
    assert "examples/a.ssm" in diagnostic.help
    assert caught.value.source.slice(diagnostic.primary.span).startswith("# body: ")
    assert text_of(tmp_path / "a") == before


def test_check_names_every_difference(tmp_path):
    write_package(tmp_path / "a", {**FILES, "old.py": "z = 0\n"}, ORIGIN)
    (tmp_path / "a" / "__init__.py").unlink()
    found = check_package(tmp_path / "a", {**FILES, "op.py": "x = 2\n"}, ORIGIN)
    assert [(d.path.rsplit("/")[-1], d.kind) for d in found] == [("__init__.py", "missing"), ("old.py", "stale"), ("op.py", "changed")]
    assert "-x = 1" in found[2].diff and "+x = 2" in found[2].diff


def test_packages_are_found_by_their_headers(tmp_path):
    write_package(tmp_path / "a", FILES, ORIGIN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "b.py").write_text("y = 1\n")
    assert {name: header.source for name, header in packages(tmp_path).items()} == {"a": "examples/a.ssm"}


def test_an_interrupted_move_is_finished_by_the_next_build(tmp_path, monkeypatch):
    """Where the system cannot exchange two folders at once, the old one is moved aside first."""
    monkeypatch.setattr(write, "_exchange_atomically", lambda one, other: False)
    write_package(tmp_path / "a", FILES, ORIGIN)
    os.rename(tmp_path / "a", tmp_path / ".a.old")
    (tmp_path / ".a.new-x").mkdir()
    assert write_package(tmp_path / "a", {**FILES, "op.py": "x = 2\n"}, ORIGIN)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert "x = 2" in (tmp_path / "a" / "op.py").read_text()


WRITER = """
import sys
from pathlib import Path
from ssmgen.write import Origin, write_package
origin = Origin("a.ssm", "text", 1)
print("ready", flush=True)
turn = 0
while True:
    turn = 1 - turn
    files = {f"f{i}.py": f"value = {turn}\\n" * 200 for i in range(8 + turn)}
    write_package(Path(sys.argv[1]), files, origin)
"""


def test_a_killed_writer_leaves_the_old_package_or_the_new_one(tmp_path):
    folder = tmp_path / "a"
    rng = random.Random(0)
    states, longest = set(), 0.06
    for _ in range(25):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, longest))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if not folder.exists():  # killed before the first package: the machine is busy
            longest *= 1.5
            continue
        found = text_of(folder)
        turns = {text.rsplit("value = ", 1)[-1].strip() for text in found.values()}
        assert len(turns) == 1, "files of two builds in one package"
        turn = int(turns.pop())
        assert sorted(found) == [f"f{i}.py" for i in range(8 + turn)]
        assert all(read_header(text).matches(text) for text in found.values())
        states.add(turn)
    assert states, "no writer lived long enough to write"
    write_package(folder, FILES, ORIGIN)
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "remains of killed writers"
