"""A recurrence that turns -> the same recurrence in a frame that turns along: no rotation is left, and keys and queries are turned.

With Phi_t the sum of the angles up to token t, S~_t = rot(-Phi_t) S_t obeys

    S~' = a S~ + (rot(-Phi) k) v^T,    S'^T q = S~'^T (rot(-Phi) q)

since rotations of the same pairs commute, and a factor that both members of a pair share commutes with them. What reads or
erases the state before the token is turned by the angle before. Phi reads no state: it is a running sum of its own before
everything else, and to the walks one more value of the token. It begins at 0 in every document and every call, and the final
state is turned back by it: the state that is passed is that of the equations, and no angle is kept.
"""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..expressions import children, half, key, nodes
from ..recurrence import Generator, MicroStep, Read, Recurrence, Transition, Turning, Write
from ..small import previous_input
from ..source import NOWHERE, Span
from ..spec import Add, Apply, Const, Delayed, Expr, MatMul, Ref, Rot, State, Symbol, Type
from .rows import Problem, previous_value, rewritten, sizes_of, transposed, unrolled

LEFT, RIGHT = "left", "right"

Frame = Expr | None
"""The angle by which a frame is turned; None: 0."""


def turned(recurrence: Recurrence) -> Recurrence | Problem:
    """The recurrence in the frame that turns along; as it is where nothing turns."""
    entries = next((s for s in recurrence.spec.states if s.type.field == "complex" and s.rotating_rows is None), None)
    if entries is not None:
        return _complex_entries(recurrence, entries)
    if not any(g.kind == "rotation" for step in recurrence.steps for t in step.transitions for g in t.left + t.right):
        return recurrence
    try:
        return _Turned(recurrence).recurrence()
    except _Refused as refused:
        return refused.problem


class _Refused(Exception):
    def __init__(self, problem: Problem):
        super().__init__(problem.title)
        self.problem = problem


