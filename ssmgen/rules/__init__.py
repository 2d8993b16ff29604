"""The rules by slug, one group a file: `ssmgen explain SLUG`, the rule pages and the tests read them here.

Passes do not: they raise facts. So nothing is loaded before `RULES` is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .._registry import load
from ._rule import Rule

__all__ = ["RULES", "Rule"]


def __getattr__(name: str) -> Mapping[str, Rule]:
    if name != "RULES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    gathered: dict[str, Rule] = {}
    for rules in load(__name__, __path__, "RULES").values():
        for rule in rules:
            if rule.slug in gathered:
                raise ValueError(f"two rules are called {rule.slug}")
            gathered[rule.slug] = rule
    globals()["RULES"] = MappingProxyType(dict(sorted(gathered.items())))
    return globals()["RULES"]
