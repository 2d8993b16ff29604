"""terms of states that feed each other -> one row a token and, for every state, how it fades, what it takes over and its share of the row.

The states of a group are members of one walk: M' = a M + c Z + s (k (v - R^T e)^T), where R is the one member that the
correction reads, and every factor but k, v and e is one number a head. What a member takes over must not come back to it but
through the correction: members have an order. A memory and its momentum is such a group. Others are scanned, entry by entry.
"""

from __future__ import annotations

from .. import algebra
from ..expressions import key
from ..features._facts import Facts
from ..logarithm import log_of
from ..plan import Member, Row
from ..recurrence import Transition, Write


class NoMembers(Exception):
    """States that feed each other in another way, in words."""


def members_of(facts: Facts) -> tuple[Row, tuple[Member, ...]]:
    """The row of a token and the members of the group, in order of declaration. Raises NoMembers."""
    return _Members(facts).found()


class _Members:
    def __init__(self, facts: Facts):
        self.facts = facts
        self.recurrence = facts.recurrence
        self.names = facts.states

    def found(self) -> tuple[Row, tuple[Member, ...]]:
        if len(self.recurrence.steps) != 1 or self.recurrence.steps[0].index is not None:
            raise NoMembers("a token has several steps")
        (step,) = self.recurrence.steps
        types = [self.recurrence.spec.state(name).type for name in self.names]
        if any(t.is_scalar or t.is_column for t in types):
            raise NoMembers("not all of them are matrices")
        if any(read.side != "key" for read in self.facts.reads):
            raise NoMembers("they are read along their values")
        rows = {name: self._row(name, step) for name in self.names}
        written = [row for row in rows.values() if row is not None]
        if not written:
            raise NoMembers("nothing is written to them")
        model = written[0][0]
        for row, _ in written[1:]:
            if not _same(row, model):
                raise NoMembers("they are written along different keys, or corrected in different ways")
        members = tuple(self._member(name, step, rows[name]) for name in self.names)
        self._assert_order(members)
        return model, members

    def _member(self, name: str, step, row) -> Member:
        """How one state fades, and what it takes over of the others."""
        own, taken = None, []
        for term in (t for t in step.transitions if t.target == name and not _is_correction(t)):
            if term.left or term.right or term.rank is not None:
                raise NoMembers("a factor beside a state is more than one number a head")
            if term.source == name:
                own = term.coefficient if own is None else algebra.add(own, term.coefficient)
            else:
                taken.append((self.names.index(term.source), term.coefficient))
        if own is None:
            raise NoMembers(f"nothing of `{name}` itself survives a token")
        log = algebra.const(0) if algebra.is_one(own) else log_of(own, self.recurrence)
        if log is None:
            raise NoMembers(f"what a token keeps of `{name}` is not proved greater than 0")
        return Member(name, log, None if row is None else row[1], tuple(taken))

    def _row(self, name: str, step) -> tuple[Row, algebra.Expr] | None:
        """The row that is written to one state, and the number that it is taken times; None where nothing is written."""
        corrections = [t for t in step.transitions if t.target == name and _is_correction(t)]
        writes = [w for w in step.writes if w.target == name]
        if not corrections and not writes:
            return None
        many = corrections[1:] or writes[1:] or [t for t in (*corrections, *writes) if t.rank is not None]
        if many or any(w.tap for w in writes):
            raise NoMembers("a token writes or corrects several times")
        if not writes:
            raise NoMembers(f"`{name}` is corrected and not written")
        return self._corrected(corrections[0], writes[0]) if corrections else self._plain(writes[0])

    def _plain(self, write: Write) -> tuple[Row, algebra.Expr]:
        scalar, direction = _split(write.key)
        return Row(direction, None, (write.value,)), algebra.mul(scalar, write.coefficient)

    def _corrected(self, term: Transition, write: Write) -> tuple[Row, algebra.Expr]:
        if len(term.left) != 1 or term.right:
            raise NoMembers("a correction stands under another factor")
        (eraser,) = term.left
        scalar, direction = _split(eraser.column)
        share = algebra.neg(algebra.mul(term.coefficient, scalar))
        own, along = _split(write.key)
        ratio = algebra.quotient(algebra.mul(own, write.coefficient), share)
        if key(along) != key(direction) or ratio is None:
            raise NoMembers("a correction is along another direction, or by another number, than the write")
        value = write.value if algebra.is_one(ratio) else algebra.mul(ratio, write.value)
        return Row(direction, None, (value,), eraser.row, erases=self.names.index(term.source)), share

    def _assert_order(self, members: tuple[Member, ...]) -> None:
        """What a member takes over must not lead back to it."""
        left = set(range(len(members)))
        while left:
            free = [a for a in left if not any(b in left for b, _ in members[a].takes)]
            if not free:
                raise NoMembers("each takes over the other")
            left -= set(free)


def _is_correction(term: Transition) -> bool:
    return any(g.kind == "rank_one" for g in term.left + term.right)


def _split(expr):
    return algebra.split_scalar(expr) if expr is not None and not expr.type.is_scalar else (algebra.const(1), expr)


def _same(row: Row, model: Row) -> bool:
    parts = lambda r: [None if e is None else key(e) for e in (r.key, *r.values, r.erase)]  # noqa: E731
    return parts(row) == parts(model) and row.erases == model.erases
