"""`ssmgen tune`: every configuration of a package's kernels judged against float64, the right ones timed, the fastest written down.

Judging comes first: a configuration whose numbers are wrong is marked and never timed. It runs in a process of its own
(`tune_worker`), because a wrong one may also end in an illegal access, after which a process can use its GPU no more; what it was
doing then is marked as well, and another process goes on behind it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from .verify_kernels import Trial, compare
from .verify_subject import Subject

TOKENS = 1157
"""Of the calls that judge: several segments, and a chunk that is not full."""

WORKER = ("-m", "ssmgen.runtime.tune_worker")

LONGEST = 300.0
"""Seconds without a word after which a process is given up."""


@dataclass(frozen=True)
class Candidate:
    """One configuration of one kernel. sizes: keys and values a head; programs: sequences times heads."""

    kernel: str
    dtype: str
    sizes: tuple[int, int]
    programs: int
    options: Mapping[str, int | str]

    @property
    def words(self) -> str:
        """`BT=64 BK=64 ...`"""
        return " ".join(f"{name}={value}" for name, value in self.options.items())


@dataclass(frozen=True)
class Verdict:
    """What came of a candidate: why it is bad (empty: its numbers are right), and its time where it was taken."""

    candidate: Candidate
    error: str
    seconds: float | None


def judged(candidates: Iterable[Candidate], judge: Callable[[Candidate], str], clock: Callable[[Candidate], float]) -> Iterator[Verdict]:
    """Every candidate judged, and the right ones timed. What `judge` or `clock` raises is the candidate's fault."""
    for candidate in candidates:
        try:
            error = judge(candidate)
            yield Verdict(candidate, error, None if error else clock(candidate))
        except Exception as fault:
            first = (str(fault).strip() or type(fault).__name__).splitlines()[0]
            yield Verdict(candidate, f"{type(fault).__name__}: {first[:160]}", None)


def entries(verdicts: Iterable[Verdict]) -> tuple[list[dict], list[dict]]:
    """The choices and the bad ones, as the table has them: of each kernel the fastest that is right."""
    best: dict[tuple, Verdict] = {}
    bad = []
    for verdict in verdicts:
        one = verdict.candidate
        if verdict.error:
            bad.append({**_where(one), "options": dict(one.options), "reason": verdict.error})
        else:
            key = (one.kernel, one.dtype, one.sizes, one.programs)
            if key not in best or verdict.seconds < best[key].seconds:
                best[key] = verdict
    choices = [
        {**_where(v.candidate), "programs": v.candidate.programs, "options": dict(v.candidate.options),
         "microseconds": round(v.seconds * 1e6, 1)}
        for v in best.values()
    ]  # fmt: skip
    return choices, bad


def _where(candidate: Candidate) -> dict:
    return {"kernel": candidate.kernel, "dtype": candidate.dtype, "sizes": list(candidate.sizes)}


def merged(table: Mapping, architecture: str, triton: str, choices: list[dict], bad: list[dict]) -> dict:
    """The architectures of a table with new measurements in place of older ones of the same kernel, dtype, sizes and programs.

    What another Triton measured there goes.
    """
    own = table.get(architecture)
    if own is None or own["triton"] != triton:
        own = {"choices": [], "bad": []}

    def place(entry: dict) -> tuple:
        return (entry["kernel"], entry["dtype"], tuple(entry["sizes"]), entry.get("programs"))

    fresh = {place(entry) for entry in choices}
    again = {place({**entry, "programs": None}) for entry in (*choices, *bad)}
    kept = {
        "triton": triton,
        "choices": [*(e for e in own["choices"] if place(e) not in fresh), *choices],
        "bad": [*(e for e in own["bad"] if place(e) not in again), *bad],
    }
    return {**table, architecture: kept}


def text(architectures: Mapping) -> str:
    """A table's file: an entry a line."""
    lines = ['{\n "format": 1,\n "architectures": {']
    for number, (name, own) in enumerate(sorted(architectures.items())):
        lines.append(f'{"," if number else ""}\n  {json.dumps(name)}: {{\n   "triton": {json.dumps(own["triton"])}')
        for part in ("choices", "bad"):
            inside = ",\n    ".join(json.dumps(entry) for entry in own[part])
            lines.append(f',\n   "{part}": [{f"{chr(10)}    {inside}{chr(10)}   " if inside else ""}]')
        lines.append("\n  }")
    return "".join(lines) + "\n }\n}\n"


