"""Mamba-2 by mamba-ssm: mamba_chunk_scan_combined, which adds the bias to dt, takes its softplus and adds D x by itself."""

NAME = "mamba-ssm mamba_chunk_scan_combined"
REQUIRES = ("mamba_ssm.ops.triton.ssd_combined",)
VARIANTS = {"chunk 256": {"chunk": 256}, "chunk 128": {"chunk": 128}}


def prepare(arguments, sizes):
    return {**arguments, "A": -arguments["A_log"].float().exp()}


def run(inputs, sizes, chunk):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return mamba_chunk_scan_combined(
        inputs["x"], inputs["dt_raw"], inputs["A"], inputs["B"], inputs["C"], chunk, D=inputs["D"], dt_bias=inputs["dt_bias"],
        dt_softplus=True,
    )  # fmt: skip
