"""`explain --plot`: the numbers behind the drawing, where they stand in it, and what a checkpoint's gates are."""

from __future__ import annotations

import cmath
import math
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from test_imports import loaded_by

from ssmgen import cli, compiler
from ssmgen.figures.figure import Scale, line_chart
from ssmgen.figures.portrait import histogram, portrait
from ssmgen.figures.spectrum import spectra
from ssmgen.source import Source

MAMBA2, GLA = (ROOT / "examples" / f"{name}.ssm" for name in ("mamba2", "gla"))

TURNING = """
# turns & fades: 1 < 2
recurrence turning {
  dim        N = 2
  input      u : scalar per channel
  param      w : [N] per channel init pi * linspace(1, 2)
             C : complex [N] per channel
  state      s : complex [N] per channel
  dynamics   ds/dt = (-1/4 + i * w) * s + u
  discretize zoh(1/2)
  output     y = Re(C . s')
}
"""


def drawn(text: str, *more, **words) -> str:
    return portrait(compiler.check(Source("test.ssm", text), *more).after("derive"), **words)


def spectrum(text: str, state: str):
    trace = compiler.check(Source("test.ssm", text))
    (recurrence,) = trace.after("derive").values()
    (found,) = (each for each in spectra(recurrence) if state in each.states)
    return found


SIMPLE = """
recurrence r {{
  dim    N = 2, P = 2
  input  q, k : [N]; v : [P]; b_raw, raw : scalar
  gate   a in (0, 1) = sigmoid(raw); b in (0, 2) = 2 * sigmoid(b_raw)
  let    kn : [N] = unit(k)
  state  S : real [N, P]; z : real [N]
  update S' = {}
         z' = a * z + k
  output o = S'^T q / max(z'^T q, 1)
}}
"""


def marks(drawing: str, kind: str, style: str) -> list[dict[str, str]]:
    return [node.attrib for node in ElementTree.fromstring(drawing).iter(f"{{http://www.w3.org/2000/svg}}{kind}")
            if node.get("class") == style]  # fmt: skip


def test_eigenvalues_before_training_are_those_of_the_spec():
    source = (ROOT / "examples" / "s4d_real.ssm").read_text(encoding="utf-8")
    found = spectrum(source, "s")
    # A_n = -(n + 1); the first of the lanes has the dt in the middle of its draw, sqrt(1e-3 * 1e-1)
    for n in (0, 63):
        assert any(abs(a - math.exp(-0.01 * (n + 1))) < 1e-9 for a in found.eigenvalues)
    assert all(a.imag == 0 and math.exp(-0.1 * 64) <= a.real <= math.exp(-1e-3) for a in found.eigenvalues)
    assert len(found.eigenvalues) == 256 and (found.signed.low, found.signed.high) == (0, 1)
    # of conjugate pairs one is stored, and both are eigenvalues
    pairs = spectrum((ROOT / "tests" / "sketches" / "s4d.ssm").read_text(encoding="utf-8"), "s").eigenvalues
    assert all(a.conjugate() in pairs for a in pairs)
    assert any(abs(a - cmath.exp(0.01 * (-0.5 + 1j * math.pi * 31))) < 1e-9 for a in pairs)


def test_eigenvalues_of_corrections_growth_and_several_states():
    delta = spectrum(SIMPLE.format("a * (S - b * kn (kn^T S)) + b * kn v^T"), "S")
    assert delta.eigenvalues == (0.5,) and delta.initial_along == (0,)
    assert (delta.along.low, delta.along.high) == (-1, 1)
    negative = spectrum(SIMPLE.format("-a * S + k v^T"), "S")
    assert negative.eigenvalues == (-0.5,) and (negative.signed.low, negative.signed.high) == (-1, 0)
    growing = spectrum(SIMPLE.format("3 * S + k v^T"), "S")
    assert growing.eigenvalues == (3,) and growing.half_life is None
    assert spectrum(SIMPLE.format("a * S + k v^T"), "S").states == ("S", "z")


def test_a_rotation_and_a_factor_for_every_row_meet_pair_by_pair():
    text = """
recurrence r {
  dim    N = 4, P = 2
  input  q, k : [N]; v : [P]
  param  theta : [N/2] per head init linspace(1, 2); f : [N/2] per head init linspace(1/2, 1/4)
  gate   a : [N/2] in (0, 1) = clamp(f, 1/10, 9/10)
  state  S : real [N, P]
  update S' = diag(pairs(a)) rot(theta) S + k v^T
  output o = S'^T q
}
"""
    found = spectrum(text, "S").eigenvalues
    expected = [a * cmath.exp(sign * 1j * w) for a, w in ((0.25, 2), (0.5, 1)) for sign in (-1, 1)]
    assert len(found) == 4 and all(min(abs(one - other) for other in expected) < 1e-9 for one in found)


