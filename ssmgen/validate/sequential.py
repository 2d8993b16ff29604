"""The law that a walk must obey, row by row, and its gradients by the chain rule: exact, and without chunks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tokens:
    """Operands of a sequence: a query per token and reading; key, value, erase key and decay per row; the initial state.

    Vectors are lists of numbers, the state a list of rows. A token has `rows` rows, which read and decay the state `size`
    at a time. `decays[i]` has one number, or one a key; it is the same for the rows of one step.
    """

    queries: list[list[list]]  # [reading][t][n]
    keys: list[list]
    values: list[list]
    erases: list[list] | None
    decays: list[list]
    initial: list[list]
    inclusive: list[bool]
    rows: int = 1
    size: int = 1
    of_values: tuple[bool, ...] = ()  # readings whose query contracts the columns; none when empty

    @property
    def length(self) -> int:
        return len(self.keys) // self.rows

    def is_of_values(self, reading: int) -> bool:
        """Whether the query of `reading` contracts the columns of the state."""
        return bool(self.of_values) and self.of_values[reading]

    def decay(self, i: int) -> list:
        """What every key is multiplied by at row `i`'s step."""
        return self.decays[i] if len(self.decays[i]) > 1 else self.decays[i] * len(self.initial)


def forward(tokens: Tokens) -> tuple[list[list[list]], list[list[list]]]:
    """(reads [reading][t][p], the state before every step and, last, the final one: [step][n][p])."""
    states = [tokens.initial]
    reads: list[list[list]] = [[] for _ in tokens.queries]
    for t in range(tokens.length):
        before = states[-1]
        for first in range(t * tokens.rows, (t + 1) * tokens.rows, tokens.size):
            states.append(_stepped(tokens, first, states[-1]))
        for r, inclusive in enumerate(tokens.inclusive):
            state = states[-1] if inclusive else before
            reads[r].append(read(tokens.queries[r][t], _turned(state) if tokens.is_of_values(r) else state))
    return reads, states


def read(query: list, state: list[list]) -> list:
    """query^T state."""
    return [sum((q * row[p] for q, row in zip(query, state, strict=True)), 0) for p in range(len(state[0]))]


def _turned(state: list[list]) -> list[list]:
    return [list(column) for column in zip(*state, strict=True)]


def _missing(tokens: Tokens, i: int, old: list[list]) -> list:
    """What row `i` writes: its value less what its erase key reads."""
    if tokens.erases is None:
        return tokens.values[i]
    return [v - x for v, x in zip(tokens.values[i], read(tokens.erases[i], old), strict=True)]


def _stepped(tokens: Tokens, first: int, old: list[list]) -> list[list]:
    rows, columns = range(len(old)), range(len(old[0]))
    decay = tokens.decay(first)
    new = [[decay[n] * old[n][p] for p in columns] for n in rows]
    for i in range(first, first + tokens.size):
        written = _missing(tokens, i, old)
        new = [[new[n][p] + tokens.keys[i][n] * written[p] for p in columns] for n in rows]
    return new


@dataclass
class Gradients:
    """Gradients of every operand; `decays` holds a dL/da, the gradient of the log decay, under the first row of a step."""

    queries: list[list[list]]
    keys: list[list]
    values: list[list]
    erases: list[list] | None
    decays: list[list]
    initial: list[list]


def backward(tokens: Tokens, d_reads: list[list[list]], d_final: list[list]) -> Gradients:
    """The chain rule along the sequence, from the last row to the first."""
    rows, columns = range(len(tokens.initial)), range(len(tokens.initial[0]))
    _, states = forward(tokens)
    count, steps = len(tokens.keys), tokens.rows // tokens.size
    dq: list[list[list]] = [[[] for _ in range(tokens.length)] for _ in tokens.queries]
    dk: list[list] = [[] for _ in range(count)]
    dv: list[list] = [[] for _ in range(count)]
    de: list[list] = [[] for _ in range(count)]
    dg: list[list] = [[0] * len(tokens.decays[0]) for _ in range(count)]
    dS = [list(row) for row in d_final]

    def reads(t: int, inclusive: bool, state: list[list], dS: list[list]) -> list[list]:
        for r, is_inclusive in enumerate(tokens.inclusive):
            if is_inclusive == inclusive:
                query, d_read = tokens.queries[r][t], d_reads[r][t]
                if tokens.is_of_values(r):
                    dS = [[dS[n][p] + d_read[n] * query[p] for p in columns] for n in rows]
                    dq[r][t] = read(d_read, state)
                else:
                    dS = [[dS[n][p] + query[n] * d_read[p] for p in columns] for n in rows]
                    dq[r][t] = read(d_read, _turned(state))
        return dS

    for t in range(tokens.length - 1, -1, -1):
        dS = reads(t, True, states[(t + 1) * steps], dS)
        for m in range(steps - 1, -1, -1):
            first, old = t * tokens.rows + m * tokens.size, states[t * steps + m]
            decay = tokens.decay(first)
            products = [decay[n] * sum((dS[n][p] * old[n][p] for p in columns), 0) for n in rows]
            dg[first] = products if len(dg[first]) > 1 else [sum(products, 0)]
            d_old = [[decay[n] * dS[n][p] for p in columns] for n in rows]
            for i in range(first, first + tokens.size):
                written = _missing(tokens, i, old)
                d_written = [sum((dS[n][p] * tokens.keys[i][n] for n in rows), 0) for p in columns]
                dk[i] = [sum((dS[n][p] * written[p] for p in columns), 0) for n in rows]
                dv[i] = d_written
                if tokens.erases is not None:
                    de[i] = [sum((old[n][p] * d_written[p] for p in columns), 0) * -1 for n in rows]
                    d_old = [[d_old[n][p] - tokens.erases[i][n] * d_written[p] for p in columns] for n in rows]
            dS = d_old
        dS = reads(t, False, states[t * steps], dS)
    return Gradients(dq, dk, dv, de if tokens.erases is not None else None, dg, dS)
