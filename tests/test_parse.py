"""Parsing: what each spelling means, how lines end, what is refused, and that printing reads back as itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import fields
from fractions import Fraction

import pytest
from conftest import ROOT

from ssmgen import syntax
from ssmgen.diagnostics import SpecError
from ssmgen.functions import FUNCTIONS
from ssmgen.parse import parse, tables
from ssmgen.parse.layout import RESERVED, STATEMENTS
from ssmgen.source import Source
from ssmgen.syntax_text import number, to_text

SPECS = sorted([*(ROOT / "examples").glob("*.ssm"), *(ROOT / "tests" / "sketches").glob("*.ssm")])
HEAD = ("dim N = 4, P = 4", "input q, k : [N]; v : [P]; a, b : scalar", "state S : real [N, P]")


def parsed(text: str) -> syntax.File:
    return parse(Source("test.ssm", text))


def recurrence(*lines: str) -> syntax.RecurrenceDecl:
    return parsed("recurrence test {\n" + "".join(f"  {line}\n" for line in (*HEAD, *lines)) + "}\n").items[0]


def expression(text: str) -> syntax.Node:
    """The value of an output."""
    return recurrence(f"output y = {text}").body[-1].body[0].value


def written(text: str) -> str:
    """An expression with every pair of parentheses, `_` for a space between factors."""

    def show(node) -> str:
        match node:
            case syntax.Binary():
                return f"({show(node.left)}{'_' if node.operator == 'juxtapose' else node.operator}{show(node.right)})"
            case syntax.Unary():
                return f"(-{show(node.operand)})"
            case syntax.Transpose():
                return f"{show(node.operand)}^{'H' if node.conjugate else 'T'}"
            case syntax.Subscript():
                return f"{show(node.base)}[{show(node.index)}]"
            case syntax.Call():
                return f"{node.function}<{', '.join(map(show, node.args))}>"
            case syntax.SumOver():
                return f"(sum {node.index}: {show(node.body)})"
        return to_text(node)

    return show(expression(text))


def bare(node):
    """A tree without its spans."""
    if isinstance(node, syntax.File):
        return tuple(bare(item) for item in node.items)
    if isinstance(node, syntax.Node):
        return (type(node).__name__, *((f.name, bare(getattr(node, f.name))) for f in fields(node) if "span" not in f.name))
    return tuple(bare(entry) for entry in node) if isinstance(node, tuple) else node


def slugs(text: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        parsed(text)
    return [diagnostic.slug for diagnostic in error.value.diagnostics]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_printing_reads_back_as_itself(path):
    tree = parse(Source(path.name, path.read_text(encoding="utf-8")))
    text = to_text(tree)
    assert bare(parsed(text)) == bare(tree)
    assert to_text(parsed(text)) == text


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_span_is_inside_its_parent(path):
    source = Source(path.name, path.read_text(encoding="utf-8"))
    pending = [(item, item.span) for item in parse(source).items]
    while pending:
        node, outer = pending.pop()
        assert outer.start <= node.span.start <= node.span.end <= outer.end
        if isinstance(node, syntax.Name) and not node.prime:
            assert source.slice(node.span) == node.id
        for field in fields(node):
            value = getattr(node, field.name)
            below = value if isinstance(value, tuple) else (value,)
            pending.extend((entry, node.span) for entry in below if isinstance(entry, syntax.Node))


def test_examples_have_a_head():
    """Title, equation, paper, and a length that a page holds."""
    for path in sorted((ROOT / "examples").glob("*.ssm")):
        text = path.read_text(encoding="utf-8")
        assert len(parse(Source(path.name, text)).items[0].comment.split("\n")) >= 3, path.name
        assert len(text.rstrip().split("\n")) <= 32, path.name


def test_stored_tables_are_the_grammars():
    folder = ROOT / "grammar"
    text = tables.text((folder / "ssm.lark").read_text(encoding="utf-8"))
    if os.environ.get("UPDATE"):
        (folder / "ssm.tables.json").write_text(text, encoding="utf-8")
    assert (folder / "ssm.tables.json").read_text(encoding="utf-8") == text, "accept with: UPDATE=1 pytest tests/test_parse.py"


def test_grammar_without_stored_tables(tmp_path, monkeypatch):
    (tmp_path / "ssm.lark").write_text((ROOT / "grammar" / "ssm.lark").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(tables._resources, "folder", lambda name: tmp_path)
    assert tables.load.__wrapped__() == tables.load()


def test_statements_of_the_layout_are_keywords_of_the_grammar():
    assert set(STATEMENTS) <= tables.load().keywords
    assert set(RESERVED) <= tables.load().keywords
    assert not set(RESERVED) & set(FUNCTIONS)


def test_a_cold_start_reads_no_grammar():
    code = "import sys; from ssmgen.parse import parse; from ssmgen.source import Source; parse(Source('x', '')); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"lark", "sympy"} & {*result.stdout.split()}


# --- expressions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b - a", "((a+b)-a)"),
        ("a * q k^T b", "(((a*q)_k^T)_b)"),
        ("a / b * q", "((a/b)*q)"),
        ("a / (b q)", "(a/(b_q))"),
        ("-a * q", "((-a)*q)"),
        ("a * -b", "(a*(-b))"),
        ("-a^2", "(-(a^2))"),
        ("a q . k b", "((a_q).(k_b))"),
        ("a + q . k", "(a+(q.k))"),
        ("S'^T q", "(S'^T_q)"),
        ("(S + k v^T)^T q", "((S+(k_v^T))^T_q)"),
        ("k (k^T S)", "(k_(k^T_S))"),
        ("a * k (k^T S)^T", "((a*k)_(k^T_S)^T)"),
        ("exp(a) * q", "(exp<a>*q)"),
        ("exp (a)^2", "(exp<a>^2)"),
        ("a^b^2", "(a^(b^2))"),
        ("a^-b", "(a^(-b))"),
        ("a^2/b", "((a^2)/b)"),
        ("N^-1/2 * q", "((N^-0.5)*q)"),
        ("N^-1 / 2", "((N^(-1))/2)"),
        ("N^(1/2)", "(N^(1/2))"),
        ("N^1/2 * q", "((N^0.5)*q)"),
        ("N^1 / 2", "((N^1)/2)"),
        ("q[-1]", "q[(-1)]"),
        ("exp(q)[-1]", "exp<q>[(-1)]"),
        ("a - sum r in 1..2: q + k", "(a-(sum r: (q+k)))"),
        ("a * sum r in 1..2: q", "(a*(sum r: q))"),
        ("q^2^T k", "((q^2)^T_k)"),
        ("I - a * k k^H", "(I-((a*k)_k^H))"),
        ("pi (a + b)", "(pi_(a+b))"),
        ("sum + a", "(sum+a)"),
    ],
)
def test_precedence(text, tree):
    assert written(text) == tree


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("S'ᵀ q", "S'^T q"),
        ("S′^T q", "S'^T q"),
        ("q · k", "q . k"),
        ("a × q ⊙ k", "a * q * k"),
        ("a − b", "a - b"),
        ("a²", "a^2"),
        ("a⁻²", "a^-2"),
        ("N^−1/2", "N^-1/2"),
        ("qᴴ k", "q^H k"),
        ("exp(β_x) + λ", "exp(beta_x) + lam"),
        ("x₁", "x1"),
    ],
)
def test_spellings(one, other):
    assert bare(expression(one)) == bare(expression(other))


@pytest.mark.parametrize(
    "text",
    [
        "a + (b + q)", "a - (b - q)", "(a b) * q", "a * (b q)", "a * (b * q)", "a / (b / q)", "(a / b) q", "-(-a)", "(-a)^2", "(a^b)^2",
        "a^(b q)", "(a + b)^T q", "(q^2)^T", "(q^T)^2", "(q . k) . v", "q . (k . v)", "(a * b) . q", "a * (sum r in 1..2: q)",
        "(sum r in 1..2: q) * a", "exp(sum r in 1..2: q)", "a^(-1/2)", "a^-1/2", "1e-30 * q", "1e20", "0.0001", "(a)", "a^(T)", "(foo) (q)",
        "k (q)", "(q^2)[-1]", "-(sum r in 1..2: q)", "softmax(q, axis = a, per head)", "2^(-8 * (head + 1) / heads)", "(a/b)^2", "q^-2^T",
        "a (-b)", "a - -b", "(q^2^T)^2", "((q^2)^T)[-1]",
    ],
)  # fmt: skip
def test_expressions_print_and_read_back(text):
    body = recurrence(f"output y = {text}")
    again = parsed(to_text(body)).items[0]
    assert bare(again) == bare(body)


@pytest.mark.parametrize("value", ["0", "1", "0.5", "1e-300", "1e300", "123456.789", "0.6065306597", "1e-3", "1024"])
def test_numbers_are_exact(value):
    assert Fraction(number(Fraction(value))) == Fraction(value)
    assert expression(value).value == Fraction(value)


# --- lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ("update S' = S + k v^T", "output y = S'^T q"),
        ("update S' =", "  S", "  + k v^T", "output", "  y = S'^T q"),
        ("update S' = S +", "", "  # a comment", "  k v^T", "output y = S'^T q"),
        ("update S' = (S", "  + k v^T", "  )", "output y = S'^T q"),
        ("update S' = S + k v^T; output y = S'^T q",),
        ("update", "  S' = S + k v^T;", "output y = S'^T q;"),
    ],
)
def test_line_ends(lines):
    plain = recurrence("update S' = S + k v^T", "output y = S'^T q")
    assert bare(recurrence(*lines)) == bare(plain)


def test_a_line_without_a_keyword_continues_the_statement():
    one = recurrence("param A : scalar; B : [N]", "let x = a; y = b", "update S' = S; T' = S", "output y = a")
    other = recurrence("param A : scalar", "      B : [N]", "let x = a", "    y = b", "update S' = S", "       T' = S", "output y = a")
    assert bare(one) == bare(other)


def test_windows_lines_and_tabs():
    text = "recurrence f {\r\n\tdim N = 4\r\n\tinput x : [N]\r\n}\r\n"
    assert bare(parsed(text)) == bare(parsed(text.replace("\r", "").replace("\t", " ")))


def test_soft_keywords_are_names_elsewhere():
    body = recurrence("gate write in (0, 1) = sigmoid(time)", "let head = write; mask = head", "output score = mask").body
    assert [type(node).__name__ for node in body[-4:]] == ["GateDecl", "LetDecl", "LetDecl", "Output"]
    assert recurrence("write rank 2", "time reversed").body[-1].keyword == "time"


def test_comments_above_an_item():
    file = parsed("# far\n\n# title\n#  equation\nrecurrence a { dim N = 1 }\n# b's\nrecurrence b { dim N = 1 }\n")
    assert [item.comment for item in file.items] == ["title\n equation", "b's"]


def test_micro_steps_in_braces():
    (update,) = recurrence("update S' = S", "  for j in 1..2: {", "    S' = S'; Z' = S'", "    Y' = S'", "  }").body[-1:]
    assert [assign.name for assign in update.body[1].body] == ["S", "Z", "Y"]


# --- faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("update S' = S S'' + 1",), ["unexpected-token"]),
        (("update S' = a / b k",), ["ambiguous-division"]),
        (("update S' = S_{t-1}",), ["time-index"]),
        (("output y = k[t]",), ["time-index"]),
        (("output y = k[+1]",), ["time-index"]),
        (("output y = 9^9^9",), ["number-too-large"]),
        (("output y = 9^-9^9",), ["number-too-large"]),
        (("let x = (a", "let y = b)"), ["unclosed-bracket", "unexpected-token"]),
        (("let x =", "let y = *", "state T : [N]", "ouput z = 3"), ["missing-value", "missing-value", "unknown-statement"]),
        (("update 2 S = S", "output 3 = 4"), ["invalid-target", "invalid-target"]),
    ],
)
def test_faults(lines, expected):
    assert slugs("recurrence test {\n" + "\n".join((*HEAD, *lines)) + "\n}\n") == expected


def test_one_fault_does_not_hide_the_next_item():
    text = "recurrence a(= {\n dim N = 3 }\nrecurrence b {\n dim + }\nlayer c {\n x = = }\n"
    assert slugs(text) == ["unclosed-bracket", "unexpected-token", "missing-value"]


def test_t_may_be_a_loop_index():
    assert recurrence("output y = sum t in 1..2: k[t]")


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("x" * 10_000_000, "too-large"),
        ("#" * 10_000_000, "too-large"),
        ("x " * 60_000, "too-large"),
        ("(" * 10_000, "too-deep"),
        ("{" * 10_000, "too-deep"),
        ("$%" * 400_000, "unexpected-character"),
        ("recurrence f {\n" * 10_000, "unclosed-bracket"),
        *(
            ("recurrence f {\n output y = " + body + "\n}", slug)
            for body, slug in (
                ("(" * 10_000 + "1" + ")" * 10_000, "too-deep"),
                ("-" * 10_000 + "1", "too-deep"),
                ("^".join("9" * 10_000), "too-deep"),
                ("+".join("9" * 10_000), "too-deep"),
                ("exp(" * 10_000, "too-deep"),
                ("q" + "^T" * 10_000, "too-deep"),
                ("sum r in 1..2: " * 5_000 + "1", "too-deep"),
                ("9" * 900_000, "number-too-large"),
                ("1e" + "9" * 900_000, "number-too-large"),
                ("9^9^9^9", "number-too-large"),
                ("x_{" * 10_000, "too-deep"),
            )
        ),
    ],
    ids=lambda value: value[-20:] if len(value) > 20 else value,
)
def test_hostile_sizes_are_refused_soon(text, slug):
    start = time.perf_counter()
    assert slug in slugs(text)
    assert time.perf_counter() - start < 5  # 2 on a quiet machine
