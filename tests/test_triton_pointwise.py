"""Expressions as Triton text: rendered into small kernels, interpreted in float32, and held against the torch text in float64.

One process interprets every kernel: the interpreter must be chosen before triton is imported.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from evaluate import Env, evaluate

pytest.importorskip("torch")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from ssmgen.backends import torch_pointwise, torch_text, triton_pointwise  # noqa: E402
from ssmgen.backends.triton_pointwise import loaded  # noqa: E402
from ssmgen.backends.triton_text import FUNCTIONS, HELPERS, helpers  # noqa: E402
from ssmgen.compiler import build  # noqa: E402
from ssmgen.differentiate import cotangents  # noqa: E402
from ssmgen.expressions import nodes  # noqa: E402
from ssmgen.functions import names  # noqa: E402
from ssmgen.identities.complex_pairs import over_pairs  # noqa: E402
from ssmgen.parse import parse  # noqa: E402
from ssmgen.resolve import resolve  # noqa: E402
from ssmgen.source import NOWHERE, Source  # noqa: E402
from ssmgen.spec import Ref  # noqa: E402

interpreted = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed: its text was NOT run")

TOKENS, ROWS = 5, 8
WIDTHS = ((16, 16), (24, 32))

POINTWISE = {
    "exp": "x", "log": "c", "log1p": "c", "expm1": "x * 1e-3", "sigmoid": "4 * x", "logsigmoid": "9 * x", "softplus": "9 * x",
    "inv_softplus": "c", "silu": "3 * x", "gelu": "x", "tanh": "x * 0.1", "relu": "x", "elu": "x", "abs": "x", "sqrt": "c",
    "rsqrt": "c", "square": "x", "sin": "x", "cos": "x", "heavy_tail": "2 * x", "min": "x, y", "max": "x, s", "clamp": "x, -0.5, 0.5",
    "bounded_sqrt": "c, 3", "atan2": "x, y - 0.5",
    "phi1": "x", "phi2": "2 * x",
    "exp_even": "x, 2 * y", "exp_odd": "x, 2 * y", "phi1_even": "2 * x, 2 * y", "phi1_odd": "2 * x, 2 * y",
}  # fmt: skip
"""An argument for every pointwise function."""

PLAIN = """
recurrence plain {
  dim    N = 16, P = 16
  input  x, y : [N]; c : [N] in (0.1, 2); v : [P]; s : scalar; d : scalar in (0.1, 2)
  param  w : [N] per head; b : scalar per head
  let    LETS
  state  S : real [N, P]
  update S' = S + total * x v^T
  output o = S'^T y
}
"""
LETS = [
    "total : scalar = x^T y",
    "biased : [N] = x + b",
    "masked : scalar = (exp(x) + 1)^T y",
    "constant : scalar = (x + 1)^T (exp(y) + s)",
    "inverse : scalar = (1 / c)^T y",
    "scaled : [N] = N^-1/2 * (x * w) * s",
    "weighted : [N] = diag(w) x - d * y / (1 + s * s)",
    "crossed : [P] = (x^T y) * v - s * v",
    "lengths : scalar = norm(exp(x)) + norm(v)",
    "directed : [N] = unit(x + 1)",
    "levelled : [N] = rmsnorm(exp(x))",
    "chosen : [N] = softmax(4 * x)",
    "attended : scalar = softmax(x)^T y",
    "turned : [N] = rope(y)",
    "turned_sum : scalar = rope(x + 1)^T y",
    "cubed : [N] = (x + 2)^3 + c^-1/2 + c^1.5 + 2^s + c^s + c^0.3",
    "negative : scalar = -(x^T y) - -s + (-d) * (s - 1)",
    "quotient : [N] = x / (c * d) / s",
]


def definitions():
    lets = [*LETS, *(f"f_{name} : [N] = {name}({argument})" for name, argument in POINTWISE.items())]
    text = PLAIN.replace("LETS", "\n         ".join(lets))
    (recurrence,) = resolve(parse(Source("plain.ssm", text))).recurrences
    return recurrence


def with_gradients(name, expr):
    """An expression and what its gradient sends to every name it uses."""
    yield name, expr
    dy = Ref(expr.type, NOWHERE, "dy")
    yield from ((f"d {name} to {other} {i}", value) for i, (other, value) in enumerate(cotangents(expr, dy)))


def expressions():
    """(recurrence, name, expression) of every value that an operator computes token by token."""
    plain = definitions()
    assert set(POINTWISE) == set(names("pointwise"))
    for symbol in plain.symbols:
        if symbol.definition is not None:
            yield from ((plain, *pair) for pair in with_gradients(symbol.name, symbol.definition))
    for path in sorted((ROOT / "examples").glob("*.ssm")):
        trace = build(Source(path.name, path.read_text(encoding="utf-8"))).trace
        for recurrence in trace.after("resolve")[path.name].recurrences:
            if not all(s.type.is_scalar or s.type.is_column for s in recurrence.symbols):
                continue  # several rows a token, in a matrix: no tile holds them as they are
            classified = trace.after("classify")[recurrence.name]
            if classified.recurrence.turnings:
                continue  # angles lie along pairs of keys: test_kernels interprets the whole kernels of what turns
            outputs = classified.outputs
            if any(s.type.field == "complex" for s in recurrence.states):
                # kernels have both parts by themselves
                classified, outputs = over_pairs(classified), ()
                recurrence = classified.recurrence.spec
            wanted = {s.name: s.definition for s in recurrence.symbols if s.definition is not None}
            wanted |= dict(classified.recurrence.hoisted)
            for walk in classified.walks:
                wanted |= {"key": walk.key, "coefficient": walk.coefficient, "decay": walk.log_decay}
                wanted |= {f"query {i}": r.query for i, r in enumerate(walk.readings)}
                wanted |= {f"column {i}": c.value for i, c in enumerate(walk.columns)}
            wanted |= {f"output {name}": value for name, value in outputs}
            for name, value in wanted.items():
                if value is not None:
                    yield from ((recurrence, *pair) for pair in with_gradients(f"{recurrence.name} {name}", value))


def axis(type_):
    size = type_.cols if type_.is_row else type_.rows
    return "" if type_.is_scalar else "p" if str(size) == "P" else "n"


class Tile:
    """The values of one case: positive numbers where a function wants them, in float64, and their names in both texts."""

    def __init__(self, recurrence, expr, width, generator):
        self.data, self.values, self.places = {}, {}, {"heads": torch_pointwise.NUMBER}
        self.params = {s.name for s in recurrence.symbols if s.kind == "param"}
        for node in nodes(expr):
            if isinstance(node, Ref) and node.name not in self.data:
                self._add(node, axis(node.type), recurrence, width, generator)
        self.data["position"] = torch.arange(100_000, 100_000 + TOKENS)
        self.values["position", ""] = loaded("b_position", ("i",))
        self.places["position"] = torch_pointwise.POSITION

    def _add(self, node, axis, recurrence, width, generator):
        shape = ([] if node.name in self.params else [TOKENS]) + ([width] if axis else [])
        symbol = next((s for s in recurrence.symbols if s.name == node.name), None)
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        is_positive = symbol is not None and (symbol.interval.low >= 0 or (symbol.domain is not None and symbol.domain.low >= 0))
        is_negative = symbol is not None and symbol.domain is not None and symbol.domain.high <= 0
        value = (value.abs() / 2 + 0.1).clamp(max=0.9) * (-1 if is_negative else 1) if is_positive or is_negative else value
        if node.name in ("heads", "layer", "layers", "head"):
            value = torch.tensor({"heads": 4.0, "layer": 1.0, "layers": 3.0, "head": 2.0}[node.name], dtype=torch.float64)
        self.data[node.name] = value.float().double()
        rows = ("i",) if value.dim() and node.name not in self.params else ()
        # a value after the update is written x' in a spec; no name in a kernel can be
        self.values[node.name, axis] = loaded(f"b_{node.name}".replace("'", "_after"), (*rows, *axis))
        self.places[node.name] = torch_pointwise.Place(bool(rows), "", bool(axis))


HELPER_SPACE: dict = {"torch": torch, "F": F, "math": math, "Tensor": torch.Tensor}
for text in torch_text.HELPERS.values():
    exec(text, HELPER_SPACE)
ROPE = (ROOT / "examples" / "retnet.ssm").read_text(encoding="utf-8")
exec(re.search(r"^def _rope.*?\n\n\n", build(Source("retnet.ssm", ROPE)).packages["retnet"]["op.py"], re.M | re.S)[0], HELPER_SPACE)


def by_torch(tile, expr, width, dtype=torch.float64):
    """The torch text's value, [T] or [T, N], computed in `dtype`."""
    printer = torch_pointwise.Printer(tile.places)
    # one batch axis stands before the tokens wherever there are tokens
    data = {n: x[None] if tile.places.get(n, torch_pointwise.NUMBER).has_time else x for n, x in tile.data.items()}
    data = {n: x.to(dtype) if x.is_floating_point() else x for n, x in data.items()}
    data = {n if n in torch_pointwise.BUILT_IN else torch_text.identifier(n): x for n, x in data.items()}
    sizes = {"N": width, "P": width}
    value = eval(printer.text(expr), HELPER_SPACE | sizes | data)
    value = torch.as_tensor(value, dtype=torch.float64)
    return value[0] if printer.place(expr).has_time else value


