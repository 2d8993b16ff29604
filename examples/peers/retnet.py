"""RetNet by fla-core: chunk_retention on queries and keys that are rotated before the call; N^-1/2 and the decays are its own."""

NAME = "fla-core chunk_retention"
REQUIRES = ("fla.ops.retention",)


def prepare(arguments, sizes):
    q, k, v = arguments.values()
    return {"q": _rotated(q), "k": _rotated(k), "v": v}


def run(inputs, sizes):
    from fla.ops.retention import chunk_retention

    return chunk_retention(inputs["q"], inputs["k"], inputs["v"])[0]


def _rotated(x):
    """The pairs (j, j + N/2) of x [B, T, H, N] turned by position * 10000^(-2j/N)."""
    import torch

    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    position = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
    angle = torch.remainder(position[:, None] * frequency, 2 * torch.pi)[:, None]  # [T, 1, N/2]
    cos, sin = angle.cos().float(), angle.sin().float()
    a, b = x[..., :half].float(), x[..., half:].float()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)
