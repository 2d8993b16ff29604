"""The first call: forward and backward in a process of its own with an empty kernel cache, compilation and sweeps included.

`python -m ssmgen.runtime.bench_first` reads a request from standard input and answers on its last line; imports, the data and
the device's start are not part of the time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .bench_subject import Subject
from .peers import Peer, first_line

LONGEST = 600.0
"""Seconds after which a first call is given up."""


def first_call(subject: Subject, shape: tuple[int, int, int], cache: Path, peer: Peer | None = None, longest: float = LONGEST) -> dict:
    """`seconds` of the first forward + backward of the op, or of a peer; `failure` where there was none; `compiled`, what Triton did
    in it: the number of kernels, seconds of them all, and of the one that took longest.

    `cache` is an empty folder: whatever is cached on the way to machine code, by Triton, torch or the driver, is left in it.
    """
    request = {
        "name": subject.source.name, "text": subject.source.text, "dims": dict(subject.dims), "recurrence": subject.spec.name,
        "device": subject.device, "shape": list(shape), "peer": None if peer is None else [str(peer.path.resolve()), peer.name],
    }  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    found = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, **_caches(cache), "PYTHONPATH": found}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ssmgen.runtime.bench_first"], input=json.dumps(request), capture_output=True, text=True,
            env=environment, timeout=longest,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _failed(f"no first call within {longest:.0f} s")
    if done.returncode:
        return _failed((done.stderr.strip().splitlines() or ["no words"])[-1][:120])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _caches(folder: Path) -> dict[str, str]:
    """Where a process finds nothing that was compiled before."""
    return {"TRITON_CACHE_DIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"), "CUDA_CACHE_PATH": str(folder / "driver")}


def _failed(words: str) -> dict:
    return {"seconds": None, "failure": words, "compiled": None}


@contextmanager
def _listening() -> Iterator[list[float]]:
    """While inside, the seconds that Triton compiles each kernel, without those that a cache has; none without Triton."""
    taken: list[float] = []
    if not importlib.util.find_spec("triton"):
        yield taken
        return
    from triton import knobs  # imported now: the package imports it at its first call, and a peer has it already

    def told(*, times, cache_hit, **_) -> None:
        if not cache_hit:
            taken.append(times.total * 1e-6)

    with knobs.compilation.scope():
        knobs.compilation.listener = told
        yield taken


def answer(request: dict) -> dict:
    """Do the one call that a request asks for; see `first_call`."""
    import torch

    from ..source import Source
    from . import bench_clock, peers
    from .bench_subject import subjects

    device = request["device"]
    found = [] if request["peer"] is None else peers.load(Path(request["peer"][0]))
    (subject,) = (
        each
        for each in subjects(Source(request["name"], request["text"]), request["dims"], device, found)
        if each.spec.name == request["recurrence"]
    )
    case = subject.case(*request["shape"])
    leaves = [x.requires_grad_() for x in case.arguments]
    peer = next((each for each in found if each.name == request["peer"][1]), None)

    def call():
        return subject.op(*leaves) if peer is None else peer.call(dict(zip(subject.names(case), leaves, strict=True)), subject.sizes)

    torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)  # the device and its library of products are up
    bench_clock.wait(device)
    with _listening() as taken:
        begin = time.perf_counter()
        y = call()
        y.backward(torch.ones_like(y))
        bench_clock.wait(device)
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "failure": "",
        "compiled": {"kernels": len(taken), "seconds": sum(taken), "longest": max(taken, default=0.0)},
    }


if __name__ == "__main__":
    try:
        reply = answer(json.load(sys.stdin))
    except Exception as error:
        reply = _failed(f"{type(error).__name__}: {first_line(error)}")
    print("\n" + json.dumps(reply))
