"""kernels -> what kernels.py says where a token's rows erase, where every key fades at its own rate, or where a token has several rows.

The walk knows operands alone: q, k, v, e and the sums of log decays, laid out chunk by chunk. Erasing is one more read: its
key reads what is stored like a query, and what the rows of a chunk write is given a gradient through it like an output.
Operands come from `triton_form.tokens`; `templates/triton/rows.py.jinja` lays everything out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_text import helpers
from ..bounds import bounds_of
from ..plan import widths
from ..reference.head_text import equations, title_of
from ..torch_form.column_text import pack, unpack
from ..torch_form.tokens import level
from .fused_package import Walked
from .held_rows import held_rows
from .launch import heads_text, known, of_pointer, sizes_text, tuple_of
from .row_columns import CHUNK, RowColumns
from .row_places import token_index
from .rows_package import Buffer, PairKernel, Reader, RowsPackage, Tuned
from .site import CodeLine, pointer

TUNED = (
    Tuned("operands", "operand_configurations", "_operand_options"),
    Tuned("pairs", "pairs_configurations", "_pairs_options"),
    Tuned("forward", "walk_configurations", "_forward_options"),
    Tuned("states", "walk_configurations", "_states_options"),
    Tuned("pair gradients", "pair_gradient_configurations", "_pair_gradient_options"),
    Tuned("gradient", "gradient_configurations", "_gradient_options"),
    Tuned("tokens", "token_configurations", "_token_options"),
)
"""The kernels that `tuning` chooses configurations of, where there are all."""


class RowWriter(RowColumns):
    """Writes the kernels of one walk: those of a package, or of a file of it."""

    # --- readers ---

    def _readers(self) -> list[Reader]:
        readers = []
        for r in (r for r in self.walk.readings if not r.is_value):
            readers.append(self._reader(len(readers), r.name[1:], False, r.is_inclusive))
        if self.has_erase:
            readers.append(self._reader(len(readers), "e", True, False))
        of_keys = len(readers)
        for r in (r for r in self.walk.readings if r.is_value):
            readers.append(self._reader(len(readers), r.name[1:], False, r.is_inclusive, of_keys))
        return readers

    def _reader(self, index: int, suffix: str, is_erase: bool, is_inclusive: bool, of_keys: int | None = None) -> Reader:
        """of_keys: how many readers of keys there are, of a query of values."""
        is_value, number = of_keys is not None, index - (of_keys or 0)
        name = "e" if is_erase else f"q{suffix}"
        is_before = not (is_inclusive or (is_erase and self.erases_after))
        later, G = ("b_Gx", "Gx") if is_before else ("b_G", "G")
        letter = "J" if is_erase else f"A{suffix}"
        if is_erase and self.step > 1:
            sees = "o_i[:, None] // STEP > o_i[None, :] // STEP"
        else:
            sees = f"o_i[:, None] {'>=' if is_inclusive else '>'} o_i[None, :]"
        narrow = self.has_decay and not self.is_wide
        order = "j <= i" if is_inclusive else "j < i"
        faded = f"sum_n {name}_in k_jn exp({G}_in - G_jn)" if self.is_wide else f"{f'exp({G}_i - G_j) ' if narrow else ''}{name}_i . k_j"
        mine = f"exp({G}_i) " if self.has_decay else ""
        place = self.count - 1 if is_inclusive else 0
        at_tokens = self.count > 1 and not is_erase
        columns = self._columns_text(name, place if at_tokens else None)
        walked = self._faded_text(name) if self.is_wide else self._columns_text(name, place if at_tokens else None, is_bare=True)
        fade = self._fade(name, later)
        pairs = "inverse" if is_erase else f"pairs{suffix}"
        given = f"asks{suffix}" if is_value else self._read_gradient_name(suffix) if not is_erase else "grad_v"
        asked_fade = "" if is_erase else self._asked_fade(name, place, later)
        asking = {"given_tile": "", "asked_pairs": "", "asked": ""} if is_erase else self._asking(name, place, pairs, given)
        factors = [f"{self._number(n)}[{at}]" for n, at in ((name, ":, None"), ("k", "None, :")) if self._factor(n)]
        return Reader(
            index=index,
            name=name,
            columns=columns,
            paired=self._of_key_tile(name, columns) if self.is_wide else walked,
            pair_pointers="".join(f"{n}, " for n in (name, "k") if not (n == "e" and n in self.places)),
            pair_numbers="".join(f"{f}, " for f in map(self._factor, (name, "k")) if f),
            pair_factor="" if self.is_wide else " * ".join(factors),
            walked=walked,
            is_erase=is_erase,
            is_inclusive=is_inclusive,
            is_before=is_before,
            moves_before=self.has_decay and is_before,
            is_by_row=(is_erase or self.count == 1) and not is_value,
            place=place,
            mask="m_t" if self.count == 1 else f"m_t & {self._standing(place)}",
            later=later,
            sees=sees,
            pairs=pairs,
            pair_tile=f"_rows({pairs}, i_s, o_i, o_i, BT, BT, BT)" if is_erase else self._pairs_text(pairs, name),
            made="erased" if is_erase else f"pairs{suffix}",
            pair_gradient=f"grad_{'erased' if is_erase else f'pairs{suffix}'}",
            own=f"grad_own{suffix}" if self.is_wide and is_inclusive else "",
            faded=f"faded_{name}",
            passed=self._passed(name, "erased" if is_erase else f"pairs{suffix}"),
            when="if part == 0" if number == 0 else f"elif part == {number}",
            fade=fade,
            faded_gradient=f"(b_do{asked_fade}).to(DOT)" if asked_fade else "b_do",
            read=self._read_name(suffix) if not is_erase else "",
            read_gradient=given,
            **asking,
            gradient=f"grad_asks{suffix}" if is_value else f"grad_{name}",
            pair_math=f"{letter}_ij = {faded}, {order}" + (": what row i reads of what row j writes; (1 + J)^-1" if is_erase else ""),
            gradient_math=f"d{letter} = {'-r' if is_erase else 'do'} w^T, d{name} = {'-r' if is_erase else 'do'} ({mine}S)^T + dA k",
            math=f"o{suffix}_i = sum_j (u_i . w_j) {f'exp({G}_i - G_j) ' * self.has_decay}k_j + {mine}S u_i"
            if is_value
            else f"o{suffix}_i = sum_j {letter}_ij w_j + {mine}S^T q{suffix}_i",
            is_query=not (is_erase or is_value),
            is_value=is_value,
            given=self._read_gradient_name(suffix) if is_value else "",
            buffers=tuple(self._dual_buffers(f"q{suffix}", f"pairs{suffix}")) if is_value else (),
        )

    def _passed(self, name: str, made: str) -> str:
        """What a function of pairs is given by the kernel that makes operands."""
        own = [n for n in (name, "k") if not (n == "e" and n in self.places)]
        passed = [self.places[n].argument if n in self.places else f"made_{n}" for n in own]
        passed += ["made_sums"] * self.has_decay + [f"made_{f}" for f in map(self._factor, (name, "k")) if f]
        return "".join(f"{n}, " for n in (*passed, f"made_{made}"))

    # --- the package ---

    def package(self) -> RowsPackage:
        operands, operand_stores, kept_stores = self._operands()
        readers = self._readers()
        queries, duals = [r for r in readers if r.is_query], [r for r in readers if r.is_value]
        of_keys = [r for r in readers if not r.is_value]
        held = (held_rows(self, of_keys, kept_stores),) if self.is_held else ()
        walked_erase = self._faded_text("e") if self.is_wide else "b_k" if "e" in self.places else self._columns_text("e")
        askers = [*queries, *duals]
        nothing = Walked("", (), ())
        has_readout = not (self.is_read_whole or self.is_part)
        made_text = " ".join([line.text for line in (*operands.head, *operands.rows)] + list(operand_stores) + ["o_n m_n"] * self.is_held)
        met = {n: block for n, block in (("n", "BK"), ("p", "BV")) if re.search(rf"\b[om]_{n}\b", made_text)}
        places = "_runs(CT, RUN)" if self.is_wide else f"tl.arange(0, {self.token_tile})"
        masks = {"n": f"o_n < {self.K}", "p": f"o_p < {self.P}"}
        erases_before = self.has_erase and not self.erases_after
        token_mask = "(o_t < length) & (o_i < CT)" if self.fills_tiles else "o_t < length"
        readout, readout_stores = self._readout() if has_readout else (nothing, ())
        readout_gradient, readout_gradient_stores = self._readout_gradient() if has_readout else (nothing, ())
        gradient, gradient_stores, lines, extra, order = self._gradient()
        outputs, totals, found = self._outputs(lines)
        given_back = [s for s in self.tokens.arguments if s.name in found] if self.is_part else self.tokens.arguments
        results = tuple(found.get(s.name) or self._without(s) for s in given_back)
        texts = [*self.texts, *operand_stores, *gradient_stores, *(s.value for s in self.turns.summed)]
        inputs = [s for s in self.tokens.arguments if s.kind == "input"]
        given = [s for s in self.tokens.given if s.kind == "input"]
        first = next((s for s in inputs if not s.type.is_scalar), inputs[0])
        like = first if self.is_part else next((s for s in inputs if s.type == self.output.type), first)
        sizes = {line.target: line.text for line in self.tokens.sizes()}
        names = self.size_names()
        if any(n not in sizes for n in names):
            raise UnsupportedOperand("a size that no argument shows")
        group = next((s for s in self.tokens.arguments if s.per == "group"), None)
        query_names = [r.name for r in queries]
        erase = ["e"] if self.has_erase else []
        sums = ["sums"] if self.has_decay else []
        own_erase = [n for n in erase if n not in self.places]
        factors = {n: self._factor(n) for n in (*query_names, "k", "v", *erase)}
        key_factors = [f for n, f in factors.items() if f and n != "v"]
        value_factors = [f for n, f in factors.items() if f and n == "v"]
        operand_names = (
            [r.read_gradient for r in duals]
            + [n for n in (*query_names, "k", "v", *erase) if n not in self.places]
            + sums
            + key_factors
            + value_factors
        )
        is_placed_key = any(n in self.places for n in (*query_names, "k"))
        reads_groups = any(level(p.symbol.per) == "g" for p in self.places.values())
        faded = [f"faded_{n}" for n in ("k", *query_names, *erase)] if self.is_wide else []
        paired = [*query_names, "k", *own_erase, *sums, *key_factors]
        pair_outputs = [*(r.made for r in of_keys), *faded]
        dual_queries = [f"faded_{r.name}" if self.is_wide else r.name for r in duals]
        dual_inputs = [*dual_queries, *(r.pairs for r in duals)]
        key_number = [factors["k"]] if factors["k"] else []
        dual_paired = [*(r.name for r in duals), "k", *sums, *key_number]
        dual_outputs = [*(r.pairs for r in duals), *(dual_queries if self.is_wide else [])]
        pair_kernels = self._pair_kernels(of_keys, duals, (paired, pair_outputs), (dual_paired, dual_outputs))
        # where keys fade at their own rates, the program that makes a chunk's operands makes of them what its rows read of each other
        has_operands = bool(operand_stores) and not (self.is_wide or self.joins_operands)
        walked = [f"faded_{n}" if self.is_wide else n for n in (*query_names, "k")]
        walked += ["v", *([f"faded_{n}" for n in erase] if self.is_wide else own_erase), *sums, *(r.pairs for r in of_keys)]
        walked += value_factors if self.is_wide else [*key_factors, *value_factors]
        own = {name for r in queries for name in (f"faded_{r.name}" if self.is_wide else r.name, r.pairs, factors[r.name])}
        entering = [n for n in walked if n not in own]
        leaving = [n for n in walked if n not in ("v", *value_factors)]
        has_total = self.has_erase or self.has_decay
        buffers = self._buffers(readers)
        # a number a row each is little beside the pairs
        keeps_factors = bool(operand_stores) and all(b.allocation in ("CT", "BC") for b in buffers)
        kept_sizes = [f"rows * {'BT' if r.is_erase or self.lone(r.name) is None else 'CT'} * BT * dtype.itemsize // 4" for r in of_keys]
        if keeps_factors:
            kept_sizes += [f"rows * CT * {self.count}" if b.allocation == "BC" and self.count > 1 else "rows * CT" for b in buffers]
        gradient_buffers = tuple(self._gradient_buffers(readers))
        of_gradients = [b for b in gradient_buffers if b.size]
        owns_written = self.has_erase and "v" in self.places
        written = ["written"] if self.has_erase else ["v", *value_factors]
        gradient_inputs = [*(r.name for r in duals), *paired]
        gradient_outputs = [r.gradient for r in of_keys] + ["grad_k"] + (["grad_g"] if self.has_decay else [])
        position = ["position"] if self.plan.uses_position else []
        constants = [pointer(n) for n, _ in self.spec.constants]
        arguments = [pointer(s.name) for s in self.tokens.arguments]
        prepared = [*arguments, *position, *constants]
        states = [identifier(s) for s in self.own_states()]
        by_name = {state: identifier(state) for state in self.walk.states}
        states = [f"initial_{s}" for s in states]
        moved = [f"moved_{s.removeprefix('initial_')}" for s in states]
        reads_before = any(r.is_before for r in readers)
        erase_sum = "G" if self.erases_after else "Gx"
        unpacked, used = unpack(self.walk)
        unpack_sizes = [of_pointer(sizes[n]) for n in used]
        groups = f"{pointer(group.name)}.shape[{2 if group.kind == 'input' else 0}]" if group is not None else "1"
        K_value, V_value = self.K, self.V
        G = "G" if self.has_decay else ""
        narrow = self.has_decay and not self.is_wide
        # where keys fade alike, the kernel of the gradients makes those of pairs, too
        faded_readers = readers if self.is_wide or self.walk.numbers else []
        faded_gradients = [n for r in faded_readers for n in (r.pair_gradient, r.own) if n]
        absent = ["operands"] * (not has_operands) + ["pair gradients"] * (not (faded_readers or duals))
        count_text = {1: "a row"}.get(self.count, f"{self.count} rows")
        if self.step > 1:
            count_text += f", {self.step} of which act together"
        token_inputs = [
            *(["dy"] if "dy" in extra else []),
            *(b for b in dict.fromkeys(c.buffer for c in self._cuts()) if b in extra),
            *order,
        ]
        scale_text = self.tokens.printer.text(self.scale) if self.scale is not None else ""
        decay_text = f"exp({G}_C) " if self.has_decay else ""
        fade_text = f"exp({G}_C - {G}_j) " if self.has_decay else ""
        x = f"exp({erase_sum}_i) " if self.has_decay else ""
        write_math = f"w = (1 + J)^-1 (v - {x}e S)"
        logs = [row.log_decay for row in self.walk.rows if row.log_decay is not None]
        kept = [r.read for r in queries] if self.plan.stores_reads else []
        return RowsPackage(
            title=f"{title_of(self.spec)}: the walk of {', '.join(self.own_states())}" if self.is_part else title_of(self.spec),
            is_part=self.is_part,
            is_whole=not self.is_part,
            prefix=f"{self.module}_" if self.is_part else "",
            gives=tuple(s.name for s in given_back),
            asked=self._read_gradient_name(self.walk.readings[0].name[1:]) if self.is_part else "dy",
            equations=equations(self.spec),
            legend=self._legend(readers),
            helpers=helpers(texts),
            count=self.count,
            has_token_buffers=self.count > 1 and any(r.name not in self.places or self.lone(r.name) is not None for r in askers),
            has_steps=self.step > 1,
            reader_count=len(of_keys),
            keeps_pairs=bool(of_keys),
            pair_programs="slots" if self.joins_operands else _times("slots", len(of_keys)),
            pair_kernels=pair_kernels,
            is_narrow=narrow,
            is_held=self.is_held,
            holds_rows=held,
            reads_pairs=self.is_wide and not self.is_held,
            pair_keys_parameter="" if self.is_held else "CK: tl.constexpr, ",
            pair_keys_argument="" if self.is_held else 'tiles["CK"], ',
            chunk_divisor=self.count if self.fills_tiles else self.whole_count,
            fills_tiles=self.fills_tiles,
            token_tile=self.token_tile,
            token_mask=token_mask,
            tile_parameter="TT: tl.constexpr, " if self.fills_tiles else "",
            tile_argument="triton.next_power_of_2(CT), " if self.fills_tiles else "",
            chunk_tokens="BC" if self.count == 1 else f"BC // {self.count}",
            is_single=self.count == 1,
            is_several=self.count > 1,
            chunk_mask="o_i < length - t0" if self.count == 1 else f"o_i < tl.minimum((length - t0) * {self.count}, BC)",
            base="bos + length - 1 - t0" if self.plan.is_reversed else "bos + t0",
            head_token=token_index(self._token, "h", self.plan.is_reversed),
            query_tile=f"BT // {self.query_share}",
            leaves_before=erases_before if self.count > 1 else reads_before,
            count_text=count_text,
            step=self.step,
            block=str(self.plan.block * self.count) if self.plan.is_bounded else str(self.step),
            span_parameters="BLOCK: tl.constexpr, LIMIT: tl.constexpr, " if self.is_wide else "",
            span_arguments="BLOCK, LIMIT, " if self.is_wide else "",
            span_values='*_spans(options["BC"], dtype), ' if self.is_wide else "",
            all_sums="".join(f"{n}, " for n in sums),
            is_falling=self.is_wide and all(bounds_of(self.spec).of(log).high <= 0 for log in logs),
            spans='*_spans(options["BC"], dtype), ' if self.is_wide else "",
            sums_pointer="sums, " if narrow else "",
            given_pointer="grad_v, " if self.has_erase else "",
            pair_gradient_names=tuple(n for r in readers for n in (r.pair_gradient, r.own) if n),
            written_inputs=tuple(written),
            made_written=_made(written),
            made_sums='made["sums"], ' if narrow else "",
            is_wide=self.is_wide,
            has_decay=self.has_decay,
            has_erase=self.has_erase,
            has_groups=group is not None,
            has_readout=has_readout,
            stores_reads=self.plan.stores_reads,
            uses_position=self.plan.uses_position,
            reads_before=reads_before,
            erases_before=erases_before,
            moves_before=reads_before and self.has_decay,
            is_first=("(o_i % STEP == 0)[:, None]" if self.is_wide else "o_i % STEP == 0"),
            erasing=self._erasing(),
            row="bos + length - 1 - o_t" if self.plan.is_reversed else "bos + o_t",
            numbers="".join(f"{n}: tl.constexpr, " for n in names),
            number_arguments="".join(f"{n}, " for n in names),
            sizes=tuple(CodeLine("", n, of_pointer(sizes[n])) for n in names),
            width_sizes=tuple(CodeLine("", n, of_pointer(sizes[n])) for n in names if re.search(rf"\b{n}\b", f"{self.K} {self.V}")),
            key_width=self.K,
            value_width=self.P,
            K_value=K_value,
            V_value=V_value,
            known_widths=known(K_value, V_value),
            first=pointer(first.name),
            first_state=states[0],
            state_count=len(states),
            state_tuple="".join(f"{s}, " for s in states).rstrip() if len(states) == 1 else ", ".join(states),
            moved_tuple=f"{moved[0]}," if len(moved) == 1 else ", ".join(moved),
            joined_sizes=", ".join(["sequences", "H", K_value, V_value, *unpack_sizes]),
            heads=heads_text(self.tokens),
            name=self.spec.name,
            groups=groups,
            vectors=", ".join(pointer(s.name) for s in given if not s.type.is_scalar) or pointer(given[0].name),
            argument_list=", ".join(arguments),
            given_list=", ".join(pointer(s.name) for s in self.tokens.given),
            states=", ".join(states),
            state_gradient_list=", ".join(moved),
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
            operand_offsets=_pairs_text([("o_i", places), *((f"o_{n}", f"tl.arange(0, {b})") for n, b in met.items())]),
            operand_masks=_pairs_text([("m_t", token_mask), *((f"m_{n}", masks[n]) for n in met if f"m_{n}" in made_text)]),
            scale_pointer="scale, " if self.scale is not None else "",
            scale_value=f"{scale_text}, " if self.scale is not None else "",
            prepared=tuple(prepared),
            buffers=() if keeps_factors else tuple(buffers),
            keeps_factors=keeps_factors,
            makes_operands_again=not keeps_factors,
            factor_targets="".join(f'made["{b.name}"], ' for b in buffers).removesuffix(" " if len(buffers) == 1 else ", "),
            made_operands="".join(f'made["{n}"], ' for n in operand_names),
            made_pairs="".join("erased, " if n == "erased" else f'made["{n}"], ' for n in ([] if self.is_wide else paired) + pair_outputs),
            pair_outputs="".join("erased, " if n == "erased" else f'made["{n}"], ' for n in pair_outputs),
            kept_pairs="".join(f'made["{r.pairs}"], ' for r in of_keys).removesuffix(" " if len(of_keys) == 1 else ", "),
            keeps_rows=bool(kept_sizes),
            kept_sizes=f"{sizes_text(kept_sizes)}, " if kept_sizes else "",
            pair_gradient_list="".join(f", {n}" for n in (*faded_gradients, *["written"] * self.has_erase)),
            made_parameter="IS_MADE: tl.constexpr, " if self.is_wide else "",
            made_argument="IS_MADE, " if self.is_wide else "",
            made_walk="".join(f'made["{n}"], ' for n in walked),
            made_gradient=_all_made(gradient_inputs) + _made(written),
            readers=tuple(readers),
            queries=tuple(queries),
            askers=tuple(askers),
            duals=tuple(duals),
            reads_values=bool(duals),
            left_behind=("states, " + "written, " * self.has_erase) if duals else "",
            asks=tuple(r.read_gradient for r in duals),
            ask_pairs=tuple(n for r in duals for n in (r.pair_gradient, r.own) if n),
            ask_gradients=tuple(r.gradient for r in duals),
            value_inputs=("k", *sums, *key_number),
            made_keys=_all_made(["k", *sums, *key_number]),
            value_reads=tuple(r.read for r in duals),
            dual_gradients=tuple(r.given for r in duals),
            dual_queries=tuple(r.name for r in duals),
            made_dual_queries=_all_made([r.name for r in duals]),
            dual_inputs=tuple(dual_inputs),
            made_duals=_all_made(dual_inputs),
            made_dual_pairs=_all_made([*dual_paired, *dual_outputs]),
            made_value_gradients=_all_made(sums) if narrow else "",
            dual_programs="slots" if self.is_wide else _times("slots", len(duals)),
            made_now="False, " if self.is_wide else "",
            results_read=tuple(self._read_name(r.name[1:]) for r in self.walk.readings),
            given_gradients=tuple(self._read_gradient_name(r.name[1:]) for r in self.walk.readings),
            walk_inputs=tuple(walked),
            entering_inputs=tuple(entering),
            leaving_inputs=tuple(leaving),
            made_entering="".join(f'made["{n}"], ' for n in entering),
            made_leaving="".join(f'made["{n}"], ' for n in leaving),
            total_pointer="total, " if has_total else "",
            total_size=f", edges{' * K * K' if self.has_erase else ' * K' if self.is_wide else ''}" if has_total else "",
            has_total=has_total,
            kept_of_segments="edges, total" if has_total else "edges",
            summary_programs=f'programs + _count({K_value}, options["BV"]) * sequences * H' if self.has_erase else "programs",
            enough=4 if self.has_erase else 3,
            key_columns=self._columns_text("k"),
            paired_key=self._of_key_tile("k", self._columns_text("k")) if self.is_wide else self._columns_text("k", is_bare=True),
            key_tile=self._columns_text("k", is_bare=True).removesuffix(".to(DOT)"),
            walked_key=f"_rows(faded_k, {CHUNK})" if self.is_wide else self._columns_text("k", is_bare=True),
            walked_erase=walked_erase,
            value_columns=self._columns_text("v"),
            written_columns="_rows(written, i_s, o_i, o_p, V, BV, BC)" if self.has_erase else self._columns_text("v"),
            written_allocation=f"torch.empty(slots, H, BC, {V_value}, dtype=dtype, device=device)" if "v" in self.places else 'made["v"]',
            placed=(*(Buffer(n, p.argument) for n, p in self.places.items() if n != "e"), *self._ask_buffers(duals)),
            has_operands=has_operands,
            joins_operands=self.joins_operands,
            has_token_kernels=has_operands or has_readout,
            has_placed_keys=is_placed_key,
            reads_groups=reads_groups,
            group_parameter="G: tl.constexpr, " if reads_groups else "",
            group_argument="G, " if reads_groups else "",
            place_parameters=f" base, m_t, i_h,{' i_g,' if reads_groups else ''}" if is_placed_key else "",
            place_arguments=f"base, m_t, i_h, {'i_g, ' if reads_groups else ''}" if is_placed_key else "",
            place_numbers=f"H: tl.constexpr, {'G: tl.constexpr, ' if reads_groups else ''}" if is_placed_key else "",
            place_values=f"H, {'G, ' if reads_groups else ''}" if is_placed_key else "",
            token_specialization='(do_not_specialize=["T", "sequences"])' if is_placed_key else "",
            token_parameters="cu_seqlens, T, sequences, " if is_placed_key else "",
            token_arguments="packing, T, sequences, " if is_placed_key else "",
            token_numbers="PACKED: tl.constexpr, " if is_placed_key else "",
            token_values="is_packed, " if is_placed_key else "",
            read_names=tuple(r.read for r in queries),
            own_reads=() if self.is_read_whole else tuple(r.read for r in queries),
            read_list=", ".join(r.read for r in queries),
            kept_names=tuple(kept),
            read_gradient_names=tuple(r.read_gradient for r in askers),
            forward_title=self._title(),
            write_math=write_math,
            carry_math=f"S = {decay_text}S + sum_j {fade_text}k_j w_j^T",
            written_gradient_math=f"dw = A^T do + {f'exp({G}_C - {G}_i) ' if self.has_decay else ''}k D",
            key_gradient_math=f"dk = {fade_text.replace('_j', '_i')}w D^T + sum dA^T q",
            given_gradient_math="r = (1 + J)^-T dw",
            erase_fade=self._fade("e", f"b_{erase_sum}"),
            key_fade=self._fade("k", "b_last - b_G"),
            carried_write=f"b_w{self._fade('k', 'b_last - b_G')}",
            erased_gradient=f"b_r{self._fade('e', f'b_{erase_sum}')}",
            state_fade=" * tl.exp2(b_last)" if narrow else " * tl.exp2(b_last)[:, None]" if self.is_wide else "",
            state_fade_assigned=" *= tl.exp2(b_last)" if narrow else " *= tl.exp2(b_last)[:, None]",
            written_output="written, " if self.has_erase else "",
            gradient_inputs=(*gradient_inputs, *written),
            gradient_outputs=tuple(gradient_outputs),
            gradient_buffers=gradient_buffers,
            taken_buffers=tuple(b for b in gradient_buffers if not b.size),
            gradient_targets=tuple_of(["grad_v", *(b.name for b in of_gradients)]),
            gradient_sizes=sizes_text([f"slots * H * BC * {V_value}", *(b.size for b in of_gradients)]),
            walked_targets=tuple_of(["states", "adjoints", *["written"] * owns_written, *(r.pair_gradient for r in faded_readers)]),
            walked_sizes=sizes_text(
                [f"slots * H * {K_value} * {V_value}"] * 2
                + [f"slots * H * BC * {V_value}"] * owns_written
                + ["slots * H * BT * BT"] * len(faded_readers)
            ),
            writes_over=self.has_erase and not owns_written,
            readout=readout,
            readout_store="".join(readout_stores),
            readout_gradient=readout_gradient,
            readout_gradient_stores=readout_gradient_stores,
            output_shape="" if self.is_part else "batch, T, H" if self.output.type.is_scalar else f"batch, T, H, {self.output_width}",
            output_like=pointer(like.name),
            gradient=gradient,
            gradient_stores=gradient_stores,
            turns=self.turns,
            token_inputs=tuple(token_inputs),
            token_outputs=tuple(dict.fromkeys(stored.buffer for stored, _ in lines)),
            outputs=outputs,
            share_parameter="BLOCKS: tl.constexpr, " if narrow else "",
            share_count="blocks, " if narrow else "",
            totals=totals,
            results=results,
            pair_block="64" if self.is_wide else "128",
            # whole rows of keys are in registers while operands are made
            pair_warps="8 if _width(K, dtype) > 128 else 4" if self.is_wide else "4",
            stage_keys=str(2 if self.has_erase and walked_erase != "b_k" else 1),
            stage_inverse=" + BT" if self.has_erase else "",
            # what is read of a chunk takes as many values as the chunk has
            stage_others=f" + {'' if len(queries) == 1 else f'{len(queries)} * '}BQ * (BK + BT + BV)" if queries else " + BT * BV",
            has_narrow_gradients=self.is_wide and self.count == 1,
            # a program mostly waits: two of them on a multiprocessor hide more than the few tiles cost that then leave registers
            pair_registers="128" if self.is_held else "168" if self.is_wide else "None",
            operand_warps="8" if self.count == 1 else "4",
            tuned=tuple(self._tuned(kernel) for kernel in TUNED if kernel.name not in absent),
            makes_pair_gradients="pair gradients" not in absent,
        )  # fmt: skip

    def _erasing(self) -> str:
        """The range of the rows of 16 that may correct what others write: those are left out at whose place in a token none does."""
        rows = [i for i in range(1, 16) if 16 % self.count or self.walk.rows[i % self.count].erase is not None]
        distances = {b - a for a, b in zip(rows, rows[1:])}
        if distances == {1} or len(distances) != 1:
            return "1, 16"
        return f"{rows[0]}, 16, {distances.pop()}"

    def _listing(self, kernel: Tuned) -> str:
        """Who lists the configurations: those of a walk are a device's, and there are walks from the left and from both ends."""
        ways = {"forward": 1, "states": 2}.get(kernel.name)
        share = f", share={self.query_share}" if kernel.name == "states" and self.count > 1 else ""
        return f"functools.partial({kernel.listing}, device, {ways}{share})" if ways else kernel.listing

    def _tuned(self, kernel: Tuned) -> Tuned:
        """The kernel under the name that a table has for it, which tells walks apart."""
        kernel = replace(kernel, listing=self._listing(kernel))
        return replace(kernel, name=f"{self.module} {kernel.name}") if self.is_part else kernel

    def _buffers(self, readers: list[Reader]) -> list[Buffer]:
        typed = "dtype=dtype"
        found = [Buffer(r.name, f"CT, {self.K}, {typed}") for r in readers if r.is_query]
        found += [Buffer(n, f"BC, {self.K}, {typed}") for n in ("k", *(["e"] if self.has_erase else []))]
        found.append(Buffer("v", f"BC, {self.V}, {typed}"))
        found = [buffer for buffer in found if buffer.name not in self.places]
        found += [Buffer(self._factor(n), "CT" if len(p.numbers) == 1 else "BC") for n, p in self.places.items() if self._factor(n)]
        if self.has_decay:
            found.append(Buffer("sums", f"BC, {self.K}" if self.is_wide else "BC"))
        if self.is_wide:
            found += [Buffer(r.faded, f"{self._faded_rows(r.name)}, {self.K}, {typed}") for r in readers if not r.is_value]
            found.append(Buffer("faded_k", f"BC, {self.K}, {typed}"))
        return found

    def _faded_rows(self, letter: str) -> str:
        """Rows of a chunk's place for an operand as it fades."""
        return "BC" if self.lone(letter) is None else "CT"

    def _dual_buffers(self, name: str, pairs: str) -> Iterator[Buffer]:
        yield Buffer(name, f"CT, {self.K}, dtype=dtype")
        yield Buffer(pairs, "BT, BT, dtype=dtype")
        if self.is_wide:
            yield Buffer(f"faded_{name}", f"BC, {self.K}, dtype=dtype")

    def _ask_buffers(self, duals: list[Reader]) -> list[Buffer]:
        """Queries of values lie token by token, as the gradients of reads do."""
        return [Buffer(r.read_gradient, f"torch.empty(batch, T, H, {self.V}, dtype=dtype, device=device)") for r in duals]

    def _pair_kernels(self, of_keys: list[Reader], duals: list[Reader], own: tuple, other: tuple) -> tuple[PairKernel, ...]:
        """own, other: the inputs and outputs of the two."""
        found = []
        if of_keys or self.is_wide:
            title = "What the rows of a chunk read of each other" + (", and the inverse of what they erase." if self.has_erase else ".")
            title = title if of_keys else "Keys as they fade to the end of a chunk."
            found.append(self._pair_kernel("pairs", title, of_keys, own, bool(duals)))
        if duals:
            title = "What the gradients of reads of values read of the rows of a chunk."
            found.append(self._pair_kernel("dual_pairs", title, duals, other, False))
        return tuple(found)

    def _pair_kernel(self, name: str, title: str, readers: list[Reader], ends: tuple, is_followed: bool) -> PairKernel:
        inputs, outputs = ends
        is_main = name == "pairs"
        passed = [self.places[n].argument if n in self.places else f"made_{n}" for n in inputs]
        math = [r.pair_math for r in readers] + ["k_jn exp(G_Cn - G_jn)"] * (is_main and not readers)
        return PairKernel(
            name=f"{name}_kernel",
            title=title,
            math=tuple(math),
            helper=name,
            readers=tuple(readers),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            made_outputs=tuple(f"made_{n}" for n in outputs),
            passed=(*passed, *(f"made_{n}" for n in outputs)),
            makes_operands=is_main and (self.is_wide or self.joins_operands),
            fades_keys=is_main,
            is_before=any(r.is_before for r in readers),
            has_readers=bool(readers),
            count=len(readers),
            has_parts=len(readers) > 1,
            is_followed=is_followed,
        )

    def _gradient_buffers(self, readers: list[Reader]) -> list[Buffer]:
        """Where a faded operand has a place for every row, the gradient takes it: the walk has read it."""
        rows = {r.name: r for r in readers if not r.is_value} | {"k": None}
        found = []
        for name, reader in rows.items():
            is_by_row = reader is None or reader.is_by_row
            rows = "BC" if is_by_row else "CT"
            if self.is_wide and rows == self._faded_rows(name):
                found.append(Buffer(f"grad_{name}", f'made.pop("faded_{name}")'))
            else:
                allocation = f"torch.empty(slots, H, {rows}, {self.K}, dtype=dtype, device=device)"
                found.append(Buffer(f"grad_{name}", allocation, f"slots * H * {rows} * {self.K}"))
        if self.is_wide:
            found.append(Buffer("grad_g", 'torch.empty_like(made["sums"])'))
        return found

    def own_states(self) -> list[str]:
        """The states that the walk carries, in order of declaration."""
        return [s.name for s in self.spec.states if s.name in self.walk.states]

    def size_names(self) -> list[str]:
        """The sizes that kernels are compiled for."""
        return [identifier(n) for n in dict.fromkeys(n for s in self._all_sizes() for n, _ in s.terms)]

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
            x = f"exp({'G' if self.erases_after else 'Gx'}_i) " if self.has_decay else ""
            lines.append(f"w    = (1 + J)^-1 (v - {x}e S), what the rows really write")
        else:
            lines.append("w    = v")
        lines += [r.math for r in readers if not r.is_erase]
        if self.has_decay:
            lines.append("G    = running sum of g" + (", Gx the one before the row's own" if any(r.is_before for r in readers) else ""))
        return tuple(lines)


def _pairs_text(pairs: list[tuple[str, str]]) -> str:
    """One assignment of several values."""
    return f"{', '.join(name for name, _ in pairs)} = {', '.join(value for _, value in pairs)}"


def _times(size: str, count: int) -> str:
    return f"{size} * {count}" if count > 1 else size


def _all_made(names: Iterable[str]) -> str:
    return "".join(f'made["{n}"], ' for n in names)


def _made(written: list[str]) -> str:
    return "".join("written, " if n == "written" else f'made["{n}"], ' for n in written)


def _prefixed(text: str, names: dict[str, str]) -> str:
    """The text with every state under the name of what it starts from."""
    return re.sub(r"[A-Za-z_]\w*", lambda m: f"initial_{m[0]}" if m[0] in names.values() else m[0], text)
