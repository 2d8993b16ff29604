"""Implicit Euler: s' = s + dt (a s' + b).

Order 1, stable for every a <= 0. For a rank-one transition `-k k^T` the inverse is rank one as well, and the step becomes
the gate dt / (1 + dt k.k): the online least-squares update of arXiv:2407.14207.
"""

from ._method import Method, Z

METHOD = Method(
    parameters=("dt",),
    transition=1 / (1 - Z),
    write=1 / (1 - Z),
    older=None,
    order=1,
    held_order=1,
    source="Hairer and Wanner, Solving Ordinary Differential Equations II, IV.3",
)
