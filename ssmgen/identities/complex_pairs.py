"""A recurrence over the complex numbers -> the same over pairs of reals: the real and the imaginary part of every value.

    (a + i b) (c + i d) = (a c - b d) + i (a d + b c),   exp(a + i b) = exp(a) (cos b + i sin b)

Parameters, inputs and states become two each, `A_re` and `A_im`; so does every factor of a product or a quotient that no state
enters, since both parts of the result read both of its own. Gradients of the pairs are then torch's of a complex number: d/da + i d/db.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from .. import algebra
from ..expressions import OF_MATRICES, constant, key, nodes
from ..plan import Classified, Scan, ScanStep
from ..recurrence import Pair, Recurrence
from ..source import NOWHERE
from ..spec import Add, Apply, Const, Diag, Div, Expr, Identity, MatMul, Mul, Neg, Pow, Ref, Symbol, Transpose, Type
from .named_rows import over_rows
from .scans_written import equations_of

LARGEST_POWER = 8
"""Powers up to which a product is written out."""

TINY = Fraction(1, 10**36)
"""A square of a modulus below this is that of 0."""

Parts = tuple[Expr, Expr]


class NoParts(Exception):
    """A complex value whose parts have no formula here: `what` it is."""

    def __init__(self, expr: Expr, what: str):
        super().__init__(what)
        self.span, self.what = expr.span, what


def over_pairs(classified: Classified) -> Classified:
    """A classified scan over single rows, and over real and imaginary parts; itself where nothing is complex."""
    classified = over_rows(classified)
    recurrence, scan = pairs_of(classified.recurrence, classified.scan)
    return replace(classified, recurrence=recurrence, scan=scan, outputs=scan.outputs)


def pairs_of(recurrence: Recurrence, scan: Scan) -> tuple[Recurrence, Scan]:
    """A recurrence and its scan over real and imaginary parts, the text's own kept as `whole`.

    Raises NoParts for an output that is complex, and for functions and powers that have no parts here.
    """
    exprs = [*(s.value for s in scan.steps), *(value for _, value in scan.outputs)]
    exprs += [s.definition for s in recurrence.spec.symbols if s.definition is not None]
    if all(node.type.field == "real" for expr in exprs for node in nodes(expr)):
        return recurrence, scan
    return _Pairs(recurrence).rewritten(scan)


class _Pairs:
    """Rewrites one recurrence. `parts_of`: the names of both parts of a complex name; `made`: factors under names of their own."""

    def __init__(self, recurrence: Recurrence):
        self.recurrence, self.spec = recurrence, recurrence.spec
        held = (*self.spec.symbols, *self.spec.states)
        self.taken = {h.name for h in held} | {n for n, _ in (*self.spec.dims, *self.spec.counts, *self.spec.constants)}
        self.taken |= {name for name, _ in recurrence.hoisted}
        types = {h.name: h.type for h in held} | {name: value.type for name, value in recurrence.hoisted}
        self.parts_of = {n: (self._fresh(f"{n}_re"), self._fresh(f"{n}_im")) for n, type in types.items() if type.field == "complex"}
        self.states = {s.name for s in self.spec.states}
        self.made: list[tuple[str, Expr]] = []
        self.known: dict[str, Parts] = {}

    def rewritten(self, scan: Scan) -> tuple[Recurrence, Scan]:
        symbols = tuple(part for symbol in self.spec.symbols for part in self._symbol(symbol))
        hoisted: list[tuple[str, Expr]] = []
        for name, value in self.recurrence.hoisted:
            if name in self.parts_of:
                hoisted += zip(self.parts_of[name], self._parts(value), strict=True)
            else:
                hoisted.append((name, self._real(value)))
        states = tuple(
            replace(state, name=name, type=_real(state.type), conjugate=False)
            for state in self.spec.states
            for name in self.parts_of.get(state.name, (state.name,))
        )
        steps = tuple(part for step in scan.steps for part in self._step(step))
        outputs = tuple((name, self._real(value)) for name, value in scan.outputs)
        declared = [held.name for held in (*self.spec.symbols, *self.spec.states) if held.name in self.parts_of]
        named = {part: name for name, parts in self.parts_of.items() for part in parts}
        recurrence = replace(
            self.recurrence,
            spec=replace(equations_of(self.spec, steps, outputs, named), symbols=symbols, states=states),
            hoisted=(*hoisted, *self.made),
            whole=self.recurrence.written,
            pairs=tuple(Pair(name, *self.parts_of[name]) for name in declared),
        )
        return recurrence, replace(scan, steps=steps, outputs=outputs)

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _symbol(self, symbol: Symbol) -> list[Symbol]:
        if symbol.name not in self.parts_of:
            return [replace(symbol, definition=None if symbol.definition is None else self._real(symbol.definition))]
        own = replace(symbol, type=_real(symbol.type), init=None)
        if symbol.definition is None:
            return [replace(own, name=name) for name in self.parts_of[symbol.name]]
        parts = self._parts(symbol.definition)
        return [
            replace(own, name=name, definition=_wide(part, own.type)) for name, part in zip(self.parts_of[symbol.name], parts, strict=True)
        ]

    def _step(self, step: ScanStep) -> list[ScanStep]:
        if step.state not in self.parts_of:
            return [replace(step, value=self._real(step.value), kept=self._real(step.kept))]
        real, tail = _real(step.value.type), step.name.removeprefix(step.state)
        parts = zip(self.parts_of[step.state], self._parts(step.value), self._parts(step.kept), strict=True)
        return [ScanStep(name, f"{name}{tail}", _wide(value, real), _wide(kept, real)) for name, value, kept in parts]

    # --- values ---

    def _real(self, expr: Expr) -> Expr:
        """A real value, whatever is complex inside it."""

        def part(node: Expr) -> Expr | None:
            if isinstance(node, Apply) and node.type.field == "real" and any(a.type.field == "complex" for a in node.args):
                return self._real_function(node)
            if node.type.field == "complex":
                raise NoParts(node, "a complex value where a real one is read: take `Re` or `Im` of it")
            return None

        return algebra.rewrite(expr, part)

    def _real_function(self, expr: Apply) -> Expr:
        re, im = self._parts(expr.args[0])
        if expr.function in ("Re", "Im"):
            return re if expr.function == "Re" else im
        if expr.function == "abs":
            return algebra.apply("sqrt", algebra.add(algebra.apply("square", re), algebra.apply("square", im)))
        raise NoParts(expr, f"`{expr.function}` of a complex value")

    def _parts(self, expr: Expr) -> Parts:
        """(real part, imaginary part)."""
        if expr.type.field == "real":
            return self._real(expr), algebra.const(0, expr.type)
        match expr:
            case Const():
                return algebra.const(expr.value, _real(expr.type)), algebra.const(0, _real(expr.type))
            case Ref() if expr.name.endswith("[-1]"):
                raise NoParts(expr, "the token before's value of a complex name")
            case Ref():
                return tuple(Ref(_real(expr.type), expr.span, name) for name in self._names(expr.name))
            case Neg():
                return tuple(map(algebra.neg, self._parts(expr.operand)))
            case Add():
                return tuple(algebra.add(*parts) for parts in zip(*map(self._parts, expr.terms), strict=True))
            case Mul():
                return algebra.complex_product(self._factor(expr.left), self._factor(expr.right))
            case MatMul():
                return algebra.complex_product(self._factor(expr.left), self._factor(expr.right), algebra.matmul)
            case Div():
                return self._quotient(expr)
            case Transpose() | Diag():
                return self._factor(expr)
            case Identity():
                return replace(expr, type=_real(expr.type)), algebra.const(0, _real(expr.type))
            case Pow() if constant(expr.exponent) in range(1, LARGEST_POWER + 1):
                base = total = self._factor(expr.base)
                for _ in range(int(constant(expr.exponent)) - 1):
                    total = algebra.complex_product(total, base)
                return total
            case Apply():
                return self._function(expr)
        raise NoParts(expr, "a power" if isinstance(expr, Pow) else "a matrix")

    def _names(self, name: str) -> Parts:
        """Both parts of a name: `S'`, `S'1` and `kept S` are those of the state S."""
        if name in self.parts_of:
            return self.parts_of[name]
        kept = "kept " if name.startswith("kept ") else ""
        state, prime, number = name.removeprefix(kept).partition("'")
        return tuple(f"{kept}{part}{prime}{number}" for part in self.parts_of[state])

    def _factor(self, expr: Expr) -> Parts:
        """The parts of what is read twice: under names of their own, unless a state enters it."""
        if isinstance(expr, Diag):
            return tuple(_diagonal(part, expr) for part in self._factor(expr.operand))
        if isinstance(expr, Transpose):
            re, im = map(algebra.transpose, self._factor(expr.operand))
            return re, algebra.neg(im) if expr.conjugate else im
        if (
            isinstance(expr, Ref)
            or expr.type.field == "real"
            or self._reads_state(expr)
            or any(isinstance(n, (Diag, Identity, MatMul)) for n in nodes(expr))
        ):
            return self._parts(expr)
        text = key(expr)
        if text not in self.known:
            name = next((n.name for n in nodes(expr) if isinstance(n, Ref) and n.type.field == "complex"), "z")
            parts = self._parts(expr)
            number = len(self.known) + 1
            self.known[text] = tuple(self._under_a_name(f"{name}{number}_{which}", p) for which, p in zip(("re", "im"), parts, strict=True))
        return self.known[text]

    def _under_a_name(self, name: str, part: Expr) -> Expr:
        if isinstance(part.operand if isinstance(part, Neg) else part, (Ref, Const)):
            return part
        name = self._fresh(name)
        self.made.append((name, part))
        return Ref(part.type, NOWHERE, name)

    def _reads_state(self, expr: Expr) -> bool:
        names = (n.name for n in nodes(expr) if isinstance(n, Ref))
        return any(name.removeprefix("kept ").split("'")[0] in self.states for name in names)

    def _quotient(self, expr: Div) -> Parts:
        above = self._factor(expr.left)
        if expr.right.type.field == "real":
            below = self._real(expr.right)
            return tuple(algebra.div(part, below) for part in above)
        c, d = self._factor(expr.right)
        name = next((n.name for n in nodes(expr.right) if isinstance(n, Ref)), "z")
        size = self._under_a_name(f"{name}_size", algebra.add(algebra.apply("square", c), algebra.apply("square", d)))
        return tuple(algebra.div(part, size) for part in algebra.complex_product(above, (c, algebra.neg(d))))

    def _function(self, expr: Apply) -> Parts:
        if expr.function == "i":
            return algebra.ZERO, algebra.UNIT
        if expr.function == "cis":
            angle = self._real(expr.args[0])
            return algebra.apply("cos", angle), algebra.apply("sin", angle)
        if expr.function in OF_MATRICES:
            parts = self._parts(expr.args[0])
            return tuple(algebra.apply(f"{expr.function}_{part}", *parts, type=_real(expr.type)) for part in ("re", "im"))
        re, im = self._factor(expr.args[0])
        match expr.function:
            case "conj":
                return re, algebra.neg(im)
            case "square":
                return algebra.complex_product((re, im), (re, im))
            case "exp":
                size = algebra.apply("exp", re)
                return algebra.mul(size, algebra.apply("cos", im)), algebra.mul(size, algebra.apply("sin", im))
            case "expm1":
                return _expm1(re, im)
            case "phi1":
                # expm1(z) conj(z) / |z|^2; at 0, where that is 0 / 0, both above and below are 1
                name = next((n.name for n in nodes(expr) if isinstance(n, Ref) and n.type.field == "complex"), "z")
                size = algebra.add(algebra.apply("square", re), algebra.apply("square", im))
                none = self._under_a_name(f"{name}_none", algebra.apply("at_least", algebra.const(TINY), size))
                below = self._under_a_name(f"{name}_size", algebra.add(size, none))
                above = algebra.complex_product(_expm1(re, im), (re, algebra.neg(im)))
                return algebra.div(algebra.add(above[0], none), below), algebra.div(above[1], below)
        raise NoParts(expr, f"`{expr.function}` of a complex value")


def _expm1(re: Expr, im: Expr) -> Parts:
    """exp(a) cos b - 1 and exp(a) sin b, the first without its cancellation near 0."""
    cos, sin = algebra.apply("cos", im), algebra.apply("sin", im)
    return algebra.add(algebra.mul(algebra.apply("expm1", re), cos), algebra.apply("cosm1", im)), algebra.mul(algebra.apply("exp", re), sin)


def _diagonal(part: Expr, like: Diag) -> Expr:
    return algebra.const(0, _real(like.type)) if algebra.is_zero(part) else Diag(_real(like.type), like.span, part)


def _wide(part: Expr, real: Type) -> Expr:
    return part if part.type == real else algebra.mul(algebra.const(1, real), part)


def _real(type: Type) -> Type:
    return replace(type, field="real")
