"""recurrence -> a value on every axis, and the walks that carry it.

States that share their transition and their write key are columns of one state: the normaliser of a linear attention is
one more column, not a second recurrence.
"""

from __future__ import annotations

from dataclasses import replace

from . import algebra
from .diagnostics import Diagnostic, Label, Severity, SpecError
from .expressions import factors, nodes
from .features import values
from .features._base import Feature
from .features._facts import Facts
from .identities.coupled import NoMembers, members_of
from .identities.lookahead import looking_ahead
from .identities.rows import Problem, rows_of, unrolled_reads
from .identities.scans import scan_of
from .identities.time_invariance import refused_form
from .identities.turning import turned
from .plan import AXES, AxisValue, Classified, Column, Reading, Slice, Walk
from .recurrence import Recurrence
from .source import NOWHERE
from .spec import Delayed, Expr, Ref, StateRef
from .torch_form.dense import core_of


def classify(recurrence: Recurrence) -> Classified:
    """Place a recurrence in the space.

    What has no lowering yet is listed in `refusals`, one diagnostic an axis, and a build raises them. Raises SpecError for what no
    lowering could carry: a structure that the text claims and its equations do not have, a form that the text asks for and that they
    do not admit, and what breaks the law of an identity, such as a decay that does not commute with a rotation.
    """
    classified = _placed(recurrence)
    broken = tuple(found for found in classified.refusals if found.slug != "unsupported-lowering")
    if broken:
        raise SpecError(recurrence.written.source, broken)
    refused = None if classified.refusals else refused_form(classified, core_of)
    if refused is not None:
        raise SpecError(recurrence.written.source, (refused,))
    return classified


def _placed(recurrence: Recurrence) -> Classified:
    recurrence = unrolled_reads(recurrence)
    groups = [Facts(recurrence, names, _obstacle(recurrence, names)) for names in _groups(recurrence)]
    axes, refusals = [], []
    form = _value("form", groups).value
    # states that feed each other each fade in their own way
    alone = [Facts(recurrence, (name,)) for facts in groups for name in facts.states]
    for axis in AXES:
        value = _value(axis, alone if axis == "decay" else groups, form)
        axes.append(value)
        # of a recurrence with no affine form only its form is known
        if not value.is_lowered and (not recurrence.sequential or axis == "form"):
            law = next((found for facts in groups if (found := values(axis)[value.value].law(facts))), None)
            refusals.append(_refusal(value, recurrence, law))
    if unmet := _unmet(recurrence, axes, groups):
        raise SpecError(recurrence.written.source, unmet)
    walks, outputs = [], recurrence.outputs
    if not refusals and form == "scan":
        scan = scan_of(recurrence)
        if isinstance(scan, Problem):
            return Classified(recurrence, tuple(axes), (), outputs, (scan.diagnostic(),))
        obstacle = next((facts.obstacle for facts in groups if facts.obstacle), "")
        return Classified(recurrence, tuple(axes), (), outputs, (), replace(scan, obstacle=obstacle))
    if not refusals:
        # what is written twice is written once, and what turns is carried in a frame that turns along
        framed = turned(looking_ahead(recurrence))
        if isinstance(framed, Problem):
            return Classified(recurrence, tuple(axes), (), outputs, (framed.diagnostic(),))
        recurrence, outputs = framed, framed.outputs
        walks, refusals = _walks([Facts(recurrence, names) for names in _groups(recurrence)])
        refusals += [_unread(walk, recurrence) for walk in walks if not walk.readings]
    if not refusals:
        walks, outputs = _scaled(walks, outputs)
        walks = [_with_bare_query(walk, recurrence) for walk in walks]
    return Classified(recurrence, tuple(axes), tuple(walks), outputs, tuple(refusals))


def _obstacle(recurrence: Recurrence, names: tuple[str, ...]) -> str:
    """Why states that feed each other are no members of one walk; empty where they are, and where they feed no other."""
    own = [recurrence.spec.state(name) for name in names]
    if len(names) > 1 and any(state.type.field == "complex" and state.rotating_rows is None for state in own):
        return "their entries are complex numbers"
    framed = turned(looking_ahead(recurrence)) if Facts(recurrence, names).coupling_terms else None
    if not isinstance(framed, Recurrence):
        return ""
    try:
        members_of(Facts(framed, names))
    except NoMembers as found:
        return str(found)
    return ""


def _unread(walk: Walk, recurrence: Recurrence) -> Diagnostic:
    names = ", ".join(f"`{name}`" for name in walk.states)
    state = recurrence.spec.state(walk.states[0])
    return Problem(
        f"no package for `{recurrence.spec.name}`: nothing reads {names}",
        state.span,
        "neither the output nor another state depends on it",
        "the operator's gradients begin at what is read of a walk; what nothing reads would be walked for nothing",
        f"read it in the output, as in `{state.name}'^T q`, or remove it",
    ).diagnostic()


