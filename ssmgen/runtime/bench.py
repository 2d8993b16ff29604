"""`ssmgen bench`: a package's op beside its floor, its sequential reference, a hand-written chunked form and its peers.

`measure` times one recurrence at one shape; `first_calls`, `bench_accuracy`, `bench_kernels` and `bench_decode` fill in the rest of the
report, which `describe` opens with the machine and the versions. Times are in seconds, memory in bytes.
"""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from pathlib import Path

from .. import __version__
from . import bench_clock, floors
from .bench_accuracy import verdict
from .bench_first import first_call
from .bench_subject import Contender, Subject, contenders
from .peers import Peer, first_line

FORMAT = 3
"""The number of the report's format."""

SHAPES = {"cpu": ((1, 4096, 4),), "cuda": ((4, 8192, 16), (1, 32768, 16), (1, 4096, 16))}
"""Batch, tokens and heads, where none are given."""


def describe(device: str, rates: floors.Rates, peers: list[Peer]) -> dict:
    """The report without its measurements: the machine, its rates, the versions of what runs."""
    import torch

    about = {"kind": device, "copy_bytes_per_second": rates.copy, "product_flops_per_second": rates.product}
    if device == "cpu":
        about |= {"name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    else:
        properties = torch.cuda.get_device_properties(0)
        about |= {"name": properties.name, "memory_bytes": properties.total_memory, "multiprocessors": properties.multi_processor_count}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "ssmgen": __version__, "cuda": torch.version.cuda}
    try:
        versions["triton"] = metadata.version("triton")
    except metadata.PackageNotFoundError:
        versions["triton"] = None
    for peer in peers:
        versions |= peer.versions
    return {"format": FORMAT, "device": about, "versions": versions, "runs": [], "decode": [], "accuracy": [], "first_calls": []}


def first_calls(subject: Subject, shape: tuple[int, int, int], folder: Path) -> dict[str, dict]:
    """The first call of the op and of every peer that is there, by name. All kernels they compiled lie in `folder` afterwards."""
    found = {}
    for peer in (None, *(peer for peer in subject.peers if not peer.missing)):
        cache = folder / "first"
        cache.mkdir(parents=True)
        found["op" if peer is None else peer.name] = first_call(subject, shape, cache, peer)
        shutil.copytree(cache, folder, dirs_exist_ok=True)
        shutil.rmtree(cache)
    return found


def measure(subject: Subject, shape: tuple[int, int, int], rates: floors.Rates, accuracy: list[dict], first: dict[str, dict]) -> dict:
    """One shape: the floors, and a row for each contender. `accuracy` and `first` are what was found of it before."""
    batch, tokens, heads = shape
    case = subject.case(batch, tokens, heads)
    y = _output(subject, case)
    flops = subject.flops * batch * tokens * heads
    work = {"forward": floors.forward(case.arguments, y, flops), "both": floors.forward_backward(case.arguments, y, flops)}
    floor = {direction: each.seconds(rates) for direction, each in work.items()}
    entrants = contenders(subject, case)
    times, peaks = _times(entrants, subject.device)
    rows, whole = [], {each.peer: index for index, each in enumerate(entrants)}
    for index, entrant in enumerate(entrants):
        row = {"what": entrant.what, "kind": entrant.kind, "tokens": entrant.tokens, "note": entrant.note, "failure": entrant.failure}
        judged = verdict(accuracy, entrant.peer or entrant.what)
        row |= {"accuracy": judged or None, "peak_bytes": peaks.get(index)}
        share = entrant.tokens / tokens  # of the sequence that the contender walks
        for direction in ("forward", "both"):
            found = times.get((index, direction))
            row[direction] = found
            comparable = found and entrant.kind != "yardstick"  # the yardstick has data of its own
            row[f"{direction}_over_floor"] = found["median"] / (floor[direction] * share) if comparable else None
            own = times[0, direction]["median"] * share
            row[f"{direction}_ratio"] = found["median"] / own if found and _is_fair(judged, direction) else None
        reply = first.get(entrant.peer or entrant.what) if index == whole[entrant.peer] or entrant.kind == "op" else None
        row["first_call_seconds"] = reply["seconds"] if reply else None
        if reply and reply["failure"] and not row["failure"]:
            row["note"] = "; ".join(filter(None, (row["note"], f"first call: {reply['failure']}")))
        rows.append(row)
    return {
        "recurrence": subject.spec.name, "axes": list(subject.axes), "device": subject.device, "dtype": str(subject.dtype).split(".")[-1],
        "shape": {"batch": batch, "tokens": tokens, "heads": heads}, "sizes": subject.sizes,
        "floors": {d: {"seconds": floor[d], "bytes": work[d].bytes, "flops": work[d].flops} for d in work}, "rows": rows,
        "kernels": None,
    }  # fmt: skip


def _output(subject: Subject, case):
    import torch

    with torch.no_grad():
        return subject.op(*case.arguments)


def _is_fair(judged: dict, direction: str) -> bool:
    """No ratio with a wrong result. Gradients known to be wrong are timed for what they cost, and marked wherever they show."""
    if not judged:
        return True
    if judged["output_is_wrong"]:
        return False
    return direction == "forward" or not judged["gradients_are_wrong"] or bool(judged["known"])


def _times(entrants: list[Contender], device: str) -> tuple[dict, dict]:
    """Spreads by (contender, direction), and on a GPU the peak of memory by contender. Fills in `failure` where one fails."""
    calls, peaks = {}, {}
    for index, entrant in enumerate(entrants):
        if entrant.failure:
            continue
        try:
            entrant.forward()
            calls[index, "forward"] = entrant.forward
            if entrant.has_backward:
                run = entrant.both()
                run()
                calls[index, "both"] = run
                if device != "cpu":
                    peaks[index] = peak(run)
        except Exception as error:
            if entrant.kind == "op":
                raise
            entrant.failure = f"{type(error).__name__}: {first_line(error)}"
            calls.pop((index, "both"), None)
    if device == "cpu":
        taken = bench_clock.in_turns(calls)
    else:
        taken = {key: bench_clock.on_gpu(call) for key, call in calls.items()}
    return {key: bench_clock.spread(seconds) for key, seconds in taken.items()}, peaks


def peak(run) -> int:
    """Bytes that a run takes on the GPU beyond what is there before, gradients included."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
