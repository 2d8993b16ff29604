"""What resolve makes of layers and stacks: sizes in the names of a layer, statements, and the models that repeat them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from .source import NOWHERE, Source, Span
from .spec import Expr


@dataclass(frozen=True)
class Size:
    """A size of a layer, `expand * d_model / P`: a sum of coefficient * product of name^power.

    `terms` is ((((name, power), ...), coefficient), ...), names and terms sorted, so that equal sizes compare equal.
    """

    terms: tuple[tuple[tuple[tuple[str, int], ...], Fraction], ...] = ()

    def __str__(self) -> str:
        return " + ".join(_monomial(factors, coefficient) for factors, coefficient in self.terms) or "0"

    def value(self, numbers: dict[str, Fraction | int]) -> Fraction:
        """The number for given names; KeyError when one is missing."""
        total = Fraction(0)
        for factors, coefficient in self.terms:
            for name, power in factors:
                coefficient *= Fraction(numbers[name]) ** power
            total += coefficient
        return total


def _monomial(factors: tuple[tuple[str, int], ...], coefficient: Fraction) -> str:
    above = [str(coefficient.numerator)] if coefficient.numerator != 1 else []
    below = [str(coefficient.denominator)] if coefficient.denominator != 1 else []
    for name, power in factors:
        (above if power > 0 else below).extend([name] * abs(power))
    return " / ".join([" * ".join(above) or "1", *below])


@dataclass(frozen=True)
class Width:
    """The shape of a layer value per token: a leading axis and what stands behind it.

    lead: 'head' [H, *shape], 'group' [G, *shape], 'channel' [C, *shape], 'none' [*shape].
    """

    lead: str
    shape: tuple[Size, ...] = ()

    def __str__(self) -> str:
        letter = {"head": "H", "group": "G", "channel": "C", "none": ""}[self.lead]
        return "[" + ", ".join(([letter] if letter else []) + [str(size) for size in self.shape]) + "]"


@dataclass(frozen=True)
class LayerValue:
    """A value per token inside a layer.

    widths: one a name where a statement computes several names together; empty for a number, which fits any shape.
    """

    widths: tuple[Width, ...]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class LayerNumber(LayerValue):
    """An exact number."""

    value: Fraction


@dataclass(frozen=True)
class LayerSize(LayerValue):
    """A size used as a number, raised to `power`: `N^-1/2`."""

    size: Size
    power: Fraction


@dataclass(frozen=True)
class LayerRef(LayerValue):
    """The layer's input or a value named by an earlier statement."""

    name: str


@dataclass(frozen=True)
class LayerParam(LayerValue):
    """A learned parameter of the layer: a number (`widths` empty) or one value a channel."""

    name: str


@dataclass(frozen=True)
class LayerGroup(LayerValue):
    """Several earlier values side by side, which one operation treats together (`x, B, C = conv(4)`)."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class LayerShift(LayerValue):
    """`u[-1]`: the value at the previous token, zero before the first one."""

    name: str


@dataclass(frozen=True)
class LayerApply(LayerValue):
    """A function of the closed set, pointwise or over the last axis of the value (`unit`, `softmax`)."""

    function: str
    operands: tuple[LayerValue, ...]


@dataclass(frozen=True)
class LayerArithmetic(LayerValue):
    """Elementwise `+ - * / ^`, or the inner product `.` of each head's columns."""

    operator: str
    left: LayerValue
    right: LayerValue


@dataclass(frozen=True)
class LayerNegative(LayerValue):
    operand: LayerValue


@dataclass(frozen=True)
class LayerLinear(LayerValue):
    """A learned projection of the last axis; `rank` makes it two, through that many channels."""

    operand: LayerValue
    bias: bool
    rank: Size | None


@dataclass(frozen=True)
class LayerConv(LayerValue):
    """A causal convolution over time, one filter of `taps` taps a channel."""

    operand: LayerValue
    taps: int
    bias: bool


@dataclass(frozen=True)
class LayerNorm(LayerValue):
    """`kind` is 'rmsnorm' or 'layernorm'; `per` 'head' or 'group' normalises each block by itself, 'layer' all at once."""

    kind: str
    operand: LayerValue
    per: str
    bias: bool
    eps: Fraction


@dataclass(frozen=True)
class LayerCall(LayerValue):
    """The recurrence (or attention) `callee`, its inputs in declared order; `inputs` are the widths it takes them at."""

    callee: str
    operands: tuple[LayerValue, ...]
    inputs: tuple[Width, ...]


@dataclass(frozen=True)
class LayerStatement:
    """`names = value`."""

    names: tuple[str, ...]
    value: LayerValue
    span: Span = field(compare=False)


@dataclass(frozen=True)
class LayerParameter:
    """A learned parameter of a layer; `width` None is a single number. `init` as for a recurrence's params."""

    name: str
    width: Width | None
    init: Expr | None
    span: Span = field(compare=False)


@dataclass(frozen=True)
class Layer:
    """One `layer` item, resolved.

    params: the arguments of the layer, the first one the model width; None has no default.
    dims: sizes of the recurrences that stay arguments, with their defaults.
    sizes: sizes computed from those, in order: overridden dims, the head or channel count.
    count: the name of the head (or channel) count, one of `sizes`; `groups` how many groups share per-group inputs.
    """

    name: str
    source: Source = field(compare=False, repr=False)
    comment: str
    params: tuple[tuple[str, Fraction | None], ...]
    dims: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[str, Size], ...]
    count: str | None
    groups: Size
    parameters: tuple[LayerParameter, ...]
    callees: tuple[str, ...]  # recurrences and attentions called, in order, each once
    statements: tuple[LayerStatement, ...]
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def input(self) -> str:
        """The name of the block's input."""
        return "u"

    @property
    def output(self) -> str:
        """The name of the block's result: what the last statement defines."""
        return self.statements[-1].names[0]


@dataclass(frozen=True)
class Stack:
    """One `stack` item, resolved: layer pattern, what stands between, embedding and head. Lowered later."""

    name: str
    source: Source = field(compare=False, repr=False)
    comment: str
    params: tuple[tuple[str, Fraction | None], ...]
    pattern: tuple[tuple[int, str, tuple[tuple[str, str], ...]], ...]  # how many, which layer, its keywords as written
    between: tuple[str, ...]  # as written: `swiglu(8/3)`, `rmsnorm pre`
    clauses: tuple[tuple[str, str], ...]
    span: Span = field(default=NOWHERE, compare=False)
