"""kernels -> what kernels.py of the emitted package says: the walk forwards and backwards in time as Triton kernels."""

from __future__ import annotations

from dataclasses import dataclass

from .kernel import WalkKernels


@dataclass(frozen=True)
class Direction:
    """One of the two kernels: which chunks it visits, and its exponents as text."""

    name: str
    title: str
    chunk_index: str
    first_segment: int
    segments_before: str
    segment_index: str
    last_segment: str
    pair_math: str
    sees: str
    exponent: str
    entry: str
    exit: str
    exit_scale: str
    exit_reads: bool
    scales_entry: bool
    output_math: str
    carry_math: str


@dataclass(frozen=True)
class TritonPackage:
    """Everything kernels.py says."""

    title: str
    equations: tuple[str, ...]
    weights: tuple[str, ...]
    forward_entry: str
    reverse_entry: str
    has_decay: bool
    is_exclusive: bool
    read_exponent: str
    gate_argument: str
    gate_typed: str
    query_rows: str
    query_rows_name: str
    key_rows: str
    key_rows_name: str
    walks: tuple[Direction, ...]


def triton_package(kernels: WalkKernels, title: str, equations: tuple[str, ...]) -> TritonPackage:
    """The context of kernels.py for one walk."""
    has_decay = kernels.walk.log_decay is not None
    is_exclusive = not kernels.walk.readings[0].is_inclusive
    at = "<" if is_exclusive else "<="
    back = ">" if is_exclusive else ">="
    forward = Direction(
        name="walk",
        title=kernels.forward.title + ", from the first token.",
        chunk_index="i_t",
        first_segment=0,
        segments_before="i_s",
        segment_index="i_n",
        last_segment="segments - 1",
        pair_math=f"A_ij = exp(Q_i - G_j) x_i . y_j, j {at} i" if has_decay else f"A_ij = x_i . y_j, j {at} i",
        sees=back,
        exponent="b_Q[:, None] - b_G[None, :]",
        entry="b_Q",
        exit="b_total - b_G",
        exit_scale="",
        exit_reads=False,
        scales_entry=True,
        output_math="o_i = sum_j A_ij z_j + exp(Q_i) S^T x_i" if has_decay else "o_i = sum_j A_ij z_j + S^T x_i",
        carry_math="S = exp(G_C) S + sum_j exp(G_C - G_j) y_j z_j^T" if has_decay else "S = S + sum_j y_j z_j^T",
    )
    reverse = Direction(
        name="walk_reverse",
        title=kernels.source_gradient.title + ".",
        chunk_index="(chunks - 1 - i_t)",
        first_segment=1,
        segments_before="segments - 1 - i_s",
        segment_index="segments - 1 - i_n",
        last_segment="0",
        pair_math=f"A_ij = exp(Q_j - G_i) x_i . y_j, i {at} j" if has_decay else f"A_ij = x_i . y_j, i {at} j",
        sees=at,
        exponent="b_Q[None, :] - b_G[:, None]",
        entry="b_total - b_G",
        exit="b_Q",
        exit_scale=" * scale",
        exit_reads=True,
        scales_entry=False,
        output_math="o_i = sum_j A_ij z_j + exp(G_C - G_i) S^T x_i" if has_decay else "o_i = sum_j A_ij z_j + S^T x_i",
        carry_math="S = exp(G_C) S + sum_j exp(Q_j) y_j z_j^T" if has_decay else "S = S + sum_j y_j z_j^T",
    )
    return TritonPackage(
        title=title,
        equations=equations,
        weights=("M_ij = exp(G_i - G_j), j <= i: what is left at row i of what source j wrote; G is the running sum of g",) if has_decay
        else ("M_ij = 1, j <= i: every source before a row counts fully",),
        forward_entry="exp(G_i) " if has_decay else "",
        reverse_entry="exp(G_C - G_i) " if has_decay else "",
        has_decay=has_decay,
        is_exclusive=is_exclusive,
        read_exponent="b_G - b_g" if is_exclusive else "b_G",
        gate_argument="g, " if has_decay else "",
        gate_typed="g: Tensor, " if has_decay else "",
        query_rows=", r=q" if has_decay else "",
        query_rows_name="rq" if has_decay else "_",
        key_rows=", r=k" if has_decay else "",
        key_rows_name="rk" if has_decay else "_",
        walks=(forward, reverse),
    )  # fmt: skip
