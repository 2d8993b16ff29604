"""Stacks: which layers follow one another, how often, and what stands between them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from fractions import Fraction

from .. import layer_spec, syntax
from ..diagnostics import Report
from . import sizes

FEED_FORWARD = ("swiglu", "geglu", "mlp")
NORMS = ("rmsnorm", "layernorm")
POSITIONS = ("pre", "post")
CLAUSES = {"head": ("tied", "untied"), "embedding": ("learned",), "norm": NORMS}


def resolve_stack(decl: syntax.StackDecl, layers: Iterable[syntax.LayerDecl | layer_spec.Layer], report: Report) -> layer_spec.Stack | None:
    """The stack `decl` over the layers of its file; None when a fault was reported.

    `rope = none` may stand at any layer: it says that positions do not enter there, which is so unless a score turns its
    queries. Reports `unknown-layer`, `unknown-layer-argument`, `stack-count`, `unknown-stack-part` and, as a warning,
    `stack-cut-short`.
    """
    before = sum(d.severity.value == "error" for d in report.found)
    known = {layer.name: tuple(name for name, _ in layer.params) for layer in layers}
    params = {name: None if value is None else _number(value, report) for name, value in decl.params}
    if not decl.repeat:
        report.error("stack-count", f"`{decl.name}` repeats nothing", decl.name_span, "no layers",
                     help="name them: `repeat { 3 * some_block; 1 * other_block }`")  # fmt: skip
    pattern = tuple(_item(item, known, params, report) for item in decl.repeat)
    between = tuple(_between(node, report) for node in decl.between)
    for keyword, word in decl.clauses:
        if word not in CLAUSES.get(keyword, ()):
            report.error("unknown-stack-part", f"`{keyword} {word}` is nothing a stack has", decl.name_span, "in this stack",
                         help=f"write `{keyword} {CLAUSES.get(keyword, ('tied',))[0]}`")  # fmt: skip
    if sum(d.severity.value == "error" for d in report.found) > before:
        return None
    total, depth = sum(count for count, _, _ in pattern), params.get("layers")
    if total and depth is not None and depth % total:
        report.warning("stack-cut-short", f"{depth} layers are not a whole number of repetitions", decl.name_span,
                       f"the pattern has {total} layers",
                       note="the last repetition stops where the layers are used up",
                       help=f"choose `layers = {int(depth // total) * total or total}` for whole repetitions")  # fmt: skip
    return layer_spec.Stack(decl.name, report.source, decl.comment, tuple(params.items()), pattern, between, decl.clauses, decl.span)


def _item(item: syntax.StackItem, known: dict[str, tuple[str, ...]], params: dict, report: Report):
    count = _number(item.count, report, params)
    if count is None or count.denominator != 1 or count < 1:
        report.error("stack-count", "a layer is repeated a whole number of times, at least once", item.count.span, "repeated this often",
                     help=f"write `2 * {item.layer}`")  # fmt: skip
        count = Fraction(1)
    if item.layer not in known:
        near = get_close_matches(item.layer, list(known), n=1)
        listed = ", ".join(f"`{name}`" for name in known) or "none"
        report.error("unknown-layer", f"there is no layer `{item.layer}`", item.span, "named here", note=f"layers of this file: {listed}",
                     help=f"did you mean `{near[0]}`?" if near else f"declare it: `layer {item.layer}(d_model) {{ ... }}`")  # fmt: skip
    for name, value in item.keywords:
        is_without_rope = name == "rope" and isinstance(value, syntax.Name) and value.id == "none"
        if item.layer in known and name not in known[item.layer] and not is_without_rope:
            listed = ", ".join(f"`{n}`" for n in known[item.layer]) or "none"
            report.error("unknown-layer-argument", f"`{item.layer}` has no argument `{name}`", value.span, "given here",
                         note=f"its arguments: {listed}", help=f"declare it: `layer {item.layer}(d_model, {name} = ...)`")  # fmt: skip
    words = tuple((name, report.source.slice(value.span).strip()) for name, value in item.keywords)
    return int(count), item.layer, words


def _between(node: syntax.Node, report: Report) -> str:
    name = node.function if isinstance(node, syntax.Call) else getattr(node, "id", "")
    if name not in (*FEED_FORWARD, *NORMS):
        near = get_close_matches(name, (*FEED_FORWARD, *NORMS), n=1)
        report.error("unknown-stack-part", f"`{name}` does not stand between layers", node.span, "written here",
                     note=f"between layers stand {', '.join(f'`{n}`' for n in FEED_FORWARD)} and the norms "
                          f"{', '.join(f'`{n}`' for n in NORMS)}",
                     help=f"did you mean `{near[0]}`?" if near else "write `between swiglu(8/3), rmsnorm pre`")  # fmt: skip
    position = dict(node.keywords).get("position") if isinstance(node, syntax.Call) else None
    if isinstance(position, syntax.Name) and position.id not in POSITIONS:
        report.error("unknown-stack-part", f"a norm stands before or after its layer, not `{position.id}`", position.span, "written here",
                     help=f"write `{name} pre` or `{name} post`")  # fmt: skip
    return " ".join(report.source.slice(node.span).split())


def _number(node: syntax.Node, report: Report, params: dict | None = None) -> Fraction | None:
    try:
        size = sizes.read(node, params or {})
        return size.value({k: v for k, v in (params or {}).items() if v is not None})
    except sizes.NotASize as fault:
        report.error("layer-size", "not a number", fault.node.span, str(fault), help="write a number")
    except KeyError:
        pass
    return None
