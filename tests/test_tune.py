"""Configurations: the table that a launcher reads, what is never taken, and how the table is made.

The processor cannot time a kernel: the clock is a stub here, and the kernels that are judged are interpreted.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from built import write
from conftest import ROOT
from interpreter import printed

torch = pytest.importorskip("torch")

from ssmgen import cli  # noqa: E402
from ssmgen.compiler import build  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.tune import Candidate, entries, faults, forced, judged, listed, measured, merged, text  # noqa: E402
from ssmgen.source import Source  # noqa: E402
from ssmgen.write import Origin, check_package, write_package  # noqa: E402

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: no configuration was chosen or judged"
)

GATED = ROOT / "examples" / "simple_gla.ssm"
CPU = torch.device("cpu")
SLOW, FAST, WRONG = ({"BV": width, "num_warps": 4} for width in (64, 32, 16))


def listing(K: int, V: int, dtype: torch.dtype, programs: int) -> list[dict]:
    return [SLOW, FAST, WRONG]


@pytest.fixture
def tuning(tmp_path):
    """The module of a package that chooses, without a table."""
    folder, _ = write(GATED.read_text(encoding="utf-8"), tmp_path, GATED.name)
    module = importlib.import_module(f"{load(folder).__name__}.tuning")
    module.use({})
    return module


def table(*choices: dict, bad: tuple[dict, ...] = (), triton: str | None = None) -> dict:
    import triton as installed

    return {"cpu": {"triton": triton or installed.__version__, "choices": list(choices), "bad": list(bad)}}


def choice(options: dict, programs: int = 64, **changed) -> dict:
    where = {"kernel": "forward", "dtype": "float32", "sizes": [64, 32]}
    return {**where, "programs": programs, "options": options, "microseconds": 1.5, **changed}


def marked(options: dict, **changed) -> dict:
    return {"kernel": "forward", "dtype": "float32", "sizes": [64, 32], "options": options, "reason": "y is off by 3.4e-01", **changed}


def picked(tuning, programs: int = 64, dtype=torch.float32) -> dict:
    return tuning.options("forward", listing, 64, 32, dtype, programs, CPU)


def test_without_a_table_the_rule_stays(tuning):
    assert picked(tuning) == SLOW
    tuning.use(table(choice(FAST, kernel="states"), choice(FAST, dtype="float16"), choice(FAST, sizes=[64, 64])))
    assert picked(tuning) == SLOW, "a choice for another kernel, dtype or width"
    tuning.use(table(choice({"BV": 8, "num_warps": 4})))
    assert picked(tuning) == SLOW, "a choice that the kernel does not list"


def test_the_choice_that_was_measured_nearest(tuning):
    tuning.use(table(choice(FAST, programs=8), choice(WRONG, programs=512)))
    assert [picked(tuning, programs) for programs in (1, 16, 63, 65, 4096)] == [FAST, FAST, FAST, WRONG, WRONG]


def test_what_is_marked_bad_is_never_taken(tuning):
    tuning.use(table(choice(FAST), bad=(marked(FAST), marked(SLOW))))
    assert picked(tuning) == WRONG
    assert picked(tuning, dtype=torch.float16) == SLOW, "marked in float32 alone"
    tuning.use(table(bad=tuple(map(marked, (SLOW, FAST, WRONG)))))
    with pytest.raises(RuntimeError, match=r"forward kernel, float32: every configuration is marked bad on cpu \(y is off"):
        picked(tuning)


def test_what_another_triton_measured_is_left_aside(tuning):
    tuning.use(table(choice(FAST), bad=(marked(SLOW),), triton="2.0.0"))
    with pytest.warns(UserWarning, match="cpu was measured with triton 2.0.0"):
        assert picked(tuning) == SLOW


FAULTS = {
    '{"format": 1,\n "architectures": {"sm_90"': "not JSON, line 2",
    '{"format": 2, "architectures": {}}': "not a table of configurations in format 1",
    '{"format": 1, "architectures": {"sm_90": {"choices": [], "bad": []}}}': "sm_90 does not say which triton measured it",
    '{"format": 1, "architectures": {"sm_90": {"triton": "3", "choices": []}}}': "sm_90 has no list `bad`",
    json.dumps({"format": 1, "architectures": {"sm_90": {"triton": "3", "choices": [choice(FAST), choice(3)], "bad": []}}}): (
        r"sm_90, choices\[1\] lacks `options`, or it is of another kind"
    ),
    json.dumps({"format": 1, "architectures": {"sm_90": {"triton": "3", "choices": [], "bad": [{}]}}}): r"bad\[0\] lacks `kernel`",
}


@pytest.mark.parametrize("written", FAULTS)
def test_a_table_is_checked_when_it_is_read(written, tuning, tmp_path):
    (tmp_path / "tuned.json").write_text(written)
    with pytest.raises(ValueError, match=rf"tuned\.json: {'.*' if FAULTS[written].startswith('bad') else ''}{FAULTS[written]}"):
        tuning.read(tmp_path / "tuned.json")


def test_a_table_is_read_back_as_it_was_written(tuning, tmp_path):
    made = merged(table(choice(SLOW), choice(SLOW, programs=8)), "cpu", "3.6.0", [choice(FAST)], [marked(WRONG)])
    other = merged(made, "sm_90", "3.6.0", [choice(FAST)], [])
    (tmp_path / "tuned.json").write_text(text(other))
    assert tuning.read(tmp_path / "tuned.json") == other
    assert {len(line.split('"kernel"')) for line in text(other).splitlines()} == {1, 2}, "an entry a line"


def test_new_measurements_take_the_place_of_old_ones():
    import triton

    old = table(choice(SLOW), choice(SLOW, programs=8), bad=(marked(FAST), marked(FAST, dtype="float16")))
    new = merged(old, "cpu", triton.__version__, [choice(FAST)], [marked(WRONG)])["cpu"]
    assert new["choices"] == [choice(SLOW, programs=8), choice(FAST)]
    assert new["bad"] == [marked(FAST, dtype="float16"), marked(WRONG)]
    assert merged(old, "cpu", "99.0", [], [marked(WRONG)])["cpu"] == {"triton": "99.0", "choices": [], "bad": [marked(WRONG)]}


def candidates(*options: dict) -> list[Candidate]:
    return [Candidate("forward", "float32", (64, 32), 64, one) for one in options]


def test_a_wrong_configuration_is_not_even_timed():
    timed = []

    def judge(candidate):
        return "y is off by 3.4e-01" if candidate.options == WRONG else ""

    def clock(candidate):
        timed.append(candidate.options)
        return {64: 3e-6, 32: 1.5e-6, 16: 1e-9}[candidate.options["BV"]]

    choices, bad = entries(judged(candidates(SLOW, WRONG, FAST), judge, clock))
    assert (choices, bad) == ([choice(FAST)], [marked(WRONG)]) and timed == [SLOW, FAST]


def test_what_cannot_be_judged_or_timed_is_bad():
    def clock(candidate):
        raise RuntimeError("an illegal memory access\nand more")

    choices, bad = entries(judged(candidates(SLOW), lambda candidate: "", clock))
    assert choices == [] and [entry["reason"] for entry in bad] == ["RuntimeError: an illegal memory access"]


WORKER = """
import json, os, sys
request = json.load(sys.stdin)
one = {"kernel": "forward", "dtype": "float32", "sizes": [64, 32], "programs": 64}
print(json.dumps({"words": "compiled"}), flush=True)
for options in ({"BV": 64}, {"BV": 32}, {"BV": 8}, {"BV": 16}):
    candidate = {**one, "options": options}
    if candidate in [answer["candidate"] for answer in request["done"]]:
        continue
    print(json.dumps({"state": "begun", "candidate": candidate}), flush=True)
    if options["BV"] == 32:
        os._exit(7)
    error = "an illegal access" if options["BV"] == 8 else ""
    print(json.dumps({"state": "done", "candidate": candidate, "error": error, "seconds": options["BV"] * 1e-6}), flush=True)
    if error:
        os._exit(8)
