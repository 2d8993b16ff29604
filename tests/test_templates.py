"""The template law: Python decides, the template lays out. Held against each template's syntax tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import Environment, nodes

from ssmgen._resources import folder

TEMPLATES = sorted(folder("templates").rglob("*.jinja"))

FORBIDDEN = (
    (nodes.BinExpr, "computes"),
    (nodes.UnaryExpr, "negates or computes"),
    (nodes.Compare, "compares"),
    (nodes.Assign, "assigns"),
    (nodes.AssignBlock, "assigns"),
    (nodes.CondExpr, "chooses inside an expression"),
    (nodes.Getitem, "indexes"),
    (nodes.Test, "tests with `is`"),
    (nodes.Concat, "joins text"),
    (nodes.Const, "writes a value"),
)


def faults(text: str) -> list[str]:
    """What in a template breaks the law, one line a fault."""
    tree = Environment().parse(text)
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for imported in tree.find_all(nodes.FromImport):
        macros |= {name if isinstance(name, str) else name[1] for name in imported.names}
    modules = {imported.target for imported in tree.find_all(nodes.Import)}
    allowed = {id(node.template) for node in tree.find_all((nodes.FromImport, nodes.Import, nodes.Include, nodes.Extends))}
    for node in tree.find_all(nodes.Filter):
        allowed |= {id(argument) for argument in node.args}  # the separator of join
    for node in tree.find_all(nodes.Call):
        allowed |= {id(argument) for argument in node.args if isinstance(argument, nodes.Const)}
    found = []
    for kind, words in FORBIDDEN:
        found += [f"line {node.lineno}: {words}" for node in tree.find_all(kind) if id(node) not in allowed]
    for node in tree.find_all(nodes.Filter):
        if node.name != "join":
            found.append(f"line {node.lineno}: filters with `{node.name}`")
    for node in tree.find_all(nodes.Call):
        by_name = isinstance(node.node, nodes.Name) and node.node.name in macros
        by_module = isinstance(node.node, nodes.Getattr) and isinstance(node.node.node, nodes.Name) and node.node.node.name in modules
        if not by_name and not by_module:
            found.append(f"line {node.lineno}: calls something that is no macro")
    for node in tree.find_all(nodes.If):
        if not isinstance(node.test, (nodes.Getattr, nodes.Name)):
            found.append(f"line {node.lineno}: an `if` on more than one boolean")
    return sorted(found)


def test_there_are_templates():
    assert TEMPLATES


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_template_only_lays_out(path: Path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "{{ a + 1 }}",
        "{{ -a }}",
        "{% if a == b %}x{% endif %}",
        "{% if a and b %}x{% endif %}",
        "{% if not a %}x{% endif %}",
        "{% set a = b %}",
        "{{ a if b else c }}",
        "{{ a[0] }}",
        "{{ a | upper }}",
        "{{ a.lower() }}",
        "{{ a ~ b }}",
        "{% if a is none %}x{% endif %}",
        "{{ 'a' }}",
    ],
)
def test_the_law_sees_each_way_to_decide(text):
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "{# why #}fixed {{ a }} {{ a.b }}",
        "{% for x in a.b %}{{ x }}{% endfor %}",
        "{% if kernel.stores_state %}x{% endif %}",
        "{{ a.names | join(', ') }}",
        "{% from '_macros.jinja' import head %}{{ head(a) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b) }}",
    ],
)
def test_the_law_allows_layout(text):
    assert faults(text) == []
