"""Where the lines of a scan's kernels stand: lanes, what lies along them, and the values of a token on tiles [lanes, keys]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_pointwise import Printer
from ..backends.triton_value import Text, added, facing, loaded, size_text
from ..kernel import KEY, ROW, VALUE
from ..scan import Binding, ScanProgram, seeds
from ..scan_text import value_text, word
from ..spec import ONE, Add, Dim, Expr, Symbol, Type
from ..spec_text import expr_text
from ..torch_form.tokens import TokenWriter, level
from .scan_package import Load, Pass
from .scan_printer import StaticPrinter, TokenPrinter
from .site import CodeLine
from .site import pointer as kernel_pointer

WORDS = frozenset(
    "A BL BN CUT L SHORT U W WHOLE ahead at b_left batch blocks chosen count device each edge edges end first gates here i_1 is_given "
    "is_packed is_short later made math numbers o_k one own o_l m_l o_r m_r packing row rows segments sequences size sizes start t0 t1 t2 "
    "u".split()
)
"""Names that these kernels use for themselves, beside those of all kernels."""

_MADE = re.compile(r"(made|one|part|left|asked|aside|before|edges|later|kept|moved)_\d+|(c|g|n|r|wide|lanes)_\w+")

WIDTH = 128
"""Characters of a line of a token's, its shape behind it."""

LONG = 110
"""Characters that a line holds beside its name and its shape."""

MATRIX = KEY + ROW
"""How a matrix [N, P] is asked for: its rows lie along the keys, its columns along the lanes."""

TURNED = ROW + KEY
"""The same where its rows are as many as there are lanes."""

SQUARE = KEY + VALUE
"""How a matrix between the entries of a lane is asked for: its columns lie along a second axis of keys."""


def pointer(name: str) -> str:
    """The argument of a kernel that points at an argument of the operator."""
    safe = kernel_pointer(name)
    return f"{safe}_" if safe in WORDS or _MADE.fullmatch(safe) else safe


