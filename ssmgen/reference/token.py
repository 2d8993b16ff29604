"""The lines of one token of the eager reference: definitions, update, output, in an order that respects what reads what."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

from .. import algebra, spec
from ..backends.eager_text import ATOM, Names, range_text, terms_of, text_of
from ..backends.torch_text import RESERVED, identifier
from ..discretizations import _method as formulas
from ..discretizations import methods
from ..discretizations._method import Formula
from ..expressions import nodes
from ..source import Source, Span
from ..spec import ONE, Dim, Expr, Symbol, Type
from ..spec_text import expr_text
from .rates import Rate, has_two_sides, rate_of

WIDTH = 140
MODULES = ("F", "Tensor", "math", "torch")
DECLARATIONS = ("transition", "field", "write", "mimo", "taps", "readout")
BUILT_IN = ("head", "heads", "channel", "channels", "position")


def quoted(source: Source, span: Span) -> str:
    """The text under a span on one line, its own comments left out."""
    lines = (line.split("#", 1)[0] for line in source.slice(span).splitlines())
    return " ".join(" ".join(lines).split())


def said(source: Source, value: Expr) -> str:
    """What the spec says for a value; "" for a value of no text. Where a declaration stands for an equation, the equation."""
    text = quoted(source, value.span)
    return expr_text(value) if text.split(" ", 1)[0] in DECLARATIONS else text


def wrap(text: str, width: int, first: str = "", rest: str = "    ") -> list[str]:
    """Lines of at most `width` characters, broken between words."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)


def expressions(recurrence: spec.Recurrence) -> Iterator[Expr]:
    """Every expression that a token evaluates, in order of writing."""
    for symbol in recurrence.symbols:
        if symbol.definition is not None:
            yield symbol.definition
    for item in recurrence.update:
        yield from (a.value for a in (item.body if isinstance(item, spec.MicroLoop) else (item,)))
    for dynamics in recurrence.dynamics:
        yield dynamics.value
        if dynamics.before is not None:
            yield dynamics.before
    if recurrence.discretization is not None:
        yield from recurrence.discretization.args
    yield from (o.value for o in recurrence.outputs)


