"""The equation of a structure: statements as a user would write them, resolved like any others.

With T the transition (forget and turn, then correct), W the write of one token and c = 1 - lam:

    S' = T (S + c * W[-1]) + lam * W          n' = T (n + c * w[-1]) + lam * w          y = N^-1/2 * S'^T q / max(abs(n'^T q), 1)

Under a running maximum, m' = max(g + m, max(i, 0)), T has the factor exp(m - m'), W the factor exp(i - m'), and the 1 is exp(-m').
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from .. import syntax as s
from ..diagnostics import Label
from ..source import Span
from .declared import Structure
from .scope import Scope, Unresolved


def written_out(node: s.RecurrenceDecl, structure: Structure, scope: Scope) -> s.RecurrenceDecl:
    """The recurrence with inputs, gates, states, update and output added where they are not declared."""
    return _Writer(node, structure, scope).result()


class _Writer:
    def __init__(self, node: s.RecurrenceDecl, structure: Structure, scope: Scope):
        self.node, self.structure, self.scope = node, structure, scope
        self.span: Span = structure.span
        self.added: list[s.Node] = []
        self.taken = {b.name for b in node.body if hasattr(b, "name")}
        states = [b for b in node.body if isinstance(b, s.StateDecl)]
        self.state = states[0].name if states else "S"
        self.N, self.P = self._sizes(states)
        self.rows = structure.rank or structure.steps or structure.mimo
        self.index = "j" if structure.steps else "r"
        self.has_delta = structure.correction == "delta"
        self.is_stabilised = structure.normaliser == "running_max"

    # --- nodes ---

    def name(self, id: str, prime: bool = False) -> s.Node:
        return s.Name(self.span, id, prime)

    def number(self, value: int | Fraction) -> s.Node:
        return s.Number(self.span, Fraction(value))

    def op(self, operator: str, left: s.Node, right: s.Node) -> s.Node:
        return s.Binary(self.span, operator, left, right)

    def times(self, *factors: s.Node) -> s.Node:
        total = factors[0]
        for factor in factors[1:]:
            total = self.op("*", total, factor)
        return total

    def matmul(self, left: s.Node, right: s.Node) -> s.Node:
        return self.op("juxtapose", left, right)

    def transposed(self, operand: s.Node) -> s.Node:
        return s.Transpose(self.span, operand)

    def call(self, function: str, *args: s.Node) -> s.Node:
        return s.Call(self.span, function, args)

    def half(self, size: s.Node) -> s.Node:
        return self.op("/", size, self.number(2))

    def of_row(self, id: str, delayed: bool = False) -> s.Node:
        """`k`, `k[r]`, `k[-1]` or `k[-1][s]`: the rows of the previous token have an index of their own."""
        node = self.name(id)
        if delayed:
            node = s.Subscript(self.span, node, s.Unary(self.span, self.number(1)))
        return s.Subscript(self.span, node, self.name("s" if delayed else self.index)) if self.rows is not None else node

    def over_rows(self, body: s.Node, delayed: bool = False) -> s.Node:
        return body if self.rows is None else s.SumOver(self.span, "s" if delayed else self.index, self.number(1), self.rows, body)

    # --- declarations ---

    def _sizes(self, states: list[s.StateDecl]) -> tuple[s.Node, s.Node]:
        if states and len(states[0].type.shape) == 2:
            return states[0].type.shape
        for size in ("N", "P"):
            if size not in self.scope.sizes:
                self.scope.dims[size] = 64
                self.scope.declared[size] = self.span
            self.scope.used[size] = None
        return s.Name(self.structure.span, "N"), s.Name(self.structure.span, "P")

    def type(self, *shape: s.Node, flags: tuple[str, ...] = (), field: str | None = None, per: str | None = None) -> s.TypeNode:
        return s.TypeNode(self.span, shape, field, per, flags)

    def rowed(self, *shape: s.Node, flags: tuple[str, ...] = ()) -> s.TypeNode:
        return self.type(*((self.rows, *shape) if self.rows is not None else shape), flags=flags)

    def input(self, name: str, type: s.TypeNode) -> None:
        self.add(s.InputDecl(self.span, name, type, None, None, self.span))

    def gate(self, name: str, type: s.TypeNode, low: int | None, high: int, function: str) -> None:
        domain = s.DomainNode(self.span, None if low is None else self.number(low), self.number(high))
        self.add(s.GateDecl(self.span, name, type, domain, self.call(function, self.name("raw")), self.span))

    def param(self, name: str, type: s.TypeNode, value: s.Node | None = None, init: s.Node | None = None) -> None:
        self.add(s.ParamDecl(self.span, name, type, value, init, (), self.span))

    def add(self, statement: s.Node) -> None:
        if statement.name not in self.taken:
            self.added.append(statement)
            self.taken.add(statement.name)
            self.scope.used[statement.name] = None

    # --- the equation ---

    def _check(self) -> None:
        structure = self.structure
        if structure.decay == "elementwise" and structure.normaliser != "none":
            self.scope.report.error(
                "unsupported-combination",
                "an elementwise decay has no normaliser of one column",
                structure.axes["normaliser"][1],
                "one sum of keys for all values",
                secondary=(Label(structure.axes["decay"][1], "every value forgets in its own way"),),
                help="write the equation, with a normaliser `n : real [N, P]`, or `transition diagonal`",
            )
            raise Unresolved

    def result(self) -> s.RecurrenceDecl:
        self._check()
        structure = self.structure
        unit = ("unit",) if self.has_delta else ()
        self.input("q", self.type(*((structure.mimo, self.N) if structure.mimo is not None else (self.N,))))
        self.input("k", self.rowed(self.N, flags=unit))
        self.input("v", self.rowed(self.P))
        self._declare_transition()
        if structure.taps == 2:
            self.gate("lam", self.type(), 0, 1, "sigmoid")
        self._declare_states()
        if structure.readout == "bonus":
            self.param("u", self.type(self.N, per="head"))
        body = [*self.node.body, *self.added, self._update()]
        if not any(isinstance(b, s.Output) for b in self.node.body):
            body.append(self._output())
        return replace(self.node, body=tuple(body))

    def _declare_transition(self) -> None:
        structure = self.structure
        turns = structure.angles != "none"
        forget = {"scalar": (), "diagonal": (self.half(self.N),) if turns else (self.N,), "elementwise": (self.N, self.P)}
        if structure.decay in forget:
            self.gate("g", self.type(*forget[structure.decay]), None, 0, "logsigmoid")
        elif structure.decay == "static":
            exponent = self.op("-", s.Unary(self.span, self.number(5)), self.name("head"))
            self.param("gamma", self.type(per="head"), value=self.op("-", self.number(1), self.op("^", self.number(2), exponent)))
        elif structure.decay == "dense":
            self.input("A", self.type(self.N, self.N))
        if turns and structure.rotation is None:
            shape = () if structure.shares_angle else (self.half(self.N),)
            if structure.angles == "data":
                self.input("theta", self.type(*shape))
            else:
                spacing = self.op("/", self.times(s.Unary(self.span, self.number(2)), self.name("n")), self.N)
                self.param(
                    "theta", self.type(*shape, per="head"), init=self.op("^", self.number(10000), spacing) if shape else self.number(1)
                )
        if self.has_delta:
            self.gate("beta", self.rowed(), 0, 1, "sigmoid")
        elif structure.correction == "low_rank":
            self.input("e", self.type(self.N, flags=("unit",)))
            self.gate("eta", self.type(self.N), 0, 1, "sigmoid")
        if self.is_stabilised:
            self.input("i_raw", self.type())

    def _declare_states(self) -> None:
        field = "complex" if self.structure.angles != "none" else "real"
        rotates = ("first", self.N) if field == "complex" else None
        self.add(s.StateDecl(self.span, self.state, replace(self.type(self.N, self.P, field=field), rotates=rotates), self.span))
        if self.structure.normaliser != "none":
            self.add(s.StateDecl(self.span, "n", replace(self.type(self.N, field=field), rotates=rotates), self.span))
        if self.is_stabilised:
            self.add(s.StateDecl(self.span, "m", self.type(), self.span))

    def _less(self, left: s.Node, prime: bool) -> s.Node:
        """`left - m'`, or `left - m` of the maximum before the token."""
        return self.op("-", left, self.name("m", prime=prime))

    def _maximum(self) -> list[s.Node]:
        """The running maximum of the exponents, and of 0: where all are small nothing is divided."""
        if not self.is_stabilised:
            return []
        carried = self.name("m")
        if self.structure.decay == "scalar":
            carried = self.op("+", self.name("g"), carried)
        largest = self.call("max", self.name("i_raw"), self.number(0))
        return [self._assign("m", self.call("max", carried, largest))]

    def _forget(self, operand: s.Node) -> s.Node:
        structure = self.structure
        if structure.angles != "none":
            operand = self.matmul(self.call("rot", structure.rotation or self.name("theta")), operand)
        log = self.name("g")
        if self.is_stabilised and structure.decay == "scalar":
            log = self._less(self.op("+", log, self.name("m")), prime=True)
        decay = self.call("exp", log)
        match structure.decay:
            case "scalar" | "elementwise":
                return self.times(decay, operand)
            case "diagonal":
                entries = self.call("pairs", decay) if structure.angles != "none" else decay
                return self.matmul(self.call("diag", entries), operand)
            case "static":
                return self.times(self.name("gamma"), operand)
            case "dense":
                return self.matmul(self.name("A"), operand)
        return operand

    def _correction(self, read: s.Node) -> s.Node | None:
        """What the correction takes away, read from `read`."""
        if self.has_delta:
            key = self.of_row("k")
            return self.over_rows(self.matmul(self.times(self.of_row("beta"), key), self.matmul(self.transposed(key), read)))
        if self.structure.correction == "low_rank":
            erase = self.times(self.name("eta"), self.name("e"))
            return self.matmul(self.name("e"), self.matmul(self.transposed(erase), read))
        return None

    def _written(self, value: bool, delayed: bool = False) -> s.Node:
        """The write of this token, or of the previous one: `sum r in 1..R: beta[r] * k[r] v[r]^T`."""
        key = self.of_row("k", delayed)
        if self.has_delta:
            key = self.times(self.of_row("beta", delayed), key)
        if self.is_stabilised:
            gate = self.name("i_raw")
            if delayed:
                gate = s.Subscript(self.span, gate, s.Unary(self.span, self.number(1)))
            key = self.times(self.call("exp", self._less(gate, prime=not delayed)), key)
        return self.over_rows(self.matmul(key, self.transposed(self.of_row("v", delayed))) if value else key, delayed)

    def _entering(self, state: str, value: bool) -> s.Node:
        """The state as the transition meets it: with two taps, the previous write enters again."""
        before = self.name(state)
        if self.structure.taps == 2:
            older = self.op("-", self.number(1), self.name("lam"))
            before = self.op("+", before, self.times(older, self._written(value, delayed=True)))
        if self.is_stabilised and self.structure.decay != "scalar":
            before = self.times(self.call("exp", self._less(self.name("m"), prime=True)), before)
        return before

    def _now(self, value: bool) -> s.Node:
        written = self._written(value)
        return written if self.structure.taps == 1 else self.times(self.name("lam"), written)

    def _next(self, state: str, value: bool) -> list[s.Node]:
        entering = self._entering(state, value)
        first: list[s.Node] = []
        if self.structure.taps == 2 and self.structure.correction != "none":
            # named, because the correction reads it too
            first = [self._assign(state, entering)]
            entering = self.name(state, prime=True)
        kept = self._forget(entering)
        if self.structure.steps is not None and self.has_delta:
            return [*first, self._assign(state, kept), self._steps(state, value)]
        taken = self._correction(kept if self.structure.order == "forget_first" else entering)
        if taken is not None:
            kept = self.op("-", kept, taken)
        return [*first, self._assign(state, self.op("+", kept, self._now(value)))]

    def _steps(self, state: str, value: bool) -> s.Node:
        rows, after = self.rows, self.name(state, prime=True)
        key = self.times(self.of_row("beta"), self.of_row("k"))
        taken = self.matmul(key, self.matmul(self.transposed(self.of_row("k")), after))
        written = self.matmul(key, self.transposed(self.of_row("v"))) if value else key
        if self.structure.taps == 2:
            written = self.times(self.name("lam"), written)
        if self.is_stabilised:
            written = self.times(self.call("exp", self._less(self.name("i_raw"), prime=True)), written)
        step = self._assign(state, self.op("+", self.op("-", after, taken), written))
        return s.ForLoop(self.span, self.index, self.number(1), rows, (step,))

    def _assign(self, state: str, value: s.Node) -> s.Assign:
        return s.Assign(self.span, state, True, None, value, self.span)

    def _update(self) -> s.Update:
        body = [*self._maximum(), *self._next(self.state, value=True)]
        if self.structure.normaliser != "none":
            body += self._next("n", value=False)
        return s.Update(self.span, tuple(body))

    def _output(self) -> s.Output:
        structure = self.structure
        query = self.name("q")
        if structure.mimo is not None:
            query = s.Subscript(self.span, query, self.name("r"))
        is_before = structure.readout in ("before", "bonus")
        state = self.name(self.state, prime=not is_before)
        if structure.readout == "bonus":
            state = self.op(
                "+", state, self.over_rows(self.matmul(self.times(self.name("u"), self.of_row("k")), self.transposed(self.of_row("v"))))
            )
        scale = s.Binary(self.span, "^", self.N, self.number(Fraction(-1, 2)))
        read = self.matmul(self.times(scale, self.transposed(state)), query)
        if structure.normaliser != "none":
            total = self.matmul(self.transposed(self.name("n", prime=not is_before)), query)
            least = self.number(1)
            if self.is_stabilised:
                least = self.call("exp", s.Unary(self.span, self.name("m", prime=not is_before)))
            read = self.op("/", read, self.call("max", self.call("abs", self.times(scale, total)), least))
        subscript = self.name("r") if structure.mimo is not None else None
        return s.Output(self.span, (s.Assign(self.span, "y", False, subscript, read, self.span),))
