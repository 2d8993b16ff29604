"""kernels -> what op.py of the emitted package says. Everything is decided here; `templates/torch/op.py.jinja` lays it out.

Token-wise functions come from `tokens`, walks from their chunk programs; this file names the state's parts and the
arguments, and says what calls what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..backends.torch_chunk import has_pairs
from ..backends.torch_text import helpers, identifier
from ..gauges import immaterial, scalings
from ..kernel import Kernels, programs
from ..plan import Plan, widths
from ..reference.head_text import equations, sources, title_of
from ..spec import Recurrence as Spec
from ..spec import Symbol, Type
from ..text.line_text import broken_function
from .aliases import shared_gradients
from .convolution import ConvolutionText, ConvolutionWriter
from .dense_text import DenseText, dense_text
from .outer import Outer
from .previous_text import Angle, Lookahead, Maximum, Previous, angles, lookaheads, maxima, previous_values
from .running_text import Running, Scaling, registrations, running_text, scaling_text
from .scan import NO_READOUT, ScanText, ScanWriter
from .schema_text import Registration, registration
from .shapes import alike, layout, number, unasked
from .tokens import Line, TokenFunction, TokenWriter, level
from .walk import WalkText, WalkWriter, as_target, as_tuple, is_plain

if TYPE_CHECKING:
    from ..triton_form.running import RunningPackage


@dataclass(frozen=True)
class Argument:
    """A tensor argument and its layout."""

    name: str
    layout: str


@dataclass(frozen=True)
class Constant:
    """A number that the recurrence takes as an argument, with its default."""

    name: str
    value: str


@dataclass(frozen=True)
class OpPackage:
    """Everything op.py says."""

    name: str
    title: str
    sources: tuple[str, ...]
    equations: tuple[str, ...]
    namespace: str
    chunk: int
    arguments: tuple[Argument, ...]
    constants: tuple[Constant, ...]
    first: str
    given_first: str  # of those that users give
    helpers: tuple[str, ...]
    walks: tuple[WalkText, ...]
    scan: ScanText | None
    convolution: ConvolutionText | None
    convolved: str  # what it is given
    convolved_body: tuple[str, ...]
    convolved_kind: str
    convolved_results: str
    called_tensors: str
    outruns_kernels: bool  # whole sequences are a convolution also where kernels could run the scan
    convolved_call: str
    has_convolution: bool
    has_walks: bool
    has_walk_positions: bool
    uses_functional: bool
    readout: TokenFunction
    readout_backward: TokenFunction
    has_readout: bool
    has_readout_backward: bool
    readout_call: str
    readout_backward_call: str
    reads: str
    read_gradients: str
    output_layout: str
    output_like: str
    output_cast: str
    uses_math: bool
    has_groups: bool
    has_kernels: bool
    has_erase: bool
    has_pairs: bool
    is_bounded: bool  # a block of `pairs` rows may be factored: the decay is proved weak enough
    pairs: int
    has_triton: bool
    tensors: str
    fused_forward: str
    fused_gradients: str
    fused_gradient_body: tuple[str, ...]
    fused_backward: str
    kept: str
    first_state: str
    states: str
    start_call: str
    start_arguments: str
    start: tuple[Line, ...]
    states_tuple: str
    has_start: bool
    uses_position: bool
    is_reversed: bool
    stores_reads: bool
    joins_reads: bool
    chunk_axis: int
    body: tuple[str, ...]
    forward_results: str
    fake_results: tuple[str, ...]
    gradient_body: tuple[str, ...]
    backward_results: tuple[str, ...]
    backward_fakes: tuple[str, ...]
    operands: str
    backward_operands: str
    saved: str
    settings: str
    output_gradients: str
    state_gradient_names: str
    no_gradients: str
    registrations: tuple[Registration, ...]
    step_signature: str
    step_body: tuple[str, ...]
    step_fake: str
    has_decode: bool
    step_dtype: str
    step_rows: str
    step_states: str
    step_held: str
    argument_names: str
    argument_names_all: str
    row_check: str  # true for other numbers of rows than the program has; empty where no argument has rows
    row_words: str
    zero_states: tuple[Line, ...]
    has_shifts: bool  # a token reads what the one before had
    has_ends: bool  # the next call alone does
    previous: tuple[Previous, ...]
    has_maxima: bool
    has_members: bool  # states that feed each other
    has_scan: bool  # states that do not
    maxima: tuple[Maximum, ...]
    gauges: tuple[Scaling, ...]
    has_gauges: bool
    dense: DenseText | None  # products of matrices around a scan
    has_dense: bool
    running: tuple[Running, ...]  # maxima and angles that kernels make
    has_running: bool
    given: str
    has_angles: bool
    has_angles_alone: bool  # no values are carried beside them
    angles: tuple[Angle, ...]
    has_aheads: bool
    aheads: tuple[Lookahead, ...]
    turned_back: tuple[Line, ...]  # final states, from the frame that turns along
    carried: tuple[str, ...]  # parts of the state that no operator sees: previous values and maxima
    carries_values: bool
    previous_dtype: str
    previous_step_dtype: str
    argument_parts: tuple[Line, ...]  # complex arguments as pairs of reals, which is what operators take
    parts: tuple[Line, ...]  # states likewise
    step_parts: tuple[Line, ...]
    has_pairs_of_reals: bool
    call_results: str
    call: str
    state_results: str
    step_call: str


def op_package(
    kernels: Kernels, namespace: str, has_kernels: bool, has_decode: bool, running: RunningPackage | None, joins_reads: bool = False
) -> OpPackage:
    """The context of op.py for one recurrence.

    has_kernels, has_decode: kernels.py and decode.py stand beside it.
    running: what running.py says, where there is one. joins_reads: what several readings give is kept in one tensor.
    """
    return _Writer(kernels, namespace, has_kernels, has_decode, running, joins_reads).package()


class _Writer(WalkWriter):
    def __init__(
        self,
        kernels: Kernels,
        namespace: str,
        has_kernels: bool,
        has_decode: bool,
        running: RunningPackage | None,
        joins_reads: bool,
    ):
        self.kernels, self.namespace, self.running = kernels, namespace, running
        self.joins_reads = joins_reads and self.kernels.plan.stores_reads
        self.has_kernels, self.has_decode = has_kernels, has_decode
        self.plan: Plan = kernels.plan
        self.recurrence = self.plan.classified.recurrence
        self.spec: Spec = self.recurrence.spec
        self.tokens = TokenWriter(self.plan.classified)
        # what users call takes the arguments of the whole recurrence
        self.outer = Outer(self.plan)
        self.names = [identifier(s.name) for s in self.tokens.arguments]
        self.angles = angles(self.outer.tokens)
        self.pairs = self.recurrence.pairs
        self.immaterial = {identifier(n) for n in immaterial(self.recurrence)}
        self.inputs = [s for s in self.tokens.given if s.kind == "input"]
        self.states = [identifier(s.name) for s in self.spec.states]
        self.constants = [identifier(n) for n, _ in self.spec.constants]
        self.sizes = {line.target: line.text for line in self.tokens.sizes()}
        self.aheads = lookaheads(self.outer.tokens, self.outer._heads())
        walks = self.plan.classified.walks
        self.scan = None
        if kernels.scan is not None:
            self.scan = ScanWriter(kernels.scan, self.tokens, self.states, [self._d(s) for s in self.states])
        self.has_groups = any(
            self.tokens.operand_place(w, n).level != "h" for w in walks if is_plain(w) for n in self._operands(w) if n != "g"
        )
        output = self.plan.classified.outputs[0][1].type
        self.output = output
        self.like = next(
            (s for s in self.inputs if s.type == output), next((s for s in self.inputs if not s.type.is_scalar), self.inputs[0])
        )

    # --- the operators ---

    def package(self) -> OpPackage:
        several = len(self.kernels.walks) > 1
        walks = tuple(self.walk(w, str(i) if several else "") for i, w in enumerate(self.kernels.walks))
        convolution = self._convolution()
        others = [convolution.function] if convolution is not None else []
        scan = self.scan.text(*others) if self.scan is not None else None
        read = (NO_READOUT, NO_READOUT) if scan else (self.tokens.readout(), self.tokens.readout_backward())
        readout, readout_backward = map(broken_function, read)
        # what does nothing but turn has its gradient through the angle alone
        given_back = {n for f in (readout_backward, *(w.operands_backward for w in walks)) for n in f.gives}
        turns_only = {n for a in self.angles for n in a.function.arguments.split(", ")} - given_back
        turned = [Line("", state, text) for a in self.angles for state, text in a.states]
        # a maximum that only scales states has its gradient through the states alone
        scaling = scalings(self.recurrence)
        dense = dense_text(self.plan.classified, self.outer.tokens, self.outer.like)
        functions = [
            readout,
            readout_backward,
            *(f for w in walks for f in (w.operands, w.operands_backward)),
            *(a.function for a in (*self.angles, *self.aheads)),
            *(e.function for a in self.aheads for e in a.entries),
        ]
        around = [f for f in (dense.before, dense.behind) if f.returns] if dense is not None else []
        functions += around
        text = " ".join([*(line.text for f in functions for line in f.lines), *(r.text for f in functions for r in f.returns)])
        text += " ".join(line.text for line in turned)
        tensors = [*self.names, *self.states]
        # a step makes its angle itself, and its kernel turns the state and writes what the token before wrote
        step_arguments = self._step_arguments()
        step_names = [identifier(s.name) for s in step_arguments]
        step_tensors = [*step_names, *self.states]
        position = ["position"] if self.plan.uses_position else []
        previous = previous_values(self.outer.tokens)
        running = maxima(self.outer.tokens)
        first = identifier(self.inputs[0].name)
        made = self.running.values if self.running is not None else ()
        values = tuple(running_text(value, first, self._dim) for value in made)
        calls = {value.name: value.call for value in values}
        carried = [*(p.name for p in previous), *(m.state for m in running)]
        given = [identifier(s.name) for s in self.outer.tokens.given]
        public = [identifier(s.name) for s in self.outer.public]
        reads = [m for w in walks for m in w.moved_reads.split(", ")]
        gates = ["gates"] if self.has_kernels else []
        kept_reads = ["reads"] if self.joins_reads else reads if self.plan.stores_reads else []
        kept = [*kept_reads, *gates]
        settings = ["cu_seqlens", "chunk", *self.constants]
        operands = [*tensors, *position, *settings]
        count = 1 + len(self.states) + len(kept)
        like = identifier(self.like.name)
        shape = f"*{like}.shape[:2], {self._heads()}{self._output_tail()}"
        fakes = [f"{like}.new_empty({shape})"]
        fakes += [
            f"torch.empty_like({s}, dtype=_arithmetic({', '.join(tensors)}), memory_format=torch.contiguous_format)" for s in self.states
        ]
        for walk in self.kernels.walks:
            width = " + ".join(self._width_text(c.value.type) if c.value is not None else "1" for c in walk.walk.columns)
            if self.joins_reads:
                width = f"{len(walk.walk.readings)}, {width}"
            dtype = f"{'_reads_dtype' if self.joins_reads else '_arithmetic'}({', '.join(tensors)})"
            for reading in walk.walk.readings[: len(kept_reads)]:
                size = self._dim(widths(walk.walk)[0]) if reading.is_value else width
                fakes.append(f"{like}.new_empty(*{like}.shape[:2], {self._heads()}, {size}, dtype={dtype})")
        if gates:
            fakes.append(f"{first}.new_empty(_gates_shape({', '.join([*tensors, 'cu_seqlens'])}), dtype=torch.float32)")
        called = [*(f"{n}.detach()" if n in turns_only | self.immaterial else n for n in self.names), *self._entered()]
        moved = ["dy", *(self._d(s) for s in self.states)]
        rank = [str(self.outer.spec.outputs[0].count)] if self.outer.tokens.has_rows else []
        output = self.outer.output
        return OpPackage(
            name=self.spec.name,
            title=title_of(self.spec),
            sources=sources(self.spec),
            equations=equations(self.recurrence.worded),
            namespace=self.namespace,
            chunk=self.plan.chunk,
            arguments=tuple(Argument(identifier(s.name), layout(s)) for s in self.outer.public),
            constants=tuple(Constant(identifier(n), number(v)) for n, v in self.spec.constants),
            first=identifier(self.inputs[0].name),
            given_first=self.outer.first,
            helpers=_united(scan.helpers, helpers(_texts(around))) if scan else helpers(text),
            walks=walks,
            scan=scan,
            convolution=convolution,
            has_convolution=convolution is not None,
            convolved=", ".join([*tensors, *position, *self.constants]),
            convolved_body=tuple(self._convolved_body(tensors)),
            convolved_kind=f"kinds[{self.names.index(like)}]",
            convolved_results=", ".join(["y", *(f"{s}.contiguous()" for s in self.states)]),
            called_tensors=", ".join(called),
            outruns_kernels=self.plan.outruns_kernels or not self.has_kernels,
            convolved_call=", ".join([*called, *position, *self.constants]),
            has_walks=scan is None,
            has_walk_positions=self.plan.uses_position and scan is None,
            uses_functional=scan is None
            or convolution is not None
            or bool(running)
            or any("F." in line for f in scan.functions for line in (*f.lines, f.returns))
            or "F." in _texts(around),
            readout=readout,
            readout_backward=readout_backward,
            has_readout=not _is_identity(readout),
            has_readout_backward=not _is_identity(readout_backward),
            readout_call=_call(readout),
            readout_backward_call=_call(readout_backward),
            reads=", ".join(reads),
            read_gradients=", ".join([*(f"d_{r}" for r in reads), *(["*from_readout"] if readout_backward.gives else [])]),
            output_layout=f"[{', '.join(['B', 'T', self._lane(), *rank, *([] if output.is_scalar else [_vector(output)])])}]",
            output_like=self.outer.like,
            output_cast=f".to(kinds[{self.names.index(like)}])",
            uses_math=scan.uses_math if scan else "math." in text or bool(self.angles),
            has_groups=self.has_groups,
            has_kernels=self.has_kernels,
            has_erase=any(w.has_erase for w in self.plan.classified.walks if not w.members),
            has_pairs=any(has_pairs(p) for w in self.kernels.walks for p in programs(w)),
            is_bounded=self.plan.is_bounded,
            pairs=self.plan.block,
            has_triton=self.has_kernels or self.has_decode,
            tensors=", ".join(tensors),
            fused_forward=", ".join([*position, "cu_seqlens", *self.constants]),
            fused_gradient_body=tuple(self._fused_gradient_body(like)),
            fused_gradients=", ".join(["dy", *(self._d(s) for s in self.states)]),
            fused_backward=", ".join([*kept, *position, "cu_seqlens", *self.constants]),
            uses_position=self.plan.uses_position,
            is_reversed=self.plan.is_reversed,
            stores_reads=self.plan.stores_reads,
            joins_reads=self.joins_reads,
            chunk_axis=3 if self.has_groups else 2,
            body=tuple(self._body(tensors)),
            forward_results=", ".join(
                [
                    f"y.to(kinds[{self.names.index(like)}]).contiguous()",
                    *(f"{s}.contiguous()" for s in self.states),
                    *([f"torch.stack([{', '.join(reads)}], -2)"] if self.joins_reads else [f"{r}.contiguous()" for r in kept_reads]),
                    *(_none(first) for _ in gates),
                ]
            ),
            fake_results=tuple(fakes),
            gradient_body=(*self._gradient_body(), *([f"({', '.join(reads)},) = reads.unbind(-2)"] if self.joins_reads else [])),
            backward_results=tuple(self._backward_results(walks, readout_backward)),
            backward_fakes=(
                *(unasked(n) if n in self.immaterial else alike(n) for n in self.names),
                *(f"{_none(first)} if {s} is None else {alike(s)}" for s in self.states),
            ),
            kept=", ".join(kept),
            first_state=self.states[0],
            states=as_target(self.states),
            start_call=f"_start({', '.join(self.names)}, cu_seqlens)",
            start_arguments=f"{', '.join(self.names)}, cu_seqlens",
            start=tuple(self._start()),
            states_tuple=as_tuple(self.states),
            has_start=bool(carried or position),
            operands=", ".join(operands),
            backward_operands=", ".join([*moved, *tensors, *kept, *position, *settings]),
            saved=", ".join([*tensors, *kept, *position, "cu_seqlens"]),
            settings=as_tuple(["chunk", *self.constants]),
            output_gradients=", ".join([*(self._d(s) for s in self.states), *(["*_"] if kept else [])]),
            state_gradient_names=", ".join(self._d(s) for s in self.states),
            no_gradients=", ".join(["None"] * (len(position) + 2 + len(self.constants))),
            registrations=tuple(self._registrations(count, kept)),
            step_signature=", ".join([*step_tensors, *position, *self.constants, "slots"]),
            step_body=tuple(
                [
                    f"kinds = [t.dtype for t in {as_tuple(step_tensors)}]",
                    f"dtype = _arithmetic({', '.join(step_tensors)})",
                    f"{as_target(step_names)} = _in(dtype, {', '.join(step_names)})",
                    *(f"{a.name} = {a.step_call}" for a in self.angles),
                    *(
                        f"{a.name} = {first}.new_zeros({first}.shape[0], {self._heads().replace('shape[2]', 'shape[1]')})"
                        for a in self.aheads
                    ),
                    *(
                        f"entered_{e.state} = {e.state}.to(dtype) + {a.step_call}{e.wide} * {e.step_call}"
                        for a in self.aheads
                        for e in a.entries
                    ),
                ]
            ),
            step_fake=f"{like}.new_empty({like}.shape[0], {self._heads().replace('shape[2]', 'shape[1]')}{self._output_tail()})",
            has_decode=self.has_decode,
            step_dtype=f"_arithmetic({', '.join(step_tensors)})",
            step_rows=", ".join(
                [
                    *(
                        f"{n}[present]" if s.kind == "input" or s.kind == "gate" else n
                        for n, s in zip(step_names, step_arguments, strict=True)
                    ),
                    "*held",
                    *self.constants,
                ]
            ),
            step_states=as_tuple([*self.states, *position]),
            step_held=as_tuple([f"{s}[rows]" for s in (*self.states, *position)]),
            argument_names=", ".join(f"{s}.real" if s in {identifier(p.name) for p in self.pairs} else s for s in public),
            argument_names_all=", ".join(self.names),
            row_check=self._row_check(),
            row_words=f"{self.spec.name} is built for {self._row_sizes()}: `ssmgen build --dim` makes it for other numbers",
            zero_states=tuple(self.outer._zero_states()),
            call_results=", ".join(["y", *self.states, *(["*_"] if kept else [])]),
            argument_parts=tuple(self.outer._parts()),
            parts=tuple(self.outer._parts("initial_state")),
            step_parts=tuple(self.outer._parts("state")),
            has_pairs_of_reals=bool(self.pairs),
            call=", ".join([*called, *position, *settings]),
            state_results=", ".join(
                [
                    *self._results(),
                    *(f"{p}=next_{p}" for p in carried),
                    *(["position=next_position"] if position else []),
                ]
            ),
            has_shifts=not all(p.is_last_alone for p in previous),
            has_ends=any(p.is_last_alone for p in previous),
            previous=previous,
            has_maxima=bool(running),
            has_members=any(w.members for w in self.plan.classified.walks),
            has_scan=not all(w.members for w in self.plan.classified.walks),
            maxima=tuple(replace(m, has_kernels=m.state in calls, fused_call=calls.get(m.state, "")) for m in running),
            gauges=tuple(scaling_text(gauge) for gauge in scaling),
            has_gauges=bool(scaling),
            running=values,
            has_running=bool(values),
            dense=dense,
            has_dense=dense is not None,
            given=", ".join(given),
            has_angles=bool(self.angles),
            has_angles_alone=bool(self.angles) and not carried,
            angles=tuple(replace(a, has_kernels=a.name in calls, fused_call=calls.get(a.name, "")) for a in self.angles),
            has_aheads=bool(self.aheads),
            aheads=tuple(replace(a, has_kernels=a.name in calls, fused_call=calls.get(a.name, "")) for a in self.aheads),
            turned_back=tuple(turned),
            carried=tuple(carried),
            carries_values=bool(carried),
            previous_dtype=f"_arithmetic({', '.join([*given, *(f'initial_state.{c}' for c in carried)])})",
            previous_step_dtype=f"_arithmetic({', '.join([*given, *(f'state.{c}' for c in carried)])})",
            step_call=", ".join(
                [
                    *(n if n not in carried else f"own_{n}" for n in step_names),
                    *self._held("state"),
                    *(["state.position"] if position else []),
                    *self.constants,
                    "slots",
                ]
            ),
        )

    def _convolution(self) -> ConvolutionText | None:
        answers = self.kernels.scan.convolution if self.kernels.scan is not None else None
        return None if answers is None else ConvolutionWriter(self.scan, answers).text()

    def _convolved_body(self, tensors: list[str]) -> list[str]:
        """Arguments in the dtype of the arithmetic; what every head has of a token lies head by head."""
        kinds, *cast = self._cast(tensors)
        turned = [identifier(s.name) for s in self.tokens.arguments if s.kind != "param" and level(s.per)]
        return [kinds, *(f"{name} = _Turned.apply({name}).transpose(1, 2)" for name in turned), *cast]

    def _ranks(self) -> dict[str, int]:
        """Sizes that the program writes out row by row, as they were when it was built."""
        steps = self.recurrence.steps
        found = {name for name, _ in self.spec.counts}
        for size in [s.count for s in steps] + [each.rank for s in steps for each in (*s.writes, *s.transitions)]:
            found |= {name for name, _ in size.terms} if size is not None else set()
        return {name: value for name, value in (*self.spec.dims, *self.spec.counts) if name in found}

    def _rows_of_arguments(self) -> list[tuple[str, int, int]]:
        """The arguments that have such rows: name, axis, and how many."""
        ranks, found = self._ranks(), []
        for symbol in self._public():
            size = symbol.type.rows
            if size.terms and all(name in ranks for name, _ in size.terms):
                found.append((identifier(symbol.name), -1 if symbol.type.is_column else -2, int(size.value(ranks))))
        return found

    def _row_check(self) -> str:
        rows = self._rows_of_arguments()
        if len(rows) < 2:
            return "".join(f"{name}.shape[{axis}] != {count}" for name, axis, count in rows)
        return f"({', '.join(f'{name}.shape[{axis}]' for name, axis, _ in rows)}) != ({', '.join(str(count) for *_, count in rows)})"

    def _row_sizes(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self._ranks().items())

    def _body(self, tensors: list[str]) -> list[str]:
        if self.scan is not None:
            first, rows = identifier(self.inputs[0].name), "T" if self.kernels.scan.mixes else "chunk"
            return [*self._cast(tensors), f"T = {first}.shape[1]", f"chunks = _chunks(T, {rows}, cu_seqlens, {first}.device)"]
        groups = f"{self._groups()}, " if self.has_groups else ""
        first = identifier(self.inputs[0].name)
        return [*self._cast(tensors), f"chunks = _chunks({first}.shape[1], chunk, {groups}cu_seqlens)"]

    @staticmethod
    def _cast(tensors: list[str]) -> list[str]:
        return [
            f"kinds = [t.dtype for t in {as_tuple(tensors)}]",
            f"dtype = _arithmetic({', '.join(tensors)})",
            f"{as_target(tensors)} = _in(dtype, {', '.join(tensors)})",
        ]

    def _step_arguments(self) -> list[Symbol]:
        """What a step is given: all that the text reads, and nothing that is made before the operator."""
        made = {a.name for a in (*self.recurrence.turnings, *self.recurrence.aheads)}
        before = [f"{s.name}[-1]" for s in self.tokens.delayed]
        own = [s for s in self.tokens.arguments if s.name not in made and s.name not in before]
        held = {s.name: s for s in (*self.tokens.arguments, *self.tokens.taken_in)}
        return [*own, *(held[name] for name in before)]

    def _entered(self) -> list[str]:
        """The states that a call hands to its operator."""
        taking = {e.state for a in self.aheads for e in a.entries}
        return [f"entered_{s}" if s in taking else held for s, held in zip(self.states, self._held("initial_state"), strict=True)]

    def _registrations(self, count: int, kept: list[str]) -> list[Registration]:
        """Forward, backward and step; `count`: results of forward, among them the reads that are kept."""
        arguments = [f"Tensor {n}" for n in self.names]
        step_arguments = [f"Tensor {identifier(s.name)}" for s in self._step_arguments()]
        states = [f"Tensor? {s}" for s in self.states]
        position = ["Tensor position"] if self.plan.uses_position else []
        constants = [f"float {c}" for c in self.constants]
        gradients = [f"Tensor? {d}" for d in ("dy", *(self._d(s) for s in self.states))]
        settings = [*position, "Tensor? cu_seqlens", "SymInt chunk", *constants]
        moved = [*self.states, *(["position"] if self.plan.uses_position else [])]
        written = [f"Tensor({chr(97 + i)}!) {s}" for i, s in enumerate(moved)]
        return [
            registration("forward", [*arguments, *states, *settings], count),
            registration(
                "backward", [*gradients, *arguments, *states, *(f"Tensor {r}" for r in kept), *settings], len(arguments) + len(states)
            ),
            registration("step", [*step_arguments, *written, *constants, "Tensor? slots"], 1),
            *(r for value in (self.running.values if self.running is not None else ()) for r in registrations(value)),
        ]

    def _fused_gradient_body(self, like: str) -> list[str]:
        """A gradient of the output that nothing asked for is zero; one of a state stays absent."""
        return [f"dy = {like}.new_zeros(*{like}.shape[:2], {self._heads()}{self._output_tail()}) if dy is None else dy"]

    def _gradient_body(self) -> list[str]:
        like = identifier(self.like.name)
        lines = [
            f"dy = {like}.new_zeros(*{like}.shape[:2], {self._heads()}{self._output_tail()}) if dy is None else dy.to(dtype)",
        ]
        return lines + [f"{self._d(s)} = torch.zeros_like({s}) if {self._d(s)} is None else {self._d(s)}.to(dtype)" for s in self.states]

    def _backward_results(self, walks: tuple[WalkText, ...], readout: TokenFunction) -> list[str]:
        results = []
        shared = shared_gradients([w.operands_backward for w in walks], readout)
        for index, name in enumerate(self.names if self.scan is None else ()):
            parts = [
                f"from_operands{w.suffix}[{w.operands_backward.gives.index(name)}]" for w in walks if name in w.operands_backward.gives
            ]
            if name in readout.gives:
                parts.append(f"from_readout[{readout.gives.index(name)}]")
            total = " + ".join(parts)
            if name in self.immaterial:
                results.append(unasked(name, f"kinds[{index}]"))
            elif not parts:
                results.append(f"torch.zeros_like({name}, dtype=kinds[{index}], memory_format=torch.contiguous_format)")
            else:
                copy = ", copy=True" if len(parts) == 1 and name in shared else ""
                results.append(f"{f'({total})' if len(parts) > 1 else total}.to(kinds[{index}]{copy}).contiguous()")
        for index, symbol in enumerate(self.tokens.arguments if self.scan is not None else ()):
            if self.names[index] in self.immaterial:
                results.append(unasked(self.names[index], f"kinds[{index}]"))
                continue
            text = self.scan.gradient(symbol) or f"torch.zeros_like({self.names[index]})"
            results.append(f"{text}.to(kinds[{index}]).contiguous()")
        first = identifier(self.inputs[0].name)
        return results + [
            f"{self._d(s)}.to(kinds[{len(self.names) + i}]).contiguous() if is_given else {_none(first)}" for i, s in enumerate(self.states)
        ]

    def _lane(self) -> str:
        return "C" if any(state.per == "channel" for state in self.spec.states) else "H"


# --- functions that say nothing ---


def _texts(functions: list[TokenFunction]) -> str:
    return " ".join(part.text for f in functions for part in (*f.lines, *f.returns))


def _united(*groups: tuple[str, ...]) -> tuple[str, ...]:
    """Helpers of several texts, each once."""
    return tuple(dict.fromkeys(helper for group in groups for helper in group))


def _is_identity(function: TokenFunction) -> bool:
    """Gives back its one argument: the argument stands where it would be called."""
    return function.is_single and not function.lines and function.returns[0].text == function.arguments


def _call(function: TokenFunction) -> str:
    return function.arguments if _is_identity(function) else f"{function.name}({function.arguments})"


def _none(tensor: str) -> str:
    """What an operator gives, which must give a tensor, in place of one that there is not."""
    return f"{tensor}.new_empty(0, dtype=torch.float32)"


# --- words -------------------------------------------------------------------------------------------------------


def _vector(type: Type) -> str:
    return str(type.cols if type.is_row else type.rows)
