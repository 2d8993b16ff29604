"""Syntax trees back to source, in one style. Parsing the text again gives the same tree, spans and comments aside."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from fractions import Fraction

from . import syntax as s

# How tightly an expression binds: what stands in a place of a level needs at least that level, or parentheses.
_OPEN, _SUM, _DOT, _PRODUCT, _SIGN, _POWER, _POSTFIX = range(7)

_KEYWORD_WIDTH = 10  # `discretize`


def to_text(node: s.Node | s.File, values: frozenset[str] | None = None) -> str:
    """The source of a file, an item, a statement or an expression.

    `values` are the names that stand for values where an expression is printed alone: `k (x)` is a product for them, any
    other `(f) (x)` keeps its parentheses. None takes every name for a value.
    """
    if isinstance(node, s.File):
        return "\n\n".join(to_text(item) for item in node.items) + ("\n" if node.items else "")
    if isinstance(node, s.RecurrenceDecl | s.AttentionDecl | s.LayerDecl | s.StackDecl):
        return _item(node)
    if isinstance(node, _STATEMENTS):
        return _statement(node, _Expressions(values))
    return _Expressions(values).text(node)


# --- expressions -------------------------------------------------------------------------------------------------


class _Expressions:
    def __init__(self, values: frozenset[str] | None):
        self.values = values

    def text(self, node: s.Node, level: int = _OPEN) -> str:
        """`node` where something of `level` belongs."""
        written, own = self._written(node)
        return written if own >= level else f"({written})"

    def _written(self, node: s.Node) -> tuple[str, int]:
        match node:
            case s.Number():
                return number(node.value), _POSTFIX
            case s.Name():
                return node.id + ("'" if node.prime else ""), _POSTFIX
            case s.Call():
                return f"{node.function}({self.arguments(node)})", _POSTFIX
            case s.Subscript():
                return f"{self.text(node.base, _POSTFIX)}[{self.text(node.index)}]", _POSTFIX
            case s.Unary():
                return f"-{self.text(node.operand, _SIGN)}", _SIGN
            case s.Transpose():
                operand, own = self._written(node.operand)
                written, own = (operand, min(own, _POSTFIX)) if own >= _POWER else (f"({operand})", _POSTFIX)
                return f"{written}^{'H' if node.conjugate else 'T'}", own
            case s.SumOver():
                return f"sum {node.index} in {self.range(node.low, node.high)}: {self.text(node.body)}", _OPEN
            case s.Range():
                return self.range(node.low, node.high), _OPEN
            case s.Binary():
                return self._binary(node)
        raise ValueError(f"not an expression: {type(node).__name__}")

    def _binary(self, node: s.Binary) -> tuple[str, int]:
        left, right = node.left, node.right
        if node.operator in ("+", "-"):
            if isinstance(right, s.SumOver):
                return f"{self.text(left, _SUM)} {node.operator} {self.text(right)}", _OPEN
            return f"{self.text(left, _SUM)} {node.operator} {self.text(right, _DOT)}", _SUM
        if node.operator == ".":
            return f"{self.text(left, _DOT)} . {self.text(right, _PRODUCT)}", _DOT
        if node.operator == "/" and _is_short(left) and _is_short(right):
            return f"{self.text(left)}/{self.text(right)}", _PRODUCT
        if node.operator in ("*", "/"):
            return f"{self.text(left, _PRODUCT)} {node.operator} {self.text(right, _SIGN)}", _PRODUCT
        if node.operator == "^":
            return f"{self.text(left, _POSTFIX)}^{self._exponent(right)}", _POWER
        is_quotient = isinstance(left, s.Binary) and left.operator == "/"
        first, second = self.text(left, _POSTFIX if is_quotient else _PRODUCT), self.text(right, _POWER)
        if second.startswith("(") and self._reads_as_function(first):
            first = f"({first})"
        return f"{first} {second}", _PRODUCT

    def _reads_as_function(self, text: str) -> bool:
        """Whether `text (` would be a call: it ends in a name that stands for no value."""
        if self.values is None:
            return False
        found = re.search(r"(?P<before>.?)\b(?P<name>[^\W\d]\w*)$", text)
        return found is not None and found["name"] not in self.values and not (found["before"] == "^" and found["name"] in ("T", "H"))

    def _exponent(self, node: s.Node) -> str:
        if isinstance(node, s.Unary):
            return f"-{self._exponent(node.operand)}"
        if isinstance(node, s.Number):
            return str(node.value) if node.value < 0 else number(node.value)  # `x^-1/2`
        if isinstance(node, s.Call) or (isinstance(node, s.Name) and (node.prime or node.id not in ("T", "H"))):
            return self.text(node)
        if isinstance(node, s.Binary) and node.operator == "^" and self.text(node.left, _POSTFIX) == self._exponent(node.left):
            return f"{self._exponent(node.left)}^{self._exponent(node.right)}"
        return f"({self.text(node)})"

    def range(self, low: s.Node, high: s.Node) -> str:
        return f"{self.text(low, _SUM)}{'..' if _is_short(low) else ' .. '}{self.text(high, _SUM)}"

    def arguments(self, call: s.Call | s.StackItem, skip: tuple[str, ...] = ()) -> str:
        words = [self.text(arg) for arg in getattr(call, "args", ())]
        words += [
            f"per {self.text(value)}" if key == "per" and isinstance(value, s.Name) else f"{key} = {self.text(value)}"
            for key, value in call.keywords
            if key not in skip
        ]
        return ", ".join(words)


def _is_short(node: s.Node) -> bool:
    return isinstance(node, s.Number) or (isinstance(node, s.Name) and not node.prime)


def number(value: Fraction) -> str:
    """A literal of exactly this value, plain or with an exponent, whichever is shorter.

    Raises ValueError for a value without a finite decimal expansion.
    """
    context = Context(prec=800)
    decimal = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    if Fraction(decimal) != value:
        raise ValueError(f"{value} has no finite decimal expansion")
    sign, digits, exponent = decimal.normalize(context).as_tuple()
    written = "".join(map(str, digits))
    plain = f"{decimal.normalize(context):f}"
    short = ("-" if sign else "") + f"{written}e{exponent}"
    return plain if len(plain) <= len(short) + 2 else short


# --- types, domains ----------------------------------------------------------------------------------------------


def _type(node: s.TypeNode, e: _Expressions) -> str:
    words = [node.field] if node.field else []
    words.append(f"[{', '.join(e.text(size) for size in node.shape)}]" if node.shape else "scalar")
    words += [f"per {node.per}"] if node.per else []
    text = " ".join(words) + "".join(" unit" if flag == "unit" else f", {flag}" for flag in node.flags)
    if node.rotates:
        rows = node.rotates[1]
        is_ratio = isinstance(rows, s.Binary) and rows.operator == "/" and _is_short(rows.left) and isinstance(rows.right, s.Number)
        text += f", rotates first {e.text(rows) if is_ratio or _is_short(rows) else f'({e.text(rows)})'} rows"
    return text


def _domain(node: s.DomainNode, e: _Expressions) -> str:
    if node.low is None and node.high is not None:
        return f"{'<' if node.high_open else '<='} {e.text(node.high)}"
    if node.high is None and node.low is not None:
        return f"{'>' if node.low_open else '>='} {e.text(node.low)}"
    low, high = e.text(node.low) if node.low else "-inf", e.text(node.high) if node.high else "inf"
    return f"in {'(' if node.low_open else '['}{low}, {high}{')' if node.high_open else ']'}"


# --- statements --------------------------------------------------------------------------------------------------

_DECLARATIONS = (
    (s.DimDecl, "dim"),
    (s.ParamDecl, "param"),
    (s.InputDecl, "input"),
    (s.LetDecl, "let"),
    (s.GateDecl, "gate"),
    (s.StateDecl, "state"),
    (s.Dynamics, "dynamics"),
)
_KEYWORDS = dict(_DECLARATIONS)
_STATEMENTS = (
    *_KEYWORDS, s.TypeNode, s.DomainNode, s.Assign, s.ForLoop, s.Update, s.Output, s.Discretize, s.Declared, s.Reset, s.Option,
    s.AttentionClause, s.Heads, s.LayerAssign, s.StackItem,
)  # fmt: skip


def _statement(node: s.Node, e: _Expressions) -> str:
    keyword, parts = _parts(node, e)
    return _line(keyword, parts)


def _line(keyword: str, parts: list[str]) -> str:
    if not keyword:
        return "\n".join(parts)
    return f"{keyword:<{_KEYWORD_WIDTH}} " + ("\n" + " " * (_KEYWORD_WIDTH + 1)).join(parts)


def _parts(node: s.Node, e: _Expressions) -> tuple[str, list[str]]:
    """A statement's keyword, and its text, one part a line."""
    match node:
        case s.DimDecl() | s.ParamDecl() | s.InputDecl() | s.LetDecl() | s.GateDecl() | s.StateDecl():
            return _KEYWORDS[type(node)], [node.name + _says(node, e)]
        case s.TypeNode():
            return "", [_type(node, e)]
        case s.DomainNode():
            return "", [_domain(node, e)]
        case s.Dynamics():
            return "dynamics", [f"d{node.state}/dt = {e.text(node.value)}"]
        case s.Discretize():
            args = ", ".join(e.text(arg) for arg in node.args)
            return "discretize", [f"{node.method}({args})" if args else node.method]
        case s.Update() | s.Output():
            return type(node).__name__.lower(), [_equation(each, e) for each in node.body]
        case s.Assign() | s.ForLoop():
            return "", [_equation(node, e)]
        case s.Declared():
            return node.keyword, [(", " if node.keyword == "transition" else " ").join(e.text(word) for word in node.words)]
        case s.Reset():
            return "reset", [f"at {node.at}: " + ", ".join(f"{name} = {e.text(value)}" for name, value in node.assigns)]
        case s.Option():
            return "", [f"@{node.name} {node.value if isinstance(node.value, str) else e.text(node.value)}"]
        case s.AttentionClause():
            words = [name if value is None else f"{name} {e.text(value, _POSTFIX)}" for name, value in node.words]
            return node.keyword, [e.text(node.value) if node.value is not None else ", ".join(words)]
        case s.Heads():
            return "", [f"heads {node.name} = {e.text(node.value)}" + (f", groups {e.text(node.groups)}" if node.groups else "")]
        case s.LayerAssign():
            return "", [f"{', '.join(node.names)} = {e.text(node.value)}"]
        case s.StackItem():
            arguments = e.arguments(node)
            return "", [f"{e.text(node.count)} * {node.layer}" + (f"({arguments})" if arguments else "")]
    raise ValueError(f"not a statement: {type(node).__name__}")