"""


def test_a_configuration_that_ends_its_process_is_bad_and_the_rest_is_measured():
    said = []
    verdicts = list(measured({}, said.append, ("-c", WORKER)))
    assert [(v.candidate.options["BV"], v.error, v.seconds) for v in verdicts] == [
        (64, "", 64e-6), (32, "the process ended with code 7", None), (8, "an illegal access", 8e-6), (16, "", 16e-6),
    ]  # fmt: skip
    assert said == ["compiled"] * 3
    choices, bad = entries(verdicts)
    assert choices[0]["options"] == {"BV": 16} and [one["options"]["BV"] for one in bad] == [32, 8]
    with pytest.raises(RuntimeError, match="ended with code 3"):
        list(measured({}, said.append, ("-c", "raise SystemExit(3)")))


def test_a_build_leaves_the_table(tmp_path):
    built = build(Source(GATED.name, GATED.read_text(encoding="utf-8")))
    ((name, files),) = built.packages.items()
    origin = Origin(GATED.name, GATED.read_text(encoding="utf-8"), built.format, ())
    write_package(tmp_path / name, files, origin)
    (tmp_path / name / "tuned.json").write_text("{}")
    assert check_package(tmp_path / name, files, origin) == []
    assert write_package(tmp_path / name, {**files, "more.py": "x = 1\n"}, origin)
    assert (tmp_path / name / "tuned.json").read_text() == "{}"


def test_words_about_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("[]")
    # a size with the name of a kernel's own
    spec = "recurrence unlaunched {\n dim BK = 4\n input q, k, v : [BK]\n state S : real [BK, BK]\n"
    (tmp_path / "unlaunched.ssm").write_text(spec + " update S' = S + k v^T\n output y = S'^T q\n}")

    def says(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(words))
        assert stop.value.code == 1
        return capsys.readouterr().err

    assert "Error: empty.json: not a table of configurations in format 1" in says("verify", "simple_gla", "--table", "empty.json")
    assert "no kernels of which" in says("verify", "unlaunched.ssm", "--table", "empty.json")
    if not torch.cuda.is_available():
        assert "no GPU here" in says("tune", "simple_gla")


KERNELS = {
    "simple_gla": ("forward", "gradient", "states"),
    "kda": ("forward", "pairs", "states", "pair gradients", "gradient", "tokens"),
    "mamba1": ("forward", "gradient"),
    "mamba3": ("columns", "forward", "gradient", "states", "column gradients"),
}
"""What there is to choose for, in order."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_the_worker_lists_and_compiles(name, tmp_path, monkeypatch):
    """Up to what needs the device: candidates by what a call asks for, compiled under every one of them."""
    from ssmgen.runtime import launches, tune_worker
    from ssmgen.runtime.targets import TARGETS

    path = ROOT / "examples" / f"{name}.ssm"
    folder, spec = write(path.read_text(encoding="utf-8"), tmp_path, path.name)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(launches, "here", lambda: TARGETS["sm_90"])
    request = {
        "name": path.name, "text": path.read_text(encoding="utf-8"), "dims": {}, "recurrence": spec.name, "folder": str(folder),
        "shape": [2, 2048, 4], "dtype": "bfloat16", "done": [],
    }  # fmt: skip
    package = load(folder)
    namespace = sys.modules[f"{package.__name__}.op"].NAMESPACE
    with launches._gpu(TARGETS["sm_90"], None), launches._pretence(namespace):
        worker = tune_worker._Worker(request)
        found = worker.candidates()
        assert worker.architecture == "sm_90"
        assert tuple(dict.fromkeys(one.kernel for one in found)) == KERNELS[name]
        assert worker.ahead == {one for one in KERNELS[name] if one in ("columns", "operands", "pairs", "forward")}
        assert {(one.dtype, one.programs) for one in found} == {("bfloat16", 8 if name != "mamba1" else 2)}
        assert len({tune_worker.place(one) for one in found}) == len(found)
        # of every kernel the rule, and one that is not
        tried = [next(each) for one in KERNELS[name] for each in [(c for c in found if c.kernel == one)] for _ in range(2)]
        recorded = []
        monkeypatch.setattr(tune_worker, "compile_ahead", lambda launches, workers: recorded.extend(launches) or iter(()))
        assert worker.compiled(tried) == {}
    for kernel in KERNELS[name]:
        launched = [launch.configuration for launch in recorded if launch.name == FUNCTIONS.get(kernel, f"{kernel}_kernel")]
        for one in (one for one in tried if one.kernel == kernel):
            # what is no number of the kernel's own limits registers, or says how often a sequence is cut
            assert any(all(launch.get(n, v) == v for n, v in one.options.items()) for launch in launched), one.words
    if name == "simple_gla":
        tiles = [tuple(one.options[n] for n in ("BK", "BV", "num_warps", "num_stages")) for one in found if one.kernel == "states"]
        assert tiles[0] == (64, 64, 4, 3) and len(tiles) == 4