def place(axes, width):
    """The offset and the mask of a tile with these axes, rows of `width` entries."""
    index = {a: f"[{', '.join(':' if a == b else 'None' for b in axes)}]" if len(axes) > 1 else "" for a in axes}
    offset = " + ".join(f"o_{a}{index[a]}" + (f" * {width}" if a != axes[-1] else "") for a in axes)
    return offset, " & ".join(f"m_{a}{index[a]}" for a in axes)


def kernel_text(number, tile, text, used, width):
    """A kernel that loads what `used` names, and stores the value of the text."""
    lines = []
    for key in used:
        name = key[0].replace("'", "_after")
        offset, mask = place(tile.values[key].axes, width)
        lines.append(f"b_{name} = tl.load(p_{name}" + (f" + {offset}, mask={mask}, other=0)" if offset else ")"))
    offset, mask = place(text.axes, width)
    lines.append(f"tl.store(result + {offset}, {text.text}, mask={mask})" if offset else f"tl.store(result, {text.text})")
    arguments = ", ".join(
        [*(f"p_{name}".replace("'", "_after") for name, _ in used), "result", "N: tl.constexpr", "P: tl.constexpr", "BLOCK: tl.constexpr"]
    )
    return f"""
@triton.jit
def kernel_{number}({arguments}):
    o_i, o_n, o_p, o_h = tl.arange(0, {ROWS}), tl.arange(0, BLOCK), tl.arange(0, BLOCK), tl.arange(0, BLOCK // 2)
    m_i, m_n, m_p, m_h = o_i < {TOKENS}, o_n < N, o_p < P, o_h < N // 2
    {"".join(line + chr(10) + "    " for line in lines).rstrip()}
"""


