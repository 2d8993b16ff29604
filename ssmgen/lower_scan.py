"""plan -> the scan program: a token's lines, and their gradient by reverse mode.

What depends on parameters alone is taken out of the token, its gradient too: a token adds to a sum, and the sum is carried
through at the end. Functions of a token get names, since a derivative reads the function's value again.
"""

from __future__ import annotations

from dataclasses import replace

from . import algebra
from .differentiate import cotangents
from .expressions import constant, key, nodes
from .gauges import immaterial
from .identities.rows import sizes_of, unrolled
from .plan import Plan
from .response import Convolution, values_of
from .scan import Binding, ScanProgram, needed, output_gradients
from .small import arguments_of
from .source import NOWHERE
from .spec import Apply, Const, Delayed, Diag, Expr, Identity, MatMul, Ref, Transpose

PLAIN = ("pi", "i", "min", "max", "abs", "relu", "square")
"""Functions that cost no more than reading their value back."""


def lower_scan(plan: Plan) -> ScanProgram:
    """The program of one token."""
    return _Lowering(plan).program()


class _Lowering:
    def __init__(self, plan: Plan):
        self.scan = plan.classified.scan
        self.answers = plan.convolution
        self.recurrence = plan.classified.recurrence
        self.spec = self.recurrence.spec
        self.sizes = sizes_of(self.spec)
        inputs, params = arguments_of(self.spec)
        self.inputs = {s.name: s.type for s in inputs}
        self.immaterial = immaterial(self.recurrence)
        self.params = {s.name: s.type for s in params}
        found = dict(self.recurrence.hoisted) | {s.name: s.definition for s in self.spec.symbols if s.definition is not None}
        self.definitions = {name: self._flat(value) for name, value in found.items()}
        self.states = tuple((s.name, s.type) for s in self.spec.states)
        self.taken = {s.name for s in (*self.spec.symbols, *self.spec.states)} | set(self.definitions)
        self.taken |= {name for name, _ in (*self.spec.dims, *self.spec.counts, *self.spec.constants)}
        self.statics: list[Binding] = []
        self.token: list[Binding] = []
        self.named: dict[str, Ref] = {}

    def _flat(self, expr: Expr) -> Expr:
        def named(node: Expr) -> Expr | None:
            return Ref(node.type, node.span, f"{node.name}[-1]") if isinstance(node, Delayed) else None

        return algebra.rewrite(unrolled(expr, None, 0, self.sizes), named)

    def program(self) -> ScanProgram:
        steps, outputs = self.scan.steps, self.scan.outputs
        update = tuple(Binding(s.name, self._lifted(s.value)) for s in steps)
        carried = tuple(Binding(f"kept {s.name}", self._lifted(s.kept)) for s in steps)
        is_named = len({name for name, _ in outputs}) == len(outputs)
        rows = [""] * len(outputs) if is_named else [f" {number}" for number in range(1, len(outputs) + 1)]
        readouts = tuple(Binding(f"out {name}{row}", self._lifted(value)) for row, (name, value) in zip(rows, outputs, strict=True))
        convolution = None if self.answers is None else self._convolution(self.answers)
        answers = values_of(convolution) if convolution is not None else []
        token = needed(tuple(self.token), [b.value for b in (*update, *carried, *readouts)])
        gradient, found = self._reverse((*token, *update), readouts)
        adjoint = tuple(Binding(f"before {n}", algebra.add(*found[n]) if n in found else algebra.const(0, t)) for n, t in self.states)
        arguments = tuple(Binding(f"d {n}", algebra.add(*found[n])) for n in found if self._is_input(n) and n not in self.immaterial)
        still = {b.name for b in self.statics} | set(self.params)
        sums = tuple(Binding(f"sum {n}", algebra.add(*found[n])) for n in found if n in still)
        if self.scan.mixes:
            gradient, adjoint, arguments, sums = self._products_named(gradient, adjoint, arguments, sums)
        gradient = needed(gradient, [b.value for b in (*adjoint, *arguments, *sums)])
        own = {f"{name}'" for name, _ in self.states}
        used = [b.value for b in (*token, *update, *carried, *readouts, *gradient, *adjoint, *arguments, *sums)]
        statics = needed(tuple(self.statics), used)
        # what the convolution alone reads stands in its own lines
        lines = tuple(b for b in needed((*self.statics, *self.token), answers) if b not in statics)
        static_gradient, parameters = self._through_statics(statics, {b.name.removeprefix("sum "): b.value for b in sums})
        assert own <= {b.name for b in update}
        return ScanProgram(
            self.states, statics, token, update, carried, readouts, gradient, adjoint, arguments, sums, static_gradient, parameters,
            self._pairs(), self.scan.mixes, self._blocks(carried), convolution, lines,
        )  # fmt: skip

    def _convolution(self, answers: Convolution) -> Convolution:
        """With everything over names."""
        weighted = lambda weights: tuple((name, self._lifted(weight)) for name, weight in weights)  # noqa: E731
        return Convolution(
            weighted(answers.factors),
            tuple(replace(drive, value=self._lifted(drive.value), weights=weighted(drive.weights)) for drive in answers.drives),
            tuple(replace(probe, weights=weighted(probe.weights)) for probe in answers.probes),
            tuple(map(self._lifted, answers.outputs)),
            answers.mixing,
            answers.coupled,
        )

    def _pairs(self) -> tuple[tuple[int, int], ...]:
        numbers = {name: number for number, (name, _) in enumerate(self.states)}
        return tuple((numbers[pair.re], numbers[pair.im]) for pair in self.recurrence.pairs if pair.re in numbers)

    def _blocks(self, carried: tuple[Binding, ...]) -> tuple[tuple[int, ...], ...]:
        """The states in groups, by what is left of one in another; none where they are single, or the parts of complex ones."""
        if self.scan.mixes:
            return ()
        groups = {f"kept {name}": {number} for number, (name, _) in enumerate(self.states)}
        for number, (name, _) in enumerate(self.states):
            ends = {binding.name for binding in carried if binding.name.startswith(f"kept {name}'")}
            read = needed(carried, [b.value for b in carried if b.name in ends])
            exprs = [*(b.value for b in read), *(b.value for b in carried if b.name in ends)]
            used = {n.name for expr in exprs for n in nodes(expr) if isinstance(n, Ref) and n.name in groups}
            joined = {number}.union(*(groups[name] for name in used))
            for other in joined:
                groups[f"kept {self.states[other][0]}"] = joined
        found = tuple(dict.fromkeys(tuple(sorted(group)) for group in groups.values()))
        return found if any(len(group) > 1 and group not in self._pairs() for group in found) else ()

    def _is_input(self, name: str) -> bool:
        return name in self.inputs or name.endswith("[-1]")

    # --- lines ---

    def _lifted(self, expr: Expr) -> Expr:
        """The expression over names: definitions bound where they belong, statics and functions under names of their own."""

        def lift(node: Expr) -> Expr | None:
            if isinstance(node, Ref):
                return self._bound(node)
            if isinstance(node, (Diag, Identity)):
                return None
            if self._is_worth_taking_out(node):
                return self._as_static(node)
            if isinstance(node, Apply) and node.args and node.function not in PLAIN and not self._reads_state(node):
                inner = algebra.rebuild(node, tuple(self._lifted(a) for a in node.args))
                return self._under_a_name(inner, self.token, node.function)
            return None

        return algebra.rewrite(expr, lift)

    def _bound(self, node: Ref) -> Expr:
        """A name whose line is written; of one that stands for a number, such as the real part of `i * x`, the number."""
        if constant(self.definitions.get(node.name, node)) is not None:
            return self.definitions[node.name]
        self._bind(node.name)
        return node

    def _bind(self, name: str) -> None:
        """The line of a definition, once, after those of what it is made of."""
        if name not in self.definitions or any(b.name == name for b in (*self.statics, *self.token)):
            return
        value = self.definitions[name]
        if self._is_static(value):
            fixed = algebra.rebuild(value, tuple(map(self._fixed, value.args))) if isinstance(value, Apply) else self._fixed(value)
            self.statics.append(Binding(name, fixed))
        elif isinstance(value, Apply):
            # the definition is the function's name
            self.token.append(Binding(name, algebra.rebuild(value, tuple(self._lifted(a) for a in value.args))))
        else:
            self.token.append(Binding(name, self._lifted(value)))

    def _as_static(self, node: Expr) -> Ref:
        value = self._fixed(node)
        return value if isinstance(value, (Ref, Const)) else self._under_a_name(value, self.statics, "fixed")

    def _fixed(self, expr: Expr) -> Expr:
        """What no token changes over names: definitions bound, functions under names of their own."""

        def fix(node: Expr) -> Expr | None:
            if isinstance(node, Ref):
                return self._bound(node)
            if isinstance(node, Apply) and node.args and node.function not in PLAIN:
                value = algebra.rebuild(node, tuple(map(self._fixed, node.args)))
                return self._under_a_name(value, self.statics, node.function)
            return None

        return algebra.rewrite(expr, fix)

    def _under_a_name(self, value: Expr, lines: list[Binding], word: str) -> Ref:
        text = key(value)
        if text not in self.named:
            first = next((n.name for n in nodes(value) if isinstance(n, Ref)), "")
            name = f"{word}_{first.removesuffix('[-1]')}" if first.removesuffix("[-1]").isidentifier() else word
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            lines.append(Binding(name, value))
            self.named[text] = Ref(value.type, NOWHERE, name)
        return self.named[text]

    def _is_worth_taking_out(self, node: Expr) -> bool:
        """A function, sum or product of parameters: once for all tokens."""
        if not self._is_static(node) or isinstance(node, Ref):
            return False
        names = {n.name for n in nodes(node) if isinstance(n, Ref)}
        return bool(names & ({*self.params} | {b.name for b in self.statics} | {n for n in self.definitions}))

    def _is_static(self, expr: Expr) -> bool:
        for node in nodes(expr):
            if isinstance(node, Ref):
                if node.name in self.definitions:
                    if not self._is_static(self.definitions[node.name]):
                        return False
                elif self._is_input(node.name) or node.name == "position" or self._is_of_state(node.name):
                    return False
                elif any(b.name == node.name for b in self.token):
                    return False
            if isinstance(node, Apply) and node.function == "rope":
                return False
        return True

    def _reads_state(self, expr: Expr) -> bool:
        return any(isinstance(n, Ref) and self._is_of_state(n.name) for n in nodes(expr))

    def _is_of_state(self, name: str) -> bool:
        base = name.removeprefix("kept ").split("'")[0]
        return name.startswith("read ") or any(base == state for state, _ in self.states)

    # --- gradients ---

    def _reverse(self, lines: tuple[Binding, ...], outputs: tuple[Binding, ...]):
        """(lines of the gradient, contributions to names that are not lines)."""
        found: dict[str, list[Expr]] = {}
        after = {f"{name}'": Ref(type, NOWHERE, f"D {name}") for name, type in self.states}
        for name, seed in after.items():
            found[name] = [seed]
        for output, seed in zip(outputs, output_gradients(len(outputs)), strict=True):
            for inner, part in cotangents(output.value, Ref(output.value.type, NOWHERE, seed)):
                found.setdefault(inner, []).append(part)
        return _through(lines, found, names_exponents=True), found

    def _products_named(self, gradient: tuple[Binding, ...], *others: tuple[Binding, ...]) -> tuple[tuple[Binding, ...], ...]:
        """The gradient and what is made of it, where a product with a matrix that occurs again is a line of its own."""
        counts: dict[str, int] = {}
        for node in (n for b in (*gradient, *(b for lines in others for b in lines)) for n in nodes(b.value) if self._is_transposed(n)):
            counts[key(node)] = counts.get(key(node), 0) + 1
        names: dict[str, Ref] = {}
        lines: list[Binding] = []

        def named(node: Expr) -> Expr | None:
            text = key(node) if self._is_transposed(node) else ""
            if counts.get(text, 0) < 2:
                return None
            if text not in names:
                first = next(n.name for n in nodes(node.right) if isinstance(n, Ref))
                names[text] = Ref(node.type, NOWHERE, f"through {len(names) + 1} {first}")
                lines.append(Binding(names[text].name, node))
            return names[text]

        def renewed(line: Binding) -> Binding:
            return Binding(line.name, algebra.rewrite(line.value, named))

        for line in gradient:
            value = renewed(line)
            lines.append(value)
        behind = [tuple(map(renewed, each)) for each in others]
        return tuple(lines), *behind

    @staticmethod
    def _is_transposed(node: Expr) -> bool:
        """A matrix by which a gradient goes back through a product."""
        is_product = isinstance(node, MatMul) and isinstance(node.left, Transpose) and not (node.type.is_row or node.type.is_scalar)
        return is_product and isinstance(node.left.operand, Ref) and not (node.left.type.is_row or isinstance(node.right, Transpose))

    def _through_statics(self, statics: tuple[Binding, ...], sums: dict[str, Expr]):
        """(lines, gradients of the parameters) from the sums over tokens."""
        types = {b.name: b.value.type for b in statics} | self.params
        found = {name: [Ref(types[name], NOWHERE, f"sum {name}")] for name in sums}
        lines = _through(statics, found)
        parameters = tuple(Binding(f"d {n}", algebra.add(*found[n])) for n in self.params if n in found)
        return needed(lines, [b.value for b in parameters]), parameters


def _through(lines: tuple[Binding, ...], found: dict[str, list[Expr]], *, names_exponents: bool = False) -> tuple[Binding, ...]:
    """The lines of the gradient, last one first. Contributions to the values of `lines` leave `found`, those that they make enter it.

    names_exponents: what reaches the exponent of an exponential gets a name, `d log y` of y; all its factors read it.
    """
    gradient: list[Binding] = []
    for line in reversed(lines):
        parts = found.pop(line.name, None)
        if parts is None:
            continue
        total = algebra.add(*parts)
        if not isinstance(total, Ref):
            gradient.append(Binding(f"d {line.name}", total))
            total = Ref(line.value.type, NOWHERE, f"d {line.name}")
        value, own = line.value, Ref(line.value.type, NOWHERE, line.name)
        if names_exponents and isinstance(value, Apply) and value.function == "exp" and not isinstance(value.args[0], Ref):
            gradient.append(Binding(f"d log {line.name}", algebra.mul(total, own)))
            value, total = value.args[0], Ref(value.type, NOWHERE, f"d log {line.name}")
        for inner, part in cotangents(value, total, own):
            found.setdefault(inner, []).append(part)
    return tuple(gradient)
