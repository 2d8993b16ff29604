"""Recorded launches compiled for their targets, each in a process of its own: for what the machine code uses, or ahead of a run.

A process each, because a compiler that fails may end its process, and what the assembler says comes on standard output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .launches import Launch

MATRIX = {"wgmma": r"\bwgmma\.mma_async", "tcgen05": r"\btcgen05\.mma", "mma.sync": r"\bmma\.sync", "mfma": r"\bv_s?mfma"}
"""Matrix instructions by name: how they look in PTX and in AMD's assembly."""


@dataclass(frozen=True)
class Usage:
    """What one compiled kernel takes of the device.

    registers: of 32 bits, a thread. spill: bytes a thread that move to memory for want of registers. shared: bytes a block.
    tensor_memory: columns. matrix: names of its matrix instructions; 'fma' for products without one, empty where there is no
    product. misread: a machine instruction that takes the address of the stack for a number, if there is one.
    """

    registers: int
    spill: int
    shared: int
    tensor_memory: int
    matrix: tuple[str, ...]
    misread: str = ""


@dataclass(frozen=True)
class Failure:
    """The compiler gave up: the last line it said, and everything."""

    line: str
    log: str


def compile_all(launches: list[Launch], workers: int) -> Iterator[tuple[Launch, Usage | Failure]]:
    """Every launch with its outcome, in the order in which compilations end. Leaves no files, but in $TRITON_CACHE_DIR if set."""
    yield from _in_processes(_measured, launches, workers)


def compile_ahead(launches: list[Launch], workers: int) -> Iterator[tuple[Launch, Failure | None]]:
    """The same into Triton's cache, where a launch of this or another process finds it; None where it compiled."""
    yield from _in_processes(_kept, launches, workers)


def _in_processes(work, launches: list[Launch], workers: int) -> Iterator[tuple[Launch, Any]]:
    from multiprocessing import connection, get_context

    context = get_context("fork")  # the kernels are imported already, under a name that no fresh process would know
    with tempfile.TemporaryDirectory(prefix="ssmgen-targets-") as folder:
        waiting, running = list(enumerate(launches))[::-1], {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    number, launch = waiting.pop()
                    log = Path(folder) / f"{number}.log"
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_child, args=(work, launch, log, sender))
                    process.start()
                    sender.close()
                    running[receiver] = (launch, process, log)
                for receiver in connection.wait(list(running)):
                    launch, process, log = running.pop(receiver)
                    try:
                        outcome = receiver.recv()
                    except EOFError:  # the process ended without a word
                        process.join()
                        outcome = _failure(log, f"the compiler ended with code {process.exitcode}")
                    process.join()
                    yield launch, outcome
        finally:
            for _, process, _ in running.values():
                process.kill()
                process.join()


def _failure(log: Path, line: str) -> Failure:
    return Failure(line, log.read_text(encoding="utf-8", errors="replace"))


def _child(work, launch: Launch, log: Path, sender) -> None:
    """In the child: compile, and send what `work` makes of it."""
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = open(1, "w", encoding="utf-8", closefd=False)
    tempfile.tempdir = str(log.parent)
    try:
        outcome = work(launch, log)
    except Exception as error:
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.stdout.flush()
        outcome = _failure(log, f"{type(error).__name__}: {words[-1]}" if words else type(error).__name__)
    sender.send(outcome)
    sender.close()


def _measured(launch: Launch, log: Path) -> Usage:
    """The numbers of the machine code, and of the assembler's log."""
    from triton import knobs

    os.environ.setdefault("TRITON_CACHE_DIR", str(log.parent / "cache"))
    knobs.nvidia.dump_ptxas_log = True
    knobs.compilation.always_compile = True  # from a cache there is no log
    compiled = _machine_code(launch)
    sys.stdout.flush()
    found = usage(compiled.asm, compiled.metadata, log.read_text(encoding="utf-8", errors="replace"))
    return replace(found, misread=misread(_disassembled(compiled.asm["cubin"], log.parent))) if "cubin" in compiled.asm else found


def _kept(launch: Launch, log: Path) -> None:
    """The cache is all that is wanted."""
    _machine_code(launch)


def _machine_code(launch: Launch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)
    target = GPUTarget(launch.target.backend, launch.target.arch, launch.target.warp)
    return triton.compile(source, target=target, options=launch.options)


def usage(code: Any, metadata: Any, log: str) -> Usage:
    """The numbers of a compiled kernel: from the assembler's log on NVIDIA, from the notes in the assembly text on AMD."""
    text = code["ptx"] if "ptx" in code else code["amdgcn"]
    if "ptx" in code:
        registers, spill = _only(r"Used (\d+) registers", log), _only(r"(\d+) bytes spill stores", log)
    else:
        registers, spill = _only(r"\.vgpr_count:\s+(\d+)", text), 4 * _only(r"\.vgpr_spill_count:\s+(\d+)", text)
    matrix = tuple(name for name, pattern in MATRIX.items() if re.search(pattern, text))
    if not matrix and re.search(r"= tt\.dot ", code["ttgir"]):
        matrix = ("fma",)
    return Usage(registers, spill, metadata.shared, getattr(metadata, "tmem_size", None) or 0, matrix)


def _disassembled(cubin: bytes, folder: Path) -> str:
    """The machine code in words, of the tool that comes with Triton."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(dir=folder, suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.nvdisasm.path, "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*\s+([^;]*\S))\s*;")


def misread(code: str) -> str:
    """The first instruction that reads the stack's pointer, R1, and neither moves it nor addresses memory by it; empty without one.

    Of what is on the stack Triton's kernels take no address but of an array there, as a sine of large angles has, and then the stack is
    read or written by it next. The assembler of CUDA 12.8 took one where registers ran out beside products: it handed the pointer to them
    as the descriptor of a tile, and they read memory that was not theirs.
    """
    instructions = _INSTRUCTION.findall(code)
    for number, (text, listed) in enumerate(instructions):
        operands = [operand.strip() for operand in re.split(r",(?![^\[]*\])", listed)]
        read = operands if operands[0].startswith("[") else operands[1:]
        if operands[0] == "R1" or not any(re.search(r"\bR1\b", operand) and "[" not in operand for operand in read):
            continue
        later = (other for other, _ in instructions[number + 1 :] if re.search(rf"\b{re.escape(operands[0])}\b", other))
        if not re.search(rf"^(LDL|STL)\b.*\[{re.escape(operands[0])}\b", next(later, "")):
            return " ".join(text.split())
    return ""


def _only(pattern: str, text: str) -> int:
    """The number that a pattern finds. Raises ValueError when the compiler no longer says it: a missing number is not zero."""
    found = re.findall(pattern, text)
    if not found:
        raise ValueError(f"the compiler's output has no /{pattern}/")
    return max(map(int, found))
