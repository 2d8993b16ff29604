"""Reading expressions: their operands, names, factors, and equality up to reordering."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from .functions import names as names_of
from .source import NOWHERE, Span
from .spec import (
    Add,
    Apply,
    Const,
    Delayed,
    Diag,
    Dim,
    Div,
    Element,
    Expr,
    Identity,
    MatMul,
    Mul,
    Neg,
    Pow,
    Ref,
    Rot,
    SizeOf,
    Skew,
    StateRef,
    SumOver,
    Transpose,
    Type,
)

OF_MATRICES = names_of("square")
"""Functions of a square matrix as a whole. Those of a complex one have parts, as `matrix_exp_re(X, Y)` of X + i Y."""

OF_ENTRIES = ("entries_exp", "entries_phi1")
"""Functions of a small matrix at every entry: `entries_exp(i, j, ...)` is entry (i, j), from 0, of that of the entries that follow."""

# --- reading -----------------------------------------------------------------------------------------------------


def children(expr: Expr) -> tuple[Expr, ...]:
    """The operands of one node, in order."""
    match expr:
        case Apply():
            return expr.args
        case Add():
            return expr.terms
        case Mul() | Div() | MatMul():
            return (expr.left, expr.right)
        case Neg() | Transpose() | Diag() | Rot() | Skew():
            return (expr.operand,)
        case Pow():
            return (expr.base, expr.exponent)
        case Element():
            return (expr.base,)
        case SumOver():
            return (expr.body,)
    return ()


def is_full_product(expr: Expr, states: Collection[str] = ()) -> bool:
    """A product, no number, with a matrix that may have an entry for every row and column: made of a name of its shape, and of none
    of `states`, before or after a token."""
    if not isinstance(expr, MatMul) or expr.type.is_scalar or isinstance(expr.left, Diag) or isinstance(expr.right, Diag):
        return False
    return any(_is_full_matrix(side, states) for side in (expr.left, expr.right))


def _is_full_matrix(expr: Expr, states: Collection[str]) -> bool:
    type = expr.type
    shapes = (type, replace(type, rows=type.cols, cols=type.rows))
    names = [n for n in nodes(expr) if isinstance(n, (Ref, StateRef))]
    if type.is_scalar or type.is_column or type.is_row or any(is_state(n, states) for n in names):
        return False
    return any(n.type in shapes for n in names) or any(is_matrix_function(n) and n.type in shapes for n in nodes(expr))


def is_matrix_function(expr: Expr) -> bool:
    """A function of a square matrix as a whole."""
    return isinstance(expr, Apply) and expr.function.removesuffix("_re").removesuffix("_im") in OF_MATRICES


def is_made_outside(expr: Expr) -> bool:
    """A function of a matrix, whole or at every entry, which stands before the recurrence."""
    return is_matrix_function(expr) or (isinstance(expr, Apply) and expr.function in OF_ENTRIES)


def is_state(node: Expr, states: Collection[str]) -> bool:
    """Whether a name is one of `states`: `S`, `S'`, `S'1` after a step, `kept S`."""
    if isinstance(node, StateRef):
        return True
    return isinstance(node, Ref) and node.name.removeprefix("kept ").split("'")[0] in states


def nodes(expr: Expr):
    """Every node, parents first, left to right."""
    yield expr
    for operand in children(expr):
        yield from nodes(operand)


def reads_state(expr: Expr) -> bool:
    """True when a `StateRef` occurs."""
    return any(isinstance(node, StateRef) for node in nodes(expr))


def references(expr: Expr) -> tuple[str, ...]:
    """The names that `expr` uses (`Ref` and `Delayed`), each once, in order of occurrence."""
    return tuple(dict.fromkeys(node.name for node in nodes(expr) if isinstance(node, (Ref, Delayed))))


def uses_index(expr: Expr, index: str) -> bool:
    """True when `expr` depends on the loop index `index`."""
    return any(
        (isinstance(node, Element) and node.index == index) or (isinstance(node, Ref) and node.name == index) for node in nodes(expr)
    )


def constant(expr: Expr) -> Fraction | None:
    """The exact value of a constant expression; None for any other."""
    match expr:
        case Const():
            return expr.value
        case SizeOf() if not expr.size.terms:
            return expr.size.constant
    return None


def is_imaginary_unit(expr: Expr) -> bool:
    """True for the `i` of `a + i * omega`."""
    return isinstance(expr, Apply) and expr.function == "i" and not expr.args


# --- types and spans ---------------------------------------------------------------------------------------------


def widest(*types: Type) -> Type:
    """The type of an elementwise operation: the first that is not scalar; complex when one of them is."""
    shape = next((t for t in types if not t.is_scalar), types[0])
    field = "complex" if any(t.field == "complex" for t in types) else "real"
    return shape if shape.field == field else replace(shape, field=field)


def half(size: Dim) -> Dim:
    """Half a size: that of one value a pair."""
    return Dim(size.constant / 2, tuple((name, c / 2) for name, c in size.terms))


def covering(*exprs: Expr) -> Span:
    """The smallest span over the operands that have one."""
    spans = [e.span for e in exprs if e.span != NOWHERE]
    if not spans:
        return NOWHERE
    return Span(min(s.start for s in spans), max(s.end for s in spans))


# --- products as bags of factors ---------------------------------------------------------------------------------


def factors(expr: Expr) -> tuple[Fraction, tuple[Expr, ...], tuple[Expr, ...]]:
    """`expr` as number * product(above) / product(below), factors in order of writing."""
    match expr:
        case Const() if expr.type.is_scalar:
            return expr.value, (), ()
        case Neg():
            number, above, below = factors(expr.operand)
            return -number, above, below
        case Mul():
            n1, a1, b1 = factors(expr.left)
            n2, a2, b2 = factors(expr.right)
            return n1 * n2, a1 + a2, b1 + b2
        case Div():
            n1, a1, b1 = factors(expr.left)
            n2, a2, b2 = factors(expr.right)
            if n2 == 0:
                return Fraction(1), (expr,), ()
            return n1 / n2, a1 + b2, b1 + a2
    return Fraction(1), (expr,), ()


# --- equality up to order ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def key(expr: Expr) -> str:
    """A text that is the same for expressions equal up to the order of factors and of terms."""
    match expr:
        case Const():
            return f"{expr.value}" if expr.type.is_scalar else f"{expr.value}:{expr.type}"
        case SizeOf():
            return f"size({expr.size})"
        case Ref():
            return expr.name
        case StateRef():
            return f"{expr.name}'" if expr.primed else f"{expr.name}^"
        case Delayed():
            return f"{expr.name}[-1]"
        case Element():
            return f"{key(expr.base)}[{expr.index}]"
        case Identity():
            return f"I({expr.type.rows})"
        case Neg() | Mul() | Div():
            number, above, below = factors(expr)
            if (number, above, below) == (1, (expr,), ()):
                return f"({key(expr.left)})/({key(expr.right)})"
            top = "*".join(sorted(key(f) for f in above))
            bottom = "*".join(sorted(key(f) for f in below))
            return f"<{number}*{top}/{bottom}>"
        case Add():
            return "(" + "+".join(sorted(key(t) for t in expr.terms)) + ")"
        case Transpose():
            return f"{key(expr.operand)}^{'H' if expr.conjugate else 'T'}"
        case MatMul() if expr.type.is_scalar:
            sides = (key(expr.left), key(expr.right))
            if isinstance(expr.left, Transpose) and not expr.left.conjugate:
                sides = tuple(sorted((key(expr.left.operand), key(expr.right))))  # u^T v = v^T u
            return f"<{sides[0]}.{sides[1]}>"
        case Apply():
            return f"{expr.function}({','.join(key(a) for a in expr.args)})"
        case SumOver():
            return f"sum({expr.index},{expr.count},{key(expr.body)})"
    return f"{type(expr).__name__}({','.join(key(c) for c in children(expr))})"


def same(left: Expr, right: Expr) -> bool:
    """Equal up to the order of factors and of terms."""
    return left == right or key(left) == key(right)
