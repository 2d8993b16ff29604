"""`ssmgen verify` on a GPU, or interpreting: the parts of the checks in a process each, so that all cores compile and compare.

A part whose process ends (an illegal access leaves it without its GPU) has failed; the others are measured all the same.
`python -m ssmgen.runtime.verify_apart` reads a request from standard input, and writes a line of JSON with every row.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from .. import compiler, spec
from ..source import Source
from . import commands, interpreter, jit
from .synchronised import synchronised
from .verify import Report, known_bad, parts, verify_checks
from .verify_checks import Row

WORKER = ("-m", "ssmgen.runtime.verify_apart")


def verify(
    source: Source,
    recurrence: spec.Recurrence,
    *,
    device: str,
    cores: int,
    jobs: int,
    table: Path | None = None,
    progress: Callable[[str], None] = lambda words: None,
    shown: Callable[[Row], None] = lambda row: None,
    program: tuple[str, ...] = WORKER,
    is_quick: bool = False,
    is_synchronised: bool = False,
) -> Report:
    """As `verify.verify`, of the package that a source builds, by at most `jobs` processes, which compile on all `cores`.

    table: of configurations. is_quick: a few trials of the kernels alone. is_synchronised: every launch is waited for.
    """
    start = time.perf_counter()
    request = {"name": source.name, "text": source.text, "recurrence": recurrence.name, "device": device, "cores": cores}
    request |= {"is_quick": is_quick, "is_synchronised": is_synchronised}
    request["table"] = None if table is None else str(table.resolve())
    waiting = list(enumerate(parts(cores, device, is_quick)))[::-1]
    rows: list[list[Row]] = [[] for _ in waiting]
    answers: queue.Queue[tuple[int, str]] = queue.Queue()
    running: dict[int, _Process] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, checks = waiting.pop()
                running[number] = _Process({**request, "part": number}, tuple(checks), answers, program)
            number, line = answers.get()
            if not line:
                found = running.pop(number).failure()
                rows[number] += found
                for row in found:
                    shown(row)
            elif line.startswith("{"):
                answer = json.loads(line)
                if "words" in answer:
                    progress(answer["words"])
                else:
                    rows[number].append(Row(**answer["row"]))
                    shown(rows[number][-1])
    finally:
        for process in running.values():
            process.end()
    found = tuple(row for part in rows for row in part)
    return Report(recurrence.name, device, found, time.perf_counter() - start, known_bad(device), is_quick)


class _Process:
    """One part's. `answers` gets its lines with the part's number, and an empty one at the end."""

    def __init__(self, request: dict, checks: tuple[str, ...], answers: queue.Queue, program: tuple[str, ...]):
        self.checks, self.log = checks, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        more = interpreter.ENVIRONMENT if request["device"] == interpreter.DEVICE else {}
        self.process = subprocess.Popen(
            [sys.executable, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **more, "PYTHONPATH": path},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, args=(request, answers), daemon=True)
        self.reader.start()

    def _read(self, request: dict, answers: queue.Queue) -> None:
        try:
            json.dump(request, self.process.stdin)
            self.process.stdin.close()
        except BrokenPipeError:  # it ended at once: its exit code says so
            pass
        for line in self.process.stdout:
            answers.put((request["part"], line))
        answers.put((request["part"], ""))

    def failure(self) -> list[Row]:
        """A row, where the process did not end well."""
        code = self.process.wait()
        self.log.seek(0)
        last = (self.log.read().strip().splitlines() or ["no words"])[-1]
        self.log.close()
        reason = f"the process ended with code {code}: {last[:120]}"
        return [Row(f"{self.checks[0]} to {self.checks[-1]}", "the checks themselves", float("inf"), 0.0, reason)] if code else []

    def end(self) -> None:
        """Stop it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.log.close()


def main(request: dict) -> None:
    """Answer a request: run one part of the checks."""
    source = Source(request["name"], request["text"])
    package = jit.packages(source, {})[request["recurrence"]]
    commands.tuned([package], None if request["table"] is None else Path(request["table"]))
    recurrences = compiler.check(source).after("resolve")[source.name].recurrences
    device = request["device"]
    with interpreter.acting() if device == interpreter.DEVICE else synchronised() if request["is_synchronised"] else nullcontext():
        verify_checks(
            package, next(each for each in recurrences if each.name == request["recurrence"]),
            parts(request["cores"], device, request["is_quick"])[request["part"]], device=device,
            progress=lambda words: _say({"words": words}), shown=lambda row: _say({"row": asdict(row)}),
        )  # fmt: skip


def _say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.load(sys.stdin))
