"""One attention: its inputs, the score of a query against a key, and what is masked."""

from __future__ import annotations

from .. import spec, syntax
from ..diagnostics import Report, Severity
from ..expressions import nodes
from ..source import Source
from .domains import check_arguments
from .expressions import Context, expression
from .recurrence import declare_names, declare_sizes, define_symbols, warn_unused
from .scope import Scope, Unresolved, suggestion

MASKS = ("causal", "full", "window", "sink", "documents")
OUTPUTS = ("softmax",)
_WITH_NUMBER = ("window", "sink")


def resolve_attention(node: syntax.AttentionDecl, source: Source, report: Report) -> spec.Attention | None:
    """The attention; None when an error in it was reported."""
    errors = _errors(report)
    scope = Scope(report, in_attention=True)
    declare_sizes(node, scope)
    declare_names(node, scope)
    define_symbols(node, scope)
    clauses = {s.keyword: s for s in node.body if isinstance(s, syntax.AttentionClause)}
    for name in ("q", "k", "v"):
        scope.used[name] = None
    score = _score(node, clauses.get("score"), scope)
    mask = _mask(clauses.get("mask"), scope)
    output = _output(node, clauses.get("output"), scope)
    if _errors(report) > errors:
        return None
    warn_unused(node, scope)
    return spec.Attention(
        name=node.name,
        source=source,
        comment=node.comment,
        dims=tuple({**scope.dims, **scope.counts}.items()),
        symbols=tuple(scope.symbols.values()),
        score=score,
        mask=mask,
        output=output,
        span=node.name_span,
    )


def _errors(report: Report) -> int:
    return sum(d.severity is Severity.ERROR for d in report.found)


def _score(node: syntax.AttentionDecl, clause: syntax.AttentionClause | None, scope: Scope) -> spec.Expr | None:
    if clause is None or clause.value is None:
        scope.report.error(
            "missing-score",
            f"`{node.name}` has no score",
            node.name_span,
            "an attention scores queries against keys",
            help="write `score D^-1/2 * q . k`",
        )
        return None
    try:
        score = expression(clause.value, scope, Context("score"))
    except Unresolved:
        return None
    if not score.type.is_scalar or score.type.field != "real":
        scope.report.error(
            "shape-mismatch",
            f"the score is {scope.shape(score.type)}",
            clause.value.span,
            str(score.type),
            help="a score is one number: `q . k` of two columns",
        )
        return None
    check_arguments(score, scope)
    for name in dict.fromkeys(n.name for n in nodes(score) if isinstance(n, spec.Ref)):
        scope.used[name] = None
    return score


def _mask(clause: syntax.AttentionClause | None, scope: Scope) -> tuple[tuple[str, spec.Expr | None], ...]:
    if clause is None:
        return (("causal", None),)
    found: list[tuple[str, spec.Expr | None]] = []
    for word, value in clause.words:
        if word not in MASKS or (value is None) == (word in _WITH_NUMBER):
            if word in MASKS:
                fact = f"`{word}` needs a number of tokens" if value is None else f"`{word}` takes no number"
                help = f"`{word} 4096`" if value is None else f"`{word}`"
            else:
                fact, help = f"there is no mask `{word}`", suggestion(word, MASKS) or f"masks: {', '.join(f'`{m}`' for m in MASKS)}"
            scope.report.error("unknown-option", fact, clause.span, "in this mask", help=help)
            continue
        try:
            found.append((word, None if value is None else expression(value, scope, Context("static"))))
        except Unresolved:
            continue
    return tuple(found)


def _output(node: syntax.AttentionDecl, clause: syntax.AttentionClause | None, scope: Scope) -> str:
    if clause is None:
        scope.report.error("missing-output", f"`{node.name}` gives nothing", node.name_span, "no output", help="write `output softmax`")
        return ""
    text = scope.report.source.slice(clause.value.span) if clause.value is not None else ""
    if text not in OUTPUTS:
        scope.report.error(
            "unknown-option", f"an attention cannot output `{text}`", clause.span, "not a weighting", help="write `output softmax`"
        )
    return text
