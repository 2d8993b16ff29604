"""A scan program -> what op.py says of it: the functions of one row of every chunk, and how arguments become rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .. import algebra
from ..backends import eager_text, torch_text
from ..backends.eager_text import Names
from ..backends.torch_text import identifier
from ..expressions import nodes
from ..reference.token import Scope
from ..scan import Binding, ScanProgram, needed, seeds
from ..scan_text import value_text, word
from ..source import NOWHERE
from ..spec import ONE, Add, Apply, Const, Dim, Expr, MatMul, Ref, Symbol
from .tokens import Returned, TokenFunction, TokenWriter, level

NO_READOUT = TokenFunction("", "y", "", (), (Returned("y", ""),), is_single=True)
"""A scan gives the output itself."""

WIDTH = 136
"""Characters of a line inside a function."""

LONG = 96
"""Characters from which a value that is returned stands on a line of its own."""

SPAN = 8
"""Rows between the states that backward keeps inside a chunk: their number and this one add up to least near 8 of 64."""

WHOLE = re.compile(r"(driven|spectrum|start|factor|powers|impulse|size|basis)_\d+|(final|left)_\w+|row_\d+|final|half|size|is_given|T|y")
"""What the function of whole sequences calls its own values."""


@dataclass(frozen=True)
class Field:
    """One value of a row."""

    name: str
    kind: str


@dataclass(frozen=True)
class ScanFunction:
    """A function of one row."""

    name: str
    arguments: str
    summary: str
    lines: tuple[str, ...]
    returns: str


@dataclass(frozen=True)
class ScanText:
    """Everything that op.py says of a scan."""

    fields: tuple[Field, ...]
    functions: tuple[ScanFunction, ...]
    row_arguments: str
    row_lines: tuple[str, ...]
    row_values: str
    timed: str
    output_shape: str
    span: int
    forward_lines: tuple[str, ...]
    backward_lines: tuple[str, ...]
    step_lines: tuple[str, ...]
    helpers: tuple[str, ...]
    uses_math: bool
    mixes: bool  # entries of a state read each other: a sequence is one chunk
    carries: bool  # they do not: chunks are carried over
    blocks: str  # all states by number, those that feed each other together; empty when none do
    pairs: str  # the states that are parts of complex ones, by number; empty when none is


class ScanWriter:
    """Writes the functions of one program; `states` and `d_states` are the operator's own names for them."""

    def __init__(self, program: ScanProgram, tokens: TokenWriter, states: list[str], d_states: list[str]):
        self.program, self.tokens = program, tokens
        self.spec, self.states, self.d_states = tokens.spec, states, d_states
        self.scope = Scope(self.spec)
        self.inputs = [s for s in tokens.arguments if s.kind != "param"]
        self.params = [s for s in tokens.arguments if s.kind == "param"]
        self.fixed = {b.name for b in program.statics}
        values = (*program.statics, *program.token, *program.update, *program.carried, *program.outputs)
        values += (*program.gradient, *program.adjoint, *program.arguments, *program.sums, *program.static_gradient, *program.parameters)
        self.values = [b.value for b in values]
        found = [n for value in self.values for n in nodes(value)]
        turns = any(isinstance(n, Apply) and n.function in ("rope", "rope_back") for n in found)
        used = {n.name for n in found if isinstance(n, Ref)} | ({"position"} if turns else set())
        self.has_position = "position" in used
        self.indices = [n for n in ("head", "channel") if n in used]
        self.counts = [n for n in ("heads", "channels") if n in used]
        self.constants = [n for n, _ in self.spec.constants if n in used]
        self.sizes = {line.target: line.text for line in tokens.sizes()}
        self.size_names: list[str] = []
        self.names = self._names()
        self.timed = self._field(self.inputs[0].name)

    # --- names ---

    def _names(self) -> Names:
        taken = {"at", "states", "kept", "adjoints", "dy", "torch", "F", "math", *self.sizes, *self.states}
        values: dict[str, str] = {}
        for symbol in (*self.inputs, *self.params):
            values[symbol.name] = f"at.{self._field(symbol.name)}"
        values |= {name: f"at.{name}" for name in (*self.indices, *self.counts, *(["position"] if self.has_position else []))}
        values |= {name: f"at.{identifier(name)}" for name in self.constants}
        self.own: dict[str, str] = {}
        for name, state in zip((s for s, _ in self.program.states), self.states, strict=True):
            for said, text in ((name, state), (f"D {name}", f"D_{state}"), (f"kept {name}", f"kept_{state}")):
                self.own[said] = text
        self.seeds = {seed: seed.replace("d y", "dy").replace(" ", "_") for seed in seeds(self.program)}
        self.own |= self.seeds
        taken |= {"dy", *self.own.values()}
        bound = (*self.program.statics, *self.program.token, *self.program.update, *self.program.carried, *self.program.outputs)
        bound += (*self.program.gradient, *self.program.sums, *self.program.static_gradient)
        names = [binding.name for binding in bound]
        answers = self.program.convolution
        if answers is not None:
            names += [b.name for b in self.program.convolution_lines if b.name not in names] + [probe.name for probe in answers.probes]
        for name in names:
            plain = _plain(name)
            # what the program makes has names that no name of the text can have
            text = plain if plain != name else identifier(plain)
            while text in taken or (answers is not None and WHOLE.fullmatch(text)):
                text += "_"
            taken.add(text)
            self.own[name] = text
        fixed = {name: f"at.{self.own[name]}" for name in self.fixed}
        return Names(values={**self.own, **values, **fixed}, numbers=frozenset([*self.counts, *self.constants]), position="at.position")

    def _field(self, name: str) -> str:
        """A field's name; a tuple's own methods keep theirs."""
        text = identifier(name)
        return f"{text}_" if text in ("count", "index") else text

    # --- functions ---

    def text(self, *others: ScanFunction) -> ScanText:
        """What op.py says of the scan; `others` are functions beside it, over the same rows."""
        program = self.program
        fixed = [self.own[b.name] for b in program.statics]
        functions = [self._statics()] if fixed else []
        functions += [self._advance(), self._token(), self._adjoint(), self._gradients()]
        if program.parameters:
            functions.append(self._parameters())
        steps = self._step_lines()
        output_shape = self.output_shape()
        tensors = [*(self._field(s.name) for s in self.inputs), *(["position"] if self.has_position else [])]
        tensors += [*(self._field(s.name) for s in self.params), *fixed, *self.indices]
        fields = [*tensors, *self.counts, *(identifier(c) for c in self.constants), *self.size_names]
        text = " ".join(line for f in (*functions, *others) for line in (*f.lines, f.returns))
        tables = {**torch_text.HELPERS, **eager_text.HELPERS}
        return ScanText(
            fields=tuple(Field(n, "Tensor" if n in tensors else "float" if n in self.constants else "int") for n in fields),
            functions=tuple(functions),
            row_arguments=", ".join(self._row_arguments()),
            row_lines=tuple(self._row_lines(fixed)),
            row_values=", ".join(
                ["*row", *(["*still"] if self.params else []), *(["*fixed"] if fixed else []), *fields[self._own_count(fixed) :]]
            ),
            timed=self.timed,
            output_shape=output_shape,
            span=SPAN,
            forward_lines=tuple(self._forward_lines()),
            backward_lines=tuple(self._backward_lines()),
            step_lines=tuple(steps),
            helpers=torch_text.helpers(text, tables),
            uses_math="math." in text,
            mixes=program.mixes,
            carries=not program.mixes,
            blocks=f"({', '.join(map(str, program.blocks))},)" if program.blocks else "",
            pairs=f"({', '.join(map(str, program.pairs))},)" if program.pairs else "",
        )

    def output_shape(self) -> str:
        """The two axes of the output of a token."""
        return ", ".join(map(self._size, self._output_sizes()))

    def output_tail(self) -> str:
        """What makes of the two axes of all tokens those that the operator gives: rows lie in front of columns there."""
        output = self.program.outputs[0].value.type
        if self.has_rows:
            return "[..., 0, :]" if output.is_scalar else ".mT"
        return "[..., 0, 0]" if output.is_scalar else "[..., 0]" if output.is_column else ""

    def _output_sizes(self) -> tuple:
        """Of a row's output; several rows stand side by side on the second axis, which columns and numbers leave free."""
        type, count = self.program.outputs[0].value.type, len(self.program.outputs)
        return type.rows, type.cols if count == 1 else Dim(count)

    def _own_count(self, fixed: list[str]) -> int:
        return len(self.inputs) + self.has_position + len(self.params) + len(fixed)

    def _size(self, size) -> str:
        """A size as text; what it is made of becomes a field."""
        text = "1" if size == ONE else eager_text.count_text(size)
        for name in re.findall(r"[A-Za-z_]\w*", text):
            if name not in self.size_names:
                self.size_names.append(name)
        return re.sub(r"([A-Za-z_]\w*)", r"rows[0].\1", text)

    def _lines(self, bindings: tuple[Binding, ...], names: Names | None = None) -> list[str]:
        """A line for each binding, with the equation above where a person wrote or would write one."""
        lines: list[str] = []
        for binding in bindings:
            value = self._spread(binding.value)
            symbol = self.tokens.symbols.get(binding.name)
            if symbol is not None and symbol.definition is not None:
                lines += self.scope.comment(symbol.name, symbol.definition)
            elif not binding.name.startswith(("d ", "kept ", "sum ")):
                lines += [f"# {line}" for line in (f"{word(binding.name)} = {value_text(binding)}",) if len(line) < 132]
            lines += self.scope.assign(self.own[binding.name], value, names or self.names)
        return lines

    @staticmethod
    def _spread(value: Expr) -> Expr:
        """Products over the one axis of columns as sums of products: no small matrix products."""

        def inner(node: Expr) -> Expr | None:
            if isinstance(node, MatMul) and node.type.is_scalar and node.left.type.is_row and not node.left.type.is_scalar:
                left = algebra.rewrite(algebra.transpose(node.left), inner)
                return algebra.apply("sum", algebra.mul(left, algebra.rewrite(node.right, inner)), type=node.type)
            return None

        return algebra.rewrite(value, inner)

    def _function(self, name: str, arguments: list[str], summary: str, lines: list[str], returns: str) -> ScanFunction:
        """With the states out of their tuples, and the sizes that the text names."""
        head = []
        words = set(re.findall(r"[A-Za-z_]\w*", " ".join([*lines, returns])))
        for tuple_name, prefix in (("states", ""), ("kept", "kept_"), ("adjoints", "D_")):
            if tuple_name in arguments and words & {f"{prefix}{s}" for s in self.states}:
                own = [f"{prefix}{s}" for s in self.states]
                head.append(f"{own[0]}, = {tuple_name}" if len(own) == 1 else f"{', '.join(own)} = {tuple_name}")
        if len(self.seeds) > 1 and "dy" in arguments and words & {*self.seeds.values()}:
            head.append(f"{', '.join(self.seeds.values())} = dy.split(1, -1)")
        for size in self.sizes:
            if size in words and "at" in arguments:
                head.append(f"{size} = at.{size}")
                if size not in self.size_names:
                    self.size_names.append(size)
        head = [f"({line.split(',')[0]},) ={line.split('=')[1]}" if ", =" in line else line for line in head]
        return ScanFunction(name, ", ".join(arguments), summary, (*head, *lines), returns)

    def _tupled(self, texts: list[str]) -> str:
        text = f"({', '.join(texts)}{',' * (len(texts) == 1)})"
        if len(text) < 122:
            return text
        return "\n".join(["(", *(f"        {part}," for part in texts), "    )"])

    def _text(self, value: Expr, names: Names | None = None) -> str:
        return eager_text.text_of(self._spread(value), names or self.names).text

    def _after(self, prefix: str = "") -> str:
        return self._tupled([self.own[f"{prefix}{name}'"] for name, _ in self.program.states])

    def _statics(self) -> ScanFunction:
        names = replace(self.names, values={**self.names.values, **self._bare()})
        lines = self._lines(self.program.statics, names)
        self.static_params = [s for s in self.params if re.search(rf"\b{self._field(s.name)}\b", " ".join(lines))]
        arguments = [self._field(s.name) for s in self.static_params]
        values = self._tupled([self.own[b.name] for b in self.program.statics])
        named = (*self.indices, *self.counts, *map(identifier, self.constants), *self.sizes)
        extra = [n for n in named if re.search(rf"\b{n}\b", " ".join(lines))]
        self.size_names += [n for n in extra if n in self.sizes and n not in self.size_names]
        self.static_extra = extra
        return ScanFunction("_statics", ", ".join([*arguments, *extra]), "What is the same for every token.", tuple(lines), values)

    @property
    def has_rows(self) -> bool:
        """Whether the output has several rows."""
        return self.tokens.has_rows

    def _bare(self) -> dict[str, str]:
        """Names as `_statics` has them: arguments of its own."""
        bare = {s.name: self._field(s.name) for s in self.params} | {n: n for n in (*self.indices, *self.counts)}
        return bare | {n: identifier(n) for n in self.constants} | {name: self.own[name] for name in self.fixed}

    def _advance(self) -> ScanFunction:
        program = self.program
        roots = [b.value for b in (*program.update, *program.carried)]
        lines = self._lines((*needed(program.token, roots), *program.update, *program.carried))
        returns = f"{self._after()}, {self._after('kept ')}"
        return self._function("_advance", ["at", "states", "kept"], "The states after a token, and what is left of `kept`.", lines, returns)

    def _token(self) -> ScanFunction:
        program = self.program
        bindings = (*program.token, *program.update)
        outputs = program.outputs
        last = [Ref(t, NOWHERE, f"{n}'") for n, t in program.states]
        lines = self._lines((*needed(bindings, [*(o.value for o in outputs), *last]), *outputs))
        own = [self.own[o.name] for o in outputs]
        output = own[0] if len(own) == 1 else f"torch.cat(torch.broadcast_tensors({', '.join(own)}), -1)"
        return self._function(
            "_token",
            ["at", "states"],
            "One token: its output, and the states after it.",
            lines,
            f"{output}, {self._after()}",
        )

    def _adjoint(self) -> ScanFunction:
        program = self.program
        bindings = (*program.token, *program.update, *program.gradient)
        lines = self._lines(needed(bindings, [b.value for b in program.adjoint]))
        return self._function(
            "_adjoint",
            ["at", "states", "adjoints", "dy"],
            "What reaches the states before a token, when `adjoints` reach those after it.",
            lines,
            self._before(lines),
        )

    def _before(self, lines: list[str]) -> str:
        texts = []
        for binding, state in zip(self.program.adjoint, self.states, strict=True):
            is_none = isinstance(binding.value, Const)
            texts.append(f"torch.zeros_like(D_{state})" if is_none else self._short(f"before_{state}", binding.value, lines))
        return self._tupled(texts)

    def _short(self, name: str, value: Expr, lines: list[str]) -> str:
        """The text of a value; a long one gets lines and a name."""
        text = self._text(value)
        if len(text) < LONG:
            return text
        while name in self.names.values.values():
            name += "_"
        lines += self.scope.assign(name, self._spread(value), self.names)
        return name

    def _gradients(self) -> ScanFunction:
        program = self.program
        bindings = (*program.token, *program.update, *program.gradient)
        roots = [b.value for b in (*program.adjoint, *program.arguments, *program.sums)]
        lines = self._lines(needed(bindings, roots))
        moving = {b.name.removeprefix("d "): b.value for b in program.arguments}
        texts = [f"_unlike({self._short(f'of_{self._field(n)}', moving[n], lines)}, at.{self._field(n)})" for n in self._moving()]
        sums = [
            f"_unlike({self._short(f'part_{_plain(b.name)}', b.value, lines)}, {self.names.values[b.name.removeprefix('sum ')]})"
            for b in program.sums
        ]
        before = self._before(lines)
        returns = f"{self._tupled(texts)}, {self._tupled(sums)}, {before}"
        if len(returns) > 120:
            for name, values in (("moving", texts), ("still", sums)):
                lines += [f"{name} = (", *(f"    {value}," for value in values), ")"] if values else [f"{name} = ()"]
            returns = f"moving, still, {before}"
        summary = "Gradients of what a token has, of what all share, and of the states before it, when `adjoints` reach those after it."
        return self._function("_gradients", ["at", "states", "adjoints", "dy"], summary, lines, returns)

    def _moving(self) -> list[str]:
        """The per-token arguments that have a gradient, in order."""
        found = {b.name.removeprefix("d ") for b in self.program.arguments}
        return [s.name for s in self.inputs if s.name in found]

    def _parameters(self) -> ScanFunction:
        """Term by term where heads share a value: what comes from a sum has been summed over them before."""
        program = self.program
        lines: list[str] = []
        for binding in program.static_gradient:
            own = f"at.{self.own[binding.name.removeprefix('d ')]}"
            terms = binding.value.terms if isinstance(binding.value, Add) else ()
            if terms:
                parts = [
                    f"_unlike({self._short(f'part_{i}_of_{_plain(binding.name)}', term, lines)}, {own})" for i, term in enumerate(terms)
                ]
                lines += [f"{self.own[binding.name]} = (", *(f"    {'+ ' if i else ''}{part}" for i, part in enumerate(parts)), ")"]
            else:
                lines += self._lines((binding,))
        texts = []
        for binding in program.parameters:
            field, name = self._field(binding.name.removeprefix("d ")), _plain(binding.name)
            terms = binding.value.terms if isinstance(binding.value, Add) else (binding.value,)
            parts = [f"_unlike({self._short(f'part_{i}_of_{name}', term, lines)}, at.{field})" for i, term in enumerate(terms)]
            texts.append(" + ".join(parts))
        sums = [self.own[b.name] for b in program.sums]
        summary = "Gradients of the parameters from the sums over tokens."
        return self._function("_parameters", ["at", *sums], summary, lines, self._tupled(texts))

    # --- arguments as rows ---

    def _row_arguments(self) -> list[str]:
        given = [identifier(s.name) for s in (*self.inputs, *self.params)]
        return [*given, *(["position"] if self.has_position else []), *(identifier(c) for c in self.constants)]

    def _row_lines(self, fixed: list[str]) -> list[str]:
        lines = [f"{name} = {self.sizes[name]}" for name in self.size_names]
        moving = [_moving(s) for s in self.inputs]
        if self.has_position:
            first = identifier(self.inputs[0].name)
            moving.append(f"position.to({first}.dtype)[..., None, None, None]")
        lines.append(f"moving = {self._tupled(moving)}")
        still = [_still(s) for s in self.params]
        if still:
            lines.append(f"still = {self._tupled(still)}")
        first = identifier(self.inputs[0].name)
        for name in self.indices:
            lines.append(f"{name} = torch.arange(heads, dtype={first}.dtype, device={first}.device).view(-1, 1, 1, 1)")
        lines += ["channels = heads"] if "channels" in self.counts else []
        if fixed:
            lines.append(f"fixed = _statics({', '.join([*(_still(s) for s in self.static_params), *self.static_extra])})")
        return lines

    # --- bodies of the operators ---

    def _rows_call(self) -> str:
        return f"rows = _rows({', '.join(self._row_arguments())}, {self.states[0]}.shape[1], chunks)"

    def _states(self, names: list[str]) -> str:
        return self._tupled([_wide(name, type) for name, (_, type) in zip(names, self.program.states, strict=True)])

    def _forward_lines(self) -> list[str]:
        tail = self.output_tail()
        return [
            self._rows_call(),
            f"y, final = _scan_forward(rows, {self._states(self.states)}, T, chunks)",
            *([f"y = y{tail}"] if tail else []),
            *self._final(self.states, "final"),
        ]

    def _final(self, names: list[str], source: str) -> list[str]:
        texts = [_narrow(f"{source}[{i}]", type) for i, (_, type) in enumerate(self.program.states)]
        return [f"{name} = {text}" for name, text in zip(names, texts, strict=True)]

    def _backward_lines(self) -> list[str]:
        output = self.program.outputs[0].value.type
        rows = "dy[..., None, :]" if output.is_scalar else "dy.mT"
        lines = [
            self._rows_call(),
            f"dy = {rows if self.has_rows else _wide('dy', output)}",
            *self._backward_call(),
        ]
        if self.program.parameters:
            lines.append("d_params = _parameters(rows[0], *still)")
        return [*lines, *self._final(self.d_states, "d_initial")]

    def _backward_call(self) -> list[str]:
        parts = ["rows", self._states(self.states), "dy", self._states(self.d_states), "T", "chunks"]
        line = f"moving, still, d_initial = _scan_backward({', '.join(parts)})"
        return [line] if len(line) < WIDTH else ["moving, still, d_initial = _scan_backward(", *(f"    {part}," for part in parts), ")"]

    def gradient(self, symbol: Symbol) -> str:
        """The gradient of an argument in its own layout; empty when nothing reaches it."""
        name = identifier(symbol.name)
        if symbol.kind == "param":
            given = [b.name.removeprefix("d ") for b in self.program.parameters]
            if symbol.name not in given:
                return ""
            text = f"d_params[{given.index(symbol.name)}]"
            return (
                f"{text}.unflatten(0, ({name}.shape[0], -1)).sum(1).reshape({name}.shape)"
                if symbol.per == "group"
                else f"{text}.reshape({name}.shape)"
            )
        if symbol.name not in self._moving():
            return ""
        text = f"moving[{self._moving().index(symbol.name)}]"
        if symbol.per == "group":
            text += f".unflatten(2, ({name}.shape[2], -1)).sum(3)"
        return f"{text}.reshape({name}.shape)"

    def _step_lines(self) -> list[str]:
        """One token: a chunk of one row."""
        inputs = [f"{identifier(s.name)}[:, None]" for s in self.inputs]
        params = [identifier(s.name) for s in self.params]
        extra = [*(["position[:, None]"] if self.has_position else []), *(identifier(c) for c in self.constants)]
        held = self._tupled(
            [_wide(f"{s}.to(dtype)", t) + ".unsqueeze(2)" for s, (_, t) in zip(self.states, self.program.states, strict=True)]
        )
        first = identifier(self.inputs[0].name)
        output, sizes = self.program.outputs[0].value.type, ", ".join(map(self._size, self._output_sizes()))
        narrow = "[:, :, 0, 0, 0]" if output.is_scalar else "[:, :, 0, :, 0]" if output.is_column else "[:, :, 0]"
        if self.has_rows:
            narrow = "[:, :, 0, 0]" if output.is_scalar else "[:, :, 0].mT.contiguous()"
        lines = [
            f"chunks = _chunks(1, 1, None, {first}.device)",
            f"rows = _rows({', '.join([*inputs, *params, *extra])}, {self.states[0]}.shape[1], chunks)",
            f"held = {held}",
            "y, after = _token(rows[0], held)",
            f"y = y.expand(*held[0].shape[:3], {sizes}){narrow}",
        ]
        if self._hands_over():
            lines.append("after = tuple(x.clone() for x in after)  # one state is what another was")
        for i, (state, (_, type)) in enumerate(zip(self.states, self.program.states, strict=True)):
            lines.append(f"{state}.copy_({_narrow(f'after[{i}].expand_as(held[{i}])[:, :, 0]', type)})")
        return lines

    def _hands_over(self) -> bool:
        """Whether a state becomes what another one was before the token: a view of that, and no tensor of its own."""
        values = {b.name: b.value for b in self.program.update}
        for name, _ in self.program.states:
            value = values[f"{name}'"]
            while isinstance(value, Ref) and value.name in values:
                value = values[value.name]
            if isinstance(value, Ref) and value.name in dict(self.program.states) and value.name != name:
                return True
        return False


