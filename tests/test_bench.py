"""`ssmgen bench` and `examples/train.py`: floors, peers, accuracy, the report; also with a GPU that is only pretended."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from conftest import ROOT

torch = pytest.importorskip("torch")

from documented_peers import PEERS, chunk_simple_gla  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from ssmgen import cli  # noqa: E402
from ssmgen.runtime import (  # noqa: E402
    bench,
    bench_accuracy,
    bench_ahead,
    bench_clock,
    bench_decode,
    bench_first,
    bench_kernels,
    bench_report,
    bench_table,
    bench_yardstick,
    commands,
    floors,
    peers,
)
from ssmgen.runtime.bench_subject import contenders, subjects  # noqa: E402
from ssmgen.source import Source  # noqa: E402

SPEC = """\
recurrence kept {
  dim    N = 8, P = 4
  input  q, k : [N]; v : [P]; raw : scalar
  gate   a in (0, 1) = sigmoid(raw)
  state  S : real [N, P]
  update S' = a * S + k v^T
  output o = S'^T q
}
"""

PEER = """\
import torch

NAME = "loop"
REQUIRES = ("math",)
VARIANTS = {"right": {"scale": 1.0}, "wrong": {"scale": 2.0}}


def prepare(arguments, sizes):
    return {"q": arguments["q"], "k": arguments["k"], "v": arguments["v"], "a": torch.sigmoid(arguments["raw"])}


def run(inputs, sizes, scale):
    q, k, v, a = inputs.values()
    assert (sizes["N"], sizes["P"]) == (8, 4)
    state, out = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[-1], dtype=v.dtype), []
    for t in range(q.shape[1]):
        state = a[:, t, :, None, None] * state + k[:, t, :, :, None] * v[:, t, :, None]
        out.append(torch.einsum("bhn,bhnp->bhp", q[:, t], state))
    return scale * torch.stack(out, 1)
