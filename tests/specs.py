"""Specs built by hand, for tests of what comes after `resolve`: no text, no spans."""

from __future__ import annotations

from fractions import Fraction

from ssmgen import spec
from ssmgen.source import NOWHERE, Source
from ssmgen.spec import Dim, Expr, Type

SCALAR = Type()


def dim(name: str, coefficient: Fraction = Fraction(1)) -> Dim:
    return Dim(terms=((name, coefficient),))


def column(size: str | Dim) -> Type:
    return Type(dim(size) if isinstance(size, str) else size)


def matrix(rows: str, cols: str) -> Type:
    return Type(dim(rows), dim(cols))


def number(value: str | int) -> Expr:
    return spec.Const(SCALAR, NOWHERE, Fraction(value))


def ref(symbol: spec.Symbol) -> Expr:
    return spec.Ref(symbol.type, NOWHERE, symbol.name)


def before(state: spec.State) -> Expr:
    return spec.StateRef(state.type, NOWHERE, state.name, False)


def after(state: spec.State) -> Expr:
    return spec.StateRef(state.type, NOWHERE, state.name, True)


def transposed(x: Expr) -> Expr:
    return spec.Transpose(Type(x.type.cols, x.type.rows, x.type.field), NOWHERE, x)


def matmul(x: Expr, y: Expr) -> Expr:
    return spec.MatMul(Type(x.type.rows, y.type.cols, x.type.field), NOWHERE, x, y)


def mul(x: Expr, y: Expr) -> Expr:
    return spec.Mul(y.type if x.type.is_scalar else x.type, NOWHERE, x, y)


def add(*terms: Expr) -> Expr:
    widest = next((t.type for t in terms if not t.type.is_scalar), SCALAR)
    return spec.Add(widest, NOWHERE, terms)


def neg(x: Expr) -> Expr:
    return spec.Neg(x.type, NOWHERE, x)


def apply(function: str, *args: Expr, type: Type | None = None) -> Expr:
    return spec.Apply(type or args[0].type, NOWHERE, function, args)


def symbol(name: str, type: Type = SCALAR, kind: str = "input", per: str = "head", definition: Expr | None = None, **more) -> spec.Symbol:
    return spec.Symbol(name, kind, type, per, NOWHERE, definition, **more)


def state(name: str, type: Type = SCALAR, per: str = "head") -> spec.State:
    return spec.State(name, type, per, NOWHERE)


def assign(target: spec.State, value: Expr) -> spec.Assignment:
    return spec.Assignment(target.name, value, NOWHERE)


def recurrence(name: str, symbols, states, update=(), output: Expr | None = None, dims=(), **more) -> spec.Recurrence:
    fields = dict(counts=(), constants=(), dynamics=(), discretization=None) | more
    return spec.Recurrence(
        name=name,
        source=Source(f"{name}.ssm", ""),
        comment="",
        dims=tuple(dims),
        symbols=tuple(symbols),
        states=tuple(states),
        update=tuple(update),
        outputs=(spec.Output("y", output, NOWHERE),),
        **fields,
    )
