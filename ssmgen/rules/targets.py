"""Rules of compiling for a GPU: the kernels of a package compile for it, fit its limits, keep their values in registers."""

from __future__ import annotations

from ._rule import Rule
from ._specimen import MEMORY, with_line

_WIDE = with_line("N = 64, P = 64", "N = 4096, P = 64")

RULES = (
    Rule(
        "target-compilation",
        "A kernel that does not compile for a target",
        "`ssmgen build --targets` compiled a kernel of the package for a GPU, and Triton or the assembler behind it gave up.",
        "The first call on that GPU would fail in the same way.",
        _WIDE,
        MEMORY,
    ),
    Rule(
        "target-limit",
        "A kernel that needs more than a target has",
        "A configuration of a kernel uses more registers, shared memory or tensor memory than the GPU lends one block.",
        "It compiles, and its launch fails. Tiles hold a whole row of the state's first axis, so they grow with the sizes of the spec.",
        _WIDE,
        MEMORY,
    ),
    Rule(
        "target-misread",
        "A kernel that is assembled wrong",
        "The machine code of a kernel reads the stack's pointer as a number, which no kernel of Triton asks for: the assembler mixed up "
        "registers.",
        "Such code was seen to read memory that is not its own. Another size, fewer registers a thread or another version of the assembler "
        "gives other code.",
        _WIDE,
        MEMORY,
    ),
    Rule(
        "target-spill",
        "A kernel that spills registers",
        "A thread holds more values than it has registers, and the assembler moves some to memory and back.",
        "Results stay right. Every spilled byte is written and read again, often once a chunk, so the kernel is slower than its tiles "
        "promise.",
        _WIDE,
        MEMORY,
    ),
)