def _groups(recurrence: Recurrence) -> list[tuple[str, ...]]:
    """States by shared transition and write key, in order of declaration."""
    groups: dict[object, list[str]] = {}
    coupled = _coupled(recurrence)
    for state in recurrence.spec.states:
        facts = Facts(recurrence, (state.name,))
        reads_values = any(facts.reads_values(r) for r in facts.reads)
        signature: object = state.name
        if state.name in coupled:
            signature = ("coupled", coupled[state.name])
        elif facts.decay_terms and facts.writes and not reads_values:
            # step by step: what is written in one step is not a column of what is written in another
            signature = tuple(
                (
                    tuple((t.coefficient, t.left, t.right) for t in step.transitions if t.target == state.name),
                    tuple((w.coefficient, w.key, w.tap, w.rank, w.weight) for w in step.writes if w.target == state.name),
                )
                for step in recurrence.steps
            )
        groups.setdefault(signature, []).append(state.name)
    return [tuple(names) for names in groups.values()]


def _coupled(recurrence: Recurrence) -> dict[str, int]:
    """The states that feed each other, with the number of the group that they are in."""
    found: dict[str, int] = {}
    terms = [t for step in recurrence.steps for t in step.transitions if t.source != t.target]
    for number, term in enumerate(terms):
        old = {found.get(term.source, number), found.get(term.target, number)}
        found |= {name: number for name in (*(n for n, group in found.items() if group in old), term.source, term.target)}
    return found


def _value(axis: str, groups: list[Facts], form: str = "chunk") -> AxisValue:
    """The most general value that any group takes on `axis`; what is lowered depends on the form."""
    best: tuple[int, str, Feature, Facts] | None = None
    for facts in groups:
        ranked = sorted(values(axis).items(), key=lambda item: -item[1].priority)
        name, feature = next((n, f) for n, f in ranked if f.matches(facts))
        if best is None or (not feature.is_carried(form), feature.priority) > (not best[2].is_carried(form), best[0]):
            best = (feature.priority, name, feature, facts)
    _, name, feature, facts = best
    evidence = feature.evidence(facts)
    return AxisValue(axis, name, feature.sentence, feature.is_carried(form), getattr(evidence, "span", None) or NOWHERE)


def _unmet(recurrence: Recurrence, axes: list[AxisValue], groups: list[Facts]) -> tuple[Diagnostic, ...]:
    """A diagnostic for every claim that no group of states meets."""
    inferred, found = {a.axis: a for a in axes}, []
    for axis, claimed, span in recurrence.written.declared.axes:
        value, features = inferred[axis], values(axis)
        is_met = value.value == claimed or (features[claimed].priority > 0 and any(features[claimed].matches(facts) for facts in groups))
        if is_met or (recurrence.sequential and axis != "form"):
            continue
        note = features[claimed].need or f"`{claimed}`: {features[claimed].sentence}"
        evidence = (Label(value.span, value.sentence),) if value.span != NOWHERE else ()
        title = f"`{recurrence.spec.name}` is declared `{claimed}` and is `{value.value}` on the axis {axis}"
        label = f"its equations are `{value.value}`: {value.sentence}"
        help = "write the equation that is meant, or leave the word out: it says nothing that the equations do not"
        found.append(Diagnostic("unmet-claim", Severity.ERROR, title, Label(span, label), evidence, note, help))
    return tuple(found)


def _refusal(value: AxisValue, recurrence: Recurrence, law: tuple[str, str] | None) -> Diagnostic:
    lowered = [name for name, feature in values(value.axis).items() if feature.is_lowered]
    span = value.span if value.span != NOWHERE else recurrence.spec.span
    words = " or ".join(f"`{name}`" for name in lowered)
    label = recurrence.sequential if value.value == "sequential" and recurrence.sequential else value.sentence
    return Diagnostic(
        "unsupported-lowering",
        Severity.ERROR,
        f"no package for `{recurrence.spec.name}`: axis {value.axis} is `{value.value}`",
        Label(span, label),
        (),
        law[0] if law else f"the specification is sound; on the axis {value.axis} a kernel exists for {words}",
        law[1] if law else "`ssmgen check` and `ssmgen explain` work on it; to build now, rewrite the axis named above",
    )


# --- walks -------------------------------------------------------------------------------------------------------


