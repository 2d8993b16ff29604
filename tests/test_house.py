"""House rules that no type can hold: names, places, size."""

from __future__ import annotations

import ast
import io
import re
import tokenize

import pytest
from conftest import ROOT

MODELS = re.compile(
    r"(?<![a-z])(mamba\d*|deltanet|deltaproduct|retnet|rwkv\d*|kimi|kda|gla|lightning|[msx]lstm|griffin|hgrn2?|s4d?|s5|[rg]?_?lru(?!_cache)|linoss|titans|longhorn)(?![a-z])",
    re.IGNORECASE,
)
CODE = sorted(
    p
    for top, kinds in (("ssmgen", ("*.py",)), ("templates", ("*.jinja",)), ("grammar", ("*.lark",)))
    for k in kinds
    for p in (ROOT / top).rglob(k)
)
TEXT = sorted(p for top in ("ssmgen", "templates", "grammar", "examples", "tests", "docs", ".ci") for p in (ROOT / top).rglob("*")
              if p.is_file() and "__pycache__" not in p.parts) + [ROOT / "README.md", ROOT / "pyproject.toml"]  # fmt: skip


def without_docstrings(path) -> str:
    """A module's text, its docstrings blanked: a citation may name a model, code may not."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(lines)


def names(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(ROOT).as_posix())


@names(CODE)
def test_no_model_is_named_in_the_compiler(path):
    found = [
        f"line {number}: {match[0]}"
        for number, line in enumerate(without_docstrings(path).split("\n"), 1)
        for match in MODELS.finditer(line)
    ]
    assert found == []


@names(TEXT)
def test_no_path_of_a_machine(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    assert not re.search(r"/(home|root|work|Users|opt)/[\w.]", text) or path.name == "test_house.py"


@names([p for p in CODE if p.suffix == ".py"])
def test_no_unfinished_work(path):
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    assert [token.start for token in tokens if token.type == tokenize.COMMENT and words.search(token.string)] == []
    stubs = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Name) and n.id == "NotImplementedError"]
    assert stubs == []


@names([p for p in CODE if p.suffix == ".py"])
def test_a_file_fits_in_the_head(path):
    assert len(path.read_text(encoding="utf-8").split("\n")) <= 650


@names([p for p in CODE if p.suffix == ".py"])
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_user_text_is_never_evaluated():
    """A spec is data: nothing in the compiler calls an evaluator on text."""
    found = []
    for path in CODE:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in ("eval", "exec", "sympify", "parse_expr", "lambdify", "from_string"):
                    found.append(f"{path.name}:{node.lineno} {name}")
    assert found == []
