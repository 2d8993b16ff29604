"""The declaration notation: what is claimed about the structure, and the equation where none is written.

    transition diagonal, delta(order = forget_first)      write rank R      taps 2      readout normalised

Beside an equation a claim is recorded, to be held against what is inferred; two words act on it: `rotation(theta)` turns
the state of `dynamics`, `mimo R` gives keys and queries R rows. Without one, `synthesis` writes the equation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .. import syntax
from ..source import NOWHERE, Span
from ..spec import DeclaredStructure
from .scope import Scope, Unresolved, names_in, suggestion

DECAYS = {
    "identity": "none",
    "none": "none",
    "static": "static",
    "scalar": "scalar",
    "diagonal": "diagonal",
    "elementwise": "elementwise",
    "dense": "dense",
}
CORRECTIONS = ("delta", "low_rank")
ORDERS = ("forget_first", "read_first")
READOUTS = ("plain", "normalised", "before", "bonus")
NORMALISERS = {"none": "none", "sum": "running_sum", "max": "running_max"}
TIMES = ("causal", "reversed", "bidirectional")
FORMS = ("chunk", "scan", "sequential")


@dataclass
class Structure:
    """What the declarations of one recurrence say."""

    axes: dict[str, tuple[str, Span]] = field(default_factory=dict)
    decay: str = "none"
    correction: str = "none"
    order: str = "forget_first"
    angles: str = "none"  # 'none' | 'static' | 'data'
    shares_angle: bool = False
    rotation: syntax.Node | None = None  # the theta of `rotation(theta)`
    rank: syntax.Node | None = None
    steps: syntax.Node | None = None
    taps: int = 1
    readout: str = "plain"
    normaliser: str = "none"
    mimo: syntax.Node | None = None
    time: str = "causal"
    span: Span = NOWHERE
    writes_equation: bool = False

    @property
    def declared(self) -> DeclaredStructure:
        """The claims as the specification keeps them."""
        return DeclaredStructure(tuple((axis, value, span) for axis, (value, span) in self.axes.items()))


def structure_of(node: syntax.RecurrenceDecl, scope: Scope) -> Structure:
    """Read the declarations; words that mean nothing are reported."""
    structure = Structure()
    for statement in node.body:
        if isinstance(statement, syntax.Declared):
            if structure.span == NOWHERE or statement.keyword == "transition":
                structure.span = statement.span
            try:
                _READERS[statement.keyword](statement, structure, scope)
            except Unresolved:
                continue
    has_equation = any(isinstance(s, syntax.Update | syntax.Dynamics) for s in node.body)
    declares = any(isinstance(s, syntax.Declared) and s.keyword in ("transition", "write", "mimo") for s in node.body)
    structure.writes_equation = declares and not has_equation
    return structure


def desugar(node: syntax.RecurrenceDecl, structure: Structure, scope: Scope) -> syntax.RecurrenceDecl:
    """The recurrence with its equation written out, and `rotation(theta)` and `mimo R` worked in."""
    if structure.writes_equation:
        from .synthesis import written_out

        return written_out(node, structure, scope)
    body = node.body
    if structure.rotation is not None:
        body = _turning(body, structure)
    if structure.mimo is not None:
        from .mimo import widened

        body = widened(body, structure, scope)
    return replace(node, body=body)


# --- words -------------------------------------------------------------------------------------------------------


def _word(node: syntax.Node) -> str:
    match node:
        case syntax.Name(id=name):
            return name
        case syntax.Call(function=name):
            return name
        case syntax.Number(value=value):
            return str(value)
    return ""


def _unknown(node: syntax.Node, keyword: str, allowed: tuple[str, ...], scope: Scope) -> Unresolved:
    text = _word(node)
    help = suggestion(text, allowed) or f"`{keyword}` takes {', '.join(f'`{a}`' for a in allowed)}"
    scope.report.error("unknown-option", f"`{keyword}` does not know `{text}`", node.span, "not one of its words", help=help)
    return Unresolved()


def _transition(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    for word in node.words:
        text = _word(word)
        if text in DECAYS:
            structure.decay = DECAYS[text]
            structure.axes["decay"] = (structure.decay, word.span)
        elif text in CORRECTIONS:
            structure.correction = text
            structure.axes["correction"] = (text, word.span)
            _order(word, structure, scope)
        elif text == "rotation":
            structure.angles = "data"
            if isinstance(word, syntax.Call) and word.args:
                structure.rotation = word.args[0]
            structure.axes["rotation"] = ("angle", word.span)
        else:
            raise _unknown(word, "transition", (*DECAYS, *CORRECTIONS, "rotation"), scope)


def _order(word: syntax.Node, structure: Structure, scope: Scope) -> None:
    if not isinstance(word, syntax.Call):
        return
    for argument in word.args:
        raise _unknown(argument, word.function, ("order = forget_first", "order = read_first"), scope)
    for name, value in word.keywords:
        if name != "order" or _word(value) not in ORDERS:
            raise _unknown(
                value if name == "order" else syntax.Name(word.span, name), word.function, ORDERS if name == "order" else ("order",), scope
            )
        structure.order = _word(value)


def _field(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    words = [_word(w) for w in node.words]
    allowed = ("real", "complex", "angles", "data", "static", "per", "pair", "shared")
    for word, text in zip(node.words, words, strict=True):
        if text not in allowed:
            raise _unknown(word, "field", allowed, scope)
    if "complex" in words:
        structure.angles = "static" if "static" in words else "data"
        structure.shares_angle = "shared" in words
        structure.axes["rotation"] = ("angle", node.span)
    else:
        structure.axes["rotation"] = ("none", node.span)


def _write(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    if len(node.words) != 2 or _word(node.words[0]) not in ("rank", "steps"):
        wrong = next((w for w in node.words if _word(w) not in ("rank", "steps")), node)
        if len(node.words) == 2 and wrong is node.words[1]:
            wrong = node.words[0]
        raise _unknown(wrong, "write", ("rank R", "steps n"), scope)
    if _word(node.words[0]) == "rank":
        structure.rank = node.words[1]
        structure.axes["rows"] = ("rank", node.span)
    else:
        structure.steps = node.words[1]
        structure.axes["rows"] = ("micro_steps", node.span)


def _taps(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    if len(node.words) != 1 or _word(node.words[0]) not in ("1", "2"):
        raise _unknown(node.words[0], "taps", ("1", "2"), scope)
    structure.taps = int(_word(node.words[0]))
    structure.axes["taps"] = ("previous" if structure.taps == 2 else "current", node.span)


def _readout(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    for word in node.words:
        text = _word(word)
        if text not in READOUTS:
            raise _unknown(word, "readout", READOUTS, scope)
        if text == "normalised":
            structure.normaliser = "running_sum" if structure.normaliser == "none" else structure.normaliser
            structure.axes.setdefault("normaliser", (structure.normaliser, word.span))
        else:
            structure.readout = text
            structure.axes["current"] = ("exclusive" if text in ("before", "bonus") else "inclusive", word.span)


def _normaliser(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    structure.normaliser = NORMALISERS[_one_of(node, tuple(NORMALISERS), scope)]
    structure.axes["normaliser"] = (structure.normaliser, node.span)


def _mimo(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    if len(node.words) != 1:
        raise _unknown(node.words[1], "mimo", ("R",), scope)
    structure.mimo = node.words[0]
    structure.axes["rows"] = ("rank", node.span)


def _time(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    structure.time = _one_of(node, TIMES, scope)
    structure.axes["time"] = (structure.time, node.span)


def _form(node: syntax.Declared, structure: Structure, scope: Scope) -> None:
    structure.axes["form"] = (_one_of(node, FORMS, scope), node.span)


def _one_of(node: syntax.Declared, allowed: tuple[str, ...], scope: Scope) -> str:
    for word in node.words:
        if _word(word) not in allowed:
            raise _unknown(word, node.keyword, allowed, scope)
    return _word(node.words[0])


_READERS = {
    "transition": _transition,
    "field": _field,
    "write": _write,
    "taps": _taps,
    "readout": _readout,
    "normaliser": _normaliser,
    "mimo": _mimo,
    "time": _time,
    "form": _form,
}


# --- rotation(theta) beside dynamics -----------------------------------------------------------------------------


def _turning(body: tuple[syntax.Node, ...], structure: Structure) -> tuple[syntax.Node, ...]:
    """`rotation(theta)` adds `i * theta` to the rate of every complex state, whose rows then are pairs. Where `theta` stands in
    the equation already, it is a claim and adds nothing."""
    theta = structure.rotation
    equations = tuple(s for s in body if isinstance(s, syntax.Update | syntax.Dynamics))
    if set(names_in(theta)) & set(names_in(equations)):
        return body
    turning = {s.name for s in body if isinstance(s, syntax.StateDecl) and s.type.field == "complex"}

    def turned(node: syntax.Node) -> syntax.Node:
        if isinstance(node, syntax.StateDecl) and node.name in turning and node.type.shape and node.type.rotates is None:
            return replace(node, type=replace(node.type, rotates=("first", node.type.shape[0])))
        if isinstance(node, syntax.Dynamics) and node.state in turning:
            rate = syntax.Binary(theta.span, "*", syntax.Name(theta.span, "i"), theta)
            extra = syntax.Binary(theta.span, "juxtapose", rate, syntax.Name(theta.span, node.state))
            return replace(node, value=syntax.Binary(node.value.span, "+", extra, node.value))
        return node

    return tuple(turned(node) for node in body)
