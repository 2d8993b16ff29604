"""A token's rows on tiles: what they read, erase and write, the readout, and what the gradients of all of these make of the arguments."""

from __future__ import annotations

import re
from dataclasses import replace

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_value import HALF, Text, loaded, size_text
from ..bounds import bounds_of
from ..differentiate import inner_of
from ..expressions import factors, key
from ..kernel import KEY, ROW, VALUE, Kernels
from ..logarithm import log_of
from ..plan import Row, Walk, widths
from ..recurrence import Recurrence
from ..spec import Dim, Expr, Ref
from ..torch_form.tokens import TokenWriter
from .fused_package import Walked
from .gradients import MADE, angle_sizes, made, paired_axis
from .heads_in_turn import HeadsInTurn
from .operands import atom
from .row_places import ZERO, Placed, placed_rows
from .row_readout import Cut, RowReadout
from .site import KERNEL_WORDS, Site
from .tokens import Gradients, RowSite, RowTokens, number_line, operand_line

FLOOR = 110
"""exp of less than minus this is 0 in float32: sums stay small, and with them their rounding."""


def _after_decay(walk: Walk, recurrence: Recurrence) -> tuple[Walk, bool]:
    """The walk with erase keys that read the state after their row's decay, where that is a factor of each; whether it is so. A row that
    does not decay reads the same state before and after."""
    rows = [_row_after_decay(row, recurrence) for row in walk.rows]
    if None in rows or not any(row.erase is not None and row.log_decay is not None for row in walk.rows):
        return walk, False
    return replace(walk, rows=tuple(rows)), True


def _row_after_decay(row: Row, recurrence: Recurrence) -> Row | None:
    """The row; None where its erase key must stand before its decay."""
    if row.erase is None or row.log_decay is None:
        return row
    for factor in factors(row.erase)[1]:
        log = log_of(factor, recurrence)
        if log is not None and key(log) == key(row.log_decay):
            rest = algebra.quotient(row.erase, factor)
            if rest is not None and rest.type == row.erase.type:
                return replace(row, erase=rest)
    return None