def _plain(name: str) -> str:
    """The name of a binding as a word: `d S'` is d_S_next."""
    return name.replace("out ", "own ").replace("'", "_next").replace(" ", "_").replace("[-1]", "_previous")


def _tail(type) -> str:
    return "None, None" if type.is_scalar else ":, None" if type.is_column else ":, :"


def _wide(name: str, type) -> str:
    """A value with both its axes."""
    return f"{name}[..., None, None]" if type.is_scalar else f"{name}[..., None]" if type.is_column else name


def _narrow(text: str, type) -> str:
    return f"{text}[..., 0, 0]" if type.is_scalar else f"{text}[..., 0]" if type.is_column else text


def _moving(symbol: Symbol) -> str:
    """An input as [B, T, H, n, p]."""
    name = identifier(symbol.name)
    if not level(symbol.per):
        name = f"{name}[:, :, None]"
    elif symbol.per == "group":
        name = f"{name}.repeat_interleave(heads // {name}.shape[2], 2)"
    return _wide(name, symbol.type)


def _still(symbol: Symbol) -> str:
    """A parameter as [H, 1, n, p]."""
    name = identifier(symbol.name)
    if not level(symbol.per):
        return f"{name}[None, None, {_tail(symbol.type)}]"
    if symbol.per == "group":
        name = f"{name}.repeat_interleave(heads // {name}.shape[0], 0)"
    return f"{name}[:, None, {_tail(symbol.type)}]"
