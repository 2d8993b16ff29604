"""Token-wise expressions as torch text, for values laid out [B, T, H, N] (or [B, H, N] for one token).

A value's trailing axes are its head axis, if it has one, and its vector axis, if it is a column. What lacks an axis is
given one where it meets a value that has it; what is shared by a group of heads is repeated where it meets a head's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType

from ..algebra import neg, regrouped
from ..expressions import half, nodes
from ..source import NOWHERE
from ..spec import (
    ONE,
    Add,
    Apply,
    Const,
    Delayed,
    Diag,
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
    Skew,
    Transpose,
)
from .torch_text import AXIS_FUNCTIONS, ENTRY_FUNCTIONS, FUNCTIONS, OF_TENSORS, SQUARE_FUNCTIONS, SQUARE_PARTS, identifier

SUM, PRODUCT, SIGN, POWER, ATOM = range(5)
"""Binding strengths of Python's operators."""


class UnsupportedOperand(ValueError):
    """An expression that has no token-wise text (a matrix-valued operand); classify refuses it beforehand."""


@dataclass(frozen=True)
class Place:
    """Which axes a value has: time (with batch), heads ('' none, 'g' one per group, 'h' one per head), rows, vector.

    `is_number`: a Python number, not a tensor.
    """

    has_time: bool = False
    level: str = ""
    has_vector: bool = False
    is_number: bool = False
    has_rows: bool = False

    @property
    def width(self) -> int:
        """How many axes stand behind that of the heads."""
        return self.has_vector + self.has_rows

    def join(self, other: Place) -> Place:
        """The place of an elementwise result."""
        level = max(self.level, other.level, key="_gh".index) if self.level and other.level else self.level or other.level
        return Place(
            self.has_time or other.has_time, level, self.has_vector or other.has_vector, self.is_number and other.is_number,
            self.has_rows or other.has_rows,
        )  # fmt: skip


NUMBER = Place(is_number=True)
FULL = Place(has_vector=True, has_rows=True)
"""Of a matrix of numbers, which has no axis but its own."""
POSITION = Place(has_time=True)
INDICES = {"head": Place(level="h"), "channel": Place(level="h"), "position": POSITION}
"""Places of the built-in indices; `heads`, `channels`, `layer` and `layers` are numbers."""
BUILT_IN = frozenset({*INDICES, "heads", "channels"})
"""Names that the emitted text defines itself: never renamed."""


@dataclass(frozen=True)
class Text:
    """Torch text with how tightly it binds and where its value lives."""

    text: str
    binding: int
    place: Place

    def at(self, binding: int) -> str:
        """The text as an operand of an operator that binds this tightly."""
        return self.text if self.binding >= binding else f"({self.text})"