def test_marks_stand_where_their_numbers_are():
    drawing = drawn(TURNING)
    numbers = [cmath.exp((-0.25 + 1j * w) / 2) for w in (math.pi, 2 * math.pi)]
    plane = {(round(64 + 260 * (a.real + 1.25) / 2.5, 2), round(96 + 260 * (1.25 - a.imag) / 2.5, 2)) for a in numbers}
    dots = marks(drawing, "circle", "dot s0")
    assert {(float(dot["cx"]), float(dot["cy"])) for dot in dots if dot["r"] == "2.5"} == plane
    # the unit circle, and the one radius on which both numbers are proved to lie
    (circle,) = marks(drawing, "circle", "rim")
    assert (circle["cx"], circle["cy"], circle["r"]) == ("194.0", "226.0", "104.0")
    (ring,) = marks(drawing, "circle", "ring s0")
    assert float(ring["r"]) == pytest.approx(104 * math.exp(-0.125), abs=0.01) and float(ring["stroke-width"]) < 0.1
    # half-lives of log 2 / 0.125 tokens, on a scale of four decades from 0.1
    (life,) = {float(dot["cx"]) for dot in dots if dot["r"] == "3.0"}
    assert life == pytest.approx(760 + 300 * (math.log10(math.log(2) / 0.125) + 1) / 4, abs=0.01)
    assert "5.55 before training" in drawing
    # four tokens after a write at i sqrt(a): (e^-0.125 i)^4 = e^-0.5
    lines = [line["points"].split() for line in marks(drawing, "polyline", "line thin s0")]
    curves = [[tuple(map(float, corner.split(","))) for corner in line] for line in lines]
    assert len(curves) == 2
    last = 39  # seven half-lives
    for curve, a in zip(curves, sorted(numbers, key=lambda a: a.real), strict=True):
        assert len(curve) == last + 1
        assert curve[4] == pytest.approx((410 + 300 * 4 / last, 356 - 260 * ((a**4).real + 1.05) / 2.1), abs=0.02)
    assert "turns &amp; fades: 1 &lt; 2" in drawing and "|a| in [0.882497, 0.882497], turning" in drawing


def test_what_has_no_eigenvalues_says_so():
    drawing = drawn((ROOT / "examples" / "titans.ssm").read_text(encoding="utf-8"))
    assert "no eigenvalue is known as a number" in drawing and "M, Z: no bound" in drawing and "M, Z: nothing is proved" in drawing
    assert not marks(drawing, "circle", "dot s0")


def test_scales_and_ticks():
    assert Scale(-1, 1, 0, 100).at(0.5) == 75 and Scale(1, 1000, 0, 300, True).at(10) == 100
    assert Scale(1, 1000, 300, 0, True).at(5000) == 0
    assert Scale(0, 1, 0, 10).ticks() == [(0.0, "0"), (2.0, "0.2"), (4.0, "0.4"), (6.0, "0.6"), (8.0, "0.8"), (10.0, "1")]
    assert [label for _, label in Scale(20, 600, 0, 10, True).ticks()] == ["20", "50", "100", "200", "500"]
    lines = marks(line_chart("t", "x", "y", {"a<b": [(1, 0.0), (3, 1.0)]}), "polyline", "line s0")
    assert [line["points"] for line in lines] == ["64,356 604,56"]


def test_a_histogram_counts():
    found = histogram("a", [0.0, 0.1, 0.9, 1.0, 1.0, math.inf], bins=2)
    assert found.edges == (0.0, 0.5, 1.0) and found.shares == (0.4, 0.6) and (found.median, found.count) == (0.9, 5)
    assert sum(histogram("a", [3.0] * 7).shares) == pytest.approx(1)
    with pytest.raises(ValueError, match="`a` has no finite value"):
        histogram("a", [math.nan])


# --- the command -------------------------------------------------------------------------------------------------


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["explain", *map(str, words)])
    return left.value.code


def test_the_drawing_is_the_same_bytes_and_needs_no_torch(tmp_path, monkeypatch):
    files = []
    for seed in ("0", "4242"):
        words = [sys.executable, "-m", "ssmgen", "explain", str(MAMBA2), "--plot"]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout) == (0, "mamba2.svg written\n"), done.stderr
        files.append((tmp_path / "mamba2.svg").read_bytes())
    assert files[0] == files[1] and files[0].startswith(b"<svg ")
    assert not loaded_by("explain", str(GLA), "--plot", str(tmp_path / "gla.svg")) & {"torch", "triton", "numpy"}
    assert (tmp_path / "gla.svg").is_file()


