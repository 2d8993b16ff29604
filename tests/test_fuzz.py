"""Whatever the text, only diagnostics come out: from the grammar's own sentences, from mutilated specs, from noise."""

from __future__ import annotations

import string

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark
from lark import Lark
from test_parse import bare

from ssmgen import render
from ssmgen.compiler import check
from ssmgen.diagnostics import SpecError
from ssmgen.parse import parse
from ssmgen.source import Source
from ssmgen.syntax_text import to_text

FILES = sorted([*(ROOT / "examples").glob("*.ssm"), *(ROOT / "tests" / "sketches").glob("*.ssm")])
SPECS = [path.read_text(encoding="utf-8") for path in FILES]
PIECES = [
    *"()[]{}<>=,;:@.^*/+-'#\n \t\r", "..", "^T", "^-1/2", "²", "ᵀ", "β", "S'", "1e9", "0", "_t", "S_{t-1}", "9^9^9", "é", "\x00", "\u2028",
    "漢", "recurrence f {", "layer g {", "stack h {", "attention a {", "}", "state ", "input ", "gate ", "dim ", "update ", "output ",
    "for j in 1..2:", "sum r in 1..R:", " init ", " per head", " in (0, 1)", "exp(", "repeat { 3 * a }", "dynamics dS/dt = ", "unit",
    "conjugate", ", rotates first N/2 rows",
]  # fmt: skip

few = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))
fewer = settings(few, max_examples=25)  # what is slow to draw, or runs more than the parser


def only_diagnostics(text: str, through=parse):
    """The pass's value, None for text that it refuses; every message can be rendered, and every span lies in the text."""
    source = Source("fuzz.ssm", text)
    try:
        return through(source)
    except SpecError as error:
        assert error.diagnostics
        for diagnostic in error.diagnostics:
            for label in (diagnostic.primary, *diagnostic.secondary):
                assert 0 <= label.span.start <= label.span.end <= max(len(text), 1)
            assert diagnostic.title
            assert render.as_text(source, diagnostic)
        render.as_json([(source, diagnostic) for diagnostic in error.diagnostics])
        return None


def reads_back(text: str) -> None:
    tree = only_diagnostics(text)
    if tree is not None:
        again = to_text(tree)
        assert bare(parse(Source("again.ssm", again))) == bare(tree), again


@st.composite
def mutilated(draw) -> str:
    """A spec with pieces cut, repeated, moved or written in."""
    text = draw(st.sampled_from(SPECS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(start + draw(st.integers(0, 12)), len(text))
        to = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(["", text[start:end], text[start:end] * 2, *PIECES]))
        text = draw(st.sampled_from([text[:start] + piece + text[end:], text[:to] + piece + text[to:]]))
    return text


@st.composite
def sentences(draw) -> str:
    """A text of the grammar, its words apart."""
    return draw(_SENTENCES)


_GRAMMAR = Lark((ROOT / "grammar" / "ssm.lark").read_text(encoding="utf-8"), parser="lalr", start=["start", "expr"])
_NAMES = st.sampled_from(["a ", "b ", "S ", "N ", "H ", "T ", "i ", "head ", "write ", "x_t ", "exp ", "log "])
_TOKENS = {
    "NAME": _NAMES,
    "FUNCTION": st.sampled_from(["exp", "log ", "max", "linear", "a", "f "]),
    "NUMBER": st.sampled_from(["0 ", "1 ", "2.5 ", "1e-3 ", "10"]),
    "DERIVATIVE": st.sampled_from(["dS/dt ", "da / dt "]),
    "TRANSPOSE": st.sampled_from(["^T ", "^H "]),
    "POWER": st.sampled_from(["^-1/2 ", "^-3/1 "]),
    "COMMENT": st.just(""),
    "_NEWLINE": st.just("\n"),
}
_KEYWORDS = {t.name: st.just(t.pattern.value + " ") for t in _GRAMMAR.terminals if t.pattern.type == "str" and t.pattern.value.isalpha()}
_IN_EXPRESSIONS = ("NAME", "FUNCTION", "NUMBER", "TRANSPOSE", "POWER", "COMMENT", "SUM", "IN", "PER")
_SENTENCES = from_lark(_GRAMMAR, start="start", explicit=_KEYWORDS | _TOKENS)
_EXPRESSIONS = from_lark(_GRAMMAR, start="expr", explicit={name: (_KEYWORDS | _TOKENS)[name] for name in _IN_EXPRESSIONS})


@few
@given(mutilated())
def test_mutilated_specs(text):
    reads_back(text)


@few
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_pieces(text):
    reads_back(text)


@few
@given(st.text(alphabet=st.one_of(st.sampled_from(string.printable + "ᵀ·−β′²∞"), st.characters()), max_size=80))
def test_noise(text):
    reads_back(text)
    only_diagnostics("recurrence f {\n" + text + "\n}")


@few
@given(sentences())
def test_sentences_of_the_grammar(text):
    reads_back(text)


@fewer
@given(_EXPRESSIONS)
def test_expressions_of_the_grammar(text):
    reads_back(f"recurrence f {{\n  input a, b : [N]\n  state S : [N]\n  output y = {text}\n}}\n")


@pytest.mark.parametrize("text", SPECS[:1])
def test_every_prefix_of_a_spec(text):
    for end in range(len(text)):
        only_diagnostics(text[:end])


@fewer
@given(mutilated())
def test_mutilated_specs_through_check(text):
    only_diagnostics(text, through=check)


@fewer
@given(_EXPRESSIONS)
def test_expressions_through_check(text):
    head = "dim N = 4, H = 4\n  input a, b : [N]; x_t : scalar in (0, 1)\n  state S : [N, N]\n  update S' = a b^T\n"
    only_diagnostics(f"recurrence f {{\n  {head}  output y = {text}\n}}\n", through=check)
