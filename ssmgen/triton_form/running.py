"""What running.py of the emitted package says: sums of angles, running maxima and coefficients of the next token as Triton kernels.

The first two compose: of a sum, m -> m + x; of a maximum, m -> max(m + shift, value). So a program takes the tokens of one chunk and one
block of columns: what the chunk makes of the value that enters it, then, when that is known, the value of every token. What a token adds
is the spec's own expression, printed on the tiles, and gradients go through it to the arguments. Columns are the entries of a head, or,
for numbers, heads or channels side by side. `templates/triton/running.py.jinja` lays it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap

from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_text import helpers
from ..backends.triton_value import Text, loaded, size_text
from ..expressions import nodes
from ..kernel import KEY, ROW, Kernels
from ..recurrence import Ahead, Maximum, Turning
from ..reference.head_text import WIDTH, title_of
from ..spec import ONE, Delayed, Dim, Expr, MatMul, Ref, Type
from ..spec_text import expr_text
from ..torch_form.tokens import TokenWriter, level
from .fused_package import Output, Walked
from .gradients import MADE, made
from .heads_in_turn import hoisted
from .launch import as_type, over_heads, over_programs, sums_shape
from .operands import atom
from .site import KERNEL_WORDS, CodeLine, Site, masked, pointer, set_apart, widened
from .tokens import Gradients, RowSite, RowTokens, split_row

AXES = (ROW, KEY)


@dataclass(frozen=True)
class RunningValue:
    """One value. Names of arguments end in a comma; `columns`: how many a token has in all, in `blocks` of BK."""

    name: str
    rule: str
    title: str
    equation: tuple[str, ...]
    is_sum: bool
    is_maximum: bool
    is_ahead: bool  # the next token's
    is_lane: bool  # columns are heads or channels
    has_groups: bool  # a kernel asks for the group of its head
    arguments: tuple[str, ...]  # tensors that the operator is given, as op.py calls them
    read: tuple[str, ...]  # those of them that kernels read, and not their shapes alone
    numbers_given: tuple[str, ...]  # and numbers
    differentiable: tuple[str, ...]  # of the tensors
    pointers: str
    head: tuple[CodeLine, ...]
    lines: tuple[CodeLine, ...]
    takes_turns: bool  # a program takes some heads of a group in turn, which share lines of the forward kernels
    heads_in_turn: str
    shared: tuple[CodeLine, ...]
    own_head: tuple[CodeLine, ...]
    own_lines: tuple[CodeLine, ...]
    gradient_head: tuple[CodeLine, ...]
    gradient_lines: tuple[CodeLine, ...]
    gradient_stores: tuple[str, ...]
    gradient_outputs: tuple[Output, ...]
    gradient_partials: tuple[Output, ...]
    gradient_names: str
    results: tuple[str, ...]
    sizes: tuple[CodeLine, ...]
    numbers: tuple[str, ...]
    number_names: str
    given: str
    constants: str
    first: str
    heads: str
    groups: str
    width: str
    block: str  # columns of a block
    blocks: str
    columns: str
    place: str  # of a block's columns in a token's
    limit: str
    made_shape: str
    last_shape: str
    lanes: str  # how many heads or groups have a value of their own, as op.py says it; empty: all share one
    size: Dim


@dataclass(frozen=True)
class RunningPackage:
    """Everything running.py says."""

    title: str
    helpers: tuple[str, ...]
    reads_tiles: bool  # columns of tokens, as arguments lie
    has_sums: bool
    has_maxima: bool
    has_room: bool  # for what the chunks of a sequence leave each other
    is_reversed: bool
    values: tuple[RunningValue, ...]


def running_package(kernels: Kernels) -> RunningPackage | None:
    """The context of running.py; None where nothing runs, or a value has no text on tiles."""
    recurrence = kernels.plan.classified.recurrence
    parts = () if recurrence.pairs else (*recurrence.turnings, *recurrence.maxima, *recurrence.aheads)
    values = [value for part in parts if (value := _writer(kernels, part)) is not None]
    if not values:
        return None
    texts = [text for value in values for text in value.texts]
    return RunningPackage(
        title=title_of(recurrence.spec),
        helpers=helpers(texts),
        reads_tiles=any(re.search(r"\b_tile\(", text) for text in texts),
        has_sums=any(value.value.is_sum for value in values),
        has_maxima=any(value.value.is_maximum for value in values),
        has_room=any(value.value.is_sum or value.value.is_maximum for value in values),
        is_reversed=kernels.plan.is_reversed,
        values=tuple(value.value for value in values),
    )


def _writer(kernels: Kernels, part: Turning | Maximum | Ahead) -> _Writer | None:
    try:
        return _Writer(kernels, part)
    except UnsupportedOperand:
        return None


class _LaneSite(RowSite):
    """Numbers of heads or channels, which lie side by side along the columns."""

    def load(self, name: str, axis: str, target: str, is_raw: bool = False) -> Text:
        symbol = self.tokens.symbols.get(name) or next(s for s in self.tokens.arguments if s.name == name)
        if axis or not symbol.type.is_scalar:
            raise UnsupportedOperand(f"`{name}`, which is no number, in a running number")
        self._top().arguments[name] = None
        own = {"h": "o_n", "g": "(o_n // (H // G))", "": ""}[level(symbol.per)]
        count = {"h": "H", "g": "G", "": ""}[level(symbol.per)]
        where, has_time = pointer(name), symbol.kind == "input"
        if own and has_time:
            text = f"tl.load({where} + row[:, None] * {count} + {own}[None, :], mask=m_t[:, None] & m_n[None, :], other=0.0)"
        elif own:
            text = f"tl.load({where} + {own}, mask=m_n, other=0.0)"
        else:
            text = f"tl.load({where} + row, mask=m_t, other=0.0)" if has_time else f"tl.load({where})"
        axes = (*([ROW] if has_time else []), *([KEY] if own else []))
        self.add(target, f"{text}.to(tl.float32)", "", self.shape(axes))
        return loaded(target, axes)

    def _make(self, name: str, axis: str) -> Text | None:
        if name in ("head", "channel"):
            return Text("o_n.to(tl.float32)", ATOM, (KEY,))
        return super()._make(name, axis)


class _Writer:
    def __init__(self, kernels: Kernels, part: Turning | Maximum | Ahead):
        self.plan, self.part = kernels.plan, part
        self.tokens = TokenWriter(self.plan.classified)
        self.names = RowTokens(self.tokens, None)
        self.texts: list[str] = []
        self.is_sum = isinstance(part, Turning)
        self.is_maximum = isinstance(part, Maximum)
        name = part.after if self.is_maximum else part.name
        if self.is_maximum:
            self.type, self.parts = part.value.type, {"s": part.shift, "v": part.value}
        elif self.is_sum:
            self.type, self.parts = part.step.type, {"x": part.step}
        else:
            self.type, self.parts = Type(), {"x": part.coefficient}
        self.level = self.tokens.printer.places[name].level
        self.is_lane = self.type.is_scalar
        if self.is_lane and self.level != "h":
            raise UnsupportedOperand("a running number that is not of every head")
        spec = self.plan.classified.recurrence.spec
        if {identifier(n) for n, _ in (*spec.dims, *spec.counts)} & KERNEL_WORDS:
            raise UnsupportedOperand("a size with the name of a kernel's own")
        self.parts = {letter: None if expr is None else self.names.named(expr) for letter, expr in self.parts.items()}
        for expr in self.parts.values():
            self._check(expr)
        self.W = "1" if self.is_lane else atom(size_text(self.type.rows).text)
        self.value = self._value()

    def _check(self, expr: Expr | None, seen: tuple[str, ...] = ()) -> None:
        """All columns are as wide as the value, so that one axis holds them."""
        for node in nodes(expr) if expr is not None else ():
            sizes = [size for size in (node.type.rows, node.type.cols) if size != ONE]
            if sizes not in ([], [self.type.rows]) or (isinstance(node, MatMul) and not node.type.is_scalar):
                raise UnsupportedOperand("columns of another width in a running value")
            if isinstance(node, Delayed):
                raise UnsupportedOperand("a running value made of the token before")
            if not isinstance(node, Ref) or node.name in seen:
                continue
            if node.name in self.tokens.definitions:
                self._check(self.tokens.definitions[node.name], (*seen, node.name))
            elif node.name in self.tokens.symbols and split_row(self.tokens, node.name)[0] is None:
                if all(s.name != node.name for s in self.tokens.given):
                    raise UnsupportedOperand(f"`{node.name}`, which runs itself")

    # --- kernels ---

    def _site(self) -> tuple[Site, Site]:
        kind = _LaneSite if self.is_lane else RowSite
        axis_of = {} if self.is_lane else {self.type.rows: KEY}
        head = kind(self.tokens, {KEY: "BK"}, KEY, axis_of=axis_of)
        return head, kind(self.tokens, {ROW: "BT"}, ROW, head)

    def _printed(self, row: Site, letter: str) -> None:
        """The line of what a token adds."""
        expr = self.parts[letter]
        shape = "(BT, BK)"
        if expr is None:
            row.add(f"b_{letter}", f"tl.zeros({shape}, tl.float32)", "", "[BT, BK]")
            return
        value = widened(row.text(expr, KEY), AXES, shape)
        row.add(f"b_{letter}", value.text, "", "[BT, BK]")

    def _forward(self) -> tuple[Site, Site]:
        head, row = self._site()
        for letter in self.parts:
            self._printed(row, letter)
        self._remember(head, row)
        return head, row

    def _gradient(self) -> tuple[Site, Site, list[tuple], tuple[str, ...]]:
        """The gradients of the arguments from b_do, or from b_dg and b_dv: what reaches what a token adds."""
        head, row = self._site()
        gradients = Gradients(self.names, row.axis_of)
        for letter, expr in self.parts.items():
            if expr is not None:
                axis = "" if self.is_lane else KEY
                row.given[MADE + f"d{letter}", axis] = loaded({"x": "b_do", "s": "b_dg", "v": "b_dv"}[letter], AXES)
                gradients.spread(axis, expr, made(f"d{letter}", self.type))
        found, stores = [], []
        for stored, value in gradients.lines(row):
            symbol = next(s for s in self.tokens.arguments if s.name == stored.name)
            found.append((symbol, stored.buffer))
            stores.append(self._stored(row, stored, symbol, value))
        if not found:
            raise UnsupportedOperand("what no argument changes")
        self._remember(head, row)
        self.texts += stores
        return head, row, found, tuple(stores)

    def _stored(self, row: Site, stored, symbol, value: Text) -> str:
        """The store of an argument's gradient: a column or a number of every head."""
        counts = [size for size in (symbol.type.rows, symbol.type.cols) if size != ONE] if not symbol.type.is_scalar else []
        whole = "".join(f" * {atom(size_text(size).text)}" for size in counts)
        shift = f"{stored.row - 1} * {self.W if stored.axis else '1'}" if stored.row > 1 else ""
        has_columns = self.is_lane or bool(stored.axis)
        axes = AXES if has_columns else (ROW,)
        value = widened(value, axes, "(BT, BK)" if has_columns else "(BT,)")
        columns = " + ".join(part for part in (shift, "o_n" if has_columns else "") if part)
        if symbol.kind == "param":
            at = "slot * H" if self.is_lane else f"(slot * H + i_h){whole}" if whole else "i_h * tl.num_programs(0) + slot"
            total = f"tl.sum({masked(row, value, axes).text}, 0)"
            where = f"{stored.buffer} + {at}" + (f" + {columns}" if columns else "")
            return f"tl.store({where}, {total}{', mask=m_n' if has_columns else ''})"
        if not has_columns:
            where = f"{stored.buffer} + (row * H + i_h){whole}" + (f" + {columns}" if columns else "")
            return f"tl.store({where}, {value.text}, mask=m_t)"
        at = "row[:, None] * H" if self.is_lane else f"(row * H + i_h)[:, None]{whole}"
        columns = f"({columns})" if shift else columns
        return f"tl.store({stored.buffer} + {at} + {columns}[None, :], {value.text}, mask=m_t[:, None] & m_n[None, :])"

    def _remember(self, *sites: Site) -> None:
        for site in sites:
            self.texts += [line.text for line in site.lines]

    # --- the launcher ---

    def _value(self) -> RunningValue:
        head, row = self._forward()
        own, shared = hoisted(Walked("", tuple(head.lines), tuple(row.lines)))
        takes_turns = self.is_sum and self.level == "h" and any(line.text.startswith("_tile(") for line in shared)
        gradient_head, gradient_row, found, stores = self._gradient()
        used = [s for s in self.tokens.arguments if s.name in head.arguments | gradient_head.arguments]
        extra = ["position"] if head.uses_position or gradient_head.uses_position else []
        constants = [n for n, _ in self.plan.classified.recurrence.spec.constants if n in head.arguments | gradient_head.arguments]
        pointers = "".join(f"{n}, " for n in (*(pointer(s.name) for s in used), *extra, *map(pointer, constants)))
        sizes, names = self._sizes(" ".join([self.W, *self.texts]), used)
        heads = self._count("h" if self.is_lane else self.level)
        groups = self._count("g")
        texts = " ".join([heads, groups, *(line.text for line in sizes), f"{self._first()}."])
        inputs = [s for s in self.tokens.given if s in used or re.search(rf"\b{pointer(s.name)}\.", texts)]
        outputs, partials, results = self._outputs(found, inputs)
        name = identifier(self.part.state if self.is_maximum else self.part.name)
        shape = "".join(f", {n}" for n in [*(["H"] if self.level else []), *([] if self.is_lane else [self.W])])
        if self.is_sum:
            title, equation = f"The sum of what turns {name}", f"{name}' = {name} + {expr_text(self.part.step)}"
        elif not self.is_maximum:
            title, equation = f"The coefficient {name} of the next token", f"{name} = ({expr_text(self.part.coefficient)})[+1]"
        else:
            title = f"The running maximum {name}"
            moved = name if self.part.shift is None else f"{expr_text(self.part.shift)} + {name}"
            equation = f"{name}' = max({moved}, {expr_text(self.part.value)})"
        return RunningValue(
            name=name,
            rule="-" * (113 - len(name)),
            title=title,
            equation=tuple(wrap(equation, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)),
            is_sum=self.is_sum,
            is_maximum=self.is_maximum,
            is_ahead=not self.is_sum and not self.is_maximum,
            is_lane=self.is_lane,
            has_groups=any(re.search(r"\bi_g\b", text) for text in self.texts),
            arguments=tuple([*(identifier(s.name) for s in inputs), *extra]),
            read=tuple([*(identifier(s.name) for s in used), *extra]),
            numbers_given=tuple(map(identifier, constants)),
            differentiable=tuple(identifier(s.name) for s in inputs if any(other is s for other, _ in found)),
            pointers=pointers,
            head=tuple(head.lines),
            lines=tuple(row.lines),
            takes_turns=takes_turns,
            heads_in_turn=" HEADS: tl.constexpr," if takes_turns else "",
            shared=shared,
            own_head=own.head,
            own_lines=own.rows,
            gradient_head=tuple(gradient_head.lines),
            gradient_lines=tuple(gradient_row.lines),
            gradient_stores=stores,
            gradient_outputs=outputs,
            gradient_partials=partials,
            gradient_names="".join(f"{o.name}, " for o in (*outputs, *partials)),
            results=results,
            sizes=sizes,
            numbers=names,
            number_names="".join(f"{n}, " for n in names),
            given=", ".join([*(pointer(s.name) for s in inputs), *extra]),
            constants="".join(f", {pointer(n)}" for n in constants),
            first=self._first(),
            heads=heads,
            groups=groups,
            width=self.W,
            block="min(64, triton.next_power_of_2(H))" if self.is_lane else f"triton.next_power_of_2({self.W})",
            blocks="_count(H, BK)" if self.is_lane else "H",
            columns="H" if self.is_lane else f"(H * {self.W})",
            place="o_n" if self.is_lane else f"i_h * {self.W} + o_n",
            limit="H" if self.is_lane else self.W,
            made_shape=f"batch, T{shape}",
            last_shape=f"sequences{shape}",
            lanes=self._count(self.level, identifier) if self.level else "",
            size=self.type.rows,
        )

    def _first(self) -> str:
        """An input, whose shape tells the batch and the number of tokens."""
        return pointer(next(s for s in self.tokens.given if s.kind == "input").name)

    def _count(self, level_: str, word: Callable[[str], str] = pointer) -> str:
        """The text of how many heads or groups there are."""
        for wanted in ("h", "g") if level_ == "h" else (level_,):
            for symbol in sorted(self.tokens.given, key=lambda s: s.kind != "input"):
                if wanted and level(symbol.per) == wanted:
                    return f"{word(symbol.name)}.shape[{2 if symbol.kind == 'input' else 0}]"
        return "1"

    def _sizes(self, text: str, used: list) -> tuple[tuple[CodeLine, ...], tuple[str, ...]]:
        """The sizes that the kernels name, and how each is read off an argument."""
        lines = {line.target: line.text for line in self.tokens.sizes()}
        given = {identifier(s.name) for s in self.tokens.given}
        names = [name for name in lines if re.search(rf"\b{name}\b", text)]
        found = []
        for name in names:
            owner = re.search(r"(\w+)\.shape", lines[name])[1]
            if owner not in given:
                raise UnsupportedOperand("a size that no argument shows")
            found.append(CodeLine("", name, re.sub(rf"\b{owner}\.shape", f"{set_apart(owner)}.shape", lines[name])))
        return tuple(found), tuple(names)

    def _outputs(self, found: list[tuple], inputs: list) -> tuple[tuple[Output, ...], tuple[Output, ...], tuple[str, ...]]:
        """What the launcher allocates for gradients, and the gradient of every argument that has one."""
        outputs, partials, results = {}, {}, []
        for symbol in inputs:
            name, own = pointer(symbol.name), dict.fromkeys(buffer for other, buffer in found if other is symbol)
            if not own:
                continue
            place = level(symbol.per)
            counts = [] if symbol.type.is_scalar else [size for size in (symbol.type.rows, symbol.type.cols) if size != ONE]
            width = "".join(f", {size_text(size).text}" for size in counts)
            is_own = place == self.level or (self.is_lane and place == "h")
            texts = []
            for buffer in own:
                if symbol.kind == "param":
                    is_row = self.is_lane or bool(width)  # a program leaves a row of numbers
                    partials[buffer] = Output(buffer, f"slots, H{width}" if is_row else sums_shape("slots", "H", ""))
                    total = f"{buffer}.sum(0)" if is_row else over_programs(buffer, "")
                    texts.append(total if is_own and place else over_heads(total, place, 0))
                else:
                    is_whole = is_own and bool(place)
                    allocation = (
                        f"torch.empty_like({name})" if is_whole else f"torch.empty(batch, T, H{width}, dtype={name}.dtype, device=device)"
                    )
                    outputs[buffer] = Output(buffer, allocation)
                    texts.append(buffer if is_whole else over_heads(buffer, place, 2))
            is_buffer = len(texts) == 1 and texts == [*own] and symbol.kind != "param"
            results.append(texts[0] if is_buffer else as_type(texts, f"{name}.dtype"))
        return tuple(outputs.values()), tuple(partials.values()), tuple(results)
