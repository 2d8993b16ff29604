"""Long lines of emitted code, broken at brackets, commas and signs: names come from the spec, so a template cannot know the width."""

from __future__ import annotations

import re

from .line_text import WIDTH, split

OPEN, CLOSE = "([{", ")]}"

SIGNS = ((" + ", " - "), (" * ", " / "), (" and ", " or "))
"""Where an expression in brackets may go on in the next line, the loosest first."""


def wrapped(text: str, width: int = WIDTH) -> str:
    """The text with every line that is too long broken where Python allows it. A comment, or one long name, stays."""
    lines, is_prose = [], False
    for line in text.split("\n"):
        is_edge = line.count('"""') % 2 == 1
        lines += [line] if is_prose or is_edge else _statement(line, width)
        is_prose ^= is_edge
    return "\n".join(lines)


def _statement(line: str, width: int) -> list[str]:
    if len(line) <= width or line.lstrip().startswith(("#", '"""')):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    body, comment = re.fullmatch(r"(.*?)(  # [^\"']*)?", line.strip(), re.S).groups()
    comment = comment or ""
    if len(indent + body) <= width and comment:
        return [f"{indent}{comment.strip()}", indent + body]
    target, is_set, value = body.partition(" = ")
    if is_set and not set(target) & set("([{") and any(len(split(value, signs)) > 1 for signs in SIGNS):
        return [f"{indent}{target} = (", *_inside(value, indent + "    ", width), f"{indent}){comment}"]
    if body.startswith("return ") and any(len(split(body, marks)) > 1 for marks in ((", ",), *SIGNS)):
        return [f"{indent}return (", *_inside(body.removeprefix("return "), indent + "    ", width), f"{indent}){comment}"]
    if body.endswith(","):
        return _inside(body, indent, width)
    return _bracketed(body, indent, width, comment)


def _bracketed(body: str, indent: str, width: int, tail: str = "") -> list[str]:
    """Broken inside the last of its outermost brackets whose head fits on a line; as it is where there is none."""
    groups = _groups(body)
    if not groups:
        return [indent + body + tail]
    start, end = next((g for g in reversed(groups) if len(indent) + g[0] < width), groups[0])
    is_called = re.search(r"[\w)\]]$", body[:start]) is not None
    inside, is_tuple = body[start + 1 : end].strip(), not is_called and body[end - 1] == ","
    inside = inside.rstrip(",")
    inside += "," * (is_tuple or len(split(inside, (", ",))) > 1)
    rest = indent + body[end:] + tail
    rest = _bracketed(body[end:], indent, width, tail) if len(rest) > width and _groups(body[end:]) else [rest]
    return [indent + body[: start + 1], *_inside(inside, indent + "    ", width), *rest]


def _groups(body: str) -> list[tuple[int, int]]:
    """The outermost brackets that hold something."""
    depth, start, found = 0, 0, []
    for index, character in enumerate(body):
        if character in OPEN:
            start = index if depth == 0 else start
            depth += 1
        elif character in CLOSE:
            depth -= 1
            if depth == 0 and index - start > 40:
                found.append((start, index))
    return found


def _inside(text: str, indent: str, width: int) -> list[str]:
    """What stands between brackets: items side by side, as many as fit, each with its comma; one that is too long in lines of its own."""
    if not text.endswith(",") and len(split(text, (", ",))) == 1:
        return _expression(text, indent, width)
    pieces = []
    for item in split(text.removesuffix(","), (", ",)):
        is_short = len(indent) + len(item) + 1 <= width
        pieces.append([f"{item},"] if is_short else [line[len(indent) :] for line in _expression(f"{item},", indent, width)])
    return _side_by_side(pieces, indent, width)


def _expression(text: str, indent: str, width: int) -> list[str]:
    """One expression in brackets, cut at its loosest signs."""
    if len(indent) + len(text) <= width:
        return [indent + text]
    for signs in SIGNS:
        terms = split(text, signs)
        if len(terms) > 1:
            pieces = []
            for term in terms:
                is_short = len(indent) + len(term) <= width
                pieces.append([term] if is_short else [line[len(indent) :] for line in _expression(term, indent, width)])
            return _side_by_side(pieces, indent, width)
    return _bracketed(text, indent, width)


def _side_by_side(pieces: list[list[str]], indent: str, width: int) -> list[str]:
    """Pieces of one line share lines, those of several stand by themselves."""
    lines, current = [], ""
    for piece in pieces:
        if len(piece) > 1 or (current and len(indent) + len(current) + 1 + len(piece[0]) > width):
            lines += [indent + current] * bool(current)
            current = ""
        if len(piece) > 1:
            lines += [indent + line for line in piece]
        else:
            current = f"{current} {piece[0]}".strip()
    return [*lines, indent + current] if current else lines
