"""Rules of domains: what a gate may reach, and what is proved about it."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line

RULES = (
    Rule(
        "domain-violation",
        "A gate that leaves its domain",
        "The expression of a gate takes values outside the domain declared for it; the message gives a point where it does.",
        "Domains are what the compiler builds on: a decay in (0, 1) may be turned into a logarithm and summed, a key of length 1 may "
        "be erased without growth. A state multiplied by 7.39 at each token overflows after some hundred tokens.",
        with_line("a_raw : scalar", "a_raw : scalar <= 2").replace("sigmoid(a_raw)", "exp(a_raw)"),
        with_line("a_raw : scalar", "a_raw : scalar <= 2").replace("sigmoid(a_raw)", "exp(-exp(a_raw))"),
    ),
    Rule(
        "unprovable-domain",
        "A domain that interval analysis cannot prove",
        "The expression may well stay in its domain, but bounds of its parts do not show it; "
        "or a `unit` column is not unit by construction.",
        "What is not proved is not used: a wrong belief about a range is an overflow in some kernel, for some data, later.",
        with_line("sigmoid(a_raw)", "exp(a_raw) * exp(-a_raw) / 2"),
        with_line("sigmoid(a_raw)", "exp(-softplus(a_raw)) / 2"),
    ),
    Rule(
        "undefined-argument",
        "A function applied where it is not defined",
        "The argument of `log`, `sqrt`, `rsqrt`, `log1p`, `inv_softplus` or of a fractional power can leave the numbers "
        "on which it is defined.",
        "Outside, the result is NaN, and one NaN spreads through the state to every later token.",
        with_line("sigmoid(a_raw)", "sigmoid(sqrt(a_raw))"),
        with_line("sigmoid(a_raw)", "sigmoid(sqrt(softplus(a_raw)))"),
    ),
    Rule(
        "empty-domain",
        "A domain that holds no number",
        "The lower end of a domain lies above its upper end, or both are one open end.",
        "Nothing can satisfy it, so the ends are most likely the wrong way round.",
        with_line("in (0, 1)", "in (1, 0)"),
        MEMORY,
    ),
    Rule(
        "gate-without-domain",
        "A gate that states no domain and no type",
        "A `gate` has neither a domain nor a type.",
        "A gate is a `let` whose range the compiler must prove. Without a range it is a `let`.",
        with_line("a in (0, 1) =", "a ="),
        MEMORY,
    ),
    Rule(
        "division-by-zero",
        "A quotient by the number 0",
        "The divisor of a quotient is exactly 0.",
        "The quotient has no value for any input.",
        with_line("k v^T", "k v^T / 0"),
        with_line("k v^T", "k v^T / 2"),
    ),
)
