"""Rules of the update: it is affine in the states, its terms are products, its steps have a closed form."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line

_UPDATE = "S' = a * S + k v^T"
_ENTRIES = with_line(_UPDATE, "S' = sigmoid(A) * S - a * unit(k) (unit(k)^T S) + k v^T").replace(
    "  gate", "  param  A : [N, P] per head init 1\n  gate"
)
_STEPS = with_line("  dim    N = 64, P = 64", "  dim    N = 64, P = 64, R = 2").replace("v : [P];", "v : [P]; ks : [R, N];")
_LOOP = _STEPS.replace(_UPDATE, "S' = a * S + k v^T\n         for j in 1..R: S' = S' - ks[j] (ks[j]^T S')")
_SQUARE = with_line("N = 64, P = 64", "N = 64").replace("v : [P]", "v : [N]").replace("[N, P]", "[N, N]")
_CORRECTED = with_line(_UPDATE, "S' = a * (S - unit(k) (unit(k)^T S)) + unit(k) v^T")
_CONTINUOUS = """\
recurrence flow {
  dim    N = 64, P = 64
  input  q, k : [N]; v : [P]; A : scalar < 0; dt : scalar > 0
  state  S : real [N, P]
  dynamics   dS/dt = A * S + k v^T
  discretize zoh(dt)
  output o = S'^T q
}
"""
_TURNING = """\
recurrence turning {
  dim    N = 64, P = 64
  input  q, k : [N]; v : [P]; A : [N/2]; omega : [N/2]; dt : scalar > 0
  state  S : complex [N, P], rotates first N rows
  dynamics   dS/dt = (A + i * omega) S + k v^T
  discretize exp_euler(dt)
  output o = S'^T q
}
"""
_MATRIX_DYNAMICS = _CONTINUOUS.replace("A : scalar < 0", "A : [N, N]; F : [P, P]").replace("A * S", "A S + S F").replace("zoh", "rk4")

RULES = (
    Rule(
        "unmet-claim",
        "A declared structure that the equations do not have",
        "`transition`, `taps`, `normaliser` and their like beside an equation say what it is, and it is something else.",
        "A claim is held against what the compiler infers, so that a slip of the pen does not become another model. A running maximum "
        "needs exponential write gates, taps need a write of the previous token, micro-steps a loop.",
        with_line("output o", "normaliser max\n  output o"),
        with_line("output o", "normaliser none\n  output o"),
    ),
    Rule(
        "unbounded-correction",
        "A correction along a key of unknown length",
        "A term `b k k^T S` is taken from the state, and nothing says how long k is.",
        "Along k the correction keeps the factor 1 - b |k|^2 of the state. With a key longer than the square root of 2 / b that is "
        "below -1, and every token that repeats the key multiplies the state by it.",
        with_line(_UPDATE, "S' = a * (S - k (k^T S)) + k v^T"),
        _CORRECTED,
    ),
    Rule(
        "walked-correction",
        "A correction where every entry fades by itself",
        "A term `b k k^T S` is taken from a state that is multiplied entry by entry.",
        "A chunk carries a correction through the decays of its key, which all columns share. With a factor for every entry each column "
        "needs a chunk of its own: the package walks token after token instead, in torch alone.",
        _ENTRIES,
        _ENTRIES.replace("[N, P] per head", "[N] per head").replace("sigmoid(A) * S", "diag(sigmoid(A)) S"),
    ),
    Rule(
        "nonlinear-state",
        "An update that is not affine in a state",
        "A state is multiplied by itself, raised to a power, or divided by.",
        "Chunks, scans and the adjoint recurrence compose affine maps of the state. A product of two states composes to a polynomial "
        "whose degree grows with every token.",
        with_line(_UPDATE, "S' = a * S * S + k v^T"),
        MEMORY,
    ),
    Rule(
        "two-states-multiplied",
        "Two states multiplied",
        "A term of the update is a product of two different states.",
        "States may be coupled linearly, each times factors of the token; a product of two states is not an affine map of them.",
        with_line("S : real", "S, Z : real").replace(_UPDATE, "S' = a * S * Z + k v^T\n         Z' = a * Z + k v^T"),
        with_line("S : real", "S, Z : real").replace(_UPDATE, "S' = a * S + Z\n         Z' = a * Z + k v^T"),
    ),
    Rule(
        "state-inside-function",
        "A state inside a function",
        "A function that is not linear, such as `tanh`, takes a state.",
        "Only an affine map of the state can be summed over a chunk before the state is known. A nonlinear one runs token by token, and "
        "must say so: `form sequential`.",
        with_line(_UPDATE, "S' = tanh(a * S) + k v^T"),
        MEMORY,
    ),
    Rule(
        "nested-sum",
        "A sum over ranks inside another",
        "Two sums over ranks are multiplied, or one stands inside the other.",
        "The rows of a token are one list: a term is summed over one index, and each row becomes a row of the kernel's tile.",
        _STEPS.replace(_UPDATE, "S' = a * S + (sum r in 1..R: sum s in 1..R: ks[r] (ks[s]^T k) v^T)"),
        _STEPS.replace(_UPDATE, "S' = a * S + (sum r in 1..R: ks[r] (ks[r]^T k) v^T)"),
    ),
    Rule(
        "unsupported-lowering",
        "A sound recurrence that no package is written for",
        "The specification is checked and explained, and a build refuses it: its form, or a term of it, has no operator yet.",
        "A package holds an operator with its gradients, in chunks or as a scan. What neither carries is refused as a whole: left out in "
        "silence, it would train another model.",
        with_line(_UPDATE, "S' = a * S + k v^T + a_raw"),
        MEMORY,
    ),
    Rule(
        "write-without-key",
        "A number read from the state, times a full matrix",
        "A state [N, P] is written a full matrix times a number that is read from it, or a product of full matrices.",
        "A token brings a key and a value (or a few of each), or one matrix as large as the state. What is read from the state and written "
        "back is a product of matrices around it, and a full matrix leaves no place for the state in such a product.",
        with_line("a_raw : scalar", "a_raw : scalar; W : [N, P]").replace(_UPDATE, "S' = a * S + k v^T - (k^T (S v)) * W"),
        MEMORY,
    ),
    Rule(
        "elementwise-after-product",
        "Entry-by-entry weights on a matrix product",
        "A full matrix multiplies, entry by entry, a matrix product with the state or a write.",
        "Weights entry by entry and matrix products do not commute, so the term is no product of matrices around the state.",
        with_line("a_raw : scalar", "a_raw : scalar; W : [N, P]").replace(_UPDATE, "S' = W * (S - a * k (k^T S)) + k v^T"),
        with_line("a_raw : scalar", "a_raw : scalar; W : [N, P]").replace(_UPDATE, "S' = W * S - a * k (k^T S) + k v^T"),
    ),
    Rule(
        "state-transposed",
        "A transposed state in the update",
        "The update adds the transpose of a state.",
        "Terms act on the rows and on the columns of a state, never exchanging them: a term `S^T` has no chunk form.",
        _SQUARE.replace(_UPDATE, "S' = a * S^T + k v^T"),
        MEMORY,
    ),
    Rule(
        "stale-state",
        "The state before the token, read after a micro-step changed it",
        "Inside or after a `for` of the update, `S` is read where only `S'` is left.",
        "Micro-steps run one after the other, each on the state that the last one left. Keeping the first state as well would double the "
        "state held by every kernel.",
        _LOOP.replace("(ks[j]^T S')", "(ks[j]^T S)"),
        _LOOP,
    ),
    Rule(
        "unread-state",
        "A state that nothing reads",
        "No output depends on a state, neither directly nor through another state.",
        "A state costs memory and time for every token.",
        with_line("S : real", "S, Z : real").replace(_UPDATE, "S' = a * S + k v^T\n         Z' = a * Z + k v^T"),
        MEMORY,
    ),
    Rule(
        "dynamics-not-affine",
        "Dynamics that are not affine in the state",
        "`dS/dt` holds a product of states, or a function of one.",
        "A discretization steps `dS/dt = A S + B` with A and B given by the token; its order of accuracy is proved for that equation.",
        _CONTINUOUS.replace("A * S +", "A * S * S +"),
        _CONTINUOUS,
    ),
    Rule(
        "discretization-undefined",
        "A discretization without a closed form here",
        "The method needs a function of what acts on the state, and this has none.",
        "An exponential or an inverse has a closed form on scalars, diagonals, one rank-one term and rates of turning, an inverse also on "
        "a rank-one term beside a diagonal or beside pairs that turn, and on states that feed each other entry by entry. Anything else "
        "that acts on one side of a state is a matrix, of which torch makes the exponential or the inverse before the recurrence. Matrices "
        "on both sides, and matrices between states that feed each other, leave the methods that are polynomials: `euler` and `rk4`.",
        _MATRIX_DYNAMICS.replace("rk4", "zoh"),
        _MATRIX_DYNAMICS,
    ),
    Rule(
        "unstable-dynamics",
        "A state that grows in continuous time",
        "The real part of the rate that multiplies a state in `dS/dt` is not provably at most 0.",
        "The state is the sum of all inputs, each times exp(A t) of the time since: with A above 0 the oldest one counts most, and after "
        "some hundred tokens the state overflows. No step size and no method repairs that.",
        _CONTINUOUS.replace("A : scalar < 0", "A : scalar").replace("zoh", "exp_euler"),
        _CONTINUOUS.replace("zoh", "exp_euler"),
    ),
    Rule(
        "rotation-unequal-decay",
        "A decay that differs inside a pair that turns",
        "A state that turns in pairs of rows decays row by row.",
        "A rotation and a decay commute only when both rows of a pair share the decay; otherwise their product is a general 2 x 2 matrix, "
        "which no rotation of queries and keys absorbs.",
        _TURNING.replace("A : [N/2]", "A : [N]").replace("(A + i * omega) S", "diag(A) S + (i * omega) S"),
        _TURNING,
    ),
    Rule(
        "decay-not-positive",
        "A decay that may reach 0 beside a correction or a rotation",
        "What multiplies a state that is corrected, or that turns, is not proved greater than 0.",
        "A chunk multiplies decays as sums of their logarithms, and a factor of 0 or below has none. Where nothing corrects or turns the "
        "state the factors themselves are multiplied, and every one is allowed.",
        _CORRECTED.replace("gate   a in (0, 1) = sigmoid(a_raw)", "gate   a in [-1, 1] = tanh(a_raw)"),
        _CORRECTED,
    ),
    Rule(
        "singular-step",
        "A discretization that divides by what may be 0",
        "The method's formula divides by a rate, or by one plus a rate times the step, that the declared domains let vanish.",
        "Where the formula has a limit the compiler warns: exactly there the result is not a number. At a pole it refuses: the step "
        "would be without bound.",
        _CONTINUOUS.replace("A : scalar < 0", "A : scalar").replace("zoh", "bilinear"),
        _CONTINUOUS.replace("zoh", "bilinear"),
    ),
)
