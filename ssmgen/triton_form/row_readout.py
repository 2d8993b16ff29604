"""What stands token by token around walks, on tiles: the output from what was read, and what its gradient makes of reads and arguments."""

from __future__ import annotations

from dataclasses import dataclass

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.triton_value import HALF, Text, loaded, size_text
from ..differentiate import cotangents
from ..kernel import KEY, ROW, VALUE
from ..plan import Plan
from ..spec import Dim, Expr, Symbol
from ..spec import Recurrence as Spec
from ..torch_form.shapes import unasked
from ..torch_form.tokens import TokenWriter, level
from .fused_package import Output, Walked
from .gradients import MADE, made
from .heads_in_turn import HeadsInTurn, hoisted, loads_first, summed
from .launch import as_type, over_heads, over_programs, sums_shape
from .operands import added, atom
from .rows_package import Totals, Turns
from .site import Site, masked, pointer, widened
from .tokens import RowSite, RowTokens, Stored, size_of

BLOCKS = {KEY: "BK", VALUE: "BV"}
"""The width of a tile along an axis of columns."""


@dataclass(frozen=True)
class Cut:
    """Columns of a buffer of reads, [batch, T, H, width]: one value that the output reads (read '': that it does not)."""

    read: str
    buffer: str
    gradient: str
    axis: str  # '' of a number a token
    offset: str
    width: str

    @property
    def place(self) -> str:
        """Where a token's first entry lies."""
        return f" + (row * H + i_h){'[:, None]' if self.axis else ''} * {self.width} + {self.offset}"

    @property
    def columns(self) -> str:
        """What is added for the others."""
        return f" + o_{self.axis}[None, :]" if self.axis else ""

    @property
    def mask(self) -> str:
        return f"m_t[:, None] & m_{self.axis}[None, :]" if self.axis else "m_t"


