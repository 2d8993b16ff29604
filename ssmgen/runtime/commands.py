"""`ssmgen verify`, `tune` and `bench`: build, run on the devices there are, print tables, write JSON."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

from .. import compiler
from ..source import Source
from . import jit

PARTS = ("operator", "decode", "kernels", "first-call")
"""What `bench` can time: forward and backward, one token; of the operator, kernel by kernel; first calls and nothing of what follows."""


class TableError(Exception):
    """A table of configurations that cannot be used."""


class DeviceError(Exception):
    """A device on which nothing can be verified or profiled here."""


def consoles(width: int = 132):
    """Standard output and standard error as rich consoles; a table in a file or a pipe is `width` columns wide, not 80."""
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=width), Console(stderr=True)


def verify(
    source: Source, device: str | None, path: Path | None, table: Path | None = None, jobs: int | None = None,
    is_quick: bool = False, is_synchronised: bool = False,
) -> int:  # fmt: skip
    """Verify every recurrence of a source; 1 when a row failed.

    table: of configurations, from `tune`. jobs: processes on a GPU or of the interpreter, one a core by default. is_quick: a few trials
    of the kernels alone. is_synchronised: every launch is waited for, so that a fault names its kernel. Raises DeviceError where kernels
    are to be interpreted and cannot be, or there are none, and where launches are to be compared or waited for and there is no GPU.
    """
    import torch

    from . import interpreter, verify_apart
    from .synchronised import synchronised
    from .verify import quick, verify_checks
    from .verify import verify as verify_package

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == interpreter.DEVICE and (reason := interpreter.missing()):
        raise DeviceError(reason)
    has_gpu = device.startswith("cuda") and torch.cuda.is_available()
    if is_quick and not has_gpu and device != interpreter.DEVICE:
        raise DeviceError("`--quick` compares kernels, and there is no GPU to run them: add `--device interpreter`, or leave it away")
    if is_synchronised and not has_gpu:
        raise DeviceError("`--synchronize` waits for what a GPU was given, and none is used: leave it away, or go where one is")
    console, progress = consoles()
    packages, reports = jit.packages(source, {}), []
    tuned(packages.values(), table)
    for name, package in packages.items():
        folder = Path(package.__file__).parent
        needs_kernels = is_quick or device == interpreter.DEVICE
        if needs_kernels and not any((folder / file).exists() for file in ("kernels.py", "decode.py")):
            verb = "interpreted" if device == interpreter.DEVICE else "compared"
            raise DeviceError(f"`{name}` has no kernels that could be {verb}: its torch form runs everywhere")
    for spec in compiler.check(source).after("resolve")[source.name].recurrences:
        start = time.perf_counter()

        def shown(row, name=spec.name, start=start):
            """A line a row as it comes: what was measured is there should the run be stopped."""
            verdict = "pass" if row.passed else "FAIL"
            seconds = time.perf_counter() - start
            words = f"{seconds:4.0f} s  {verdict}  {name}: {row.check}, {row.compared}: {row.error:.1e} <= {row.tolerance:.1e}"
            progress.print(words if row.passed else f"{words} ({row.reason})", markup=False, soft_wrap=True)

        with progress.status(spec.name) as status:
            told = {"device": device, "progress": status.update, "shown": shown}
            cores = os.cpu_count() or 1
            if device.startswith("cpu") or (jobs == 1 and device != interpreter.DEVICE):
                with synchronised() if is_synchronised else nullcontext():
                    if is_quick:
                        report = verify_checks(packages[spec.name], spec, quick(cores), is_quick=True, **told)
                    else:
                        report = verify_package(packages[spec.name], spec, **told)
            else:
                chosen = {"is_quick": is_quick, "is_synchronised": is_synchronised}
                report = verify_apart.verify(source, spec, cores=cores, jobs=jobs or cores, table=table, **chosen, **told)
        console.print(report.table())
        failed = f"[bold red]{len(report.failures)} failed[/]" if report.failures else "all passed"
        console.print(f"{len(report.rows)} comparisons, {failed} ({report.seconds:.0f} s)")
        reports.append(report)
    if path is not None:
        path.write_text(json.dumps([json.loads(report.to_json()) for report in reports], indent=2) + "\n", encoding="utf-8")
        console.print(f"{path} written")
    return 0 if reports and all(report.passed for report in reports) else 1


def bench(
    jobs: list[tuple[Source, Mapping[str, int], Path | None]], device: str | None, shapes: tuple[tuple[int, int, int], ...],
    first: bool | None, path: Path | None, table: Path | None = None, parts: Collection[str] = PARTS[:2],
) -> int:  # fmt: skip
    """Time every recurrence of some sources, each with its sizes and its adapter, at every shape; of it the `parts` named in PARTS.

    The device is measured once. The report is written behind every recurrence; one that cannot be measured does not keep the others
    from it, and the first such fault is raised at the end. Raises AdapterError when an adapter is at fault, DeviceError where kernels
    are to be profiled and there is no GPU.
    """
    import torch

    from . import bench as benching
    from . import bench_ahead, bench_table, floors
    from .bench_subject import subjects
    from .peers import load

    console, progress = consoles(bench_table.WIDTH)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        progress.print("Error: torch sees no GPU here; `--device cpu` measures on the processor")
        return 1
    if "kernels" in parts and device == "cpu":
        edit = "leave `--device cpu` away" if torch.cuda.is_available() else "run it where torch sees a GPU, or leave `--kernels` away"
        raise DeviceError(f"`--kernels` profiles a GPU's kernels, and on the processor there is nothing to profile: {edit}")
    shapes = shapes or benching.SHAPES[device]
    peers = [load(adapter) if adapter is not None else [] for _, _, adapter in jobs]
    built = [one for (source, dims, _), own in zip(jobs, peers, strict=True) for one in subjects(source, dims, device, own)]
    tuned([subject.package for subject in built], table)
    faults = []
    is_fresh = "first-call" in parts or ("operator" in parts and (device != "cpu" if first is None else first))
    with _kernels(is_fresh) as cache, progress.status("measuring the device") as status:
        rates = floors.rates(device)
        report = benching.describe(device, rates, [peer for own in peers for peer in own])
        console.print(bench_table.machine(report))
        if device != "cpu" and cache is None:  # a first call compiles what it needs, and is timed
            bench_ahead.compiled(built, shapes, parts, status.update)
        for subject in built:
            try:
                _measured(subject, shapes, rates, report, cache, parts, console, status)
            except Exception as fault:
                faults.append(fault)
                progress.print(f"{subject.spec.name}: {type(fault).__name__}: {fault}", style="bold red", markup=False)
            _write(path, json.dumps(report, indent=1, allow_nan=False))
    if len({row["recurrence"] for row in report["decode"]}) > 1:
        console.print(bench_table.steps_table(report["decode"]))
    for line in bench_table.legend(report):
        console.print(line)
    if path is not None:
        console.print(f"{path} written")
    if faults:
        raise faults[0]
    return 0


def _measured(subject, shapes, rates, report: dict, cache: Path | None, parts: Collection[str], console, status) -> None:
    """One recurrence: its tables, and its entries in the report. cache: an empty folder for kernels, where first calls are timed."""
    from . import bench as benching
    from . import bench_table
    from .bench_decode import decode

    name = subject.spec.name
    about = {"recurrence": name, "dtype": str(subject.dtype).split(".")[-1], "sizes": subject.sizes}
    calls: dict[str, dict] = {}
    if cache is not None:
        status.update(f"first calls of {name}")
        calls = benching.first_calls(subject, shapes[0], cache)
        about_all = {**about, "shape": dict(zip(("batch", "tokens", "heads"), shapes[0], strict=True))}
        report["first_calls"] += [{**about_all, "what": what, **call} for what, call in calls.items()]
        console.print(bench_table.first_table(name, report["first_calls"][-len(calls) :]))
    if "operator" in parts:
        _measured_operator(subject, shapes, rates, report, calls, "kernels" in parts, console, status)
    if "decode" in parts:
        status.update(f"decoding with {name}")
        steps = decode(subject, shapes[0][2], rates)
        report["decode"] += [{**about, **row} for row in steps]
        if steps:
            console.print(bench_table.decode_table(name, steps))
        elif "operator" not in parts:
            console.print(f"{name}: has no step, and there is nothing to time", markup=False)


def _measured_operator(subject, shapes, rates, report: dict, calls: dict[str, dict], is_profiled: bool, console, status) -> None:
    """The same of its operator, at every shape. calls: first ones, by name. is_profiled: and kernel by kernel."""
    from . import bench as benching
    from . import bench_kernels, bench_table
    from .bench_accuracy import accuracy

    name = subject.spec.name
    status.update(f"comparing {name} with float64")
    errors = accuracy(subject, shapes[0][1], shapes[0][2])
    report["accuracy"] += [{"recurrence": name, **row} for row in errors]
    for shape in shapes:
        status.update(f"timing {name} at B, T, H = {shape}")
        report["runs"].append(benching.measure(subject, shape, rates, errors, calls if shape == shapes[0] else {}))
        console.print(bench_table.shape_table(report["runs"][-1]))
        if is_profiled:
            status.update(f"profiling {name} at B, T, H = {shape}")
            report["runs"][-1]["kernels"] = bench_kernels.kernels(subject, shape, rates)
            for direction in report["runs"][-1]["kernels"]:
                console.print(bench_table.kernel_table(report["runs"][-1], direction))


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def tuned(packages: Iterable[ModuleType], table: Path | None) -> None:
    """Have the packages' kernels take their configurations from a table. Raises TableError when it is none, or for none of them."""
    for package in packages if table is not None else ():
        try:
            tuning = importlib.import_module(f"{package.__name__}.tuning")
            tuning.use(tuning.read(table))
        except ModuleNotFoundError:
            raise TableError(f"{table}: the package has no kernels of which it could choose configurations") from None
        except ValueError as fault:
            raise TableError(str(fault)) from None


