"""How one token runs on a GPU, in words: what a launch carries, and what stays torch operations and why."""

from __future__ import annotations

from ..backends.torch_pointwise import UnsupportedOperand
from ..layer_spec import Layer
from ..recurrence import Recurrence
from ..triton_form.decode import TokenWriter
from .decode_layer import LayerWriter
from .forward import statement_words
from .prologue import NotCarried, in_torch, prologue


def recurrence_words(recurrence: Recurrence) -> str:
    """One token of a recurrence; empty for one from the last token to the first, whose module has no step."""
    if recurrence.spec.time == "reversed":
        return ""
    try:
        writer = TokenWriter(recurrence)
        writer.package()
    except UnsupportedOperand as reason:
        return f"torch operations on a GPU too: no kernel has {reason}"
    return "one launch on a GPU, states in place" + ("; torch operations move on values of the token before" if writer.previous else "")


def layer_words(layer: Layer, recurrence: Recurrence) -> list[tuple[str, str]]:
    """One token of a layer around a recurrence: rows of a table."""
    if recurrence.spec.time == "reversed":
        return []
    try:
        found = prologue(layer, recurrence.spec)
        LayerWriter(found, recurrence).launch()
    except (NotCarried, UnsupportedOperand) as reason:
        return [("a token", f"the launch on a GPU has `{recurrence.spec.name}` alone: {reason}")]
    rows = [("a token", f"one launch on a GPU from the projections to what `{recurrence.spec.name}` reads out")]
    carried = [statement_words(layer, layer.statements[number]) for number in found.statements]
    rows += [("" if i else "in it", words) for i, words in enumerate(carried)]
    left = [f"{statement_words(layer, statement)}: {reason}" for statement, reason in in_torch(found)]
    return [*rows, *(("" if i else "in torch", words) for i, words in enumerate(left))]