def _says(node: s.Node, e: _Expressions) -> str:
    """What a declaration says of its name."""
    type_node, domain = getattr(node, "type", None), getattr(node, "domain", None)
    value = node.default if isinstance(node, s.DimDecl) else getattr(node, "value", None)
    text = f" : {_type(type_node, e)}" if type_node else ""
    text += f" {_domain(domain, e)}" if domain else ""
    text += f" = {e.text(value)}" if value else ""
    if isinstance(node, s.ParamDecl) and (node.init or node.init_fields):
        fields = ", ".join(f"{key} {e.text(entry)}" for key, entry in node.init_fields)
        text += f" init {fields or e.text(node.init)}"
    return text


def _equation(node: s.Assign | s.ForLoop, e: _Expressions) -> str:
    if isinstance(node, s.ForLoop):
        body = "; ".join(_equation(each, e) for each in node.body)
        return f"for {node.index} in {e.range(node.low, node.high)}: " + (body if len(node.body) == 1 else f"{{ {body} }}")
    if node.name is None:
        return e.text(node.value)
    target = node.name + ("'" if node.prime else "") + (f"[{e.text(node.subscript)}]" if node.subscript else "")
    return f"{target} = {e.text(node.value)}"


# --- items -------------------------------------------------------------------------------------------------------