FUNCTIONS = {
    "gradient": "gradients_kernel",
    "pair gradients": "pair_gradients_kernel",
    "column gradients": "column_gradients_kernel",
}
"""Kernels that are named otherwise in a table."""


def interpret(folder) -> None:
    """Called where triton interprets: the loop of `tune` over the walk's configurations in float32, one of which is wrong."""
    import triton
    from test_kernels import fused

    written, spec = write(GATED.read_text(encoding="utf-8"), folder, GATED.name)
    line = "        b_o = tl.dot(b_q, b_s.to(DOT), input_precision=PRECISION)  # [BT, BV]\n"
    source = (written / "kernels.py").read_text(encoding="utf-8")
    assert source.count(line) == 1
    planted = f'{line}        if PRECISION == "tf32x3" and BV == 32:\n            b_o *= 1.5\n'
    (written / "kernels.py").write_text(source.replace(line, planted), encoding="utf-8")
    subject, kernels = fused(written, spec)
    sizes = {"N": 16, "P": 32}

    def judge(candidate):
        with forced(kernels, candidate, "cpu"):
            return faults(subject, kernels, "float32", 2, sizes, tokens=40)

    found = [one for one in listed(kernels, lambda: faults(subject, kernels, "float32", 2, sizes, tokens=40)) if one.kernel == "forward"]
    distinct = list({one.words: one for one in found}.values())
    assert [one.options["BV"] for one in distinct] == [32, 32, 16] * 2 and {one.options["BK"] for one in distinct} == {16}
    # by the stub, the wrong ones are the fastest
    times = {("tf32x3", 32): 1.0, ("tf32x3", 16): 2.0, ("ieee", 32): 3.0, ("ieee", 16): 4.0}
    choices, bad = entries(judged(distinct, judge, lambda one: times[one.options["PRECISION"], one.options["BV"]]))
    assert [(e["options"]["PRECISION"], e["options"]["BV"]) for e in bad] == [("tf32x3", 32)] * 2
    assert all("y is off by" in entry["reason"] for entry in bad)
    kernels.tuning.use(merged({}, "cpu", triton.__version__, choices, bad))
    assert faults(subject, kernels, "float32", 2, sizes, tokens=40) == ""
    taken = kernels._forward_options(16, 32, torch.float32, 2, CPU)
    print(json.dumps([len(choices), taken["PRECISION"], taken["BV"]]))


