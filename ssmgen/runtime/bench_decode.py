"""One token at a time: the package's step, launched from Python and, on a GPU, replayed as a graph."""

from __future__ import annotations

from . import bench_clock, floors
from .bench_subject import Subject
from .peers import first_line

BATCHES = {"cpu": (1,), "cuda": (1, 32, 128)}


def decode(subject: Subject, heads: int, rates: floors.Rates) -> list[dict]:
    """A row a batch size and way of launching; none for a recurrence without a step. Times as in `bench_clock.spread`."""
    import torch

    step = getattr(subject.package, f"{subject.spec.name}_step", None)
    if step is None:
        return []
    rows = []
    for batch in BATCHES[subject.device]:
        case = subject.case(batch, 1, heads)
        with torch.no_grad():
            state = getattr(subject.package, subject.spec.name)(*case.arguments).final_state
        state = subject.package.State(*(part.clone() for part in state))
        arguments = [x[:, 0].contiguous() for x in case.inputs.values()] + list(case.params.values())

        def once(arguments=arguments, state=state):
            with torch.no_grad():
                return step(*arguments, state=state)

        floor = floors.step(arguments, state, once()).seconds(rates)
        ways = {"eager": _eager} if subject.device == "cpu" else {"eager": _eager, "graph": _replayed}
        for way, timed in ways.items():
            row = {"batch": batch, "heads": heads, "launch": way, "floor": floor, "seconds": None, "over_floor": None, "failure": ""}
            try:
                row["seconds"] = bench_clock.spread(timed(once, subject.device))
                row["over_floor"] = row["seconds"]["median"] / floor
            except RuntimeError as error:  # not everything can be captured in a graph
                row["failure"] = first_line(error)
            rows.append(row)
    return rows


def _eager(once, device: str, runs: int = 100) -> list[float]:
    """Each token waited for: what the host needs to launch it is part of the time."""
    for _ in range(runs // 10):
        once()
    return [bench_clock.by_the_clock(once, device) for _ in range(runs)]


def _replayed(once, device: str) -> list[float]:
    """One replay a token: the host's part is one launch."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # captured work must not be the first of its kind: kernels compile, memory is taken
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return bench_clock.on_gpu(graph.replay)