def _item(node: s.RecurrenceDecl | s.AttentionDecl | s.LayerDecl | s.StackDecl) -> str:
    e = _Expressions(_values(node))
    keyword = {s.RecurrenceDecl: "recurrence", s.AttentionDecl: "attention", s.LayerDecl: "layer", s.StackDecl: "stack"}[type(node)]
    params = ", ".join(name if value is None else f"{name} = {e.text(value)}" for name, value in node.params)
    head = f"{keyword} {node.name}{f'({params})' if params else ''} {{"
    lines = _stack(node, e) if isinstance(node, s.StackDecl) else _body(node.body, e)
    comment = "".join(f"# {line}".rstrip() + "\n" for line in node.comment.split("\n")) if node.comment else ""
    return comment + "\n".join([head, *(f"  {line}" for text in lines for line in text.split("\n")), "}"])


def _values(node) -> frozenset[str]:
    """The names that an item declares, and those of the language: the layout reads `name (` as a product for them."""
    names = [*s.BUILT_IN, *(name for name, _ in node.params)]
    pending = list(node.body) if not isinstance(node, s.StackDecl) else []
    while pending:
        each = pending.pop()
        if type(each) in _KEYWORDS and not isinstance(each, s.Dynamics):
            names.append(each.name)
        if isinstance(each, s.ForLoop | s.SumOver):
            names.append(each.index)
        for field in each.__dataclass_fields__:
            value = getattr(each, field)
            pending.extend(entry for entry in (value if isinstance(value, tuple) else (value,)) if isinstance(entry, s.Node))
    return frozenset(names)


