"""What a spec means and how it will run, in words: everything here reads what the passes found and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from textwrap import fill, indent

from . import compiler, kernel_text, layer_text, scan_text
from .layer_spec import Layer
from .module.decode_words import layer_words, recurrence_words
from .package.lengths import frame_words
from .plan import AXES, Classified, Cost, Plan
from .plan_text import axis_rows, columns, cost_rows, form_words, frame_lines, walk_lines
from .recurrence_text import equations
from .response_text import convolution_lines
from .source import Source
from .spec import Recurrence, Ref
from .spec_text import expr_text, number_text
from .stability import Stability, stability
from .torch_form.dense import core_of
from .triton_form.forms import form_of

BALANCE = (150, 300)
"""Operations a byte that current GPUs do in bfloat16: the tensor cores' peak over the memory's bandwidth, about."""


def summary(source: Source, sizes: Mapping[str, int]) -> tuple[str, tuple]:
    """Each recurrence's mathematics, place in the space, stability, chunk form and cost, with the warnings found.

    What has no kernel yet is shown as far as it is known. Raises SpecError.
    """
    trace = compiler.check(source, sizes)
    specification = trace.after("resolve")[source.name]
    parts = [_recurrence(trace, spec) for spec in specification.recurrences]
    parts += [_item("attention", item, layer_text.attention_text(item), "no kernel yet") for item in specification.attentions]
    parts += [_layer(trace, item) for item in specification.layers]
    parts += [_item("stack", item, layer_text.stack_text(item), "not built yet") for item in specification.stacks]
    return "\n\n".join(parts), trace.warnings


def _item(kind: str, item, text: str, state: str = "") -> str:
    head = f"{kind} {item.name}" + (f"  ({state})" if state else "")
    # the braces and the name are in the head
    return "\n".join([head, *_comment(item.comment), *text.split("\n")[1:-1]])


def _layer(trace: compiler.Trace, layer: Layer) -> str:
    text = _item("layer", layer, layer_text.layer_text(layer))
    classified = trace.after("classify").get(layer.callees[0]) if len(layer.callees) == 1 else None
    if classified is None or classified.refusals:
        return text
    return "\n".join([text, *(f"  {line}" for line in columns(layer_words(layer, classified.recurrence.upright)))])


def _comment(comment: str) -> list[str]:
    return [f"  {line}".rstrip() for line in comment.strip().split("\n")] if comment.strip() else []


def _recurrence(trace: compiler.Trace, spec: Recurrence) -> str:
    derived, classified = (trace.after(name)[spec.name] for name in ("derive", "classify"))
    plan = kernels = None
    if not classified.refusals:
        from .lower import lower
        from .schedule import schedule

        plan = schedule(classified)
        kernels = lower(plan)
    sizes = ", ".join(f"{name} = {number_text(size)}" for name, size in (*spec.dims, *spec.counts, *spec.constants))
    head = [f"recurrence {spec.name}" + (f"  ({sizes})" if sizes else ""), *_comment(spec.comment)]
    sequential = [f"sequential: {derived.sequential}"] if derived.sequential else []
    blocks = (
        ("what a token does", [*sequential, *equations(derived)]),
        ("discretized", _discretization(derived.discrete)),
        ("structure", _structure(classified)),
        ("ranges proved", _ranges(spec)),
        ("stability", [line for each in stability(derived) for line in _stability(each)]),
        ("chunk form", [] if kernels is None else [*frame_lines(classified), *(line for walk in kernels.walks for line in _chunk(walk))]),
        ("scan form", [] if kernels is None or kernels.scan is None else _scan(kernels)),
        ("convolution form", [] if plan is None or plan.convolution is None else convolution_lines(plan.convolution)),
        ("adjoint", list(derived.adjoint)),
        ("backward", [] if kernels is None else [line for walk in kernels.walks for line in kernel_text.gradient_lines(walk)]),
        ("how it runs", _refused(classified) if plan is None else _how(plan, kernels)),
        ("cost", _state_cost(spec) if plan is None else _cost(plan, _unit(spec))),
    )
    return "\n".join([*head, *(_block(title, lines) for title, lines in blocks if lines)])


def _discretization(discrete) -> list[str]:
    if discrete is None:
        return []
    held = "exact" if discrete.held_order is None else discrete.held_order
    order = f"{discrete.order} for a smooth input, {held} for one held during the step" if discrete.order else "as written"
    rows = [("method", discrete.method), ("order", order + (f"; {discrete.special}" if discrete.special else ""))]
    rows.append(("state times", discrete.transition))
    rows += [("write times" if tap == 0 else "its write before", weight) for tap, weight in enumerate(discrete.weights)]
    if discrete.singular:
        rows.append(("at 0/0", discrete.singular))
    return columns(rows)


def _structure(classified: Classified) -> list[str]:
    # the other axes describe updates that are affine in the state
    shown = ("time", "form") if classified.recurrence.sequential else AXES
    gauges = [("gauge", *row) for row in frame_words(classified.recurrence)]
    return columns([*(row for row in axis_rows(classified) if row[0] in shown), *gauges])


def _ranges(spec: Recurrence) -> list[str]:
    symbols = [s for s in spec.symbols if s.kind in ("gate", "let") or s.domain is not None or (s.definition is not None and s.static)]
    rows = []
    for symbol in symbols:
        declared = f"declared in {symbol.domain}" if symbol.domain is not None else ""
        rows.append((symbol.name, f"in {symbol.interval}", declared if symbol.definition is not None else f"{declared}, assumed"))
    return columns(rows)


def _stability(found: Stability) -> list[str]:
    rows = [(found.state, f"|a| in {found.factor}; {found.words}" if found.factor is not None else found.words)]
    if found.half_life is not None:
        rows.append(("", f"half-life {_tokens(found.half_life)}"))
        if found.initial_half_life is not None:
            rows[-1] = ("", rows[-1][1] + f"; {_tokens(found.initial_half_life)} at the initial parameters, inputs 0")
    if found.beside:
        rows.append(("", found.beside))
    return columns(rows)


def _tokens(interval) -> str:
    low, high = (f"{end:,.0f}" if 100 <= end < float("inf") else f"{end:.3g}" for end in (interval.low, interval.high))
    if low == high:
        return f"{low} token{'s' * (low != '1')}"
    return f"{'(' if interval.low_open else '['}{low}, {high}{')' if interval.high_open else ']'} tokens"


def _chunk(walk) -> list[str]:
    lines = [walk.forward.title, *(f"  {line}" for line in walk_lines(walk.walk)), "in a chunk of C tokens, S the state entering it"]
    return [*lines, *(f"  {line}" for line in kernel_text.equations(walk.forward))]


def _how(plan: Plan, kernels) -> list[str]:
    classified = core_of(plan.classified) if plan.form == "scan" else plan.classified
    # products of matrices stand outside of a step as well
    recurrence = classified.recurrence if classified.recurrence.dense is not None else classified.recurrence.upright
    token = recurrence_words(recurrence)
    if token and classified.recurrence.dense is not None:
        token += "; products of matrices are torch operations"
    sequence = ("a sequence", f"on a GPU {form.words}" if (form := form_of(kernels)).files else form.words)
    return columns([("form", form_words(plan)), *_reasons(plan), sequence, *([("a token", token)] if token else [])])


def _scan(kernels) -> list[str]:
    recurrence = kernels.plan.classified.recurrence
    program, dense = kernels.scan, recurrence.dense
    before, behind = ([], []) if dense is None else (dense.before, dense.outputs)
    # a function of a matrix is shown as what it is, not by the name that it has already
    known = {} if dense is None else dict(recurrence.unturned.hoisted) | {s.name: s.definition for s in recurrence.unturned.spec.symbols}
    before = [(name, known[value.name] if isinstance(value, Ref) else value) for name, value in before]
    forward, gradient = scan_text.forward_lines(program), scan_text.gradient_lines(program)
    lines = [
        "a token" if program.mixes or program.blocks else "a token, every entry of the state by itself",
        *(f"  {line}" for line in forward),
    ]
    lines += ["from the right, D what reaches a state from later tokens", *(f"  {line}" for line in gradient)]
    around = (("of all tokens, before the scan", before), ("and behind it", behind))
    return [*lines, *(line for title, values in around if values for line in (title, *(f"  {n} = {expr_text(v)}" for n, v in values)))]


def _reasons(plan: Plan) -> list[tuple[str, str]]:
    return [("why" if i == 0 else "", reason) for i, reason in enumerate(plan.reasons)]


def _refused(classified: Classified) -> list[str]:
    return [f"not built yet: {diagnostic.title}" for diagnostic in classified.refusals]


# --- cost --------------------------------------------------------------------------------------------------------


def _unit(spec: Recurrence) -> str:
    return "channel" if any(state.per == "channel" for state in spec.states) else "head"


def _cost(plan: Plan, unit: str) -> list[str]:
    return columns([*cost_rows(plan.cost, unit), ("intensity", _intensity(plan.cost))])


def _intensity(cost: Cost) -> str:
    """What bounds the forward pass, from operations a byte."""
    ratio = cost.flops[1] / cost.bytes[1]
    low, high = BALANCE
    bound = "memory" if ratio < low else "arithmetic" if ratio > high else "memory or arithmetic, by the device"
    decode = cost.flops[1] and 4 * cost.state[1] / cost.decode_bytes[1]
    return (
        f"{ratio:.3g} flops a byte: bound by {bound} where {low} to {high} flops a byte balance (current GPUs, bf16); "
        f"decoding, {decode:.2g}: bound by memory"
    )


def _state_cost(spec: Recurrence) -> list[str]:
    """What is known before there is a kernel: the state, and that a decoded token reads and writes it."""
    sizes = {**dict(spec.dims), **dict(spec.counts)}
    count, words = 0, []
    for state in spec.states:
        # a complex entry is two numbers; of a state of rotating rows N counts the real rows
        is_complex = state.type.field == "complex" and state.rotating_rows is None
        shape = [size for size in (state.type.rows, state.type.cols) if str(size) != "1"]
        count += (2 if is_complex else 1) * int(prod(size.value(sizes) for size in shape))
        words.append(
            "*".join([*(["2"] * is_complex), *(f"({size})" if "+" in str(size) or "/" in str(size) else str(size) for size in shape)])
        )
    text = " + ".join(word or "1" for word in words)
    cost = Cost(("", 0.0), ("", 0.0), (text, count), (f"2*4*({text})" if len(words) > 1 else f"2*4*{text}", 8.0 * count))
    return columns(cost_rows(cost, _unit(spec))[2:])


# --- intermediate values -----------------------------------------------------------------------------------------


def after(source: Source, name: str, sizes: Mapping[str, int]) -> tuple[str, tuple]:
    """The value that pass `name` gives, printed. Raises SpecError."""
    early = compiler.PASSES.index(name) <= compiler.PASSES.index("classify")
    trace = compiler.check(source, sizes) if early else compiler.build(source, sizes).trace
    values = trace.after(name).items()
    if name == "emit":
        return "\n".join(_files(item, value) for item, value in values), trace.warnings
    return "\n\n".join(f"# {item}\n{value}" for item, value in values), trace.warnings


def _files(package: str, files: Mapping[str, str]) -> str:
    rows = [
        (f"{package}/{path}", f"{text.count(chr(10)):5,} lines", f"{len(text.encode()):7,} bytes") for path, text in sorted(files.items())
    ]
    return "\n".join(columns(rows))


# --- rules and what there is -------------------------------------------------------------------------------------


def rule(rule) -> str:
    """A rule's page: what, why, an example that breaks it, what to write instead."""
    parts = [f"{rule.slug}: {rule.title}"]
    parts += [_page(head, words) for head, words in (("what", rule.what), ("why", rule.why)) if words]
    parts += [f"{head}\n{indent(text.strip(), '    ')}" for head, text in (("example", rule.example), ("instead", rule.instead)) if text]
    return "\n\n".join(parts)