"""

RATES = floors.Rates(copy=1e9, product=1e12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSMGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(bench_clock, "TURNS", 2)
    monkeypatch.setattr(bench_clock, "RUNS", (2, 3))
    monkeypatch.setattr(bench_clock, "FLUSH", 1024)


def adapter(folder: Path, text: str = PEER, name: str = "kept.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def subject(found=(), device: str = "cpu", text: str = SPEC):
    (one,) = subjects(Source("kept.ssm", text), {}, device, list(found))
    return one


# --- floors, times -----------------------------------------------------------------------------------------------


def test_a_floor_is_the_longer_of_traffic_and_work():
    q, y = torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(5, dtype=torch.float32)
    assert floors.size([q, y]) == 12 + 20
    assert floors.forward([q, q], y, 7.0) == floors.Work(2 * 12 + 20, 7.0)
    # forward reads 24 and writes 20; backward reads 24 and the output's gradient, 20, and writes 24
    assert floors.forward_backward([q, q], y, 7.0) == floors.Work(24 + 20 + 24 + 20 + 24, 21.0)
    assert floors.step([q], [y], q) == floors.Work(12 + 40 + 12, 0.0)
    rates = floors.Rates(copy=100.0, product=10.0)
    assert floors.Work(200, 10.0).seconds(rates) == 2.0 and floors.Work(200, 50.0).seconds(rates) == 5.0


def test_the_rates_of_this_machine():
    rates = floors.rates("cpu")
    assert 1e8 < rates.copy < 1e13 and 1e8 < rates.product < 1e15


def test_medians_and_quartiles():
    assert bench_clock.spread([4.0, 1.0, 2.0, 3.0, 9.0]) == {"median": 3.0, "quartiles": [2.0, 4.0], "runs": 5}
    assert bench_clock.spread([2.0]) == {"median": 2.0, "quartiles": [2.0, 2.0], "runs": 1}


def test_the_clock_waits_and_takes_turns(monkeypatch):
    monkeypatch.setattr(bench_clock, "TURNS", 3)
    order = []
    taken = bench_clock.in_turns({"a": lambda: (order.append("a"), time.sleep(0.01)), "b": lambda: order.append("b")})
    assert "".join(order) == "ab" * 4 and min(taken["a"]) >= 0.01 and len(taken["b"]) == 3


def test_the_yardstick_computes_what_it_says():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 128, 2, n, dtype=torch.float64) for n in (8, 8, 4))
    g = -torch.rand(1, 128, 2, dtype=torch.float64)
    state, expected = torch.zeros(1, 2, 8, 4, dtype=torch.float64), []
    for t in range(128):
        state = g[:, t].exp()[..., None, None] * state + k[:, t, :, :, None] * v[:, t, :, None]
        expected.append(torch.einsum("bhn,bhnp->bhp", q[:, t], state))
    torch.testing.assert_close(bench_yardstick.chunked_decay_attention(q, k, v, g), torch.stack(expected, 1))


# --- peers -------------------------------------------------------------------------------------------------------


def test_an_adapter_gives_one_peer_a_variant(tmp_path):
    right, wrong = peers.load(adapter(tmp_path / "peers"))
    assert (right.name, wrong.name, right.missing, right.prepares, right.known_wrong()) == ("loop, right", "loop, wrong", "", True, "")
    assert peers.beside(tmp_path / "kept.ssm") == tmp_path / "peers" / "kept.py" and peers.beside(tmp_path / "other.ssm") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("REQUIRES = ()", "says `NAME`, a str"),
        ("NAME = 'x'", "says `REQUIRES`, a tuple"),
        ("NAME, REQUIRES = 'x', ()", "defines `run(inputs, sizes)`"),
        ("NAME = ", "SyntaxError"),
        (None, "no such file"),
    ],
)
def test_what_is_no_adapter(tmp_path, text, words):
    path = tmp_path / "absent.py" if text is None else adapter(tmp_path, text)
    with pytest.raises(peers.AdapterError) as caught:
        peers.load(path)
    assert words in str(caught.value)


def test_of_several_recurrences_an_adapter_fits_the_one_of_its_name(tmp_path):
    source = Source("two.ssm", SPEC + SPEC.replace("kept", "other"))
    kept, other = subjects(source, {}, "cpu", peers.load(adapter(tmp_path)))
    assert [len(each.peers) for each in (kept, other)] == [2, 0]
    with pytest.raises(peers.AdapterError, match="several recurrences"):
        subjects(source, {}, "cpu", peers.load(adapter(tmp_path, name="neither.py")))


# --- rows --------------------------------------------------------------------------------------------------------


def measured(found, device: str = "cpu"):
    one = subject(found, device)
    errors = bench_accuracy.accuracy(one, 64, 2)
    return bench.measure(one, (1, 64, 2), RATES, errors, {}), errors


def test_a_wrong_result_is_never_compared(tmp_path, short):
    run, errors = measured(peers.load(adapter(tmp_path)))
    assert json.loads(json.dumps(run, allow_nan=False))["shape"] == {"batch": 1, "tokens": 64, "heads": 2}
    rows = {row["what"]: row for row in run["rows"]}
    assert list(rows) == ["op", "sequential reference", "hand-written chunked attention", "loop, right", "loop, right, prepared in torch",
                          "loop, wrong", "loop, wrong, prepared in torch"]  # fmt: skip
    assert {row["tensor"] for row in errors if row["what"] == "op"} == {"y", "d q", "d k", "d v", "d raw"}
    assert all(row["error"] < 1e-5 for row in errors if row["what"] != "loop, wrong")
    assert all(abs(row["error"] - 1) < 1e-5 and row["is_wrong"] for row in errors if row["what"] == "loop, wrong")
    op, right, wrong = rows["op"], rows["loop, right, prepared in torch"], rows["loop, wrong"]
    assert op["forward_ratio"] == op["both_ratio"] == 1
    assert right["both_ratio"] == right["both"]["median"] / op["both"]["median"] > 1
    assert wrong["both"]["median"] > 0 and wrong["forward_ratio"] is None and wrong["both_ratio"] is None
    # q and k [1, 64, 2, 8], v and y [1, 64, 2, 4], raw [1, 64, 2], in float32
    arguments, output = 4 * 64 * 2 * (8 + 8 + 4 + 1), 4 * 64 * 2 * 4
    assert run["floors"]["forward"]["bytes"] == arguments + output and run["floors"]["both"]["bytes"] == 3 * arguments + 2 * output
    assert op["forward_over_floor"] == pytest.approx(op["forward"]["median"] / ((arguments + output) / RATES.copy))
    assert "WRONG" in shown(bench_table.shape_table(run))


def test_gradients_known_to_be_wrong_are_timed_and_marked(tmp_path, short):
    text = PEER.replace('arguments["raw"])', 'arguments["raw"]).detach()').replace(', "wrong": {"scale": 2.0}', "")
    silent, _ = measured(peers.load(adapter(tmp_path, text)))
    assert silent["rows"][-1]["forward_ratio"] > 0 and silent["rows"][-1]["both_ratio"] is None
    said, errors = measured(peers.load(adapter(tmp_path, text + '\n\ndef known_wrong():\n    return "broken here"\n')))
    row = said["rows"][-1]
    assert row["both_ratio"] > 0 and row["note"] == "broken here" and row["accuracy"]["tensor"] == "d raw" and row["accuracy"]["error"] == 1
    assert [each["known"] for each in errors if each["what"] == "loop, right"] == ["", *["broken here"] * 4]
    text = shown(bench_table.shape_table(said))
    assert "known wrong" in text and f"{row['both_ratio']:.2f}*" in text


def test_a_peer_that_cannot_run_is_a_row_that_says_so(tmp_path, short):
    absent = adapter(tmp_path / "a", PEER.replace('"math"', '"no_such_library.ops"'))
    failing = adapter(tmp_path / "b", PEER.replace("    q, k", '    raise RuntimeError("needs a GPU")\n    q, k', 1))
    run, errors = measured([*peers.load(absent), *peers.load(failing)])
    notes = {(row["what"], row["failure"]) for row in run["rows"][3:]}
    assert ("loop, right", "not installed: no module `no_such_library`") in notes
    assert ("loop, right", "RuntimeError: needs a GPU") in notes
    assert all(row["forward"] is None and row["both_ratio"] is None for row in run["rows"][3:])
    assert {row["failure"] for row in errors if row["what"] != "op"} == {"RuntimeError: needs a GPU"}
    assert "not installed" in shown(bench_table.shape_table(run))


def shown(table) -> str:
    from rich.console import Console

    console = Console(width=bench_table.WIDTH, record=True, file=open(os.devnull, "w"))
    console.print(table)
    return console.export_text()


def test_the_first_call_happens_in_a_process_of_its_own(tmp_path):
    found = peers.load(adapter(tmp_path))
    calls = bench.first_calls(subject(found), (1, 64, 2), tmp_path / "kernels")
    assert set(calls) == {"op", "loop, right", "loop, wrong"}
    assert all(0 < call["seconds"] < 60 and call["failure"] == "" for call in calls.values())
    assert all(call["compiled"] == {"kernels": 0, "seconds": 0, "longest": 0} for call in calls.values()), "on a processor"
    broken = peers.load(adapter(tmp_path / "b", PEER.replace("    q, k", '    raise RuntimeError("no")\n    q, k', 1)))[0]
    assert bench_first.first_call(subject(), (1, 64, 2), tmp_path, broken) == {
        "seconds": None, "failure": "RuntimeError: no", "compiled": None,
    }  # fmt: skip
    assert "within 0 s" in bench_first.first_call(subject(), (1, 64, 2), tmp_path, longest=0.01)["failure"]


def test_every_first_call_begins_with_empty_caches(tmp_path, monkeypatch):
    """One process after the other, each with a folder of its own for all that is compiled; what they leave is kept for what follows."""
    found, seen = peers.load(adapter(tmp_path)), []
    reply = {"seconds": 1.5, "failure": "", "compiled": {"kernels": 2, "seconds": 1.0, "longest": 0.75}}

    def run(command, *, input, env, timeout, **_):
        cache = Path(env["TRITON_CACHE_DIR"])
        inside = {name: Path(env[name]) for name in ("TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")}
        assert command[1:] == ["-m", "ssmgen.runtime.bench_first"] and timeout == bench_first.LONGEST
        assert list(cache.iterdir()) == [] and all(cache in path.parents for path in inside.values()) and len(set(inside.values())) == 2
        name = json.loads(input)["peer"]
        (cache / f"kernel_{len(seen)}").write_text("machine code")
        seen.append(name and name[1])
        return subprocess.CompletedProcess(command, 0, "what a library prints\n" + json.dumps(reply), "")

    monkeypatch.setattr(bench_first.subprocess, "run", run)
    calls = bench.first_calls(subject(found), (1, 64, 2), tmp_path / "kernels")
    assert seen == [None, "loop, right", "loop, wrong"] and calls == dict.fromkeys(("op", "loop, right", "loop, wrong"), reply)
    assert sorted(path.name for path in (tmp_path / "kernels").iterdir()) == ["kernel_0", "kernel_1", "kernel_2"]


def test_what_triton_compiles_in_a_first_call_is_counted():
    knobs = pytest.importorskip("triton").knobs
    with bench_first._listening() as taken:
        for total, cache_hit in ((2_000_000, False), (9_000_000, True), (500_000, False)):
            knobs.compilation.listener(
                src=None, metadata={}, metadata_group={}, times=types.SimpleNamespace(total=total), cache_hit=cache_hit
            )
    assert taken == pytest.approx([2.0, 0.5]) and knobs.compilation.listener is None


def test_first_calls_alone(tmp_path, monkeypatch, capfd):
    (tmp_path / "kept.ssm").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(floors, "rates", lambda device: RATES)
    monkeypatch.setattr(bench, "measure", lambda *given: pytest.fail("nothing else is timed"))
    monkeypatch.setattr(bench_decode, "decode", lambda *given: pytest.fail("nothing else is timed"))
    replies = {
        "op": {"seconds": 12.34, "failure": "", "compiled": {"kernels": 6, "seconds": 9.87, "longest": 2.1}},
        "loop": {"seconds": None, "failure": "no first call within 600 s", "compiled": None},
    }
    monkeypatch.setattr(bench, "first_calls", lambda subject, shape, folder: replies)
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "kept.ssm", "--only", "first-call", "--shape", "2,64,3", "--device", "cpu", "--json", "first.json"])
    out = capfd.readouterr().out
    assert stop.value.code == 0 and "kept: B=2, T=64, H=3, the first forward + backward of a process, nothing cached" in out
    (line,) = (line for line in out.splitlines() if line.startswith("│ op"))
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["op", "12.3", "6", "9.9", "2.1"] and "no first call within 600 s" in out
    report = json.loads((tmp_path / "first.json").read_text())
    about = {"recurrence": "kept", "dtype": "float32", "sizes": {"N": 8, "P": 4}, "shape": {"batch": 2, "tokens": 64, "heads": 3}}
    assert report["first_calls"] == [{**about, "what": what, **reply} for what, reply in replies.items()] and report["runs"] == []


# --- a GPU that is not there -------------------------------------------------------------------------------------


class _OnTheProcessor(TorchFunctionMode):
    """What is asked of device "cuda" happens on the processor."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = {name: "cpu" if str(x) == "cuda" else x for name, x in (kwargs or {}).items()}
        return function(*(torch.device("cpu") if isinstance(x, str) and x == "cuda" else x for x in args), **kwargs)


