"""A yardstick: attention with one decay a head and token in chunks, which is what a person would write by hand."""

from __future__ import annotations

from .sample import Shape


def chunked_decay_attention(q, k, v, log_decay, chunk: int = 64):
    """o_i = sum over j <= i of exp(g_j+1 + ... + g_i) (q_i . k_j) v_j, in chunks.

    q, k [B, T, H, N]; v [B, T, H, P]; log_decay [B, T, H]; T a multiple of `chunk`.
    """
    import torch

    b, t, h, n = q.shape
    p, c = v.shape[-1], t // chunk
    q, k = (x.view(b, c, chunk, h, n).transpose(2, 3) for x in (q, k))  # [B, C, H, L, N]
    v = v.view(b, c, chunk, h, p).transpose(2, 3)
    g = log_decay.view(b, c, chunk, h).transpose(2, 3).cumsum(-1)  # [B, C, H, L]
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
    weights = (g.unsqueeze(-1) - g.unsqueeze(-2)).masked_fill(~causal, float("-inf")).exp()
    inside = torch.einsum("bchln,bchmn->bchlm", q, k).mul(weights)
    last = g[..., -1:]
    added = torch.einsum("bchln,bchl,bchlp->bchnp", k, (last - g).exp(), v)
    state, entering = torch.zeros_like(added[:, 0]), []
    for i in range(c):
        entering.append(state)
        state = state * last[:, i].exp().unsqueeze(-1) + added[:, i]
    across = torch.einsum("bchln,bchnp->bchlp", q * g.exp().unsqueeze(-1), torch.stack(entering, 1))
    return (torch.einsum("bchlm,bchmp->bchlp", inside, v) + across).transpose(2, 3).reshape(b, t, h, p)


def arguments(spec, shape: Shape, dtype, device: str):
    """Random q, k, v and decay of the state's own widths; None when the state is no matrix or T no multiple of 64."""
    import torch

    matrices = [s for s in spec.states if not s.type.is_scalar and not s.type.is_column and s.type.field == "real"]
    if not matrices or shape.length % 64:
        return None
    n, p = (int(d.value(dict(shape.sizes))) for d in (matrices[0].type.rows, matrices[0].type.cols))
    generator = torch.Generator().manual_seed(1)
    lead = (shape.batch, shape.length, shape.heads)
    drawn = [torch.randn(*lead, width, generator=generator) for width in (n, n, p)]
    drawn.append(-0.1 * torch.rand(lead, generator=generator))
    return [x.to(device, dtype).requires_grad_() for x in drawn]
