"""Rules of layers and stacks."""

from __future__ import annotations

from ._rule import Rule

_RECURRENCE = """\
recurrence retention {
  dim    N = 64, P = 64
  input  q, k : [N]; v : [P]
  param  gamma : scalar per head = 1 - 2^(-5 - head)
  state  S : real [N, P]
  update S' = gamma * S + k v^T
  output o = S'^T q
}
"""

_BLOCK = """\
layer block(d_model) {
  heads H = d_model / P
  q, k, v = linear(u)
  o = retention(q, k, v)
  out = linear(o)
}
"""

_GROUPED = _RECURRENCE.replace("q, k : [N];", "q, k : [N] per group;")


def _rule(slug: str, title: str, what: str, why: str, wrong: str, right: str, recurrence: str = _RECURRENCE) -> Rule:
    return Rule(slug, title, what, why, recurrence + "\n" + wrong, recurrence + "\n" + right)


RULES = (
    _rule(
        "undefined-layer-value",
        "A layer reads a name before anything defines it",
        "A statement, or a convolution of the names at its left, uses a name that no earlier statement defines.",
        "Statements run in the order of writing, and a layer starts with one value: its input `u`.",
        _BLOCK.replace("  q, k, v = linear(u)\n", "  q, k, v = silu(conv(4))\n"),
        _BLOCK.replace("  q, k, v = linear(u)\n", "  q, k, v = linear(u)\n  q, k, v = silu(conv(4))\n"),
    ),
    _rule(
        "unknown-layer-operation",
        "A layer has no such operation",
        "A layer calls something that is neither a recurrence of the file nor one of its own operations.",
        "A layer is made of projections, short convolutions, norms, pointwise functions, elementwise arithmetic, `x[-1]` and the "
        "recurrences of its file. A matrix product of two values belongs in a recurrence, where its meaning is known.",
        _BLOCK.replace("linear(o)", "linear(swish(o))"),
        _BLOCK.replace("linear(o)", "linear(silu(o))"),
    ),
    _rule(
        "recurrence-input-count",
        "A recurrence is called with too few or too many values",
        "The call gives another number of values than the recurrence has inputs, or names another number of results.",
        "Inputs are handed over in the order of their declaration; a raw gate (`raw`) is an input of its own.",
        _BLOCK.replace("retention(q, k, v)", "retention(q, k)").replace("q, k, v = linear(u)", "q, k = linear(u)"),
        _BLOCK,
    ),
    _rule(
        "cannot-infer-width",
        "Nothing says how wide a value is",
        "A projection's width follows from what it is used for, and this one is used for nothing that has a width of its own.",
        "Widths come from a recurrence's inputs and outputs, from the model width, and from what is added or multiplied.",
        _BLOCK.replace("linear(o)", "linear(silu(linear(o)))"),
        _BLOCK.replace("linear(o)", "linear(silu(linear(o, width = 4 * d_model)))"),
    ),
    _rule(
        "layer-shape-mismatch",
        "Two values of different widths meet",
        "An elementwise operation, a recurrence's input or the layer's result is given a value of another width than it takes.",
        "Elementwise operations take equal widths, or a scalar per head against a column per head. Nothing is broadcast silently.",
        _BLOCK.replace("linear(o)", "linear(o) + 0 * q").replace("heads H = d_model / P", "heads H = d_model / P / 2"),
        _BLOCK.replace("linear(o)", "linear(o) + u"),
    ),
    _rule(
        "heads-not-whole",
        "A size is no whole number",
        "With the default values, a head count or another size of the layer is not a whole number of at least 1.",
        "Sizes count things. The emitted constructor checks them again for the values that it is given.",
        _BLOCK.replace("d_model)", "d_model = 500)", 1),
        _BLOCK.replace("d_model)", "d_model = 512)", 1),
    ),
    _rule(
        "groups-not-dividing",
        "The groups do not divide the heads",
        "The head count is not a multiple of the group count.",
        "Head h reads the inputs of group h // (heads / groups), so every group serves the same number of heads.",
        _BLOCK.replace("d_model)", "d_model = 512)", 1).replace("/ P\n", "/ P, groups 3\n"),
        _BLOCK.replace("d_model)", "d_model = 512)", 1).replace("/ P\n", "/ P, groups 4\n"),
        _GROUPED,
    ),
    _rule(
        "layer-without-heads",
        "A layer does not say how many heads it has",
        "The layer calls something that works per head (or per channel), and has no `heads` statement.",
        "Widths such as [H, P] need the count before anything can be projected to them.",
        _BLOCK.replace("  heads H = d_model / P\n", ""),
        _BLOCK,
    ),
    _rule(
        "layer-size",
        "Not a size",
        "A head count, width, rank or dim is not made of known names and `+ - * /`.",
        "A layer's sizes are computed from its arguments and from the dims of what it calls, each declared before it is used.",
        _BLOCK.replace("d_model / P", "d_model / M"),
        _BLOCK,
    ),
    _rule(
        "layer-option",
        "An operation is not called like this",
        "An operation is given an option it does not have, a value out of range, or another number of values than it takes.",
        "The operations: `linear(x, bias, rank = 16, width = 512)`, `conv(4, bias)` or `conv(x, 4)`, `rmsnorm(x, per head, eps = 1e-5)`, "
        "`layernorm`, `groupnorm`, the pointwise functions, and `x[-1]`.",
        _BLOCK.replace("linear(o)", "linear(o, dropout = 1/10)"),
        _BLOCK.replace("linear(o)", "linear(o, bias)"),
    ),
    _rule(
        "layer-dim-conflict",
        "Two recurrences disagree on a size",
        "A layer calls two recurrences whose dims of one name have different defaults.",
        "A dim is one argument of the layer's class, handed to everything that the layer calls.",
        _BLOCK.replace("o = retention(q, k, v)", "o = retention(q, k, v) + narrow(q, k, v)"),
        _BLOCK.replace("o = retention(q, k, v)", "o = retention(q, k, v) + narrow(q, k, v)").replace("  heads", "  dim P = 64\n  heads"),
        _RECURRENCE + "\n" + _RECURRENCE.replace("retention", "narrow").replace("P = 64", "P = 32"),
    ),
    _rule(
        "layer-model-width",
        "A layer has no model width",
        "The layer takes no argument.",
        "The first argument is the width of the input `u` and of the result.",
        _BLOCK.replace("(d_model)", "").replace("d_model / P", "8"),
        _BLOCK,
    ),
    _rule(
        "layer-output",
        "A layer has no single result",
        "The layer has no statements, or its last one defines several values.",
        "The last statement's value is the result; it has the model's width.",
        _BLOCK.replace("  out = linear(o)\n", "  a, b = linear(o)\n"),
        _BLOCK,
    ),
    _rule(
        "unused-layer-value",
        "A layer computes a value and drops it",
        "No later statement reads this name, and it is not the result. A warning.",
        "Its weights would be trained by nothing and cost memory and time.",
        _BLOCK.replace("  out", "  scaled = 2 * o\n  out"),
        _BLOCK,
    ),
    _rule(
        "input-domain",
        "A value may leave the domain of the input it is given to",
        "A recurrence declares a domain for an input, and the layer's expression can be proved neither inside it nor bounded.",
        "What is proved of the recurrence (that it does not grow, which kernel is safe) rests on the domains of its inputs.",
        "layer block(d_model) {\n  heads H = d_model / P\n  x, f = linear(u)\n  out = linear(average(x, f))\n}\n",
        "layer block(d_model) {\n  heads H = d_model / P\n  x, f = linear(u)\n  out = linear(average(x, sigmoid(f)))\n}\n",
        "recurrence average {\n  dim    P = 64\n  input  x : [P]; f : scalar in (0, 1)\n  state  h : real [P]\n"
        "  update h' = f * h + (1 - f) * x\n  output y = h'\n}\n",
    ),
    _rule(
        "unknown-layer",
        "A stack names a layer that is not there",
        "The stack repeats a layer that the file does not declare.",
        "A stack is made of the layers of its own file.",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 3 * blok }\n}\n",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 4 * block }\n}\n",
    ),
    _rule(
        "unknown-layer-argument",
        "A stack gives a layer an argument it does not take",
        "The layer declares no argument of this name.",
        "A layer's arguments stand in parentheses after its name.",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 4 * block(expand = 2) }\n}\n",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 4 * block }\n}\n",
    ),
    _rule(
        "stack-count",
        "A layer is not repeated a whole number of times",
        "The number before a layer is no whole number of at least 1, or the stack repeats nothing.",
        "`3 * block` puts three of them in a row.",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 0 * block }\n}\n",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 2 * block }\n}\n",
    ),
    _rule(
        "stack-cut-short",
        "The layers are not a whole number of repetitions",
        "The stack's `layers` is not a multiple of the pattern's length. A warning.",
        "The last repetition stops where the layers are used up, which shifts the ratio of the kinds.",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 3 * block }\n}\n",
        _BLOCK + "\nstack model(d_model = 512, layers = 6) {\n  repeat { 3 * block }\n}\n",
    ),
    _rule(
        "unknown-stack-part",
        "A stack has no such part",
        "What stands between layers is no feed-forward block or norm, or a clause has an unknown word.",
        "Between layers stand `swiglu(8/3)`, `geglu(8/3)`, `mlp(4)` and a norm, `rmsnorm pre`; the head is `tied` or `untied`.",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 4 * block }\n  between swigloo(8/3)\n}\n",
        _BLOCK + "\nstack model(d_model = 512, layers = 4) {\n  repeat { 4 * block }\n  between swiglu(8/3)\n}\n",
    ),
)
