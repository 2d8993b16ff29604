"""A scan program -> what kernels.py of the emitted package says: token after token, the state in registers.

A program is a block of lanes, each with its entries of the state: channels, or the value columns of one head. Expressions are printed
on tiles [lanes, keys] by the printer that the other kernels use. Everything is decided here; `templates/triton/scan.py.jinja` lays
it out.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .. import algebra
from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_text import helpers
from ..expressions import nodes
from ..kernel import KEY, ROW, VALUE, Kernels
from ..reference.head_text import equations, title_of
from ..scan import Binding, ScanProgram, needed
from ..source import NOWHERE
from ..spec import ONE, Apply, Const, Dim, Expr, Ref, Type
from ..torch_form.shapes import unasked
from ..torch_form.tokens import TokenWriter
from .scan_package import Cut, Gradient, LaneSum, Row, ScanPackage, State
from .scan_site import Lanes, ScanSite, plain, pointer, shared
from .site import CodeLine

HELD, BESIDE = 160, 8
"""Numbers that a thread's registers hold of a block of tokens while backward runs over it, and those of a token that are no state's."""

OVER = 24
"""Numbers of a thread while it sums over lanes, beside those."""

BLOCKS = 8
"""Blocks of a stretch, at whose edges states are kept: for 16 keys that is half the memory of a short input."""

MOST_KEYS = 16
"""Numbers of a lane's states in one thread; more are shared out among the threads of a warp."""

VECTORS, STRETCH = 160, 4
"""Numbers of a thread, of all that it holds for a whole sequence, and tokens of a block at most, where entries read each other: what
they read is a sum over threads, and takes more instructions."""

WIDEST = 256
"""Keys of a lane at most: beyond a warp's share a thread holds more of them, and spills."""

FEW = 2
"""Lanes of a thread whose states are single numbers: a load of a warp is then a whole line."""

LONGEST = 8
"""Tokens of a block, whose values are on their way at once; going backward at most."""

FORWARD, FORWARD_FEW, BACKWARD = 12, 16, 8
"""Warps for which a multiprocessor has registers: forward, forward where states are few numbers, backward."""

ENOUGH = 6
"""Warps of a multiprocessor from which on sequences are not cut: what segments leave each other costs another walk."""

SHARE, MOST_WARPS, LARGEST = 1024, 16, 32768
"""Numbers of matrices for which there is a warp, warps of a block at most, and the numbers that its registers can hold."""

PARTS = 4
"""Blocks of lanes at most where they share a matrix of every token: each has a part of its gradient."""

LEAST, MOST = 16, 32
"""Numbers of a thread, of matrices, below which lanes share a warp, and of the matrices of all tokens of a block."""


def scan_package(kernels: Kernels) -> tuple[ScanPackage, str]:
    """The context of kernels.py, and how whole sequences run on a GPU, in words.

    Raises UnsupportedOperand where a token has no text on tiles: lanes that read each other, several widths of keys, rotations by
    position, groups of channels.
    """
    writer = _Writer(kernels)
    return writer.package(), _words(writer)


def _words(writer: _Writer) -> str:
    """How sequences run, and of entries that read each other up to which size."""
    if writer.carries:
        return "kernels of a scan: states in registers, few long sequences in segments"
    matrices = writer.matrices
    if not matrices:
        return "one kernel walks a whole sequence, its states in registers"
    count = "one matrix" if matrices == 1 else f"{matrices} matrices"
    walks = f"one kernel walks a whole sequence, its states and {count} in registers, up to {widest_of(matrices)} entries a side"
    if writer.shares:
        walks += f", {PARTS * LARGEST // matrices:,} numbers of a matrix times the {writer.lanes.words} that share it"
    return f"{walks}; torch beyond"


