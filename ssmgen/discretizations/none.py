"""The equation as it is: the right side of `dS/dt` is the next state. No step size, no approximation."""

from ._method import Method, Z, lift

METHOD = Method(
    parameters=(),
    transition=Z,
    write=lift(1),
    older=None,
    order=None,
    held_order=None,
    source="",
)