class _Event:
    def __init__(self, enable_timing):
        self.at = None

    def record(self):
        self.at = time.perf_counter()

    def elapsed_time(self, end):
        return 1e3 * (end.at - self.at)


class _Graph:
    """What is called while it is captured is not known to it: replaying one only counts."""

    replays = 0

    def replay(self):
        _Graph.replays += 1


@pytest.fixture
def pretended(monkeypatch):
    nothing = types.SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "is_available": lambda: True,
        "synchronize": lambda: None, "Event": _Event, "Stream": lambda: nothing, "current_stream": lambda: nothing,
        "stream": lambda s: contextlib.nullcontext(), "graph": lambda g: contextlib.nullcontext(), "CUDAGraph": _Graph,
        "mem_get_info": lambda: (1 << 20, 1 << 20), "reset_peak_memory_stats": lambda: None, "memory_allocated": lambda: 100,
        "max_memory_allocated": lambda: 612,
        "get_device_properties": lambda i: types.SimpleNamespace(name="Pretended", total_memory=1 << 30, multi_processor_count=2),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    with _OnTheProcessor():
        yield


def test_every_path_of_a_gpu_runs(tmp_path, short, pretended, monkeypatch):
    taken = bench_clock.on_gpu(lambda: time.sleep(0.002))
    assert len(taken) == 3 and min(taken) >= 0.002
    monkeypatch.setattr(bench_clock, "RUNS", (1, 1))
    run, errors = measured(peers.load(adapter(tmp_path)), "cuda")
    op = run["rows"][0]
    assert run["dtype"] == "bfloat16" and op["peak_bytes"] == 512 and {row["limit"] for row in errors} == {5e-2}
    assert all(row["error"] < 2e-2 for row in errors if row["what"] != "loop, wrong")
    steps = bench_decode.decode(subject(device="cuda"), 2, RATES)
    assert [(row["batch"], row["launch"]) for row in steps] == [(b, way) for b in (1, 32, 128) for way in ("eager", "graph")]
    assert steps[0]["floor"] == (2 * 2 * (8 + 8 + 4 + 1) + 2 * 4 * 2 * 32 + 2 * 2 * 4) / RATES.copy and _Graph.replays > 3
    report = bench.describe("cuda", RATES, [])
    assert report["device"]["name"] == "Pretended" and "multiprocessors" in report["device"]
    assert "Pretended" in bench_table.machine(report)
    assert "128" in shown(bench_table.decode_table("kept", steps))


