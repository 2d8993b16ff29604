"""Where a recurrence stands and how it will run, as text."""

from __future__ import annotations

from .plan import Classified, Cost, Plan, Reading, Walk
from .spec_text import expr_text


def columns(rows: list[tuple[str, ...]], gap: str = "  ") -> list[str]:
    """Rows of cells, every cell but the last as wide as the widest of its column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] if rows else []
    return [gap.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def classified_text(classified: Classified) -> str:
    """A value on every axis, and the walks that carry it."""
    lines = columns(axis_rows(classified)) + frame_lines(classified)
    for index, walk in enumerate(classified.walks):
        lines += [f"walk {index}" if len(classified.walks) > 1 else "walk", *(f"  {line}" for line in walk_lines(walk))]
    for step in classified.scan.steps if classified.scan is not None else ():
        lines.append(f"scan  {step.name} = {expr_text(step.value)}")
    lines += [f"then  {name} = {expr_text(value)}" for name, value in classified.outputs]
    lines += [f"refused  {diagnostic.title}" for diagnostic in classified.refusals]
    return "\n".join(lines)


def frame_lines(classified: Classified) -> list[str]:
    """The frames that turn along with states, in which walks see them; none where nothing turns."""
    lines = []
    for turning in classified.recurrence.turnings:
        names = " and ".join(f"rot(-{turning.name}) {state}" if side == "left" else f"{state} rot({turning.name})"
                             for state, side in turning.states)  # fmt: skip
        lines.append(
            f"{turning.name}' = {turning.name} + {expr_text(turning.step)}, from 0 in every document and call: the walk carries {names},"
        )
        lines.append("which obeys the recurrence without the rotation, its keys and queries turned; the final state is turned back")
    return lines


def axis_rows(classified: Classified) -> list[tuple[str, ...]]:
    """(axis, value, sentence), the sentence marked where no kernel exists."""
    return [(a.axis, a.value, a.sentence + ("" if a.is_lowered else "  (no kernel yet)")) for a in classified.axes]


def walk_lines(walk: Walk) -> list[str]:
    """What each letter of a chunk program stands for in the specification's names."""
    rows = [(_letter("q", r), _query(walk, r)) for r in walk.readings]
    several = len(walk.rows) > 1
    for number, row in enumerate(walk.rows, 1):
        at = f"[{number}]" if several else ""
        key = "1" if row.key is None else expr_text(row.key)
        if row.coefficient is not None:
            coefficient = expr_text(row.coefficient)
            key = coefficient if row.key is None else f"{coefficient} * {key}"
        values = ["1" if value is None else expr_text(value) for value in row.values]
        rows.append((f"k{at}", key))
        rows.append((f"v{at}", (", ".join(values) + (" side by side" if len(values) > 1 else "")) if row.is_written else "0"))
        if row.erase is not None:
            rows.append((f"e{at}", f"{expr_text(row.erase)}, reading the state before it decays"))
        if row.log_decay is not None:
            rows.append((f"g{at}", f"{expr_text(row.log_decay)}, the log of the decay"))
    rows += [(name, expr_text(number) + (", the log of the decay" if name[0] == "g" else "")) for name, number in walk.numbers]
    if walk.members:
        names = ", ".join(f"{member.state} is member {a}" for a, member in enumerate(walk.members))
        rows.append(("S", f"{names}; rows read member {walk.rows[0].erases}" if walk.has_erase else names))
    stacked = ", ".join(column.state for column in walk.columns) + ("^T" if walk.is_transposed else "")
    if stacked != "S" and not walk.members:
        rows.append(("S", stacked + (" side by side" if len(walk.columns) > 1 else "")))
    for cut in walk.slices:
        rows.append((cut.read.name, f"{cut.reading}{f', columns of {walk.columns[cut.column].state}' if len(walk.columns) > 1 else ''}"))
    return [f"{name}: {words}" for name, words in rows]


def _letter(letter: str, reading: Reading) -> str:
    return letter + reading.name[1:]


def _query(walk: Walk, reading: Reading) -> str:
    query = "1" if reading.query is None else expr_text(reading.query)
    scale = "" if walk.scale is None else f"{expr_text(walk.scale)} * "
    where = f", of member {reading.member}" if walk.members else ", of the value columns" if reading.is_value else ""
    return scale + query + where + ("" if reading.is_inclusive else ", before the token's own write")


def plan_text(plan: Plan) -> str:
    """The form, what backward keeps, the reasons, the cost."""
    backward = "the reads and the inputs" if plan.stores_reads else "the inputs"
    rows = [
        ("form", form_words(plan)),
        ("backward", f"keeps {backward}"),
        ("position", "carried in the state" if plan.uses_position else "not used"),
        *((("why" if i == 0 else ""), reason) for i, reason in enumerate(plan.reasons)),
        *cost_rows(plan.cost),
    ]
    return "\n".join(columns(rows))


def form_words(plan: Plan) -> str:
    """`chunk, 64 tokens`."""
    scan = plan.classified.scan
    what = f"{plan.chunk} tokens" if scan is None else "token after token" if scan.mixes else f"chunks of {plan.chunk} tokens"
    order = ", last token to first" * plan.is_reversed
    if plan.convolution is None:
        return f"{plan.form}, {what}{order}"
    where = "" if plan.outruns_kernels else ", where the scan has no kernels"
    return f"convolution of whole sequences{where}; {plan.form} of packed documents and single tokens, {what}{order}"


def cost_rows(cost: Cost, unit: str = "head") -> list[tuple[str, str]]:
    """Work, traffic and state, each as its value at the defaults and its formula."""
    return [
        ("flops", f"{cost.flops[1]:,.0f} a token and {unit}, forward = {cost.flops[0]}"),
        ("bytes", f"{cost.bytes[1]:,.0f} a token and {unit}, forward = {cost.bytes[0]}"),
        ("state", f"{cost.state[1]:,} entries a {unit} = {cost.state[0]}; {4 * cost.state[1]:,} bytes in fp32"),
        ("decode", f"{cost.decode_bytes[1]:,.0f} bytes a token and {unit} = {cost.decode_bytes[0]}: the state, read and written"),
    ]
