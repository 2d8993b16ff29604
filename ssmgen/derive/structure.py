"""What the linear part of one state's dynamics is made of, for formulas that are no polynomials."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import algebra
from ..expressions import half
from ..source import Span
from ..spec import Dim, Expr, Skew, State, Type
from .chains import Factor, Polynomial


@dataclass
class Structure:
    """The linear part of one state's dynamics, sorted by what each term does."""

    scalar: Expr = algebra.ZERO
    left: Expr | None = None  # a column on the key side
    right: Expr | None = None  # a column on the value side
    weight: Expr | None = None  # full weights
    turning: Expr | None = None  # rates of turning
    turning_type: Type | None = None
    rank_one: list[tuple[str, Expr, Expr, Factor, Span]] = field(default_factory=list)  # side, coefficient, column, row, span

    @property
    def sides(self) -> frozenset[str]:
        """Along which axes the rate differs: 'left', 'right' or, entry by entry, 'whole'; none for one rate."""
        parts = (("left", self.left), ("right", self.right), ("whole", self.weight))
        return frozenset(side for side, part in parts if part is not None)

    def turns_some(self, rows: Dim) -> bool:
        """Whether some rows turn and others do not."""
        return self.turning is not None and not self.turning.type.is_scalar and self.turning.type.rows != half(rows)

    def rate(self, type: Type) -> Expr:
        """The part that formulas take entry by entry: the scalar, the columns and the weights added up, for a state of this type."""
        total = self.scalar
        for side, part in (("left", self.left), ("right", self.right), ("whole", self.weight)):
            if part is not None:
                part = spread(part, side, type) if len(self.sides) > 1 else part
                total = part if algebra.is_zero(total) else algebra.add(total, part)
        return total


def spread(value: Expr, side: str, type: Type) -> Expr:
    """A value along one side of a state as a matrix of the state's type."""
    if side == "left":
        return algebra.matmul(value, algebra.transpose(algebra.const(1, Type(type.cols))))
    if side == "right":
        return algebra.matmul(algebra.const(1, Type(type.rows)), algebra.transpose(value))
    return value


class NoClosedForm(Exception):
    """Why no formula but a polynomial can be evaluated on a transition."""

    def __init__(self, span: Span, label: str):
        super().__init__(label)
        self.span, self.label = span, label


def structure_of(state: State, linear: Polynomial, span: Span, has_inverses: bool) -> Structure:
    """The terms around `state`, sorted. Raises NoClosedForm for a dense matrix, other states, or parts that do not commute.

    `has_inverses`: the formulas are quotients of linear ones, which need no commuting of a diagonal and a rank-one term.
    """
    found = Structure()
    for item in linear:
        if item.state.name != state.name:
            raise NoClosedForm(item.span, f"`{item.state.name}` enters the dynamics of `{state.name}`")
        factor = item.factors[item.place]
        kinds = ([f.kind for f in item.left], [f.kind for f in item.right])
        plain = not factor.transposed and not factor.conjugated and factor.weight is None and item.index is None
        if plain and kinds == ([], []):
            found.scalar = algebra.add(found.scalar, item.coefficient)
        elif plain and kinds == (["diagonal"], []):
            found.left = _plus(found.left, algebra.mul(item.coefficient, item.left[0].expr))
        elif plain and kinds == ([], ["diagonal"]):
            found.right = _plus(found.right, algebra.mul(item.coefficient, item.right[0].expr))
        elif plain and kinds == (["dense"], []) and isinstance(item.left[0].expr, Skew):
            found.turning = _plus(found.turning, algebra.mul(item.coefficient, item.left[0].expr.operand))
            found.turning_type = item.left[0].expr.type
        elif plain and kinds in ((["column", "row"], []), (["column", "part"], [])):
            found.rank_one.append(("left", item.coefficient, item.left[0].expr, item.left[1], item.span))
        elif plain and kinds == ([], ["column", "row"]):
            found.rank_one.append(("right", item.coefficient, item.right[0].expr, item.right[1], item.span))
        elif not factor.transposed and not factor.conjugated and kinds == ([], []) and item.index is None:
            found.weight = _plus(found.weight, algebra.mul(item.coefficient, factor.weight))
        elif not factor.transposed and not factor.conjugated and item.index is None and {*kinds[0], *kinds[1]} == {"diagonal"}:
            # of both sides, or beside weights: entry by entry as well
            whole = algebra.const(1, state.type) if factor.weight is None else factor.weight
            for f, side in [(f, "left") for f in item.left] + [(f, "right") for f in item.right]:
                whole = algebra.mul(whole, spread(f.expr, side, state.type))
            found.weight = _plus(found.weight, algebra.mul(item.coefficient, whole))
        else:
            what = "a sum of rank-one terms" if item.index else "a transposed state" if factor.transposed else "a dense matrix"
            raise NoClosedForm(item.span, f"{what} acts on `{state.name}`")
    shapes = [found.left is not None, found.right is not None, found.weight is not None]
    turns = found.turning is not None
    if turns and found.right is not None:
        raise NoClosedForm(span, "pairs of rows turn, and columns fade by themselves")
    mixed = (turns and found.weight is not None) or (found.rank_one and (sum(shapes) > 1 or len(found.rank_one) > 1))
    if found.rank_one and (turns or any(shapes)):
        # a diagonal, or pairs that turn, beside a rank-one term on the same side: inverses are closed (Sherman and Morrison), and
        # exponentials are not
        is_left = found.rank_one[0][0] == "left"
        beside = is_left if turns else (found.left if is_left else found.right) is not None
        mixed = mixed or not beside or not has_inverses or (turns and found.rank_one[0][3].kind == "part")
    elif found.rank_one and found.rank_one[0][3].kind == "part":
        raise NoClosedForm(span, "a part of a product beside one number")
    if mixed:
        names = ("a diagonal on the key side", "a diagonal on the value side", "full weights")
        words = [name for name, has in zip(names, shapes, strict=True) if has]
        words += ["a rotation"] if turns else []
        words += [f"{len(found.rank_one)} rank-one terms" if len(found.rank_one) > 1 else "a rank-one term"] if found.rank_one else []
        raise NoClosedForm(span, " and ".join(words) + " do not commute")
    return found


def _plus(total: Expr | None, term: Expr) -> Expr:
    return term if total is None else algebra.add(total, term)
