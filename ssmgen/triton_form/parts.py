"""The parts of the gradients' kernel: of queries, keys and values."""

from __future__ import annotations

import re

from .. import algebra
from ..backends.torch_pointwise import ATOM
from ..backends.triton_value import HALF, Text, loaded, size_text
from ..expressions import nodes
from ..kernel import KEY, ROW, VALUE
from ..spec import Expr, Neg, Ref
from ..torch_form.tokens import level
from .fused_package import Angle, Part
from .gradients import MADE, Gradient
from .launch import tuple_of
from .operands import INDENT, Operands, atom, column
from .site import CodeLine, Site, masked, pointer


class Parts(Operands):
    """What each part reads, makes and writes."""

    def _level(self, expr: Expr | None) -> str:
        return "" if expr is None else self.tokens.printer.place(expr).level

    def _is_shared(self) -> bool:
        """Heads of a group share queries and keys, and nothing of a head's own is in their gradients: one product for them all."""
        if self.folded is not None or self.walk.own is not None:
            return False
        if self._level(self.walk.key) != "g" or self._level(self.reading.query) != "g":
            return False
        own = [g for g in (*self.gradients.arguments, *self.gradients.rows) if g.part in ("query", "key")]
        return all(self._is_of_group(g) for g in own)

    def _is_of_group(self, gradient: Gradient) -> bool:
        if gradient in self.gradients.rows:
            return False
        symbol = self.tokens.symbols[gradient.name]
        places = self.tokens.printer.places
        names = {n.name for n in nodes(gradient.expr) if isinstance(n, Ref)}
        return (
            symbol.kind == "input" and level(symbol.per) == "g"
            and all(n in (MADE + "d_q", MADE + "d_k") or (n in places and places[n].level != "h") for n in names)
        )  # fmt: skip

    def _parts(self) -> tuple[Part, ...]:
        is_shared = self._is_shared()
        kinds = []
        for name in ("query", "key", "value"):
            own = [g for g in (*self.gradients.arguments, *self.gradients.rows) if g.part == name]
            needs_dots = self.gradients.needs_decay and name != "key"
            needs_source = name == "value" and self.gradients.needs_source
            if own or needs_dots or needs_source:
                kinds.append(self._part(name, is_shared and name != "value"))
        return tuple(kinds)

    def _part(self, name: str, is_shared: bool) -> Part:
        is_key_side = name != "value"
        whole, out = (VALUE, KEY) if is_key_side else (KEY, VALUE)
        blocks = {KEY: "BK", VALUE: "BV"}
        head = Site(self.tokens, {whole: blocks[whole]}, axis_of=self.axis_of)
        row = Site(self.tokens, {ROW: self.BR}, ROW, head, loads=self._backward_loads())
        x, y = {
            "query": (self._read_gradient, self._value),
            "key": (self._value, self._read_gradient),
            "value": (self._key, self._query),
        }[name]
        x, y = x(row), y(row)
        needs_narrow = self.gradients.needs_source or self.gradients.needs_decay
        if self.narrow and (name != "value" or needs_narrow):
            self._narrow_gradients(row)
        block_outer = row
        group: Site | None = None
        if is_shared:
            top = Site(self.tokens, {out: blocks[out]}, axis_of=self.axis_of)
            block_outer = group = Site(self.tokens, {ROW: self.BR}, ROW, top)
            top.arguments = head.arguments
        block = Site(
            self.tokens,
            {out: blocks[out]} if not is_shared else {},
            out if not is_shared else "",
            block_outer,
            loads=self._backward_loads(),
        )
        place = group or block
        z = {"query": self._key, "key": self._query, "value": self._read_gradient}[name](place)
        own = ""
        # what the decay moves: pairs and S, which the part of queries has, and k_i . D v_i, which that of values has as v_i . D^T k_i
        has_dots = self.gradients.needs_decay and name != "key"
        if has_dots:
            own = {"query": self._query, "value": self._value}[name](place)
        letter = {"query": "q", "key": "k", "value": "v"}[name]
        gradient = f"b_d{letter}"
        pairs = tuple(place.lines)
        if name in dict(self.walk.turns):
            place.add(f"o_{HALF}", "i_c * (BK // 2) + tl.arange(0, BK // 2)")
        before = len(place.lines)
        operand = {"query": self.reading.query, "key": self.walk.key, "value": self.value}[name]
        if operand is not None:
            # rows without a token have no value, but the adjoint of a narrow state meets them as well
            past = {out: 0.0} if name == "key" and self.narrow else {ROW: 0.0, out: 0.0}
            place.given[MADE + f"d_{letter}", out] = Text(gradient, ATOM, (ROW, out), past)
        stores, sums, starts, row_stores = self._own_gradients(name, place, out)
        after = place.lines[before:]
        del place.lines[before:]
        late = {gradient}
        for line in after:
            if _uses(line.text, late):
                late.add(line.target)
        early, after = [line for line in after if line.target not in late], [line for line in after if line.target in late]
        stores, moved_in = _inside(stores, early, [line.text for line in (*early, *after)] + sums + row_stores)
        place.lines += [line for line in early if line not in moved_in]
        fade, faded = self._fade(name)
        narrow, moved = self._narrow_parts(name, is_shared)
        self._remember(head, row, *([group] if group else []), block)
        self.texts += [line.text for line in after]
        if block.sums & {out}:
            self.whole.add(out)
        source_sums = []
        for n in range(len(self.narrow) if name == "value" and needs_narrow else 0):
            state = f"tl.sum({x}.to(tl.float32) * tl.load(adjoints_{n} + i_s * {atom(self.K)} + o_n, mask=m_n, other=0.0)[None, :], 1)"
            source_sums.append(CodeLine("", f"b_m{n}", f"{state} * b_fade" if self.has_decay else state, "[BT]"))
            if self.gradients.needs_source:
                source_sums.append(CodeLine("", f"b_du{n}", f"tl.sum(b_a * b_d{n}[None, :], 1) + b_m{n}", "[BT]"))
        sees_back, sees_ahead = (">", "<") if self.is_exclusive else (">=", "<=")
        letters = {"query": ("do", "v", "k"), "key": ("v", "do", "q"), "value": ("k", "q", "do")}[name]
        Q = "Q" if self.is_exclusive else "G"
        is_reverse = name != "query"
        weight = (f"exp({Q}_j - G_i) " if is_reverse else f"exp({Q}_i - G_j) ") if self.has_decay else ""
        edge = ("exp(G_C - G_i) " if is_reverse else f"exp({Q}_i) ") if self.has_decay else ""
        state = "states" if name == "query" else "adjoints"
        coefficient = self.walk.coefficient is not None
        c = {"query": "c_j ", "key": "c_i ", "value": ""}[name] if coefficient else ""
        sums_math = {"query": "S do_i", "key": "D v_i", "value": "D^T k_i"}[name]
        order = "<=" if not self.is_exclusive else "<"
        is_natural = is_shared or not is_key_side
        keys, values = ("o_n[:, None]", "o_p[None, :]") if is_natural else ("o_n[None, :]", "o_p[:, None]")
        buffers = [self._buffer(g) for g in self.gradients.arguments if g.part == name]
        return Part(
            name=name,
            title={
                "query": "dq_t = S_t do_t: the walk once more, its state read from the other side",
                "key": "dk_t = D_t v_t: the adjoint state D, walked from the right, read from the value side",
                "value": "dv_t = D_t^T k_t: the adjoint state read from the key side",
            }[name] + (", for the heads of a group at once" if is_shared else ""),
            pointers=self._pointers(head),
            outputs="".join(f"{b}, " for b in buffers),
            index="i_g" if is_shared else "i_h",
            uses_slot=bool(self._gate_names() or narrow or source_sums or self.angle.query) or any("i_s" in line for line in stores),
            when="", program="",  # `_numbered` knows
            blocks="BK, BV" if is_shared else "CK, BV" if is_key_side else "BK, CV",
            is_shared=is_shared,
            has_dots=has_dots,
            has_pairs=has_dots and name == "query",
            pairs=pairs,
            x=x, y=y, z=z, own=own,
            gradient=gradient,
            state=state,
            other="states" if name == "value" else "",
            state_offsets=f"{keys} * {atom(self.V)} + {values}",
            state_mask="m_n[:, None] & m_p[None, :]" if is_natural else "m_p[:, None] & m_n[None, :]",
            state_shape="[BK, BV]" if is_natural else "[BV, BK]",
            seen=sees_ahead if is_reverse else sees_back,
            pair_math=f"A_ij = {c}{weight}{letters[0]}_i . {letters[1]}_j, " + (f"i {order} j" if is_reverse else f"j {order} i"),
            pair=self._pair(name),
            fade=fade, faded=faded, later=self._later(block_outer, out) if name == "key" and self.angle.query else (),
            out_math=f"d{letter}_i = sum_j A_ij {letters[2]}_j + {c if name == 'key' else ''}{edge}{sums_math}",
            moved="b_moved" + (" * b_c" if coefficient else ""),
            has_own=self.walk.own is not None,
            narrow=narrow, narrow_moved=moved, narrow_dot=self._narrow_dots(is_shared),
            source_sums=tuple(source_sums),
            group=tuple(group.lines) if group else (),
            head=tuple(head.lines), rows=tuple(row.lines), block=tuple(block.lines) if not group else (),
            after=tuple(after),
            stores=tuple(stores),
            # tiles that the products do not need are given up before them
            early_sums=tuple(s for s in sums if self.folded is not None and not _uses(s, late)),
            sums=tuple(s for s in sums if self.folded is None or _uses(s, late)), sum_starts=tuple(starts), row_stores=tuple(row_stores),
            loads=self._gate_loads({"query": "GQcu", "key": "GQlcu", "value": "GQlcu" if has_dots else "GQl"}[name]),
            weighed=self._weighed(name),
            has_output=bool(stores or sums),
            whole_axis=whole, whole_block=blocks[whole], whole_width={KEY: self.K, VALUE: self.V}[whole],
            out_axis=out, out_block=blocks[out], out_width={KEY: self.K, VALUE: self.V}[out],
        )  # fmt: skip

    whole: set[str]

    def _own_gradients(self, name: str, site: Site, out: str):
        """What a part writes: gradients of columns, and sums over its columns."""
        stores, sums, starts, row_stores = [], [], [], []
        for gradient in (g for g in self.gradients.arguments if g.part == name):
            symbol = self.tokens.symbols[gradient.name]
            axis = HALF if self.axis_of.get(symbol.type.rows) == HALF else out
            before = set(site.sums)
            # where the output is made apart the gradient of what was read stands beside that of the part in every term
            value = site.text(algebra.factored(gradient.expr) if self.gradients.is_apart else gradient.expr, axis)
            if axis == HALF and name in dict(self.walk.turns):
                site.sums.difference_update({KEY} - before)  # the pairs of a block are numbered
            self.texts.append(value.text)
            target = self._buffer(gradient)
            width = {KEY: self.K, VALUE: self.V, HALF: size_text(symbol.type.rows).text}[axis]
            has_rows = self.folded is not None and symbol.name in self.folded.names
            stored = len(stores)
            if symbol.kind == "param" and has_rows:
                value = masked(site, value, (ROW,))
                place = f"(i_s * {self.folded.count} + o_q)[:, None] * {atom(width)} + o_{axis}[None, :]"
                mask = f"(o_q < {self.folded.count})[:, None] & m_{axis}[None, :]"
                stores.append(f"tl.store({target} + {place}, {self._over_rows(site, value, axis, 0)}, mask={mask})")
            elif symbol.kind == "param":
                value = masked(site, value, (ROW,))
                text = f"tl.sum({value.text}, 0)"
                mask = f"o_{axis} < {width}" if axis == HALF else f"m_{axis}"
                stores.append(f"tl.store({target} + i_s * {atom(width)} + o_{axis}, {text}, mask={mask})")
            else:
                count = "row * G + i_g" if self._is_shared() and name != "value" else "row * H + i_h"
                stores.append(self._store_column(site, target, count, width, axis, value, has_rows))
            if axis == HALF and name in dict(self.walk.turns) and width != f"{self.K} // 2":
                # of the blocks of columns some may have no pair that turns
                stores[stored:] = [f"if i_c * (BK // 2) < {width}:", *(f"{INDENT}{line}" for line in stores[stored:])]
        base = self.decay_rows if self.gradients.needs_decay else 0
        for index, gradient in enumerate(self.gradients.rows):
            if gradient.part != name:
                continue
            before = set(site.sums)
            value = site.text(gradient.expr, out)
            site.sums.difference_update({out} - before)  # a sum over blocks is a sum of sums
            self.texts.append(value.text)
            starts.append(f"b_{gradient.name} = tl.zeros(({self.BR},), tl.float32)")
            sums.append(f"b_{gradient.name} += {value.text}")
            row_stores.append(self._store_number(site, base + index, loaded(f"b_{gradient.name}", (ROW,))))
        if name == "value" and self.gradients.needs_source:
            for n in range(len(self.narrow)):
                row_stores.append(
                    f"tl.store(rows + (({base + len(self.gradients.rows) + n} * slots + slot) * H + i_h) * BT + o_i, b_du{n}, mask=m_t)"
                )
        return stores, sums, starts, row_stores

    def _buffer(self, gradient: Gradient) -> str:
        several = sum(g.name == gradient.name for g in self.gradients.arguments) > 1
        return f"d_{pointer(gradient.name)}" + (f"_{gradient.part}" if several else "")

    @property
    def angle(self) -> Angle:
        """The running angle that turns queries and keys alike."""
        turned = dict(self.walk.turns)
        if turned.keys() != {"query", "key"} or algebra.key(turned["query"]) != algebra.key(turned["key"]):
            return Angle("", "", "")
        [name] = {n.name for n in nodes(turned["key"]) if isinstance(n, Ref)}
        found = {g.part: self._buffer(g) for g in self.gradients.arguments if g.name == name}
        pair = ("2 * o_h[:, None]", "(2 * o_h + 1)[:, None]")
        places = "{} + o_p[None, :] * " + atom(self.K) if self.walk.is_transposed else "{} * " + atom(self.V) + " + o_p[None, :]"
        even, odd = (places.format(row) for row in pair)
        sign = "" if isinstance(turned["key"], Neg) else "-"
        return Angle(found["query"], found["key"], size_text(turned["key"].type.rows).text, sign, even, odd)

    def _tile_rows(self) -> str:
        """Rows of a tile. In float32 products take operands in three parts, of which wide ones that are made stand in shared memory."""
        made = {name for name, symbol in self.tokens.symbols.items() if symbol.definition is not None}
        is_bare = all(isinstance(e, Ref) and e.name not in made for e in (self.reading.query, self.walk.key))
        wide = " or max(_width(K, dtype), _width(V, dtype)) > 128" if is_bare else ""
        return f"64 if dtype != torch.float32{wide} else 32"

    def _kept_sizes(self) -> str:
        """The sizes of the parts of what backward is given: gates, states at edges, vectors."""
        narrow = len(self.narrow)
        wide = "4 * _count(edges * K * V * dtype.itemsize, 16)"
        behind = [f"4 * _count(sequences * H * {size}, 4)" for size in ("K * V", *(["K"] * narrow))] if self.angle.query else []
        sizes = ["slots * H * BT if dtype == torch.float32 else 0" if n == "rests" else "slots * H * BT" for n in self._gate_names()]
        return f"({tuple_of([*sizes, wide, *(['4 * _count(slots * H * K, 4)'] * narrow), *behind])})"

    def _fade(self, name: str) -> tuple[str, str]:
        """The line of what is left at a row of the state, and its use."""
        c = self.walk.coefficient is not None and name == "key"
        if not self.has_decay:
            if name == "query":
                return "", "scale"
            return "", "b_c[:, None]" if c else ""
        read = "b_Q" if self.is_exclusive else "b_G"
        text = f"tl.exp2({read}) * scale" if name == "query" else f"tl.exp2({self.left})"
        return text + (" * b_c" if c else ""), "b_fade[:, None]"

    def _pair(self, name: str) -> tuple[str, ...]:
        """What happens to x_i . y_j."""
        lines = []
        for n in range(len(self.narrow)):
            weight = self._weight_of(n)
            if name == "query":
                lines.append(f"b_a += b_d{n}[:, None]" + (f" * {weight}[None, :]" if weight else ""))
            elif name == "key":
                lines.append("b_a += " + (f"{weight}[:, None] * " if weight else "") + f"b_d{n}[None, :]")
        lines += self._rest_lines(name)
        lines.append(
            'b_a *= tl.exp2(tl.where(m_a, EXPONENT, -float("inf"))) * scale' if self.has_decay else "b_a = tl.where(m_a, b_a * scale, 0.0)"
        )
        if self.walk.own is not None:
            # that of queries sums what the decay moves before
            lines += [self._weighed(name)] if name != "query" else []
        elif self.walk.coefficient is not None and name != "value":
            lines.append("b_a *= b_c[:, None]" if name == "key" else "b_a *= b_c[None, :]")
        read = "b_Q" if self.is_exclusive else "b_G"
        return tuple(line.replace("EXPONENT", "b_between" if self.keeps_rests else _between(name, read, "b_G")) for line in lines)

    def _rest_lines(self, name: str) -> list[str]:
        """The exponents of pairs, where what rounding leaves of their sums belongs to them."""
        if not self.keeps_rests:
            return []
        read, rest = ("b_Q", "b_rest_Q") if self.is_exclusive else ("b_G", "b_rest")
        exact = f"b_between += {_between(name, rest, 'b_rest')}"
        return [f"b_between = {_between(name, read, 'b_G')}", "if rests is not None:", INDENT + exact]

    def _weighed(self, name: str) -> str:
        """The line that weighs pairs where a token's own rows have another weight; '' where they do not."""
        if self.walk.own is None:
            return ""
        at = "[:, None]" if name in ("key", "value") else "[None, :]"
        # of rows of one token it is the same number along both sides; rows of a product lie in fewer registers
        return f"b_a *= tl.where(m_u, b_own[:, None], b_c{at})"

    def _store_number(self, site: Site, index: int, value: Text) -> str:
        """The store of one number a token, summed over its rows."""
        if self.folded is None:
            return f"tl.store(rows + (({index} * slots + slot) * H + i_h) * BT + o_i, {value.text}, mask=m_t)"
        return f"tl.store(rows + (({index} * slots + slot) * H + i_h) * BT + o_c, {self._over_rows(site, value)}, mask=m_c)"

    def _later(self, outer: Site, out: str) -> tuple[str, ...]:
        """What all later tokens make of an angle at the chunk's end: how S, there, turns against D. Of what the chunk adds to S it is
        what D makes of the keys, b_o."""
        site = Site(self.tokens, {out: "BK"}, out, outer, loads=self._backward_loads())
        key = site.text(self.walk.key, out)
        offsets, mask = f"o_n[None, :] * {atom(self.V)} + o_p[:, None]", "m_p[:, None] & m_n[None, :]"
        fade = " * tl.exp2(b_last)" if self.has_decay else ""
        lines = [f"{line.target} = {line.text}  # {line.shape}" for line in site.lines if not line.target.startswith("o_")]
        lines += [
            f"b_e = tl.sum(_pair_cross({key.text}, b_o), 0)",
            f"b_f = tl.load(states + i_e * ({atom(self.K)} * {atom(self.V)}) + {offsets}, mask={mask}, other=0.0)  # [BV, BK]",
            f"b_e += tl.sum(_pair_cross(b_f.to(tl.float32), b_s.to(tl.float32)), 0){fade}",
        ]
        for n in range(len(self.narrow)):
            f, s = (f"tl.load({name}_{n} + i_s * {atom(self.K)} + o_n, mask=m_n, other=0.0)[None, :]" for name in ("states", "adjoints"))
            lines.append(f"b_e += tl.sum(_pair_cross({f}, {s}), 0){fade}")
        width = self.angle.width
        lines.append(f"tl.store(later + i_s * {atom(width)} + o_{HALF}, {self.angle.sign}b_e, mask=o_{HALF} < {width})")
        self.texts += lines
        # of the blocks of columns some may have no pair that turns
        return tuple(lines) if width == f"{self.K} // 2" else (f"if i_c * (BK // 2) < {width}:", *(INDENT + line for line in lines))

    def _narrow_parts(self, name: str, is_shared: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the narrow columns' states add to a block of columns, and to the product of both states."""
        lines, moved = [], []
        for n in range(len(self.narrow)):
            weight = self._weight_of(n)
            at = f"i_s * {atom(self.K)} + o_n, mask=m_n, other=0.0)"
            target = {"query": "b_dq", "key": "b_dk"}.get(name) if is_shared else "b_o"
            if name == "query":
                factor = f"b_d{n}" + (f" * {'b_fade' if self.has_decay else 'scale'}" if is_shared else "")
                lines.append(f"{target} += {column(factor)} * tl.load(states_{n} + {at}[None, :]")
            elif name == "key":
                fade = [
                    *(["b_fade"] if is_shared and self.has_decay else []),
                    *(["b_c"] if is_shared and not self.has_decay and self.walk.coefficient is not None else []),
                ]
                factors = " * ".join([*fade, *([weight] if weight else [])])
                lines.append(f"{target} += {f'{column(factors)} * ' if factors else ''}tl.load(adjoints_{n} + {at}[None, :]")
            else:
                weighted = f"{weight} * " if weight else ""
                moved.append(f"b_e += tl.sum(tl.load(states_{n} + {at} * tl.load(adjoints_{n} + {at})")
                moved.append(f"b_moved += {weighted}b_m{n}")
        return tuple(lines), tuple(moved)

    def _narrow_dots(self, is_shared: bool) -> tuple[str, ...]:
        """What the narrow columns add to q_i . S do_i where that is taken on the value side."""
        if not is_shared:
            return ()
        at = f"i_s * {atom(self.K)} + o_n, mask=m_n, other=0.0)"
        return tuple(
            f"b_dot += b_d{n} * tl.sum(b_q.to(tl.float32) * tl.load(states_{n} + {at}[None, :], 1)" for n in range(len(self.narrow))
        )


def _between(name: str, read: str, written: str) -> str:
    """The difference of a number at the rows that read and one at those that write, of a part's pairs."""
    return f"{read}[:, None] - {written}[None, :]" if name in ("forward", "query") else f"{read}[None, :] - {written}[:, None]"


def _inside(stores: list[str], lines: list[CodeLine], others: list[str]) -> tuple[list[str], list[CodeLine]]:
    """The stores, with what only those under a condition need read under it as well; and the lines that say so."""
    guarded = [text for text in stores if text.startswith(INDENT)]
    others = [*others, *(text for text in stores if not text.startswith((INDENT, "if ")))]
    moved = [
        line for line in lines
        if any(_uses(text, {line.target}) for text in guarded) and not any(_uses(text, {line.target}) for text in others)
    ]  # fmt: skip
    found = []
    for number, text in enumerate(stores):
        found.append(text)
        if text.startswith("if "):
            own = [line for line in moved if _uses(stores[number + 1], {line.target})]
            found += [f"{INDENT}{line.target} = {line.text}  # {line.shape}" for line in own]
    return found, moved


def _uses(text: str, targets: set[str]) -> bool:
    return any(re.search(rf"\b{re.escape(t)}\b", text) for t in targets)
