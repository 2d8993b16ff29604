"""The specification with every name, shape and domain resolved: the meaning, still as the paper writes it.

Every value is two-dimensional: a scalar is 1 x 1, a column vector `[N]` is N x 1, its transpose 1 x N, a state
`[N, P]` is N x P. `MatMul` is then the only product with an inner dimension, and `k v^T`, `k^T S`, `k (k^T S)` need no
rules of their own. Sizes stay symbolic (`Dim`). Nothing here knows how a recurrence will run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from .intervals import Interval
from .source import NOWHERE, Source, Span

if TYPE_CHECKING:
    from .layer_spec import Layer, Stack

# --- sizes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dim:
    """A size: `constant + sum(coefficient * name)`, names sorted, so that equal sizes compare equal. `N/2` is (N: 1/2)."""

    constant: Fraction = Fraction(0)
    terms: tuple[tuple[str, Fraction], ...] = ()

    def __str__(self) -> str:
        parts = []
        for name, coefficient in self.terms:
            if coefficient == 1:
                parts.append(name)
            elif coefficient.numerator == 1:
                parts.append(f"{name}/{coefficient.denominator}")
            elif coefficient.denominator == 1:
                parts.append(f"{coefficient}*{name}")
            else:
                parts.append(f"{coefficient.numerator}*{name}/{coefficient.denominator}")
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)

    def value(self, sizes: dict[str, int]) -> Fraction:
        """The number for given sizes; integral when the spec is legal."""
        return self.constant + sum((c * sizes[n] for n, c in self.terms), Fraction(0))


ONE = Dim(Fraction(1))


@dataclass(frozen=True)
class Type:
    """Rows x columns over the reals or the complex numbers."""

    rows: Dim = ONE
    cols: Dim = ONE
    field: str = "real"  # 'real' | 'complex'

    @property
    def is_scalar(self) -> bool:
        return self.rows == ONE and self.cols == ONE

    @property
    def is_column(self) -> bool:
        return self.cols == ONE and self.rows != ONE

    @property
    def is_row(self) -> bool:
        return self.rows == ONE and self.cols != ONE

    def __str__(self) -> str:
        prefix = "complex " if self.field == "complex" else ""
        if self.is_scalar:
            return prefix + "scalar"
        if self.is_column:
            return f"{prefix}[{self.rows}]"
        return f"{prefix}[{self.rows}, {self.cols}]"


# --- expressions -------------------------------------------------------------------------------------------------
# `span` never takes part in equality, so two spellings of one value are one value.


@dataclass(frozen=True)
class Expr:
    type: Type
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Const(Expr):
    """An exact number. Also `inf` as None is not allowed: only rationals."""

    value: Fraction


@dataclass(frozen=True)
class SizeOf(Expr):
    """A dim used as a number, as in `N^-1/2`."""

    size: Dim


@dataclass(frozen=True)
class Ref(Expr):
    """An input, param, let or gate, or one of the built-in indices (`head`, `heads`, `channel`, `channels`, `layer`,
    `layers`, `position`, and loop indices `n` inside an init), by name."""

    name: str


@dataclass(frozen=True)
class StateRef(Expr):
    """`S` (before the token) or `S'` (`primed`, after it)."""

    name: str
    primed: bool


@dataclass(frozen=True)
class Delayed(Expr):
    """`x[-1]`: the previous token's value of an input, let or gate (zero before the first token)."""

    name: str


@dataclass(frozen=True)
class Element(Expr):
    """`k[j]`: row `j` of a [n, N] value as a column [N], or entry j of [n] as a scalar. `index` is a loop index name or
    an exact number, counted from 1 as in the text. In an attention score `q` or `k`: the value at the query's or the key's
    token."""

    base: Expr
    index: str | int


@dataclass(frozen=True)
class Apply(Expr):
    """A function of the closed set (`functions.FUNCTIONS`), pointwise or over the rows of a column. `pi` and the imaginary
    unit `i` are functions of no argument."""

    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Add(Expr):
    """Sum of two or more values of one type (a scalar is broadcast over the others)."""

    terms: tuple[Expr, ...]


