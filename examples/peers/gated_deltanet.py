"""Gated DeltaNet by fla-core: chunk_gated_delta_rule, g the log decay in float32; queries and keys are made unit vectors there."""

import torch
import torch.nn.functional as F

NAME = "fla-core chunk_gated_delta_rule"
REQUIRES = ("fla.ops.gated_delta_rule",)


def prepare(arguments, sizes):
    q, k, v, a, beta_raw, A_log, dt_bias = arguments.values()
    g = -A_log.float().exp() * F.softplus(a.float() + dt_bias)
    return {"q": q, "k": k, "v": v, "g": g, "beta": sizes["reach"] * torch.sigmoid(beta_raw)}


def run(inputs, sizes):
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return chunk_gated_delta_rule(**inputs, use_qk_l2norm_in_kernel=True)[0]
