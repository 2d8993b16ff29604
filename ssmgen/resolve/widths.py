"""Widths of layer values, found by unification: what a recurrence takes and gives fixes what stands around it.

Every value starts as an unknown `Slot`. Operations that keep a shape make slots one; a recurrence's signature fills
them; elementwise arithmetic waits until enough is known to tell `[H, P] * [H, P]` from `[H, P] * [H]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from .. import syntax
from ..diagnostics import Label, Report
from ..layer_spec import LayerValue, Size, Width
from ..source import Span
from . import sizes


@dataclass(eq=False)
class Slot:
    """An unknown width, or one found; `reason` is where it was found."""

    width: Width | None = None
    reason: Span | None = None
    parent: Slot | None = None

    def root(self) -> Slot:
        slot = self
        while slot.parent is not None:
            slot = slot.parent
        return slot

    @property
    def known(self) -> Width | None:
        return self.root().width


@dataclass
class Widths:
    """The equations between the slots of one layer."""

    report: Report
    counts: Mapping[str, Size]  # lead -> how many: 'head', 'group', 'channel'
    definitions: Mapping[str, Size]  # sizes computed from others
    elementwise: list[tuple[Slot, Slot, Slot, Span]] = field(default_factory=list)
    faults: int = 0

    def total(self, width: Width) -> Size:
        """How many numbers a value of this width is, its computed names replaced."""
        lead = (self.counts[width.lead],) if width.lead in self.counts else ()
        return sizes.substitute(sizes.product(*lead, *width.shape), self.definitions)

    def is_same(self, left: Width, right: Width) -> bool:
        """Whether one can be read as the other: `[H, P]` and `[d_inner]` may be the same numbers."""
        return left == right or self.total(left) == self.total(right)

    def same(self, left: Slot, right: Slot, span: Span) -> None:
        """Two values have one width."""
        a, b = left.root(), right.root()
        if a is b:
            return
        if a.width is not None and b.width is not None:
            if not self.is_same(a.width, b.width):
                self.mismatch(a, b, span)
                return
            if _structure(b.width) > _structure(a.width):
                a, b = b, a
        elif a.width is None:
            a, b = b, a
        b.parent = a

    def be(self, slot: Slot, width: Width, reason: Span) -> None:
        """A value has this width, because of what stands at `reason`."""
        self.same(slot, Slot(width, reason), reason)

    def combine(self, left: Slot, right: Slot, span: Span) -> Slot:
        """The width of an elementwise operation: one operand's own, or a scalar per head against a column per head."""
        result = Slot()
        self.elementwise.append((left, right, result, span))
        return result

    def solve(self) -> None:
        """Settle the elementwise operations: first what is certain, then, where nothing else decides, equal widths."""
        waiting = self.elementwise
        for may_assume in (False, True):
            moved = True
            while moved and waiting:
                moved, still = False, []
                for equation in waiting:
                    if self._settle(*equation, may_assume):
                        moved = True
                    else:
                        still.append(equation)
                waiting = still

    def _settle(self, left: Slot, right: Slot, result: Slot, span: Span, may_assume: bool) -> bool:
        a, b, c = left.known, right.known, result.known
        if a is not None and b is not None:
            joined = self._join(a, b)
            if joined is None:
                self.mismatch(left.root(), right.root(), span)
            else:
                self.be(result, joined, span)
            return True
        if c is not None and a is None and b is None:
            if not may_assume:
                return False
            self.same(left, result, span)
            self.same(right, result, span)
            return True
        if c is not None:
            # The result is as wide as the wider operand: what meets a scalar per head in it has its width.
            known, unknown = (left, right) if a is not None else (right, left)
            if not known.known.shape:
                self.same(unknown, result, span)
                return self._settle(left, right, result, span, may_assume)
        for known, unknown in ((left, right), (right, left)):
            if known.known is not None and (may_assume or known.known.shape):
                self.same(unknown, known, span)
                self.same(result, known, span)
                return True
        return False

    def _join(self, a: Width, b: Width) -> Width | None:
        if self.is_same(a, b):
            return a if _structure(a) >= _structure(b) else b
        for wide, narrow in ((a, b), (b, a)):
            if not narrow.shape and narrow.lead in (wide.lead, "none"):
                return wide
        return None

    def mismatch(self, a: Slot, b: Slot, span: Span) -> None:
        """Report two widths that cannot be one."""
        self.faults += 1
        facts = [Label(slot.reason, f"`{slot.width}` from here") for slot in (a, b) if slot.reason not in (None, span)]
        self.report.error(
            "layer-shape-mismatch",
            f"widths `{a.width}` and `{b.width}` meet in one operation",
            span,
            "these two do not fit",
            secondary=facts,
            note="elementwise operations take equal widths, or a scalar per head against a column per head",
            help="bring one to the other's width with `linear(...)`",
        )


def _structure(width: Width) -> tuple[bool, int]:
    return (width.lead != "none", len(width.shape))


def spread(widths: tuple, count: int) -> tuple:
    """The widths of an operand beside one of `count` values."""
    return (widths or (Slot(),)) * count if len(widths) <= 1 else widths


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(f"`{name}`" for name in names)


def walk(node):
    """Every node of a tree, written or resolved, parents first."""
    yield node
    for entry in fields(node):
        value = getattr(node, entry.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, (syntax.Node, LayerValue)):
                yield from walk(item)
            elif isinstance(item, tuple):
                for part in item:
                    if isinstance(part, syntax.Node):
                        yield from walk(part)


def freeze(node):
    """The same tree with every slot replaced by the width found for it."""
    changes = {}
    for entry in fields(node):
        value = getattr(node, entry.name)
        if entry.name == "widths":
            changes["widths"] = tuple(slot.known for slot in value)
        elif isinstance(value, LayerValue):
            changes[entry.name] = freeze(value)
        elif isinstance(value, tuple) and any(isinstance(item, LayerValue) for item in value):
            changes[entry.name] = tuple(freeze(item) for item in value)
    return replace(node, **changes)
