"""Kernels compiled for GPUs that are not here: what is recorded, what the machine code holds, what is said when it does not fit."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from built import write
from conftest import ROOT

from ssmgen import cli
from ssmgen.runtime import launches
from ssmgen.runtime.cross_compile import misread
from ssmgen.runtime.targets import TARGETS

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in ("torch", "triton")),
    reason="torch or triton is not installed: nothing was compiled for any target",
)

TEXT = (ROOT / "examples" / "simple_gla.ssm").read_text(encoding="utf-8")


def cross_compiled(folder, text: str, *names: str, whole: tuple[str, ...] = ()):
    """An example in bfloat16, recorded and compiled: all that differs on the targets of `whole`; on the others, where a kernel
    differs in which arguments are absent alone, the first of them."""
    from ssmgen.runtime import target_check

    def recorded(*arguments):
        recording = launches.record(*arguments)
        if recording.launches[0].target.name in whole:
            return recording
        configurations = {}
        for launch in recording.launches:
            given = {name: value for name, value in launch.configuration.items() if value is not None}
            configurations.setdefault((launch.name, launch.call, *map(str, given.items())), launch)
        return replace(recording, launches=tuple(configurations.values()))

    package, spec = write(text, folder)
    kernels = package / "kernels.py"  # compiled whatever its width, where the launcher would leave it to the torch form
    kernels.write_text(kernels.read_text().replace("LARGEST = 256", "LARGEST = 1 << 20"))
    before = sorted(folder.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target_check, "record", recorded)
        checked = target_check.measure(package, spec, tuple(TARGETS[name] for name in names), dtypes=("bfloat16",))
    assert sorted(folder.rglob("*")) == before, "files were left in the package"
    return checked


LISTING = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   IADD3 R1, R1, -0xc8, RZ ;
        /*0020*/              @!P0 STL.64 [R1+0x8], R10 ;
        /*0030*/                   LDL.LU R4, [R1+0x8] ;
        /*0040*/                   IADD3 R11, R10, R12, RZ ;
        /*0050*/             @!UP0 {} ;
"""


