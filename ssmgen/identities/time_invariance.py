"""a scan -> the convolution that it is, where no token changes what is kept of its states.

The proof reads the expressions: a factor is the same for every token when all that it is made of, through definitions, is parameters
and numbers. What a token writes is expanded into products, and each is split into what no token changes and the rest; of what the
output reads, the largest parts that are linear in the states with weights that no token changes are taken out.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import algebra
from ..diagnostics import Diagnostic, Label, Severity
from ..expressions import is_full_product, is_state, key, nodes
from ..plan import Classified, ScanStep
from ..recurrence import Recurrence
from ..response import Convolution, Drive, Probe
from ..source import NOWHERE
from ..spec import ONE, Add, Apply, Delayed, Diag, Div, Expr, MatMul, Mul, Neg, Ref, StateRef, Symbol, Transpose, Type

PLACES = ("head", "heads", "channel", "channels", "layer", "layers")
"""Names of the place in the model: numbers, or one a head."""


def varying(classified: Classified) -> Diagnostic | None:
    """Why a scan is no convolution: a factor of a state that a token changes. None when there is none."""
    statics = _Statics(classified.recurrence)
    for step in classified.scan.steps:
        for node in nodes(step.kept):
            if isinstance(node, (Ref, Delayed)) and not node.name.startswith("kept "):
                found = statics.moved_by(node)
                if found is not None:
                    return _varying(classified, step.state, node, found)
    return None


def convolution_of(classified: Classified) -> Convolution:
    """The convolution of a scan over reals that `varying` finds nothing in."""
    return _Responses(classified).convolution()


class _Statics:
    """Which values no token changes."""

    def __init__(self, recurrence: Recurrence):
        spec = recurrence.spec
        self.symbols: dict[str, Symbol] = {s.name: s for s in spec.symbols}
        self.definitions = {s.name: s.definition for s in spec.symbols if s.definition is not None} | dict(recurrence.hoisted)
        self.numbers = {name for name, _ in (*spec.dims, *spec.counts, *spec.constants)} | set(PLACES)
        self.known: dict[str, Expr | None] = {}

    def holds(self, expr: Expr) -> bool:
        """Whether the value is the same for every token."""
        return all(self.moved_by(node) is None for node in nodes(expr))

    def moved_by(self, node: Expr) -> Expr | None:
        """The input, state or position behind one node; None when no token changes it."""
        if isinstance(node, Apply) and node.function == "rope":
            return Ref(Type(), node.span, "position")
        if isinstance(node, (Delayed, StateRef)):
            return node
        if not isinstance(node, Ref) or node.name in self.numbers:
            return None
        if node.name not in self.known:
            self.known[node.name] = self._source(node)
        return self.known[node.name]

    def _source(self, node: Ref) -> Expr | None:
        if node.name in self.definitions:
            found = (self.moved_by(inner) for inner in nodes(self.definitions[node.name]))
            return next((each for each in found if each is not None), None)
        symbol = self.symbols.get(node.name)
        return None if symbol is not None and symbol.kind == "param" else node


def _varying(classified: Classified, state: str, node: Expr, found: Expr) -> Diagnostic:
    spec = classified.recurrence.spec
    symbols = {s.name: s for s in spec.symbols}
    span = node.span if node.span != NOWHERE else symbols[node.name].span if node.name in symbols else spec.span
    source = symbols.get(found.name.removesuffix("[-1]"))
    what = {"input": "an input", "gate": "a gate without an expression"}.get(
        source.kind if source is not None else "", "a value of the token"
    )
    reads = "" if found.name == node.name else f": it reads `{found.name}`"
    edit = (
        ""
        if source is None
        else f"; or make `{source.name}` the same for every token, `param {source.name} : {source.type} per {source.per}`"
    )
    return Diagnostic(
        "not-time-invariant",
        Severity.ERROR,
        f"`{spec.name}` is no convolution: what is kept of `{state}` changes from token to token",
        Label(span, f"`{node.name}` depends on the token{reads}, {what}"),
        _asked(classified),
        "a convolution has one impulse response for all tokens: what a state is multiplied by is made of parameters and numbers alone",
        f"write `@form scan`, or leave the option out{edit}",
    )


def _asked(classified: Classified) -> tuple[Label, ...]:
    spans = dict(classified.recurrence.written.option_spans)
    return (Label(spans["form"], "a convolution is asked for"),) if "form" in spans else ()


def obstacle(classified: Classified, core: Classified) -> Diagnostic | None:
    """Why the scan does not run as a convolution: what `varying` finds, or entries that read each other and are not one column.

    `core`: the same over reals, with the products of matrices outside of it that can be.
    """
    found = varying(classified) or _fed(classified) or _between_matrices(classified, core)
    if found is not None or not classified.scan.mixes:
        return found
    convolution = convolution_of(core)
    states = {s.name: s for s in classified.recurrence.spec.states}
    pairs = {part: p.name for p in core.recurrence.pairs for part in (p.re, p.im)}
    mixing = {pairs.get(name, name) for name in convolution.mixing}
    reached = [pairs.get(name, name) for drive in convolution.drives if not drive.value.type.is_scalar for name, _ in drive.weights]
    reached += [pairs.get(n.removesuffix("'"), n.removesuffix("'")) for probe in convolution.probes if probe.axes for n, _ in probe.weights]
    name = next((n for n in mixing if n in reached or not states[n].type.is_column), None)
    if name is None:
        return None
    return Diagnostic(
        "unavailable-form",
        Severity.ERROR,
        f"`{classified.recurrence.spec.name}` has no form `convolution`",
        Label(dict(classified.recurrence.written.option_spans).get("form", states[name].span), f"the entries of `{name}` read each other"),
        (),
        "of such a state a convolution answers numbers with numbers: one column, written `x * B` and read `C . s`, x a number a token",
        "write `@form scan`, or leave the option out",
    )


def _fed(classified: Classified) -> Diagnostic | None:
    """Of states that feed each other a token leaves a small matrix of every entry: one of them has another shape, or entries are summed."""
    spec = classified.recurrence.spec
    types = {s.name: s.type for s in spec.states}
    shape = lambda name: (types[name].rows, types[name].cols)  # noqa: E731
    fed = [t for step in classified.recurrence.steps for t in step.transitions if t.source != t.target]
    term = next((t for t in fed if classified.scan.mixes or shape(t.source) != shape(t.target)), None)
    if term is None:
        return None
    return Diagnostic(
        "unavailable-form",
        Severity.ERROR,
        f"`{spec.name}` has no form `convolution`",
        Label(dict(classified.recurrence.written.option_spans).get("form", term.span), f"`{term.source}` feeds `{term.target}`"),
        (),
        "states that feed each other have an answer for each pair at every entry: they are of one shape, and no entries read each other",
        "write `@form scan`, or leave the option out",
    )


def _between_matrices(classified: Classified, core: Classified) -> Diagnostic | None:
    """A product of matrices that does not stand outside of the scan: it would be formed inside of what entries answer."""
    spec, scan = core.recurrence.spec, core.scan
    definitions = [s.definition for s in spec.symbols if s.definition is not None] + [value for _, value in core.recurrence.hoisted]
    states = {s.name for s in spec.states}
    # what leads from entry to entry is a factor of the state
    written = [
        n for step in scan.steps for n in nodes(step.value) if is_full_product(n, states) and not any(is_state(e, states) for e in nodes(n))
    ]
    others = (*(value for _, value in scan.outputs), *definitions)
    read = [n for value in others for n in nodes(value) if is_full_product(n, states)]
    product = next(iter([*written, *read]), None)
    if product is None:
        return None
    return Diagnostic(
        "unavailable-form",
        Severity.ERROR,
        f"`{spec.name}` has no form `convolution`",
        Label(
            dict(classified.recurrence.written.option_spans).get("form", product.span),
            "a matrix takes or gives what does not leave the scan as columns of one width",
        ),
        (),
        "products of matrices stand before the convolution and behind it: what one takes of the states is a column, all of one length",
        "write `@form scan`, or leave the option out",
    )


def refused_form(classified: Classified, core_of: Callable[[Classified], Classified]) -> Diagnostic | None:
    """Why the recurrence cannot run in the form that its text asks for; None when it can, or when nothing is asked.

    `core_of` gives a scan over reals between the products of matrices that stand outside of it.
    """
    written = classified.recurrence.written
    asked = dict(written.options).get("form")
    form = "chunk" if classified.scan is None else "scan"
    if asked in (None, form):
        return None
    if asked == "convolution" and form == "scan":
        return obstacle(classified, core_of(classified))
    sentence = classified.axis("form").sentence
    return Diagnostic(
        "unavailable-form",
        Severity.ERROR,
        f"`{written.name}` has no form `{asked}`",
        Label(dict(written.option_spans)["form"], f"it runs {'in chunks' if form == 'chunk' else 'as a scan'}: {sentence}"),
        (),
        "the equations decide between chunks and a scan; an option may take the convolution of a scan, or leave it",
        f"write `@form {form}`, or leave the option out",
    )


class _Responses:
    def __init__(self, classified: Classified):
        self.scan = classified.scan
        self.recurrence = classified.recurrence
        self.spec = self.recurrence.spec
        self.types = {s.name: s.type for s in self.spec.states}
        self.statics = _Statics(self.recurrence)
        self.pairs = {p.re: (p.re, p.im) for p in self.recurrence.pairs if p.re in self.types}
        self.pairs |= {p.im: (p.re, p.im) for p in self.recurrence.pairs if p.im in self.types}
        self.probes: list[Probe] = []

    def convolution(self) -> Convolution:
        steps = {step.name: step for step in self.scan.steps}
        factors, drives = [], {}
        mixing = {other for step in self.scan.steps if _mixes(step.kept) for other in self.pairs.get(step.state, (step.state,))}
        coupled = () if mixing else self._coupled(steps)
        whole = mixing.union(*coupled)
        for name in self.types:
            # of a pair the factor is what becomes of 1, whose imaginary part is 0
            first = self.pairs.get(name, (name,))[0]
            start = {} if name in whole else {n: algebra.const(int(n == first), t) for n, t in self.types.items()}
            factors.append((name, self._composed(steps[f"{name}'"].kept, "kept ", start, {s.name: s.kept for s in self.scan.steps})))
            zero = {n: algebra.const(0, t) for n, t in self.types.items()}
            written = self._composed(steps[f"{name}'"].value, "", zero, {s.name: s.value for s in self.scan.steps})
            for weight, value in self._split(written) if not algebra.is_zero(written) else ():
                slot = (key(value), str(value.type), str(weight.type))
                _, weights = drives.setdefault(slot, (value, {}))
                weights[name] = algebra.add(weights[name], weight) if name in weights else weight
        outputs = tuple(self._probed(value) for _, value in self.scan.outputs)
        return Convolution(
            tuple(factors), tuple(Drive(value, tuple(weights.items())) for value, weights in drives.values()), tuple(self.probes), outputs,
            tuple(name for name in self.types if name in mixing), coupled,
        )  # fmt: skip

    def _coupled(self, steps: dict[str, ScanStep]) -> tuple[tuple[str, ...], ...]:
        """The states in groups that feed each other, none of those that are one state, or its two parts."""
        groups = {name: set(self.pairs.get(name, (name,))) for name in self.types}
        for name in self.types:
            left = self._composed(steps[f"{name}'"].kept, "kept ", {}, {s.name: s.kept for s in self.scan.steps})
            read = {n.name.removeprefix("kept ") for n in nodes(left) if isinstance(n, Ref) and n.name.startswith("kept ")}
            joined = groups[name].union(*(groups[other] for other in read))
            for other in joined:
                groups[other] = joined
        found = dict.fromkeys(tuple(n for n in self.types if n in group) for group in groups.values())
        return tuple(group for group in found if set(group) != set(self.pairs.get(group[0], (group[0],))))

    def _composed(self, expr: Expr, prefix: str, start: dict[str, Expr], steps: dict[str, Expr]) -> Expr:
        """The value of a token's last step from what the states are before the first."""

        def followed(node: Expr) -> Expr | None:
            if not isinstance(node, Ref):
                return None
            name = node.name.removeprefix(prefix)
            if not node.name.startswith(prefix):
                return None
            return self._composed(steps[name], prefix, start, steps) if name in steps else start.get(name)

        return algebra.rewrite(expr, followed)

    # --- what a token writes: products of weights and values ---

    def _split(self, expr: Expr) -> list[tuple[Expr, Expr]]:
        """(weight, value of the token): their products, broadcast over the state's axes, add up to `expr`."""
        if self.statics.holds(expr):
            return [(expr, algebra.UNIT)]
        match expr:
            case Add():
                return [pair for term in expr.terms for pair in self._split(term)]
            case Neg():
                return [(algebra.neg(weight), value) for weight, value in self._split(expr.operand)]
            case Mul():
                return _crossed(self._split(expr.left), self._split(expr.right))
            case Div():
                if self.statics.holds(expr.right):
                    return _crossed(self._split(expr.left), [(algebra.div(algebra.UNIT, expr.right), algebra.UNIT)])
                return _crossed(self._split(expr.left), [(algebra.UNIT, algebra.div(algebra.UNIT, expr.right))])
            case Transpose() if not expr.conjugate:
                return [(algebra.transpose(weight), algebra.transpose(value)) for weight, value in self._split(expr.operand)]
            case MatMul(left=Diag() as diagonal):
                return _crossed(self._split(diagonal.operand), self._split(expr.right))
            case MatMul(right=Diag() as diagonal):
                return _crossed(self._split(expr.left), self._split(algebra.transpose(diagonal.operand)))
            case MatMul() if expr.left.type.cols == ONE:
                return _crossed(self._split(expr.left), self._split(expr.right))
        return [(algebra.UNIT, expr)]

    # --- what is read ---

    def _probed(self, expr: Expr) -> Expr:
        """The output with a probe's name for every largest part that is linear in the states."""

        def found(node: Expr) -> Expr | None:
            if not self._reads(node):
                return node
            linear = self._linear(node)
            if linear is not None:
                return self._probe(node.type, linear)
            if isinstance(node, Add):
                terms = [(term, self._linear(term) if self._reads(term) else None) for term in node.terms]
                groups: dict[tuple, list[Expr]] = {}
                for term, each in terms:
                    if each is not None:
                        groups.setdefault((each[1:], str(term.type)), []).append(term)
                rest = [algebra.rewrite(term, found) for term, each in terms if each is None]
                sums = [algebra.add(*group) for group in groups.values()]
                return algebra.add(*(self._probe(total.type, self._linear(total)) for total in sums), *rest)
            return None

        return algebra.rewrite(expr, found)

    def _probe(self, type: Type, linear) -> Ref:
        weights, rows, cols = linear
        name = f"read {len(self.probes)}"
        self.probes.append(Probe(name, type, tuple(weights.items()), rows, cols))
        return Ref(type, NOWHERE, name)

    def _reads(self, expr: Expr) -> bool:
        return any(isinstance(n, Ref) and n.name.removesuffix("'") in self.types for n in nodes(expr))

    def _linear(self, expr: Expr) -> tuple[dict[str, Expr], int | None, int | None] | None:
        """(weights of every state that is read, the state's axes along the rows and along the columns); None: not linear."""
        match expr:
            case Ref():
                type = self.types.get(expr.name.removesuffix("'"))
                if type is None:
                    return None
                return {expr.name: algebra.UNIT}, None if type.rows == ONE else 0, None if type.cols == ONE else 1
            case Neg():
                return _scaled(self._linear(expr.operand), algebra.neg(algebra.UNIT))
            case Transpose() if not expr.conjugate:
                inner = self._linear(expr.operand)
                return None if inner is None else (inner[0], inner[2], inner[1])
            case Add():
                return _added([self._linear(term) for term in expr.terms])
            case Mul() | Div():
                return self._weighted(expr)
            case MatMul():
                return self._contracted(expr)
        return None

    def _weighted(self, expr: Mul | Div):
        left, right = expr.left, expr.right
        if isinstance(expr, Mul) and self.statics.holds(left):
            left, right = right, left
        if not self.statics.holds(right):
            return None
        inner = self._linear(left)
        if inner is None or not (right.type.is_scalar or right.type.rows == left.type.rows and right.type.cols == left.type.cols):
            return None
        weight = right if isinstance(expr, Mul) else algebra.div(algebra.const(1, right.type), right)
        return _scaled(inner, weight if (inner[1], inner[2]) in ((0, 1), (0, None), (None, 1)) else algebra.transpose(weight))

    def _contracted(self, expr: MatMul):
        if self.statics.holds(expr.left) and (inner := self._linear(expr.right)) is not None:
            if isinstance(expr.left, Diag):
                return _scaled(inner, _along(expr.left.operand, inner[1]))
            if expr.left.type.rows == ONE and inner[1] is not None:
                weights, _, cols = _scaled(inner, _along(algebra.transpose(expr.left), inner[1]))
                return weights, None, cols
        if self.statics.holds(expr.right) and (inner := self._linear(expr.left)) is not None:
            if isinstance(expr.right, Diag):
                return _scaled(inner, _along(expr.right.operand, inner[2]))
            if expr.right.type.cols == ONE and inner[2] is not None:
                weights, rows, _ = _scaled(inner, _along(expr.right, inner[2]))
                return weights, rows, None
        return None


