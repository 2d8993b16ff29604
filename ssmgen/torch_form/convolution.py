"""A convolution -> the function of op.py that runs whole sequences by it."""

from __future__ import annotations

from dataclasses import dataclass

from .. import algebra
from ..backends import eager_text
from ..backends.eager_text import PRODUCT
from ..response import Convolution, Drive, Probe
from ..spec import ONE, Expr
from .scan import ScanFunction, ScanWriter

LENGTH = 128
"""Powers of a factor that are made at once: a table of these, and one of every LENGTH-th."""

LEVELS = 3
"""Tables upon tables: sequences of up to LENGTH^LEVELS tokens."""


@dataclass(frozen=True)
class ConvolutionText:
    """What op.py says of a convolution: the function of whole sequences, and what calls it."""

    length: int
    levels: int
    function: ScanFunction
    has_shift: bool  # a probe reads the state before the token
    has_factors: bool  # a state is multiplied entry by entry
    has_matrices: bool  # entries of a state read each other
    has_blocks: bool  # states feed each other, entry by entry
    call: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """One state, or a pair of them as real and imaginary part; or all that feed each other."""

    number: int
    states: tuple[str, ...]
    mixes: bool  # entries read each other
    is_coupled: bool = False  # states do, entry by entry


class ConvolutionWriter:
    """Writes the lines of one program's convolution, with the names of its scan."""

    def __init__(self, writer: ScanWriter, convolution: Convolution):
        self.writer, self.convolution = writer, convolution
        program = writer.program
        self.types = dict(program.states)
        names = [name for name, _ in program.states]
        paired = {re: im for re, im in program.pairs}
        firsts = [i for i in range(len(names)) if i not in paired.values()]
        self.groups = []
        for number, i in enumerate(firsts):
            states = (names[i], names[paired[i]]) if i in paired else (names[i],)
            if not any(names[i] in group for group in convolution.coupled):
                self.groups.append(_Group(number, states, names[i] in convolution.mixing))
        self.groups += [_Group(len(firsts) + number, group, False, True) for number, group in enumerate(convolution.coupled)]
        self.own = dict(zip(names, writer.states, strict=True))

    def text(self) -> ConvolutionText:
        # tokens stand in front of the middle: whole blocks end where they do
        lines = ["half = size // 2", *self.writer._lines(self.writer.program.convolution_lines)]
        lines += [line for group in self.groups for line in self._powers(group)]
        for number, drive in enumerate(self.convolution.drives):
            value = f"torch.ones_like(at.{self.writer.timed}[..., :1, :1])" if algebra.is_one(drive.value) else self._text(drive.value)
            lines.append(f"driven_{number} = F.pad({value}, (0, 0, 0, 0, half - T, half))")
            lines.append(f'spectrum_{number} = _Spectrum.apply(driven_{number}, size, "backward")')
        for probe in self.convolution.probes:
            lines += self._probe(probe)
        lines += self._output()
        for group in self.groups:
            lines += self._final(group)
        summary = "The outputs of all tokens, which are one row, and the states after the last."
        finals = self.writer._tupled([f"final_{self.own[name]}" for name in self.types])
        function = self.writer._function("_convolution", ["at", "states", "is_given", "T", "size"], summary, lines, f"y, {finals}")
        has_shift = any(not name.endswith("'") for probe in self.convolution.probes for name, _ in probe.weights)
        has_matrices, has_blocks = any(group.mixes for group in self.groups), any(group.is_coupled for group in self.groups)
        has_factors = any(not group.mixes and not group.is_coupled for group in self.groups)
        return ConvolutionText(LENGTH, LEVELS, function, has_shift, has_factors, has_matrices, has_blocks, tuple(self._call()))

    def _call(self) -> list[str]:
        writer = self.writer
        shape = writer.output_shape().replace("rows[0].", "at.")
        return [
            f"at = _rows({', '.join(writer._row_arguments())}, {writer.states[0]}.shape[1], None)[0]",
            f"y, final = _convolution(at, {writer._states(writer.states)}, is_given, T, size)",
            f"y = y.expand({writer.states[0]}.shape[0], {writer.states[0]}.shape[1], T, {shape}){writer.output_tail()}",
            *writer._final(writer.states, "final"),
        ]

    # --- values ---

    def _text(self, value: Expr) -> str:
        return self.writer._text(value)

    def _factor(self, value: Expr) -> str:
        writer = self.writer
        return eager_text.text_of(writer._spread(value), writer.names).at(PRODUCT)

    def _whole(self, group: _Group, values: dict[str, Expr], sign: str = "+") -> str | None:
        """Values of a pair as one complex number, real part and `sign` i times the other; None where there are none."""
        texts = [None if n not in values or algebra.is_zero(values[n]) else self._factor(values[n]) for n in group.states]
        if len(texts) == 1 or texts[1] is None:
            return texts[0]
        imaginary = f"1j * {texts[1]}"
        return (f"-{imaginary}" if sign == "-" else imaginary) if texts[0] is None else f"({texts[0]} {sign} {imaginary})"

    def _shape(self, group: _Group) -> str:
        type = self.types[group.states[0]]
        sizes = [self.writer._size(size).replace("rows[0].", "at.") for size in (type.rows, type.cols)]
        return ", ".join(sizes)

    def _powers(self, group: _Group) -> list[str]:
        number, names = group.number, [self.own[name] for name in group.states]
        if group.mixes:
            return self._matrix(group)
        if group.is_coupled:
            return self._block(group)
        factor = self._whole(group, dict(self.convolution.factors)) or "0"
        is_pair = len(names) > 1
        said = f"{names[0]} + i {names[1]}" if is_pair else names[0]
        return [
            f"start_{number} = " + (f"torch.complex({', '.join(names)})[:, :, None]" if is_pair else f"{names[0]}[:, :, None]"),
            f"# what a token leaves of {said}",
            f"factor_{number} = _spread({factor}, start_{number})",
            f"powers_{number} = _powers(factor_{number}, T)",
        ]

    def _matrix(self, group: _Group) -> list[str]:
        """What a token leaves of every column of the identity, side by side."""
        number, names, count = group.number, [self.own[name] for name in group.states], len(group.states)
        factors = dict(self.convolution.factors)
        lines = [f"start_{number} = torch.cat(({', '.join(names)},), -2)", f"size_{number} = {names[0]}.shape[-2]"]
        lines.append(
            f"basis_{number} = torch.eye({count} * size_{number}, dtype=start_{number}.dtype, device=start_{number}.device)[..., None]"
        )
        for i, name in enumerate(group.states):
            kept = self.writer.own[f"kept {name}"]
            lines.append(f"{kept} = basis_{number}[:, {i} * size_{number} : {i + 1} * size_{number}]")
        left = []
        for name in group.states:
            left.append(f"left_{self.own[name]}")
            lines += self.writer.scope.assign(left[-1], self.writer._spread(factors[name]), self.writer.names)
        lines.append("# what a token leaves of " + (" above ".join(names)))
        return [*lines, f"powers_{number} = _squares(torch.cat(({', '.join(left)},), -2)[..., 0].mT, T)"]

    def _block(self, group: _Group) -> list[str]:
        """What a token leaves of every entry in each of the states when it stood in one of them."""
        number, names, count = group.number, [self.own[name] for name in group.states], len(group.states)
        factors = dict(self.convolution.factors)
        lines = [
            f"start_{number} = torch.stack(({', '.join(names)}), -1)",
            f"basis_{number} = torch.eye({count}, dtype=start_{number}.dtype, device=start_{number}.device)[..., None, None, None, None]",
        ]
        lines += [f"{self.writer.own[f'kept {name}']} = basis_{number}[{i}]" for i, name in enumerate(group.states)]
        left = [f"left_{name}" for name in names]
        for name, text in zip(group.states, left, strict=True):
            lines += self.writer.scope.assign(text, self.writer._spread(factors[name]), self.writer.names)
        lines.append("# what a token leaves of " + ", ".join(names) + " at every entry")
        return [*lines, f"powers_{number} = _block_powers(_block_factor({names[0]}[:, :, None], {', '.join(left)}), T)"]

    def _parts(self, group: _Group, values: dict[str, Expr]) -> str | None:
        """Values of the states of a group, side by side at every entry; None where there are none."""
        if all(n not in values or algebra.is_zero(values[n]) for n in group.states):
            return None
        texts = [self._text(values[n]) if n in values else "0" for n in group.states]
        return f"_beside({self.own[group.states[0]]}[:, :, None], {', '.join(texts)})"

    def _column(self, group: _Group, values: dict[str, Expr]) -> str | None:
        """Values of the parts of a state, one above the other; None where there are none."""
        if all(n not in values or algebra.is_zero(values[n]) for n in group.states):
            return None
        texts = [self._text(values[n]) if n in values else "0" for n in group.states]
        return f"_column({self.own[group.states[0]]}, {', '.join(texts)})"

    # --- what is read ---

    def _probe(self, probe: Probe) -> list[str]:
        weights = {primed: {} for primed in (True, False)}
        for name, weight in probe.weights:
            weights[name.endswith("'")][name.removesuffix("'")] = weight
        terms, starts = [], []
        for number, drive in enumerate(self.convolution.drives):
            axes = self._axes(drive)
            free = "".join(letter for letter, axis in (("n", 0), ("p", 1)) if axis in probe.axes | axes)
            summed = tuple({0: -2, 1: -1}[axis] for axis in sorted(axes - probe.axes))
            responses = []
            for primed, own in weights.items():
                for group in self.groups:
                    if group.mixes:
                        reading, writing = self._column(group, own), self._column(group, dict(drive.weights))
                        if reading is not None and writing is not None:
                            text = f"_answer({reading}, {writing}, powers_{group.number}).to(start_{group.number}.dtype)"
                            responses.append(text if primed else f"_shifted({text})")
                        continue
                    if group.is_coupled:
                        reading, writing = self._parts(group, own), self._parts(group, dict(drive.weights))
                        if reading is not None and writing is not None:
                            text = f'_block_response({reading}, {writing}, powers_{group.number}, "{free}")'
                            responses.append(text if primed else f"_shifted({text})")
                        continue
                    reading, writing = self._whole(group, own, "-"), self._whole(group, dict(drive.weights))
                    if reading is None or writing is None:
                        continue
                    text = f'_response({reading} * {writing}, powers_{group.number}, "{free}")'
                    responses.append(text if primed else f"_shifted({text})")
            if not responses:
                continue
            impulse = f"impulse_{len(terms)}"
            product = f'spectrum_{number} * _Spectrum.apply({impulse}[..., :T, :, :], size, "forward")'
            terms.append((f"{impulse} = {' + '.join(responses)}", f"({product}).sum({summed}, keepdim=True)" if summed else product))
        letters = "".join(letter for letter, axis in (("n", 0), ("p", 1)) if axis in probe.axes)
        for primed, own in weights.items():
            for group in self.groups:
                if group.mixes:
                    column = self._column(group, own)
                    after = f"_moved(start_{group.number}, powers_{group.number})" if primed else f"start_{group.number}"
                    if column is not None:
                        starts.append(f"_answer({column}, {after}, powers_{group.number}).to(start_{group.number}.dtype)")
                    continue
                if group.is_coupled:
                    reading = self._parts(group, own)
                    after = f"_block_after(start_{group.number}, powers_{group.number}, 1)" if primed else f"start_{group.number}"
                    if reading is not None:
                        starts.append(f'_block_response({reading}, {after}, powers_{group.number}, "{letters}")')
                    continue
                reading = self._whole(group, own, "-")
                if reading is not None:
                    after = f" * factor_{group.number}[:, None]" if primed else ""
                    starts.append(f'_response({reading}{after} * start_{group.number}, powers_{group.number}, "{letters}")')
        name = self.writer.own[probe.name]
        lines = [line for line, _ in terms]
        total = " + ".join(text for _, text in terms)
        lines.append(f"{name} = _Signal.apply({total}, size)[:, :, half - T : half]" if terms else f"{name} = 0")
        lines += ["if is_given:", *(f"    {name} = {name} + {text}[:, :, :T]" for text in starts)]
        if probe.rows == 1 or probe.cols == 0:
            lines.append(f"{name} = {name}.mT")
        return lines

    @staticmethod
    def _axes(drive: Drive) -> frozenset[int]:
        type = drive.value.type
        return frozenset(axis for axis, size in ((0, type.rows), (1, type.cols)) if size != ONE)

    def _output(self) -> list[str]:
        values, writer = self.convolution.outputs, self.writer
        if len(values) == 1:
            return writer.scope.assign("y", writer._spread(values[0]), writer.names)
        names = [f"row_{number}" for number in range(1, len(values) + 1)]
        lines = [
            line
            for name, value in zip(names, values, strict=True)
            for line in writer.scope.assign(name, writer._spread(value), writer.names)
        ]
        return [*lines, f"y = torch.cat(torch.broadcast_tensors({', '.join(names)}), -1)"]

    # --- what is left ---

    def _final(self, group: _Group) -> list[str]:
        if group.mixes:
            return self._last(group)
        if group.is_coupled:
            return self._last_block(group)
        parts = [f"_power(powers_{group.number}, T) * start_{group.number}"]
        for number, drive in enumerate(self.convolution.drives):
            writing = self._whole(group, dict(drive.weights))
            if writing is not None:
                parts.append(f"{writing} * _collected(driven_{number}[:, :, :half], powers_{group.number})")
        names = [f"final_{self.own[name]}" for name in group.states]
        lines = [f"final = {parts[0]}", *(f"final = final + {part}" for part in parts[1:])]
        if len(names) == 1:
            return [*lines, f"{names[0]} = final[:, :, 0]"]
        return [*lines, f"{', '.join(names)} = final[:, :, 0].real, final[:, :, 0].imag"]

    def _last(self, group: _Group) -> list[str]:
        parts = [f"_after(start_{group.number}, powers_{group.number}, T)"]
        for number, drive in enumerate(self.convolution.drives):
            writing = self._column(group, dict(drive.weights))
            if writing is not None:
                parts.append(f"_gathered(driven_{number}[:, :, half - T : half], {writing}, powers_{group.number})")
        names = [f"final_{self.own[name]}" for name in group.states]
        total = f"final = ({' + '.join(parts)}).to(start_{group.number}.dtype)"
        return [total, f"{', '.join(names)}{',' * (len(names) == 1)} = final.split(size_{group.number}, -2)"]

    def _last_block(self, group: _Group) -> list[str]:
        lines = [f"final = _block_after(start_{group.number}, powers_{group.number}, T)"]
        for number, drive in enumerate(self.convolution.drives):
            writing = self._parts(group, dict(drive.weights))
            if writing is not None:
                lines.append(f"final = final + _block_collected(driven_{number}[:, :, :half], {writing}, powers_{group.number})")
        return [*lines, f"{', '.join(f'final_{self.own[name]}' for name in group.states)} = final.unbind(-1)"]
