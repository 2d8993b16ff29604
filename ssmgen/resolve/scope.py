"""What names mean while one item is resolved, and how a wrong name is answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction

from .. import syntax
from ..bounds import INDICES, Bounds
from ..diagnostics import Label, Report
from ..functions import FUNCTIONS
from ..intervals import Interval
from ..source import Span
from ..spec import Dim, Expr, State, Symbol, Type

MODULES = ("torch", "np", "numpy", "jnp", "jax", "nn", "F", "math")
"""What Python writes in front of a function."""


class Unresolved(Exception):
    """The text under way has no meaning; the reason is in the report."""


@dataclass
class Scope:
    """Names of one item. Grows while its statements are resolved in order."""

    report: Report
    dims: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    constants: dict[str, Fraction] = field(default_factory=dict)
    symbols: dict[str, Symbol] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    inlined: dict[str, Expr] = field(default_factory=dict)  # definitions that read a state: put in where they are used
    declared: dict[str, Span] = field(default_factory=dict)  # every name the item declares, also those still to come
    used: dict[str, None] = field(default_factory=dict)
    broken: dict[str, None] = field(default_factory=dict)  # declared, and already reported as faulty
    odd: dict[Dim, None] = field(default_factory=dict)  # sizes already reported as no whole numbers
    axis: str = "head"  # what a declaration without `per` belongs to: 'head', or 'channel' when the states do
    in_attention: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Dims and counts with their defaults."""
        return {**self.dims, **self.counts}

    @property
    def bounds(self) -> Bounds:
        """Interval analysis over the names known so far."""
        known = {name: symbol.interval for name, symbol in self.symbols.items()}
        known.update({name: constant_interval(value) for name, value in self.constants.items() if name not in INDICES})
        return Bounds(known, frozenset(name for name, symbol in self.symbols.items() if "unit" in symbol.flags))

    def shape(self, type: Type) -> str:
        """A shape with its default sizes: `[N, P] = [128, 64]`."""
        if type.is_scalar:
            return "a scalar"
        dims = (type.rows,) if type.is_column else (type.rows, type.cols)
        written = "[" + ", ".join(map(str, dims)) + "]"
        numbers = "[" + ", ".join(str(self.number(d)) for d in dims) + "]"
        return written if written == numbers else f"{written} = {numbers}"

    def number(self, dim: Dim) -> Fraction | str:
        """The default value of a size."""
        return dim.value(self.sizes) if all(name in self.sizes for name, _ in dim.terms) else str(dim)

    # --- wrong names -------------------------------------------------------------------------------------------------

    def candidates(self, *, functions: bool = False) -> list[str]:
        """Every name that could have been meant here."""
        known = [*self.declared, *self.sizes, *self.constants, *self.symbols, *self.states, *INDICES]
        return list(dict.fromkeys(known + (list(FUNCTIONS) if functions else [])))

    def suggestion(self, name: str, candidates: Iterable[str]) -> str:
        """`did you mean ...?`, or nothing."""
        return suggestion(name, candidates)

    def unknown_name(self, name: str, span: Span) -> Unresolved:
        """Report a name that nothing declares."""
        stem, _, rest = name.rpartition("_")
        if stem in self.states and rest in ("t", "next", "new", "prev", "old"):
            self.report.error(
                "time-index",
                f"`{name}` names a time, and time is never written",
                span,
                f"`{stem}` is a state",
                help=f"`{stem}` is the state before this token, `{stem}'` the state after it",
            )
            return Unresolved()
        if stem in self.symbols and rest == "t":
            self.report.error(
                "time-index",
                f"`{name}` names a time, and time is never written",
                span,
                f"`{stem}` already is this token's value",
                help=f"write `{stem}`; `{stem}[-1]` is the previous token's",
            )
            return Unresolved()
        if name == "raw":
            help = "`raw` stands only in the expression of a gate; declare an input instead"
        elif name in MODULES:
            help = "functions have nothing in front of them: `sigmoid(x)`"
        elif self.report.source.slice(Span(max(span.start - 1, 0), span.start)) == ".":
            help = (
                "the transpose is `v^T`"
                if name in ("T", "mT")
                else "`.` is the inner product of two columns, and values have no attributes"
            )
        elif rest == "raw" and stem in self.declared:
            help = f"write `raw`: in the expression of the gate `{stem}` it is the input `{name}`; or declare that one as an input"
        else:
            help = (
                self.suggestion(name, self.candidates(functions=True)) or f"declare it: `input {name} : scalar` or `param {name} : scalar`"
            )
        self.report.error("unknown-name", f"there is no `{name}` here", span, "nothing declares this name", help=help)
        return Unresolved()

    def later_name(self, name: str, span: Span) -> Unresolved:
        """Report the use of a definition that stands below."""
        self.report.error(
            "undefined-order",
            f"`{name}` is used before it is defined",
            span,
            "used here",
            secondary=(Label(self.declared[name], f"`{name}` is defined here"),),
            help=f"move the definition of `{name}` above this line",
        )
        return Unresolved()


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """`did you mean `x`?`, or an empty text. Among equals, the first candidate."""
    pool = list(dict.fromkeys(candidates))
    exact_but_case = [c for c in pool if c.lower() == name.lower() and c != name]
    # of a short name more letters have to agree: `theta` is no `head`
    close = exact_but_case or get_close_matches(name, pool, n=1, cutoff=0.6 if len(name) > 6 else 0.7)
    return f"did you mean `{close[0]}`?" if close else ""


def constant_interval(value: Fraction) -> Interval:
    """A module argument may be set to another number, but not to one of another sign."""
    infinity = float("inf")
    if value > 0:
        return Interval(0.0, infinity)
    if value < 0:
        return Interval(-infinity, 0.0)
    return Interval(0.0, infinity, low_open=False)


def walk(node: object) -> Iterable[syntax.Node]:
    """Every syntax node under `node`, parents first."""
    if isinstance(node, syntax.Node):
        yield node
        for value in vars(node).values():
            yield from walk(value)
    elif isinstance(node, tuple):
        for item in node:
            yield from walk(item)


def names_in(node: object) -> tuple[str, ...]:
    """The names that occur in an expression, also as called functions, each once, in order."""
    found: dict[str, None] = {}
    for inner in walk(node):
        if isinstance(inner, syntax.Name):
            found[inner.id] = None
        elif isinstance(inner, syntax.Call):
            found[inner.function] = None
    return tuple(found)
