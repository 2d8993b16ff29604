"""The specification printed back in the language's own notation, with as few parentheses as the grammar needs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from . import spec
from .intervals import INFINITY, Interval
from .spec import Expr

# How tightly a text binds: what stands around it asks for at least as much.
_SUM, _DOT, _PRODUCT, _SIGN, _FACTOR, _POSTFIX, _ATOM = range(7)


def expr_text(expr: Expr) -> str:
    """`expr` as one would write it: `exp(g) * (S - beta * k (k^T S)) + beta * k v^T`."""
    return _text(expr)[0]


def number_text(value: Fraction) -> str:
    """An exact number: `3`, `1/2`, `0.6065306597`, `1e-4`."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = _decimal(value)
    if decimal is not None and value.denominator > 9:
        return decimal
    return f"{value.numerator}/{value.denominator}"


def _decimal(value: Fraction) -> str | None:
    """The shortest decimal that is exactly `value`; None when there is none of moderate length."""
    digits = 0
    scaled = value
    while scaled.denominator != 1 and digits < 24:
        scaled *= 10
        digits += 1
    if scaled.denominator != 1:
        return None
    mantissa = str(abs(scaled.numerator))
    sign = "-" if value < 0 else ""
    if len(mantissa) <= 3 and abs(value) < Fraction(1, 100):
        exponent = len(mantissa) - 1 - digits
        rest = mantissa[1:].rstrip("0")
        return f"{sign}{mantissa[0]}{'.' + rest if rest else ''}e{exponent}"
    padded = mantissa.rjust(digits + 1, "0")
    return f"{sign}{padded[:-digits]}.{padded[-digits:]}"


# --- expressions -------------------------------------------------------------------------------------------------


def _text(expr: Expr) -> tuple[str, int]:
    """Text and how tightly it binds."""
    match expr:
        case spec.Const(value=value):
            text = number_text(value)
            return text, _SIGN if value < 0 else _PRODUCT if "/" in text else _ATOM
        case spec.SizeOf(size=size):
            text = str(size)
            return text, _ATOM if text.isidentifier() else _SUM if "+" in text else _PRODUCT
        case spec.Ref(name=name):
            return name, _ATOM
        case spec.StateRef(name=name, primed=primed):
            return name + ("'" if primed else ""), _ATOM
        case spec.Delayed(name=name):
            return f"{name}[-1]", _POSTFIX
        case spec.Element(base=base, index=index):
            return f"{_at_least(base, _POSTFIX)}[{index}]", _POSTFIX
        case spec.Apply(function=function, args=args):
            return (f"{function}({', '.join(expr_text(a) for a in args)})" if args else _bare(function)), _ATOM
        case spec.Add(terms=terms):
            return _sum(terms), _SUM
        case spec.Neg(operand=operand):
            return f"-{_at_least(operand, _FACTOR)}", _SIGN
        case spec.Mul(left=left, right=right):
            return f"{_at_least(left, _PRODUCT)} * {_at_least(right, _SIGN)}", _PRODUCT
        case spec.MatMul(left=left, right=right):
            # a quotient takes no further factor without `*`
            top = f"({expr_text(left)})" if isinstance(left, spec.Div) else _at_least(left, _PRODUCT)
            return f"{top} {_at_least(right, _FACTOR)}", _PRODUCT
        case spec.Div(left=left, right=right):
            return f"{_at_least(left, _PRODUCT)} / {_at_least(right, _SIGN)}", _PRODUCT
        case spec.Pow(base=base, exponent=exponent):
            return f"{_at_least(base, _POSTFIX)}^{_exponent(exponent)}", _FACTOR
        case spec.Transpose(operand=operand, conjugate=conjugate):
            return f"{_at_least(operand, _FACTOR)}^{'H' if conjugate else 'T'}", _POSTFIX
        case spec.Diag(operand=operand):
            return f"diag({expr_text(operand)})", _ATOM
        case spec.Rot(operand=operand):
            return f"rot({expr_text(operand)})", _ATOM
        case spec.Skew(operand=operand):
            return f"i * {_at_least(operand, _SIGN)}", _PRODUCT
        case spec.Identity():
            return "I", _ATOM
        case spec.SumOver(index=index, count=count, body=body):
            return f"sum {index} in 1..{count}: {expr_text(body)}", _SUM - 1
    raise ValueError(f"not an expression: {expr!r}")


def _bare(function: str) -> str:
    return function if function in ("pi", "i") else f"{function}()"


def _at_least(expr: Expr, strength: int) -> str:
    text, binds = _text(expr)
    return text if binds >= strength else f"({text})"


