"""The law that a walk must obey, token by token, and its gradients by the chain rule: exact, and without chunks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tokens:
    """Operands of a sequence: per token and reading a query; key, value and decay per token; the initial state.

    Vectors are lists of numbers, the state a list of rows.
    """

    queries: list[list[list]]  # [reading][t][n]
    keys: list[list]
    values: list[list]
    decays: list
    initial: list[list]
    inclusive: list[bool] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.keys)


def forward(tokens: Tokens) -> tuple[list[list[list]], list[list[list]]]:
    """(reads [reading][t][p], states [t][n][p] with the initial one first)."""
    rows, columns = range(len(tokens.initial)), range(len(tokens.initial[0]))
    states = [tokens.initial]
    reads: list[list[list]] = [[] for _ in tokens.queries]
    for t in range(tokens.length):
        old = states[-1]
        new = [[tokens.decays[t] * old[n][p] + tokens.keys[t][n] * tokens.values[t][p] for p in columns] for n in rows]
        states.append(new)
        for r, inclusive in enumerate(tokens.inclusive):
            state = new if inclusive else old
            reads[r].append([sum((tokens.queries[r][t][n] * state[n][p] for n in rows), 0) for p in columns])
    return reads, states


@dataclass
class Gradients:
    """Gradients of every operand; `decays` holds a_t dL/da_t, the gradient of the log decay."""

    queries: list[list[list]]
    keys: list[list]
    values: list[list]
    decays: list
    initial: list[list]


def backward(tokens: Tokens, d_reads: list[list[list]], d_final: list[list]) -> Gradients:
    """The chain rule along the sequence, from the last token to the first."""
    rows, columns = range(len(tokens.initial)), range(len(tokens.initial[0]))
    _, states = forward(tokens)
    length, readings = tokens.length, range(len(tokens.queries))
    dq: list[list[list]] = [[[] for _ in range(length)] for _ in readings]
    dk: list[list] = [[] for _ in range(length)]
    dv: list[list] = [[] for _ in range(length)]
    dg: list = [0] * length
    dS = [list(row) for row in d_final]
    for t in range(length - 1, -1, -1):
        old, new = states[t], states[t + 1]
        for r in readings:
            if tokens.inclusive[r]:
                dS = [[dS[n][p] + tokens.queries[r][t][n] * d_reads[r][t][p] for p in columns] for n in rows]
            read = new if tokens.inclusive[r] else old
            dq[r][t] = [sum((read[n][p] * d_reads[r][t][p] for p in columns), 0) for n in rows]
        dk[t] = [sum((dS[n][p] * tokens.values[t][p] for p in columns), 0) for n in rows]
        dv[t] = [sum((dS[n][p] * tokens.keys[t][n] for n in rows), 0) for p in columns]
        dg[t] = tokens.decays[t] * sum((dS[n][p] * old[n][p] for n in rows for p in columns), 0)
        dS = [[tokens.decays[t] * dS[n][p] for p in columns] for n in rows]
        for r in readings:
            if not tokens.inclusive[r]:
                dS = [[dS[n][p] + tokens.queries[r][t][n] * d_reads[r][t][p] for p in columns] for n in rows]
    return Gradients(dq, dk, dv, dg, dS)
