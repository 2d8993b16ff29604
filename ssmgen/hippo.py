"""HiPPO-LegS in the basis of its modes, without an eigenvalue solver.

    A = S - I/2 - p p^T,   p_n^2 = r_n = n + 1/2,   S_nk = -p_n p_k below the diagonal, p_n p_k above it

is normal but for its low rank, and with the sums c_n of p_k x_k over k < n its eigenvectors S x = i w x obey a recursion of one step,
c_{n+1} - T/2 = (i w - r_n) / (i w + r_n) (c_n - T/2), T = p^T x. So, of the size 2 M, the M frequencies w > 0 solve

    sum_n atan(w / r_n) = (k + 1/2) pi,   k = 0 .. M - 1,

whose left side grows and bends down: Newton's steps from 0 never pass the root. Of an eigenvector of length 1, its phase such that
T > 0, 1 / T^2 is the slope there, and x_n = T p_n / (r_n + i w) times the product over m < n of (i w - r_m) / (i w + r_m).

Gu et al. 2020, arXiv:2008.07669, and 2021, arXiv:2111.00396 (the low rank); Smith et al. 2023, arXiv:2208.04933 (blocks).
"""

from __future__ import annotations

import math
from functools import cache

STEPS = 24
"""Newton's steps: 17 settle 512 modes."""


def in_blocks(count: int, blocks: int = 1) -> tuple[tuple[float, float], ...]:
    """(w, T) of so many modes, in blocks one behind the other: as many as divide their number and the one that is wanted."""
    blocks = math.gcd(count, blocks)
    return modes(count // blocks) * blocks


@cache
def modes(count: int) -> tuple[tuple[float, float], ...]:
    """(w, T) of every mode with w > 0, slowest first, of LegS of size 2 * `count`."""
    rates = [n + 0.5 for n in range(2 * count)]
    found = []
    for rate in rates[:count]:
        w = 0.0
        for _ in range(STEPS):
            w += (math.pi * rate - sum(math.atan(w / r) for r in rates)) / _slope(w, rates)
        found.append((w, _slope(w, rates) ** -0.5))
    return tuple(found)


def _slope(w: float, rates: list[float]) -> float:
    return sum(r / (r * r + w * w) for r in rates)
