"""The trapezoidal rule, with the input at both ends of the step: s' = s + dt (a s + b(t - dt))/2 + dt (a s' + b(t))/2.

Order 2 for smooth and for held inputs. A-stable: the left half-plane goes to the unit disc. Poles at z = 2 only. As a linear
multistep method it is that of Adams and Moulton with one step; `bilinear` takes the input at the end of the step alone.
Source: Dahlquist 1963; Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, III.1.
"""

from fractions import Fraction

from ._method import Method, linear_multistep

HALF = Fraction(1, 2)
TRANSITION, WRITE, OLDER = linear_multistep(alpha=(1, -1), beta=(HALF, HALF))

METHOD = Method(
    parameters=("dt",),
    transition=TRANSITION,
    write=WRITE,
    older=OLDER,
    order=2,
    held_order=2,
    source="Dahlquist 1963",
)