RUN = """
import sys, torch, importlib.util

folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("cases", folder + "/cases.py")
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
results = []
for number, (arguments, shape, width, block) in enumerate(torch.load(folder + "/cases.pt")):
    y = torch.full(shape, float("nan"))
    getattr(cases, f"kernel_{number}")[(1,)](*arguments, y, N=width, P=width, BLOCK=block)
    results.append(y)
torch.save(results, folder + "/results.pt")
"""


def run(folder, kernels, cases):
    """The results of kernels, in one interpreting process."""
    head = "import triton\nimport triton.language as tl\n\n\n"
    (folder / "cases.py").write_text(head + "\n\n".join(HELPERS.values()) + "".join(kernels), encoding="utf-8")
    torch.save(cases, folder / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", RUN, str(folder)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt")


@interpreted
def test_every_expression_against_the_torch_text(tmp_path):
    generator = torch.Generator().manual_seed(0)
    kernels, cases, expected, single, titles = [], [], [], [], []
    for recurrence, title, expr in expressions():
        for width, block in WIDTHS:
            tile = Tile(recurrence, expr, width, generator)
            printer = triton_pointwise.Printer(tile.values)
            text = printer.print(expr, axis(expr.type) or "n")
            wanted = by_torch(tile, expr, width)
            shape = [{"i": TOKENS}.get(a, width) for a in text.axes]
            kernels.append(kernel_text(len(kernels), tile, text, printer.used, width))
            arguments = [tile.data[name] if name == "position" else tile.data[name].float() for name, _ in printer.used]
            cases.append((arguments, shape, width, block))
            expected.append(wanted.expand(shape) if wanted.dim() == len(shape) else wanted)
            single.append((by_torch(tile, expr, width, torch.float32) - wanted).abs().max())
            titles.append((title, text.text, width))
    results = run(tmp_path, kernels, cases)
    for found, wanted, by_float, title in zip(results, expected, single, titles, strict=True):
        scale = wanted.abs().max().clamp(min=1e-6)
        error = ((found.double() - wanted.reshape(found.shape)).abs().max() / scale).item()
        # random values may stand near a pole: torch errs there in float32 as well
        assert error < max(1e-5, 2 * (by_float / scale).item()), (title, error)
    assert len(results) > 250


