"""What a value on an axis is: when it matches, what it means in words, whether a chunk form carries it yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._facts import Facts


@dataclass(frozen=True)
class Feature:
    """A value on an axis.

    `matches(facts)` says whether a group of states has this value; within an axis the values are tried by falling
    `priority`, so that the general one comes first. `sentence` is for `explain`. `is_lowered`: a kernel exists. `in_scan`: whether
    one exists where every entry of the state runs by itself; None where it is no matter of the form.
    `evidence(facts)` gives the factor or term of the text that shows the value, for messages; `law(facts)` why it has no
    kernel and never will beside what else the group does, with the edit, where there is more to say than that there is none yet.
    `need`: what a text that claims the value must have, where the sentence does not say it.
    """

    sentence: str
    matches: Callable[[Facts], bool]
    is_lowered: bool
    priority: int = 0
    evidence: Callable[[Facts], object] = lambda facts: None
    law: Callable[[Facts], tuple[str, str] | None] = lambda facts: None
    need: str = ""
    in_scan: bool | None = None

    def is_carried(self, form: str) -> bool:
        """Whether a kernel of this form carries the value."""
        return self.is_lowered if form != "scan" or self.in_scan is None else self.in_scan
