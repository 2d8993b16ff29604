"""Where the time of a run goes on a GPU: what each of its kernels takes, beside the time that was measured and the floor.

Forward is the call that the other tables time, backward the gradients of all arguments of one call, whose graph is kept. Both are
timed as there, the cache flushed between runs; then a few runs are profiled, each by itself and behind a flush, and the one whose
kernels took the middle time in all is shown. What the measured time has beyond the sum of its kernels is work of the host that the
device had to wait for, and pauses between launches.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from . import bench_clock, floors
from .bench_subject import Subject

RUNS = 5
"""Runs that are profiled, and of which the host's part is timed; an odd number, so that one is in the middle."""


class ProfileError(Exception):
    """A profile without kernels."""


def kernels(subject: Subject, shape: tuple[int, int, int], rates: floors.Rates) -> dict[str, dict]:
    """What runs forward and backward at one shape (batch, tokens, heads). Raises ProfileError where the profiler sees nothing."""
    import torch

    batch, tokens, heads = shape
    leaves = [x.detach().requires_grad_() for x in subject.case(batch, tokens, heads).arguments]

    def forward() -> None:
        with torch.no_grad():
            subject.op(*leaves)

    y = subject.op(*leaves)
    cotangent = torch.randn_like(y)

    def backward() -> None:
        torch.autograd.grad(y, leaves, cotangent, retain_graph=True, allow_unused=True)

    flops = subject.flops * batch * tokens * heads
    ahead, both = floors.forward(leaves, y, flops), floors.forward_backward(leaves, y, flops)
    behind = floors.Work(both.bytes - ahead.bytes, both.flops - ahead.flops)
    return {"forward": _of(forward, ahead, rates), "backward": _of(backward, behind, rates)}


def _of(run: Callable[[], None], work: floors.Work, rates: floors.Rates) -> dict:
    measured = bench_clock.spread(bench_clock.on_gpu(run))
    flush = _flush()
    profiled(run)  # the first time the profiler looks for its library
    found = []
    for _ in range(RUNS):
        flush()
        found.append(profiled(run))
    return breakdown(sorted(found, key=lambda ran: sum(seconds for _, seconds in ran))[RUNS // 2], measured, host(run), work, rates)


def _flush() -> Callable[[], None]:
    """What leaves nothing of earlier runs in the device's cache, once it is waited for."""
    import torch

    flushed = torch.empty(bench_clock.FLUSH, dtype=torch.int8, device="cuda")

    def call() -> None:
        flushed.zero_()
        bench_clock.wait("cuda")

    return call


def profiled(run: Callable[[], None]) -> list[tuple[str, float]]:
    """Name and seconds of everything that a run has the device do: kernels, copies, fills. Raises ProfileError when it is nothing."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as watching:
        run()
        torch.cuda.synchronize()
    events = [event for event in watching.events() if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    if not events:
        raise ProfileError(
            "torch's profiler saw no kernel of a run: let it, by `NVreg_RestrictProfilingToAdminUsers=0` or in a container with "
            "`--cap-add SYS_ADMIN`, end other profilers, or leave `--kernels` away"
        )
    return [(event.name, event.time_range.elapsed_us() * 1e-6) for event in events]


def host(run: Callable[[], None]) -> float:
    """Seconds that the host needs to hand a run to an idle device: the middle of a few."""
    import torch

    taken = []
    for _ in range(RUNS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    torch.cuda.synchronize()
    return sorted(taken)[RUNS // 2]


def breakdown(launched: list[tuple[str, float]], measured: dict, host: float, work: floors.Work, rates: floors.Rates) -> dict:
    """The kernels of a run, the longest first, each with its launches, seconds and share; their sum, and what is beside it.

    `kernels_over_bytes` is how many times longer the kernels took than the bytes that have to move do.
    """
    found: dict[str, list[float]] = {}
    for name, seconds in launched:
        found.setdefault(name, []).append(seconds)
    total, moved = sum(seconds for _, seconds in launched), work.bytes / rates.copy
    rows = [{"name": name, "launches": len(each), "seconds": sum(each), "share": sum(each) / total} for name, each in found.items()]
    return {
        "kernels": sorted(rows, key=lambda row: -row["seconds"]), "kernel_seconds": total, "kernels_over_bytes": total / moved,
        "measured": measured, "beside_seconds": measured["median"] - total, "host_seconds": host,
        "floor": {"seconds": work.seconds(rates), "bytes_seconds": moved, "bytes": work.bytes, "flops": work.flops},
    }  # fmt: skip
