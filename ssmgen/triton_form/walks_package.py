"""What the template of kernels.py is given where walks have files of their own."""

from __future__ import annotations

from dataclasses import dataclass

from .fused_package import Front, Output, Walked
from .rows_package import Buffer, RowsPackage, Totals


@dataclass(frozen=True)
class WalkCall:
    """One walk, as what stands around it calls it."""

    module: str  # its file
    number: int
    reads: tuple[Buffer, ...]  # the gradients of what it reads
    targets: str  # what its forward gives
    state_list: str
    moved_list: str  # what its backward is given
    given: str  # what that gives


@dataclass(frozen=True)
class WalksPackage:
    """Everything kernels.py says there, and the files of the walks."""

    front: Front
    title: str
    equations: tuple[str, ...]
    count_text: str
    modules: str
    module_tuple: str
    first_module: str
    walks: tuple[WalkCall, ...]
    parts: tuple[tuple[str, RowsPackage], ...]
    helpers: tuple[str, ...]
    has_groups: bool
    stores_reads: bool
    uses_position: bool
    numbers: str
    number_arguments: str
    key_width: str
    value_width: str
    states: str
    final_list: str
    state_gradient_list: str
    constants: str
    output_shape: str
    output_like: str
    read_names: tuple[str, ...]
    kept_names: tuple[str, ...]
    read_gradient_names: tuple[str, ...]
    readout: Walked
    readout_stores: tuple[str, ...]
    gradient: Walked
    gradient_stores: tuple[str, ...]
    gradient_outputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    totals: tuple[Totals, ...]
    results: tuple[str, ...]
    state_gradients: tuple[str, ...]
