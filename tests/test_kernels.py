"""The emitted Triton kernels against the float64 reference: interpreted on the processor in float32, and, where there is a GPU,
as the operator dispatches them.

The interpreter must be chosen before triton is imported, so each package runs in a process of its own. It computes bfloat16
wrongly: only float32 is judged here. What the launchers allocate is NaN until a kernel writes it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.util
import json
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from built import write
from conftest import ROOT
from interpreter import printed

pytest.importorskip("torch")

import torch  # noqa: E402
from test_lookahead import RANKS  # noqa: E402

from ssmgen.backends.torch_text import identifier  # noqa: E402
from ssmgen.compiler import build  # noqa: E402
from ssmgen.runtime import launches, verify, verify_kernels  # noqa: E402
from ssmgen.runtime.doctor import Finding  # noqa: E402
from ssmgen.runtime.interpreter import acting  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.measure import typical, worst  # noqa: E402
from ssmgen.runtime.short_floats import as_on_a_gpu  # noqa: E402
from ssmgen.runtime.targets import TARGETS  # noqa: E402
from ssmgen.runtime.verify_checks import registered  # noqa: E402
from ssmgen.runtime.verify_kernels import ODD, Trial, compare, launchers_of, sizes_near, watched  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402
from ssmgen.source import Source  # noqa: E402
from ssmgen.triton_form.site import pointer  # noqa: E402

interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: the kernels were NOT tested, not even interpreted"
)

WALK = """
recurrence walk {{
  dim    N = 16, P = 16
  input  {inputs}
  {more}
  state  {state}
  update {update}
  output o = {output}
}}
"""


def walk(
    inputs: str,
    output: str,
    update: str = "S' = exp(g) * S + k v^T",
    state: str = "S : real [N, P]",
    more: str = "gate g <= 0 = logsigmoid(raw)",
) -> str:
    """A spec with one matrix."""
    return WALK.format(inputs=inputs, output=output, update=update, state=state, more=more)


SMALL = {
    "exclusive": walk("q, k : [N] per group; v : [P]", "S^T q"),
    "a gate of a group": walk(
        "q : [N] per layer; k : [N] per group; v : [P]; dt_raw : scalar per group",
        "S'^T q",
        "S' = exp(-dt) * S + dt * k v^T",
        more="gate dt > 0 = softplus(dt_raw)",
    ),
    "from the end": walk("q, k : [N]; v : [P]", "N^-1/2 * S'^T q").replace("\n}", "\n  time reversed\n}"),
    "values of a group, a bonus": walk(
        "q, k : [N] per group; v : [P] per group; a_raw : scalar per group",
        "(S + diag(u) k v^T)^T q",
        "S' = a * S + w * k v^T",
        more="param u : [N] per group init uniform(-1, 1); w : scalar per head init 1\n  gate a in (0, 1) = sigmoid(a_raw)",
    ),
    "names of the kernels' own": walk(
        "arguments, packing : [N]; size : [P]; decays, b_g : scalar; T : scalar per group",
        "S'^T arguments",
        "S' = exp(g) * S + b_g * packing size^T",
        more="param rows : scalar per head init 1\n  gate g <= 0 = logsigmoid(rows * decays + T)",
    ),
    # what is the same for all heads, or for all tokens, beside a definition of it: every head's own share counts once
    "directly and through a definition": walk(
        "q : [N] per layer; k : [N] per group; v : [P]; raw : scalar per group",
        "s * S'^T q",
        "S' = exp(g) * S + raw * w * diag(u) ke v^T",
        more="param w : scalar per layer init 1; u : [N] per layer init uniform(-1, 1)\n"
        "  gate g <= 0 = logsigmoid(raw)\n  let s = exp(w)\n      ke : [N] = diag(u) diag(softmax(u)) k",
    ),
    "half of the rows turns": walk(
        "q, k : [N] per group; v : [P]; theta : [N/4] per group; raw : scalar",
        "S'^T q",
        "S' = a * rot(theta + tilt) S + b * k v^T",
        "S : complex [N, P], rotates first N/2 rows",
        "param tilt : [N/4] per head init uniform(0, 1)\n  gate a in (0, 1) = sigmoid(raw); b in (0, 1) = 1 - a",
    ),
    # made before the walk: one a group, one for all heads; what the output takes of keys goes with them
    "columns of a group turn": walk(
        "q : [N] per group; k : [N] per group; v : [P]; raw : scalar",
        "S'^T rope(q) + (q . k) * v",
        "S' = exp(g) * S + rope(k * u) v^T",
        more="param u : [N] per group init uniform(-1, 1)\n  gate g <= 0 = logsigmoid(raw)",
    ).replace("\n}", "\n  time reversed\n}"),
    "columns of all heads turn": walk("q, k : [N] per layer; v : [P]", "S'^T rope(q)", "S' = exp(g) * S + rope(k) v^T"),
    "a key turns, the state does not": walk(
        "q, k : [N]; v : [P]; theta : [N/2] per group; raw : scalar",
        "S'^T (q * w)",
        "S' = exp(g) * S + (rot(theta) k) v^T",
        more="param w : [N] per head init 1\n  gate g <= 0 = logsigmoid(raw)",
    ),
    "as many values as keys that turn": walk(
        "q, k : [N] per group; v : [N]; turn : [N/2]; raw : scalar",
        "S'^T (unit(q) + b) + (q . k) * v",
        "S' = exp(g) * rot(turn) S + k v^T",
        "S : complex [N, N], rotates first N rows",
        "param b : [N] per group init 1\n  gate g <= 0 = logsigmoid(raw)",
    ).replace(", P = 16", ""),
    "a vector turns along": walk(
        "q, k : [N]; v : [P]; theta : [N/4] per group; raw : scalar",
        "S'^T q + (z'^T q) * v",
        "S' = a * rot(theta + tilt) S + b * k v^T\n         z' = a * rot(theta + tilt) z + b * k",
        "S : complex [N, P], rotates first N/2 rows; z : complex [N], rotates first N/2 rows",
        "param tilt : [N/4] per head init uniform(0, 1)\n  gate a in (0, 1) = sigmoid(raw); b in (0, 1) = 1 - a",
    ).replace("\n}", "\n  time reversed\n}"),
    "the value side": walk("q, k : [N]; v : [P]", "S' q", "S' = exp(g) * S + v k^T", "S : real [P, N]"),
    # operands and an output that need whole rows; a normaliser with a decay and a coefficient
    "whole rows, a normaliser": walk(
        "q, k : [N]; v : [P]; c_raw : scalar",
        "rmsnorm(S'^T qn / max(abs(z'^T qn), 1))",
        "S' = exp(g) * S + c * kn vn^T\n         z' = exp(g) * z + c * kn",
        "S : real [N, P]; z : real [N]",
        "gate g <= 0 = logsigmoid(raw); c in (0, 1) = sigmoid(c_raw)\n"
        "  let qn : [N] = softmax(q)\n      kn : [N] = unit(k)\n      vn : [P] = rmsnorm(v)",
    ),
}
EXAMPLES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.ssm"))}
CARRIED = (
    "echo", "hnet_ema", "lightning", "linear_attention", "linear_attention_normalised", "mamba2", "mamba3", "mamba3_mimo", "mlstm",
    "mlstm_sigmoid", "retnet", "simple_gla",
)  # fmt: skip
"""Examples that the fused kernels carry: rows of one form, one factor a head, nothing erased."""
SCANS = ("h3", "hgrn", "linoss", "linoss_im", "lru", "mamba1", "pd_ssm", "rg_lru", "rwkv4", "s4", "s4d", "s4d_real", "s5")
"""Examples whose tokens are walked one by one: test_scan_kernels has their kernels."""
# of several rows a token: three that turn, look ahead and are gated; two that a number of the token multiplies
ROWS = {
    "three rows": RANKS,
    "two rows": walk(
        "q, k : [R, N] per group; v : [R, P]; c, raw : scalar",
        "c * (sum r in 1..R: S'^T q[r])",
        "S' = exp(g) * S + (sum r in 1..R: k[r] v[r]^T)",
    ).replace("recurrence walk", "recurrence walk(R = 2)"),
}
SPECS = {name: EXAMPLES[name] for name in CARRIED if name != "mamba3_mimo"} | SMALL | ROWS


def fused(folder: Path, spec):
    """A package whose operator takes its kernels in float32 on the processor, and the kernels."""
    subject = Subject(load(folder), spec, "cpu")
    op = sys.modules[f"{subject.package.__name__}.op"]
    op._is_fused = lambda *tensors: tensors[0].numel() > 0 and op._arithmetic(*tensors) == torch.float32
    kernels = op._kernels()
    for module in launchers_of(kernels):
        module._segments = lambda *_: 1
    kernels.EDGE = 64
    return subject, kernels


def interpret_registration(name: str, folder: Path, dtype: str) -> None:
    """The same, of what the operators are registered with, for arguments and states in a short type."""
    subject, _ = fused(*write(SPECS[name], folder))
    with as_on_a_gpu():
        rows = list(registered(subject, getattr(torch, dtype)))
    print("\n".join(f"{row.compared}: {row.reason}" for row in rows if not row.passed) or "held")


def interpret(name: str, folder: Path, fault: tuple[str, str] | None = None) -> None:
    """Called where triton interprets: the operator takes the kernels in float32 on the processor. fault: a text of the kernels
    and what stands there instead."""
    written, spec = write(SPECS[name], folder)
    if fault is not None:
        text = (written / "kernels.py").read_text(encoding="utf-8")
        assert fault[0] in text
        (written / "kernels.py").write_text(text.replace(*fault), encoding="utf-8")
    subject, kernels = fused(written, spec)
    odd = sizes_near(subject, ODD)
    counts = dict(subject.recurrence.counts)
    even = {size: counts.get(size, 16) for size in odd}
    # rows of a tile hold so many tokens
    tokens = 32 >> (max([1, *counts.values()]) - 1).bit_length()
    # more keys than a block of the gradients takes
    wide = {size: width + 16 * (number == 0) for number, (size, width) in enumerate(odd.items())}
    trials = (
        (1, Trial(1, 37, 4, even)),
        (3, Trial(1, 150, 2, odd)),
        (1, Trial(2, 1, 2, odd)),
        (2, Trial(1, 37, 2, wide, (0, 2, 2, 36, 37))),
        (2, Trial(2, 134, 2, odd, is_bare=True)),
    )
    if counts:
        trials = ((1, Trial(1, 13, 2, wide, (0, 2, 2, 12, 13))), (2, Trial(1, 130, 1, even)))[: 1 + (tokens == 8)]
    for segments, trial in trials:
        kernels._segments = kernels._slices = lambda *_, count=segments: count
        measured = compare(subject, kernels, trial, "float32")
        assert kernels.torch is torch and kernels.forward.__module__ == kernels.__name__, "the module is still watched"
        assert f"forward BT={tokens} " in measured[0].configuration and f"gradient BT={tokens} " in measured[-1].configuration
        assert ("several segments" in measured[0].configuration) == (segments > 1)
        assert ("several slices" in measured[-1].configuration) == (segments > 1 and not trial.ends)
        wrong = [f"{one.name} is off by {one.error:.1e}, {one.trial}" for one in measured if not one.error < 1e-5]
        if wrong:
            print("\n".join(wrong))
            return
    print("held")


def interpret_forgetting(text: str, folder: Path) -> None:
    """The same, of gates `f_raw` of which some forget all and the others next to nothing, in one chunk: the largest errors."""
    subject, kernels = fused(*write(text, folder))
    case = subject.case(30, batch=1, heads=2)
    case.inputs["f_raw"].copy_(torch.where(case.inputs["f_raw"] < 0, -60.0, 6.0))
    start, short = subject.start(case), case.to(torch.float32)
    runs = []

    def kept(function):
        return lambda *given: runs.append(function(*given)) or runs[-1]

    truth = subject.gradients(kept(subject.reference), case, start)
    with watched(kernels, "forward", "backward"):
        found = subject.gradients(kept(subject.op), short, tuple(x.float() for x in start))
    # a gate's own gradient is a difference of sums, whatever decays are made of
    moved = [(found[name], truth[name]) for name in truth if name != "f_raw"]
    print(worst([*zip(runs[1].tensors, runs[0].tensors, strict=True), *moved], typical))


def interpreting(*arguments: object, function: str = "interpret", module: str = "test_kernels") -> str:
    """What `interpret` of a test's module prints in a process of its own."""
    program = f"import pathlib, {module}; {module}.{function}{arguments!r}".replace("PosixPath", "pathlib.Path")
    return printed(program)


