"""The kernels' operands: queries, keys, values, gates and gradients of reads as lines on tiles."""

from __future__ import annotations

from dataclasses import replace

from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_value import Text, loaded, size_text
from ..kernel import KEY, ROW, VALUE, Kernels
from ..plan import Plan, Walk, widths
from ..spec import Expr, Ref, Transpose
from ..spec_text import expr_text
from ..torch_form.tokens import TokenWriter
from .fused_package import Walked
from .gradients import MADE, Gradients, angle_sizes, axes_of_sizes, gradients_of
from .site import KERNEL_WORDS, Site, invariant, masked, pointer, widened

INDENT = " " * 4

DECAY_ROWS = 3
"""Rows that the decay's gradient is made of: what reading rows give, what states give to written rows, what pairs do; and, behind
them, what pairs of a token's own rows do."""


class Operands:
    """One recurrence's operands, printed where a kernel needs them."""

    def __init__(self, kernels: Kernels):
        self.plan: Plan = kernels.plan
        classified = self.plan.classified
        if len(kernels.walks) != 1 or len(kernels.walks[0].walk.readings) != 1:
            raise UnsupportedOperand("several walks or queries")
        self.walk: Walk = kernels.walks[0].walk
        self.spec = classified.recurrence.spec
        self.tokens = TokenWriter(classified)
        if len(self.walk.rows) != 1 or not self.walk.rows[0].is_written:
            raise UnsupportedOperand("several rows a token, or one that only decays")
        if self.walk.is_wide:
            raise UnsupportedOperand("a decay for every key")
        if self.walk.has_erase:
            raise UnsupportedOperand("a key that erases")
        if len(self.tokens.taken_in) < len(self.tokens.delayed):
            raise UnsupportedOperand("values of the token before")
        columns = self.walk.columns
        matrices = [i for i, c in enumerate(columns) if c.value is not None and not c.value.type.is_scalar]
        if len(matrices) != 1:
            raise UnsupportedOperand("no matrix, or several")
        self.wide = matrices[0]
        self.value: Expr = columns[self.wide].value
        (_, output), *more = self.tokens.outputs
        if more or output.type.rows != self.value.type.rows:
            raise UnsupportedOperand("an output that is no column of the matrix")
        self.output = output
        self.K, self.V = (size_text(size).text for size in (widths(self.walk)[0], self.value.type.rows))
        self.reading = self.walk.readings[0]
        self.has_decay = self.walk.log_decay is not None
        # what is divided by a number that the maximum alone keeps from 0 shows every digit that a decay lost
        self.keeps_rests = self.has_decay and bool(classified.recurrence.maxima)
        self.is_exclusive = not self.reading.is_inclusive
        self.axis_of = axes_of_sizes(self.walk, self.wide, angle_sizes(self.tokens, self.walk))
        self.gradients: Gradients = gradients_of(self.tokens, self.walk, self.wide, self.plan.stores_reads)
        self.narrow = [i for i in range(len(columns)) if i != self.wide]
        self.folded = self.tokens.folded
        self.decay_rows = DECAY_ROWS + (self.walk.own is not None)
        self.BR = "BT" if self.folded is None else "BR"
        self.o_t = "o_i" if self.folded is None else "o_t"
        names = {identifier(n) for n, _ in (*self.spec.dims, *self.spec.counts)}
        if names & KERNEL_WORDS:
            raise UnsupportedOperand("a size with the name of a kernel's own")
        self.sums: set[str] = set()
        self.texts: list[str] = []

    # --- sites ---

    def _site(self) -> tuple[Site, Site]:
        """A kernel's head and its chunk."""
        head = Site(self.tokens, {KEY: "BK", VALUE: "BV"}, axis_of=self.axis_of)
        return head, Site(self.tokens, {ROW: self.BR}, ROW, head)

    def _walked(self, head: Site, row: Site) -> Walked:
        self._remember(head, row)
        if self.folded is None:
            return Walked(self._pointers(head), tuple(head.lines), tuple(row.lines))
        # what every token has alike for its rows stands before the loop over tokens
        before, behind = invariant(row.lines, ("row", "m_t"))
        return Walked(self._pointers(head), (*head.lines, *before), behind)

    def _pointers(self, head: Site) -> str:
        names = [pointer(s.name) for s in self.tokens.arguments if s.name in head.arguments]
        names += ["position"] if head.uses_position else []
        names += [pointer(n) for n, _ in self.spec.constants if n in head.arguments]
        return "".join(f"{n}, " for n in names)

    def _remember(self, *sites: Site) -> None:
        for site in sites:
            self.sums |= site.sums
            self.texts += [line.text for line in site.lines]

    # --- operands ---

    def _operand(self, site: Site, letter: str, expr: Expr | None, axis: str) -> str:
        """A line for an operand in the products' type; its name."""
        target = f"b_{letter}"
        axes = (ROW, axis)
        shape = site.shape(axes)
        bare = expr.operand if isinstance(expr, Transpose) else expr
        if expr is None:
            site.add(target, f"tl.where(m_t[:, None] & m_{axis}[None, :], 1.0, 0.0).to(DOT)", "", shape)
        elif isinstance(bare, Ref) and any(s.name == bare.name and s.kind == "input" for s in self.tokens.arguments):
            site.load(bare.name, axis, target, is_raw=True)
            site.lines[-1] = replace(site.lines[-1], text=site.lines[-1].text + ".to(DOT)")
            site.made[bare.name, axis] = loaded(f"{target}.to(tl.float32)", axes)
        else:
            value = widened(masked(site, site.text(expr, axis), axes), axes, f"({site.blocks[ROW]}, {site.blocks[axis]})")
            value = masked(site, value, axes)
            site.add(target, f"{value.at(ATOM)}.to(DOT)", f"{letter} = {legible(expr)}", shape)
        return target

    def _gate_kernel(self) -> tuple[Walked, tuple[str, ...]]:
        """What is one number a token of what the walks read, made once: a walk would wait for it at every chunk."""
        head, row = self._site()
        head.blocks, row.blocks = {}, {ROW: "BT"}
        stores = []
        if self.has_decay:
            value = row.text(self.walk.log_decay)
            row.add("b_g", f"tl.where(m_t, {value.text}, 0.0) * LOG2E", f"g = {legible(self.walk.log_decay)}, in base 2", "[BT]")
            stores += self._sum_stores()
        if self.walk.coefficient is not None:
            value = widened(masked(row, row.text(self.walk.coefficient), (ROW,)), (ROW,), "(BT,)")
            row.add("b_c", value, f"c = {legible(self.walk.coefficient)}", "[BT]")
            stores.append("tl.store(coefficients + p_g + o_i, b_c)")
        if self.walk.own is not None:
            value = widened(masked(row, row.text(self.walk.own), (ROW,)), (ROW,), "(BT,)")
            row.add("b_own", value, f"own = {legible(self.walk.own)}", "[BT]")
            stores.append("tl.store(owns + p_g + o_i, b_own)")
        for n, index in enumerate(self.narrow):
            value = self.walk.columns[index].value
            if value is not None:
                row.add(f"b_e{n}", widened(masked(row, row.text(value), (ROW,)), (ROW,), "(BT,)"), f"e{n} = {legible(value)}", "[BT]")
                stores.append(f"tl.store(weights_{n} + p_g + o_i, b_e{n})")
        return self._walked(head, row), tuple(stores)

    def _sum_stores(self) -> list[str]:
        """Lines that store the sums of log decays; in float32 with what their rounding leaves, where it would show."""
        plain = "tl.store(decays + p_g + o_i, tl.cumsum(b_g, 0))"
        if not self.keeps_rests:
            return [plain]
        exact = ["b_G, b_rest = _cumsum_and_rest(b_g)", "tl.store(decays + p_g + o_i, b_G)", "tl.store(rests + p_g + o_i, b_rest)"]
        return ["if rests is None:", INDENT + plain, "else:", *(INDENT + line for line in exact)]

    def _gate_names(self) -> list[str]:
        """The buffers that the gates' kernel fills."""
        weights = [f"weights_{n}" for n in range(len(self.narrow)) if self._weight_of(n)]
        own = ["owns"] if self.walk.own is not None else []
        sums = [*(["decays"] if self.has_decay else []), *(["rests"] if self.keeps_rests else [])]
        return [*sums, *(["coefficients"] if self.walk.coefficient is not None else []), *own, *weights]

    def _weight_of(self, n: int) -> str:
        """What a narrow column writes, by its name on a tile; '' for the constant 1."""
        return f"b_e{n}" if self.walk.columns[self.narrow[n]].value is not None else ""

    def _gate_loads(self, needs: str) -> tuple[str, ...]:
        """Lines that read them, for a chunk at `p_g`; `needs`, a letter each: sums up to a source and a read, last, coefficients."""
        lines = []
        if self.has_decay:
            if "G" in needs or ("Q" in needs and not self.is_exclusive):
                lines.append(f"b_G = tl.load(decays + p_g + {self.o_t})  # [{self.BR}]")
            if "l" in needs:
                lines.append("b_last = tl.load(decays + p_g + BT - 1)")
            if "Q" in needs and self.is_exclusive:
                lines.append("# a reading row stands at the token before: Q_i = G_{i-1}")
                o_t = self.o_t
                lines.append(f"b_Q = tl.load(decays + p_g + {o_t} - 1, mask={o_t} > 0, other=0.0)  # [{self.BR}]")
            if self.keeps_rests and "G" in needs:
                lines += self._rest_loads(needs)
        if "c" in needs and self.walk.coefficient is not None:
            lines.append(f"b_c = tl.load(coefficients + p_g + {self.o_t})  # [{self.BR}]")
        if "u" in needs and self.walk.own is not None:
            lines.append(f"b_own = tl.load(owns + p_g + {self.o_t})  # [{self.BR}]")
        for name in self._gate_names() if "c" in needs else ():
            if name.startswith("weights"):
                lines.append(f"b_e{name[8:]} = tl.load({name} + p_g + o_i)  # [BT]")
        return tuple(lines)

    def _rest_texts(self) -> list[str]:
        """The legend's words on the sums of log decays."""
        words = "In float32 what rounding leaves of G stands beside it: a difference of two sums keeps as many digits as a decay has."
        return [words] * self.keeps_rests

    def _rest_loads(self, needs: str) -> list[str]:
        """Lines that read what rounding leaves of the sums, and take their differences to the chunk's end, by the same letters."""
        loads, left = [f"b_rest = tl.load(rests + p_g + {self.o_t})  # [{self.BR}]"], []
        if "Q" in needs and self.is_exclusive:
            loads.append(f"b_rest_Q = tl.load(rests + p_g + {self.o_t} - 1, mask={self.o_t} > 0, other=0.0)  # [{self.BR}]")
        if "l" in needs:
            left = ["b_left = b_last - b_G"]
            loads.append("b_left += tl.load(rests + p_g + BT - 1) - b_rest")
        return [*left, "if rests is not None:", *(INDENT + line for line in loads)]

    @property
    def left(self) -> str:
        """What is left of a source at the end of its chunk, as an exponent of 2."""
        return "b_left" if self.keeps_rests else "b_last - b_G"

    def _key(self, site: Site) -> str:
        return self._operand(site, "k", self.walk.key, KEY)

    def _query(self, site: Site) -> str:
        return self._operand(site, "q", self.reading.query, KEY)

    def _value(self, site: Site) -> str:
        return self._operand(site, "v", self.value, VALUE)

    def _read_gradient(self, site: Site) -> str:
        """A line for the gradient of what was read, in the products' type."""
        site.loads = self._backward_loads() | site.loads
        axes = (ROW, VALUE)
        shape = site.shape(axes)
        expr = self.gradients.read
        if self.gradients.is_apart:
            site.add("b_do", f"{self._do_tile()}.to(DOT)", "", shape)
            site.made[MADE + "do", VALUE] = loaded("b_do.to(tl.float32)", axes)
        elif expr == Ref(expr.type, expr.span, MADE + "dy"):
            site.add("b_do", f"{dy_tile(self.V)}.to(DOT)", "", shape)
            site.made[MADE + "dy", VALUE] = loaded("b_do.to(tl.float32)", axes)
        elif self._makes_read_gradient():
            site.add("b_do", f"_tile(do, row * H + i_h, {self.V}, BV, o_p, m_t).to(DOT)", "", shape)
        else:
            value = masked(site, site.text(expr, VALUE), axes)
            site.add("b_do", f"{value.at(ATOM)}.to(DOT)", f"do = {legible(expr)}", shape)
        return "b_do"

    def _vectors(self) -> tuple[Walked, Walked, Walked]:
        """What the kernels of vectors read: of what is written, of the gradients of reads, of reads."""
        if not self.narrow:
            return (Walked("", (), ()),) * 3
        sums, self.sums = self.sums, set()
        walked = []
        for reads in ((self._key,), (self._query, self._narrow_gradients), (self._query, self._key)):
            head, row = self._site()
            for read in reads:
                read(row)
            walked.append(self._walked(head, row))
        self.sums = sums  # the whole width stands here
        return tuple(walked)

    def _narrow_gradients(self, site: Site) -> None:
        for n in range(len(self.narrow)):
            site.add(f"b_d{n}", f"tl.load(du_{n} + row * H + i_h, mask=m_t, other=0.0)", "", "[BT]")

    def _makes_read_gradient(self) -> bool:
        """Whether the kernel that goes before the walks backward leaves the gradient of what was read: it has all of it at hand."""
        expr = self.gradients.read
        return bool(self.narrow) and expr != Ref(expr.type, expr.span, MADE + "dy")

    def _backward_loads(self) -> dict:
        """How a backward kernel gets the output's gradient and what was read."""
        loads = {(MADE + "dy", VALUE): lambda site: added(site, "b_dy", f"{dy_tile(self.V)}.to(tl.float32)", (ROW, VALUE))}
        loads[MADE + "do", VALUE] = lambda site: added(site, "b_do", f"{self._do_tile()}.to(tl.float32)", (ROW, VALUE))
        for cut in self.walk.slices:
            if cut.column == self.wide:
                widen = "" if self.folded is None else ".to(tl.float32)"
                text = f"tl.load({self._read_place()}, mask=m_t[:, None] & m_p[None, :], other=0.0){widen}"
                loads[cut.read.name, VALUE] = lambda site, text=text: added(site, "b_read", text, (ROW, VALUE))
            else:
                n = self.narrow.index(cut.column)
                text = f"tl.load(reads_{n} + row * H + i_h, mask=m_t, other=0.0)"
                loads[cut.read.name, ""] = lambda site, text=text, n=n: added(site, f"b_u{n}", text, (ROW,))
        return loads

    def _do_tile(self) -> str:
        """What was made of the output's gradient before the walk, for every row of a token."""
        return f"_tile(d_reads, (row * H + i_h) * {self.folded.count} + o_r, {self.V}, BV, o_p, m_t)"

    def _read_place(self) -> str:
        """Where what a row reads of the matrix is kept."""
        row = "(row * H + i_h)" if self.folded is None else f"((row * H + i_h) * {self.folded.count} + o_r)"
        return f"reads + {row}[:, None] * {atom(self.V)} + o_p[None, :]"

    def _read_width(self) -> str:
        if self.folded is not None:
            return f"{self.folded.count}, {self.V}"
        return f"{self.V} + {len(self.narrow)}" if self.narrow else self.V

    # --- the rows of a token ---

    def _store_column(self, site: Site, target: str, at: str, width: str, axis: str, value: Text, is_row: bool) -> str:
        """The store of a column a token, or a row of it: `at` is the place of a token among others, `row * H + i_h`."""
        if self.folded is None:
            return f"_store({target}, {at}, {width}, o_{axis}, m_t, {value.text})"
        if is_row:
            return f"_store({target}, ({at}) * {self.folded.count} + o_r, {width}, o_{axis}, m_t, {value.text})"
        token = at.replace("row", "token")
        return f"_store({target}, {token}, {width}, o_{axis}, m_c, {self._over_rows(site, value, axis)})"

    def _over_rows(self, site: Site, value: Text, axis: str = "", along: int = 1) -> str:
        """The sum over the rows of a token; of `along` 0: over the tokens, one for every row."""
        axes = (ROW, axis) if axis else (ROW,)
        if self.folded.is_padded:
            value = masked(site, value, (ROW,))
        value = widened(value, axes, f"({', '.join(site.block(a) for a in axes)})")
        blocks = ", ".join(["BT", str(self.folded.padded), *([site.block(axis)] if axis else [])])
        return f"tl.sum(tl.reshape({value.text}, ({blocks})), {along})"


def dy_tile(V: str) -> str:
    return f"_tile(dy, row * H + i_h, {V}, BV, o_p, m_t)"


def added(site: Site, target: str, text: str, axes: tuple[str, ...]) -> Text:
    site.add(target, text, "", site.shape(axes))
    return loaded(target, axes)


def legible(expr: Expr) -> str:
    return expr_text(expr).replace(MADE, "")


def column(text: str) -> str:
    """Numbers of rows, one each, beside columns."""
    return f"({text})[:, None]" if " " in text else f"{text}[:, None]"


def atom(text: str) -> str:
    return text if text.isalnum() else f"({text})"
