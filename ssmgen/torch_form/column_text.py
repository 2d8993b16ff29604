"""States as value columns of a walk's state, as torch text, there and back."""

from __future__ import annotations

from ..backends.torch_pointwise import size_text
from ..backends.torch_text import identifier
from ..plan import Walk, column_width


def pack(walk: Walk) -> str:
    """Text of S from the states it stacks."""
    if walk.members:
        return f"torch.stack([{', '.join(identifier(s) for s in walk.states)}], -3)"
    texts = []
    for column in walk.columns:
        name = identifier(column.state)
        if walk.is_transposed:
            name += ".transpose(-1, -2)"
        elif walk.key is None:
            name += "[..., None, None]" if column.type.is_scalar else "[..., None, :]"
        elif column.type.is_column or column.type.is_scalar:
            name += "[..., None]"
        texts.append(name)
    return texts[0] if len(texts) == 1 else f"torch.cat([{', '.join(texts)}], -1)"


def unpack(walk: Walk) -> tuple[str, list[str]]:
    """Text of the states from S, each a tensor of its own, and the sizes that the text names."""
    if walk.members:
        parts = [f"S[..., {a}, :, :].contiguous()" for a in range(len(walk.members))]
        return f"({', '.join(parts)})", []
    texts: list[str] = []
    used: list[str] = []
    offset: list[str] = []
    several = len(walk.columns) > 1
    for column in walk.columns:
        size = column_width(walk, column)
        width = size_text(size).text
        rows = ", 0" if walk.key is None else ""
        start = " + ".join(offset)
        if column.value is None or column.value.type.is_scalar:
            text = f"S[...{rows}, {start or 0}]"
        elif several:
            text = f"S[...{rows}, {start}:{' + '.join([*offset, width])}]"
            used += [identifier(n) for n, _ in size.terms if identifier(n) not in used]
        else:
            text = "S[..., 0, :]" if rows else "S"
        if walk.is_transposed:
            text += ".transpose(-1, -2)"
        # blocks of one tensor stay views of it where N is 1, and an operator's results may not share memory
        own = ".clone(memory_format=torch.contiguous_format)" if several else ".contiguous()"
        texts.append(text if text == "S" else f"{text}{own}")
        offset.append(width)
    return (f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"), used