class _Turned:
    def __init__(self, recurrence: Recurrence):
        self.whole, self.spec = recurrence, recurrence.spec
        self.definitions = {s.name: s.definition for s in self.spec.symbols if s.definition is not None} | dict(recurrence.hoisted)
        self.steps = _single_steps(recurrence)
        self.turnings: list[Turning] = []
        self.frames = {(s.name, side): self._frames(s.name, side) for s in self.spec.states for side in (LEFT, RIGHT)}

    def recurrence(self) -> Recurrence:
        steps = tuple(self._step(number, step) for number, step in enumerate(self.steps))
        reads = tuple(self._read(read) for read in self.whole.reads)
        results = {read.name: frame for read in self.whole.reads if (frame := self._frame_of_result(read)) is not None}

        def upright(node: Expr) -> Expr | None:
            return _turn(node, results[node.name]) if isinstance(node, Ref) and node.name in results else None

        outputs = tuple((name, algebra.rewrite(value, upright)) for name, value in self.whole.outputs)
        angles = [Symbol(t.name, "input", t.step.type, self._per(t.step), NOWHERE) for t in self.turnings]
        return replace(
            self.whole,
            spec=replace(self.spec, symbols=(*self.spec.symbols, *angles)),
            steps=steps,
            reads=reads,
            outputs=outputs,
            whole=self.whole.written,
            turnings=tuple(self.turnings),
            owns=() if results else self.whole.owns,  # of reads as they lie
            unturned=self.whole,
        )

    # --- frames ---

    def _frames(self, state: str, side: str) -> list[Frame]:
        """The frame before every micro-step and behind the last."""
        angles = [self._angle(state, side, step) for step in self.steps]
        parts = [a for a in angles if a is not None]
        if not parts:
            return [None] * (len(angles) + 1)
        type = self.spec.state(state).type
        size = type.rows if side == LEFT else type.cols
        whole = Type(half(size))
        types = {p.type.rows: p.type for p in parts if not p.type.is_scalar} or {whole.rows: whole}
        if len(types) > 1:
            raise _Refused(self._several(state, "the micro-steps of a token turn different numbers of pairs"))
        total = algebra.add(algebra.const(0, next(iter(types.values()))), *parts)
        name = self._running(total, state, side)
        frames: list[Frame] = [Ref(total.type, NOWHERE, name)]
        for angle in reversed(angles):
            frames.append(_sum(frames[-1], _negative(angle)))
        return frames[::-1]

    def _running(self, step: Expr, state: str, side: str) -> str:
        """The name of the sum of `step`, one for all states that turn alike."""
        for number, known in enumerate(self.turnings):
            if key(known.step) == key(step) and known.step.type == step.type:
                self.turnings[number] = replace(known, states=(*known.states, (state, side)))
                return known.name
        name = self.spec.free_name("Phi" if not self.turnings else f"Phi{len(self.turnings) + 1}")
        self.turnings.append(Turning(name, step, ((state, side),)))
        return name

    def _angle(self, state: str, side: str, step: MicroStep) -> Frame:
        """By how much a micro-step turns what it leaves of a state: the same in every term of it."""
        found: list[Frame] = []
        for term in step.transitions:
            if term.target != state or term.source != state or any(g.kind in ("rank_one", "dense") for g in term.left + term.right):
                continue
            found.append(_sum(*(g.column for g in _chain(term, side) if g.kind == "rotation")))
        if found and any(_sum(found[0], _negative(other)) is not None for other in found[1:]):
            raise _Refused(self._several(state, "its parts turn by different angles"))
        return found[0] if found else None

    # --- the parts of the recurrence ---

    def _step(self, number: int, step: MicroStep) -> MicroStep:
        transitions = []
        for term in step.transitions:
            chains = {}
            for side in (LEFT, RIGHT):
                after, before = self.frames[term.target, side][number + 1], self.frames[term.source, side][number]
                chains[side] = self._unturned(term, _chain(term, side), after, before)
            transitions.append(replace(term, left=tuple(chains[LEFT]), right=tuple(_mirrored(chains[RIGHT]))))
        return replace(step, transitions=tuple(transitions), writes=tuple(self._write(w, number + 1) for w in step.writes))

    def _unturned(self, term: Transition, chain: list[Generator], after: Frame, before: Frame) -> list[Generator]:
        """rot(-after) g_1 ... g_n rot(before) without rotations: of what stands between outer products only their frames are left."""
        frame, found = after, []
        places = [i for i, g in enumerate(chain) if g.kind == "rank_one"]
        for i, generator in enumerate(chain):
            if generator.kind == "rotation":
                frame = _sum(frame, _negative(generator.column))
            elif generator.kind == "rank_one":
                later = next((p for p in places if p > i), len(chain))
                behind = _sum(*(g.column for g in chain[i + 1 : later] if g.kind == "rotation"))
                column = _turn(generator.column, _negative(frame))
                frame = behind if later < len(chain) else _sum(before, behind)
                found.append(Generator("rank_one", column, _turn(generator.row, _negative(frame))))
            elif frame is None or (generator.kind == "diagonal" and self._is_paired(generator.column)):
                found.append(generator)
            elif generator.kind == "diagonal":
                raise _Refused(_unequal(generator.column, term.span))
            else:
                raise _Refused(self._several(term.target, "it is mixed by a matrix that is no outer product"))
        if _sum(frame, _negative(before)) is not None:
            raise _Refused(self._several(term.target, f"`{term.source}`, which feeds it, turns by another angle"))
        return found

    def _write(self, write: Write, number: int) -> Write:
        """A write is turned by the frame after its micro-step: its key on the left, its value on the right."""
        columns = {}
        for side, column in ((LEFT, write.key), (RIGHT, write.value)):
            frame = self.frames[write.target, side][number]
            if frame is not None and column is None:
                raise _Refused(self._several(write.target, "it is written as a whole"))
            columns[side] = column if frame is None else _turn(column, _negative(frame))
        return replace(write, key=columns[LEFT], value=columns[RIGHT])

    def _frame(self, read: Read, side: str) -> Frame:
        return self.frames[read.state, side][-1 if read.primed else 0]

    def _read(self, read: Read) -> Read:
        frame = self._frame(read, RIGHT if read.side == "value" else LEFT)
        if frame is None or read.query is None:
            return read
        return replace(read, query=_turn(read.query, _negative(frame)))

    def _frame_of_result(self, read: Read) -> Frame:
        """The frame in which a read gives its result."""
        if read.side == "whole" and not self.spec.state(read.state).type.is_column:
            if self._frame(read, LEFT) is not None or self._frame(read, RIGHT) is not None:
                raise _Refused(self._several(read.state, "it is read as a whole"))
        return self._frame(read, RIGHT if read.side == "key" else LEFT)

    # --- what holds of values ---

    def _is_paired(self, column: Expr) -> bool:
        """Whether both members of every pair hold one value: built from `pairs(...)` and scalars alone."""
        if column.type.is_scalar or isinstance(column, Const) or (isinstance(column, Apply) and column.function == "pairs"):
            return True
        if isinstance(column, Ref):
            return column.name in self.definitions and self._is_paired(self.definitions[column.name])
        if isinstance(column, Apply) and column.function == "rope":
            return False
        return bool(children(column)) and all(self._is_paired(operand) for operand in children(column))

    def _per(self, expr: Expr) -> str:
        """What has an angle of its own: a head, unless all that it is made of is a group's or a layer's."""
        symbols, levels, waiting = {s.name: s for s in self.spec.symbols}, {"layer"}, [expr]
        while waiting:
            for node in nodes(waiting.pop()):
                if isinstance(node, Delayed):
                    levels.add(previous_input(symbols[node.name]).per)
                elif isinstance(node, Ref) and node.name in self.definitions:
                    waiting.append(self.definitions[node.name])
                elif isinstance(node, Ref) and (node.name in symbols or node.name in ("head", "channel")):
                    levels.add(symbols[node.name].per if node.name in symbols else node.name)
        return next(level for level in ("channel", "head", "group", "layer") if level in levels)

    # --- problems ---

    def _several(self, state: str, fact: str) -> Problem:
        return Problem(
            f"no package for `{self.spec.name}`: `{state}` turns, and {fact}",
            self.spec.state(state).span,
            "does not turn as one",
            "a chunk sees the state in a frame that turns along, which exists where every part of a state turns by one angle",
            "let one rotation act on all that is left of the state, as in `S' = rot(theta) (a * S) + k v^T`",
        )


