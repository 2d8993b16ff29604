"""RWKV-7 by fla-core: chunk_rwkv7(r, w, k, v, a, b), w the log decays; the state reads along a = -kk and writes along b = a kk."""

import torch

NAME = "fla-core chunk_rwkv7"
REQUIRES = ("fla.ops.rwkv7",)


def prepare(arguments, sizes):
    r, k, w_raw, a_raw, v, k_k, k_a = arguments.values()
    a = torch.sigmoid(a_raw.float())
    raw = k.float() * k_k
    kk = raw * torch.rsqrt((raw * raw).sum(-1, keepdim=True) + 1e-6)
    key = k.float() * (1 + (a - 1) * k_a)
    w = -0.6065306597126334 * torch.sigmoid(w_raw.float())
    return {"r": r, "w": w, "k": key.to(k.dtype), "v": v, "a": -kk.to(k.dtype), "b": (a * kk).to(k.dtype)}


def run(inputs, sizes):
    from fla.ops.rwkv7 import chunk_rwkv7

    return chunk_rwkv7(**inputs)[0]
