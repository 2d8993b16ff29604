"""Exponential trapezoid: the transition exactly, the input as a weighted mean of both ends of the step, two taps:

    s' = e^z s + (1 - lam) dt e^z b(t - dt) + lam dt b(t)

Order 2 exactly when lam = 1/2 (the trapezoidal rule), otherwise 1; lam = 1 is `exp_euler`. The older input travels through
the transition like the state.
Source: arXiv:2603.15569.
"""

from ._method import Method, Z, exp, parameter

LAM = parameter("lam")

METHOD = Method(
    parameters=("dt", "lam"),
    transition=exp(Z),
    write=LAM,
    older=(1 - LAM) * exp(Z),
    order=1,
    held_order=1,
    source="arXiv:2603.15569",
)
