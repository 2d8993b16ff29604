"""Gated DeltaNet 2 by fla-core: chunk_gdn2 with gates b of the erased keys and w of the written values, and log decays of every key."""

import torch
import torch.nn.functional as F

NAME = "fla-core chunk_gdn2"
REQUIRES = ("fla.ops.gdn2",)


def prepare(arguments, sizes):
    q, k, a, b_raw, v, w_raw, A_log, dt_bias = arguments.values()
    g = -A_log.float().exp()[:, None] * F.softplus(a.float() + dt_bias)
    return {"q": q, "k": k, "v": v, "g": g, "b": torch.sigmoid(b_raw), "w": torch.sigmoid(w_raw)}


def run(inputs, sizes):
    from fla.ops.gdn2 import chunk_gdn2

    return chunk_gdn2(**inputs, use_qk_l2norm_in_kernel=True)[0]