def _body(body: tuple[s.Node, ...], e: _Expressions) -> list[str]:
    """One line a statement; neighbours under one keyword share it, neighbours that say the same share a line."""
    lines: list[tuple[str, list[str]]] = []
    last: tuple[str, str] | None = None
    # in a layer a line without a keyword is an assignment
    is_layer = any(isinstance(node, s.LayerAssign) for node in body)
    for node in body:
        keyword, parts = _parts(node, e)
        says = _says(node, e) if isinstance(node, s.InputDecl | s.StateDecl | s.ParamDecl) else ""
        if says and last == (keyword, says):
            before = lines[-1][1].pop()
            lines[-1][1].append(f"{before.removesuffix(says)}, {node.name}{says}")
        elif isinstance(node, s.DimDecl) and lines and lines[-1][0] == keyword:
            lines[-1][1][-1] += f", {parts[0]}"
        elif type(node) in _KEYWORDS and lines and lines[-1][0] == keyword and not is_layer:
            lines[-1][1].extend(parts)
        else:
            lines.append((keyword, parts))
        last = (keyword, says)
    return [_line(*line) for line in lines]


def _stack(node: s.StackDecl, e: _Expressions) -> list[str]:
    lines = [f"repeat {{ {'; '.join(_parts(item, e)[1][0] for item in node.repeat)} }}"] if node.repeat else []
    if node.between:
        lines.append("between " + ", ".join(_between(word, e) for word in node.between))
    return lines + [f"{keyword} {value}" for keyword, value in node.clauses]


def _between(word: s.Node, e: _Expressions) -> str:
    if not isinstance(word, s.Call):
        return e.text(word)
    position = next((value for key, value in word.keywords if key == "position"), None)
    arguments = e.arguments(word, skip=("position",))
    return word.function + (f"({arguments})" if arguments or not position else "") + (f" {e.text(position)}" if position else "")
