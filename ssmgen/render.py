"""Diagnostics as text, JSON and SARIF. Pure: a source and a diagnostic give a string.

error[nonlinear-state]: the update of `h` is not affine in `h`
 --> examples/gated.ssm:4:12
  |
2 |   state h: [K, V]
  |         - `h` is the state
4 |   h' = a * h * h + outer(k, v)
  |            ^^^^^ `h` appears to degree 2
  = help: move the gate out of the state: `h' = a * h + outer(k, v)`
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable

from .diagnostics import Diagnostic, Label, Severity
from .source import Source, Span

TAB = 4
MAX_WIDTH = 160
"""Columns of a source line that are shown; of a longer one, a window around the label."""

_COLOURS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
_FRAME, _HELP = "34", "36"


# --- text --------------------------------------------------------------------------------------------------------


def as_text(source: Source, diagnostic: Diagnostic, *, colour: bool = False) -> str:
    """One diagnostic as a terminal shows it, without a final line end. `colour` adds ANSI escapes and nothing else."""

    def paint(text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour and text else text

    main = _COLOURS[diagnostic.severity]
    line, column = source.position(diagnostic.primary.span.start)
    marks = _marks(source, diagnostic)
    width = len(str(max(marks))) if marks else 1
    gutter = " " * width
    bar = paint("|", _FRAME)
    out = [
        paint(f"{diagnostic.severity.value}[{diagnostic.slug}]", f"1;{main}") + paint(f": {_plain(diagnostic.title)}", "1"),
        f"{gutter}{paint('-->', _FRAME)} {source.name}:{line}:{column}",
    ]
    if marks:
        out.append(f"{gutter} {bar}")
    previous = None
    for number in sorted(marks):
        if previous is not None and number > previous + 2:
            out.append(paint("...", _FRAME))
        elif previous is not None and number == previous + 2:
            out.append(_code(number - 1, source.line(number - 1), width, bar, paint))
        out.extend(_line(number, source.line(number), marks[number], width, bar, main, paint))
        previous = number
    for word, text in (("note", diagnostic.note), ("help", diagnostic.help)):
        if text:
            first, *rest = text.split("\n")
            out.append(f"{gutter} {paint('=', _FRAME)} {paint(word + ':', '1')} {_plain(first)}")
            out.extend(f"{gutter}   {' ' * len(word)}  {_plain(line)}" for line in rest)
    return "\n".join(line.rstrip() for line in out)


def _marks(source: Source, diagnostic: Diagnostic) -> dict[int, list[tuple[int, int, str, bool]]]:
    """For each line its labels: (first, last + 1) as columns from 0, text, is it the primary one.

    A span of several lines marks its first line to the end and its last from the beginning of the text.
    """
    marks: dict[int, list[tuple[int, int, str, bool]]] = {}
    for label, is_primary in [(diagnostic.primary, True), *((each, False) for each in diagnostic.secondary)]:
        for number, first, last, text in _pieces(source, label):
            marks.setdefault(number, []).append((first, last, text, is_primary))
    return marks


def _pieces(source: Source, label: Label) -> list[tuple[int, int, int, str]]:
    span = Span(min(label.span.start, len(source.text)), min(label.span.end, len(source.text)))
    line, column = source.position(span.start)
    last_line, last_column = source.position(max(span.end - 1, span.start))
    if line == last_line:
        return [(line, column - 1, max(column - 1 + span.end - span.start, column), label.text)]
    head, tail = source.line(line), source.line(last_line)
    begin = len(tail) - len(tail.lstrip())
    return [
        (line, column - 1, max(len(head.rstrip()), column), "from here"),
        (last_line, min(begin, last_column - 1), last_column, label.text),
    ]


def _line(number: int, text: str, marks: list[tuple[int, int, str, bool]], width: int, bar: str, main: str, paint) -> list[str]:
    """The line of code and, below it, its labels: the rightmost on the caret line, the others below, connected."""
    first, last = _window(text, marks)
    shown = ("..." if first else "") + text[first:last] + ("..." if last < len(text) else "")
    offset = (3 if first else 0) - first
    moved = [(start + offset, max(min(end, last), start + 1) + offset, label, is_primary) for start, end, label, is_primary in marks]
    columns = _columns(shown)
    gutter = " " * width

    def column(index: int) -> int:
        return columns[min(index, len(columns) - 1)] + max(index - len(columns) + 1, 0)

    cells: dict[int, tuple[str, str]] = {}
    for start, end, _, is_primary in sorted(moved, key=lambda mark: (mark[0] - mark[1], mark[3])):  # the shorter one on top
        for place in range(column(start), max(column(end), column(start) + 1)):
            cells[place] = ("^", main) if is_primary else ("-", _FRAME)
    placed = sorted((column(start), is_primary, _plain(label)) for start, _, label, is_primary in moved if label)
    order = [(place, label, main if is_primary else _FRAME) for place, is_primary, label in placed]
    edge = max(cells) + 1
    hanging = order[:-1]
    carets = "".join(paint(*cells[place]) if place in cells else " " for place in range(edge))
    out = [_code(number, _expanded(shown), width, bar, paint)]
    if order:
        carets += " " + paint(order[-1][1], order[-1][2])
    out.append(f"{gutter} {bar} {carets}")
    while hanging:
        place, label, code = hanging.pop()
        stems = _stems([each for each in hanging if each[0] < place], paint)
        out.append(f"{gutter} {bar} {stems(place)}{paint(label, code)}")
    return out


def _stems(left: list[tuple[int, str, str]], paint):
    """What stands before column `place` of a hanging label: a bar below each label that comes later."""
    codes = {place: code for place, _, code in left}

    def before(place: int) -> str:
        return "".join(paint("|", codes[at]) if at in codes else " " for at in range(place))

    return before


def _code(number: int, text: str, width: int, bar: str, paint) -> str:
    return f"{paint(str(number).rjust(width), _FRAME)} {bar} {text}"


def _window(text: str, marks: list[tuple[int, int, str, bool]]) -> tuple[int, int]:
    """The part of a long line that is shown: around its first label."""
    if len(text) <= MAX_WIDTH:
        return 0, len(text)
    start = min(mark[0] for mark in marks)
    first = max(min(start - MAX_WIDTH // 4, len(text) - MAX_WIDTH), 0)
    return first, min(first + MAX_WIDTH, len(text))


def _columns(text: str) -> list[int]:
    """Where each character begins on a terminal, and where the text ends: tabs, wide and combining characters."""
    columns = [0]
    for character in text:
        columns.append(columns[-1] + _width(character, columns[-1]))
    return columns


def _width(character: str, column: int) -> int:
    if character == "\t":
        return TAB - column % TAB
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _plain(text: str) -> str:
    """Words of a message, which may quote the user's text: one line, nothing that moves the cursor."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _expanded(text: str) -> str:
    """The text as it is shown: tabs to spaces, control characters to a box."""
    out, column = [], 0
    for character in text:
        width = _width(character, column)
        if character == "\t":
            out.append(" " * width)
        else:
            out.append(character if character.isprintable() or character == " " or width == 0 else "\ufffd")
        column += width
    return "".join(out)


