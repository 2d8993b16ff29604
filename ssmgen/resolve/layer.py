"""Layers: the block around a recurrence, its widths inferred from what the recurrence takes and gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from .. import layer_spec, spec, syntax
from ..diagnostics import Report
from ..functions import FUNCTIONS
from ..intervals import Interval
from ..source import Span
from . import sizes
from .layer_bounds import reach
from .layer_callee import Callee, Port, of_attention, of_recurrence
from .layer_init import resolve_init
from .layer_sizes import LayerSizes
from .widths import Slot, Widths, freeze, listed, spread, walk

INPUT = "u"
NORMS = ("rmsnorm", "layernorm", "groupnorm")
OPERATIONS = ("linear", "conv", *NORMS)
COLUMN_FUNCTIONS = ("unit", "softmax")
SYNONYMS = {"swish": "silu", "dense": "linear", "short_conv": "conv", "depthwise": "conv"}
NORM_EPS = Fraction(1, 100_000)


def resolve_layer(
    decl: syntax.LayerDecl,
    recurrences: Iterable[spec.Recurrence],
    report: Report,
    attentions: Iterable[spec.Attention] = (),
) -> layer_spec.Layer | None:
    """The layer `decl` over the recurrences (and attentions) of its file; None when a fault was reported."""
    callees = {r.name: of_recurrence(r) for r in recurrences}
    callees.update((a.name, of_attention(a)) for a in attentions)
    before = len(report.found)
    layer = _LayerResolver(decl, callees, report).resolve()
    failed = any(d.severity.value == "error" for d in report.found[before:])
    return None if failed else layer


@dataclass
class _Value:
    """A name in scope: its slot, where it was written, whether anything read it."""

    slot: Slot
    span: Span
    is_param: bool = False
    is_number: bool = False
    interval: Interval = Interval()
    was_read: bool = False


class _LayerResolver:
    def __init__(self, decl: syntax.LayerDecl, callees: dict[str, Callee], report: Report):
        self.decl = decl
        self.callees = callees
        self.report = report
        self.used = self._used_callees()
        self.sizes = LayerSizes(decl, self.used, report)
        self.widths = Widths(report, self.sizes.counts, self.sizes.computed)
        self.parameters: list[tuple[str, Slot | None, spec.Expr | None, Span]] = []
        self.scope: dict[str, _Value] = {}
        self.every_value: list[tuple[str, _Value]] = []

    def resolve(self) -> layer_spec.Layer | None:
        model = self.sizes.model
        if model is None:
            self._error("layer-model-width", "the layer has no model width", self.decl.name_span, "no arguments",
                        help=f"write `layer {self.decl.name}(d_model)`: the first argument is the width of `u`")  # fmt: skip
            return None
        self.scope[INPUT] = _Value(Slot(layer_spec.Width("none", (sizes.named(model),)), self.decl.name_span), self.decl.name_span)
        statements = []
        for item in self.decl.body:
            if isinstance(item, syntax.ParamDecl):
                self._parameter(item)
            elif isinstance(item, syntax.LayerAssign):
                statements.append(self._statement(item.names, item.name_spans, item.value, item.span))
            elif isinstance(item, syntax.LetDecl):
                statements.append(self._statement((item.name,), (item.name_span or item.span,), item.value, item.span))
        if not statements:
            self._error("layer-output", "the layer computes nothing", self.decl.name_span, "no statement here",
                        help="the last statement is the layer's result: `out = linear(y)`")  # fmt: skip
            return None
        self._finish(statements[-1], model)
        self.widths.solve()
        frozen = self._freeze_all(statements)
        if frozen is None:
            return None
        return layer_spec.Layer(
            self.decl.name,
            self.report.source,
            self.decl.comment,
            tuple(self.sizes.params.items()),
            tuple(self.sizes.dims.items()),
            tuple(self.sizes.computed.items()),
            self.sizes.count,
            self.sizes.groups,
            tuple(layer_spec.LayerParameter(n, slot.known if slot else None, init, span) for n, slot, init, span in self.parameters),
            tuple(self.used),
            frozen,
            self.decl.span,
        )

    def _used_callees(self) -> dict[str, Callee]:
        found: dict[str, Callee] = {}
        for item in self.decl.body:
            if isinstance(item, (syntax.LayerAssign, syntax.LetDecl)):
                for node in walk(item.value):
                    if isinstance(node, syntax.Call) and node.function in self.callees:
                        found[node.function] = self.callees[node.function]
        return found

    # --- parameters --------------------------------------------------------------------------------------------------

    def _parameter(self, item: syntax.ParamDecl) -> None:
        span = item.name_span or item.span
        slot = None
        if item.type is not None and (item.type.shape or item.type.per in ("head", "channel", "group")):
            shape = [self.sizes.read(node) for node in item.type.shape]
            if None in shape:
                return
            lead = item.type.per if item.type.per in ("head", "channel", "group") else "none"
            slot = Slot(layer_spec.Width(lead, tuple(shape)), item.type.span)
        if item.value is not None:
            self._error("layer-option", f"`{item.name}` has a fixed value", item.value.span, "fixed here",
                        note="a layer's param is learned", help=f"write `param {item.name} : scalar init ...`")  # fmt: skip
        init = None if item.init is None else resolve_init(item.init, self.sizes.names, self.report)
        self.parameters.append((item.name, slot, init, span))
        self.scope[item.name] = _Value(slot or Slot(), span, is_param=True, is_number=slot is None)
        self.every_value.append((item.name, self.scope[item.name]))

    # --- statements --------------------------------------------------------------------------------------------------

    def _statement(self, names, spans, value: syntax.Node, span: Span) -> layer_spec.LayerStatement:
        spans = spans or (span,) * len(names)
        node = self._value(value, tuple(names))
        interval = self._reach(node)
        for i, (name, name_span) in enumerate(zip(names, spans, strict=True)):
            slot = node.widths[i] if i < len(node.widths) else Slot()
            self.scope[name] = _Value(slot, name_span, interval=interval)
            self.every_value.append((name, self.scope[name]))
        return layer_spec.LayerStatement(tuple(names), node, span)

    def _finish(self, last: layer_spec.LayerStatement, model: str) -> None:
        if len(last.names) != 1:
            self._error("layer-output", f"the last statement defines {len(last.names)} values", last.span, "a layer gives one value",
                        help="end with one statement for the result: `out = linear(y)`")  # fmt: skip
            return
        result = self.scope[last.names[0]]
        result.was_read = True
        self.widths.be(result.slot, layer_spec.Width("none", (sizes.named(model),)), self.decl.name_span)
        if self.report.has_errors:
            return
        if not self.scope[INPUT].was_read:
            self.every_value.insert(0, (INPUT, self.scope[INPUT]))
        for name, value in self.every_value:
            if not value.was_read:
                self.report.warning("unused-layer-value", f"`{name}` is never used", value.span, "computed, then dropped",
                                    help=f"use `{name}` or remove it")  # fmt: skip

    def _value(self, node: syntax.Node, names: tuple[str, ...]):
        """The value of `node` in a statement that defines `names`; its widths are slots until `_freeze_all`."""
        match node:
            case syntax.Number(value=value):
                return layer_spec.LayerNumber((), node.span, value)
            case syntax.Name(id=name, prime=False):
                return self._reference(name, node.span)
            case syntax.Unary(operand=operand):
                inner = self._value(operand, names)
                return layer_spec.LayerNegative(inner.widths, node.span, inner)
            case syntax.Subscript(base=syntax.Name(id=name), index=index):
                return self._shift(node, name, index)
            case syntax.Binary(operator=operator, left=left, right=right):
                return self._arithmetic(node, operator, left, right, names)
            case syntax.Call():
                return self._call(node, names)
        self._error("unknown-layer-operation", "a layer has no such operation", node.span, "not a layer expression",
                    note=f"a layer's values are made with {listed(OPERATIONS)}, the pointwise functions, `+ - * /` and `x[-1]`",
                    help="matrix products belong in the recurrence; projections are `linear(x)`")  # fmt: skip
        return layer_spec.LayerNumber((), node.span, Fraction(0))

    def _reference(self, name: str, span: Span):
        value = self.scope.get(name)
        if value is not None:
            value.was_read = True
            kind = layer_spec.LayerParam if value.is_param else layer_spec.LayerRef
            return kind(() if value.is_number else (value.slot,), span, name)
        if name in self.sizes.names:
            return layer_spec.LayerSize((), span, sizes.named(name), Fraction(1))
        self._undefined([name], span)
        return layer_spec.LayerRef((Slot(),), span, name)

    def _undefined(self, names: list[str], span: Span, edit: str = "") -> None:
        verb = "is" if len(names) == 1 else "are"
        self._error("undefined-layer-value", f"{listed(names)} {verb} not defined here", span, "no earlier statement defines it",
                    help=edit or self._nearest(names[0], self.scope) or f"the layer's input is `{INPUT}`")  # fmt: skip

    def _shift(self, node: syntax.Subscript, name: str, index: syntax.Node):
        offset = index.operand.value if isinstance(index, syntax.Unary) and isinstance(index.operand, syntax.Number) else None
        if offset != 1 and not (isinstance(index, syntax.Number) and index.value == -1):
            self._error("layer-option", f"`{name}[...]` reaches another token than the last", index.span, "only `[-1]` here",
                        note="a layer carries one earlier value of a name", help=f"write `{name}[-1]`, or `conv(width)`")  # fmt: skip
        if name not in self.scope or self.scope[name].is_param:
            self._undefined([name], node.span)
            return layer_spec.LayerRef((Slot(),), node.span, name)
        value = self.scope[name]
        value.was_read = True
        return layer_spec.LayerShift((value.slot,), node.span, name)

    def _arithmetic(self, node, operator, left, right, names):
        if operator == "." and self.sizes.count is not None:
            a, b = self._value(left, names), self._value(right, names)
            for x, y in zip(a.widths, b.widths, strict=False):
                self.widths.combine(x, y, node.span)
            return layer_spec.LayerArithmetic((Slot(layer_spec.Width(self.sizes.lead)),), node.span, ".", a, b)
        if operator in ("juxtapose", "."):
            self._error("unknown-layer-operation", "a layer has no matrix product", node.span, "a product without `*`",
                        note="values of a layer multiply element by element", help="write `*`, or a projection `linear(x)`")  # fmt: skip
        if operator == "^" and isinstance(left, syntax.Name) and left.id in self.sizes.names and left.id not in self.scope:
            exponent = self.sizes.number(right)
            if exponent is not None:
                return layer_spec.LayerSize((), node.span, sizes.named(left.id), exponent)
        a, b = self._value(left, names), self._value(right, names)
        if not a.widths or not b.widths:
            widths = a.widths or b.widths
        else:
            count = max(len(a.widths), len(b.widths))
            pairs = zip(spread(a.widths, count), spread(b.widths, count), strict=True)
            widths = tuple(self.widths.combine(x, y, node.span) for x, y in pairs)
        return layer_spec.LayerArithmetic(widths, node.span, "*" if operator in ("juxtapose", ".") else operator, a, b)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call(self, node: syntax.Call, names: tuple[str, ...]):
        if node.function in self.callees:
            return self._callee(node, self.callees[node.function], names)
        if node.function == "linear":
            return self._linear(node, names)
        if node.function == "conv":
            return self._conv(node, names)
        if node.function in NORMS:
            return self._norm(node, names)
        if node.function in FUNCTIONS and (node.function in COLUMN_FUNCTIONS or FUNCTIONS[node.function].kind == "pointwise"):
            return self._apply(node, names)
        self._error("unknown-layer-operation", f"`{node.function}` is neither a recurrence of this file nor a layer operation",
                    node.span, "called here",
                    help=self._nearest(node.function, (*self.callees, *OPERATIONS, *FUNCTIONS))
                    or f"layer operations are {listed(OPERATIONS)} and the pointwise functions")  # fmt: skip
        return layer_spec.LayerRef((Slot(),), node.span, names[0])

    def _apply(self, node: syntax.Call, names):
        self._options(node, ())
        operands = tuple(self._value(argument, names) for argument in node.args)
        widths: tuple = ()
        for operand in operands:
            if operand.widths and widths:
                count = max(len(widths), len(operand.widths))
                pairs = zip(spread(widths, count), spread(operand.widths, count), strict=True)
                widths = tuple(self.widths.combine(x, y, node.span) for x, y in pairs)
            else:
                widths = widths or operand.widths
        low, high = FUNCTIONS[node.function].arity
        if not low <= len(operands) <= high:
            self._error("layer-option", f"`{node.function}` takes {low if low == high else f'{low} to {high}'} values, not {len(operands)}",
                        node.span, "called here", help=f"give it {low}")  # fmt: skip
            return layer_spec.LayerRef((Slot(),), node.span, names[0])
        return layer_spec.LayerApply(widths, node.span, node.function, operands)

    def _linear(self, node: syntax.Call, names):
        arguments, options = self._options(node, ("bias", "rank", "width"))
        operand = self._single(node, arguments, f"{INPUT}")
        rank = self.sizes.read(options["rank"]) if "rank" in options else None
        widths = tuple(Slot() for _ in names)
        if "width" in options and (size := self.sizes.read(options["width"])) is not None:
            for slot in widths:
                self.widths.be(slot, self._width_of(size), options["width"].span)
        return layer_spec.LayerLinear(widths, node.span, operand, self._flag(options, "bias", False), rank)

    def _width_of(self, size: layer_spec.Size) -> layer_spec.Width:
        is_count = self.sizes.count is not None and size == sizes.named(self.sizes.count)
        return layer_spec.Width(self.sizes.lead) if is_count else layer_spec.Width("none", (size,))

    def _conv(self, node: syntax.Call, names):
        arguments, options = self._options(node, ("bias",))
        taps = self.sizes.number(arguments[-1]) if arguments and len(arguments) <= 2 else None
        if taps is None or taps.denominator != 1 or taps < 2:
            self._error("layer-option", "a convolution needs its number of taps, at least 2", node.span, "called here",
                        help="write `conv(4)` for the names at the left, or `conv(x, 4)`")  # fmt: skip
            taps = Fraction(2)
        if len(arguments) > 1:
            operand = self._value(arguments[0], names)
        else:
            missing = [name for name in names if name not in self.scope]
            if missing:
                self._undefined(missing, node.span, f"project first: `{', '.join(missing)} = linear({INPUT})`")
                return layer_spec.LayerRef(tuple(Slot() for _ in names), node.span, names[0])
            references = [self._reference(name, node.span) for name in names]
            slots = tuple(spread(reference.widths, 1)[0] for reference in references)
            operand = references[0] if len(names) == 1 else layer_spec.LayerGroup(slots, node.span, names)
        return layer_spec.LayerConv(operand.widths, node.span, operand, int(taps), self._flag(options, "bias", False))

    def _norm(self, node: syntax.Call, names):
        arguments, options = self._options(node, ("per", "bias", "eps"))
        operand = self._single(node, arguments, "y", names)
        if len(names) > 1:
            self._error("layer-option", f"one norm for {len(names)} values", node.span, "its weights would be shared",
                        help=f"write one statement a value: `{names[0]} = {node.function}({names[0]})`")  # fmt: skip
        per = options["per"].id if isinstance(options.get("per"), syntax.Name) else "head" if node.function == "groupnorm" else "layer"
        if per not in ("head", "group", "layer"):
            self._error("layer-option", f"a norm is not `per {per}`", options["per"].span, "written here",
                        help="write `per head`, `per group`, or nothing for all channels together")  # fmt: skip
        eps = self.sizes.number(options["eps"]) if "eps" in options else NORM_EPS
        # A group norm is a layer norm of each head by itself.
        kind = "rmsnorm" if node.function == "rmsnorm" else "layernorm"
        bias = self._flag(options, "bias", kind == "layernorm")
        return layer_spec.LayerNorm(operand.widths, node.span, kind, operand, per, bias, NORM_EPS if eps is None else eps)

    def _callee(self, node: syntax.Call, callee: Callee, names):
        arguments, _ = self._options(node, ())
        operands = tuple(self._value(argument, names[:1]) for argument in arguments)
        wanted = listed([port.name for port in callee.inputs])
        if len(operands) != len(callee.inputs):
            self._error(
                "recurrence-input-count",
                f"`{callee.name}` takes {len(callee.inputs)} inputs, not {len(operands)}",
                node.span,
                f"{len(operands)} given",
                note=f"inputs come in the order of their declaration: {wanted}",
                help=f"write `{callee.name}({', '.join(port.name for port in callee.inputs)})`",
            )
        for operand, port in zip(operands, callee.inputs, strict=False):
            for slot in operand.widths:
                self._need_count(port.width, node.span)
                self.widths.be(slot, port.width, operand.span)
            self._check_domain(operand, port, callee)
        if len(names) != len(callee.outputs):
            self._error("recurrence-input-count", f"`{callee.name}` gives {len(callee.outputs)} values, not {len(names)}", node.span,
                        f"assigned to {len(names)} names",
                        help=f"write `{', '.join(port.name for port in callee.outputs)} = {callee.name}(...)`")  # fmt: skip
        widths = tuple(Slot(port.width, node.span) for port in callee.outputs)
        for port in callee.outputs:
            self._need_count(port.width, node.span)
        return layer_spec.LayerCall(widths, node.span, callee.name, operands, tuple(port.width for port in callee.inputs))

    def _check_domain(self, operand: layer_spec.LayerValue, port: Port, callee: Callee) -> None:
        interval = self._reach(operand)
        if port.domain is not None and not interval.is_within(port.domain):
            self._error("input-domain", f"`{port.name}` of `{callee.name}` must lie in {port.domain}", operand.span,
                        f"this reaches {interval}", note="the bounds proved of the recurrence rest on its inputs' domains",
                        help="apply a function with that range: `sigmoid` for (0, 1), `softplus` for > 0, `-softplus` for < 0")  # fmt: skip

    def _reach(self, node: layer_spec.LayerValue) -> Interval:
        return reach(node, {name: value.interval for name, value in self.scope.items()})

    def _need_count(self, width: layer_spec.Width, span: Span) -> None:
        if width.lead in ("head", "channel") and self.sizes.count is None:
            self._error("layer-without-heads", f"the layer does not say how many {width.lead}s it has", span,
                        f"takes or gives values per {width.lead}",
                        help=f"add `heads H = {self.sizes.model} / P` before the first statement")  # fmt: skip

    def _single(self, node: syntax.Call, arguments, example: str, names=("",)):
        if len(arguments) == 1:
            return self._value(arguments[0], names if len(names) > 1 else names[:1])
        self._error("layer-option", f"`{node.function}` takes one value, not {len(arguments)}", node.span, "called here",
                    help=f"write `{node.function}({example})`")  # fmt: skip
        return layer_spec.LayerRef((Slot(),), node.span, example)

    def _options(self, node: syntax.Call, allowed: tuple[str, ...]) -> tuple[list[syntax.Node], dict[str, syntax.Node]]:
        """The call's values and its options; a bare word such as `bias` is an option set to true."""
        arguments, options = [], {}
        for argument in node.args:
            if isinstance(argument, syntax.Name) and argument.id in allowed and argument.id not in self.scope:
                options[argument.id] = syntax.Name(argument.span, "true")
            else:
                arguments.append(argument)
        for key, value in node.keywords:
            if key in allowed:
                options[key] = value
            else:
                known = f"its options are {listed(allowed)}" if allowed else "it has no options"
                self._error("layer-option", f"`{node.function}` has no option `{key}`", value.span, "given here",
                            note=known, help=self._nearest(key, allowed) or f"remove `{key}`")  # fmt: skip
        return arguments, options

    def _flag(self, options: dict[str, syntax.Node], name: str, default: bool) -> bool:
        value = options.get(name)
        if value is None:
            return default
        if isinstance(value, syntax.Name) and value.id in ("true", "false"):
            return value.id == "true"
        self._error("layer-option", f"`{name}` is true or false", value.span, "neither",
                    help=f"write `{name}` or `{name} = false`")  # fmt: skip
        return default

    # --- at the end --------------------------------------------------------------------------------------------------

    def _freeze_all(self, statements) -> tuple[layer_spec.LayerStatement, ...] | None:
        self._check_blocks(statements)
        unknown = [(name, value) for name, value in self.every_value if not value.is_number and value.slot.known is None]
        if unknown and not self.widths.faults:
            for name, value in unknown:
                self._error(
                    "cannot-infer-width",
                    f"nothing says how wide `{name}` is",
                    value.span,
                    "computed here",
                    note="widths come from a recurrence's inputs and outputs, from the model width and from what is added or multiplied",
                    help=f"say it: `{name} = linear({INPUT}, width = 2 * {self.sizes.model})`",
                )
        if unknown or self.report.has_errors:
            return None
        frozen = tuple(freeze(statement) for statement in statements)
        for statement in frozen:
            # The innermost one is where a width can be written.
            for node in reversed(list(walk(statement.value))):
                if isinstance(node, layer_spec.LayerValue) and None in node.widths:
                    self._error("cannot-infer-width", "nothing says how wide this value is", node.span, "computed here",
                                help=f"say it in the projection: `linear(..., width = 2 * {self.sizes.model})`")  # fmt: skip
                    return None
        return frozen

    def _check_blocks(self, statements) -> None:
        for statement in statements:
            for node in walk(statement.value):
                if isinstance(node, layer_spec.LayerNorm) and node.per in ("head", "group"):
                    for slot in node.widths:
                        if slot.known is not None and slot.known.lead not in ("head", "group"):
                            self._error("layer-shape-mismatch", f"a norm per {node.per} of a value without heads", node.span,
                                        f"the value is `{slot.known}`", help=f"leave out `per {node.per}`")  # fmt: skip

    def _nearest(self, name: str, known: Iterable[str]) -> str:
        from difflib import get_close_matches

        found = [SYNONYMS[name]] if name in SYNONYMS else get_close_matches(name, list(known), n=1)
        return f"did you mean `{found[0]}`?" if found else ""

    def _error(self, slug: str, title: str, span: Span, label: str, *, note: str = "", help: str) -> None:
        self.widths.faults += 1
        self.report.error(slug, title, span, label, note=note, help=help)