def _mixes(kept: Expr) -> bool:
    """Whether entries of the state are summed over."""
    products = (n for n in nodes(kept) if isinstance(n, MatMul) and not isinstance(n.left, Diag) and not isinstance(n.right, Diag))
    return any(isinstance(n, Ref) and n.name.startswith("kept ") for product in products for n in nodes(product))


# --- arrays over the entries of a state --------------------------------------------------------------------------


def _along(column: Expr, axis: int) -> Expr:
    return column if axis == 0 else algebra.transpose(column)


def _scaled(linear, weight: Expr):
    return None if linear is None else ({name: _times(own, weight) for name, own in linear[0].items()}, *linear[1:])


def _added(parts: list):
    if any(part is None for part in parts) or len({part[1:] for part in parts}) > 1:
        return None
    total: dict[str, Expr] = {}
    for weights, *_ in parts:
        for name, weight in weights.items():
            if name in total and total[name].type != weight.type and not (total[name].type.is_scalar or weight.type.is_scalar):
                return None
            total[name] = algebra.add(total[name], weight) if name in total else weight
    return total, *parts[0][1:]


def _crossed(left: list[tuple[Expr, Expr]], right: list[tuple[Expr, Expr]]) -> list[tuple[Expr, Expr]]:
    return [(_times(a, c), _times(b, d)) for a, b in left for c, d in right]


def _times(left: Expr, right: Expr) -> Expr:
    """The product entry by entry, with columns and rows broadcast against each other."""
    a, b = left.type, right.type
    if a.is_scalar or b.is_scalar or (a.rows, a.cols) == (b.rows, b.cols):
        return algebra.mul(left, right)
    if not (a.is_column or a.is_row):
        left, right, a, b = right, left, b, a
    if a.is_column:
        return algebra.matmul(left if b.is_row else Diag(Type(a.rows, a.rows), NOWHERE, left), right)
    return algebra.matmul(right, left if b.is_column else Diag(Type(a.cols, a.cols), NOWHERE, algebra.transpose(left)))
