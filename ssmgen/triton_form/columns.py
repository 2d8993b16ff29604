"""What is made before the walk, as two kernels: the values of every token, and what their gradients make of the arguments.

Tokens do not depend on each other here: a program has some of them, whatever sequence they belong to. Backward, one program takes
the heads of a group in turn and sums in registers what they share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.triton_value import HALF, Text, loaded, size_text
from ..differentiate import cotangents
from ..expressions import nodes
from ..kernel import KEY, ROW, VALUE
from ..plan import Walk, widths
from ..source import NOWHERE
from ..spec import Apply, Dim, Expr, Ref, Rot
from ..torch_form.tokens import TokenWriter, level
from .fused_package import ColumnsPackage, Output, Summed, Walked
from .gradients import MADE, angle_sizes, axes_of_sizes, made, paired_axis
from .heads_in_turn import HeadsInTurn, hoisted, loads_first
from .launch import as_type, over_heads, over_programs, sums_shape
from .made_columns import Made
from .operands import added, atom, legible
from .site import CodeLine, Site, pointer, widened
from .tokens import Gradients, RowSite, RowTokens, Stored, number_line

LANES = {"head": ("H", "i_h"), "group": ("G", "i_g"), "layer": ("1", "0")}
"""How many values a token has, and which of them a program makes, where one is a head's, a group's, all heads'."""


