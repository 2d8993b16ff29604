"""Expressions as eager torch text. Every value is two-dimensional, as in `spec`: `k v^T` is `k @ v.mT`.

Parentheses are the fewest that keep the meaning, with the two liberties a reader takes: a scalar moves freely through a
product (`beta * k @ v.mT`), and `diag(a)` times a matrix scales its rows (`a * S`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from .. import spec
from ..spec import ONE, Dim, Expr
from .torch_text import AXIS_FUNCTIONS, FUNCTIONS, OF_TENSORS, SQUARE_FUNCTIONS, identifier

SUM, PRODUCT, SIGN, POWER, ATOM = range(5)

_MATH = {name: f"math.{name}" for name in ("exp", "log", "log1p", "expm1", "sqrt", "sin", "cos", "tanh")} | {
    "abs": "abs",
    "min": "min",
    "max": "max",
}
_SIMPLE = re.compile(r"-?[\w.]+")
_CONSTANTS = {"pi": "math.pi", "i": "1j"}

HELPERS = {
    "_row": '''\
def _row(x: Tensor, j: int) -> Tensor:
    """Row j of x, counted from 1, as a column."""
    return x[..., j - 1, :, None]
''',
    "_diag": '''\
def _diag(a: Tensor) -> Tensor:
    """A column [N, 1] as the N x N diagonal matrix."""
    return torch.diag_embed(a.squeeze(-1))
''',
    "_rot": '''\
def _rot(angle: Tensor, size: int) -> Tensor:
    """The size x size matrix that turns the pairs (2j, 2j + 1) by angles [M, 1]; the identity beyond them."""
    matrix = torch.eye(size, dtype=angle.dtype, device=angle.device).repeat(*angle.shape[:-2], 1, 1)
    even = torch.arange(0, 2 * angle.shape[-2], 2, device=angle.device)
    cos, sin = torch.cos(angle).squeeze(-1), torch.sin(angle).squeeze(-1)
    matrix[..., even, even], matrix[..., even, even + 1] = cos, -sin
    matrix[..., even + 1, even], matrix[..., even + 1, even + 1] = sin, cos
    return matrix
''',
    "_skew": '''\
def _skew(rate: Tensor, size: int) -> Tensor:
    """The size x size matrix with blocks [[0, -w], [w, 0]] for rates [M, 1]; zero beyond them."""
    matrix = rate.new_zeros(*rate.shape[:-2], size, size)
    even = torch.arange(0, 2 * rate.shape[-2], 2, device=rate.device)
    matrix[..., even, even + 1], matrix[..., even + 1, even] = -rate.squeeze(-1), rate.squeeze(-1)
    return matrix
''',
    "_rope": '''\
def _rope(x: Tensor, position: Tensor, axis: int) -> Tensor:
    """x with its pairs (j, j + N/2) turned by position * 10000^(-2j/N)."""
    half = x.shape[axis] // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angle = position * (frequency[:, None] if axis == -2 else frequency)
    first, second = x.split(half, axis)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], axis)
''',
    "_complex": '''\
def _complex(x: Tensor) -> Tensor:
    """A real value as a complex one."""
    return torch.complex(x, torch.zeros_like(x))
''',
    "_above": '''\
def _above(x: Tensor) -> Tensor:
    """A complex column above its conjugate."""
    return torch.cat([x, x.conj()], -2)
''',
    "_upper": '''\
def _upper(x: Tensor) -> Tensor:
    """The upper half of a column."""
    return x[..., : x.shape[-2] // 2, :]
''',
    "_beside": '''\
def _beside(a: Tensor, b: Tensor) -> Tensor:
    """What acts on a column above its conjugate, where a s + conj(b s) acts on the column s."""
    a, b = torch.broadcast_tensors(a, b)
    return torch.cat([torch.cat([a, b.conj()], -1), torch.cat([b, a.conj()], -1)], -2)
''',
}
"""Values of two dimensions that take more than one call."""


@dataclass(frozen=True)
class Text:
    """A piece of an expression: its text, how tightly it binds, and what a parent must know of it."""

    text: str
    binds: int = ATOM
    is_number: bool = False  # a Python number, not a tensor
    has_matmul: bool = False  # at its top level

    def at(self, binds: int) -> str:
        """The text, in parentheses unless it binds at least as tightly."""
        return self.text if self.binds >= binds else f"({self.text})"


@dataclass(frozen=True)
class Names:
    """What the names of a spec are called where the text will stand.

    `values`: symbols, delayed values and built-in indices; `numbers`: those that are Python numbers there. `before` and
    `after`: a state before the token and as assigned so far. `identities`: the name of `I`, by size.
    """

    values: Mapping[str, str]
    numbers: frozenset[str] = frozenset()
    delayed: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[Dim, str] = field(default_factory=dict)
    position: str = "position"


def size_text(size: Dim) -> Text:
    """A size as a Python number: `N`, `N / 2`, `2 * N + 1`."""
    parts = []
    for name, c in size.terms:
        scaled = f"{c.numerator} * {identifier(name)}" if c.numerator != 1 else identifier(name)
        parts.append(scaled if c.denominator == 1 else f"{scaled} / {c.denominator}")
    if size.constant or not parts:
        parts.append(number_text(size.constant).text)
    binds = SUM if len(parts) > 1 else ATOM if parts[0].isidentifier() or parts[0].isdigit() else PRODUCT
    return Text(" + ".join(parts), binds, is_number=True)


def count_text(size: Dim) -> str:
    """A size as a Python integer: every quotient in it is whole where the spec is legal."""
    return size_text(size).text.replace("/", "//")


def number_text(value: Fraction) -> Text:
    """An exact number: as a literal where one has its value, else as a quotient."""
    if value.denominator == 1 and abs(value) < 10**16:
        text = str(value.numerator)
    elif Fraction(repr(float(value))) == value:
        text = repr(float(value))
    else:
        return Text(f"{value.numerator} / {value.denominator}", PRODUCT, is_number=True)
    return Text(text, SIGN if text.startswith("-") else ATOM, is_number=True)


def axis_of(expr: Expr) -> str:
    """The axis that a function over entries works along: down a column, along the rows of anything wider."""
    return "-2" if expr.type.cols == ONE else "-1"


def text_of(expr: Expr, names: Names) -> Text:
    """`expr` as torch text."""
    return _PRINTERS[type(expr)](expr, names)


# --- leaves ------------------------------------------------------------------------------------------------------


def _const(expr: spec.Const, names: Names) -> Text:
    return number_text(expr.value)


def _size(expr: spec.SizeOf, names: Names) -> Text:
    return size_text(expr.size)


def _ref(expr: spec.Ref, names: Names) -> Text:
    return Text(names.values[expr.name], is_number=expr.name in names.numbers)


def _state(expr: spec.StateRef, names: Names) -> Text:
    return Text(names.after[expr.name] if expr.primed else names.before[expr.name])


def _delayed(expr: spec.Delayed, names: Names) -> Text:
    return Text(names.delayed[expr.name])


def _identity(expr: spec.Identity, names: Names) -> Text:
    return Text(names.identities[expr.type.rows])


# --- sums and products -------------------------------------------------------------------------------------------


def terms_of(expr: Expr, names: Names) -> list[str]:
    """The text of a sum, a term with its sign each; of anything else, the one text."""
    return _signed(expr, names)[0] if isinstance(expr, spec.Add) else [text_of(expr, names).text]


def _add(expr: spec.Add, names: Names) -> Text:
    parts, is_number = _signed(expr, names)
    return Text(" ".join(parts), SUM, is_number)


def _signed(expr: spec.Add, names: Names) -> tuple[list[str], bool]:
    parts, is_number = [], True
    for term in expr.terms:
        if parts and isinstance(term, spec.Neg):
            sign, text = "- ", text_of(term.operand, names)
        elif parts and isinstance(term, spec.Const) and term.value < 0:
            sign, text = "- ", number_text(-term.value)
        else:
            sign, text = "+ " if parts else "", text_of(term, names)
        parts.append(sign + text.at(PRODUCT if sign == "- " else SUM))
        is_number = is_number and text.is_number
    return parts, is_number


def _neg(expr: spec.Neg, names: Names) -> Text:
    operand = text_of(expr.operand, names)
    binds = PRODUCT if operand.binds == PRODUCT else SIGN
    return Text(f"-{operand.at(PRODUCT)}", binds, operand.is_number, operand.has_matmul)


def _mul(expr: spec.Mul, names: Names) -> Text:
    left, right = text_of(expr.left, names), text_of(expr.right, names)
    is_free = expr.left.type.is_scalar or not right.has_matmul
    return Text(
        f"{left.at(PRODUCT)} * {right.at(PRODUCT if is_free else SIGN)}",
        PRODUCT,
        left.is_number and right.is_number,
        left.has_matmul or right.has_matmul,
    )


def _div(expr: spec.Div, names: Names) -> Text:
    left, right = text_of(expr.left, names), text_of(expr.right, names)
    return Text(f"{left.at(PRODUCT)} / {right.at(SIGN)}", PRODUCT, left.is_number and right.is_number, left.has_matmul)


def _pow(expr: spec.Pow, names: Names) -> Text:
    base, exponent = text_of(expr.base, names), text_of(expr.exponent, names)
    left, right = base.at(ATOM), exponent.at(SIGN)
    operator = "**" if _SIMPLE.fullmatch(left) and _SIMPLE.fullmatch(right) else " ** "
    return Text(f"{left}{operator}{right}", POWER, base.is_number and exponent.is_number)


def _matmul(expr: spec.MatMul, names: Names) -> Text:
    if isinstance(expr.left, spec.Identity):
        return text_of(expr.right, names)
    if isinstance(expr.right, spec.Identity):
        return text_of(expr.left, names)
    if isinstance(expr.left, spec.Diag):
        # diag(a) X scales the rows of X; scaling rows commutes with what multiplies X from the right.
        rows, right = text_of(expr.left.operand, names), text_of(expr.right, names)
        return Text(f"{rows.at(PRODUCT)} * {right.at(PRODUCT)}", PRODUCT, has_matmul=True)
    if isinstance(expr.right, spec.Diag):
        left, columns = text_of(expr.left, names), text_of(expr.right.operand, names)
        return Text(f"{left.at(PRODUCT)} * {columns.at(ATOM)}.mT", PRODUCT, has_matmul=True)
    left, right = text_of(expr.left, names), text_of(expr.right, names)
    if expr.left.type.is_scalar or expr.right.type.is_scalar:
        return Text(f"{left.at(PRODUCT)} * {right.at(SIGN)}", PRODUCT, has_matmul=left.has_matmul)
    if isinstance(expr.left, spec.Const) or isinstance(expr.right, spec.Const):
        return _matmul_by_number(expr, left, right)
    fields = expr.left.type.field, expr.right.type.field
    first, second = left.at(PRODUCT), right.at(SIGN)
    if fields == ("real", "complex"):
        first = f"_complex({left.text})"
    elif fields == ("complex", "real"):
        second = f"_complex({right.text})"
    return Text(f"{first} @ {second}", PRODUCT, has_matmul=True)


def _matmul_by_number(expr: spec.MatMul, left: Text, right: Text) -> Text:
    """A product with a row or column whose entries are one number: a value spread along an axis, or summed over it."""
    is_left = isinstance(expr.left, spec.Const)
    number, value = (left, right) if is_left else (right, left)
    if expr.left.type.cols == ONE:
        size = count_text(expr.type.rows if is_left else expr.type.cols)
        text = f"{value.at(ATOM)}.repeat_interleave({size}, {-2 if is_left else -1})"
    else:
        text = f"{value.at(ATOM)}.sum({-2 if is_left else -1}, keepdim=True)"
    return Text(text) if number.text == "1" else Text(f"{number.at(PRODUCT)} * {text}", PRODUCT)


# --- shapes ------------------------------------------------------------------------------------------------------


def _transpose(expr: spec.Transpose, names: Names) -> Text:
    operand = text_of(expr.operand, names)
    is_conjugate = expr.conjugate and expr.operand.type.field == "complex"
    if expr.operand.type.is_scalar or isinstance(expr.operand, (spec.Diag, spec.Identity)):
        return Text(f"torch.conj({operand.text})") if is_conjugate else operand
    return Text(f"{operand.at(ATOM)}.{'mH' if is_conjugate else 'mT'}")


def _diag(expr: spec.Diag, names: Names) -> Text:
    return Text(f"_diag({text_of(expr.operand, names).text})")


def _turn(expr: spec.Rot | spec.Skew, names: Names) -> Text:
    angle, size = text_of(expr.operand, names), expr.type.rows
    each = _tensor(angle)
    if expr.operand.type.is_scalar:  # shared by all pairs
        pairs = count_text(Dim(size.constant / 2, tuple((name, c / 2) for name, c in size.terms)))
        each = f"{Text(each, ATOM if angle.is_number else angle.binds).at(ATOM)}.repeat_interleave({pairs}, -2)"
    return Text(f"{'_rot' if isinstance(expr, spec.Rot) else '_skew'}({each}, {count_text(size)})")


def _element(expr: spec.Element, names: Names) -> Text:
    row = str(expr.index) if isinstance(expr.index, int) else identifier(expr.index)
    return Text(f"_row({text_of(expr.base, names).text}, {row})")


def _sum_over(expr: spec.SumOver, names: Names) -> Text:
    index = identifier(expr.index)
    inner = Names(**{**vars(names), "values": {**names.values, expr.index: index}, "numbers": names.numbers | {expr.index}})
    body = text_of(expr.body, inner)
    return Text(f"sum({body.text} for {index} in {range_text(expr.count)})", is_number=body.is_number)


def range_text(count: Dim) -> str:
    """`1..count` as a Python range."""
    return f"range(1, {count_text(count)} + 1)"


# --- functions ---------------------------------------------------------------------------------------------------


def _apply(expr: spec.Apply, names: Names) -> Text:
    if expr.function in _CONSTANTS:
        return Text(_CONSTANTS[expr.function], is_number=True)
    args = [text_of(arg, names) for arg in expr.args]
    is_complex = any(arg.type.field == "complex" for arg in expr.args)
    if all(arg.is_number for arg in args) and expr.function in _MATH and not is_complex:
        return Text(f"{_MATH[expr.function]}({', '.join(arg.text for arg in args)})", is_number=True)
    if expr.function == "rope":
        return Text(f"_rope({_tensor(args[0])}, {names.position}, {axis_of(expr.args[0])})")
    if expr.function in SQUARE_FUNCTIONS:
        return Text(SQUARE_FUNCTIONS[expr.function](args[0].text))
    if expr.function in INTERNAL:
        return Text(INTERNAL[expr.function](*(arg.text for arg in args), names=names, axis=axis_of(expr.args[0])))
    if expr.function in AXIS_FUNCTIONS:
        return Text(AXIS_FUNCTIONS[expr.function](_tensor(args[0]), axis_of(expr.args[0])))
    if expr.function in ("Re", "Im", "conj") and expr.args[0].type.field == "real":
        return Text(f"torch.zeros_like({_tensor(args[0])})") if expr.function == "Im" else args[0]
    if is_complex:
        return Text(FUNCTIONS[expr.function](*(_tensor(arg, "complex128") for arg in args)))
    if len(args) > 1 and expr.function not in OF_TENSORS and any(not arg.is_number for arg in args):
        # The bounds of a clamp may stay numbers when they are written out.
        return Text(FUNCTIONS[expr.function](*(arg.text if arg.binds >= SIGN else _tensor(arg) for arg in args)))
    return Text(FUNCTIONS[expr.function](*(_tensor(arg) for arg in args)))


INTERNAL = {
    "at_least": lambda x, y, **_: f"({x} >= {y}).float()",
    "sign": lambda x, **_: f"torch.sign({x})",
    "erf": lambda x, **_: f"torch.erf({x})",
    "phi1_slope": lambda x, **_: f"_phi_slope({x}, 1)",
    "phi2_slope": lambda x, **_: f"_phi_slope({x}, 2)",
    "exp_odd_bend": lambda x, d, **_: f"_odd_bend({x}, {d}, 0)",
    "phi1_even_slope": lambda x, d, **_: f"_even_odd_slope({x}, {d})[0]",
    "phi1_odd_slope": lambda x, d, **_: f"_even_odd_slope({x}, {d})[1]",
    "phi1_odd_bend": lambda x, d, **_: f"_odd_bend({x}, {d}, 1)",
    "cosm1": lambda x, **_: f"_cosm1({x})",
    "sum": lambda x, **_: f"torch.sum({x}, (-2, -1), keepdim=True)",
    "row_sum": lambda x, **_: f"torch.sum({x}, -1, keepdim=True)",
    "column_sum": lambda x, **_: f"torch.sum({x}, -2, keepdim=True)",
    "rope_back": lambda x, *, names, axis: f"_rope({x}, -{names.position}, {axis})",
}
"""Functions that only derivatives use."""


def _tensor(value: Text, dtype: str = "float64") -> str:
    return f"torch.tensor({value.text}, dtype=torch.{dtype})" if value.is_number else value.text


_PRINTERS = {
    spec.Const: _const,
    spec.SizeOf: _size,
    spec.Ref: _ref,
    spec.StateRef: _state,
    spec.Delayed: _delayed,
    spec.Identity: _identity,
    spec.Add: _add,
    spec.Neg: _neg,
    spec.Mul: _mul,
    spec.Div: _div,
    spec.Pow: _pow,
    spec.MatMul: _matmul,
    spec.Transpose: _transpose,
    spec.Diag: _diag,
    spec.Rot: _turn,
    spec.Skew: _turn,
    spec.Element: _element,
    spec.SumOver: _sum_over,
    spec.Apply: _apply,
}
