"""Long lines of emitted code, broken at brackets and commas: names come from the spec, so a template cannot know the width."""

from __future__ import annotations

import re

from .line_text import WIDTH, split

OPEN, CLOSE = "([{", ")]}"


def wrapped(text: str, width: int = WIDTH) -> str:
    """The text with every line that is too long broken where Python allows it. What has no bracket to break stays."""
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width))


def _broken(line: str, width: int) -> list[str]:
    if len(line) <= width or line.lstrip().startswith(("#", '"""')):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    if line.endswith(","):
        return _filled(line.strip(), indent, width)
    body, comment = re.fullmatch(r"(.*?)(  # [^\"']*)?", line, re.S).groups()
    groups = _groups(body)
    target, _, value = body.strip().partition(" = ")
    terms = split(value, (" + ", " - ")) if target.isidentifier() else []
    if len(terms) > 1 and not (groups and _fits(body, groups, width)):
        return [f"{indent}{target} = (", *_summed(value, f"{indent}    ", width), f"{indent}){comment or ''}"]
    if not groups:
        return [line]
    # the last brackets whose head fits on a line
    start, end = next((g for g in reversed(groups) if g[0] < width), groups[0])
    inside = body[start + 1 : end].strip().rstrip(",")
    deeper = indent + "    "
    if len(split(inside, (", ",))) > 1:
        lines = _filled(inside + ",", deeper, width)
    else:
        lines = _summed(inside, deeper, width)
    return [body[: start + 1], *lines, indent + body[end:] + (comment or "")]


def _fits(body: str, groups: list[tuple[int, int]], width: int) -> bool:
    """Whether what stands before and behind the brackets that would be broken fits on lines."""
    start, end = next((g for g in reversed(groups) if g[0] < width), groups[0])
    return start < width and len(body) - end < width - 8


def _summed(text: str, indent: str, width: int) -> list[str]:
    """The terms of a sum between brackets, on as many lines as they need; what is no sum is broken inside."""
    lines: list[str] = []
    for term in split(text, (" + ", " - ")):
        if lines and len(lines[-1]) + 1 + len(term) <= width:
            lines[-1] += f" {term}"
        else:
            lines += _broken(indent + term, width) if len(indent) + len(term) > width else [indent + term]
    return lines


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


def _filled(text: str, indent: str, width: int) -> list[str]:
    """Items side by side, as many as fit, each with its comma."""
    lines, current = [], ""
    pieces = [f"{item}," for item in split(text.removesuffix(","), (", ",))]
    # between brackets a sum may go on in the next line
    for piece in (part for p in pieces for part in ([p] if len(indent) + len(p) <= width else split(p, (" + ", " - ")))):
        if len(indent) + len(piece) > width and _groups(piece):
            # longer than a line by itself: broken inside, its comma behind the last part
            lines += [indent + current] if current else []
            *inner, last = _broken(indent + piece.removesuffix(","), width)
            lines, current = [*lines, *inner, last + "," * piece.endswith(",")], ""
        elif current and len(indent) + len(current) + 1 + len(piece) > width:
            lines.append(indent + current)
            current = piece
        else:
            current = f"{current} {piece}".strip()
    return [*lines, indent + current] if current else lines
