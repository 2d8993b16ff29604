"""The system of arXiv:2111.00396 as one matrix over all modes and their conjugates, stepped by solving for every token."""

from __future__ import annotations

import torch


def s4(u, log_re, im, P, B, C, log_dt, D, s):
    """u [batch, T, channels], parameters [channels, modes], s [batch, channels, modes] and its end."""
    A, dt = torch.complex(-torch.exp(log_re), im), torch.exp(log_dt)[:, None, None]
    modes = A.shape[-1]
    whole = lambda x: torch.cat([x, x.conj()], -1)  # noqa: E731
    matrix = torch.diag_embed(whole(A)) - whole(P)[..., :, None] * whole(P).conj()[..., None, :]
    identity = torch.eye(2 * modes, dtype=matrix.dtype)
    ahead, back = identity + dt / 2 * matrix, identity - dt / 2 * matrix
    held, outputs = whole(s)[..., None], []
    for t in range(u.shape[1]):
        held = torch.linalg.solve(back, ahead @ held + dt * whole(B)[..., None] * u[:, t, :, None, None])
        outputs.append((whole(C) * held[..., 0]).sum(-1).real + D * u[:, t])
    return torch.stack(outputs, 1), held[..., :modes, 0]
