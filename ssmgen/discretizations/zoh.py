"""Zero-order hold: exact when the input is constant during the step: s' = e^z s + dt (e^z - 1)/z b.

Order 1 for a smooth input, exact for a held one. The weight is 0/0 at z = 0, with limit 1: it is emitted as
expm1(z) / a, which loses no digits near 0 but needs a bounded away from 0.
Source: Franklin, Powell and Workman, Digital Control of Dynamic Systems, section 4.3; arXiv:2206.11893.
"""

from ._method import Method, Z, exp

METHOD = Method(
    parameters=("dt",),
    transition=exp(Z),
    write=(exp(Z) - 1) / Z,
    carried=None,
    order=1,
    held_order=None,
    source="arXiv:2206.11893",
)
