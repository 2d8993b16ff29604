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
    first_segment: str
    segments_before: str
    segment_index: str
    last_segment: str
    pair_math: str
    sees: str
    exponent: str
    entry: str
    exit: str
    exit_scale: str
    needs_read_exponent: bool
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
    # the running sum at which a reading row stands
    Q, read = ("Q", "b_Q") if is_exclusive else ("G", "b_G")
    at = "<" if is_exclusive else "<="
    back = ">" if is_exclusive else ">="
    forward = Direction(
        name="walk",
        title=kernels.forward.title + ", from the first token.",
        chunk_index="i_t",
        first_segment="",
        segments_before="i_s",
        segment_index="i_n",
        last_segment="segments - 1",
        pair_math=f"A_ij = exp({Q}_i - G_j) x_i . y_j, j {at} i" if has_decay else f"A_ij = x_i . y_j, j {at} i",
        sees=back,
        exponent=f"{read}[:, None] - b_G[None, :]",
        entry=read,
        exit="b_total - b_G",
        exit_scale="",
        needs_read_exponent=False,
        scales_entry=True,
        output_math=f"o_i = sum_j A_ij z_j + exp({Q}_i) S^T x_i" if has_decay else "o_i = sum_j A_ij z_j + S^T x_i",
        carry_math="S = exp(G_C) S + sum_j exp(G_C - G_j) y_j z_j^T" if has_decay else "S = S + sum_j y_j z_j^T",
    )
    reverse = Direction(
        name="walk_reverse",
        title=kernels.gradient.title + ".",
        chunk_index="(chunks - 1 - i_t)",
        first_segment=" + 1",
        segments_before="segments - 1 - i_s",
        segment_index="segments - 1 - i_n",
        last_segment="0",
        pair_math=f"A_ij = exp({Q}_j - G_i) x_i . y_j, i {at} j" if has_decay else f"A_ij = x_i . y_j, i {at} j",
        sees=at,
        exponent=f"{read}[None, :] - b_G[:, None]",
        entry="b_total - b_G",
        exit=read,
        exit_scale=" * scale",
        needs_read_exponent=is_exclusive,
        scales_entry=False,
        output_math="o_i = sum_j A_ij z_j + exp(G_C - G_i) S^T x_i" if has_decay else "o_i = sum_j A_ij z_j + S^T x_i",
        carry_math=f"S = exp(G_C) S + sum_j exp({Q}_j) y_j z_j^T" if has_decay else "S = S + sum_j y_j z_j^T",
    )
    return TritonPackage(
        title=title,
        equations=equations,
        weights=(_weights(has_decay, is_exclusive),),
        forward_entry=f"exp({Q}_i) " if has_decay else "",
        reverse_entry="exp(G_C - G_i) " if has_decay else "",
        has_decay=has_decay,
        is_exclusive=is_exclusive,
        gate_argument="g, " if has_decay else "",
        gate_typed="g: Tensor, " if has_decay else "",
        query_rows=", r=q" if has_decay else "",
        query_rows_name="rq" if has_decay else "_",
        key_rows=", r=k" if has_decay else "",
        key_rows_name="rk" if has_decay else "_",
        walks=(forward, reverse),
    )  # fmt: skip


def _weights(has_decay: bool, is_exclusive: bool) -> str:
    """The legend's line on M."""
    if not has_decay:
        return f"M_ij = 1, j {'<' if is_exclusive else '<='} i: every source before a row counts fully"
    if is_exclusive:
        return "M_ij = exp(Q_i - G_j), j < i, Q_i = G_{i-1}: left at row i of what source j wrote; G is the running sum of g"
    return "M_ij = exp(G_i - G_j), j <= i: left at row i of what source j wrote; G is the running sum of g"
