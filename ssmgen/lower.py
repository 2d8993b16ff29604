"""plan -> chunk programs: one forward, three backward, for every walk.

Backward is not differentiated by rule: it is the adjoint recurrence, dS_t = a_{t+1} dS_{t+1} + q_t do_t^T, walked by the
same laws with the roles exchanged. With M_ij the visible weights exp(G_i - G_j):

    o_i  = sum_j M_ij (q_i . k_j)  v_j  + exp(G_i)       q_i^T S      forward,   S entering from the left
    dq_i = sum_j M_ij (do_i . v_j) k_j  + exp(G_i)       S do_i       forward,   S again
    dk_j = sum_i M_ij (do_i . v_j) q_i  + exp(G_C - G_j) D v_j        backward,  D = dS entering from the right
    dv_j = sum_i M_ij (q_i . k_j)  do_i + exp(G_C - G_j) D^T k_j      backward
    dg   = suffix sums of q.dq - k.dk, plus <S_T, dS_T> at the end

An exclusive read takes G_i - g_i where an inclusive one takes G_i, and strictly earlier sources.
"""

from __future__ import annotations

from .features import values
from .kernel import (
    KEY,
    ROW,
    SOURCE,
    VALUE,
    AsSource,
    Carry,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Kernels,
    Last,
    Minus,
    Node,
    Plus,
    Step,
    Tile,
    Times,
    WalkKernels,
)  # fmt: skip
from .plan import Plan, Reading, Walk


def lower(plan: Plan) -> Kernels:
    """Compose the chunk programs of every walk from its axes' laws."""
    return Kernels(plan, tuple(_Builder(walk).kernels() for walk in plan.classified.walks))


