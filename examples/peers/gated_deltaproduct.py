"""Gated DeltaProduct by fla-core: chunk_gated_delta_product, the n corrections of a token as n rows of k, v and beta."""

import torch
import torch.nn.functional as F

NAME = "fla-core chunk_gated_delta_product"
REQUIRES = ("fla.ops.gated_delta_product",)


def prepare(arguments, sizes):
    q, k, v, beta_raw, a, A_log, dt_bias = arguments.values()
    g = -A_log.float().exp() * F.softplus(a.float() + dt_bias)
    rows = {"k": k, "v": v, "beta": 2 * torch.sigmoid(beta_raw)}
    return {"q": q, "g": g, **{name: _rows(x) for name, x in rows.items()}}


def run(inputs, sizes):
    from fla.ops.gated_delta_product import chunk_gated_delta_product

    return chunk_gated_delta_product(**inputs, num_householder=int(sizes["n"]))[0]


def _rows(x):
    """[B, T, H, n, ...] as [B, T n, H, ...], the rows of a token one after another."""
    return x.movedim(3, 2).flatten(1, 2).contiguous()