OTHERS = {
    "rows of a token": walk("q, k1, k2 : [N]; v1, v2 : [P]", "S'^T q", "S' = exp(g) * S + k1 v1^T + k2 v2^T"),
    "a factor a key": walk(
        "q, k : [N]; v : [P]; a_raw : [N]", "S'^T q", "S' = diag(a) S + k v^T", more="gate a in (0, 1) : [N] = sigmoid(a_raw)"
    ),
    "a key that erases": walk(
        "q, k : [N]; v : [P]; b_raw : scalar",
        "S'^T q",
        "S' = S + b * u (v - S^T u)^T",
        more="gate b in (0, 1) = sigmoid(b_raw)\n  let u : [N] = unit(k)",
    ),
    "the token before": walk("q, k : [N]; v : [P]", "S'^T q", "S' = exp(g) * S + k[-1] v^T"),
}


@pytest.mark.parametrize("name", [*EXAMPLES, *OTHERS])
def test_kernels_only_where_they_carry(name, tmp_path):
    folder, _ = write((EXAMPLES | OTHERS)[name], tmp_path)
    kernels = folder / "kernels.py"
    text = kernels.read_text(encoding="utf-8") if kernels.exists() else ""
    kind = "rows" if "def pairs_kernel(" in text else "scan" if "def _lanes(" in text else "fused" if text else "none"
    assert (kind == "fused", kind == "scan") == (name in CARRIED, name in SCANS)