class _Builder:
    """Tiles and laws of one walk, from which each program takes what it needs."""

    def __init__(self, walk: Walk):
        self.walk = walk
        self.law = _law(walk.decay)
        self.has_decay = walk.log_decay is not None
        self.k, self.v = Tile("k", (ROW, KEY)), Tile("v", (ROW, VALUE))
        self.g, self.G = Tile("g", (ROW,)), Tile("G", (ROW,))
        self.S, self.D = Tile("S", (KEY, VALUE)), Tile("D", (KEY, VALUE))
        self.X, self.a = Tile("X", (KEY, VALUE)), Tile("a", ())

    # names: one reading keeps the bare letter, several are numbered
    def _tile(self, letter: str, reading: Reading, axes: tuple[str, ...]) -> Tile:
        return Tile(letter + reading.name[1:], axes)

    def _q(self, r: Reading) -> Tile:
        return self._tile("q", r, (ROW, KEY))

    def _o(self, r: Reading) -> Tile:
        return Tile(r.name, (ROW, VALUE))

    def _do(self, r: Reading) -> Tile:
        return self._tile("do", r, (ROW, VALUE))

    def _later(self, r: Reading) -> Tile:
        """The running sum at which a reading's rows stand."""
        return self.G if r.is_inclusive or not self.has_decay else Tile("Gx", (ROW,))

    def kernels(self) -> WalkKernels:
        return WalkKernels(
            self.walk, self.forward(), self.query_gradient(), self.source_gradient(),
            self.decay_gradient() if self.has_decay else None,
        )  # fmt: skip

    # --- pieces ---

    def _sums(self) -> list[Step]:
        if not self.has_decay:
            return []
        steps = [Step("G_i = g_1 + ... + g_i within the chunk", self.G, CumSum(self.g))]
        if not all(r.is_inclusive for r in self.walk.readings):
            steps.append(Step("Gx_i = G_{i-1}: up to the token before", Tile("Gx", (ROW,)), Minus(self.G, self.g)))
        return steps

    def _total(self) -> list[Step]:
        if not self.has_decay:
            return []
        return [Step("a = exp(G_C)", self.a, Exp(Last(self.G)))]

    def _entering(self) -> list[Step]:
        """What is left at a row of the state that enters from the left."""
        steps = []
        for reading in self._kinds() if self.has_decay else []:
            tile, later = self._left(reading), self._later(reading)
            steps.append(Step(f"{tile.name}_i = exp({later.name}_i): left at row i of the state that enters", tile, self.law.factor(later)))
        return steps

    def _leaving(self) -> list[Step]:
        """What is left at the chunk's end of what a row writes."""
        if not self.has_decay:
            return []
        exponent = Minus(Last(self.G), self.G)
        return [Step("R_i = exp(G_C - G_i): left at the chunk's end of what row i writes", Tile("R", (ROW,)), self.law.factor(exponent))]

    @staticmethod
    def _left(reading: Reading) -> Tile:
        return Tile("L" if reading.is_inclusive else "Lx", (ROW,))

    def _weights(self, is_reverse: bool) -> list[Step]:
        """One tile of weights for inclusive readings and one for exclusive ones, where there are such."""
        steps = []
        for reading in self._kinds():
            value = self.law.weights(self._later(reading), self.G, not reading.is_inclusive, is_reverse)
            if value is not None:
                math = f"{self._weight_tile(reading).name}_ij = {self._weight(reading, is_reverse)}, {self._seen(reading, is_reverse)}"
                steps.append(Step(math, self._weight_tile(reading), value))
        return steps

    def _kinds(self) -> list[Reading]:
        """The first inclusive and the first exclusive reading."""
        found: dict[bool, Reading] = {}
        for reading in self.walk.readings:
            found.setdefault(reading.is_inclusive, reading)
        return list(found.values())

    @staticmethod
    def _weight_tile(reading: Reading) -> Tile:
        return Tile("M" if reading.is_inclusive else "Mx", (ROW, SOURCE))

    def _pair(self, left: Tile, right: Tile, reading: Reading, is_reverse: bool) -> Node:
        """Visible weights times left_i . right_j."""
        product = Contract(left, AsSource(right), (ROW, SOURCE))
        weights = self._weight_tile(reading) if self.has_decay else None
        return self.law.pair(product, weights, not reading.is_inclusive, is_reverse)

    def _pair_math(self, name: str, left: Tile, right: Tile, reading: Reading, is_reverse: bool) -> str:
        product = f"{left.name}_i . {right.name}_j"
        if self.has_decay:
            return f"{name}_ij = {self._weight_tile(reading).name}_ij {product}"
        return f"{name}_ij = {product}, {self._seen(reading, is_reverse)}"

    def _fade(self, value: Node, factor: Tile) -> Node:
        return Times(factor, value) if self.has_decay else value

    def _carry(self, state: Tile) -> Carry:
        factor = self.a if self.has_decay else None
        text = f"{state.name} = {'a ' if self.has_decay else ''}{state.name} + X"
        return Carry(state, factor, self.X, text)

    def _write(self) -> Step:
        math = "X = sum_j R_j k_j v_j^T" if self.has_decay else "X = sum_j k_j v_j^T"
        return Step(math, self.X, Contract(self.k, self._fade(self.v, Tile("R", (ROW,))), (KEY, VALUE)))

    def _inputs(self, *tiles: Tile) -> tuple[Tile, ...]:
        return (*tiles, *((self.g,) if self.has_decay else ()))

    @staticmethod
    def _weight(reading: Reading, is_reverse: bool) -> str:
        later = "G" if reading.is_inclusive else "Gx"
        return f"exp({later}_j - G_i)" if is_reverse else f"exp({later}_i - G_j)"

    def _enter(self, reading: Reading) -> str:
        return f"{self._left(reading).name}_i " if self.has_decay else ""

    @staticmethod
    def _seen(reading: Reading, is_reverse: bool) -> str:
        sign = "<=" if reading.is_inclusive else "<"
        return f"i {sign} j" if is_reverse else f"j {sign} i"

    # --- programs ---

    def forward(self) -> ChunkProgram:
        steps = [*self._sums(), *self._total(), *self._leaving(), self._write(), *self._weights(False), *self._entering()]
        outputs = []
        for r in self.walk.readings:
            weights = self._tile("A", r, (ROW, SOURCE))
            math = self._pair_math(weights.name, self._q(r), self.k, r, False)
            steps.append(Step(math, weights, self._pair(self._q(r), self.k, r, False)))
            inside = Contract(weights, AsSource(self.v), (ROW, VALUE))
            across = self._fade(Contract(self._q(r), self.S, (ROW, VALUE)), self._left(r))
            steps.append(Step(f"o_i = sum_j A_ij v_j + {self._enter(r)}q_i^T S", self._o(r), Plus(inside, across)))
            outputs.append(self._o(r))
        queries = tuple(self._q(r) for r in self.walk.readings)
        title = f"S_t = {'exp(g_t) ' if self.has_decay else ''}S_{{t-1}} + k_t v_t^T,   o_t = q_t^T S_t"
        if not all(r.is_inclusive for r in self.walk.readings):
            title = title.replace("q_t^T S_t", "q_t^T S_{t-1}")
        return ChunkProgram(
            "forward", title, False, self._inputs(*queries, self.k, self.v), tuple(steps), self._carry(self.S), tuple(outputs)
        )

    def query_gradient(self) -> ChunkProgram:
        steps = [*self._sums(), *self._total(), *self._leaving(), self._write(), *self._weights(False), *self._entering()]
        outputs = []
        for r in self.walk.readings:
            weights, dq = self._tile("B", r, (ROW, SOURCE)), self._tile("dq", r, (ROW, KEY))
            math = self._pair_math(weights.name, self._do(r), self.v, r, False)
            steps.append(Step(math, weights, self._pair(self._do(r), self.v, r, False)))
            inside = Contract(weights, AsSource(self.k), (ROW, KEY))
            across = self._fade(Contract(self._do(r), self.S, (ROW, KEY)), self._left(r))
            steps.append(Step(f"dq_i = sum_j B_ij k_j + {self._enter(r)}S do_i", dq, Plus(inside, across)))
            outputs.append(dq)
        gradients = tuple(self._do(r) for r in self.walk.readings)
        title = "dq_t = S_t do_t, the forward walk once more with its state read from the other side"
        return ChunkProgram(
            "query_gradient", title, False, self._inputs(self.k, self.v, *gradients), tuple(steps), self._carry(self.S), tuple(outputs)
        )

    def source_gradient(self) -> ChunkProgram:
        steps = [*self._sums(), *self._total(), *self._weights(True), *self._entering(), *self._leaving()]
        increments: list[Node] = []
        dk_parts: list[Node] = []
        dv_parts: list[Node] = []
        for r in self.walk.readings:
            q, do = self._q(r), self._do(r)
            increments.append(Contract(q, self._fade(do, self._left(r)), (KEY, VALUE)))
            to_key, to_value = self._tile("B", r, (ROW, SOURCE)), self._tile("A", r, (ROW, SOURCE))
            steps.append(Step(self._pair_math(to_key.name, self.v, do, r, True), to_key, self._pair(self.v, do, r, True)))
            steps.append(Step(self._pair_math(to_value.name, self.k, q, r, True), to_value, self._pair(self.k, q, r, True)))
            dk_parts.append(Contract(to_key, AsSource(q), (ROW, KEY)))
            dv_parts.append(Contract(to_value, AsSource(do), (ROW, VALUE)))
        steps.append(Step(f"X = sum_i {self._enter(self.walk.readings[0])}q_i do_i^T", self.X, _sum(increments)))
        dk, dv = Tile("dk", (ROW, KEY)), Tile("dv", (ROW, VALUE))
        fade = "R_i " if self.has_decay else ""
        across_key = self._fade(Contract(self.v, self.D, (ROW, KEY)), Tile("R", (ROW,)))
        across_value = self._fade(Contract(self.k, self.D, (ROW, VALUE)), Tile("R", (ROW,)))
        steps.append(Step(f"dk_i = sum_j B_ij q_j + {fade}D v_i", dk, Plus(_sum(dk_parts), across_key)))
        steps.append(Step(f"dv_i = sum_j A_ij do_j + {fade}D^T k_i", dv, Plus(_sum(dv_parts), across_value)))
        inputs = (*(self._q(r) for r in self.walk.readings), self.k, self.v, *(self._do(r) for r in self.walk.readings))
        title = f"dS_t = {'exp(g_{t+1}) ' if self.has_decay else ''}dS_{{t+1}} + q_t do_t^T, read by k_t and v_t: the walk from the right"
        return ChunkProgram("source_gradient", title, True, self._inputs(*inputs), tuple(steps), self._carry(self.D), (dk, dv))

    def decay_gradient(self) -> ChunkProgram:
        k, dk = self.k, Tile("dk", (ROW, KEY))
        inputs, steps = [], []
        moved: Node | None = None
        late: list[Node] = []
        for r in self.walk.readings:
            q, dq = self._q(r), self._tile("dq", r, (ROW, KEY))
            inputs += [q, dq]
            product = Contract(q, dq, (ROW,))
            moved = product if moved is None else Plus(moved, product)
            if not r.is_inclusive:
                late.append(product)
        change = Tile("x", (ROW,))
        steps.append(Step("x_i = q_i . dq_i - k_i . dk_i: how the loss moves with G_i", change, Minus(moved, Contract(k, dk, (ROW,)))))
        total, state, dg = Tile("X", ()), Tile("E", ()), Tile("dg", (ROW,))
        steps.append(Step("X = sum_i x_i", total, Last(CumSum(change))))
        value: Node = Plus(CumSum(change, is_reverse=True), state)
        math = "dg_i = x_i + x_{i+1} + ... to the end of the sequence"
        for product in late:
            value, math = Minus(value, product), "dg_i = x_i + x_{i+1} + ... less q_i . dq_i, whose exponent stops at G_{i-1}"
        steps.append(Step(math, dg, value))
        title = "G_i moves the loss by x_i; every g up to i moves G_i"
        return ChunkProgram("decay_gradient", title, True, (*inputs, k, dk), tuple(steps), Carry(state, None, total, "E = E + X"), (dg,))


def _sum(nodes: list[Node]) -> Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = Plus(total, node)
    return total


def _law(name: str):
    """The module of a decay: `pair` and `fade`."""
    from importlib import import_module

    assert values("decay")[name].is_lowered
    return import_module(f"ssmgen.features.decay.{name}")