def test_a_gpu_is_measured_from_end_to_end(tmp_path, short, pretended, monkeypatch):
    monkeypatch.setattr(floors, "ENTRIES", {"cuda": 1 << 12})
    monkeypatch.setattr(floors, "WIDTH", {"cuda": 64})
    monkeypatch.setattr(bench, "SHAPES", {"cuda": ((2, 64, 2), (1, 128, 2))})
    monkeypatch.setattr(bench_ahead, "compiled", lambda built, shapes, parts, say: None)  # which compiles for the GPU that is here
    path = tmp_path / "times.json"
    assert commands.bench([(Source("kept.ssm", SPEC), {}, None)], "cuda", (), False, path) == 0
    report = json.loads(path.read_text())
    assert [run["shape"]["tokens"] for run in report["runs"]] == [64, 128] and len(report["decode"]) == 6
    assert report["device"]["copy_bytes_per_second"] > 0 and report["runs"][0]["rows"][0]["peak_bytes"] == 512


class _Profile:
    """torch's profiler where there is no GPU: `ran` is what it says of each run, in turn."""

    ran: tuple = ()
    begun = 0

    def __init__(self, activities, acc_events):
        assert activities == [torch.profiler.ProfilerActivity.CUDA] and acc_events

    def __enter__(self):
        self.number = _Profile.begun
        _Profile.begun += 1
        return self

    def __exit__(self, *given):
        pass

    def events(self):
        from torch.autograd import DeviceType

        launched = _Profile.ran[self.number % len(_Profile.ran)]
        device, note = DeviceType.CUDA, DeviceType.CUDA
        found = [(name, device, False, us) for name, us in launched]
        found += [("cudaLaunchKernel", DeviceType.CPU, False, 900.0), ("a region of a user", note, True, 900.0)]
        return [
            types.SimpleNamespace(
                name=name, device_type=where, is_user_annotation=is_note,
                time_range=types.SimpleNamespace(elapsed_us=lambda us=us: us),
            )
            for name, where, is_note, us in found
        ]  # fmt: skip


@pytest.fixture
def profiler(monkeypatch):
    _Profile.ran, _Profile.begun = (), 0
    monkeypatch.setattr(torch.profiler, "profile", _Profile)
    return _Profile


def test_the_kernels_of_a_run_are_counted_and_summed():
    work, rates = floors.Work(bytes=4e6, flops=1e9), floors.Rates(copy=2e11, product=1e13)
    measured = bench_clock.spread([1e-3])
    launched = [("b", 1e-4), ("a", 2e-4), ("b", 3e-4), ("Memset (Device)", 2e-4)]
    found = bench_kernels.breakdown(launched, measured, 5e-4, work, rates)
    assert [(row["name"], row["launches"]) for row in found["kernels"]] == [("b", 2), ("a", 1), ("Memset (Device)", 1)]
    assert [row["seconds"] for row in found["kernels"]] == pytest.approx([4e-4, 2e-4, 2e-4])
    assert [row["share"] for row in found["kernels"]] == pytest.approx([0.5, 0.25, 0.25])
    assert (
        found["kernel_seconds"] == pytest.approx(8e-4) and found["beside_seconds"] == pytest.approx(2e-4) and found["host_seconds"] == 5e-4
    )
    assert found["floor"] == {"seconds": 1e-4, "bytes_seconds": 2e-5, "bytes": 4e6, "flops": 1e9}
    assert found["kernels_over_bytes"] == pytest.approx(40.0) and found["measured"] is measured
    run = {"recurrence": "kept", "shape": {"batch": 4, "tokens": 8192, "heads": 16}, "kernels": {"forward": found}}
    text = shown(bench_table.kernel_table(run, "forward"))
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines() if line.startswith(("│", "┃"))]
    assert cells == [
        ["kernel", "launches", "us", "share"], ["b", "2", "400.0", "50.0%"], ["a", "1", "200.0", "25.0%"],
        ["Memset (Device)", "1", "200.0", "25.0%"], ["4 launches, in all", "", "800.0", "100.0%"],
    ]  # fmt: skip
    words = " ".join(text.split())
    assert "kept: B=4, T=8192, H=16, forward, kernel by kernel" in words
    assert (
        "measured 1.000 ms: kernels 0.800, 40.00 times the bytes that must move (4 MiB, 0.020 ms; floor 0.100 ms); beside kernels" in words
    )
    assert "beside kernels 0.200; the host hands a run over in 0.500 ms" in words


def test_a_run_is_profiled_in_each_direction(pretended, short, profiler, monkeypatch):
    """Of several profiled runs the middle one counts, behind one that only starts the profiler; what the host does is no kernel."""
    sums = (99.0, 30.0, 10.0, 50.0, 20.0, 40.0)
    profiler.ran = tuple([("walk_kernel", us), ("sum_kernel", 2.0)] for us in sums)
    calls, flushed = [], []
    monkeypatch.setattr(bench_clock, "on_gpu", lambda run: calls.append(run) or [1e-3])
    monkeypatch.setattr(bench_kernels, "host", lambda run: 7e-4)
    monkeypatch.setattr(bench_kernels, "_flush", lambda: lambda: flushed.append(profiler.begun))
    one = subject(device="cuda")
    found = bench_kernels.kernels(one, (2, 64, 2), RATES)
    assert list(found) == ["forward", "backward"] and len(calls) == 2 and profiler.begun == 2 * (1 + bench_kernels.RUNS)
    assert flushed == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11], "before each that counts"
    for each in found.values():
        assert [(row["name"], row["launches"]) for row in each["kernels"]] == [("walk_kernel", 1), ("sum_kernel", 1)]
        assert each["kernels"][0]["seconds"] == pytest.approx(30e-6) and each["kernel_seconds"] == pytest.approx(32e-6)
        assert each["beside_seconds"] == pytest.approx(1e-3 - 32e-6) and each["measured"]["median"] == 1e-3
    # in bfloat16: q and k [2, 64, 2, 8], v and y [2, 64, 2, 4], raw [2, 64, 2]
    arguments, output = 2 * 2 * 64 * 2 * (8 + 8 + 4 + 1), 2 * 2 * 64 * 2 * 4
    assert found["forward"]["floor"]["bytes"] == arguments + output and found["backward"]["floor"]["bytes"] == 2 * arguments + output
    assert found["backward"]["floor"]["flops"] == 2 * found["forward"]["floor"]["flops"] > 0
    assert found["forward"]["kernels_over_bytes"] == pytest.approx(32e-6 / ((arguments + output) / RATES.copy))
    json.dumps(found, allow_nan=False)


