"""Rules of the grammar to nodes of `syntax`: one function a rule, called with the rule's values when it is complete."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from .. import syntax as s
from ..diagnostics import Report
from ..source import Span
from .tokens import Token, shown


class _Value(NamedTuple):
    """`= expr`."""

    node: s.Node


class _Init(NamedTuple):
    node: s.Node | None
    fields: tuple[tuple[str, s.Node], ...] = ()


class _Names(NamedTuple):
    tokens: tuple[Token, ...]


class _Parameters(NamedTuple):
    pairs: tuple[tuple[str, s.Node | None], ...]


class _Shape(NamedTuple):
    sizes: tuple[s.Node, ...]


class _Field(NamedTuple):
    text: str


class _Per(NamedTuple):
    text: str


class _Flag(NamedTuple):
    text: str


class _Rotates(NamedTuple):
    rows: s.Node


class _Keyword(NamedTuple):
    name: str
    node: s.Node


class _Group(NamedTuple):
    """What one declaration says of its names."""

    span: Span
    parts: list


class _Statement(NamedTuple):
    """A keyword with one node for every name it declares."""

    nodes: tuple[s.Node, ...]


class _Equation(NamedTuple):
    span: Span
    left: s.Node | None
    right: s.Node


def _only(children: list, kind: type) -> Any:
    """The child of `kind`, None when there is none."""
    return next((child for child in children if isinstance(child, kind)), None)


def _value(children: list) -> s.Node | None:
    found = _only(children, _Value)
    return found.node if found else None


class Builder:
    """One method a rule, named after it: the values of the rule's parts and the span of the whole give its value."""

    def __init__(self, report: Report):
        self.report = report
        self.ambiguous: dict[int, tuple[s.Binary, Span]] = {}  # by the id of the node so far: the quotient, its factors

    def __call__(self, rule: str, children: list, span: Span) -> Any:
        return getattr(self, rule)(children, span)

    # --- file ---

    def start(self, children, span):
        return s.File(self.report.source, tuple(children))

    def recurrence(self, children, span):
        return self._item(s.RecurrenceDecl, children, span)

    def attention(self, children, span):
        return self._item(s.AttentionDecl, children, span)

    def layer(self, children, span):
        return self._item(s.LayerDecl, children, span)

    def stack(self, children, span):
        name, params, nodes = self._header(children)
        repeats = [node for node in nodes if isinstance(node, _Group)]
        clauses = tuple(node for node in nodes if isinstance(node, tuple) and not isinstance(node, _Group | _Statement))
        return s.StackDecl(
            span,
            name.text,
            params,
            tuple(item for repeat in repeats for item in repeat.parts),
            tuple(word for node in nodes if isinstance(node, _Statement) for word in node.nodes),
            clauses,
            name.span,
            self._comment(span),
        )

    def parameters(self, children, span):
        return _Parameters(tuple(children))

    def parameter(self, children, span):
        return children[0].text, _value(children)

    def _header(self, children):
        parameters = _only(children, _Parameters)
        body = [child for child in children[1:] if child is not parameters]
        return children[0], parameters.pairs if parameters else (), body

    def _item(self, kind, children, span):
        name, params, body = self._header(children)
        nodes = tuple(node for child in body for node in (child.nodes if isinstance(child, _Statement) else (child,)))
        return kind(span, name.text, params, nodes, name.span, self._comment(span))

    def _comment(self, span: Span) -> str:
        """The comment lines straight above `span`, without their `#`."""
        text = self.report.source.text
        block: list[str] = []
        end = text.rfind("\n", 0, span.start)
        while end >= 0:
            begin = text.rfind("\n", 0, end) + 1
            line = text[begin:end].strip()
            if not line.startswith("#"):
                break
            block.append(line.lstrip("#").removeprefix(" "))
            end = begin - 1
        return "\n".join(reversed(block))

    # --- declarations ---

    def value(self, children, span):
        return _Value(children[0])

    def names(self, children, span):
        return _Names(tuple(children))

    def dim(self, children, span):
        return _Statement(tuple(children))

    def size(self, children, span):
        return s.DimDecl(span, children[0].text, _value(children))

    def _group(self, children, span):
        return _Group(span, children)

    parameter_group = param_group = input_group = gate_group = state_group = _group

    def param(self, children, span):
        nodes = []
        for group in children:
            init = _only(group.parts, _Init) or _Init(None)
            kind = _only(group.parts, s.TypeNode)
            for name in _only(group.parts, _Names).tokens:
                nodes.append(s.ParamDecl(group.span, name.text, kind, _value(group.parts), init.node, init.fields, name.span))
        return _Statement(tuple(nodes))

    def init(self, children, span):
        return _Init(children[0])

    def init_complex(self, children, span):
        return _Init(None, (("re", children[0]), ("im", children[1])))

    def input(self, children, span):
        return self._declare(s.InputDecl, children)

    def gate(self, children, span):
        return self._declare(s.GateDecl, children)

    def _declare(self, kind, groups):
        nodes = []
        for group in groups:
            type_node, domain = _only(group.parts, s.TypeNode), _only(group.parts, s.DomainNode)
            for name in _only(group.parts, _Names).tokens:
                nodes.append(kind(group.span, name.text, type_node, domain, _value(group.parts), name_span=name.span))
        return _Statement(tuple(nodes))

    def let(self, children, span):
        return _Statement(tuple(children))

    def let_group(self, children, span):
        return s.LetDecl(span, children[0].text, _only(children, s.TypeNode), _value(children), children[0].span)

    def state(self, children, span):
        nodes = []
        for group in children:
            kind = _only(group.parts, s.TypeNode)
            nodes.extend(s.StateDecl(group.span, name.text, kind, name.span) for name in _only(group.parts, _Names).tokens)
        return _Statement(tuple(nodes))

    # --- types and domains ---

    def type(self, children, span):
        field, per, rotates = _only(children, _Field), _only(children, _Per), _only(children, _Rotates)
        return s.TypeNode(
            span,
            _only(children, _Shape).sizes,
            field.text if field else None,
            per.text if per else None,
            tuple(child.text for child in children if isinstance(child, _Flag)),
            ("first", rotates.rows) if rotates else None,
        )

    def field(self, children, span):
        return _Field(children[0].text)

    def scalar(self, children, span):
        return _Shape(())

    def shape(self, children, span):
        return _Shape(tuple(children))

    def per(self, children, span):
        return _Per(children[0].text)

    def flag(self, children, span):
        return _Flag(children[0].text)

    def rotates(self, children, span):
        return _Rotates(children[0])

    def rows_ratio(self, children, span):
        return s.Binary(span, "/", children[0], children[1])

    def above(self, children, span):
        return self._domain(span, children[0], None)

    def at_least(self, children, span):
        return self._domain(span, children[0], None, low_open=False)

    def below(self, children, span):
        return self._domain(span, None, children[0])

    def at_most(self, children, span):
        return self._domain(span, None, children[0], high_open=False)

    def open_open(self, children, span):
        return self._domain(span, *children)

    def open_closed(self, children, span):
        return self._domain(span, *children, high_open=False)

    def closed_open(self, children, span):
        return self._domain(span, *children, low_open=False)

    def closed_closed(self, children, span):
        return self._domain(span, *children, low_open=False, high_open=False)

    def _domain(self, span, low, high, low_open=True, high_open=True):
        if isinstance(low, s.Unary) and isinstance(low.operand, s.Name) and low.operand.id == "inf":
            low, low_open = None, True
        if isinstance(high, s.Name) and high.id == "inf":
            high, high_open = None, True
        return s.DomainNode(span, low, high, low_open, high_open)

    # --- equations ---

    def equation(self, children, span):
        return _Equation(span, *children)

    def unnamed(self, children, span):
        return _Equation(span, None, children[0])

    def for_loop(self, children, span):
        index, numbers, *equations = children
        return s.ForLoop(span, index.text, numbers.low, numbers.high, tuple(self._assign(each, is_update=True) for each in equations))

    def update(self, children, span):
        return s.Update(span, tuple(self._assign(child, is_update=True) if isinstance(child, _Equation) else child for child in children))

    def output(self, children, span):
        return s.Output(span, tuple(self._assign(child, is_update=False) for child in children))

    def _assign(self, equation: _Equation, is_update: bool) -> s.Assign:
        left, subscript = equation.left, None
        if isinstance(left, s.Subscript):
            left, subscript = left.base, left.index
        if equation.left is None:
            if is_update:
                self.report.error(
                    "invalid-target",
                    "the update names no state",
                    equation.right.span,
                    "no `=` here",
                    note="an update says what each state is after the token",
                    help=f"write `S' = {shown(self.report, equation.right.span)}`, with the state's name for S",
                )
            return s.Assign(equation.span, None, False, None, equation.right)
        if not isinstance(left, s.Name) or (is_update and (subscript is not None or not left.prime)) or (not is_update and left.prime):
            self._refuse_target(equation.left, left, is_update)
            left = left if isinstance(left, s.Name) else s.Name(equation.left.span, "")
        return s.Assign(equation.span, left.id, left.prime, subscript, equation.right, left.span)

    def _refuse_target(self, target: s.Node, left: s.Node, is_update: bool) -> None:
        written = shown(self.report, target.span)
        if is_update and isinstance(left, s.Name) and left is target:
            fact = "without a prime this is the state before the token"
            edit = f"write `{written}' = ...`; what is read has a statement of its own behind the update, `output {written} = ...`"
            if written.endswith("_t"):
                fact, edit = "time is never written", f"write `{written[:-2]}' = ...`, or `{written}' = ...` for a state of that name"
        elif is_update and isinstance(target, s.Subscript):
            fact = "a read between the steps of a token"
            edit = "read the state that the last step leaves, `output y[r] = S'^T q[r]`, or make every step a token of its own"
        elif is_update:
            fact, edit = "not a state after the token", "write `S' = ...`, one equation a state"
        elif isinstance(left, s.Name):
            fact, edit = "a state is written in `update`", f"give the output a name of its own: `y = {written}`"
        else:
            fact, edit = "not a name", "write `y = ...`, or `y[r] = ...` for one row of several"
        self.report.error(
            "invalid-target",
            f"`{written}` cannot stand left of `=` in {'an update' if is_update else 'an output'}",
            target.span,
            fact,
            note="an update sets states after the token, `S' = ...`; an output names what the recurrence gives, `y = ...`",
            help=edit,
        )

    def dynamics(self, children, span):
        return _Statement(tuple(children))

    def derivative(self, children, span):
        return s.Dynamics(span, children[0].text, children[1])

    def discretize(self, children, span):
        method = children[0]
        if isinstance(method, s.Name):
            return s.Discretize(span, method.id, (), method.span)
        return s.Discretize(span, method.function, method.args, Span(method.span.start, method.span.start + len(method.function)))

    def declared(self, children, span):
        return s.Declared(span, children[0].text, tuple(children[1:]))

    def declared_keyword(self, children, span):
        return children[0]

    def per_word(self, children, span):
        return s.Name(span, "per")

    def reset(self, children, span):
        return s.Reset(span, children[0].text, tuple((word.name, word.node) for word in children[1:]))

    def setting(self, children, span):
        return _Keyword(children[0].text, children[1])

    def option(self, children, span):
        return s.Option(span, children[0].text, children[1])

    # --- attention, layers, stacks ---

    def score(self, children, span):
        return s.AttentionClause(span, "score", children[0])

    def mask(self, children, span):
        return s.AttentionClause(span, "mask", None, tuple(children))

    def mask_word(self, children, span):
        return children[0].text, children[1] if len(children) > 1 else None

    def result(self, children, span):
        return s.AttentionClause(span, "output", children[0])

    def heads(self, children, span):
        return s.Heads(span, children[0].text, children[1], children[2] if len(children) > 2 else None)

    def assign(self, children, span):
        names = children[0].tokens
        return s.LayerAssign(span, tuple(name.text for name in names), children[1], tuple(name.span for name in names))

    def repeat(self, children, span):
        return _Group(span, children)

    def stack_item(self, children, span):
        count = children[0] if len(children) > 1 else s.Number(Span(span.start, span.start), Fraction(1))
        layer = children[-1]
        if isinstance(layer, s.Name):
            return s.StackItem(span, count, layer.id)
        return s.StackItem(span, count, layer.function, layer.keywords)

    def between(self, children, span):
        return _Statement(tuple(children))

    def between_item(self, children, span):
        if len(children) == 1:
            return children[0]
        word, position = children
        name, args, keywords = (word.id, (), ()) if isinstance(word, s.Name) else (word.function, word.args, word.keywords)
        return s.Call(span, name, args, (*keywords, ("position", s.Name(position.span, position.text))))

    def clause(self, children, span):
        return children[0].text, children[1].text

    # --- expressions ---

    def _binary(operator):
        def build(self, children, span):
            return s.Binary(span, operator, children[0], children[1])

        return build

    add, subtract, inner = _binary("+"), _binary("-"), _binary(".")
    multiply, divide, juxtapose, power = _binary("*"), _binary("/"), _binary("juxtapose"), _binary("^")
    del _binary

    def ambiguous_division(self, children, span):
        quotient, factor = children
        first = self.ambiguous.pop(id(quotient), (quotient, factor.span))
        node = s.Binary(span, "juxtapose", quotient, factor)
        self.ambiguous[id(node)] = (first[0], first[1].to(Span(factor.span.start, span.end)))
        return node

    def report_ambiguous(self) -> None:
        """Report every quotient with factors behind it, once."""

        def text(span: Span) -> str:
            return shown(self.report, span)

        for quotient, factors in self.ambiguous.values():
            whole, top, bottom = text(quotient.span), text(quotient.left.span), text(quotient.right.span)
            self.report.error(
                "ambiguous-division",
                f"`{text(quotient.span.to(factors))}` can be read in two ways",
                factors,
                "in the numerator, or in the denominator?",
                note="readers differ on whether `/` or a space binds tighter, so the language asks for one more sign",
                help=f"write `{top} / ({bottom} {text(factors)})` or `({whole}) {text(factors)}`",
            )

    def negative(self, children, span):
        return s.Unary(span, children[0])

    def power_literal(self, children, span):
        base, token = children
        value = Fraction(token.text)
        exponent: s.Node = s.Number(token.span, value)
        if value < 0 and value.denominator == 1:  # as `x^-2`
            exponent = s.Unary(token.span, s.Number(token.span, -value))
        return s.Binary(span, "^", base, exponent)

    def transpose(self, children, span):
        return s.Transpose(span, children[0], children[1].text == "H")

    def subscript(self, children, span):
        return s.Subscript(span, children[0], children[1])

    def primed(self, children, span):
        return s.Name(span, children[0].text, True)

    def group(self, children, span):
        return children[0]

    def sum_over(self, children, span):
        index, numbers, body = children
        return s.SumOver(span, index.text, numbers.low, numbers.high, body)

    def range(self, children, span):
        return s.Range(span, children[0], children[1])

    def call(self, children, span):
        args = tuple(child for child in children[1:] if not isinstance(child, _Keyword))
        keywords = tuple((child.name, child.node) for child in children[1:] if isinstance(child, _Keyword))
        return s.Call(span, children[0].text, args, keywords)

    def keyword(self, children, span):
        return _Keyword(children[0].text, children[1])

    def per_keyword(self, children, span):
        return _Keyword("per", s.Name(children[0].span, children[0].text))

    def name(self, children, span):
        return s.Name(span, children[0].text)

    def number(self, children, span):
        return s.Number(span, Fraction(children[0].text))