STABILISED = EXAMPLES["mlstm"].split("\nlayer")[0]


@interpreted
@pytest.mark.parametrize("reads", ["C'^T qs / max(abs(n'^T qs), exp(-m'))", "C^T qs / max(abs(n^T qs), exp(-m))"])
def test_a_token_that_forgets_costs_the_others_no_digits(reads, tmp_path):
    """Sums of log decays reach 1000, where float32 is spaced by 6e-5, and decays of tokens that keep all are differences of such sums.
    With what rounding leaves of the sums the walk is off by some roundings (6e-8) of each of a chunk's products."""
    text = STABILISED.replace("C'^T qs / max(abs(n'^T qs), exp(-m'))", reads)
    assert f"output h = {reads}\n" in text
    assert float(interpreting(text, tmp_path, function="interpret_forgetting")) < 1e-6


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_interpreted_kernels(name, tmp_path):
    assert interpreting(name, tmp_path) == "held"


def interpret_angles(folder: Path, dtype: str) -> None:
    """The errors of what moves an angle, in a short type over many chunks and from the gradient of a final state on."""
    written, spec = write(SPECS["half of the rows turns"], folder)
    with acting():
        subject = Subject(load(written), spec, "interpreter")
        trial = Trial(1, 500, 2, sizes_near(subject, (16, 16)))
        measured = compare(subject, subject.kernels("_kernels"), trial, dtype)
    print(json.dumps({one.name: one.error for one in measured if one.name in ("gradient of theta", "gradient of tilt")}))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "unit"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_the_gradient_of_an_angle_does_not_sum_what_is_rounded(dtype, unit, tmp_path):
    """It is a sum over all later tokens; a parameter's is the sum of these. Both come near one rounding: summed over the chunks, those of
    the states at their edges would be 2.5 of them in `theta` here, and 40 in `tilt`."""
    errors = json.loads(interpreting(tmp_path, dtype, function="interpret_angles"))
    assert errors["gradient of theta"] < 1.5 * unit, errors
    assert errors["gradient of tilt"] < 4 * unit, errors


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [("mlstm_sigmoid", "float16"), ("two rows", "bfloat16")])
def test_kernels_give_the_types_that_the_operators_promise(name, dtype, tmp_path):
    """What several rows of a token read is kept in bfloat16."""
    assert interpreting(name, tmp_path, dtype, function="interpret_registration") == "held"


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize(
    "written, instead, tensors",
    [
        ("if i_s == segments - 1:", "if i_s == segments:", {"S"}),
        ("tl.store(d_g_raw + row * H + i_h", "tl.store(rows + row * H + i_h", {"gradient of g_raw"}),
        ("for i_n in range(i_s):", "for i_n in range(i_s - 1):", {"y", "S", "gradient of q", "gradient of g_raw"}),
    ],
)
def test_what_is_not_written_is_seen(written, instead, tensors, tmp_path):
    """The comparison itself: memory that no kernel writes is infinitely far off, a segment that is left out is off by much."""
    found = interpreting("simple_gla", tmp_path, (written, instead))
    assert {line.split(" is off by ")[0] for line in found.splitlines()} == tensors
    assert all(float(error) > 0.01 for error in re.findall(r"is off by (\S+),", found))