class Scope:
    """What a recurrence's names are called in the emitted text, and which of them change from token to token."""

    def __init__(self, recurrence: spec.Recurrence):
        self.spec = recurrence
        self.symbols = {s.name: s for s in recurrence.symbols}
        self.inputs = tuple(s for s in recurrence.symbols if s.kind == "input" and s.definition is None)
        self.inputs += tuple(s for s in recurrence.symbols if s.kind == "gate" and s.definition is None)
        self.inputs = tuple(sorted(self.inputs, key=recurrence.symbols.index))
        self.params = tuple(s for s in recurrence.symbols if s.kind == "param" and s.definition is None)
        per = [s.per for s in (*recurrence.states, *recurrence.symbols)]
        self.letter = "C" if "channel" in per else "H"
        found = [node for expr in expressions(recurrence) for node in nodes(expr)]
        reads_position = [spec.Ref(Type(), n.span, "position") for n in found if isinstance(n, spec.Apply) and n.function == "rope"]
        self.has_position = any(isinstance(n, spec.Ref) and n.name == "position" for n in (*found, *reads_position))
        delayed = {n.name for n in found if isinstance(n, spec.Delayed)}
        self.delayed = tuple(s for s in recurrence.symbols if s.name in delayed)
        self._taken = {identifier(s.name) for s in (*recurrence.symbols, *recurrence.states)}
        self._taken |= {identifier(name) for name, _ in (*recurrence.dims, *recurrence.counts, *recurrence.constants)}
        self.after = {s.name: self.fresh(f"{identifier(s.name)}_next") for s in recurrence.states}
        self.rates = {d.state: self.fresh(f"{identifier(d.state)}_rate") for d in recurrence.dynamics}
        self.writes = {d.state: self.fresh(f"{identifier(d.state)}_write") for d in recurrence.dynamics}
        self.last_writes = {d.state: self.fresh(f"{self.writes[d.state]}_previous") for d in recurrence.dynamics if d.before is not None}
        self.names = self._names(found)

    def fresh(self, name: str, *, local: bool = False) -> str:
        """`name`, with `_` behind until nothing else is called so; a `local` one need not differ from the other functions' names."""
        used = MODULES if local else RESERVED
        while name in self._taken or name in used or keyword.iskeyword(name):
            name += "_"
        self._taken.add(name)
        return name

    def _names(self, found: list[Expr]) -> Names:
        recurrence = self.spec
        numbers = [name for name, _ in (*recurrence.constants, *recurrence.counts)]
        values = {name: name for name in BUILT_IN} | {name: identifier(name) for name in (*numbers, *self.symbols)}
        before = {s.name: identifier(s.name) for s in recurrence.states}
        sizes = dict.fromkeys(n.type.rows for n in found if isinstance(n, spec.Identity))
        for item in (item for item in recurrence.dynamics if not has_two_sides(item)):
            state = recurrence.state(item.state)
            rate = rate_of(item, state)
            size = state.type.cols if rate.kind == "right" else state.type.rows
            sizes[size if rate.conjugates is None else _twice(size)] = None
        return Names(
            values=values,
            numbers=frozenset([*numbers, "heads", "channels"]),
            delayed={s.name: self.fresh(f"{identifier(s.name)}_previous") for s in self.delayed},
            before=before,
            after=before,
            identities={size: self.fresh("I" if len(sizes) == 1 else f"I_{i}") for i, size in enumerate(sizes)},
        )

    # --- what reads what ---------------------------------------------------------------------------------------------

    def uses(self, expr: Expr) -> set[str]:
        """Names read by `expr`, through definitions: symbols, `S` and `S'` for states, `x[-1]`, `position`."""
        found: set[str] = set()
        waiting = [expr]
        while waiting:
            for node in nodes(waiting.pop()):
                name = self._name_read(node)
                if name is None or name in found:
                    continue
                found.add(name)
                if name in self.symbols and self.symbols[name].definition is not None:
                    waiting.append(self.symbols[name].definition)
        return found

    def _name_read(self, node: Expr) -> str | None:
        match node:
            case spec.Ref():
                return node.name
            case spec.StateRef():
                return f"state {node.name}" + ("'" if node.primed else "")
            case spec.Delayed():
                return f"{node.name}[-1]"
            case spec.Apply(function="rope"):
                return "position"
        return None

    def is_static(self, symbol: Symbol) -> bool:
        """True when the value is the same for every token."""
        if symbol.definition is None:
            return symbol.kind == "param"
        changing = {s.name for s in self.inputs} | {"position"}
        return not any(use in changing or use.startswith("state ") or use.endswith("[-1]") for use in self.uses(symbol.definition))

    # --- the state ---------------------------------------------------------------------------------------------------

    def parts(self) -> Iterable[tuple[str, Type, str]]:
        """Name, type and `per` of every tensor handed from token to token, `position` left out."""
        for state in self.spec.states:
            yield identifier(state.name), state.type, state.per
        for symbol in self.delayed:
            per = "layer" if symbol.per == "layer" else "head"
            yield self.names.delayed[symbol.name], symbol.type, per

    def part_shapes(self) -> list[str]:
        """The two dimensions of every part inside the loop, in the order of the state."""
        shapes = [f"[{type_.rows}, {type_.cols}]" for _, type_, _ in self.parts()]
        return [*shapes, "[1, 1], tokens so far"] if self.has_position else shapes

    # --- comments and lines ------------------------------------------------------------------------------------------

    def comment(self, left: str, value: Expr) -> list[str]:
        """The spec's line behind its place, or nothing where nobody wrote it."""
        source, text = self.spec.source, said(self.spec.source, value)
        if not text:
            return []
        place = f"{source.name.rsplit('/', 1)[-1]}:{source.position(value.span.start)[0]}"
        return wrap(f"{place}  {left} = {text}", WIDTH - 8, first="# ", rest="#     ")

    def definition_lines(self, symbol: Symbol, names: Names | None = None, depth: int = 0) -> list[str]:
        """`dt = F.softplus(...)` under the line that says so."""
        code = self.assign(identifier(symbol.name), symbol.definition, names or self.names, depth)
        return [*self.comment(symbol.name, symbol.definition), *code]

    def assign(self, target: str, value: Expr, names: Names, depth: int = 0) -> list[str]:
        """`target = value`, in as many lines as it takes: what occurs twice in a long line gets a name of its own."""
        lines: list[str] = []
        while True:
            text = text_of(value, names)
            room = WIDTH - 4 * (depth + 1)
            if len(target) + 3 + len(text.text) <= room:
                return [*lines, f"{target} = {text.text}"]
            terms = terms_of(value, names)
            if len(terms) > 1 and max(map(len, terms)) + 4 <= room:
                return [*lines, f"{target} = (", *(f"    {term}" for term in terms), ")"]
            part = _worth_naming(value)
            if part is None:
                return [*lines, f"{target} = {text.text}"]
            name = self.fresh(f"{target}_part")
            lines += self.assign(name, part, names, depth)
            value = _replaced(value, part, spec.Ref(part.type, part.span, name))
            names = replace(names, values={**names.values, name: name})


