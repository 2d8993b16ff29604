"""plan -> chunk programs: the walk and its gradient, for every walk.

One form carries every axis. A token contributes one or more rows; row i reads with its erase key e_i what is stored, and
writes with its key k_i what is missing from its value v_i. With S the state that enters the chunk, G the running sum of log
decays, Gx that sum up to the row before, and everything on keys:

    J_ij = <e_i exp(Gx_i - G_j), k_j>     for rows j before i         what the rows of a chunk erase of each other
    W    = (1 + J)^-1 (e exp(Gx))                                     what they read of S
    w    = (1 + J)^-1 v - W S                                         what they really write
    A_ij = <q_i exp(G_i - G_j), k_j>      for rows j that i sees
    o    = A w + (q exp(G)) S
    S   <- exp(G_C) S + (k exp(G_C - G))^T w

An exclusive read takes Gx and strictly earlier rows. A query u of the value columns is held against w instead of k,
o = sum_j <u_i, w_j> exp(G_i - G_j) k_j + exp(G_i) S u_i. Without erase keys w = v; a decay by one factor comes out of the inner
products. A correction that reads the decayed state is this one with the decay in its erase key. Gradients are not
derived here: `reverse` differentiates the program.
"""

from __future__ import annotations

from dataclasses import replace

from .features import values
from .identities.member_program import forward_program
from .kernel import (
    KEY,
    ROW,
    TOKEN,
    VALUE,
    AsSource,
    Carry,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    First,
    Kernels,
    Minus,
    Node,
    Pick,
    Plus,
    Sight,
    Solve,
    Step,
    Sum,
    Tile,
    Times,
    WalkKernels,
)
from .lower_scan import lower_scan
from .plan import Plan, Reading, Walk
from .reverse import gradient
from .torch_form.dense import apart, core_of


def lower(plan: Plan) -> Kernels:
    """Compose the chunk programs of every walk from its axes' laws, or write out a token of the scan."""
    if plan.form == "scan":
        plan = replace(plan, classified=core_of(plan.classified))
        return Kernels(plan, (), lower_scan(plan))
    plan = replace(plan, classified=apart(plan.classified))
    return Kernels(plan, tuple(_members(walk) if walk.members else _Builder(walk).kernels() for walk in plan.classified.walks))


def _members(walk: Walk) -> WalkKernels:
    """The programs of states that feed each other."""
    forward = forward_program(walk)
    return WalkKernels(walk, forward, gradient(forward, "the transposes of what the members keep and take, from the right"))


