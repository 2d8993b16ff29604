"""Times of a package's op beside two others on the same random data: its sequential reference, and a hand-written
chunked form of attention with one decay a head and token, which is what a person would write for the plainest case."""

from __future__ import annotations

import statistics
import time

from .sample import Shape, draw

REPEATS, WARMUPS, ENOUGH = 7, 2, 6.0
"""Runs that count and that do not; after ENOUGH seconds no further run is begun."""

LOOP = 256
"""Tokens up to which autograd goes through the sequential reference: its time there grows with the square of the length."""


def chunked_decay_attention(q, k, v, log_decay, chunk: int = 64):
    """o_i = sum over j <= i of exp(g_j+1 + ... + g_i) (q_i . k_j) v_j, in chunks; the yardstick.

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


def measure(spec, package, tokens: int, device: str) -> list[dict]:
    """Seconds (median) of each contender, forward and forward + backward; float32, batch 1."""
    import torch

    heads = 4 if device == "cpu" else 32
    shape = Shape(1, tokens, heads, 1, {**dict(spec.dims), **dict(spec.counts)})
    values = [x.requires_grad_() for x in draw(spec, shape).to(torch.float32, device).arguments]
    op, reference = getattr(package, spec.name), getattr(package, f"{spec.name}_reference")
    contenders = {"op": (op, values), "sequential reference": (reference, values)}
    yardstick = _yardstick_arguments(spec, shape, device)
    if yardstick is not None:
        contenders["hand-written chunked attention"] = (chunked_decay_attention, yardstick)
    rows = []
    for name, (function, given) in contenders.items():
        for direction in ("forward", "forward + backward"):
            if function is reference and direction != "forward" and tokens > LOOP:
                continue
            seconds = _median(function, given, direction != "forward", device)
            case = {"recurrence": spec.name, "sizes": dict(shape.sizes), "tokens": tokens, "heads": heads, "device": device}
            rows.append({**case, "what": name, "direction": direction, "seconds": seconds})
    for row in rows:
        own = next(r for r in rows if r["what"] == "op" and r["direction"] == row["direction"])
        row["times the op"] = row["seconds"] / own["seconds"]
    return rows


def _yardstick_arguments(spec, shape: Shape, device: str):
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
    return [x.to(device).requires_grad_() for x in drawn]


def _median(function, given, backward: bool, device: str) -> float:
    import torch

    def once() -> float:
        for x in given:
            x.grad = None
        _wait(device)
        begin = time.perf_counter()
        if backward:
            result = function(*given)
            y = result if isinstance(result, torch.Tensor) else result.y
            y.sum().backward()
        else:
            with torch.no_grad():
                function(*given)
        _wait(device)
        return time.perf_counter() - begin

    begin, taken = time.perf_counter(), []
    for _ in range(WARMUPS + REPEATS):
        taken.append(once())
        if time.perf_counter() - begin > ENOUGH and len(taken) > 1:
            break
    return statistics.median(taken[WARMUPS:] or taken[-1:])


def _wait(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def table(spec, rows: list[dict]):
    """The measurements of one recurrence on one device as a rich table."""
    import torch
    from rich.table import Table

    sizes = ", ".join(f"{name}={size}" for name, size in rows[0]["sizes"].items())
    machine = f"CPU, {torch.get_num_threads()} threads" if rows[0]["device"] == "cpu" else torch.cuda.get_device_name()
    title = f"{spec.name}: T={rows[0]['tokens']}, H={rows[0]['heads']}, {sizes}, float32, {machine}"
    drawn = Table(title=title, title_justify="left")
    for column, justify in (("", "left"), ("direction", "left"), ("ms", "right"), ("times the op", "right")):
        drawn.add_column(column, justify=justify)
    for row in rows:
        drawn.add_row(row["what"], row["direction"], f"{row['seconds'] * 1e3:.1f}", f"{row['times the op']:.2f}")
    return drawn
