"""Bilinear (Tustin): s' = s + dt a (s + s')/2 + dt b, solved for s'.

Order 2 in the transition and for a held input, 1 for a smooth input taken at the end of the step. A-stable: the left
half-plane goes to the unit disc. Poles at z = 2 only.
Source: Tustin 1947; arXiv:2111.00396, section 2.3.
"""

from ._method import Method, Z

METHOD = Method(
    parameters=("dt",),
    transition=(1 + Z / 2) / (1 - Z / 2),
    write=1 / (1 - Z / 2),
    older=None,
    order=1,
    held_order=2,
    source="arXiv:2111.00396",
)
