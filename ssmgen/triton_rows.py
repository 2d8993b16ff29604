"""kernels -> what kernels.py says where a token's rows erase, where every key fades at its own rate, or where a token has several rows.

The walk knows operands alone: q, k, v, e and the sums of log decays, laid out chunk by chunk. Erasing is one more read: its
key reads what is stored like a query, and what the rows of a chunk write is given a gradient through it like an output.
Operands come from `triton_tokens`; `templates/triton/rows.py.jinja` lays everything out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import algebra
from .backends.torch_pointwise import ATOM, UnsupportedOperand
from .backends.torch_text import identifier
from .backends.triton_text import helpers
from .backends.triton_value import Text, loaded, size_text
from .bounds import bounds_of
from .column_text import pack, unpack
from .differentiate import cotangents, inner_of
from .head_text import equations, title_of
from .kernel import KEY, ROW, VALUE, Kernels
from .plan import Row
from .schedule import widths
from .spec import Dim, Expr, Ref
from .tokens import TokenWriter, level
from .triton_gradients import MADE, made
from .triton_operands import added, atom
from .triton_package import Output, Walked
from .triton_site import KERNEL_WORDS, CodeLine, Site, masked, pointer
from .triton_tokens import Gradients, RowSite, RowTokens, number_line, operand_line

FLOOR = 110
"""exp of less than minus this is 0 in float32: sums stay small, and with them their rounding."""


@dataclass(frozen=True)
class Buffer:
    """A tensor that the launcher allocates."""

    name: str
    allocation: str


@dataclass(frozen=True)
class Faded:
    """A query as the walk reads it; `at_tokens`: laid out token by token, not row by row."""

    name: str
    place: int
    at_tokens: bool


@dataclass(frozen=True)
class Reader:
    """Something that reads the state and what earlier rows of the chunk write: a query, or an erase key."""

    index: int
    name: str  # the buffer of its keys
    at_tokens: bool
    walked: Faded | None  # the same, faded up to its rows, where the walk reads that
    is_erase: bool
    is_inclusive: bool
    place: int  # the row of a token at which a query stands
    later: str  # the sum at which it stands
    sees: str  # which sources a row sees
    pairs: str  # what the walk reads: weights of sources, or the inverse
    made: str  # what the pairs make
    pair_gradient: str
    own: str  # the gradient of a row's read of itself, where it is kept apart
    faded: str
    faded_pointer: str
    when: str
    fade: str
    faded_gradient: str
    read: str
    read_gradient: str
    gradient: str
    moved: str
    pair_math: str
    gradient_math: str
    math: str


@dataclass(frozen=True)
class RowsPackage:
    """Everything kernels.py says in this form."""

    title: str
    equations: tuple[str, ...]
    legend: tuple[str, ...]
    helpers: tuple[str, ...]
    count: int
    count_padded: int
    count_text: str
    step: int
    block: str
    far: str
    span_parameters: str
    span_arguments: str
    span_values: str
    spans: str
    all_sums: str
    is_falling: bool
    sums_pointer: str
    given_pointer: str
    pair_gradient_names: tuple[str, ...]
    made_written: str
    made_sums: str
    is_wide: bool
    has_decay: bool
    has_erase: bool
    has_groups: bool
    has_readout: bool
    stores_reads: bool
    uses_position: bool
    reads_before: bool
    moves_before: bool
    is_first: str
    inverse_precision: str
    row: str
    numbers: str
    number_arguments: str
    sizes: tuple[CodeLine, ...]
    key_width: str
    value_width: str
    K_value: str
    V_value: str
    first: str
    first_state: str
    groups: str
    vectors: str
    argument_list: str
    states: str
    state_gradient_list: str
    constants: str
    pack: str
    unpack: str
    unpack_arguments: str
    unpack_call: str
    unpack_gradient_call: str
    state_offsets: str
    operands: Walked
    operand_names: tuple[str, ...]
    operand_stores: tuple[str, ...]
    scale_pointer: str
    scale_value: str
    prepared: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    made_operands: str
    made_pairs: str
    made_walk: str
    made_gradient: str
    pair_inputs: tuple[str, ...]
    pair_outputs: tuple[str, ...]
    pair_title: str
    readers: tuple[Reader, ...]
    queries: tuple[Reader, ...]
    walk_inputs: tuple[str, ...]
    walked_key: str
    walked_erase: str
    read_names: tuple[str, ...]
    own_reads: tuple[str, ...]
    read_list: str
    kept_names: tuple[str, ...]
    read_gradient_names: tuple[str, ...]
    forward_title: str
    write_math: str
    carry_math: str
    written_gradient_math: str
    given_gradient_math: str
    erase_fade: str
    key_fade: str
    carried_write: str
    erased_gradient: str
    state_fade: str
    state_fade_assigned: str
    written: str
    written_output: str
    gradient_inputs: tuple[str, ...]
    gradient_outputs: tuple[str, ...]
    gradient_buffers: tuple[Buffer, ...]
    readout: Walked
    readout_store: str
    readout_gradient: Walked
    readout_gradient_stores: tuple[str, ...]
    output_shape: str
    output_like: str
    gradient: Walked
    gradient_stores: tuple[str, ...]
    token_inputs: tuple[str, ...]
    token_outputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    partials: tuple[Output, ...]
    results: tuple[str, ...]
    pair_block: str
    gradient_block: str
    gradient_warps: str
    operand_warps: str


def rows_package(kernels: Kernels) -> RowsPackage | None:
    """The context of kernels.py in the form of rows; None where an operand does not fit on tiles, or several walks run."""
    try:
        return _Writer(kernels).package()
    except UnsupportedOperand:
        return None


class _Writer:
    def __init__(self, kernels: Kernels):
        self.plan = kernels.plan
        classified = self.plan.classified
        if len(kernels.walks) != 1:
            raise UnsupportedOperand("several walks")
        self.walk = kernels.walks[0].walk
        self.spec = classified.recurrence.spec
        self.tokens = TokenWriter(classified)
        self.names = RowTokens(self.tokens, self.walk)
        ((_, self.output),) = self.tokens.outputs
        self.output = self.names.named(self.output)
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
        self.texts: list[str] = []
        self.scale = self.walk.scale
        self.read_text = {}

    # --- sites ---

    def _site(self, rows: str) -> tuple[RowSite, RowSite]:
        head = RowSite(self.tokens, {KEY: "BK", VALUE: "BV"}, axis_of=self.axis_of)
        return head, RowSite(self.tokens, {ROW: rows}, ROW, head)

    def _walked(self, *sites: Site) -> Walked:
        head = sites[0]
        for site in sites:
            self.texts += [line.text for line in site.lines]
        names = [pointer(s.name) for s in self.tokens.arguments if s.name in head.arguments]
        names += ["position"] if head.uses_position else []
        names += [pointer(n) for n, _ in self.spec.constants if n in head.arguments]
        return Walked("".join(f"{n}, " for n in names), tuple(head.lines), tuple(line for s in sites[1:] for line in s.lines))

    # --- operands ---

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

    def _operands(self) -> tuple[Walked, tuple[str, ...]]:
        """The kernel that makes every row's operands, and what it stores."""
        head, site = self._site("CT")
        stores: list[str] = []
        where = "(i_s * CT + o_i)[:, None]"
        for r in self.walk.readings:
            name = operand_line(site, f"b_q{r.name[1:]}", self._named(r.query), KEY, f"q{r.name[1:]}", " * scale" if self.scale is not None else "")
            stores.append(self._stored(f"made_q{r.name[1:]}", where, self.K, "o_n", name, "m_n"))
        sums = ""
        for number, row in enumerate(self.walk.rows):
            tail = f"_{number + 1}" if self.count > 1 else ""
            at = f"(i_s * BC + o_i * {self.count} + {number})" if self.count > 1 else "(i_s * BC + o_i)"
            stores.append(self._row_store("k", tail, at, row.key if row.is_written or row.erase is not None else _ZERO, site))
            if self.has_erase:
                stores.append(self._row_store("e", tail, at, _ZERO if row.erase is None else row.erase, site))
            stores += self._value_stores(row, tail, at, site)
            if self.has_decay and number % self.step == 0:
                sums = self._log_decay(row, tail, site)
                if sums and self.count > 1:
                    stores.append(f"b_f{tail} = {sums}")
        if self.has_decay:
            stores += self._sum_stores()
        return self._walked(head, site), tuple(stores)

    def _named(self, expr: Expr | None) -> Expr | None:
        return None if expr is None else self.names.named(expr)

    def _row_store(self, letter: str, tail: str, at: str, expr: Expr | None | object, site: Site) -> str:
        if expr is _ZERO:
            name = "tl.zeros((CT, BK), tl.float32)"
        else:
            name = operand_line(site, f"b_{letter}{tail}", self._named(expr), KEY, letter + tail)
        return self._stored(f"made_{letter}", f"{at}[:, None]", self.K, "o_n", name, "m_n")

    def _value_stores(self, row: Row, tail: str, at: str, site: Site) -> list[str]:
        stores = []
        for index, axis, offset in self._columns():
            value = row.values[index] if row.is_written else None
            target = f"b_v{tail}" + (f"_c{index}" if len(self.walk.columns) > 1 else "")
            shift = f"{offset} + " if offset != "0" else ""
            if row.is_written:
                scaled = value if row.coefficient is None else row.coefficient if value is None else algebra.mul(row.coefficient, value)
                if axis:
                    name = operand_line(site, target, self._named(scaled), VALUE, f"v{tail}")
                elif scaled is None:
                    name = "tl.where(m_t, 1.0, 0.0)"
                else:
                    name = number_line(site, target, self._named(scaled), f"v{tail}")
            else:
                name = "tl.zeros((CT, BV), tl.float32)" if axis else "tl.zeros((CT,), tl.float32)"
            if axis:
                stores.append(self._stored("made_v", f"{at}[:, None]", self.V, f"{shift}o_p", name, "m_p"))
            else:
                stores.append(f"tl.store(made_v + {at} * {self.V} + {offset}, {name}.to(made_v.dtype.element_ty))")
        return stores

    @staticmethod
    def _stored(buffer: str, at: str, width: str, columns: str, value: str, mask: str) -> str:
        return f"tl.store({buffer} + {at} * {width} + ({columns})[None, :], {value}.to({buffer}.dtype.element_ty), mask={mask}[None, :])"

    def _log_decay(self, row: Row, tail: str, site: Site) -> str:
        """A line for a row's log decay in base 2; its name, '' where the row does not decay."""
        if row.log_decay is None:
            return ""
        expr = self._named(row.log_decay)
        name = operand_line(site, f"b_g{tail}", expr, KEY, f"g{tail}") if self.is_wide else number_line(site, f"b_g{tail}", expr, f"g{tail}")
        is_bounded = bounds_of(self.spec).of(row.log_decay).low > -FLOOR
        return f"{name} * LOG2E" if is_bounded else f"tl.maximum({name}, -{FLOOR}) * LOG2E"

    def _sum_stores(self) -> list[str]:
        """Running sums over the rows of a chunk, every token's rows side by side."""
        logs = [(n, f"b_f_{n + 1}") for n, row in enumerate(self.walk.rows) if n % self.step == 0 and row.log_decay is not None]
        if self.count == 1:
            site = RowSite(self.tokens, {ROW: "CT"}, ROW, axis_of=self.axis_of)
            return [self._sum_store("0", f"tl.cumsum({self._log_decay_text(site)}, 0)")]
        total = " + ".join(name for _, name in logs)
        lines = [f"b_f = {total}", "b_a = tl.cumsum(b_f, 0) - b_f"]
        for number in range(self.count):
            lines += [f"b_a += {name}" for n, name in logs if n == number]
            lines.append(self._sum_store(str(number), "b_a"))
        return lines

    def _log_decay_text(self, site: Site) -> str:
        row = self.walk.rows[0]
        is_bounded = bounds_of(self.spec).of(row.log_decay).low > -FLOOR
        return "b_g * LOG2E" if is_bounded else f"tl.maximum(b_g, -{FLOOR}) * LOG2E"

    def _sum_store(self, number: str, value: str) -> str:
        at = f"(i_s * BC + o_i * {self.count} + {number})" if self.count > 1 else "(i_s * BC + o_i)"
        if self.is_wide:
            return f"tl.store(made_sums + {at}[:, None] * {self.K} + o_n[None, :], {value}, mask=m_n[None, :])"
        return f"tl.store(made_sums + {at}, {value})"

    # --- readers ---

    def _readers(self) -> list[Reader]:
        readers = []
        for number, r in enumerate(self.walk.readings):
            readers.append(self._reader(number, r.name[1:], False, r.is_inclusive))
        if self.has_erase:
            readers.append(self._reader(len(readers), "e", True, False))
        return readers

    def _reader(self, index: int, suffix: str, is_erase: bool, is_inclusive: bool) -> Reader:
        name = "e" if is_erase else f"q{suffix}"
        later = "b_G" if is_inclusive else "b_Gx"
        letter, G = ("J", "Gx") if is_erase else (f"A{suffix}", "G" if is_inclusive else "Gx")
        if is_erase and self.step > 1:
            sees = "o_i[:, None] // STEP > o_i[None, :] // STEP"
        else:
            sees = f"o_i[:, None] {'>=' if is_inclusive else '>'} o_i[None, :]"
        narrow = self.has_decay and not self.is_wide
        order = "j <= i" if is_inclusive else "j < i"
        faded = f"sum_n {name}_in k_jn exp({G}_in - G_jn)" if self.is_wide else f"{f'exp({G}_i - G_j) ' if narrow else ''}{name}_i . k_j"
        mine = f"exp({G}_i) " if self.has_decay else ""
        walked = None
        if not is_erase:
            own = f"faded_{name}" if self.is_wide else name
            walked = Faded(own, 0 if not is_inclusive else self.count - 1, self.count > 1 and not self.is_wide)
        return Reader(
            index=index,
            name=name,
            at_tokens=self.count > 1 and not is_erase,
            walked=walked,
            is_erase=is_erase,
            is_inclusive=is_inclusive,
            place=self.count - 1 if is_inclusive else 0,
            later=later,
            sees=sees,
            pairs="inverse" if is_erase else f"pairs{suffix}",
            made="erased" if is_erase else f"pairs{suffix}",
            pair_gradient=f"grad_{'erased' if is_erase else f'pairs{suffix}'}",
            own=f"grad_own{suffix}" if self.is_wide and is_inclusive else "",
            faded=f"faded_{name}",
            faded_pointer=f"faded_{name}, {'faded_k, ' if index == 0 else ''}" if self.is_wide else "",
            when="if tl.program_id(2) == 0" if index == 0 else f"elif tl.program_id(2) == {index}",
            fade=f" * tl.exp2({later})[:, None]" if narrow else "",
            faded_gradient=f"(b_do * tl.exp2({later})[:, None]).to(DOT)" if narrow else "b_do",
            read=self._read_name(suffix) if not is_erase else "",
            read_gradient=self._read_gradient_name(suffix) if not is_erase else "grad_v",
            gradient=f"grad_{name}",
            moved="b_q * b_dq" if self.is_wide else "tl.sum(b_q * b_dq, 1)",
            pair_math=f"{letter}_ij = {faded}, {order}" + (": what row i reads of what row j writes; (1 + J)^-1" if is_erase else ""),
            gradient_math=f"d{letter} = {'-r' if is_erase else 'do'} w^T, d{name} = {'-r' if is_erase else 'do'} ({mine}S)^T + dA k",
            math=f"o{suffix}_i = sum_j {letter}_ij w_j + {mine}S^T q{suffix}_i",
        )

    @property
    def is_read_whole(self) -> bool:
        """The output is what the walk reads, as it is."""
        cuts = self.walk.slices
        return (
            len(self.walk.columns) == 1
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

    # --- readout ---

    def _cuts(self) -> list[tuple[str, str, str, str]]:
        """(read, buffer, axis, offset) of every value that the output reads."""
        columns = {index: (axis, offset) for index, axis, offset in self._columns()}
        return [(s.read.name, self._read_name(s.reading[1:]), *columns[s.column]) for s in self.walk.slices]

    def _read_loads(self) -> dict:
        loads = {}
        for number, (read, buffer, axis, offset) in enumerate(self._cuts()):
            place = f"{buffer} + (row * H + i_h){'[:, None]' if axis else ''} * {self.V} + {offset}"
            if axis:
                text, axes = f"tl.load({place} + o_p[None, :], mask=m_t[:, None] & m_p[None, :], other=0.0)", (ROW, VALUE)
            else:
                text, axes = f"tl.load({place}, mask=m_t, other=0.0)", (ROW,)
            loads[read, axis] = lambda site, text=text, axes=axes, n=number: added(site, f"b_read{n}", text, axes)
        return loads

    def _dy_load(self) -> dict:
        if self.output.type.is_scalar:
            text, axes = "tl.load(dy + row * H + i_h, mask=m_t, other=0.0).to(tl.float32)", (ROW,)
        else:
            text, axes = f"_tile(dy, row * H + i_h, {self.output_width}, BV, o_p, m_t).to(tl.float32)", (ROW, VALUE)
        return {(MADE + "dy", axes[1] if len(axes) > 1 else ""): lambda site: added(site, "b_dy", text, axes)}

    @property
    def output_width(self) -> str:
        size = self.output.type.cols if self.output.type.is_row else self.output.type.rows
        if self.axis_of.get(size) not in (VALUE, None) and size != self.value_size:
            raise UnsupportedOperand("an output that does not lie along the values")
        return atom(size_text(size).text)

    def _readout(self) -> tuple[Walked, str]:
        head, site = self._site("BT")
        site.loads |= self._read_loads()
        if self.output.type.is_scalar:
            value = site.text(self.output)
            store = f"tl.store(y + row * H + i_h, {value.text}, mask=m_t)"
        else:
            value = site.text(self.output, VALUE)
            store = f"_store(y, row * H + i_h, {self.output_width}, o_p, m_t, {value.text})"
        self.texts.append(value.text)
        return self._walked(head, site), store

    def _readout_gradient(self) -> tuple[Walked, tuple[str, ...]]:
        head, site = self._site("BT")
        site.loads |= self._read_loads() | self._dy_load()
        found: dict[str, list[Expr]] = {}
        for name, expr in self._output_cotangents():
            found.setdefault(name, []).append(expr)
        stores = []
        for read, buffer, axis, offset in self._cuts():
            target = f"d_{buffer} + (row * H + i_h){'[:, None]' if axis else ''} * {self.V} + {offset}"
            mask = "m_t[:, None] & m_p[None, :]" if axis else "m_t"
            columns = " + o_p[None, :]" if axis else ""
            if read not in found:
                stores.append(f"tl.store({target}{columns}, tl.zeros({'(BT, BV)' if axis else '(BT,)'}, tl.float32), mask={mask})")
                continue
            value = site.text(algebra.add(*found[read]), axis or KEY)
            self.texts.append(value.text)
            stores.append(f"tl.store({target}{columns}, {value.text}, mask={mask})")
        unread = self._unread_columns()
        return self._walked(head, site), (*stores, *unread)

    def _unread_columns(self) -> list[str]:
        """Zeros for columns of a reading that the output does not use."""
        stores = []
        for r in self.walk.readings:
            used = {s.column for s in self.walk.slices if s.reading == r.name}
            buffer = self._read_gradient_name(r.name[1:])
            for index, axis, offset in self._columns():
                if index not in used:
                    target = f"{buffer} + (row * H + i_h){'[:, None]' if axis else ''} * {self.V} + {offset}{' + o_p[None, :]' if axis else ''}"
                    shape, mask = ("(BT, BV)", "m_t[:, None] & m_p[None, :]") if axis else ("(BT,)", "m_t")
                    stores.append(f"tl.store({target}, tl.zeros({shape}, tl.float32), mask={mask})")
        return stores

    def _output_cotangents(self) -> list[tuple[str, Expr]]:
        return cotangents(self.output, made("dy", self.output.type))

    # --- gradients of arguments ---

    def _gradient(self) -> tuple[Walked, tuple[str, ...], list, set[str], list[str]]:
        head, site = self._site("BT")
        gradients = Gradients(self.names, self.axis_of)
        site.loads |= self._read_loads() | self._dy_load()
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
        for name, expr in self._output_cotangents():
            if name not in reads:
                gradients.push("" if expr.type.is_scalar else self.axis_of_output(expr), name, expr)
        for r in self.walk.readings:
            if r.query is not None:
                name = f"grad_q{r.name[1:]}"
                text = column(name, "(i_s * CT + o_i)", self.K, "", KEY) + (" * scale" if self.scale is not None else "")
                self._vector(gradients, site, load, name, name, text, r.query)
        for number, row in enumerate(self.walk.rows):
            tail = f"_{number + 1}" if self.count > 1 else ""
            at = f"(i_s * BC + o_i * {self.count} + {number})" if self.count > 1 else "(i_s * BC + o_i)"
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
                    load(f"grad_g{tail}", "grad_g", f"tl.load(grad_g + {at}, mask=m_t, other=0.0)", (ROW,))
                    gradients.spread("", row.log_decay, made(f"grad_g{tail}"))
        lines = gradients.lines(site)
        stores, outputs = [], []
        for stored, value in lines:
            store, output = self._argument_store(site, stored, value)
            stores.append(store)
            outputs.append((stored, output))
        walked = self._walked(head, site)
        needs_dy = any("(dy" in line.text for line in walked.rows)
        used_reads = {b for _, b, _, _ in self._cuts() if any(re.search(rf"\b{b} \+", line.text) for line in walked.rows)}
        order = [b for b in self._gradient_names() if b in buffers]
        return walked, tuple(stores), outputs, {*(["dy"] if needs_dy else []), *used_reads}, order

    def axis_of_output(self, expr: Expr) -> str:
        size = expr.type.cols if expr.type.is_row else expr.type.rows
        return self.axis_of.get(size, VALUE)

    def _gradient_names(self) -> list[str]:
        queries = [f"grad_q{r.name[1:]}" for r in self.walk.readings]
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

    def _argument_store(self, site: Site, stored, value: Text) -> tuple[str, str]:
        """(the store of an argument's gradient, 'input', 'partial')."""
        symbol = next(s for s in self.tokens.arguments if s.name == stored.name)
        sizes = [s for s in (symbol.type.rows, symbol.type.cols) if s != Dim(1)] if not symbol.type.is_scalar else []
        whole = " * ".join(atom(size_text(s).text) for s in sizes) or "1"
        inner = sizes[1:] if stored.row else sizes
        width = atom(size_text(inner[0]).text) if inner else "1"
        shift = f"{stored.row - 1} * {width} + " if stored.row > 1 else ""
        self.texts.append(value.text)
        if symbol.kind == "param":
            value = masked(site, value, (ROW, stored.axis) if stored.axis else (ROW,))
            if ROW not in value.axes:
                raise UnsupportedOperand(f"`{stored.name}`, whose gradient is the same for all tokens")
            at = f"(place * H + i_h) * ({whole})"
            total = f"tl.sum({value.text}, 0)"
            if stored.axis:
                return f"tl.store({stored.buffer} + {at} + {shift}o_{stored.axis}, {total}, mask=m_{stored.axis})", "partial"
            return f"tl.store({stored.buffer} + {at} + {shift}0, {total})", "partial"
        if stored.axis:
            target = f"{stored.buffer} + (row * H + i_h)[:, None] * ({whole}) + ({shift}o_{stored.axis})[None, :]"
            text = value.text if value.axes == (ROW, stored.axis) else f"{value.along((ROW, stored.axis))} + tl.zeros(({site.blocks[ROW]}, {site.blocks[stored.axis]}), tl.float32)"
            return f"tl.store({target}, ({text}).to({stored.buffer}.dtype.element_ty), mask=m_t[:, None] & m_{stored.axis}[None, :])", "input"
        return f"tl.store({stored.buffer} + (row * H + i_h) * ({whole}) + {shift}0, {value.text}, mask=m_t)", "input"

    def _outputs(self, lines: list) -> tuple[tuple[Output, ...], tuple[Output, ...], tuple[str, ...]]:
        """What the launcher allocates for gradients, and the gradient of every argument."""
        outputs: dict[str, Output] = {}
        partials: dict[str, Output] = {}
        results = []
        for symbol in self.tokens.arguments:
            name = pointer(symbol.name)
            own = dict.fromkeys(stored.buffer for stored, _ in lines if stored.name == symbol.name)
            kinds = {kind for stored, kind in lines if stored.name == symbol.name}
            if not own:
                results.append(f"torch.zeros_like({name})")
                continue
            place = level(symbol.per)
            sizes = [] if symbol.type.is_scalar else [s for s in (symbol.type.rows, symbol.type.cols) if s != Dim(1)]
            width = "".join(f", {size_text(s).text}" for s in sizes)
            texts = []
            for buffer in own:
                if kinds == {"partial"}:
                    partials[buffer] = Output(buffer, f"places, H{width}")
                    texts.append(_over_heads(f"{buffer}.sum(0)", place, 0))
                elif place == "h":
                    outputs[buffer] = Output(buffer, f"torch.empty_like({name})")
                    texts.append(buffer)
                else:
                    outputs[buffer] = Output(buffer, f"torch.empty(batch, T, H{width}, dtype={name}.dtype, device=device)")
                    texts.append(_over_heads(buffer, place, 2))
            total = " + ".join(texts)
            results.append(total if total in own and kinds == {"input"} else f"({total}).to({name}.dtype)")
        return tuple(outputs.values()), tuple(partials.values()), tuple(results)

    # --- the package ---

    def package(self) -> RowsPackage:
        operands, operand_stores = self._operands()
        readers = self._readers()
        queries = [r for r in readers if not r.is_erase]
        nothing = Walked("", (), ())
        has_readout = not self.is_read_whole
        readout, readout_store = self._readout() if has_readout else (nothing, "")
        readout_gradient, readout_gradient_stores = self._readout_gradient() if has_readout else (nothing, ())
        gradient, gradient_stores, lines, extra, order = self._gradient()
        outputs, partials, results = self._outputs(lines)
        texts = [*self.texts, *operand_stores, *gradient_stores]
        inputs = [s for s in self.tokens.arguments if s.kind == "input"]
        like = next((s for s in inputs if s.type == self.output.type), next((s for s in inputs if not s.type.is_scalar), inputs[0]))
        first = next((s for s in inputs if not s.type.is_scalar), inputs[0])
        sizes = {line.target: line.text for line in self.tokens.sizes()}
        names = [identifier(n) for n in dict.fromkeys(n for s in self._all_sizes() for n, _ in s.terms)]
        if any(n not in sizes for n in names):
            raise UnsupportedOperand("a size that no argument shows")
        group = next((s for s in self.tokens.arguments if s.per == "group"), None)
        query_names = [r.name for r in queries]
        erase = ["e"] if self.has_erase else []
        sums = ["sums"] if self.has_decay else []
        operand_names = [*query_names, "k", "v", *erase, *sums]
        faded = [f"faded_{n}" for n in ("k", *query_names, *erase)] if self.is_wide else []
        pair_outputs = [*(r.made for r in readers), *faded]
        walked = [f"faded_{n}" if self.is_wide else n for n in (*query_names, "k")]
        walked += ["v", *(["faded_e" if self.is_wide else "e"] if self.has_erase else []), *sums, *(r.pairs for r in readers)]
        gradient_outputs = [r.gradient for r in readers] + ["grad_k"] + (["grad_g"] if self.has_decay else [])
        position = ["position"] if self.plan.uses_position else []
        constants = [pointer(n) for n, _ in self.spec.constants]
        arguments = [pointer(s.name) for s in self.tokens.arguments]
        prepared = [*arguments, *position, *constants]
        states = [identifier(s.name) for s in self.spec.states]
        by_name = {column.state: identifier(column.state) for column in self.walk.columns}
        states = [f"initial_{s}" for s in states]
        reads_before = any(not r.is_inclusive for r in readers)
        unpacked, used = unpack(self.walk)
        unpack_sizes = [_renamed(sizes[n]) for n in used]
        K_value, V_value = self.K, self.V
        G = "G" if self.has_decay else ""
        narrow = self.has_decay and not self.is_wide
        count_text = {1: "a row"}.get(self.count, f"{self.count} rows")
        if self.step > 1:
            count_text += f", {self.step} of which act together"
        token_inputs = [*(["dy"] if "dy" in extra else []), *(b for b in dict.fromkeys(c[1] for c in self._cuts()) if b in extra), *order]
        scale_text = self.tokens.printer.text(self.scale) if self.scale is not None else ""
        decay_text = f"exp({G}_C) " if self.has_decay else ""
        fade_text = f"exp({G}_C - {G}_j) " if self.has_decay else ""
        x = "exp(Gx_i) " if self.has_decay else ""
        write_math = f"w = (1 + J)^-1 (v - {x}e S)"
        kept = [r.read for r in queries] if self.plan.stores_reads else []
        return RowsPackage(
            title=title_of(self.spec),
            equations=equations(self.spec),
            legend=self._legend(readers),
            helpers=helpers(texts),
            count=self.count,
            count_padded=1 << (self.count - 1).bit_length(),
            count_text=count_text,
            step=self.step,
            block=str(self.plan.block * self.count) if self.plan.is_bounded else str(self.step),
            far="b_Gx" if reads_before else "b_G",
            span_parameters="BLOCK: tl.constexpr, LIMIT: tl.constexpr, " if self.is_wide else "",
            span_arguments="BLOCK, LIMIT, " if self.is_wide else "",
            span_values='*_spans(options["BC"], dtype), ' if self.is_wide else "",
            all_sums="".join(f"{n}, " for n in sums),
            is_falling=self.is_wide and all(bounds_of(self.spec).of(r.log_decay).high <= 0 for r in self.walk.rows if r.log_decay is not None),
            spans='*_spans(options["BC"], dtype), ' if self.is_wide else "",
            sums_pointer="sums, " if narrow else "",
            given_pointer="grad_v, " if self.has_erase else "",
            pair_gradient_names=tuple(n for r in readers for n in (r.pair_gradient, r.own) if n),
            made_written="written, " if self.has_erase else 'made["v"], ',
            made_sums='made["sums"], ' if narrow else "",
            is_wide=self.is_wide,
            has_decay=self.has_decay,
            has_erase=self.has_erase,
            has_groups=group is not None,
            has_readout=has_readout,
            stores_reads=self.plan.stores_reads,
            uses_position=self.plan.uses_position,
            reads_before=reads_before,
            moves_before=reads_before and self.has_decay,
            is_first=("(o_i % STEP == 0)[:, None]" if self.is_wide else "o_i % STEP == 0"),
            inverse_precision="tf32x3",
            row="bos + length - 1 - o_t" if self.plan.is_reversed else "bos + o_t",
            numbers="".join(f"{n}: tl.constexpr, " for n in names),
            number_arguments="".join(f"{n}, " for n in names),
            sizes=tuple(CodeLine("", n, _renamed(sizes[n])) for n in names),
            key_width=self.K,
            value_width=self.P,
            K_value=K_value,
            V_value=V_value,
            first=pointer(first.name),
            first_state=states[0],
            groups=f"{pointer(group.name)}.shape[{2 if group.kind == 'input' else 0}]" if group is not None else "1",
            vectors=", ".join(pointer(s.name) for s in inputs if not s.type.is_scalar) or pointer(inputs[0].name),
            argument_list=", ".join(arguments),
            states=", ".join(states),
            state_gradient_list=", ".join(f"moved_{s.removeprefix('initial_')}" for s in states),
            constants="".join(f", {c}" for c in constants),
            pack=_prefixed(pack(self.walk), by_name),
            unpack=unpacked,
            unpack_arguments=", ".join(["S", *used]),
            unpack_call=", ".join(["final", *unpack_sizes]),
            unpack_gradient_call=", ".join(["d_initial", *unpack_sizes]),
            state_offsets="o_n[:, None] * V + o_p[None, :]",
            operands=operands,
            operand_names=tuple(f"made_{n}" for n in operand_names),
            operand_stores=operand_stores,
            scale_pointer="scale, " if self.scale is not None else "",
            scale_value=f"{scale_text}, " if self.scale is not None else "",
            prepared=tuple(prepared),
            buffers=tuple(self._buffers(readers)),
            made_operands="".join(f'made["{n}"], ' for n in operand_names),
            made_pairs="".join(f'made["{n}"], ' for n in (*query_names, "k", *erase, *sums, *pair_outputs)),
            made_walk="".join(f'made["{n}"], ' for n in walked),
            made_gradient="".join(f'made["{n}"], ' for n in (*query_names, "k", *erase, *sums)) + ("written, " if self.has_erase else 'made["v"], '),
            pair_inputs=(*query_names, "k", *erase, *sums),
            pair_outputs=tuple(pair_outputs),
            pair_title="What the rows of a chunk read of each other" + (", and the inverse of what they erase." if self.has_erase else "."),
            readers=tuple(readers),
            queries=tuple(queries),
            walk_inputs=tuple(walked),
            walked_key="faded_k" if self.is_wide else "k",
            walked_erase="faded_e" if self.is_wide else "e",
            read_names=tuple(r.read for r in queries),
            own_reads=tuple(r.read for r in queries) if has_readout else (),
            read_list=", ".join(r.read for r in queries),
            kept_names=tuple(kept),
            read_gradient_names=tuple(r.read_gradient for r in queries),
            forward_title=self._title(),
            write_math=write_math,
            carry_math=f"S = {decay_text}S + sum_j {fade_text}k_j w_j^T",
            written_gradient_math=f"dw = A^T do + {f'exp({G}_C - {G}_i) ' if self.has_decay else ''}k D",
            given_gradient_math="r = (1 + J)^-T dw",
            erase_fade=" * tl.exp2(b_Gx)[:, None]" if narrow else "",
            key_fade=" * tl.exp2(b_last - b_G)[:, None]" if narrow else "",
            carried_write="b_w * tl.exp2(b_last - b_G)[:, None]" if narrow else "b_w",
            erased_gradient="b_r * tl.exp2(b_Gx)[:, None]" if narrow else "b_r",
            state_fade=" * tl.exp2(b_last)" if narrow else " * tl.exp2(b_last)[:, None]" if self.is_wide else "",
            state_fade_assigned=" *= tl.exp2(b_last)" if narrow else " *= tl.exp2(b_last)[:, None]",
            written="written" if self.has_erase else "v",
            written_output="written, " if self.has_erase else "",
            gradient_inputs=(*query_names, "k", *erase, *sums, "written" if self.has_erase else "v"),
            gradient_outputs=tuple(gradient_outputs),
            gradient_buffers=tuple(self._gradient_buffers(readers)),
            readout=readout,
            readout_store=readout_store,
            readout_gradient=readout_gradient,
            readout_gradient_stores=readout_gradient_stores,
            output_shape="batch, T, H" if self.output.type.is_scalar else f"batch, T, H, {self.output_width}",
            output_like=pointer(like.name),
            gradient=gradient,
            gradient_stores=gradient_stores,
            token_inputs=tuple(token_inputs),
            token_outputs=tuple(dict.fromkeys(stored.buffer for stored, _ in lines)),
            outputs=outputs,
            partials=partials,
            results=results,
            pair_block="64" if self.is_wide else "128",
            gradient_block="block",
            gradient_warps="8" if self.is_wide else "4",
            operand_warps="8" if self.count == 1 else "4",
        )  # fmt: skip

    def _buffers(self, readers: list[Reader]) -> list[Buffer]:
        typed = "dtype=dtype"
        found = [Buffer(r.name, f"CT, {self.K}, {typed}") for r in readers if not r.is_erase]
        found += [Buffer(n, f"BC, {self.K}, {typed}") for n in ("k", *(["e"] if self.has_erase else []))]
        found.append(Buffer("v", f"BC, {self.V}, {typed}"))
        if self.has_decay:
            found.append(Buffer("sums", f"BC, {self.K}" if self.is_wide else "BC"))
        found += [Buffer(r.pairs, f"BT, BT, {typed}") for r in readers]
        if self.has_erase:
            found.append(Buffer("erased", "BT, BT"))
        if self.is_wide:
            found += [Buffer(r.faded, f"BC, {self.K}, {typed}") for r in readers]
            found.append(Buffer("faded_k", f"BC, {self.K}, {typed}"))
        return found

    def _gradient_buffers(self, readers: list[Reader]) -> list[Buffer]:
        found = [Buffer(r.gradient, f'torch.empty_like(made["{r.name}"])') for r in readers]
        found.append(Buffer("grad_k", 'torch.empty_like(made["k"])'))
        if self.is_wide:
            found.append(Buffer("grad_g", 'torch.empty_like(made["sums"])'))
        return found

    def _all_sizes(self):
        for symbol in self.tokens.arguments:
            yield symbol.type.rows
            yield symbol.type.cols
        yield from widths(self.walk)

    def _title(self) -> str:
        decay = "" if not self.has_decay else "diag(exp(g_t)) " if self.is_wide else "exp(g_t) "
        write = "k_t (v_t - S_{t-1}^T e_t)^T" if self.has_erase else "k_t v_t^T"
        reads = {r.is_inclusive for r in self.walk.readings}
        return f"S_t = {decay}S_{{t-1}} + {write},   o_t = S_{'t' if reads == {True} else '{t-1}'}^T q_t"

    def _legend(self, readers: list[Reader]) -> tuple[str, ...]:
        lines = [r.pair_math for r in readers]
        if self.has_erase:
            x = "exp(Gx_i) " if self.has_decay else ""
            lines.append(f"w    = (1 + J)^-1 (v - {x}e S), what the rows really write")
        else:
            lines.append("w    = v")
        lines += [r.math for r in readers if not r.is_erase]
        if self.has_decay:
            lines.append("G    = running sum of g" + (", Gx the one before the row's own" if any(not r.is_inclusive for r in readers) else ""))
        return tuple(lines)


_ZERO = object()


def _over_heads(text: str, place: str, axis: int) -> str:
    """The text of a sum over the heads that share a value."""
    if place == "h":
        return text
    return f"{text}.unflatten({axis}, (G, -1)).sum({axis + 1})" if place == "g" else f"{text}.sum({axis})"


def _renamed(text: str) -> str:
    return re.sub(r"^(\w+)\.shape", lambda m: f"{pointer(m[1])}.shape", text)


def _prefixed(text: str, names: dict[str, str]) -> str:
    """The text with every state under the name of what it starts from."""
    return re.sub(r"[A-Za-z_]\w*", lambda m: f"initial_{m[0]}" if m[0] in names.values() else m[0], text)
