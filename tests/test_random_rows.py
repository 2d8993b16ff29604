"""Random recurrences of the matrix-product part of the space: decays, corrections, rows and readouts in every combination.

Of each the reference, the operator's chunks and the kernels, which Triton interprets, are held against plain loops in float64, gradients
included. The default holds 300 different points of the space and more, the same every time, in parts that processes can share;
`SSMGEN_RANDOM_SPECS=1000 pytest tests/test_random_rows.py` holds fresh ones.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import pytest
from built import write
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from interpreter import printed  # noqa: E402
from random_points import distinct, fresh, holds  # noqa: E402
from random_specs import _dims, _dressed, _per, _Text  # noqa: E402
from random_specs import specs as plain_specs  # noqa: E402

from ssmgen import explain  # noqa: E402
from ssmgen.runtime.interpreter import acting, missing  # noqa: E402
from ssmgen.runtime.load import load  # noqa: E402
from ssmgen.runtime.verify_kernels import Trial, compare, compare_steps, launchers_of  # noqa: E402
from ssmgen.runtime.verify_subject import Subject  # noqa: E402
from ssmgen.source import Source  # noqa: E402

FRESH = int(os.environ.get("SSMGEN_RANDOM_SPECS", "0"))
POINTS, PARTS = 300, 10
DRAWN = 330
"""Points: of some the recurrence has no kernels."""

FOUND = {
    # a head's own share of the keys, of which a normaliser is a sum: behind the last token its state's adjoint meets them as well
    "normalised shares": """
recurrence normalised_shares {
  dim    N = 4, P = 3
  input  q, k : [N]; v : [P]
  param  w : [N] per head
  let    kw : [N] = silu(k + w)
  state  S : real [N, P]; z : real [N]
  update S' = 0.9 * S + kw v^T
         z' = 0.9 * z + kw
  output o = S^T q / max(abs(z^T q), 1)
}""",
    # three rows of inputs times numbers, which backward is left, and a query of values, which it makes again
    "asked values": """
