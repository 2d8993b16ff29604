"""Reports of `ssmgen bench` as one Markdown table for each machine, and the place of such tables in a document.

A row is a recurrence at a shape: its axes, its times and floors, and the fastest peer of the same run whose results were right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .bench_table import device

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
"""The lines of a document between which its tables stand."""

HEAD = ("recurrence, (B, T, H)", "axes", "forward", "forward + backward", "peak", "first call", "best peer of the same run")


class ReportError(Exception):
    """A report or a document that does not fit: one line for who gave it."""


def read(paths: Iterable[Path]) -> list[dict]:
    """Reports, in the order given. Raises ReportError for a file that is none."""
    found = []
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            found.append({key: report[key] for key in ("device", "versions", "runs")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReportError(f"{path}: no report of `ssmgen bench --json`: {type(error).__name__}: {error}") from None
    return found


def tables(reports: list[dict]) -> str:
    """Markdown: a table for each machine and set of versions; peers' versions stand beside their names."""
    machines: dict[str, list[str]] = {}
    for report in reports:
        machines.setdefault(_machine(report), []).extend(_row(run, report["versions"]) for run in report["runs"])
    parts = []
    for machine, rows in machines.items():
        parts.append("\n".join([machine, "", _cells(HEAD), _cells(["---"] * len(HEAD)), *sorted(rows)]))
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
    return f"{device(report)}; {own}; milliseconds, times the floor of the device in parentheses:"


def _row(run: dict, versions: dict) -> str:
    shape, own = run["shape"], next(row for row in run["rows"] if row["kind"] == "op")
    sizes = ", ".join(f"{name}={value:g}" for name, value in run["sizes"].items())
    name = f"`{run['recurrence']}`, ({shape['batch']}, {shape['tokens']}, {shape['heads']}), {sizes}, {run['dtype']}"
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
