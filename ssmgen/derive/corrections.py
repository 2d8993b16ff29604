"""Corrections that cost: along a key whose length nothing bounds, and under a factor for every entry."""

from __future__ import annotations

from math import isfinite, sqrt

from .. import algebra
from ..bounds import bounds_of
from ..diagnostics import Label, Report
from ..expressions import key
from ..recurrence import MicroStep
from ..spec import Recurrence
from ..spec_text import expr_text


def warn_unbounded(spec: Recurrence, steps: tuple[MicroStep, ...], report: Report) -> None:
    """Warn of every correction that reads and writes along one key that is not proved short enough.

    `I - b k k^T` keeps the factor 1 - b |k|^2 along k; of N entries in [-x, x] the square of the length is at most N x^2.
    """
    bounds, sizes = bounds_of(spec), {**dict(spec.dims), **dict(spec.counts)}
    told: set[str] = set()
    terms = [(step, t) for step in steps for t in step.transitions if t.target == t.source]
    for step, term in terms:
        for generator in (g for g in term.left + term.right if g.kind == "rank_one" and g.row is not None):
            name = expr_text(generator.column)
            # where the state forgets first, the erase key holds the decay
            decays = [g.column for t in step.transitions for g in t.left + t.right if g.kind == "diagonal"]
            along = {key(generator.column), *(key(algebra.mul(decay, generator.column)) for decay in decays)}
            if name in told or key(generator.row) not in along or bounds.is_unit(generator.column):
                continue
            told.add(name)
            entries, weight = bounds.of(generator.column), bounds.of(algebra.neg(term.coefficient))
            length = sqrt(int(generator.column.type.rows.value(sizes))) * entries.magnitude
            if weight.low >= 0 and weight.high * length * length <= 2:
                continue
            known = f"its entries lie in {entries}, its length is at most {length:.3g}" if isfinite(length) else "nothing bounds its length"
            report.warning(
                "unbounded-correction",
                f"the correction along `{name}` may grow without bound",
                term.span,
                f"`{name}` is not proved of length 1: {known}",
                note=f"along `{name}` it keeps the factor 1 - b |{name}|^2, which stays within [-1, 1] where b |{name}|^2 is in [0, 2]; "
                f"here b lies in {weight}",
                help=f"normalise it, `unit({name})`, or declare the input `unit`",
            )


def warn_walked(steps: tuple[MicroStep, ...], report: Report) -> None:
    """Warn of a correction of a matrix whose entries fade by themselves, or whose other axis has factors too: it builds, and no
    chunk form has both."""
    for step in steps:
        own = [t for t in step.transitions if t.target == t.source]
        for term in (t for t in own if any(g.kind == "rank_one" for g in t.left + t.right)):
            is_left = any(g.kind == "rank_one" for g in term.left)
            same = [t for t in own if t.target == term.target]
            fading = next((t for t in same if any(g.kind == "elementwise" for g in t.left)), None)
            beside = fading or next((t for t in same if (t.right if is_left else t.left)), None)
            if beside is None:
                continue
            label = "every entry fades by itself" if fading else "acts on the other axis of the state"
            report.warning(
                "walked-correction",
                f"`{term.target}` is walked token after token",
                term.span,
                "a correction reads the state along its key",
                secondary=() if beside.span == term.span else (Label(beside.span, label),),
                note="a chunk meets a state along one of its axes, and fades whole rows or columns: no chunk form has both",
                help="let all factors act on one axis, as in `diag(w) S`, or drop the correction",
            )
            break
