"""The block of arXiv:2212.14052 with heads of one channel: two state-space models as their matrices, token by token."""

from __future__ import annotations

import torch


def block(u, w_in, taps, w_out, log_re, im, C, log_dt, D, s):
    """taps [channels, M]: C of the shift, the newest key first. s [B, channels, modes]: where the diagonal system starts; and its end."""
    q, k, v = (u @ w_in.mT).chunk(3, -1)
    count = taps.shape[-1]
    shift = torch.diag(torch.ones(count - 1, dtype=u.dtype), -1)
    first = torch.eye(count, dtype=u.dtype)[0]
    A, dt = torch.complex(-torch.exp(log_re), im), torch.exp(log_dt)[:, None]
    Ab = torch.exp(dt * A)
    held = u.new_zeros(*u.shape[:1], u.shape[2], count)
    outputs = []
    for t in range(u.shape[1]):
        held = held @ shift.mT + k[:, t, :, None] * first
        x = (held * taps).sum(-1) * v[:, t]
        s = Ab * s + (Ab - 1) / A * x[..., None]
        outputs.append(q[:, t] * (2 * (C * s).sum(-1).real + D * x))
    return torch.stack(outputs, 1) @ w_out.mT, s
