"""Written -> meant: every name, shape, domain and time index of a file settled, or explained."""

from __future__ import annotations

import builtins
import keyword

from .. import spec, syntax
from ..diagnostics import Label, Report, Severity
from ..module.text import camel
from .attention import resolve_attention
from .layer import resolve_layer
from .recurrence import resolve_recurrence
from .stack import resolve_stack
from .verify import verify_spec

__all__ = ["resolve", "verify_spec"]


def resolve(file: syntax.File) -> spec.Specification:
    """The specification of everything that `file` declares.

    Raises SpecError with every fault found. Warnings and notes travel with the result.
    """
    report = Report(file.source)
    _unique_names(file, report)
    _free_names(file, report)
    recurrences, attentions, layers, stacks = [], [], [], []
    broken = False
    for item in file.items:
        match item:
            case syntax.RecurrenceDecl():
                resolved = resolve_recurrence(item, file.source, report)
                recurrences += [resolved] if resolved is not None else []
                broken |= resolved is None
            case syntax.AttentionDecl():
                resolved = resolve_attention(item, file.source, report)
                attentions += [resolved] if resolved is not None else []
                broken |= resolved is None
    # what a layer says of a faulty recurrence would only repeat the fault
    if not broken:
        for item in file.items:
            if isinstance(item, syntax.LayerDecl):
                layer = resolve_layer(item, recurrences, report, attentions)
                layers += [layer] if layer is not None else []
        declared = [item for item in file.items if isinstance(item, syntax.LayerDecl)]
        for item in file.items:
            if isinstance(item, syntax.StackDecl):
                stack = resolve_stack(item, declared, report)
                stacks += [stack] if stack is not None else []
    report.raise_if_errors()
    found = tuple(d for d in report.found if d.severity is not Severity.ERROR)
    result = spec.Specification(file.source, tuple(recurrences), tuple(attentions), tuple(layers), tuple(stacks), found)
    verify_spec(result)
    return result


FILES = frozenset("decode kernels module op reference tuning".split())
"""Files of a package: an export with the name of one would hide it."""

NEEDED = frozenset(
    "F NAMESPACE NamedTuple Output State Tensor annotations forward_ad functools math nn pairwise pytest self torch warnings".split()
)
"""What those files import, or define without a `_` in front; the module's class is named after the recurrence, too."""


def _free_names(file: syntax.File, report: Report) -> None:
    """A recurrence is a function and the package around it: neither may stand in front of what the emitted text calls."""
    for item in file.items:
        if not isinstance(item, syntax.RecurrenceDecl):
            continue
        if item.name in FILES:
            fact = "a file of every package"
        elif hasattr(builtins, item.name) or keyword.iskeyword(item.name):
            fact = "a word of Python"
        elif {item.name, camel(item.name)} & NEEDED:
            fact = "a name that those files need"
        else:
            continue
        report.error(
            "reserved-name",
            f"a recurrence cannot be called `{item.name}`",
            item.name_span,
            fact,
            note="the package and its function are named after the recurrence",
            help=f"call it `{item.name}_memory`, or after what it does",
        )


def _unique_names(file: syntax.File, report: Report) -> None:
    first: dict[str, syntax.Node] = {}
    for item in file.items:
        if item.name in first:
            report.error(
                "duplicate-name",
                f"`{item.name}` is declared twice",
                item.name_span,
                "declared again here",
                secondary=(Label(first[item.name].name_span, "declared first here"),),
                help="rename one of the two",
            )
        first.setdefault(item.name, item)
