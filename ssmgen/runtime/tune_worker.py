"""The process that judges and times configurations for `tune`: it may end at any of them.

`python -m ssmgen.runtime.tune_worker` reads a request from standard input and writes a line of JSON when it begins on a candidate
and when it is done with it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from contextlib import suppress
from pathlib import Path

from .. import compiler
from ..source import Source
from . import bench_clock
from .cross_compile import Failure, compile_ahead
from .launches import recorded
from .load import load
from .sample import Case, Shape, draw
from .tune import Candidate, Verdict, as_json, entries, faults, forced, judged, listed, trials, verdict_of
from .verify_kernels import differentiated
from .verify_subject import Subject


def main(request: dict) -> None:
    """Answer a request: name, text, dims, recurrence, folder, shape, dtype, done.

    Kernels come in the order in which a call chooses their configurations, each beside the choices made before it.
    """
    worker = _Worker(request)
    verdicts = [verdict_of(answer) for answer in request["done"]]
    done = [as_json(verdict.candidate) for verdict in verdicts]
    waiting = [one for one in worker.candidates() if as_json(one) not in done]
    failed = worker.compiled(waiting)
    for candidate in waiting:
        _say({"state": "begun", "candidate": as_json(candidate)})
        worker.choices, _ = entries(verdicts)
        if place(candidate) in failed:
            verdict = Verdict(candidate, f"does not compile: {failed[place(candidate)]}", None)
        else:
            (verdict,) = judged([candidate], worker.judge, worker.clock)
        verdicts.append(verdict)
        _say({"state": "done", "candidate": as_json(candidate), "error": verdict.error, "seconds": verdict.seconds})
        if verdict.error and not _has_gpu():
            os._exit(1)  # what comes next is no fault of what is judged next: another process goes on


def _has_gpu() -> bool:
    """Whether this process can use its GPU still: after an illegal access it cannot."""
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def place(candidate: Candidate) -> tuple[str, str]:
    """What tells the candidates of a call apart."""
    return candidate.kernel, candidate.words


def _say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


class _Worker:
    def __init__(self, request: dict):
        source = Source(request["name"], request["text"])
        recurrences = compiler.check(source, request["dims"]).after("resolve")[source.name].recurrences
        self.spec = next(each for each in recurrences if each.name == request["recurrence"])
        self.subject = Subject(load(Path(request["folder"])), self.spec, "cuda")
        self.kernels = self.subject.kernels("_kernels")
        self.dtype, self.choices = request["dtype"], []
        self.batch, self.tokens, self.heads = request["shape"]
        self.sizes = {**dict(self.spec.dims), **dict(self.spec.counts)}
        self.case = self._case()
        self.architecture = self.kernels.tuning.architecture(self.case.arguments[0].device)
        self.kernels.tuning.use({})
        self.ahead: frozenset[str] = frozenset()

    def _case(self) -> Case:
        import torch

        case = draw(self.spec, Shape(self.batch, self.tokens, self.heads, 1, self.sizes))
        return case.to(getattr(torch, self.dtype), "cuda", torch.float32)

    def candidates(self) -> list[Candidate]:
        """Those of every kernel, kernel after kernel; nothing is launched for it. Notes which kernels a forward pass has."""
        with recorded({"dtype": self.dtype, "call": "forward", "is_packed": False}):
            self.ahead = frozenset(one.kernel for one in listed(self.kernels, self._forward))
            found = listed(self.kernels, self._both())
        order = list(dict.fromkeys(one.kernel for one in found))
        distinct = {place(one): one for one in found}
        return sorted(distinct.values(), key=lambda one: order.index(one.kernel))

    def compiled(self, candidates: list[Candidate]) -> dict[tuple[str, str], str]:
        """Compile what judging and timing will launch, several at a time: why some do not.

        A kernel is compiled by its own configuration, whatever those of the others; what depends on several is compiled when it runs.
        """
        launches, users = {}, {}
        for candidate in candidates:
            _say({"words": f"{candidate.kernel}, {candidate.dtype}: what {candidate.words} launches"})
            with forced(self.kernels, candidate, self.architecture):
                with recorded({"dtype": self.dtype, "call": "forward", "is_packed": False}) as found:
                    for run in (self._both(), *(self._differentiated(trial) for trial in trials(self.heads, self.sizes))):
                        with suppress(Exception):  # it will raise again where it is judged
                            run()
            for key, launch in found.items():
                users.setdefault(id(launches.setdefault(key, launch)), []).append(place(candidate))
        failed: dict[tuple[str, str], str] = {}
        for number, (launch, outcome) in enumerate(compile_ahead(list(launches.values()), os.cpu_count() or 1), 1):
            _say({"words": f"{self.dtype}: {number} of {len(launches)} kernels compiled"})
            if isinstance(outcome, Failure):
                failed |= dict.fromkeys(users[id(launch)], outcome.line)
        return failed

    def _differentiated(self, trial):
        return lambda: differentiated(trial, self.dtype)(self.subject)

    def judge(self, candidate: Candidate) -> str:
        """What is wrong with its numbers."""
        _say({"words": f"{candidate.kernel}, {candidate.dtype}: {candidate.words}"})
        with forced(self.kernels, candidate, self.architecture, self.choices):
            return faults(self.subject, self.kernels, self.dtype, self.heads, self.sizes)

    def clock(self, candidate: Candidate) -> float:
        """Seconds of the direction that the kernel is part of."""
        with forced(self.kernels, candidate, self.architecture, self.choices):
            run = self._forward if candidate.kernel in self.ahead else self._backward()
            return statistics.median(bench_clock.on_gpu(run))

    def _forward(self) -> None:
        import torch

        with torch.no_grad():
            self.subject.op(self.case, chunk=64)

    def _backward(self):
        import torch

        leaves = [x.detach().requires_grad_() for x in self.case.arguments]
        y = getattr(self.subject.package, self.spec.name)(*leaves).y
        cotangent = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True, allow_unused=True)

    def _both(self):
        return lambda: self._backward()()


if __name__ == "__main__":
    main(json.load(sys.stdin))
