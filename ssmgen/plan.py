"""Where a recurrence stands in the space, and how it will run.

`Classified` is a value on every axis of the space. `Plan` is what lowering reads: walks (one per group of states that
share a transition), each with the operands that a chunk reads token by token, and the readout that follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .diagnostics import Diagnostic
from .recurrence import Read, Recurrence
from .response import Convolution
from .source import NOWHERE, Span
from .spec import ONE, Dim, Expr, Type


@dataclass(frozen=True)
class AxisValue:
    """One coordinate: the axis, the value's name (a file of `features/<axis>/`), where it shows in the text, in words."""

    axis: str
    value: str
    sentence: str
    is_lowered: bool
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Column:
    """A block of value columns of a walk's state: `value` [P] (None: the constant 1, one column)."""

    state: str
    value: Expr | None
    type: Type


@dataclass(frozen=True)
class Reading:
    """One query of a walk's state. `is_inclusive`: after the token's own write.

    It contracts the keys and gives all value columns, or, where `is_value`, contracts the value columns and gives all keys.
    """

    name: str
    query: Expr | None  # None: the constant 1 (a state with no key axis, or with one value column)
    is_inclusive: bool
    is_value: bool = False
    member: int = 0  # the state that is read, where a walk has members


@dataclass(frozen=True)
class Slice:
    """A named read of the recurrence as a block of columns of a reading."""

    read: Read
    reading: str
    column: int


@dataclass(frozen=True)
class Row:
    """One row of a token: S <- exp(log_decay) S + key (coefficient * value - S_read^T erase)^T.

    `values` has one entry a column block of the walk (None: the constant 1); `key` None is the constant 1 (no key axis).
    `is_written` False: nothing is written, `values` give the shape alone. `erase` reads the state as it is before the
    decay, coefficient and sign included; None erases nothing. `log_decay` is the same for all rows of a step.
    """

    key: Expr | None
    coefficient: Expr | None
    values: tuple[Expr | None, ...]
    erase: Expr | None = None
    log_decay: Expr | None = None
    is_written: bool = True
    erases: int = 0  # the member that `erase` reads, where a walk has members


@dataclass(frozen=True)
class Member:
    """One of several states that feed each other: state <- exp(log_decay) state + sum of takes + share * what the token's row writes.

    `takes` are (another member, a number a head), all of the states before the token; `share` None: nothing is written.
    """

    state: str
    log_decay: Expr
    share: Expr | None
    takes: tuple[tuple[int, Expr], ...] = ()


@dataclass(frozen=True)
class Walk:
    """A token's rows act on states stacked side by side as value columns: S_t = decay_t S_{t-1} + key_t (value_t - S_{t-1}^T erase_t)^T.

    `scale` is a number that every query is multiplied by (N^-1/2 of a readout). `columns` are stacked in order.
    `is_transposed`: the text's key side runs over the stacked columns (its decay and corrections are on the value side, or
    every read is). `rows` act in order, `size` of them at a time: those read and decay the state together.
    `members`: states that feed each other and take shares of one row; `columns` then has the shape of each, and no row a log decay.
    `own`: what multiplies a token's rows where it reads them itself, in the place of their coefficient. `turns`: of operands ('key',
    'query') that are inputs to the walk and were turned before it, by which angle: the walk gives the angle's gradient as well.
    """

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    decay: str  # a value on the decay axis: 'none' | 'static' | 'scalar' | 'diagonal'
    readings: tuple[Reading, ...]
    slices: tuple[Slice, ...]
    size: int = 1
    is_transposed: bool = False
    scale: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False)
    members: tuple[Member, ...] = ()
    own: Expr | None = None
    turns: tuple[tuple[str, Expr], ...] = ()

    @property
    def states(self) -> tuple[str, ...]:
        """The states that the walk carries, in order."""
        return tuple(m.state for m in self.members) or tuple(c.state for c in self.columns)

    @property
    def numbers(self) -> tuple[tuple[str, Expr], ...]:
        """The operands of the members, which are one number a token and head, with the names that chunk programs use."""
        found: list[tuple[str, Expr]] = []
        for a, member in enumerate(self.members):
            found.append((f"g{a}", member.log_decay))
            found += [(f"s{a}", member.share)] if member.share is not None else []
            found += [(f"c{a}{b}", number) for b, number in member.takes]
        return tuple(found)

    @property
    def key(self) -> Expr | None:
        """The first row's key, which has every key's shape."""
        return self.rows[0].key

    @property
    def coefficient(self) -> Expr | None:
        """What the first row's value is multiplied by."""
        return self.rows[0].coefficient

    @property
    def log_decay(self) -> Expr | None:
        """The first log decay of a row; None when the state does not decay."""
        return next((row.log_decay for row in self.rows if row.log_decay is not None), None)

    @property
    def is_wide(self) -> bool:
        """Whether every key has a log decay of its own."""
        return self.log_decay is not None and not self.log_decay.type.is_scalar

    @property
    def has_erase(self) -> bool:
        """Whether a row takes something away."""
        return any(row.erase is not None for row in self.rows)


