"""Rules of names: what is declared, what is used, what must be there."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line, without_line

_UPDATE = "  update S' = a * S + k v^T\n"
_CONTINUOUS = with_line(_UPDATE, "  dynamics dS/dt = -a * S + k v^T\n  discretize exp_euler(dt)\n").replace(
    "a_raw : scalar", "a_raw : scalar; dt : scalar > 0"
)
_LEARNED = with_line(
    "  gate   a in (0, 1) = sigmoid(a_raw)\n", "  param  b : scalar per head init 1\n  gate   a in (0, 1) = sigmoid(a_raw + b)\n"
)
_ATTENTION = """\
attention local {
  dim    D = 64
  input  q, k : [D]; v : [D]
  score  D^-1/2 * q . k
  mask   causal
  output softmax
}
"""
_DECLARED = """\
recurrence declared {
  dim        N = 64, P = 64
  transition diagonal
  readout    normalised
}
"""
_RESET = with_line("  output o", "  reset  at document: a = 0\n  output o")

RULES = (
    Rule(
        "unknown-name",
        "A name that nothing declares",
        "An expression uses a name that is no input, param, let, gate, state, dim or function.",
        "Every value has a place it comes from: outside (`input`), learning (`param`), a definition (`let`, `gate`) or the past "
        "(`state`). A misspelt name would otherwise become a silent new input.",
        with_line("k v^T", "key v^T"),
        MEMORY,
    ),
    Rule(
        "unknown-function",
        "A function that the language does not have",
        "A call names a function outside the closed set.",
        "The compiler knows the derivative, the interval and the kernel text of every function. For one it does not know it could "
        "prove nothing and emit nothing.",
        with_line("sigmoid(a_raw)", "logistic(a_raw)"),
        MEMORY,
    ),
    Rule(
        "wrong-arity",
        "A function or method with too many or too few arguments",
        "A call does not have as many arguments as the function, or the discretization, takes.",
        "`max(x)` and `clamp(x, 1)` have no one meaning.",
        with_line("sigmoid(a_raw)", "clamp(a_raw, 0.1)"),
        with_line("sigmoid(a_raw)", "clamp(a_raw, 0.1, 0.9)"),
    ),
    Rule(
        "duplicate-name",
        "A name declared twice",
        "Two declarations share a name, a declaration takes the name of a function, or a state is assigned twice and the second "
        "assignment forgets the first.",
        "A name has one meaning in a recurrence: a reader, and the emitted signature, could not tell two apart.",
        with_line("v : [P]", "v, k : [P]"),
        MEMORY,
    ),
    Rule(
        "reserved-name",
        "A recurrence with a name that its package needs",
        "A recurrence has the name of a file of every package, of a Python keyword, function or type, or of something that the "
        "emitted text defines or imports.",
        "The emitted function has the name of the recurrence, and so has the package. `op` would hide the file `op.py`, and `zip` what "
        "the text calls.",
        MEMORY.replace("recurrence memory", "recurrence op"),
        MEMORY,
    ),
    Rule(
        "undefined-order",
        "A definition uses what stands below it",
        "A let, gate or fixed param uses a definition that comes later, or itself.",
        "Definitions are evaluated in the order of writing. What carries from one token to the next is a `state`.",
        with_line("  gate   a", "  let    k2 = a * k\n  gate   a").replace("k v^T", "k2 v^T"),
        with_line("  state  S", "  let    k2 = a * k\n  state  S").replace("k v^T", "k2 v^T"),
    ),
    Rule(
        "unused-declaration",
        "A declaration that nothing uses",
        "An input, param, let, gate, state or dim is declared and never read. A warning.",
        "An unused input is still an argument of the emitted function, and most often a formula that was meant to use it does not.",
        with_line("v : [P];", "v, z : [P];"),
        MEMORY,
    ),
    Rule(
        "missing-state",
        "A recurrence without a state",
        "Nothing is carried from one token to the next.",
        "Without a state the expression is a map of each token by itself: no recurrence, and no need of a scan.",
        without_line("update", without_line("state", with_line("S'^T q", "a * q"))).replace("k : [N]; v : [P]", "k : [N]; v : [P]"),
        MEMORY,
    ),
    Rule(
        "missing-update",
        "A state without an equation",
        "A state is declared, and neither an update nor dynamics says what it becomes.",
        "Each state changes by one equation at each token; a state that never changes is a `param`.",
        without_line("update"),
        MEMORY,
    ),
    Rule(
        "missing-output",
        "A recurrence that gives nothing",
        "No `output` reads the state.",
        "What is emitted is a function from inputs to outputs; without one there is nothing to compute.",
        without_line("output"),
        MEMORY,
    ),
    Rule(
        "missing-score",
        "An attention without a score",
        "An `attention` does not say how a query scores a key.",
        "The score is what an attention is; mask and output only say over what it is normalised.",
        without_line("score", _ATTENTION),
        _ATTENTION,
    ),
    Rule(
        "update-and-dynamics",
        "An update and dynamics at once",
        "A recurrence says what a token does to its states both in discrete and in continuous time.",
        "`dynamics` with `discretize` is turned into an update; a second one beside it would contradict it.",
        _CONTINUOUS.replace("  output", _UPDATE + "  output"),
        _CONTINUOUS,
    ),
    Rule(
        "missing-discretize",
        "Dynamics without a step",
        "`dynamics` is written without `discretize`.",
        "A differential equation becomes a recurrence only with a step size and a method, and methods differ in what they give.",
        without_line("discretize", _CONTINUOUS).replace("; dt : scalar > 0", ""),
        _CONTINUOUS,
    ),
    Rule(
        "missing-dynamics",
        "A step without dynamics",
        "`discretize` is written without `dynamics`.",
        "An update is discrete already: there is nothing to discretize.",
        with_line("  output", "  discretize exp_euler(a)\n  output"),
        _CONTINUOUS,
    ),
    Rule(
        "unknown-discretization",
        "A discretization that does not exist",
        "`discretize` names no method.",
        "A method is a formula with a proved order of accuracy; each is one file of the compiler, and its name is the file's.",
        _CONTINUOUS.replace("exp_euler(dt)", "exponential_euler(dt)"),
        _CONTINUOUS,
    ),
    Rule(
        "unknown-option",
        "A word or option that the compiler does not know",
        "An `@` option, or a word of `transition`, `field`, `write`, `readout`, `mask` and the like, has no meaning.",
        "An option that is read by nothing would look as if it had an effect.",
        with_line("  output", "  @chunks 64\n  output"),
        with_line("  output", "  @chunk 64\n  output"),
    ),
    Rule(
        "unsupported-combination",
        "Declared words that have no equation together",
        "The declaration notation combines structures for which no equation can be written out.",
        "A normaliser of one column divides all values alike, which is right only where all values forget alike.",
        _DECLARED.replace("diagonal", "elementwise"),
        _DECLARED,
    ),
    Rule(
        "init-outside-param",
        "An initial value outside a param",
        "`uniform`, `normal`, `linspace` and their like stand outside `init`.",
        "They draw or lay out the first values of a learned param. A value drawn anew at each token would make the recurrence "
        "no function of its inputs.",
        with_line("sigmoid(a_raw)", "sigmoid(a_raw + uniform(0, 1))"),
        _LEARNED.replace("init 1", "init uniform(0, 1)"),
    ),
    Rule(
        "static-expression-required",
        "A per-token value where one value for all tokens is needed",
        "A fixed param, an initial value, a domain, a default or a mask depends on what changes with the token, or is no number.",
        "These are settled before the first token: they are computed once for a module, or built into the kernel.",
        _LEARNED.replace("b : scalar per head init 1", "b : scalar per head = 2 * a_raw"),
        _LEARNED.replace("b : scalar per head init 1", "b : scalar per head = 2 - head / heads"),
    ),
    Rule(
        "not-resettable",
        "A reset of something that has no value of its own",
        "`reset at document` sets a state, an output or a definition that reads the state.",
        "A state starts from zero at every document by itself. A reset is for a decay or a factor that must take another value there.",
        _RESET.replace("a = 0", "S = 0"),
        _RESET,
    ),
)
