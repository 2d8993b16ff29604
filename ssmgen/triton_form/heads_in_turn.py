"""Gradients of what the heads of a group share, in a program that takes these heads in turn: added up in registers, and finished behind
the last head where they are linear in sums over the heads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..backends.triton_value import Text, loaded
from ..expressions import nodes
from ..kernel import ROW
from ..spec import Expr, Ref
from ..torch_form.tokens import TokenWriter
from .fused_package import Summed, Walked
from .gradients import MADE
from .site import CodeLine, Site
from .tokens import Stored


class HeadsInTurn:
    def __init__(self, tokens: TokenWriter, site: Site, after: Site, is_summed: Callable[[Stored], bool]):
        """site: of a head's lines; after: of those behind the heads. is_summed: whether the heads of a group share an argument."""
        self.tokens, self.site, self.after, self.is_summed = tokens, site, after, is_summed
        self.sums: dict[tuple[str, str], Summed] = {}
        self.late: set[Stored] = set()
        self.stores: list[str] = []

    def place_of(self, stored: Stored, total: Expr) -> Site:
        """Behind the heads where a total is linear in sums over them: what reaches it is added up, not the total."""
        names = {n.name: n for n in nodes(total) if isinstance(n, Ref)}
        gradients_of = [n for n in names if n.startswith(MADE)]
        others = [self.tokens.printer.places.get(n) for n in names if n not in gradients_of]
        if not self.is_summed(stored) or any(place is None or place.level == "h" for place in others):
            return self.site
        values = {}
        for name in gradients_of:
            axis = "" if names[name].type.is_scalar else stored.axis
            values[name, axis] = value = self.site.get((name, axis))
            if value is None or value.axes != ((ROW, axis) if axis else (ROW,)):
                return self.site
        for key, value in values.items():
            self.sums[key] = summed(f"a_{value.text.removeprefix('b_')}", value, [self.site.block(a) for a in value.axes])
            self.after.given[key] = loaded(self.sums[key].target, value.axes)
        self.late.add(stored)
        return self.after


def summed(target: str, value: Text, blocks: list[str], store: str = "") -> Summed:
    """A value that is added up over the heads."""
    shape = f"({', '.join(blocks)}{',' if len(blocks) == 1 else ''})"
    return Summed(target, f"tl.zeros({shape}, tl.float32)", value.text, store)


def loads_first(lines: Iterable[CodeLine]) -> tuple[CodeLine, ...]:
    """The lines with all loads in front: behind a sum over columns, for which warps wait for each other, a load is waited for alone."""
    found = list(lines)
    early = [line for line in found if line.text.startswith("tl.arange(")]
    early += [line for line in found if line.text.startswith(("_tile(", "tl.load("))]
    return (*early, *(line for line in found if line not in early))


def hoisted(walked: Walked, names: Iterable[str] = ("i_h",)) -> tuple[Walked, tuple[CodeLine, ...]]:
    """The lines that each head needs, and those that are the same for all heads of a group; names: what a head has its own of."""
    own, shared, varying = ([], []), [], set(names)
    for part, lines in enumerate((walked.head, walked.rows)):
        for line in lines:
            is_own = any(re.search(rf"\b{name}\b", line.text) for name in varying)
            varying |= {line.target} if is_own else set()
            (own[part] if is_own else shared).append(line)
    return Walked(walked.pointers, tuple(own[0]), tuple(own[1])), tuple(shared)
