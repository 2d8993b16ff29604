"""A time-invariant scan by its answers: what every token drives the states with, and what is read of them, as convolutions.

    S_t = A * S_{t-1} + sum_j B_j * x_j,t      y = f(r_1, r_2, ..., token)      r_i = sum over entries of C_i * S
    r_i,t = sum_j sum_l K_ij,l x_j,t-l + sum C_i * A^(t+1) * S_start,           K_ij,l = sum over entries of C_i * A^l * B_j

All is entry by entry: A, B and C are arrays over the entries of a state that no token changes, x and r have some of its axes or none,
and an output may have several rows. Products of matrices stand before it and behind: what they give is an x, and what they take a row.
Where entries of a state read each other A is a matrix instead, of a state that is one column, x and r are scalars, and the powers of A
act on B and C as columns. Of states that feed each other, each entry those at its place, A is a small matrix for every entry, and B and C
are columns of as many entries as there are such states.
"""

from __future__ import annotations

from dataclasses import dataclass

from .spec import Expr, Type


@dataclass(frozen=True)
class Drive:
    """What tokens write: `value` of a token, times `weights` of every state that it reaches."""

    value: Expr
    weights: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True)
class Probe:
    """What is read of the states, before the token (`S`) and after it (`S'`), each with its weights.

    `rows`, `cols`: the axis of the state, 0 or 1, along which the rows and columns of what is read run; None: summed over.
    """

    name: str
    type: Type
    weights: tuple[tuple[str, Expr], ...]
    rows: int | None
    cols: int | None

    @property
    def axes(self) -> frozenset[int]:
        """The axes of the state that are not summed over."""
        return frozenset(axis for axis in (self.rows, self.cols) if axis is not None)


@dataclass(frozen=True)
class Convolution:
    """Factors A of every state, drives and probes, and the rows of the output over the probes' names and the token's.

    Of a state in `mixing`, and of those in a group of `coupled`, the factor is what A makes of it, over the names `kept S`.
    """

    factors: tuple[tuple[str, Expr], ...]
    drives: tuple[Drive, ...]
    probes: tuple[Probe, ...]
    outputs: tuple[Expr, ...]
    mixing: tuple[str, ...] = ()
    coupled: tuple[tuple[str, ...], ...] = ()


def values_of(convolution: Convolution) -> list[Expr]:
    """Every expression in it."""
    weights = [w for each in (*convolution.drives, *convolution.probes) for _, w in each.weights]
    return [*(factor for _, factor in convolution.factors), *(drive.value for drive in convolution.drives), *weights, *convolution.outputs]
