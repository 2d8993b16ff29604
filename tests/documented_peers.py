"""What peers' documentation says that they compute, token by token in torch: adapters are held against it where no peer is installed."""

import torch
import torch.nn.functional as F


def linear(q, k, v, g=None, scale=None):
    """o_t = scale q_t^T S_t with S_t = exp(g_t) S_{t-1} + k_t v_t^T, as the peers' documentation says it; g [B, T, H(, N)] or [H]."""
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    g = torch.zeros(()) if g is None else g
    g = g if g.dim() == 4 else g.expand(q.shape[:3])[..., None]

    def step(state, t):
        return g[:, t, :, :, None].exp() * state + k[:, t, :, :, None] * v[:, t, :, None]

    return scale * walk(q, v, step)


def chunk_simple_gla(q, k, v, g=None, g_gamma=None, scale=None):
    return linear(q, k, v, g if g_gamma is None else g_gamma, scale), None


def chunk_retention(q, k, v):
    return linear(q, k, v, torch.log(1 - 2.0 ** (-5 - torch.arange(q.shape[2])))), None


def chunk_linear_attn(q, k, v, normalize=True):
    assert not normalize
    return linear(q, k, v), None


def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D=None, dt_bias=None, dt_softplus=False):
    assert dt_softplus and chunk_size in (128, 256)
    dt = F.softplus(dt + dt_bias)
    B, C = (each.expand(*x.shape[:3], each.shape[-1]) for each in (B, C))
    return linear(C, dt[..., None] * B, x, dt * A, 1.0) + D[:, None] * x


def mlstm_siging_chunkwise__xl_chunk(q, k, v, i, f, eps, normalize, chunk_size, autocast_kernel_dtype):
    assert eps == 0 and normalize and autocast_kernel_dtype == q.dtype
    q, k, v, i, f = (x.transpose(1, 2) for x in (q, k, v, i, f))
    k, f = torch.sigmoid(i)[..., None] * k, F.logsigmoid(f)
    weight = linear(q, k, torch.ones_like(v[..., :1]), f)
    return (linear(q, k, v, f) / weight.abs().clamp(min=1)).transpose(1, 2)


def walk(q, v, step, is_exclusive=False):
    """o_t = q_t^T S_t of a state that `step(state, t)` moves on from zeros; q_t^T S_{t-1} where exclusive."""
    state, out = q.new_zeros(*q.shape[:1], *q.shape[2:], v.shape[-1]), []
    for t in range(q.shape[1]):
        before, state = state, step(state, t)
        out.append(torch.einsum("bhn,bhnp->bhp", q[:, t], before if is_exclusive else state))
    return torch.stack(out, 1)


def recalled(key, state):
    return torch.einsum("bhn,bhnp->bhp", key, state)[:, :, None]


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def corrected(q, k, v, g, erase, write):
    """S <- diag(exp(g)) S, then S <- S + k (write * v - S^T (erase * k))^T; g [B, T, H] or [B, T, H, N]."""
    g = g if g.dim() == 4 else g[..., None]

    def step(state, t):
        state = g[:, t, :, :, None].exp() * state
        missing = (write * v)[:, t, :, None] - recalled((erase * k)[:, t], state)
        return state + k[:, t, :, :, None] * missing

    return walk(q, v, step) * q.shape[-1] ** -0.5


def chunk_gla(q, k, v, g):
    return linear(q, k, v, g), None


def chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel=False):
    assert use_qk_l2norm_in_kernel and v.shape[2] % q.shape[2] == 0
    q, k = (unit(x).repeat_interleave(v.shape[2] // q.shape[2], 2) for x in (q, k))
    return corrected(q, k, v, g, beta[..., None], beta[..., None]), None


def chunk_delta_rule(q, k, v, beta, use_qk_l2norm_in_kernel=False):
    return chunk_gated_delta_rule(q, k, v, torch.zeros_like(beta), beta, use_qk_l2norm_in_kernel)


def chunk_kda(q, k, v, g, beta, use_qk_l2norm_in_kernel=False, safe_gate=False, lower_bound=None):
    assert not safe_gate or g.min() >= lower_bound
    return chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel)


def chunk_gdn2(q, k, v, g, b, w, use_qk_l2norm_in_kernel=False):
    assert use_qk_l2norm_in_kernel
    return corrected(unit(q), unit(k), v, g, b, w), None


def chunk_comba(q, k, v, p, g, beta):
    """The error is read, along p, from the state before it decays, as in the chunk kernels."""

    def step(state, t):
        missing = v[:, t, :, None] - recalled(p[:, t], state)
        return g[:, t, :, None, None].exp() * state + (beta[..., None] * k)[:, t, :, :, None] * missing

    return walk(q, v, step) * q.shape[-1] ** -0.5, None


def chunk_dplr_delta_rule(q, k, v, a, b, gk, scale=None):
    def step(state, t):
        moved = b[:, t, :, :, None] * recalled(a[:, t], state)
        return gk[:, t, :, :, None].exp() * state + moved + k[:, t, :, :, None] * v[:, t, :, None]

    return walk(q, v, step) * (q.shape[-1] ** -0.5 if scale is None else scale), None


def chunk_rwkv7(r, w, k, v, a, b):
    return chunk_dplr_delta_rule(r, k, v, a, b, w, 1.0)


def chunk_rwkv6(r, k, v, w, u, scale):
    def step(state, t):
        return w[:, t, :, :, None].exp() * state + k[:, t, :, :, None] * v[:, t, :, None]

    own = torch.einsum("bthn,hn,bthn->bth", r, u, k)[..., None] * v
    return scale * (walk(r, v, step, is_exclusive=True) + own), None


def chunk_gated_delta_product(q, k, v, g, beta, num_householder):
    n = num_householder

    def step(state, t):
        state = g[:, t, :, None, None].exp() * state
        for row in range(t * n, t * n + n):
            missing = v[:, row, :, None] - recalled(k[:, row], state)
            state = state + (beta[..., None] * k)[:, row, :, :, None] * missing
        return state

    return walk(q, v, step) * q.shape[-1] ** -0.5, None


def hgrn(x, g):
    state, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        state = g[:, t].exp() * state + x[:, t]
        out.append(state)
    return torch.stack(out, 1), None


def selective_scan_fn(u, delta, A, B, C, D, delta_bias=None, delta_softplus=False):
    assert delta_softplus
    dt = F.softplus(delta + delta_bias[:, None])
    state, out = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        state = (dt[..., t, None] * A).exp() * state + (dt * u)[..., t, None] * B[:, None, :, t]
        out.append((state * C[:, None, :, t]).sum(-1) + D * u[..., t])
    return torch.stack(out, 2)


def mlstm_chunkwise__xl_chunk(q, k, v, i, f, eps, chunk_size, autocast_kernel_dtype):
    assert eps == 0 and autocast_kernel_dtype == q.dtype
    q, k, v, i, f = (x.transpose(1, 2) for x in (q, k, v, i, f))
    k, f = i.exp()[..., None] * k, F.logsigmoid(f)
    weight = linear(q, k, torch.ones_like(v[..., :1]), f)
    return (linear(q, k, v, f) / weight.abs().clamp(min=1)).transpose(1, 2)


PEERS = {
    "fla.ops.simple_gla": {"chunk_simple_gla": chunk_simple_gla},
    "fla.ops.common.chunk_o": {"TRITON_ABOVE_3_7_1": False},
    "fla.ops.retention": {"chunk_retention": chunk_retention},
    "fla.ops.linear_attn": {"chunk_linear_attn": chunk_linear_attn},
    "mamba_ssm.ops.triton.ssd_combined": {"mamba_chunk_scan_combined": mamba_chunk_scan_combined},
    "mlstm_kernels.torch.chunkwise.triton_xl_chunk_siging": {"mlstm_siging_chunkwise__xl_chunk": mlstm_siging_chunkwise__xl_chunk},
    "fla.ops.gla": {"chunk_gla": chunk_gla},
    "fla.ops.delta_rule": {"chunk_delta_rule": chunk_delta_rule},
    "fla.ops.gated_delta_rule": {"chunk_gated_delta_rule": chunk_gated_delta_rule},
    "fla.ops.kda": {"chunk_kda": chunk_kda},
    "fla.ops.rwkv6": {"chunk_rwkv6": chunk_rwkv6},
    "fla.ops.rwkv7": {"chunk_rwkv7": chunk_rwkv7},
    "fla.ops.gated_delta_product": {"chunk_gated_delta_product": chunk_gated_delta_product},
    "fla.ops.comba": {"chunk_comba": chunk_comba},
    "fla.ops.gdn2": {"chunk_gdn2": chunk_gdn2},
    "fla.ops.generalized_delta_rule": {"chunk_dplr_delta_rule": chunk_dplr_delta_rule},
    "fla.ops.hgrn": {"chunk_hgrn": hgrn, "fused_recurrent_hgrn": hgrn},
    "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan_fn},
    "mlstm_kernels.torch.chunkwise.triton_xl_chunk": {"mlstm_chunkwise__xl_chunk": mlstm_chunkwise__xl_chunk},
}
"""What each module of a peer holds, as far as the adapters call it."""
