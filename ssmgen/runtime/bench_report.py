"""Reports of `ssmgen bench` as Markdown tables, two for each machine, and the place of such tables in a document.

A row of the first is a recurrence at a shape: its axes, its times and floors, and the fastest peer of the same run whose results were
right. A row of the second is a recurrence and a way of launching its step: a token's time by the number of sequences.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from .bench_table import device

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
"""The lines of a document between which its tables stand."""

HEAD = ("recurrence, (B, T, H)", "axes", "forward", "forward + backward", "peak", "first call", "best peer of the same run")


SIZED = 3
"""The format since which a step's row says of which sizes it is."""


class ReportError(Exception):
    """A report or a document that does not fit: one line for who gave it."""


def read(paths: Iterable[Path]) -> list[dict]:
    """Reports, in the order given. Raises ReportError for a file that is none."""
    found = []
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            steps = report["decode"] if report["format"] >= SIZED else []
            found.append({**{key: report[key] for key in ("device", "versions", "runs")}, "decode": steps})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReportError(f"{path}: no report of `ssmgen bench --json`: {type(error).__name__}: {error}") from None
    return found


def tables(reports: list[dict]) -> str:
    """Markdown: tables for each machine and set of versions; peers' versions stand beside their names."""
    machines: dict[str, tuple[list[str], list[dict]]] = {}
    for report in reports:
        rows, steps = machines.setdefault(_machine(report), ([], []))
        rows += [_row(run, report["versions"]) for run in report["runs"]]
        steps += report["decode"]
    parts = []
    for machine, (rows, steps) in machines.items():
        unit = "times the floor of the device in parentheses:"
        if rows:
            parts.append("\n".join([f"{machine}; milliseconds, {unit}", "", *_table(HEAD, sorted(rows))]))
        if steps:
            parts.append("\n".join([f"{machine}; one token, microseconds, {unit}", "", *_steps(steps)]))
    return "\n\n".join(parts)


def placed(document: str, text: str, path: Path) -> str:
    """The document with its tables exchanged. Raises ReportError where it has no place for them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReportError(f"{path}: tables go between the lines `{BEGIN}` and `{END}`, and it has none")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _machine(report: dict) -> str:
    about, versions = report["device"], report["versions"]
    own = ", ".join(
        f"{word} {versions[word]}"
        for word in ("python", "torch", "triton")
        if versions.get(word) and (word, about["kind"]) != ("triton", "cpu")
    )
    return f"{device(report)}; {own}"


def _steps(steps: list[dict]) -> list[str]:
    """A row a recurrence and way of launching, a column a number of sequences."""
    batches = sorted({step["batch"] for step in steps})
    taken: dict[tuple[str, str], dict[int, str]] = {}
    for step in steps:
        name = f"`{step['recurrence']}`, {step['heads']} heads, {_sizes(step)}"
        cell = "" if step["seconds"] is None else f"{step['seconds']['median'] * 1e6:.1f} ({step['over_floor']:.1f})"
        taken.setdefault((name, step["launch"]), {})[step["batch"]] = cell
    rows = [_cells([*place, *(cells.get(batch, "") for batch in batches)]) for place, cells in sorted(taken.items())]
    return _table(["recurrence", "launch", *(f"B = {batch}" for batch in batches)], rows)


def _table(head: Sequence[str], rows: list[str]) -> list[str]:
    return [_cells(head), _cells(["---"] * len(head)), *rows]


def _sizes(measured: dict) -> str:
    return ", ".join([*(f"{name}={value:g}" for name, value in measured["sizes"].items()), measured["dtype"]])


def _row(run: dict, versions: dict) -> str:
    shape, own = run["shape"], next(row for row in run["rows"] if row["kind"] == "op")
    name = f"`{run['recurrence']}`, ({shape['batch']}, {shape['tokens']}, {shape['heads']}), {_sizes(run)}"
    peak = "" if own["peak_bytes"] is None else f"{own['peak_bytes'] / 2**30:.2f} GiB"
    first = "" if own["first_call_seconds"] is None else f"{own['first_call_seconds']:.1f} s"
    return _cells([name, ", ".join(run["axes"]), _time(own, "forward"), _time(own, "both"), peak, first, _peer(run, versions)])


def _time(row: dict, direction: str) -> str:
    if row[direction] is None:
        return ""
    return f"{_ms(row[direction])} ({row[f'{direction}_over_floor']:.1f})"


def _ms(times: dict) -> str:
    milliseconds = times["median"] * 1e3
    return f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.2f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _peer(run: dict, versions: dict) -> str:
    """The peer whose forward time is least among those that may be compared, with how many times longer it takes."""
    fair = [row for row in run["rows"] if row["kind"] == "peer" and row["forward_ratio"] is not None]
    if not fair:
        return ""
    best = min(fair, key=lambda row: row["forward_ratio"])
    both = "no backward here" if best["both"] is None else f"{_ms(best['both'])}"
    ratio = "" if best["both_ratio"] is None else f" ({best['both_ratio']:.2f}x)"
    version = next((f" {value}" for name, value in versions.items() if best["what"].startswith(name.replace("_", "-"))), "")
    return f"{best['what']}{version}: {_ms(best['forward'])} ({best['forward_ratio']:.2f}x), {both}{ratio}"


def _cells(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"
