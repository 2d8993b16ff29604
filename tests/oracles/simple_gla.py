"""Simple gated linear attention (arXiv:2312.06635): S = e^g S + k v^T, g = logsigmoid(raw) / 16."""

from __future__ import annotations

import math

import torch


def simple_gla(q, k, v, raw, initial_state=None):
    """o_t = N^-1/2 S_t^T q_t. q, k [B, T, H, N]; v [B, T, H, P]; raw [B, T, H]."""
    B, T, H, N = q.shape
    o = torch.zeros(B, T, H, v.shape[-1], dtype=torch.float64)
    S = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64) if initial_state is None else initial_state.clone()
    for b in range(B):
        for h in range(H):
            for t in range(T):
                g = -math.log1p(math.exp(-raw[b, t, h].item())) / 16
                S[b, h] = math.exp(g) * S[b, h] + torch.outer(k[b, t, h], v[b, t, h])
                o[b, t, h] = N**-0.5 * S[b, h].T @ q[b, t, h]
    return o, S
