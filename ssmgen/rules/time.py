"""Rules of time: before the token, after it, and the previous one."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line

RULES = (
    Rule(
        "time-index",
        "A time that cannot be read or written",
        "`S_t`, `S[-1]`, `x[+1]`, `x[-2]`, `k'`, or `S'` before it has a value.",
        "Time is never written: `S` is the state before the token, `S'` the state after it, `x` this token's value, `x[-1]` the "
        "previous token's. Nothing else is kept: older values are carried in a state, later ones do not exist yet.",
        with_line("a * S + k v^T", "a * S[-1] + k v^T"),
        MEMORY,
    ),
)
