"""Comba by fla-core: chunk_comba(q, k, v, p, g, beta); the reading key p and the corrected query are made before the call."""

import torch
import torch.nn.functional as F

NAME = "fla-core chunk_comba"
REQUIRES = ("fla.ops.comba",)


def prepare(arguments, sizes):
    q, k, v, a, beta_raw, A_log, dt_bias, d, D = arguments.values()
    g = -A_log.float().exp() * F.softplus(a.float() + dt_bias)
    qn, kn = _unit(q), _unit(k)
    p = torch.sigmoid(d)[:, None] * kn
    query = qn - D[:, None] * p
    return {"q": query.to(q.dtype), "k": kn.to(k.dtype), "v": v, "p": p.to(k.dtype), "g": g, "beta": torch.sigmoid(beta_raw)}


def run(inputs, sizes):
    from fla.ops.comba import chunk_comba

    return chunk_comba(**inputs)[0]


def _unit(x):
    x = x.float()
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)
