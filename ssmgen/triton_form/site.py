"""Where lines of a kernel stand: a site gives every name a value on its tiles, and writes the line that makes it when asked.

Sites nest: a head's own numbers outside the loop over chunks, a token's values inside it, one block of columns inside that.
A value is made at the outermost site that has the axes it lives on. The values of a kernel are `b_<name>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_pointwise import Printer
from ..backends.triton_value import HALF, Text, loaded, size_text
from ..kernel import KEY, ROW
from ..spec import Dim, Expr
from ..spec_text import expr_text
from ..torch_form.tokens import TokenWriter, level
from .folded_rows import FIRST

KERNEL_WORDS = frozenset(
    "BACK BC BK BLOCKS BR BT BV CK CV DOT DOTS EDGE FEW G H HEADS LANES LARGEST LARGEST_STATE LOG2E MEMBERS PACKED PRECISION RUN "
    "STATES_LIMIT T TOKENS MODULES PROCESSORS adjoints after arguments asked backward batch before behind bests blocks bos c0 carried "
    "chunks coefficients columns count cu_seqlens d_after d_before d_first d_initial d_last d_made d_reads decays device do dtype dy "
    "early edges end ends entering final first forward gates gates_shape grid held i_0 i_b i_bh i_c i_d i_e i_g i_h i_k i_kv i_n i_p "
    "i_s i_t i_v initial is_packed kept keys last later leaving length m_a m_c m_n m_p m_s m_t m_u m_w made moved numbers o_c o_h o_i "
    "o_n o_p o_q o_r o_t options own owns p_g p_s packing part partial place position programs readouts reads rests row rows scale "
    "segments sequences size sized sizes slices slot slots span start states shares sums t0 tiles tl token tokens torch total totals "
    "triton tuning turns values walk wanted warps weights wins y".split()
)
"""Names that the kernels and their launchers use for themselves."""

_COMPOSED = re.compile(
    r"[bd]_\w+|\w+_kernel|(factor|faded|final|from_walk|grad|initial|moved)_\w+|(adjoints|behind|du|reads|states|sums|totals|walk|weights)_\d+"
    r"|(asks|pairs|reads)\d*|CT|erased|i_r|inverse|is_given|is_made|parts|places|shapes|typed|written"
)
"""Names that they make."""

TILES = frozenset(
    "q k v g c G Q a s o x y z r w f e d u n own first do dq dk dv dg last fade source read start moved part "
    "rest rest_Q left between".split()
)  # fmt: skip
"""Values `b_<word>` that the templates make themselves."""


@dataclass(frozen=True)
class CodeLine:
    """`target = text` under a comment, with the shape behind it (both empty: none)."""

    comment: str
    target: str
    text: str
    shape: str = ""


def pointer(name: str) -> str:
    """The argument of a kernel that points at an argument of the operator."""
    return set_apart(identifier(name))


def set_apart(safe: str) -> str:
    """The same of a name as op.py has it."""
    return f"{safe}_" if safe in KERNEL_WORDS or _COMPOSED.fullmatch(safe) else safe


class Site:
    """One place in a kernel. `own` are the axes that it introduces, `blocks` every axis that stands here, with its width's name.

    given: values that the template makes, by (name, axes). loads: what writes the line of a value that is no argument.
    axis_of: the axis that a size lies along. paired: the axis of which two entries turn together.
    """

    def __init__(
        self,
        tokens: TokenWriter,
        blocks: Mapping[str, str],
        own: str = "",
        outer: Site | None = None,
        given: Mapping[tuple[str, str], Text] | None = None,
        loads: Mapping[tuple[str, str], Callable[[Site], Text]] | None = None,
        axis_of: Mapping[Dim, str] | None = None,
        paired: str = "",
    ):
        self.paired = paired or (outer.paired if outer else KEY)
        self.tokens, self.outer, self.own = tokens, outer, own
        self.blocks = dict(outer.blocks if outer else {}) | dict(blocks)
        self.axis_of = dict(axis_of or (outer.axis_of if outer else {}))
        self.given = dict(given or {})
        self.loads = dict(loads or {})
        self.lines: list[CodeLine] = []
        self.made: dict[tuple[str, str], Text] = {}
        self.arguments: dict[str, None] = outer.arguments if outer else {}
        """Arguments of the operator that the kernel reads, in the order in which they were asked for."""
        self.sums: set[str] = outer.sums if outer else set()
        """Axes that were summed over: a block of them has to be the whole."""
        self.uses_position = False
        """Whether a value is a function of the token's position."""

    # --- what the printer asks ---

    def get(self, key: tuple[str, str]) -> Text | None:
        """The value of a name along an axis ('' for a scalar), made where it belongs at the first call."""
        name, axis = key
        found = self.given.get(key) or self.made.get(key)
        if found is not None:
            return found
        if key in self.loads:
            self.made[key] = self.loads[key](self)
            return self.made[key]
        # pairs stand where both of their entries do
        axis = axis.replace(HALF, self.paired)
        if axis and axis not in self.blocks:
            return None
        needs = set(axis) | ({ROW} if self._has_time(name) else set())
        if self.outer is not None and not needs & set(self.own):
            return self.outer.get(key)
        if not needs <= set(self.blocks):
            return None
        value = self._make(name, key[1])
        if value is not None:
            self.made[key] = value
        return value

    def text(self, expr: Expr, axis: str = KEY) -> Text:
        """The text of an expression; a column lies along `axis`. Raises UnsupportedOperand for what a tile cannot hold."""
        printer = Printer(self, self.axis_of)
        value = printer.print(expr, axis)
        if HALF in printer.used_masks:
            raise UnsupportedOperand("a sum over pairs of what is not zero behind them")
        if HALF in printer.used_offsets:
            self._number_pairs()
        self.sums.update(printer.whole)
        return value

    # --- lines ---

    def add(self, target: str, value: Text | str, comment: str = "", shape: str = "") -> None:
        """Write a line. Raises AssertionError where the name stands for another value already."""
        line = CodeLine(comment, target, value if isinstance(value, str) else value.text, shape)
        assert all(other.target != target or other.text == line.text for other in self._written()), f"two values called {target}"
        self.lines.append(line)

    def named(self, target: str, value: Text, comment: str = "") -> Text:
        """The value under a name of its own, by a line; a name stays what it is."""
        if value.text == target:
            return value
        self.add(target, value, comment, self.shape(value.axes))
        return value.named(target)

    def shape(self, axes: tuple[str, ...]) -> str:
        """[BT, BK] of a value's axes; '' for a scalar."""
        return f"[{', '.join(self.block(a) for a in axes)}]" if axes else ""

    def block(self, axis: str) -> str:
        """The width of a tile along an axis."""
        return f"{self.blocks[self.paired]} // 2" if axis == HALF else self.blocks[axis]

    def _number_pairs(self) -> None:
        """A line for the indices of pairs, where none stands yet: all pairs lie in one block."""
        site: Site | None = self
        while site is not None:
            if any(line.target == f"o_{HALF}" for line in site.lines):
                return
            site = site.outer
        self.sums.add(self.paired)
        self.add(f"o_{HALF}", f"tl.arange(0, {self.block(HALF)})")

    def load(self, name: str, axis: str, target: str, is_raw: bool = False) -> Text:
        """A line that loads an argument, widened to float32 unless `is_raw`."""
        symbol = self.tokens.symbols.get(name) or next(s for s in self.tokens.arguments if s.name == name)
        self._top().arguments[name] = None
        widen = "" if is_raw else ".to(tl.float32)"
        own = {"h": "i_h", "g": "i_g", "": ""}[level(symbol.per)]
        count = {"h": "H", "g": "G", "": ""}[level(symbol.per)]
        width = size_text(symbol.type.rows).text if axis else ""
        if self.tokens.folded is not None and name in self.tokens.folded.names:
            return self._load_row(symbol, axis, target, own, count, width, widen)
        if axis == HALF:
            self._number_pairs()
        elif axis:
            self.check_width(name, symbol.type.rows)
        if symbol.kind == "input":
            row = f"row * {count} + {own}" if own else "row"
            if axis:
                text = f"_tile({pointer(name)}, {row}, {width}, {self.block(axis)}, o_{axis}, m_t){widen}"
            else:
                text = f"tl.load({pointer(name)} + {row}, mask=m_t, other=0.0){widen}"
            axes = (ROW, axis) if axis else (ROW,)
        else:
            head = f" + {own}" if own else ""
            if axis:
                head = f" + {own} * {width}" if own else ""
                mask = f"o_{axis} < {width}" if axis == HALF else f"m_{axis}"
                text = f"tl.load({pointer(name)}{head} + o_{axis}, mask={mask}, other=0.0){widen}"
            else:
                text = f"tl.load({pointer(name)}{head}){widen}"
            axes = (axis,) if axis else ()
        self.add(target, text, "", self.shape(axes))
        return loaded(target, axes)

    def check_width(self, name: str, size: Dim) -> None:
        """Raise UnsupportedOperand for a column of a size that no tile is made for: it would be cut off where another ends."""
        if self.axis_of and size not in self.axis_of:
            raise UnsupportedOperand(f"`{name}`, which is as wide as neither keys nor values")

    def _load_row(self, symbol, axis: str, target: str, own: str, count: str, width: str, widen: str) -> Text:
        """The line for an argument that has a value for every row of a token."""
        rows = self.tokens.folded.count
        if not axis or axis == HALF:
            raise UnsupportedOperand("a number for every row, or angles")
        if symbol.kind == "input":
            place = f"row * {count} + {own}" if own else "row"
            text = f"_tile({pointer(symbol.name)}, ({place}) * {rows} + o_r, {width}, {self.block(axis)}, o_{axis}, m_t){widen}"
            value = loaded(target, (ROW, axis))
        else:
            place = f"({own} * {rows} + o_r)" if own else "o_r"
            where = f"{pointer(symbol.name)} + {place}[:, None] * {width} + o_{axis}[None, :]"
            # the same for every tile of tokens: rows behind the last are no matter of the mask
            inside = f"(o_r < {rows})[:, None] & m_{axis}[None, :]" if self.tokens.folded.is_padded else f"m_{axis}[None, :]"
            text = f"tl.load({where}, mask={inside}, other=0.0){widen}"
            value = Text(target, ATOM, (ROW, axis), {ROW: None, axis: 0.0})
        self.add(target, text, "", self.shape((ROW, axis)))
        return value

    def _make(self, name: str, axis: str) -> Text | None:
        tokens = self.tokens
        if name == FIRST:
            self.add("b_first", "tl.where(o_r == 0, 1.0, 0.0)", "", self.shape((ROW,)))
            return Text("b_first", ATOM, (ROW,), {ROW: None})
        if name in tokens.definitions:
            printed = self.text(tokens.definitions[name], axis or KEY)
            symbol = tokens.symbols.get(name)
            meaning = expr_text(symbol.definition if symbol is not None and symbol.definition is not None else tokens.definitions[name])
            return self.named(self.target(name, axis), printed, f"{name} = {meaning}")
        if any(s.name == name for s in tokens.arguments):
            return self.load(name, axis, self.target(name, axis))
        if name == "position":
            self._top().uses_position = True
            self.add("b_position", "tl.load(position + row, mask=m_t, other=0).to(tl.float32)", "", self.shape((ROW,)))
            return loaded("b_position", (ROW,))
        if name in ("heads", "channels"):
            return Text("H", ATOM, is_number=True)
        if name in ("head", "channel"):
            # in a loop over heads the interpreter counts with Python's numbers
            return Text("tl.cast(i_h, tl.float32)", ATOM)
        if name in (n for n, _ in tokens.spec.constants):
            self._top().arguments[name] = None
            return Text(pointer(name), ATOM)
        return None

    def target(self, name: str, axis: str) -> str:
        """A value's name; one that stands on both axes is told apart by the second."""
        word = identifier(name) if name.endswith("[-1]") else identifier(name.replace("[", "_").rstrip("]"))
        # `k`, and what the kernels number: `k_1`, `q1`
        is_own = word.rstrip("0123456789").rstrip("_") in TILES
        target = f"b_{word}" + "_in" * is_own
        others = [text.text for key, text in self._all_made() if key[0] == name and key[1] != axis]
        return f"{target}_{axis}" if target in others else target

    def _written(self) -> list[CodeLine]:
        return [*(self.outer._written() if self.outer else []), *self.lines]

    def _all_made(self) -> list[tuple[tuple[str, str], Text]]:
        return [*(self.outer._all_made() if self.outer else []), *self.made.items()]

    def _top(self) -> Site:
        return self.outer._top() if self.outer else self

    def _has_time(self, name: str) -> bool:
        place = self.tokens.printer.places.get(name)
        if place is None:
            return name in ("position", FIRST)
        return place.has_time or (self.tokens.folded is not None and name in self.tokens.folded.names)


