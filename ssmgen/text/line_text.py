"""Long lines of emitted text, broken where a reader would break them: a call at its arguments, a sum or a product at its signs."""

from __future__ import annotations

from dataclasses import replace

WIDTH = 140


def broken(text: str, indent: int, before: int = 0, after: int = 1) -> str:
    """`text` in lines of at most `WIDTH`, where it can be: `before` and `after` are what else its line holds behind `indent`."""
    if indent + before + len(text) + after <= WIDTH or "\n" in text:
        return text
    inner, outer = " " * (indent + 4), " " * indent
    name, bracket, rest = text.partition("(")
    if name.isidentifier() and bracket and _closes(text, len(name)) == len(text) - 1:
        parts = [broken(part, indent + 4) for part in split(rest[:-1], (", ",))]
        return "\n".join([f"{name}(", *(f"{inner}{part}," for part in parts), f"{outer})"])
    parts = split(text, (" + ", " - "))
    if len(parts) < 2:
        parts = split(text, (" * ", " / "))
        if len(parts) < 2:
            return text
        if indent + 4 + len(text) <= WIDTH:
            parts = [text]
    return "\n".join(["(", *(inner + part for part in parts), f"{outer})"])


def broken_lines(lines: tuple, indent: int = 4) -> tuple:
    """Assignments `target = text` in short lines."""
    return tuple(replace(line, text=broken(line.text, indent, len(line.target) + 3)) for line in lines)


def broken_function(function):
    """A token-wise function in short lines; a comment that does not fit behind its value stands where the value ends."""
    returns = tuple(replace(r, text=broken(r.text, 8, after=1 + (len(r.comment) + 4 if r.comment else 0))) for r in function.returns)
    returns = tuple(replace(r, comment="" if _last(r) > WIDTH else r.comment) for r in returns)
    return replace(function, lines=broken_lines(function.lines), returns=returns)


def _last(returned) -> int:
    return 8 + len(returned.text.split("\n")[-1]) + 5 + len(returned.comment)


def _closes(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0:
            return i
    return -1


def split(text: str, marks: tuple[str, ...]) -> list[str]:
    """`text` cut at the marks outside of brackets and strings; a sign stays in front of what follows it."""
    parts, depth, start, i, quoted = [], 0, 0, 0, False
    while i < len(text):
        quoted ^= text[i] == '"'
        depth += (text[i] in "([{") - (text[i] in ")]}")
        mark = next((m for m in marks if depth == 0 and not quoted and text.startswith(m, i)), None)
        if mark is not None and i > start:
            parts.append(text[start:i])
            i += len(mark)
            start = i if mark == ", " else i - len(mark) + 1
            continue
        i += 1
    return [*parts, text[start:]]
