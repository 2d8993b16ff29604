"""Lightning attention by fla-core: chunk_simple_gla with a log decay a head, which is all that its chunk_lightning_attn calls.

Called directly, because chunk_lightning_attn has slopes of its own, linear in the head, where paper and spec say 2^(-8(h+1)/H).
Reads are not scaled; the activations come before the call.
"""

import torch
import torch.nn.functional as F

NAME = "fla-core chunk_simple_gla(g_gamma), as under its chunk_lightning_attn"
REQUIRES = ("fla.ops.simple_gla",)


def prepare(arguments, sizes):
    q, k, v = arguments.values()
    heads = q.shape[2]
    head = torch.arange(heads, dtype=torch.float32, device=q.device)
    depth = 1 - sizes["layer"] / (sizes["layers"] - 1 + 1e-5) + 1e-5
    return {"q": F.silu(q), "k": F.silu(k), "v": F.silu(v), "g_gamma": -(2 ** (-8 * (head + 1) / heads)) * depth}


def run(inputs, sizes):
    from fla.ops.simple_gla import chunk_simple_gla

    return chunk_simple_gla(inputs["q"], inputs["k"], inputs["v"], g_gamma=inputs["g_gamma"], scale=1.0)[0]