def test_what_is_profiled_computes(pretended, profiler, monkeypatch):
    """Forward is a call without a graph, backward the gradients of every argument, again and again."""
    profiler.ran = ([("walk_kernel", 1.0)],)
    runs = []
    monkeypatch.setattr(bench_clock, "on_gpu", lambda run: runs.append(run) or [1e-3])
    plain, graphs, asked = torch.autograd.grad, [], []
    one = subject(device="cuda")
    own = type(one).op
    monkeypatch.setattr(type(one), "op", lambda self, *given: graphs.append(torch.is_grad_enabled()) or own(self, *given))

    def grad(y, leaves, *given, **more):
        found = plain(y, leaves, *given, **more)
        if more == {"retain_graph": True, "allow_unused": True}:  # the op's own backward asks as well
            asked.append(found)
        return found

    monkeypatch.setattr(torch.autograd, "grad", grad)
    found = bench_kernels.kernels(one, (1, 64, 2), RATES)
    often = 1 + 2 * bench_kernels.RUNS  # starting the profiler, profiled, the host's part
    assert graphs == [True] + [False] * often and len(asked) == often and len(runs) == 2
    assert all(len(given) == 4 and all(torch.equal(a, b) for a, b in zip(given, asked[0], strict=True)) for given in asked)
    assert all(0 < each["host_seconds"] < 60 for each in found.values())


def test_a_profile_without_kernels_says_what_to_do(pretended, profiler):
    profiler.ran = ([],)
    with pytest.raises(bench_kernels.ProfileError, match="saw no kernel of a run: let it, by `NVreg_RestrictProfilingToAdminUsers=0` or"):
        bench_kernels.profiled(lambda: None)


def test_the_command_profiles_a_gpu(tmp_path, short, pretended, profiler, monkeypatch, capfd):
    monkeypatch.setattr(floors, "ENTRIES", {"cuda": 1 << 12})
    monkeypatch.setattr(floors, "WIDTH", {"cuda": 64})
    monkeypatch.setattr(bench_ahead, "compiled", lambda built, shapes, parts, say: asked.append(parts))
    asked: list = []
    (tmp_path / "kept.ssm").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    words = ["bench", "kept.ssm", "--kernels", "--only", "operator", "--no-first-call", "--shape", "1,64,2", "--json", "times.json"]
    for launched, code in (([("forward_kernel", 80.0), ("an extremely " + "long " * 30 + "name", 20.0)], 0), ([], 1)):
        profiler.ran = (launched,)
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == code
        out, err = capfd.readouterr()
        if launched:
            (run,) = json.loads((tmp_path / "times.json").read_text())["runs"]
            rows = [(row["name"], row["launches"], row["share"]) for row in run["kernels"]["backward"]["kernels"]]
            assert rows == [(name, 1, pytest.approx(us / 100)) for name, us in launched]
            assert "forward, kernel by kernel" in out and "backward, kernel by kernel" in out and "of one profiled run, the cache" in out
            assert f"{launched[1][0][:81]}..." in out and "one token" not in out
    assert asked == [("operator", "kernels")] * 2
    assert "Error: torch's profiler saw no kernel of a run: let it" in err and "a bug in ssmgen" not in err


def test_what_is_timed_is_compiled_before(tmp_path, monkeypatch):
    launches = pytest.importorskip("ssmgen.runtime.launches")
    pytest.importorskip("triton")
    from ssmgen.runtime.targets import TARGETS

    compiled = []
    monkeypatch.setenv("SSMGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(launches, "here", lambda: TARGETS["sm_90"])
    monkeypatch.setattr(bench_ahead, "compile_ahead", lambda given, workers: compiled.extend(given) or iter(()))
    wide = SPEC.replace("N = 8, P = 4", "N = 64, P = 64")
    one = subject(device="cuda", text=wide)
    with launches._gpu(TARGETS["sm_90"], None), launches._pretence(sys.modules[f"{one.package.__name__}.op"].NAMESPACE):
        bench_ahead.compiled([one], ((4, 8192, 16), (1, 32768, 16)), ("operator", "decode"), lambda words: None)
        only, compiled[:] = list(compiled), []
        bench_ahead.compiled([one], ((4, 8192, 16),), ("decode",), lambda words: None)
        assert {launch.name for launch in compiled} == {"gates_kernel", "forward_kernel", "step_kernel"}, (
            "the state that a token leaves, and its step"
        )
        compiled[:] = only
    names = {launch.name for launch in compiled}
    assert {"forward_kernel", "states_kernel", "gradients_kernel", "step_kernel"} <= names
    assert {launch.configuration["H"] for launch in compiled} == {16, bench_accuracy.HEADS}
    assert len([launch for launch in compiled if launch.name == "step_kernel"]) == 1, "each once"


def test_the_reference_walks_few_tokens_on_a_gpu(pretended):
    one = subject(device="cuda")
    rows = {each.kind: each for each in contenders(one, one.case(1, 512, 2))}
    assert rows["reference"].tokens == 256 and rows["reference"].note == "256 tokens; ratios a token"
    assert rows["op"].tokens == 512 and rows["op"].leaves[0].dtype == torch.bfloat16


# --- the command -------------------------------------------------------------------------------------------------


def ssmgen(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "ssmgen", *words], capture_output=True, text=True, cwd=cwd, env=environment)


