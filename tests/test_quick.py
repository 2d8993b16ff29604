"""`ssmgen verify --quick` and `--synchronize`: a handful of trials, judged as all are, and the kernel at fault by its name."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace

import pytest
from built import write
from conftest import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from triton import knobs  # noqa: E402
from triton.compiler.compiler import LazyDict  # noqa: E402
from triton.runtime.driver import driver  # noqa: E402

from ssmgen import cli  # noqa: E402
from ssmgen.runtime import interpreter, verify_apart, verify_kernels  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.synchronised import LaunchFault, synchronised  # noqa: E402
from ssmgen.runtime.verify import Report, parts, quick  # noqa: E402
from ssmgen.runtime.verify_checks import Row  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """The folder of a gated package, and its spec."""
    path = ROOT / "examples" / "simple_gla.ssm"
    return write(path.read_text(encoding="utf-8"), tmp_path_factory.mktemp("gated"), path.name)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSMGEN_CACHE", str(tmp_path / "cache"))


def test_a_quick_comparison_is_a_handful_of_the_trials_of_a_whole_one(gated):
    folder, spec = gated
    for device in ("cuda", interpreter.DEVICE):
        names = ["compilation", "kernels", "decode kernel"][device == interpreter.DEVICE :]
        found = parts(16, device, is_quick=True)
        assert [list(part) for part in found] == [names] * 2
        for part, dtype in zip(found, ("bfloat16", "float32"), strict=True):
            assert {check.keywords["dtypes"] for check in part.values()} == {(dtype,)}
        assert all(check.keywords["is_quick"] for part in found for check in part.values())
        assert [part["compilation"].keywords["workers"] for part in found if "compilation" in part] == [8] * 2 * (device == "cuda")
        subject = Subject(load(folder), spec, device)
        few, all_ = verify_kernels.trials(subject, is_quick=True), verify_kernels.trials(subject)
        assert 2 <= len(few) <= 4 < len(all_) and all_[: len(few)] == few
        own, odd = verify_kernels.own_sizes(subject), verify_kernels.sizes_near(subject, verify_kernels.ODD)
        assert odd == {"N": 25, "P": 36} and odd in [trial.sizes for trial in few], "widths that fill no block"
        assert any(trial.ends for trial in few) and any(not trial.ends for trial in few) and not all(trial.is_bare for trial in few)
        if device == "cuda":
            assert any(trial.is_sliced for trial in few) and any(trial.tokens > 1024 for trial in few)
        else:
            assert any(trial.segments > 1 for trial in few)
        one, other = verify_kernels.step_trials(subject, is_quick=True)
        assert (one.sizes, other.sizes, other.batch) == (own, odd, 1) and one.batch > 1
    assert [list(check.keywords["dtypes"]) for check in quick(16).values()] == [["bfloat16", "float32"]] * 3
    report = Report(spec.name, "cuda", (), 0.0, is_quick=True)
    assert json.loads(report.to_json())["is_quick"] and "quickly: a few trials" in report.table().title


def test_quick_and_whole_are_judged_by_the_same_code(gated, monkeypatch):
    folder, spec = gated
    subject, compared = Subject(load(folder), spec, "cuda"), []
    monkeypatch.setattr(Subject, "kernels", lambda self, loader: loader)

    def compare(subject, module, trial, dtype):
        compared.append((module, trial, dtype))
        return [verify_kernels.Measured("forward", f"{dtype}: x", "y", 0.5 if trial.ends else 0.1, 1.0, trial.words)]

    monkeypatch.setattr(verify_kernels, "compare", compare)
    (row,) = verify_kernels.kernels(subject, ("bfloat16",), is_quick=True)
    assert compared == [("_kernels", trial, "bfloat16") for trial in verify_kernels.trials(subject, is_quick=True)]
    assert (row.check, row.compared, row.error, row.passed) == ("kernels, forward", "bfloat16: x", 0.5, True)
    assert row.reason == "y, 5 packed documents, 1157 tokens, 4 heads, N=64 P=64; the worst of 4"
    compared.clear()
    list(verify_kernels.kernels(subject, ("bfloat16",)))
    assert [trial for _, trial, _ in compared] == list(verify_kernels.trials(subject))


class _Compiled:
    """A compiled kernel that tells Triton's hooks of its launch, as Triton's own does."""

    def __init__(self, name, ran):
        self.name, self.ran = name, ran

    def __getitem__(self, grid):
        def runner(*places, stream):
            hooks, told = knobs.runtime, LazyDict({"name": self.name, "stream": stream})
            hooks.launch_enter_hook(told)
            self.ran.append(self.name)
            hooks.launch_exit_hook(told)

        return runner


def test_a_launch_at_fault_is_named(gated, monkeypatch):
    """The emitted launcher starts kernels by itself, but for when something listens: then every launch is waited for."""
    folder, _ = gated
    package, ran, waited, lost = load(folder), [], [], []
    kernels = importlib.import_module(f"{package.__name__}.kernels")

    def synchronize():
        waited.append(len(ran))
        if lost and ran[-1:] == lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress'")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(driver, "_active", SimpleNamespace(get_current_stream=lambda index: 7), raising=False)
    x, found = torch.zeros(16), {}
    for name in ("forward_kernel", "states_kernel", "gradients_kernel"):
        kernel = SimpleNamespace(pre_run_hooks=[])
        key = (id(kernel), x.device, (64,), 4, 1, *((None,) if "registers" in kernels._launch.__code__.co_varnames else ()), x.dtype)
        monkeypatch.setitem(kernels._COMPILED, key, (_Compiled(name, ran), lambda *given, name=name: ran.append(f"{name} alone"), ()))
        found[name] = kernel

    def launch(name):
        kernels._launch(found[name], (1, 1, 1), (x,), (64,), 4)

    launch("forward_kernel")
    assert ran == ["forward_kernel alone"] and waited == []
    ran.clear()
    with synchronised():
        launch("forward_kernel")
        assert ran == ["forward_kernel"] and waited == [0, 1], "waited for before and behind"
        lost.append("states_kernel")
        with pytest.raises(LaunchFault, match="^states_kernel, launch 2: CUDA error: an illegal memory access was encountered$"):
            launch("states_kernel")
        with pytest.raises(LaunchFault, match="^gradients_kernel: not launched, the GPU was lost before: states_kernel, launch 2: CUDA"):
            launch("gradients_kernel")
    assert ran == ["forward_kernel", "states_kernel"]
    lost[:], ran[:] = ["other"], ["other"]
    with synchronised(), pytest.raises(LaunchFault, match="^no kernel of Triton, but what came before forward_kernel: CUDA error"):
        launch("forward_kernel")
    launch("forward_kernel")
    assert ran[-1] == "forward_kernel alone" and not knobs.runtime.launch_enter_hook.calls, "nothing listens afterwards"


def test_a_fault_is_a_row_that_names_the_kernel(gated, monkeypatch):
    folder, spec = gated

    def compare(*given):
        raise LaunchFault("gradients_kernel, launch 9: CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Subject, "kernels", lambda self, loader: loader)
    monkeypatch.setattr(verify_kernels, "compare", compare)
    rows = list(verify_kernels.kernels(Subject(load(folder), spec, "cuda"), ("float32",), is_quick=True))
    assert len(rows) == 4 and all(not row.passed and row.reason.startswith("LaunchFault: gradients_kernel, launch 9: CUDA") for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quick",), "`--quick` compares kernels, and there is no GPU to run them: add `--device interpreter`, or leave it away"),
        (("--synchronize",), "`--synchronize` waits for what a GPU was given, and none is used: leave it away, or go where one is"),
        (("--synchronize", "--device", "interpreter"), "`--synchronize` waits for what a GPU was given, and none is used"),
    ],
)
def test_what_needs_a_gpu_says_so(words, said, capfd, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(interpreter, "missing", lambda: "")
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", "simple_gla", *words])
    assert stop.value.code == 1 and capfd.readouterr().err.startswith(f"Error: {said}")


@pytest.mark.parametrize("jobs", [(), ("--jobs", "1")])
def test_the_command_compares_quickly_and_waits(jobs, monkeypatch, capfd, tmp_path):
    """In processes, and in this one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked, row = [], Row("kernels", "x", 0.0, 1.0, "")

    def apart(source, spec, **told):
        asked.append(("apart", told["is_quick"], told["is_synchronised"]))
        return Report(spec.name, "cuda", (row,), 0.0, is_quick=told["is_quick"])

    def here(package, spec, checks, is_quick, **told):
        asked.append(("here", is_quick, bool(knobs.runtime.launch_enter_hook.calls)))
        assert [check.keywords["is_quick"] for check in checks.values()] == [True] * 3
        return Report(spec.name, "cuda", (row,), 0.0, is_quick=is_quick)

    monkeypatch.setattr(verify_apart, "verify", apart)
    monkeypatch.setattr("ssmgen.runtime.verify.verify_checks", here)
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", "simple_gla", "--device", "cuda", "--quick", "--synchronize", *jobs, "--json", str(tmp_path / "r.json")])
    assert stop.value.code == 0 and asked == [("here" if jobs else "apart", True, True)]
    assert "quickly: a few trials of its kernels" in capfd.readouterr().out and json.loads((tmp_path / "r.json").read_text())[0]["is_quick"]
