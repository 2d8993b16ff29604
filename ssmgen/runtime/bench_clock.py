"""Times of calls: on a GPU between events, each run behind a flush of its cache; elsewhere by the clock, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

FLUSH = 256 << 20
"""Bytes written between two runs on a GPU, several times what its second-level cache holds: no run finds its data there."""

RUNS, SECONDS = (7, 200), 0.5
"""On a GPU: at least and at most so many runs, as many as fit SECONDS."""

TURNS, ENOUGH = 7, 6.0
"""Elsewhere: runs a contender; one that has used ENOUGH seconds is not run again."""


def spread(seconds: list[float]) -> dict:
    """Median, quartiles and number of the runs, in seconds."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {"median": middle, "quartiles": [low, high], "runs": len(seconds)}


def on_gpu(call: Callable[[], object]) -> list[float]:
    """Seconds of single runs, from the first launch to the end of the last kernel.

    The host queues runs without waiting, as in training: what it does from Python costs time where it is slower than the
    device, and is hidden where it is not.
    """
    import torch

    call()
    wait("cuda")
    begin = time.perf_counter()
    for _ in range(3):
        call()
    wait("cuda")
    each = max((time.perf_counter() - begin) / 3, 1e-6)
    runs = min(max(int(SECONDS / each), RUNS[0]), RUNS[1])
    flushed = torch.empty(FLUSH, dtype=torch.int8, device="cuda")
    for _ in range(max(1, runs // 5)):
        call()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for start, end in events:
        flushed.zero_()
        start.record()
        call()
        end.record()
    wait("cuda")
    return [start.elapsed_time(end) * 1e-3 for start, end in events]


def by_the_clock(call: Callable[[], object], device: str) -> float:
    """Seconds of one run, from the call until its result is there."""
    wait(device)
    begin = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - begin


def in_turns(calls: Mapping, device: str = "cpu") -> dict:
    """Seconds of every call's runs after one that only warms up; turns, so that what else the machine does falls on all."""
    taken: dict = {key: [] for key in calls}
    for call in calls.values():
        call()
    for _ in range(TURNS):
        for key, call in calls.items():
            if not taken[key] or sum(taken[key]) < ENOUGH:
                taken[key].append(by_the_clock(call, device))
    return taken


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
