"""mLSTM with exponential gates by mlstm-kernels: its chunkwise kernels on [B, H, T, ...], which stabilise by a maximum of their own.

It takes both gates before their activations, scales by N^-1/2 and divides by max(|n^T q|, e^-m) itself; eps 0 is the spec's.
"""

NAME = "mlstm-kernels chunkwise xl_chunk"
REQUIRES = ("mlstm_kernels.torch.chunkwise.triton_xl_chunk",)


def prepare(arguments, sizes):
    q, k, v, i, f = (x.transpose(1, 2).contiguous() for x in arguments.values())
    return {"q": q, "k": k, "v": v, "i": i.float(), "f": f.float()}


def run(inputs, sizes):
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk import mlstm_chunkwise__xl_chunk

    return mlstm_chunkwise__xl_chunk(**inputs, eps=0.0, chunk_size=128, autocast_kernel_dtype=inputs["q"].dtype).transpose(1, 2)
