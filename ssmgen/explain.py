"""What a spec means and how it will run, in words: everything here reads what the passes found and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from textwrap import fill, indent

from . import compiler
from .diagnostics import SpecError
from .kernel import Carry, Step, Tile
from .recurrence_text import equations
from .source import Source
from .spec import Expr, Recurrence
from .spec_text import expr_text, spec_text
from .syntax import File
from .syntax_text import to_text


def summary(source: Source, sizes: Mapping[str, int]) -> tuple[str, tuple]:
    """Each recurrence's mathematics, place in the space and plan, with the warnings found. Raises SpecError."""
    trace = compiler.check(source, sizes)
    specification = trace.after("resolve")[source.name]
    parts = [_recurrence(trace, spec) for spec in specification.recurrences]
    for kind in ("attentions", "layers", "stacks"):
        parts += [f"{kind[:-1]} {item.name}: {_first_line(item.comment) or 'checked'}" for item in getattr(specification, kind)]
    return "\n\n".join(parts), trace.warnings


def _recurrence(trace: compiler.Trace, spec) -> str:
    derived, classified = (trace.after(name)[spec.name] for name in ("derive", "classify"))
    sizes = ", ".join(f"{name} = {size}" for name, size in (*spec.dims, *spec.counts))
    blocks = [f"recurrence {spec.name}" + (f"  ({sizes})" if sizes else "")]
    if spec.comment:
        blocks.append(indent(spec.comment.strip(), "  "))
    blocks.append(_block("what each token does", equations(derived) if not derived.sequential else [f"sequential: {derived.sequential}"]))
    if derived.discrete is not None:
        blocks.append(_block("discretized", _discretization(derived.discrete)))
    ranges = [(symbol.name, str(symbol.interval)) for symbol in spec.symbols if symbol.kind in ("gate", "let")]
    blocks.append(_block("ranges proved", _columns(ranges)))
    blocks.append(
        _block(
            "place in the space",
            _columns([(a.axis, a.value, a.sentence + ("" if a.is_lowered else "  (no kernel yet)")) for a in classified.axes]),
        )
    )
    blocks.append(_block("adjoint", list(derived.adjoint)))
    blocks.append(_block("how it runs", _plan(classified)))
    return "\n".join(block for block in blocks if block)


def _discretization(discrete) -> list[str]:
    rows = [("method", f"{discrete.method}, of order {discrete.order}"), ("state times", discrete.transition)]
    rows += [(f"write times{', token before' * (tap > 0)}", weight) for tap, weight in enumerate(discrete.weights)]
    if discrete.singular:
        rows.append(("at 0/0", discrete.singular))
    return _columns(rows)


def _plan(classified) -> list[str]:
    from .schedule import schedule

    try:
        plan = schedule(classified)
    except SpecError as error:
        return [f"not yet: {diagnostic.title}" for diagnostic in error.diagnostics]
    cost = plan.cost
    rows = [
        ("form", f"{plan.form}, {plan.chunk} tokens" + (", reversed" if plan.is_reversed else "")),
        *(("", reason) for reason in plan.reasons),
        ("flops", f"{cost.flops[1]:,.0f} a token and head, forward = {cost.flops[0]}"),
        ("bytes", f"{cost.bytes[1]:,.0f} a token and head, forward = {cost.bytes[0]}"),
        ("state", f"{cost.state[1]:,} numbers a head = {cost.state[0]}"),
        ("decode", f"{cost.decode_bytes[1]:,.0f} bytes a token and head = {cost.decode_bytes[0]}"),
    ]
    return _columns(rows)


def after(source: Source, name: str, sizes: Mapping[str, int]) -> tuple[str, tuple]:
    """The value that pass `name` gives, printed. Raises SpecError."""
    early = compiler.PASSES.index(name) <= compiler.PASSES.index("classify")
    trace = compiler.check(source, sizes) if early else compiler.build(source, sizes).trace
    parts = []
    for item, value in trace.after(name).items():
        if name == "emit":
            parts += [f"# --- {item}/{path}\n{text}" for path, text in sorted(value.items())]
        else:
            lines = [f"# {item}", *(f"  {line}" for line in (equations(value) if name == "derive" else ())), show(value)]
            parts.append("\n".join(lines))
    return "\n".join(parts), trace.warnings


_HIDDEN = ("span", "source", "name_span", "name_spans", "method_span")
_EARLIER = ("spec", "recurrence", "classified", "plan")
"""Fields that hold the value of an earlier pass: print that pass to see it."""


def show(value) -> str:
    """An intermediate value as text: one line where it has words of its own, else field by field, without spans."""
    words = _words(value)
    return "\n".join(_outline(value)) if words is None else words


def _words(value) -> str | None:
    if isinstance(value, Expr):
        return expr_text(value)
    if isinstance(value, File):
        return to_text(value)
    if isinstance(value, Recurrence):
        return spec_text(value)
    if isinstance(value, Tile):
        return f"{value.name} [{', '.join(value.axes)}]"
    if isinstance(value, Carry):
        return value.math
    if isinstance(value, Step):
        return f"{value.target.name} [{', '.join(value.target.axes)}]  {value.math}"
    return None if is_dataclass(value) and type(value).__str__ is object.__str__ else str(value)


def _outline(value, depth: int = 0) -> list[str]:
    pad = "  " * depth
    lines = [pad + type(value).__name__]
    for field in fields(value):
        part = getattr(value, field.name)
        if field.name in _HIDDEN or part in (None, (), "", False) or (field.name in _EARLIER and is_dataclass(part)):
            continue
        items = part if isinstance(part, tuple) else (part,)
        words = [_words(item) if not isinstance(item, tuple) else ", ".join(show(each) for each in item) for item in items]
        if None not in words and sum(map(len, words)) < 100:
            lines.append(f"{pad}  {field.name}: {', '.join(words)}")
            continue
        lines.append(f"{pad}  {field.name}:")
        for item, text in zip(items, words, strict=True):
            lines += _outline(item, depth + 2) if text is None else [f"{pad}    {line}" for line in text.splitlines()]
    return lines


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
    return [(name, feature.sentence + ("" if feature.is_lowered else "  (no kernel yet)")) for name, feature in rows]


def _rules(_) -> list[tuple[str, str]]:
    from .rules import RULES

    return [(slug, RULES[slug].title) for slug in sorted(RULES)]


def _block(head: str, lines: list[str]) -> str:
    return "\n".join(["", head, *(f"  {line}" for line in lines)]) if lines else ""


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] if rows else []
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows]


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0] if text else ""
