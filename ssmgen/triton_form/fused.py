"""kernels -> what kernels.py of the emitted package says: the recurrence forwards and backwards as Triton kernels.

Operands, gates, readout and their gradients are the spec's own expressions, printed on the tiles where they are needed; the
walk between them comes from the axes. Everything is decided here; `templates/triton/chunk.py.jinja` lays it out.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .. import algebra
from ..backends.torch_pointwise import ATOM, UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_text import helpers
from ..backends.triton_value import Text, loaded, size_text
from ..expressions import factors, key, nodes
from ..kernel import KEY, ROW, VALUE, Kernels
from ..plan import widths
from ..reference.head_text import equations, title_of
from ..spec import Apply, Expr, MatMul, Ref
from ..torch_form.shapes import tail, unasked
from ..torch_form.tokens import level
from .columns import Columns
from .folded_rows import folded
from .fused_package import Front, Narrow, Output, Part, Summed, TritonPackage, Walked
from .gradients import MADE, made
from .launch import as_type, heads_text, known, of_pointer, one_column, over_heads, over_programs, tuple_of
from .made_columns import Made, apart
from .operands import added, atom, column, legible
from .parts import Parts
from .site import CodeLine, Site, masked, pointer, widened


def triton_package(kernels: Kernels) -> TritonPackage:
    """The context of kernels.py.

    Raises UnsupportedOperand where the fused kernels do not carry the plan: more than one walk, query, matrix or row, states that feed
    each other, a decay for every key, an erase key, or operands that do not fit on tiles.
    """
    one_column(kernels)
    if any(walk.walk.members for walk in kernels.walks):
        raise UnsupportedOperand("states that feed each other")
    kernels = folded(kernels)
    whole = _Writer(kernels)
    walked, values = apart(kernels, whole.wide)
    return _with_columns(whole, _Writer(walked), values) if values else whole.package()


def _with_columns(whole: _Writer, walked: _Writer, values: tuple[Made, ...]) -> TritonPackage:
    """The package of a walk over columns that are made before it: `whole` has the arguments, `walked` what the walk takes."""
    front = whole.front()
    numbers = whole.numbers()
    columns = Columns(whole.tokens, whole.walk, whole.wide, values).package(numbers)
    package = walked.package(columns.texts)
    given = dict(columns.results)
    arguments = [s.name for s in walked.tokens.arguments]
    own = [value.symbol.name for value in values]
    results = []
    for symbol in whole.tokens.arguments:
        parts = [f"d_{pointer(symbol.name)}"] if symbol.name in arguments else []
        parts += [f'made["{pointer(symbol.name)}"]'] if symbol.name in given else []
        results.append(" + ".join(parts) or f"torch.zeros_like({pointer(symbol.name)})")
    outputs = package.outputs
    if any(turning.name in given for turning in whole.tokens.recurrence.turnings):
        # what an angle moves after it cancels in sums over all tokens behind it: gradients of turned columns are not rounded
        exact = {f"d_{pointer(v.symbol.name)}": pointer(v.symbol.name) for v in values if not v.symbol.type.is_scalar}
        outputs = tuple(
            Output(o.name, f"torch.empty_like({exact[o.name]}, dtype=torch.float32)") if o.name in exact else o for o in outputs
        )
    return replace(
        package,
        outputs=outputs,
        front=front,
        columns=columns,
        has_columns=True,
        columns_result=", ".join(pointer(n) for n in own),
        column_gradient_lanes="G" if columns.takes_heads_in_turn else columns.lanes,
        column_results=tuple(CodeLine("", pointer(name), text) for name, text in columns.results),
        walk_gradients=", ".join(f"d_{pointer(n)}" for n in arguments),
        front_results=tuple(results),
        prefix="_walk_",
    )


class _Writer(Parts):
    late: tuple[CodeLine, ...] = ()

    # --- kernels ---

    def _forward(self) -> tuple[Walked, str, tuple[str, ...]]:
        head, row = self._site()
        self._query(row), self._key(row), self._value(row)
        early = len(row.lines)
        given = {}
        for cut in self.walk.slices:
            if cut.column == self.wide:
                given[cut.read.name, VALUE] = loaded("b_o", (ROW, VALUE))
            else:
                given[cut.read.name, ""] = loaded(f"b_u{self.narrow.index(cut.column)}", (ROW,))
        y, late = "", []
        if not self.gradients.is_apart:
            readout = Site(self.tokens, {}, "", row, given)
            y = readout.text(self.output, VALUE)
            y = self._store_column(readout, "y", "row * H + i_h", self.V, VALUE, y, False)
            self.texts.append(y)
            self.sums |= readout.sums
            if self.folded is not None:
                # what the output alone needs of every row would stand in registers beside the products
                self._remember(row)
                late, row.lines[early:] = row.lines[early:], []
        walked = self._walked(head, row)
        self.late = tuple(late)
        stores = []
        for cut in self.walk.slices if self.plan.stores_reads else ():
            if cut.column == self.wide:
                value = "b_o" if self.folded is None else "b_o.to(reads.dtype.element_ty)"
                stores.append(f"tl.store({self._read_place()}, {value}, mask=m_t[:, None] & m_p[None, :])")
        return walked, y, tuple(stores)

    def _sources(self) -> Walked:
        """What a kernel that only carries the state reads of every token."""
        head, row = self._site()
        self._key(row), self._value(row)
        return self._walked(head, row)

    def _queries(self) -> Walked:
        head, row = self._site()
        self._query(row), self._read_gradient(row)
        return self._walked(head, row)

    def _read_gradient_kernel(self) -> tuple[Walked, tuple[str, ...]]:
        """The gradients of what the narrow columns read, one number a token."""
        head, row = self._site()
        row.loads.update(self._backward_loads())
        stores = []
        for n, expr in enumerate(self.gradients.narrow):
            value = row.named(f"b_d{n}", row.text(self._with_sums(row, expr)))
            self.texts.append(value.text)
            stores.append(f"tl.store(du_{n} + row * H + i_h, {value.text}, mask=m_t)")
        if self._makes_read_gradient():
            value = row.text(self.gradients.read, VALUE)
            self.texts.append(value.text)
            stores.append(f"# do = {legible(self.gradients.read)}")
            stores.append(f"_store(do, row * H + i_h, {self.V}, o_p, m_t, {value.text})")
        sums, self.sums = self.sums, set()
        walked = self._walked(head, row)
        self.sums = sums  # the whole width stands here
        return walked, tuple(stores)

    def _readout(self) -> tuple[Walked, str]:
        """The output of what was read, where that is no matter of the walk."""
        head, row = self._site()
        row.loads.update(self._backward_loads())
        value = row.named("b_y", row.text(algebra.factored(self.output), VALUE), f"y = {legible(self.output)}")
        store = self._store_column(row, "y", "row * H + i_h", self.V, VALUE, value, False)
        self.texts.append(store)
        return self._walked(head, row), store

    def _readout_gradient(self) -> tuple[Walked, tuple[Summed, ...], tuple[str, ...]]:
        """What the output's gradient makes of reads and arguments before the walk: sums over tokens, and what is stored of each."""
        head, row = self._site()
        row.loads.update(self._backward_loads())
        axes, shape = (ROW, VALUE), f"({self.BR}, BV)"
        value = masked(row, widened(row.text(self.gradients.read, VALUE), axes, shape), axes)
        do = row.named("b_do", value, f"do = {legible(self.gradients.read)}")
        row.given[MADE + "do", VALUE] = do
        stores = [self._store_column(row, "d_reads", "row * H + i_h", self.V, VALUE, do, True)]
        sums = []
        for gradient in (g for g in self.gradients.arguments if g.part == "readout"):
            symbol, buffer = self.tokens.symbols[gradient.name], self._buffer(gradient)
            value = row.named(f"b_{buffer}", row.text(algebra.factored(_one_sigmoid(gradient.expr)), VALUE))
            has_rows = symbol.name in self.folded.names
            if symbol.kind != "param":
                stores.append(self._store_column(row, buffer, "row * H + i_h", self.V, VALUE, value, has_rows))
                continue
            value = widened(masked(row, value, (ROW,)), axes, shape)
            target = f"a_{buffer}"
            place, mask, total = f"{buffer} + (i_t * H + i_h) * {atom(self.V)} + o_p", "m_p", f"tl.sum({target}, 0)"
            if has_rows:
                rows = self.folded.count
                place = f"{buffer} + ((i_t * H + i_h) * {rows} + o_q)[:, None] * {atom(self.V)} + o_p[None, :]"
                mask = f"(o_q < {rows})[:, None] & m_p[None, :]"
                total = f"tl.sum(tl.reshape({target}, (BT, {self.folded.padded}, BV)), 0)"
            sums.append(Summed(target, f"tl.zeros({shape}, tl.float32)", value.text, f"tl.store({place}, {total}, mask={mask})"))
        self.texts += [*stores, *(s.value for s in sums)]
        walked = self._walked(head, row)
        return walked, tuple(sums), tuple(stores)

    @staticmethod
    def _with_sums(row: Site, expr: Expr) -> Expr:
        """The expression with every sum over columns under a name of its own."""

        def summed(node: Expr) -> Expr | None:
            if not (isinstance(node, MatMul) and node.type.is_scalar and not node.left.type.is_scalar):
                return None
            name = f"sum{len(row.given)}"
            row.given[MADE + name, ""] = row.named(f"b_{name}", row.text(node))
            return made(name)

        return algebra.rewrite(expr, summed)

    # --- rows ---

    def _rows(self) -> tuple[Walked, tuple[str, ...], int]:
        """The last kernel: what is one number a token, from the rows that the parts summed and the decay's gradient."""
        head, row = self._site()
        head.blocks = {}
        row.blocks = {ROW: "BT"}
        base = self.decay_rows if self.gradients.needs_decay else 0

        def load(index: int, name: str):
            return lambda site: added(
                site, f"b_{name}", f"tl.load(rows + (({index} * slots + slot) * H + i_h) * BT + o_i, mask=m_t, other=0.0)", (ROW,)
            )

        for index, gradient in enumerate(self.gradients.rows):
            row.loads[MADE + gradient.name, ""] = load(base + index, gradient.name)
        for n in range(len(self.narrow)):
            row.loads[MADE + f"d_u{n}", ""] = load(base + len(self.gradients.rows) + n, f"du{n}")
        for cut in self.walk.slices:
            if cut.column != self.wide:
                row.loads[cut.read.name, ""] = self._backward_loads()[cut.read.name, ""]
        # behind the last token stands what leaves the chunk
        row.given |= {(MADE + n, ""): Text(f"b_{n[:1] + n[2:]}", ATOM, (ROW,), {ROW: None}) for n in ("d_g", "d_c", "d_own")}
        for gradient in self.gradients.scalars:
            used = any(MADE + gradient.name in _names(g.expr) for g in (*self.gradients.scalars, *self.gradients.arguments))
            if used:
                value = row.text(gradient.expr)
                row.given[MADE + gradient.name, ""] = row.named(f"b_{gradient.name}", value)
        stores, partials = [], 0
        for gradient in (g for g in self.gradients.arguments if g.part == "rows"):
            symbol = self.tokens.symbols[gradient.name]
            value = row.text(gradient.expr)
            self.texts.append(value.text)
            if symbol.kind == "param":
                value = masked(row, value, (ROW,))
                stores.append(f"tl.store(partial + ({partials} * H + i_h) * slots + slot, tl.sum({value.text}, 0))")
                partials += 1
            else:
                stores.append(f"tl.store({self._buffer(gradient)} + row * H + i_h, {value.text}, mask=m_t)")
        return self._walked(head, row), tuple(stores), partials

    # --- the package ---

    def numbers(self) -> list[str]:
        """The sizes that kernels take as constants. Raises UnsupportedOperand where no argument shows one."""
        names = [identifier(n) for n in dict.fromkeys(n for size in self._all_sizes() for n, _ in size.terms)]
        shown = {line.target for line in self.tokens.sizes()}
        if not shown >= set(names):
            raise UnsupportedOperand("a size that no argument shows")
        return names

    def front(self) -> Front:
        """The arguments, and how the launchers read sizes from them."""
        inputs = [s for s in self.tokens.arguments if s.kind == "input"]
        first = next((s for s in inputs if not s.type.is_scalar), inputs[0])
        group = next((s for s in self.tokens.arguments if s.per == "group"), None)
        sizes = {line.target: line.text for line in self.tokens.sizes()}
        return Front(
            argument_list=", ".join(pointer(s.name) for s in self.tokens.arguments),
            given_list=", ".join(pointer(s.name) for s in self.tokens.given),
            vectors=", ".join(pointer(s.name) for s in self.tokens.given if s.kind == "input" and not s.type.is_scalar),
            first=pointer(first.name),
            heads=heads_text(self.tokens),
            groups=f"{pointer(group.name)}.shape[{2 if group.kind == 'input' else 0}]" if group is not None else "1",
            sizes=tuple(CodeLine("", n, of_pointer(sizes[n])) for n in self.numbers()),
        )

    def package(self, others: tuple[str, ...] = ()) -> TritonPackage:
        """others: texts that stand in the file beside those of the walk."""
        self.whole = set()
        forward, y, read_stores = self._forward()
        self.whole |= self.sums & {VALUE}
        self.sums = set()
        summary, queries = self._sources(), self._queries()
        self.whole |= self.sums
        vectors = self._vectors()
        narrow_kernel, narrow_stores = self._read_gradient_kernel() if self.narrow else (Walked("", (), ()), ())
        apart = self._readout_gradient() if self.gradients.is_apart else (Walked("", (), ()), (), ())
        readout, y_store = self._readout() if self.gradients.is_apart else (Walked("", (), ()), "")
        made_apart = [self._buffer(g) for g in self.gradients.arguments if g.part == "readout"]
        parts = self._numbered(self._parts())
        rows, row_stores, partials = self._rows()
        gates, gate_stores = self._gate_kernel()
        outputs, vector_partials, results = self._outputs(parts)
        texts = [
            *others,
            *self.texts,
            *gate_stores,
            y,
            *(
                line.text
                for w in (forward, summary, queries, narrow_kernel, readout, apart[0], rows, gates, *vectors)
                for line in (*w.head, *w.rows)
            ),
        ]
        columns = self.walk.columns
        inputs = [s for s in self.tokens.arguments if s.kind == "input"]
        like = next((s for s in inputs if s.type == self.output.type), next((s for s in inputs if not s.type.is_scalar), inputs[0]))
        front, names = self.front(), self.numbers()
        K, V = atom(self.K), atom(self.V)
        group = next((s for s in self.tokens.arguments if s.per == "group"), None)
        needs_decay, exclusive = self.gradients.needs_decay, self.is_exclusive
        narrow = range(len(self.narrow))

        def each(prefix: str) -> str:
            return "".join(f"{prefix}_{n}, " for n in narrow)

        coefficient = self.walk.coefficient is not None
        weight = " * ".join([*([f"tl.exp2({self.left})"] if self.has_decay else []), *(["b_c"] if coefficient else [])])
        order = self._order()
        gradient_pointers = ""
        for part in parts:
            gradient_pointers = _merged(gradient_pointers, part.pointers, order)
        row_count = (
            (self.decay_rows if needs_decay else 0) + len(self.gradients.rows) + (len(self.narrow) if self.gradients.needs_source else 0)
        )
        behind = ["behind", *(f"behind_{n}" for n in narrow)] if self.angle.query else []
        rooms = [("rows", f"{row_count} * slots * H * BT")] * bool(row_count) + [("ends", "slots * H")] * needs_decay
        rooms += [("later", f"slots * H * {atom(self.angle.width)}")] * bool(self.angle.query)
        read_names = ["reads", *(f"reads_{n}" for n in narrow)] if self.plan.stores_reads else []
        reads = "".join(f"{n}, " for n in read_names)
        dy = "d_reads" if self.gradients.is_apart else "dy"
        of_parts = [line.text for p in parts for line in (*p.head, *p.rows, *p.group, *p.pairs, *p.block, *p.after)]
        states_reads = reads if any("(reads" in line.text for line in queries.rows) else ""
        splits_reads = len(read_names) > 1
        names_of_states = {columns[self.wide].state: ""} | {columns[i].state: f"_{n}" for n, i in enumerate(self.narrow)}
        suffixes = [names_of_states[s.name] for s in self.spec.states]
        entry, seen = ("b_Q", ">") if exclusive else ("b_G", ">=")
        Q, order_sign = ("Q", "<") if exclusive else ("G", "<=")
        c = "c_j " if coefficient else ""
        shared = any(p.is_shared for p in parts)
        own_rows = [g for g in self.gradients.arguments if g.part == "rows"]
        return TritonPackage(
            front=front,
            walk=front,
            columns=None,
            has_columns=False,
            columns_result="",
            column_gradient_lanes="",
            column_results=(),
            walk_gradients="",
            front_results=(),
            prefix="",
            name=self.spec.name,
            title=title_of(self.spec),
            equations=equations(self.spec),
            legend=self._legend(),
            weights=(_weights_text(self.has_decay, self.is_exclusive), *self._rest_texts(), *self._rows_texts()),
            helpers=helpers(texts),
            has_decay=self.has_decay,
            needs_decay=needs_decay,
            is_exclusive=exclusive,
            has_groups=group is not None,
            has_own=self.walk.own is not None,
            late=self.late,
            is_apart=self.gradients.is_apart,
            gradient_dy=f"{dy}, " if not self._makes_read_gradient() or any("(dy," in text for text in of_parts) else "",
            has_output=not self.gradients.is_apart,
            readout=readout,
            readout_store=y_store,
            readout_gradient=apart[0],
            readout_sums=apart[1],
            readout_stores=apart[2],
            readout_outputs="".join(f"{n}, " for n in made_apart),
            readout_uses_group=_mentions("i_g", (*readout.head, *readout.rows, *apart[0].head, *apart[0].rows)),
            readout_shape=f"batch, T, H, {self._read_width()}",
            walked_reads="" if self.gradients.is_apart or not any("(reads" in text for text in of_parts) else reads,
            is_folded=self.folded is not None,
            padded=1 if self.folded is None else self.folded.padded,
            BR=self.BR,
            o_t=self.o_t,
            m_end=self._inside("end"),
            m_size=self._inside("size", "row"),
            m_length=self._inside("length"),
            token="row" if self.folded is None else "token",
            m_token="m_t" if self.folded is None else "m_c",
            o_c="o_i" if self.folded is None else "o_c",
            has_narrow=bool(self.narrow),
            keeps_rests=self.keeps_rests,
            has_kept_slots=bool(gate_stores) or bool(self.narrow),
            kept_words=", and the vectors that enter every chunk" if self.narrow else "",
            unkept=() if self.plan.stores_reads else tuple(self._narrow(n, weight) for n in narrow),
            vector_keys=vectors[0],
            vector_queries=vectors[1],
            vector_reads=vectors[2],
            vector_query_loads=self._gate_loads("Q"),
            vector_read_loads=self._gate_loads("GQc"),
            decay_pointer="decays, " if self.has_decay else "",
            narrow_sums=each("sums"),
            makes_do=self._makes_read_gradient(),
            do_pointer="do, " if self._makes_read_gradient() else "",
            states_gradient="do, " if self._makes_read_gradient() else f"{dy}, {states_reads}",
            narrow_reads=each("reads"),
            forward_reads=reads or each("reads"),
            has_rows=bool(row_stores),
            has_gates=bool(gate_stores),
            gates=gates,
            gate_stores=gate_stores,
            gate_rows="".join(f"{n}, " for n in self._gate_names()),
            kept_target=tuple_of([*self._gate_names(), "edges", *(f"states_{n}" for n in narrow), *behind]),
            kept_sizes=self._kept_sizes(),
            gates_use_group=_mentions("i_g", gates.rows),
            gates_use_row=_mentions("row", gates.rows),
            rows_use_group=_mentions("i_g", rows.rows),
            forward_loads=self._gate_loads("GQlcu"),
            source_loads=self._gate_loads("Glc"),
            query_loads=self._gate_loads("Ql"),
            stores_reads=self.plan.stores_reads,
            joins_reads=self.plan.stores_reads and self.folded is not None,
            uses_position=self.plan.uses_position,
            key_block="BK" if KEY in self.whole else "min(BK, k)",
            value_block="BV" if VALUE in self.whole else "min(BV, v)",
            gradient_stages="2" if shared or (self.walk.turns and self.folded is None) else "1",
            is_crowded=self._is_crowded(shared),
            has_partial=partials > 0,
            has_row_room=bool(rooms),
            has_angle=bool(self.angle.query),
            angle=self.angle,
            narrow_behind=each("behind"),
            row_targets=tuple_of([name for name, _ in rooms]),
            row_sizes=", ".join(size for _, size in rooms),
            segment_targets=tuple_of(["part"] + ["total"] * self.has_decay),
            segment_sizes=", ".join([f"programs * segments * {K} * {V}"] + ["programs * segments"] * self.has_decay),
            narrows=tuple(self._narrow(n, weight) for n in narrow),
            K=K, V=V,
            has_shared=shared,
            # what heads share is few long programs, of which a slice needs many
            states_limit=256 if shared else 64,
            state_factors=" * ".join(w for w in (K, V) if w != "1") or "1",
            known_widths=known(self.K, self.V),
            state_shape=", ".join(size_text(d).text for d in tail(next(s for s in self.spec.states if s.name == columns[self.wide].state))),
            row=self._token(self.o_t),
            tile_rows=self._tile_rows(),
            per_row="" if self.folded is None else f" // {self.folded.padded}",
            row_factor="" if self.folded is None else f"{self.folded.count} * ",
            token_row=self._token("o_i"),
            token_place=self._token("o_c"),
            numbers="".join(f"{n}: tl.constexpr, " for n in names),
            number_arguments="".join(f"{n}, " for n in names),
            sized=tuple_of(["H", *(["G"] if group is not None else []), *names]),
            state_offsets=f"o_n[:, None] + o_p[None, :] * {K}" if self.walk.is_transposed else f"o_n[:, None] * {V} + o_p[None, :]",
            forward_title=self._title(),
            pair_math=f"A_ij = {c}{f'exp({Q}_i - G_j) ' if self.has_decay else ''}q_i . k_j, j {order_sign} i",
            output_math=f"o_i = sum_j A_ij v_j + {f'exp({Q}_i) ' if self.has_decay else ''}S^T q_i",
            carry_math=f"S = {'exp(G_C) ' if self.has_decay else ''}S + sum_j {'exp(G_C - G_j) ' if self.has_decay else ''}{c}k_j v_j^T",
            adjoint_math=f"D = {'exp(G_C) ' if self.has_decay else ''}D + sum_i {f'exp({Q}_i) ' if self.has_decay else ''}q_i do_i^T",
            seen=seen,
            pair=self._pair("forward"),
            entry=entry,
            entry_fade="b_fade" if self.has_decay else "scale",
            entry_weight="b_w" if self.has_decay else "scale",
            faded=" * tl.exp2(b_last)" if self.has_decay else "",
            faded_before=" * b_e" if self.has_decay else "",
            source_weight=weight,
            forward=forward,
            output_store=y,
            read_stores=read_stores,
            summary=summary,
            states=Walked(_merged(summary.pointers, queries.pointers, order), (), ()),
            source_states=summary,
            query_states=queries,
            read_gradient=narrow_kernel,
            narrow_stores=narrow_stores,
            parts=parts,
            shared_count=str(len(parts) - 1),
            part_count=f"({len(parts) - 1} + H // G)" if shared else str(len(parts)),
            gradient_programs="G" if shared else "H",
            rows=rows,
            row_stores=row_stores,
            partial_count=partials,
            reads_pointer=reads,
            row_reads_pointer=reads if any("(reads" in line.text for line in rows.rows) else "",
            reads_target=", ".join(read_names),
            reads_kept=f"_apart(kept, {self.V})" if splits_reads else "kept",
            splits_reads=splits_reads,
            rows_pointers="".join(f"{name}, " for name, _ in rooms),
            row_rows_pointer="rows, " if row_count else "",
            row_outputs="".join(f"{self._buffer(g)}, " for g in own_rows if self.tokens.symbols[g.name].kind == "input"),
            part_outputs="".join(p.outputs for p in parts),
            gradient_pointers=gradient_pointers,
            narrow_initials=each("initial"), narrow_finals=each("final"), narrow_gradients=each("du"),
            narrow_moved=each("moved"), narrow_states=each("states"), narrow_adjoints=each("adjoints"), narrow_d_initials=each("d_initial"),
            state_list=", ".join(f"initial{s}" for s in suffixes),
            state_gradient_list=", ".join(f"moved{s}" for s in suffixes),
            constants="".join(f", {pointer(n)}" for n, _ in self.spec.constants),
            scale="1.0" if self.walk.scale is None else self.tokens.printer.text(self.walk.scale),
            output_shape=f"batch, T, H, {self.V}",
            output_like=pointer(like.name),
            read_width=self._read_width(),
            outputs=outputs,
            partials=vector_partials,
            results=results,
            state_results=", ".join(f"final{s}" for s in suffixes),
            state_gradients=tuple(f"dy.new_empty(0, dtype=torch.float32) if initial is None else d_initial{s}" for s in suffixes),
        )  # fmt: skip

    def _is_crowded(self, shared: bool) -> bool:
        """Whether more stands in registers than a walk's own: what turns has products of its own in the gradients, rows of a token sums."""
        return not shared and (bool(self.walk.turns) or self.folded is not None)

    def _numbered(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """Parts with the programs that run them: the heads of a shared group follow its own."""
        shared = any(p.is_shared for p in parts)
        numbered = []
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1 and number > 0
            program = "tl.program_id(1)"
            if shared and not part.is_shared:
                program = f"tl.program_id(1) * (H // G) + part - {number}"
            numbered.append(replace(part, when="else" if is_last else f"{'el' if number else ''}if part == {number}", program=program))
        if shared and parts[-1].is_shared:
            raise UnsupportedOperand("a group without values")
        return tuple(numbered)

    def _narrow(self, n: int, weight: str) -> Narrow:
        own = self._weight_of(n)
        factors = " * ".join(f for f in ("b_w" if weight else "", own) if f)
        source = f"b_k * {column(factors)}" if factors else "b_k.to(tl.float32)"
        return Narrow(n, f"b_a * {own}[None, :]" if own else "b_a", source)

    def _rows_texts(self) -> list[str]:
        """The legend's words on rows of one token."""
        lines = []
        if self.folded is not None:
            lines.append(
                f"A token has {self.folded.count} rows, BR of them on a tile; they see each other: i and j are those of their tokens."
            )
        if self.walk.own is not None:
            lines.append("Of its own token a row reads own_j in the place of c_j.")
        return lines

    def _inside(self, end: str, token: str = "") -> str:
        """Which rows of a tile hold something."""
        inside = f"{token or f't0 + {self.o_t}'} < {end}"
        return f"({inside}) & (o_r < {self.folded.count})" if self.folded is not None and self.folded.is_padded else inside

    def _token(self, offset: str) -> str:
        return f"bos + length - 1 - t0 - {offset}" if self.plan.is_reversed else f"bos + t0 + {offset}"

    def _title(self) -> str:
        title = f"S_t = {'exp(g_t) ' if self.has_decay else ''}S_{{t-1}} + {'c_t ' if self.walk.coefficient is not None else ''}k_t v_t^T"
        return f"{title},   o_t = S_{'{t-1}' if self.is_exclusive else 't'}^T q_t"

    def _legend(self) -> tuple[str, ...]:
        """The chunk's equations."""
        c, ci = ("c_j ", "c_i ") if self.walk.coefficient is not None else ("", "")
        has_own = self.walk.own is not None
        enter, leave = ("exp(Q_i) " if self.is_exclusive else "exp(G_i) ", "exp(G_C - G_i) ") if self.has_decay else ("", "")
        lines = [
            f"o_i  = sum_j M_ij {c}(q_i . k_j) v_j  + {enter}S^T q_i",
            f"dq_i = sum_j M_ij {c}(do_i . v_j) k_j + {enter}S do_i",
            f"dk_i = sum_j M_ji {ci}(v_i . do_j) q_j + {leave}{ci}D v_i",
            f"dv_i = sum_j M_ji {ci * has_own}(k_i . q_j) do_j + {leave}{ci * has_own}D^T k_i",
        ]
        if self.gradients.needs_decay:
            later = "i > t for q, i >= t for k" if self.is_exclusive else "i >= t"
            lines.append(
                f"dg_t = sum of q_i . dq_i - k_i . dk_i over the chunk's {later}, + <D, exp(G_C) S + sum_j exp(G_C - G_j) {c}k_j v_j^T>"
            )
        if self.angle.query:
            lines.append(
                "da_t = sum of q_i x dq_i + k_i x dk_i over the chunk's i >= t, + D x S as it leaves; a turns pairs, x goes over a pair"
            )
        return tuple(lines)

    def _order(self) -> list[str]:
        return [*(pointer(s.name) for s in self.tokens.arguments), "position", *(pointer(n) for n, _ in self.spec.constants)]

    def _all_sizes(self):
        for symbol in self.tokens.arguments:
            yield symbol.type.rows
        yield from widths(self.walk)

    def _outputs(self, parts: tuple[Part, ...]) -> tuple[tuple[Output, ...], tuple[Output, ...], tuple[str, ...]]:
        """What the launcher allocates for gradients, and the gradient of every argument."""
        shared = {p.name for p in parts if p.is_shared}
        outputs, partials, results = [], [], []
        order = [g.name for g in self.gradients.arguments if g.part == "rows" and self.tokens.symbols[g.name].kind == "param"]
        for symbol in self.tokens.arguments:
            name = pointer(symbol.name)
            own = [g for g in self.gradients.arguments if g.name == symbol.name]
            if not own:
                results.append(unasked(name) if symbol.name in self.tokens.immaterial else f"torch.zeros_like({name})")
                continue
            place = level(symbol.per)
            width = "" if symbol.type.is_scalar else f", {size_text(symbol.type.rows).text}"
            if self.folded is not None and symbol.name in self.folded.names:
                width = f", {self.folded.count}{width}"
            texts = []
            for gradient in own:
                buffer = self._buffer(gradient)
                if symbol.kind == "param" and symbol.type.is_scalar:
                    texts.append(over_heads(over_programs(f"partial[{order.index(symbol.name)}]", ""), place, 0))
                elif symbol.kind == "param":
                    # a slot of packed documents may stay empty
                    memory = "torch.empty(readouts" if gradient.part == "readout" else "(torch.zeros if is_packed else torch.empty)(slots"
                    partials.append(Output(buffer, f"{memory}, H{width}, device=device)"))
                    texts.append(over_heads(f"{buffer}.sum(0)", place, 0))
                elif place == "h" or gradient.part in shared:
                    outputs.append(Output(buffer, f"torch.empty_like({name})"))
                    texts.append(buffer)
                else:
                    outputs.append(Output(buffer, f"torch.empty(batch, T, H{width}, dtype={name}.dtype, device={name}.device)"))
                    texts.append(over_heads(buffer, place, 2))
            texts = texts[:1] if texts[0] == self.angle.query else texts  # angles_kernel adds the other to it
            results.append(texts[0] if texts in ([f"d_{name}"], [self.angle.query]) else as_type(texts, f"{name}.dtype"))
        return tuple(outputs), tuple(partials), tuple(results)


def _merged(left: str, right: str, order: list[str]) -> str:
    """Two argument lists as one, in the operator's order."""
    names = {n for n in (left + right).replace(" ", "").split(",") if n}
    return "".join(f"{n}, " for n in order if n in names)


def _one_sigmoid(expr: Expr) -> Expr:
    """1 - sigmoid(x) for sigmoid(-x) where sigmoid(x) stands beside it: what is left of one that is taken already."""
    taken = {key(n.args[0]) for n in nodes(expr) if isinstance(n, Apply) and n.function == "sigmoid"}

    def rest(node: Expr) -> Expr | None:
        if not (isinstance(node, Apply) and node.function == "sigmoid" and factors(node.args[0])[0] < 0):
            return None
        other = algebra.neg(node.args[0])
        return algebra.add(algebra.const(1), algebra.neg(replace(node, args=(other,)))) if key(other) in taken else None

    return algebra.rewrite(expr, rest)


def _mentions(name: str, lines: tuple[CodeLine, ...]) -> bool:
    return any(re.search(rf"\b{name}\b", line.text) for line in lines)


def _names(expr: Expr) -> set[str]:
    return {n.name for n in nodes(expr) if isinstance(n, Ref)}


def _weights_text(has_decay: bool, is_exclusive: bool) -> str:
    """The legend's line on M."""
    if not has_decay:
        return f"M_ij = 1, j {'<' if is_exclusive else '<='} i: every source before a row counts fully"
    if is_exclusive:
        return "M_ij = exp(Q_i - G_j), j < i, Q_i = G_{i-1}: left at row i of what source j wrote; G is the running sum of g"
    return "M_ij = exp(G_i - G_j), j <= i: left at row i of what source j wrote; G is the running sum of g"