@pytest.mark.parametrize(
    "line, said",
    [
        ("UIADD3 UR4, UR1, 0x2, URZ", ""),
        ("IADD3 R52, P1, R1, 0x2, RZ", "IADD3 R52, P1, R1, 0x2, RZ"),
        ("IADD3.X   R53, R1, -0x7fffffe0", "IADD3.X R53, R1, -0x7fffffe0"),
        ("STS [R7+UR4], R1", "STS [R7+UR4], R1"),
        ("MOV R75, R1 ;\n        /*0060*/                   STL [R75+0x4], R72", ""),
        ("MOV R75, R1 ;\n        /*0060*/                   STS [R75+0x4], R72", "MOV R75, R1"),
    ],
)
def test_the_stack_is_no_number(line, said):
    """The second and third are of a kernel that read memory that was not its own, the one before the last of a sine of large angles."""
    assert misread(LISTING.replace("{}", line)) == said


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    return cross_compiled(tmp_path_factory.mktemp("targets"), TEXT, *TARGETS, whole=("sm_90",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, matrix", [("sm_80", "mma.sync"), ("sm_90", "wgmma"), ("sm_100", "tcgen05"), ("sm_120", "mma.sync"), ("gfx942", "mfma")]
)
def test_an_example_on_every_target(everywhere, name, matrix):
    from ssmgen.runtime.cross_compile import Usage

    kernels = [kernel for kernel in everywhere.kernels if kernel.target.name == name]
    assert everywhere.unreached[name] == ()
    assert {(kernel.call, kernel.is_packed) for kernel in kernels} >= {(c, p) for c in ("forward", "backward") for p in (False, True)}
    assert all(isinstance(kernel.outcome, Usage) for kernel in kernels)
    # a kernel without a product has no matrix instruction; every other has its target's own, in every configuration
    assert {kernel.outcome.matrix for kernel in kernels if kernel.outcome.matrix} == {(matrix,)}
    assert all(0 < kernel.outcome.registers <= TARGETS[name].registers for kernel in kernels)
    # products take their operands from shared memory
    assert all(bool(kernel.outcome.matrix) <= kernel.outcome.shared <= TARGETS[name].shared for kernel in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("name, rows", [("mamba3", 1), ("mamba3_mimo", 4)])
def test_columns_of_tokens_meet_within_a_warp(name, rows, tmp_path, monkeypatch):
    """Sums over tokens, for every head in turn: across warps their shared memory is read and written with conflicts between banks.
    What is left is one token's rows, laid out for the store."""
    from ssmgen.runtime.cross_compile import compile_all

    monkeypatch.setattr(launches, "LENGTHS", ((1, 1000),))
    monkeypatch.setattr(launches, "STEPS", ())
    package, spec = write((ROOT / "examples" / f"{name}.ssm").read_text(encoding="utf-8"), tmp_path)
    found = {one.name: one for one in launches.record(package, spec, TARGETS["sm_90"], ("bfloat16",)).launches}
    ((_, usage),) = compile_all([found["column_gradients_kernel"]], 1)
    assert usage.shared <= rows * dict(spec.dims)["N"] * 4
    # the rows of a token turn by one sine, in the thread that takes it: threads exchange a head's bias at most
    ((_, usage),) = compile_all([found["columns_kernel"]], 1)
    assert usage.shared <= 512


@pytest.mark.slow
def test_gradients_of_rows_compile_where_accumulators_lie_in_tensor_memory(tmp_path, monkeypatch):
    """What they add up to a number is summed over both axes at once: over one axis and then the other a pass of the compiler ends."""
    from ssmgen.runtime.cross_compile import Usage, compile_all

    monkeypatch.setattr(launches, "LENGTHS", ((1, 1000),))
    monkeypatch.setattr(launches, "STEPS", ())
    package, spec = write((ROOT / "examples" / "gated_deltanet.ssm").read_text(encoding="utf-8"), tmp_path)
    found = {one.name: one for one in launches.record(package, spec, TARGETS["sm_100"], ("bfloat16",)).launches}
    ((_, usage),) = compile_all([found["gradients_kernel"]], 1)
    assert isinstance(usage, Usage) and usage.matrix == ("tcgen05",), usage


def test_what_a_layer_launches_is_recorded(tmp_path):
    from ssmgen.runtime.launches import record

    package, spec = write((ROOT / "examples" / "deltanet.ssm").read_text(encoding="utf-8"), tmp_path)
    recording = record(package, spec, TARGETS["sm_90"], ("bfloat16",))
    assert recording.unreached == ()
    steps = [launch for launch in recording.launches if launch.name == "deltanet_block_step_kernel"]
    # with slots and without; 16 heads of q, k and v are filtered
    assert len(steps) == 2 and {launch.configuration["conv_channels"] for launch in steps} == {16 * 3 * 64}


SQUARED = """
recurrence squared {
  dim    N = 64, P = 64
  input  q, k, w, p : [N]; v, u : [P]; a_raw : scalar
  gate   a in (0, 1) = sigmoid(a_raw)
  state  S : real [N, P]; R : real [N, N]
  update S' = a * S + k v^T
         R' = a * R + w p^T
  output o = S' u + R'^T q
}
"""
"""Keys lie along both axes of one state and along one of another: two walks, and no kernel for one token."""


def test_a_package_whose_step_has_no_kernel(tmp_path):
    from ssmgen.runtime.launches import record

    package, spec = write(SQUARED, tmp_path)
    assert (package / "kernels.py").exists() and not (package / "decode.py").exists()
    recording = record(package, spec, TARGETS["sm_90"], ("bfloat16",))
    assert recording.unreached == () and {launch.call for launch in recording.launches} == {"forward", "backward"}


@pytest.mark.slow
def test_what_spills_is_said_once_a_target(everywhere):
    spilling = [kernel.target.name for kernel in everywhere.kernels if kernel.outcome.spill]
    found = everywhere.diagnostics
    assert {diagnostic.slug for diagnostic in found} == ({"target-spill"} if spilling else set())
    assert [diagnostic.title.split()[-1] for diagnostic in found] == list(dict.fromkeys(spilling))


@pytest.mark.slow
def test_a_state_too_wide_for_a_block(tmp_path):
    checked = cross_compiled(tmp_path, TEXT.replace("N = 64", "N = 512"), "sm_120")
    errors = [diagnostic for diagnostic in checked.diagnostics if diagnostic.severity == "error"]
    assert {diagnostic.slug for diagnostic in errors} == {"target-limit"}
    worst = {
        name: max(kernel.outcome.shared for kernel in checked.kernels if kernel.name == name) for name in {k.name for k in checked.kernels}
    }
    assert {diagnostic.title for diagnostic in errors} == {
        f"`{name}` needs {shared} bytes of shared memory a block, and sm_120 has 101376"
        for name, shared in worst.items()
        if shared > 99 * 1024
    }
    assert worst["forward_kernel"] > 99 * 1024
    assert all("BK=512" in diagnostic.note and "--dim N=256" in diagnostic.help for diagnostic in errors)


@pytest.mark.slow
def test_a_tile_that_triton_refuses(tmp_path):
    """A tile has at most 2^20 entries."""
    checked = cross_compiled(tmp_path, TEXT.replace("N = 64", "N = 65536").replace("P = 64", "P = 65536"), "sm_90")
    titles = {diagnostic.title: diagnostic.help for diagnostic in checked.diagnostics if diagnostic.slug == "target-compilation"}
    walk = [title for title in titles if title.startswith("`forward_kernel` does not compile for sm_90: ")]
    assert walk and all("--dim N=32768" in titles[title] for title in walk)
    failed = [row for row in checked.as_rows() if "failure" in row]
    walks = [row["failure"] for row in failed if row["kernel"] == "forward_kernel"]
    assert walks and all("1048576" in failure for failure in walks) and all(row["failure"] for row in failed)


@pytest.mark.slow
def test_what_no_kernel_holds_is_left_to_torch(tmp_path):
    """Through the command line: nothing to compile at a width that the launcher does not give to its kernels."""
    (tmp_path / "wide.ssm").write_text(TEXT)
    words = ["build", "wide.ssm", "--dim", "N=16", "--dim", "P=512", "--targets", "sm_90", "--report", "found.json"]
    done = subprocess.run(
        [sys.executable, "-m", "ssmgen", *words], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert "not launched on sm_90, and not compiled: " in done.stdout and "forward_kernel" in done.stdout
    assert "no kernel holds 16 keys and 512 values a head in torch.bfloat16; the torch form runs" in done.stderr
    assert {row["kernel"] for row in json.loads((tmp_path / "found.json").read_text())} == {"step_kernel"}


def test_words_about_arguments(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def says(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(["build", *words])
        assert stop.value.code == 1
        return capsys.readouterr().err

    assert "no target `sm_9`; did you mean `sm_90`?" in says("a.ssm", "--targets", "sm_80,sm_9")
    assert "name the targets" in says("a.ssm", "--report", "found.json")
    assert "one after the other" in says("--check", "--targets", "sm_90")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_is_compiled_ahead_is_found(tmp_path, monkeypatch):
    """Launches recorded as for a GPU of this machine, compiled in other processes: a launch afterwards compiles nothing."""
    from types import SimpleNamespace

    from triton import knobs

    from ssmgen.runtime.cross_compile import Failure, compile_ahead

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(launches, "here", lambda: TARGETS["sm_90"])
    module = tmp_path / "ahead.py"
    module.write_text(
        "import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef scaled_kernel(x, y, N: tl.constexpr):\n"
        "    o = tl.arange(0, N)\n    tl.store(y + o, 2 * tl.load(x + o))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from ahead import scaled_kernel

    pointer = SimpleNamespace(data_ptr=lambda: 0, dtype="fp32")
    with launches._gpu(TARGETS["sm_90"], None), launches.recorded({"dtype": "", "call": "forward", "is_packed": False}) as found:
        for width in (16, 32, 16, 24):
            assert scaled_kernel[(1,)](pointer, pointer, N=width, num_warps=1) is None
    outcomes = {launch.configuration["N"]: outcome for launch, outcome in compile_ahead(list(found.values()), 2)}
    assert outcomes[16] is None and outcomes[32] is None
    assert isinstance(outcomes[24], Failure) and "power of 2" in outcomes[24].line
    before = sorted((tmp_path / "cache").rglob("*.cubin"))
    assert len(before) == 2
    hits = []
    with launches._gpu(TARGETS["sm_90"], None), knobs.compilation.scope():
        knobs.compilation.listener = lambda *, cache_hit, **_: hits.append(cache_hit)
        for width in (16, 32):
            scaled_kernel.warmup(pointer, pointer, N=width, num_warps=1, grid=(1,))
    assert hits == [True, True] and sorted((tmp_path / "cache").rglob("*.cubin")) == before
