"""Rules of shapes: rows and columns, real and complex, what an index may count."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line

_ROWS = """\
recurrence rows(R = 2) {
  dim    N = 64, P = 64
  input  q : [N]; k : [R, N]; v : [R, P]
  state  S : real [N, P]
  update S' = 0.9 * S + sum r in 1..R: k[r] v[r]^T
  output o = S'^T q
}
"""
_MODES = """\
recurrence modes {
  dim    N = 64
  input  u : scalar per channel
  param  rate, omega : [N/2] per channel init 1
  param  A : complex [N/2] per channel = -exp(rate) + i * omega; C : complex [N/2] per channel
  state  s : complex [N/2] per channel
  dynamics   ds/dt = diag(A) s + u
  discretize zoh(0.1)
  output y = Re(C . s')
}
"""
_LEGS = _MODES.replace(
    "rate, omega : [N/2] per channel init 1", "rate : [N/2] per channel; omega : [N/2] per channel init legs_frequencies()"
)

RULES = (
    Rule(
        "shape-mismatch",
        "Shapes that do not go together",
        "A sum, a product, an equation or a declaration joins values whose rows or columns differ.",
        "Vectors are columns: `k v^T` is an outer product, `k^T S` a row, `k^T q` a number. A sum has terms of one shape, a "
        "matrix product has as many columns at the left as rows at the right; a scalar goes with anything.",
        with_line("S'^T q", "S' q").replace("P = 64", "P = 128"),
        MEMORY,
    ),
    Rule(
        "not-a-matrix-product",
        "Two columns side by side",
        "A space between two columns asks for a matrix product that does not exist.",
        "A space is the matrix product and `*` is elementwise. Of two columns there are three products, and none is the default.",
        with_line("S'^T q", "S'^T (k q)"),
        with_line("S'^T q", "S'^T (k * q)"),
    ),
    Rule(
        "field-mismatch",
        "A complex value where a real one is needed",
        "A real state, definition or output is given a complex value, or a real function a complex argument.",
        "Real and complex differ in storage and in meaning; taking the real part is a choice that only the writer can make.",
        _MODES.replace("Re(C . s')", "C . s'"),
        _MODES,
    ),
    Rule(
        "odd-dimension",
        "A size that does not come out whole",
        "A size such as `N/2` is no whole number at the default of its dims, or a rotation meets an odd number of rows.",
        "Sizes are checked at the defaults, so that a spec that resolves can be built as it stands.",
        _MODES.replace("N = 64", "N = 63"),
        _MODES,
    ),
    Rule(
        "not-an-index",
        "A subscript that counts nothing",
        "The index of `k[j]` is neither a loop index nor a row number, an index is used as a value, or a range stands outside a loop.",
        "Subscripts pick a row of a `[R, N]` value. What a row depends on must be known when the kernel is built.",
        _ROWS.replace("k[r] v[r]^T", "k[s] v[r]^T"),
        _ROWS,
    ),
    Rule(
        "not-a-count",
        "A size or loop bound that is not a count",
        "A shape, a rank or the bound of a loop uses something other than dims, recurrence parameters and whole numbers.",
        "Loops inside a token are unrolled and shapes are laid out when a kernel is built: neither can depend on data.",
        _ROWS.replace("1..R:", "1..q:"),
        _ROWS,
    ),
    Rule(
        "modes-of-init",
        "Modes that a param does not have",
        "An initial value `legs_...` stands at a param without one entry, row or column a mode, draws nothing, or has blocks that "
        "do not divide the modes.",
        "HiPPO-LegS of size N has N/2 pairs of modes. Frequencies and the low rank are columns over them; a matrix that writes or reads is "
        "drawn over the N real entries and brought to the basis of the modes.",
        _LEGS.replace("legs_frequencies()", "legs_frequencies(5)"),
        _LEGS,
    ),
    Rule(
        "mixed-axes",
        "Values per channel mixed with values per head",
        "An expression joins values of both axes, or a declaration says an axis that its value does not have.",
        "A recurrence runs over heads or over channels, each with a state of its own; no rule says which head goes with a channel.",
        _MODES.replace("u : scalar per channel", "u : scalar per head"),
        _MODES.replace("u : scalar per channel", "u : scalar per layer"),
    ),
)
