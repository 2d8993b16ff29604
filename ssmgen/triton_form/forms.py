"""kernels -> the form in which a GPU runs whole sequences, with its files; or why there are no kernels.

From the most special: one walk whose kernels make gates, operands and output themselves; a walk over operands that are made before it;
walks that leave their reads to what stands around them. Entries that run by themselves are scans.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backends.torch_pointwise import UnsupportedOperand
from ..kernel import Kernels
from .fused import triton_package
from .scan import scan_package
from .walk import walk_package
from .walks import walks_package


@dataclass(frozen=True)
class Form:
    """words: what runs on a GPU. files: (name, template, its context) of each; none where torch operations run there as well.

    joins_reads: the kernels take all rows that a token reads as one.
    """

    words: str
    files: tuple[tuple[str, str, dict[str, object]], ...] = ()
    joins_reads: bool = False


def form_of(kernels: Kernels) -> Form:
    """The first form that carries the recurrence."""
    for attempt in (_scan,) if kernels.scan is not None else (_fused, _walk, _walks):
        try:
            return attempt(kernels)
        except UnsupportedOperand as fault:
            reason = fault
    return Form(f"torch operations on a GPU too: no kernel has {reason}")


def _scan(kernels: Kernels) -> Form:
    package, words = scan_package(kernels)
    return Form(words, (("kernels.py", "triton/scan.py.jinja", {"kernels": package}),))


def _fused(kernels: Kernels) -> Form:
    package = triton_package(kernels)
    words = "fused kernels of one walk, which make its gates, its operands and the output"
    return Form(words, (("kernels.py", "triton/chunk.py.jinja", {"kernels": package}),), package.is_folded)


def _walk(kernels: Kernels) -> Form:
    package = walk_package(kernels)
    members = " of states that feed each other" if kernels.walks[0].walk.members else ""
    words = f"kernels of one walk{members}, over operands that are made before it"
    return Form(words, (("kernels.py", package.TEMPLATE, {"rows": package}),))


def _walks(kernels: Kernels) -> Form:
    package = walks_package(kernels)
    files = [(f"{module}.py", part.TEMPLATE, {"rows": part}) for module, part in package.parts]
    count = "one walk" if len(files) == 1 else f"{len(files)} walks"
    words = f"kernels of {count}, and of the output that is made of what they read"
    return Form(words, (("kernels.py", "triton/walks.py.jinja", {"walks": package}), *files))
