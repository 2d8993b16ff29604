"""mLSTM with sigmoid gates (arXiv:2503.14376): C = f C + i k v^T, n = f n + i k, h = C^T q~ / max(|<n, q~>|, 1)."""

from __future__ import annotations

import math

import torch


def mlstm_sigmoid(q, k, v, i_raw, f_raw, initial_state=None):
    """q, k [B, T, H, N]; v [B, T, H, P]; i_raw, f_raw [B, T, H]; q~ = q / sqrt(N); C [B, H, N, P], n [B, H, N]."""
    B, T, H, N = q.shape
    out = torch.zeros(B, T, H, v.shape[-1], dtype=torch.float64)
    if initial_state is None:
        C, n = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64), torch.zeros(B, H, N, dtype=torch.float64)
    else:
        C, n = (part.clone() for part in initial_state)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                f, i = (1 / (1 + math.exp(-gate[b, t, h].item())) for gate in (f_raw, i_raw))
                C[b, h] = f * C[b, h] + i * torch.outer(k[b, t, h], v[b, t, h])
                n[b, h] = f * n[b, h] + i * k[b, t, h]
                query = q[b, t, h] / math.sqrt(N)
                out[b, t, h] = C[b, h].T @ query / max(abs(torch.dot(n[b, h], query).item()), 1.0)
    return out, C, n