@dataclass(frozen=True)
class ScanStep:
    """One affine map of a state, entry by entry: `name = value`; `kept` is the part that carries what `kept S` stands for."""

    state: str
    name: str  # S' of the token's last step, S'1, S'2 of those before it
    value: Expr
    kept: Expr


@dataclass(frozen=True)
class Scan:
    """A token's steps in order, over states whose entries run by themselves, and the output over `S` and `S'`, one a row.

    `mixes`: a matrix leads from entry to entry, so that tokens are walked one after the other. `obstacle`: why chunks do not carry
    states that feed each other, where some do.

    All names are `Ref`s here: the state before the token `S`, after it `S'`, the value that the token before had `x[-1]`.
    """

    steps: tuple[ScanStep, ...]
    outputs: tuple[tuple[str, Expr], ...]
    mixes: bool = False
    obstacle: str = ""


@dataclass(frozen=True)
class Folded:
    """The rows of a token along the axis of rows: how many, and the names that have a value of their own at every row."""

    count: int
    names: frozenset[str]

    @property
    def padded(self) -> int:
        """Rows of a tile that a token has: a power of two."""
        return 1 << (self.count - 1).bit_length()

    @property
    def is_padded(self) -> bool:
        """Whether some of them hold nothing."""
        return self.padded > self.count


@dataclass(frozen=True)
class Classified:
    """A recurrence with its place on every axis. `walks` and `scan` are empty when an axis has no form yet; else one of them is.

    `outputs` are the recurrence's, over the reads of the walks: a number in front of a read has moved into the walk, a sum
    over rows is written out, and an output of several rows is one a row.
    """

    recurrence: Recurrence
    axes: tuple[AxisValue, ...]
    walks: tuple[Walk, ...]
    outputs: tuple[tuple[str, Expr], ...]
    refusals: tuple[Diagnostic, ...] = ()
    scan: Scan | None = None
    folded: Folded | None = None

    def __str__(self) -> str:
        from .plan_text import classified_text

        return classified_text(self)

    def axis(self, name: str) -> AxisValue:
        """The value on axis `name`; KeyError when there is none."""
        for axis in self.axes:
            if axis.axis == name:
                return axis
        raise KeyError(name)

    def verify(self) -> None:
        """Raise AssertionError unless every axis has exactly one value and each read is served by one walk."""
        names = [a.axis for a in self.axes]
        assert names == list(AXES), names
        if not self.refusals and self.scan is None:
            served = sorted(s.read.name for w in self.walks for s in w.slices)
            assert served == sorted(r.name for r in self.recurrence.reads), served


AXES = ("decay", "side", "states", "rotation", "correction", "rows", "taps", "current", "normaliser", "time", "form")
"""The axes of the space, in the order in which they are printed."""


@dataclass(frozen=True)
class Cost:
    """Work and traffic of one token of one head, as formulas in the spec's sizes and their value at the defaults."""

    flops: tuple[str, float]
    bytes: tuple[str, float]
    state: tuple[str, int]
    decode_bytes: tuple[str, float]


@dataclass(frozen=True)
class Plan:
    """The chosen form: chunk length, direction of time, what backward keeps, and why."""

    classified: Classified
    form: str  # 'chunk' | 'scan'
    chunk: int
    is_reversed: bool
    stores_reads: bool  # the readout is not linear in the reads: backward needs their values
    uses_position: bool  # a position enters an operand: the state carries it
    reasons: tuple[str, ...]
    cost: Cost
    block: int = 0  # groups of rows whose products that fade key by key are formed at once; longer ones are halved
    is_bounded: bool = False  # log decays are proved so weak that the exponents of a block may be split between its factors
    convolution: Convolution | None = None  # what whole sequences run as in the place of a scan
    outruns_kernels: bool = False  # also where the scan has kernels

    def __str__(self) -> str:
        from .plan_text import plan_text

        return plan_text(self)

    def verify(self) -> None:
        """Raise AssertionError unless the plan can be lowered."""
        assert self.form in ("chunk", "scan") and self.chunk > 0
        assert not self.classified.refusals
        assert bool(self.classified.walks) == (self.form == "chunk") and bool(self.classified.scan) == (self.form == "scan")
        assert self.convolution is None or self.form == "scan"


# --- sizes -----------------------------------------------------------------------------------------------------------


def widths(walk: Walk) -> tuple[Dim, Dim]:
    """Key width and total value width of a walk."""
    return (ONE if walk.key is None else walk.key.type.rows), total([column_width(walk, c) for c in walk.columns])


def column_width(walk: Walk, column: Column) -> Dim:
    """How many value columns a block has."""
    if column.value is None:
        return ONE
    return column.value.type.rows


def total(sizes: list[Dim]) -> Dim:
    """The sum of sizes."""
    names = sorted({n for size in sizes for n, _ in size.terms})
    terms = tuple((n, sum(dict(size.terms).get(n, 0) for size in sizes)) for n in names)
    return Dim(sum((size.constant for size in sizes), start=ONE.constant * 0), terms)
