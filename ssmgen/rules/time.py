"""Rules of time: before the token, after it, and the previous one."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line

_FADING = """\
recurrence fading {
  input  u : scalar per channel
  gate   a in (0, 1) = sigmoid(raw)
  state  s : real scalar per channel
  update s' = a * s + u
  output y = s'
  @form  convolution
}
"""

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
    Rule(
        "not-time-invariant",
        "A convolution whose impulse response would change",
        "`@form convolution` is asked for, and what a state is multiplied by depends on the token.",
        "The answer to one write is then another at every token, and no product of spectra gives the sum of them. Parameters and numbers "
        "may make the factor; what is written and read may depend on the token.",
        _FADING,
        _FADING.replace("sigmoid(raw)", "sigmoid(rate)").replace("  state", "  param  rate : scalar per channel\n  state"),
    ),
    Rule(
        "unavailable-form",
        "A form that the equations do not admit",
        "`@form` asks for chunks where entries run by themselves, or for a scan or a convolution of what runs in chunks.",
        "The structure decides: where a state is met along one axis, chunks are products of matrices; where every entry is a recurrence of "
        "its own there is no such product. An option that was passed over would look as if it had an effect.",
        with_line("  output o", "  @form  scan\n  output o"),
        with_line("  output o", "  @form  chunk\n  output o"),
    ),
)