class RowOperands(RowReadout):
    def __init__(self, kernels: Kernels, number: int = 0, module: str = ""):
        """One walk, and its output; module: the file of a walk whose reads are made an output elsewhere."""
        self.plan, self.module, self.is_part = kernels.plan, module, bool(module)
        classified = self.plan.classified
        if len(kernels.walks) != 1 and not self.is_part:
            raise UnsupportedOperand("several walks")
        self.walk, self.erases_after = _after_decay(kernels.walks[number].walk, classified.recurrence)
        self.spec = classified.recurrence.spec
        self.tokens = TokenWriter(classified)
        if self.is_part:
            self.tokens.outputs = ()
        self.names = RowTokens(self.tokens, self.walk)
        if len(self.tokens.outputs) > 1:
            raise UnsupportedOperand("several outputs")
        values = [r for r in self.walk.readings if r.is_value]
        if values and (not self.is_part or any(r.query is None or r.query.type.is_scalar for r in values)):
            raise UnsupportedOperand("a query of the values")
        self.outputs = tuple(self.names.named(value) for _, value in self.tokens.outputs)
        if {identifier(n) for n, _ in (*self.spec.dims, *self.spec.counts)} & KERNEL_WORDS:
            raise UnsupportedOperand("a size with the name of a kernel's own")
        self.count, self.step = len(self.walk.rows), self.walk.size
        self.has_decay, self.is_wide, self.has_erase = self.walk.log_decay is not None, self.walk.is_wide, self.walk.has_erase
        key_size, value_size = widths(self.walk)
        self.K, self.V = atom(size_text(key_size).text), atom(size_text(value_size).text)
        vectors = {c.value.type.rows for c in self.walk.columns if c.value is not None and not c.value.type.is_scalar}
        if len(vectors) > 1:
            raise UnsupportedOperand("columns of several widths")
        self.value_size: Dim | None = next(iter(vectors), None)
        self.axis_of: dict[Dim, str] = {self.value_size: VALUE} if self.value_size is not None else {}
        if self.walk.key is not None and not self.walk.key.type.is_scalar:
            self.axis_of[self.walk.key.type.rows] = KEY
        # a value a pair, of what turns
        self.paired = paired_axis(self.tokens, self.walk)
        self.axis_of = dict.fromkeys(angle_sizes(self.tokens, self.walk), HALF) | self.axis_of
        self.texts: list[str] = []
        self.scale = self.walk.scale
        self.places = self._places()
        self.read_text = {}
        # tiles of tokens that alternate make the tile of all rows
        self.is_held = self.is_wide and self.count & (self.count - 1) == 0 and not values
        self.columns_of: dict[tuple[str, int], str] = {}
        """An operand's columns in registers, by its letter and a row's number in its token."""
        self.factors_of: dict[tuple[str, int], str] = {}
        """The numbers that multiply what is placed."""
        self.logs: dict[int, str] = {}
        """Log decays in base 2, by the number of the row that decays; '' where it does not."""

    # --- operands ---

    @property
    def joins_operands(self) -> bool:
        """Whether the kernel of pairs makes the operands: where these are numbers a row, of inputs that it reads as well."""
        letters = [f"q{r.name[1:]}" for r in self.walk.readings] + ["k", "v"] + ["e"] * self.has_erase
        is_read = bool(self.walk.readings) or self.has_erase
        is_plain = not (self.is_wide or self.walk.numbers or any(r.is_value for r in self.walk.readings))
        has_numbers = self.has_decay or any(map(self._factor, letters))
        return is_plain and is_read and has_numbers and all(n in self.places for n in letters)

    def _columns(self) -> list[tuple[int, str, str]]:
        """(index, axis, offset) of the walk's columns as they lie beside each other."""
        found, offset = [], []
        for index, column in enumerate(self.walk.columns):
            is_single = column.value is None or column.value.type.is_scalar
            found.append((index, "" if is_single else VALUE, " + ".join(offset) or "0"))
            offset.append("1" if is_single else self.P)
        return found

    @property
    def P(self) -> str:
        return atom(size_text(self.value_size).text) if self.value_size is not None else "1"

    def _places(self) -> dict[str, Placed]:
        """Operands that are read where an input lies, by their letters."""
        rows, found = self.walk.rows, {}
        found |= {f"q{r.name[1:]}": self._placed_rows([r.query], self.K) for r in self.walk.readings if not r.is_value}
        found["k"] = self._placed_rows([self.key_of(row) for row in rows], self.K)
        if len(self.walk.columns) == 1:
            found["v"] = self._placed_rows([_scaled(row, 0) if row.is_written else ZERO for row in rows], self.V)
        # an erase key that is a multiple of the key is read with it
        erase = self._placed_rows([ZERO if row.erase is None else row.erase for row in rows], self.K)
        if erase is not None and found["k"] is not None:
            found["e"] = erase.beside(found["k"])
        return {letter: place for letter, place in found.items() if place is not None}

    def lone(self, letter: str) -> int | None:
        """The row of a token at which alone an operand stands: as it fades it then lies token by token, and so do the pairs of a query.
        None where it stands at every row, or at several; and where rows are not held."""
        if not self.is_held or self.count == 1 or letter == "k":
            return None
        if letter == "e":
            rows = [number for number, row in enumerate(self.walk.rows) if row.erase is not None]
            return rows[0] if len(rows) == 1 else None
        reading = next(r for r in self.walk.readings if f"q{r.name[1:]}" == letter)
        return self.count - 1 if reading.is_inclusive else 0

    @staticmethod
    def key_of(row: Row) -> Expr | None | object:
        return row.key if row.is_written or row.erase is not None else ZERO

    def _placed_rows(self, exprs: list, width: str) -> Placed | None:
        return placed_rows([ZERO if e is ZERO else self._named(e) for e in exprs], width, self.tokens)

    @property
    def token_tile(self) -> str:
        """The size of a tile that holds the tokens of a chunk: theirs, or the next power of two."""
        return "TT" if self.fills_tiles else "CT"

    @property
    def fills_tiles(self) -> bool:
        """A chunk has as many tokens as its tile has rows for, whatever their number is. Halves of chunks, where every key fades at its
        own rate, want a number with many factors."""
        return not self.is_wide and self.count & (self.count - 1) != 0

    def _row_at(self, number: int) -> str:
        """Where row `number` of a token lies among those of all chunks."""
        return f"(i_s * BC + o_i * {self.count} + {number})" if self.count > 1 else "(i_s * BC + o_i)"

    def _number_store(self, target: str, value: str) -> str:
        return f"tl.store({target}, {value}{', mask=o_i < CT' if self.fills_tiles else ''})"

    def _factor(self, letter: str) -> str:
        """The buffer of the numbers that a placed operand is multiplied by; '' where there are none."""
        place = self.places.get(letter)
        return f"factor_{letter}" if place is not None and (any(n is not None for n in place.numbers) or self._constant(letter)) else ""

    def _constant(self, letter: str) -> str:
        return " * scale" if self.scale is not None and letter.startswith("q") else ""

    def _operands(self) -> tuple[Walked, tuple[str, ...], tuple[str, ...]]:
        """The kernel that makes every row's operands, what it stores, and what it stores for backward alone."""
        head, site = self._site(self.token_tile)
        stores: list[str] = []
        kept = [] if self.is_held else stores
        where = "(i_s * CT + o_i)[:, None]"
        for letter, place in self.places.items():
            if self._factor(letter):
                target = stores if letter == "v" else kept
                target += self._factor_stores(letter, place, site)
        for r in self.walk.readings:
            letter = f"q{r.name[1:]}"
            if r.is_value:
                letter = f"asks{r.name[1:]}"
                name = operand_line(site, f"b_{letter}", self._named(r.query), VALUE, letter, " * scale" * (self.scale is not None))
                stores.append(f"_store(made_{letter}, row * H + i_h, {self.V}, o_p, m_t, {name})")
            elif letter not in self.places:
                name = operand_line(site, f"b_{letter}", self._named(r.query), KEY, letter, self._constant(letter))
                kept.append(self._stored(f"made_{letter}", where, self.K, "o_n", name, "m_n"))
                self.columns_of |= {(letter, number): name for number in range(self.count)}
        sums = ""
        for number, row in enumerate(self.walk.rows):
            tail = f"_{number + 1}" if self.count > 1 else ""
            at = self._row_at(number)
            if "k" not in self.places:
                kept.append(self._row_store("k", tail, at, self.key_of(row), site, number))
            if self.has_erase and "e" not in self.places:
                kept.append(self._row_store("e", tail, at, ZERO if row.erase is None else row.erase, site, number))
            if "v" not in self.places:
                stores += self._value_stores(row, tail, at, site)
            if self.has_decay and number % self.step == 0:
                sums = self._log_decay(row, tail, site)
                if sums and self.count > 1 and not self.is_held:
                    stores.append(f"b_f{tail} = {sums}")
                self.logs[number] = sums
        if self.has_decay and not self.is_held:
            stores += self._sum_stores()
        stores += self._number_stores(site)
        if self.is_wide or self.joins_operands:
            # the same program reads placed keys and queries for what rows read of each other
            head.arguments |= {place.symbol.name: None for letter, place in self.places.items() if letter != "v"}
        return self._walked(head, site), tuple(stores), tuple(kept) if self.is_held else ()

    def _factor_stores(self, letter: str, place: Placed, site: Site) -> list[str]:
        """The numbers that a placed operand is multiplied by: one a row, or a token."""
        is_single, stores = len(place.numbers) == 1, []
        for row, number in enumerate(place.numbers):
            tail = "" if is_single else f"_{row + 1}"
            at = f"made_factor_{letter} + " + ("i_s * CT + o_i" if is_single else self._row_at(row)[1:-1])
            number = algebra.const(1) if number is None else self._named(number)
            name = number_line(site, f"b_factor_{letter}{tail}", number, f"{letter}{tail} / {place.symbol.name}")
            stores.append(self._number_store(at, f"{name}{self._constant(letter)}"))
            self.factors_of |= {(letter, at): f"{name}{self._constant(letter)}" for at in (range(self.count) if is_single else [row])}
        return stores

    def _number_stores(self, site: Site) -> list[str]:
        """Stores of what else moves the states: nothing."""
        return []

    def _named(self, expr: Expr | None) -> Expr | None:
        return None if expr is None else self.names.named(expr)

    def _row_store(self, letter: str, tail: str, at: str, expr: Expr | None | object, site: Site, number: int) -> str:
        if expr is ZERO:
            name = f"tl.zeros(({self.token_tile}, BK), tl.float32)"
        else:
            name = operand_line(site, f"b_{letter}{tail}", self._named(expr), KEY, letter + tail)
            self.columns_of[letter, number] = name
        return self._stored(f"made_{letter}", f"{at}[:, None]", self.K, "o_n", name, "m_n")

    def _value_stores(self, row: Row, tail: str, at: str, site: Site) -> list[str]:
        stores = []
        for index, axis, offset in self._columns():
            target = f"b_v{tail}" + (f"_c{index}" if len(self.walk.columns) > 1 else "")
            shift = f"{offset} + " if offset != "0" else ""
            if row.is_written:
                scaled = _scaled(row, index)
                if axis:
                    name = operand_line(site, target, self._named(scaled), VALUE, f"v{tail}")
                elif scaled is None:
                    name = "tl.where(m_t, 1.0, 0.0)"
                else:
                    name = number_line(site, target, self._named(scaled), f"v{tail}")
            else:
                name = f"tl.zeros(({self.token_tile}, BV), tl.float32)" if axis else f"tl.zeros(({self.token_tile},), tl.float32)"
            if axis:
                stores.append(self._stored("made_v", f"{at}[:, None]", self.V, f"{shift}o_p", name, "m_p"))
            else:
                stores.append(self._number_store(f"made_v + {at} * {self.V} + {offset}", f"{name}.to(made_v.dtype.element_ty)"))
        return stores

    def _stored(self, buffer: str, at: str, width: str, columns: str, value: str, mask: str) -> str:
        inside = "(o_i < CT)[:, None] & " if self.fills_tiles else ""
        target = f"{buffer} + {at} * {width} + ({columns})[None, :]"
        return f"tl.store({target}, {value}.to({buffer}.dtype.element_ty), mask={inside}{mask}[None, :])"

    def _log_decay(self, row: Row, tail: str, site: Site) -> str:
        """A line for a row's log decay in base 2; its name, '' where the row does not decay."""
        if row.log_decay is None:
            return ""
        expr = self._named(row.log_decay)
        name = (
            operand_line(site, f"b_g{tail}", expr, KEY, f"g{tail}") if self.is_wide else number_line(site, f"b_g{tail}", expr, f"g{tail}")
        )
        is_bounded = bounds_of(self.spec).of(row.log_decay).low > -FLOOR
        return f"{name} * LOG2E" if is_bounded else f"tl.maximum({name}, -{FLOOR}) * LOG2E"

    def _sum_stores(self) -> list[str]:
        """Running sums over the rows of a chunk, every token's rows side by side."""
        logs = [(n, f"b_f_{n + 1}") for n, row in enumerate(self.walk.rows) if n % self.step == 0 and row.log_decay is not None]
        if self.count == 1:
            site = RowSite(self.tokens, {ROW: "CT"}, ROW, axis_of=self.axis_of)
            return [self._sum_store("0", self._running(self._log_decay_text(site)))]
        total = " + ".join(name for _, name in logs)
        lines = [f"b_f = {total}", f"b_a = {self._running('b_f')} - b_f"]
        for number in range(self.count):
            lines += [f"b_a += {name}" for n, name in logs if n == number]
            lines.append(self._sum_store(str(number), "b_a"))
        return lines

    def _running(self, text: str) -> str:
        """The sum of this over all tokens of a chunk up to a row's."""
        return f"_running({text}, CT, BK, RUN)[0]" if self.is_wide else f"tl.cumsum({text}, 0)"

    def _log_decay_text(self, site: Site) -> str:
        row = self.walk.rows[0]
        is_bounded = bounds_of(self.spec).of(row.log_decay).low > -FLOOR
        return "b_g * LOG2E" if is_bounded else f"tl.maximum(b_g, -{FLOOR}) * LOG2E"

    def _sum_store(self, number: str, value: str) -> str:
        at = self._row_at(int(number))
        if self.is_wide:
            return f"tl.store(made_sums + {at}[:, None] * {self.K} + o_n[None, :], {value}, mask=m_n[None, :])"
        return self._number_store(f"made_sums + {at}", value)

    # --- reads ---

    @property
    def is_read_whole(self) -> bool:
        """The output is what the walk reads, as it is."""
        cuts = self.walk.slices
        return (
            not self.is_part
            and len(self.walk.columns) == 1
            and len(self.walk.readings) == 1
            and len(cuts) == 1
            and isinstance(self.output, Ref)
            and self.output.name == cuts[0].read.name
            and self._columns()[0][1] == VALUE
        )

    def _read_name(self, suffix: str) -> str:
        return "y" if self.is_read_whole else f"reads{suffix}"

    def _read_gradient_name(self, suffix: str) -> str:
        return "dy" if self.is_read_whole else f"d_reads{suffix}"

    def read_columns(self, reading: int) -> tuple[str, list[tuple[Dim | None, str]]]:
        """(how wide a reading is, the size (None: a number) and the offset of each of its columns)."""
        if self.walk.readings[reading].is_value:
            return self.K, [(self.walk.key.type.rows, "0")]
        return self.V, [(self.value_size if axis else None, offset) for _, axis, offset in self._columns()]

    def read_sizes(self) -> list[Dim]:
        """The sizes of the columns that readings have."""
        found = [size for number in range(len(self.walk.readings)) for size, _ in self.read_columns(number)[1]]
        return [size for size in dict.fromkeys(found) if size is not None]

    def _cut(self, suffix: str, index: int, read: str) -> Cut:
        _, axis, offset = self._columns()[index]
        return Cut(read, self._read_name(suffix), self._read_gradient_name(suffix), axis, offset, self.V)

    def _cuts(self) -> list[Cut]:
        return [self._cut(s.reading[1:], s.column, s.read.name) for s in self.walk.slices]

    def _unread(self) -> list[Cut]:
        used = {(s.reading, s.column) for s in self.walk.slices}
        columns = range(len(self.walk.columns))
        return [self._cut(r.name[1:], index, "") for r in self.walk.readings for index in columns if (r.name, index) not in used]

    @property
    def output_width(self) -> str:
        size = self.output.type.cols if self.output.type.is_row else self.output.type.rows
        if self.axis_of.get(size) not in (VALUE, None) and size != self.value_size:
            raise UnsupportedOperand("an output that does not lie along the values")
        return atom(size_text(size).text)

    # --- gradients of arguments ---

    def _gradient(self) -> tuple[Walked, tuple[str, ...], list, set[str], list[str]]:
        head, site = self._site("BT")
        gradients = Gradients(self.names, self.axis_of)
        site.loads |= {} if self.is_part else self._read_loads() | self._dy_load()
        buffers: list[str] = []

        def load(name: str, buffer: str, text: str, axes: tuple[str, ...]) -> None:
            def loader(site: Site) -> Text:
                if buffer not in buffers:
                    buffers.append(buffer)
                site.add(f"b_{name}", text, "", site.shape(axes))
                return loaded(f"b_{name}", axes)

            site.loads[MADE + name, axes[1] if len(axes) > 1 else ""] = loader

        def column(buffer: str, at: str, width: str, offset: str, axis: str) -> str:
            mask = f"m_t[:, None] & m_{axis}[None, :]"
            return f"tl.load({buffer} + {at}[:, None] * {width} + ({offset}o_{axis})[None, :], mask={mask}, other=0.0).to(tl.float32)"

        reads = {s.read.name for s in self.walk.slices}
        for name, expr in () if self.is_part else self._output_cotangents():
            if name not in reads:
                gradients.push("" if expr.type.is_scalar else self.axis_of_output(expr), name, expr)
        for r in self.walk.readings:
            if r.is_value:
                name = f"grad_asks{r.name[1:]}"
                text = f"_tile({name}, row * H + i_h, {self.V}, BV, o_p, m_t).to(tl.float32)" + (
                    " * scale" if self.scale is not None else ""
                )
                load(name, name, text, (ROW, VALUE))
                gradients.spread(VALUE, r.query, made(name, r.query.type))
            elif r.query is not None:
                name = f"grad_q{r.name[1:]}"
                text = column(name, "(i_s * CT + o_i)", self.K, "", KEY) + (" * scale" if self.scale is not None else "")
                self._vector(gradients, site, load, name, name, text, r.query)
        for number, row in enumerate(self.walk.rows):
            tail = f"_{number + 1}" if self.count > 1 else ""
            at = self._row_at(number)
            if row.key is not None and (row.is_written or row.erase is not None):
                self._vector(gradients, site, load, f"grad_k{tail}", "grad_k", column("grad_k", at, self.K, "", KEY), row.key)
            if row.erase is not None:
                self._vector(gradients, site, load, f"grad_e{tail}", "grad_e", column("grad_e", at, self.K, "", KEY), row.erase)
            if row.is_written:
                self._value_gradient(gradients, load, row, tail, at, column)
            if row.log_decay is not None:
                if self.is_wide:
                    text = column("grad_g", at, self.K, "", KEY)
                    self._vector(gradients, site, load, f"grad_g{tail}", "grad_g", text, row.log_decay)
                else:
                    load(f"grad_g{tail}", "grad_g", f"_shares(grad_g, {at}, slots * H * BC, m_t, BLOCKS)", (ROW,))
                    gradients.spread("", row.log_decay, made(f"grad_g{tail}"))
        self._number_gradients(gradients, load)
        turns = HeadsInTurn(self.tokens, site, RowSite(self.tokens, {ROW: "BT"}, ROW, head), self._is_of_group)
        stores, outputs = self._argument_stores(turns, gradients.lines(site, turns.place_of))
        walked = self._walked(head, site, turns.after)
        needs_dy = any(re.search(r"\(dy\b", line.text) for line in walked.rows)
        used_reads = {c.buffer for c in self._cuts() if any(re.search(rf"\b{c.buffer} \+", line.text) for line in walked.rows)}
        order = [b for b in self._gradient_names() if b in buffers]
        self.turns, walked = self._in_turn(turns, replace(walked, rows=tuple(site.lines)))
        return walked, stores, outputs, {*(["dy"] if needs_dy else []), *used_reads}, order

    def _number_gradients(self, gradients: Gradients, load) -> None:
        """The gradients of what else moves the states: nothing."""

    def axis_of_output(self, expr: Expr) -> str:
        size = expr.type.cols if expr.type.is_row else expr.type.rows
        return self.axis_of.get(size, VALUE)

    def _gradient_names(self) -> list[str]:
        queries = [f"grad_{'asks' if r.is_value else 'q'}{r.name[1:]}" for r in self.walk.readings]
        return [*queries, "grad_k", "grad_v", *(["grad_e"] if self.has_erase else []), *(["grad_g"] if self.has_decay else [])]

    def _vector(self, gradients: Gradients, site: Site, load, name: str, buffer: str, text: str, expr: Expr) -> None:
        """The gradient of an operand along the keys; a scalar operand is one column."""
        if expr.type.is_scalar:
            load(name, buffer, f"tl.sum({text}, 1)", (ROW,))
        else:
            load(name, buffer, text, (ROW, KEY))
        gradients.spread(KEY, expr, made(name, expr.type))

    def _value_gradient(self, gradients: Gradients, load, row: Row, tail: str, at: str, column) -> None:
        share: Expr | None = None
        for index, axis, offset in self._columns():
            value = row.values[index]
            name = f"grad_v{tail}" + (f"_c{index}" if len(self.walk.columns) > 1 else "")
            if axis:
                load(name, "grad_v", column("grad_v", at, self.V, "" if offset == "0" else f"{offset} + ", VALUE), (ROW, VALUE))
            else:
                load(name, "grad_v", f"tl.load(grad_v + {at} * {self.V} + {offset}, mask=m_t, other=0.0).to(tl.float32)", (ROW,))
            piece = made(name) if value is None else made(name, value.type)
            if value is not None:
                gradients.spread(VALUE, value, piece if row.coefficient is None else algebra.mul(row.coefficient, piece))
            part = piece if value is None else inner_of(piece, value)
            share = part if share is None else algebra.add(share, part)
        if row.coefficient is not None:
            gradients.spread("", row.coefficient, share)


def _scaled(row: Row, column: int) -> Expr | None:
    """What a row writes to a column block (None: the constant 1)."""
    value = row.values[column]
    return value if row.coefficient is None else row.coefficient if value is None else algebra.mul(row.coefficient, value)
