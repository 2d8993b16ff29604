"""The chunk program of states that feed each other: members of one walk, as a memory and its momentum.

With T_ab(i, j) what member a has at row i of what row j wrote to member b, s the shares of the row and R the member that the
erase key reads, the form of `lower` stands as it is, with sums of these numbers in the place of one decay:

    T_aa(i, j) = exp(Ga_i - Ga_j)                                    G the running sum of a member's log decays
    T_ab(i, j) = sum_u exp(Ga_i - Ga_u) c_u Tx_xb(u, j)              over members x that a takes c of; Tx up to the row before
    J_ij = sum_b Tx_Rb(i, j) s_b,j <e_i, k_j>
    o_i  = sum_j sum_b T_ab(i, j) s_b,j <q_i, k_j> w_j + sum_b V_ab(i) S_b^T q_i

V_ab(i) is T_ab(i, j) for the state that enters. Members take over in an order, so the sums end.
"""

from __future__ import annotations

from ..kernel import (
    KEY,
    MEMBER,
    ROW,
    SOURCE,
    VALUE,
    AsRow,
    AsSource,
    Carry,
    Causal,
    ChunkProgram,
    Contract,
    CumSum,
    Exp,
    Minus,
    Node,
    Part,
    Plus,
    Sight,
    Solve,
    Stack,
    Step,
    Sum,
    Through,
    Tile,
    Times,
)
from ..plan import Reading, Walk

PAIRS = (ROW, SOURCE)


def forward_program(walk: Walk) -> ChunkProgram:
    """The forward program of a walk with members."""
    return _Members(walk).program()