def widest_of(matrices: int) -> int:
    """Entries of a side up to which so many matrices fit into the registers of a block."""
    return 1 << ((LARGEST // matrices).bit_length() - 1) // 2


class _Writer:
    def __init__(self, kernels: Kernels):
        self.plan, self.program = kernels.plan, kernels.scan
        self.tokens = TokenWriter(kernels.plan.classified)
        self.spec = self.tokens.spec
        if any(isinstance(n, Apply) and n.function in ("rope", "rope_back") for b in kernels.scan.token for n in nodes(b.value)):
            raise UnsupportedOperand("a rotation by position")
        self.lanes = _lanes(self.program, self.tokens)
        self.carries = not self.program.mixes and not self.program.blocks
        read = {
            n.name for b in self.program.token + self.program.update + self.program.statics for n in nodes(b.value) if isinstance(n, Ref)
        }
        squares = [s for s in self.tokens.arguments if VALUE in self.lanes.own(s) and s.name in read]
        # the gradient of one that all tokens share is a sum over them
        self.matrices = sum(2 if s.kind == "param" else 1 for s in squares)
        self.has_moving = any(s.kind != "param" for s in squares)
        self.shares = any(s.kind != "param" and ROW not in self.lanes.own(s) for s in squares)

    # --- passes ---

    def _pass(self, roots: list[Expr], bindings: tuple[Binding, ...], *, reads_output_gradient: bool = False) -> ScanSite:
        """The lines of a kernel that lead to `roots`: what it makes once, and of every token."""
        site = ScanSite(self.tokens, self.lanes, self.program)
        if reads_output_gradient:
            site.bind_output_gradients()
        lines = needed((*self.program.statics, *bindings), roots)
        fixed = {b.name for b in self.program.statics}
        for binding in lines:
            site.write(binding, is_fixed=binding.name in fixed)
        return site

    def _next(self) -> list[Expr]:
        return [Ref(t, NOWHERE, f"{n}'") for n, t in self.program.states]

    def _kept(self) -> list[Expr]:
        return [Ref(t, NOWHERE, f"kept {n}'") for n, t in self.program.states]

    def _advance(self, site: ScanSite, prefix: str, target: str) -> tuple[str, ...]:
        """`b_S = S'` for every state; names that another line still reads are left alone until all are made."""
        lines = []
        for number, (name, type) in enumerate(self.program.states):
            text = site.spread(Ref(type, NOWHERE, f"{prefix}{name}'"), self.lanes.state(type))
            lines.append(f"b_{target}{number} = tl.where(here, {text}, b_{target}{number})")
        return tuple(lines)

    # --- the package ---

    def package(self) -> ScanPackage:
        program = self.program
        forward_lines = (*program.token, *program.update)
        texts: list[str] = []
        cut = self._cut(forward_lines, texts) if self.carries else None
        site = self._pass([*(o.value for o in program.outputs), *self._next()], forward_lines)
        outputs = self._outputs(site)
        walk_next = self._advance(site, "", "s")
        walk = site.finished()
        texts += [*site.texts, *(row.text for row in outputs)]
        if site.sums_lanes:
            raise UnsupportedOperand("a token reads across lanes")

        site = self._pass(self._next(), forward_lines)
        again_next = self._advance(site, "", "s")
        again = site.finished()
        texts += site.texts

        roots = [b.value for b in (*program.adjoint, *program.arguments, *program.sums)]
        site = self._pass(roots, (*forward_lines, *program.gradient), reads_output_gradient=True)
        stores, delayed, over, gradients = self._argument_stores(site)
        starts, sums = self._sums(site)
        before = self._before(site)
        lines = tuple(site.lines)
        ends, end_stores, parameters = self._parameters(site)
        gradient = site.finished()
        # the same kernel makes a block's states again: it loads what that takes as well
        ahead = (*gradient.ahead, *(load for load in again.ahead if load not in gradient.ahead))
        head = (*again.head, *(line for line in gradient.head if line.target not in {own.target for own in again.head}))
        gradient = replace(
            gradient, lines=lines, head=head, ahead=ahead, pointers=site.pointers(again), launched=site.launched(site.pointers(again))
        )
        texts += [*site.texts, *before, *stores, *(row.text for row in delayed), *sums, *end_stores]

        constants = [pointer(n) for n, _ in self.spec.constants]
        sizes = {line.target: line.text for line in self.tokens.sizes()}
        names = [n for n in self._sizes() if n in sizes]
        inputs = [s for s in self.tokens.arguments if s.kind != "param"]
        output_type = program.outputs[0].value.type
        rows = [str(len(outputs))] if self.tokens.has_rows else []
        like = next((s for s in inputs if s.type == output_type), next((s for s in inputs if not s.type.is_scalar), inputs[0]))
        group = next((s for s in self.tokens.arguments if s.per == "group"), None)
        everything = (*gradients, *parameters)
        passes = (*((cut.summary, cut.asking) if cut is not None else ()), walk, again, gradient)
        texts += [line.text for made in passes for line in (*made.head, *made.lines)] + [line.text for line in ends]
        numbered = range(len(program.states))
        splits = cut is not None and self.lanes.key is None and len(numbered) <= FEW
        return ScanPackage(
            title=title_of(self.spec),
            equations=equations(self.plan.classified.recurrence.worded),
            helpers=helpers(texts),
            lane_words=self.lanes.words,
            key_words="" if self.lanes.key is None else f", {self.lanes.key_text} keys each",
            has_keys=self.lanes.key is not None,
            head_words="channels" if not self.lanes.by_head and not self.lanes.are_heads else "heads",
            has_head_groups=group is not None and self.lanes.by_head,
            has_lane_groups=group is not None and not self.lanes.by_head,
            has_position=self.plan.uses_position,
            shared=tuple(CodeLine("", f"wide_{pointer(s.name)}", f"{pointer(s.name)}.float()") for s in shared(self.lanes, self.tokens)),
            by_head=self.lanes.by_head,
            is_reversed=self.plan.is_reversed,
            lanes=self.lanes.width,
            key=self.lanes.key_text,
            states=tuple(self._state(number, type) for number, (_, type) in enumerate(program.states)),
            carries=self.carries,
            cut=cut,
            splits=splits,
            wider="2 * " if splits and 2 * FEW * LONGEST * (len(ahead) + 2 * len(numbered)) <= HELD else "",
            both=tuple(dict.fromkeys((*cut.summary.ahead, *walk.ahead))) if cut is not None else (),
            pieces=", ".join(f"b_left_{n}, b_part_{n}" for n in numbered),
            pair=", ".join([*(f"b_k{n}, b_s{n}" for n in numbered), *(f"b_left_{n}, b_part_{n}" for n in numbered)]),
            made=", ".join(f"b_k{n}, b_s{n}" for n in numbered),
            reaching=", ".join(f"b_s{n}" for n in numbered),
            brought=", ".join(f"later_{n}" for n in numbered),
            part="(i_q * segments + i_s)" if self.carries else "i_q",
            parts="rows * segments" if self.carries else "rows",
            segments="segments" if self.carries else "1",
            warps='chosen["num_warps"]' if self.matrices else "1",
            walk=walk, outputs=outputs, walk_next=walk_next,
            again=again, again_next=again_next,
            gradient=gradient, stores=tuple(stores), delayed=tuple(delayed),
            over=tuple(over), starts=tuple(starts), sums=tuple(sums), before=tuple(before),
            ends=tuple(ends), end_stores=tuple(end_stores),
            edge="(edge + t0 // W) * H + i_h" if self.lanes.by_head else "edge + t0 // W",
            edge_ahead="(edge + t2 // W) * H + i_h" if self.lanes.by_head else "edge + t2 // W",
            edge_count="edges * H" if self.lanes.by_head else "edges",
            targets="".join(f"{g.target}, " for g in everything),
            buffers=tuple(CodeLine("", g.target, g.buffer) for g in everything),
            numbers="".join(f"{n}, " for n in constants),
            argument_list=", ".join(pointer(s.name) for s in self.tokens.arguments),
            given_list=", ".join(pointer(s.name) for s in self.tokens.given),
            constants="".join(f", {n}" for n in constants),
            size_names="".join(f"{n}: tl.constexpr, " for n in names),
            size_arguments="".join(f"{n}, " for n in names),
            sizes=tuple(CodeLine("", n, self._renamed(sizes[n])) for n in names),
            first=pointer(inputs[0].name),
            heads=self._heads(),
            has_matrices=self.matrices > 0,
            fitting=self._fitting(),
            keeps_each=self.has_moving, shares=self.shares, largest=LARGEST,
            share=SHARE, most_warps=MOST_WARPS, least=LEAST, most=MOST,
            like=pointer(like.name),
            group="1" if group is None else f"{pointer(group.name)}.shape[{2 if group.kind != 'param' else 0}]",
            programs="sequences * H" if self.lanes.by_head else "sequences",
            forward_programs=FORWARD,
            forward_programs_few=FORWARD_FEW,
            backward_programs=BACKWARD,
            enough=ENOUGH,
            finals="".join(f"final_{n}, " for n in range(len(program.states))).rstrip(),
            output_shape=", ".join(["batch, T, H", *rows, *([] if output_type.is_scalar else [self.lanes.size_text(output_type.rows)])]),
            results=tuple(self._results(gradients, parameters)),
            entries=self._entries(),
            held=HELD, beside=BESIDE + OVER * bool(over), blocks=BLOCKS,
            few=FEW, longest=LONGEST if self.carries else STRETCH, most_keys=self._most_keys(),
            key_block="1" if self.lanes.key is None else f"_block({self.lanes.key_text})",
        )  # fmt: skip

    def _outputs(self, site: ScanSite) -> tuple[Row, ...]:
        """The rows of the output; without a number where there is one."""
        found, count = [], len(self.program.outputs)
        for number, output in enumerate(self.program.outputs):
            type, tail = output.value.type, "" if count == 1 else f"_{number + 1}"
            text = site.spread(output.value, self.lanes.output(type))
            place, mask = self.lanes.output_place(type, number, count), self.lanes.mask(self.lanes.output(type), "")
            found.append(Row(f"one{tail}", text, f"made{tail}", place, mask))
        return tuple(found)

    def _cut(self, forward_lines: tuple[Binding, ...], texts: list[str]) -> Cut:
        """What segments leave each other; `texts` is added to."""
        program = self.program
        both = (*forward_lines, *program.carried)
        site = self._pass([*self._next(), *self._kept()], both)
        summary = site.finished()
        texts += site.texts
        summary_next = (*self._advance(site, "", "s"), *self._advance(site, "kept ", "k"))

        asked = self._asked()
        asking_lines, kept = (*both, *self._asking()), self._kept()
        direct = self._direct(asked)
        wanted = [*kept, *(direct or [b.value for b in asked])]
        asks_states = self._reads_states(needed(asking_lines, wanted), wanted)
        site = self._pass([*wanted, *(self._next() if asks_states else [])], asking_lines, reads_output_gradient=True)
        pulled = self._pulled_after(site, direct) if direct else self._pulled(site, asked)
        asking_next = (*self._advance(site, "kept ", "k"), *(self._advance(site, "", "s") if asks_states else ()))
        asking = site.finished()
        texts += [*site.texts, *pulled]
        return Cut(
            entered=self._carried("b_s", "b_left_", "b_part_", is_adjoint=False),
            left=self._carried("b_k", "b_left_", "", is_adjoint=False),
            reached=self._carried("b_d", "b_left_", "b_asked_", is_adjoint=True),
            summary=summary, summary_next=summary_next,
            asking=asking, asks_states=asks_states, pulled=tuple(pulled), asking_next=asking_next,
        )  # fmt: skip

    def _most_keys(self) -> int:
        """Numbers of a lane's states in one thread: fewer where it holds many vectors beside them, as the gradients of rank one have."""
        if self.carries:
            return MOST_KEYS
        keyed = [b for b in (*self.program.statics, *self.program.sums) if KEY in self.lanes.asked(b.value.type)]
        each = VECTORS * len(self.program.states) // max(1, len(keyed))
        return min(MOST_KEYS, 1 << max(1, each.bit_length() - 1))

    def _fitting(self) -> str:
        """Whether what a block holds fits into its registers."""
        fitting = f"{self.lanes.key_text} <= {widest_of(self.matrices) if self.matrices else WIDEST}"
        if self.shares:
            lanes = self._heads() if not self.lanes.by_head else self.lanes.width
            room = PARTS * LARGEST // self.matrices
            fitting += f" and triton.next_power_of_2({lanes}) * triton.next_power_of_2({self.lanes.key_text}) ** 2 <= {room}"
        return fitting

    def _entries(self) -> str:
        """How many numbers the states of a lane have; of matrices, those."""
        if self.matrices:
            return f"{f'{self.matrices} * ' if self.matrices > 1 else ''}{self.lanes.key_text} * {self.lanes.key_text}"
        keyed = sum(KEY in self.lanes.state(t) for _, t in self.program.states)
        parts = [self.lanes.key_text if keyed == 1 else f"{keyed} * {self.lanes.key_text}"] if keyed else []
        alone = len(self.program.states) - keyed
        return " + ".join([*parts, *([str(alone)] if alone else [])])

    def _renamed(self, text: str) -> str:
        name, dot, rest = text.partition(".")
        symbol = next((s for s in self.tokens.arguments if identifier(s.name) == name), None)
        return f"{pointer(symbol.name)}{dot}{rest}" if symbol is not None else text

    def _sizes(self) -> list[str]:
        types = [*(t for _, t in self.program.states), *(s.type for s in self.tokens.arguments), self.program.outputs[0].value.type]
        found = [n for t in types for size in (t.rows, t.cols) for n, _ in size.terms]
        return list(dict.fromkeys(identifier(n) for n in found))

    def _state(self, number: int, type: Type) -> State:
        axes = self.lanes.state(type)
        both = KEY in axes
        return State(
            number=number,
            shape=self.lanes.shape(axes),
            place=self.lanes.place(type, "i_n"),
            entry="o_k[None, :] * L + o_l[:, None]" if both else "o_l",
            width=f"{self.lanes.key_text} * L" if both else "L",
            buffer=f"{self.lanes.key_text}, {self.lanes.width}" if both else self.lanes.width,
            dims=", ".join(["sequences, H", *(self.lanes.size_text(size) for size in (type.rows, type.cols) if size != ONE)]),
            mask=self.lanes.mask(axes, ""),
            one="0.0" if number in dict(self.program.pairs).values() else "1.0",
        )

    def _heads(self) -> str:
        """How many heads, or channels, there are: as an argument shows."""
        for symbol in self.tokens.arguments:
            if symbol.per in ("head", "channel"):
                return f"{pointer(symbol.name)}.shape[{0 if symbol.kind == 'param' else 2}]"
        raise UnsupportedOperand("no argument of a head")

    def _carried(self, target: str, factor: str, added: str, *, is_adjoint: bool) -> tuple[str, ...]:
        """`state = factor * state + added` for every state, a complex one by both its parts; the adjoint takes the conjugate."""
        lines = []
        for parts in self._groups():
            if len(parts) == 1:
                (n,) = parts
                lines.append(f"{target}{n} = {factor}{n} * {target}{n}" + (f" + {added}{n}" if added else ""))
                continue
            re, im = parts
            minus, plus = ("+", "-") if is_adjoint else ("-", "+")
            first = f"{factor}{re} * {target}{re} {minus} {factor}{im} * {target}{im}" + (f" + {added}{re}" if added else "")
            second = f"{factor}{re} * {target}{im} {plus} {factor}{im} * {target}{re}" + (f" + {added}{im}" if added else "")
            lines.append(f"{target}{re}, {target}{im} = {first}, {second}")
        return tuple(lines)

    def _groups(self) -> list[tuple[int, ...]]:
        """The states by number, both parts of a complex one together."""
        second = {im: re for re, im in self.program.pairs}
        whole = dict(self.program.pairs)
        return [(n, whole[n]) if n in whole else (n,) for n in range(len(self.program.states)) if n not in second]

    # --- backward ---

    def _reads_states(self, lines: tuple[Binding, ...], roots: list[Expr]) -> bool:
        """Whether the states themselves are read, and not what is left of them alone."""
        own = {name for state, _ in self.program.states for name in (state, f"{state}'")}
        return any(isinstance(n, Ref) and n.name in own for e in (*(b.value for b in lines), *roots) for n in nodes(e))

    def _direct(self, asked: tuple[Binding, ...]) -> list[Expr] | None:
        """What the output asks of the states after the token, where that is all it asks: what is left of the entering one after
        the token takes it there. None where something else reads a state before the token."""
        program = self.program
        known = {b.name: b.value.type for b in program.gradient}
        for state, _ in program.states:
            readers = [b for b in (*program.token, *program.update, *program.outputs) if self._names(b.value) & {state}]
            together = [p for p in self._groups() if any(program.states[n][0] == state for n in p)][0]
            if any(b.name not in {f"{program.states[n][0]}'" for n in together} for b in readers) or f"d {state}'" not in known:
                return None
        return [Ref(type, NOWHERE, f"d {state}'") for state, type in program.states]

    @staticmethod
    def _names(expr: Expr) -> set[str]:
        return {n.name for n in nodes(expr) if isinstance(n, Ref)}

    def _pulled_after(self, site: ScanSite, direct: list[Expr]) -> list[str]:
        """What the output asks of the states after the token, as what it asks of those that entered the segment."""
        left = [site.spread(Ref(t, NOWHERE, f"kept {name}'"), self.lanes.state(t)) for name, t in self.program.states]
        asked = [site.spread(value, self.lanes.state(value.type)) for value in direct]
        lines = []
        for parts in self._groups():
            if len(parts) == 1:
                (n,) = parts
                lines.append(_grown(f"b_p{n}", f"{left[n]} * {asked[n]}"))
                continue
            re, im = parts
            lines.append(_grown(f"b_p{re}", f"{left[re]} * {asked[re]} + {left[im]} * {asked[im]}"))
            lines.append(_grown(f"b_p{im}", f"{left[re]} * {asked[im]} - {left[im]} * {asked[re]}"))
        return lines

    def _pulled(self, site: ScanSite, asked: tuple[Binding, ...]) -> list[str]:
        """What the output asks of a state, as what it asks of the one that entered."""
        texts = {}
        for number, (binding, (_, type)) in enumerate(zip(asked, self.program.states, strict=True)):
            texts[number] = "" if isinstance(binding.value, Const) else site.spread(binding.value, self.lanes.state(type))
        lines = []
        for parts in self._groups():
            if len(parts) == 1:
                lines += [f"b_p{n} += b_k{n} * ({texts[n]})" for n in parts if texts[n]]
                continue
            re, im = parts
            lines += [f"b_a{n} = {texts[n]}" for n in parts if texts[n]]
            found = [n for n in parts if texts[n]]
            real = {re: f"b_k{re} * b_a{re}", im: f"b_k{im} * b_a{im}"}
            imaginary = {re: f"-b_k{im} * b_a{re}", im: f"b_k{re} * b_a{im}"}
            if found:
                lines.append(f"b_p{re} += {' + '.join(real[n] for n in found)}")
                lines.append(f"b_p{im} += {' + '.join(imaginary[n] for n in found)}")
        return lines

    def _asking(self) -> tuple[Binding, ...]:
        """The gradient's lines where nothing reaches the states from later tokens."""
        return tuple(Binding(b.name, self._without(b.value)) for b in self.program.gradient)

    def _asked(self) -> tuple[Binding, ...]:
        return tuple(Binding(b.name, self._without(b.value)) for b in self.program.adjoint)

    def _without(self, value: Expr) -> Expr:
        seeds = {f"D {name}": type for name, type in self.program.states}

        def gone(node: Expr) -> Expr | None:
            return algebra.const(0, seeds[node.name]) if isinstance(node, Ref) and node.name in seeds else None

        return algebra.rewrite(value, gone)

    def _argument_stores(self, site: ScanSite) -> tuple[list[str], list[Row], list[LaneSum], list[Gradient]]:
        stores, delayed, over, gradients = [], [], [], []
        for binding in self.program.arguments:
            name = binding.name.removeprefix("d ")
            symbol = next(s for s in self.tokens.arguments if s.name == name)
            own = self.lanes.own(symbol)
            text = site.narrowed(binding.value, own, symbol.type)
            target = f"d_{pointer(name)}"
            has_lanes = ROW in own
            is_direct = self.lanes.is_direct(symbol)
            at = self.lanes.place(symbol.type, "row")
            if not has_lanes:
                inner, within = self.lanes.inner(symbol.type, has_lanes), self.lanes.within(symbol.type, has_lanes)
                at = f"(i_l * size + row) * {inner} + {within}"
            if own == (KEY,) and site.is_spread(binding.value):
                tile = f"lanes_{identifier(name)}"
                stores.append(f"{tile} = _over_lanes({tile}, {site.spread(binding.value, (ROW, KEY))}, m_l, o_r, U - 1 - u, SHORT)")
                at = f"((i_l * size + rows) * ({inner}))[:, None] + ({within})[None, :]"
                over.append(LaneSum(tile, f"tl.store({target} + {at}, {tile}, mask=m_r[:, None] & m_n[None, :])"))
            elif own == (ROW,):
                # a number a lane: there is room for those of a whole block
                number, mask = len(delayed), self.lanes.mask(own, "here")
                delayed.append(Row(f"one_{number}", text, f"made_{number}", f"{target} + {at}", mask))
            else:
                stores.append(f"tl.store({target} + {at}, {text}, mask={self.lanes.mask(own, 'here')})")
            if is_direct:
                gradients.append(Gradient(pointer(name), target, f"torch.empty_like({pointer(name)})", target))
            else:
                buffer = f"torch.empty({self._buffer(symbol, has_lanes)}, device=device)"
                gradients.append(Gradient(pointer(name), target, buffer, self._reduced(symbol, target, has_lanes)))
        return stores, delayed, over, gradients

    def _buffer(self, symbol, has_lanes: bool) -> str:
        shape = [] if has_lanes else ["blocks"]
        shape += ["batch", "T"]
        if self.lanes.by_head or has_lanes:
            shape.append("H")
        shape += [self.lanes.size_text(size) for size in (symbol.type.rows, symbol.type.cols) if size != ONE]
        return ", ".join(shape)

    def _reduced(self, symbol, target: str, has_lanes: bool) -> str:
        """The gradient of an argument from its buffer."""
        text = target if has_lanes else f"{target}.sum(0)"
        if symbol.per == "group":
            text += f".unflatten(2, ({pointer(symbol.name)}.shape[2], -1)).sum(3)"
        elif self.lanes.by_head and symbol.per not in ("head", "channel"):
            text += ".sum(2)"
        return f"{text}.to({pointer(symbol.name)}.dtype)"

    def _before(self, site: ScanSite) -> list[str]:
        """What reaches the states before the token; what the line of another state still reads is left alone until that is made."""
        texts = [site.spread(b.value, self.lanes.state(t)) for b, (_, t) in zip(self.program.adjoint, self.program.states, strict=True)]
        lines, moved = [], []
        for number, text in enumerate(texts):
            is_read = any(re.search(rf"\bb_d{number}\b", later) for later in texts[number + 1 :])
            lines.append(f"{'before_' if is_read else 'b_d'}{number} = tl.where(here, {text}, b_d{number})")
            moved += [f"b_d{number} = before_{number}"] if is_read else []
        return lines + moved

    def _sums(self, site: ScanSite) -> tuple[list[str], list[str]]:
        starts, sums = [], []
        for binding in self.program.sums:
            name = f"b_{plain(binding.name)}"
            own = site.axes_of(binding.name.removeprefix("sum "))
            text, axes = site.summed_over_tokens(binding.value, own)
            starts.append(f"{name} = {self.lanes.zeros(axes)}")
            sums.append(_grown(name, text))
            site.bind_sum(binding, name, axes)
        return starts, sums

    def _parameters(self, site: ScanSite) -> tuple[list, list[str], list[Gradient]]:
        """The gradients of parameters from the sums of this program's tokens, and where they go."""
        site.lines = []
        for binding in self.program.static_gradient:
            site.write(binding, is_fixed=False)
        stores, gradients = [], []
        for binding in self.program.parameters:
            name = binding.name.removeprefix("d ")
            symbol = next(s for s in self.tokens.arguments if s.name == name)
            own = self.lanes.own(symbol)
            has_lanes = ROW in own
            text = site.narrowed(binding.value, own, symbol.type)
            target = f"d_{pointer(name)}"
            part = "i_q" if self.lanes.by_head else "i_n"
            part = f"({part} * segments + i_s)" if self.carries else part
            inner, within = self.lanes.inner(symbol.type, has_lanes, heads=False), self.lanes.within(symbol.type, has_lanes, heads=False)
            if has_lanes and not self.lanes.by_head:
                at = f"{part} * H * {inner} + {within}"
            elif has_lanes:
                at = f"{part} * {inner} + {within}"
            else:
                at = f"({part} * blocks + i_l) * {inner} + {within}"
            stores.append(f"tl.store({target} + {at}, {text}, mask={self.lanes.mask(own, '')})".replace(", mask=)", ")"))
            buffer = f"torch.empty({self._part(symbol, has_lanes)}, device=device)"
            gradients.append(Gradient(pointer(name), target, buffer, self._total(symbol, target, has_lanes)))
        return [*self._again(site, stores), *site.lines], stores, gradients

    @staticmethod
    def _again(site: ScanSite, stores: list[str]) -> list[CodeLine]:
        """What the gradients of parameters read of what is the same for every token: made again, so that no register holds it
        while the tokens are walked."""
        wanted = {word for text in (*stores, *(line.text for line in site.lines)) for word in re.findall(r"\w+", text)}
        kept: list[CodeLine] = []
        for line in reversed(site.head):
            if line.target in wanted:
                kept.insert(0, line)
                wanted |= set(re.findall(r"\w+", line.text))
        return kept

    def _part(self, symbol, has_lanes: bool) -> str:
        shape = ["sequences"]
        if self.lanes.by_head:
            shape.append("H")
        shape += ["segments"] * self.carries
        if not has_lanes:
            shape.append("blocks")
        elif not self.lanes.by_head:
            shape.append("H")
        shape += [self.lanes.size_text(size) for size in (symbol.type.rows, symbol.type.cols) if size != ONE]
        return ", ".join(shape)

    def _total(self, symbol, target: str, has_lanes: bool) -> str:
        """The gradient of a parameter from the sums of every program."""
        # over sequences, segments where there are any, and blocks of lanes that share it; behind sequences come heads with programs of
        # their own
        first = 1 + self.lanes.by_head
        axes = [0, *range(first, first + self.carries + (not has_lanes))]
        text = f"{target}.sum({axes[0] if len(axes) == 1 else tuple(axes)})"
        if symbol.per == "group":
            text += f".unflatten(0, ({pointer(symbol.name)}.shape[0], -1)).sum(1)"
        elif self.lanes.by_head and symbol.per not in ("head", "channel"):
            text += ".sum(0)"
        return f"{text}.to({pointer(symbol.name)}.dtype)"

    def _results(self, gradients: list[Gradient], parameters: list[Gradient]) -> list[str]:
        found = {g.argument: g.result for g in (*gradients, *parameters)}
        for name in map(pointer, self.tokens.immaterial):
            found[name] = unasked(name)
        return [found.get(pointer(s.name), f"torch.zeros_like({pointer(s.name)})") for s in self.tokens.arguments]


def _grown(name: str, text: str) -> str:
    """A sum over tokens with one token more: term after term, each product with the sum in one instruction."""
    return f"{name} = tl.where(here, {name} + {text}, {name})"


def _lanes(program: ScanProgram, tokens: TokenWriter) -> Lanes:
    """Channels side by side, the columns of one head, or heads, where entries of one read each other.

    Raises UnsupportedOperand where a state fits none.
    """
    types = [t for _, t in program.states]
    output = program.outputs[0].value.type
    squares = {s.type.rows for s in tokens.arguments if s.type.rows == s.type.cols != ONE} if program.mixes else set()
    are_heads = program.mixes and output.is_column and all(t.is_scalar or t == output for t in types)
    if output.is_scalar or are_heads:
        if any(not (t.is_scalar or t.is_column) for t in types):
            raise UnsupportedOperand("a matrix that is read as a number")
        widths = {t.rows for t in (*types, *(s.type for s in tokens.arguments)) if not t.is_scalar}
        is_wide = any(not (s.type.is_scalar or s.type.is_column or (squares and s.type.rows == s.type.cols)) for s in tokens.arguments)
        if is_wide or (not are_heads and any(s.per == "group" for s in tokens.arguments)):
            raise UnsupportedOperand("rows of a token, or groups of channels")
        is_channel = any(s.per == "channel" for s in tokens.arguments)
        return Lanes(by_head=False, column=None, key=_only(widths), are_heads=program.mixes and not is_channel)
    column = output.rows
    if not output.is_column or any(t.is_scalar or column not in ((t.rows,) if t.is_column else (t.rows, t.cols)) for t in types):
        raise UnsupportedOperand("a state that is not made of the output's columns")
    if column in squares:
        raise UnsupportedOperand("columns of a state that read each other through a matrix")
    others = {t.rows if t.cols == column else t.cols for t in types if not t.is_column} | squares
    others |= {s.type.rows for s in tokens.arguments if s.type.is_column and s.type.rows != column}
    if column in others:
        raise UnsupportedOperand("keys and values of one size")
    return Lanes(by_head=True, column=column, key=_only(others))


def _only(sizes: set[Dim]) -> Dim | None:
    if len(sizes) > 1:
        raise UnsupportedOperand("keys of several widths")
    return next(iter(sizes), None)
