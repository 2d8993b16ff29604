"""The update as micro-steps: assignments in a row are composed into one affine map, a loop stays a loop."""

from __future__ import annotations

from dataclasses import replace

from .. import algebra
from ..diagnostics import Label, Report
from ..recurrence import MicroStep, Write
from ..spec import Assignment, MicroLoop, Recurrence, StateRef
from .chains import Factor, Polynomial, Refusal, chain, scale
from .expand import Expander
from .taps import entering
from .terms import is_identity, micro_step


def report_refusal(refusal: Refusal, spec: Recurrence, report: Report) -> None:
    """Put a refusal into the report, with the declarations of the states it concerns."""
    declared = tuple(Label(spec.state(name).span, f"`{name}` is a state") for name in refusal.states)
    report.error(refusal.slug, refusal.title, refusal.span, refusal.label, secondary=declared, note=refusal.note, help=refusal.help)


def update_steps(spec: Recurrence, report: Report) -> tuple[MicroStep, ...]:
    """The micro-steps of the update. Errors go to the report; what it returns then is incomplete."""
    return _Steps(spec, report).run()


class _Steps:
    def __init__(self, spec: Recurrence, report: Report):
        self.spec = spec
        self.report = report
        self.symbols = {s.name: s for s in spec.symbols}
        self.steps: list[MicroStep] = []
        self.current: dict[str, Polynomial] = {}
        self.taps: dict[str, tuple[Polynomial, tuple[Write, ...]]] = {}  # delayed writes that enter before the transitions
        self.earlier: dict[str, None] = {}  # states that an earlier micro-step changed
        self.loop: MicroLoop | None = None

    def run(self) -> tuple[MicroStep, ...]:
        for item in self.spec.update:
            if isinstance(item, MicroLoop):
                self._flush()
                self.loop = item
                for assignment in item.body:
                    self._assign(assignment)
                self._flush(item)
                self.loop = None
            else:
                self._assign(item)
        self._flush()
        return tuple(self.steps) or (micro_step({}, self.spec.states),)

    def _assign(self, assignment: Assignment) -> None:
        name = assignment.state
        try:
            value = Expander(self.symbols, self._value_of, takes_parts=True).expand(assignment.value)
            is_read = any(item.state is not None and item.state.name == name for items in self.current.values() for item in items)
            taps = None if self.loop or is_read or name in self.current else entering(value, self.spec.state(name), self.spec)
            if taps is not None:
                # from here on, the state means the state with its taps
                own = tuple(item for item in value if item.state is not None)
                self.taps[name] = tuple(item for item in value if item.state is None), taps
                value = own
            self.current[name] = value
        except Refusal as refusal:
            if refusal.slug == "nested-sum" and self.current and self.loop is None:
                # a sum that reads a sum is two micro-steps, not one affine map written out
                self._flush()
                self._assign(assignment)
                return
            report_refusal(refusal, self.spec, self.report)
            self.current[name] = ()

    def _flush(self, loop: MicroLoop | None = None) -> None:
        if not self.current:
            return
        values, self.current = self.current, {}
        taps, self.taps = self.taps, {}
        self.earlier.update(dict.fromkeys(values))
        try:
            index, count = (loop.index, loop.count) if loop else (None, None)
            step = micro_step(values, self.spec.states, index, count)
            older = tuple(term for _, terms in taps.values() for term in terms)
            step = replace(step, writes=older + step.writes)
            if not is_identity(step):
                self.steps.append(step)
        except Refusal as refusal:
            report_refusal(refusal, self.spec, self.report)

    def _value_of(self, state: StateRef) -> Polynomial:
        changed_in_loop = {a.state for a in self.loop.body} if self.loop else set()
        if state.primed and state.name in self.current:
            return self.current[state.name]
        if not state.primed and (state.name in self.earlier or state.name in changed_in_loop):
            raise Refusal(
                "stale-state",
                f"`{state.name}` is read after a micro-step changed it",
                state.span,
                f"`{state.name}` is the state before the token",
                note="a micro-step reads the state that the one before it left: `S'`",
                help=f"write `{state.name}'`",
                states=(state.name,),
            )
        old = StateRef(state.type, state.span, state.name, False)
        itself = (chain(algebra.UNIT, (Factor("state", old),), state.type.rows, state.type.cols, span=state.span),)
        if not state.primed and state.name in self.taps:
            # the state without its taps
            delayed, _ = self.taps[state.name]
            return itself + tuple(scale(item, algebra.const(-1)) for item in delayed)
        return itself