@pytest.mark.slow
def test_the_loop_on_interpreted_kernels(tmp_path):
    program = f"import pathlib, test_tune; test_tune.interpret(pathlib.Path({str(tmp_path)!r}))"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [1, "tf32x3", 16]


def interpret_others(name: str, sizes: dict[str, int], folder) -> None:
    """Called where triton interprets: every kernel in the configuration that it lists last, all at once."""
    import triton
    from test_kernels import EXAMPLES, fused

    subject, kernels = fused(*write(EXAMPLES[name], folder))
    judge = lambda: faults(subject, kernels, "float32", 2, sizes, tokens=40)  # noqa: E731
    last = {one.kernel: one for one in listed(kernels, judge)}
    choices, bad = entries(judged(last.values(), lambda candidate: "", lambda candidate: 1.0))
    kernels.tuning.use(merged({}, "cpu", triton.__version__, choices, bad))
    print(json.dumps([judge(), {entry["kernel"]: last[entry["kernel"]].words for entry in choices}]))


LAST = {
    "kda": ({"N": 40, "P": 72}, {"forward": "BV=64 num_warps=8 num_stages=1", "pairs": "num_warps=8 registers=None"}),
    "mamba1": ({"N": 6}, {"forward": "BL=64 A=16 warps=24", "gradient": "BL=64 U=4 warps=16"}),
    "mamba3": ({"N": 12, "P": 20}, {"columns": "TILE=4096 num_warps=8", "column gradients": "TILE=2048 num_warps=4"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_configurations_that_are_not_the_rule_are_right(name, tmp_path):
    sizes, ends = LAST[name]
    wrong, last = json.loads(
        printed(f"import pathlib, test_tune; test_tune.interpret_others({name!r}, {sizes!r}, pathlib.Path({str(tmp_path)!r}))")
    )
    assert wrong == "" and set(last) == set(KERNELS[name])
    assert all(last[kernel].endswith(end) for kernel, end in ends.items()), last
