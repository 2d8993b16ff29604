"""Mamba-2's block in float64, one token and one head at a time, written from the paper (Dao and Gu 2024, arXiv:2405.21060).

Shares no code with the compiler. Takes the block's weights by name:
in_proj [2 d_in + 2 G N + H, d_model], conv_weight [d_in + 2 G N, W], conv_bias, A_log, dt_bias, D [H], norm [d_in],
out_proj [d_model, d_in], with d_in = H P.
"""

from __future__ import annotations

import math

import numpy as np


def silu(x):
    return x / (1.0 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0.0, x)


def mamba2_block(u, weights, heads, groups, n, p, eps=1e-5):
    """u [T, d_model] -> (out [T, d_model], the last conv inputs [channels, W-1], the final states [H, N, P])."""
    inner = heads * p
    length = u.shape[0]
    taps = weights["conv_weight"].shape[1]
    states = np.zeros((heads, n, p))
    seen = [np.zeros(inner + 2 * groups * n) for _ in range(taps - 1)]
    rows = []
    for t in range(length):
        projected = weights["in_proj"] @ u[t]
        z, rest = projected[:inner], projected[inner:]
        mixed, dt_raw = rest[: inner + 2 * groups * n], rest[inner + 2 * groups * n :]
        seen.append(mixed)
        # tap W-1 is the current token
        convolved = sum(weights["conv_weight"][:, i] * seen[-taps + i] for i in range(taps)) + weights["conv_bias"]
        convolved = silu(convolved)
        x = convolved[:inner].reshape(heads, p)
        b = convolved[inner : inner + groups * n].reshape(groups, n)
        c = convolved[inner + groups * n :].reshape(groups, n)
        y = np.zeros((heads, p))
        for h in range(heads):
            g = h // (heads // groups)
            dt = softplus(dt_raw[h] + weights["dt_bias"][h])
            a = math.exp(-dt * math.exp(weights["A_log"][h]))
            for i in range(n):
                for j in range(p):
                    states[h, i, j] = a * states[h, i, j] + dt * b[g, i] * x[h, j]
            for j in range(p):
                y[h, j] = sum(c[g, i] * states[h, i, j] for i in range(n)) + weights["D"][h] * x[h, j]
        gated = (y.reshape(-1) * silu(z)).reshape(groups, inner // groups)
        normed = gated / np.sqrt((gated**2).mean(axis=1, keepdims=True) + eps)
        rows.append(weights["out_proj"] @ (normed.reshape(-1) * weights["norm"]))
    out = np.array(rows) if rows else np.zeros((0, u.shape[1]))
    return out, np.stack(seen[-(taps - 1) :], axis=1), states