class Columns:
    """The writer of both kernels, of the recurrence as it is without them."""

    def __init__(self, tokens: TokenWriter, walk: Walk, wide: int, values: Iterable[Made]):
        self.tokens, self.walk, self.values = tokens, walk, tuple(values)
        self.names = RowTokens(tokens, walk)
        self.axis_of = axes_of_sizes(walk, wide, angle_sizes(tokens, walk))
        self.K, self.V = (atom(size_text(s).text) for s in (widths(walk)[0], _value_size(walk, wide)))
        self.per = self.values[0].symbol.per
        self.lanes, self.lane = LANES[self.per]
        self.folded = tokens.folded
        self.BR = "BT" if self.folded is None else "BR"
        self.texts: list[str] = []
        self.behind: tuple[CodeLine, ...] = ()
        self.behind_stores: tuple[str, ...] = ()

    def package(self, numbers: list[str]) -> ColumnsPackage:
        """numbers: the sizes that kernels take as constants."""
        kernel, stores = self._kernel()
        kernel, shared = hoisted(kernel) if self.per == "head" else (kernel, ())
        takes_turns = any(line.text.startswith("_tile(") for line in shared)
        gradient, plain, summed, lines = self._gradients()
        gradient, before = hoisted(gradient) if summed else (gradient, ())
        outputs, partials, results = self._results(lines)
        group = any(s.per == "group" for s in self.tokens.arguments)
        used = [*_texts(kernel), *_texts(gradient), *(line.text for line in (*shared, *before, *self.behind)), *stores, *plain]
        used += [*(s.value for s in summed), *self.behind_stores]
        fewest = "8" if self.folded is None else "2"
        names = [pointer(v.symbol.name) for v in self.values]
        reread = [n for n in names if any(f"({n}, " in text for text in _texts(gradient))]
        uses_values = any("o_p" in text for text in used)
        width = "max(_width(K, dtype), _width(V, dtype))" if uses_values else "_width(K, dtype)"
        return ColumnsPackage(
            made=tuple(Output(pointer(v.symbol.name), self._allocation(v)) for v in self.values),
            names="".join(f"{n}, " for n in names),
            reread="".join(f"{n}, " for n in names if n in reread),
            unread=", ".join(n for n in names if n not in reread),
            gradient_names="".join(f"d_{pointer(v.symbol.name)}, " for v in self.values),
            kernel=kernel,
            shared=shared,
            takes_turns=takes_turns,
            sharers="H // G" if group else "H",
            fewest=fewest,
            fewest_in_gradients="2" if summed else fewest,
            stores=stores,
            gradient=gradient,
            before_heads=before,
            gradient_stores=plain,
            summed=summed,
            behind_heads=self.behind,
            behind_stores=self.behind_stores,
            gradient_pointers="".join(f"{o.name}, " for o in (*outputs, *partials)),
            outputs=outputs,
            partials=partials,
            results=results,
            lanes=self.lanes,
            uses_heads=self.per == "head",
            uses_group=group and self.per != "layer",
            uses_values=uses_values,
            has_groups=group,
            takes_heads_in_turn=bool(summed),
            row_bytes=" * ".join([*([] if self.folded is None else [str(self.folded.padded)]), width, "dtype.itemsize"]),
            masks_keys=any("m_n" in text for text in (*_texts(kernel), *(line.text for line in shared), *stores)),
            gradients_mask_keys=any(
                "m_n" in text
                for text in (*_texts(gradient), *(s.value + s.store for s in summed), *self.behind_stores, *plain)
                + tuple(line.text for line in (*before, *self.behind))
            ),
            gradients_use_device=any("=device" in output.allocation for output in (*outputs, *partials)),
            key_width=self.K,
            value_width=self.V,
            numbers="".join(f"{n}: tl.constexpr, " for n in numbers),
            number_arguments="".join(f"{n}, " for n in numbers),
            texts=tuple([*used, *self.texts]),
        )

    # --- forward ---

    def _sites(self) -> tuple[RowSite, RowSite]:
        head = RowSite(self.tokens, {KEY: "BK", VALUE: "BV"}, axis_of=self.axis_of, paired=paired_axis(self.tokens, self.walk))
        return head, RowSite(self.tokens, {ROW: self.BR}, ROW, head)

    def _walked(self, head: Site, site: Site) -> Walked:
        names = [pointer(s.name) for s in self.tokens.arguments if s.name in head.arguments]
        names += ["position"] if head.uses_position else []
        names += [pointer(n) for n, _ in self.tokens.spec.constants if n in head.arguments]
        return Walked("".join(f"{n}, " for n in names), tuple(head.lines), loads_first(site.lines))

    def _kernel(self) -> tuple[Walked, tuple[str, ...]]:
        whole = dict(self.tokens.definitions)
        self.tokens.definitions |= {name: self._with_shared(value) for name, value in whole.items()}
        walked, stores = self._kernel_lines()
        self.tokens.definitions.clear()
        self.tokens.definitions |= whole
        return walked, stores

    def _with_shared(self, expr: Expr) -> Expr:
        """A head's value with what the heads of a group share in it under names: lines of their own, which stand before the heads."""
        tokens = self.tokens

        def shared(node: Expr) -> Expr | None:
            if isinstance(node, Ref | Rot) or not node.type.is_column:
                return None
            place = tokens.printer.place(node)
            if place.level == "h" or not place.has_time:
                return None
            name = tokens.spec.free_name(f"shared{sum(n.startswith('shared') for n in tokens.definitions) + 1}")
            tokens.definitions[name], tokens.printer.places[name] = node, place
            return Ref(node.type, NOWHERE, name)

        if self.per != "head" or tokens.printer.place(expr).level != "h":
            return expr
        return algebra.rewrite(expr, shared)

    def _kernel_lines(self) -> tuple[Walked, tuple[str, ...]]:
        head, site = self._sites()
        site.loads |= self._angles() | self._own_params()
        stores = []
        for value in self.values:
            name, expr = pointer(value.symbol.name), self._with_shared(self.names.named(value.expr))
            if value.symbol.type.is_scalar:
                line = number_line(site, f"b_{name}", expr, name)
                stores.append(f"tl.store({name} + row * {self.lanes} + {self.lane}, {line}, mask=m_t)")
            else:
                axis, width = self._axis(value)
                line = f"b_{name}"
                tile = widened(site.text(expr, axis), (ROW, axis), f"({site.blocks[ROW]}, {site.blocks[axis]})")
                site.add(line, tile, f"{name} = {legible(expr)}", site.shape((ROW, axis)))
                stores.append(f"_store({name}, {self._place(value)}, {width}, o_{axis}, m_t, {line})")
        return self._walked(head, site), tuple(stores)

    def _angles(self) -> dict:
        """How the rows of a token get an angle that they share: once a token, so that its sine is taken once."""

        def load(site: Site, name: str) -> Text:
            target = site.target(name, HALF)
            value = site.load(name, HALF, f"{target}_each")
            text = re.sub(r"\brow\b", "token", site.lines[-1].text).replace("m_t", "m_c")
            pairs, rows = site.block(HALF), self.folded.padded
            site.lines[-1] = replace(site.lines[-1], text=text, shape=f"[BT, {pairs}]")
            spread = f"tl.broadcast_to({value.text}[None, :, :], ({rows}, BT, {pairs}))"
            return site.named(target, replace(value, text=f"tl.reshape({spread}, ({self.BR}, {pairs}))"))

        if self.folded is None:
            return {}
        shared = [s for s in self.tokens.arguments if s.kind == "input" and s.name not in self.folded.names]
        angles = [s.name for s in shared if not s.type.is_scalar and self.axis_of.get(s.type.rows) == HALF]
        return {(name, HALF): lambda site, name=name: load(site, name) for name in angles}

    def _own_params(self) -> dict:
        """How tokens get a head's own columns: each its copy. One for all would reach them through shared memory, behind barriers."""

        def load(site: Site, name: str, axis: str) -> Text:
            site.load(name, axis, target := site.target(name, axis))
            width = {KEY: self.K, VALUE: self.V}[axis]
            place = f"tl.broadcast_to(o_{axis}[None, :], ({self.BR}, {site.block(axis)}))"
            text = f"tl.load({pointer(name)} + i_h * {width} + {place}, mask=m_{axis}[None, :], other=0.0).to(tl.float32)"
            site.lines[-1] = replace(site.lines[-1], text=text, shape=site.shape((ROW, axis)))
            return loaded(target, (ROW, axis))

        if self.folded is not None or self.per != "head":
            return {}
        own = [s for s in self.tokens.arguments if s.kind == "param" and s.per == "head" and s.type.is_column and not s.type.is_scalar]
        axes = {s.name: self.axis_of.get(s.type.rows) for s in own}
        return {
            (name, axis): lambda site, name=name, axis=axis: load(site, name, axis) for name, axis in axes.items() if axis in (KEY, VALUE)
        }

    def _has_rows(self, value: Made) -> bool:
        """Whether a value differs between the rows of a token."""
        if self.folded is None:
            return False
        if value.symbol.type.is_scalar:
            raise UnsupportedOperand("a number that is made before the walk, of several rows")
        return any(isinstance(node, Ref) and node.name in self.folded.names for node in nodes(value.expr))

    def _place(self, value: Made) -> str:
        """The place of a value of a row of a tile among those of all."""
        place = f"row * {self.lanes} + {self.lane}"
        return f"({place}) * {self.folded.count} + o_r" if self._has_rows(value) else place

    def _allocation(self, value: Made) -> str:
        if value.symbol.type.is_scalar:
            return f"torch.empty(batch, T, {self.lanes}, device=device)"
        rows = f"{self.folded.count}, " if self._has_rows(value) else ""
        return f"torch.empty(batch, T, {self.lanes}, {rows}{self._axis(value)[1]}, dtype=dtype, device=device)"

    def _axis(self, value: Made) -> tuple[str, str]:
        """The axis along which a made column lies, and its width."""
        axis = self.axis_of.get(value.symbol.type.rows, KEY)
        return axis, self.V if axis == VALUE else self.K

    # --- backward ---

    def _gradients(self) -> tuple[Walked, tuple[str, ...], tuple[Summed, ...], list[tuple[Stored, str]]]:
        head, site = self._sites()
        gradients = Gradients(self.names, self.axis_of)
        for value in self.values:
            name, place = pointer(value.symbol.name), self._place(value)
            gradient = made(name, value.symbol.type)
            if value.symbol.type.is_scalar:
                site.loads[MADE + name, ""] = _loader(f"b_d_{name}", f"tl.load(d_{name} + {place}, mask=m_t, other=0.0)", (ROW,))
                gradients.spread("", value.expr, gradient)
                continue
            axis, width = self._axis(value)
            site.loads[MADE + name, axis] = _loader(f"b_d_{name}", _column(f"d_{name}", place, width, axis), (ROW, axis))
            # as the walk had it: what an angle moves cancels between queries and keys where both are rounded alike
            site.loads[MADE + f"own {name}", axis] = _loader(f"b_{name}", _column(name, place, width, axis), (ROW, axis))
            for argument, part in cotangents(self.names.named(value.expr), gradient, made(f"own {name}", value.symbol.type)):
                if value.angle is None or not any(isinstance(n, Apply) and n.function == "pair_cross" for n in nodes(part)):
                    gradients.push(axis, argument, part)
        plain, totals, kinds, behind = [], [], [], []
        after = RowSite(self.tokens, {ROW: self.BR}, ROW, head)
        turns = HeadsInTurn(self.tokens, site, after, lambda stored: self._is_summed(self._symbol(stored)))
        for stored, value in gradients.lines(site, turns.place_of):
            is_late = stored in turns.late
            kind, text = self._store(after if is_late else site, stored, self._symbol(stored), value, is_late)
            kinds.append((stored, kind))
            (behind if is_late else totals if kind == "summed" else plain).append(text)
        self.behind, self.behind_stores = loads_first(after.lines), tuple(behind)
        return self._walked(head, site), tuple(plain), (*turns.sums.values(), *totals), kinds

    def _symbol(self, stored: Stored):
        return self.tokens.symbols.get(stored.name) or next(s for s in self.tokens.arguments if s.name == stored.name)

    def _is_summed(self, symbol) -> bool:
        """Whether the heads of a group share an argument, and a program takes them in turn."""
        return symbol.kind != "param" and self.per == "head" and level(symbol.per) == "g"

    def _store(self, site: Site, stored: Stored, symbol, value: Text, is_late: bool) -> tuple[str, str | Summed]:
        """('param' | 'own' | 'summed' | 'apart', the store of an argument's gradient)."""
        sizes = [] if symbol.type.is_scalar else [s for s in (symbol.type.rows, symbol.type.cols) if s != Dim(1)]
        whole = " * ".join(atom(size_text(s).text) for s in sizes) or "1"
        inner = sizes[1:] if stored.row else sizes
        width = atom(size_text(inner[0]).text) if inner else "1"
        shift = f"{stored.row - 1} * {width} + " if stored.row > 1 else ""
        self.texts.append(value.text)
        axes = (ROW, stored.axis) if stored.axis else (ROW,)
        mask = f"(o_{HALF} < {width})" if stored.axis == HALF else f"m_{stored.axis}"
        shape = f"({', '.join(site.block(a) for a in axes)})" if stored.axis else f"({self.BR},)"
        text = value.text if value.axes == axes else f"{value.along(axes) if value.axes else value.text} + tl.zeros({shape}, tl.float32)"
        has_rows = self.folded is not None and symbol.name in self.folded.names
        if symbol.kind == "param" and value.past(ROW) != 0:
            text = f"tl.where(m_t{'[:, None]' if stored.axis else ''}, {text}, 0.0)"
        if symbol.kind == "param" and has_rows:
            rows = self.folded.count
            total = self._over_rows(site, text, stored.axis, 0)
            at = f"{stored.buffer} + ((i_t * {self.lanes} + {self.lane}) * {rows} + o_q)[:, None] * ({whole}) + o_{stored.axis}[None, :]"
            return "param", f"tl.store({at}, {total}.to({stored.buffer}.dtype.element_ty), mask=(o_q < {rows})[:, None] & {mask}[None, :])"
        if symbol.kind == "param":
            total = f"tl.sum({text}, 0)"
            if not sizes:
                return "param", f"tl.store({stored.buffer} + {self.lane} * tl.num_programs(0) + i_t, {total})"
            at, total = (
                f"{stored.buffer} + (i_t * {self.lanes} + {self.lane}) * ({whole}) + {shift}",
                f"{total}.to({stored.buffer}.dtype.element_ty)",
            )
            return "param", (f"tl.store({at}o_{stored.axis}, {total}, mask={mask})" if stored.axis else f"tl.store({at}0, {total})")
        own, is_summed = level(symbol.per), self._is_summed(symbol)
        count, lane = ("G", "i_g") if is_summed else (self.lanes, self.lane)
        sums_rows = self.folded is not None and not has_rows
        row, valid = ("token", "m_c") if sums_rows else ("row", "m_t")
        at = f"(({row} * {count} + {lane}) * {self.folded.count} + o_r)" if has_rows else f"({row} * {count} + {lane})"
        if stored.axis:
            place = f"{stored.buffer} + {at}[:, None] * ({whole}) + ({shift}o_{stored.axis})[None, :]"
            where = f"{valid}[:, None] & {mask}[None, :]"
        else:
            place, where = f"{stored.buffer} + {at} * ({whole}) + {shift}0", valid
        if is_summed and not is_late:
            target = f"a_{stored.buffer}" + (f"_{stored.row}" if stored.row else "")
            total = self._over_rows(site, target, stored.axis, 1) if sums_rows else target
            store = f"tl.store({place}, {total}.to({stored.buffer}.dtype.element_ty), mask={where})"
            return "summed", Summed(target, f"tl.zeros({shape}, tl.float32)", text, store)
        kind = "summed" if is_summed else "own" if LANES_OF[own] == self.lanes else "apart"
        total = self._over_rows(site, text, stored.axis, 1) if sums_rows else f"({text})"
        return kind, f"tl.store({place}, {total}.to({stored.buffer}.dtype.element_ty), mask={where})"

    def _over_rows(self, site: Site, text: str, axis: str, along: int) -> str:
        """The sum over the rows of a token; of `along` 0: over the tokens, one for every row."""
        if self.folded.is_padded and along:
            text = f"tl.where(m_t{'[:, None]' if axis else ''}, {text}, 0.0)"
        blocks = ", ".join(["BT", str(self.folded.padded), *([site.block(axis)] if axis else [])])
        return f"tl.sum(tl.reshape({text}, ({blocks})), {along})"

    def _results(self, lines: list[tuple[Stored, str]]) -> tuple[tuple[Output, ...], tuple[Output, ...], tuple[tuple[str, str], ...]]:
        """What is allocated, and the gradient of every argument that the made values depend on."""
        outputs: dict[str, Output] = {}
        partials: dict[str, Output] = {}
        results = []
        for symbol in self.tokens.arguments:
            name, place = pointer(symbol.name), level(symbol.per)
            own = {stored.buffer: kind for stored, kind in lines if stored.name == symbol.name}
            if not own:
                continue
            sizes = [] if symbol.type.is_scalar else [s for s in (symbol.type.rows, symbol.type.cols) if s != Dim(1)]
            width = "".join(f", {size_text(s).text}" for s in sizes)
            if self.folded is not None and symbol.name in self.folded.names:
                width = f", {self.folded.count}{width}"
            texts = []
            for buffer, kind in own.items():
                if kind == "param":
                    # of few tokens each, they are many: as short as what they sum
                    short = ", dtype=dtype" if width else ""
                    partials[buffer] = Output(buffer, f"torch.empty({sums_shape('blocks', self.lanes, width)}{short}, device=device)")
                    total = f"{buffer}.sum(0, dtype=torch.float32)" if width else over_programs(buffer, "")
                    texts.append(self._over_lanes(total, place, 0))
                elif kind in ("own", "summed"):
                    outputs[buffer] = Output(buffer, f"torch.empty_like({name})")
                    texts.append(buffer)
                else:
                    outputs[buffer] = Output(buffer, f"torch.empty(batch, T, {self.lanes}{width}, device=device)")
                    texts.append(self._over_lanes(buffer, place, 2))
            results.append((symbol.name, texts[0] if len(texts) == 1 and texts == [*own] else as_type(texts, f"{name}.dtype")))
        return tuple(outputs.values()), tuple(partials.values()), tuple(results)

    def _over_lanes(self, text: str, place: str, axis: int) -> str:
        """The text of a sum over the heads, or groups, that share a value."""
        if LANES_OF[place] == self.lanes:
            return text
        if place == "h":
            raise UnsupportedOperand("a head's own parameter in what all heads share")
        return over_heads(text, place, axis)


LANES_OF = {"h": "H", "g": "G", "": "1"}


def _column(buffer: str, place: str, width: str, axis: str) -> str:
    return f"_tile({buffer}, {place}, {width}, {'BV' if axis == VALUE else 'BK'}, o_{axis}, m_t).to(tl.float32)"


def _loader(target: str, text: str, axes: tuple[str, ...]):
    return lambda site: added(site, target, text, axes)


def _texts(walked: Walked) -> list[str]:
    return [line.text for line in (*walked.head, *walked.rows)]


def _value_size(walk: Walk, wide: int) -> Dim:
    return walk.columns[wide].value.type.rows
