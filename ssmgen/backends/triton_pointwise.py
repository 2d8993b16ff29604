"""Token-wise expressions as Triton text on register tiles with named axes.

A value has axes, in the layout order of `kernel`: the rows of a chunk `i`, the key axis `n`, the value axis `p`; a decode
step has no rows. A column of the spec does not say which axis it lies on: whoever prints it does, and products hand it
down. Broadcasting goes by name. Tiles may be wider than the data: what stands beyond the data is followed through every
operation, and a sum over an axis is masked where its terms are not zero there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from ..algebra import neg
from ..expressions import half
from ..functions import FUNCTIONS as CLOSED
from ..kernel import KEY, VALUE
from ..spec import (
    ONE,
    Add,
    Apply,
    Const,
    Delayed,
    Diag,
    Dim,
    Div,
    Element,
    Expr,
    Identity,
    MatMul,
    Mul,
    Neg,
    Pow,
    Ref,
    Rot,
    SizeOf,
    StateRef,
    Transpose,
)
from .torch_pointwise import ATOM, PRODUCT, SIGN, SUM, UnsupportedOperand
from .triton_text import FUNCTIONS
from .triton_value import (
    ANYTHING,
    AXES,
    HALF,
    Text,
    added,
    as_decimal,
    as_tensor,
    combined,
    divided,
    in_layout,
    joined,
    literal,
    literal_of,
    loaded,
    multiplied,
    negative,
    past_function,
    past_power,
    power_of_numbers,
    size_text,
    whole_power,
)


class Values(Protocol):
    """What the names of the expressions are on the tile; None where a name has no value on these axes."""

    def get(self, key: tuple[str, str]) -> Text | None:
        """`key` is a name and the axes asked for: '' for a scalar, 'n' or 'p' for a column, 'np' for a matrix. A state
        after the token is called `S'`, the previous token's value `x[-1]`, row 2 of several `k[2]`, the position that `rope`
        turns by `position`."""


class Printer:
    """Prints expressions as Triton text.

    values: see `Values`; a dict will do. axis_of: the axis that an inner product over a size runs along; the key axis where
    it says nothing. masks, offsets: the names of an axis's mask and of its entries' indices. used: every (name, axes) that
    was asked for, in order, so that the caller can load them; used_masks and used_offsets likewise. whole: the axes that a sum or
    a permutation runs along, which must lie in one block.
    """

    def __init__(
        self,
        values: Values,
        axis_of: Mapping[Dim, str] | None = None,
        masks: Mapping[str, str] | None = None,
        offsets: Mapping[str, str] | None = None,
    ):
        self.values = values
        self.axis_of = dict(axis_of or {})
        self.masks = {a: f"m_{a}" for a in AXES} | dict(masks or {})
        self.offsets = {a: f"o_{a}" for a in AXES} | dict(offsets or {})
        self.used: dict[tuple[str, str], None] = {}
        self.used_masks: dict[str, None] = {}
        self.used_offsets: dict[str, None] = {}
        self.whole: dict[str, None] = {}

    def print(self, expr: Expr, vector: str = KEY, columns: str = VALUE) -> Text:
        """The text of `expr`. A column or row lies along `vector`; a matrix's rows along `vector`, its columns along `columns`.

        Raises UnsupportedOperand for what has no text on a tile.
        """
        if expr.type.is_row:
            return self._print(expr, "", vector)
        return self._print(expr, vector, columns)

    # --- nodes: `rows` and `cols` are the axes on which the expression's rows and columns lie ---

    def _print(self, expr: Expr, rows: str, cols: str) -> Text:
        rows = rows if expr.type.rows != ONE else ""
        cols = cols if expr.type.cols != ONE else ""
        match expr:
            case Const():
                return literal(expr.value)
            case SizeOf():
                return size_text(expr.size)
            case Ref() | StateRef() | Delayed() | Element():
                return self._name(expr, rows, cols)
            case Transpose():
                return self._print(expr.operand, cols, rows)
            case Neg() | Mul() | MatMul() | Div():
                return self._product(expr, rows, cols)
            case Add():
                return self._sum(expr, rows, cols)
            case Pow():
                return self._power(expr, rows, cols)
            case Apply():
                return self._apply(expr, rows, cols)
        raise UnsupportedOperand(f"{type(expr).__name__} on a tile")

    def _name(self, expr: Expr, rows: str, cols: str) -> Text:
        name = name_of(expr)
        key = (name, rows + cols)
        value = self.values.get(key)
        if value is None:
            raise UnsupportedOperand(f"no `{name}` along `{rows + cols}`")
        self.used[key] = None
        return value

    def _sum(self, expr: Add, rows: str, cols: str) -> Text:
        return added([part for term in expr.terms for part in self._terms(term, rows, cols)])

    def _terms(self, term: Expr, rows: str, cols: str) -> list[tuple[bool, Text]]:
        """(is negative, magnitude) of a term, or of each of its terms where it is a sum itself."""
        if isinstance(term, Add):
            return [part for inner in term.terms for part in self._terms(inner, rows, cols)]
        if isinstance(term, Neg) and isinstance(term.operand, Add):
            return [(not is_negative, part) for is_negative, part in self._terms(term.operand, rows, cols)]
        return [self._signed(term, rows, cols)]

    def _product(self, expr: Expr, rows: str, cols: str) -> Text:
        is_negative, text = self._signed(expr, rows, cols)
        return negative(text) if is_negative else text

    def _signed(self, expr: Expr, rows: str, cols: str) -> tuple[bool, Text]:
        """The sign in front of a product, and the rest."""
        is_negative, factors = self._factors(expr, rows, cols)
        return is_negative, multiplied(factors)

    def _factors(self, expr: Expr, rows: str, cols: str) -> tuple[bool, list[Text]]:
        """The factors of a product, sign apart."""
        rows = rows if expr.type.rows != ONE else ""
        cols = cols if expr.type.cols != ONE else ""
        match expr:
            case Const() if expr.value < 0:
                return True, [literal(-expr.value)]
            case Transpose():
                return self._factors(expr.operand, cols, rows)
            case Neg():
                is_negative, factors = self._factors(expr.operand, rows, cols)
                return not is_negative, factors
            case Mul():
                return _both(self._factors(expr.left, rows, cols), self._factors(expr.right, rows, cols))
            case Div():
                above, below = self._signed(expr.left, rows, cols), self._signed(expr.right, rows, cols)
                return above[0] != below[0], [divided(above[1], below[1])]
            case MatMul():
                return self._matrix_product(expr.left, expr.right, rows, cols)
        return False, [self._print(expr, rows, cols)]

    # --- matrix products ---

    def _matrix_product(self, left: Expr, right: Expr, rows: str, cols: str) -> tuple[bool, list[Text]]:
        inner = left.type.cols
        if left.type.is_scalar or right.type.is_scalar or inner == ONE:
            return _both(
                self._factors(left, rows, cols if left.type.is_scalar else ""),
                self._factors(right, rows if right.type.is_scalar else "", cols),
            )
        for outer, is_left in ((left, True), (right, False)):
            found = self._map(outer, right if is_left else left, is_left, rows, cols)
            if found is not None:
                return found
        refused = None
        for axis in self._inner_axes(inner, rows, cols):
            try:
                return self._contracted(left, right, rows, cols, axis)
            except UnsupportedOperand as error:
                refused = refused or error
        raise refused or UnsupportedOperand(f"a product of {left.type} and {right.type} on a tile")

    def _map(self, map_: Expr, other: Expr, is_left: bool, rows: str, cols: str) -> tuple[bool, list[Text]] | None:
        """The product with a matrix that is never formed: a diagonal, a rotation, a sum or product of such; None for others."""
        own = rows if is_left else cols

        def times(matrix: Expr) -> tuple[bool, list[Text]]:
            return self._matrix_product(matrix, other, rows, cols) if is_left else self._matrix_product(other, matrix, rows, cols)

        match map_:
            case Identity():
                return self._factors(other, rows, cols)
            case Diag():
                return _both(self._factors(map_.operand, own, ""), self._factors(other, rows, cols))
            case Rot():
                return False, [self._rotated(map_, other, is_left, rows, cols)]
            case Transpose() if is_map(map_.operand):
                return times(_transposed(map_.operand))
            case Neg() if is_map(map_):
                is_negative, factors = times(map_.operand)
                return not is_negative, factors
            case Add() if is_map(map_):
                return False, [added([(negative, multiplied(factors)) for negative, factors in map(times, map_.terms)])]
            case Mul() if is_map(map_) and (map_.left.type.is_scalar or map_.right.type.is_scalar):
                scale, matrix = (map_.left, map_.right) if map_.left.type.is_scalar else (map_.right, map_.left)
                return _both(self._factors(scale, "", ""), times(matrix))
            case Div() if is_map(map_) and map_.right.type.is_scalar:
                (is_negative, factors), (other_negative, below) = times(map_.left), self._signed(map_.right, "", "")
                return is_negative != other_negative, [divided(multiplied(factors), below)]
            case MatMul() if is_map(map_):
                # (a b) X = a (b X) and X (a b) = (X a) b
                if is_left:
                    return self._matrix_product(map_.left, _product_of(map_.right, other), rows, cols)
                return self._matrix_product(_product_of(other, map_.left), map_.right, rows, cols)
        return None

    def _rotated(self, turn: Rot, other: Expr, is_left: bool, rows: str, cols: str) -> Text:
        """rot(angles) X; X rot(angles) turns the other way."""
        axis = rows if is_left else cols
        value = self._print(other, rows, cols)
        if axis not in value.axes:
            raise UnsupportedOperand(f"a rotation of what does not lie along `{axis}`")
        angle = self._print(turn.operand, HALF, "")
        if turn.operand.type.is_scalar:
            pair = angle
        elif angle.axes[-1:] == (HALF,):
            if turn.operand.type.rows != half(turn.type.rows) and not angle.is_zero_past(HALF):
                # rows behind the pairs that turn stay
                self.used_offsets[HALF] = None
                entry = loaded(self.offsets[HALF], (HALF,)).along(angle.axes)
                angle = Text(f"tl.where({entry} < {size_text(turn.operand.type.rows).text}, {angle.text}, 0.0)", ATOM, angle.axes)
            pair = Text(f"tl.interleave({angle.text}, {angle.text})", ATOM, in_layout((*angle.axes[:-1], axis)))
        else:
            raise UnsupportedOperand("the angles of a rotation do not lie along pairs")
        axes = in_layout({*value.axes, *pair.axes})
        if angle.axes[-1:] == (HALF,) and len(axes) == 2 and axes[-1] == axis:
            self.whole[axis] = None
            each = tuple(HALF if a == axis else a for a in axes)
            angle = angle if is_left else self._print(neg(turn.operand), HALF, "")
            return Text(f"_turn({value.along(axes)}, {angle.along(each)})", ATOM, axes, dict(value.beyond))
        self.used_offsets[axis] = self.whole[axis] = None
        entry = loaded(self.offsets[axis], (axis,)).along(axes)
        angle_text = ("" if is_left else "-") + pair.along(axes, PRODUCT if is_left else SIGN)
        text = f"_rotate({value.along(axes)}, {angle_text}, {entry}, {axes.index(axis)})"
        return Text(text, ATOM, axes, dict(value.beyond))

    def _inner_axes(self, inner: Dim, rows: str, cols: str) -> list[str]:
        own = self.axis_of.get(inner, KEY)
        candidates = (own,) if own == HALF else (own, KEY, VALUE)
        return [a for a in dict.fromkeys(candidates) if a not in (rows, cols)]

    def _contracted(self, left: Expr, right: Expr, rows: str, cols: str, axis: str) -> tuple[bool, list[Text]]:
        is_negative, factors = _both(self._factors(left, rows, axis), self._factors(right, axis, cols))
        # what does not vary along the axis stands in front of the sum
        inside = [f for f in factors if axis in f.axes]
        outside = [f for f in factors if axis not in f.axes]
        if not inside:
            raise UnsupportedOperand(f"a sum along `{axis}` of what does not lie there")
        return is_negative, [*outside, self.summed(self._of_data(multiplied(self._inside(inside, axis)), axis, left.type.cols), axis)]

    def _inside(self, factors: list[Text], axis: str) -> list[Text]:
        """The factors of what is summed over an axis."""
        return factors

    def _of_data(self, value: Text, axis: str, size: Dim) -> Text:
        """Along pairs, which have no mask of their own: the value, zero behind the `size` of them that there are."""
        if axis != HALF or value.is_zero_past(axis):
            return value
        self.used_offsets[HALF] = None
        entry = loaded(self.offsets[HALF], (HALF,)).along(value.axes)
        text = f"tl.where({entry} < {size_text(size).text}, {value.text}, 0.0)"
        return Text(text, ATOM, value.axes, {a: 0.0 if a == axis else value.past(a) for a in value.axes})

    def summed(self, value: Text, axis: str) -> Text:
        """The sum of a value over one of its axes, masked where it needs to be."""
        self.whole[axis] = None
        text = value.text
        if not value.is_zero_past(axis):
            text = f"tl.where({self._mask(axis, value.axes)}, {text}, 0.0)"
        axes = tuple(a for a in value.axes if a != axis)
        return Text(f"tl.sum({text}, {value.axes.index(axis)})", ATOM, axes, {a: value.past(a) for a in axes})

    def _mask(self, axis: str, axes: tuple[str, ...]) -> str:
        self.used_masks[axis] = None
        return loaded(self.masks[axis], (axis,)).along(axes)

    # --- functions ---

    def _power(self, expr: Pow, rows: str, cols: str) -> Text:
        base, exponent = self._print(expr.base, rows, cols), self._print(expr.exponent, rows, cols)
        if base.is_number and exponent.is_number:
            return power_of_numbers(base, exponent)
        axes = joined((base, exponent))
        if isinstance(expr.exponent, Const):
            return combined(*whole_power(base, expr.exponent.value), base.axes, [base, exponent], past_power)
        if base.number is not None and base.number > 0:
            scale = "" if base.number == 2 else f"{math.log2(base.number)!r} * "
            text = f"tl.exp2({scale}{exponent.along(axes, PRODUCT if scale else SUM)})"
        else:
            text = f"tl.exp({exponent.along(axes, PRODUCT)} * tl.log({as_tensor(base).along(axes)}))"
        return combined(text, ATOM, axes, [base, exponent], past_power)

    def _apply(self, expr: Apply, rows: str, cols: str) -> Text:
        name = expr.function
        if name == "pi":
            return Text(repr(math.pi), ATOM, number=math.pi, is_number=True)
        if name in ("pair_cross", "pair_sum"):
            return self._of_pairs(expr, rows, cols)
        if name in COLUMN_FUNCTIONS:
            return self._column_function(name, expr.args[0], rows, cols)
        if name not in FUNCTIONS:
            raise UnsupportedOperand(f"`{name}` on a tile")
        args = [self._print(a, rows, cols) for a in expr.args]
        if all(a.number is not None for a in args) and name in CLOSED:
            return literal_of(CLOSED[name].value(*(float(a.number) for a in args)))
        if all(a.is_number for a in args):
            args[0] = as_tensor(args[0])
        axes = joined(args)
        if name == "square" and args[0].text.isidentifier():
            text, binding = f"{args[0].text} * {args[0].text}", PRODUCT
        else:
            text, binding = FUNCTIONS[name](*(as_decimal(a).along(axes) for a in args)), ATOM
        return combined(text, binding, axes, args, lambda *values: past_function(name, values))

    def _column_function(self, name: str, operand: Expr, rows: str, cols: str) -> Text:
        if name == "pairs":
            self.whole[rows + cols] = None
            inner = self._print(operand, HALF if rows else "", HALF if cols else "")
            axes = in_layout((*inner.axes[:-1], rows + cols))
            if inner.axes[-1:] != (HALF,):
                raise UnsupportedOperand("the operand of `pairs` does not lie along pairs")
            return Text(
                f"tl.interleave({inner.text}, {inner.text})", ATOM, axes, {a: inner.past(HALF if a == rows + cols else a) for a in axes}
            )
        type_ = operand.type
        if name in ("row_sum", "column_sum") or (name == "sum" and not (type_.is_row or type_.is_column)):
            return self._matrix_sum(name, operand, rows, cols)
        if name in ("sum", "norm"):
            # the result is a scalar: the operand's own size says where it lies
            refused = None
            for axis in self._inner_axes(type_.cols if type_.is_row else type_.rows, "", ""):
                try:
                    value = self._print(operand, axis, axis if type_.is_row else VALUE)
                    return self._reduced(name, self._of_data(value, axis, type_.cols if type_.is_row else type_.rows), axis)
                except UnsupportedOperand as error:
                    refused = refused or error
            raise refused
        axis = rows + cols
        self.whole[axis] = None
        value = self._print(operand, rows, cols)
        if len(axis) != 1 or value.axes[-1:] != (axis,):
            raise UnsupportedOperand(f"`{name}` of what does not lie along one axis")
        if name in ("rope", "rope_back"):
            return self._rope(name, value, type_.cols if type_.is_row else type_.rows, axis)
        if name == "softmax":
            return Text(
                f"_softmax({value.text}, {self._mask(axis, value.axes)})",
                ATOM,
                value.axes,
                {a: 0.0 if a == axis else None for a in value.axes},
            )
        text = self._masked(value, axis)
        size = f", {size_text(type_.cols if type_.is_row else type_.rows).text}" if name == "rmsnorm" else ""
        # zero along another axis stays zero: the small number under the root is not
        beyond = {a: 0.0 if a == axis or value.past(a) == 0 else value.past(a) for a in value.axes}
        return Text(
            f"_{name}({text}{size})", ATOM, value.axes, {a: b if b == 0 else None if b is not ANYTHING else b for a, b in beyond.items()}
        )

    def _of_pairs(self, expr: Apply, rows: str, cols: str) -> Text:
        """One value a pair, from the entries of columns."""
        if rows + cols != HALF:
            raise UnsupportedOperand(f"`{expr.function}` that does not lie along pairs")
        own_size = expr.args[0].type.cols if expr.args[0].type.is_row else expr.args[0].type.rows
        paired = self.axis_of.get(own_size, KEY)
        args = [self._print(a, paired, "") for a in expr.args]
        axes = joined(args)
        if len(axes) != 2 or axes[-1] != paired:
            raise UnsupportedOperand(f"`{expr.function}` of what does not lie on rows and columns")
        self.whole[paired] = None
        own = (axes[0], HALF)
        text = f"_{expr.function}({', '.join(a.along(axes) for a in args)})"
        if expr.type.rows != half(own_size):
            # rows behind the pairs that turn stay
            self.used_offsets[HALF] = None
            entry = loaded(self.offsets[HALF], (HALF,)).along(own)
            text = f"tl.where({entry} < {size_text(expr.type.rows).text}, {text}, 0.0)"
        zero = all(a.past(paired) is not ANYTHING for a in args) and any(a.is_zero_past(paired) for a in args)
        beyond = {axes[0]: 0.0 if any(a.past(axes[0]) == 0 for a in args) else None, HALF: 0.0 if zero else None}
        return Text(text, ATOM, own, beyond)

    def _matrix_sum(self, name: str, operand: Expr, rows: str, cols: str) -> Text:
        """The sum of a matrix along its rows, its columns, or both."""
        down = rows or self.axis_of.get(operand.type.rows, KEY)
        across = cols or self.axis_of.get(operand.type.cols, VALUE)
        value = self._print(operand, down, across)
        for axis in {"row_sum": (across,), "column_sum": (down,), "sum": (down, across)}[name]:
            value = self._reduced("sum", value, axis)
        return value

    def _reduced(self, name: str, value: Text, axis: str) -> Text:
        if axis not in value.axes:
            raise UnsupportedOperand(f"`{name}` of what does not lie along `{axis}`")
        self.whole[axis] = None
        if name == "sum":
            return self.summed(value, axis)
        if value.axes[-1] != axis:
            raise UnsupportedOperand(f"`{name}` along an axis that is not the last")
        axes = value.axes[:-1]
        return Text(f"_norm({self._masked(value, axis)})", ATOM, axes, {a: value.past(a) for a in axes})

    def _masked(self, value: Text, axis: str) -> str:
        """The text of a value, zero beyond the data."""
        return value.text if value.is_zero_past(axis) else f"tl.where({self._mask(axis, value.axes)}, {value.text}, 0.0)"

    def _rope(self, name: str, value: Text, size: Dim, axis: str) -> Text:
        position = self.values.get(("position", ""))
        if position is None:
            raise UnsupportedOperand("no `position`")
        self.used["position", ""] = None
        self.used_offsets[axis] = self.whole[axis] = None
        axes = joined((value, position))
        axes = in_layout({*axes, axis})
        sign = "-" if name == "rope_back" else ""
        entry = loaded(self.offsets[axis], (axis,)).along(axes)
        where = f"{sign}{position.along(axes, SIGN if sign else SUM)}"
        return Text(f"_rope({value.along(axes)}, {where}, {entry}, {size_text(size).text})", ATOM, axes, dict(value.beyond))


COLUMN_FUNCTIONS = ("unit", "rmsnorm", "softmax", "norm", "rope", "rope_back", "pairs", "sum", "row_sum", "column_sum")
"""Functions over the entries of a column, with those that only derivatives use."""


def name_of(expr: Ref | StateRef | Delayed | Element) -> str:
    """The name of a leaf, as `Values` knows it."""
    if isinstance(expr, StateRef):
        return f"{expr.name}'" if expr.primed else expr.name
    if isinstance(expr, Element) and not isinstance(expr.base, Ref | Delayed):
        raise UnsupportedOperand("an entry of what is made of all entries")
    if isinstance(expr, Element):
        return f"{name_of(expr.base)}[{expr.index}]"
    return f"{expr.name}[-1]" if isinstance(expr, Delayed) else expr.name


# --- products ----------------------------------------------------------------------------------------------------


def is_map(expr: Expr) -> bool:
    """True for a matrix between an axis and itself that is made of diagonals, rotations, the identity and outer products."""
    match expr:
        case Diag() | Rot() | Identity():
            return True
        case Neg() | Transpose():
            return is_map(expr.operand)
        case Add():
            return all(is_map(t) for t in expr.terms)
        case Mul() | Div():
            return any(is_map(e) for e in (expr.left, expr.right)) and any(e.type.is_scalar for e in (expr.left, expr.right))
        case MatMul():
            is_square = expr.type.rows == expr.type.cols and not expr.type.is_scalar
            return is_square and (expr.left.type.cols == ONE or (is_map(expr.left) and is_map(expr.right)))
    return False


def _transposed(map_: Expr) -> Expr:
    """The transpose of what `_is_map`, carried inwards."""
    match map_:
        case Diag() | Identity():
            return map_
        case Rot():
            return replace(map_, operand=Neg(map_.operand.type, map_.span, map_.operand))
        case Transpose():
            return map_.operand
        case Neg():
            return replace(map_, operand=_transposed(map_.operand))
        case Add():
            return replace(map_, terms=tuple(_transposed(t) for t in map_.terms))
        case MatMul():
            left, right = (_transposed(e) if is_map(e) else _flipped(e) for e in (map_.right, map_.left))
            return replace(map_, left=left, right=right)
    left, right = (e if e.type.is_scalar else _transposed(e) for e in (map_.left, map_.right))
    return replace(map_, left=left, right=right)


def _flipped(expr: Expr) -> Transpose:
    return Transpose(replace(expr.type, rows=expr.type.cols, cols=expr.type.rows), expr.span, expr)


def _product_of(left: Expr, right: Expr) -> MatMul:
    return MatMul(replace(left.type, cols=right.type.cols), left.span, left, right)


def _both(left: tuple[bool, list[Text]], right: tuple[bool, list[Text]]) -> tuple[bool, list[Text]]:
    return left[0] != right[0], [*left[1], *right[1]]