class Printer:
    """Prints expressions given the place of every name. `texts` overrides the text of a name; `sizes` are those of rows."""

    def __init__(self, places: Mapping[str, Place], sizes: Mapping[str, int] = MappingProxyType({})):
        self.places = dict(places)
        self.sizes = sizes
        self.texts: dict[str, str] = {}
        self.definitions: Mapping[str, Expr] = MappingProxyType({})
        self.is_exact = False  # whether arguments are read in float32 at least, and what is made of them is opened
        self.like = ""  # the tensor whose type an identity has

    def place(self, expr: Expr) -> Place:
        """Where the value of `expr` lives."""
        return self.print(expr).place

    def text(self, expr: Expr) -> str:
        """The text of `expr`."""
        return self.print(expr).text

    def placed(self, expr: Expr, place: Place) -> str:
        """The text of `expr`, broadcastable against values at `place`."""
        return self._adapt(self.print(expr), place)

    def adapted(self, value: Text, place: Place) -> str:
        """The text of `value`, broadcastable against values at `place`."""
        return self._adapt(value, place)

    # --- nodes ---

    def print(self, expr: Expr) -> Text:
        match expr:
            case Const():
                return _number(expr.value)
            case SizeOf():
                return size_text(expr.size)
            case Ref() if self.is_exact and expr.name in self.definitions:
                return self._whole(self.definitions[expr.name])
            case Ref():
                place = self.places.get(expr.name) or INDICES.get(expr.name)
                if place is None:
                    raise UnsupportedOperand(f"no place for `{expr.name}`")
                text = self.texts.get(expr.name) or (expr.name if expr.name in BUILT_IN else identifier(expr.name))
                return Text(text if place.is_number or not self.is_exact else f"_exact({text})", ATOM, place)
            case Delayed():
                name = f"{expr.name}[-1]"
                return Text(f"_exact({identifier(name)})" if self.is_exact else identifier(name), ATOM, self.places[name])
            case Transpose():
                inner = self.print(expr.operand)
                # a row lies as the column does
                return Text(f"{inner.at(ATOM)}.mT", ATOM, inner.place) if inner.place.width == 2 else inner
            case Neg():
                inner = self.print(expr.operand)
                # a sign in front of a power reads as if it belonged to the base
                text = f"({inner.text})" if inner.binding == POWER else inner.at(PRODUCT if inner.binding == PRODUCT else SIGN)
                return Text(f"-{text}", SIGN, inner.place)
            case Add():
                return self._sum(expr)
            case Mul():
                return self._operator("*", expr.left, expr.right)
            case Div():
                return self._operator("/", expr.left, expr.right)
            case Pow():
                return self._power(expr)
            case MatMul():
                return self._matrix_product(expr)
            case Element():
                return self._element(expr)
            case Apply():
                return self._apply(expr)
        raise UnsupportedOperand(f"{type(expr).__name__} in a token-wise expression")

    def _element(self, expr: Element) -> Text:
        base = self.print(expr.base)
        tail = ", :" if base.place.has_rows else ""
        place = replace(base.place, has_rows=False, has_vector=base.place.has_rows)
        return Text(f"{base.at(ATOM)}[..., {expr.index - 1}{tail}]", ATOM, place)

    def _rows(self, terms: tuple[Expr, ...]) -> Text:
        """Values put into rows of their own: side by side where they fill all rows, among zeros otherwise."""
        by_row: dict[int, list[Expr]] = {}
        for term in terms:
            by_row.setdefault(int(term.args[1].value), []).append(term.args[0])
        parts = {r: self.print(own[0] if len(own) == 1 else Add(own[0].type, NOWHERE, tuple(own))) for r, own in by_row.items()}
        count = int(terms[0].type.rows.value(self.sizes))
        is_matrix = terms[0].type.cols != ONE
        place = _joined(list(parts.values()))
        full = replace(place, has_vector=True, has_rows=is_matrix)
        inner = replace(place, has_vector=is_matrix)
        texts = [self._adapt(parts[r], inner) for r in sorted(parts)]
        if len(parts) == count:
            return Text(f"_rows({', '.join(texts)}, dim={-2 if is_matrix else -1})", ATOM, full)
        texts = [t if t != parts[r].text else parts[r].at(ATOM) for r, t in zip(sorted(parts), texts, strict=True)]
        pads = [
            f"F.pad({t}[..., None{', :' if is_matrix else ''}], ({'0, 0, ' if is_matrix else ''}{r - 1}, {count - r}))"
            for r, t in zip(sorted(parts), texts)
        ]
        return Text(" + ".join(pads), ATOM if len(pads) == 1 else SUM, full)

    def _sum(self, expr: Add) -> Text:
        at_rows = [t for t in expr.terms if isinstance(t, Apply) and t.function == "at_row"]
        if len(at_rows) == len(expr.terms):
            return self._rows(expr.terms)
        parts = [self.print(t) for t in expr.terms]
        place = _joined(parts)
        positive = [i for i, t in enumerate(expr.terms) if not isinstance(t, Neg) and not (isinstance(t, Const) and t.value < 0)]
        order = ([positive[0]] if positive else [0]) + [i for i in range(len(parts)) if i != (positive[0] if positive else 0)]
        text = ""
        for count, index in enumerate(order):
            term = expr.terms[index]
            if count and isinstance(term, Neg):
                text += " - " + self._operand(self.print(term.operand), place, PRODUCT)
            elif count and isinstance(term, Const) and term.value < 0:
                text += " - " + _number(-term.value).text
            else:
                text += (" + " if count else "") + self._operand(parts[index], place, SUM if not count else PRODUCT)
        return Text(text, SUM, place)

    def _operator(self, operator: str, left: Expr, right: Expr) -> Text:
        a, b = self.print(left), self.print(right)
        place = a.place.join(b.place)
        return Text(f"{self._operand(a, place, PRODUCT)} {operator} {self._operand(b, place, SIGN)}", PRODUCT, place)

    def _power(self, expr: Pow) -> Text:
        a, b = self.print(expr.base), self.print(expr.exponent)
        place = a.place.join(b.place)
        base, exponent = self._operand(a, place, ATOM), self._operand(b, place, ATOM)
        if isinstance(expr.exponent, Const) and b.binding >= SIGN:
            exponent = b.text
        # as a formatter would: no spaces between a name and a number
        gap = "" if base.isidentifier() and exponent.lstrip("-").replace(".", "").isalnum() else " "
        return Text(f"{base}{gap}**{gap}{exponent}", POWER, place)

    def _matrix_product(self, expr: MatMul) -> Text:
        left, right = expr.left, expr.right
        if isinstance(left, Rot) and right.type.is_column:
            return self._turned(left.operand, right)
        if isinstance(right, Rot) and left.type.is_row:
            return self._turned(neg(right.operand), left)
        if isinstance(right, Diag) and not left.type.is_column:
            return self._scaled(right.operand, left, is_row=False)
        if isinstance(left, Diag) and not (right.type.is_column or right.type.is_scalar):
            return self._scaled(left.operand, right, is_row=True)
        if isinstance(left, Diag) or left.type.is_scalar or right.type.is_scalar:
            return self._operator("*", left.operand if isinstance(left, Diag) else left, right)
        if left.type.is_row and right.type.is_column:
            product = self._operator("*", left, right)
            place = Place(product.place.has_time, product.place.level)
            return Text(f"({product.text}).sum(-1)", ATOM, place)
        other = regrouped(expr)
        if other != expr:
            return self.print(other)
        return self._dense_product(left, right)

    def _scaled(self, factors: Expr, matrix: Expr, *, is_row: bool) -> Text:
        """A matrix with a factor for every row, or for every column."""
        by, x = self.print(factors), self._stored(matrix)
        # the stored matrix of a transpose has its rows as columns
        if is_row != (isinstance(matrix, Transpose) and x.place.has_rows):
            by = replace(by, place=replace(by.place, has_rows=True, has_vector=False))
        place = by.place.join(x.place)
        return Text(f"{self._operand(by, place, PRODUCT)} * {self._operand(x, place, SIGN)}", PRODUCT, place)

    def _dense_product(self, left: Expr, right: Expr) -> Text:
        """A product of matrices, or of a matrix and a column or a row, for all tokens and heads at once."""
        a, b = self._stored(left), self._stored(right)
        if not (a.place.has_rows or b.place.has_rows):
            raise UnsupportedOperand(f"a product of {left.type} and {right.type} in a token-wise expression")
        mapped = self.mapped(left, right)
        if mapped is not None:
            return Text(f"_mapped({mapped[0]}, {mapped[1].text})", ATOM, mapped[1].place)
        if {a.place.level, b.place.level} == {"g", "h"}:
            a, b = (self._per_head(x) if x.place.level == "g" else x for x in (a, b))
        first = "m" if left.type.is_row else "mn" if isinstance(left, Transpose) else "nm"
        second = "m" if right.type.is_column else "pm" if isinstance(right, Transpose) else "mp"
        place = a.place.join(b.place)
        result = ("" if left.type.is_row else "n") + ("" if right.type.is_column else "p")
        place = replace(place, has_vector=True, has_rows=len(result) == 2)
        sides = [f"{'...' * x.place.has_time}{x.place.level and 'h'}{own}" for x, own in ((a, first), (b, second))]
        equation = f"{','.join(sides)}->{'...' * place.has_time}{place.level and 'h'}{result}"
        return Text(f'_product("{equation}", {a.text}, {b.text})', ATOM, place)

    def _stored(self, expr: Expr) -> Text:
        """A value, or what it is the transpose of."""
        return self.print(expr.operand if isinstance(expr, Transpose) else expr)

    def mapped(self, left: Expr, right: Expr) -> tuple[str, Text] | None:
        """(a matrix that all tokens share, the tokens' values) where a product is that of the one and the others."""
        a, b = self._stored(left), self._stored(right)
        is_left = right.type.is_column
        matrix, values, written = (a, b, left) if is_left else (b, a, right)
        if not (right.type.is_column or left.type.is_row) or not matrix.place.has_rows or matrix.place.has_time:
            return None
        if values.place != Place(True, values.place.level, True) or matrix.place.level not in ("", values.place.level):
            return None
        # the stored matrix of a transpose, or of a product from the right, leads the other way
        is_turned = isinstance(written, Transpose) == is_left
        return (f"{matrix.at(ATOM)}.mT" if is_turned else matrix.text), values

    @staticmethod
    def _per_head(value: Text) -> Text:
        """What a group's heads share, for every head."""
        text = f"{value.at(ATOM)}.repeat_interleave(ratio, {-1 - value.place.width})"
        return Text(text, ATOM, replace(value.place, level="h"))

    def _turned(self, by: Expr, vector: Expr) -> Text:
        """A column or a row, its pairs turned."""
        x, angle = self.print(vector), self.print(by)
        place = x.place.join(replace(angle.place, has_vector=True))
        text = self._adapt(angle, replace(place, has_vector=angle.place.has_vector))
        if angle.place.is_number:
            whole = self._adapt(x, place)
            text = f"torch.full_like({whole if x.binding == ATOM else f'({whole})'}[..., ::2], {angle.text})"
        elif not angle.place.has_vector:
            # one angle for all pairs
            text = text if text != angle.text else angle.at(ATOM)
            text += (
                f"[..., None].repeat_interleave({size_text(half(vector.type.cols if vector.type.is_row else vector.type.rows)).text}, -1)"
            )
        return Text(f"_turn({self._adapt(x, place)}, {text})", ATOM, place)

    def _apply(self, expr: Apply) -> Text:
        name = expr.function
        if name == "pi":
            return Text("math.pi", ATOM, NUMBER)
        if name == "at_row":
            return self._rows((expr,))
        if name in SQUARE_FUNCTIONS or name in SQUARE_PARTS or name in ENTRY_FUNCTIONS:
            return self._of_matrix(expr)
        args = [self.print(a) for a in expr.args]
        place = _joined(args)
        if place.is_number:
            return Text(f"math.{name}({', '.join(a.text for a in args)})", ATOM, NUMBER)
        if name in ("sum", "norm"):
            scalar = Place(place.has_time, place.level)
            method = "sum(-1)" if name == "sum" else "norm(dim=-1)"
            return Text(f"{args[0].at(ATOM)}.{method}", ATOM, scalar)
        if name == "row_sum":
            return Text(f"{args[0].at(ATOM)}.sum(-1)", ATOM, replace(place, has_vector=False))
        if name in ("rope", "rope_back"):
            position = "position" + ("[..., None]" if place.level else "")
            full = Place(True, place.level, True)
            return Text(f"_rope({args[0].text}, {'-' if name == 'rope_back' else ''}{position})", ATOM, full)
        if name == "pair_cross":
            return Text(f"_pair_cross({', '.join(self._adapt(a, place) for a in args)}, {size_text(expr.type.rows).text})", ATOM, place)
        if name == "pair_sum":
            return Text(f"{args[0].at(ATOM)}.unflatten(-1, (-1, 2)).sum(-1)", ATOM, place)
        if name in AXIS_FUNCTIONS:
            return Text(AXIS_FUNCTIONS[name](args[0].text, "-1"), ATOM, place)
        texts = [self._adapt(a, place) if not a.place.is_number else a.text for a in args]
        if name in ("min", "max") and any(a.place.is_number for a in args):
            bound, other = (0, 1) if args[0].place.is_number else (1, 0)
            return Text(f"torch.clamp({texts[other]}, {name_of_bound(name)}={texts[bound]})", ATOM, place)
        if name in OF_TENSORS and any(a.place.is_number for a in args):
            like = next(text for text, a in zip(texts, args, strict=True) if not a.place.is_number)
            texts = [f"torch.full_like({like}, {text})" if a.place.is_number else text for text, a in zip(texts, args, strict=True)]
        if name in INTERNAL:
            return Text(INTERNAL[name](*texts), ATOM, place)
        return Text(FUNCTIONS[name](*texts), ATOM, place)

    # --- whole matrices ---

    def _of_matrix(self, expr: Apply) -> Text:
        """A function of a whole matrix, which is made in float32 at least."""
        outer, self.like, self.is_exact = self.is_exact, self._tensor_in(expr), True
        try:
            parts = [self._whole(arg) for arg in expr.args]
        finally:
            self.is_exact = outer
        place = _joined(parts)
        if expr.function in ENTRY_FUNCTIONS:
            entries = ", ".join(self._adapt(part, place) for part in parts[2:])
            whole = SQUARE_FUNCTIONS[ENTRY_FUNCTIONS[expr.function]](f"_entries({entries})")
            return Text(f"{whole}[..., {parts[0].text}, {parts[1].text}]", ATOM, place)
        if expr.function in SQUARE_FUNCTIONS:
            return Text(SQUARE_FUNCTIONS[expr.function](parts[0].text), ATOM, place)
        name, attribute = SQUARE_PARTS[expr.function]
        real, imaginary = (self._adapt(part, place) for part in parts)
        return Text(f"{SQUARE_FUNCTIONS[name](f'torch.complex({real}, {imaginary})')}.{attribute}", ATOM, place)

    def _whole(self, expr: Expr) -> Text:
        """A matrix of which the last two axes are all rows and columns."""
        if expr.type.is_scalar or expr.type.is_column or expr.type.is_row:
            return self.print(expr)
        rows = size_text(expr.type.rows).text
        match expr:
            case Identity():
                return self._eye(rows)
            case Diag():
                column = self.print(expr.operand)
                if not column.place.has_vector:
                    return self._entrywise("*", column, self._eye(rows))
                return Text(f"torch.diag_embed({column.text})", ATOM, replace(column.place, has_rows=True))
            case Skew():
                rate = self.print(expr.operand)
                place = replace(rate.place, has_vector=True)
                shared = f"{rate.at(ATOM)}[..., None].expand(*{rate.at(ATOM)}.shape, {size_text(half(expr.type.rows)).text})"
                text = rate.text if rate.place.has_vector else shared
                return Text(f"_skew_matrix({text}, {rows})", ATOM, replace(place, has_rows=True))
            case Transpose():
                return Text(f"{self._whole(expr.operand).at(ATOM)}.mT", ATOM, self._whole(expr.operand).place)
            case Neg():
                inner = self._whole(expr.operand)
                return Text(f"-{inner.at(PRODUCT)}", SIGN, inner.place)
            case Add():
                return self._whole_sum(expr)
            case Mul() | Div():
                return self._entrywise("*" if isinstance(expr, Mul) else "/", self._whole(expr.left), self._whole(expr.right))
            case MatMul(left=left, right=right) if left.type.is_column and right.type.is_row:
                column, row = self.print(left), self.print(right)
                return self._entrywise("*", replace(column, place=replace(column.place, has_rows=True, has_vector=False)), row)
            case MatMul():
                a, b = self._whole(expr.left), self._whole(expr.right)
                place = a.place.join(b.place)
                return Text(f"{self._operand(a, place, PRODUCT)} @ {self._operand(b, place, SIGN)}", PRODUCT, place)
        return self.print(expr)

    def _tensor_in(self, expr: Expr) -> str:
        """The text of some tensor that an expression is made of."""
        found = (self.print(n) for n in nodes(expr) if isinstance(n, (Ref, Delayed)))
        return next((text.text for text in found if not text.place.is_number), "")

    def _eye(self, rows: str) -> Text:
        """The identity, of the type and on the device of what stands beside it."""
        if not self.like:
            raise UnsupportedOperand("a function of a matrix of numbers alone")
        return Text(f"torch.eye({rows}, dtype={self.like}.dtype, device={self.like}.device)", ATOM, FULL)

    def _entrywise(self, operator: str, a: Text, b: Text) -> Text:
        place = a.place.join(b.place)
        return Text(f"{self._operand(a, place, PRODUCT)} {operator} {self._operand(b, place, SIGN)}", PRODUCT, place)

    def _whole_sum(self, expr: Add) -> Text:
        parts = [(isinstance(t, Neg), self._whole(t.operand if isinstance(t, Neg) else t)) for t in expr.terms]
        place = _joined([part for _, part in parts])
        parts.sort(key=lambda part: part[0])
        (is_negative, first), *others = parts
        text = f"-{self._operand(first, place, PRODUCT)}" if is_negative else self._operand(first, place, SUM)
        for is_negative, part in others:
            text += f" {'-' if is_negative else '+'} {self._operand(part, place, PRODUCT)}"
        return Text(text, SUM, place)

    # --- axes ---

    def _operand(self, value: Text, place: Place, binding: int) -> str:
        adapted = self._adapt(value, place)
        return adapted if adapted != value.text else value.at(binding)

    def _adapt(self, value: Text, place: Place) -> str:
        own = value.place
        if own.is_number or own == place:
            return value.text
        text = value.text
        if own.level == "g" and place.level == "h":
            text = f"{value.at(ATOM)}.repeat_interleave(ratio, {-1 - own.width})"
            value = Text(text, ATOM, own)
        index = []
        if place.level:
            index.append(":" if own.level else "None")
        if place.has_rows:
            index.append(":" if own.has_rows else "None")
        if place.has_vector:
            index.append(":" if own.has_vector else "None")
        if not own.has_time:
            while index and index[0] == "None":
                index.pop(0)
        if "None" not in index:
            return text
        while index[0] == ":":
            index.pop(0)
        return f"{value.at(ATOM)}[..., {', '.join(index)}]"


