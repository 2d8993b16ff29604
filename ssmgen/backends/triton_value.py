"""Values on register tiles as Triton text: their axes, how they multiply and add, and what they are beyond the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from .. import even_odd
from ..functions import FUNCTIONS as CLOSED
from ..functions import phi
from ..kernel import KEY, LAYOUT, VALUE
from ..spec import Dim
from .torch_pointwise import ATOM, POWER, PRODUCT, SIGN, SUM
from .torch_text import identifier

HALF = "h"
"""The axis of one value a pair (`pairs`, the angles of a rotation): half as wide as the axis of the pairs."""
AXES = (*LAYOUT[:2], HALF, *LAYOUT[2:])

ANYTHING = math.nan
"""Beyond the data: perhaps infinite or not a number. A number: exactly that; None: finite, not known."""


@dataclass(frozen=True)
class Text:
    """Triton text with how tightly it binds, the axes of its value, and what the value is beyond the data along each.

    `number`: the value of a literal. `is_number`: a Python number (a literal or made of sizes), not a tensor.
    """

    text: str
    binding: int
    axes: tuple[str, ...] = ()
    beyond: Mapping[str, float | None] = field(default_factory=dict)
    number: Fraction | float | None = None
    is_number: bool = False

    def at(self, binding: int) -> str:
        """The text as an operand of an operator that binds this tightly."""
        return self.text if self.binding >= binding else f"({self.text})"

    def along(self, axes: tuple[str, ...], binding: int = SUM) -> str:
        """The text, broadcastable against values with these axes."""
        if not self.axes or self.axes == axes:
            return self.at(binding)
        return f"{self.at(ATOM)}[{', '.join(':' if a in self.axes else 'None' for a in axes)}]"

    def past(self, axis: str) -> float | None:
        """The value beyond the data along `axis`."""
        if axis in self.axes:
            return self.beyond.get(axis, ANYTHING)
        return float(self.number) if self.number is not None else None

    def is_zero_past(self, axis: str) -> bool:
        """Whether a sum over `axis` needs no mask."""
        return self.past(axis) == 0

    def named(self, name: str) -> Text:
        """The same value under a name that holds it."""
        return replace(self, text=name, binding=ATOM, number=None, is_number=False)


def loaded(text: str, axes: tuple[str, ...] = (), binding: int = ATOM) -> Text:
    """A value that a masked load gave: zero beyond the data."""
    return Text(text, binding, axes, dict.fromkeys(axes, 0.0))


FACING = {KEY: VALUE, VALUE: KEY}
"""The axes of a matrix between the entries of a vector: its rows lie along the keys, its columns along an axis as wide."""


def facing(text: Text, others: Mapping[str, str] = FACING) -> Text:
    """The same tile with its keys along the other of those axes: nothing moves, where the two have one size."""
    beyond = {others.get(axis, axis): value for axis, value in text.beyond.items()}
    return replace(text, axes=tuple(others.get(axis, axis) for axis in text.axes), beyond=beyond)


# --- products and sums -------------------------------------------------------------------------------------------


def multiplied(factors: list[Text]) -> Text:
    """A product: factors on the same axes first, scalars with the first of them, so that wide tiles are multiplied last."""
    factors = [f for f in factors if f.number != 1] or factors[:1]
    axes = joined(factors)
    groups: dict[tuple[str, ...], list[Text]] = {}
    for factor in sorted(factors, key=lambda f: len(f.axes) > 0):
        groups.setdefault(factor.axes, []).append(factor)
    scalars = groups.pop((), [])
    narrow = [own for own in groups if own != axes]
    for own in narrow[:1] if scalars and narrow else []:
        groups[own] = scalars + groups[own]
        scalars = []
    ordered = [Text(_chain(scalars), PRODUCT if len(scalars) > 1 else scalars[0].binding)] if scalars else []
    ordered += [
        replace(g[0], text=_chain(g), binding=PRODUCT if len(g) > 1 else g[0].binding, axes=own) for own, g in groups.items() if own != axes
    ]
    ordered += groups.get(axes, [])
    if len(ordered) == 1 and len(factors) == 1:
        return factors[0]
    text = " * ".join(o.along(axes, PRODUCT) for o in ordered)
    product = combined(text, PRODUCT if len(ordered) > 1 else ordered[0].binding, axes, factors, past_product)
    return replace(product, is_number=all(f.is_number for f in factors))


def _chain(factors: list[Text]) -> str:
    return factors[0].text if len(factors) == 1 else " * ".join(f.at(PRODUCT) for f in factors)


def divided(above: Text, below: Text) -> Text:
    """A quotient. A divisor that does not vary along an axis is taken to be finite and not zero."""
    axes = joined((above, below))
    text = f"{above.along(axes, PRODUCT)} / {below.along(axes, SIGN)}"
    beyond = {}
    for axis in axes:
        over, under = above.past(axis), below.past(axis)
        if axis not in below.axes and below.number is None:
            beyond[axis] = over if over in (0, None) else None if over == over else ANYTHING
        else:
            beyond[axis] = ANYTHING if not under or over is ANYTHING or under != under else None if over is None else over / under
    return Text(text, PRODUCT, axes, beyond, is_number=above.is_number and below.is_number)


def added(parts: list[tuple[bool, Text]]) -> Text:
    """A sum of (is negative, magnitude), a positive one first where there is one."""
    axes = joined(text for _, text in parts)
    first = next((i for i, (is_negative, _) in enumerate(parts) if not is_negative), 0)
    text = ""
    for is_negative, part in [parts[first], *parts[:first], *parts[first + 1 :]]:
        if not text:
            text = (negative(part) if is_negative else part).along(axes)
        else:
            text += (" - " if is_negative else " + ") + part.along(axes, PRODUCT)
    signed = [negative(part) if is_negative else part for is_negative, part in parts]
    return combined(text, SUM if len(parts) > 1 else signed[0].binding, axes, signed, past_sum)


def negative(value: Text) -> Text:
    """The value with a sign in front."""
    text = f"-{value.text if value.binding in (PRODUCT, ATOM) else f'({value.text})'}"
    number = None if value.number is None else -value.number
    beyond = {a: None if b is None else -b for a, b in value.beyond.items()}
    return replace(value, text=text, binding=SIGN if value.binding == ATOM else PRODUCT, number=number, beyond=beyond)


# --- axes and what lies beyond the data --------------------------------------------------------------------------


def in_layout(axes: Iterable[str]) -> tuple[str, ...]:
    """Axes in the order of the layout."""
    names = set(axes)
    return tuple(a for a in AXES if a in names)


def joined(values: Iterable[Text]) -> tuple[str, ...]:
    """The axes of an elementwise result."""
    return in_layout(axis for value in values for axis in value.axes)


def combined(text: str, binding: int, axes: tuple[str, ...], parts: list[Text], rule: Callable[..., float | None]) -> Text:
    """A text made of parts, with what `rule` says of the parts beyond the data."""
    is_number = all(p.is_number for p in parts)
    return Text(text, binding, axes, {a: rule(*(p.past(a) for p in parts)) for a in axes}, is_number=is_number)


def past_sum(*values: float | None) -> float | None:
    """What a sum is beyond the data."""
    if any(v is not None and v != v for v in values):
        return ANYTHING
    return None if None in values else sum(values)


def past_product(*values: float | None) -> float | None:
    """What a product is beyond the data: nothing finite outdoes a zero."""
    if any(v is not None and v != v for v in values):
        return ANYTHING
    if 0 in values:
        return 0.0
    return None if None in values else math.prod(values)


def past_power(base: float | None, exponent: float | None) -> float | None:
    """What a power is beyond the data."""
    if base is None and exponent is not None and exponent > 0 and exponent == int(exponent):
        return None
    try:
        value = float(base) ** float(exponent)
    except (TypeError, ArithmeticError):
        return ANYTHING
    return value if isinstance(value, float) and math.isfinite(value) else ANYTHING


TOTAL = frozenset(
    "sigmoid logsigmoid softplus silu gelu tanh relu elu abs square sin cos atan2 heavy_tail min max clamp at_least sign erf cosm1".split()
)
"""Functions that are finite wherever their arguments are, and grow no faster than a square."""


def past_function(name: str, values: tuple[float | None, ...]) -> float | None:
    """What a pointwise function is beyond the data."""
    if any(v is not None and v != v for v in values):
        return ANYTHING
    if None in values:
        return None if name in TOTAL else ANYTHING
    own = {
        "at_least": lambda x, y: float(x >= y),
        "sign": lambda x: float((x > 0) - (x < 0)),
        "erf": math.erf,
        "cosm1": lambda x: math.cos(x) - 1,
        "phi1_slope": lambda x: phi(1)(x) - phi(2)(x),
        "phi2_slope": lambda x: phi(2)(x) - 2 * phi(3)(x),
        "exp_odd_bend": lambda x, d: even_odd.bend(0, x, d),
        "phi1_even_slope": lambda x, d: even_odd.parts(1, x, d)[0] - even_odd.parts(2, x, d)[0],
        "phi1_odd_slope": lambda x, d: even_odd.parts(1, x, d)[1] - even_odd.parts(2, x, d)[1],
        "phi1_odd_bend": lambda x, d: even_odd.bend(1, x, d),
    }
    try:
        value = float((own[name] if name in own else CLOSED[name].value)(*values))
    except (ValueError, ArithmeticError):
        return ANYTHING
    return value if math.isfinite(value) else ANYTHING


# --- numbers -----------------------------------------------------------------------------------------------------


def literal(value: Fraction) -> Text:
    """An exact number as a literal."""
    if value.denominator == 1 and abs(value) < 10**15:
        text = f"{value.numerator}.0" if abs(value) >= 2**31 else str(value.numerator)
    else:
        text = repr(float(value))
    return Text(text, SIGN if value < 0 else ATOM, number=value, is_number=True)


def literal_of(value: float) -> Text:
    """A float as a literal."""
    return Text(repr(value), SIGN if value < 0 else ATOM, number=value, is_number=True)


def size_text(size: Dim) -> Text:
    """A size over the names of its sizes, which are numbers when the kernel is compiled."""
    terms = []
    for name, coefficient in ((identifier(n), c) for n, c in size.terms):
        above = name if coefficient.numerator == 1 else f"{coefficient.numerator} * {name}"
        terms.append(above if coefficient.denominator == 1 else f"{above} // {coefficient.denominator}")
    if size.constant or not terms:
        terms.append(str(size.constant))
    number = size.constant if not size.terms else None
    return Text(" + ".join(terms), ATOM if terms[0].isidentifier() and len(terms) == 1 else SUM, number=number, is_number=True)


def as_decimal(value: Text) -> Text:
    """A literal as an argument of a function of several: the type of the others, never an integer."""
    if value.number is None:
        return value
    return replace(value, text=repr(float(value.number)))


def as_tensor(value: Text) -> Text:
    """A Python number as a tensor, for a function of the language."""
    return Text(f"tl.full((), {value.text}, tl.float32)", ATOM) if value.is_number else value


def power_of_numbers(base: Text, exponent: Text) -> Text:
    """A power of Python numbers."""
    if base.number is not None and exponent.number is not None:
        return literal_of(float(base.number) ** float(exponent.number))
    above = exponent.text if exponent.binding >= SIGN else exponent.at(ATOM)
    # as a formatter would: no spaces between a name and a number
    gap = "" if base.text.isidentifier() and above.lstrip("-").replace(".", "").isalnum() else " "
    text = f"{base.at(ATOM)}{gap}**{gap}{above}"
    return Text(text, POWER, is_number=True)


def whole_power(base: Text, exponent: Fraction) -> tuple[str, int]:
    """Text and binding of x to a rational number: products and roots where they do, else through the logarithm, for x > 0."""
    if exponent == 0:
        return "1.0", ATOM
    if exponent == 1:
        return base.text, base.binding
    if exponent.denominator > 2 or abs(exponent) > 16:
        return f"tl.exp({float(exponent)!r} * tl.log({base.text}))", ATOM
    if exponent == Fraction(-1, 2):
        return f"tl.rsqrt({base.text})", ATOM
    root, whole = (base.text, abs(exponent)) if exponent.denominator == 1 else (f"tl.sqrt({base.text})", 2 * abs(exponent))
    whole = int(whole)
    if whole == 1:
        text, binding = (root, base.binding if exponent.denominator == 1 else ATOM)
    elif whole == 2 and root.isidentifier():
        text, binding = f"{root} * {root}", PRODUCT
    else:
        text, binding = f"_power({root}, {whole})" if whole > 2 else f"_square({root})", ATOM
    if exponent > 0:
        return text, binding
    return f"1.0 / {text if binding == ATOM else f'({text})'}", PRODUCT
