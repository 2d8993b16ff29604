"""The process that judges and times configurations for `tune`: it may end at any of them.

`python -m ssmgen.runtime.tune_worker` reads a request from standard input and writes a line of JSON when it begins on a candidate
and when it is done with it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

from .. import compiler
from ..source import Source
from . import bench_clock
from .cross_compile import Failure, compile_ahead
from .launches import recorded
from .load import load
from .sample import Case, Shape, draw
from .tune import Candidate, as_json, faults, forced, judged, listed
from .verify_subject import Subject


def main(request: dict) -> None:
    """Answer a request: name, text, dims, recurrence, folder, shape, dtype, kernel, choices, done."""
    worker = _Worker(request)
    done = request["done"]
    candidates = [one for one in worker.candidates() if as_json(one) not in done]
    failed = worker.compiled(candidates)
    for candidate in candidates:
        _say({"state": "begun", "candidate": as_json(candidate)})
        if candidate.words in failed:
            error, seconds = f"does not compile: {failed[candidate.words]}", None
        else:
            (verdict,) = judged([candidate], worker.judge, worker.clock)
            error, seconds = verdict.error, verdict.seconds
        _say({"state": "done", "candidate": as_json(candidate), "error": error, "seconds": seconds})


def _say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


class _Worker:
    def __init__(self, request: dict):
        source = Source(request["name"], request["text"])
        recurrences = compiler.check(source, request["dims"]).after("resolve")[source.name].recurrences
        self.spec = next(each for each in recurrences if each.name == request["recurrence"])
        self.subject = Subject(load(Path(request["folder"])), self.spec, "cuda")
        self.kernels = self.subject.kernels("_kernels")
        self.kernel, self.dtype, self.choices = request["kernel"], request["dtype"], request["choices"]
        self.batch, self.tokens, self.heads = request["shape"]
        self.sizes = {**dict(self.spec.dims), **dict(self.spec.counts)}
        self.case = self._case()
        self.architecture = self.kernels.tuning.architecture(self.case.arguments[0].device)
        self.kernels.tuning.use({})

    def _case(self) -> Case:
        import torch

        case = draw(self.spec, Shape(self.batch, self.tokens, self.heads, 1, self.sizes))
        return case.to(getattr(torch, self.dtype), "cuda", torch.float32)

    def candidates(self) -> list[Candidate]:
        """Those of the kernel in question; nothing is launched for it."""
        with recorded({"dtype": self.dtype, "call": "forward", "is_packed": False}):
            found = listed(self.kernels, self._both())
        return [one for one in found if one.kernel == self.kernel]

    def compiled(self, candidates: list[Candidate]) -> dict[str, str]:
        """Compile what judging and timing will launch, several at a time: why some do not, by the candidate's words."""
        launches, users = {}, {}
        for candidate in candidates:
            with forced(self.kernels, candidate, self.architecture, self.choices):
                with recorded({"dtype": self.dtype, "call": "forward", "is_packed": False}) as found:
                    self._both()()
                    try:
                        faults(self.subject, self.kernels, self.dtype, self.heads, self.sizes)
                    except Exception:  # it will raise again where it is judged
                        pass
            for key, launch in found.items():
                users.setdefault(id(launches.setdefault(key, launch)), []).append(candidate.words)
        failed: dict[str, str] = {}
        for number, (launch, outcome) in enumerate(compile_ahead(list(launches.values()), os.cpu_count() or 1), 1):
            _say({"words": f"{self.kernel}, {self.dtype}: {number} of {len(launches)} kernels compiled"})
            if isinstance(outcome, Failure):
                failed |= dict.fromkeys(users[id(launch)], outcome.line)
        return failed

    def judge(self, candidate: Candidate) -> str:
        """What is wrong with its numbers."""
        _say({"words": f"{candidate.kernel}, {candidate.dtype}: {candidate.words}"})
        with forced(self.kernels, candidate, self.architecture, self.choices):
            return faults(self.subject, self.kernels, self.dtype, self.heads, self.sizes)

    def clock(self, candidate: Candidate) -> float:
        """Seconds of the direction that the kernel is part of."""
        with forced(self.kernels, candidate, self.architecture, self.choices):
            run = self._forward if candidate.kernel == "forward" else self._backward()
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