@pytest.mark.parametrize("name", SPECS)
def test_no_accumulator_is_transposed_into_a_product(name, tmp_path):
    """A public report of wrong gradients on sm_90 (runtime/known_bad.py) names that pattern: what is transposed was loaded."""
    folder, _ = write(SPECS[name], tmp_path)
    kernels = [text for text in (folder / "kernels.py").read_text(encoding="utf-8").split("@triton.jit") if "tl.dot(" in text]
    assert kernels
    for text in kernels:
        transposed = re.findall(r"tl\.trans\((.*?)\)", text)
        products = re.findall(r"^ +(\w+) = .*tl\.dot\(", text, re.MULTILINE)
        assert not set(transposed) & set(products)
        # a name, so that the line above has seen where it comes from
        assert all(re.fullmatch(r"b_\w+", name) for name in transposed)


def test_what_is_reported_of_a_gpu_is_in_the_report(tmp_path, monkeypatch):
    folder, spec = write(SPECS["exclusive"], tmp_path)
    monkeypatch.setattr(verify, "examine", lambda: [Finding("torch", "2.9"), Finding("known bad on sm_90", "a product", "bad")])
    report = verify.verify_checks(folder, spec, {}, device="cuda")
    assert report.known_bad == ("known bad on sm_90: a product",) == tuple(json.loads(report.to_json())["known_bad"])
    assert report.table().caption == "known bad on sm_90: a product"
    assert verify.verify_checks(folder, spec, {}).known_bad == ()