recurrence asked_values(n = 3) {
  dim    N = 4, P = 3
  input  u : [P]; k : [n, N] unit; v : [n, P]; raw : [n]; g : scalar <= 0
  gate   b : [n] in (0, 1) = sigmoid(raw)
  state  S : real [N, P]
  update S' = exp(g) * S
         for j in 1..n: S' = S' - b[j] * k[j] (k[j]^T S') + b[j] * k[j] v[j]^T
  output o = S' unit(u)
}""",
    # an input with a name of the kernels' own, from which angles that run on read how many keys there are
    "sequences": """
recurrence named {
  dim    N = 4, P = 3
  input  sequences, q : [N] per layer; v : [P]; theta : scalar per group
  state  S : real [P, N]
  update S' = S rot(tanh(theta)) + v sequences^T
  output o = S' q
}""",
    # two rows a token are written, and one is read, before them
    "one read of rows": """
recurrence one_read(n = 2) {
  dim    N = 4, P = 3
  input  q : [N]; v : [P]; k : [n, N]; u : [n, P]; g : scalar <= 0; m : scalar per group
  state  S : real [N, P]
  update S' = exp(g) * S + sum r in 1..n: k[r] u[r]^T
  output o = m * (S^T q) + v
}""",
    # heads that share keys are taken in turn, and one counts with its number
    "counted heads": """
recurrence counted_heads {
  dim    N = 4, P = 3
  input  q : [N]; k : [N] per group; v : [P]
  param  gamma : scalar per head = 1 - 2^(-5 - head)
  let    kn : [N] = unit(k)
  state  S : real [N, P]
  update S' = gamma * S - gamma * kn (kn^T S) + kn v^T
  output o = S'^T q
}""",
    # the length of what is read, whose slope at 0 rows behind the last token ask for, and a parameter that is a sum over them
    "a length behind the last token": """
recurrence read_length {
  dim    N = 4, P = 3
  input  q, k, a : [N]; u, v : [P]; g : scalar <= 0
  param  theta : [N/2] per head init uniform(0, 3)
  state  S : real [N, P]
  update S' = rot(tanh(theta)) (exp(g) * S) - unit(k) (unit(a)^T S) + unit(k) v^T
  output o = S'^T q + v * norm(S u)
}""",
}
"""Shortened from what was drawn, of points whose kernels failed before."""

KEYS = ("unit({0})", "unit({0})", "unit(silu({0}))", "rope(unit({0}))", "softmax({0})", "tanh({0}) / 3")
WIDE = (
    "sigmoid({0})", "exp(-softplus({0}))", "sigmoid({0} + {w})", "exp(-exp({0}))", "exp(-5 * sigmoid({0}))", "1 - sigmoid({0})",
    "clamp({0}, 0.1, 0.9)", "exp(logsigmoid({0}) / 16)", "sigmoid({w}) * sigmoid({0})", "1/2 + sigmoid({0}) / 2",
)  # fmt: skip


@st.composite
def specs(draw) -> str:
    """The text of a random recurrence whose tokens are one or more rows."""
    return _Rows(_Text(draw)).spec()


class _Rows:
    """One spec: a memory, perhaps a normaliser that obeys the same law, and what the steps of a token do to them."""

    def __init__(self, text: _Text):
        self.text = text
        self.N, self.P = _dims(text)
        self.counts: list[str] = []
        self.is_normalised = text.maybe(5)
        self.is_transposed = not self.is_normalised and text.maybe(5)
        self.turns = text.maybe(4)
        self.gauge = ""  # a running maximum: its name

    def spec(self) -> str:
        text = self.text
        self.v = text.vector("v", self.P, ("{0}", "{0}", "silu({0})"))
        self.key = self.vector("k")
        self.S, self.z = text.new("S"), text.new("z") if self.is_normalised else ""
        shape = (self.P, self.N) if self.is_transposed else (self.N, self.P)
        text.say("state", f"{self.S} : real [{shape[0]}, {shape[1]}]" + (f"; {self.z} : real [{self.N}]" if self.z else ""))
        lines = self.maximum() if text.maybe(4) else []
        for number in range(text.pick((1, 1, 1, 1, 2, 2))):
            lines += self.step(is_first=number == 0)
        if text.maybe(6):
            lines += self.assigned(self.decayed("{0}'"))
        text.say("update", "\n         ".join(lines))
        output, name = self.output(self.vector("q")), text.name
        if self.counts:
            text.name = f"{name}({', '.join(self.counts)})"
        return text.finish(output).replace(f"recurrence {name} ", f"recurrence {text.name} ")

    def vector(self, usual: str) -> str:
        return self.text.vector(usual, self.N, KEYS, _per(self.text))

    def maximum(self) -> list[str]:
        """A running maximum of a key's or the head's own: the first step fades by it, and writes relative to it."""
        text = self.text
        self.gauge, self.raw = text.new("m"), text.scalar("i")
        text.say("state", f"{self.gauge} : real scalar")
        moved = text.pick(("", f"{text.named('l', '<= 0', '-softplus({0})', text.scalar('l_r'))} + "))
        return [f"{self.gauge}' = max({moved}{self.gauge}, {text.pick((self.raw, f'max({self.raw}, 0)'))})"]

    # --- one step ---

    def step(self, is_first: bool) -> list[str]:
        """Equations of one step on the state as the steps before it left it."""
        old = "{0}" if is_first else "{0}'"
        if self.gauge and is_first:
            old = f"(exp({self.gauge} - {self.gauge}') * {{0}})"
        kind = self.text.pick(("write", "delta", "delta", "measured", "erase", "two keys", "rank", "together", "loop", "loop", "tap"))
        if (self.is_transposed and kind in ("rank", "together", "loop")) or ((self.z or self.gauge) and kind == "tap"):
            kind = "delta"
        if kind == "loop":
            return self.loop(is_first)
        decayed, b, k = self.decayed(old), self.weight(), self.vector("k") if self.text.maybe() else self.key
        match kind:
            case "write":
                return self.assigned(f"{decayed} + {{1}}", (self.text.coefficient(), k, self.v))
            case "delta":
                # forget first: the error is measured on what is left
                return self.assigned(self.erased(decayed, f"{b} * ", k, k) + " + {1}", (f"{b} * ", k, self.v))
            case "measured":
                e = self.vector("e") if self.text.maybe() else k
                return self.assigned(f"{decayed} - {self.rank_one(f'{b} * ', k, e, old)} + {{1}}", (f"{b} * ", k, self.v))
            case "erase":
                e, c = self.vector("e"), self.text.gate("c")
                return self.assigned(self.erased(decayed, f"{b} * {c} * ", k, e) + " + {1}", (f"{b} * ", k, self.v))
            case "tap":
                c, before = self.text.gate("c"), self.text.pick((True, False))
                own = f"{old} + {c} * {self.last(k)}" if before else old
                late = "" if before else f" + {c} * {self.last(k)}"
                fading = decayed.replace(old, f"({own})") if before else decayed
                return self.assigned(f"{fading} + {{1}}{late}", (f"{b} * ", k, self.v))
            case "two keys":
                a, u = self.vector("a"), self.vector("u")
                sign = self.text.pick("+-")
                return self.assigned(f"{decayed} {sign} {self.rank_one(f'{b} * ', u, a, old)} + {{1}}", ("", k, self.v))
        R, rows, values = self.rows()
        if kind == "rank":
            return self.assigned(f"{decayed} + {{1}}", (f"sum r in 1..{R}: ", f"{rows}[r]", f"{values}[r]"))
        e = self.text.new("e")
        self.text.say("input", f"{e} : [{R}, {self.N}] unit")
        erased = f"(sum r in 1..{R}: {self.rank_one(f'{b} * ', f'{rows}[r]', f'{e}[r]', old)})"
        return self.assigned(f"{decayed} - {erased} + {{1}}", (f"sum r in 1..{R}: ", f"{rows}[r]", f"{values}[r]"))

    def weight(self) -> str:
        """What a write is multiplied by: a gate, or an exponential relative to the maximum."""
        if self.gauge and self.text.maybe():
            return f"exp({self.raw} - {self.gauge}')"
        return self.text.gate("b")

    def loop(self, is_first: bool) -> list[str]:
        """`for j in 1..n`: several corrections or writes, each of what the one before left."""
        n, rows, values = self.rows()
        raw = self.text.new("b_r")
        self.text.say("input", f"{raw} : [{n}]")
        beta = self.text.new("b")
        self.text.say("gate", f"{beta} : [{n}] in (0, {self.text.pick((1, 2))}) = sigmoid({raw})")
        old = "{0}'" if not is_first else f"exp({self.gauge} - {self.gauge}') * {{0}}" if self.gauge else "{0}"
        first = self.assigned(self.decayed(f"({old})" if " " in old else old))
        decay = self.text.pick(("", "", f"{beta}[j] * ")) if self.text.maybe(3) else ""
        old = f"{decay}{{0}}'"
        erase = "" if self.text.maybe(4) else f" - {self.rank_one(f'{beta}[j] * ', f'{rows}[j]', f'{rows}[j]', old)}"
        body = self.assigned(f"{old}{erase} + {{1}}", (f"{beta}[j] * ", f"{rows}[j]", f"{values}[j]"))
        if len(body) > 1 and self.text.maybe():
            return [*first, f"for j in 1..{n}: {{", *(f"  {line}" for line in body), "}"]
        return [*first, *(f"for j in 1..{n}: {line}" for line in body)]

    def rows(self) -> tuple[str, str, str]:
        """A count with its keys and values."""
        n, k, v = self.text.new("n", awkward=False), self.text.new("k"), self.text.new("v")
        self.counts.append(f"{n} = {self.text.pick((2, 2, 2, 3))}")
        self.text.say("input", f"{k} : [{n}, {self.N}] unit; {v} : [{n}, {self.P}]")
        return n, k, v

    def decayed(self, old: str) -> str:
        """The state after it forgets: not at all, as a whole, or key by key."""
        match self.text.pick(("scalar", "turned", "turned", "pairs") if self.turns else ("none", "scalar", "wide", "wide", "static")):
            case "none":
                return old
            case "turned":
                decay = self.text.decay()
                return f"{f'{decay} * ' if decay else ''}{self.turned(old)}"
            case "pairs":
                raw, gate = self.text.new("w_r"), self.text.new("f")
                self.text.say("input", f"{raw} : [{self.N}/2]{_per(self.text)}")
                self.text.say("gate", f"{gate} : [{self.N}/2] in (0, 1) = sigmoid({raw})")
                turned = self.turned(old)
                return f"{turned} diag(pairs({gate}))" if self.is_transposed else f"diag(pairs({gate})) {turned}"
            case "scalar":
                decay = self.text.decay()
                return f"{decay} * {old}" if decay else old
            case "wide":
                form = self.text.pick(WIDE)
                raw = self.text.new("w_r")
                self.text.say("input", f"{raw} : [{self.N}]{_per(self.text)}")
                weight = self.text.new("w")
                if "{w}" in form:
                    self.text.say("param", f"{weight} : [{self.N}] per head init uniform(-1, 1)")
                gate = self.text.new("f")
                self.text.say("gate", f"{gate} : [{self.N}] in (0, 1] = {form.format(raw, w=weight)}")
                return f"{old} diag({gate})" if self.is_transposed else f"diag({gate}) {old}"
        weight = self.text.new("w")
        self.text.say("param", f"{weight} : [{self.N}] per head init linspace(-6, 0)")
        return f"{old} diag(exp(-exp({weight})))" if self.is_transposed else f"diag(exp(-exp({weight}))) {old}"

    def turned(self, old: str) -> str:
        """The state with its pairs of keys turned."""
        angle = self.text.new("theta")
        keyword, per = self.text.pick((("input", ""), ("input", " per group"), ("param", " per head init uniform(0, 3)")))
        self.text.say(keyword, f"{angle} : {self.text.pick((f'[{self.N}/2]', 'scalar'))}{per}")
        turn = f"rot({self.text.pick(('{0}', '2 * {0}', 'tanh({0})')).format(angle)})"
        return f"{old} {turn}" if self.is_transposed else f"{turn} {old}"

    def last(self, k: str) -> str:
        """The previous token's write of names alone."""
        names = [self.text.new("kd"), self.text.new("vd")]
        self.text.say("let", f"{names[0]} : [{self.N}] = {k}; {names[1]} : [{self.P}] = {self.v}")
        key, value = (f"{name}[-1]" for name in names)
        return f"{value} {key}^T" if self.is_transposed else f"{key} {value}^T"

    def rank_one(self, coefficient: str, key: str, erase: str, old: str) -> str:
        return f"{coefficient}({old} {erase}) {key}^T" if self.is_transposed else f"{coefficient}{key} ({erase}^T ({old}))"

    def erased(self, decayed: str, coefficient: str, key: str, erase: str) -> str:
        """`decayed` less what is read of it."""
        if self.is_transposed:
            return f"({decayed}) (I - {coefficient}{erase} {key}^T)"
        return f"(I - {coefficient}{key} {erase}^T) ({decayed})"

    def assigned(self, value: str, write: tuple[str, str, str] | None = None) -> list[str]:
        """The equation of every state: `{0}` is its name, `{1}` its write."""
        lines = []
        for state in (self.S, self.z) if self.z else (self.S,):
            if write is None:
                own = ""
            elif state == self.z:
                own = f"{write[0]}{write[1]}"
            else:
                own = f"{write[0]}{self.v if self.is_transposed else write[1]} {write[1] if self.is_transposed else write[2]}^T"
            lines.append(f"{state}' = {value.format(state, own)}")
        return lines

    # --- output ---

    def output(self, q: str) -> str:
        """One read or several, of keys or of values, dressed; sometimes a row of output for each of several queries."""
        text = self.text
        kind = text.pick(("one", "one", "one", "one", "sum", "rows", "values", "values too"))
        if kind == "one" or self.z:
            return _dressed(text, self.read(q), self.P, self.v)
        prime = text.pick(("'", "'", ""))
        if kind in ("sum", "rows"):
            n, queries = text.new("r", awkward=False), text.new("q")
            self.counts.append(f"{n} = {text.pick((2, 3))}")
            text.say("input", f"{queries} : [{n}, {self.N}]")
            one = self.one(f"{self.S}{prime}", f"{queries}[j]")
            if kind == "rows":
                return f"y[j] = {_dressed(text, one, self.P, self.v)} + 0 * {self.one(self.S, q)}"
            return _dressed(text, f"(sum j in 1..{n}: {text.pick(('', 'tanh'))}({one})) + {self.one(self.S, q)}", self.P, self.v)
        u = text.vector("u", self.P, ("{0}", "unit({0})", "tanh({0})"))
        other = f"{self.S}{prime}^T {u}" if self.is_transposed else f"{self.S}{prime} {u}"
        if kind == "values":
            return _dressed(text, f"{other} + {q}", self.N, self.key)
        return f"{self.read(q)} + {self.v} * norm({other})"

    def one(self, state: str, q: str) -> str:
        return f"{state} {q}" if self.is_transposed else f"{state}^T {q}"

    def read(self, q: str) -> str:
        if self.z:
            prime = self.text.pick(("'", "'", ""))
            return f"{self.S}{prime}^T {q} / max(abs({self.z}{prime}^T {q}), 1)"
        match self.text.pick(("after", "after", "after", "before", "both")):
            case "after":
                return self.one(f"{self.S}'", q)
            case "before":
                return self.one(self.S, q)
        return f"{self.one(self.S + chr(39), q)} - {self.text.scalar('c')} * ({self.one(self.S, q)})"


@cache
def points() -> tuple[str, ...]:
    """A spec of each of so many points: first those of one row a token."""
    found = distinct(plain_specs, points=DRAWN, draws=800, found={})
    return tuple(distinct(specs, points=DRAWN, draws=4000, found=found).values())


def interpret(text: str, number: int) -> None:
    """Called where triton interprets: prints what ran, or all that is wrong. number: of the point; trials alternate by it."""
    with tempfile.TemporaryDirectory() as folder:
        package, spec = write(text, Path(folder))
        subject = Subject(load(package), spec, "interpreter")
        holds(subject)
        with acting():
            kernels, step = subject.kernels("_kernels"), subject.kernels("_decode")
            measured = [] if kernels is None else compare(subject, kernels, trial_of(subject, kernels, number), "float32")
            ran = bool(measured)
            if step is not None and not subject.is_reversed:
                sizes = {**subject.sizes, **dict(spec.counts)}
                measured += compare_steps(subject, step, Trial(1, 2, 2, sizes), "float32")
    wrong = [f"{one.name} is off by {one.error:.1e} of {one.tolerance:.1e}, {one.trial}" for one in measured if not one.excess < 1]
    print("\n".join(wrong) or ("kernels" if ran else f"none: {why(text)}"))


def why(text: str) -> str:
    """What `explain` says of how a sequence runs."""
    said, _ = explain.summary(Source("test.ssm", text), {})
    return next(line.strip() for line in said.splitlines() if line.strip().startswith("a sequence "))


def trial_of(subject: Subject, kernels, number: int) -> Trial:
    """A chunk and three tokens: as a batch, in segments, or packed behind an empty document; a head, or two that share a group."""
    of_rows = [module._tokens(torch.float32)[0] for module in launchers_of(kernels) if hasattr(module, "_tokens")]
    tokens = max(of_rows or [32]) + 3
    ends = (0, 2, tokens) if number % 3 == 2 else ()
    sizes = {**subject.sizes, **dict(subject.recurrence.counts)}
    return Trial(1, tokens, 1 + number % 2, sizes, ends, segments=2 * (number % 3 == 1))


def held(text: str, number: int = 1) -> str:
    """What a point's spec prints where its kernels are interpreted: an assertion fails where something is wrong with it."""
    said = printed(f"import test_random_rows; test_random_rows.interpret({text!r}, {number})")
    assert said == "kernels" or said.startswith("none: "), f"{said}\n{text}"
    return said


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_holds(name):
    assert held(FOUND[name]) == "kernels"


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("part", range(PARTS))
def test_random_points_hold(part):
    """With their kernels: at least 300 over all parts. Those without say why."""
    if FRESH:
        fresh(specs if part % 2 else plain_specs, FRESH // PARTS, held)
        return
    faults, without, ran = [], [], 0
    for number, text in list(enumerate(points()))[part::PARTS]:
        try:
            said = held(text, number)
        except AssertionError as fault:
            faults.append(f"{number}: {fault}")
            continue
        ran += said == "kernels"
        without += [f"{number}: {said}"] if said != "kernels" else []
    print(*without, sep="\n")
    assert not faults, "\n\n".join(faults)
    assert ran >= POINTS // PARTS, "\n".join([f"the kernels of {ran} points ran", *without])