def tune(source: Source, dims: Mapping[str, int], out: Path, shape: tuple[int, int, int], dtypes: tuple[str, ...]) -> int:
    """Tune the kernels of every built package of a source, and write the table beside them; 1 when a kernel has no right one."""
    import torch

    from . import tune as tuning
    from .load import load

    console, progress = consoles()
    if not torch.cuda.is_available():
        progress.print("Error: torch sees no GPU here, and configurations are timed on the GPU that they are for")
        return 1
    code = 0
    for spec in compiler.check(source, dims).after("resolve")[source.name].recurrences:
        folder = out / spec.name
        if not (folder / "tuning.py").is_file():
            progress.print(f"Error: {folder.as_posix()} holds no package with Triton kernels: `ssmgen build` first")
            return 1
        own = importlib.import_module(f"{load(folder).__name__}.tuning")
        before = own.read(folder / "tuned.json") if (folder / "tuned.json").exists() else {}
        request = {
            "name": source.name, "text": source.text, "dims": dict(dims), "recurrence": spec.name, "folder": str(folder.resolve()),
            "shape": list(shape),
        }  # fmt: skip
        found = []
        with progress.status(spec.name) as status:
            for verdict in (v for dtype in dtypes for v in tuning.measured({**request, "dtype": dtype}, status.update)):
                found.append(verdict)
                one, words = verdict.candidate, verdict.error or f"{verdict.seconds * 1e6:.1f} us"
                console.print(f"{spec.name}, {one.dtype}, {one.kernel}: {one.words}: {words}", markup=False, soft_wrap=True)
        choices, bad = tuning.entries(found)
        right = {(entry["kernel"], entry["dtype"]) for entry in choices}
        for kernel, dtype in dict.fromkeys((v.candidate.kernel, v.candidate.dtype) for v in found):
            if (kernel, dtype) not in right:
                code = 1
                progress.print(f"[bold red]{spec.name}: no configuration of the {kernel} kernel is right in {dtype}[/]")
        architecture = own.architecture(torch.device("cuda", torch.cuda.current_device()))
        import triton

        after = tuning.merged(before, architecture, triton.__version__, choices, bad)
        (folder / "tuned.json").write_text(tuning.text(after), encoding="utf-8")
        console.print(f"{(folder / 'tuned.json').as_posix()} written: {len(choices)} choices, {len(bad)} marked bad")
    return code


@contextmanager
def _kernels(is_fresh: bool):
    """When fresh, a folder for compiled kernels, this process's too: what a first call compiled is not compiled again here."""
    if not is_fresh:
        yield None
        return
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="ssmgen-kernels-") as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("TRITON_CACHE_DIR", None)
            if before is not None:
                os.environ["TRITON_CACHE_DIR"] = before