def _sum(terms: tuple[Expr, ...]) -> str:
    text = ""
    for position, term in enumerate(terms):
        is_last = position == len(terms) - 1
        negative = isinstance(term, spec.Neg) or (isinstance(term, spec.Const) and term.value < 0)
        if negative and position:
            inner = term.operand if isinstance(term, spec.Neg) else spec.Const(term.type, term.span, -term.value)
            shown = _at_least(inner, _DOT) if not (is_last and isinstance(inner, spec.SumOver)) else expr_text(inner)
            text += f" - {shown}"
        else:
            shown = _at_least(term, _DOT) if not (is_last and isinstance(term, spec.SumOver)) else expr_text(term)
            text += (" + " if position else "") + shown
    return text


def _exponent(expr: Expr) -> str:
    if isinstance(expr, spec.Const):
        text = number_text(expr.value)
        if expr.value.denominator == 1 or "/" not in text:
            return text
        return text if expr.value < 0 else f"({text})"
    return _at_least(expr, _ATOM)


# --- recurrences -------------------------------------------------------------------------------------------------


def interval_text(interval: Interval) -> str:
    """A domain as declared: `> 0`, `<= 0`, `in (0, 1)`; empty for the whole line."""
    low, high = interval.low, interval.high
    if low == -INFINITY and high == INFINITY:
        return ""
    if high == INFINITY:
        return f"{'>' if interval.low_open else '>='} {low:g}"
    if low == -INFINITY:
        return f"{'<' if interval.high_open else '<='} {high:g}"
    return f"in {interval}"


def spec_text(recurrence: spec.Recurrence) -> str:
    """The recurrence with everything that resolving added: types, axes, implicit inputs, the written-out equation."""
    counts = [f"{name} = {value}" for name, value in recurrence.counts] + [f"{name} = {number_text(v)}" for name, v in recurrence.constants]
    lines = [f"recurrence {recurrence.name}{'(' + ', '.join(counts) + ')' if counts else ''} {{"]
    if recurrence.dims:
        lines.append(_line("dim", ", ".join(f"{name} = {size}" for name, size in recurrence.dims)))
    elsewhere = {name: definition for name, _, definition in recurrence.resets}
    symbols = [replace(s, definition=elsewhere.get(s.name, s.definition)) for s in recurrence.symbols]
    lines += [_line(symbol.kind, _symbol(symbol)) for symbol in symbols]
    lines += [_line("state", _state(state)) for state in recurrence.states]
    keyword = "update"
    for step in recurrence.update:
        if isinstance(step, spec.Assignment):
            lines.append(_line(keyword, _assignment(step)))
        else:
            body = [_assignment(a) for a in step.body]
            shown = body[0] if len(body) == 1 else "{ " + "; ".join(body) + " }"
            lines.append(_line(keyword, f"for {step.index} in 1..{step.count}: {shown}"))
        keyword = ""
    lines += [_line("dynamics", f"d{d.state}/dt = {expr_text(d.value)}") for d in recurrence.dynamics]
    if recurrence.discretization is not None:
        method = recurrence.discretization
        args = ", ".join(expr_text(a) for a in method.args)
        lines.append(_line("discretize", f"{method.method}({args})" if args else method.method))
    if recurrence.time != "causal":
        lines.append(_line("time", recurrence.time))
    if recurrence.resets:
        lines.append(_line("reset", "at document: " + ", ".join(f"{name} = {expr_text(value)}" for name, value, _ in recurrence.resets)))
    keyword = "output"
    for output in recurrence.outputs:
        target = output.name if output.index is None else f"{output.name}[{output.index}]"
        lines.append(_line(keyword, f"{target} = {expr_text(output.value)}"))
        keyword = ""
    lines += [f"  @{name} {value}" for name, value in recurrence.options]
    return "\n".join([*lines, "}"])


def _line(keyword: str, rest: str) -> str:
    return f"  {keyword:<10} {rest}"


def _assignment(assignment: spec.Assignment) -> str:
    return f"{assignment.state}' = {expr_text(assignment.value)}"


def _symbol(symbol: spec.Symbol) -> str:
    parts = [f"{symbol.name} : {_type(symbol.type)}"]
    if symbol.per != "head" and symbol.kind in ("input", "param"):
        parts.append(f"per {symbol.per}")
    elif symbol.kind == "param":
        parts.append("per head")
    parts += symbol.flags if symbol.kind != "let" else ()
    if symbol.domain is not None:
        parts.append(interval_text(symbol.domain))
    text = " ".join(parts)
    if symbol.definition is not None:
        text += f" = {expr_text(symbol.definition)}"
    if symbol.init is not None:
        text += f" init {expr_text(symbol.init)}"
    return text


def _state(state: spec.State) -> str:
    field = "complex" if state.rotating_rows is not None else state.type.field
    shape = str(state.type).removeprefix("complex ")
    text = f"{state.name} : {field} {shape}"
    if state.per != "head":
        text += f" per {state.per}"
    if state.conjugate:
        text += ", conjugate"
    if state.rotating_rows is not None:
        text += f", rotates first {state.rotating_rows} rows"
    return text


def _type(type: spec.Type) -> str:
    return str(type)
