"""Rendering: the layout of a message to the column, and the two forms for other programs."""

from __future__ import annotations

import json
import re

from ssmgen.diagnostics import Diagnostic, Label, Severity
from ssmgen.render import as_json, as_sarif, as_text
from ssmgen.source import Source, Span


def spot(source: Source, text: str, label: str = "", nth: int = 0) -> Label:
    start = -1
    for _ in range(nth + 1):
        start = source.text.index(text, start + 1)
    return Label(Span(start, start + len(text)), label)


def fault(primary: Label, *secondary: Label, note: str = "", help: str = "", severity: Severity = Severity.ERROR) -> Diagnostic:
    return Diagnostic("nonlinear-state", severity, "the update of `h` is not affine in `h`", primary, secondary, note, help)


def lines(text: str) -> str:
    """A block of expected text without its margin."""
    return "\n".join(line.removeprefix("    |") for line in text.strip("\n").split("\n"))


def test_the_layout():
    source = Source("examples/gated.ssm", "recurrence gated {\n  state h: [K, V]\n  gate a in (0, 1)\n  h' = a * h * h + outer(k, v)\n}\n")
    found = fault(
        spot(source, "h * h", "`h` appears to degree 2"),
        spot(source, "h", "`h` is the state"),
        help="move the gate out of the state: `h' = a * h + outer(k, v)`",
    )
    assert as_text(source, found) == lines("""
    |error[nonlinear-state]: the update of `h` is not affine in `h`
    | --> examples/gated.ssm:4:12
    |  |
    |2 |   state h: [K, V]
    |  |         - `h` is the state
    |3 |   gate a in (0, 1)
    |4 |   h' = a * h * h + outer(k, v)
    |  |            ^^^^^ `h` appears to degree 2
    |  = help: move the gate out of the state: `h' = a * h + outer(k, v)`
""")


def test_far_lines_and_wide_numbers():
    source = Source("f.ssm", "first\n" + "x\n" * 10 + "last = 1\n")
    assert as_text(source, fault(spot(source, "last", "here"), spot(source, "first"), note="one\ntwo")) == lines("""
    |error[nonlinear-state]: the update of `h` is not affine in `h`
    |  --> f.ssm:12:1
    |   |
    | 1 | first
    |   | -----
    |...
    |12 | last = 1
    |   | ^^^^ here
    |   = note: one
    |           two
""")


def test_several_labels_on_one_line():
    source = Source("f.ssm", "update S' = a * S * S\n")
    found = fault(spot(source, "a", "the gate", nth=1), spot(source, "S", "once", nth=1), spot(source, "S", "twice", nth=2))
    assert as_text(source, found).split("\n")[3:] == lines("""
    |1 | update S' = a * S * S
    |  |             ^   -   - twice
    |  |             |   once
    |  |             the gate
""").split("\n")


def test_overlapping_labels():
    source = Source("f.ssm", "x = a + b\n")
    found = fault(spot(source, "a + b", "all"), spot(source, "a", "left", nth=0))
    assert as_text(source, found).split("\n")[3:] == lines("""
    |1 | x = a + b
    |  |     -^^^^ all
    |  |     left
""").split("\n")


def test_tabs_and_wide_characters_keep_their_columns():
    source = Source("f.ssm", "\tλ = 漢 + é + b\n")
    assert as_text(source, fault(spot(source, "b", "here"))).split("\n")[3:] == lines("""
    |1 |     λ = 漢 + é + b
    |  |                  ^ here
""").split("\n")


def test_a_span_over_lines_and_an_empty_one():
    source = Source("f.ssm", "a = (b\n  + c)\n")
    assert as_text(source, fault(spot(source, "(b\n  + c)", "all of it"))).split("\n")[3:] == lines("""
    |1 | a = (b
    |  |     ^^ from here
    |2 |   + c)
    |  |   ^^^^ all of it
""").split("\n")
    end = fault(Label(Span(len(source.text), len(source.text)), "the end"))
    assert as_text(source, end).endswith("3 |\n  | ^ the end")


def test_no_text_no_trouble():
    assert as_text(Source("f.ssm", ""), fault(Label(Span(0, 0), "empty"))).split("\n")[1] == " --> f.ssm:1:1"
    assert as_text(Source("f.ssm", "x"), fault(Label(Span(50, 90), "beyond")))


def test_a_long_line_is_cut_around_its_label():
    source = Source("f.ssm", "x" * 5_000 + " here " + "y" * 5_000)
    shown = as_text(source, fault(spot(source, "here", "label"))).split("\n")
    assert max(map(len, shown)) < 200
    assert shown[3].index("here") == shown[4].index("^^^^")


def test_control_characters_do_not_reach_the_terminal():
    source = Source("f.ssm", "a \x1b[31m b\n")
    assert "\x1b" not in as_text(source, fault(spot(source, "b")))


def test_colour_adds_escapes_and_nothing_else():
    source = Source("f.ssm", "update S' = a * S * S\n")
    for severity in Severity:
        found = fault(
            spot(source, "a", "the gate", nth=1), spot(source, "S", "once", nth=1), note="a note", help="an edit", severity=severity
        )
        painted = as_text(source, found, colour=True)
        assert "\x1b[" in painted
        assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == as_text(source, found)


def test_json():
    source = Source("f.ssm", "é\nx = b\n")
    (found,) = json.loads(as_json([(source, fault(spot(source, "b", "here"), spot(source, "x"), help="edit"))]))
    assert found["primary"] == {
        "start": {"line": 2, "column": 5, "offset": 6},
        "end": {"line": 2, "column": 6, "offset": 7},
        "text": "here",
    }
    assert (found["slug"], found["severity"], found["file"], found["help"]) == ("nonlinear-state", "error", "f.ssm", "edit")
    assert len(found["secondary"]) == 1
    assert json.loads(as_json([])) == []


def test_sarif():
    source = Source("a folder/f.ssm", "x = b\n")
    log = json.loads(as_sarif([(source, fault(spot(source, "b", "here"), spot(source, "x", "there"), note="law", help="edit"))]))
    (run,) = log["runs"]
    (result,) = run["results"]
    assert (log["version"], run["tool"]["driver"]["name"]) == ("2.1.0", "ssmgen")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "nonlinear-state"
    assert result["level"] == "error"
    assert result["message"]["text"].split("\n")[1:] == ["note: law", "help: edit"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20folder/f.ssm"
    assert place["region"] == {"startLine": 1, "startColumn": 5, "endLine": 1, "endColumn": 6}
    assert result["relatedLocations"][0]["message"]["text"] == "there"
    assert json.loads(as_sarif([]))["runs"][0]["results"] == []


def test_sarif_describes_a_known_rule():
    source = Source("f.ssm", "x")
    known = Diagnostic("missing-value", Severity.ERROR, "title", Label(Span(0, 1)))
    (rule,) = json.loads(as_sarif([(source, known)]))["runs"][0]["tool"]["driver"]["rules"]
    assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"]