class _Members:
    def __init__(self, walk: Walk):
        self.walk = walk
        self.count = len(walk.members)
        self.k, self.v, self.e = Tile("k", (ROW, KEY)), Tile("v", (ROW, VALUE)), Tile("e", (ROW, KEY))
        self.S = Tile("S", (MEMBER, KEY, VALUE))
        self.row = walk.rows[0]
        self.steps: list[Step] = []
        self.known: dict[str, Tile | None] = {}

    def program(self) -> ChunkProgram:
        w, W = self._written()
        outputs = [self._read(r, w) for r in self.walk.readings]
        keys = [self._left(a) for a in range(self.count)]
        mix = tuple(tuple(self._kept(a, b) for b in range(self.count)) for a in range(self.count))
        if W is None:
            U, read, write = self.v, None, None
        else:
            U = Tile("U", (ROW, VALUE))
            read = self._step("the same, of all members", Tile("W", (ROW, MEMBER, KEY)), Stack(tuple(W)))
            write = self._step("K: keys at the chunk's end, of all members", Tile("K", (ROW, MEMBER, KEY)), Stack(tuple(keys)))
        X = [None if key is None else Contract(key, U, (KEY, VALUE)) for key in keys]
        increment = self._step("X_a = sum_j K_aj U_j^T", Tile("X", (MEMBER, KEY, VALUE)), Stack(tuple(X)))
        leaving = tuple(self._leaving(a, mix[a], keys[a], w) for a in range(self.count))
        text = "S_a = sum_b F_ab S_b + X_a" + (" - sum_i K_ai sum_b W_bi^T S_b" if W else "")
        carry = Carry(self.S, None, increment, text, write, read, mix=mix)
        numbers = [Tile(name, (ROW,)) for name, _ in self.walk.numbers]
        inputs = [*(self._q(r) for r in self.walk.readings), self.k, self.v, *([self.e] * self.walk.has_erase), *numbers]
        return ChunkProgram("forward", self._title(), tuple(inputs), tuple(self.steps), (carry,), tuple(outputs), Stack(leaving))

    # --- names ---

    def _step(self, math: str, target: Tile, value: Node) -> Tile:
        if target not in [s.target for s in self.steps]:
            self.steps.append(Step(math, target, value))
        return target

    @staticmethod
    def _q(r: Reading) -> Tile:
        return Tile(f"q{r.name[1:]}", (ROW, KEY))

    def _share(self, a: int) -> Tile | None:
        return None if self.walk.members[a].share is None else Tile(f"s{a}", (ROW,))

    def _sum(self, a: int, is_before: bool) -> Tile:
        """The running sum of a member's log decays, up to the row or up to the row before."""
        g, G = Tile(f"g{a}", (ROW,)), Tile(f"G{a}", (ROW,))
        self._step(f"G{a}_i = g{a}_1 + ... + g{a}_i within the chunk", G, CumSum(g))
        if not is_before:
            return G
        return self._step(f"Gx{a}_i = G{a}_{{i-1}}: up to the row before", Tile(f"Gx{a}", (ROW,)), Minus(G, g))

    # --- numbers between rows ---

    def _named(self, name: str, axes: tuple[str, ...], math: str, value: Node | None) -> Tile | None:
        """A step of that name, once; None where there is nothing."""
        if name not in self.known:
            self.known[name] = None if value is None else self._step(math, Tile(name, axes), value)
        return self.known[name]

    def _added(self, parts: list[Node]) -> Node | None:
        total = None
        for part in parts:
            total = part if total is None else Plus(total, part)
        return total

    def _own(self, a: int, is_before: bool) -> Tile:
        """exp(Ga_i - Ga_j) of visible sources."""
        x, later = "x" * is_before, self._sum(a, is_before)
        exponent = Causal(Minus(later, AsSource(self._sum(a, False))), Sight(is_before), "-inf")
        return self._named(f"D{x}{a}", PAIRS, f"D{x}{a}_ij = exp({later.name}_i - G{a}_j), j {'<' if is_before else '<='} i", Exp(exponent))

    def _taken(self, a: int, b: int, is_before: bool) -> Tile:
        """What member a has at row i of what it took over of member b at row j."""
        name = f"D{'x' * is_before}{a}"
        value = Times(self._own(a, is_before), AsSource(Tile(f"c{a}{b}", (ROW,))))
        return self._named(f"{name}{b}c", PAIRS, f"{name}{b}c_ij = {name}_ij c{a}{b}_j", value)

    def _between(self, a: int, b: int, is_before: bool) -> Tile | None:
        """T_ab, or Tx_ab."""
        if a == b:
            return self._own(a, is_before)
        name = f"T{'x' * is_before}{a}{b}"
        if name in self.known:
            return self.known[name]
        taken = [(self._taken(a, x, is_before), self._between(x, b, True)) for x, _ in self.walk.members[a].takes]
        parts = [Through(left, right) for left, right in taken if right is not None]
        math = f"{name} = what member {a} has of what was written to member {b}"
        return self._named(name, PAIRS, math, self._added(parts))

    def _entering(self, a: int, b: int, is_before: bool) -> Tile | None:
        """V_ab, or Vx_ab: what member a has at row i of member b as it entered."""
        x = "x" * is_before
        if a == b:
            return self._named(f"V{x}{a}{a}", (ROW,), f"V{x}{a}{a}_i = exp(G{x}{a}_i)", Exp(self._sum(a, is_before)))
        name = f"V{x}{a}{b}"
        if name in self.known:
            return self.known[name]
        taken = [(self._taken(a, c, is_before), self._entering(c, b, True)) for c, _ in self.walk.members[a].takes]
        parts = [Contract(left, AsSource(right), (ROW,)) for left, right in taken if right is not None]
        return self._named(name, (ROW,), f"{name}_i = what member {a} has of member {b} as it entered", self._added(parts))

    def _weights(self, a: int, is_before: bool) -> Tile | None:
        """What member a has at row i of one row j, its shares added up."""
        found = [(self._between(a, b, is_before), self._share(b)) for b in range(self.count)]
        parts = [Times(pair, AsSource(share)) for pair, share in found if pair is not None and share is not None]
        name = f"f{'x' * is_before}{a}"
        return self._named(name, PAIRS, f"{name}_ij = what member {a} has at row i of row j", self._added(parts))

    def _exit(self, a: int) -> Tile:
        """exp(z - Ga_j): what is left at the chunk's end."""
        z = self._named(f"z{a}", (), f"z{a} = G{a}_C, over the whole chunk", Sum(Tile(f"g{a}", (ROW,)), ()))
        return self._named(f"R{a}", (ROW,), f"R{a}_i = exp(z{a} - G{a}_i): left at the chunk's end", Exp(Minus(z, self._sum(a, False))))

    def _passed(self, a: int, c: int) -> Tile:
        """What is left at the chunk's end of what member a took over of member c at row i."""
        value = Times(self._exit(a), Tile(f"c{a}{c}", (ROW,)))
        return self._named(f"R{a}{c}c", (ROW,), f"R{a}{c}c_i = R{a}_i c{a}{c}_i", value)

    def _left(self, a: int) -> Tile | None:
        """K_a: the keys as member a has them at the chunk's end."""
        parts = []
        for b in range(self.count):
            share = self._share(b)
            if share is None:
                continue
            if a == b:
                parts.append(Times(self._exit(a), share))
                continue
            for c, _ in self.walk.members[a].takes:
                between = self._between(c, b, True)
                if between is not None:
                    reached = AsRow(Contract(self._passed(a, c), between, (SOURCE,)))
                    name = f"R{a}{c}{b}"
                    math = f"{name}_j = what member {a} has at the chunk's end, by way of {c}, of what row j writes to {b}"
                    parts.append(Times(self._named(name, (ROW,), math, reached), share))
        total = self._added(parts)
        if total is None:
            return None
        left = self._named(f"r{a}", (ROW,), f"r{a}_j = what member {a} has of row j at the chunk's end", total)
        return self._named(f"K{a}", (ROW, KEY), f"K{a}_j = r{a}_j k_j", Times(left, self.k))

    def _kept(self, a: int, b: int) -> Tile | None:
        """F_ab: what member a has at the chunk's end of member b as it entered."""
        self._exit(a)
        if a == b:
            return self._named(f"F{a}{a}", (), f"F{a}{a} = exp(z{a})", Exp(Tile(f"z{a}", ())))
        taken = [(self._passed(a, c), self._entering(c, b, True)) for c, _ in self.walk.members[a].takes]
        parts = [Contract(left, right, ()) for left, right in taken if right is not None]
        return self._named(f"F{a}{b}", (), f"F{a}{b} = what member {a} keeps of member {b}", self._added(parts))

    # --- rows and states ---

    def _written(self) -> tuple[Tile, list[Tile | None] | None]:
        """What the rows write, and what they read of each member as it enters."""
        if not self.walk.has_erase:
            return self.v, None
        R = self.row.erases
        weights = self._weights(R, True)
        products = self._step("PJ_ij = e_i . k_j", Tile("PJ", PAIRS), Contract(self.e, AsSource(self.k), PAIRS))
        if weights is None:
            zero = Causal(Minus(products, products), Sight(True), "0")
            J = self._step("J = 0: nothing of the rows reaches what they read", Tile("J", PAIRS), zero)
        else:
            value = Causal(Times(weights, products), Sight(True), "0")
            J = self._step("J_ij = fx_ij PJ_ij: what row i reads of what row j writes", Tile("J", PAIRS), value)
        U = self._step("U = (1 + J)^-1 v: what they write if the states are zero", Tile("U", (ROW, VALUE)), Solve(J, self.v))
        W: list[Tile | None] = []
        for b in range(self.count):
            entering = self._entering(R, b, True)
            if entering is None:
                W.append(None)
                continue
            E = self._step(f"E{b}_i = {entering.name}_i e_i", Tile(f"E{b}", (ROW, KEY)), Times(entering, self.e))
            W.append(self._step(f"W{b} = (1 + J)^-1 E{b}: what they read of member {b}", Tile(f"W{b}", (ROW, KEY)), Solve(J, E)))
        value: Node = U
        for b, read in enumerate(W):
            if read is not None:
                value = Minus(value, Contract(read, Part(self.S, b, self.count), (ROW, VALUE)))
        return self._step("w_i = U_i - sum_b W_bi^T S_b: what row i writes", Tile("w", (ROW, VALUE)), value), W

    def _read(self, r: Reading, w: Tile) -> Tile:
        q, a, x = self._q(r), r.member, not r.is_inclusive
        parts: list[Node] = []
        weights, name = self._weights(a, x), r.name[1:]
        if weights is not None:
            products = self._step(f"P{name}_ij = {q.name}_i . k_j", Tile(f"PA{name}", PAIRS), Contract(q, AsSource(self.k), PAIRS))
            A = self._step(f"A{name}_ij = {weights.name}_ij P{name}_ij", Tile(f"A{name}", PAIRS), Times(weights, products))
            parts.append(Contract(A, AsSource(w), (ROW, VALUE)))
        for b in range(self.count):
            entering = self._entering(a, b, x)
            if entering is not None:
                Q = self._step(f"Q{b}{name}_i = {entering.name}_i {q.name}_i", Tile(f"Q{b}_{name}", (ROW, KEY)), Times(entering, q))
                parts.append(Contract(Q, Part(self.S, b, self.count), (ROW, VALUE)))
        return self._step(f"{r.name} = sum_j A{name}_ij w_j + sum_b Q{b}_i^T S_b", Tile(r.name, (ROW, VALUE)), self._added(parts))

    def _leaving(self, a: int, mix: tuple[Tile | None, ...], key: Tile | None, w: Tile) -> Node:
        parts: list[Node] = [Times(f, Part(self.S, b, self.count)) for b, f in enumerate(mix) if f is not None]
        if key is not None:
            parts.append(Contract(key, w, (KEY, VALUE)))
        return self._added(parts)

    def _title(self) -> str:
        write = "s_a k_t (v_t - R_{t-1}^T e_t)^T" if self.walk.has_erase else "s_a k_t v_t^T"
        return f"S_a,t = exp(g_a,t) S_a,t-1 + sum_b c_ab,t S_b,t-1 + {write}, {self.count} members"
