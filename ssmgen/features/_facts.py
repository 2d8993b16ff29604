"""What the axes ask about a group of states that share one transition: its terms, sorted by what they do."""

from __future__ import annotations

from dataclasses import dataclass

from ..recurrence import Read, Recurrence, Transition, Write, walk
from ..spec import Expr, Ref

PURE = ("diagonal", "rotation", "elementwise")
"""Generators that forget or turn without mixing keys."""


@dataclass(frozen=True)
class Facts:
    """One group of states: `states[0]` speaks for all, since they share transitions and write keys.

    `obstacle`: why chunks do not carry states that feed each other; empty where they do.
    """

    recurrence: Recurrence
    states: tuple[str, ...]
    obstacle: str = ""

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The transition terms of the group's first state, all micro-steps."""
        return tuple(t for step in self.recurrence.steps for t in step.transitions if t.target == self.states[0])

    @property
    def decay_terms(self) -> tuple[Transition, ...]:
        """Terms that map the state to itself by scalars, diagonals and rotations only."""
        return tuple(t for t in self.transitions if t.source == t.target and all(g.kind in PURE for g in t.left + t.right))

    @property
    def carries_over(self) -> bool:
        """Whether every step takes the state over as it is (turned, perhaps), once."""
        steps = [[t for t in step.transitions if t in self.decay_terms] for step in self.recurrence.steps]
        plain = all(getattr(t.coefficient, "value", None) == 1 and self.only_turns(t) for t in self.decay_terms)
        return plain and all(len(terms) == 1 for terms in steps)

    @property
    def correction_terms(self) -> tuple[Transition, ...]:
        """Terms with a rank-one factor."""
        return tuple(t for t in self.transitions if any(g.kind in ("rank_one", "part") for g in t.left + t.right))

    @property
    def coupling_terms(self) -> tuple[Transition, ...]:
        """Terms that bring in another state, of any state of the group."""
        found = (t for step in self.recurrence.steps for t in step.transitions)
        return tuple(t for t in found if t.target in self.states and t.source != t.target)

    @property
    def writes(self) -> tuple[Write, ...]:
        """The writes into the group's first state, all micro-steps."""
        return tuple(w for step in self.recurrence.steps for w in step.writes if w.target == self.states[0])

    @property
    def reads(self) -> tuple[Read, ...]:
        """The reads of any state of the group."""
        return tuple(r for r in self.recurrence.reads if r.state in self.states)

    @staticmethod
    def only_turns(term: Transition) -> bool:
        """True when a term's only factors beside its coefficient are rotations."""
        return all(g.kind == "rotation" for g in term.left + term.right)

    @property
    def is_read_whole(self) -> bool:
        """A vector state that no query contracts and that fades as a whole: its entries are value columns, there is no key axis."""
        if self.kinds("left"):
            return False
        is_vector = all(
            not self.recurrence.spec.state(s).type.is_scalar and self.recurrence.spec.state(s).type.is_column for s in self.states
        )
        return bool(self.reads) and is_vector and all(r.side == "whole" for r in self.reads)

    @property
    def is_transposed(self) -> bool:
        """Whether the state is walked with its value axis as the key: what fades or mixes acts there alone, or, where nothing
        does, every read contracts it."""
        if self.kinds("left") or self.kinds("right"):
            return not self.kinds("left")
        return bool(self.reads) and all(r.side == "value" for r in self.reads)

    def reads_values(self, read: Read) -> bool:
        """Whether a read contracts the value columns of the walk."""
        if read.side == "whole":
            return not self.is_read_whole and not self.recurrence.spec.state(read.state).type.is_scalar
        return (read.side == "value") != self.is_transposed

    def kinds(self, side: str) -> tuple[str, ...]:
        """The generator kinds that occur on `side` ('left' or 'right') of any transition term, each once."""
        found = {g.kind for t in self.transitions for g in getattr(t, side)}
        return tuple(sorted(found))

    def is_static(self, expr: Expr) -> bool:
        """True when no per-token value enters."""
        statics = {s.name: s.static for s in self.recurrence.spec.symbols}
        hoisted = dict(self.recurrence.hoisted)
        for node in walk(expr):
            if isinstance(node, Ref):
                if node.name in hoisted:
                    if not self.is_static(hoisted[node.name]):
                        return False
                elif node.name == "position" or not statics.get(node.name, True):
                    return False
            elif type(node).__name__ == "Delayed":
                return False
        return True
