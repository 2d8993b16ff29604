"""`ssmgen verify`: an emitted package held against two oracles and against itself.

`reference.py` is compared with the interpreter, the operator with `reference.py` (values, gradients, states, in every
dtype), and the operator with itself under everything that must not matter: chunk length, splits, packing, order. On a GPU, every
configuration of every kernel is compared as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from .. import spec
from . import interpreter
from .doctor import examine
from .load import load
from .verify_checks import OP_CHECKS, REFERENCE_CHECKS, Check, Row
from .verify_kernels import QUICK, SLACK, compilation, decode, kernels
from .verify_modules import layers, module
from .verify_subject import Subject

CHECKS = {
    **REFERENCE_CHECKS,
    "compilation": compilation,
    **OP_CHECKS,
    "kernels": kernels,
    "decode kernel": decode,
    "module": module,
    "layers": layers,
}
"""Every check, in order, by the name that progress shows."""


def parts(cores: int, device: str = "cuda", is_quick: bool = False) -> tuple[Mapping[str, Check], ...]:
    """The checks in parts that need nothing of each other, each for a process: what a part launches it compiles first, those of one
    dtype by their share of the cores. Where kernels are interpreted, or quickly compared, those of the kernels alone."""
    dtypes = QUICK if is_quick else tuple(SLACK)
    share = max(1, cores // len(dtypes))
    of_kernels = [_of_kernels((dtype,), share, is_quick) for dtype in dtypes]
    if device == interpreter.DEVICE:  # nothing is compiled
        return tuple({name: check for name, check in part.items() if name != "compilation"} for part in of_kernels)
    if is_quick:
        return tuple(of_kernels)
    small = partial(compilation, dtypes=(), workers=share)
    halves = [{"compilation": small, **dict(list(OP_CHECKS.items())[half::2])} for half in range(2)]
    return (REFERENCE_CHECKS, *halves, *of_kernels, {"module": module, "layers": layers})


def quick(cores: int) -> Mapping[str, Check]:
    """The checks of a quick comparison, for one process."""
    return _of_kernels(QUICK, cores, True)


def _of_kernels(dtypes: tuple[str, ...], workers: int, is_quick: bool) -> Mapping[str, Check]:
    own = {"dtypes": dtypes, "is_quick": is_quick}
    compiled = partial(compilation, **own, is_small=False, workers=workers)
    return {"compilation": compiled, "kernels": partial(kernels, **own), "decode kernel": partial(decode, **own)}


@dataclass(frozen=True)
class Report:
    """What was measured on one package, in order. known_bad: what is publicly reported of this GPU's compiler. is_quick: a few trials
    of the kernels, and none of the other checks."""

    name: str
    device: str
    rows: tuple[Row, ...]
    seconds: float
    known_bad: tuple[str, ...] = ()
    is_quick: bool = False

    @property
    def passed(self) -> bool:
        """True when every row passed; a report without rows has proved nothing."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that did not pass."""
        return tuple(row for row in self.rows if not row.passed)

    def to_json(self) -> str:
        """The report as JSON; an infinite error is the string "inf"."""
        rows = [{**asdict(row), "error": row.error if row.error < float("inf") else "inf", "passed": row.passed} for row in self.rows]
        report = {"name": self.name, "device": self.device, "passed": self.passed, "seconds": round(self.seconds, 3), "rows": rows}
        return json.dumps({**report, "known_bad": list(self.known_bad), "is_quick": self.is_quick}, indent=2)

    def table(self):
        """The report as a rich table."""
        from rich.table import Table

        caption = "\n".join(self.known_bad) or None
        title = f"{self.name} on {self.device}{', quickly: a few trials of its kernels' if self.is_quick else ''}"
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        for heading, justify in (
            ("check", "left"),
            ("compared", "left"),
            ("error", "right"),
            ("at most", "right"),
            ("because", "left"),
            ("", "left"),
        ):
            table.add_column(heading, justify=justify)
        for row in self.rows:
            verdict = "[green]pass[/]" if row.passed else "[bold red]FAIL[/]"
            table.add_row(row.check, row.compared, f"{row.error:.1e}", f"{row.tolerance:.1e}", row.reason, verdict)
        return table


def verify(
    package: ModuleType | str | Path,
    recurrence: spec.Recurrence,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda words: None,
    shown: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Measure `package` (a module, or the folder of one) against the recurrence it was built from.

    `progress` is called with the name of every check as it starts, and with words in the course of a long one; `shown` with every
    row as soon as it is known. A check that raises is a row that failed, with the exception in place of the reason. Raises
    FileNotFoundError when the folder holds no package.
    """
    return verify_checks(package, recurrence, CHECKS, device=device, progress=progress, shown=shown)


def verify_checks(
    package: ModuleType | str | Path,
    recurrence: spec.Recurrence,
    checks: Mapping[str, Check],
    *,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda words: None,
    shown: Callable[[Row], None] = lambda row: None,
    is_quick: bool = False,
) -> Report:
    """As `verify`, for some of `CHECKS`: `REFERENCE_CHECKS` need no more of the package than `reference.py`. is_quick: what the report
    says of them."""
    module = package if isinstance(package, ModuleType) else load(package)
    start = time.perf_counter()
    subject = Subject(module, recurrence, device, progress)
    rows = []
    for name, check in checks.items():
        progress(name)
        for row in _rows(name, check, subject):
            rows.append(row)
            shown(row)
    return Report(recurrence.name, device, tuple(rows), time.perf_counter() - start, known_bad(device), is_quick)


def known_bad(device: str) -> tuple[str, ...]:
    """The reports that `doctor` has on the GPU; the processor compiles nothing."""
    if device.startswith("cpu") or device == interpreter.DEVICE:
        return ()
    return tuple(f"{finding.name}: {finding.value}" for finding in examine() if finding.state == "bad")


def _rows(name: str, check: Check, subject: Subject) -> Iterator[Row]:
    try:
        yield from check(subject)
    except Exception as fault:  # a package that cannot be run has failed the check, not the verifier
        first = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        yield Row(name, "the check itself", float("inf"), 0.0, f"{type(fault).__name__}: {first[:160]}")