def _worth_naming(value: Expr) -> Expr | None:
    """The largest part of a value that occurs more than once; failing that, its largest bracket, then call. None when it has none."""
    bound = {n.index for n in nodes(value) if isinstance(n, spec.SumOver)}

    def is_free(part: Expr) -> bool:
        return not any(isinstance(n, spec.Element) and n.index in bound or isinstance(n, spec.Ref) and n.name in bound for n in nodes(part))

    parts = [n for n in nodes(value) if n is not value and sum(1 for _ in nodes(n)) > 3 and is_free(n)]
    repeated = [n for n in parts if sum(n == other for other in parts) > 1]
    brackets = [n for n in parts if isinstance(n, (spec.Add, spec.SumOver))]
    calls = [n for n in parts if isinstance(n, spec.Apply)]
    return max(repeated or brackets or calls, key=lambda n: sum(1 for _ in nodes(n)), default=None)


def _replaced(value: Expr, part: Expr, by: Expr) -> Expr:
    """`value` with every occurrence of `part` replaced; nothing else changes."""
    if value == part:
        return by
    changes = {}
    for entry in fields(value):
        old = getattr(value, entry.name)
        if isinstance(old, Expr):
            changes[entry.name] = _replaced(old, part, by)
        elif isinstance(old, tuple):
            changes[entry.name] = tuple(_replaced(item, part, by) if isinstance(item, Expr) else item for item in old)
    return replace(value, **changes)


