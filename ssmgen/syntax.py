"""What was written: the tree the parser gives, every node with its span. No names resolved, no shapes known."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .source import Source, Span

BUILT_IN = ("I", "i", "pi", "inf", "head", "heads", "channel", "channels", "layer", "layers", "position")
"""Names that stand for values without a declaration: `pi (a + b)` is a product, as `k (a + b)` is for a declared `k`."""

# --- expressions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    span: Span


@dataclass(frozen=True)
class Number(Node):
    """A literal, kept exact: `1e-3` is 1/1000."""

    value: Fraction


@dataclass(frozen=True)
class Name(Node):
    """A name; `prime` for the state after the token, `S'`."""

    id: str
    prime: bool = False


@dataclass(frozen=True)
class Call(Node):
    """`f(x, y, key = z)`. Also what `k (k^T S)` parses to: the resolver turns a call of a non-function into a product."""

    function: str
    args: tuple[Node, ...]
    keywords: tuple[tuple[str, Node], ...] = ()
    prime: bool = False


@dataclass(frozen=True)
class Subscript(Node):
    """`x[-1]` (the previous token's x), `k[j]` (row j), `y[r]`."""

    base: Node
    index: Node


@dataclass(frozen=True)
class Unary(Node):
    """`-x`."""

    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    """`operator` is one of `+ - * / ^ .` or `juxtapose` (a space between factors: the matrix product)."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Transpose(Node):
    """`x^T`, or `x^H` when `conjugate`."""

    operand: Node
    conjugate: bool = False


@dataclass(frozen=True)
class SumOver(Node):
    """`sum r in 1..R: body`."""

    index: str
    low: Node
    high: Node
    body: Node


@dataclass(frozen=True)
class Range(Node):
    """`1..N`: the numbers from `low` to `high`, as the argument of an initial value's function: `init log(1..N)`."""

    low: Node
    high: Node


# --- types, domains ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TypeNode(Node):
    """`scalar`, `[N]`, `[N, P]`, `complex [N/2]`, with `per head | group | channel | layer`, `unit`, `conjugate`."""

    shape: tuple[Node, ...]  # empty: scalar
    field: str | None = None  # 'real' | 'complex' | None when not written
    per: str | None = None
    flags: tuple[str, ...] = ()  # 'unit', 'conjugate'
    rotates: tuple[str, Node] | None = None  # ('first', N/2 rows): `rotates first N/2 rows`


@dataclass(frozen=True)
class DomainNode(Node):
    """`> 0` (low 0 open), `<= 0` (high 0 closed), `in (0, 1)`, `in [0, 1)`. None is unbounded."""

    low: Node | None
    high: Node | None
    low_open: bool = True
    high_open: bool = True


# --- statements of a recurrence ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DimDecl(Node):
    name: str
    default: Node | None


@dataclass(frozen=True)
class ParamDecl(Node):
    """`param A_log : scalar per head init log(uniform(1, 16))`; `= expr` fixes the value; `= a init b` both."""

    name: str
    type: TypeNode | None
    value: Node | None
    init: Node | None
    init_fields: tuple[tuple[str, Node], ...] = ()  # `init re 1/2, im pi * n`
    name_span: Span | None = None


@dataclass(frozen=True)
class InputDecl(Node):
    """One name of `input q, k : [N] unit per group`, or `input i, f = W x + R h` (then `value`, shared by the group)."""

    name: str
    type: TypeNode | None
    domain: DomainNode | None
    value: Node | None = None
    name_span: Span | None = None


@dataclass(frozen=True)
class LetDecl(Node):
    name: str
    type: TypeNode | None
    value: Node
    name_span: Span | None = None


@dataclass(frozen=True)
class GateDecl(Node):
    """`gate dt > 0 : scalar = softplus(dt_raw + dt_bias)`. Without a value it is an input with a domain."""

    name: str
    type: TypeNode | None
    domain: DomainNode | None
    value: Node | None
    name_span: Span | None = None


@dataclass(frozen=True)
class StateDecl(Node):
    name: str
    type: TypeNode
    name_span: Span | None = None


@dataclass(frozen=True)
class Assign(Node):
    """`S' = value` in an update; `y = value` or `y[r] = value` in an output. `name` None: `output h'`."""

    name: str | None
    prime: bool
    subscript: Node | None
    value: Node
    name_span: Span | None = None


@dataclass(frozen=True)
class ForLoop(Node):
    """`for j in 1..n: S' = ...`: micro-steps inside a token."""

    index: str
    low: Node
    high: Node
    body: tuple[Assign, ...]


@dataclass(frozen=True)
class Update(Node):
    body: tuple[Assign | ForLoop, ...]


@dataclass(frozen=True)
class Dynamics(Node):
    """`dynamics dS/dt = right`."""

    state: str
    value: Node


@dataclass(frozen=True)
class Discretize(Node):
    """`discretize exp_trapezoid(dt, lam)`."""

    method: str
    args: tuple[Node, ...]
    method_span: Span | None = None


@dataclass(frozen=True)
class Output(Node):
    body: tuple[Assign, ...]


@dataclass(frozen=True)
class Declared(Node):
    """The declaration notation: `transition diagonal, delta(order = forget_first)`, `field complex angles data per pair`,
    `write rank R`, `taps 2`, `readout normalised`, `mimo R`, `time reversed`, `normaliser sum`, `form sequential`.

    `keyword` is the first word; `words` the rest, each a word with optional call arguments.
    """

    keyword: str
    words: tuple[Node, ...]  # Name, Number or Call nodes


@dataclass(frozen=True)
class Reset(Node):
    """`reset at document: a = 0, scale = 1`."""

    at: str
    assigns: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Option(Node):
    """`@chunk 128`, `@state_dtype float32`: may override, never define."""

    name: str
    value: Node | str


@dataclass(frozen=True)
class RecurrenceDecl(Node):
    name: str
    params: tuple[tuple[str, Node | None], ...]  # `recurrence steps(n = 2)`
    body: tuple[Node, ...]
    name_span: Span
    comment: str = ""  # the comment block straight above, without `#`: title, equation, paper


# --- attention, layers, stacks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionDecl(Node):
    """Body: DimDecl, InputDecl, ParamDecl, LetDecl, GateDecl and `score`/`mask`/`output` as `AttentionClause`."""

    name: str
    params: tuple[tuple[str, Node | None], ...]
    body: tuple[Node, ...]
    name_span: Span
    comment: str = ""


@dataclass(frozen=True)
class AttentionClause(Node):
    """`score expr`; `mask causal, window 4096, sink 4`; `output softmax`."""

    keyword: str
    value: Node | None
    words: tuple[tuple[str, Node | None], ...] = ()


@dataclass(frozen=True)
class Heads(Node):
    """`heads H = expand * d_model / P, groups 1`: the name, its value, and the group count."""

    name: str
    value: Node
    groups: Node | None


@dataclass(frozen=True)
class LayerAssign(Node):
    """`z, x, B = linear(u)`; `x, B = silu(conv(4))` (a call without its operand works on the names at the left).

    Inside a layer, words after a comma in a call (`per group`, `per head`) come as keywords `('per', Name)`.
    """

    names: tuple[str, ...]
    value: Node
    name_spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class LayerDecl(Node):
    name: str
    params: tuple[tuple[str, Node | None], ...]
    body: tuple[Node, ...]  # Heads, LayerAssign, DimDecl, ParamDecl, LetDecl
    name_span: Span
    comment: str = ""


@dataclass(frozen=True)
class StackItem(Node):
    """`3 * kda_block` or `1 * mla_block(rope = none)`."""

    count: Node
    layer: str
    keywords: tuple[tuple[str, Node], ...] = ()


@dataclass(frozen=True)
class StackDecl(Node):
    name: str
    params: tuple[tuple[str, Node | None], ...]
    repeat: tuple[StackItem, ...]
    between: tuple[Node, ...]  # Call or Name nodes: swiglu(8/3), rmsnorm with keyword ('position', pre)
    clauses: tuple[tuple[str, str], ...]  # ('head', 'tied')
    name_span: Span
    comment: str = ""


@dataclass(frozen=True)
class File:
    """One parsed source: its items in order of writing."""

    source: Source
    items: tuple[RecurrenceDecl | AttentionDecl | LayerDecl | StackDecl, ...]

    def __str__(self) -> str:
        from .syntax_text import to_text

        return to_text(self).rstrip()
