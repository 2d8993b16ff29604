"""The matrix-product family as plain loops: one state [N, P], a list of what each token does to it, nothing shared with the compiler."""

from __future__ import annotations

import torch


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def unit(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def softplus(x):
    return torch.log1p(torch.exp(x))


def outer(k, v):
    return k[..., :, None] * v[..., None, :]


def recall(S, k):
    """S^T k."""
    return (S * k[..., :, None]).sum(-2)


def run(length, S, token):
    """`token(t, S)` gives the output of token t and the state after it. Reads [B, T, H, P] and the last state."""
    outputs = []
    for t in range(length):
        o, S = token(t, S)
        outputs.append(o)
    return torch.stack(outputs, 1), S


def zeros(k, v):
    return torch.zeros(k.shape[0], k.shape[2], k.shape[-1], v.shape[-1], dtype=k.dtype)


def gla(q, k, v, g_raw):
    alpha = torch.exp(torch.log(sigmoid(g_raw)) / 16)

    def token(t, S):
        S = alpha[:, t, :, :, None] * S + outer(k[:, t], v[:, t])
        return recall(S, q[:, t]) * q.shape[-1] ** -0.5, S

    return run(q.shape[1], zeros(k, v), token)


def iplr(q, k, a, b, v, beta_raw):
    an, bn, beta = unit(a), unit(b), -sigmoid(beta_raw)

    def token(t, S):
        moved = beta[:, t, :, None] * recall(S, an[:, t])
        S = S + outer(bn[:, t], moved) + outer(k[:, t], v[:, t])
        return recall(S, q[:, t]) * q.shape[-1] ** -0.5, S

    return run(q.shape[1], zeros(q, v), token)


def hgrn2(q, f_raw, v, bound):
    low = sigmoid(bound)
    f = low + (1 - low) * sigmoid(f_raw)

    def token(t, S):
        S = f[:, t, :, :, None] * S + outer(1 - f[:, t], v[:, t])
        return recall(S, q[:, t]), S

    return run(q.shape[1], zeros(q, v), token)


def rwkv5(r, k, v, decay, u):
    return rwkv6(r, k, torch.zeros_like(k), v, decay, u)


def rwkv6(r, k, w_raw, v, w0, u):
    w = torch.exp(-torch.exp(w0 + w_raw))

    def token(t, S):
        y = recall(S, r[:, t]) + (r[:, t] * u * k[:, t]).sum(-1, keepdim=True) * v[:, t]
        return y, w[:, t, :, :, None] * S + outer(k[:, t], v[:, t])

    return run(r.shape[1], zeros(k, v), token)


def delta(q, k, v, beta, decay, forget_first=True, erase=None):
    """A delta rule: `decay` [B, T, H, N] or with N = 1, `erase` the key that reads (the write key), ff or rf."""

    def token(t, S):
        key, read = k[:, t], (k if erase is None else erase)[:, t]
        kept = decay[:, t, :, :, None] * S
        error = v[:, t] - recall(kept if forget_first else S, read)
        S = kept + outer(key, beta[:, t] * error)
        return recall(S, q[:, t]) * q.shape[-1] ** -0.5, S

    return run(q.shape[1], zeros(k, v), token)


def deltanet(q, k, v, beta_raw):
    beta = sigmoid(beta_raw)[..., None]
    return delta(unit(q), unit(k), v, beta, torch.ones_like(k))


def gated_deltanet(q, k, v, a, beta_raw, A_log, dt_bias, reach=1):
    share = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(share, 2), k.repeat_interleave(share, 2)
    decay = torch.exp(-torch.exp(A_log) * softplus(a + dt_bias))[..., None]
    return delta(unit(q), unit(k), v, reach * sigmoid(beta_raw)[..., None], decay)


def kda(q, k, a, v, beta_raw, A_log, dt_bias):
    decay = torch.exp(-5 * sigmoid(torch.exp(A_log)[:, None] * (a + dt_bias)))
    return delta(unit(q), unit(k), v, sigmoid(beta_raw)[..., None], decay)


def comba(q, k, v, a, beta_raw, A_log, dt_bias, d, D):
    decay = torch.exp(-torch.exp(A_log) * softplus(a + dt_bias))[..., None]
    p = sigmoid(d)[:, None] * unit(k)
    return delta(unit(q) - D[:, None] * p, unit(k), v, sigmoid(beta_raw)[..., None], decay, forget_first=False, erase=p)


def gdn2(q, k, a, b_raw, v, w_raw, A_log, dt_bias):
    decay = torch.exp(-torch.exp(A_log)[:, None] * softplus(a + dt_bias))
    key = unit(k)
    return delta(unit(q), key, sigmoid(w_raw) * v, torch.ones(1, q.shape[1], 1, 1), decay, erase=sigmoid(b_raw) * key)


def dplr(q, k, a, b, g_raw, v, beta_raw):
    decay, a, b = torch.exp(-softplus(g_raw)), unit(a), -sigmoid(beta_raw)[..., None] * unit(b)

    def token(t, S):
        S = decay[:, t, :, :, None] * S + outer(b[:, t], recall(S, a[:, t])) + outer(k[:, t], v[:, t])
        return recall(S, q[:, t]), S

    return run(q.shape[1], zeros(k, v), token)


def rwkv7(r, k, w_raw, a_raw, v, k_k, k_a):
    w, a = torch.exp(-sigmoid(w_raw) / torch.e**0.5), sigmoid(a_raw)
    kk, key = unit(k * k_k), k * (1 + (a - 1) * k_a)

    def token(t, S):
        S = w[:, t, :, :, None] * S - outer(a[:, t] * kk[:, t], recall(S, kk[:, t])) + outer(key[:, t], v[:, t])
        return recall(S, r[:, t]), S

    return run(r.shape[1], zeros(k, v), token)


def deltaproduct(q, k, v, beta_raw):
    return gated_deltaproduct(q, k, v, beta_raw, torch.full_like(beta_raw[..., 0], -1e9), *torch.zeros(2, q.shape[2], dtype=q.dtype))


def gated_deltaproduct(q, k, v, beta_raw, a, A_log, dt_bias):
    decay, beta = torch.exp(-torch.exp(A_log) * softplus(a + dt_bias)), 2 * sigmoid(beta_raw)

    def token(t, S):
        S = decay[:, t, :, None, None] * S
        for j in range(k.shape[-2]):
            error = v[:, t, :, j] - recall(S, k[:, t, :, j])
            S = S + outer(k[:, t, :, j], beta[:, t, :, j, None] * error)
        return recall(S, q[:, t]) * q.shape[-1] ** -0.5, S

    return run(q.shape[1], zeros(k[..., 0, :], v[..., 0, :]), token)


def titans(q, k, v, eta_raw, theta_raw, alpha_raw, M, Z):
    """Reads, and the last memory and momentum, from those of the token before."""
    q, k = unit(q), unit(k)
    eta, theta, alpha = (sigmoid(x)[..., None, None] for x in (eta_raw, theta_raw, alpha_raw))
    outputs = []
    for t in range(q.shape[1]):
        Z = eta[:, t] * Z - theta[:, t] * outer(k[:, t], recall(M, k[:, t]) - v[:, t])
        M = (1 - alpha[:, t]) * M + Z
        outputs.append(recall(M, q[:, t]))
    return torch.stack(outputs, 1), M, Z
