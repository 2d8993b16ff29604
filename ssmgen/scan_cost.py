"""What a scan costs: work, traffic and state of one token."""

from __future__ import annotations

from math import prod

from .expressions import nodes
from .plan import Classified, Cost
from .spec import ONE, Add, Div, MatMul, Mul, Type


def scan_cost(classified: Classified) -> Cost:
    """Work and traffic of one token of one head, or channel, forwards.

    A product or a sum is one operation an entry, functions are not counted. Inputs are read once and the output is written once,
    2 bytes an entry; an input shared by heads is counted for each of them.
    """
    spec = classified.recurrence.spec
    sizes = {**dict(spec.dims), **dict(spec.counts)}

    def entries(type: Type) -> tuple[str, int]:
        shape = [size for size in (type.rows, type.cols) if size != ONE]
        text = "*".join(f"({size})" if "+" in str(size) or "/" in str(size) else str(size) for size in shape) or "1"
        return text, int(prod(size.value(sizes) for size in shape))

    states = [entries(s.type) for s in spec.states]
    work: dict[str, int] = {}
    values: dict[str, int] = {}
    for expr in (*(step.value for step in classified.scan.steps), *(value for _, value in classified.scan.outputs)):
        for node in nodes(expr):
            count = len(node.terms) - 1 if isinstance(node, Add) else int(isinstance(node, (Mul, Div)))
            inner = node.type
            if isinstance(node, MatMul):
                # a product and a sum for every pair that meets
                inner = max((node.left.type, node.right.type, node.type), key=lambda t: entries(t)[1])
                count = 2 if node.left.type.cols != ONE else 1
            if count:
                text, value = entries(inner)
                work[text], values[text] = work.get(text, 0) + count, value
    moved = [entries(s.type) for s in spec.symbols if s.kind == "input" and s.definition is None]
    moved += [entries(value.type) for _, value in classified.scan.outputs]
    tally: dict[str, int] = {}
    for text, value in moved:
        tally[text], values[text] = tally.get(text, 0) + 1, value
    area = sum(value for _, value in states)
    state = " + ".join(text for text, _ in states)
    return Cost(
        (_sum(work), float(sum(n * values[text] for text, n in work.items()))),
        (f"2*({_sum(tally)})", 2.0 * sum(n * values[text] for text, n in tally.items())),
        (state, area),
        (f"2*4*({state})" if len(states) > 1 else f"2*4*{state}", 8.0 * area),
    )


def _sum(parts: dict[str, int]) -> str:
    return " + ".join(text if count == 1 else str(count) if text == "1" else f"{count}*{text}" for text, count in parts.items())
