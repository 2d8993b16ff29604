"""Attentions, layers and stacks of a specification printed back, with the shapes that resolving found."""

from __future__ import annotations

from . import layer_spec, spec
from .spec_text import expr_text, interval_text, number_text, spec_text

_SUM, _PRODUCT, _POWER, _ATOM = range(4)
_STRENGTH = {".": _SUM, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "^": _POWER}


def specification_text(specification: spec.Specification) -> str:
    """Every item, recurrences first."""
    parts = [spec_text(item) for item in specification.recurrences]
    parts += [attention_text(item) for item in specification.attentions]
    parts += [layer_text(item) for item in specification.layers]
    parts += [stack_text(item) for item in specification.stacks]
    return "\n\n".join(parts)


def attention_text(attention: spec.Attention) -> str:
    """Its sizes, values, score and mask."""
    lines = [f"attention {attention.name} {{"]
    if attention.dims:
        lines.append(_line("dim", ", ".join(f"{name} = {size}" for name, size in attention.dims)))
    for symbol in attention.symbols:
        domain = f" {interval_text(symbol.domain)}" if symbol.domain is not None else ""
        value = f" = {expr_text(symbol.definition)}" if symbol.definition is not None else ""
        lines.append(_line(symbol.kind, f"{symbol.name} : {symbol.type}{domain}{value}"))
    lines.append(_line("score", expr_text(attention.score)))
    lines.append(_line("mask", ", ".join(name if value is None else f"{name} {expr_text(value)}" for name, value in attention.mask)))
    return "\n".join([*lines, _line("output", attention.output), "}"])


def layer_text(layer: layer_spec.Layer) -> str:
    """Its sizes, parameters and statements, each name with its shape for a token."""
    lines = [f"layer {layer.name}({_arguments((*layer.params, *layer.dims))}) {{"]
    lines += [_line("size", f"{name} = {size}") for name, size in layer.sizes]
    if layer.count is not None:
        lines.append(_line("groups", str(layer.groups)))
    for parameter in layer.parameters:
        width = "scalar" if parameter.width is None else str(parameter.width)
        init = f" init {expr_text(parameter.init)}" if parameter.init is not None else ""
        lines.append(_line("param", f"{parameter.name} : {width}{init}"))
    for statement in layer.statements:
        widths = statement.value.widths
        shapes = widths if len(widths) == len(statement.names) else widths * len(statement.names)
        names = [f"{name} {shape}" for name, shape in zip(statement.names, shapes, strict=False)] or list(statement.names)
        lines.append(f"  {', '.join(names)} = {value_text(statement.value)}")
    return "\n".join([*lines, "}"])


def stack_text(stack: layer_spec.Stack) -> str:
    """Its pattern of layers, what stands between them, and its clauses."""
    items = []
    for count, layer, keywords in stack.pattern:
        words = ", ".join(f"{name} = {value}" for name, value in keywords)
        items.append(f"{count} * {layer}{f'({words})' if words else ''}")
    lines = [f"stack {stack.name}({_arguments(stack.params)}) {{", _line("repeat", "{ " + "; ".join(items) + " }")]
    if stack.between:
        lines.append(_line("between", ", ".join(stack.between)))
    return "\n".join([*lines, *(_line(name, value) for name, value in stack.clauses), "}"])


def value_text(value: layer_spec.LayerValue) -> str:
    """A value of a layer as one would write it."""
    return _text(value)[0]


def _text(value: layer_spec.LayerValue) -> tuple[str, int]:
    match value:
        case layer_spec.LayerNumber(value=number):
            return number_text(number), _ATOM if number >= 0 and number.denominator == 1 else _PRODUCT
        case layer_spec.LayerSize(size=size, power=power):
            base = str(size) if str(size).isidentifier() or power == 1 else f"({size})"
            return (base, _SUM if " " in base else _ATOM) if power == 1 else (f"{base}^{number_text(power)}", _POWER)
        case layer_spec.LayerRef(name=name) | layer_spec.LayerParam(name=name):
            return name, _ATOM
        case layer_spec.LayerGroup(names=names):
            return ", ".join(names), _ATOM
        case layer_spec.LayerShift(name=name):
            return f"{name}[-1]", _ATOM
        case layer_spec.LayerApply(function=function, operands=operands):
            return _call(function, *map(value_text, operands)), _ATOM
        case layer_spec.LayerArithmetic(operator=operator, left=left, right=right):
            own = _STRENGTH[operator]
            mark = operator if operator == "^" else f" {operator} "
            return f"{_at_least(left, own + (operator == '^'))}{mark}{_at_least(right, own + (operator in '-/^'))}", own
        case layer_spec.LayerNegative(operand=operand):
            return f"-{_at_least(operand, _PRODUCT)}", _SUM
        case layer_spec.LayerLinear(operand=operand, bias=bias, rank=rank):
            return _call(
                "linear", value_text(operand), *(["bias"] if bias else []), *([f"rank = {rank}"] if rank is not None else [])
            ), _ATOM
        case layer_spec.LayerConv(operand=operand, taps=taps, bias=bias):
            return _call("conv", value_text(operand), str(taps), *(["bias"] if bias else [])), _ATOM
        case layer_spec.LayerNorm(kind=kind, operand=operand, per=per):
            return _call(kind, value_text(operand), f"per {per}"), _ATOM
        case layer_spec.LayerCall(callee=callee, operands=operands):
            return _call(callee, *map(value_text, operands)), _ATOM
    raise ValueError(f"not a value of a layer: {value!r}")


def _call(function: str, *arguments: str) -> str:
    return f"{function}({', '.join(arguments)})"


def _at_least(value: layer_spec.LayerValue, strength: int) -> str:
    text, binds = _text(value)
    return text if binds >= strength else f"({text})"


def _arguments(params: tuple[tuple[str, object], ...]) -> str:
    return ", ".join(name if default is None else f"{name} = {default}" for name, default in params)


def _line(keyword: str, rest: str) -> str:
    return f"  {keyword:<10} {rest}"