class _Builder:
    """Tiles and steps of one walk."""

    def __init__(self, walk: Walk):
        self.walk = walk
        self.law = _law(walk.decay)
        self.has_decay = walk.log_decay is not None
        self.rows, self.size = len(walk.rows), walk.size
        self.token = TOKEN if self.rows > 1 else ROW
        wide = (KEY,) if self.law.IS_WIDE else ()
        self.wide = wide
        self.k, self.v, self.e = Tile("k", (ROW, KEY)), Tile("v", (ROW, VALUE)), Tile("e", (ROW, KEY))
        self.g, self.G, self.Gx = (Tile(name, (ROW, *wide)) for name in ("g", "G", "Gx"))
        self.S, self.X, self.a = Tile("S", (KEY, VALUE)), Tile("X", (KEY, VALUE)), Tile("a", wide)
        self.steps: list[Step] = []

    def kernels(self) -> WalkKernels:
        forward = self.forward()
        return WalkKernels(self.walk, forward, gradient(forward, self._adjoint()))

    # --- names: one reading keeps the bare letter, several are numbered ---

    def _tile(self, letter: str, reading: Reading, *axes: str) -> Tile:
        return Tile(letter + reading.name[1:], axes)

    def _q(self, r: Reading) -> Tile:
        return self._tile("q", r, self.token, VALUE if r.is_value else KEY)

    def _later(self, r: Reading) -> Tile:
        """The running sum at which a reading stands."""
        letter = ("G" if r.is_inclusive else "Gx") + ("t" if self.rows > 1 else "")
        return Tile(letter, (self.token, *self.wide))

    # --- programs ---

    def forward(self) -> ChunkProgram:
        self._sums()
        K, written, write, read = self._writes()
        outputs = [self._recall(r, written) if r.is_value else self._read(r, written) for r in self.walk.readings]
        kept: Node = Times(self.a, self.S) if self.has_decay else self.S
        text = f"S = {'a ' if self.has_decay else ''}S + X" + (" - sum_i K_i W_i^T S" if write else "")
        text = text if self.has_decay else text.replace("K_i", "k_i")
        carry = Carry(self.S, self.a if self.has_decay else None, self.X, text, write, read)
        inputs = [*(self._q(r) for r in self.walk.readings), self.k, self.v]
        inputs += [self.e] * self.walk.has_erase + [self.g] * self.has_decay
        leaving = Plus(kept, Contract(K, written, (KEY, VALUE)))
        return ChunkProgram("forward", self._title(), tuple(inputs), tuple(self.steps), (carry,), tuple(outputs), leaving)

    def _step(self, math: str, target: Tile, value: Node) -> Tile:
        """Add a step, once."""
        if target not in [s.target for s in self.steps]:
            self.steps.append(Step(math, target, value))
        return target

    def _sums(self) -> None:
        if not self.has_decay:
            return
        own = self.g
        if self.size > 1:
            own = self._step(f"f_i = g_i at the first of the {self.size} rows of a step", Tile("f", self.g.axes), First(self.g, self.size))
        self._step(f"G_i = {own.name}_1 + ... + {own.name}_i within the chunk", self.G, CumSum(own))
        exclusive = [r for r in self.walk.readings if not r.is_inclusive]
        if exclusive or self.walk.has_erase:
            before = "row" if self.rows > 1 else "token"
            self._step(f"Gx_i = G_{{i-1}}: up to the {before} before", self.Gx, Minus(self.G, self.g))
        if self.rows > 1:
            for r in self.walk.readings:
                if r.is_inclusive:
                    self._step("Gt_t = G at the last row of token t", self._later(r), Pick(self.G, self.rows, self.rows - 1))
                else:
                    self._step("Gxt_t = Gx at the first row of token t", self._later(r), Pick(self.Gx, self.rows, 0))
        total = self._step("z = G_C, over the whole chunk", Tile("z", self.wide), Sum(own, self.wide))
        self._step("a = exp(z)", self.a, Exp(total))

    def _writes(self) -> tuple[Tile, Tile, Tile | None, Tile | None]:
        """(keys at the chunk's end, what is written, and for the carry what erases and what is read)."""
        K = self.k
        if self.has_decay:
            exit = self._step(
                "R_i = exp(G_C - G_i): left at the chunk's end of what row i writes",
                Tile("R", self.G.axes),
                Exp(Minus(Tile("z", self.wide), self.G)),
            )
            K = self._step("K_i = R_i k_i", Tile("K", self.k.axes), Times(exit, self.k))
        if not self.walk.has_erase:
            self._step(f"X = sum_j {K.name}_j v_j^T", self.X, Contract(K, self.v, (KEY, VALUE)))
            return K, self.v, None, None
        sight = Sight(True, self.size, self.size)
        J = self._pair(Tile("J", (ROW, "j")), self.e, self.Gx, sight, "what row i reads with e_i of what row j writes")
        E = self._entering(self.Gx, self.e, "E")
        W = self._step(f"W = (1 + J)^-1 {E.name}: what the rows read of the state that enters", Tile("W", self.e.axes), Solve(J, E))
        U = self._step("U = (1 + J)^-1 v: what they write if it is zero", Tile("U", self.v.axes), Solve(J, self.v))
        self._step(f"X = sum_j {K.name}_j U_j^T", self.X, Contract(K, U, (KEY, VALUE)))
        w = self._step("w_i = U_i - W_i^T S: what row i writes", Tile("w", self.v.axes), Minus(U, Contract(W, self.S, (ROW, VALUE))))
        return K, w, K, W

    def _read(self, r: Reading, written: Tile) -> Tile:
        q, later = self._q(r), self._later(r)
        sight = Sight(not r.is_inclusive, 1, self.rows)
        A = self._pair(self._tile("A", r, self.token, "j"), q, later, sight, "")
        Q = self._entering(later, q, f"Q{r.name[1:]}")
        inside = Contract(A, AsSource(written), (self.token, VALUE))
        math = f"o = sum_j {A.name}_{self.token}j {written.name}_j + {Q.name}_{self.token}^T S"
        return self._step(math, Tile(r.name, (self.token, VALUE)), Plus(inside, Contract(Q, self.S, (self.token, VALUE))))

    def _recall(self, r: Reading, written: Tile) -> Tile:
        """A query of the value columns meets what the rows write as a query of the keys meets the keys."""
        u, later = self._q(r), self._later(r)
        sight = Sight(not r.is_inclusive, 1, self.rows)
        inside = self._tile("I", r, self.token, KEY)
        for step in self.law.recall(inside, u, written, self.k, later, self.G, sight):
            self._step(step.math, step.target, step.value)
        entering: Node = Contract(u, self.S, (self.token, KEY))
        text = f"S {u.name}_{self.token}"
        if self.has_decay:
            factor = self._left(later)
            entering, text = Times(factor, entering), f"{factor.name}_{self.token} {text}"
        return self._step(f"{r.name} = {inside.name} + {text}", Tile(r.name, (self.token, KEY)), Plus(inside, entering))

    def _pair(self, target: Tile, left: Tile, later: Tile, sight: Sight, words: str) -> Tile:
        """Visible products of left_i and k_j, faded from j to i."""
        for step in self.law.pair(target, left, self.k, later, self.G, sight):
            self._step(step.math + (f": {words}" if words and step.target == target else ""), step.target, step.value)
        return target

    def _entering(self, later: Tile, left: Tile, name: str) -> Tile:
        """`left` times what is left at its rows of the state that enters."""
        if not self.has_decay:
            return left
        row, factor = left.axes[0], self._left(later)
        return self._step(f"{name}_{row} = {factor.name}_{row} {left.name}_{row}", Tile(name, left.axes), Times(factor, left))

    def _left(self, later: Tile) -> Tile:
        """What is left at a row of the state that enters."""
        row, factor = later.axes[0], Tile("L" + later.name[1:], later.axes)
        return self._step(f"{factor.name}_{row} = exp({later.name}_{row}): left at row {row} of the state that enters", factor, Exp(later))

    # --- titles ---

    def _title(self) -> str:
        decay = "" if not self.has_decay else "diag(exp(g_t)) " if self.wide else "exp(g_t) "
        write = "k_t (v_t - S_{t-1}^T e_t)^T" if self.walk.has_erase else "k_t v_t^T"
        reads = {r.is_inclusive for r in self.walk.readings}
        state = "S_t" if reads == {True} else "S_{t-1}"
        read = f"{state} q_t" if {r.is_value for r in self.walk.readings} == {True} else f"q_t^T {state}"
        rows = f",   {self.rows} rows a token" if self.rows > 1 else ""
        return f"S_t = {decay}S_{{t-1}} + {write},   o_t = {read}{rows}"

    def _adjoint(self) -> str:
        decay = "" if not self.has_decay else "diag(exp(g_{t+1})) " if self.wide else "exp(g_{t+1}) "
        erase = " - e_{t+1} (k_{t+1}^T dS_{t+1})" if self.walk.has_erase else ""
        return f"dS_t = {decay}dS_{{t+1}}{erase} + q_t do_t^T, read by k_t and v_t: the walk from the right"


def _law(name: str):
    """The module of a decay: `IS_WIDE` and `pair`."""
    from importlib import import_module

    assert values("decay")[name].is_lowered
    return import_module(f"ssmgen.features.decay.{name}")