# --- inside a process that may end ------------------------------------------------------------------------------


def listed(kernels: ModuleType, run: Callable[[], object]) -> list[Candidate]:
    """The candidates of every kernel that a call chooses a configuration for, in the order of its choices."""
    tuning, found = kernels.tuning, []
    plain = tuning.options

    def noted(kernel, listing, K, V, dtype, programs, device):
        name = str(dtype).removeprefix("torch.")
        found.extend(Candidate(kernel, name, (K, V), programs, options) for options in listing(K, V, dtype, programs))
        return plain(kernel, listing, K, V, dtype, programs, device)

    tuning.options = noted
    try:
        run()
    finally:
        tuning.options = plain
    return found


@contextmanager
def forced(kernels: ModuleType, candidate: Candidate, architecture: str, choices: Iterable[dict] = ()) -> Iterator[None]:
    """Inside, the kernel runs as the candidate says, the others as `choices` do; afterwards, no table is used."""
    import triton

    own = {**_where(candidate), "programs": candidate.programs, "options": dict(candidate.options), "microseconds": 0}
    others = [entry for entry in choices if entry["kernel"] != candidate.kernel]
    kernels.tuning.use({architecture: {"triton": triton.__version__, "choices": [*others, own], "bad": []}})
    try:
        yield
    finally:
        kernels.tuning.use({})


def trials(heads: int, sizes: Mapping[str, int], tokens: int = TOKENS) -> tuple[Trial, ...]:
    """The calls that judge: one sequence, and packed documents of which one is empty."""
    cut = (0, tokens // 5, tokens // 5, tokens // 5 + 1, tokens)
    return Trial(1, tokens, heads, dict(sizes)), Trial(1, tokens, heads, dict(sizes), cut)


def faults(subject: Subject, kernels: ModuleType, dtype: str, heads: int, sizes: Mapping[str, int], tokens: int = TOKENS) -> str:
    """What is wrong with the configurations in use: the tensor that is furthest beyond its tolerance; '' where none is."""
    found = [one for trial in trials(heads, sizes, tokens) for one in compare(subject, kernels, trial, dtype)]
    worst = max(found, key=lambda one: one.excess)
    return "" if worst.excess <= 1 else f"{worst.name} is off by {worst.error:.1e}, {worst.trial}"


# --- outside ----------------------------------------------------------------------------------------------------


def measured(request: dict, said: Callable[[str], None], program: tuple[str, ...] = WORKER) -> Iterator[Verdict]:
    """The verdicts on every candidate of a request, from processes of which each goes on behind the one that ended.

    Raises RuntimeError when a process ends before it begins on a candidate.
    """
    done: list[dict] = []
    while True:
        process = subprocess.Popen(
            [sys.executable, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (_root(), os.environ.get("PYTHONPATH", ""))))},
        )  # fmt: skip
        process.stdin.write(json.dumps({**request, "done": done}))
        process.stdin.close()
        begun, before = None, len(done)
        for answer in _answers(process):
            if "words" in answer:
                said(answer["words"])
                continue
            if answer["state"] == "begun":
                begun = answer["candidate"]
                continue
            begun = None
            done.append({"candidate": answer["candidate"], "error": answer["error"], "seconds": answer["seconds"]})
            yield verdict_of(done[-1])
        if process.wait() == 0:
            return
        if begun is None and len(done) == before:
            raise RuntimeError(f"the process that measures ended with code {process.returncode}")
        if begun is None:  # after a verdict: its GPU was lost to what it had judged
            continue
        done.append({"candidate": begun, "error": f"the process ended with code {process.returncode}", "seconds": None})
        yield verdict_of(done[-1])


def _answers(process: subprocess.Popen) -> Iterator[dict]:
    """The JSON lines of a process; one that is silent for too long is ended."""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], LONGEST)
        if not ready:
            process.kill()
            return
        line = process.stdout.readline()
        if not line:
            return
        if line.startswith("{"):
            yield json.loads(line)


def _root() -> str:
    return str(Path(__file__).resolve().parents[2])


def verdict_of(answer: Mapping) -> Verdict:
    """A verdict as the two processes write it."""
    candidate = Candidate(**{**answer["candidate"], "sizes": tuple(answer["candidate"]["sizes"])})
    return Verdict(candidate, answer["error"], answer["seconds"])


def as_json(candidate: Candidate) -> dict:
    """A candidate as the two processes write it."""
    return {**asdict(candidate), "sizes": list(candidate.sizes), "options": dict(candidate.options)}