class TokenWriter:
    """Prints one token. A value that reads `S'` is printed where `S'` has been assigned, and again if it changes."""

    def __init__(self, scope: Scope):
        self.scope = scope
        self.names = scope.names
        self.version = {state.name: 0 for state in scope.spec.states}
        self.printed: dict[str, tuple[int, ...]] = {}

    def lines(self) -> tuple[str, ...]:
        """Definitions, update, output and the return of one token."""
        recurrence = self.scope.spec
        lines = self.early_definitions()
        for item in recurrence.update:
            lines += self.micro_loop(item) if isinstance(item, spec.MicroLoop) else self.assignment(item)
        lines += self.dynamics()
        lines += self.output(recurrence.outputs[0])
        return tuple(lines)

    # --- definitions -------------------------------------------------------------------------------------------------

    def early_definitions(self) -> list[str]:
        """Everything needed that does not read the state after the token."""
        scope = self.scope
        needed = set().union(*(scope.uses(e) for e in self._roots())) | {s.name for s in scope.delayed}
        for symbol in scope.delayed:
            needed |= scope.uses(symbol.definition) if symbol.definition is not None else set()
        lines = []
        for symbol in scope.spec.symbols:
            if symbol.name in needed and self._is_local(symbol) and not self._primed(symbol):
                self.printed[symbol.name] = ()
                lines += scope.definition_lines(symbol, self.names)
        return lines

    def _roots(self) -> Iterator[Expr]:
        definitions = {id(s.definition) for s in self.scope.spec.symbols}
        return (e for e in expressions(self.scope.spec) if id(e) not in definitions)

    def _is_local(self, symbol: Symbol) -> bool:
        return symbol.definition is not None and not self.scope.is_static(symbol)

    def _primed(self, symbol: Symbol) -> list[str]:
        uses = self.scope.uses(symbol.definition)
        return [state.name for state in self.scope.spec.states if f"state {state.name}'" in uses]

    def late_definitions(self, exprs: Iterable[Expr]) -> list[str]:
        """The definitions that `exprs` need and that read a state as it has just been assigned."""
        needed = set().union(*(self.scope.uses(e) for e in exprs))
        lines = []
        for symbol in self.scope.spec.symbols:
            if symbol.name in needed and self._is_local(symbol) and (states := self._primed(symbol)):
                version = tuple(self.version[state] for state in states)
                if self.printed.get(symbol.name) != version:
                    self.printed[symbol.name] = version
                    lines += self.scope.definition_lines(symbol, self.names)
        return lines

    # --- update ------------------------------------------------------------------------------------------------------

    def assignment(self, item: spec.Assignment, depth: int = 0) -> list[str]:
        lines = self.late_definitions([item.value])
        code = self.scope.assign(self.scope.after[item.state], item.value, self.names, depth)
        lines += [*self.scope.comment(f"{item.state}'", item.value), *code]
        self._assigned(item.state)
        return lines

    def _assigned(self, state: str) -> None:
        self.version[state] += 1
        self.names = replace(self.names, after={**self.names.after, state: self.scope.after[state]})

    def micro_loop(self, loop: spec.MicroLoop) -> list[str]:
        lines = []
        for state in dict.fromkeys(a.state for a in loop.body):
            if self.version[state] == 0:
                lines.append(f"{self.scope.after[state]} = {self.names.before[state]}")
                self._assigned(state)
        outer, index = self.names, identifier(loop.index)
        self.names = replace(outer, values={**outer.values, loop.index: index}, numbers=outer.numbers | {loop.index})
        self.printed = {name: version for name, version in self.printed.items() if version == ()}
        body = [line for item in loop.body for line in self.assignment(item, depth=1)]
        self.names = replace(self.names, values=outer.values, numbers=outer.numbers)
        return [*lines, f"for {index} in {range_text(loop.count)}:", *(f"    {line}" for line in body)]

    # --- dynamics ----------------------------------------------------------------------------------------------------

    def dynamics(self) -> list[str]:
        """The textbook step of the discretization, from the rate and the write as they are written."""
        recurrence = self.scope.spec
        if not recurrence.dynamics:
            return []
        weights = formulas.coefficients(methods()[recurrence.discretization.method].write)
        if weights is not None and (len(weights) > 1 and self._feed_each_other() or any(map(has_two_sides, recurrence.dynamics))):
            return self._stages(weights)
        lines = []
        is_polynomial = formulas.coefficients(methods()[recurrence.discretization.method].transition) is not None
        groups = [(item,) for item in recurrence.dynamics] if is_polynomial else self._groups()
        for group in (group for group in groups if len(group) > 1):
            lines += self._solved_together(group)
        for item in (group[0] for group in groups if len(group) == 1):
            rate = rate_of(item, recurrence.state(item.state))
            lines += self.late_definitions([item.value, *recurrence.discretization.args])
            lines += self.scope.comment(f"d{item.state}/dt", item.value)
            lines += self._rate(item.state, rate)
            if rate.write is not None:
                lines += self.scope.assign(self.scope.writes[item.state], rate.write, self.names)
            if item.before is not None:
                lines += self.scope.assign(self.scope.last_writes[item.state], item.before, self.names)
            if rate.kind != "elementwise" and rate.conjugates is None and recurrence.state(item.state).type.field == "complex":
                lines += self._as_complex(item, rate)
            lines += self._step(item.state, rate.kind, rate.write is not None, rate.conjugates is not None)
        for item in recurrence.dynamics:
            self._assigned(item.state)
        return lines

    def _as_complex(self, item: spec.Dynamics, rate: Rate) -> list[str]:
        """What is real beside a complex state, and meets it in products of matrices."""
        scope = self.scope
        parts = ((scope.rates, rate.rate), (scope.writes, rate.write), (scope.last_writes, item.before))
        own = [names[item.state] for names, value in parts if value is not None and value.type.field == "real"]
        return [f"{name} = _complex({name})" for name in own]

    def _feed_each_other(self) -> bool:
        """Whether the rate of a state reads another one."""
        states = {f"state {s.name}" for s in self.scope.spec.states}
        return any((self.scope.uses(item.value) & states) - {f"state {item.state}"} for item in self.scope.spec.dynamics)

    def _groups(self) -> list[tuple[spec.Dynamics, ...]]:
        """Equations of states that feed each other, directly or by way of others."""
        items = self.scope.spec.dynamics
        reads = [self.scope.uses(item.value) | {f"state {item.state}"} for item in items]
        group = list(range(len(items)))
        for i, item in enumerate(items):
            for j in (j for j in range(len(items)) if f"state {item.state}" in reads[j] and group[i] != group[j]):
                group = [group[i] if number == group[j] else number for number in group]
        return [tuple(item for item, g in zip(items, group, strict=True) if g == number) for number in dict.fromkeys(group)]

    def _solved_together(self, group: tuple[spec.Dynamics, ...]) -> list[str]:
        """Of states that feed each other entry by entry: a matrix of rates for every entry, and the step of all of them at once."""
        scope, method = self.scope, self.scope.spec.discretization.method
        states = [scope.spec.state(item.state) for item in group]
        words = ("ones", "rates", "held", "written", "last", "solved", "step", "carried", "left")
        ones, rates, held, written, last, solved, step, carried, left = (scope.fresh(word, local=True) for word in words)
        first = self.names.before[states[0].name]
        lines = [f"# {', '.join(state.name for state in states)} together, entry by entry", f"{ones} = torch.ones_like({first})"]
        writes, before = [], []
        for item in group:
            lines += self.late_definitions([item.value, *scope.spec.discretization.args])
            lines += scope.comment(f"d{item.state}/dt", item.value)
            entries = []
            for state in states:
                alone = replace(item, state=state.name, value=_without(item.value, {s.name for s in states} - {state.name}))
                entries.append(scope.fresh(f"{identifier(item.state)}_by_{identifier(state.name)}", local=True))
                lines += scope.assign(entries[-1], rate_of(alone, state).rate, self.names)
            row = ", ".join(f"{entry} * {ones}" for entry in entries)
            lines.append(f"{scope.rates[item.state]} = torch.stack([{row}], dim=-1)")
            lines += scope.assign(scope.writes[item.state], _without(item.value, {s.name for s in states}), self.names)
            writes.append(f"{scope.writes[item.state]} * {ones}")
            if item.before is not None:
                lines += scope.assign(scope.last_writes[item.state], item.before, self.names)
            before.append(f"{scope.last_writes.get(item.state, 0)} * {ones}")
        law, transition, write = STEPS["matrix"][method]
        eye = f"torch.eye({len(group)}, dtype={first}.dtype, device={first}.device)"
        parts = {"S": held, "A": rates, "b": written, "last": last, "dt": step}
        if len(scope.spec.discretization.args) > 1:
            parts["lam"] = text_of(scope.spec.discretization.args[1], self.names).at(ATOM)
        lines += [f"{rates} = torch.stack([{', '.join(scope.rates[s.name] for s in states)}], dim=-2)"]
        lines += [f"{held} = torch.stack([{', '.join(self.names.before[s.name] for s in states)}], dim=-1)[..., None]"]
        lines += [f"{written} = torch.stack([{', '.join(writes)}], dim=-1)[..., None]"]
        if "{last}" in transition + write:
            lines += [f"{last} = torch.stack([{', '.join(before)}], dim=-1)[..., None]"]
        lines += [f"{step} = ({self._step_size(states[0].name)} * {ones})[..., None, None]", f"# {method}: {law}"]
        value = f"{transition} + {write}".format(**parts)
        if method in INVERSES:
            lines += [f"{left} = {eye} - {INVERSES[method].format(**parts)} * {rates}"]
            lines += [f"{carried} = {value}", f"{solved} = torch.linalg.solve({left}, {carried})"]
        else:
            lines += [f"{solved} = {value}"]
        return lines + [f"{scope.after[s.name]} = {solved}[..., {i}, 0]" for i, s in enumerate(states)]

    def _stages(self, weights: tuple[Formula, ...]) -> list[str]:
        """A Runge-Kutta method whose input is held, of states that feed each other or are multiplied from both sides: the inner brackets
        first, of all states at once."""
        items, names = self.scope.spec.dynamics, self.names
        numbers = [weight.value for weight in weights]
        law = formulas.text(methods()[self.scope.spec.discretization.method].write)
        lines = [f"# {self.scope.spec.discretization.method}: S' = S + dt ({law}) (A S + b), z = dt A, for all states together"]
        stages: dict[str, str] = {}
        for item in items:
            lines += self.late_definitions([item.value, *self.scope.spec.discretization.args])
            lines += self.scope.comment(f"d{item.state}/dt", item.value)
            stages[item.state] = self.scope.fresh(f"{identifier(item.state)}_slope", local=True)
            lines += self.scope.assign(stages[item.state], item.value, names)
            zero = algebra.rewrite(item.value, lambda n: algebra.const(0, n.type) if isinstance(n, spec.StateRef) else None)
            lines += self.scope.assign(self.scope.writes[item.state], zero, names)
        slopes = dict(stages)
        for level, (weight, lower) in enumerate(zip(reversed(numbers[1:]), reversed(numbers[:-1]), strict=True), 1):
            inner, at = dict(stages), replace(names, before={**names.before, **stages})
            for item in items:
                step, slope, word = self._step_size(item.state), slopes[item.state], f"{identifier(item.state)}_stage{level}"
                stages[item.state] = self.scope.fresh(word, local=True)
                lines += self.scope.assign(stages[item.state], item.value, replace(at, after={**at.after, **inner}))
                carried = f"({stages[item.state]} - {self.scope.writes[item.state]})"
                lines.append(f"{stages[item.state]} = {slope} + {step} / {lower / weight} * {carried}")
        for item in items:
            before = names.before[item.state]
            lines.append(f"{self.scope.after[item.state]} = {before} + {self._step_size(item.state)} * {stages[item.state]}")
        for item in items:
            self._assigned(item.state)
        return lines

    def _rate(self, state: str, rate: Rate) -> list[str]:
        text = text_of(rate.rate, self.names)
        if text.is_number and rate.kind != "elementwise":
            return [f"{self.scope.rates[state]} = torch.tensor({text.text}, dtype=dtype)"]
        if rate.conjugates is not None:
            # the state above its conjugate obeys an equation without real parts
            own, other = (self.scope.fresh(f"{identifier(state)}_{word}", local=True) for word in ("own", "other"))
            lines = [*self.scope.assign(own, rate.rate, self.names), *self.scope.assign(other, rate.conjugates, self.names)]
            return [*lines, f"{self.scope.rates[state]} = _beside({own}, {other})"]
        return self.scope.assign(self.scope.rates[state], rate.rate, self.names)

    def _step(self, state: str, kind: str, has_write: bool, is_twofold: bool) -> list[str]:
        method = self.scope.spec.discretization.method
        args = [text_of(arg, self.names) for arg in self.scope.spec.discretization.args]
        weights = formulas.coefficients(methods()[method].write)
        if method not in STEPS[kind] and weights is not None:
            return self._explicit(state, kind, has_write, weights, is_twofold)
        law, transition, write = STEPS[kind][method]
        type_ = self.scope.spec.state(state).type
        size = type_.cols if kind == "right" else _twice(type_.rows) if is_twofold else type_.rows
        above = "_above({})" if is_twofold else "{}"
        twofold = self.scope.fresh(f"{identifier(state)}_twofold", local=True) if is_twofold else ""
        words = {
            "S": twofold or self.names.before[state],
            "A": self.scope.rates[state],
            "b": above.format(self.scope.writes[state]),
            "last": above.format(self.scope.last_writes.get(state, "")),
            "I": self.names.identities.get(size, ""),
            "dt": self._step_size(state) if args else "",
            "lam": args[1].at(ATOM) if len(args) > 1 else "",
        }
        value = transition + (f" + {write}" if has_write else "")
        if kind != "elementwise" and method in INVERSES:
            value = f"torch.linalg.solve({{I}} - {INVERSES[method]} * {{A}}, {value}{', left=False' if kind == 'right' else ''})"
        comment = f"# {method}: {law}"
        value = value.format(**words)
        if is_twofold:
            lines = [f"{twofold} = _above({self.names.before[state]})", comment, f"{twofold} = {value}"]
            return [*lines, f"{self.scope.after[state]} = _upper({twofold})"]
        return [comment, f"{self.scope.after[state]} = {value}"]

    def _step_size(self, state: str) -> str:
        """The step size as it multiplies entries of the state: one a column of the state lies along them."""
        step, type_ = self.scope.spec.discretization.args[0], self.scope.spec.state(state).type
        is_along = step.type.is_column and not step.type.is_scalar and step.type.rows != type_.rows
        return text_of(step, self.names).at(ATOM) + (".mT" if is_along else "")

    def _explicit(self, state: str, kind: str, has_write: bool, weights: tuple[Formula, ...], is_twofold: bool) -> list[str]:
        """A Runge-Kutta method whose input is held: S' = S + dt (w0 + w1 z + w2 z^2 + ...) (A S + b), z = dt A."""
        recurrence = self.scope.spec
        dt = self._step_size(state)
        before, rate, write = self.names.before[state], self.scope.rates[state], self.scope.writes[state]
        if is_twofold:
            before, write = f"_above({before})", f"_above({write})"
        by = {"elementwise": "{A} * {x}", "matrix": "{A} @ {x}", "right": "{x} @ {A}"}[kind]
        slope = self.scope.fresh(f"{identifier(state)}_slope", local=True)
        lines = [f"{slope} = {by.format(A=rate, x=before)}" + (f" + {write}" if has_write else "")]
        numbers = [weight.value for weight in weights]
        total = slope
        for weight, lower in zip(reversed(numbers[1:]), reversed(numbers[:-1]), strict=True):
            ratio = lower / weight
            total = f"({slope} + {dt} / {ratio} * {by.format(A=rate, x=total)})"
        law = formulas.text(methods()[recurrence.discretization.method].write)
        comment = f"# {recurrence.discretization.method}: S' = S + dt ({law}) (A S + b), z = dt A"
        value = f"{before} + {dt} * {total}"
        return [comment, *lines, f"{self.scope.after[state]} = {f'_upper({value})' if is_twofold else value}"]

    # --- output ------------------------------------------------------------------------------------------------------

    def output(self, item: spec.Output) -> list[str]:
        """The output's line and the return: the output, then every part of the state as it leaves the token."""
        scope = self.scope
        lines = self.late_definitions([item.value, *(s.definition for s in scope.delayed if s.definition is not None)])
        name = scope.fresh(item.name, local=True)
        left = item.name if item.index is None else f"{item.name}[{item.index}]"
        lines += scope.comment(left, item.value)
        if item.index is None:
            lines += scope.assign(name, item.value, self.names)
        else:
            lines.append(f"{name} = {self._rows_text(item)}")
        states = [self.names.after[s.name] for s in scope.spec.states]
        delayed = [identifier(s.name) for s in scope.delayed]
        position = ["position + 1"] if scope.has_position else []
        return [*lines, f"return {', '.join([name, *states, *delayed, *position])}"]

    def _rows_text(self, item: spec.Output) -> str:
        index = identifier(item.index)
        values, numbers = {**self.names.values, item.index: index}, self.names.numbers | {item.index}
        body = text_of(item.value, replace(self.names, values=values, numbers=numbers))
        is_tall = item.value.type.cols == ONE and item.value.type.rows != ONE
        return f"torch.cat([{body.at(ATOM) + '.mT' if is_tall else body.text} for {index} in {range_text(item.count)}], dim=-2)"


