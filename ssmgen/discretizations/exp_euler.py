"""Exponential Euler: the transition exactly, the input at the end of the step: s' = e^z s + dt b.

Order 1. This is what selective state-space models call zero-order hold (arXiv:2312.00752, section 2; arXiv:2405.21060).
"""

from ._method import Method, Z, exp, lift

METHOD = Method(
    parameters=("dt",),
    transition=exp(Z),
    write=lift(1),
    older=None,
    order=1,
    held_order=1,
    source="arXiv:2312.00752",
)