@dataclass(frozen=True)
class Lanes:
    """What the lanes are: channels (`by_head` False), or the columns of one head, `column` wide. `key`: entries of a lane's vectors."""

    by_head: bool
    column: Dim | None
    key: Dim | None
    are_heads: bool = False  # they lie as channels do

    @property
    def words(self) -> str:
        """The lanes for people."""
        return "value columns of a head" if self.by_head else "heads" if self.are_heads else "channels"

    @property
    def width(self) -> str:
        """How many there are."""
        return self.size_text(self.column) if self.by_head else "H"

    @property
    def key_text(self) -> str:
        """How many keys a lane has."""
        return "1" if self.key is None else self.size_text(self.key)

    @staticmethod
    def size_text(size: Dim) -> str:
        """A size, to be multiplied by."""
        text = size_text(size)
        return text.at(ATOM)

    def asked(self, type: Type) -> str:
        """The axes on which a value of this type is asked for."""
        if type.is_scalar:
            return ""
        if type.is_column or type.is_row:
            return ROW if self.by_head and (type.rows if type.is_column else type.cols) == self.column else KEY
        return SQUARE if type.rows == type.cols == self.key else TURNED if self.by_head and type.rows == self.column else MATRIX

    def state(self, type: Type) -> tuple[str, ...]:
        """The axes of a state's tile."""
        return tuple(a for a in (ROW, KEY) if a == ROW or a in self.asked(type))

    def output(self, type: Type) -> tuple[str, ...]:
        """The axes of the output's tile."""
        return self.state(type)

    def own(self, symbol: Symbol) -> tuple[str, ...]:
        """The axes along which an argument has values of its own."""
        asked = self.asked(symbol.type)
        has_lanes = ROW in asked or (not self.by_head and level(symbol.per) in ("h", "g"))
        return tuple(a for a in (ROW, KEY, VALUE) if (a == ROW and has_lanes) or (a != ROW and a in asked))

    def is_direct(self, symbol: Symbol) -> bool:
        """Whether the gradient of an input is complete where it is made."""
        return ROW in self.own(symbol) and level(symbol.per) == "h"

    def place(self, type: Type, base: str) -> str:
        """Where a value of every head, or channel, lies; `base` numbers its rows."""
        return self.address(base, "h", type)

    def output_place(self, type: Type, number: int, count: int) -> str:
        """Where a row of the output of every head, or channel, lies, one of `count`."""
        if count == 1:
            return self.place(type, "row")
        if not self.by_head:
            place = f"(row * H + o_l) * {count} + {number}"
            return place if type.is_scalar else f"({place})[:, None] * {self.key_text} + o_k[None, :]"
        return f"((row * H + i_h) * {count} + {number}) * {self.width} + o_l"

    def address(self, base: str, own: str, type: Type) -> str:
        """The offset of an entry in a tensor whose rows `base` numbers (empty: it has none), for a level of heads."""
        axes = self.asked(type)
        if not self.by_head:
            head, count = {"h": ("o_l", "H"), "g": ("o_g", "G")}.get(own, ("", ""))
            index = f"{base} * {count} + {head}" if base and head else base or head
            if not axes:
                return index or "0"
            if axes == SQUARE:
                return self._square(index, has_lanes=bool(head))
            if head:
                rows = "o_l" if index == "o_l" else f"({index})"
                return f"{rows}[:, None] * {self.key_text} + o_k[None, :]"
            return f"{index} * {self.key_text} + o_n" if index else "o_n"
        head, count = {"h": ("i_h", "H"), "g": ("i_g", "G")}.get(own, ("", ""))
        index = f"{base} * {count} + {head}" if base and head else base or head
        if not axes:
            return index or "0"
        if axes == SQUARE:
            return self._square(index, has_lanes=False)
        if axes == TURNED:
            rows = f"({index}) * {self.width} + o_l[:, None]" if index else "o_l[:, None]"
            return f"({rows}) * {self.key_text} + o_k[None, :]"
        if axes == MATRIX:
            rows = f"({index}) * {self.key_text} + o_k[None, :]" if index else "o_k[None, :]"
            return f"({rows}) * {self.width} + o_l[:, None]"
        width, offset = (self.width, "o_l") if axes == ROW else (self.key_text, "o_n")
        return f"({index}) * {width} + {offset}" if index else offset

    def _square(self, index: str, has_lanes: bool) -> str:
        """The offset of an entry of a matrix between keys and keys."""
        size = self.key_text
        if not has_lanes:
            first = f"({index}) * ({size} * {size}) + " if index else ""
            return f"{first}o_n[:, None] * {size} + o_n[None, :]"
        return f"({index})[:, None, None] * ({size} * {size}) + o_n[None, :, None] * {size} + o_n[None, None, :]"

    def inner(self, type: Type, has_lanes: bool, heads: bool = True) -> str:
        """Entries of one row of a buffer of parts."""
        sizes = [self.size_text(size) for size in (type.rows, type.cols) if size != ONE]
        if self.by_head and heads:
            sizes.insert(0, "H")
        return " * ".join(sizes) or "1"

    def within(self, type: Type, has_lanes: bool, heads: bool = True) -> str:
        """An entry's place in such a row."""
        text = self.address("", "h" if has_lanes and not self.by_head else "", type)
        if self.by_head and heads:
            size = " * ".join(self.size_text(size) for size in (type.rows, type.cols) if size != ONE)
            return f"i_h * {size} + {text}" if size else "i_h"
        return text

    @staticmethod
    def mask(axes: tuple[str, ...], here: str) -> str:
        """The text of a mask over a tile, and of `here`."""
        names = [f"m_{'l' if axis == ROW else 'n'}" for axis in axes]
        rank = range(len(axes))
        parts = [f"{name}[{', '.join(':' if i == own else 'None' for i in rank)}]" for own, name in enumerate(names)]
        parts = parts if len(names) > 1 else names
        return " & ".join([*parts, *([here] if here else [])])

    @staticmethod
    def shape(axes: tuple[str, ...]) -> str:
        """The shape of a tile."""
        blocks = ["BL" if a == ROW else "BN" for a in axes]
        return f"({', '.join(blocks)}{',' * (len(blocks) == 1)})"

    def zeros(self, axes: tuple[str, ...]) -> str:
        """A tile of zeros; a number where there are no axes."""
        return f"tl.zeros({self.shape(axes)}, tl.float32)" if axes else "0.0"

    def entries(self, type: Type, sizes: dict[str, int]) -> int:
        """Numbers of a state in one lane."""
        return int(self.key.value(sizes)) if self.key is not None and KEY in self.state(type) else 1


