"""Times of a package's op beside two others on the same random data: its sequential reference, and a hand-written
chunked form of attention with one decay a head and token, which is what a person would write for the plainest case."""

from __future__ import annotations

import statistics
import time

from .sample import Shape, draw

REPEATS, WARMUPS, ENOUGH = 7, 1, 6.0
"""Runs that count and that do not; a contender that has used ENOUGH seconds is not run again."""

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
    """Seconds (median) of each contender, forward and forward + backward; batch 1, bfloat16 on a GPU, float32 elsewhere.

    The contenders take turns, so that whatever else the machine does falls on all of them.
    """
    import torch

    heads, dtype = (4, torch.float32) if device == "cpu" else (32, torch.bfloat16)
    shape = Shape(1, tokens, heads, 1, {**dict(spec.dims), **dict(spec.counts)})
    values = [x.requires_grad_() for x in draw(spec, shape).to(dtype, device, torch.float32).arguments]
    contenders = {
        "op": (getattr(package, spec.name), values),
        "sequential reference": (getattr(package, f"{spec.name}_reference"), values),
    }
    yardstick = _yardstick_arguments(spec, shape, dtype, device)
    if yardstick is not None:
        contenders["hand-written chunked attention"] = (chunked_decay_attention, yardstick)
    jobs = {}
    for name, (function, given) in contenders.items():
        jobs[name, "forward"] = _forward(function, given, device)
        if name != "sequential reference" or tokens <= LOOP:
            jobs[name, "forward + backward"] = _forward_backward(function, given, device)
    case = {"recurrence": spec.name, "sizes": dict(shape.sizes), "tokens": tokens, "heads": heads, "device": device}
    seconds = _medians(jobs)
    return [
        {**case, "dtype": str(dtype).split(".")[-1], "what": name, "direction": direction, "seconds": seconds[name, direction],
         "times the op": seconds[name, direction] / seconds["op", direction]}
        for name, direction in jobs
    ]  # fmt: skip


def _yardstick_arguments(spec, shape: Shape, dtype, device: str):
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


def _forward(function, given, device: str):
    import torch

    def run() -> float:
        _wait(device)
        begin = time.perf_counter()
        with torch.no_grad():
            function(*given)
        _wait(device)
        return time.perf_counter() - begin

    return run


def _forward_backward(function, given, device: str):
    import torch

    cotangents = []

    def run() -> float:
        for x in given:
            x.grad = None
        _wait(device)
        begin = time.perf_counter()
        result = function(*given)
        y = result if isinstance(result, torch.Tensor) else result.y
        if not cotangents:  # the first run only warms up
            cotangents.append(torch.randn_like(y))
        y.backward(cotangents[0])
        _wait(device)
        return time.perf_counter() - begin

    return run


def _medians(jobs: dict) -> dict:
    taken: dict = {key: [] for key in jobs}
    for _ in range(WARMUPS + REPEATS):
        for key, run in jobs.items():
            if len(taken[key]) <= WARMUPS or sum(taken[key]) < ENOUGH:
                taken[key].append(run())
    return {key: statistics.median(seconds[WARMUPS:]) for key, seconds in taken.items()}


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
    title = f"{spec.name}: T={rows[0]['tokens']}, H={rows[0]['heads']}, {sizes}, {rows[0]['dtype']}, {machine}"
    drawn = Table(title=title, title_justify="left")
    for column, justify in (("", "left"), ("direction", "left"), ("ms", "right"), ("times the op", "right")):
        drawn.add_column(column, justify=justify)
    for row in rows:
        drawn.add_row(row["what"], row["direction"], f"{row['seconds'] * 1e3:.1f}", f"{row['times the op']:.2f}")
    return drawn
