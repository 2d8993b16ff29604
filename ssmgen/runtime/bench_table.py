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


NAME = 84
"""Letters of a kernel's name in a table: those of torch's templates go on for lines."""


def kernel_table(run: dict, direction: str):
    """The kernels of one recurrence at one shape, forward or backward."""
    from rich.table import Table

    found, shape = run["kernels"][direction], run["shape"]
    title = f"{run['recurrence']}: B={shape['batch']}, T={shape['tokens']}, H={shape['heads']}, {direction}, kernel by kernel"
    table = Table(title=title, title_justify="left", show_footer=True)
    total = found["kernel_seconds"]
    table.add_column("kernel", f"{sum(row['launches'] for row in found['kernels'])} launches, in all")
    for column, foot in (("launches", ""), ("us", f"{1e6 * total:.1f}"), ("share", "100.0%")):
        table.add_column(column, foot, justify="right")
    for row in found["kernels"]:
        name = row["name"] if len(row["name"]) <= NAME else f"{row['name'][: NAME - 3]}..."
        table.add_row(_plain(name), str(row["launches"]), f"{1e6 * row['seconds']:.1f}", f"{100 * row['share']:.1f}%")
    floor, wide = found["floor"], f"{found['kernels_over_bytes']:.2f} times"
    table.caption = (
        f"measured {_ms(found['measured']['median'])} ms: kernels {_ms(total)}, {wide} the bytes that must move "
        f"({floor['bytes'] / 2**20:,.0f} MiB, {_ms(floor['bytes_seconds'])} ms; floor {_ms(floor['seconds'])} ms); beside kernels "
        f"{_ms(found['beside_seconds'])}; the host hands a run over in {_ms(found['host_seconds'])} ms"
    )
    table.caption_justify = "left"
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


def first_table(name: str, rows: list[dict]):
    """The first call of an op and of its peers."""
    from rich.table import Table

    shape = "B={batch}, T={tokens}, H={heads}".format(**rows[0]["shape"])
    table = Table(title=f"{name}: {shape}, the first forward + backward of a process, nothing cached", title_justify="left")
    table.add_column("")
    for column in ("s", "kernels of Triton", "compiled in s", "the longest s"):
        table.add_column(column, justify="right")
    for row in rows:
        what = f"{row['what']}\n  [dim]{_plain(row['failure'])}[/]" if row["failure"] else row["what"]
        done = row["compiled"] or {"kernels": None, "seconds": None, "longest": None}
        numbers = (_number(done["kernels"], 1, ".0f"), _number(done["seconds"], 1, ".1f"), _number(done["longest"], 1, ".1f"))
        table.add_row(what, _number(row["seconds"], 1, ".1f"), *numbers)
    return table


def steps_table(rows: list[dict]):
    """One token of several recurrences side by side, each also as a multiple of the first."""
    from rich.table import Table

    names, places = (list(dict.fromkeys(map(key, rows))) for key in (lambda row: row["recurrence"], _place))
    table = Table(title="one token, us, and times the first", title_justify="left")
    for column in ("batch", "H", "launch", *names):
        table.add_column(column, justify="left" if column == "launch" else "right")
    for place in places:
        taken = {row["recurrence"]: row["seconds"]["median"] for row in rows if _place(row) == place and row["seconds"]}
        cells = [f"{1e6 * taken[name]:.1f}{_beside(taken, name, names[0])}" if name in taken else "-" for name in names]
        table.add_row(*map(str, place), *cells)
    return table


def _place(row: dict) -> tuple:
    return row["batch"], row["heads"], row["launch"]


def _beside(taken: dict[str, float], name: str, first: str) -> str:
    return "" if name == first or first not in taken else f" ({taken[name] / taken[first]:.2f}x)"


def legend(report: dict) -> list[str]:
    """What the columns mean."""
    lines = ["medians; floor: bytes that must move / copy rate, or operations / product rate if longer"]
    if not report["runs"]:
        return lines
    lines += [
        "ratio to op: forward, fwd+bwd",
        "max error: root mean square, relative, of the output or the worst gradient against the reference in float64, on a small shape",
    ]
    if any(row["first_call_seconds"] for run in report["runs"] for row in run["rows"]):
        lines.append("first call: forward + backward in a fresh process, no kernel cached; at the first shape only")
    if any(run["kernels"] for run in report["runs"]):
        lines.append(
            "kernel by kernel: of one profiled run, the cache flushed before it; backward: gradients of all arguments, without forward"
        )
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
