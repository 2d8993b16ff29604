"""The classical Runge-Kutta method with the input held during the step: e^z to fourth order, as a polynomial.

Order 4 for a held input, 1 for a smooth input taken at the end of the step. A polynomial in `a`: defined for every
structure, dense ones included. Stable only for small |z| (about 2.8 on the negative axis).
Source: Kutta 1901; Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1.
"""

from fractions import Fraction

from ._method import Method, runge_kutta

HALF = Fraction(1, 2)
TRANSITION, WRITE = runge_kutta(
    a=((), (HALF,), (0, HALF), (0, 0, 1)),
    b=(Fraction(1, 6), Fraction(1, 3), Fraction(1, 3), Fraction(1, 6)),
)

METHOD = Method(
    parameters=("dt",),
    transition=TRANSITION,
    write=WRITE,
    older=None,
    order=1,
    held_order=4,
    source="Kutta 1901",
)
