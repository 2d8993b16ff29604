"""Mamba-3 (arXiv:2603.15569) as its step is published: keys and queries turned by the angle so far, a two-tap write, R rows.

k~, q~ = Rot(Th_t) (RMS(B) + B_bias, RMS(C) + C_bias),   Th_t = Th_{t-1} + pi tanh(angle_t) dt_t
S~_t = al S~_{t-1} + (1 - lam) dt al k~_{t-1} x_{t-1}^T + lam dt k~_t x_t^T,   al = exp(dt A)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def heavy_tail(x):
    """1 + x above 0 and 1 / (1 - x) below: the activation of A as published now."""
    return torch.where(x >= 0, 1 + x, 1 / (1 - x.clamp(max=0)))


def mamba3(
    B,
    C,
    x,
    dt_raw,
    A_raw,
    trap,
    angle,
    B_bias,
    C_bias,
    D,
    dt_bias,
    S=None,
    rows=None,
    z=None,
    mx=None,
    mo=None,
    mz=None,
    activation=heavy_tail,
):
    """B, C [batch, T, G, N] or, with rows, [batch, T, G, R, N]; x, z [batch, T, H, P]; scalars [batch, T, H]; angle [batch, T, G, N/4].

    Biases [H, (R,) N]; mx, mo, mz [H, R, P]. S [batch, H, N, P] is the state that no frame turns. Gives y and such a state.
    `activation`: of A, `heavy_tail` or, as in the first release, softplus.
    """
    batch, T, H, P = x.shape
    if rows is None:
        B, C, B_bias, C_bias = B[..., None, :], C[..., None, :], B_bias[:, None], C_bias[:, None]
        mx = mo = torch.ones(H, 1, P, dtype=x.dtype)
    groups = H // B.shape[2]
    B, C, angle = (each.repeat_interleave(groups, 2) for each in (B, C, angle))
    k, q = normed(B) + B_bias, normed(C) + C_bias
    dt, lam = F.softplus(dt_raw + dt_bias), torch.sigmoid(trap)
    A = (-activation(A_raw)).clamp(max=-1e-4)
    theta = (torch.pi * torch.tanh(angle) * dt[..., None]).cumsum(1)
    k, q = rotated(k, theta[..., None, :]), rotated(q, theta[..., None, :])
    values = x[..., None, :] * mx
    state = torch.zeros(batch, H, k.shape[-1], P, dtype=x.dtype) if S is None else S
    y = []
    for t in range(T):
        write = torch.einsum("bhrn,bhrp->bhnp", k[:, t], values[:, t])
        factor, step, weight = (each[:, t, :, None, None] for each in ((dt * A).exp(), dt, lam))
        state = factor * state + weight * step * write
        if t:
            before = torch.einsum("bhrn,bhrp->bhnp", k[:, t - 1], values[:, t - 1])
            state = state + (1 - weight) * step * factor * before
        read = torch.einsum("bhnp,bhrn->bhrp", state, q[:, t]) + D[:, None, None] * values[:, t]
        gate = 1.0 if z is None else F.silu(z[:, t, :, None] * mz)
        y.append((mo * gate * read).sum(2))
    return torch.stack(y, 1), rotated(state.mT, -theta[:, -1, :, None]).mT


def normed(x):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def rotated(x, angle):
    """The first pairs (2j, 2j+1) of the last axis turned by angle [..., M], M at most half of it."""
    pairs = 2 * angle.shape[-1]
    a, b = x[..., 0:pairs:2], x[..., 1:pairs:2]
    turned = torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)
    return torch.cat([turned, x[..., pairs:]], -1)