def test_the_command_prints_tables_and_writes_the_report(tmp_path):
    (tmp_path / "kept.ssm").write_text(SPEC)
    adapter(tmp_path / "peers")
    done = ssmgen("bench", "kept.ssm", "--shape", "1,64,2", "--shape", "2,128,2", "--first-call", "--json", "times.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in ("B=1, T=64", "B=2, T=128", "x floor", "ratio to op", "first call s", "max error", "loop"))
    report = json.loads((tmp_path / "times.json").read_text())
    assert set(report) == {"format", "device", "versions", "runs", "decode", "accuracy", "first_calls"}
    assert {"torch", "ssmgen", "math"} <= set(report["versions"]) and report["device"]["kind"] == "cpu"
    assert [run["shape"]["tokens"] for run in report["runs"]] == [64, 128]
    (first, second) = ({row["what"]: row for row in run["rows"]} for run in report["runs"])
    assert first["op"]["first_call_seconds"] > 0 and second["op"]["first_call_seconds"] is None
    for row in (*first.values(), *second.values()):
        low, high = row["both"]["quartiles"]
        assert 0 < low <= row["both"]["median"] <= high
    assert report["decode"][0]["seconds"]["median"] > 0 and len(report["accuracy"]) == 15
    document = tmp_path / "document.md"
    document.write_text("above\n<!-- measured -->\nold\n<!-- /measured -->\nbelow\n")
    assert ssmgen("report", "times.json", "--into", "document.md", "--check", cwd=tmp_path).returncode == 1
    assert ssmgen("report", "times.json", "--into", "document.md", cwd=tmp_path).returncode == 0
    assert ssmgen("report", "times.json", "--into", "document.md", "--check", cwd=tmp_path).returncode == 0
    text = document.read_text()
    assert text.startswith("above\n<!-- measured -->\n") and text.endswith(" |\n<!-- /measured -->\nbelow\n") and "old" not in text
    cells = [cell.strip() for cell in next(line for line in text.splitlines() if line.startswith("| `kept`, (1, 64")).split("|")[1:]]
    assert cells[0] == "`kept`, (1, 64, 2), N=8, P=4, float32" and cells[1] == "decay scalar"
    took = 1e3 * first["op"]["forward"]["median"]
    assert float(cells[2].split()[0]) == pytest.approx(took, rel=0.01) and float(cells[5].split()[0]) > 0
    assert cells[6].startswith("loop, right") and cells[6].count("x)") == 2


def test_several_specs_in_one_process(tmp_path, short, monkeypatch, capfd):
    """The device is measured once; one that fails does not keep the others from their place in the report."""
    other = SPEC.replace("kept", "other").replace("N", "K").replace("S'^T q", "K^-1/2 * S'^T q")
    (tmp_path / "specs").mkdir()
    for name, text in {"kept": SPEC, "broken": SPEC.replace("kept", "broken"), "other": other}.items():
        (tmp_path / "specs" / f"{name}.ssm").write_text(text)
    adapter(tmp_path / "specs" / "peers", name="other.py")
    rates, plain = [], bench.measure
    monkeypatch.setattr(floors, "rates", lambda device: rates.append(device) or RATES)

    def measure(subject, *given):
        if subject.spec.name == "broken":
            raise RuntimeError("out of memory")
        return plain(subject, *given)

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "specs", "--dim", "N=6", "--shape", "1,32,2", "--device", "cpu", "--json", "all.json"])
    said = capfd.readouterr().err
    assert stop.value.code == 2 and rates == ["cpu"]
    assert "other.ssm: has no such size, and is measured without --dim N=6" in said
    assert "broken: RuntimeError: out of memory" in said and said.count("has no such size") == 1
    report = json.loads((tmp_path / "all.json").read_text())
    assert [(run["recurrence"], run["sizes"]) for run in report["runs"]] == [("kept", {"N": 6, "P": 4}), ("other", {"K": 8, "P": 4})]
    assert [run["rows"][-1]["kind"] == "peer" for run in report["runs"]] == [False, True]
    assert bench_report.tables(bench_report.read([tmp_path / "all.json"])).count("| `") == 2 + 2, "each forward, and one token"