def invariant(lines: Iterable[CodeLine], varying: Iterable[str]) -> tuple[tuple[CodeLine, ...], tuple[CodeLine, ...]]:
    """The lines that do not depend on the names, and those that do."""
    before, behind, names = [], [], set(varying)
    for line in lines:
        depends = any(re.search(rf"\b{name}\b", line.text) for name in names)
        names |= {line.target} if depends else set()
        (behind if depends else before).append(line)
    return tuple(before), tuple(behind)


def masked(site: Site, value: Text, axes: tuple[str, ...]) -> Text:
    """The value, zero beyond the data on its rows and columns: what products and sums over rows need."""
    own = tuple(a for a in axes if a in value.axes)
    wanting = [a for a in own if value.past(a) != 0]
    if HALF in wanting:
        raise UnsupportedOperand("values of pairs that are not zero behind them")
    if not wanting:
        return value
    masks = []
    for axis in wanting:
        name = "m_t" if axis == ROW else f"m_{axis}"
        masks.append(name if len(value.axes) == 1 else f"{name}[{', '.join(':' if a == axis else 'None' for a in value.axes)}]")
    return Text(f"tl.where({' & '.join(masks)}, {value.text}, 0.0)", ATOM, value.axes, dict.fromkeys(value.axes, 0.0))


def widened(value: Text, axes: tuple[str, ...], shape: str) -> Text:
    """A value that lacks axes, spread over them."""
    if value.axes == axes:
        return value
    if value.axes:
        text = f"tl.broadcast_to({value.along(axes)}, {shape})"
    else:
        text = f"tl.full({shape}, {value.text}, tl.float32)"
    return replace(value, text=text, axes=axes, beyond={})
