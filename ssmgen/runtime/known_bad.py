"""Compiler versions known, or reported, to give wrong results. Data: the scheduler and `doctor` read it.

Every row is a public report, not a measurement of ours; `source` says whose.
"""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class KnownBad:
    """A combination with its symptom. An open end of a range is None; `archs` are prefixes of a target's name."""

    archs: tuple[str, ...]
    pattern: str
    symptom: str
    source: str
    rule: str
    triton: tuple[Version, Version | None] | None = None  # from (inclusive), below
    ptxas: tuple[Version, Version | None] | None = None

    def applies(self, arch: str, triton: Version | None, ptxas: Version | None) -> bool:
        """Whether this machine is in the row. A version that could not be found is not in any range."""
        return (
            any(arch.startswith(prefix) for prefix in self.archs)
            and _within(triton, self.triton)
            and _within(ptxas, self.ptxas)
        )  # fmt: skip


def _within(version: Version | None, span: tuple[Version, Version | None] | None) -> bool:
    if span is None:
        return True
    low, below = span
    return version is not None and version >= low and (below is None or version < below)


KNOWN_BAD = (
    KnownBad(
        archs=("sm_90",),
        triton=((3, 4, 0), (3, 7, 1)),
        pattern="dot(trans(x), y) where x is the result of an earlier dot",
        symptom="forward right, gradients wrong",
        source="flash-linear-attention issue 640, PR 826",
        rule="no accumulator is transposed into a dot: the transposed product is computed from the loaded operands",
    ),
    KnownBad(
        archs=("sm_90",),
        triton=((3, 4, 0), None),
        pattern="backward of the triangular inverse of a rank-one correction, 64 rows, 4 warps",
        symptom="wrong gradients of the key and of the write strength, or an illegal access",
        source="flash-linear-attention issue 984, PR 988",
        rule="2 warps there",
    ),
    KnownBad(
        archs=("sm_90",),
        ptxas=((12, 8), (13, 1, 80)),
        pattern="one PTX, several assemblers",
        symptom="ptxas 12.8.93 gives wrong results, 13.0.88 a bad shared-memory write; 13.1.80 is good",
        source="flash-linear-attention PR 1262",
        rule="the assembler's version is part of every tuning key",
    ),
    KnownBad(
        archs=("sm_100", "sm_103", "sm_120"),
        triton=((3, 7, 0), (3, 7, 1)),
        pattern="gated rank-one correction, recurrent and chunked",
        symptom="a read out of bounds; silent NaN in backward",
        source="flash-linear-attention issue 913",
        rule="verify both directions on the machine",
    ),
    KnownBad(
        archs=("sm_100", "sm_103", "sm_120"),
        pattern="complex state with two taps, forward",
        symptom="silent corruption",
        source="state-spaces PR 997",
        rule="verify both directions on the machine",
    ),
)


def matching(arch: str, triton: Version | None, ptxas: Version | None) -> tuple[KnownBad, ...]:
    """The rows that this machine is in, in the table's order."""
    return tuple(row for row in KNOWN_BAD if row.applies(arch, triton, ptxas))


def version(text: str) -> Version | None:
    """`3.7.1+git` as (3, 7, 1); None when the text begins with no number."""
    numbers = []
    for part in text.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers) or None
