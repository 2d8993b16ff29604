"""a place in the space -> the form it runs in, with the reasons.

The choice rests on what was proved (the log decay's interval, the linearity of the readout), never on a name.
"""

from __future__ import annotations

from .bounds import bounds_of
from .diagnostics import SpecError
from .expressions import is_made_outside, is_matrix_function, nodes
from .features._facts import Facts
from .identities.complex_pairs import over_pairs
from .identities.member_program import forward_program
from .identities.time_invariance import convolution_of, obstacle
from .kernel import KEY, ROW, SOURCE, VALUE, Contract, Node, Solve, Through, operands
from .plan import Classified, Cost, Plan, Walk, column_width, total, widths
from .response import Convolution
from .scan_cost import scan_cost
from .small import all_nodes
from .spec import ONE, Add, Apply, Delayed, Dim, Div, Expr, MatMul, Mul, Neg, Ref
from .stability import stability
from .torch_form.dense import core_of, unmade

CHUNK = 64
"""Rows a chunk: the C^2 products inside then cost about what the products with a state of width 64 to 128 do."""

PAIRS = 4
"""Rows a block whose pairs are formed one by one, key by key."""

EXPONENT = 80.0
"""What the log decays of a block may add up to where it is split between two factors: each is at most exp(40) then."""


OPERATIONS = 4
"""Operations of a scan, tensor by tensor, that take as long as a token's share of one transform along time."""

KERNEL_OPERATIONS = 600
"""The same where the scan has kernels, forward and backward together: measured on an H200, where two transforms and what lies around them
take as long as a kernel's scan of 150 to 200 complex modes, most of it in moving memory."""


def schedule(classified: Classified) -> Plan:
    """Choose form and chunk.

    Raises SpecError with one diagnostic an axis that has no kernel.
    """
    if classified.refusals:
        raise SpecError(classified.recurrence.spec.source, classified.refusals)
    missing = unmade(classified)
    if missing is not None:
        raise SpecError(classified.recurrence.spec.source, (missing,))
    if classified.scan is not None:
        return _scan(classified)
    rows = max(len(walk.rows) for walk in classified.walks)
    chunk = int(dict(classified.recurrence.spec.options).get("chunk", CHUNK >> min(2, (rows - 1).bit_length())))
    stores_reads = not _is_linear_in_reads(classified)
    reasons = [f"{axis.axis}: {axis.sentence}" for axis in classified.axes if axis.axis in ("decay", "normaliser", "form")]
    if classified.recurrence.aheads:
        reasons.append("the write that comes back is the token's own: the state looks a token ahead, with one row for both")
    if any(w.log_decay is not None for w in classified.walks):
        reasons.append("exponents are differences of running sums, masked first: any negative log decay is safe")
    reasons.append(
        "backward keeps the reads, since the output is not linear in them"
        if stores_reads
        else "backward keeps the inputs; kernels also their gates, or what the rows of a chunk make of each other"
    )
    block, is_bounded, words = _block(classified, chunk)
    return Plan(
        classified, "chunk", chunk, classified.recurrence.spec.time == "reversed", stores_reads,
        _uses_position(classified), (*reasons, *words), _cost(classified, chunk), block, is_bounded,
    )  # fmt: skip