def _walks(groups: list[Facts]) -> tuple[list[Walk], list[Diagnostic]]:
    walks, refusals = [], []
    for index, facts in enumerate(groups):
        walk = _walk(facts, index)
        (refusals if isinstance(walk, Diagnostic) else walks).append(walk)
    return walks, refusals


def _walk(facts: Facts, index: int) -> Walk | Diagnostic:
    if facts.coupling_terms:
        return _coupled_walk(facts)
    is_transposed = facts.is_transposed
    found = rows_of(facts, is_transposed)
    if isinstance(found, Problem):
        return found.diagnostic()
    rows, size = found
    logs = [row.log_decay for row in rows if row.log_decay is not None]
    decay = "none" if not logs else "diagonal" if any(not log.type.is_scalar for log in logs) else _value("decay", [facts]).value
    written = next(row for row in rows if row.is_written)
    columns = [Column(n, v, facts.recurrence.spec.state(n).type) for n, v in zip(facts.states, written.values, strict=True)]
    readings, slices = _readings(facts, columns)
    span = facts.transitions[0].span
    return Walk(rows, tuple(columns), decay, tuple(readings), tuple(slices), size, is_transposed, span=span)


def _coupled_walk(facts: Facts) -> Walk:
    """The walk of states that feed each other."""
    row, members = members_of(facts)
    column = Column(members[0].state, row.values[0], facts.recurrence.spec.state(members[0].state).type)
    readings: list[Reading] = []
    slices = []
    for read in facts.reads:
        reading = Reading("", read.query, read.primed, member=[m.state for m in members].index(read.state))
        match = next((r for r in readings if replace(r, name="") == reading), None)
        if match is None:
            match = replace(reading, name=f"o{len(readings)}")
            readings.append(match)
        slices.append(Slice(read, match.name, 0))
    if len(readings) == 1:
        readings, slices = [replace(readings[0], name="o")], [replace(s, reading="o") for s in slices]
    span = facts.coupling_terms[0].span
    return Walk((row,), (column,), "scalar", tuple(readings), tuple(slices), span=span, members=members)


def _readings(facts: Facts, columns: list[Column]) -> tuple[list[Reading], list[Slice]]:
    readings: list[Reading] = []
    slices: list[Slice] = []
    for read in facts.reads:
        is_value = facts.reads_values(read)
        match = [r for r in readings if (r.query, r.is_inclusive, r.is_value) == (read.query, read.primed, is_value)]
        if not match:
            match = [Reading(f"o{len(readings)}", read.query, read.primed, is_value)]
            readings += match
        column = [c.state for c in columns].index(read.state)
        slices.append(Slice(read, match[0].name, column))
    if len(readings) == 1:
        readings = [replace(readings[0], name="o")]
        slices = [Slice(s.read, "o", s.column) for s in slices]
    return readings, slices


def _scaled(walks: list[Walk], outputs: tuple[tuple[str, Expr], ...]) -> tuple[list[Walk], tuple[tuple[str, Expr], ...]]:
    """An output that is one read times a number gives the number to the walk, where it costs nothing."""
    if len(walks) != 1 or len(walks[0].readings) != 1 or len(outputs) != 1:
        return walks, outputs
    (name, value) = outputs[0]
    number, above, below = factors(value)
    reads = {s.read.name for s in walks[0].slices}
    read = [f for f in above if isinstance(f, Ref) and f.name in reads]
    rest = [f for f in (*above, *below) if f not in read]
    if len(reads) != 1 or len(read) != 1 or not all(_is_number(f) for f in rest):
        return walks, outputs
    scale = algebra.product(number, tuple(f for f in above if f not in read), below)
    if algebra.is_one(scale):
        return walks, outputs
    return [replace(walks[0], scale=scale)], ((name, read[0]),)


def _with_bare_query(walk: Walk, recurrence: Recurrence) -> Walk:
    """A query that is a number times a column gives the number to the walk as well: what is left may be an input as it lies."""
    query = walk.readings[0].query if len(walk.readings) == 1 else None
    definitions = {s.name: s.definition for s in recurrence.spec.symbols if s.definition is not None} | dict(recurrence.hoisted)
    if isinstance(query, Ref) and query.name in definitions:
        query = definitions[query.name]
    if query is None or query.type.is_scalar:
        return walk
    number, column = algebra.split_scalar(query)
    if algebra.is_one(number) or not _is_number(number):
        return walk
    scale = number if walk.scale is None else algebra.mul(walk.scale, number)
    return replace(walk, scale=scale, readings=(replace(walk.readings[0], query=column),))


def _is_number(expr: Expr) -> bool:
    """Built of numbers and sizes alone."""
    return all(not isinstance(node, (Ref, StateRef, Delayed)) for node in nodes(expr))
