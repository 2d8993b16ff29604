"""recurrence -> what decode.py of the emitted package says: one token of every sequence in one kernel launch.

`module.decode_layer` adds what a layer computes before the recurrence. The text comes from the equations: definitions, the update as it is
written (after a discretization, as derived), the output. Nothing here knows in which form the recurrence runs over many tokens.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath

from .. import algebra
from ..backends.torch_text import identifier
from ..backends.triton_pointwise import ATOM, HALF, PRODUCT, SUM, Printer, Text, UnsupportedOperand, loaded, size_text
from ..backends.triton_text import helpers
from ..backends.triton_value import facing, in_layout
from ..expressions import half, nodes
from ..identities.micro_step import step_value
from ..kernel import KEY, SOURCE, VALUE
from ..recurrence import Recurrence
from ..reference.head_text import equations, title_of
from ..small import all_nodes, arguments_of, previous_input
from ..source import NOWHERE, Span
from ..spec import ONE, Apply, Assignment, Delayed, Dim, Element, Expr, Ref, Rot, State, StateRef, SumOver, Symbol, Type
from ..spec_text import expr_text
from .decode_package import DecodePackage, Line, StateText, Strided
from .line_parts import from_the_right, part_of

WIDTH = 140
"""Columns of an emitted line."""

HEAD_INDEX = {"head": "i_h", "channel": "i_h", "group": "i_g"}


def decode_package(recurrence: Recurrence) -> DecodePackage | None:
    """The context of decode.py.

    None where an expression has no text on a tile: matrices between the columns of one, complex numbers, operands of the previous token.
    """
    try:
        return TokenWriter(recurrence).package()
    except UnsupportedOperand:
        return None


class RowsPrinter(Printer):
    """`Printer` for states whose rows read each other."""

    def _inner_axes(self, inner: Dim, rows: str, cols: str) -> list[str]:
        return [*super()._inner_axes(inner, rows, cols), SOURCE]


class TokenWriter:
    """Prints one token. What the printer asks for is loaded, or computed, where it is first asked for."""

    kernel = "step_kernel"
    subject: tuple[str, ...] = ("One token of every sequence in one launch; the states move on in place.",)
    sizes_given: tuple[str, ...] = ()
    """Sizes that are handed over as numbers."""

    def __init__(self, recurrence: Recurrence):
        if recurrence.spec.recurrent_inputs:
            raise UnsupportedOperand("a state that enters the inputs")
        self.recurrence, self.spec = recurrence, recurrence.spec
        self.counts = dict(self.spec.counts)
        self.constants = [identifier(name) for name, _ in self.spec.constants]
        self.inputs, self.params = arguments_of(self.spec)
        # what the token before had comes as an input of its own, behind the spec's
        delayed = {n.name for n in all_nodes(self.spec) if isinstance(n, Delayed)}
        self.previous = [previous_input(s) for s in self.spec.symbols if s.name in delayed]
        self.symbols: dict[str, Symbol] = {s.name: s for s in self.spec.symbols}
        defined = dict(recurrence.hoisted) | {s.name: s.definition for s in self.spec.symbols if s.definition is not None}
        self.definitions: dict[str, Expr] = {name: self._unrolled(value) for name, value in defined.items()}
        self.size_of = self._axes()
        self.axis_of = {size: axis for axis, size in reversed(self.size_of.items()) if axis != HALF}
        self.printer = RowsPrinter(self, self.axis_of) if SOURCE in self.size_of else Printer(self, self.axis_of)
        self._choose_names()
        self.loads: dict[str, Line] = {}
        self.steps: list[Line] = []
        self.known: dict[tuple[str, str], Text] = {}
        self.current: dict[str, str] = {}

    # --- axes and names ---

    def _axes(self) -> dict[str, Dim]:
        """The size of every axis: rows of the first matrix state on the key axis, its columns on the value axis."""
        matrix = next((s.type for s in self.spec.states if not s.type.is_scalar and not s.type.is_column), None)
        vector = next((s.type for s in self.spec.states if s.type.is_column), None)
        found = {} if vector is None else {VALUE: vector.rows}
        found = found if matrix is None else {KEY: matrix.rows, VALUE: matrix.cols}
        # a matrix between the entries of a vector: both its sides are the vector's, which lies along either
        squares = {s.type.rows for s in self.spec.symbols if s.type.rows == s.type.cols}
        self.faces = matrix is None and vector is not None and vector.rows in squares
        if self.faces:
            if self._turning_sizes():
                raise UnsupportedOperand("a matrix beside pairs that turn")
            self.paired = KEY
            return {KEY: vector.rows, VALUE: vector.rows}
        if matrix is not None and matrix.rows in squares and matrix.rows != matrix.cols and not self._turning_sizes():
            # between the rows of a matrix: their third axis
            self.paired = KEY
            return {KEY: matrix.rows, VALUE: matrix.cols, SOURCE: matrix.rows}
        sizes = self._turning_sizes()
        self.paired = KEY if KEY in found and not (sizes and sizes <= {found[VALUE]}) else VALUE
        if any(found.get(axis) in sizes for axis in (KEY, VALUE) if axis != self.paired and found.get(axis) != found.get(self.paired)):
            raise UnsupportedOperand("pairs along both axes of a state")
        return found | ({HALF: half(found[self.paired])} if KEY in found or (found and sizes) else {})

    def _turning_sizes(self) -> set[Dim]:
        """Sizes of what lies in pairs."""
        found = list(all_nodes(self.spec))
        sizes = {n.type.rows for n in found if isinstance(n, Rot) or (isinstance(n, Apply) and n.function == "pairs")}
        # of a complex state the real and the imaginary part are states of their own, which no pair joins
        states = {s.name: s.type for s in self.spec.states}
        for term in (t for step in self.recurrence.steps for t in step.transitions if t.target in states):
            sides = ((term.left, states[term.target].rows), (term.right, states[term.target].cols))
            sizes |= {size for side, size in sides if any(g.kind == "rotation" for g in side)}
        return sizes - {ONE}

    def _axis(self, size: Dim) -> str:
        """Where a vector of this size lies: `N/2` on the axis of pairs."""
        axis = "" if size == ONE else self.axis_of.get(size) or (HALF if self.size_of.get(HALF) == size else KEY)
        if axis and axis not in self.size_of:
            raise UnsupportedOperand(f"a vector of {size} entries beside states that have none")
        return axis

    def _angle_sizes(self) -> set[Dim]:
        """Sizes of angles: one a pair that turns, which may be fewer than there are."""
        angles = [n.operand for n in all_nodes(self.spec) if isinstance(n, Rot)]
        angles += [g.column for s in self.recurrence.steps for t in s.transitions for g in t.left + t.right if g.kind == "rotation"]
        return {a.type.rows for a in angles if HALF in self.size_of and not a.type.is_scalar}

    def _is_square(self, size: Dim) -> bool:
        """Both sides of a state have this size: a vector of it may lie on either axis."""
        return any(s.type.rows == s.type.cols == size for s in self.spec.states)

    def _choose_names(self) -> None:
        """Names that stay apart: sizes keep theirs, then the kernel's own, then tensors, with `_` behind where one is taken."""
        sizes = {identifier(name) for name, _ in self.spec.dims} | set(self.constants)
        self.heads, self.groups, *blocks = (_apart(name, sizes) for name in ("H", "G", "BN", "BP"))
        self.blocks = dict(zip((KEY, VALUE), blocks, strict=True))
        self.blocks |= {HALF: f"{self.blocks[self.paired]} // 2", SOURCE: self.blocks[KEY]}
        given = [s.name for s in (*self._handed_inputs(), *self.params, *self.previous, *self.spec.states)]
        self.taken = {f"{letter}_{identifier(name)}" for letter in "bmps" for name in (*given, *self.definitions)}
        self.taken |= {*sizes, self.heads, self.groups, *blocks, "i_bh", "i_b", "i_h", "i_g", "i_p", "i_s", "tl", "torch", "triton"}
        self.taken |= {f"{letter}_{axis}" for letter in "om" for axis in (KEY, VALUE, HALF)} | {"position", "t_position", "warps"}
        self.tensors: dict[str, str] = {}
        for name in given:
            self.tensors[name] = self._fresh(identifier(name))
        self.given = [Strided(self.tensors[s.name], f"s_{identifier(s.name)}") for s in self._handed_inputs()]
        self.learned = [self.tensors[s.name] for s in self.params]
        self.before = [Strided(self.tensors[s.name], f"s_{identifier(s.name)}") for s in self.previous]
        self.memories = [Strided(self.tensors[s.name], f"s_{identifier(s.name)}") for s in self.spec.states]
        # a count of tokens, which the launch moves on, by the name that it has in the kernel
        self.counts_of = {"position": "b_position"} if self._has_position() else {}
        self.output, self.slots = self._fresh("y"), self._fresh("slots")

    def _handed_inputs(self) -> list[Symbol]:
        """The recurrence's inputs that are tensors of their own."""
        return self.inputs

    def _fresh(self, name: str) -> str:
        name = _apart(name, self.taken)
        self.taken.add(name)
        return name

    # --- what the printer asks for ---

    def get(self, key: tuple[str, str]) -> Text | None:
        """The value of a name on an axis (`triton_pointwise.Values`)."""
        if self.faces and key[1] == VALUE:
            found = self.get((key[0], KEY))
            return None if found is None else facing(found)
        if SOURCE in key[1] and KEY not in key[1]:
            found = self.get((key[0], key[1].replace(SOURCE, KEY)))
            return None if found is None else facing(found, {KEY: SOURCE})
        if key not in self.known:
            found = self._value(*key)
            if found is None:
                return None
            self.known[key] = found
        return self.known[key]

    def _value(self, name: str, axes: str) -> Text | None:
        if name in ("head", "channel"):
            return loaded("i_h.to(tl.float32)")
        if name in ("heads", "channels"):
            return Text(self.heads, ATOM, is_number=True)
        if name == "position":
            return loaded("b_position")
        if name in dict(self.spec.constants):
            return loaded(identifier(name))
        if name in self.definitions:
            return self._defined(name, axes)
        base, _, row = name.rstrip("]").partition("[")
        if row.isdigit() and base in self.definitions:
            self.definitions[name] = self._row(self.definitions[base], int(row))
            return self._defined(name, axes)
        symbol = self.symbols.get(base)
        if row.startswith("-1"):
            symbol = next((s for s in self.previous if s.name == f"{base}[-1]"), None)
            row = row.removeprefix("-1").removeprefix("][")
        if symbol is None or symbol.type.field == "complex":
            return None
        return self._argument(symbol, axes, int(row) if row else 0)

    def _argument(self, symbol: Symbol, axes: str, row: int) -> Text | None:
        """An input or param of this head; of [n, N], row `row`."""
        shape = [size for size in (symbol.type.rows, symbol.type.cols) if size != ONE]
        inner = shape[1:] if row else shape
        if len(inner) == len(axes) == 2:
            return self._matrix(symbol, axes)
        if len(inner) != len(axes) or len(inner) > 1:
            return None
        is_few = axes == HALF and inner[0] != self.size_of.get(HALF) and inner[0] in self._angle_sizes()
        if axes and self._axis(inner[0]) != axes and not self._is_square(inner[0]) and not is_few:
            return None
        name, index = identifier(symbol.name), HEAD_INDEX.get(symbol.per, "")
        if index and shape:
            widths = [self._size_text(size, PRODUCT) for size in shape]
            index += f" * {widths[0]}" if len(widths) == 1 else f" * ({' * '.join(widths)})"
        skipped = f"{row - 1} * {self._size_text(inner[0], PRODUCT)}" if inner else str(row - 1)
        parts = [*self._places(symbol), index, skipped if row > 1 else "", f"o_{axes}" if axes else ""]
        label = f"{name}_{row}" if row else name
        label += f"_{axes}" if axes and self._axis(inner[0]) != axes and not is_few else ""
        mask = f"o_{axes} < {self._size_text(inner[0])}" if is_few else f"m_{axes}" if axes else ""
        return self._load(label, axes, " + ".join(part for part in parts if part), mask)

    def _matrix(self, symbol: Symbol, axes: str) -> Text | None:
        """An input or param with a number for every entry of a state."""
        sizes, name = (symbol.type.rows, symbol.type.cols), identifier(symbol.name)
        if any(self.size_of.get(axis) != size for axis, size in zip(axes, sizes, strict=True)):
            return None
        widths = [self._size_text(size, PRODUCT) for size in sizes]
        index = f"{HEAD_INDEX[symbol.per]} * ({' * '.join(widths)})" if symbol.per in HEAD_INDEX else ""
        first, second = in_layout(axes)
        rows, cols = ("[:, None]", "[None, :]") if first == axes[0] else ("[None, :]", "[:, None]")
        entry = f"o_{axes[0]}{rows} * {widths[1]} + o_{axes[1]}{cols}"
        place = " + ".join(part for part in (*self._places(symbol), index, entry) if part)
        label = name if first == axes[0] else f"{name}_{axes}"
        return self._load(label, first + second, place, f"m_{first}[:, None] & m_{second}[None, :]")

    def _places(self, symbol: Symbol) -> list[str]:
        """The tensor of an argument, and where in it its own entries begin."""
        return [self.tensors[symbol.name], f"i_b * s_{identifier(symbol.name)}" if symbol.kind != "param" else ""]

    def _row(self, value: Expr, row: int) -> Expr:
        """Row `row` of a definition of several rows; of other definitions all there is."""
        return value if value.type.rows == ONE else algebra.row_of(value, row)

    def _load(self, label: str, axes: str, place: str, mask: str) -> Text:
        target = f"b_{label}"
        text = f"tl.load({place}, mask={mask}, other=0.0)" if mask else f"tl.load({place})"
        self.loads[target] = Line(target, f"{text}.to(tl.float32)", shape=self._shape(tuple(axes)))
        return loaded(target, tuple(axes))

    def _defined(self, name: str, axes: str) -> Text:
        value = self.definitions[name]
        symbol = self.symbols.get(name)
        if name.startswith(MADE):
            target, above = name.removeprefix(MADE), ()
        else:
            target = f"b_{identifier(name.rstrip(']').replace('[', '_'))}"
            above = self._defined_words(name, symbol, value)
        if any(other == name for other, _ in self.known):
            target += f"_{axes}"
        return self._assign(target, value, axes, above)

    def _defined_words(self, name: str, symbol: Symbol | None, value: Expr) -> tuple[str, ...]:
        """What stands above a definition."""
        return self._quoted(name, symbol.definition, symbol.span) if symbol else comment(f"{name} = {expr_text(value)}")

    # --- lines ---

    def _assign(self, target: str, value: Expr, axes: str, above: tuple[str, ...]) -> Text:
        """Append `target = value`; a line that would be too long gets a name for a part of it."""
        text, parts = self._printed(value, axes), []
        while len(f"    {target} = {text.text}{self._shape(text.axes)}") > WIDTH:
            part = part_of(value)
            if part is None and (other := algebra.rewrite(value, from_the_right)) != value:
                value = other
                continue
            if part is None:
                break
            parts.append(self._fresh(f"{target.split('_part')[0]}_part"))
            name = MADE + parts[-1]
            self.definitions[name] = part
            value = algebra.rewrite(value, lambda node, part=part, name=name: Ref(part.type, NOWHERE, name) if node == part else None)
            text = self._printed(value, axes)
        first = next((i for i, line in enumerate(self.steps) if line.target in parts), None)
        if first is not None:
            self.steps[first], above = replace(self.steps[first], above=above), ()
        self.steps.append(Line(target, text.text, above, self._shape(text.axes)))
        return text.named(target)

    def _printed(self, value: Expr, axes: str) -> Text:
        """The text on all of `axes`, spread over those that the value lacks."""
        text = self.printer.print(value, axes[:1] or KEY, axes[1:] or VALUE)
        full = tuple(a for a in (HALF, KEY, VALUE) if a in axes)
        if text.axes == full or value.type.is_scalar:
            return text
        blocks = ", ".join(self.blocks[a] for a in full)
        beyond = {axis: text.past(axis) for axis in full}
        return Text(f"tl.zeros(({blocks}{',' * (len(full) == 1)}), tl.float32) + {text.along(full, PRODUCT)}", SUM, full, beyond)

    def _shape(self, axes: tuple[str, ...]) -> str:
        return f"  # [{', '.join(self.blocks[a] for a in axes)}]" if axes else ""

    def _quoted(self, left: str, value: Expr, span: Span, tail: str = "") -> tuple[str, ...]:
        source = self.spec.source
        line, _ = source.position(span.start)
        return comment(f"{PurePath(source.name).name}:{line}  {left} = {expr_text(value)}{tail}")

    # --- the token ---

    def _unrolled(self, expr: Expr, index: str = "", number: int = 0) -> Expr:
        """Sums over build-time counts written out, and the loop index `index` as a number."""

        def known(node: Expr) -> Expr | None:
            if isinstance(node, SumOver):
                body = self._unrolled(node.body, index, number)
                return algebra.add(*(self._unrolled(body, node.index, r) for r in range(1, self._count(node.count) + 1)))
            if index and isinstance(node, Element) and node.index == index:
                return replace(node, index=number)
            return algebra.const(number) if index and isinstance(node, Ref) and node.name == index else None

        return algebra.rewrite(expr, known)

    def _count(self, count: Dim) -> int:
        if any(name not in self.counts for name, _ in count.terms):
            raise UnsupportedOperand(f"a loop over {count}, which is not known at build time")
        return int(count.value(self.counts))

    def _assignments(self) -> Iterable[tuple[str, Expr, tuple[str, ...]]]:
        """(state, value, comment) in order. A value reads `S` before the token, and `S'` as assigned so far."""
        if self.spec.dynamics:
            for state in self.spec.states:
                value = self._unrolled(step_value(self.recurrence.upright.steps[0], state.name, state.type, self.spec.symbols))
                yield state.name, value, comment(f"{state.name}' = {expr_text(value)}")
            return
        for item in self.spec.update:
            if isinstance(item, Assignment):
                yield item.state, self._unrolled(item.value), self._quoted(f"{item.state}'", item.value, item.span)
                continue
            for number in range(1, self._count(item.count) + 1):
                for inner in item.body:
                    above = self._quoted(f"{inner.state}'", inner.value, inner.span, f", {item.index} = {number}")
                    yield inner.state, self._unrolled(inner.value, item.index, number), above

    def _size_text(self, size: Dim, binding: int = SUM) -> str:
        """A size as text, build-time counts as numbers."""
        constant = size.constant + sum(c * self.counts[name] for name, c in size.terms if name in self.counts)
        return size_text(Dim(constant, tuple(term for term in size.terms if term[0] not in self.counts))).at(binding)

    def _state_axes(self, type_: Type) -> str:
        if type_.is_scalar or type_.is_column:
            return self._axis(type_.rows)
        return KEY + VALUE if type_.rows == type_.cols else self._axis(type_.rows) + self._axis(type_.cols)

    def _token(self) -> None:
        """Print update and output; what they need comes before them."""
        for state in self.spec.states:
            axes = self._state_axes(state.type)
            if (state.type.field == "complex" and state.rotating_rows is None) or axes not in ("", KEY, VALUE, KEY + VALUE):
                raise UnsupportedOperand(f"the state `{state.name}` on a tile")
            self.current[state.name] = f"b_{identifier(state.name)}"
            self.known[state.name, axes] = loaded(self.current[state.name], tuple(axes))
        outputs = self.spec.outputs
        if outputs[0].count is not None and outputs[0].count.value({**dict(self.spec.dims), **self.counts}) != len(outputs):
            raise UnsupportedOperand("an output of several rows")
        results = [self._unrolled(output.value) for output in outputs]
        self.rows = [self.output if len(outputs) == 1 else self._fresh(f"{self.output}_{n}") for n in range(1, len(outputs) + 1)]
        assignments = list(self._assignments())
        for place, (state, value, above) in enumerate(assignments):
            axes = self._state_axes(self.spec.state(state).type)
            target = self.current[state]
            is_read = any(self._reads(later, state, False) for later in (*(v for _, v, _ in assignments[place + 1 :]), *results))
            if is_read and target == f"b_{identifier(state)}":
                target = self._fresh(f"{target}_next")
            text = self._assign(target, value, axes, above)
            self.current[state] = target
            self.known = {key: known for key, known in self.known.items() if not self._is_moved(key[0], state)}
            self.known[f"{state}'", axes] = text
        self.output_axes = "" if results[0].type.is_scalar else self._output_axis(results[0])
        for row, output, result in zip(self.rows, outputs, results, strict=True):
            self._assign(f"b_{row}", result, self.output_axes, self._quoted(output.name, output.value, output.span))

    def _output_axis(self, value: Expr) -> str:
        """The value axis where the output can be had there, as `S^T q` of a square state can."""
        size = value.type.cols if value.type.is_row else value.type.rows
        if not self._is_square(size):
            return self._axis(size)
        try:
            self.printer.print(value, VALUE)
        except UnsupportedOperand:
            return KEY
        return VALUE

    def _reads(self, value: Expr, state: str, primed: bool) -> bool:
        for node in nodes(value):
            if isinstance(node, StateRef) and node.name == state and node.primed == primed:
                return True
            if isinstance(node, Ref) and node.name in self.definitions and self._reads(self.definitions[node.name], state, primed):
                return True
        return False

    def _is_moved(self, name: str, state: str) -> bool:
        """True for a definition over the state after the token, which has just become another one."""
        return name in self.definitions and self._reads(self.definitions[name], state, True)

    # --- the package ---

    def package(self) -> DecodePackage:
        """Everything decode.py says."""
        self._token()
        states = {s.name: self._state_axes(s.type) for s in self.spec.states}
        steps = _needed(self.steps, {*self.current.values(), *(f"b_{row}" for row in self.rows)})
        used = _words(line.text for line in steps)
        loads = [line for line in self.loads.values() if line.target in used]
        state_texts = [self._state_text(name, axes) for name, axes in states.items()]
        width = self._size_text(self.size_of[self.output_axes], ATOM) if self.output_axes else ""
        row = f"i_b * {self.heads} + i_h"
        places = [row] if len(self.rows) == 1 else [f"({row}) * {len(self.rows)} + {n}" for n in range(len(self.rows))]
        places = [f"({place}) * {width} + o_{self.output_axes}" if width else place for place in places]
        place = " ".join(places)
        words = _words([*(line.text for line in (*loads, *steps)), *(f"{t.place} {t.mask}" for t in state_texts), place])
        axes = [axis for axis in (SOURCE, KEY, HALF, VALUE) if {f"o_{axis}", f"m_{axis}"} & words]
        # a state without the value axis would be read by one block of columns after another has moved it on
        is_split = VALUE in axes and VALUE not in self.printer.whole and all(VALUE in own for own in states.values())
        sides = [axis for axis in (KEY, VALUE) if axis in axes or (axis == self.paired and HALF in axes)]
        indices = self._indices(axes, is_split, "i_g" in words)
        words |= _words(line.text for line in indices)
        sizes = self._sizes(words)
        blocks = [self.blocks[axis] for axis in sides]
        compiled = [*(line.target for line in sizes), *blocks]
        tensors = [*(t.tensor for t in self.given), *self.learned, *(t.tensor for t in self.before)]
        originals = [t.tensor for t in self.memories]
        kept = [self._fresh(f"{name}_block") for name in originals]
        kept_counts = [self._fresh(f"{name}_block") for name in self.counts_of]
        copied = [*zip(kept, originals, strict=True), *zip(kept_counts, self.counts_of, strict=True)]
        numbers = [c for c in self.constants if c in used]
        rows = f"{self.given[0].tensor}.shape[0]"
        columns = self._size_text(self.size_of[VALUE]) if is_split else ""
        programs = f"{self.heads} * tl.num_programs(1)" if is_split else self.heads
        above, counts = ("every program of a sequence finds the same number, whenever it comes",), []
        for count, target in self.counts_of.items():
            counts += [Line(f"t_{count}", f"_ticket({count} + i_s)", above), Line(target, f"_number(t_{count})")]
            above = ()
        closes = tuple(f"_close({count} + i_s, t_{count}, {programs})" for count in self.counts_of)
        return DecodePackage(
            kernel=self.kernel,
            title=title_of(self.spec),
            subject=self.subject,
            equations=equations(self.recurrence.worded),
            helpers=helpers([*(line.text for line in (*counts, *steps)), *closes]),
            pointers=_lines([*tensors, *originals, *self.counts_of, self.output, self.slots]),
            strides=_lines(t.stride for t in (*self.given, *self.before, *self.memories)),
            numbers=tuple(numbers),
            constants=_lines(f"{name}: tl.constexpr" for name in compiled),
            legend=self._legend(compiled),
            indices=indices,
            output=self.output,
            rows=tuple(Line(name, f"{self.output} + {place}") for name, place in zip(self.rows, places, strict=True)),
            output_mask=f", mask=m_{self.output_axes}" if width else "",
            output_zeros=f"tl.zeros(({self.blocks[self.output_axes]},), tl.float32)" if width else "0.0",
            slots=self.slots,
            counts=tuple(counts),
            closes=closes,
            loads=tuple(loads),
            steps=tuple(steps),
            states=tuple(state_texts),
            block_parameters=", ".join(dict.fromkeys(self._extent(axis) for axis in sides)),
            block_arguments=", ".join({self._extent(axis): self._size_text(self.size_of[axis]) for axis in sides}.values()),
            block_lines=tuple(self._block_lines(sides, is_split)),
            block_names=", ".join([*blocks, "warps"]),
            signature=(
                *(f"{t}: Tensor" for t in (*tensors, *originals, *self.counts_of)),
                *(f"{c}: float" for c in self.constants),
                *(f"{c}: int" for c in self.sizes_given),
            ),
            dense=(
                *(Line(t.tensor, f"_dense({t.tensor})") for t in self.given),
                *(Line(name, f"{name}.contiguous()") for name in self.learned),
                *(Line(t.tensor, f"_dense({t.tensor})") for t in self.before),
                *(Line(name, f"_dense({own})" if name in kept else f"{own}.contiguous()") for name, own in copied),
            ),
            moved=tuple(Line(own, name) for name, own in copied),
            sizes=sizes,
            shape=", ".join(text for text in (rows, self.heads, "" if len(self.rows) == 1 else str(len(self.rows)), width) if text),
            like=self._like(),
            grid=f"({rows} * {self.heads}, triton.cdiv({columns}, {self.blocks[VALUE]}))" if is_split else f"({rows} * {self.heads},)",
            handed=(
                *_lines([*tensors, *kept, *kept_counts, self.output, self.slots]),
                *_lines([*(f"{t}.stride(0)" for t in (*(t.tensor for t in (*self.given, *self.before)), *kept)), *numbers]),
            ),
            keywords=_lines([*(f"{name}={name}" for name in compiled), "num_warps=warps"]),
            is_split=is_split,
        )

    def _like(self) -> str:
        """The tensor whose dtype the output takes: that of an input of its shape."""
        vectors = [s for s in self.inputs if not s.type.is_scalar]
        like = next((s for s in self.inputs if s.type == self.spec.outputs[0].value.type), [*vectors, *self.inputs][0])
        return self._tensor_of(like)

    def _tensor_of(self, symbol: Symbol) -> str:
        """The tensor that holds an input."""
        return self.tensors[symbol.name]

    def _has_position(self) -> bool:
        return any(
            isinstance(n, Apply) and n.function == "rope" or isinstance(n, Ref) and n.name == "position" for n in all_nodes(self.spec)
        )

    def _state_text(self, name: str, axes: str) -> StateText:
        index = {axis: "" if len(axes) == 1 else "[:, None]" if axis == axes[0] else "[None, :]" for axis in axes}
        widths = [self._size_text(self.size_of[axis], ATOM) for axis in axes]
        head = f"i_h * ({' * '.join(widths)})" if len(axes) > 1 else f"i_h * {widths[0]}" if axes else "i_h"
        own = [f"o_{axis}{index[axis]}" + (f" * {widths[1]}" if len(axes) > 1 and axis == axes[0] else "") for axis in axes]
        place = " + ".join([self.tensors[name], f"i_s * s_{identifier(name)}", head, *own])
        mask = f", mask={' & '.join(f'm_{axis}{index[axis]}' for axis in axes)}" if axes else ""
        return StateText(identifier(name), place, mask, ", other=0.0" if axes else "", self._shape(tuple(axes)), self.current[name])

    def _indices(self, axes: list[str], is_split: bool, has_groups: bool) -> tuple[Line, ...]:
        """Program ids, offsets and masks."""
        lines = [Line("i_bh, i_p", "tl.program_id(0), tl.program_id(1)") if is_split else Line("i_bh", "tl.program_id(0)")]
        lines.append(Line("i_b, i_h", f"(i_bh // {self.heads}).to(tl.int64), i_bh % {self.heads}"))
        if has_groups:
            lines.append(Line("i_g", f"i_h // ({self.heads} // {self.groups})"))
        start = {VALUE: f"i_p * {self.blocks[VALUE]} + "} if is_split else {}
        if axes:
            lines.append(
                Line(", ".join(f"o_{a}" for a in axes), ", ".join(f"{start.get(a, '')}tl.arange(0, {self.blocks[a]})" for a in axes))
            )
            lines.append(Line(", ".join(f"m_{a}" for a in axes), ", ".join(f"o_{a} < {self._size_text(self.size_of[a])}" for a in axes)))
        return tuple(lines)

    def _legend(self, names: list[str]) -> str:
        meanings = {self.heads: "heads", self.groups: "groups of heads"}
        meanings |= {self.blocks[axis]: f"block of {self._size_text(self.size_of[axis])}" for axis in (KEY, VALUE) if axis in self.size_of}
        return ", ".join(f"{name} {meanings[name]}" for name in names if name in meanings)

    def _sizes(self, words: set[str]) -> tuple[Line, ...]:
        """What the kernel is compiled for, read off the shapes; every size that `words` has."""
        state = self.tensors[self.spec.states[0].name]
        lines = [Line(self.heads, f"{state}.shape[1]")]
        if self.groups in words:
            lines.append(Line(self.groups, self._groups_text()))
        for name in (name for name, _ in self.spec.dims if identifier(name) in words):
            lines.append(Line(identifier(name), self._size(name)))
        return tuple(lines)

    def _groups_text(self) -> str:
        group = next(s for s in (*self.inputs, *self.params) if s.per == "group")
        return f"{self.tensors[group.name]}.shape[{0 if group.kind == 'param' else 1}]"

    def _shaped(self) -> tuple[Symbol | State, ...]:
        """What has its own axes behind that of the sequences: sizes are read off it."""
        return (*self.inputs, *self.params, *self.spec.states)

    def _size(self, name: str) -> str:
        for held in self._shaped():
            sides = [size for size in (held.type.rows, held.type.cols) if size != ONE]
            for place, size in enumerate(reversed(sides), 1):
                if not size.constant and [n for n, _ in size.terms] == [name] and size.terms[0][1].numerator == 1:
                    text = f"{self.tensors[held.name]}.shape[-{place}]"
                    return text if size.terms[0][1] == 1 else f"{size.terms[0][1].denominator} * {text}"
        raise UnsupportedOperand(f"no shape gives the size `{name}`")

    def _extent(self, axis: str) -> str:
        """How long an axis is, as a parameter of its own."""
        text = self._size_text(self.size_of[axis])
        return text if text.isidentifier() else {KEY: "keys", VALUE: "columns"}[axis]

    def _block_lines(self, sides: list[str], is_split: bool) -> Iterable[Line]:
        """Blocks and warps from the sizes, as measured: a program streams about 64 entries of the state a thread; where vectors
        turn with the position, or the state turns, it has more to compute, on 16."""
        turns = any("_rope(" in line.text or "_rotate(" in line.text for line in self.steps)
        room, share = (4096, 512) if turns else (8192, 2048)
        block = {axis: self.blocks[axis] for axis in sides}
        pairs = f"{block[KEY]} // {block[KEY]}" if SOURCE in self.size_of and KEY in block else block.get(KEY)
        whole = {axis: f"triton.next_power_of_2({self._extent(axis)})" for axis in sides}
        if KEY in block:
            yield Line(block[KEY], whole[KEY])
        if VALUE in block:
            columns = f"max({room} // {pairs}, {1 if SOURCE in self.size_of else 32})" if KEY in block else "1024"
            yield Line(block[VALUE], f"min({whole[VALUE]}, {columns})" if is_split else whole[VALUE])
        entries = " * ".join([*([self.blocks[SOURCE]] if SOURCE in self.size_of else []), *block.values()])
        yield Line("warps", f"min(max({entries} // {share}, 1), 8)" if entries else "1")


MADE = "made "
"""What the names of parts begin with that a long line is taken apart into: no name of the language has a space."""


def _needed(lines: list[Line], wanted: set[str]) -> list[Line]:
    """The lines that lead to what is wanted."""
    kept: list[Line] = []
    for line in reversed(lines):
        if line.target in wanted:
            kept.insert(0, line)
            wanted = wanted | _words([line.text])
    return kept


def _lines(words: Iterable[str]) -> tuple[str, ...]:
    """Words as arguments, on as few lines as hold them."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) + 10 <= WIDTH:
            lines[-1] += f" {word},"
        else:
            lines.append(f"{word},")
    return tuple(lines)


def comment(text: str) -> tuple[str, ...]:
    """A comment's lines, without the marks in front of them."""
    return tuple(textwrap.wrap(text, WIDTH - 6, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text)}


def _apart(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