INTERNAL = {
    "at_least": lambda x, y: f"({x} >= {y}).float()",
    "sign": lambda x: f"torch.sign({x})",
    "erf": lambda x: f"torch.erf({x})",
    "phi1_slope": lambda x: f"_phi_slope({x}, 1)",
    "phi2_slope": lambda x: f"_phi_slope({x}, 2)",
    "exp_odd_bend": lambda x, d: f"_odd_bend({x}, {d}, 0)",
    "phi1_even_slope": lambda x, d: f"_even_odd_slope({x}, {d})[0]",
    "phi1_odd_slope": lambda x, d: f"_even_odd_slope({x}, {d})[1]",
    "phi1_odd_bend": lambda x, d: f"_odd_bend({x}, {d}, 1)",
    "cosm1": lambda x: f"_cosm1({x})",
}
"""Functions that only derivatives use."""


def name_of_bound(name: str) -> str:
    """`max(x, 1)` clamps from below."""
    return {"max": "min", "min": "max"}[name]


def _joined(parts: list[Text]) -> Place:
    place = NUMBER
    for part in parts:
        place = place.join(part.place)
    return place


def _number(value: Fraction) -> Text:
    if value.denominator == 1 and abs(value) < 10**15:
        text = f"{value.numerator}.0" if abs(value) >= 2**31 else str(value.numerator)
    else:
        text = repr(float(value))
    return Text(text, SIGN if value < 0 else ATOM, NUMBER)


def size_text(size) -> Text:
    """A size as text over the names of its sizes."""
    terms = []
    for name, coefficient in ((identifier(n), c) for n, c in size.terms):
        if coefficient == 1:
            terms.append(name)
        elif coefficient.numerator == 1:
            terms.append(f"{name} // {coefficient.denominator}")
        else:
            terms.append(f"{coefficient.numerator} * {name}" + (f" // {coefficient.denominator}" if coefficient.denominator != 1 else ""))
    if size.constant or not terms:
        terms.append(str(size.constant))
    return Text(" + ".join(terms), ATOM if len(terms) == 1 and terms[0].isidentifier() else SUM, NUMBER)
