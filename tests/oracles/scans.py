"""Recurrences of channels as plain loops over tokens, one number or one short vector a channel; nothing shared with the compiler."""

from __future__ import annotations

import torch


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def softplus(x):
    return torch.log1p(torch.exp(x))


def run(length, h, token):
    """`token(t, h)` gives the output of token t and the state after it."""
    outputs = []
    for t in range(length):
        y, h = token(t, h)
        outputs.append(y)
    return torch.stack(outputs, 1), h


def mamba1(x, dt_raw, key, query, A_log, dt_bias, D, h):
    A = -torch.exp(A_log)

    def token(t, h):
        dt = softplus(dt_raw[:, t] + dt_bias)[..., None]
        h = torch.exp(dt * A) * h + dt * key[:, t, None] * x[:, t, :, None]
        return (h * query[:, t, None]).sum(-1) + D * x[:, t], h

    return run(x.shape[1], h, token)


def s4d_real(u, A_log, C, log_dt, D, s):
    A, dt = -torch.exp(A_log), torch.exp(log_dt)[:, None]

    def token(t, s):
        s = torch.exp(dt * A) * s + (torch.exp(dt * A) - 1) / A * u[:, t, :, None]
        return (C * s).sum(-1) + D * u[:, t], s

    return run(u.shape[1], s, token)


def s4d(u, log_re, im, C, log_dt, D, s):
    A, dt = torch.complex(-torch.exp(log_re), im), torch.exp(log_dt)[:, None]

    def token(t, s):
        s = torch.exp(dt * A) * s + (torch.exp(dt * A) - 1) / A * u[:, t, :, None]
        return 2 * (C * s).real.sum(-1) + D * u[:, t], s

    return run(u.shape[1], s, token)


def lru(u, nu, theta, gamma_log, key, query, D, x):
    lam = torch.exp(torch.complex(-torch.exp(nu), torch.exp(theta)))

    def token(t, x):
        x = lam * x + torch.exp(gamma_log) * (key @ u[:, t, :, :, None].to(key.dtype)).squeeze(-1)
        return (query @ x[..., None]).squeeze(-1).real + D * u[:, t], x

    return run(u.shape[1], x, token)


def s5(u, log_re, im, key, query, log_dt, D, x):
    A, dt = torch.complex(-torch.exp(log_re), im), torch.exp(log_dt)

    def token(t, x):
        held = (torch.exp(dt * A) - 1) / A
        x = torch.exp(dt * A) * x + held * (key @ u[:, t, :, :, None].to(key.dtype)).squeeze(-1)
        return 2 * (query @ x[..., None]).squeeze(-1).real + D * u[:, t], x

    return run(u.shape[1], x, token)


def oscillators(step, u, A_raw, dt_raw, key, query, D, z, x):
    """`step(z, x, dt, A, force)`: the velocities and positions after dt."""
    A, dt = torch.relu(A_raw), sigmoid(dt_raw)

    def token(t, state):
        state = step(*state, dt, A, (key @ u[:, t, :, :, None]).squeeze(-1))
        return (query @ state[1][..., None]).squeeze(-1) + D * u[:, t], state

    return run(u.shape[1], (z, x), token)


def pd_ssm(u, place, mag, phase, key, query, D, x):
    """`place` [B, T, H, N]: where a token brings each entry."""
    d = torch.polar(sigmoid(mag), 2 * torch.pi * sigmoid(phase))

    def token(t, x):
        x = torch.zeros_like(x).scatter_add(-1, place[:, t], d[:, t] * x) + (key @ u[:, t, :, :, None].to(key.dtype)).squeeze(-1)
        return (query @ x[..., None]).squeeze(-1).real + D * u[:, t], x

    return run(u.shape[1], x, token)


def turning(u, a, theta, z, C, s, h):
    """Reversed in time; `z` is a complex input."""

    def token(t, states):
        s, h = states
        t = u.shape[1] - 1 - t
        after = sigmoid(a[:, t, :, None]) * torch.exp(1j * theta[:, t]) * s + z[:, t, None] * u[:, t, :, None]
        h = torch.tanh(a[:, t]) * h + u[:, t]
        return ((C * after).real + (C.conj() * s).imag).sum(-1) + h, (after, h)

    y, states = run(u.shape[1], (s, h), token)
    return y.flip(1), *states


def hgrn(i, f_raw, gamma, h):
    def token(t, h):
        f = sigmoid(gamma) + (1 - sigmoid(gamma)) * sigmoid(f_raw[:, t])
        h = f * h + (1 - f) * i[:, t] * sigmoid(i[:, t])
        return h, h

    return run(i.shape[1], h, token)


class BoundedRoot(torch.autograd.Function):
    """A square root with the gradient rule of the paper's own code."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sqrt(x)

    @staticmethod
    def backward(ctx, dy):
        return dy / torch.sqrt(torch.clamp(4 * ctx.saved_tensors[0], min=1e-6))


def rg_lru(x, r_raw, i_raw, Lambda, h, position):
    def token(t, h):
        g = -8 * sigmoid(r_raw[:, t]) * softplus(Lambda)
        first = (position + t == 0)[:, None]
        a = torch.where(first, 0, torch.exp(g))
        scale = torch.where(first, 1, BoundedRoot.apply(-torch.expm1(2 * g)))
        h = a * h + scale * sigmoid(i_raw[:, t]) * x[:, t]
        return h, h

    return run(x.shape[1], h, token)


def wkv(k, v, decay, bonus):
    """Quotients of plain sums, with nothing kept from overflowing."""
    a = b = torch.zeros_like(k[:, 0])
    outputs = []
    for t in range(k.shape[1]):
        own = torch.exp(bonus + k[:, t])
        outputs.append((a + own * v[:, t]) / (b + own))
        a, b = (torch.exp(-torch.exp(decay)) * x + torch.exp(k[:, t]) * w for x, w in ((a, v[:, t]), (b, 1)))
    return torch.stack(outputs, 1)