def test_faults_in_the_arguments_have_words(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    out, weights, other = tmp_path / "out.svg", tmp_path / "weights.pt", tmp_path / "other.pt"
    torch.save({"a.mamba2.A_log": torch.zeros(2), "head.weight": torch.zeros(1)}, weights)
    other.write_text("no tensors")
    several = {f"{i}.mamba2.{name}": torch.zeros(2) for i in range(2) for name in ("A_log", "dt_bias", "D")}
    torch.save(several, tmp_path / "several.pt")
    torch.save(torch.zeros(1, 2), tmp_path / "flat.pt")
    torch.save({"q": torch.zeros(1, 2, 3, 4)}, tmp_path / "inputs.pt")
    for words, said in (
        (("--checkpoint", weights), "`--checkpoint` is for the drawing: add `--plot`"),
        (("--plot", out, "--sample", weights), "add `--checkpoint FILE.pt`"),
        (("--plot", out, "--after", "parse"), "run one after the other"),
        (("--plot", out, "--checkpoint", tmp_path / "none.pt"), "none.pt: no such file"),
        (("--plot", out, "--checkpoint", other), "not a file of tensors"),
        (("--plot", out, "--checkpoint", tmp_path / "flat.pt"), "no state_dict"),
        (
            ("--plot", out, "--checkpoint", weights),
            "lacks `a.mamba2.dt_bias`, `a.mamba2.D` of `mamba2`; it has a.mamba2.A_log, head.weight",
        ),
        (("--plot", out, "--checkpoint", tmp_path / "several.pt", "--sample", tmp_path / "flat.pt"), "save the state_dict of one layer"),
    ):
        assert run(MAMBA2, *words) == 1
        assert said in capsys.readouterr().err
    assert run(GLA, "--plot", out, "--checkpoint", weights) == 1
    assert "`gla` has no parameters of its own" in capsys.readouterr().err
    assert run(GLA, "--plot", out, "--checkpoint", weights, "--sample", tmp_path / "inputs.pt") == 1
    assert "lacks the input `k` of `gla`; it has q" in capsys.readouterr().err
    assert run(GLA, "--plot", out, "--checkpoint", weights, "--sample", tmp_path / "flat.pt") == 1
    assert "neither what a layer reads" in capsys.readouterr().err
    assert run("nonlinear-state", "--plot", out) == 1
    assert "`nonlinear-state` is a rule" in capsys.readouterr().err
    assert not out.exists()


def test_gates_of_a_checkpoint_are_those_of_its_module(tmp_path):
    torch = pytest.importorskip("torch")
    from ssmgen.runtime import jit
    from ssmgen.runtime.gates import measured

    source, sizes = Source("mamba2.ssm", MAMBA2.read_text(encoding="utf-8")), {"N": 4, "P": 4}
    package = jit.packages(source, sizes)["mamba2"]
    torch.manual_seed(0)
    layer, u = package.Mamba2Block(8, N=4, P=4), torch.randn(2, 9, 8)
    torch.save({"model": layer.state_dict()}, tmp_path / "layer.pt")
    torch.save(u, tmp_path / "u.pt")
    # what the layer computes on its way
    dt = torch.nn.functional.softplus(layer.in_proj(u)[..., -4:] + layer.mamba2.dt_bias).detach()
    found = {gate.name: gate for gate in measured(source, sizes, tmp_path / "layer.pt", tmp_path / "u.pt")["mamba2"]}
    for name, values in (("dt", dt), ("a of S", torch.exp(-dt * layer.mamba2.A_log.detach().exp()))):
        assert found[name].count == 2 * 9 * 4
        assert (found[name].edges[0], found[name].edges[-1]) == pytest.approx((values.min().item(), values.max().item()), rel=1e-5)
        assert found[name].median == pytest.approx(values.flatten().sort().values[36].item(), rel=1e-5)
    # without a sample inputs are 0, and a model's layers count together
    torch.save({f"{i}.{key}": value for i in range(3) for key, value in layer.state_dict().items()}, tmp_path / "model.pt")
    rest = {gate.name: gate for gate in measured(source, sizes, tmp_path / "model.pt", None)["mamba2"]}
    biases = torch.nn.functional.softplus(layer.mamba2.dt_bias.detach())
    assert rest["dt"].count == 12 and rest["dt"].edges[-1] == pytest.approx(biases.max().item(), rel=1e-5)
    drawing = drawn(source.text, sizes, measured={"mamba2": tuple(found.values())}, has_sample=True)
    assert "checkpoint&#x27;s gates on the sample" in drawing and f"median {found['dt'].median:.4g} of 72" in drawing
    bars = [float(bar["height"]) for bar in marks(drawing, "rect", "bar s0")]
    assert max(bars) == pytest.approx(150 / 1.1, abs=0.01)
    assert sum(bars) == pytest.approx(150 / 1.1 / max(found["dt"].shares), abs=0.2)


def test_gates_of_inputs_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    from ssmgen.runtime.gates import measured

    inputs = {name: torch.randn(1, 3, 2, 4) for name in ("q", "k", "v", "g_raw")}
    torch.save(inputs, tmp_path / "inputs.pt")
    torch.save({"any.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    source = Source("gla.ssm", GLA.read_text(encoding="utf-8"))
    (g, *_) = measured(source, {"N": 4, "P": 4}, tmp_path / "weights.pt", tmp_path / "inputs.pt")["gla"]
    expected = torch.nn.functional.logsigmoid(inputs["g_raw"]) / 16
    assert (g.name, g.count) == ("g", 24)
    assert (g.edges[0], g.edges[-1]) == pytest.approx((expected.min().item(), expected.max().item()), rel=1e-5)
