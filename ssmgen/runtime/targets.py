"""The GPUs that a package can be compiled for without having one: what a kernel may use there.

Registers, shared memory and warp sizes of sm_*: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability":
255 registers a thread; a block may opt in to 163, 227, 227 and 99 KiB (1 KiB less than a multiprocessor lends, which the system
keeps). Tensor memory: PTX ISA, `tcgen05.alloc`, 512 columns. gfx942: AMD CDNA3 ISA Reference Guide, 512 vector registers a lane
(256 of them accumulators) and 64 KiB of local data share a workgroup; the same in ROCm's "GPU specifications".
Multiprocessors are those of one product, for a package may cut its work by their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

KIB = 1024


@dataclass(frozen=True)
class Target:
    """A GPU's limits. `registers` of 32 bits a thread, `shared` bytes a block, `tensor_memory` columns (0: there is none)."""

    name: str
    product: str
    backend: str  # Triton's: 'cuda' | 'hip'
    arch: int | str
    warp: int  # threads
    processors: int
    registers: int
    shared: int
    tensor_memory: int = 0

    @property
    def capability(self) -> tuple[int, int]:
        """(major, minor), as torch gives it."""
        return divmod(self.arch, 10) if isinstance(self.arch, int) else (9, 4)


def here(index: int = 0) -> Target:
    """The GPU of this machine, by what torch and Triton say of it. Raises RuntimeError where there is none."""
    import torch
    from triton.runtime.driver import driver

    known, ours = torch.cuda.get_device_properties(index), driver.active.get_current_target()
    name = ours.arch.split(":")[0] if isinstance(ours.arch, str) else f"sm_{ours.arch}"
    shared = getattr(known, "shared_memory_per_block_optin", None) or 64 * KIB
    registers = 512 if ours.backend == "hip" else 255
    return Target(name, known.name, ours.backend, ours.arch, ours.warp_size, known.multi_processor_count, registers, shared)


TARGETS = MappingProxyType(
    {
        target.name: target
        for target in (
            Target("sm_80", "A100", "cuda", 80, 32, 108, 255, 163 * KIB),
            Target("sm_90", "H100", "cuda", 90, 32, 132, 255, 227 * KIB),
            Target("sm_100", "B200", "cuda", 100, 32, 148, 255, 227 * KIB, 512),
            Target("sm_120", "GeForce RTX 5090", "cuda", 120, 32, 170, 255, 99 * KIB),
            Target("gfx942", "MI300X", "hip", "gfx942", 64, 304, 512, 64 * KIB),
        )
    }
)
