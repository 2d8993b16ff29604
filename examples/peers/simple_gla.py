"""Simple GLA by fla-core: chunk_simple_gla(q, k, v, g), g the log decay in float32; reads are scaled by N^-1/2 there, too."""

import torch.nn.functional as F

NAME = "fla-core chunk_simple_gla"
REQUIRES = ("fla.ops.simple_gla",)


def prepare(arguments, sizes):
    q, k, v, raw = arguments.values()
    return {"q": q, "k": k, "v": v, "g": F.logsigmoid(raw.float()) / 16}


def run(inputs, sizes):
    from fla.ops.common import chunk_o
    from fla.ops.simple_gla import chunk_simple_gla

    if known_wrong():
        chunk_o.TRITON_ABOVE_3_7_1 = True  # it refuses gated gradients on such a machine; this lets them be timed
    return chunk_simple_gla(inputs["q"], inputs["k"], inputs["v"], g=inputs["g"])[0]


def known_wrong():
    """Gated gradients on Hopper GPUs, by fla-core's own refusal (flash-linear-attention issue 640)."""
    import torch
    import triton

    version = tuple(int(part) for part in triton.__version__.split("+")[0].split(".")[:3] if part.isdigit())
    is_hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
    return "gradients known wrong on this Triton (issue 640 of fla)" if is_hopper and (3, 4, 0) <= version < (3, 7, 1) else ""
