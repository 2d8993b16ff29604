"""A report of `ssmgen bench` as rich tables."""

from __future__ import annotations

WIDTH = 168
"""Columns of a table that goes to a file or a pipe."""


def device(report: dict) -> str:
    """What was measured on."""
    about = report["device"]
    return f"{about['name']}, {about['threads']} threads" if about["kind"] == "cpu" else about["name"]


def machine(report: dict) -> str:
    """One line: the device, what it does at best, versions."""
    about, name = report["device"], device(report)
    rates = f"copy {about['copy_bytes_per_second'] / 1e9:,.0f} GB/s, products {about['product_flops_per_second'] / 1e12:,.2f} TFLOP/s"
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items() if value)
    return f"{name}: {rates}, measured here; {versions}"


def shape_table(run: dict):
    """One recurrence at one shape."""
    from rich.table import Table

    shape, floor = run["shape"], run["floors"]
    sizes = ", ".join(f"{name}={value:g}" for name, value in run["sizes"].items())
    title = (
        f"{run['recurrence']}: B={shape['batch']}, T={shape['tokens']}, H={shape['heads']}, {sizes}, {run['dtype']}, {run['device']}; "
        f"floor {_ms(floor['forward']['seconds'])} ms forward, {_ms(floor['both']['seconds'])} ms with backward"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("", min_width=24)
    for column in ("forward ms", "x floor", "fwd+bwd ms", "x floor", "ratio to op", "peak MiB", "first call s"):
        table.add_column(column, justify="right")
    table.add_column("max error", min_width=14)
    for row in run["rows"]:
        name, note = row["what"], row["failure"] or row["note"]
        table.add_row(
            f"{name}\n  [dim]{_plain(note)}[/]" if note else name,
            _times(row["forward"]), _number(row["forward_over_floor"]), _times(row["both"]), _number(row["both_over_floor"]),
            _ratios(row), _number(row["peak_bytes"], 2**20, ",.0f"), _number(row["first_call_seconds"], 1, ".1f"),
            _error(row["accuracy"]),
        )  # fmt: skip
    return table


def decode_table(name: str, rows: list[dict]):
    """One token, by batch size and way of launching."""
    from rich.table import Table

    table = Table(title=f"{name}: one token, H={rows[0]['heads']}", title_justify="left")
    for column in ("batch", "launch", "us", "quartiles", "floor us", "x floor"):
        table.add_column(column, justify="left" if column == "launch" else "right")
    for row in rows:
        start = (str(row["batch"]), row["launch"])
        if row["seconds"] is None:
            table.add_row(*start, "-", _plain(row["failure"]), "-", "-")
            continue
        low, middle, high = (
            f"{1e6 * x:.1f}" for x in (row["seconds"]["quartiles"][0], row["seconds"]["median"], row["seconds"]["quartiles"][1])
        )
        table.add_row(*start, middle, f"{low}-{high}", f"{1e6 * row['floor']:.2f}", _number(row["over_floor"]))
    return table


def legend(report: dict) -> list[str]:
    """What the columns mean."""
    lines = [
        "medians; floor: bytes that must move / copy rate, or operations / product rate if longer; ratio to op: forward, fwd+bwd",
        "max error: root mean square, relative, of the output or the worst gradient against the reference in float64, on a small shape",
    ]
    if any(row["first_call_seconds"] for run in report["runs"] for row in run["rows"]):
        lines.append("first call: forward + backward in a fresh process, no kernel cached; at the first shape only")
    if any((row["accuracy"] or {}).get("known") for run in report["runs"] for row in run["rows"]):
        lines.append("*: gradients known to be wrong on this machine; the time is what they cost")
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _times(times: dict | None) -> str:
    return "-" if times is None else _ms(times["median"])


def _number(value: float | None, unit: float = 1, style: str = ".2f") -> str:
    return "-" if value is None else format(value / unit, style)


def _ratios(row: dict) -> str:
    mark = "*" if (row["accuracy"] or {}).get("known") and row["both_ratio"] is not None else ""
    return f"{_number(row['forward_ratio'])}, {_number(row['both_ratio'])}{mark}"


def _error(judged: dict | None) -> str:
    if judged is None:
        return "-"
    if judged["error"] is None:
        return "[red]no result[/]" if judged["failure"] else "[red]not finite[/]"
    words = f"{judged['error']:.1e} {judged['tensor']}"
    if judged["output_is_wrong"] or judged["gradients_are_wrong"]:
        return f"[red]{words}, {'known wrong' if judged['known'] and not judged['output_is_wrong'] else 'WRONG'}[/]"
    return words


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