def measured_on_a_gpu(folder: Path, spec, dtype: str) -> tuple[list, list[str]]:
    """Everything that the verifier compares of a package's kernels in a type, and the words of what is too far off."""
    subject = Subject(load(folder), spec, "cuda")
    kernels = subject.kernels("_kernels")
    measured = [one for trial in verify_kernels.trials(subject) for one in compare(subject, kernels, trial, dtype)]
    wrong = [f"{one.name}: {one.error:.1e} > {one.tolerance:.1e}, {one.trial}, {one.configuration}" for one in measured if one.excess > 1]
    return measured, wrong


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", verify_kernels.SLACK)
@pytest.mark.parametrize("name", SPECS)
def test_operator_on_a_gpu(name, dtype, tmp_path):
    """Every configuration; sums over a chunk, not over tokens, keep the errors near one rounding."""
    measured, wrong = measured_on_a_gpu(*write(SPECS[name], tmp_path), dtype)
    assert any("several segments" in one.configuration for one in measured) and any("packed" in one.configuration for one in measured)
    assert not wrong, wrong


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["mamba2", "retnet"])
def test_steps_in_every_configuration(name, tmp_path):
    folder, spec = write(SPECS[name], tmp_path)
    rows = list(verify_kernels.decode(Subject(load(folder), spec, "cuda")))
    assert {row.compared.split(":")[0] for row in rows} == set(verify_kernels.SLACK)
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed: grids were NOT looked at")
def test_grids_hold_many_documents(tmp_path, monkeypatch):
    """A grid's second and third sizes end at 65535: what grows with documents and heads stands in the first."""
    folder, _ = write((ROOT / "examples" / "simple_gla.ssm").read_text(encoding="utf-8"), tmp_path)
    package = load(folder)
    kernels = importlib.import_module(f"{package.__name__}.kernels")
    launched = []
    monkeypatch.setattr(kernels, "_segments", lambda *_: 2)
    monkeypatch.setattr(kernels, "_launch", lambda kernel, grid, *_, **__: launched.append((kernel.__name__, grid)))
    documents = 70_000
    q, k, v = (torch.randn(1, 64, 1, 4) for _ in range(3))
    raw, start = torch.randn(1, 64, 1), torch.zeros(documents, 1, 4, 4)
    bounds = torch.cat([torch.zeros(documents, dtype=torch.int64), torch.tensor([64])])
    _, _, gates = kernels.forward(q, k, v, raw, start, bounds)
    kernels.backward(torch.randn_like(v), torch.zeros_like(start), q, k, v, raw, start, gates, bounds)
    names = "gates summary forward states gradients rows".split()
    assert [name for name, _ in launched] == [f"{name}_kernel" for name in names]
    assert all(max(grid[1:]) < 65536 and grid[0] >= documents for _, grid in launched), launched


