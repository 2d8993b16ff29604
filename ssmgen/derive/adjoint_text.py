"""The adjoint recurrence in lines of text, with the tokens as subscripts."""

from __future__ import annotations

from .. import algebra
from ..expressions import key, uses_index
from ..recurrence import Recurrence
from ..source import NOWHERE
from ..spec import Add, Delayed, Expr, Neg, Ref, StateRef, SumOver
from ..spec_text import expr_text
from .adjoint import Adjoint, ReadAdjoint


def adjoint_lines(recurrence: Recurrence, adjoint: Adjoint) -> tuple[str, ...]:
    """For one micro-step, equations in t; for several, what one token does, from its last micro-step to its first."""
    if len(recurrence.steps) == 1 and recurrence.steps[0].index is None:
        return tuple(_Equations(recurrence, adjoint).lines())
    return tuple(_Program(recurrence, adjoint).lines())


class _Words:
    """Expressions as text with subscripted names."""

    def __init__(self, recurrence: Recurrence, adjoint: Adjoint):
        self.recurrence = recurrence
        self.adjoint = adjoint
        self.statics = {s.name for s in recurrence.spec.symbols if s.static or s.kind == "param"}
        # a reversed recurrence comes from the token behind
        self.older, self.newer = ("t+1", "t-1") if recurrence.spec.time == "reversed" else ("t-1", "t+1")
        self.moving = {s.name for s in recurrence.spec.symbols} - self.statics
        self.gradients = {f"d{s.name}" for s in recurrence.spec.states}
        # an output that is one read lends it its name
        self.names = {value.name: name for name, value in recurrence.outputs if isinstance(value, Ref)}

    def text(self, expr: Expr, at: str) -> str:
        """`expr` with every per-token name subscripted `at`; states before the step belong to the token before."""
        before = {"": "", "t": self.older, self.newer: "t"}[at]

        def subscript(node: Expr) -> Expr | None:
            match node:
                case Ref(name=name) if name in self.gradients:
                    return _named(node, name, at)
                case Ref(name=name) if name.startswith("d_r"):
                    return _named(node, "d" + self.names.get(name[1:], name[1:].lstrip("_")), at)
                case Ref(name=name) if name in self.moving or name.endswith("~"):
                    return _named(node, name, at)
                case Delayed(name=name):
                    return _named(node, name, before) if at else None
                case StateRef(name=name, primed=primed) if at:
                    return _named(node, name, at if primed else before)
            return None

        terms = expr.terms if isinstance(expr, Add) else (expr,)
        return _joined([_signed(algebra.rewrite(term, subscript)) for term in terms])

    def factor(self, expr: Expr, at: str) -> str:
        """The gradient of a factor: `dk_t`, `d(exp(g_t))`."""
        if isinstance(expr, (Ref, Delayed)):
            return f"d{self.text(expr, at)}"
        return f"d({self.text(expr, at)})"

    def queries(self, reads: tuple[ReadAdjoint, ...]) -> list[tuple[Expr, Expr]]:
        """Each query once, with its gradient over all reads that use it."""
        found: dict[str, tuple[Expr, Expr]] = {}
        for read in reads:
            if read.query is not None:
                query, total = found.get(key(read.read.query), (read.read.query, None))
                found[key(query)] = query, read.query if total is None else algebra.add(total, read.query)
        return list(found.values())


def _signed(term: Expr) -> str:
    if isinstance(term, Neg) and not isinstance(term.operand, (Add, SumOver)):
        return f"-{expr_text(term.operand)}"
    return expr_text(term)


def _joined(terms: list[str]) -> str:
    """A sum of texts; a `sum` among others stands in brackets."""
    terms = [f"({term})" if term.startswith("sum ") and len(terms) > 1 else term for term in terms]
    text = terms[0]
    for term in terms[1:]:
        text += f" - {term[1:]}" if term.startswith("-") else f" + {term}"
    return text


def _named(node: Expr, name: str, at: str) -> Ref:
    braces = f"{{{at}}}" if len(at) > 1 else at
    return Ref(node.type, NOWHERE, f"{name}_{braces}" if at else name)


class _Equations(_Words):
    def lines(self):
        step = self.adjoint.steps[0]
        handed = dict(step.states)
        for state in self.recurrence.spec.states:
            terms = [handed[state.name]] if state.name in handed else []
            terms = [self.text(part, self.newer) for term in terms for part in (term.terms if isinstance(term, Add) else (term,))]
            for read in self.adjoint.reads:
                if read.read.state == state.name:
                    terms.append(self.text(read.state, "t" if read.read.primed else self.newer))
            yield f"d{state.name}_t = {_joined(terms or ['0'])}"
        for query, gradient in self.queries(self.adjoint.reads):
            yield f"{self.factor(query, 't')} = {self.text(gradient, 't')}"
        for factor, gradient in step.factors:
            yield f"{self.factor(factor, 't')} = {self.text(gradient, 't')}"
        for factor, gradient in step.delayed:
            # the write of t enters again a token later, through the gradient handed back from there
            yield f"{self.factor(factor, self.newer)} += {self.text(gradient, self.newer)}"


class _Program(_Words):
    def lines(self):
        yield from self._reads(True)
        for step, micro in reversed(list(zip(self.adjoint.steps, self.recurrence.steps, strict=True))):
            indent = ""
            if micro.index is not None:
                yield f"for {micro.index} in {micro.count}..1:"
                indent = "  "
            for factor, gradient in step.factors:
                # a factor of no micro-step in particular gathers over all of them
                shared = micro.index is not None and not uses_index(factor, micro.index)
                yield f"{indent}{self.factor(factor, '')} {'+=' if shared else '='} {self.text(gradient, '')}"
            for name, value in step.states:
                if not (isinstance(value, Ref) and value.name == f"d{name}"):
                    yield f"{indent}d{name} <- {self.text(value, '')}"
        yield from self._reads(False)

    def _reads(self, primed: bool):
        reads = tuple(read for read in self.adjoint.reads if read.read.primed == primed)
        for query, gradient in self.queries(reads):
            yield f"{self.factor(query, '')} = {self.text(gradient, '')}"
        for read in reads:
            yield f"d{read.read.state} += {self.text(read.state, '')}"
