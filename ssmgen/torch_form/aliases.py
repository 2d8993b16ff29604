"""Gradients that are the same tensor: an operator may not return one twice, nor one that came in."""

from __future__ import annotations

import re

from .tokens import TokenFunction


def shared_gradients(operands: list[TokenFunction], readout: TokenFunction) -> set[str]:
    """Arguments whose gradient is a tensor that came in, or one that another argument has as well: an operator must copy it."""
    found: set[str] = set()
    for function in (readout, *operands):
        seen = {"dy"}
        views = {line.target: line.text for line in function.lines}
        returned = function.returns[len(function.returns) - len(function.gives) :]
        for name, value in zip(function.gives, returned, strict=True):
            text = value.text
            while (view := re.fullmatch(r"(\w+)(\[[^\]]*\])*", text)) and view[1] in views:
                text = views[view[1]]
            if view and view[1] in seen:
                found.add(name)
            elif view:
                seen.add(view[1])
    return found
