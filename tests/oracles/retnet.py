"""RetNet (arXiv:2307.08621): S = gamma_h S + k v^T, gamma_h = 1 - 2^(-5-h), rotary q and k, one token at a time."""

from __future__ import annotations

import math

import torch


def rotate(x, position):
    """The pairs (j, j + N/2) of a vector, turned by position * 10000^(-2j/N)."""
    half = len(x) // 2
    turned = torch.empty_like(x)
    for j in range(half):
        angle = position * 10000.0 ** (-2 * j / len(x))
        turned[j] = x[j] * math.cos(angle) - x[j + half] * math.sin(angle)
        turned[j + half] = x[j + half] * math.cos(angle) + x[j] * math.sin(angle)
    return turned


def retnet(q, k, v, initial_state=None, position=None):
    """o_t = N^-1/2 S_t^T rot(q_t). q, k [B, T, H, N]; v [B, T, H, P]; `position` [B]: the tokens before the first."""
    B, T, H, N = q.shape
    o = torch.zeros(B, T, H, v.shape[-1], dtype=torch.float64)
    S = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64) if initial_state is None else initial_state.clone()
    for b in range(B):
        first = 0 if position is None else int(position[b])
        for h in range(H):
            gamma = 1 - 2.0 ** (-5 - h)
            for t in range(T):
                S[b, h] = gamma * S[b, h] + torch.outer(rotate(k[b, t, h], first + t), v[b, t, h])
                o[b, t, h] = N**-0.5 * S[b, h].T @ rotate(q[b, t, h], first + t)
    return o, S
