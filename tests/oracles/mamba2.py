"""Mamba-2 (arXiv:2405.21060): a = exp(dt A), S = a S + (dt B) x^T, y = S^T C + D x, with dt = softplus(dt_raw + bias)."""

from __future__ import annotations

import math

import torch


def mamba2(B, C, x, dt_raw, A_log, dt_bias, D, initial_state=None):
    """B, C [batch, T, G, N], head h uses group h // (H / G); x [batch, T, H, P]; dt_raw [batch, T, H]; A_log, dt_bias, D [H]."""
    batch, T, H, P = x.shape
    G, N = B.shape[2:]
    y = torch.zeros(batch, T, H, P, dtype=torch.float64)
    S = torch.zeros(batch, H, N, P, dtype=torch.float64) if initial_state is None else initial_state.clone()
    for b in range(batch):
        for h in range(H):
            group = h // (H // G)
            A = -math.exp(A_log[h].item())
            for t in range(T):
                dt = math.log1p(math.exp(dt_raw[b, t, h].item() + dt_bias[h].item()))
                S[b, h] = math.exp(dt * A) * S[b, h] + dt * torch.outer(B[b, t, group], x[b, t, h])
                y[b, t, h] = S[b, h].T @ C[b, t, group] + D[h] * x[b, t, h]
    return y, S
