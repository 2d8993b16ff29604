"""`ssmgen build --targets`: every kernel that a package would launch, compiled for GPUs that are not here; tables and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import compiler, spec
from ..diagnostics import Diagnostic
from ..source import Source
from .commands import consoles
from .cross_compile import Failure, Usage, compile_all
from .launches import has_kernels, record
from .target_limits import Kernel, diagnose
from .targets import Target

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Checked:
    """One package on its targets. `unreached` maps a target to the kernels that no call launched there."""

    recurrence: spec.Recurrence
    kernels: tuple[Kernel, ...]
    unreached: Mapping[str, tuple[str, ...]]

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What does not compile, does not fit, or spills."""
        return diagnose(self.recurrence, self.kernels)

    def as_rows(self) -> list[dict]:
        """One row a configuration, as the JSON report has them."""
        return [_row(self.recurrence, kernel) for kernel in self.kernels]


def measure(
    folder: Path,
    recurrence: spec.Recurrence,
    targets: tuple[Target, ...],
    *,
    dtypes: tuple[str, ...] = DTYPES,
    workers: int | None = None,
    progress: Callable[[str], object] = lambda words: None,
) -> Checked:
    """Record what the package in `folder` launches on every target, compile it, measure it.

    The recurrence's dims are the sizes that are compiled for. `workers` processes compile at once, by default one a core.
    Raises ModuleNotFoundError without torch or triton.
    """
    launches, unreached = [], {}
    if has_kernels(folder):
        for target in targets:
            progress(f"{recurrence.name}: what it launches on {target.name}")
            recording = record(folder, recurrence, target, dtypes)
            launches += recording.launches
            unreached[target.name] = recording.unreached
    kernels = {}
    for launch, outcome in compile_all(launches, workers or os.cpu_count() or 1):
        kernels[id(launch)] = Kernel(
            launch.target, launch.name, launch.configuration, launch.dtype, launch.call, launch.is_packed, outcome
        )  # fmt: skip
        progress(f"{recurrence.name}: {len(kernels)} of {len(launches)} kernels compiled")
    return Checked(recurrence, tuple(kernels[id(launch)] for launch in launches), unreached)


def check(sources: list[Source], dims: Mapping[str, int], out: Path, targets: tuple[Target, ...], path: Path | None) -> tuple[int, list]:
    """Check the built packages of `sources` below `out`, print a table each: (exit code, diagnostics with their sources)."""
    console, progress = consoles()
    found, rows = [], []
    for source in sources:
        for recurrence in compiler.check(source, dims).after("resolve")[source.name].recurrences:
            with progress.status(recurrence.name) as status:
                checked = measure(out / recurrence.name, recurrence, targets, progress=status.update)
            if checked.kernels:
                console.print(table(checked))
            else:
                console.print(f"{recurrence.name}: launches no Triton kernel, so there is nothing to compile for a target")
            for target, names in checked.unreached.items():
                if names:
                    console.print(f"not launched on {target}, and not compiled: {', '.join(names)}")
            found += [(source, diagnostic) for diagnostic in checked.diagnostics]
            rows += checked.as_rows()
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        console.print(f"{path} written")
    return 1 if any(diagnostic.severity == "error" for _, diagnostic in found) else 0, found


def _row(recurrence: spec.Recurrence, kernel: Kernel) -> dict:
    outcome = kernel.outcome
    measured = asdict(outcome) if isinstance(outcome, Usage) else {"failure": outcome.line, "log": outcome.log}
    # a constant may be a type
    configuration = {n: v if isinstance(v, (int, float, str, type(None))) else str(v) for n, v in kernel.configuration.items()}
    limits = {"registers": kernel.target.registers, "shared": kernel.target.shared, "tensor_memory": kernel.target.tensor_memory}
    return {
        "recurrence": recurrence.name, "sizes": dict(recurrence.dims), "target": kernel.target.name, "kernel": kernel.name,
        "call": kernel.call, "dtype": kernel.dtype, "packed": kernel.is_packed, "configuration": configuration,
        **measured, "limits": limits, "over": list(kernel.over),
    }  # fmt: skip


def table(checked: Checked):
    """The most that any configuration of a kernel uses, target by target, as a rich table."""
    from rich.table import Table

    sizes = ", ".join(f"{name}={size}" for name, size in checked.recurrence.dims)
    drawn = Table(title=f"{checked.recurrence.name}: {sizes}; the most of any configuration", title_justify="left")
    for column in ("target", "kernel", "matrix"):
        drawn.add_column(column)
    for column in ("configurations", "registers", "spilled bytes", "shared bytes"):
        drawn.add_column(column, justify="right")
    groups: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in checked.kernels:
        groups.setdefault((kernel.target.name, kernel.name), []).append(kernel)
    previous = ""
    for (target, name), kernels in groups.items():
        drawn.add_row(target if target != previous else "", name, *_cells(kernels), end_section=False)
        previous = target
    return drawn


def _cells(kernels: list[Kernel]) -> list[str]:
    limits = kernels[0].target
    compiled = [kernel.outcome for kernel in kernels if isinstance(kernel.outcome, Usage)]
    failed = sum(isinstance(kernel.outcome, Failure) for kernel in kernels)
    count = f"{len(kernels)}, [bold red]{failed} failed[/]" if failed else str(len(kernels))
    if not compiled:
        return ["", count, "", "", ""]
    matrix = ", ".join(dict.fromkeys(name for usage in compiled for name in usage.matrix)) or "none"
    registers, spill, shared = (max(getattr(usage, name) for usage in compiled) for name in ("registers", "spill", "shared"))
    return [
        matrix,
        count,
        f"{registers} of {limits.registers}",
        f"[yellow]{spill}[/]" if spill else "0",
        f"[bold red]{shared} of {limits.shared}[/]" if shared > limits.shared else f"{shared} of {limits.shared}",
    ]
