"""What users call, around the operator: the arguments of the recurrence with its products of matrices."""

from __future__ import annotations

import re
from dataclasses import replace

from ..backends.torch_text import identifier
from ..plan import Plan
from .dense import outer_of
from .shapes import Shapes
from .tokens import TokenWriter


class Outer(Shapes):
    """The arguments and states of what users call: those of the recurrence with its products of matrices."""

    def __init__(self, plan: Plan):
        classified = outer_of(plan.classified)
        self.plan, self.tokens, self.spec = replace(plan, classified=classified), TokenWriter(classified), classified.recurrence.spec
        self.pairs = classified.recurrence.pairs
        self.public = self._public()
        self.inputs = [s for s in self.public if s.kind == "input"]
        self.states = [identifier(s.name) for s in self.spec.states]
        self.sizes = {line.target: self._of_whole(line.text) for line in self.tokens.sizes()}
        self.output = classified.outputs[0][1].type
        self.first = identifier(self.inputs[0].name)
        found = next((s for s in self.inputs if s.type == self.output), next((s for s in self.inputs if not s.type.is_scalar), None))
        self.like = self.first if found is None else identifier(found.name)

    def _heads(self) -> str:
        return self._of_whole(super()._heads())

    def _of_whole(self, text: str) -> str:
        """The text with complex arguments in place of their parts."""
        for pair in self.pairs:
            text = re.sub(rf"\b({identifier(pair.re)}|{identifier(pair.im)})\b", identifier(pair.name), text)
        return text