def _complex_entries(recurrence: Recurrence, state: State) -> Problem:
    return Problem(
        f"no package for `{recurrence.spec.name}`: the entries of `{state.name}` are complex numbers",
        state.span,
        "complex entries",
        "a chunk carries a complex state as pairs of real rows that turn, with real keys and queries",
        f"count real rows and say which of them turn: `{state.name} : complex [N, P], rotates first N rows`",
    )


def _unequal(decay: Expr, term: Span) -> Problem:
    pairs = half(decay.type.rows)
    return Problem(
        "the decay differs inside a pair that turns",
        term if decay.span == NOWHERE else decay.span,
        "this decay is given row by row",
        "a rotation commutes with the decay only when both members of a pair share it",
        f"give one factor a pair, `diag(pairs(a))` with `a : [{pairs}]`, or one factor for all rows, `a * S` with `a : scalar`",
        slug="rotation-unequal-decay",
    )


# --- steps -------------------------------------------------------------------------------------------------------


def _single_steps(recurrence: Recurrence) -> list[MicroStep]:
    """Micro-steps one by one; what the token before wrote enters in one of its own, which leaves the states as they are."""
    sizes, found = sizes_of(recurrence.spec), []
    for step in recurrence.steps:
        for number in range(1, (1 if step.count is None else int(step.count.value(sizes))) + 1):
            own = _at(step, number, sizes)
            taps = tuple(w for w in own.writes if w.tap)
            if taps:
                before = lambda expr: None if expr is None else previous_value(expr, recurrence)  # noqa: E731
                entering = tuple(replace(w, key=before(w.key), value=before(w.value), tap=0) for w in taps)
                kept = tuple(Transition(s.name, s.name, algebra.UNIT, span=s.span) for s in recurrence.spec.states)
                found.append(MicroStep(kept, entering))
            found.append(replace(own, writes=tuple(w for w in own.writes if not w.tap)))
    return found


def _at(step: MicroStep, number: int, sizes: dict[str, int]) -> MicroStep:
    if step.index is None and step.count is None:
        return step
    at = lambda expr: unrolled(expr, step.index, number, sizes)  # noqa: E731
    transitions = tuple(rewritten(t, at) for t in step.transitions)
    writes = tuple(replace(w, coefficient=at(w.coefficient), key=at(w.key), value=at(w.value)) for w in step.writes)
    return MicroStep(transitions, writes)


def _chain(term: Transition, side: str) -> list[Generator]:
    """The maps of a term as they act on a column: those on the right transposed."""
    return list(term.left) if side == LEFT else _mirrored(term.right)


def _mirrored(chain) -> list[Generator]:
    """The transpose of a product of maps."""
    return [transposed(g) for g in reversed(chain)]


# --- angles ------------------------------------------------------------------------------------------------------


def _sum(*angles: Frame) -> Frame:
    terms = [a for a in angles if a is not None]
    total = algebra.add(*terms) if terms else None
    return None if total is None or algebra.is_zero(total) else total


def _negative(angle: Frame) -> Frame:
    if angle is None:
        return None
    return algebra.add(*(algebra.neg(t) for t in (angle.terms if isinstance(angle, Add) else (angle,))))


def _turn(column: Expr, angle: Frame) -> Expr:
    """rot(angle) column, with a rotation that stands there already taken in."""
    scalar, column = algebra.split_scalar(column)
    if isinstance(column, MatMul) and isinstance(column.left, Rot):
        return algebra.mul(scalar, _turn(column.right, _sum(angle, column.left.operand)))
    if angle is None:
        return algebra.mul(scalar, column)
    rows = column.type.cols if column.type.is_row else column.type.rows
    return algebra.mul(scalar, algebra.matmul(Rot(Type(rows, rows), NOWHERE, angle), column))
