"""One walk of an operator as text: its functions, the text of their calls, and what its operands need on the way to chunks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..backends.torch_chunk import WalkFunction, walk_function
from ..backends.torch_text import identifier
from ..bounds import bounds_of
from ..kernel import Kernels, WalkKernels, programs
from ..plan import Walk
from ..text.line_text import broken_function
from .column_text import pack, unpack
from .previous_text import Lookahead, turned_back
from .row_text import flattened, member, step_lines, unflattened
from .shapes import Shapes
from .tokens import Line, TokenFunction, TokenWriter

FLOOR = 1000.0
"""exp of less than minus this is 0 in every float."""


@dataclass(frozen=True)
class WalkText:
    """One walk: its functions and the text of their calls."""

    suffix: str
    equation: str
    operands: TokenFunction
    operands_backward: TokenFunction
    functions: tuple[WalkFunction, ...]
    has_decay: bool
    operand_names: str
    timed: str  # an operand with a time axis
    adjusted: tuple[Line, ...]
    step_adjusted: tuple[Line, ...]
    states: str
    states_tuple: str
    states_target: str
    cast_states: str
    pack: str
    unpack: str
    unpack_arguments: str
    unpack_call: str
    unpack_gradient_call: str
    forward_call: str
    reads: str
    joined_reads: str
    moved_reads: str
    read_gradients: str
    split_gradients: str
    moved_gradients: str
    gradient_call: str
    gradient_results: str
    joined_gradients: str
    operand_gradients: str
    state_gradients: str
    state_gradients_tuple: str
    flattened: tuple[Line, ...]  # rows of tokens as rows of chunks
    unflattened: tuple[Line, ...]
    step: tuple[str, ...]  # one token
    turned: str  # of a step: the states turned by the token's angle, behind the walk that leaves them; empty where none turns
    scale: str  # text of the number in front of the queries; empty when there is none
    scale_call: str
    scaled: tuple[Line, ...]
    scaled_gradients: tuple[Line, ...]


class WalkWriter(Shapes):
    """Writes the walks of an operator."""

    kernels: Kernels
    aheads: tuple[Lookahead, ...]

    @staticmethod
    def _operands(walk: Walk) -> list[str]:
        return TokenWriter.operand_names(walk)

    def _d(self, state: str) -> str:
        """The gradient of a state: apart from that of an operand, should the state have an operand's letter."""
        letters = {name for walk in self.plan.classified.walks for name in self._operands(walk)}
        return f"d_{state}_state" if state in letters else f"d_{state}"

    # --- walks ---

    def walk(self, kernels: WalkKernels, suffix: str) -> WalkText:
        walk = kernels.walk
        names = self._operands(walk)
        has_decay = walk.log_decay is not None
        reads = [r.name for r in walk.readings]
        moved = [f"reads{suffix}{r[1:]}" if len(self.kernels.walks) > 1 or len(reads) > 1 else "reads" for r in reads]
        grads = [f"d{r}" for r in reads]
        queries = [f"q{r.name[1:]}" for r in walk.readings]
        states = [identifier(s) for s in walk.states]
        unpacked, used = unpack(walk)
        sizes = [self.sizes[n] for n in used]
        sides = {False: "...n, ...np -> ...p", True: "...p, ...np -> ...n"}
        source = {r.name: member(r.member) if walk.members else "S" for r in walk.readings}
        step = {r.name: f'{r.name} = torch.einsum("{sides[r.is_value]}", q{r.name[1:]}, {source[r.name]})' for r in walk.readings}
        rows, by_row = len(walk.rows), [n for n in names if n in ("k", "v", "e", "g")]
        places = {n: self.tokens.operand_place(walk, n) for n in names}
        scale = self._scale(walk)
        timed = next(n for n in names if places[n].has_time)
        return WalkText(
            suffix=suffix,
            equation=kernels.forward.title,
            operands=broken_function(self.tokens.operands(walk, suffix)),
            operands_backward=broken_function(self.tokens.operands_backward(walk, suffix)),
            functions=tuple(walk_function(p, f"_{p.name}{suffix}") for p in programs(kernels)),
            has_decay=has_decay,
            operand_names=", ".join(names),
            timed=timed,
            adjusted=(*(line for n in names for line in self._adjusted(walk, n, places[n], timed)), *self._floored(walk)),
            step_adjusted=tuple(line for n in names for line in self._step_adjusted(walk, n, places[n])),
            states=", ".join(states),
            states_tuple=as_tuple(states),
            states_target=as_target(states),
            cast_states=", ".join(f"{self._entered_name(s)}" for s in states),
            pack=pack(walk),
            unpack=unpacked[1:-1],
            unpack_arguments=", ".join(["S", *used]),
            unpack_call=", ".join(["final", *sizes]),
            unpack_gradient_call=", ".join(["d_initial", *sizes]),
            forward_call=", ".join([*(t.name for t in kernels.forward.inputs), "S", "chunks"]),
            reads=", ".join(reads),
            joined_reads=", ".join(f"_join({r}, T, chunks)" for r in reads),
            moved_reads=", ".join(moved),
            read_gradients=", ".join(grads),
            split_gradients=", ".join(f"_split({g}, chunks)" for g in grads),
            moved_gradients=", ".join(f"d_{m}" for m in moved),
            gradient_call=", ".join([*(t.name for t in kernels.gradient.inputs), "S", "D", "chunks"]),
            gradient_results=", ".join(t.name for t in kernels.gradient.outputs),
            joined_gradients=(
                f"*(_join(d, T, chunks) for d in ({', '.join(f'd{n}' for n in names)}))"
                if len(names) > 6
                else ", ".join(f"_join(d{n}, T, chunks)" for n in names)
            ),
            operand_gradients=", ".join(f"d_{n}" for n in names),
            state_gradients=", ".join(self._d(s) for s in states),
            state_gradients_tuple=as_target([self._d(s) for s in states]),
            flattened=tuple(Line("", n, flattened(walk, n)) for n in by_row) if rows > 1 else (),
            unflattened=tuple(Line("", f"d{n}", unflattened(walk, n)) for n in by_row) if rows > 1 else (),
            step=(
                *(step[r.name] for r in walk.readings if not r.is_inclusive),
                *step_lines(walk),
                *(step[r.name] for r in walk.readings if r.is_inclusive),
            ),
            turned=self._turned(walk),
            scale=scale,
            scale_call=f", {scale}" if scale else "",
            scaled=tuple(Line("", q, f"{q} * scale") for q in queries) if scale else (),
            scaled_gradients=tuple(Line("", f"d{q}", f"d{q} * scale") for q in queries) if scale else (),
        )

    def _entered_name(self, state: str) -> str:
        """A state as the walk of a step takes it."""
        return f"entered_{state}" if any(e.state == state for a in self.aheads for e in a.entries) else f"{state}.to(dtype)"

    def _turned(self, walk: Walk) -> str:
        """The states that a step leaves, turned by the angle of the token."""
        texts = [f"moved[{i}]" for i in range(len(walk.states))]
        for turning in self.recurrence.turnings:
            level = self.tokens.printer.place(turning.step).level
            for state, side in turning.states:
                if state in walk.states:
                    i = walk.states.index(state)
                    texts[i] = turned_back(self.tokens, state, side, identifier(turning.name), level, texts[i])
        return as_tuple(texts) if any(not text.startswith("moved") for text in texts) else ""

    def _scale(self, walk: Walk) -> str:
        if walk.scale is None:
            return ""
        text = self.tokens.printer.text(walk.scale)
        for name in sorted(self.sizes, key=len, reverse=True):
            text = re.sub(rf"\b{name}\b", self.sizes[name], text)
        return text.replace("]**", "] ** ")

    @staticmethod
    def _adjusted(walk: Walk, name: str, place, timed: str) -> list[Line]:
        """An operand without a head axis gets one, the decay one entry a head; what is the same for every token is expanded over time."""
        wide = ", -1" * place.width
        lines = []
        if not is_plain(walk):
            if not place.level:
                lines.append(Line("", name, f"{name}[..., None{', :' * place.width}]"))
            elif place.level == "g":
                axis = -1 - place.width
                lines.append(Line("", name, f"{name}.repeat_interleave(S.shape[1] // {name}.shape[{axis}], {axis})"))
            if not place.has_time or not place.level:
                lines.append(Line("", name, f"{name}.expand({timed}.shape[0], T, S.shape[1]{wide})"))
            return lines
        tail = "-1" + wide
        if not place.level:
            tail = "S.shape[1]" if name == "g" else "chunks.groups, -1"
            lines.append(Line("", name, f"{name}[..., None]" if name == "g" else f"{name}[..., None, :]"))
        elif place.level == "g" and name == "g":
            lines.append(Line("", name, "g.repeat_interleave(S.shape[1] // g.shape[-1], -1)"))
        if not place.has_time:
            lines.append(Line("", name, f"{name}.expand({timed}.shape[0], T, {tail})"))
        elif not place.level:
            lines.append(Line("", name, f"{name}.expand(-1, -1, {tail})"))
        return lines

    def _floored(self, walk: Walk) -> list[Line]:
        """A log decay that may be -inf in floating point is raised to where its factor is 0 all the same: sums stay finite."""
        logs = [row.log_decay for row in walk.rows if row.log_decay is not None]
        bounds = bounds_of(self.spec)
        if walk.members:
            weak = [bounds.of(m.log_decay).low > -FLOOR for m in walk.members]
            return [Line("", f"g{a}", f"g{a}.clamp(min=-{FLOOR})") for a, is_weak in enumerate(weak) if not is_weak]
        if is_plain(walk) or all(bounds.of(log).low > -FLOOR for log in logs):
            return []
        return [Line("", "g", f"g.clamp(min=-{FLOOR})")]

    @staticmethod
    def _step_adjusted(walk: Walk, name: str, place) -> list[Line]:
        if place.level == "h":
            return []
        if not place.level:
            return [Line("", name, f"{name}[..., None{', :' * place.width}]")]
        axis = -1 - place.width
        return [Line("", name, f"{name}.repeat_interleave(S.shape[1] // {name}.shape[{axis}], {axis})")]


# --- words -------------------------------------------------------------------------------------------------------


def is_plain(walk: Walk) -> bool:
    """One row a token, one factor a head, nothing erased: what is shared by a group of heads may stay so."""
    return len(walk.rows) == 1 and not walk.is_wide and not walk.has_erase and not walk.members


def as_tuple(texts: list[str]) -> str:
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def as_target(names: list[str]) -> str:
    """Names to unpack into; one name needs its comma."""
    return f"({names[0]},)" if len(names) == 1 else ", ".join(names)
