"""`ssmgen verify` and `ssmgen bench`: build, run on the devices there are, print tables, write JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .. import compiler
from ..source import Source
from . import jit


def consoles():
    """Standard output and standard error as rich consoles; a table in a file or a pipe is not folded to 80 columns."""
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=132), Console(stderr=True)


def verify(source: Source, device: str | None, path: Path | None) -> int:
    """Verify every recurrence of a source; 1 when a row failed."""
    import torch

    from .verify import verify as verify_package

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    console, progress = consoles()
    packages, reports = jit.packages(source, {}), []
    for spec in compiler.check(source).after("resolve")[source.name].recurrences:
        with progress.status(spec.name) as status:
            report = verify_package(packages[spec.name], spec, device=device, progress=status.update)
        console.print(report.table())
        failed = f"[bold red]{len(report.failures)} failed[/]" if report.failures else "all passed"
        console.print(f"{len(report.rows)} comparisons, {failed} ({report.seconds:.0f} s)")
        reports.append(report)
    if path is not None:
        path.write_text(json.dumps([json.loads(report.to_json()) for report in reports], indent=2) + "\n", encoding="utf-8")
        console.print(f"{path} written")
    return 0 if reports and all(report.passed for report in reports) else 1


def bench(source: Source, dims: Mapping[str, int], tokens: int, path: Path | None) -> int:
    """Time every recurrence of a source on the CPU, and on a GPU when there is one."""
    import torch

    from . import bench as benching

    console, progress = consoles()
    packages, rows = jit.packages(source, dims), []
    for spec in compiler.check(source, dims).after("resolve")[source.name].recurrences:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            with progress.status(f"timing {spec.name} on {device}"):
                measured = benching.measure(spec, packages[spec.name], tokens, device)
            console.print(benching.table(spec, measured))
            rows += measured
    console.print(f"median of up to {benching.REPEATS} runs after {benching.WARMUPS}; random data inside the declared domains, batch 1")
    if tokens > benching.LOOP:
        console.print(
            f"autograd through the sequential reference is timed up to {benching.LOOP} tokens only: it is quadratic in the length"
        )
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        console.print(f"{path} written")
    return 0