def _page(head: str, words: str) -> str:
    return f"{head}\n{indent(fill(' '.join(words.split()), 96), '    ')}"


def catalogue(examples: Mapping[str, Path], section: str | None) -> dict[str, list[tuple[str, str]]]:
    """What there is, by section (all of them, or the one named): name and one line each."""
    sections = {"examples": _examples, "functions": _functions, "discretizations": _discretizations, "features": _features, "rules": _rules}
    return {name: rows(examples) for name, rows in sections.items() if section in (None, name)}


def _examples(examples: Mapping[str, Path]) -> list[tuple[str, str]]:
    found = []
    for name, path in examples.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        found.append((name, next((line.lstrip("# ") for line in lines if line.startswith("#") and line.strip("# ")), "")))
    return found


def _functions(_) -> list[tuple[str, str]]:
    from .functions import FUNCTIONS

    return [(name, FUNCTIONS[name].doc) for name in sorted(FUNCTIONS)]


def _discretizations(_) -> list[tuple[str, str]]:
    from .discretizations import methods
    from .discretizations._method import text

    def words(method) -> str:
        order = "" if method.order is None else f"order {method.order}; "
        if not method.parameters:
            return f"the update as it is written; {method.source}"
        return f"({', '.join(method.parameters)})  state times {text(method.transition)}; {order}{method.source}"

    return [(name, words(method)) for name, method in methods().items()]


def _features(_) -> list[tuple[str, str]]:
    from .features import values
    from .plan import AXES

    rows = [(f"{axis} {name}", feature) for axis in AXES for name, feature in values(axis).items()]

    def words(feature) -> str:
        return "" if feature.is_lowered else "  (in scans)" if feature.in_scan else "  (no kernel yet)"

    return [(name, feature.sentence + words(feature)) for name, feature in rows]


def _rules(_) -> list[tuple[str, str]]:
    from .rules import RULES

    return [(slug, RULES[slug].title) for slug in sorted(RULES)]


def _block(head: str, lines: list[str]) -> str:
    return "\n".join(["", head, *(f"  {line}" for line in lines)])
