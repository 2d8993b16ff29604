"""The straight line: text in, packages out, every value on the way kept.

The passes are imported where they are called: `--help` needs none of them, and `check` stops before the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import MappingProxyType
from typing import Any

from .diagnostics import Diagnostic, Report, SpecError
from .source import Source
from .spec import Specification

PASSES = ("parse", "resolve", "derive", "classify", "schedule", "lower", "validate", "emit")

NO_SIZES: Mapping[str, int] = MappingProxyType({})


@dataclass
class Trace:
    """What each pass gave, by pass and by the name of the recurrence (`parse` and `resolve`: by the file's name)."""

    source: Source
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)  # seconds, by pass
    warnings: tuple = ()

    def after(self, name: str) -> dict[str, Any]:
        """The values after pass `name`; empty when it has not run."""
        return self.values.get(name, {})

    @contextmanager
    def _timed(self, name: str):
        start = perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + perf_counter() - start

    def run(self, name: str, item: str, step, *args):
        """Run one pass on one item, check the law of what it gives, keep it."""
        with self._timed(name):
            value = step(*args)
            if hasattr(value, "verify"):
                value.verify()
        self.values.setdefault(name, {})[item] = value
        return value


@dataclass(frozen=True)
class Build:
    """Everything a build gives: `packages` maps a package's name to its files, path -> text, headers not included."""

    packages: dict[str, dict[str, str]]
    trace: Trace
    format: int  # the number of the output format

    @property
    def timings(self) -> dict[str, float]:
        """Seconds, by pass."""
        return self.trace.timings


def check(source: Source, sizes: Mapping[str, int] = NO_SIZES) -> Trace:
    """Text to a place on every axis. Raises SpecError when the text is at fault."""
    from .classify import classify
    from .derive import derive
    from .parse import parse
    from .resize import resize
    from .resolve import resolve

    trace = Trace(source)
    # text -> what was written
    tree = trace.run("parse", source.name, parse, source)
    if sizes:
        tree = trace.run("parse", source.name, resize, tree, sizes)
    # written -> names, shapes, domains
    specification = trace.run("resolve", source.name, resolve, tree)
    trace.warnings += tuple(specification.warnings)
    for spec in specification.recurrences:
        # equations -> S' = A S + b, y, adjoint
        recurrence = trace.run("derive", spec.name, derive, spec)
        trace.warnings += tuple(recurrence.warnings)
        # A, b, y -> a value on every axis
        trace.run("classify", spec.name, classify, recurrence)
    return trace


def sizes(source: Source) -> tuple[str, ...]:
    """The names of a text's sizes, which `check` and `build` take other values of. Raises SpecError when the text is at fault."""
    from .parse import parse
    from .resize import names

    return names(parse(source))


def build(source: Source, sizes: Mapping[str, int] = NO_SIZES) -> Build:
    """Text to packages, one a recurrence. Raises SpecError when the text is at fault or has a structure not lowered yet."""
    from .emit import FORMAT, emit
    from .lower import lower
    from .schedule import schedule
    from .validate import validate

    trace = check(source, sizes)
    if found := refused(trace):
        raise SpecError(source, found)
    specification = trace.after("resolve")[source.name]
    packages = {}
    for name, classified in trace.after("classify").items():
        # axes -> form, tiles, what backward keeps
        plan = trace.run("schedule", name, schedule, classified)
        # form -> steps on tiles
        kernels = trace.run("lower", name, lower, plan)
        # steps -> proof that they are the recurrence
        trace.run("validate", name, validate, plan, kernels)
        # steps -> text
        packages[name] = trace.run("emit", name, emit, kernels, specification)
    return Build(packages, trace, FORMAT)


def refused(trace: Trace) -> tuple[Diagnostic, ...]:
    """What of a checked text has no lowering yet, in its order. `check` warns of it, `build` raises it: neither is silent."""
    specification: Specification = trace.after("resolve")[trace.source.name]
    report = Report(trace.source)
    for kind, items in (("attention", specification.attentions), ("stack", specification.stacks)):
        for item in items:
            report.error(
                "unsupported-lowering",
                f"no package for `{item.name}`: {kind} is not lowered yet",
                item.span,
                f"this {kind}",
                note="the specification is sound; packages are built of recurrences and the layers around them",
                help=f"`ssmgen check` and `ssmgen explain` work on it; to build the rest, move the {kind} to a file of its own",
            )
    for spec in specification.recurrences:
        for output in spec.outputs[1:]:
            report.error(
                "unsupported-lowering",
                f"no package for `{spec.name}`: it gives {len(spec.outputs)} outputs",
                output.span,
                "a second output",
                note="a package gives one tensor `y`, which may have rows",
                help="give rows of one output, `y[r] = S'^T q[r]`, or one recurrence an output",
            )
    for layer in specification.layers:
        if len(layer.callees) != 1:
            report.error(
                "unsupported-lowering",
                f"no package for `{layer.name}`: a layer is built around one recurrence, and this one calls {len(layer.callees)}",
                layer.span,
                f"calls {', '.join(layer.callees) or 'none'}",
                note="the specification is sound; every recurrence has a package of its own, and a layer belongs to one of them",
                help="`ssmgen check` and `ssmgen explain` work on it; to build the rest, move the layer to a file of its own",
            )
    for classified in trace.after("classify").values():
        report.found.extend(classified.refusals)
    return tuple(sorted(report.found, key=lambda found: (found.primary.span, found.slug)))