@pytest.fixture
def gated_kernels(tmp_path):
    """The kernels of a package; nothing launches them here."""
    pytest.importorskip("triton", reason="triton is not installed: the launchers were NOT called")
    folder, _ = write(EXAMPLES["simple_gla"], tmp_path)
    return importlib.import_module(f"{load(folder).__name__}.kernels")


def test_what_is_too_wide_is_refused_and_said_once(gated_kernels):
    def fits(N: int, P: int) -> bool:
        q = torch.zeros(1, 1, 1, N)
        return gated_kernels.fits(q, q, torch.zeros(1, 1, 1, P), torch.zeros(1, 1, 1), None)

    gated_kernels._warn.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fits(256, 256) and fits(16, 250)
    with pytest.warns(UserWarning, match="no kernel holds 257 keys and 16 values a head in torch.float32; the torch form runs"):
        assert not fits(257, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fits(257, 16)


def test_backward_in_slices_through_one_buffer(gated_kernels, monkeypatch):
    """States at chunk edges take at most so much, or an eighth of keys and values where those are larger; below that nothing is cut."""
    MIB = 1 << 20
    monkeypatch.setattr(gated_kernels, "STATES_LIMIT", 256 * MIB)
    assert gated_kernels._slices(512 * MIB, 256 * MIB, 8192, False) == 2
    assert gated_kernels._slices(512 * MIB, 256 * MIB, 8192, True) == 1, "where few programs walk"
    assert gated_kernels._slices(64 * MIB, 32 * MIB, 4096, False) == 1
    assert gated_kernels._slices(4096 * MIB, 2048 * MIB, 16384, False) == 16
    assert gated_kernels._slices(4096 * MIB, 2048 * MIB, 4096, False) == 4, "slices begin at edges"
    assert gated_kernels._slices(512 * MIB, 256 * MIB, 5120, False) == 3, "and hold no more than they may"
    assert gated_kernels._slices(512 * MIB, 256 * MIB, 1000, False) == 1
    launched = []
    monkeypatch.setattr(gated_kernels, "_segments", lambda *_: 1)
    monkeypatch.setattr(gated_kernels, "_launch", lambda kernel, grid, arguments, *_, **__: launched.append((kernel, grid, arguments)))
    monkeypatch.setattr(gated_kernels, "STATES_LIMIT", 1)
    q, raw = torch.randn(2, 1100, 2, 16), torch.randn(2, 1100, 2)
    _, _, gates = gated_kernels.forward(q, q, q, raw, None, None)
    gated_kernels.backward(torch.randn_like(q), None, q, q, q, raw, None, gates, None)
    names = [kernel.__name__.removesuffix("_kernel") for kernel, _, _ in launched]
    assert names == "gates forward states gradients states gradients rows".split()
    walks = [arguments[-2:] for kernel, _, arguments in launched if kernel is gated_kernels.states_kernel]
    assert walks == [(32, 3), (0, 32)], "first chunk, chunks: 35 chunks of 32 tokens, an edge behind 32 of them"
    held = [arguments[7] for kernel, _, arguments in launched if kernel is gated_kernels.states_kernel]
    assert [(buffer.size, buffer.place) for buffer in held] == [(2 * 32 * 2 * 16 * 16, held[0].place)] * 2, "one buffer"
    assert [grid for kernel, grid, _ in launched if kernel is gated_kernels.gradients_kernel] == [(3 * 2 * 3, 2, 1), (3 * 2 * 32, 2, 1)]


def test_launches_are_on_the_device_of_the_tensors(gated_kernels, monkeypatch):
    """The current GPU is another: it is changed for the call, both ways."""
    current, seen = [1], []

    @contextlib.contextmanager
    def device(one):
        current.append(one.index)
        yield
        current.pop()

    monkeypatch.setattr(gated_kernels, "_segments", lambda *_: 1)
    monkeypatch.setattr(gated_kernels, "_launch", lambda *_, **__: seen.append(current[-1]))
    with launches._gpu(TARGETS["sm_90"], None), launches._pretence("none"):
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
        monkeypatch.setattr(torch.cuda, "device", device)
        q = torch.empty(1, 5, 2, 16, device="meta")
        raw, start = torch.empty(1, 5, 2, device="meta"), torch.empty(1, 2, 16, 16, device="meta")
        _, _, gates = gated_kernels.forward(q, q, q, raw, start, None)
        gated_kernels.backward(q, None, q, q, q, raw, None, gates, None)
    assert len(seen) == 5 and set(seen) == {0} and current == [1]


@pytest.mark.parametrize("name", [name for name in CARRIED if (ROOT / "generated" / name).is_dir()])
def test_no_argument_has_a_name_of_the_kernels(name):
    """Every name in the emitted kernels is an argument's, a value's (`b_`), or one that arguments step aside for."""
    path = ROOT / "examples" / f"{name}.ssm"
    [derived] = build(Source(path.name, path.read_text(encoding="utf-8"))).trace.after("derive").values()
    spec = derived.spec
    own = {*(identifier(s.name) for s in spec.symbols), *(n for n, _ in (*spec.dims, *spec.constants))}
    tree = ast.parse((ROOT / "generated" / name / "kernels.py").read_text(encoding="utf-8"))
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_" and own & {x.arg for x in n.args.args}]
    found = {n.id for f in functions for n in ast.walk(f) if isinstance(n, ast.Name)} | {x.arg for f in functions for x in f.args.args}
    found -= {n for n in found if hasattr(builtins, n) or n.startswith("_")}
    # what is made before the walk has a name that the spec leaves free
    found = {n for n in found - own if not n.startswith(("d_", "made_"))}
    assert all(pointer(n) != n for n in found), sorted(n for n in found if pointer(n) == n)


def test_a_kernel_that_was_compiled_is_started_for_what_it_was_compiled_for(gated_kernels, monkeypatch):
    """Other types, pointers within a line, wide counts and hooks go through Triton."""
    triton, begun, compiled = gated_kernels.triton, [], []

    class CudaLauncher:
        global_scratch_size = profile_scratch_size = launch_cooperative_grid = launch_pdl = 0

        def launch(self, *handed):
            begun.append(handed)

    class Compiled:
        run, function, packed_metadata = CudaLauncher(), 5, (4,)

        def __getitem__(self, grid):
            return lambda *handed, stream: compiled.append("by its own launch")

    class Kernel:
        pre_run_hooks = []

        def __getitem__(self, grid):
            return lambda *handed, **options: compiled.append([getattr(h, "dtype", h) for h in handed]) or Compiled()

    monkeypatch.setattr(gated_kernels, "_IS_KNOWN", True)
    monkeypatch.setattr(triton.runtime.driver, "_active", SimpleNamespace(get_current_stream=lambda index: 7))
    kernel, wide = Kernel(), torch.zeros(64, dtype=torch.float32)

    def launch(tensor, count=3):
        begun.clear(), compiled.clear()
        first, part = gated_kernels._parts(wide, (8, 56))
        gated_kernels._launch(kernel, (2, 3, 1), (tensor, part, None, 0.5, count), (16, False), 4)
        return part.place

    long, short = torch.zeros(64), torch.zeros(64, dtype=torch.bfloat16)
    place = launch(long)
    assert place == wide.data_ptr() + 32 and compiled == [[torch.float32, torch.float32, None, 0.5, 3, 16, False]] and not begun
    launch(long, 4)
    assert begun == [(2, 3, 1, 7, 5, 0, 0, None, None, (4,), None, None, None, long.data_ptr(), place, None, 0.5, 4, 16, False)]
    launch(short)
    assert compiled[0][0] == torch.bfloat16 and not begun, "another type"
    launch(short)
    assert begun and not compiled
    for given in ((long[1:],), (long, 2**31)):
        launch(*given)
        launch(*given)
        assert compiled and not begun, "pointers within a line, counts of more than 32 bits"
    monkeypatch.setattr(triton.knobs.runtime.launch_enter_hook, "calls", [print])
    launch(long)
    assert compiled == ["by its own launch"] and not begun
    assert torch.equal(gated_kernels._parts(wide.copy_(torch.arange(64.0)), (8, 56))[1].tensor(), torch.arange(8.0, 64.0))
    assert [p.place % 16 for p in gated_kernels._room(torch.bfloat16, wide.device, 3, 5, 1)] == [0, 0, 0]
