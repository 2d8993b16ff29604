"""KDA by fla-core: chunk_kda with the bounded gate, whose bound it is told, and unit queries and keys, made in its kernels."""

import torch

NAME = "fla-core chunk_kda"
REQUIRES = ("fla.ops.kda",)


def prepare(arguments, sizes):
    q, k, a, v, beta_raw, A_log, dt_bias = arguments.values()
    g = -5 * torch.sigmoid(A_log.float().exp()[:, None] * (a.float() + dt_bias))
    return {"q": q, "k": k, "v": v, "g": g, "beta": torch.sigmoid(beta_raw)}


def run(inputs, sizes):
    from fla.ops.kda import chunk_kda

    return chunk_kda(**inputs, use_qk_l2norm_in_kernel=True, safe_gate=True, lower_bound=-5.0)[0]
