"""A convolution -> the function of op.py that runs whole sequences by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class _Group(ABC):
    """One state, or a pair of them as real and imaginary part, or all that feed each other: how it moves, is read and is written."""

    def __init__(self, number: int, states: tuple[str, ...], text: ConvolutionWriter):
        self.number, self.states, self.text = number, states, text
        self.names = [text.own[name] for name in states]
        self.finals = [f"final_{name}" for name in self.names]

    @abstractmethod
    def powers(self) -> list[str]:
        """Lines that make what one token, and any number of them, leaves of the states."""

    @abstractmethod
    def reading(self, weights: dict[str, Expr]) -> str | None:
        """What a probe reads of the states; None where that is nothing."""

    @abstractmethod
    def writing(self, weights: dict[str, Expr]) -> str | None:
        """What a drive writes into the states; None where that is nothing."""

    @abstractmethod
    def response(self, reading: str, writing: str, free: str) -> str:
        """What is read after every number of tokens of what one wrote; `free`: the axes that it keeps."""

    @abstractmethod
    def started(self, reading: str, has_moved: bool, free: str) -> str:
        """What is read, after every number of tokens, of the initial states, or of those a token later."""

    @abstractmethod
    def final(self) -> list[str]:
        """Lines that make the states after the last token."""

    def _written(self) -> list[tuple[int, str]]:
        """The drives that write into the states, and what they do."""
        texts = ((number, self.writing(dict(drive.weights))) for number, drive in enumerate(self.text.convolution.drives))
        return [(number, text) for number, text in texts if text is not None]

    def _factors(self) -> dict[str, Expr]:
        return dict(self.text.convolution.factors)

    def _left(self) -> tuple[list[str], list[str]]:
        """(names of what a token leaves of each of the states, the lines that make them)."""
        left, lines, factors, writer = [f"left_{name}" for name in self.names], [], self._factors(), self.text.writer
        for state, name in zip(self.states, left, strict=True):
            lines += writer.scope.assign(name, writer._spread(factors[state]), writer.names)
        return left, lines

    def _beside(self, values: dict[str, Expr]) -> str | None:
        """Values of all states, those that are missing as zeros; None where there are none."""
        if all(name not in values or algebra.is_zero(values[name]) for name in self.states):
            return None
        return ", ".join(self.text._text(values[name]) if name in values else "0" for name in self.states)


class _Entries(_Group):
    """Every entry is multiplied by a factor of its own; a pair is one complex number."""

    def powers(self) -> list[str]:
        number, names = self.number, self.names
        factor = self._whole(self._factors()) or "0"
        is_pair = len(names) > 1
        said = f"{names[0]} + i {names[1]}" if is_pair else names[0]
        return [
            f"start_{number} = " + (f"torch.complex({', '.join(names)})[:, :, None]" if is_pair else f"{names[0]}[:, :, None]"),
            f"# what a token leaves of {said}",
            f"factor_{number} = _spread({factor}, start_{number})",
            f"powers_{number} = _powers(factor_{number}, T)",
        ]

    def reading(self, weights: dict[str, Expr]) -> str | None:
        return self._whole(weights, "-")

    def writing(self, weights: dict[str, Expr]) -> str | None:
        return self._whole(weights)

    def response(self, reading: str, writing: str, free: str) -> str:
        return f'_response({reading} * {writing}, powers_{self.number}, "{free}")'

    def started(self, reading: str, has_moved: bool, free: str) -> str:
        after = f" * factor_{self.number}[:, None]" if has_moved else ""
        return f'_response({reading}{after} * start_{self.number}, powers_{self.number}, "{free}")'

    def final(self) -> list[str]:
        parts = [f"_power(powers_{self.number}, T) * start_{self.number}"]
        parts += [f"{text} * _collected(driven_{n}[:, :, :half], powers_{self.number})" for n, text in self._written()]
        lines = [f"final = {parts[0]}", *(f"final = final + {part}" for part in parts[1:])]
        if len(self.finals) == 1:
            return [*lines, f"{self.finals[0]} = final[:, :, 0]"]
        return [*lines, f"{', '.join(self.finals)} = final[:, :, 0].real, final[:, :, 0].imag"]

    def _whole(self, values: dict[str, Expr], sign: str = "+") -> str | None:
        """Values of a pair as one complex number, real part and `sign` i times the other; None where there are none."""
        texts = [None if n not in values or algebra.is_zero(values[n]) else self.text._factor(values[n]) for n in self.states]
        if len(texts) == 1 or texts[1] is None:
            return texts[0]
        imaginary = f"1j * {texts[1]}"
        return (f"-{imaginary}" if sign == "-" else imaginary) if texts[0] is None else f"({texts[0]} {sign} {imaginary})"


class _Matrix(_Group):
    """Entries of a state read each other: a matrix that all tokens share, of both parts of a pair one above the other."""

    def powers(self) -> list[str]:
        """What a token leaves of every column of the identity, side by side."""
        number, names, count = self.number, self.names, len(self.names)
        lines = [f"start_{number} = torch.cat(({', '.join(names)},), -2)", f"size_{number} = {names[0]}.shape[-2]"]
        lines.append(
            f"basis_{number} = torch.eye({count} * size_{number}, dtype=start_{number}.dtype, device=start_{number}.device)[..., None]"
        )
        for i, name in enumerate(self.states):
            kept = self.text.writer.own[f"kept {name}"]
            lines.append(f"{kept} = basis_{number}[:, {i} * size_{number} : {i + 1} * size_{number}]")
        left, made = self._left()
        lines += [*made, "# what a token leaves of " + (" above ".join(names))]
        return [*lines, f"powers_{number} = _squares(torch.cat(({', '.join(left)},), -2)[..., 0].mT, T)"]

    def reading(self, weights: dict[str, Expr]) -> str | None:
        values = self._beside(weights)
        return None if values is None else f"_column({self.names[0]}, {values})"

    writing = reading

    def response(self, reading: str, writing: str, free: str) -> str:
        return f"_answer({reading}, {writing}, powers_{self.number}).to(start_{self.number}.dtype)"

    def started(self, reading: str, has_moved: bool, free: str) -> str:
        after = f"_moved(start_{self.number}, powers_{self.number})" if has_moved else f"start_{self.number}"
        return self.response(reading, after, free)

    def final(self) -> list[str]:
        number = self.number
        parts = [f"_after(start_{number}, powers_{number}, T)"]
        parts += [f"_gathered(driven_{n}[:, :, half - T : half], {text}, powers_{number})" for n, text in self._written()]
        total = f"final = ({' + '.join(parts)}).to(start_{number}.dtype)"
        return [total, f"{', '.join(self.finals)}{',' * (len(self.finals) == 1)} = final.split(size_{number}, -2)"]


class _Coupled(_Group):
    """States feed each other, entry by entry: at every entry a small matrix of them all."""

    def powers(self) -> list[str]:
        """What a token leaves of every entry in each of the states when it stood in one of them."""
        number, names, count = self.number, self.names, len(self.names)
        lines = [
            f"start_{number} = torch.stack(({', '.join(names)}), -1)",
            f"basis_{number} = torch.eye({count}, dtype=start_{number}.dtype, device=start_{number}.device)[..., None, None, None, None]",
        ]
        lines += [f"{self.text.writer.own[f'kept {name}']} = basis_{number}[{i}]" for i, name in enumerate(self.states)]
        left, made = self._left()
        lines += [*made, "# what a token leaves of " + ", ".join(names) + " at every entry"]
        return [*lines, f"powers_{number} = _block_powers(_block_factor({names[0]}[:, :, None], {', '.join(left)}), T)"]

    def reading(self, weights: dict[str, Expr]) -> str | None:
        values = self._beside(weights)
        return None if values is None else f"_beside({self.names[0]}[:, :, None], {values})"

    writing = reading

    def response(self, reading: str, writing: str, free: str) -> str:
        return f'_block_response({reading}, {writing}, powers_{self.number}, "{free}")'

    def started(self, reading: str, has_moved: bool, free: str) -> str:
        after = f"_block_after(start_{self.number}, powers_{self.number}, 1)" if has_moved else f"start_{self.number}"
        return self.response(reading, after, free)

    def final(self) -> list[str]:
        number = self.number
        lines = [f"final = _block_after(start_{number}, powers_{number}, T)"]
        lines += [f"final = final + _block_collected(driven_{n}[:, :, :half], {text}, powers_{number})" for n, text in self._written()]
        return [*lines, f"{', '.join(self.finals)} = final.unbind(-1)"]


class ConvolutionWriter:
    """Writes the lines of one program's convolution, with the names of its scan."""

    def __init__(self, writer: ScanWriter, convolution: Convolution):
        self.writer, self.convolution = writer, convolution
        program = writer.program
        names = [name for name, _ in program.states]
        self.own = dict(zip(names, writer.states, strict=True))
        paired = {re: im for re, im in program.pairs}
        firsts = [i for i in range(len(names)) if i not in paired.values()]
        self.groups: list[_Group] = []
        for number, i in enumerate(firsts):
            states = (names[i], names[paired[i]]) if i in paired else (names[i],)
            if not any(names[i] in group for group in convolution.coupled):
                self.groups.append((_Matrix if names[i] in convolution.mixing else _Entries)(number, states, self))
        self.groups += [_Coupled(len(firsts) + number, states, self) for number, states in enumerate(convolution.coupled)]

    def text(self) -> ConvolutionText:
        # tokens stand in front of the middle: whole blocks end where they do
        lines = ["half = size // 2", *self.writer._lines(self.writer.program.convolution_lines)]
        lines += [line for group in self.groups for line in group.powers()]
        for number, drive in enumerate(self.convolution.drives):
            value = f"torch.ones_like(at.{self.writer.timed}[..., :1, :1])" if algebra.is_one(drive.value) else self._text(drive.value)
            lines.append(f"driven_{number} = F.pad({value}, (0, 0, 0, 0, half - T, half))")
            lines.append(f'spectrum_{number} = _Spectrum.apply(driven_{number}, size, "backward")')
        for probe in self.convolution.probes:
            lines += self._probe(probe)
        lines += self._output()
        for group in self.groups:
            lines += group.final()
        summary = "The outputs of all tokens, which are one row, and the states after the last."
        finals = self.writer._tupled([f"final_{self.own[name]}" for name in self.own])
        function = self.writer._function("_convolution", ["at", "states", "is_given", "T", "size"], summary, lines, f"y, {finals}")
        has_shift = any(not name.endswith("'") for probe in self.convolution.probes for name, _ in probe.weights)
        has_factors, has_matrices, has_blocks = (any(isinstance(g, kind) for g in self.groups) for kind in (_Entries, _Matrix, _Coupled))
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
                    reading, writing = group.reading(own), group.writing(dict(drive.weights))
                    if reading is not None and writing is not None:
                        text = group.response(reading, writing, free)
                        responses.append(text if primed else f"_shifted({text})")
            if not responses:
                continue
            impulse = f"impulse_{len(terms)}"
            product = f'spectrum_{number} * _Spectrum.apply({impulse}[..., :T, :, :], size, "forward")'
            terms.append((f"{impulse} = {' + '.join(responses)}", f"({product}).sum({summed}, keepdim=True)" if summed else product))
        letters = "".join(letter for letter, axis in (("n", 0), ("p", 1)) if axis in probe.axes)
        for primed, own in weights.items():
            for group in self.groups:
                reading = group.reading(own)
                if reading is not None:
                    starts.append(group.started(reading, primed, letters))
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
