"""DeltaNet by fla-core: chunk_delta_rule, which makes queries and keys unit vectors itself and scales reads by N^-1/2."""

import torch

NAME = "fla-core chunk_delta_rule"
REQUIRES = ("fla.ops.delta_rule",)


def prepare(arguments, sizes):
    q, k, v, beta_raw = arguments.values()
    return {"q": q, "k": k, "v": v, "beta": torch.sigmoid(beta_raw)}


def run(inputs, sizes):
    from fla.ops.delta_rule import chunk_delta_rule

    return chunk_delta_rule(**inputs, use_qk_l2norm_in_kernel=True)[0]