@dataclass(frozen=True)
class Mul(Expr):
    """Elementwise product; a scalar multiplies anything."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class Div(Expr):
    """Elementwise quotient; the divisor is a scalar or of the same type."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class Neg(Expr):
    operand: Expr


@dataclass(frozen=True)
class Pow(Expr):
    """Elementwise power."""

    base: Expr
    exponent: Expr


@dataclass(frozen=True)
class MatMul(Expr):
    """rows x inner times inner x cols. `k v^T` has inner size 1."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class Transpose(Expr):
    operand: Expr
    conjugate: bool = False


@dataclass(frozen=True)
class Diag(Expr):
    """`diag(a)`: a column [N] as the N x N diagonal matrix."""

    operand: Expr


@dataclass(frozen=True)
class Rot(Expr):
    """`rot(theta)`: angles [M] as the 2M x 2M matrix of 2 x 2 rotations, pairs (2j, 2j+1).

    Beside a state of more than 2M rows (`rotates first 2M rows`) the type says N x N: the identity on the rest. A scalar
    angle is shared by all pairs.
    """

    operand: Expr


@dataclass(frozen=True)
class Skew(Expr):
    """The rate of turning: rates [M] as the 2M x 2M matrix of blocks [[0, -w], [w, 0]], zero beyond 2M rows.

    `rot(t * w)` is the exponential of `t * Skew(w)`. It is what `i * w` does to a state stored as real pairs, so
    `(A + i * w) S` is resolved to `A * S + Skew(w) S`.
    """

    operand: Expr


@dataclass(frozen=True)
class Identity(Expr):
    """`I`, N x N."""


@dataclass(frozen=True)
class SumOver(Expr):
    """`sum r in 1..R: body`; `count` is R."""

    index: str
    count: Dim
    body: Expr


# --- symbols -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Symbol:
    """A name of the recurrence.

    kind: 'input' (per token), 'param' (learned or fixed, no time), 'let', 'gate' (per-token definitions).
    per: 'head' (default), 'group' (shared by the heads of a group), 'channel', 'layer' (shared by all heads).
    definition: the expression of a let, gate or fixed param; None for inputs and learned params.
    init: initial value of a learned param (`uniform`, `normal`, ... allowed inside); None means zeros.
    domain: the declared domain (checked for definitions, assumed for inputs); None when not declared.
    interval: what interval analysis found for the value, from the domains of the names it uses.
    flags: 'unit' (|x| = 1, the module normalises it), 'conjugate'.
    static: does not depend on the token (params and lets over params only).
    """

    name: str
    kind: str
    type: Type
    per: str
    span: Span = field(compare=False)
    definition: Expr | None = None
    init: Expr | None = None
    domain: Interval | None = None
    interval: Interval = Interval()
    flags: tuple[str, ...] = ()
    static: bool = False


@dataclass(frozen=True)
class State:
    """A state: [N, P], [N] or scalar; 'conjugate' pairs stored halved.

    `rotating_rows`: the state is real, its first rows are pairs (2j, 2j+1) that a complex factor turns (`complex [N, P],
    rotates first N/2 rows`): N counts real rows, reads and writes are real. Without it a complex [N] has N complex entries.
    """

    name: str
    type: Type
    per: str
    span: Span = field(compare=False)
    conjugate: bool = False
    rotating_rows: Dim | None = None


# --- the recurrence ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """`S' = value`. Inside, `StateRef(S, primed=True)` means the value assigned so far (a later micro-step reads it)."""

    state: str
    value: Expr
    span: Span = field(compare=False)


@dataclass(frozen=True)
class MicroLoop:
    """`for j in 1..n:` assignments; `count` is n."""

    index: str
    count: Dim
    body: tuple[Assignment, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True)
class Dynamics:
    """`dS/dt = value` for one state; `value` is affine in that state (checked by derive).

    before: what the input in it was a token before, over delayed names; None where the method does not take older inputs.
    """

    state: str
    value: Expr
    span: Span = field(compare=False)
    before: Expr | None = None


@dataclass(frozen=True)
class Discretization:
    """The method's name (a file of `discretizations/`) and its arguments: step size first, then method parameters."""

    method: str
    args: tuple[Expr, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True)
