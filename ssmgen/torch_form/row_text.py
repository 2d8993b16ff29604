"""The rows of a token as torch text: side by side for a chunk, one after the other for a step."""

from __future__ import annotations

from ..plan import Walk
from ..text.line_text import WIDTH


def _row_axis(walk: Walk, name: str) -> int:
    return -1 if name == "g" and not walk.is_wide else -2


def flattened(walk: Walk, name: str) -> str:
    """Text of an operand [..., tokens, rows, N], every row of every token a row of the chunk."""
    axis = _row_axis(walk, name)
    return f"{name}.flatten({axis - 1}, {axis})"


def unflattened(walk: Walk, name: str) -> str:
    """Text of the gradient of an operand, its rows sorted by token again."""
    return f"d{name}.unflatten({_row_axis(walk, name)}, (-1, {len(walk.rows)}))"


def step_lines(walk: Walk) -> list[str]:
    """One token: its rows in order, those of one step together."""
    if walk.members:
        return _member_lines(walk)
    rows, size = len(walk.rows), walk.size
    g = "g" if rows == 1 else "g[..., r, :]" if walk.is_wide else "g[..., r]"
    decay = "" if walk.log_decay is None else f"torch.exp({g})[..., None{'' if walk.is_wide else ', None'}] * "
    if size > 1:
        k, v, e = (f"{name}[..., r : r + {size}, :]" for name in "kve")
        return [
            f"for r in range(0, {rows}, {size}):",
            f"    written = {v} - {e} @ S",
            f"    S = {decay}S + {k}.mT @ written",
        ]
    k, v, e = (name if rows == 1 else f"{name}[..., r, :]" for name in "kve")
    lines = []
    if walk.has_erase:
        target = "v" if rows == 1 else "written"
        lines.append(f'{target} = {v} - torch.einsum("...n, ...np -> ...p", {e}, S)')
        v = target
    lines.append(f"S = {decay}S + {k}[..., :, None] * {v}[..., None, :]")
    return lines if rows == 1 else [f"for r in range({rows}):", *(f"    {line}" for line in lines)]


def _member_lines(walk: Walk) -> list[str]:
    """One token of states that feed each other."""
    lines = []
    written = "v"
    if walk.has_erase:
        lines.append(f'written = v - torch.einsum("...n, ...np -> ...p", e, {member(walk.rows[0].erases)})')
        written = "written"
    texts = []
    for a, own in enumerate(walk.members):
        parts = [f"torch.exp(g{a})[..., None, None] * {member(a)}"]
        parts += [f"c{a}{b}[..., None, None] * {member(b)}" for b, _ in own.takes]
        parts += [f"(s{a}[..., None] * k)[..., :, None] * {written}[..., None, :]"] if own.share is not None else []
        text = " + ".join(parts)
        texts += [f"{text},"] if len(text) < WIDTH - 16 else [parts[0], *(f"+ {part}" for part in parts[1:-1]), f"+ {parts[-1]},"]
    return [*lines, "S = torch.stack(", "    [", *(f"        {text}" for text in texts), "    ],", "    -3,", ")"]


def member(number: int) -> str:
    """Text of one member of S."""
    return f"S[..., {number}, :, :]"
