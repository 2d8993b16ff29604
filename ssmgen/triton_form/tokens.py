"""The token-wise half of a walk over rows, on tiles: operands, readout, and the gradients of both, as lines.

Operands are written to buffers and their gradients come from buffers, so that this half knows nothing of the walk. One
kernel holds every key and every value column of some tokens: the gradient of a definition is made once, whatever uses it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .. import algebra
from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_value import HALF, Text, loaded, size_text
from ..differentiate import cotangents
from ..expressions import nodes
from ..kernel import KEY, ROW, VALUE
from ..plan import Walk
from ..source import NOWHERE
from ..spec import ONE, Add, Apply, Delayed, Dim, Element, Expr, Ref, Symbol
from ..torch_form.tokens import TokenWriter, level
from .gradients import MADE, made
from .operands import atom, legible
from .site import TILES, Site, masked, pointer, widened

LONG = 110
"""A text of a sum beyond this many characters is written term by term."""

ELEMENT = re.compile(r"(.+)\[(\d+)\]")


@dataclass(frozen=True)
class Stored:
    """The gradient of an argument, or of one row of it, on the axis where its buffer has it."""

    name: str  # of the argument
    row: int  # of several, from 1; 0: all there is
    axis: str
    buffer: str


class RowSite(Site):
    """A site that knows the rows of an argument, and values of the token before."""

    def _make(self, name: str, axis: str) -> Text | None:
        symbol, row = split_row(self.tokens, name)
        if symbol is None:
            return super()._make(name, axis)
        widths = [size for size in (symbol.type.rows, symbol.type.cols) if size != ONE]
        count = size_of(self.tokens, widths[0])
        inner = widths[1:]
        if len(inner) != len(axis):
            return None
        self._top().arguments[symbol.name] = None
        if axis == HALF:
            self._number_pairs()
        elif axis:
            self.check_width(name, inner[-1])
        own = {"h": "i_h", "g": "i_g", "": ""}[level(symbol.per)]
        heads = {"h": "H", "g": "G", "": ""}[level(symbol.per)]
        place = f"(row * {heads} + {own})" if own else "row"
        word = identifier(symbol.name)
        # apart from the operand that a row of it becomes
        target = f"b_{word}{'_in' * (word in TILES)}_{row}" + (f"_{axis}" if axis == VALUE and self.axis_of.get(inner[0]) != VALUE else "")
        where = pointer(symbol.name)
        if symbol.kind != "input":
            where += f" + {own} * {' * '.join(size_text(w).text for w in widths)}" if own else ""
            if axis:
                width = atom(size_text(inner[0]).text)
                mask = f"o_{axis} < {width}" if axis == HALF else f"m_{axis}"
                text = f"tl.load({where} + {(row - 1)} * {width} + o_{axis}, mask={mask}, other=0.0).to(tl.float32)"
            else:
                text = f"tl.load({where} + {row - 1}).to(tl.float32)"
            axes = (axis,) if axis else ()
        elif axis:
            width = atom(size_text(inner[0]).text)
            text = f"_tile({where} + {row - 1} * {width}, {place} * {count}, {width}, {self.block(axis)}, o_{axis}, m_t).to(tl.float32)"
            axes = (ROW, axis)
        else:
            text = f"tl.load({where} + {place} * {count} + {row - 1}, mask=m_t, other=0.0).to(tl.float32)"
            axes = (ROW,)
        self.add(target, text, "", self.shape(axes))
        return loaded(target, axes)

    def _has_time(self, name: str) -> bool:
        symbol, _ = split_row(self.tokens, name)
        return symbol.kind == "input" if symbol is not None else super()._has_time(name)


def split_row(tokens: TokenWriter, name: str) -> tuple[Symbol | None, int]:
    """The argument and the number of one of its rows, `k[2]`; None for other names."""
    match = ELEMENT.fullmatch(name)
    if match is None:
        return None, 0
    symbol = next((s for s in tokens.arguments if s.name == match[1]), None)
    return symbol, int(match[2])


def size_of(tokens: TokenWriter, size: Dim) -> int:
    """A size that is known when a package is built."""
    if any(name not in tokens.counts for name, _ in size.terms):
        raise UnsupportedOperand(f"{size} rows, which is not known at build time")
    return int(size.value(tokens.counts))


class RowTokens:
    """Expressions of one recurrence whose rows have names of their own."""

    def __init__(self, tokens: TokenWriter, walk: Walk):
        self.tokens, self.walk = tokens, walk
        self.definitions: dict[str, Expr] = {}
        for name in tokens.ordered_definitions():
            self.definitions[name] = self.named(tokens.definitions[name])
        tokens.definitions = self.definitions

    def named(self, expr: Expr) -> Expr:
        """Elements as names `k[2]`; that of a definition is a definition."""

        def element(node: Expr) -> Expr | None:
            if not (isinstance(node, Element) and isinstance(node.base, Ref | Delayed) and isinstance(node.index, int)):
                return None
            whole = node.base.name if isinstance(node.base, Ref) else f"{node.base.name}[-1]"
            name = f"{whole}[{node.index}]"
            if whole in self.definitions and name not in self.definitions:
                self.definitions[name] = self.named(algebra.row_of(self.definitions[whole], node.index))
                self.tokens.printer.places[name] = self.tokens.printer.place(node)
            return Ref(node.type, NOWHERE, name)

        return algebra.rewrite(expr, element)


class Gradients:
    """Follows gradients of operands and of the output to the arguments."""

    def __init__(self, row_tokens: RowTokens, axis_of: dict[Dim, str]):
        self.tokens, self.names, self.axis_of = row_tokens.tokens, row_tokens, axis_of
        self.found: dict[str, dict[str, list[Expr]]] = {}

    def push(self, axis: str, name: str, expr: Expr) -> None:
        """One contribution to the gradient of a name; columns lie along `axis`, or where their size does."""
        self.found.setdefault(name, {}).setdefault(self._axis(expr, axis), []).append(expr)

    def _axis(self, expr: Expr, axis: str) -> str:
        """The axis along which a value lies that is met in a gradient along `axis`: its own, where its size tells.

        An inner product of keys in a value sends a column of keys along the values' axis, and a gradient with one entry a pair is
        made of whole columns. Where keys and values are of one size, either axis will do.
        """
        if expr.type.is_scalar:
            return ""
        own = self.axis_of.get(expr.type.cols if expr.type.is_row else expr.type.rows)
        if not axis or own == HALF or (own is not None and axis in self.axis_of.values()):
            return own or KEY
        return axis

    def spread(self, axis: str, expr: Expr, gradient: Expr, value: Expr | None = None) -> None:
        """`gradient` reaches `expr`."""
        for name, part in cotangents(self.names.named(expr), gradient, value):
            self.push(axis, name, part)

    def _reaches_argument(self, name: str) -> bool:
        """Whether a gradient of the definition goes on to an argument, or to one of its rows."""
        if self.tokens.reaches_argument(name):
            return True
        names = [n.name for n in nodes(self.tokens.definitions[name]) if isinstance(n, Ref)]
        return any(split_row(self.tokens, n)[0] is not None or (n in self.tokens.definitions and self._reaches_argument(n)) for n in names)

    def lines(self, site: Site, place_of: Callable[[Stored, Expr], Site] | None = None) -> list[tuple[Stored, Text]]:
        """Write the lines of every definition's gradient on `site`; the gradients of arguments, there or at the place of each."""
        for name in reversed(self.tokens.ordered_definitions()):
            parts = self.found.pop(name, None)
            if parts is None or not self._reaches_argument(name):
                continue
            definition = self.tokens.definitions[name]
            for axis, exprs in parts.items():
                own = f"d_{name}" + (f"_{axis}" if len(parts) > 1 else "")
                value = site.text(algebra.add(*exprs), axis or KEY)
                target = "b_" + re.sub(r"\W", "_", own)
                site.given[MADE + own, axis] = site.named(target, value)
                self.spread(axis, definition, made(own, definition.type), Ref(definition.type, NOWHERE, name))
        totals: list[tuple[Stored, Expr]] = []
        for symbol in self.tokens.arguments:
            if symbol.name in self.tokens.immaterial:
                continue
            for name, parts in self.found.items():
                owner, row = split_row(self.tokens, name)
                if name != symbol.name and (owner is None or owner.name != symbol.name):
                    continue
                if name == symbol.name and symbol.type.rows.terms and _is_counted(self.tokens, symbol):
                    raise UnsupportedOperand(f"all rows of `{name}` at once")
                for axis, exprs in parts.items():
                    buffer = f"d_{identifier(symbol.name)}" + (f"_{axis}" if len(parts) > 1 else "")
                    totals.append((Stored(symbol.name, row, axis, buffer), algebra.add(*exprs)))
        shared = _shared([total for _, total in totals])
        results = []
        for stored, total in totals:
            target = f"b_{stored.buffer}" + (f"_{stored.row}" if stored.row else "")
            own = site if place_of is None else place_of(stored, total)
            total = self._named_parts(own, total, stored.axis, shared)
            value = own.text(total, stored.axis or KEY)
            if len(value.text) > LONG and isinstance(total, Add):
                value = own.text(self._named_terms(own, total, stored.axis, target), stored.axis or KEY)
            results.append((stored, own.named(target, value)))
        return results

    def _named_terms(self, site: Site, total: Add, axis: str, target: str) -> Expr:
        """A sum of terms that have lines of their own."""
        names = []
        for number, term in enumerate(total.terms, 1):
            own = "" if term.type.is_scalar else axis or KEY
            name = f"{target[2:]}_part{number}"
            site.given[MADE + name, own] = site.named(f"b_{name}", site.text(term, own or KEY))
            names.append(made(name, term.type))
        return algebra.add(*names)

    def _named_parts(self, site: Site, total: Expr, axis: str, shared: set[str]) -> Expr:
        """The expression with what occurs more than once under names, whose lines are written."""

        def named(node: Expr) -> Expr | None:
            if not isinstance(node, Apply) or algebra.key(node) not in shared:
                return None
            own = self._axis(node, axis)
            name = f"{node.function}{sorted(shared).index(algebra.key(node))}"
            if (MADE + name, own) not in site.given:
                value = site.text(algebra.rebuild(node, tuple(algebra.rewrite(a, named) for a in node.args)), own or KEY)
                site.given[MADE + name, own] = site.named(f"b_{name}" + (f"_{own}" if own == VALUE else ""), value)
            return made(name, node.type)

        return algebra.rewrite(total, named)


