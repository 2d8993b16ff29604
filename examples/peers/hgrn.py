"""HGRN by fla-core: chunk_hgrn(x, g) and fused_recurrent_hgrn on [B, T, D], x the gated input and g the log of the gate."""

import torch
import torch.nn.functional as F

NAME = "fla-core hgrn"
REQUIRES = ("fla.ops.hgrn",)
VARIANTS = {"chunk": {"name": "chunk_hgrn"}, "fused recurrent": {"name": "fused_recurrent_hgrn"}}


def prepare(arguments, sizes):
    i, f_raw, gamma = arguments.values()
    bound = torch.sigmoid(gamma.float())
    f = bound + (1 - bound) * torch.sigmoid(f_raw.float())
    return {"x": ((1 - f) * F.silu(i.float())).to(i.dtype), "g": f.log()}


def run(inputs, sizes, name):
    import fla.ops.hgrn

    return getattr(fla.ops.hgrn, name)(**inputs)[0]
