"""kernels -> what kernels.py says where several walks run: a file a walk, and what stands around all of them.

A walk is one in the form of rows, which leaves its reads token by token. What walks share is here: the output that is made of their
reads, the gradients that it gives them, and the sum of what reaches an argument from several sides.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..backends.torch_pointwise import UnsupportedOperand
from ..backends.torch_text import identifier
from ..backends.triton_text import helpers
from ..backends.triton_value import HALF, size_text
from ..expressions import nodes
from ..kernel import KEY, VALUE, Kernels
from ..reference.head_text import equations, title_of
from ..spec import ONE, Dim, Expr, Ref
from ..torch_form.tokens import TokenWriter
from .fused_package import Front
from .gradients import turns
from .launch import heads_text, of_pointer
from .operands import atom
from .row_readout import Cut, RowReadout
from .rows_package import Buffer
from .site import CodeLine, pointer
from .tokens import Gradients, RowTokens
from .walk import writer_of
from .walks_package import WalkCall, WalksPackage


def walks_package(kernels: Kernels) -> WalksPackage:
    """The context of kernels.py and of the files of its walks. Raises UnsupportedOperand where an operand does not fit on tiles."""
    return _Writer(kernels).package()


class _Writer(RowReadout):
    def __init__(self, kernels: Kernels):
        self.plan = kernels.plan
        classified = self.plan.classified
        self.walks = [writer_of(kernels, number, f"walk_{number}") for number in range(len(kernels.walks))]
        self.parts = [walk.package() for walk in self.walks]
        self.spec = classified.recurrence.spec
        self.tokens = TokenWriter(classified)
        self.names = RowTokens(self.tokens, None)
        self.outputs = tuple(self.names.named(value) for _, value in self.tokens.outputs)
        self.texts: list[str] = []
        turned = [n for n in turns(self.tokens, list(self.outputs)) if not n.type.is_scalar]
        angles = {n.operand.type.rows: HALF for n in turned if not n.operand.type.is_scalar}
        self.axis_of = angles | self._axes(angles)
        paired = {self.axis_of[n.type.rows] for n in turned}
        if len(paired) > 1:
            raise UnsupportedOperand("pairs along two axes")
        self.paired = next(iter(paired), KEY)

    def _axes(self, angles: Mapping[Dim, str]) -> dict[Dim, str]:
        """The output lies along the values, and what else its text reads along the keys."""
        sizes = [_size(self.output), *(size for walk in self.walks for size in walk.read_sizes())]
        sizes += [size for name in self._met() for size in (name.type.rows, name.type.cols) if size not in angles]
        own = [size for size in dict.fromkeys(sizes) if size != ONE]
        if len(own) > 2:
            raise UnsupportedOperand("an output of columns of three widths")
        return dict(zip(own, (VALUE, KEY), strict=False))

    def _met(self) -> list[Ref]:
        """The names in the output, and in the definitions of those."""
        found: dict[str, Ref] = {}
        waiting = list(self.outputs)
        while waiting:
            for node in nodes(waiting.pop()):
                if isinstance(node, Ref) and node.name not in found:
                    found[node.name] = node
                    waiting += [self.names.definitions[node.name]] if node.name in self.names.definitions else []
        return list(found.values())

    # --- reads ---

    def _reads(self) -> list[list[tuple[str, str]]]:
        """(its buffer, that of its gradient) of every reading of every walk."""
        found: list[list[tuple[str, str]]] = []
        for walk in self.walks:
            start = sum(map(len, found))
            numbers = range(start, start + len(walk.walk.readings))
            found.append([(f"reads_{number}", f"d_reads_{number}") for number in numbers])
        return found

    def _cut(self, number: int, reading: int, column: int, read: str) -> Cut:
        walk, (buffer, gradient) = self.walks[number], self._reads()[number][reading]
        width, columns = walk.read_columns(reading)
        size, offset = columns[column]
        return Cut(read, buffer, gradient, "" if size is None else self.axis_of[size], offset, width)

    def _all_cuts(self) -> list[Cut]:
        """Every column of every reading, under the names of what reads it."""
        cuts = []
        for number, walk in enumerate(self.walks):
            for reading, own in enumerate(walk.walk.readings):
                for column in range(len(walk.read_columns(reading)[1])):
                    names = [s.read.name for s in walk.walk.slices if s.reading == own.name and s.column == column]
                    cuts += [self._cut(number, reading, column, name) for name in names or [""]]
        return cuts

    def _cuts(self) -> list[Cut]:
        return [cut for cut in self._all_cuts() if cut.read]

    def _unread(self) -> list[Cut]:
        return [cut for cut in self._all_cuts() if not cut.read]

    @property
    def output_width(self) -> str:
        return atom(size_text(_size(self.output)).text)

    # --- gradients ---

    def _gradient(self) -> tuple:
        """What the output's gradient makes of reads and of the arguments that the output itself uses."""
        head, site = self._site("BT")
        site.loads |= self._read_loads() | self._dy_load()
        stores = list(self._read_gradient_stores(site))
        gradients = Gradients(self.names, self.axis_of)
        reads = {cut.read for cut in self._cuts()}
        for name, expr in self._output_cotangents():
            if name not in reads:
                gradients.push("" if expr.type.is_scalar else self.axis_of.get(_size(expr), VALUE), name, expr)
        outputs = []
        for stored, value in gradients.lines(site):
            store, kind = self._argument_store(site, stored, value)
            stores.append(store)
            outputs.append((stored, kind))
        self.texts += stores
        return self._walked(head, site), tuple(stores), outputs

    def _results(self, own: dict[str, str]) -> tuple[str, ...]:
        """The gradient of every argument, from all sides."""
        given = [part.gives for part in self.parts]
        results = []
        for symbol in self.tokens.arguments:
            texts = [f"from_walk_{i}[{names.index(symbol.name)}]" for i, names in enumerate(given) if symbol.name in names]
            texts += [own[symbol.name]] if symbol.name in own else []
            results.append(" + ".join(texts) or self._without(symbol))
        return tuple(results)

    def _state_gradients(self) -> tuple[str, ...]:
        places = {}
        for i, walk in enumerate(self.walks):
            count = len(self.parts[i].gives)
            places |= {state: f"from_walk_{i}[{count + j}]" for j, state in enumerate(walk.own_states())}
        return tuple(places[s.name] for s in self.spec.states)

    # --- the package ---

    def package(self) -> WalksPackage:
        readout, readout_stores = self._readout()
        gradient, gradient_stores, lines = self._gradient()
        outputs, totals, found = self._outputs(lines)
        constants = [pointer(n) for n, _ in self.spec.constants]
        states = [identifier(s.name) for s in self.spec.states]
        reads = self._reads()
        axes = {axis: atom(size_text(size).text) for size, axis in self.axis_of.items()}
        inputs = [s for s in self.tokens.arguments if s.kind == "input"]
        first = next((s for s in inputs if not s.type.is_scalar), inputs[0])
        like = next((s for s in inputs if s.type == self.output.type), first)
        sizes = {line.target: line.text for line in self.tokens.sizes()}
        numbers = self.walks[0].size_names()
        group = next((s for s in self.tokens.arguments if s.per == "group"), None)
        front = Front(
            argument_list=", ".join(pointer(s.name) for s in self.tokens.arguments),
            given_list=", ".join(pointer(s.name) for s in self.tokens.given),
            vectors="",
            first=pointer(first.name),
            heads=heads_text(self.tokens),
            groups=f"{pointer(group.name)}.shape[{2 if group.kind == 'input' else 0}]" if group is not None else "1",
            sizes=tuple(CodeLine("", n, of_pointer(sizes[n])) for n in numbers),
        )
        calls = []
        for number, walk in enumerate(self.walks):
            own = [identifier(s) for s in walk.own_states()]
            widths = [walk.read_columns(reading)[0] for reading in range(len(walk.walk.readings))]
            calls.append(
                WalkCall(
                    module=walk.module,
                    number=number,
                    reads=tuple(Buffer(d, f"batch, T, H, {w}") for (_, d), w in zip(reads[number], widths, strict=True)),
                    targets=", ".join([*(b for b, _ in reads[number]), *(f"final_{s}" for s in own)]),
                    state_list=", ".join(f"initial_{s}" for s in own),
                    moved_list=", ".join([*(d for _, d in reads[number]), *(f"moved_{s}" for s in own)]),
                    given=f"from_walk_{number}",
                )
            )
        rank = [str(len(self.outputs))] if self.tokens.has_rows else []
        kept = [b for each in reads for b, _ in each] if self.plan.stores_reads else []
        return WalksPackage(
            front=front,
            title=title_of(self.spec),
            equations=equations(self.spec),
            count_text=f"{len(self.walks)} walks" if len(self.walks) > 1 else "one walk",
            modules=", ".join(walk.module for walk in self.walks),
            module_tuple=", ".join(walk.module for walk in self.walks) + ("," if len(self.walks) == 1 else ""),
            first_module=self.walks[0].module,
            walks=tuple(calls),
            parts=tuple((walk.module, part) for walk, part in zip(self.walks, self.parts, strict=True)),
            helpers=helpers(self.texts),
            has_groups=group is not None,
            stores_reads=self.plan.stores_reads,
            uses_position=self.plan.uses_position,
            numbers="".join(f"{n}: tl.constexpr, " for n in numbers),
            number_arguments="".join(f"{n}, " for n in numbers),
            key_width=axes.get(KEY, "1"),
            value_width=axes.get(VALUE, "1"),
            states=", ".join(f"initial_{s}" for s in states),
            final_list=", ".join(f"final_{s}" for s in states),
            state_gradient_list=", ".join(f"moved_{s}" for s in states),
            constants="".join(f", {c}" for c in constants),
            output_shape=", ".join(["batch", "T", "H", *rank, *([] if self.output.type.is_scalar else [self.output_width])]),
            output_like=pointer(like.name),
            read_names=tuple(b for each in reads for b, _ in each),
            kept_names=tuple(kept),
            read_gradient_names=tuple(d for each in reads for _, d in each),
            readout=readout,
            readout_stores=readout_stores,
            gradient=gradient,
            gradient_stores=gradient_stores,
            gradient_outputs=tuple(dict.fromkeys(stored.buffer for stored, _ in lines)),
            outputs=outputs,
            totals=totals,
            results=self._results(found),
            state_gradients=self._state_gradients(),
        )


def _size(expr: Expr) -> Dim:
    return expr.type.cols if expr.type.is_row else expr.type.rows