class RowReadout:
    """The output, or several side by side, over reads that walks keep."""

    plan: Plan
    spec: Spec
    tokens: TokenWriter
    names: RowTokens
    outputs: tuple[Expr, ...]
    axis_of: dict[Dim, str]
    paired: str
    texts: list[str]

    def _cuts(self) -> list[Cut]:
        """Every value that the output reads."""
        raise AssertionError

    def _unread(self) -> list[Cut]:
        """Columns of reads that it does not use."""
        raise AssertionError

    # --- sites ---

    def _site(self, rows: str) -> tuple[RowSite, RowSite]:
        head = RowSite(self.tokens, BLOCKS, axis_of=self.axis_of, paired=self.paired)
        return head, RowSite(self.tokens, {ROW: rows}, ROW, head)

    def _walked(self, *sites: Site) -> Walked:
        head = sites[0]
        for site in sites:
            self.texts += [line.text for line in site.lines]
        names = [pointer(s.name) for s in self.tokens.arguments if s.name in head.arguments]
        names += ["position"] if head.uses_position else []
        names += [pointer(n) for n, _ in self.spec.constants if n in head.arguments]
        return Walked("".join(f"{n}, " for n in names), tuple(head.lines), tuple(line for s in sites[1:] for line in s.lines))

    # --- the output ---

    @property
    def output_width(self) -> str:
        """Text of the output's columns."""
        raise AssertionError

    def _read_loads(self) -> dict:
        loads = {}
        for number, cut in enumerate(self._cuts()):
            text = f"tl.load({cut.buffer}{cut.place}{cut.columns}, mask={cut.mask}, other=0.0)"
            axes = (ROW, cut.axis) if cut.axis else (ROW,)
            loads[cut.read, cut.axis] = lambda site, text=text, axes=axes, n=number: added(site, f"b_read{n}", text, axes)
        return loads

    @property
    def output(self) -> Expr:
        """The first."""
        return self.outputs[0]

    def _placed(self) -> list[tuple[str, str, Expr]]:
        """(the name of its gradient, its place among the columns of all tokens, the output) of every one."""
        if not self.tokens.has_rows:
            return [("dy", "row * H + i_h", self.output)]
        count = len(self.outputs)
        return [(f"dy_{n + 1}", f"(row * H + i_h) * {count} + {n}", output) for n, output in enumerate(self.outputs)]

    def _dy_load(self) -> dict:
        loads = {}
        for name, place, output in self._placed():
            if output.type.is_scalar:
                text, axes = f"tl.load(dy + {place}, mask=m_t, other=0.0).to(tl.float32)", (ROW,)
            else:
                text, axes = f"_tile(dy, {place}, {self.output_width}, BV, o_p, m_t).to(tl.float32)", (ROW, VALUE)
            loader = lambda site, name=name, text=text, axes=axes: added(site, f"b_{name}", text, axes)  # noqa: E731
            loads[MADE + name, axes[1] if len(axes) > 1 else ""] = loader
        return loads

    def _readout(self) -> tuple[Walked, tuple[str, ...]]:
        """The kernel that makes the output, and its stores."""
        head, site = self._site("BT")
        site.loads |= self._read_loads()
        stores = []
        for _, place, output in self._placed():
            value = site.text(output) if output.type.is_scalar else site.text(output, VALUE)
            if output.type.is_scalar:
                stores.append(f"tl.store(y + {place}, {value.text}, mask=m_t)")
            else:
                stores.append(f"_store(y, {place}, {self.output_width}, o_p, m_t, {value.text})")
            self.texts.append(value.text)
        return self._walked(head, site), tuple(stores)

    def _output_cotangents(self) -> list[tuple[str, Expr]]:
        return [part for name, _, output in self._placed() for part in cotangents(output, made(name, output.type))]

    def _readout_gradient(self) -> tuple[Walked, tuple[str, ...]]:
        """The kernel that makes the gradients of reads, and their stores."""
        head, site = self._site("BT")
        site.loads |= self._read_loads() | self._dy_load()
        stores = self._read_gradient_stores(site)
        return self._walked(head, site), stores

    def _read_gradient_stores(self, site: Site) -> tuple[str, ...]:
        found: dict[str, list[Expr]] = {}
        for name, expr in self._output_cotangents():
            found.setdefault(name, []).append(expr)
        stores = []
        for cut in (*self._cuts(), *self._unread()):
            if cut.read in found:
                value = site.text(algebra.add(*found[cut.read]), cut.axis or KEY).text
                self.texts.append(value)
            else:
                value = f"tl.zeros({f'(BT, {BLOCKS[cut.axis]})' if cut.axis else '(BT,)'}, tl.float32)"
            stores.append(f"tl.store({cut.gradient}{cut.place}{cut.columns}, {value}, mask={cut.mask})")
        return tuple(stores)

    # --- gradients of arguments ---

    def _symbol(self, stored: Stored) -> Symbol:
        return next(s for s in self.tokens.arguments if s.name == stored.name)

    def _is_of_group(self, stored: Stored) -> bool:
        """Whether the heads of a group share an argument of every token."""
        symbol = self._symbol(stored)
        return symbol.kind == "input" and level(symbol.per) == "g"

    def _argument_stores(self, turns: HeadsInTurn, lines: list) -> tuple[tuple[str, ...], list[tuple[Stored, str]]]:
        """The stores of a head's own gradients, and which kind each one is; what heads share is left with `turns`."""
        stores, kinds = [], []
        for stored, value in lines:
            if not self._is_of_group(stored):
                store, kind = self._argument_store(turns.site, stored, value)
                stores.append(store)
                kinds.append((stored, kind))
                continue
            site = turns.after if stored in turns.late else turns.site
            if site is turns.site:
                axes = (ROW, stored.axis) if stored.axis else (ROW,)
                target = f"a_{stored.buffer}" + (f"_{stored.row}" if stored.row else "")
                total = widened(value, axes, f"({', '.join(site.block(a) for a in axes)}{',' * (len(axes) == 1)})")
                turns.sums[target, ""] = summed(target, total, [site.block(a) for a in axes])
                value = loaded(target, axes)
            store, _ = self._argument_store(site, stored, value, "row * tl.num_programs(1) + i_c")
            turns.stores.append(store)
            kinds.append((stored, "shared"))
        return tuple(stores), kinds

    def _in_turn(self, turns: HeadsInTurn, walked: Walked) -> tuple[Turns, Walked]:
        """What stands before the heads of a group and behind them; and what each of them needs."""
        own, before = hoisted(walked, ("i_h", "i_s")) if turns.stores else (walked, ())
        return Turns(before, tuple(turns.sums.values()), loads_first(turns.after.lines), tuple(turns.stores)), own

    def _argument_store(self, site: Site, stored: Stored, value: Text, lane: str = "row * H + i_h") -> tuple[str, str]:
        """(the store of an argument's gradient, 'input', 'partial'). lane: which of all tokens' gradients it is."""
        symbol = self._symbol(stored)
        sizes = [s for s in (symbol.type.rows, symbol.type.cols) if s != Dim(1)] if not symbol.type.is_scalar else []
        whole = " * ".join(atom(size_text(s).text) for s in sizes) or "1"
        inner = sizes[1:] if stored.row else sizes
        width = atom(size_text(inner[0]).text) if inner else "1"
        shift = f"{stored.row - 1} * {width} + " if stored.row > 1 else ""
        self.texts.append(value.text)
        mask = f"(o_{HALF} < {width})" if stored.axis == HALF else f"m_{stored.axis}"
        if symbol.kind == "param":
            # behind the pairs nothing is stored, and no row is added to another column
            value = masked(site, value, (ROW, stored.axis) if stored.axis not in ("", HALF) else (ROW,))
            if ROW not in value.axes:
                raise UnsupportedOperand(f"`{stored.name}`, whose gradient is the same for all tokens")
            at = f"(place * H + i_h) * ({whole})"
            total = f"tl.sum({value.text}, 0)"
            if stored.axis:
                return f"tl.store({stored.buffer} + {at} + {shift}o_{stored.axis}, {total}, mask={mask})", "partial"
            if not sizes:
                return f"tl.store({stored.buffer} + i_h * tl.num_programs(0) + place, {total})", "partial"
            return f"tl.store({stored.buffer} + {at} + {shift}0, {total})", "partial"
        if stored.axis:
            target = f"{stored.buffer} + ({lane})[:, None] * ({whole}) + ({shift}o_{stored.axis})[None, :]"
            text = (
                value.text
                if value.axes == (ROW, stored.axis)
                else f"{value.along((ROW, stored.axis))} + tl.zeros(({site.block(ROW)}, {site.block(stored.axis)}), tl.float32)"
            )
            return (
                f"tl.store({target}, ({text}).to({stored.buffer}.dtype.element_ty), mask=m_t[:, None] & {mask}[None, :])",
                "input",
            )
        return f"tl.store({stored.buffer} + ({lane}) * ({whole}) + {shift}0, {value.text}, mask=m_t)", "input"

    def _outputs(self, lines: list) -> tuple[tuple[Output, ...], tuple[Totals, ...], dict[str, str]]:
        """What the launcher allocates for gradients and for the sums of programs, and the text of the gradient of every argument that has
        one: of sums over programs once they are made."""
        outputs: dict[str, Output] = {}
        partials: dict[str, str] = {}
        results = {}
        for symbol in self.tokens.arguments:
            name = pointer(symbol.name)
            own = dict.fromkeys(stored.buffer for stored, _ in lines if stored.name == symbol.name)
            kinds = {kind for stored, kind in lines if stored.name == symbol.name}
            if not own:
                continue
            place = level(symbol.per)
            sizes = [] if symbol.type.is_scalar else [s for s in (symbol.type.rows, symbol.type.cols) if s != Dim(1)]
            width = "".join(f", {size_text(s).text}" for s in sizes)
            texts = []
            for buffer in own:
                stored = {one.row for one, _ in lines if one.name == symbol.name and one.buffer == buffer}
                # rows that no token reads have a gradient too
                blank = "empty" if 0 in stored or len(stored) == size_of(self.tokens, sizes[0]) else "zeros"
                if kinds == {"partial"}:
                    partials[buffer] = width
                    texts.append(over_heads(buffer, place, 0))
                elif place == "h":
                    outputs[buffer] = Output(buffer, f"torch.{blank}_like({name})")
                    texts.append(buffer)
                else:
                    shares = "shares" if kinds == {"shared"} else "H"
                    outputs[buffer] = Output(buffer, f"torch.{blank}(batch, T, {shares}{width}, dtype={name}.dtype, device=device)")
                    texts.append(over_heads(buffer, place, 2, shares))
            results[symbol.name] = texts[0] if len(texts) == 1 and kinds != {"partial"} else as_type(texts, f"{name}.dtype")
        return tuple(outputs.values()), _totals(partials), results

    def _without(self, symbol: Symbol) -> str:
        """The gradient of an argument that nothing reaches."""
        name = pointer(symbol.name)
        return unasked(name) if symbol.name in self.tokens.immaterial else f"torch.zeros_like({name})"


def _totals(partials: dict[str, str]) -> tuple[Totals, ...]:
    """Partial sums, by name their width, of which those of one width lie in one buffer."""
    found: dict[str, list[str]] = {}
    for name, width in partials.items():
        found.setdefault(width, []).append(name)
    totals = []
    for number, (width, names) in enumerate(found.items(), 1):
        shape = sums_shape("places", "H", width)
        if len(names) == 1:
            totals.append(Totals(names[0], shape, names[0], 1, over_programs(names[0], width)))
        else:
            name = f"totals_{number}"
            sums = f"{over_programs(name, width, 1)}.unbind()"
            totals.append(Totals(name, f"{len(names)}, {shape}", ", ".join(names), len(names), sums))
    return tuple(totals)
