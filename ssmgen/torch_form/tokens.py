"""The token-wise half of an operator: operands before the walks, readout after them, and the gradients of both.

Definitions of the spec become lines; gradients come from `differentiate`, summed over the axes that a name lacks (time
and batch for a learned parameter, the heads of a group for what they share).
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from types import MappingProxyType

from .. import algebra
from ..backends.torch_pointwise import ATOM, NUMBER, SUM, Place, Printer, Text, UnsupportedOperand, size_text
from ..backends.torch_text import identifier
from ..differentiate import cotangents, inner_of
from ..expressions import children, nodes
from ..gauges import immaterial
from ..identities.rows import sizes_of
from ..plan import Classified, Column, Row, Walk, column_width, widths
from ..small import all_nodes, arguments_of, delayed_in, previous_input
from ..source import NOWHERE
from ..spec import Add, Apply, Delayed, Expr, MatMul, Ref, Rot, Symbol, Type
from ..spec_text import expr_text
from .token_text import Line, Returned, TokenFunction

SCALAR = Type()
NOTHING: Mapping[str, Expr] = MappingProxyType({})


class TokenWriter:
    """Writes the token-wise functions of one recurrence."""

    def __init__(self, classified: Classified):
        self.recurrence = classified.recurrence
        self.spec = self.recurrence.spec
        self.walks = classified.walks
        self.outputs = classified.outputs
        self.folded = classified.folded
        inputs, params = arguments_of(self.spec)
        scanned = {name for m in self.recurrence.maxima for name in (m.before, m.after)}
        scanned |= {made.name for made in (*self.recurrence.turnings, *self.recurrence.aheads)}
        self.given = tuple(s for s in (*inputs, *params) if s.name not in scanned)
        self.delayed = self._delayed()
        # running maxima and angles are inputs to the operator, and what the token before had comes as an input of its own behind the
        # spec's; where states look ahead, what they take in before the first token alone is none
        read = self._read_before() if self.recurrence.aheads else {s.name for s in self.delayed}
        self.arguments = (*inputs, *params, *(previous_input(s) for s in self.delayed if s.name in read))
        self.immaterial = immaterial(self.recurrence)
        self.taken_in = tuple(previous_input(s) for s in self.delayed if s.name not in read)
        self.definitions: dict[str, Expr] = dict(self.recurrence.hoisted) | {
            s.name: s.definition for s in self.spec.symbols if s.definition is not None
        }
        self.symbols = {s.name: s for s in self.spec.symbols}
        self.counts = sizes_of(self.spec)
        self.printer = Printer(self._places(), self.counts)
        self.printer.definitions = self.definitions
        # a whole number behind a division would take the default type's precision, whatever that of the others
        self.printer.texts["position"] = f"position.to({identifier(self.arguments[0].name)}.dtype)"

    def _delayed(self) -> list[Symbol]:
        """The symbols whose previous value something reads, in order of declaration: those of the text, and of the rows."""
        found = {n.name for n in all_nodes(self.spec) if isinstance(n, Delayed)} | delayed_in(value for _, value in self.recurrence.hoisted)
        return [s for s in self.spec.symbols if s.name in found]

    def _read_before(self) -> set[str]:
        """The names whose previous value a token reads."""
        values = [e for walk in self.walks for row in walk.rows for e in (row.key, row.coefficient, row.log_decay, row.erase, *row.values)]
        values += [r.query for walk in self.walks for r in walk.readings] + [e for walk in self.walks for _, e in walk.numbers]
        values += [value for _, value in self.outputs] + [s.definition for s in self.spec.symbols]
        return {n.name for e in values if e is not None for n in nodes(e) if isinstance(n, Delayed)}

    def _places(self) -> dict[str, Place]:
        places = {name: NUMBER for name in ("heads", "channels", "layer", "layers")}
        places |= {name: NUMBER for name, _ in self.spec.constants}
        for symbol in (*self.arguments, *self.taken_in):
            is_matrix = not (symbol.type.is_scalar or symbol.type.is_column or symbol.type.is_row)
            places[symbol.name] = Place(symbol.kind == "input", level(symbol.per), not symbol.type.is_scalar, has_rows=is_matrix)
        pending = dict(self.definitions)
        while pending:
            ready = [n for n, d in pending.items() if not any(isinstance(x, Ref) and x.name in pending for x in nodes(d))]
            for name in ready:
                # a matrix that has no text of its own is opened wherever a state meets it
                with contextlib.suppress(UnsupportedOperand):
                    places[name] = Printer(places, self.counts).place(pending[name])
                del pending[name]
        return places

    # --- operands ---

    def operands(self, walk: Walk, suffix: str) -> TokenFunction:
        """q, k, v, e and g of a walk."""
        returns = []
        for r in walk.readings:
            text = self._ones(walk) if r.query is None else self._with_vector(r.query)
            returns.append(Returned(text, f"q{r.name[1:]}: query" + (" of the value columns" if r.is_value else "")))
        returns.append(Returned(self._stacked_rows(walk, "k", self._key), "k: key"))
        names = "value" if len(walk.columns) == 1 else "value columns, " + ", ".join(c.state for c in walk.columns)
        returns.append(Returned(self._stacked_rows(walk, "v", self._row_value), f"v: {names}"))
        if walk.has_erase:
            returns.append(Returned(self._stacked_rows(walk, "e", self._erase), "e: erase key"))
        if walk.log_decay is not None:
            returns.append(Returned(self._stacked_rows(walk, "g", self._log_decay), "g: log decay"))
        for name, expr in walk.numbers:
            returns.append(Returned(self._number(walk, expr).text, f"{name}: {expr_text(expr)}"))
        return self.assemble(f"_operands{suffix}", "What the walk reads of every token.", (), [], returns)

    @staticmethod
    def operand_names(walk: Walk) -> list[str]:
        """The operands by the names that the chunk programs use, in order."""
        names = [*(f"q{r.name[1:]}" for r in walk.readings), "k", "v"]
        names += ["e"] * walk.has_erase + ["g"] * (walk.log_decay is not None)
        return names + [name for name, _ in walk.numbers]

    def _stacked_rows(self, walk: Walk, name: str, text_of) -> str:
        """One row's text as it is; those of several side by side, all at the place of the operand."""
        if len(walk.rows) == 1:
            return text_of(walk, walk.rows[0]).text
        place = replace(self.operand_place(walk, name), has_rows=False)
        texts = [self.printer.adapted(text_of(walk, row), place) for row in walk.rows]
        return f"_rows({', '.join(texts)}, dim={-2 if place.has_vector else -1})"

    def _vector_text(self, expr: Expr) -> Text:
        place = self.printer.place(expr)
        text = self._with_vector(expr)
        return Text(text, self.printer.print(expr).binding if place.has_vector else ATOM, replace(place, has_vector=True))

    def _zeros(self, like: Text) -> Text:
        return Text(f"torch.zeros_like({like.text})", ATOM, like.place)

    def _key(self, walk: Walk, row: Row) -> Text:
        if row.key is None:
            return Text(self._ones(walk), ATOM, replace(self._like(walk).place, has_vector=True))
        return self._vector_text(row.key)

    def _erase(self, walk: Walk, row: Row) -> Text:
        return self._zeros(self._key(walk, row)) if row.erase is None else self._vector_text(row.erase)

    def _row_value(self, walk: Walk, row: Row) -> Text:
        place = NUMBER
        for expr in (*row.values, row.coefficient):
            place = place if expr is None else place.join(self.printer.place(expr))
        place = self._like(walk).place if place.is_number else place
        text = Text(self._value(walk, row), SUM, replace(place, has_vector=True))
        return text if row.is_written else self._zeros(text)

    def _log_decay(self, walk: Walk, row: Row) -> Text:
        if row.log_decay is None:
            return self._zeros(self._log_decay(walk, next(r for r in walk.rows if r.log_decay is not None)))
        if walk.is_wide:
            number = self.printer.print(row.log_decay)
            if number.place.is_number:
                own = self._key(walk, row)
                return Text(f"torch.full_like({own.text}, {number.text})", ATOM, own.place)
            return self._vector_text(row.log_decay)
        return self._number(walk, row.log_decay)

    def _number(self, walk: Walk, expr: Expr) -> Text:
        """One number a token and head; of a constant, one a head."""
        text = self.printer.print(expr)
        if text.place.is_number:
            return Text(f"{self._like(walk).at(ATOM)}.new_full((heads,), {text.text})", ATOM, Place(level="h"))
        return text

    def operand_place(self, walk: Walk, name: str) -> Place:
        """Where the operand `name` of a walk lives; the vector axis is always there but for a narrow g, that of rows where
        a token has several."""
        has_rows = len(walk.rows) > 1 and not name.startswith("q")
        place, is_one = NUMBER, name in dict(walk.numbers) or name == "g"
        for expr in self._expressions(walk, name):
            own = self.printer.place(expr)
            # a log decay that is a number is made for every head
            place = place.join(Place(level="h") if is_one and own.is_number else own)
        if place.is_number:
            place = Place(level="h") if is_one else self._like(walk).place
        return Place(place.has_time, place.level, not is_one or walk.is_wide, has_rows=has_rows)

    @staticmethod
    def _expressions(walk: Walk, name: str) -> list[Expr]:
        """Everything that an operand's text is made of."""
        if name in dict(walk.numbers):
            return [dict(walk.numbers)[name]]
        if name.startswith("q"):
            found = [r.query for r in walk.readings if f"q{r.name[1:]}" == name]
        else:
            found = []
            for row in walk.rows:
                found += {
                    "k": [row.key],
                    "v": [*row.values, row.coefficient],
                    "e": [row.key if row.erase is None else row.erase],
                    "g": [row.log_decay],
                }[name]
        return [expr for expr in found if expr is not None]

    def _value(self, walk: Walk, row: Row) -> str:
        values = [v for v in row.values if v is not None]
        ones = sum(v is None for v in row.values)
        coefficient = row.coefficient
        if len(values) == 1 and not ones:
            return self._with_vector(values[0] if coefficient is None else algebra.mul(coefficient, values[0]))
        place = NUMBER
        for expr in (*values, coefficient):
            place = place if expr is None else place.join(self.printer.place(expr))
        place = self._like(walk).place if place.is_number else place
        place = Place(place.has_time, place.level, True)
        if values:
            texts = [self._with_vector(v) if not v.type.is_column else self.printer.placed(v, place) for v in values]
            text = texts[0] if len(texts) == 1 else f"torch.cat([{', '.join(texts)}], -1)"
            if ones:
                text = f"F.pad({text}, (0, {ones}), value=1.0)"
        else:
            text = self._ones(walk) if ones == 1 else f"F.pad({self._ones(walk)}, (0, {ones - 1}), value=1.0)"
        if coefficient is None:
            return text
        scale = self.printer.placed(coefficient, place)
        is_number = self.printer.place(coefficient).is_number
        return scale if not values and ones == 1 and not is_number else f"{self._atom(coefficient, scale)} * {text}"

    def _atom(self, expr: Expr, text: str) -> str:
        printed = self.printer.print(expr)
        return text if printed.binding >= 1 or text != printed.text else f"({text})"

    def _with_vector(self, expr: Expr) -> str:
        printed = self.printer.print(expr)
        return printed.text if printed.place.has_vector else f"{printed.at(ATOM)}[..., None]"

    def _like(self, walk: Walk):
        """The printed value of the walk that a constant operand takes its shape from."""
        candidates = [*(c.value for c in walk.columns), walk.key, *(r.query for r in walk.readings)]
        candidates += [walk.coefficient, *(row.log_decay for row in walk.rows), *(expr for _, expr in walk.numbers)]
        printed = [self.printer.print(e) for e in candidates if e is not None]
        return next((p for p in printed if p.place.has_time and p.place.level == "h"), next(p for p in printed if p.place.has_time))

    def _ones(self, walk: Walk) -> str:
        like = self._like(walk)
        return f"torch.ones_like({like.at(ATOM)}[..., {':1' if like.place.has_vector else 'None'}])"

    def operands_backward(self, walk: Walk, suffix: str) -> TokenFunction:
        """Gradients of the arguments from those of q, k, v, e and g."""
        found: list[tuple[str, Expr]] = []
        first: list[Line] = []
        for r in walk.readings:
            if r.query is not None:
                found += self._vector_gradient(f"d_q{r.name[1:]}", r.query, first)
        for i, row in enumerate(walk.rows):
            part = lambda name, i=i, tail=", :": self._row_gradient(walk, name, i, tail, first)  # noqa: E731
            if row.key is not None and (row.is_written or row.erase is not None):
                found += self._vector_gradient(part("d_k"), row.key, first)
            if row.is_written:
                found += self._value_gradient(walk, row, part("d_v"), first)
            if row.erase is not None:
                found += self._vector_gradient(part("d_e"), row.erase, first)
            if row.log_decay is not None:
                name = part("d_g", tail=", :" if walk.is_wide else "")
                if walk.is_wide:
                    found += self._vector_gradient(name, row.log_decay, first)
                else:
                    found += self._from(row.log_decay, name, Place(True, "h", False))
        for name, expr in walk.numbers:
            found += self._from(expr, f"d_{name}", Place(True, "h", False))
        gradients = [f"d_{name}" for name in self.operand_names(walk)]
        return self._gradient_function(
            f"_operands_backward{suffix}", "Gradients of the arguments from those of the operands.", gradients, first, found, []
        )

    @staticmethod
    def _row_gradient(walk: Walk, name: str, row: int, tail: str, first: list[Line]) -> str:
        """The name of one row's part of a gradient, with the line that gives it."""
        if len(walk.rows) == 1:
            return name
        first.append(Line("", f"{name}_{row + 1}", f"{name}[..., {row}{tail}]"))
        return f"{name}_{row + 1}"

    def _vector_gradient(self, name: str, expr: Expr, first: list[Line]) -> list[tuple[str, Expr]]:
        """What reaches the names in `expr` when the gradient `name`, which has a vector axis, reaches it."""
        if expr.type.is_scalar:
            first.append(Line("", f"{name}0", f"{name}[..., 0]"))
            return self._from(expr, f"{name}0", Place(True, "h", False))
        return self._from(expr, name, Place(True, "h", True))

    def _value_gradient(self, walk: Walk, row: Row, whole: str, first: list[Line]) -> list[tuple[str, Expr]]:
        found: list[tuple[str, Expr]] = []
        share: Expr | None = None
        for value, (name, text) in zip(row.values, self._column_slices(walk, whole), strict=True):
            if text != name:
                first.append(Line("", name, text))
            type = SCALAR if value is None else value.type
            piece = Ref(type, NOWHERE, self._made(name, Place(True, "h", not type.is_scalar)))
            if value is not None:
                found += cotangents(value, piece if row.coefficient is None else algebra.mul(row.coefficient, piece))
            part = piece if value is None else inner_of(piece, value)
            share = part if share is None else algebra.add(share, part)
        if row.coefficient is not None:
            found += cotangents(row.coefficient, share)
        return found

    def _from(self, expr: Expr, gradient: str, place: Place) -> list[tuple[str, Expr]]:
        return cotangents(expr, Ref(expr.type, NOWHERE, self._made(gradient, place)))

    def _made(self, text: str, place: Place) -> str:
        """The name, in expressions, of a value that the text itself names: one that no name of the language can be."""
        key = f"made {text}"
        self.printer.places[key], self.printer.texts[key] = place, text
        return key

    def _column_slices(self, walk: Walk, whole: str) -> list[tuple[str, str]]:
        """(name, text) of each block of columns of `whole`; a single column comes without its vector axis."""
        pieces, offset = [], []
        for column in walk.columns:
            name = whole if len(walk.columns) == 1 else f"{whole}_{column.state}"
            start = " + ".join(offset)
            if _is_single(column, walk):
                pieces.append((f"{name}0" if name == whole else name, f"{whole}[..., {start or 0}]"))
                offset.append("1")
            else:
                width = size_text(column_width(walk, column)).text
                end = " + ".join([*offset, width])
                pieces.append((name, f"{whole}[..., {start}:{end}]" if len(walk.columns) > 1 else whole))
                offset.append(width)
        return pieces

    # --- readout ---

    def reads(self) -> tuple[list[str], list[Line]]:
        """The walks' outputs by name, and the lines that cut the spec's reads out of them (registering their places)."""
        names: list[str] = []
        lines: list[Line] = []
        several = sum(len(w.readings) for w in self.walks) > 1
        for number, walk in enumerate(self.walks):
            for reading in walk.readings:
                name = f"reads{number if len(self.walks) > 1 else ''}{reading.name[1:]}" if several else "reads"
                names.append(name)
                blocks = dict(zip((c.state for c in walk.columns), self._column_slices(walk, name)))
                for cut in (s for s in walk.slices if s.reading == reading.name):
                    column = walk.columns[cut.column]
                    if reading.is_value:
                        self.printer.places[cut.read.name] = Place(True, "h", True)
                        self.printer.texts[cut.read.name] = name
                        continue
                    type = SCALAR if _is_single(column, walk) else Type(column_width(walk, column))
                    self.printer.places[cut.read.name] = Place(True, "h", not type.is_scalar)
                    self.printer.texts[cut.read.name] = target = self._read_name(cut.read.name, name, blocks[column.state][1])
                    if target != blocks[column.state][1]:
                        lines.append(Line("", target, blocks[column.state][1]))
        return names, lines

    def _read_name(self, read: str, reading: str, text: str) -> str:
        """A reading that is one block is its own name; a block of several is called after its state."""
        if text == reading:
            return reading
        state = next(r.state for r in self.recurrence.reads if r.name == read)
        same = [r.name for r in self.recurrence.reads if r.state == state]
        return f"read_{state}" + (str(same.index(read)) if len(same) > 1 else "")

    def readout(self) -> TokenFunction:
        """The output from the reads."""
        names, lines = self.reads()
        function = self.assemble("_readout", "The output from what the walk read.", tuple(names), lines, [Returned(self._output(), "")])
        return replace(function, is_single=True)

    @property
    def has_rows(self) -> bool:
        """Whether the output has rows, `y[r]`."""
        return self.spec.has_rows

    def _output(self) -> str:
        """The text of the output, its rows side by side."""
        values = [value for _, value in self.outputs]
        if not self.has_rows:
            return self.printer.text(values[0])
        place = Place(True, "h", not values[0].type.is_scalar)
        texts = [self.printer.placed(value, place) for value in values]
        return f"_rows({', '.join(texts)}, dim={-2 if place.has_vector else -1})"

    def readout_backward(self) -> TokenFunction:
        """Gradients of the reads, and of the arguments that the readout itself uses."""
        names, lines = self.reads()
        found, first = [], []
        for number, (_, value) in enumerate(self.outputs):
            place = Place(True, "h", not value.type.is_scalar)
            if self.has_rows:
                first.append(Line("", f"dy_{number + 1}", f"dy[..., {number}{', :' * place.has_vector}]"))
            found += self._from(value, f"dy_{number + 1}" if self.has_rows else "dy", place)
        reads = {s.read.name for w in self.walks for s in w.slices}
        of_read: dict[str, Expr] = {}
        for name, expr in found:
            if name in reads:
                of_read[name] = expr if name not in of_read else algebra.add(of_read[name], expr)
        rest = [(n, e) for n, e in found if n not in reads]
        leading = []
        for walk, name in ((w, r.name) for w in self.walks for r in w.readings):
            leading.append(Returned(self._stacked(walk, name, of_read), f"d_{names[len(leading)]}"))
        summary = "Gradients of the reads" + (", and of the arguments that the readout uses." if rest else ".")
        return self._gradient_function(
            "_readout_backward", summary,
            ["dy", *names], first, rest, leading, lines, of_read,
        )  # fmt: skip

    def _stacked(self, walk: Walk, reading: str, of_read: dict[str, Expr]) -> str:
        """The gradient of a reading, its columns side by side."""
        by_column = {s.column: s.read.name for s in walk.slices if s.reading == reading}
        if next(r.is_value for r in walk.readings if r.name == reading):
            (read,) = by_column.values()
            return f"d_{self.printer.texts[read]}" if read in of_read else f"dy.new_zeros(*dy.shape[:3], {size_text(widths(walk)[0]).text})"
        texts = []
        for index, column in enumerate(walk.columns):
            read = by_column.get(index, "")
            if read not in of_read:
                width = "1" if _is_single(column, walk) else size_text(column_width(walk, column)).text
                texts.append(f"dy.new_zeros(*dy.shape[:3], {width})")
                continue
            name = f"d_{self.printer.texts[read]}"
            texts.append(f"{name}[..., None]" if _is_single(column, walk) else name)
        return texts[0] if len(texts) == 1 else f"torch.cat([{', '.join(texts)}], -1)"

    # --- gradients of names ---

    def _gradient_function(
        self, name: str, summary: str, gradients: list[str], first: list[Line], found: list[tuple[str, Expr]],
        leading: list[Returned], cuts: Sequence[Line] = (), of_read: Mapping[str, Expr] = NOTHING,
    ) -> TokenFunction:  # fmt: skip
        """A function that returns `leading` and the gradient of every argument in `found`; `of_read` gets lines of its own."""
        contributions: dict[str, list[Expr]] = {}
        for target, expr in found:
            contributions.setdefault(target, []).append(expr)
        totals: list[tuple[str, Expr]] = []
        own: dict[str, str] = {}
        for target in reversed(self.ordered_definitions()):
            if target in contributions and self.reaches_argument(target):
                total = algebra.add(*contributions[target])
                type = self.definitions[target].type
                # an operand's gradient is still to be read where a definition has the operand's letter
                own[target] = f"d_{target}_let" if f"d_{target}" in (*gradients, *(line.target for line in first)) else f"d_{target}"
                gradient = Ref(type, NOWHERE, self._made(own[target], self.printer.places[target]))
                totals.append((target, total))
                for inner, expr in cotangents(self.definitions[target], gradient, Ref(type, NOWHERE, target)):
                    contributions.setdefault(inner, []).append(expr)
        given = [s.name for s in self.arguments if s.name in contributions and s.name not in self.immaterial]
        totals += [(n, algebra.add(*contributions[n])) for n in given]
        shared, totals = self._share([*of_read.items(), *totals])
        lines: list[Line] = []
        returns = list(leading)
        for target, total in totals:
            # a shared value may itself be made of a gradient above: it stands before its first use
            lines += self._shared_lines(total, shared)
            text = self._reduced(total, self.printer.places[target])
            if target in of_read:
                own_name = f"d_{self.printer.texts[target]}"
                if text.isidentifier() or own_name in [r.text for r in returns]:
                    # used once, or a name for a name: said where it is returned
                    returns = [Returned(re.sub(rf"\b{own_name}\b", text, r.text), r.comment) for r in returns]
                else:
                    lines.append(Line("", own_name, text))
            elif target in self.definitions:
                if text.isidentifier():
                    self.printer.texts[f"made {own[target]}"] = text
                else:
                    lines.append(Line("", own[target], text))
            else:
                returns.append(Returned(text, f"d_{target}"))
        function = self.assemble(name, summary, tuple(gradients), [*first, *lines], returns, cuts)
        returned = tuple(Returned(r.text, "" if r.text == r.comment else r.comment) for r in function.returns)
        return replace(
            function, returns=returned, gives=tuple(identifier(n) for n in given), is_single=bool(leading) and len(returned) == 1
        )

    def _shared_lines(self, expr: Expr, shared: dict[str, Expr]) -> list[Line]:
        """Lines of the shared values that `expr` uses and that have none yet, each after those it is made of."""
        lines: list[Line] = []
        for node in nodes(expr):
            if isinstance(node, Ref) and node.name in shared:
                value = shared.pop(node.name)
                lines += self._shared_lines(value, shared)
                lines.append(Line("", self.printer.texts[node.name], self.printer.text(value)))
        return lines

    def ordered_definitions(self) -> list[str]:
        """Definitions, each after those it uses."""
        order: list[str] = []

        def visit(name: str) -> None:
            if name not in order:
                for node in nodes(self.definitions[name]):
                    if isinstance(node, Ref) and node.name in self.definitions:
                        visit(node.name)
                order.append(name)

        for name in self.definitions:
            visit(name)
        return order

    def reaches_argument(self, name: str) -> bool:
        """Whether a gradient of the definition goes on to an argument that has one."""
        own = {s.name for s in self.arguments} - self.immaterial
        return any(
            isinstance(n, Delayed)
            or isinstance(n, Ref)
            and (n.name in own or (n.name in self.definitions and self.reaches_argument(n.name)))
            for n in nodes(self.definitions[name])
        )

    def _share(self, lines: list[tuple[str, Expr]]) -> tuple[dict[str, Expr], list[tuple[str, Expr]]]:
        """Function values that occur more than once get a name; a value that is a definition takes its name."""
        by_value = {algebra.key(d): n for n, d in self.definitions.items()}
        counts: Counter[str] = Counter()
        samples: dict[str, Expr] = {}
        for _, expr in lines:
            for node in nodes(expr):
                if is_turned(node) or isinstance(node, Apply) and node.args and node.function not in ("sum", "at_least"):
                    counts[algebra.key(node)] += 1
                    samples.setdefault(algebra.key(node), node)
        names: dict[str, str] = {}
        shared: dict[str, Expr] = {}
        taken = {identifier(n) for n in (*self.symbols, *self.definitions, *(n for n, _ in (*self.spec.dims, *self.spec.constants)))}
        for key, count in counts.items():
            node = samples[key]
            if key in by_value:
                names[key] = by_value[key]
            elif count > 1:
                # called after the first name in it: sigmoid_x
                inside = node.right if is_turned(node) else node
                inner = next((self.printer.text(n) for n in nodes(inside) if isinstance(n, Ref)), str(len(shared)))
                name = f"{'turned' if is_turned(node) else node.function}_{inner if inner.isidentifier() else len(shared)}"
                while name in taken:
                    name += "_"
                taken.add(name)
                names[key] = self._made(name, self.printer.place(node))
                shared[names[key]] = node

        def named(node: Expr) -> Expr | None:
            name = names.get(algebra.key(node)) if is_turned(node) or isinstance(node, Apply) else None
            return None if name is None else Ref(node.type, NOWHERE, name)

        shared = {n: algebra.rebuild(e, tuple(algebra.rewrite(a, named) for a in children(e))) for n, e in shared.items()}
        return shared, [(n, algebra.rewrite(e, named)) for n, e in lines]

    def _reduced(self, total: Expr, place: Place) -> str:
        """The text of `total`, summed over the axes that `place` lacks: term by term where they have different axes, since
        what comes from a definition has been summed before."""
        parts: dict[tuple[bool, str], list[Expr]] = {}
        for term in total.terms if isinstance(total, Add) else (total,):
            own = self.printer.place(term)
            parts.setdefault((own.has_time and not place.has_time, own.level if own.level != place.level else ""), []).append(term)
        if len(parts) > 1:
            return " + ".join(self._summed(algebra.add(*terms), place, ATOM) for terms in parts.values())
        return self._summed(total, place)

    def _summed(self, total: Expr, place: Place, binding: int = SUM) -> str:
        printed = self.printer.print(total)
        text = printed.at(ATOM)
        head_axis = -1 - place.width
        if printed.place.level == "h" and place.level == "g":
            text += f".unflatten({head_axis}, (groups, -1)).sum({head_axis})"
        elif printed.place.level and not place.level:
            text += f".sum({head_axis})"
        if printed.place.has_time and not place.has_time:
            text += ".sum((0, 1))"
        return text if text != printed.at(ATOM) else printed.at(binding)

    # --- putting a function together ---

    def assemble(
        self, name: str, summary: str, leading: tuple[str, ...], lines: list[Line], returns: list[Returned], cuts: list[Line] = ()
    ) -> TokenFunction:
        """A function of what the text names: definitions, reads, sizes, indices; and make the rest its arguments."""
        words = _words(" ".join([*(line.text for line in lines), *(r.text for r in returns)]))
        lines = [line for line in lines if line.target in words]
        needed = [cut for cut in cuts if cut.target in words]
        for cut in needed:
            words |= _words(cut.text)
        definitions: list[str] = []
        for target in reversed(self.ordered_definitions()):
            if identifier(target) in words:
                definitions.insert(0, target)
                words |= _words(self.printer.text(self.definitions[target]))
        body = [Line(self._comment(n), identifier(n), self.printer.text(self.definitions[n])) for n in definitions]
        given: list[Line] = []
        for line in self._derived():
            if line.target in words:
                given.insert(0, line)
                words |= _words(line.text)
        arguments = [a for a in leading if a in words]
        arguments += [identifier(s.name) for s in (*self.arguments, *self.taken_in) if identifier(s.name) in words]
        arguments += [n for n in (*(identifier(n) for n, _ in self.spec.constants), "position") if n in words]
        return TokenFunction(name, ", ".join(arguments), summary, (*given, *body, *needed, *lines), tuple(returns))

    def _derived(self) -> list[Line]:
        """Numbers that the text may name and that the arguments' shapes give; dependent ones first."""
        lines: list[Line] = []
        group = next((s for s in self.arguments if s.per == "group"), None)
        head = next((s for s in self.arguments if s.per in ("head", "channel")), group or self.arguments[0])
        # where nothing is a head's own, a group is one head; where nothing is a group's either, there is one
        behind = lambda s: -1 - self.printer.places[s.name].width  # noqa: E731
        count = f"{identifier(head.name)}.shape[{behind(head)}]" if level(head.per) else "1"
        for index, plural in (("head", "heads"), ("channel", "channels")):
            lines.append(
                Line("", index, f"torch.arange({plural}, dtype={identifier(head.name)}.dtype, device={identifier(head.name)}.device)")
            )
        if group is not None:
            lines.append(Line("", "ratio", "heads // groups"))
            lines.append(Line("", "groups", f"{identifier(group.name)}.shape[{behind(group)}]"))
        lines += [Line("", "heads", count), Line("", "channels", count)]
        return lines + self.sizes()

    def sizes(self) -> list[Line]:
        """How each named size is read off the arguments."""
        lines: list[Line] = []
        for symbol in self.arguments:
            shape = [symbol.type.rows] if symbol.type.is_column else [symbol.type.rows, symbol.type.cols]
            for axis, size in enumerate([] if symbol.type.is_scalar else shape):
                if len(size.terms) != 1 or size.constant:
                    continue
                name, coefficient = size.terms[0]
                if identifier(name) not in [line.target for line in lines]:
                    text = f"{identifier(symbol.name)}.shape[{axis - len(shape)}]"
                    lines.append(Line("", identifier(name), text if coefficient == 1 else f"{1 / coefficient} * {text}"))
        known = {line.target for line in lines}
        return lines + [Line("", identifier(name), str(size)) for name, size in self.spec.counts if identifier(name) not in known]

    def _comment(self, name: str) -> str:
        symbol = self.symbols.get(name)
        if symbol is None:
            return f"{name} = {expr_text(self.definitions[name])}"
        line, _ = self.spec.source.position(symbol.span.start)
        return f"{PurePath(self.spec.source.name).name}:{line}  {name} = {expr_text(symbol.definition)}"


def is_turned(node: Expr) -> bool:
    """A column turned pair by pair."""
    return isinstance(node, MatMul) and isinstance(node.left, Rot)


def level(per: str) -> str:
    """The head axis of a symbol: one per head or channel, one per group, or none."""
    return {"head": "h", "channel": "h", "group": "g"}.get(per, "")


def _is_single(column: Column, walk: Walk) -> bool:
    """A block of one column, kept without its vector axis."""
    return column.value is None or column.value.type.is_scalar


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))
