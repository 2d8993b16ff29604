"""What a rule is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """The words behind one slug.

    what: the fault, a sentence. why: the law it breaks, and what it would cost. example: a whole specification that raises
    exactly this slug. instead: the same, legal.
    """

    slug: str
    title: str
    what: str
    why: str
    example: str
    instead: str
