"""a place in the space -> the form it runs in, with the reasons.

The choice rests on what was proved (the log decay's interval, the linearity of the readout), never on a name.
"""

from __future__ import annotations

from .diagnostics import SpecError
from .plan import Classified, Column, Cost, Plan, Walk
from .recurrence import walk as nodes
from .spec import ONE, Apply, Dim, Div, Expr, Mul, Ref, Add, Neg, MatMul

CHUNK = 64
"""Tokens a chunk: the C^2 products inside then cost about what the products with a state of width 64 to 128 do."""


def schedule(classified: Classified) -> Plan:
    """Choose form and chunk.

    Raises SpecError with one diagnostic an axis that has no kernel.
    """
    if classified.refusals:
        raise SpecError(classified.recurrence.spec.source, classified.refusals)
    chunk = int(dict(classified.recurrence.spec.options).get("chunk", CHUNK))
    stores_reads = not _is_linear_in_reads(classified)
    reasons = [
        f"{axis.axis}: {axis.sentence}" for axis in classified.axes if axis.axis in ("decay", "normaliser", "form")
    ]
    if any(w.log_decay is not None for w in classified.walks):
        reasons.append("exponents are differences of running sums, masked first: any negative log decay is safe")
    reasons.append("backward keeps the reads, since the output is not linear in them" if stores_reads else "backward keeps nothing but the inputs")
    return Plan(
        classified, "chunk", chunk, classified.recurrence.spec.time == "reversed", stores_reads,
        _uses_position(classified), tuple(reasons), _cost(classified, chunk),
    )  # fmt: skip


def _is_linear_in_reads(classified: Classified) -> bool:
    """True when backward can do without the values that were read."""
    names = {r.name for r in classified.recurrence.reads}
    return all(_degree(value, names) <= 1 for _, value in classified.outputs)


def _degree(expr: Expr, names: set[str]) -> int:
    """Degree in the reads; 2 stands for anything but sums of reads times numbers."""
    if isinstance(expr, Ref):
        return int(expr.name in names)
    if isinstance(expr, Add):
        return max(_degree(t, names) for t in expr.terms)
    if isinstance(expr, (Mul, MatMul)):
        left, right = _degree(expr.left, names), _degree(expr.right, names)
        # the gradient of what multiplies a read needs the read
        varies = any(isinstance(n, Ref) for n in nodes(expr.right if left else expr.left))
        return 2 if left + right == 1 and varies else left + right
    if isinstance(expr, Div):
        varies = any(isinstance(n, Ref) for n in nodes(expr.right))
        return (2 if varies else 1) * _degree(expr.left, names) + 2 * _degree(expr.right, names)
    if isinstance(expr, Neg) or type(expr).__name__ == "Transpose":
        return _degree(expr.operand, names)
    return 2 if any(isinstance(n, Ref) and n.name in names for n in nodes(expr)) else 0


def _uses_position(classified: Classified) -> bool:
    recurrence = classified.recurrence
    values = [s.definition for s in recurrence.spec.symbols if s.definition is not None]
    values += [v for _, v in recurrence.outputs] + [v for _, v in recurrence.hoisted]
    for walk in classified.walks:
        values += [v for v in (walk.key, walk.coefficient, walk.log_decay) if v is not None]
        values += [c.value for c in walk.columns if c.value is not None] + [r.query for r in walk.readings if r.query is not None]
    return any(
        (isinstance(n, Apply) and n.function == "rope") or (isinstance(n, Ref) and n.name == "position")
        for value in values
        for n in nodes(value)
    )


# --- cost --------------------------------------------------------------------------------------------------------


def widths(walk: Walk) -> tuple[Dim, Dim]:
    """Key width and total value width of a walk."""
    return (ONE if walk.key is None else walk.key.type.rows), _sum([column_width(walk, c) for c in walk.columns])


def column_width(walk: Walk, column: Column) -> Dim:
    """How many value columns a block has."""
    if column.value is None:
        return ONE
    return column.value.type.rows


def _sum(sizes: list[Dim]) -> Dim:
    names = sorted({n for size in sizes for n, _ in size.terms})
    terms = tuple((n, sum(dict(size.terms).get(n, 0) for size in sizes)) for n in names)
    return Dim(sum((size.constant for size in sizes), start=ONE.constant * 0), terms)


def _cost(classified: Classified, chunk: int) -> Cost:
    """Forward work of the chunk form, multiply-adds counted as 2, and the bytes of operands in 2-byte storage."""
    sizes = {**dict(classified.recurrence.spec.dims), **dict(classified.recurrence.spec.counts)}
    flops, traffic, state, words = 0.0, 0.0, 0, []
    for walk in classified.walks:
        key, value = widths(walk)
        n, p, reads = float(key.value(sizes)), float(value.value(sizes)), max(1, len(walk.readings))
        flops += reads * (chunk * (n + p) + 2 * n * p) + 2 * n * p
        traffic += 2 * (n * (1 + reads) + p * (1 + reads)) + (4 if walk.log_decay is not None else 0)
        state += int(n * p)
        words.append((str(key), str(value), reads))
    names = " + ".join(f"{r}*({chunk}*({n} + {p}) + 2*{n}*{p}) + 2*{n}*{p}" for n, p, r in words)
    bytes_text = " + ".join(f"2*{1 + r}*({n} + {p})" for n, p, r in words)
    state_text = " + ".join(f"{n}*({p})" if "+" in p else f"{n}*{p}" for n, p, _ in words)
    return Cost((names, flops), (bytes_text, traffic), (state_text, state), (f"2*4*({state_text})", 8.0 * state))
