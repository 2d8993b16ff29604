"""Random recurrences of the matrix-product part of the space: decays, corrections, rows and readouts in every combination.

`SSMGEN_RANDOM_SPECS=1000 pytest tests/test_random_rows.py` looks further than the default does, at fresh specs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from test_random_specs import _dims, _dressed, _per, _Text, is_accepted  # noqa: E402

COUNT = int(os.environ.get("SSMGEN_RANDOM_SPECS", "150"))

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

    def spec(self) -> str:
        text = self.text
        self.v = text.vector("v", self.P, ("{0}", "{0}", "silu({0})"))
        self.key = self.vector("k")
        self.S, self.z = text.new("S"), text.new("z") if self.is_normalised else ""
        shape = (self.P, self.N) if self.is_transposed else (self.N, self.P)
        text.say("state", f"{self.S} : real [{shape[0]}, {shape[1]}]" + (f"; {self.z} : real [{self.N}]" if self.z else ""))
        lines: list[str] = []
        for number in range(text.pick((1, 1, 1, 1, 2, 2, 3))):
            lines += self.step(is_first=number == 0)
        if text.maybe(6):
            lines += self.assigned(self.decayed("{0}'"))
        text.say("update", "\n         ".join(lines))
        q = self.vector("q")
        name = text.name
        if self.counts:
            text.name = f"{name}({', '.join(self.counts)})"
        return text.finish(_dressed(text, self.read(q), self.P, self.v)).replace(f"recurrence {name} ", f"recurrence {text.name} ")

    def vector(self, usual: str) -> str:
        return self.text.vector(usual, self.N, KEYS, _per(self.text))

    # --- one step ---

    def step(self, is_first: bool) -> list[str]:
        """Equations of one step on the state as the steps before it left it."""
        old = "{0}" if is_first else "{0}'"
        kind = self.text.pick(("write", "delta", "delta", "measured", "erase", "two keys", "rank", "together", "loop", "loop", "tap"))
        if (self.is_transposed and kind in ("rank", "together", "loop")) or (self.z and kind == "tap"):
            kind = "delta"
        if kind == "loop":
            return self.loop(is_first)
        decayed, b, k = self.decayed(old), self.text.gate("b"), self.vector("k") if self.text.maybe() else self.key
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

    def loop(self, is_first: bool) -> list[str]:
        """`for j in 1..n`: several corrections or writes, each of what the one before left."""
        n, rows, values = self.rows()
        raw = self.text.new("b_r")
        self.text.say("input", f"{raw} : [{n}]")
        beta = self.text.new("b")
        self.text.say("gate", f"{beta} : [{n}] in (0, {self.text.pick((1, 2))}) = sigmoid({raw})")
        first = self.assigned(self.decayed("{0}" if is_first else "{0}'"))
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
        self.counts.append(f"{n} = {self.text.pick((2, 2, 3))}")
        self.text.say("input", f"{k} : [{n}, {self.N}] unit; {v} : [{n}, {self.P}]")
        return n, k, v

    def decayed(self, old: str) -> str:
        """The state after it forgets: not at all, as a whole, or key by key."""
        match self.text.pick(("none", "scalar", "wide", "wide", "static")):
            case "none":
                return old
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

    def read(self, q: str) -> str:
        one = (lambda state: f"{state} {q}") if self.is_transposed else (lambda state: f"{state}^T {q}")
        if self.z:
            prime = self.text.pick(("'", "'", ""))
            return f"{self.S}{prime}^T {q} / max(abs({self.z}{prime}^T {q}), 1)"
        match self.text.pick(("after", "after", "after", "before", "both")):
            case "after":
                return one(f"{self.S}'")
            case "before":
                return one(self.S)
        return f"{one(self.S + chr(39))} - {self.text.scalar('c')} * ({one(self.S)})"


@pytest.mark.slow
def test_random_rows_hold():
    accepted = []

    @settings(
        max_examples=COUNT, derandomize="SSMGEN_RANDOM_SPECS" not in os.environ, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(specs())
    def run(text):
        note(text)
        with tempfile.TemporaryDirectory() as folder:
            accepted.append(is_accepted(text, Path(folder)))

    run()
    assert sum(accepted) >= 0.7 * len(accepted), f"{sum(accepted)} of {len(accepted)} accepted"
