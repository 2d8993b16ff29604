"""Explicit Euler: s' = s + dt (a s + b).

Order 1. Needs nothing of `a`: defined for every structure. Stable only while |1 + dt a| <= 1.
Source: Euler, Institutionum calculi integralis, 1768.
"""

from ._method import Method, Z, lift

METHOD = Method(
    parameters=("dt",),
    transition=1 + Z,
    write=lift(1),
    older=None,
    order=1,
    held_order=1,
    source="Euler 1768",
)