class ScanSite:
    """The values of one kernel, made where they are first asked for: once before the loop, or for every token."""

    def __init__(self, tokens: TokenWriter, lanes: Lanes, program: ScanProgram):
        self.tokens, self.lanes, self.program = tokens, lanes, program
        self.head: list[CodeLine] = []
        self.lines: list[CodeLine] = []
        self.loads: list[tuple[tuple[str, ...], Load]] = []
        self.gradients: list[str] = []
        self.arguments: dict[str, None] = {}
        self.bound: dict[tuple[str, str], Text] = {}
        self.sums_lanes = False
        self.turns = False
        self.texts: list[str] = []
        self.axis_of = {}
        if lanes.key is not None:
            self.axis_of[lanes.key] = KEY
        if lanes.column is not None:
            self.axis_of[lanes.column] = ROW
        for number, (name, type) in enumerate(program.states):
            for said, letter in ((name, "s"), (f"D {name}", "d"), (f"kept {name}", "k")):
                self.bound[said, lanes.asked(type)] = Text(f"b_{letter}{number}", ATOM, lanes.state(type))

    # --- what the printer asks ---

    def get(self, key: tuple[str, str]) -> Text | None:
        """The value of a name on the axes that it is asked for; None where it does not lie there."""
        name, asked = key
        if key in self.bound:
            return self.bound[key]
        if asked == VALUE + KEY and self.turns:
            found = self.get((name, SQUARE))
            return None if found is None else _turned(found)
        if VALUE in asked and KEY not in asked:
            found = self.get((name, asked.replace(VALUE, KEY)))
            return None if found is None else facing(found)
        symbol = next((s for s in self.tokens.arguments if s.name == name), None)
        if symbol is not None:
            if asked != self.lanes.asked(symbol.type) or symbol.type.field == "complex":
                return None
            self.bound[key] = self._argument(symbol)
            return self.bound[key]
        if asked:
            return None
        if name == "position":
            self.arguments["position"] = None
            self.loads.append(((), Load("position", "position + row", "", "")))
            self.bound[key] = loaded("b_position", ())
            return self.bound[key]
        if name in ("head", "channel"):
            return Text("i_h.to(tl.float32)", ATOM) if self.lanes.by_head else Text("o_l.to(tl.float32)", ATOM, (ROW,))
        if name in ("heads", "channels"):
            return Text("H", ATOM, is_number=True)
        if name in (n for n, _ in self.tokens.spec.constants):
            return Text(pointer(name), ATOM)
        return None

    def _argument(self, symbol: Symbol) -> Text:
        name, axes = f"b_{identifier(symbol.name)}", self.lanes.own(symbol)
        self.arguments[pointer(symbol.name)] = None
        if symbol.kind != "param":
            place = f"{pointer(symbol.name)} + {self.lanes.address('row', level(symbol.per), symbol.type)}"
            self.loads.append((axes, Load(identifier(symbol.name), place, self._masked(axes), self._words(axes))))
        else:
            place = f"{pointer(symbol.name)} + {self.lanes.address('', level(symbol.per), symbol.type)}"
            text = f"tl.load({place}{self._masked(axes)}).to(tl.float32)"
            self.head.append(CodeLine("", name, text, self._words(axes)))
        return loaded(name, axes)

    def _masked(self, axes: tuple[str, ...]) -> str:
        return f", mask={self.lanes.mask(axes, '')}, other=0.0" if axes else ""

    def _words(self, axes: tuple[str, ...]) -> str:
        return f"  # [{', '.join('BL' if a == ROW else 'BN' for a in axes)}]" if axes else ""

    def bind_output_gradients(self) -> None:
        """The gradients of the outputs at this token, zero where there is no token."""
        type = self.program.outputs[0].value.type
        axes, names = self.lanes.output(type), seeds(self.program)
        for number, seed in enumerate(names):
            name = seed.replace("d y", "dy").replace(" ", "_")
            place = self.lanes.output_place(type, number, len(names))
            self.loads.append((axes, Load(name, f"dy + {place}", self._masked(axes), self._words(axes))))
            self.gradients.append(f"b_{name}")
            self.bound[seed, self.lanes.asked(type)] = loaded(f"b_{name}", axes)

    def bind_sum(self, binding: Binding, name: str, axes: tuple[str, ...]) -> None:
        """The sum over tokens of a gradient."""
        self.bound[binding.name, self.lanes.asked(binding.value.type)] = Text(name, ATOM, axes)

    def axes_of(self, name: str) -> tuple[str, ...]:
        """The axes along which a name has values of its own."""
        symbol = next((s for s in self.tokens.arguments if s.name == name), None)
        if symbol is not None:
            return self.lanes.own(symbol)
        found = next((text.axes for (own, _), text in self.bound.items() if own == name), None)
        if found is None:
            # nothing of this kernel reads the value itself
            value = next(b.value for b in (*self.program.token, *self.program.update) if b.name == name)
            found = self.lanes.state(value.type) if "'" in name else self.print(value).axes
        return found

    # --- lines ---

    def print(self, expr: Expr) -> Text:
        """The text of an expression. Raises UnsupportedOperand for what has none on these tiles."""
        return self._print(expr)[0]

    def _print(self, expr: Expr, is_fixed: bool = False) -> tuple[Text, Printer]:
        kind = StaticPrinter if is_fixed else TokenPrinter
        printer = kind(self, self.axis_of, {ROW: "m_l", KEY: "m_n", VALUE: "m_n"}, {ROW: "o_l", KEY: "o_n", VALUE: "o_n"})
        asked = self.lanes.asked(expr.type)
        rows, cols = asked if asked in (SQUARE, TURNED) else (KEY if asked == MATRIX else asked or KEY, ROW)
        try:
            text = printer.print(expr, rows, cols)
        except UnsupportedOperand:
            # numbers change threads only where a product cannot take the matrix as it stands
            self.turns = True
            text = printer.print(expr, rows, cols)
        finally:
            self.turns = False
        self.texts.append(text.text)
        return text, printer

    def write(self, binding: Binding, is_fixed: bool) -> None:
        """The line of a binding."""
        if binding.name.startswith("d "):
            text = self._narrow(binding.value, self.axes_of(base_of(binding.name)))
        else:
            text, printer = self._print(binding.value, is_fixed)
            self.sums_lanes = self.sums_lanes or (ROW in printer.whole and not binding.name.startswith("kept "))
        name = f"b_{plain(binding.name)}"
        lines = self.head if is_fixed else self.lines
        if len(text.text) > LONG and isinstance(binding.value, Add):
            text = self._in_parts(binding, name, lines)
        symbol = self.tokens.symbols.get(binding.name)
        if symbol is not None and symbol.definition is not None:
            comment = f"{binding.name} = {expr_text(symbol.definition)}"
        else:
            comment = f"{word(binding.name)} = {value_text(binding)}"
        lines.append(CodeLine(comment if len(comment) < LONG else "", name, text.text, self._words(text.axes)))
        self.bound[binding.name, self.lanes.asked(binding.value.type)] = text.named(name)

    def _in_parts(self, binding: Binding, name: str, lines: list[CodeLine]) -> Text:
        """A long sum: a line for every term."""
        parts = []
        for number, term in enumerate(binding.value.terms):
            is_gradient = binding.name.startswith("d ")
            text = self._narrow(term, self.axes_of(base_of(binding.name))) if is_gradient else self.print(term)
            shape = self._words(text.axes)
            is_short = len(f"{name}_part{number} = {text.text}{shape}") <= WIDTH
            lines.append(CodeLine("", f"{name}_part{number}", text.text, shape if is_short else ""))
            parts.append((False, text.named(f"{name}_part{number}")))
        return added(parts)

    def _narrow(self, expr: Expr, own: tuple[str, ...]) -> Text:
        """What reaches a value that all lanes share is summed over them, but for terms that have been."""
        text, printer = self._print(expr)
        if ROW in own or ROW not in text.axes:
            return text
        terms = [self._print(term)[0] for term in expr.terms] if isinstance(expr, Add) else [text]
        spread = [term for term in terms if ROW in term.axes]
        rest = [(False, term) for term in terms if ROW not in term.axes]
        summed = printer.summed(added([(False, term) for term in spread]), ROW)
        return added([(False, summed), *rest]) if rest else summed

    def is_spread(self, expr: Expr) -> bool:
        """Whether every term has an entry for every lane and key."""
        return all(self.print(term).axes == (ROW, KEY) for term in (expr.terms if isinstance(expr, Add) else [expr]))

    def spread(self, expr: Expr, axes: tuple[str, ...]) -> str:
        """The text of an expression on a tile with these axes."""
        return self._spread(self.print(expr), axes)

    def _spread(self, text: Text, axes: tuple[str, ...]) -> str:
        if text.axes == axes:
            return text.text
        return f"{self.lanes.zeros(axes)} + {text.along(axes)}" if axes else text.text

    def narrowed(self, expr: Expr, own: tuple[str, ...], type: Type) -> str:
        """The same for the gradient of a value with axes `own`."""
        return self._spread(self._narrow(expr, own), own)

    def summed_over_tokens(self, expr: Expr, own: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """(text of what a token adds, its axes): lanes are summed once, behind the last token."""
        text = self.print(expr)
        is_mixed = isinstance(expr, Add) and any((ROW in self.print(term).axes) != (ROW in text.axes) for term in expr.terms)
        if is_mixed and ROW not in own:
            text = self._narrow(expr, own)
        axes = tuple(a for a in (ROW, KEY, VALUE) if a in text.axes or a in own)
        return self._spread(text, axes), axes

    def pointers(self, other: Pass | None = None) -> str:
        """The arguments that the kernel reads, with those of another pass of it."""
        names = {*self.arguments, *(other.pointers.split(", ") if other else ())}
        given = [*(pointer(s.name) for s in self.tokens.arguments), "position"]
        return "".join(f"{name}, " for name in given if name in names)

    def launched(self, pointers: str) -> str:
        """What is given for those arguments: of what all lanes share, the wide copy."""
        wide = {pointer(s.name): f"wide_{pointer(s.name)}" for s in shared(self.lanes, self.tokens)}
        return "".join(f"{wide.get(name, name)}, " for name in pointers.split(", ") if name)

    def finished(self) -> Pass:
        """What the kernel reads and makes."""
        # of a matrix there is room for no more than the next one
        ahead = tuple(load for axes, load in self.loads if ROW in axes and VALUE not in axes)
        beside = tuple(load for axes, load in self.loads if ROW not in axes or VALUE in axes)
        return Pass(
            self.pointers(),
            self.launched(self.pointers()),
            tuple(self.head),
            ahead,
            beside,
            tuple(self.lines),
            tuple(self.gradients),
        )


def shared(lanes: Lanes, tokens: TokenWriter) -> list[Symbol]:
    """The inputs that all lanes share: every thread reads all their entries, but for those of matrices."""
    own = {s.name: lanes.own(s) for s in tokens.arguments if s.kind != "param"}
    return [s for s in tokens.arguments if s.name in own and ROW not in own[s.name] and VALUE not in own[s.name]]


def _turned(text: Text) -> Text:
    """A matrix between keys and keys as its transpose."""
    turned = f"tl.trans({text.text}, 0, 2, 1)" if ROW in text.axes else f"tl.trans({text.text})"
    return Text(turned, ATOM, text.axes, {**text.beyond, KEY: text.past(VALUE), VALUE: text.past(KEY)})


def base_of(gradient: str) -> str:
    """The name whose gradient this is, `d x`; of `d log x`, what reaches an exponent, its exponential."""
    return gradient.removeprefix("d ").removeprefix("log ")


def plain(name: str) -> str:
    """The name of a binding as a word: `d S'` is d_S_next."""
    return (
        identifier(name)
        if name.isidentifier()
        else name.replace("out ", "own ").replace("'", "_next").replace(" ", "_").replace("[-1]", "_previous")
    )