class Output:
    """`y = value` or `y[r] = value` (`index` r, `count` R)."""

    name: str
    value: Expr
    span: Span = field(compare=False)
    index: str | None = None
    count: Dim | None = None


@dataclass(frozen=True)
class DeclaredStructure:
    """What the declaration notation claims, to be held against what is inferred: axis -> (value, span), as written.

    Axes and values are the folders and files of `features`: 'decay', 'correction', 'rotation', 'rows', 'taps', 'current',
    'normaliser', 'time', 'form'.
    """

    axes: tuple[tuple[str, str, Span], ...] = ()


@dataclass(frozen=True)
class Recurrence:
    """One `recurrence` item, resolved. Either `update` or `dynamics` with `discretization` is given."""

    name: str
    source: Source = field(compare=False, repr=False)
    comment: str
    dims: tuple[tuple[str, int], ...]  # name -> default size, in order of declaration
    counts: tuple[tuple[str, int], ...]  # build-time counts: recurrence parameters such as n = 2
    constants: tuple[tuple[str, Fraction], ...]  # recurrence parameters used as numbers (module arguments)
    symbols: tuple[Symbol, ...]  # in order of declaration; definitions only use earlier names
    states: tuple[State, ...]
    update: tuple[Assignment | MicroLoop, ...]
    dynamics: tuple[Dynamics, ...]
    discretization: Discretization | None
    outputs: tuple[Output, ...]
    declared: DeclaredStructure = DeclaredStructure()
    resets: tuple[tuple[str, Expr, Expr], ...] = ()  # name, value at a document's first token, value elsewhere
    time: str = "causal"  # 'causal' | 'reversed' | 'bidirectional'
    recurrent_inputs: tuple[str, ...] = ()  # inputs whose defining expression reads the state (`W x + R h`): sequential
    options: tuple[tuple[str, str], ...] = ()  # `@` options
    option_spans: tuple[tuple[str, Span], ...] = field(default=(), compare=False)
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def has_rows(self) -> bool:
        """Whether the output has rows, `y[r]`."""
        return any(output.index is not None for output in self.outputs)

    def symbol(self, name: str) -> Symbol:
        """The symbol called `name`; KeyError when there is none."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol
        raise KeyError(name)

    def free_name(self, name: str) -> str:
        """`name`, with as many `_` behind it as set it apart from every name of the recurrence."""
        taken = {s.name for s in (*self.symbols, *self.states)} | {n for n, _ in (*self.dims, *self.counts, *self.constants)}
        while name in taken:
            name += "_"
        return name

    def state(self, name: str) -> State:
        """The state called `name`; KeyError when there is none."""
        for state in self.states:
            if state.name == name:
                return state
        raise KeyError(name)


# --- attention ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """One `attention` item, resolved: lowered by a later form, checked today."""

    name: str
    source: Source = field(compare=False, repr=False)
    comment: str
    dims: tuple[tuple[str, int], ...]
    symbols: tuple[Symbol, ...]
    score: Expr
    mask: tuple[tuple[str, Expr | None], ...]
    output: str
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Specification:
    """Everything one source declares, in order of writing."""

    source: Source = field(compare=False, repr=False)
    recurrences: tuple[Recurrence, ...]
    attentions: tuple[Attention, ...] = ()
    layers: tuple[Layer, ...] = ()
    stacks: tuple[Stack, ...] = ()
    warnings: tuple = ()  # Diagnostic values that did not stop the pass

    def __str__(self) -> str:
        from .layer_text import specification_text

        return specification_text(self)