def _scan(classified: Classified) -> Plan:
    """Tokens one after the other in every chunk, all chunks at once; any factor does, 0 and negative ones too."""
    chunk = int(dict(classified.recurrence.spec.options).get("chunk", CHUNK))
    cost = scan_cost(over_pairs(classified))
    convolution, outruns_kernels, words = _convolution(classified)
    reasons = [f"{axis.axis}: {axis.sentence}" for axis in classified.axes if axis.axis in ("decay", "normaliser", "form")]
    reasons.append("factors are multiplied, never divided by nor taken the logarithm of: 0 and negative ones are safe")
    reasons += _matrix_functions(classified)
    if classified.scan.obstacle:
        reasons.append(f"no chunks: states feed each other, and {classified.scan.obstacle}")
    if classified.scan.mixes:
        reasons.append("entries read each other through a matrix: a scan walks a sequence token after token, and cuts none")
        reasons.append("backward keeps the inputs, and on a GPU states at the edges of stretches: the others come again from those")
    elif classified.axis("states").value == "coupled":
        reasons.append(
            "of states that feed each other a chunk leaves a matrix of factors for every entry, which has one entry a pair of them"
        )
        reasons.append("backward keeps the inputs, and on a GPU, where no sequence is cut, states at the edges of stretches")
    else:
        reasons.append(
            "backward keeps the inputs, and on a GPU a state every 8 or 64 tokens: the others come again from the edges of blocks"
        )
    return Plan(
        classified, "scan", chunk, classified.recurrence.spec.time == "reversed", False,
        _uses_position(classified), (*reasons, *words), cost, convolution=convolution, outruns_kernels=outruns_kernels,
    )  # fmt: skip


def _matrix_functions(classified: Classified) -> list[str]:
    """What is said of functions of whole matrices: they stand before the scan, where torch makes them."""
    spec = classified.recurrence.spec
    definitions = [(s.name, s.definition) for s in spec.symbols if s.definition is not None] + [*classified.recurrence.hoisted]
    facts, reasons = Facts(classified.recurrence, tuple(s.name for s in spec.states)), []
    for name, value in definitions:
        if is_matrix_function(value):
            count = "one a head, the same for every token" if facts.is_static(value) else "one a token and head"
            reasons.append(f"`{name}` is a function of a whole matrix: torch makes it before the scan, {count}")
    if any(is_made_outside(value) and not is_matrix_function(value) for _, value in definitions):
        reasons.append("of states that feed each other exponentials are those of a small matrix at every entry: torch makes them before")
    return reasons


def _convolution(classified: Classified) -> tuple[Convolution | None, bool, tuple[str, ...]]:
    """(the convolution that whole sequences run as, whether also where the scan has kernels, the reasons)."""
    asked = dict(classified.recurrence.spec.options).get("form")
    core = core_of(classified)
    found = obstacle(classified, core)
    if found is not None:
        return None, False, (f"no convolution: {found.primary.text}",)
    convolution = convolution_of(core)
    # products of matrices stand around both forms
    transforms, work = _transforms(core, convolution), scan_cost(core).flops[1]
    words = f"no token changes what is kept: {transforms:,} transform{'s' * (transforms > 1)} a token against {work:,.0f} operations"
    judged = stability(classified.recurrence)
    fades = all(
        each.is_contraction or each.is_joint or (not each.beside and each.factor is not None and each.factor.high <= 1) for each in judged
    )
    if asked == "convolution" and not fades:
        words += "; not proved that nothing grows: answers that do lose the digits of what came before"
    if asked is not None:
        return (convolution if asked == "convolution" else None), asked == "convolution", (f"{words}; `@form {asked}` decides",)
    if not fades:
        return None, False, (f"{words}; not proved that nothing grows, so the scan runs: `@form convolution` for one all the same",)
    if classified.scan.mixes:
        return convolution, True, (f"{words}, one token after the other: whole sequences are a convolution",)
    if work <= transforms * OPERATIONS:
        return None, False, (f"{words}, less than the {transforms * OPERATIONS:,} that they are worth: the scan runs",)
    outruns = work > transforms * KERNEL_OPERATIONS
    if outruns:
        return convolution, True, (f"{words}, more than they are worth: whole sequences are a convolution",)
    worth = (
        f"more than the {transforms * OPERATIONS:,} that they are worth without kernels, less than the {transforms * KERNEL_OPERATIONS:,}"
    )
    return convolution, False, (f"{words}, {worth} with them", "whole sequences are a convolution where the scan has no kernels")