# --- JSON --------------------------------------------------------------------------------------------------------

Found = Iterable[tuple[Source, Diagnostic]]


def as_json(found: Found) -> str:
    """All diagnostics as one array. Lines and columns count from 1, `end` is exclusive, offsets count characters from 0."""
    return json.dumps([_as_object(source, diagnostic) for source, diagnostic in found], indent=2, ensure_ascii=False)


def _as_object(source: Source, diagnostic: Diagnostic) -> dict:
    return {
        "slug": diagnostic.slug,
        "severity": diagnostic.severity.value,
        "title": diagnostic.title,
        "file": source.name,
        "primary": _place(source, diagnostic.primary),
        "secondary": [_place(source, label) for label in diagnostic.secondary],
        "note": diagnostic.note,
        "help": diagnostic.help,
    }


def _place(source: Source, label: Label) -> dict:
    line, column = source.position(label.span.start)
    end_line, end_column = source.position(label.span.end)
    return {
        "start": {"line": line, "column": column, "offset": label.span.start},
        "end": {"line": end_line, "column": end_column, "offset": label.span.end},
        "text": label.text,
    }


# --- SARIF -------------------------------------------------------------------------------------------------------

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(found: Found) -> str:
    """All diagnostics as one run of a SARIF 2.1.0 log, with the rules that they cite."""
    from . import __version__
    from .rules import RULES

    found = list(found)
    slugs = sorted({diagnostic.slug for _, diagnostic in found})
    log = {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "ssmgen", "version": __version__, "rules": [_sarif_rule(slug, RULES.get(slug)) for slug in slugs]}
                },
                "columnKind": "unicodeCodePoints",
                "results": [_sarif_result(source, diagnostic, slugs) for source, diagnostic in found],
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


def _sarif_rule(slug: str, rule) -> dict:
    if rule is None:
        return {"id": slug}
    return {"id": slug, "shortDescription": {"text": rule.title}, "fullDescription": {"text": rule.what}, "help": {"text": rule.why}}


def _sarif_result(source: Source, diagnostic: Diagnostic, slugs: list[str]) -> dict:
    words = [diagnostic.title, *(f"{word}: {text}" for word, text in (("note", diagnostic.note), ("help", diagnostic.help)) if text)]
    result = {
        "ruleId": diagnostic.slug,
        "ruleIndex": slugs.index(diagnostic.slug),
        "level": diagnostic.severity.value,
        "message": {"text": "\n".join(words)},
        "locations": [_sarif_location(source, diagnostic.primary)],
    }
    if diagnostic.secondary:
        result["relatedLocations"] = [{"id": i, **_sarif_location(source, label)} for i, label in enumerate(diagnostic.secondary, 1)]
    return result


def _sarif_location(source: Source, label: Label) -> dict:
    line, column = source.position(label.span.start)
    end_line, end_column = source.position(label.span.end)
    location: dict = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(source.name)},
            "region": {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column},
        }
    }
    if label.text:
        location["message"] = {"text": label.text}
    return location


def _uri(name: str) -> str:
    """A source's name as a relative URI reference."""
    from urllib.parse import quote

    return quote(name.replace("\\", "/"), safe="/:")
