"""Diagonal plus low rank by fla-core: chunk_dplr_delta_rule(q, k, v, a, b, gk), which reads along a and writes along b, no read scale."""

import torch
import torch.nn.functional as F

NAME = "fla-core chunk_dplr_delta_rule"
REQUIRES = ("fla.ops.generalized_delta_rule",)


def prepare(arguments, sizes):
    q, k, a, b, g_raw, v, beta_raw = arguments.values()
    removed = -torch.sigmoid(beta_raw.float())[..., None] * _unit(b)
    return {"q": q, "k": k, "v": v, "a": _unit(a).to(a.dtype), "b": removed.to(b.dtype), "gk": -F.softplus(g_raw.float())}


def run(inputs, sizes):
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule

    return chunk_dplr_delta_rule(**inputs, scale=1.0)[0]


def _unit(x):
    x = x.float()
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)