def _shared(exprs: list[Expr]) -> set[str]:
    """Function values that occur more than once, by what they are."""
    counts = Counter(algebra.key(n) for e in exprs for n in nodes(e) if isinstance(n, Apply) and n.args and n.function not in UNSHARED)
    return {key for key, count in counts.items() if count > 1}


UNSHARED = ("sum", "at_least", "rope", "rope_back")
"""Functions whose values are as short as their names, or are made of a position."""


def _is_counted(tokens: TokenWriter, symbol: Symbol) -> bool:
    return all(n in dict(tokens.spec.counts) for n, _ in symbol.type.rows.terms)


def operand_line(site: Site, target: str, expr: Expr | None, axis: str, letter: str, factor: str = "") -> str:
    """A line for an operand that is a column along `axis`, zero where there is no data; its name."""
    axes = (ROW, axis)
    shape = site.shape(axes)
    if expr is None:
        site.add(target, f"tl.where(m_t[:, None] & m_{axis}[None, :], 1.0, 0.0){factor}", "", shape)
        return target
    value = widened(masked(site, site.text(expr, axis), axes), axes, f"({site.blocks[ROW]}, {site.blocks[axis]})")
    value = masked(site, value, axes)
    site.add(target, f"{value.at(ATOM) if factor else value.text}{factor}", f"{letter} = {legible(expr)}", shape)
    return target


def number_line(site: Site, target: str, expr: Expr, letter: str) -> str:
    """The same of one number a token."""
    value = widened(masked(site, site.text(expr), (ROW,)), (ROW,), f"({site.blocks[ROW]},)")
    value = masked(site, value, (ROW,))
    site.add(target, value.text, f"{letter} = {legible(expr)}", site.shape((ROW,)))
    return target