def test_one_token_of_several_specs_side_by_side(tmp_path, monkeypatch, capfd):
    """`--only decode`: nothing else is timed, and the second is set beside the first."""
    for name in ("kept", "wide"):
        (tmp_path / f"{name}.ssm").write_text(SPEC.replace("kept", name))
    (tmp_path / "back.ssm").write_text(SPEC.replace("kept", "back").replace("  output", "  time reversed\n  output"))
    took = {"kept": 4e-5, "wide": 5e-5}
    monkeypatch.setattr(floors, "rates", lambda device: RATES)
    monkeypatch.setattr(bench, "measure", lambda *given: pytest.fail("forward and backward are left out"))

    def decode(subject, heads, rates):
        if subject.spec.name == "back":
            return []
        seconds = bench_clock.spread([took[subject.spec.name]])
        row = {"batch": 32, "heads": heads, "launch": "graph", "floor": 2e-5, "failure": ""}
        return [
            {**row, "seconds": seconds, "over_floor": seconds["median"] / 2e-5},
            {**row, "batch": 1, "seconds": None, "over_floor": None},
        ]

    monkeypatch.setattr(bench_decode, "decode", decode)
    monkeypatch.chdir(tmp_path)
    words = ["bench", "kept.ssm", "wide.ssm", "back.ssm", "--only", "decode", "--shape", "1,1,6", "--device", "cpu", "--json", "steps.json"]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out = capfd.readouterr().out
    assert stop.value.code == 0 and "back: has no step, and there is nothing to time" in out
    (line,) = (line for line in out.splitlines() if "(1.25x)" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["32", "6", "graph", "40.0", "50.0 (1.25x)"]
    report = json.loads((tmp_path / "steps.json").read_text())
    assert report["runs"] == report["accuracy"] == [] and [row["recurrence"] for row in report["decode"]] == ["kept"] * 2 + ["wide"] * 2
    assert bench_report.tables(bench_report.read([tmp_path / "steps.json"])).splitlines()[-4:] == [
        "| recurrence | launch | B = 1 | B = 32 |",
        "| --- | --- | --- | --- |",
        "| `kept`, 6 heads, N=8, P=4, float32 | graph |  | 40.0 (2.0) |",
        "| `wide`, 6 heads, N=8, P=4, float32 | graph |  | 50.0 (2.5) |",
    ]


def test_what_only_some_need_is_not_asked_of_others(tmp_path, monkeypatch, capfd):
    (tmp_path / "kept.ssm").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    for only, *words in (
        ("decode", "--kernels"), ("decode", "--first-call"), ("decode", "--no-first-call"), ("decode", "--peer", "."),
        ("first-call", "--kernels"), ("first-call", "--no-first-call"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            cli.main(["bench", "kept.ssm", "--only", only, *words])
        assert stop.value.code == 1
        assert capfd.readouterr().err == f"Error: `{words[0]}` is about what `--only {only}` leaves out: take one of them away\n"


@pytest.mark.parametrize(
    ("is_here", "edit"), [(False, "run it where torch sees a GPU, or leave `--kernels` away"), (True, "leave `--device cpu` away")]
)
def test_on_a_processor_there_is_nothing_to_profile(tmp_path, monkeypatch, capfd, is_here, edit):
    (tmp_path / "kept.ssm").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_here)
    monkeypatch.setattr(floors, "rates", lambda device: pytest.fail("it says so before anything is measured"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "kept.ssm", "--kernels", "--device", "cpu"])
    said = "`--kernels` profiles a GPU's kernels, and on the processor there is nothing to profile"
    assert stop.value.code == 1 and capfd.readouterr().err == f"Error: {said}: {edit}\n"


def stored(**more) -> dict:
    """A report of two recurrences on a GPU, its numbers chosen."""
    about = {"kind": "cuda", "name": "Pretended", "copy_bytes_per_second": 4e12, "product_flops_per_second": 7e14}
    versions = {"python": "3.12.3", "torch": "2.11.0", "ssmgen": "1", "cuda": "13.0", "triton": "3.6.0", "some_peer": "0.6.0"}

    def row(kind, what, forward, both, ratio, **others):
        times = {"forward": forward and bench_clock.spread([forward]), "both": both and bench_clock.spread([both])}
        return {
            "what": what, "kind": kind, "tokens": 64, "note": "", "failure": "", "accuracy": None, "peak_bytes": 3 << 29, **times,
            "forward_over_floor": 2.04, "both_over_floor": both and 3.96, "forward_ratio": ratio, "both_ratio": both and ratio,
            "first_call_seconds": None, **others,
        }  # fmt: skip

    def run(name, rows):
        floor = {"seconds": 1e-4, "bytes": 4e8, "flops": 1e9}
        return {
            "recurrence": name, "axes": ["decay scalar"], "device": "cuda", "dtype": "bfloat16", "sizes": {"N": 8}, "rows": rows,
            "shape": {"batch": 4, "tokens": 8192, "heads": 16}, "floors": {"forward": floor, "both": floor}, "kernels": None,
        }  # fmt: skip

    own = row("op", "op", 2.04e-4, 1.26e-3, 1.0, first_call_seconds=12.34)
    rows = [own, row("peer", "some-peer slow", 9e-4, None, 4.41), row("peer", "some-peer chunk", 5.7e-4, 2.07e-3, 2.79)]
    runs = [run("other", [row("op", "op", 0.123, 1.5, 1.0)]), run("kept", rows)]
    return {"format": 3, "device": about, "versions": versions, "runs": runs, "decode": [], "accuracy": [], **more}


def test_a_stored_report_becomes_the_tables_of_a_document(tmp_path, monkeypatch, capfd):
    (tmp_path / "one.json").write_text(json.dumps(stored()))
    (tmp_path / "README.md").write_text("# Title\n\n<!-- measured -->\n<!-- /measured -->\n\nlast words\n")
    monkeypatch.chdir(tmp_path)

    def code(*words) -> int:
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", *words])
        return stop.value.code

    assert code("one.json", "--into", "README.md", "--check") == 1 and code("one.json", "--into", "README.md") == 0
    expected = (
        "# Title\n\n<!-- measured -->\n"
        "Pretended; python 3.12.3, torch 2.11.0, triton 3.6.0; milliseconds, times the floor of the device in parentheses:\n\n"
        "| recurrence, (B, T, H) | axes | forward | forward + backward | peak | first call | best peer of the same run |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| `kept`, (4, 8192, 16), N=8, bfloat16 | decay scalar | 0.204 (2.0) | 1.26 (4.0) | 1.50 GiB | 12.3 s "
        "| some-peer chunk 0.6.0: 0.570 (2.79x), 2.07 (2.79x) |\n"
        "| `other`, (4, 8192, 16), N=8, bfloat16 | decay scalar | 123 (2.0) | 1500 (4.0) | 1.50 GiB |  |  |\n"
        "<!-- /measured -->\n\nlast words\n"
    )
    assert (tmp_path / "README.md").read_text() == expected
    assert code("one.json", "--into", "README.md", "--check") == 0
    step = {"recurrence": "kept", "batch": 1, "heads": 2, "launch": "eager", "seconds": bench_clock.spread([1e-4]), "over_floor": 3.0}
    (tmp_path / "old.json").write_text(json.dumps(stored(format=2, decode=[step])))
    assert code("old.json", "--into", "README.md", "--check") == 0, "steps of unknown sizes are left out"
    capfd.readouterr()
    (tmp_path / "plain.md").write_text("no place\n")
    assert code("one.json", "--into", "plain.md") == 1
    lines = "the lines `<!-- measured -->` and `<!-- /measured -->`, and it has none"
    assert capfd.readouterr().err == f"Error: plain.md: tables go between {lines}\n"


def test_the_command_says_what_is_wrong(tmp_path):
    (tmp_path / "kept.ssm").write_text(SPEC)
    (tmp_path / "empty.py").write_text("")
    done = ssmgen("bench", "kept.ssm", "--peer", "empty.py", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == "Error: empty.py: an adapter says `NAME`, a str\n"
    done = ssmgen("bench", "kept.ssm", "kept.ssm", "--peer", "empty.py", cwd=tmp_path)
    assert done.returncode == 1 and "an adapter is for one spec, and there are 2; name the folder" in done.stderr
    done = ssmgen("report", "kept.ssm", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("Error: kept.ssm: no report of `ssmgen bench --json`: ")
    done = ssmgen("bench", "kept.ssm", "--shape", "4,0,2", cwd=tmp_path)
    assert done.returncode == 1 and "write batch, tokens and heads as in `4,8192,16`" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_there_is_nothing_to_measure_on_one(tmp_path, capfd):
    assert commands.bench([(Source("kept.ssm", SPEC), {}, None)], "cuda", (), None, None) == 1
    assert capfd.readouterr().err.startswith("Error: torch sees no GPU here")


# --- the adapters that ship --------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    """Peers that compute, token by token, what their documentation says."""
    for name, contents in PEERS.items():
        words = name.split(".")
        for end in range(1, len(words) + 1):
            path = ".".join(words[:end])
            if path not in sys.modules:
                module = types.ModuleType(path)
                module.__path__ = []
                monkeypatch.setitem(sys.modules, path, module)
                if end > 1:
                    setattr(sys.modules[".".join(words[: end - 1])], words[end - 1], module)
        for key, value in contents.items():
            monkeypatch.setattr(sys.modules[name], key, value, raising=False)


ADAPTERS = sorted((ROOT / "examples" / "peers").glob("*.py"))


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_a_peer_that_ships_computes_what_its_spec_says(path, installed):
    source = ROOT / "examples" / f"{path.stem}.ssm"
    found = peers.load(path)
    text = source.read_text()
    dims = {name: size for name, size in {"N": 8, "P": 4}.items() if f"{name} = " in text}
    (one,) = subjects(Source(source.name, text), dims, "cpu", found)
    rows = bench_accuracy.accuracy(one, 24, 4)
    assert {row["what"] for row in rows} == {"op", *(peer.name for peer in found)}
    assert [row for row in rows if row["is_wrong"]] == [] and all(row["failure"] == "" for row in rows)


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_a_peer_that_ships_is_no_dependency(path):
    if any(importlib.util.find_spec(name) for name in ("fla", "mamba_ssm", "mlstm_kernels")):
        pytest.skip("a peer is installed here")
    assert all(peer.missing.startswith("not installed: no module") for peer in peers.load(path))


def test_gradients_that_are_known_wrong_are_so_on_one_kind_of_machine(monkeypatch):
    triton = pytest.importorskip("triton")
    (peer,) = peers.load(ROOT / "examples" / "peers" / "simple_gla.py")
    assert torch.cuda.is_available() or peer.known_wrong() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for version, capability, wrong in (
        ("3.6.0", (9, 0), True),
        ("3.6.0", (8, 0), False),
        ("3.7.1", (9, 0), False),
        ("3.3.1", (9, 0), False),
    ):
        monkeypatch.setattr(triton, "__version__", version)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        assert bool(peer.known_wrong()) == wrong


# --- training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training():
    spec = importlib.util.spec_from_file_location("examples_train", ROOT / "examples" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = ("--layers", "2", "--d-model", "64", "--tokens", "64", "--batch", "2", "--steps", "4", "--every", "2", "--dim", "N=16",
        "--dim", "P=16",
        "--device", "cpu")  # fmt: skip


def test_own_op_and_peer_train_alike(training, installed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "corpus", lambda: bytes(range(256)) * 20)
    calls = []
    monkeypatch.setattr(sys.modules["fla.ops.simple_gla"], "chunk_simple_gla", lambda *a, **k: calls.append(1) or chunk_simple_gla(*a, **k))
    peer = ROOT / "examples" / "peers" / "simple_gla.py"
    report = training.main([*TINY, "--peer", str(peer), "--json", str(tmp_path / "runs.json")])
    assert report == json.loads((tmp_path / "runs.json").read_text())
    own, other, rounded = report["runs"].values()
    assert len(calls) == 2 * 4 and len(own["losses"]) == 4 and abs(own["losses"][0] - math.log(256)) < 0.2
    assert 0 <= report["difference"]["mean"] <= report["difference"]["largest"] < 1e-4
    moved = [abs(a - b) for a, b in zip(own["losses"], rounded["losses"], strict=True)]
    assert report["rounding"]["largest"] == max(moved) > report["difference"]["largest"], "less than what rounding the weights does"
    assert own["tokens_per_second"] == pytest.approx(2 * 64 / own["step_seconds"])
    text = capsys.readouterr().out
    assert "step    4  peer" in text and "losses differ by" in text and "rounded to bfloat16: they differ by" in text
    wrong = tmp_path / "wrong.py"
    wrong.write_text(peer.read_text().replace('g=inputs["g"])[0]', 'g=inputs["g"])[0] * 2'))
    assert training.main([*TINY, "--peer", str(wrong)])["difference"]["largest"] > 1e-4, "the peer's op is the one that runs"
    own_again = training.main([*TINY])["runs"]["own"]["losses"]
    assert own_again == own["losses"], "and is gone afterwards"


def test_without_a_peer_the_own_op_trains_alone(training, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "corpus", lambda: bytes(range(256)) * 20)
    path = adapter(tmp_path, PEER.replace('"math"', '"no_such_library"'))
    report = training.main([*TINY, "--peer", str(path), "--spec", str(ROOT / "examples" / "lightning.ssm")])
    assert list(report["runs"]) == ["own"] and report["peer"] is None and "difference" not in report
    assert "no module `no_such_library`; the spec's own op is trained alone" in capsys.readouterr().out


def test_the_text_is_the_same_every_time(training):
    text = training.corpus()
    assert len(text) > 1_000_000 and text == training.corpus()
    assert b"recurrence simple_gla {" in text and b"class OrderedDict" in text
