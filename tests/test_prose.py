"""The emitted text reads as written by hand: nothing renamed for nothing, nothing said twice, the user's words kept whole."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT

from ssmgen.compiler import build
from ssmgen.source import Source
from ssmgen.text.wrap import wrapped

EXAMPLES = sorted((ROOT / "examples").glob("*.ssm"))


def package(text: str, name: str = "test.ssm") -> dict[str, str]:
    """The files of the first package of a source."""
    return next(iter(build(Source(name, text)).packages.values()))


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda p: p.stem)
def files(request):
    return package(request.param.read_text(encoding="utf-8"), request.param.name)


def test_lines_are_short(files):
    assert [f"{path}: {line}" for path, text in files.items() for line in text.split("\n") if len(line) > 140] == []


def test_no_value_is_its_own_comment(files):
    assert [line for text in files.values() for line in text.split("\n") if re.fullmatch(r"\s*(\w+),  # \1", line)] == []


def test_no_name_for_a_name(files):
    """Between the operands and the chunks no line gives a second name to a gradient."""
    text = files["op.py"].split("# --- token by token")[1].split("# --- chunks")[0]
    assert re.findall(r"^    d_?\w+ = d_?\w+$", text, re.MULTILINE) == []


def test_no_function_gives_back_its_argument(files):
    text = files["op.py"].split("# --- token by token")[1].split("# --- chunks")[0]
    assert re.findall(r"def \w+\((\w+)\):\n    \"\"\".*\"\"\"\n    return \1\n", text) == []


def test_the_operators_name_their_paper(files):
    reference, op = (ast.get_docstring(ast.parse(files[path])) for path in ("reference.py", "op.py"))
    notes = reference.split("\n\n")[0].split("\n")[1:]
    assert all(line in op for line in notes)


def test_a_layer_is_called_by_the_names_of_the_spec():
    text = package((ROOT / "examples" / "mamba2.ssm").read_text(encoding="utf-8"))["module.py"]
    assert "def __init__(self, d_model, expand=2, N=128, P=64" in text


def test_a_comment_may_hold_anything():
    text = (ROOT / "examples" / "simple_gla.ssm").read_text(encoding="utf-8")
    text = re.sub(r"^# ", '# """ \\\\N{x} \\\\', text, flags=re.MULTILINE).replace("layer ", '# of """ \\N\nlayer ')
    for path, content in package(text).items():
        ast.parse(content, path)


def test_a_tuple_of_one_stays_a_tuple_where_a_line_is_broken():
    line = f"values = values + (load({', '.join(f'argument_{i}' for i in range(12))}),)"
    scope = {"values": (), "load": lambda *names: names, **{f"argument_{i}": i for i in range(12)}}
    exec(wrapped(line, 60), scope)
    assert "\n" in wrapped(line, 60) and scope["values"] == (tuple(range(12)),)