MATRICES = """
recurrence matrices {
  dim    N = 16, P = 16
  input  q, k, e : [N]; u, r : [N] in (0.1, 1); v, w : [P]; a, beta : scalar; theta : [N/2]
  state  S : real [N, P]; z : real [N]
  update S' = UPDATE
         z' = VECTOR
  output o = OUTPUT
}
"""
UPDATES = [
    ("a * S + k v^T", "a * z + beta * k", "S'^T q / (1 + (z'^T q)^2) + a * v"),
    ("(I - beta * k k^T) diag(u) S + beta * k v^T", "diag(u) z + exp(k)", "(S + diag(u) k v^T)^T q"),
    ("diag(u) S - e (r^T S) + k (v - S^T k)^T", "z - e * (z^T k)", "S'^T rope(q) - a * v"),
    ("rot(theta) S diag(w) + k v^T", "rot(theta) z + k", "w * (S'^T exp(q))"),
    ("rot(theta)^T (diag(u) - e (a * k)^T)^T S", "(I - beta * k e^T)^T z", "S' v + beta * q"),
    ("diag(u) (I - beta * e e^T) (I - a * k k^T) S / 2", "(diag(u) - e k^T) z", "diag(w) S'^T (q + 1)"),
]
"""Updates and outputs of one token: corrections, sums that need a mask, rotations, products on either side."""


@interpreted
def test_updates_of_states_against_the_evaluator(tmp_path):
    rng, kernels, cases, expected, titles = np.random.default_rng(0), [], [], [], []
    for update, vector, output in UPDATES:
        text = MATRICES.replace("UPDATE", update).replace("VECTOR", vector).replace("OUTPUT", output)
        (recurrence,) = resolve(parse(Source("matrices.ssm", text))).recurrences
        for width, block in WIDTHS:
            env = Env({"N": width, "P": width}, {"position": np.array([[7.0]])})
            env.names |= {s.name: draw(rng, s.type, env, s.domain is not None) for s in recurrence.symbols}
            env.before = {s.name: draw(rng, s.type, env) for s in recurrence.states}
            env.after = {s.name: draw(rng, s.type, env) for s in recurrence.states}
            tile = StateTile(recurrence, env)
            for expr in (*(u.value for u in recurrence.update), recurrence.outputs[0].value):
                printer = triton_pointwise.Printer(tile.values, {recurrence.state("S").type.cols: "p"})
                text = printer.print(expr, axis(expr.type) or "n")
                kernels.append(kernel_text(len(kernels), tile, text, printer.used, width))
                cases.append(([tile.data[name] for name, _ in printer.used], [width] * len(text.axes), width, block))
                expected.append(torch.tensor(evaluate(expr, env)))
                titles.append((update, vector, output, text.text, width))
    for found, wanted, title in zip(run(tmp_path, kernels, cases), expected, titles, strict=True):
        error = ((found.double() - wanted.reshape(found.shape)).abs().max() / wanted.abs().max()).item()
        assert error < 1e-5, (title, error)


def draw(rng, type_, env, is_positive=False):
    shape = [int(d.value(env.sizes)) for d in (type_.rows, type_.cols)]
    return (rng.uniform(0.1, 1, shape) if is_positive else rng.normal(size=shape)).astype(np.float32).astype(float)


class StateTile:
    """The values of one token on the axes of a decode kernel; `S'` is called `S_after` in the text."""

    def __init__(self, recurrence, env):
        given = {n: (x, recurrence.symbol(n).type) for n, x in env.names.items() if n != "position"}
        given |= {n: (x, recurrence.state(n).type) for n, x in env.before.items()}
        given |= {f"{n}'": (x, recurrence.state(n).type) for n, x in env.after.items()}
        self.data = {n: torch.tensor(x).float().reshape([s for s in x.shape if s > 1]) for n, (x, _) in given.items()}
        self.data["position"] = torch.tensor(7)
        self.values = {("position", ""): loaded("b_position")}
        for name, (_, type_) in given.items():
            axes = "np" if not type_.is_scalar and not type_.is_column else "h" if "/" in str(type_.rows) else axis(type_)
            self.values[name, axes] = loaded(f"b_{name}".replace("'", "_after"), tuple(axes))


def test_tables_are_complete():
    assert set(names("pointwise")) <= set(FUNCTIONS)
    assert set(torch_pointwise.INTERNAL) <= set(FUNCTIONS)
    for text in FUNCTIONS.values():
        assert callable(text)
    assert helpers(["_softplus(b_x)"]) == (HELPERS["_log1p_exp"], HELPERS["_softplus"])
    assert helpers(["tl.exp(b_x)"]) == ()
