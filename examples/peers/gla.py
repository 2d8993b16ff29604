"""GLA by fla-core: chunk_gla(q, k, v, g), g the log decays in float32; reads are scaled by N^-1/2 there, too."""

import torch.nn.functional as F

NAME = "fla-core chunk_gla"
REQUIRES = ("fla.ops.gla",)


def prepare(arguments, sizes):
    q, k, v, g_raw = arguments.values()
    return {"q": q, "k": k, "v": v, "g": F.logsigmoid(g_raw.float()) / 16}


def run(inputs, sizes):
    from fla.ops.gla import chunk_gla

    return chunk_gla(**inputs)[0]