def _transforms(classified: Classified, convolution: Convolution) -> int:
    """Transforms along time of one head, or channel: an entry of what is written or read is one."""
    spec = classified.recurrence.spec
    sizes = {**dict(spec.dims), **dict(spec.counts)}
    types = [*(drive.value.type for drive in convolution.drives), *(probe.type for probe in convolution.probes)]
    return int(sum(type.rows.value(sizes) * type.cols.value(sizes) for type in types))


def _block(classified: Classified, chunk: int) -> tuple[int, bool, tuple[str, ...]]:
    """How products that fade key by key are formed: (groups of rows at once, whether as one matrix product, the reason).

    A bound on the log decays of a block lets exp(G_i - G_j) be split between the two factors, relative to the middle.
    Without one the block is short and its pairs are formed one by one. Longer spans are halved, which is safe always.
    """
    walks = [walk for walk in classified.walks if walk.is_wide]
    if not walks:
        return 0, False, ()
    bounds = bounds_of(classified.recurrence.spec)
    # a token's steps decay one after the other
    steps = [[row.log_decay for row in walk.rows[:: walk.size] if row.log_decay is not None] for walk in walks]
    low = min(sum(bounds.of(log).low for log in logs) for logs in steps)
    block = chunk
    while block > PAIRS and block * -low > EXPONENT:
        block //= 2
    if block * -low <= EXPONENT and block >= 2:
        block = 1 << (block.bit_length() - 1)
        return (
            block,
            True,
            (f"log decays of a token are proved at least {low:.4g}: blocks of {block} tokens are one matrix product, the rest halves",),
        )
    return PAIRS, False, (f"log decays have no useful lower bound: blocks of {PAIRS} tokens pair by pair, the rest halves down to them",)


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
        varies = any(isinstance(n, (Ref, Delayed)) for n in nodes(expr.right if left else expr.left))
        return 2 if left + right == 1 and varies else left + right
    if isinstance(expr, Div):
        varies = any(isinstance(n, (Ref, Delayed)) for n in nodes(expr.right))
        return (2 if varies else 1) * _degree(expr.left, names) + 2 * _degree(expr.right, names)
    if isinstance(expr, Neg) or type(expr).__name__ == "Transpose":
        return _degree(expr.operand, names)
    return 2 if any(isinstance(n, Ref) and n.name in names for n in nodes(expr)) else 0


def _uses_position(classified: Classified) -> bool:
    recurrence = classified.recurrence
    values = [s.definition for s in recurrence.spec.symbols if s.definition is not None]
    values += [v for _, v in recurrence.outputs] + [v for _, v in recurrence.hoisted]
    if classified.scan is not None:
        values += [v for step in classified.scan.steps for v in (step.value, step.kept)]
    for walk in classified.walks:
        values += [v for row in walk.rows for v in (row.key, row.coefficient, row.log_decay, row.erase, *row.values) if v is not None]
        values += [r.query for r in walk.readings if r.query is not None]
    # what is read of a position may cancel: the state of the text carries it all the same
    found = [*all_nodes(recurrence.written), *(n for value in values for n in nodes(value))]
    return any((isinstance(n, Apply) and n.function == "rope") or (isinstance(n, Ref) and n.name == "position") for n in found)


# --- cost --------------------------------------------------------------------------------------------------------