def _without(value: Expr, states: set[str]) -> Expr:
    """A value where these states are 0."""
    return algebra.rewrite(value, lambda n: algebra.const(0, n.type) if isinstance(n, spec.StateRef) and n.name in states else None)


def _twice(size: Dim) -> Dim:
    return Dim(2 * size.constant, tuple((name, 2 * c) for name, c in size.terms))


_TRAPEZOID = "S' = exp(dt A) (S + (1 - lam) dt b_previous) + lam dt b"
_BOTH = "S' = S + dt/2 (A S + b_previous) + dt/2 (A S' + b)"
_LAST = "({S} + (1 - {lam}) * {dt} * {last})"
_HELD = "S' = exp(dt A) S + A^-1 (exp(dt A) - 1) b"

STEPS: dict[str, dict[str, tuple[str, str, str]]] = {
    "elementwise": {
        "none": ("S' = A S + b", "{A} * {S}", "{b}"),
        "euler": ("S' = S + dt (A S + b)", "{S} + {dt} * {A} * {S}", "{dt} * {b}"),
        "exp_euler": ("S' = exp(dt A) S + dt b", "torch.exp({dt} * {A}) * {S}", "{dt} * {b}"),
        "zoh": (_HELD, "torch.exp({dt} * {A}) * {S}", "{dt} * _phi({dt} * {A}, 1) * {b}"),
        "implicit_euler": ("S' = (1 - dt A)^-1 (S + dt b)", "{S} / (1 - {dt} * {A})", "{dt} / (1 - {dt} * {A}) * {b}"),
        "bilinear": (
            "S' = (1 - dt A / 2)^-1 ((1 + dt A / 2) S + dt b)",
            "(1 + {dt} / 2 * {A}) / (1 - {dt} / 2 * {A}) * {S}",
            "{dt} / (1 - {dt} / 2 * {A}) * {b}",
        ),
        "trapezoid": (
            _BOTH,
            "(1 + {dt} / 2 * {A}) / (1 - {dt} / 2 * {A}) * {S}",
            "{dt} / 2 / (1 - {dt} / 2 * {A}) * ({b} + {last})",
        ),
        "exp_trapezoid": (_TRAPEZOID, f"torch.exp({{dt}} * {{A}}) * {_LAST}", "{lam} * {dt} * {b}"),
    },
    "matrix": {
        "none": ("S' = A S + b", "{A} @ {S}", "{b}"),
        "euler": ("S' = S + dt (A S + b)", "{S} + {dt} * {A} @ {S}", "{dt} * {b}"),
        "exp_euler": ("S' = exp(dt A) S + dt b", "torch.matrix_exp({dt} * {A}) @ {S}", "{dt} * {b}"),
        "zoh": (_HELD, "torch.matrix_exp({dt} * {A}) @ {S}", "{dt} * _phi_matrix({dt} * {A}) @ {b}"),
        "implicit_euler": ("S' = (I - dt A)^-1 (S + dt b)", "{S}", "{dt} * {b}"),
        "bilinear": ("S' = (I - dt A / 2)^-1 ((I + dt A / 2) S + dt b)", "{S} + {dt} / 2 * {A} @ {S}", "{dt} * {b}"),
        "trapezoid": (_BOTH, "{S} + {dt} / 2 * {A} @ {S}", "{dt} / 2 * ({b} + {last})"),
        "exp_trapezoid": (_TRAPEZOID, f"torch.matrix_exp({{dt}} * {{A}}) @ {_LAST}", "{lam} * {dt} * {b}"),
    },
    "right": {
        "none": ("S' = S A + b", "{S} @ {A}", "{b}"),
        "euler": ("S' = S + dt (S A + b)", "{S} + {dt} * {S} @ {A}", "{dt} * {b}"),
        "exp_euler": ("S' = S exp(dt A) + dt b", "{S} @ torch.matrix_exp({dt} * {A})", "{dt} * {b}"),
        "zoh": ("S' = S exp(dt A) + b A^-1 (exp(dt A) - 1)", "{S} @ torch.matrix_exp({dt} * {A})", "{dt} * {b} @ _phi_matrix({dt} * {A})"),
        "implicit_euler": ("S' = (S + dt b) (I - dt A)^-1", "{S}", "{dt} * {b}"),
        "bilinear": ("S' = (S (I + dt A / 2) + dt b) (I - dt A / 2)^-1", "{S} + {dt} / 2 * {S} @ {A}", "{dt} * {b}"),
        "trapezoid": (_BOTH, "{S} + {dt} / 2 * {S} @ {A}", "{dt} / 2 * ({b} + {last})"),
        "exp_trapezoid": (
            "S' = (S + (1 - lam) dt b_previous) exp(dt A) + lam dt b",
            f"{_LAST} @ torch.matrix_exp({{dt}} * {{A}})",
            "{lam} * {dt} * {b}",
        ),
    },
}
"""By the side and kind of the rate A: the law, the part that carries the state, the part that writes."""

INVERSES = {"implicit_euler": "{dt}", "bilinear": "{dt} / 2", "trapezoid": "{dt} / 2"}
"""Methods that solve (I - this A) S' = carried + written."""
