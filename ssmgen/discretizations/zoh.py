"""Zero-order hold: exact when the input is constant during the step: s' = e^z s + dt (e^z - 1)/z b.

Order 1 for a smooth input, exact for a held one. The weight phi1(z) = (e^z - 1)/z is 0/0 at z = 0, with limit 1: near 0 it is
emitted as its series, values and gradients alike.
Source: Franklin, Powell and Workman, Digital Control of Dynamic Systems, section 4.3; arXiv:2206.11893.
"""

from ._method import Method, Z, exp, phi

METHOD = Method(
    parameters=("dt",),
    transition=exp(Z),
    write=phi(1),
    older=None,
    order=1,
    held_order=None,
    source="arXiv:2206.11893",
)