def _cost(classified: Classified, chunk: int) -> Cost:
    """What the forward program of every walk does for one token, per head (or channel).

    Products are whole tiles, a multiply-add counted as 2: C rows against C sources twice a reading (q k^T, and its product
    with v), the state once a reading, and once more to be written. Operands are read once and reads written once, 2 bytes
    an entry; a decay from the data is 4. An input per group is counted for every head.
    """
    sizes = {**dict(classified.recurrence.spec.dims), **dict(classified.recurrence.spec.counts)}
    flops, traffic, state = [], [], []
    for walk in classified.walks:
        if walk.members:
            for into, part in zip((flops, traffic, state), _members_cost(walk, chunk, sizes), strict=True):
                into.append(part)
            continue
        (n, p), reads, rows = widths(walk), max(1, len(walk.readings)), len(walk.rows)
        pairs, whole = 2 * chunk * rows * reads, 2 * (reads + rows)
        area = n.value(sizes) * p.value(sizes)
        texts, work = [f"{pairs}*({total([n, p])})", f"{whole}*{_times(n, p)}"], pairs * total([n, p]).value(sizes) + whole * area
        if walk.has_erase:
            # erase keys against keys; a triangular solve of N + P columns, at half the price; the state read, and carried by two products
            erased, again = chunk * rows * rows, 6 * rows
            texts += [f"{erased}*({total([n, n, n, p])})", f"{again}*{_times(n, p)}"]
            work += erased * total([n, n, n, p]).value(sizes) + again * area
        flops.append((" + ".join(texts), work))
        keys = [] if walk.key is None else [n] * (rows + sum(row.erase is not None for row in walk.rows))
        queries = [p if reading.is_value else n for reading in walk.readings if reading.query is not None]
        values = [column_width(walk, column) for column in walk.columns if column.value is not None] * rows
        decays = [n] * sum(row.log_decay is not None for row in walk.rows) if walk.is_wide else []
        given = [n if reading.is_value else p for reading in walk.readings] or [p]
        moved = total([*queries, *keys, *values, *decays, *given])
        decay = 4 if walk.decay == "scalar" else 0
        traffic.append((f"2*({moved})" + (f" + {decay}" if decay else ""), 2 * moved.value(sizes) + decay))
        state.append((_times(n, p), area))
    work, bytes_, entries = (" + ".join(text for text, _ in part) for part in (flops, traffic, state))
    count = int(sum(value for _, value in state))
    return Cost(
        (work, float(sum(value for _, value in flops))), (bytes_, float(sum(value for _, value in traffic))), (entries, count),
        (f"2*4*({entries})" if len(state) > 1 else f"2*4*{entries}", 8.0 * count),
    )  # fmt: skip


def _members_cost(walk: Walk, chunk: int, sizes: dict[str, int]) -> tuple:
    """(work, traffic, state) of states that feed each other, each as a formula and its value: the products of their program."""
    (n, p), members = widths(walk), len(walk.members)
    whole = _times(n, p)
    counts = {"1": 0, str(n): 0, str(p): 0, whole: 0}
    for step in forward_program(walk).steps:
        for price, rows, axes in _products(step.value):
            counts[_times(*(size if axis in axes else ONE for axis, size in ((KEY, n), (VALUE, p))))] += price * chunk ** (rows - 1)
    # what was erased of the members is read, and carried by two products
    counts[whole] += 4 * members * walk.has_erase
    area, values = n.value(sizes) * p.value(sizes), {"1": 1, str(n): n.value(sizes), str(p): p.value(sizes)}
    values[whole] = area
    texts = [f"{count}*{size}" if size != "1" else str(count) for size, count in counts.items() if count]
    work = sum(count * values[size] for size, count in counts.items())
    reads = len(walk.readings)
    moved = total([*[n] * (reads + 1 + walk.has_erase), p, *[p] * reads])
    numbers = 4 * len(walk.numbers)
    traffic = f"2*({moved}) + {numbers}", 2 * moved.value(sizes) + numbers
    return (" + ".join(texts), work), traffic, (f"{members}*{whole}", members * area)


def _products(node: Node):
    """(price, how many of its axes are rows, its axes) of every product that is summed, and of every triangular solve."""
    if isinstance(node, Contract):
        axes = {*node.left.axes, *node.right.axes}
        yield 2, len(axes - {KEY, VALUE}), axes
    if isinstance(node, Through):
        yield 2, 3, {ROW, SOURCE}
    if isinstance(node, Solve):
        yield 1, 2, set(node.right.axes)
    for operand in operands(node):
        yield from _products(operand)


def _times(n: Dim, p: Dim) -> str:
    return "*".join(f"({size})" if "+" in str(size) else str(size) for size in (n, p) if size != ONE) or "1"
