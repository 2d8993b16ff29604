"""H-Net's dechunking (arXiv:2507.07955): z_t = p_t x_t + (1 - p_t) z_{t-1}, p clamped to [1e-4, 1 - 1e-4]."""

from __future__ import annotations

import torch


def hnet_ema(x, p, initial_state=None):
    """x [B, T, H, P]; p [B, T, H]; z [B, H, P]."""
    B, T, H, P = x.shape
    out = torch.zeros(B, T, H, P, dtype=torch.float64)
    z = torch.zeros(B, H, P, dtype=torch.float64) if initial_state is None else initial_state.clone()
    for b in range(B):
        for h in range(H):
            for t in range(T):
                weight = min(max(p[b, t, h].item(), 1e-4), 1 - 1e-4)
                z[b, h] = weight * x[b, t, h] + (1 - weight) * z[b, h]
                out[b, t, h] = z[b, h]
    return out, z
