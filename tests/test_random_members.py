"""Random recurrences whose states feed each other: their kernels in float32, interpreted, against float64.

Any order of two to four states, any signs, numbers of tokens, groups, heads and none; written to anywhere, corrected by one or none,
read before and after. Chunks are of 32 tokens: every sequence has two.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from built import write
from test_kernels import fused, interpreted, interpreting

pytest.importorskip("torch")

from ssmgen.runtime.verify_kernels import Trial, compare  # noqa: E402

KEPT = ("a", "b", "c", "d", "0.9", "exp(-softplus(w))", "a * d", "(1 - a)", "1")
TAKEN = ("+ a", "- b", "+ (1 - a)", "+ x", "+ tanh(w)", "+ 1", "- 1/2", "- z * c")
SHARES = ("a", "b * c", "c", "1/2", "d", "x")
SEEDS = (0, 5, 7)


def spec_of(seed: int) -> str:
    """A recurrence of which every state reaches what is read."""
    drawn = random.Random(seed)
    names = ["A", "B", "C", "D"][: drawn.choice((2, 2, 3, 4))]
    order = drawn.sample(names, len(names))  # each takes over of those behind it
    read = drawn.choice((None, *names, *names))
    error = "v^T" if read is None else f"(v - {read}^T kn)^T"
    equations = []
    for i, name in enumerate(order):
        behind = order[i + 1 :]
        own = drawn.choice(KEPT)
        text = name if own == "1" else f"{own} * {name}"
        for other in [n for n in behind if n == behind[0] or drawn.random() < 0.5]:
            text += f" {drawn.choice(TAKEN)} * {other}{drawn.choice(('', chr(39)))}"
        if not behind or drawn.random() < 0.3:
            text += f" + {drawn.choice(SHARES)} * kn {error}"
        equations.append(f"{name}' = {text}")
    other = f" + tanh({drawn.choice(names)}^T p)" if drawn.random() < 0.5 else ""
    output = f"{drawn.choice(('', 'x * '))}({order[0]}{drawn.choice(('', chr(39)))}^T q){other}"
    lines = [
        f"recurrence drawn_{seed} {{",
        f"  dim    N = {drawn.choice((4, 16))}, P = {drawn.choice((4, 16))}",
        f"  input  q, p, k : [N]{drawn.choice(('', ' per group'))}; v : [P]; x, y, z : scalar; "
        f"u : scalar per {drawn.choice(('group', 'layer'))}",
        "  param  w : scalar per head init uniform(-1, 1)",
        "  gate   a in (0, 1) = sigmoid(x); b in (0, 1) = sigmoid(y + w); c in (0, 1) = sigmoid(u); d in (0, 1) = exp(-softplus(z))",
        "  let    kn : [N] = unit(k)",
        f"  state  {', '.join(names)} : real [N, P]",
        "  update " + "\n         ".join(reversed(equations)),
        f"  output o = {output}",
        *(["  time   reversed"] if drawn.random() < 0.3 else []),
        "}",
    ]
    return "\n".join(lines)


def interpret(name: str, folder: Path) -> None:
    """Called where triton interprets; odd seeds are packed documents."""
    for seed in SEEDS:
        written, spec = write(spec_of(seed), folder / str(seed))
        subject, kernels = fused(written, spec)
        assert kernels.MEMBERS.value == len(spec.states)
        measured = compare(subject, kernels, Trial(1, 37, 2, dict(spec.dims), (0, 2, 2, 37) if seed % 2 else ()), "float32")
        # y, final states, and the gradients of arguments and of initial states
        assert len(measured) >= 1 + 2 * len(spec.states) + 4
        wrong = [f"{one.name} is off by {one.error:.1e}" for one in measured if not one.error < 2e-5]
        if wrong:
            print(spec_of(seed), *wrong, sep="\n")
            return
    print("held")


@interpreted
@pytest.mark.slow
def test_random_members_hold(tmp_path):
    assert interpreting("members", tmp_path, module="test_random_members") == "held"
