"""Linear attention (arXiv:2006.16236), plain and normalised, one head and one token at a time."""

from __future__ import annotations

import torch


def plain(q, k, v, initial_state=None):
    """o_t = N^-1/2 S_t^T q_t with S_t = S_{t-1} + k_t v_t^T. q, k [B, T, H, N]; v [B, T, H, P]; S [B, H, N, P]."""
    B, T, H, N = q.shape
    o = torch.zeros(B, T, H, v.shape[-1], dtype=torch.float64)
    S = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64) if initial_state is None else initial_state.clone()
    for b in range(B):
        for h in range(H):
            for t in range(T):
                S[b, h] += torch.outer(k[b, t, h], v[b, t, h])
                o[b, t, h] = N**-0.5 * S[b, h].T @ q[b, t, h]
    return o, S


def normalised(q, k, v, initial_state=None):
    """o_t = S_t^T q~ / (<z_t, q~> + 1e-10), q~ = N^-1/2 f(q), f = elu + 1; S sums f(k) v^T and z sums f(k)."""
    B, T, H, N = q.shape
    o = torch.zeros(B, T, H, v.shape[-1], dtype=torch.float64)
    if initial_state is None:
        S, z = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64), torch.zeros(B, H, N, dtype=torch.float64)
    else:
        S, z = (part.clone() for part in initial_state)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                key, query = feature(k[b, t, h]), N**-0.5 * feature(q[b, t, h])
                S[b, h] += torch.outer(key, v[b, t, h])
                z[b, h] += key
                o[b, t, h] = S[b, h].T @ query / (torch.dot(z[b, h], query) + 1e-10)
    return o, S, z


def feature(x):
    """elu(x) + 1."""
    return torch.where(x > 0, x + 1, torch.exp(x))
