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
from pathlib import Path

from .bench_subject import Subject
from .peers import Peer, first_line

LONGEST = 600.0
"""Seconds after which a first call is given up."""


def first_call(subject: Subject, shape: tuple[int, int, int], cache: Path, peer: Peer | None = None, longest: float = LONGEST) -> dict:
    """`seconds` of the first forward + backward of the op, or of a peer; `failure` where there was none.

    `cache` is an empty folder; compiled kernels are left in it.
    """
    request = {
        "name": subject.source.name, "text": subject.source.text, "dims": dict(subject.dims), "recurrence": subject.spec.name,
        "device": subject.device, "shape": list(shape), "peer": None if peer is None else [str(peer.path.resolve()), peer.name],
    }  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    found = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONPATH": found}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ssmgen.runtime.bench_first"], input=json.dumps(request), capture_output=True, text=True,
            env=environment, timeout=longest,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"seconds": None, "failure": f"no first call within {longest:.0f} s"}
    if done.returncode:
        return {"seconds": None, "failure": (done.stderr.strip().splitlines() or ["no words"])[-1][:120]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def answer(request: dict) -> dict:
    """Do the one call that a request asks for; see `first_call`."""
    import torch

    from ..source import Source
    from . import bench_clock, peers
    from .bench_subject import subjects

    if importlib.util.find_spec("triton"):
        import triton  # noqa: F401  (the package imports it at its first call; a peer has it already)
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
    begin = time.perf_counter()
    y = call()
    y.backward(torch.ones_like(y))
    bench_clock.wait(device)
    return {"seconds": time.perf_counter() - begin, "failure": ""}


if __name__ == "__main__":
    try:
        reply = answer(json.load(sys.stdin))
    except Exception as error:
        reply = {"seconds": None, "failure": f"{type(error).__name__}: {first_line(error)}"}
    print("\n" + json.dumps(reply))
