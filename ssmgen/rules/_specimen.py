"""The smallest whole recurrence that rules of names, shapes, domains and time spoil in one place."""

from __future__ import annotations

MEMORY = """\
recurrence memory {
  dim    N = 64, P = 64
  input  q, k : [N]; v : [P]; a_raw : scalar
  gate   a in (0, 1) = sigmoid(a_raw)
  state  S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q
}
"""


def with_line(old: str, new: str, text: str = MEMORY) -> str:
    """`text` with one line, or part of one, written in another way."""
    if text.count(old) != 1:
        raise ValueError(f"{old!r} occurs {text.count(old)} times")
    return text.replace(old, new)


def without_line(start: str, text: str = MEMORY) -> str:
    """`text` without the line that begins with `start`."""
    lines = [line for line in text.splitlines(keepends=True) if not line.strip().startswith(start)]
    if len(lines) != len(text.splitlines()) - 1:
        raise ValueError(f"no single line begins with {start!r}")
    return "".join(lines)
