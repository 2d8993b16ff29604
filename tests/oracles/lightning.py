"""Lightning attention (arXiv:2401.04658, 2501.08313): static slopes by head and layer, silu on q, k and v, no read scale."""

from __future__ import annotations

import math

import torch


def slope(head, heads, layer, layers):
    """s_{h,l} = 2^(-8(h+1)/H) (1 - l / (L - 1 + 1e-5) + 1e-5), h and l from 0."""
    return 2.0 ** (-8 * (head + 1) / heads) * (1 - layer / (layers - 1 + 1e-5) + 1e-5)


def lightning(q, k, v, layer, layers, initial_state=None):
    """o_t = S_t^T silu(q_t) with S_t = e^-s S_{t-1} + silu(k_t) silu(v_t)^T."""
    B, T, H, N = q.shape
    o = torch.zeros(B, T, H, v.shape[-1], dtype=torch.float64)
    S = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64) if initial_state is None else initial_state.clone()
    for b in range(B):
        for h in range(H):
            decay = math.exp(-slope(h, H, layer, layers))
            for t in range(T):
                S[b, h] = decay * S[b, h] + torch.outer(silu(k[b, t, h]), silu(v[b, t, h]))
                o[b, t, h] = S[b, h].T @ silu(q[b, t, h])
    return o, S


def silu(x):
    """x / (1 + e^-x)."""
    return x / (1 + torch.exp(-x))
