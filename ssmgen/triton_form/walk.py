"""One walk -> its kernels, in the form that it takes: a state that fades, or members that feed each other."""

from __future__ import annotations

from ..kernel import Kernels
from .launch import one_column
from .members import MembersWriter
from .rows import RowWriter
from .rows_package import RowsPackage


def writer_of(kernels: Kernels, number: int = 0, module: str = "") -> RowWriter:
    """What writes a walk; module: its file, where there are several."""
    return (MembersWriter if kernels.walks[number].walk.members else RowWriter)(kernels, number, module)


def walk_package(kernels: Kernels) -> RowsPackage:
    """The context of kernels.py. Raises UnsupportedOperand for several walks, rows of an output, and what does not fit on tiles."""
    one_column(kernels)
    return writer_of(kernels).package()
