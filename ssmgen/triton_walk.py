"""One walk -> its kernels, in the form that it takes: a state that fades, or members that feed each other."""

from __future__ import annotations

from .backends.torch_pointwise import UnsupportedOperand
from .kernel import Kernels
from .triton_members import MembersWriter
from .triton_rows import RowWriter
from .triton_rows_package import RowsPackage


def writer_of(kernels: Kernels, number: int = 0, module: str = "") -> RowWriter:
    """What writes a walk; module: its file, where there are several."""
    return (MembersWriter if kernels.walks[number].walk.members else RowWriter)(kernels, number, module)


def walk_package(kernels: Kernels) -> RowsPackage | None:
    """The context of kernels.py; None where an operand does not fit on tiles, or several walks run."""
    try:
        return writer_of(kernels).package()
    except UnsupportedOperand:
        return None
