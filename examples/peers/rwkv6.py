"""RWKV-6 by fla-core: chunk_rwkv6(r, k, v, w, u), w the log decays in float32, with no read scale."""

import torch

NAME = "fla-core chunk_rwkv6"
REQUIRES = ("fla.ops.rwkv6",)


def prepare(arguments, sizes):
    r, k, w_raw, v, w0, u = arguments.values()
    return {"r": r, "k": k, "v": v, "w": -torch.exp(torch.clamp(w0 + w_raw.float(), max=10)), "u": u}


def run(inputs, sizes):
    from fla.ops.rwkv6 import chunk_rwkv6

    return chunk_rwkv6(**inputs, scale=1.0)[0]
