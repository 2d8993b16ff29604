"""mLSTM with sigmoid gates by mlstm-kernels: its chunkwise kernels with the sigmoid input gate, on [B, H, T, ...].

It takes both gates before their activations, scales by N^-1/2 and divides by max(|n^T q|, 1) itself; eps 0 is the spec's.
"""

NAME = "mlstm-kernels chunkwise xl_chunk_siging"
REQUIRES = ("mlstm_kernels.torch.chunkwise.triton_xl_chunk_siging",)


def prepare(arguments, sizes):
    q, k, v, i, f = (x.transpose(1, 2).contiguous() for x in arguments.values())
    return {"q": q, "k": k, "v": v, "i": i.float(), "f": f.float()}


def run(inputs, sizes):
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk_siging import mlstm_siging_chunkwise__xl_chunk

    h = mlstm_siging_chunkwise__xl_chunk(
        **inputs, eps=0.0, normalize=True, chunk_size=128, autocast_kernel_dtype=inputs["q"].dtype,
    )  # fmt: skip
    return h.transpose(1, 2)
