"""mLSTM with exponential gates (arXiv:2405.04517), not stabilised: C = f C + e^i k v^T, n = f n + e^i k, h = C^T q~ / max(|<n, q~>|, 1)."""

from __future__ import annotations

import torch


def mlstm(q, k, v, i, f_raw, state=None):
    """q, k [B, T, H, N]; v [B, T, H, P]; i, f_raw [B, T, H]; q~ = q / sqrt(N). `state` (C~, n~, m) stands for C = C~ e^m, n = n~ e^m.

    Reads [B, T, H, P], and the last C and n.
    """
    B, T, H, N = q.shape
    if state is None:
        C, n = torch.zeros(B, H, N, v.shape[-1], dtype=q.dtype), torch.zeros(B, H, N, dtype=q.dtype)
    else:
        C, n = (part * torch.exp(state[2]).view(B, H, *(1,) * (part.dim() - 2)) for part in state[:2])
    outputs = []
    for t in range(T):
        f, write = 1 / (1 + torch.exp(-f_raw[:, t])), torch.exp(i[:, t])
        C = f[..., None, None] * C + (write[..., None] * k[:, t])[..., :, None] * v[:, t, :, None, :]
        n = f[..., None] * n + write[..., None] * k[:, t]
        query = q[:, t] / N**0.5
        outputs.append((C * query[..., None]).sum(-2) / torch.clamp((n * query).sum(-1).abs(), min=1)[..., None])
    return torch.stack(outputs, 1), C, n
